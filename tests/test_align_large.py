"""Beyond 2^31 elements: in values, outputs and strides.

On the host the tensors reserve address space and touch only the pages that are read, so memory stays small; on the GPU
they are real.
"""

from __future__ import annotations

import resource
from collections.abc import Callable

import pytest
import torch

import robocache

from . import capi
from .backends import CPU, CUDA, Backend, assert_same_bits

FAR = 2**31

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def peak_mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.fixture
def sparse() -> Callable[..., torch.Tensor]:
    """Makes tensors of address space; the test fails when their pages were touched after all."""
    before = peak_mebibytes()

    def make(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype)

    yield make
    assert peak_mebibytes() - before < 1024


def test_packed_values_past_2_31(sparse: Callable[..., torch.Tensor]) -> None:
    samples, columns = 2**26 + 5, 64
    values, times = sparse(samples, columns, dtype=torch.uint8), sparse(samples, dtype=torch.float32)
    assert values.numel() > 2 * FAR
    tail = torch.randint(0, 256, (5, columns), dtype=torch.uint8)
    values[-5:], times[-5:] = tail, torch.arange(5.0)
    splits = torch.tensor([samples - 5, samples])
    targets = torch.tensor([0.0, 1.5, 4.0])
    for kind, index in {"previous": [0, 1, 4], "next": [0, 2, 4]}.items():
        for backend in (CPU, Backend("torch", "cpu"), Backend("c", "cpu")):
            out = backend.resample(values, times, targets, row_splits=splits, kind=kind)
            assert_same_bits(out[0], tail[index], str(backend))


def test_rows_past_2_31(sparse: Callable[..., torch.Tensor]) -> None:
    sequences = 2**20
    values = sparse(sequences, 64, 40, dtype=torch.uint8)
    assert values.numel() > FAR
    ends = torch.randint(0, 256, (2, 64, 40), dtype=torch.uint8)
    values[0], values[-1] = ends
    rows = torch.tensor([sequences - 1, 0])
    times = torch.arange(64.0)
    out = CPU.resample(values, times, times + 0.5, rows=rows, kind="previous")
    assert_same_bits(out, ends.flip(0))


def test_strides_past_2_31(sparse: Callable[..., torch.Tensor]) -> None:
    space = sparse(2 * FAR + 4096, dtype=torch.uint8)
    values = torch.as_strided(space, (2, 3, 4), (FAR + 7, 64, 1))
    out = torch.as_strided(space, (2, 2, 4), (FAR + 64, 128, 3), storage_offset=2048)
    given = torch.randint(0, 256, (2, 3, 4), dtype=torch.uint8)
    values.copy_(given)
    targets = torch.tensor([0.5, 2.0])
    assert robocache.resample_trajectories(values, torch.arange(3.0), targets, kind="previous", out=out) is out
    assert_same_bits(out, given[:, [0, 2]])


def test_more_samples_than_int32_are_refused(sparse: Callable[..., torch.Tensor]) -> None:
    values = torch.zeros(1, dtype=torch.uint8).expand(1, FAR, 1)
    times = torch.zeros(1).expand(1, FAR)
    with pytest.raises(capi.CApiError, match="at most 2147483647 samples a sequence, got 2147483648") as caught:
        capi.align([{"values": values, "times": times, "kind": "previous"}], torch.zeros(1, 1))
    assert caught.value.status == 2  # RC_UNSUPPORTED
    with pytest.raises((ValueError, RuntimeError), match="at most 2147483647 samples a sequence"):
        robocache.resample_trajectories(values, times, torch.zeros(1, 1), kind="previous")


def test_many_logical_rows() -> None:
    """An expanded batch of more than 2^31 value elements, and as many times."""
    batch = 2**22
    values = torch.arange(640.0).reshape(1, 64, 10).expand(batch, 64, 10)
    times = torch.arange(64.0)
    assert values.numel() > FAR
    out = CPU.resample(values, times, torch.tensor([30.5]))
    assert out.shape == (batch, 1, 10)
    assert_same_bits(out[-1], torch.arange(305.0, 315.0)[None])
    assert bool((out == out[:1]).all())


# ---- On the GPU ----------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_gpu_values_past_2_31() -> None:
    batch, samples, columns = 8200, 512, 520
    values = torch.empty(batch, samples, columns, dtype=torch.bfloat16, device="cuda")
    assert values.numel() > FAR
    for chunk in values.split(512):
        chunk.normal_()
    times = torch.arange(float(samples), device="cuda")
    targets = torch.rand(batch, 3, device="cuda") * (samples - 1)
    out = CUDA.resample(values, times, targets)
    for rows in (slice(0, 4), slice(batch // 2, batch // 2 + 4), slice(batch - 4, batch)):
        want = CPU.resample(values[rows].cpu(), times.cpu(), targets[rows].cpu())
        assert_same_bits(out[rows], want)


@pytest.mark.gpu
@pytest.mark.parametrize(("batch", "count", "columns"), [(70_000, 32_000, 1), (4_100, 8_200, 65), (9, 65_600, 4_096)])
def test_gpu_outputs_past_2_31(batch: int, count: int, columns: int) -> None:
    samples = 100
    values = torch.randint(0, 256, (batch, samples, columns), dtype=torch.uint8, device="cuda")
    times = torch.arange(float(samples), device="cuda")
    targets = torch.linspace(0, samples - 1, count, device="cuda")
    out = CUDA.resample(values, times, targets, kind="previous")
    assert out.numel() > FAR
    index = targets.floor().long()
    for b in (0, 1, batch // 2, batch - 2, batch - 1):
        assert torch.equal(out[b], values[b, index]), b
    sums = torch.zeros(batch, dtype=torch.int64, device="cuda")
    expected = torch.zeros_like(sums)
    weight = torch.bincount(index, minlength=samples)
    for rows in torch.arange(batch, device="cuda").split(max(1, 2**26 // (count * columns))):
        sums[rows] = out[rows].sum(dim=(1, 2), dtype=torch.int64)
        expected[rows] = (values[rows].sum(dim=2, dtype=torch.int64) * weight).sum(dim=1)
    assert torch.equal(sums, expected)


@pytest.mark.gpu
def test_gpu_packed_values_past_2_31() -> None:
    samples, columns = 2**26 + 70, 64
    values = torch.empty(samples, columns, dtype=torch.uint8, device="cuda").random_(0, 256)
    times = torch.arange(samples, device="cuda")
    splits = torch.tensor([0, 70, samples - 70, samples], device="cuda")
    rows = torch.tensor([2, 0, 1], device="cuda")
    targets = torch.stack([times[-6:], times[:6], times[samples // 2 : samples // 2 + 6]])
    out = CUDA.resample(values, times, targets, row_splits=splits, rows=rows, kind="previous")
    assert torch.equal(out[0], values[-6:])
    assert torch.equal(out[1], values[:6])
    assert torch.equal(out[2], values[samples // 2 : samples // 2 + 6])
