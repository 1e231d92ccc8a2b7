"""The experiments: every switch does what it says, runs survive a kill, and the page says what the results say."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from synthetic import make_drive, shifted_pair, street_pair, texture
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # experiments/ is a folder of the project, not part of the installed package

from monodepth_lib import depth, files, kitti, losses, networks, testing, training  # noqa: E402
from research.experiments import __main__ as command  # noqa: E402
from research.experiments import long, report, run, sweep  # noqa: E402
from research.experiments import recipe as recipes  # noqa: E402
from research.experiments.recipe import Recipe, RecipeLoss, make_model  # noqa: E402

TINY = Recipe(width=2, size=(32, 96), batch_size=4)
EVERYTHING = Recipe(
    width=2, size=(32, 96), batch_size=4, head_batch_norm=True, zero_padding=True, judged="twice", mean_normalised=True,
    mask_outside=True, mask_occluded=True, zoom=0.65, graft=0.5, erase=0.5, disturb=0.6, small_until=0.5,
    draw_twice="2020_01_01_drive_0002", schedule="cosine", warm_up=3, weight_decay=0.02, clip=1.0, ema=0.9,
)  # fmt: skip


def random_maps(size=(32, 96), count=2, seed=0):
    """Disparities of four scales, some of which point beyond the border, and random views."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(count, 2, size[0] >> s, size[1] >> s) for s in range(4)]
    maps = [(0.2 * torch.rand(shape, generator=generator)).requires_grad_() for shape in shapes]
    return maps, *(torch.cat([texture(*size, seed=seed + 10 * v + i) for i in range(count)]) for v in (1, 2))


def parts_of(disparities, left, right, **switches):
    """The loss and its parts, as numbers."""
    total, parts = RecipeLoss(Recipe(**switches))(disparities, left, right)
    return {"total": float(total.detach()), **{name: float(value) for name, value in parts.items()}}


class TestWarp:
    def test_without_switches_it_is_the_librarys(self):
        maps, left, _ = random_maps()
        assert torch.equal(recipes.warp(left, -maps[0][:, :1]), losses.warp(left, -maps[0][:, :1]))

    @pytest.mark.parametrize("side", [-1, 1])
    def test_zero_padding_differs_only_where_it_samples_outside(self, side):
        maps, left, _ = random_maps()
        image, disparity = left + 0.5, side * maps[0][:, :1].detach()  # never black itself
        border, zeros = losses.warp(image, disparity), recipes.warp(image, disparity, zero_padding=True)
        place = torch.arange(96) + 96 * disparity  # in px, 0 the centre of the first one
        inside = ((place >= 0.001) & (place <= 94.999)).expand_as(border)
        beyond = ((place <= -1.001) | (place >= 96.001)).expand_as(border)
        assert 0.01 < float(beyond.float().mean()) < 0.5 and float(inside.float().mean()) > 0.5
        assert torch.allclose(border[inside], zeros[inside], atol=1e-5)
        assert (zeros[beyond] == 0).all() and (border[beyond] > 0.4).all()
        between = ~inside & ~beyond
        assert (zeros[between] <= border[between] + 1e-4).all()

    @pytest.mark.parametrize("zero_padding", [False, True])
    def test_unaligned_is_off_by_up_to_half_a_pixel(self, zero_padding):
        height, width = 8, 24
        rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(24.0), indexing="ij")
        image = torch.stack([columns, rows])[None]
        warped = recipes.warp(image, torch.zeros(1, 1, height, width), zero_padding, unaligned=True) - image
        inner = warped[..., 1:-1, 1:-1]  # at the border, half a pixel is beyond it
        assert torch.allclose(inner[0, 0, 0], torch.arange(1.0, width - 1) / (width - 1) - 0.5, atol=1e-5)
        assert torch.allclose(inner[0, 1, :, 0], torch.arange(1.0, height - 1) / (height - 1) - 0.5, atol=1e-5)
        assert float(warped[0, 0, 4, -1]) == pytest.approx(-0.5 * (width - 1) if zero_padding else 0, abs=1e-3)


class TestLoss:
    def test_without_switches_it_is_the_librarys(self):
        """The very value, parts and gradient."""
        results = []
        for loss in (RecipeLoss(Recipe()), losses.MonodepthLoss()):
            maps, left, right = random_maps()
            total, parts = loss(maps, left, right)
            total.backward()
            results.append((total, parts, [both.grad for both in maps]))
        (mine, my_parts, my_slopes), (theirs, their_parts, their_slopes) = results
        assert torch.allclose(mine, theirs, rtol=1e-6)
        assert {name: round(float(v), 5) for name, v in my_parts.items()} == {
            name: round(float(v), 5) for name, v in their_parts.items()
        }
        for a, b in zip(my_slopes, their_slopes, strict=True):
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-7)

    @pytest.mark.parametrize(
        ("switch", "value"),
        [("ssim_weight", 0.0), ("ssim_weight", 1.0), ("smoothness_weight", 0.0), ("consistency_weight", 0.0)],
    )
    def test_weights_are_the_librarys_and_remove_a_term(self, switch, value):
        maps, left, right = random_maps()
        mine = parts_of(maps, left, right, **{switch: value})
        assert mine["total"] == pytest.approx(losses.MonodepthLoss(**{switch: value})(maps, left, right)[0].item())
        assert mine["total"] != pytest.approx(parts_of(maps, left, right)["total"])
        if switch != "ssim_weight":
            assert mine[switch.removesuffix("_weight")] == 0

    @pytest.mark.parametrize(("judged", "sizes"), [("twice", (0, 0, 1, 2)), ("full", (0, 0, 0, 0))])
    def test_a_map_is_judged_at_a_larger_size(self, judged, sizes):
        maps, left, right = random_maps()
        appearance = smoothness = consistency = 0.0
        for both, scale in zip(maps, sizes, strict=True):
            size = (32 >> scale, 96 >> scale)
            d_l, d_r = F.interpolate(both.detach(), size, mode="bilinear", align_corners=False).split(1, 1)
            i_l, i_r = (F.interpolate(view, size, mode="area") for view in (left, right))
            appearance += losses.appearance_loss(i_l, losses.warp(i_r, -d_l))
            appearance += losses.appearance_loss(i_r, losses.warp(i_l, d_r))
            smoothness += 0.1 * (losses.smoothness_loss(d_l, i_l) + losses.smoothness_loss(d_r, i_r)) / 2**scale
            consistency += losses.consistency_loss(d_l, d_r)
        parts = parts_of(maps, left, right, judged=judged)
        assert parts["appearance"] == pytest.approx(float(appearance), rel=1e-5)
        assert parts["smoothness"] == pytest.approx(float(smoothness), rel=1e-5)
        assert parts["consistency"] == pytest.approx(float(consistency), rel=1e-5)

    def test_maps_left_out_do_not_count(self):
        maps, left, right = random_maps()
        alone = [parts_of(maps, left, right, maps=(scale,))["total"] for scale in range(4)]
        assert parts_of(maps, left, right, maps=(0, 2, 3))["total"] == pytest.approx(alone[0] + alone[2] + alone[3])

    def test_mean_normalised_smoothness_does_not_grow_with_nearness(self):
        maps, left, right = random_maps()
        halved = [both / 2 for both in maps]
        near, far = (parts_of(m, left, right, mean_normalised=True)["smoothness"] for m in (maps, halved))
        assert near == pytest.approx(far, rel=1e-4)
        near, far = (parts_of(m, left, right)["smoothness"] for m in (maps, halved))
        assert near == pytest.approx(2 * far, rel=1e-4)

    def test_edge_lets_the_disparity_jump_at_edges_of_the_picture(self):
        image, disparity = torch.zeros(1, 3, 8, 16), torch.full((1, 2, 8, 16), 0.05)
        image[..., 8:], disparity[..., 8:] = 0.5, 0.1
        weak, strong = (
            float(RecipeLoss(Recipe(edge=edge)).smoothness(disparity[:, :1], image)) for edge in (1.0, 10.0)
        )
        assert strong / weak == pytest.approx(np.exp(-10 * 0.5) / np.exp(-0.5), rel=1e-4)

    def test_grey_loss_compares_brightness(self):
        maps, left, right = random_maps()
        grey = [view.mean(1, keepdim=True).expand(-1, 3, -1, -1) for view in (left, right)]
        assert parts_of(maps, left, right, grey_loss=True) == pytest.approx(parts_of(maps, *grey), rel=1e-4)

    @pytest.mark.parametrize("switch", ["zero_padding", "unaligned", "mask_outside", "mask_occluded"])
    def test_a_switch_reaches_the_loss(self, switch):
        maps, left, right = random_maps()
        with_it, without = parts_of(maps, left, right, **{switch: True}), parts_of(maps, left, right)
        assert with_it["appearance"] != pytest.approx(without["appearance"], rel=1e-3)


class TestMasks:
    def test_outside_is_what_points_beyond_the_border(self):
        """Beside a slow count, pixel by pixel."""
        maps, *_ = random_maps(count=1)
        loss, width = RecipeLoss(Recipe(mask_outside=True)), 96
        for channel, side in ((0, -1), (1, +1)):
            d = maps[0][:, channel : channel + 1].detach()
            seen = loss.seen(d, d, side)[0, 0]
            for row in range(0, 32, 7):
                for column in range(width):
                    place = (column + 0.5) / width + side * float(d[0, 0, row, column])
                    assert bool(seen[row, column]) == (0 < place < 1), (row, column)
        assert 0 < float(seen.mean()) < 1

    def test_occluded_is_what_the_box_hides(self):
        """A wall at 3 px and a box before it at 12: 9 columns of the wall are seen by one view alone."""
        _, _, d_left, d_right = street_pair(64, 128, near=12, far=3)
        loss = RecipeLoss(Recipe(mask_occluded=True))
        for own, other, side in ((d_left, d_right, -1), (d_right, d_left, +1)):
            seen = loss.seen(own, losses.warp(other, side * own), side)[0, 0].bool()
            slow = torch.ones(64, 128, dtype=torch.bool)
            for row in range(64):
                for column in range(128):
                    d = round(128 * float(own[0, 0, row, column]))
                    partner = min(127, max(0, column + side * d))
                    slow[row, column] = round(128 * float(other[0, 0, row, partner])) <= d
            assert torch.equal(seen, slow)
            hidden = (~seen[32]).nonzero().flatten()
            assert len(hidden) == 9 and float(own[0, 0, 32, hidden].max()) == pytest.approx(3 / 128)

    def test_no_mask_without_a_switch_and_both_together(self):
        maps, *_ = random_maps()
        d, other = maps[0][:, :1], maps[0][:, 1:]
        assert RecipeLoss(Recipe()).seen(d, other, -1) is None
        one, two, both = (
            RecipeLoss(Recipe(mask_outside=a, mask_occluded=b)).seen(d, other, -1)
            for a, b in ((True, False), (False, True), (True, True))
        )
        assert torch.equal(both, one * two) and not torch.equal(both, one) and not torch.equal(both, two)

    def test_each_view_has_its_own_mask(self):
        maps, left, right = random_maps()
        switches = dict(mask_outside=True, mask_occluded=True, maps=(0,))
        loss, (d_l, d_r) = RecipeLoss(Recipe(**switches)), maps[0].detach().split(1, 1)
        seen_l, seen_r = loss.seen(d_l, losses.warp(d_r, -d_l), -1), loss.seen(d_r, losses.warp(d_l, d_r), +1)
        expected = recipes.masked_appearance(left, losses.warp(right, -d_l), seen_l, 0.85)
        expected += recipes.masked_appearance(right, losses.warp(left, d_r), seen_r, 0.85)
        assert parts_of(maps, left, right, **switches)["appearance"] == pytest.approx(float(expected), rel=1e-5)

    def test_masked_pixels_do_not_count(self):
        _, left, right = random_maps(count=2)
        seen = (torch.rand(2, 1, 32, 96) < 0.5).float()
        cost = losses.photometric_error(left, right)
        slow = [float(cost[n, 0, y, x]) for n in range(2) for y in range(32) for x in range(96) if seen[n, 0, y, x]]
        assert float(recipes.masked_appearance(left, right, seen, 0.85)) == pytest.approx(np.mean(slow), rel=1e-5)
        assert float(recipes.masked_appearance(left, right, torch.zeros_like(seen), 0.85)) == 0


@pytest.mark.skipif(
    not importlib.util.find_spec("cv2"), reason="the extra sgm is not installed (pip install -e '.[sgm]')"
)
class TestStereoHints:
    """A wall at 3 px and a box before it at 12."""

    def test_each_view_has_its_own(self):
        left, right, *truth = street_pair(64, 128, near=12, far=3)
        for hint, true in zip(recipes.stereo_hints(left, right), truth, strict=True):
            found = hint > 0
            assert hint.shape == true.shape and float(found.float().mean()) > 0.6
            close = (hint - true).abs()[found] * 128 < 0.5
            assert float(close.float().mean()) > 0.9

    def test_it_pulls_to_the_hint_where_that_explains_more(self):
        left, right, d_left, d_right = street_pair(64, 128, near=12, far=3)
        loss = RecipeLoss(Recipe(stereo_hints=1.0))
        for true, image, other, side in ((d_left, left, right, -1), (d_right, right, left, +1)):
            hint = true.clone()
            hint[..., :32, :] = 0  # no hint there
            wrong = (true * 1.5).requires_grad_()
            apart = loss.from_hint(hint, wrong, image, other, side)
            apart.backward()
            assert (wrong.grad[..., :32, :] == 0).all()
            pulled = wrong.grad[..., 32:, :] > 0  # towards the smaller, which is the true one
            assert float(pulled.float().mean()) > 0.8 and (wrong.grad >= 0).all()
            assert float(apart.detach()) == pytest.approx(np.log(1.5) * float(pulled.float().mean()) / 2, rel=1e-4)
            assert float(loss.from_hint(1.5 * hint, true, image, other, side)) < 0.1 * float(apart.detach())

    def test_without_opencv_the_way_out_is_said(self, monkeypatch):
        monkeypatch.setattr(recipes.importlib.util, "find_spec", lambda _: None)
        RecipeLoss(Recipe())
        with pytest.raises(ValueError, match="stereo_hints needs OpenCV: pip install"):
            RecipeLoss(Recipe(stereo_hints=0.5))

    def test_a_weight_that_reaches_the_total(self):
        left, right, d_left, d_right = street_pair(64, 128, near=12, far=3)
        maps = [F.avg_pool2d(1.5 * torch.cat([d_left, d_right], 1), 2**scale) for scale in range(4)]
        without, one, two = (parts_of(maps, left, right, stereo_hints=weight) for weight in (0.0, 1.0, 2.0))
        assert "hints" not in without and one["hints"] > 0.5 and two["hints"] == pytest.approx(2 * one["hints"])
        for found in (one, two):
            assert found["total"] == pytest.approx(without["total"] + found["hints"])
        loss, (d_l, d_r), views = RecipeLoss(Recipe()), maps[0].split(1, 1), recipes.stereo_hints(left, right)
        expected = loss.from_hint(views[0], d_l, left, right, -1) + loss.from_hint(views[1], d_r, right, left, +1)
        largest = parts_of(maps, left, right, stereo_hints=1.0, maps=(0,))
        assert largest["hints"] == pytest.approx(float(expected))


class TestNetwork:
    @pytest.mark.parametrize("start", [0.03, 0.15])
    def test_start_with_and_without_head_batch_norm(self, start):
        for normed in (False, True):
            model = make_model(Recipe(width=2, start=start, head_batch_norm=normed), False, 0).train()
            with torch.no_grad():
                said = [float(both.median()) for both in model(torch.rand(2, 3, 32, 96))]
            assert said == pytest.approx([start] * 4, rel=0.25), normed
            norms = [m for head in recipes.heads(model) for m in head.modules() if isinstance(m, nn.BatchNorm2d)]
            assert len(norms) == (4 if normed else 0)

    def test_head_batch_norm_goes_into_the_librarys_network(self):
        model = make_model(Recipe(width=2, head_batch_norm=True), False, 0)
        with torch.no_grad():
            for head in recipes.heads(model):
                for values in (head.conv[1].running_var, head.conv[1].running_mean, head.conv[1].weight):
                    values.uniform_(0.001, 0.01)
            images = torch.rand(2, 3, 32, 96)
            before = model.eval()(images)
            plain = recipes.without_head_batch_norm(model)
            fresh = networks.get_model("unet", base_channels=2).eval()
            fresh.load_state_dict(plain.state_dict())
            for a, b in zip(before, fresh(images), strict=True):
                assert float(a.std()) > 1e-5 and torch.allclose(a, b, atol=1e-7)

    def test_init_begins_from_weights(self, tmp_path, tiny):
        networks.save_model(tiny(seed=5), tmp_path / "w.safetensors", (32, 96))
        model = make_model(Recipe(width=2, init=str(tmp_path / "w.safetensors")), True, 0)
        both = zip(model.parameters(), tiny(seed=5).parameters(), strict=True)
        assert model.grey and all(torch.equal(a, b) for a, b in both)
        with pytest.raises(ValueError, match=r"init .*is not of unet"):
            make_model(Recipe(width=4, init=str(tmp_path / "w.safetensors")), True, 0)


def ramps(count=6, size=(48, 144), shift=5.0):
    """Views whose channels are column, row and number of the pair; the right one shows the column 5 px further on."""
    rows, columns = torch.meshgrid(torch.arange(float(size[0])), torch.arange(float(size[1])), indexing="ij")
    left = torch.stack([torch.stack([columns, rows, torch.full(size, float(n))]) for n in range(count)])
    right = left + torch.tensor([shift, 0, 0]).view(1, 3, 1, 1)
    return {"left_image": left, "right_image": right}


class TestBatch:
    def test_a_zoomed_pair_stays_rectified(self):
        batch = recipes.zoom_and_resize(ramps(count=40), (32, 96), 0.65, np.random.default_rng(0))
        left, right = batch["left_image"], batch["right_image"]
        inner = slice(3, -3)  # at a crop's border the resize has half a window
        assert torch.allclose((right - left)[..., inner, inner], torch.tensor([5.0, 0, 0]).view(1, 3, 1, 1), atol=1e-3)
        wide = (left[:, 0, 10, -4] - left[:, 0, 10, 3]) / 89  # px of the stored picture to one of the new
        high = (left[:, 1, -4, 10] - left[:, 1, 3, 10]) / 25
        assert torch.allclose(wide, high, rtol=0.04)  # whole rows and columns are cropped
        whole = wide > 1.499
        assert 0.1 < float(whole.float().mean()) < 0.6  # three of ten
        assert float(wide.min()) < 1.1 and float(wide.min()) > 0.95 and len(wide.unique()) > 15

    def test_without_zoom_pictures_are_as_they_were(self):
        batch = ramps()
        assert recipes.zoom_and_resize(batch, (48, 144), 1.0, np.random.default_rng(0)) is batch
        smaller = recipes.zoom_and_resize(batch, (24, 72), 1.0, np.random.default_rng(0))
        expected = F.interpolate(batch["left_image"], (24, 72), mode="bilinear", antialias=True)
        assert torch.allclose(smaller["left_image"], expected)

    def test_a_grafted_pair_keeps_its_disparity(self):
        views = [shifted_pair(32, 96, 4, seed) for seed in range(5)]
        batch = dict(zip(("left_image", "right_image"), map(torch.cat, zip(*views, strict=True)), strict=True))
        grafted = recipes.graft(batch, 1.0, np.random.default_rng(1))
        left, right = grafted["left_image"], grafted["right_image"]
        assert torch.equal(left[..., 4:], right[..., :-4])  # what left has at x, right has at x - 4
        sources = []
        for picture in left:  # which pair each row is of
            sources.append(
                [[torch.equal(picture[:, y], whole[:, y]) for whole in batch["left_image"]] for y in range(32)]
            )
        found = np.array(sources).argmax(2)
        assert (np.array(sources).sum(2) == 1).all()
        assert (found[:, 0] == np.arange(5)).all() and (found[:, -1] != np.arange(5)).all()
        assert ((found[:, 1:] != found[:, :-1]).sum(1) == 1).all() and sorted(found[:, -1]) == [0, 1, 2, 3, 4]
        assert recipes.graft(batch, 0.0, np.random.default_rng(1)) is batch
        drawn = [recipes.graft(batch, 0.3, np.random.default_rng(seed)) is batch for seed in range(200)]
        assert 120 < sum(drawn) < 160

    def test_erase_puts_boxes_of_the_mean(self):
        images = torch.rand(30, 3, 32, 96)
        before = images.clone()
        erased = recipes.disturb(images, Recipe(erase=0.5), np.random.default_rng(0))
        assert torch.equal(images, before)
        changed = (erased != images).all(1)
        hit = changed.flatten(1).any(1)
        assert 8 < int(hit.sum()) < 22 and (changed.float().mean((1, 2))[hit] < 0.15).all()
        for picture, box, original in zip(erased, changed, images, strict=True):
            if box.any():
                assert abs(float(picture[:, box].mean() - original.mean())) < 0.02
                assert len(picture[:, box].unique()) <= 3

    def test_disturb_changes_contrast_noise_and_sharpness(self):
        images = torch.cat([texture(32, 96, seed) for seed in range(40)])
        assert torch.equal(recipes.disturb(images, Recipe(), np.random.default_rng(0)), images)
        disturbed = recipes.disturb(images, Recipe(disturb=0.6), np.random.default_rng(0))
        same = (disturbed == images).flatten(1).all(1).float().mean()
        assert 0.1 < float(same) < 0.4  # 0.4 · 0.7 · 0.8
        assert (disturbed - images).abs().max() < 0.8 and torch.isfinite(disturbed).all()

    def test_flip_and_colours_can_be_switched_off(self, data_dir, tmp_path):
        def batch(**switches):
            recipe = Recipe(width=2, size=(32, 96), batch_size=9, **switches)
            dataset = pictures(data_dir, tmp_path).training(recipe, 0)
            whole = dataset.__getitems__(list(range(9)))
            return whole["left_image"], whole["right_image"], torch.from_numpy(np.array(dataset.pictures)) / 255

        left, right, stored = batch(flip=False, colours=False)
        plain_left, plain_right = stored.permute(1, 0, 4, 2, 3)
        assert torch.equal(left, plain_left) and torch.equal(right, plain_right)
        left, right, _ = batch(flip=True, colours=False)
        mirrored = [torch.equal(left[n], plain_right[n].flip(-1)) for n in range(9)]
        assert mirrored == [torch.equal(right[n], plain_left[n].flip(-1)) for n in range(9)]
        assert 0 < sum(mirrored) < 9 == sum(mirrored) + sum(torch.equal(left[n], plain_left[n]) for n in range(9))
        left, _, _ = batch(flip=False, colours=True)
        assert 0 < sum(torch.equal(left[n], plain_left[n]) for n in range(9)) < 9

    def test_some_drives_are_drawn_twice_as_often(self, data_dir, tmp_path):
        share = {}
        for name in ("", "2020_01_01_drive_0002"):  # 4 of 9 pairs
            recipe = Recipe(size=(32, 96), batch_size=1, draw_twice=name)
            dataset, course = (
                pictures(data_dir, tmp_path).training(recipe, 0),
                run.Course(recipe, nn.Identity(), 1, 400),
            )
            drawn = [run.make_batch(dataset, recipe, course, np.random.default_rng(step)) for step in range(400)]
            share[name] = sum("drive_0002" in batch["name"][0] for batch in drawn) / 400
        assert abs(share[""] - 4 / 9) < 0.07 and abs(share["2020_01_01_drive_0002"] - 8 / 13) < 0.07

    def test_a_third_of_the_pairs_drawn_come_from_the_further_folder(self, data_dir, tmp_path):
        make_drive(tmp_path / "elsewhere/train/2020_02_02_drive_0001", range(3))
        (tmp_path / "more").symlink_to(tmp_path / "elsewhere")
        recipe = Recipe(size=(32, 96), batch_size=2, draw_twice="2020_01_01_drive_0002", also=str(tmp_path / "more"))
        dataset, course = pictures(data_dir, tmp_path).training(recipe, 0), run.Course(recipe, nn.Identity(), 1, 300)
        assert len(dataset.pairs) == 9 + 3
        names = [
            n for s in range(300) for n in run.make_batch(dataset, recipe, course, np.random.default_rng(s))["name"]
        ]
        assert abs(sum("2020_02_02" in name for name in names) / 600 - 1 / 3) < 0.06
        assert sum("drive_0002" in name for name in names) > sum("2020_01_01_drive_0001" in name for name in names)

    def test_every_step_draws_anew(self, data_dir, tmp_path):
        """A pair is mirrored in one step and not in another; the same step draws the same again."""
        recipe = Recipe(size=(32, 96), batch_size=9, colours=False)
        dataset, course, seen = (
            pictures(data_dir, tmp_path).training(recipe, 0),
            run.Course(recipe, nn.Identity(), 1, 9),
            [],
        )
        for course.steps in (0, 1, 2, 0):
            batch = run.make_batch(dataset, recipe, course, np.random.default_rng(0))  # the same order of the pairs
            seen.append(batch["left_image"])
        assert torch.equal(seen[0], seen[3]) and not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])

    def test_the_first_share_of_a_run_sees_smaller_pictures(self, data_dir, tmp_path):
        recipe = Recipe(size=(64, 192), batch_size=2, small_until=0.5, zoom=0.65)
        dataset, course = pictures(data_dir, tmp_path).training(recipe, 0), run.Course(recipe, nn.Identity(), 1, 4)
        sizes = []
        for course.steps in range(4):
            batch = run.make_batch(dataset, recipe, course, np.random.default_rng(0))
            sizes.append(tuple(batch["left_image"].shape[-2:]))
        assert sizes == [(64, 160), (64, 160), (64, 192), (64, 192)]
        assert recipe.stored_size == (96, 288) == dataset.pictures.shape[2:4]

    def test_it_is_measured_at_the_size_of_its_pictures(self, data_dir, tmp_path, monkeypatch):
        """At another one than it learns from, a network looks worse than it is."""
        sizes = []
        monkeypatch.setattr(run, "measure", lambda model, recipe, _: sizes.append(recipe.size) or {})
        recipe = Recipe(width=2, size=(64, 192), batch_size=2, small_until=0.5)
        run.train("r", recipe, pictures(data_dir, tmp_path), tmp_path / "out", steps=4, every=1, log=lambda _: None)
        assert sizes == [(64, 160), (64, 192), (64, 192), (64, 192)]


class TestCourse:
    def test_learning_rate(self):
        course = run.Course(Recipe(), nn.Identity(), 1, 100)
        assert [course.factor() for course.steps in (0, 59, 60, 79, 80, 99)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
        course = run.Course(Recipe(schedule="cosine", warm_up=4), nn.Identity(), 1, 100)
        expected = [0.25, 0.5, 1 / 2 + 1 / 400, 1 / 200]
        assert [course.factor() for course.steps in (0, 1, 50, 100)] == pytest.approx(expected, abs=1e-3)

    def test_time_is_the_processors_between_batch_and_step(self, monkeypatch):
        now = [0.0]
        monkeypatch.setattr(run.time, "process_time", lambda: now[0])
        monkeypatch.setattr(run.torch, "get_num_threads", lambda: 2)
        course = run.Course(Recipe(), nn.Identity(), 1.0, None)
        for _ in range(6):
            now[0] += 1000  # measuring
            course.start_clock()
            now[0] += 10
            course.step()
        assert course.seconds == 30 and course.share == 0.5

    def test_waiting_threads_cost_no_time(self):
        """They sleep, which must be said before torch is imported."""
        code = "import experiments, os, sys; print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert done.stdout.split() == ["False", "PASSIVE"], done.stderr

    def test_average_of_the_weights(self):
        model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
        course = run.Course(Recipe(ema=0.9), model, 1, 100)
        slow = model[0].weight.item()
        for step in range(1, 200):
            nn.init.constant_(model[0].weight, step)
            model[1].num_batches_tracked.fill_(step)
            course.step()
            keep = min(0.9, (step + 1) / (step + 10))
            slow = keep * slow + (1 - keep) * step
        assert course.average[0].weight.item() == pytest.approx(slow, rel=1e-5)
        assert slow < 195 and course.average[1].num_batches_tracked == 199

    def test_weight_decay_is_of_kernels_alone_and_gradients_are_clipped(self):
        model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
        nn.init.ones_(model[0].weight), nn.init.ones_(model[0].bias)
        optimizer = run.make_optimizer(Recipe(learning_rate=0.1, weight_decay=0.5, clip=1.0), model)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        assert model[0].weight.item() == pytest.approx(0.95) and model[0].bias.item() == 1
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 10.0)
        optimizer.step()
        assert nn.utils.get_total_norm([p.grad for p in model.parameters()]) == pytest.approx(1, rel=1e-4)
        before = model[0].weight.item()
        model[0].weight.grad.fill_(float("nan"))
        optimizer.step()  # left out
        assert model[0].weight.item() == before


def pictures(data_dir, tmp_path, **options):
    return run.Pictures(str(data_dir), "colour", cache_dir=str(tmp_path / "cache"), **options)


def weights(folder):
    return networks.load_model(folder / "weights.safetensors").state_dict()


class TestRun:
    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch):
        monkeypatch.setattr(run, "JUDGED_SIZE", (32, 96))

    @pytest.mark.parametrize("every", [0, 3])
    def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(self, data_dir, tmp_path, monkeypatch, every):
        """Killed within a step, twice, with every random choice and the average of the weights switched on."""
        options = dict(seed=3, steps=7, every=every, log=lambda _: None)
        whole = run.train("all", EVERYTHING, pictures(data_dir, tmp_path), tmp_path / "whole", **options)
        make = run.make_batch
        for kill_at in (2, 5):

            def killed(dataset, recipe, course, rng, kill_at=kill_at):
                if course.steps == kill_at:
                    raise KeyboardInterrupt
                return make(dataset, recipe, course, rng)

            monkeypatch.setattr(run, "make_batch", killed)
            with pytest.raises(KeyboardInterrupt):
                run.train("all", EVERYTHING, pictures(data_dir, tmp_path), tmp_path / "cut", save_minutes=0, **options)
            assert (tmp_path / "cut/last.pt").is_file() and not (tmp_path / "cut/result.json").exists()
        monkeypatch.setattr(run, "make_batch", make)
        torch.manual_seed(99)
        cut = run.train("all", EVERYTHING, pictures(data_dir, tmp_path), tmp_path / "cut", save_minutes=0, **options)
        first, second = weights(tmp_path / "whole"), weights(tmp_path / "cut")
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert not torch.equal(
            first["decoder.heads.3.conv.weight"], make_model(TINY, False, 3).decoder.heads[3].conv.weight
        )
        for key in ("val_loss", "plain", "pp", "trained_steps"):
            assert whole[key] == cut[key]
        assert [row["step"] for row in cut["history"]] == [row["step"] for row in whole["history"]] == [3, 6][:every]
        assert not list((tmp_path / "cut").glob("*.pt"))

    def test_a_measurement_during_which_the_run_was_killed_is_made_again(self, data_dir, tmp_path, monkeypatch):
        where, measure = (pictures(data_dir, tmp_path), tmp_path / "run"), run.measure

        def killed(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(run, "measure", killed)
        with pytest.raises(KeyboardInterrupt):
            run.train("base", TINY, *where, steps=5, every=2, log=lambda _: None)
        monkeypatch.setattr(run, "measure", measure)
        result = run.train("base", TINY, *where, steps=5, every=2, log=lambda _: None)
        whole = run.train("base", TINY, where[0], tmp_path / "whole", steps=5, every=2, log=lambda _: None)
        for key in ("step", "train_loss", "val_loss"):
            assert [row[key] for row in result["history"]] == [row[key] for row in whole["history"]]
        assert [row["step"] for row in result["history"]] == [2, 4]

    def test_a_run_on_other_drives_is_another(self, data_dir, tmp_path):
        run.train("base", TINY, pictures(data_dir, tmp_path, test_drives="none"), tmp_path, steps=1, log=lambda _: None)
        with pytest.raises(
            ValueError, match=r"another run, test_drives \[\] \(here \['2020_01_01_drive_0004_sync'\]\)"
        ):
            run.train("base", TINY, pictures(data_dir, tmp_path), tmp_path, steps=1)

    def test_weights_know_what_they_were_chosen_on(self, data_dir, tmp_path):
        run.train("base", TINY, pictures(data_dir, tmp_path), tmp_path, steps=1, log=lambda _: None)
        notes = networks.load_model(tmp_path / "weights.safetensors").notes
        assert notes["val_drives"] == ["2020_01_01_drive_0003_sync", "2020_01_01_drive_0004_sync"]

    def test_a_run_ends_when_its_time_is_over(self, data_dir, tmp_path, monkeypatch):
        clock = iter(range(0, 10_000, 10))  # each look at it is 10 s later: between a step's two looks
        monkeypatch.setattr(run.time, "process_time", lambda: next(clock))
        monkeypatch.setattr(run.torch, "get_num_threads", lambda: 1)
        result = run.train("base", TINY, pictures(data_dir, tmp_path), tmp_path / "run", minutes=1, log=lambda _: None)
        assert result["trained_steps"] == 6 and result["trained_minutes"] == 1 and result["machine"]["threads"] == 1

    def test_a_finished_run_is_skipped_and_another_refused(self, data_dir, tmp_path, monkeypatch):
        where = pictures(data_dir, tmp_path), tmp_path / "run"
        first = run.train("base", TINY, *where, steps=1, log=lambda _: None)
        monkeypatch.setattr(run, "make_model", lambda *_: pytest.fail("it was trained again"))
        said = []
        assert run.train("base", TINY, *where, steps=1, log=said.append) == first and "finished before" in said[0]
        with pytest.raises(ValueError, match=r"result.json is of another run, steps 1 \(here 2\): remove its folder"):
            run.train("base", TINY, *where, steps=2)
        with pytest.raises(ValueError, match=r"another run, zoom 1.0 \(here 0.5\)"):
            run.train("base", recipes.replace(TINY, zoom=0.5), *where, steps=1)

    @pytest.mark.parametrize("switches", [{}, {"disturb": 1.0, "erase": 1.0}])
    def test_results_are_those_of_the_weights(self, data_dir, tmp_path, switches):
        """Measured again with the library: loss, and depth with and without post-processing. Nothing is disturbed."""
        where, recipe = pictures(data_dir, tmp_path), recipes.replace(TINY, **switches)
        result = run.train("base", recipe, where, tmp_path / "run", steps=2, log=lambda _: None)
        model = networks.load_model(tmp_path / "run/weights.safetensors")
        loader = where.loader("val", (32, 96))
        assert result["val_loss"] == pytest.approx(
            training.validate(model, loader, losses.MonodepthLoss(), run.CPU)["loss"]
        )
        pairs = kitti.select_pairs(data_dir, "test")
        for name, post_processed in (("plain", False), ("pp", True)):
            disparities = testing.predict_each(model, where.loader("test", (32, 96)), "cpu", post_processed)
            rows = testing.score(pairs, disparities)
            for key in depth.METRICS:
                assert result[name][key] == pytest.approx(np.mean([row[key] for row in rows]), rel=1e-4), (name, key)
        assert result["spread"]["abs_rel"] == pytest.approx(np.std([row["abs_rel"] for row in rows]), rel=1e-3)
        assert result["images"] == len(rows) == 5 and result["plain"] != result["pp"]

    def test_the_running_average_is_the_answer(self, data_dir, tmp_path):
        """After one step it is 2/11 of the fresh weights and 9/11 of the trained ones, which `ema` does not change."""
        fresh, kept = make_model(TINY, False, 0).state_dict(), []
        for ema in (0.0, 0.9):
            where = pictures(data_dir, tmp_path), tmp_path / f"{ema}"
            run.train("row", recipes.replace(TINY, ema=ema), *where, steps=1, log=lambda _: None)
            kept.append(weights(where[1]))
        name = "encoder.stages.0.0.0.weight"
        assert torch.allclose(kept[1][name], 2 / 11 * fresh[name] + 9 / 11 * kept[0][name], atol=1e-6)
        assert not torch.allclose(kept[1][name], kept[0][name], atol=1e-6)

    def test_the_loss_is_judged_at_one_size_for_all(self, data_dir, tmp_path):
        """A network that says the same everywhere has one loss, whatever the size of what it sees."""

        class Flat(nn.Module):
            def forward(self, images):
                return [torch.full((len(images), 2, *images[0, 0, :: 2**s, :: 2**s].shape), 0.04) for s in range(4)]

        where = pictures(data_dir, tmp_path)
        judged = where.loader("val", (32, 96))
        small, same = (run.standard_loss(Flat(), where.loader("val", size), judged) for size in ((16, 48), (32, 96)))
        assert small == pytest.approx(same, rel=1e-6)

    def test_sides_may_be_left_out(self, data_dir, tmp_path):
        where = pictures(data_dir, tmp_path, val_drives="none", test_drives="none")
        result = run.train("base", TINY, where, tmp_path / "run", steps=1, log=lambda _: None)
        assert not {"val_loss", "pp", "plain"} & set(result)

    def test_a_loss_that_is_not_finite_names_the_step(self, data_dir, tmp_path):
        wild = recipes.replace(TINY, learning_rate=1e30)
        with pytest.raises(FloatingPointError, match=r"wild, step \d+: .*not finite; lower learning_rate or set clip"):
            run.train("wild", wild, pictures(data_dir, tmp_path), tmp_path / "run", steps=9, log=lambda _: None)


class TestPictures:
    def test_stereo_2012_is_the_test_side_where_there_is_one(self, data_dir, tmp_path):
        make_drive(tmp_path / "stereo_2012", [1])
        assert pictures(tmp_path, tmp_path).drives("test") == "stereo_2012"
        assert pictures(data_dir, tmp_path).drives("test") is None
        assert pictures(tmp_path, tmp_path, test_drives="none").drives("test") == "none"

    def test_stereo_2015_and_a_drive_on_two_sides_are_refused(self, tmp_path):
        for side in ("train", "vals", "stereo_2015"):
            make_drive(tmp_path / side if side == "stereo_2015" else tmp_path / side / f"{side}_sync", [1])
        with pytest.raises(ValueError, match="stereo_2015 is for finished models"):
            pictures(tmp_path, tmp_path, test_drives="stereo_2015").training(TINY, 0)
        with pytest.raises(ValueError, match="train_sync would be in train and held out"):
            pictures(tmp_path, tmp_path, test_drives="train_sync").training(TINY, 0)
        (tmp_path / "training/disp_occ_0").mkdir(parents=True)  # as KITTI's archive names the folder of stereo 2015
        make_drive(tmp_path / "training", [2])
        with pytest.raises(ValueError, match="stereo_2015 is for finished models"):
            pictures(tmp_path, tmp_path, test_drives="training").training(TINY, 0)
        assert not (tmp_path / "cache").exists()  # not a picture was read


def write_sweep(path, text):
    path.write_text("[base]\nwidth = 2\nsize = [32, 96]\nbatch_size = 4\n" + text)
    return path


class TestSweepFile:
    def test_rows_differ_by_what_they_say(self, tmp_path):
        text = '[rows.one]\nflip = false\nzoom = 1\n[rows.two]\nlike = "one"\nstart = 0.1\n'
        rows = sweep.read_rows(write_sweep(tmp_path / "s.toml", text))
        assert list(rows) == ["base", "one", "two"] and rows["base"].recipe == TINY
        assert (rows["one"].differs, rows["one"].like) == ("flip off", "base")
        assert (rows["two"].differs, rows["two"].like) == ("start 0.1", "one")
        assert rows["two"].recipe == recipes.replace(TINY, flip=False, start=0.1)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[rows.a]\nzooom = 0.5\n", "row a: no switch is named 'zooom'; there are network"),
            ('[rows.a]\nzoom = "x"\n', "row a: zoom is 'x'; it must be of type float"),
            ("[rows.a]\nwidth = 2.5\n", "row a: width is 2.5; it must be of type int"),
            ("[rows.a]\nflip = 1\n", "row a: flip is 1; it must be of type bool"),
            ("[rows.a]\nsize = [32, 96.0]\n", "row a: size is .*; it must be of type tuple"),
            ("[rows.a]\nsize = [128]\n", r"row a: size is \(128,\); it must be height and width, both at least 32"),
            ("[rows.a]\nzoom = 1.5\n", "row a: zoom is 1.5; it must be above 0 and at most 1"),
            ("[rows.a]\nmaps = [4]\n", "row a: maps is"),
            ('[rows.a]\njudged = "half"\n', "row a: judged is 'half'; it must be one of own, twice, full"),
            ('[rows.a]\nlike = "b"\n', "row a: there is no row 'b' above it"),
            ('[rows."../a"]\nzoom = 0.5\n', "a row cannot be named '../a'"),
            ("[rows.a]\nzoom = 0.5\n[hours.a]\nzoom = 0.6\n", "a row cannot be named 'a'; .*none twice"),
            ("[row.a]\nzoom = 0.5\n", "s.toml has row; a sweep has"),
            ("[rows.a\n", "s.toml is no TOML"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path, text, message):
        with pytest.raises(ValueError, match=message):
            sweep.read_rows(write_sweep(tmp_path / "s.toml", text))

    def test_a_sweep_of_minutes_leaves_out_rows_of_hours(self, tmp_path):
        text = '[rows.one]\nflip = false\n[hours.long]\nlike = "one"\nzoom = 0.5\n'
        rows = sweep.read_rows(write_sweep(tmp_path / "s.toml", text))
        assert [row.name for row in sweep.pick(rows, "")] == ["base", "one"]
        assert [row.name for row in sweep.pick(rows, "long,one")] == ["long", "one"]
        assert rows["long"].recipe == recipes.replace(TINY, flip=False, zoom=0.5)

    def test_a_misspelt_row_is_named(self, tmp_path, capsys):
        path = write_sweep(tmp_path / "s.toml", "[rows.a]\nflip = false\n")
        for arguments in (["train", "aa"], ["sweep", "--rows", "base,aa"]):
            assert command.main([*arguments, "--sweep", str(path)]) == 2
            assert "no row is named aa; there are base, a" in capsys.readouterr().err

    def test_the_committed_sweep(self):
        """It holds the lab's recipe and everything at once; every row differs from the one it is like."""
        rows = sweep.read_rows(ROOT / "experiments/sweep.toml")
        assert rows["base"].recipe == Recipe()  # unet 16, 128x416, start .03, border, Adam 5e-4 halved twice
        lab = Recipe(
            network="resnet18_md",
            start=0.15,
            zero_padding=True,
            unaligned=True,
            head_batch_norm=True,
            learning_rate=1e-4,
        )
        assert rows["lab"].recipe == lab
        assert rows["everything"].recipe.network == "unet_light" and rows["everything"].recipe.ema == 0.999
        assert all(row.differs for row in rows.values() if row.name != "base")
        assert len({row.recipe for row in rows.values()}) == len(rows)
        for network, width in {(row.recipe.network, row.recipe.width) for row in rows.values()}:
            maps = networks.get_model(network, base_channels=width).eval()(torch.rand(1, 3, 64, 96))
            assert [tuple(both.shape[-2:]) for both in maps] == [(64, 96), (32, 48), (16, 24), (8, 12)], network


class TestCommand:
    def test_a_sweep_runs_what_is_missing(self, data_dir, tmp_path, capsys, monkeypatch):
        """Two runs at a time, one of which fails; then the finished one is asked for again."""
        path = write_sweep(tmp_path / "s.toml", '[rows.lost]\ninit = "nowhere.safetensors"\n')
        base = ["--data", str(data_dir), "--cameras", "colour", "--sweep", str(path), "--output", str(tmp_path / "out")]
        base += ["--cache-dir", str(tmp_path / "cache"), "--page", str(tmp_path / "R.md"), "--threads", "1"]
        asked = ["sweep", *base, "--steps", "2", "--seeds", "0"]
        assert command.main([*asked, "--jobs", "2"]) == 1
        said = capsys.readouterr()
        assert "lost, seed 0 FAILED" in said.out and "nowhere.safetensors is missing" in said.out
        assert "failed: lost, seed 0" in said.err and "base, seed 0: 2 steps" in said.out
        page = (tmp_path / "R.md").read_text()
        result = json.loads((tmp_path / "out/base/seed0/result.json").read_text())
        assert f"| {result['pp']['abs_rel']:.3f}<br>{result['plain']['abs_rel']:.3f} |" in page
        assert "Without a finished run: lost." in page and (tmp_path / "R.png").stat().st_size > 5000
        monkeypatch.setattr(sweep.subprocess, "Popen", lambda *_, **__: pytest.fail("it was run again"))
        assert command.main([*asked, "--rows", "base"]) == 0
        assert "base, seed 0: finished before" in capsys.readouterr().out
        assert command.main([*asked[:-4], "--steps", "3", "--rows", "base"]) == 2
        assert "result.json is of another run, steps 2 (here 3)" in capsys.readouterr().err

    def test_ctrl_c_ends_what_runs(self, tmp_path, monkeypatch):
        started = []

        def start(*_, **__):
            started.append(popen(["sleep", "10"]))
            return started[-1]

        def press(_):
            raise KeyboardInterrupt

        popen = subprocess.Popen
        monkeypatch.setattr(sweep.subprocess, "Popen", start)
        monkeypatch.setattr(sweep.time, "sleep", press)
        with pytest.raises(KeyboardInterrupt):
            sweep.run_all({("a", 0): [], ("b", 0): [], ("c", 0): []}, tmp_path, jobs=2)
        assert len(started) == 2 and [process.poll() for process in started] == [-signal.SIGTERM] * 2

    def test_ctrl_c_is_said(self, data_dir, tmp_path, monkeypatch, capsys):
        def press(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(command.run, "train", press)
        assert command.main(["train", "base", "--data", str(data_dir), "--output", str(tmp_path)]) == 130
        assert "goes on from the last checkpoints" in capsys.readouterr().err

    def test_two_runs_cannot_share_a_folder(self, data_dir, tmp_path, capsys):
        with files.locked(tmp_path):
            assert command.main(["train", "base", "--data", str(data_dir), "--output", str(tmp_path)]) == 2
        assert "is in use by another run" in capsys.readouterr().err

    def test_train_logs_on_the_way(self, data_dir, tmp_path, capsys):
        path = write_sweep(tmp_path / "s.toml", "")
        options = ["--data", str(data_dir), "--cameras", "colour", "--sweep", str(path), "--steps", "4", "--every", "2"]
        options += ["--cache-dir", str(tmp_path / "cache"), "--output", str(tmp_path / "out"), "--threads", "1"]
        assert command.main(["train", "base", *options]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("step", "base"))]
        assert len(lines) == 2 and lines[0].startswith("step      2") and "Abs Rel" in lines[0] and "loss" in lines[0]

    @pytest.mark.parametrize("wrong", [["--steps", "0"], ["--minutes", "0"], ["--jobs", "0"]])
    def test_numbers_are_above_0(self, wrong, capsys):
        with pytest.raises(SystemExit):
            command.main(["sweep", *wrong])
        assert "must be above 0" in capsys.readouterr().err


def made_up(folder, row, seed, loss, abs_rel, minutes=10.0):
    """A result as a run writes it."""
    metrics = {key: abs_rel + place / 7 for place, key in enumerate(depth.METRICS)}
    plain = {key: value + 0.01 for key, value in metrics.items()}
    machine = {"processor": "one", "cores": 2, "threads": 1, "torch": "2", "date": "2026-01-01", "commit": "abc1234"}
    result = {
        "row": row.name, "seed": seed, "steps": None, "minutes": minutes, "cameras": "grey", "train_drives": ["d"],
        "pairs": 9, **json.loads(json.dumps(asdict(row.recipe))), "trained_steps": 100 + seed, "parameters": 4_900_000,
        "machine": machine, "val_loss": loss, "plain": plain, "pp": metrics, "spread": {"abs_rel": 0.07}, "images": 49,
        "test_drives": ["stereo_2012"],
    }  # fmt: skip
    path = folder / row.name / f"seed{seed}/result.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(result))


class TestReport:
    @pytest.fixture
    def rows(self, tmp_path):
        names = ["same", "better", "worse", "cheat", "alone", "missing"]
        text = "".join(f"[rows.{name}]\nstart = 0.0{place + 4}\n" for place, name in enumerate(names))
        return sweep.read_rows(write_sweep(tmp_path / "s.toml", text))

    @pytest.fixture
    def results(self, tmp_path, rows):
        figures = {  # loss, Abs Rel of two seeds
            "base": ((1.0, 1.1), (0.20, 0.22)),
            "same": ((1.02, 1.04), (0.22, 0.235)),  # .0175 from the base: more than its own range, less than the base's
            "better": ((0.9, 0.92), (0.17, 0.174)),
            "worse": ((1.5, 1.6), (0.30, 0.31)),
            "cheat": ((0.7, 0.72), (0.40, 0.44)),  # least loss, worst depth
        }
        for name, (losses_, errors) in figures.items():
            for seed in (0, 1):
                made_up(tmp_path / "out", rows[name], seed, losses_[seed], errors[seed])
        made_up(tmp_path / "out", rows["alone"], 0, 1.2, 0.25)
        return tmp_path / "out"

    def test_the_pages_figures_are_those_of_the_results(self, tmp_path, rows, results):
        said = report.write_report(list(rows.values()), results, tmp_path / "R.md", "the command")
        assert said.endswith("6 rows, 11 runs; 1 rows without a run")
        page = (tmp_path / "R.md").read_text()
        assert "commit abc1234" in page
        cells = {}
        for line in page.splitlines():
            if line.startswith("| **"):
                row = [cell.strip() for cell in line.strip("|").split("|")]
                cells[row[0].strip("*")] = row
        assert list(cells) == ["better", "base", "same", "alone", "worse", "cheat"]  # by Abs Rel
        for name, row in cells.items():
            found = [json.loads(path.read_text()) for path in sorted((results / name).glob("*/result.json"))]

            def figure(*keys, found=found):
                values = []
                for result in found:
                    for key in keys:
                        result = result[key]
                    values.append(result)
                half = f" ± {(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
                return f"{sum(values) / len(values):.3f}{half}"

            assert row[5].startswith(figure("val_loss") + " (")
            for place, key in enumerate(("abs_rel", "rmse", "a1", "d1_all")):
                assert row[6 + place] == f"{figure('pp', key)}<br>{figure('plain', key)}"
            assert row[2] == "10" and row[4] == "4.9" and row[10] == "0.070"
        assert [cells[name][5].split("(")[1] for name in ("cheat", "better", "worse")] == ["1)", "2)", "6)"]
        assert cells["better"][1] == "start 0.05"
        assert {name: row[11] for name, row in cells.items()} == {
            "base": "", "same": "no", "better": "**better** by 0.038", "worse": "**worse** by 0.095",
            "cheat": "**worse** by 0.210", "alone": "one seed",
        }  # fmt: skip
        assert "`the command`" in page and "Without a finished run: missing." in page and "same time" not in page
        # cheat crosses all five others; 'same' has less loss than the base
        assert "In 6 of 15 pairs of rows" in page and "cheat (rank 1 by loss, 6 by Abs Rel)" in page

    def test_unequal_time_is_said(self, tmp_path, rows, results):
        made_up(results, rows["missing"], 0, 1.0, 0.2, minutes=20.0)
        report.write_report(list(rows.values()), results, tmp_path / "R.md", "")
        assert "**Rows have not had the same time.**" in (tmp_path / "R.md").read_text()

    def test_the_picture_has_a_named_point_for_every_row(self, rows, results):
        lines = report.read_lines(list(rows.values()), results)
        figure = report.scatter(lines)
        far, near = ({text.get_text(): text.xy for text in axis.texts} for axis in figure.axes)
        assert set(far) | set(near) == {line.row.name for line in lines} and not set(far) & set(near)
        assert far["cheat"] == pytest.approx((0.71, 0.42)) and "base" in near
        report.plt.close(figure)

    def test_a_row_that_has_changed_since_is_refused(self, tmp_path, rows, results):
        changed = [sweep.Row("base", recipes.replace(rows["base"].recipe, zoom=0.5))]
        with pytest.raises(ValueError, match=r"base.seed0.result.json is of another run, zoom 1.0 \(here 0.5\)"):
            report.write_report(changed, results, tmp_path / "R.md", "")

    def test_report_alone_and_without_results(self, tmp_path, rows, results, capsys):
        common = [
            "sweep",
            "--report",
            "--sweep",
            str(tmp_path / "s.toml"),
            "--page",
            str(tmp_path / "R.md"),
            "--output",
        ]
        assert command.main([*common, str(results)]) == 0
        assert "--report" in (tmp_path / "R.md").read_text()
        assert command.main([*common, str(tmp_path / "nothing")]) == 2
        assert "holds no finished run of base, same" in capsys.readouterr().err

    def test_a_switch_that_came_later_stands_where_it_changes_nothing(self, rows, results):
        path = results / "base/seed0/result.json"
        older = json.loads(path.read_text())
        del older["zoom"], older["stereo_hints"]
        path.write_text(json.dumps(older))
        assert run.read_result(path, {"zoom": 1.0})["stereo_hints"] == 0
        with pytest.raises(ValueError, match=r"zoom 1.0 \(here 0.5\)"):
            run.read_result(path, {"zoom": 0.5})


class TestPage:
    """Runs of hours, beside the paper."""

    @pytest.fixture
    def trained(self, data_dir, tmp_path):
        """Two finished runs with a measurement on the way; the second is measured on what ours call stereo_2015."""
        where = pictures(data_dir, tmp_path)
        folders = [tmp_path / "short", tmp_path / "long"]
        for folder, recipe in zip(folders, (TINY, recipes.replace(TINY, zoom=0.7)), strict=True):
            result = run.train(folder.name, recipe, where, folder, steps=2, every=1, log=lambda _: None)
            result["plain"]["abs_rel"] += 0.1  # a fresh network says the same with post-processing as without
            (folder / "result.json").write_text(json.dumps(result))
        weights = str(folders[1] / "weights.safetensors")
        options = ["--weights", weights, "--data", str(data_dir), "--output", str(folders[1] / "stereo_2015")]
        assert testing.main(options) == 0
        return folders

    def test_the_figures_are_those_of_the_runs(self, data_dir, tmp_path, trained):
        options = ["--data", str(data_dir), "--cameras", "colour", "--cache-dir", str(tmp_path / "cache")]
        page = tmp_path / "LONG.md"
        assert command.main(["page", *map(str, trained), *options, "--page", str(page)]) == 0
        text = page.read_text()
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "| **" in line]
        assert [row[0] for row in cells] == ["**short, seed 0**", "**long, seed 0**"]
        assert (cells[0][1], cells[1][1]) == ("width 2, size (32, 96), batch_size 4", cells[0][1] + ", zoom 0.7")
        for folder, row in zip(trained, cells, strict=True):
            result = json.loads((folder / "result.json").read_text())
            assert row[2:5] == [f"{result['trained_minutes'] / 60:.2f}", "2", f"{result['parameters'] / 1e6:.1f}"]
            assert row[5].endswith(f", {result['val_loss']:.3f}")
            expected = [f"{result['pp'][key]:.3f} ± {result['spread'][key]:.3f}" for key in ("abs_rel", "d1_all")]
            assert row[6:8] == expected
        assert cells[0][8:] == ["not measured"] * 2
        found = json.loads((trained[1] / "stereo_2015/metrics.json").read_text())
        mean, spread = found["means"][0], found["standard_deviations"][0]
        assert cells[1][8:] == [f"{mean[key]:.3f} ± {spread[key]:.3f}" for key in ("abs_rel", "d1_all")]
        assert f"`python -m research.experiments page {trained[0]}" in text and "![loss" in text
        assert page.with_suffix(".png").stat().st_size > 5000

    def test_the_loss_is_of_training_pairs_like_those_of_vals(self, data_dir, tmp_path, trained, monkeypatch):
        monkeypatch.setattr(long, "ALIKE", "2020_01_01_drive_0002")
        where = pictures(data_dir, tmp_path)
        found = long.read_run(trained[0], where).train_loss
        loss, model = losses.MonodepthLoss(), networks.load_model(trained[0] / "weights.safetensors")
        own, judged = (
            where.loader("train", size, drives="2020_01_01_drive_0002_sync", augment=False, batch_size=4)
            for size in (TINY.size, run.JUDGED_SIZE)
        )
        (seen,), (batch,) = own, judged  # the four pairs of that drive
        with torch.no_grad():
            maps = model.eval()(seen["left_image"])
        height, width = run.JUDGED_SIZE
        maps = [depth.resize_map(both, (height >> scale, width >> scale)) for scale, both in enumerate(maps)]
        assert found == pytest.approx(float(loss(maps, batch["left_image"], batch["right_image"])[0]), rel=1e-5)

    def test_curves_end_where_the_run_ended(self, data_dir, tmp_path, trained):
        runs = [long.read_run(folder, pictures(data_dir, tmp_path)) for folder in trained]
        figure = long.curves(runs)
        for axis, keys in zip(figure.axes, (("val_loss",), ("pp", "abs_rel"), ("pp", "d1_all")), strict=True):
            for line, one in zip(axis.lines, runs, strict=True):
                (x, y), first, last = line.get_data(), one.result["history"][0], one.result
                assert list(x) == [first["minutes"], last["trained_minutes"]]
                for key in keys:
                    first, last = first[key], last[key]
                assert list(y) == [first, last]
        report.plt.close(figure)

    def test_what_is_shipped_is_shown_where_it_lies(self, data_dir, tmp_path, trained):
        where, page = pictures(data_dir, tmp_path), tmp_path / "experiments/LONG.md"
        page.parent.mkdir()
        for there in (False, True):
            long.write_long(trained, where, page, "")
            assert ("![eight disparity maps](../models/unet_kitti.png)" in page.read_text()) == there
            (tmp_path / "models").mkdir(exist_ok=True)
            (tmp_path / "models/unet_kitti.md").touch()

    def test_an_unfinished_run_is_named(self, data_dir, tmp_path, capsys):
        assert command.main(["page", str(tmp_path / "none"), "--data", str(data_dir)]) == 2
        assert f"{tmp_path / 'none'} holds no finished run" in capsys.readouterr().err
