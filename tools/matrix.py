"""Runs the unit tests on another Python and with the lowest versions that pyproject.toml declares: `make matrix`.

Each has an environment of its own beside .venv. Words behind the command go to pip. Notebooks and browser stay out: they
are pinned by requirements.txt.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What pip must hold for the lowest versions to work, though we declare nothing of it: torch 2.4 was built for numpy 1.
HELD = ["numpy<2"]
LEFT_OUT = ("test_notebooks.py", "test_browser.py", "test_solutions.py")
CONFIGURATIONS = {"3.13": (("python3.13",), []), "lowest": (("python3.11", "python3.12"), HELD)}


def lowest(requirements: list[str]) -> list[str]:
    """ "torch>=2.4" as "torch==2.4.*": the first release that is allowed, with its repairs."""
    found = []
    for text in requirements:
        name, _, version = re.split(r"[\s;]", text)[0].partition(">=")
        found.append(f"{name}=={version}.*" if version else text)
    return found


def main() -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    results = {}
    for name, (pythons, held) in CONFIGURATIONS.items():
        python = next(filter(None, map(shutil.which, pythons)), None)
        if not python:
            results[name] = f"not run: no {' or '.join(pythons)} here; install it, as from python.org"
            continue
        folder = ROOT / f".venv-{name}"
        own = folder / "bin" / "python"
        constraints = folder / "constraints.txt"
        try:
            subprocess.run([python, "-m", "venv", folder], check=True)
            constraints.write_text("\n".join(lowest(project["dependencies"]) + held if held else []), encoding="utf-8")
            install = [own, "-m", "pip", "install", "-q", *sys.argv[1:], "-c", constraints]
            subprocess.run([*install, "-e", f"{ROOT}[sgm,video,onnx]", "pytest", "hypothesis"], check=True, cwd=ROOT)
            left_out = [f"--ignore=tests/{file}" for file in LEFT_OUT]
            subprocess.run([own, "-m", "pytest", "-q", *left_out], check=True, cwd=ROOT)
            results[name] = "passed"
        except subprocess.CalledProcessError as error:
            results[name] = f"failed: {' '.join(map(str, error.cmd[1:4]))} ended with {error.returncode}"
    for name, said in results.items():
        print(f"{name}: {said}")
    return 0 if set(results.values()) == {"passed"} else 1


if __name__ == "__main__":
    sys.exit(main())
