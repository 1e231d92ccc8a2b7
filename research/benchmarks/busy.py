"""Training while two other programs spin: whether the library's setting of OpenMP helps."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import torch

from .measure import Options, Row, child, in_turn
from .step import CASES, QUICK

NEIGHBOURS = 2
CODE = """
{imports}
import time, torch
torch.set_num_threads({threads})
from research.benchmarks.step import {cases}, ours
work = ours({cases}[0], True)
work()
start = time.perf_counter()
for _ in range({count}):
    work()
print((time.perf_counter() - start) / {count})
"""
IMPORTS = {"as the library sets it": "import monodepth_lib", "torch's own": "import torch"}


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Inside this context, this many programs each use a core, if they get one."""
    spin = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    programs = [subprocess.Popen(spin, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for program in programs:
            assert program.stdout is not None
            program.stdout.readline()  # it has begun
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def seconds(imports: str, quick: bool) -> float:
    """Seconds for a batch of steps of the class profile. OpenMP reads its setting when torch is first imported."""
    code = CODE.format(
        imports=imports, threads=torch.get_num_threads(), cases="QUICK" if quick else "CASES", count=1 if quick else 5
    )
    unset = dict.fromkeys(("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"))
    return float(child(code, **unset).split()[-1])


def run(options: Options) -> list[Row]:
    found = {}
    for busy in (False, True):
        with neighbours(NEIGHBOURS if busy else 0):
            contenders = {name: lambda code=code: seconds(code, options.quick) for name, code in IMPORTS.items()}
            found[busy] = in_turn(contenders, options)
    case = (QUICK if options.quick else CASES)[0]
    ours, other = IMPORTS
    what = f"{case.repeat} steps of {case}, {torch.get_num_threads()} threads"
    rows = []
    for busy, one in found.items():
        where = f"{NEIGHBOURS} spinning neighbours" if busy else "quiet"
        rows.append(Row("busy", f"{what}, {where}", "s", one[ours], other, one[other]))
    return [*rows, Row("busy", f"{what}, {NEIGHBOURS} neighbours", "s", found[True][ours], "quiet", found[False][ours])]
