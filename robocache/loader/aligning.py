"""A step's batch, read from the pools in which its samples lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from ..store.windows import WindowPlan
from .batch import LoaderBatch, texts_of
from .images import Gathered
from .pools import ReadyPool

Segment: TypeAlias = "tuple[ReadyPool, int, int]"  # a pool, and which of the rank's samples in it


def read_batch(
    plan: WindowPlan, segments: Sequence[Segment], gathered: Gathered | None, device: torch.device
) -> tuple[LoaderBatch, list[Any]]:
    """The batch, and pairs of events around what the device waits for and does."""
    events: list[Any] = []
    cuda = device.type == "cuda"
    if cuda:
        stream = torch.cuda.current_stream(device)
        for pool, _, _ in segments:
            if stream.cuda_stream not in pool.slot.users:
                arrived = _event(stream)
                stream.wait_event(pool.ready)
                events.append(("copy", arrived, _event(stream)))
                pool.slot.users[stream.cuda_stream] = stream
        started = _event(stream)
    tables, reads = [], []
    for pool, begin, end in segments:
        # A copy, because the pool's memory is used again while the batch may still be in use.
        table = pool.anchors[:, begin:end].clone()
        tables.append(table)
        reads.append([launch.read(table) for launch in pool.bound])
    if len(segments) == 1:
        anchors, parts = tables[0], reads[0]
    else:
        anchors = torch.cat(tables, 1)
        parts = [(torch.cat([v for v, _ in p]), torch.cat([m for _, m in p])) for p in zip(*reads, strict=True)]
    if cuda:
        events.append(("align", started, _event(stream)))
    images: dict[str, Any] = {}
    image_valid: dict[str, Any] = {}
    if gathered is not None:
        images = {name: found.to(device, non_blocking=True) for name, found in gathered.frames.items()}
        image_valid = {name: found.to(device, non_blocking=True) for name, found in gathered.valid.items()}
    texts = [texts_of(*segment) for segment in segments]
    return LoaderBatch(plan, parts, anchors, images, image_valid, texts), events


def _event(stream: Any) -> Any:
    event = torch.cuda.Event(enable_timing=True)
    event.record(stream)
    return event
