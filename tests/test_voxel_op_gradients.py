"""Gradients and torch.func transforms of the voxelize and devoxelize operators; memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import robocache
from robocache import _voxel_ops

from .voxel_calls import (  # noqa: F401 (one_thread is a fixture)
    ALL,
    ALL_DTYPES,
    COUNT,
    F32,
    F64,
    GRID,
    I32,
    MAX,
    MEAN,
    MIN,
    OPS,
    SPLITS,
    SUM,
    cloud,
    images,
    one_thread,
)

# ---- Gradients -------------------------------------------------------------------------------------------------------


def test_the_gradient_twin_runs_only_where_a_gradient_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[str] = []
    save = _voxel_ops.save
    monkeypatch.setattr(_voxel_ops, "save", lambda ctx, name, *rest: (saved.append(name), save(ctx, name, *rest)))
    points, features = cloud(), torch.randn(2, 30, 3)
    OPS.voxelize(points, features, [MEAN], [F32], *GRID)
    OPS.voxelize(points.requires_grad_(), None, [COUNT], [I32], *GRID)
    features.requires_grad_()
    with torch.no_grad():
        OPS.voxelize(points, features, [MEAN], [F32], *GRID)
    assert saved == []
    result = OPS.voxelize(points, features, [COUNT, MEAN], [F32, F32], *GRID, need_inverse=True)
    assert saved == ["voxelize"]
    assert [tensor.requires_grad for tensor in result] == [False, True, False]


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("bounds", [0, 1])
def test_gradcheck_voxelize(bounds: int, channels_first: bool) -> None:
    points = cloud(dtype=torch.float64)
    features = torch.randn(2, 30, 2, dtype=torch.float64, requires_grad=True)
    options = {"bounds": bounds, "channels_first": channels_first, "empty_value": 2.0}
    for need_inverse in (False, True):

        def function(f: Tensor, need_inverse: bool = need_inverse) -> Any:
            lists = ([COUNT, SUM, MEAN, MAX, MIN], [I32, F64, F64, F64, F64])
            return tuple(OPS.voxelize(points, f, *lists, *GRID, **options, need_inverse=need_inverse)[1:5])

        assert torch.autograd.gradcheck(function, features)


def test_gradcheck_one_by_one() -> None:
    points, splits = cloud(1, dtype=torch.float64)[0], SPLITS
    features = torch.randn(30, 2, dtype=torch.float64, requires_grad=True)
    for reduce in (SUM, MEAN, MAX, MIN):

        def function(f: Tensor, reduce: int = reduce) -> Tensor:
            return OPS.voxelize(points, f, [reduce], [F64], *GRID, row_splits=splits)[0]

        assert torch.autograd.gradcheck(function, features)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("cap", [4, 60])
@pytest.mark.parametrize("hard", [0, 2])
@pytest.mark.parametrize("need_inverse", [False, True])
def test_gradcheck_sparse(need_inverse: bool, hard: int, cap: int, order: int) -> None:
    points = cloud(dtype=torch.float64)
    features = torch.randn(2, 30, 2, dtype=torch.float64, requires_grad=True)
    options = {"max_voxels": cap, "max_points": hard, "order": order, "need_inverse": need_inverse}

    def function(f: Tensor) -> Any:
        made = OPS.voxelize_sparse(points, f, [MEAN, MAX], [F64, F64], *GRID, **options)
        return tuple(made[2 : 5 if hard else 4])

    assert torch.autograd.gradcheck(function, features)


def test_gradcheck_depth() -> None:
    depth, intrinsics, color = images()
    color = color.double().requires_grad_()

    def function(c: Tensor) -> Any:
        return tuple(OPS.voxelize_depth(depth, intrinsics, c, [SUM, MEAN, MAX], [F64, F64, F64], *GRID))

    assert torch.autograd.gradcheck(function, color)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mode", [0, 1], ids=["nearest", "trilinear"])
def test_gradcheck_devoxelize(mode: int, packed: bool) -> None:
    points = cloud(1 if packed else 2, dtype=torch.float64)
    points = (points[0] if packed else points).requires_grad_()
    grid = torch.randn(3 if packed else 2, 3, 4, 5, 2, dtype=torch.float64, requires_grad=True)
    options = {"row_splits": SPLITS if packed else None, "bounds": 1, "empty_value": 0.5}
    assert torch.autograd.gradcheck(lambda g, p: OPS.devoxelize(g, p, mode, *GRID[1:], **options), (grid, points))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_gradients_have_the_dtype_of_their_leaf(dtype: torch.dtype) -> None:
    features = torch.randn(2, 30, 2).to(dtype).requires_grad_()
    (mean,) = OPS.voxelize(cloud(), features, [MEAN], [F32], *GRID)
    grid = torch.randn(2, 3, 4, 5, 2).to(dtype).requires_grad_()
    points = cloud().to(dtype).requires_grad_()
    read = OPS.devoxelize(grid, points, 1, *GRID[1:])
    (mean.sum() + read.sum()).backward()
    for leaf in (features, grid, points):
        assert leaf.grad is not None
        assert leaf.grad.dtype == dtype
        assert leaf.grad.shape == leaf.shape
        assert bool(leaf.grad.abs().sum() > 0)


def test_results_that_nobody_uses_cost_no_gradient() -> None:
    features = torch.randn(2, 30, 2, requires_grad=True)
    total, mean = OPS.voxelize(cloud(), features, [SUM, MEAN], [F32, F32], *GRID)
    before = robocache.launch_counts()
    total.sum().backward(retain_graph=True)
    after = robocache.launch_counts()
    assert after["voxelize_backward_cpu"] == before["voxelize_backward_cpu"] + 1
    assert after["voxelize_cpu"] == before["voxelize_cpu"] + 1  # the inverse again
    (by_mean,) = torch.autograd.grad(mean.sum(), features)
    assert not torch.equal(by_mean, features.grad)


def test_a_returned_inverse_is_used_again() -> None:
    features = torch.randn(2, 30, 2, requires_grad=True)
    count, mean, _ = OPS.voxelize(cloud(), features, [COUNT, MEAN], [I32, F32], *GRID, need_inverse=True)
    before = robocache.launch_counts()["voxelize_cpu"]
    mean.sum().backward()
    assert robocache.launch_counts()["voxelize_cpu"] == before
    assert int(count.sum()) > 0


# ---- torch.func ------------------------------------------------------------------------------------------------------


def mean_and_max(points: Tensor, features: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    _, mean, peak = OPS.voxelize(points, features, [COUNT, MEAN, MAX], [I32, F32, F32], *GRID, **options)
    return mean, peak


def scalar(points: Tensor, features: Tensor, **options: Any) -> Tensor:
    mean, peak = mean_and_max(points, features, **options)
    return mean.square().sum() + peak.sin().sum()


def by_autograd(function: Any, leaf: Tensor) -> Tensor:
    leaf = leaf.detach().clone().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf)[0]


@pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0)], ids=str)
@pytest.mark.parametrize("packed", [False, True])
def test_vmap_equals_a_loop(packed: bool, dims: tuple[int | None, int | None]) -> None:
    points = torch.stack([cloud(), cloud(), cloud()])
    features = torch.randn(3, 2, 30, 3)
    options: dict[str, Any] = {"poses": torch.eye(4)[:3].expand(1, 3, 4)}
    if packed:
        points, features = points[:, 0], features[:, 0]
        options["row_splits"] = SPLITS
    given = tuple(
        tensor if dim is not None else tensor[0] for tensor, dim in zip((points, features), dims, strict=True)
    )
    results = torch.vmap(lambda p, f: mean_and_max(p, f, **options), in_dims=dims)(*given)
    grads = torch.vmap(torch.func.grad(lambda f, p: scalar(p, f, **options)), in_dims=dims[::-1])(*given[::-1])
    for k in range(3):
        p, f = (tensor[k] if dim is not None else tensor for tensor, dim in zip(given, dims, strict=True))
        assert all(torch.equal(a[k], b) for a, b in zip(results, mean_and_max(p, f, **options), strict=True))
        assert torch.equal(grads[k], by_autograd(lambda f, p=p: scalar(p, f, **options), f))


def test_vmap_over_grids_of_their_own() -> None:
    points, mins = cloud(), torch.rand(3, 1, 3) - 1
    sizes = torch.rand(2, 3) + 0.5

    def counts(grid_mins: Tensor) -> Tensor:
        return OPS.voxelize(points, None, [COUNT], [I32], *GRID, voxel_sizes=sizes, grid_mins=grid_mins)[0]

    before = robocache.launch_counts()["voxelize_cpu"]
    together = torch.vmap(counts)(mins)
    assert robocache.launch_counts()["voxelize_cpu"] == before + 1
    assert torch.equal(together, torch.stack([counts(one) for one in mins]))


def test_vmap_of_depth_and_sparse() -> None:
    depth = torch.stack([images()[0] for _ in range(3)])
    _, intrinsics, color = images()

    def of_images(d: Tensor) -> tuple[Tensor, ...]:
        return tuple(OPS.voxelize_depth(d, intrinsics, color, [MEAN], [F32], *GRID, need_inverse=True))

    together = torch.vmap(of_images)(depth)
    features = torch.randn(3, 2, 30, 3)
    points = cloud()

    def sparse(f: Tensor) -> tuple[Tensor, ...]:
        options = {"max_voxels": 6, "max_points": 2, "need_inverse": True}
        return tuple(OPS.voxelize_sparse(points, f, [COUNT, MIN], [I32, F32], *GRID, **options))

    voxels = torch.vmap(sparse)(features)
    grads = torch.vmap(torch.func.grad(lambda f: sparse(f)[3].sum() + sparse(f)[4].sin().sum()))(features)
    for k in range(3):
        assert all(torch.equal(a[k], b) for a, b in zip(together, of_images(depth[k]), strict=True))
        assert all(torch.equal(a[k], b) for a, b in zip(voxels, sparse(features[k]), strict=True))
        expected = by_autograd(lambda f: sparse(f)[3].sum() + sparse(f)[4].sin().sum(), features[k])
        assert torch.equal(grads[k], expected)


@pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0)], ids=str)
@pytest.mark.parametrize("packed", [False, True])
def test_vmap_of_devoxelize(packed: bool, dims: tuple[int | None, int | None]) -> None:
    grid, points = torch.randn(3, 2, 3, 4, 5, 2), torch.stack([cloud(), cloud(), cloud()])
    splits = torch.tensor([0, 20, 30]) if packed else None
    points = points[:, 0] if packed else points
    given = tuple(tensor if dim is not None else tensor[0] for tensor, dim in zip((grid, points), dims, strict=True))

    def read(g: Tensor, p: Tensor) -> Tensor:
        return OPS.devoxelize(g, p, 1, *GRID[1:], row_splits=splits)

    def loss(g: Tensor, p: Tensor) -> Tensor:
        return read(g, p).sin().sum()

    out = torch.vmap(read, in_dims=dims)(*given)
    by_grid, by_points = torch.vmap(torch.func.grad(loss, (0, 1)), in_dims=dims)(*given)
    for k in range(3):
        g, p = (tensor[k] if dim is not None else tensor for tensor, dim in zip(given, dims, strict=True))
        assert torch.equal(out[k], read(g, p))
        assert torch.equal(by_grid[k], by_autograd(lambda g, p=p: loss(g, p), g))
        assert torch.equal(by_points[k], by_autograd(lambda p, g=g: loss(g, p), p))


def test_jacobians() -> None:
    points, features = cloud(1, 6), torch.randn(1, 6, 2)
    (by_rows,) = torch.autograd.functional.jacobian(lambda f: mean_and_max(points, f)[0], (features,))
    assert torch.equal(torch.func.jacrev(lambda f: mean_and_max(points, f)[0])(features), by_rows)


def test_an_outer_gradient_reaches_through_vmap() -> None:
    points, features = cloud(), torch.randn(3, 2, 30, 3, requires_grad=True)
    torch.vmap(lambda f: mean_and_max(points, f)[0])(features).sin().sum().backward()
    for k in range(3):
        expected = by_autograd(lambda f: mean_and_max(points, f)[0].sin().sum(), features[k])
        assert torch.equal(features.grad[k], expected)


# ---- Memory ----------------------------------------------------------------------------------------------------------


def test_calls_do_not_leak() -> None:
    import gc
    import resource

    points, features = cloud(), torch.randn(2, 30, 3)
    depth, intrinsics, color = images()
    strided = depth.transpose(2, 3).contiguous().transpose(2, 3)
    leaf = torch.randn(2, 30, 3, requires_grad=True)
    out = [torch.zeros(2, 3, 4, 5, dtype=torch.int32)]
    grid = torch.randn(2, 3, 4, 5, 2)

    def work() -> None:
        OPS.voxelize(points, features, ALL, ALL_DTYPES, *GRID, need_inverse=True)
        OPS.voxelize_depth(strided, intrinsics, color, [MEAN], [F32], *GRID, need_dropped=True)
        OPS.voxelize_sparse(points, features, [MEAN], [F32], *GRID, max_voxels=5, max_points=2, need_inverse=True)
        OPS.voxelize_out(points, None, [COUNT], [I32], *GRID, out=out)
        OPS.voxelize(points, leaf, [MEAN, MAX], [F32, F32], *GRID)[0].sum().backward()
        OPS.devoxelize(grid, points, 1, *GRID[1:])
        with pytest.raises(RuntimeError):
            OPS.voxelize(points, features, [MEAN], [F32], *GRID, bounds=7)

    for _ in range(200):
        work()
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(800):
        work()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2048  # KiB
