"""Frames of videos: the very frame that was asked for, in any order."""

from __future__ import annotations

import gc
import json
import os
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest

from examples.write_datasets import write_video
from robocache.datasets import Dataset, DatasetError
from robocache.datasets.inspect import audit

from .dataset_files import camera, cut, episode, only, opened, replaced, rewrite, write

CAMERA = "observation.images.cam"


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers that `camera` drew into frames; coding shifts a brightness by less than half a step."""
    return [round((float(frame.mean()) - 16) / 8) for frame in frames]


def with_video(form: str, folder: Path, lengths: tuple[int, ...], fps: float = 30) -> Dataset:
    content = [{**episode(length), CAMERA: camera(length)} for length in lengths]
    return opened(form, write(form, folder, content, video=True, fps=fps))


@pytest.mark.parametrize("form", ["v21", "v30"])
@pytest.mark.parametrize("fps", [30, 29.97, 12.5])
def test_the_frame_that_was_asked_for(form: str, fps: float, tmp_path: Path) -> None:
    dataset = with_video(form, tmp_path, (20, 11, 7), fps)
    for index, length in enumerate((20, 11, 7)):
        stream = dataset[index].streams[CAMERA]
        assert stream.spec.modality == "video"
        frames = stream.values
        assert len(frames) == len(stream) == length
        assert numbers(frames[:]) == list(range(length))
        order = np.random.default_rng(index).permutation(length).tolist()
        assert [numbers([frames[position]])[0] for position in order] == order
        assert numbers(frames.batch([length - 1, 0, length - 1, 3])) == [length - 1, 0, length - 1, 3]
        assert frames[0].dtype == np.uint8
        assert frames[0].shape == (32, 48, 3)
        assert frames.batch([]).shape == (0, 32, 48, 3)
        halfway = stream.times[2:5] + np.diff(stream.times[:2]) // 2
        assert numbers(frames.batch(stream.index_at(halfway))) == [2, 3, 4]
        with pytest.raises(IndexError):
            frames[length]


def test_frames_survive_pickle(tmp_path: Path) -> None:
    frames = with_video("v30", tmp_path, (9, 9))[1].streams[CAMERA].values
    assert numbers([frames[4]]) == [4]
    again = pickle.loads(pickle.dumps(frames))
    assert numbers(again[2:5]) == [2, 3, 4]


def test_a_missing_video_is_an_error_of_its_stream(tmp_path: Path) -> None:
    dataset = with_video("v21", tmp_path, (6, 6))
    path = only(tmp_path, "episode_000001.mp4")
    path.unlink()
    assert dataset[1].load().streams["action"].values.shape == (6, 3)
    with pytest.raises(DatasetError, match=r"episode 1, .*episode_000001.mp4: missing file"):
        dataset[1].streams[CAMERA].values  # noqa: B018
    assert numbers([dataset[0].streams[CAMERA].values[3]]) == [3]


def test_a_video_that_is_too_short(tmp_path: Path) -> None:
    dataset = with_video("v21", tmp_path, (12,))
    write_video(only(tmp_path, "*.mp4"), camera(8), Fraction(30))
    with pytest.raises(DatasetError, match=r"no frame at 0.267 s \(frame 8 of the episode\); the file holds 8 frames"):
        dataset[0].streams[CAMERA].values  # noqa: B018


@pytest.mark.parametrize("ends", [True, False])
def test_frames_of_the_next_episode_are_not_given(ends: bool, tmp_path: Path) -> None:
    dataset = with_video("v30", tmp_path, (8, 5))
    table = only(tmp_path, "meta/episodes/*/*.parquet")
    write_video(only(tmp_path, "*.mp4"), np.concatenate([camera(6), camera(5)]), Fraction(30))
    rewrite(table, replaced(f"videos/{CAMERA}/from_timestamp", lambda t: pa.array([0, 6 / 30])))
    rewrite(table, replaced(f"videos/{CAMERA}/to_timestamp", lambda t: pa.array([6 / 30, 11 / 30])))
    if not ends:
        rewrite(table, lambda t: t.drop_columns([f"videos/{CAMERA}/to_timestamp"]))
    dataset = opened("v30", dataset.path)
    with pytest.raises(
        DatasetError, match=r"episode 0, .*mp4: no frame at 0.200 s \(frame 6 of the episode\)"
    ) as caught:
        dataset[0].streams[CAMERA].values  # noqa: B018
    assert caught.value.category == "video length"
    assert numbers(dataset[1].streams[CAMERA].values[:]) == list(range(5))


def test_a_video_of_another_size(tmp_path: Path) -> None:
    dataset = with_video("v21", tmp_path, (6,))
    write_video(only(tmp_path, "*.mp4"), camera(6, 16, 16), Fraction(30))
    with pytest.raises(DatasetError, match="expected 32 x 48 .*got 16 x 16"):
        dataset[0].streams[CAMERA].values[0]


@pytest.mark.parametrize("keep", [0, 40, -600])
def test_a_video_that_is_cut_off(tmp_path: Path, keep: int) -> None:
    dataset = with_video("v21", tmp_path, (12,))
    cut(only(tmp_path, "*.mp4"), keep)
    with pytest.raises(DatasetError, match=r"episode 0, .*mp4"):
        dataset[0].streams[CAMERA].values[:]


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    dataset = with_video("v21", tmp_path, (6,))
    only(tmp_path, "*.mp4").write_bytes(b"not a video at all" * 20)
    with pytest.raises(DatasetError, match="cannot be read as video"):
        dataset[0].streams[CAMERA].values[0]


def straight(path: Path) -> list[Any]:
    """A file's frames as the decoder gives them, from first to last."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "SLICE"
        return list(container.decode(video=0))


def test_frames_that_lean_on_damage_are_errors(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    content = [{**episode(32), CAMERA: np.stack([np.roll(pixels, i, 1) for i in range(32)])}]
    path = write("v21", tmp_path, content, video=True)
    file = only(path, "*.mp4")
    whole = opened("v21", path)[0].streams[CAMERA].values[:]
    intact = file.read_bytes()
    for position in range(
        len(intact) // 4, len(intact), 97
    ):  # until one is seen, some frames before the next key frame
        file.write_bytes(intact[:position] + bytes([intact[position] ^ 0x55]) + intact[position + 1 :])
        frames = straight(file)
        first = next((i for i, frame in enumerate(frames) if frame.is_corrupt), 31)
        if len(frames) == 32 and first % 8 in (2, 3, 4) and sum(frame.is_corrupt for frame in frames) == 1:
            break
    else:
        pytest.fail("no damage that the decoder conceals was found")
    dataset = opened("v21", path)
    values = dataset[0].streams[CAMERA].values
    after = next(i for i in range(first + 1, 33) if i == 32 or frames[i].key_frame)
    for number in (first, first + 1, after - 1):
        with pytest.raises(DatasetError, match=r"episode 0, .*mp4: frame with stamp \d+ does not decode"):
            values[number]
    assert np.array_equal(values[after:], whole[after:])
    assert audit(dataset).errors == 0  # stamps alone
    found = [(finding.check, finding.episode, finding.stream) for finding in audit(dataset, decode=True).findings]
    assert ("damaged video", 0, CAMERA) in found


def write_depth(path: Path, codes: np.ndarray, form: str) -> None:
    """Codes [S, H, W] without loss, in a format of one plane."""
    with av.open(str(path), "w", format="matroska") as container:
        stream: Any = container.add_stream("ffv1", rate=Fraction(30))
        stream.height, stream.width, stream.pix_fmt = *codes.shape[1:], form
        for image in codes.astype("u1" if form == "gray" else "<u2"):
            frame = av.VideoFrame(image.shape[1], image.shape[0], form)
            rows = np.zeros((image.shape[0], frame.planes[0].line_size // image.itemsize), image.dtype)
            rows[:, : image.shape[1]] = image
            frame.planes[0].update(rows.tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("flag", ["video.is_depth_map", "is_depth_map"])
@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 16])
def test_depth_comes_as_it_is_coded(bits: int, flag: str, tmp_path: Path) -> None:
    path = with_video("v21", tmp_path, (4,)).path
    info = json.loads((path / "meta/info.json").read_text())
    info["features"][CAMERA].update(shape=[30, 50, 1], info={flag: True})
    (path / "meta/info.json").write_text(json.dumps(info))
    codes = np.random.default_rng(bits).integers(0, 2**bits, (4, 30, 50))
    write_depth(only(path, "*.mp4"), codes, "gray" if bits == 8 else f"gray{bits}le")
    frames = opened("v21", path)[0].streams[CAMERA].values[:]
    assert frames.dtype == np.uint16
    assert np.array_equal(frames[..., 0], codes)


def test_files_close_when_frames_are_let_go(tmp_path: Path) -> None:
    dataset = with_video("v21", tmp_path, (4, 4, 4))
    gc.disable()
    try:
        for index in range(3):
            dataset[index].streams[CAMERA].values[0]
        links = [Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
        assert not [link for link in links if link.is_symlink() and os.readlink(link).endswith(".mp4")]
    finally:
        gc.enable()
