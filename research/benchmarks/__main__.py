"""`python -m research.benchmarks`: the cost of training, prediction, loading and memory, fast and plain.

Every ratio compares medians of functions measured in turn in one run; run nothing else on the machine meanwhile. Writes
results.json (every repeat of every figure) and results.md (the table).

    python -m research.benchmarks --only step --peer ../older     beside this project at an older commit
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median

import torch

from monodepth_lib.commands import names, positive

from . import busy, load, memory, peer, predict, step
from .measure import Options, Row, machine

ITEMS = {"step": step.run, "predict": predict.run, "load": load.run, "memory": memory.run, "busy": busy.run}


def number(value: float) -> str:
    """Three significant digits: 0.0000021 is 2.1e-06, 1234.5 is 1234."""
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:#.3g}".rstrip(".") if abs(value) >= 1e-3 else f"{value:.1e}"


def table(rows: list[Row], facts: dict, command: str) -> str:
    """The report as Markdown."""
    about = ", ".join(f"{key} {value}" for key, value in facts.items() if value is not None)
    lines = [
        f"`{command}`",
        "",
        f"Measured in one run on {about}. Medians; a ratio is ours / theirs.",
        "",
        "| item | what | ours | beside | theirs | ratio |",
        "|---|---|---|---|---|---|",
    ]
    notes = [*dict.fromkeys(row.note for row in rows if row.note)]
    for row in rows:
        mark = f" [{notes.index(row.note) + 1}]" if row.note else ""
        theirs = f"{number(median(row.theirs))} {row.unit}" if row.theirs else ""
        ratio = number(row.ratio) if row.ratio is not None else ""
        cells = (row.item, row.what + mark, f"{number(median(row.ours))} {row.unit}", row.other, theirs, ratio)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{place}. {note}" for place, note in enumerate(notes, 1)), ""])


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 done, 2 wrong arguments or data."""
    parser = argparse.ArgumentParser(
        prog="python -m research.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", type=names, default=",".join(ITEMS), help=f"items, by commas (default: all, {','.join(ITEMS)})")
    add("--repeats", type=positive(int), default=5, help="how often each is measured (default: 5)")
    add("--quick", action="store_true", help="smallest sizes: to see that it runs, not how fast")
    add("--peer", type=Path, help="a checkout of this project or of OniroAI/MonoDepth-PyTorch to measure beside")
    add("--data", type=Path, help="a drive of colour pairs (default: the sample, enlarged to KITTI's size)")
    add("--threads", type=positive(int), default=torch.get_num_threads(), help="torch's (default: torch's own choice)")
    add("--device", default="cpu", help="of the item step: cuda adds half precision")
    add("--output", type=Path, default=Path("output/benchmarks"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    only = [item.strip() for item in options.only.split(",")]
    if unknown := [item for item in only if item not in ITEMS]:
        parser.error(f"--only has {', '.join(unknown)}; it takes {', '.join(ITEMS)}")
    torch.set_num_threads(options.threads)
    facts = machine(options.threads)
    command = " ".join(["python -m research.benchmarks", *(arguments if arguments is not None else sys.argv[1:])])
    try:
        beside = options.peer and options.peer.expanduser().resolve()
        if beside:
            peer.kind(beside)
        rows: list[Row] = []
        with tempfile.TemporaryDirectory() as folder:
            asked = Options(Path(folder), options.data, options.repeats, options.quick, beside, options.device)
            for item in only:
                print(f"measuring: {item}", file=sys.stderr)
                rows += ITEMS[item](asked)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    results = {"command": command, "machine": facts, "rows": [{**asdict(row), "ratio": row.ratio} for row in rows]}
    (options.output / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    text = table(rows, facts, command)
    (options.output / "results.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
