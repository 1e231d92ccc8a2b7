"""Item 4: peak memory of training steps, each in a process of its own, and memory while a long drive is tested."""

from __future__ import annotations

import json
from pathlib import Path

from .measure import Options, Row, child
from .peer import Peer

FRAMES = 4544  # of 2011_10_03_drive_0027, the longest of the lab's drives
CASES = [("resnet18_md", 64, (256, 512), 4), ("resnet18_md", 64, (256, 512), 8), ("unet", 16, (256, 512), 4)]
NOTE = "less what importing torch takes; with what each imports beside it"
STEPS = """
{imports}
import contextlib
import torch
torch.manual_seed(0)
left = torch.rand({batch}, 3, *{size})
right = left.roll(-8, -1)
step = {make}
with {context}:
    for _ in range(3):
        step()
"""
CONTENDERS = {  # what each imports, its step, and what the steps run in
    "ours": (
        "from research.benchmarks import ours\nfrom monodepth_lib.fast import kept_memory",
        "ours.training_step({name!r}, {width}, left, right)",
        "kept_memory()",
    ),
    "reference": (
        "from research.benchmarks import reference",
        "reference.training_step({name!r}, {width}, left, right)",
        "contextlib.nullcontext()",
    ),
    "base code": (
        "from research.benchmarks.peer import Peer\npeer = Peer({peer!r})\npeer.module('utils'), peer.module('loss')",
        "peer.training_step({name!r}, left, right)",
        "contextlib.nullcontext()",
    ),
}
PRINT_PEAK = "\nfrom benchmarks.measure import memory\nprint(memory())"


def peak(code: str) -> float:
    """Peak memory in MB of a process that runs `code`."""
    return float(child(code + PRINT_PEAK).split()[-1])


def run(options: Options, peer: Peer | None) -> list[Row]:
    cases = [("unet", 4, (64, 96), 2)] if options.quick else CASES
    rows = []
    for name, width, size, batch in cases:
        with_peer = peer is not None and name == "resnet18_md"
        used: dict[str, list[float]] = {key: [] for key in CONTENDERS if key != "base code" or with_peer}
        facts = {"name": name, "width": width, "batch": batch, "size": size, "peer": str(peer.folder) if peer else ""}
        for _ in range(options.repeats):
            torch_alone = peak("import torch")
            for key, values in used.items():
                imports, make, context = (text.format(**facts) for text in CONTENDERS[key])
                code = STEPS.format(imports=imports, make=make, context=context, **facts)
                values.append(peak(code) - torch_alone)
        network = f"unet of width {width}" if name == "unet" else name
        what = f"{network}, {size[0]}x{size[1]}, batch {batch}: peak of a step"
        for other in ("base code", "reference"):
            if other in used:
                target = "<= 0.7" if other == "base code" or peer is None else ""
                rows.append(Row("4 memory", what, "MB", used["ours"], other, used[other], target, NOTE))
    return [*rows, *import_rows(peer), long_drive(40 if options.quick else FRAMES, options.folder)]


def import_rows(peer: Peer | None) -> list[Row]:
    """What each imports beside torch, which the peaks of a step hold as well."""
    rows = []
    torch_alone = peak("import torch")
    for key, (imports, *_) in CONTENDERS.items():
        if key != "base code" or peer:
            used = peak("import torch\n" + imports.format(peer=str(peer.folder) if peer else "")) - torch_alone
            rows.append(Row("4 memory", f"imports beside torch, {key}", "MB", [used]))
    return rows


def long_drive(frames: int, folder: Path) -> Row:
    """Memory of a process that tests a drive of `frames` frames: at the end, beside that after a tenth of them."""
    output = folder / "long drive"
    code = f"from research.benchmarks import memory; memory.test_long_drive({frames}, {str(output)!r})"
    after = json.loads(child(code).splitlines()[-1])
    size = sum(file.stat().st_size for file in output.glob("*.npy")) / 1e6
    what = f"testing a drive of {frames:,} frames: memory at its end, beside after a tenth of it"
    note = f"the arrays written hold {size:.0f} MB"
    return Row("4 memory", what, "MB", [after["end"]], "after a tenth", [after["tenth"]], "<= 1.05", note)


def test_long_drive(frames: int, output: str, size: tuple[int, int] = (64, 208)) -> None:
    """Run in a process of its own: tests made-up pictures with a tiny network, prints memory on the way as JSON."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    from monodepth_lib import networks, testing

    from .measure import memory

    found: dict[str, float] = {}

    class Frames(Dataset):
        def __len__(self) -> int:
            return frames

        def __getitem__(self, index: int) -> dict:
            if index in (frames // 10, frames - 1):
                found["tenth" if index < frames - 1 else "end"] = memory("VmRSS")
            image = torch.full((3, *size), index / frames)
            return {"left_image": image, "name": f"drive/{index:010d}"}

    names, plain, processed = testing.predict_loader(
        networks.get_model("unet", base_channels=2), DataLoader(Frames(), 8), output, "cpu"
    )
    assert len(names) == len(plain) == len(processed) == frames
    found["end"] = max(found["end"], memory("VmRSS"))
    print(json.dumps(found))
