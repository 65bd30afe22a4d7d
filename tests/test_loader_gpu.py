"""A DataLoader on the device: the CPU's batches, copies that never overtake reads, no waiting, flat memory."""

from __future__ import annotations

import contextlib
import gc
from typing import Any

import pytest
import torch

import robocache
from robocache.loader import aligning, producer

from .backends import assert_same_bits
from .recordings import Faulty, frames_only, recordings
from .test_loader_batches import FRAMES, anchors_of, epoch_of, loader_of

pytestmark = pytest.mark.gpu

STREAMS = ["state", "action", "force"]


def fields_of(batch: Any) -> dict[str, torch.Tensor]:
    plain = {"time": batch.time, "episode": batch.episode, "frame": batch.frame, "valid": batch.valid}
    return {**plain, **{name: batch[name] for name in batch}, **batch.images, **batch.image_valid}


def host(batch: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu().clone() for name, tensor in fields_of(batch).items()}


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["own", "bf16"])
@pytest.mark.parametrize("kind", ["thread", "process"])
def test_the_devices_batches_are_the_cpus(kind: str, dtype: torch.dtype | None) -> None:
    dataset = Faulty(recordings(FRAMES), camera=True)
    options = {"streams": [*STREAMS, "gripper"], "images": {"camera": [0.0, -0.1]}, "dtype": dtype}
    with loader_of(dataset, device="cpu", **options) as one:
        want = [host(batch) for _ in range(2) for batch in one]
    with loader_of(dataset, device="cuda", worker_kind=kind, **options) as two:
        got = [host(batch) for _ in range(2) for batch in two]
    assert len(got) == len(want) > 40
    for number, (ours, theirs) in enumerate(zip(got, want, strict=True)):
        for name, tensor in theirs.items():
            assert_same_bits(ours[name], tensor, f"batch {number}, {name}")


@pytest.mark.parametrize(("together", "launches"), [(1, 10), (8, 2)])
def test_a_step_waits_for_nothing_and_shares_a_launch(
    together: int, launches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(aligning.STEPS, "cuda", together)
    with loader_of(recordings(FRAMES), device="cuda", streams=STREAMS, pool_bytes=10**8, workers=1) as loader:
        next(loader)
        torch.cuda.synchronize()
        robocache.reset_launch_counts()
        torch.cuda.set_sync_debug_mode("error")
        try:
            batches = [next(loader) for _ in range(10)]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert robocache.launch_counts()["align_cuda"] == launches
        assert all(batch.values.is_cuda for batch in batches)


def test_a_step_on_another_stream_is_read_on_it() -> None:
    dataset = recordings(FRAMES)
    with loader_of(dataset, device="cpu", streams=STREAMS, pool_bytes=10**8) as one:
        want = [host(batch) for batch in one]
    with loader_of(dataset, device="cuda", streams=STREAMS, pool_bytes=10**8) as two:
        side = torch.cuda.Stream()
        robocache.reset_launch_counts()
        for number in range(8):
            with torch.cuda.stream(side if number % 2 else torch.cuda.default_stream()):
                got = host(next(two))
            for name, tensor in want[number].items():
                assert_same_bits(got[name], tensor, f"batch {number}, {name}")
        assert robocache.launch_counts()["align_cuda"] == 8  # none is taken from another stream's launch


class PoisonedTensor:
    """Makes every copy into a pool late, and a read at the wrong time visible: poison, a wait, then the copy."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cycles: int) -> None:
        self.copies = 0
        original = producer.PoolProducer._copy_into

        def late(this: producer.PoolProducer, buffer: torch.Tensor, nbytes: int) -> None:
            buffer.fill_(0xFF)  # NaN as a float, -1 as a row or a time
            torch.cuda._sleep(cycles)
            original(this, buffer, nbytes)
            self.copies += 1

        monkeypatch.setattr(producer.PoolProducer, "_copy_into", late)


def test_no_batch_reads_a_pool_before_its_copy_and_no_copy_overtakes_a_read(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = recordings(FRAMES)
    with loader_of(dataset, device="cpu", streams=STREAMS) as one:
        want = [host(batch) for _ in range(3) for batch in one]
    poison = PoisonedTensor(monkeypatch, 5_000_000)  # some milliseconds, far longer than a step
    with loader_of(dataset, device="cuda", streams=STREAMS, prefetch=1) as two:
        got = []
        for _ in range(3):
            for batch in two:
                torch.cuda._sleep(1_000_000)  # the training step: reads queue up behind it
                got.append(fields_of(batch))
        torch.cuda.synchronize()
    assert poison.copies >= 9
    for ours, theirs in zip(got, want, strict=True):
        for name, tensor in theirs.items():
            assert_same_bits(ours[name], tensor, name)


def test_reads_on_several_streams_hold_a_pool_back(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = recordings(FRAMES)
    with loader_of(dataset, device="cpu", streams=STREAMS) as one:
        want = [host(batch) for _ in range(2) for batch in one]
    PoisonedTensor(monkeypatch, 2_000_000)
    streams = [torch.cuda.Stream() for _ in range(3)]
    with loader_of(dataset, device="cuda", streams=STREAMS, prefetch=1) as two:
        got = []
        for number in range(len(want)):
            with torch.cuda.stream(streams[number % 3]):
                torch.cuda._sleep(1_000_000 * (number % 3))
                try:
                    got.append(fields_of(next(two)))
                except StopIteration:
                    got.append(fields_of(next(two)))
        torch.cuda.synchronize()
    for ours, theirs in zip(got, want, strict=True):
        for name, tensor in theirs.items():
            assert_same_bits(ours[name], tensor, name)


def test_a_batch_over_many_pools_reads_each_in_its_own_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = recordings(FRAMES)
    options = {"streams": STREAMS, "pool_bytes": 1, "prefetch": 1, "drop_last": False}
    with loader_of(dataset, 100, device="cpu", **options) as one:
        want = [host(batch) for _ in range(3) for batch in one]
    PoisonedTensor(monkeypatch, 2_000_000)
    with loader_of(dataset, 100, device="cuda", **options) as two:
        got = []
        for _ in range(3):
            for batch in two:
                torch.cuda._sleep(1_000_000)
                got.append(fields_of(batch))
        torch.cuda.synchronize()
        assert two.memory()["device"] > 2 << 20  # more buffers than prefetch + 1
    for ours, theirs in zip(got, want, strict=True):
        for name, tensor in theirs.items():
            assert_same_bits(ours[name], tensor, name)


def test_after_an_interrupt_the_devices_batches_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Faulty(recordings(FRAMES), camera=True)
    options: dict[str, Any] = {"streams": STREAMS, "images": ["camera"]}
    with loader_of(dataset, device="cpu", **options) as one:
        want = [host(batch) for batch in one]
    PoisonedTensor(monkeypatch, 2_000_000)
    calls = []

    def transform(batch: Any) -> Any:
        calls.append(batch)
        if len(calls) % 5 == 0:
            raise KeyboardInterrupt if len(calls) % 2 else ZeroDivisionError
        return fields_of(batch)

    got: list[Any] = []
    with loader_of(dataset, device="cuda", transform=transform, **options) as two:
        while len(got) < len(want):
            with contextlib.suppress(KeyboardInterrupt, ZeroDivisionError):
                got.append(next(two))
        torch.cuda.synchronize()
    for ours, theirs in zip(got, want, strict=True):
        for name, tensor in theirs.items():
            assert_same_bits(ours[name], tensor, name)


def test_memory_stays_flat_over_epochs_and_goes_back_at_the_end() -> None:
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    with loader_of(recordings(FRAMES), device="cuda", streams=STREAMS) as loader:
        epoch_of(loader)
        epoch_of(loader)
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated()
        for _ in range(10):
            epoch_of(loader)
        torch.cuda.synchronize()
        assert torch.cuda.memory_allocated() <= held + 2 * 2**20  # a buffer may still grow by its whole megabytes
        memory = loader.memory()
        assert memory["host_peak"] <= memory["host_bound"] and memory["device"] >= 2**20
    torch.cuda.synchronize()
    del loader
    gc.collect()
    assert torch.cuda.memory_allocated() == before


def test_the_meter_sees_the_copy_and_the_launch_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    PoisonedTensor(monkeypatch, 20_000_000)  # about 10 ms of copying
    with loader_of(frames_only((40,) * 6), device="cuda", pool_bytes=1, batch=10, prefetch=1) as loader:
        for _ in loader:
            pass
        torch.cuda.synchronize()
        shares = loader.meter.shares
        assert loader.meter.steps == 24
        assert shares["copy"] > 0.3 and shares["align"] < 0.3
        assert loader.meter.totals["wait"] == pytest.approx(
            sum(loader.meter.totals[part] for part in ("disk", "decode", "copy", "align"))
        )


def test_a_transform_voxelizes_on_the_device() -> None:
    """Depth images at the windows' times become grids, on the caller's stream."""
    dataset = Faulty(recordings(FRAMES), camera=True)
    intrinsics = torch.tensor([4.0, 4.0, 2.5, 2.0], device="cuda")

    def grids(batch: Any) -> Any:
        depth = batch.images["camera"][:, 0, :, :, 1].float() * 0.1
        return anchors_of(batch), robocache.voxelize_depth(
            depth, intrinsics, None, voxel_size=0.5, grid_min=0.0, grid_size=(8, 8, 16)
        )

    with loader_of(dataset, device="cuda", streams=["state"], images=["camera"], transform=grids) as loader:
        before = robocache.launch_counts()
        anchors, grid = next(loader)
        assert grid.is_cuda and grid.shape[:4] == (8, 8, 8, 16) and len(anchors) == 8
        assert sum(robocache.launch_counts().values()) > sum(before.values()) + 1
