"""`open`: which format lies at a path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._kinds import Kind
from ._episode import Dataset
from ._errors import DatasetError
from .rlds.shards import FEATURES, INFO

NO_DATASET = "no dataset"  # the category of errors that mean a wrong path
FORMATS = ("rlds", "lerobot_v2.1", "lerobot_v3.0")
_LOOKED_FOR = (
    f"RLDS: {FEATURES} in the folder, in a version folder below it (1.0.0), or beside a TFRecord file; "
    "LeRobot v2.1 and v3.0: meta/info.json"
)
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def open(  # noqa: A001 - robocache.datasets.open, as os.open and gzip.open
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002
    split: str | None = None,
    on_error: str = "raise",
    kinds: Mapping[str, Kind] | None = None,
    rate: Any = None,
    nonfinite: str = "raise",
    checksums: bool = True,
) -> Dataset:
    """Opens a robot dataset as it lies on disk. Reads metadata; episodes are read when they are touched.

    Args:
        path: an RLDS version folder, its parent (the highest version is taken), or one TFRecord file with features.json
            beside it; or a LeRobot folder with meta/info.json.
        format: "rlds", "lerobot_v2.1" or "lerobot_v3.0"; None finds out.
        split: only this split; None takes all that the metadata lists, in its order.
        on_error: "raise": touching an episode that is missing or damaged raises DatasetError. "skip": episodes that are
            missing are left out, iterating passes over damaged ones, and `Dataset.skipped` counts both.
        kinds: kinds by stream name, instead of those told by the metadata; as in `robocache.Stream`.
        rate: steps a second, instead of what the metadata or the table of RLDS rates says: a whole number, a Fraction
            or a float (29.97 means 30000/1001).
        nonfinite: "raise" makes NaN and Inf in values an error, "keep" lets them through.
        checksums: RLDS: check every record's CRC-32C (needs google-crc32c).

    Returns:
        A Dataset.

    Raises:
        DatasetError: there is no dataset, or its metadata is damaged. The message lists what was looked for.
        ValueError: a wrong argument.

    Example:
        >>> with robocache.datasets.open("bridge_dataset/1.0.0") as ds:
        ...     state = ds[0].streams["observation.state"]
        ...     state.values.shape, state.times[:3] / ds.ticks_per_second
    """
    for name, value, allowed in (
        ("format", format, (None, *FORMATS)),
        ("on_error", on_error, ("raise", "skip")),
        ("nonfinite", nonfinite, ("raise", "keep")),
    ):
        if value not in allowed:
            raise ValueError(f"{name}: expected one of {', '.join(map(repr, allowed))}, got {value!r}")
    place = Path(path)
    try:
        if not place.exists():
            raise DatasetError(f"there is nothing here. Looked for {_LOOKED_FOR}", file=place, category=NO_DATASET)
        lerobot = _is_lerobot(place)
        rlds = _rlds_folder(place) if format == "rlds" or (format is None and not lerobot) else None
    except OSError as error:
        raise DatasetError(f"cannot be read: {error}", file=place, category=NO_DATASET) from error
    settings = {"split": split, "on_error": on_error, "kinds": kinds, "rate": rate, "nonfinite": nonfinite}
    if rlds is not None:
        from .rlds import RldsDataset

        folder, only = rlds
        return RldsDataset(folder, only=only, checksums=checksums, **settings)
    if not lerobot:
        raise DatasetError("there is no meta/info.json here", file=place, category=NO_DATASET)
    from .lerobot import open_lerobot

    return open_lerobot(place, expected=format, **settings)


def _is_lerobot(place: Path) -> bool:
    return (place / "meta" / "info.json").is_file()


def _rlds_folder(place: Path) -> tuple[Path, Path | None]:
    """(folder with features.json, the one file that was asked for or None)."""
    if place.is_file():
        if (place.parent / FEATURES).is_file():
            return place.parent, place
        raise DatasetError(
            f"there is no {FEATURES} beside it. Looked for {_LOOKED_FOR}", file=place, category=NO_DATASET
        )
    if (place / FEATURES).is_file():
        return place, None
    versions = {
        tuple(int(part) for part in match.groups()): child
        for child in sorted(place.iterdir())
        if (match := _VERSION.fullmatch(child.name)) and (child / FEATURES).is_file()
    }
    if versions:
        return versions[max(versions)], None
    half = f" {INFO} is here, {FEATURES} is missing (TFDS writes it since 4.0)." if (place / INFO).is_file() else ""
    raise DatasetError(
        f"no dataset is recognised here.{half} Looked for {_LOOKED_FOR}", file=place, category=NO_DATASET
    )
