"""The decks: one a notebook, all of its figures, nothing loaded from elsewhere, and few words a slide."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import make_site
import make_slides
import nbformat
import pytest

pytest.importorskip("sphinx_revealjs", reason='pip install -e ".[site]"')
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def decks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    make_slides.build(folder)
    return folder


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda p: p.stem)
def test_every_notebook_has_a_deck_with_each_of_its_figures(decks, path):
    text = (decks / f"{path.stem}.html").read_text(encoding="utf-8")
    stored = [o for c in nbformat.read(path, as_version=4).cells for o in c.get("outputs", []) if "data" in o]
    pictures = [o for o in stored if set(o.data) & set(make_slides.ENDINGS)]
    assert len(re.findall(r"<img src='figures/", text)) == len(pictures) > (1 if path.stem == "08_your_own" else 2)
    assert 20 < text.count("<section>") < 150
    assert "every random choice comes from this" not in text  # the parameters' cell


def test_nothing_is_loaded_from_elsewhere_and_every_link_leads_somewhere(decks):
    assert make_site.check(decks) == []
    for page in decks.glob("*.html"):
        assert not re.search(r"(src|href)=['\"](https?:)?//[^'\"]*\.(js|css)", page.read_text(encoding="utf-8"))


def test_prose_is_cut_between_blocks_and_folded_answers_stay_whole():
    words = " ".join(["word"] * (make_slides.WORDS - 10))
    folded = "<details><summary>Hint</summary>\n\nthe hint\n\n</details>"
    assert make_slides.cut(f"# A\n\n{words}\n\nshort\n\n{folded}") == [f"# A\n\n{words}\n\nshort\n\n{folded}"]
    assert make_slides.cut(f"# A\n\n{words}\n\n{words}\n\n{folded}")[0] == f"# A\n\n{words}"
    assert make_slides.cut("## A\n\na\n\n## B\n\nb") == ["## A\n\na", "## B\n\nb"]
    assert make_slides.blocks("$$a\n\nb$$\n\nc") == ["$$a\n\nb$$", "c"]


def test_a_deck_runs_in_a_browser_without_a_network_and_its_slides_fit_the_screen(decks):
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("there is no chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        foreign: list[str] = []
        page.on("request", lambda r: foreign.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
        page.goto(next(iter(sorted(decks.glob("03*.html")))).as_uri())
        page.wait_for_selector("body[data-ready]", timeout=60_000)
        overfull = []
        for _ in range(25):
            tall = page.evaluate("Reveal.getCurrentSlide().scrollHeight")
            overfull += [page.url.split("#")[-1]] if tall > 720 else []
            page.keyboard.press("Space")
        assert page.locator("mjx-container").count() > 10
        browser.close()
    assert not foreign
    assert not overfull
