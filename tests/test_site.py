"""The site as it is built: no warning, nothing loaded from elsewhere, no dead link, and what every page must have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import make_site
import pytest

pytest.importorskip("myst_nb", reason='pip install -e ".[site]"')
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, list[str]]:
    work = tmp_path_factory.mktemp("site")
    return work / "site", make_site.build(work / "site", work / "pages")


def test_it_builds_without_a_warning_or_a_link_to_nothing(built):
    assert not built[1], "\n".join(built[1])


def test_nothing_is_loaded_from_elsewhere_and_every_link_leads_somewhere(built):
    found = make_site.check(built[0])
    assert not found, "\n".join(found)


def test_every_notebook_and_every_page_of_docs_is_there(built):
    for name in (*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("docs/*.md")):
        assert (built[0] / make_site.page_name(name)).with_suffix(".html").is_file()
    assert not list(built[0].rglob("*solutions*"))


def test_every_page_can_be_searched_and_read_on_a_phone_in_each_language(built):
    languages = [code for code, _ in make_site.LANGUAGES if make_site.pages(code)]
    for page in built[0].rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert 'name="viewport"' in text
        assert 'name="q"' in text, page
        switch = re.search(r'<nav class="languages".*?</nav>', text, re.DOTALL)
        assert switch is not None
        assert switch[0].count("<a ") == len(languages) - 1, page


def test_formulas_and_figures_are_ours_and_widgets_are_sentences(built):
    page = (built[0] / "notebooks/03_loss_equations.html").read_text(encoding="utf-8")
    assert "_static/mathjax/tex-chtml.js" in page
    assert list((built[0] / "_static/mathjax/output/chtml/fonts").rglob("*.woff"))
    assert "../_images/" in page
    assert "It moves in the live notebook" in page and "Layout(width" not in page
    page = (built[0] / "notebooks/00_first_look.html").read_text(encoding="utf-8")
    assert "a control that works in the live notebook" in page and "FileUpload(value" not in page


def test_the_index_of_the_search_holds_the_words_of_notebooks(built):
    text = (built[0] / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert "notebooks/03_loss_equations" in index["docnames"]
    assert "occlud" in index["terms"]


# --- what the look finds ------------------------------------------------------------------------------------------


def test_foreign_addresses_and_dead_links_are_named(tmp_path):
    (tmp_path / "a.html").write_text(
        '<script src="https://example.org/x.js"></script><img src="gone.png"><a href="b.html#no">b</a>'
        '<a href="b.html#yes">b</a><a href="https://example.org">elsewhere</a><a href="c.html">c</a>'
        '<a href="https://example.org/w.png"><img src="https://example.org/w.png"></a>'
    )
    (tmp_path / "b.html").write_text('<p id="yes" style="background: url(//example.org/y.png)">b</p>')
    (tmp_path / "s.css").write_text('@import "https://example.org/z.css"; p {background: url(data:x)}')
    assert make_site.check(tmp_path) == [
        "a.html: b.html#no leads to no place of that page",
        "a.html: c.html leads to nothing",
        "a.html: gone.png leads to nothing",
        "a.html: loads https://example.org/w.png, which is not ours",
        "a.html: loads https://example.org/x.js, which is not ours",
        "b.html: loads //example.org/y.png, which is not ours",
        "s.css: loads https://example.org/z.css, which is not ours",
    ]


def test_links_are_mended_for_the_site_and_dead_ones_named(tmp_path, monkeypatch):
    monkeypatch.setattr(make_site, "ROOT", tmp_path)
    for name in ("README.md", "README.zh-CN.md", "docs/a.md", "docs/zh/a.md", "docs/b.md", "LICENSE"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("# x\n")
    layout = make_site.Layout("zh-CN", tmp_path / "out")
    page = make_site.Page(tmp_path / "docs/zh/a.md", "docs/a")
    text = "[a](../a.md) [b](../b.md#x) [me](a.md) [l](../../LICENSE) [no](no.md) `[code](no.md)` [w](https://x.org)"
    assert layout.mend_links(text, page) == (
        "[a](site:../../docs/a.html) [b](site:../../docs/b.html#x) [me](../docs/a.md) [l](../LICENSE) [no](no.md) "
        "`[code](no.md)` [w](https://x.org)"
    )
    assert layout.dead == ["docs/zh/a.md: the link no.md leads to nothing: mend it"]
    assert (tmp_path / "out/LICENSE").is_file()
