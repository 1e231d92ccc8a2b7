"""The project's folder, files that are written whole or not at all, and folders that one run has for itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


def project_root() -> Path:
    """The project's folder: the first one upward from here, else from this file, with our `pyproject.toml`."""
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / "pyproject.toml").is_file() and (folder / "monodepth_lib").is_dir():
                return folder
    return Path.cwd()


def project_path(path: str | Path) -> Path:
    """`path` itself where it is absolute; a relative one counts from the project's folder, wherever one stands."""
    return project_root() / Path(path).expanduser()


class NotWritten(OSError):
    """A file could not be written; the sentence names it and the way out."""


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives a file to write beside `path`, which takes its place once whole: a failure leaves the old one as it was.

    Raises OSError naming `path` when it cannot be written.
    """
    partial = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except NotWritten:
        raise  # it names a file already
    except OSError as error:
        raise NotWritten(
            f"{path} could not be written ({error}): free space or choose another output folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


@contextlib.contextmanager
def locked(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Keeps a second run out of `folder`; the lock ends with its process.

    Raises BlockingIOError when another one is still there after `patience` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=patience):
            yield
    except Timeout as error:
        raise BlockingIOError(f"{folder} is in use by another run: wait for its end or choose another name") from error
