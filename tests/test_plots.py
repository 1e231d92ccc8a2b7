"""What is drawn from numbers."""

import numpy as np
from PIL import Image

from monodepth_lib import plots


def test_a_scan_is_drawn_in_its_pixels_near_over_far_and_nothing_else():
    picture = Image.fromarray(np.full((40, 300, 3), 200, np.uint8))
    depth = np.zeros((40, 300), np.float32)
    depth[10, 20], depth[11, 21] = 40, 5  # their dots overlap at (11, 21)
    depth[30, 100], depth[39, 299] = 79, 20
    depth[5, 5] = 81  # beyond the reach
    drawn = np.asarray(plots.scan_over_picture(picture, depth))
    assert drawn.shape[1] == 300 and drawn.shape[0] > 40  # a bar below
    view = drawn[:40].astype(int)
    dots = np.argwhere((view != 100).any(-1)).tolist()
    one, other = [[10, 20], [10, 21], [11, 20]], [[11, 21], [11, 22], [12, 21], [12, 22]]
    assert dots == [*one, *other, [30, 100], [30, 101], [31, 100], [31, 101], [39, 299]]
    near, middle, far, furthest = (view[place].sum() for place in ((11, 21), (39, 299), (10, 20), (30, 100)))
    assert near > middle > far > furthest  # bright is near
    assert (view[11, 21] == view[12, 22]).all()


def test_a_picture_without_a_scan_is_drawn_without_dots():
    drawn = np.asarray(plots.scan_over_picture(Image.new("RGB", (300, 40), "white"), np.zeros((40, 300))))
    assert (drawn[:40] == 127).all()
