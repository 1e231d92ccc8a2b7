"""Files: the project's folder, reading pictures, and writing a file completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image, ImageOps, UnidentifiedImageError

# Formats that are read (suffix in lower case), and camera formats that are not read: a warning names those.
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
OTHER_PICTURES = (".heic", ".heif", ".avif", ".jfif", ".jp2", ".jxl", ".dng", ".cr2", ".nef", ".arw")

WHOLE_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}  # the last bytes of a complete file
ORIENTATION = 0x0112  # EXIF's number of the camera's orientation; 5 to 8: height and width are swapped
PICTURE_ERRORS = OSError, ValueError, SyntaxError, Image.DecompressionBombError  # what Pillow raises


def project_root() -> Path:
    """The project's folder: the first with our `pyproject.toml` at or above the working folder, else this file."""
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / "pyproject.toml").is_file() and (folder / "monodepth_lib").is_dir():
                return folder
    return Path.cwd()


def project_path(path: str | Path) -> Path:
    """An absolute `path` unchanged; a relative one counts from the project's folder, not from the working folder."""
    return project_root() / Path(path).expanduser()


# --- pictures -------------------------------------------------------------------------------------------------------


def read_picture(path: str | Path) -> Image.Image:
    """Reads a picture as an 8-bit RGB Pillow image, upright by its EXIF orientation.

    Grey is repeated, 16 bits are scaled down, transparency is dropped; fractions from 0 to 1 (a float TIFF) are scaled
    up. Raises ValueError naming a file that is incomplete, not a picture, not readable or too large, or whose numbers
    are not brightness.
    """
    try:
        # Opened as a file object: by path, Pillow maps an uncompressed TIFF into memory and turns it wrongly.
        with open(path, "rb") as file, Image.open(file) as image:
            image.load()
            with contextlib.suppress(Exception):  # damaged EXIF data do not damage the picture
                ImageOps.exif_transpose(image, in_place=True)
            if image.mode == "F" or image.mode.startswith("I"):
                return Image.fromarray(to_8_bits(np.asarray(image))).convert("RGB")
            return image if image.mode == "RGB" else image.convert("RGB")
    except PICTURE_ERRORS as error:
        said = "its format is not known" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{path} cannot be read as a picture ({said}): {picture_remedy(error)}") from error


def to_8_bits(values: np.ndarray) -> np.ndarray:
    """Brightness in 16 bits, or in fractions from 0 to 1 or 0 to 255, as uint8. Raises ValueError for other numbers."""
    low, high = float(values.min()), float(values.max())
    most = 65535 if values.dtype.kind in "iu" else 255
    if not (low >= 0 and high <= most):  # not a number fails, too
        raise ValueError(f"its numbers go from {low:g} to {high:g}, and brightness from 0 to {most}")
    if most == 65535:
        return (values // 257).astype(np.uint8)
    return (values * (255 if high <= 1 else 1)).round().astype(np.uint8)


def picture_remedy(error: Exception) -> str:
    """The remedy for a picture that cannot be read, as part of a sentence."""
    if isinstance(error, PermissionError):
        return "change its permissions or remove it"
    if isinstance(error, Image.DecompressionBombError):
        return "make it smaller or remove it"
    if isinstance(error, IsADirectoryError):
        return "name a file, not a folder"
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        return "too many files are open: use fewer workers"
    return "fetch it again or remove it"


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) as `read_picture` gives it; the file's first and last bytes show that it is complete.

    The picture is decoded only if they leave a doubt. Raises ValueError as `read_picture` does.
    """
    with contextlib.suppress(Exception), open(path, "rb") as file, Image.open(file) as image:
        width, height = image.size
        turned = image.info.keys() & {"exif", "xmp"} and image.getexif().get(ORIENTATION, 1) >= 5
        file.seek(-8, os.SEEK_END)
        if file.read().endswith(WHOLE_ENDS[image.format or ""]):
            return (height, width) if turned else (width, height)
    return read_picture(path).size


# --- writing --------------------------------------------------------------------------------------------------------


class NotWritten(OSError):
    """A file could not be written; the message names the file and the remedy."""


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives a temporary file beside `path`; it replaces `path` when it is complete. A failure leaves the old file.

    Each temporary file has a name of its own: of two writers of one file, the last one wins and neither fails. Raises
    OSError naming `path` when it cannot be written.
    """
    start = path.name[:60]  # a file's name has at most 255 bytes
    partial = path.with_name(f"{start}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            remove_leftovers(path.parent, start)
        yield partial
        os.replace(partial, path)
    except NotWritten:
        raise  # it names a file already
    except OSError as error:
        remedy = "free space or choose another output folder"
        if isinstance(error, PermissionError):
            remedy = "change its permissions or choose another output folder"
        elif isinstance(error, FileExistsError | NotADirectoryError):
            remedy = "a file lies where a folder is wanted, choose another output folder"
        elif error.errno == errno.ENAMETOOLONG:
            remedy = "choose a shorter name"
        raise NotWritten(f"{path} could not be written ({error}): {remedy}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def remove_leftovers(folder: Path, start: str) -> None:
    """Removes the temporary files of killed runs: those in `folder` with this start, unchanged for an hour."""
    for old in folder.glob(f"{glob.escape(start)}.{'[0-9a-f]' * 8}.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > 3600:
                old.unlink()


@contextlib.contextmanager
def locked(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Keeps a second run out of `folder`; the lock ends with its process.

    Raises BlockingIOError if another run still holds it after `patience` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=patience):
            yield
    except Timeout as error:
        raise BlockingIOError(f"{folder} is in use by another run: wait for its end or choose another name") from error


def write_npy_header(file: BinaryIO, shape: tuple[int, ...], kind: str = "<f4") -> None:
    """Writes the header of a .npy file of `shape`; the values, of dtype `kind`, are then written after it."""
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
