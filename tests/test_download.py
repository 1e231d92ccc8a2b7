"""Fetching KITTI from a server on this machine that has every fault a server can have."""

import io
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nbformat
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from monodepth_lib.commands import download as module
from monodepth_lib.commands.download import PARTS, Archive, Server, archives_of, download, main, named_drives
from monodepth_lib.files import project_root
from monodepth_lib.kitti import SPLITS, calibration, find_drives, find_pairs

DATE = "2011_09_26"
DRIVE, OTHER = f"{DATE}_drive_0002_sync", f"{DATE}_drive_0014_sync"
FRAMES = 3
CALIBRATION = (
    b"S_rect_02: 180 60\nP_rect_02: 100 0 90 20 0 100 30 0 0 0 1 0\nP_rect_03: 100 0 90 -30 0 100 30 0 0 0 1 0\n"
)


def png(seed: int) -> bytes:
    """A picture of noise, 32 kB: as incompressible as a photograph."""
    noise = np.random.default_rng(seed).integers(0, 256, (60, 180, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def drive_members(name: str, seed: int = 0) -> dict[str, bytes]:
    """A drive as KITTI packs it: four cameras, oxts, scans."""
    root = f"{DATE}/{name}"
    members = {f"{DATE}/": b"", f"{root}/": b""}
    for camera in range(4):
        members[f"{root}/image_{camera:02d}/timestamps.txt"] = b"2011-09-26 13:02:44\n" * FRAMES
        for frame in range(FRAMES):
            members[f"{root}/image_{camera:02d}/data/{frame:010d}.png"] = png(seed + 10 * camera + frame)
    for frame in range(FRAMES):
        members[f"{root}/oxts/data/{frame:010d}.txt"] = b"49.01 8.43 112.8\n" * 20
        scan = np.random.default_rng(seed + frame).normal(size=(2500, 4)).astype("<f4")
        members[f"{root}/velodyne_points/data/{frame:010d}.bin"] = scan.tobytes()
    return members


def pack(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


@cache
def whole_drive() -> bytes:
    return pack(drive_members(DRIVE))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "KittiServer"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, span = self.server, self.headers.get("Range", "")
        server.requests.append((self.path, span))
        content = server.files.get(self.path)
        if content is None:
            return self.refuse(404)
        first, last, total = 0, len(content) - 1, len(content) + server.lie
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", span) if server.ranges else None
        if part:
            first, last = int(part[1]), min(int(part[2] or total), total) if server.lie > 0 else int(part[2])
        body = content[first : last + 1]
        fault = server.next_fault(self.path, len(body))
        if fault.isdecimal():
            return self.refuse(int(fault))
        self.send_response(206 if part else 200)
        if part:
            self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
        length = last - first + 1 if part else total
        self.send_header("Content-Length", str(length))
        closes = bool(fault or server.lie)
        self.send_header("Connection", "close" if closes else "keep-alive")
        self.end_headers()
        self.send(body[: len(body) * 2 // 3] if fault else body)
        if fault == "stall":
            server.stalled.set()
            server.released.wait(30)
        self.close_connection = closes

    def send(self, body: bytes):
        self.server.sent += len(body)  # before the client can have it: what it does next may set the count to 0
        try:
            self.wfile.write(body)
            self.wfile.flush()
        except OSError:
            self.close_connection = True

    def refuse(self, status: int):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


class KittiServer(ThreadingHTTPServer):
    """KITTI's server in small. `faults` are used up one an answer: "500", or "cut" or "stall" after two thirds."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {
            f"/{DATE}_calib.zip": pack({f"{DATE}/": b"", f"{DATE}/calib_cam_to_cam.txt": CALIBRATION})
        }
        self.requests: list[tuple[str, str]] = []
        self.faults: list[str] = []
        self.ranges, self.lie, self.sent = True, 0, 0
        self.stalled, self.released = threading.Event(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def add(self, name: str, members: dict[str, bytes]) -> str:
        self.files[self.path(name)] = pack(members)
        return self.path(name)

    @staticmethod
    def path(name: str) -> str:
        return f"/{name.removesuffix('_sync')}/{name}.zip"

    def next_fault(self, path: str, length: int) -> str:
        """Faults strike drives; a cut or a stall needs an answer long enough to have a middle."""
        if not self.faults or "_drive_" not in path or (not self.faults[0].isdecimal() and length < 50_000):
            return ""
        return self.faults.pop(0)

    def of_drive(self, name: str = DRIVE) -> list[str]:
        """The spans asked of a drive's archive."""
        return [span for path, span in self.requests if path == self.path(name)]

    def handle_error(self, *_):
        pass


@pytest.fixture
def server():
    with KittiServer() as running:
        running.files[running.path(DRIVE)] = whole_drive()
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.released.set()
        running.shutdown()


@pytest.fixture
def get(server, tmp_path):
    """Fetches into tmp_path/data, impatiently."""

    def fetch(names=DRIVE, parts=PARTS["colour"], **options):
        patience = Server(tries=4, wait=0.01, timeout=options.pop("timeout", 5))
        return download(names, tmp_path / "data", parts, base_url=server.url, server=patience, bar=False, **options)

    return fetch


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder but our record, by its path."""
    files = [path for path in root.rglob("*") if path.is_file() and path.name != ".fetched.json"]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def expected(*folders: str) -> dict[str, bytes]:
    """What must lie on the disk: the calibration, and of the drive these folders."""
    members = {name: content for name, content in drive_members(DRIVE).items() if name.split("/")[2:3] != [""]}
    chosen = {
        name: content for name, content in members.items() if name.split("/")[2:3] and name.split("/")[2] in folders
    }
    return chosen | {f"{DATE}/calib_cam_to_cam.txt": CALIBRATION}


COLOUR = expected("image_02", "image_03")


# --- what is fetched --------------------------------------------------------------------------------------------


def test_only_the_parts_wanted_are_fetched_and_open_as_a_drive(server, get, tmp_path, capsys):
    assert get() == {}
    assert tree(tmp_path / "data") == COLOUR
    pairs = find_pairs(find_drives(tmp_path / "data")[DRIVE])
    assert len(pairs) == FRAMES
    assert calibration(pairs[0].folder, 180).baseline_m == pytest.approx(0.5)
    wanted = sum(len(content) for content in COLOUR.values())
    assert server.sent < wanted + 15_000, "more was sent than the members wanted and the tables"
    assert len(server.of_drive()) <= 5, "the size, the end twice (zip64), the table, and one stretch of members"
    said = capsys.readouterr().out
    assert "archives to fetch from: 2, 507 kB in all; here already: 0" in said and "are free" in said
    assert re.search(r"to fetch: 195 kB; saved: 312 kB of the archives are not needed", said)
    assert re.search(r"drive_0002_sync: 507 kB, fetching 195 kB, 8 files", said)


def test_far_parts_are_separate_requests_and_what_lies_between_is_not_sent(server, get, tmp_path):
    assert get(parts=("image_00", "image_03")) == {}
    assert tree(tmp_path / "data") == expected("image_00", "image_03")
    assert server.sent < sum(len(content) for content in expected("image_00", "image_03").values()) + 15_000
    assert len(server.of_drive()) <= 6


def test_a_remote_file_reads_what_lies_where_it_was_sought(server):
    content = whole_drive()
    remote = module.RemoteFile(Server(tries=1), server.url + server.path(DRIVE), len(content))
    for place, length in [(1000, 500), (1500, 100), (1200, 300), (0, 50), (200_000, 70_000), (400_000, 10)]:
        remote.seek(place)
        with io.BytesIO() as found:
            while found.tell() < length:
                found.write(remote.read(length - found.tell()))
            assert found.getvalue() == content[place : place + length], place
    assert len(server.requests) == 5, "only 1000 to 1500 goes on in the same answer"
    remote.close()


def test_the_command_chooses_parts(server, tmp_path):
    command = [DRIVE, "--to", str(tmp_path / "data"), "--base-url", server.url]
    assert main([*command, "--scans"]) == main([*command, "--grey"]) == 0
    assert tree(tmp_path / "data") == expected(*[f"image_{camera:02d}" for camera in range(4)], "velodyne_points")
    assert main([*command, "--all"]) == 0
    assert (tmp_path / "data" / DATE / DRIVE / "oxts/data/0000000000.txt").is_file()


def test_all_fetches_everything(get, tmp_path):
    get(parts=("all",))
    with zipfile.ZipFile(io.BytesIO(whole_drive())) as archive:
        archive.extractall(tmp_path / "unzip")
    assert tree(tmp_path / "data") == tree(tmp_path / "unzip") | expected()


def test_a_whole_drive_is_not_asked_for_again_wherever_it_was_sorted_to(server, get, tmp_path):
    get()
    (tmp_path / "data/train").mkdir()
    (tmp_path / "data" / DATE / DRIVE).rename(tmp_path / "data/train" / DRIVE)
    before = tree(tmp_path / "data")
    server.requests.clear()
    assert get() == {}
    assert server.requests == []
    assert tree(tmp_path / "data") == before


def test_a_file_that_went_missing_is_fetched_alone(server, get, tmp_path):
    get()
    lost = tmp_path / "data" / DATE / DRIVE / "image_03/data/0000000001.png"
    lost.write_bytes(lost.read_bytes()[:100])
    server.sent = 0
    assert get() == {}
    assert tree(tmp_path / "data") == COLOUR
    assert server.sent < 50_000


def test_scans_come_into_a_drive_that_is_there(server, get, tmp_path):
    get()
    server.sent = 0
    get(parts=PARTS["colour"] + PARTS["scans"])
    assert tree(tmp_path / "data") == expected("image_02", "image_03", "velodyne_points")
    assert server.sent < FRAMES * 40_000 + 15_000
    server.requests.clear()
    get()
    get(parts=PARTS["scans"])
    assert server.requests == []


def test_what_wget_and_unzip_left_is_taken_as_it_is(server, get, tmp_path):
    for content in server.files.values():
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(tmp_path / "data")
    before = tree(tmp_path / "data")
    assert get() == {}
    assert tree(tmp_path / "data") == before
    assert server.sent < 15_000, "only tables are read, to compare"
    server.requests.clear()
    get()
    assert server.requests == []


def test_the_cell_of_notebook_01_fetches_what_it_is_told(server, tmp_path, monkeypatch):
    server.add(OTHER, drive_members(OTHER, 100))
    notebook = nbformat.read(project_root() / "notebooks/01_data_preparation.ipynb", as_version=4)
    (cell,) = [cell.source for cell in notebook.cells if "download.download(" in cell.source]
    patience = Server(tries=2, wait=0.01)
    monkeypatch.setattr(module, "download", partial(download, base_url=server.url, server=patience))
    monkeypatch.setattr(module, "project_path", lambda path: tmp_path / path)
    exec(cell, {"fetch_kitti": None, "download": module})
    assert not server.requests
    exec(cell, {"fetch_kitti": f"{DRIVE}, {OTHER[:-5]}", "download": module})
    assert set(find_drives(tmp_path / "data")) == {DRIVE, OTHER}
    with pytest.raises(AssertionError, match="drive_0099"):
        exec(cell, {"fetch_kitti": f"{DATE}_drive_0099", "download": module})


def test_some_frames_of_a_drive_and_later_all(server, get, tmp_path):
    command = [DRIVE, "--to", str(tmp_path / "data"), "--base-url", server.url]
    assert main([*command, "--frames", "1:3"]) == 0
    pairs = find_pairs(find_drives(tmp_path / "data")[DRIVE])
    assert [pair.left.stem for pair in pairs] == ["0000000001", "0000000002"]
    assert server.sent < 4 * 34_000 + 2 * 34_000 + 20_000  # a frame between two wanted ones is read and dropped
    server.sent = 0
    assert main([*command, "--frames", "1:3"]) == 0
    assert server.sent < 20_000, "only the table is read again"
    assert main([*command, "--frames", ":2", "--scans"]) == 0
    assert len(list((tmp_path / "data" / DATE / DRIVE / "velodyne_points/data").iterdir())) == 2
    assert get() == {}
    assert tree(tmp_path / "data").keys() > COLOUR.keys()


def test_frames_that_a_drive_does_not_have_are_named(get, tmp_path):
    assert re.search(r"sync\.zip has no frame from 500 to 519: ask for others", get(frames=(500, 520))[DRIVE])
    assert only_hidden(tmp_path / "data")


def test_a_file_that_was_not_fetched_is_never_replaced(get, tmp_path):
    """The user's own picture under the name of a frame; a calibration that he measured anew."""
    mine = {f"{DATE}/{DRIVE}/image_02/data/0000000001.png": b"edited", f"{DATE}/calib_cam_to_cam.txt": b"measured"}
    for name, content in mine.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(content)
    failed = get()
    assert set(failed) == {DRIVE, f"{DATE}_calib"}
    assert re.search(r"0000000001\.png is not the archive's file .*: it stays; rename or remove it", failed[DRIVE])
    assert tree(tmp_path / "data") == mine


def test_dry_run_writes_nothing(get, tmp_path, capsys):
    assert get(dry_run=True) == {}
    assert not (tmp_path / "data").exists()
    assert "to fetch: " in capsys.readouterr().out


def test_names_are_splits_files_and_drives(tmp_path):
    lab = named_drives(["lab"])
    assert sorted(lab) == sorted(drive for side in SPLITS["lab"].values() for drive in side)
    assert sorted(named_drives(["kitti_archives_to_download.txt"])) == sorted(lab)
    assert len(named_drives(["eigen"])) == 61 and len(named_drives(["stereo_2015"])) == 32
    assert named_drives(["2011_09_26_drive_0002", DRIVE, "lab"]).count(DRIVE) == 1
    addresses = {archive.url for archive in archives_of(lab)}
    assert addresses == set((project_root() / "kitti_archives_to_download.txt").read_text().split())
    (tmp_path / "list.txt").write_text(f"# mine\n\n{DRIVE}  # short\nhttp://x/2011_09_26_calib.zip\n2011_drive\n")
    with pytest.raises(ValueError, match=r"list\.txt names '2011_drive', which is no drive"):
        named_drives([str(tmp_path / "list.txt")])
    for wrong in ("../2011_09_26_drive_0002", "2011_09_26_drive_0002_extract", "labb"):
        if wrong.startswith(".."):
            assert named_drives([wrong]) == [DRIVE]  # an address's last part; what stands before it is dropped
        else:
            with pytest.raises(ValueError, match=wrong):
                named_drives([wrong])


# --- a bad line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("faults", [["500", "503"], ["cut", "cut"], ["stall"]], ids="-".join)
def test_a_bad_line_delays_only(server, get, tmp_path, faults):
    server.faults = list(faults)
    assert get(timeout=1) == {}
    assert server.faults == []
    assert tree(tmp_path / "data") == COLOUR


def test_a_cut_stretch_goes_on_at_the_missing_byte(server, get, tmp_path):
    get()
    undisturbed = server.sent
    shutil.rmtree(tmp_path / "data")
    server.sent, server.faults = 0, ["cut", "cut"]
    get()
    assert server.sent < undisturbed + 2 * 70_000  # of a cut answer at most one read of 64 kB is lost


def test_patience_ends(server, get):
    server.faults = ["500"] * 100
    with pytest.raises(
        ConnectionError, match=r"failed 4 times, the last time with: the server answers 500 .* start the"
    ):
        get()
    assert len(server.of_drive()) == 4


def test_a_line_that_breaks_for_good_while_fetching_keeps_what_came(server, get, tmp_path, monkeypatch):
    server.faults = ["cut"]
    original = Server.get
    monkeypatch.setattr(Server, "get", lambda *args: original(*args) if server.faults else _unplugged())
    failed = get()
    assert list(failed) == [DRIVE] and "What was fetched is kept" in failed[DRIVE]
    assert not (tmp_path / "data" / DATE / DRIVE).exists()
    kept = len(list((tmp_path / "data").rglob("*.png")))
    assert 0 < kept < 2 * FRAMES
    monkeypatch.undo()
    server.sent = 0
    assert get() == {}
    assert tree(tmp_path / "data") == COLOUR
    assert server.sent < (2 * FRAMES - kept) * 34_000 + 15_000


def test_a_line_that_breaks_at_the_table_is_no_fault_of_the_archive(get, monkeypatch):
    original = Server.get
    monkeypatch.setattr(
        Server, "get", lambda self, url, span="": original(self, url, span) if span == "0-0" else _unplugged()
    )
    with pytest.raises(ConnectionError, match="failed 4 times, the last time with: no route to host"):
        get()


def _unplugged():
    raise ConnectionError("no route to host")


def test_no_server_at_all_is_said_in_a_sentence(tmp_path, capsys):
    command = [DRIVE, "--to", str(tmp_path), "--base-url", "http://127.0.0.1:9", "--tries", "1"]
    assert main(command) == 1
    assert "failed 1 times" in capsys.readouterr().err


def test_a_drive_the_server_lacks_does_not_stop_the_others(server, tmp_path, capsys):
    command = [OTHER, DRIVE, "--to", str(tmp_path / "data"), "--base-url", server.url]
    assert main(command) == 1
    assert re.search(rf"{OTHER} failed: .*404.*check the name", capsys.readouterr().err)
    assert tree(tmp_path / "data") == COLOUR


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "ctrl-c"])
def test_a_stopped_fetch_goes_on(server, get, tmp_path, number):
    server.faults = ["stall"]
    command = [sys.executable, "-m", "monodepth_lib.commands.download", DRIVE, "--to", str(tmp_path / "data")]
    # a shell's background job ignores Ctrl-C, and so would what it starts
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen([*command, "--base-url", server.url], stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    assert server.stalled.wait(60)
    until = time.monotonic() + 20
    while time.monotonic() < until and len(list((tmp_path / "data").rglob("*.png"))) < 2:
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    server.released.set()
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    assert number == signal.SIGKILL or errors.strip().endswith("stopped; the same command goes on from here")

    assert not (tmp_path / "data" / DATE / DRIVE).exists(), "a drive has its name only when it is whole"
    kept = len(list((tmp_path / "data").rglob("*.png")))
    assert 2 <= kept < 2 * FRAMES
    server.requests.clear()
    server.sent = 0
    assert get() == {}
    assert tree(tmp_path / "data") == COLOUR
    assert server.sent < (2 * FRAMES - kept) * 34_000 + 15_000
    assert all("calib" not in path for path, _ in server.requests), "the calibration was whole"


def test_a_server_that_sends_whole_files_alone_is_refused_with_another_way(server, get, tmp_path):
    server.ranges = False
    failed = get()
    assert all(
        said.endswith("does not send parts of a file: fetch it with wget and unzip it") for said in failed.values()
    )
    assert len(failed) == 2 and tree(tmp_path / "data") == {}


# --- archives and servers that lie ------------------------------------------------------------------------------


def only_hidden(root: Path) -> bool:
    """Whether nothing of a drive lies below `root` under a name that would be taken for one."""
    with pytest.raises(FileNotFoundError):
        find_drives(root)
    return True


@pytest.mark.parametrize("lie", [+1000, -1000])
def test_a_lie_about_the_length(server, get, tmp_path, lie):
    server.lie = lie
    del server.files[f"/{DATE}_calib.zip"]
    try:
        failed = get()
    except ConnectionError as error:
        failed = {DRIVE: str(error)}
    assert re.search("not a whole zip|failed 4 times|sends other bytes", failed[DRIVE])
    assert not (tmp_path / "data").exists() or only_hidden(tmp_path / "data")
    server.lie = 0
    assert DRIVE not in get()


def test_a_server_that_sends_other_bytes_than_asked_for(server, get, tmp_path, monkeypatch):
    original = Server.get

    def shifted(self, url, span=""):
        first, _, last = span.partition("-")
        return original(self, url, span if span == "0-0" else f"{max(int(first) - 1, 0)}-{last}")

    monkeypatch.setattr(Server, "get", shifted)
    with pytest.raises(ConnectionError, match="the server sends other bytes than those asked for"):
        get()
    assert not (tmp_path / "data").exists()


def test_a_truncated_archive(server, get, tmp_path):
    path = server.path(DRIVE)
    whole = server.files[path]
    server.files[path] = whole[: len(whole) // 2]
    failed = get()
    assert re.search(r"drive_0002_sync\.zip is not a whole zip archive .* try again later", failed[DRIVE])
    assert only_hidden(tmp_path / "data")
    server.files[path] = whole
    assert get() == {}
    assert tree(tmp_path / "data") == COLOUR


def test_a_damaged_member_is_named_and_the_next_fetch_repairs_it(server, get, tmp_path):
    path = server.path(DRIVE)
    whole = server.files[path]
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        member = archive.getinfo(f"{DATE}/{DRIVE}/image_03/data/0000000002.png")
    middle = member.header_offset + 5000
    server.files[path] = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    failed = get()
    assert re.search(r"image_03/data/0000000002\.png arrived damaged", failed[DRIVE])
    assert only_hidden(tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.tmp"))
    server.files[path], server.sent = whole, 0
    assert get() == {}
    assert tree(tmp_path / "data") == COLOUR
    assert server.sent < 60_000


def with_entry(name: str, content: bytes = b"x" * 100, mode: int = 0, flags: int = 0) -> bytes:
    """The drive's archive with one more member, whatever its name."""
    file = io.BytesIO(whole_drive())
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo("placeholder")
        entry.filename, entry.external_attr, entry.compress_type = name, mode << 16, zipfile.ZIP_DEFLATED
        archive.writestr(entry, content)
        archive.filelist[-1].flag_bits |= flags
    return file.getvalue()


INSIDE = f"{DATE}/{DRIVE}"
HOSTILE = {
    "up": (partial(with_entry, "../../escaped.txt"), "escaped.txt' does not belong"),
    "up-inside": (partial(with_entry, f"{INSIDE}/image_02/../../../../escaped.txt"), "does not belong"),
    "absolute": (partial(with_entry, "/tmp/escaped.txt"), "'/tmp/escaped.txt' does not belong"),
    "backslash": (partial(with_entry, f"{INSIDE}/..\\..\\escaped.txt"), "does not belong"),
    "disk-letter": (partial(with_entry, "C:/escaped.txt"), "does not belong"),
    "other-drive": (partial(with_entry, f"{DATE}/{OTHER}/image_02/data/0.png"), f"{OTHER}.* does not belong"),
    "hidden": (partial(with_entry, f"{INSIDE}/.fetched.json"), "does not belong"),
    "zero-byte": (partial(with_entry, f"{INSIDE}/image_02/data/a\x00.png"), "does not belong"),
    "symlink": (partial(with_entry, f"{INSIDE}/image_02/link", b"/etc", stat.S_IFLNK | 0o777), "link' is a link"),
    "device": (
        partial(with_entry, f"{INSIDE}/image_02/pipe", b"", stat.S_IFIFO | 0o666),
        "pipe' is a link or another special",
    ),
    "twice": (partial(with_entry, f"{INSIDE}/image_02/data/0000000000.PNG"), "is there twice"),
    "encrypted": (partial(with_entry, f"{INSIDE}/image_02/data/1.png", flags=1), "is encrypted"),
    "bomb": (partial(with_entry, f"{INSIDE}/image_02/data/9.png", bytes(40_000_000)), "would unpack to"),
    "big-member": (
        partial(with_entry, f"{INSIDE}/image_02/data/9.png", bytes(65_000_000)),
        r"9\.png' unpacks to 65 MB",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_by_name_and_writes_nothing(server, get, tmp_path, name):
    make, why = HOSTILE[name]
    server.files[server.path(DRIVE)] = make()
    failed = get()
    assert re.search(f"is refused: .*{why}", failed[DRIVE])
    assert tree(tmp_path) == {f"data/{DATE}/calib_cam_to_cam.txt": CALIBRATION}
    assert not Path("/tmp/escaped.txt").exists()


def test_a_bomb_that_claims_to_be_small_stops_at_its_claim(server, get, tmp_path, monkeypatch):
    name = f"{INSIDE}/image_02/data/9.png"
    content = bytearray(with_entry(name, bytes(40_000_000)))
    table = content.rindex(name.encode()) - 46  # the entry in the table; its size unpacked stands at byte 24
    content[table + 24 : table + 28] = (1000).to_bytes(4, "little")
    server.files[server.path(DRIVE)] = bytes(content)
    written = []
    copy = shutil.copyfileobj
    monkeypatch.setattr(shutil, "copyfileobj", lambda a, b, n: (copy(a, b, n), written.append(b.tell())))
    failed = get()
    assert re.search(r"9\.png arrived damaged \(Bad CRC", failed[DRIVE])
    assert max(written, default=0) < 100_000
    assert only_hidden(tmp_path / "data")


def test_a_member_shorter_than_it_claims_is_refused(server, get, tmp_path):
    name = f"{INSIDE}/image_02/data/9.png"
    content = bytearray(with_entry(name))
    table = content.rindex(name.encode()) - 46
    content[table + 24 : table + 28] = (1000).to_bytes(4, "little")
    server.files[server.path(DRIVE)] = bytes(content)
    assert re.search(r"9\.png arrived damaged \(100 bytes, not 1000\)", get()[DRIVE])
    assert only_hidden(tmp_path / "data")


def test_calibration_archives_hold_calibration_only(server, get, tmp_path):
    server.files[f"/{DATE}_calib.zip"] = pack({f"{DATE}/{DRIVE}/image_02/data/0000000000.png": b"x"})
    failed = get()
    assert "does not belong into 2011_09_26" in failed[f"{DATE}_calib"]
    assert tree(tmp_path / "data") == {name: content for name, content in COLOUR.items() if "calib" not in name}


def test_a_table_of_any_size_is_not_read_into_memory(monkeypatch):
    content = whole_drive()
    monkeypatch.setattr(module, "LARGEST_TABLE", 1000)
    with pytest.raises(ValueError, match="its table claims"):
        module.open_archive(io.BytesIO(content), Archive(DRIVE, "x", INSIDE), len(content))


SMALL = pack({f"{INSIDE}/image_02/data/{frame}.png": bytes(range(200)) for frame in range(3)})


@settings(max_examples=80)
@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(SMALL)))
def test_mutated_archives_give_a_sentence_and_stay_inside(tmp_path_factory, changes, length):
    content = bytearray(SMALL)
    for place, value in changes:
        content[place] = value
    raw = io.BytesIO(bytes(content[: length if len(changes) % 2 else len(SMALL)]))
    root = tmp_path_factory.mktemp("fuzz")
    try:
        archive = module.open_archive(raw, Archive(DRIVE, "http://x/a.zip", INSIDE), len(raw.getvalue()))
        for member in archive.infolist():
            if not member.is_dir():
                module.write_member(archive, member, root / "inside" / member.filename, None)
    except ValueError as error:
        assert len(str(error)) > 40 and ("a.zip" in str(error) or "arrived damaged" in str(error))
    assert {path.name for path in root.iterdir()} <= {"inside"}
    shutil.rmtree(root)


# --- the disk ---------------------------------------------------------------------------------------------------


def test_too_little_space_is_said_before_anything_is_fetched(server, get, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 100_000))
    with pytest.raises(OSError, match=r"has 100 kB free, but .* are needed: make room"):
        get()
    assert tree(tmp_path / "data") == {}


def test_a_drive_gets_its_name_in_one_step_and_last(server, get, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError("no")

    monkeypatch.setattr(module.os, "rename", fails)
    with pytest.raises(OSError, match="cannot be written"):
        get()
    assert only_hidden(tmp_path / "data")
    monkeypatch.undo()
    server.sent = 0
    assert get() == {}
    assert tree(tmp_path / "data") == COLOUR
    assert server.sent < 15_000, "only the table is read again"


def test_a_disk_that_fills_up_keeps_what_came(server, get, tmp_path, full_disk):
    with full_disk(20_000), pytest.raises(OSError, match=r"cannot be written .* make room .* kept"):
        get()
    assert (tmp_path / "data" / DATE / "calib_cam_to_cam.txt").is_file()
    assert not list((tmp_path / "data").rglob("*.tmp"))
    assert get() == {}
    assert tree(tmp_path / "data") == COLOUR


# --- JPEG -------------------------------------------------------------------------------------------------------


def test_pictures_as_jpeg(server, get, tmp_path, capsys):
    assert get(jpeg=92) == {}
    drive = find_drives(tmp_path / "data")[DRIVE]
    pairs = find_pairs(drive)
    assert [pair.left.name for pair in pairs] == [f"{frame:010d}.jpg" for frame in range(FRAMES)]
    assert not list(drive.rglob("*.png"))
    with Image.open(pairs[1].right) as image, Image.open(io.BytesIO(png(31))) as original:
        assert (image.format, image.size, image.mode) == ("JPEG", original.size, "RGB")
        grey = [np.asarray(picture.convert("L"), dtype=float) for picture in (image, original)]
    assert np.abs(grey[0] - grey[1]).mean() < 12  # noise is JPEG's worst case
    said = capsys.readouterr().out
    assert re.search(r"JPEG 92: .* became .*; the effect on metrics has not been measured", said)
    server.requests.clear()
    assert get(jpeg=92) == {} and get() == {}
    assert server.requests == []


def deep_png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"\x89PNG\r\n\x1a\n" + bytes(500), "no PNG"), (png(0)[:9000], "no PNG"), (deep_png(), "mode I")],
)
def test_a_picture_that_is_none_is_named(server, get, tmp_path, content, why):
    members = drive_members(DRIVE)
    members[f"{INSIDE}/image_02/data/0000000001.png"] = content
    server.add(DRIVE, members)
    assert re.search(rf"image_02/data/0000000001\.png arrived damaged \(.*{why}", get(jpeg=92)[DRIVE])
    assert only_hidden(tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.tmp"))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["lab", "--jpeg", "200"], "argument --jpeg: 200 must be at least 1 and at most 95"),
        (["lab", "--tries", "0"], "argument --tries: 0 must be"),
        (["lab", "--timeout", "nan"], "argument --timeout: nan is not finite"),
        (["lab", "--frames", "5:5"], "argument --frames: .5:5. names no frames"),
        (["lab", "--frames", "-3:"], "argument --frames: expected one argument"),
        (["nonsense"], "names 'nonsense', which is no drive"),
        (["lab", "--base-url", "ftp://x"], "must begin with https"),
        (["lab", "--base-url", "http://[x"], r"base URL .http://\[x. is no address"),
    ],
)
def test_wrong_arguments(arguments, why, capsys, tmp_path):
    try:
        assert main([*arguments, "--to", str(tmp_path)]) == 2
    except SystemExit as stop:  # argparse
        assert stop.code == 2
    assert re.search(why, capsys.readouterr().err)
