"""Memory that is kept between the steps, and given back after the last."""

from __future__ import annotations

import ctypes
import resource
import sys

import pytest
import torch

from monodepth_lib import memory
from monodepth_lib.memory import kept_memory

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc has these settings"
)
PAGES = (64 << 20) // resource.getpagesize()


def new_pages(megabytes: int = 60) -> int:
    """How many pages the system had to clear for a tensor that is written and dropped."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(megabytes << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """This process's pages in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def test_a_second_tensor_takes_the_pages_of_the_first():
    with kept_memory():
        new_pages(64)  # a little more: aligned, a block does not fit into the gap of its equal
        assert new_pages() < 0.1 * PAGES
    assert new_pages() > 0.9 * PAGES  # as before: outside, each one's pages are new


def test_what_is_free_goes_back_at_the_end():
    with kept_memory():
        new_pages(256)
        kept = resident()
    assert kept - resident() > 3.5 * PAGES


def test_the_outermost_decides():
    """Prediction inside training does not end what training asked for, and neither does an error in it."""
    with kept_memory():
        new_pages(64)
        with pytest.raises(ZeroDivisionError), kept_memory():
            raise ZeroDivisionError
        assert new_pages() < 0.1 * PAGES
    assert memory.depth == 0


def test_without_glibc_it_does_nothing(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with kept_memory():
        assert memory.depth == 0
