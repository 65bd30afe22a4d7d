"""The store and the loader on datasets as they lie on disk: RLDS by processes, LeRobot by threads, recorded data."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import robocache
from examples.write_datasets import write_lerobot_v21, write_lerobot_v30, write_rlds
from robocache import DataLoader, EpisodeStore
from robocache.datasets import Dataset

from .backends import assert_same_bits

LENGTHS = (12, 30, 5, 21)
STEPS = {"observation.state": [-0.1, 0.0], "action": [0.0, 0.1, 0.05]}


def episodes() -> list[dict[str, Any]]:
    rng = np.random.default_rng(2)
    return [
        {
            "observation.state": rng.standard_normal((n, 8)).astype(np.float32),
            "action": rng.standard_normal((n, 7)).astype(np.float32),
            "observation.images.top": np.broadcast_to(
                (np.arange(n) * 8)[:, None, None, None].astype(np.uint8), (n, 16, 24, 3)
            ),
        }
        for n in LENGTHS
    ]


def rlds(folder: Path) -> Dataset:
    return robocache.datasets.open(write_rlds(folder, episodes(), image_format="png", shards=2), rate=10)


def lerobot_v21(folder: Path) -> Dataset:
    return robocache.datasets.open(write_lerobot_v21(folder, episodes(), fps=10, tasks=["a", "b", "a", "c"]))


def lerobot_v30(folder: Path) -> Dataset:
    return robocache.datasets.open(write_lerobot_v30(folder, episodes(), fps=10, episodes_per_file=3))


@pytest.mark.parametrize(
    ("make", "kind"), [(rlds, "process"), (lerobot_v21, "thread"), (lerobot_v30, "thread")], ids=["rlds", "v21", "v30"]
)
def test_an_epoch_from_disk_is_the_store_and_the_store_is_the_recording(
    make: Callable[[Path], Dataset], kind: str, tmp_path: Path
) -> None:
    recorded = episodes()
    with make(tmp_path) as dataset:
        camera = next(name for name, spec in dataset.specs.items() if spec.modality in ("image", "video"))
        store = EpisodeStore.from_dataset(dataset, "cpu", list(STEPS), show_progress=False)
        for row, episode in enumerate(recorded):
            for name in STEPS:
                assert_same_bits(store.episode(row).streams[name][0], torch.from_numpy(episode[name]))
        loader = DataLoader(
            *(dataset, 7),
            delta_times=STEPS,
            images={camera: [0.0, -0.1]},
            drop_last=False,
            device="cpu",
            workers=1,
            pool_bytes=3000,
            show_progress=False,
        )
        with loader:
            assert f"1 {kind} workers" in repr(loader) and len(loader._order.pools(0)) > 1
            seen = []
            for batch in loader:
                anchors = list(zip(batch.episode.tolist(), batch.frame.tolist(), strict=True))
                seen += anchors
                want = store.at(batch.episode, batch.time, delta_times=STEPS)
                for name in STEPS:
                    assert_same_bits(batch[name], want[name])
                    assert torch.equal(batch.is_pad(name), want.is_pad(name))
                frames = batch.images[camera][:, :, 8, 12, 1].tolist()
                assert frames == [[frame * 8, max(0, frame - 1) * 8] for _, frame in anchors]
            assert sorted(seen) == [(e, f) for e, n in enumerate(LENGTHS) for f in range(n)]
            assert batch.text[0] == dict(dataset[anchors[0][0]].text)
    assert not multiprocessing.active_children()


def test_a_flipped_byte_names_its_file_and_episode(tmp_path: Path) -> None:
    place = write_rlds(tmp_path, episodes(), image_format="png")
    (shard,) = place.glob("*.tfrecord-*")
    data = bytearray(shard.read_bytes())
    data[-200] ^= 1
    shard.write_bytes(bytes(data))
    options: dict[str, Any] = {"horizon": 2, "device": "cpu", "worker_kind": "thread", "workers": 1}
    with pytest.raises(robocache.datasets.DatasetError, match=f"episode 3, .*{shard.name}"):
        DataLoader(robocache.datasets.open(place, rate=10), 4, **options)
    with DataLoader(robocache.datasets.open(place, rate=10), 4, **options, on_error="skip") as loader:
        assert loader.frames == sum(LENGTHS[:3]) and sum(loader.skipped.values()) == 1
        assert {e for batch in loader for e in batch.episode.tolist()} == {0, 1, 2}


@pytest.mark.real_data
@pytest.mark.parametrize("folder", ["bridge_rlds", "lerobot_v21_g1"])
def test_recorded_datasets_load_whole(folder: str, real_data: Path) -> None:
    with robocache.datasets.open(real_data / folder, on_error="skip") as dataset:
        streams = [n for n, spec in dataset.specs.items() if spec.modality == "vector" and spec.dtype.kind == "f"]
        store = EpisodeStore.from_dataset(dataset, "cpu", streams, show_progress=False)
        with DataLoader(
            dataset, 16, 8, streams=streams, device="cpu", drop_last=False, workers=2, pool_bytes=1 << 18
        ) as loader:
            assert loader.frames == store.frames > 200
            count = 0
            for batch in loader:
                count += len(batch)
                want = store.at(batch.episode, batch.time, 8, streams=streams)
                assert_same_bits(batch.values, want.values)
                assert torch.equal(batch.valid, want.valid)
            assert count == store.frames
            memory = loader.memory()
            assert memory["host_peak"] <= memory["host_bound"]
