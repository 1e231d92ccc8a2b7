"""Notebooks from the shell: parameters are checked before anything runs."""

import logging

import papermill
import pytest
from synthetic import write_notebook

from monodepth_lib import batch

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
    monkeypatch.setattr(batch, "notebook_path", lambda name: path)
    monkeypatch.setattr(batch, "project_path", lambda folder: tmp_path / folder)
    yield path
    logging.getLogger("papermill").removeFilter(batch.only_output)


@pytest.fixture
def executed(monkeypatch):
    """What papermill would have run, instead of running it."""
    calls = []
    monkeypatch.setattr(papermill, "execute_notebook", lambda source, target, parameters, **_: calls.append(parameters))
    return calls


def test_parameters_have_defaults_and_types(notebook):
    assert batch.declared_parameters(notebook) == {
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
    assert batch.declared_parameters(path) == {"value": expected}


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
    passed = batch.check_parameter("p", value, kind)
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
        batch.check_parameter("epochs", value, kind)


def test_a_number_that_yaml_reads_as_text_is_explained():
    with pytest.raises(ValueError, match=r"'1e-4'.*write 1\.0e-4"):
        batch.check_parameter("learning_rate", "1e-4", "float")


def test_run_refuses_what_the_notebook_lacks_and_passes_the_rest(notebook, executed, tmp_path):
    with pytest.raises(ValueError, match=r"05_training\.ipynb has no parameter epoch; it has data_dir, epochs"):
        batch.run("05_training", {"epoch": 1}, tmp_path / "out")
    assert executed == []
    assert batch.run("05_training", {"epochs": 2, "rate": 1}, tmp_path / "out") == tmp_path / "out/05_training.ipynb"
    assert executed == [{"epochs": 2, "rate": 1.0}]


def test_run_all_refuses_what_no_notebook_has(notebook, executed, tmp_path):
    with pytest.raises(ValueError, match="no notebook has a parameter epoch; there are data_dir"):
        batch.run_all({"epoch": 1}, tmp_path)
    assert executed == []


def test_run_all_hands_the_trained_weights_on(tmp_path, monkeypatch):
    declared = dict.fromkeys(batch.NOTEBOOKS, "output_dir = 'x'\nseed = 0")
    declared["06_testing"] = declared["07_gif"] = "output_dir = 'x'\nweights = 'unet_sample'"
    for name, text in declared.items():
        write_notebook(tmp_path / f"{name}.ipynb", text)
    monkeypatch.setattr(batch, "notebook_path", lambda name: tmp_path / f"{name}.ipynb")
    calls = {}
    monkeypatch.setattr(batch, "run", lambda name, parameters, output: calls.update({name: parameters}))
    batch.run_all({"seed": 7}, tmp_path / "out")
    assert tuple(calls) == batch.NOTEBOOKS
    assert calls["05_training"] == {"output_dir": str(tmp_path / "out"), "seed": 7}
    weights = str(tmp_path / "out/weights.safetensors")
    assert calls["06_testing"] == calls["07_gif"] == {"output_dir": str(tmp_path / "out"), "weights": weights}


def test_an_unknown_notebook_is_named_with_those_there_are():
    with pytest.raises(FileNotFoundError, match=r"'08_more'; there are 01_data_preparation.*'all'"):
        batch.notebook_path("08_more")


# --- the exit status ---


def test_main_returns_0_when_done(notebook, executed, capsys):
    assert batch.main(["05_training", "-p", "epochs", "2", "-p", "data_dir", "mine", "--name", "run1"]) == 0
    assert executed == [{"epochs": 2, "data_dir": "mine"}]
    assert "run1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["05_training", "-p", "epoch", "2"], "no parameter epoch"),
        (["05_training", "-p", "epochs", "two"], "epochs is 'two'"),
        (["05_training", "-p", "learning_rate", "1e-4"], r"write 1.0e-4"),
        (["05_training", "-p", "epochs", "{"], "expected"),
        (["all", "-p", "epoch", "2"], "no notebook has a parameter epoch"),
    ],
)
def test_main_returns_2_for_wrong_arguments_and_runs_nothing(notebook, executed, capsys, arguments, named):
    assert batch.main(arguments) == 2
    assert named in capsys.readouterr().err
    assert executed == []


def test_main_returns_2_for_an_unknown_notebook(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "project_path", lambda folder: tmp_path / folder)
    assert batch.main(["08_more"]) == 2
    assert "08_more" in capsys.readouterr().err


def test_main_returns_1_when_a_notebook_fails(notebook, monkeypatch, capsys):
    def fail(*_, **__):
        raise papermill.PapermillExecutionError(1, 1, "", "ZeroDivisionError", "division by zero", [])

    monkeypatch.setattr(papermill, "execute_notebook", fail)
    assert batch.main(["05_training"]) == 1
    assert "ZeroDivisionError: division by zero" in capsys.readouterr().err
