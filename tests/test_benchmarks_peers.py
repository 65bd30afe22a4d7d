"""Peers of the benchmarks: each computes what ours does, or says why it is absent. The GPU's are in
test_benchmarks_peers_gpu.py."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import (
    align,
    align_families,
    cases,
    cupy_peers,
    measure,
    peer_set,
    peers,
    scipy_align,
    timing,
    voxel_cases,
    voxel_checks,
    voxel_families,
    voxel_inputs,
    voxel_peers,
    voxelize,
)
from benchmarks.peer_set import AUTOTUNE, Family
from benchmarks.voxel_cases import VoxelCase

GPU_ALIGN = [case for case in cases.CASES if "gpu" in case.tags]
GPU_VOXEL = [case for case in voxel_cases.CASES if "gpu" in case.tags]
BY_NAME = {case.name: case for case in (*GPU_ALIGN, *GPU_VOXEL)}
PLAN = measure.Plan("cpu", repeats=3, compile_modes=(), max_sets=2, warm=False)


# ---- Absent peers say why ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("families", [align_families.FAMILIES, voxel_families.FAMILIES], ids=["align", "voxelize"])
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_every_family_is_chosen_or_absent_with_a_reason(
    families: tuple[Family, ...], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_set, "why_missing", lambda library: None)
    table = cases.CASES if families is align_families.FAMILIES else voxel_cases.CASES
    names = {family.name for family in families if family.device == device}
    used = set()
    for case in table:
        chosen, absent = peer_set.choose(families, case, device)
        assert set(chosen) | set(absent) == names and not set(chosen) & set(absent)
        assert all(len(reason) >= 12 for reason in absent.values())
        used |= set(chosen)
    assert used == names  # none that never does anything


def test_a_missing_library_is_a_reason() -> None:
    assert peer_set.why_missing(None) is None and peer_set.why_missing("numpy") is None
    assert peer_set.why_missing("no_such_library_") == "no_such_library_ is not installed"
    family = Family("other", "cpu", lambda case: None, lambda inputs: lambda: None, "no_such_library_")
    assert peer_set.choose([family], None, "cpu") == ({}, {"other": "no_such_library_ is not installed"})


@pytest.mark.parametrize(
    ("name", "triton", "cupy"),
    [
        ("resample-32x500x256-256-bf16", None, "one axis of samples"),
        ("fuse-256-128-bf16", None, "one axis of samples"),
        ("recording-1x100000x14-20000-fp32", None, None),
        ("windows-1024x500x64-16-bf16", "dense rows", "one axis of samples"),
        ("pchip-512x500x32-250-fp32", "no pchip", "one axis of samples"),
        ("state-512x500x14-250-fp32", "one kind a stream", "one axis of samples"),
        ("robot-64-100-mixed", "up to 3 streams", "one axis of samples"),
    ],
)
def test_what_the_gpu_peers_of_align_can_do(name: str, triton: str | None, cupy: str | None) -> None:
    for why_not, part in ((align_families.no_triton, triton), (align_families.no_cupy, cupy)):
        reason = why_not(BY_NAME[name])
        assert reason is None if part is None else part in str(reason)


@pytest.mark.parametrize(
    ("name", "triton", "cupy"),
    [
        ("occupancy-1x500k-128-u8", None, None),
        ("occupancy-1x500k-128-bits", None, "single bits"),
        ("peract-16x65536-c7-100", None, None),
        ("sparse-coords-1x1M-200", "sparse voxels", "sparse voxels"),
        ("images-16x480x640-100-occupancy", "depth images", "depth images"),
        ("devoxelize-1x1M-c16-100-fp32", "reads a grid", "reads a grid"),
        ("mean-step-1x1M-c16-200", "autograd", "autograd"),
    ],
)
def test_what_the_gpu_peers_of_voxelize_can_do(name: str, triton: str | None, cupy: str | None) -> None:
    for why_not, part in ((voxel_families.no_triton, triton), (voxel_families.no_cupy, cupy)):
        reason = why_not(BY_NAME[name])
        assert reason is None if part is None else part in str(reason)


def test_options_are_beyond_every_peer() -> None:
    case = cases.Case("gap", 1, 5, (cases.StreamSpec(9, 3, max_gap=0.1),))
    for family in align_families.FAMILIES:
        assert "only RoboCache" in str(family.why_not(case))
    assert "only RoboCache" in str(align_families.no_torch(case))


def test_gpu_libraries_are_imported_only_when_they_are_used() -> None:
    code = (
        "import sys, torch, robocache; before = set(sys.modules); import benchmarks.__main__; "
        "print(sorted({'triton', 'cupy', 'scipy', 'matplotlib'} & (set(sys.modules) - before)))"
    )
    root = str(peer_set.__file__).rsplit("/", 2)[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- Compiled peers ------------------------------------------------------------------------------------------------


def test_autotuned_peers_are_for_published_rows() -> None:
    gpu, cpu = measure.Plan("cuda"), measure.Plan("cpu")
    auto = peer_set.variant_of(AUTOTUNE)
    assert peer_set.compile_modes(gpu, True, True) == (["default", AUTOTUNE], {})
    modes, absent = peer_set.compile_modes(gpu, True, False)
    assert modes == ["default"] and "published" in absent[auto]
    modes, absent = peer_set.compile_modes(gpu, False, False)
    assert modes == [] and set(absent) == {"compile", auto}
    assert peer_set.compile_modes(cpu, True, True) == (["default"], {})
    everywhere = replace(gpu, compile_modes=("default", AUTOTUNE), compile_all=True)
    assert peer_set.compile_modes(everywhere, False, False) == (["default", AUTOTUNE], {})
    assert peer_set.compile_modes(replace(gpu, compile_modes=()), True, True)[0] == []
    assert len([case for case in GPU_ALIGN if "numbers" in case.tags]) == 8
    assert 10 <= len([case for case in GPU_VOXEL if case.compiled and case.base is None]) <= 16


def test_a_peer_is_checked_and_its_first_call_timed() -> None:
    calls, wrong = [], torch.ones(2)

    def call() -> torch.Tensor:
        calls.append(1)
        return wrong

    def refuse(got: torch.Tensor) -> dict[str, float]:
        assert got is wrong and len(calls) == 2
        raise measure.CheckFailed("it differs")

    with pytest.raises(measure.CheckFailed, match="it differs"):
        peer_set.time_peer([call], refuse, timing.WallTimer(), PLAN, None)
    assert len(calls) == 2  # nothing was timed
    row = peer_set.time_peer([call], lambda got: {"agree": 1.0}, timing.WallTimer(), PLAN, None)
    assert row["first_call_s"] >= 0 and row["agree"] == 1.0 and row["cold"]["repeats"] == 3


def test_a_slow_peer_has_a_budget() -> None:
    timer = timing.WallTimer()
    assert peer_set.bounded(timer, None) is timer
    assert peer_set.bounded(timer, 1.0).budget_s == 1.0 and timer.budget_s is None
    assert peer_set.bounded(timing.WallTimer(budget_s=0.5), 1.0).budget_s == 0.5


# ---- NumPy and SciPy -----------------------------------------------------------------------------------------------

ON_CPU = [
    (family.name, case)
    for family in align_families.FAMILIES
    if family.device == "cpu"
    for case in GPU_ALIGN
    if family.why_not(case) is None
]


@pytest.mark.parametrize(("name", "case"), ON_CPU, ids=lambda one: one if isinstance(one, str) else one.name)
def test_numpy_and_scipy_align_as_ours(name: str, case: cases.Case) -> None:
    family = next(family for family in align_families.FAMILIES if family.name == name)
    if family.library:
        pytest.importorskip(family.library)
    small = case.scaled(2, 40)
    inputs = cases.build(small, seed=5)
    got, ours = family.bind(inputs)(), cases.call_public(inputs, backend="cpu")
    assert align.check_peer(small, name, got, ours)["agree"] > 0.99
    with pytest.raises(measure.CheckFailed):
        align.check_peer(small, name, got + 1, ours)


def test_kinds_of_the_host_peers_are_used() -> None:
    used = {kind for _, case in ON_CPU for stream in case.streams for _, _, kind in stream.groups()}
    assert used == scipy_align.NUMPY_KINDS | scipy_align.INTERP_KINDS | scipy_align.SCIPY_KINDS


@pytest.mark.parametrize("scatter", ["uniform", "scan", "onecell"])
@pytest.mark.parametrize("name", ["count-1x500k-128-i32", "mean-1x1M-c16-200-fp32", "max-1x1M-c16-200-fp32"])
def test_scipy_voxelizes_as_ours(name: str, scatter: str) -> None:
    pytest.importorskip("scipy")
    case = replace(BY_NAME[name], scatter=scatter).scaled(1, 900, 9)
    assert voxel_families.no_scipy(case) is None
    inputs = voxel_inputs.build(case, seed=3)
    ours = voxel_inputs.flat(voxel_inputs.bind(inputs, "cpu")())
    assert voxel_checks.check_peer(case, "scipy", voxel_peers.bind_scipy(inputs)(), ours)["agree"] >= 0.999


# ---- CuPy's array code, run by NumPy -------------------------------------------------------------------------------


class Scatters:
    """cupyx's scatters as NumPy has them: CuPy says that they are the same."""

    scatter_add = staticmethod(np.add.at)
    scatter_max = staticmethod(np.maximum.at)


DENSE = [case for case in GPU_VOXEL if case.base is None and voxel_families.no_cupy(case) is None]


@pytest.mark.parametrize("case", DENSE, ids=lambda case: case.name)
def test_cupys_scatters_make_the_grids(case: VoxelCase) -> None:
    small = case.scaled(2, 300, 9)
    inputs = voxel_inputs.build(small, seed=3)
    cell = voxel_peers._cells(small, inputs.points).numpy()
    features = None if inputs.features is None else inputs.features.reshape(-1, small.columns).numpy()
    one = {dtype: np.ones((), dtype=dtype) for dtype in ("bool", "uint8", "int32", "float32")}
    made = cupy_peers.scatter(np, Scatters, small, cell, features, one)
    got = [torch.from_numpy(np.ascontiguousarray(grid)) for grid in made.values()]
    ours = voxel_inputs.flat(voxel_inputs.bind(inputs, "cpu")())
    assert list(made) == list(small.reduce)
    assert voxel_checks.check_peer(small, "cupy", got, ours)["agree"] >= 0.999


def test_cupys_interp_aligns_a_recording() -> None:
    case = BY_NAME["recording-1x100000x14-20000-fp32"].scaled(1, 60)
    inputs = cases.build(case, seed=1)
    stream = inputs.streams[0]
    arrays = [tensor[0].numpy() for tensor in (stream["times"], stream["values"], inputs.targets)]
    got = torch.from_numpy(cupy_peers.interpolate(np, *arrays))[None]
    assert align.check_peer(case, "cupy", got, cases.call_public(inputs, backend="cpu"))["agree"] == 1.0


# ---- In a run ------------------------------------------------------------------------------------------------------


def test_rows_hold_their_peers_and_the_reasons_of_the_absent() -> None:
    case = cases.Case("angles", 2, 5, (cases.StreamSpec(9, 3, kind="angle"),), tags=frozenset({"cpu"}))
    row = align.run_case(case, PLAN, timing.WallTimer(), None, lambda text: None)
    assert row["errors"] == {} and {"eager", "numpy"} <= set(row["variants"])
    assert row["absent"]["numpy-interp"] == "np.interp: no angle" and "quick run" in row["absent"]["compile"]
    assert row["variants"]["numpy"]["first_call_s"] >= 0 and row["variants"]["numpy"]["agree"] > 0.99
    tiny = VoxelCase("tiny", 60, (4, 4, 4), reduce=("mean", "count"), columns=2, tags=frozenset({"cpu"}))
    row = voxelize.run_case(tiny, PLAN, timing.WallTimer(), None, lambda text: None)
    assert row["errors"] == {} and set(row["variants"]) == {"robocache", "eager"}
    assert set(row["absent"]) == {"numpy", "scipy", "compile"}


def test_a_wrong_peer_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def off(inputs: cases.Inputs) -> Any:
        call = scipy_align.bind_numpy(inputs)
        return lambda: call() + 0.1

    families = (Family("numpy", "cpu", lambda case: None, off),)
    monkeypatch.setattr(align_families, "FAMILIES", families)
    case = cases.Case("tiny", 2, 5, (cases.StreamSpec(9, 3),), tags=frozenset({"cpu"}))
    row = align.run_case(case, PLAN, timing.WallTimer(), None, lambda text: None)
    assert set(row["variants"]) == {"robocache", "eager"} and "agree with robocache" in row["errors"]["numpy"]


def test_eager_torch_knows_what_it_cannot_do() -> None:
    for case in cases.CASES:
        assert (align_families.no_torch(case) is None) == peers.supports(case)
