"""`robocache tune`: measures on this machine what dispatch decides by, and stores it."""

from __future__ import annotations

import argparse
import datetime
import inspect
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import robocache

from .._progress import progress
from . import points, roundtrip, settings, sweep
from .calls import FUNCTIONS, OPERATIONS, describe
from .device import Device
from .model import CostModel, Measured
from .policy import policy

SECONDS = 60.0
QUICK_SECONDS = 15.0
_LEAST_REPEATS = 3
_MOST_REPEATS = 40
_COPY_SIZES = tuple(4**k for k in range(5, 14))  # 1 KiB to 64 MiB
_COPY_SHARE = 0.1  # of the time


def median_us(call: Callable[[], Any], budget_s: float) -> float:
    """Median wall time of a call in microseconds: at least 3 runs after one to warm up, more while the budget lasts."""
    call()
    times: list[float] = []
    end = time.perf_counter() + budget_s
    while len(times) < _LEAST_REPEATS or (time.perf_counter() < end and len(times) < _MOST_REPEATS):
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e6)
    return statistics.median(times)


def full_arguments(op: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments with every default filled in."""
    bound = inspect.signature(getattr(robocache, FUNCTIONS[op])).bind(**given)
    bound.apply_defaults()
    return dict(bound.arguments)


def measure_copies(device: Device, budget_s: float, wait: Callable[[], None]) -> dict[str, list[tuple[int, float]]]:
    """(bytes, microseconds) of copies either way, by name as in points.COPIES."""
    each = budget_s / (3 * len(_COPY_SIZES))
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in points.COPIES}
    for size in _COPY_SIZES:
        ordinary = torch.ones(size, dtype=torch.uint8)
        locked = ordinary.pin_memory() if device.backend == "cuda" else ordinary
        (there,) = device.upload([ordinary], True)

        def into(tensor: torch.Tensor) -> None:
            device.upload([tensor], True)
            wait()

        found["pageable_in"].append((size, median_us(lambda t=ordinary: into(t), each)))  # type: ignore[misc]
        found["pinned_in"].append((size, median_us(lambda t=locked: into(t), each)))  # type: ignore[misc]
        found["out"].append((size, median_us(lambda t=there: device.download([t]), each)))  # type: ignore[misc]
    return found


def measure_call(op: str, spec: sweep.Spec, device: Device, budget_s: float, wait: Callable[[], None]) -> Measured:
    """One point: a call on either side."""
    function = getattr(robocache, FUNCTIONS[op])
    arguments = full_arguments(op, sweep.build(op, spec))
    on_cpu = {**arguments, "backend": "cpu"}

    def there(result: str) -> None:
        roundtrip.run(device, function, arguments, result)
        if result == "device":
            wait()

    with settings.inside(), torch.no_grad():
        cpu = median_us(lambda: function(**on_cpu), budget_s / 3)
        host = median_us(lambda: there("host"), budget_s / 3)
        left = median_us(lambda: there("device"), budget_s / 3)
    return Measured(describe(op, arguments, device.is_pinned), cpu, host, left)


def _trials(quick: bool, only: Sequence[str]) -> list[tuple[str, sweep.Spec]]:
    return [(op, spec) for op in only for spec in sweep.grid(op, quick)]


def measure(
    device: Device,
    seconds: float,
    quick: bool = False,
    show: bool = True,
    trials: Sequence[tuple[str, sweep.Spec]] | None = None,
    wait: Callable[[], None] = torch.cuda.synchronize,
) -> points.Tuned:
    """Measures every trial (those of the grid where None) on both sides."""
    chosen = _trials(quick, OPERATIONS) if trials is None else list(trials)
    each = seconds * (1 - _COPY_SHARE) / max(len(chosen), 1)
    copies = measure_copies(device, seconds * _COPY_SHARE, wait)
    found = [
        measure_call(op, spec, device, each, wait)
        for op, spec in progress(chosen, what="tuning", unit="size", show=show)
    ]
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return points.Tuned(device.key(), date, copies, found)


# ---- What the user sees -----------------------------------------------------------------------------------------


def family(op: str, tuned: points.Tuned) -> list[Measured]:
    """The points of an operation by what they move and compute on the CPU, the least first."""
    return sorted((point for point in tuned.points if point.load.op == op), key=lambda point: point.cpu_us)


def errors_of(model: CostModel, measured: Sequence[Measured], result: str) -> list[float]:
    """How far the model's times are from the points, both sides, as a share."""
    shares = []
    for point in measured:
        found = model.estimate(point.load, result)
        shares.append(abs(math.log(found.gpu_us / (point.host_us if result == "host" else point.device_us))))
        shares.append(abs(math.log((found.cpu_us - found.cpu_upload_us) / point.cpu_us)))
    return [math.expm1(share) for share in shares]


def _pays(model: CostModel, measured: Sequence[Measured], result: str) -> str:
    """From which CPU time on the GPU takes less, as the points say it."""
    won = [model.estimate(p.load, result) for p in measured]
    wins = [p.cpu_us for p, e in zip(measured, won, strict=True) if e.gpu_us < e.cpu_us]
    if not wins:
        return "never"
    if len(wins) == len(measured):
        return "always"
    return f"{len(wins)}, from {min(wins):.0f} us"


def table(tuned: points.Tuned, model: CostModel) -> str:
    """What was found, a line an operation."""
    header = ("operation", "points", "CPU us", "GPU us", "GPU pays (to host)", "GPU pays (left there)", "model off by")
    rows = [header]
    for op in OPERATIONS:
        measured = family(op, tuned)
        errors = errors_of(model, measured, "host")
        rows.append(
            (
                FUNCTIONS[op],
                str(len(measured)),
                f"{measured[0].cpu_us:.0f} .. {measured[-1].cpu_us:.0f}",
                f"{min(p.host_us for p in measured):.0f} .. {max(p.host_us for p in measured):.0f}",
                _pays(model, measured, "host"),
                _pays(model, measured, "device"),
                f"{statistics.median(errors):.0%} (most {max(errors):.0%})",
            )
        )
    widths = [max(len(row[k]) for row in rows) for k in range(len(header))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *[c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]])
        for row in rows
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `robocache tune`."""
    parser.add_argument("--seconds", type=float, help=f"about how long to measure (default {SECONDS:.0f})")
    parser.add_argument("--quick", action="store_true", help=f"fewer sizes, {QUICK_SECONDS:.0f} seconds")
    parser.add_argument("--plot", type=Path, help="where the plot goes (default: beside the points, as .png)")
    parser.add_argument("--no-plot", action="store_true", help="no plot")


def run(options: argparse.Namespace) -> int:
    """Runs `robocache tune`; 1 where there is nothing to tune or nowhere to store it."""
    seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    asked = policy()
    reason = asked.device.why_not()
    if reason is not None:
        print(f"robocache tune: no GPU can be used here, so every call stays on the CPU: {reason}", file=sys.stderr)
        return 1
    try:
        points.want_writable()
    except OSError as error:
        print(
            f"robocache tune: the points cannot be stored in {points.directory()}: {error.strerror}; "
            f"set {points.DIRECTORY}",
            file=sys.stderr,
        )
        return 1
    torch.empty(0, device=asked.device.backend)  # starts CUDA, so that it is not timed
    tuned = measure(asked.device, seconds, options.quick)
    path = points.save(tuned)
    asked.forget()
    model = points.model_of(tuned, path.name)
    key = tuned.key
    print(f"{key['gpu']}, driver {key['driver']}; {key['cpu']}, {key['threads']} threads; torch {key['torch']}")
    print(table(tuned, model))
    print(f"points: {path}")
    return _plot(options, tuned, model, path)


def _plot(options: argparse.Namespace, tuned: points.Tuned, model: CostModel, path: Path) -> int:
    if options.no_plot:
        return 0
    try:
        from .plot import save_plot

        print(f"plot: {save_plot(tuned, model, options.plot or path.with_suffix('.png'))}")
    except ImportError as error:
        print(f"no plot: {error}; pip install robocache[demo], or say --no-plot", file=sys.stderr)
    return 0


def interpolated(measured: Sequence[Measured], count: int = 60) -> Iterator[Any]:
    """Workloads along the line, in logarithms, from the least point of a family to its largest."""
    first, last = measured[0].load, measured[-1].load

    def between(low: float, high: float, share: float) -> float:
        return max(low, 1e-9) ** (1 - share) * max(high, 1e-9) ** share

    for k in range(count):
        share = k / (count - 1)
        work = tuple([between(a, b, share) for a, b in zip(first.work, last.work, strict=True)])
        yield first._replace(
            pageable=int(between(first.pageable, last.pageable, share)),
            bytes_out=int(between(first.bytes_out, last.bytes_out, share)),
            work=work,
        )
