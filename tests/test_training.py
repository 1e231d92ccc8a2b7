"""The loop, its schedule, its checkpoints: what a run must keep and what it must not touch."""

import copy
import csv
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from synthetic import shifted_pair, street_pair

from monodepth_lib import devices, losses, training
from monodepth_lib.checkpoints import load_model, read_history, save_model
from monodepth_lib.commands.train import main
from monodepth_lib.data import prepare_dataloader
from monodepth_lib.kitti import select_pairs
from monodepth_lib.losses import MonodepthLoss
from monodepth_lib.training import AverageMeter, settings, train, train_one_epoch, validate

CPU = torch.device("cpu")
SIZE = (32, 96)
pytestmark = pytest.mark.filterwarnings("ignore:epoch .*the disparity is nearly the same")


def loader(data_dir, side="train", batch_size=3, drives=None, **options):
    pairs = select_pairs(data_dir, side, drives)
    return prepare_dataloader(pairs, train=side == "train", size=SIZE, batch_size=batch_size, **options)


def short(epochs=1, size=SIZE, **changes):
    """Settings of a run of these tests."""
    return settings("tiny", **{"epochs": epochs, "height": size[0], "image_width": size[1], **changes})


class Stopped(Exception):
    """What a run ends with that is killed between two epochs."""


def stopping(stop_after, log=lambda _: None):
    """A log that ends the run when it hears of this epoch, which is written then."""

    def stop(said):
        log(said)
        if said.startswith(f"epoch {stop_after:>3}/"):
            raise Stopped

    return stop


def stop_at_once(model, epoch):
    """For `on_epoch`, which is called before the first epoch."""
    raise Stopped


def run(model, data_dir, output, epochs=2, val=True, batch_size=3, stop_after=None, **options):
    """`train` with settings of `short`, and options of its own; it is killed after an epoch, if one is named."""
    chosen = {name: options.pop(name) for name in ("size", "learning_rate", "precision") if name in options}
    loaders = loader(data_dir, batch_size=batch_size, seed=5), loader(data_dir, "val") if val else None
    options = {"log": lambda _: None, **options}
    if stop_after:
        options["log"] = stopping(stop_after, options["log"])
    elif stop_after == 0:
        options["on_epoch"] = stop_at_once
    try:
        return train(model, *loaders, output, short(epochs, **chosen), **options)
    except Stopped:
        return torch.load(output / "last.pt", weights_only=True)["history"]


def equal(one, other):
    """Nested dicts, lists and tensors, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def state_of(output):
    state = torch.load(output / "last.pt", weights_only=True)
    state["history"] = [{k: v for k, v in row.items() if k != "seconds"} for row in state["history"]]
    return state


# --- resume ---


def test_training_2_is_training_1_and_resuming_1_bit_for_bit(data_dir, tmp_path, tiny):
    whole = tiny()  # which seeds torch, too
    run(whole, data_dir, tmp_path / "whole")
    run(tiny(), data_dir, tmp_path / "parts", stop_after=1)
    assert len(state_of(tmp_path / "parts")["history"]) == 1
    second = tiny(seed=9)  # another start: everything must come from the checkpoint
    history = run(second, data_dir, tmp_path / "parts", resume=True)
    assert equal(whole.state_dict(), second.state_dict())
    assert equal(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))
    assert [row["epoch"] for row in history] == [1, 2]
    best = [load_model(tmp_path / folder / "weights.safetensors").state_dict() for folder in ("whole", "parts")]
    assert equal(*best)


def test_every_epoch_has_its_own_order_also_after_resuming(data_dir, tmp_path, tiny, monkeypatch):
    epochs = []
    monkeypatch.setattr(training, "set_epoch", lambda _, epoch: epochs.append(epoch))
    for resume in (False, True):
        run(tiny(width=1), data_dir, tmp_path, 4, batch_size=9, resume=resume, stop_after=4 if resume else 2)
    assert epochs == [0, 1, 2, 3]


def test_the_same_seed_repeats_a_run(data_dir, tmp_path, tiny):
    for folder in ("a", "b"):
        run(tiny(), data_dir, tmp_path / folder)
    assert equal(state_of(tmp_path / "a"), state_of(tmp_path / "b"))


def test_resuming_a_finished_run_changes_nothing(data_dir, tmp_path, tiny):
    model = tiny()
    run(model, data_dir, tmp_path, epochs=1)
    before = copy.deepcopy(model.state_dict())
    assert len(run(model, data_dir, tmp_path, epochs=1, resume=True)) == 1
    assert equal(before, model.state_dict())


def test_without_resume_a_run_starts_anew(data_dir, tmp_path, tiny):
    run(tiny(), data_dir, tmp_path, epochs=1)
    before = state_of(tmp_path)
    run(tiny(seed=9), data_dir, tmp_path, epochs=1)
    assert not equal(before["model"], state_of(tmp_path)["model"])


def test_resume_refuses_another_network_or_length(data_dir, tmp_path, tiny):
    run(tiny(), data_dir, tmp_path, epochs=1)
    for model, epochs, told in (
        (tiny(width=3), 1, r"'base_channels': 2.*\(here .*'base_channels': 3"),
        (tiny(), 2, r"epochs 1 \(here 2\)"),
    ):
        with pytest.raises(ValueError, match=rf"last\.pt is of another run: .*{told}"):
            run(model, data_dir, tmp_path, epochs=epochs, resume=True)


def test_resume_refuses_other_drives_of_vals(data_dir, tmp_path, tiny):
    run(tiny(), data_dir, tmp_path, stop_after=1)
    with pytest.raises(ValueError, match=r"of another run: val_drives \['2020_01_01_drive_0003_sync'\] \(here \[\]\)"):
        run(tiny(), data_dir, tmp_path, val=False, resume=True)


@pytest.mark.parametrize("precisions", [("float32", "fp16"), ("fp16", "float32"), ("bf16", "fp16")], ids=" ".join)
def test_a_run_goes_on_in_another_precision(data_dir, tmp_path, tiny, precisions):
    for precision in precisions:
        history = run(
            tiny(), data_dir, tmp_path, precision=precision, stop_after=1 + (precision == precisions[1]), resume=True
        )
    assert [row["epoch"] for row in history] == [1, 2]


def test_the_command_begins_from_weights(data_dir, tmp_path, tiny, capsys):
    begun = tiny(width=3)
    save_model(begun, tmp_path / "begun.safetensors", SIZE)
    small = ["--height", SIZE[0], "--image-width", SIZE[1], "--batch-size", 3, "--epochs", 1, "--workers", 0]
    given = [
        "--data",
        data_dir,
        "--output",
        tmp_path / "out",
        "--learning-rate",
        1e-12,
        "--init",
        tmp_path / "begun.safetensors",
    ]
    assert main([str(word) for word in given + small + ["--model", "unet"]]) == 1
    assert "--init brings its own network: leave out --model" in capsys.readouterr().err
    assert main([str(word) for word in given + small]) == 0
    trained = load_model(tmp_path / "out/weights.safetensors")
    assert trained.config == begun.config
    assert all(
        torch.allclose(one, other, atol=1e-6)
        for one, other in zip(begun.parameters(), trained.parameters(), strict=True)
    )


def test_a_failed_write_leaves_the_old_checkpoint(data_dir, tmp_path, tiny, full_disk, monkeypatch):
    run(tiny(), data_dir, tmp_path, stop_after=1)
    before = (tmp_path / "last.pt").read_bytes()
    monkeypatch.setattr(training, "save_model", lambda *_, **__: None)  # it comes first and has a test of its own
    with full_disk(), pytest.raises(OSError, match=r"last\.pt could not be written"):
        run(tiny(), data_dir, tmp_path, resume=True)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


# --- what is written and called ---


def test_a_run_writes_history_weights_and_calls_back(data_dir, tmp_path, tiny):
    seen, lines = [], []
    history = run(
        tiny(),
        data_dir,
        tmp_path,
        on_epoch=lambda _, epoch: seen.append(epoch) or {"mine": epoch / 2},
        log=lines.append,
    )
    assert seen == [0, 1, 2] and [row["mine"] for row in history] == [0.5, 1.0]
    assert len(lines) == 2 and "epoch   2/2" in lines[1]
    assert read_history(tmp_path / "history.csv") == [pytest.approx(row) for row in history]
    with open(tmp_path / "history.csv", newline="") as file:
        assert len(list(csv.reader(file))) == 3
    for row in history:
        assert row["train_loss"] == pytest.approx(
            row["train_appearance"] + row["train_smoothness"] + row["train_consistency"], rel=1e-5
        )
    model = load_model(tmp_path / "weights.safetensors")
    assert model.size == SIZE
    assert model.notes["train_drives"] == ["2020_01_01_drive_0001_sync", "2020_01_01_drive_0002_sync"]
    assert model.notes["val_drives"] == ["2020_01_01_drive_0003_sync"]


def test_weights_know_what_those_they_began_from_had_seen(data_dir, tmp_path, tiny):
    model = tiny()
    model.notes = {"train_drives": ["a_sync"], "val_drives": ["b_sync"]}
    run(model, data_dir, tmp_path, epochs=1)
    notes = load_model(tmp_path / "weights.safetensors").notes
    assert notes["train_drives"] == ["2020_01_01_drive_0001_sync", "2020_01_01_drive_0002_sync", "a_sync"]
    assert notes["val_drives"] == ["2020_01_01_drive_0003_sync", "b_sync"]


def test_weights_are_of_the_epoch_with_the_lowest_validation_loss(data_dir, tmp_path, tiny, monkeypatch):
    losses = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(training, "validate", lambda *_, **__: {"loss": next(losses), "spread": 1.0})
    kept = {}
    model = tiny()
    run(
        model,
        data_dir,
        tmp_path,
        epochs=3,
        on_epoch=lambda m, epoch: kept.update({epoch: copy.deepcopy(m.state_dict())}),
    )
    saved = load_model(tmp_path / "weights.safetensors").state_dict()
    assert equal(saved, kept[2])
    assert not equal(saved, kept[3])


def test_without_validation_the_last_epochs_weights_are_kept(data_dir, tmp_path, tiny):
    model = tiny()
    history = run(model, data_dir, tmp_path, val=False)
    assert "val_loss" not in history[0]
    assert equal(load_model(tmp_path / "weights.safetensors").state_dict(), model.state_dict())


@pytest.mark.parametrize("fast", [True, False])
def test_a_run_takes_the_faster_code_unless_told_not_to(data_dir, tmp_path, tiny, fast):
    loss, model, seen = MonodepthLoss(), tiny(width=1), []
    model.register_forward_hook(lambda *_: seen.append(loss.appearance_loss is losses.appearance_loss))
    run(model, data_dir, tmp_path, epochs=1, val=False, batch_size=9, loss=loss, fast=fast)
    assert seen == [not fast]


# --- validation and means ---


def test_validation_leaves_weights_and_batch_statistics_alone_and_needs_no_gradient(data_dir, tiny):
    model = tiny().train()
    before = copy.deepcopy(model.state_dict())
    seen = []

    class Spy(MonodepthLoss):
        def forward(self, disparities, left, right):
            seen.append((disparities[0].requires_grad, torch.is_grad_enabled(), model.training))
            return super().forward(disparities, left, right)

    validate(model, loader(data_dir, "val"), Spy(), CPU)
    assert seen == [(False, False, False)] * 3
    assert equal(before, model.state_dict())
    assert all(p.grad is None for p in model.parameters())


def test_training_does_change_weights_and_batch_statistics(data_dir, tiny):
    model = tiny().eval()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    train_one_epoch(model, loader(data_dir), MonodepthLoss(), optimizer, scheduler, CPU)
    after = model.state_dict()
    assert not any(
        torch.equal(before[k], after[k]) for k in before if k.endswith(("running_mean", "num_batches_tracked"))
    )
    assert not torch.equal(before["decoder.heads.3.conv.weight"], after["decoder.heads.3.conv.weight"])


def test_epoch_loss_is_the_sample_weighted_mean(data_dir, tiny):
    """Nine pairs in batches of 8: the paper's base code divides by 9/8 batches, a mean of means by 2."""
    model, loss = tiny().eval(), MonodepthLoss()
    whole = next(iter(loader(data_dir, "val", batch_size=9)))
    whole["right_image"][8] = 1 - whole["left_image"][8]  # the ninth is unlike the others
    batches = [{key: value[:8] for key, value in whole.items()}, {key: value[8:] for key, value in whole.items()}]
    with torch.no_grad():
        singles = [
            loss(model(left[None]), left[None], right[None])[0].item()
            for left, right in zip(whole["left_image"], whole["right_image"], strict=True)
        ]
    mean = sum(singles) / 9
    assert validate(model, batches, loss, CPU)["loss"] == pytest.approx(mean, rel=1e-4)
    assert (sum(singles[:8]) / 8 + singles[8]) / 2 != pytest.approx(mean, rel=0.05)


def test_mean_weighs_by_the_batch_size():
    mean = AverageMeter()
    for value, count in ((1.0, 8), (10.0, 1)):
        mean.add({"loss": torch.tensor(value)}, count)
    assert mean.read() == {"loss": pytest.approx(2.0)}


def test_validation_reports_level_and_spread_of_the_left_disparity(tiny):
    model = tiny().eval()
    left, right, *_ = street_pair(*SIZE)
    result = validate(model, [{"left_image": left, "right_image": right}], MonodepthLoss(), CPU)
    with torch.no_grad():
        values = model(left)[0][:, 0]
    assert result["disparity"] == pytest.approx(values.mean().item(), rel=1e-4)
    assert result["spread"] == pytest.approx((values.std() / values.mean()).item(), rel=1e-3)


# --- schedule ---


def learning_rates(steps):
    """What `training.schedule` makes of 1 in every step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    scheduler, rates = training.schedule(optimizer, steps), []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("steps", [5, 50, 1000])
def test_learning_rate_is_halved_at_three_and_four_fifths(steps):
    factors = learning_rates(steps)
    assert factors == [1] * (steps * 3 // 5) + [0.5] * (steps // 5) + [0.25] * (steps // 5)


def test_the_schedule_scales_with_the_epochs(data_dir, tmp_path, tiny):
    history = run(tiny(width=1), data_dir, tmp_path, 5, val=False, batch_size=9, learning_rate=1e-3)
    assert [row["learning_rate"] / 1e-3 for row in history] == pytest.approx([1, 1, 1, 0.5, 0.25])


# --- alarms ---


@pytest.mark.filterwarnings("default")
def test_a_collapsed_disparity_warns(data_dir, tmp_path, tiny, monkeypatch):
    spread = {"spread": 0.01}
    monkeypatch.setattr(training, "validate", lambda *_, **__: {"loss": 1.0, **spread})
    with pytest.warns(UserWarning, match=r"epoch 1: the disparity is nearly the same everywhere \(spread 0\.010\)"):
        run(tiny(), data_dir, tmp_path, epochs=1)
    spread["spread"] = 0.3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(tiny(), data_dir, tmp_path, epochs=1)


@pytest.mark.filterwarnings("default")
def test_a_model_that_says_the_same_everywhere_warns(data_dir, tmp_path, tiny):
    model = tiny()
    for head in model.decoder.heads:
        torch.nn.init.zeros_(head.conv.weight)
    with pytest.warns(UserWarning, match="the disparity is nearly the same everywhere"):
        run(model, data_dir, tmp_path, epochs=1, learning_rate=1e-12)


class NanLoss(MonodepthLoss):
    """A loss that is not a number in training, in validation or in neither."""

    def __init__(self, in_training):
        super().__init__()
        self.in_training = in_training

    def forward(self, disparities, left, right):
        total, parts = super().forward(disparities, left, right)
        return total * float("nan") if torch.is_grad_enabled() is self.in_training else total, parts


def test_a_training_loss_that_is_not_finite_raises_and_leaves_the_checkpoint(data_dir, tmp_path, tiny):
    run(tiny(), data_dir, tmp_path, epochs=3, stop_after=1)
    before = {name: (tmp_path / name).read_bytes() for name in ("last.pt", "weights.safetensors", "history.csv")}
    with pytest.raises(FloatingPointError, match=r"epoch 2.*learning_rate.*last\.pt"):
        run(tiny(), data_dir, tmp_path, epochs=3, resume=True, loss=NanLoss(in_training=True))
    assert before == {name: (tmp_path / name).read_bytes() for name in before}


def test_a_validation_loss_that_is_not_finite_raises_and_leaves_the_checkpoint(data_dir, tmp_path, tiny):
    """The last step of an epoch can spoil the weights while the epoch's training loss is still finite."""
    run(tiny(), data_dir, tmp_path, epochs=3, stop_after=1)
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(FloatingPointError, match="epoch 2"):
        run(tiny(), data_dir, tmp_path, epochs=3, resume=True, loss=NanLoss(in_training=False))
    assert (tmp_path / "last.pt").read_bytes() == before


DIVERGED = """
import sys
import torch
from monodepth_lib.losses import MonodepthLoss
from monodepth_lib.networks import get_model
from monodepth_lib.training import train_one_epoch

model = get_model("unet", base_channels=1)
torch.nn.init.constant_(model.decoder.heads[3].conv.bias, float("nan"))
optimizer = torch.optim.SGD(model.parameters(), 1e-3)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
batch = {"left_image": torch.rand(2, 3, 32, 96), "right_image": torch.rand(2, 3, 32, 96)}
try:
    loss = train_one_epoch(model, [batch], MonodepthLoss(), optimizer, scheduler, torch.device("cpu"))["loss"]
except FloatingPointError:
    sys.exit(0)
sys.exit(0 if loss != loss else 3)
"""


def test_a_diverged_model_is_an_error_not_a_crash_of_the_process():
    """On the CPU the gradient of grid_sample reads out of bounds where the grid is NaN (pytorch issue 24823)."""
    done = subprocess.run([sys.executable, "-c", DIVERGED], cwd=Path(training.__file__).parents[1], capture_output=True)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr.decode()[-500:]}"


# --- settings ---


def test_settings_take_what_is_not_none():
    chosen, tiny = settings("tiny", epochs=3, learning_rate=1, base_channels=None), training.PROFILES["tiny"]
    assert (chosen.epochs, chosen.learning_rate, chosen.base_channels) == (3, 1, tiny.base_channels)
    assert tiny.epochs == 1  # the profile itself is as it was


@pytest.mark.parametrize(
    "change, told",
    [
        ({"epochs": 1.5}, "epochs is 1.5; it must be of type int"),
        ({"epochs": True}, "epochs is True; it must be of type int"),
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        (
            {"learning_rate": "1e-4"},
            r"learning_rate is '1e-4'; it must be of type float \(in YAML, 1.0e-4 is a float\)",
        ),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"height": 16}, "height is 16; it must be at least 32: the smallest maps are 1/8 of it"),
        ({"depth": 3}, "no setting is named 'depth'; there are model, base_channels"),
    ],
)
def test_settings_that_no_run_can_have_are_named(change, told):
    with pytest.raises(ValueError, match=told):
        settings("tiny", **change)


def test_full_profile_is_the_labs_recipe():
    full = training.PROFILES["full"]
    assert (full.model, full.base_channels, full.size) == ("unet", 64, (256, 512))
    assert (full.epochs, full.batch_size, full.learning_rate) == (50, 8, 1e-4)


def test_unknown_precision_is_named():
    with pytest.raises(ValueError, match="'half'"):
        devices.pick_precision("half", CPU)
    assert devices.pick_precision("auto", CPU) == "float32"


# --- it learns ---


def test_overfitting_recovers_a_known_shift_within_half_a_pixel(tiny):
    """Two walls, 6 px apart between the views; a fresh model says 3 px."""
    shift, (height, width), steps = 6, SIZE, 120
    pairs = [shifted_pair(height, width, shift, seed) for seed in range(2)]
    lefts, rights = (torch.cat(views) for views in zip(*pairs, strict=True))
    batch = {"left_image": lefts, "right_image": rights}
    model = tiny(width=4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    scheduler = training.schedule(optimizer, steps)
    with torch.no_grad():
        before = (model(lefts)[0] * width - shift).abs().mean()
    train_one_epoch(model, [batch] * steps, MonodepthLoss(), optimizer, scheduler, CPU)
    with torch.no_grad():
        left, right = (model(lefts)[0] * width).unbind(1)
    assert before > 2
    assert (left[..., shift + 4 : -4] - shift).abs().mean() < 0.5  # away from the strip without a partner
    assert (right[..., 4 : -shift - 4] - shift).abs().mean() < 0.5


def test_a_free_disparity_descends_to_the_known_shift():
    shift, (height, width) = 5, SIZE
    left, right = shifted_pair(height, width, shift)
    level = torch.full((1, 2, 1, 1), 0.03, requires_grad=True)
    optimizer = torch.optim.Adam([level], 2e-3)
    for _ in range(60):
        maps = [level.expand(1, 2, height // 2**s, width // 2**s) for s in range(4)]
        optimizer.zero_grad()
        MonodepthLoss()(maps, left, right)[0].backward()
        optimizer.step()
    assert (level.detach() * width).flatten().tolist() == pytest.approx([shift, shift], abs=0.5)


def test_the_first_step_of_a_run_is_adams(data_dir, tmp_path, tiny):
    """Whatever the gradient, it moves a weight by the learning rate; weight decay would move this bias further."""
    model = tiny()
    run(model, data_dir, tmp_path, epochs=1, val=False, batch_size=9, learning_rate=1e-3)
    moved = (model.decoder.heads[3].conv.bias - tiny().decoder.heads[3].conv.bias).abs()
    assert moved.tolist() == pytest.approx([1e-3] * 2, rel=5e-3)


@pytest.mark.parametrize(
    "precision, kind", [("float32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_the_network_runs_in_the_precision_that_is_asked_for(data_dir, tmp_path, tiny, precision, kind):
    model, seen = tiny(width=1), []
    model.encoder.stages[0][0][0].register_forward_hook(lambda *given: seen.append((model.training, given[2].dtype)))
    run(model, data_dir, tmp_path, epochs=1, batch_size=9, precision=precision)
    assert set(seen) == {(True, kind), (False, kind)}  # in training and in validation
