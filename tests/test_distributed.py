"""Two processes on the CPU train what one process trains; a killed one ends the job, and any number resumes it."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from synthetic import make_drive
from test_training import SIZE
from torch import nn

from monodepth_lib import data, devices, training
from monodepth_lib.checkpoints import read_history
from monodepth_lib.commands import train
from monodepth_lib.commands.train import main
from monodepth_lib.data import prepare_dataloader
from monodepth_lib.devices import share_model
from monodepth_lib.kitti import select_pairs
from monodepth_lib.networks import get_model
from monodepth_lib.training import AverageMeter

pytestmark = pytest.mark.filterwarnings("ignore:epoch .*the disparity is nearly the same")
ARGUMENTS = "--model unet --base-channels 1 --height 32 --image-width 96 --epochs 3 --batch-size 4 --learning-rate 1e-2"

# torchrun's workers: `commands.train`, with batch normalisation in evaluation, so that no statistics depend on a
# process's share of the batch, and (where asked for) one that is killed in the second step of epoch 2
WORKER = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from monodepth_lib import training
from monodepth_lib.commands.train import main
torch.nn.BatchNorm2d.train = lambda self, mode=True: torch.nn.Module.train(self, False)
if sys.argv[1] == "killed" and os.environ["RANK"] == "1":
    steps, to_device = 0, training.to_device
    def killing(*arguments):
        global steps
        steps += 1
        if steps == (2 + 2) + 2:  # an epoch has 2 batches, and its share of validation 2 more
            os.kill(os.getpid(), signal.SIGKILL)
        return to_device(*arguments)
    training.to_device = killing
sys.exit(main(sys.argv[2:]))
"""


def torchrun(tmp_path, what, processes, arguments, machines=1):
    """Runs torchrun once a machine (all of them this one); returns what they said, and the worst status."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free.getsockname()[1]}"]
    group = ["--standalone"] if machines == 1 else [f"--nnodes={machines}", *meeting]
    command = [sys.executable, "-m", "torch.distributed.run", *group, f"--nproc-per-node={processes}"]
    started = [
        subprocess.Popen(
            [*command, str(script), what, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(training.__file__).parents[1],
        )
        for _ in range(machines)
    ]
    said = [process.communicate(timeout=600) for process in started]
    status = max(abs(process.returncode) for process in started)
    return subprocess.CompletedProcess(command, status, *("".join(texts) for texts in zip(*said, strict=True)))


def rows(folder):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_history(folder / "history.csv")]


@pytest.fixture
def norms_in_evaluation(monkeypatch):
    monkeypatch.setattr(nn.BatchNorm2d, "train", lambda self, mode=True: nn.Module.train(self, False))


@pytest.fixture
def one_process(data_dir, tmp_path, norms_in_evaluation):
    """The arguments, and the output folder of a run in this process alone."""
    arguments = [*ARGUMENTS.split(), "--data", str(data_dir), "--device", "cpu"]
    assert main([*arguments, "--output", str(tmp_path / "one")]) == 0
    return arguments, tmp_path / "one"


def assert_same_run(folder, other, **room):
    ours, theirs = rows(folder), rows(other)
    assert len(ours) == len(theirs) == 3
    for one, two in zip(ours, theirs, strict=True):
        assert one == pytest.approx(two, **room)
    states = [torch.load(path / "last.pt", weights_only=True)["model"] for path in (folder, other)]
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-3, atol=1e-4, msg=name)


def test_two_processes_on_two_machines_train_what_one_trains(tmp_path, one_process):
    arguments, alone = one_process
    done = torchrun(tmp_path, "whole", 1, [*arguments, "--output", str(tmp_path / "two")], machines=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("epoch   2/3") == 1  # the first process alone speaks
    assert_same_run(tmp_path / "two", alone, rel=1e-4)


def test_a_killed_process_ends_the_job_and_any_number_resumes_it(tmp_path, one_process):
    arguments, alone = one_process
    arguments = [*arguments, "--output", str(tmp_path / "killed")]
    done = torchrun(tmp_path, "killed", 2, arguments)
    assert done.returncode not in (0, signal.SIGKILL)
    assert "Signal 9 (SIGKILL)" in done.stderr
    state = torch.load(tmp_path / "killed/last.pt", weights_only=True)
    assert len(state["history"]) == 1
    assert main([*arguments, "--resume"]) == 0  # in one process
    assert_same_run(tmp_path / "killed", alone, rel=1e-4)


# --- the parts ---


@pytest.fixture
def group(tmp_path):
    """A group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def kinds(model):
    return {type(module) for module in model.modules() if "BatchNorm" in type(module).__name__}


def test_batch_normalisation_is_over_all_processes_on_gpus(monkeypatch):
    wrapped = []
    monkeypatch.setattr(devices, "DistributedDataParallel", lambda model, **options: wrapped.append(options) or model)
    model = get_model("resnet18_md")
    names = list(model.state_dict())
    parameters = list(model.parameters())
    assert kinds(share_model(model, torch.device("cuda:1"))) == {nn.SyncBatchNorm}
    assert wrapped == [{"device_ids": [1]}]
    assert list(model.state_dict()) == names  # its weights load into the plain network
    assert all(one is other for one, other in zip(parameters, model.parameters(), strict=True))


def test_on_the_cpu_batch_normalisation_stays_as_it_is(group):
    model = get_model("unet", base_channels=1)
    shared = share_model(model, torch.device("cpu"))
    assert kinds(shared) == {nn.BatchNorm2d}
    assert shared.module is model


def test_the_mean_is_over_all_pairs_of_all_processes(monkeypatch):
    """The second process has one pair where the first has eight, the third had no batch at all."""

    def gather(shares, own):
        shares[:] = [own, (1, {"loss": 10.0}), (0, {})]

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    mean = AverageMeter()
    mean.add({"loss": torch.tensor(1.0)}, 8)
    assert mean.read() == {"loss": pytest.approx(2.0)}


@pytest.fixture
def shares(data_dir, monkeypatch):
    """Each of `count` processes' loader of one side."""

    def make(side, count, **options):
        loaders = []
        for rank in range(count):
            monkeypatch.setattr(data, "process", lambda rank=rank: (rank, count))
            loaders.append(prepare_dataloader(select_pairs(data_dir, side), side == "train", size=SIZE, **options))
        return loaders

    return make


def test_a_set_smaller_than_the_global_batch_is_refused(shares):
    with pytest.raises(ValueError, match="fewer than one batch of 16"):
        shares("train", 2, batch_size=8)


@pytest.mark.parametrize("count", [2, 4])
def test_each_validation_pair_is_seen_by_one_process(shares, count):
    """DistributedSampler repeats pairs until the shares are equal: the mean would not be exact."""
    seen = [name for loader in shares("val", count) for batch in loader for name in batch["name"]]
    assert len(seen) == len(set(seen)) == 9


def test_a_global_batch_is_the_same_pairs_for_any_number_of_processes(shares):
    def steps(count):
        loaders = shares("train", count, batch_size=4 // count)
        return [{name for batch in batches for name in batch["name"]} for batches in zip(*loaders, strict=True)]

    assert steps(1) == steps(2) == steps(4)


def test_a_batch_that_cannot_be_shared_out_is_refused(data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "process", lambda: (0, 3))
    assert main(["--data", str(data_dir), "--output", str(tmp_path), "--batch-size", "8"]) == 1
    assert "batch_size is 8; 3 processes cannot share it out evenly" in capsys.readouterr().err


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="process 1 has no GPU, torch sees 1: lower --nproc-per-node"):
        train.join_group("auto")


def test_without_torchrun_a_launchers_variables_mean_nothing(monkeypatch):
    for name, value in (("WORLD_SIZE", "1"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    assert train.join_group("cpu") == "cpu" and not dist.is_initialized()


def test_a_missing_folder_is_one_sentence_and_a_status(tmp_path, capsys):
    assert main(["--data", str(tmp_path / "nowhere"), "--output", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "nowhere" in said and said.count("\n") == 1
    (tmp_path / "empty").mkdir()
    assert main(["--data", str(tmp_path / "empty"), "--output", str(tmp_path)]) == 1
    assert "train is missing: make it, or name drives with --train-drives" in capsys.readouterr().err


def test_the_same_drive_on_both_sides_is_refused(data_dir, tmp_path, capsys):
    drive = "2020_01_01_drive_0001_sync"
    arguments = ["--data", str(data_dir), "--output", str(tmp_path), "--val-drives", drive]
    assert main([*ARGUMENTS.split(), *arguments, "--train-drives", drive]) == 1
    assert drive in capsys.readouterr().err


def test_a_cached_run_is_the_same_run(data_dir, tmp_path):
    arguments = [*ARGUMENTS.split(), "--epochs", "1", "--data", str(data_dir), "--device", "cpu"]
    assert main([*arguments, "--output", str(tmp_path / "read")]) == 0
    assert main([*arguments, "--output", str(tmp_path / "cached"), "--cache-dir", str(tmp_path / "cache")]) == 0
    assert rows(tmp_path / "cached") == [pytest.approx(row) for row in rows(tmp_path / "read")]
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2


@pytest.mark.parametrize(
    ("more", "key", "value"),
    [
        ("", "fast", True),
        ("--plain", "fast", False),
        ("--compile", "compile", True),
        ("--imagenet", "imagenet", True),
        ("--cameras grey", "grey", True),
    ],
)
def test_each_option_reaches_the_training(tmp_path, monkeypatch, more, key, value):
    seen = {}
    for side in ("train", "vals"):
        for cameras in ("colour", "grey"):
            make_drive(tmp_path / side / f"{side}_1", range(4), cameras=cameras)
    monkeypatch.setattr(train, "get_model", lambda _, **given: seen.update(given))
    monkeypatch.setattr(train, "train", lambda *_, **given: seen.update(given))
    where = ["--data", str(tmp_path), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*ARGUMENTS.split(), *more.split(), *where]) == 0 and seen[key] is value


# --- the command line ---


def test_a_checkpoint_is_not_replaced_unasked(data_dir, tmp_path, capsys, monkeypatch):
    """And paths count from where the user stands."""
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(data_dir)
    arguments = [*ARGUMENTS.split(), "--epochs", "1", "--data", "data", "--device", "cpu", "--output", "mine"]
    assert main(arguments) == 0
    before = (tmp_path / "mine/last.pt").read_bytes()
    capsys.readouterr()
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "mine/last.pt is a checkpoint: --resume goes on from it, --restart replaces it" in said
    assert (tmp_path / "mine/last.pt").read_bytes() == before
    assert main([*arguments, "--resume", "--seed", "1"]) == 1
    assert "another run: seed 0 (here 1)" in (said := capsys.readouterr().err)
    assert "use --restart" in said and "resume=" not in said
    assert main([*arguments, "--restart", "--seed", "1"]) == 0


@pytest.mark.parametrize("name", ["weights.safetensors", "history.csv"])
def test_what_no_training_of_ours_left_is_not_replaced_unasked(data_dir, tmp_path, capsys, name):
    (tmp_path / name).write_text("mine")
    assert main([*ARGUMENTS.split(), "--data", str(data_dir), "--device", "cpu", "--output", str(tmp_path)]) == 1
    assert f"{name} is there, without a last.pt, --restart replaces it, --output" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize(
    "argument",
    ["--epochs 0", "--learning-rate nan", "--learning-rate -1", "--seed -1", "--workers -1", "--val-drives x,"],
)
def test_arguments_that_make_no_sense_are_named(argument, capsys):
    with pytest.raises(SystemExit):
        main(argument.split())
    assert f"argument {argument.split()[0]}: " in capsys.readouterr().err
