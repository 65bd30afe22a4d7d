"""Measures a training loop: step times on the device's clock, the share of the time that it works, and host memory.

A loop is run in segments, one after the other or with other loops between them; `figures` makes one set of figures of
all segments of a feed.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import math
import os
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from .timing import summarize
from .training_step import Step

_BLOCK = 20  # neighbouring steps are not independent, so the interval comes from means of blocks of them
_SMI_PERIOD_MS = 100
_SMI_SETTLE_S = 0.3  # nvidia-smi's figure is of a span before it is asked for


class Feed(Protocol):
    def __next__(self) -> Any: ...


@dataclass(frozen=True)
class Length:
    """How long a feed is measured: `warm` steps that do not count, then at least so many steps and seconds."""

    warm: int
    steps: int
    seconds: float

    def part(self, parts: int) -> Length:
        """One of so many parts. Each warms up in full: what it begins with is as cold as what the whole began with."""
        return Length(self.warm, math.ceil(self.steps / parts), self.seconds / parts)


@dataclass(frozen=True)
class Segment:
    """Steps that were measured without a break.

    Attributes:
        intervals: milliseconds of each step, from the end of the one before it to its own.
        busy: milliseconds of each step between its first and its last kernel.
        wall_s: of all, on the host's clock.
        sampled: what nvidia-smi said.
        meter: the loader's starvation meter's totals in milliseconds; None of a feed that has none.
    """

    intervals: NDArray[np.float64]
    busy: NDArray[np.float64]
    wall_s: float
    sampled: dict[str, Any] = field(default_factory=dict)
    meter: dict[str, float] | None = None


def measure(step: Step, feed: Feed, batch: int, device: torch.device, length: Length) -> dict[str, Any]:
    """Runs the loop without a break and returns its figures."""
    return figures([run_segment(step, feed, device, length)], batch)


def run_segment(step: Step, feed: Feed, device: torch.device, length: Length) -> Segment:
    """Runs the loop without a break."""
    cuda = device.type == "cuda"
    for _ in range(length.warm):
        step(next(feed))
    meter = getattr(getattr(feed, "loader", None), "meter", None)
    with utilisation(device) if cuda else contextlib.nullcontext({}) as sampled:
        if cuda:
            torch.cuda.synchronize()
        if meter is not None:
            meter.reset()
        marks = [_mark(cuda)]
        began = time.perf_counter()
        while (len(marks) // 2) < length.steps or time.perf_counter() - began < length.seconds:
            windows = next(feed)
            marks.append(_mark(cuda))
            step(windows)
            marks.append(_mark(cuda))
        if cuda:
            torch.cuda.synchronize()
        wall = time.perf_counter() - began
    ends = marks[0::2]
    intervals = np.array([_between(a, b) for a, b in itertools.pairwise(ends)])
    busy = np.array([_between(a, b) for a, b in zip(marks[1::2], marks[2::2], strict=True)])
    if meter is not None:
        meter.poll()  # the newest steps' events have passed by now
    return Segment(intervals, busy, wall, dict(sampled), None if meter is None else dict(meter.totals))


def _mark(cuda: bool) -> Any:
    if not cuda:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(before: Any, behind: Any) -> float:
    """Milliseconds."""
    if isinstance(before, float):
        return (behind - before) * 1e3
    return before.elapsed_time(behind)


def mean_ms(segments: Sequence[Segment]) -> float:
    """Milliseconds a step, over all steps of the segments."""
    return float(np.concatenate([one.intervals for one in segments]).mean())


def figures(segments: Sequence[Segment], batch: int) -> dict[str, Any]:
    """What a feed's segments say together.

    A step's time is that from its end to the next one's end, so that all times add up to the whole. `busy` is the share
    of it that lies between a step's first and last kernel: what is left is what the device waited between steps, and
    what windows took to be aligned.
    """
    busy, whole = (sum(float(getattr(one, name).sum()) for one in segments) for name in ("busy", "intervals"))
    return {
        **throughput([one.intervals for one in segments], batch),
        "busy": busy / whole,
        "wall_s": sum(one.wall_s for one in segments),
        **_sampled(segments),
        "meter": _shares(segments),
    }


def _sampled(segments: Sequence[Segment]) -> dict[str, Any]:
    """The mean of all of nvidia-smi's samples; where no segment has one, why the first has none."""
    found = [
        (one.sampled["smi_percent"], one.sampled["smi_samples"]) for one in segments if "smi_samples" in one.sampled
    ]
    if not found:
        return dict(segments[0].sampled)
    samples = sum(count for _, count in found)
    return {"smi_percent": sum(percent * count for percent, count in found) / samples, "smi_samples": samples}


def _shares(segments: Sequence[Segment]) -> dict[str, float] | None:
    """What the loop waited for as shares of its time: the meter's own, of all segments as if they were one."""
    totals = [one.meter for one in segments if one.meter is not None]
    if not totals:
        return None
    whole = sum(max(one["step"], one["wait"], 1e-9) for one in totals)
    return {name: sum(one[name] for one in totals) / whole for name in totals[0] if name != "step"}


def throughput(segments: Sequence[NDArray[np.float64]], batch: int) -> dict[str, Any]:
    """Samples a second with a 95 % interval, and step times, from milliseconds a step of each segment.

    The interval is that of the mean over blocks of 20 steps (1.96 standard errors, carried over to first order). No
    block reaches over the end of a segment: what lies between two segments is not the loop's.
    """
    least = 2 if len(segments) == 1 else 1  # a deviation takes two blocks
    blocks = [block.mean() for one in segments for block in np.array_split(one, max(least, len(one) // _BLOCK))]
    intervals = np.concatenate(segments)
    mean = float(intervals.mean())
    half = 1.96 * float(np.std(blocks, ddof=1)) / np.sqrt(len(blocks))
    return {
        "samples_per_second": batch * 1e3 / mean,
        "samples_per_second_ci95": [batch * 1e3 / mean * (1 + sign * half / mean) for sign in (-1, 1)],
        "longest_ms": float(intervals.max()),
        "cold": summarize((intervals * 1e3).tolist(), 1).as_dict(),  # microseconds a step, as in the other suites
    }


# ---- nvidia-smi ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def utilisation(device: torch.device) -> Iterator[dict[str, Any]]:
    """nvidia-smi's utilisation while the block runs: the mean of its samples in percent, or why there is none."""
    found: dict[str, Any] = {"smi_percent": None}
    command = ["nvidia-smi", f"--id={_identity(device)}", "--query-gpu=timestamp,utilization.gpu",
               "--format=csv,noheader,nounits", f"--loop-ms={_SMI_PERIOD_MS}"]  # fmt: skip
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as error:
        found["smi_reason"] = f"nvidia-smi did not start: {type(error).__name__}"
        yield found
        return
    begin = datetime.datetime.now()
    try:
        yield found
    finally:
        end = datetime.datetime.now()
        process.terminate()
        text, _ = process.communicate()
        found.update(parse_utilisation(text, begin, end))


def parse_utilisation(text: str, begin: datetime.datetime, end: datetime.datetime) -> dict[str, Any]:
    """The mean of nvidia-smi's lines that lie well inside the span."""
    inside = []
    for line in text.splitlines():
        stamp, _, percent = line.partition(",")
        try:
            moment = datetime.datetime.strptime(stamp.strip(), "%Y/%m/%d %H:%M:%S.%f")
            value = float(percent)
        except ValueError:
            continue
        if begin + datetime.timedelta(seconds=_SMI_SETTLE_S) <= moment <= end:
            inside.append(value)
    if not inside:
        last = (text.strip().splitlines() or ["no output"])[-1][:200]
        return {"smi_percent": None, "smi_reason": f"nvidia-smi gave no sample in the time: {last}"}
    return {"smi_percent": float(np.mean(inside)), "smi_samples": len(inside)}


def _identity(device: torch.device) -> str:
    """What nvidia-smi calls the device, whatever CUDA_VISIBLE_DEVICES says."""
    unique = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return f"GPU-{unique}" if unique is not None else str(device.index or 0)


# ---- Host memory -----------------------------------------------------------------------------------------------------


def reset_peak() -> bool:
    """Lets this process's peak of resident memory begin anew; False where the system does not."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return True
    except OSError:
        return False


def host_memory(before: Collection[int] = ()) -> dict[str, Any]:
    """Peak resident bytes of this process, and of those below it that run and are not among `before`.

    Shared memory counts in every process that has touched it.
    """
    children = [child for child in descendants(os.getpid()) if child not in before]
    peaks = [peak for peak in (_status_bytes(child, "VmHWM") for child in children) if peak is not None]
    return {
        "main_peak": _status_bytes(os.getpid(), "VmHWM"),
        "workers": len(peaks),
        "workers_peak": sum(peaks),
    }


def _status_bytes(process: int, name: str) -> int | None:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def descendants(process: int) -> list[int]:
    """Processes below one, by /proc."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int(entry.read_text().rsplit(")", 1)[1].split()[1])
            below.setdefault(parent, []).append(int(entry.parent.name))
    found, left = [], [process]
    while left:
        children = below.get(left.pop(), [])
        found += children
        left += children
    return found
