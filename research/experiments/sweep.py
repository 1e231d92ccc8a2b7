"""The rows of a sweep file, and their runs: one after another or several at a time, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from monodepth_lib import files

from .recipe import Recipe, changed, difference


@dataclass(frozen=True)
class Row:
    """A recipe by its name, and the row it differs from ("" for the base itself)."""

    name: str
    recipe: Recipe
    like: str = ""
    differs: str = ""
    hours: bool = False  # for `train`, not for a sweep of minutes


def read_rows(path: Path) -> dict[str, Row]:
    """The rows of a sweep file, `base` first. Raises ValueError naming the row and what is wrong in it."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no TOML ({error})") from error
    if unknown := sorted(set(content) - {"base", "rows", "hours"}):
        raise ValueError(f"{path} has {', '.join(unknown)}; a sweep has [base], [rows.<name>] and [hours.<name>]")
    rows = {"base": Row("base", changed(Recipe(), content.get("base", {}), "base"))}
    entries = [(table, *entry) for table in ("rows", "hours") for entry in content.get(table, {}).items()]
    for table, name, switches in entries:
        if name in rows or not name.replace("_", "").isalnum():
            raise ValueError(f"{path}: a row cannot be named {name!r}; take letters, digits and _, none twice")
        like = switches.pop("like", "base")
        if like not in rows:
            raise ValueError(f"row {name}: there is no row {like!r} above it to be like")
        recipe = changed(rows[like].recipe, switches, name)
        rows[name] = Row(name, recipe, like, difference(recipe, rows[like].recipe), table == "hours")
    return rows


def pick(rows: dict[str, Row], names: str) -> list[Row]:
    """The rows named, separated by commas; for "" all but those of hours. Raises ValueError naming what is missing."""
    wanted = [name.strip() for name in names.split(",")] if names else [n for n, row in rows.items() if not row.hours]
    if unknown := [name for name in wanted if name not in rows]:
        raise ValueError(f"no row is named {', '.join(unknown)}; there are {', '.join(rows)}")
    return [rows[name] for name in wanted]


def run_all(runs: dict[tuple[str, int], list[str]], output: Path, jobs: int, log=print) -> list[str]:
    """Runs `python -m research.experiments train` with the given arguments for every (row, seed), `jobs` at a time.

    What a run says goes to log.txt in its folder, its last line to `log`. Returns the runs that failed. On Ctrl-C the
    running ones are ended; they lose what they did since their last checkpoint.
    """
    waiting, failed = list(runs), []
    running: dict[tuple[str, int], subprocess.Popen] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                row, seed = run = waiting.pop(0)
                folder = output / row / f"seed{seed}"
                folder.mkdir(parents=True, exist_ok=True)
                command = [sys.executable, "-m", "experiments", "train", row, *runs[run], "--output", str(folder)]
                with open(folder / "log.txt", "a") as file:
                    process = subprocess.Popen(command, cwd=files.project_root(), stdout=file, stderr=subprocess.STDOUT)
                running[run] = process
            for run, process in list(running.items()):
                if process.poll() is not None:
                    del running[run]
                    row, seed = run
                    lines = (output / row / f"seed{seed}" / "log.txt").read_text().strip().splitlines()
                    said = lines[-1] if lines else f"ended with status {process.returncode}"
                    if process.returncode:
                        failed.append(f"{row}, seed {seed}")
                        said = f"{row}, seed {seed} FAILED: {said}"
                    log(said)
            time.sleep(0.1)
    finally:
        for process in running.values():
            process.terminate()
            process.wait()
    return failed
