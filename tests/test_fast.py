"""What is tuned says what is plain, in float64 and in float32, and gives everything back when it is over."""

from __future__ import annotations

import ctypes
import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from synthetic import street_pair, texture
from torch import nn

from monodepth_lib import fast, losses
from monodepth_lib.fast import SummedUpBlock, faster_prediction, faster_training, kept_memory
from monodepth_lib.losses import MonodepthLoss
from monodepth_lib.networks import UpBlock, get_model

# --- the appearance loss ---


@pytest.mark.parametrize(("kind", "room"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("wanted", [(True, True), (False, True), (True, False), (False, False)])
@pytest.mark.parametrize("ssim_weight", [0.85, 0.0, 1.0])
def test_the_appearance_loss_and_its_derivatives(kind, room, wanted, ssim_weight):
    torch.manual_seed(0)
    found = []
    pictures = [torch.rand(2, 3, 9, 14, dtype=kind) for _ in range(2)]
    for function in (losses.appearance_loss, fast.appearance_loss):
        views = [picture.clone().requires_grad_(asked) for picture, asked in zip(pictures, wanted, strict=True)]
        value = function(*views, ssim_weight)
        asked = [view for view in views if view.requires_grad]
        found.append([value, *(torch.autograd.grad(value, asked) if asked else [])])
    for plain, quick in zip(*found, strict=True):
        assert torch.allclose(plain, quick, atol=room)


def test_the_appearance_loss_on_black_is_finite():
    black = torch.zeros(1, 3, 8, 8)
    estimate = black.clone().requires_grad_()
    fast.appearance_loss(black, estimate).backward()
    assert estimate.grad.isfinite().all()


def test_gradcheck_of_the_appearance_loss():
    views = [texture(6, 8, seed).double().requires_grad_() for seed in (1, 2)]
    assert torch.autograd.gradcheck(fast.appearance_loss, (*views, 0.85))


# --- upsampling and convolution ---


@pytest.mark.parametrize(("kind", "room"), [(torch.float64, 1e-10), (torch.float32, 1e-3)])
@pytest.mark.parametrize(
    ("shape", "size"),
    [((2, 5, 16, 16), (32, 32)), ((1, 5, 20, 30), (40, 60)), ((2, 5, 16, 16), (31, 32)), ((1, 5, 2, 2), (4, 4))],
)
def test_an_up_block_and_its_derivatives(shape, size, kind, room):
    torch.manual_seed(0)
    block = UpBlock(5, 7).to(kind)
    x = torch.randn(shape, dtype=kind, requires_grad=True)
    plain = block(x, size)
    block.__class__ = SummedUpBlock
    quick = block(x, size)
    assert torch.allclose(plain, quick, atol=room)
    out = torch.randn_like(plain)
    wanted = (x, *block.parameters())
    for one, other in zip(
        torch.autograd.grad(plain, wanted, out), torch.autograd.grad(quick, wanted, out), strict=True
    ):
        assert torch.allclose(one, other, atol=room)


# --- depthwise convolutions ---


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("side", "size"), [(3, (6, 7)), (5, (9, 6)), (7, (8, 9))])
def test_a_depthwise_convolution_and_its_derivatives(side, size, stride, padding):
    torch.manual_seed(0)
    x = torch.rand(2, 3, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, side, side, dtype=torch.float64, requires_grad=True)
    found = fast.Depthwise.apply(x, weight, stride, padding)
    assert torch.equal(found, nn.functional.conv2d(x, weight, None, stride, padding, 1, 3))
    assert torch.autograd.gradcheck(fast.Depthwise.apply, (x, weight, stride, padding))


@pytest.mark.parametrize(("stride", "side", "quick"), [(1, 3, False), (2, 3, True), (1, 5, True), (2, 5, True)])
def test_bfloat16_on_a_cpu_takes_the_quick_derivative(stride, side, quick):
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, 4, side, stride, side // 2, groups=4, bias=False)
    gradients = []
    for precision, kept in ((torch.float32, "ConvolutionBackward0"), (torch.bfloat16, "DepthwiseBackward")):
        with faster_training(nn.Sequential(convolution), MonodepthLoss()):
            with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
                answer = convolution(torch.rand(2, 4, 12, 14, generator=torch.Generator().manual_seed(0)))
            assert answer.dtype == precision
            assert answer.grad_fn.name() == (kept if quick or precision == torch.float32 else "ConvolutionBackward0")
            gradients += torch.autograd.grad(answer.float().square().mean(), convolution.weight)
    assert torch.allclose(*gradients, rtol=0.02, atol=0.01 * float(gradients[0].abs().max()))
    with torch.autocast("cpu", torch.bfloat16):
        assert convolution(torch.rand(2, 4, 12, 14)).grad_fn.name() == "ConvolutionBackward0"  # the context has ended


# --- a whole step ---


@pytest.mark.parametrize(("kind", "room"), [(torch.float64, 1e-9), (torch.float32, 2e-4)])
@pytest.mark.parametrize("name", ["unet", "resnet18_md"])
def test_a_step_of_training(name, kind, room):
    torch.manual_seed(0)
    model, loss = get_model(name, base_channels=4).to(kind), MonodepthLoss()
    left, right, *_ = (view.to(kind) for view in street_pair())
    names = list(model.state_dict())
    found = []
    for quick in (False, True):
        model.zero_grad()
        if quick:
            with faster_training(model, loss):
                assert any(type(module) is SummedUpBlock for module in model.modules())
                assert loss.appearance_loss is fast.appearance_loss
                assert list(model.state_dict()) == names
                total = loss(model(left), left, right)[0]
                total.backward()
        else:
            total = loss(model(left), left, right)[0]
            total.backward()
        found.append([total.detach(), *(p.grad.clone() for p in model.parameters())])
    for plain, tuned in zip(*found, strict=True):
        assert torch.allclose(plain, tuned, atol=room, rtol=room)
    assert not any(type(module) is SummedUpBlock for module in model.modules())
    assert loss.appearance_loss is losses.appearance_loss


def test_an_error_in_training_leaves_the_plain_code():
    model, loss = get_model("unet", base_channels=1), MonodepthLoss()
    with pytest.raises(ZeroDivisionError), faster_training(model, loss):
        raise ZeroDivisionError
    assert not any(type(module) is SummedUpBlock for module in model.modules())
    assert loss.appearance_loss is losses.appearance_loss


def test_a_loss_of_ones_own_stays_ones_own():
    loss = MonodepthLoss()
    loss.appearance_loss = mine = lambda image, estimate, weight: (image - estimate).abs().mean()
    with faster_training(get_model("unet", base_channels=1), loss):
        assert loss.appearance_loss is mine
    assert loss.appearance_loss is mine


# --- prediction ---


@pytest.mark.parametrize(("kind", "room"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize(
    "name", ["unet", "resnet18_md", "resnet50_md", "resnet18", "efficientnet_lite0", "ghostnet_050"]
)
def test_a_copy_for_prediction_answers_the_same_and_leaves_the_model_alone(name, kind, room):
    torch.manual_seed(0)
    model = get_model(name, base_channels=4).to(kind).train()
    images = torch.rand(2, 3, 64, 128, dtype=kind).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        model(images)  # its running averages are not those of a fresh one
    before = {key: value.clone() for key, value in model.state_dict().items()}
    quick = faster_prediction(model)
    with torch.inference_mode():
        for mine, its in zip(quick(images), model.eval()(images), strict=True):
            assert its.std() > 0
            assert torch.allclose(mine, its, atol=room)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not [m for m in quick.decoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(p.requires_grad for p in quick.parameters()) and all(p.requires_grad for p in model.parameters())


def test_moving_the_copy_leaves_the_model_where_it_is():
    model = get_model("unet", base_channels=1)
    faster_prediction(model).to("meta")
    assert {p.device.type for p in model.parameters()} == {"cpu"}


# --- memory ---

glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc has these settings"
)


def elsewhere(work: Callable[[], object]) -> object:
    """What `work` returns in a process of its own: here, earlier tests have left gaps whose pages were given back."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(work).result()


def new_pages(megabytes: int) -> int:
    """How many pages the system had to clear for a tensor that is written and dropped.

    Where a second is to fit into the first's place it must be smaller: what small things took since is missing there.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(megabytes << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """This process's memory in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def inside_and_outside() -> tuple[int, int]:
    with kept_memory():
        new_pages(64)
        inside = new_pages(60)
    new_pages(128)  # larger than the gap that the others left
    return inside, new_pages(120)


def given_back() -> int:
    with kept_memory():
        new_pages(256)
        kept = resident()
    return kept - resident()


@glibc
def test_a_second_tensor_takes_the_pages_of_the_first():
    inside, outside = elsewhere(inside_and_outside)
    assert inside < 0.1 * outside


@glibc
def test_what_is_free_goes_back_at_the_end():
    assert elsewhere(given_back) > 200 << 20


def test_without_glibc_it_does_nothing(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with kept_memory():
        pass
