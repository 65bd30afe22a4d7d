"""TFRecord files: where each record lies, and its bytes.

A record is its length (uint64), a masked CRC-32C of these eight bytes (uint32), the data, and a masked CRC-32C of the
data, all little-endian. The mask rotates the checksum right by 15 bits and adds 0xa282ead8, so that a file of checksums
does not checksum to something trivial (tensorflow/core/lib/hash/crc32c.h). A whole file may be one gzip stream.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import DatasetError, missing_extra
from .._locks import ForkLock

HEADER = 12  # length and its checksum
FOOTER = 4  # checksum of the data
_GZIP = b"\x1f\x8b"
_MASK_DELTA = 0xA282EAD8
_READ = 1 << 20  # gzip is read in pieces of this size, so a length that lies allocates no more than that
_DEFLATE_RATIO = 1032  # deflate cannot shrink by more (zlib's technical notes), so no longer record can be inside


def crc32c(data: Any) -> int:
    """CRC-32C (Castagnoli) of bytes."""
    try:
        import google_crc32c
    except ImportError as error:
        raise missing_extra(
            "google-crc32c", "data", "checking TFRecord checksums (or open with checksums=False)"
        ) from error
    return int(google_crc32c.value(bytes(data)))


def masked_crc32c(data: Any) -> int:
    """The checksum as TFRecord stores it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


class RecordFile:
    """One TFRecord file. Holds the records' places, not the file: pickles cheaply, and threads and forks may share it.

    Args:
        path: the file.
        checksums: check every checksum. False needs no CRC library and trusts the disk.
    """

    def __init__(self, path: Path, *, checksums: bool = True) -> None:
        self.path = path
        self.checksums = checksums
        self._places: NDArray[np.int64] | None = None  # [N, 2]: offset of the data, its length
        self._damage: DatasetError | None = None
        self._gzip: bool | None = None
        self._stream: tuple[int, Any] | None = None  # (process, gzip stream that stands somewhere)
        self._lock = ForkLock()

    def places(self) -> tuple[NDArray[np.int64], DatasetError | None]:
        """Offset and length of each record [N, 2], and what ended the scan early, if anything did.

        Reads the headers only. What follows damage in a header cannot be found again.
        """
        with self._lock:
            if self._places is None:
                self._places, self._damage = self._scanned()
            return self._places, self._damage

    def most_records(self) -> int:
        """How many records the file can hold at most, by its size; 0 where it is not there. Reads two bytes of it."""
        try:
            size = self.path.stat().st_size
            with open(self.path, "rb") as file:
                compressed = file.read(2) == _GZIP
        except OSError:
            return 0
        return size * (_DEFLATE_RATIO if compressed else 1) // (HEADER + FOOTER)

    def read(self, record: int) -> bytes:
        """The data of a record. DatasetError where it is not there, cut off, or its checksum differs."""
        places, damage = self.places()
        if record >= len(places):
            raise damage or DatasetError(
                f"record {record} is not there: the file holds {len(places)}", file=self.path, category="missing record"
            )
        offset, length = (int(number) for number in places[record])
        with self._open(offset) as file:
            # A plain file was seen to be that long, so one piece will do; what gzip claims is taken bit by bit.
            data = _read_exactly(file, length, _READ if self._gzip else max(length, 1))
            footer = _read_exactly(file, FOOTER)
        if len(data) != length or len(footer) != FOOTER:
            raise DatasetError(f"record {record} is cut off", file=self.path, category="truncated file")
        if self.checksums and masked_crc32c(data) != struct.unpack("<I", footer)[0]:
            raise DatasetError(f"record {record}: checksum of the data differs", file=self.path, category="checksum")
        return data

    def close(self) -> None:
        """Lets go of a gzip stream."""
        with self._lock:
            if self._stream is not None and self._stream[0] == os.getpid():
                self._stream[1].close()
            self._stream = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stream": None}

    def _scanned(self) -> tuple[NDArray[np.int64], DatasetError | None]:
        places: list[tuple[int, int]] = []
        damage: DatasetError | None = None
        try:
            places.extend(self._headers())
        except DatasetError as error:
            damage = error
        return np.array(places, np.int64).reshape(-1, 2), damage

    def _headers(self) -> Iterator[tuple[int, int]]:
        try:
            size = self.path.stat().st_size
            with open(self.path, "rb", buffering=0) as raw:
                start = raw.read(HEADER)
                self._gzip = start[:2] == _GZIP and not self._plausible(start, size)
                if self._gzip:
                    with gzip.open(self.path) as file:
                        yield from self._walk(file, size * _DEFLATE_RATIO, skip=False)
                else:
                    raw.seek(0)
                    yield from self._walk(raw, size, skip=True)
        except FileNotFoundError:
            raise DatasetError("missing file", file=self.path, category="missing file") from None
        except (OSError, EOFError, zlib.error) as error:
            raise DatasetError(f"cannot be read: {error}", file=self.path, category="truncated file") from error

    def _plausible(self, header: bytes, size: int) -> bool:
        """Whether the first bytes are a record's header rather than gzip's magic number."""
        if len(header) < HEADER:
            return False
        length, crc = struct.unpack("<QI", header)
        return length + HEADER + FOOTER <= size and (not self.checksums or masked_crc32c(header[:8]) == crc)

    def _walk(self, file: Any, size: int, *, skip: bool) -> Iterator[tuple[int, int]]:
        """Goes from header to header; `size` is what the file can hold at most."""
        position = 0
        while True:
            header = _read_exactly(file, HEADER)
            if not header:
                return
            record = f"at byte {position}"
            if len(header) < HEADER:
                raise DatasetError(f"record {record}: header is cut off", file=self.path, category="truncated file")
            length, crc = struct.unpack("<QI", header)
            if self.checksums and masked_crc32c(header[:8]) != crc:
                raise DatasetError(
                    f"record {record}: checksum of the length differs", file=self.path, category="checksum"
                )
            end = position + HEADER + length + FOOTER
            if end > size:
                raise DatasetError(
                    f"record {record}: {length} bytes claimed, {max(size - position - HEADER, 0)} at most are there",
                    file=self.path,
                    category="truncated file",
                )
            if skip:
                file.seek(end)
            elif _skipped(file, length + FOOTER) != length + FOOTER:
                raise DatasetError(f"record {record}: data is cut off", file=self.path, category="truncated file")
            yield position + HEADER, length
            position = end

    @contextmanager
    def _open(self, offset: int) -> Iterator[Any]:
        """The file, at an offset. A gzip stream is kept, since going on is cheap and starting over is not."""
        try:
            if not self._gzip:
                with open(self.path, "rb", buffering=0) as file:
                    file.seek(offset)
                    yield file
                return
            with self._lock:
                if self._stream is None or self._stream[0] != os.getpid():
                    self._stream = (os.getpid(), gzip.open(self.path))  # noqa: SIM115 - kept open
                stream = self._stream[1]
                stream.seek(offset)
                yield stream
        except FileNotFoundError:
            raise DatasetError("missing file", file=self.path, category="missing file") from None
        except (OSError, EOFError, zlib.error) as error:
            raise DatasetError(f"cannot be read: {error}", file=self.path, category="truncated file") from error


def _read_exactly(file: Any, count: int, piece: int = _READ) -> bytes:
    """`count` bytes, fewer at the file's end. Allocates no more than what is there plus one piece."""
    first: bytes = file.read(min(count, piece))
    if len(first) == count or not first:
        return first
    pieces, have = [first], len(first)
    while have < count:
        more = file.read(min(count - have, piece))
        if not more:
            break
        pieces.append(more)
        have += len(more)
    return b"".join(pieces)


def _skipped(file: Any, count: int) -> int:
    left = count
    while left:
        piece = file.read(min(left, _READ))
        if not piece:
            break
        left -= len(piece)
    return count - left
