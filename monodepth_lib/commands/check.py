"""Checks whether this machine has what the course needs: `make check`, or `monodepth check`.

Only Python's own library is imported at the top, so it also runs when the installation is missing or broken. Each
finding is one line: ok, MISSING (the course needs it; the exit status is 1) or note; the remedy follows after ->.
"""

from __future__ import annotations

import contextlib
import json
import operator
import os
import platform
import re
import shutil
import sys
import tempfile
from importlib import import_module, metadata
from pathlib import Path
from typing import NamedTuple

from . import command_parser, start

ROOT = Path(__file__).resolve().parents[2]  # the repository, where there is one
IN_REPOSITORY = (ROOT / "pyproject.toml").is_file()
PYTHON = (3, 11)
INSTALL = "make setup, or: pip install -r requirements.txt -e ."
RESTORE = "git checkout -- data/sample models, or clone the repository again"
MODELS = ("unet_sample", "unet_kitti", "unet_kitti_small")
SAMPLE_PAIRS = {"train": 168, "vals": 16, "test": 60}
# the first and last bytes of a complete file; an incomplete one lacks the end, a git-lfs pointer both
ENDS = {".jpg": (b"\xff\xd8", b"\xff\xd9"), ".png": (b"\x89PNG", b"IEND\xaeB`\x82")}


class Finding(NamedTuple):
    state: str  # "ok", "MISSING" or "note"
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"  {self.state:8} {self.what}" + f" -> {self.remedy}" * bool(self.remedy)


# --- Python and packages ----------------------------------------------------------------------------------------


def python() -> Finding:
    """The Python that runs this, and whether it is new enough."""
    needed = ".".join(map(str, PYTHON))
    what = f"Python {platform.python_version()}, {sys.executable} (needs {needed} or newer)"
    if sys.version_info[:2] >= PYTHON:
        return Finding("ok", what)
    return Finding("MISSING", what, f"install a newer one, then: make setup PYTHON=python{needed}")


def numbers(version: str) -> list[int]:
    """The first four numbers of a version, "2.14.1+cu130" as [2, 14, 1, 0]: enough to compare what we ask for."""
    found = [int(part) for part in re.findall(r"\d+", version.split("+")[0])]
    return [*found, 0, 0, 0, 0][:4]


def requirement(text: str) -> Finding:
    """Whether a requirement of pyproject.toml, such as "torch>=2.4", is installed."""
    name = re.split(r"[\s\[<>=!~;]", text, maxsplit=1)[0]
    wanted = re.findall(r"(>=|<=|==|!=|<|>)\s*([\w.]+)", text.split(";")[0])
    needs = f"needs {', '.join(sign + version for sign, version in wanted)}" if wanted else "any version"
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding("MISSING", f"{name} is not installed ({needs})", INSTALL)
    compare = {">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne, "<": operator.lt}
    for sign, version in wanted:
        if not compare.get(sign, operator.gt)(numbers(found), numbers(version)):
            return Finding("MISSING", f"{name} {found} ({needs})", INSTALL)
    return Finding("ok", f"{name} {found} ({needs})")


def project() -> dict:
    """The table [project] of pyproject.toml; without the repository, only the dependencies of the installation."""
    import tomllib  # new in Python 3.11, which is checked before

    if not IN_REPOSITORY:
        needed = metadata.requires("monodepth-lib") or []
        return {"dependencies": [text for text in needed if "extra ==" not in text]}
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def packages() -> list[Finding]:
    """Every dependency; then an import of torch and torchvision, because their builds must fit each other."""
    found = [requirement(text) for text in project()["dependencies"]]
    if all(finding.state == "ok" for finding in found):
        try:
            import_module("torch")
            import_module("torchvision")
        except Exception as error:  # a broken build may raise anything
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            found.append(Finding("MISSING", f"torch and torchvision do not load: {reason}", f"anew: {INSTALL}"))
    return found


def extras() -> list[Finding]:
    """The optional groups of pyproject.toml: complete, or the missing packages and the command that installs them."""
    found = []
    for extra, texts in project().get("optional-dependencies", {}).items():
        parts = [requirement(text) for text in texts if not text.startswith("monodepth-lib")]
        lacking = [part.what for part in parts if part.state != "ok"]
        if lacking:
            remedy = f'{sys.executable} -m pip install -e ".[{extra}]"'
            found.append(Finding("note", f"{extra}: {', '.join(lacking)}", remedy))
        else:
            found.append(Finding("ok", f"{extra}: {', '.join(part.what.split(' (')[0] for part in parts)}"))
    return found


# --- machine ----------------------------------------------------------------------------------------------------


def device() -> Finding:
    """The device of training: the GPU that torch sees, with its memory, or the CPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpu = f"CPU with {cores} core{'s' * (cores != 1)}"
    try:
        cuda = import_module("torch").cuda
        if cuda.is_available():
            gigabytes = cuda.get_device_properties(0).total_memory / 1e9
            return Finding("ok", f"GPU: {cuda.get_device_name(0)}, {gigabytes:.1f} GB; {cpu}")
        if import_module("monodepth_lib.devices").pick_device().type == "mps":
            return Finding("ok", f"GPU: Apple's (mps); {cpu}")
    except Exception:  # torch is missing or broken: said above
        return Finding("note", f"{cpu}; whether torch sees a GPU shows when it is installed")
    if shutil.which("nvidia-smi"):
        remedy = "see https://pytorch.org/get-started/locally/ for the build that fits your driver"
        return Finding("note", f"{cpu}; a GPU's driver is here, but torch sees no GPU", remedy)
    return Finding("ok", f"{cpu}, no GPU: enough for the class profile")


def memory(needed_gb: float = 2.0) -> Finding:
    """Main memory, by psutil, which JupyterLab installs."""
    try:
        state = import_module("psutil").virtual_memory()
    except ImportError:
        return Finding("note", "memory: not known before psutil is installed", INSTALL)
    what = f"memory: {state.total / 1e9:.1f} GB, {state.available / 1e9:.1f} GB of it free"
    if state.available / 1e9 >= needed_gb:
        return Finding("ok", what)
    return Finding("note", f"{what} (a notebook takes 1 GB, a browser as much)", "close other programs and notebooks")


def disk(needed_gb: float = 1.0) -> Finding:
    """Free disk space in the project's folder."""
    free = shutil.disk_usage(ROOT).free / 1e9
    what = f"disk: {free:.1f} GB free"
    if free >= needed_gb:
        return Finding("ok", what)
    return Finding("MISSING", f"{what} (needs {needed_gb:g} GB)", "delete runs you no longer need below output/")


def output_folder() -> Finding:
    """Tries to write a temporary file below output/, where all runs write."""
    folder = ROOT / "output"
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
    except OSError as error:
        remedy = "make the folder writable, or give every run an output_dir elsewhere"
        return Finding("MISSING", f"output/ cannot be written: {error.strerror}", remedy)
    return Finding("ok", "output/ can be written")


# --- committed data ---------------------------------------------------------------------------------------------


def broken(path: Path) -> str:
    """Why a picture or a weights file is not complete; "" when it is."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return error.strerror or str(error)
    if content.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the file"
    if path.suffix in ENDS:
        begin, end = ENDS[path.suffix]
        return "" if content.startswith(begin) and content.endswith(end) else "cut off or damaged"
    if path.suffix == ".safetensors":  # eight bytes of length, a table of contents, the numbers
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            length = int.from_bytes(content[:8], "little")
            table = json.loads(content[8 : 8 + length])
            last = max(entry["data_offsets"][1] for name, entry in table.items() if name != "__metadata__")
            return "" if len(content) == 8 + length + last else "cut off or damaged"
        return "cut off or damaged"
    return "" if content else "empty"


def sample() -> Finding:
    """data/sample: whether all pairs are there and every file is complete."""
    folder = ROOT / "data/sample"
    if not folder.is_dir():
        return Finding("MISSING", "data/sample is not there", RESTORE)
    for side, expected in SAMPLE_PAIRS.items():
        left, right = (len(list(folder.glob(f"{side}/*/{camera}/data/*.jpg"))) for camera in ("image_02", "image_03"))
        if (left, right) != (expected, expected):
            return Finding(
                "MISSING", f"data/sample/{side}: {left} left and {right} right, not {expected} pairs", RESTORE
            )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    bad = [(path, reason) for path in files if (reason := broken(path))]
    if bad:
        first = f"{bad[0][0].relative_to(ROOT).as_posix()} is {bad[0][1]}"
        return Finding("MISSING", f"data/sample: {len(bad)} of {len(files)} files are not whole; {first}", RESTORE)
    return Finding("ok", f"data/sample: {sum(SAMPLE_PAIRS.values())} pairs, {len(files)} files, all whole")


def weights() -> Finding:
    """The weights that 00, 06 and 07 open, and their cards."""
    for model in MODELS:
        for name in (f"{model}.safetensors", f"{model}.json"):
            if reason := broken(ROOT / "models" / name):
                return Finding("MISSING", f"models/{name}: {reason}", RESTORE)
    return Finding("ok", f"models/{', '.join(MODELS)}: weights and cards are whole")


# --- JupyterLab -------------------------------------------------------------------------------------------------


def sliders() -> Finding:
    """JupyterLab's extension for ipywidgets: without it the notebooks run but show no sliders."""
    try:
        files = metadata.files("jupyterlab_widgets") or []
    except metadata.PackageNotFoundError:
        files = []
    if any(str(file).endswith("jupyterlab-manager/package.json") and Path(file.locate()).is_file() for file in files):
        return Finding("ok", "JupyterLab's extension for sliders (jupyterlab_widgets)")
    remedy = "pip install --force-reinstall jupyterlab_widgets"
    return Finding("MISSING", "JupyterLab's extension for sliders is not there", remedy)


def browser() -> Finding:
    """The browser of tests/test_browser.py."""
    found = shutil.which("chromium")
    if found:
        return Finding("ok", f"Chromium, for tests/test_browser.py: {found}")
    return Finding("note", "no Chromium: tests/test_browser.py will skip", "on Debian: apt-get install chromium")


def main(arguments: list[str] | None = None) -> int:
    """The command line. Prints all findings; returns 1 when something needed is missing, else 0."""
    command_parser("check", __doc__, "monodepth check").parse_args(arguments)
    sections: list[tuple[str, list[Finding]]] = [("Python", [python()])]
    if sections[0][1][0].state == "ok":  # an older one cannot read pyproject.toml
        sections += [("Packages, needed", packages()), ("Packages, optional", extras())]
    sections += [("Machine", [device(), memory(), disk()])]
    if IN_REPOSITORY:
        sections += [("Data and weights", [output_folder(), sample(), weights()])]
        sections += [("JupyterLab", [sliders(), browser()])]
    else:
        there = "git clone the project for notebooks and sample"
        sections += [("Data", [Finding("note", "installed without the repository", there)])]
    for title, findings in sections:
        print(title, *findings, sep="\n")
    missing = sum(finding.state == "MISSING" for _, findings in sections for finding in findings)
    print(f"\nMissing: {missing}; the remedy follows after each ->" if missing else "\nAll that is needed is here.")
    return 1 if missing else 0


if __name__ == "__main__":
    start(main)
