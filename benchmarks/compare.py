"""The ratchet: `python -m benchmarks.compare BASE NEW [--markdown FILE] [--partial] [--anyway] [--tighten]`.

BASE and NEW are results files of one suite, folders with one file a suite, or folders of such folders, one a machine.
Exit status 0: nothing got slower; 1: a case is slower than its baseline beyond noise (verdicts.py says what that
means), measures something else under its old name, is missing or in error; 2: a suite cannot be compared (no baseline,
another machine or plan, another schema, unreadable), and nothing lost. The report of `--markdown` is always written.

`--partial` leaves out the suites and cases that the new results' own arguments (`--suite`, `--cases`, `--filter`) did
not choose. `--anyway` compares results of different machines or plans all the same. `--tighten` takes what got faster
beyond noise into the baseline, if nothing lost (tighten.py).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .comparable import Pair, asked_for, check_comparable, host, machine, origins, pairs, read, suite_of
from .tighten import WHOLE, check_source, tightened
from .verdicts import (
    MEDIAN_LIMIT,
    P99_LIMIT,
    Incomparable,
    Ratio,
    Verdict,
    compare_results,
    host_verdicts,
    measurements,
    new_row,
)

# ---- Telling ---------------------------------------------------------------------------------------------------------


def _us(value: float) -> str:
    return f"{value:.4g}"


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return "-"
    interval = "" if ratio.low is None else f" [{ratio.low:.3f}, {ratio.high:.3f}]"
    return f"{ratio.value:.3f}{interval}"


def _cells(one: Verdict) -> list[str]:
    times = ("-", "-") if one.median is None else (_us(one.median.base), _us(one.median.new))
    words = f"{one.verdict}: {one.words}" if one.words else one.verdict
    return [one.case, one.what, *times, _ratio(one.median), _ratio(one.p99), words.replace("|", "/")]


HEADER = ("case", "measured", "base P50 us", "new P50 us", "P50 ratio", "P99 ratio", "verdict")


def _table(verdicts: Sequence[Verdict]) -> str:
    lines = ["| " + " | ".join(HEADER) + " |", "|---|---|---:|---:|---:|---:|---|"]
    return "\n".join(lines + ["| " + " | ".join(_cells(one)) + " |" for one in verdicts])


def _from(results: dict[str, Any]) -> str:
    told = ", ".join(f"{commit} of {date}" for commit, date in origins(results))
    return f"{told}, torch {results['provenance'].get('torch')}"


def _notes(base: dict[str, Any] | None, new: dict[str, Any], verdicts: Sequence[Verdict]) -> list[str]:
    """What a reader must know of how far the judgement reaches."""
    notes = []
    if base is None:
        notes.append("The baseline holds no results of this suite. Commit those of a whole run to have it judged.")
    elif machine(base) != machine(new):
        notes.append(f"The baseline is of another machine: {machine(base)}.")
    if base is not None and base.get("host") and host(base) != host(new):
        notes.append(
            f"The host's costs are not judged: the baseline's are of {host(base)}, the new ones of {host(new)}."
        )
    if new.get("complete") is not True:
        notes.append("The run that measured did not end well: its log says why.")
    stored = [stats for row in new["cases"] for _, stats in measurements(row)]
    again = sum(isinstance(stats, dict) and bool(stats.get("measured_again")) for stats in stored)
    if again:
        notes.append(f"{again} measurements lost at first and did not in a process of their own, from which they are.")
    unjudged = sum(one.tail_unjudged for one in verdicts)
    if unjudged:
        notes.append(f"P99 of {unjudged} measurements is not judged: too few timings, or no interval of it in a file.")
    return notes


def markdown(base: dict[str, Any] | None, new: dict[str, Any], verdicts: Sequence[Verdict], left_out: int = 0) -> str:
    """A report for a pull request: what lost first, then what gained or is new, the rest folded.

    Args:
        base, new, verdicts: the results, and what was judged.
        left_out: cases of the baseline that the new results' arguments did not choose.
    """
    lost = [one for one in verdicts if one.lost]
    told = [one for one in verdicts if one.verdict in ("faster", "noise", "new")]
    rest = [one for one in verdicts if one.verdict == "same"]
    head = f"{len(lost)} of {len(verdicts)} measurements lost" if lost else f"{len(verdicts)} measurements, none lost"
    parts = [f"### {suite_of(new)} on {machine(new)}: {head}", *_notes(base, new, verdicts)]
    if left_out:
        parts.append(f"A part was measured: {left_out} cases of the baseline were not asked for.")
    if base is not None:
        parts.append(
            f"Base {_from(base)}; new {_from(new)}. Lost means: over {MEDIAN_LIMIT:.2f} x the base's median or "
            f"{P99_LIMIT:.2f} x its P99 with the whole 95 % interval of the ratio, another measurement under the old "
            f"name, missing, or in error."
        )
    if lost:
        parts.append(_table(lost))
    if told:
        parts.append(_table(told))
    if rest:
        parts.append(f"<details><summary>{len(rest)} the same</summary>\n\n{_table(rest)}\n\n</details>")
    return "\n\n".join(parts) + "\n"


def text(verdicts: Sequence[Verdict]) -> str:
    """A line for each measurement that is not the same, and the sum."""
    lines = [": ".join((" ".join(_cells(one)[:2]), *_cells(one)[4:])) for one in verdicts if one.verdict != "same"]
    counts = {name: sum(one.verdict == name for one in verdicts) for name in dict.fromkeys(v.verdict for v in verdicts)}
    unjudged = sum(one.tail_unjudged for one in verdicts)
    told = [f"{count} {name}" for name, count in counts.items()] + ([f"{unjudged} without P99"] if unjudged else [])
    return "\n".join([*lines, ", ".join(told) or "nothing to compare"])


# ---- The command -----------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What was found, suite by suite."""

    good: list[str] = field(default_factory=list)  # reports
    bad: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    lost: bool = False
    merged: list[tuple[Path, dict[str, Any], int]] = field(default_factory=list)

    def refuse(self, name: str, words: str) -> None:
        self.refused.append(words)
        self.bad.append(f"### {name}: not compared\n\n{words}\n")

    def report(self) -> str:
        """What failed comes first: a comment on a pull request may be cut at its end."""
        return "\n".join(self.bad + self.good)


def judge_suite(base: dict[str, Any] | None, new: dict[str, Any]) -> list[Verdict]:
    """Every verdict of a suite's results; the host's costs are judged on one processor alone."""
    if base is None:
        return [one for row in new["cases"] for one in new_row(row)] + host_verdicts({}, new.get("host") or {})
    known = base.get("host") or {} if host(base) == host(new) else {}
    return compare_results(base, new) + host_verdicts(known, new.get("host") or {})


def _compare(pair: Pair, options: argparse.Namespace, outcome: Outcome) -> None:
    if pair.new is None:
        raise Incomparable(pair.why)
    new, base, stored = read(pair.new), None, None
    if pair.base is not None:
        stored = read(pair.base)
        check_comparable(stored, new, options.anyway)
        base = asked_for(stored, new) if options.partial else stored
    if options.tighten and stored is not None:
        check_source(new)
    verdicts = judge_suite(base, new)
    print(f"{suite_of(new)}:\n{text(verdicts)}")
    if not verdicts:
        raise Incomparable(f"{suite_of(new)}: the results hold nothing of ours that could be judged")
    left_out = len(stored["cases"]) - len(base["cases"]) if stored and base else 0
    lost = any(one.lost for one in verdicts)
    (outcome.bad if lost else outcome.good).append(markdown(base, new, verdicts, left_out))
    outcome.lost = outcome.lost or lost
    if pair.base is not None and stored is not None:
        whole = suite_of(new) in WHOLE
        outcome.merged.append((pair.base, *((stored, 0) if whole else tightened(stored, new, verdicts))))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("base", type=Path, help="the baseline: a results file, or a folder of them")
    parser.add_argument("new", type=Path, help="the new results: a file, or a folder")
    parser.add_argument("--markdown", type=Path, help="also write a report for a pull request to this file")
    parser.add_argument("--anyway", action="store_true", help="compare different machines or plans")
    parser.add_argument(
        "--partial", action="store_true", help="what the new results' arguments left out is not missing"
    )
    parser.add_argument(
        "--tighten", action="store_true", help="take what got faster into the baseline, if nothing lost"
    )
    parser.add_argument("--out", type=Path, help="with --tighten: the merged baseline goes here instead (one suite)")
    options = parser.parse_args(argv)
    if options.out and not options.tighten:
        parser.error("--out: expected --tighten beside it")
    if options.anyway and options.tighten:
        parser.error("--tighten: expected no --anyway beside it: times of another machine or plan are no baseline")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    outcome = Outcome()
    try:
        found = pairs(options.base, options.new, options.partial)
        if options.out and len(found) > 1:
            raise Incomparable("--out: expected results of one suite")
    except Incomparable as error:
        found = []
        outcome.refuse("ratchet", str(error))
    for pair in found:
        try:
            _compare(pair, options, outcome)
        except Incomparable as error:
            outcome.refuse(pair.name, str(error))
    for words in outcome.refused:
        print(f"error: {words}", file=sys.stderr)
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(outcome.report())
    if options.tighten and not outcome.lost and not outcome.refused:
        for path, results, count in outcome.merged:
            target = options.out or path
            if count or options.out:
                target.write_text(json.dumps(results, indent=1) + "\n")
            whole = suite_of(results) in WHOLE
            words = "left as it is: its variants are measured against each other, so commit a whole new run"
            print(f"{target.name}: {words if whole else f'{count} measurements tightened'}")
    return 1 if outcome.lost else 2 if outcome.refused else 0


if __name__ == "__main__":
    sys.exit(main())
