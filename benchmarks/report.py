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

from . import training_table
from .comparable import origins, suite_of
from .tables import microseconds, table_of


def markers(suite: str) -> tuple[str, str]:
    """What stands before and behind a suite's tables."""
    return f"<!-- bench:{suite}:begin -->", f"<!-- bench:{suite}:end -->"


def line(row: dict[str, Any], results: dict[str, Any]) -> str:
    """One row in one line, as it is measured."""
    if suite_of(results) == "training":
        return training_table.line(row, results["device"])
    header, cells = table_of(suite_of(results), {**results, "cases": [row, *results["cases"]]})
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


def _commits(results: dict[str, Any]) -> str:
    """The commit of a file and its date, and those of measurements that came into it later."""
    (commit, date), *later = origins(results)
    told = " and ".join(f"{one} of {day}" for one, day in later)
    return f"Commit {commit}, {date}" + (f"; some measurements of ours of commit {told}." if told else ".")


def caption(results: dict[str, Any]) -> str:
    facts = results["provenance"]
    commits = _commits(results)
    if suite_of(results) == "dispatch":
        return (
            f"Geometric means of microseconds a call over sizes that tuning did not see; wall time, host tensors. "
            f"{machine_words(results)}; {facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}. {commits}"
        )
    if suite_of(results) == "training":
        return (
            f"{training_table.caption()} {machine_words(results)}; {facts['cpu']}, {facts['cpu_count']} cores, "
            f"torch {facts['torch']}. {commits}"
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
        f"{bandwidth:.0f} GB/s (read and written) in the same run. {commits}"
    )


def _errors(results: dict[str, Any]) -> list[str]:
    lines = [f"{row['name']}: {name}: {words}" for row in results["cases"] for name, words in row["errors"].items()]
    host = results.get("host", {}).get("errors", {})
    return lines + [f"host: {name}: {words}" for name, words in host.items()]


def text_table(results: dict[str, Any]) -> str:
    """The compact table that a run prints last."""
    parts = [caption(results)]
    if results["cases"]:
        parts.append(_text(*table_of(suite_of(results), results)))
    if "no_grad" in results.get("host", {}):
        parts.append(_text(HOST_HEADER, _host_rows(results["host"])))
    errors = _errors(results)
    if errors:
        parts.append("errors:\n" + "\n".join(errors))
    return "\n\n".join(parts)


def markdown(results: dict[str, Any]) -> str:
    """The same as Markdown, for README and docs."""
    parts = [caption(results), markdown_table(*table_of(suite_of(results), results))]
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
