"""Puts the committed results into README.md and docs: `python -m benchmarks.evidence [--check]`.

- README.md shows a few headline rows of each suite and machine, between the markers of `headline`.
- A page of docs/ shows every row of each suite with results, between the suite's markers, and one, between those of
  `runs`, what test runs, sanitizers and soaks left.
- Numbers in running text are drawn, too: `<!-- n:KEY -->6.20<!-- /n -->` holds what KEY says. A key is
  `<machine>/<suite>/<case>#<what>`, where `what` is a statistic (`median`, `p99`, `warm.median`, `eager.median`),
  `ratio:eager` (that variant's median over ours), `share` (percent of the copy's bandwidth) or, with the case `host`,
  `<function>` (host microseconds without gradients) and, with the case `copy`, `GB/s`.

`--check` changes nothing and fails when a page would change. With and without it, it is an error when a number with a
unit in the text of the performance pages has no key, when a suite with results is on no page, when a page has markers
that nothing is drawn between, and when a committed file is no evidence: it is incomplete, names no commit or has too
few timings.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import report
from .bars import median, peer_medians
from .committed import RESULTS, audit, paths
from .provenance import ROOT
from .tables import SUITES, microseconds

# The rows that README shows of a suite, by a part of the name; of other suites the first rows with a time.
HEADLINES = {
    "align": ("resample-32x500x256-256-bf16", "resample-512x100x64-1000-fp32", "fuse-256-128-bf16"),
    "voxelize": (
        "occupancy-1x500k-128-u8",
        "count-1x500k-128-i32",
        "mean-1x1M-c16-200-fp32",
        "mean-1x200k-c16-100-fp32",
        "peract-16x65536-c7-100",
        "peract-2x65536-c7-100",
    ),
    "graphs": ("pipeline-8", "pipeline-8-rotating", "stream-new-shapes"),
    "store": ("store-4096x16-4",),
    "attention": (),
    "dispatch": (),
}
FIRST_ROWS = 3
NUMBER = re.compile(r"(<!-- n:(?P<key>[^>]*?) -->)(?P<told>[^<]*)(<!-- /n -->)")
MARKER = re.compile(r"<!-- bench:(\S+):(?:begin|end) -->")
UNITS = "|".join([
    r"[unmµμ]?s|[uµμ]sec|secs?|(?:micro|milli|nano)?seconds?|min|minutes?",
    r"x|×|times|fold|%|percent|per cent|percentage points?",
    r"(?:[kKMGT] )?\w+(?:/s(?:ec(?:ond)?)?| (?:a|per) second)",  # GiB/s, TFLOP/s, M points/s, samples a second
    r"[kKMGTP]?FLOPS",
])  # fmt: skip
_AMOUNT = r"(?<![\w.])\d[\d.,]*(?:e[+-]?\d+)?[kKMG]?"
_GAP = r"[*_]*(?:\s|&nbsp;|-)?[*_]*"  # between number and unit; either may be emphasised
_WORDS = "two|three|four|five|six|seven|eight|nine|ten|twenty|fifty|hundred|thousand"
BARE = re.compile(
    rf"{_AMOUNT}{_GAP}(?:{UNITS})(?!\w)"
    rf"|\b(?:twice|thrice|half|(?:{_WORDS})\stimes)\s(?:as\s(?:fast|slow|long|quick)|the\s(?:time|speed))\b"
    rf"|\b(?:{_WORDS})\stimes\s(?:faster|slower|quicker|longer|shorter)\b|\b(?:{_WORDS})[\s-]?fold\b",
    re.IGNORECASE,
)
# Numbers with units that are rules of the harness, not results.
RULES = ("95 % confidence interval", "95 % interval", "under 60 % of its")
OF_SOTA = {"performance.md": ("findings", "plots")}  # what sota.py draws between markers, by page


class NoResult(Exception):
    """A key that names no result."""


@dataclass(frozen=True)
class Results:
    """One committed file."""

    machine: str  # its folder
    suite: str
    content: dict[str, Any]


def load(folder: Path = RESULTS) -> list[Results]:
    """Every suite's results, GPUs first, whole runs only."""
    contents = ((path.parent.name, json.loads(path.read_text())) for path in paths(folder))
    return [Results(machine, report.suite_of(content), content) for machine, content in contents]


# ---- Numbers in running text -----------------------------------------------------------------------------------------


def number(key: str, results: Sequence[Results]) -> str:
    """What a key says, as it is printed."""
    found = re.fullmatch(r"([^/]+)/([^/]+)/([^#]+)#(.+)", key)
    if not found:
        raise NoResult(f"{key}: expected machine/suite/case#what")
    machine, suite, case, what = found.groups()
    file = next((one for one in results if (one.machine, one.suite) == (machine, suite)), None)
    if file is None:
        raise NoResult(f"{key}: no results of {suite} on {machine}")
    try:
        return _value(file.content, case, what)
    except (KeyError, TypeError):
        raise NoResult(f"{key}: the results hold no such number") from None


def _value(content: dict[str, Any], case: str, what: str) -> str:
    if case == "copy":
        return f"{content['bandwidth']['bytes_per_second'] / 1e9:.0f}"
    if case == "host":
        return microseconds(content["host"]["no_grad"][what]["median"])
    rows = {row["name"]: row for row in content["cases"]}
    row = rows[case]
    if what == "share":
        return f"{100 * row['share_of_bandwidth']:.0f}"
    variants = row["variants"]
    if what.startswith("ratio:"):
        peer = variants[what.removeprefix("ratio:")]["cold"]["median"]
        return f"{peer / variants['robocache']['cold']['median']:.2f}"
    *path, statistic = what.split(".")
    variant = next((part for part in path if part not in ("cold", "warm")), "robocache")
    cache = next((part for part in path if part in ("cold", "warm")), "cold")
    return microseconds(variants[variant][cache][statistic])


def fill_numbers(text: str, results: Sequence[Results]) -> str:
    """`text` with every keyed number as the results say it."""
    return NUMBER.sub(lambda m: f"{m[1]}{number(m['key'], results)}{m[4]}", text)


def bare_numbers(text: str, drawn: Collection[str] = ()) -> list[str]:
    """Numbers with a unit in running text that no result stands behind; code and what is `drawn`, the names of markers,
    are left out."""
    for name in drawn:
        begin, end = map(re.escape, report.markers(name))
        text = re.sub(f"{begin}.*?{end}", "", text, flags=re.DOTALL)
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = NUMBER.sub("", re.sub(r"`[^`]*`", "", text))
    for rule in RULES:
        text = text.replace(rule, "")
    return [match.group(0) for match in BARE.finditer(text)]


def performance_section(readme: str) -> str:
    """README's part on performance."""
    return readme.split("\n## Performance\n")[1].split("\n## ")[0]


# ---- Tables ----------------------------------------------------------------------------------------------------------


def headline_rows(one: Results) -> list[dict[str, Any]]:
    """The rows of a suite that README shows."""
    timed = [row for row in one.content["cases"] if median(row) is not None]
    wanted = HEADLINES.get(one.suite)
    if wanted is None:
        return timed[:FIRST_ROWS]
    return [row for row in timed if row["name"].removeprefix("cpu-") in wanted]


def _headline_cells(one: Results, row: dict[str, Any]) -> list[str]:
    ours = median(row) or 0.0
    timed = peer_medians(row)
    best = min(timed, key=lambda name: timed[name], default=None)
    share = row.get("share_of_bandwidth")
    return [
        one.suite,
        f"`{row['name']}`",
        microseconds(ours),
        microseconds(timed.get("eager")),
        "-" if best is None else f"{microseconds(timed[best])} ({best})",
        "-" if best is None else f"{timed[best] / ours:.2f}x",
        "-" if share is None else f"{share:.0%}",
    ]


def headline(results: Sequence[Results]) -> str:
    """README's table: for each machine its headline rows, best peer beside ours."""
    header = ("suite", "case", "robocache us", "eager us", "best peer us", "best peer / ours", "of bandwidth")
    parts = []
    for machine in dict.fromkeys(one.machine for one in results):
        files = [one for one in results if one.machine == machine]
        rows = [_headline_cells(one, row) for one in files for row in headline_rows(one)]
        facts = files[0].content["provenance"]
        parts.append(f"{report.machine_words(files[0].content)}, torch {facts['torch']}:")
        parts.append(report.markdown_table(header, rows))
    return "\n\n".join(parts)


def suite_tables(results: Sequence[Results]) -> dict[str, str]:
    """Each suite's whole tables, a section a machine."""
    tables: dict[str, list[str]] = {}
    for one in results:
        heading = f"### {one.suite} on {report.machine_words(one.content)}"
        tables.setdefault(one.suite, []).append(f"{heading}\n\n{report.markdown(one.content)}")
    return {suite: "\n\n".join(parts) for suite, parts in tables.items()}


def runs(folder: Path = RESULTS) -> str:
    """A table of the summaries that test runs, sanitizers, soaks and runs on several GPUs left beside the results."""
    rows = []
    for path in sorted(folder.glob("*/*.json")):
        content = json.loads(path.read_text())
        if "kind" in content and not path.stem.endswith("-partial"):
            facts = content["provenance"]
            commit = (facts["git"]["commit"] or "unknown")[:12] + ("+" if facts["git"]["dirty"] else "")
            rows.append([path.stem, path.parent.name, _run_words(content), facts["torch"], commit, facts["date"][:10]])
    return report.markdown_table(("run", "machine", "outcome", "torch", "commit", "date"), rows) if rows else ""


def _run_words(content: dict[str, Any]) -> str:
    """What a run came to; a failed one says so first, whatever it counted."""
    if content["kind"] == "tests":
        bad = content["failures"] + content["errors"]
        told = f"{content['tests']} tests, {bad} failed, {content['skipped']} skipped, {content['time']:.0f} s"
        return _failed(bad == 0 and content["exit_status"] == 0) + told
    if content["kind"] == "sanitize":
        return "; ".join(f"{name}: {_tool_words(one)}" for name, one in content["tools"].items()) or f"{FAILED}no tool"
    if content["kind"] == "training-ddp":
        rows = content["rows"].items()
        told = "; ".join(
            f"{kind} {feed}: {times:.3f} x one" for kind, row in rows for feed, times in row["times"].items()
        )
        return _failed(content["complete"]) + told
    rounds = sum(content["rounds"].values())
    flat = {True: "memory flat", False: "memory grew", None: "too short for memory"}[content["memory_flat"]]
    told = f"{rounds} rounds in {content['seconds']:.0f} s, {len(content['failures'])} failures, {flat}"
    return _failed(content["passed"]) + told


FAILED = "**FAILED**, "


def _failed(passed: bool) -> str:
    return "" if passed else FAILED


def _tool_words(one: dict[str, Any]) -> str:
    """A sanitizer's outcome. It fails, too, when a test failed under it, and when it told no count of errors."""
    errors = "no count of" if one["errors"] is None else one["errors"]
    return f"{_failed(one['passed'])}{one['tests_passed']} tests, {errors} errors"


# ---- Pages -----------------------------------------------------------------------------------------------------------


def draw(pages: dict[Path, str], results: Sequence[Results], summaries: str = "") -> tuple[dict[Path, str], list[str]]:
    """The pages as the results want them, and what is wrong with them that drawing cannot mend."""
    wrong: list[str] = []
    drawn = {path: _filled(path, text, results, wrong) for path, text in pages.items()}
    placed = {path: [*OF_SOTA.get(path.name, ())] for path in pages}

    def place(suite: str, table: str, where: Callable[[Path], bool]) -> None:
        holders = [path for path, text in drawn.items() if where(path) and report.markers(suite)[0] in text]
        if len(holders) != 1:
            wrong.append(f"{suite}: expected its markers on one page, found them on {len(holders)}")
        for path in holders[:1]:
            drawn[path] = report.replace_between_markers(drawn[path], suite, table)
            placed[path].append(suite)

    place("headline", headline(results), lambda path: path.name == "README.md")
    if summaries or any(report.markers("runs")[0] in text for text in drawn.values()):
        place("runs", summaries, lambda path: path.name != "README.md")
    tables = suite_tables(results)
    for suite, table in tables.items():
        place(suite, table, lambda path: path.name != "README.md")
    for suite in SUITES:  # a suite without results shows nothing
        if suite not in tables and any(report.markers(suite)[0] in text for text in drawn.values()):
            place(suite, "", lambda path: path.name != "README.md")
    for path, text in drawn.items():
        # What stands between other markers nobody draws, so nobody checks it.
        for name in dict.fromkeys(MARKER.findall(text)):
            if name not in placed[path]:
                known = ", ".join(placed[path]) or "none"
                wrong.append(f"{path.name}: {report.markers(name)[0]}: expected a marker that is drawn here ({known})")
        watched = performance_section(text) if path.name == "README.md" else text
        if path.name in ("README.md", "performance.md"):
            bare = bare_numbers(watched, placed[path])
            wrong += [f"{path.name}: {told!r} has no result: write it with a key" for told in bare]
    return drawn, wrong


def _filled(path: Path, text: str, results: Sequence[Results], wrong: list[str]) -> str:
    try:
        return fill_numbers(text, results)
    except NoResult as error:
        wrong.append(f"{path.name}: {error}")
        return text


def read_pages(root: Path = ROOT) -> dict[Path, str]:
    return {path: path.read_text() for path in (root / "README.md", *sorted((root / "docs").glob("*.md")))}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a page would change or is wrong")
    options = parser.parse_args(argv)
    pages = read_pages()
    drawn, wrong = draw(pages, load(), runs())
    wrong = audit() + wrong
    changed = [path for path in pages if pages[path] != drawn[path]]
    for words in wrong:
        print(words, file=sys.stderr)
    for path in changed:
        if options.check:
            print(f"{path.name} does not say what the results say; make report draws it", file=sys.stderr)
        else:
            path.write_text(drawn[path])
            print(f"drawn: {path.name}")
    return int(bool(wrong) or (options.check and bool(changed)))


if __name__ == "__main__":
    sys.exit(main())
