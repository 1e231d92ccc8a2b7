"""Item 5: how long it takes until one can begin."""

from __future__ import annotations

import json

from .measure import ROOT, Options, Row, child, in_turn

MODULES = (
    "kitti", "data", "transforms", "losses", "networks", "training", "testing", "depth", "gif", "plots", "widgets",
    "checks", "predict",
)  # fmt: skip


def set_up_code(path) -> str:
    """The code of a notebook's parameters cell and of the set-up cell that follows it."""
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    return "\n".join("".join(cell["source"]) for cell in cells[:2])


def set_up_seconds(code: str) -> float:
    """Seconds of `code` in a process of its own that has imported torch and the library before."""
    timed = (
        f"import time, torch, monodepth_lib\nstart = time.perf_counter()\n{code}\nprint(time.perf_counter() - start)"
    )
    return float(child(timed).split()[-1])


def run(options: Options) -> list[Row]:
    contenders = {
        "torch": lambda: child("import torch"),
        "package": lambda: child("import monodepth_lib"),
        "all": lambda: child("import torch\nfrom monodepth_lib import " + ", ".join(MODULES)),
    }
    seconds = in_turn(contenders, options)
    rows = []
    alone = seconds["torch"]
    note = "half of what torch does not take is torch._dynamo, which torchvision and torch's optimisers import"
    what = "import of torch and all modules that notebooks use"
    rows.append(Row("5 start", "import monodepth_lib", "s", seconds["package"], "import torch", alone, "<= 1.5"))
    rows.append(Row("5 start", what, "s", seconds["all"], "import torch", alone, note=note))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))[: 1 if options.quick else None]:
        code = set_up_code(path)
        values = [set_up_seconds(code) for _ in range(options.repeats)]
        note = "after import torch and monodepth_lib"
        rows.append(Row("5 start", f"set-up cell of {path.stem}", "s", values, target="<= 3", note=note))
    return rows
