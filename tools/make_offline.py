"""A folder for a USB stick that installs the course without a network: `make offline` writes build/offline.

    python tools/make_offline.py                        wheels for machines like this one
    python tools/make_offline.py --output /media/stick --teacher
    python tools/make_offline.py --try build/offline    test: installs it into a temporary folder, without an index

The folder holds `wheels` (what requirements.txt lists, and what builds our own package), `course` (the files of the
students' archive, sample and weights included; --teacher: of the teacher's), `install.sh`, `install.bat` and a README.
Behind `--` stand arguments of `pip download`, such as another index for a smaller torch without CUDA.
Wheels fit one system and one version of Python: make a folder on each kind of machine in the room.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import make_class

ROOT = Path(__file__).resolve().parent.parent

SHELL = """#!/bin/sh
# Installs the course from this folder, without a network. Afterwards: cd course && .venv/bin/jupyter lab notebooks
set -eu
cd "$(dirname "$0")/course"
"${PYTHON:-python3}" -m venv .venv
PIP="env PIP_CONFIG_FILE=/dev/null PIP_NO_INDEX=1 PIP_FIND_LINKS=../wheels .venv/bin/python -m pip install -q"
PIP="$PIP --disable-pip-version-check"
$PIP -r ../requirements.txt
$PIP --no-deps -e .
touch .venv/installed
echo "Installed. Next: cd $(pwd) && .venv/bin/jupyter lab notebooks"
"""

BATCH = """@echo off
rem Installs the course from this folder, without a network. Not tried on Windows by us.
cd /d "%~dp0course"
set PIP_NO_INDEX=1
set PIP_CONFIG_FILE=nul
set PIP_FIND_LINKS=..\\wheels
py -3 -m venv .venv || exit /b 1
.venv\\Scripts\\python -m pip install -q --disable-pip-version-check -r ..\\requirements.txt || exit /b 1
.venv\\Scripts\\python -m pip install -q --disable-pip-version-check --no-deps -e . || exit /b 1
echo Installed. Next: .venv\\Scripts\\jupyter lab notebooks
"""

README = """MonoDepth without a network

Copy this folder to the disk (a stick is slow), then
  Linux, macOS:  sh install.sh           (PYTHON=python3.11 sh install.sh takes that Python)
  Windows:       install.bat
It makes course/.venv from the wheels in this folder and asks no server. Wheels fit {fits}.
Afterwards, in the folder course:  .venv/bin/jupyter lab notebooks      (Windows: .venv\\Scripts\\jupyter lab notebooks)

无网络安装：先把整个文件夹复制到硬盘（U 盘太慢），然后运行
  Linux、macOS：  sh install.sh           （PYTHON=python3.11 sh install.sh 指定所用的 Python）
  Windows：       install.bat
安装程序用本文件夹中的 wheel 包建立 course/.venv，不访问任何服务器。wheel 包适用于 {fits}。
完成后在 course 文件夹中运行：  .venv/bin/jupyter lab notebooks      （Windows：.venv\\Scripts\\jupyter lab notebooks）
"""


def requirements(path: Path) -> list[str]:
    """The lines of a requirements file, without comments."""
    lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line]


def make(output: Path, listed: list[str], teacher: bool = False, pip: list[str] | None = None) -> None:
    """Writes the folder. Raises subprocess.CalledProcessError when pip cannot fetch a wheel; pip names it."""
    output.mkdir(parents=True, exist_ok=True)
    for name in ("wheels", "course"):
        shutil.rmtree(output / name, ignore_errors=True)
    (output / "requirements.txt").write_text("\n".join(listed) + "\n", encoding="utf-8")
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--dest"]
    subprocess.run([*command, str(output / "wheels"), *listed, *build, *(pip or [])], check=True)
    for name, path in (make_class.teacher() if teacher else make_class.students()).items():
        target = output / "course" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes() if teacher else make_class.content(path))
        shutil.copymode(path, target)
    (output / "install.sh").write_text(SHELL, encoding="utf-8")
    (output / "install.sh").chmod(0o755)
    (output / "install.bat").write_text(BATCH, encoding="utf-8", newline="\r\n")
    fits = " ".join(pip) if pip else f"{sys.platform}, Python {sys.version_info[0]}.{sys.version_info[1]}"
    (output / "README.txt").write_text(README.format(fits=fits), encoding="utf-8")


def try_it(folder: Path, statement: str = "import monodepth_lib") -> None:
    """Installs a copy of the folder without access to servers, and runs a statement there.

    Raises subprocess.CalledProcessError when either fails.
    """
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHON": sys.executable,
        "PIP_NO_INDEX": "1",
        "http_proxy": "http://127.0.0.1:9",  # a request to a server fails at once
        "https_proxy": "http://127.0.0.1:9",
    }
    with tempfile.TemporaryDirectory(prefix="monodepth-offline-") as scratch:
        copy = Path(shutil.copytree(folder, Path(scratch) / "stick"))
        environment["HOME"] = scratch
        subprocess.run(["sh", str(copy / "install.sh")], env=environment, check=True)
        python = copy / "course/.venv/bin/python"
        subprocess.run([str(python), "-c", statement], env=environment, cwd=copy / "course", check=True)


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    mine, pip = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    parser = argparse.ArgumentParser(prog="make_offline.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build/offline", help="where to (default: %(default)s)")
    parser.add_argument("--requirements", type=Path, default=ROOT / "requirements.txt", help="another list")
    parser.add_argument("--teacher", action="store_true", help="with solutions, tests and tools")
    parser.add_argument("--try", dest="tried", type=Path, metavar="FOLDER", help="test an existing folder")
    options = parser.parse_args(mine)
    try:
        if options.tried:
            try_it(options.tried.absolute())
            print(f"{options.tried} installs without a network")
            return 0
        make(options.output.absolute(), requirements(options.requirements), options.teacher, pip)
    except subprocess.CalledProcessError as error:
        print(f"{error.cmd[0]} failed with status {error.returncode}: what it said stands above", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in options.output.rglob("*") if path.is_file())
    print(f"{options.output}: {size / 1e9:.2f} GB; try it with: python tools/make_offline.py --try {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
