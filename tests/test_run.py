"""Notebooks from the shell: parameters are checked before anything runs."""

import itertools
import json

import nbformat
import papermill
import pytest
import torch
from nbclient.exceptions import DeadKernelError
from synthetic import make_drive, write_notebook

from monodepth_lib import devices, kitti, training
from monodepth_lib.commands import run
from monodepth_lib.data import prepare_dataloader
from monodepth_lib.losses import MonodepthLoss
from monodepth_lib.networks import get_model

PARAMETERS = """
data_dir = "data/sample"  # a folder
epochs = None  # type: int passes
learning_rate = None  # type: float Adam's
rate: float = 0.1
seed = 0
resume = False
sizes = [64, 208]
"""


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    path = write_notebook(tmp_path / "05_training.ipynb", PARAMETERS)
    monkeypatch.setattr(run, "notebook_path", lambda name: path)
    monkeypatch.setattr(run, "project_path", lambda folder: tmp_path / folder)
    return path


@pytest.fixture
def executed(monkeypatch):
    """What papermill would have run, instead of running it."""
    calls = []
    monkeypatch.setattr(papermill, "execute_notebook", lambda source, target, parameters, **_: calls.append(parameters))
    return calls


def test_parameters_have_defaults_and_types(notebook):
    assert run.declared_parameters(notebook) == {
        "data_dir": ("data/sample", "str"),
        "epochs": (None, "int"),
        "learning_rate": (None, "float"),
        "rate": (0.1, "float"),
        "seed": (0, "int"),
        "resume": (False, "bool"),
        "sizes": ([64, 208], "list"),
    }


@pytest.mark.parametrize(
    "literal, expected",
    [
        ("1e-4", (1e-4, "float")),
        ('"None of them"', ("None of them", "str")),
        ("True", (True, "bool")),
        ("-1", (-1, "int")),
    ],
)
def test_defaults_are_read_as_python_reads_them(tmp_path, literal, expected):
    path = write_notebook(tmp_path / "n.ipynb", f"value = {literal}  # a comment")
    assert run.declared_parameters(path) == {"value": expected}


@pytest.mark.parametrize(
    "value, kind, expected",
    [
        (3, "int", 3),
        (3, "float", 3.0),
        (0.5, "float", 0.5),
        ("a", "str", "a"),
        (True, "bool", True),
        ([1], "list", [1]),
        (None, "int", None),
        ({"any": 1}, "NoneType", {"any": 1}),
    ],
)
def test_fitting_values_pass_and_an_int_serves_as_a_float(value, kind, expected):
    passed = run.check_parameter("p", value, kind)
    assert passed == expected and type(passed) is type(expected)


@pytest.mark.parametrize(
    "value, kind",
    [
        (0.5, "int"),
        ("3", "int"),
        (True, "int"),
        (True, "float"),
        (3, "str"),
        (1, "bool"),
        ("yes", "bool"),
        ("a", "list"),
    ],
)
def test_other_values_are_refused_by_name(value, kind):
    with pytest.raises(ValueError, match=rf"parameter epochs is {value!r}, but the notebook wants {kind}"):
        run.check_parameter("epochs", value, kind)


def test_run_refuses_what_the_notebook_lacks_and_passes_the_rest(notebook, executed, tmp_path):
    with pytest.raises(ValueError, match="05_training: no parameter is named epoch; there are data_dir, epochs"):
        run.run("05_training", {"epoch": 1}, tmp_path / "out")
    assert executed == []
    assert run.run("05_training", {"epochs": 2, "rate": 1}, tmp_path / "out") == tmp_path / "out/05_training.ipynb"
    assert executed == [{"epochs": 2, "rate": 1.0}]


def test_run_all_hands_the_trained_weights_on(tmp_path, monkeypatch):
    declared = dict.fromkeys(run.NOTEBOOKS, "output_dir = 'x'\nseed = 0")
    declared["06_testing"] = declared["07_gif"] = "output_dir = 'x'\nweights = 'unet_sample'"
    declared["04_networks"] += "\nweights = 'unet_sample'"  # before 05: not those that it will train
    for name, text in declared.items():
        write_notebook(tmp_path / f"{name}.ipynb", text)
    monkeypatch.setattr(run, "notebook_path", lambda name: tmp_path / f"{name}.ipynb")
    calls = {}
    monkeypatch.setattr(run, "run", lambda name, parameters, output: calls.update({name: parameters}))
    run.run_all({"seed": 7}, tmp_path / "out")
    assert tuple(calls) == run.NOTEBOOKS
    assert calls["04_networks"] == {"output_dir": str(tmp_path / "out"), "seed": 7}
    assert calls["05_training"] == {"output_dir": str(tmp_path / "out"), "seed": 7}
    weights = str(tmp_path / "out/weights.safetensors")
    assert calls["06_testing"] == calls["07_gif"] == {"output_dir": str(tmp_path / "out"), "weights": weights}


def test_an_unknown_notebook_is_named_with_those_there_are():
    with pytest.raises(FileNotFoundError, match=r"'08_more'; there are 00_first_look.*'all'"):
        run.notebook_path("08_more")


def test_one_notebook_writes_to_the_runs_folder_unless_told_otherwise(tmp_path):
    path = write_notebook(tmp_path / "06_testing.ipynb", "output_dir = 'output/06'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "notebook_path", lambda name: path)
        for given, folder in (({}, str(tmp_path / "mine")), ({"output_dir": "there"}, "there")):
            assert run.take_parameters(["06"], given, tmp_path / "mine") == {"06": {"output_dir": folder}}


def test_model_is_short_for_model_name(tmp_path):
    taken = run.take_parameters(["05_training"], {"epochs": 50, "model": "unet"}, tmp_path)
    assert taken["05_training"] == {"epochs": 50, "model_name": "unet", "output_dir": str(tmp_path)}


def test_profile_full_brings_the_labs_drives_where_nothing_else_is_given(tmp_path):
    taken = run.take_parameters(run.NOTEBOOKS, {"profile": "full", "val_drives": "none"}, tmp_path)
    assert taken.pop("00_first_look") == {}  # it takes one picture and no drives
    assert {values["profile"] for values in taken.values()} == {"full"}
    assert {values["data_dir"] for values in taken.values()} == {"data"}
    drives = {"train_drives": "lab", "val_drives": "none", "test_drives": "lab"}
    assert {key: taken["05_training"][key] for key in drives} == drives
    assert taken["07_gif"]["gif_drive"] == "2011_09_26_drive_0014_sync"
    assert taken["07_gif"]["weights"] == str(tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"gif_drive is the lab's, test_drives is not: .* -p gif_drive DRIVE"):
        run.take_parameters(run.NOTEBOOKS, {"profile": "full", "test_drives": "eigen"}, tmp_path)
    for parameters in ({"profile": "full", "data_dir": "mine"}, {"profile": "class"}, {}):
        taken = run.take_parameters(run.NOTEBOOKS, parameters, tmp_path)
        assert "train_drives" not in taken["05_training"] and "gif_drive" not in taken["07_gif"]


def test_two_steps_of_profile_full(tmp_path):
    """The lab's network at the lab's size on drives of its split; one picture a step instead of eight."""
    for drive in kitti.SPLITS["lab"]["train"]:
        make_drive(tmp_path / drive, range(1))
    full = training.settings("full", batch_size=1, workers=0)
    loader = prepare_dataloader(kitti.select_pairs(tmp_path, "train", "lab"), True, size=full.size, batch_size=1)
    model = get_model(full.model, base_channels=full.base_channels)
    before = [weight.detach().clone() for weight in model.parameters()]
    optimizer = torch.optim.Adam(model.parameters(), full.learning_rate, fused=True)
    scheduler = training.schedule(optimizer, 100)
    device = torch.device("cpu")
    precision = devices.pick_precision(full.precision, device)
    torch.set_num_threads(2)
    try:
        two = itertools.islice(loader, 2)
        means = training.train_one_epoch(model, two, MonodepthLoss(), optimizer, scheduler, device, precision)
    finally:
        torch.set_num_threads(1)
    assert scheduler.last_epoch == 2
    training.check_finite(model, means.values())
    assert not any(map(torch.equal, before, model.parameters()))


# --- the log, and how a run ended ---

TALKING = """
import sys, warnings
from IPython.display import HTML, display
display(HTML("<b>rich</b>"))
for epoch in range(1, 4):
    print(f"epoch {epoch:>3}/3  train 0.5")
print("a warning", file=sys.stderr)
if fail:
    raise FloatingPointError("the loss is not finite\\nin epoch 3")
1 + 1
"""


@pytest.fixture
def talking(tmp_path, monkeypatch):
    path = write_notebook(tmp_path / "05_training.ipynb", "fail = False\noutput_dir = 'x'", TALKING)
    monkeypatch.setattr(run, "notebook_path", lambda name: path)
    monkeypatch.setattr(run, "project_path", lambda folder: tmp_path / folder)
    return tmp_path / "output/run"


def test_the_log_is_what_cells_print_and_a_failure_is_one_sentence(talking, capfd):
    assert run.main(["05_training", "-p", "fail", "true"]) == 1
    said = capfd.readouterr()
    assert said.out.splitlines() == [*(f"epoch   {epoch}/3  train 0.5" for epoch in (1, 2, 3)), "a warning"]
    sentence = "FloatingPointError: the loss is not finite in epoch 3"
    assert said.err == f"{sentence} (the executed notebook is in {talking})\n"
    status = run.read_status(talking)
    assert (status["state"], status["said"]) == ("failed", sentence)
    assert status["notebooks"] == {"05_training": {"fail": True, "output_dir": str(talking)}}
    executed = nbformat.read(talking / "05_training.ipynb", 4)
    assert any("epoch   3/3" in str(cell.get("outputs")) for cell in executed.cells)


@pytest.mark.parametrize(
    "error, code, state, said",
    [
        (None, 0, "done", ""),
        (KeyboardInterrupt(), 130, "stopped", "before its end; what was saved is kept"),
        (OSError("output/run/last.pt could not be written"), 1, "failed", "OSError: output/run/last.pt could not"),
        (RuntimeError("Kernel didn't respond in 60 seconds"), 1, "failed", "RuntimeError: Kernel didn't respond"),
        (DeadKernelError("Kernel died"), 1, "failed", "when memory runs out: try a smaller batch_size"),
    ],
)
def test_every_end_has_a_status_and_an_exit_code(notebook, tmp_path, monkeypatch, error, code, state, said):
    def end(*_, **__):
        assert run.read_status(tmp_path / "output/run")["state"] == "running"
        if error:
            raise error

    monkeypatch.setattr(papermill, "execute_notebook", end)
    assert run.main(["05_training.ipynb", "-p", "epochs", "2"]) == code
    status = run.read_status(tmp_path / "output/run")
    assert status["state"] == state and said in status["said"] and "\n" not in status["said"]
    assert status["notebooks"]["05_training"]["epochs"] == 2
    assert status["notebooks"]["05_training"]["seed"] == 0


def test_a_new_start_forgets_why_the_last_one_failed(notebook, executed, tmp_path):
    run.write_status(tmp_path / "output/run", state="failed", said="ValueError: no")
    assert run.main(["05_training"]) == 0
    assert json.loads((tmp_path / "output/run/status.json").read_text())["said"] == ""


def test_two_runs_cannot_share_a_folder(notebook, executed, tmp_path, capsys):
    with run.locked(tmp_path / "output/run"):
        assert run.main(["05_training"]) == 2
        assert executed == [] and "output/run is in use by another run" in capsys.readouterr().err
        assert run.main(["05_training", "--name", "other"]) == 0
    assert run.main(["05_training"]) == 0


# --- the exit status ---


def test_main_returns_0_when_done(notebook, executed, capsys):
    assert run.main(["05_training", "-p", "epochs", "2", "-p", "data_dir", "mine", "--name", "run1"]) == 0
    assert executed == [{"epochs": 2, "data_dir": "mine"}]
    assert "run1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["05_training", "-p", "epoch", "2"], "no parameter is named epoch"),
        (["05_training", "-p", "epochs", "two"], "epochs is 'two'"),
        (["05_training", "-p", "learning_rate", "1e-4"], r"write 1.0e-4"),
        (["05_training", "-p", "epochs", "{"], "expected"),
        (["all", "-p", "epoch", "2"], "no parameter is named epoch"),
        (["05_training", "06_testing", "-p", "rate", "high"], "rate is 'high'"),
    ],
)
def test_main_returns_2_for_wrong_arguments_and_runs_nothing(notebook, executed, capsys, arguments, named):
    assert run.main(arguments) == 2
    assert named in capsys.readouterr().err
    assert executed == []


def test_main_returns_2_for_an_unknown_notebook(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "project_path", lambda folder: tmp_path / folder)
    assert run.main(["08_more"]) == 2
    assert "08_more" in capsys.readouterr().err


def test_a_notebook_that_no_run_wrote_stays(notebook, executed, tmp_path, capsys):
    """A student's copy in the folder that --output names; what a run left there is replaced."""
    (tmp_path / "mine").mkdir()
    mine = tmp_path / "mine/05_training.ipynb"
    before = notebook.read_bytes()
    mine.write_bytes(before)
    assert run.main(["05_training", "--output", str(tmp_path / "mine")]) == 2
    assert f"{mine} is there, and no run wrote it: name another folder with --output" in capsys.readouterr().err
    assert mine.read_bytes() == before and executed == [] and not (tmp_path / "mine/status.json").exists()
    notes = json.loads(before)
    notes["metadata"]["papermill"] = {"output_path": str(mine)}
    mine.write_text(json.dumps(notes, indent=1))
    assert run.main(["05_training", "--output", str(tmp_path / "mine")]) == 0
