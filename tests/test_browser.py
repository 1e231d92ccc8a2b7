"""The notebooks in a real JupyterLab in headless Chromium: every cell runs, every slider changes its picture."""

from __future__ import annotations

import io
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
import numpy as np
import pytest
from PIL import Image

from monodepth_lib.commands import run

CHROMIUM = shutil.which("chromium")
PATIENCE = 240_000  # milliseconds: a busy machine fails nothing
IN_CI = os.environ.get("CI") == "true"  # there it may not skip
if not IN_CI:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)", allow_module_level=True)
    pytest.importorskip("playwright", reason="playwright is not installed (pip install -e '.[test]')")

from papermill.iorw import load_notebook_node  # noqa: E402
from papermill.parameterize import parameterize_notebook  # noqa: E402
from playwright.sync_api import Page, sync_playwright  # noqa: E402

SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # draw all cells, also those off the screen
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},  # no question over the page
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on this machine alone, in a folder with copies of the notebooks, the tiny profile injected."""
    folder = tmp_path_factory.mktemp("lab")
    for name in run.NOTEBOOKS:
        source = run.notebook_path(name)
        parameters = {"profile": "tiny"}
        if "output_dir" in run.declared_parameters(source):
            parameters["output_dir"] = str(folder / "output")
        notebook = parameterize_notebook(load_notebook_node(str(source)), parameters)
        for cell in notebook.cells:
            cell.metadata.pop("jupyter", None)
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, folder / f"{name}.ipynb")
    for plugin, values in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))
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
        else:
            pytest.fail("JupyterLab does not answer: " + (folder / "lab.log").read_text()[-2000:])
        yield url
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture(scope="module")
def browser():
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]  # a class without the internet
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=flags, timeout=PATIENCE)
        yield chromium
        chromium.close()


def wait_until(page: Page, expression: str, argument=None) -> None:
    page.wait_for_function(expression, arg=argument, polling=200)


CELLS = "jupyterapp.shell.currentWidget.content.widgets.filter(c => c.model.type === 'code')"


def run_all(page: Page, url: str, name: str) -> None:
    page.goto(f"{url}/lab/workspaces/{name}/tree/{name}.ipynb?reset")  # a workspace of its own: no other is restored
    wait_until(page, "window.jupyterapp?.shell.currentWidget?.context?.sessionContext.session?.kernel")
    page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells') }")
    wait_until(page, f"{CELLS}.every(c => c.model.executionCount && c.model.executionState !== 'running')")
    errors = page.evaluate(
        f"""{CELLS}.flatMap(c => c.model.outputs.toJSON())
        .filter(o => o.output_type === 'error' || o.name === 'stderr').map(o => o.evalue || o.text)"""
    )
    assert not errors


def move_every_control(page: Page) -> int:
    """Moves each slider and checkbox of each panel by one step; asserts label and picture. Returns how many."""
    page.wait_for_selector(".widget-image", state="attached")
    moved = 0
    for panel in page.query_selector_all(".widget-vbox:has(img.widget-image)"):
        picture = panel.query_selector("img.widget-image")
        for slider in panel.query_selector_all(".widget-slider"):
            readout = slider.query_selector(".widget-readout")
            handle = slider.query_selector_all(".noUi-handle")[-1]
            before = picture.get_attribute("src"), readout.inner_text()
            handle.scroll_into_view_if_needed()
            handle.focus()
            at_its_end = float(handle.get_attribute("aria-valuenow")) >= float(handle.get_attribute("aria-valuemax"))
            page.keyboard.press("ArrowLeft" if at_its_end else "ArrowRight")
            moves = "([readout, text]) => readout.innerText !== text"
            wait_until(page, moves, [readout, before[1]])
            changed = "([picture, source]) => picture.getAttribute('src') !== source"
            wait_until(page, changed, [picture, before[0]])
            moved += 1
        for box in panel.query_selector_all(".widget-checkbox input"):
            before = picture.get_attribute("src")
            box.click()
            wait_until(page, "([picture, source]) => picture.getAttribute('src') !== source", [picture, before])
            moved += 1
        assert "b00020" not in panel.inner_html(), "a callback failed"
    return moved


@pytest.mark.parametrize("name", run.NOTEBOOKS)
def test_every_cell_runs_and_every_slider_changes_its_picture(lab, browser, name):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(PATIENCE)
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    try:
        run_all(page, lab, name)
        assert move_every_control(page) >= 1
        if name == "03_loss_equations":
            drag_the_rectangle(page)
        if name in ("00_first_look", "07_gif"):
            turn_the_street(page)
        assert not page.query_selector_all(".jupyter-widgets-error, .jp-OutputArea-error")
        assert not failures
        if folder := os.environ.get("MONODEPTH_SCREENSHOTS"):
            screenshot(page, Path(folder) / name)
    finally:
        page.close()


def drag_the_rectangle(page: Page) -> None:
    """A click on the left view moves the rectangle there, a drag takes it along: readouts and picture follow."""
    panel = page.query_selector(".widget-vbox:has(img.widget-image)")
    picture = panel.query_selector("img.widget-image")
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()

    def readouts() -> list[str]:
        return [readout.inner_text() for readout in panel.query_selector_all(".widget-readout")]

    def wait_for_a_new(source: str) -> None:
        wait_until(page, "([picture, source]) => picture.getAttribute('src') !== source", [picture, source])

    before, source = readouts(), picture.get_attribute("src")
    page.mouse.move(box["x"] + 100, box["y"] + 90)
    page.mouse.down()
    wait_for_a_new(source)
    clicked, source = readouts(), picture.get_attribute("src")
    page.mouse.move(box["x"] + 250, box["y"] + 90, steps=3)
    wait_for_a_new(source)
    page.mouse.up()
    page.wait_for_timeout(1000)
    dragged = readouts()
    shift, row, column, size = range(4)
    assert clicked[row] != before[row] and clicked[column] != before[column]
    assert (clicked[shift], clicked[size]) == (before[shift], before[size])
    assert int(dragged[column]) > int(clicked[column]) and dragged[row] == clicked[row]


def turn_the_street(page: Page) -> None:
    """Opens the 3-D view and drags it: it is not empty, and it looks different from another side."""
    page.click("button:has-text('Open the 3-D view')")
    canvas = page.wait_for_selector(".k3d-target canvas")
    canvas.scroll_into_view_if_needed()

    def drawn(unlike: Image.Image | None = None) -> Image.Image:
        """The canvas once it has come to rest, and to look different from `unlike`."""
        before = None
        for _ in range(120):
            page.wait_for_timeout(500)
            now = Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")
            rests = before is not None and now.tobytes() == before.tobytes() and len(now.getcolors(1 << 24)) > 1000
            if rests and (unlike is None or np.abs(np.asarray(now, float) - np.asarray(unlike, float)).mean() > 5):
                return now
            before = now
        raise AssertionError("the 3-D view stays empty, never rests or does not turn")

    start, box = drawn(), canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 150, box["y"] + box["height"] / 2 + 30, steps=5)
    page.mouse.up()
    turned = drawn(unlike=start)
    if folder := os.environ.get("MONODEPTH_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        start.save(Path(folder) / "07_gif-street.png")
        turned.save(Path(folder) / "07_gif-street-turned.png")


def screenshot(page: Page, stem: Path) -> None:
    """The whole notebook as pictures of one screen each, for people to look at."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    step = 900
    height = page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollHeight")
    for number, top in enumerate(range(0, height, step)):
        page.evaluate(f"document.querySelector('.jp-WindowedPanel-outer').scrollTop = {top}")
        page.wait_for_timeout(150)
        page.screenshot(path=f"{stem}-{number:02d}.png")
