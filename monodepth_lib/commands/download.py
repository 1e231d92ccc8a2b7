"""Fetches KITTI's raw drives: `monodepth download lab --to data`.

A drive's archive holds four cameras and the laser scans; training needs only two cameras. A zip archive ends with a
table of its members. KITTI's server sends parts of a file ("ranges"), so only the table and the wanted members are
fetched. Files are written where `unzip` would put them, as in `data/2011_09_26/2011_09_26_drive_0002_sync`. After a
stop, start the same command again: it goes on. A file of the user is never replaced.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import stat
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import requests
import urllib3
from PIL import Image
from tqdm.auto import tqdm

from ..files import atomic_write, project_path
from ..kitti import SPLITS, TEST_LISTS, find_drives, frame_key
from . import command_parser, here, number, start

BASE_URL = "https://s3.eu-central-1.amazonaws.com/avg-kitti/raw_data"
PARTS = {"colour": ("image_02", "image_03"), "grey": ("image_00", "image_01"), "scans": ("velodyne_points",)}
EVERYTHING = "all"
RECORD = ".fetched.json"  # in a drive's folder: what was fetched, so nothing is requested twice

# Limits far above KITTI's values (archive 15 GB, member 3 MB, table 3 MB, compression to a tenth at most).
LARGEST_ARCHIVE, LARGEST_MEMBER, LARGEST_TABLE, LARGEST_RATIO = 64 * 10**9, 64 * 10**6, 64 * 10**6, 20
SKIP = 64 * 1024  # bytes: a smaller gap between two members is read and dropped; after a larger one comes a new request
JPEG_SHARE = 0.5  # of the PNG's bytes is reserved for a JPEG: more than quality 92 needs

BUSY = {408, 425, 429, 500, 502, 503, 504}  # HTTP answers after which a request is repeated
TRANSIENT = (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)
FAULTY_ZIP = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)

T = TypeVar("T")


# --- which archives ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Archive:
    """One zip archive of KITTI: its name, where it is, and the only folder that its members may be in."""

    name: str  # "2011_09_26_drive_0002_sync" or "2011_09_26_calib"
    url: str
    folder: str  # "2011_09_26/2011_09_26_drive_0002_sync" or "2011_09_26"

    @property
    def is_drive(self) -> bool:
        return "_drive_" in self.name


def named_drives(names: Sequence[str]) -> list[str]:
    """Full names of drives, each once: from drives, splits ("lab", "eigen" with its test drives) and list files.

    Each line of a list file (`kitti_archives_to_download.txt`) is a drive or the address of its archive; lines of
    calibration archives and text after "#" are skipped. Raises ValueError naming an entry that is not a drive.
    """
    drives: list[str] = []
    for name in names:
        if name in SPLITS:
            drives += [drive for side in SPLITS[name].values() for drive in side]
            drives += TEST_LISTS["eigen"] if name == "eigen" else []
        elif os.path.isfile(path := Path(name)) or os.path.isfile(path := project_path(name)):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            entries = [line.partition("#")[0].strip() for line in lines]
            drives += [_drive(e, str(path)) for e in entries if e and not re.search(r"\d_calib(\.zip)?$", e)]
        else:
            drives.append(_drive(name, "the command"))
    return list(dict.fromkeys(drives))


def _drive(text: str, source: str) -> str:
    """The full name of a drive given as "2011_09_26_drive_0002", with "_sync", or as its archive's address."""
    match = re.fullmatch(r"(.*/)?(\d{4}_\d\d_\d\d_drive_\d{4})(_sync)?(\.zip)?", text)
    if not match:
        known = ", ".join(SPLITS)
        raise ValueError(
            f"{source} names {text!r}, which is no drive: write 2011_09_26_drive_0002_sync, the path of a list file, "
            f"or one of {known}"
        )
    return f"{match[2]}_sync"


def archives_of(drives: Sequence[str], base_url: str = BASE_URL) -> list[Archive]:
    """The archives of these drives: first the small calibration of every date, then the drives."""
    base = base_url.rstrip("/")
    dates = dict.fromkeys(drive[:10] for drive in drives)
    calibration = [Archive(f"{date}_calib", f"{base}/{date}_calib.zip", date) for date in dates]
    return calibration + [
        Archive(drive, f"{base}/{drive.removesuffix('_sync')}/{drive}.zip", f"{drive[:10]}/{drive}") for drive in drives
    ]


# --- the server -------------------------------------------------------------------------------------------------


@dataclass
class Server:
    """Requests to a server: number of attempts, the wait between them, and how long the server may be silent."""

    tries: int = 6
    wait: float = 1.0  # seconds before the second attempt; twice as long before each one after it
    timeout: float = 30.0  # seconds without a byte
    session: requests.Session = field(default_factory=requests.Session)

    def patiently(self, url: str, step: Callable[[], T]) -> T:
        """The result of `step()`, repeated when the connection fails. Raises ConnectionError after `tries` attempts."""
        for attempt in range(self.tries):
            if attempt:
                time.sleep(min(60, self.wait * 2 ** min(attempt - 1, 10)))
            try:
                return step()
            except TRANSIENT as error:
                reason = error
        raise ConnectionError(
            f"{url} failed {self.tries} times, the last time with: {reason}. What was fetched is kept: check the "
            "connection and start the same command again"
        ) from reason

    def get(self, url: str, span: str = "") -> requests.Response:
        """An open response, its body not yet read; a `span` such as "0-99" requests only these bytes.

        Raises requests.HTTPError when the server is busy, FileNotFoundError when it refuses the file.
        """
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={span}"} if span else {})
        answer = self.session.get(url, headers=headers, stream=True, timeout=self.timeout)
        if answer.status_code in (200, 206):
            return answer
        answer.close()
        if answer.status_code in BUSY:
            raise requests.HTTPError(f"the server answers {answer.status_code} ({answer.reason})")
        raise FileNotFoundError(
            f"the server does not give {url} (it answers {answer.status_code}, {answer.reason}): check the name of the "
            "drive and --base-url"
        )

    def size(self, url: str) -> int:
        """Bytes of the file. Raises ValueError when the server does not send ranges."""
        with self.get(url, "0-0") as answer:
            if answer.status_code != 206:
                raise ValueError(f"{url}: this server does not send parts of a file: fetch it with wget and unzip it")
            return _whole_size(answer)


def _whole_size(answer: requests.Response) -> int:
    """The size of the whole file, from a response's header "Content-Range: bytes 0-99/1234"."""
    said = answer.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes \d+-\d+/(\d+)", said)
    if not match:
        raise requests.HTTPError(f"the server sends a part of a file and calls it {said!r}")
    return int(match[1])


class RemoteFile(io.RawIOBase):
    """A file on a server that can be read and searched; only what is read is fetched.

    A request asks for the bytes from here to `until` and stays open, so neighbouring members need one request. (The
    library remotezip makes a request for each member: over 22 000 for the lab's pictures.) After a failure, the next
    request starts at the first missing byte.
    """

    def __init__(self, server: Server, url: str, size: int) -> None:
        self.server, self.url, self.size = server, url, size
        self.position, self.until = 0, size
        self.answer: requests.Response | None = None
        self.answer_from, self.answer_until = 0, 0  # the bytes of the response that are still unread

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        self.position = max(0, start + offset)
        return self.position

    def readinto(self, buffer) -> int:
        if self.position >= self.size:
            return 0
        chunk = self.server.patiently(self.url, lambda: self._read_some(len(buffer)))
        buffer[: len(chunk)] = chunk
        self.position += len(chunk)
        return len(chunk)

    def _read_some(self, size: int) -> bytes:
        """The next bytes, at least one and at most `size`; when this fails, the next attempt is a new request."""
        try:
            gap = self.position - self.answer_from
            if self.answer is None or not 0 <= gap <= SKIP or self.position >= self.answer_until:
                self._ask()
            assert self.answer is not None
            while self.answer_from < self.position:
                self._take(self.position - self.answer_from)
            return self._take(min(size, self.answer_until - self.position))
        except BaseException:
            self.close_answer()
            raise

    def _ask(self) -> None:
        self.close_answer()
        until = self.until if self.until > self.position else self.size
        self.answer = self.server.get(self.url, f"{self.position}-{until - 1}")
        begins = self.answer.headers.get("Content-Range", "").startswith(f"bytes {self.position}-")
        if self.answer.status_code != 206 or not begins or _whole_size(self.answer) != self.size:
            raise requests.HTTPError("the server sends other bytes than those asked for")
        self.answer_from, self.answer_until = self.position, until

    def _take(self, size: int) -> bytes:
        assert self.answer is not None
        chunk = self.answer.raw.read(size)
        if not chunk:
            raise ConnectionError(f"the connection ended {self.answer_until - self.answer_from} bytes early")
        self.answer_from += len(chunk)
        return chunk

    def close_answer(self) -> None:
        if self.answer is not None:
            self.answer.close()
            self.answer = None

    def close(self) -> None:
        self.close_answer()
        super().close()


# --- archives are not trusted ----------------------------------------------------------------------------------


class _Bytes(io.BufferedReader):
    """An archive's bytes for `zipfile`, with checks that it lacks: a table that is too large, an offset below 0."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > LARGEST_TABLE:
            raise ValueError(f"its table claims {size} bytes")
        return super().read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_SET and offset < 0:
            raise ValueError("its table points to before its first byte")
        return super().seek(offset, whence)


def open_archive(raw: io.RawIOBase, archive: Archive, size: int) -> zipfile.ZipFile:
    """Opens an archive and checks its table. Raises ValueError naming the archive and the refused entry."""
    try:
        zip_file = zipfile.ZipFile(_Bytes(raw, SKIP))
    except FAULTY_ZIP as error:
        if isinstance(error.__context__, ConnectionError):  # zipfile takes every OSError for a fault of the archive
            raise error.__context__ from None
        raise ValueError(
            f"{archive.url} is not a whole zip archive ({error}): try again later, or another --base-url"
        ) from error
    check_members(zip_file.infolist(), archive, size)
    return zip_file


def check_members(members: Sequence[zipfile.ZipInfo], archive: Archive, size: int) -> None:
    """Raises ValueError naming a member that a KITTI archive cannot have; nothing is written before.

    Refused: names outside the archive's own folder (absolute, with "..", of other drives), names given twice, links
    and other special files, encrypted members, and sizes that unpack to far more than the archive's `size` in bytes.
    """

    def refuse(name: str, why: str) -> None:
        raise ValueError(f"{archive.url} is refused: its member {name!r} {why}. Nothing of it was unpacked")

    below = r"[\w-][\w.-]*(/[\w-][\w.-]*)*/?" if archive.is_drive else r"calib_\w+\.txt"
    own = re.compile(f"{re.escape(archive.folder)}/({below})?", re.ASCII)
    folders = {archive.folder[: found.end()] for found in re.finditer("[^/]+/", archive.folder)}
    seen: set[str] = set()
    for member in members:
        name = member.orig_filename  # `filename` is already cut at a zero byte
        if name not in folders and not own.fullmatch(name):
            refuse(name, f"does not belong into {archive.folder}")
        if name.lower() in seen:
            refuse(name, "is there twice")
        seen.add(name.lower())
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFDIR if member.is_dir() else stat.S_IFREG):
            refuse(name, "is a link or another special file")
        if member.flag_bits & 1:
            refuse(name, "is encrypted")
        if member.file_size > LARGEST_MEMBER:
            refuse(name, f"unpacks to {in_units(member.file_size)}")
    total = sum(member.file_size for member in members)
    if total > LARGEST_RATIO * size + 10**6:
        raise ValueError(
            f"{archive.url} is refused: it has {in_units(size)} and would unpack to {in_units(total)}, far more than "
            "pictures can"
        )


def stretches(zip_file: zipfile.ZipFile, wanted: Sequence[zipfile.ZipInfo]) -> dict[str, int]:
    """For each wanted member (in the archive's order), the byte where its request ends: neighbours share a request."""
    offsets = sorted({member.header_offset for member in zip_file.infolist()} | {zip_file.start_dir})
    own_end = dict(pairwise(offsets))
    ends: dict[str, int] = {}
    next_begins, stretch_ends = -1, -1
    for member in reversed(wanted):
        end = own_end.get(member.header_offset, zip_file.start_dir)
        stretch_ends = stretch_ends if 0 <= next_begins - end <= SKIP else end
        ends[member.filename] = stretch_ends
        next_begins = member.header_offset
    return ends


# --- onto the disk ----------------------------------------------------------------------------------------------


def stored(folder: Path, name: str, size: int) -> Path | None:
    """The complete file of a member of `size` bytes below `folder`, as it is or as a JPEG; None without one."""
    path = folder / name
    if path.is_file() and path.stat().st_size == size:
        return path
    jpeg = path.with_suffix(".jpg")
    return jpeg if path.suffix == ".png" and jpeg.is_file() and jpeg.stat().st_size else None


def belongs(name: str, parts: Sequence[str]) -> bool:
    """Whether a member (its name below the drive) belongs to one of `parts`; no parts mean all (calibration)."""
    return not parts or EVERYTHING in parts or name.partition("/")[0] in parts


def read_record(folder: Path) -> dict:
    """The record of `write_record`: {"parts": [...], "members": {name: bytes}}; both empty without a record."""
    with contextlib.suppress(OSError, ValueError):
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if (
            isinstance(record, dict)
            and isinstance(record.get("members"), dict)
            and isinstance(record.get("parts"), list)
        ):
            return record
    return {"parts": [], "members": {}}


def write_record(folder: Path, parts: Sequence[str], members: dict[str, int]) -> None:
    """Adds to the record that these parts are complete, and how many bytes each member has."""
    before = read_record(folder)
    record = {"parts": sorted({*before["parts"], *parts}), "members": before["members"] | members}
    with atomic_write(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(record), encoding="utf-8")


def is_whole(folder: Path, parts: Sequence[str]) -> bool:
    """Whether the record says that all these parts were fetched, and all their files are still there."""
    record = read_record(folder)
    known = EVERYTHING in record["parts"] or set(parts) <= set(record["parts"])
    members = [entry for entry in record["members"].items() if belongs(entry[0], parts)]
    return known and bool(members) and all(stored(folder, *entry) for entry in members)


def write_member(zip_file: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, jpeg: int | None) -> int:
    """Unpacks one member, checks its checksum and then renames it to `path`. Returns the bytes written.

    With `jpeg` (a quality), a PNG is stored as `.jpg` instead, with chroma at half the resolution (Pillow's default).
    Raises ValueError naming a member that differs from the table.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with zip_file.open(member) as source, temporary.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)  # zipfile stops at the size claimed, and compares the CRC
        if temporary.stat().st_size != member.file_size:
            raise zipfile.BadZipFile(f"{temporary.stat().st_size} bytes, not {member.file_size}")
        if jpeg is not None and path.suffix == ".png":
            path = path.with_suffix(".jpg")
            image = _load_png(temporary)
            with temporary.open("wb") as file:
                image.save(file, format="JPEG", quality=jpeg)
        os.replace(temporary, path)
    except FAULTY_ZIP as error:
        raise ValueError(
            f"{member.filename} arrived damaged ({error}): start the same command again, or give another --base-url"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path.stat().st_size


def _load_png(path: Path) -> Image.Image:
    """A colour or grey PNG of 8 bits, decoded. Raises ValueError for anything else."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"no PNG: {error}") from error
    if image.mode not in ("RGB", "L"):
        raise ValueError(f"a PNG of mode {image.mode}, not RGB or grey of 8 bits")
    return image


@dataclass(frozen=True)
class Wish:
    """What to fetch of a drive: its `parts`, pictures as JPEG of a quality or unchanged, some or all frames."""

    parts: Sequence[str] = PARTS["colour"]
    jpeg: int | None = None
    frames: tuple[int, int] | None = None  # the first, and the one after the last

    def takes(self, name: str) -> bool:
        """Whether a member (its name below the drive) is wanted."""
        if not belongs(name, self.parts):
            return False
        key = frame_key(Path(name))
        return self.frames is None or "/data/" not in name or not key or key[0] in range(*self.frames)


@dataclass
class Job:
    """An archive to fetch from: its target folder, its table and the missing members."""

    archive: Archive
    folder: Path  # the drive's own, or the date's for calibration
    wish: Wish
    size: int
    zip_file: zipfile.ZipFile
    wanted: dict[str, int] = field(default_factory=dict)  # name below the folder: bytes
    missing: list[zipfile.ZipInfo] = field(default_factory=list)

    @property
    def to_fetch(self) -> int:
        """Bytes to transfer, without the small headers of the members."""
        return sum(member.compress_size for member in self.missing)

    @property
    def part(self) -> Path:
        """The hidden folder that collects the members until all are there; `find_drives` ignores it."""
        form = ".jpeg" if self.wish.jpeg is not None and self.archive.is_drive else ""
        parent = self.folder.parent if self.archive.is_drive else self.folder
        return parent / f".{self.archive.name}{form}.part"

    def choose(self) -> None:
        """Fills `wanted` and `missing`: the wanted members, and those of them that are not on the disk.

        Raises ValueError when the archive lacks a part or the frames, or when a user's file is in the way.
        """
        self.wanted, self.missing = {}, []
        ours, foreign = read_record(self.folder)["members"], []
        for member in sorted(self.zip_file.infolist(), key=lambda entry: entry.header_offset):
            name = member.filename[len(self.archive.folder) + 1 :]
            if not name or member.is_dir():
                continue
            if self.wish.takes(name):
                self.wanted[name] = member.file_size
                if not any(stored(place, name, member.file_size) for place in (self.folder, self.part)):
                    self.missing.append(member)
                    foreign += [name] if os.path.lexists(self.folder / name) and name not in ours else []
        there = {name.partition("/")[0] for name in self.wanted}
        lacking = [part for part in self.wish.parts if part not in there and part != EVERYTHING]
        if lacking:
            raise ValueError(
                f"{self.archive.url} has no {', '.join(lacking)}: ask for other parts, or leave the drive out"
            )
        if self.wish.frames and self.archive.is_drive and not any("/data/" in name for name in self.wanted):
            first, last = self.wish.frames
            raise ValueError(
                f"{self.archive.url} has no frame from {first} to {last - 1}: ask for others with --frames"
            )
        if foreign:
            more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
            raise ValueError(
                f"{self.folder / foreign[0]}{more} is not the archive's file and was not fetched by this command: it "
                "stays; rename or remove it, then start the same command again"
            )


def plan(server: Server, archive: Archive, folder: Path, wish: Wish) -> Job:
    """Asks the server for an archive's size, reads its table and chooses the members."""
    size = server.patiently(archive.url, lambda: server.size(archive.url))
    if size > LARGEST_ARCHIVE:
        raise ValueError(f"{archive.url} claims {in_units(size)}: that is no archive of KITTI")
    job = Job(archive, folder, wish, size, open_archive(RemoteFile(server, archive.url, size), archive, size))
    job.choose()
    return job


def fetch(job: Job, bar: tqdm) -> tuple[int, int]:
    """Fetches the missing members; the folder is renamed when it is complete. Returns bytes (unpacked, stored)."""
    part, remote = job.part, job.zip_file.fp.raw  # type: ignore[union-attr]
    part.mkdir(parents=True, exist_ok=True)
    ends = stretches(job.zip_file, job.missing)
    before = after = 0
    try:
        for member in job.missing:
            remote.until = ends[member.filename]
            path = part / member.filename[len(job.archive.folder) + 1 :]
            after += write_member(job.zip_file, member, path, job.wish.jpeg)
            before += member.file_size
            bar.update(member.compress_size)
    finally:
        job.zip_file.close()
        remote.close()
    whole_parts = job.wish.parts if job.wish.frames is None else ()
    if job.folder.is_dir():  # calibration, or a drive to which scans are added
        for path in [path for path in part.rglob("*") if path.is_file()]:
            target = job.folder / path.relative_to(part)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
        write_record(job.folder, whole_parts, job.wanted)
    else:
        write_record(part, whole_parts, job.wanted)
        os.rename(part, job.folder)
    for left in job.folder.parent.glob(f".{job.archive.name}*.part") if job.archive.is_drive else [part]:
        shutil.rmtree(left)
    return before, after


# --- the whole download -----------------------------------------------------------------------------------------


def in_units(count: float) -> str:
    """Bytes as text: 1.17 GB, 34 MB, 4 kB."""
    unit, name = next(((u, n) for u, n in ((1e9, "GB"), (1e6, "MB")) if count >= u), (1e3, "kB"))
    return f"{count / unit:.2f} {name}" if count < 10 * unit else f"{count / unit:.0f} {name}"


def check_space(jobs: Sequence[Job], to: Path) -> None:
    """Raises OSError when the jobs need more than the free space of `to`; a JPEG counts as half of its PNG."""
    need = 0.0
    for job in jobs:
        share = JPEG_SHARE if job.wish.jpeg is not None else 1
        need += sum(member.file_size * (share if member.filename.endswith(".png") else 1) for member in job.missing)
    free = shutil.disk_usage(to).free
    print(f"{to}: needs {in_units(need)}, {in_units(free)} are free", flush=True)
    if need > free:
        raise OSError(
            f"{to} has {in_units(free)} free, but {in_units(need)} are needed: make room, fetch fewer "
            "drives, or choose another folder with --to"
        )


def announce(jobs: Sequence[Job], done: int) -> None:
    """Prints what the jobs will fetch and what that saves."""
    size, fetched = sum(job.size for job in jobs), sum(job.to_fetch for job in jobs)
    print(f"archives to fetch from: {len(jobs)}, {in_units(size)} in all; here already: {done}", flush=True)
    for job in jobs:
        how = f"fetching {in_units(job.to_fetch)}, {len(job.missing)} files"
        print(f"  {job.archive.name}: {in_units(job.size)}, {how}", flush=True)
    if jobs:
        print(
            f"to fetch: {in_units(fetched)}; saved: {in_units(size - fetched)} of the archives are not needed",
            flush=True,
        )


def download(
    names: str | Sequence[str] = "lab",
    to: str | Path = "data",
    parts: Sequence[str] = PARTS["colour"],
    *,
    jpeg: int | None = None,
    frames: tuple[int, int] | None = None,
    base_url: str = BASE_URL,
    server: Server | None = None,
    dry_run: bool = False,
    bar: bool | None = None,
) -> dict[str, str]:
    """Fetches drives and the calibration of their dates into the folder `to`. Returns archive -> its error.

    `names`: see `named_drives`, or several separated by commas; `parts`: folders of a drive, or ("all",). Existing
    files are not fetched again, also in drives that were moved to `to/train` and so on. `jpeg` is a quality: pictures
    are stored as JPEG, which is smaller and loses detail. `frames` (first, last + 1) takes only these frames of each
    drive, by the numbers in the files' names. `dry_run` stops after the sizes. `bar` shows a progress bar; None shows
    it only in a terminal. An archive that fails does not stop the others. Raises ConnectionError when the server
    cannot be reached at all, OSError when the disk has too little space, ValueError for wrong arguments.
    """
    if jpeg is not None and not 1 <= jpeg <= 95:
        raise ValueError(f"jpeg is {jpeg}; the quality must be from 1 to 95, such as 92")
    if not base_url.startswith(("http://", "https://")):
        raise ValueError(f"the base URL is {base_url!r}; it must begin with https:// or http://")
    try:
        requests.Request("GET", base_url).prepare()
    except ValueError as error:
        raise ValueError(f"the base URL {base_url!r} is no address ({error})") from error
    asked = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
    archives = archives_of(named_drives(asked), base_url)
    server, to = server or Server(), project_path(to)
    there: dict[str, Path] = {}
    with contextlib.suppress(FileNotFoundError):
        there = find_drives(to)

    failed: dict[str, str] = {}
    jobs, done = [], 0
    for archive in archives:
        folder = there.get(archive.name, to / archive.folder)
        wish = Wish(parts, jpeg, frames) if archive.is_drive else Wish((), jpeg)
        if is_whole(folder, wish.parts):
            done += 1
            continue
        try:
            jobs.append(plan(server, archive, folder, wish))
        except (ValueError, FileNotFoundError) as error:
            failed[archive.name] = str(error)
    announce(jobs, done)
    if dry_run:
        return failed
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{to} cannot be made ({error.strerror}): choose another folder with --to") from error
    check_space(jobs, to)

    totals = [0, 0]
    progress = tqdm(
        total=sum(job.to_fetch for job in jobs), unit="B", unit_scale=True, disable=None if bar is None else not bar
    )
    with progress:
        for job in jobs:
            progress.set_description(job.archive.name)
            try:
                before, after = fetch(job, progress)
            except (ValueError, FileNotFoundError, ConnectionError) as error:
                failed[job.archive.name] = str(error)
                continue
            except OSError as error:  # the disk: the next archives would fail as well
                raise OSError(
                    f"{job.folder} cannot be written ({error.strerror or error}): make room or choose another folder. "
                    "What was fetched is kept, and the same command goes on"
                ) from error
            totals = [totals[0] + before, totals[1] + after]
            tqdm.write(f"{job.archive.name}: whole, in {job.folder}")
    if jpeg is not None and jobs:
        print(
            f"pictures as JPEG {jpeg}: {in_units(totals[0])} of members became {in_units(totals[1])}; "
            "the effect on metrics has not been measured"
        )
    return failed


def frame_range(text: str) -> tuple[int, int]:
    """A type for argparse: "0:20" are the first twenty frames, as a Python slice."""
    match = re.fullmatch(r"([0-9]{0,9}):([0-9]{1,9})", text)
    if not match or int(match[1] or 0) >= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} names no frames; write the first and the one after the last: 0:20")
    return int(match[1] or 0), int(match[2])


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns 0 when all is there, 1 when something failed, 2 for wrong arguments, 130 for Ctrl-C."""
    parser = command_parser(
        "download", __doc__, "monodepth download 2011_09_26_drive_0002_sync --frames 0:20 --to data"
    )
    add = parser.add_argument
    add("names", nargs="+", help=f"drives, a list file, or {', '.join(SPLITS)}")
    add("--to", type=here, default="data", help="the folder that holds the date folders (default: data)")
    add("--frames", type=frame_range, metavar="A:B", help="only the frames A to B - 1 of each drive, such as 0:20")
    add("--scans", action="store_true", help="the laser scans as well")
    add("--grey", action="store_true", help="the grey cameras as well")
    add("--all", action="store_true", help="everything in the archives")
    quality = number(int, 1, highest=95)
    add("--jpeg", type=quality, metavar="QUALITY", help="store JPEG, such as 92; what it costs in training is unknown")
    add("--dry-run", action="store_true", help="print the sizes and stop")
    add("--base-url", default=BASE_URL, help=f"a mirror (default: {BASE_URL})")
    tries, seconds = number(int, 1, highest=1000), number(float, above=0, highest=86400)
    add("--tries", type=tries, default=Server.tries, help="failed attempts in a row, at most (default: %(default)s)")
    add("--timeout", type=seconds, default=Server.timeout, help="seconds to wait for the server (default: %(default)s)")
    options = parser.parse_args(arguments)
    parts = PARTS["colour"] + PARTS["scans"] * options.scans + PARTS["grey"] * options.grey
    try:
        failed = download(
            options.names,
            options.to,
            (EVERYTHING,) if options.all else parts,
            jpeg=options.jpeg,
            frames=options.frames,
            base_url=options.base_url,
            server=Server(options.tries, timeout=options.timeout),
            dry_run=options.dry_run,
        )
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    for name, reason in failed.items():
        print(f"{name} failed: {reason}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    start(main)
