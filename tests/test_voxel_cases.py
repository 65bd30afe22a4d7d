"""Every voxel case that is benchmarked, made small, is right on each backend; on a GPU also whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.voxel_cases import CASES, VoxelCase
from benchmarks.voxel_inputs import VoxelInputs, bind, build, flat

from .backends import assert_same_bits

WHOLE = [c for c in CASES if "gpu" in c.tags and c.base is None and c.all_points * max(c.columns, 1) <= 20_000_000]


def on_device(inputs: VoxelInputs) -> VoxelInputs:
    moved = {name: value.cuda() for name, value in vars(inputs).items() if isinstance(value, torch.Tensor)}
    return replace(inputs, **moved)


def agree(case: VoxelCase, got: list[torch.Tensor], want: list[torch.Tensor]) -> None:
    """To the bit, but for gradients of devoxelize.

    Those are sums of products whose signs differ, which the backends add in different orders and widths (by grid: over
    the points around a cell; by point: over columns and corners, in double or in float32, and divided by the voxel
    size). What they may differ by is float32's rounding (2^-24) of the terms, some tens of them, and so a share of the
    largest gradients, not of a sum that happens to come out near zero.
    """
    assert len(got) == len(want) > 0
    for one, other in zip(got, want, strict=True):
        if case.op == "devoxelize_backward":
            largest = float(other.abs().max())
            torch.testing.assert_close(one.cpu(), other.cpu(), rtol=1e-5, atol=4e-6 * largest)
        else:
            assert_same_bits(one, other, case.name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_small_on_the_cpu(case: VoxelCase) -> None:
    inputs = build(case.scaled(3, 400, 24), "cpu", 1)
    agree(case, flat(bind(inputs, "cpu")()), flat(bind(inputs, "torch")()))


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_small_on_the_gpu(case: VoxelCase) -> None:
    inputs = build(case.scaled(3, 400, 24), "cpu", 2)
    want = flat(bind(inputs, "cpu")())
    agree(case, flat(bind(on_device(inputs), "cuda")()), want)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.name)
def test_whole_on_the_gpu(case: VoxelCase) -> None:
    """The shapes that are timed, kernel against reference, both on the device."""
    inputs = build(case, "cuda", 3)
    want = flat(bind(inputs, "torch")())
    agree(case, flat(bind(inputs, "cuda")()), want)
