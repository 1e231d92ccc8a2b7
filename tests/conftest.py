"""Fixtures that several test files share."""

import contextlib

import matplotlib
import pytest
import torch
from hypothesis import settings
from synthetic import make_drive, write_calibration

from monodepth_lib.networks import get_model

matplotlib.use("Agg")
settings.register_profile("repeatable", deadline=None, derandomize=True)  # a busy machine fails nothing
settings.load_profile("repeatable")
torch.set_num_threads(1)  # the networks here are too small to share between cores


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A data folder with 5 + 4 training pairs in two drives, 9 of validation and 5 of test (with true depth)."""
    root = tmp_path_factory.mktemp("data")
    make_drive(root / "train/2020_01_01_drive_0001_sync", range(5), seed=1)
    make_drive(root / "train/2020_01_01_drive_0002_sync", range(4), seed=2)
    make_drive(root / "vals/2020_01_01_drive_0003_sync", range(9), seed=3)
    make_drive(root / "test/2020_01_01_drive_0004_sync", range(5), seed=4, truth=True)
    write_calibration(root / "2020_01_01/calib_cam_to_cam.txt", focal=100.0, baseline=0.288, width=96)  # f·B/W = 0.3
    return root


@pytest.fixture
def tiny():
    """Makes the smallest Unet, the same one every time."""

    def make(seed: int = 0, width: int = 2, **options):
        torch.manual_seed(seed)
        return get_model("unet", base_channels=width, **options)

    return make


@pytest.fixture
def full_disk():
    """Within `with full_disk():` every file stops growing at 1 kB, with the operating system's own error."""
    resource = pytest.importorskip("resource", reason="files cannot be limited on this system")

    @contextlib.contextmanager
    def limit(size: int = 1000):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit
