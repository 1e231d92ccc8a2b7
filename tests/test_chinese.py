"""The Chinese notebooks stay in step with the English ones, and their words with the glossary."""

from __future__ import annotations

import re
from pathlib import Path

import make_chinese
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from monodepth_lib.commands import run

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("path", make_chinese.english_notebooks(), ids=lambda p: p.stem)
def test_every_chinese_cell_is_in_step_with_its_english_one(path):
    """The hashes are computed here, from the English notebook; the message names each stale cell."""
    found = make_chinese.problems(path)
    assert not found, "\n".join(found)


def test_no_chinese_notebook_stands_alone():
    english = {path.name for path in make_chinese.english_notebooks()}
    assert {path.name for path in (ROOT / "notebooks" / "zh").glob("*.ipynb")} <= english


@pytest.mark.parametrize("path", make_chinese.english_notebooks(), ids=lambda p: p.stem)
def test_chinese_prose_keeps_folded_answers_markers_and_living_links(path):
    target = make_chinese.chinese_path(path)
    for english, cell in zip(make_chinese.read(path).cells, make_chinese.read(target).cells, strict=True):
        if cell.cell_type != "markdown":
            continue
        for mark in ("<details>", "</details>", "<summary>", "<!-- stored -->", "$$"):
            assert cell.source.count(mark) == english.source.count(mark), f"{target.name}, cell {cell.id}: {mark}"
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", cell.source):
            assert (target.parent / link).exists(), f"{target.name}, cell {cell.id}: {link} does not exist"


@pytest.mark.parametrize("path", make_chinese.english_notebooks(), ids=lambda p: p.stem)
def test_chinese_exercises_are_marked_with_stars_alone(path):
    for cell in make_chinese.read(make_chinese.chinese_path(path)).cells:
        if cell.cell_type == "markdown":
            assert not re.search("（(简单|中等|较难|困难)", cell.source), (
                f"zh/{path.name}, cell {cell.id}: write ★, ★★ or ★★★"
            )


def test_every_chinese_page_is_in_step_with_its_english_one():
    found = make_chinese.stale_pages()
    assert not found, "\n".join(found)


def test_a_page_whose_english_one_changes_is_stale_until_it_carries_the_new_hash(tmp_path):
    (tmp_path / "docs" / "zh").mkdir(parents=True)
    english, chinese = tmp_path / "docs" / "a.md", tmp_path / "docs" / "zh" / "a.md"
    english.write_text("# A street\n")
    chinese.write_text(f"<!-- made from {make_chinese.fingerprint('# A street')} -->\n# 一条街\n")
    assert make_chinese.stale_pages(tmp_path) == []
    english.write_text("# Two streets\n")
    (found,) = make_chinese.stale_pages(tmp_path)
    assert found.startswith("docs/zh/a.md: stale, docs/a.md has changed")
    chinese.write_text(found[found.index("<!--") :] + "\n# 两条街\n")
    assert make_chinese.stale_pages(tmp_path) == []
    english.unlink()
    assert "docs/a.md, which it was made from, is missing" in make_chinese.stale_pages(tmp_path)[0]


def test_no_forbidden_word():
    found = make_chinese.wrong_words()
    assert not found, "\n".join(found)


def test_the_glossary_has_one_chinese_term_for_each_english_one():
    terms = make_chinese.read_glossary()
    assert len(terms) >= 40
    english = [name.lower() for term in terms for name in term.english]
    chinese = [name for term in terms for name in term.chinese]
    assert sorted(set(english)) == sorted(english)
    assert sorted(set(chinese)) == sorted(chinese)
    assert not set(chinese) & {word for term in terms for word in term.forbidden}
    assert all(len(term.chinese) == 1 for term in terms)


def test_a_chinese_notebook_runs_headless_with_its_own_prose(tmp_path):
    assert run.main(["02_transforms", "--language", "zh", "-p", "profile", "tiny", "--output", str(tmp_path)]) == 0
    cells = make_chinese.read(tmp_path / "02_transforms.ipynb").cells
    assert re.search("[\u4e00-\u9fff]", cells[0].source)
    assert all(cell.execution_count for cell in cells if cell.cell_type == "code")


def test_the_language_of_a_run_chooses_the_folder_and_nothing_else(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(run, "take_parameters", lambda names, *_: asked.append(list(names)))
    monkeypatch.setattr(run, "run_noted", lambda names, *_: asked.append(list(names)))
    for language, names in (("zh", ["zh/05_training"]), ("en", ["05_training"])):
        assert run.main(["05_training", "--language", language, "--output", str(tmp_path)]) == 0
        assert asked[-2:] == [names, names]


def test_chinese_notebooks_take_the_weights_that_05_trained(monkeypatch, tmp_path):
    declared = {"output_dir": ("x", "str"), "weights": ("y", "str")}
    monkeypatch.setattr(run, "notebook_path", lambda name: tmp_path / name)
    monkeypatch.setattr(run, "declared_parameters", lambda path: declared)
    taken = run.take_parameters(["zh/05_training", "zh/06_testing"], {}, tmp_path)
    assert taken["zh/06_testing"]["weights"] == str(tmp_path / "weights.safetensors")


# --- the tool, on a small notebook ----------------------------------------------------------------------------------


@pytest.fixture
def english(tmp_path):
    """A notebook of two prose cells and one code cell with an output."""
    code = new_code_cell("print(1)", id="c", execution_count=1, outputs=[new_output("stream", text="1\n")])
    cells = [new_markdown_cell("# Depth", id="a"), code, new_markdown_cell("The baseline $B$.", id="b")]
    path = tmp_path / "notebooks" / "01_small.ipynb"
    path.parent.mkdir()
    nbformat.write(new_notebook(cells=cells), path)
    return path


def fill(text: str, *translations: str) -> str:
    parts = text.split("%%% chinese\n")
    return (
        "".join(f"{part}%%% chinese\n{words}\n" for part, words in zip(parts, translations, strict=False)) + parts[-1]
    )


def change(path: Path, cell: str, source: str) -> None:
    notebook = make_chinese.read(path)
    next(c for c in notebook.cells if c.id == cell).source = source
    nbformat.write(notebook, path)


def translate(english: Path) -> None:
    text = fill(make_chinese.extract([english]), "# 深度", "基线 $B$。")
    assert make_chinese.merge(text, english.parent) == []


def test_extract_and_merge_make_a_notebook_that_differs_in_prose_alone(english):
    translate(english)
    assert make_chinese.problems(english) == []
    ours, theirs = make_chinese.read(make_chinese.chinese_path(english)), make_chinese.read(english)
    assert [c.source for c in ours.cells] == ["# 深度", "print(1)", "基线 $B$。"]
    assert ours.cells[1] == theirs.cells[1]
    assert make_chinese.extract([english]) == ""
    assert make_chinese.extract([english], everything=True).count("%%% cell") == 2


def test_an_english_cell_that_changes_names_its_stale_chinese_one_until_it_is_merged_anew(english):
    translate(english)
    change(english, "b", "The baseline $B$ is 0.53 m.")
    make_chinese.sync(english)
    (found,) = make_chinese.problems(english)
    assert "cell b: stale" in found
    text = make_chinese.extract([english])
    assert "0.53 m" in text and "基线 $B$。" in text and "深度" not in text  # the old Chinese is there to be mended
    make_chinese.merge(text.replace("基线 $B$。", "基线 $B$ 为 0.53 m。"), english.parent)
    assert make_chinese.problems(english) == []


def test_a_translation_of_what_has_changed_meanwhile_is_stale_when_it_arrives(english):
    text = fill(make_chinese.extract([english]), "# 深度", "基线 $B$。")
    change(english, "a", "# Depth and disparity")
    assert make_chinese.merge(text, english.parent) == ["zh/01_small.ipynb, cell a"]
    assert ["cell a: stale" in p for p in make_chinese.problems(english)] == [True]


def test_code_outputs_new_and_dropped_cells_follow_the_english_notebook(english):
    translate(english)
    notebook = make_chinese.read(english)
    notebook.cells[1].source = "print(2)"
    notebook.cells[1].outputs[0].text = "2\n"
    del notebook.cells[0]
    notebook.cells.append(new_markdown_cell("## New", id="n"))
    nbformat.write(notebook, english)
    assert "cells are not those" in make_chinese.problems(english)[0]
    assert make_chinese.sync(english) == ["a"]
    assert make_chinese.problems(english) == ["zh/01_small.ipynb, cell n: not translated yet"]
    ours = make_chinese.read(make_chinese.chinese_path(english))
    assert [c.source for c in ours.cells] == ["print(2)", "基线 $B$。", "## New"]
    before = make_chinese.chinese_path(english).read_bytes()
    make_chinese.sync(english)
    assert make_chinese.chinese_path(english).read_bytes() == before


def test_changed_chinese_code_is_found(english):
    translate(english)
    change(make_chinese.chinese_path(english), "c", "print(3)")
    assert ["cell c: code or output" in p for p in make_chinese.problems(english)] == [True]


def test_what_cannot_be_merged_is_named_and_nothing_is_written(english):
    with pytest.raises(ValueError, match=r"01_small\.ipynb has no prose cell c: extract again"):
        make_chinese.merge("%%% cell 01_small c 0\n%%% english\nx\n%%% chinese\ny\n", english.parent)
    with pytest.raises(ValueError, match="block '%%% cell 01_small a': expected a notebook"):
        make_chinese.merge("%%% cell 01_small a\n%%% english\n", english.parent)
    with pytest.raises(FileNotFoundError, match=r"09_other\.ipynb is missing"):
        make_chinese.merge("%%% cell 09_other a 0\n%%% english\nx\n%%% chinese\ny\n", english.parent)
    assert not make_chinese.chinese_path(english).exists()


def test_forbidden_words_are_named_but_not_within_right_ones_code_or_formulas(tmp_path):
    page = tmp_path / "glossary.md"
    page.write_text(
        "| English | 中文 | in one line | not |\n|---|---|---|---|\n"
        "| disparity (stereo) | 视差 | shift | 像差, 视差值图 |\n| disparity map | 视差图 | a map | 差图 |\n"
    )
    terms = make_chinese.read_glossary(page)
    assert terms[0] == make_chinese.Term(("disparity",), ("视差",), ("像差", "视差值图"))
    assert make_chinese.forbidden_words("这里的像差", terms) == ["像差 (write 视差 for disparity)"]
    assert make_chinese.forbidden_words("这里的视差图, `像差`, $像差$, [x](像差.md)", terms) == []
    assert make_chinese.absent_terms("Disparities and a disparity map", "视差图", terms) == []
    assert make_chinese.absent_terms("One disparity map", "一张视差", terms) == ["disparity map (write 视差图)"]
