"""Prediction, post-processing, arrays with their names, and scores."""

import csv
import dataclasses
import json
import math
import os
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from synthetic import (
    make_drive,
    make_stereo_2015,
    write_calibration,
    write_laser_calibration,
    write_scan,
    write_uint16,
)

from monodepth_lib import confidence, data, kitti, stereo, testing
from monodepth_lib.data import prepare_dataloader
from monodepth_lib.depth import (
    METRICS,
    Protocol,
    disparity_to_depth,
    mean_inverse_depth,
    metrics,
    metrics_by_distance,
    resize_map,
)
from monodepth_lib.fast import faster_prediction
from monodepth_lib.files import read_picture
from monodepth_lib.kitti import select_pairs
from monodepth_lib.report import table

SIZE = (32, 96)


def saved(model, loader, folder):
    """Names and both arrays of all that a loader gives."""
    batches = testing.predict_loader(model, loader, "cpu")
    return testing.save_predictions(batches, len(loader.dataset), folder)


# --- post-processing ---


def test_post_processing_takes_borders_from_one_side_and_the_mean_between():
    plain, mirrored = torch.zeros(1, 4, 101), torch.ones(1, 4, 101)
    blend = testing.post_process(plain, mirrored)[0, 0]
    x = torch.linspace(0, 1, 101)
    assert torch.equal(blend[x <= 0.05], torch.ones(6))
    assert torch.equal(blend[x >= 0.95], torch.zeros(6))
    assert torch.allclose(blend[(x > 0.1) & (x < 0.9)], torch.tensor(0.5))
    assert blend[8].item() == pytest.approx(0.7, abs=1e-5)  # x 0.08: weight 0.4 of the left ramp, half the rest


@given(st.integers(1, 60), st.integers(0, 1000))
def test_post_processing_lies_between_its_two_inputs(width, seed):
    a, b = torch.rand(2, 1, 3, width, generator=torch.Generator().manual_seed(seed)).unbind(0)
    blend = testing.post_process(a, b)
    assert (blend >= torch.minimum(a, b) - 1e-6).all() and (blend <= torch.maximum(a, b) + 1e-6).all()
    assert torch.allclose(testing.post_process(a, a), a, atol=1e-6)


def test_post_processing_of_a_mirrored_pair_is_the_mirror_image():
    a, b = torch.rand(2, 1, 3, 40).unbind(0)
    assert torch.allclose(testing.post_process(a, b).flip(-1), testing.post_process(b.flip(-1), a.flip(-1)), atol=1e-6)


class Brightness(torch.nn.Module):
    """Answers with the picture's red channel on the left, with garbage on the right: shows what went where."""

    def forward(self, images):
        return [torch.stack([images[:, 0] * 0.1 + 0.01, images[:, 1] * 0 + 9], dim=1)]


def test_prediction_turns_the_mirrored_answer_back_and_takes_the_left_channel():
    images = torch.rand(2, 3, 8, 40)
    plain, processed = testing.predict(Brightness(), images)
    assert torch.allclose(plain, images[:, 0] * 0.1 + 0.01)
    assert torch.allclose(processed, plain, atol=1e-6)  # it sees no left and right: both answers agree


def test_prediction_keeps_no_gradient(tiny):
    plain, processed = testing.predict(tiny().eval(), torch.rand(1, 3, *SIZE))
    assert plain.dtype == processed.dtype == torch.float32
    assert not plain.requires_grad and not processed.requires_grad


# --- arrays and names ---


def test_names_json_is_in_the_order_of_the_arrays(data_dir, tmp_path, tiny):
    loader = prepare_dataloader(select_pairs(data_dir, "val"), size=SIZE, batch_size=4)  # 4 + 4 + 1
    model = tiny().eval()
    with torch.no_grad():
        torch.nn.init.normal_(model.decoder.heads[3].conv.weight, std=0.5)  # so that pictures differ
    names, plain, processed = saved(model, loader, tmp_path / "new")
    stored = json.loads((tmp_path / "new/names.json").read_text())
    assert stored == names == [f"2020_01_01_drive_0003_sync/{n:010d}" for n in range(9)]
    arrays = [np.load(tmp_path / "new" / name) for name in ("disparities.npy", "disparities_pp.npy")]
    assert all(a.shape == (9, *SIZE) and a.dtype == np.float32 for a in arrays)
    assert np.array_equal(arrays[0], plain) and np.array_equal(arrays[1], processed)
    for name, first, second in zip(stored, *arrays, strict=True):
        sample = next(loader.dataset[i] for i in range(9) if loader.dataset.pairs[i].name == name)
        expected = testing.predict(model, sample["left_image"][None])
        assert np.allclose(first, expected[0][0], atol=1e-5)
        assert np.allclose(second, expected[1][0], atol=1e-5)
    assert len({a.tobytes() for a in arrays[0]}) == 9


def test_prediction_is_in_eval_mode_whatever_mode_the_model_was_in(data_dir, tmp_path, tiny):
    loader = prepare_dataloader(select_pairs(data_dir, "test"), size=SIZE, batch_size=2)
    expected = testing.predict(tiny().eval(), next(iter(loader))["left_image"])[0]
    for model in (tiny().train(), tiny().eval()):
        predicted = saved(model, loader, tmp_path)[1][:2]
        assert np.allclose(predicted, expected, atol=1e-6)


@pytest.mark.parametrize("fast", [True, False])
def test_prediction_leaves_the_model_on_its_device(data_dir, tiny, monkeypatch, fast):
    loader = prepare_dataloader(select_pairs(data_dir, "test"), size=SIZE, batch_size=2)
    monkeypatch.setattr(testing, "pick_device", lambda _: torch.device("meta"))
    monkeypatch.setattr(testing, "predict", lambda network, _: [next(network.parameters()).new_zeros(2).cpu()] * 2)
    model = tiny().train()
    with pytest.raises(NotImplementedError, match="meta"):  # so it was the copy that went there
        next(testing.predict_loader(model, loader, fast=fast))
    assert {p.device.type for p in model.parameters()} == {"cpu"} and model.training


def test_an_earlier_run_s_arrays_stay_until_the_next_are_whole(data_dir, tmp_path, tiny, monkeypatch):
    nine, five = (prepare_dataloader(select_pairs(data_dir, mode), size=SIZE, batch_size=4) for mode in ("val", "test"))
    names, plain, _ = saved(tiny(), nine, tmp_path)
    before = plain.copy()
    with monkeypatch.context() as patch:
        patch.setattr(testing, "predict", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            saved(tiny(), five, tmp_path)
    assert np.array_equal(np.load(tmp_path / "disparities.npy"), before)
    assert json.loads((tmp_path / "names.json").read_text()) == names
    assert len(saved(tiny(), five, tmp_path)[1]) == 5
    assert np.array_equal(plain, before)  # a slider that still shows the earlier run reads what it read
    assert sorted(file.name for file in tmp_path.iterdir()) == ["disparities.npy", "disparities_pp.npy", "names.json"]


def test_a_full_disk_is_named_once(data_dir, tmp_path, tiny, full_disk):
    loader = prepare_dataloader(select_pairs(data_dir, "test"), size=SIZE)
    said = r"^[^(]*disparities_pp\.npy could not be written \([^(]*\): free space"
    with full_disk(), pytest.raises(OSError, match=said):
        saved(tiny(), loader, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_empty_loader_is_refused(data_dir, tmp_path, tiny):
    loader = prepare_dataloader(select_pairs(data_dir, "test", "none"), size=SIZE)
    with pytest.raises(ValueError, match="no picture"):
        saved(tiny(), loader, tmp_path)


# --- scores ---


@pytest.fixture
def scored(tmp_path):
    """Three pairs, the middle one without truth, at f·B/W = 0.3, shifted by 4 px of 96."""
    drive = make_drive(tmp_path / "2020_01_01_drive_0001_sync", range(3), truth=True, focal_baseline=0.3, shift=4)
    (drive / "proj_depth/groundtruth/image_02/0000000001.png").unlink()
    write_calibration(drive / "calib_cam_to_cam.txt", focal=100.0, baseline=0.288, width=96)
    return kitti.find_pairs(drive)


def test_a_smaller_prediction_is_enlarged_as_disparity_not_as_depth(scored):
    disparity, truth = torch.rand(8, 24) * 0.1 + 0.02, torch.from_numpy(scored[0].ground_truth())
    expected = metrics(disparity_to_depth(resize_map(disparity, SIZE), 0.3), truth, 0.3)
    row = testing.score(scored[:1], [disparity])[0]
    assert {key: row[key] for key in METRICS} == pytest.approx(expected, rel=1e-4)


def test_true_disparity_at_any_size_scores_perfectly(scored):
    for size in (SIZE, (16, 48), (7, 200)):
        rows = testing.score(scored, [np.full(size, 4 / 96, dtype=np.float32)] * 3)
        assert [row["name"][-1] for row in rows] == ["0", "2"]  # the one without truth is left out
        for row in rows:
            assert row["abs_rel"] < 2e-3 and row["a1"] == 1 and row["d1_all"] == 0


def test_score_uses_the_prediction_of_its_own_pair(scored):
    rows = testing.score(scored, [torch.full(SIZE, d / 96) for d in (4, 1, 8)])
    assert rows[0]["abs_rel"] < 2e-3
    assert rows[1]["abs_rel"] == pytest.approx(0.5, abs=2e-3)  # twice the disparity, half the depth
    with pytest.raises(ValueError):
        testing.score(scored, [torch.zeros(SIZE)] * 2)


def test_score_is_the_metrics_of_the_metres(scored):
    disparity = torch.rand(SIZE) * 0.1 + 0.02
    truth, camera = torch.from_numpy(scored[0].ground_truth()), scored[0].calibration
    expected = metrics(disparity_to_depth(disparity, 0.3), truth, 0.3, Protocol(50))
    row = testing.score(scored[:1], [disparity], Protocol(50))[0]
    assert camera.focal_baseline == pytest.approx(0.3)
    assert {key: row[key] for key in METRICS} == pytest.approx(expected, rel=1e-4)


def test_an_image_whose_truth_is_all_out_of_range_is_named(scored):
    write_uint16(scored[2].truth, np.full(SIZE, 90.0))
    with pytest.raises(ValueError, match="0000000002"):
        testing.score(scored, [torch.full(SIZE, 4 / 96)] * 3)


def test_stereo_2015_is_scored_with_its_own_truth_and_calibration(tmp_path):
    root = make_stereo_2015(tmp_path / "stereo_2015", shift=4)
    write_calibration(root / "calib_cam_to_cam.txt", focal=100.0, baseline=0.288, width=96)
    rows = testing.score(kitti.find_pairs(root), [torch.full(SIZE, 4 / 96)] * 3)
    assert len(rows) == 3
    assert max(row["abs_rel"] for row in rows) < 1e-4


def test_baseline_from_the_training_truth_beside_the_data(scored, tmp_path):
    np.save(tmp_path / "mean_inverse_depth.npy", np.full((16, 48), 1 / 7.2, dtype=np.float32))
    maps, source = testing.mean_depth_reference(scored)
    assert source == "mean of the training truth"
    assert maps[0] == pytest.approx(torch.full((16, 48), 4 / 96), rel=1e-4)  # 7.2 m at f·B/W 0.3 is 4 px of 96


def test_baseline_without_it_never_uses_the_images_own_truth(tmp_path):
    for frame, shift in enumerate((2, 4, 8)):
        make_drive(tmp_path / "2020_01_01_drive_0001_sync", [frame], truth=True, focal_baseline=0.3, shift=shift)
    write_calibration(tmp_path / "calib_cam_to_cam.txt", focal=100.0, baseline=0.288, width=96)
    pairs = kitti.find_pairs(tmp_path / "2020_01_01_drive_0001_sync")
    maps, source = testing.mean_depth_reference(pairs, size=SIZE)
    assert "other images" in source
    assert [m.mean().item() * 96 for m in maps] == pytest.approx([6, 5, 3], rel=1e-2)
    read = [torch.from_numpy(pair.ground_truth()) for pair in pairs]
    assert maps[0] == pytest.approx(0.3 * mean_inverse_depth(read[1:], SIZE), rel=1e-4)


def test_a_single_truth_leaves_80_m_as_the_baseline(scored):
    maps, source = testing.mean_depth_reference(scored[:1], size=SIZE)
    assert source.startswith("80 m everywhere")
    assert testing.score(scored[:1], maps)[0]["abs_rel"] == pytest.approx(80 / 7.2 - 1, rel=1e-2)


def test_baseline_without_any_truth_says_so(data_dir):
    pairs = kitti.find_pairs(data_dir / "vals/2020_01_01_drive_0003_sync")
    maps, source = testing.mean_depth_reference(pairs, size=SIZE)
    assert source == "no true depth"
    assert len(maps) == 9


def test_the_plain_network_predicts_the_same(data_dir, tmp_path, tiny, monkeypatch):
    loader = prepare_dataloader(select_pairs(data_dir, "val"), size=SIZE, batch_size=4)
    model = tiny()
    with torch.no_grad():
        torch.nn.init.normal_(model.decoder.heads[3].conv.weight, std=0.5)
    _, plain, processed = saved(model, loader, tmp_path)
    for fast in (True, False):
        made = []
        monkeypatch.setattr(testing, "faster_prediction", lambda m, made=made: made.append(m) or faster_prediction(m))
        each = list(testing.predict_loader(model, loader, "cpu", fast=fast))
        assert len(made) == fast
        assert [name for batch in each for name in batch[0]] == [pair.name for pair in loader.dataset.pairs]
        assert np.allclose(torch.cat([batch[1] for batch in each]), plain, atol=1e-6)
        assert np.allclose(torch.cat([batch[2] for batch in each]), processed, atol=1e-6)
    assert not np.allclose(plain, processed, atol=1e-6)


def test_score_passes_crop_cap_and_median_scaling_on(scored):
    disparity = torch.rand(SIZE) * 0.1 + 0.02
    truth = torch.from_numpy(scored[0].ground_truth())
    for crop, scaling in (("garg", False), ("eigen", True)):
        protocol = Protocol(50, crop, scaling)
        row = testing.score(scored[:1], [disparity], protocol, by_distance=True)[0]
        chosen = disparity_to_depth(disparity, 0.3), truth, 0.3, protocol
        assert {key: row[key] for key in METRICS} == pytest.approx({k: metrics(*chosen)[k] for k in METRICS}, rel=1e-4)
        assert row.get("ratio") == (pytest.approx(metrics(*chosen)["ratio"], rel=1e-4) if scaling else None)
        assert [band["pixels"] for band in row["by_distance"]] == [b["pixels"] for b in metrics_by_distance(*chosen)]
        assert row["pixels"] == sum(band["pixels"] for band in row["by_distance"]) > 0


def test_baseline_from_the_truth_of_training_pairs(scored, tmp_path):
    drive = make_drive(tmp_path / "train/2020_01_01_drive_0009_sync", range(3), truth=True, focal_baseline=0.3, shift=8)
    write_calibration(tmp_path / "calib_cam_to_cam.txt", focal=100.0, baseline=0.288, width=96)
    train = kitti.find_pairs(drive)
    maps, source = testing.mean_depth_reference(scored, train, SIZE)
    assert source == "mean of the training truth (3 images)"
    assert maps[0].mean().item() * 96 == pytest.approx(8, rel=1e-2)


def test_the_reference_leaves_test_drives_out_and_takes_few_images(tmp_path, monkeypatch):
    for drive in (1, 2):
        make_drive(tmp_path / f"train/2020_01_01_drive_000{drive}_sync", range(6), truth=True)
    write_calibration(tmp_path / "calib_cam_to_cam.txt", focal=100.0, baseline=0.288, width=96)
    train = kitti.select_pairs(tmp_path, "train")
    test = kitti.find_pairs(tmp_path / "train/2020_01_01_drive_0002_sync")
    assert testing.mean_depth_reference(test, train, SIZE)[1] == "mean of the training truth (6 images)"
    assert "other images" in testing.mean_depth_reference(test, test, SIZE)[1]
    monkeypatch.setattr(testing, "REFERENCE_IMAGES", 3)
    assert testing.mean_depth_reference(test, train, SIZE)[1] == "mean of the training truth (3 images)"


def test_the_baseline_fills_what_no_other_image_knows(tmp_path):
    drive = make_drive(tmp_path / "2020_01_01_drive_0001_sync", range(2), truth=True, focal_baseline=0.3, shift=4)
    write_calibration(tmp_path / "calib_cam_to_cam.txt", focal=100.0, baseline=0.288, width=96)
    sparse = np.zeros(SIZE)
    sparse[20, 10] = 7.2  # 4 px
    write_uint16(drive / "proj_depth/groundtruth/image_02/0000000001.png", sparse)
    maps, _ = testing.mean_depth_reference(kitti.find_pairs(drive), size=SIZE)
    assert maps[0] == pytest.approx(torch.full(SIZE, 4 / 96), rel=1e-2)


def test_the_baselines_maps_are_made_when_they_are_asked_for(tmp_path):
    make_drive(tmp_path / "2020_01_01_drive_0001_sync", range(40), truth=True, size=(64, 128))
    write_calibration(tmp_path / "calib_cam_to_cam.txt", focal=100.0, baseline=0.288, width=128)
    pairs = kitti.find_pairs(tmp_path / "2020_01_01_drive_0001_sync")
    testing.mean_depth_reference(pairs[:2])  # what is made once
    tracemalloc.start()
    maps, _ = testing.mean_depth_reference(pairs, size=(64, 128))
    rows = testing.score(pairs, maps)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows) == 40
    assert peak < 20 * 64 * 128 * 4  # less than half of all truths


# --- tables ---


def test_mean_row_averages_images_and_refuses_none():
    rows = [{"name": name, **dict.fromkeys(METRICS, value)} for name, value in (("a", 0.1), ("b", 0.3))]
    assert testing.mean_row(rows, "mean") == pytest.approx({"name": "mean", **dict.fromkeys(METRICS, 0.2)})
    with pytest.raises(ValueError, match="unet: no image has true depth"):
        testing.mean_row([], "unet")


def test_table_is_aligned_and_rounded():
    text = table([{"name": name, **dict.fromkeys(METRICS, 0.12345)} for name in ("short", "a longer name")])
    head, *lines = text.splitlines()
    assert {len(head), *map(len, lines)} == {len("a longer name") + 10 * len(METRICS)}
    assert head.split() == ["Abs", "Rel", "Sq", "Rel", "RMSE", "RMSE", "log", "a1", "a2", "a3", "D1-all"]
    assert lines[1].split()[-1] == "0.123"


def test_spread_is_the_deviation_over_images():
    rows = [{"name": name, **dict.fromkeys(METRICS, value)} for name, value in (("a", 0.1), ("b", 0.3))]
    assert testing.mean_row(rows, "x", np.std) == pytest.approx({"name": "x", **dict.fromkeys(METRICS, 0.1)})


def band(low, pixels, value):
    return {"from": low, "to": low + 10, "pixels": pixels, **dict.fromkeys(METRICS, value)}


def test_bands_are_averaged_over_the_images_that_have_pixels_there():
    images = [
        {"by_distance": [band(0, 90, 0.1), band(10, 0, float("nan")), band(20, 0, float("nan"))]},
        {"by_distance": [band(0, 10, 0.3), band(10, 5, 0.7), band(20, 0, float("nan"))]},
    ]
    near, far = testing.distance_rows(images, "x")
    assert (near["from"], near["to"], near["pixels"], near["images"]) == (0, 10, 100, 2)
    assert near["abs_rel"] == pytest.approx(0.2)  # every image alike, as in the mean over all distances
    assert (far["from"], far["pixels"], far["images"], far["abs_rel"]) == (10, 5, 1, 0.7)


# --- reports and the command ---


@pytest.fixture
def without_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)


def test_a_report_holds_the_answers_and_both_references(scored, tmp_path):
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    answers = {"right": [torch.full(SIZE, 4 / 96)] * 3, "far": [torch.full(SIZE, 1 / 96)] * 3}
    report = testing.evaluate(answers, scored)
    names = [row["name"] for row in report.means]
    assert names == [
        "right",
        "far",
        "baseline: mean of the other images' truth",
        "semi-global matching, sees both views",
    ]
    assert [row["name"] for row in report.standard_deviations] == names
    assert (report.images, report.protocol.crop, report.truth, report.protocol.cap) == (2, "none", ["depth"], 80)
    errors = {row["name"]: row["abs_rel"] for row in report.means}
    assert errors["right"] < 2e-3 and errors["far"] == pytest.approx(3, rel=1e-2)
    assert errors[names[3]] < 0.05  # a wall with much texture
    assert [(row["answer"], row["name"][-1]) for row in report.per_image][:3] == [
        ("right", "0"),
        ("right", "2"),
        ("far", "0"),
    ]
    text = report.text()
    assert "2 images, colour cameras, truth: depth; up to 80 m, crop none, no median scaling" in text
    assert f"0 to 10 m, {2 * 32 * 96} pixels in 2 images" in text and "10 to 20 m" not in text
    assert all(text.count(name) == 3 for name in names)
    assert "neighbouring frames" in text  # frames 0 and 2 of one drive are nearly one picture


def test_without_opencv_one_line_says_how_to_get_it(scored, tmp_path, without_opencv):
    report = testing.evaluate({"right": [torch.full(SIZE, 4 / 96)] * 3}, scored)
    assert len(report.means) == 2
    lines = [line for line in report.text().splitlines() if "OpenCV" in line]
    assert lines == [f"note: no row of semi-global matching, which needs OpenCV: pip install {stereo.OPENCV}"]


def test_median_scaling_is_named_in_every_row_and_its_ratio_told(scored, tmp_path, without_opencv):
    answers = {"half": [torch.full(SIZE, 2 / 96)] * 3}
    report = testing.evaluate(answers, scored, testing.usual_protocol(scored, median_scaling=True))
    assert all(row["name"].endswith(", median-scaled") for row in report.means + report.by_distance)
    assert report.means[0]["abs_rel"] < 2e-3
    assert report.means[0]["ratio"] == pytest.approx(0.5, rel=1e-2)
    text = report.text()
    assert "median scaling ON" in text
    assert "half, median-scaled: 0.500 ± 0.000" in text
    written = report.write(tmp_path)[1]
    with open(written, newline="") as file:
        assert float(next(csv.DictReader(file))["ratio"]) == pytest.approx(0.5, rel=1e-2)


@pytest.fixture
def scanned(tmp_path):
    """Pictures of a wall 7.2 m away, which a laser has hit in every pixel, at f·B/W = 0.3; dense depth beside it."""
    drive = make_drive(tmp_path / "2020_01_01_drive_0001_sync", range(2), truth=True, focal_baseline=0.3, shift=4)
    lines = ["R_rect_00: 1 0 0 0 1 0 0 0 1", "S_rect_02: 96 32"]
    lines += [f"P_rect_{camera}: 100 0 48 {shift} 0 100 16 0 0 0 1 0" for camera, shift in (("02", 0), ("03", -28.8))]
    (tmp_path / "calib_cam_to_cam.txt").write_text("\n".join(lines))
    write_laser_calibration(tmp_path)
    points = [(8.2, -(u - 48) * 0.072, -(v - 16) * 0.072) for u in range(1, 97) for v in range(1, 33)]
    for frame in range(2):
        write_scan(drive / f"velodyne_points/data/{frame:010d}.bin", points)
    return drive


def test_garg_crop_is_the_default_for_laser_scans_alone(scanned, tmp_path, without_opencv):
    answers = {"right": [torch.full(SIZE, 4 / 96)] * 2}
    dense = testing.evaluate(answers, kitti.find_pairs(scanned))
    assert (dense.truth, dense.protocol.crop, dense.per_image[0]["pixels"]) == (["depth"], "none", 32 * 96)
    pairs = kitti.find_pairs(scanned, truth="scan")
    report = testing.evaluate(answers, pairs)
    assert (report.truth, report.protocol.crop) == (["scan"], "garg")
    assert report.per_image[0]["pixels"] == (31 - 13) * (92 - 3)
    assert report.means[0]["abs_rel"] < 2e-3
    assert testing.evaluate(answers, pairs, testing.usual_protocol(pairs, crop="none")).protocol.crop == "none"


def test_published_figures_take_the_lasers_x_for_depth(scanned, tmp_path, without_opencv):
    pairs = kitti.find_pairs(scanned, truth="scan-x")
    report = testing.evaluate({"right": [torch.full(SIZE, 4 / 96)] * 2}, pairs)
    assert (report.truth, report.protocol.crop) == (["scan-x"], "garg")
    assert report.means[0]["abs_rel"] == pytest.approx(1 - 7.2 / 8.2, abs=2e-3)  # the laser stands 1 m behind


def test_different_truths_in_one_mean_are_told(scanned, tmp_path, without_opencv):
    mixed = [kitti.find_pairs(scanned)[0], kitti.find_pairs(scanned, truth="scan")[1]]
    report = testing.evaluate({"right": [torch.full(SIZE, 4 / 96)] * 2}, mixed)
    assert (report.truth, report.protocol.crop) == (["depth", "scan"], "none")
    assert report.truth_folders == ["data", "image_02"]
    assert any("pictures with depth and with scan are averaged" in note for note in report.notes)


def test_a_report_of_no_truth_is_refused(data_dir):
    pairs = kitti.find_pairs(data_dir / "vals/2020_01_01_drive_0003_sync")
    with pytest.raises(ValueError, match="no pair has a truth"):
        testing.evaluate({}, pairs)


def test_a_report_of_no_truth_may_be_empty_and_says_so(data_dir, tmp_path):
    pairs = kitti.find_pairs(data_dir / "vals/2020_01_01_drive_0003_sync")
    report = testing.evaluate({}, pairs, missing_ok=True)
    assert report.text() == table(report.means) == "no pair has ground truth, so there is nothing to measure"
    report.write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_pairs_with_truth_are_chosen_and_all_where_there_is_none(scored):
    assert testing.to_measure(scored) == [0, 2]
    assert testing.to_measure(scored[1:2] * 2) == [0, 1]
    other = torch.zeros(2, 3)
    assert testing.truth_or(scored[1], other) is other
    assert testing.truth_or(scored[0], other).shape == SIZE


def test_a_report_that_cannot_be_written_is_named(tmp_path, scored, without_opencv):
    (tmp_path / "file").write_text("")
    report = testing.evaluate({}, scored)
    with pytest.raises(OSError, match=r"metrics\.json could not be written"):
        report.write(tmp_path / "file")


@pytest.mark.skipif("MONODEPTH_KITTI" not in os.environ, reason="MONODEPTH_KITTI is not set")
@pytest.mark.filterwarnings("ignore:.*no calib_cam_to_cam")
@pytest.mark.parametrize(
    "folder, cameras, truth, crop",
    [
        ("stereo_2012", "grey", "disparity", "none"),
        ("raw/2011_09_26/2011_09_26_drive_0048_sync", "colour", "scan", "garg"),
    ],
)
def test_both_references_on_real_streets(folder, cameras, truth, crop):
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    root = Path(os.environ["MONODEPTH_KITTI"])
    pairs = kitti.find_pairs(root / folder, cameras)
    pairs = pairs[:: -(-len(pairs) // 4)]
    report = testing.evaluate({}, pairs)
    assert (report.truth, report.protocol.crop) == ([truth], crop)
    guess, matched = report.means
    assert 0.1 < guess["abs_rel"] < 0.4
    assert matched["abs_rel"] < 0.12 and matched["a1"] > 0.85 and matched["a1"] > guess["a1"]


class Scales(torch.nn.Module):
    def forward(self, images):
        grey = images.mean(1, keepdim=True).expand(-1, 2, -1, -1)
        return [torch.nn.functional.avg_pool2d(grey, 2**scale) for scale in range(4)]


def test_every_scale_is_predicted_and_the_finest_is_the_prediction():
    images = torch.rand(2, 3, 16, 48)
    scales = [testing.predict(Scales(), images, scale) for scale in range(4)]
    assert [plain.shape for plain, _ in scales] == [(2, 16 // k, 48 // k) for k in (1, 2, 4, 8)]
    for got, expected in zip(scales[0], testing.predict(Scales(), images), strict=True):
        assert torch.equal(got, expected)
    for plain, processed in scales:  # this network knows no left and right: both answers agree
        assert torch.allclose(plain, processed, atol=1e-6)


def test_prediction_reads_the_left_views_alone(data_dir, tmp_path, tiny, monkeypatch):
    loader = prepare_dataloader(select_pairs(data_dir, "test"), size=SIZE, batch_size=2, left_only=True)
    model = tiny().eval()
    images = torch.cat([batch["left_image"] for batch in loader])
    read = []
    monkeypatch.setattr(data, "read_picture", lambda path: read.append(path) or read_picture(path))
    names, plain, processed = saved(model, loader, tmp_path)
    assert read == [pair.left for pair in loader.dataset.pairs] and len(names) == len(images)
    expected = testing.predict(model, images)
    for one, other in zip((plain, processed), expected, strict=True):
        assert np.allclose(one, other, atol=1e-6)
    assert "right_image" not in next(iter(loader))


def test_the_watched_error_is_the_mean_over_pairs_with_truth_and_nan_without(data_dir):
    pairs = select_pairs(data_dir, "test")
    maps = [torch.full(SIZE, 0.05)] * len(pairs)
    rows = testing.score(pairs, maps)
    assert rows
    assert testing.watched_abs_rel(pairs, maps) == pytest.approx(testing.mean_row(rows, "")["abs_rel"])
    blind = [dataclasses.replace(pair, truth=None) for pair in pairs]
    assert math.isnan(testing.watched_abs_rel(blind, maps))


def test_the_known_disparity_is_that_of_the_truth_and_searched_without_one(data_dir, monkeypatch):
    pair = next(pair for pair in select_pairs(data_dir, "test") if pair.truth)
    truth = torch.from_numpy(pair.ground_truth())
    values = stereo.known_disparity(pair, truth.shape)
    seen = truth > 0
    assert torch.allclose(values[seen], pair.calibration.focal_baseline / truth[seen])
    assert (values[~seen] == 0).all()
    blind = dataclasses.replace(pair, truth=None)
    monkeypatch.setattr(testing.stereo, "has_opencv", lambda: True)
    monkeypatch.setattr(testing.stereo, "match_views", lambda _: torch.full((4, 6), 0.1))
    assert torch.equal(stereo.known_disparity(blind, (2, 3)), torch.full((2, 3), 0.1))
    monkeypatch.setattr(testing.stereo, "has_opencv", lambda: False)
    assert torch.equal(stereo.known_disparity(blind, (2, 3)), torch.zeros(2, 3))


# --- confidence ---


def test_the_flipped_answers_disagreement_is_read_from_what_was_stored():
    plain, mirrored = torch.rand(2, 3, 4, 40, generator=torch.Generator().manual_seed(0))
    apart = confidence.flip_disagreement(plain, testing.post_process(plain, mirrored))
    true = (plain - mirrored).abs()
    assert torch.allclose(apart[..., :37], true[..., :37], atol=1e-5)
    assert torch.equal(apart[..., 37:], apart[..., 36:37].expand(-1, -1, 3))  # the mirrored answer is not in there


def test_left_and_right_maps_agree_where_both_are_the_same_ramp_shifted():
    """d_r = 0.1 everywhere; d_l = 0.1, but 0.3 in column 12 of 20: it points to x - 6, where d_r says 0.1."""
    maps = torch.full((1, 2, 4, 20), 0.1)
    maps[0, 0, :, 12] = 0.3
    apart = confidence.left_right_disagreement(maps)
    assert apart.shape == (1, 4, 20)
    assert torch.allclose(apart[0, :, 12], torch.tensor(0.2), atol=1e-6)
    assert apart.sum() == pytest.approx(4 * 0.2, abs=1e-5)


def test_confidence_of_a_pair_whose_doubt_is_its_error(tmp_path, monkeypatch):
    truth = np.full((4, 8), 10.0, np.float32)
    disparity = np.full((4, 8), 0.03, np.float32)
    disparity[:2] = 0.06  # 5 m
    doubt = np.abs(disparity - 0.03)
    calibration = kitti.Calibration(60.0, 0.04, 8, "a test")  # f·B/W = 0.3 m
    pair = SimpleNamespace(truth="there", name="a/0", calibration=calibration, ground_truth=lambda: truth)
    (row,) = confidence.score_confidence([pair], [disparity], [doubt])
    assert row["name"] == "a/0"
    assert row["ause"] == pytest.approx(0, abs=1e-6)
    (other,) = confidence.score_confidence([pair], [disparity], [1 - doubt])
    assert other["ause"] > 0.1 > 0 > other["aurg"]


def test_without_truth_the_error_is_unknown_everywhere(scored):
    predicted, truth, error = confidence.error_maps(scored[1], np.full((8, 24), 0.1, np.float32))
    assert torch.allclose(predicted, torch.full((8, 24), 3.0))
    assert truth.isnan().all()
    assert confidence.sparsification(error, predicted, 4).isnan().tolist() == [True] * 5
