"""Writes weights as an ONNX file, for other programs: `monodepth export --weights unet_kitti`.

The file holds the network at one picture size. Its input is `images` (N, 3, H, W), RGB in [0, 1], for any N; its
outputs `disparity`, `disparity_2`, `disparity_4`, `disparity_8` are (N, 2, h, w) at 1, 1/2, 1/4 and 1/8 of the size,
left and right, as fractions of the width. The file is kept only if its results equal those of torch. It replaces only
an earlier export of the same weights.
`monodepth predict --onnx FILE` uses it.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ..checkpoints import load_model
from ..files import atomic_write
from ..networks import SMALLEST, Monodepth
from . import command_parser, here, number, start, weights

OUTPUTS = ("disparity", "disparity_2", "disparity_4", "disparity_8")
TOLERANCE = 1e-4  # of the width: a file whose result differs by more is not kept
MADE_BY = "monodepth export"  # stored in the file: a later run may replace such a file
INSTALL = 'pip install -e ".[onnx]" in the project\'s folder'


def export_onnx(model: Monodepth, path: str | Path, size: Sequence[int] | None = None) -> float:
    """Writes `model`, in eval mode, as an ONNX file and runs it; returns the largest difference from torch.

    `size` (H, W) is fixed in the file, by default that of the training. The file is written under a temporary name
    and renamed. Raises ImportError when the extra `onnx` is missing, ValueError for a missing or impossible size,
    RuntimeError when the file's answer is further than 1e-4 from torch's, OSError naming a file that cannot be written.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401  torch's exporter uses it
    except ImportError as error:
        raise ImportError(f'ONNX export needs the extra "onnx" ({error}): {INSTALL}') from error
    height, width = size or model.size or (0, 0)
    if height < 1 or width < 1:
        raise ValueError(f"the picture size is {height} x {width}: give the (height, width) the network shall work at")
    path = Path(path)
    training = model.training
    model.eval()
    try:
        program = torch.onnx.export(
            model,
            (torch.rand(2, 3, height, width, device=next(model.parameters()).device),),
            input_names=["images"],
            output_names=list(OUTPUTS),
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.model.graph.metadata_props.clear()
        for node in program.model.graph:  # the exporter stores paths of this machine
            node.metadata_props.clear()
        program.model.metadata_props.update(made_by=MADE_BY, weights=fingerprint(model))
        with atomic_write(path) as partial:
            program.save(partial, external_data=False)
            difference = onnx_difference(model, partial, (height, width))
            if not difference <= TOLERANCE:
                raise RuntimeError(f"{path} is {difference:.1e} of the width away from torch's answer: it was not kept")
    finally:
        model.train(training)
    return difference


def onnx_difference(model: nn.Module, path: str | Path, size: tuple[int, int]) -> float:
    """Largest |difference| between `model` and its ONNX file, over all outputs for 1 and for 3 random pictures."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    device, largest = next(model.parameters()).device, []
    for count in (1, 3):
        images = torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = model(images.to(device))
        answers = session.run(list(OUTPUTS), {"images": images.numpy()})
        largest += [(torch.from_numpy(a) - b.cpu()).abs().max() for a, b in zip(answers, expected, strict=True)]
    return float(torch.stack(largest).max())  # nan when one of them is nan


def fingerprint(model: nn.Module) -> str:
    """A hash of all weights, to tell networks apart."""
    digest = hashlib.sha256()
    for name, values in sorted(model.state_dict().items()):
        digest.update(name.encode() + values.cpu().double().numpy().tobytes())
    return digest.hexdigest()


def check_free(path: Path, model: nn.Module) -> None:
    """Raises FileExistsError for a file that this command may not replace, IsADirectoryError for a folder."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name the file to write, such as {path / 'network.onnx'}")
    content = path.read_bytes() if path.exists() else None
    if content is not None and MADE_BY.encode() not in content:
        raise FileExistsError(f"{path} is there, and no export wrote it: name another file (--onnx), or remove it")
    if content is not None and fingerprint(model).encode() not in content:
        raise FileExistsError(f"{path} is an export of other weights: name another file (--onnx), or remove it")


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_parser("export", __doc__, "monodepth export --weights unet_kitti --onnx unet_kitti.onnx")
    parser.add_argument(
        "--weights", required=True, type=weights, help="a name in models/, or the path of a .safetensors file"
    )
    parser.add_argument(
        "--onnx", type=here, metavar="FILE", help="the file to write (default: output/export/WEIGHTS.onnx)"
    )
    parser.add_argument("--size", nargs=2, type=number(int, SMALLEST, highest=4096), metavar=("H", "W"))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 done, 1 not done."""
    options = read_options(arguments)
    path = options.onnx or here(f"output/export/{Path(options.weights).stem}.onnx")
    try:
        model = load_model(options.weights)
        check_free(path, model)
        difference = export_onnx(model, path, options.size)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    height, width = options.size or model.size  # type: ignore[misc]
    print(f"{path}: {options.weights} for pictures of {height} x {width}, any number at a time")
    print(f"largest difference from torch under onnxruntime: {difference:.0e} of the width")
    return 0


if __name__ == "__main__":
    start(main)
