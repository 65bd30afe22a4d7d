"""A DataLoader's batches on the CPU: what they hold, in which order, and where a saved state goes on."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

import robocache
from robocache import DataLoader, EpisodeStore
from robocache.datasets import Dataset
from robocache.loader import aligning

from .backends import assert_same_bits
from .recordings import Faulty, frames_only, recordings

FRAMES = (40, 1, 25, 63, 7, 30, 0, 12, 50)
Anchor = tuple[int, int]


def loader_of(dataset: Dataset, batch: int = 8, **options: Any) -> DataLoader:
    options = {"pool_bytes": 150_000, "workers": 2, "worker_kind": "thread", "device": "cpu", **options}
    if "delta_times" not in options:
        options.setdefault("horizon", 4)
    return DataLoader(dataset, batch, **options)


def anchors_of(batch: Any) -> list[Anchor]:
    return list(zip(batch.episode.tolist(), batch.frame.tolist(), strict=True))


def epoch_of(loader: DataLoader) -> list[list[Anchor]]:
    return [anchors_of(batch) for batch in loader]


def every_anchor(dataset: Dataset) -> list[Anchor]:
    return [(e, f) for e in range(len(dataset)) for f in range(len(dataset[e].streams["state"]))]


# ---- What a batch holds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["own", "bf16"])
def test_batches_are_the_windows_of_a_store(dtype: torch.dtype | None) -> None:
    dataset = recordings(FRAMES)
    steps = {"state": [-0.1, 0.0], "pose": [0.0, 0.0123], "force": [0.0, 0.05, 0.4], "gripper": [0.15, 0.0]}
    spans = {"max_gap": {"pose": 0.0105}, "tolerance": {"gripper": 0.05}}
    store = EpisodeStore.from_dataset(dataset, "cpu", dtype=dtype, show_progress=False)
    spanning = 0
    with loader_of(dataset, dtype=dtype, delta_times=steps, **spans) as loader:
        assert len(loader._order.pools(0)) > 3
        for batch in loader:
            spanning += len(batch._texts) > 1
            want = store.at(batch.episode, batch.time, delta_times=steps, **spans)
            for name in steps:
                assert_same_bits(batch[name], want[name], name)
                assert torch.equal(batch.is_pad(name), want.is_pad(name))
            for (episode, frame), t, text in zip(anchors_of(batch), batch.time.tolist(), batch.text, strict=True):
                assert dataset[episode].streams["state"].times[frame] == t
                assert text == dataset[episode].text
    assert spanning > 0  # batches that span two pools were among them


def test_a_batch_is_one_launch_and_two_where_it_spans_pools() -> None:
    with loader_of(recordings(FRAMES), streams=["state", "action", "pose", "force"]) as loader:
        for _ in range(len(loader)):
            before = robocache.launch_counts()["align_cpu"]
            batch = next(loader)
            assert robocache.launch_counts()["align_cpu"] == before + len(batch._texts)


def test_a_batch_outlives_its_pool() -> None:
    with loader_of(recordings(FRAMES), prefetch=1) as loader:
        kept = [(b, b.values.clone(), b.episode.clone(), b.time.clone(), b.frame.clone()) for b in loader]
        for _ in loader:
            pass
        for batch, *copies in kept:
            for now, then in zip((batch.values, batch.episode, batch.time, batch.frame), copies, strict=True):
                assert_same_bits(now, then)


def test_the_clock_need_not_be_a_stream_of_the_windows() -> None:
    dataset = recordings((20, 30))
    with loader_of(dataset, streams=["force"], clock="gripper", horizon=2, batch=4) as loader:
        assert loader.frames == sum(len(e.streams["gripper"]) for e in dataset) == 16
        assert len(epoch_of(loader)) == 4 and loader.epoch == 1
        batch = next(loader)
        assert list(batch) == ["force"]
        assert batch.deltas.tolist() == [0, 3 * 10**8]


def test_transform_makes_what_the_loader_gives() -> None:
    with loader_of(recordings(FRAMES), transform=lambda batch: {"x": batch["state"].mean((1, 2))}) as loader:
        assert next(loader)["x"].shape == (8,)


# ---- Order ---------------------------------------------------------------------------------------------------------


def test_every_frame_is_an_anchor_once_an_epoch() -> None:
    dataset = recordings(FRAMES)
    with loader_of(dataset, drop_last=False) as loader:
        for epoch in range(3):
            assert loader.epoch == epoch
            batches = epoch_of(loader)
            assert len(batches) == len(loader) == -(-228 // 8)
            assert sorted(a for batch in batches for a in batch) == every_anchor(dataset)


def test_without_shuffling_frames_come_as_they_were_recorded() -> None:
    dataset = recordings(FRAMES)
    with loader_of(dataset, shuffle=False, drop_last=False) as loader:
        assert [a for batch in epoch_of(loader) for a in batch] == every_anchor(dataset)


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 4, "prefetch": 3}], ids=str)
def test_the_order_depends_on_seed_and_epoch_alone(options: dict[str, Any]) -> None:
    dataset = recordings(FRAMES)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with loader_of(dataset, seed=3) as one, loader_of(dataset, seed=3, **options) as two:
        first, second = epoch_of(one), epoch_of(one)
        assert first != second and first != sorted(first)
        assert [epoch_of(two), epoch_of(two)] == [first, second]
        two.set_epoch(0)
        assert epoch_of(two) == first
        two.set_epoch(1)
        assert epoch_of(two) == second
    with loader_of(dataset, seed=4) as other:
        assert epoch_of(other) != first
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_take_equal_steps_and_together_every_frame(world: int, drop_last: bool) -> None:
    dataset = recordings(FRAMES)
    batches = []
    for rank in range(world):
        with loader_of(dataset, 5, rank=rank, world_size=world, drop_last=drop_last) as loader:
            batches.append(epoch_of(loader))
            assert len(batches[-1]) == len(loader)
    assert len({tuple(len(batch) for batch in found) for found in batches}) == 1
    seen = [a for found in batches for batch in found for a in batch]
    if drop_last:
        assert len(set(seen)) == len(seen) == len(batches[0]) * 5 * world
    else:
        assert sorted(set(seen)) == every_anchor(dataset) and len(seen) - 228 < world


# ---- State ---------------------------------------------------------------------------------------------------------


def run(dataset: Dataset, state: dict[str, Any] | None, world: int, batch: int, steps: int) -> tuple[list[Anchor], Any]:
    """`steps` steps on all ranks from a state: the anchors in global order and the state behind them."""
    taken: list[list[list[Anchor]]] = []
    states = []
    for rank in range(world):
        with loader_of(dataset, batch, rank=rank, world_size=world) as loader:
            if state is not None:
                loader.load_state_dict(state)
            found = []
            while len(found) < steps:
                found += [anchors_of(b) for _, b in zip(range(steps - len(found)), loader, strict=False)]
            taken.append(found)
            states.append(loader.state_dict())
    assert all(s == states[0] for s in states)
    order = [taken[r][s][i] for s in range(steps) for i in range(batch) for r in range(world)]
    return order, json.loads(json.dumps(states[0]))  # plain data: it survives any format


def test_a_state_goes_on_at_the_exact_sample_at_another_world_size() -> None:
    dataset = recordings(FRAMES)
    whole, _ = run(dataset, None, 1, 1, 228)
    one, state = run(dataset, None, 1, 8, 5)
    two, state = run(dataset, state, 2, 6, 4)
    three, state = run(dataset, state, 3, 5, 6)
    rest, state = run(dataset, state, 1, 2, 25)
    assert one + two + three + rest == whole[: 40 + 48 + 90 + 50]
    assert (state["epoch"], state["position"]) == (1, 0)


def test_a_state_is_of_what_was_given_not_of_what_was_read_ahead() -> None:
    dataset = recordings(FRAMES)
    with loader_of(dataset, prefetch=3) as loader:
        given = [anchors_of(next(loader)) for _ in range(3)]
        state = loader.state_dict()
        rest = epoch_of(loader) + epoch_of(loader)
    assert state["position"] == 24
    with loader_of(dataset, seed=99) as other:
        other.load_state_dict(state)
        assert other.state_dict() == state
        assert epoch_of(other) + epoch_of(other) == rest
        other.load_state_dict(state)  # while it runs
        assert epoch_of(other) == rest[: len(loader) - 3] and len(given) == 3


def test_breaking_off_and_iterating_again_goes_on() -> None:
    dataset = recordings(FRAMES)
    with loader_of(dataset) as whole, loader_of(dataset) as parts:
        found = []
        for batch in parts:
            found.append(anchors_of(batch))
            if len(found) == 5:
                break
        assert found + epoch_of(parts) == epoch_of(whole)


def test_a_state_of_another_order_is_refused() -> None:
    dataset = recordings(FRAMES)
    with loader_of(dataset) as loader:
        state = loader.state_dict()
        for other in (
            loader_of(dataset, pool_bytes=300_000),
            loader_of(dataset, shuffle=False),
            loader_of(recordings((*FRAMES, 4))),
        ):
            with other, pytest.raises(ValueError, match="state: expected one of the same dataset"):
                other.load_state_dict(state)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (None, TypeError, "state: expected what a DataLoader's state_dict\\(\\) gives, a dict, got NoneType"),
        ([("epoch", 1)], TypeError, "state: expected .* got list"),
        ({"position": ...}, ValueError, "state: expected .* without \\['position'\\]"),
        ({"version": 9}, ValueError, "state\\['version'\\]: expected 1, got 9"),
        ({"version": "1"}, ValueError, "state\\['version'\\]: expected a whole number"),
        ({"order": None}, ValueError, "state: expected one of the same dataset, streams, clock, dtype"),
        ({"position": -1}, ValueError, "state\\['position'\\]: expected a whole number of 0 or more, got -1"),
        ({"position": 228}, ValueError, "state\\['position'\\]: expected less than the 228 windows .* got 228"),
        ({"position": 8.0}, ValueError, "state\\['position'\\]: expected a whole number"),
        ({"epoch": None}, ValueError, "state\\['epoch'\\]: expected a whole number of 0 or more, got None"),
        ({"seed": "0"}, ValueError, "state\\['seed'\\]: expected a whole number"),
        ({"seed": True}, ValueError, "state\\['seed'\\]: expected a whole number"),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(change: Any, error: type[Exception], words: str) -> None:
    dataset = recordings(FRAMES)
    with loader_of(dataset) as whole, loader_of(dataset) as loader:
        want = epoch_of(whole)
        given = [anchors_of(next(loader)) for _ in range(3)]
        state = loader.state_dict()
        changed = {**state, **change} if isinstance(change, dict) else change
        broken = {k: v for k, v in changed.items() if v is not ...} if isinstance(change, dict) else change
        with pytest.raises(error, match=words):
            loader.load_state_dict(broken)
        assert loader.state_dict() == state
        assert given + epoch_of(loader) == want


def test_a_closed_loader_tells_where_it_was_and_goes_nowhere() -> None:
    loader = loader_of(recordings(FRAMES))
    next(loader)
    loader.close()
    state = loader.state_dict()
    assert state["position"] == 8
    for call in (lambda: loader.load_state_dict({**state, "position": 0}), lambda: loader.set_epoch(3)):
        with pytest.raises(RuntimeError, match="the DataLoader is closed"):
            call()
    assert loader.state_dict() == state


@pytest.mark.parametrize("drop_last", [True, False])
def test_set_epoch_behind_the_last_step_is_no_empty_epoch(drop_last: bool) -> None:
    with loader_of(recordings(FRAMES), drop_last=drop_last) as whole:
        want = [epoch_of(whole) for _ in range(3)]
    with loader_of(recordings(FRAMES), drop_last=drop_last) as loader:
        for epoch in range(3):
            loader.set_epoch(epoch)
            assert loader.epoch == epoch
            assert [anchors_of(next(loader)) for _ in range(len(loader))] == want[epoch]  # never asked for one more
        loader.set_epoch(2)
        assert epoch_of(loader) == want[2]


def test_set_epoch_goes_back_to_the_beginning_of_a_resumed_epoch() -> None:
    with loader_of(recordings(FRAMES)) as loader:
        want = epoch_of(loader)
        loader.load_state_dict({**loader.state_dict(), "epoch": 0, "position": 24})
        loader.set_epoch(0)
        assert epoch_of(loader) == want


# ---- Images --------------------------------------------------------------------------------------------------------


def test_images_are_the_frames_at_the_windows_times() -> None:
    dataset = Faulty(recordings(FRAMES), camera=True)
    steps = [0.0, -0.1, 0.02]  # three frames back; two thirds of a frame ahead
    with loader_of(dataset, images={"camera": steps}, streams=["state"]) as loader:
        for _ in range(2):
            for batch in loader:
                images, valid = batch.images["camera"], batch.image_valid["camera"]
                assert images.shape == (8, 3, 4, 5, 3) and images.dtype == torch.uint8
                for b, (episode, frame) in enumerate(anchors_of(batch)):
                    last = FRAMES[episode] - 1
                    want = [frame, max(0, frame - 3), min(last, frame + 1)]
                    assert images[b, :, 2, 2, 0].tolist() == [episode] * 3
                    assert images[b, :, 2, 2, 1].tolist() == want
                    assert valid[b].tolist() == [True, frame >= 3, frame < last]


@pytest.mark.parametrize("kind", ["nearest", "previous", "next"])
def test_image_frames_are_chosen_as_resample_chooses_samples(kind: str) -> None:
    from robocache.loader.images import frames_at

    rng = np.random.default_rng(0)
    times = np.cumsum(rng.integers(1, 5, 40) * 2)
    targets = np.concatenate([np.arange(times[0] - 4, times[-1] + 5), times])
    index, valid = frames_at(times, targets, kind)
    values, want = robocache.resample_trajectories(
        torch.arange(40)[None, :, None],
        torch.from_numpy(times),
        torch.from_numpy(targets),
        kind=kind,
        return_valid=True,
    )
    assert index.tolist() == values[0, :, 0].tolist() and valid.tolist() == want[0].tolist()


# ---- Wrong input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch": 0}, "batch_size: expected a whole number of 1 or more, got 0"),
        ({"batch": 229}, "batch_size: expected at most 228 windows.*got 229"),
        ({"prefetch": 0}, "prefetch: expected a whole number of 1 or more"),
        ({"seed": -1}, "seed: expected a whole number of 0 or more"),
        ({"workers": 0}, "workers: expected a whole number of 1 or more, got 0"),
        ({"batch": 2.0}, "batch_size: expected a whole number of 1 or more, got 2.0"),
        ({"batch": True}, "batch_size: expected a whole number of 1 or more, got True"),
        ({"worker_kind": "fibre"}, "worker_kind: expected one of 'auto', 'thread', 'process', got 'fibre'"),
        ({"on_error": "ignore"}, "on_error: expected one of 'raise', 'skip', got 'ignore'"),
        ({"rank": 1}, "rank, world_size: expected both or none"),
        ({"rank": 2, "world_size": 2}, "rank: expected less than world_size = 2, got 2"),
        ({"images": ["state"]}, "images: expected names of image or video streams \\(\\[\\]\\), got 'state'"),
        ({"image_kind": "linear"}, "image_kind: expected one of 'nearest'"),
        ({"streams": ["sun"]}, "streams: expected names of .*, got 'sun'"),
        ({"device": "mps"}, "device: expected a cuda or cpu device, got mps"),
        ({"delta_times": {"state": []}}, "delta_times\\['state'\\]: expected at least one step"),
    ],
)
def test_what_cannot_be_loaded_says_so(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        loader_of(recordings(FRAMES), **options)


def test_whole_numbers_may_be_numpys() -> None:
    one = np.int64(1)
    options = {"prefetch": one, "seed": np.uint8(1), "pool_bytes": np.int32(150_000), "workers": one}
    with loader_of(recordings(FRAMES), np.int64(8), rank=one, world_size=np.int64(2), **options) as loader:
        state = loader.state_dict()
        assert type(state["seed"]) is int and json.loads(json.dumps(state)) == state
        loader.set_epoch(one)
        loader.load_state_dict({**state, "position": np.int64(16)})
        assert json.loads(json.dumps(loader.state_dict())) == {**state, "position": 16}


def test_rank_and_world_come_from_torch_distributed(tmp_path: Any) -> None:
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert "rank 0 of 1" in repr(loader_of(frames_only()))
    finally:
        torch.distributed.destroy_process_group()


# ---- Steps that are read ahead --------------------------------------------------------------------------------------


@pytest.fixture
def eight_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA: one launch reads the windows of up to eight steps."""
    monkeypatch.setitem(aligning.STEPS, "cpu", 8)


@pytest.mark.parametrize("options", [{}, {"drop_last": False, "pool_bytes": 10**8}, {"world_size": 3, "rank": 1}])
def test_steps_read_in_one_launch_are_those_read_alone(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = recordings(FRAMES)
    launches, epochs = [], []
    for steps in (1, 8):
        monkeypatch.setitem(aligning.STEPS, "cpu", steps)
        with loader_of(dataset, batch=3, **options) as loader:
            robocache.reset_launch_counts()
            epochs.append([batch for _ in range(2) for batch in loader])
            launches.append(robocache.launch_counts()["align_cpu"])
    assert launches[1] < 0.6 * launches[0]
    for alone, together in zip(*epochs, strict=True):
        assert anchors_of(alone) == anchors_of(together) and torch.equal(alone.time, together.time)
        assert_same_bits(together.values, alone.values)
        assert torch.equal(together.valid, alone.valid) and len(together) == len(alone)


@pytest.mark.usefixtures("eight_steps")
def test_writing_into_a_step_is_seen_by_no_other() -> None:
    with loader_of(recordings(FRAMES), streams=["state", "force"], pool_bytes=10**8) as loader:
        next(loader)  # alone: nothing is known yet of how large a window is
        first = next(loader)
        weight = torch.ones((), requires_grad=True)
        loss = (first["state"] * weight).sum()
        second = next(loader)
        assert first.values.untyped_storage().data_ptr() == second.values.untyped_storage().data_ptr()
        kept = first.values.clone()
        second.values.zero_()
        second.valid.zero_()
        assert_same_bits(first.values, kept)
        assert first.valid.any()
        loss.backward()  # refused if the write counted as one into what the graph of `first` has saved


@pytest.mark.usefixtures("eight_steps")
def test_what_was_read_ahead_is_dropped_when_the_loader_goes_elsewhere() -> None:
    with loader_of(recordings(FRAMES), pool_bytes=10**8) as loader:
        for _ in range(3):
            next(loader)
        state = loader.state_dict()
        want = [anchors_of(next(loader)) for _ in range(3)]
        assert loader.memory()["ahead"] > 0
        loader.load_state_dict(state)
        assert loader.memory()["ahead"] == 0
        assert [anchors_of(next(loader)) for _ in range(3)] == want


@pytest.mark.usefixtures("eight_steps")
def test_a_large_step_is_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aligning, "STEPS_BYTES", 1)
    with loader_of(recordings(FRAMES), pool_bytes=10**8) as loader:
        for _ in range(4):
            next(loader)
            assert loader.memory()["ahead"] == 0
