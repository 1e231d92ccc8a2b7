"""Executes all runs of a YAML file, here or on a cluster, and compares them on one page. Started again, it goes on.

    notebooks: [05_training, 06_testing]
    parameters: {epochs: 10}                                         # of every run
    grid: {learning_rate: [1.0e-3, 2.0e-3], base_channels: [8, 16]}  # every combination is a run
    runs: {residual: {model_name: resnet18_md}}                      # and so is each named one

The runs of sweep.yaml write to output/sweep/RUN/. If one of them fails, the others go on.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import yaml
from tqdm import tqdm

from ..files import locked, project_path, project_root
from . import command_parser, names, positive, short_name, start
from .run import all_values, expand, read_status, sentence, stop_cleanly, write_status

INCIDENTAL = ("device", "output_dir", "resume", "weights")  # these may differ when a run is started again


@dataclass(frozen=True)
class Run:
    """One run of a sweep: its name, notebooks, parameters and folder."""

    name: str
    notebooks: tuple[str, ...]
    parameters: dict
    folder: Path

    def values(self) -> dict[str, dict]:
        return all_values(self.notebooks, self.parameters, self.folder)


def read_sweep(path: str | Path) -> list[Run]:
    """The runs of a YAML file, with all parameters checked. Raises ValueError naming the file and the fault."""
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing: monodepth sweep --help shows what to write into it") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML file in UTF-8: {' '.join(str(error).split())}") from error
    kinds: dict[str, type | tuple] = {"notebooks": (str, list), "parameters": dict, "grid": dict, "runs": dict}
    if not isinstance(content, dict) or not content.get("notebooks"):
        raise ValueError(f"{path} must have notebooks, and grid or runs: monodepth sweep --help shows a file")
    for key, value in content.items():
        if key not in kinds:
            raise ValueError(f"{path} has {key!r}; it may have {', '.join(kinds)}")
        if not isinstance(value, kinds[key]):
            raise ValueError(f"{path}: {key} is {value!r}, which is no {'list' if key == 'notebooks' else 'mapping'}")
    books = [content["notebooks"]] if isinstance(content["notebooks"], str) else list(map(str, content["notebooks"]))
    grid, named = content.get("grid", {}), content.get("runs", {})
    for key, choices in grid.items():
        if not isinstance(choices, list) or not choices:
            raise ValueError(f"{path}: grid has {key} {choices!r}; it must be a list such as [{choices}]")
    found: list[tuple[str, dict]] = []
    for values in itertools.product(*grid.values()) if grid else []:
        chosen = dict(zip(grid, values, strict=True))
        label = ",".join(f"{key}={value}" for key, value in chosen.items())
        found.append((short_name(re.sub(r"[^\w.,=+-]+", "_", label)), chosen))
    found += [(str(name), changes or {}) for name, changes in named.items()]
    if not found:
        raise ValueError(f"{path} has no run: give it grid or runs")
    runs = []
    for name, changes in found:
        own = re.fullmatch(r"\w[\w.,=+-]*", name) and [other for other, _ in found].count(name) == 1
        if not own or short_name(name) != name:
            raise ValueError(
                f"{path}: {name!r} cannot name a folder of its own; give each run a short one of letters, digits, -"
            )
        if not isinstance(changes, dict):
            raise ValueError(f"{path}: run {name} is {changes!r}; it must be a mapping of parameters")
        parameters = {**content.get("parameters", {}), **changes}
        one = Run(name, tuple(expand(books)), parameters, project_path("output") / path.stem / name)
        try:
            one.values()
        except ValueError as error:
            raise ValueError(f"{path}, run {name}: {error}") from error
        runs.append(one)
    return runs


def unfinished(runs: Sequence[Run], retry: bool) -> list[Run]:
    """The runs that are not done (failed ones only with `retry`). Prints why the others are left out.

    Raises ValueError when a folder holds a run with other parameters: the two would mix.
    """
    left = []
    for one in runs:
        status = read_status(one.folder)
        for name, values in one.values().items() if status["notebooks"] else ():
            before = status["notebooks"].get(name)
            if before is None:
                raise ValueError(f"{one.folder} was made without {name}: choose another name or remove it")
            other = [key for key in values if key not in INCIDENTAL and before.get(key) != values[key]]
            if other:
                said = ", ".join(f"{key} {before.get(key)!r} (here {values[key]!r})" for key in other)
                raise ValueError(f"{one.folder} was made with {said}: choose another name or remove it")
        if status["state"] == "done":
            print(f"{one.name}: done before")
        elif status["state"] == "failed" and not retry:
            print(f"{one.name}: failed before, --retry starts it again: {status['said']}")
        else:
            left.append(one)
    return left


# --- one run, where it is executed ----------------------------------------------------------------------------------


def command(one: Run, device: str | None) -> list[str]:
    """The arguments of Python for this run; it goes on from a checkpoint if there is one."""
    parameters = {**one.parameters}
    known = {key for values in one.values().values() for key in values}
    if "resume" in known:
        parameters.setdefault("resume", True)
    if device and "device" in known:
        parameters["device"] = device
    given = []
    for key, value in parameters.items():
        text = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")
        given += ["-p", key, text]
    where = ["--output", str(one.folder), "--from-sweep"]
    return ["-m", "monodepth_lib.commands.run", *one.notebooks, *given, *where]


def execute(
    folder: Path,
    commands: dict[str | None, list[str]],
    root: Path,
    stop,
    places: SimpleQueue | None = None,
    threads: int | None = None,
) -> int:
    """Runs Python in a new process and returns its exit status; its output goes to log.txt in `folder`.

    It takes a device from `places` while it runs; `commands`: device -> arguments (None: the notebooks' own device). It
    ends early when the event `stop` is set or this process ends, because the run's standard input then closes.
    """
    if stop.is_set():
        return 130
    device = places.get() if places else None
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    if threads:
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    folder.mkdir(parents=True, exist_ok=True)
    process = None
    try:
        with open(folder / "log.txt", "a", encoding="utf-8") as log:
            log.write(f"started on {device or platform.node()}\n")
            log.flush()
            process = subprocess.Popen(
                [sys.executable, *commands[device]],
                cwd=root,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # only the sweep gets a terminal's Ctrl-C
            )
        while process.poll() is None and not stop.is_set():
            time.sleep(0.2)
    finally:
        if process:
            process.terminate()
            process.wait()
        if places:
            places.put(device)
    return process.returncode


# --- all of them --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_pool(devices: Sequence[str | None], cluster: str = "") -> Iterator[tuple]:
    """The executor of the runs (threads, or a Dask cluster), and the arguments of `execute` after `root`.

    On a cluster, a run takes one GPU if workers declare such a resource, else one thread of a worker. The workers must
    see the project at the same path. A run whose worker is lost goes to another one. Raises ValueError without workers,
    OSError when the address `cluster` does not answer.
    """
    if not cluster:
        places: SimpleQueue = SimpleQueue()
        for device in devices:
            places.put(device)
        # otherwise each would use all cores of the processor
        threads = max(1, (os.cpu_count() or 1) // len(devices)) if len(devices) > 1 else None
        with ThreadPoolExecutor(len(devices)) as pool:
            yield pool, threading.Event(), places, threads
        return
    try:
        from distributed import Client, Event
    except ImportError as error:
        raise ValueError('--cluster needs Dask: pip install "monodepth-lib[cluster]"') from error
    with Client(cluster, timeout=30) as client:
        workers = client.scheduler_info()["workers"].values()
        if not workers:
            raise ValueError(f"{cluster} has no worker; start one: dask worker {cluster} --nthreads 1")
        gpu = {"GPU": 1} if any(worker["resources"].get("GPU") for worker in workers) else None
        yield client.get_executor(pure=False, resources=gpu), Event(f"stop-{uuid.uuid4()}", client)


class Follower:
    """Follows the log of a run: prints where it starts and, in a terminal, shows a bar of its epochs."""

    def __init__(self, one: Run) -> None:
        self.name, self.log = one.name, one.folder / "log.txt"
        self.seen = self.log.stat().st_size if self.log.is_file() else 0
        self.bar: tqdm | None = None

    def look(self) -> None:
        with contextlib.suppress(FileNotFoundError), open(self.log, "rb") as file:
            file.seek(self.seen)
            new = file.read().rpartition(b"\n")[0]
            self.seen += len(new)
            for line in new.decode(errors="replace").splitlines():
                if line.startswith("started on "):
                    tqdm.write(f"{self.name}: {line}")
                    if self.bar is None:
                        self.bar = tqdm(desc=self.name, unit="epoch", leave=False, disable=None)
                elif self.bar is not None and (told := re.match(r"epoch +(\d+)/(\d+) ", line)):
                    if self.bar.disable:
                        continue
                    self.bar.initial = self.bar.initial or int(told[1])  # a resumed run counts time from there
                    self.bar.n, self.bar.total = map(int, told.groups())
                    self.bar.refresh()


def work(runs: Sequence[Run], devices: Sequence[str | None], cluster: str = "") -> None:
    """Executes the runs, one on each of `devices` at a time or on the workers of a cluster.

    A line says where each run begins and how it ends. An error ends only its own run. When `work` is stopped, it stops
    all runs; their checkpoints are kept.
    """
    with open_pool(devices, cluster) as (pool, stop, *others):
        followers = {one.name: Follower(one) for one in runs}
        waiting = {}
        for one in runs:
            commands = {device: command(one, device) for device in devices}
            waiting[pool.submit(execute, one.folder, commands, project_root(), stop, *others)] = one
        try:
            while waiting:
                done, _ = wait(waiting, 0.2, FIRST_COMPLETED)
                for follower in followers.values():
                    follower.look()
                for future in done:
                    one = waiting.pop(future)
                    if (bar := followers.pop(one.name).bar) is not None:
                        bar.close()
                    tqdm.write(f"{one.name}: {how_it_ended(one, future)}")
                sys.stdout.flush()
        finally:
            stop.set()
            wait(waiting, 60)


def how_it_ended(one: Run, future: Future) -> str:
    """How a run ended, in one sentence; writes it to status.json if the run itself could not."""
    lines: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        lines = (one.folder / "log.txt").read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    try:
        code = future.result()
    except Exception as error:  # of the disk, or of the cluster (a run that killed every worker)
        code, last = 1, sentence(error)
    if code == 2:
        return last  # the run has not begun
    status = read_status(one.folder)
    if code and status["state"] not in ("failed", "stopped"):
        said = f"ended by signal {-code}; the system does so when memory runs out" if code < 0 else last
        status |= {"state": "failed", "said": said}
        with contextlib.suppress(OSError):  # the sentence is returned anyway
            write_status(one.folder, state="failed", said=said)
    return f"done in {status['seconds']:.0f} s" if status["state"] == "done" else f"{status['state']}: {status['said']}"


# --- the command --------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 all done, 1 some are not, 2 wrong arguments, 130 stopped."""
    parser = command_parser("sweep", __doc__, "monodepth sweep rates.yaml --devices cuda:0,cuda:1")
    parser.add_argument("file", help="what to run, as YAML: notebooks, parameters, grid, runs")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--devices", type=names, help="one run on each of them at a time, such as cuda:0,cuda:1")
    where.add_argument("--jobs", type=positive(int), default=1, help="runs at a time (default: 1)")
    where.add_argument("--cluster", default="", metavar="ADDRESS", help="run on the workers of Dask: tcp://host:8786")
    parser.add_argument("--retry", action="store_true", help="start failed runs again, too")
    parser.add_argument("--summary", action="store_true", help="run nothing, only write the summary")
    options = parser.parse_args(arguments)
    devices = [name.strip() for name in options.devices.split(",")] if options.devices else [None] * options.jobs
    stop_cleanly()
    try:
        runs = read_sweep(options.file)
        folder = runs[0].folder.parent
        if not options.summary:
            with locked(folder):
                work(unfinished(runs, options.retry), devices, options.cluster)
        from .summary import Result, compare, table, write_summary  # imports torch and matplotlib, not needed before

        results = [Result(one.name, one.parameters, one.folder, read_status(one.folder)) for one in runs]
        write_summary(results, folder / "summary.html")
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"{error}", file=sys.stderr)
        return 2
    print(f"\n{table(*compare(results))}\n")
    for one in results:
        if one.status["said"]:
            print(f"{one.name}: {one.status['said']}")
    print(f"the comparison is in {folder / 'summary.html'}")
    return 0 if all(one.status["state"] == "done" for one in results) else 1


if __name__ == "__main__":
    start(main)
