"""Temporal alignment of sensor streams: `resample_trajectories` and `fuse_multimodal` on torch tensors.

A call goes the shortest way there is. Plain eager tensors without gradients go straight into the native library;
everything else (gradients, torch.compile, vmap, subclasses, modes) goes through torch.ops.robocache; backend="torch" is
the plain torch reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from . import _dispatch
from ._call import run
from ._checks import named_streams
from ._fast import fuse as _fast_fuse
from ._fast import resample as _fast_resample
from ._kinds import Kind
from ._stream import Stream


def resample_trajectories(
    values: Tensor,
    times: Tensor,
    target_times: Tensor,
    *,
    kind: Kind = "linear",
    lengths: Tensor | None = None,
    row_splits: Tensor | None = None,
    rows: Tensor | None = None,
    extrapolate: str = "clamp",
    max_gap: float | None = None,
    tolerance: float | None = None,
    invalid: str = "keep",
    time_offset: float | Tensor | None = None,
    return_valid: bool = False,
    out_dtype: torch.dtype | None = None,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Any:
    """Reads a stream of samples at new times.

    Times are float32, float64 or int64 in any one unit, the same dtype for sources and targets. Intervals are half
    open; a target that equals a stamp returns that sample bit for bit, the last one where stamps are equal. Sources
    must not go backwards in time, targets may stand in any order.

    Args:
        values: samples [B, S, D] of float16, bfloat16, float32, float64, bool, uint8 or int8 to int64, any strides.
            With `row_splits` packed [N, D]. One sequence alone may come as [S, D] with times [S] and targets [T].
        times: stamps of the samples, [B, S], or [S] for all sequences; packed [N].
        target_times: where to read, [B, T], or [T] for all rows.
        kind: "linear", "nearest" (a tie takes the earlier sample), "previous" (the last sample at or before the
            target), "next", "pchip" (shape-preserving cubic; Fritsch and Butland, SIAM J. Sci. Stat. Comput. 5, 1984),
            "slerp_xyzw" and "slerp_wxyz" (quaternions along the shorter arc; Shoemake, SIGGRAPH 1985), "angle"
            (radians along the shorter arc, in [-pi, pi)); or a sequence of (columns, kind) that covers every column
            once, columns being an int, a slice, a sequence of ints, or `...` for all others. Integer values take
            "nearest", "previous" and "next".
        lengths: [B], samples that count in each sequence; what follows is never read.
        row_splits: [R + 1], sequence r is samples row_splits[r] to row_splits[r + 1] of packed values.
        rows: [B], the sequence each output row reads. Without it, row b reads sequence b.
        extrapolate: at targets outside the samples: "clamp" (the nearer end's sample), "nan", "linear" (the line
            through the end's two samples; pchip its tangent, slerp and angle a constant rate, step kinds hold) or
        "raise". max_gap: longest bracket, in units of time, across which a target is valid. An exact hit always is.
        tolerance: furthest sample, in units of time, from which a target is valid; "nearest", "previous" and "next"
            then also accept targets that far outside the samples.
        invalid: at targets that are not valid: "keep" what was computed, "nan", or "raise".
        time_offset: the stream's latency, a number or [B] in the dtype of the times: a sample stamped t was taken at
            t - time_offset.
        return_valid: also return the mask of valid targets.
        out_dtype: dtype of the output; that of the values where None. fp16, bf16 and fp32 compute in fp32, fp64 in
        fp64. out: tensor [B, T, D] to fill, any strides; not together with gradients.
        backend: "auto" (the native kernels for the tensors' device; host tensors go through a GPU and back where that
            takes less time, see `robocache.explain`), "cpu", "cuda", or "torch" (the plain torch reference). A backend
            that is named and cannot run raises.

    Returns:
        [B, T, D] ([T, D] for one sequence alone), or with `return_valid` that and a bool mask [B, T]. A sequence
        without samples gives NaN (0 for integers), not valid.

    Raises:
        ValueError, TypeError: an argument does not fit, with its name, what was expected and what came.
        DataError: the data breaks a promise (times backwards or NaN, a "raise" policy). On CUDA this is deferred:
            `robocache.check()` raises it.

    Gradients reach `values`, and `target_times` where they are floating and the kind is linear or pchip.

    Example:
        >>> values = torch.tensor([[[0.0], [10.0]]])
        >>> robocache.resample_trajectories(values, torch.tensor([0.0, 1.0]), torch.tensor([0.25, 0.5]))
        tensor([[[2.5000],
                 [5.0000]]])
    """
    if _dispatch.ACTIVE and _dispatch.considers(values) and (routed := _dispatch.route("resample", locals())):
        return routed.answer
    if not is_compiling():
        done = _fast_resample(
            values,
            times,
            target_times,
            kind,
            lengths,
            row_splits,
            rows,
            extrapolate,
            max_gap,
            tolerance,
            invalid,
            time_offset,
            return_valid,
            out_dtype,
            out,
            backend,
        )
        if done is not NotImplemented:
            return done
    stream = Stream(
        values, times, kind, lengths, row_splits, rows, extrapolate, max_gap, tolerance, invalid, time_offset
    )
    return run(False, (stream,), ("",), target_times, return_valid, out_dtype, out, backend)


def fuse_multimodal(
    streams: Sequence[Stream] | Mapping[str, Stream],
    target_times: Tensor,
    *,
    return_valid: bool = False,
    out_dtype: torch.dtype | None = None,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Any:
    """Reads several streams, each with its own clock, at the same targets and puts them side by side.

    One kernel launch for up to 16 streams of any rates, lengths, kinds and dtypes; equal, bit for bit, to the streams
    resampled one by one and concatenated.

    Args:
        streams: a sequence of `Stream`, or a dict of them (`fused_columns` then tells which columns are whose).
        target_times: [B, T], or [T] for all rows.
        return_valid: also return the mask of valid targets.
        out_dtype: dtype of the output; the streams' common one (torch.promote_types) where None.
        out: tensor [B, T, sum of D] to fill, any strides; not together with gradients.
        backend: as in `resample_trajectories`.

    Returns:
        [B, T, sum of D], columns in the order of the streams; with `return_valid` also a bool mask [B, T, streams].
        [T, sum of D] and [T, streams] when every stream is one sequence alone [S, D].

    Raises:
        ValueError, TypeError, DataError: as in `resample_trajectories`.

    Example:
        >>> arm = robocache.Stream(torch.randn(4, 100, 7), torch.linspace(0, 1, 100))
        >>> hand = robocache.Stream(torch.randn(4, 30, 2), torch.linspace(0, 1, 30), kind="previous")
        >>> robocache.fuse_multimodal([arm, hand], torch.linspace(0, 1, 50)).shape
        torch.Size([4, 50, 9])
    """
    if _dispatch.ACTIVE and _dispatch.considers_any(streams) and (routed := _dispatch.route("fuse", locals())):
        return routed.answer
    if not is_compiling():
        done = _fast_fuse(streams, target_times, return_valid, out_dtype, out, backend)
        if done is not NotImplemented:
            return done
    items, names = named_streams(streams)
    return run(True, items, names, target_times, return_valid, out_dtype, out, backend)
