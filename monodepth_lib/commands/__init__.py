"""The commands of the shell, one module each: `monodepth --help` lists them. This file holds what they share."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import math
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path


def command_parser(name: str, words: str | None, example: str) -> argparse.ArgumentParser:
    """The parser of `monodepth <name>`: its help shows `words` unchanged, the arguments and an example."""
    return argparse.ArgumentParser(
        f"monodepth {name}".rstrip(),
        description=words,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


# What the library's sentences say of arguments, and what the command line calls them.
IN_THE_SHELL = {
    "use resume=False": "use --restart",
    "resume=True": "--resume",
    "bad_pairs='skip'": "--bad-pairs skip",
    "with train_drives": "with --train-drives",
    "with val_drives": "with --val-drives",
    "use imagenet=False": "leave out --imagenet",
    "precision='float32'": "--precision float32",
    "use workers=0": "use --workers 0",
    "cameras='grey'": "--cameras grey",
    "cameras='colour'": "--cameras colour",
}


def in_the_shell(error: BaseException) -> str:
    """What an error of the library says, in the words of the command line."""
    said = str(error)
    for python, shell in IN_THE_SHELL.items():
        said = said.replace(python, shell)
    return said


def short_name(name: str, room: int = 200) -> str:
    """`name`, shortened with a hash of the whole if it has more than `room` bytes: file systems allow 255."""
    content = os.fsencode(name)
    if len(content) <= room:
        return name
    return f"{content[: room - 9].decode(errors='ignore')}-{hashlib.sha256(content).hexdigest()[:8]}"


# --- types for argparse: each error names the argument and the allowed values ---


def number(kind: type, lowest: float = -math.inf, *, above: float = -math.inf, highest: float = math.inf) -> Callable:
    """A type for argparse: an int or a finite float, at least `lowest`, more than `above` and at most `highest`."""

    def read(text: str) -> float:
        value = kind(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{text} is not finite")
        if value < lowest or value > highest or value <= above:
            words = [f"at least {lowest}"] * (lowest > -math.inf) + [f"more than {above}"] * (above > -math.inf)
            words += [f"at most {highest}"] * (highest < math.inf)
            raise argparse.ArgumentTypeError(f"{text} must be {' and '.join(words)}")
        return value

    read.__name__ = kind.__name__  # argparse names it when `text` is not a number
    return read


def positive(kind: type) -> Callable:
    """A `number` above 0."""
    return number(kind, above=0)


finite = number(float)
count = number(int, 0)  # how many: 0, 1, 2, ...
seed = number(int, 0, highest=2**32 - 1)  # what torch, numpy and random all take


def names(text: str) -> str:
    """Names separated by commas, none of them empty; returns the text."""
    if not all(name.strip() for name in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name; write names separated by commas: a,b")
    return text


def here(text: str) -> Path:
    """A path of the command line, counted from the working folder."""
    return Path(os.path.abspath(os.path.expanduser(text)))  # pathlib would raise for an unknown ~user


def weights(text: str) -> str:
    """A .safetensors file, counted from the working folder, or the name of one in models/."""
    return str(here(text)) if text.endswith(".safetensors") else text


# --- the process ---


def settle() -> None:
    """Prepares the process for every machine: a print cannot end a run, and there is a home folder.

    A character that the system's encoding lacks is shown as `\\u65e5`. A user without a name (in a container) gets a
    temporary home folder, because Jupyter, matplotlib and torch need one.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # the stream of a notebook or a test
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.mkdtemp(prefix="monodepth-home-")
        os.environ.setdefault("USER", "nobody")


def start(main: Callable[[], int]) -> None:
    """Runs `main()` and exits with the status that it returns."""
    settle()
    sys.exit(main())
