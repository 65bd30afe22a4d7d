"""meta/info.json of a LeRobot dataset."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from .._clock import rational_rate
from .._errors import DatasetError
from .._files import read_json_object, whole_number

# Columns that say which frame a row is; they are the clock and the index of the streams, not streams.
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index")
_NUMBERS = ("float16", "float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
_MAX_ELEMENTS = 1 << 40


@dataclass(frozen=True)
class Feature:
    """One entry of info.json's `features`.

    Attributes:
        name: "observation.state", ...
        form: "vector", "image", "video" or "text".
        shape: of one sample, as declared.
        dtype: of the values.
        names: of the columns, where the metadata has as many as there are columns.
        details: info.json's own words on a video.
    """

    name: str
    form: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    names: tuple[str, ...] | None
    details: dict[str, Any]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Info:
    """What meta/info.json says. `unread` lists features whose dtype this reader does not know."""

    root: Path
    file: Path
    version: str
    fps: Fraction
    features: dict[str, Feature]
    unread: tuple[str, ...]
    data_path: Any
    video_path: Any
    chunks_size: int
    splits: dict[str, tuple[int, int]]
    total_episodes: int | None
    total_frames: int | None
    robot_type: str | None


def read_info(root: Path) -> Info:
    """meta/info.json, checked. DatasetError names what is wrong."""
    file = root / "meta" / "info.json"
    content = read_json_object(file)
    version = content.get("codebase_version")
    if not isinstance(version, str):
        raise DatasetError(f"codebase_version: expected a string, got {version!r}", file=file)
    try:
        fps = rational_rate(content.get("fps"), "fps")
    except ValueError as error:
        raise DatasetError(str(error), file=file) from None
    declared = content.get("features")
    if not isinstance(declared, dict):
        raise DatasetError(f"features: expected a JSON object, got {type(declared).__name__}", file=file)
    features = {name: _feature(name, body, file) for name, body in declared.items() if name not in BOOKKEEPING}
    counts = {
        key: whole_number(content[key], key, file=file) if content.get(key) is not None else None
        for key in ("total_episodes", "total_frames")
    }
    robot = content.get("robot_type")
    return Info(
        root=root,
        file=file,
        version=version,
        fps=fps,
        features={name: feature for name, feature in features.items() if feature is not None},
        unread=tuple(name for name, feature in features.items() if feature is None),
        data_path=content.get("data_path"),
        video_path=content.get("video_path"),
        chunks_size=whole_number(content.get("chunks_size", 1000), "chunks_size", file=file, least=1),
        splits=_splits(content.get("splits") or {}, file),
        total_episodes=counts["total_episodes"],
        total_frames=counts["total_frames"],
        robot_type=robot if isinstance(robot, str) else None,
    )


def _feature(name: str, body: Any, file: Path) -> Feature | None:
    if not isinstance(body, dict):
        raise DatasetError(f"features: {name!r}: expected a JSON object, got {type(body).__name__}", file=file)
    dtype, shape = body.get("dtype"), body.get("shape", [])
    if not isinstance(shape, (list, tuple)):
        raise DatasetError(f"features: {name!r}: shape: expected a list, got {shape!r}", file=file)
    sizes = tuple(whole_number(size, f"features: {name!r}: shape", file=file) for size in shape)
    if math.prod(sizes) > _MAX_ELEMENTS:
        raise DatasetError(f"features: {name!r}: shape {list(sizes)} is no shape of a sample", file=file)
    details = body.get("info") or body.get("video_info") or {}
    details = details if isinstance(details, dict) else {}
    if dtype in ("image", "video"):
        return Feature(name, dtype, _channels_last(sizes, body.get("names")), np.dtype(np.uint8), None, details)
    if dtype == "string":
        return Feature(name, "text", (), np.dtype(object), None, details)
    if dtype not in _NUMBERS:
        return None
    names = _flat_names(body.get("names"))
    columns = math.prod(sizes)
    return Feature(
        name, "vector", sizes or (1,), np.dtype(dtype), names if len(names or ()) == columns else None, details
    )


def _channels_last(shape: tuple[int, ...], names: Any) -> tuple[int, ...]:
    """[H, W, C] of an image that may be declared [C, H, W]; frames are always given channels last."""
    if len(shape) != 3:
        return (-1, -1, -1)
    flat = _flat_names(names) or ()
    first_is_channel = flat[0].startswith("channel") if flat else shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4)
    return (shape[1], shape[2], shape[0]) if first_is_channel else shape


def _flat_names(names: Any) -> tuple[str, ...] | None:
    """`names` of a feature: a list, a list in a list, {"motors": [...]}, or {name: column}."""
    if isinstance(names, dict):
        values = list(names.values())
        if values and all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            return tuple(sorted((str(name) for name in names), key=lambda name: names[name]))
        names = values
    if not isinstance(names, (list, tuple)):
        return None
    flat: list[str] = []
    for entry in names:
        inner = entry if isinstance(entry, (list, tuple)) else [entry]
        if not all(isinstance(name, str) for name in inner):
            return None
        flat += inner
    return tuple(flat)


def _splits(content: Any, file: Path) -> dict[str, tuple[int, int]]:
    """{"train": "0:80"} as ranges of episodes."""
    if not isinstance(content, dict):
        raise DatasetError(f"splits: expected a JSON object, got {type(content).__name__}", file=file)
    ranges = {}
    for name, text in content.items():
        match = re.fullmatch(r"(\d{1,12}):(\d{1,12})", text) if isinstance(text, str) else None
        if match is None:
            raise DatasetError(f"splits: {name!r}: expected 'begin:end', got {text!r}", file=file)
        ranges[str(name)] = (int(match[1]), int(match[2]))
    return ranges
