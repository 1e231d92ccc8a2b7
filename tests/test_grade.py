"""Marking a class: what each submission gets, whatever another one does."""

from __future__ import annotations

import csv
import json
import os
import socket
import time
from pathlib import Path

import pytest

from monodepth_lib.commands import grade

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="marking needs Linux or macOS")
ROOT = Path(__file__).resolve().parent.parent

RIGHT = "def depth(disparity, focal, baseline):\n    return focal * baseline / disparity\n"
SWAPPED = "def depth(disparity, focal, baseline):\n    return disparity / (focal * baseline)\n"
CHECK = 'checks.check("1.1", depth)'
IMPORTS = "import torch\nfrom monodepth_lib import checks"


def submit(folder: Path, student: str, *cells: str, name: str = "99_small.ipynb") -> Path:
    """A notebook of code cells, in the student's folder; number 99 has no exercises but those that it asks itself."""
    path = folder / student / name
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [{"cell_type": "code", "source": cell, "metadata": {}, "outputs": []} for cell in cells]
    path.write_text(json.dumps({"cells": entries, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def verdicts(folder: Path, **options) -> dict[str, tuple[str, str]]:
    marks = grade.grade(folder, **{"seconds": 10.0, **options})
    return {mark.student: (mark.verdict, mark.sentence) for mark in marks}


def test_every_verdict_and_its_sentence(tmp_path):
    submit(tmp_path, "right", IMPORTS, RIGHT + CHECK)
    submit(tmp_path, "wrong", IMPORTS, SWAPPED + CHECK)
    submit(tmp_path, "not_done", IMPORTS, "def depth(d, f, b):\n    return ...\n" + CHECK)
    submit(tmp_path, "raises", IMPORTS, "def depth(d, f, b):\n    return f * base / d\n" + CHECK)
    submit(tmp_path, "broken_line", IMPORTS, RIGHT + "left = (\n    7\n    % 2\n)\n" + CHECK)
    submit(tmp_path, "magic", IMPORTS, "%matplotlib inline\n" + RIGHT + CHECK)
    submit(tmp_path, "syntax", IMPORTS, "def depth(d, f, b):\n    return f * * b\n", CHECK)
    submit(tmp_path, "missing", IMPORTS, CHECK)
    said = verdicts(tmp_path)
    assert {name: verdict for name, (verdict, _) in said.items()} == {
        "right": "right",
        "wrong": "wrong",
        "not_done": "not done",
        "raises": "wrong",
        "broken_line": "right",
        "magic": "right",
        "syntax": "error",
        "missing": "missing",
    }
    assert "is the fraction upside down?" in said["wrong"][1]
    assert "NameError: name 'base' is not defined" in said["raises"][1]
    assert "SyntaxError in line 2" in said["syntax"][1]
    assert "nothing in 99_small.ipynb defines depth" in said["missing"][1]


def test_groups_with_numbers_are_not_one_student():
    for name, who in {
        "alice_03_loss_equations": "alice", "group_01_03_loss_equations": "group_01", "s12_03_loss_equations": "s12",
        "03_loss_equations": "03_loss_equations",
    }.items():  # fmt: skip
        assert grade.student(Path(f"in/{name}.ipynb"), Path("in")) == who


BAD = {
    "loops": "while True:\n    pass\n" + RIGHT,
    "loops_inside": "def depth(d, f, b):\n    while True:\n        pass\n",
    "exits_hard": "import os\nos._exit(0)\n" + RIGHT,
    "kills_itself": "import os, signal\nos.kill(0, signal.SIGKILL)\n" + RIGHT,
    "eats_memory": "def depth(d, f, b):\n    return len(bytearray(64 * 2**30))\n",
    "recurses": "def depth(d, f, b):\n    return depth(d, f, b)\n",
    "starts_children": "import subprocess\ndef depth(d, f, b):\n    subprocess.run(['sleep', '60'])\n",
}


def test_bad_submissions_cost_nobody_else_a_mark_and_end_in_time(tmp_path):
    for name, cell in BAD.items():
        submit(tmp_path, name, IMPORTS, cell + CHECK)
    submit(tmp_path, "a_good_one", IMPORTS, RIGHT + CHECK)
    submit(tmp_path, "z_good_one", IMPORTS, RIGHT + CHECK)
    began = time.monotonic()
    said = verdicts(tmp_path, seconds=2.0)
    assert time.monotonic() - began < 30
    assert said["a_good_one"] == said["z_good_one"] == ("right", "")
    assert said["loops"][0] == said["loops_inside"][0] == said["starts_children"][0] == "out of time"
    assert said["exits_hard"] == ("ended", "the process ended by itself before it answered")
    assert said["kills_itself"] == ("ended", "the process ended by signal 9 before it answered")
    assert said["eats_memory"][0] == "wrong" and "MemoryError" in said["eats_memory"][1]
    assert said["recurses"][0] == "wrong" and "RecursionError" in said["recurses"][1]


@pytest.mark.parametrize(
    "before",
    [
        "exit()",
        "raise SystemExit",
        "import sys\nsys.exit(1)",
        "print('x' * 2**30)",
        "def check(*_): print('right')",
        "checks.check = checks.judge = lambda *_: None\nchecks.EXERCISES.clear()\nchecks.compare = lambda *_: None",
        "import os, shutil\nfor f in os.listdir(): os.remove(f)\nshutil.rmtree(os.getcwd())",
        "import sys\nsys.stdout.close()",
        "%matplotlib inline\n!echo hello",
        "this_is_not_defined",
        "open('large', 'wb').write(b'0' * 2**30)",
        "input('your name? ')",
    ],
)
def test_a_cell_that_also_does_something_foolish_is_judged_by_its_function(tmp_path, before):
    submit(tmp_path, "foolish", IMPORTS, f"{before}\n{RIGHT}{CHECK}")
    submit(tmp_path, "foolish_and_wrong", IMPORTS, f"{before}\n{SWAPPED}{CHECK}")
    submit(tmp_path, "other", IMPORTS, RIGHT + CHECK)
    kept = [path.read_bytes() for path in sorted(tmp_path.rglob("*.ipynb"))]
    here = os.getcwd()
    said = verdicts(tmp_path, seconds=60.0)  # a gigabyte of text takes its time on a busy machine
    assert said["other"] == ("right", "")
    assert said["foolish"] == ("right", "")
    assert said["foolish_and_wrong"][0] == "wrong" and "upside down" in said["foolish_and_wrong"][1]
    assert [path.read_bytes() for path in sorted(tmp_path.rglob("*.ipynb"))] == kept
    assert os.getcwd() == here


def test_there_is_no_network(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        call = f"import socket\ndef depth(d, f, b):\n    socket.create_connection(('127.0.0.1', {port}), 2)\n"
        submit(tmp_path, "caller", IMPORTS, call + CHECK)
        verdict, sentence = verdicts(tmp_path)["caller"]
    assert verdict == "wrong" and "raised" in sentence and "Error" in sentence


def test_without_a_namespace_sockets_refuse(tmp_path, monkeypatch):
    class NoNamespaces:
        @staticmethod
        def unshare(_flags):
            return -1

    monkeypatch.setattr(grade.ctypes, "CDLL", lambda *_, **__: NoNamespaces)
    submit(
        tmp_path,
        "caller",
        IMPORTS,
        "import socket\ndef depth(d, f, b):\n    socket.create_connection(('127.0.0.1', 1), 2)\n" + CHECK,
    )
    assert "there is no network while exercises are marked" in verdicts(tmp_path)["caller"][1]


def test_what_an_exercise_needs_from_other_cells_is_run_and_nothing_else(tmp_path):
    needs = "SCALE = 1.0\ndef product(a, b):\n    return SCALE * a * b\n"
    submit(
        tmp_path,
        "helper",
        "from math import sqrt\n" + IMPORTS,
        needs,
        "raise RuntimeError('a cell of half an hour')",
        "def depth(d, f, b):\n    return sqrt(product(f, b) ** 2) / d\n" + CHECK,
    )
    submit(tmp_path, "twice", IMPORTS, SWAPPED + CHECK, RIGHT + CHECK)
    assert verdicts(tmp_path) == {"helper": ("right", ""), "twice": ("right", "")}


def test_the_course_s_own_notebooks_and_solutions(tmp_path):
    """Stubs are not done, solutions are right; the exercises are those of the course, also when the check is gone."""
    (source,) = (ROOT / "notebooks" / "solutions").glob("01_*.ipynb")
    solved, stub = json.loads(source.read_text()), json.loads((ROOT / "notebooks" / source.name).read_text())
    for name, notebook in (("solved", solved), ("stub", stub)):
        (tmp_path / name).mkdir()
        (tmp_path / name / source.name).write_text(json.dumps(notebook))
    for cell in solved["cells"]:
        cell["source"] = "".join(line for line in cell["source"] if not line.startswith("checks.check"))
    (tmp_path / f"carol_{source.name}").write_text(json.dumps(solved))
    marks = grade.grade(tmp_path)
    mine = {name: [m.verdict for m in marks if m.student == name] for name in ("solved", "stub", "carol")}
    assert len(mine["stub"]) >= 4
    assert set(mine["stub"]) == {"not done"}
    assert mine["solved"] == mine["carol"] == ["right"] * len(mine["stub"])


def test_the_command_line_writes_one_csv_and_names_what_is_no_notebook(tmp_path, capsys):
    submit(tmp_path / "in", "张三", IMPORTS, RIGHT + CHECK)
    (tmp_path / "in" / "bob_01_data_preparation.ipynb").write_text("<html>")
    output = tmp_path / "marks.csv"
    assert grade.main([str(tmp_path / "in"), "--output", str(output), "--seconds", "10"]) == 1
    assert output.read_bytes().startswith(b"\xef\xbb\xbf")
    with output.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["student"], row["exercise"], row["verdict"]) for row in rows] == [
        ("bob", "01", "error"),
        ("张三", "1.1", "right"),
    ]
    assert "bob_01_data_preparation.ipynb is no notebook" in rows[0]["sentence"]
    assert "张三: 1 of 1" in capsys.readouterr().out


def test_a_table_of_the_user_s_stays_and_an_earlier_run_s_of_the_same_class_is_replaced(tmp_path, capsys):
    for name in ("a", "b"):
        submit(tmp_path / name, "bob", IMPORTS, RIGHT + CHECK)
    output = tmp_path / "marks.csv"
    output.write_text("marked by hand")
    for folder in ("a", "a", "b"):
        assert grade.main([str(tmp_path / folder), "--output", str(output), "--seconds", "30"]) == 0
        assert f"{tmp_path} holds other files of that name, which stay: marks becomes marks_" in capsys.readouterr().out
    assert output.read_text() == "marked by hand"
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["marks.csv", "marks_2.csv", "marks_3.csv"]
    assert grade.main([str(tmp_path / "a"), "--output", str(tmp_path)]) == 2
    assert f"{tmp_path} is no file: name the CSV" in capsys.readouterr().err


@pytest.mark.parametrize("argument", ["--seconds 0", "--seconds 1e308", "--memory-gb nan", "--memory-gb 1e308"])
def test_limits_that_make_no_sense_are_named(argument, capsys):
    with pytest.raises(SystemExit):
        grade.main(["submissions", *argument.split()])
    assert f"argument {argument.split()[0]}: " in capsys.readouterr().err


@pytest.mark.parametrize("folder, says", [("none", "is no folder"), (".", "holds no notebook")])
def test_a_folder_without_notebooks_is_named(tmp_path, capsys, folder, says):
    assert grade.main([str(tmp_path / folder)]) == 2
    assert says in capsys.readouterr().err
