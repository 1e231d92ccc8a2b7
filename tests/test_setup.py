"""What users install: one list for pip and conda, and every requirement of the project in it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


def pinned() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_conda_users_get_the_very_same_list():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    names = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-r requirements.txt", "-e ."]
    assert [re.split("[=<>]", name)[0] for name in names] == ["python", "pip"]


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split("[=<>]", dependency)[0] for dependency in project["dependencies"]}
    assert names <= {name.lower() for name in pinned()}


def test_the_list_installs_from_every_folder():
    """It names no path and no folder: pip would take `-e .` from where it is started."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if not re.fullmatch(r"#.*|[\w.-]+==[\w.]+", line)]


@pytest.mark.parametrize("page", ["Makefile", "docs/installation.md", "monodepth_lib/commands/check.py"])
def test_whoever_installs_the_list_installs_the_project_beside_it(page):
    said = re.findall(r"pip install [^`\"\n]*requirements\.txt[^`\"\n]*", (ROOT / page).read_text(encoding="utf-8"))
    assert said and all(line.rstrip().endswith("-e .") for line in said), said


def test_users_install_nothing_that_only_maintainers_or_one_machine_need():
    heavy = ("nvidia", "cuda", "triton", "mitsuba", "playwright", "ruff", "mypy", "hypothesis")
    assert not [name for name in pinned() if name.lower().startswith(heavy)]


def test_the_archive_list_holds_the_thirteen_drives_and_the_calibration_of_their_dates():
    lines = (ROOT / "kitti_archives_to_download.txt").read_text().split()  # test_download.py has what they are
    assert len(lines) == 17
