"""Image columns of LeRobot parquet files: a struct of the encoded bytes and a path, or the bytes alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .._errors import DatasetError
from .._files import checked_relative


class ImageBytes(Sequence[bytes]):
    """Encoded bytes of each row's image; a path without bytes is read from inside the dataset's folder."""

    def __init__(self, array: Any, root: Path, blame: Callable[[str], DatasetError]) -> None:
        self._array = array
        self._root = root
        self._blame = blame

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        try:
            value = self._array[index].as_py()
        except UnicodeDecodeError as error:
            raise self._blame(f"row {index}: path of an image is not UTF-8: {error}") from None
        data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if isinstance(data, bytes):
            return data
        if isinstance(path, str):
            try:
                return (self._root / checked_relative(path)).read_bytes()
            except DatasetError as error:
                raise self._blame(f"row {index}: image: {error.reason}") from None
            except OSError as error:
                raise self._blame(f"row {index}: image {path!r}: {error.strerror}") from None
        raise self._blame(f"row {index}: neither bytes nor the path of an image, but {self._array.type}")
