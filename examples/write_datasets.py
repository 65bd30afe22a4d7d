"""Synthetic robot datasets on disk, in the forms that robocache.datasets reads. For tests, examples and benchmarks.

An episode is a mapping of stream name to array [S, D] (or [S]); uint8 [S, H, W, 3] is a camera. Text is a task an
episode. Writers take any sequence of episodes and hold one at a time.

    write_rlds(folder, episodes, name="synthetic")        TFRecord shards with checksums, and their metadata
    write_lerobot_v21(folder, episodes, fps=30)           one parquet file an episode
    write_lerobot_v30(folder, episodes, fps=30)           many episodes a file
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import struct
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robocache.datasets.rlds.tfrecord import masked_crc32c

Episode = Mapping[str, NDArray[Any]]


def write_rlds(
    folder: Path,
    episodes: Sequence[Episode],
    *,
    name: str = "synthetic",
    split: str = "train",
    shards: int = 1,
    tasks: Sequence[str] | None = None,
    image_format: str = "jpeg",
    compressed: bool = False,
) -> Path:
    """Writes <folder>/<name>/1.0.0; returns that path. `compressed` makes each file one gzip stream."""
    place = folder / name / "1.0.0"
    place.mkdir(parents=True, exist_ok=True)
    bounds = np.linspace(0, len(episodes), shards + 1).astype(int)
    for shard, (begin, end) in enumerate(itertools.pairwise(bounds)):
        path = place / f"{name}-{split}.tfrecord-{shard:05d}-of-{shards:05d}"
        with gzip.open(path, "wb") if compressed else open(path, "wb") as file:
            for index in range(begin, end):
                task = tasks[index] if tasks else "do the task"
                file.write(tfrecord(encode_example(_rlds_features(episodes[index], task, image_format))))
    first = episodes[0]
    steps = {stream: _feature_json(array, image_format) for stream, array in first.items()}
    steps["language_instruction"] = {"pythonClassName": "Text", "text": {}}
    tree = {"steps": {"sequence": {"feature": _nested(steps), "length": "-1"}}}
    _write_json(place / "features.json", {"featuresDict": {"features": tree}})
    info_split = {
        "name": split,
        "shardLengths": [str(end - begin) for begin, end in itertools.pairwise(bounds)],
    }
    _write_json(
        place / "dataset_info.json",
        {"name": name, "version": "1.0.0", "fileFormat": "tfrecord", "splits": [info_split]},
    )
    return place


def tfrecord(data: bytes) -> bytes:
    """A record: length, its checksum, data, its checksum."""
    length = struct.pack("<Q", len(data))
    return b"".join([length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data))])


def encode_example(features: Mapping[str, Any]) -> bytes:
    """A tf.train.Example: floats as float_list, integers and booleans as int64_list, lists of bytes as bytes_list."""
    entries = []
    for key, value in features.items():
        feature = _message(1, key.encode()) + _message(2, _feature(value))
        entries.append(_message(1, feature))
    return _message(1, b"".join(entries))


def encode_varints(values: NDArray[Any]) -> bytes:
    """Packed varints of integers."""
    left = values.astype(np.int64).ravel().view(np.uint64)
    if not left.size:
        return b""
    if int(left.max()) < 0x80:
        return left.astype(np.uint8).tobytes()
    columns, more = [], np.ones(left.size, bool)
    used = []
    while more.any():
        low = (left & np.uint64(0x7F)).astype(np.uint8)
        left = left >> np.uint64(7)
        again = left > 0
        columns.append(low | (again.astype(np.uint8) << 7))
        used.append(more)
        more = more & again
    return np.stack(columns, 1)[np.stack(used, 1)].tobytes()


def _feature(value: Any) -> bytes:
    if isinstance(value, list):
        return _message(1, b"".join(_message(1, item) for item in value))
    array = np.asarray(value)
    if array.dtype.kind == "f":
        return _message(2, _message(1, array.astype("<f4").tobytes()))
    return _message(3, _message(1, encode_varints(array)))


def _message(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _rlds_features(episode: Episode, task: str, image_format: str) -> dict[str, Any]:
    length = len(next(iter(episode.values())))
    features: dict[str, Any] = {}
    for stream, array in episode.items():
        key = f"steps/{stream.replace('.', '/')}"
        features[key] = [encode_image(frame, image_format) for frame in array] if array.ndim == 4 else array
    features["steps/language_instruction"] = [task.encode()] * length
    return features


def _feature_json(array: NDArray[Any], image_format: str) -> dict[str, Any]:
    shape = {"dimensions": [str(size) for size in array.shape[1:]]}
    if array.ndim == 4:
        return {"pythonClassName": "Image", "image": {"shape": shape, "dtype": "uint8", "encodingFormat": image_format}}
    return {"pythonClassName": "Tensor", "tensor": {"shape": shape, "dtype": str(array.dtype), "encoding": "none"}}


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """features.json of "observation.state": dictionaries in dictionaries."""
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        node = tree
        *parents, last = name.split(".")
        for parent in parents:
            node = node.setdefault(parent, {"featuresDict": {"features": {}}})["featuresDict"]["features"]
        node[last] = leaf
    return {"featuresDict": {"features": tree}}


def encode_image(frame: NDArray[np.uint8], image_format: str = "png") -> bytes:
    """A frame [H, W, 3] as PNG or JPEG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, image_format)
    return buffer.getvalue()


def write_video(path: Path, frames: NDArray[np.uint8], fps: Fraction, *, codec: str = "libx264", gop: int = 8) -> None:
    """Frames [S, H, W, 3] as a video with stamps of exactly i / fps."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps, options={"g": str(gop), "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_lerobot_v21(
    folder: Path,
    episodes: Sequence[Episode],
    *,
    fps: Any,
    tasks: Sequence[str] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    video: bool = False,
) -> Path:
    """Writes a LeRobot v2.1 dataset into `folder`; cameras become videos, or images in the parquet file."""
    import pyarrow.parquet as pq

    task_names = list(tasks or ["do the task"] * len(episodes))
    table = sorted(set(task_names))
    rows, first = [], 0
    for index, episode in enumerate(episodes):
        columns, cameras = _columns(episode, video)
        length = len(next(iter(episode.values())))
        path = folder / f"data/chunk-{index // 1000:03d}/episode_{index:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        task = table.index(task_names[index])
        pq.write_table(_arrow_table(columns, index, first, length, fps, task), path, write_page_checksum=True)
        for camera, frames in cameras.items():
            place = folder / f"videos/chunk-{index // 1000:03d}/{camera}/episode_{index:06d}.mp4"
            write_video(place, frames, Fraction(fps).limit_denominator(1001))
        rows.append({"episode_index": index, "tasks": [task_names[index]], "length": length})
        first += length
    _write_lines(folder / "meta/episodes.jsonl", rows)
    _write_lines(folder / "meta/tasks.jsonl", [{"task_index": i, "task": task} for i, task in enumerate(table)])
    paths = {
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    _write_info(folder, "v2.1", episodes[0], names, video, fps, len(episodes), first, paths)
    return folder


def write_lerobot_v30(
    folder: Path,
    episodes: Sequence[Episode],
    *,
    fps: Any,
    tasks: Sequence[str] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    video: bool = False,
    episodes_per_file: int = 100,
    one_row_group: bool = False,
) -> Path:
    """Writes a LeRobot v3.0 dataset into `folder`. A row group an episode, as LeRobot records; or one a file, as its
    converter from v2.1 writes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    task_names = list(tasks or ["do the task"] * len(episodes))
    table = sorted(set(task_names))
    rows: list[dict[str, Any]] = []
    first = 0
    for file, begin in enumerate(range(0, len(episodes), episodes_per_file)):
        tables: list[Any] = []
        videos: dict[str, list[NDArray[Any]]] = {}
        seconds = Fraction(0)
        path = folder / f"data/chunk-000/file-{file:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        for index in range(begin, min(begin + episodes_per_file, len(episodes))):
            columns, cameras = _columns(episodes[index], video)
            length = len(next(iter(episodes[index].values())))
            tables.append(_arrow_table(columns, index, first, length, fps, table.index(task_names[index])))
            row = {
                "episode_index": index,
                "tasks": [task_names[index]],
                "length": length,
                "data/chunk_index": 0,
                "data/file_index": file,
                "dataset_from_index": first,
                "dataset_to_index": first + length,
            }
            duration = length / Fraction(fps).limit_denominator(1001)
            for camera, frames in cameras.items():
                videos.setdefault(camera, []).append(frames)
                row[f"videos/{camera}/chunk_index"], row[f"videos/{camera}/file_index"] = 0, file
                row[f"videos/{camera}/from_timestamp"] = float(seconds)
                row[f"videos/{camera}/to_timestamp"] = float(seconds + duration)
            rows.append(row)
            first, seconds = first + length, seconds + duration
        with pq.ParquetWriter(path, tables[0].schema, write_page_checksum=True) as writer:
            for part in [pa.concat_tables(tables)] if one_row_group else tables:
                writer.write_table(part, row_group_size=max(len(part), 1))
        for camera, parts in videos.items():
            place = folder / f"videos/{camera}/chunk-000/file-{file:03d}.mp4"
            write_video(place, np.concatenate(parts), Fraction(fps).limit_denominator(1001))
    meta = folder / "meta/episodes/chunk-000"
    meta.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), meta / "file-000.parquet")
    pq.write_table(
        pa.table({"task_index": pa.array(range(len(table)), pa.int64()), "task": table}), folder / "meta/tasks.parquet"
    )
    paths = {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    _write_info(folder, "v3.0", episodes[0], names, video, fps, len(episodes), first, paths)
    return folder


def _columns(episode: Episode, video: bool) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """(columns of the parquet file, cameras that become videos)."""
    cameras = {name: array for name, array in episode.items() if array.ndim == 4 and video}
    return {name: array for name, array in episode.items() if name not in cameras}, cameras


def _arrow_table(columns: Mapping[str, NDArray[Any]], index: int, first: int, length: int, fps: Any, task: int) -> Any:
    import pyarrow as pa

    arrays = {name: _arrow_column(array) for name, array in columns.items()}
    frames = np.arange(length)
    arrays["timestamp"] = pa.array((frames / float(fps)).astype(np.float32))
    arrays["frame_index"] = pa.array(frames)
    arrays["episode_index"] = pa.array(np.full(length, index))
    arrays["index"] = pa.array(frames + first)
    arrays["task_index"] = pa.array(np.full(length, task))
    return pa.table(arrays)


def _arrow_column(array: NDArray[Any]) -> Any:
    import pyarrow as pa

    if array.ndim == 4:
        kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        return pa.array([{"bytes": encode_image(frame), "path": None} for frame in array], kind)
    if array.ndim == 1 or array.shape[1:] == (1,):
        return pa.array(array.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])


def _write_info(
    folder: Path,
    version: str,
    episode: Episode,
    names: Mapping[str, Sequence[str]] | None,
    video: bool,
    fps: Any,
    episodes: int,
    frames: int,
    paths: Mapping[str, str],
) -> None:
    features: dict[str, Any] = {}
    for name, array in episode.items():
        if array.ndim == 4:
            form, labels = "video" if video else "image", ["height", "width", "channels"]
            features[name] = {"dtype": form, "shape": list(array.shape[1:]), "names": labels}
        else:
            shape = list(array.shape[1:]) or [1]
            features[name] = {
                "dtype": str(array.dtype),
                "shape": shape,
                "names": list((names or {}).get(name, [])) or None,
            }
    for name, dtype in (
        ("timestamp", "float32"),
        *((key, "int64") for key in ("frame_index", "episode_index", "index", "task_index")),
    ):
        features[name] = {"dtype": dtype, "shape": [1], "names": None}
    content = {
        "codebase_version": version,
        "robot_type": "synthetic",
        "total_episodes": episodes,
        "total_frames": frames,
        "chunks_size": 1000,
        "fps": fps,
        "splits": {"train": f"0:{episodes}"},
        **paths,
        "features": features,
    }
    _write_json(folder / "meta/info.json", content)


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2))


def _write_lines(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
