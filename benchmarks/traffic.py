"""How many bytes a call must move, counted from its data.

Counted once each: the rows of samples that some target really reads (at full width), every stamp a stream owns (they
must be read to be checked; of packed streams with `rows`, those of the sequences read), lengths and splits, targets,
outputs and masks. A kernel that re-reads moves more; none can move less.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .cases import DTYPES, Case, Inputs


def _used_samples(times: Tensor, targets: Tensor, lengths: Tensor, kinds: set[str]) -> int:
    """Sample rows that the targets of each batch row read. times [B, S], targets [B, T], lengths [B]."""
    b, s = times.shape
    if b == 0 or s == 0 or targets.shape[1] == 0:
        return 0
    pad = torch.arange(s, device=times.device) >= lengths[:, None]
    top = torch.iinfo(times.dtype).max if times.dtype == torch.int64 else torch.inf
    padded = times.masked_fill(pad, top)
    last = (lengths - 1).clamp_min(0)[:, None]
    i0 = torch.minimum((torch.searchsorted(padded, targets, right=True) - 1).clamp_min(0), last)
    t0 = padded.gather(1, i0)
    between = (t0 < targets) & (i0 < last)
    i1 = torch.where(between, i0 + 1, i0)
    used = torch.zeros(b, s, dtype=torch.bool, device=times.device)
    interpolates = bool(kinds - {"nearest", "previous", "next"})
    if interpolates or "previous" in kinds:
        used.scatter_(1, i0, True)
    if interpolates or "next" in kinds:
        used.scatter_(1, i1, True)
    if "nearest" in kinds:
        later = between & ((padded.gather(1, i1) - targets) < (targets - t0))
        used.scatter_(1, torch.where(later, i1, i0), True)
    if "pchip" in kinds:  # two more samples shape the cubic
        inner = torch.where(between, (i0 - 1).clamp_min(0), i0)
        outer = torch.where(between, torch.minimum(i1 + 1, last), i0)
        used.scatter_(1, inner, True)
        used.scatter_(1, outer, True)
    used &= (lengths > 0)[:, None]
    return int(used.sum())


def _packed_bytes(stream: dict[str, Any], targets: Tensor, kinds: set[str]) -> tuple[int, int]:
    """Used sample rows and stamps of a packed stream; several rows of the batch may share what they read."""
    splits, rows = stream["row_splits"].tolist(), stream["rows"].tolist()
    used: set[int] = set()
    for b, row in enumerate(rows):
        begin, end = splits[row], splits[row + 1]
        times = stream["times"][begin:end]
        if end == begin:
            continue
        at = torch.searchsorted(times, targets[b].contiguous(), right=True)
        i0 = (at - 1).clamp(0, end - begin - 1)
        i1 = at.clamp(0, end - begin - 1)
        i1 = torch.where(times[i0] < targets[b], i1, i0)
        used.update((i0 + begin).tolist())
        if kinds - {"previous"}:
            used.update((i1 + begin).tolist())
    return len(used), len(used)


def bytes_moved(inputs: Inputs, out: Tensor, valid: Tensor | None) -> dict[str, int]:
    """Bytes a call must read and write, by what they are."""
    case: Case = inputs.case
    count = {"values": 0, "times": 0, "index": 0}
    for spec, stream in zip(case.streams, inputs.streams, strict=True):
        times, targets = stream["times"], inputs.targets
        if "time_offset" in stream:
            targets = targets + stream["time_offset"]
        kinds = {name for _, _, name in spec.groups()}
        if "row_splits" in stream:
            samples, stamps = _packed_bytes(stream, targets, kinds)
            count["index"] += 8 * (stream["row_splits"].numel() + stream["rows"].numel())
        else:
            lengths = stream.get("lengths")
            if lengths is None:
                lengths = torch.full((times.shape[0],), times.shape[1], dtype=torch.int64, device=times.device)
                stamps = times.numel()
            else:
                stamps = int(lengths.sum())
                count["index"] += 8 * lengths.numel()
            samples = _used_samples(times, targets, lengths, kinds)
        count["values"] += samples * spec.columns * DTYPES[spec.dtype].itemsize
        count["times"] += stamps * times.element_size()
    count["targets"] = inputs.targets.numel() * inputs.targets.element_size()
    count["out"] = out.numel() * out.element_size()
    count["valid"] = 0 if valid is None else valid.numel()
    count["total"] = sum(count.values())
    return count
