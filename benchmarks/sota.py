"""The side-by-side report: `python -m benchmarks.sota [--machine FOLDER ...] [--out docs/plots] [--check]`.

Reads the committed results and writes, all from them alone: the plots and their index into docs/plots/, the page
docs/comparison.md, and into docs/performance.md, between their markers, the plots' links and the list of rows that are
not the fastest or stay under 60 % of their bound. Exit status 1 where a row of that list has no reason, or, with
`--check`, where a page, a plot or the index does not say what the results say or a results file is no evidence: it is
incomplete, names no commit or has too few timings.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import report
from .bars import median, peer_medians
from .committed import RESULTS, flaws, paths
from .findings import NOT_COMPARED, Finding, comparable, fastest_peer, findings, missing, reasons_of, stale
from .peer_set import AUTOTUNE
from .plots import digest, draw, planned
from .provenance import ROOT
from .reasons import REASONS, Reason
from .report import caption, machine_words, suite_of
from .tables import microseconds

PLOTS = ROOT / "docs" / "plots"
PAGE = ROOT / "docs" / "comparison.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
INDEX = "index.json"


def load(files: Sequence[Path]) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in files]


def plots(results: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """File names, relative to docs/plots/, and captions of the plots that results give. Nothing is drawn."""
    return [(plot.file, plot.caption) for one in results for plot in planned(one)]


def plots_markdown(results: Sequence[dict[str, Any]]) -> str:
    """The plots as images, for a page in docs/."""
    return "\n\n".join(f"![{caption}](plots/{file})" for file, caption in plots(results))


# ---- Rows that are not the fastest or far under their bound --------------------------------------------------------


def all_findings(results: Sequence[dict[str, Any]]) -> list[Finding]:
    return [finding for one in results for finding in findings(one)]


def _why(finding: Finding, reasons: Sequence[Reason]) -> str:
    lacking = {"slower": "**No reason is given why it is slower.**", "bound": "**No reason is given for its bound.**"}
    told = [text or lacking[about] for about, text in reasons_of(finding, reasons).items()]
    return " ".join(dict.fromkeys(told))


def findings_markdown(results: Sequence[dict[str, Any]], reasons: Sequence[Reason] = REASONS) -> str:
    """A table a results file of the rows that are not the fastest or under their bound, with the reasons."""
    parts = []
    for one in results:
        if suite_of(one) in NOT_COMPARED:
            continue
        rows = [[f"`{f.case}`", f.words(), _why(f, reasons)] for f in findings(one)]
        title = f"**{suite_of(one)}**, {machine_words(one)}"
        compared = sum(1 for row in one["cases"] if comparable(row))
        if not compared:
            continue
        if not rows:
            parts.append(f"{title}: none of {compared} rows.")
            continue
        table = ["| case | how far | why |", "|---|---|---|", *("| " + " | ".join(row) + " |" for row in rows)]
        parts.append(f"{title}: {len(rows)} of {compared} rows.\n\n" + "\n".join(table))
    return "\n\n".join(parts)


# ---- The page ------------------------------------------------------------------------------------------------------


def _peer_names(results: dict[str, Any]) -> list[str]:
    """Peers that some row has, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in results["cases"] if comparable(row) for name in peer_medians(row)))


def _short(name: str) -> str:
    return {f"compile-{AUTOTUNE}": "max-autotune"}.get(name, name)


def ratio_table(results: dict[str, Any]) -> str:
    """Ours in microseconds, each peer's time over ours, and who is fastest."""
    names = _peer_names(results)
    header = ["case", "robocache us", *map(_short, names), "fastest"]
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(names) + 1) + "---|"]
    for row in results["cases"]:
        ours = median(row) if comparable(row) else None
        if ours is None:
            word = "error" if row.get("errors") else "-"
            lines.append("| " + " | ".join([row["name"], word, *["-"] * (len(names) + 1)]) + " |")
            continue
        peers, best = peer_medians(row), fastest_peer(row)
        ratios = [f"{peers[name] / ours:.2f}x" if name in peers else "-" for name in names]
        winner = "-" if best is None else "robocache" if best[1] >= 1 else _short(best[0])
        lines.append("| " + " | ".join([row["name"], microseconds(ours), *ratios, winner]) + " |")
    return "\n".join(lines)


def absent_list(results: dict[str, Any]) -> str:
    """Why peers are absent, a line a reason; rows past the third of a line are counted."""
    rows: dict[tuple[str, str], list[str]] = {}
    for row in results["cases"]:
        for name, reason in row.get("absent", {}).items():
            rows.setdefault((name, reason), []).append(row["name"])
    lines = []
    for (name, reason), cases in rows.items():
        told = ", ".join(f"`{case}`" for case in cases[:3]) + (f" and {len(cases) - 3} more" if len(cases) > 3 else "")
        lines.append(f"- *{name}*: {reason} ({told})")
    return "\n".join(lines)


def summary(results: dict[str, Any]) -> str:
    """In one sentence: of how many rows, how many robocache is the fastest in, and against which peers."""
    best = [one for row in results["cases"] if comparable(row) and (one := fastest_peer(row)) is not None]
    won = sum(1 for _, ratio in best if ratio >= 1)
    return f"RoboCache is the fastest in {won} of the {len(best)} rows that have a peer."


def first_calls(results: dict[str, Any]) -> str:
    """What the first calls of peers that are compiled or tuned took, over all rows."""
    seconds: dict[str, list[float]] = {}
    for row in results["cases"]:
        for name, variant in row.get("variants", {}).items():
            if name.startswith(("compile", "triton", "cupy")) and "first_call_s" in variant:
                seconds.setdefault(name, []).append(variant["first_call_s"])
    told = [f"{_short(name)} {sum(each):.0f} s over {len(each)} rows" for name, each in seconds.items()]
    return f"First calls, compilation and tuning included: {', '.join(told)}." if told else ""


def _measured(results: dict[str, Any]) -> str:
    """How and where it was measured; of suites that say it in their own way, where."""
    if "bandwidth" in results and "repeats" in results.get("plan", {}):
        return caption(results)
    facts = results["provenance"]
    return f"{machine_words(results)}, torch {facts['torch']}, {facts['date'][:10]}."


def section(results: dict[str, Any]) -> str:
    """One results file's part of the page."""
    suite = suite_of(results)
    parts = [f"## {suite}, {machine_words(results)}"]
    if suite in NOT_COMPARED:
        parts.append(report.markdown({**results, "host": {}}))
    elif not any(comparable(row) for row in results["cases"]):
        parts += [_measured(results), "Its rows are no comparison with peers; the results file holds them."]
    else:
        parts += [_measured(results), summary(results), ratio_table(results), first_calls(results)]
    absent = absent_list(results)
    if absent:
        parts.append("Not timed:\n\n" + absent)
    images = plots_markdown([results])
    return "\n\n".join(part for part in [*parts, images] if part)


def page(results: Sequence[dict[str, Any]], reasons: Sequence[Reason] = REASONS, whole: bool = True) -> str:
    """The whole of docs/comparison.md; of a part of the results no reason is called stale."""
    gone = stale(all_findings(results), reasons) if whole else []
    parts = [
        "# Side by side",
        "Drawn by `python -m benchmarks.sota` from [benchmarks/results](../benchmarks/results); a test fails when this "
        "page differs from them. How it is measured, and what the peers compute, stands in "
        "[performance.md](performance.md). A peer's column is its time over RoboCache's: above 1, RoboCache is faster. "
        "A dash: the peer was not timed in that row; where the results say why, it stands under the table.",
        *(section(one) for one in results),
        "## Where it is not the fastest, or under 60 % of its bound",
        "The bound is the bandwidth that a large copy reaches in the same run; CPU rows, whose inputs lie in caches, "
        "have none.",
        findings_markdown(results, reasons),
    ]
    if gone:
        lines = "\n".join(f"- {reason.suite}, {reason.device}, {reason.about}: `{pattern}`" for reason, pattern in gone)
        parts.append("Reasons that speak of no such row any more:\n\n" + lines)
    return "\n\n".join(part for part in parts if part) + "\n"


# ---- Index, writing and checking -----------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def index(files: Sequence[Path], results: Sequence[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """What index.json says of the plots in `folder`: the SHA-256 of each, and of each results file behind them.

    A plot is not drawn again to be checked, since another version of matplotlib draws other bytes: its SHA-256 tells
    whether it is still the file that was drawn.
    """
    return {
        "results": {f"{path.parent.name}/{path.name}": sha256(path) for path in files},
        "plots": [
            {"file": file, "caption": caption, "sha256": sha256(folder / file) if (folder / file).is_file() else None}
            for file, caption in plots(results)
        ],
    }


def _known_plots(told: dict[str, Any]) -> dict[str, str | None]:
    """The SHA-256 that an index holds of each plot."""
    return {plot["file"]: plot.get("sha256") for plot in told.get("plots", ())}


def _without_plots_content(told: dict[str, Any]) -> dict[str, Any]:
    kept = [{key: value for key, value in plot.items() if key != "sha256"} for plot in told.get("plots", ())]
    return {**told, "plots": kept}


def _performance(text: str, results: Sequence[dict[str, Any]]) -> str:
    text = report.replace_between_markers(text, "findings", findings_markdown(results))
    return report.replace_between_markers(text, "plots", plots_markdown(results))


def check(files: Sequence[Path], results: Sequence[dict[str, Any]], folder: Path) -> list[str]:
    """Results that are no evidence, and what does not say what the results say."""
    wrong = [words for path, one in zip(files, results, strict=True) for words in flaws(path, one)]
    kept = json.loads((folder / INDEX).read_text()) if (folder / INDEX).is_file() else {}
    wanted = index(files, results, folder)
    if _without_plots_content(kept) != _without_plots_content(wanted):
        wrong.append(f"{folder.name}/{INDEX} is not of these results")
    drawn, present = _known_plots(kept), _known_plots(wanted)
    names = {plot.file: digest(one) for one in results for plot in planned(one)}
    for name, told in sorted(names.items()):
        if present[name] is None:
            wrong.append(f"{folder.name}/{name} is missing")
        elif told not in (folder / name).read_text():
            wrong.append(f"{folder.name}/{name} was drawn from other results")
        elif present[name] != drawn.get(name):
            told_sha = drawn.get(name) or "none"
            wrong.append(f"{folder.name}/{name} is not as drawn: SHA-256 {present[name]}, {INDEX} holds {told_sha}")
    wrong += [f"{folder.name}/{p.name} is of no results" for p in sorted(folder.glob("*.svg")) if p.name not in names]
    if not PAGE.is_file() or PAGE.read_text() != page(results):
        wrong.append(f"{PAGE.name} differs from the results")
    if _performance(PERFORMANCE.read_text(), results) != PERFORMANCE.read_text():
        wrong.append(f"{PERFORMANCE.name} differs from the results")
    return wrong


def write(files: Sequence[Path], results: Sequence[dict[str, Any]], folder: Path) -> None:
    """Draws the plots, drops those of results that are gone, and writes index and pages."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {file for file, _ in plots(results)}
    for path in folder.glob("*.svg"):
        if path.name not in names:
            path.unlink()
    draw(results, folder)
    (folder / INDEX).write_text(json.dumps(index(files, results, folder), indent=1) + "\n")
    PAGE.write_text(page(results))
    PERFORMANCE.write_text(_performance(PERFORMANCE.read_text(), results))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sota", description=__doc__)
    parser.add_argument("--machine", action="append", help="a folder of benchmarks/results; prints its part and stops")
    parser.add_argument("--out", type=Path, default=PLOTS, help="folder of the plots (default docs/plots)")
    parser.add_argument("--check", action="store_true", help="change nothing, fail if something would change")
    options = parser.parse_args(argv)
    files = paths(RESULTS, options.machine or ())
    if not files:
        raise SystemExit(f"no results of {', '.join(options.machine or ['any machine'])} in {RESULTS.name}")
    results = load(files)
    found = all_findings(results)
    if options.machine:
        print(page(results, whole=False))
        draw(results, options.out)
    elif options.check:
        for words in (wrong := check(files, results, options.out)):
            print(words, file=sys.stderr)
        if wrong:
            return 1
    else:
        write(files, results, options.out)
    if not options.machine:
        for reason, pattern in stale(found):
            print(f"stale reason: {reason.suite}, {reason.device}, {reason.about}: {pattern}", file=sys.stderr)
    lacking = missing(found)
    for finding in lacking:
        where = f"{finding.machine}, {finding.suite}, {finding.case}"
        print(f"no reason in benchmarks/reasons.py: {where}: {finding.words()}", file=sys.stderr)
    return int(bool(lacking))


if __name__ == "__main__":
    sys.exit(main())
