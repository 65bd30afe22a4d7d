"""`python -m benchmarks.tune [--only align] [--budget 120] [--write]`: chooses launch parameters of the CUDA kernels.

For each kernel's parameters and each shape class, one parameter after the other: all its values are timed beside the
current one, and a value takes its place where it is better by 2 % beyond the noise and stays so in a second measurement
(tune_decide.py). Every value must give the same bits. The results go to benchmarks/results/<machine>/tune.json;
--write makes csrc/common/launch_table.inc from all machines' results. The libraries then have to be built anew.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from . import launch_table, provenance
from .measure import CheckFailed
from .tune_cases import GROUPS, Group, of_class
from .tune_decide import Times, decide

SCHEMA = 1
Table = dict[str, dict[str, int]]  # by parameter, then by shape class


class Bench(Protocol):
    """What the search measures with."""

    def load(self, group: Group, cases: Sequence[Any]) -> None: ...
    def unload(self) -> None: ...
    def force(self, parameter: str, shape_class: str, value: int) -> None: ...
    def times(
        self, parameter: str, shape_class: str, current: int, values: Sequence[int], rounds: int, seed: int
    ) -> Times: ...


@dataclass(frozen=True)
class Task:
    """One parameter in one shape class."""

    group: Group
    parameter: str
    shape_class: str
    values: tuple[int, ...]
    cases: tuple[Any, ...]


def tasks_of(
    groups: Iterable[Group], parameters: Sequence[Mapping[str, Any]], ends: Mapping[str, int | None]
) -> list[Task]:
    """All that can be tuned, ordered so that those of one group and class, which share inputs, follow each other."""
    found = []
    values = {parameter["name"]: tuple(parameter["values"]) for parameter in parameters}
    for group in groups:
        for shape_class in ends:
            cases = tuple(of_class(group, shape_class, ends))
            names = group.parameters(list(values)) if cases else []
            found += [Task(group, name, shape_class, values[name], cases) for name in names]
    return found


def tune_one(task: Task, bench: Bench, current: int, rounds: int, seed: int) -> dict[str, Any]:
    """Measures a task. Its "chosen" is the current value, or one that was better twice."""
    entry: dict[str, Any] = {
        "parameter": task.parameter,
        "shape_class": task.shape_class,
        "cases": [case.name for case in task.cases],
        "before": current,
        "chosen": current,
    }
    values = [value for value in task.values if value != current]
    times = bench.times(task.parameter, task.shape_class, current, values, rounds, seed)
    verdict = decide(times, values)
    entry["why"] = verdict.why
    entry["ratios"] = {label: ratio.as_dict() for label, ratio in verdict.ratios.items()}
    if verdict.winner is not None:
        # The best of several measured values is partly luck; a second measurement has none of the first one's.
        again = bench.times(task.parameter, task.shape_class, current, [verdict.winner], 2 * rounds, seed + 1)
        confirmed = decide(again, [verdict.winner])
        entry["confirmation"] = {label: ratio.as_dict() for label, ratio in confirmed.ratios.items()}
        if confirmed.winner is not None:
            entry["chosen"], entry["why"] = confirmed.winner, confirmed.why
            bench.force(task.parameter, task.shape_class, confirmed.winner)
        else:
            entry["why"] = "not better when measured again"
    return entry


def search(
    tasks: Iterable[Task],
    bench: Bench,
    table: Table,
    budget_s: float,
    rounds: int = 21,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Goes through the tasks while there is time and writes winners into `table`.

    Returns:
        (entries, left_out, errors): what was measured, the tasks that the budget had no room for, and what failed.
    """
    begin = clock()
    entries: list[dict[str, Any]] = []
    left_out: list[str] = []
    errors: list[str] = []
    loaded: tuple[str, str] | None = None
    for number, task in enumerate(tasks):
        name = f"{task.parameter} {task.shape_class}"
        if clock() - begin >= budget_s:
            left_out.append(name)
            continue
        try:
            if loaded != (task.group.name, task.shape_class):
                loaded = None
                bench.load(task.group, task.cases)
                loaded = (task.group.name, task.shape_class)
            entry = tune_one(task, bench, table[task.parameter][task.shape_class], rounds, 2 * number)
        except (CheckFailed, RuntimeError, ValueError) as error:  # one task's failure must not lose the others
            errors.append(f"{name}: {type(error).__name__}: {error}".splitlines()[0][:500])
            continue
        table[task.parameter][task.shape_class] = entry["chosen"]
        entries.append(entry)
    bench.unload()
    return entries, left_out, errors


def begin_afresh(tasks: Iterable[Task], bench: Bench, table: Table, defaults: Mapping[str, int]) -> None:
    """Puts the defaults in the place of what the table holds for the tasks."""
    for task in tasks:
        table[task.parameter][task.shape_class] = defaults[task.parameter]
        bench.force(task.parameter, task.shape_class, defaults[task.parameter])


def merged(new: Sequence[dict[str, Any]], earlier: Mapping[str, Any], table: Table) -> list[dict[str, Any]]:
    """The new entries, and those of an earlier run on the machine that still say why the table holds what it holds."""
    anew = {(entry["parameter"], entry["shape_class"]) for entry in new}
    kept = [
        entry
        for entry in earlier.get("entries", [])
        if (entry["parameter"], entry["shape_class"]) not in anew
        and table.get(entry["parameter"], {}).get(entry["shape_class"]) == entry["chosen"]
    ]
    return [*kept, *new]


def line(entry: Mapping[str, Any]) -> str:
    """One line about an entry."""
    ratios = "  ".join(f"{label}: {found['ratio']:.3f}" for label, found in entry["ratios"].items())
    change = f"{entry['before']} -> {entry['chosen']}" if entry["chosen"] != entry["before"] else f"{entry['before']}"
    return f"{entry['parameter']:32} {entry['shape_class']:7} {change:14} {entry['why']:38} {ratios}"


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune", description=__doc__)
    parser.add_argument("--device", choices=("cuda",), default="cuda")
    parser.add_argument("--only", action="append", help="a group (--list prints them); several are allowed")
    parser.add_argument("--budget", type=float, default=120.0, help="seconds of search (default 120)")
    parser.add_argument(
        "--afresh",
        action="store_true",
        help="start from the defaults, not from the table: where cases disagree, no value is then kept for having been "
        "there first",
    )
    parser.add_argument("--rounds", type=int, default=21, help="timings of each value (default 21)")
    parser.add_argument("--write", action="store_true", help="write csrc/common/launch_table.inc from all results")
    parser.add_argument("--list", action="store_true", help="print groups, parameters, values and cases, and stop")
    parser.add_argument("--out", type=Path, help="results file (default benchmarks/results/<machine>/tune.json)")
    options = parser.parse_args(arguments)
    names = [group.name for group in GROUPS]
    for name in options.only or []:
        if name not in names:
            parser.error(f"--only: expected one of {', '.join(names)}, got {name!r}")
    if options.out and options.write:
        parser.error("--write: takes the results under benchmarks/results; expected no --out beside it")
    if options.budget <= 0 or options.rounds < 7:
        parser.error("--budget: expected more than 0 seconds, --rounds: at least 7")
    return options


def run(options: argparse.Namespace, arguments: list[str]) -> dict[str, Any]:
    """Searches on the current CUDA device; the results."""
    import torch

    from robocache._progress import progress

    from .tune_bench import GpuBench

    bench = GpuBench()
    native = bench.native
    major, minor = torch.cuda.get_device_capability()
    arch = 10 * major + minor
    parameters, ends = native.launch_parameters(), native.shape_class_ends()
    native.reset_launch_parameters()
    table: Table = {
        parameter["name"]: {name: native.launch_parameter(parameter["name"], name, arch) for name in ends}
        for parameter in parameters
    }
    groups = [group for group in GROUPS if options.only is None or group.name in options.only]
    tasks = tasks_of(groups, parameters, ends)
    if options.afresh:
        begin_afresh(tasks, bench, table, {parameter["name"]: parameter["default"] for parameter in parameters})
    facts = provenance.provenance("cuda", arguments)
    begin = time.monotonic()
    try:
        with torch.no_grad():
            shown = progress(tasks, what="tuning", unit="parameter")
            entries, left_out, errors = search(shown, bench, table, options.budget, options.rounds)
    finally:
        native.reset_launch_parameters()
    facts["clocks_after"] = provenance.clocks()
    for entry in entries:
        entry["date"], entry["commit"] = facts["date"], facts["git"]["commit"]
    return {
        "schema": SCHEMA,
        "suite": "tune",
        "device": "cuda",
        "arch": arch,
        "provenance": facts,
        "plan": {"budget_s": options.budget, "rounds": options.rounds, "groups": [group.name for group in groups]},
        "shape_class_ends": ends,
        "entries": entries,
        "left_out": left_out,
        "errors": errors,
        "table": table,
        "seconds": round(time.monotonic() - begin, 1),
        "complete": not errors and not left_out,
    }


def listing() -> str:
    """Groups with their parameters and cases."""
    from robocache._backend import native

    if native is None:
        raise SystemExit("--list: the native library did not load")
    ends = native.shape_class_ends()
    lines = []
    for task in tasks_of(GROUPS, native.launch_parameters(), ends):
        cases = " ".join(case.name for case in task.cases)
        lines.append(f"{task.group.name:20} {task.parameter:32} {task.shape_class:7} {list(task.values)}  {cases}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    options = parse(arguments)
    if options.list:
        print(listing())
        return 0
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("--device cuda: no CUDA device is visible")
    results = run(options, provenance.without_paths(arguments))
    path = options.out or launch_table.RESULTS / provenance.machine_slug("cuda") / "tune.json"
    measured = results["entries"]
    earlier = json.loads(path.read_text()) if path.exists() else {}
    results["entries"] = merged(measured, earlier, results["table"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    for entry in measured:
        print(line(entry))
    for name in results["left_out"]:
        print(f"{name}: left out, the budget of {options.budget:g} s was spent", file=sys.stderr)
    for words in results["errors"]:
        print(f"error: {words}", file=sys.stderr)
    changed = sum(entry["chosen"] != entry["before"] for entry in measured)
    print(f"{len(measured)} measured in {results['seconds']} s, {changed} changed; written: {path.name}")
    if options.write and not results["errors"]:
        from robocache._backend import native

        assert native is not None  # run() has used it
        table = launch_table.text(launch_table.committed(launch_table.RESULTS), native.launch_parameters())
        launch_table.TABLE.write_text(table)
        print(f"written: csrc/common/{launch_table.TABLE.name}; build anew for it to count")
    return 1 if results["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
