"""Flicker, the legend in metres, and the network's four scales (small: fit for test_gif.py and test_testing.py)."""

import numpy as np
import pytest
import torch
from PIL import Image

from monodepth_lib import gif, plots, testing


def test_flicker_by_hand():
    clip = np.array([[[0.05, 0.06]], [[0.07, 0.04]], [[0.07, 0.04]]], dtype=np.float32)
    assert gif.flicker(clip) == pytest.approx([0.02, 0.0], abs=1e-6)
    assert gif.flicker(clip[:1]).shape == (0,)


def test_the_legend_is_drawn_below_and_the_frame_above_is_as_without():
    picture, disparity = Image.new("RGB", (100, 40), "red"), np.full((8, 25), 0.05)
    plain = gif.side_by_side(picture, disparity, (0, 0.1), width=50)
    legend = gif.side_by_side(picture, disparity, (0, 0.1), width=50, metres=0.3)
    assert legend.width == plain.width and legend.height > plain.height
    assert np.array_equal(np.asarray(legend)[: plain.height], np.asarray(plain))


def test_a_tick_stands_under_its_colour():
    bar = np.asarray(plots.scale_bar([(0.5, "x"), (1.5, "outside")], 400))
    ramp = (bar[6] != 255).any(-1).nonzero()[0]
    black = (bar[16] == 0).all(-1).nonzero()[0]  # the tick, below the colours
    assert black.tolist() == [round((ramp[0] + ramp[-1]) / 2)]


def test_distances_are_those_of_the_colours():
    """With f·B/W = 0.3 m, 6 m is a disparity of 0.05: half of a scale to 0.1."""
    bar = np.asarray(gif.distance_bar((0.0, 0.1), 0.3, 800))
    ramp = (bar[6] != 255).any(-1).nonzero()[0]
    ramp = ramp[np.flatnonzero(np.diff(ramp) > 1)[-1] + 1 :]  # behind the label
    ticks = (bar[16] == 0).all(-1).nonzero()[0]
    assert min(abs(ticks - (ramp[0] + ramp[-1]) / 2)) <= 1


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
