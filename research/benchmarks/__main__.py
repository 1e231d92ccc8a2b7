"""`python -m research.benchmarks`: measures the library beside a plain reference, and prints the table.

Writes results.json (every repeat of every figure), results.md (the table) and growth.png. The machine should do nothing
else meanwhile.
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

from monodepth_lib import files

from . import growth, load, memory, predict, profiling, start, step
from .measure import Options, Row, machine
from .peer import Peer

ITEMS = ("step", "profile", "load", "predict", "memory", "start", "growth")


def number(value: float) -> str:
    """Three digits that say something: 0.0000021 is 2.1e-06, 1234.5 is 1234."""
    return (
        f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".") if abs(value) >= 1e-3 else f"{value:.1e}"
    )


def table(rows: list[Row], facts: dict, command: str) -> str:
    """The report as Markdown."""
    about = ", ".join(f"{key} {value}" for key, value in facts.items() if value is not None)
    lines = [
        f"`{command}`",
        "",
        f"Measured in one run on {about}. Medians; a ratio is ours / theirs.",
        "",
        "| item | what | ours | beside | theirs | ratio | target | reached |",
        "|---|---|---|---|---|---|---|---|",
    ]
    notes: list[str] = []
    for row in rows:
        mark = ""
        if row.note:
            if row.note not in notes:
                notes.append(row.note)
            mark = f" [{notes.index(row.note) + 1}]"
        ours = f"{number(median(row.ours))} {row.unit}".strip()
        theirs, ratio = (f"{number(median(row.theirs))} {row.unit}", number(row.value)) if row.theirs else ("", "")
        reached = {None: "", True: "yes", False: "**no**"}[row.reached]
        cells = (row.item, row.what + mark, ours, row.other, theirs, ratio, row.target, reached)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{place}. {note}" for place, note in enumerate(notes, 1)), ""])


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 done, 2 wrong arguments or data."""
    parser = argparse.ArgumentParser(
        prog="python -m research.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", default=",".join(ITEMS), help=f"items, separated by commas (default: all, {','.join(ITEMS)})")
    add("--repeats", type=int, default=5, help="how often each is measured (default: 5)")
    add("--quick", action="store_true", help="smallest sizes: to see that it runs, not how fast")
    add("--peer", metavar="FOLDER", help="a checkout of OniroAI/MonoDepth-PyTorch to measure beside")
    add("--data", metavar="FOLDER", help="a drive of colour pairs (default: the sample, enlarged to KITTI's size)")
    add("--threads", type=int, default=torch.get_num_threads(), help="torch's threads (default: torch's own choice)")
    add("--output", default="output/benchmarks", help="folder of the results (default: output/benchmarks)")
    options = parser.parse_args(arguments)
    only = [item.strip() for item in options.only.split(",")]
    if unknown := [item for item in only if item not in ITEMS]:
        parser.error(f"--only has {', '.join(unknown)}; it takes {', '.join(ITEMS)}")
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; it must be at least 1")
    torch.set_num_threads(options.threads)
    facts = machine(options.threads)
    command = " ".join(["python -m research.benchmarks", *(arguments if arguments is not None else sys.argv[1:])])
    try:
        peer = Peer(options.peer) if options.peer else None
        pictures = options.data or ("data/sample" if options.quick else None)
        rows: list[Row] = []
        with tempfile.TemporaryDirectory() as folder:
            asked = Options(Path(folder), pictures, options.repeats, options.quick)
            measures = {
                "step": lambda: step.run(asked, peer),
                "profile": lambda: profiling.run(asked),
                "load": lambda: load.run(asked, peer),
                "predict": lambda: predict.run(asked, peer),
                "memory": lambda: memory.run(asked, peer),
                "start": lambda: start.run(asked),
                "growth": lambda: growth.run(asked),
            }
            for item in ITEMS:
                if item in only:
                    print(f"measuring: {item}", file=sys.stderr)
                    rows += measures[item]()
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    output = files.project_path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    found = [{**asdict(row), "value": row.value, "reached": row.reached} for row in rows]
    results = {"command": command, "machine": facts, "rows": found}
    (output / "results.json").write_text(json.dumps(results, indent=1))
    text = table(rows, facts, command)
    (output / "results.md").write_text(text)
    if any(row.points for row in rows):
        growth.draw(rows, output / "growth.png")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
