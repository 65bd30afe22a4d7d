"""Rows of results as cells of a table: the columns of each suite.

TABLES has a function a suite, which turns its results into a header and the rows' cells. A suite that is not there has
the columns that every suite has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import attention, dispatch, training_table
from .bars import of_base, peer_medians, store_verdict, verdict

Table = tuple[Sequence[str], list[list[str]]]


def microseconds(value: float | None) -> str:
    """Three digits, or "-"."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _with_interval(found: dict[str, Any]) -> str:
    """A median with the half width of its confidence interval."""
    low, high = found["ci95"]
    return f"{microseconds(found['median'])} ± {(high - low) / 2:.2g}"


def _median(row: dict[str, Any], variant: str, cache: str = "cold") -> float | None:
    return row["variants"].get(variant, {}).get(cache, {}).get("median")


def _best_compile(row: dict[str, Any]) -> float | None:
    found = [_median(row, name) for name in row["variants"] if name.startswith("compile")]
    return min((v for v in found if v is not None), default=None)


def _cells(row: dict[str, Any]) -> list[str]:
    ours = _median(row, "robocache")
    if ours is None:
        return [row["name"], "error", *["-"] * (len(HEADER) - 2)]
    cold = row["variants"]["robocache"]["cold"]
    eager, compiled = _median(row, "eager"), _best_compile(row)
    peers = peer_medians(row).values()
    share = row.get("share_of_bandwidth")
    return [
        row["name"],
        _with_interval(cold),
        microseconds(cold["p99"]),
        microseconds(_median(row, "robocache", "warm")),
        microseconds(eager),
        microseconds(compiled),
        f"{min(peers) / ours:.2f}x" if peers else "-",
        microseconds(row.get("floor_us")),
        f"{share:.0%}" if share is not None else "-",
        f"{row['bytes']['total'] / 1e6:.2f}",
        microseconds(_wall(row, "robocache")),
        microseconds(_wall(row, "eager")),
    ]


def _wall(row: dict[str, Any], variant: str) -> float | None:
    """Wall time of a plain call, host and device together; the CPU's times are that already."""
    return row["variants"].get(variant, {}).get("eager_wall_us")


HEADER = (
    *("case", "robocache", "P99", "warm", "eager", "compile", "vs best peer", "floor", "of bandwidth", "MB"),
    *("wall", "eager wall"),
)


def _voxel_header(device: str) -> tuple[str, ...]:
    cuda = device == "cuda"
    return (
        *("case", "robocache", "P99", *(("warm",) if cuda else ()), "eager", "compile"),
        *(("floor", "of bandwidth") if cuda else ("numpy",)),
        *("vs best peer", "MB", *(("wall", "eager wall") if cuda else ())),
        *("M points/s", "vs uniform", "bar"),
    )


def _voxel_cells(row: dict[str, Any], results: dict[str, Any]) -> list[str]:
    header = _voxel_header(results["device"])
    ours = _median(row, "robocache")
    if ours is None:
        return [row["name"], "error", *["-"] * (len(header) - 2)]
    cold = row["variants"]["robocache"]["cold"]
    best = min(peer_medians(row).values(), default=None)
    share, ratio = row.get("share_of_bandwidth"), of_base(row, results["cases"])
    cells = {
        "case": row["name"],
        "robocache": _with_interval(cold),
        "P99": microseconds(cold["p99"]),
        "warm": microseconds(_median(row, "robocache", "warm")),
        "eager": microseconds(_median(row, "eager")),
        "compile": microseconds(_best_compile(row)),
        "wall": microseconds(_wall(row, "robocache")),
        "eager wall": microseconds(_wall(row, "eager")),
        "floor": microseconds(row.get("floor_us")),
        "of bandwidth": f"{share:.0%}" if share is not None else "-",
        "numpy": microseconds(_median(row, "numpy")),
        "vs best peer": f"{best / ours:.2f}x" if best is not None else "-",
        "MB": f"{row['bytes']['total'] / 1e6:.2f}",
        "M points/s": f"{row['points_per_second'] / 1e6:.0f}",
        "vs uniform": f"{ratio:.2f}x" if ratio is not None else "-",
        "bar": "-" if "tiny" in results["plan"] else verdict(row, results["cases"]),
    }
    return [cells[name] for name in header]


GRAPHS_HEADER = (
    "case",
    "cached",
    "P99",
    "ring",
    "borrow",
    "eager",
    "compile",
    "eager / cached",
    "compile / cached",
    "bar",
)


def _graph_cells(row: dict[str, Any]) -> list[str]:
    ours = _median(row, "robocache")
    if ours is None:
        return [row["name"], "error", *["-"] * (len(GRAPHS_HEADER) - 2)]
    cold = row["variants"]["robocache"]["cold"]
    eager, compiled = _median(row, "eager"), _best_compile(row)
    return [
        row["name"],
        _with_interval(cold),
        microseconds(cold["p99"]),
        microseconds(_median(row, "ring")),
        microseconds(_median(row, "borrow")),
        microseconds(eager),
        microseconds(compiled),
        "-" if eager is None else f"{eager / ours:.2f}x",
        "-" if compiled is None else f"{compiled / ours:.2f}x",
        verdict(row, [row]),
    ]


STORE_HEADER = ("case", "robocache", "P99", "device", "torch-index", "lerobot-style", "vs lerobot-style", "MB", "bar")


def _store_cells(row: dict[str, Any], results: dict[str, Any]) -> list[str]:
    ours = _median(row, "robocache")
    if ours is None:
        return [row["name"], "error", *["-"] * (len(STORE_HEADER) - 2)]
    cold = row["variants"]["robocache"]["cold"]
    items = _median(row, "lerobot-style")
    return [
        row["name"],
        _with_interval(cold),
        microseconds(cold["p99"]),
        microseconds(_median(row, "robocache", "device")),
        microseconds(_median(row, "torch-index")),
        microseconds(items),
        f"{items / ours:.0f}x" if items is not None else "-",
        f"{row['bytes']['total'] / 1e6:.2f}",
        store_verdict(row) if results["device"] == "cuda" else "-",
    ]


def _any_table(rows: Sequence[dict[str, Any]]) -> tuple[Sequence[str], list[list[str]]]:
    """Of a suite without columns of its own: ours with its interval and P99, then every other variant's median."""
    others = [name for name in dict.fromkeys(n for row in rows for n in row["variants"]) if name != "robocache"]
    cells = []
    for row in rows:
        cold = row["variants"].get("robocache", {}).get("cold")
        told = ["error" if row["errors"] else "-", "-"]
        if cold is not None:
            told = [_with_interval(cold), microseconds(cold["p99"])]
        cells.append([row["name"], *told, *(microseconds(_median(row, name)) for name in others)])
    return ("case", "robocache", "P99", *others), cells


TABLES: dict[str, Callable[[dict[str, Any]], Table]] = {
    "align": lambda results: (HEADER, [_cells(row) for row in results["cases"]]),
    "voxelize": lambda results: (
        _voxel_header(results["device"]),
        [_voxel_cells(row, results) for row in results["cases"]],
    ),
    "graphs": lambda results: (GRAPHS_HEADER, [_graph_cells(row) for row in results["cases"]]),
    "store": lambda results: (STORE_HEADER, [_store_cells(row, results) for row in results["cases"]]),
    "dispatch": lambda results: (
        dispatch.HEADER,
        [dispatch.cells(name, found) for name, found in results["summaries"].items()],
    ),
    "attention": lambda results: (attention.HEADER, [attention.cells(row, microseconds) for row in results["cases"]]),
    "training": training_table.table,
}
SUITES = tuple(TABLES)


def table_of(suite: str, results: dict[str, Any]) -> Table:
    """Header and rows of a suite's cases."""
    return TABLES[suite](results) if suite in TABLES else _any_table(results["cases"])
