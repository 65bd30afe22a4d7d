"""`python -m benchmarks --device cuda|cpu [--cases pattern] [--quick] [--ours-only] [--out path]`.

Writes one JSON file with provenance under benchmarks/results/<machine>/ and prints a table last. A case that fails is
recorded as an error, the others still run, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from . import align, cases, provenance, timing
from .host import run_host
from .report import text_table

SCHEMA = 1


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cases", help="comma-separated patterns of case names")
    parser.add_argument("--quick", action="store_true", help="the published rows, few repeats, no compiled peers")
    parser.add_argument("--ours-only", action="store_true", help="no peers")
    parser.add_argument("--repeats", type=int, help="timings a variant (default 100; cpu 60; quick 20)")
    parser.add_argument(
        "--max-autotune", action="store_true", help="also compile peers with max-autotune-no-cudagraphs"
    )
    parser.add_argument("--compile-all", action="store_true", help="compiled peers for the kinds' and ragged cases too")
    parser.add_argument("--no-host", action="store_true", help="leave out the host cost")
    parser.add_argument("--host-only", action="store_true", help="only the host cost")
    parser.add_argument("--check", choices=("reference", "peer"), default="reference", help="what ours is checked with")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and stop")
    parser.add_argument("--out", type=Path, help="results file (default benchmarks/results/<machine>/align*.json)")
    return parser.parse_args(arguments)


def make_plan(options: argparse.Namespace) -> align.Plan:
    repeats = options.repeats or (20 if options.quick else 100 if options.device == "cuda" else 60)
    modes = () if options.quick else ("default",)
    if options.max_autotune:
        modes = (*modes, "max-autotune-no-cudagraphs")
    small = options.device == "cpu"
    return align.Plan(
        device=options.device,
        repeats=repeats,
        ours_only=options.ours_only,
        compile_modes=modes,
        compile_all=options.compile_all,
        rotate_bytes=(64 << 20) if small else (256 << 20),
        max_sets=16 if small else 256,
        warm=not options.quick,
        check=options.check,
    )


def default_path(options: argparse.Namespace) -> Path:
    partial = options.cases or options.ours_only or options.host_only
    part = "-quick" if options.quick else "-partial" if partial else ""
    return provenance.ROOT / "benchmarks" / "results" / provenance.machine_slug(options.device) / f"align{part}.json"


def select(options: argparse.Namespace) -> list[cases.Case]:
    if options.host_only:
        return []
    chosen = cases.select(options.device, options.cases)
    if options.quick and not options.cases:
        chosen = [case for case in chosen if "numbers" in case.tags and "int64" not in case.tags]
    if not chosen:
        raise SystemExit(f"no case for {options.device} matches {options.cases!r}; --list prints the names")
    return chosen


def run(options: argparse.Namespace, argv: list[str]) -> tuple[dict[str, Any], bool]:
    """The results and whether everything went well."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: no CUDA device is visible")
    if options.device == "cpu":
        torch.set_num_threads(2)
    plan = make_plan(options)
    timer = align.make_timer(plan)
    chosen = select(options)
    results: dict[str, Any] = {"schema": SCHEMA, "device": options.device}
    results["provenance"] = provenance.provenance(options.device, argv)
    results["plan"] = {"repeats": plan.repeats, "rotate_bytes": plan.rotate_bytes, "max_sets": plan.max_sets}
    begin = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:6.1f} s] {text}", file=sys.stderr, flush=True)

    megabytes = 2048 if options.device == "cuda" else 256
    results["bandwidth"] = timing.copy_bandwidth(torch.device(options.device), timer, megabytes)
    bandwidth = results["bandwidth"]["bytes_per_second"]
    say(f"copy: {bandwidth / 1e9:.0f} GB/s read and written")
    good = True
    results["cases"] = []
    for number, case in enumerate(chosen, 1):
        label = f"{number}/{len(chosen)} {case.name}"
        say(label)
        try:
            ceiling = bandwidth if options.device == "cuda" else None  # a CPU's caches hold the sets
            row = align.run_case(case, plan, timer, ceiling, lambda text, c=case.name: say(f"    {c}: {text}"))
            good = good and not row["errors"]
            say(f"    {row['variants']['robocache']['cold']['median']:.2f} us")
        except Exception as error:  # one case's failure must not lose the others
            good = False
            words = f"{type(error).__name__}: {error}".splitlines()[0][:500]
            row = {"name": case.name, **case.describe(), "variants": {}, "errors": {"robocache": words}}
            traceback.print_exc()
        results["cases"].append(provenance.without_paths(row))
        if options.device == "cuda":
            torch.cuda.empty_cache()
    if not options.no_host and not options.cases:
        try:
            results["host"] = run_host(
                options.device, 500 if options.quick else 2000, 3 if options.quick else 7, lambda t: say(f"host: {t}")
            )
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
        for case in cases.CASES:
            print(f"{case.name:44} {' '.join(sorted(case.tags))}")
        return 0
    results, good = run(options, provenance.without_paths(arguments))
    path = options.out or default_path(options)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(text_table(results))
    print(f"written: {path if options.out else path.relative_to(provenance.ROOT)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
