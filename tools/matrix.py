"""Runs the unit tests on another Python and with the lowest versions that pyproject.toml declares: `make matrix`.

Each has its own environment beside .venv. Further arguments go to pip. Tests of notebooks and browser are left out:
they run with the versions of requirements.txt. The run with the lowest versions installs no extras.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = ("test_notebooks.py", "test_browser.py")
# name: the possible interpreters, and the extras
CONFIGURATIONS = {"3.13": (("python3.13",), "[sgm,video,onnx]"), "lowest": (("python3.11", "python3.12"), "")}


def lowest(requirements: list[str]) -> list[str]:
    """The lowest allowed minor release of each requirement: torch>=2.4 -> torch==2.4.*, pillow>=10 -> pillow==10.0.*"""
    found = []
    for text in requirements:
        name, _, version = re.split(r"[\s;]", text)[0].partition(">=")
        found.append(f"{name}=={version}{'' if '.' in version else '.0'}.*" if version else name)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="The unit tests on other versions. Arguments go to pip.")
    _, for_pip = parser.parse_known_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    results = {}
    for name, (pythons, extras) in CONFIGURATIONS.items():
        python = next(filter(None, map(shutil.which, pythons)), None)
        if not python:
            results[name] = f"not run: no {' or '.join(pythons)} here, install it first"
            continue
        folder = ROOT / f".venv-{name}"
        own, constraints = folder / "bin" / "python", folder / "constraints.txt"
        try:
            subprocess.run([python, "-m", "venv", folder], check=True)
            held = lowest(project["dependencies"]) if name == "lowest" else []
            constraints.write_text("\n".join(held), encoding="utf-8")
            install = [own, "-m", "pip", "install", "-q", *for_pip, "-c", constraints]
            subprocess.run([*install, "-e", f"{ROOT}{extras}", "pytest", "hypothesis", "plyfile"], check=True, cwd=ROOT)
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
