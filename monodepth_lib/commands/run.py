"""Runs notebooks from the shell, by papermill, into output/NAME.

Unlike papermill, it refuses a parameter that no notebook has, and a value whose type differs from the notebook's
default. For many runs see `monodepth sweep`.
"""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from ..files import atomic_write, locked, project_path, project_root
from . import command_parser, here, start

NOTEBOOKS = (
    "00_first_look",
    "01_data_preparation",
    "02_transforms",
    "03_loss_equations",
    "04_networks",
    "05_training",
    "06_testing",
    "07_gif",
    "08_your_own",
)
SHORT = {"model": "model_name"}  # short name: a notebook's parameter; there, `model` is the network itself
# The lab's data. Profile "full" uses it when no data_dir is given.
LAB = {
    "data_dir": "data",
    "train_drives": "lab",
    "val_drives": "lab",
    "test_drives": "lab",
    "gif_drive": "2011_09_26_drive_0014_sync",
}

# --- parameters ---------------------------------------------------------------------------------------------------


def bare(name: str) -> str:
    """A notebook's name without its language: zh/05_training -> 05_training."""
    return name.rpartition("/")[2]


def notebook_path(name: str) -> Path:
    """notebooks/<name>.ipynb; "zh/<name>" is the Chinese one. Raises FileNotFoundError listing the known names."""
    folder = project_root() / "notebooks"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no notebooks in {folder.parent}: they live in the repository, start this command there"
        )
    path = folder / f"{name.removesuffix('.ipynb')}.ipynb"
    if not path.is_file():
        raise FileNotFoundError(f"no notebook is named {name!r}; there are {', '.join(NOTEBOOKS)} and 'all'")
    return path


def declared_parameters(path: Path) -> dict[str, tuple[object, str]]:
    """A notebook's parameters: name -> (default, type); the type comes from the annotation, else from the default."""
    import papermill

    declared = {}
    for name, entry in papermill.inspect_notebook(path).items():
        default = ast.literal_eval(entry["default"])
        annotation = re.sub(r"\s*\|\s*None|Optional\[|\]", "", entry["inferred_type_name"])
        declared[name] = default, annotation if annotation not in ("", "None") else type(default).__name__
    return declared


def check_parameter(name: str, value: object, kind: str) -> object:
    """`value` in the type of the notebook; an int becomes a float, None is always allowed. Raises ValueError."""
    kinds = {"int": int, "float": (int, float), "str": str, "bool": bool, "list": list}
    expected = kinds.get(kind)
    wrong_bool = isinstance(value, bool) and kind != "bool"
    if value is None or expected is None or (isinstance(value, expected) and not wrong_bool):  # type: ignore[arg-type]
        return float(value) if kind == "float" and isinstance(value, int) else value
    hint = "; YAML reads 1e-4 as text, write 1.0e-4" if kind == "float" else ""
    raise ValueError(f"parameter {name} is {value!r}, but the notebook wants {kind}{hint}")


def take_parameters(names: Sequence[str], parameters: dict, output: Path) -> dict[str, dict]:
    """The parameters for each notebook: those of `parameters` that it has, checked; results go to `output`.

    By default, notebooks after 05 get the weights that 05 trains, and profile "full" gets the lab's drives. Raises
    ValueError for a value of the wrong type, and for a parameter that none of the notebooks has.
    """
    declared = {name: declared_parameters(notebook_path(name)) for name in names}
    parameters = {SHORT.get(name, name): value for name, value in parameters.items()}
    if unknown := sorted(map(str, set(parameters).difference(*declared.values()))):
        known = ", ".join(dict.fromkeys(key for entries in declared.values() for key in entries))
        raise ValueError(f"{' and '.join(names)}: no parameter is named {', '.join(unknown)}; there are {known}")
    given = {**parameters, "output_dir": parameters.get("output_dir") or str(output)}
    if parameters.get("profile") == "full" and "data_dir" not in parameters:
        given = {**LAB, **given}
        if (
            given["test_drives"] != LAB["test_drives"]
            and "07_gif" in map(bare, declared)
            and "gif_drive" not in parameters
        ):
            raise ValueError("gif_drive is the lab's, test_drives is not: name the drive to show, -p gif_drive DRIVE")
    taken = {}
    for name, entries in declared.items():
        taken[name] = {
            key: check_parameter(key, given[key], kind) for key, (_, kind) in entries.items() if key in given
        }
        if bare(name) == "05_training":
            given.setdefault("weights", str(Path(given["output_dir"]) / "weights.safetensors"))
    return taken


def all_values(names: Sequence[str], parameters: dict, output: Path) -> dict[str, dict]:
    """All parameters of all notebooks: the values of `take_parameters`, and the defaults of the others."""
    taken = take_parameters(names, parameters, output)
    defaults = {name: declared_parameters(notebook_path(name)) for name in taken}
    return {name: {key: value for key, (value, _) in defaults[name].items()} | taken[name] for name in taken}


# --- execution ----------------------------------------------------------------------------------------------------


def run(name: str, parameters: dict, output: Path) -> Path:
    """Executes one notebook into `output/<name>.ipynb`; standard output shows only what its cells print.

    Returns the path of the executed notebook, which is saved after every cell, and every 30 s within a cell. Raises
    papermill.PapermillExecutionError for an error in a cell, and before the start ValueError as `take_parameters` does.
    """
    import papermill

    source = notebook_path(name)
    taken = take_parameters([name], parameters, output)[name]
    output.mkdir(parents=True, exist_ok=True)
    target = output / source.name
    for logger in ("translators", "utils"):  # they would warn about what is checked here
        logging.getLogger(f"papermill.{logger}").setLevel(logging.ERROR)
    papermill.execute_notebook(
        source,
        target,
        taken,
        cwd=str(source.parent),
        kernel_name="python3",
        stdout_file=sys.stdout,
        stderr_file=sys.stdout,
        progress_bar=False,
        autosave_cell_every=30,
        store_widget_state=False,
        iopub_timeout=60,
        extra_arguments=["--log-level=CRITICAL"],  # the kernel would warn about its connection
    )
    return target


def run_all(parameters: dict, output: Path, names: Sequence[str] = NOTEBOOKS) -> None:
    """Runs the notebooks in order, each with its own parameters; all are checked before the first one runs."""
    for name, taken in take_parameters(names, parameters, output).items():
        started = time.perf_counter()
        run(name, taken, output)
        print(f"{name}: done in {time.perf_counter() - started:.0f} s", flush=True)


# --- how a run ended: status.json -----------------------------------------------------------------------------------


def read_status(folder: Path) -> dict:
    """The status.json of `run_noted`: state, said (the reason of a failure), notebooks with parameters, seconds."""
    try:
        return json.loads((folder / "status.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"state": "waiting", "said": "", "notebooks": {}}
    except ValueError as error:
        raise ValueError(f"{folder / 'status.json'} cannot be read ({error}): remove it to run this again") from error


def write_status(folder: Path, **changes) -> None:
    with atomic_write(folder / "status.json") as partial:
        partial.write_text(json.dumps({**read_status(folder), **changes}, indent=1) + "\n", encoding="utf-8")


def sentence(error: BaseException) -> str:
    """The reason why a run did not finish, on one line."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    if isinstance(error, KeyboardInterrupt):
        return "before its end; what was saved is kept"
    if isinstance(error, DeadKernelError):
        return "the notebook's process was killed, as the system does when memory runs out: try a smaller batch_size"
    if isinstance(error, papermill.PapermillExecutionError):
        return " ".join(f"{error.ename}: {error.evalue}".split())
    return " ".join(f"{type(error).__name__}: {error}".split())


def check_free(names: Sequence[str], output: Path) -> None:
    """Raises FileExistsError when `output` holds a notebook of these names that no run wrote: a student's work."""
    for name in names:
        path = output / notebook_path(name).name
        if path.is_file() and b'"papermill": {' not in path.read_bytes():
            raise FileExistsError(f"{path} is there, and no run wrote it: name another folder with --output")


def run_noted(names: Sequence[str], parameters: dict, output: Path, patience: float = 0.0) -> None:
    """`run_all`, which also writes what it runs and how that ended to `output/status.json`. Raises the same errors.

    Waits up to `patience` seconds for another run in the same folder to end.
    """
    with locked(output, patience):
        started = time.time()
        values = all_values(names, parameters, output)
        check_free(names, output)
        write_status(output, state="running", said="", notebooks=values, seconds=0.0)
        try:
            run_all(parameters, output, names)
        except BaseException as error:
            state = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            with contextlib.suppress(OSError):  # a full disk has been reported already
                write_status(output, state=state, said=sentence(error), seconds=time.time() - started)
            raise
        write_status(output, state="done", seconds=time.time() - started)


# --- the command --------------------------------------------------------------------------------------------------


def expand(names: Sequence[str]) -> Sequence[str]:
    """`names` without .ipynb, or all of them for "all"."""
    return NOTEBOOKS if list(names) == ["all"] else [name.removesuffix(".ipynb") for name in names]


def stop_cleanly() -> None:
    """Makes `kill` and the end of a terminal session act like Ctrl-C, unless they are ignored (nohup)."""

    def stop(*_):
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGTERM", "SIGHUP"):
        if (number := getattr(signal, name, None)) and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, stop)


def end_with_parent() -> None:
    """Stops this run, as `kill` does, when standard input closes: then the sweep that started it has ended."""

    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin: its lock would delay the end of the process
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 done, 1 a notebook failed, 2 wrong arguments, 130 stopped."""
    parser = command_parser("run", __doc__, "monodepth run 05_training 06_testing -p epochs 2 --name mine")
    add = parser.add_argument
    add("notebook", nargs="+", help=f"{', '.join(NOTEBOOKS)}; or all")
    add("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter and its value in YAML")
    add("--language", choices=("en", "zh"), default="en", help="zh: the notebooks with Chinese prose (default: en)")
    add("--name", default="run", help="the folder below output/ of the project (default: run)")
    add("--output", type=here, metavar="FOLDER", help="another folder, instead of --name")
    add("--from-sweep", action="store_true", help="end when standard input closes; wait for the folder")
    options = parser.parse_args(arguments)
    output = options.output or project_path("output") / options.name
    names = expand(options.notebook)
    if options.language != "en":
        names = [f"{options.language}/{name}" for name in names]
    try:
        parameters = {name: yaml.safe_load(value) for name, value in options.p}
        take_parameters(names, parameters, output)
    except (ValueError, OSError, yaml.YAMLError) as error:
        print(f"{error}", file=sys.stderr)
        return 2

    stop_cleanly()
    if options.from_sweep:
        end_with_parent()
    begun = time.time() - 1  # file systems round times
    try:
        run_noted(names, parameters, output, 60.0 if options.from_sweep else 0.0)
    except KeyboardInterrupt:
        print(f"stopped; what was saved is in {output}, -p resume true goes on from a checkpoint", file=sys.stderr)
        return 130
    except (BlockingIOError, FileExistsError) as error:  # the folder of another run, or of the user
        print(f"{error}", file=sys.stderr)
        return 2
    except Exception as error:  # of a cell, of a kernel that died or never started, of the disk
        executed = [path for path in output.glob("*.ipynb") if path.stat().st_mtime >= begun]
        there = f"the executed notebook is in {output}" if executed else "--output FOLDER writes elsewhere"
        print(f"{sentence(error)} ({there})", file=sys.stderr)
        return 1
    print(f"results are in {output}")
    return 0


if __name__ == "__main__":
    start(main)
