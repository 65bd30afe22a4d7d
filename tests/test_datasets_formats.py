"""Every format gives back what was written: values, times, text, and the same through pickle, threads and passes."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import pickle
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.write_datasets import write_rlds
from robocache import datasets
from robocache.datasets import DatasetError, _locks

from .dataset_files import FORMS, LENGTHS, TASKS, camera, episode, episodes, opened, write


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def same(found: datasets.Episode, written: dict[str, Any]) -> None:
    assert found.length == len(written["action"])
    for name, array in written.items():
        stream = found.streams[name]
        assert stream.values.dtype == array.dtype
        assert np.array_equal(stream.values, array.reshape(len(array), -1))
        assert len(stream) == len(array)
        assert stream.times.dtype == np.int64
        expected = [frame * found.ticks_per_second // 30 for frame in range(len(array))]
        assert stream.times.tolist() == expected


def test_values_and_times_are_those_written(form: str, tmp_path: Path) -> None:
    content = episodes()
    with opened(form, write(form, tmp_path, content)) as dataset:
        assert len(dataset) == len(content)
        assert dataset.fps == 30
        assert dataset.ticks_per_second == 3 * 10**9 if not form.startswith("rlds") else True
        assert [dataset.length(index) for index in range(len(dataset))] == list(LENGTHS)
        for index, (found, written) in enumerate(zip(dataset, content, strict=True)):
            assert found.index == index
            same(found, written)
            assert (found.text.get("task") or found.text["language_instruction"]) == TASKS[index]
        same(dataset[-1], content[-1])
        assert [part.length for part in dataset[1:]] == list(LENGTHS[1:])
        with pytest.raises(IndexError):
            dataset[len(content)]


def test_images_decode_when_looked_at(form: str, tmp_path: Path) -> None:
    written = {**episode(6), "observation.images.cam": camera(6)}
    settings = {"image_format": "png"} if form.startswith("rlds") else {}
    dataset = opened(form, write(form, tmp_path, [written, written], **settings))
    stream = dataset[1].streams["observation.images.cam"]
    assert stream.spec.modality == "image"
    assert stream.spec.shape == (32, 48, 3)
    frames = stream.values
    assert len(frames) == 6
    assert np.array_equal(frames[2], camera(6)[2])
    assert np.array_equal(frames[-1], camera(6)[5])
    assert np.array_equal(frames[1:4], camera(6)[1:4])
    assert np.array_equal(frames.batch([5, 0, 5]), camera(6)[[5, 0, 5]])
    assert frames.batch([]).shape == (0, 32, 48, 3)
    with pytest.raises(IndexError):
        frames[6]


def test_a_pickled_dataset_reads_in_another_process(form: str, tmp_path: Path) -> None:
    content = episodes()
    dataset = opened(form, write(form, tmp_path, content))
    dataset[0].load()
    assert len(pickle.dumps(dataset)) < 20_000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(_action_of, (dataset, 2))
    assert np.array_equal(found, content[2]["action"])
    same(pickle.loads(pickle.dumps(dataset[1])), content[1])


def _action_of(dataset: datasets.Dataset, index: int) -> Any:
    return dataset[index].streams["action"].values


def test_forked_processes_and_their_parent_read_at_once(form: str, tmp_path: Path) -> None:
    content = episodes((50,) * 6)
    dataset = opened(form, write(form, tmp_path, content))
    dataset[0].load()  # what the parent holds open, its children inherit
    with multiprocessing.get_context("fork").Pool(2) as pool:
        waiting = [pool.apply_async(_action_of, (dataset, index)) for index in range(6)]
        for index in reversed(range(6)):
            assert np.array_equal(dataset[index].streams["action"].values, content[index]["action"])
        for index, result in enumerate(waiting):
            assert np.array_equal(result.get(timeout=60), content[index]["action"])


def test_a_fork_while_another_thread_holds_the_locks(form: str, tmp_path: Path) -> None:
    content = episodes()
    dataset = opened(form, write(form, tmp_path, content))
    dataset[0].load()
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.ExitStack() as stack:
            for lock in list(_locks._locks):
                stack.enter_context(lock)
            held.set()
            forked.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    child = fork.Process(
        target=lambda: theirs.send(_action_of(dataset, 2))
    )  # inherits the dataset, and does not pickle it
    try:
        child.start()
        assert ours.poll(20), "the child waits for a lock that nobody will let go"
    finally:
        forked.set()
        thread.join()
        child.kill()
    assert np.array_equal(ours.recv(), content[2]["action"])


def test_threads_share_a_dataset(form: str, tmp_path: Path) -> None:
    content = episodes((20,) * 8)
    dataset = opened(form, write(form, tmp_path, content))

    def read(order: int) -> None:
        for index in np.random.default_rng(order).permutation(8).tolist():
            same(dataset[index], content[index])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(read, range(12)))


@pytest.mark.parametrize("form", ["rlds", "v21", "v30", "v30_one_group"])
def test_memory_stays_flat_over_ten_passes(form: str, tmp_path: Path) -> None:
    content = [{"action": np.random.default_rng(i).normal(size=(200, 64)).astype(np.float32)} for i in range(6)]
    dataset = opened(form, write(form, tmp_path, content))
    dataset[0].load()  # imports what it needs, which is not what is measured
    import pyarrow

    def one_pass() -> tuple[int, int]:
        for found in dataset:
            found.load()
        gc.collect()
        return tracemalloc.get_traced_memory()[0], pyarrow.total_allocated_bytes()

    tracemalloc.start()
    try:
        one_pass()
        first = one_pass()
        for _ in range(9):
            last = one_pass()
    finally:
        tracemalloc.stop()
    size = sum(found["action"].nbytes for found in content)
    assert last[0] - first[0] < size // 20
    assert last[1] - first[1] < size // 20


def test_reading_does_not_import_torch_or_tensorflow(form: str, tmp_path: Path) -> None:
    path = write(form, tmp_path, episodes())
    code = (
        "import sys\n"
        "from robocache import datasets\n"
        f"[found.load() for found in datasets.open({str(path)!r}, rate=30)]\n"
        "assert not {'torch', 'tensorflow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_open_says_what_it_looked_for(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DatasetError, match=r"features.json.*meta/info.json"):
            datasets.open(path)
    stray = tmp_path / "x-train.tfrecord-00000-of-00001"
    stray.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"no features.json beside it"):
        datasets.open(stray)


def test_open_of_a_path_that_no_system_takes(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read: .*name too long"):
        datasets.open(tmp_path / ("x" * 300))


def test_rlds_parent_folder_and_single_file(tmp_path: Path) -> None:
    content = episodes((4, 5, 6, 7))
    path = write_rlds(tmp_path, content, shards=2)
    newer = path.parent / "1.10.0"
    path.rename(newer)
    write_rlds(tmp_path, content[:1])
    assert datasets.open(path.parent).path == newer  # 1.10.0 is above 1.0.0, though not as text
    second = newer / "synthetic-train.tfrecord-00001-of-00002"
    dataset = datasets.open(second, rate=10)
    assert [found.length for found in dataset] == [6, 7]


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    path = write("v21", tmp_path, episodes())
    for wrong, message in (
        ({"on_error": "ignore"}, "on_error: expected one of 'raise', 'skip', got 'ignore'"),
        ({"format": "hdf5"}, "format: expected one of"),
        ({"split": "val"}, "split: expected one of train, got 'val'"),
        ({"rate": 0}, "rate: expected samples per second"),
        ({"kinds": {"state": "linear"}}, "kinds: expected names of vector streams"),
        ({"kinds": {"action": "slerp_xyzw"}}, "takes whole quaternions"),
        ({"format": "lerobot_v3.0"}, "expected lerobot_v3.0, codebase_version is 'v2.1'"),
    ):
        with pytest.raises(ValueError, match=message):
            datasets.open(path, **wrong)


def test_kinds_and_rate_can_be_given(form: str, tmp_path: Path) -> None:
    path = write(form, tmp_path, episodes())
    dataset = datasets.open(
        path, rate=29.97, kinds={"observation.state": [(slice(3, 7), "slerp_xyzw"), (..., "pchip")]}
    )
    assert dataset.fps == Fraction(30000, 1001)
    assert dataset.specs["observation.state"].kind == ((slice(0, 3), "pchip"), (slice(3, 7), "slerp_xyzw"))
    assert dataset[0].streams["action"].times[3] == 3 * 1001 * dataset.ticks_per_second // 30000
    assert dataset[0].streams["action"].kind == "linear"


def test_splits(tmp_path: Path) -> None:
    path = write("v21", tmp_path, episodes())
    info = path / "meta/info.json"
    info.write_text(info.read_text().replace('"0:3"', '"0:2"'))
    assert len(datasets.open(path, split="train")) == 2
    rlds = write_rlds(tmp_path, episodes())
    assert len(datasets.open(rlds, split="train")) == 3
    with pytest.raises(ValueError, match="split: expected one of train, got 'val'"):
        datasets.open(rlds, split="val")


def test_an_unknown_rate_is_an_error_when_times_are_touched(tmp_path: Path) -> None:
    dataset = datasets.open(write_rlds(tmp_path, episodes()))
    assert dataset.fps is None
    assert dataset[0].streams["action"].values.shape == (12, 3)
    with pytest.raises(DatasetError, match=r"the rate of 'synthetic' is not known: open it with rate="):
        dataset[0].streams["action"].times  # noqa: B018
    known = datasets.open(write_rlds(tmp_path, episodes(), name="droid"))
    assert known.fps == 15


def test_columns_that_are_not_asked_for_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robocache.datasets.lerobot import LeRobotDataset
    from robocache.datasets.lerobot.parquet import ParquetReader

    dataset = opened("v30", write("v30", tmp_path, episodes()))
    assert isinstance(dataset, LeRobotDataset)
    read: list[tuple[int, str]] = []
    group = ParquetReader._group

    def watched(self: ParquetReader, path: Path, number: int, name: str, *, shared: bool) -> Any:
        read.append((number, name))
        return group(self, path, number, name, shared=shared)

    monkeypatch.setattr(ParquetReader, "_group", watched)
    dataset[1].streams["action"].values  # noqa: B018
    assert set(read) == {(1, "frame_index"), (1, "episode_index"), (1, "action")}


@pytest.mark.parametrize(
    ("form", "missing", "extra"),
    [
        ("v21", "pyarrow", "data"),
        ("rlds", "google_crc32c", "data"),
        ("rlds", "PIL", "data"),
        ("v21", "av", "video"),
    ],
)
def test_a_missing_library_names_its_extra(
    form: str, missing: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {**episode(3), "cam": camera(3)}
    path = write(form, tmp_path, [content], **({"video": True} if missing == "av" else {}))
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"pip install robocache\[{extra}\]"):
        opened(form, path)[0].streams["cam"].values[0]
    if missing in ("PIL", "av"):
        opened(form, path)[0].load()
    if missing == "google_crc32c":
        same(opened(form, path, checksums=False)[0], episode(3))
