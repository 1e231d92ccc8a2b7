"""Rows of the table, and how they are measured: in turn, in one run, with every repeat kept."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
work: Callable[[], object]  # of a process of `apart`


@dataclass
class Row:
    """One line of the table: `ours` beside `theirs`, every repeat's value in `unit`.

    `target` is what is asked of the ratio of the medians, ours / theirs, such as ">= 2.0"; where there is nothing to
    compare with (`theirs` empty), of ours itself; "" where nothing is asked.
    """

    item: str
    what: str
    unit: str
    ours: list[float]
    other: str = ""
    theirs: list[float] = field(default_factory=list)
    target: str = ""
    note: str = ""
    points: list[tuple[float, float]] = field(default_factory=list)  # what `growth` is drawn from

    @property
    def value(self) -> float:
        return median(self.ours) / median(self.theirs) if self.theirs else median(self.ours)

    @property
    def reached(self) -> bool | None:
        if not self.target:
            return None
        sign, bound = self.target.split()
        return self.value >= float(bound) if sign == ">=" else self.value <= float(bound)


@dataclass
class Options:
    """What the command line asked for."""

    folder: Path  # a temporary one
    data: str | None = None  # where pictures come from; None: the sample, enlarged to KITTI's size
    repeats: int = 5
    quick: bool = False


def in_turn(contenders: Mapping[str, Callable[[], object]], options: Options) -> dict[str, list[float]]:
    """Seconds of every repeat of every function, one after the other in turn, after a first round that does not count.

    What the machine does beside it, then falls on all of them alike. A function that returns a float has measured its
    seconds itself.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(options.repeats + (not options.quick)):
        for name, function in contenders.items():
            start = time.perf_counter()
            own = function()
            elapsed = own if isinstance(own, float) else time.perf_counter() - start
            if round_ or options.quick:
                seconds[name].append(elapsed)
    return seconds


def second(step: Callable[[], object], context: contextlib.AbstractContextManager | None = None) -> float:
    """The seconds of the second of two calls, both inside `context`: the first has taken what memory they need."""
    with context or contextlib.nullcontext():
        step()
        start = time.perf_counter()
        step()
        return time.perf_counter() - start


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
            name = type(error).__name__
            raise RuntimeError(f"a measurement in a process of its own failed: {name}: {error}") from error

    return go


def prepare(threads: int, make: Callable[..., Callable[[], object]], arguments: tuple) -> None:
    """In the process of `apart`: makes the work that it is there for."""
    import torch

    global work
    torch.set_num_threads(threads)
    work = make(*arguments)


def seconds_there() -> float:
    """In the process of `apart`: does its work once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without prints and warnings, as of old code under a new torch."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def rates(seconds: list[float], count: float) -> list[float]:
    """Things a second, where `count` of them took each of these `seconds`."""
    return [count / s for s in seconds]


def child(code: str) -> str:
    """What Python prints when it runs `code` in a process of its own, from the project's folder."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"a measurement in a process of its own failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


def memory(key: str = "VmHWM") -> float:
    """This process's resident memory in MB: "VmHWM" its peak, "VmRSS" what it is now (Linux).

    Not `resource.getrusage`: its peak is handed on to a child process, which then begins at its parent's.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {key}: memory can only be measured on Linux")


def machine(threads: int) -> dict:
    """Where and when: processor, cores, threads, load, versions, date, commit."""
    import torch

    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    return {
        "processor": name,
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
