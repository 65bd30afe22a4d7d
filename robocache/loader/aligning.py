"""A step's windows, read from the pools in which its samples lie."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .pools import ReadyPool

Segment: TypeAlias = "tuple[ReadyPool, int, int]"  # a pool, and which of the rank's samples in it
Parts: TypeAlias = "list[tuple[Tensor, Tensor]]"  # values and validity, by launch

# How many steps' windows one launch reads at most: what the launch costs the host is then shared by as many steps. A
# CPU gains nothing: there the windows of one step are nearer in its caches than those of eight.
STEPS = {"cuda": 8, "cpu": 1}
STEPS_BYTES = 64 << 20  # of device memory that they may take; a step larger than that is read alone


@dataclass(frozen=True, eq=False)
class StepWindows:
    """The windows of one step.

    Attributes:
        segment: where they were read from: the one pool, begin and end, and the stream that reads them (0 on a CPU).
            None where they are of several pools.
        parts: values [B, U, sum D] and validity [B, U, streams] of each launch.
        anchors: int64 [4, B].
    """

    segment: tuple[ReadyPool, int, int, int] | None
    parts: Parts
    anchors: Tensor

    @property
    def nbytes(self) -> int:
        return sum(values.nbytes + valid.nbytes for values, valid in self.parts) + self.anchors.nbytes


class Aligner:
    """Reads windows, where it can those of the next steps in the same launch.

    A pool's samples are in the order in which steps take them, so steps that follow each other in one pool are one
    range of it. The windows of a step are tensors of their own: writing into them is seen by no other step. They share
    memory, which is free once all steps of their launch are.

    Args:
        device: where pools are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ahead: deque[StepWindows] = deque()
        self._window_bytes = 0  # of one window; 0: none was read so far

    def read(self, segments: Sequence[Segment]) -> tuple[StepWindows, list[Any]]:
        """A step's windows, and pairs of events around what the device waits for and does."""
        stream = torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None
        events = [] if stream is None else _wait_for_copies(segments, stream)
        if len(segments) == 1:
            asked = (*segments[0], 0 if stream is None else stream.cuda_stream)
            if not (self._ahead and self._ahead[0].segment == asked):
                self._ahead.clear()
                started = None if stream is None else _event(stream)
                self._ahead.extend(self._read_ahead(*asked))
                if stream is not None:
                    events.append(("align", started, _event(stream)))
            return self._ahead.popleft(), events
        self._ahead.clear()
        started = None if stream is None else _event(stream)
        found = self._read_across(segments)
        if stream is not None:
            events.append(("align", started, _event(stream)))
        return found, events

    @property
    def ahead_bytes(self) -> int:
        """Of windows that were read for later steps."""
        return sum(step.nbytes for step in self._ahead)

    def _read_ahead(self, pool: ReadyPool, begin: int, end: int, stream: int) -> list[StepWindows]:
        """The step of samples [begin, end) and as many of those behind it as the pool and the limits have."""
        size = end - begin
        fitting = STEPS_BYTES // (self._window_bytes * size) if self._window_bytes else 1
        whole = (pool.anchors.shape[1] - begin) // size
        steps = max(1, min(STEPS[self._device.type], fitting, whole))
        # A copy, because the pool's memory is used again while the batch may still be in use.
        anchors = pool.anchors[:, begin : begin + steps * size].clone()
        parts = [launch.read(anchors) for launch in pool.bound]
        if not self._window_bytes:
            self._window_bytes = max(1, StepWindows(None, parts, anchors).nbytes // size)
        if steps == 1:
            return [StepWindows((pool, begin, end, stream), parts, anchors)]
        # Not split: its parts would count writes together, and writing into one would spoil another that a graph of
        # gradients has saved.
        tables = anchors.unsafe_split(size, 1)
        split = [(values.unsafe_split(size), valid.unsafe_split(size)) for values, valid in parts]
        return [
            StepWindows(
                (pool, begin + number * size, begin + (number + 1) * size, stream),
                [(values[number], valid[number]) for values, valid in split],
                tables[number],
            )
            for number in range(steps)
        ]

    def _read_across(self, segments: Sequence[Segment]) -> StepWindows:
        """A step whose samples lie in several pools."""
        tables = [pool.anchors[:, begin:end].clone() for pool, begin, end in segments]
        reads = [
            [launch.read(table) for launch in pool.bound] for (pool, _, _), table in zip(segments, tables, strict=True)
        ]
        parts = [(torch.cat([v for v, _ in p]), torch.cat([m for _, m in p])) for p in zip(*reads, strict=True)]
        return StepWindows(None, parts, torch.cat(tables, 1))


def _wait_for_copies(segments: Sequence[Segment], stream: Any) -> list[Any]:
    """Has the stream wait for the pools that it reads for the first time; events around each wait."""
    events = []
    for pool, _, _ in segments:
        if stream.cuda_stream not in pool.slot.users:
            arrived = _event(stream)
            stream.wait_event(pool.ready)
            events.append(("copy", arrived, _event(stream)))
            pool.slot.users[stream.cuda_stream] = stream
    return events


def _event(stream: Any) -> Any:
    event = torch.cuda.Event(enable_timing=True)
    event.record(stream)
    return event
