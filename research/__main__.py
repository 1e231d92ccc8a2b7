"""`python -m research`: trains one recipe, or all rows of a sweep, and writes its page.

python -m research sweep choices --data KITTI --jobs 2     all missing runs, then research/RESULTS.md
python -m research train shipped --data KITTI              one row, by name; started again, it goes on
python -m research gap unet_kitti --data KITTI             a model's errors on pictures it learnt from, and on others
python -m research pack --data KITTI --output output/pack  training pairs, small, for a machine lent for minutes
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import as_completed
from pathlib import Path

# A waiting thread must sleep. By default it spins, and on a busy machine most of a run's processor time, which is its
# budget here, would go into spinning. torch reads this when it is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from monodepth_lib import files, kitti
from monodepth_lib.commands import count, here, positive
from monodepth_lib.commands.run import end_with_parent
from monodepth_lib.commands.sweep import execute, open_pool

from .batch import Pairs, Pictures, pack
from .gap import gap
from .recipe import Row, find_row, read_sweeps
from .report import write_report
from .train import Budget, described, read_result, train

RECIPES = files.project_root() / "research/recipes.toml"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m research", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", help="one recipe, by the name of its row; started again, it goes on")
    many = commands.add_parser("sweep", help="all runs of a sweep that are missing, then its page")
    small = commands.add_parser("pack", help="training pairs as small JPEG, with hints computed at native size")
    apart = commands.add_parser("gap", help="a model's errors on pictures that it learnt from, and on others")
    apart.add_argument("weights", help="a name in models/, or a .safetensors file")
    one.add_argument("row", help="a row of the recipe file, such as shipped")
    one.add_argument("--seed", type=count, default=0)
    one.add_argument("--from-sweep", action="store_true", help="end when standard input closes")
    one.add_argument("--device", default="cpu")
    one.add_argument("--precision", default="float32", choices=("float32", "bf16"))
    many.add_argument("sweep", help="a sweep of the recipe file, such as choices")
    many.add_argument("--rows", default="", help="names separated by commas (default: all)")
    many.add_argument("--seeds", type=count, nargs="+", help="default: the recipe file's")
    many.add_argument("--jobs", type=positive(int), default=1, help="runs at a time; they share the threads")
    many.add_argument("--cluster", default="", metavar="ADDRESS", help="run on the workers of Dask: tcp://host:8786")
    many.add_argument("--report", action="store_true", help="run nothing: write the page from the results on disk")
    many.add_argument("--page", type=here, help="its picture is written beside it (default: the recipe file's)")
    for command in (small, apart):
        command.add_argument("--also", default="train_colour", help="drives in colour, below --data; '' for none")
    small.add_argument("--size", type=int, nargs=2, default=(128, 416), metavar=("H", "W"))
    for command in (one, many):
        add = command.add_argument
        add("--minutes", type=positive(float), help="training time of a run (default: the recipe file's)")
        add("--steps", type=positive(int), help="end a run after this many steps instead")
        add("--every", type=count, default=0, help="also measure every so many steps (default: only at the end)")
        add("--threads", type=positive(int), default=torch.get_num_threads(), help="torch's threads, for all jobs")
        add("--val-drives", help="default: folder vals; none: no validation")
        add("--test-drives", help="default: stereo_2012 where there is one, else folder test; none: no test")
        add("--recipes", type=here, default=RECIPES, help="the file of the rows (default: research/recipes.toml)")
    for command in (one, many, small, apart):
        add = command.add_argument
        add("--data", type=here, default="data", help="folder with train/, vals/, stereo_2012/ or test/")
        add("--cameras", choices=list(kitti.CAMERAS), default="grey")
        add("--cache-dir", type=here, default="output/cache", help="decoded pictures (default: output/cache)")
    one.add_argument("--output", type=here, help="default: output/research/SWEEP/ROW/seedN")
    many.add_argument("--output", type=here, help="default: output/research/SWEEP, in it ROW/seedN")
    small.add_argument("--output", type=here, default="output/pack", help="default: output/pack")
    return parser.parse_args(arguments)


def pictures_of(options: argparse.Namespace) -> Pictures:
    sides = getattr(options, "val_drives", None), getattr(options, "test_drives", None)
    return Pictures(options.data, options.cameras, *sides, options.cache_dir)


def budget_of(options: argparse.Namespace, row: Row) -> Budget:
    """The budget: the row's minutes or steps unless `options` has others; a row of 0 minutes is only measured."""
    minutes = row.minutes if options.minutes is None or not row.minutes else options.minutes
    steps = (options.steps or (row.steps if options.minutes is None else None)) if row.minutes else None
    machine = {name: getattr(options, name) for name in ("device", "precision") if hasattr(options, name)}
    return Budget(minutes, steps, options.every, **machine)


def run_all(jobs: dict[Path, list[str]], count: int, cluster: str) -> list[Path]:
    """Runs `python -m research train` with the arguments of each folder, `count` at a time; returns the failed ones.

    The output of a run goes to log.txt in its folder; its last line is printed here. When stopped, it stops all runs.
    """
    failed: list[Path] = []
    with open_pool([None] * count, cluster) as (pool, stop, *others):
        waiting = {}
        for folder, arguments in jobs.items():
            command = ["-m", "research", "train", *arguments, "--output", str(folder), "--from-sweep"]
            waiting[pool.submit(execute, folder, {None: command}, files.project_root(), stop, *others)] = folder
        try:
            for future in as_completed(waiting):
                folder = waiting[future]
                lines = [
                    line
                    for line in (folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
                    if line.strip()
                ]
                if future.result():
                    failed.append(folder)
                print("FAILED: " * bool(future.result()) + lines[-1], flush=True)
        finally:
            stop.set()
    return failed


def run_sweep(options: argparse.Namespace, command: str) -> int:
    sweeps = read_sweeps(options.recipes)
    if options.sweep not in sweeps:
        raise ValueError(f"no sweep is named {options.sweep}; there are {', '.join(sweeps)}")
    sweep = sweeps[options.sweep]
    output, rows = options.output or here("output/research") / sweep.name, sweep.pick(options.rows)
    failed: list[Path] = []
    if not options.report:
        pictures = pictures_of(options)
        passed = ["--data", pictures.folder, "--cache-dir", pictures.cache_dir, "--cameras", options.cameras]
        passed += ["--recipes", options.recipes, "--every", options.every]
        passed += ["--threads", max(1, options.threads // options.jobs)]
        for name in ("minutes", "steps", "val_drives", "test_drives"):
            if (value := getattr(options, name)) is not None:
                passed += [f"--{name.replace('_', '-')}", value]
        jobs = {}
        for seed in options.seeds or sweep.seeds:
            for row in rows:
                folder = output / row.name / f"seed{seed}"
                if read_result(folder / "result.json", described(row.recipe, pictures, budget_of(options, row))):
                    print(f"{row.name}, seed {seed}: finished before", flush=True)
                    continue
                Pairs(row.recipe, pictures, seed)  # decodes and matches once, before several runs need it at a time
                jobs[folder] = [*map(str, (row.name, "--seed", seed, *passed))]
        failed = run_all(jobs, options.jobs, options.cluster)
    if failed:
        print(f"failed: {', '.join(map(str, failed))}, which hold log.txt", file=sys.stderr)
    page = options.page or files.project_root() / sweep.page
    try:
        print(write_report(sweep, output, page, command))
    except ValueError:
        if not failed:
            raise
    return 1 if failed else 0


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 done, 1 a run failed, 2 wrong arguments or data, 130 Ctrl-C."""
    options = parse(arguments)
    command = " ".join(["python -m research", *(sys.argv[1:] if arguments is None else arguments)])
    try:
        if options.command == "sweep":
            return run_sweep(options, command)
        if options.command == "gap":
            print("\n".join(gap(options.weights, pictures_of(options), options.also)))
            return 0
        if options.command == "pack":
            packed = pack(pictures_of(options), options.also, options.output, tuple(options.size))
            print(f"{options.output}: {packed} pairs")
            return 0
        if options.from_sweep:
            end_with_parent()
        torch.set_num_threads(options.threads)
        row = find_row(read_sweeps(options.recipes), options.row)
        output = options.output or here("output/research") / row.sweep / row.name / f"seed{options.seed}"
        with files.locked(output):
            train(row, pictures_of(options), output, budget_of(options, row), options.seed)
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1 if isinstance(error, ArithmeticError) else 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoints", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
