"""A sensor's samples with a clock of their own, as `fuse_multimodal` takes them. Imports neither torch nor NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._kinds import Kind


@dataclass(frozen=True, eq=False)
class Stream:
    """One stream of `fuse_multimodal`: tensors for robocache, arrays for robocache.numpy.

    Attributes:
        values: samples [B, S, D]; with `row_splits` packed [N, D]; one sequence alone [S, D].
        times: their stamps [B, S] or [S]; packed [N]. float32, float64 or int64, as the targets.
        kind: a name, or (columns, name) pairs; see `resample_trajectories`.
        lengths: [B], samples of each sequence that count; what follows is never read.
        row_splits: [R + 1], sequence r is samples row_splits[r] to row_splits[r + 1].
        rows: [B], the sequence that each output row reads.
        extrapolate: "clamp", "nan", "linear" or "raise".
        max_gap: longest bracket that is valid, in units of time.
        tolerance: furthest sample that is valid, in units of time.
        invalid: "keep", "nan" or "raise".
        time_offset: latency: a sample stamped t was taken at t - time_offset. A number or [B].

    Example:
        >>> Stream(torch.randn(2, 100, 7), torch.linspace(0, 1, 100), kind=[(slice(0, 3), "linear"),
        ...        (slice(3, 7), "slerp_xyzw")], max_gap=0.1)
    """

    values: Any
    times: Any
    kind: Kind = "linear"
    lengths: Any = None
    row_splits: Any = None
    rows: Any = None
    extrapolate: str = "clamp"
    max_gap: float | None = None
    tolerance: float | None = None
    invalid: str = "keep"
    time_offset: Any = None


def fused_columns(streams: Mapping[str, Stream]) -> dict[str, slice]:
    """The columns of `fuse_multimodal`'s output that each named stream fills.

    Example:
        >>> fused = robocache.fuse_multimodal(streams, targets)
        >>> imu = fused[..., robocache.fused_columns(streams)["imu"]]
    """
    columns = {}
    begin = 0
    for name, stream in streams.items():
        end = begin + int(stream.values.shape[-1])
        columns[name] = slice(begin, end)
        begin = end
    return columns
