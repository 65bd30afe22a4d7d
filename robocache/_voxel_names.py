"""What the names and options of a voxel call decide, shared by the torch and the NumPy door. Imports neither.

Dtypes go by their names here ("float32", "bits"); a door tells how its own are called. Every message names the
argument, what was expected and what came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ._checks import FLOAT_DTYPES, VALUE_DTYPES

BOUNDS = {"drop": 0, "clamp": 1, "raise": 2}
LAYOUTS = {"channels_last": 0, "channels_first": 1}
ORDERS = {"sorted": 0, "first_appearance": 1}
MODES = {"nearest": 0, "trilinear": 1}
REDUCES = {"occupancy": 0, "count": 1, "sum": 2, "mean": 3, "max": 4, "min": 5}
COUNTED = ("occupancy", "count")
FEATURED = ("sum", "mean", "max", "min")
FEATURE_DTYPES = (*FLOAT_DTYPES, "uint8")
DTYPES = {**{name: number for number, name in enumerate(VALUE_DTYPES)}, "uint16": 10, "bits": 11}  # rc_dtype
LARGEST_SIZE = 2**24
MOST_CELLS = 2**62


def reductions(reduce: Any, allowed: Sequence[str], featured: bool, features: str, expected: str) -> tuple[str, ...]:
    """The names of a call's reductions. `features` is the argument that some of them need, an `expected`."""
    names = (reduce,) if isinstance(reduce, str) else tuple(reduce) if isinstance(reduce, (list, tuple)) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(f"reduce: expected a name or several of {', '.join(allowed)}, got {reduce!r}")
    for name in names:
        if name not in allowed:
            raise ValueError(f"reduce: expected one of {', '.join(map(repr, allowed))}, got {name!r}")
        if name not in COUNTED and not featured:
            raise ValueError(f"{features}: expected {expected}, which reduce={name!r} needs, got None")
    if len(set(names)) < len(names):
        raise ValueError(f"reduce: expected each name once, got {reduce!r}")
    return names


def _can_have(name: str, dtype: str) -> bool:
    if name in COUNTED:
        return dtype in VALUE_DTYPES or (dtype == "bits" and name == "occupancy")
    return dtype in FLOAT_DTYPES


def _dtypes_of(name: str) -> str:
    if name == "occupancy":
        return f"{', '.join(VALUE_DTYPES)} or 'bits'"
    return ", ".join(VALUE_DTYPES if name in COUNTED else FLOAT_DTYPES)


def output_dtypes(
    names: Sequence[str], out_dtype: Any, features: str | None, dtype_name: Callable[[Any], str]
) -> list[str]:
    """The dtype of each output by name. `features` is that of the features, None where there are none."""
    own = features if features in FLOAT_DTYPES else "float32"
    usual = {"occupancy": "bool", "count": "int32"}
    made = [usual.get(name, own) for name in names]
    if out_dtype is None:
        return made
    if isinstance(out_dtype, Mapping):
        for name in out_dtype:
            if name not in names:
                raise ValueError(f"out_dtype: expected names among {', '.join(names)}, got {name!r}")
        for place, name in enumerate(names):
            if out_dtype.get(name) is not None:
                asked = dtype_name(out_dtype[name])
                if not _can_have(name, asked):
                    raise TypeError(f"out_dtype: expected {_dtypes_of(name)} for {name}, got {asked}")
                made[place] = asked
        return made
    asked = dtype_name(out_dtype)
    able = [_can_have(name, asked) for name in names]
    if not any(able):
        raise TypeError(
            f"out_dtype: expected {_dtypes_of(names[0])} for {', '.join(names)}, or a dict of dtypes by name, "
            f"got {asked}"
        )
    return [asked if fits else usual_one for fits, usual_one in zip(able, made, strict=True)]


def dense_shape(
    name: str, dtype: str, batch: Any, size: tuple[Any, Any, Any], columns: Any, first: bool
) -> tuple[Any, ...]:
    """Of a dense output, with a batch; `first`: channels first."""
    x, y, z = size
    if name in COUNTED:
        return (batch, x, y, (z + 7) // 8 if dtype == "bits" else z)
    return (batch, columns, x, y, z) if first else (batch, x, y, z, columns)


def want_cells(size: tuple[Any, Any, Any], batch: Any) -> None:
    """Refuses grids whose sizes or cells cannot be counted."""
    x, y, z = size
    if not (1 <= x <= LARGEST_SIZE and 1 <= y <= LARGEST_SIZE and 1 <= z <= LARGEST_SIZE):
        raise ValueError(f"grid_size: expected 1 to {LARGEST_SIZE} cells along each axis, got {x} x {y} x {z}")
    if x * y * z * batch >= MOST_CELLS:
        raise ValueError(
            f"grid_size: expected fewer than 2^62 cells in all samples, got {batch} grids of {x} x {y} x {z}, which "
            f"need {x * y * z * batch} bytes at one byte a cell"
        )


def each_grid(grid_size: Any, voxel_size: Any, grid_min: Any) -> list[tuple[Any, Any, Any]] | None:
    """(grid_size, voxel_size, grid_min) of each of several grids; None where there is one."""
    if not isinstance(grid_size, list) or not any(isinstance(one, (list, tuple)) for one in grid_size):
        return None
    count = len(grid_size)

    def spread(name: str, value: Any) -> list[Any]:
        if not isinstance(value, list):
            return [value] * count
        if len(value) != count:
            raise ValueError(f"{name}: expected a list with one entry for each of {count} grids, got {len(value)}")
        return value

    return list(zip(grid_size, spread("voxel_size", voxel_size), spread("grid_min", grid_min), strict=True))
