"""Which rows of the results are not the fastest or stay far under their bound, and the reason of each.

A finding is drawn from the results; its reason comes from reasons.py. A finding without a reason is an error of the
report, a reason without a finding is stale.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .bars import median, peer_medians
from .provenance import slug
from .reasons import REASONS, Reason
from .report import suite_of

LEAST_SHARE = 0.6  # of the bandwidth that a large copy reaches in the same run
NOT_COMPARED = ("attention",)  # suites whose other variants are no rivals


@dataclass(frozen=True)
class Finding:
    """A row that is not the fastest, or under LEAST_SHARE of its bound, or both."""

    machine: str
    device: str
    suite: str
    case: str
    peer: str | None = None  # the fastest peer, where it is faster
    ratio: float | None = None  # its time over ours
    share: float | None = None  # of the bandwidth, where that is too little

    @property
    def about(self) -> list[str]:
        """What its reasons must speak of."""
        return [*(["slower"] if self.ratio is not None else []), *(["bound"] if self.share is not None else [])]

    def words(self) -> str:
        told = []
        if self.ratio is not None:
            told.append(f"{self.ratio:.2f}x against {self.peer}")
        if self.share is not None:
            told.append(f"{self.share:.0%} of its bound")
        return ", ".join(told)


def machine_of(results: dict[str, Any]) -> str:
    """The folder of a results file, from what it says of its machine."""
    facts = results["provenance"]
    return slug(facts["gpu"]) if results["device"] == "cuda" else slug(f"{facts['cpu']} {facts['threads']} threads")


def comparable(row: dict[str, Any]) -> bool:
    """True for a row in which ours was timed."""
    return "variants" in row and median(row) is not None


def fastest_peer(row: dict[str, Any]) -> tuple[str, float] | None:
    """The fastest peer of a row, and its time over ours."""
    ours, peers = median(row), peer_medians(row)
    if ours is None or not peers:
        return None
    name = min(peers, key=lambda one: peers[one])
    return name, peers[name] / ours


def findings(results: dict[str, Any]) -> list[Finding]:
    """The findings of one results file, in its order."""
    suite, found = suite_of(results), []
    if suite in NOT_COMPARED:
        return []
    for row in results.get("cases", []):
        if not comparable(row):
            continue
        best, share = fastest_peer(row), row.get("share_of_bandwidth")
        slower = best is not None and best[1] < 1
        below = share is not None and share < LEAST_SHARE
        if slower or below:
            found.append(
                Finding(
                    machine_of(results),
                    results["device"],
                    suite,
                    row["name"],
                    best[0] if best is not None and slower else None,
                    best[1] if best is not None and slower else None,
                    share if below else None,
                )
            )
    return found


def _matches(reason: Reason, pattern: str, finding: Finding) -> bool:
    return (
        reason.about in finding.about
        and (reason.device, reason.suite) == (finding.device, finding.suite)
        and fnmatch.fnmatchcase(finding.machine, reason.machine)
        and fnmatch.fnmatchcase(finding.case, pattern)
    )


def reasons_of(finding: Finding, reasons: Sequence[Reason] = REASONS) -> dict[str, str | None]:
    """The first reason of each thing that a finding's reasons must speak of."""
    found: dict[str, str | None] = dict.fromkeys(finding.about)
    for reason in reasons:
        if found.get(reason.about, "") is None and any(_matches(reason, each, finding) for each in reason.cases):
            found[reason.about] = reason.text
    return found


def missing(found: Iterable[Finding], reasons: Sequence[Reason] = REASONS) -> list[Finding]:
    """Findings that lack a reason."""
    return [finding for finding in found if None in reasons_of(finding, reasons).values()]


def stale(found: Sequence[Finding], reasons: Sequence[Reason] = REASONS) -> list[tuple[Reason, str]]:
    """Reasons, by their patterns, that speak of no finding."""
    return [
        (reason, pattern)
        for reason in reasons
        for pattern in reason.cases
        if not any(_matches(reason, pattern, finding) for finding in found)
    ]
