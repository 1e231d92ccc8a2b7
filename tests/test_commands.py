"""The command `monodepth`: one door to all, on any console, for any user, and where no repository is."""

from __future__ import annotations

import ast
import graphlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from monodepth_lib import commands, kitti
from monodepth_lib.commands import __main__ as door
from monodepth_lib.commands import run, sweep

ROOT = Path(__file__).resolve().parent.parent


def python(*arguments: str, cwd: Path = ROOT, **environment: str | None) -> subprocess.CompletedProcess:
    """Runs Python with our library; an `environment` of None removes a variable."""
    chosen = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, capture_output=True, cwd=cwd, env=chosen, timeout=300, encoding="utf-8", errors="replace"
    )


# --- the door ---


def test_every_command_has_a_module_and_a_line():
    modules = {
        path.stem
        for path in (ROOT / "monodepth_lib/commands").glob("*.py")
        if "\ndef main(" in path.read_text(encoding="utf-8")
    }
    assert set(door.COMMANDS) == modules - {"__main__"}


@pytest.mark.parametrize("name", door.COMMANDS)
def test_every_help_shows_an_example(name, capsys):
    with pytest.raises(SystemExit) as end:
        door.main([name, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert f"usage: monodepth {name}" in said
    rest = said.partition("\n\n")[2]  # behind the usage
    assert f"monodepth {name}" in rest or f"commands.{name} " in rest


def test_the_door_imports_nothing_but_python():
    """-S leaves out site-packages."""
    done = python("-S", "-X", "importtime", "-m", "monodepth_lib.commands", "--help")
    assert done.returncode == 0 and "  evaluate  " in done.stdout
    assert not {"torch", "numpy", "yaml"} & {line.split("|")[-1].strip() for line in done.stderr.splitlines()}


def test_an_unknown_command_is_named(capsys):
    for wrong in (["trian"], []):
        with pytest.raises(SystemExit) as end:
            door.main(wrong)
        assert end.value.code == 2
        assert "COMMAND" in capsys.readouterr().err


def test_ctrl_c_is_one_word(monkeypatch, capsys):
    def press(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("monodepth_lib.commands.predict.main", press)
    assert door.main(["predict"]) == 130 and capsys.readouterr().err == "stopped\n"


WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
BUSY = """
import monodepth_lib
monodepth_lib.os.environ.clear()
monodepth_lib.processor_is_busy = lambda: {}
monodepth_lib.choose_waiting()
print(dict(monodepth_lib.os.environ))
"""


def test_importing_the_package_imports_no_torch_and_chooses_how_threads_wait():
    code = f"import os, sys, monodepth_lib; print('torch' in sys.modules, *map(os.environ.get, {WAITING[:2]}))"
    unset = dict.fromkeys(WAITING)
    assert python("-c", code, **unset).stdout.split() in (["False", "PASSIVE", "None"], ["False", "None", "50000"])
    assert python("-c", code, **unset | {"GOMP_SPINCOUNT": "7"}).stdout.split() == ["False", "None", "7"]
    assert python("-c", BUSY.format(True)).stdout.strip() == "{'OMP_WAIT_POLICY': 'PASSIVE'}"
    assert python("-c", BUSY.format(False)).stdout.strip() == "{'GOMP_SPINCOUNT': '50000'}"


# --- arguments ---


@pytest.mark.parametrize(
    "kind, good, bad",
    [
        (commands.positive(int), ["1", str(10**400)], ["0", "-1", "1.5", "x", ""]),
        (commands.positive(float), ["0.5"], ["0", "nan", "inf", "-inf", "1e999"]),
        (commands.finite, ["-3", "0"], ["nan", "inf"]),
        (commands.count, ["0"], ["-1"]),
        (commands.seed, ["0", str(2**32 - 1)], ["-1", str(2**32), "nan"]),
        (commands.names, ["a", "a,b"], ["", ",", "x,", " ,a"]),
    ],
)
def test_wrong_arguments_are_named_with_what_they_may_be(kind, good, bad, capsys):
    parser = commands.command_parser("x", None, "monodepth x")
    parser.add_argument("--cap", type=kind)
    for text in good:
        assert str(parser.parse_args([f"--cap={text}"]).cap) == str(float(text) if kind is commands.finite else text)
    for text in bad:
        with pytest.raises(SystemExit):
            parser.parse_args([f"--cap={text}"])
        assert "argument --cap: " in capsys.readouterr().err


def test_a_grid_of_many_drives_has_a_folder(tmp_path):
    drives = ",".join(f"2011_09_26_drive_{number:04}_sync" for number in range(20))
    file = tmp_path / "many.yaml"
    file.write_text(f"notebooks: 05_training\ngrid: {{train_drives: ['{drives}', '{drives},lab']}}", encoding="utf-8")
    first, second = (one.name for one in sweep.read_sweep(file))
    assert first != second and len(first) == len(second) == 200 and first[:150] == second[:150]
    (tmp_path / first).mkdir()


# --- consoles, users, disks ---


def test_no_console_ends_a_run(tmp_path):
    """Western and Chinese Windows cannot spell all that we print: it is shown as an escape."""
    code = "from monodepth_lib.commands import start; start(lambda: print('日本 · − é') or 3)"
    for encoding in ("cp1252", "ascii"):
        done = python("-c", code, PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stderr) == (3, "")
    assert python("-c", code, PYTHONIOENCODING="ascii").stdout.startswith("\\u65e5\\u672c \\xb7")
    done = python("-m", "monodepth_lib.commands", "run", "日本", PYTHONIOENCODING="cp1252")
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_every_text_file_says_its_encoding():
    """Without it, Python takes the machine's own, which on Windows is not UTF-8."""
    found = []
    for path in (path for name in ("monodepth_lib", "research", "tools") for path in (ROOT / name).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or any(word.arg == "encoding" for word in node.keywords):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            words = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            binary = any(isinstance(word, str) and word in ("rb", "wb", "ab", "r+b", "xb") for word in words)
            opened = isinstance(node.func, ast.Name) and name == "open" and not binary
            if name in ("read_text", "write_text") or opened:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found


def test_modules_go_one_way_and_the_formulas_stand_alone():
    graph: dict[str, set[str]] = {}
    for path in (ROOT / "monodepth_lib").glob("[!_]*.py"):
        ours = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if getattr(node, "level", 0)]
        graph[path.stem] = {name for node in ours for name in [node.module] if name}
        graph[path.stem] |= {alias.name for node in ours if not node.module for alias in node.names}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError naming a circle
    assert [graph[name] for name in ("transforms", "losses", "networks", "depth")] == [set()] * 4
    assert not {"widgets", "commands"} & set().union(*(graph[name] for name in graph if name != "live"))


def test_a_user_without_a_name_has_a_home(monkeypatch, tmp_path):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setenv("HOME", "")
    commands.settle()
    assert Path(os.environ["HOME"]).is_dir()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid(), reason="only root may start a process of another user")
def test_a_user_of_a_container_has_a_home_too():
    code = "import os, tempfile; from monodepth_lib.commands import Path, settle; os.setuid(54321); settle()"
    done = python("-c", f"{code}; print(Path.home())", HOME=None)
    assert "monodepth-home-" in done.stdout, done.stderr


def test_a_folder_that_cannot_be_written_promises_no_notebook(tmp_path, capsys):
    (tmp_path / "file").write_text("in the folder's place")
    assert run.main(["01_data_preparation", "--output", str(tmp_path / "file" / "out")]) == 1
    said = capsys.readouterr().err
    assert "executed notebook" not in said and "--output FOLDER" in said and said.count("\n") == 1


# --- where no repository is ---


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that pip installs, unpacked; made from a copy, so that nothing is left in the repository."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("monodepth_lib", "models", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    command = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)]
    done = python(*command)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as file:
        file.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_brings_code_weights_splits_and_the_command(wheel):
    there = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*") if path.is_file()}
    assert there >= {path.relative_to(ROOT).as_posix() for path in (ROOT / "monodepth_lib").rglob("*.py")}
    assert there >= {path.relative_to(ROOT).as_posix() for path in (ROOT / "monodepth_lib/splits").glob("*.txt")}
    assert there >= {f"monodepth_lib/models/unet_{name}.safetensors" for name in ("sample", "kitti")}
    (scripts,) = wheel.glob("*.dist-info/entry_points.txt")
    assert "monodepth = monodepth_lib.commands.__main__:main" in scripts.read_text(encoding="utf-8")


def test_it_works_where_no_repository_is(wheel, tmp_path):
    alone = {"cwd": tmp_path, "PYTHONPATH": str(wheel)}
    code = """
from monodepth_lib import __file__, checkpoints, kitti
checkpoints.load_model("unet_sample")
print(__file__, *kitti.SPLITS["lab"]["val"])
"""
    done = python("-P", "-c", code, **alone)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(wheel / "monodepth_lib/__init__.py"), *kitti.SPLITS["lab"]["val"]]
    picture = next((ROOT / "data/sample/test").rglob("image_02/data/*.jpg"))
    done = python("-P", "-m", "monodepth_lib.commands", "predict", str(picture), "--weights", "unet_sample", **alone)
    assert done.returncode == 0, done.stderr
    assert any(path.suffix == ".png" for path in (tmp_path / "output/predict").iterdir())
    done = python("-P", "-m", "monodepth_lib.commands", "run", "all", **alone)
    assert done.returncode == 2
    assert "the repository" in done.stderr and done.stderr.count("\n") == 1
    done = python("-P", "-m", "monodepth_lib.commands", "check", **alone)
    assert "installed without the repository" in done.stdout and done.stderr == ""
