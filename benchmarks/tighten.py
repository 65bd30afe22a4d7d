"""Takes what got faster into a baseline, which thereby only ever gets harder to hold.

A measurement of ours replaces that of the baseline where it is faster beyond noise and neither its median nor its P99
is above the baseline's; each then holds the provenance of its own run. All else of a row stays as it was: its other
measurements, and its peers, which a run of ours alone does not hold. A case that the baseline lacks comes in whole.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from .verdicts import INTERVALS, P99_TIMINGS, Incomparable, Verdict

# Suites whose variants are measured against each other in turns: theirs are true of one run alone.
WHOLE = ("training",)


def check_source(new: dict[str, Any]) -> None:
    """Incomparable unless the new results may become a baseline: of a whole run, from a commit without changes."""
    if new.get("complete") is not True:
        raise Incomparable(f"--tighten: expected a run that ended well, got complete: {new.get('complete')}")
    git = new["provenance"].get("git") or {}
    if not git.get("commit") or git.get("dirty") is not False:
        raise Incomparable(
            f"--tighten: expected results of a commit without changes, got commit {git.get('commit')}, "
            f"dirty {git.get('dirty')}"
        )


def tightened(base: dict[str, Any], new: dict[str, Any], verdicts: Sequence[Verdict]) -> tuple[dict[str, Any], int]:
    """The baseline with what is new or got faster, and how many measurements and cases those are. A case in which
    something lost stays as it is."""
    lost = {one.case for one in verdicts if one.lost}
    by_name = {row["name"]: row for row in new["cases"]}
    rows = {row["name"]: copy.deepcopy(row) for row in base["cases"]}
    count = 0
    for one in verdicts:
        if one.case in lost or one.case not in by_name or one.verdict not in ("faster", "new"):
            continue
        source = by_name[one.case]
        if one.case not in rows:
            rows[one.case] = {**source, "provenance": new["provenance"]}
            count += 1
        elif _take(rows[one.case], source, one):
            rows[one.case]["variants"][one.what.split()[0]][one.what.split()[1]]["provenance"] = new["provenance"]
            count += 1
    before = {row["name"]: row for row in base["cases"]}
    for name, row in rows.items():
        if name in before:
            _derive(row, before[name])
    return {**base, "cases": list(rows.values())}, count


def _take(row: dict[str, Any], source: dict[str, Any], one: Verdict) -> bool:
    """Puts the measurement that a verdict is of into a row of the baseline, unless something of it is worse."""
    variant, cache = one.what.split()
    stats = source["variants"][variant][cache]
    known = row["variants"].get(variant, {}).get(cache)
    if known is not None and not _no_worse(known, stats):
        return False
    row["variants"].setdefault(variant, {})[cache] = dict(stats)
    return True


def _no_worse(base: dict[str, Any], new: dict[str, Any]) -> bool:
    """True where no limit that the baseline sets gets looser with the new statistics."""
    tail = INTERVALS["p99"]
    if new["median"] > base["median"] or new["p99"] > base["p99"]:
        return False
    if base.get(tail) is None or base["repeats"] < P99_TIMINGS:
        return True
    return new["repeats"] >= P99_TIMINGS and bool(new[tail][1] <= base[tail][1])


def _derive(row: dict[str, Any], before: dict[str, Any]) -> None:
    """A row's figures that follow from the times of ours, after those changed."""
    old, ours = (one["variants"].get("robocache", {}).get("cold", {}).get("median") for one in (before, row))
    if not old or not ours:
        return
    if ours != old:
        for key in ("bytes_per_second", "share_of_bandwidth", "points_per_second"):
            if key in row:
                row[key] *= old / ours
        if "align_share" in row:
            row["align_share"] *= ours / old
    for name in row.get("speedup", {}):
        if name in row["variants"]:
            row["speedup"][name] = row["variants"][name]["cold"]["median"] / ours
