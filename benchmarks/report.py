"""Prints results files as tables: `python -m benchmarks.report results.json ... [--write README.md]`.

`--write` puts the Markdown of each suite between its markers, such as `<!-- bench:align:begin -->` and
`<!-- bench:align:end -->`; `--check` fails when what stands there is not what the results say.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import attention
from .bars import of_base, peer_medians, store_verdict, verdict

SUITES = ("align", "voxelize", "graphs", "store", "dispatch", "attention")


def markers(suite: str) -> tuple[str, str]:
    """What stands before and behind a suite's tables."""
    return f"<!-- bench:{suite}:begin -->", f"<!-- bench:{suite}:end -->"


def suite_of(results: dict[str, Any]) -> str:
    """Results that say no suite are of the first."""
    name: str = results.get("suite", "align")
    return name


def microseconds(value: float | None) -> str:
    """Three digits, or "-"."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


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
    half = (cold["ci95"][1] - cold["ci95"][0]) / 2
    share = row.get("share_of_bandwidth")
    return [
        row["name"],
        f"{microseconds(ours)} ± {half:.2g}",
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
        "robocache": f"{microseconds(ours)} ± {(cold['ci95'][1] - cold['ci95'][0]) / 2:.2g}",
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
        f"{microseconds(ours)} ± {(cold['ci95'][1] - cold['ci95'][0]) / 2:.2g}",
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
        f"{microseconds(ours)} ± {(cold['ci95'][1] - cold['ci95'][0]) / 2:.2g}",
        microseconds(cold["p99"]),
        microseconds(_median(row, "robocache", "device")),
        microseconds(_median(row, "torch-index")),
        microseconds(items),
        f"{items / ours:.0f}x" if items is not None else "-",
        f"{row['bytes']['total'] / 1e6:.2f}",
        store_verdict(row) if results["device"] == "cuda" else "-",
    ]


def _table(results: dict[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    """Header and rows of a suite's cases."""
from . import attention
from .bars import of_base, peer_medians, store_verdict, verdict
    if suite_of(results) == "align":
        return HEADER, [_cells(row) for row in results["cases"]]
    if suite_of(results) == "graphs":
        return GRAPHS_HEADER, [_graph_cells(row) for row in results["cases"]]
    if suite_of(results) == "voxelize":
        return _voxel_header(results["device"]), [_voxel_cells(row, results) for row in results["cases"]]
    return _any_table(results["cases"])


def _any_table(rows: Sequence[dict[str, Any]]) -> tuple[Sequence[str], list[list[str]]]:
    """Of a suite without columns of its own: ours with its interval and P99, then every other variant's median."""
    others = [name for name in dict.fromkeys(n for row in rows for n in row["variants"]) if name != "robocache"]
    cells = []
    for row in rows:
        ours = _median(row, "robocache")
        cold = row["variants"].get("robocache", {}).get("cold")
        told = ["error" if row["errors"] else "-", "-"]
        if cold is not None:
            half = (cold["ci95"][1] - cold["ci95"][0]) / 2
            told = [f"{microseconds(ours)} ± {half:.2g}", microseconds(cold["p99"])]
        cells.append([row["name"], *told, *(microseconds(_median(row, name)) for name in others)])
    return ("case", "robocache", "P99", *others), cells


def line(row: dict[str, Any], results: dict[str, Any]) -> str:
    """One row in one line, as it is measured."""
    header, cells = _table({**results, "cases": [row, *results["cases"]]})
    told = [f"{name} {cell}" for name, cell in zip(header[1:], cells[0][1:], strict=True) if cell != "-"]
    return f"{row['name']}: {', '.join(told)}"


def _host_rows(host: dict[str, Any]) -> list[list[str]]:
    names = list(host.get("no_grad", {}))
    return [
        [name]
        + [
            cell
            for mode in ("no_grad", "grad")
            for cell in (
                (microseconds(host[mode][name]["median"]), f"{host[mode][name]['of_clone']:.2f}x")
                if name in host.get(mode, {})
                else ("error", "-")
            )
        ]
        for name in names
    ]


HOST_HEADER = ("host cost of a call", "no_grad us", "of clone()", "grad us", "of clone()")


def _text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(str(line[i])) for line in (header, *rows)) for i in range(len(header))]
    lines = []
    for line in (header, *rows):
        cells = [str(line[0]).ljust(widths[0])]
        cells += [str(cell).rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join(["---"] + ["---:"] * (len(header) - 1)) + "|"]
    lines += ["| " + " | ".join(str(c) for c in row) + " |" for row in rows]
    return "\n".join(lines)


def machine_words(results: dict[str, Any]) -> str:
    facts = results["provenance"]
    if results["device"] == "cuda":
        return f"{facts['gpu']}, driver {facts['driver']}, CUDA {facts['cuda']}"
    return f"{facts['cpu']}, {facts['threads']} threads"


def _caption(results: dict[str, Any]) -> str:
    facts = results["provenance"]
    git = facts["git"]
    commit = (git["commit"] or "unknown")[:12] + (" (with uncommitted changes)" if git["dirty"] else "")
    if suite_of(results) == "dispatch":
        return (
            f"Geometric means of microseconds a call over sizes that tuning did not see; wall time, host tensors. "
            f"{_machine(results)}; {facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}. "
            f"Commit {commit}, {facts['date'][:10]}."
        )
    bandwidth = results["bandwidth"]["bytes_per_second"] / 1e9
    what = "device time by CUDA-graph replay over rotated inputs" if results["device"] == "cuda" else "wall time"
    if suite_of(results) == "graphs":
        what = "wall time, host and device together, outputs cloned unless said"
    if suite_of(results) == "store":
        what = "wall time of a call in a loop that is synchronised once"
    most = "up to " if results["plan"].get("budget_s") else ""
    return (
        f"Microseconds a call, median of {most}{results['plan']['repeats']} timings with the half width of its 95 % "
        f"confidence interval; {what}. {machine_words(results)}, torch {facts['torch']}; a large copy moves "
        f"{bandwidth:.0f} GB/s (read and written) in the same run. Commit {commit}, {facts['date'][:10]}."
    )


def _errors(results: dict[str, Any]) -> list[str]:
    lines = [f"{row['name']}: {name}: {words}" for row in results["cases"] for name, words in row["errors"].items()]
    host = results.get("host", {}).get("errors", {})
    return lines + [f"host: {name}: {words}" for name, words in host.items()]


def text_table(results: dict[str, Any]) -> str:
    """The compact table that a run prints last."""
    parts = [_caption(results)]
    if results["cases"]:
        parts.append(_text(*_table(results)))
    if "no_grad" in results.get("host", {}):
        parts.append(_text(HOST_HEADER, _host_rows(results["host"])))
    errors = _errors(results)
    if errors:
        parts.append("errors:\n" + "\n".join(errors))
    return "\n\n".join(parts)


def markdown(results: dict[str, Any]) -> str:
    """The same as Markdown, for README and docs."""
    parts = [_caption(results), markdown_table(*_table(results))]
    if "no_grad" in results.get("host", {}):
        parts.append(markdown_table(HOST_HEADER, _host_rows(results["host"])))
    return "\n\n".join(parts)


def replace_between_markers(text: str, suite: str, table: str) -> str:
    """`text` with `table` between the suite's markers; a missing or doubled marker is an error."""
    begin, end = markers(suite)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise SystemExit(f"expected one {begin} and, after it, one {end}")
    head, rest = text.split(begin)
    tail = rest.split(end)[1]
    return f"{head}{begin}\n{table}\n{end}{tail}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="results files; tables of one suite follow each other")
    parser.add_argument("--write", type=Path, help="file to put the tables into, between the markers")
    parser.add_argument("--check", action="store_true", help="with --write: change nothing, fail if it would change")
    options = parser.parse_args(argv)
    tables: dict[str, list[str]] = {}
    for path in options.results:
        results = json.loads(path.read_text())
        tables.setdefault(suite_of(results), []).append(markdown(results))
    if options.write is None:
        print("\n\n".join(table for suite in tables.values() for table in suite))
        return 0
    before = after = options.write.read_text()
    for suite, parts in tables.items():
        after = replace_between_markers(after, suite, "\n\n".join(parts))
    if options.check:
        if before != after:
            print(f"{options.write.name} does not say what {', '.join(p.name for p in options.results)} say")
        return int(before != after)
    options.write.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
