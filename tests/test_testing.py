"""Prediction, post-processing, arrays with their names, and scores."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import make_drive, make_stereo_2015, write_calibration, write_uint16

from monodepth_lib import kitti, testing
from monodepth_lib.data import prepare_dataloader
from monodepth_lib.depth import METRICS, disparity_to_depth, mean_inverse_depth, metrics

SIZE = (32, 96)


# --- post-processing ---


def test_post_processing_takes_borders_from_one_side_and_the_mean_between():
    plain, mirrored = torch.zeros(1, 4, 101), torch.ones(1, 4, 101)
    blend = testing.post_process(plain, mirrored)[0, 0]
    x = torch.linspace(0, 1, 101)
    assert torch.equal(blend[x <= 0.05], torch.ones(6))
    assert torch.equal(blend[x >= 0.95], torch.zeros(6))
    assert torch.allclose(blend[(x > 0.1) & (x < 0.9)], torch.tensor(0.5))
    assert blend[8].item() == pytest.approx(0.7, abs=1e-5)  # x 0.08: weight 0.4 of the left ramp, half the rest


@settings(deadline=None)
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
    loader = prepare_dataloader(data_dir, "val", size=SIZE, batch_size=4)  # 4 + 4 + 1
    model = tiny().eval()
    with torch.no_grad():
        torch.nn.init.normal_(model.decoder.heads[3].conv.weight, std=0.5)  # so that pictures differ
    names, plain, processed = testing.predict_loader(model, loader, tmp_path / "new", device="cpu")
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
    loader = prepare_dataloader(data_dir, "test", size=SIZE, batch_size=2)
    expected = testing.predict(tiny().eval(), next(iter(loader))["left_image"])[0]
    for model in (tiny().train(), tiny().eval()):
        predicted = testing.predict_loader(model, loader, tmp_path, device="cpu")[1][:2]
        assert np.allclose(predicted, expected, atol=1e-6)


def test_an_empty_loader_is_refused(data_dir, tmp_path, tiny):
    loader = prepare_dataloader(data_dir, "test", "none", size=SIZE)
    with pytest.raises(ValueError, match="no picture"):
        testing.predict_loader(tiny(), loader, tmp_path)


# --- scores ---


@pytest.fixture
def scored(tmp_path):
    """Three pairs, the middle one without truth, at f·B/W = 0.3, shifted by 4 px of 96."""
    drive = make_drive(tmp_path / "2020_01_01_drive_0001_sync", range(3), truth=True, metres=0.3, shift=4)
    (drive / "proj_depth/groundtruth/image_02/0000000001.png").unlink()
    write_calibration(drive / "calib_cam_to_cam.txt", focal=100.0, baseline=0.288, width=96)
    return kitti.find_pairs(drive)


def test_true_disparity_at_any_size_scores_perfectly(scored):
    for size in (SIZE, (16, 48), (7, 200)):
        rows = testing.score(scored, [np.full(size, 4 / 96, dtype=np.float32)] * 3)
        assert [row["name"][-1] for row in rows] == ["0", "2"]  # the one without truth is left out
        for row in rows:
            assert row["abs_rel"] < 2e-3 and row["d1"] == 1 and row["d1_all"] == 0


def test_score_uses_the_prediction_of_its_own_pair(scored):
    rows = testing.score(scored, [torch.full(SIZE, d / 96) for d in (4, 1, 8)])
    assert rows[0]["abs_rel"] < 2e-3
    assert rows[1]["abs_rel"] == pytest.approx(0.5, abs=2e-3)  # twice the disparity, half the depth
    with pytest.raises(ValueError):
        testing.score(scored, [torch.zeros(SIZE)] * 2)


def test_score_is_the_metrics_of_the_metres(scored):
    disparity = torch.rand(SIZE) * 0.1 + 0.02
    truth, camera = testing.read_pair_truth(scored[0], "colour")
    expected = metrics(disparity_to_depth(disparity, 0.3), truth, 0.3, 50)
    row = testing.score(scored[:1], [disparity], cap=50)[0]
    assert camera.metres == pytest.approx(0.3)
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
    maps, source = testing.baseline(scored, tmp_path)
    assert source == "mean of the training truth"
    assert maps[0] == pytest.approx(torch.full((16, 48), 4 / 96), rel=1e-4)  # 7.2 m at f·B/W 0.3 is 4 px of 96


def test_baseline_without_it_never_uses_the_images_own_truth(tmp_path):
    for frame, shift in enumerate((2, 4, 8)):
        make_drive(tmp_path / "2020_01_01_drive_0001_sync", [frame], truth=True, metres=0.3, shift=shift)
    write_calibration(tmp_path / "calib_cam_to_cam.txt", focal=100.0, baseline=0.288, width=96)
    pairs = kitti.find_pairs(tmp_path / "2020_01_01_drive_0001_sync")
    maps, source = testing.baseline(pairs, tmp_path, size=SIZE)
    assert "other images" in source
    assert [m.mean().item() * 96 for m in maps] == pytest.approx([6, 5, 3], rel=1e-2)
    read = [testing.read_pair_truth(pair, "colour")[0] for pair in pairs]
    assert maps[0] == pytest.approx(0.3 * mean_inverse_depth(read[1:], SIZE), rel=1e-4)


def test_baseline_without_any_truth_says_so(data_dir):
    pairs = kitti.find_pairs(data_dir / "vals/2020_01_01_drive_0003_sync")
    maps, source = testing.baseline(pairs, data_dir, size=SIZE)
    assert source == "no true depth"
    assert len(maps) == 9


# --- tables ---


def test_mean_row_averages_images_and_refuses_none():
    rows = [{"name": name, **dict.fromkeys(METRICS, value)} for name, value in (("a", 0.1), ("b", 0.3))]
    assert testing.mean_row(rows, "mean") == pytest.approx({"name": "mean", **dict.fromkeys(METRICS, 0.2)})
    with pytest.raises(ValueError, match="unet: no image has true depth"):
        testing.mean_row([], "unet")


def test_table_is_aligned_and_rounded():
    text = testing.table([{"name": name, **dict.fromkeys(METRICS, 0.12345)} for name in ("short", "a longer name")])
    head, *lines = text.splitlines()
    assert {len(head), *map(len, lines)} == {len("a longer name") + 10 * len(METRICS)}
    assert head.split() == ["Abs", "Rel", "Sq", "Rel", "RMSE", "RMSE", "log", "d1", "d2", "d3", "D1-all"]
    assert lines[1].split()[-1] == "0.123"


class Scales(torch.nn.Module):
    def forward(self, images):
        grey = images.mean(1, keepdim=True).expand(-1, 2, -1, -1)
        return [torch.nn.functional.avg_pool2d(grey, 2**scale) for scale in range(4)]


def test_every_scale_is_predicted_and_the_finest_is_the_prediction():
    images = torch.rand(2, 3, 16, 48)
    scales = testing.predict_scales(Scales(), images)
    assert [plain.shape for plain, _ in scales] == [(2, 16 // k, 48 // k) for k in (1, 2, 4, 8)]
    for got, expected in zip(scales[0], testing.predict(Scales(), images), strict=True):
        assert torch.equal(got, expected)
    for plain, processed in scales:  # this network knows no left and right: both answers agree
        assert torch.allclose(plain, processed, atol=1e-6)
