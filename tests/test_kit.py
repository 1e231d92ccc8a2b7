"""What a class is handed: archives without and with solutions, and a folder that installs without a network."""

from __future__ import annotations

import json
import posixpath
import re
import tomllib
import zipfile
from pathlib import Path

import make_class
import make_offline
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("class")
    assert make_class.main(["--output", str(folder)]) == 0
    return {name: zipfile.ZipFile(folder / f"{name}.zip") for name in ("students", "teacher")}


def test_students_get_all_they_work_with_and_no_solution(archives):
    names = set(archives["students"].namelist())
    for path in (*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("models/unet_*"), ROOT / "requirements.txt"):
        assert f"monodepth/{path.relative_to(ROOT)}" in names
    assert sum(name.startswith("monodepth/data/sample/") for name in names) > 400
    assert not [name for name in names if re.search(r"solutions|teaching|/tests/|/\.git/|/\.ci/", name)]


def test_no_link_for_students_leads_out_of_their_archive(archives):
    names, dead = set(archives["students"].namelist()), []
    for name in [name for name in names if name.endswith((".ipynb", ".md"))]:
        text = archives["students"].read(name).decode()
        for link in re.findall(r"\]\(([^():# ]+\.(?:md|ipynb|gif|png|txt))(?:#[^()]*)?\)", text):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), link))
            dead += [f"{name}: {link}"] * (target not in names)
    assert not dead


def test_no_file_for_students_holds_the_lines_of_a_solution(archives):
    solved = []  # lines that no stub has
    lessons = "".join(path.read_text() for path in ROOT.glob("notebooks/0[1-7]*.ipynb"))
    for path in ROOT.glob("notebooks/solutions/*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            if "exercise" in cell["metadata"].get("tags", []):
                stub = (ROOT / "notebooks" / path.name).read_text()
                stub += lessons if path.stem == "08_your_own" else ""  # it collects pieces that lessons show
                lines = [line.strip() for line in "".join(cell["source"]).splitlines() if "return" in line]
                solved += [line for line in lines if len(line) > 50 and json.dumps(line)[1:-1] not in stub]
    assert len(solved) >= 5
    for name in archives["students"].namelist():
        if name.endswith((".ipynb", ".md")):
            text = archives["students"].read(name).decode()
            assert not [line for line in solved if line in text or json.dumps(line)[1:-1] in text], name


def test_the_teacher_gets_the_whole_repository(archives):
    names = set(archives["teacher"].namelist())
    assert {f"monodepth/{name}" for name in make_class.tracked()} <= names
    assert any("solutions" in name for name in names)


def test_equal_files_make_equal_archives(tmp_path):
    files = {"a.txt": ROOT / "LICENSE"}
    make_class.pack(files, tmp_path / "one.zip")
    make_class.pack(files, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


@pytest.fixture(scope="module")
def stick(tmp_path_factory):
    """The offline folder, with one small requirement in place of the list of three gigabytes."""
    listed = [line for line in make_offline.requirements(ROOT / "requirements.txt") if line.startswith("filelock==")]
    folder = tmp_path_factory.mktemp("offline") / "stick"
    make_offline.make(folder, listed)
    return folder


def test_the_offline_folder_installs_without_a_network(stick):
    assert not (stick / "course/notebooks/solutions").exists()
    assert list((stick / "wheels").glob("filelock-*.whl")) and list((stick / "wheels").glob("setuptools-*.whl"))
    weights = "Path(monodepth_lib.__file__).parents[1] / 'models/unet_sample.safetensors'"
    make_offline.try_it(
        stick, f"import filelock, monodepth_lib; from pathlib import Path; assert ({weights}).is_file()"
    )


def test_an_installation_that_fails_is_said(tmp_path, capsys):
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick/install.sh").write_text("exit 3\n")
    assert make_offline.main(["--try", str(tmp_path / "stick")]) == 1
    assert "sh failed with status 3" in capsys.readouterr().err


def test_the_list_is_the_tested_one_without_the_project_itself():
    listed = make_offline.requirements(ROOT / "requirements.txt")
    assert any(line.startswith("torch==") for line in listed)
    assert not [line for line in listed if line.startswith("-")]


def test_every_file_of_models_has_its_licence_and_origin():
    rows = [line.split("|") for line in (ROOT / "models/README.md").read_text().splitlines() if line.startswith("| `")]
    listed = {row[1].strip().strip("`"): row for row in rows}
    files = {name.removeprefix("models/") for name in make_class.tracked() if name.startswith("models/")}
    assert set(listed) == files - {"__init__.py"}
    for row in rows:
        assert row[3].strip() and re.search(r"CC0|CC BY-NC-SA|MIT", row[4]), row


def test_the_citation_file_names_the_project_s_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] and citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert "Left-Right Consistency" in citation["preferred-citation"]["title"]


def test_the_page_of_errors_has_twenty_with_reason_and_remedy():
    entries = re.split(r"^\*\*\d+\. ", (ROOT / "docs/common-errors.md").read_text(), flags=re.MULTILINE)[1:]
    assert len(entries) == 20
    assert all("*Reason:*" in entry and "*Remedy:*" in entry for entry in entries)


def test_files_for_services_that_were_out_of_reach_say_so():
    for name in (".github/workflows/pages.yml", ".devcontainer/devcontainer.json", ".binder/environment.yml"):
        assert "ot run here" in (ROOT / name).read_text(), name
