"""The Triton and CuPy peers of the benchmarks on small shapes of every row that they can do, plain and in a graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import robocache
from benchmarks import (
    align,
    align_families,
    attention,
    attention_cases,
    cases,
    measure,
    peer_set,
    timing,
    voxel_cases,
    voxel_checks,
    voxel_families,
    voxel_inputs,
)
from benchmarks.peer_set import Family
from benchmarks.voxel_cases import VoxelCase

pytestmark = pytest.mark.gpu


def _able(families: tuple[Family, ...], table: Any) -> list[tuple[Family, Any]]:
    return [
        (family, case)
        for family in families
        if family.device == "cuda"
        for case in table
        if "gpu" in case.tags and family.why_not(case) is None
    ]


def _different(table: Any) -> list[cases.Case]:
    """One case of each combination of types, kinds and layout: a small shape hides what else differs."""
    found: dict[Any, cases.Case] = {}
    for case in table:
        if "gpu" in case.tags:
            streams = tuple((stream.dtype, str(stream.kind)) for stream in case.streams)
            found.setdefault((streams, case.time_dtype, case.layout, case.batch > 1), case)
    return list(found.values())


def _label(one: Any) -> str:
    return str(one.name)


def _captured(call: Any) -> Any:
    """What a call gives from inside a CUDA graph, as the timer runs it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        out = call()
    for tensor in voxel_inputs.flat(out):
        tensor.zero_()  # what stands there afterwards is the replay's
    graph.replay()
    torch.cuda.synchronize()
    return [tensor.clone() for tensor in voxel_inputs.flat(out)]


@pytest.mark.parametrize(("family", "case"), _able(align_families.FAMILIES, _different(cases.CASES)), ids=_label)
def test_align_peers(family: Family, case: cases.Case) -> None:
    assert peer_set.why_missing(family.library) is None
    small = case.scaled(3, 60)
    inputs = cases.build(small, "cuda", seed=5)
    before = robocache.launch_counts()
    ours = cases.call_public(inputs, backend="cuda")
    assert robocache.launch_counts() != before
    call = family.bind(inputs)
    call()  # a tuned kernel's first call gives no answer
    assert align.check_peer(small, family.name, call(), ours)["agree"] > 0.999
    assert align.check_peer(small, family.name, _captured(call)[0], ours)["agree"] > 0.999


@pytest.mark.parametrize(
    ("family", "case"),
    _able(voxel_families.FAMILIES, [case for case in voxel_cases.CASES if case.scatter in ("uniform", "onecell")]),
    ids=_label,
)
def test_voxelize_peers(family: Family, case: VoxelCase) -> None:
    assert peer_set.why_missing(family.library) is None
    small = case.scaled(3, 900, 9)
    inputs = voxel_inputs.build(small, "cuda", seed=3)
    before = robocache.launch_counts()
    ours = voxel_inputs.flat(voxel_inputs.bind(inputs, "cuda")())
    assert robocache.launch_counts() != before
    call = family.bind(inputs)
    call()
    assert voxel_checks.check_peer(small, family.name, call(), ours)["agree"] >= 0.999
    assert voxel_checks.check_peer(small, family.name, _captured(call), ours)["agree"] >= 0.999


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_attention_on_the_gpu(dtype: str) -> None:
    case = attention_cases.AttentionCase(128, batch=2, heads=2, dtype=dtype, tags=frozenset({"gpu"}))
    plan = measure.Plan("cuda", repeats=5, max_sets=3, warm=False)
    before = robocache.launch_counts()
    row = attention.run_case(case, plan, timing.GraphTimer(budget_s=0.02), 3e12, lambda text: None)
    assert robocache.launch_counts() != before
    assert row["errors"] == {}
    named = set(row["variants"]) | set(row["absent"])
    assert named == {"robocache", attention.DEFAULT, *attention_cases.BACKENDS}
    assert {"math", "efficient"} <= set(row["variants"])
    if dtype == "fp32":  # both take half precision alone
        assert {"flash", "cudnn"} <= set(row["absent"])
