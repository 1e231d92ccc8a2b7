"""Many runs from one file: `python -m monodepth_lib.commands.run sweep FILE.yaml`. See `read_sweep` for the file.

The runs are executed by `batch`, one after another or one a device; `summary` then compares them on one page.
Whatever happens to one of them, the others go on; started again, the same command does what is left to do.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from tqdm import tqdm

from ..files import project_path
from .run import all_values, expand, locked, read_status, take_parameters, write_status

INCIDENTAL = ("device", "output_dir", "resume", "weights")  # may differ when a run is started again


@dataclass(frozen=True)
class Run:
    """One run of a sweep: its name, what it executes with which parameters, and its folder."""

    name: str
    notebooks: tuple[str, ...]
    parameters: dict
    folder: Path

    def values(self) -> dict[str, dict]:
        return all_values(take_parameters(self.notebooks, self.parameters, self.folder))


def read_sweep(path: str | Path) -> list[Run]:
    """The runs of a YAML file; those of `sweep.yaml` write to `output/sweep/<run>/`.

        notebooks: [05_training, 06_testing]
        parameters: {epochs: 10}                                  # of every run
        grid: {learning_rate: [1.0e-3, 2.0e-3], width: [8, 16]}   # every combination is a run
        runs: {residual: {model_name: resnet18_md}}               # and so is each with a name

    Every parameter of every run is checked. Raises ValueError naming the file and what is wrong in it.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML file: {' '.join(str(error).split())}") from error
    kinds: dict[str, type | tuple] = {"notebooks": (str, list), "parameters": dict, "grid": dict, "runs": dict}
    if not isinstance(content, dict) or not content.get("notebooks"):
        raise ValueError(f"{path} must have notebooks, and grid or runs; see the README")
    for key, value in content.items():
        if key not in kinds:
            raise ValueError(f"{path} has {key!r}; it may have {', '.join(kinds)}")
        if not isinstance(value, kinds[key]):
            raise ValueError(f"{path}: {key} is {value!r}, which is no {'list' if key == 'notebooks' else 'mapping'}")
    names = [content["notebooks"]] if isinstance(content["notebooks"], str) else list(map(str, content["notebooks"]))
    grid, named = content.get("grid", {}), content.get("runs", {})
    for key, choices in grid.items():
        if not isinstance(choices, list) or not choices:
            raise ValueError(f"{path}: grid has {key} {choices!r}; it must be a list such as [{choices}]")
    found: list[tuple[str, dict]] = []
    for values in itertools.product(*grid.values()) if grid else []:
        chosen = dict(zip(grid, values, strict=True))
        label = ",".join(f"{key}={value}" for key, value in chosen.items())
        found.append((re.sub(r"[^\w.,=+-]+", "_", label), chosen))
    found += [(str(name), changes or {}) for name, changes in named.items()]
    if not found:
        raise ValueError(f"{path} has no run: give it grid or runs")
    runs = []
    for name, changes in found:
        if not re.fullmatch(r"\w[\w.,=+-]*", name) or [other for other, _ in found].count(name) > 1:
            raise ValueError(
                f"{path}: {name!r} cannot name a folder of its own; give each run one of letters, digits, -"
            )
        if not isinstance(changes, dict):
            raise ValueError(f"{path}: run {name} is {changes!r}; it must be a mapping of parameters")
        parameters = {**content.get("parameters", {}), **changes}
        one = Run(name, tuple(expand(names)), parameters, project_path("output") / path.stem / name)
        try:
            one.values()
        except ValueError as error:
            raise ValueError(f"{path}, run {name}: {error}") from error
        runs.append(one)
    return runs


def unfinished(runs: Sequence[Run], retry: bool) -> list[Run]:
    """Those that are not done; failed ones only on `retry`. Says of each other one why it is left out.

    Raises ValueError when a folder holds a run with other parameters: it would be neither the old nor the new one.
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


def command(one: Run, device: str | None) -> list[str]:
    """The command of this one run, which goes on from a checkpoint where there is one."""
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
    name = f"{one.folder.parent.name}/{one.name}"
    return [sys.executable, "-m", "monodepth_lib.commands.run", *one.notebooks, *given, "--name", name]


def work(runs: Sequence[Run], devices: Sequence[str | None]) -> None:
    """Executes the runs in processes of their own, one on each of `devices` at a time (None: where its notebooks say).

    A run prints to `log.txt` in its folder; here a line says that it has begun, one how it has ended, and in a terminal
    a bar shows its epochs. What goes wrong in one run ends that one. Stopped, it stops them all, checkpoints and all.
    """
    environment = dict(os.environ)
    if len(devices) > 1:  # else each would take all the processor's cores
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // len(devices))))
    waiting = list(runs)
    running: dict[int, tuple[Run, subprocess.Popen, tqdm]] = {}
    try:
        while waiting or running:
            for place, device in enumerate(devices):
                if waiting and place not in running:
                    one = waiting.pop(0)
                    one.folder.mkdir(parents=True, exist_ok=True)
                    bar = tqdm(desc=one.name, position=place, unit="epoch", leave=False, disable=None)
                    with open(one.folder / "log.txt", "a") as log:
                        process = subprocess.Popen(
                            command(one, device),
                            stdout=log,
                            stderr=subprocess.STDOUT,
                            env=environment,
                            start_new_session=True,  # a terminal's Ctrl-C comes here alone
                        )
                    running[place] = one, process, bar
                    tqdm.write(f"{one.name}: started" + (f" on {device}" if device else ""))
            for place, (one, process, bar) in list(running.items()):
                show_epoch(bar, one.folder / "log.txt")
                if process.poll() is not None:
                    bar.close()
                    del running[place]
                    tqdm.write(f"{one.name}: {how_it_ended(one, process.returncode)}")
            sys.stdout.flush()
            time.sleep(0.2)
    finally:
        for _, process, bar in running.values():
            bar.close()
            process.terminate()
        for _, process, _ in running.values():
            process.wait()


def show_epoch(bar: tqdm, log: Path) -> None:
    """Moves a bar to the last epoch that a log tells of."""
    if not bar.disable and (told := re.findall(r"^epoch +(\d+)/(\d+) ", log.read_text(errors="replace"), re.MULTILINE)):
        bar.initial = bar.initial or int(told[-1][0])  # of a run that goes on: the bar counts the time from there
        bar.n, bar.total = map(int, told[-1])
        bar.refresh()


def how_it_ended(one: Run, code: int) -> str:
    """One sentence, which status.json has as well: also of a process that could not write it."""
    status = read_status(one.folder)
    lines = (one.folder / "log.txt").read_text(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    if code == 2:
        return last  # it has not begun
    if code and status["state"] not in ("failed", "stopped"):
        said = f"ended by signal {-code}; the system does so when memory runs out" if code < 0 else last
        write_status(one.folder, state="failed", said=said)
        status = read_status(one.folder)
    return f"done in {status['seconds']:.0f} s" if status["state"] == "done" else f"{status['state']}: {status['said']}"


# --- the command ------------------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """`sweep FILE`. Returns the exit status: 0 all done, 1 some are not, 2 wrong arguments, 130 stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m monodepth_lib.commands.run sweep",
        description="Makes every run of a YAML file and compares them. Started again, it goes on where it was.",
    )
    parser.add_argument("file", help="what to run, as YAML: notebooks, parameters, grid, runs")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--devices", help="one run on each of them at a time, such as cuda:0,cuda:1")
    where.add_argument("--jobs", type=int, default=1, help="so many runs at a time (default 1)")
    parser.add_argument("--retry", action="store_true", help="start failed runs again, too")
    parser.add_argument("--summary", action="store_true", help="run nothing, only write the summary")
    options = parser.parse_args(arguments)
    devices = options.devices.split(",") if options.devices else [None] * options.jobs
    if not devices or not all(device or device is None for device in devices):
        parser.error(f"no run can start on {options.devices or options.jobs!r}")
    try:
        runs = read_sweep(options.file)
        if not options.summary:
            with locked(runs[0].folder.parent):
                work(unfinished(runs, options.retry), devices)
        from .summary import compare, table, write_summary  # brings torch and matplotlib, not needed until here

        page = write_summary(runs)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"{error}", file=sys.stderr)
        return 2
    print(f"\n{table(*compare(runs))}\n")
    statuses = {one.name: read_status(one.folder) for one in runs}
    for name, status in statuses.items():
        if status["said"]:
            print(f"{name}: {status['said']}")
    print(f"the comparison is in {page}")
    return 0 if all(status["state"] == "done" for status in statuses.values()) else 1
