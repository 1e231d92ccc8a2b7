"""Memory on a CPU: what one step's tensors leave is kept for the next step's."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # glibc's names for what `mallopt` sets, see malloc.h
DEFAULTS = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20}  # once blocks of 32 MB were freed
depth = 0  # of `kept_memory` inside `kept_memory`


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """While it lasts, memory that tensors leave stays with the process; then all that is free goes back to the system.

    glibc takes every block above 32 MB anew from the system and returns it at once, and the system clears each page
    when it is first touched. Training at 256x512 makes many such tensors in every step; what it costs the base code
    is a row of the benchmarks (`python -m benchmarks --only step --peer FOLDER`). Without glibc this does nothing.
    """
    global depth
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):
        yield
        return
    depth += 1
    if depth == 1:
        libc.mallopt(MMAP_MAX, 0)  # type: ignore[union-attr]
        libc.mallopt(TRIM_THRESHOLD, -1)  # type: ignore[union-attr]
    try:
        yield
    finally:
        depth -= 1
        if depth == 0:
            for name, value in DEFAULTS.items():
                libc.mallopt(name, value)  # type: ignore[union-attr]
            libc.malloc_trim(0)  # type: ignore[union-attr]
