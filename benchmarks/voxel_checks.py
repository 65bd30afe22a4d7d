"""What a voxelize row must hold before a time is written: its answers, and the bytes it must move.

Ours is compared bit for bit with the torch reference on the same device; clouds too large for that with an exact count
in plain torch, a few million points at a time.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .measure import CheckFailed, agree, ulps
from .voxel_cases import VoxelCase
from .voxel_inputs import VoxelInputs, bind, flat

LARGEST_REFERENCE = 1 << 23  # points of a call that the reference is asked to do


# ---- Ours ----------------------------------------------------------------------------------------------------------


def _exact_counts(inputs: VoxelInputs, chunk: int = 1 << 22) -> Tensor:
    """Points in each cell, int64 [B, X, Y, Z]: IEEE division by tensors, so that torch takes no reciprocal."""
    case, points = inputs.case, inputs.points
    low = torch.tensor(case.grid_min, device=points.device)
    edge = torch.tensor(case.voxel, device=points.device)
    size = torch.tensor(case.size, device=points.device)
    counts = torch.zeros(case.batch, case.cells, dtype=torch.int64, device=points.device)
    for sample in range(case.batch):
        for part in points[sample].split(chunk):
            q = torch.floor((part - low) / edge)
            q = q[((q >= 0) & (q < size)).all(-1)].long()
            cell = (q[:, 0] * case.size[1] + q[:, 1]) * case.size[2] + q[:, 2]
            counts[sample] += torch.bincount(cell, minlength=case.cells)
    return counts.view(case.batch, *case.size)


def check_ours(inputs: VoxelInputs, against: str = "reference") -> dict[str, Any]:
    """Compares the native kernel's answer with the reference's."""
    case = inputs.case
    device = next(tensor for tensor in inputs.tensors()).device.type
    got = flat(bind(inputs, device)())
    if against == "peer":
        from .voxel_peers import bind_peer, obvious

        return {
            "reference": "peer",
            **check_peer(case, "robocache against the peer", bind_peer(obvious(case), inputs)(), got),
        }
    if case.all_points > LARGEST_REFERENCE:
        if case.op != "dense" or case.reduce not in (("count",), ("occupancy",)):
            raise CheckFailed(f"no exact answer is known for {case.all_points} points")
        counts = _exact_counts(inputs)
        want = counts if case.reduce == ("count",) else counts > 0
        if not torch.equal(got[0].to(want.dtype), want) or int(got[0].max()) != int(want.max()):
            raise CheckFailed("robocache's grid is not the exact one")
        return {"reference": "exact counts"}
    want = flat(bind(inputs, "torch")())
    if len(want) != len(got):
        raise CheckFailed(f"robocache gives {len(got)} tensors, the reference {len(want)}")
    if case.exact:
        for place, (a, b) in enumerate(zip(got, want, strict=True)):
            if (distance := ulps(a, b)) > 0:
                raise CheckFailed(f"robocache's output {place} is {distance} ulp off the reference")
        return {"reference": "torch", "ulp": 0.0, "limit": 0.0}
    for place, (a, b) in enumerate(zip(got, want, strict=True)):
        scale = float(b.abs().max())
        distance = float((a.double() - b.double()).abs().max()) if a.shape == b.shape else math.inf
        if not distance <= 2e-5 * scale:
            raise CheckFailed(f"robocache's gradient {place} is off by {distance}, the largest is {scale}")
    return {"reference": "torch autograd", "limit": 2e-5}


# ---- Peers ---------------------------------------------------------------------------------------------------------


def _ids(coords: Tensor, case: VoxelCase) -> Tensor:
    """Cells of sparse rows [V, 3] in ascending order as they come; past the last voxel the largest number."""
    c = coords.long()
    cell = (c[:, 0] * case.size[1] + c[:, 1]) * case.size[2] + c[:, 2]
    return torch.where(coords[:, 0] < 0, torch.iinfo(torch.int64).max, cell)


def _agree_sparse(case: VoxelCase, name: str, got: list[Tensor], ours: list[Tensor]) -> dict[str, float]:
    """Compares rows of the same cell: a point that rounding moves to another cell moves all rows behind it."""
    shares = []
    for sample in range(case.batch):
        mine, other = _ids(ours[0][sample], case), _ids(got[0][sample], case)
        place = torch.searchsorted(other, mine).clamp_max(other.numel() - 1)
        used = mine < torch.iinfo(torch.int64).max
        same = used & (other[place] == mine)
        if int(used.sum()) == 0:
            raise CheckFailed(f"{name}: no voxel to compare")
        shares.append(float(same.sum() / used.sum()))
        for a, b in zip(got[1:-2], ours[1:-2], strict=True):  # features and counts; then num_voxels and inverse
            shares.append(agree(name, a[sample][place][same], b[sample][same], 0.999)["agree"])
        to_mine, to_other = ours[-1][sample], got[-1][sample]
        cell_mine = torch.where(to_mine < 0, -1, mine[to_mine.clamp_min(0)])
        cell_other = torch.where(to_other < 0, -1, other[to_other.clamp_min(0)])
        shares.append(float((cell_mine == cell_other).double().mean()))
    if min(shares) < 0.999:
        raise CheckFailed(f"{name}: {min(shares):.4%} of its voxels agree with robocache")
    return {"agree": min(shares)}


# The share of outputs in which a peer must agree. It differs where rounding moves a point across a face of its cell. Of
# a cloud that takes a division by a reciprocal, and a point within 2^-22 of its cell number of a face: far below 0.1 %.
# Of images the peer computes the point as well, by a matrix product that contracts and orders its sums in its own way.
# Depths are whole millimetres and cells one centimetre, so of cameras that look along an axis, one pixel in ten lies on
# a face to within that rounding; and a pixel that moves changes the mean colours of two cells.
_MUST_AGREE = {"images": 0.995}
_MUST_AGREE_ELSE = 0.999


def check_peer(case: VoxelCase, name: str, got: Any, ours: list[Tensor]) -> dict[str, float]:
    """A peer must compute the same thing, to its own rounding."""
    found = flat(got)
    if len(found) != len(ours):
        raise CheckFailed(f"{name} gives {len(found)} tensors, robocache {len(ours)}")
    if case.op == "sparse":
        return _agree_sparse(case, name, found, ours)
    share = _MUST_AGREE.get(case.op, _MUST_AGREE_ELSE)
    return {"agree": min(agree(name, a, b, share)["agree"] for a, b in zip(found, ours, strict=True))}


# ---- Bytes ---------------------------------------------------------------------------------------------------------


def _touched_rows(row: Tensor, total: int) -> int:
    used = torch.zeros(total, dtype=torch.bool, device=row.device)
    used[row[row >= 0]] = True
    return int(used.sum())


def _corner_rows(inputs: VoxelInputs) -> int:
    """Cells that trilinear reads touch."""
    case, points = inputs.case, inputs.points
    low, edge = torch.tensor(case.grid_min, device=points.device), torch.tensor(case.voxel, device=points.device)
    last = torch.tensor(case.size, device=points.device) - 1
    base = torch.floor((points - low) / edge - 0.5).long()
    offset = (torch.arange(case.batch, device=points.device) * case.cells)[:, None]
    used = torch.zeros(case.batch * case.cells, dtype=torch.bool, device=points.device)
    for corner in range(8):
        step = torch.tensor([corner >> 2 & 1, corner >> 1 & 1, corner & 1], device=points.device)
        at = torch.minimum((base + step).clamp_min(0), last)
        used[((at[..., 0] * case.size[1] + at[..., 1]) * case.size[2] + at[..., 2] + offset).flatten()] = True
    return int(used.sum())


def _bytes(*tensors: Tensor | None) -> int:
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


def bytes_moved(inputs: VoxelInputs, out: list[Tensor]) -> dict[str, int]:
    """Bytes a call must read and write: inputs once (of grids the cells that points touch), outputs once."""
    case = inputs.case
    count = {"points": _bytes(inputs.points, inputs.depth, inputs.intrinsics, inputs.poses)}
    count |= {"features": _bytes(inputs.features), "out": _bytes(*out)}
    if case.op in ("devoxelize", "devoxelize_backward"):
        rows = _corner_rows(inputs) * case.columns * 4
        count["grad"] = _bytes(inputs.grad)
        count["grid"] = rows if case.op == "devoxelize" or case.gradients[1] else 0
    elif case.op == "backward":
        rows = _touched_rows(inputs.inverse[0], case.cells)
        count["index"] = _bytes(inputs.inverse)
        count["grad"] = rows * case.columns * 4
        count["grid"] = rows * (4 if inputs.counts is not None else 8 * case.columns)
    elif case.op == "step":
        occupied = int((_exact_counts(inputs) > 0).sum())
        count["grid"] = _bytes(inputs.grad)  # what the forward half writes
        count["grad"] = occupied * case.columns * 4
    count["total"] = sum(count.values())
    return count
