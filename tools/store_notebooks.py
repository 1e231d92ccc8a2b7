"""Runs every notebook with its defaults, in order, and stores it with outputs but without machine-dependent metadata.

A notebook with a failing cell is not changed, nor are those after it. nbval finds the same outputs in another run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from monodepth_lib.commands.run import NOTEBOOKS, notebook_path


def clean(notebook: nbformat.NotebookNode) -> None:
    """Removes widget state, timestamps and versions; keeps sources, outputs, counts and tags."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        for key in set(cell.metadata) - {"tags", "jupyter"}:
            del cell.metadata[key]
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
            output.pop("metadata", None) if output.output_type == "stream" else None


def main(names: list[str]) -> None:
    for name in names or NOTEBOOKS:
        path = notebook_path(name)
        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(notebook, timeout=900, kernel_name="python3", coalesce_streams=True)
        client.execute(cwd=str(path.parent))
        clean(notebook)
        nbformat.write(notebook, path)
        print(f"{name}: {Path(path).stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", help="such as 05_training (default: all)")
    main(parser.parse_args().names)
