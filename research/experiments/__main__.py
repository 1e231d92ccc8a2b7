"""`python -m research.experiments`: trains one recipe, or every row of a sweep, and writes the pages of results."""

from __future__ import annotations

import argparse
import itertools
import signal
import sys

import torch

from monodepth_lib import files, kitti

from . import long, report, run, sweep

SHARED = ("data", "minutes", "steps", "cameras", "val_drives", "test_drives", "cache_dir", "sweep")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m research.experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", help="one recipe, by the name of its row; started again, it goes on")
    many = commands.add_parser("sweep", help="all runs that are missing, then the page of results")
    page = commands.add_parser("page", help="the page of finished runs of `train`")
    page.add_argument("runs", nargs="+", help="their folders")
    one.add_argument("row", help="a row of the sweep file, such as everything")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--every", type=int, default=300, help="measure and log after so many steps (0: at the end alone)")
    many.add_argument("--rows", default="", help="names separated by commas (default: all but those of hours)")
    many.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    many.add_argument("--jobs", type=int, default=1, help="runs at a time; they share the threads")
    many.add_argument("--report", action="store_true", help="run nothing: write the page from the results on disk")
    for command, written in ((many, "experiments/RESULTS.md"), (page, "experiments/LONG.md")):
        command.add_argument("--page", default=written, help="its picture is written beside it (default: %(default)s)")
    for command in (one, many, page):
        add = command.add_argument
        add("--data", default="data", help="folder with train/, vals/ and stereo_2012/ or test/ (default: data)")
        add("--threads", type=int, default=torch.get_num_threads(), help="torch's threads, of all jobs together")
        add("--cameras", choices=list(kitti.CAMERAS), default="grey")
        add("--cache-dir", default="output/cache", help="decoded pictures go here (default: output/cache)")
    for command, output in ((one, "output/kitti"), (many, "output/experiments")):
        add = command.add_argument
        add("--output", default=output, help="default: %(default)s")
        add("--minutes", type=float, default=10, help="training time of a run (default: 10)")
        add("--steps", type=int, help="end a run after so many steps instead")
        add("--val-drives", help="default: folder vals; none: no validation")
        add("--test-drives", help="default: stereo_2012 where there is one, else folder test; none: no test")
        add("--sweep", default="experiments/sweep.toml", help="the file with the rows (default: %(default)s)")
    options = parser.parse_args(arguments)
    numbers = [getattr(options, name, None) for name in ("minutes", "steps", "threads", "jobs")]
    if any(number is not None and number <= 0 for number in numbers):
        parser.error("--minutes, --steps, --threads and --jobs must be above 0")
    return options


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 done, 1 a run failed, 2 wrong arguments or data, 130 Ctrl-C."""
    options = parse(arguments)
    command = " ".join(["python -m research.experiments", *(sys.argv[1:] if arguments is None else arguments)])
    failed: list[str] = []
    try:
        if options.command == "page":
            torch.set_num_threads(options.threads)
            pictures = run.Pictures(options.data, options.cameras, cache_dir=options.cache_dir)
            folders = [files.project_path(folder) for folder in options.runs]
            log(long.write_long(folders, pictures, files.project_path(options.page), command))
            return 0
        output = files.project_path(options.output)
        pictures = run.Pictures(
            options.data, options.cameras, options.val_drives, options.test_drives, options.cache_dir
        )  # fmt: skip
        rows = sweep.read_rows(files.project_path(options.sweep))
        if options.command == "train":
            torch.set_num_threads(options.threads)
            row = sweep.pick(rows, options.row)[0]
            budget = dict(minutes=options.minutes, steps=options.steps, every=options.every)
            with files.locked(output):
                run.train(row.name, row.recipe, pictures, output, seed=options.seed, log=log, **budget)
            return 0
        picked = sweep.pick(rows, options.rows)
        if not options.report:
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` ends the runs, too, as Ctrl-C does
            for row in picked:  # once, before several runs at a time would do it
                pictures.prepare(row.recipe)
            values = {name: getattr(options, name) for name in SHARED}
            passed = [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value is not None]
            passed += ["--every=0", f"--threads={max(1, options.threads // options.jobs)}"]
            runs = {}
            for seed, row in itertools.product(options.seeds, picked):
                path = output / row.name / f"seed{seed}/result.json"
                if run.read_result(path, run.described(row.recipe, pictures, options.minutes, options.steps)):
                    log(f"{row.name}, seed {seed}: finished before")
                else:
                    runs[row.name, seed] = [*passed, f"--seed={seed}"]
            failed = sweep.run_all(runs, output, options.jobs, log)
        log(report.write_report(sweep.pick(rows, ""), output, files.project_path(options.page), command))
    except (ValueError, OSError, ArithmeticError) as error:
        print(error, file=sys.stderr)
        return 1 if isinstance(error, ArithmeticError) else 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoints", file=sys.stderr)
        return 130
    if failed:
        print(f"failed: {'; '.join(failed)}; their folders in {output} hold log.txt", file=sys.stderr)
    return 1 if failed else 0


def log(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
