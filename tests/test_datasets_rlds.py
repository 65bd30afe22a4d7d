"""RLDS in particular: known datasets, encodings, images of other depths, text, metadata of an episode."""

from __future__ import annotations

import io
import json
import pickle
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from examples.write_datasets import encode_example, tfrecord, write_rlds
from robocache import datasets
from robocache.datasets import DatasetError
from robocache.datasets.rlds.rates import known_rate

from .dataset_files import episode


def leaf(dtype: str, *shape: int, **fields: Any) -> dict[str, Any]:
    return {"tensor": {"shape": {"dimensions": [str(size) for size in shape]}, "dtype": dtype, **fields}}


def picture(*shape: int, dtype: str = "uint8") -> dict[str, Any]:
    return {"image": {"shape": {"dimensions": [str(size) for size in shape]}, "dtype": dtype}}


def made(folder: Path, steps: dict[str, Any], record: dict[str, Any], **others: Any) -> datasets.Dataset:
    """A dataset of one record with these step features."""
    place = folder / "made" / "1.0.0"
    place.mkdir(parents=True)
    tree = {"steps": {"sequence": {"feature": {"featuresDict": {"features": steps}}}}, **others}
    (place / "features.json").write_text(json.dumps({"featuresDict": {"features": tree}}))
    (place / "made-train.tfrecord-00000-of-00001").write_bytes(tfrecord(encode_example(record)))
    return datasets.open(place, rate=10)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize("encoding", ["bytes", "zlib"])
def test_encoded_tensors(encoding: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(4, 2, 3))
    data = [row.tobytes() if encoding == "bytes" else zlib.compress(row.tobytes()) for row in values]
    found = made(tmp_path, {"pose": leaf("float64", 2, 3, encoding=encoding)}, {"steps/pose": data})[0]
    assert np.array_equal(found.streams["pose"].values, values.reshape(4, 6))


@pytest.mark.parametrize("data", [b"", b"abc", zlib.compress(bytes(10**7)), zlib.compress(b"x" * 7)])
def test_encoded_tensors_that_are_none(data: bytes, tmp_path: Path) -> None:
    dataset = made(tmp_path, {"pose": leaf("float64", 1, encoding="zlib")}, {"steps/pose": [data]})
    with pytest.raises(DatasetError, match=r"zlib|expected 8 bytes"):
        dataset[0].load()


def test_dtypes_are_those_declared(tmp_path: Path) -> None:
    record = {
        "steps/half": np.float32([0.5, 2]),
        "steps/double": np.float32([0.25, 3]),
        "steps/byte": np.array([0, 255]),
        "steps/negative": np.array([-128, 127]),
        "steps/flag": np.array([0, 1]),
        "steps/class": np.array([3, 4]),
        "steps/matrix": np.arange(8, dtype=np.float32),
    }
    steps = {
        "half": leaf("float16"),
        "double": leaf("float64"),
        "byte": leaf("uint8"),
        "negative": leaf("int8"),
        "flag": leaf("bool"),
        "class": {"classLabel": {"numClasses": "9"}},
        "matrix": leaf("float32", 2, 2),
    }
    streams = made(tmp_path, steps, record)[0].load().streams
    dtypes = {name: str(stream.values.dtype) for name, stream in streams.items()}
    assert dtypes == {
        "half": "float16",
        "double": "float64",
        "byte": "uint8",
        "negative": "int8",
        "flag": "bool",
        "class": "int64",
        "matrix": "float32",
    }
    assert streams["byte"].values.ravel().tolist() == [0, 255]
    assert streams["matrix"].values.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert streams["matrix"].spec.shape == (4,)


def test_images_of_other_depths(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    depth = rng.integers(0, 65536, (5, 6), dtype=np.uint16)
    metres = rng.random((5, 6)).astype(np.float32)
    gray = rng.integers(0, 256, (5, 6), dtype=np.uint8)
    any_size = [rng.integers(0, 256, (size, 6, 3), dtype=np.uint8) for size in (4, 5)]
    steps = {
        "depth": picture(5, 6, 1, dtype="uint16"),
        "metres": picture(5, 6, 1, dtype="float32"),
        "gray": picture(5, 6, 1),
        "any_size": picture(-1, -1, 3),
    }
    record = {
        "steps/depth": [png(depth)] * 2,
        "steps/metres": [png(metres.view(np.uint8).reshape(5, 6, 4))] * 2,
        "steps/gray": [png(gray)] * 2,
        "steps/any_size": [png(frame) for frame in any_size],
    }
    streams = made(tmp_path, steps, record)[0].streams
    assert np.array_equal(streams["depth"].values[0][:, :, 0], depth)
    assert np.array_equal(streams["metres"].values[1][:, :, 0], metres)
    assert np.array_equal(streams["gray"].values[0][:, :, 0], gray)
    assert np.array_equal(streams["any_size"].values[1], any_size[1])
    with pytest.raises(DatasetError, match="any_size: images of one batch differ in size"):
        streams["any_size"].values[:]


def test_text_and_episode_metadata(tmp_path: Path) -> None:
    record = {
        "steps/instruction": [b"pick", "stell es hin, bitte \u2713".encode()],
        "steps/reward": np.float32([0, 1]),
        "episode_metadata/file_path": [b"a/b.npy"],
        "episode_metadata/id": np.array([7]),
        "episode_metadata/pose": np.float32([1, 2, 3]),
    }
    steps = {"instruction": leaf("string", 1), "reward": leaf("float32")}
    metadata = {"file_path": {"text": {}}, "id": leaf("int64"), "pose": leaf("float32", 3)}
    dataset = made(tmp_path, steps, record, episode_metadata={"featuresDict": {"features": metadata}})
    found = dataset[0]
    assert found.text == {
        "instruction": "pick",
        "episode_metadata.file_path": "a/b.npy",
        "episode_metadata.id": "7",
    }
    assert found.streams["instruction"].values[1] == "stell es hin, bitte \u2713"
    assert set(dataset.specs) == {"instruction", "reward"}


def test_ragged_features_are_left_out_and_listed(tmp_path: Path) -> None:
    steps = {
        "reward": leaf("float32"),
        "points": leaf("float32", -1, 3),
        "inner": {"sequence": {"feature": leaf("float32")}},
        "sound": {"audio": {}},
        "words": leaf("string", 2),
        "names": leaf("string", -1),
    }
    dataset = made(tmp_path, steps, {"steps/reward": np.float32([0, 1])})
    assert set(dataset.specs) == {"reward"}
    assert dataset.unread == ["steps/points", "steps/inner", "steps/sound", "steps/words", "steps/names"]  # type: ignore[attr-defined]


def test_streams_that_disagree_on_the_length(tmp_path: Path) -> None:
    steps = {"reward": leaf("float32"), "action": leaf("float32", 2)}
    record = {"steps/reward": np.float32([0, 1, 2]), "steps/action": np.float32([0, 1, 2, 3])}
    with pytest.raises(DatasetError, match=r"steps/action: expected 3 x \[2\] = 6 numbers, got 4"):
        made(tmp_path, steps, record)[0].load()


def test_known_rates() -> None:
    assert known_rate("fractal20220817_data") == 3
    assert known_rate("bridge_dataset") == 5
    assert known_rate("droid") == 15
    assert known_rate("asu_table_top_converted_externally_to_rlds") == Fraction(25, 2)
    assert known_rate("my_own") is None


def test_columns_of_known_datasets(tmp_path: Path) -> None:
    wide = {"observation.state": np.zeros((3, 8), np.float32), "action": np.zeros((3, 7), np.float32)}
    specs = datasets.open(write_rlds(tmp_path, [wide], name="bridge_orig")).specs
    assert specs["observation.state"].kind == (
        (slice(0, 3), "linear"),
        (slice(3, 6), "angle"),
        (slice(6, 7), "previous"),
        (slice(7, 8), "linear"),
    )
    assert specs["action"].kind == "previous"
    pose = {
        "observation.base_pose_tool_reached": np.zeros((3, 7), np.float32),
        "action.world_vector": np.zeros((3, 3), np.float32),
        "observation.gripper_closed": np.zeros((3, 1), np.float32),
    }
    specs = datasets.open(write_rlds(tmp_path, [pose], name="fractal20220817_data")).specs
    assert specs["observation.base_pose_tool_reached"].kind == ((slice(0, 3), "linear"), (slice(3, 7), "slerp_xyzw"))
    assert specs["action.world_vector"].kind == "previous"
    assert specs["observation.gripper_closed"].kind == "previous"
    pose = {"observation.cartesian_position": np.zeros((3, 6), np.float32), **episode(3)}
    specs = datasets.open(write_rlds(tmp_path, [pose], name="droid")).specs
    assert specs["observation.cartesian_position"].kind == ((slice(0, 3), "linear"), (slice(3, 6), "angle"))


def test_an_episode_pickles_after_its_images_were_touched(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
    record = {"steps/cam": [png(frame) for frame in pixels]}
    found = made(tmp_path, {"cam": picture(4, 5, 3)}, record)[0]
    assert np.array_equal(found.streams["cam"].values[1], pixels[1])
    again = pickle.loads(pickle.dumps(found))
    assert np.array_equal(again.streams["cam"].values[:], pixels)


def test_one_file_needs_neither_its_neighbours_nor_dataset_info(tmp_path: Path) -> None:
    record = {"steps/reward": np.float32([0, 1])}
    dataset = made(tmp_path, {"reward": leaf("float32")}, record)
    file = dataset.path / "made-train.tfrecord-00000-of-00001"
    alone = file.rename(file.with_name("made-val.tfrecord-00003-of-00009"))
    assert [found.name for found in datasets.open(alone, rate=10, split="val")] == ["val/0"]
