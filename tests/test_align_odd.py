"""Odd inputs with an exact answer: huge gaps, equal stamps, infinities, subnormals, and 0 in every size."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from .backends import Backend, assert_same_bits, every_backend
from .test_align_hostile import FLAT, case, rows_of, run

INF = math.inf


@every_backend
def test_huge_gaps(backend: Backend) -> None:
    """Differences that overflow their type give defined values, and no NaN out of sound inputs inside a bracket."""
    values = torch.tensor([[[1.0], [2.0]]])
    times = torch.tensor([[-3e38, 3e38]], dtype=torch.float32)  # the gap is infinite
    out, valid = run(backend, case(times, torch.tensor([[-3e38, 0.0, 3e38]]), values), return_valid=True)
    assert out.cpu()[0, :, 0].tolist() == [1.0, 1.0, 2.0]
    assert valid.tolist() == [[True, True, True]]
    _, valid = run(backend, case(times, torch.tensor([[0.0]]), values, max_gap=1e38), return_valid=True)
    assert valid.tolist() == [[False]]
    years = torch.tensor([[0, 10**18]])
    out = run(backend, case(years, torch.tensor([[10**18 // 4]]), values))
    assert out.item() == 1.25


@every_backend
def test_all_stamps_equal(backend: Backend) -> None:
    values, times = torch.tensor([[[1.0], [2.0], [3.0]]]), rows_of([5, 5, 5])
    targets = rows_of([4, 5, 6])
    for kind, expected in {"linear": [3, 3, 3], "previous": [3, 3, 3], "next": [1, 1, 1], "nearest": [3, 3, 3]}.items():
        out, valid = run(backend, case(times, targets, values, kind=kind), return_valid=True)
        assert out.cpu()[0, :, 0].tolist() == expected, kind
        assert valid.tolist() == [[False, True, False]]


@every_backend
def test_infinite_values_follow_the_formula(backend: Backend) -> None:
    v = torch.tensor([1.0, INF, INF, -INF, -1.0, 3e38, -3e38])
    times = torch.arange(7.0)[None]
    targets = torch.arange(0.25, 6.0, 0.25)[None]
    out = run(backend, case(times, targets, v.reshape(1, 7, 1))).cpu()[0, :, 0]
    i = targets[0].floor().long()
    w = targets[0] - i
    exact = w == 0
    want = torch.where(exact, v[i], v[i] + w * (v[(i + 1).clamp(max=6)] - v[i]))
    assert_same_bits(out, want)


@every_backend
def test_subnormals_are_kept(backend: Backend) -> None:
    for dtype in (torch.float16, torch.float32, torch.float64):
        tiny = torch.finfo(dtype).smallest_normal
        values = torch.tensor([[[tiny / 4], [tiny / 2], [-tiny / 4]]], dtype=torch.float64).to(dtype)
        out = run(backend, case(rows_of([0, 1, 2]), rows_of([0, 0.5, 1, 1.5]), values)).cpu()[0, :, 0]
        want = torch.tensor([tiny / 4, tiny * 3 / 8, tiny / 2, tiny / 8], dtype=torch.float64).to(dtype)
        assert_same_bits(out, want, str(dtype))
        assert bool((out != 0).all())


@every_backend
def test_signed_zero_and_overflow_to_half(backend: Backend) -> None:
    values = torch.tensor([[[-0.0], [1e6], [-1e6], [65519.0]]])
    out = run(backend, case(rows_of(FLAT), rows_of(FLAT), values), out_dtype=torch.float16).cpu()[0, :, 0]
    assert_same_bits(out, torch.tensor([-0.0, INF, -INF, 65504.0], dtype=torch.float16))


# ---- Sizes of 0 ----------------------------------------------------------------------------------------------------


@every_backend
@pytest.mark.parametrize("empty", ["B", "S", "T", "D"])
@pytest.mark.parametrize("shared", [False, True], ids=["own times", "shared times"])
def test_zero_sizes(backend: Backend, empty: str, shared: bool) -> None:
    size = {"B": 2, "S": 4, "T": 3, "D": 5, empty: 0}
    b, s, t, d = (size[k] for k in "BSTD")
    values = torch.ones(b, s, d)
    times = torch.arange(float(s)) if shared else torch.arange(float(s)).expand(b, s).contiguous()
    targets = torch.full((t,), 0.5) if shared else torch.full((b, t), 0.5)
    out, valid = run(backend, {"values": values, "times": times, "targets": targets}, return_valid=True)
    assert out.shape == (b, t, d) and valid.shape == (b, t)
    if empty == "S":
        assert bool(out.isnan().all()) and not bool(valid.any())
    stream = {"values": values, "times": times}
    fused, mask = backend.fuse([stream, stream], targets, return_valid=True)
    assert fused.shape == (b, t, 2 * d) and mask.shape == (b, t, 2)


@every_backend
def test_zero_sizes_of_packed_streams(backend: Backend) -> None:
    targets = torch.tensor([0.5])
    for splits, rows in (([0], None), ([0, 0, 0], None), ([0, 0], []), ([0, 0], [0, 0])):
        options: dict[str, Any] = {"row_splits": torch.tensor(splits)}
        if rows is not None:
            options["rows"] = torch.tensor(rows, dtype=torch.int64)
        batch = len(splits) - 1 if rows is None else len(rows)
        out = backend.resample(torch.zeros(0, 2), torch.zeros(0), targets, **options)
        assert out.shape == (batch, 1, 2)
        assert bool(out.isnan().all())
