"""Recorded datasets: BridgeData V2 in RLDS form and a Unitree G1 recording in LeRobot v2.1 form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from robocache import datasets
from robocache._cli import main
from robocache.datasets import DatasetError

pytestmark = pytest.mark.real_data
CAMERA = "observation.images.cam_high"


def test_bridge(real_data: Path) -> None:
    with datasets.open(real_data / "bridge_rlds", split="train") as dataset:
        assert (dataset.name, dataset.format, dataset.fps, len(dataset)) == ("bridge_dataset", "rlds", 5, 25)
        assert [found.length for found in dataset] == [10] * 25
        state = dataset.specs["observation.state"]
        assert state.kind == ((slice(0, 3), "linear"), (slice(3, 6), "angle"), (slice(6, 7), "linear"))
        assert state.units == "m, m, m, rad, rad, rad, 1"
        assert dataset.specs["action"].kind == "previous"
        first = dataset[0]
        assert first.text["language_instruction"] == "put cup from counter or drying rack into sink"
        assert first.streams["observation.state"].times.tolist() == [step * 2 * 10**8 for step in range(10)]
        moved, actions = [], []
        for found in dataset:
            values = found.streams["observation.state"].values
            assert (np.abs(values[:, 3:6]) < np.pi).all()
            assert (np.abs(values[:, :3]) < 1).all()
            moved.append(np.diff(values[:, :3].astype(np.float64), axis=0))
            actions.append(found.streams["action"].values[:-1, :3].astype(np.float64))
            images = found.streams["observation.image_0"].values
            assert images[0].shape == (64, 64, 3)
            assert found.streams["is_first"].values.ravel().tolist()[0] in (True, False)
        assert len({found.text["language_instruction"] for found in dataset}) == 4
        # An action is the step's delta of the state: where both are read right, and in order, they agree.
        assert np.corrcoef(np.ravel(moved), np.ravel(actions))[0, 1] > 0.8


def test_bridge_val_is_missing(real_data: Path) -> None:
    dataset = datasets.open(real_data / "bridge_rlds")
    assert len(dataset) == 50
    with pytest.raises(DatasetError, match=r"episode 25, .*bridge_dataset-val.tfrecord-00000-of-00001: missing file"):
        dataset[25]
    skipping = datasets.open(real_data / "bridge_rlds", on_error="skip")
    assert len(list(skipping)) == len(skipping) == 25
    assert skipping.skipped == {"missing file": 25}


def test_g1(real_data: Path) -> None:
    dataset = datasets.open(real_data / "lerobot_v21_g1")
    assert (dataset.format, dataset.fps, len(dataset)) == ("lerobot_v2.1", 30, 100)
    assert dataset.specs["observation.state"].kind == "linear"  # joints, for all that they roll, pitch and yaw
    names = dataset.specs["action"].column_names
    assert names is not None
    assert (len(names), names[0]) == (26, "kLeftShoulderPitch")
    stats = {}
    for line in (real_data / "lerobot_v21_g1/meta/episodes_stats.jsonl").read_text().splitlines():
        row = json.loads(line)
        stats[row["episode_index"]] = row["stats"]
    for index, length in ((0, 479), (1, 393), (2, 343), (10, 290), (20, 297), (30, 277), (40, 425)):
        found = dataset[index]
        assert found.length == length
        assert found.text["task"] == "Pick up the yellow bottle on the table."
        for name in ("observation.state", "action"):
            values = found.streams[name].values
            assert np.array_equal(values.min(axis=0), np.float32(stats[index][name]["min"]))
            assert np.array_equal(values.max(axis=0), np.float32(stats[index][name]["max"]))
            assert np.allclose(values.mean(axis=0), stats[index][name]["mean"], atol=1e-4)
            assert found.streams[name].times.tolist() == [frame * 10**8 for frame in range(length)]
    with pytest.raises(DatasetError, match=r"episode 3, .*episode_000003.parquet: missing file"):
        dataset[3].load()
    skipping = datasets.open(real_data / "lerobot_v21_g1", on_error="skip")
    assert [found.name for found in skipping] == [f"episode_{i:06d}" for i in (0, 1, 2, 10, 20, 30, 40)]
    assert skipping.skipped == {"missing file": 93}


def test_g1_video(real_data: Path) -> None:
    import av

    found = datasets.open(real_data / "lerobot_v21_g1")[10]
    frames = found.streams[CAMERA].values
    assert len(frames) == 290
    path = real_data / f"lerobot_v21_g1/videos/chunk-000/{CAMERA}/episode_000010.mp4"
    wanted = [0, 1, 7, 100, 101, 289]
    with av.open(str(path)) as container:
        straight = {
            number: frame.to_ndarray(format="rgb24")
            for number, frame in enumerate(container.decode(video=0))
            if number in wanted
        }
    for number in (100, 7, 289, 0, 101, 1):
        assert np.array_equal(frames[number], straight[number])
    assert np.array_equal(frames.batch(wanted), np.stack([straight[number] for number in wanted]))
    with pytest.raises(DatasetError, match=r"episode 1, .*missing file"):
        datasets.open(real_data / "lerobot_v21_g1")[1].streams[CAMERA].values  # noqa: B018


def test_inspect_on_recorded_data(real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "plot.png"
    assert main(["inspect", str(real_data / "lerobot_v21_g1"), "--quiet", "--plot", str(picture)]) == 1
    text = capsys.readouterr().out
    assert "missing file: episodes 3, 4, 5" in text
    assert "(93 in all)" in text
    assert f"missing file: {CAMERA}: episodes 0, 1, 2, 20, 30, 40" in text
    assert picture.stat().st_size > 20_000
    assert main(["inspect", str(real_data / "bridge_rlds"), "--quiet", "--split", "train"]) == 0
    text = capsys.readouterr().out
    assert "episodes  25, 25 without errors" in text
    assert "put carrot on plate" in text
