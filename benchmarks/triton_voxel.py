"""The dense voxelize peer in Triton: scatter with atomics, then finish only the cells that points reached.

Occupancy is a plain store of a one (bits: an atomic or), a count an atomic add. A mean adds rows of features into the
output and divides the cells whose count is over one; untouched cells stay the zeros of the fill. A maximum runs on
integers of the same order as the floats: the least of them is the pattern of -0.0, which an untouched cell keeps, so
that only cells that points reached are read again, and those with a negative maximum rewritten. Points of a block and
warps are autotuned. Import this only where Triton is installed.
"""
# ruff: noqa: N803, N806 - sizes are named as in the shapes, constants of a compilation in capitals

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .voxel_inputs import VoxelInputs

_OCCUPANCY = {"bool": torch.bool, "uint8": torch.uint8, "float32": torch.float32}


@triton.jit
def _cell_of(points, i, inside, N, low, edge, X, Y, Z):
    """The flat cell of points [B * N, 3] at i, and which of them lie in the grid."""
    at = i.to(tl.int64) * 3
    # Off the block a point outside of every grid, so that the comparison alone says what counts. Division rounds as
    # IEEE says: whole rays of a scan lie on the face of a cell.
    x = tl.load(points + at, mask=inside, other=float("inf")) - tl.load(low)
    y = tl.load(points + at + 1, mask=inside, other=0.0) - tl.load(low + 1)
    z = tl.load(points + at + 2, mask=inside, other=0.0) - tl.load(low + 2)
    x = tl.floor(tl.div_rn(x, tl.load(edge)))
    y = tl.floor(tl.div_rn(y, tl.load(edge + 1)))
    z = tl.floor(tl.div_rn(z, tl.load(edge + 2)))
    held = (x >= 0) & (x < X) & (y >= 0) & (y < Y) & (z >= 0) & (z < Z)
    x, y, z = tl.where(held, x, 0.0), tl.where(held, y, 0.0), tl.where(held, z, 0.0)
    column = ((i // N).to(tl.int64) * X + x.to(tl.int32)) * Y + y.to(tl.int32)
    return column, z.to(tl.int32), held


@triton.jit
def _mark(
    points,  # [B * N, 3]
    low,  # [3]
    edge,  # [3]
    occupancy,  # [B, X, Y, Z], or words of bits
    counts,  # [B, X, Y, Z] int32
    total,
    N,
    X,
    Y,
    Z,
    OCCUPANCY: tl.constexpr,
    BITS: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """What needs no features: occupancy and counts."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column, z, held = _cell_of(points, i, i < total, N, low, edge, X, Y, Z)
    if OCCUPANCY:
        if BITS:
            byte = column * ((Z + 7) // 8) + z // 8
            bit = ((byte % 4) * 8 + z % 8).to(tl.int32)
            tl.atomic_or(occupancy + byte // 4, tl.full([BLOCK], 1, tl.int32) << bit, mask=held, sem="relaxed")
        else:
            one = tl.full([BLOCK], 1, tl.int32).to(occupancy.dtype.element_ty)
            tl.store(occupancy + column * Z + z, one, mask=held)
    if COUNT:
        tl.atomic_add(counts + column * Z + z, tl.full([BLOCK], 1, tl.int32), mask=held, sem="relaxed")


@triton.jit
def _reduce(
    points,
    features,  # [B * N, C] fp32
    low,
    edge,
    sums,  # [B, X, Y, Z, C] fp32, or its bits as int32
    counts,  # [B, X, Y, Z]: int32 counts, or uint8 flags
    total,
    N,
    X,
    Y,
    Z,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    MEAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Rows of features into their cells."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column, z, held = _cell_of(points, i, i < total, N, low, edge, X, Y, Z)
    cell = column * Z + z
    c = tl.arange(0, WIDTH)
    mask = held[:, None] & (c < C)[None, :]
    row = tl.load(features + i.to(tl.int64)[:, None] * C + c[None, :], mask=mask, other=0.0)
    place = sums + cell[:, None] * C + c[None, :]
    if MEAN:
        tl.atomic_add(place, row, mask=mask, sem="relaxed")
        tl.atomic_add(counts + cell, tl.full([BLOCK], 1, tl.int32), mask=held, sem="relaxed")
    else:
        bits = row.to(tl.int32, bitcast=True)
        tl.atomic_max(place, tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits), mask=mask, sem="relaxed")
        tl.store(counts + cell, tl.full([BLOCK], 1, tl.int32).to(tl.uint8), mask=held)


@triton.jit
def _finish(sums, counts, cells, C: tl.constexpr, WIDTH: tl.constexpr, MEAN: tl.constexpr, BLOCK: tl.constexpr):
    """Divides sums, or turns integers back into floats, where points were."""
    cell = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    count = tl.load(counts + cell, mask=cell < cells, other=0).to(tl.int32)
    c = tl.arange(0, WIDTH)
    place = sums + cell[:, None] * C + c[None, :]
    if MEAN:
        mask = (count > 1)[:, None] & (c < C)[None, :]
        held = tl.load(place, mask=mask, other=0.0)
        tl.store(place, held / tl.maximum(count, 1).to(tl.float32)[:, None], mask=mask)
    else:
        mask = (count > 0)[:, None] & (c < C)[None, :]
        held = tl.load(place, mask=mask, other=0)
        tl.store(place, held ^ 0x7FFFFFFF, mask=mask & (held < 0))


def _quick(kernel_call: Callable[[], Any], quantiles: Any) -> Any:
    """A short measurement of each configuration."""
    return triton.testing.do_bench(kernel_call, warmup=5, rep=20, quantiles=quantiles)


_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def _tuned(kernel: Any, key: list[str], choices: list[tuple[int, int]]) -> Any:
    """The kernel, autotuned over (points or cells of a block, warps); the interpreter has nothing to tune.

    Tuning runs the kernel many times over, so the first call's output is no answer (see peer_set.time_peer).
    """
    configs = [triton.Config({"BLOCK": block}, num_warps=warps) for block, warps in choices]
    return triton.autotune(configs[:1] if _INTERPRETED else configs, key=key, do_bench=_quick)(kernel)


_mark_tuned = _tuned(_mark, ["total", "X", "Y", "Z"], [(256, 4), (512, 4), (1024, 4), (1024, 8)])
_reduce_tuned = _tuned(_reduce, ["total", "X", "Y", "Z"], [(32, 4), (64, 4), (128, 4), (256, 8)])
_finish_tuned = _tuned(_finish, ["cells"], [(128, 4), (256, 4), (512, 8)])


def _blocks(total: int) -> Callable[[dict[str, int]], tuple[int]]:
    return lambda meta: (triton.cdiv(total, meta["BLOCK"]),)


def bind(inputs: VoxelInputs) -> Callable[[], Any]:
    """A dense case's call on one input set; see `voxel_families.no_triton` for the cases that it can do."""
    case, points, features = inputs.case, inputs.points, inputs.features
    (X, Y, Z), total, outs = case.size, case.all_points, dict(case.out)
    device = points.device
    low = torch.tensor(case.grid_min, dtype=torch.float32, device=device)
    edge = torch.tensor(case.voxel, dtype=torch.float32, device=device)
    names, cells = case.reduce, case.batch * case.cells
    shape = (case.batch, X, Y, Z)
    grid = {"N": case.points, "X": X, "Y": Y, "Z": Z}
    width = triton.next_power_of_2(case.columns) if case.columns else 1
    dtype = outs.get("occupancy", "bool")
    row_bytes = (Z + 7) // 8

    def mark(made: dict[str, Tensor]) -> None:
        counted = "count" in names and "mean" not in names  # a mean counts as it adds
        if "occupancy" not in names and not counted:
            return
        kind = _OCCUPANCY.get(dtype, torch.uint8)
        bits = dtype == "bits"
        size = -(-case.batch * X * Y * row_bytes // 4) * 4 if bits else cells
        grid_out = torch.zeros(size if "occupancy" in names else 1, dtype=kind, device=device)
        counts = torch.zeros(shape if counted else (1,), dtype=torch.int32, device=device)
        words = grid_out.view(torch.int32) if bits and "occupancy" in names else grid_out
        flags = {"OCCUPANCY": "occupancy" in names, "BITS": bits, "COUNT": counted}
        words = words.view(torch.uint8) if kind == torch.bool else words
        _mark_tuned[_blocks(total)](points, low, edge, words, counts, total, **grid, **flags)
        if "occupancy" in names:
            trimmed = grid_out[: case.batch * X * Y * row_bytes].view(case.batch, X, Y, row_bytes)
            made["occupancy"] = trimmed if bits else grid_out.view(shape)
        if counted:
            made["count"] = counts

    def reduce(made: dict[str, Tensor]) -> None:
        name = next((one for one in names if one in ("mean", "max")), None)
        if name is None:
            return
        mean = name == "mean"
        size = (*shape, case.columns)
        sums = torch.zeros(size, device=device) if mean else torch.full(size, -0.0, device=device)
        counts = torch.zeros(shape, dtype=torch.int32 if mean else torch.uint8, device=device)
        target = sums if mean else sums.view(torch.int32)
        fixed = {"C": case.columns, "WIDTH": width, "MEAN": mean}
        _reduce_tuned[_blocks(total)](points, features, low, edge, target, counts, total, **grid, **fixed)
        _finish_tuned[_blocks(cells)](target, counts, cells, **fixed)
        made[name] = sums
        if "count" in names:
            made["count"] = counts

    def call() -> Any:
        made: dict[str, Tensor] = {}
        mark(made)
        reduce(made)
        return {name: made[name] for name in names} if len(names) > 1 else made[names[0]]

    return call
