"""LeRobot in particular: names in every form, images by path, text columns, pandas' task tables, several chunks."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from examples.write_datasets import encode_image, write_lerobot_v21, write_lerobot_v30
from robocache import datasets
from robocache.datasets import DatasetError
from robocache.datasets.lerobot import LeRobotV21, LeRobotV30, parquet

from .dataset_files import camera, episode, episodes, only, opened, replaced, rewrite, write


def with_feature(path: Path, name: str, **fields: Any) -> Path:
    """Changes one feature of info.json."""
    file = path / "meta/info.json"
    content = json.loads(file.read_text())
    content["features"].setdefault(name, {}).update(fields)
    file.write_text(json.dumps(content))
    return path


NAMES = ["x", "y", "z", "qx", "qy", "qz", "qw"]
POSE = ((slice(0, 3), "linear"), (slice(3, 7), "slerp_xyzw"))


@pytest.mark.parametrize(
    "names",
    [NAMES, [NAMES], {"motors": NAMES}, {"left": NAMES[:3], "right": NAMES[3:]}, {n: i for i, n in enumerate(NAMES)}],
)
def test_names_in_every_form(names: Any, tmp_path: Path) -> None:
    path = with_feature(write("v21", tmp_path, episodes()), "observation.state", names=names)
    spec = opened("v21", path).specs["observation.state"]
    assert spec.column_names == tuple(NAMES)
    assert spec.kind == POSE


@pytest.mark.parametrize("names", [None, ["x"], [1, 2], {"a": 1.5}, "xyz", [["x"], [2]]])
def test_names_that_do_not_fit_are_left_out(names: Any, tmp_path: Path) -> None:
    path = with_feature(write("v21", tmp_path, episodes()), "observation.state", names=names)
    spec = opened("v21", path).specs["observation.state"]
    assert (spec.column_names, spec.kind) == (None, "linear")


def test_a_column_whose_name_begins_another(tmp_path: Path) -> None:
    content = {"action.delta": np.float32([[1, 2]] * 4), "action": np.float32([[3, 4]] * 4)}
    for form in ("v21", "v30"):
        found = opened(form, write(form, tmp_path, [content]))[0]
        assert found.streams["action"].values.tolist() == [[3, 4]] * 4
        assert found.streams["action.delta"].values.tolist() == [[1, 2]] * 4


def test_tensors_in_lists_and_in_extension_types(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    flat = values.reshape(4, 6)
    path = write("v21", tmp_path, [{"pose": flat}])
    with_feature(path, "pose", shape=[2, 3])
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(values)
    for column in (pa.array(values.tolist(), pa.list_(pa.list_(pa.float32()))), tensors):
        rewrite(only(path, "*.parquet"), replaced("pose", lambda t, column=column: column))
        assert np.array_equal(opened("v21", path)[0].streams["pose"].values, flat)
        with_feature(path, "pose", shape=[3, 2])
        if column is not tensors:  # a fixed shape tensor is stored flat
            with pytest.raises(DatasetError, match=r"episode 0, .*'pose': lists of \[2, 3\], info.json says \[3, 2\]"):
                opened("v21", path)[0].load()
        with_feature(path, "pose", shape=[2, 3])
    turned = pa.FixedShapeTensorArray.from_numpy_ndarray(
        np.ascontiguousarray(values.transpose(0, 2, 1)).transpose(0, 2, 1)
    )
    rewrite(only(path, "*.parquet"), replaced("pose", lambda t: turned))
    with pytest.raises(DatasetError, match="expected tensors in row-major order"):
        opened("v21", path)[0].load()


def test_a_column_larger_than_the_cache_leaves_the_others_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"small": np.arange(10), "large": [b"x" * 100] * 10}), file)
    monkeypatch.setattr(parquet, "_KEPT_BYTES", 500)
    reader = parquet.ParquetReader()
    small = reader.column(file, "small", 0, 5)
    assert reader.column(file, "large", 0, 5).to_pylist() == [b"x" * 100] * 5
    assert reader.column(file, "small", 0, 5).buffers()[1].address == small.buffers()[1].address


def test_text_columns_and_unknown_dtypes(tmp_path: Path) -> None:
    path = write("v21", tmp_path, [episode(3)])
    file = only(path, "*.parquet")
    pq.write_table(pq.read_table(file).append_column("note", pa.array(["a", "b", "\u2713"])), file)
    with_feature(path, "note", dtype="string", shape=[1])
    with_feature(path, "sound", dtype="audio", shape=[1])
    dataset = opened("v21", path)
    assert dataset[0].streams["note"].values == ["a", "b", "\u2713"]
    assert dataset.specs["note"].modality == "text"
    assert "sound" not in dataset.specs
    assert isinstance(dataset, LeRobotV21)
    assert dataset.info.unread == ("sound",)


@pytest.mark.parametrize(("shape", "names"), [([3, 32, 48], None), ([3, 32, 48], ["channels", "height", "width"])])
def test_images_declared_channels_first_come_channels_last(shape: list[int], names: Any, tmp_path: Path) -> None:
    path = write("v21", tmp_path, [{**episode(3), "cam": camera(3)}])
    with_feature(path, "cam", shape=shape, names=names)
    dataset = opened("v21", path)
    assert dataset.specs["cam"].shape == (32, 48, 3)
    assert np.array_equal(dataset[0].streams["cam"].values[1], camera(3)[1])


def test_images_by_path(tmp_path: Path) -> None:
    path = write("v21", tmp_path, [{**episode(3), "cam": camera(3)}])
    for frame, pixels in enumerate(camera(3)):
        image = path / f"images/cam/frame_{frame}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(encode_image(pixels))
    file = only(path, "*.parquet")
    table = pq.read_table(file)
    rows = [{"bytes": None, "path": f"images/cam/frame_{frame}.png"} for frame in range(3)]
    pq.write_table(table.set_column(table.column_names.index("cam"), "cam", pa.array(rows, table["cam"].type)), file)
    assert np.array_equal(opened("v21", path)[0].streams["cam"].values[:], camera(3))


def test_an_image_of_another_size(tmp_path: Path) -> None:
    path = write("v21", tmp_path, [{**episode(3), "cam": camera(3)}])
    with_feature(path, "cam", shape=[16, 48, 3])
    with pytest.raises(DatasetError, match=r"episode 0, .*cam: frame 0: image: expected 16 x 48"):
        opened("v21", path)[0].streams["cam"].values[0]


def test_tables_of_tasks(tmp_path: Path) -> None:
    v21, v30 = (opened(form, write(form, tmp_path, episodes())) for form in ("v21", "v30"))
    assert isinstance(v21, LeRobotV21)
    assert isinstance(v30, LeRobotV30)
    assert v21.task_table() == v30.task_table() == {0: "pick", 1: "place"}
    file = v30.path / "meta/tasks.parquet"
    table = pq.read_table(file)
    pq.write_table(table.rename_columns(["task_index", "__index_level_0__"]), file)  # as pandas writes its index
    assert v30.task_table() == {0: "pick", 1: "place"}
    pq.write_table(table.rename_columns(["task_index", "words"]), file)
    with pytest.raises(DatasetError, match="neither a column 'task' nor an index"):
        v30.task_table()


def test_several_tasks_in_one_episode(tmp_path: Path) -> None:
    path = write("v21", tmp_path, episodes())
    file = path / "meta/episodes.jsonl"
    file.write_text(file.read_text().replace('["place"]', '["place", "pick"]'))
    assert opened("v21", path)[1].text["task"] == "place; pick"


def test_version_2_0_is_read_as_2_1(tmp_path: Path) -> None:
    path = write("v21", tmp_path, episodes())
    info = path / "meta/info.json"
    info.write_text(info.read_text().replace("v2.1", "v2.0"))
    assert [found.length for found in opened("v21", path)] == [12, 5, 9]


def test_chunks_and_templates_of_ones_own(tmp_path: Path) -> None:
    path = write("v21", tmp_path, episodes())
    info = path / "meta/info.json"
    content = json.loads(info.read_text())
    content.update(chunks_size=2, data_path="parts/{episode_chunk}/e{episode_index:02d}.parquet")
    info.write_text(json.dumps(content))
    for index, place in enumerate(("0/e00", "0/e01", "1/e02")):
        target = path / f"parts/{place}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        (path / f"data/chunk-000/episode_{index:06d}.parquet").rename(target)
    assert [found.load().length for found in opened("v21", path)] == [12, 5, 9]


def test_the_table_of_episodes_in_several_files(tmp_path: Path) -> None:
    path = write_lerobot_v30(tmp_path, episodes(), fps=29.97, episodes_per_file=1)
    file = only(path, "meta/episodes/chunk-000/file-000.parquet")
    table = pq.read_table(file)
    pq.write_table(table.slice(0, 1), file)
    pq.write_table(table.slice(1), file.with_name("file-001.parquet"))
    dataset = datasets.open(path)
    assert dataset.fps == Fraction(30000, 1001)
    assert [found.load().length for found in dataset] == [12, 5, 9]
    pq.write_table(table.slice(0, 2), file)
    with pytest.raises(DatasetError, match="an episode stands twice"):
        datasets.open(path)


@pytest.mark.parametrize("rows", [1, 4, 7, 100])
def test_row_groups_that_cut_episodes(rows: int, tmp_path: Path) -> None:
    content = episodes()
    path = write_lerobot_v30(tmp_path, content, fps=30)
    file = only(path, "data/chunk-000/file-000.parquet")
    pq.write_table(pq.read_table(file), file, row_group_size=rows)
    for found, written in zip(datasets.open(path), content, strict=True):
        for name, array in written.items():
            assert np.array_equal(found.streams[name].values, array.reshape(len(array), -1))


def test_links_are_followed(tmp_path: Path) -> None:
    """Download caches hold links to files elsewhere."""
    path = write_lerobot_v21(tmp_path / "set", episodes(), fps=30)
    for file in path.rglob("*.parquet"):
        stored = tmp_path / "blobs" / file.name
        stored.parent.mkdir(exist_ok=True)
        file.rename(stored)
        file.symlink_to(stored)
    assert [found.load().length for found in datasets.open(path)] == [12, 5, 9]
