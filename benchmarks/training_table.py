"""The training suite's tables and bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HEADER = (
    "case", "feed", "samples/s", "of ceiling", "step P50 ms", "P99 ms", "GPU busy", "nvidia-smi", "waited",
    "host MB", "workers MB", "bar",
)  # fmt: skip
# Shares that a feed is asked to reach, on a GPU and with the step as training code writes it.
OF_CEILING = {"store": 0.99, "loader": 0.97}
BUSY = {"loader": 0.95}


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _of_ceiling(found: dict[str, Any]) -> str:
    """The share and, of a feed that was measured in rounds, the least and the most of them: "98.1% (97.2-98.9%)"."""
    rounds = found.get("of_ceiling_rounds", ())
    told = _percent(found.get("of_ceiling"))
    return f"{told} ({100 * min(rounds):.1f}-{max(rounds):.1%})" if len(rounds) > 1 else told


def verdict(row: dict[str, Any], feed: str, device: str) -> str:
    """ "97 % of ceiling: met, 95 % busy: met", or "-" where nothing is asked. Of rounds, the median is judged."""
    found = row["variants"][feed]
    asked = (("of ceiling", OF_CEILING, "of_ceiling"), ("busy", BUSY, "busy"))
    told = [
        f"{bars[feed]:.0%} {what}: {'met' if found[key] >= bars[feed] else 'missed'}"
        for what, bars, key in asked
        if feed in bars
    ]
    return ", ".join(told) if told and device == "cuda" else "-"


def cells(row: dict[str, Any], device: str) -> list[list[str]]:
    """A row a feed."""
    lines = []
    for feed, found in row["variants"].items():
        low, high = found["samples_per_second_ci95"]
        memory, cold, smi = found["host_memory"], found["cold"], found.get("smi_percent")
        lines.append([
            row["name"],
            feed,
            f"{found['samples_per_second']:.0f} ± {(high - low) / 2:.2g}",
            _of_ceiling(found),
            f"{cold['median'] / 1e3:.2f}",
            f"{cold['p99'] / 1e3:.2f}",
            _percent(found["busy"]) if device == "cuda" else "-",
            "-" if smi is None else f"{smi:.0f}%",
            _percent(found["meter"]["wait"]) if found["meter"] else "-",
            "-" if memory["main_peak"] is None else f"{memory['main_peak'] / 1e6:.0f}",
            f"{memory['workers_peak'] / 1e6:.0f}" if memory["workers"] else "-",
            verdict(row, feed, device),
        ])  # fmt: skip
    return lines or [[row["name"], "error", *["-"] * (len(HEADER) - 2)]]


def table(results: dict[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    """Header and rows of a results file."""
    return HEADER, [line for row in results["cases"] for line in cells(row, results["device"])]


def line(row: dict[str, Any], device: str) -> str:
    """A row in one line, as it is measured."""
    told = (f"{one[1]} {one[2]} samples/s, {one[3]} of the ceiling" for one in cells(row, device))
    return f"{row['name']}: {'; '.join(told)}"


_ROUNDS = (
    "Of ceiling: the mean step time of *ready* just before and just after the feed, over the feed's own; the median of "
    "the rounds, their range in brackets. Of *ready* the range is that of its rounds' speeds around its own mean: how "
    "far the ceiling drifted, which the interval of samples a second does not tell. "
)


def caption() -> str:
    """How to read the table."""
    return (
        "Samples a second with the half width of a 95 % interval over blocks of 20 steps; steps from the end of one to "
        f"the end of the next on the device's clock. {_ROUNDS}Busy: the share of a step's time between its first and "
        "last kernel. Waited: the loader's starvation meter. MB: peak resident memory of the training process and of "
        "its workers."
    )
