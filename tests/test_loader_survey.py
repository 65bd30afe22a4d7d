"""What a DataLoader finds out about a dataset before it reads it: frames and bytes of episodes that differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from robocache.datasets import Dataset, Episode, from_arrays

from .recordings import Faulty, frames_only, recordings
from .test_loader_batches import FRAMES, anchors_of, epoch_of, loader_of


def imu_and_state(samples: Sequence[tuple[int, int]]) -> Dataset:
    """Episodes with so many samples of an IMU and of a state, each with times of its own."""
    return from_arrays(
        [
            {
                name: (np.zeros((n, 4), np.float32), np.arange(n, dtype=np.int64) * 10**7)
                for name, n in (("imu", imu), ("state", state))
            }
            for imu, state in samples
        ],
        fps=100,
    )


class Lacking(Faulty):
    """Some episodes lack a stream."""

    def __init__(self, inner: Dataset, name: str, lacking: Sequence[int]) -> None:
        super().__init__(inner)
        self.name_lacking, self.lacking = name, set(lacking)

    def episode(self, index: int) -> Episode:
        found = super().episode(index)
        if index in self.lacking:
            streams = {name: stream for name, stream in found.streams.items() if name != self.name_lacking}
            return Episode(index, found.name, found.length, found.ticks_per_second, streams, found.text)
        return found


# ---- Frames --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", ["imu", "state"])
def test_the_longest_stream_of_the_first_episode_need_not_be_that_of_the_next(clock: str) -> None:
    samples = [(30, 30), (10, 40), (25, 5)]
    with loader_of(imu_and_state(samples), clock=clock, drop_last=False) as loader:
        counts = [imu if clock == "imu" else state for imu, state in samples]
        want = [(e, f) for e, n in enumerate(counts) for f in range(n)]
        assert sorted(a for batch in epoch_of(loader) for a in batch) == want


def test_an_episode_without_the_clock_gives_no_windows() -> None:
    dataset = Lacking(recordings(FRAMES), "pose", [0, 3])
    with loader_of(dataset, clock="pose", drop_last=False) as loader:
        seen = {episode for batch in loader for episode in batch.episode.tolist()}
        assert seen == {e for e in range(len(FRAMES)) if e not in (0, 3)}
    with pytest.raises(ValueError, match="clock: expected a stream with samples, got 'pose', of which no episode has"):
        loader_of(Lacking(recordings(FRAMES), "pose", range(len(FRAMES))), clock="pose")


@pytest.mark.parametrize("clock", [None, "pose"])
def test_an_episode_that_cannot_be_opened_for_any_reason_is_skipped(clock: str | None) -> None:
    dataset = Faulty(recordings(FRAMES), bad=[0], error=ZeroDivisionError("by zero"))
    with loader_of(dataset, clock=clock, on_error="skip", pool_bytes=10**6) as loader:
        assert 0 not in {episode for batch in loader for episode in batch.episode.tolist()}
        assert "ZeroDivisionError: by zero" in str(loader.skipped_errors()[0])


# ---- Bytes ---------------------------------------------------------------------------------------------------------


def check_bound(loader: Any) -> None:
    order = loader._order
    read: dict[int, int] = {}
    for batch in loader:
        for episode, _ in anchors_of(batch):
            streams = loader.dataset[episode].streams
            read[episode] = sum(
                streams[layout.name].values.nbytes + streams[layout.name].times.nbytes
                for layout in loader._layouts
                if layout.name in streams
            )
    for pool in order.pools(0):
        assert len(pool.episodes) == 1 or sum(read[e] for e in pool.episodes) <= order.pool_bytes
    memory = loader.memory()
    assert memory["host_peak"] <= memory["host_bound"]


def test_pools_keep_to_their_bytes_where_the_first_episode_has_few_samples() -> None:
    samples = [(10, 10), *[(4000, 10)] * 20]  # 480 bytes in the first episode, 96 kB in the others
    with loader_of(imu_and_state(samples), clock="state", pool_bytes=200_000) as loader:
        assert {len(pool.episodes) for pool in loader._order.pools(0)} <= {1, 2, 3}
        check_bound(loader)


def test_a_stream_that_the_first_episode_lacks_takes_what_its_rate_says() -> None:
    dataset = Lacking(recordings((30,) * 20), "force", [0])
    with loader_of(dataset, streams=["state", "force"], pool_bytes=200_000) as loader:
        sizes = loader._order.sizes
        assert sizes.min() == sizes.max() > 30 * 33 * 6 * 8  # a force of 6 doubles at 1 kHz beside frames at 30 Hz
        check_bound(loader)


def test_bytes_of_frames_alone_are_those_of_the_arrays() -> None:
    with loader_of(frames_only((10, 30))) as told:
        assert told._order.sizes.tolist() == [n * (3 * 4 + 2 * 8 + 2 * 8 + 32) for n in (10, 30)]
