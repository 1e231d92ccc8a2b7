"""Packs the course for a class: `make class` writes build/class/students.zip and build/class/teacher.zip.

The students' archive holds what a student works with: notebooks, library, sample, weights, pages. It holds no
solutions, no teacher's guide and no tools of maintainers. The teacher's archive is the whole repository, with the
slides if `make slides` has made them. Only files that git tracks are packed. The same files make the same archive,
byte for byte.
"""

from __future__ import annotations

import argparse
import fnmatch
import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOP = "monodepth"  # the folder that an archive unpacks to
NOT_FOR_STUDENTS = (
    "notebooks/solutions/*",
    "notebooks/*/solutions/*",
    "docs/teaching*",
    "docs/zh/teaching*",
    "docs/conf.py",
    "docs/_site/*",
    "tests/*",
    "tools/*",
    *(f"research/*.{kind}" for kind in ("py", "toml", "sh", "json")),  # its pages stay: notebooks link to them
    ".ci/*",
    ".github/*",
    ".gitignore",
)


def tracked() -> list[str]:
    """The files that git tracks. Raises OSError when this is not a clone."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise OSError(f"{ROOT} is no git repository ({done.stderr.strip()}): pack from a clone")
    return sorted(name for name in done.stdout.split("\0") if name and (ROOT / name).is_file())


def students() -> dict[str, Path]:
    """name in the archive -> file. `content` unlinks the pages that are left out."""
    names = [name for name in tracked() if not any(fnmatch.fnmatch(name, pattern) for pattern in NOT_FOR_STUDENTS)]
    return {name: ROOT / name for name in names}


def teacher() -> dict[str, Path]:
    files = {name: ROOT / name for name in tracked()}
    slides = ROOT / "build" / "slides"
    return files | {f"slides/{p.relative_to(slides).as_posix()}": p for p in sorted(slides.rglob("*")) if p.is_file()}


def content(path: Path) -> bytes:
    """A file for students: a page or a notebook keeps the words of links to the teacher's guide, without the link."""
    if path.suffix not in (".md", ".ipynb"):
        return path.read_bytes()
    return re.sub(rb"\[([^][]+)\]\([^()]*teaching\.md\)", rb"\1", path.read_bytes())


def pack(files: dict[str, Path], target: Path, unlink: bool = False) -> None:
    """Writes a zip. All entries have the same date, so equal files make equal archives."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in sorted(files.items()):
            entry = zipfile.ZipInfo(f"{TOP}/{name}", (2026, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if path.stat().st_mode & 0o100 else 0o644) << 16
            archive.writestr(entry, content(path) if unlink else path.read_bytes())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make_class.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build/class", help="where to (default: %(default)s)")
    options = parser.parse_args(arguments)
    for name, files in (("students", students()), ("teacher", teacher())):
        target = options.output / f"{name}.zip"
        pack(files, target, unlink=name == "students")
        print(f"{target}: {len(files)} files, {target.stat().st_size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
