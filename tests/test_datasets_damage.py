"""Damaged datasets: an error that names file and episode, or a skip that is counted. Never wrong numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robocache.datasets import DatasetError

from .dataset_files import (
    LENGTHS,
    camera,
    cut,
    edit_json,
    episode,
    episodes,
    flip,
    only,
    opened,
    replaced,
    rewrite,
    write,
)

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
