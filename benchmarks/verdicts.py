"""Is a case slower than its baseline beyond noise? The ratchet's judgement, on two results files as they were read.

A ratio is new over base. Its interval is that of two independent bootstrap intervals: [new low / base high,
new high / base low], which is wider than either. A case has lost where the interval's lower end is over the limit:
1.10 for the median, 1.20 for P99. A ratio over the limit whose interval reaches below it is noted as noise. P99 is
judged where both sides have an interval of it and at least 100 timings: of fewer it is little more than the longest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MEDIAN_LIMIT, P99_LIMIT = 1.10, 1.20
P99_TIMINGS = 100  # fewer say nothing about P99
INTERVALS = {"median": "ci95", "p99": "ci95_p99"}
OURS = ("op", "store", "loader", "ring", "borrow")  # variants of ours beside those whose names begin with "robocache"
CACHES = ("cold", "warm", "device")  # what a variant's measurements are named
LOST = ("slower", "slower P99", "changed", "missing", "error")  # verdicts that fail

# Keys of a row that measuring leaves in it. All others say what was measured: they must be the same on both sides.
MEASURED = frozenset({
    "name", "tags", "variants", "errors", "absent", "check", "checked", "provenance", "sets", "rotated_bytes", "bytes",
    "bytes_per_second", "floor_us", "share_of_bandwidth", "points_per_second", "speedup", "cache", "store",
    "align_share", "disk_bytes", "written_s", "measured_s", "compiled",
})  # fmt: skip


class Incomparable(Exception):
    """Why two files cannot be compared."""


@dataclass(frozen=True)
class Ratio:
    """New over base of one statistic; `low` and `high` are None where it is not judged."""

    base: float
    new: float
    low: float | None
    high: float | None

    @property
    def value(self) -> float:
        return self.new / self.base

    def over(self, limit: float) -> bool:
        """Over the limit beyond noise."""
        return self.low is not None and self.low > limit

    def under_one(self) -> bool:
        """Faster beyond noise."""
        return self.high is not None and self.high < 1.0


@dataclass(frozen=True)
class Verdict:
    """What became of one measurement (a case, ours, one state of the caches)."""

    case: str
    what: str  # "robocache cold"
    verdict: str  # one of LOST, or "same", "faster", "noise", "new"
    median: Ratio | None = None
    p99: Ratio | None = None
    words: str = ""

    @property
    def lost(self) -> bool:
        return self.verdict in LOST

    @property
    def tail_unjudged(self) -> bool:
        """Measured on both sides, but nothing can be said about P99."""
        return self.p99 is not None and self.p99.low is None


# ---- A measurement ---------------------------------------------------------------------------------------------------


def is_ours(variant: str) -> bool:
    """True for a variant of ours, and for the error of one; peers are not judged."""
    return variant in OURS or variant.startswith("robocache")


def measurements(row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and statistics of what is ours in a row: "robocache cold", "robocache warm", "op cold", and in the training
    suite "store cold" and "loader cold". Peers are not. What is named as a measurement is one, whatever it holds."""
    for variant, caches in (row.get("variants") or {}).items():
        if is_ours(variant) and isinstance(caches, dict):
            for cache, stats in caches.items():
                if cache in CACHES or (isinstance(stats, dict) and "median" in stats):
                    yield f"{variant} {cache}", stats


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _in_order(*values: Any) -> bool:
    return all(map(_positive, values)) and list(values) == sorted(values)


def flaw(stats: Any, with_tail: bool = False) -> str | None:
    """What is wrong with a measurement's statistics, or None. `with_tail`: it must hold an interval of P99."""
    if not isinstance(stats, dict):
        return f"statistics: expected an object, got {stats!r}"
    for statistic, interval in INTERVALS.items():
        if not _positive(stats.get(statistic)):
            return f"{statistic}: expected a finite number above 0, got {stats.get(statistic)!r}"
        ends = stats.get(interval)
        if ends is None and statistic == "p99" and not with_tail:
            continue
        if not isinstance(ends, list) or len(ends) != 2 or not _in_order(ends[0], stats[statistic], ends[1]):
            return f"{interval}: expected two finite numbers above 0 around {stats[statistic]}, got {ends!r}"
    repeats = stats.get("repeats")
    if not isinstance(repeats, int) or isinstance(repeats, bool) or repeats < 1:
        return f"repeats: expected an integer above 0, got {repeats!r}"
    return None


def ratio(base: dict[str, Any], new: dict[str, Any], statistic: str) -> Ratio:
    """Of two stored statistics."""
    ends = base.get(INTERVALS[statistic]), new.get(INTERVALS[statistic])
    if ends[0] is None or ends[1] is None:
        return Ratio(base[statistic], new[statistic], None, None)
    return Ratio(base[statistic], new[statistic], ends[1][0] / ends[0][1], ends[1][1] / ends[0][0])


def _tail(base: dict[str, Any], new: dict[str, Any]) -> tuple[Ratio, str]:
    """P99's ratio, and why it is not judged."""
    found = ratio(base, new, "p99")
    if found.low is None:
        return found, "P99 not judged: a file stores no interval of it"
    fewest = min(base["repeats"], new["repeats"])
    if fewest < P99_TIMINGS:
        return Ratio(found.base, found.new, None, None), f"P99 not judged: {fewest} timings of at least {P99_TIMINGS}"
    return found, ""


def judge(case: str, what: str, base: Any, new: Any) -> Verdict:
    """One measurement against its baseline. Incomparable where the baseline's statistics are none."""
    wrong = flaw(base)
    if wrong:
        raise Incomparable(f"{case} {what}: the baseline's {wrong}")
    wrong = flaw(new, with_tail=base.get(INTERVALS["p99"]) is not None)
    if wrong:
        return Verdict(case, what, "error", words=wrong)
    median, (p99, words) = ratio(base, new, "median"), _tail(base, new)
    if median.over(MEDIAN_LIMIT):
        verdict = "slower"
    elif p99.over(P99_LIMIT):
        verdict = "slower P99"
    elif median.value > MEDIAN_LIMIT or (p99.low is not None and p99.value > P99_LIMIT):
        verdict, words = "noise", "; ".join(filter(None, ("over the limit, within the intervals", words)))
    else:
        verdict = "faster" if median.under_one() else "same"
    return Verdict(case, what, verdict, median, p99, words)


# ---- A case ----------------------------------------------------------------------------------------------------------


def changes(base: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What two rows of one name differ in that is no outcome: "batch is 32 in the baseline, 64 now"."""
    keys = [key for key in dict.fromkeys((*base, *new)) if key not in MEASURED]
    return [
        f"{key} is {base.get(key)} in the baseline, {new.get(key)} now"
        for key in keys
        if base.get(key) != new.get(key)  # a key that is not there says the same as null
    ]


def failures(row: dict[str, Any]) -> dict[str, str]:
    """The errors of ours in a row."""
    return {key: str(words) for key, words in (row.get("errors") or {}).items() if is_ours(key)}


def compare_rows(base: dict[str, Any], new: dict[str, Any] | None) -> list[Verdict]:
    """The verdicts of one case of the baseline. A case or a measurement of ours that is gone has lost."""
    name = base["name"]
    known = dict(measurements(base))
    if new is None:
        return [Verdict(name, "case", "missing", words="not in the new results")] if known else []
    found, failed = dict(measurements(new)), failures(new)
    verdicts = [Verdict(name, key, "error", words=words) for key, words in failed.items()]
    changed = changes(base, new) if found else []
    if known and changed:
        words = f"{'; '.join(changed)}: give the case another name or measure its baseline anew"
        return [*verdicts, Verdict(name, "case", "changed", words=words)]
    for what, stats in known.items():
        if what in found:
            verdicts.append(judge(name, what, stats, found[what]))
        elif what.split()[0] not in failed and "robocache" not in failed:
            verdicts.append(Verdict(name, what, "missing", words="not measured in the new results"))
    return verdicts + [_first(name, what, stats) for what, stats in found.items() if what not in known]


def _first(case: str, what: str, stats: Any) -> Verdict:
    """Of a measurement that the baseline does not hold."""
    wrong = flaw(stats)
    return Verdict(case, what, "error" if wrong else "new", words=wrong or "")


def new_row(row: dict[str, Any]) -> list[Verdict]:
    """The verdicts of a case that the baseline does not hold: it is new, unless something of it is broken."""
    name = row["name"]
    broken = [Verdict(name, key, "error", words=words) for key, words in failures(row).items()]
    found = [_first(name, what, stats) for what, stats in measurements(row)]
    broken += [one for one in found if one.lost]
    if broken or found:
        return broken or [Verdict(name, "case", "new")]
    return [Verdict(name, "case", "error", words="nothing of ours was measured")]


def compare_results(base: dict[str, Any], new: dict[str, Any]) -> list[Verdict]:
    """The verdicts of every case of either file."""
    by_name = {row["name"]: row for row in new["cases"]}
    verdicts = [one for row in base["cases"] for one in compare_rows(row, by_name.get(row["name"]))]
    known = {row["name"] for row in base["cases"]}
    return verdicts + [one for row in new["cases"] if row["name"] not in known for one in new_row(row)]


# ---- What calls cost the host ----------------------------------------------------------------------------------------

MODES = ("no_grad", "grad")
SPAN = ("least", "median", "most")  # of a function's rounds, microseconds a call


def _host_costs(host: dict[str, Any]) -> dict[tuple[str, str], Any]:
    return {(mode, name): stats for mode in MODES for name, stats in (host.get(mode) or {}).items()}


def _host_failures(host: dict[str, Any]) -> dict[tuple[str, str], str]:
    """The errors of single functions by mode and name, and that of the whole under ("host", "")."""
    failed: dict[tuple[str, str], str] = {}
    for mode, told in (host.get("errors") or {}).items():
        failed |= {(mode, name): str(words) for name, words in (told if isinstance(told, dict) else {"": told}).items()}
    return failed


def _host_flaw(stats: Any) -> str | None:
    values = [stats.get(key) if isinstance(stats, dict) else None for key in SPAN]
    if _in_order(*values):
        return None
    return f"{', '.join(SPAN)}: expected finite numbers above 0 in order, got {values}"


def host_verdicts(base: dict[str, Any], new: dict[str, Any]) -> list[Verdict]:
    """Verdicts of the host's costs, of two results' `host`; the rounds' least and most stand for an interval.

    Rounds of all functions take turns, so `clone` tells how fast the host is at this hour: where it takes longer than
    in the baseline, the others may by as much.
    """
    known, found, failed = _host_costs(base), _host_costs(new), _host_failures(new)
    verdicts = [Verdict("host", " ".join(filter(None, key)), "error", words=words) for key, words in failed.items()]
    for (mode, name), stats in known.items():
        wrong = _host_flaw(stats)
        if wrong:
            raise Incomparable(f"host {mode} {name}: the baseline's {wrong}")
    slower = {mode: _slower_host(known.get((mode, "clone")), found.get((mode, "clone"))) for mode in MODES}
    for (mode, name), stats in known.items():
        what = f"{mode} {name}"
        if (mode, name) not in found:
            if (mode, name) not in failed and ("host", "") not in failed:
                verdicts.append(Verdict("host", what, "missing", words="not measured in the new results"))
        elif _host_flaw(found[mode, name]):
            verdicts.append(Verdict("host", what, "error", words=_host_flaw(found[mode, name]) or ""))
        elif name != "clone":
            verdicts.append(_judge_host(what, stats, found[mode, name], slower[mode]))
    return verdicts + [Verdict("host", " ".join(key), "new") for key in found if known and key not in known]


def _slower_host(base: Any, new: Any) -> float:
    """How many times as long `clone` takes, at least 1: a faster clone makes no call of ours slower."""
    if _host_flaw(base) or _host_flaw(new):
        return 1.0
    return max(1.0, float(new["median"] / base["median"]))


def _judge_host(what: str, base: dict[str, float], new: dict[str, float], slower: float) -> Verdict:
    limit = MEDIAN_LIMIT * slower
    median = Ratio(base["median"], new["median"], new["least"] / base["most"], new["most"] / base["least"])
    words = f"clone() takes {slower:.2f} x as long, too" if median.value > MEDIAN_LIMIT and slower > 1 else ""
    if median.over(limit):
        return Verdict("host", what, "slower", median, words=words)
    if median.value > MEDIAN_LIMIT:
        return Verdict("host", what, "noise", median, words=words or "over the limit, within the rounds' span")
    return Verdict("host", what, "faster" if median.under_one() else "same", median)
