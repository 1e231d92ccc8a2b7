"""Research: every switch does what it says, runs survive a kill, and a page says what the results say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from synthetic import make_drive, shifted_pair, street_pair, texture
from torch import nn

from monodepth_lib import checkpoints, depth, files, kitti, losses, networks, stereo, testing
from monodepth_lib.fast import faster_training
from research import __main__ as command
from research import batch as batches
from research import gap, hints, report, train
from research import loss as recipe_loss
from research import recipe as recipes
from research.batch import Pairs, Pictures
from research.loss import RecipeLoss
from research.recipe import Recipe, Row, make_model, replace
from research.train import Budget, Course

ROOT = Path(__file__).resolve().parent.parent

TINY = Recipe(base_channels=2, size=(32, 96), batch_size=4)
EVERYTHING = Recipe(
    base_channels=2, size=(32, 96), batch_size=4, head_batch_norm=True, zero_padding=True, full_scale=True, zoom=0.65,
    mean_normalised=True, graft=0.5, merge=0.5, erase=0.5, disturb=0.6, often=2.0, pairs=7, schedule="cosine",
    warm_up=3, weight_decay=0.02, clip=1.0, ema=0.9, encoder_rate=0.5, calm_from=0.5, fixed_from=0.7,
)  # fmt: skip
needs_opencv = pytest.mark.skipif(not stereo.has_opencv(), reason="the extra sgm is not installed")


def random_maps(size=(32, 96), count=2, seed=0):
    """Disparities of four scales, some of which point beyond the border, and random views."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(count, 2, size[0] >> s, size[1] >> s) for s in range(4)]
    maps = [(0.2 * torch.rand(shape, generator=generator)).requires_grad_() for shape in shapes]
    return maps, *(torch.cat([texture(*size, seed=seed + 10 * v + i) for i in range(count)]) for v in (1, 2))


def parts_of(disparities, left, right, hint=None, share=0.0, **switches):
    """The loss and its parts, as numbers."""
    total, parts = RecipeLoss(Recipe(**switches))(disparities, left, right, hint, share)
    return {"total": float(total.detach()), **{name: float(value) for name, value in parts.items()}}


def pictures(data_dir, tmp_path, **options):
    return Pictures(data_dir, "colour", cache_dir=tmp_path / "cache", **options)


class TestWarp:
    def test_without_switches_it_is_the_librarys(self):
        maps, left, _ = random_maps()
        assert torch.equal(recipe_loss.warp(left, -maps[0][:, :1]), losses.warp(left, -maps[0][:, :1]))

    @pytest.mark.parametrize("side", [-1, 1])
    def test_zero_padding_differs_only_where_it_samples_outside(self, side):
        maps, left, _ = random_maps()
        image, disparity = left + 0.5, side * maps[0][:, :1].detach()  # never black itself
        border, zeros = losses.warp(image, disparity), recipe_loss.warp(image, disparity, zero_padding=True)
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
        warped = recipe_loss.warp(image, torch.zeros(1, 1, height, width), zero_padding, unaligned=True) - image
        inner = warped[..., 1:-1, 1:-1]  # at the border, half a pixel is beyond it
        assert torch.allclose(inner[0, 0, 0], torch.arange(1.0, width - 1) / (width - 1) - 0.5, atol=1e-5)
        assert torch.allclose(inner[0, 1, :, 0], torch.arange(1.0, height - 1) / (height - 1) - 0.5, atol=1e-5)
        assert float(warped[0, 0, 4, -1]) == pytest.approx(-0.5 * (width - 1) if zero_padding else 0, abs=1e-3)


class TestLoss:
    @pytest.mark.parametrize("fast", [False, True])
    def test_without_switches_it_is_the_librarys(self, fast):
        """The very value, parts and gradient, also with the library's tuned twin in it."""
        results = []
        for loss in (RecipeLoss(Recipe()), losses.MonodepthLoss()):
            maps, left, right = random_maps()
            with faster_training(nn.Identity(), loss if fast else nn.Identity()):
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

    def test_full_scale_judges_every_map_at_full_size(self):
        maps, left, right = random_maps()
        appearance = smoothness = consistency = 0.0
        for both in maps:
            d_l, d_r = F.interpolate(both.detach(), (32, 96), mode="bilinear", align_corners=False).split(1, 1)
            appearance += losses.appearance_loss(left, losses.warp(right, -d_l))
            appearance += losses.appearance_loss(right, losses.warp(left, d_r))
            smoothness += 0.1 * (losses.smoothness_loss(d_l, left) + losses.smoothness_loss(d_r, right))
            consistency += losses.consistency_loss(d_l, d_r)
        parts = parts_of(maps, left, right, full_scale=True)
        assert parts["appearance"] == pytest.approx(float(appearance), rel=1e-5)
        assert parts["smoothness"] == pytest.approx(float(smoothness), rel=1e-5)
        assert parts["consistency"] == pytest.approx(float(consistency), rel=1e-5)

    def test_maps_left_out_do_not_count(self):
        maps, left, right = random_maps()
        alone = [parts_of(maps, left, right, maps=(scale,))["total"] for scale in range(4)]
        assert parts_of(maps, left, right, maps=(0, 2, 3))["total"] == pytest.approx(alone[0] + alone[2] + alone[3])

    def test_appearance_weight(self):
        maps, left, right = random_maps()
        whole, part = parts_of(maps, left, right), parts_of(maps, left, right, appearance_weight=0.7)
        assert part["appearance"] == pytest.approx(0.7 * whole["appearance"])
        assert part["smoothness"] == whole["smoothness"]

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

    @pytest.mark.parametrize("switch", ["zero_padding", "unaligned"])
    def test_a_switch_reaches_the_loss(self, switch):
        maps, left, right = random_maps()
        with_it, without = parts_of(maps, left, right, **{switch: True}), parts_of(maps, left, right)
        assert with_it["appearance"] != pytest.approx(without["appearance"], rel=1e-3)


class TestHintLoss:
    def test_a_worked_case(self):
        """A match off by 2, a guess off by 4, and a pixel without a hint, in one row; steps and coarse maps apart."""
        hint = torch.tensor([0.1, -0.1, 0.0]).expand(1, 2, 1, 3)
        disparity = torch.tensor([0.2, 0.4, 0.25]).expand(1, 2, 1, 3)
        loss = RecipeLoss(Recipe(hint_maps=(0.5, 0.0, 0.0, 0.0), hint_guess=0.3, hint_steps=0.0))
        expected = 0.5 * (np.log(2) + 0.3 * np.log(4)) / 1.3
        assert float(loss.from_hints([disparity] * 4, hint)) == pytest.approx(expected, rel=1e-5)

    def test_steps_see_a_blurred_outline_and_no_common_factor(self):
        true = torch.full((1, 2, 16, 32), 0.05)
        true[..., 16:] = 0.1
        blurred = true.clone()
        blurred[..., 14:18] = torch.linspace(0.05, 0.1, 4)
        known = torch.ones_like(true)
        twice, soft = (float(recipe_loss.steps(d.log() - true.log(), known)) for d in (2 * true, blurred))
        assert twice == pytest.approx(0, abs=1e-6) and soft > 0.01
        unknown = known.clone()
        unknown[..., 10:22] = 0
        assert float(recipe_loss.steps(blurred.log() - true.log(), unknown)) == pytest.approx(0, abs=1e-6)

    def test_the_weight_moves_with_the_share_of_the_run_and_reaches_the_total(self):
        maps, left, right = random_maps()
        hint = 0.1 * torch.rand(2, 2, 32, 96)
        without = parts_of(maps, left, right)
        start, half, end = (parts_of(maps, left, right, hint, share, hints=(1.0, 0.5)) for share in (0.0, 0.5, 1.0))
        assert "hints" not in without and start["hints"] > 0.5
        assert [half["hints"], end["hints"]] == pytest.approx([0.75 * start["hints"], 0.5 * start["hints"]])
        assert end["total"] == pytest.approx(without["total"] + end["hints"])

    def test_true_hints_cost_nothing(self):
        _, _, d_left, d_right = street_pair(64, 128)
        maps = [hints.sample_hints(torch.cat([d_left, d_right], 1), (64 >> s, 128 >> s)) for s in range(4)]
        assert float(RecipeLoss(Recipe()).from_hints(maps, torch.cat([d_left, d_right], 1))) < 1e-6


class TestHints:
    @needs_opencv
    def test_each_view_has_its_own(self):
        """A wall at 3 px and a box before it at 12."""
        left, right, *truth = street_pair(64, 128, near=12, far=3)
        grey = [(255 * view[0].mean(0)).round().byte().numpy() for view in (left, right)]
        for hint, true in zip(hints.match_both(*grey), truth, strict=True):
            found = hint > 0
            close = np.abs(hint - true[0, 0].numpy())[found] * 128 < 0.5
            assert hint.shape == (64, 128) and found.mean() > 0.5 and close.mean() > 0.95

    def test_both_views_must_agree(self):
        left, right = np.zeros((1, 10), np.float32), np.zeros((1, 10), np.float32)
        left[0, 6], right[0, 3] = 3, 3.9  # the right view says nearly the same
        left[0, 8], right[0, 5] = 3, 6  # something else
        left[0, 1] = 3  # beyond the border
        assert np.flatnonzero(hints.agreed(left, right)).tolist() == [6]

    def test_what_a_near_thing_hides_continues_the_background(self):
        row = np.array([[2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 12, 0, 2, 2] + [0] * 30 + [2, 0]], dtype=np.float32)
        found = hints.guess_hidden(row)[0]
        assert (found[2:11] == -2).all()  # nine columns before a thing 10 px nearer
        assert found[13] == -2 and (found[16:46] == 0).all() and found[-1] == 0  # a sky stays open, as does the border
        assert (found[[0, 1, 11, 12, 14, 15, 46]] == row[0, [0, 1, 11, 12, 14, 15, 46]]).all()

    def test_on_disk_they_are_right_to_three_percent(self, tmp_path):
        values = np.geomspace(1e-3, 0.3, 64).reshape(2, 4, 8) * np.array([1, -1])[:, None, None]
        values[0, 0, :3] = 0
        hints.write_hints(values, tmp_path / "a.png")
        found = hints.read_hints(tmp_path / "a.png")
        assert (found[values == 0] == 0).all() and (np.sign(found) == np.sign(values)).all()
        assert np.allclose(found, values, rtol=0.03)

    def test_files_of_other_pictures_are_made_anew(self, data_dir, tmp_path, monkeypatch):
        pytest.importorskip("cv2", reason="OpenCV is not installed")
        calls = []
        monkeypatch.setattr(hints, "match_both", lambda left, right: calls.append(1) or np.full((2, *left.shape), 0.1))
        pairs = kitti.select_pairs(data_dir, "test")
        path = hints.prepare_hints(pairs, (16, 48), tmp_path, log=lambda _: None)
        assert hints.prepare_hints(pairs, (16, 48), tmp_path) == path and len(calls) == len(pairs)
        assert np.load(path).shape == (5, 2, 16, 48) and np.allclose(np.load(path), 0.1, atol=1e-3)
        assert hints.prepare_hints(pairs[:4], (16, 48), tmp_path, log=lambda _: None) != path

    def test_without_opencv_the_way_out_is_said(self, data_dir, tmp_path, monkeypatch):
        monkeypatch.setattr(hints.stereo, "has_opencv", lambda: False)
        with pytest.raises(ValueError, match="hints need OpenCV: pip install"):
            Pairs(replace(TINY, hints=(1.0, 1.0)), pictures(data_dir, tmp_path), 0)


class TestNetwork:
    @pytest.mark.parametrize("start", [0.03, 0.15])
    def test_start_with_and_without_head_batch_norm(self, start):
        for normed in (False, True):
            model = make_model(Recipe(base_channels=2, start=start, head_batch_norm=normed), False, 0).train()
            with torch.no_grad():
                said = [float(both.median()) for both in model(torch.rand(2, 3, 32, 96))]
            assert said == pytest.approx([start] * 4, rel=0.25), normed
            norms = [m for head in recipes.heads(model) for m in head.modules() if isinstance(m, nn.BatchNorm2d)]
            assert len(norms) == (4 if normed else 0)

    def test_head_batch_norm_goes_into_the_librarys_network(self):
        model = make_model(Recipe(base_channels=2, head_batch_norm=True), False, 0)
        with torch.no_grad():
            for head in recipes.heads(model):
                for values in (head.conv[1].running_var, head.conv[1].running_mean, head.conv[1].weight):
                    values.uniform_(0.001, 0.01)
            images = torch.rand(2, 3, 32, 96)
            before = model.eval()(images)
            plain = recipes.without_head_batch_norm(model.train())
            assert model.training and isinstance(recipes.heads(model)[0].conv, nn.Sequential)  # it can be gone on with
            fresh = networks.get_model("unet", base_channels=2).eval()
            fresh.load_state_dict(plain.state_dict())
            for a, b in zip(before, fresh(images), strict=True):
                assert float(a.std()) > 1e-5 and torch.allclose(a, b, atol=1e-7)

    def test_only_an_efficientnet_can_be_frozen_in_parts(self):
        with pytest.raises(ValueError, match="not for unet: set it to 0"):
            recipes.frozen_parts(replace(TINY, frozen=1), make_model(TINY, False, 0))

    def test_frozen_parts_keep_weights_and_statistics(self, data_dir, tmp_path, monkeypatch):
        monkeypatch.setattr(train, "frozen_parts", lambda recipe, model: [model.encoder.stages[0]])
        monkeypatch.setattr(train, "JUDGED_SIZE", (32, 96))
        run(TINY, pictures(data_dir, tmp_path), tmp_path / "run", steps=2)
        fresh, kept = make_model(TINY, False, 0).state_dict(), weights(tmp_path / "run")
        same = {name for name in fresh if torch.equal(fresh[name], kept[name])}
        assert {name for name in fresh if name.startswith("encoder.stages.0.")} == same

    @pytest.mark.parametrize(
        ("switches", "changes"),
        [
            ({}, {"encoder", "decoder"}),
            ({"fixed_encoder": True}, {"decoder"}),
            ({"fixed_from": 0.0}, set()),
        ],
    )
    def test_batch_normalisation_can_keep_its_averages(self, data_dir, tmp_path, monkeypatch, switches, changes):
        monkeypatch.setattr(train, "JUDGED_SIZE", (32, 96))
        recipe = replace(TINY, **switches)
        run(recipe, pictures(data_dir, tmp_path), tmp_path / "run", steps=2)
        fresh, kept = make_model(TINY, False, 0).state_dict(), weights(tmp_path / "run")
        moved = {
            name.partition(".")[0] for name in fresh if "running_" in name and not torch.equal(fresh[name], kept[name])
        }
        assert moved == changes
        assert any(not torch.equal(fresh[name], kept[name]) for name in fresh if name.startswith("encoder"))

    def test_init_begins_from_weights(self, tmp_path, tiny):
        checkpoints.save_model(tiny(seed=5), tmp_path / "w.safetensors", (32, 96))
        model = make_model(Recipe(base_channels=2, init=str(tmp_path / "w.safetensors")), True, 0)
        both = zip(model.parameters(), tiny(seed=5).parameters(), strict=True)
        assert model.grey and all(torch.equal(a, b) for a, b in both)
        checkpoints.save_model(tiny(grey=True), tmp_path / "g.safetensors", (32, 96))
        assert make_model(Recipe(base_channels=2, init=str(tmp_path / "g.safetensors")), False, 0).grey
        with pytest.raises(ValueError, match=r"init .*is not of unet"):
            make_model(Recipe(base_channels=4, init=str(tmp_path / "w.safetensors")), True, 0)


class Ramps(Pairs):
    """Made-up pairs whose channels are column, row and number; the right view shows the column 8 px further on, which
    as a disparity is 8/144."""

    def __init__(self, recipe, count=40, size=(48, 144)):
        rows, columns = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
        left = np.stack([columns, rows, 0 * rows], -1)
        views = np.stack([left, left + np.array([8, 0, 0])])
        self.stored = np.stack([views + np.array([0, 0, n]) for n in range(count)]).astype(np.uint8)
        self.hints = np.full((count, 2, *size), 8 / size[1], np.float16)
        self.recipe, self.seed, self.grey = recipe, 0, False


class TestBatch:
    def test_a_zoomed_pair_stays_rectified_and_its_hints_follow(self):
        pairs, wide, high = Ramps(replace(TINY, zoom=0.65, flip=False, colours=False)), [], []
        for index in range(40):
            views, hint = pairs.one(index, np.random.default_rng(index))
            left, right = 255 * views[..., 3:-3, 3:-3]  # at a crop's border the resize has half a window
            assert torch.allclose(right - left, torch.tensor([8.0, 0, 0]).view(3, 1, 1), atol=1e-2)
            wide.append(float(left[0, 10, -1] - left[0, 10, 0]) / 89)  # px of the stored picture to one of the new
            high.append(float(left[1, -1, 10] - left[1, 0, 10]) / 25)
            assert hint.shape == (2, 32, 96)
            assert float(hint.mean()) * 96 * wide[-1] == pytest.approx(8, rel=0.02)  # the shift in stored pixels
        assert np.allclose(wide, high, rtol=0.04)  # whole rows and columns are cropped
        assert 0.1 < np.mean(np.array(wide) > 1.499) < 0.6  # three of ten
        assert 0.95 < min(wide) < 1.1 and len(set(wide)) > 15

    def test_without_zoom_pictures_are_as_they_are_stored(self):
        pairs = Ramps(replace(TINY, size=(48, 144), flip=False, colours=False))
        views, hint = pairs.one(3, np.random.default_rng(0))
        assert torch.equal((views * 255).round().byte().permute(0, 2, 3, 1), torch.from_numpy(pairs.stored[3]))
        assert torch.allclose(hint, torch.tensor(8 / 144), atol=1e-4)

    def test_in_a_mirror_the_views_change_places(self):
        pairs = Ramps(replace(TINY, size=(48, 144), colours=False))
        pairs.hints = np.stack([np.full((48, 144), 0.1), np.full((48, 144), 0.2)])[None].repeat(40, 0)
        plain, mirrored = 0, 0
        for index in range(20):
            views, hint = pairs.one(index, np.random.default_rng(index))
            stored = torch.from_numpy(pairs.stored[index]).permute(0, 3, 1, 2) / 255
            if torch.allclose(views, stored):
                plain += float(hint[0, 0, 0]) == pytest.approx(0.1)
            elif torch.allclose(views, stored.flip(0, -1)):
                mirrored += float(hint[0, 0, 0]) == pytest.approx(0.2)
        assert plain + mirrored == 20 and 4 < mirrored < 16

    def test_colours_change_in_half_of_the_pairs_alike_in_both_views(self):
        pairs, changed = Ramps(replace(TINY, size=(48, 144), flip=False)), 0
        for index in range(20):
            views, _ = pairs.one(index, np.random.default_rng(index))
            stored = torch.from_numpy(pairs.stored[index]).permute(0, 3, 1, 2) / 255
            changed += not torch.allclose(views, stored)
            assert torch.allclose(views[0, 0, :, 8:], views[1, 0, :, :-8], atol=1e-6)  # one change, both views
        assert 4 < changed < 16

    def test_a_grey_run_sees_grey_and_tones_are_of_colour_pictures_alone(self):
        pairs = Ramps(replace(TINY, size=(48, 144), flip=False, colours=False, tones=True))
        pairs.grey = True
        greys = [pairs.one(5, np.random.default_rng(seed))[0] for seed in range(20)]
        luma = (torch.from_numpy(pairs.stored[5]) / 255 @ torch.tensor(batches.LUMA))[:, None]
        same = [torch.allclose(views, luma, atol=1e-5) for views in greys]
        assert greys[0].shape == (2, 1, 48, 144) and 4 < sum(same) < 16
        pairs.stored = np.repeat(pairs.stored[..., :1], 3, -1)  # a grey photograph
        first, *others = [pairs.one(5, np.random.default_rng(seed))[0] for seed in range(9)]
        assert all(torch.allclose(first, other, atol=1e-5) for other in others)

    def test_a_grafted_pair_keeps_its_disparity(self):
        both = torch.stack([torch.stack(shifted_pair(32, 96, 4, seed)) for seed in range(5)])[:, :, 0]
        number = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 2, 32, 96)
        views, hint = batches.graft(both, number, np.random.default_rng(1))
        assert torch.equal(views[:, 0, ..., 4:], views[:, 1, ..., :-4])  # what left has at x, right has at x - 4
        found = hint[:, 0, :, 0].long()
        assert (found[:, 0] == torch.arange(5)).all() and (found[:, -1] != torch.arange(5)).all()
        assert ((found[:, 1:] != found[:, :-1]).sum(1) == 1).all() and sorted(found[:, -1].tolist()) == [0, 1, 2, 3, 4]
        for pair, row in ((0, 0), (2, 31)):  # picture and hint come from the same pair
            assert torch.equal(views[pair, :, :, row], both[found[pair, row], :, :, row])

    def test_a_merged_pair_shows_what_is_nearer(self):
        """Two streets: a box of the second is nearer than the first one, but for a single pixel and an unknown row."""
        views = torch.tensor([0.2, 0.8]).view(2, 1, 1, 1, 1).expand(2, 2, 1, 32, 96)
        hints = torch.tensor([0.02, 0.01]).view(2, 1, 1, 1).repeat(1, 2, 32, 96)
        hints[1, 0, 8:20, 40:60] = -0.05  # a guess
        hints[1, 1, 8:20, 36:56] = 0.05
        hints[1, :, 2, 2] = 0.09
        hints[0, :, 28:] = 0  # the second street is known there
        merged, told = batches.merge(views, hints, 1.0, np.random.default_rng(0))
        assert (told[0, 0, 8:20, 42:58] == hints[1, 0, 9, 50]).all() and (told[1, 0, 8:20, 42:58] < -0.04).all()
        assert (told[0, 1, 8:20, 38:54] > 0.04).all() and (told[0, 1, 8:20, 57:] == hints[0, 1, 9, 90]).all()
        assert (told[0, :, 29:] == hints[1, 0, 0, 0]).all() and (told[0, :, 2, 2] < 0.03).all()
        for pair in range(2):  # a pixel and its hint come from the same pair
            second = (told[pair].abs() - 0.01).abs().lt(1e-4) | told[pair].abs().gt(0.04)
            assert torch.equal(merged[pair, :, 0] > 0.5, second)
        assert all(map(torch.equal, batches.merge(views, hints, 0.0, np.random.default_rng(0)), (views, hints)))

    def test_a_batch_is_merged_when_it_has_hints(self, data_dir, tmp_path):
        recipe = replace(TINY, merge=1.0, colours=False, flip=False)
        pairs, plain = (Pairs(one, pictures(data_dir, tmp_path), 0) for one in (recipe, replace(recipe, merge=0.0)))
        assert torch.equal(pairs.batch(0)["left_image"], plain.batch(0)["left_image"])  # no hints
        pairs.hints = (
            np.random.default_rng(0).uniform(0.01, 0.1, (len(pairs.pairs), 2, 1, 1)).repeat(32, 2).repeat(96, 3)
        )
        both = pairs.batch(0), plain.batch(0)
        changed = (both[0]["left_image"] != both[1]["left_image"]).flatten(1).any(1)
        assert 0 < changed.sum() < 4 and both[0]["name"] == both[1]["name"]  # the nearest of all pairs stays whole

    def test_erase_puts_grey_boxes(self):
        images = torch.rand(30, 3, 32, 96)
        before = images.clone()
        erased = batches.disturb(images, Recipe(erase=0.5), np.random.default_rng(0))
        assert torch.equal(images, before)
        boxes = (erased != images).all(1)
        hit = boxes.flatten(1).any(1)
        assert 8 < int(hit.sum()) < 22 and (boxes.float().mean((1, 2))[hit] < 0.15).all()
        for picture, box in zip(erased, boxes, strict=True):
            assert not box.any() or len(picture[:, box].unique()) <= 3

    def test_disturb_changes_contrast_noise_and_sharpness(self):
        images = torch.cat([texture(32, 96, seed) for seed in range(40)])
        assert torch.equal(batches.disturb(images, Recipe(), np.random.default_rng(0)), images)
        disturbed = batches.disturb(images, Recipe(disturb=0.6), np.random.default_rng(0))
        same = (disturbed == images).flatten(1).all(1).float().mean()
        assert 0.1 < float(same) < 0.4  # 0.4 · 0.7 · 0.8
        assert (disturbed - images).abs().max() < 0.8 and torch.isfinite(disturbed).all()

    def test_the_loss_sees_pictures_as_they_are(self, data_dir, tmp_path):
        recipe = replace(TINY, disturb=1.0, erase=1.0, flip=False, colours=False)
        batch = Pairs(recipe, pictures(data_dir, tmp_path), 0).batch(0)
        assert not torch.allclose(batch["seen"], batch["left_image"])
        assert torch.allclose(batch["left_image"][..., 4:], batch["right_image"][..., :-4], atol=0.01)

    def test_places_are_drawn_more_often(self, data_dir, tmp_path):
        make_drive(tmp_path / "d/train/stereo_part", range(3))
        make_drive(tmp_path / "d/train/2020_01_01_drive_0001_sync", range(3))
        make_drive(tmp_path / "d/vals/2020_01_01_drive_0003_sync", range(1))
        make_drive(tmp_path / "d/more/2020_02_02_drive_0001", range(3))
        recipe = replace(TINY, batch_size=1, also="more", often=2.0, often_also=3.0)
        pairs = Pairs(recipe, pictures(tmp_path / "d", tmp_path, test_drives="none"), 0)
        names = [pairs.batch(step)["name"][0] for step in range(600)]
        for name, share in (("stereo_part", 2 / 6), ("2020_01_01", 1 / 6), ("2020_02_02", 3 / 6)):
            assert abs(sum(one.startswith(name) for one in names) / 600 - share) < 0.06, name

    def test_more_pairs_hold_the_fewer_ones_of_a_seed(self, data_dir, tmp_path):
        where = pictures(data_dir, tmp_path)
        few, more, all_of_them = (set(Pairs(replace(TINY, pairs=n), where, 3).chosen) for n in (4, 6, 0))
        assert few < more < all_of_them == set(range(9)) and (len(few), len(more)) == (4, 6)
        other = set(Pairs(replace(TINY, pairs=4), where, 4).chosen)
        assert other != few
        drawn = {name for step in range(20) for name in Pairs(replace(TINY, pairs=4), where, 3).batch(step)["name"]}
        assert len(drawn) == 4
        with pytest.raises(ValueError, match=r"pairs is 10; .* has 9 to learn from"):
            Pairs(replace(TINY, pairs=10), where, 0)
        with pytest.raises(ValueError, match="3 pairs are fewer than a batch of 4"):
            Pairs(replace(TINY, pairs=3), where, 0)

    def test_every_step_draws_anew_and_the_same_step_the_same(self, data_dir, tmp_path):
        pairs = Pairs(replace(TINY, zoom=0.7, disturb=0.5), pictures(data_dir, tmp_path), 0)
        first, second, again = (pairs.batch(step) for step in (0, 1, 0))
        assert torch.equal(first["seen"], again["seen"]) and first["name"] == again["name"]
        assert not torch.equal(first["seen"], second["seen"])

    def test_the_last_share_of_a_run_is_calm(self, data_dir, tmp_path):
        recipe = replace(TINY, calm_from=0.5, graft=1.0, erase=1.0, zoom=0.5, colours=False, flip=False)
        pairs = Pairs(recipe, pictures(data_dir, tmp_path), 0)
        early, late = pairs.batch(0, 0.4), pairs.batch(0, 0.5)
        names = [pair.name for pair in pairs.pairs]
        stored = torch.from_numpy(pairs.stored[[names.index(name) for name in late["name"]], 0]).permute(0, 3, 1, 2)
        whole = F.interpolate(stored / 255, (32, 96), mode="bilinear", antialias=True)
        assert torch.equal(late["left_image"], whole)
        assert not torch.equal(early["seen"], early["left_image"])
        assert torch.equal(late["seen"], late["left_image"])
        assert recipe.at(0.49) == recipe
        assert (
            replace(recipe, disturb=0.3).at(0.6).disturb == 0.1
            and replace(recipe, disturb=0.05).at(0.6).disturb == 0.05
        )

    @needs_opencv
    def test_a_pack_holds_small_pairs_and_their_hints(self, data_dir, tmp_path):
        make_drive(tmp_path / "d/more/2020_02_02_drive_0001", range(2), size=(64, 192), shift=16)
        (tmp_path / "d/train").symlink_to(data_dir / "train")
        (tmp_path / "d/vals").symlink_to(data_dir / "vals")
        whole = pictures(tmp_path / "d", tmp_path, test_drives="none")
        assert batches.pack(whole, "more", tmp_path / "pack", (32, 96)) == 9 + 2
        pack = pictures(tmp_path / "pack", tmp_path, val_drives="none", test_drives="none")
        recipe = replace(TINY, also="more", hints=(1.0, 1.0))
        small, large = Pairs(recipe, pack, 0), Pairs(recipe, whole, 0)
        assert [pair.name for pair in small.pairs] == [pair.name for pair in large.pairs]
        assert float(np.mean(np.abs(small.stored.astype(float) - large.stored))) < 12  # JPEG
        known = large.hints[-1] > 0
        assert known.mean() > 0.3 and np.allclose(small.hints[-1][known], large.hints[-1][known], rtol=0.03)
        assert np.median(large.hints[-1][known]) == pytest.approx(16 / 192, rel=0.05)


class TestGap:
    def test_matching_judges_error_bad_pixels_and_scale(self, data_dir):
        pairs = kitti.select_pairs(data_dir, "test")[:2]
        matched = np.full((2, 2, 32, 96), 0.1, np.float32)
        matched[:, 0, :16] = -0.2  # guesses do not count
        maps = [torch.full((32, 96), 0.1 * factor) for factor in (1.02, 2.0)]
        maps[1][20:24] = 0.1
        error, bad, spread = gap.against_matching(pairs, maps, matched)
        assert float(error) == pytest.approx((np.log(1.02) + 0.75 * np.log(2)) / 2, abs=6e-4)
        assert float(bad) == pytest.approx(0.75 / 2, abs=6e-4)
        assert float(spread[:-2]) == pytest.approx(50 * np.log(2 / 1.02), abs=0.06)

    @needs_opencv
    def test_a_model_is_judged_on_what_it_learnt_from_and_on_the_rest(self, data_dir, tmp_path, capsys):
        (model := networks.get_model("unet", base_channels=1)).eval()
        checkpoints.save_model(model, tmp_path / "w.safetensors", (32, 96))
        where = ["--data", str(data_dir), "--also", "", "--cameras", "colour", "--cache-dir", str(tmp_path)]
        assert command.main(["gap", str(tmp_path / "w.safetensors"), *where]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert any(line.startswith("| 9 learnt from |") for line in lines)
        assert any(line.startswith("| 5 kept apart |") for line in lines)
        pairs = kitti.select_pairs(data_dir, "test")
        stored = pictures(data_dir, tmp_path).stored(pairs, (32, 96))
        maps = testing.predict(model, train.images(stored, 0, 0))[1]
        mean = testing.mean_row(testing.score(pairs, [*maps]), "")
        assert f"| all | {mean['abs_rel']:.3f} | {mean['d1_all']:.3f} |" in lines
        scaled = testing.score(pairs, [*maps], depth.Protocol(median_scaling=True))
        assert f"put right | {testing.mean_row(scaled, '')['abs_rel']:.3f} |" in "".join(lines)
        assert command.main(["gap", "unknown", "--data", str(data_dir)]) == 2


class TestCourse:
    def test_learning_rate(self):
        course = Course(Recipe(), Budget(steps=100))
        rates = []
        for course.steps in (0, 59, 60, 79, 80, 99):
            rates.append(course.factor())
        assert rates == [1, 1, 0.5, 0.5, 0.25, 0.25]
        course = Course(Recipe(schedule="cosine", warm_up=4), Budget(steps=100))
        rates = []
        for course.steps in (0, 1, 50, 100):
            rates.append(course.factor())
        assert rates == pytest.approx([0.25, 0.5, 1 / 2 + 1 / 400, 1 / 200], abs=1e-3)

    def test_time_is_the_processors_between_batch_and_step(self, monkeypatch):
        now = [0.0]
        monkeypatch.setattr(train.time, "process_time", lambda: now[0])
        monkeypatch.setattr(train.torch, "get_num_threads", lambda: 2)
        course = Course(Recipe(), Budget(minutes=1.0))
        for _ in range(6):
            now[0] += 1000  # measuring
            course.begin_step()
            now[0] += 10
            course.end_step()
        assert course.seconds == 30 and course.share == 0.5

    def test_waiting_threads_cost_no_time(self):
        """They sleep, which must be said before torch is imported."""
        code = """
import os, sys
class Watch:
    def find_spec(self, name, *_):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"))
sys.meta_path.insert(0, Watch())
import research.__main__
"""
        environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.stdout.split() == ["PASSIVE"], done.stderr

    def test_average_of_the_weights(self):
        model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
        average = train.make_average(Recipe(ema=0.9), model)
        slow = 1.0
        for step in range(1, 200):
            nn.init.constant_(model[0].weight, step)
            model[1].num_batches_tracked.fill_(step)
            average.update_parameters(model)
            keep = min(0.9, step / (step + 9)) if step > 1 else 0
            slow = keep * slow + (1 - keep) * step
        assert average.module[0].weight.item() == pytest.approx(slow, rel=1e-5)
        assert slow < 195 and average.module[1].num_batches_tracked == 199

    def test_weight_decay_is_of_kernels_alone_and_the_encoder_has_its_own_rate(self):
        model = make_model(TINY, False, 0)
        optimizer = train.make_optimizer(Recipe(weight_decay=0.5, encoder_rate=0.3), model)
        groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        assert len(groups) == len(list(model.parameters()))
        for name, parameter in model.named_parameters():
            group = groups[id(parameter)]
            assert group["weight_decay"] == (0.5 if parameter.ndim > 1 else 0), name
            assert group["share"] == (0.3 if name.startswith("encoder") else 1.0), name


def weights(folder):
    return checkpoints.load_model(folder / "weights.safetensors").state_dict()


def run(recipe, where, output, name="base", seed=0, log=lambda _: None, **budget):
    return train.train(Row(name, recipe), where, output, Budget(**budget), seed, log)


class TestRun:
    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch):
        monkeypatch.setattr(train, "JUDGED_SIZE", (32, 96))

    @pytest.mark.parametrize("every", [0, 3])
    def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(self, data_dir, tmp_path, monkeypatch, every):
        """Killed within a step, twice, with every random choice and the average of the weights switched on."""
        options = dict(seed=3, steps=7, every=every, save_minutes=0)
        whole = run(EVERYTHING, pictures(data_dir, tmp_path), tmp_path / "whole", **options)
        make = Pairs.batch
        for kill_at in (2, 5):

            def killed(pairs, step, share, kill_at=kill_at):
                if step == kill_at:
                    raise KeyboardInterrupt
                return make(pairs, step, share)

            monkeypatch.setattr(Pairs, "batch", killed)
            with pytest.raises(KeyboardInterrupt):
                run(EVERYTHING, pictures(data_dir, tmp_path), tmp_path / "cut", **options)
            assert (tmp_path / "cut/last.pt").is_file() and not (tmp_path / "cut/result.json").exists()
        monkeypatch.setattr(Pairs, "batch", make)
        torch.manual_seed(99)
        cut = run(EVERYTHING, pictures(data_dir, tmp_path), tmp_path / "cut", **options)
        first, second = weights(tmp_path / "whole"), weights(tmp_path / "cut")
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert not torch.equal(
            first["decoder.heads.3.conv.weight"], make_model(TINY, False, 3).decoder.heads[3].conv.weight
        )
        for key in ("val_loss", "plain", "pp", "trained_steps"):
            assert whole[key] == cut[key]
        assert [row["step"] for row in cut["history"]] == [row["step"] for row in whole["history"]] == [3, 6][:every]
        assert [row["train_loss"] for row in cut["history"]] == [row["train_loss"] for row in whole["history"]]
        assert not list((tmp_path / "cut").glob("*.pt"))

    def test_a_checkpoint_of_another_run_and_a_broken_one_are_refused(self, data_dir, tmp_path, monkeypatch):
        def killed(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(train, "measure", killed)
        with pytest.raises(KeyboardInterrupt):
            run(TINY, pictures(data_dir, tmp_path), tmp_path / "run", steps=3, save_minutes=0)
        with pytest.raises(ValueError, match=r"last.pt is of another run, flip True \(here False\)"):
            run(replace(TINY, flip=False), pictures(data_dir, tmp_path), tmp_path / "run", steps=3)
        (tmp_path / "run/last.pt").write_bytes(b"nothing")
        with pytest.raises(ValueError, match=r"last.pt is no checkpoint of a run: remove it"):
            run(TINY, pictures(data_dir, tmp_path), tmp_path / "run", steps=3)

    def test_a_run_on_other_drives_is_another(self, data_dir, tmp_path):
        run(TINY, pictures(data_dir, tmp_path, test_drives="none"), tmp_path, steps=1)
        with pytest.raises(ValueError, match=r"another run, test_drives \[\] \(here \['2020_01_01_drive_0004"):
            run(TINY, pictures(data_dir, tmp_path), tmp_path, steps=1)

    def test_weights_know_what_they_were_chosen_on_and_taught_by(self, data_dir, tmp_path):
        run(TINY, pictures(data_dir, tmp_path), tmp_path, steps=1)
        notes = checkpoints.load_model(tmp_path / "weights.safetensors").notes
        assert notes["val_drives"] == ["2020_01_01_drive_0003_sync", "2020_01_01_drive_0004_sync"]
        assert notes["supervision"] == "photographs"

    def test_weights_know_what_those_they_began_from_had_seen(self, data_dir, tmp_path):
        model = make_model(TINY, False, 0)
        earlier = {"train_drives": ["a_sync"], "val_drives": ["b_sync"], "supervision": "semi-global matching"}
        checkpoints.save_model(model, tmp_path / "first.safetensors", TINY.size, **earlier)
        for steps in (0, 1):
            recipe = replace(TINY, init=str(tmp_path / "first.safetensors"))
            budget = {"steps": 1} if steps else {"minutes": 0}
            run(recipe, pictures(data_dir, tmp_path), tmp_path / f"{steps}", **budget)
            notes = checkpoints.load_model(tmp_path / f"{steps}/weights.safetensors").notes
            mine = ["2020_01_01_drive_0001_sync", "2020_01_01_drive_0002_sync"] * steps
            assert notes["train_drives"] == [*mine, "a_sync"]
            assert notes["val_drives"] == ["2020_01_01_drive_0003_sync", "2020_01_01_drive_0004_sync", "b_sync"]
            assert notes["supervision"].endswith("semi-global matching")

    def test_a_run_ends_when_its_time_is_over(self, data_dir, tmp_path, monkeypatch):
        clock = iter(range(0, 10_000, 10))  # each look at it is 10 s later: between a step's two looks
        monkeypatch.setattr(train.time, "process_time", lambda: next(clock))
        monkeypatch.setattr(train.torch, "get_num_threads", lambda: 1)
        result = run(TINY, pictures(data_dir, tmp_path), tmp_path / "run", minutes=1)
        assert result["trained_steps"] == 6 and result["trained_minutes"] == 1 and result["machine"]["threads"] == 1

    def test_a_finished_run_is_skipped_and_another_refused(self, data_dir, tmp_path, monkeypatch):
        where = pictures(data_dir, tmp_path), tmp_path / "run"
        first = run(TINY, *where, steps=1)
        monkeypatch.setattr(train, "make_model", lambda *_: pytest.fail("it was trained again"))
        said = []
        assert run(TINY, *where, steps=1, log=said.append) == first and "finished before" in said[0]
        with pytest.raises(ValueError, match=r"result.json is of another run, steps 1 \(here 2\): remove its folder"):
            run(TINY, *where, steps=2)
        with pytest.raises(ValueError, match=r"another run, zoom 1.0 \(here 0.5\)"):
            run(replace(TINY, zoom=0.5), *where, steps=1)

    @pytest.mark.parametrize("switches", [{}, {"disturb": 1.0, "erase": 1.0}])
    def test_results_are_those_of_the_weights(self, data_dir, tmp_path, switches):
        """Measured again with the library: loss, and depth with and without post-processing. Nothing is disturbed."""
        where, recipe = pictures(data_dir, tmp_path), replace(TINY, **switches)
        result = run(recipe, where, tmp_path / "run", steps=2)
        model = checkpoints.load_model(tmp_path / "run/weights.safetensors")
        loss, pairs = losses.MonodepthLoss(), kitti.select_pairs(data_dir, "test")
        left, right = (train.images(where.stored(where.pairs("val"), (32, 96)), 0, view, 9) for view in (0, 1))
        with torch.no_grad():
            assert result["val_loss"] == pytest.approx(float(loss(model(left), left, right)[0]), rel=1e-5)
        seen = train.images(where.stored(pairs, (32, 96)), 0, 0)
        for name, disparities in zip(("plain", "pp"), testing.predict(model, seen), strict=True):
            rows = testing.score(pairs, disparities)
            for key in depth.METRICS:
                assert result[name][key] == pytest.approx(np.mean([row[key] for row in rows]), rel=1e-4), (name, key)
        assert result["spread"]["abs_rel"] == pytest.approx(np.std([row["abs_rel"] for row in rows]), rel=1e-3)
        assert result["images"] == len(rows) == 5 and result["plain"] != result["pp"]

    def test_the_running_average_is_the_answer(self, data_dir, tmp_path):
        kept = []
        for ema in (0.0, 0.9):
            run(replace(TINY, ema=ema), pictures(data_dir, tmp_path), tmp_path / f"{ema}", steps=3)
            kept.append(weights(tmp_path / f"{ema}"))
        name = "encoder.stages.0.0.0.weight"
        assert not torch.allclose(kept[1][name], kept[0][name], atol=1e-6)
        assert torch.allclose(kept[1][name], kept[0][name], atol=1e-2)

    def test_a_bad_gradient_is_left_out(self, data_dir, tmp_path, monkeypatch):
        monkeypatch.setattr(train.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(float("nan")))
        run(TINY, pictures(data_dir, tmp_path), tmp_path / "run", steps=2)
        fresh = make_model(TINY, False, 0).state_dict()
        name = "encoder.stages.0.0.0.weight"
        assert torch.equal(weights(tmp_path / "run")[name], fresh[name])

    def test_the_loss_is_judged_at_one_size_for_all(self, data_dir, tmp_path):
        """A network that says the same everywhere has one loss, whatever the size of what it sees."""

        class Flat(nn.Module):
            def __init__(self):
                super().__init__()
                self.unused = nn.Parameter(torch.zeros(1))

            def forward(self, images):
                return [torch.full((len(images), 2, *images[0, 0, :: 2**s, :: 2**s].shape), 0.04) for s in range(4)]

        where = pictures(data_dir, tmp_path)
        pairs = where.pairs("val")
        judged = where.stored(pairs, (32, 96))
        small, same = (train.standard_loss(Flat(), where.stored(pairs, size), judged) for size in ((16, 48), (32, 96)))
        assert small == pytest.approx(same, rel=1e-6)

    def test_sides_may_be_left_out(self, data_dir, tmp_path):
        where = pictures(data_dir, tmp_path, val_drives="none", test_drives="none")
        assert not {"val_loss", "pp", "plain"} & set(run(TINY, where, tmp_path / "run", steps=1))

    def test_a_loss_that_is_not_finite_names_the_step(self, data_dir, tmp_path):
        wild = replace(TINY, learning_rate=1e30)
        with pytest.raises(FloatingPointError, match=r"wild, seed 0, step \d+: .*not finite; lower learning_rate"):
            run(wild, pictures(data_dir, tmp_path), tmp_path / "run", name="wild", steps=9)

    def test_no_minutes_measure_what_it_begins_with(self, data_dir, tmp_path, tiny):
        checkpoints.save_model(tiny(seed=5), tmp_path / "w.safetensors", (32, 96))
        recipe = replace(TINY, init=str(tmp_path / "w.safetensors"))
        result = run(recipe, pictures(data_dir, tmp_path), tmp_path / "r", minutes=0)
        assert result["trained_steps"] == 0 == result["used_pairs"]
        first = tiny(seed=5).encoder.stages[0][0][0].weight
        assert torch.equal(weights(tmp_path / "r")["encoder.stages.0.0.0.weight"], first)


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
            Pairs(replace(TINY, also="stereo_2015"), pictures(tmp_path, tmp_path, test_drives="none"), 0)
        with pytest.raises(ValueError, match="vals_sync"):
            Pairs(replace(TINY, also="vals"), pictures(tmp_path, tmp_path, test_drives="none"), 0)
        with pytest.raises(ValueError, match="stereo_2015 is for finished models"):
            Pairs(TINY, pictures(tmp_path, tmp_path, test_drives="stereo_2015"), 0)
        with pytest.raises(ValueError, match="train_sync would be in train and held out"):
            Pairs(TINY, pictures(tmp_path, tmp_path, test_drives="train_sync"), 0)
        (tmp_path / "training/disp_occ_0").mkdir(parents=True)  # as KITTI's archive names the folder of stereo 2015
        make_drive(tmp_path / "training", [2])
        with pytest.raises(ValueError, match="stereo_2015 is for finished models"):
            Pairs(TINY, pictures(tmp_path, tmp_path, test_drives="training"), 0)
        assert not (tmp_path / "cache").exists()  # not a picture was read


def write_recipes(path, text):
    base = "[base]\nbase_channels = 2\nsize = [32, 96]\nbatch_size = 4\n"
    path.write_text(base + '[few]\ntitle = "A few"\npage = "R.md"\nminutes = 3\n[few.rows.base]\n' + text)
    return path


class TestRecipeFile:
    def test_rows_differ_by_what_they_say(self, tmp_path):
        text = '[few.rows.one]\nflip = false\nzoom = 1\n[few.rows.two]\nlike = "one"\nstart = 0.1\nminutes = 5\n'
        text += '[more]\ntitle = "x"\npage = "y"\nseeds = [1, 2]\nsteps = 9\n'
        text += '[more.rows.three]\nlike = "two"\nhints = [1, 0.5]\n[more.rows.four]\nlike = "two"\nsteps = 5\n'
        few, more = recipes.read_sweeps(write_recipes(tmp_path / "s.toml", text)).values()
        rows = few.rows
        assert list(rows) == ["base", "one", "two"] and rows["base"].recipe == TINY and rows["base"].like == ""
        assert (rows["one"].differs, rows["one"].like, rows["one"].minutes) == ("flip off", "base", 3)
        assert (rows["two"].differs, rows["two"].like, rows["two"].minutes) == ("start 0.1", "one", 5)
        assert rows["two"].recipe == replace(TINY, flip=False, start=0.1)
        assert more.rows["three"].recipe == replace(TINY, flip=False, start=0.1, hints=(1.0, 0.5))
        assert more.seeds == (1, 2) and more.rows["three"].minutes == 10 and few.title == "A few"
        assert recipes.find_row({"few": few, "more": more}, "three").sweep == "more"
        assert [row.steps for row in more.rows.values()] == [9, 5] and rows["one"].steps is None
        assert recipes.difference(TINY, replace(TINY, also="colour")) == "also none"

    def test_a_row_has_its_own_time_unless_the_command_gives_another(self):
        def budget(row, *given):
            options = command.parse(["train", row.name, *given])
            found = command.budget_of(options, row)
            return found.steps, found.minutes

        row = recipes.Row("one", TINY, minutes=7, steps=9)
        assert budget(row) == (9, 7) and budget(row, "--steps", "4") == (4, 7)
        assert budget(row, "--minutes", "2") == (None, 2) and budget(replace(row, steps=None)) == (None, 7)
        assert budget(replace(row, minutes=0), "--steps", "4", "--minutes", "2") == (None, 0)  # it is only measured

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[few.rows.a]\nzooom = 0.5\n", "row a: no switch is named 'zooom'; there are network"),
            ('[few.rows.a]\nzoom = "x"\n', "row a: zoom is 'x'; it must be of type float"),
            ("[few.rows.a]\nbase_channels = 2.5\n", "row a: base_channels is 2.5; it must be of type int"),
            ("[few.rows.a]\nflip = 1\n", "row a: flip is 1; it must be of type bool"),
            ("[few.rows.a]\nsize = [32, 96.0]\n", "row a: size is .*; it must be of type tuple"),
            ("[few.rows.a]\nsize = [128]\n", r"row a: size is \(128,\); it must be height and width, both at least 32"),
            ("[few.rows.a]\nzoom = 1.5\n", "row a: zoom is 1.5; it must be above 0 and at most 1"),
            ("[few.rows.a]\nmaps = [4]\n", "row a: maps is"),
            ("[few.rows.a]\nhints = [1.0]\n", "row a: hints takes two weights"),
            ('[few.rows.a]\nschedule = "x"\n', "row a: schedule is 'x'; it must be one of halve_twice, cosine"),
            ('[few.rows.a]\nlike = "b"\n', "row a: there is no row 'b' above it"),
            ('[few.rows."../a"]\nzoom = 0.5\n', "a row cannot be named '../a'"),
            ('[few.rows.a]\n[y]\ntitle = ""\npage = ""\n[y.rows.a]\n', "named 'a'; .*none twice"),
            ('[few.rows.a]\n[y]\ntitle = ""\npage = ""\n[y.rows.base]\n', "named 'base'; .*none twice"),
            ('[x]\ntitle = "a"\n[x.rows.a]\n', r"\[x\] must have title, page and rows"),
            ('[x]\ntitle = 3\npage = ""\n[x.rows.a]\n', r"\[x\] has title 3, which is of another type"),
            ("[few.rows.a\n", "s.toml is no TOML"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path, text, message):
        with pytest.raises(ValueError, match=message):
            recipes.read_sweeps(write_recipes(tmp_path / "s.toml", text))

    def test_a_misspelt_row_is_named(self, tmp_path, capsys):
        path = write_recipes(tmp_path / "s.toml", "[few.rows.a]\nflip = false\n")
        for arguments, said in (
            (["train", "aa"], "no row is named aa; there are a, base"),
            (["sweep", "few", "--rows", "base,aa"], "few has no row aa; there are base, a"),
            (["sweep", "fow"], "no sweep is named fow; there are few"),
        ):
            assert command.main([*arguments, "--recipes", str(path)]) == 2
            assert said in capsys.readouterr().err

    def test_a_run_of_a_sweep_ends_with_it(self, tmp_path, monkeypatch):
        """The sweep asks its runs to watch standard input, and a run that is asked to does."""
        path, asked = write_recipes(tmp_path / "s.toml", "[few.rows.a]\nflip = false\n"), []
        monkeypatch.setattr(command, "end_with_parent", lambda: asked.append("watches"))
        monkeypatch.setattr(command, "train", lambda *_: None)
        monkeypatch.setattr(command, "execute", lambda folder, commands, *_: command.main(commands[None][2:]))
        (tmp_path / "run").mkdir()
        (tmp_path / "run/log.txt").write_text("done\n")
        assert command.run_all({tmp_path / "run": ["a", "--recipes", str(path)]}, 1, "") == []
        assert asked == ["watches"]

    def test_the_committed_recipes(self):
        """They hold the lab's recipe and that of the shipped model; every row differs from the one it is like."""
        sweeps = recipes.read_sweeps(ROOT / "research/recipes.toml")
        rows = {name: row for sweep in sweeps.values() for name, row in sweep.rows.items()}
        assert rows["base"].recipe == Recipe()  # unet 16, 128x416, start .03, border, Adam 5e-4 halved twice
        lab = dict(network="resnet18_md", start=0.15, zero_padding=True, unaligned=True, head_batch_norm=True)
        assert rows["lab"].recipe == Recipe(**lab, learning_rate=1e-4)
        assert rows["from_imagenet"].recipe.hints == (1.0, 0.8) and rows["from_imagenet"].recipe.imagenet
        assert rows["shipped"].like == "from_imagenet" and rows["shipped"].recipe.init
        assert all(row.differs for row in rows.values() if row.name != "base")
        assert [row.recipe.pairs for row in sweeps["pairs"].rows.values()] == [75, 150, 300, 560, 689] * 2 + [560, 689]
        assert len(sweeps["pairs"].seeds) == 3 and len({row.steps for row in sweeps["pairs"].rows.values()}) == 1


class TestCommand:
    def test_a_sweep_runs_what_is_missing(self, data_dir, tmp_path, capsys, monkeypatch):
        """Two runs at a time, one of which fails; then the finished one is asked for again."""
        path = write_recipes(tmp_path / "s.toml", '[few.rows.lost]\ninit = "nowhere.safetensors"\n')
        base = ["--data", str(data_dir), "--cameras", "colour", "--recipes", str(path)]
        base += [
            "--output",
            str(tmp_path / "out"),
            "--cache-dir",
            str(tmp_path / "cache"),
            "--page",
            str(tmp_path / "R.md"),
            "--threads",
            "1",
        ]
        asked = ["sweep", "few", *base, "--steps", "2"]
        assert command.main([*asked, "--jobs", "2"]) == 1
        said = capsys.readouterr()
        assert "FAILED: " in said.out and "nowhere.safetensors is missing" in said.out
        assert f"failed: {tmp_path}/out/lost/seed0" in said.err and "base, seed 0: 2 steps" in said.out
        page = (tmp_path / "R.md").read_text()
        result = json.loads((tmp_path / "out/base/seed0/result.json").read_text())
        assert f"| {result['pp']['abs_rel']:.3f}<br>{result['plain']['abs_rel']:.3f} |" in page
        assert "Without a result in this folder: lost." in page and (tmp_path / "R.png").stat().st_size > 5000
        monkeypatch.setattr(command, "execute", lambda *_: pytest.fail("it was run again"))
        assert command.main([*asked, "--rows", "base"]) == 0
        assert "base, seed 0: finished before" in capsys.readouterr().out
        assert command.main(["sweep", "few", *base, "--steps", "3", "--rows", "base"]) == 2
        assert "result.json is of another run, steps 2 (here 3)" in capsys.readouterr().err

    def test_ctrl_c_is_said(self, data_dir, tmp_path, monkeypatch, capsys):
        def press(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(command, "train", press)
        assert command.main(["train", "base", "--data", str(data_dir), "--output", str(tmp_path)]) == 130
        assert "goes on from the last checkpoints" in capsys.readouterr().err

    def test_two_runs_cannot_share_a_folder(self, data_dir, tmp_path, capsys):
        with files.locked(tmp_path):
            assert command.main(["train", "base", "--data", str(data_dir), "--output", str(tmp_path)]) == 2
        assert "is in use by another run" in capsys.readouterr().err

    def test_train_logs_on_the_way(self, data_dir, tmp_path, capsys):
        path = write_recipes(tmp_path / "s.toml", "")
        options = ["--data", str(data_dir), "--cameras", "colour", "--recipes", str(path)]
        options += [
            "--steps",
            "4",
            "--every",
            "2",
            "--cache-dir",
            str(tmp_path / "cache"),
            "--output",
            str(tmp_path / "out"),
            "--threads",
            "1",
        ]
        assert command.main(["train", "base", *options]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("step", "base"))]
        assert len(lines) == 2 and lines[0].startswith("step      2") and "Abs Rel" in lines[0] and "loss" in lines[0]

    @pytest.mark.parametrize("wrong", [["--steps", "0"], ["--minutes", "0"], ["--jobs", "0"]])
    def test_numbers_are_above_0(self, wrong, capsys):
        with pytest.raises(SystemExit):
            command.main(["sweep", "choices", *wrong])
        assert "more than 0" in capsys.readouterr().err


def made_up(folder, row, seed, loss, abs_rel, **changes):
    """A result as a run writes it."""
    metrics = {key: abs_rel + place / 7 for place, key in enumerate(depth.METRICS)}
    plain = {key: value + 0.01 for key, value in metrics.items()}
    machine = {"processor": "one", "cores": 2, "threads": 1, "torch": "2", "date": "2026-01-01", "commit": "abc1234"}
    result = {
        "row": row.name, "seed": seed, "steps": None, "minutes": 10.0, "cameras": "grey", "train_drives": ["d"],
        "used_pairs": 9, **row.recipe.switches(), "trained_steps": 100 + seed, "parameters": 4_900_000, "history": [],
        "trained_minutes": 10.0, "machine": machine, "val_loss": loss, "plain": plain, "pp": metrics, "images": 49,
        "spread": {"abs_rel": 0.07}, "test_drives": ["stereo_2012"], **changes,
    }  # fmt: skip
    path = folder / row.name / f"seed{seed}/result.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(result))


class TestReport:
    @pytest.fixture
    def sweep(self, tmp_path):
        names = ["same", "better", "worse", "cheat", "alone", "missing"]
        text = "".join(f"[few.rows.{name}]\nstart = 0.0{place + 4}\n" for place, name in enumerate(names))
        return recipes.read_sweeps(write_recipes(tmp_path / "s.toml", text))["few"]

    @pytest.fixture
    def results(self, tmp_path, sweep):
        figures = {  # loss, Abs Rel of two seeds
            "base": ((1.0, 1.1), (0.20, 0.22)),
            "same": ((1.02, 1.04), (0.22, 0.235)),  # .0175 from the base: more than its own range, less than the base's
            "better": ((0.9, 0.92), (0.17, 0.174)),
            "worse": ((1.5, 1.6), (0.30, 0.31)),
            "cheat": ((0.7, 0.72), (0.40, 0.44)),  # least loss, worst depth
        }
        for name, (losses_, errors) in figures.items():
            for seed in (0, 1):
                made_up(tmp_path / "out", sweep.rows[name], seed, losses_[seed], errors[seed])
        made_up(tmp_path / "out", sweep.rows["alone"], 0, 1.2, 0.25)
        return tmp_path / "out"

    def test_the_pages_figures_are_those_of_the_results(self, tmp_path, sweep, results):
        said = report.write_report(sweep, results, tmp_path / "R.md", "the command")
        assert said.endswith("6 rows, 11 runs; 1 rows without a run")
        page = (tmp_path / "R.md").read_text()
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

            assert row[6].startswith(figure("val_loss") + " (")
            for place, key in enumerate(("abs_rel", "rmse", "a1", "d1_all")):
                assert row[7 + place] == f"{figure('pp', key)}<br>{figure('plain', key)}"
            assert row[2:4] == ["10", "9"] and row[5] == "4.9" and row[11] == "0.070"
        assert [cells[name][6].split("(")[1] for name in ("cheat", "better", "worse")] == ["1)", "2)", "6)"]
        assert cells["better"][1] == "start 0.05"
        assert {name: row[12] for name, row in cells.items()} == {
            "base": "", "same": "no", "better": "**better** by 0.038", "worse": "**worse** by 0.095",
            "cheat": "**worse** by 0.210", "alone": "one seed",
        }  # fmt: skip
        assert page.startswith("# A few\n") and "`the command`" in page and "commit abc1234" in page
        assert "Without a result in this folder: missing." in page and "results are in" not in page
        report.write_report(replace(sweep, seeds=(0, 1)), results, tmp_path / "more.md", "the command")
        assert "11 of 14 results are in this folder" in (tmp_path / "more.md").read_text()
        # cheat crosses all five others; 'same' has less loss than the base
        assert "In 6 of 15 pairs of rows" in page and "cheat (rank 1 by loss, 6 by Abs Rel)" in page

    def test_the_scatter_has_a_named_point_for_every_row(self, sweep, results):
        lines = report.read_lines([*sweep.rows.values()], results)
        figure = report.scatter(lines)
        far, near = ({text.get_text(): text.xy for text in axis.texts} for axis in figure.axes)
        assert set(far) | set(near) == {line.row.name for line in lines} and not set(far) & set(near)
        assert far["cheat"] == pytest.approx((0.71, 0.42)) and "base" in near
        report.plt.close(figure)

    def test_curves_over_minutes_end_where_the_run_ended(self, tmp_path, sweep):
        history = [{"step": 5, "minutes": 4.0, "pp": {"abs_rel": 0.4, "d1_all": 0.9}}]
        made_up(tmp_path, sweep.rows["base"], 0, 1.0, 0.2, history=history)
        (line,) = report.read_lines([sweep.rows["base"]], tmp_path)
        figure = report.over_minutes([line])
        for axis, key in zip(figure.axes, ("abs_rel", "d1_all"), strict=True):
            x, y = axis.lines[0].get_data()
            assert list(x) == [4, 10] and list(y) == [history[0]["pp"][key], line.results[0]["pp"][key]]
        report.plt.close(figure)

    def test_a_curve_over_pairs_for_each_kind_of_row_and_a_level_for_none(self, tmp_path):
        names = {"scratch_75": 75, "scratch_150": 150, "tuned_75": 75, "before": 0, "tuned_none": 0}
        text = "".join(f"[few.rows.{name}]\npairs = {pairs}\n" for name, pairs in names.items())
        sweep = recipes.read_sweeps(write_recipes(tmp_path / "s.toml", text))["few"]
        for place, (name, pairs) in enumerate(names.items()):
            for seed in (0, 1):
                error = 0.3 - 0.02 * place - 0.01 * seed
                made_up(tmp_path / "out", sweep.rows[name], seed, 1.0, error, used_pairs=pairs)
        figure = report.over_pairs(report.read_lines([*sweep.rows.values()], tmp_path / "out"))
        curves = {curve.get_label(): curve.lines[0].get_data() for curve in figure.axes[0].containers}
        assert {name: [list(x), [round(v, 3) for v in y]] for name, (x, y) in curves.items()} == {
            "scratch": [[75, 150], [0.295, 0.275]], "tuned": [[75], [0.255]],
        }  # fmt: skip
        levels = {line.get_label(): line for line in figure.axes[0].lines}
        assert levels["before"].get_ydata()[0] == pytest.approx(0.235) and levels["before"].get_color() == "grey"
        (tuned,) = (curve.lines[0] for curve in figure.axes[0].containers if curve.get_label() == "tuned")
        assert levels["tuned_none"].get_color() == tuned.get_color() != "grey"
        report.plt.close(figure)
        assert "Error over the number of pairs:\n\n![figure](R.png)" in self.page(sweep, tmp_path)

    @staticmethod
    def page(sweep, tmp_path):
        report.write_report(sweep, tmp_path / "out", tmp_path / "R.md", "")
        return (tmp_path / "R.md").read_text()

    def test_a_row_that_has_changed_since_is_refused(self, tmp_path, sweep, results):
        sweep.rows["base"] = replace(sweep.rows["base"], recipe=replace(TINY, zoom=0.5))
        with pytest.raises(ValueError, match=r"base.seed0.result.json is of another run, zoom 1.0 \(here 0.5\)"):
            report.write_report(sweep, results, tmp_path / "R.md", "")

    def test_report_alone_and_without_results(self, tmp_path, results, capsys):
        common = ["sweep", "few", "--report", "--recipes", str(tmp_path / "s.toml"), "--page", str(tmp_path / "R.md")]
        assert command.main([*common, "--output", str(results)]) == 0
        assert "--report" in (tmp_path / "R.md").read_text()
        assert command.main([*common, "--output", str(tmp_path / "nothing")]) == 2
        assert "holds no finished run with a test side, of base, same" in capsys.readouterr().err

    def test_one_row_gives_no_lesson_on_low_losses(self, tmp_path, sweep):
        made_up(tmp_path / "out", sweep.rows["base"], 0, 1.0, 0.2)
        assert "low loss" not in self.page(sweep, tmp_path)
        made_up(tmp_path / "out", sweep.rows["better"], 0, 0.9, 0.1)
        page = self.page(sweep, tmp_path)
        assert "In 0 of 1 pairs" in page and "A low loss is not good depth" not in page

    def test_a_switch_that_came_later_stands_where_it_changes_nothing(self, results):
        path = results / "base/seed0/result.json"
        older = json.loads(path.read_text())
        del older["zoom"], older["hints"]
        path.write_text(json.dumps(older))
        assert train.read_result(path, {"zoom": 1.0})["hints"] == [0.0, 0.0]
        with pytest.raises(ValueError, match=r"zoom 1.0 \(here 0.5\)"):
            train.read_result(path, {"zoom": 0.5})
