"""Disparity to metres, the metrics and the crop, against cases worked out by hand."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monodepth_lib import depth as library
from monodepth_lib.confidence import aurg, ause, sparsification
from monodepth_lib.depth import (
    CROPS,
    METRICS,
    Protocol,
    crop_window,
    disparity_to_depth,
    fill_rows,
    mean_inverse_depth,
    nearest_valid,
    resize_map,
)

METRES = 0.30947


def metrics(depth, truth, focal_baseline, *protocol, **named):
    return library.metrics(depth, truth, focal_baseline, Protocol(*protocol, **named))


def metrics_by_distance(depth, truth, focal_baseline, *protocol, **named):
    return library.metrics_by_distance(depth, truth, focal_baseline, Protocol(*protocol, **named))


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
def test_depth_falls_with_disparity_and_turns_back_into_it(values, focal_baseline):
    disparity = torch.tensor(values, dtype=torch.float64).sort().values
    depth = disparity_to_depth(disparity, focal_baseline)
    assert (depth.diff() <= 0).all()
    assert torch.allclose(disparity_to_depth(depth, focal_baseline), disparity, rtol=1e-9)


def test_resizing_keeps_a_disparitys_value_and_any_leading_shape():
    assert torch.allclose(resize_map(torch.full((2, 3, 4, 8), 0.1), (9, 5)), torch.full((2, 3, 9, 5), 0.1))
    assert resize_map(maps([0, 1], [0, 1]), (2, 4)).tolist() == [[0, 0.25, 0.75, 1]] * 2


# --- crop ---


@pytest.mark.parametrize(
    "crop, size, expected",
    [
        ("garg", (375, 1242), (153, 371, 44, 1197)),
        ("garg", (370, 1224), (151, 366, 43, 1180)),
        ("garg", (128, 416), (52, 126, 14, 401)),
        ("eigen", (375, 1242), (124, 342, 44, 1197)),
        ("eigen", (370, 1224), (122, 337, 43, 1180)),
        ("none", (375, 1242), (0, 375, 0, 1242)),
        ("none", (1, 1), (0, 1, 0, 1)),
    ],
)
def test_crops(crop, size, expected):
    rows, columns = crop_window(crop, *size)
    assert (rows.start, rows.stop, columns.start, columns.stop) == expected


def test_an_unknown_crop_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="crop is 'kb'; it must be one of 'none', 'garg', 'eigen'"):
        Protocol(crop="kb")


@pytest.mark.parametrize("cap", [0, -5, math.nan, math.inf])
def test_a_cap_that_no_scene_has_is_named(cap):
    with pytest.raises(ValueError, match=f"cap is {cap} m"):
        Protocol(cap)


# --- metrics ---


def counted_pixels(depth, truth, crop="none", cap=80.0):
    """(prediction, truth) of the pixels that count, by two plain loops; Python's floats are float64."""
    height, width = truth.shape
    top, bottom, left, right = CROPS[crop]
    depth, truth = depth.tolist(), truth.tolist()
    for y in range(height):
        for x in range(width):
            inside = int(top * height) <= y < int(bottom * height) and int(left * width) <= x < int(right * width)
            if inside and 1e-3 < truth[y][x] < cap:
                yield depth[y][x], truth[y][x]


def reference(depth, truth, focal_baseline, cap=80.0, crop="none", median_scaling=False, low=0.0, high=math.inf):
    """The definitions once more, pixel by pixel."""
    pixels = list(counted_pixels(depth, truth, crop, cap))
    ratio = 1.0
    if median_scaling:
        ratio = statistics.median(gt for _, gt in pixels) / statistics.median(z for z, _ in pixels)
    rows = []
    for unscaled, gt in pixels:
        if not low <= gt < high:
            continue
        z = unscaled * ratio
        p = min(max(z, 1e-3), cap)
        off = max(p / gt, gt / p)
        gt_px = focal_baseline * truth.shape[1] / gt
        wrong = abs(focal_baseline * truth.shape[1] / max(z, 1e-3) - gt_px)
        d1_all = wrong >= 3 and wrong >= 0.05 * gt_px
        log = math.log(p) - math.log(gt)
        hits = [off < 1.25**power for power in (1, 2, 3)]
        rows.append([abs(p - gt) / gt, (p - gt) ** 2 / gt, (p - gt) ** 2, log**2, *hits, d1_all])
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    means[2], means[3] = math.sqrt(means[2]), math.sqrt(means[3])
    return dict(zip(METRICS, means, strict=True)) | ({"ratio": ratio} if median_scaling else {})


def random_maps(seed, height=24, width=40):
    """A truth with holes and pixels beyond the cap, and a prediction that is off by up to half, and too near by 2."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(height, width, generator=generator) * 120
    truth[torch.rand(height, width, generator=generator) < 0.3] = 0
    return truth * (0.25 + 0.5 * torch.rand(height, width, generator=generator)) + 0.01, truth


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cap", [80.0, 50.0])
@pytest.mark.parametrize("crop", list(CROPS))
@pytest.mark.parametrize("median_scaling", [False, True])
def test_metrics_agree_with_a_plain_loop(seed, cap, crop, median_scaling):
    depth, truth = random_maps(seed)
    expected = reference(depth, truth, METRES, cap, crop, median_scaling)
    assert metrics(depth, truth, METRES, cap, crop, median_scaling) == pytest.approx(expected, rel=1e-6)


@given(
    st.lists(st.floats(0.5, 79), min_size=1, max_size=30),
    st.lists(st.floats(0.1, 200), min_size=30, max_size=30),
)
def test_metrics_are_perfect_on_equal_maps_and_agree_with_the_loop_on_others(truth, depth):
    truth_map, depth_map = maps(truth), maps(depth[: len(truth)])
    assert metrics(truth_map, truth_map, METRES) == {name: float(name in ("a1", "a2", "a3")) for name in METRICS}
    assert metrics(depth_map, truth_map, METRES) == pytest.approx(reference(depth_map, truth_map, METRES), abs=1e-9)


def test_metrics_by_hand():
    values = metrics(maps([12, 10, 5]), maps([10, 20, 5]), METRES)
    assert values["abs_rel"] == pytest.approx((0.2 + 0.5 + 0) / 3)
    assert values["sq_rel"] == pytest.approx((4 / 10 + 100 / 20 + 0) / 3)
    assert values["rmse"] == pytest.approx(math.sqrt((4 + 100) / 3))
    assert values["rmse_log"] == pytest.approx(math.sqrt((math.log(1.2) ** 2 + math.log(2) ** 2) / 3))
    assert (values["a1"], values["a2"], values["a3"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert metrics(maps([15, 18]), maps([10, 10]), METRES)["a2"] == 0.5  # 1.5 < 1.5625 < 1.8 < 1.953
    assert metrics(maps([15, 18]), maps([10, 10]), METRES)["a3"] == 1


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
    assert metrics(depth, truth, focal_baseline=1.0)["d1_all"] == float(bad)


def test_d1_counts_pixels_of_the_truths_own_width():
    truth, depth = torch.full((1, 100), 10.0), torch.full((1, 100), 10 / 1.25)  # at 100 px: 10 px against 12.5
    assert metrics(depth, truth, focal_baseline=1.0)["d1_all"] == 0
    assert (
        metrics(depth.repeat(1, 2), truth.repeat(1, 2), focal_baseline=1.0)["d1_all"] == 1
    )  # at 200 px: 20 against 25


def test_what_lies_outside_the_crop_does_not_count():
    truth, depth = torch.full((375, 1242), 10.0), torch.full((375, 1242), 20.0)
    depth[153:371, 44:1197] = 10
    assert metrics(depth, truth, METRES, crop="garg")["abs_rel"] == 0
    depth[153, 44] = 20
    assert metrics(depth, truth, METRES, crop="garg")["abs_rel"] == pytest.approx(1 / (218 * 1153))
    truth[124:342, 44:1197] = 0
    with pytest.raises(ValueError, match="inside the eigen crop"):
        metrics(depth, truth, METRES, crop="eigen")


def test_median_scaling_by_hand():
    depth, truth = maps([1, 2, 3, 100, 9]), maps([4, 8, 15, 20, 0])
    values = metrics(depth, truth, METRES, median_scaling=True)
    assert values["ratio"] == pytest.approx(11.5 / 2.5)  # the middle two of four, as usual
    scaled = metrics(depth * 4.6, truth, METRES)
    assert {key: values[key] for key in METRICS} == pytest.approx(scaled, rel=1e-6)
    assert scaled["abs_rel"] == pytest.approx((0.6 / 4 + 1.2 / 8 + 1.2 / 15 + 60 / 20) / 4)  # 460 m, clamped to 80
    assert "ratio" not in scaled


def test_the_prediction_is_scaled_before_it_is_clamped():
    values = metrics(maps([10, 20, 140]), maps([5, 10, 70]), METRES, median_scaling=True)
    assert values["ratio"] == 0.5 and values["abs_rel"] == 0


def test_median_scaling_forgives_the_scale_and_nothing_else():
    depth, truth = random_maps(0)
    one, other = (metrics(scale * depth, truth, METRES, median_scaling=True) for scale in (1, 0.01))
    assert other.pop("ratio") == pytest.approx(100 * one.pop("ratio"))
    assert one == pytest.approx(other, rel=1e-5)
    assert 0.1 < one["abs_rel"] < metrics(depth, truth, METRES)["abs_rel"]


def test_bands_of_distance_by_hand():
    truth = maps([5, 9.99, 10, 39, 40, 79, 80, 0])
    bands = metrics_by_distance(truth * 1.5, truth, METRES)
    assert [(band["from"], band["to"], band["pixels"]) for band in bands] == [
        (0, 10, 2),
        (10, 20, 1),
        (20, 40, 1),
        (40, 80, 2),
    ]
    assert [bands[i]["abs_rel"] for i in (0, 1, 2)] == pytest.approx([0.5] * 3)
    assert bands[3]["abs_rel"] == pytest.approx((20 / 40 + 1 / 79) / 2)  # both predictions end at 80 m: 60 and 80


@pytest.mark.parametrize("median_scaling", [False, True])
@pytest.mark.parametrize("crop", ["none", "garg"])
def test_bands_agree_with_a_plain_loop_and_add_up(crop, median_scaling):
    depth, truth = random_maps(1)
    bands = metrics_by_distance(depth, truth, METRES, 80, crop, median_scaling)
    for band in bands:
        expected = reference(depth, truth, METRES, 80, crop, median_scaling, band["from"], band["to"])
        assert {key: band[key] for key in METRICS} == pytest.approx({k: expected[k] for k in METRICS}, rel=1e-6)
    whole, pixels = metrics(depth, truth, METRES, 80, crop, median_scaling), sum(band["pixels"] for band in bands)
    assert pixels == len(list(counted_pixels(depth, truth, crop)))
    assert sum(b["pixels"] * b["abs_rel"] for b in bands) / pixels == pytest.approx(whole["abs_rel"])
    assert sum(b["pixels"] * b["rmse"] ** 2 for b in bands) / pixels == pytest.approx(whole["rmse"] ** 2)


@pytest.mark.parametrize("cap, last", [(50.0, (40, 50)), (80.0, (40, 80)), (100.0, (80, 100)), (5.0, (0, 5))])
def test_the_last_band_ends_at_the_cap(cap, last):
    truth = maps([1.0, 4.0, 45.0, 90.0])
    bands = metrics_by_distance(truth, truth, METRES, cap)
    assert (bands[-1]["from"], bands[-1]["to"]) == last
    assert sum(band["pixels"] for band in bands) == int((truth < cap).sum())


def test_a_band_without_pixels_says_so():
    empty = metrics_by_distance(maps([5.0]), maps([5.0]), METRES)[1]
    assert empty["pixels"] == 0 and math.isnan(empty["abs_rel"])


def test_unknown_and_far_truth_does_not_count():
    truth, depth = maps([0, 10, 80, 200, 0.0005]), maps([7, 10, 1, 1, 1])
    assert metrics(depth, truth, METRES)["abs_rel"] == 0
    assert metrics(depth, truth, METRES, cap=100)["abs_rel"] == pytest.approx(79 / 80 / 2)


def test_the_prediction_is_clamped_to_the_cap_but_not_for_d1():
    values = metrics(maps([1e6]), maps([40]), METRES)
    assert values["abs_rel"] == pytest.approx(1)
    truth, depth = torch.full((1, 1000), 79.0), torch.full((1, 1000), 1e6)
    assert metrics(depth, truth, focal_baseline=0.4)["d1_all"] == 1  # 5 px of truth against 0, not against the cap's
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


def test_unknown_places_take_their_rows_mean_and_rows_without_any_the_mean_of_all():
    filled = fill_rows(maps([0.5, 0, 0.1], [0, 0, 0]))
    assert torch.allclose(filled, maps([0.5, 0.3, 0.1], [0.3, 0.3, 0.3]))
    assert fill_rows(torch.zeros(2, 2)).tolist() == [[0, 0], [0, 0]]


def test_the_nearest_known_pixel():
    values = torch.zeros(5, 8)
    values[1, 6], values[4, 2] = 7.0, 3.0
    assert nearest_valid(values, 2, 5) == (1, 6)
    assert nearest_valid(values, 4, 3) == (4, 2)
    assert nearest_valid(values + 1, 2, 5) == (2, 5)  # known everywhere: the one asked for


# --- confidence ---


def test_sparsification_by_hand():
    """Errors 4, 2, 1, 1, mean 2; the largest goes first: 8/4, 4/3, 2/2, 1/1, and nothing is left."""
    error = torch.tensor([1.0, 4.0, 1.0, 2.0])
    assert sparsification(error, error, steps=4).tolist() == pytest.approx([2, 4 / 3, 1, 1, 0])
    assert sparsification(error, -error, steps=4).tolist() == pytest.approx([2, 7 / 3, 3, 4, 0])
    assert sparsification(error.reshape(2, 2), error.reshape(2, 2), steps=2).tolist() == pytest.approx([2, 1, 0])


def test_ause_and_aurg_by_hand():
    """Areas by trapezoids 1/4 wide: best (1 + 4/3 + 1 + 1) / 4 = 13/12, worst (1 + 7/3 + 3 + 4) / 4 = 31/12."""
    error = torch.tensor([1.0, 4.0, 1.0, 2.0])
    assert ause(error, error, 4) == pytest.approx(0)
    assert ause(error, -error, 4) == pytest.approx(31 / 12 - 13 / 12)
    assert aurg(error, error, 4) == pytest.approx(2 - 13 / 12)
    assert aurg(error, -error, 4) == pytest.approx(2 - 31 / 12)


def test_uncertainty_counts_by_its_order_alone_and_chance_gains_nothing():
    generator = torch.Generator().manual_seed(0)
    error, noise = torch.rand(2, 20_000, generator=generator)
    assert ause(error, error**3) == pytest.approx(0, abs=1e-9)
    assert aurg(error, noise) == pytest.approx(0, abs=0.01)
    assert ause(error, noise) == pytest.approx(0.25, abs=0.02)  # 1/2 - the area under (1 - x) / 2


def test_unknown_pixels_do_not_count():
    error = torch.tensor([1.0, math.nan, 4.0, 1.0, 2.0])
    doubt = torch.tensor([1.0, 99.0, 4.0, 1.0, 2.0])
    assert sparsification(error, doubt, steps=4).tolist() == pytest.approx([2, 4 / 3, 1, 1, 0])
    assert math.isnan(ause(error[1:2], doubt[1:2]))
    assert math.isnan(aurg(error[1:2], doubt[1:2]))


def test_a_copied_depth_is_that_of_the_most_alike_of_the_same_size():
    truth, remembered = torch.full((2, 4), 10.0), [torch.full((2, 4), z) for z in (20.0, 12.0)] + [torch.ones(3, 3)]
    assert library.copied_abs_rel(truth, remembered, [0.1, 0.5, 0.9], METRES) == pytest.approx(0.2)
    assert math.isnan(library.copied_abs_rel(truth, remembered[2:], [0.9], METRES))
