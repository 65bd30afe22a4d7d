"""What an EpisodeStore packs, how much of it, and what it says of wrong input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import robocache
from robocache import EpisodeStore
from robocache.datasets import DatasetError, from_arrays
from robocache.store import fill

from .recordings import frames_only, recordings


def store_of(dataset: Any, **options: Any) -> EpisodeStore:
    return EpisodeStore.from_dataset(dataset, "cpu", show_progress=False, **options)


def test_what_is_packed_is_what_was_recorded() -> None:
    dataset = recordings()
    store = store_of(dataset)
    assert len(store) == 5 and store.names == tuple(dataset.specs)
    for episode in dataset:
        stored = store.episode(episode.name)
        assert (stored.row, stored.index, stored.text) == (episode.index, episode.index, episode.text)
        for name, (values, times) in stored.streams.items():
            assert np.array_equal(values.numpy(), episode.streams[name].values)
            assert np.array_equal(times.numpy(), episode.streams[name].times)
    assert store.episode(-1).name == dataset[4].name


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = recordings()
    whole = store_of(dataset)
    monkeypatch.setattr(fill, "_CHUNK_BYTES", 500)
    chunked = store_of(dataset)
    for a, b in zip(whole._parts[0].values, chunked._parts[0].values, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_floating_streams_take_the_dtype_and_others_keep_theirs(dtype: torch.dtype) -> None:
    dataset = recordings()
    store = store_of(dataset, dtype=dtype)
    values, _ = store.episode(2).streams["force"]
    assert values.dtype == dtype
    assert torch.equal(values, torch.from_numpy(dataset[2].streams["force"].values).to(dtype))
    assert store.episode(2).streams["gripper"][0].dtype == torch.int64
    assert store.sample(3, 2)["pose"].dtype == dtype


def test_bytes_are_counted() -> None:
    dataset = frames_only((10, 20))
    store = store_of(dataset)
    samples = 30
    want = samples * (3 * 4 + 8) + samples * (2 * 8 + 8) + 2 * 3 * 8  # values, times and row splits of two streams
    want += samples * 16  # the table of frames
    assert store.nbytes == want and store.spilled_bytes == 0 and store.spilled_episodes == 0
    episode = 10 * (12 + 8 + 16 + 8)
    part = store_of(dataset, max_bytes=episode)
    assert part.spilled_episodes == 1 and part.spilled_bytes == 20 * (12 + 16)
    uncounted = 20 * 2 * 8 + samples * 16 + samples * 8 + 5 * 3 * 8  # times of what spilled, frames, clock, row splits
    assert part.nbytes == episode + uncounted
    assert store_of(dataset, max_bytes=episode - 1).spilled_episodes == 2
    assert store_of(dataset, max_bytes=episode * 3).spilled_episodes == 0
    assert "1 episodes" in repr(part) and "30 frames of 'state'" in repr(part)


def test_an_episode_without_a_stream_has_no_valid_step_of_it() -> None:
    dataset = recordings((10, 12))
    full = dataset[1]

    class Without(type(dataset)):  # type: ignore[misc]
        def episode(self, index: int) -> Any:
            found = super().episode(index)
            if index == 1:
                del found.streams["pose"]
            return found

    dataset.__class__ = Without
    batch = store_of(dataset).at([0, 1], [0.1, 0.1], horizon=2)
    assert batch.is_valid("pose").tolist() == [[True] * 2, [False] * 2]
    assert bool(batch["pose"][1].isnan().all()) and bool(batch.is_valid("state").all())
    assert len(full.streams["pose"]) > 0


def test_skipped_episodes_are_left_out() -> None:
    dataset = frames_only((10, 20, 30))

    class Broken(type(dataset)):  # type: ignore[misc]
        def episode(self, index: int) -> Any:
            if index == 1:
                raise DatasetError("checksum does not match", file="b.bin", episode=1, category="checksum")
            return super().episode(index)

    dataset.__class__ = Broken
    with pytest.raises(DatasetError, match="episode 1, b.bin: checksum"):
        store_of(dataset)
    dataset.on_error = "skip"
    store = store_of(dataset)
    assert len(store) == 2 and store.episode(1).index == 2 and store.frames == 40
    assert dataset.skipped == {"checksum": 1}


def backwards() -> Any:
    return from_arrays([{"a": (np.zeros((3, 1)), np.array([0, 2, 1]))}], rates={"a": 10})


def too_wide() -> Any:
    return from_arrays([{"a": np.zeros((3, 1), "u8")}], fps=10)


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (backwards, {}, "a: times: go backwards after sample 1, from 2 to 1"),
        (too_wide, {}, "streams\\['a'\\]: expected values of one of .*, got uint64"),
        (recordings, {"streams": ["nothing"]}, "streams: expected names of vector streams .*, got 'nothing'"),
        (recordings, {"streams": []}, "streams: expected at least one"),
        (recordings, {"streams": ["state", "state"]}, "streams: expected each name once"),
        (recordings, {"clock": "sun"}, "clock: expected one of 'state', .*, got 'sun'"),
        (recordings, {"dtype": torch.int32}, "dtype: expected None or a floating torch.dtype, got torch.int32"),
        (recordings, {"max_bytes": -1}, "max_bytes: expected None or bytes of 0 or more, got -1"),
    ],
)
def test_what_cannot_be_packed_says_so(make: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        store_of(make(), **options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch": 0, "horizon": 1}, "batch: expected a number of windows of 1 or more, got 0"),
        ({"batch": 2}, "horizon, delta_times: expected exactly one"),
        ({"batch": 2, "horizon": 1, "delta_times": [0]}, "horizon, delta_times: expected exactly one"),
        ({"batch": 2, "horizon": 0}, "horizon: expected a number of steps of 1 or more, got 0"),
        ({"batch": 2, "delta_times": []}, "delta_times: expected at least one step"),
        ({"batch": 2, "delta_times": {"state": []}}, "delta_times\\['state'\\]: expected at least one step"),
        ({"batch": 2, "delta_times": [float("nan")]}, "delta_times\\[0\\]: expected a finite number"),
        ({"batch": 2, "delta_times": {"sun": [0]}}, "delta_times: expected names of .*, got 'sun'"),
        ({"batch": 2, "delta_times": {"state": [0]}, "streams": ["pose"]}, "expected steps of every stream.*'pose'"),
        ({"batch": 2, "delta_times": [0], "rate": 10}, "rate: expected None beside delta_times"),
        ({"batch": 2, "horizon": 1, "anchors": "sun"}, "anchors: expected one of 'frames', 'times', got 'sun'"),
        ({"batch": 2, "horizon": 1, "max_gap": -1}, "max_gap: expected None or seconds of 0 or more, got -1"),
        ({"batch": 2, "horizon": 1, "rate": 0}, "rate: expected samples per second"),
    ],
)
def test_what_cannot_be_drawn_says_so(arguments: dict[str, Any], words: str) -> None:
    store = store_of(recordings())
    with pytest.raises(ValueError, match=words):
        store.sample(**arguments)


@pytest.mark.parametrize(
    ("episodes", "times", "error", "words"),
    [
        ([0, 5], [0.0, 0.0], ValueError, "episodes: expected rows from 0 to 4, got \\[0, 5\\]"),
        ([-1], [0.0], ValueError, "episodes: expected rows from 0 to 4"),
        ([0], [0.0, 1.0], ValueError, "times: expected \\[B\\] = \\[1\\], got \\[2\\]"),
        ([0.5], [0.0], ValueError, "episodes: expected integers"),
        ([0], torch.tensor([1], dtype=torch.int32), TypeError, "times: expected int64 ticks"),
        ([0], ["now"], TypeError, "times\\[0\\]: expected a number of seconds, got str"),
    ],
)
def test_where_no_window_can_be_says_so(episodes: Any, times: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        store_of(recordings()).at(episodes, times, horizon=2)


def test_places_may_be_named_and_timed_either_way() -> None:
    dataset = recordings()
    store = store_of(dataset)
    want = store.at([1, 3], torch.tensor([0, 3 * 10**8]), horizon=2)
    for episodes, times in (
        ([dataset[1].name, dataset[3].name], [0, 0.1]),
        (np.array([1, 3]), np.array([0.0, 0.1])),
        (torch.tensor([1, 3], dtype=torch.int32), np.array([0, 3 * 10**8])),
    ):
        found = store.at(episodes, times, horizon=2)
        assert torch.equal(found.time, want.time) and torch.equal(found["force"], want["force"])


def test_many_kinds_of_windows_do_not_fill_the_memory() -> None:
    store = store_of(recordings())
    for step in range(300):
        store.sample(1, delta_times=[step / 1000])
    assert len(store._plans) <= 64


def test_a_clock_without_a_sample_cannot_be_drawn_from() -> None:
    store = store_of(from_arrays([{"a": (np.zeros((0, 1)), np.zeros(0, np.int64))}], rates={"a": 10}))
    for anchors in ("frames", "times"):
        with pytest.raises(ValueError, match="anchors: the clock 'a' has no sample"):
            store.sample(1, 1, anchors=anchors)


def test_it_is_public() -> None:
    assert robocache.EpisodeStore is EpisodeStore and "EpisodeStore" in dir(robocache)
