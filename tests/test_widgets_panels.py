"""The notebooks' panels: every control changes the picture, and what cannot be drawn is said."""

import time
from types import SimpleNamespace

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image

from monodepth_lib import checkpoints, kitti, losses, widgets

# --- 01 ---


def test_views_panel_browses_and_moves_the_right_view(tmp_path):
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for index in range(2):
        paths = [tmp_path / f"{name}{index}.png" for name in ("left", "right")]
        for path in paths:
            values = (255 * torch.rand(16, 80, 3, generator=generator)).byte().numpy()
            Image.fromarray(values).save(path)
        pairs.append(kitti.Pair(tmp_path, *paths))
    panel = widgets.views_panel(pairs)
    assert {name: (c.min, c.max) for name, c in panel.controls.items()}["pair"] == (0, 1)
    for name, value in {"pair": 1, "shift": 60, "rows": -3}.items():
        before = bytes(panel.picture.value)
        panel.controls[name].value = value
        assert bytes(panel.picture.value) != before


def test_views_panel_at_the_true_shift_shows_no_difference(tmp_path):
    wide = (255 * torch.rand(16, 90, 3, generator=torch.Generator().manual_seed(0))).byte().numpy()
    paths = tmp_path / "left.png", tmp_path / "right.png"
    for path, values in zip(paths, (wide[:, :80], wide[:, 10:]), strict=True):
        Image.fromarray(values).save(path)
    panel = widgets.views_panel([kitti.Pair(tmp_path, *paths)])
    below = 16 + 2 * widgets.LINE  # the second row of tiles, each 16 px tall under its title

    def darkest(image):  # of the difference, the fourth tile
        return np.asarray(image)[below : below + 16, 80:].max()

    assert darkest(panel.image(shift=10)) < darkest(panel.image(shift=9))
    assert darkest(panel.image(shift=10, rows=2)) > darkest(panel.image(shift=10))
    assert all(slider.continuous_update for slider in panel.controls.values())


def test_rays_panel_moves_with_every_slider_and_says_the_disparity(monkeypatch):
    charts = []
    chart = widgets.Chart
    monkeypatch.setattr(widgets, "Chart", lambda *given: charts.append(given) or chart(*given))
    panel = widgets.rays_panel()
    title = charts[0][1][-1]
    for name, value, disparity in (("Z", 14, 25.0), ("focal", 980, 35.0), ("baseline", 0.2, 14.0), ("X", -2, 14.0)):
        before = bytes(panel.picture.value)
        panel.controls[name].value = value
        assert bytes(panel.picture.value) != before
        assert panel.controls[name].continuous_update
        assert f"= {disparity} px" in title.get_text()


# --- 02 ---


def test_augment_panel_changes_both_views_alike():
    generator = torch.Generator().manual_seed(0)
    one = Image.fromarray((255 * torch.rand(16, 48, 3, generator=generator)).byte().numpy())
    panel = widgets.augment_panel({"left_image": one, "right_image": one, "name": "drive/0"}, width=48)
    values = {"gamma": 1.2, "brightness": 0.5, "red": 0.8, "green": 1.2, "blue": 0.9, "flip": True}
    assert list(panel.controls) == list(values)
    for name, value in values.items():
        before = bytes(panel.picture.value)
        panel.controls[name].value = value
        assert bytes(panel.picture.value) != before
        drawn = np.asarray(panel.image())[widgets.LINE :]
        assert np.array_equal(drawn[:, :48], drawn[:, 48:])


# --- 03 ---


def test_warp_panel_moves_with_every_slider_and_shows_the_best_shift():
    generator = torch.Generator().manual_seed(0)
    right = torch.rand(1, 3, 16, 48, generator=generator)
    left = right.roll(3, dims=-1)
    panel = widgets.warp_panel(left, right, truth=torch.full((16, 48), 3 / 48), limit=8)
    seen = {bytes(panel.picture.value)}
    for name, value in (("shift", 3), ("row", 2), ("column", 30), ("size", 7), ("shift", 4)):
        assert panel.controls[name].continuous_update
        panel.controls[name].value = value
        seen.add(bytes(panel.picture.value))
    assert len(seen) == 6
    without_truth = widgets.warp_panel(left, right, limit=8).image(shift=3, row=2, column=30, size=7)
    assert panel.image(shift=3).tobytes() != without_truth.tobytes()


def test_warp_panel_draws_the_librarys_cost_of_the_rectangle(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    left, right = torch.rand(2, 1, 3, 16, 48, generator=generator)
    charts = []
    chart = widgets.Chart
    monkeypatch.setattr(widgets, "Chart", lambda *given: charts.append(given) or chart(*given))
    panel = widgets.warp_panel(left, right, limit=8)
    for size, rows, columns in ((5, slice(5, 10), slice(18, 23)), (11, slice(2, 13), slice(15, 26))):
        panel.image(shift=5, row=7, column=20, size=size)
        curve, *_, words = charts[0][1]
        for shift in range(9):
            fetched = losses.warp(right, torch.full((1, 1, 16, 48), -shift / 48))
            expected = losses.photometric_error(left, fetched)[0, 0, rows, columns].mean()
            assert curve.get_ydata()[shift] == pytest.approx(float(expected), abs=1e-5)
        assert f"cost {float(curve.get_ydata()[5]):.3f} at 5 px" in words.get_text()


def test_in_the_rectangle_alone_the_right_view_stands():
    left, right = torch.zeros(1, 3, 26, 52), torch.ones(1, 3, 26, 52)
    panel = widgets.warp_panel(left, right, limit=4)
    shown = np.asarray(panel.image(shift=2, row=12, column=20, size=9))[widgets.LINE :, : widgets.WIDTH // 2]
    inside = shown[8 * 8 + 8 : 17 * 8 - 8, 16 * 8 + 8 : 25 * 8 - 8]  # 416 px for 52: each pixel is 8 wide
    assert (inside == 255).all()
    assert (shown[: 7 * 8, : 15 * 8] == 0).all()


def heard(panel, x: float, y: float, kind: str = "mousedown", buttons: int = 1) -> None:
    """What the browser sends: kind of event and place in px of the picture."""
    for event in panel.pointer:
        if kind in event.watched_events:
            event._dom_handlers({"type": kind, "buttons": buttons, "dataX": x, "dataY": y})


def test_a_click_on_a_picture_moves_the_rectangle_and_one_on_the_curve_the_shift():
    generator = torch.Generator().manual_seed(0)
    left, right = torch.rand(2, 1, 3, 26, 52, generator=generator)
    panel = widgets.warp_panel(left, right, limit=8)
    controls, half, tile = panel.controls, widgets.WIDTH // 2, 208 + widgets.LINE
    drawn = []
    draw = panel.draw
    panel.draw = lambda **values: drawn.append(values) or draw(**values)

    def at():
        return controls["row"].value, controls["column"].value, controls["shift"].value

    heard(panel, 20 * 8 + 4, widgets.LINE + 12 * 8 + 4)  # in the left view
    assert at() == (12, 20, 0) and len(drawn) == 1  # two controls, one picture
    heard(panel, half + 30 * 8 + 4, tile + widgets.LINE + 5 * 8 + 4)  # in the SSIM picture
    assert at() == (5, 30, 0)
    controls["shift"].value = 3
    heard(panel, half + 10 * 8 + 4, widgets.LINE + 5 * 8 + 4)  # in the right view: the frame comes to the pointer
    assert at() == (5, 13, 3)
    before = at(), len(drawn)
    heard(panel, 100, 5)  # on a title
    heard(panel, 300, 200, "mousemove", buttons=0)  # no button pressed: nothing is dragged
    heard(panel, 300, 2 * tile + 10)  # on the colour bar
    assert (at(), len(drawn)) == before
    heard(panel, 164, widgets.LINE + 100, "mousemove")
    assert at() == (12, 20, 3)
    for x in range(100, 820, 100):  # from the left end of the curve to the right
        heard(panel, x, panel.image().height - 120)
        assert controls["shift"].value in range(9)
    assert controls["shift"].value == 8


def test_free_panel_runs_anew_with_each_weight_and_keeps_its_runs():
    truth = torch.full((8, 24), 0.05)
    truth[:, :3] = 0  # unknown
    asked = []

    def run(start, loss):
        asked.append((start, loss.ssim_weight, loss.smoothness_weight, loss.consistency_weight))
        return torch.full((1, 2, 8, 24), start + 0.01 * len(asked))

    panel = widgets.free_panel(run, truth, lambda both: {"error (px)": float((both[0, 0] - truth).abs().mean())})
    for name, value in (("start", 0.15), ("alpha", 0.0), ("smoothness", 1.0), ("consistency", 0.0)):
        assert not panel.controls[name].continuous_update  # a run takes seconds
        before = bytes(panel.picture.value)
        panel.controls[name].value = value
        assert bytes(panel.picture.value) != before
    assert asked[0] == (0.03, 0.85, 0.1, 1.0) and asked[-1] == (0.15, 0.0, 1.0, 0.0)
    panel.controls["consistency"].value = 1.0
    assert len(asked) == 5


@pytest.mark.parametrize("size", [(16, 48), (37, 124)])
def test_pictures_are_as_wide_as_the_page_so_that_letters_keep_their_size(size):
    left, right = torch.rand(2, 1, 3, *size, generator=torch.Generator().manual_seed(0))
    features = [torch.rand(2, *size, generator=torch.Generator().manual_seed(1))]
    panels = [
        widgets.warp_panel(left, right, limit=4),
        widgets.features_panel(left[0], features),
        widgets.epochs_panel(left[0], {0: features[0][0], 1: features[0][1]}, {"loss": {0: 1.0, 1: 0.5}}),
    ]
    assert [panel.image().width for panel in panels] == [widgets.WIDTH] * 3


def test_terms_panel_ranks_the_answers_by_the_loss_at_its_weights(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    left, right = torch.rand(2, 1, 3, 32, 64, generator=generator)
    rough = 0.3 * torch.rand(1, 2, 32, 64, generator=generator)
    sizes = [(32, 64), (16, 32), (8, 16), (4, 8)]
    answers = {"flat": losses.pyramid(torch.full_like(rough, 0.1), sizes), "rough": losses.pyramid(rough, sizes)}
    panel = widgets.terms_panel(answers, left, right)
    for name, value in (("alpha", 0.25), ("smoothness", 10.0), ("consistency", 0.0)):
        before = bytes(panel.picture.value)
        panel.controls[name].value = value
        assert bytes(panel.picture.value) != before
    with pytest.raises(TypeError):
        panel.image(alpha="much")
    figures = []
    monkeypatch.setattr(widgets.plots, "figure_image", lambda shown: figures.append(shown) or Image.new("RGB", (8, 8)))
    for smoothness in (0.0, 1000.0):
        panel.image(alpha=0.85, smoothness=smoothness, consistency=0.0)
        loss = losses.MonodepthLoss(smoothness_weight=smoothness, consistency_weight=0.0)
        totals = {name: float(loss(answer, left, right)[0]) for name, answer in answers.items()}
        order = sorted(totals, key=lambda name: -totals[name])  # from below: the best is on top
        axis = figures[-1].axes[0]
        assert [label.get_text() for label in axis.get_yticklabels()] == order
        assert [text.get_text() for text in axis.texts] == [f"{totals[name]:.3f}" for name in order]
        ends = [max(bar.get_x() + bar.get_width() for bar in row) for row in zip(*axis.containers, strict=True)]
        assert ends == pytest.approx([totals[name] for name in order], rel=1e-4)


# --- 04 ---


def test_features_panel_shows_another_channel_and_another_level():
    generator = torch.Generator().manual_seed(0)
    features = [torch.rand(c, 16 // n, 48 // n, generator=generator) for c, n in ((4, 1), (8, 2), (3, 4))]
    panel = widgets.features_panel(torch.rand(3, 16, 48, generator=generator), features)
    assert panel.controls["channel"].max == 2
    for name in ("level", "channel"):
        before = bytes(panel.picture.value)
        panel.controls[name].value = 2
        assert bytes(panel.picture.value) != before


# --- 05 ---


def test_epochs_panel_shows_the_epoch_or_the_one_kept_before_it():
    generator = torch.Generator().manual_seed(0)
    snapshots = {epoch: torch.rand(16, 48, generator=generator) for epoch in (0, 2, 3)}
    curves = {"loss": {1: 1.5, 2: 1.2, 3: 1.1}, "Abs Rel": {0: 0.8, 1: 0.5, 2: 0.4, 3: 0.3}}
    panel = widgets.epochs_panel(torch.rand(3, 16, 48, generator=generator), snapshots, curves)
    slider = panel.controls["epoch"]
    assert (slider.min, slider.max, slider.value) == (0, 3, 3)
    seen = {bytes(panel.picture.value)}
    for epoch in (0, 1, 2):
        slider.value = epoch
        seen.add(bytes(panel.picture.value))
    assert len(seen) == 4


@pytest.mark.parametrize("panel", ["features", "epochs"])
def test_panels_that_only_look_up_drag_live_and_move_fast(panel):
    picture, maps = torch.rand(3, 48, 160), {epoch: torch.rand(48, 160) for epoch in range(41)}
    curve = {epoch: 1.0 / (epoch + 1) for epoch in maps}
    made = {
        "features": lambda: widgets.features_panel(picture, [torch.rand(8, 48 // n, 160 // n) for n in (1, 2, 4)]),
        "epochs": lambda: widgets.epochs_panel(picture, maps, {"loss": curve, "Abs Rel": curve}),
    }[panel]()
    assert all(control.continuous_update for control in made.controls.values())
    name = next(iter(made.controls))
    took = []
    for value in (0, 1, 2):
        started = time.process_time()
        made.image(**{name: value})
        took.append(time.process_time() - started)
    assert min(took) < 0.15


def test_the_chart_below_the_epochs_panel_says_where_each_epoch_stands():
    chart, places, foot = widgets.curves_chart({"loss": {0: 1.0, 5: 0.7, 10: 0.5}}, 0, 10)
    assert list(places) == list(range(11))
    assert np.diff(list(places.values())) == pytest.approx(places[1] - places[0], abs=1e-6)
    assert 0 < places[0] < places[10] < chart.width
    assert 0 < foot < chart.height
    # where the curve begins and ends it has left its colour
    blue = (np.asarray(chart).astype(int) * [-1, -1, 2]).sum(-1)[: int(foot)] > 100
    assert blue[:, round(places[0])].any() and blue[:, round(places[10])].any()


def test_the_live_curve_draws_what_a_run_has_written(tmp_path, capsys):
    live = widgets.LiveCurve(tmp_path, epochs=3)
    live.log("no history yet")
    assert len(live.children) == 1
    seen = set()
    rows = []
    for epoch in (1, 2):
        rows.append({"epoch": epoch, "train_loss": 1.0 / epoch, "val_loss": 1.2 / epoch})
        checkpoints.write_history(rows, tmp_path / "history.csv")
        live.log(f"epoch {epoch}")
        assert live.message.value == f"epoch {epoch} of 3"
        seen.add(bytes(live.picture.value))
    assert len(seen) == 2
    assert live.picture in live.children
    assert capsys.readouterr().out == "no history yet\nepoch 1\nepoch 2\n"


def test_a_live_curve_is_one_line_where_nobody_looks(tmp_path):
    said = repr(widgets.LiveCurve(tmp_path, epochs=3))
    assert said.count("\n") == 0
    assert "PNG" not in said


# --- 06 ---


class FourScales(torch.nn.Module):
    """Answers with the picture's brightness as disparity, at four scales."""

    size = (8, 24)

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(0.1))

    def forward(self, images):
        grey = images.mean(1, keepdim=True).expand(-1, 2, -1, -1) * self.gain + 0.005
        return [torch.nn.functional.avg_pool2d(grey, 2**scale) for scale in range(4)]


@pytest.fixture
def street(tmp_path):
    """Two pairs of noise with true depth, 16 x 48, and the calibration beside them."""
    cameras = {"02": 0.0, "03": -20.0}
    lines = [f"P_rect_{name}: 40 0 24 {by} 0 40 8 0 0 0 1 0\nS_rect_{name}: 48 16" for name, by in cameras.items()]
    (tmp_path / "calib_cam_to_cam.txt").write_text("\n".join(lines))
    generator = np.random.default_rng(0)
    pairs = []
    for index in range(2):
        path, truth = tmp_path / f"{index}.png", tmp_path / f"truth{index}.png"
        Image.fromarray(generator.integers(0, 255, (16, 48, 3), np.uint8)).save(path)
        Image.fromarray((256 * generator.uniform(4, 60, (16, 48))).astype(np.uint16)).save(truth)
        pairs.append(kitti.Pair(tmp_path, path, path, truth=truth, truth_kind="depth"))
    return pairs


MOVES = {"frame": 0, "scale": 2, "reach": (2, 30), "row": 1, "column": 20, "post_processing": False, "error_map": True}


def test_testing_panel_shows_each_control(street):
    panel = widgets.testing_panel(FourScales(), street)
    assert set(panel.controls) == set(MOVES)
    for name, value in MOVES.items():
        before = bytes(panel.picture.value)
        panel.controls[name].value = value
        assert bytes(panel.picture.value) != before, name
        assert panel.message.value == ""


def test_testing_panel_predicts_a_frame_once(street):
    model = FourScales()
    seen = []
    model.register_forward_hook(lambda *_: seen.append(1))
    panel = widgets.testing_panel(model, street)
    for row in (0, 1, 2):
        panel.controls["row"].value = row
    assert len(seen) == 1
    panel.controls["frame"].value = 0
    assert len(seen) == 2


def test_testing_panel_goes_without_truth_and_says_what_cannot_be_read(street):
    bare = [kitti.Pair(pair.folder, pair.left, pair.right) for pair in street]
    panel = widgets.testing_panel(FourScales(), bare)
    panel.controls["error_map"].value = True
    assert panel.message.value == ""
    bare[0].left.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="cannot be read"):
        panel.controls["frame"].value = 0
    assert "cannot be read" in panel.message.value


def test_a_click_reads_the_depth_there(street):
    panel = widgets.testing_panel(FourScales(), street)
    click = panel.pointer[0]._dom_handlers.callbacks[0]
    click({"type": "mousedown", "dataX": 416 + 208, "dataY": 28 + 70})
    height, width = FourScales().size
    assert panel.controls["column"].value == width // 2
    assert panel.controls["row"].value == int(70 / 139 * height)
    click({"type": "mousedown", "dataX": 10, "dataY": 5})  # a title
    assert panel.controls["column"].value == width // 2


def test_two_points_are_moved_and_measured():
    metres = np.full((40, 80), 10.0, np.float32)
    panel = widgets.measure_panel(Image.new("RGB", (80, 40)), metres, focal_px=20.0)
    said = []
    picture = bytes(panel.picture.value)
    click = panel.pointer[0]._dom_handlers.callbacks[0]
    click({"type": "mousedown", "dataX": 416 + 26, "dataY": 28 + 26})  # nearer to A
    assert (panel.controls["a_row"].value, panel.controls["a_column"].value) == (5, 5)
    assert bytes(panel.picture.value) != picture
    click({"type": "mousedown", "dataX": 415, "dataY": 28 + 26})
    assert (panel.controls["b_row"].value, panel.controls["b_column"].value) == (5, 79)
    click({"type": "mousedown", "dataX": 415, "dataY": 2000})
    assert (panel.controls["b_row"].value, panel.controls["b_column"].value) == (5, 79)
    text = widgets.ImageDraw.ImageDraw.text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(widgets.ImageDraw.ImageDraw, "text", lambda *a, **k: said.append(a[2]) or text(*a, **k))
        panel.image(a_row=5, a_column=10, b_row=5, b_column=30)
    assert "A: 10.0 m ahead,   B: 10.0 m ahead,   from A to B: 10.0 m" in said  # 20 px of 10 m / 20 px


def test_an_uploaded_picture_takes_the_place_of_the_file(tmp_path):
    Image.new("RGB", (2000, 500), "red").save(tmp_path / "mine.png")
    upload = ipywidgets.FileUpload()
    assert widgets.uploaded(upload, tmp_path / "mine.png").size == (1248, 312)
    Image.new("RGB", (64, 32), "blue").save(tmp_path / "other.png")
    given = SimpleNamespace(
        value=({"name": "other.png", "content": memoryview((tmp_path / "other.png").read_bytes())},)
    )
    assert widgets.uploaded(given, tmp_path / "mine.png").getpixel((0, 0)) == (0, 0, 255)


# --- 07 ---


def test_film_panel_moves_and_tells_an_error(street):
    clip = np.random.default_rng(1).uniform(0.01, 0.1, (2, 8, 24)).astype(np.float32)
    panel = widgets.film_panel(street, clip)
    before = bytes(panel.picture.value)
    panel.controls["frame"].value = 0
    assert bytes(panel.picture.value) != before
    street[1].left.write_bytes(b"no picture")
    broken = widgets.film_panel(street[:1] * 2 + street[1:], [*clip, clip[0]], limits=(0.0, 0.1))
    with pytest.raises(ValueError, match="cannot be read"):
        broken.controls["frame"].value = 2
    assert "cannot be read" in broken.message.value


def test_a_point_is_drawn_where_it_is_seen_from_above():
    points = torch.zeros(1, 5, 3)  # unknown ones between them: no surface
    points[0, ::2] = torch.tensor([[5.0, 0.0, 20.0], [5.0, -9.0, 20.0], [0.0, 0.0, 70.0]])  # one too high, one too far
    colours = torch.zeros(3, 1, 5)
    colours[[0, 1, 2], 0, [0, 2, 4]] = 1
    view = np.asarray(widgets.plots.from_above(points, colours))
    rows, columns = np.nonzero((view == [255, 0, 0]).all(-1))
    left = widgets.plots.MARGIN  # 8 pixels a metre: 20 of 50 m ahead, 5 m right of the camera, which stands at 20 m
    assert (rows.min(), rows.max(), columns.min() - left, columns.max() - left) == (240, 241, 200, 201)
    assert not (view == [0, 255, 0]).all(-1).any() and not (view == [0, 0, 255]).all(-1).any()
