"""Reference for temporal alignment: plain torch, any device, vectorised.

Equal to the native kernels bit for bit for every kind but pchip and slerp (2 units in the last place of float32), and
differentiable by autograd. Each operation rounds on its own, and nothing is divided by a Python number: torch
multiplies by the reciprocal there on CUDA, which rounds otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._kinds import KINDS
from . import curves
from .locate import Bracket, Sequences, find, resolve, shift_targets
from .sound import check_data

if TYPE_CHECKING:
    from .._call import Prepared

_LINEAR, _NEAREST, _PREVIOUS, _NEXT = (KINDS[name] for name in ("linear", "nearest", "previous", "next"))
_PCHIP, _ANGLE = KINDS["pchip"], KINDS["angle"]
_NAN = 1  # of both policies


def to_dtype(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounds to `dtype`; to float16 and bfloat16 by way of float32, as the kernels do."""
    if dtype in (torch.float16, torch.bfloat16) and values.dtype not in (dtype, torch.float32):
        values = values.to(torch.float32)
    return values.to(dtype)


def _read_kind(kind: int) -> int:
    """Kinds that read the same samples share a bracket: linear stands for pchip, slerp and angle."""
    return kind if kind in (_NEAREST, _PREVIOUS, _NEXT) else _LINEAR


def _interpolate(kind: int, samples: Tensor, sequences: Sequences, bracket: Bracket, out_dtype: torch.dtype) -> Tensor:
    """Values [B, T, d] of one column group of samples [N, d]."""
    copy = (bracket.i0 == bracket.i1).unsqueeze(-1)
    v0 = sequences.take(samples, bracket.i0)
    if _read_kind(kind) != _LINEAR:
        return to_dtype(v0, out_dtype)
    v1 = sequences.take(samples, bracket.i1)
    if kind in (_LINEAR, _ANGLE):
        compute = torch.float64 if samples.dtype == torch.float64 else torch.float32
        v0, v1 = v0.to(compute), v1.to(compute)
        weight = bracket.weight.to(compute).unsqueeze(-1)
        step = torch.where(copy, torch.zeros_like(v0), v1 - v0)
        if kind == _LINEAR:
            return to_dtype(torch.where(copy, v0, v0 + weight * step), out_dtype)
        return to_dtype(torch.where(copy, curves.wrap(v0), curves.wrap(v0 + weight * curves.wrap(step))), out_dtype)
    weight = bracket.weight.to(torch.float64).unsqueeze(-1)
    d0, d1 = v0.to(torch.float64), v1.to(torch.float64)
    if kind == _PCHIP:
        spacing = [length.unsqueeze(-1) for length in sequences.spacing(bracket.i0, bracket.i1)]
        before = sequences.take(samples, bracket.i0 - (spacing[0].squeeze(-1) > 0).to(torch.int64))
        after = sequences.take(samples, bracket.i1 + (spacing[2].squeeze(-1) > 0).to(torch.int64))
        result = curves.pchip((before.to(torch.float64), d0, d1, after.to(torch.float64)), spacing, weight)
    else:
        quaternions = (*d0.shape[:-1], d0.shape[-1] // 4, 4)
        # Where a sample is copied the curve is not used; equal quaternions there would have gradients of NaN.
        apart = torch.arange(d0.shape[-1], device=d0.device) % 4
        d0 = torch.where(copy, (apart == 0).to(torch.float64), d0)
        d1 = torch.where(copy, (apart == 1).to(torch.float64), d1)
        result = curves.slerp(d0.reshape(quaternions), d1.reshape(quaternions), weight.unsqueeze(-1)).reshape(d0.shape)
    return torch.where(copy, to_dtype(v0, out_dtype), to_dtype(result, out_dtype))


def _align_stream(p: Prepared, target_times: Tensor, index: int, out_dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    """One stream's column groups, each [B, T, d], and its mask [B, T]."""
    options = p.options
    sequences = Sequences(p.values, p.times, p.lengths, p.row_splits, p.rows)
    targets = shift_targets(target_times, options.time_offset, p.row_offsets, sequences.batch)
    site = find(sequences, targets)
    groups: Sequence[tuple[Any, Any, int]]
    groups = ((0, p.columns, options.kind),) if options.groups is None else options.groups
    brackets: dict[int, Bracket] = {}
    for kind in [group[2] for group in groups] or [_LINEAR]:
        read = _read_kind(kind)
        if read not in brackets:
            brackets[read] = resolve(sequences, targets, site, read, options)
    valid: Tensor | None = None
    for bracket in brackets.values():
        valid = bracket.valid if valid is None else valid & bracket.valid
    assert valid is not None
    check_data(p, sequences, targets, brackets.values(), valid, index)
    samples = p.values if p.row_splits is not None else p.values.flatten(0, 1)
    missing = torch.nan if out_dtype.is_floating_point else 0
    parts = []
    for begin, end, kind in groups:
        bracket = brackets[_read_kind(kind)]
        blank = bracket.i0 < 0
        if options.extrapolate == _NAN:
            blank = blank | bracket.outside
        if options.invalid == _NAN:
            blank = blank | ~valid
        part = _interpolate(kind, samples[:, begin:end], sequences, bracket, out_dtype)
        parts.append(torch.where(blank.unsqueeze(-1), torch.full_like(part, missing), part))
    return parts, valid


def align(
    prepared: Sequence[Prepared], target_times: Tensor, out_dtype: torch.dtype, return_valid: bool
) -> tuple[Tensor, Tensor | None]:
    """Aligns checked streams; see robocache.fuse_multimodal for what they mean.

    Args:
        prepared: the streams, from robocache.align.
        target_times: [B, T] or [T].
        out_dtype: of the output.
        return_valid: whether the mask is wanted.

    Returns:
        [B, T, sum of D], and a mask [B, T, streams] or None.

    Raises:
        DataError: on the CPU, where the data breaks a promise; on CUDA only with ROBOCACHE_CHECK=sync.
    """
    columns: list[Tensor] = []
    masks = []
    for index, p in enumerate(prepared):
        parts, valid = _align_stream(p, target_times, index, out_dtype)
        columns += parts
        masks.append(valid)
    if columns:
        out = torch.cat(columns, -1)
    else:
        out = torch.empty((*masks[0].shape, 0), dtype=out_dtype, device=target_times.device)
    return out, torch.stack(masks, -1) if return_valid else None
