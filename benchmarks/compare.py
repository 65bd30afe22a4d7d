"""The ratchet: `python -m benchmarks.compare BASE NEW [--markdown FILE] [--tighten [--out FILE]] [--anyway]`.

BASE and NEW are results files of one suite, or folders with one file a suite. Exit status 0: nothing got slower;
1: a case is slower than its baseline beyond noise (verdicts.py says what that means), missing or in error; 2: the files
cannot be compared (other machine, other suite or device, another schema, unreadable); `--anyway` compares results of
different machines or plans all the same. `--tighten` takes rows that got faster beyond noise into the baseline, each
with the provenance of its run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .verdicts import MEDIAN_LIMIT, P99_LIMIT, Ratio, Verdict, compare_results, measurements

SCHEMAS = (1,)  # that this code reads


class Incomparable(Exception):
    """Why two files cannot be compared."""


# ---- Reading ---------------------------------------------------------------------------------------------------------


def read(path: Path) -> dict[str, Any]:
    """A results file; Incomparable where it is none, or of a schema that is not known here."""
    try:
        results: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Incomparable(f"{path.name}: not a results file: {error}") from None
    if not isinstance(results, dict) or results.get("schema") not in SCHEMAS:
        found = results.get("schema") if isinstance(results, dict) else type(results).__name__
        raise Incomparable(f"{path.name}: expected schema {' or '.join(map(str, SCHEMAS))}, got {found}")
    for key in ("device", "cases", "provenance", "plan"):
        if key not in results:
            raise Incomparable(f"{path.name}: holds no {key!r}")
    return results


def machine(results: dict[str, Any]) -> str:
    """What must be equal for times to be comparable: the GPU, or the CPU and the threads used."""
    facts = results["provenance"]
    if results["device"] == "cuda":
        return str(facts["gpu"])
    return f"{facts['cpu']}, {facts['threads']} threads"


def check_comparable(base: dict[str, Any], new: dict[str, Any], anyway: bool) -> None:
    """Incomparable unless both are of one suite and device and, without `anyway`, of one machine and plan."""
    for name, of in (("suite", lambda r: r.get("suite", "align")), ("device", lambda r: r["device"])):
        if of(base) != of(new):
            raise Incomparable(f"{name}: the baseline is of {of(base)}, the new results of {of(new)}")
    if anyway:
        return
    if machine(base) != machine(new):
        raise Incomparable(f"machine: the baseline is of {machine(base)}, the new results of {machine(new)}")
    for key in ("rotate_bytes", "max_sets", "tiny"):
        if base["plan"].get(key) != new["plan"].get(key):
            raise Incomparable(f"plan: {key} is {base['plan'].get(key)} in the baseline, {new['plan'].get(key)} now")


def pairs(base: Path, new: Path) -> list[tuple[Path, Path]]:
    """The files to compare: two files, or each suite's file of two folders. A suite that is gone is an error."""
    if base.is_dir() != new.is_dir():
        raise Incomparable("expected two files or two folders")
    if not base.is_dir():
        return [(base, new)]
    names = sorted(path.name for path in base.glob("*.json") if is_results(path))
    if not names:
        raise Incomparable(f"{base.name}: no results files in it")
    gone = [name for name in names if not (new / name).exists()]
    if gone:
        raise Incomparable(f"{new.name}: no {', '.join(gone)} in it")
    return [(base / name, new / name) for name in names]


def is_results(path: Path) -> bool:
    """True for a harness's results, not for the summaries of test runs that lie beside them, nor for the suite
    dispatch: its rows hold no intervals, and its table says itself whether its bars are held."""
    try:
        content = json.loads(path.read_text())
        return "cases" in content and content.get("suite") != "dispatch"
    except (OSError, ValueError):
        return True  # read() says what is wrong


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
    facts = results["provenance"]
    git = facts["git"]
    dirty = " with uncommitted changes" if git["dirty"] else ""
    return f"{(git['commit'] or 'unknown')[:12]}{dirty}, torch {facts['torch']}, {facts['date'][:10]}"


def markdown(base: dict[str, Any], new: dict[str, Any], verdicts: Sequence[Verdict]) -> str:
    """A report for a pull request: what lost first, then what gained or is new, the rest folded."""
    lost = [one for one in verdicts if one.lost]
    told = [one for one in verdicts if one.verdict in ("faster", "noise", "new")]
    rest = [one for one in verdicts if one.verdict == "same"]
    head = f"{len(lost)} of {len(verdicts)} measurements lost" if lost else f"{len(verdicts)} measurements, none lost"
    parts = [f"### {new.get('suite', 'align')} on {machine(new)}: {head}"]
    if machine(base) != machine(new):
        parts.append(f"The baseline is of another machine: {machine(base)}.")
    parts.append(
        f"Base {_from(base)}; new {_from(new)}. Lost means: over {MEDIAN_LIMIT:.2f} x the base's median or "
        f"{P99_LIMIT:.2f} x its P99 with the whole 95 % interval of the ratio, missing, or in error."
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
    return "\n".join([*lines, ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing to compare"])


# ---- Tightening ------------------------------------------------------------------------------------------------------


def tightened(base: dict[str, Any], new: dict[str, Any], verdicts: Sequence[Verdict]) -> tuple[dict[str, Any], int]:
    """The baseline with the rows that are new or got faster, none of whose measurements lost, and how many those are.

    Every row then says where it came from: row["provenance"] is that of its own run.
    """
    lost = {one.case for one in verdicts if one.lost}
    better = {one.case for one in verdicts if one.verdict in ("faster", "new")} - lost
    rows = {row["name"]: _with_provenance(row, base) for row in base["cases"]}
    for row in new["cases"]:
        if row["name"] in better and any(True for _ in measurements(row)):
            rows[row["name"]] = _with_provenance(row, new)
    return {**base, "cases": list(rows.values())}, len(better)


def _with_provenance(row: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    return row if "provenance" in row else {**row, "provenance": results["provenance"]}


# ---- The command -----------------------------------------------------------------------------------------------------


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("base", type=Path, help="the baseline: a results file, or a folder of them")
    parser.add_argument("new", type=Path, help="the new results: a file, or a folder")
    parser.add_argument("--markdown", type=Path, help="also write a report for a pull request to this file")
    parser.add_argument("--anyway", action="store_true", help="compare different machines or plans")
    parser.add_argument("--tighten", action="store_true", help="take better rows into the baseline, if nothing lost")
    parser.add_argument("--out", type=Path, help="with --tighten: the merged baseline goes here instead (one suite)")
    options = parser.parse_args(argv)
    if options.out and not options.tighten:
        parser.error("--out: expected --tighten beside it")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    reports, lost, merged = [], False, []
    try:
        for base_path, new_path in pairs(options.base, options.new):
            base, new = read(base_path), read(new_path)
            check_comparable(base, new, options.anyway)
            verdicts = compare_results(base, new)
            print(f"{base.get('suite', 'align')}:\n{text(verdicts)}")
            reports.append(markdown(base, new, verdicts))
            lost = lost or any(one.lost for one in verdicts)
            merged.append((base_path, *tightened(base, new, verdicts)))
        if options.out and len(merged) > 1:
            raise Incomparable("--out: expected results of one suite")
    except Incomparable as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text("\n".join(reports))
    if options.tighten and not lost:
        for path, results, count in merged:
            target = options.out or path
            if count or options.out:
                target.write_text(json.dumps(results, indent=1) + "\n")
            print(f"{target.name}: {count} rows tightened")
    return int(lost)


if __name__ == "__main__":
    sys.exit(main())
