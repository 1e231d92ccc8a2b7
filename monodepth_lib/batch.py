"""The notebooks from the shell: `python -m monodepth_lib.batch 05_training -p epochs 2 --name mine`, or `all`.

Executes notebooks with papermill into `output/<name>/`. What papermill lets pass is refused here: a parameter no
notebook has, and a value of another type than the notebook's default.
"""

from __future__ import annotations

import argparse
import ast
import logging
import re
import sys
import time
from pathlib import Path

import yaml

from .kitti import project_path, project_root

NOTEBOOKS = (
    "01_data_preparation",
    "02_transforms",
    "03_loss_equations",
    "04_networks",
    "05_training",
    "06_testing",
    "07_gif",
)


def notebook_path(name: str) -> Path:
    """notebooks/<name>.ipynb. Raises FileNotFoundError listing the names there are."""
    path = project_root() / "notebooks" / f"{name.removesuffix('.ipynb')}.ipynb"
    if not path.is_file():
        raise FileNotFoundError(f"no notebook is named {name!r}; there are {', '.join(NOTEBOOKS)} and 'all'")
    return path


def declared_parameters(path: Path) -> dict[str, tuple[object, str]]:
    """A notebook's parameters: name -> (default, type), the type from the default or, for None, from its annotation."""
    import papermill

    declared = {}
    for name, entry in papermill.inspect_notebook(path).items():
        default = ast.literal_eval(entry["default"])
        annotation = re.sub(r"\s*\|\s*None|Optional\[|\]", "", entry["inferred_type_name"])
        declared[name] = default, annotation if annotation not in ("", "None") else type(default).__name__
    return declared


def check_parameter(name: str, value: object, kind: str) -> object:
    """`value` as a notebook takes it; an int serves as a float, None always. Raises ValueError saying what is wrong."""
    kinds = {"int": int, "float": (int, float), "str": str, "bool": bool, "list": list}
    expected = kinds.get(kind)
    wrong_bool = isinstance(value, bool) and kind != "bool"
    if value is None or expected is None or (isinstance(value, expected) and not wrong_bool):  # type: ignore[arg-type]
        return float(value) if kind == "float" and isinstance(value, int) else value
    hint = "; YAML reads 1e-4 as text, write 1.0e-4" if kind == "float" else ""
    raise ValueError(f"parameter {name} is {value!r}, but the notebook wants {kind}{hint}")


def run(name: str, parameters: dict, output: Path) -> Path:
    """Executes one notebook with the parameters it has into `output/<name>.ipynb`; its cells' text goes to the log.

    Returns the executed notebook. Raises what the notebook raises (papermill.PapermillExecutionError).
    """
    import papermill

    source = notebook_path(name)
    declared = declared_parameters(source)
    unknown = sorted(set(parameters) - set(declared))
    if unknown:
        raise ValueError(f"{source.name} has no parameter {', '.join(unknown)}; it has {', '.join(declared)}")
    checked = {key: check_parameter(key, value, declared[key][1]) for key, value in parameters.items()}
    output.mkdir(parents=True, exist_ok=True)
    target = output / source.name
    papermill.execute_notebook(
        source,
        target,
        checked,
        cwd=str(source.parent),
        kernel_name="python3",
        log_output=True,
        progress_bar=False,
        autosave_cell_every=30,
        store_widget_state=False,
        iopub_timeout=60,
    )
    return target


def run_all(parameters: dict, output: Path) -> None:
    """All seven in order; each takes the parameters it has, and 06 and 07 get the weights that 05 has just trained.

    Raises ValueError for a parameter that none of them has.
    """
    declared = {name: declared_parameters(notebook_path(name)) for name in NOTEBOOKS}
    unknown = sorted(set(parameters).difference(*declared.values()))
    if unknown:
        known = sorted(set().union(*declared.values()))
        raise ValueError(f"no notebook has a parameter {', '.join(unknown)}; there are {', '.join(known)}")
    for entries in declared.values():  # before the first one runs, not when its turn comes
        for key in set(parameters) & set(entries):
            check_parameter(key, parameters[key], entries[key][1])
    given = {"output_dir": str(output), **parameters}
    for name in NOTEBOOKS:
        started = time.perf_counter()
        if name == "06_testing":
            given.setdefault("weights", str(Path(given["output_dir"]) / "weights.safetensors"))
        run(name, {key: value for key, value in given.items() if key in declared[name]}, output)
        print(f"{name}: done in {time.perf_counter() - started:.0f} s", flush=True)


def only_output(record: logging.LogRecord) -> bool:
    """Keeps what cells print, leaves out papermill's own lines and the names of figures."""
    text = record.getMessage().strip()
    noise = ("Executing Cell", "Ending Cell", "Input Notebook", "Output Notebook", "Working directory", "<Figure")
    return bool(text) and not text.startswith(noise)


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 done, 1 a notebook failed, 2 wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m monodepth_lib.batch", description=__doc__)
    parser.add_argument("notebook", help=f"{', '.join(NOTEBOOKS)}, or all")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter, YAML")
    parser.add_argument("--name", default="run", help="the folder below output/ (default: run)")
    options = parser.parse_args(arguments)
    output = project_path("output") / options.name
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for name in ("translators", "utils"):
        logging.getLogger(f"papermill.{name}").setLevel(logging.ERROR)
    logging.getLogger("papermill").addFilter(only_output)

    import papermill

    try:
        parameters = {name: yaml.safe_load(value) for name, value in options.p}
        if options.notebook == "all":
            run_all(parameters, output)
        else:
            run(options.notebook, parameters, output)
    except papermill.PapermillExecutionError as error:
        print(f"{error.ename}: {error.evalue} (the executed notebook is in {output})", file=sys.stderr)
        return 1
    except (ValueError, OSError, yaml.YAMLError) as error:
        print(f"{error}", file=sys.stderr)
        return 2
    print(f"results are in {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
