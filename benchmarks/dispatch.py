"""Dispatch against both sides: over sizes that tuning did not see, how far is the choice from the better side?

Needs `robocache tune` first. For each operation and each place of the answer (host, device), the same call is timed on
the CPU, through the GPU, and left to "auto", in turns. Two choices are judged: the first, which the model makes of the
tuned points alone, and the settled one, behind WARM calls of "auto", which may have tried both sides. A choice's ratio
is the time of its side over that of the better side; the time of "auto" itself, with what deciding costs, stands
beside it.

In its turn a call runs twice, and the second run is timed. So each is timed behind its like, as in a program that
always takes that way: a call on the CPU finds its threads asleep and its caches cold behind one that went to the GPU.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

import robocache
from robocache._dispatch import points, roundtrip, sweep
from robocache._dispatch.calls import FUNCTIONS, OPERATIONS, tensors_in
from robocache._dispatch.explain import Explanation, explain
from robocache._dispatch.policy import policy

WORST = 1.15  # most that a choice may take of the better side's time
LEAST_SIZES = 40
WARM = 12  # calls of "auto" before its choice is judged: as many as settle one, and some
_LEAST_ROUNDS, _MOST_ROUNDS = 5, 30
Say = Callable[[str], None]


def in_turns(calls: dict[str, Callable[[], Any]], budget_s: float) -> dict[str, float]:
    """Median microseconds of each call; the calls take turns, so that what disturbs the machine meets all of them."""
    for call in calls.values():
        call()
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + budget_s
    rounds = 0
    while rounds < _LEAST_ROUNDS or (time.perf_counter() < end and rounds < _MOST_ROUNDS):
        for name, call in calls.items():
            call()
            begin = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - begin) * 1e6)
        rounds += 1
    return {name: statistics.median(found) for name, found in times.items()}


def _pinned(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same arguments with every tensor in page-locked memory; an expanded one is made whole, as torch asks."""
    found = tensors_in(arguments)
    return dict(roundtrip.replaced(arguments, {id(tensor): tensor.contiguous().pin_memory() for tensor in found}))


def sides(op: str, arguments: dict[str, Any], result: str) -> dict[str, Callable[[], Any]]:
    """The call on the CPU, through the GPU, and left to dispatch; each ends when its answer is there."""
    function = getattr(robocache, FUNCTIONS[op])

    def bound(backend: str | None) -> Callable[[], Any]:
        context = robocache.dispatch(backend=backend, result=result)

        def call() -> None:
            with context:
                function(**arguments)
            if result == "device":
                torch.cuda.synchronize()

        # To the host, "cpu" and "auto" are called as a user calls them: without a context.
        if result == "host" and backend == "cpu":
            return lambda: function(**arguments, backend="cpu")
        return (lambda: function(**arguments)) if result == "host" and backend is None else call

    return {"cpu": bound("cpu"), "gpu": bound("cuda"), "auto": bound(None)}


def measure_case(op: str, spec: sweep.Spec, number: int, result: str, budget_s: float) -> dict[str, Any]:
    """One row: a size of an operation with its answer in one place."""
    arguments = sweep.build(op, spec, seed=1000 + number)
    pinned = number % 4 == 3
    if pinned:
        arguments = _pinned(arguments)
    calls = sides(op, arguments, result)

    def asked() -> Explanation:
        with robocache.dispatch(result=result):
            return explain(FUNCTIONS[op], **arguments)

    first = asked()
    for _ in range(WARM):
        calls["auto"]()
    settled = asked()
    times = in_turns(calls, budget_s)
    chosen, at_first = _side(settled), _side(first)
    better = min(times["cpu"], times["gpu"])
    return {
        "name": f"{op}-{number}-{result}",
        "op": op,
        "result": result,
        "spec": spec,
        "pinned": pinned,
        "bytes": {"in": first.bytes_in, "out": first.bytes_out},
        "first_choice": at_first,
        "choice": chosen,
        "authority": settled.authority,
        "reason": settled.reason,
        "estimates_us": {"cpu": first.cpu_us, "gpu": first.gpu_us},
        "measured": {
            "cpu": {"calls": settled.measured_cpu_calls, "us": settled.measured_cpu_us},
            "gpu": {"calls": settled.measured_gpu_calls, "us": settled.measured_gpu_us},
        },
        "times_us": times,
        "first_ratio": times[at_first] / better,
        "ratio": times[chosen] / better,
        "auto_ratio": times["auto"] / better,
        "errors": {},
    }


def _side(said: Explanation) -> str:
    return "gpu" if said.choice == "cuda" else "cpu"


def geometric(values: Sequence[float]) -> float:
    return math.exp(statistics.mean([math.log(value) for value in values]))


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Geometric means in microseconds, the worst choices, and whether dispatch holds what is asked of it: the settled
    choice is what is asked about."""
    chosen = [row["times_us"][row["choice"]] for row in rows]
    first = [row["times_us"][row["first_choice"]] for row in rows]
    means = {name: geometric([row["times_us"][name] for row in rows]) for name in ("cpu", "gpu", "auto")}
    worst = max(row["ratio"] for row in rows)
    return {
        "sizes": len(rows),
        "gpu_taken": sum(row["choice"] == "gpu" for row in rows),
        "cpu_us": means["cpu"],
        "gpu_us": means["gpu"],
        "chosen_us": geometric(chosen),
        "first_us": geometric(first),
        "auto_us": means["auto"],
        "worst_first": max(row["first_ratio"] for row in rows),
        "first_over_worst": sum(row["first_ratio"] > WORST for row in rows),
        "worst_choice": worst,
        "over_worst": sum(row["ratio"] > WORST for row in rows),
        "within": worst <= WORST,
        "beats_both": means["auto"] < min(means["cpu"], means["gpu"]),
    }


def summaries(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By operation and place of the answer, by place, and over all."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        for name in (f"{row['op']}, {row['result']}", f"all, {row['result']}", "all"):
            groups.setdefault(name, []).append(row)
    ordered = sorted(groups, key=lambda name: (name.startswith("all"), name == "all"))
    return {name: summarize(groups[name]) for name in ordered}


def tuned_points() -> dict[str, Any]:
    """The points that dispatch decides by here.

    Raises:
        SystemExit: nothing was tuned for this machine.
    """
    asked = policy()
    reason = asked.device.why_not()
    if reason is not None:
        raise SystemExit(f"--suite dispatch: no GPU can be used: {reason}")
    torch.empty(0, device="cuda")
    found = points.load(asked.device.key())
    if found is None:
        raise SystemExit("--suite dispatch: nothing is tuned for this machine: run `python -m robocache tune` first")
    return points.as_json(found[0])


def run_suite(sizes: int, budget_s: float, say: Say) -> dict[str, Any]:
    """Rows, summaries and the tuned points; a size that fails is a row with an error."""
    tuned = tuned_points()
    rows: list[dict[str, Any]] = []
    with torch.no_grad():
        for op in OPERATIONS:
            say(op)
            for number, spec in enumerate(sweep.unseen(op, sizes)):
                for result in ("host", "device"):
                    try:
                        rows.append(measure_case(op, spec, number, result, budget_s))
                    except Exception as error:  # one size's failure must not lose the others
                        words = f"{type(error).__name__}: {error}".splitlines()[0][:500]
                        rows.append({"name": f"{op}-{number}-{result}", "op": op, "errors": {"robocache": words}})
    whole = [row for row in rows if not row["errors"]]
    return {"tuned": tuned, "cases": rows, "summaries": summaries(whole) if whole else {}}


HEADER = (
    "operation, answer",
    "sizes",
    "GPU taken",
    "always CPU",
    "always GPU",
    "auto",
    "worst first choice",
    "worst settled choice",
    "held",
)


def cells(name: str, found: dict[str, Any]) -> list[str]:
    """A summary as a row of the table."""
    held = found["within"] and found["beats_both"]
    short = [] if found["within"] else [f"{found['over_worst']} over {WORST} x"]
    short += [] if found["beats_both"] else ["not under both"]
    return [
        name,
        str(found["sizes"]),
        str(found["gpu_taken"]),
        f"{found['cpu_us']:.0f}",
        f"{found['gpu_us']:.0f}",
        f"{found['auto_us']:.0f}",
        f"{found['worst_first']:.2f}x ({found['first_over_worst']} over {WORST})",
        f"{found['worst_choice']:.2f}x",
        "yes" if held else ", ".join(short),
    ]
