"""Many runs from one file: what is to run, what is left to do, the processes, and the page that compares them."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic import write_notebook

from monodepth_lib import checkpoints, files
from monodepth_lib.commands import run, summary, sweep

ROOT = Path(__file__).resolve().parent.parent

PARAMETERS = """
data_dir = "data/sample"
cameras = "colour"
test_drives = None  # type: str names
learning_rate = 0.1
width = None  # type: int channels
epochs = 3
fail = False
pause = 0.0
resume = False
device = "auto"
output_dir = "x"
"""

# Trains as 05 does, seen from outside: a line an epoch, a checkpoint of each, and it goes on from there.
TRAINING = """
import os, pathlib, time
folder = pathlib.Path(output_dir)
checkpoint = folder / "last.pt"
print("process", os.getpid(), "threads", os.environ.get("OMP_NUM_THREADS"), "device", device)
if fail:
    raise FloatingPointError("the loss is not finite\\nin epoch 1: lower learning_rate")
done = int(checkpoint.read_text()) if resume and checkpoint.is_file() else 0
for epoch in range(done, epochs):
    checkpoint.write_text(str(epoch + 1))
    print(f"epoch {epoch + 1:>3}/{epochs}  train 0.5")
    while pause and epoch == 1 and not (folder / "go").is_file():
        time.sleep(pause)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one small notebook; commands started in it see that one."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "monodepth_lib").symlink_to(ROOT / "monodepth_lib")
    (tmp_path / "notebooks").mkdir()
    write_notebook(tmp_path / "notebooks/05_training.ipynb", PARAMETERS, TRAINING)
    monkeypatch.chdir(tmp_path)
    assert files.project_root() == tmp_path
    return tmp_path


@pytest.fixture
def read_runs(project):
    """Writes a file and reads its runs."""

    def read(text: str = "", name: str = "night.yaml") -> list[sweep.Run]:
        (project / name).write_text("notebooks: 05_training\n" + text)
        return sweep.read_sweep(project / name)

    return read


# --- the file ---


def test_lists_become_every_combination_and_named_runs_follow(read_runs, project):
    runs = read_runs(
        "parameters: {epochs: 5, width: 4}\n"
        "grid: {learning_rate: [1.0e-5, 2], data_dir: [mine, /my data/too]}\n"
        "runs: {wide: {width: 16}, plain: }"
    )
    assert [one.name for one in runs] == [
        "learning_rate=1e-05,data_dir=mine",
        "learning_rate=1e-05,data_dir=_my_data_too",
        "learning_rate=2,data_dir=mine",
        "learning_rate=2,data_dir=_my_data_too",
        "wide",
        "plain",
    ]
    assert runs[1].parameters == {"epochs": 5, "width": 4, "learning_rate": 1e-5, "data_dir": "/my data/too"}
    assert runs[4].parameters == {"epochs": 5, "width": 16}
    assert runs[5].parameters == {"epochs": 5, "width": 4}
    assert runs[4].folder == project / "output/night/wide"
    assert runs[2].values()["05_training"]["learning_rate"] == 2.0  # an int serves


@pytest.mark.parametrize(
    "text, named",
    [
        ("grid: {learning_rate: [0.1", "no YAML file"),
        ("grids: {epochs: [1]}", "has 'grids'; it may have notebooks, parameters, grid, runs"),
        ("parameters: {epochs: 1}", "has no run: give it grid or runs"),
        ("runs: [wide]", r"runs is \['wide'\], which is no mapping"),
        ("grid: {epochs: 3}", r"grid has epochs 3; it must be a list such as \[3\]"),
        ("grid: {epochs: []}", "grid has epochs"),
        ("runs: {wide: 3}", "run wide is 3; it must be a mapping"),
        ("runs: {../out: {}}", "'../out' cannot name a folder"),
        ("grid: {data_dir: [a/b, a-b, a b]}", "'data_dir=a_b' cannot name a folder of its own"),
        ("grid: {epochs: [1, two]}", "run epochs=two: parameter epochs is 'two', but the notebook wants int"),
        ("grid: {learning_rate: [1e-4]}", r"write 1\.0e-4"),
        ("runs: {wide: {breadth: 3}}", "run wide: .*no parameter is named breadth; there are data_dir"),
    ],
)
def test_a_wrong_file_is_refused_by_name_before_anything_runs(read_runs, project, capsys, text, named):
    with pytest.raises(ValueError, match=rf"night\.yaml.*{named}"):
        read_runs(text)
    assert sweep.main(["night.yaml"]) == 2
    assert re.search(named, capsys.readouterr().err)
    assert not (project / "output").exists()


@pytest.mark.parametrize(
    "text, named", [("[1]", "must have notebooks"), ("notebooks: 08_more\nruns: {a: }", "08_more")]
)
def test_a_file_without_notebooks_that_are_there_is_refused(project, capsys, text, named):
    (project / "night.yaml").write_text(text)
    assert sweep.main(["night.yaml"]) == 2
    assert named in capsys.readouterr().err
    assert sweep.main(["day.yaml"]) == 2
    assert "day.yaml" in capsys.readouterr().err


# --- what is left to do ---


def note(one: sweep.Run, state: str, said: str = "") -> None:
    run.write_status(one.folder, state=state, said=said, notebooks=one.values(), seconds=61.0)


def test_done_runs_are_skipped_and_failed_ones_retried_on_request(read_runs, capsys):
    runs = read_runs("runs: {new: , done: , failed: , stopped: , killed: }")
    states = {"done": "done", "failed": "failed", "stopped": "stopped", "killed": "running"}
    for one in runs[1:]:
        note(one, states[one.name], "ValueError: no" if one.name == "failed" else "")
    assert [one.name for one in sweep.unfinished(runs, retry=False)] == ["new", "stopped", "killed"]
    assert capsys.readouterr().out.splitlines() == [
        "done: done before",
        "failed: failed before, --retry starts it again: ValueError: no",
    ]
    assert [one.name for one in sweep.unfinished(runs, retry=True)] == ["new", "failed", "stopped", "killed"]


@pytest.mark.parametrize("state", ["done", "failed", "stopped"])
def test_a_folder_of_other_parameters_is_refused(read_runs, state):
    (one,) = read_runs("runs: {wide: {width: 8}}")
    note(one, state)
    other = read_runs("parameters: {device: cpu, resume: false}\nruns: {wide: {width: 8}}")
    assert len(sweep.unfinished(other, retry=True)) == (state != "done")
    with pytest.raises(
        ValueError, match=r"night/wide was made with width 8 \(here 16\): choose another name or remove"
    ):
        sweep.unfinished(read_runs("runs: {wide: {width: 16}}"), retry=True)


def test_values_survive_the_command_line(read_runs, monkeypatch):
    given = {"learning_rate": 1e-5, "data_dir": "my data: 5", "test_drives": "12", "width": None, "fail": True}
    (one,) = read_runs("runs: {a: " + json.dumps({**given, "learning_rate": 0.5}) + "}")
    one.parameters["learning_rate"] = 1e-5
    calls = []
    monkeypatch.setattr(run, "run_noted", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(run, "end_with_parent", lambda: calls.append("tied to the sweep"))
    arguments = sweep.command(one, "cuda:1")
    assert arguments[:2] == ["-m", "monodepth_lib.commands.run"]
    assert run.main(arguments[2:]) == 0
    taken = {**given, "resume": True, "device": "cuda:1"}
    assert calls == ["tied to the sweep", (["05_training"], taken, one.folder, 60.0)]
    one.parameters["resume"] = False  # told so in the file
    assert "false" in sweep.command(one, None) and "device" not in sweep.command(one, None)


# --- the processes, each a small program in the notebooks' place ---

PROGRAM = """
import json, os, pathlib, sys, time
folder, name, device = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def say(word):
    with open(folder.parent / "said.txt", "a") as file:
        print(word, name, device, os.environ.get("OMP_NUM_THREADS"), file=file)
def others():
    return (folder.parent / "said.txt").read_text().count("begins")
say("begins")
while name == "a" and others() < 3:  # as long as b and c take, one after the other
    time.sleep(0.01)
status = {"state": "running", "said": "", "notebooks": {}, "seconds": 61.0}
(folder / "status.json").write_text(json.dumps(status))
print("Traceback", "ValueError: oh", sep="\\n", flush=True)
if name == "killed":
    os.kill(os.getpid(), 9)
if name in ("bug", "busy"):
    say("ends")
    sys.exit(1 if name == "bug" else 2)
(folder / "status.json").write_text(json.dumps({**status, "state": "done"}))
say("ends")
"""


@pytest.fixture
def programs(monkeypatch):
    def command(one, device):
        return ["-S", "-c", PROGRAM, str(one.folder), one.name, str(device)]

    monkeypatch.setattr(sweep, "command", command)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)


def said(project) -> list[list[str]]:
    return [line.split() for line in (project / "output/night/said.txt").read_text().splitlines()]


def test_a_device_has_one_run_at_a_time_and_none_is_idle(read_runs, project, programs, capsys):
    sweep.work(read_runs("runs: {a: , b: , c: , d: }"), ["cuda:0", "cuda:1"])
    lines = said(project)
    for device in ("cuda:0", "cuda:1"):
        words = [(line[0], line[1]) for line in lines if line[2] == device]
        assert [word for word, _ in words] == ["begins", "ends"] * (len(words) // 2)
        assert [name for _, name in words[::2]] == [name for _, name in words[1::2]]
    assert {line[1]: line[2] for line in lines if line[1] in "abc"} == {"a": "cuda:0", "b": "cuda:1", "c": "cuda:1"}
    assert {line[3] for line in lines} == {"4"}, "the processor's cores are divided"
    printed = capsys.readouterr().out.splitlines()
    for name, device in ((line[1], line[2]) for line in lines if line[0] == "begins"):
        begun, done = printed.index(f"{name}: started on {device}"), printed.index(f"{name}: done in 61 s")
        assert begun < done
    assert len(printed) == 8


def test_one_after_another_with_all_cores(read_runs, project, programs):
    sweep.work(read_runs("runs: {x: , y: , z: }"), [None])
    assert [line[:2] for line in said(project)] == [[word, name] for name in "xyz" for word in ("begins", "ends")]
    assert {line[3] for line in said(project)} == {"None"}


def test_one_that_dies_leaves_a_sentence_and_the_others_go_on(read_runs, project, programs, capsys):
    runs = read_runs("runs: {killed: , bug: , busy: , x: }")
    sweep.work(runs, [None, None])
    printed = capsys.readouterr().out
    killed = "ended by signal 9; the system does so when memory runs out"
    assert f"killed: failed: {killed}\n" in printed and "bug: failed: ValueError: oh\n" in printed
    assert "busy: ValueError: oh\n" in printed and "x: done in 61 s\n" in printed
    found = [run.read_status(one.folder) for one in runs]
    assert [(status["state"], status["said"]) for status in found] == [
        ("failed", killed),
        ("failed", "ValueError: oh"),
        ("running", ""),  # another command's: not ours to judge
        ("done", ""),
    ]
    assert "ValueError: oh" in (runs[1].folder / "log.txt").read_text()


def test_devices_and_jobs_become_places(read_runs, monkeypatch, capsys):
    read_runs("runs: {a: }")
    calls = []
    monkeypatch.setattr(sweep, "work", lambda runs, *where: calls.append((len(runs), *where)))
    assert sweep.main(["night.yaml"]) == 1, "a has not been done"
    assert sweep.main(["night.yaml", "--jobs", "3"]) == 1
    assert sweep.main(["night.yaml", "--devices", "cuda:0,cuda:1"]) == 1
    assert sweep.main(["night.yaml", "--cluster", "tcp://host:8786"]) == 1
    assert calls == [
        (1, [None], ""),
        (1, [None] * 3, ""),
        (1, ["cuda:0", "cuda:1"], ""),
        (1, [None], "tcp://host:8786"),
    ]
    for wrong in (["--jobs", "0"], ["--devices", "cuda:0,"], ["--jobs", "2", "--devices", "cpu"]):
        with pytest.raises(SystemExit):
            sweep.main(["night.yaml", *wrong])
    with run.locked(Path("output/night").absolute()):
        capsys.readouterr()
        assert sweep.main(["night.yaml"]) == 2
        assert "is in use by another run" in capsys.readouterr().err
        assert sweep.main(["night.yaml", "--summary"]) == 1, "one may always look"
    assert len(calls) == 4


def test_a_bar_follows_the_log(tmp_path, monkeypatch, capsys):
    class Bar:
        disable, initial, n, total = False, 0, 0, None
        shown = 0

        def refresh(self):
            self.shown += 1

    log = tmp_path / "log.txt"
    log.write_text("started on cpu\nepoch   1/40  of the run before\n")
    follower = sweep.Follower(sweep.Run("a", (), {}, tmp_path))
    bar = follower.bar = Bar()
    follower.look()
    assert (bar.shown, bar.total) == (0, None)
    with open(log, "a") as file:
        file.write(
            "started on cuda:1\nepoch  10/40  train 0.5\nepoch  11/40  train 0.4  val 0.5  1.0 s *\nepochs 3/4 no\n"
        )
        file.write("epoch  12/40")
        file.flush()
        follower.look()
        assert (bar.initial, bar.n, bar.total, bar.shown) == (10, 11, 40, 2)
        file.write("  train 0.3\n")
        file.flush()
        follower.look()
    assert (bar.initial, bar.n, bar.total, bar.shown) == (10, 12, 40, 3)
    assert capsys.readouterr().out == "a: started on cuda:1\n"


# --- the real thing, with a small notebook ---


def test_ctrl_c_stops_everything_and_the_same_command_goes_on(project):
    """Two runs at a time: one fails, the other is stopped in its second epoch and then goes on."""
    (project / "night.yaml").write_text("notebooks: 05_training\nruns: {hot: {fail: true}, long: {pause: 0.05}}")
    command = [sys.executable, "-m", "monodepth_lib.commands", "sweep", "night.yaml", "--jobs", "2"]
    folder = project / "output/night"

    # a shell's background job ignores Ctrl-C, and so would what it starts
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    log, until = folder / "long/log.txt", time.monotonic() + 300
    while time.monotonic() < until and not (
        run.read_status(folder / "hot")["state"] == "failed" and log.is_file() and "epoch   2/3" in log.read_text()
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert errors.strip() == "stopped; the same command goes on from here"
    assert "hot: started on" in printed and "long: started on" in printed
    states = {name: run.read_status(folder / name)["state"] for name in ("hot", "long")}
    assert states == {"hot": "failed", "long": "stopped"}
    kernel = int(re.search(r"process (\d+)", log.read_text())[1])
    with pytest.raises(ProcessLookupError):
        os.kill(kernel, 0)
    assert "epoch   2/3" in (folder / "long/05_training.ipynb").read_text(), "what was printed is saved"
    assert (folder / "long/last.pt").read_text() == "2"

    (folder / "long/go").touch()
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 1, "hot has failed"
    assert again.stderr == ""
    assert "hot: failed before, --retry starts it again: FloatingPointError: the loss" in again.stdout
    assert "hot: started" not in again.stdout and "long: done in" in again.stdout
    assert log.read_text().count("epoch   2/3") == 1, "not done twice"
    assert log.read_text().count("epoch   3/3") == 1
    table, (why, where) = again.stdout.splitlines()[-6:-2], again.stdout.splitlines()[-2:]
    assert [(line.split()[0], line.split()[-1]) for line in table if line] == [
        ("run", "state"),
        ("hot", "failed"),
        ("long", "done"),
    ]
    assert why == "hot: FloatingPointError: the loss is not finite in epoch 1: lower learning_rate"
    assert where == f"the comparison is in {folder / 'summary.html'}"


def test_a_sweep_of_the_real_notebook(tmp_path, monkeypatch, data_dir, capsys):
    """What 05 leaves behind is what the page looks for."""
    for name in ("monodepth_lib", "notebooks", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the network is too small to share between cores
    parameters = {"profile": "tiny", "data_dir": str(data_dir), "base_channels": 2}
    (tmp_path / "one.yaml").write_text(json.dumps({"notebooks": "05_training", "runs": {"small": parameters}}))
    assert sweep.main(["one.yaml"]) == 0, capsys.readouterr()
    (one,) = sweep.read_sweep(tmp_path / "one.yaml")
    log = (one.folder / "log.txt").read_text()
    assert len(re.findall(r"^epoch +1/1  train [\d.]+  val [\d.]+  [\d.]+ s", log, re.MULTILINE)) == 1
    assert "TCP" not in log and "Panel(" not in log
    heads, lines = summary.compare(results([one]))
    assert heads[:6] == ["run", "state", "epochs", "minutes", "train", "vals, lowest"]
    assert lines[0][:3] == ["small", "done", "1"] and "–" not in lines[0]
    images, titles = summary.same_picture(results([one]))
    assert titles == ["2020_01_01_drive_0004_sync/0000000002", "small"] and images[1].shape == (32, 96)
    assert (tmp_path / "output/one/summary.html").read_text().count("<img") == 2
    for file in ("05_training.ipynb", "last.pt", "weights.safetensors", "history.csv", "status.json", "metrics.json"):
        assert (one.folder / file).is_file()


def start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until(true, seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_cluster_does_the_run_of_a_worker_that_is_killed(project):
    """A scheduler and two workers on this machine, with a GPU each, as they say; one is killed in its second epoch."""
    distributed = pytest.importorskip("distributed")
    psutil = pytest.importorskip("psutil")
    (project / "night.yaml").write_text("notebooks: 05_training\nruns: {a: {pause: 0.05}, b: {pause: 0.05}}")
    where = project / "scheduler.json"
    quiet = ["--no-dashboard", "--scheduler-file", str(where)]
    one = ["--no-nanny", "--nthreads", "2", "--resources", "GPU=1", "--local-directory", str(project / "dask")]
    started = [start("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", *quiet)]
    try:
        wait_until(where.is_file)
        address = json.loads(where.read_text())["address"]
        alone = subprocess.run(
            [sys.executable, "-m", "monodepth_lib.commands", "sweep", "night.yaml", "--cluster", address],
            capture_output=True,
            text=True,
        )
        assert alone.returncode == 2 and f"{address} has no worker; start one: dask worker" in alone.stderr
        started += [start("distributed.cli.dask_worker", *one, *quiet, "--host", "127.0.0.1") for _ in "12"]
        with distributed.Client(address) as client:
            client.wait_for_workers(2, timeout=300)
        sweeping = start("monodepth_lib.commands", "sweep", "night.yaml", "--cluster", address)
        started.append(sweeping)
        logs = [project / "output/night" / name / "log.txt" for name in "ab"]
        wait_until(lambda: all(log.is_file() and "epoch   2/3" in log.read_text() for log in logs))
        kernel = psutil.Process(int(re.search(r"process (\d+)", logs[0].read_text())[1]))
        worker = kernel.parent().parent()
        assert worker.pid in [process.pid for process in started[1:3]]
        worker.kill()
        for log in logs:
            log.with_name("go").touch()
        printed, errors = sweeping.communicate(timeout=300)
    finally:
        for process in started:
            process.kill()
    assert sweeping.returncode == 0, printed + errors
    assert printed.count("a: started on") == 2 and printed.count("b: started on") == 1
    assert "a: done in" in printed and "b: done in" in printed
    assert logs[0].read_text().count("epoch   2/3") == 1, "it went on from its checkpoint"
    assert not kernel.is_running()


# --- the page ---


def results(runs: list[sweep.Run]) -> list[summary.Result]:
    return [summary.Result(one.name, one.parameters, one.folder, run.read_status(one.folder)) for one in runs]


def finished(one: sweep.Run, loss: float, size: tuple[int, int], abs_rel: float, names=("d/0", "d/1", "d/2")) -> None:
    note(one, "done")
    rows = [
        {"epoch": epoch, "train_loss": loss / epoch, "val_loss": loss, "val_spread": 0.5, "seconds": 90.0}
        for epoch in (1, 2)
    ]
    checkpoints.write_history(rows, one.folder / "history.csv")
    scores = {"sq_rel": 1.0, "rmse": 5.0, "rmse_log": 0.2, "a1": 1 - abs_rel, "a2": 0.9, "a3": 1.0, "d1_all": 0.3}
    means = [
        {"name": name, "abs_rel": abs_rel + worse, **scores} for name, worse in (("plain", 0.1), ("post-processed", 0))
    ]
    means.append({"name": "baseline: mean of the training truth", "abs_rel": 0.4, **scores})
    (one.folder / "metrics.json").write_text(json.dumps({"means": means}))
    (one.folder / "names.json").write_text(json.dumps(list(names)))
    np.save(one.folder / "disparities_pp.npy", np.full((len(names), *size), loss / 10, np.float32))


def test_the_table_compares_what_differs(read_runs):
    runs = read_runs("parameters: {epochs: 2}\nruns: {a: {width: 4}, b: {width: 8}, c: {width: 9, learning_rate: 0.5}}")
    finished(runs[0], 1.0, (8, 16), 0.25)
    finished(runs[1], 0.5, (16, 32), 0.3)
    note(runs[2], "failed", "ValueError: <b> & so on")
    heads, lines = summary.compare(results(runs))
    assert heads == [
        *("run", "width", "learning_rate", "state", "epochs", "minutes", "train", "vals, lowest"),
        *("Abs Rel", "RMSE", "a1", "D1-all"),
    ]
    assert lines == [
        ["a", "4", "–", "done", "2", "3.0", "0.500", "1.000", "0.250 *", "5.000 *", "0.750 *", "0.300 *"],
        ["b", "8", "–", "done", "2", "3.0", "0.250 *", "0.500 *", "0.300", "5.000 *", "0.700", "0.300 *"],
        ["c", "9", "0.5", "failed", *"––––––––"],
        ["baseline: mean of the training truth", "", "", "", "", "", "", "", "0.400", "5.000", "0.750", "0.300"],
    ]
    text = summary.table(heads, lines).splitlines()
    assert len(text) == 5 and text[1].index("done") == text[0].index("state")


def test_the_page_stands_alone_and_shows_everything(read_runs, project, data_dir, capsys):
    drive = "2020_01_01_drive_0004_sync"
    pictures = [f"{drive}/{frame:010d}" for frame in range(5)]
    (project / "sets").symlink_to(data_dir)
    runs = read_runs("parameters: {data_dir: sets}\nruns: {a: {width: 4}, b: {width: 8}, c: {fail: true}}")
    finished(runs[0], 1.0, (8, 16), 0.25, pictures)
    finished(runs[1], 0.5, (16, 32), 0.3, pictures)
    note(runs[2], "failed", "ValueError: <b> & so on")
    images, titles = summary.same_picture(results(runs))
    assert titles == [pictures[2], "a", "b"]
    assert [np.asarray(image).shape for image in images] == [(32, 96, 3), (32, 96), (32, 96)]
    assert [np.ptp(image) for image in images[1:]] == [0, 0] and images[1][0, 0] == 2 * images[2][0, 0]
    with Image.open(data_dir / "test" / drive / "image_02/data/0000000002.png") as picture:
        assert np.array_equal(images[0], picture)

    assert sweep.main(["night.yaml", "--summary"]) == 1
    page = (project / "output/night/summary.html").read_text(encoding="utf-8")
    assert "3 runs: 2 done, 1 failed." in page
    assert "<b>c</b>: ValueError: &lt;b&gt; &amp; so on" in page
    for row in summary.compare(results(runs))[1]:
        assert all(f">{cell}</td>" in page for cell in row)
    assert '<td class="best">0.250 *</td>' in page
    encoded = re.findall(r'<img alt="(curves|disparities)" src="data:image/png;base64,([^"]+)">', page)
    assert [words for words, _ in encoded] == ["curves", "disparities"]
    for _, text in encoded:
        assert base64.b64decode(text).startswith(b"\x89PNG")
    assert not re.findall(r'(?:src|href)="(?!data:)', page), "nothing is fetched from elsewhere"
    assert "ValueError: <b> & so on" in capsys.readouterr().out


def test_predictions_without_their_pictures_are_shown_alone(read_runs):
    runs = read_runs("parameters: {data_dir: nowhere}\nruns: {a: , b: }")
    assert summary.same_picture(results(runs)) == ([], [])
    finished(runs[1], 0.5, (16, 32), 0.3)
    images, titles = summary.same_picture(results(runs))
    assert titles == ["b"] and images[0].shape == (16, 32)
    finished(runs[0], 0.5, (16, 32), 0.3)
    for left in (0, 200):  # of a run that was killed while it wrote
        with open(runs[0].folder / "disparities_pp.npy", "r+b") as file:
            file.truncate(left)
        assert summary.same_picture(results(runs))[1] == ["b"]


def test_a_page_of_nothing_yet(read_runs, project):
    read_runs("runs: {a: }")
    assert sweep.main(["night.yaml", "--summary"]) == 1
    assert "1 run: 1 waiting." in (project / "output/night/summary.html").read_text()


def test_curves_of_runs_of_different_length_and_columns():
    rows = [{"epoch": epoch, "train_loss": 1 / epoch, "val_loss": 1.0} for epoch in (1, 2, 3)]
    figure = summary.plots.curves({"long": rows, "short": [{"epoch": 1, "train_loss": 2.0}]})
    assert [axis.get_title() for axis in figure.axes] == ["training loss", "validation loss"]
    assert [list(line.get_xdata()) for line in figure.axes[0].lines] == [[1, 2, 3], [1]]
    assert [list(line.get_xdata()) for line in figure.axes[1].lines] == [[1, 2, 3], []]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["long", "short"]
    summary.plots.figure_image(figure)
