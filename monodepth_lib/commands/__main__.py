"""`monodepth`: each command stands in the module of its name, which is imported when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module

from . import command_parser, settle

COMMANDS = {
    "run": "notebooks, without opening them",
    "sweep": "many runs of notebooks from one file, compared on one page",
    "train": "the training of notebook 05, on one GPU or many",
    "evaluate": "weights or predictions against a ground truth",
    "predict": "disparity and depth of your own pictures and videos",
    "download": "drives of KITTI, ready to train on",
    "rectify": "are the pairs of a data folder rectified?",
    "export": "weights as an ONNX file",
    "grade": "a class's notebooks: every exercise's verdict, in one CSV",
    "check": "what this machine has of what the course needs",
}


def main(arguments: list[str] | None = None) -> int:
    """`monodepth COMMAND ...`. Returns the command's exit status."""
    settle()
    arguments = sys.argv[1:] if arguments is None else arguments
    lines = "\n".join(f"  {name:10}{words}" for name, words in COMMANDS.items())
    parser = command_parser(
        "",
        f"Self-supervised depth, taught. The commands (each has its own --help):\n\n{lines}",
        "monodepth predict photo.jpg --weights unet_kitti",
    )
    parser.usage = "monodepth COMMAND ..."
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those above")
    name = parser.parse_args(arguments[:1]).command
    return import_module(f".{name}", __package__).main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
