"""An EpisodeStore on the device: the CPU's bits, one launch a draw, no waiting, flat memory, spilled values."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch

import robocache
from robocache import EpisodeStore
from robocache.store.packed import device_view

from .backends import assert_same_bits
from .recordings import recordings

pytestmark = pytest.mark.gpu

FLOATING = ["state", "action", "pose", "force"]
FRAMES = (40, 1, 25, 63, 7)
STEPS: list[dict[str, Any]] = [
    {"horizon": 16},
    {"horizon": 5, "rate": 70, "max_gap": 0.0105, "tolerance": {"force": 0.001}},
    {"delta_times": {"state": [-0.1, 0.0], "pose": [0.0, 0.0123, 0.4], "gripper": [0.15, 0.0], "force": [-0.3, 1e-9]}},
]


def pair(share: float | None = None, **options: Any) -> tuple[EpisodeStore, EpisodeStore]:
    """The same store on the CPU and on the device; a share of its values and times may stay there, the rest spills."""
    dataset = recordings(FRAMES)
    if share is not None:
        whole = EpisodeStore.from_dataset(dataset, "cpu", show_progress=False, **options)
        options["max_bytes"] = int(share * sum(t.nbytes for part in whole._parts for t in (*part.values, *part.times)))
    return tuple(  # type: ignore[return-value]
        EpisodeStore.from_dataset(dataset, device, show_progress=False, **options) for device in ("cpu", "cuda")
    )


def places(store: EpisodeStore, count: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    rows = torch.randint(len(store), (count,), generator=generator)
    times = torch.randint(-200_000_000, 2_500_000_000, (count,), generator=generator)
    return rows, times * (store.ticks_per_second // 10**9)


@pytest.mark.parametrize("steps", STEPS, ids=["horizon", "spans", "deltas"])
@pytest.mark.parametrize("share", [None, 0.6, 0.0], ids=["kept", "partly spilled", "spilled"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["own", "bf16"])
def test_the_devices_windows_are_the_cpus(
    steps: dict[str, Any], share: float | None, dtype: torch.dtype | None
) -> None:
    host, device = pair(share, dtype=dtype)
    assert device.spilled_episodes == host.spilled_episodes
    assert (host.spilled_episodes > 0) == (share is not None)
    assert (host.spilled_episodes < len(host)) == (share != 0.0)
    rows, times = places(host)
    before = robocache.launch_counts()["align_cuda"]
    got = device.at(rows, times, **steps)
    assert robocache.launch_counts()["align_cuda"] == before + 2 * (1 if share is None else 2)
    want = host.at(rows, times, **steps)
    assert torch.equal(got.episode.cpu(), want.episode) and torch.equal(got.times.cpu(), want.times)
    for name in want:
        quaternions = slice(3, 7) if name == "pose" else slice(0, 0)
        found, expected = got[name].cpu(), want[name]
        assert torch.equal(got.is_pad(name).cpu(), want.is_pad(name))
        torch.testing.assert_close(found[..., quaternions], expected[..., quaternions], equal_nan=True)
        rest = [c for c in range(expected.shape[-1]) if not quaternions.start <= c < quaternions.stop]
        assert_same_bits(found[..., rest], expected[..., rest], name)


def test_a_draw_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def long_way(*args: Any, **options: Any) -> Any:
        raise AssertionError("fuse_multimodal was asked")

    _, device = pair(0.6)
    want = device.at([0, 4, 3], [0.1, 0.2, 0.3], 16)
    monkeypatch.setattr("robocache.store.bound.fuse_multimodal", long_way)
    assert_same_bits(device.at([0, 4, 3], [0.1, 0.2, 0.3], 16).values, want.values)
    device.sample(64, 16)
    device.sample(64, 16, anchors="times")


@pytest.mark.sanitize
def test_a_small_draw_of_kept_and_spilled_episodes() -> None:
    _, store = pair(0.6)
    for anchors in ("frames", "times"):
        batch = store.sample(64, delta_times=STEPS[2]["delta_times"], anchors=anchors)
        assert bool((batch.episode >= store._kept).any()) and bool((batch.episode < store._kept).any())
        assert bool(batch["state"].isfinite().all())


def test_stored_episodes_are_the_cpus() -> None:
    host, device = pair(0.6)
    for row in range(len(host)):
        for name, (values, times) in device.episode(row).streams.items():
            assert values.is_cuda and times.is_cuda
            assert_same_bits(values, host.episode(row).streams[name][0])
            assert torch.equal(times.cpu(), host.episode(row).streams[name][1])


@pytest.mark.parametrize("anchors", ["frames", "times"])
@pytest.mark.parametrize("share", [None, 0.6], ids=["kept", "partly spilled"])
def test_a_draw_is_one_launch_and_waits_for_nothing(anchors: str, share: float | None) -> None:
    _, store = pair(share)
    generator = torch.Generator("cuda").manual_seed(1)

    def draw() -> Any:
        return store.sample(4096, 16, streams=FLOATING, generator=generator, anchors=anchors)

    draw()
    torch.cuda.synchronize()
    before = robocache.launch_counts()["align_cuda"]
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = draw()
        views = [batch.values, batch.valid, batch.times, batch.seconds, *(batch.is_pad(name) for name in batch)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert robocache.launch_counts()["align_cuda"] == before + (1 if share is None else 2)
    assert all(view.is_cuda for view in views)
    first, last = batch.time.min(), batch.time.max()
    assert int(first) >= 0 and int(last) <= 62 * store.ticks_per_second // 30
    again = store.at(batch.episode, batch.time, 16, streams=FLOATING)
    assert_same_bits(batch.values, again.values)


def test_anchors_on_the_device_cover_every_frame_evenly() -> None:
    _, store = pair()
    batch = store.sample(136 * 1000, 1, streams=["state"], generator=torch.Generator("cuda").manual_seed(2))
    assert bool(batch.valid.all())
    pairs, counts = torch.stack([batch.episode, batch.time]).unique(dim=1, return_counts=True)
    assert pairs.shape[1] == store.frames == 136
    assert int((counts - 1000).abs().max()) < 6 * 1000**0.5


def test_a_draw_can_be_captured_and_replayed() -> None:
    _, store = pair()
    rows, times = (t.cuda() for t in places(store, 64))
    store.at(rows, times, 16, streams=FLOATING)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        batch = store.at(rows, times, 16, streams=FLOATING)
    rows.copy_(rows.flip(0))
    times.copy_(times.flip(0))
    graph.replay()
    torch.cuda.synchronize()
    assert_same_bits(batch.values, store.at(rows, times, 16, streams=FLOATING).values)


def test_memory_stays_flat() -> None:
    _, store = pair(0.6)

    def draws(count: int) -> None:
        for step in range(count):
            store.sample(512, 4 + step % 5, streams=FLOATING, anchors=("frames", "times")[step % 2])

    draws(20)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    draws(300)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before


def test_nbytes_is_what_the_device_holds() -> None:
    def requested() -> int:
        return torch.cuda.memory_stats()["requested_bytes.all.current"]  # before the allocator rounds them up

    dataset = recordings((3000,) * 4)
    gc.collect()
    torch.cuda.synchronize()
    before = requested()
    store = EpisodeStore.from_dataset(dataset, "cuda", show_progress=False)
    assert store.nbytes == requested() - before


def test_rows_outside_the_store_are_reported_later() -> None:
    _, store = pair()
    store.at(torch.tensor([5], device="cuda"), torch.tensor([0], device="cuda"), horizon=1, streams=["state"])
    with pytest.raises(robocache.DataError, match="row"):
        robocache.check()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64])
def test_pinned_memory_is_read_in_place(dtype: torch.dtype) -> None:
    host = torch.arange(1000).remainder(7).to(dtype).reshape(250, 4).pin_memory()
    seen = device_view(host, torch.device("cuda", 0))
    assert seen.is_cuda and seen.data_ptr() == host.data_ptr() and seen.dtype == dtype and seen.shape == (250, 4)
    assert torch.equal(seen.cpu(), host)
    host[3, 1] = 1
    torch.cuda.synchronize()
    assert bool(seen[3, 1] == 1)
    with pytest.raises(ValueError, match="pinned"):
        device_view(host.clone(), torch.device("cuda", 0))
