"""The point cloud and the camera it needs, against pixels worked out by hand."""

import pytest
import torch

from monodepth_lib.depth import point_cloud, scale_camera


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
