"""Marks a class: `monodepth grade FOLDER` writes one CSV of student, exercise, verdict and the check's sentence.

FOLDER holds one folder per student with notebooks in it, or notebooks named STUDENT_03_loss_equations.ipynb. The
exercises of the course's notebook with the same number count. For `checks.check("3.2", best_shift)`, grade runs the
cell that defines `best_shift`, the notebook's imports and the definitions that the cell needs, and no other cell.

Verdicts: right, wrong (the sentence is the check's), not done, missing (nothing defines it), error (the cell itself
fails), out of time, ended (the process ended without an answer).

Every exercise runs in its own process (a fork), with limits of time, memory and file size, in a folder that holds only
a copy of the notebook. Its output is dropped. It has no network: on Linux a network namespace of its own or, if the
system does not allow one, sockets that refuse to connect. All notebooks are read before the first one runs, and the
checks are a separate copy. So a submission that loops, calls exit(), prints a gigabyte, deletes the files of its
working folder or redefines `check` does not change the mark of anyone else.

This protects from mistakes, not from attacks: a process has the rights of the teacher and can read and delete the
teacher's files. Mark submissions that you do not trust in a container or virtual machine. Needs Linux or macOS.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import ctypes
import importlib.util
import io
import json
import os
import re
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ..files import atomic_write, project_root
from . import command_parser, here, number, settle, start
from .outputs import Outputs

EXAMPLE = "monodepth grade submissions --output marks.csv"
LONGEST = 300  # characters of a sentence; the rest is cut
FILE_SIZE = 64 * 2**20  # bytes that a file of a submission may grow to
CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000


class Cell(NamedTuple):
    """A code cell: its statements, or the error why it has none."""

    source: str
    statements: list[ast.stmt]
    error: str = ""


class Exercise(NamedTuple):
    """One exercise of one student, ready to be run."""

    student: str
    name: str
    answer: str  # the expression that is judged, mostly a function's name
    cells: list[Cell]
    notebook: Path


class Mark(NamedTuple):
    student: str
    exercise: str
    verdict: str
    sentence: str


# --- reading notebooks --------------------------------------------------------------------------------------------


def read_cells(path: Path) -> list[Cell]:
    """The code cells of a notebook. Raises ValueError for a file that is not a notebook."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is no notebook ({type(error).__name__}: {error}): ask for it again") from error
    return [parse(source) for source in sources]


def parse(source: str) -> Cell:
    """A cell's statements; in one that is no plain Python, lines of IPython (%time, !pip) are removed."""
    try:
        with contextlib.suppress(SyntaxError):
            return Cell(source, ast.parse(source).body)
        plain = re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)
        return Cell(source, ast.parse(plain).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f"line {error.lineno}: " if isinstance(error, SyntaxError) and error.lineno else ""
        return Cell(source, [], f"your code has a {type(error).__name__} in {line}{getattr(error, 'msg', error)}")


def check_call(statement: ast.stmt) -> tuple[str, str] | None:
    """("3.2", "best_shift") of the statement `checks.check("3.2", best_shift)`; None of any other."""
    if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)):
        return None
    call = statement.value
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name != "check" or len(call.args) < 2 or not isinstance(call.args[0], ast.Constant):
        return None
    return str(call.args[0].value), ast.unparse(call.args[1])


def asked(cells: list[Cell]) -> dict[str, str]:
    """exercise -> the expression that is judged, for every check in a notebook."""
    calls = [check_call(statement) for cell in cells for statement in cell.statements]
    return dict(call for call in calls if call)


def chapter(path: Path) -> str:
    """The number of the chapter in a notebook's name: "03" of alice_03_loss_equations.ipynb; empty without one."""
    found = re.findall(r"(?<!\d)(\d\d)_", path.stem)
    return found[-1] if found else ""


def official() -> dict[str, dict[str, str]]:
    """chapter -> the exercises of the course's notebook (as `asked` returns them)."""
    found = sorted((project_root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    return {chapter(path): asked(read_cells(path)) for path in found}


def student(path: Path, folder: Path) -> str:
    """The student of a notebook: the first folder below FOLDER, else the part of the file's name before the chapter."""
    inside = path.relative_to(folder).parts
    if len(inside) > 1:
        return inside[0]
    found = re.match(r"(.*)(?<!\d)\d\d_", path.stem)  # up to the last number, as `chapter`
    return (found[1].rstrip("_- ") if found else "") or path.stem


def submissions(folder: Path) -> tuple[list[Exercise], list[Mark]]:
    """All exercises to run, and the marks of unreadable notebooks; the newer one of two equal exercises counts.

    Raises FileNotFoundError when there is no notebook.
    """
    paths = [path for path in sorted(folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
    if not paths:
        raise FileNotFoundError(f"{folder} holds no notebook: give the folder with the students' .ipynb files")
    known, found, broken = official(), dict[tuple[str, str], Exercise](), []
    for path in sorted(paths, key=lambda path: path.stat().st_mtime):
        name = student(path, folder)
        try:
            cells = read_cells(path)
        except ValueError as error:
            broken.append(Mark(name, chapter(path) or path.stem, "error", one_line(str(error))))
            continue
        for exercise, answer in {**asked(cells), **known.get(chapter(path), {})}.items():
            found[name, exercise] = Exercise(name, exercise, answer, cells, path)
    return [found[key] for key in sorted(found)], broken


# --- the cells that are run ---------------------------------------------------------------------------------------


def binds(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement of a notebook defines."""
    names = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
        return {statement.name}
    return names if isinstance(statement, (ast.Assign, ast.AnnAssign)) else set()


def uses(statements: list[ast.stmt]) -> set[str]:
    return {node.id for statement in statements for node in ast.walk(statement) if isinstance(node, ast.Name)}


def program(exercise: Exercise) -> tuple[list[ast.stmt], str]:
    """(statements to run, "") for an exercise, else ([], why there is nothing to run).

    They are the notebook's imports, then the definitions that the exercise's cell needs from other cells, in the order
    of the notebook, then the cell itself without its check.
    """
    wanted = uses([ast.parse(exercise.answer).body[0]])
    mine = [cell for cell in exercise.cells if any(binds(s) & wanted for s in cell.statements)]
    if not mine:
        for cell in exercise.cells:
            if cell.error and any(re.search(rf"\b{re.escape(name)}\b", cell.source) for name in wanted):
                return [], cell.error
        return [], f"nothing in {exercise.notebook.name} defines {exercise.answer}"
    cell = mine[-1]
    others = [s for other in exercise.cells if other is not cell for s in other.statements]
    imports = [s for s in others if isinstance(s, (ast.Import, ast.ImportFrom))]
    needed, chosen = uses(cell.statements), list[ast.stmt]()
    while True:
        have = {name for s in (*chosen, *cell.statements) for name in binds(s)}
        new = [s for s in others if s not in chosen and binds(s) & (needed - have)]
        if not new:
            break
        chosen += new
        needed |= uses(new)
    chosen.sort(key=others.index)
    return [*imports, *chosen, *(s for s in cell.statements if check_call(s) is None)], ""


# --- the process of one exercise ----------------------------------------------------------------------------------


def own_checks() -> ModuleType:
    """A separate copy of `checks`: a notebook that changes `monodepth_lib.checks` does not change it."""
    from .. import checks

    specification = importlib.util.spec_from_file_location("monodepth_lib._marking", checks.__file__)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def without_network() -> None:
    """Cuts this process off the network: by a namespace of its own, else by sockets that refuse to connect."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET) == 0 or libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0:
            return

    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError("there is no network while exercises are marked")

    for name in ("connect", "connect_ex", "bind", "sendto"):
        setattr(socket.socket, name, refuse)
    socket.create_connection = refuse  # type: ignore[assignment]
    socket.getaddrinfo = refuse  # type: ignore[assignment]


def limit(seconds: float, memory_gb: float) -> None:
    """Sets limits of the system for this process: CPU seconds, memory beyond its present size, size of files."""
    import resource

    cores = int(seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (cores, cores))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):  # macOS has no such file and no such limit
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + int(memory_gb * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def answer(exercise: Exercise, judge: Callable[[str, Any], str | None]) -> tuple[str, str]:
    """Runs an exercise's statements here and judges its answer: (verdict, sentence)."""
    statements, why = program(exercise)
    if not statements:
        return ("error" if "has a" in why else "missing"), why
    space: dict[str, Any] = {"__name__": "__main__"}
    failed = ""
    for statement in statements:
        try:
            exec(compile(ast.Module([statement], []), f"<{exercise.name}>", "exec"), space)
        except BaseException as error:  # a notebook may call exit()
            failed = failed or f"your cell raised {type(error).__name__}: {error}"
    try:
        value = eval(exercise.answer, space)
    except BaseException as error:
        return "error", failed or f"{exercise.answer} raised {type(error).__name__}: {error}"
    try:
        lacks = judge(exercise.name, value)
    except KeyError:
        return "error", f"the course has no exercise {exercise.name}"
    except BaseException as error:
        lacks = f"your code raised {type(error).__name__}: {error}"
    if lacks is None:
        return "right", ""
    return ("not done" if lacks.startswith("not done") else "wrong"), lacks


def one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 4] + " ..."


def in_child(exercise: Exercise, judge: Callable, pipe: int, folder: Path, seconds: float, memory_gb: float) -> None:
    """Runs one exercise in the forked process and ends the process; it never returns."""
    try:
        os.setsid()
        os.chdir(folder)
        os.environ.update(HOME=str(folder), TMPDIR=str(folder), MPLBACKEND="Agg")
        tempfile.tempdir = str(folder)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        sys.stdin, sys.stdout = io.StringIO(), open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        sys.stderr = sys.stdout
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, signal.SIG_DFL)
        without_network()
        limit(seconds, memory_gb)
        verdict, sentence = answer(exercise, judge)
        os.write(pipe, json.dumps([verdict, one_line(sentence)]).encode() + b"\n")
    finally:
        os._exit(0)


def run(exercise: Exercise, judge: Callable, seconds: float, memory_gb: float) -> Mark:
    """Marks one exercise in its own process; returns after at most `seconds`, whatever the process does."""
    folder = Path(tempfile.mkdtemp(prefix="monodepth-grade-"))
    try:
        with contextlib.suppress(OSError):
            shutil.copy(exercise.notebook, folder)
        reading, writing = os.pipe()
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            os.close(reading)
            in_child(exercise, judge, writing, folder, seconds, memory_gb)
        os.close(writing)
        said, began = b"", time.monotonic()
        try:
            while not said.endswith(b"\n") and (left := began + seconds - time.monotonic()) > 0:
                if select.select([reading], [], [], left)[0]:
                    if not (part := os.read(reading, 65536)):
                        break
                    said += part
        finally:
            late = time.monotonic() - began >= seconds
            os.close(reading)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)  # if it has no group yet
            _, status = os.waitpid(child, 0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(ValueError):
        verdict, sentence = json.loads(said)
        return Mark(exercise.student, exercise.name, verdict, sentence)
    if late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return Mark(exercise.student, exercise.name, "out of time", f"no answer within {seconds:g} s: is there a loop?")
    how = f"by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "by itself"
    return Mark(exercise.student, exercise.name, "ended", f"the process ended {how} before it answered")


# --- command line -------------------------------------------------------------------------------------------------


def grade(folder: Path, seconds: float = 20.0, memory_gb: float = 4.0) -> list[Mark]:
    """The marks of every student, sorted by student and exercise."""
    if not hasattr(os, "fork"):
        raise OSError("grade needs Linux or macOS: on Windows run it in the Linux subsystem, WSL")
    exercises, marks = submissions(folder)
    import torch

    torch.set_num_threads(1)  # a fork keeps only the calling thread
    judge = own_checks().judge
    for n, exercise in enumerate(exercises, 1):
        marks.append(run(exercise, judge, seconds, memory_gb))
        print(f"{n} of {len(exercises)}  {exercise.student}  {exercise.name}  {marks[-1].verdict}", flush=True)
    return sorted(marks)


def write(marks: list[Mark], path: Path) -> None:
    """Writes one CSV; its byte-order mark lets a spreadsheet read Chinese names."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(Mark._fields)
    writer.writerows(marks)
    with atomic_write(path) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8-sig", newline="")


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 all marked, 1 a notebook could not be read, 2 nothing was marked."""
    parser = command_parser("grade", __doc__, EXAMPLE)
    parser.add_argument("folder", type=here, help="the students' notebooks")
    parser.add_argument("--output", type=here, default=here("output/grade/marks.csv"), help="default: %(default)s")
    seconds, memory = number(float, above=0, highest=86400), number(float, above=0, highest=1e6)
    parser.add_argument("--seconds", type=seconds, default=20.0, help="for one exercise (default: 20)")
    parser.add_argument("--memory-gb", type=memory, default=4.0, help="for one exercise (default: 4)")
    options = parser.parse_args(arguments)
    settle()
    path, outputs = options.output, Outputs(options.output.parent)
    try:
        if not options.folder.is_dir():
            raise FileNotFoundError(f"{options.folder} is no folder: give the folder with the students' notebooks")
        if os.path.lexists(path) and not path.is_file():
            raise FileExistsError(f"{path} is no file: name the CSV to write, such as marks.csv")
        path = path.with_name(outputs.choose(path.stem, [path.suffix], str(options.folder)) + path.suffix)
        marks = grade(options.folder, options.seconds, options.memory_gb)
        write(marks, path)
        outputs.note(path.name, str(options.folder))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    for name in sorted({mark.student for mark in marks}):
        mine = [mark.verdict for mark in marks if mark.student == name]
        print(f"{name}: {mine.count('right')} of {len(mine)}")
    if outputs.numbered:
        print(outputs.told())
    print(path)
    return int(any("is no notebook" in mark.sentence for mark in marks))


if __name__ == "__main__":
    start(main)
