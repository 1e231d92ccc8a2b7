"""Peak memory of training steps, each in a process of its own, and memory while a long drive is predicted."""

from __future__ import annotations

import json
from pathlib import Path

from .measure import Options, Row, child, memory
from .step import CASES, QUICK

FRAMES = 4544  # of 2011_10_03_drive_0027, the longest of the lab's drives
NOTE = "less what importing torch takes; with what each imports beside it"
STEPS = """
from pathlib import Path
from research.benchmarks import measure, step
work = {work}
for _ in range(3):
    work()
"""


def peak(code: str) -> float:
    """Peak memory in MB of a process that runs `code`."""
    return float(child(code + "\nfrom research.benchmarks.measure import memory\nprint(memory())").split()[-1])


def run(options: Options) -> list[Row]:
    rows = []
    for place, case in enumerate(QUICK[:1] if options.quick else CASES):
        cases = f"step.{'QUICK' if options.quick else 'CASES'}[{place}]"
        works = {"fast": f"step.ours({cases}, True)", "plain": f"step.ours({cases}, False)"}
        if options.peer:
            from .peer import kind

            name = kind(options.peer)
            if name == "older" or case.network == "resnet18_md":
                works[name] = f"step.theirs({cases}, Path({str(options.peer)!r}))"
        used: dict[str, list[float]] = {key: [] for key in works}
        for _ in range(options.repeats):
            torch_alone = peak("import torch")
            for key, work in works.items():
                used[key].append(peak(STEPS.format(work=work)) - torch_alone)
        for other in [*works][1:]:
            rows.append(Row("memory", f"{case}: peak of a step", "MB", used["fast"], other, used[other], NOTE))
    return [*rows, long_drive(40 if options.quick else FRAMES, options.folder / "long drive")]


def long_drive(frames: int, output: Path) -> Row:
    """Memory of a process that predicts a drive of `frames` frames: at the end, beside that after a tenth of them."""
    code = f"from research.benchmarks import memory; memory.predict_long_drive({frames}, {str(output)!r})"
    after = json.loads(child(code).splitlines()[-1])
    size = sum(file.stat().st_size for file in output.glob("*.npy")) / 1e6
    what = f"predicting a drive of {frames:,} frames: memory at its end, beside after a tenth of it"
    note = f"the arrays written hold {size:.0f} MB"
    return Row("memory", what, "MB", [after["end"]], "after a tenth", [after["tenth"]], note)


def predict_long_drive(frames: int, output: str, size: tuple[int, int] = (64, 208)) -> None:
    """In a process of its own: predicts random pictures with a tiny network, prints memory meanwhile as JSON."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    from monodepth_lib import networks, testing

    found: dict[str, float] = {}

    class Frames(Dataset):
        def __len__(self) -> int:
            return frames

        def __getitem__(self, index: int) -> dict:
            if index in (frames // 10, frames - 1):
                found["tenth" if index < frames - 1 else "end"] = memory("VmRSS")
            return {"left_image": torch.full((3, *size), index / frames), "name": f"drive/{index:010d}"}

    network = networks.get_model("unet", base_channels=2)
    batches = testing.predict_loader(network, DataLoader(Frames(), 8), "cpu")
    names, plain, processed = testing.save_predictions(batches, frames, output)
    assert len(names) == len(plain) == len(processed) == frames
    found["end"] = max(found["end"], memory("VmRSS"))
    print(json.dumps(found))
