"""Voxelize by brute force for the tests of the reference: one point, one cell, one number at a time, in NumPy; and
calls of its operators to compare them on. Shares no code with the project."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

OCCUPANCY, COUNT, SUM, MEAN, MAX, MIN, ARGMAX, ARGMIN = range(8)
F32, F64, BOOL, U8, I32, I64, BITS = 2, 3, 4, 5, 8, 9, 11
ODD = (np.nan, np.inf, -np.inf, -0.0, 1e30, 1e-42, -1e-42, 2.9999998, 3.0, -1e-7)
INSIDE = (3, 2, 4)


def same_bits(got: torch.Tensor, want: Any) -> None:
    """Equal to the bit, but for the payload of a NaN."""
    wanted = np.asarray(want)
    assert got.shape == wanted.shape, (got.shape, wanted.shape)
    have = got.detach().numpy()
    assert have.dtype == wanted.dtype, (have.dtype, wanted.dtype)
    if wanted.dtype.kind == "f":
        np.testing.assert_array_equal(np.isnan(have), np.isnan(wanted))
        have, wanted = np.where(np.isnan(have), 0, have), np.where(np.isnan(wanted), 0, wanted)
        np.testing.assert_array_equal(np.signbit(have), np.signbit(wanted))
    np.testing.assert_array_equal(have, wanted)


# ---- Brute force ----------------------------------------------------------------------------------------------------


def brute_sum(values: list[Any]) -> Any:
    """128 neighbours from left to right, then their sums likewise."""
    while len(values) > 1:
        level = []
        for begin in range(0, len(values), 128):
            total = values[begin]
            for value in values[begin + 1 : begin + 128]:
                total = total + value
            level.append(total)
        values = level
    return values[0]


def brute_extreme(values: list[Any], largest: bool) -> int:
    best = 0
    for k, value in enumerate(values):
        if not np.isnan(values[best]) and (
            np.isnan(value) or (value > values[best] if largest else value < values[best])
        ):
            best = k
    return best


def brute_cells(points: np.ndarray, voxel: np.ndarray, low: np.ndarray, size: Any, bounds: int) -> tuple[Any, int]:
    """Each point's cell, (x, y, z) or None, and how many lie outside. The arithmetic is of the points' dtype."""
    cells: list[Any] = []
    outside = 0
    with np.errstate(all="ignore"):
        for point in points:
            q = [np.floor((point[d] - low[d]) / voxel[d]) for d in range(3)]
            inside = all(0 <= q[d] < size[d] for d in range(3))
            outside += not inside
            if inside or (bounds == 1 and not any(np.isnan(one) for one in q)):
                cells.append(tuple(int(max(0, min(size[d] - 1, q[d]))) for d in range(3)))
            else:
                cells.append(None)
    return cells, outside


def brute_pose(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    moved = np.empty_like(points)
    with np.errstate(all="ignore"):
        for n, (x, y, z) in enumerate(points):
            for r, row in enumerate(pose[:3]):
                moved[n, r] = ((row[0] * x + row[1] * y) + row[2] * z) + row[3]
    return moved


def brute_row(reduce: int, rows: list[np.ndarray], members: list[int]) -> np.ndarray:
    with np.errstate(all="ignore"):
        if reduce in (SUM, MEAN):
            total = np.array([brute_sum([row[c] for row in rows]) for c in range(len(rows[0]))])
            return total / rows[0].dtype.type(len(rows)) if reduce == MEAN else total
    best = [brute_extreme([row[c] for row in rows], reduce in (MAX, ARGMAX)) for c in range(len(rows[0]))]
    if reduce in (ARGMAX, ARGMIN):
        return np.array([members[k] for k in best])
    return np.array([rows[k][c] for c, k in enumerate(best)])


def brute_trilinear(grid: np.ndarray, place: list[Any]) -> np.ndarray:
    low = [np.floor(t) for t in place]
    weight = [t - q for t, q in zip(place, low, strict=True)]

    def value(corner: tuple[int, ...]) -> np.ndarray:
        at = tuple(int(max(0, min(s - 1, q + k))) for s, q, k in zip(grid.shape[:3], low, corner, strict=True))
        return np.asarray(grid[at])

    def blend(axis: int, v0: np.ndarray, v1: np.ndarray) -> np.ndarray:
        return np.asarray(v0 + weight[axis] * (v1 - v0))

    z = {(x, y): blend(2, value((x, y, 0)), value((x, y, 1))) for x in (0, 1) for y in (0, 1)}
    y = {x: blend(1, z[x, 0], z[x, 1]) for x in (0, 1)}
    return blend(0, y[0], y[1])


# ---- Calls -----------------------------------------------------------------------------------------------------------


@st.composite
def clouds(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of the operator: points with hostile numbers among them, frames of all forms."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    b, n, c = draw(st.integers(1, 3)), draw(st.sampled_from([0, 1, 6, 40])), draw(st.sampled_from([0, 1, 3]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.float16]))
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    points = torch.rand(b, n, 3, generator=generator) * 5 - 0.5
    odd = torch.tensor(ODD)[torch.randint(0, len(ODD), (b, n, 3), generator=generator)]
    points = torch.where(torch.rand(b, n, 3, generator=generator) < draw(st.sampled_from([0, 0.2])), odd, points)
    made: dict[str, Any] = {"points": points.to(dtype), "grid_size": list(INSIDE), "bounds": draw(st.integers(0, 1))}
    made["features"] = torch.randn(b, n, c, generator=generator)
    made |= {"voxel_size": [0.7, 1.0, 1.1], "grid_min": [-0.1, 0.0, 0.3]}
    if draw(st.booleans()):
        made["voxel_sizes"] = 0.5 + torch.rand(b, 3, generator=generator, dtype=compute)
    if draw(st.booleans()):
        made["grid_mins"] = torch.rand(1, 3, generator=generator, dtype=compute) - 0.5
    if draw(st.booleans()):
        made["mask"] = torch.rand(b, n, generator=generator) < 0.7
    if draw(st.booleans()):
        made["poses"] = torch.randn(draw(st.sampled_from([1, b])), 3, 4, generator=generator, dtype=compute)
    if draw(st.booleans()):
        edges = torch.randint(0, b * n + 1, (b + 1,), generator=generator).sort().values
        made |= {
            "row_splits": edges,
            "points": made["points"].flatten(0, 1),
            "features": made["features"].flatten(0, 1),
        }
        if "mask" in made:
            made["mask"] = made["mask"].flatten()
    return made


def samples_of(made: dict[str, Any]) -> list[dict[str, Any]]:
    """Each sample's counted points, moved, with cells, their indices and places in the call."""
    points, splits = made["points"], made.get("row_splits")
    compute = np.float64 if points.dtype == torch.float64 else np.float32
    flat, features = points.reshape(-1, 3).numpy().astype(compute), made["features"].flatten(0, -2).numpy()
    counted = np.ones(len(flat), bool) if made.get("mask") is None else made["mask"].flatten().numpy()
    per = points.shape[-2]
    spans = [(b * per, (b + 1) * per) for b in range(points.shape[0])]
    if splits is not None:
        spans = list(itertools.pairwise(splits.tolist()))
    samples = []
    for b, (begin, end) in enumerate(spans):
        places = [p for p in range(begin, end) if counted[p]]
        own = flat[places].reshape(-1, 3)
        if made.get("poses") is not None:
            own = brute_pose(own, made["poses"][b if len(made["poses"]) > 1 else 0].numpy())
        rows = []
        for name in ("voxel_size", "grid_min"):
            table = made.get(f"{name}s")
            rows.append(np.array(made[name], compute) if table is None else table[b if len(table) > 1 else 0].numpy())
        cells, outside = brute_cells(own, *rows, INSIDE, made["bounds"])
        samples.append({"begin": begin, "places": places, "cells": cells, "outside": outside, "features": features})
    return samples


def members_of(sample: dict[str, Any]) -> dict[Any, list[int]]:
    """Places by cell, in order of first appearance."""
    found: dict[Any, list[int]] = {}
    for place, cell in zip(sample["places"], sample["cells"], strict=True):
        if cell is not None:
            found.setdefault(cell, []).append(place)
    return found


def cell_number(cell: Any) -> int:
    return int((cell[0] * INSIDE[1] + cell[1]) * INSIDE[2] + cell[2])
