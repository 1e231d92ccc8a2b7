"""Writes requirements.txt: a fresh installation of pyproject.toml, frozen.

Packages that torch needs on one kind of machine (CUDA, triton) are left out, so the same list installs everywhere. The
project itself is left out, too: its path would make the list work in only one folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOR_ONE_MACHINE = ("nvidia-", "cuda-", "triton")
HEAD = """\
# Tested together, on Python 3.11 (`make lock` writes this file): what the project needs, and not the project itself.
# Pip users, in the project's folder: pip install -r requirements.txt -e .
# conda users: environment.yml, which reads this same list. Without CUDA: see docs/installation.md.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Writes requirements.txt: a fresh installation, frozen. Arguments go to pip."
    )
    _, for_pip = parser.parse_known_args()
    if sys.version_info[:2] != (3, 11):
        raise SystemExit("the list is for Python 3.11: make lock PYTHON=python3.11")
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = [str(Path(folder) / "bin" / "python"), "-m", "pip"]
        subprocess.run([*pip, "install", *for_pip, str(ROOT)], check=True)
        frozen = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout.splitlines()
    kept = [line for line in frozen if "==" in line and not line.startswith(FOR_ONE_MACHINE)]
    if not kept:
        raise SystemExit(f"pip froze no package: {ROOT / 'requirements.txt'} stays as it is")
    (ROOT / "requirements.txt").write_text(HEAD + "\n".join(kept) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
