"""Gradients of features, colours, grids and points: finite differences, the reference, ties, and repeatability."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import robocache

from .backends import assert_same_bits
from .voxel_backends import NATIVE, Call, VoxelBackend, native_backend, public_backend

FORMS = ("alone", "batch", "packed", "masked", "clamped", "posed", "each")
FEATURED = ("sum", "mean", "max", "min")
UNIT: dict[str, Any] = {"voxel_size": 1.0, "grid_min": 0.0}


def problem(form: str, columns: int = 2) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Points well inside their cells (some outside the grid), distinct features, options."""
    generator = torch.Generator().manual_seed(7)
    shape = (14,) if form in ("alone", "packed") else (2, 7)
    cells = torch.randint(-1, 4, (*shape, 3), generator=generator).double()
    points = cells + 0.2 + 0.6 * torch.rand(*shape, 3, generator=generator, dtype=torch.float64)
    count = int(torch.tensor([*shape, columns]).prod())
    features = (torch.randperm(count, generator=generator).double() / 7 - 3).reshape(*shape, columns)
    options: dict[str, Any] = {"grid_size": (3, 2, 3), **UNIT}
    if form == "packed":
        options["row_splits"] = torch.tensor([1, 6, 6, 13])
    if form == "masked":
        options["mask"] = torch.rand(shape, generator=generator) < 0.6
    if form == "clamped":
        options["bounds"] = "clamp"
    if form == "posed":
        turned = torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
        options["pose"] = turned
    if form == "each":
        options["voxel_size"] = torch.tensor([[1.0, 1.0, 1.0], [2.0, 1.0, 0.5]], dtype=torch.float64)
        options["grid_min"] = torch.tensor([[0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]], dtype=torch.float64)
    return points, features, options


def moved(backend: VoxelBackend, options: dict[str, Any]) -> dict[str, Any]:
    return {**{name: backend.put(value) for name, value in options.items()}, "backend": backend.name}


def check(function: Callable[..., Any], *leaves: torch.Tensor) -> None:
    assert torch.autograd.gradcheck(function, tuple(leaf.clone().requires_grad_() for leaf in leaves))


@public_backend
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("reduce", "layout"),
    [
        *((name, "channels_last") for name in FEATURED),
        (("count", "max", "occupancy", "mean"), "channels_last"),
        (FEATURED, "channels_first"),
    ],
    ids=str,
)
def test_gradcheck_dense(backend: VoxelBackend, reduce: Any, layout: str, form: str) -> None:
    points, features, options = problem(form)
    options = moved(backend, {**options, "reduce": reduce, "layout": layout, "empty_value": -2})
    at = backend.put(points)

    def function(f: torch.Tensor) -> Any:
        made = robocache.voxelize_point_cloud(at, f, **options)
        if isinstance(made, torch.Tensor):
            return made
        return tuple(grid for grid in made.values() if grid.requires_grad)

    check(function, backend.put(features))


@public_backend
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", ["sorted", "first_appearance"])
@pytest.mark.parametrize("cap", [3, 40])
def test_gradcheck_sparse(backend: VoxelBackend, cap: int, order: str, form: str) -> None:
    points, features, options = problem(form)
    options = moved(backend, {**options, "max_voxels": cap, "order": order})
    at = backend.put(points)

    def function(f: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(robocache.voxelize_point_cloud_sparse(at, f, reduce=FEATURED, **options).features.values())

    check(function, backend.put(features))


@public_backend
@pytest.mark.parametrize("form", ["alone", "batch", "packed", "masked"])
@pytest.mark.parametrize("cap", [2, 30])
def test_gradcheck_hard_voxels(backend: VoxelBackend, cap: int, form: str) -> None:
    points, features, options = problem(form)
    options = moved(backend, {**options, "max_voxels": cap, "max_points": 2})
    at = backend.put(points)
    check(lambda f: robocache.voxelize_point_cloud_sparse(at, f, **options).features, backend.put(features))


@public_backend
@pytest.mark.parametrize("reduce", FEATURED)
def test_gradcheck_depth(backend: VoxelBackend, reduce: str) -> None:
    generator = torch.Generator().manual_seed(3)
    depth = torch.rand(2, 2, 3, 4, generator=generator) * 2
    depth[0, 0, 0, 0] = 0
    color = torch.randn(2, 2, 3, 4, 2, generator=generator, dtype=torch.float64)
    camera, pose = torch.tensor([4.0, 4.0, 1.5, 1.0]), torch.eye(4)[:3]
    options = {"voxel_size": 0.5, "grid_min": -1.0, "grid_size": (4, 4, 6), "reduce": reduce, "backend": backend.name}
    given = [backend.put(t) for t in (depth, camera, pose)]
    check(lambda c: robocache.voxelize_depth(*given, c, **options), backend.put(color))


@public_backend
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", ["trilinear", "nearest"])
@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_gradcheck_devoxelize(backend: VoxelBackend, layout: str, mode: str, form: str) -> None:
    points, _, options = problem(form)
    del options["grid_size"]
    splits = options.get("row_splits")
    lead = () if form == "alone" else (2,) if splits is None else (3,)
    generator = torch.Generator().manual_seed(4)
    grid = torch.randn(*lead, 3, 2, 3, 2, generator=generator, dtype=torch.float64)
    grid = grid.movedim(-1, -4).contiguous() if layout == "channels_first" else grid
    options = moved(backend, {**options, "mode": mode, "layout": layout})
    check(lambda g, p: robocache.devoxelize(g, p, **options), backend.put(grid), backend.put(points))


@public_backend
def test_gradcheck_there_and_back(backend: VoxelBackend) -> None:
    """Features into a grid and out of it again at other points."""
    points, features, options = problem("batch")
    options = moved(backend, options)
    frame = {name: value for name, value in options.items() if name != "grid_size"}
    at = backend.put(points)
    read = at.flip(1) + 0.07

    def function(f: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        grid = robocache.voxelize_point_cloud(at, f, reduce="mean", **options)
        return robocache.devoxelize(grid, p, **frame)

    check(function, backend.put(features), read)


@public_backend
def test_ties_give_the_gradient_to_the_lowest_index(backend: VoxelBackend) -> None:
    points = torch.full((5, 3), 0.5)
    for name, values, winner in [
        ("max", [1.0, 3.0, 3.0, 2.0, 3.0], 1),
        ("min", [1.0, 0.0, 3.0, 0.0, 0.0], 1),
        ("max", [1.0, torch.nan, 3.0, torch.nan, 9.0], 1),
        ("min", [0.0, -0.0, 0.0, -0.0, 5.0], 0),
    ]:
        leaf = backend.put(torch.tensor(values)[:, None]).requires_grad_()
        options = moved(backend, {"grid_size": 2, "reduce": name, **UNIT})
        grid = robocache.voxelize_point_cloud(backend.put(points), leaf, **options)
        (grid * 2).sum().backward()
        assert leaf.grad is not None
        want = torch.zeros(5)
        want[winner] = 2
        assert leaf.grad.flatten().tolist() == want.tolist(), (name, values)


@public_backend
def test_points_that_count_nowhere_get_zero(backend: VoxelBackend) -> None:
    points = torch.tensor([[0.5, 0.5, 0.5], [9.0, 0.5, 0.5], [torch.nan, 0.5, 0.5], [0.5, 0.5, 0.5], [0.6, 0.5, 0.5]])
    mask = torch.tensor([True, True, True, False, True])
    for reduce in FEATURED:
        leaf = backend.put(torch.ones(5, 2)).requires_grad_()
        options = moved(backend, {"grid_size": 2, "reduce": reduce, "mask": mask, **UNIT})
        robocache.voxelize_point_cloud(backend.put(points), leaf, **options).sum().backward()
        assert leaf.grad is not None and not bool(leaf.grad[1:4].any()) and bool(leaf.grad[0].all())


@pytest.mark.parametrize("backend", NATIVE)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_gradients_equal_the_references(backend: VoxelBackend, dtype: torch.dtype, form: str) -> None:
    points, features, options = problem(form, columns=5)
    weights = torch.randn(30, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for reduce in FEATURED:
        grads = []
        for name in (backend.name, "torch"):
            leaf = backend.put(features.to(dtype)).requires_grad_()
            given = {**moved(backend, {**options, "reduce": reduce}), "backend": name}
            grid = robocache.voxelize_point_cloud(backend.put(points), leaf, **given)
            scale = backend.put(weights[torch.arange(grid.numel()) % 30].reshape(grid.shape).to(grid.dtype))
            grads.append(torch.autograd.grad((grid * scale).sum(), leaf)[0])
        assert grads[0].dtype == dtype
        assert_same_bits(grads[0], grads[1], reduce)


@native_backend
def test_backward_repeats_bit_for_bit(backend: VoxelBackend) -> None:
    generator = torch.Generator().manual_seed(6)
    points = backend.put(torch.rand(2, 20_000, 3, generator=generator) * 4)
    features = torch.randn(2, 20_000, 8, generator=generator)
    counter = f"voxelize_backward_{backend.name}"
    grads = []
    for _ in range(3):
        leaf = backend.put(features.clone()).requires_grad_()
        before = robocache.launch_counts()[counter]
        made = robocache.voxelize_point_cloud(points, leaf, grid_size=4, reduce=FEATURED, backend=backend.name, **UNIT)
        sum(grid.square().sum() for grid in made.values()).backward()
        assert robocache.launch_counts()[counter] == before + 1  # four outputs, one launch
        grads.append(leaf.grad)
    for again in grads[1:]:
        assert_same_bits(again, grads[0])


@public_backend
def test_only_what_is_asked_for_gets_a_gradient(backend: VoxelBackend) -> None:
    points, features, options = problem("batch")
    options = moved(backend, options)
    at, plain = backend.put(points), backend.put(features)
    assert not robocache.voxelize_point_cloud(at, plain, reduce="mean", **options).requires_grad
    made = robocache.voxelize_point_cloud(
        at, plain.clone().requires_grad_(), reduce=("mean", "count", "occupancy"), return_inverse=True, **options
    )
    grids, inverse = made
    assert grids["mean"].requires_grad and not grids["count"].requires_grad and not inverse.requires_grad
    with torch.no_grad():
        assert not robocache.voxelize_point_cloud(
            at, plain.clone().requires_grad_(), reduce="mean", **options
        ).requires_grad
    frame = {name: value for name, value in options.items() if name != "grid_size"}
    grid = backend.put(torch.randn(2, 3, 2, 3, 2, dtype=torch.float64))
    leaf = at.clone().requires_grad_()
    robocache.devoxelize(grid, leaf, **frame).sum().backward()
    assert leaf.grad is not None and grid.grad is None
    leaf = grid.clone().requires_grad_()
    robocache.devoxelize(leaf, at, **frame).sum().backward()
    assert leaf.grad is not None


@native_backend
def test_empty_clouds_have_empty_gradients(backend: VoxelBackend) -> None:
    for shape in ((0, 3), (2, 0, 3)):
        leaf = backend.put(torch.zeros(*shape[:-1], 4)).requires_grad_()
        options = moved(backend, {"grid_size": 2, "reduce": FEATURED, **UNIT})
        made = robocache.voxelize_point_cloud(backend.put(torch.zeros(shape)), leaf, **options)
        sum(grid.sum() for grid in made.values()).backward()
        assert leaf.grad is not None and leaf.grad.shape == leaf.shape
    grid = backend.put(torch.ones(2, 2, 2, 3)).requires_grad_()
    none = backend.put(torch.zeros(0, 3))
    robocache.devoxelize(grid, none, backend=backend.name, **UNIT).sum().backward()
    assert grid.grad is not None and not bool(grid.grad.any())


@public_backend
def test_mean_of_a_crowded_cell(backend: VoxelBackend) -> None:
    """Each of n points gets 1 / n, also beyond the blocks that sums run in."""
    count = 128 * 128 + 5
    leaf = backend.put(torch.randn(count, 1, generator=torch.Generator().manual_seed(7))).requires_grad_()
    points = backend.put(torch.full((count, 3), 0.5))
    options = moved(backend, {"grid_size": 1, "reduce": "mean", **UNIT})
    robocache.voxelize_point_cloud(points, leaf, **options).sum().backward()
    assert leaf.grad is not None
    want = torch.ones(count, 1) / torch.tensor(float(count))
    assert_same_bits(leaf.grad, want)


def test_the_oracles_extreme_agrees_with_autograd() -> None:
    """The lowest index that the oracle names is where the gradient goes."""
    from .voxel_backends import C_API

    points, features, options = problem("batch")
    names = ("argmax", "argmin")
    found = C_API.run(Call("dense", (points, features), {**options, "reduce": names}))
    for name, reduce in (("argmax", "max"), ("argmin", "min")):
        leaf = features.clone().requires_grad_()
        robocache.voxelize_point_cloud(points, leaf, reduce=reduce, **options).sum().backward()
        assert leaf.grad is not None
        want = torch.zeros_like(features)
        for b in range(2):
            for row in found[name][b].reshape(-1, features.shape[-1]):
                for c, n in enumerate(row.tolist()):
                    if n >= 0:
                        want[b, n, c] = 1
        assert_same_bits(leaf.grad, want, name)
