"""Rows of the table, and how they are measured: in turn, in one run, with every repeat kept.

Nothing here imports the library: in some of the processes another checkout's stands in its place.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent.parent
work: Callable[[], object]  # of a process of `apart`


@dataclass
class Row:
    """One line of the table: `ours` beside `theirs`, every repeat's value in `unit`."""

    item: str
    what: str
    unit: str
    ours: list[float]
    other: str = ""
    theirs: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ratio of the medians, ours / theirs."""
        return median(self.ours) / median(self.theirs) if self.theirs else None


@dataclass
class Options:
    """The options of the command line."""

    folder: Path  # a temporary one
    data: Path | None = None  # where pictures come from; None: the sample, enlarged to KITTI's size
    repeats: int = 5
    quick: bool = False
    peer: Path | None = None
    device: str = "cpu"


def in_turn(contenders: Mapping[str, Callable[[], object]], options: Options) -> dict[str, list[float]]:
    """Seconds of every repeat of every function, measured in turn, after a first round that does not count.

    What the machine does beside it, then falls on all of them alike. A function that returns a float has measured its
    seconds itself.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(options.repeats + (not options.quick)):
        for name, function in contenders.items():
            start = time.perf_counter()
            own = function()
            elapsed = own if isinstance(own, float) else time.perf_counter() - start
            if turn or options.quick:
                seconds[name].append(elapsed)
    return seconds


def apart(make: Callable[..., Callable[[], object]], *arguments: object) -> Callable[[], float]:
    """A function that has `make(*arguments)()` done in a process of its own and returns the seconds that it took there.

    So nobody profits or suffers from the memory that another has left. `make` is a module's function. Raises
    RuntimeError when it fails there, or when that process dies.
    """
    import torch

    process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    made = process.submit(prepare, torch.get_num_threads(), make, arguments)

    def go() -> float:
        try:
            made.result()
            return process.submit(seconds_there).result()
        except Exception as error:
            process.shutdown()  # its thread ends while `process` is there: without it Python 3.13.0 waits for ever
            name = type(error).__name__
            raise RuntimeError(f"a measurement in a process of its own failed: {name}: {error}") from error

    return go


def prepare(threads: int, make: Callable[..., Callable[[], object]], arguments: tuple) -> None:
    """In the process of `apart`: makes the function to measure."""
    import torch

    global work
    torch.set_num_threads(threads)
    work = make(*arguments)


def seconds_there() -> float:
    """In the process of `apart`: calls the function once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rates(seconds: list[float], count: float) -> list[float]:
    """Things per second, when `count` of them took each of these `seconds`."""
    return [count / s for s in seconds]


def child(code: str, **environment: str | None) -> str:
    """What Python prints when it runs `code` in a process of its own, from the project's folder; None unsets."""
    there = {key: value for key, value in {**os.environ, **environment}.items() if value is not None}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=there)
    if done.returncode:
        raise RuntimeError(f"a measurement in a process of its own failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


def memory(key: str = "VmHWM") -> float:
    """This process's resident memory in MB: "VmHWM" its peak, "VmRSS" its present value (Linux).

    Not `resource.getrusage`: its peak is handed on to a child process, which then begins at its parent's.
    """
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {key}: memory can only be measured on Linux")


def machine(threads: int) -> dict:
    """Where and when: processor, GPU, cores, threads, load, versions, date, commit."""
    import torch

    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        "processor": name,
        **gpu,
        "cores": os.cpu_count(),
        "threads": threads,
        "load before": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": date.today().isoformat(),
        "commit": commit(),
    }


def commit() -> str | None:
    """The commit that is checked out, with "-dirty" where files differ from it; None where git cannot say."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
