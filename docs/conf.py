"""How Sphinx builds the site; `make site` (tools/make_site.py) lays out the pages and calls it, once a language."""

from __future__ import annotations

import json
import re

import furo
from sphinx.application import Sphinx
from sphinx.search.zh import SearchChinese

project = "MonoDepth"
author = "The monodepth contributors"
copyright = "2026, the monodepth contributors"
html_title = "MonoDepth"

extensions = ["myst_nb", "sphinx.ext.mathjax"]
myst_enable_extensions = ["amsmath", "dollarmath", "html_image"]
myst_heading_anchors = 4
myst_url_schemes = ["http", "https", "mailto", "site"]  # site: a page of the other language, see tools/make_site.py
nb_execution_mode = "off"  # the outputs that are stored are shown
nb_merge_streams = True
suppress_warnings = ["myst.header"]  # an exercise may be a heading of level three below one of level one

html_theme = "furo"
html_static_path = ["_site/static"]
templates_path = ["_site/templates"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False
html_theme_options = {"announcement": "languages", "top_of_page_buttons": []}  # _site/templates/page.html fills it
# copied in from a package by tools/make_site.py; without the menu, which would fetch more
mathjax_path = "mathjax/tex-chtml.js"
mathjax3_config = {"options": {"enableMenu": False}, "chtml": {"mtextInheritFont": True}}

assert furo.__version__  # named here, as a missing theme gives a worse message


class Search(SearchChinese):
    """Chinese is found by every two signs that stand side by side, with no dictionary; other words as they are."""

    language_name = "English"  # of the stemmer, which other words go through
    js_splitter_code = r"""
function splitQuery(query) {
  const words = [];
  for (const run of query.match(/[\u4e00-\u9fff]+|(?:(?![\u4e00-\u9fff])[\p{Letter}\p{Number}_])+/gu) || []) {
    if (/[\u4e00-\u9fff]/.test(run) && run.length > 1)
      for (let i = 0; i + 1 < run.length; i++) words.push(run.slice(i, i + 2));
    else words.push(run);
  }
  return words;
}
"""

    def split(self, input: str) -> list[str]:
        words = []
        for run in re.findall(r"[\u4e00-\u9fff]+|[^\W\u4e00-\u9fff]+", input):
            chinese = "\u4e00" <= run[0] <= "\u9fff"
            words += [run[i : i + 2] for i in range(max(1, len(run) - 1))] if chinese else [run]
        return words

    def stem(self, word: str) -> str:
        return self.stemmer.stemWord(word.lower())

    def word_filter(self, word: str) -> bool:
        return len(word) > 1 and super().word_filter(word)


def add_language_switch(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """Gives every page the address of the same page in the other language, else of its start page."""
    site = json.loads((app.srcdir / "site.json").read_text(encoding="utf-8"))
    other = pagename if pagename in site["other_pages"] else "index"
    up = "../" * pagename.count("/")
    context["languages"] = [
        (name, None if code == site["language"] else up + site["to_other"] + f"{other}.html", code)
        for code, name in site["languages"]
    ]


def setup(app: Sphinx) -> None:
    app.add_search_language(Search)
    app.connect("html-page-context", add_language_switch)
