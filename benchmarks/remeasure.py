"""`python -m benchmarks.remeasure BASE NEW [--rounds 4]`: measures again what lost, each time in a new process.

A process may be slower than the next from its first call to its last: where its memory came to lie, which core it had,
what else the host did. No interval within one run tells that. So what lost is measured again, up to `--rounds` times,
and the first measurement that does not lose takes the place of the one that did, with its own provenance; the report
counts them. Code that is slower by more than processes differ loses every time; a loss within that may pass, as it may
in a first run. NEW is a folder as `python -m benchmarks --results` leaves it; exit status 0, whatever is still lost:
benchmarks.compare judges.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .comparable import asked_for, check_comparable, pairs, read, suite_of
from .tighten import WHOLE
from .verdicts import Incomparable, Verdict, compare_results, judge

TIMED = ("slower", "slower P99")  # verdicts that another measurement can change
Measure = Callable[[dict[str, Any], Sequence[str]], "dict[str, Any] | None"]


def measure_again(results: dict[str, Any], cases: Sequence[str]) -> dict[str, Any] | None:
    """Results of these cases from a new process; None where it left none."""
    suite = suite_of(results)
    with tempfile.TemporaryDirectory(prefix="robocache-remeasure-") as folder:
        file = Path(folder) / f"{suite}.json"
        command = [sys.executable, "-m", "benchmarks", "--device", results["device"], "--suite", suite, "--ours-only"]
        subprocess.run([*command, "--no-host", "--cases", ",".join(cases), "--out", str(file)], check=False)
        return read(file) if file.exists() else None


def replace_lost(
    base: dict[str, Any], new: dict[str, Any], again: dict[str, Any], lost: Sequence[Verdict]
) -> list[str]:
    """Puts what does not lose any more into `new`; the names of those measurements."""
    known, rows, fresh = ({row["name"]: row for row in one["cases"]} for one in (base, new, again))
    held = []
    for one in lost:
        variant, cache = one.what.split()
        stats = fresh.get(one.case, {}).get("variants", {}).get(variant, {}).get(cache)
        if stats is None or judge(one.case, one.what, known[one.case]["variants"][variant][cache], stats).lost:
            continue
        rows[one.case]["variants"][variant][cache] = {
            **stats,
            "provenance": again["provenance"],
            "measured_again": True,
        }
        held.append(f"{one.case} {one.what}")
    return held


def remeasure(base: Path, new: Path, rounds: int, measure: Measure = measure_again) -> dict[str, list[str]]:
    """Measures again what lost in the folder `new`, suite by suite; what held then, by suite."""
    found: dict[str, list[str]] = {}
    for pair in pairs(base, new, partial=True):
        if pair.base is None or pair.new is None:
            continue
        try:
            results, stored = read(pair.new), read(pair.base)
            check_comparable(stored, results, anyway=False)
        except Incomparable as error:  # benchmarks.compare tells it in its report; the other suites go on
            print(f"{pair.name}: not measured again: {error}", file=sys.stderr)
            continue
        if suite_of(results) in WHOLE:
            continue
        chosen = asked_for(stored, results)
        for _ in range(rounds):
            lost = [one for one in compare_results(chosen, results) if one.verdict in TIMED]
            again = measure(results, sorted({one.case for one in lost})) if lost else None
            if again is None:
                break
            held = replace_lost(chosen, results, again, lost)
            found.setdefault(pair.name, []).extend(held)
            if held:
                pair.new.write_text(json.dumps(results, indent=1) + "\n")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remeasure", description=__doc__)
    parser.add_argument("base", type=Path, help="the baseline: a folder of results, or of machines' folders")
    parser.add_argument("new", type=Path, help="the new results: the same")
    parser.add_argument("--rounds", type=int, default=4, help="how often at most (default 4)")
    options = parser.parse_args(argv)
    try:
        for suite, held in remeasure(options.base, options.new, options.rounds).items():
            print(f"{suite}: {len(held)} that lost did not when measured again{''.join(f'; {one}' for one in held)}")
    except Incomparable as error:  # which benchmarks.compare tells, in its report
        print(f"not measured again: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
