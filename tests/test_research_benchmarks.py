"""The benchmarks: they measure what they say, beside what they say. Nothing is timed here."""

from __future__ import annotations

import json
import operator
import os
from functools import partial
from pathlib import Path

import pytest
from synthetic import make_drive

from research.benchmarks import __main__ as command
from research.benchmarks import busy, load, memory, pictures, step
from research.benchmarks.measure import Options, Row, apart, child, in_turn
from research.benchmarks.measure import memory as memory_now

ROOT = Path(__file__).resolve().parent.parent


class TestApart:
    def test_the_work_is_done_elsewhere_and_its_seconds_come_back(self, tmp_path):
        path = tmp_path / "pid"
        work = apart(
            partial, exec, f"import os, time; time.sleep(0.2); open({str(path)!r}, 'w').write(str(os.getpid()))"
        )
        assert work() >= 0.2
        first = path.read_text()
        work()
        assert path.read_text() == first != str(os.getpid())

    def test_what_fails_there_fails_here(self):
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            apart(partial, operator.truediv, 1, 0)()

    def test_a_process_that_dies_is_not_waited_for(self):
        with pytest.raises(RuntimeError, match="BrokenProcessPool"):
            apart(partial, os._exit, 1)()


class TestRow:
    def test_ratio_of_medians(self):
        assert Row("1", "a", "pictures/s", [1.0, 4.0, 3.0], "b", [2.0, 1.0, 1.5]).ratio == 2
        assert Row("5", "a", "s", [5.0, 1.0, 2.0]).ratio is None

    def test_table_names_every_note_once(self):
        rows = [Row("1", what, "s", [1.0], "b", [4.0], "why") for what in ("one", "two")]
        text = command.table(rows, {"cores": 2}, "python -m research.benchmarks")
        assert "| 1 | one [1] | 1.00 s | b | 4.00 s | 0.250 |" in text
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

    def test_memory_of_a_child_is_not_its_parents(self):
        said = float(child("from research.benchmarks.measure import memory\nprint(memory())"))
        assert 5 < said < memory_now("VmHWM") / 2  # getrusage would hand on what torch takes here
        with pytest.raises(RuntimeError, match="no such thing"):
            child("raise ValueError('no such thing')")

    def test_a_child_has_the_environment_that_is_asked_for(self, monkeypatch):
        monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        code = "import os; print(os.environ.get('OMP_WAIT_POLICY'), os.environ['THIS'])"
        assert child(code, OMP_WAIT_POLICY=None, THIS="that").split() == ["None", "that"]

    def test_peak_is_seen(self):
        small, large = (memory.peak(f"import numpy\nx = numpy.ones({n})") for n in (1, 25_000_000))
        assert 180 < large - small < 220

    def test_neighbours_end_with_the_measurement(self):
        with busy.neighbours(1):
            before = {name for name in os.listdir("/proc") if name.isdigit() and spins(name)}
        assert before and not any(spins(name) for name in before)

    def test_workers_of_a_loader_are_counted_from_their_first_batch(self, monkeypatch):
        now = iter([0.0, 2.0])
        monkeypatch.setattr(load.time, "perf_counter", lambda: next(now))
        assert (
            load.pairs_a_second(["batch"] * 10, 2) == 8 * load.BATCH / 2
        )  # the first, and one that was made meanwhile

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


def spins(process: str) -> bool:
    try:
        return b"while True: pass" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.fixture
def older(tmp_path):
    """A made-up checkout of this project: a network that adds, under the names that it once had."""
    folder = tmp_path / "older/monodepth_lib"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "memory.py").write_text(
        "import contextlib, pathlib\n@contextlib.contextmanager\ndef kept_memory():\n"
        "    pathlib.Path(__file__).with_name('kept').touch()\n    yield\n"
    )
    (folder / "networks.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n    def __init__(self, width):\n        super().__init__()\n"
        "        self.weight = torch.nn.Parameter(torch.full((1,), float(width)))\n"
        "    def forward(self, x): return [x * self.weight]\n"
        "def get_model(name, *, width): return Net(width)\n"
    )
    (folder / "losses.py").write_text(
        "class MonodepthLoss:\n    def __call__(self, maps, left, right):\n"
        "        return (maps[0] - right).pow(2).mean(), {}\n"
    )
    return folder.parent


class TestPeer:
    def test_an_older_checkout_is_the_one_that_is_measured(self, older):
        """In a process of its own, also when this one's library was imported before."""
        code = "import monodepth_lib.losses, torch\nfrom pathlib import Path\nfrom research.benchmarks import peer\n"
        code += f"views = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)\nfolder = Path({str(older)!r})\n"
        code += "network = peer.training_step(folder, 'unet', 4, *views)()\nprint(float(network.weight))"
        assert float(child(code)) == pytest.approx(4 - 1e-4)  # one step of Adam
        assert (older / "monodepth_lib/kept").exists()

    def test_old_names_are_put_back_for_the_base_code(self, tmp_path):
        """A made-up checkout that, like the base code, wants `collections.Mapping`; its file stays as it is."""
        (tmp_path / "models_resnet.py").write_text("")
        source = "import collections\n\ndef is_mapping(x):\n    return isinstance(x, collections.Mapping)\n"
        (tmp_path / "old_code.py").write_text(source)
        code = f"from pathlib import Path\nfrom research.benchmarks import peer\nfolder = Path({str(tmp_path)!r})\n"
        code += "print(peer.kind(folder), peer.module(folder, 'old_code').is_mapping({}))"
        assert child(code).strip() == "base code True"
        assert (tmp_path / "old_code.py").read_text() == source

    def test_another_folder_is_refused(self, tmp_path, capsys):
        assert command.main(["--only", "step", "--peer", str(tmp_path)]) == 2
        assert "has neither monodepth_lib nor models_resnet.py" in capsys.readouterr().err

    def test_a_row_beside_it(self, older, tmp_path, monkeypatch):
        monkeypatch.setattr(step, "apart", lambda make, *arguments: lambda: {"ours": 1.0, "theirs": 2.0}[make.__name__])
        rows = step.run(Options(tmp_path, repeats=1, quick=True, peer=older))
        precisions = [("", None), *[("plain float32", 1)] * 3]
        assert [(row.other, row.ratio) for row in rows] == [("plain", 1), ("older", 2), *precisions]


class TestStep:
    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_half_precision_stands_beside_float32(self, tmp_path, monkeypatch, device):
        monkeypatch.setattr(step, "apart", lambda make, *arguments: lambda: 1.0)
        rows = step.run(Options(tmp_path, repeats=1, quick=True, device=device))
        if device == "cpu":
            assert rows.pop(0).other == "plain"
        assert [(row.what.split(", ")[-1], row.other) for row in rows] == [
            ("plain float32", ""), ("fast float32", "plain float32"), ("plain bf16", "plain float32"),
            ("fast bf16", "plain float32"),
        ]  # fmt: skip


def test_quick_run_writes_every_item(tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    assert command.main(["--quick", "--repeats", "1", "--threads", "1", "--output", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert [*dict.fromkeys(row["item"] for row in results["rows"])] == ["step", "predict", "load", "memory", "busy"]
    assert all(row["ours"] and (row["ratio"] or not row["theirs"]) for row in results["rows"])
    assert {"processor", "cores", "torch", "date"} <= results["machine"].keys()
    beside = {row["other"] for row in results["rows"]}
    assert {"plain", "torch, plain", "Pillow, PNG", "after a tenth", "torch's own", "quiet"} <= beside
    text = (tmp_path / "results.md").read_text()
    assert text in capsys.readouterr().out
    assert all(row["what"] in text for row in results["rows"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--only", "step,lod"], "lod"), (["--repeats", "0"], "--repeats")],
)
def test_wrong_arguments_are_named(arguments, said, capsys):
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert said in capsys.readouterr().err


def test_missing_folders_are_named(tmp_path, capsys):
    assert command.main(["--only", "load", "--quick", "--data", str(tmp_path / "none")]) == 2
    assert "none is missing" in capsys.readouterr().err
