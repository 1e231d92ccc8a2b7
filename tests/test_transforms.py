"""Resize, flip, to tensor, augment: pairs stay pairs."""

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic import shifted_pair, street_pair, to_picture

from monodepth_lib.losses import warp
from monodepth_lib.transforms import AugmentImagePair, RandomFlip, ResizeImage, ToTensor, image_transforms


def sample_of(left, right):
    return {"left_image": to_picture(left), "right_image": to_picture(right), "name": "drive/0"}


def views(sample):
    return sample["left_image"], sample["right_image"]


def rebuilt_error(sample, disparity):
    """Mean error of the left view rebuilt from the right one, away from the border that has no partner."""
    left, right = (view[None] for view in views(ToTensor()(sample)))
    return (left - warp(right, -disparity))[..., 12:-12].abs().mean()


def test_flip_with_swap_keeps_the_disparity_true_and_flip_alone_breaks_it():
    left, right = shifted_pair(32, 96, shift=6)
    sample, disparity = sample_of(left, right), torch.full((1, 1, 32, 96), 6 / 96)
    flipped = RandomFlip(p=1)(sample)
    unswapped = {**flipped, "left_image": flipped["right_image"], "right_image": flipped["left_image"]}
    assert rebuilt_error(sample, disparity) < 0.005
    assert rebuilt_error(flipped, disparity) < 0.005
    assert rebuilt_error(unswapped, disparity) > 0.05


def test_flip_twice_is_the_sample_and_never_is_the_same_object():
    sample = sample_of(*street_pair()[:2])
    twice = RandomFlip(p=1)(RandomFlip(p=1)(sample))
    assert all(np.array_equal(a, b) for a, b in zip(views(sample), views(twice), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(views(sample), views(RandomFlip(p=0)(sample)), strict=True))


def test_flip_happens_in_the_given_share():
    sample = sample_of(*shifted_pair(4, 8, 2))
    flips = sum(RandomFlip(p=0.25)(sample)["left_image"] != sample["left_image"] for _ in range(400))
    assert 60 < flips < 140


def test_resize_averages_the_area_a_pixel_covers():
    chequered = np.indices((32, 96)).sum(0) % 2 * 255
    picture = Image.fromarray(chequered.astype(np.uint8)).convert("RGB")
    small = ResizeImage((8, 24))({"left_image": picture, "right_image": picture})["left_image"]
    assert small.size == (24, 8)
    assert np.abs(np.asarray(small, dtype=float) - 127.5).max() <= 2  # sampling every 4th pixel gives 0 or 255


@pytest.mark.parametrize("size", [(0, 96), (32, 0), (-1, 5)])
def test_resize_refuses_an_empty_size(size):
    with pytest.raises(ValueError, match=str(size[0])):
        ResizeImage(size)


def test_to_tensor_is_float32_rgb_in_0_to_1_and_repeats_grey():
    grey = Image.fromarray(np.array([[0, 255, 51]], dtype=np.uint8))
    tensor = ToTensor()({"left_image": grey, "right_image": grey})["left_image"]
    assert tensor.dtype == torch.float32
    assert torch.equal(tensor, torch.tensor([[0, 1, 0.2]]).expand(3, 1, 3))


def tensors():
    left, right, *_ = street_pair(16, 32, near=4, far=1)
    return {"left_image": left[0], "right_image": right[0], "name": "drive/0"}


def test_both_views_get_the_same_colour_change():
    same = tensors()["left_image"]
    changes = set()
    for _ in range(20):
        left, right = views(AugmentImagePair(p=1)({"left_image": same, "right_image": same.clone()}))
        assert torch.equal(left, right)
        changes.add(float(left.mean()))
    assert len(changes) == 20


def test_colour_change_clips_and_changes_channels_apart():
    grey = torch.full((3, 4, 4), 0.5)
    low, high = 0.5**1.2 * 0.5 * 0.8, min(1.0, 0.5**0.8 * 2 * 1.2)
    seen = torch.stack(
        [AugmentImagePair(p=1)({"left_image": grey, "right_image": grey})["left_image"] for _ in range(300)]
    )
    assert low <= seen.min() and seen.max() <= high
    assert seen.max() == 1.0  # clipped, and bright ones do occur
    assert seen.min() < 0.25
    assert (seen.amax((2, 3)).std(1) > 0).any()  # channels change apart


def test_colour_changes_are_drawn_from_the_papers_ranges():
    assert 140 < sum(AugmentImagePair().draw() is not None for _ in range(400)) < 260
    gamma, brightness, colour = map(torch.stack, zip(*(AugmentImagePair(p=1).draw() for _ in range(500)), strict=True))
    for values, low, high in ((gamma, 0.8, 1.2), (brightness, 0.5, 2.0), (colour, 0.8, 1.2)):
        room = 0.05 * (high - low)
        assert low <= values.min() < low + room and high - room < values.max() <= high


def test_training_mirrors_half_of_the_pairs(monkeypatch):
    monkeypatch.setattr(AugmentImagePair, "draw", lambda _: None)
    sample = sample_of(*street_pair()[:2])
    left, right = views(ToTensor()(ResizeImage((32, 64))(sample)))
    drawn = [views(image_transforms("train", (32, 64))(sample)) for _ in range(100)]
    plain = sum(torch.equal(one, left) and torch.equal(other, right) for one, other in drawn)
    mirrored = sum(torch.equal(one, right.flip(-1)) and torch.equal(other, left.flip(-1)) for one, other in drawn)
    assert plain + mirrored == 100 and 30 < mirrored < 70


def test_augmentation_does_not_modify_its_input():
    sample = tensors()
    before = {view: sample[view].clone() for view in ("left_image", "right_image")}
    for _ in range(10):
        AugmentImagePair(p=1)(sample)
    assert all(torch.equal(sample[view], before[view]) for view in before)
    pictures = sample_of(*street_pair()[:2])
    before = {view: np.array(pictures[view]) for view in before}
    for _ in range(10):
        image_transforms("train", (16, 32))(pictures)
    assert all(np.array_equal(pictures[view], before[view]) for view in before)


@pytest.mark.parametrize("mode", ["val", "test"])
def test_nothing_is_random_at_validation_and_test(mode):
    sample = sample_of(*street_pair()[:2])
    chain = image_transforms(mode, (32, 64))
    expected = ToTensor()(ResizeImage((32, 64))(sample))
    for _ in range(20):
        assert all(torch.equal(a, b) for a, b in zip(views(chain(sample)), views(expected), strict=True))


def test_training_changes_pictures_unless_told_not_to():
    sample = sample_of(*street_pair()[:2])
    plain = ToTensor()(ResizeImage((32, 64))(sample))["left_image"]
    changed = [not torch.equal(image_transforms("train", (32, 64))(sample)["left_image"], plain) for _ in range(20)]
    still = [
        torch.equal(image_transforms("train", (32, 64), augment=False)(sample)["left_image"], plain) for _ in range(20)
    ]
    assert any(changed) and not all(changed)
    assert all(still)


def test_the_same_seed_gives_the_same_picture():
    sample, chain = sample_of(*street_pair()[:2]), image_transforms("train", (32, 64))
    drawn = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        drawn.append(torch.stack([chain(sample)["left_image"] for _ in range(4)]))
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


def test_unknown_mode_is_named():
    with pytest.raises(ValueError, match="'validation'"):
        image_transforms("validation")
