"""The result files of a command: they replace those of an earlier run and never a file of the user."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from . import short_name


class Outputs:
    """A folder of results and its record `.monodepth`: one line for each file that a run wrote, with its source.

    A file is replaced only if it is unchanged since a run wrote it from the same source.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.record = folder, folder / ".monodepth"
        self.written: dict[str, tuple[str, int, int]] = {}  # by name: its source, bytes, time in ns
        self.numbered: list[tuple[str, str]] = []  # (name wanted, name given instead)
        with contextlib.suppress(OSError):
            for line in self.record.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, TypeError, RecursionError):
                    name, *entry = json.loads(line)
                    self.written[name] = (entry[0], entry[1], entry[2]) if len(entry) == 3 else ("", 0, 0)

    def is_ours(self, name: str, source: str | None = None) -> bool:
        """Whether the file `name` is unchanged since a run wrote it, and from `source` if one is given."""
        entry = self.written.get(name)
        with contextlib.suppress(OSError, ValueError):
            stat = (self.folder / name).lstat()
            return entry in [(source if source is not None else entry and entry[0], stat.st_size, stat.st_mtime_ns)]
        return False

    def is_free(self, name: str, source: str) -> bool:
        """Whether a result of `source` may be written to `name`: no file is there, or an earlier result of `source`."""
        return not os.path.lexists(self.folder / name) or self.is_ours(name, source)

    def choose(self, name: str, ends: Sequence[str], source: str, taken: Callable[[str], bool] | None = None) -> str:
        """`name`, or the first of name_2, name_3, ... that is not `taken` and free with all `ends`."""
        short = short_name(name)
        for number in count(1):
            chosen = short if number == 1 else f"{short}_{number}"
            if not (taken and taken(chosen)):
                if all(self.is_free(chosen + end, source) for end in ends):
                    break
                if not self.numbered or self.numbered[-1][0] != name:
                    self.numbered.append((name, ""))
        if self.numbered and self.numbered[-1][0] == name:
            self.numbered[-1] = (name, chosen)
        return chosen

    def told(self) -> str:
        """A sentence about the names that got a number because of existing files; "" when there are none."""
        if not self.numbered:
            return ""
        (name, chosen), more = self.numbered[0], len(self.numbered) - 1
        others = f" (and {more} more)" if more else ""
        return f"{self.folder} holds other files of that name, which stay: {name} becomes {chosen}{others}"

    def note(self, name: str, source: str) -> None:
        """Records that a run wrote the file `name` from `source`. Raises OSError when that cannot be written."""
        stat = (self.folder / name).lstat()
        entry = source, stat.st_size, stat.st_mtime_ns
        if self.written.get(name) == entry:
            return
        self.written[name] = entry
        try:
            with open(self.record, "a", encoding="utf-8") as file:
                file.write(json.dumps([name, *entry]) + "\n")
        except OSError as error:
            raise OSError(f"{self.record} could not be written ({error}): free space") from error
