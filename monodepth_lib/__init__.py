"""Self-supervised depth, taught: one module for each notebook. Start with README.md and notebooks/01."""

from __future__ import annotations

import contextlib
import os
import time


def __getattr__(name: str):
    """Gives `monodepth_lib.load("unet_kitti").predict(picture)`; torch is imported only when `load` is used."""
    if name == "load":
        from .pictures import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def processor_is_busy() -> bool:
    """Whether other programs use the cores that this one will take. Only Linux shows it; elsewhere False."""
    running = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        for _ in range(5):  # the least of five looks: a short burst does not count
            with open("/proc/loadavg", encoding="ascii") as file:
                running.append(int(file.read().split()[3].split("/")[0]))  # programs that run now, ours among them
            time.sleep(0.002)
        return min(running) - 1 + len(os.sched_getaffinity(0)) > (os.cpu_count() or 1)
    return False


def choose_waiting() -> None:
    """Sets how OpenMP's threads wait for each other, unless the user has set it; torch reads it when it is imported.

    By default a waiting thread spins for 10 ms, which is fastest on a free machine. When other programs use the cores,
    it spins for a thread that is not running, and a step takes 30 times as long. So on a busy machine waiting threads
    sleep at once (a step takes twice as long as on a free one). Elsewhere they spin for 1 ms: programs may start later.
    """
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        if processor_is_busy():
            os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        else:
            os.environ["GOMP_SPINCOUNT"] = "50000"


choose_waiting()
