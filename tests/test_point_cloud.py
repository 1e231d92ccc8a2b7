"""The point cloud and the camera it needs, against pixels worked out by hand; the PLY file and the 3-D view of it."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plyfile import PlyData

from monodepth_lib import widgets
from monodepth_lib.depth import point_cloud, scale_camera, viewer_points
from monodepth_lib.gif import write_ply


def test_points_by_hand():
    """f = 100 px, centre (1, 0): one pixel is 1/100 of the depth."""
    depth = torch.tensor([[10.0, 20.0, 40.0], [10.0, 0.0, 5.0]])
    points = point_cloud(depth, focal_px=100.0, centre_px=(1.0, 0.0))
    expected = [
        [[-0.1, 0.0, 10.0], [0.0, 0.0, 20.0], [0.4, 0.0, 40.0]],
        [[-0.1, 0.1, 10.0], [0.0, 0.0, 0.0], [0.05, 0.05, 5.0]],
    ]
    assert points.shape == (2, 3, 3)
    assert torch.allclose(points, torch.tensor(expected))


def test_a_point_projects_back_to_its_pixel():
    depth = torch.rand(12, 30) * 50 + 1
    x, y, z = point_cloud(depth, 70.0, (13.5, 4.0)).unbind(-1)
    assert torch.equal(z, depth)
    assert torch.allclose(70 * x / z + 13.5, torch.arange(30.0).expand(12, 30), atol=1e-4)
    assert torch.allclose(70 * y / z + 4, torch.arange(12.0)[:, None].expand(12, 30), atol=1e-4)


def test_a_wall_ahead_is_as_wide_as_its_picture():
    """60 px of a wall at 20 m, f = 60 px: 59 steps between pixel centres of 20/60 m each."""
    x = point_cloud(torch.full((2, 60), 20.0), 60.0, (29.5, 0.5))[0, :, 0]
    assert float(x[-1] - x[0]) == pytest.approx(59 / 3, rel=1e-5)
    assert float(x.sum()) == pytest.approx(0, abs=1e-4)


def test_depth_to_points_keeps_precision_and_gradient():
    depth = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    points = point_cloud(depth, 2.0, (1.0, 0.5))
    assert points.dtype == torch.float64
    points[0, 2, 0].backward()  # X = (2 - 1)·Z / 2
    assert depth.grad.tolist() == [[0, 0, 0.5], [0, 0, 0]]


def test_half_the_width_is_half_the_focal_length_and_the_same_place():
    assert scale_camera(720.0, (599.5, 179.5), 1200, (180, 600)) == (360.0, (299.5, 89.5))  # the middle stays it
    assert scale_camera(720.0, (609.5, 172.5), 1242, (375, 1242)) == (720.0, (609.5, 172.5))


def test_without_a_centre_the_middle_is_taken():
    assert scale_camera(100.0, None, 100, (3, 50)) == (50.0, (24.5, 1.0))


def test_a_point_does_not_depend_on_the_pictures_size():
    """The same ray at half the size: the middle between pixels 4 and 5 of 12 is pixel 2's centre of 6."""
    focal, centre = scale_camera(30.0, (6.1, 3.2), 12, (4, 6))
    small = point_cloud(torch.full((4, 6), 7.0), focal, centre)
    large = point_cloud(torch.full((8, 12), 7.0), 30.0, (6.1, 3.2))
    assert torch.allclose(small[1, 2], (large[2, 4] + large[3, 5]) / 2, atol=1e-6)


# --- the file, read by a reader that is not ours ---

# two rows of three points (X, Y, Z), and their colours; one is unknown (Z = 0), one 60 m away
POINTS = torch.tensor([[[-1.0, -2.0, 10.0], [0, 0, 0], [3, 1.5, 60]], [[0.5, 1, 5], [-0.25, 0, 20], [0, 1, 40]]])
COLOURS = np.array([[[255, 0, 0], [1, 2, 3], [9, 9, 9]], [[0, 255, 0], [0, 0, 255], [10, 200, 30]]], dtype=np.uint8)


def read(path):
    data = PlyData.read(path)
    (vertices,) = data.elements
    position = np.stack([vertices[name] for name in ("x", "y", "z")], axis=1)
    return data, vertices, position, np.stack([vertices[name] for name in ("red", "green", "blue")], axis=1)


def test_ply_by_hand(tmp_path):
    """y points up and z backwards: (X, -Y, -Z); unknown and far points are not in the file."""
    path = tmp_path / "new" / "street.ply"
    assert write_ply(path, POINTS, COLOURS, furthest=50) == 4
    data, vertices, position, colour = read(path)
    assert (data.text, data.byte_order) == (False, "<")
    assert vertices.name == "vertex"
    assert [(p.name, p.val_dtype) for p in vertices.properties] == [
        *((name, "f4") for name in ("x", "y", "z")),
        *((name, "u1") for name in ("red", "green", "blue")),
    ]
    assert position.tolist() == [[-1, 2, -10], [0.5, -1, -5], [-0.25, 0, -20], [0, -1, -40]]
    assert colour.tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 200, 30]]
    assert "camera looks along -z" in " ".join(data.comments)
    assert [p.name for p in path.parent.iterdir()] == ["street.ply"]


def test_everything_within_80_metres_is_written_unless_told(tmp_path):
    assert write_ply(tmp_path / "a.ply", POINTS, COLOURS) == 5
    assert write_ply(tmp_path / "b.ply", POINTS * 2, COLOURS) == 4  # one at 120 m


@given(st.integers(1, 30), st.integers(0, 2**31))
def test_what_is_read_is_what_was_written(tmp_path_factory, count, seed):
    generator = np.random.default_rng(seed)
    points = torch.from_numpy(generator.uniform(0.1, 79, (count, 3)).astype(np.float32))
    colours = generator.integers(0, 256, (count, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("ply") / "cloud.ply"
    assert write_ply(path, points, torch.from_numpy(colours)) == count
    _, _, position, colour = read(path)
    assert np.array_equal(position * [1, -1, -1], points.numpy())
    assert np.array_equal(colour, colours)


def test_the_turn_for_viewers_mirrors_nothing():
    right, down, ahead = torch.eye(3).unbind()
    points = torch.stack([right + ahead, down + ahead, ahead])
    turned, _ = viewer_points(points, np.zeros((3, 3), np.uint8))
    axes = np.stack([turned[0] - turned[2], turned[1] - turned[2], turned[2]])
    assert np.linalg.det(axes) == pytest.approx(1)


def test_numbers_that_are_none_are_left_out():
    points = torch.tensor([[1.0, 2, 3], [float("nan"), 2, 3], [1, 2, float("inf")], [1, 2, float("nan")], [1, 2, -3]])
    xyz, rgb = viewer_points(points, np.arange(15, dtype=np.uint8).reshape(5, 3), furthest=float("inf"))
    assert (xyz.tolist(), rgb.tolist()) == ([[1, -2, -3]], [[0, 1, 2]])


@pytest.mark.parametrize(
    "points, colours, named",
    [
        (POINTS, COLOURS[:1], r"colours \(1, 3, 3\) of uint8.*resize"),
        (POINTS, COLOURS / 255, "colours .* of float64"),
        (POINTS[..., :2], COLOURS[..., :2], r"points are \(2, 3, 2\)"),
        (POINTS * 0, COLOURS, "no point has a known depth up to 80.0 m"),
        (POINTS * 100, COLOURS, "raise furthest"),
    ],
)
def test_what_is_no_coloured_cloud_is_refused_and_nothing_written(tmp_path, points, colours, named):
    with pytest.raises(ValueError, match=named):
        write_ply(tmp_path / "a.ply", points, colours)
    assert not list(tmp_path.iterdir())


# --- the 3-D view ---


def wall(height: int = 4, width: int = 6, focal: float = 12.0):
    """A wall 10 m ahead, grey, but for a red pixel in its upper left corner."""
    colours = np.full((height, width, 3), 128, np.uint8)
    colours[0, 0] = 255, 0, 0
    return point_cloud(torch.full((height, width), 10.0), focal, (2.5, 1.5)), colours


def test_the_view_holds_the_points_as_the_file_does():
    points, colours = wall()
    (cloud,) = widgets.point_view(points, colours).objects
    xyz, _ = viewer_points(points, colours)
    assert np.array_equal(cloud.positions, xyz)
    assert [f"{colour:06x}" for colour in cloud.colors[:2]] == ["ff0000", "808080"]
    assert cloud.point_sizes == pytest.approx(np.full(24, 2 * 10 / 12), rel=1e-5)  # a pixel covers Z/f metres


def test_the_view_of_a_map_with_holes_has_sizes():
    depth = torch.full((4, 6), 10.0)
    depth[:, 1:5] = 0
    points = point_cloud(depth, 12.0, (2.5, 1.5))
    (cloud,) = widgets.point_view(points, wall()[1]).objects
    assert cloud.point_sizes == pytest.approx(np.full(8, 2 * 10 / 12), rel=1e-5)


def test_the_button_opens_the_view_below_itself():
    box = widgets.point_button(*wall())
    (button,) = box.children
    for _ in range(2):  # a second click shows it anew, not twice
        button.click()
        assert box.children[0] is button
        assert [type(child).__name__ for child in box.children[1:]] == ["Plot"]


def test_without_k3d_the_button_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "k3d", None)
    with pytest.raises(ImportError, match=r"needs k3d .*pip install -r requirements"):
        widgets.point_view(*wall())
    box = widgets.point_button(*wall())
    box.children[0].click()
    assert "pip install" in box.children[1].value
