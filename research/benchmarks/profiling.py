"""Where the time of a training step goes, ours and the reference's: by kind of operation, in ms a step."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from monodepth_lib import losses, networks

from . import reference
from .measure import Options, Row

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would log its own starts and stops

KINDS = {  # of the network's operations, by a part of torch's name for them
    "convolution": ("conv",),
    "batch normalisation": ("batch_norm",),
    "ELU": ("elu",),
    "upsampling": ("upsample",),
    "max pooling": ("max_pool",),
    "joining skips": ("cat",),
}
OURS_WITHOUT_SSIM = "monodepth_lib.losses.ssim_mean", lambda a, b, *_: (b.mean(), None, torch.zeros_like(b))
REFERENCE_WITHOUT_SSIM = "research.benchmarks.reference.ssim", lambda a, b: b[..., 1:-1, 1:-1]


def self_times(run: Callable[[], object]) -> Counter[str]:
    """Milliseconds that torch's operations took by themselves, by name."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run()
    times: Counter[str] = Counter()
    for event in profiler.key_averages():
        times[event.key] += event.self_cpu_time_total / 1000
    return times


def kinds(
    network: torch.nn.Module, loss: Callable, no_ssim: tuple[str, Callable], optimizer, left: Tensor, right: Tensor
) -> Counter[str]:
    """Milliseconds of one step by kind: the network, the loss and the optimiser are run one after the other.

    `no_ssim` names the function with which the loss computes SSIM, and one to put in its place that does nothing of the
    kind; what the loss takes less with that is SSIM's.
    """
    found: Counter[str] = Counter()
    disparities = network(left)
    slopes = [torch.full_like(d, 1e-6) for d in disparities]
    del disparities
    for name, ms in self_times(lambda: torch.autograd.backward(network(left), slopes)).items():
        lower = name.lower()
        kind = next((k for k, parts in KINDS.items() if any(part in lower for part in parts)), "rest of the network")
        found[kind] += ms

    def loss_alone() -> None:
        loss([d.requires_grad_() for d in maps], left, right).backward()

    with torch.no_grad():
        maps = [d.detach() for d in network(left)]
    with_ssim = self_times(loss_alone)
    with mock.patch(*no_ssim):
        without = self_times(loss_alone)
    warping = sum(ms for name, ms in without.items() if "grid_sampl" in name.lower())
    found["loss: SSIM"] = with_ssim.total() - without.total()
    found["loss: warping"] = warping
    found["loss: rest"] = without.total() - warping
    found["optimiser"] = self_times(optimizer.step).total()
    return found


def run(options: Options) -> list[Row]:
    name, width, size, batch = ("unet", 4, (64, 96), 2) if options.quick else ("resnet18_md", 64, (256, 512), 4)
    torch.manual_seed(0)
    left = torch.nn.functional.interpolate(torch.rand(batch, 3, size[0] // 8, size[1] // 8), size, mode="bilinear")
    right = left.roll(-8, -1)
    plain = reference.Network(name, width).train()
    network = networks.get_model(name, base_channels=width).train()
    network.load_state_dict(plain.state_dict())
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss = losses.MonodepthLoss()
    fused = torch.optim.Adam(network.parameters(), 1e-4, fused=True)
    unfused = torch.optim.Adam(plain.parameters(), 1e-4, fused=False)
    last = torch.channels_last
    views = left.contiguous(memory_format=last), right.contiguous(memory_format=last)

    def library_loss(*arguments) -> Tensor:
        return loss(*arguments)[0]

    repeats: list[tuple[Counter[str], Counter[str]]] = []
    for _ in range(options.repeats + (not options.quick)):
        mine = kinds(network, library_loss, OURS_WITHOUT_SSIM, fused, *views)
        theirs = kinds(plain, reference.monodepth_loss, REFERENCE_WITHOUT_SSIM, unfused, left, right)
        repeats.append((mine, theirs))
    names = [*KINDS, "rest of the network", "loss: SSIM", "loss: warping", "loss: rest", "optimiser"]
    what = f"{name}, {size[0]}x{size[1]}, batch {batch}"
    return [
        Row(
            "1 profile",
            f"{what}: {kind}",
            "ms",
            [mine[kind] for mine, _ in repeats[-options.repeats :]],
            "reference",
            [theirs[kind] for _, theirs in repeats[-options.repeats :]],
        )
        for kind in names
    ]
