"""Self-supervised depth, taught: one module for each notebook. Start with README.md and notebooks/01."""

from __future__ import annotations

import contextlib
import os
import time


def __getattr__(name: str):
    """`monodepth_lib.load("unet_kitti").predict(picture)`; torch is imported when it is asked for."""
    if name == "load":
        from .pictures import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def processor_is_busy() -> bool:
    """Do other programs run on the cores that ours will take? Seen on Linux alone."""
    running = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        for _ in range(5):  # a moment's activity is none: the least of five looks
            with open("/proc/loadavg", encoding="ascii") as file:
                running.append(int(file.read().split()[3].split("/")[0]))  # programs that run now, ours among them
            time.sleep(0.002)
        return min(running) - 1 + len(os.sched_getaffinity(0)) > (os.cpu_count() or 1)
    return False


def choose_waiting() -> None:
    """Chooses how OpenMP's threads wait for each other, unless the user has: before torch is imported, which reads it.

    As a rule they spin for 10 ms. That is quickest on a free machine. Where other programs want the cores, a thread
    spins for one that is not running, and a step takes 30 times as long. On a busy machine they sleep at once (a step
    takes twice as long as on a free one), elsewhere they spin for 1 ms: that helps when others come later.
    """
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        if processor_is_busy():
            os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        else:
            os.environ["GOMP_SPINCOUNT"] = "50000"


choose_waiting()
