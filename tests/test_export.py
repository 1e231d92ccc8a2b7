"""The ONNX file of every network, run by onnxruntime, against torch."""

import copy
import math
import os
import subprocess
import sys

import pytest
import torch
from synthetic import texture

from monodepth_lib import networks
from monodepth_lib.checkpoints import load_model, save_model
from monodepth_lib.commands import export
from monodepth_lib.commands.export import OUTPUTS, export_onnx
from monodepth_lib.files import project_root
from monodepth_lib.networks import NETWORKS, get_model

IN_CI = os.environ.get("CI") == "true"  # there it may not skip
if not IN_CI:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="the extra onnx is not installed (pip install -e '.[onnx]')")

import onnx  # noqa: E402
import onnxruntime  # noqa: E402

# left out for their time: those that have more of the same blocks
TRIED = [*(name for name in NETWORKS if name not in ("resnet34", "resnet101", "resnet152")), "efficientnet_lite0"]


def lively(name: str = "unet", **options):
    """A network whose answers vary over the picture and between its outputs, as a trained one's do; in train mode."""
    model = get_model(name, **{"base_channels": 3} | options).train()
    for head in model.decoder.heads:
        torch.nn.init.normal_(head.conv.weight)
    with torch.no_grad():
        model(texture(64, 128).repeat(2, 1, 1, 1))  # statistics of the batch normalisation
    return model


def run(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(answer) for answer in session.run(list(OUTPUTS), {"images": images.numpy()})]


def apart(path, model, images) -> float:
    with torch.no_grad():
        expected = model(images)
    answers = run(path, images)
    assert [a.shape for a in answers] == [e.shape for e in expected]
    return max(float((a - e).abs().max()) for a, e in zip(answers, expected, strict=True))


@pytest.mark.parametrize("name", TRIED)
def test_every_network_answers_as_in_torch_for_any_number_of_pictures(tmp_path, name):
    path = tmp_path / "new" / "net.onnx"
    model = lively(name)
    said = export_onnx(model, path, (64, 96))
    assert said <= 1e-4
    assert model.training, "the model is left as it was"
    model.eval()
    for count in (1, 2, 5):
        images = torch.cat([texture(64, 96, seed) for seed in range(count)])
        with torch.no_grad():
            assert min(float(d.std()) for d in model(images)) > 5e-4  # a flat answer would agree by itself
        assert apart(path, model, images) <= 1e-4
    assert [p.name for p in path.parent.iterdir()] == ["net.onnx"], "one file, nothing beside it"
    path.unlink()  # up to a quarter of a gigabyte, which pytest would keep


def test_the_file_says_what_goes_in_and_out_and_nothing_of_this_machine(tmp_path):
    """At a size that does not halve evenly, too."""
    path = tmp_path / "net.onnx"
    model = lively(grey=True)
    model.size = (37, 53)
    export_onnx(model, path)
    assert apart(path, model.eval(), texture(37, 53)) <= 1e-4
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape[1:]) for i in session.get_inputs()] == [("images", [3, 37, 53])]
    sizes = [[2, math.ceil(37 / s), math.ceil(53 / s)] for s in (1, 2, 4, 8)]
    assert [(o.name, o.shape[1:]) for o in session.get_outputs()] == list(zip(OUTPUTS, sizes, strict=True))
    for module in (networks, torch):
        assert os.path.dirname(module.__file__).encode() not in path.read_bytes()


@pytest.fixture(scope="module")
def exported():
    """A network, and what torch's exporter makes of it: once, for the tests of what happens afterwards."""
    torch.manual_seed(0)
    model, kept = lively(), []
    with pytest.MonkeyPatch.context() as patch:
        export = torch.onnx.export
        patch.setattr(torch.onnx, "export", lambda *a, **o: kept.append(export(*a, **o)))
        with pytest.raises(AssertionError):
            export_onnx(model, "never.onnx", (32, 48))
    return model, kept[0]


@pytest.mark.parametrize("change", [0.01, math.nan])
def test_a_file_that_does_not_answer_as_torch_is_not_kept(tmp_path, monkeypatch, exported, change):
    model, program = exported
    path = tmp_path / "net.onnx"
    path.write_bytes(b"the old one")
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: program)
    assert export_onnx(model, tmp_path / "same.onnx", (32, 48)) <= 1e-4
    changed = copy.deepcopy(model)
    changed.decoder.heads[0].conv.bias.data[1] += change  # the coarsest output's right disparity alone
    with pytest.raises(RuntimeError, match=r"net\.onnx is .* away from torch's answer"):
        export_onnx(changed, path, (32, 48))
    assert path.read_bytes() == b"the old one"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "same.onnx"]


def test_a_full_disk_leaves_the_old_file_and_names_it(tmp_path, monkeypatch, exported, full_disk):
    model, program = exported
    path = tmp_path / "net.onnx"
    path.write_bytes(b"the old one")
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: program)
    with full_disk(), pytest.raises(OSError, match=r"net\.onnx could not be written"):
        export_onnx(model, path, (32, 48))
    assert path.read_bytes() == b"the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("size", [None, (0, 48), (32, -1)])
def test_a_missing_or_impossible_size_is_refused(tmp_path, size):
    with pytest.raises(ValueError, match="the picture size is"):
        export_onnx(lively(), tmp_path / "net.onnx", size)


def test_without_the_extra_the_remedy_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r'extra "onnx" .*onnxscript.*pip install -e "\.\[onnx\]"'):
        export_onnx(lively(), tmp_path / "net.onnx", (32, 48))


def test_the_command_writes_a_file_that_answers_like_the_weights(tmp_path):
    weights, path = tmp_path / "w.safetensors", tmp_path / "output/export/w.onnx"
    save_model(lively(), weights, (32, 96))
    command = [sys.executable, "-m", "monodepth_lib.commands.export", "--weights", "w.safetensors"]
    environment = os.environ | {"PYTHONPATH": str(project_root())}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    assert "32 x 96" in done.stdout and "largest difference from torch" in done.stdout
    assert apart(path, load_model(weights), texture(32, 96)) <= 1e-4


def test_a_file_that_no_export_wrote_is_not_replaced(tmp_path, capsys, monkeypatch, exported):
    model, program = exported
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: program)
    monkeypatch.setattr(export, "load_model", lambda _: model)
    mine, ours = tmp_path / "mine.onnx", tmp_path / "ours.onnx"
    mine.write_bytes(b"another network")
    for path, status in ((mine, 1), (ours, 0), (ours, 0), (tmp_path, 1)):
        assert export.main(["--weights", "w", "--onnx", str(path), "--size", "32", "48"]) == status
    said = capsys.readouterr().err
    assert f"{mine} is there, and no export wrote it: name another file" in said and f"{tmp_path} is a folder" in said
    assert mine.read_bytes() == b"another network"


def test_an_export_of_other_weights_stays_and_one_of_the_same_is_replaced(tmp_path, capsys, monkeypatch, exported):
    """Two files of weights often have one name: output/a/weights.safetensors, output/b/weights.safetensors."""
    model, program = exported
    other = copy.deepcopy(model)
    other.decoder.heads[0].conv.bias.data[1] += 1e-5
    found = {"a/weights": model, "b/weights": other}
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: program)
    monkeypatch.setattr(export, "load_model", found.__getitem__)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "output/export/weights.onnx"
    assert export.main(["--weights", "a/weights", "--size", "32", "48"]) == 0
    before = path.read_bytes()
    assert export.main(["--weights", "b/weights", "--size", "32", "48"]) == 1
    assert f"{path} is an export of other weights: name another file (--onnx)" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert export.main(["--weights", "a/weights", "--size", "32", "48"]) == 0


def test_the_command_names_what_is_wrong_in_one_line(tmp_path, capsys):
    assert export.main(["--weights", "no_such_model", "--onnx", str(tmp_path / "w.onnx")]) == 1
    said = capsys.readouterr().err
    assert "no_such_model.safetensors is missing" in said and said.count("\n") == 1
