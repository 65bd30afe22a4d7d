"""Names of kinds and policies, and which columns of a stream are of which kind. Imports neither torch nor NumPy.

The numbers are the enums of robocache.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from types import EllipsisType
from typing import Any, TypeAlias

KINDS = {
    "linear": 0,
    "nearest": 1,
    "previous": 2,
    "next": 3,
    "pchip": 4,
    "slerp_xyzw": 5,
    "slerp_wxyz": 6,
    "angle": 7,
}
EXTRAPOLATE = {"clamp": 0, "nan": 1, "linear": 2, "raise": 3}
INVALID = {"keep": 0, "nan": 1, "raise": 2}
KIND_NAMES = tuple(KINDS)
STEP_KINDS = (1, 2, 3)
SLERP_KINDS = (5, 6)

Columns: TypeAlias = "int | slice | Sequence[int] | range | EllipsisType"
Kind: TypeAlias = "str | Iterable[tuple[Columns, str]]"
Group: TypeAlias = "tuple[int, int, int]"  # begin, end, kind


def choice(name: str, value: Any, options: dict[str, int]) -> int:
    """The number of a named option; ValueError lists the names there are."""
    if isinstance(value, str) and value in options:
        return options[value]
    names = ", ".join(repr(option) for option in options)
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected one of {names}, got {type(value).__name__}")
    raise ValueError(f"{name}: expected one of {names}, got {value!r}")


def _indices(name: str, columns: Any, num_columns: int) -> Sequence[int]:
    if isinstance(columns, slice):
        return list(range(num_columns))[columns]
    wanted = [columns] if isinstance(columns, int) and not isinstance(columns, bool) else columns
    if isinstance(wanted, str) or not isinstance(wanted, Iterable):
        raise TypeError(
            f"{name}: expected columns as an int, a slice, a sequence of ints or ..., got {type(columns).__name__}"
        )
    found = []
    for column in wanted:
        if isinstance(column, bool) or not hasattr(column, "__index__"):
            raise TypeError(f"{name}: expected columns as ints, got {type(column).__name__}")
        index = column.__index__()
        if not -num_columns <= index < num_columns:
            raise ValueError(f"{name}: expected columns below {num_columns}, got {index}")
        found.append(index % num_columns)
    return found


def groups_of(kind: Kind, num_columns: int, name: str = "kind") -> tuple[Group, ...]:
    """Column groups (begin, end, kind number) of a stream with `num_columns` columns, in order and without holes.

    `kind` is a name, or a sequence of (columns, name) in which every column occurs once. Columns are an int, a slice, a
    sequence of ints, or `...` for all that no other entry names. Neighbours of one kind become one group.

    >>> groups_of([(slice(0, 3), "linear"), (slice(3, 7), "slerp_xyzw"), (..., "previous")], 9)
    ((0, 3, 0), (3, 7, 5), (7, 9, 2))
    """
    if isinstance(kind, str):
        number = choice(name, kind, KINDS)
        if number in SLERP_KINDS and num_columns % 4:
            raise ValueError(
                f"{name}: {kind} takes whole quaternions (a multiple of 4 columns), got {num_columns} columns"
            )
        return ((0, num_columns, number),) if num_columns else ()
    if not isinstance(kind, Iterable):
        raise TypeError(f"{name}: expected a name or a sequence of (columns, name), got {type(kind).__name__}")
    owner: dict[int, int] = {}
    rest: int | None = None
    for entry in kind:
        if isinstance(entry, str) or not isinstance(entry, Sequence) or len(entry) != 2:
            raise TypeError(f"{name}: expected entries (columns, name), got {entry!r}")
        columns, label = entry
        number = choice(name, label, KINDS)
        if columns is ...:
            if rest is not None:
                raise ValueError(f"{name}: `...` stands twice")
            rest = number
            continue
        indices = _indices(name, columns, num_columns)
        if number in SLERP_KINDS:
            for first in range(0, len(indices), 4):
                quaternion = list(indices[first : first + 4])
                if quaternion != list(range(quaternion[0], quaternion[0] + 4)):
                    raise ValueError(
                        f"{name}: {label} takes whole quaternions of 4 neighbouring columns, got {quaternion}"
                    )
        for column in indices:
            if column in owner:
                raise ValueError(f"{name}: column {column} is named twice")
            owner[column] = number
    groups: list[Group] = []
    for column in range(num_columns):
        found = owner.get(column, rest)
        if found is None:
            raise ValueError(f"{name}: column {column} has no kind; name it, or all others by `...`")
        begin = column
        if groups and groups[-1][2] == found:
            begin = groups.pop()[0]
        groups.append((begin, column + 1, found))
    for begin, end, number in groups:
        if number in SLERP_KINDS and (end - begin) % 4:
            raise ValueError(
                f"{name}: {KIND_NAMES[number]} takes whole quaternions (a multiple of 4 columns), "
                f"got columns {begin} to {end - 1}"
            )
    return tuple(groups)


def flat_groups(kind: Kind, num_columns: int) -> tuple[int, ...]:
    """groups_of as one flat tuple, the form that native code takes. Remembered for kinds that can be hashed (tuples of
    (int, range or tuple of ints, name)), because a call with several kinds asks each time."""
    if isinstance(kind, tuple):
        try:
            return _remembered_groups(kind, num_columns)
        except TypeError:  # a list or, before Python 3.12, a slice stands in it
            pass
    return tuple(number for group in groups_of(kind, num_columns) for number in group)


@lru_cache(maxsize=256)
def _remembered_groups(kind: Kind, num_columns: int) -> tuple[int, ...]:
    return tuple(number for group in groups_of(kind, num_columns) for number in group)
