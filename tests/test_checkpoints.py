"""Weights on disk: what is written is what is read, whatever happens in between."""

import json
import os

import pytest
import safetensors.torch
import torch
import torchvision
from synthetic import texture

from monodepth_lib.checkpoints import load_model, save_model
from monodepth_lib.networks import get_model


def equal_weights(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    "name, options",
    [("unet", {"base_channels": 2, "grey": True, "start_disparity": 0.05}), ("resnet18", {}), ("resnet18_md", {})],
)
def test_weights_and_configuration_survive_the_round_trip(tmp_path, name, options):
    model = get_model(name, **options).to(memory_format=torch.channels_last)
    save_model(model, tmp_path / "new/w.safetensors", (32, 96), epoch=3)
    loaded = load_model(tmp_path / "new/w.safetensors")
    assert equal_weights(model, loaded)
    assert loaded.config == model.config
    assert loaded.size == (32, 96)
    assert loaded.notes == {"epoch": 3}
    assert not loaded.training
    assert loaded.grey is options.get("grey", False)


def test_loading_fetches_no_imagenet_weights(tmp_path, monkeypatch):
    build = torchvision.models.get_model
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights=None: build(name, weights=None))
    save_model(get_model("resnet18", imagenet=True), tmp_path / "w.safetensors", (32, 96))

    def refuse(name, weights=None):
        assert weights is None
        return build(name)

    monkeypatch.setattr(torchvision.models, "get_model", refuse)
    load_model(tmp_path / "w.safetensors")


def test_half_precision_files_load_as_float32(tmp_path, tiny):
    model, path = tiny(), tmp_path / "w.safetensors"
    save_model(model, path, (32, 96))
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    half = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    safetensors.torch.save_file(half, path, metadata)
    loaded = load_model(path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    with torch.no_grad():
        difference = loaded(texture(32, 96))[0] - model.eval()(texture(32, 96))[0]
    assert difference.abs().max() < 1e-3


def test_a_missing_file_and_an_unknown_name_say_where_was_looked(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors is missing"):
        load_model(tmp_path / "gone.safetensors")
    with pytest.raises(FileNotFoundError, match=r"models/no_such_model\.safetensors"):
        load_model("no_such_model")


def foreign_files(path, model):
    save_model(model, path, (32, 96))
    good = path.read_bytes()
    metadata = {"config": json.dumps(model.config), "size": "[32, 96]"}
    save = safetensors.torch.save_file
    other = {"weight": torch.zeros(2)}
    return {
        "zero": lambda: path.write_bytes(b""),
        "text": lambda: path.write_text("<html>404</html>"),
        "cut": lambda: path.write_bytes(good[: len(good) // 2]),
        "foreign": lambda: save(other, path),
        "other-weights": lambda: save(other, path, metadata),
        "unknown-network": lambda: save(other, path, {**metadata, "config": '{"name": "vgg"}'}),
        "unknown-option": lambda: save(other, path, {**metadata, "config": '{"name": "unet", "depth": 3}'}),
        "no-json": lambda: save(other, path, {**metadata, "config": "unet"}),
        "other-shape": lambda: save(
            model.state_dict(), path, {**metadata, "config": '{"name": "unet", "base_channels": 3}'}
        ),
    }


FOREIGN = (
    "zero",
    "text",
    "cut",
    "foreign",
    "other-weights",
    "unknown-network",
    "unknown-option",
    "no-json",
    "other-shape",
)


@pytest.mark.parametrize("kind", FOREIGN)
def test_files_that_hold_no_such_weights_are_refused_by_name(tmp_path, tiny, kind):
    path = tmp_path / "w.safetensors"
    foreign_files(path, tiny())[kind]()
    with pytest.raises(ValueError, match=r"w\.safetensors holds no monodepth weights"):
        load_model(path)


def test_a_failed_rename_leaves_the_old_weights_and_no_litter(tmp_path, tiny, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_model(tiny(seed=1), path, (32, 96))

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"w\.safetensors could not be written.*No space"):
        patch.setattr(os, "replace", fail)
        save_model(tiny(seed=2), path, (32, 96))
    assert equal_weights(load_model(path), tiny(seed=1))
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_files_of_version_0_1_still_open(tmp_path, tiny):
    """They call the channels at full size `width`."""
    model, path = tiny(), tmp_path / "w.safetensors"
    config = {"name": "unet", "start_disparity": 0.03, "grey": False, "width": model.config["base_channels"]}
    metadata = {"config": json.dumps(config), "size": "[32, 96]"}
    safetensors.torch.save_file(model.state_dict(), path, metadata)
    assert equal_weights(load_model(path), model)
