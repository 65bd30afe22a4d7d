"""Where targets fall among samples, and which samples each kind reads there: csrc/core/bracket.h in plain torch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .._checks import Options
from .._kinds import KINDS

_NEAREST, _PREVIOUS, _NEXT = KINDS["nearest"], KINDS["previous"], KINDS["next"]
_EXTRAPOLATE_LINEAR = 2
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_FLOAT32_MAX = 3.4028234663852886e38


class Site(NamedTuple):
    """A target's place in its sequence, all [B, T]."""

    at: Tensor  # last sample at or before the target once it is moved into [first, last]
    before: Tensor
    after: Tensor
    exact: Tensor
    nowhere: Tensor  # no samples, or a NaN target


class Bracket(NamedTuple):
    """What one kind reads at its targets, all [B, T]: v0 + weight * (v1 - v0) of samples i0 and i1; i0 -1: nothing."""

    i0: Tensor
    i1: Tensor
    weight: Tensor
    valid: Tensor
    outside: Tensor


class Sequences:
    """The samples that each output row reads: `start` [B] among all samples, `count` [B] of them.

    A row or a length out of bounds counts as no samples, so nothing is ever read out of place.
    """

    def __init__(
        self, values: Tensor, times: Tensor, lengths: Tensor | None, row_splits: Tensor | None, rows: Tensor | None
    ) -> None:
        device = values.device
        samples = values.shape[0] if row_splits is not None else values.shape[1]
        total = values.shape[0] if row_splits is None else row_splits.shape[0] - 1
        sequence = torch.arange(total, device=device) if rows is None else rows
        known = (sequence >= 0) & (sequence < total)
        safe = torch.where(known, sequence, torch.zeros_like(sequence))
        if total == 0:
            start = count = torch.zeros_like(sequence)
        elif row_splits is not None:
            start, stop = row_splits[:-1][safe], row_splits[1:][safe]
            known = known & (start >= 0) & (stop >= start) & (stop <= samples)
            count = stop - start
        else:
            start = safe * samples
            count = torch.full_like(safe, samples) if lengths is None else lengths[safe]
            known = known & (count >= 0) & (count <= samples)
        self.batch = sequence.shape[0]
        self.sequence = sequence
        self.known = known
        self.start = torch.where(known, start, torch.zeros_like(start))
        self.count = torch.where(known, count, torch.zeros_like(count))
        shared = row_splits is None and times.ndim == 1
        self.time_start = torch.zeros_like(self.start) if shared else self.start
        self.flat_times = times.reshape(-1)
        if self.flat_times.shape[0] == 0:
            self.flat_times = times.new_zeros(1)
        self._dense = row_splits is None
        self._steps = max(1, int(samples).bit_length()) if row_splits is not None else 0
        if self._dense:
            # Row by row, the padding moved behind every target.
            own = times.unsqueeze(0).expand(self.batch, samples) if shared else times[safe] if total > 0 else None
            if own is None:
                own = times.new_zeros((self.batch, samples))
            if lengths is not None or rows is not None:
                behind = _INT64_MAX if times.dtype == torch.int64 else torch.inf
                padding = torch.arange(samples, device=device) >= self.count.unsqueeze(-1)
                own = torch.where(padding, torch.full_like(own, behind), own)
            self._rows = own.contiguous()

    def time(self, index: Tensor) -> Tensor:
        """Stamps [B, T] of samples [B, T]; an index out of bounds reads some stamp."""
        place = self.time_start.unsqueeze(-1) + index.clamp(min=0)
        return self.flat_times[place.clamp(max=self.flat_times.shape[0] - 1)]

    def take(self, samples: Tensor, index: Tensor) -> Tensor:
        """Samples [B, T, d] out of all samples [N, d]; an index out of bounds reads some sample."""
        if samples.shape[0] == 0:
            samples = samples.new_zeros((1, samples.shape[1]))
        place = self.start.unsqueeze(-1) + index.clamp(min=0)
        return samples[place.clamp(max=samples.shape[0] - 1)]

    def count_until(self, time: Tensor, right: bool) -> Tensor:
        """How many samples of each sequence lie before `time` [B, T]; with `right` those at it count too."""
        if self._dense:
            found = torch.searchsorted(self._rows, time.contiguous(), right=right)
            return torch.minimum(found, self.count.unsqueeze(-1))
        low = torch.zeros_like(time, dtype=torch.int64)
        high = self.count.unsqueeze(-1).expand(low.shape)
        for _ in range(self._steps):
            middle = torch.div(low + high, 2, rounding_mode="floor")
            stamp = self.time(middle)
            counts = (stamp <= time if right else stamp < time) & (middle < high)
            low = torch.where(counts, middle + 1, low)
            high = torch.where(counts, high, middle)
        return low

    def spacing(self, i0: Tensor, i1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Lengths of the intervals before, in and after the bracket, in double; 0 where there is none."""
        t0, t1 = self.time(i0), self.time(i1)
        zero = torch.zeros(t0.shape, dtype=torch.float64, device=t0.device)
        left = torch.where(i0 > 0, as_double(elapsed(t0, self.time(i0 - 1))), zero)
        right = torch.where(i1 + 1 < self.count.unsqueeze(-1), as_double(elapsed(self.time(i1 + 1), t1)), zero)
        return left, as_double(elapsed(t1, t0)), right


# ---- Spans of time --------------------------------------------------------------------------------------------------


def elapsed(later: Tensor, earlier: Tensor) -> Tensor:
    """later - earlier in the time dtype; for int64 the bits of the unsigned difference, which is exact."""
    return later - earlier


def as_double(span: Tensor) -> Tensor:
    """A span as float64, an int64 one read as unsigned and rounded once."""
    if span.dtype != torch.int64:
        return span.to(torch.float64)
    high = ((span >> 32) & 0xFFFFFFFF).to(torch.float64)
    low = (span & 0xFFFFFFFF).to(torch.float64)
    return high * 4294967296.0 + low


def _less(a: Tensor, b: Tensor) -> Tensor:
    """a < b for spans."""
    return (a ^ _INT64_MIN) < (b ^ _INT64_MIN) if a.dtype == torch.int64 else a < b


def _at_most(a: Tensor, b: Tensor) -> Tensor:
    return (a ^ _INT64_MIN) <= (b ^ _INT64_MIN) if a.dtype == torch.int64 else a <= b


def _limit(value: float, like: Tensor) -> Tensor:
    """A length of time as the caller gave it, rounded to the time dtype (int64: the whole part, unsigned bits)."""
    if like.dtype == torch.int64:
        whole = 2**64 - 1 if value >= 2.0**64 else int(value)
        return torch.full((), whole - 2**64 if whole > _INT64_MAX else whole, dtype=torch.int64, device=like.device)
    if like.dtype == torch.float32 and value > _FLOAT32_MAX:
        value = torch.inf
    return torch.full((), value, dtype=like.dtype, device=like.device)


def _ratio(span: Tensor, gap: Tensor, used: Tensor) -> Tensor:
    """span / gap in double (float32 times: divided in float32), 0 where it is not used."""
    if span.dtype == torch.int64:
        span, gap = as_double(span), as_double(gap)
    safe = torch.where(used, gap, torch.ones_like(gap))
    return torch.where(used, span / safe, torch.zeros_like(safe)).to(torch.float64)


def shift_targets(target_times: Tensor, time_offset: float, row_offsets: Tensor | None, batch: int) -> Tensor:
    """Targets [B, T] as the stream's clock shows them; int64 ones stay at the end of the range instead of wrapping."""
    targets = target_times if target_times.ndim == 2 else target_times.unsqueeze(0).expand(batch, -1)
    if targets.dtype == torch.int64:
        offset = torch.full((1,), int(time_offset), dtype=torch.int64, device=targets.device)
        if row_offsets is not None:
            offset = _saturating_add(offset, row_offsets)
        return _saturating_add(targets, offset.unsqueeze(-1))
    offset = torch.full((1,), time_offset, dtype=targets.dtype, device=targets.device)
    if row_offsets is not None:
        offset = offset + row_offsets
    return targets + offset.unsqueeze(-1)


def _saturating_add(a: Tensor, b: Tensor) -> Tensor:
    total = a + b
    overflow = ((a ^ total) & (b ^ total)) < 0
    end = torch.where(a < 0, torch.full_like(total, _INT64_MIN), torch.full_like(total, _INT64_MAX))
    return torch.where(overflow, end, total)


# ---- Find and resolve -----------------------------------------------------------------------------------------------


def find(sequences: Sequences, targets: Tensor) -> Site:
    """rc_find for every target [B, T]."""
    n = sequences.count.unsqueeze(-1)
    nowhere = (n <= 0) | (targets != targets)
    first = sequences.time(torch.zeros_like(n)).expand(targets.shape)
    last = sequences.time(n - 1).expand(targets.shape)
    before = (targets < first) & ~nowhere
    after = (targets > last) & ~before & ~nowhere
    moved = torch.where(before, first, torch.where(after, last, targets)).detach()
    index = sequences.count_until(moved, right=True) - 1
    index = torch.where(moved >= last, n - 1, index)
    index = torch.minimum(index.clamp(min=0), n - 1)
    exact = (sequences.time(index) == moved) | (moved >= last)
    return Site(index, before, after, exact, nowhere)


def _first_equal(sequences: Sequences, index: Tensor) -> Tensor:
    return sequences.count_until(sequences.time(index), right=False)


def resolve(sequences: Sequences, targets: Tensor, site: Site, kind: int, options: Options) -> Bracket:
    """rc_resolve for every target [B, T]; `kind` is nearest, previous, next, or linear for all that interpolate."""
    n = sequences.count.unsqueeze(-1)
    i = site.at
    zero = torch.zeros(i.shape, dtype=torch.float64, device=i.device)
    inside = ~(site.before | site.after | site.nowhere)
    held = site.exact | (i + 1 >= n)
    between = inside & ~held
    following = torch.where(between, i + 1, i)
    t0, t1 = sequences.time(i), sequences.time(following)
    since, until, gap = elapsed(targets, t0), elapsed(t1, targets), elapsed(t1, t0)
    weight = zero
    step = kind in (_NEAREST, _PREVIOUS, _NEXT)
    held_at = _first_equal(sequences, i) if kind == _NEXT else i
    distance = since
    if kind == _PREVIOUS:
        i0 = i1 = i
    elif kind == _NEXT:
        i0 = i1 = torch.where(between, following, held_at)
        distance = until
    elif kind == _NEAREST:
        later = _less(until, since) & between
        last_equal = sequences.count_until(t1, right=True) - 1
        i0 = i1 = torch.where(later, last_equal, i)
        distance = torch.where(later, until, since)
    else:
        i0, i1 = i, following
        weight = _ratio(since, gap, between)
        distance = torch.where(_less(until, since), until, since)
    valid = _at_most(gap, _limit(_infinite_if_none(options.max_gap), gap))
    if options.tolerance >= 0:
        valid = valid & _at_most(distance, _limit(options.tolerance, gap))
    valid = inside & (held | valid)
    outside = ~inside
    if step:
        if options.tolerance >= 0:
            first = sequences.time(torch.zeros_like(i))
            beyond = torch.where(site.before, elapsed(first, targets), elapsed(targets, sequences.time(n - 1 + 0 * i)))
            admitted = (site.before | site.after) & _at_most(beyond, _limit(options.tolerance, gap))
            valid = valid | admitted
            outside = outside & ~admitted
    elif options.extrapolate == _EXTRAPOLATE_LINEAR:
        beyond_end = site.before | site.after
        j = torch.where(site.before, i, _first_equal(sequences, i) - 1)
        usable = beyond_end & (j >= 0) & (j + 1 < n)
        t0 = sequences.time(j)
        gap = elapsed(sequences.time(j + 1), t0)
        forward = _ratio(elapsed(targets, t0), gap, usable & site.after)
        backward = _ratio(elapsed(t0, targets), gap, usable & site.before)
        weight = torch.where(usable, torch.where(site.before, -backward, forward), weight)
        i0 = torch.where(usable, j, i0)
        i1 = torch.where(usable, j + 1, i1)
    nothing = torch.full_like(i, -1)
    return Bracket(
        torch.where(site.nowhere, nothing, i0), torch.where(site.nowhere, nothing, i1), weight, valid, outside
    )


def _infinite_if_none(span: float) -> float:
    return span if span >= 0 else torch.inf
