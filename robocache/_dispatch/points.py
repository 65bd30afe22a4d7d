"""Tuned points on disk: one JSON file a machine set-up in the user's cache directory.

A file that is damaged, of another schema, or of another set-up is ignored, and one notice in a process says which and
how to tune again. Files are read with json alone and checked value by value: nothing in them is executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .calls import WORK, Workload
from .model import Copies, CostModel, Curve, Measured, fit_curve, fit_operation

SCHEMA = 1
DIRECTORY = "ROBOCACHE_CACHE_DIR"
KEY = ("gpu", "driver", "cpu", "threads", "torch", "robocache")
COPIES = ("pageable_in", "pinned_in", "out")
LEAST_POINTS = 4  # of an operation, below which no curve is drawn
_TUNE = "run `robocache tune` to measure this machine"

_noticed = False


class Tuned(NamedTuple):
    """Everything that a tuning run measured."""

    key: dict[str, Any]
    date: str
    copies: dict[str, list[tuple[int, float]]]  # (bytes, microseconds) by name
    points: list[Measured]


class Unusable(Exception):
    """Why a file cannot be used."""


def directory() -> Path:
    """Where tuned files are: $ROBOCACHE_CACHE_DIR, else robocache under $XDG_CACHE_HOME or ~/.cache."""
    told = os.environ.get(DIRECTORY)
    if told:
        return Path(told).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "robocache"


def path_for(key: Mapping[str, Any]) -> Path:
    """The file of a set-up; every part of the key is in its name."""
    text = json.dumps([key[name] for name in KEY], sort_keys=True)
    gpu = re.sub(r"[^a-z0-9]+", "-", str(key["gpu"]).lower()).strip("-")
    return directory() / f"dispatch-{gpu}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"


def others() -> list[Path]:
    """Every tuned file there is, of whatever set-up, the newest first."""
    try:
        found = [path for path in directory().glob("dispatch-*.json") if path.is_file()]
        return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return []


# ---- Writing ----------------------------------------------------------------------------------------------------


def as_json(tuned: Tuned) -> dict[str, Any]:
    points: dict[str, list[dict[str, Any]]] = {}
    for point in tuned.points:
        load = point.load
        points.setdefault(load.op, []).append(
            {
                "pageable": load.pageable,
                "pinned": load.pinned,
                "bytes_out": load.bytes_out,
                "work": list(load.work),
                "cpu_us": point.cpu_us,
                "host_us": point.host_us,
                "device_us": point.device_us,
            }
        )
    return {
        "schema": SCHEMA,
        "key": {name: tuned.key[name] for name in KEY},
        "date": tuned.date,
        "work": {op: list(WORK[op]) for op in points},
        "copies": {name: [list(pair) for pair in tuned.copies[name]] for name in COPIES},
        "points": points,
    }


def want_writable() -> Path:
    """Makes the directory and tries a file there, so that minutes of measuring are not lost.

    Raises:
        OSError: with the path and the reason.
    """
    folder = directory()
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".dispatch-", dir=folder)
    os.close(handle)
    os.unlink(name)
    return folder


def save(tuned: Tuned) -> Path:
    """Writes the file of the set-up in one step: a reader finds the old one or the new one, never a part."""
    path = path_for(tuned.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".dispatch-", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(as_json(tuned), file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    return path


# ---- Reading ----------------------------------------------------------------------------------------------------


def _number(where: str, value: Any, least: float = 0.0) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < math.inf:
        raise Unusable(f"{where}: expected a finite number of at least {least:g}, got {value!r}")
    return float(value)


def _list(where: str, value: Any, least: int) -> list[Any]:
    if not isinstance(value, list) or len(value) < least:
        raise Unusable(f"{where}: expected a list of at least {least}, got {type(value).__name__}")
    return value


def _dict(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unusable(f"{where}: expected an object, got {type(value).__name__}")
    return value


def _point(op: str, where: str, value: Any) -> Measured:
    entry = _dict(where, value)
    work = _list(f"{where}.work", entry.get("work"), len(WORK[op]))
    if len(work) != len(WORK[op]):
        raise Unusable(f"{where}.work: expected {len(WORK[op])} numbers, got {len(work)}")
    sizes = [int(_number(f"{where}.{name}", entry.get(name))) for name in ("pageable", "pinned", "bytes_out")]
    times = [_number(f"{where}.{name}", entry.get(name), 1e-3) for name in ("cpu_us", "host_us", "device_us")]
    load = Workload(op, sizes[0], sizes[1], sizes[2], tuple([_number(f"{where}.work", one) for one in work]))
    return Measured(load, times[0], times[1], times[2])


def parse(data: Any) -> Tuned:
    """A file's content, checked.

    Raises:
        Unusable: with what is wrong.
    """
    whole = _dict("file", data)
    if whole.get("schema") != SCHEMA:
        raise Unusable(f"schema: expected {SCHEMA}, got {whole.get('schema')!r}")
    key = _dict("key", whole.get("key"))
    missing = [name for name in KEY if name not in key]
    if missing:
        raise Unusable(f"key: {', '.join(missing)} not there")
    named = _dict("work", whole.get("work"))
    copies = _dict("copies", whole.get("copies"))
    curves: dict[str, list[tuple[int, float]]] = {}
    for name in COPIES:
        pairs = _list(f"copies.{name}", copies.get(name), 2)
        curves[name] = []
        for pair in pairs:
            both = _list(f"copies.{name}", pair, 2)
            curves[name].append((int(_number(f"copies.{name}", both[0], 1)), _number(f"copies.{name}", both[1], 1e-3)))
    points = []
    for op, entries in _dict("points", whole.get("points")).items():
        if op not in WORK or named.get(op) != list(WORK[op]):
            raise Unusable(f"points.{op}: this version does not know this operation or counts its work differently")
        found = _list(f"points.{op}", entries, LEAST_POINTS)
        points += [_point(op, f"points.{op}[{index}]", entry) for index, entry in enumerate(found)]
    absent = [op for op in WORK if all(point.load.op != op for point in points)]
    if absent:
        raise Unusable(f"points: {', '.join(absent)} not there")
    return Tuned({name: key[name] for name in KEY}, str(whole.get("date", "")), curves, points)


def read(path: Path) -> Tuned:
    """A file's points.

    Raises:
        Unusable: it cannot be read, is damaged, or is of another schema.
    """
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise Unusable(str(error)) from None
    return parse(data)


def _notice(text: str) -> None:
    global _noticed
    if not _noticed:
        _noticed = True
        warnings.warn(f"robocache dispatch: {text}; {_TUNE}", RuntimeWarning, stacklevel=2)


def _difference(key: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {other[name]} (here {key[name]})" for name in KEY if other[name] != key[name])


def load(key: Mapping[str, Any]) -> tuple[Tuned, Path] | None:
    """The points of a set-up; None where there are none, with one notice where a file had to be ignored."""
    path = path_for(key)
    if not path.is_file():
        for other in others():
            try:
                told = _difference(key, read(other).key)
            except Unusable as error:
                told = f"unusable: {error}"
            _notice(f"{other.name} is ignored, it was tuned for another set-up: {told}")
            break
        return None
    try:
        tuned = read(path)
    except Unusable as error:
        _notice(f"{path.name} is ignored, {error}")
        return None
    if tuned.key != {name: key[name] for name in KEY}:
        _notice(f"{path.name} is ignored, it was tuned for another set-up: {_difference(key, tuned.key)}")
        return None
    return tuned, path


# ---- The model --------------------------------------------------------------------------------------------------


def _copy_curve(pairs: Sequence[tuple[int, float]]) -> Curve:
    return fit_curve([float(size) for size, _ in pairs], [time for _, time in pairs], knots=12)


def model_of(tuned: Tuned, where: str) -> CostModel:
    """The cost model that measured points give."""
    curves = {name: _copy_curve(pairs) for name, pairs in tuned.copies.items()}
    copies = Copies(**curves)
    operations = {op: fit_operation([point for point in tuned.points if point.load.op == op], copies) for op in WORK}
    return CostModel(operations, copies, 1.0, "file", where)
