"""The notebooks in a real JupyterLab in headless Chromium: every cell runs, every slider changes its picture."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from monodepth_lib import batch

CHROMIUM = shutil.which("chromium")
IN_CI = os.environ.get("CI") == "true"  # there it may not skip
if not IN_CI:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)", allow_module_level=True)
    pytest.importorskip("playwright", reason="playwright is not installed (pip install -e '.[browser]')")

from papermill.iorw import load_notebook_node  # noqa: E402
from papermill.parameterize import parameterize_notebook  # noqa: E402
from playwright.sync_api import Page, sync_playwright  # noqa: E402

SETTINGS = {"windowingMode": "none"}  # draw all cells, also those off the screen


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on this machine alone, in a folder with copies of the notebooks, the tiny profile injected."""
    folder = tmp_path_factory.mktemp("lab")
    for name in batch.NOTEBOOKS:
        source = batch.notebook_path(name)
        parameters = {"profile": "tiny"}
        if "output_dir" in batch.declared_parameters(source):
            parameters["output_dir"] = str(folder / "output")
        notebook = parameterize_notebook(load_notebook_node(str(source)), parameters)
        for cell in notebook.cells:
            cell.metadata.pop("jupyter", None)
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, folder / f"{name}.ipynb")
    settings = folder / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text(json.dumps(SETTINGS))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    options = ["--no-browser", "--allow-root", "--expose-app-in-browser", "--IdentityProvider.token=", f"--port={port}"]
    options += ["--ip=127.0.0.1", f"--ServerApp.root_dir={folder}", "--ServerApp.port_retries=0"]
    environment = os.environ | {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
    with open(folder / "lab.log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], stdout=log, stderr=log, env=environment
        )
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{url}/api", timeout=2).read()
                break
            except OSError:
                assert server.poll() is None, (folder / "lab.log").read_text()[-2000:]
                time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def browser():
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


def wait_until(page: Page, expression: str, seconds: float, argument=None) -> None:
    page.wait_for_function(expression, arg=argument, timeout=1000 * seconds, polling=200)


CELLS = "jupyterapp.shell.currentWidget.content.widgets.filter(c => c.model.type === 'code')"


def run_all(page: Page, url: str, name: str) -> None:
    page.goto(f"{url}/lab/workspaces/{name}/tree/{name}.ipynb?reset")  # a workspace of its own: no other is restored
    wait_until(page, "window.jupyterapp?.shell.currentWidget?.context?.sessionContext.session?.kernel", 60)
    page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells') }")
    wait_until(page, f"{CELLS}.every(c => c.model.executionCount && c.model.executionState !== 'running')", 240)
    errors = page.evaluate(
        f"""{CELLS}.flatMap(c => c.model.outputs.toJSON())
        .filter(o => o.output_type === 'error' || o.name === 'stderr').map(o => o.evalue || o.text)"""
    )
    assert not errors


def move_every_control(page: Page) -> int:
    """Moves each slider and checkbox of each panel by one step; asserts label and picture. Returns how many."""
    page.wait_for_selector(".widget-image", state="attached", timeout=20_000)
    moved = 0
    for panel in page.query_selector_all(".widget-vbox:has(img.widget-image)"):
        picture = panel.query_selector("img.widget-image")
        for slider in panel.query_selector_all(".widget-slider"):
            readout = slider.query_selector(".widget-readout")
            handle = slider.query_selector_all(".noUi-handle")[-1]
            before = picture.get_attribute("src"), readout.inner_text()
            handle.scroll_into_view_if_needed()
            for key in ("ArrowRight", "ArrowLeft"):  # one of them leads away from the slider's end
                handle.focus()
                page.keyboard.press(key)
                page.wait_for_timeout(150)
                if readout.inner_text() != before[1]:
                    break
            assert readout.inner_text() != before[1], "the label did not move"
            changed = "([picture, source]) => picture.getAttribute('src') !== source"
            wait_until(page, changed, 20, [picture, before[0]])
            moved += 1
        for box in panel.query_selector_all(".widget-checkbox input"):
            before = picture.get_attribute("src")
            box.click()
            wait_until(page, "([picture, source]) => picture.getAttribute('src') !== source", 20, [picture, before])
            moved += 1
        assert "b00020" not in panel.inner_html(), "a callback failed"
    return moved


@pytest.mark.parametrize("name", batch.NOTEBOOKS)
def test_every_cell_runs_and_every_slider_changes_its_picture(lab, browser, name):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    try:
        run_all(page, lab, name)
        assert move_every_control(page) >= 1
        assert not page.query_selector_all(".jupyter-widgets-error, .jp-OutputArea-error")
        assert not failures
        if folder := os.environ.get("MONODEPTH_SCREENSHOTS"):
            screenshot(page, Path(folder) / name)
    finally:
        page.close()


def screenshot(page: Page, stem: Path) -> None:
    """The whole notebook as pictures of one screen each, for people to look at."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    step = 900
    height = page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollHeight")
    for number, top in enumerate(range(0, height, step)):
        page.evaluate(f"document.querySelector('.jp-WindowedPanel-outer').scrollTop = {top}")
        page.wait_for_timeout(150)
        page.screenshot(path=f"{stem}-{number:02d}.png")
