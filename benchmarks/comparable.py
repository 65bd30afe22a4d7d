"""Which results files the ratchet lays beside each other, and whether they can be compared."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from .verdicts import Incomparable

SCHEMAS = (1,)  # that this code reads
NO_EVIDENCE = ("-quick", "-partial")  # endings of files that are no whole run
HOST_BOUND = ("store", "graphs", "training")  # suites whose times on a GPU are the host's, too
UNJUDGED = ("dispatch",)  # suites that measure choices, not times with intervals


def suite_of(results: dict[str, Any]) -> str:
    """Results that say no suite are of the first."""
    name: str = results.get("suite", "align")
    return name


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
    for key, kind in (("device", str), ("cases", list), ("provenance", dict), ("plan", dict)):
        if not isinstance(results.get(key), kind):
            raise Incomparable(f"{path.name}: holds no {key!r}")
    _check_names(path, results["cases"])
    return results


def _check_names(path: Path, rows: Sequence[Any]) -> None:
    seen: set[str] = set()
    for row in rows:
        name = row.get("name") if isinstance(row, dict) else None
        if not isinstance(name, str):
            raise Incomparable(f"{path.name}: expected a name in every case, got {str(row)[:60]}")
        if name in seen:
            raise Incomparable(f"{path.name}: holds case {name} more than once")
        seen.add(name)


def is_results(path: Path) -> bool:
    """True for results of a whole run that can be judged, not for the summaries of test runs that lie beside them."""
    if path.stem.endswith(NO_EVIDENCE):
        return False
    try:
        content = json.loads(path.read_text())
        return "cases" in content and content.get("suite") not in UNJUDGED
    except (OSError, ValueError):
        return True  # read() says what is wrong


# ---- What was measured -----------------------------------------------------------------------------------------------


def _asked(results: dict[str, Any]) -> argparse.Namespace:
    """What the arguments of a run chose; the options are those of `python -m benchmarks`."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    for name in ("--cases", "--filter"):
        parser.add_argument(name)
    parser.add_argument("--suite", action="append")
    for name in ("--no-host", "--host-only"):
        parser.add_argument(name, action="store_true")
    try:
        return parser.parse_known_args([str(one) for one in results["provenance"].get("arguments") or ()])[0]
    except argparse.ArgumentError as error:
        raise Incomparable(f"provenance: its arguments cannot be read: {error}") from None


def asked_for(base: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The part of a baseline that the arguments of the new results chose: cases by name, and the host's costs."""
    asked = _asked(new)
    patterns = asked.cases.split(",") if asked.cases else ["*"]
    kept = [
        row
        for row in base["cases"]
        if not asked.host_only
        and (asked.filter or "") in row["name"]
        and any(fnmatch(row["name"], pattern.strip()) for pattern in patterns)
    ]
    part = {**base, "cases": kept}
    if asked.no_host or asked.cases or asked.filter:
        part.pop("host", None)
    return part


def _suites_asked(paths: Sequence[Path]) -> set[str] | None:
    """The suites that the runs of these files chose; None: all. What cannot be read is told where it is compared."""
    asked: set[str] = set()
    for path in paths:
        try:
            chosen = _asked(read(path)).suite
        except Incomparable:
            continue
        if chosen is None:
            return None
        asked.update(chosen)
    return asked or None


# ---- Pairs of files --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A suite's files. `base` is None where there is no baseline of the suite; `why` says why it cannot be compared."""

    name: str
    base: Path | None
    new: Path | None
    why: str = ""


def pairs(base: Path, new: Path, partial: bool = False) -> list[Pair]:
    """The files to compare: two files, each suite's of two folders, or those of two folders of machines' folders.

    Args:
        base, new: the baseline and the new results.
        partial: a suite that the arguments of the new results did not choose is left out; without it, it is missing.
    """
    if not new.exists():
        raise Incomparable(f"{new.name}: no new results: the run that measures wrote none")
    if not new.is_dir():
        if base.is_dir():
            raise Incomparable(f"expected two files or two folders, got the folder {base.name} and the file {new.name}")
        return [Pair(new.stem, base, new)]
    if base.is_file():
        raise Incomparable(f"expected two files or two folders, got the file {base.name} and the folder {new.name}")
    machines = sorted(path for path in new.iterdir() if path.is_dir())
    if any(new.glob("*.json")) or not machines:
        return _folder_pairs(base, new, partial)
    return [pair for machine in machines for pair in _folder_pairs(base / machine.name, machine, partial)]


def _folder_pairs(base: Path, new: Path, partial: bool) -> list[Pair]:
    known, found = ({path.name: path for path in _results(folder)} for folder in (base, new))
    if not known:
        told = "/".join(base.parts[-3:]) if not base.is_absolute() else base.name
        why = (
            f"no baseline for this machine: looked for results in the folder {told}. To make one, measure on a quiet "
            f"machine from a commit without changes (`make bench-gpu`; on the CPU `make bench`) and commit that folder"
        )
        return [Pair(base.name, None, None, why)]
    if not found:
        return [Pair(new.name, None, None, f"{new.name}: no new results in it: the run that measures wrote none")]
    asked = _suites_asked(list(found.values())) if partial else None
    made = []
    for name in sorted(known.keys() | found.keys()):
        stem = Path(name).stem
        if name in found:
            made.append(Pair(stem, known.get(name), found[name]))
        elif asked is None or suite_of(read(known[name])) in asked:
            made.append(Pair(stem, None, None, f"{new.name}: no {name} in it: the suite was not measured"))
    return made


def _results(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("*.json") if is_results(path))


# ---- Machines and plans ----------------------------------------------------------------------------------------------


def host(results: dict[str, Any]) -> str:
    """The processor that measured."""
    facts = results["provenance"]
    return f"{facts.get('cpu')}, {facts.get('cpu_count')} cores"


def machine(results: dict[str, Any]) -> str:
    """What must be equal for times to be comparable: the GPU; of suites that wait for the host, its processor too; on
    the CPU the processor and the threads used."""
    facts = results["provenance"]
    if results["device"] != "cuda":
        return f"{host(results)}, {facts.get('threads')} threads"
    return f"{facts.get('gpu')}, {host(results)}" if suite_of(results) in HOST_BOUND else str(facts.get("gpu"))


def check_comparable(base: dict[str, Any], new: dict[str, Any], anyway: bool) -> None:
    """Incomparable unless both are of one suite and device and, without `anyway`, of one machine and plan."""
    for name, of in (("suite", suite_of), ("device", lambda r: r["device"])):
        if of(base) != of(new):
            raise Incomparable(f"{name}: the baseline is of {of(base)}, the new results of {of(new)}")
    if suite_of(new) in UNJUDGED:
        raise Incomparable(f"{suite_of(new)}: its rows hold no intervals; its own table says whether its bars are held")
    if anyway:
        return
    if machine(base) != machine(new):
        raise Incomparable(f"machine: the baseline is of {machine(base)}, the new results of {machine(new)}")
    before, now = base["plan"], new["plan"]
    for key in ("rotate_bytes", "max_sets", "tiny", "quick", "freed_memory"):
        if before.get(key) != now.get(key):
            raise Incomparable(f"plan: {key} is {before.get(key)} in the baseline, {now.get(key)} now")
    if (now.get("repeats") or 0) < (before.get("repeats") or 0):  # wide intervals would let losses through
        raise Incomparable(f"plan: repeats is {before.get('repeats')} in the baseline, only {now.get('repeats')} now")


# ---- Where results are from ------------------------------------------------------------------------------------------


def origin(facts: dict[str, Any]) -> tuple[str, str]:
    """Commit and date of a provenance, as they are shown."""
    git = facts.get("git") or {}
    changed = " (with uncommitted changes)" if git.get("dirty") else ""
    return (git.get("commit") or "unknown")[:12] + changed, str(facts.get("date"))[:10]


def origins(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Commit and date of each run that a file's measurements are from, the file's own first. A row or a measurement
    that came later holds the provenance of its own run."""
    found = [results["provenance"]]
    for row in results["cases"]:
        variants = (row.get("variants") or {}).values()
        stored = (one for variant in variants if isinstance(variant, dict) for one in variant.values())
        found += [one["provenance"] for one in (row, *stored) if isinstance(one, dict) and "provenance" in one]
    return list(dict.fromkeys(map(origin, found)))
