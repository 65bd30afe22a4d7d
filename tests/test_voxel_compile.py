"""The voxel functions under torch.compile, torch.export and make_fx: one graph, the eager numbers, the same kernels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import robocache

# Sizes that differ from each other, from 3 and from 4: equal ones would be taken for one, and set apart by a recompile.
SIZES = ((2, 31), (5, 47), (6, 59))
COLUMNS = 8


def grid() -> dict[str, Any]:
    return {"voxel_size": 1.0, "grid_min": -4.0, "grid_size": (9, 10, 11)}


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def inputs(batch: int, count: int) -> tuple[Tensor, Tensor]:
    return torch.rand(batch, count, 3) * 10.4 - 4.8, torch.randn(batch, count, COLUMNS)


def dense(points: Tensor, features: Tensor) -> Any:
    grids, counts, inverse, dropped = robocache.voxelize_point_cloud(
        points,
        features,
        reduce=("mean", "max", "occupancy"),
        layout="channels_first",
        return_counts=True,
        return_inverse=True,
        return_dropped=True,
        **grid(),
    )
    return grids["mean"], grids["max"], grids["occupancy"], counts, inverse, dropped


def masked(points: Tensor, features: Tensor) -> Any:
    pose = torch.eye(4).expand(points.shape[0], 4, 4)
    sizes = torch.full((points.shape[0], 3), 1.0)
    where = {**grid(), "voxel_size": sizes}
    return robocache.voxelize_point_cloud(
        points, features, reduce="sum", mask=features[..., 0] > 0, pose=pose, bounds="clamp", **where
    )


def automatic(points: Tensor, features: Tensor) -> Any:
    where = {**grid(), "grid_min": "auto"}
    return robocache.voxelize_point_cloud(points, reduce="count", **where) + features.shape[1]


def sparse(points: Tensor, features: Tensor) -> Any:
    return tuple(robocache.voxelize_point_cloud_sparse(points, features, max_voxels=20, **grid()))


def hard(points: Tensor, features: Tensor) -> Any:
    return tuple(robocache.voxelize_point_cloud_sparse(points, features, max_voxels=20, max_points=3, **grid()))


def there_and_back(points: Tensor, features: Tensor) -> Any:
    means = robocache.voxelize_point_cloud(points, features, reduce="mean", **grid())
    return robocache.devoxelize(means, points + 0.1, voxel_size=1.0, grid_min=-4.0)


def images(points: Tensor, features: Tensor) -> Any:
    depth = 4 * features.abs().unsqueeze(1)  # [B, 1, N, COLUMNS]
    intrinsics = torch.tensor([4.0, 4.0, 3.5, 8.0])
    color = points.unsqueeze(1).unsqueeze(3).expand(*depth.shape, 3)
    return robocache.voxelize_depth(depth, intrinsics, None, color, reduce="mean", **grid())


def operator(points: Tensor, features: Tensor) -> Any:
    where = ([9, 10, 11], [1.0, 1.0, 1.0], [-4.0, -4.0, -4.0])
    return tuple(torch.ops.robocache.voxelize(points, features, [1, 3], [8, 2], *where))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "dense": dense,
    "masked": masked,
    "automatic": automatic,
    "sparse": sparse,
    "hard": hard,
    "there_and_back": there_and_back,
    "images": images,
    "operator": operator,
}
KERNELS = {"sparse": "voxelize_sparse_cpu", "hard": "voxelize_sparse_cpu"}
DIFFERENTIABLE = ["dense", "masked", "sparse", "hard", "there_and_back", "operator"]


def parts(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def same(a: Any, b: Any) -> None:
    for x, y in zip(parts(a), parts(b), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("dynamic", "settled"), [(False, len(SIZES)), (True, 1), (None, 2)], ids=str)
def test_one_graph_for_all_sizes(name: str, dynamic: bool | None, settled: int) -> None:
    """The first `settled` sizes are compiled, no others. One may take two passes: torch takes a float from outside for
    a symbol first."""
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(FUNCTIONS[name], fullgraph=True, dynamic=dynamic, backend=counter)
    kernel = KERNELS.get(name, "voxelize_cpu")
    compiles = [0]
    for sizes in SIZES:
        given = inputs(*sizes)
        before = robocache.launch_counts()[kernel]
        result = compiled(*given)
        assert robocache.launch_counts()[kernel] > before
        same(result, FUNCTIONS[name](*given))
        compiles.append(counter.frame_count)
    rose = [after > before for before, after in itertools.pairwise(compiles)]
    assert rose == [k < settled for k in range(len(SIZES))]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_in_a_compiled_graph(name: str) -> None:
    def loss(points: Tensor, features: Tensor) -> Tensor:
        out = parts(FUNCTIONS[name](points, features.sin()))
        return sum(part.square().sum() for part in out if part.is_floating_point())

    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for sizes in SIZES[:2]:
        points, features = inputs(*sizes)
        leaves = [features.requires_grad_()]
        if name == "there_and_back":
            leaves.append(points.requires_grad_())
        before = robocache.launch_counts()["voxelize_backward_cpu"]
        grads = torch.autograd.grad(compiled(points, features), leaves)
        assert robocache.launch_counts()["voxelize_backward_cpu"] > before
        for grad, expected in zip(grads, torch.autograd.grad(loss(points, features), leaves), strict=True):
            assert bool(grad.abs().sum() > 0)
            torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("dynamic", [False, True])
def test_accumulation_in_a_compiled_graph(dynamic: bool) -> None:
    def add(points: Tensor, grids: tuple[Tensor, Tensor]) -> Any:
        into = {"count": grids[0], "occupancy": grids[1]}
        _, dropped = robocache.voxelize_point_cloud(
            points, reduce=("count", "occupancy"), out=into, return_dropped=True, **grid()
        )
        return dropped, grids[0].sum()

    compiled = torch.compile(add, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for sizes in SIZES[:2]:
        points, _ = inputs(*sizes)
        shape = (sizes[0], 9, 10, 11)
        ours, theirs = ((torch.ones(shape, dtype=torch.int32), torch.zeros(shape, dtype=torch.bool)) for _ in range(2))
        same(compiled(points, ours), add(points, theirs))
        same(ours, theirs)
        assert int(ours[0].sum()) > ours[0].numel()


def test_inductor() -> None:
    def step(points: Tensor, features: Tensor) -> Tensor:
        # Transposed producers: Inductor may choose the strides of what reaches the operators.
        moved = (points.transpose(1, 2) * 1.5).transpose(1, 2)
        means = robocache.voxelize_point_cloud(moved, features.exp(), reduce="mean", **grid())
        means = (means.movedim(-1, 1) * 2).movedim(1, -1)
        read = robocache.devoxelize(means, moved, voxel_size=1.0, grid_min=-4.0, mode="nearest")
        return read.square().sum(-1)

    compiled = torch.compile(step, fullgraph=True, dynamic=True)
    for sizes in SIZES[:2]:
        points, features = inputs(*sizes)
        torch.testing.assert_close(compiled(points, features), step(points, features))
        leaf, expected = features.clone().requires_grad_(), features.clone().requires_grad_()
        compiled(points, leaf).sum().backward()
        step(points, expected).sum().backward()
        torch.testing.assert_close(leaf.grad, expected.grad)


def test_transforms_in_a_compiled_graph() -> None:
    def loss(features: Tensor, points: Tensor) -> Tensor:
        return dense(points, features)[0].square().sum()

    def grads(features: Tensor, points: Tensor) -> Tensor:
        return torch.vmap(torch.func.grad(loss))(features, points)

    points, features = torch.rand(3, 2, 31, 3), torch.randn(3, 2, 31, COLUMNS)
    compiled = torch.compile(grads, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(features, points), grads(features, points))


def test_a_wrong_shape_fails_while_compiling() -> None:
    compiled = torch.compile(dense, fullgraph=True, backend="aot_eager")
    points, features = inputs(2, 31)
    with pytest.raises(Exception, match=r"features: expected .*\[2, 31, C\], got \[2, 30, 8\]"):
        compiled(points, features[:, 1:])


class Encoder(torch.nn.Module):
    """A grid of means through one layer, and sparse voxels: what a policy would run."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(COLUMNS, 3)

    def forward(self, points: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        means = robocache.voxelize_point_cloud(points, features, reduce="mean", **grid())
        voxels = robocache.voxelize_point_cloud_sparse(points, features, max_voxels=20, **grid())
        assert voxels.features is not None
        return self.layer(means), self.layer(voxels.features), voxels.coords


def exported() -> tuple[Encoder, Any]:
    batch, count = (torch.export.Dim(name, min=2, max=4096) for name in ("batch", "count"))
    encoder = Encoder().eval().requires_grad_(False)
    shapes = ({0: batch, 1: count}, {0: batch, 1: count})
    with torch.no_grad():
        return encoder, torch.export.export(encoder, inputs(*SIZES[0]), dynamic_shapes=shapes)


def test_export(tmp_path: Path) -> None:
    encoder, program = exported()
    names = " ".join(str(node.target) for node in program.graph.nodes)
    assert "voxelize.default" in names
    assert "voxelize_sparse.default" in names
    torch.export.save(program, tmp_path / "encoder.pt2")
    programs = (program, program.run_decompositions({}), torch.export.load(tmp_path / "encoder.pt2"))
    with torch.no_grad():
        for sizes in SIZES:
            given = inputs(*sizes)
            for one in programs:
                same(one.module()(*given), encoder(*given))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("name", ["dense", "sparse", "there_and_back"])
def test_make_fx_records_the_operator(name: str, mode: str) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    graph = make_fx(FUNCTIONS[name], tracing_mode=mode)(*inputs(*SIZES[0]))
    assert any("voxelize" in str(node.target) for node in graph.graph.nodes)
    other = inputs(*SIZES[0])
    same(graph(*other), FUNCTIONS[name](*other))
