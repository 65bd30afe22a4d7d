"""The fast path of the voxel functions: it takes plain eager calls, leaves all others alone, and both ways agree."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import robocache
from robocache import _fast

from .backends import assert_same_bits
from .voxel_backends import Call
from .voxel_strategies import dense_calls, depth_calls, devoxelize_calls, relaid, sparse_calls

DOORS = {
    "dense": ("robocache.voxelize", "_fast_voxelize", robocache.voxelize_point_cloud),
    "sparse": ("robocache.sparse_voxels", "_fast_voxelize_sparse", robocache.voxelize_point_cloud_sparse),
    "depth": ("robocache.depth_images", "_fast_voxelize_depth", robocache.voxelize_depth),
    "devoxelize": ("robocache.devoxel", "_fast_devoxelize", robocache.devoxelize),
}
ANY_CALL = st.one_of(dense_calls(), dense_calls(), sparse_calls(), depth_calls(), devoxelize_calls())


@contextmanager
def way(op: str, closed: bool = False) -> Iterator[list[bool]]:
    """Notes of each call whether the fast path took it; `closed`: it takes none."""
    module, name, _ = DOORS[op]
    door = importlib.import_module(module)
    own: Callable[..., Any] = getattr(door, name)
    taken: list[bool] = []

    def watched(*args: Any) -> Any:
        result = NotImplemented if closed else own(*args)
        taken.append(result is not NotImplemented)
        return result

    with mock.patch.object(door, name, watched):
        yield taken


def run(call: Call, closed: bool = False) -> tuple[Any, bool]:
    """The result of a call, or its error, and whether the fast path took it."""
    with way(call.op, closed) as taken:
        try:
            result = DOORS[call.op][2](*call.given, **call.options)
        except Exception as error:
            return error, any(taken)
    return result, any(taken)


def assert_alike(fast: Any, slow: Any) -> None:
    assert type(fast) is type(slow), (fast, slow)
    if isinstance(fast, torch.Tensor):
        assert fast.stride() == slow.stride() or fast.numel() == 0
        assert fast.requires_grad == slow.requires_grad
        assert_same_bits(fast, slow)
    elif isinstance(fast, dict):
        assert list(fast) == list(slow)
        assert_alike(list(fast.values()), list(slow.values()))
    elif isinstance(fast, (tuple, list)):
        assert len(fast) == len(slow)
        for one, other in zip(fast, slow, strict=True):
            assert_alike(one, other)
    elif isinstance(fast, robocache.DataError):
        assert str(fast) == str(slow)
        assert vars(fast) == vars(slow)
    elif isinstance(fast, Exception):
        assert str(fast) == str(slow)
    else:
        assert fast == slow


def both(call: Call) -> bool:
    """Runs a call both ways; tells whether the fast path took it."""
    fast, taken = run(call)
    slow, still = run(call, closed=True)
    assert not still
    assert_alike(fast, slow)
    return taken


# ---- Both ways agree -------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(ANY_CALL)
def test_both_ways_agree(call: Call) -> None:
    both(call)


@settings(max_examples=60, deadline=None)
@given(ANY_CALL.flatmap(relaid))
def test_both_ways_agree_on_any_strides(call: Call) -> None:
    both(call)


@settings(max_examples=60, deadline=None)
@given(ANY_CALL, st.data())
def test_both_ways_agree_on_wrong_calls(call: Call, data: st.DataObject) -> None:
    """One argument replaced by something else: the same result, or the same error."""
    junk = (None, True, -1, 0, 3, 2.5, "mean", "bits", [], (1, 2), (4, 4, 4), {}, torch.float16, float("inf"), 10**30)
    tensors = (torch.zeros(()), torch.ones(3), torch.ones(2, 3), torch.zeros(5, dtype=torch.int64), torch.empty(0, 3))
    options = dict(call.options)
    names = [*options, "backend", "deterministic", "empty_value", "out_dtype", "return_counts", "reduce"]
    name = data.draw(st.sampled_from([n for n in names if n not in ("max_voxels", "max_points")]))
    options[name] = data.draw(st.sampled_from((*junk, *tensors)))
    both(Call(call.op, call.given, options))


POINTS, FEATURES = torch.rand(2, 30, 3) * 4, torch.randn(2, 30, 5)
FRAME: dict[str, Any] = {"voxel_size": 1.0, "grid_min": 0.0}
GRID: dict[str, Any] = {**FRAME, "grid_size": 4}
DEPTH, CAMERA = torch.rand(2, 3, 4, 6) * 3 + 0.1, torch.tensor([5.0, 5.0, 2.0, 1.5])
SPLITS = torch.tensor([0, 10, 60])
POSE = torch.eye(4)


def dense(*extra: torch.Tensor | None, points: torch.Tensor = POINTS, **options: Any) -> Call:
    return Call("dense", (points, *extra), {**GRID, **options})


def sparse(*extra: torch.Tensor | None, points: torch.Tensor = POINTS, **options: Any) -> Call:
    return Call("sparse", (points, *extra), {**GRID, "max_voxels": 8, **options})


def depth(*extra: torch.Tensor | None, images: torch.Tensor = DEPTH, **options: Any) -> Call:
    return Call("depth", (images, CAMERA, *(extra or (None,))), {**GRID, **options})


def devoxelize(grid: torch.Tensor, points: torch.Tensor = POINTS, **options: Any) -> Call:
    return Call("devoxelize", (grid, points), {**FRAME, **options})


CELLS = torch.randn(2, 4, 4, 4, 3)
EXTRAS = {"return_counts": True, "return_inverse": True, "return_dropped": True}
PACKED = {"points": POINTS.reshape(60, 3), "row_splits": SPLITS}

TAKEN = {
    "occupancy": dense(),
    "alone": dense(points=POINTS[0], **EXTRAS),
    "packed": dense(FEATURES.reshape(60, 5), reduce="mean", **PACKED, **EXTRAS),
    "several": dense(FEATURES, reduce=("mean", "count", "occupancy"), **EXTRAS),
    "a list of names": dense(FEATURES, reduce=["sum", "max"], layout="channels_first"),
    "features of no use": dense(FEATURES, reduce="count"),
    "mask and pose": dense(mask=POINTS[..., 0] < 2, pose=POSE),
    "a pose each": dense(pose=POSE[:3].repeat(2, 1, 1)),
    "a pose of a cloud": dense(points=POINTS[0], pose=POSE),
    "three numbers": dense(voxel_size=(1.0, 2, 0.5), grid_min=[0, 0.5, 0], grid_size=[4, 2, 8]),
    "tensors": dense(voxel_size=torch.ones(3), grid_min=torch.zeros(2, 3)),
    "bits": dense(out_dtype="bits"),
    "a dtype for all": dense(FEATURES, reduce=("mean", "count"), out_dtype=torch.float64),
    "dtypes by name": dense(FEATURES, reduce=("mean", "count"), out_dtype={"mean": torch.float16, "count": None}),
    "float64": dense(points=POINTS.double()),
    "no points": dense(points=POINTS[:, :0]),
    "no samples": dense(points=POINTS[:0]),
    "points that want a gradient": dense(points=POINTS.clone().requires_grad_()),
    "options": dense(bounds="clamp", deterministic=True, empty_value=-1, backend="cpu"),
    "sparse": sparse(),
    "sparse features": sparse(FEATURES, out_dtype=torch.float16),
    "sparse several": sparse(FEATURES, reduce=("max", "mean"), order="first_appearance"),
    "sparse packed": sparse(FEATURES.reshape(60, 5), **PACKED),
    "sparse alone": sparse(FEATURES[0], points=POINTS[0]),
    "hard": sparse(FEATURES, max_points=2),
    "hard coordinates": sparse(max_points=2),
    "depth": depth(),
    "depth uint16": depth(images=(DEPTH * 1000).to(torch.uint16), depth_scale=0.001, **EXTRAS),
    "depth color": depth(POSE, torch.rand(2, 3, 4, 6, 3), reduce=("mean", "count"), **EXTRAS),
    "depth alone": depth(images=DEPTH[0, 0], mask=DEPTH[0, 0] > 1, **EXTRAS),
    "depth of one camera": depth(images=DEPTH[0]),
    "trilinear": devoxelize(CELLS),
    "nearest": devoxelize(torch.ones(2, 4, 4, 4, 1, dtype=torch.int32), mode="nearest"),
    "devoxelize alone": devoxelize(CELLS[0], POINTS[0], out_dtype=torch.float64),
    "devoxelize packed": devoxelize(CELLS, POINTS.reshape(60, 3), row_splits=SPLITS, empty_value=float("nan")),
    "channels first": devoxelize(CELLS.movedim(-1, 1).contiguous(), layout="channels_first", pose=POSE),
}


@pytest.mark.parametrize("name", TAKEN)
def test_plain_calls_are_taken(name: str) -> None:
    assert both(TAKEN[name])


def negated() -> torch.Tensor:
    return torch.randn(2, 30, 3, dtype=torch.complex64).conj().imag


LEFT = {
    "auto": dense(grid_min="auto"),
    "several grids": dense(grid_size=[(4, 4, 4), (2, 2, 2)]),
    "a size of another class": dense(grid_size=True),
    "a number of no class": dense(voxel_size="1"),
    "not finite": dense(voxel_size=float("nan")),
    "not positive": dense(voxel_size=0.0),
    "too small for float32": dense(voxel_size=1e-50),
    "too large for float32": dense(grid_min=1e300),
    "a whole number past float64": dense(grid_min=10**400),
    "a size past int64": dense(grid_size=10**30),
    "a size of another dtype": dense(voxel_size=torch.ones(3, dtype=torch.float64)),
    "a size of one number": dense(voxel_size=torch.tensor(1.0)),
    "row_splits of another dtype": dense(**{**PACKED, "row_splits": SPLITS.int()}),
    "row_splits with steps": dense(**{**PACKED, "row_splits": SPLITS.repeat_interleave(2)[::2]}),
    "a pose of another dtype": dense(pose=POSE.double()),
    "a gradient": dense(FEATURES.clone().requires_grad_(), reduce="mean"),
    "negated": dense(points=negated()),
    "another backend": dense(backend="torch"),
    "counts in another dtype": dense(reduce="count", out_dtype=torch.int16, return_counts=True),
    "no features": dense(reduce="mean"),
    "twice": dense(reduce=("count", "count")),
    "a name unknown": dense(reduce="median"),
    "larger than small": dense(grid_size=(512, 512, 1024), out_dtype=torch.float64),
    "hard coordinates' gradient": sparse(points=POINTS.clone().requires_grad_(), max_points=2),
    "hard in another dtype": sparse(FEATURES, max_points=2, out_dtype=torch.float64),
    "no room for voxels": sparse(max_voxels=-1),
    "matrices": Call("depth", (DEPTH, torch.eye(3), None), GRID),
    "the points' gradient": devoxelize(CELLS, POINTS.clone().requires_grad_()),
    "the grid's gradient": devoxelize(CELLS.clone().requires_grad_()),
    "whole numbers between": devoxelize(CELLS.int()),
}


@pytest.mark.parametrize("name", [name for name in LEFT if name != "larger than small"])
def test_other_calls_are_left_alone(name: str) -> None:
    assert not both(LEFT[name])


def test_large_results_are_left_to_the_way_that_asks_for_memory() -> None:
    call = LEFT["larger than small"]
    slow = mock.patch("robocache.voxelize.prepare_cloud", side_effect=LookupError)
    with way("dense") as taken, slow, pytest.raises(LookupError):
        robocache.voxelize_point_cloud(*call.given, **call.options)
    assert taken == [False]


def test_faults_in_the_data_are_the_same_errors() -> None:
    outside = POINTS - 100
    backwards = torch.tensor([0, 20, 10])
    for call in (
        dense(points=outside, bounds="raise"),
        dense(points=POINTS.reshape(60, 3), row_splits=backwards),
        dense(voxel_size=torch.zeros(3)),
        sparse(points=outside, bounds="raise"),
        depth(bounds="raise", grid_size=1),
        devoxelize(CELLS, outside, bounds="raise"),
    ):
        error, taken = run(call)
        assert taken is False  # it raised
        assert isinstance(error, robocache.DataError), error
        slow, _ = run(call, closed=True)
        assert_alike(error, slow)


# ---- Grids of the caller's -------------------------------------------------------------------------------------------


def test_grids_of_the_caller_are_added_to() -> None:
    for alone in (False, True):
        points = POINTS[0] if alone else POINTS
        options = {"reduce": ("count", "occupancy")}
        outs = [
            {"count": torch.ones(*lead, 4, 4, 4, dtype=torch.int32), "occupancy": torch.zeros(*lead, 4, 4, 4)}
            for lead in [() if alone else (2,)] * 2
        ]
        fast, taken = run(dense(points=points, out=outs[0], return_dropped=True, **options))
        assert taken
        assert fast[0] is outs[0]
        slow, _ = run(dense(points=points, out=outs[1], return_dropped=True, **options), closed=True)
        assert_alike(fast, slow)
        assert [one._version for one in outs[0].values()] == [one._version for one in outs[1].values()] == [1, 1]


@pytest.mark.parametrize(
    "out",
    [
        torch.zeros(2, 4, 4, 5, dtype=torch.int32),
        torch.zeros(2, 4, 4, 4, dtype=torch.int32).transpose(1, 3),
        torch.zeros(4, 4, 4, dtype=torch.int32),
        torch.zeros(2, 4, 4, 4, requires_grad=True),
        {"count": torch.zeros(2, 4, 4, 4, dtype=torch.int32)},
        "out",
    ],
    ids=["shape", "strides", "batch", "gradient", "dict", "no tensor"],
)
def test_other_grids_of_the_caller_are_left_alone(out: Any) -> None:
    before = out.clone() if isinstance(out, torch.Tensor) else None
    assert not both(dense(reduce="count", out=out))
    if before is not None:
        assert torch.equal(out, before)


# ---- Where torch must see the operator -------------------------------------------------------------------------------

EACH = {
    "dense": dense(FEATURES, reduce="mean"),
    "sparse": sparse(FEATURES),
    "depth": depth(),
    "devoxelize": devoxelize(CELLS),
}


@pytest.mark.parametrize("op", EACH)
def test_modes_and_subclasses_see_the_operator(op: str) -> None:
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    class Functions(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    class Dispatches(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    class Watched(torch.Tensor):
        pass

    for mode in (Functions(), Dispatches()):
        with mode:
            assert not run(EACH[op])[1], mode
    first, *rest = EACH[op].given
    assert first is not None
    assert not run(Call(op, (first.as_subclass(Watched), *rest), EACH[op].options))[1]
    assert run(EACH[op])[1]


def test_transforms_and_tracers_see_the_operator() -> None:
    with way("dense") as taken:
        stacked = torch.func.vmap(lambda points: robocache.voxelize_point_cloud(points, **GRID))(POINTS)
    assert taken == [False]
    assert torch.equal(stacked, robocache.voxelize_point_cloud(POINTS, **GRID))
    with way("dense") as taken:
        torch.jit.trace(lambda points: robocache.voxelize_point_cloud(points, **GRID), (POINTS,), check_trace=False)
    assert taken and not any(taken)


def test_gradients_are_off() -> None:
    leaf = FEATURES.clone().requires_grad_()
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            result, taken = run(dense(leaf, reduce="mean"))
        assert taken
        assert not result.requires_grad
        assert result.is_inference() == (off is torch.inference_mode)


def test_it_is_on() -> None:
    assert _fast.ENABLED
