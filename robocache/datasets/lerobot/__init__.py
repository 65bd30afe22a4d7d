"""LeRobot datasets, v2.1 (one parquet file an episode) and v3.0 (many episodes a file). Read with pyarrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .._errors import DatasetError
from .dataset import LeRobotDataset
from .info import read_info
from .v21 import LeRobotV21
from .v30 import LeRobotV30

__all__ = ["LeRobotDataset", "LeRobotV21", "LeRobotV30", "open_lerobot"]

_READERS: dict[str, type[LeRobotDataset]] = {"v2.0": LeRobotV21, "v2.1": LeRobotV21, "v3.0": LeRobotV30}


def open_lerobot(root: Path, *, expected: str | None, **settings: Any) -> LeRobotDataset:
    """The dataset at `root`, by the codebase_version that meta/info.json names.

    v2.0 differs from v2.1 in its statistics alone, which are not read here.
    """
    info = read_info(root)
    reader = _READERS.get(info.version)
    if reader is None:
        raise DatasetError(
            f"codebase_version: expected one of {', '.join(_READERS)}, got {info.version!r}", file=info.file
        )
    if expected is not None and expected != reader.format:
        raise DatasetError(f"format: expected {expected}, codebase_version is {info.version!r}", file=info.file)
    return reader(info, **settings)
