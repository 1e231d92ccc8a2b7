"""Memory that is kept between the steps, and given back after the last."""

from __future__ import annotations

import ctypes
import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from monodepth_lib import memory
from monodepth_lib.memory import kept_memory

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc has these settings"
)


def elsewhere(work: Callable[[], object]) -> object:
    """What `work` returns in a process of its own: here, earlier tests have left gaps whose pages were given back."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(work).result()


def new_pages(megabytes: int) -> int:
    """How many pages the system had to clear for a tensor that is written and dropped.

    Where a second is to fit into the first's place it must be smaller: what small things took since is missing there.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(megabytes << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """This process's memory in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def inside_and_outside() -> tuple[int, int]:
    with kept_memory():
        new_pages(64)
        inside = new_pages(60)
    new_pages(128)  # larger than the gap that the others left
    return inside, new_pages(120)


def inside_and_after_another() -> tuple[int, int]:
    with kept_memory():
        new_pages(64)
        with pytest.raises(ZeroDivisionError), kept_memory():
            raise ZeroDivisionError
        inside = new_pages(60)
    assert memory.depth == 0
    return inside, new_pages(56)


def given_back() -> int:
    with kept_memory():
        new_pages(256)
        kept = resident()
    return kept - resident()


def test_a_second_tensor_takes_the_pages_of_the_first():
    inside, outside = elsewhere(inside_and_outside)
    assert inside < 0.1 * outside


def test_what_is_free_goes_back_at_the_end():
    assert elsewhere(given_back) > 200 << 20


def test_the_outermost_decides():
    """Prediction inside training does not end what training asked for, and neither does an error in it."""
    inside, outside = elsewhere(inside_and_after_another)
    assert inside < 0.1 * outside


def test_without_glibc_it_does_nothing(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with kept_memory():
        assert memory.depth == 0
