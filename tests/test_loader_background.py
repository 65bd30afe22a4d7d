"""A DataLoader's background: failures, worker processes, memory, the starvation meter, and an end without leftovers."""

from __future__ import annotations

import gc
import multiprocessing
import threading
import time
from typing import Any

import pytest
import torch

from robocache import DataLoader, StarvationMeter
from robocache.datasets import DatasetError
from robocache.loader.meter import PARTS, Timeline

from .recordings import Faulty, frames_only, recordings
from .test_loader_batches import FRAMES, anchors_of, epoch_of, loader_of


def threads() -> set[str]:
    return {t.name for t in threading.enumerate() if t.name.startswith("robocache")}


# ---- Failures ------------------------------------------------------------------------------------------------------


def test_a_failure_surfaces_with_file_and_episode() -> None:
    dataset = Faulty(recordings(FRAMES), bad=[4])
    with loader_of(dataset) as loader:
        with pytest.raises(DatasetError, match="episode 4, shard.bin: checksum does not match") as caught:
            epoch_of(loader)
        assert (caught.value.episode, caught.value.file) == (4, "shard.bin")
        with pytest.raises(DatasetError, match="episode 4"):  # asked again it says so again, and does not hang
            next(loader)
    assert not threads()


def test_an_error_of_any_kind_names_the_episode() -> None:
    dataset = Faulty(recordings(FRAMES), bad=[3], error=ZeroDivisionError("by zero"))
    with loader_of(dataset) as loader, pytest.raises(DatasetError, match="episode 3, .*: ZeroDivisionError: by zero"):
        epoch_of(loader)


def test_what_cannot_even_be_counted_is_skipped_too() -> None:
    dataset = Faulty(recordings(FRAMES), bad=[3])
    with pytest.raises(DatasetError, match="episode 3, shard.bin: checksum"):
        loader_of(dataset, clock="pose")  # its frames are not in the metadata, so episodes are opened to count them
    with loader_of(dataset, clock="pose", on_error="skip") as loader:
        assert loader.skipped == {"checksum": 1}
        assert loader.frames == sum(max(1, n * 100 // 30) for e, n in enumerate(FRAMES) if e != 3)


def test_an_episode_shorter_than_its_metadata_says_is_an_error() -> None:
    dataset = Faulty(recordings(FRAMES))
    dataset.length = lambda index: FRAMES[index] + (index == 5)  # type: ignore[method-assign]
    words = "episode 5: state: expected 31 frames, as the dataset's metadata says, got 30"
    with loader_of(dataset, streams=["state"]) as loader, pytest.raises(DatasetError, match=words):
        epoch_of(loader)


@pytest.mark.parametrize("world", [1, 2])
def test_skipped_episodes_are_counted_and_steps_stay_equal(world: int) -> None:
    whole = recordings(FRAMES)
    bad = [2, 5]
    batches = []
    for rank in range(world):
        dataset = Faulty(whole, bad=bad)
        with loader_of(dataset, rank=rank, world_size=world, on_error="skip", drop_last=False) as loader:
            batches.append(epoch_of(loader))
            assert loader.skipped == {"checksum": 2} and set(loader.skipped_errors()) == set(bad)
            assert len(batches[-1]) == len(loader)
    seen = {a for found in batches for batch in found for a in batch}
    good = {(e, f) for e, n in enumerate(FRAMES) for f in range(n) if e not in bad}
    assert seen == good  # every other frame still comes, and nothing else


def test_a_pool_without_a_readable_episode_is_an_error_even_when_skipping() -> None:
    dataset = Faulty(recordings(FRAMES), bad=range(1, 9))
    with loader_of(dataset, on_error="skip") as loader, pytest.raises(DatasetError, match="none of the .* of a pool"):
        epoch_of(loader)


def test_frames_that_cannot_be_decoded() -> None:
    dataset = Faulty(recordings(FRAMES), camera=True)
    dataset.bad_pictures = {3}
    with loader_of(dataset, images=["camera"]) as loader, pytest.raises(DatasetError, match="episode 3.*moov atom"):
        epoch_of(loader)
    with loader_of(dataset, images=["camera"], on_error="skip") as loader:
        for batch in loader:
            bad = batch.episode == 3
            assert torch.equal(batch.image_valid["camera"][:, 0], ~bad)
            assert not batch.images["camera"][bad].any()
            assert batch.images["camera"][~bad][:, 0, 0, 0, 1].tolist() == batch.frame[~bad].tolist()
        assert set(loader.skipped_errors()) == {3}
    dataset.bad_pictures, dataset.heights = set(), {3: 6}
    with loader_of(dataset, images=["camera"]) as loader, pytest.raises(DatasetError, match="camera: expected frames"):
        epoch_of(loader)


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_damaged_frame_takes_no_other_with_it(kind: str) -> None:
    dataset = Faulty(recordings(FRAMES), camera=True)
    dataset.bad_frames = {3: {5, 6, 40}, 1: {0}, 7: {11}}
    steps = {"camera": [-0.1, 0.0]}  # three frames back, so that a damaged frame stands in two places of a batch
    with loader_of(dataset, 30, images=steps, on_error="skip", worker_kind=kind, workers=1, drop_last=False) as loader:
        for batch in loader:
            shown, valid = batch.images["camera"], batch.image_valid["camera"]
            for b, (episode, frame) in enumerate(anchors_of(batch)):
                for step, at in enumerate((max(0, frame - 3), frame)):
                    lost = at in dataset.bad_frames.get(episode, ())
                    assert valid[b, step] == (not lost and (step == 1 or frame >= 3))
                    assert shown[b, step, 0, 0].tolist() == ([0, 0, 0] if lost else [episode, at, 0])
        assert set(loader.skipped_errors()) == {1, 3, 7}


# ---- Processes -----------------------------------------------------------------------------------------------------


def test_worker_processes_give_what_threads_give() -> None:
    dataset = Faulty(recordings(FRAMES), camera=True)
    with loader_of(dataset, images=["camera"]) as one:
        want = [(anchors_of(b), b.values, b.images["camera"]) for b in one]
    with loader_of(dataset, images=["camera"], worker_kind="process") as two:
        for (anchors, values, images), batch in zip(want, two, strict=True):
            assert anchors == anchors_of(batch)
            assert torch.equal(values.nan_to_num(), batch.values.nan_to_num()) and torch.equal(
                images, batch.images["camera"]
            )
        assert len(multiprocessing.active_children()) == 2
        dataset.inner.fps = None  # the workers have the dataset as it was when they started
    assert not multiprocessing.active_children() and not threads()


def test_a_failure_in_a_worker_process_keeps_file_and_episode() -> None:
    dataset = Faulty(frames_only(FRAMES), bad=[4])
    with loader_of(dataset, worker_kind="process", workers=1) as loader:
        with pytest.raises(DatasetError, match="episode 4, shard.bin: checksum does not match") as caught:
            epoch_of(loader)
        assert (caught.value.episode, caught.value.file) == (4, "shard.bin")


def test_a_worker_process_that_dies_is_told() -> None:
    dataset = Faulty(frames_only(FRAMES), bad=[4], error="die")
    words = "a worker process died while it read an episode of"
    with loader_of(dataset, worker_kind="process", workers=1) as loader, pytest.raises(RuntimeError, match=words):
        epoch_of(loader)
    assert not multiprocessing.active_children() and not threads()


def test_images_of_formats_parsed_in_python_get_processes() -> None:
    for camera, form, kind in (
        *((True, "rlds", "process"), (False, "rlds", "thread")),
        *((True, "lerobot_v3.0", "thread"), (False, "lerobot_v3.0", "thread"), (True, "arrays", "thread")),
    ):
        dataset = Faulty(frames_only(), camera=camera)
        dataset.format = form
        assert f"2 {kind} workers" in repr(loader_of(dataset, worker_kind="auto"))


# ---- Memory --------------------------------------------------------------------------------------------------------


def test_reading_stops_when_enough_is_ahead() -> None:
    dataset = Faulty(recordings((20,) * 60))
    with loader_of(dataset, pool_bytes=80_000, workers=2, prefetch=1, batch=1) as loader:
        dataset.reads.clear()
        pools = loader._order.pools(0)
        assert {len(pool.episodes) for pool in pools} == {1}
        next(loader)
        time.sleep(0.3)
        # One pool in use, one ready, one waiting for a slot, four reads ahead (two a worker).
        assert len(dataset.reads) <= 1 + 1 + 1 + 4
        memory = loader.memory()
        assert 0 < memory["host_peak"] <= memory["host_bound"]


def test_host_memory_keeps_to_its_bound_whatever_the_datasets_size() -> None:
    peaks = []
    for episodes in (10, 80):
        with loader_of(recordings((25,) * episodes), pool_bytes=200_000, streams=["state", "force"]) as loader:
            epoch_of(loader)
            memory = loader.memory()
            assert memory["host_peak"] <= memory["host_bound"]
            assert memory["device"] <= 3 * 2**20  # prefetch + 1 pools, each rounded up to a megabyte
            peaks.append(memory["host_peak"])
    assert peaks[1] <= peaks[0] * 1.5


def test_each_episode_is_read_once_an_epoch() -> None:
    dataset = Faulty(recordings(FRAMES))
    with loader_of(dataset, drop_last=False) as loader:
        dataset.reads.clear()
        epoch_of(loader)
        ahead = [e for pool in loader._order.pools(1) for e in pool.episodes]
        filled = [e for e, n in enumerate(FRAMES) if n]
        assert sorted(dataset.reads[: len(filled)]) == filled
        assert sorted(dataset.reads[len(filled) :]) == sorted(ahead[: len(dataset.reads) - len(filled)])


# ---- The end -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 5, 28])
def test_closing_leaves_nothing_running(steps: int) -> None:
    dataset = Faulty(recordings(FRAMES), camera=True, seconds=0.002)
    loader = loader_of(dataset, images=["camera"])
    for _ in range(steps):
        next(loader)
    loader.close()
    loader.close()
    assert not threads()
    with pytest.raises(RuntimeError, match="closed"):
        next(loader)


def test_an_interrupt_ends_everything() -> None:
    with pytest.raises(KeyboardInterrupt), loader_of(recordings(FRAMES)) as loader:
        for _ in loader:
            raise KeyboardInterrupt
    assert not threads()


def test_a_loader_that_is_dropped_ends_too() -> None:
    loader: Any = loader_of(recordings(FRAMES))
    next(loader)
    del loader
    gc.collect()
    deadline = time.monotonic() + 5
    while threads() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not threads()


# ---- The meter -----------------------------------------------------------------------------------------------------


def test_a_timeline_divides_a_stretch_without_a_rest() -> None:
    line = Timeline()
    for moment, part in ((1.0, "disk"), (3.0, "copy"), (3.5, "disk"), (7.0, "copy")):
        line.enter(part, moment)
    assert line.split(2.0, 8.0) == pytest.approx({"disk": 1.0 + 3.5, "copy": 0.5 + 1.0})
    assert line.split(3.1, 3.2) == pytest.approx({"copy": 0.1})
    assert line.split(9.0, 9.5) == pytest.approx({"copy": 0.5})
    short = Timeline(keep=2)
    for moment, part in ((1.0, "disk"), (3.0, "copy"), (3.5, "disk")):
        short.enter(part, moment)
    assert sum(short.split(0.0, 4.0).values()) == pytest.approx(4.0)  # what is forgotten counts as the oldest part


class FakeEvent:
    def __init__(self, at: float, passed: bool = True) -> None:
        self.at, self.passed = at, passed

    def query(self) -> bool:
        return self.passed

    def elapsed_time(self, behind: FakeEvent) -> float:
        return behind.at - self.at


def test_the_meter_adds_up_and_waits_for_no_event() -> None:
    meter = StarvationMeter()
    late = FakeEvent(9.0, passed=False)
    meter.add(
        {"disk": 0.004}, [("copy", FakeEvent(0.0), FakeEvent(2.0)), ("align", FakeEvent(2.0), FakeEvent(2.5))], 10.0
    )
    meter.add({"decode": 0.001}, [("align", FakeEvent(8.0), late)], 10.010)
    assert meter.steps == 1 and meter.last == {
        "disk": pytest.approx(4.0),
        "decode": 0.0,
        "copy": 2.0,
        "align": 0.5,
        "wait": pytest.approx(6.5),
        "step": 0.0,
    }
    late.passed = True
    assert meter.shares["wait"] == pytest.approx((6.5 + 2.0) / 10.0)
    assert meter.steps == 2 and meter.last["step"] == pytest.approx(10.0)
    assert meter.report() == "2 steps, 0.01 s: waited 85.0%: disk 40.0%, decode 10.0%, copy 20.0%, align 15.0%"
    meter.reset()
    assert meter.steps == 0 and meter.shares["wait"] == 0.0


def test_a_slow_disk_shows_and_a_slow_step_hides_it() -> None:
    dataset = Faulty(frames_only((10,) * 12), seconds=0.02)
    with DataLoader(dataset, 10, 2, device="cpu", workers=1, worker_kind="thread", pool_bytes=1) as loader:
        for _ in loader:
            pass
        starved = loader.meter.shares
        assert starved["disk"] > 0.5 and starved["disk"] > 5 * starved["align"]
        loader.meter.reset()
        for _ in loader:
            time.sleep(0.06)
            last = loader.meter.last
            assert last["wait"] == pytest.approx(sum(last[part] for part in PARTS))
        fed = loader.meter.shares
        assert fed["disk"] < 0.3 * starved["disk"] and loader.meter.steps == 12


def test_waiting_for_images_is_decode() -> None:
    dataset = Faulty(frames_only((30,) * 3), camera=True, seconds=0.0)
    with loader_of(dataset, images=["camera"], workers=1, pool_bytes=10**6) as loader:
        next(loader)
        dataset.seconds = 0.03  # opening an episode to decode it takes time, reading it again does not come up
        for _ in range(5):
            next(loader)
        assert loader.meter.totals["decode"] > 5 * loader.meter.totals["copy"]
        assert loader.meter.totals["decode"] > 30
