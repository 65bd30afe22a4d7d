"""Small datasets on disk for the tests of robocache.datasets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from examples.write_datasets import write_lerobot_v21, write_lerobot_v30, write_rlds
from robocache import datasets

LENGTHS = (12, 5, 9)
FORMS = ("rlds", "rlds_gzip", "v21", "v30", "v30_one_group")
TASKS = ("pick", "place", "pick")


def episode(length: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "observation.state": rng.normal(size=(length, 7)).astype(np.float32),
        "action": rng.normal(size=(length, 3)).astype(np.float32),
        "count": rng.integers(-5, 2**40, (length, 2)),
        "done": rng.random(length) < 0.5,
    }


def episodes(lengths: tuple[int, ...] = LENGTHS) -> list[dict[str, NDArray[Any]]]:
    return [episode(length, seed) for seed, length in enumerate(lengths)]


def camera(length: int, height: int = 32, width: int = 48) -> NDArray[np.uint8]:
    """Frames that tell their number by their brightness: frame i is 8 * i + 16 all over."""
    frames = np.zeros((length, height, width, 3), np.uint8)
    frames[:] = (8 * np.arange(length) + 16)[:, None, None, None]
    return frames


def write(form: str, folder: Path, content: list[dict[str, NDArray[Any]]], **settings: Any) -> Path:
    """A dataset in one of FORMS."""
    tasks = [TASKS[index % len(TASKS)] for index in range(len(content))]
    if form.startswith("rlds"):
        fps = settings.pop("fps", None)
        del fps
        return write_rlds(
            folder, content, shards=min(2, len(content)), tasks=tasks, compressed="gzip" in form, **settings
        )
    settings = {"fps": 30, **settings}
    if form == "v21":
        return write_lerobot_v21(folder / "v21", content, tasks=tasks, **settings)
    return write_lerobot_v30(
        folder / "v30", content, tasks=tasks, episodes_per_file=2, one_row_group=form == "v30_one_group", **settings
    )


def opened(form: str, path: Path, **settings: Any) -> datasets.Dataset:
    return datasets.open(path, **({"rate": 30} if form.startswith("rlds") else {}), **settings)


def only(folder: Path, pattern: str) -> Path:
    """The first file below a folder that matches."""
    return sorted(folder.rglob(pattern))[0]


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Changes the table of a parquet file."""
    pq.write_table(change(pq.read_table(path)), path)


def replaced(name: str, make: Callable[[pa.Table], Any]) -> Callable[[pa.Table], pa.Table]:
    """The change that gives a table another column."""
    return lambda table: table.set_column(table.column_names.index(name), name, make(table))


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))


def flip(path: Path, position: int, mask: int = 0x40) -> None:
    """Changes one byte of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)


def cut(path: Path, size: int) -> None:
    """Keeps the first bytes of a file (the last where negative: all but so many)."""
    path.write_bytes(path.read_bytes()[:size])
