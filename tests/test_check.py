"""The environment check: it finds what is missing, says the way out, and needs nothing but Python itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import namedtuple
from importlib import metadata
from types import SimpleNamespace

import pytest

from monodepth_lib import kitti
from monodepth_lib.commands import check
from monodepth_lib.commands.check import Finding


@pytest.fixture
def installed(monkeypatch):
    """Pretends that these packages, and no others, are installed in these versions."""

    def pretend(versions: dict[str, str]) -> None:
        def version(name):
            if name not in versions:
                raise metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(check.metadata, "version", version)

    return pretend


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the committed data, in which things may be broken."""
    for folder in ("data/sample", "models"):
        shutil.copytree(check.ROOT / folder, tmp_path / folder)
    monkeypatch.setattr(check, "ROOT", tmp_path)
    return tmp_path


def test_here_nothing_is_missing(capsys):
    assert check.main([]) == 0
    said = capsys.readouterr().out
    assert "MISSING" not in said
    for dependency in check.project()["dependencies"]:
        assert f"  ok       {dependency.split('>')[0]} {metadata.version(dependency.split('>')[0])} (needs" in said


def test_the_pairs_it_expects_are_those_of_the_sample():
    root = check.ROOT / "data/sample"
    sides = {"train": "train", "vals": "val", "test": "test"}
    counts = {
        folder: sum(len(kitti.find_pairs(drive)) for drive in kitti.select_drives(root, side).values())
        for folder, side in sides.items()
    }
    assert counts == check.SAMPLE_PAIRS


@pytest.mark.parametrize(
    "text, version, state",
    [
        ("torch>=2.4", "2.14.1+cu130", "ok"),  # 14 is more than 4, and the build says nothing
        ("torch>=2.4", "2.4", "ok"),
        ("torch>=2.4", "2.3.9", "MISSING"),
        ("torch>=2.4,<3", "3.0.0", "MISSING"),
        ("torch==2.4.1", "2.4.2", "MISSING"),
        ("torch==2.4", "2.4.0", "ok"),
        ("torch", "0.1", "ok"),
    ],
)
def test_versions_are_compared_as_numbers(installed, text, version, state):
    installed({"torch": version})
    finding = check.requirement(text)
    assert finding.state == state
    assert f"torch {version}" in finding.what
    assert bool(finding.remedy) == (state != "ok")


def test_missing_packages_are_named_with_a_remedy_and_fail_the_check(installed, capsys):
    installed({"torch": "1.13.0", "torchvision": "0.22"})
    assert check.main([]) == 1
    said = capsys.readouterr().out
    assert "MISSING  torch 1.13.0 (needs >=2.6) -> make setup" in said
    assert "MISSING  ipywidgets is not installed (needs >=8) -> make setup" in said
    assert "ok       torchvision 0.22" in said
    assert "note     test: hypothesis is not installed" in said and '-m pip install -e ".[test]"' in said


def test_builds_that_do_not_fit_each_other_are_missing(monkeypatch):
    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    monkeypatch.setattr(check, "import_module", broken)
    last = check.packages()[-1]
    assert last.state == "MISSING"
    assert last.what == "torch and torchvision do not load: operator torchvision::nms does not exist"


def test_optional_packages_are_notes_only(installed):
    installed({})
    findings = check.extras()
    assert {finding.state for finding in findings} == {"note"}
    assert any("[render]" in finding.remedy for finding in findings)


def test_an_old_python_is_said_before_all_else(monkeypatch, capsys):
    monkeypatch.setattr(check, "PYTHON", (99, 0))
    assert check.main([]) == 1
    said = capsys.readouterr().out
    assert "needs 99.0 or newer" in said and "make setup PYTHON=python99.0" in said
    assert "Packages" not in said


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


@pytest.mark.parametrize(
    "damage, words",
    [
        (shutil.rmtree, "data/sample is not there"),
        (lambda sample: next(sample.glob("train/*/image_03/data/*.jpg")).unlink(), "168 left and 167 right"),
        (lambda sample: cut(next(sample.glob("vals/*/image_02/data/*.jpg"))), "files are not whole"),
        (lambda sample: cut(next(sample.glob("test/*/proj_depth/*/*/*.png"))), "cut off or damaged"),
        (lambda sample: pointer(next(sample.glob("test/*/image_02/data/*.jpg"))), "a git-lfs pointer"),
        (lambda sample: (sample / "2025_01_01/calib_cam_to_cam.txt").write_text(""), "calib_cam_to_cam.txt is empty"),
    ],
)
def test_a_broken_sample_is_found(copy, damage, words):
    assert check.sample().state == "ok"
    damage(copy / "data/sample")
    finding = check.sample()
    assert finding.state == "MISSING" and words in finding.what
    assert "git checkout" in finding.remedy


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda path: path.unlink(), "No such file"),
        (cut, "cut off or damaged"),
        (pointer, "a git-lfs pointer"),
        (lambda path: path.write_bytes(b"\x10\0\0\0\0\0\0\0[1, 2, 3, 4, 5, "), "cut off or damaged"),
    ],
)
def test_broken_weights_are_found(copy, damage, words):
    assert check.weights().state == "ok"
    damage(copy / "models/unet_sample.safetensors")
    finding = check.weights()
    assert finding.state == "MISSING" and words in finding.what
    assert "unet_sample.safetensors" in finding.what


def test_the_card_belongs_to_the_weights(copy):
    (copy / "models/unet_sample.json").unlink()
    assert "unet_sample.json" in check.weights().what
    (copy / "models/unet_sample.json").write_text("{}")
    assert check.weights().state == "ok"
    cut(copy / "models/unet_kitti.safetensors")
    assert "unet_kitti.safetensors" in check.weights().what


def test_an_output_folder_that_cannot_be_written_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "ROOT", tmp_path)
    assert check.output_folder().state == "ok"
    assert list((tmp_path / "output").iterdir()) == []  # nothing stays
    (tmp_path / "output").rmdir()
    (tmp_path / "output").write_text("a file in its place")
    assert check.output_folder().state == "MISSING"


def test_a_full_disk_is_missing_and_little_memory_a_note(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(check.shutil, "disk_usage", lambda _: usage(10**12, 10**12, 10**8))
    assert check.disk().state == "MISSING"
    state = SimpleNamespace(total=4e9, available=0.5e9)
    monkeypatch.setattr(check, "import_module", lambda _: SimpleNamespace(virtual_memory=lambda: state))
    finding = check.memory()
    assert (finding.state, bool(finding.remedy)) == ("note", True)
    assert "4.0 GB, 0.5 GB of it free" in finding.what


def fake_torch(available, kind="cpu"):
    properties = SimpleNamespace(total_memory=24e9)
    cuda = SimpleNamespace(
        is_available=lambda: available,
        get_device_name=lambda _: "a GPU",
        get_device_properties=lambda _: properties,
    )
    modules = {"torch": SimpleNamespace(cuda=cuda)}
    modules["monodepth_lib.devices"] = SimpleNamespace(pick_device=lambda: SimpleNamespace(type=kind))
    return modules.__getitem__


def test_the_device_is_the_gpu_that_torch_sees(monkeypatch):
    monkeypatch.setattr(check, "import_module", fake_torch(True))
    assert check.device().what.startswith("GPU: a GPU, 24.0 GB; CPU with ")
    monkeypatch.setattr(check, "import_module", fake_torch(False))
    monkeypatch.setattr(check.shutil, "which", lambda _: None)
    assert check.device().state == "ok" and "no GPU" in check.device().what
    monkeypatch.setattr(check.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "torch sees no GPU" in check.device().what and check.device().remedy
    monkeypatch.setattr(check, "import_module", fake_torch(False, "mps"))
    assert check.device().what.startswith("GPU: Apple's (mps); CPU with ")


def test_sliders_need_the_extensions_file_and_chromium_is_optional(monkeypatch):
    monkeypatch.setattr(check.metadata, "files", lambda _: [])
    assert check.sliders().state == "MISSING"
    monkeypatch.setattr(check.shutil, "which", lambda _: None)
    assert check.browser().state == "note"


def test_a_finding_is_one_line():
    assert str(Finding("ok", "torch")) == "  ok       torch"
    assert str(Finding("MISSING", "torch", "make setup")) == "  MISSING  torch -> make setup"


def test_it_runs_where_no_package_is_installed():
    """-S leaves out site-packages: Python's own library and nothing else."""
    command = [sys.executable, "-S", "-m", "monodepth_lib.commands.check"]
    done = subprocess.run(command, cwd=check.ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "MISSING  torch is not installed" in done.stdout
    assert f"data/sample: {sum(check.SAMPLE_PAIRS.values())} pairs" in done.stdout
    assert done.stderr == ""
