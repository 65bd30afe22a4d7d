"""Damaged datasets: an error that names file and episode, or a skip that is counted. Never wrong numbers."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robocache import datasets
from robocache.datasets import DatasetError

from .dataset_files import LENGTHS, camera, cut, episode, episodes, flip, only, opened, replaced, rewrite, write


def read_all(dataset: datasets.Dataset) -> list[dict[str, np.ndarray]]:
    return [{name: stream.values for name, stream in found.load().streams.items()} for found in dataset]


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))


# --- a file that is damaged: the other episodes stay readable, and skipping counts ---------------------------------

RLDS_SECOND_SHARD = "*00001-of-00002"  # holds episodes 1 and 2; episode 0 lies in the first


def damaged(form: str, folder: Path, how: str) -> Path:
    path = write(form, folder, episodes())
    file = only(path, "episode_000001.parquet" if form == "v21" else RLDS_SECOND_SHARD)
    if how == "missing":
        file.unlink()
    elif how == "flipped":
        flip(file, 60)
    elif how == "cut":
        cut(file, file.stat().st_size // 3)
    elif how == "cut in a header":
        cut(file, 7)
    elif how == "empty":
        cut(file, 0)
    return path


@pytest.mark.parametrize("how", ["missing", "flipped", "cut", "cut in a header", "empty"])
@pytest.mark.parametrize("form", ["rlds", "v21"])
def test_a_damaged_file_is_named(form: str, how: str, tmp_path: Path) -> None:
    dataset = opened(form, damaged(form, tmp_path, how))
    assert len(dataset) == 3
    dataset[0].load()
    with pytest.raises(DatasetError) as caught:
        dataset[1].load()
    assert caught.value.episode == 1
    assert caught.value.file is not None
    assert Path(caught.value.file).name in str(caught.value)
    assert "episode 1" in str(caught.value)


@pytest.mark.parametrize("how", ["missing", "flipped", "cut", "cut in a header", "empty"])
@pytest.mark.parametrize("form", ["rlds", "v21"])
def test_damage_is_skipped_and_counted_where_asked(form: str, how: str, tmp_path: Path) -> None:
    dataset = opened(form, damaged(form, tmp_path, how), on_error="skip")
    for _ in range(2):  # a second pass counts nothing twice
        lengths = [found.length for found in dataset]
        assert lengths in ([12], [12, 9], [12, 5])
        assert 12 in lengths
        assert sum(dataset.skipped.values()) == 3 - len(lengths)
    assert len(dataset.skipped_errors()) == 3 - len(lengths)


def test_a_missing_file_of_v30_is_an_error_of_its_episodes(tmp_path: Path) -> None:
    path = write("v30", tmp_path, episodes())
    only(path, "data/chunk-000/file-001.parquet").unlink()
    dataset = opened("v30", path)
    assert dataset[1].load().length == LENGTHS[1]
    with pytest.raises(DatasetError, match=r"episode 2, .*file-001.parquet: missing file"):
        dataset[2].load()
    skipping = opened("v30", path, on_error="skip")
    assert len(skipping) == 2
    assert skipping.skipped == {"missing file": 1}


# --- values and rows that are not what the metadata says -----------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", ["rlds", "v21", "v30"])
def test_nan_and_inf_are_errors_unless_kept(form: str, value: float, tmp_path: Path) -> None:
    content = episodes()
    content[1]["action"][3, 2] = value
    path = write(form, tmp_path, content)
    with pytest.raises(DatasetError, match=r"action: 1 of 15 values are NaN or Inf, the first at step 3, column 2"):
        opened(form, path)[1].load()
    kept = opened(form, path, nonfinite="keep")[1].streams["action"].values
    assert np.array_equal(kept, content[1]["action"], equal_nan=True)
    skipping = opened(form, path, on_error="skip")
    assert [found.length for found in skipping] == [12, 9]
    assert skipping.skipped == {"not finite": 1}


@pytest.mark.parametrize("form", ["rlds", "v21", "v30"])
def test_an_episode_without_frames(form: str, tmp_path: Path) -> None:
    path = write(form, tmp_path, episodes((4, 0, 3)))
    dataset = opened(form, path)
    assert dataset[0].load().length == 4
    with pytest.raises(DatasetError, match="episode 1, .*has no (steps|frames)"):
        dataset[1]
    skipping = opened(form, path, on_error="skip")
    assert [found.length for found in skipping] == [4, 3]
    assert skipping.skipped == {"empty episode": 1}


def test_an_empty_episode_of_a_split_is_named_by_its_own_number(tmp_path: Path) -> None:
    path = write("v21", tmp_path, episodes((4, 0, 3)))
    edit_json(path / "meta/info.json", said(splits={"late": "1:3"}))
    with pytest.raises(DatasetError, match="episode 1, .*has no frames"):
        opened("v21", path, split="late")[0]


def nested(numbers: pa.DataType) -> pa.DataType:
    return pa.list_(pa.list_(numbers))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.slice(1), "expected 5 rows as the metadata says, got 4"),
        (lambda t: pa.concat_tables([t, t]), "expected 5 rows as the metadata says, got 10"),
        (lambda t: t.drop_columns(["action"]), "has no column 'action'"),
        (lambda t: t.drop_columns(["frame_index"]), "has no column 'frame_index'"),
        (replaced("action", lambda t: pa.array([[1.0, 2.0]] * 5, pa.list_(pa.float32()))), "2 numbers a row"),
        (replaced("action", lambda t: pa.array([[1.0] * 3] * 5, pa.list_(pa.float64()))), "info.json says float32"),
        (replaced("action", lambda t: pa.array([[1.0] * 3] * 4 + [[1.0]], pa.list_(pa.float32()))), "lists of 1 to 3"),
        (replaced("action", lambda t: pa.array([[1.0] * 3] * 4 + [None], pa.list_(pa.float32()))), "1 rows are null"),
        (replaced("action", lambda t: pa.array(["x"] * 5)), "no numbers|numbers a row"),
        (replaced("action", lambda t: pa.array([[[1.0], [2.0], [3.0]]] * 5, nested(pa.float32()))), None),
        (replaced("count", lambda t: pa.array([[[1, 2]]] * 5, nested(pa.int64()))), None),
        (lambda t: t.append_column("action", t["action"]), "expected one column 'action', it has several"),
        (replaced("frame_index", lambda t: pa.array([0, 1, 3, 2, 4])), "frame_index does not rise"),
        (replaced("frame_index", lambda t: pa.array([0, 1, 1, 2, 3])), "frame_index does not rise"),
        (replaced("frame_index", lambda t: pa.array([-1, 0, 1, 2, 3])), "frame_index does not rise"),
        (replaced("frame_index", lambda t: pa.array([0.0, 1, 2, 3, 4])), "the file holds double"),
        (replaced("frame_index", lambda t: pa.array([0, 1, 2, 3, 2**62])), "beyond int64 ticks"),
        (replaced("episode_index", lambda t: pa.array([1, 1, 1, 1, 7])), "episode_index: expected 1, got 7"),
    ],
)
def test_rows_that_are_not_as_said(change: Any, message: str | None, tmp_path: Path) -> None:
    path = write("v21", tmp_path, episodes())
    rewrite(only(path, "episode_000001.parquet"), change)
    dataset = opened("v21", path)
    if message is None:  # axes of length 1 are as good as none
        assert dataset[1].load().streams["action"].values.shape == (5, 3)
        return
    with pytest.raises(DatasetError, match=message) as caught:
        dataset[1].load()
    assert caught.value.episode == 1
    dataset[2].load()


def test_frames_that_were_dropped_keep_their_times(tmp_path: Path) -> None:
    path = write("v21", tmp_path, episodes())
    rewrite(only(path, "episode_000001.parquet"), replaced("frame_index", lambda t: pa.array([0, 1, 5, 6, 9])))
    times = opened("v21", path)[1].streams["action"].times
    assert (times // 10**8).tolist() == [0, 1, 5, 6, 9]


def test_v30_rows_that_are_another_episode(tmp_path: Path) -> None:
    path = write("v30", tmp_path, episodes())
    table = only(path, "meta/episodes/chunk-000/file-000.parquet")
    rewrite(table, replaced("dataset_from_index", lambda t: pa.array([0, 11, 17])))
    dataset = opened("v30", path)
    with pytest.raises(DatasetError, match=r"episode 1, .*rows 11 to 17 are not the 5 frames"):
        dataset[1].load()
    rewrite(table, replaced("dataset_to_index", lambda t: pa.array([12, 16, 26])))
    with pytest.raises(DatasetError, match=r"episode_index: expected 1, got 0"):
        opened("v30", path)[1].load()


NO_UTF8 = pa.array([b"\xff"]).cast(pa.binary()).view(pa.string())  # pyarrow checks only what is cast


def test_tables_of_episodes_with_other_columns(tmp_path: Path) -> None:
    path = write("v30", tmp_path, episodes())
    table = only(path, "meta/episodes/chunk-000/file-000.parquet")
    whole = pq.read_table(table)
    extra = "videos/cam/to_timestamp"
    feature = {"cam": {"dtype": "video", "shape": [32, 48, 3]}}
    edit_json(path / "meta/info.json", lambda content: content["features"].update(feature))
    for name in ("videos/cam/chunk_index", "videos/cam/file_index"):
        whole = whole.append_column(name, pa.array([0] * 3))
    whole = whole.append_column("videos/cam/from_timestamp", pa.array([0.0] * 3))
    for first, second in ((whole.slice(0, 2), whole.slice(2)), (whole.slice(2), whole.slice(0, 2))):
        pq.write_table(first.append_column(extra, pa.array([1.0] * len(first))), table)
        pq.write_table(second, table.with_name("file-001.parquet"))
        with pytest.raises(DatasetError, match=f"file-001.parquet: expected the columns of file-000.parquet, {extra}"):
            opened("v30", path)


def test_tasks_of_episodes_that_are_no_utf8(tmp_path: Path) -> None:
    path = write("v30", tmp_path, episodes())
    table = only(path, "meta/episodes/chunk-000/file-000.parquet")
    tasks = pa.ListArray.from_arrays(pa.array([0, 1, 1, 1], pa.int32()), NO_UTF8)
    rewrite(table, replaced("tasks", lambda t: tasks))
    with pytest.raises(DatasetError, match=r"file-000.parquet: column 'tasks': text is not UTF-8"):
        opened("v30", path)


def test_an_image_path_that_is_no_utf8(tmp_path: Path) -> None:
    path = write("v21", tmp_path, [{**episode(1), "cam": camera(1)}])
    images = pa.StructArray.from_arrays([pa.array([None], pa.binary()), NO_UTF8], ["bytes", "path"])
    rewrite(only(path, "*.parquet"), replaced("cam", lambda t: images))
    with pytest.raises(DatasetError, match=r"episode 0, .*parquet: cam: .*row 0: path of an image is not UTF-8"):
        opened("v21", path)[0].streams["cam"].values[0]


def test_a_path_that_no_system_takes(tmp_path: Path) -> None:
    path = write("v21", tmp_path, episodes())
    edit_json(path / "meta/info.json", said(data_path="x" * 300 + "{episode_index}"))
    with pytest.raises(DatasetError, match=r"episode 0, .*x0: cannot be read: .*name too long"):
        opened("v21", path)[0].load()
    assert len(opened("v21", path, on_error="skip")) == 0


# --- metadata ------------------------------------------------------------------------------------------------------


def said(**fields: Any) -> Callable[[Any], Any]:
    return lambda content: {**content, **fields}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (said(codebase_version="v9"), "codebase_version: expected one of v2.0, v2.1, v3.0, got 'v9'"),
        (said(codebase_version=None), "codebase_version: expected a string, got None"),
        (said(fps=0), "fps: expected samples per second"),
        (said(fps="30"), "fps: expected samples per second"),
        (said(features=[]), "features: expected a JSON object, got list"),
        (said(features={"a": {"dtype": "float32", "shape": [-1]}}), "whole number from 0, got -1"),
        (said(features={"a": {"dtype": "float32", "shape": [10**9, 10**9]}}), "is no shape of a sample"),
        (said(features={"a": {"dtype": "float32", "shape": "3"}}), "shape: expected a list"),
        (said(splits={"train": "all"}), "splits: 'train': expected 'begin:end'"),
        (said(chunks_size=0), "chunks_size: expected a whole number from 1"),
        (lambda content: [content], "expected a JSON object, got list"),
    ],
)
def test_info_json_that_is_wrong(change: Any, message: str, tmp_path: Path) -> None:
    path = write("v21", tmp_path, episodes())
    edit_json(path / "meta/info.json", change)
    with pytest.raises(DatasetError, match=message) as caught:
        opened("v21", path)
    assert "info.json" in str(caught.value)


@pytest.mark.parametrize(
    "template",
    [
        "../../{episode_index}.parquet",
        "/etc/passwd",
        "data/{episode_index.__class__}",
        "data/{episode_index:999999999d}",
        "data/{episode_index!r}",
        "data/{0}",
        "data/{unknown}",
        "data/{episode_index",
        "data\\..\\{episode_index}",
        "",
        7,
    ],
)
@pytest.mark.parametrize("form", ["v21", "v30"])
def test_path_templates_that_leave_the_folder_are_refused(form: str, template: Any, tmp_path: Path) -> None:
    path = write(form, tmp_path, episodes())
    field = template.replace("episode_index", "file_index") if form == "v30" and isinstance(template, str) else template
    edit_json(path / "meta/info.json", said(data_path=field))
    if template == "":  # as if it were not there: the format's own default is taken
        assert opened(form, path)[0].load().length == 12
        return
    with pytest.raises(DatasetError, match="path"):
        opened(form, path)[0].load()


def test_a_camera_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    path = write("v21", tmp_path, [{**episode(3), "cam": camera(3)}], video=True)
    feature = json.loads((path / "meta/info.json").read_text())["features"]["cam"]
    edit_json(path / "meta/info.json", lambda content: content["features"].update({"../../..": feature}))
    with pytest.raises(DatasetError, match="leads out of the dataset's folder"):
        opened("v21", path)[0].streams["../../.."].values  # noqa: B018


def test_an_image_path_cannot_leave_the_folder(tmp_path: Path) -> None:
    path = write("v21", tmp_path, [{**episode(2), "cam": camera(2)}])
    (tmp_path / "secret.png").write_bytes(b"secret")
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    for outside in ("../secret.png", str(tmp_path / "secret.png"), "missing.png"):
        rewrite(
            only(path, "*.parquet"),
            replaced("cam", lambda t, outside=outside: pa.array([{"bytes": None, "path": outside}] * 2, kind)),
        )
        images = opened("v21", path)[0].streams["cam"].values
        for read in (images.batch, lambda positions, images=images: images.encoded(positions[0])):
            with pytest.raises(DatasetError, match=r"episode 0, .*parquet: cam: row 1: image.*(leads out|missing.png)"):
                read([1])


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100_000, b"\xff\xfe{}", b"null", b"[]", b'{"a": NaN'])
@pytest.mark.parametrize("file", ["features.json", "dataset_info.json", "meta/info.json", "meta/episodes.jsonl"])
def test_metadata_that_is_no_json(file: str, data: bytes, tmp_path: Path) -> None:
    form = "v21" if "meta" in file else "rlds"
    path = write(form, tmp_path, episodes())
    (path / file).write_bytes(data)
    if file == "meta/episodes.jsonl" and data == b"":
        assert len(opened(form, path)) == 0
        return
    with pytest.raises(DatasetError) as caught:
        opened(form, path)
    assert Path(file).name in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"episode_index": 0, "length": 3}', "line 4: episode 0 stands twice"),
        ('{"episode_index": -1, "length": 3}', "line 4: episode_index: expected a whole number from 0, got -1"),
        ('{"episode_index": 9, "length": 2.5}', "line 4: length: expected a whole number from 0, got 2.5"),
        ('{"episode_index": 9, "length": 3, "tasks": [1]}', "line 4: tasks: expected a list of text"),
    ],
)
def test_episodes_jsonl_that_is_wrong(line: str, message: str, tmp_path: Path) -> None:
    path = write("v21", tmp_path, episodes())
    file = path / "meta/episodes.jsonl"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(DatasetError, match=message):
        opened("v21", path)


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
        only(path, RLDS_SECOND_SHARD).unlink()
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
