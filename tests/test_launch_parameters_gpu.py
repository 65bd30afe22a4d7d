"""No launch parameter changes a result: every value of each, on cases small enough to run them all."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

import robocache
from benchmarks import cases, tune_cases, voxel_cases, voxel_inputs
from benchmarks.tune_bench import GpuBench, same
from benchmarks.tune_decide import CONTROL, CURRENT
from robocache._backend import native

# Forced launch parameters are the process's.
pytestmark = [pytest.mark.gpu, pytest.mark.alone]

COUNTERS = {
    "align": "align_cuda",
    "voxel_tile_broad": "voxelize_sort_cuda",
    "voxel_tile_narrow": "voxelize_sort_cuda",
    "voxel_tile_rows": "voxelize_sort_cuda",
    "voxel_planes": "voxelize_sort_cuda",
    "voxel_sorted": "voxelize_sort_cuda",
    "voxel_global": "voxelize_global_cuda",
    "voxel_bits": "voxelize_cuda",  # what a sample's bits may take decides whether they are in shared memory
    "voxel_partition": "voxelize_partition_cuda",
    "devoxelize": "devoxelize_cuda",
    "voxel_sparse": "voxelize_sparse_cuda",
    "voxel_backward": "voxelize_backward_cuda",
    "devoxelize_backward": "devoxelize_backward_cuda",
    "copy_many": "copy_many_cuda",
}


@pytest.fixture(autouse=True)
def _given_back() -> Iterator[None]:
    native.reset_launch_parameters()
    yield
    native.reset_launch_parameters()


def small(group: tune_cases.Group, case: Any) -> Any:
    """The case with odd, small sizes, as far as it still goes the way that the group is about."""
    if isinstance(case, cases.Case):
        return case.scaled(5, 67)
    if group.name == "voxel_bits":  # many samples, in grids of a part of shared memory or most of it
        return replace(case, points=1003)
    if group.name == "voxel_partition":  # counts of fewer than a million points take atomics
        return case.scaled(2, 1_000_003, 41)
    if isinstance(case, voxel_cases.VoxelCase):
        # Crowded cells make several levels of partial results.
        return replace(case.scaled(3, 5003, 41), scatter="depth")
    return replace(case, megabytes=0.3)


def run(bound: tune_cases.Bound) -> list[torch.Tensor]:
    bound.clear()
    return [tensor.clone() for tensor in tune_cases.flat(bound.call())]


def reference(case: voxel_cases.VoxelCase) -> list[torch.Tensor]:
    """What plain torch gives for the inputs of seed 0."""
    return voxel_inputs.flat(voxel_inputs.bind(voxel_inputs.build(case, "cuda", 0), "torch")())


def force_everywhere(parameter: str, value: int | None) -> None:
    for shape_class in native.shape_class_ends():
        native.set_launch_parameter(parameter, shape_class, value)


@pytest.mark.parametrize("group", tune_cases.GROUPS, ids=lambda group: group.name)
def test_every_value_gives_the_same_bits(group: tune_cases.Group) -> None:
    values = {parameter["name"]: parameter["values"] for parameter in native.launch_parameters()}
    smalls = [small(group, case) for case in group.cases]
    bounds = [tune_cases.bind(case, "cuda", 0) for case in smalls]
    expected = [run(bound) for bound in bounds]
    for case, want in zip(smalls, expected, strict=True):
        if isinstance(case, voxel_cases.VoxelCase) and case.exact:
            assert same(reference(case), want, exact=True), case.name
    counter = COUNTERS[group.name]
    before, runs = robocache.launch_counts()[counter], 0
    for parameter in group.parameters(list(values)):
        for value in values[parameter]:
            force_everywhere(parameter, value)
            for case, bound, want in zip(group.cases, bounds, expected, strict=True):
                assert same(run(bound), want, group.exact), f"{case.name}: {parameter} = {value}"
                runs += 1
        force_everywhere(parameter, None)
    assert robocache.launch_counts()[counter] >= before + runs > before


@pytest.mark.parametrize("group", tune_cases.GROUPS, ids=lambda group: group.name)
@pytest.mark.parametrize("end", [pytest.param(0, id="least", marks=pytest.mark.sanitize), pytest.param(-1, id="most")])
def test_all_values_at_an_end_together(group: tune_cases.Group, end: int) -> None:
    listed = native.launch_parameters()
    names = group.parameters([parameter["name"] for parameter in listed])
    bounds = [tune_cases.bind(small(group, case), "cuda", 1) for case in group.cases[:3]]
    expected = [run(bound) for bound in bounds]
    for parameter in listed:
        if parameter["name"] in names:
            force_everywhere(parameter["name"], parameter["values"][end])
    for bound, want in zip(bounds, expected, strict=True):
        assert same(run(bound), want, group.exact)


class KernelNode(ctypes.Structure):
    """CUDA_KERNEL_NODE_PARAMS of the driver API."""

    _fields_ = [
        ("function", ctypes.c_void_p),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("parameters", ctypes.c_void_p),
        ("extra", ctypes.c_void_p),
        ("kernel", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
    ]


Kernel = tuple[int, int, int, tuple[int | None, int | None]]


def launched(call: Callable[[], Any]) -> list[Kernel]:
    """Blocks, threads of a block, bytes of shared memory and handles of each kernel of a call, as a captured graph has
    them."""
    driver = ctypes.CDLL("libcuda.so.1")
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph(keep_graph=True)
    with torch.cuda.graph(graph):
        call()
    raw, count = ctypes.c_void_p(graph.raw_cuda_graph()), ctypes.c_size_t()
    assert driver.cuGraphGetNodes(raw, None, ctypes.byref(count)) == 0
    nodes = (ctypes.c_void_p * count.value)()
    assert driver.cuGraphGetNodes(raw, nodes, ctypes.byref(count)) == 0
    found = []
    for node in nodes:
        kind, told = ctypes.c_int(), KernelNode()
        assert driver.cuGraphNodeGetType(ctypes.c_void_p(node), ctypes.byref(kind)) == 0
        if kind.value == 0:  # CU_GRAPH_NODE_TYPE_KERNEL
            assert driver.cuGraphKernelNodeGetParams_v2(ctypes.c_void_p(node), ctypes.byref(told)) == 0
            code = (told.function, told.kernel)  # NULL where the driver tells the other
            found.append((int(told.grid[0]), int(told.block[0]), int(told.shared), code))
    return found


@pytest.mark.parametrize("group", tune_cases.GROUPS, ids=lambda group: group.name)
def test_forced_values_reach_the_launch(group: tune_cases.Group) -> None:
    """Threads, tiles and what has kernels of its own: they show in any launch. How far a grid is filled does not."""
    listed = {parameter["name"]: parameter["values"] for parameter in native.launch_parameters()}
    every = (".threads", "write_threads", ".cells_broad", ".cells_narrow", ".row_kib", ".ahead", ".vector", "_points")
    some = (".ahead_percent",)  # a limit, which a case lies on one side of
    names = [name for name in group.parameters(list(listed)) if name.endswith((*every, *some))]
    assert names
    bound = tune_cases.bind(small(group, group.cases[0]), "cuda", 0)
    for name in names:
        taken = []
        for value in listed[name]:
            force_everywhere(name, value)
            taken.append(launched(bound.call))
            if name.endswith((".threads", "write_threads")):
                assert value in {threads for _, threads, _, _ in taken[-1]}, f"{name} = {value}: {taken[-1]}"
        force_everywhere(name, None)
        changes = [one != another for one, another in itertools.pairwise(taken)]
        assert any(changes) if name.endswith(some) else all(changes), f"{name}: {taken}"


def test_a_measurement_has_every_label_and_gives_the_value_back() -> None:
    group = next(group for group in tune_cases.GROUPS if group.name == "voxel_backward")
    bench = GpuBench(rotate_bytes=64 << 20)
    bench.load(group, [group.cases[-1]])
    times = bench.times("voxel_backward.fill", "large", 16384, [2048], rounds=15, seed=0)
    (by_label,) = times.values()
    assert set(by_label) == {CURRENT, CONTROL, "2048"} and all(len(v) == 15 for v in by_label.values())
    assert all(microseconds > 0 for column in by_label.values() for microseconds in column)
    assert native.launch_parameter("voxel_backward.fill", "large", 0) == 16384
    bench.unload()


def test_a_result_that_differs_is_caught() -> None:
    group = tune_cases.GROUPS[0]
    bench = GpuBench(rotate_bytes=1 << 20)
    bench.load(group, [small(group, group.cases[0])])
    (name,) = bench.expected
    bench.expected[name] = [tensor + 1 for tensor in bench.expected[name]]
    with pytest.raises(AssertionError, match=r"align.warps = 16 changes the result"):
        bench.times("align.warps", "small", 16, [8], rounds=7, seed=0)
