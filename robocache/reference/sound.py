"""What only the data can tell, for the reference: the first fault by stream, row and position, as on the CPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor

from .._backend import checks_synchronously
from .._errors import FAULTS, data_error
from .locate import Bracket, Sequences

if TYPE_CHECKING:
    from .._call import Prepared

_RAISE_OUTSIDE, _RAISE_INVALID = 3, 2
_FLOAT32_INTEGER_LIMIT = 16777216.0

_SENTENCES = {
    "time_not_finite": "times: stream {s}, sequence {r}, sample {p} is NaN or infinite; expected finite times "
    "(cut padding off with lengths)",
    "time_backwards": "times: stream {s}, sequence {r}, sample {p} is earlier than the sample before it; expected "
    "times that never decrease",
    "time_collapsed": "times: stream {s}, sequence {r}, sample {p}: float32 cannot resolve these times, distinct "
    "stamps became equal; pass int64 nanoseconds or float64 seconds, or subtract the start before narrowing",
    "target_nan": "target_times: row {r}, target {p} is NaN (after the time offset of stream {s})",
    "out_of_range": "target_times: row {r}, target {p} lies outside the samples of stream {s} and extrapolate is "
    '"raise"',
    "invalid_target": "target_times: row {r}, target {p} is not valid in stream {s} (out of range, or max_gap or "
    'tolerance is exceeded) and invalid is "raise"',
    "length": "lengths: stream {s}, sequence {r}: expected a length between 0 and the number of samples",
    "row_splits": "row_splits: stream {s}, sequence {r}: expected offsets that never decrease, between 0 and the "
    "number of samples",
    "row": "rows: stream {s}, row {r}: expected the index of a sequence, at least 0 and below their number",
}


def _raise(fault: str, s: int, row: int, position: int) -> NoReturn:
    raise data_error(_SENTENCES[fault].format(s=s, r=row, p=position), FAULTS.index(fault), s, row, position)


def _time_faults(sequences: Sequences) -> Tensor:
    """The fault of each sample [B, S], 0 where there is none."""
    longest = int(sequences.count.max()) if sequences.batch else 0
    index = torch.arange(longest, device=sequences.start.device).unsqueeze(0).expand(sequences.batch, longest)
    times = sequences.time(index)
    used = index < sequences.count.unsqueeze(-1)
    faults = torch.zeros_like(index)
    if longest == 0:
        return faults
    earlier = torch.cat([times[:, :1], times[:, :-1]], -1)
    if times.dtype == torch.float32:
        inner = index > 0
        tied = (times == earlier) & inner
        minimal = (earlier < times) & (torch.nextafter(earlier, times) == times) & inner
        seen_tied = tied.to(torch.int8).cummax(-1).values > 0
        seen_minimal = minimal.to(torch.int8).cummax(-1).values > 0
        collapsed = (seen_tied & seen_minimal) | (tied & (times.abs() >= _FLOAT32_INTEGER_LIMIT))
        faults = torch.where(collapsed & inner, FAULTS.index("time_collapsed"), faults)
    faults = torch.where(times < earlier, FAULTS.index("time_backwards"), faults)
    if times.is_floating_point():
        faults = torch.where(~torch.isfinite(times), FAULTS.index("time_not_finite"), faults)
    return torch.where(used, faults, torch.zeros_like(faults))


def _first(faulty: Tensor) -> int:
    """Index of the first True of a vector; its length if there is none."""
    found = torch.nonzero(faulty)
    return int(found[0]) if found.shape[0] else int(faulty.shape[0])


def check_data(
    p: Prepared, sequences: Sequences, targets: Tensor, brackets: Iterable[Bracket], valid: Tensor, s: int
) -> None:
    """Raises the first DataError of stream `s`. Reads the data, so not while compiling or under a functorch transform,
    and on CUDA only when ROBOCACHE_CHECK=sync."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or targets.is_meta:
        return
    if targets.device.type != "cpu" and not checks_synchronously():
        return
    known, times = sequences.known, _time_faults(sequences)
    nan = targets != targets
    outside = torch.zeros_like(nan)
    if p.options.extrapolate == _RAISE_OUTSIDE:
        for bracket in brackets:
            outside = outside | bracket.outside
    invalid = ~valid if p.options.invalid == _RAISE_INVALID else torch.zeros_like(nan)
    refused = outside | invalid
    row = _first(~known | (times != 0).any(-1) | nan.any(-1) | refused.any(-1))
    if row == sequences.batch:
        return
    sequence = int(sequences.sequence[row])
    if not bool(known[row]):
        total = p.values.shape[0] if p.row_splits is None else p.row_splits.shape[0] - 1
        if not 0 <= sequence < total:
            _raise("row", s, row, 0)
        _raise("length" if p.row_splits is None else "row_splits", s, sequence, 0)
    if bool((times[row] != 0).any()):
        position = _first(times[row] != 0)
        _raise(FAULTS[int(times[row, position])], s, sequence, position)
    if bool(nan[row].any()):
        _raise("target_nan", s, row, _first(nan[row]))
    position = _first(refused[row])
    _raise("out_of_range" if bool(outside[row, position]) else "invalid_target", s, row, position)
