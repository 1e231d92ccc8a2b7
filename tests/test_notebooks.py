"""The notebooks: their form, what is stored in them, and a headless run of each with the tiny profile."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
from pathlib import Path

import minutes
import nbformat
import numpy as np
import pytest
from nbconvert.filters import markdown2html
from PIL import Image

from monodepth_lib import kitti
from monodepth_lib.commands import run

ROOT = Path(__file__).resolve().parent.parent
PATHS = [run.notebook_path(name) for name in run.NOTEBOOKS]
SETTINGS = {"data_dir", "cameras", "profile", "seed"}


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def tagged(notebook: nbformat.NotebookNode, tag: str) -> list:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def test_the_folder_holds_those_of_run_all_and_no_other():
    assert sorted((ROOT / "notebooks").glob("*.ipynb")) == PATHS


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
class TestStored:
    def test_ran_in_order_with_outputs(self, path):
        """A cell without count or outputs would pass nbval uncompared."""
        code = [cell for cell in read(path).cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
        speaking = [cell for cell in code if re.search(r"\bprint\(|plots\.grid\(", cell.source)]
        assert len(speaking) >= 3
        silent = [cell.source[:60] for cell in speaking if not cell.outputs]
        assert not silent

    def test_few_cells_are_left_unchecked(self, path):
        notebook = read(path)
        assert len(tagged(notebook, "nbval-ignore-output")) <= 3
        assert not tagged(notebook, "nbval-skip") + tagged(notebook, "raises-exception")

    def test_clean(self, path):
        notebook = read(path)
        text = path.read_text(encoding="utf-8")
        assert set(notebook.metadata) == {"kernelspec", "language_info"}
        assert "widget-view" not in text
        assert not re.search(r"(/home/|/root/|/work/|/tmp/|/Users/|C:\\\\)", text)
        streams = [out for cell in notebook.cells for out in cell.get("outputs", []) if out.output_type == "stream"]
        assert not [out.text for out in streams if out.name == "stderr"]
        assert path.stat().st_size <= 400_000

    def test_numbers_quoted_in_prose_stand_in_an_output_above(self, path):
        """Paragraphs that quote stored outputs end with the marker "<!-- stored -->"."""
        said = ""
        for cell in read(path).cells:
            for output in cell.get("outputs", []):
                said += output.get("text", "") + output.get("data", {}).get("text/plain", "")
            for paragraph in cell.source.split("\n\n") if cell.cell_type == "markdown" else []:
                if paragraph.rstrip().endswith("<!-- stored -->"):
                    numbers = re.findall(r"\d+\.\d+", paragraph) or re.findall(r"\d+", paragraph)
                    assert numbers, paragraph
                    stored = set(re.findall(r"\d+\.\d+|\d+", said))  # whole numbers: "1.2" is not in "11.23"
                    assert [n for n in numbers if n not in stored] == [], paragraph

    def test_cells_are_short(self, path):
        """Code: twenty lines. Prose of the core: six, without headings, tables, folded answers and closing lists."""
        core = True
        for cell in read(path).cells:
            if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
                assert len(cell.source.splitlines()) <= 20, cell.id
            core = core and not cell.source.startswith("## Going further")
            if cell.cell_type == "markdown" and core and "## Summary" not in cell.source:
                shown = re.sub(r"<details>.*?</details>", "", cell.source, flags=re.DOTALL)
                prose = [line for line in shown.splitlines() if line.strip()]
                assert sum(not line.startswith(("#", "|", "<!--")) for line in prose) <= 6, cell.id

    def test_the_card_says_the_minutes_of_the_rule(self, path):
        core, total = minutes.work(path)
        if path.stem not in ("00_first_look", "08_your_own"):  # play and homework take longer
            assert minutes.card(path) == [minutes.rounded(core.minutes), minutes.rounded(total.minutes)]

    def test_hints_and_answers_stay_folded_in_an_exported_page(self, path):
        for cell in read(path).cells:
            if cell.cell_type == "markdown":
                page = markdown2html(cell.source)
                folded = re.findall(r"<details><summary>[^<]+</summary>(.*?)</details>", page, re.DOTALL)
                assert len(folded) == cell.source.count("<details>")
                assert all(len(text) > 20 and text.count("<ol") == text.count("</ol>") for text in folded)

    def test_one_parameters_cell_of_literals(self, path):
        cells = tagged(read(path), "parameters")
        assert len(cells) == 1
        names = set()
        for statement in ast.parse(cells[0].source).body:
            assert isinstance(statement, ast.Assign), "only name = literal may stand here"
            ast.literal_eval(statement.value)
            names.add(statement.targets[0].id)
        assert names >= SETTINGS or path.stem == "00_first_look"  # which takes one picture
        assert all("#" in line for line in cells[0].source.splitlines()), "each parameter is explained"
        assert set(run.declared_parameters(path)) == names, "papermill sees every parameter"


# What reads drives: 00 takes a picture, 04 its first one. 08 does what 05 and 06 do: on the sample and on raw drives.
WITH_DRIVES = tuple(name for name in run.NOTEBOOKS if name[:2] not in ("00", "04", "08"))


def run_all(tmp_path: Path, names=WITH_DRIVES, **parameters) -> Path:
    """Headless, as `make run` does it; returns the folder of their results."""
    output = tmp_path / "run"
    run.run_all({"profile": "tiny", **parameters}, output, names)
    for name in names:
        counts = [c.execution_count for c in read(output / f"{name}.ipynb").cells if c.cell_type == "code"]
        assert None not in counts
    return output


def check_results(output: Path, drive: str, predicted: int, scored: bool) -> None:
    names = json.loads((output / "names.json").read_text())
    for file in ("disparities.npy", "disparities_pp.npy"):
        array = np.load(output / file)
        assert array.shape == (predicted, 32, 96)
        assert np.isfinite(array).all()
    assert len(names) == predicted
    assert (output / "weights.safetensors").is_file()
    assert (output / "history.csv").read_text().count("\n") == 2
    assert (output / "metrics.json").is_file() == scored
    with Image.open(output / f"{drive}.gif") as gif:
        assert gif.n_frames == len(json.loads((output / drive / "names.json").read_text()))


def test_all_on_the_sample(tmp_path):
    # test_browser.py runs the others with this profile, where there is a Chromium
    output = run_all(tmp_path, run.NOTEBOOKS[5:8] if shutil.which("chromium") else run.NOTEBOOKS)
    test = kitti.select_drives(ROOT / "data/sample", "test")
    pairs = [pair for folder in test.values() for pair in kitti.find_pairs(folder)]
    check_results(output, "2025_01_01_drive_0201_sync", len(pairs), scored=True)
    assert json.loads((output / "names.json").read_text()) == [pair.name for pair in pairs]
    # 06 measured the weights that 05 had just trained, not those of models/
    assert "run/weights.safetensors" in json.loads((output / "metrics.json").read_text())["weights"]


def test_pictures_of_ones_own(tmp_path):
    """Folders left and right, one camera file, and no true depth anywhere."""
    data = tmp_path / "mine"
    for side, count in (("train", 8), ("vals", 4), ("test", 4)):
        drive = next(iter(sorted((ROOT / "data/sample" / side).iterdir())))
        for pair in kitti.find_pairs(drive)[:count]:
            for view, path in (("left", pair.left), ("right", pair.right)):
                copy = data / side / f"street_{side}" / view / f"{view}_{path.stem}{path.suffix}"
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
    (data / "camera.json").write_text('{"focal_px": 721.5, "baseline_m": 0.54, "width": 1242}')
    output = run_all(tmp_path, data_dir=str(data), gif_drive="street_test")
    check_results(output, "street_test", 4, scored=False)


REAL = os.environ.get("MONODEPTH_KITTI")
needs_real = pytest.mark.skipif(not REAL, reason="MONODEPTH_KITTI does not name a folder of real KITTI pictures")


@needs_real
def test_grey_drives(tmp_path):
    output = run_all(
        tmp_path,
        data_dir=REAL,
        cameras="grey",
        train_drives="2011_09_30_drive_9001_sync",
        test_drives="stereo_2012",
        gif_drive="2011_09_30_drive_9001_sync",
    )
    check_results(output, "2011_09_30_drive_9001_sync", 49, scored=True)


@needs_real
def test_raw_drives(tmp_path):
    """Colour, original PNG, KITTI's nested folders, no split folders, truth from laser scans, no validation."""
    output = run_all(
        tmp_path,
        run.NOTEBOOKS[5:],  # the test below has the others
        data_dir=f"{REAL}/raw",
        train_drives="2011_10_03_drive_0034_sync",
        val_drives="none",
        test_drives="2011_09_26_drive_0048_sync",
        gif_drive="2011_09_26_drive_0048_sync",
    )
    check_results(output, "2011_09_26_drive_0048_sync", 3, scored=True)
    assert json.loads((output / "metrics.json").read_text())["truth"] == ["scan"]


@needs_real
def test_what_looks_at_training_pairs_takes_the_few_pixels_of_a_laser(tmp_path):
    drives = "2011_09_26_drive_0048_sync,2011_10_03_drive_0034_sync"  # with scans, and without
    others = {"val_drives": "none", "test_drives": "none", "data_dir": f"{REAL}/raw", "profile": "tiny"}
    run.run_all({"train_drives": drives, **others}, tmp_path, run.NOTEBOOKS[1:4])
    first, second = (read(tmp_path / f"{name}.ipynb") for name in run.NOTEBOOKS[1:3])
    said = "".join(
        out.get("text", "") for nb in (first, second) for cell in nb.cells for out in cell.get("outputs", [])
    )
    (far,) = re.findall(r"depth ([\d.]+) m, by the", said)
    assert 1 < float(far) < 80
    assert "inf m" not in said
    (within,) = re.findall(r"within one pixel of the true disparity: (\d+) %", said)
    assert int(within) > 30  # zeros blended in made it 1
