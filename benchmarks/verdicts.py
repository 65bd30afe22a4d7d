"""Is a case slower than its baseline beyond noise? The ratchet's judgement, on two results files as they were read.

A ratio is new over base. Its interval is that of two independent bootstrap intervals: [new low / base high,
new high / base low], which is wider than either. A case has lost where the interval's lower end is over the limit:
1.10 for the median, 1.20 for P99. A ratio over the limit whose interval reaches below it is noted as noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MEDIAN_LIMIT, P99_LIMIT = 1.10, 1.20
INTERVALS = {"median": "ci95", "p99": "ci95_p99"}
LIMITS = {"median": MEDIAN_LIMIT, "p99": P99_LIMIT}
OURS = ("op", "store", "loader")  # variants of ours beside those whose names begin with "robocache"
LOST = ("slower", "slower P99", "missing", "error")  # verdicts that fail


@dataclass(frozen=True)
class Ratio:
    """New over base of one statistic; `low` and `high` are None where a file stores no interval of it."""

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


def ratio(base: dict[str, Any], new: dict[str, Any], statistic: str) -> Ratio:
    """Of two stored statistics."""
    ends = base.get(INTERVALS[statistic]), new.get(INTERVALS[statistic])
    if ends[0] is None or ends[1] is None:
        return Ratio(base[statistic], new[statistic], None, None)
    return Ratio(base[statistic], new[statistic], ends[1][0] / ends[0][1], ends[1][1] / ends[0][0])


def measurements(row: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and statistics of what is ours in a row: "robocache cold", "robocache warm", "op cold", and in the training
    suite "store cold" and "loader cold". Peers are not."""
    for variant, caches in row.get("variants", {}).items():
        if variant in OURS or variant.startswith("robocache"):
            for cache, stats in caches.items():
                if isinstance(stats, dict) and "median" in stats:
                    yield f"{variant} {cache}", stats


def judge(case: str, what: str, base: dict[str, Any], new: dict[str, Any]) -> Verdict:
    """One measurement against its baseline."""
    median, p99 = ratio(base, new, "median"), ratio(base, new, "p99")
    if median.over(MEDIAN_LIMIT):
        verdict, words = "slower", ""
    elif p99.over(P99_LIMIT):
        verdict, words = "slower P99", ""
    elif median.value > MEDIAN_LIMIT or (p99.low is not None and p99.value > P99_LIMIT):
        verdict, words = "noise", "over the limit, within the intervals"
    else:
        verdict, words = ("faster" if median.under_one() else "same"), ""
    if p99.low is None:
        words = "P99 not judged: a file stores no interval of it"
    return Verdict(case, what, verdict, median, p99, words)


def compare_rows(base: dict[str, Any], new: dict[str, Any] | None) -> list[Verdict]:
    """The verdicts of one case of the baseline. A case or a measurement of ours that is gone has lost."""
    name = base["name"]
    known = dict(measurements(base))
    if new is None:
        return [Verdict(name, "case", "missing", words="not in the new results")] if known else []
    found = dict(measurements(new))
    failed = {key: words for key, words in new.get("errors", {}).items() if key == "op" or key.startswith("robocache")}
    verdicts = [Verdict(name, key, "error", words=words) for key, words in failed.items()]
    for what, stats in known.items():
        if what in found:
            verdicts.append(judge(name, what, stats, found[what]))
        elif what.split()[0] not in failed and "robocache" not in failed:
            verdicts.append(Verdict(name, what, "missing", words="not measured in the new results"))
    return verdicts


def compare_results(base: dict[str, Any], new: dict[str, Any]) -> list[Verdict]:
    """The verdicts of every case of either file."""
    by_name = {row["name"]: row for row in new["cases"]}
    verdicts = [one for row in base["cases"] for one in compare_rows(row, by_name.get(row["name"]))]
    known = {row["name"] for row in base["cases"]}
    for row in new["cases"]:
        if row["name"] not in known:
            words = row.get("errors", {}).get("robocache")
            verdicts.append(Verdict(row["name"], "case", "error" if words else "new", words=words or ""))
    return verdicts
