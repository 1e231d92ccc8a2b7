"""The command that measures weights: what it writes, what reaches the figures, what is said when it cannot."""

import csv
import hashlib
import json
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic import make_drive, make_stereo_2015, write_calibration, write_scan

from monodepth_lib import checkpoints, kitti, testing
from monodepth_lib.commands import evaluate
from monodepth_lib.confidence import flip_disagreement, score_confidence
from monodepth_lib.data import prepare_dataloader
from monodepth_lib.depth import METRICS
from monodepth_lib.report import table

SIZE = (32, 96)


@pytest.fixture
def without_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)


@pytest.fixture
def weights(tmp_path, tiny):
    """Weights of a tiny network whose answer changes with the picture and with its size."""
    model = tiny()
    with torch.no_grad():
        torch.nn.init.normal_(model.decoder.heads[3].conv.weight, std=0.5)
    path = tmp_path / "mine.safetensors"
    checkpoints.save_model(model, path, SIZE)
    return path


def command(*arguments):
    return evaluate.main([str(argument) for argument in arguments])


def test_the_command_measures_and_writes(weights, data_dir, tmp_path, capsys, without_opencv):
    assert command("--weights", weights, "--data", data_dir, "--output", tmp_path / "out", "--batch-size", 2) == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "out/metrics.json").read_text(encoding="utf-8"))
    assert report["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (report["weights"], report["images"], report["size"]) == ("mine.safetensors", 5, [32, 96])
    assert report["drives"] == ["2020_01_01_drive_0004_sync"]
    assert report["post_processing"] is True

    pairs = kitti.select_pairs(data_dir, "test")
    batches = testing.predict_loader(checkpoints.load_model(weights), prepare_dataloader(pairs, size=SIZE), "cpu")
    plain, processed = (torch.cat(maps) for maps in list(zip(*batches, strict=True))[1:])
    expected = testing.mean_row(testing.score(pairs, processed), "mine, post-processed")
    assert {key: report["means"][0][key] for key in METRICS} == pytest.approx(
        {k: expected[k] for k in METRICS}, rel=1e-4
    )
    confidence = score_confidence(pairs, processed, flip_disagreement(plain, processed))
    means = {key: np.mean([row[key] for row in confidence]) for key in ("ause", "aurg")}
    assert report["confidence"] == pytest.approx(means, rel=1e-3)
    assert f"AUSE {means['ause']:.3f}" in printed
    assert table([expected]).splitlines()[1].split()[2:] == printed.splitlines()[3].split()[2:]

    with open(tmp_path / "out/metrics.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 10  # five images, the model and the baseline
    assert lines[0]["answer"] == "mine, post-processed" and lines[5]["answer"].startswith("baseline")
    first = {key: lines[0][key] for key in ("name", "sha256", "cap_m", "crop", "median_scaling", "post_processing")}
    assert first == {
        "name": "2020_01_01_drive_0004_sync/0000000000",
        "sha256": report["sha256"],
        "cap_m": "80.0",
        "crop": "none",
        "median_scaling": "False",
        "post_processing": "True",
    }
    assert np.mean([float(line["abs_rel"]) for line in lines[:5]]) == pytest.approx(report["means"][0]["abs_rel"])


def test_the_commands_options_reach_the_figures(weights, data_dir, tmp_path, without_opencv):
    def measured(*options, output="out"):
        assert command("--weights", weights, "--data", data_dir, "--output", tmp_path / output, *options) == 0
        return json.loads((tmp_path / output / "metrics.json").read_text(encoding="utf-8"))

    usual = measured()
    plain = measured("--no-post-process")
    assert plain["means"][0]["name"] == "mine, plain" and plain["post_processing"] is False
    small = measured("--size", 64, 96)
    assert small["size"] == [64, 96]
    cropped = measured("--crop", "eigen", "--cap", 50)
    assert (cropped["crop"], cropped["cap_m"]) == ("eigen", 50)
    assert cropped["per_image"][0]["pixels"] < usual["per_image"][0]["pixels"]
    scaled = measured("--median-scaling")
    assert scaled["median_scaling"] is True
    results = [report["means"][0]["abs_rel"] for report in (usual, plain, small, scaled)]
    assert len(set(results)) == 4
    named = measured("--drives", "2020_01_01_drive_0004_sync", output="other")
    assert named["split"] == "2020_01_01_drive_0004_sync" and named["means"] == usual["means"]


def test_one_drive_is_data_enough(weights, tmp_path, without_opencv, capsys):
    root = make_stereo_2015(tmp_path / "stereo_2015", shift=4)
    write_calibration(root / "calib_cam_to_cam.txt", focal=100.0, baseline=0.288, width=96)
    assert command("--weights", weights, "--data", root, "--output", tmp_path / "out") == 0
    report = json.loads((tmp_path / "out/metrics.json").read_text(encoding="utf-8"))
    assert (report["images"], report["truth"], report["drives"]) == (3, ["disparity"], ["stereo_2015"])
    assert not any("neighbouring" in note for note in report["notes"])  # three scenes, not one film


def test_a_warning_becomes_a_note_once(weights, tmp_path, without_opencv, monkeypatch, capsys):
    root = make_stereo_2015(tmp_path / "stereo_2015")
    write_calibration(root / "calib_cam_to_cam.txt", focal=100.0, baseline=0.288, width=96)
    real = kitti.Pair.ground_truth

    def warned(pair):
        warnings.warn("the table by picture width", stacklevel=1)
        warnings.warn("the table by picture width", stacklevel=1)  # from two lines of code: Python tells both
        return real(pair)

    monkeypatch.setattr(kitti.Pair, "ground_truth", warned)
    assert command("--weights", weights, "--data", root, "--output", tmp_path / "out") == 0
    assert capsys.readouterr().out.count("note: the table by picture width") == 1


def test_what_the_weights_have_seen_is_said(data_dir, tmp_path, tiny, without_opencv, capsys, monkeypatch):
    drive = "2020_01_01_drive_0004_sync"
    path = tmp_path / "seen.safetensors"
    checkpoints.save_model(tiny(), path, SIZE, train_drives=["a", drive], val_drives=["b"])
    told = []
    monkeypatch.setattr(kitti, "test_list_warning", lambda drives, pairs: told.append((drives, len(pairs))) or "EIGEN")
    assert command("--weights", path, "--data", data_dir, "--output", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert f"note: the weights were trained or chosen on {drive}" in printed and "note: EIGEN" in printed
    checkpoints.save_model(tiny(), path, SIZE)
    assert command("--weights", path, "--data", data_dir, "--output", tmp_path / "out") == 0
    assert "were trained or chosen" not in capsys.readouterr().out
    assert told == [({"a", "b", drive}, 5), (None, 5)]


@pytest.mark.parametrize(
    "options, complaint",
    [
        (["--weights", "nothing"], "nothing.safetensors is missing"),
        (["--drives", "no_such_drive"], "lacks no_such_drive"),
        (["--drives", "2020_01_01_drive_0001_sync"], "data0: no pair has a truth of the kind asked for (auto)"),
        (["--device", "gpu"], "gpu"),
        (["--cameras", "grey"], "use --cameras colour"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(weights, data_dir, tmp_path, capsys, options, complaint):
    assert command("--weights", weights, "--data", data_dir, "--output", tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert complaint in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_test_picture_or_truth_that_is_no_good_is_named(weights, tmp_path, capsys):
    drive = make_drive(tmp_path / "data/mine", range(2), truth=True)
    (drive / "camera.json").write_text('{"focal_px": 60, "baseline_m": 0.5, "width": 96}', encoding="utf-8")
    truth = sorted(drive.rglob("proj_depth/**/*.png"))[0]
    kept = truth.read_bytes()
    Image.fromarray(np.zeros_like(np.array(Image.open(truth)))).save(truth)
    asked = ["--weights", weights, "--data", drive, "--output", tmp_path / "out"]
    assert command(*asked) == 2
    said = capsys.readouterr().err
    assert str(truth) in said, said
    truth.write_bytes(kept)
    picture = sorted((drive / "image_02").rglob("*.png"))[0]
    picture.write_bytes(b"no picture")
    assert command(*asked) == 2
    said = capsys.readouterr().err
    assert str(picture) in said and "bad" not in said


def test_warnings_that_come_before_an_error_are_told_with_it(weights, tmp_path, capsys):
    """Scans whose calibration is missing: without the warning, one learns only that no pair has a truth."""
    drive = make_drive(tmp_path / "data/mine", range(2))
    for frame in range(2):
        write_scan(drive / f"velodyne_points/data/{frame:010d}.bin", [(8, 0, 0)])
    assert command("--weights", weights, "--data", drive, "--output", tmp_path / "out") == 2
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("note: mine: its laser scans are left out, for ") and "calib_cam_to_cam.txt" in first
    assert "no pair has a truth" in last


def test_results_of_other_weights_and_files_of_the_users_stay(weights, data_dir, tmp_path, capsys, without_opencv):
    other = tmp_path / "other.safetensors"
    other.write_bytes(weights.read_bytes())
    (tmp_path / "out").mkdir()
    (tmp_path / "out/metrics.csv").write_bytes(b"my own table")
    for path in (weights, weights, other):
        assert command("--weights", path, "--data", data_dir, "--output", tmp_path / "out") == 0
        assert f"{tmp_path}/out holds results of other weights or data, or" in capsys.readouterr().out
    assert (tmp_path / "out/metrics.csv").read_bytes() == b"my own table"
    names = [json.loads((tmp_path / f"out_{n}/metrics.json").read_text(encoding="utf-8"))["weights"] for n in (2, 3)]
    assert names == ["mine.safetensors", "other.safetensors"] and not (tmp_path / "out_4").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cap", "-1"], "argument --cap: -1 must be more than 0"),
        (["--cap", "nan"], "argument --cap: nan is not finite"),
        (["--batch-size", "0"], "argument --batch-size: 0 must"),
        (["--size", "0", "96"], "argument --size: 0 must"),
        (["--drives", "x,"], "argument --drives/--split: 'x,' has an empty name"),
    ],
)
def test_an_argument_that_makes_no_sense_is_named(options, said, capsys):
    with pytest.raises(SystemExit):
        command("--weights", "unet_sample", "--data", "data", *options)
    assert said in capsys.readouterr().err
