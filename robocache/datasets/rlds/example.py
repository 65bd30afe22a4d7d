"""tf.train.Example: a reader of its protobuf wire format.

    Example    { Features features = 1; }
    Features   { map<string, Feature> feature = 1; }
    Feature    { oneof { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3; } }
    BytesList  { repeated bytes value = 1; }      FloatList { repeated float value = 1 [packed]; }
    Int64List  { repeated int64 value = 1 [packed]; }

(tensorflow/core/example/{example,feature}.proto.) Numbers may be packed or not; unknown fields are passed over. Nothing
is copied until values are asked for: a feature is a view of the record.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import DatasetError

BYTES, FLOATS, INTS = 1, 2, 3
LIST_NAMES = {0: "no list", BYTES: "bytes_list", FLOATS: "float_list", INTS: "int64_list"}
_VARINT, _FIXED64, _CHUNK, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10  # 64 bits at 7 a byte


@dataclass(frozen=True)
class Feature:
    """One feature of an Example: which list it is, and the list's bytes (a view of the record)."""

    kind: int
    body: memoryview

    def floats(self) -> NDArray[np.float32]:
        """float32 [N], a view of the record where it is packed in one piece."""
        body = self.body
        if len(body) >= 5 and len(body) % 5 == 0 and body[0] == 0x0D:  # unpacked: tag and four bytes, again and again
            rows = np.frombuffer(body, np.uint8).reshape(-1, 5)
            if (rows[:, 0] == 0x0D).all():
                return np.ascontiguousarray(rows[:, 1:]).view("<f4").reshape(-1)
        pieces = []
        for number, wire, value in _fields(body):
            if number != 1:
                continue
            if wire == _FIXED32 or (wire == _CHUNK and len(value) % 4 == 0):
                pieces.append(np.frombuffer(value, "<f4"))
            else:
                raise DatasetError("float_list: value is no float")
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, "<f4"), *pieces])

    def ints(self) -> NDArray[np.int64]:
        """int64 [N]."""
        pieces: list[NDArray[np.int64]] = []
        loose: list[int] = []
        for number, wire, value in _fields(self.body):
            if number != 1:
                continue
            if wire == _VARINT:
                loose.append(value)
                continue
            if wire != _CHUNK:
                raise DatasetError("int64_list: value is no integer")
            pieces += [_as_int64(loose)] if loose else []
            loose = []
            pieces.append(decode_varints(value))
        pieces += [_as_int64(loose)] if loose else []
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, np.int64), *pieces])

    def byte_strings(self, most: int | None = None) -> list[memoryview]:
        """The byte strings, as views of the record; the first `most` of them."""
        found: list[memoryview] = []
        for number, wire, value in _fields(self.body):
            if len(found) == most:
                break
            if number == 1:
                if wire != _CHUNK:
                    raise DatasetError("bytes_list: value is no byte string")
                found.append(value)
        return found


def parse_example(record: bytes | memoryview) -> dict[str, Feature]:
    """Features by name. DatasetError (without a place) where the record is no tf.train.Example."""
    features: dict[str, Feature] = {}
    for number, wire, features_message in _fields(memoryview(record)):
        if number != 1:
            continue
        for entry_number, entry_wire, entry in _messages(features_message, wire, "features"):
            if entry_number != 1:
                continue
            name, feature = _map_entry(entry, entry_wire)
            features[name] = feature
    return features


def _map_entry(entry: Any, wire: int) -> tuple[str, Feature]:
    name, feature = b"", Feature(0, memoryview(b""))
    for number, field_wire, value in _messages(entry, wire, "feature entry"):
        if number == 1:
            if field_wire != _CHUNK:
                raise DatasetError("feature name is no string")
            name = bytes(value)
        elif number == 2:
            feature = _feature(value, field_wire)
    try:
        return name.decode("utf-8"), feature
    except UnicodeDecodeError:
        raise DatasetError(f"feature name {name[:80]!r} is not UTF-8") from None


def _feature(message: Any, wire: int) -> Feature:
    feature = Feature(0, memoryview(b""))
    for number, field_wire, value in _messages(message, wire, "feature"):
        if number in (BYTES, FLOATS, INTS):
            if field_wire != _CHUNK:
                raise DatasetError("feature holds no list")
            if feature.kind == number:  # a message field that stands twice is merged
                feature = Feature(number, memoryview(bytes(feature.body) + bytes(value)))
            else:
                feature = Feature(number, value)
    return feature


def _messages(message: Any, wire: int, what: str) -> Iterator[tuple[int, int, Any]]:
    if wire != _CHUNK:
        raise DatasetError(f"{what}: expected a message, got wire type {wire}")
    return _fields(message)


def _fields(message: memoryview) -> Iterator[tuple[int, int, Any]]:
    """(field number, wire type, value) of a message: an int for varints, a view for the rest."""
    position, end = 0, len(message)
    while position < end:
        tag = message[position]
        position += 1
        if tag >= 0x80:  # a field number above 15
            tag, position = _varint(message, position - 1)
        wire = tag & 7
        if wire == _VARINT:
            value, position = _varint(message, position)
            yield tag >> 3, wire, value
            continue
        if wire == _CHUNK:
            size, position = _varint(message, position)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise DatasetError(f"not a protobuf message: wire type {wire}")
        if size > end - position:
            raise DatasetError("not a protobuf message: a field is longer than the message")
        yield tag >> 3, wire, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    for byte in message[position : position + _VARINT_BYTES]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position + shift // 7
    raise DatasetError("not a protobuf message: a varint does not end")


def decode_varints(packed: Any) -> NDArray[np.int64]:
    """int64 [N] of packed varints, all at once. DatasetError where the last does not end or one is over ten bytes."""
    data = np.frombuffer(packed, np.uint8)
    if not data.size:
        return np.empty(0, np.int64)
    if data[-1] >= 0x80:
        raise DatasetError("int64_list: a varint does not end")
    ends = np.flatnonzero(data < 0x80)
    if ends.size == data.size:  # small numbers alone: flags, classes, bytes
        return data.astype(np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > _VARINT_BYTES:
        raise DatasetError("int64_list: a varint is longer than ten bytes")
    values = np.zeros(ends.size, np.uint64)
    for byte in range(longest):
        there = lengths > byte
        part = (data[starts[there] + byte] & np.uint8(0x7F)).astype(np.uint64)
        values[there] |= part << np.uint64(7 * byte)
    return values.view(np.int64)


def _as_int64(values: list[int]) -> NDArray[np.int64]:
    return np.array(values, np.uint64).view(np.int64)
