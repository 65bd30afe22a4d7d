"""`python -m benchmarks --device cuda|cpu [--suite NAME] [--filter part] [--quick] [--ours-only] ...`.

Writes one JSON file a suite, with provenance, under benchmarks/results/<machine>/, prints a line a case and a table
last. A case that fails is recorded as an error, the others still run, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import (
    align,
    attention,
    attention_cases,
    cases,
    dispatch,
    graphs,
    measure,
    memory,
    provenance,
    store,
    timing,
    training,
    voxel_cases,
    voxelize,
)
from .host import FUNCTIONS, run_host
from .report import line, text_table
from .tables import SUITES

SCHEMA = 1
_SELECT: dict[str, Callable[..., list[Any]]] = {
    "align": cases.select,
    "voxelize": voxel_cases.select,
    "graphs": graphs.select,
    "store": store.select,
    "attention": attention_cases.select,
    "training": training.select,
}
_RUN: dict[str, Callable[..., dict[str, Any]]] = {
    "align": align.run_case,
    "voxelize": voxelize.run_case,
    "graphs": graphs.run_case,
    "store": store.run_case,
    "attention": attention.run_case,
    "training": training.run_case,
}
_TINY = (2, 2000, 16)  # samples, points and cells an axis of a quick voxelize row


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--suite", choices=SUITES, action="append", help="what to measure (default: all suites)")
    parser.add_argument("--cases", help="comma-separated patterns of case names")
    parser.add_argument("--filter", help="a part of case names; only those are measured")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="few repeats, no compiled peers; align: the published rows; voxelize: every row of either device, tiny; "
        "store: one row; attention: short sequences; training: small everything",
    )
    parser.add_argument("--ours-only", action="store_true", help="no peers")
    parser.add_argument("--repeats", type=int, help="timings a variant (default 100; quick 20)")
    parser.add_argument(
        "--max-autotune", action="store_true", help="autotune every compiled peer, not only those of published rows"
    )
    parser.add_argument("--compile-all", action="store_true", help="compiled peers for every case")
    parser.add_argument("--no-host", action="store_true", help="leave out the host cost")
    parser.add_argument("--host-only", action="store_true", help="only the host cost")
    parser.add_argument("--check", choices=("reference", "peer"), default="reference", help="what ours is checked with")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and stop")
    parser.add_argument("--out", type=Path, help="results file (default benchmarks/results/<machine>/<suite>*.json)")
    parser.add_argument("--results", type=Path, help="write under this folder instead of benchmarks/results")
    options = parser.parse_args(arguments)
    options.suite = options.suite or list(SUITES)
    return options


def make_plan(options: argparse.Namespace, suite: str) -> measure.Plan:
    repeats = options.repeats or (20 if options.quick else 100)
    modes = () if options.quick else ("default",)
    if options.max_autotune:
        modes = (*modes, "max-autotune-no-cudagraphs")
    small = options.device == "cpu"
    # Only a quick run cuts slow calls short; of a full one, only peers on the CPU that bring a budget of their own.
    budget = 0.02 if options.quick and suite != "align" else None
    return measure.Plan(
        device=options.device,
        repeats=repeats,
        ours_only=options.ours_only,
        compile_modes=modes,
        compile_all=options.compile_all,
        rotate_bytes=(64 << 20) if small else (256 << 20),
        max_sets=3 if options.quick and suite == "voxelize" else 16 if small else 256,
        warm=not options.quick,
        check=options.check,
        budget_s=budget,
    )


def default_path(options: argparse.Namespace, suite: str) -> Path:
    whole = options.repeats is None and options.check == "reference" and not options.no_host
    partial = options.cases or options.filter or options.ours_only or options.host_only or not whole
    part = "" if options.results else "-quick" if options.quick else "-partial" if partial else ""
    folder = options.results or provenance.ROOT / "benchmarks" / "results"
    return Path(folder) / provenance.machine_slug(options.device) / f"{suite}{part}.json"


def select(options: argparse.Namespace, suite: str) -> list[Any]:
    """A suite's cases; an empty list where nothing matches."""
    if options.host_only:
        return []
    if suite == "graphs":
        return [case for case in _SELECT[suite](options.device, options.cases) if (options.filter or "") in case.name]
    if suite == "dispatch":  # its sizes are drawn, and it takes part where it can and nobody asks for other cases
        whole = options.device == "cuda" and not (options.cases or options.filter or options.ours_only)
        return ["sizes"] if whole else []
    tiny = options.quick and suite == "voxelize"
    chosen = _SELECT[suite](options.device, options.cases)
    if tiny and not options.cases:
        chosen = list(voxel_cases.CASES)
    if options.quick and suite == "attention":
        chosen = [case for case in chosen if case.seq <= 256]
    elif options.quick and not options.cases and not tiny:
        chosen = [case for case in chosen if "numbers" in case.tags and "int64" not in case.tags]
    if options.quick and suite == "training":
        chosen = [case.quick() for case in chosen]
    if options.filter:
        chosen = [case for case in chosen if options.filter in case.name]
    return [case.scaled(*_TINY) for case in chosen] if tiny else chosen


def run_dispatch(options: argparse.Namespace, argv: list[str]) -> tuple[dict[str, Any], bool]:
    """The results of the dispatch suite, which measures choices and not kernels, and whether everything ran."""
    begin = time.monotonic()
    sizes, budget_s = (6, 0.02) if options.quick else (dispatch.LEAST_SIZES, 0.06)
    results: dict[str, Any] = {"schema": SCHEMA, "suite": "dispatch", "device": options.device}
    results["provenance"] = provenance.provenance(options.device, argv)
    results["plan"] = {"sizes": sizes, "budget_s": budget_s, "worst": dispatch.WORST}
    results |= provenance.without_paths(
        dispatch.run_suite(
            sizes,
            budget_s,
            lambda text: print(f"[{time.monotonic() - begin:6.1f} s] {text}", file=sys.stderr, flush=True),
        )
    )
    results["provenance"]["clocks_after"] = provenance.clocks()
    results["seconds"] = round(time.monotonic() - begin, 1)
    results["complete"] = not any(row["errors"] for row in results["cases"])
    return results, results["complete"]


def save(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


def run(
    options: argparse.Namespace,
    argv: list[str],
    suite: str,
    chosen: list[Any],
    path: Path,
    freed_memory: str | None = None,
) -> tuple[dict[str, Any], bool]:
    """The results of a suite and whether everything went well; what is measured is saved case by case."""
    plan = make_plan(options, suite)
    timer = measure.make_timer(plan)
    results: dict[str, Any] = {"schema": SCHEMA, "suite": suite, "device": options.device}
    results["provenance"] = provenance.provenance(options.device, argv)
    results["plan"] = {"repeats": plan.repeats, "rotate_bytes": plan.rotate_bytes, "max_sets": plan.max_sets}
    if options.quick:
        results["plan"]["quick"] = True
    if freed_memory is not None:
        results["plan"]["freed_memory"] = freed_memory
    if options.quick and suite == "voxelize":
        results["plan"]["tiny"] = list(_TINY)
    if plan.budget_s is not None:
        results["plan"] |= {"budget_s": plan.budget_s, "slow_call_ms": timing.SLOW_CALL_MS}
    begin = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:6.1f} s] {text}", file=sys.stderr, flush=True)

    megabytes = 2048 if options.device == "cuda" else 256
    results["bandwidth"] = timing.copy_bandwidth(torch.device(options.device), measure.make_timer(plan), megabytes)
    bandwidth = results["bandwidth"]["bytes_per_second"]
    say(f"copy: {bandwidth / 1e9:.0f} GB/s read and written")
    good = True
    results["cases"] = []
    for number, case in enumerate(chosen, 1):
        say(f"{number}/{len(chosen)} {case.name}")
        try:
            ceiling = bandwidth if options.device == "cuda" else None  # a CPU's caches hold the sets
            row = _RUN[suite](case, plan, timer, ceiling, lambda text, c=case.name: say(f"    {c}: {text}"))
            good = good and not row["errors"]
            print(line(row, results), flush=True)
        except Exception as error:  # one case's failure must not lose the others
            good = False
            words = f"{type(error).__name__}: {error}".splitlines()[0][:500]
            row = {"name": case.name, **case.describe(), "variants": {}, "errors": {"robocache": words}}
            traceback.print_exc()
        results["cases"].append(provenance.without_paths(row))
        save(path, {**results, "complete": False})
        if options.device == "cuda":
            torch.cuda.empty_cache()
    if suite in FUNCTIONS and not options.no_host and not options.cases and not options.filter:
        loops, rounds = (500, 3) if options.quick else (2000, 7) if suite == "align" else (500, 5)
        try:
            results["host"] = run_host(options.device, loops, rounds, lambda t: say(f"host: {t}"), suite)
            good = good and "errors" not in results["host"]
        except Exception as error:
            good = False
            results["host"] = {"errors": {"host": f"{type(error).__name__}: {error}"}}
            traceback.print_exc()
    if options.device == "cuda":
        results["provenance"]["clocks_after"] = provenance.clocks()
    results["seconds"] = round(time.monotonic() - begin, 1)
    results["complete"] = good
    return results, good


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    options = parse(arguments)
    if options.list:
        for suite in (cases, voxel_cases, graphs, store, attention_cases, training):
            for case in suite.CASES:
                print(f"{case.name:44} {' '.join(sorted(case.tags))}")
        return 0
    chosen = {suite: select(options, suite) for suite in options.suite}
    suites = [suite for suite in options.suite if (options.host_only and suite in FUNCTIONS) or chosen[suite]]
    if not suites:
        raise SystemExit(
            f"no case for {options.device} matches {options.cases or options.filter!r}; --list prints the names"
        )
    if options.out and len(suites) > 1:
        raise SystemExit("--out: expected one suite (--suite) whose results it takes")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: no CUDA device is visible")
    if options.device == "cpu":
        torch.set_num_threads(2)
    status = 0
    for suite in suites:
        path = options.out or default_path(options, suite)
        told = provenance.without_paths(arguments)
        if suite == "dispatch":
            results, good = run_dispatch(options, told)
        elif options.device == "cpu" and suite != "training":  # which reports the memory that it takes
            with memory.kept() as kept:
                state = "kept" if kept else "as the C library does"
                results, good = run(options, told, suite, chosen[suite], path, state)
        else:
            results, good = run(options, told, suite, chosen[suite], path)
        save(path, results)
        print(text_table(results))
        print(f"written: {path if options.out or options.results else path.relative_to(provenance.ROOT)}")
        status = status if good else 1
    return status


if __name__ == "__main__":
    sys.exit(main())
