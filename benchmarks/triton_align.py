"""The align peer in Triton: one program a sample row and tile of targets, all streams of a fused call in one launch.

A program finds the brackets of its targets by bisection (the stamps of one row stay in the first-level cache), keeps
indices and weights in registers, and walks the columns in blocks. Written for dense and `lengths` rows of linear and
step kinds; tile, block of columns and warps are autotuned. Import this only where Triton is installed.
"""
# ruff: noqa: N803, N806 - sizes are named as in the shapes, constants of a compilation in capitals

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

from .cases import Inputs

STREAMS = 3  # most streams of one launch
KINDS = {"linear": 0, "previous": 1, "next": 2, "nearest": 3}


@triton.jit
def _stream(
    values,  # [B, S, D]
    times,  # [B, S]
    lengths,  # [B] int64
    targets,  # [B, T]
    out,  # [B, T, columns]
    row,
    tile,
    S,
    T,
    columns,
    begin,
    D: tl.constexpr,
    KIND: tl.constexpr,
    STEPS: tl.constexpr,
    RAGGED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One stream's part of a tile: the brackets of its targets, then their columns."""
    row = row.to(tl.int64)
    t = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    inside = t < T
    target = tl.load(targets + row * T + t, mask=inside, other=0)
    count = S
    if RAGGED:
        count = tl.load(lengths + row).to(tl.int32)
    # How many stamps are not after the target, by bisection; `low` and `high` meet after STEPS halvings.
    low = tl.zeros([BLOCK_T], dtype=tl.int32)
    high = low + count
    stamps = times + row * S
    for _ in range(STEPS):
        middle = (low + high) // 2
        open_ = low < high
        stamp = tl.load(stamps + middle, mask=open_ & inside, other=0)
        later = open_ & (stamp <= target)
        low = tl.where(later, middle + 1, low)
        high = tl.where(later, high, middle)
    last = tl.maximum(tl.minimum(low, count - 1), 1)
    first = last - 1
    t0 = tl.load(stamps + first, mask=inside, other=0)
    t1 = tl.load(stamps + last, mask=inside, other=1)
    if values.dtype.element_ty == tl.float64:
        weight = (target - t0).to(tl.float64) / (t1 - t0).to(tl.float64)
    else:
        weight = (target - t0).to(tl.float32) / (t1 - t0).to(tl.float32)
    weight = tl.minimum(tl.maximum(weight, 0.0), 1.0)

    source = values + row * S * D
    sink = out + row * T * columns + begin
    for block in tl.static_range(0, D, BLOCK_D):
        d = block + tl.arange(0, BLOCK_D)
        mask = inside[:, None] & (d < D)[None, :]
        place = sink + t[:, None] * columns + d[None, :]
        if KIND == 0:
            v0 = tl.load(source + first[:, None] * D + d[None, :], mask=mask, other=0).to(weight.dtype)
            v1 = tl.load(source + last[:, None] * D + d[None, :], mask=mask, other=0).to(weight.dtype)
            tl.store(place, (v0 + weight[:, None] * (v1 - v0)).to(out.dtype.element_ty), mask=mask)
        else:
            if KIND == 1:
                chosen = tl.where(weight >= 1, last, first)
            elif KIND == 2:
                chosen = tl.where(weight > 0, last, first)
            else:
                chosen = tl.where(weight > 0.5, last, first)
            held = tl.load(source + chosen[:, None] * D + d[None, :], mask=mask, other=0)
            tl.store(place, held, mask=mask)


@triton.jit
def _align(
    values0,
    values1,
    values2,
    times0,
    times1,
    times2,
    lengths,
    targets,
    out,
    T,
    columns,
    S0,
    S1,
    S2,
    D0: tl.constexpr,
    D1: tl.constexpr,
    D2: tl.constexpr,
    KIND0: tl.constexpr,
    KIND1: tl.constexpr,
    KIND2: tl.constexpr,
    STEPS0: tl.constexpr,
    STEPS1: tl.constexpr,
    STEPS2: tl.constexpr,
    RAGGED: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK_T: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Program (tile, row, stream). COLUMNS is the widest block of columns; narrow streams take a narrower one."""
    tile = tl.program_id(0)
    row = tl.program_id(1)
    stream = tl.program_id(2)
    W0: tl.constexpr = triton.next_power_of_2(D0) if D0 < COLUMNS else COLUMNS
    if stream == 0:
        _stream(
            values0, times0, lengths, targets, out, row, tile, S0, T, columns, 0,
            D0, KIND0, STEPS0, RAGGED, BLOCK_T, W0,
        )  # fmt: skip
    if COUNT > 1:
        W1: tl.constexpr = triton.next_power_of_2(D1) if D1 < COLUMNS else COLUMNS
        if stream == 1:
            _stream(
                values1, times1, lengths, targets, out, row, tile, S1, T, columns, D0,
                D1, KIND1, STEPS1, RAGGED, BLOCK_T, W1,
            )  # fmt: skip
    if COUNT > 2:
        W2: tl.constexpr = triton.next_power_of_2(D2) if D2 < COLUMNS else COLUMNS
        if stream == 2:
            _stream(
                values2, times2, lengths, targets, out, row, tile, S2, T, columns, D0 + D1,
                D2, KIND2, STEPS2, RAGGED, BLOCK_T, W2,
            )  # fmt: skip


def _quick(kernel_call: Callable[[], Any], quantiles: Any) -> Any:
    """A short measurement of each configuration: a row has several, and a run many rows."""
    return triton.testing.do_bench(kernel_call, warmup=5, rep=20, quantiles=quantiles)


_CONFIGS = [
    triton.Config({"BLOCK_T": 16, "COLUMNS": 64}, num_warps=2),
    triton.Config({"BLOCK_T": 32, "COLUMNS": 64}, num_warps=4),
    triton.Config({"BLOCK_T": 32, "COLUMNS": 256}, num_warps=8),
    triton.Config({"BLOCK_T": 64, "COLUMNS": 64}, num_warps=4),
    triton.Config({"BLOCK_T": 128, "COLUMNS": 32}, num_warps=4),
]
# The interpreter, in which the tests without a GPU run this, has nothing to tune.
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_tuned = triton.autotune(
    _CONFIGS[1:2] if _INTERPRETED else _CONFIGS, key=["T", "columns", "S0", "S1", "S2"], do_bench=_quick
)(_align)


def bind(inputs: Inputs) -> Callable[[], torch.Tensor]:
    """A case's call on one input set; see `align_families.no_triton` for the cases that it can do."""
    case, streams, targets = inputs.case, inputs.streams, inputs.targets
    given = [*streams, *[streams[0]] * (STREAMS - len(streams))]  # the places of absent streams are never read
    values, times = [one["values"] for one in given], [one["times"] for one in given]
    samples, widths = [one.shape[1] for one in values], [one.shape[2] for one in values]
    lengths = streams[0].get("lengths")
    columns = sum(widths[: len(streams)])
    options: dict[str, Any] = {"RAGGED": lengths is not None, "COUNT": len(streams)}
    for place, stream in enumerate(given):
        options |= {f"S{place}": samples[place], f"D{place}": widths[place], f"KIND{place}": KINDS[stream["kind"]]}
        options[f"STEPS{place}"] = samples[place].bit_length()

    def call() -> torch.Tensor:
        out = torch.empty(case.batch, case.targets, columns, dtype=values[0].dtype, device=targets.device)
        _tuned[lambda meta: (triton.cdiv(case.targets, meta["BLOCK_T"]), case.batch, len(streams))](
            *values, *times, targets if lengths is None else lengths, targets, out, case.targets, columns, **options
        )
        return out

    return call
