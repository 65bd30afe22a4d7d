"""The committed results: which files of benchmarks/results are whole runs, and in which order pages show them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .comparable import NO_EVIDENCE, suite_of
from .provenance import ROOT
from .tables import SUITES

RESULTS = ROOT / "benchmarks" / "results"


def paths(folder: Path = RESULTS, machines: Sequence[str] = ()) -> list[Path]:
    """The suites' results of these machines' folders, of all by default: GPUs first, then by machine and suite."""
    found = {
        path: json.loads(path.read_text())
        for path in folder.glob("*/*.json")
        if not path.stem.endswith(NO_EVIDENCE) and (not machines or path.parent.name in machines)
    }
    return sorted((path for path in found if "cases" in found[path]), key=lambda path: _order(path, found[path]))


def _order(path: Path, results: dict[str, Any]) -> tuple[bool, str, int, str]:
    suite = suite_of(results)
    known = SUITES.index(suite) if suite in SUITES else len(SUITES)
    return results["device"] != "cuda", path.parent.name, known, path.stem
