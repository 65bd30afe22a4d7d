"""The command `robocache`: one subcommand a module, imported when it is called for.

A module that serves a subcommand has `add_arguments(parser)` and `run(options) -> int`, the exit status.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from ._version import __version__

# name -> (module, what it does)
COMMANDS: dict[str, tuple[str, str]] = {
    "inspect": (".datasets.inspect.cli", "What is in a robot dataset, and what is wrong with it."),
    "tune": ("._dispatch.tune", "Measure from which size on calls on host tensors go to the GPU."),
}


def _parser(only: str | None) -> argparse.ArgumentParser:
    """The whole command line. Only the subcommand that was named is imported; the others are listed."""
    parser = argparse.ArgumentParser(prog="robocache", description="Aligned robot data for training, from the shell.")
    parser.add_argument("--version", action="version", version=f"robocache {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, (module, words) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=words, description=words)
        if name == only:
            importlib.import_module(module, __package__).add_arguments(subparser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs a subcommand; returns its exit status, 2 for a wrong command line."""
    arguments = sys.argv[1:] if argv is None else argv
    only = next((word for word in arguments if not word.startswith("-")), None)
    options = _parser(only).parse_args(arguments)
    module, _ = COMMANDS[options.command]
    try:
        return int(importlib.import_module(module, __package__).run(options))
    except KeyboardInterrupt:
        print("robocache: interrupted", file=sys.stderr)
        return 130
