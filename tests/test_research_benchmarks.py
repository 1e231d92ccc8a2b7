"""The benchmarks: the reference says what the library says, and the command measures every item. Nothing is timed."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from synthetic import make_drive, street_pair

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # benchmarks/ is a folder of the project, not part of the installed package

from monodepth_lib import losses, networks  # noqa: E402
from research.benchmarks import __main__ as command  # noqa: E402
from research.benchmarks import growth, load, memory, ours, pictures, predict, reference, step  # noqa: E402
from research.benchmarks.measure import Options, Row, apart, child, in_turn  # noqa: E402
from research.benchmarks.measure import memory as memory_now  # noqa: E402
from research.benchmarks.peer import Peer  # noqa: E402

NETWORKS = [("unet", 4), ("resnet18_md", 64)]


def views(size=(64, 128), count=2):
    pairs = [street_pair(*size, seed=seed) for seed in range(count)]
    return (torch.cat([pair[view] for pair in pairs]) for view in (0, 1))


def waits(seconds: float) -> Callable[[], object]:
    return lambda: time.sleep(seconds) if seconds else 1 / 0


def names_its_process(path: Path) -> Callable[[], object]:
    return lambda: path.write_text(str(os.getpid()))


def dies() -> Callable[[], object]:
    return lambda: os._exit(1)


class TestApart:
    def test_the_work_is_done_elsewhere_and_its_seconds_come_back(self, tmp_path):
        work = apart(names_its_process, tmp_path / "pid")
        assert 0 < work() < 5
        first = (tmp_path / "pid").read_text()
        work()
        assert (tmp_path / "pid").read_text() == first != str(os.getpid())
        assert apart(waits, 0.2)() >= 0.2

    def test_what_fails_there_fails_here(self):
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            apart(waits, 0)()

    def test_a_process_that_dies_is_not_waited_for(self):
        with pytest.raises(RuntimeError, match="BrokenProcessPool"):
            apart(dies)()


class TestReference:
    @pytest.mark.parametrize(("name", "width"), NETWORKS)
    def test_gradients_of_a_step_are_the_librarys(self, name, width):
        """In float64 they are the same; in float32 both are as far from that as rounding takes them (to a factor)."""
        in_float64, in_float32, _ = step.gradients_rows(name, width, *views())
        assert in_float64.ours[0] < 1e-12
        assert in_float32.ours[0] < 10 * in_float32.theirs[0] < 0.1

    def test_three_steps_leave_the_same_weights(self, monkeypatch):
        """In float64: in float32, Adam's first steps go somewhere even where a gradient is nothing but rounding."""
        monkeypatch.setattr(torch.Tensor, "float", lambda x: x)
        left, right = (view.double() for view in views())
        weights = reference.Network("unet", 4).state_dict()
        steps = [module.training_step("unet", 4, left, right, weights) for module in (ours, reference)]
        mine, plain = ([make_step() for _ in range(3)][-1].state_dict() for make_step in steps)
        assert mine.keys() == plain.keys()
        assert (mine["encoder.stages.0.0.0.weight"] - weights["encoder.stages.0.0.0.weight"]).abs().max() > 1e-4
        for key, value in mine.items():
            assert (value - plain[key]).abs().max() < 1e-7, key

    @pytest.mark.parametrize("size", [(64, 128), (70, 101)])
    @pytest.mark.parametrize(("name", "width"), NETWORKS)
    def test_maps_are_the_librarys_at_odd_sizes_too(self, name, width, size):
        network = networks.get_model(name, base_channels=width).eval()
        plain = reference.Network(name, width).eval()
        plain.load_state_dict(network.state_dict())
        images = torch.rand(2, 3, *size)
        with torch.no_grad():
            for mine, other in zip(network(images), plain(images), strict=True):
                assert mine.shape == other.shape
                assert (mine - other).abs().max() < 1e-6

    def test_loss_is_the_librarys(self):
        left, right = views((32, 64))
        disparities = [0.1 * torch.rand(2, 2, 32 // 2**s, 64 // 2**s) for s in range(4)]
        mine, _ = losses.MonodepthLoss()(disparities, left, right)
        assert float(reference.monodepth_loss(disparities, left, right)) == pytest.approx(float(mine), rel=1e-5)

    def test_predictions_of_a_drive_are_the_librarys(self, tmp_path):
        drive = make_drive(tmp_path / "drives/drive", range(3), size=(40, 100))
        plain = predict.lively_network("unet", 4, drive, (32, 64))
        network = networks.get_model("unet", base_channels=4)
        network.load_state_dict(plain.state_dict())
        expected = reference.test_drive(plain, drive, (32, 64), tmp_path)
        assert expected.std() > 1e-3
        for batch in (1, 2):
            maps = ours.test_drive(network, drive, (32, 64), tmp_path / "ours", batch)
            assert maps.shape == expected.shape == (3, 32, 64)
            assert np.abs(maps - expected).max() < 1e-4
        assert np.array_equal(np.load(tmp_path / "disparities_pp.npy"), expected)

    def test_loader_gives_the_librarys_pictures(self, tmp_path):
        drive = make_drive(tmp_path / "drives/drive", range(4), size=(40, 100))
        mine, plain = (next(iter(module.loader(drive, (32, 64), 4, False))) for module in (ours, reference))
        order = [plain["left_image"][i].flatten().tolist() for i in range(4)]
        for left, right in zip(mine["left_image"], mine["right_image"], strict=True):
            place = order.index(left.flatten().tolist())
            assert torch.equal(plain["right_image"][place], right)

    def test_knows_two_networks(self):
        with pytest.raises(ValueError, match="no network 'resnet50_md'"):
            reference.Network("resnet50_md")


class TestRow:
    def test_ratio_of_medians_against_the_target(self):
        row = Row("1", "a", "pictures/s", [1.0, 4.0, 3.0], "b", [2.0, 1.0, 1.5], ">= 2.0")
        assert (row.value, row.reached) == (2.0, True)
        row.target = ">= 2.1"
        assert row.reached is False
        row.target = "<= 1.9"
        assert row.reached is False
        row.target = ""
        assert row.reached is None

    def test_alone_its_own_median_is_judged(self):
        row = Row("5", "a", "s", [5.0, 1.0, 2.0], target="<= 2")
        assert (row.value, row.reached) == (2.0, True)

    def test_table_names_every_note_once(self):
        rows = [Row("1", what, "s", [1.0], "b", [4.0], "<= 0.2", "why") for what in ("one", "two")]
        text = command.table(rows, {"cores": 2}, "python -m research.benchmarks")
        assert "| 1 | one [1] | 1.00 s | b | 4.00 s | 0.250 | <= 0.2 | **no** |" in text
        assert text.count("why") == 1
        assert "cores 2" in text


class TestMeasures:
    def test_contenders_take_turns_after_a_round_that_does_not_count(self, tmp_path):
        calls: list[str] = []
        contenders = {"a": lambda: calls.append("a"), "b": lambda: float(calls.append("b") or len(calls))}
        seconds = in_turn(contenders, Options(tmp_path, repeats=2))
        assert "".join(calls) == "ababab"
        assert len(seconds["a"]) == 2
        assert seconds["b"] == [4.0, 6.0]

    def test_every_convolution_is_seen_forward_and_backward(self):
        left, right = views()
        training = ours.training_step("unet", 4, left, right)
        with step.Convolutions() as done:
            training()
        # 12 in the encoder, 2 at each of 5 levels, 4 heads; each once forward, once backward
        assert len(done.calls) == 2 * (12 + 2 * 5 + 4)
        forward = [call for call in done.calls if call[0] == torch.ops.aten.convolution.default]
        assert len(forward) == len(done.calls) / 2
        assert forward[0][2] == 2 * 2 * 64 * 128 * 4 * 3 * 9  # two operations, two pictures, 3 -> 4 channels, 3x3
        seconds, best = step.convolution_seconds(done.calls)
        assert seconds > 0 < best

    def test_upsampling_needs_fewer_operations_than_the_reference(self):
        counts = []
        for module in (ours, reference):
            training = module.training_step("resnet18_md", 64, *views((64, 256)))
            with step.Convolutions() as done:
                training()
            counts.append(sum(call[2] for call in done.calls))
        assert counts[0] < 0.9 * counts[1]

    def test_memory_of_a_child_is_not_its_parents(self):
        said = float(child("from research.benchmarks.measure import memory\nprint(memory())"))
        assert 5 < said < memory_now("VmHWM") / 2  # getrusage would hand on what torch takes here
        with pytest.raises(RuntimeError, match="no such thing"):
            child("raise ValueError('no such thing')")

    def test_peak_is_seen(self):
        small, large = (memory.peak(f"import numpy\nx = numpy.ones({n})") for n in (1, 25_000_000))
        assert 180 < large - small < 220

    def test_exponent_of_a_square_is_two(self, tmp_path):
        row = growth.exponent_row("a", lambda n: lambda: 3.0 * n**2, (1, 2, 8), Options(tmp_path), "things")
        assert row.value == pytest.approx(2)
        assert row.reached is False
        assert row.points == [(1, 3), (2, 12), (8, 192)]

    def test_workers_estimate_grows_by_their_gain(self, monkeypatch, tmp_path):
        drive = make_drive(tmp_path / "d/drive", range(4))
        monkeypatch.setattr(load, "pairs_a_second", lambda loader, workers: {0: 20.0, 1: 18.0, 2: 27.0}[workers])
        rows = load.workers_rows(Options(tmp_path, repeats=1), drive, (32, 64), tmp_path / "cache")
        assert [row.ours[0] for row in rows[:3]] == [20, 18, 27]
        assert rows[3].ours[0] == pytest.approx(18 * 1.5**3)
        assert "estimate" in rows[3].note

    def test_pictures_have_kittis_size_and_files_stay_as_they_are(self, tmp_path):
        drive = pictures.make_drive(tmp_path / "sample", None, 2)
        assert pictures.describe(drive).startswith("2 pairs of 1242x375, ")
        source = make_drive(tmp_path / "own/drive_1", range(2), size=(40, 100))
        copied = pictures.make_drive(tmp_path / "copy", source, 3)
        for number in range(3):
            name = f"image_03/data/{number:010d}.png"
            assert (copied / name).read_bytes() == (source / f"image_03/data/{number % 2:010d}.png").read_bytes()
        jpeg = pictures.make_drive(tmp_path / "jpeg", source, 1, ".jpg")
        assert (jpeg / "image_02/data/0000000000.jpg").read_bytes()[:2] == b"\xff\xd8"


def test_quick_run_writes_every_item(tmp_path, capsys):
    assert command.main(["--quick", "--repeats", "1", "--threads", "1", "--output", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert {row["item"][0] for row in results["rows"]} == set("123456")
    assert all(row["ours"] and row["value"] == row["value"] for row in results["rows"])
    asked = {(row["item"], row["target"]) for row in results["rows"] if row["target"]}
    for target in [
        ("1 step", ">= 2.0"),
        ("1 step", ">= 1.5"),
        ("2 load", ">= 0.909"),
        ("2 load", ">= 2.5"),
        ("2 load", ">= 30"),
        ("2 load", ">= 15"),
        ("3 predict", ">= 2.0"),
        ("3 predict", "<= 1e-4"),
        ("4 memory", "<= 0.7"),
        ("5 start", "<= 1.5"),
        ("5 start", "<= 3"),
        ("6 growth", "<= 1.1"),
        ("6 growth", "<= 1.0"),
    ]:
        assert target in asked
    assert {"processor", "cores", "torch", "date"} <= results["machine"].keys()
    text = (tmp_path / "results.md").read_text()
    assert text in capsys.readouterr().out
    assert all(row["what"] in text for row in results["rows"])
    assert (tmp_path / "growth.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--only", "step,lod"], "lod"), (["--repeats", "0"], "--repeats is 0")],
)
def test_wrong_arguments_are_named(arguments, said, capsys):
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert said in capsys.readouterr().err


def test_missing_folders_are_named(tmp_path, capsys):
    assert command.main(["--only", "start", "--peer", str(tmp_path)]) == 2
    assert f"{tmp_path} has no models_resnet.py" in capsys.readouterr().err
    assert command.main(["--only", "load", "--quick", "--data", str(tmp_path / "none")]) == 2
    assert "none is missing" in capsys.readouterr().err


def test_old_names_are_put_back_for_the_base_code(tmp_path, monkeypatch):
    """A made-up checkout that, like the base code, wants `collections.Mapping`; its file stays as it is."""
    (tmp_path / "models_resnet.py").write_text("")
    source = "import collections\n\ndef is_mapping(x):\n    return isinstance(x, collections.Mapping)\n"
    (tmp_path / "old_code.py").write_text(source)
    before = list(sys.path)
    module = Peer(tmp_path).module("old_code")
    assert module.is_mapping({}) and not module.is_mapping([])
    assert sys.path == before
    assert (tmp_path / "old_code.py").read_text() == source


def test_prediction_stands_beside_the_peer_where_there_is_one(tmp_path, monkeypatch):
    """With a base code, its rows hold the targets and the reference's none."""
    peer = SimpleNamespace(folder=tmp_path)
    monkeypatch.setattr(predict, "apart", lambda *_: lambda: 1.0)
    monkeypatch.setattr(predict, "ours", SimpleNamespace(test_drive=lambda *a: np.zeros((3, 64, 128), np.float32)))
    monkeypatch.setattr(reference, "test_drive", lambda *a: np.zeros((3, 64, 128), np.float32))
    rows = predict.run(Options(tmp_path, "data/sample", 1, True), peer)
    assert [(row.other, row.target) for row in rows if row.theirs] == [
        ("base code", ">= 2.0"),
        ("base code", ">= 2.0"),
        ("reference", ""),
        ("reference", ""),
    ]
