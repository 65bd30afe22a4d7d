"""Windows of an EpisodeStore: LeRobot's rule on the grid, resample's own answers off it, and who reads what."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import robocache
from robocache import EpisodeStore
from robocache.datasets import Dataset
from robocache.store.ticks import steps_at, tick

from .backends import assert_same_bits
from .recordings import NTSC, frames_only, recordings


def store_of(dataset: Dataset, **options: Any) -> EpisodeStore:
    return EpisodeStore.from_dataset(dataset, "cpu", show_progress=False, **options)


# ---- LeRobot's rule ------------------------------------------------------------------------------------------------


def lerobot_windows(
    dataset: Dataset, name: str, deltas: Sequence[int]
) -> tuple[list[list[np.ndarray[Any, Any]]], list[list[bool]]]:
    """LeRobotDataset._get_query_indices for every frame: query = clamp(idx + delta, ep_start, ep_end - 1), and is_pad =
    idx + delta < ep_start or >= ep_end, over the concatenated episodes."""
    rows: list[list[np.ndarray[Any, Any]]] = []
    pads: list[list[bool]] = []
    table = np.concatenate([episode.streams[name].values for episode in dataset])
    begin = 0
    for episode in dataset:
        end = begin + episode.length
        for index in range(begin, end):
            rows.append([table[max(begin, min(end - 1, index + delta))] for delta in deltas])
            pads.append([(index + delta < begin) or (index + delta >= end) for delta in deltas])
        begin = end
    return rows, pads


@pytest.mark.parametrize("fps", [30, 7, 50, NTSC], ids=str)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["own", "bf16"])
def test_on_the_grid_windows_and_masks_are_those_of_lerobot(fps: Any, dtype: torch.dtype | None) -> None:
    dataset = frames_only(fps=fps)
    store = store_of(dataset, dtype=dtype)
    frames = {"state": [-2, -1, 0], "action": [0, 1, 2, 3, 5, 40, -1]}
    seconds = {name: [float(Fraction(step) / Fraction(fps)) for step in steps] for name, steps in frames.items()}
    episodes = [row for row, episode in enumerate(dataset) for _ in range(episode.length)]
    times = torch.cat([torch.from_numpy(episode.streams["state"].times) for episode in dataset])
    batch = store.at(episodes, times, delta_times=seconds)
    for name, steps in frames.items():
        rows, pads = lerobot_windows(dataset, name, steps)
        want = torch.from_numpy(np.array(rows))
        assert_same_bits(batch[name].to(batch.values.dtype), want.to(dtype or batch.values.dtype))
        assert batch.is_pad(name).tolist() == pads


def test_every_kind_of_step_falls_on_frames_for_days() -> None:
    for fps in (Fraction(30), Fraction(24), NTSC, Fraction(7)):
        tps = frames_only((2,), fps=fps).ticks_per_second
        step = Fraction(tps) / fps
        assert step.denominator == 1
        for frame in (1, 7, 30 * 3600 * 24 + 1):
            for sign in (1, -1):
                assert tick(sign * float(frame / fps), tps) == sign * frame * step
        assert steps_at(1000, fps, tps) == tuple(k * step for k in range(1000))


def test_a_tick_is_the_nearest_to_the_fraction_that_a_float_is() -> None:
    assert tick(-1 / 30, 3 * 10**9) == -100_000_000
    assert tick(0.1, 10) == 1 and tick(Fraction(1, 3), 10**9) == 333_333_333 and tick(np.float32(0.5), 10) == 5
    assert tick(2**53 + 1, 1) == 2**53 + 1  # a whole number stays exact where a float would not
    assert steps_at(4, Fraction(3), 10) == (0, 3, 7, 10)  # each is rounded alone: 3.33, 6.67
    for bad, error in ((float("nan"), ValueError), (float("inf"), ValueError), (1e30, ValueError), (True, TypeError)):
        with pytest.raises(error, match="delta"):
            tick(bad, 10**9, "delta")


# ---- Off the grid ---------------------------------------------------------------------------------------------------


def alone(dataset: Dataset, row: int, name: str, targets: torch.Tensor, **options: Any) -> tuple[Any, Any]:
    """robocache.resample_trajectories of one episode's stream, on its own."""
    stream = dataset[row].streams[name]
    return robocache.resample_trajectories(
        torch.from_numpy(stream.values)[None],
        torch.from_numpy(stream.times),
        targets[None],
        kind=stream.kind,
        return_valid=True,
        **options,
    )


@pytest.mark.parametrize("max_bytes", [None, 0, 120_000], ids=["kept", "spilled", "partly spilled"])
def test_off_the_grid_each_stream_is_what_resample_gives_alone(max_bytes: int | None) -> None:
    dataset = recordings()
    store = store_of(dataset, max_bytes=max_bytes)
    if max_bytes == 120_000:
        assert 0 < store.spilled_episodes < len(store)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(len(store), (60,), generator=generator)
    times = torch.randint(-200_000_000, 2_500_000_000, (60,), generator=generator) * (store.ticks_per_second // 10**9)
    deltas = {"state": [-0.05, 0.0], "pose": [0.0, 0.0123, 0.4], "force": [-0.3, 1e-9, 0.2], "gripper": [0.0, 0.15]}
    spans = {"max_gap": {"pose": 0.0105, "force": None}, "tolerance": {"gripper": 0.05}}
    batch = store.at(rows, times, delta_times=deltas, **spans)
    tps = store.ticks_per_second
    for name, steps in deltas.items():
        options = {span: tick(found[name], tps) for span, found in spans.items() if found.get(name) is not None}
        for b in range(60):
            targets = times[b] + torch.tensor([tick(step, tps) for step in steps])
            # Floating streams side by side have one dtype, float64 here, because the force has it.
            out_dtype = None if name == "gripper" else torch.float64
            values, valid = alone(dataset, int(rows[b]), name, targets, out_dtype=out_dtype, **options)
            assert_same_bits(batch[name][b], values[0], f"{name} {b}")
            assert torch.equal(batch.is_valid(name)[b], valid[0])
    assert any(not batch.is_valid(name).all() for name in deltas) and any(batch.is_valid(n).any() for n in deltas)


def test_spilling_changes_nothing() -> None:
    dataset = recordings()
    whole = store_of(dataset)
    for budget in (0, 1, 60_000, 120_000, 10**9):
        store = store_of(dataset, max_bytes=budget)
        for anchors in ("frames", "times"):
            draws = [
                s.sample(200, 5, generator=torch.Generator().manual_seed(3), anchors=anchors) for s in (whole, store)
            ]
            assert torch.equal(draws[0].episode, draws[1].episode) and torch.equal(draws[0].time, draws[1].time)
            for name in whole.names:
                assert_same_bits(draws[0][name], draws[1][name])
            assert torch.equal(draws[0].valid, draws[1].valid)
        for row in range(len(whole)):
            for name, (values, times) in store.episode(row).streams.items():
                assert_same_bits(values, whole.episode(row).streams[name][0])
                assert torch.equal(times, whole.episode(row).streams[name][1])


def test_an_anchor_as_offset_of_shared_steps_is_the_same_as_targets_of_its_own() -> None:
    dataset = recordings()
    store = store_of(dataset)
    batch = store.sample(50, 6, streams=["pose", "force"], generator=torch.Generator().manual_seed(2), anchors="times")
    part = store._parts[0]
    index = [store.names.index(name) for name in ("pose", "force")]
    streams = [
        robocache.Stream(
            *(part.values[i], part.times[i], dataset.specs[store.names[i]].kind),
            row_splits=part.row_splits[i],
            rows=batch.episode,
        )
        for i in index
    ]
    values, valid = robocache.fuse_multimodal(streams, batch.times, return_valid=True)
    assert_same_bits(batch.values, values)
    assert torch.equal(batch.valid, valid)


# ---- Which steps of which streams ------------------------------------------------------------------------------------


def test_streams_with_steps_of_their_own_share_one_launch() -> None:
    store = store_of(recordings(), streams=["state", "action", "pose", "force"])
    before = robocache.launch_counts()["align_cpu"]
    batch = store.sample(8, delta_times={"state": [-0.1, 0.0], "action": [0.0, 0.1, 0.2, 0.3], "force": [0.3, -0.1]})
    assert robocache.launch_counts()["align_cpu"] == before + 1
    assert batch.names == ("state", "action", "force") and "pose" not in batch
    assert batch.values.shape == (8, 5, 20) and batch.valid.shape == (8, 5, 3)
    assert [list(batch[name].shape) for name in batch] == [[8, 2, 7], [8, 4, 7], [8, 2, 6]]
    assert batch["state"].data_ptr() == batch.values.data_ptr()  # evenly spaced steps are views
    assert torch.equal(batch["force"], batch.values[:, [4, 0], 14:20])
    assert batch.columns == {"state": slice(0, 7), "action": slice(7, 14), "force": slice(14, 20)}


def test_whole_numbers_keep_their_digits_in_a_launch_of_their_own() -> None:
    big = 2**53 + 1
    dataset = robocache.datasets.from_arrays(
        [
            {
                "state": np.zeros((4, 2), "f4"),
                "id": np.array([[1], [big], [3], [4]]),
                "done": np.array([0, 0, 0, 1], bool),
            }
        ],
        fps=10,
    )
    store = store_of(dataset)
    before = robocache.launch_counts()["align_cpu"]
    batch = store.at([0], [0.1], horizon=2)
    assert robocache.launch_counts()["align_cpu"] == before + 2
    assert batch["id"].dtype == torch.int64 and batch["id"].tolist() == [[[big], [3]]]
    assert batch["state"].dtype == torch.float32 and batch.names == ("state", "id", "done")
    assert batch.valid.shape == (1, 2, 3) and batch.columns["done"] == slice(3, 4)


def test_more_streams_than_a_launch_takes() -> None:
    arrays = {f"s{i:02d}": np.full((5, 1), i, "f4") for i in range(35)}
    store = store_of(robocache.datasets.from_arrays([arrays], fps=10))
    before = robocache.launch_counts()["align_cpu"]
    batch = store.at([0, 0], [0.0, 9.0], horizon=2)
    assert robocache.launch_counts()["align_cpu"] == before + 3
    assert batch.values[0, 0].tolist() == list(range(35)) and batch.valid.shape == (2, 2, 35)
    assert batch.valid[0].all() and not batch.valid[1].any()


def test_horizon_counts_steps_of_the_clock_or_of_a_rate() -> None:
    store = store_of(recordings())
    assert store.sample(2, horizon=3).deltas.tolist() == [0, 10**8, 2 * 10**8]  # 3e9 ticks a second, 30 Hz
    assert store.sample(2, horizon=3, rate=100).deltas.tolist() == [0, 3 * 10**7, 6 * 10**7]
    assert store.sample(2, horizon=3, rate=7).deltas.tolist() == [0, 428_571_429, 857_142_857]
    assert store.clock == "state" and store.frames == 136
    assert store_of(recordings(), clock="gripper").sample(1, 2).deltas.tolist() == [0, 3 * 10**8]


# ---- Anchors -------------------------------------------------------------------------------------------------------


def test_frames_are_drawn_evenly_and_only_frames() -> None:
    dataset = recordings((3, 1, 8))
    store = store_of(dataset)
    batch = store.sample(24_000, 1, streams=["state"], generator=torch.Generator().manual_seed(0))
    assert bool(batch.valid.all())
    pairs, counts = torch.stack([batch.episode, batch.time]).unique(dim=1, return_counts=True)
    want = [(row, t) for row, e in enumerate(dataset) for t in e.streams["state"].times.tolist()]
    assert [tuple(pair) for pair in pairs.T.tolist()] == want
    assert (counts - 2000).abs().max() < 6 * 2000**0.5  # six standard deviations


def test_times_are_drawn_evenly_between_first_and_last_frame() -> None:
    store = store_of(recordings((31, 1, 61)))  # one second, no time at all, two seconds
    batch = store.sample(30_000, 1, streams=["state"], anchors="times", generator=torch.Generator().manual_seed(0))
    assert bool(batch.valid.all())
    counts = torch.bincount(batch.episode, minlength=3).tolist()
    assert counts[1] == 0 and abs(counts[0] - 10_000) < 6 * 82 and sum(counts) == 30_000
    seconds = batch.seconds[batch.episode == 2]
    assert 0 <= seconds.min() < 0.01 and 1.99 < seconds.max() <= 2.0
    assert abs(float(seconds.mean()) - 1.0) < 0.03 and len(seconds.unique()) > 19_000


def test_a_generator_repeats_a_draw() -> None:
    store = store_of(recordings())
    one, two, other = (store.sample(32, 4, generator=torch.Generator().manual_seed(s)) for s in (5, 5, 6))
    assert torch.equal(one.time, two.time) and torch.equal(one.episode, two.episode)
    assert_same_bits(one.values, two.values)
    assert not torch.equal(one.time, other.time)


def test_prepared_windows_are_those_of_sample_and_at() -> None:
    for options in ({}, {"max_bytes": 20_000}):
        store = store_of(recordings(), **options)
        steps = {"state": [Fraction(-1, 7), 0], "force": [0.01, 0.02, 0.5]}
        windows = store.windows(delta_times=steps, max_gap=0.1)
        assert windows.store is store and windows is store.windows(delta_times=steps, max_gap=0.1)
        for anchors in ("frames", "times"):
            draws = [torch.Generator().manual_seed(3) for _ in range(2)]
            one = windows.sample(9, draws[0], anchors=anchors)
            two = store.sample(9, delta_times=steps, generator=draws[1], anchors=anchors, max_gap=0.1)
            assert torch.equal(one.time, two.time) and torch.equal(one.valid, two.valid)
            assert_same_bits(one.values, two.values)
            again = windows.at(one.episode, one.time)
            assert_same_bits(again.values, one.values)
        with pytest.raises(ValueError, match="batch: expected a number of windows of 1 or more, got 0"):
            windows.sample(0)
        with pytest.raises(ValueError, match="anchors: expected one of 'frames', 'times'"):
            windows.sample(1, anchors="middle")
        with pytest.raises(ValueError, match=r"times: expected \[B\] = \[2\], got \[1\]"):
            windows.at([0, 1], [0.0])


@given(data=st.data())
def test_any_steps_come_back_in_the_callers_order(data: st.DataObject) -> None:
    store = _STORE
    steps = st.lists(st.integers(-5, 9), min_size=1, max_size=6)
    frames = {name: data.draw(steps) for name in data.draw(st.permutations(["state", "action", "pose"]))}
    batch = store.at([0, 3], [0.5, 1.0], delta_times={n: [Fraction(k, 30) for k in f] for n, f in frames.items()})
    for name, found in frames.items():
        for position, k in enumerate(found):
            single = store.at([0, 3], [0.5, 1.0], delta_times=[Fraction(k, 30)], streams=[name])
            assert_same_bits(batch[name][:, position], single[name][:, 0])
            assert torch.equal(batch.is_pad(name)[:, position], single.is_pad(name)[:, 0])


_STORE = store_of(recordings(), streams=["state", "action", "pose"])


# ---- Arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["max_gap", "tolerance"])
def test_a_span_of_a_stream_that_is_not_there_is_refused(name: str) -> None:
    dataset = frames_only()
    span: Any = {name: {"state": 0.5, "acton": 0.5}}
    with pytest.raises(ValueError, match=rf"{name}: expected names of 'state', .*got \['acton'\]"):
        store_of(dataset).windows(2, **span)
    with pytest.raises(ValueError, match=rf"{name}: expected names of 'state', .*got \['acton'\]"):
        robocache.DataLoader(dataset, 2, horizon=2, device="cpu", show_progress=False, **span)
    store_of(dataset).windows(2, streams=["action"], **{name: {"state": 0.5}})  # of the store, if not of the windows


def test_iterators_are_gone_through_once() -> None:
    store = store_of(frames_only())
    for steps in (lambda: iter([-0.1, 0.0]), lambda: {"action": iter([-0.1, 0.0])}):
        assert store.at([0], [0.5], delta_times=steps())["action"].shape[1] == 2
    assert store.at([0], [0.5], 2, streams=iter(["action"])).names == ("action",)
    assert store.at([0], [0.5], 2, streams=iter(["state"])).names == ("state",)


def test_counts_may_be_integers_of_numpy_but_no_booleans() -> None:
    store = store_of(frames_only())
    assert store.sample(np.int64(3), np.int32(2))["state"].shape[:2] == (3, 2)
    store.windows(1)
    for wrong in (True, np.True_, 1.5, "2", 0):
        with pytest.raises(ValueError, match="horizon: expected a number of steps of 1 or more"):
            store.windows(wrong)
        with pytest.raises(ValueError, match="batch: expected a number of windows of 1 or more"):
            store.sample(wrong, 1)


@pytest.mark.parametrize(
    ("episodes", "times", "error", "words"),
    [
        ([0], [float("nan")], ValueError, r"times\[0\]: expected a finite"),
        ([0], [float("inf")], ValueError, r"times\[0\]: expected a finite"),
        ([0], 0.5, TypeError, "times: expected a sequence"),
        ([0], "0", TypeError, "times: expected a sequence"),
        ([0], np.zeros(1, np.int32), TypeError, "times: expected int64 ticks"),
        ([0], np.zeros((1, 1)), ValueError, r"times: expected \[B\]"),
        ([0.0], [0.0], ValueError, "episodes: expected integers"),
        ([99], [0.0], ValueError, "episodes: expected rows from 0"),
        ([-1], [0.0], ValueError, "episodes: expected rows from 0"),
        ("0", [0.0], TypeError, "episodes: expected rows or names"),
        ([[0], [0, 1]], [0.0], TypeError, "episodes: expected rows or names"),
        (["nobody"], [0.0], KeyError, "expected the name of one of .* got 'nobody'"),
        ([0, 0], [0.0], ValueError, r"times: expected \[B\] = \[2\]"),
    ],
    ids=lambda given: None,
)
def test_places_that_are_none_are_refused(episodes: Any, times: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        store_of(frames_only()).at(episodes, times, 2)


def test_no_places_are_no_windows() -> None:
    batch = store_of(frames_only()).at([], [], 2)
    assert len(batch) == 0 and batch["action"].shape[:2] == (0, 2)
