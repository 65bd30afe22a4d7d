"""The plain torch reference of the voxel functions against brute force in NumPy: one point, one cell, one number at a
time. It is called as backend="torch" calls it, with the arguments of the operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import robocache
from robocache.reference import devoxelize as devoxelize_reference
from robocache.reference import voxel_sums
from robocache.reference import voxelize as reference

from .strategies import examples
from .voxel_brute import (
    ARGMAX,
    ARGMIN,
    BITS,
    COUNT,
    F32,
    F64,
    I32,
    I64,
    INSIDE,
    MAX,
    MEAN,
    MIN,
    OCCUPANCY,
    SUM,
    U8,
    brute_pose,
    brute_row,
    brute_sum,
    brute_trilinear,
    cell_number,
    clouds,
    members_of,
    same_bits,
    samples_of,
)

# ---- Reductions by themselves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 127, 128, 129, 256, 5000, 128 * 128, 128 * 128 + 1, 128 * 128 + 300])
def test_the_tree(count: int) -> None:
    """One row, at every depth; signs of zero survive where nothing is added."""
    values = torch.randn(count, 2, generator=torch.Generator().manual_seed(count)) * 1e3
    made = voxel_sums.tree_sum(values, torch.zeros(count, dtype=torch.int64), 1)
    columns = values.numpy()
    want = [[brute_sum(list(columns[:, c])) if count else np.float32(0) for c in range(2)]]
    same_bits(made, np.array(want, np.float32))
    alone = voxel_sums.tree_sum(torch.tensor([[-0.0]]), torch.tensor([0]), 1)
    assert np.signbit(alone.numpy()).all()


@examples(40)
@given(data=st.data())
def test_sums_and_extremes_of_rows(data: st.DataObject) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    count, total = data.draw(st.sampled_from([0, 1, 7, 300, 900])), data.draw(st.sampled_from([0, 1, 3, 40]))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    values = torch.randint(-3, 4, (count, 3), generator=generator).to(dtype) / 3
    odd = torch.tensor([np.nan, np.inf, -np.inf, -0.0], dtype=dtype)
    chosen = odd[torch.randint(0, 4, (count, 3), generator=generator)]
    values = torch.where(
        torch.rand(count, 3, generator=generator) < data.draw(st.sampled_from([0, 0.02])), chosen, values
    )
    rows = torch.randint(-1, total, (count,), generator=generator)
    members = {row: [m for m in range(count) if rows[m] == row] for row in range(total)}
    index = torch.arange(count) + 5
    sums = voxel_sums.tree_sum(values, rows, total)
    same_bits(voxel_sums.count_rows(rows, total), np.array([len(m) for m in members.values()], np.int64))
    for row, own in members.items():
        if own:
            given_rows = [values[m].numpy() for m in own]
            same_bits(sums[row], brute_row(SUM, given_rows, own))
    for reduce, arg, largest in ((MAX, ARGMAX, True), (MIN, ARGMIN, False)):
        best, where = voxel_sums.extreme(values, rows, index, total, largest)
        assert best.shape == where.shape == (total, 3)
        for row, own in members.items():
            if own:
                given_rows = [values[m].numpy() for m in own]
                same_bits(best[row], brute_row(reduce, given_rows, own))
                same_bits(where[row], brute_row(arg, given_rows, [m + 5 for m in own]))
            else:
                assert where[row].tolist() == [-1] * 3


def test_gradients_of_a_sum_reach_every_member() -> None:
    values = torch.randn(300, 2, dtype=torch.float64, requires_grad=True)
    rows = torch.randint(-1, 3, (300,), generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(lambda v: voxel_sums.tree_sum(v, rows, 3), values)
    assert torch.autograd.gradgradcheck(lambda v: voxel_sums.tree_sum(v, rows[:20], 3).square(), values[:20])


def test_the_sum_is_a_sound_operator() -> None:
    op = torch.ops.robocache_reference.tree_sum.default
    values, rows = torch.randn(300, 2), torch.randint(-1, 3, (300,))
    torch.library.opcheck(op, (values, rows, 3))
    torch.library.opcheck(op, (values[:0], rows[:0], 2))
    several = torch.stack([values, values.flip(0)], 1)
    mapped = torch.func.vmap(lambda v, r: voxel_sums.tree_sum(v, r, 3), in_dims=(1, None))(several, rows)
    assert torch.equal(mapped[1], voxel_sums.tree_sum(values.flip(0), rows, 3))
    grads = torch.func.vmap(torch.func.grad(lambda v: voxel_sums.tree_sum(v, rows, 3).sum()), in_dims=1)(several)
    assert torch.equal(grads[0], (rows >= 0).float()[:, None].expand(-1, 2))


# ---- Dense grids ----------------------------------------------------------------------------------------------------


@examples(60)
@given(made=clouds(), first=st.booleans())
def test_dense_grids(made: dict[str, Any], first: bool) -> None:
    reduce = [MIN, OCCUPANCY, MEAN, COUNT, ARGMAX, SUM, MAX, ARGMIN]
    dtypes = [F64, BITS, F32, U8, I32, F32, F32, I64]
    results = reference.voxelize(
        reduce=reduce, out_dtypes=dtypes, channels_first=first, empty_value=-7.0, need_inverse=True,
        need_dropped=True, **made,
    )  # fmt: skip
    *grids, inverse, dropped = results
    assert len(grids) == len(reduce)
    samples = samples_of(made)
    columns = made["features"].shape[-1]
    want_inverse = np.full(inverse.numel(), -1, np.int64)
    for b, sample in enumerate(samples):
        found = members_of(sample)
        bits = np.zeros(INSIDE, bool)
        counts = np.zeros(INSIDE, np.uint8)
        for cell, places in found.items():
            bits[cell], counts[cell] = True, len(places)
            want_inverse[places] = cell_number(cell)
        for grid, one, number in zip(grids, reduce, dtypes, strict=True):
            if one == OCCUPANCY:
                same_bits(grid[b], np.packbits(bits, axis=-1, bitorder="little"))
            elif one == COUNT:
                same_bits(grid[b], counts)
            else:
                kind = {F64: np.float64, F32: np.float32, I32: np.int32, I64: np.int64}[number]
                want = np.full((*INSIDE, columns), -1 if one in (ARGMAX, ARGMIN) else -7, kind)
                for cell, places in found.items():
                    rows = [sample["features"][p] for p in places]
                    if columns:
                        want[cell] = brute_row(one, rows, [p - sample["begin"] for p in places])
                same_bits(grid[b], np.moveaxis(want, -1, 0) if first else want)
    same_bits(inverse, want_inverse.reshape(made["points"].shape[:-1]))
    same_bits(dropped, np.array([sample["outside"] for sample in samples], np.int64))


@examples(30)
@given(made=clouds(), order=st.integers(0, 1), cap=st.sampled_from([0, 1, 4, 30]), per=st.sampled_from([0, 1, 3]))
def test_sparse_voxels(made: dict[str, Any], order: int, cap: int, per: int) -> None:
    results = reference.voxelize_sparse(
        reduce=[COUNT, MAX], out_dtypes=[I32, F32], max_voxels=cap, max_points=per, order=order, empty_value=-7.0,
        need_inverse=True, **made,
    )  # fmt: skip
    coords, num_voxels, counts, largest, *rest = results
    assert len(rest) == (3 if per else 1)
    inverse = rest[1 if per else 0].flatten()
    columns = made["features"].shape[-1]
    want_inverse, want_slots = (np.full(inverse.numel(), -1, np.int64) for _ in range(2))
    for b, sample in enumerate(samples_of(made)):
        found = members_of(sample)
        cells = list(found) if order else sorted(found, key=cell_number)
        want_coords, want_counts = np.full((cap, 3), -1, np.int32), np.zeros(cap, np.int32)
        want_max = np.full((cap, columns), -7, np.float32)
        want_gathered = np.zeros((cap, per, columns), np.float32)
        for row, cell in enumerate(cells[:cap]):
            places = found[cell]
            want_coords[row], want_counts[row] = cell, len(places)
            want_inverse[places] = row
            if columns:
                want_max[row] = brute_row(MAX, [sample["features"][p] for p in places], places)
            for k, place in enumerate(places[:per]):
                want_gathered[row, k], want_slots[place] = sample["features"][place], row * per + k
        same_bits(coords[b], want_coords)
        same_bits(counts[b], want_counts)
        same_bits(largest[b], want_max)
        assert int(num_voxels[b]) == len(cells)
        if per:
            same_bits(rest[0][b], want_gathered)
    same_bits(inverse, want_inverse)
    if per:
        same_bits(rest[2].flatten(), want_slots)


def test_accumulation() -> None:
    """Into each kind of dtype: what is there stays, integers hold at their largest, floats round once."""
    points = torch.full((1, 300, 3), 0.5)
    points[0, 200:] = 1.5
    options: dict[str, Any] = {"grid_size": [2, 2, 2], "voxel_size": [1.0] * 3, "grid_min": [0.0] * 3}
    for dtype, before, after in [
        (torch.uint8, 100, 255), (torch.int8, -100, 100), (torch.int64, 2**63 - 5, 2**63 - 1),
        (torch.float16, 2048, 2248), (torch.bfloat16, 1024, 1224), (torch.float32, 2**24, 2**24 + 200),
        (torch.float64, 0.25, 200.25), (torch.bool, False, True),
    ]:  # fmt: skip
        number = dict(zip(reference._DTYPES, range(10), strict=True))[dtype]
        count = torch.full((1, 2, 2, 2), before, dtype=dtype)
        bits = torch.full((1, 2, 2, 1), 0b10, dtype=torch.uint8)
        left = reference.voxelize(
            points, None, [COUNT, OCCUPANCY], [number, BITS], need_dropped=True, out=[count, bits], **options
        )
        assert len(left) == 1 and left[0].tolist() == [0]
        assert count[0, 0, 0, 0].item() == torch.tensor(after, dtype=dtype).item()
        assert count[0, 0, 0, 1].item() == torch.tensor(before, dtype=dtype).item()
        assert bits.flatten().tolist() == [0b11, 0b10, 0b10, 0b10]


def test_depth_images_are_their_points() -> None:
    """Pixel by pixel, with a pose for each camera."""
    generator = torch.Generator().manual_seed(2)
    depth = torch.randint(0, 4000, (2, 2, 5, 7), generator=generator)
    depth[0, 0, 0, 0], depth[1, 1, 2, 2] = 0, 65535
    cameras = torch.tensor([[[5.0, 6.0, 3.0, 2.0], [7.0, 5.5, 3.2, 1.9]]]).expand(2, 2, 4)
    poses = torch.randn(2, 2, 3, 4, generator=generator)
    color = torch.randint(0, 256, (2, 2, 5, 7, 3), generator=generator, dtype=torch.uint8)
    points = np.zeros((2, 2, 5, 7, 3), np.float32)
    for b, v, h, w in np.ndindex(2, 2, 5, 7):
        fx, fy, cx, cy = cameras[b, v].numpy()
        z = np.float32(depth[b, v, h, w].item()) * np.float32(0.001)
        one = np.array([[((np.float32(w) - cx) * z) / fx, ((np.float32(h) - cy) * z) / fy, z]], np.float32)
        points[b, v, h, w] = brute_pose(one, poses[b, v].numpy())[0]
    options: dict[str, Any] = {
        "reduce": [COUNT, MEAN], "out_dtypes": [I32, F32], "grid_size": list(INSIDE), "voxel_size": [2.0, 3.0, 1.5],
        "grid_min": [-3.0, -3.0, -3.0], "need_inverse": True, "need_dropped": True,
    }  # fmt: skip
    got = reference.voxelize_depth(depth.to(torch.uint16), cameras, color, poses=poses, depth_scale=0.001, **options)
    want = reference.voxelize(
        torch.from_numpy(points).reshape(2, 70, 3), color.reshape(2, 70, 3), mask=depth.reshape(2, 70) > 0, **options
    )
    for one, other in zip(got, want, strict=True):
        same_bits(one, other.reshape(one.shape).numpy())
    assert int(got[0].sum()) > 20 and int(got[3].sum()) > 20


# ---- Devoxelize -----------------------------------------------------------------------------------------------------


@examples(40)
@given(made=clouds(), mode=st.integers(0, 1), wide=st.booleans())
def test_devoxelize(made: dict[str, Any], mode: int, wide: bool) -> None:
    del made["features"], made["grid_size"]
    points, splits = made["points"], made.get("row_splits")
    batch = points.shape[0] if splits is None else len(splits) - 1
    grid = torch.randn(batch, *INSIDE, 2, generator=torch.Generator().manual_seed(3))
    grid = grid.double() if wide else grid
    got = devoxelize_reference.devoxelize(grid, mode=mode, empty_value=9.0, **made)
    real = np.float64 if points.dtype == torch.float64 else np.float32
    both = np.float64 if wide or real is np.float64 else np.float32
    want = np.full((got[..., 0].numel(), 2), 9.0, np.float64 if wide else np.float32)
    flat = points.reshape(-1, 3).numpy().astype(real)
    for b, sample in enumerate(samples_of({**made, "features": torch.zeros(*points.shape[:-1], 1)})):
        voxel, low = (
            np.array(made[n], real) if made.get(f"{n}s") is None else made[f"{n}s"][b % len(made[f"{n}s"])].numpy()
            for n in ("voxel_size", "grid_min")
        )
        for place, cell in zip(sample["places"], sample["cells"], strict=True):
            if cell is None:
                continue
            if mode == 0:
                want[place] = grid[b][cell].numpy()
                continue
            own = flat[place : place + 1]
            if made.get("poses") is not None:
                own = brute_pose(own, made["poses"][b % len(made["poses"])].numpy())
            with np.errstate(all="ignore"):
                t = [(own[0, d] - low[d]) / voxel[d] - real(0.5) for d in range(3)]
            if made["bounds"] == 1:
                t = [max(real(-0.5), min(real(INSIDE[d]) - real(0.5), t[d])) for d in range(3)]
            weights_in = [one if both is real else np.float64(one) for one in t]
            found = brute_trilinear(grid[b].numpy().astype(both), weights_in)
            want[place] = found.astype(want.dtype)
    same_bits(got, want.reshape(*points.shape[:-1], 2))


# ---- Corners, and the reference under torch.compile -----------------------------------------------------------------


def test_auto_grid_min() -> None:
    generator = torch.Generator().manual_seed(4)
    points = torch.randn(3, 30, 3, generator=generator) * 10
    points[0, 3, 1], points[1, 4, 0], points[2] = -torch.inf, torch.nan, torch.nan
    mask = torch.rand(3, 30, generator=generator) < 0.8
    pose = torch.randn(3, 3, 4, generator=generator)
    voxel = (0.3, 0.7, 1.1)
    want = np.zeros((3, 3), np.float32)
    for b in range(2):
        moved = brute_pose(points[b][mask[b]].numpy(), pose[b].numpy())
        low = moved[np.isfinite(moved).all(1)].min(0)
        size = np.array(voxel, np.float32)
        want[b] = np.floor(low / size) * size
    same_bits(robocache.auto_grid_min(points, voxel, mask=mask, pose=pose), want)
    splits = torch.tensor([0, 30, 60, 90])
    packed = robocache.auto_grid_min(points.flatten(0, 1), voxel, splits, mask.flatten(), pose)
    same_bits(packed, want)
    same_bits(robocache.auto_grid_min(points[0], voxel, mask=mask[0], pose=pose[0]), want[0])
    table = torch.tensor(voxel).expand(3, 3)
    grid, inverse = robocache.voxelize_point_cloud(
        points, voxel_size=table, grid_min="auto", grid_size=200, mask=mask, pose=pose, return_inverse=True,
        backend="torch",
    )  # fmt: skip
    assert bool((grid.flatten(1).sum(1) > 0).tolist() == [True, True, False])
    given = robocache.voxelize_point_cloud(
        points, voxel_size=voxel, grid_min=torch.from_numpy(want), grid_size=200, mask=mask, pose=pose,
        return_inverse=True, backend="torch",
    )[1]  # fmt: skip
    assert torch.equal(inverse, given)
    assert robocache.auto_grid_min(torch.zeros(0, 3, dtype=torch.float64), 1.0).tolist() == [0.0, 0.0, 0.0]
    assert robocache.auto_grid_min(torch.zeros(0, 4, 3), 1.0).shape == (0, 3)


COMPILED = {
    "dense": lambda p, f: robocache.voxelize_point_cloud(
        p, f, voxel_size=1.0, grid_min="auto", grid_size=(4, 3, 5), reduce=("sum", "max", "count"), return_counts=True,
        return_inverse=True, return_dropped=True, backend="torch",
    ),
    "sparse": lambda p, f: robocache.voxelize_point_cloud_sparse(
        p, f, voxel_size=1.0, grid_min=0.0, grid_size=4, max_voxels=20, order="first_appearance", backend="torch"
    ),
    "hard": lambda p, f: robocache.voxelize_point_cloud_sparse(
        p, f, voxel_size=1.0, grid_min=0.0, grid_size=4, max_voxels=20, max_points=3, backend="torch"
    ),
    "depth": lambda p, f: robocache.voxelize_depth(
        p, torch.tensor([5.0, 5.0, 1.0, 1.0]), None, f[..., None, :].expand(*p.shape, 2), voxel_size=1.0,
        grid_min=-2.0, grid_size=6, reduce="mean", backend="torch",
    ),
    "devoxel": lambda p, f: robocache.devoxelize(
        f[:, :60].reshape(2, 3, 4, 5, 2), p, voxel_size=1.0, grid_min=0.0, backend="torch"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPILED)
def test_one_graph(name: str) -> None:
    generator = torch.Generator().manual_seed(5)
    points, features = torch.rand(2, 150, 3, generator=generator) * 4, torch.randn(2, 150, 2, generator=generator)
    function = COMPILED[name]
    torch._dynamo.reset()
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    grads = []
    for one in (function, compiled):
        leaf = features.clone().requires_grad_()
        made = [t for t in torch.utils._pytree.tree_leaves(one(points, leaf)) if t is not None]
        sum(t.square().sum() for t in made if t.requires_grad).backward()
        grads.append((made, leaf.grad))
    for got, want in zip(grads[1][0], grads[0][0], strict=True):
        same_bits(got, want.detach().numpy())
    same_bits(grads[1][1], grads[0][1].numpy())
