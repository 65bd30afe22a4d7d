"""Columns of parquet files, by rows: only the row groups that hold them are read. Needs pyarrow."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import DatasetError, missing_extra
from .._locks import ForkLock
from .info import Feature

_KEPT_FOOTERS = 64
_KEPT_BYTES = 128 << 20  # row groups that hold several episodes are kept up to this size


def pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "data", "reading LeRobot datasets") from error
    return pyarrow


@dataclass(frozen=True)
class Footer:
    """A file's metadata: pyarrow's own, the top-level columns, those whose name several have, and the first row of each
    row group and of the end."""

    metadata: Any
    names: frozenset[str]
    twice: frozenset[str]
    starts: NDArray[np.int64]

    @property
    def rows(self) -> int:
        return int(self.starts[-1])


class ParquetReader:
    """Columns of many files. Remembers footers and shared row groups, no open files; threads may share it."""

    def __init__(self) -> None:
        self._footers: OrderedDict[Path, Footer] = OrderedDict()
        self._groups: OrderedDict[tuple[Path, int, str], Any] = OrderedDict()
        self._group_bytes = 0
        self._lock = ForkLock()

    def num_rows(self, path: Path) -> int:
        return self._footer(path).rows

    def column_names(self, path: Path) -> frozenset[str]:
        """Top-level columns of a file."""
        return self._footer(path).names

    def column(self, path: Path, name: str, begin: int, end: int) -> Any:
        """Rows [begin, end) of a column as a pyarrow array."""
        footer = self._footer(path)
        if name not in footer.names:
            raise DatasetError(f"has no column {name!r}", file=path, category="schema")
        if name in footer.twice:
            raise DatasetError(f"expected one column {name!r}, it has several", file=path, category="schema")
        if end > footer.rows:
            raise DatasetError(f"expected rows up to {end}, it has {footer.rows}", file=path, category="wrong length")
        pieces: list[Any] = []
        first = max(int(np.searchsorted(footer.starts, begin, side="right")) - 1, 0)
        for group in range(first, len(footer.starts) - 1):
            start, stop = int(footer.starts[group]), int(footer.starts[group + 1])
            low, high = max(begin, start), min(end, stop)
            if high <= low and pieces:
                break
            whole = (low, high) == (start, stop)
            pieces.append(self._group(path, group, name, shared=not whole).slice(low - start, max(high - low, 0)))
        if not pieces:
            return pyarrow().array([], pyarrow().null())
        return pieces[0] if len(pieces) == 1 else pyarrow().concat_arrays(pieces)

    def _footer(self, path: Path) -> Footer:
        with self._lock:
            if path in self._footers:
                self._footers.move_to_end(path)
                return self._footers[path]
        footer: Footer = _guarded(path, lambda: _read_footer(path))
        with self._lock:
            self._footers[path] = footer
            while len(self._footers) > _KEPT_FOOTERS:
                self._footers.popitem(last=False)
        return footer

    def _group(self, path: Path, group: int, name: str, *, shared: bool) -> Any:
        """One column of a row group; kept where other episodes have rows in it too."""
        key = (path, group, name)
        with self._lock:
            if key in self._groups:
                self._groups.move_to_end(key)
                return self._groups[key]
        footer = self._footer(path)

        def read() -> Any:
            parquet = pyarrow().parquet
            with parquet.ParquetFile(path, metadata=footer.metadata, page_checksum_verification=True) as file:
                # One thread: workers are the parallelism, and a thread pool does not survive a fork.
                column = file.read_row_group(group, columns=[name], use_threads=False).column(name)
            return _stored(column.chunk(0) if column.num_chunks == 1 else column.combine_chunks())

        array = _guarded(path, read)
        if len(array) != footer.starts[group + 1] - footer.starts[group]:
            raise DatasetError(f"column {name!r}: row group {group} is short", file=path, category="wrong length")
        if shared and array.nbytes <= _KEPT_BYTES:  # a larger one would push all others out, and not stay either
            with self._lock:
                if key not in self._groups:
                    self._groups[key] = array
                    self._group_bytes += array.nbytes
                while self._group_bytes > _KEPT_BYTES:
                    self._group_bytes -= self._groups.popitem(last=False)[1].nbytes
        return array

    def clear(self) -> None:
        with self._lock:
            self._footers.clear()
            self._groups.clear()
            self._group_bytes = 0

    def __reduce__(self) -> tuple[type[ParquetReader], tuple[()]]:
        return ParquetReader, ()


def _read_footer(path: Path) -> Footer:
    metadata = pyarrow().parquet.read_metadata(path)
    rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.array(rows, np.int64))])
    names = metadata.schema.to_arrow_schema().names
    twice = frozenset(name for name, count in Counter(names).items() if count > 1)
    return Footer(metadata, frozenset(names), twice, starts)


def _stored(array: Any) -> Any:
    """An array without its extension type, which means nothing here: `datasets` and pyarrow have some for tensors."""
    while isinstance(array, pyarrow().ExtensionArray):
        order = getattr(array.type, "permutation", None)
        if order is not None and list(order) != sorted(order):
            raise DatasetError(f"expected tensors in row-major order, got {array.type}", category="schema")
        array = array.storage
    return array


def _guarded(path: Path, read: Any) -> Any:
    """The result of a pyarrow call; what it raises about a file becomes a DatasetError."""
    arrow = pyarrow()
    try:
        return read()
    except FileNotFoundError:
        raise DatasetError("missing file", file=path, category="missing file") from None
    except DatasetError as error:
        raise error.at(file=path) from error
    except (arrow.ArrowException, OSError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise DatasetError(f"cannot be read as parquet: {error}", file=path, category="damaged parquet") from error


def vector(array: Any, feature: Feature, path: Path) -> NDArray[Any]:
    """Numbers [S, D] of a column of scalars or (nested) lists, in the dtype that info.json declares.

    DatasetError where the column holds nulls, lists of another length, or another type than declared.
    """
    arrow = pyarrow()
    rows = len(array)
    sizes: list[int] = []
    while arrow.types.is_list(array.type) or arrow.types.is_large_list(array.type) or _is_fixed(array.type):
        if array.null_count:
            raise DatasetError(
                f"column {feature.name!r}: {array.null_count} rows are null", file=path, category="schema"
            )
        if not _is_fixed(array.type) and len(array):
            lengths = np.diff(np.asarray(array.offsets))
            if (lengths != lengths[0]).any():
                raise DatasetError(
                    f"column {feature.name!r}: lists of {int(lengths.min())} to {int(lengths.max())} numbers, "
                    f"info.json says {list(feature.shape)}",
                    file=path,
                    category="schema",
                )
        outer = len(array)
        array = array.flatten()
        sizes.append(len(array) // max(outer, 1))
    if array.null_count:
        raise DatasetError(f"column {feature.name!r}: {array.null_count} values are null", file=path, category="schema")
    if len(array) != rows * feature.elements:
        raise DatasetError(
            f"column {feature.name!r}: {len(array) / max(rows, 1):g} numbers a row, "
            f"info.json says {list(feature.shape)}",
            file=path,
            category="schema",
        )
    # Lists in lists are that tensor, row-major; one flat list may be any. Axes of length 1 come and go.
    if rows and len(sizes) > 1 and _longer(sizes) != _longer(feature.shape):
        raise DatasetError(
            f"column {feature.name!r}: lists of {sizes}, info.json says {list(feature.shape)}",
            file=path,
            category="schema",
        )
    try:
        numbers = array.to_numpy(zero_copy_only=False)
    except (arrow.ArrowException, TypeError, ValueError) as error:
        raise DatasetError(f"column {feature.name!r}: no numbers: {error}", file=path, category="schema") from None
    if numbers.dtype != feature.dtype:
        raise DatasetError(
            f"column {feature.name!r}: info.json says {feature.dtype}, the file holds {array.type}",
            file=path,
            category="schema",
        )
    return np.array(numbers).reshape(rows, feature.elements)


def _longer(sizes: Sequence[int]) -> list[int]:
    return [size for size in sizes if size != 1]


def integers(array: Any, name: str, path: Path) -> NDArray[np.int64]:
    """int64 [S] of a column of whole numbers (or of lists of one)."""
    counted = Feature(name, "vector", (1,), np.dtype(np.int64), None, {})
    return vector(array, counted, path)[:, 0]


def lists(array: Any, name: str, path: Path) -> list[Any]:
    """What each row holds, as Python has it; DatasetError for text that is no UTF-8."""
    try:
        found: list[Any] = array.to_pylist()
    except ValueError as error:
        raise DatasetError(f"column {name!r}: text is not UTF-8: {error}", file=path) from None
    return found


def strings(array: Any, name: str, path: Path) -> list[str]:
    """Text, one a row; DatasetError for nulls, other types and bytes that are no UTF-8."""
    found = lists(array, name, path)
    if not all(isinstance(text, str) for text in found):
        raise DatasetError(f"column {name!r}: expected text, the file holds {array.type}", file=path, category="schema")
    return found


def _is_fixed(kind: Any) -> bool:
    return bool(pyarrow().types.is_fixed_size_list(kind))
