"""robocache.numpy's voxel functions: arrays in any layout, in a process without torch, with the bits of the oracle."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import robocache
import robocache.numpy as rn

from .backends import assert_same_bits
from .strategies import examples
from .voxel_backends import NUMPY, agrees_with_oracle
from .voxel_strategies import dense_calls, depth_calls, devoxelize_calls, sparse_calls

ROOT = Path(__file__).resolve().parent.parent
WHERE: dict[str, Any] = {"voxel_size": 0.25, "grid_min": (-0.5, -0.5, 0.0), "grid_size": (4, 5, 3)}
FRAME = {name: WHERE[name] for name in ("voxel_size", "grid_min")}


def cloud(seed: int = 0, batch: int = 3, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Points [B, N, 3], some of them outside, and features [B, N, 4]."""
    rng = np.random.default_rng(seed)
    points = rng.uniform((-0.6, -0.6, -0.1), (0.6, 0.9, 0.8), (batch, count, 3)).astype(np.float32)
    return points, rng.normal(size=(batch, count, 4)).astype(np.float32)


def cells_of(points: np.ndarray) -> np.ndarray:
    """Cell numbers of float32 points, -1 outside."""
    size = np.array(WHERE["grid_size"], np.float32)
    q = np.floor((points - np.array(WHERE["grid_min"], np.float32)) / np.float32(WHERE["voxel_size"]))
    inside = ((q >= 0) & (q < size)).all(axis=-1)
    x, y, z = (np.where(inside, q[..., d], 0).astype(np.int64) for d in range(3))
    return np.where(inside, (x * 5 + y) * 3 + z, -1)


def test_no_torch_is_imported() -> None:
    """Not even by a call: the process refuses to import torch."""
    program = """
        import sys
        class NoTorch:
            def find_spec(self, name, path=None, target=None):
                if name == "torch" or name.startswith("torch."):
                    raise ImportError("torch is not for this process")
        sys.meta_path.insert(0, NoTorch())
        import numpy as np
        import robocache.numpy as rn
        where = dict(voxel_size=1.0, grid_min=0.0)
        points = np.array([[0.5, 0.5, 0.5], [1.5, 0.5, 2.5], [1.2, 0.1, 2.9], [9.0, 0.0, 0.0]], np.float32)
        values = np.array([[1.0], [2.0], [4.0], [8.0]], np.float32)
        grids, dropped = rn.voxelize_point_cloud(points, values, grid_size=(2, 1, 3), reduce=("count", "mean"),
                                                 return_dropped=True, **where)
        assert grids["count"].tolist() == [[[1, 0, 0]], [[0, 0, 2]]] and dropped == 1, grids
        assert grids["mean"][1, 0, 2].tolist() == [3.0]
        tokens = rn.voxelize_point_cloud_sparse(points, values, grid_size=(2, 1, 3), max_voxels=3, **where)
        assert tokens.coords.tolist() == [[0, 0, 0], [1, 0, 2], [-1, -1, -1]] and tokens.num_voxels == 2
        depth = np.full((2, 2), 1500, np.uint16)
        seen = rn.voxelize_depth(depth, np.array([1.0, 1.0, -0.4, -0.4]), None, depth_scale=1e-3, grid_size=3, **where)
        assert seen.sum() == 4 and seen.dtype == np.bool_, seen
        assert rn.devoxelize(grids["mean"], points, mode="nearest", **where).tolist() == [[1.0], [3.0], [3.0], [0.0]]
        try:
            rn.voxelize_point_cloud(points, grid_size=(2, 1, 3), bounds="raise", **where)
        except rn.DataError as error:
            assert (error.fault, error.row, error.position) == ("point_outside", 0, 3), error
        else:
            raise AssertionError("a point outside was taken")
        assert "torch" not in sys.modules
        print("done")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "done"


@pytest.mark.parametrize("calls", [dense_calls, sparse_calls, depth_calls, devoxelize_calls])
@examples(40)
@given(data=st.data())
def test_equal_to_the_oracle(calls: Any, data: st.DataObject) -> None:
    call = data.draw(calls())
    if NUMPY.takes(call):
        agrees_with_oracle(NUMPY, call)


@pytest.mark.parametrize(
    "name", ["voxelize_point_cloud", "voxelize_point_cloud_sparse", "voxelize_depth", "devoxelize", "auto_grid_min"]
)
def test_arguments_are_those_of_the_torch_functions(name: str) -> None:
    ours = dict(inspect.signature(getattr(rn, name)).parameters)
    theirs = dict(inspect.signature(getattr(robocache, name)).parameters)
    assert name == "auto_grid_min" or ours.pop("threads").default is None
    for only_there in ("backend", "deterministic"):
        theirs.pop(only_there, None)
    assert set(ours) == set(theirs)
    for argument, parameter in ours.items():
        assert (parameter.default, parameter.kind) == (theirs[argument].default, theirs[argument].kind), argument


def test_results_are_arrays_of_the_right_kind() -> None:
    points, features = cloud()
    grids, counts, inverse, dropped = rn.voxelize_point_cloud(
        points, features, reduce=("occupancy", "mean"), return_counts=True, return_inverse=True, return_dropped=True,
        **WHERE,
    )  # fmt: skip
    for array, shape, dtype in (
        (grids["occupancy"], (3, 4, 5, 3), np.bool_),
        (grids["mean"], (3, 4, 5, 3, 4), np.float32),
        (counts, (3, 4, 5, 3), np.int32),
        (inverse, (3, 200), np.int64),
        (dropped, (3,), np.int64),
    ):
        assert type(array) is np.ndarray and array.shape == shape and array.dtype == dtype
    cells = cells_of(points)
    np.testing.assert_array_equal(inverse, cells)
    np.testing.assert_array_equal(dropped, (cells < 0).sum(axis=1))
    for b in range(3):
        want = np.bincount(cells[b][cells[b] >= 0], minlength=60).reshape(4, 5, 3)
        np.testing.assert_array_equal(counts[b], want)
        np.testing.assert_array_equal(grids["occupancy"][b], want > 0)


def test_one_cloud_alone() -> None:
    points, features = cloud()
    alone, dropped = rn.voxelize_point_cloud(points[1], features[1], reduce="max", return_dropped=True, **WHERE)
    batch = rn.voxelize_point_cloud(points, features, reduce="max", **WHERE)
    np.testing.assert_array_equal(alone, batch[1])
    assert alone.shape == (4, 5, 3, 4) and dropped.shape == ()
    tokens = rn.voxelize_point_cloud_sparse(points[1], max_voxels=60, **WHERE)
    assert tokens.coords.shape == (60, 3) and tokens.features is None and tokens.num_voxels.shape == ()


@pytest.mark.parametrize(
    "layout",
    [
        lambda a: np.asfortranarray(a),
        lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        lambda a: np.flip(np.flip(a, -1).copy(), -1),  # a negative stride
        lambda a: a.astype(a.dtype.newbyteorder()),
    ],
    ids=["fortran", "every other", "negative stride", "foreign byte order"],
)
def test_any_layout(layout: Any) -> None:
    points, features = cloud(1)
    mask = features[..., 0] > 0
    options = {"reduce": ("sum", "min", "count"), "mask": mask, **WHERE}
    want = rn.voxelize_point_cloud(points, features, **options)
    got = rn.voxelize_point_cloud(layout(points), layout(features), **{**options, "mask": layout(mask)})
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])
    read = rn.devoxelize(want["sum"], points, **FRAME)
    np.testing.assert_array_equal(rn.devoxelize(layout(want["sum"]), layout(points), **FRAME), read)
    depth = (points[..., :2] * 500 + 400).astype(np.uint16).reshape(3, 20, 20)
    camera = np.array([20.0, 20.0, 9.5, 9.5], np.float32)
    color = np.repeat(depth[..., None], 3, axis=-1).astype(np.uint8)
    options = {"depth_scale": 1e-3, "reduce": "mean", **WHERE}
    want_seen = rn.voxelize_depth(depth, camera, None, color, **options)
    np.testing.assert_array_equal(
        rn.voxelize_depth(layout(depth), layout(camera), None, layout(color), **options), want_seen
    )


def test_records_with_odd_addresses_and_read_only_arrays() -> None:
    points, features = cloud(2)
    want = rn.voxelize_point_cloud(points, features, reduce="sum", **WHERE)
    packets = np.zeros((3, 200), dtype=[("id", "u1"), ("at", "f4", (3,)), ("reading", "f4", (4,))])
    packets["at"], packets["reading"] = points, features
    packets.flags.writeable = False
    got = rn.voxelize_point_cloud(packets["at"], packets["reading"], reduce="sum", **WHERE)
    np.testing.assert_array_equal(got, want)


def test_packed_points_are_the_batch() -> None:
    points, features = cloud(3)
    splits = np.array([0, 200, 400, 600], np.int32)
    options = {"reduce": ("mean", "occupancy"), **WHERE}
    packed, inverse = rn.voxelize_point_cloud(
        points.reshape(-1, 3), features.reshape(-1, 4), row_splits=splits, return_inverse=True, **options
    )
    batch = rn.voxelize_point_cloud(points, features, **options)
    for name in batch:
        np.testing.assert_array_equal(packed[name], batch[name])
    np.testing.assert_array_equal(inverse, cells_of(points).reshape(-1))


def test_dtypes_by_name_type_or_bits() -> None:
    points, features = cloud(4)
    count = rn.voxelize_point_cloud(points, reduce="count", **WHERE)
    for dtype in (np.uint8, "uint8", np.dtype("u1")):
        got = rn.voxelize_point_cloud(points, reduce="count", out_dtype=dtype, **WHERE)
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, np.minimum(count, 255))
    bits = rn.voxelize_point_cloud(points, out_dtype="bits", **WHERE)
    np.testing.assert_array_equal(bits, np.packbits(count > 0, axis=-1, bitorder="little"))
    grids = rn.voxelize_point_cloud(
        points, features, reduce=("occupancy", "mean"), out_dtype={"mean": np.float16, "occupancy": "bits"}, **WHERE
    )
    assert grids["mean"].dtype == np.float16 and grids["occupancy"].dtype == np.uint8


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float16, np.float64])
def test_counts_beside_counts_of_another_dtype(dtype: Any) -> None:
    """One pass gives both; the one in the other dtype holds at its largest."""
    points = np.zeros((300, 3), np.float32)
    before = robocache.launch_counts()["voxelize_cpu"]
    grid, counts = rn.voxelize_point_cloud(points, reduce="count", out_dtype=dtype, return_counts=True, **WHERE)
    assert robocache.launch_counts()["voxelize_cpu"] == before + 1
    assert grid.dtype == dtype and counts.dtype == np.int32 and counts.max() == 300
    alone = rn.voxelize_point_cloud(points, reduce="count", out_dtype=dtype, **WHERE)
    np.testing.assert_array_equal(grid, alone)


def test_out_adds_up() -> None:
    (points, _), (more, _) = cloud(5), cloud(6)
    both = rn.voxelize_point_cloud(np.concatenate([points, more], axis=1), reduce=("occupancy", "count"), **WHERE)
    out = {"occupancy": np.zeros((3, 4, 5, 3), np.bool_), "count": np.zeros((3, 4, 5, 3), np.int16)}
    for each in (points, more):
        assert rn.voxelize_point_cloud(each, reduce=("occupancy", "count"), out=out, **WHERE) is out
    for name, grid in out.items():
        np.testing.assert_array_equal(grid, both[name])
    bits = np.zeros((3, 4, 5, 1), np.uint8)
    for each in (points, more):
        result, counts = rn.voxelize_point_cloud(each, out=bits, out_dtype="bits", return_counts=True, **WHERE)
        assert result is bits
        np.testing.assert_array_equal(counts, rn.voxelize_point_cloud(each, reduce="count", **WHERE))
    np.testing.assert_array_equal(bits, np.packbits(both["occupancy"], axis=-1, bitorder="little"))
    alone = np.zeros((4, 5, 3), np.int32)
    assert rn.voxelize_point_cloud(points[0], reduce="count", out=alone, **WHERE) is alone
    np.testing.assert_array_equal(alone, rn.voxelize_point_cloud(points, reduce="count", **WHERE)[0])


def test_an_out_that_cannot_be_written() -> None:
    points, features = cloud(7)
    locked = np.zeros((3, 4, 5, 3), np.int32)
    locked.flags.writeable = False
    for out, words in (
        (locked, "^out: expected a writable, contiguous array"),
        (np.zeros((3, 5, 3, 4), np.int32).transpose(0, 3, 1, 2), "^out: expected a writable, contiguous array"),
        (np.zeros((3, 4, 5, 4), np.int32), r"^out: expected .*\[3, 4, 5, 3\], got \[3, 4, 5, 4\]"),
    ):
        with pytest.raises(ValueError, match=words):
            rn.voxelize_point_cloud(points, reduce="count", out=out, **WHERE)
        assert not out.any()
    with pytest.raises(ValueError, match="mean"):
        rn.voxelize_point_cloud(points, features, reduce="mean", out=np.zeros((3, 4, 5, 3, 4), np.float32), **WHERE)
    with pytest.raises(TypeError, match=r"^out: expected a numpy\.ndarray, got list"):
        rn.voxelize_point_cloud(points, reduce="count", out=[0], **WHERE)


def test_several_resolutions() -> None:
    points, _ = cloud(8)
    coarse, fine = rn.voxelize_point_cloud(
        points, reduce="count", voxel_size=[0.5, 0.25], grid_min=-0.5, grid_size=[(2, 2, 2), (4, 4, 4)]
    )
    pooled = fine.reshape(3, 2, 2, 2, 2, 2, 2).sum(axis=(2, 4, 6))
    np.testing.assert_array_equal(coarse, pooled)


def test_a_corner_from_the_data_is_that_of_torch() -> None:
    points, _ = cloud(9)
    points[0, 5] = np.nan
    pose = np.array([[0.0, -1.0, 0.0, 0.3], [1.0, 0.0, 0.0, -0.2], [0.0, 0.0, 1.0, 0.1]], np.float32)
    mask = np.random.default_rng(9).random((3, 200)) < 0.8
    options: dict[str, Any] = {"voxel_size": 0.3, "grid_min": "auto", "grid_size": 6, "reduce": "count"}
    got = rn.voxelize_point_cloud(points, pose=pose, mask=mask, **options)
    want = robocache.voxelize_point_cloud(
        torch.from_numpy(points), pose=torch.from_numpy(pose), mask=torch.from_numpy(mask), **options
    )
    assert_same_bits(torch.from_numpy(got), want)
    corners = rn.auto_grid_min(points, 0.3, mask=mask, pose=pose)
    tensors = [torch.from_numpy(a) for a in (points, mask, pose)]
    assert_same_bits(torch.from_numpy(corners), robocache.auto_grid_min(tensors[0], 0.3, None, *tensors[1:]))
    assert got.sum() == (mask & np.isfinite(points).all(axis=-1)).sum()


def test_hard_voxels_list_points_as_they_are() -> None:
    points, _ = cloud(10)
    tokens = rn.voxelize_point_cloud_sparse(points, max_voxels=60, max_points=3, **WHERE)
    assert tokens.features.shape == (3, 60, 3, 3) and tokens.counts.max() == 3
    for b in range(3):
        for row in range(int(tokens.num_voxels[b])):
            listed = points[b][tokens.inverse[b] == row][:3]
            assert tokens.counts[b, row] == len(listed)
            np.testing.assert_array_equal(tokens.features[b, row, : len(listed)], listed)
            assert not tokens.features[b, row, len(listed) :].any()


@pytest.mark.parametrize("threads", [2, 3, 16])
def test_threads_do_not_change_a_bit(threads: int) -> None:
    points, features = cloud(11, batch=2, count=40_000)
    options = {"reduce": ("mean", "max", "count"), **WHERE}
    want = rn.voxelize_point_cloud(points, features, threads=1, **options)
    got = rn.voxelize_point_cloud(points, features, threads=threads, **options)
    for name in want:
        assert_same_bits(torch.from_numpy(got[name]), torch.from_numpy(want[name]))
    few = rn.voxelize_point_cloud_sparse(points, features, max_voxels=50, threads=1, **WHERE)
    many = rn.voxelize_point_cloud_sparse(points, features, max_voxels=50, threads=threads, **WHERE)
    for one, other in zip(few, many, strict=True):
        assert_same_bits(torch.from_numpy(other), torch.from_numpy(one))


def test_calls_may_run_at_once() -> None:
    from concurrent.futures import ThreadPoolExecutor

    jobs = [cloud(seed) for seed in range(6)]

    def run(job: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        return rn.voxelize_point_cloud(*job, reduce="mean", **WHERE)

    want = [run(job) for job in jobs]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            for got, expected in zip(pool.map(run, jobs), want, strict=True):
                np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"points": object()}, TypeError, "points: expected an array of numbers, got object"),
        ({"points": np.zeros((3, 200, 2), np.float32)}, ValueError, "points: "),
        ({"points": np.zeros((3, 200, 3), np.int32)}, TypeError, "points: "),
        ({"features": np.zeros((3, 199, 4), np.float32)}, ValueError, "features: "),
        ({"features": np.zeros((3, 200, 4), np.int64)}, TypeError, "features: "),
        ({"features": None}, ValueError, "features: "),
        ({"mask": np.zeros((3, 200), np.uint8)}, TypeError, "mask: "),
        ({"mask": np.zeros((200,), np.bool_)}, ValueError, "mask: "),
        ({"pose": np.zeros((3, 3), np.float32)}, ValueError, "pose: "),
        ({"pose": np.zeros((2, 3, 4), np.float32)}, ValueError, "pose: "),
        ({"voxel_size": "small"}, (TypeError, ValueError), "voxel_size: "),
        ({"voxel_size": -1.0}, ValueError, "voxel_size: "),
        ({"voxel_size": np.zeros((2, 3))}, ValueError, "voxel_size: "),
        ({"grid_min": float("nan")}, ValueError, "grid_min: "),
        ({"grid_min": "lowest"}, ValueError, "grid_min: "),
        ({"grid_size": (4, 5)}, (TypeError, ValueError), "grid_size: "),
        ({"grid_size": (4, 5, 0)}, ValueError, "grid_size: "),
        ({"grid_size": 2.5}, TypeError, "grid_size: "),
        ({"reduce": "median"}, ValueError, "reduce: "),
        ({"reduce": ("mean", "mean")}, ValueError, "reduce: "),
        ({"reduce": ()}, (TypeError, ValueError), "reduce: "),
        ({"bounds": "wrap"}, ValueError, "bounds: "),
        ({"layout": "xyz"}, ValueError, "layout: "),
        ({"out_dtype": np.int32}, TypeError, "out_dtype: "),
        ({"out_dtype": "bits"}, TypeError, "out_dtype: "),
        ({"out_dtype": {"sum": "float32"}}, ValueError, "out_dtype: "),
        ({"empty_value": "none"}, TypeError, "empty_value: "),
        ({"threads": 0}, ValueError, "threads: "),
        ({"row_splits": np.array([0, 600])}, ValueError, "points: "),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], error: Any, words: str) -> None:
    """By the same name and with the same kind of error as on tensors."""
    points, features = cloud(12)
    arguments = {"points": points, "features": features, "reduce": "mean", **WHERE, **changes}
    with pytest.raises(error, match=f"^{words}") as caught:
        rn.voxelize_point_cloud(**arguments)
    if "threads" in changes:
        return
    for name, value in arguments.items():
        if isinstance(value, np.ndarray):
            arguments[name] = torch.from_numpy(value)
    if isinstance(changes.get("out_dtype"), type):
        arguments["out_dtype"] = torch.int32
    with pytest.raises(caught.type, match=f"^{words.split(':')[0]}: "):
        robocache.voxelize_point_cloud(**arguments)


def test_data_errors_carry_their_place() -> None:
    points, _ = cloud(13)
    points[2, 30] = np.nan
    points[:2] = 0.0
    points[2, :30] = 0.0
    with pytest.raises(robocache.DataError) as caught:
        rn.voxelize_point_cloud(points, bounds="raise", **WHERE)
    assert (caught.value.fault, caught.value.row, caught.value.position) == ("point_outside", 2, 30)
    sizes = np.full((3, 3), 0.25)
    sizes[1, 2] = 0.0
    with pytest.raises(robocache.DataError) as caught:
        rn.voxelize_point_cloud(points, **{**WHERE, "voxel_size": sizes})
    assert (caught.value.fault, caught.value.row, caught.value.position) == ("voxel_size", 1, 2)
