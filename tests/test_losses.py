"""The warp and the three terms: signs, borders, gradients, and cases one can do by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import street_pair, texture
from torch.autograd import gradcheck

from monodepth_lib.losses import (
    MonodepthLoss,
    appearance_loss,
    consistency_loss,
    photometric_error,
    pyramid,
    smoothness_loss,
    ssim,
    warp,
)

SCALES = [(64, 128), (32, 64), (16, 32), (8, 16)]


def flat(value, height=16, width=32):
    return torch.full((1, 1, height, width), value)


# --- warp ---


@pytest.mark.parametrize("size", [*SCALES, (7, 13)])
def test_zero_disparity_gives_the_image_itself_at_every_scale(size):
    image = texture(*size)
    assert torch.allclose(warp(image, torch.zeros(1, 1, *size)), image, atol=1e-5)


@pytest.mark.parametrize("pixels", [-5, -1, 1, 3, 2.5])
def test_a_ramp_moves_exactly_by_the_disparity(pixels):
    width = 40
    ramp = torch.arange(width, dtype=torch.float32).expand(1, 1, 6, width)
    moved = warp(ramp, flat(pixels / width, 6, width))
    assert torch.allclose(moved, (ramp + pixels).clamp(0, width - 1), atol=1e-4)


@settings(max_examples=50)
@given(st.integers(2, 12), st.integers(4, 40), st.integers(-45, 45), st.integers(0, 100))
def test_warp_by_whole_pixels_is_slicing_with_the_edge_repeated(height, width, shift, seed):
    image = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    source = (torch.arange(width) + shift).clamp(0, width - 1)
    disparity = torch.full((2, 1, height, width), shift / width)
    assert torch.allclose(warp(image, disparity), image[..., source], atol=1e-4)


def test_beyond_the_border_the_edge_is_repeated_not_black():
    white = torch.ones(1, 3, 8, 16)
    for value in (-0.3, 0.3):
        assert torch.allclose(warp(white, flat(value, 8, 16)), white)


def test_warp_moves_every_pixel_by_its_own_disparity():
    image = torch.arange(8.0).expand(1, 1, 2, 8)
    disparity = torch.tensor([[0, 1, 2, 0, 0, 0, 0, -4], [1, 1, 1, 1, 1, 1, 1, 1]]).view(1, 1, 2, 8) / 8
    expected = torch.tensor([[0, 2, 4, 3, 4, 5, 6, 3], [1, 2, 3, 4, 5, 6, 7, 7.0]])
    assert torch.allclose(warp(image, disparity)[0, 0], expected, atol=1e-5)


def test_sign_true_disparity_rebuilds_the_view_and_negated_does_not():
    left, right, d_left, d_right = street_pair()
    for image, other, d in ((left, right, -d_left), (right, left, d_right)):
        true, negated = appearance_loss(image, warp(other, d)), appearance_loss(image, warp(other, -d))
        assert true < 0.2 * negated
        assert true < 0.05


# --- gradients ---


def draw(*shape, seed=0, low=0.0, high=1.0):
    values = torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (low + (high - low) * values).requires_grad_()


def test_gradcheck_warp():
    assert gradcheck(warp, (draw(2, 2, 4, 6), draw(2, 1, 4, 6, seed=1, low=-0.2, high=0.2)))


def test_gradcheck_ssim():
    assert gradcheck(ssim, (draw(1, 2, 5, 6), draw(1, 2, 5, 6, seed=1)))


def test_gradcheck_appearance():
    assert gradcheck(appearance_loss, (draw(1, 3, 5, 6), draw(1, 3, 5, 6, seed=1)))


def test_gradcheck_smoothness():
    assert gradcheck(smoothness_loss, (draw(1, 1, 5, 6), draw(1, 3, 5, 6, seed=1)))


def test_gradcheck_consistency():
    assert gradcheck(consistency_loss, (draw(1, 1, 4, 6, high=0.3), draw(1, 1, 4, 6, seed=1, high=0.3)))


# --- ssim and appearance ---


def test_ssim_of_identical_images_is_one_and_the_loss_zero():
    image = texture(16, 32)
    assert torch.allclose(ssim(image, image), torch.ones(1, 3, 14, 30), atol=1e-5)
    assert appearance_loss(image, image).abs() < 1e-6


def test_ssim_is_symmetric_and_at_most_one():
    a, b = texture(16, 32, 1), texture(16, 32, 2)
    assert torch.allclose(ssim(a, b), ssim(b, a), atol=1e-6)
    assert ssim(a, b).max() <= 1 + 1e-5
    assert ssim(a, b).mean() < 0.9


def test_ssim_and_its_gradient_are_finite_on_black():
    black = torch.zeros(1, 3, 8, 8, requires_grad=True)
    loss = appearance_loss(black, torch.zeros(1, 3, 8, 8))
    loss.backward()
    assert loss == 0
    assert torch.isfinite(black.grad).all()
    assert torch.isfinite(ssim(black, torch.ones(1, 3, 8, 8))).all()


def test_ssim_of_one_window_by_hand():
    a = torch.tensor([0, 0, 0, 0, 0.9, 0, 0, 0, 0]).view(1, 1, 3, 3)  # mean 0.1, mean of squares 0.09
    b = torch.full((1, 1, 3, 3), 0.5)
    by_hand = (2 * 0.1 * 0.5 + 1e-4) * 9e-4 / ((0.01 + 0.25 + 1e-4) * (0.08 + 9e-4))
    assert ssim(a, b).item() == pytest.approx(by_hand, rel=1e-4)
    appearance = 0.85 * (1 - by_hand) / 2 + 0.15 * (8 * 0.5 + 0.4) / 9
    assert appearance_loss(a, b).item() == pytest.approx(appearance, rel=1e-4)


def test_a_negative_image_costs_nearly_one():
    image = texture(16, 32)
    assert 0.8 < appearance_loss(image, 1 - image, ssim_weight=1.0) <= 1


# --- smoothness ---


def test_smoothness_sees_vertical_and_horizontal_stripes():
    image, stripes = torch.full((1, 3, 8, 8), 0.5), torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 8, 8) % 2
    assert smoothness_loss(stripes, image).item() == pytest.approx(1)
    assert smoothness_loss(stripes.transpose(2, 3), image).item() == pytest.approx(1)
    assert smoothness_loss(torch.full((1, 1, 8, 8), 0.1), image) == 0


@pytest.mark.parametrize("direction", [2, 3])
def test_smoothness_forgives_a_step_where_the_image_has_an_edge(direction):
    step = torch.zeros(1, 1, 8, 8)
    step[..., 4:] = 1
    step = step.transpose(direction, 3)
    edge = smoothness_loss(step, step.expand(-1, 3, -1, -1))
    assert edge.item() == pytest.approx(torch.exp(torch.tensor(-1.0)).item() / 7)
    assert smoothness_loss(step, torch.zeros(1, 3, 8, 8)).item() == pytest.approx(1 / 7)


# --- left-right consistency ---


def test_consistency_is_near_zero_for_one_world_and_clearly_not_for_two():
    assert consistency_loss(flat(0.1), flat(0.1)) < 1e-6
    assert consistency_loss(flat(0.1), flat(0.15)).item() == pytest.approx(0.1, abs=1e-6)
    # a slanted wall: d_l = a + b·x, and where x' = x - d_l the right view has the same, d_r = a + b·(x' + a)/(1 - b)
    a, b = 0.05, 0.1
    x = ((torch.arange(64) + 0.5) / 64).expand(1, 1, 8, 64)
    d_left, d_right = a + b * x, a + b * (x + a) / (1 - b)
    consistent = consistency_loss(d_left, d_right)
    assert consistent < 0.002  # zero but for the borders, which one view alone sees
    inside = (d_left - warp(d_right, -d_left))[..., 10:-10]
    assert inside.abs().max() < 1e-5
    assert consistency_loss(d_left, d_left) > 5 * consistent
    assert consistency_loss(d_right, d_left) > 5 * consistent


def test_consistency_is_the_sum_of_both_views_by_hand():
    """Eight pixels: right 1 px everywhere, left 0 px but for 3 px in the last one, which the right view meets twice."""
    left = torch.tensor([0, 0, 0, 0, 0, 0, 0, 3]).view(1, 1, 1, 8) / 8
    right = torch.full((1, 1, 1, 8), 1 / 8)
    assert consistency_loss(left, right).item() == pytest.approx((7 * 1 + 2) / 64 + (6 * 1 + 2 * 2) / 64, abs=1e-6)


# --- pyramid and the total ---


def test_pyramid_is_the_average_of_the_area():
    image = torch.rand(2, 3, 16, 32)
    full, half, quarter = pyramid(image, [(16, 32), (8, 16), (4, 8)])
    assert torch.equal(full, image)
    assert torch.allclose(half, image.view(2, 3, 8, 2, 16, 2).mean((3, 5)), atol=1e-6)
    assert torch.allclose(quarter, image.view(2, 3, 4, 4, 8, 4).mean((3, 5)), atol=1e-6)


def disparities(d_left, d_right, sign=1):
    both = sign * torch.cat([d_left, d_right], dim=1)
    return [torch.nn.functional.interpolate(both, size, mode="area") for size in SCALES]


def test_sign_of_the_total_loss():
    left, right, d_left, d_right = street_pair()
    loss = MonodepthLoss()
    true = loss(disparities(d_left, d_right), left, right)[0]
    assert true < 0.3 * loss(disparities(d_left, d_right, -1), left, right)[0]
    assert true < 0.3 * loss(disparities(d_left, d_right), right, left)[0]
    assert true < 0.3 * loss(disparities(d_left * 0, d_right * 0), left, right)[0]


def test_parts_are_detached_weighted_and_sum_to_the_total():
    left, right, *ds = street_pair()
    maps = [d.requires_grad_() for d in disparities(*ds)]
    total, parts = MonodepthLoss()(maps, left, right)
    assert set(parts) == {"appearance", "smoothness", "consistency"}
    assert total.item() == pytest.approx(sum(part.item() for part in parts.values()), rel=1e-5)
    assert total.requires_grad and not any(part.requires_grad for part in parts.values())
    _, doubled = MonodepthLoss(smoothness_weight=0.2, consistency_weight=2.0)(maps, left, right)
    assert doubled["smoothness"].item() == pytest.approx(2 * parts["smoothness"].item(), rel=1e-5)
    assert doubled["consistency"].item() == pytest.approx(2 * parts["consistency"].item(), rel=1e-5)
    assert doubled["appearance"].item() == pytest.approx(parts["appearance"].item(), rel=1e-5)


def test_total_by_hand_both_views_and_smoothness_halved_at_every_scale():
    grey = torch.full((1, 3, 64, 128), 0.5)
    maps = []
    for size in SCALES:
        stripes = (torch.arange(size[1]) % 2 * 0.1).expand(1, 1, *size)  # smoothness 0.1 at every scale
        maps.append(torch.cat([stripes, torch.zeros(1, 1, *size)], dim=1))
    _, parts = MonodepthLoss()(maps, grey, grey)
    assert parts["appearance"] < 1e-5
    assert parts["smoothness"].item() == pytest.approx(0.1 * 0.1 * (1 + 1 / 2 + 1 / 4 + 1 / 8), rel=1e-4)
    expected = sum(consistency_loss(*m.split(1, dim=1)) for m in maps)
    assert parts["consistency"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_right_disparity_matters_too():
    left, right, d_left, d_right = street_pair()
    maps = [d.requires_grad_() for d in disparities(d_left, d_right)]
    MonodepthLoss()(maps, left, right)[0].backward()
    assert all(d.grad[:, channel].abs().sum() > 0 for d in maps for channel in (0, 1))


def test_pixel_cost_is_what_the_appearance_term_averages():
    a, b = texture(16, 32, 1), texture(16, 32, 2)
    cost = photometric_error(a, b)
    assert cost.shape == (1, 1, 16, 32)
    assert torch.allclose(
        photometric_error(a, b, ssim_weight=0.0).mean(), appearance_loss(a, b, ssim_weight=0.0), atol=1e-6
    )
    inner = photometric_error(a, b, ssim_weight=1.0)[..., 1:-1, 1:-1]  # where SSIM's window fits
    assert torch.allclose(inner.mean(), appearance_loss(a, b, ssim_weight=1.0), atol=1e-6)
