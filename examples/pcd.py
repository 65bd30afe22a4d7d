"""Reads point clouds in PCL's PCD format, version 0.7: ascii, binary and binary_compressed.

https://pointclouds.org/documentation/tutorials/pcd_file_format.html. Coordinates come from the fields x, y, z, colours
from rgb or rgba where there is one (a number of 32 bits, 0xAARRGGBB, whatever type the header calls it). Other fields
are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from tqdm import tqdm

LARGE_FILE = 1_000_000  # bytes; text or compressed data of more than this takes seconds and shows its progress
LARGEST_HEADER = 64  # lines
KINDS = ("ascii", "binary", "binary_compressed")


class CloudError(ValueError):
    """A file that cannot be read as a point cloud; says where and why."""


@dataclass
class Cloud:
    """Points as they stand in the file; a sensor that saw nothing at a pixel leaves NaN."""

    points: torch.Tensor  # [N, 3] float32
    colors: torch.Tensor | None  # [N, 3] uint8: red, green, blue
    width: int  # of an organised cloud, the image's; else N
    height: int  # 1 where the cloud is not organised


@dataclass
class Header:
    """What a PCD file says about itself."""

    names: list[str]
    dtype: np.dtype[np.void]  # of one point: a member for each field
    count: int
    width: int
    height: int
    data: str  # one of KINDS


def _numbers(fields: dict[str, list[str]], name: str, many: int) -> list[int]:
    words = fields.get(name, ["1"] * many if name == "COUNT" else [])
    if len(words) != many:
        raise CloudError(f"{name}: expected {many} numbers, got {len(words)}")
    if not all(word.isascii() and word.isdigit() and len(word) <= 18 for word in words):
        raise CloudError(f"{name}: expected whole numbers, got {' '.join(words)[:60]!r}")
    return [int(word) for word in words]


def _read_header(file: BinaryIO) -> Header:
    fields: dict[str, list[str]] = {}
    for _ in range(LARGEST_HEADER):
        line = file.readline(4096)
        words = line.split(b"#", 1)[0].decode("latin-1").split()
        if words:
            fields[words[0].upper()] = words[1:]
        if not line or (words and words[0].upper() == "DATA"):
            break
    if "DATA" not in fields or "FIELDS" not in fields:
        raise CloudError("not a PCD file: no header with FIELDS and DATA")
    kind = " ".join(fields["DATA"]).lower()
    if kind not in KINDS:
        raise CloudError(f"DATA: expected one of {', '.join(KINDS)}, got {kind!r}")
    names = fields["FIELDS"]
    for axis in "xyz":
        if names.count(axis) != 1:
            raise CloudError(f"FIELDS: expected one {axis}, got {' '.join(names)!r}")
    sizes, counts = _numbers(fields, "SIZE", len(names)), _numbers(fields, "COUNT", len(names))
    types = fields.get("TYPE", [])
    if len(types) != len(names):
        raise CloudError(f"TYPE: expected {len(names)} letters, got {len(types)}")
    members = []
    for index, (letter, size, count) in enumerate(zip(types, sizes, counts, strict=True)):
        allowed = (4, 8) if letter == "F" else (1, 2, 4, 8) if letter in ("I", "U") else ()
        if size not in allowed or not 1 <= count <= 65536:
            raise CloudError(f"FIELDS: {names[index]} has TYPE {letter}, SIZE {size}, COUNT {count}: no such number")
        members.append((f"f{index}", f"<{letter.lower()}{size}", (count,)))
    (width,), (height,) = _numbers(fields, "WIDTH", 1), _numbers(fields, "HEIGHT", 1)
    points = _numbers(fields, "POINTS", 1)[0] if "POINTS" in fields else width * height
    if points != width * height:
        raise CloudError(f"POINTS: expected WIDTH x HEIGHT = {width * height}, got {points}")
    return Header(names, np.dtype(members), points, width, height, kind)


def decompress_lzf(packed: bytes, size: int, title: str = "") -> bytearray:
    """LibLZF's format: runs of literal bytes, and copies of what came up to 8192 bytes before.

    Raises CloudError where `packed` does not give exactly `size` bytes.
    """
    out = bytearray()
    at, end = 0, len(packed)
    bar = tqdm(total=end, unit="B", unit_scale=True, desc=title, disable=end < LARGE_FILE, mininterval=0.5, leave=False)
    told = 0
    try:
        while at < end and len(out) <= size:
            control = packed[at]
            at += 1
            if control < 32:
                out += packed[at : at + control + 1]
                at += control + 1
            else:
                length = control >> 5
                if length == 7:
                    length += packed[at]
                    at += 1
                length += 2
                begin = len(out) - ((control & 31) << 8) - packed[at] - 1
                at += 1
                if begin < 0:
                    raise CloudError("the compressed data refers to what was never there")
                run = out[begin : begin + length]
                # A copy may run into what it has just written: then it repeats.
                out += (run * (length // len(run) + 1))[:length]
            if at - told > 1 << 16:
                bar.update(at - told)
                told = at
    except IndexError:
        raise CloudError("the compressed data ends in the middle") from None
    finally:
        bar.close()
    if at > end or len(out) != size:
        raise CloudError(f"the compressed data gives {len(out)} bytes, expected {size}")
    return out


def _read_ascii(file: BinaryIO, header: Header, title: str, large: bool) -> np.ndarray:
    columns = sum(int(np.prod(header.dtype[member].shape)) for member in header.dtype.names or ())
    # Packed colours are whole numbers of 32 bits: text to double to integer keeps every one.
    table = []
    lines = tqdm(file, unit=" lines", desc=title, disable=not large, mininterval=0.5, leave=False)
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != columns:
            raise CloudError(f"line {number} of the data: expected {columns} numbers, got {len(words)}")
        try:
            table.append([float(word) for word in words])
        except ValueError:
            text = line.decode("latin-1").strip()[:60]
            raise CloudError(f"line {number} of the data: expected numbers, got {text!r}") from None
        if len(table) > header.count:
            raise CloudError(f"holds more than the {header.count} points that its header states")
    if len(table) != header.count:
        raise CloudError(f"holds {len(table)} points, expected {header.count}")
    values = np.array(table, np.float64).reshape(header.count, columns)
    out = np.zeros(header.count, header.dtype)
    column = 0
    for member in header.dtype.names or ():
        width = header.dtype[member].shape[0]
        with np.errstate(invalid="ignore", over="ignore"):
            out[member] = values[:, column : column + width].astype(header.dtype[member].base)
        column += width
    return out


def _read_compressed(file: BinaryIO, header: Header, title: str) -> np.ndarray:
    sizes = np.frombuffer(file.read(8), "<u4")
    if len(sizes) < 2:
        raise CloudError("ends before its compressed data")
    expected = header.count * header.dtype.itemsize
    if sizes[1] != expected:
        raise CloudError(f"states {sizes[1]} bytes of data, expected {expected} for {header.count} points")
    packed = file.read(int(sizes[0]))
    if len(packed) != sizes[0]:
        raise CloudError(f"ends after {len(packed)} of {sizes[0]} compressed bytes")
    raw = decompress_lzf(packed, expected, title)
    out = np.zeros(header.count, header.dtype)
    at = 0
    for member in header.dtype.names or ():  # one field after the other, each for all points
        kind = header.dtype[member]
        taken = np.frombuffer(raw, kind.base, header.count * kind.shape[0], at)
        out[member] = taken.reshape(header.count, kind.shape[0])
        at += taken.nbytes
    return out


def _colors(column: np.ndarray) -> np.ndarray | None:
    """Red, green, blue [N, 3] of packed numbers [N, 1] of 32 bits."""
    if column.dtype.itemsize != 4 or column.shape[1] != 1:
        return None
    bits = np.ascontiguousarray(column[:, 0]).view("<u4")
    return np.stack([bits >> 16 & 255, bits >> 8 & 255, bits & 255], axis=1).astype(np.uint8)


def read_pcd(path: Path) -> Cloud:
    """Reads a point cloud. Raises CloudError, with the file's name and what is wrong, where it is none."""
    try:
        with open(path, "rb") as file:
            header = _read_header(file)
            remaining = path.stat().st_size - file.tell()
            if header.data == "ascii":
                data = _read_ascii(file, header, path.name, remaining > LARGE_FILE)
            elif header.data == "binary":
                expected = header.count * header.dtype.itemsize
                if remaining < expected:
                    raise CloudError(f"holds {remaining} bytes of data, expected {expected} for {header.count} points")
                data = np.frombuffer(file.read(expected), header.dtype)
            else:
                data = _read_compressed(file, header, path.name)
    except CloudError as wrong:
        raise CloudError(f"{path}: {wrong}") from None
    except OSError as wrong:
        raise CloudError(f"{path}: {wrong.strerror}") from None
    place = {name: f"f{index}" for index, name in enumerate(header.names)}
    points = np.concatenate([data[place[axis]][:, :1] for axis in "xyz"], axis=1).astype(np.float32)
    packed = next((data[place[name]] for name in ("rgb", "rgba") if name in place), None)
    colors = None if packed is None else _colors(packed)
    return Cloud(
        torch.from_numpy(points), None if colors is None else torch.from_numpy(colors), header.width, header.height
    )
