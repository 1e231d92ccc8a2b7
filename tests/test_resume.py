"""A run that is killed, at any moment, and started again: as if nothing had happened. And runs that must stop."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_training import equal, loader, run, short, state_of
from torch import nn

from monodepth_lib import checkpoints, training
from monodepth_lib.checkpoints import load_model
from monodepth_lib.losses import MonodepthLoss
from monodepth_lib.networks import get_model

pytestmark = pytest.mark.filterwarnings("ignore:epoch .*the disparity is nearly the same")


def noisy_model():
    """A tiny Unet whose decoder sees noise in training: its weights depend on torch's random state."""
    torch.manual_seed(0)
    model = get_model("unet", base_channels=1)
    model.encoder.stages[0].append(nn.Dropout(0.1))
    return model


def night(data_dir, output, resume=False, log=lambda _: None):
    """Three epochs of nine steps: the run that the tests below kill."""
    return run(noisy_model(), data_dir, Path(output), epochs=3, batch_size=1, resume=resume, log=log)


# What happens in a process of its own: the `count`-th call of a function is its end, before, in or after it.
KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from monodepth_lib import checkpoints, training
import test_resume

def end(*_):
    os.kill(os.getpid(), signal.SIGKILL)

calls = 0
def killing(function, when):
    def wrapped(*arguments, **options):
        global calls
        calls += 1
        if calls != {count}:
            return function(*arguments, **options)
        if when == "in":  # a part of the file is written
            arguments[1].write(b"PK" + bytes(1000))
            arguments[1].flush()
            end()
        if when == "after":
            function(*arguments, **options)
        end()
    return wrapped

owner = eval({owner!r})
setattr(owner, {name!r}, killing(getattr(owner, {name!r}), {when!r}))
test_resume.night({data!r}, {output!r}, resume=True)
"""

# each run: one save at the start, then one after each epoch
MOMENTS = {
    "before anything is written": ("torch", "save", "before", 1),
    "within the first epoch": ("training", "to_device", "before", 7),
    "while the checkpoint of an epoch is written": ("torch", "save", "in", 3),
    "written, not renamed": ("os", "fsync", "after", 3),
    "between the two renames": ("os", "replace", "before", 4),
    "between the weights and the checkpoint": ("training", "save_model", "after", 2),
    "between the last checkpoint and the history": ("training", "write_history", "before", 2),
}


@pytest.fixture(scope="module")
def uninterrupted(data_dir, tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted")
    night(data_dir, output)
    return output


def killed(data_dir, output, owner, name, when, count):
    values = dict(owner=owner, name=name, when=when, count=count, data=str(data_dir), output=str(output))
    code = KILLED.format(tests=str(Path(__file__).parent), **values)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, f"not killed there: {done.stderr[-800:]}"


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_started_again_is_as_never_killed(data_dir, tmp_path, uninterrupted, moment):
    killed(data_dir, tmp_path, *MOMENTS[moment])
    torch.manual_seed(99)
    said = []
    history = night(data_dir, tmp_path, resume=True, log=said.append)
    assert equal(state_of(tmp_path), state_of(uninterrupted))
    best = [load_model(folder / "weights.safetensors").notes for folder in (tmp_path, uninterrupted)]
    assert best[0] == best[1]
    rows = checkpoints.read_history(tmp_path / "history.csv")
    assert rows == [pytest.approx(row) for row in history] and len(rows) == 3


def test_twice_killed_is_as_never_killed(data_dir, tmp_path, uninterrupted):
    killed(data_dir, tmp_path, "training", "to_device", "before", 15)
    killed(data_dir, tmp_path, "training", "validate", "before", 1)
    night(data_dir, tmp_path, resume=True)
    assert equal(state_of(tmp_path), state_of(uninterrupted))


# --- which checkpoint, and whose ---


@pytest.mark.parametrize("content", [None, "half"])
def test_previous_pt_stands_in_for_a_last_pt_that_cannot_be_read(data_dir, tmp_path, tiny, monkeypatch, content):
    monkeypatch.setattr(training, "LOW_SPREAD", 0)  # the pictures are flat walls
    run(tiny(), data_dir, tmp_path / "whole", epochs=3)
    run(tiny(), data_dir, tmp_path, epochs=3, stop_after=2)
    last = tmp_path / "last.pt"
    if content is None:
        last.unlink()
    else:
        last.write_bytes(last.read_bytes()[:5000] if content == "half" else content)
    said = []
    run(tiny(seed=9), data_dir, tmp_path, epochs=3, resume=True, log=said.append)
    assert "last.pt cannot be read or is missing: going on from" in said[0] and "previous.pt, epoch 1" in said[0]
    states = [state_of(folder) for folder in (tmp_path, tmp_path / "whole")]
    assert equal(*states)


def test_a_new_run_leaves_nothing_of_the_old_one_to_go_on_from(data_dir, tmp_path, tiny):
    run(tiny(), data_dir, tmp_path, epochs=2)
    run(tiny(width=1), data_dir, tmp_path, epochs=2, stop_after=0)  # killed before its first epoch had ended
    assert not (tmp_path / "previous.pt").exists()
    assert state_of(tmp_path)["history"] == []
    history = run(tiny(width=1), data_dir, tmp_path, epochs=2, resume=True)
    assert [row["epoch"] for row in history] == [1, 2]


@pytest.mark.parametrize(
    "change, told",
    [
        ({"size": (32, 128)}, r"size \(32, 96\) \(here \(32, 128\)\)"),
        ({"batch_size": 4}, r"steps 6 \(here 4\), batch_size 3 \(here 4\)"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_name(data_dir, tmp_path, tiny, change, told):
    run(tiny(), data_dir, tmp_path, stop_after=1)
    with pytest.raises(ValueError, match=rf"last\.pt is of another run: {told}; choose another output folder"):
        run(tiny(), data_dir, tmp_path, resume=True, **change)


def test_a_checkpoint_of_other_drives_or_another_seed_is_refused_by_name(data_dir, tmp_path, tiny):
    def again(pairs):
        training.train(tiny(), pairs, None, tmp_path, short(), resume=True, log=lambda _: None)

    again(loader(data_dir, drives="2020_01_01_drive_0001_sync"))
    for other, told in (
        (loader(data_dir, drives="2020_01_01_drive_0002_sync"), r"train_drives .*0001.*\(here .*0002"),
        (loader(data_dir, drives="2020_01_01_drive_0001_sync", seed=1), r"seed 0 \(here 1\)"),
    ):
        with pytest.raises(ValueError, match=told):
            again(other)


def test_a_checkpoint_of_another_version_is_refused_by_name(data_dir, tmp_path, tiny, monkeypatch):
    run(tiny(), data_dir, tmp_path, stop_after=1)
    monkeypatch.setattr(checkpoints, "CHECKPOINT_VERSION", 99)
    with pytest.raises(ValueError, match=r"last\.pt is of version 4 \(here 99\)"):
        run(tiny(), data_dir, tmp_path, resume=True)


def test_a_lower_learning_rate_goes_on_from_the_checkpoint(data_dir, tmp_path, tiny):
    run(tiny(), data_dir, tmp_path, epochs=5, stop_after=2)
    said = []
    history = run(tiny(), data_dir, tmp_path, epochs=5, resume=True, learning_rate=1e-4, log=said.append)
    assert said[0] == "learning_rate was 0.001, from here on it is 0.0001"
    rates = [row["learning_rate"] for row in history]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 0.5e-4, 0.25e-4])
    assert state_of(tmp_path)["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0.25e-4)


# --- full disk, diverged and collapsed runs ---


def test_a_disk_that_is_full_from_the_start_is_said_before_the_first_step(
    data_dir, tmp_path, tiny, full_disk, monkeypatch
):
    run(tiny(), data_dir, tmp_path, epochs=1)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(training, "train_one_epoch", lambda *_: pytest.fail("it has begun to train"))
    with full_disk(), pytest.raises(OSError, match=r"last\.pt could not be written"):
        run(tiny(), data_dir, tmp_path, epochs=1)
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}


class SpoilsTheWeights(MonodepthLoss):
    """Its value is finite, its gradient is not: only the weights tell."""

    def forward(self, disparities, left, right):
        total, parts = super().forward(disparities, left, right)
        return total + (disparities[0].mean() * 0).sqrt() * 0, parts


def test_weights_that_are_not_finite_are_not_saved_also_without_validation(data_dir, tmp_path, tiny):
    options = dict(epochs=2, val=False, batch_size=9)  # one step an epoch: its loss is of the weights before
    run(tiny(), data_dir, tmp_path, stop_after=1, **options)
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(FloatingPointError, match=r"a weight .* is not finite in epoch 2: lower learning_rate.*resume"):
        run(tiny(), data_dir, tmp_path, resume=True, loss=SpoilsTheWeights(), **options)
    assert (tmp_path / "last.pt").read_bytes() == before


def spreads(monkeypatch, values):
    values = iter(values)
    monkeypatch.setattr(training, "validate", lambda *_, **__: {"loss": 1.0, "spread": next(values)})


def test_a_disparity_that_stays_the_same_everywhere_stops_the_run(data_dir, tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(training, "COLLAPSE_STEPS", 12)  # 3 steps an epoch: the fourth low one in a row
    spreads(monkeypatch, [0.2, 0.01, 0.2, 0.01, 0.01, 0.01, 0.01])
    ends = {}
    with pytest.raises(
        RuntimeError, match=r"epochs 4 to 7: .*nearly the same.*smaller learning_rate.*epoch 3: go on from it"
    ):
        run(
            tiny(), data_dir, tmp_path, epochs=9,
            on_epoch=lambda model, epoch: ends.update({epoch: {k: v.clone() for k, v in model.state_dict().items()}}),
        )  # fmt: skip
    state = state_of(tmp_path)
    assert [row["epoch"] for row in state["history"]] == [1, 2, 3]
    assert equal(dict(state["model"]), ends[3])
    assert len(checkpoints.read_history(tmp_path / "history.csv")) == 7
    spreads(monkeypatch, [0.2] * 6)  # and it goes on from there
    assert len(run(tiny(), data_dir, tmp_path, epochs=9, resume=True, learning_rate=1e-4)) == 9


def test_going_on_from_a_bad_epoch_keeps_the_last_good_one(data_dir, tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(training, "COLLAPSE_STEPS", 9)  # 3 steps an epoch
    spreads(monkeypatch, [0.2, 0.01])
    run(tiny(), data_dir, tmp_path, epochs=9, stop_after=2)
    spreads(monkeypatch, [0.01] * 9)
    with pytest.raises(RuntimeError, match=r"epochs 2 to 4: .*epoch 1: go on from it"):
        run(tiny(), data_dir, tmp_path, epochs=9, resume=True)
    assert [row["epoch"] for row in state_of(tmp_path)["history"]] == [1]


def test_a_network_that_never_said_anything_goes_back_to_the_untrained_one(data_dir, tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(training, "COLLAPSE_STEPS", 9)
    spreads(monkeypatch, [0.01] * 9)
    with pytest.raises(RuntimeError, match=r"epochs 1 to 3: .*epoch 0: go on from it"):
        run(tiny(), data_dir, tmp_path, epochs=9)
    assert equal(dict(state_of(tmp_path)["model"]), dict(tiny().state_dict()))


def test_a_fresh_network_is_given_time(data_dir, tmp_path, tiny, monkeypatch):
    spreads(monkeypatch, [0.01] * 9)
    assert len(run(tiny(width=1), data_dir, tmp_path, epochs=9)) == 9  # 27 steps


# --- torch.compile ---


def test_a_compiled_run_learns_the_same(data_dir, tmp_path, tiny, monkeypatch):
    compiled, compile = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda what: compiled.append(what) or compile(what, backend="eager"))
    plain, quick = tiny(width=1), tiny(width=1)
    loss = MonodepthLoss()
    options = dict(epochs=1, val=False, batch_size=9)
    run(plain, data_dir, tmp_path / "plain", **options)
    run(quick, data_dir, tmp_path / "compiled", compile=True, loss=loss, **options)
    assert compiled == [quick, loss]
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(value, quick.state_dict()[name], rtol=1e-3, atol=1e-5, msg=name)
    load_model(tmp_path / "compiled/weights.safetensors")  # under the names of the plain network
