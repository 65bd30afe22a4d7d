"""RLDS metadata and records that are damaged or lie: an error that names the file, and the episode if there is one."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robocache import datasets
from robocache.datasets import DatasetError

from .dataset_files import LENGTHS, camera, edit_json, episode, episodes, only, opened, write

SECOND_SHARD = "*00001-of-00002"  # holds episodes 1 and 2


def read_all(dataset: datasets.Dataset) -> list[dict[str, np.ndarray]]:
    return [{name: stream.values for name, stream in found.load().streams.items()} for found in dataset]


def state_leaf(content: Any) -> Any:
    steps = content["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"]["features"]
    return steps["observation"]["featuresDict"]["features"]["state"]["tensor"]


def with_state(**fields: Any) -> Callable[[Any], None]:
    return lambda content: state_leaf(content).update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_state(shape={"dimensions": ["6"]}), r"observation/state: expected 12 x \[6\] = 72 numbers, got 84"),
        (with_state(dtype="int64"), r"says int64 \(int64_list\), the record holds a float_list"),
        (with_state(encoding="bytes"), "holds a float_list"),
    ],
)
def test_features_json_that_lies(change: Any, message: str, tmp_path: Path) -> None:
    path = write("rlds", tmp_path, episodes())
    edit_json(path / "features.json", change)
    with pytest.raises(DatasetError, match=message) as caught:
        opened("rlds", path)[0].load()
    assert caught.value.episode == 0


def test_features_json_with_a_feature_that_records_have_not(tmp_path: Path) -> None:
    path = write("rlds", tmp_path, episodes())
    edit_json(
        path / "features.json",
        lambda c: c["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"]["features"].update(
            {"force": {"tensor": {"shape": {}, "dtype": "float32"}}}
        ),
    )
    with pytest.raises(DatasetError, match=r"steps/force: features.json names it, the record has it not"):
        opened("rlds", path)[0].load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_state(dtype="complex64"), "dtype: expected one of"),
        (with_state(shape={"dimensions": ["x"]}), "shape: expected a whole number"),
        (with_state(shape={"dimensions": ["99999999999", "99999999999"]}), "is no shape of a sample"),
        (with_state(encoding="zip"), "encoding: expected none, bytes or zlib"),
        (lambda c: c["featuresDict"]["features"].pop("steps"), "names no `steps`"),
    ],
)
def test_features_json_that_is_wrong(change: Any, message: str, tmp_path: Path) -> None:
    path = write("rlds", tmp_path, episodes())
    edit_json(path / "features.json", lambda content: (change(content), content)[1])
    with pytest.raises(DatasetError, match=message):
        opened("rlds", path)


def test_integers_that_do_not_fit_their_dtype(tmp_path: Path) -> None:
    path = write("rlds", tmp_path, episodes())
    text = (path / "features.json").read_text()
    (path / "features.json").write_text(text.replace('"int64"', '"uint8"'))
    with pytest.raises(DatasetError, match="does not fit uint8"):
        opened("rlds", path)[0].load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["splits"][0].update(shardLengths=["1", "5"]), r"the file holds 2, dataset_info.json says 5"),
        (lambda c: c["splits"][0].update(filepathTemplate="../{SHARD_X_OF_Y}"), "leads out"),
        (lambda c: c["splits"][0].update(filepathTemplate="{NOPE}"), "unknown placeholders"),
        (lambda c: c["splits"][0].update(fileFormat="array_record"), "'array_record' is not TFRecord"),
        (lambda c: c.update(fileFormat="array_record"), "'array_record' is not TFRecord"),
        (lambda c: c["splits"][0].update(shardLengths=["-3"]), "shardLengths: expected a whole number"),
        (lambda c: c["splits"][0].update(shardLengths=["1", "1e3"]), "shardLengths: expected a whole number"),
        (lambda c: c["splits"][0].update(shardLengths=[1, True]), "shardLengths: expected a whole number"),
        (lambda c: c["splits"][0].update(shardLengths="3"), "shardLengths: expected a list, got str"),
        (lambda c: c["splits"][0].update(filepathTemplate=["a"]), r"filepathTemplate: expected a string, got \['a'\]"),
        (lambda c: c["splits"][0].update(filepathTemplate=0), "filepathTemplate: expected a string, got 0"),
        (lambda c: c["splits"][0].update(filepathTemplate="all"), "two shards are the one file all"),
        (lambda c: c["splits"][0].update(filepathTemplate="\ud800{SHARD_INDEX}"), "holds no Unicode text"),
        (lambda c: c["splits"].append(c["splits"][0]), "splits: 'train' stands twice"),
        (lambda c: c["splits"].append({"name": 1}), "splits: expected objects with a name"),
        (lambda c: c.update(splits=[]), "no TFRecord files are listed"),
        (lambda c: c.update(splits="train"), "splits: expected a list"),
        (lambda c: c.update(name=3), "name: expected a string"),
    ],
)
def test_dataset_info_that_is_wrong(change: Any, message: str, tmp_path: Path) -> None:
    path = write("rlds", tmp_path, episodes())
    edit_json(path / "dataset_info.json", lambda content: (change(content), content)[1])
    with pytest.raises(DatasetError, match=message):
        read_all(opened("rlds", path))


def test_without_dataset_info_the_names_tell(tmp_path: Path) -> None:
    path = write("rlds", tmp_path, episodes())
    (path / "dataset_info.json").unlink()
    dataset = opened("rlds", path)
    assert (dataset.name, [found.length for found in dataset]) == ("synthetic", list(LENGTHS))
    assert [found.name for found in dataset] == ["train/0", "train/1", "train/2"]
    only(path, "*00000-of-00002").unlink()
    with pytest.raises(DatasetError, match=r"missing shards of split 'train': synthetic-train.tfrecord-00000-of-00002"):
        opened("rlds", path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            "synthetic-train.tfrecord-00002-of-00002",
            "expected shards below 2, got synthetic-train.tfrecord-00002-of-00002",
        ),
        ("synthetic-train.tfrecord-00000-of-00001", r"expected one number of shards, got files of \[1, 2\]"),
    ],
)
def test_names_of_shards_that_contradict_each_other(other: str, message: str, tmp_path: Path) -> None:
    path = write("rlds", tmp_path, episodes())
    (path / "dataset_info.json").unlink()
    (path / other).write_bytes(b"")
    with pytest.raises(DatasetError, match=message):
        opened("rlds", path)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("lost", [True, False])
def test_a_count_of_records_that_lies_allocates_nothing(lost: bool, on_error: str, tmp_path: Path) -> None:
    path = write("rlds", tmp_path, episodes())
    if lost:
        only(path, SECOND_SHARD).unlink()
    for count, refused in ((1 << 61, True), (10_000_000, True), (50_000, False)):
        edit_json(path / "dataset_info.json", lambda c, n=count: c["splits"][0].update(shardLengths=["1", str(n)]))
        tracemalloc.start()
        if refused:
            with pytest.raises(
                DatasetError, match=rf"00001-of-00002: dataset_info.json says {count} records, the file"
            ):
                opened("rlds", path, on_error=on_error)
        else:
            dataset = opened("rlds", path, on_error=on_error)
            missing = (0 if lost else 2) if on_error == "skip" else count
            assert len(dataset) == 1 + missing
            assert sum(dataset.skipped.values()) == (count - missing if on_error == "skip" else 0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < (64 if not refused and on_error == "skip" else 4) << 20


def test_text_and_images_that_are_damaged(tmp_path: Path) -> None:
    path = write("rlds", tmp_path, [{**episode(3), "cam": camera(3)}], image_format="png")
    file = only(path, "*.tfrecord*")
    data = file.read_bytes()
    dataset = datasets.open(path, checksums=False, rate=3)
    file.write_bytes(data.replace(b"pick", b"p\xffck"))
    with pytest.raises(DatasetError, match="text is not UTF-8"):
        dataset[0]
    file.write_bytes(data.replace(b"IDAT", b"IDAX"))
    with pytest.raises(DatasetError, match=r"cam: frame 1: image cannot be decoded"):
        datasets.open(path, checksums=False, rate=3)[0].streams["cam"].values[1]
    file.write_bytes(data.replace(b"IHDR\x00\x00\x00\x30", b"IHDR\x00\x0f\xff\xff"))
    with pytest.raises(DatasetError, match=r"expected 32 x 48|cannot be decoded"):
        datasets.open(path, checksums=False, rate=3)[0].streams["cam"].values[0]
