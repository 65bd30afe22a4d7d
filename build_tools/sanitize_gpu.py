"""Runs the GPU tests marked `sanitize` under compute-sanitizer, tool by tool, and leaves a summary beside the results.

Run as: python -m build_tools.sanitize_gpu [--tools memcheck,racecheck,synccheck] [pytest arguments]

A tool passes when pytest does, at least one test ran and the tool's own last words count no error. `initcheck` is not
among the usual tools: it also watches torch's kernels, which read what they are given.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .native import ROOT

TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
USUAL = "memcheck,racecheck,synccheck"
_PASSED = re.compile(r"(\d+) passed")
_ERRORS = re.compile(r"(?:ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard)")


def command(tool: str, arguments: Sequence[str]) -> list[str]:
    """The command line of one tool."""
    words = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "1"]
    if tool == "memcheck":
        words += ["--report-api-errors", "no"]  # torch asks the driver questions that it knows may fail
    words += [sys.executable, "-m", "pytest", "--require-gpu", "-m", "sanitize", "-p", "no:cacheprovider"]
    return [*words, *arguments]


def verdict(status: int, said: str) -> dict[str, Any]:
    """What a run's exit status and last words come to."""
    passed = [int(count) for count in _PASSED.findall(said)]
    errors = [int(first or second) for first, second in _ERRORS.findall(said)]
    result: dict[str, Any] = {"exit_status": status, "tests_passed": passed[-1] if passed else 0}
    result["errors"] = sum(errors) if errors else None  # None: the tool did not say
    return {**result, "passed": status == 0 and result["tests_passed"] > 0 and errors != [] and sum(errors) == 0}


def run_tool(tool: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Runs one tool, showing what it says as it says it."""
    print(f"compute-sanitizer --tool {tool}", flush=True)
    begin = time.monotonic()
    # Without torch's cache each tensor is an allocation, so that a step past its end is seen.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    lines = []
    with subprocess.Popen(
        command(tool, arguments), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return {**verdict(process.returncode, "".join(lines)), "seconds": round(time.monotonic() - begin, 1)}


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m build_tools.sanitize_gpu", description=__doc__)
    parser.add_argument("--tools", default=USUAL, help=f"comma-separated, of {', '.join(TOOLS)} (default {USUAL})")
    parser.add_argument("--out", type=Path, help="summary (default benchmarks/results/<machine>/sanitize-gpu.json)")
    options, arguments = parser.parse_known_args(argv)
    tools = options.tools.split(",")
    if not set(tools) <= set(TOOLS):
        parser.error(f"--tools: expected some of {', '.join(TOOLS)}, got {options.tools}")
    results = {}
    try:
        for tool in tools:
            results[tool] = run_tool(tool, arguments)
    except FileNotFoundError:
        print("error: compute-sanitizer is not on PATH", file=sys.stderr)
        return 1
    from benchmarks import provenance  # torch is loaded only now: not while the tools have the GPU

    partial = "-partial" if arguments or not set(USUAL.split(",")) <= set(tools) else ""
    path = options.out or provenance.evidence_path(f"sanitize-gpu{partial}", "cuda")
    facts = provenance.provenance("cuda", provenance.without_paths(list(argv)))
    provenance.write_summary(path, {"kind": "sanitize", "tools": results, "provenance": facts})
    for tool, result in results.items():
        words = "ok" if result["passed"] else "FAILED"
        print(f"{tool}: {words}, {result['tests_passed']} tests, {result['errors']} errors, {result['seconds']} s")
    return 0 if all(result["passed"] for result in results.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
