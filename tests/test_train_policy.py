"""The training example on the CPU: it learns, resumes to the bit, runs under torchrun, refuses what does not fit."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import robocache
from robocache import datasets

from .training_runs import saved, torchrun, train

import checkpoint  # isort: skip
import policy  # isort: skip
import synthetic_robot  # isort: skip
import train_data  # isort: skip
import train_plots  # isort: skip
import train_policy  # isort: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors here are so small that threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny robot's dataset is already."""
    out = tmp_path_factory.mktemp("train")
    assert train(out, steps=1, source="ready") == 0
    return out


def figures(path: Path) -> tuple[list[float], dict[str, Any]]:
    content = saved(path)
    return content["losses"], content["policy"]


# ---- Whole runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", train_data.SOURCES)
def test_a_policy_learns(source: str, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.pt"
    assert train(written, steps=60, source=source, checkpoint=path, learning_rate=5e-3) == 0
    losses, _ = figures(path)
    assert len(losses) == 60 and np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])
    told = capsys.readouterr().out
    assert "samples/s" in told and ("waited" in told) == (source == "loader")
    assert (written / "train_policy.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("source", ["store", "loader"])
def test_a_resumed_run_is_the_uninterrupted_one(source: str, written: Path, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.pt", tmp_path / "part.pt"
    train(written, steps=30, source=source, checkpoint=whole)  # past the end of an epoch of 22 steps
    train(written, steps=9, source=source, checkpoint=part)
    train(written, "--resume", steps=25, source=source, checkpoint=part, save_every=8)
    train(written, "--resume", steps=30, source=source, checkpoint=part)
    one, two = figures(whole), figures(part)
    assert len(set(one[0])) > 20 and one[0] == two[0]
    assert all(torch.equal(one[1][name], two[1][name]) for name in one[1])
    train(written, steps=9, source=source, checkpoint=part, seed=1)
    assert figures(part)[0] != one[0][:9]


def test_two_processes_train_as_one(written: Path, tmp_path: Path) -> None:
    """Two ranks with half the batch see the same windows at each step, and one process goes on where they stopped."""
    one, two = tmp_path / "one.pt", tmp_path / "two.pt"
    train(written, steps=8, batch=8, checkpoint=one)
    done = torchrun(written, steps=5, batch=4, checkpoint=two)
    assert done.returncode == 0, done.stderr
    assert "2 x cpu" in done.stdout and done.stdout.count("checkpoint:") == 1
    train(written, "--resume", steps=8, batch=8, checkpoint=two)
    losses, weights = figures(one)
    np.testing.assert_allclose(figures(two)[0], losses, rtol=1e-4)
    for name, weight in figures(two)[1].items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-3, atol=1e-4)


def test_a_run_finds_its_dataset_and_says_what_does_not_fit(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = written.glob("synthetic-*/lerobot_v2.1")
    before = path.stat().st_mtime_ns
    assert train(written, steps=1) == 0 and path.stat().st_mtime_ns == before  # it was not written again
    for more, words in (
        (["--resume"], "--checkpoint"),
        (["--width", "15"], "--heads"),
        (["--steps", "0"], "--steps"),
        (["--learning-rate", "nan"], "--learning-rate"),
        (["--workers", "0"], "--workers: expected 1 or more, got 0"),
        (["--rate", "-5"], "--rate: expected a positive number, got -5"),
        (["--seconds", "nan"], "--seconds: expected a positive number"),
    ):
        with pytest.raises(SystemExit) as stopped:
            train(written, *more)
        assert stopped.value.code == 2 and words in capsys.readouterr().err
    for more, words in (
        (["--observation", "nothing"], "observation.state"),
        (["--observation", "action"], "--observation"),
        (["--batch", "100000"], "error: .*batch"),
        ([path, "--split", "nope"], "error: .*split"),
        (["--checkpoint", path / "meta" / "info.json" / "policy.pt"], "cannot be written there"),
        (["--checkpoint", path], "cannot be written there"),
        (["--checkpoint", tmp_path / "none.pt", "--resume"], "there is no checkpoint"),
    ):
        with pytest.raises(SystemExit, match=words):
            train(written, *more)


@pytest.mark.parametrize("source", ["store", "loader"])
def test_a_checkpoint_of_other_data_is_refused(source: str, written: Path, tmp_path: Path) -> None:
    path = tmp_path / "policy.pt"
    train(written, steps=1, source=source, checkpoint=path)
    for changes, words in (
        ({"episodes": 2}, "episodes = 2, got 3"),
        ({"seconds": 0.5}, "error: .*policy"),  # as many episodes, of other lengths
    ):
        with pytest.raises(SystemExit, match=words):
            train(tmp_path, "--resume", steps=2, source=source, checkpoint=path, **changes)
    (folder,) = written.glob("synthetic-*/lerobot_v2.1")
    content = saved(path)
    content["settings"]["rate"] = "50"
    torch.save(content, path)
    with pytest.raises(SystemExit, match="rate = 100, got 50"):
        train(written, folder, "--resume", steps=2, source=source, checkpoint=path)


def test_a_loss_that_is_no_number_ends_the_run(written: Path) -> None:
    with pytest.raises(SystemExit, match="error: the loss is (nan|inf)"):
        train(written, steps=40, learning_rate=1e30, source="ready")


# ---- Parts -----------------------------------------------------------------------------------------------------------


def content(**changes: Any) -> dict[str, Any]:
    plain = {"step": 3, "settings": {"width": 8}, "policy": {"w": torch.ones(3)}, "optimizer": {}, "feed": {}}
    return {**plain, "losses": [1.0, 0.5, 0.25], **changes}


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "policy.pt"
    checkpoint.save(path, **content())
    found = checkpoint.load(path, {"width": 8})
    assert (
        found["step"] == 3 and found["losses"] == [1.0, 0.5, 0.25] and torch.equal(found["policy"]["w"], torch.ones(3))
    )

    def full(content: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(path, **content(step=4))
    monkeypatch.undo()
    assert checkpoint.load(path, {"width": 8})["step"] == 3 and os.listdir(path.parent) == ["policy.pt"]
    with pytest.raises(checkpoint.CheckpointError, match="width = 16, got 8"):
        checkpoint.load(path, {"width": 16})


class Code:
    def __reduce__(self) -> Any:
        return (os.system, ("true",))


def test_a_foreign_or_damaged_file_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "policy.pt"
    for foreign in (Code(), {"version": 1}, [1, 2], content(version=2)):
        torch.save(foreign, path)
        with pytest.raises(checkpoint.CheckpointError, match=r"policy\.pt"):
            checkpoint.load(path, {})
    checkpoint.save(path, **content())
    whole = path.read_bytes()
    for damaged in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(checkpoint.CheckpointError, match="damaged"):
            checkpoint.load(path, {"width": 8})


def test_windows_span_their_samples_and_fall_between_them() -> None:
    shape = train_data.WindowShape(("a", "b"), "action", Fraction(100), 500, 250, 50)
    deltas = shape.delta_times()
    past = deltas["a"]
    assert past is deltas["b"] and len(past) == 250 and (past[0], past[-1]) == (Fraction(-499, 100), 0)
    assert len({b - a for a, b in itertools.pairwise(past)}) == 1
    assert sum((step * 100).denominator == 1 for step in past) == 2
    assert deltas["action"] == [Fraction(k, 100) for k in range(50)]
    assert train_data.WindowShape(("a",), "action", Fraction(5), 1, 1, 1).delta_times()["a"] == [0]


def test_draws_differ_by_seed_rank_and_step() -> None:
    places = [train_data.mixed(seed, rank, step) for seed in range(8) for rank in range(8) for step in range(64)]
    assert len({place & 0xFFFFFFFF for place in places}) > 0.999 * len(places) and max(places) < 1 << 63
    assert 30 < np.mean([bin(place).count("1") for place in places]) < 33


def test_streams_side_by_side_are_valid_where_all_are() -> None:
    rng = np.random.default_rng(0)
    frames = {"observation.state": rng.standard_normal((30, 3), np.float32), "action": rng.standard_normal((30, 2))}
    slow = (rng.standard_normal((3, 2), np.float32), np.array([0, 3, 6]) * 10**8)
    ds = datasets.from_arrays([{**frames, "observation.slow": slow}], fps=10, rates={"observation.slow": 3})
    shape = train_data.window_shape(ds, None, None, 11, 11, 3)
    assert shape.observation == ("observation.state", "observation.slow")
    store = robocache.EpisodeStore.from_dataset(ds, "cpu", show_progress=False)
    windows = shape.windows(store.at([0, 0], [1.0, 2.9], delta_times=shape.delta_times()))
    assert windows.observation.shape == (2, 11, 5) and windows.observation.dtype == torch.float32
    np.testing.assert_array_equal(windows.observation[0, :, :3], frames["observation.state"][:11])
    assert windows.valid[0].tolist() == [True] * 7 + [False] * 4 and not windows.valid[1].any()  # slow ends at 0.6 s
    assert windows.action_valid.tolist() == [[True] * 3, [True, False, False]]
    figures = train_data.statistics(ds, shape)
    both = frames["observation.state"], slow[0]
    np.testing.assert_allclose(figures["observation_mean"], np.concatenate([x.mean(0) for x in both]), atol=1e-6)
    np.testing.assert_allclose(figures["observation_std"], np.concatenate([x.std(0) for x in both]), rtol=1e-5)
    np.testing.assert_allclose(figures["action_std"], frames["action"].std(0), rtol=1e-5)
    still = datasets.from_arrays([{"observation.state": np.ones((9, 2)), "action": np.zeros((9, 1))}], fps=10)
    assert train_data.statistics(still, train_data.window_shape(still, None, None, 1, 1, 1))["action_std"] == 1


def test_padding_reaches_neither_prediction_nor_loss() -> None:
    torch.manual_seed(0)
    net = policy.Policy(5, 2, tokens=6, chunk=3, width=8, layers=1, heads=2, feedforward=16)
    seen, valid = torch.randn(4, 6, 5), torch.ones(4, 6, dtype=torch.bool)
    valid[:, :2] = False
    other = seen.clone()
    other[:, :2] = 99.0
    assert torch.equal(net(seen, valid), net(other, valid)) and net(seen, valid).shape == (4, 3, 2)
    other[:, 2] = 99.0
    assert not torch.equal(net(seen, valid), net(other, valid))
    action, inside = torch.randn(4, 3, 2), torch.ones(4, 3, dtype=torch.bool)
    inside[0, 1:] = False
    wild = action.clone()
    wild[0, 1:] = 1e6
    zero = torch.zeros(4, 3, 2)
    assert policy.action_loss(zero, action, inside) == policy.action_loss(zero, wild, inside)
    assert policy.action_loss(zero, action, inside | True) == action.abs().mean()
    net.action_mean.data.fill_(3.0)
    net.action_std.data.fill_(2.0)
    torch.testing.assert_close(net.normalised(net.act(seen, valid)), net(seen, valid))


def test_the_synthetic_robot_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    robot = synthetic_robot.SyntheticRobot(3, 0.5, features=4, actions=2)
    again = synthetic_robot.SyntheticRobot(3, 0.5, features=4, actions=2)
    for form in synthetic_robot.FORMS:
        path = synthetic_robot.write(robot, form, tmp_path)
        assert path == synthetic_robot.place(form, tmp_path)
        with datasets.open(path, rate=100) as ds:
            assert len(ds) == 3 and ds.fps == 100
            for index, episode in enumerate(ds):
                for name, values in again[index].items():
                    np.testing.assert_array_equal(episode.streams[name].values, values)
    with pytest.raises(ValueError, match="expected one of 'rlds'"):
        synthetic_robot.write(robot, "hdf5", tmp_path)

    def fails(*arguments: Any, **options: Any) -> None:
        (arguments[0] / "data").mkdir(parents=True)
        raise OSError("no space left on device")

    monkeypatch.setattr(synthetic_robot.write_datasets, "write_rlds", fails)
    with pytest.raises(OSError, match="no space"):
        synthetic_robot.write(robot, "rlds", tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())


def test_losses_are_drawn_where_asked(tmp_path: Path) -> None:
    train_plots.save_losses([3.0, 1.0, 0.2, 0.1], "a run", tmp_path / "a" / "loss.svg")
    assert "<svg" in (tmp_path / "a" / "loss.svg").read_text()[:1000]


# ---- Recorded data ---------------------------------------------------------------------------------------------------

RECORDED = {
    "bridge_rlds": ["--samples", 5, "--tokens", 5, "--chunk", 3, "--split", "train"],
    "lerobot_v21_g1": ["--samples", 30, "--tokens", 15, "--chunk", 10, "--skip-damaged"],
}


@pytest.mark.real_data
@pytest.mark.parametrize("source", ["store", "loader"])
@pytest.mark.parametrize("name", RECORDED)
def test_a_policy_learns_from_recordings(name: str, source: str, real_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "policy.pt"
    small = ["--width", 32, "--heads", 2, "--layers", 1, "--feedforward", 64, "--batch", 16, "--workers", 1]
    run = [real_data / name, *RECORDED[name], *small, "--steps", 60, "--learning-rate", 3e-3, "--source", source,
           "--device", "cpu", "--no-progress", "--out", tmp_path, "--checkpoint", path]  # fmt: skip
    assert train_policy.main([str(word) for word in run]) == 0
    losses, _ = figures(path)
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])
