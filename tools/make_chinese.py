"""Makes the Chinese notebooks: code and outputs of the English ones with Chinese prose; lists stale cells.

    python tools/make_chinese.py                      every notebooks/zh/*.ipynb from notebooks/*.ipynb, prose kept
    python tools/make_chinese.py check                exit status 1 and a line for each cell that is stale or missing
    python tools/make_chinese.py extract -o todo.md   the cells that need a translation (--all: every cell)
    python tools/make_chinese.py merge todo.md        inserts the translations
    python tools/make_chinese.py terms                cells with a term of the glossary in English but not in Chinese

A code cell is a copy, with its outputs. The metadata of a prose cell hold the hash of the English cell that it was made
from. Every check computes the hashes of the English notebook again: after a change of an English cell, its Chinese cell
is stale until new prose is merged. README.zh-CN.md and docs/zh/*.md hold the hash of their English page in the first
line. After an update of such a page, write the new first line by hand: `check` prints it.

`extract` writes plain text, one block a cell; the translation goes below the line `%%% chinese`:

    %%% cell 01_data_preparation 01-03 5f0c8e1d2a9b4c37
    %%% english
    ## 1. Why two cameras see depth
    %%% chinese
    ## 1. 为什么两台相机能看到深度

`merge` skips a block without Chinese.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import re
import sys
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
GLOSSARY = ROOT / "docs" / "glossary.md"
KEY = "translation"  # a prose cell's metadata: {"translation": {"of": hash of the English cell, or ""}}


class Term(NamedTuple):
    """A row of the glossary."""

    english: tuple[str, ...]  # the term and its other names
    chinese: tuple[str, ...]
    forbidden: tuple[str, ...]  # Chinese words for it that are used elsewhere, but not here


def fingerprint(source: str) -> str:
    """A hash of the text, sixteen hexadecimal digits, without blanks at the ends of lines and of the text."""
    lines = [line.rstrip() for line in source.strip().splitlines()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def chinese_path(english: Path) -> Path:
    """notebooks/01.ipynb -> notebooks/zh/01.ipynb."""
    return english.parent / "zh" / english.name


def english_notebooks(names: list[str] | None = None, folder: Path = NOTEBOOKS) -> list[Path]:
    """The English notebooks, all or those named. Raises FileNotFoundError for an unknown name."""
    if not names:
        return sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    paths = [folder / f"{Path(name).stem}.ipynb" for name in names]
    if missing := [path for path in paths if not path.is_file()]:
        raise FileNotFoundError(
            f"{missing[0]} is missing: name one of {', '.join(p.stem for p in english_notebooks())}"
        )
    return paths


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def made_from(cell: NotebookNode) -> str:
    """The hash of the English cell that a Chinese prose cell was made from; empty when it is not translated yet."""
    return cell.metadata.get(KEY, {}).get("of", "")


# --- sync ---------------------------------------------------------------------------------------------------------


def combine(english: NotebookNode, chinese: NotebookNode | None) -> NotebookNode:
    """The English notebook with the known Chinese prose; a cell without a translation keeps its English prose."""
    known = {cell.id: cell for cell in chinese.cells} if chinese else {}
    result = copy.deepcopy(english)
    for cell in result.cells:
        if cell.cell_type != "markdown":
            continue
        old = known.get(cell.id)
        of = made_from(old) if old is not None and old.cell_type == "markdown" else ""
        if of and old is not None:
            cell.source = old.source
        cell.metadata[KEY] = {"of": of}
    return result


def sync(english: Path) -> list[str]:
    """Writes the Chinese notebook of an English one; returns the dropped cells, which have no English cell."""
    target = chinese_path(english)
    old = read(target) if target.is_file() else None
    new = combine(read(english), old)
    ids = {cell.id for cell in new.cells}
    if old is None or nbformat.writes(old) != nbformat.writes(new):
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(new, target)
    return [cell.id for cell in old.cells if cell.id not in ids] if old else []


# --- check --------------------------------------------------------------------------------------------------------


def problems(english: Path) -> list[str]:
    """The faults of the Chinese notebook of an English one, a sentence per cell; computes the hashes."""
    target = chinese_path(english)
    if not target.is_file():
        return [f"{target.name}: there is no Chinese notebook: make chinese, then translate"]
    theirs, ours = read(english), read(target)
    name = f"zh/{english.name}"
    if [cell.id for cell in theirs.cells] != [cell.id for cell in ours.cells]:
        return [f"{name}: its cells are not those of the English notebook: make chinese"]
    found = []
    for source, cell in zip(theirs.cells, ours.cells, strict=True):
        if source.cell_type != "markdown":
            if source != cell:
                found.append(f"{name}, cell {cell.id}: code or output is not the English notebook's: make chinese")
        elif not made_from(cell):
            found.append(f"{name}, cell {cell.id}: not translated yet")
        elif made_from(cell) != fingerprint(source.source):
            found.append(f"{name}, cell {cell.id}: stale, the English cell has changed since it was translated")
    if theirs.metadata != ours.metadata:
        found.append(f"{name}: its metadata are not the English notebook's: make chinese")
    return found


# --- glossary -----------------------------------------------------------------------------------------------------


def read_glossary(path: Path = GLOSSARY) -> list[Term]:
    """The rows of the glossary's table: | English | Chinese | one line | not |, names separated by commas."""
    terms = []
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|") or len(cells) != 4 or cells[0] == "English" or set(cells[0]) <= set("-: "):
            continue
        terms.append(Term(split_names(cells[0]), split_names(cells[1]), split_names(cells[3])))
    return terms


def split_names(text: str) -> tuple[str, ...]:
    """Names separated by commas, without remarks in brackets."""
    without = re.sub(r"[(（][^()（）]*[)）]|[*`]", "", text)
    return tuple(name.strip() for name in re.split(r"[,，、·]", without) if name.strip())


def prose(text: str) -> str:
    """The words of a cell: its text without code, formulas, addresses and comments."""
    text = re.sub(r"```.*?```|<!--.*?-->|<[^>]+>", " ", text, flags=re.DOTALL)
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]*\$|`[^`]*`", " ", text, flags=re.DOTALL)
    return re.sub(r"\]\([^)]*\)", "]", text)


def forbidden_words(text: str, terms: list[Term]) -> list[str]:
    """The forbidden words in a Chinese text, each with the one to use; a right term may contain a forbidden word."""
    text = prose(text)
    right = [span for term in terms for name in term.chinese for span in places(name, text)]
    return [
        f"{word} (write {term.chinese[0]} for {term.english[0]})"
        for term in terms
        for word in term.forbidden
        if any(not any(start <= first and last <= end for start, end in right) for first, last in places(word, text))
    ]


def places(word: str, text: str) -> list[tuple[int, int]]:
    """The start and end of every occurrence of a word in a text."""
    return [match.span() for match in re.finditer(re.escape(word), text)]


def absent_terms(english: str, chinese: str, terms: list[Term]) -> list[str]:
    """Terms that the English prose has and the Chinese prose lacks: hints for a reader, not always mistakes."""
    english, chinese = prose(english).lower(), prose(chinese)
    return [
        f"{term.english[0]} (write {term.chinese[0]})"
        for term in terms
        if any(re.search(rf"\b{re.escape(name.lower())}(s|es)?\b", english) for name in term.english)
        and not any(name in chinese for name in term.chinese)
    ]


def wrong_words(folder: Path = ROOT) -> list[str]:
    """Forbidden words in the Chinese notebooks, the Chinese README and the Chinese pages of docs, a sentence each."""
    terms = read_glossary(folder / "docs" / "glossary.md")
    found = []
    for path in sorted((folder / "notebooks" / "zh").glob("*.ipynb")):
        for cell in read(path).cells:
            if cell.cell_type == "markdown" and made_from(cell):
                found += [f"zh/{path.name}, cell {cell.id}: {word}" for word in forbidden_words(cell.source, terms)]
    for path in chinese_pages(folder):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found += [f"{path.relative_to(folder)}:{number}: {word}" for word in forbidden_words(line, terms)]
    return found


def chinese_pages(folder: Path = ROOT) -> list[Path]:
    """README.zh-CN.md and the Chinese pages of docs."""
    pages = [folder / "README.zh-CN.md", *sorted((folder / "docs" / "zh").glob("*.md"))]
    return [page for page in pages if page.is_file()]


def stale_pages(folder: Path = ROOT) -> list[str]:
    """Chinese pages whose first line lacks the hash of the present English page, a sentence each."""
    found = []
    for page in chinese_pages(folder):
        name = page.relative_to(folder)
        english = Path(*(part for part in name.parts if part != "zh")).with_name(page.name.replace(".zh-CN", ""))
        if not (folder / english).is_file():
            found.append(f"{name}: {english}, which it was made from, is missing: remove the page, or rename it")
            continue
        wanted = f"<!-- made from {fingerprint((folder / english).read_text(encoding='utf-8'))} -->"
        if page.read_text(encoding="utf-8").split("\n", 1)[0] != wanted:
            found.append(
                f"{name}: stale, {english} has changed: translate what is new, then make the first line {wanted}"
            )
    return found


# --- extract and merge --------------------------------------------------------------------------------------------


def extract(paths: list[Path], everything: bool = False) -> str:
    """The prose cells that are stale or not translated (or all), in order, as text for a translator and `merge`."""
    blocks = []
    for path in paths:
        target = chinese_path(path)
        known = {cell.id: cell for cell in read(target).cells} if target.is_file() else {}
        for cell in read(path).cells:
            if cell.cell_type != "markdown":
                continue
            hashed, old = fingerprint(cell.source), known.get(cell.id)
            of = made_from(old) if old is not None else ""
            if everything or of != hashed:
                chinese = old.source if of and old is not None else ""
                head = f"%%% cell {path.stem} {cell.id} {hashed}"
                blocks.append(f"{head}\n%%% english\n{cell.source}\n%%% chinese\n{chinese}\n")
    return "\n".join(blocks)


def parse(text: str) -> dict[tuple[str, str], tuple[str, str]]:
    """(notebook, cell) -> (hash, Chinese prose) of the blocks that have some. Raises ValueError for a broken block."""
    found = {}
    for block in re.split(r"^%%% cell ", text, flags=re.MULTILINE)[1:]:
        head, *body = block.split("\n", 1)
        words = head.split()
        parts = re.split(r"^%%% (english|chinese)[ \t]*$", body[0] if body else "", flags=re.MULTILINE)
        if len(words) != 3 or parts[1::2] != ["english", "chinese"]:
            raise ValueError(
                f"block '%%% cell {head}': expected a notebook, a cell, a hash, then english, then chinese"
            )
        if chinese := parts[4].strip("\n"):
            found[words[0], words[1]] = words[2], chinese
    return found


def merge(text: str, folder: Path = NOTEBOOKS) -> list[str]:
    """Inserts translations into the Chinese notebooks; returns the cells whose English has changed meanwhile.

    Raises FileNotFoundError or ValueError for an unknown notebook or cell, and then writes nothing.
    """
    translations = parse(text)
    names = sorted({name for name, _ in translations})
    loaded = {}
    for path in english_notebooks(names, folder) if names else []:
        target = chinese_path(path)
        loaded[path] = combine(read(path), read(target) if target.is_file() else None)
        known = {cell.id for cell in loaded[path].cells if cell.cell_type == "markdown"}
        wanted = {cell for name, cell in translations if name == path.stem}
        if wanted - known:
            raise ValueError(f"{path.name} has no prose cell {', '.join(sorted(wanted - known))}: extract again")
    stale = []
    for path, notebook in loaded.items():
        for english, cell in zip(read(path).cells, notebook.cells, strict=True):
            if (path.stem, cell.id) in translations:
                of, cell.source = translations[path.stem, cell.id]
                cell.metadata[KEY] = {"of": of}
                if of != fingerprint(english.source):
                    stale.append(f"zh/{path.name}, cell {cell.id}")
        chinese_path(path).parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, chinese_path(path))
    return stale


# --- command line -------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make_chinese.py", description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", metavar="command")
    for name, what in (
        ("sync", "copy code and outputs, keep the prose (the default)"),
        ("check", "name what is stale"),
    ):
        commands.add_parser(name, help=what).add_argument("notebooks", nargs="*")
    commands.add_parser("terms", help="terms that the Chinese prose lacks").add_argument("notebooks", nargs="*")
    out = commands.add_parser("extract", help="the cells that need a translation, as text")
    out.add_argument("notebooks", nargs="*")
    out.add_argument("--all", action="store_true", help="every prose cell, with its present Chinese")
    out.add_argument("-o", "--output", type=Path, help="file to write (default: standard output)")
    commands.add_parser("merge", help="put translations in").add_argument("files", nargs="+", type=Path)
    options = parser.parse_args(arguments)

    if options.command == "merge":
        for file in options.files:
            for cell in merge(file.read_text(encoding="utf-8")):
                print(f"{cell}: its English has changed since the extract: translate it again")
        return 0
    paths = english_notebooks(getattr(options, "notebooks", None))
    if options.command == "extract":
        text = extract(paths, options.all)
        if options.output:
            options.output.write_text(text, encoding="utf-8")
            print(f"{options.output}: {text.count('%%% cell ')} cells")
        else:
            print(text)
        return 0
    if options.command == "check":
        found = [problem for path in paths for problem in problems(path)] + stale_pages() + wrong_words()
        counted = f"{len(paths)} Chinese notebooks and {len(chinese_pages())} pages"
        print("\n".join(found) or f"{counted} are in step with the English ones")
        return int(bool(found))
    if options.command == "terms":
        terms = read_glossary()
        for path in (path for path in paths if chinese_path(path).is_file()):
            for english, cell in zip(read(path).cells, read(chinese_path(path)).cells, strict=False):
                if cell.cell_type == "markdown" and made_from(cell):
                    for term in absent_terms(english.source, cell.source, terms):
                        print(f"zh/{path.name}, cell {cell.id}: {term}")
        return 0
    for path in paths:
        dropped = sync(path)
        open_cells = [p for p in problems(path) if "not translated" in p or "stale" in p]
        print(f"zh/{path.name}: {len(open_cells)} cells want a translation" + f", dropped {dropped}" * bool(dropped))
    return 0


if __name__ == "__main__":
    sys.exit(main())
