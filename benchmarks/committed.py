"""The committed results: which files of benchmarks/results are whole runs, in which order pages show them, and what
keeps one from being evidence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .comparable import NO_EVIDENCE, suite_of
from .provenance import ROOT
from .tables import SUITES
from .timing import SLOW_CALL_MS
from .verdicts import is_ours

RESULTS = ROOT / "benchmarks" / "results"
LEAST_REPEATS = 100  # timings of a variant
_SUMMARIES = ("tests", "sanitize", "soak")  # kinds that know no `complete`: they tell what failed
_NAMED = 3  # timings that a message names; the others are counted


def _whole(folder: Path, machines: Sequence[str] = ()) -> dict[Path, dict[str, Any]]:
    return {
        path: json.loads(path.read_text())
        for path in sorted(folder.glob("*/*.json"))
        if not path.stem.endswith(NO_EVIDENCE) and (not machines or path.parent.name in machines)
    }


def paths(folder: Path = RESULTS, machines: Sequence[str] = ()) -> list[Path]:
    """The suites' results of these machines' folders, of all by default: GPUs first, then by machine and suite."""
    found = _whole(folder, machines)
    return sorted((path for path in found if "cases" in found[path]), key=lambda path: _order(path, found[path]))


def _order(path: Path, results: dict[str, Any]) -> tuple[bool, str, int, str]:
    suite = suite_of(results)
    known = SUITES.index(suite) if suite in SUITES else len(SUITES)
    return results["device"] != "cuda", path.parent.name, known, path.stem


# ---- What keeps a file from being evidence -------------------------------------------------------------------------


def audit(folder: Path = RESULTS) -> list[str]:
    """The flaws of every committed file: results and what test runs, sanitizers and soaks left."""
    return [words for path, content in _whole(folder).items() for words in flaws(path, content)]


def flaws(path: Path, content: dict[str, Any]) -> list[str]:
    """Why a file is no evidence: an unknown commit, an incomplete run, too few timings; of each kind what it has."""
    found = []
    if not content.get("provenance", {}).get("git", {}).get("commit"):
        found.append("provenance.git.commit: expected the commit that was measured, got none")
    if content.get("kind") not in _SUMMARIES and content.get("complete") is not True:
        found.append(f"complete: expected true, got {json.dumps(content.get('complete'))}: not all of it was measured")
    planned = content.get("plan", {}).get("repeats")
    if planned is not None and planned < LEAST_REPEATS:
        found.append(f"plan.repeats: expected at least {LEAST_REPEATS}, got {planned}")
    elif short := list(_short(content)):
        more = f" and {len(short) - _NAMED} more" if len(short) > _NAMED else ""
        found.append(
            f"repeats: expected at least {LEAST_REPEATS} of ours and of calls under {_slow_ms(content):g} ms, "
            f"got {', '.join(short[:_NAMED])}{more}"
        )
    return [f"{path.parent.name}/{path.name}: {words}; measure again" for words in found]


def _slow_ms(content: dict[str, Any]) -> float:
    slow: float = content.get("plan", {}).get("slow_call_ms", SLOW_CALL_MS)
    return slow


def _short(content: dict[str, Any]) -> Iterator[str]:
    """The timings with too few repeats: any of ours, and of peers those whose calls are not slow.

    Whether a call is slow was decided by its first timing, which takes longer than later ones: half the limit counts.
    """
    slow_us = _slow_ms(content) * 1e3 / 2
    for row in content.get("cases", ()):
        for name, variant in row.get("variants", {}).items():
            for what, timing in variant.items():
                if not isinstance(timing, dict) or "median" not in timing:
                    continue
                repeats = timing.get("repeats", 0)
                if repeats < LEAST_REPEATS and (is_ours(name) or timing["median"] <= slow_us):
                    yield f"{repeats} of {row['name']} {name} {what}"
