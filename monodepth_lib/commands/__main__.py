"""`monodepth`: each command is in the module of its name, which is imported when the command is used."""

from __future__ import annotations

import sys
from importlib import import_module

from . import command_parser, settle

COMMANDS = {
    "run": "run notebooks without opening them",
    "sweep": "run notebooks many times, as a file says, and compare on one page",
    "train": "the training of notebook 05, on one GPU or many",
    "evaluate": "measure weights against ground truth",
    "predict": "disparity and depth of your own pictures and videos",
    "download": "fetch drives of KITTI, ready to train on",
    "rectify": "check whether the pairs of a data folder are rectified",
    "export": "write weights as an ONNX file",
    "grade": "mark the exercises in a class's notebooks, in one CSV",
    "check": "check whether this machine has what the course needs",
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
    try:
        return import_module(f".{name}", __package__).main(arguments[1:])
    except KeyboardInterrupt:  # of a command that has nothing to say about it
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
