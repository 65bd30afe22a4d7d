"""`robocache inspect <path>`."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._episode import Dataset
from .._errors import DatasetError
from .._open import FORMATS, NO_DATASET
from .._open import open as open_dataset

if TYPE_CHECKING:
    from .audit import Audit

_PLOTS = (".png", ".svg", ".pdf")
CLEAN, ERRORS, USAGE = 0, 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="an RLDS or LeRobot folder, or one TFRecord file")
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")
    parser.add_argument("--episodes", type=_episode_range, metavar="A:B", help="audit these episodes only")
    parser.add_argument("--plot", type=_plot_file, metavar="FILE", help="save an overview as PNG, SVG or PDF")
    parser.add_argument("--decode", action="store_true", help="decode every image and video frame")
    parser.add_argument("--format", choices=FORMATS, help="instead of finding out")
    parser.add_argument("--split", help="audit this split only")
    parser.add_argument(
        "--rate", type=_rate, help="steps a second, where the format does not say: 15, 29.97, 30000/1001"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.epilog = "Exit status: 0 clean (warnings do not count), 1 errors were found, 2 a wrong path or command line."


def run(options: argparse.Namespace) -> int:
    """Inspects; returns 0 for a dataset without errors, 1 with errors, 2 where there is none."""
    from .audit import audit
    from .report import json_report, text_report

    try:
        dataset = open_dataset(
            options.path, format=options.format, split=options.split, rate=options.rate, nonfinite="keep"
        )
    except DatasetError as error:
        return _unreadable(error, as_json=options.json)
    except (ValueError, OSError, ImportError) as error:
        _complain(error)
        return USAGE
    with dataset:
        try:
            episodes = _chosen(dataset, options.episodes)
            result = audit(dataset, episodes=episodes, decode=options.decode, show=not options.quiet)
        except (ImportError, IndexError, OSError) as error:
            _complain(error)
            return USAGE
        text = json.dumps(json_report(dataset, result), indent=2) if options.json else text_report(dataset, result)
        _print(text)
        if options.plot is not None and not _plotted(dataset, result, options.plot):
            return USAGE
    return ERRORS if result.errors else CLEAN


def _plotted(dataset: Dataset, result: Audit, file: Path) -> bool:
    """Saves the plot, after the report: a place that cannot be written does not lose it."""
    from .plot import save_plot

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_plot(dataset, result, file)
    except (ImportError, OSError) as error:
        _complain(f"--plot {file}: {error}")
        return False
    return True


def _complain(error: object) -> None:
    from .report import printable

    print(f"robocache inspect: {printable(str(error))}", file=sys.stderr)


def _print(text: str) -> None:
    """Prints, with what the output's encoding lacks escaped; a reader that stops early (`| head`) is no error."""
    encoding = sys.stdout.encoding or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unreadable(error: DatasetError, *, as_json: bool) -> int:
    """A dataset that cannot even be opened: a wrong path, or metadata that is damaged."""
    _complain(error)
    if error.category == NO_DATASET:
        return USAGE
    if as_json:
        finding: dict[str, Any] = {
            "severity": "error",
            "check": error.category,
            "message": error.reason,
            "file": error.file,
        }
        print(json.dumps({"errors": 1, "warnings": 0, "findings": [finding]}, indent=2))
    return ERRORS


def _chosen(dataset: Dataset, asked: tuple[int | None, int | None] | None) -> range:
    begin, end = asked or (None, None)
    chosen = range(len(dataset))[begin:end]
    if asked is not None and not chosen:
        raise IndexError(f"--episodes: there are {len(dataset)}, {begin}:{end} holds none of them")
    return chosen


def _episode_range(text: str) -> tuple[int | None, int | None]:
    match = re.fullmatch(r"(\d{0,9}):(\d{0,9})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected A:B, got {text!r}")
    begin, end = (int(part) if part else None for part in match.groups())
    return begin, end


def _plot_file(text: str) -> Path:
    if Path(text).suffix.lower() not in _PLOTS:
        raise argparse.ArgumentTypeError(f"expected a file ending in {', '.join(_PLOTS)}, got {text!r}")
    return Path(text)


def _rate(text: str) -> Fraction | float:
    try:
        return float(text) if "." in text else Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"expected steps a second, got {text!r}") from None
