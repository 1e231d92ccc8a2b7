"""Disparity to metres, the metrics and the crop, against cases worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monodepth_lib.depth import METRICS, disparity_to_depth, garg_crop, mean_inverse_depth, metrics, resize_map

METRES = 0.30947


def maps(*rows):
    return torch.tensor(rows, dtype=torch.float32)


# --- disparity and depth ---


def test_depth_is_focal_times_baseline_over_disparity_in_pixels():
    focal, baseline, width = 721.5377, 0.53273, 1242
    pixels = torch.tensor([1.0, 10.0, 100.0])
    depth = disparity_to_depth(pixels / width, focal * baseline / width)
    assert depth.tolist() == pytest.approx([focal * baseline / p for p in (1, 10, 100)], rel=1e-5)
    assert depth[1].item() == pytest.approx(38.438, abs=1e-2)


def test_zero_disparity_is_far_but_finite():
    assert torch.isfinite(disparity_to_depth(torch.zeros(3), METRES)).all()


@given(st.lists(st.floats(1e-4, 0.3), min_size=2, max_size=20), st.floats(0.1, 1.0))
def test_depth_falls_with_disparity_and_turns_back_into_it(values, metres):
    disparity = torch.tensor(values, dtype=torch.float64).sort().values
    depth = disparity_to_depth(disparity, metres)
    assert (depth.diff() <= 0).all()
    assert torch.allclose(disparity_to_depth(depth, metres), disparity, rtol=1e-9)


def test_resizing_keeps_a_disparitys_value_and_any_leading_shape():
    assert torch.allclose(resize_map(torch.full((2, 3, 4, 8), 0.1), (9, 5)), torch.full((2, 3, 9, 5), 0.1))
    assert resize_map(maps([0, 1], [0, 1]), (2, 4)).tolist() == [[0, 0.25, 0.75, 1]] * 2


# --- crop ---


@pytest.mark.parametrize(
    "size, expected",
    [((375, 1242), (153, 371, 44, 1197)), ((370, 1224), (151, 366, 43, 1180)), ((128, 416), (52, 126, 14, 401))],
)
def test_garg_crop(size, expected):
    rows, columns = garg_crop(*size)
    assert (rows.start, rows.stop, columns.start, columns.stop) == expected


# --- metrics ---


def reference(depth, truth, metres, cap=80.0):
    """The definitions once more, pixel by pixel."""
    rows = []
    for z, gt in zip(depth.flatten().tolist(), truth.flatten().tolist(), strict=True):
        if not 1e-3 < gt < cap:
            continue
        p = min(max(z, 1e-3), cap)
        ratio = max(p / gt, gt / p)
        gt_px = metres * truth.shape[1] / gt
        wrong = abs(metres * truth.shape[1] / max(z, 1e-3) - gt_px)
        d1_all = wrong >= 3 and wrong >= 0.05 * gt_px
        log = math.log(p) - math.log(gt)
        hits = [ratio < 1.25**power for power in (1, 2, 3)]
        rows.append([abs(p - gt) / gt, (p - gt) ** 2 / gt, (p - gt) ** 2, log**2, *hits, d1_all])
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    means[2], means[3] = math.sqrt(means[2]), math.sqrt(means[3])
    return dict(zip(METRICS, means, strict=True))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cap", [80.0, 50.0])
def test_metrics_agree_with_a_plain_loop(seed, cap):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(24, 40, generator=generator) * 120
    truth[torch.rand(24, 40, generator=generator) < 0.3] = 0
    depth = truth * (0.5 + torch.rand(24, 40, generator=generator)) + 0.01
    assert metrics(depth, truth, METRES, cap) == pytest.approx(reference(depth, truth, METRES, cap), rel=1e-6)


@given(
    st.lists(st.floats(0.5, 79), min_size=1, max_size=30),
    st.lists(st.floats(0.1, 200), min_size=30, max_size=30),
)
def test_metrics_are_perfect_on_equal_maps_and_agree_with_the_loop_on_others(truth, depth):
    truth_map, depth_map = maps(truth), maps(depth[: len(truth)])
    assert metrics(truth_map, truth_map, METRES) == {name: float(name in ("d1", "d2", "d3")) for name in METRICS}
    assert metrics(depth_map, truth_map, METRES) == pytest.approx(reference(depth_map, truth_map, METRES), abs=1e-9)


def test_metrics_by_hand():
    values = metrics(maps([12, 10, 5]), maps([10, 20, 5]), METRES)
    assert values["abs_rel"] == pytest.approx((0.2 + 0.5 + 0) / 3)
    assert values["sq_rel"] == pytest.approx((4 / 10 + 100 / 20 + 0) / 3)
    assert values["rmse"] == pytest.approx(math.sqrt((4 + 100) / 3))
    assert values["rmse_log"] == pytest.approx(math.sqrt((math.log(1.2) ** 2 + math.log(2) ** 2) / 3))
    assert (values["d1"], values["d2"], values["d3"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert metrics(maps([15, 18]), maps([10, 10]), METRES)["d2"] == 0.5  # 1.5 < 1.5625 < 1.8 < 1.953
    assert metrics(maps([15, 18]), maps([10, 10]), METRES)["d3"] == 1


# a picture 100 px wide with f·B = 100 px·m: truth 1 m = 100 px, 10 m = 10 px, 2 m = 50 px
@pytest.mark.parametrize(
    "truth_px, error_px, bad",
    [
        (10, 2.9, False),  # 29 %, but less than 3 px
        (10, 3.1, True),
        (100, 4.9, False),  # more than 3 px, but less than 5 %
        (100, 5.1, True),
        (50, 2.9, False),
        (50, 3.1, True),  # 6.2 %
        (50, -3.1, True),
    ],
)
def test_d1_needs_three_pixels_and_five_percent(truth_px, error_px, bad):
    truth = torch.zeros(1, 100)
    truth[0, 0] = 100 / truth_px
    depth = torch.full((1, 100), 100 / (truth_px + error_px))
    assert metrics(depth, truth, metres=1.0)["d1_all"] == float(bad)


def test_unknown_and_far_truth_does_not_count():
    truth, depth = maps([0, 10, 80, 200, 0.0005]), maps([7, 10, 1, 1, 1])
    assert metrics(depth, truth, METRES)["abs_rel"] == 0
    assert metrics(depth, truth, METRES, cap=100)["abs_rel"] == pytest.approx(79 / 80 / 2)


def test_the_prediction_is_clamped_to_the_cap_but_not_for_d1():
    values = metrics(maps([1e6]), maps([40]), METRES)
    assert values["abs_rel"] == pytest.approx(1)
    truth, depth = torch.full((1, 1000), 79.0), torch.full((1, 1000), 1e6)
    assert metrics(depth, truth, metres=0.4)["d1_all"] == 1  # 5 px of truth against 0, not against the cap's
    assert math.isfinite(metrics(maps([0.0]), maps([40]), METRES)["rmse_log"])


@pytest.mark.parametrize("truth", [torch.zeros(2, 3), torch.full((2, 3), 90.0)])
def test_an_image_without_truth_in_range_is_refused(truth):
    with pytest.raises(ValueError, match="no pixel has a true depth in range"):
        metrics(torch.ones(2, 3), truth, METRES)


# --- the guess without a picture ---


def test_mean_inverse_depth_averages_over_known_pixels_and_images():
    one = maps([2, 0, 4, 4], [0, 0, 4, 4])  # left cell: 1/2 in one of four pixels; right cell: 1/4
    two = maps([0, 0, 0, 0], [0, 0, 0, 2])  # left cell unknown; right cell: 1/2
    assert mean_inverse_depth([one], (1, 2)).tolist() == [[0.5, 0.25]]
    assert mean_inverse_depth([one, two], (1, 2)).tolist() == [[0.5, 0.375]]
    assert mean_inverse_depth([torch.zeros(2, 4)], (1, 2)).tolist() == [[0, 0]]
