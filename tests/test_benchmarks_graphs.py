"""The graphs suite's table and bars, from made-up results; its rows need a GPU."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import graphs, report
from benchmarks.bars import verdict


def row(name: str, **medians: float) -> dict[str, Any]:
    stats = {"p5": 1.0, "p95": 1.0, "p99": 9.0, "mean": 1.0, "ci95": [0.9, 1.1], "repeats": 9, "calls": 64}
    return {
        "name": name,
        "variants": {key.replace("_", "-"): {"cold": {**stats, "median": value}} for key, value in medians.items()},
        "errors": {},
    }


@pytest.mark.parametrize(
    ("name", "ours", "eager", "words"),
    [
        ("pipeline-8", 30.0, 120.0, "3x eager: met"),
        ("pipeline-8-rotating", 50.0, 120.0, "3x eager: missed"),
        ("stream-64-shapes", 105.0, 100.0, "1.1 of eager: met"),
        ("stream-new-shapes", 120.0, 100.0, "1.1 of eager: missed"),
        ("add-8", 10.0, 8.0, "-"),
    ],
)
def test_bars(name: str, ours: float, eager: float, words: str) -> None:
    assert verdict(row(name, robocache=ours, eager=eager), []) == words


def test_every_bar_of_the_suite_is_of_a_case() -> None:
    names = {case.name for case in graphs.CASES}
    assert {"pipeline-8", "pipeline-8-rotating", "stream-64-shapes", "stream-new-shapes"} <= names
    assert len(names) == len(graphs.CASES)
    assert graphs.select("cpu", None) == [] and [c.name for c in graphs.select("cuda", "add-*")] == ["add-8"]


def test_the_table() -> None:
    results = {
        "suite": "graphs",
        "device": "cuda",
        "cases": [row("pipeline-8", robocache=20.0, eager=100.0, compile_reduce_overhead=30.0), row("add-8")],
        "plan": {"repeats": 100},
        "bandwidth": {"bytes_per_second": 4e12},
        "provenance": {
            "gpu": "a GPU",
            "driver": "1",
            "cuda": "13.0",
            "torch": "2.11",
            "date": "2026-11-25T00:00:00",
            "git": {"commit": "0" * 40, "dirty": False},
        },
    }
    text = report.markdown(results)
    assert "wall time, host and device together" in text
    assert "| pipeline-8 | 20.0 ± 0.1 | 9.00 | - | - | 100.0 | 30.0 | 5.00x | 1.50x | 3x eager: met |" in text.replace(
        "| 100 |", "| 100.0 |"
    )
    assert "| add-8 | error |" in text
