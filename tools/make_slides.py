"""One deck of slides a notebook, from its own cells: `make slides` writes build/slides, which opens without a network.

A heading of level two begins a new chapter of the deck. Prose is split into short slides, short code stands above its
output, and every figure has its own slide, as large as the screen. Cells for parameters and set-up are left out, and so
is long code, especially code that draws figures. reveal.js (from the package sphinx-revealjs) and MathJax (from
django-static-mathjax) are copied in.

Keys: space: next slide; shift and space: back; Esc: all slides; F: full screen.
"""

from __future__ import annotations

import argparse
import base64
import html
import importlib.util
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbconvert.filters import Highlight2HTML, markdown2html
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

sys.path.insert(0, str(Path(__file__).resolve().parent))
from make_site import LANGUAGES, check, copy_mathjax, in_place_of

ROOT = Path(__file__).resolve().parent.parent
WORDS = 90  # of prose on a slide; a Chinese character counts as half a word
LINES = 20  # of code, or of code and its output
PLOT = 8  # longer code is left out when the cell draws a figure, because a class looks at the figure
ENDINGS = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/svg+xml": "svg"}

PAGE = """<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="{up}reveal/reset.css">
<link rel="stylesheet" href="{up}reveal/reveal.css">
<link rel="stylesheet" href="{up}reveal/slides.css">
<script>
window.MathJax = {{
  tex: {{inlineMath: [["$", "$"]], processEscapes: true}},
  options: {{enableMenu: false, skipHtmlTags: ["script", "style", "pre", "code"]}},
  startup: {{typeset: false}}
}};
</script>
<script src="{up}mathjax/tex-chtml.js"></script>
</head>
<body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="{up}reveal/reveal.js"></script>
<script>
// A slide that is fuller than the screen gets smaller letters, never less than half as large.
function fit() {{
  const slide = Reveal.getCurrentSlide();
  if (!slide || slide.dataset.fitted) return;
  let size = 100;
  const overfull = () => slide.scrollHeight > 700 || slide.scrollWidth > slide.clientWidth;
  while (overfull() && size > 50) slide.style.fontSize = (size -= 4) + "%";
  slide.dataset.fitted = size;
}}
Reveal.initialize({{
  width: 1280, height: 720, margin: 0.02, center: false, hash: true, navigationMode: "linear",
  slideNumber: "c/t", transition: "none"
}}).then(() => MathJax.startup.promise).then(() => MathJax.typesetPromise()).then(() => {{
  Reveal.on("slidechanged", fit);
  document.body.dataset.ready = "yes";
  fit();
}});
</script>
</body>
</html>
"""

STYLE = """
.reveal { font: 31px/1.4 system-ui, "Noto Sans", "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; color: #1a1a1a; }
body { background: white; }
.reveal .slides { text-align: left; }
.reveal .slides section { padding: 8px 24px; box-sizing: border-box; width: 100%; }
.reveal .slides section.stack { padding: 0; }
.reveal h1 { font-size: 2.1em; margin: 2.5em 0 0.5em; } .reveal h2 { font-size: 1.5em; margin: 0.1em 0 0.5em; }
.reveal h3, .reveal h4 { font-size: 1.2em; margin: 0.1em 0 0.5em; }
.reveal p, .reveal ul, .reveal ol, .reveal table { margin: 0.5em 0; } .reveal li { margin-left: 1.2em; }
.reveal ul { list-style: disc; } .reveal ol { list-style: decimal; }
.reveal strong { font-weight: 700; } .reveal em { font-style: italic; } .reveal a { color: #0b57d0; }
.reveal td, .reveal th { padding: 0.25em 0.8em; border-bottom: 1px solid #ccc; vertical-align: top; }
.reveal pre { font: 0.72em/1.35 ui-monospace, "DejaVu Sans Mono", monospace; margin: 0.4em 0; padding: 0.5em 0.8em;
  white-space: pre-wrap; background: #f4f4f4; border-radius: 6px; }
.reveal pre.says { background: white; border-left: 5px solid #0b57d0; border-radius: 0; }
.reveal code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 0.9em; }
.reveal pre code { font-size: 1em; }
.reveal .of { color: #777; font-size: 0.75em; margin: 0; }
.reveal .figure { height: 640px; display: flex; align-items: center; justify-content: center; }
.reveal .figure img { width: 1230px; max-height: 640px; object-fit: contain; }
.reveal .smaller, .reveal .smaller img { height: auto; max-height: 480px; }
.reveal details { margin: 0.5em 0; } .reveal summary { color: #0b57d0; cursor: pointer; }
"""


def weight(text: str) -> float:
    """The length of prose in words; two Chinese characters count as one word."""
    return len(re.findall(r"[^\W\u4e00-\u9fff]+", text)) + len(re.findall(r"[\u4e00-\u9fff]", text)) / 2


def blocks(source: str) -> list[str]:
    """The paragraphs, lists, tables, formulas and folded answers of a prose cell, each in one piece."""
    found: list[str] = []
    for part in re.split(r"\n\s*\n", source.strip()):
        whole = "\n\n".join(found[-1:])
        inside = whole.count("<details") > whole.count("</details") or whole.count("$$") % 2
        if found and (inside or whole.count("```") % 2):
            found[-1] += "\n\n" + part
        else:
            found.append(part)
    return found


def cut(source: str) -> list[str]:
    """Splits a prose cell into slides: a heading begins one, and no slide is long unless one of its blocks is."""
    if weight(source) <= 1.4 * WORDS and len(re.findall(r"^#+ ", source, re.MULTILINE)) <= 1:
        return [source]
    pieces: list[list[str]] = [[]]
    for block in blocks(source):
        full = weight("\n".join([*pieces[-1], block])) > WORDS
        only_heading = len(pieces[-1]) == 1 and pieces[-1][0].startswith("#")
        if pieces[-1] and (block.startswith("#") or (full and not only_heading)):
            pieces.append([])
        pieces[-1].append(block)
    return ["\n\n".join(piece) for piece in pieces if piece]


class Deck:
    """The slides of one notebook, by chapter; figures are written beside them."""

    def __init__(self, notebook: NotebookNode, name: str, folder: Path, language: str):
        self.name, self.folder, self.language = name, folder, language
        self.chapters: list[list[str]] = [[]]
        self.heading = self.title = name
        self.highlight = Highlight2HTML(pygments_lexer="python3")
        self.figures = 0
        self.waiting = ""  # a short text that may share a slide with the next code or figure
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                self.add_prose(cell.source)
            elif cell.cell_type == "code":
                self.add_code(cell)
        self.flush()

    def add(self, content: str) -> None:
        self.flush()
        self.chapters[-1].append(f"<section>\n{content}\n</section>")

    def flush(self) -> None:
        """Puts the waiting text on its own slide."""
        words, self.waiting = self.waiting, ""
        if words:
            self.add(words)

    def above(self, room: bool) -> str:
        """The text above code or a figure: the waiting text if there is room, else the heading."""
        if self.waiting and room:
            words, self.waiting = self.waiting, ""
            return words
        self.flush()
        return f"<p class='of'>{html.escape(self.heading)}</p>\n"

    def add_prose(self, source: str) -> None:
        source = re.sub(r"<!--.*?-->", "", source, flags=re.DOTALL)
        source = re.sub(r"\[([^\]]*)\]\((?![a-z]+:)[^)]*\)", r"\1", source)  # a link within the repository: its words
        for piece in cut(source):
            heading = re.match(r"(#+)\s*(.+)", piece)
            self.flush()
            if heading:
                self.heading = heading[2]
                if len(heading[1]) == 1:
                    self.title = heading[2]
                if len(heading[1]) <= 2 and self.chapters[-1]:
                    self.chapters.append([])
            else:
                piece = f"<p class='of'>{html.escape(self.heading)}</p>\n\n{piece}"
            page = re.sub(r'<a class="anchor-link".*?</a>', "", markdown2html(piece))
            if weight(piece) <= WORDS / 2 and "$$" not in piece and "<table" not in page:
                self.waiting = page
            else:
                self.add(page)

    def add_code(self, cell: NotebookNode) -> None:
        tags = cell.metadata.get("tags", [])
        if "parameters" in tags or cell.metadata.get("jupyter", {}).get("source_hidden"):
            for output in cell.outputs:  # figures of folded code, such as the pipeline, are shown
                self.add_figure(output)
            return
        said = "".join(output.text for output in cell.outputs if output.output_type == "stream")
        code, printed = self.highlight(cell.source), f"<pre class='says'>{html.escape(said.rstrip())}</pre>"
        lines, answers = cell.source.count("\n") + 1, said.count("\n")
        draws = any(set(ENDINGS) & set(output.get("data", {})) for output in cell.outputs)
        if lines > PLOT and draws:
            lines = LINES + 1
        if said and lines + answers <= LINES:
            self.add(self.above(lines + answers <= LINES / 2) + code + printed)
        else:
            if lines <= LINES:
                self.add(self.above(lines <= LINES / 2) + code)
            if said and draws and answers <= LINES / 4:
                self.waiting = self.above(True) + printed  # stands above the figure
            elif said:
                self.add(self.above(answers <= LINES / 2) + printed)
        for output in cell.outputs:
            self.add_figure(output)

    def add_figure(self, output: NotebookNode) -> None:
        data = output.get("data", {})
        for kind, ending in ENDINGS.items():
            if kind in data:
                self.figures += 1
                path = self.folder / "figures" / f"{self.name}_{self.figures}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data[kind].encode() if ending == "svg" else base64.b64decode(data[kind]))
                smaller = " smaller" * bool(self.waiting)
                image = f"<img src='figures/{path.name}' alt='{html.escape(self.heading)}'>"
                self.add(f"{self.above(True)}<div class='figure{smaller}'>{image}</div>")
                return
        if said := in_place_of(output, self.language):
            self.add(f"{self.above(True)}<p class='of'>{said}</p>")

    def page(self, up: str) -> str:
        chapters = ["\n".join(["<section>", *slides, "</section>"]) for slides in self.chapters if slides]
        return PAGE.format(language=self.language, title=html.escape(self.title), up=up, slides="\n".join(chapters))


def copy_reveal(target: Path) -> None:
    """reveal.js's program and styles, and ours."""
    found = importlib.util.find_spec("sphinx_revealjs")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError('reveal.js is missing: pip install -e ".[site]"')
    target.mkdir(parents=True)
    for name in ("reveal.js", "reveal.css", "reset.css"):
        source = Path(found.submodule_search_locations[0]) / "_static/revealjs/dist" / name
        text = source.read_text(encoding="utf-8")
        (target / name).write_text(re.sub(r"^//# sourceMappingURL=.*$", "", text, flags=re.MULTILINE), encoding="utf-8")
    colours = HtmlFormatter(style="default").get_style_defs(".highlight")
    (target / "slides.css").write_text(STYLE + colours, encoding="utf-8")


def build(output: Path) -> list[Path]:
    """A deck of every notebook in each language there is, and a page that lists them."""
    shutil.rmtree(output, ignore_errors=True)
    copy_reveal(output / "reveal")
    copy_mathjax(output / "mathjax")
    decks, lists = [], []
    for language, called in LANGUAGES:
        folder = output if language == "en" else output / "zh"
        items = []
        for path in sorted((ROOT / "notebooks" / ("" if language == "en" else "zh")).glob("[0-9]*.ipynb")):
            folder.mkdir(parents=True, exist_ok=True)
            deck = Deck(nbformat.read(path, as_version=4), path.stem, folder, language)
            target = folder / f"{path.stem}.html"
            target.write_text(deck.page("" if language == "en" else "../"), encoding="utf-8")
            decks.append(target)
            address = target.relative_to(output).as_posix()
            items.append(f"<li><a href='{address}'>{html.escape(deck.title)}</a></li>")
        if items:
            lists.append("\n".join([f"<h2>{called}</h2>", "<ul>", *items, "</ul>"]))
    head = "<!doctype html><html lang='en'><meta charset='utf-8'><title>Slides</title>"
    style = "<style>body {font: 1.2em/1.6 system-ui, sans-serif; margin: 2em auto; max-width: 40em}</style>"
    listed = "\n".join([head, style, "<h1>Slides</h1>", *lists, "</html>"])
    (output / "index.html").write_text(listed, encoding="utf-8")
    return decks


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make_slides.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build/slides", help="where to (default: %(default)s)")
    options = parser.parse_args(arguments)
    decks = build(options.output)
    found = check(options.output)
    for line in found:
        print(line, file=sys.stderr)
    print(f"{options.output / 'index.html'}: {len(decks)} decks")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
