"""The command that measures weights."""

import csv
import hashlib
import json
import warnings

import numpy as np
import pytest
import torch
from synthetic import make_stereo_2015, write_calibration

from monodepth_lib import kitti, testing
from monodepth_lib.checkpoints import load_model, save_model
from monodepth_lib.commands import evaluate
from monodepth_lib.data import prepare_dataloader
from monodepth_lib.depth import METRICS
from monodepth_lib.kitti import select_pairs

SIZE = (32, 96)


@pytest.fixture
def weights(tmp_path, tiny):
    """Weights of a tiny network whose answer changes with the picture and with its size."""
    model = tiny()
    with torch.no_grad():
        torch.nn.init.normal_(model.decoder.heads[3].conv.weight, std=0.5)
    path = tmp_path / "mine.safetensors"
    save_model(model, path, SIZE)
    return path


def command(*arguments):
    return evaluate.main([str(argument) for argument in arguments])


def test_the_command_measures_and_writes(weights, data_dir, tmp_path, capsys, without_opencv):
    assert command("--weights", weights, "--data", data_dir, "--output", tmp_path / "out", "--batch-size", 2) == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "out/metrics.json").read_text())
    assert report["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (report["weights"], report.images, report["size"]) == ("mine.safetensors", 5, [32, 96])
    assert report.drives == ["2020_01_01_drive_0004_sync"]
    assert report["post_processing"] is True

    loader = prepare_dataloader(select_pairs(data_dir, "test"), size=SIZE)
    batches = testing.predict_loader(load_model(weights), loader, "cpu")
    processed = torch.cat([post_processed for _, _, post_processed in batches])
    expected = testing.mean_row(testing.score(loader.dataset.pairs, processed), "mine, post-processed")
    assert {key: report.means[0][key] for key in METRICS} == pytest.approx({k: expected[k] for k in METRICS}, rel=1e-4)
    assert testing.table([expected]).splitlines()[1].split()[2:] == printed.splitlines()[3].split()[2:]

    with open(tmp_path / "out/metrics.csv", newline="") as file:
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
    assert np.mean([float(line["abs_rel"]) for line in lines[:5]]) == pytest.approx(report.means[0]["abs_rel"])


def test_the_commands_options_reach_the_figures(weights, data_dir, tmp_path, without_opencv):
    def measured(*options):
        assert command("--weights", weights, "--data", data_dir, "--output", tmp_path / "out", *options) == 0
        return json.loads((tmp_path / "out/metrics.json").read_text())

    usual = measured()
    plain = measured("--no-post-process")
    assert plain["means"][0]["name"] == "mine, plain" and plain["post_processing"] is False
    small = measured("--size", 16, 64)
    assert small["size"] == [16, 64]
    cropped = measured("--crop", "eigen", "--cap", 50)
    assert (cropped["crop"], cropped["cap_m"]) == ("eigen", 50)
    assert cropped["per_image"][0]["pixels"] < usual["per_image"][0]["pixels"]
    scaled = measured("--median-scaling")
    assert scaled["median_scaling"] is True
    results = [report.means[0]["abs_rel"] for report in (usual, plain, small, scaled)]
    assert len(set(results)) == 4
    named = measured("--drives", "2020_01_01_drive_0004_sync")
    assert named["split"] == "2020_01_01_drive_0004_sync" and named["means"] == usual["means"]


def test_one_drive_is_data_enough(weights, tmp_path, without_opencv, capsys):
    root = make_stereo_2015(tmp_path / "stereo_2015", shift=4)
    write_calibration(root / "calib_cam_to_cam.txt", focal=100.0, baseline=0.288, width=96)
    assert command("--weights", weights, "--data", root, "--output", tmp_path / "out") == 0
    report = json.loads((tmp_path / "out/metrics.json").read_text())
    assert (report.images, report.truth, report.drives) == (3, ["disparity"], ["stereo_2015"])
    assert not any("neighbouring" in note for note in report.notes)  # three scenes, not one film


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
    save_model(tiny(), path, SIZE, train_drives=["a", drive], val_drives=["b"])
    told = []
    monkeypatch.setattr(kitti, "test_list_warning", lambda drives, pairs: told.append((drives, len(pairs))) or "EIGEN")
    assert command("--weights", path, "--data", data_dir, "--output", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert f"note: the weights were trained or chosen on {drive}" in printed and "note: EIGEN" in printed
    save_model(tiny(), path, SIZE)
    assert command("--weights", path, "--data", data_dir, "--output", tmp_path / "out") == 0
    assert "were trained or chosen" not in capsys.readouterr().out
    assert told == [({"a", "b", drive}, 5), (None, 5)]


@pytest.mark.parametrize(
    "options, complaint",
    [
        (["--weights", "nothing"], "nothing.safetensors is missing"),
        (["--drives", "no_such_drive"], "lacks no_such_drive"),
        (["--drives", "2020_01_01_drive_0001_sync"], "no pair has a truth"),
        (["--cameras", "grey"], "use cameras='colour'"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(weights, data_dir, tmp_path, capsys, options, complaint):
    assert command("--weights", weights, "--data", data_dir, "--output", tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert complaint in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_command_takes_the_truth_it_is_told(scanned, weights, tmp_path, without_opencv):
    for truth, crop in (("auto", "none"), ("depth", "none"), ("scan", "garg")):
        assert command("--weights", weights, "--data", scanned, "--truth", truth, "--output", tmp_path / "out") == 0
        report = json.loads((tmp_path / "out/metrics.json").read_text())
        assert (report.truth, report.protocol.crop) == (["depth" if truth == "auto" else truth], crop)
    assert command("--weights", weights, "--data", scanned, "--truth", "disparity", "--output", tmp_path / "out") == 2


def test_a_device_that_is_not_there_is_said(data_dir, tmp_path, tiny, capsys):
    save_model(tiny(), tmp_path / "w.safetensors", SIZE)
    options = ["--weights", str(tmp_path / "w.safetensors"), "--data", str(data_dir), "--output", str(tmp_path / "out")]
    assert evaluate.main([*options, "--device", "gpu"]) == 2
    assert "gpu" in capsys.readouterr().err
