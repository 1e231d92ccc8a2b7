"""Item 3: testing a drive, flip post-processing and the writing of both arrays included, each in its own process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from monodepth_lib.fast import kept_memory

from monodepth_lib import networks, testing

from . import ours, reference
from .load import pillow
from .measure import Options, Row, apart, in_turn, rates
from .peer import Peer
from .pictures import make_drive
from .step import Convolutions, convolution_seconds


def lively_network(name: str, width: int, drive: Path, size: tuple[int, int]) -> reference.Network:
    """A network whose maps differ from place to place, so that an error shows in them: its batch norms know `drive`.

    Fresh from `get_model`, a network says nearly the same everywhere.
    """
    torch.manual_seed(0)
    network = reference.Network(name, width).train()
    batch = next(iter(reference.loader(drive, size, 2, augment=False)))["left_image"]
    with torch.no_grad():
        for _ in range(20):
            network(batch)
    return network


def our_test(name: str, drive: Path, size: tuple[int, int], output: Path, batch: int) -> Callable[[], object]:
    network = networks.get_model(name)
    return lambda: ours.test_drive(network, drive, size, output, batch)


def reference_test(name: str, drive: Path, size: tuple[int, int], output: Path) -> Callable[[], object]:
    network = reference.Network(name, 64)
    return lambda: reference.test_drive(network, drive, size, output)


def peer_test(folder: Path, name: str, drive: Path, size: tuple[int, int], output: Path) -> Callable[[], object]:
    return Peer(folder).tester(name, drive, size, output)


def run(options: Options, peer: Peer | None) -> list[Row]:
    size, pictures, batch = ((64, 128), 3, 2) if options.quick else ((256, 512), 24, 8)
    name = "resnet18_md"
    drive = make_drive(options.folder / "predict", options.data, pictures)
    plain = lively_network(name, 64, drive, size)
    trained = networks.get_model(name)
    trained.load_state_dict(plain.state_dict())
    folders = {key: options.folder / "predictions" / key for key in ("one", "batch", "reference", "peer")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    contenders: dict[str, Callable] = {
        "one at a time": apart(our_test, name, drive, size, folders["one"], 1),
        f"batches of {batch}": apart(our_test, name, drive, size, folders["batch"], batch),
        "reference": apart(reference_test, name, drive, size, folders["reference"]),
    }
    if peer:
        contenders["base code"] = apart(peer_test, peer.folder, name, drive, size, folders["peer"])
    quick = networks.for_prediction(trained).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    picture = torch.rand(1, 3, *size).contiguous(memory_format=torch.channels_last)

    @kept_memory()
    def network_alone() -> None:
        for _ in range(pictures):
            testing.predict(quick, picture)  # type: ignore[arg-type]

    with Convolutions() as done, torch.no_grad():  # not in inference mode, which shows other names
        quick(torch.cat([picture, picture.flip(-1)]))
    contenders["network"] = network_alone
    contenders["convolutions"] = lambda: sum(convolution_seconds(done.calls)[0] for _ in range(pictures))
    contenders["decoding"] = lambda: pillow(drive, size, ["image_02"])
    seconds = in_turn(contenders, options)
    speeds = {key: rates(values, pictures) for key, values in seconds.items()}
    rows = []
    for other in ("base code", "reference"):
        for mine in ("one at a time", f"batches of {batch}"):
            if other in speeds:
                what = f"{name}, {size[0]}x{size[1]}, {mine}, from PNG"
                target = ">= 2.0" if other == "base code" or peer is None else ""
                theirs, least = median(seconds[other]), median(seconds["convolutions"]) + median(seconds["decoding"])
                note = f"{theirs / median(seconds['network']):.2f} times if only the network took time, "
                note += f"{theirs / least:.2f} if only its convolutions and Pillow's decoding did"
                rows.append(Row("3 predict", what, "pictures/s", speeds[mine], other, speeds[other], target, note))
    expected = torch.from_numpy(reference.test_drive(plain, drive, size, folders["reference"]))
    for mine, count in (("one at a time", 1), (f"batches of {batch}", batch)):
        maps = torch.from_numpy(ours.test_drive(trained, drive, size, folders["one"], count))
        difference = float((maps - expected).abs().max())
        what = f"{name}, {mine}: largest difference of a map from the training network's"
        rows.append(Row("3 predict", what, "of the width", [difference], target="<= 1e-4"))
    return rows
