"""One call, the same bits: brute-force oracle, native kernels, reference, NumPy and C, vector codes, threads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from . import capi
from .strategies import examples
from .test_align_backends import ISAS
from .voxel_backends import (
    C_API,
    CPU,
    CUDA,
    DEVICE,
    HOST,
    Call,
    VoxelBackend,
    agrees_with_oracle,
    compare,
    every_backend,
    oracle,
)
from .voxel_strategies import dense_calls, depth_calls, devoxelize_calls, relaid, sparse_calls

OPS = {"dense": dense_calls, "sparse": sparse_calls, "depth": depth_calls, "devoxelize": devoxelize_calls}
each_op = pytest.mark.parametrize("op", OPS)
OTHERS = [*HOST[1:], *DEVICE]


@each_op
@every_backend
@examples(150)
@given(data=st.data())
def test_equal_to_the_oracle(backend: VoxelBackend, op: str, data: st.DataObject) -> None:
    call = data.draw(OPS[op]())
    if backend.takes(call):
        agrees_with_oracle(backend, call)


@each_op
@pytest.mark.parametrize("backend", [HOST[0], HOST[1], HOST[2], DEVICE[0]])
@examples(60)
@given(data=st.data())
def test_strides_do_not_matter(backend: VoxelBackend, op: str, data: st.DataObject) -> None:
    call = data.draw(OPS[op]())
    other = data.draw(relaid(call))
    if backend.name == "c" and op == "depth":
        return  # the descriptor takes pixels that walk with one stride; other images need a copy
    compare(backend.run(other), backend.run(call))


@each_op
@examples(80)
@given(data=st.data())
def test_every_vector_code_agrees(op: str, data: st.DataObject) -> None:
    call = data.draw(OPS[op]())
    results: dict[str, Any] = {}
    for isa in ISAS:
        with capi.cpu_isa(isa) as had:
            if had:
                results[isa] = CPU.run(call)
    for isa, got in results.items():
        compare(got, results["portable"], isa)


# ---- Larger than the oracle has patience for ------------------------------------------------------------------------


def big(name: str, seed: int = 0) -> Call:
    """Calls of many blocks and threads, by name."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.rand(shape, generator=generator) * scale

    options: dict[str, Any] = {"voxel_size": 0.05, "grid_min": 0.0, "grid_size": (20, 24, 18)}
    cloud, features = uniform(4, 20_000, 3), torch.randn(4, 20_000, 7, generator=generator)
    every = ("mean", "max", "count", "occupancy", "sum", "min")
    extras = {"return_inverse": True, "return_dropped": True, "return_counts": True}
    splits = torch.tensor([0, 5, 5, 70_000, 80_000])
    images, camera = uniform(2, 3, 90, 120, scale=2.0), torch.tensor([100.0, 100.0, 60.0, 45.0])
    pose = torch.eye(4)[:3] + torch.randn(2, 3, 3, 4, generator=generator) * 0.1
    fine: dict[str, Any] = {"voxel_size": 1 / 128, "grid_min": 0.0, "grid_size": (128, 96, 112)}
    made = {
        "occupancy": Call("dense", (cloud, None), {**options, **extras}),
        "bits": Call("dense", (cloud, None), {**options, "out_dtype": "bits"}),
        "count": Call("dense", (cloud, None), {**options, "reduce": "count", "out_dtype": torch.uint8}),
        "every": Call("dense", (cloud, features), {**options, "reduce": every, **extras}),
        "mean f16": Call("dense", (cloud, features.half()), {**options, "reduce": "mean", "layout": "channels_first"}),
        "wide max": Call("dense", (cloud[0], features.reshape(20_000, 28)), {**options, "reduce": ("max", "min")}),
        "packed": Call(
            "dense",
            (cloud.reshape(-1, 3), features.reshape(-1, 7)),
            {**options, "reduce": every, "row_splits": splits, **extras},
        ),
        "masked": Call(
            "dense", (cloud, features), {**options, "reduce": every, "mask": uniform(4, 20_000) < 0.5, **extras}
        ),
        "one cell": Call("dense", (cloud * 0.04, features), {**options, "reduce": every, **extras}),
        "clamped": Call("dense", (cloud * 3 - 1, features), {**options, "reduce": every, "bounds": "clamp", **extras}),
        "double": Call("dense", (cloud.double(), features.double()), {**options, "reduce": every, **extras}),
        "fine occupancy": Call("dense", (cloud, None), {**fine, "out_dtype": torch.uint8, **extras}),
        "fine bits": Call("dense", (cloud, None), {**fine, "out_dtype": "bits", "return_counts": True}),
        "fine count": Call("dense", (cloud**4, None), {**fine, "reduce": "count", "out_dtype": torch.int16}),
        "fine mean": Call(
            "dense", (cloud**3, features[..., :4]), {**fine, "reduce": ("mean", "max"), "empty_value": -1}
        ),
        "fine first": Call("dense", (cloud[0], features[0]), {**fine, "reduce": "sum", "layout": "channels_first"}),
        "sparse": Call("sparse", (cloud, features), {**options, "max_voxels": 9000, "reduce": ("mean", "max")}),
        "sparse far": Call(
            "sparse", (cloud, features), {**options, "voxel_size": 1e-6, "grid_size": (2**20, 2**20, 2**19)}
        ),
        "first": Call("sparse", (cloud, features), {**options, "max_voxels": 500, "order": "first_appearance"}),
        "hard voxels": Call("sparse", (cloud, features), {**options, "max_voxels": 4000, "max_points": 5}),
        "depth": Call("depth", (images, camera, pose, None), {**options, "grid_min": -0.5, **extras}),
        "depth color": Call(
            "depth",
            (images, camera, pose, torch.randint(0, 256, (2, 3, 90, 120, 3), generator=generator, dtype=torch.uint8)),
            {**options, "reduce": ("mean", "count"), **extras},
        ),
        "trilinear": Call("devoxelize", (torch.randn(4, 20, 24, 18, 5, generator=generator), cloud), dict(options)),
        "nearest": Call("devoxelize", (torch.randn(4, 20, 24, 18, 5, generator=generator), cloud), dict(options)),
    }
    made["sparse far"].options["max_voxels"] = 20_000
    made["nearest"].options["mode"] = "nearest"
    for name_ in ("trilinear", "nearest"):
        del made[name_].options["grid_size"]
    return made[name]


BIG = [
    "occupancy",
    "bits",
    "count",
    "every",
    "mean f16",
    "wide max",
    "packed",
    "masked",
    "one cell",
    "clamped",
    "double",
    "fine occupancy",
    "fine bits",
    "fine count",
    "fine mean",
    "fine first",
    "sparse",
    "sparse far",
    "first",
    "hard voxels",
    "depth",
    "depth color",
    "trilinear",
    "nearest",
]
big_calls = pytest.mark.parametrize("name", BIG)


@big_calls
@pytest.mark.parametrize("other", OTHERS)
def test_big_calls_equal_the_cpu_kernel(other: VoxelBackend, name: str) -> None:
    call = big(name)
    got, want = other.run(call), CPU.run(call)
    shared = {key: value for key, value in got.items() if key in want}
    assert shared
    compare(shared, want, name)


@big_calls
def test_threads_do_not_change_bits(name: str) -> None:
    call = big(name, seed=1)
    threads = torch.get_num_threads()
    results = {}
    try:
        for count in (1, 2, 3, 7):
            torch.set_num_threads(count)
            results[count] = CPU.run(call)
    finally:
        torch.set_num_threads(threads)
    for count, got in results.items():
        compare(got, results[1], f"{count} threads")
    serial = C_API.run(call)  # no pool
    compare({key: value for key, value in serial.items() if key in results[1]}, results[1], "serial")


@big_calls
def test_vector_codes_agree_on_big_calls(name: str) -> None:
    call = big(name, seed=2)
    results = {}
    for isa in ISAS:
        with capi.cpu_isa(isa) as had:
            if had:
                results[isa] = CPU.run(call)
    assert "portable" in results
    for isa, got in results.items():
        compare(got, results["portable"], isa)


@pytest.mark.gpu
@pytest.mark.sanitize
@big_calls
def test_small_versions_under_the_sanitizer(name: str) -> None:
    """A few hundred points of each, device against host."""
    call = big(name, seed=3)
    grid = call.op == "devoxelize"
    points = call.given[1 if grid else 0]
    assert points is not None
    options = dict(call.options)
    if call.op == "depth":
        given = (points[:, :, :20, :24], call.given[1], call.given[2], call.given[3])
        if given[3] is not None:
            given = (*given[:3], given[3][:, :, :20, :24])
    elif "row_splits" in options:
        given = tuple(None if t is None else t[:700] for t in call.given)
        options["row_splits"] = torch.tensor([0, 5, 5, 600, 700])
    else:
        cut = [None if t is None else t[..., :300, :] for t in call.given]
        given = (call.given[0], cut[1]) if grid else tuple(cut)
        if "mask" in options:
            options["mask"] = options["mask"][..., :300]
    small = Call(call.op, given, options)
    compare(CUDA.run(small), CPU.run(small), name)


# ---- The tree of sums -----------------------------------------------------------------------------------------------


@every_backend
@pytest.mark.parametrize("count", [1, 127, 128, 129, 256, 1000, 128 * 128, 128 * 128 + 1, 20_000])
def test_sums_run_in_the_documented_tree(backend: VoxelBackend, count: int) -> None:
    """All points in one cell, between strangers: values whose sum shows every change of order."""
    generator = torch.Generator().manual_seed(count)
    cells = torch.zeros(count + count // 3 + 1, dtype=torch.bool)
    cells[torch.randperm(len(cells), generator=generator)[:count]] = True
    points = torch.where(cells[:, None], 0.5, 1.5).expand(-1, 3)
    features = torch.randn(len(cells), 2, generator=generator) * 10 ** torch.randint(
        -4, 5, (len(cells), 1), generator=generator
    )
    options = {"voxel_size": 1.0, "grid_min": 0.0, "grid_size": 2, "reduce": ("sum", "mean")}
    got = agrees_with_oracle(backend, Call("dense", (points, features), options))
    plain = features[cells].double().sum(0)
    torch.testing.assert_close(got["sum"][0, 0, 0].double(), plain, rtol=1e-4, atol=1.0)


def test_the_tree_is_seen() -> None:
    """The check above would notice plain sums from left to right."""
    generator = torch.Generator().manual_seed(129)
    features = torch.randn(129, 40, generator=generator)
    call = Call(
        "dense",
        (torch.full((129, 3), 0.5), features),
        {"voxel_size": 1.0, "grid_min": 0.0, "grid_size": 1, "reduce": "sum"},
    )
    plain = features[0].clone()
    for row in features[1:]:
        plain += row
    blocks = features[0].clone()
    for row in features[1:128]:
        blocks += row
    blocks += features[128]
    assert torch.equal(plain, blocks)  # 129: the second block is the last point alone
    many = torch.randn(300, 40, generator=generator)
    call = Call(call.op, (torch.full((300, 3), 0.5), many), call.options)
    plain = many[0].clone()
    for row in many[1:]:
        plain += row
    assert not torch.equal(oracle(call)["sum"][0, 0, 0], plain)
