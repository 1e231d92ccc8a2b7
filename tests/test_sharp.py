"""The decoder with levels of disparity and convex upsampling."""

import pytest
import torch
from synthetic import texture

from monodepth_lib import sharp
from monodepth_lib.checkpoints import load_model, save_model
from monodepth_lib.networks import Monodepth, get_model


def test_enlarging_is_a_weighted_mean_of_nine_neighbours():
    torch.manual_seed(0)
    step, (height, width) = sharp.STEP, (3, 5)
    disparity = torch.rand(2, 2, height, width)
    weights = torch.randn(2, 2 * 9 * step * step, height, width)
    found = sharp.enlarge(disparity, weights)
    shares = weights.reshape(2, 2, 3, 3, step, step, height, width).flatten(2, 3).softmax(2)
    for n, view, y, x in [(0, 0, 0, 0), (1, 1, 11, 19), (0, 1, 5, 6), (1, 0, 2, 13)]:
        rows = [min(max(y // step + move, 0), height - 1) for move in (-1, 0, 1)]  # the border repeats
        columns = [min(max(x // step + move, 0), width - 1) for move in (-1, 0, 1)]
        near = torch.stack([disparity[n, view, row, column] for row in rows for column in columns])
        share = shares[n, view, :, y % step, x % step, y // step, x // step]
        assert found[n, view, y, x].item() == pytest.approx((near * share).sum().item(), rel=1e-5)


def test_an_outline_between_two_levels_can_be_sharp():
    disparity = torch.full((1, 2, 4, 4), 0.02)
    disparity[..., 2:] = 0.2
    weights = torch.zeros(1, 2, 9, sharp.STEP**2, 4, 4)
    weights[:, :, 4] = 50  # every pixel takes the middle one
    enlarged = sharp.enlarge(disparity, weights.flatten(1, 3))
    assert torch.equal(enlarged.unique(), torch.tensor([0.02, 0.2]))
    assert (enlarged[0, 0, 0, 7], enlarged[0, 0, 0, 8]) == (0.02, 0.2)


def test_folding_loses_nothing_and_fits_odd_sizes():
    feature = torch.rand(1, 3, 37, 53)
    folded = sharp.fold(feature, 4, (10, 14))
    assert folded.shape == (1, 48, 10, 14)
    assert torch.equal(torch.nn.functional.pixel_shuffle(folded, 4)[..., :37, :53], feature)


@pytest.mark.parametrize("start", [0.01, 0.03, 0.1, 0.25])
def test_a_fresh_head_says_its_start_and_stays_within_its_levels(start):
    torch.manual_seed(0)
    head = sharp.LevelHead(8, start)
    with torch.no_grad():
        fresh, far = head(torch.rand(1, 8, 16, 16)), head(1e4 * torch.randn(1, 8, 16, 16))
    assert fresh.mean().item() == pytest.approx(start, rel=0.05)
    assert far.min() >= sharp.LEAST * 0.999 and far.max() <= 0.3 * 1.001
    assert far.std() > 0.02


def test_levels_keep_their_digits_in_half_precision():
    head = sharp.LevelHead(4, 0.03)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        disparity = head(torch.rand(1, 4, 64, 64).bfloat16())
    assert disparity.dtype == torch.float32
    assert len(disparity.unique()) > 6000  # of 8192


@pytest.mark.parametrize("name", ["convnext_atto", "mobilenetv3_small_100"])  # features from 1/4, and from 1/2 on
def test_other_networks_of_timm_get_maps_of_the_right_sizes(name):
    with torch.no_grad():
        maps = get_model(name).eval()(texture(70, 99))
    assert [tuple(one.shape[2:]) for one in maps] == [(70, 99), (35, 50), (18, 25), (9, 13)]


def test_weights_are_kept_and_those_of_another_decoder_are_refused(tmp_path):
    model = get_model("efficientnet_lite0", grey=True)
    save_model(model, tmp_path / "mine.safetensors", (64, 96))
    with torch.no_grad():
        assert torch.equal(
            load_model(tmp_path / "mine.safetensors")(texture(64, 96))[0], model.eval()(texture(64, 96))[0]
        )
    other = Monodepth(model.encoder, get_model("unet", base_channels=1).decoder, model.config)
    save_model(other, tmp_path / "other.safetensors", (64, 96))
    with pytest.raises(ValueError, match=r"other\.safetensors holds no monodepth weights"):
        load_model(tmp_path / "other.safetensors")


def test_the_full_map_begins_at_the_pictures_first_pixel(monkeypatch):
    """70 x 99 px are enlarged to 72 x 100: what is too much lies at the right and below."""

    def places(disparity, weights):
        height, width = (sharp.STEP * length for length in disparity.shape[-2:])
        return (1000.0 * torch.arange(height)[:, None] + torch.arange(width)).expand(1, 2, height, width)

    monkeypatch.setattr(sharp, "enlarge", places)
    with torch.no_grad():
        full, half, *_ = get_model("mobilenetv3_small_100").eval()(texture(70, 99))
    assert (full[0, 0, 0, 0], full[0, 0, -1, -1], half[0, 0, 0, 0]) == (0, 69_098, 500.5)
