"""Writes csrc/common/launch_table.inc, the launch parameters by GPU, from the tuner's results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .provenance import ROOT

TABLE = ROOT / "csrc" / "common" / "launch_table.inc"
RESULTS = ROOT / "benchmarks" / "results"
SHAPE_CLASSES = ("small", "medium", "large")

_HEAD = """\
/* Launch parameters that measurement chose. Written by `python -m benchmarks.tune --write`; do not edit.
 *
"""
_NONE = " * No GPU has been measured yet: every GPU takes the defaults.\n"


def enumerator(name: str) -> str:
    """`align.threads` -> `RC_TUNE_ALIGN_THREADS`."""
    return "RC_TUNE_" + name.upper().replace(".", "_")


def committed(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The tuner's results of every machine."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/tune.json"))]


def newest_by_arch(results: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One result a compute capability, the newest by its date; GPUs that share one share a row of the table."""
    found: dict[int, Mapping[str, Any]] = {}
    for result in results:
        known = found.get(result["arch"])
        if known is None or result["provenance"]["date"] > known["provenance"]["date"]:
            found[result["arch"]] = result
    return [found[arch] for arch in sorted(found)]


def _origin(result: Mapping[str, Any]) -> list[str]:
    facts = result["provenance"]
    git = facts["git"]
    commit = f"{git['commit']}{' and changes' if git['dirty'] else ''}" if git["commit"] else "unknown"
    nvcc = (facts.get("compiler") or {}).get("nvcc") or "unknown"
    lines = [
        f"{result['arch']}: {facts['gpu']}, {facts['date']}",
        f"    driver {facts['driver']}, CUDA {facts['cuda']}, nvcc {nvcc}",
        f"    commit {commit}",
        f"    python -m benchmarks.tune {' '.join(facts['arguments'])}".rstrip(),
    ]
    # A comment cannot hold what would end it or begin another.
    return [line.replace("*/", "* /").replace("/*", "/ *") for line in lines]


def _row(result: Mapping[str, Any], parameters: Sequence[Mapping[str, Any]]) -> list[str]:
    known = {parameter["name"]: parameter for parameter in parameters}
    for name in result["table"]:
        if name not in known:
            raise ValueError(f"table of {result['arch']}: {name} is no launch parameter of this build; tune anew")
    lines = [f"{{.arch = {result['arch']},", " .values = {"]
    for name, parameter in known.items():
        if name not in result["table"]:
            raise ValueError(f"table of {result['arch']}: expected a value of {name}, got none; tune anew")
        values = [result["table"][name][shape_class] for shape_class in SHAPE_CLASSES]
        for value in values:
            if value not in parameter["values"]:
                raise ValueError(
                    f"table of {result['arch']}: {name}: expected one of {parameter['values']}, got {value}; tune anew"
                )
        lines.append(f"     [{enumerator(name)}] = {{{', '.join(map(str, values))}}},")
    return [*lines, " }},"]


def text(results: Iterable[Mapping[str, Any]], parameters: Sequence[Mapping[str, Any]]) -> str:
    """The whole file: where each row comes from, and the rows, one a compute capability.

    `parameters` are those of the build, as `native.launch_parameters()` lists them. A result that lacks one, or has a
    value that the build no longer takes, is a ValueError.
    """
    rows = newest_by_arch(results)
    if not rows:
        return f"{_HEAD}{_NONE} */\n"
    origin = "".join(f" * {line}\n" for result in rows for line in _origin(result))
    body = "\n".join(line for result in rows for line in _row(result, parameters))
    return f"{_HEAD}{origin} */\n/* clang-format off */\n{body}\n"
