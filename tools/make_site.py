"""The site: every notebook, README and page of docs as static pages, in each language there is: `make site`.

    python tools/make_site.py              builds build/site, then checks for dead links and foreign addresses
    python -m http.server -d build/site    to look at it (index.html opens from a folder, too)

The pages are copied to build/site-pages in the folders of the repository, so their links work. Sphinx with myst-nb
turns the stored outputs into HTML and executes nothing. Nothing is fetched, neither now nor by a reader's browser:
MathJax comes from the package django-static-mathjax. A widget needs Python, so a sentence replaces it; the static sheet
of its positions follows in the notebook. Solutions are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import nbformat

ROOT = Path(__file__).resolve().parent.parent
LANGUAGES = (("en", "English"), ("zh-CN", "中文"))
# language -> group of the table of contents -> patterns of its pages; matches of * are sorted
PAGES = {
    "en": {
        "Notebooks": ["notebooks/*.ipynb"],
        "Guides": ["docs/*.md"],
        "Models and results": ["models/*.md", "research/*.md", "data/sample/README.md"],
        "Working on it": ["CONTRIBUTING.md"],
    },
    "zh-CN": {"课程": ["notebooks/zh/*.ipynb"], "文档": ["docs/zh/*.md"]},
}
START = {"en": "README.md", "zh-CN": "README.zh-CN.md"}
SLIDER = {
    "en": "Here is a slider. It moves in the live notebook; a sheet below shows some of its positions.",
    "zh-CN": "这里是一个滑块：在运行的笔记本中可以拖动，下方的图给出了它的若干位置。",
}
LINK = re.compile(r"(?P<head>\]\(|\b(?:src|href)=\")(?P<target>[^)\"\s]+)(?P<tail>[^)\"]*[)\"])")
CODE = re.compile(r"(^```.*?^```|`[^`\n]*`)", re.DOTALL | re.MULTILINE)
CONTROL = {
    "en": "Here is a control that works in the live notebook.",
    "zh-CN": "这里是一个控件，只在运行的笔记本中可用。",
}
WIDGET = re.compile(r"^\w+\(.*(children=|layout=Layout|description=)", re.DOTALL)


class Page(NamedTuple):
    """A page of the repository and the name that it has on the site, without an ending."""

    path: Path
    name: str


def pages(language: str) -> dict[str, list[Page]]:
    """The pages of a language by group."""
    groups = {"": [Page(ROOT / START[language], "index")]}
    for group, patterns in PAGES[language].items():
        groups[group] = [Page(path, page_name(path)) for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    return groups


def page_name(path: Path) -> str:
    """notebooks/zh/01.ipynb and notebooks/01.ipynb are both notebooks/01: one page in two languages."""
    return "/".join(part for part in path.relative_to(ROOT).with_suffix("").parts if part != "zh")


# --- laying out the pages -----------------------------------------------------------------------------------------


def in_place_of(output: dict, language: str) -> str:
    """What a page says where the live notebook has the widget of this output; "" when it is no widget."""
    text = output.get("data", {}).get("text/plain", "")
    if not WIDGET.match(text):
        return ""
    return (SLIDER if "Slider(" in text else CONTROL)[language]


class Layout:
    """Copies pages and what they link to into a folder, in one language; `dead` collects links to nothing."""

    def __init__(self, language: str, folder: Path):
        self.language, self.folder = language, folder
        self.groups = pages(language)
        self.names = {page.path: page.name for group in self.groups.values() for page in group}
        self.others = {
            page.path: page.name
            for code, _ in LANGUAGES
            if code != language
            for group in pages(code).values()
            for page in group
        }
        self.to_other = "zh/" if language == "en" else "../"
        self.dead: list[str] = []

    def write(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for group in self.groups.values():
            for page in group:
                target = self.folder / f"{page.name}{page.path.suffix}"
                target.parent.mkdir(parents=True, exist_ok=True)
                if page.path.suffix == ".ipynb":
                    self.write_notebook(page, target)
                else:
                    text = self.mend_links(page.path.read_text(encoding="utf-8"), page)
                    target.write_text(text + (self.contents() if page.name == "index" else ""), encoding="utf-8")
        site = {
            "language": self.language,
            "languages": LANGUAGES,
            "to_other": self.to_other,
            "other_pages": sorted(self.others.values()),
        }
        (self.folder / "site.json").write_text(json.dumps(site), encoding="utf-8")

    def contents(self) -> str:
        """The table of contents, which Sphinx takes from the start page."""
        trees = ""
        for group, members in self.groups.items():
            if group and members:
                lines = "\n".join(page.name for page in members)
                trees += f"\n\n```{{toctree}}\n:hidden:\n:caption: {group}\n\n{lines}\n```\n"
        return trees

    def write_notebook(self, page: Page, target: Path) -> None:
        notebook = nbformat.read(page.path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = self.mend_links(cell.source, page)
                continue
            if cell.metadata.get("jupyter", {}).get("source_hidden"):
                cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
            for output in cell.outputs:
                if set(output.get("data", {})) == {"text/plain"} and (said := in_place_of(output, self.language)):
                    output.data = {"text/html": f'<p class="slider-note">{said}</p>'}
        nbformat.write(notebook, target)

    def mend_links(self, text: str, page: Page) -> str:
        """Rewrites every relative link for the site and copies the linked files."""

        def mend(match: re.Match) -> str:
            return match["head"] + self.mend(match["target"], page) + match["tail"]

        pieces = CODE.split(text)  # every second piece is code, which is not changed
        return "".join(piece if n % 2 else LINK.sub(mend, piece) for n, piece in enumerate(pieces))

    def mend(self, target: str, page: Page) -> str:
        parts = urlsplit(target)
        if parts.scheme or parts.netloc or not parts.path:
            return target
        found = (page.path.parent / unquote(parts.path)).resolve()
        fragment = f"#{parts.fragment}" if parts.fragment else ""
        up = "../" * page.name.count("/")
        if found.is_dir() and (found / "README.md") in self.names:
            found /= "README.md"
        if found in self.names:
            return up + self.names[found] + found.suffix + fragment
        if found in self.others:
            # the address as a browser has it; Sphinx leaves what has a scheme or is absolute alone, see `finish`
            return "site:" + up + self.to_other + self.others[found] + ".html" + fragment
        if not found.exists() or not found.is_relative_to(ROOT):
            self.dead.append(f"{page.path.relative_to(ROOT)}: the link {target} leads to nothing: mend it")
            return target
        where = found.relative_to(ROOT)
        if found.is_dir():
            return "site:" + up + "index.html"
        copy = self.folder / where
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found, copy)
        return up + where.as_posix()


# --- building -----------------------------------------------------------------------------------------------------


def copy_mathjax(target: Path) -> None:
    """MathJax's one program, its fonts and its TeX extensions."""
    found = importlib.util.find_spec("mathjax")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError('MathJax is missing: pip install -e ".[site]"')
    source = Path(found.submodule_search_locations[0]) / "static/mathjax/es5"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copyfile(source / "tex-chtml.js", target / "tex-chtml.js")
    for folder in ("output/chtml/fonts", "input/tex/extensions"):
        shutil.copytree(source / folder, target / folder)


def build(output: Path, work: Path) -> list[str]:
    """Builds the site in every language; returns what is wrong, a sentence each."""
    shutil.rmtree(output, ignore_errors=True)
    found = []
    for language, name in LANGUAGES:
        layout = Layout(language, work / language)
        layout.write()
        found += layout.dead
        target = output if language == "en" else output / "zh"
        command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going", "-c", str(ROOT / "docs")]
        command += ["-d", str(work / f"{language}-doctrees"), "-D", f"language={language.replace('-', '_')}"]
        if language != "en":
            command += ["-D", "nb_code_prompt_show=显示代码", "-D", "nb_code_prompt_hide=隐藏代码"]
        done = subprocess.run([*command, str(layout.folder), str(target)], capture_output=True, text=True)
        if done.returncode or done.stderr.strip():
            found += [f"{name}: {line}" for line in done.stderr.strip().splitlines()] or [f"{name}: Sphinx failed"]
        copy_mathjax(target / "_static/mathjax")
        finish(target)
    return found


def finish(folder: Path) -> None:
    """Removes the mark of links between languages, and files that a reader does not need."""
    for page in folder.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        if '"site:' in text:
            page.write_text(text.replace('"site:', '"'), encoding="utf-8")
    for name in (".buildinfo", "objects.inv"):
        (folder / name).unlink(missing_ok=True)
    (folder / ".nojekyll").touch()  # GitHub would leave out folders that begin with _


# --- looking at it ------------------------------------------------------------------------------------------------


class Links(HTMLParser):
    """The files that a page loads, its links, and the anchors in it."""

    def __init__(self, text: str):
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attributes}
        self.names.update(filter(None, (values.get("id"), values.get("name"))))
        if tag == "a" and "href" in values:
            self.leads.append(values["href"])
        elif tag == "link" and "href" in values:
            self.loads.append(values["href"])
        elif "src" in values:
            self.loads.append(values["src"])
        self.loads += re.findall(r"url\(([^)]+)\)", values.get("style", ""))


def check(site: Path) -> list[str]:
    """Foreign addresses that a page would load, and links without a target; one sentence each."""
    read = {page.resolve(): Links(page.read_text(encoding="utf-8")) for page in site.rglob("*.html")}
    found = []
    for page, links in read.items():
        where = page.relative_to(site.resolve())
        for target, link in [*((one, False) for one in links.loads), *((one, True) for one in links.leads)]:
            parts = urlsplit(target)
            if parts.scheme == "data" or (link and parts.scheme in ("http", "https", "mailto")):
                continue
            if parts.scheme or parts.netloc:
                found.append(f"{where}: loads {target}, which is not ours")
                continue
            file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if file.is_dir():
                file /= "index.html"
            if not file.is_file():
                found.append(f"{where}: {target} leads to nothing")
            elif parts.fragment and file in read and unquote(parts.fragment) not in read[file].names:
                found.append(f"{where}: {target} leads to no place of that page")
    for style in site.rglob("*.css"):
        for target in re.findall(r"(?:url\(|@import\s+)[\"']?([^\"')\s;]+)", style.read_text(encoding="utf-8")):
            if urlsplit(target).netloc:
                found.append(f"{style.relative_to(site)}: loads {target}, which is not ours")
    return sorted(set(found))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make_site.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build/site", help="where to (default: %(default)s)")
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    found = build(options.output, ROOT / "build/site-pages")
    found += check(options.output)
    for line in found:
        print(line, file=sys.stderr)
    count = len(list(options.output.rglob("*.html")))
    print(f"{options.output / 'index.html'}: {count} pages, {time.perf_counter() - began:.0f} s, {len(found)} problems")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
