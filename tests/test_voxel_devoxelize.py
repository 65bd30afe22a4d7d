"""Values of a grid at points: torch's grid_sample, faces, layouts, round trips, and gradients by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import robocache
from robocache.reference.devoxelize import grid_gradient

from .backends import assert_same_bits
from .strategies import FLOATS, INTEGERS
from .voxel_backends import (
    CPU,
    TORCH,
    Call,
    VoxelBackend,
    agrees_with_oracle,
    every_backend,
    native_backend,
    public_backend,
)

NAN, INF = math.nan, math.inf
UNIT: dict[str, Any] = {"voxel_size": 1.0, "grid_min": 0.0}


def run(backend: VoxelBackend, grid: torch.Tensor, points: Any, **options: Any) -> torch.Tensor:
    points = torch.tensor(points) if isinstance(points, list) else points
    return backend.run(Call("devoxelize", (grid, points), options))["out"]


def ramp(*size: int) -> torch.Tensor:
    """[X, Y, Z, 1]: 100 x + 10 y + z at the centre of each cell."""
    x, y, z = torch.meshgrid(*(torch.arange(float(n)) for n in size), indexing="ij")
    return (100 * x + 10 * y + z)[..., None]


@every_backend
def test_nearest_is_the_points_cell(backend: VoxelBackend) -> None:
    points = [[0.0, 0.0, 0.0], [1.9, 2.9, 4.9], [1.0, 2.0, 3.0], [0.99, 0.5, 4.0], [2.0, 0.0, 0.0], [NAN, 0.0, 0.0]]
    got = run(backend, ramp(2, 3, 5), points, mode="nearest", empty_value=-1, **UNIT)
    assert got.flatten().tolist() == [0, 124, 123, 4, -1, -1]


@every_backend
def test_trilinear_is_linear_between_centres(backend: VoxelBackend) -> None:
    grid = ramp(3, 4, 5)
    generator = torch.Generator().manual_seed(1)
    inner = torch.rand(200, 3, generator=generator) * torch.tensor([2.0, 3.0, 4.0])
    got = run(backend, grid, inner + 0.5, **UNIT)
    want = inner @ torch.tensor([[100.0], [10.0], [1.0]])
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-3)
    centres = torch.cartesian_prod(*(torch.arange(float(n)) + 0.5 for n in (3, 4, 5)))
    assert_same_bits(run(backend, grid, centres, **UNIT), grid.reshape(-1, 1))


@every_backend
def test_the_outermost_centre_holds_to_the_face(backend: VoxelBackend) -> None:
    points = [[0.0, 0.0, 0.0], [0.5, 0.25, 0.5], [1.9999, 1.5, 1.5], [1.25, 0.5, 0.5], [-0.001, 0.5, 0.5]]
    got = run(backend, ramp(2, 2, 2), points, empty_value=NAN, **UNIT).flatten().tolist()
    assert got[:4] == [0, 0, 111, 75] and math.isnan(got[4])


@every_backend
@pytest.mark.parametrize("align", ["channels_last", "channels_first"])
def test_equal_to_grid_sample(backend: VoxelBackend, align: str) -> None:
    """torch's trilinear with align_corners=False and padding_mode="border" reads the same grid."""
    generator = torch.Generator().manual_seed(2)
    size, columns, voxel, low = (6, 9, 7), 5, torch.tensor([0.1, 0.05, 0.3]), torch.tensor([-0.2, 0.1, 0.0])
    grid = torch.randn(2, columns, *size, generator=generator)
    unit = torch.rand(2, 400, 3, generator=generator)
    points = low + unit * voxel * torch.tensor(size)
    given = grid if align == "channels_first" else grid.movedim(1, -1)
    got = run(backend, given, points, voxel_size=voxel, grid_min=low, bounds="clamp", layout=align)
    at = (unit * 2 - 1).flip(-1)[:, :, None, None]  # grid_sample wants z, y, x
    want = F.grid_sample(grid, at, mode="bilinear", padding_mode="border", align_corners=False)
    torch.testing.assert_close(got, want[..., 0, 0].movedim(1, -1), rtol=1e-4, atol=2e-5)


@every_backend
@pytest.mark.parametrize("mode", ["nearest", "trilinear"])
def test_clamp_takes_the_nearest_place(backend: VoxelBackend, mode: str) -> None:
    points = [[-9.0, 0.5, 0.5], [INF, INF, -INF], [0.5, 99.0, 1.5], [NAN, 0.5, 0.5], [1e38, -1e38, 0.5]]
    options = {"mode": mode, "bounds": "clamp", "empty_value": -1, **UNIT}
    got = run(backend, ramp(2, 3, 2), points, **options)
    assert got.flatten().tolist() == [0, 120, 21, -1, 100]


@every_backend
def test_masked_and_outside_points_take_empty_value(backend: VoxelBackend) -> None:
    points = torch.tensor([[0.5, 0.5, 0.5], [1.5, 0.5, 0.5], [7.0, 0.5, 0.5]])
    mask = torch.tensor([True, False, True])
    for value in (0, -2.5, NAN):
        got = run(backend, ramp(2, 2, 2) + 1, points, mask=mask, empty_value=value, **UNIT)
        assert_same_bits(got.flatten(), torch.tensor([1.0, value, value]))


@every_backend
@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=str)
def test_nearest_copies_any_dtype(backend: VoxelBackend, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    if dtype.is_floating_point:
        grid = torch.randn(3, 2, 4, 3, generator=generator).to(dtype)
    elif dtype == torch.bool:
        grid = torch.randint(0, 2, (3, 2, 4, 3), generator=generator).bool()
    else:
        info = torch.iinfo(dtype)
        grid = torch.randint(info.min, info.max, (3, 2, 4, 3), generator=generator, dtype=torch.int64).to(dtype)
    points = torch.rand(50, 3, generator=generator) * 5 - 0.5
    call = Call("devoxelize", (grid, points), {"mode": "nearest", **UNIT})
    if not backend.takes(call):
        pytest.skip("NumPy has no bfloat16")
    got = agrees_with_oracle(backend, call)["out"]
    assert got.dtype == dtype


@every_backend
@pytest.mark.parametrize("values", FLOATS, ids=str)
@pytest.mark.parametrize("out", FLOATS, ids=str)
def test_trilinear_rounds_once(backend: VoxelBackend, values: torch.dtype, out: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(4)
    grid = torch.randn(4, 3, 5, 2, generator=generator).to(values)
    points = torch.rand(60, 3, generator=generator) * torch.tensor([4.0, 3.0, 5.0])
    for dtype in (torch.float32, torch.float64):
        call = Call("devoxelize", (grid, points.to(dtype)), {"out_dtype": out, **UNIT})
        if backend.takes(call):
            assert agrees_with_oracle(backend, call)["out"].dtype == out


@every_backend
def test_a_cell_that_is_no_number_touches_its_neighbours_alone(backend: VoxelBackend) -> None:
    grid = torch.zeros(5, 5, 5, 1)
    grid[2, 2, 2] = NAN
    centres = torch.cartesian_prod(*(torch.arange(5.0) + 0.5,) * 3)
    got = run(backend, grid, centres, mode="nearest", **UNIT).reshape(5, 5, 5)
    assert got.isnan().nonzero().tolist() == [[2, 2, 2]]
    agrees_with_oracle(backend, Call("devoxelize", (grid, centres + 0.25), dict(UNIT)))


@every_backend
def test_packed_batched_and_posed_points(backend: VoxelBackend) -> None:
    generator = torch.Generator().manual_seed(5)
    grid = torch.randn(3, 4, 5, 3, 6, generator=generator)
    points = torch.rand(20, 3, generator=generator) * 6 - 0.5
    pose = torch.eye(4).repeat(3, 1, 1)
    pose[:, :3] += torch.randn(3, 3, 4, generator=generator) * 0.1
    splits = torch.tensor([1, 9, 9, 17])
    options = {"row_splits": splits, "empty_value": -7, "voxel_size": (1.0, 0.8, 1.5), "grid_min": -0.25}
    got = agrees_with_oracle(backend, Call("devoxelize", (grid, points), options))["out"]
    assert bool((got[[0, 17, 18, 19]] == -7).all()) and not bool((got == -7).all())
    each = {
        "voxel_size": torch.rand(3, 3, generator=generator) + 0.5,
        "grid_min": -torch.rand(3, 3, generator=generator),
    }
    batch = torch.rand(3, 40, 3, generator=generator) * 5 - 0.5
    for bounds in ("drop", "clamp"):
        for own in (pose, pose[0]):
            call = Call("devoxelize", (grid, batch), {**each, "pose": own, "bounds": bounds})
            agrees_with_oracle(backend, call)


@every_backend
def test_grids_of_any_strides(backend: VoxelBackend) -> None:
    generator = torch.Generator().manual_seed(6)
    grid = torch.randn(2, 4, 3, 5, 6, generator=generator)
    points = torch.rand(2, 50, 3, generator=generator) * 4
    want = run(backend, grid, points, **UNIT)
    for order in ((0, 4, 1, 2, 3), (3, 2, 1, 0, 4), (4, 3, 2, 1, 0)):
        back = [order.index(k) for k in range(5)]
        strided = grid.permute(order).contiguous().permute(back)
        assert strided.stride() != grid.stride()
        assert_same_bits(run(backend, strided, points, **UNIT), want, str(order))
    shared = grid[:1].expand(2, -1, -1, -1, -1)
    assert_same_bits(run(backend, shared, points, **UNIT)[0], want[0])


@every_backend
def test_sizes_of_zero_and_one(backend: VoxelBackend) -> None:
    for grid, points in [
        (torch.zeros(2, 2, 2, 3), torch.zeros(0, 3)),
        (torch.zeros(2, 1, 2, 2, 3), torch.zeros(2, 0, 3)),
        (torch.zeros(2, 2, 2, 0), torch.zeros(4, 3)),
        (torch.full((1, 1, 1, 2), 5.0), torch.rand(4, 3)),
    ]:
        agrees_with_oracle(backend, Call("devoxelize", (grid, points), dict(UNIT)))


@every_backend
def test_voxelize_then_devoxelize_gives_each_point_its_cells_value(backend: VoxelBackend) -> None:
    generator = torch.Generator().manual_seed(7)
    points, features = torch.rand(2, 300, 3, generator=generator) * 5, torch.randn(2, 300, 4, generator=generator)
    frame = {"voxel_size": 0.5, "grid_min": 0.25}
    made = backend.run(
        Call("dense", (points, features), {**frame, "grid_size": (7, 8, 9), "reduce": "mean", "return_inverse": True})
    )
    got = run(backend, made["mean"], points, mode="nearest", empty_value=NAN, **frame)
    flat, inverse = made["mean"].flatten(1, 3), made["inverse"]
    want = torch.stack([flat[b][inverse[b].clamp(min=0)] for b in range(2)])
    assert_same_bits(got, torch.where((inverse >= 0)[..., None], want, NAN))


# ---- Gradients by hand (finite differences: test_voxel_autograd.py) -------------------------------------------------


@public_backend
def test_gradient_of_the_grid_is_the_weights(backend: VoxelBackend) -> None:
    grid = backend.put(torch.zeros(2, 2, 2, 1, dtype=torch.float64)).requires_grad_()
    points = backend.put(torch.tensor([[0.75, 1.0, 1.5]], dtype=torch.float64))
    robocache.devoxelize(grid, points, backend=backend.name, **UNIT).backward()
    assert grid.grad is not None
    want = torch.zeros(2, 2, 2, dtype=torch.float64)
    want[0, :, 1], want[1, :, 1] = 0.375, 0.125
    torch.testing.assert_close(grid.grad[..., 0].cpu(), want)


@public_backend
def test_gradient_of_the_points_is_the_slope(backend: VoxelBackend) -> None:
    """Through the voxel size and the pose's transpose; none outside, masked, at a clamped axis, or for nearest."""
    grid = backend.put(ramp(4, 4, 4).double())
    points = torch.tensor([[2.0, 2.0, 2.0], [9.0, 2.0, 2.0], [2.0, 2.0, 2.0], [0.1, 2.0, 2.0]], dtype=torch.float64)
    mask = torch.tensor([True, True, False, True])
    slope = torch.tensor([100.0, 10.0, 1.0], dtype=torch.float64)

    def gradient(**options: Any) -> torch.Tensor:
        leaf, values = backend.put(points.clone()).requires_grad_(), grid.clone().requires_grad_()
        given = {"voxel_size": 1.0, "grid_min": 0.0, "mask": backend.put(mask), **options}
        robocache.devoxelize(values, leaf, backend=backend.name, **given).sum().backward()
        return torch.zeros(4, 3) if leaf.grad is None else leaf.grad.cpu()

    got = gradient()
    torch.testing.assert_close(got[0], slope)
    assert not bool(got[1:3].any())
    assert got[3].tolist() == [0, 10, 1]  # before the first centre nothing changes along x
    torch.testing.assert_close(gradient(voxel_size=(2.0, 1.0, 0.75))[0], slope / torch.tensor([2.0, 1.0, 0.75]))
    clamped = gradient(bounds="clamp")
    assert clamped[1].tolist() == [0, 10, 1]
    pose = torch.tensor([[0.0, -1.0, 0.0, 4.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(gradient(pose=backend.put(pose))[0], slope @ pose[:, :3])
    assert not bool(gradient(mode="nearest").any())


@native_backend
def test_lower_precision_gets_gradients_of_its_own_dtype(backend: VoxelBackend) -> None:
    generator = torch.Generator().manual_seed(8)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        grid = backend.put(torch.randn(3, 3, 3, 2, generator=generator).to(dtype)).requires_grad_()
        points = backend.put(torch.rand(40, 3, generator=generator) * 3).requires_grad_()
        robocache.devoxelize(grid, points, backend=backend.name, **UNIT).float().square().sum().backward()
        assert grid.grad is not None and points.grad is not None
        assert grid.grad.dtype == dtype and points.grad.dtype == torch.float32
        exact = grid.detach().double().requires_grad_()
        robocache.devoxelize(exact, points.detach(), backend=backend.name, **UNIT).square().sum().backward()
        torch.testing.assert_close(grid.grad.double(), exact.grad, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("mode", ["nearest", "trilinear"])
@pytest.mark.parametrize("bounds", ["drop", "clamp"])
def test_gradient_of_the_grid_in_the_reference_is_the_operators(mode: str, bounds: str) -> None:
    generator = torch.Generator().manual_seed(5)
    grid = torch.rand(2, 3, 4, 5, 6, generator=generator, requires_grad=True)
    points = torch.rand(2, 300, 3, generator=generator) * 8 - 1
    grad = torch.rand(2, 300, 6, generator=generator)
    out = robocache.devoxelize(grid, points, mode=mode, bounds=bounds, backend="cpu", **UNIT)
    (want,) = torch.autograd.grad(out, grid, grad)
    number = {"nearest": 0, "trilinear": 1}[mode], {"drop": 0, "clamp": 1}[bounds]
    got = grid_gradient(grad, grid.detach(), points, number[0], [1.0] * 3, [0.0] * 3, bounds=number[1])
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
def test_gradient_of_the_grid_repeats_in_deterministic_mode() -> None:
    generator = torch.Generator().manual_seed(6)
    grid = torch.rand(1, 8, 8, 8, 4, generator=generator).cuda().requires_grad_()
    points = (torch.rand(1, 200_000, 3, generator=generator) * 8).cuda()  # 400 points a cell: atomics meet
    grad = torch.rand(1, 200_000, 4, generator=generator).cuda()

    def gradient() -> torch.Tensor:
        out = robocache.devoxelize(grid, points, backend="cuda", **UNIT)
        return torch.autograd.grad(out, grid, grad)[0]

    by_atomics = gradient()
    torch.use_deterministic_algorithms(True)
    try:
        first = gradient()
        assert all(torch.equal(gradient(), first) for _ in range(4))
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(first, by_atomics, rtol=1e-3, atol=1e-3)


def test_arguments_are_named() -> None:
    grid, points = torch.zeros(2, 2, 2, 1), torch.zeros(4, 3)
    for backend in (CPU, TORCH):
        for given, options, name in [
            ((grid, torch.zeros(4, 2)), {}, "points"),
            ((grid[0], points), {}, "grid"),
            ((grid.int(), points), {}, "grid"),
            ((grid, points), {"mode": "cubic"}, "mode"),
            ((grid, points), {"layout": "sideways"}, "layout"),
            ((grid, points), {"bounds": "wrap"}, "bounds"),
            ((grid, points), {"mask": torch.ones(3, dtype=torch.bool)}, "mask"),
            ((grid, points), {"out_dtype": torch.int32}, "out_dtype"),
        ]:
            with pytest.raises((ValueError, TypeError), match=name):
                robocache.devoxelize(*given, backend=backend.name, **{**UNIT, **options})
