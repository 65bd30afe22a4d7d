"""features.json of TFDS: what a record holds, and the values it gives.

Nested feature dictionaries are flattened by "/": `steps/observation/state`. `steps` is a Dataset: its features hold one
value a step, one after the other. Storage follows TFDS (core/example_serializer.py): floats of any width in float_list,
integers and booleans in int64_list, text, images and tensors with an `encoding` as byte strings.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import DatasetError
from .._files import whole_number
from . import example as wire

STEPS = "steps"
TENSOR, IMAGE, TEXT = "tensor", "image", "text"
_MAX_DEPTH = 32
_MAX_ELEMENTS = 1 << 40
_DTYPES = {
    name: np.dtype(name) for name in ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
}
_DTYPES |= {"float16": np.dtype("f2"), "float32": np.dtype("f4"), "float64": np.dtype("f8"), "bfloat16": np.dtype("f4")}


@dataclass(frozen=True)
class FeatureSpec:
    """One feature that features.json names.

    Attributes:
        key: its name in a record, "steps/observation/state".
        form: "tensor", "image" or "text".
        shape: of one value; -1 where it varies.
        dtype: of the values (bfloat16 comes as float32).
        encoding: "none", "bytes" or "zlib" for tensors.
        per_step: one value a step rather than one an episode.
    """

    key: str
    form: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    encoding: str
    per_step: bool

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        """As streams are called: "observation.state"."""
        return self.key.removeprefix(f"{STEPS}/").replace("/", ".")


def read_features(content: Any, file: Path) -> tuple[list[FeatureSpec], list[str]]:
    """The features of features.json, and the keys of those that this reader does not read (ragged, audio, video)."""
    specs: list[FeatureSpec] = []
    unread: list[str] = []
    for spec in _walk(content, "", False, file, 0):
        if isinstance(spec, str):
            unread.append(spec)
        else:
            specs.append(spec)
    if not any(spec.per_step for spec in specs):
        raise DatasetError("names no `steps`: this is no RLDS dataset", file=file)
    names = [spec.name for spec in specs if spec.per_step]
    if len(set(names)) != len(names):
        raise DatasetError("two features of a step have one name", file=file)
    return specs, unread


def _walk(node: Any, key: str, per_step: bool, file: Path, depth: int) -> Iterator[FeatureSpec | str]:
    if not isinstance(node, dict) or depth > _MAX_DEPTH:
        raise DatasetError(f"feature {key!r}: expected a JSON object no deeper than {_MAX_DEPTH}", file=file)
    if "featuresDict" in node:
        children = _child(_child(node, "featuresDict", file, key), "features", file, key)
        for name, child in children.items():
            yield from _walk(child, f"{key}/{name}" if key else name, per_step, file, depth + 1)
    elif "sequence" in node:
        if key == STEPS:
            yield from _walk(_child(node, "sequence", file, key).get("feature"), key, True, file, depth + 1)
        else:
            yield key  # a sequence in a step is ragged
    elif "image" in node:
        yield _leaf(key, IMAGE, _child(node, "image", file, key), "uint8", per_step, file)
    elif "text" in node:
        yield FeatureSpec(key, TEXT, (), np.dtype(object), "none", per_step)
    elif "classLabel" in node:
        yield FeatureSpec(key, TENSOR, (), np.dtype(np.int64), "none", per_step)
    elif "tensor" in node:
        body = _child(node, "tensor", file, key)
        if body.get("dtype") in ("string", "object"):  # several strings in one value are no stream of text
            text = FeatureSpec(key, TEXT, _sizes(key, body, file), np.dtype(object), "none", per_step)
            yield replace(text, shape=()) if set(text.shape) <= {1} else key
        else:
            spec = _leaf(key, TENSOR, body, "float32", per_step, file)
            foreign = -1 in spec.shape or (body.get("dtype") == "bfloat16" and spec.encoding != "none")
            yield key if foreign else spec
    else:
        yield key


def _child(node: dict[str, Any], name: str, file: Path, key: str) -> dict[str, Any]:
    child = node.get(name)
    if not isinstance(child, dict):
        raise DatasetError(f"feature {key!r}: {name}: expected a JSON object, got {type(child).__name__}", file=file)
    return child


def _leaf(key: str, form: str, body: dict[str, Any], dtype: str, per_step: bool, file: Path) -> FeatureSpec:
    name = body.get("dtype", dtype)
    if not isinstance(name, str) or name not in _DTYPES:
        raise DatasetError(f"feature {key!r}: dtype: expected one of {', '.join(_DTYPES)}, got {name!r}", file=file)
    encoding = body.get("encoding", "none") if form == TENSOR else "none"
    if encoding not in ("none", "bytes", "zlib"):
        raise DatasetError(f"feature {key!r}: encoding: expected none, bytes or zlib, got {encoding!r}", file=file)
    sizes = _sizes(key, body, file)
    if form == IMAGE:
        sizes = sizes if len(sizes) == 3 else (-1, -1, -1)
    if math.prod(abs(size) for size in sizes) > _MAX_ELEMENTS:
        raise DatasetError(f"feature {key!r}: shape {list(sizes)} is no shape of a sample", file=file)
    return FeatureSpec(key, form, sizes, _DTYPES[name], encoding, per_step)


def _sizes(key: str, body: dict[str, Any], file: Path) -> tuple[int, ...]:
    shape = body.get("shape") or {}
    dimensions = shape.get("dimensions", []) if isinstance(shape, dict) else None
    if not isinstance(dimensions, list):
        raise DatasetError(f"feature {key!r}: shape: expected dimensions, got {shape!r}", file=file)
    return tuple(whole_number(size, f"feature {key!r}: shape", file=file, least=-1) for size in dimensions)


def count_values(spec: FeatureSpec, feature: wire.Feature) -> int:
    """How many values of `spec` a feature holds; DatasetError where they do not divide evenly."""
    if spec.form != TENSOR or spec.encoding != "none":
        return len(_byte_strings(spec, feature))
    numbers = _numbers(spec, feature)
    if spec.elements == 0:
        raise DatasetError(f"{spec.key}: a value has no elements, so nothing tells how many there are")
    if numbers.size % spec.elements:
        raise DatasetError(f"{spec.key}: {numbers.size} numbers are no whole number of {list(spec.shape)}")
    return numbers.size // spec.elements


def vector_values(spec: FeatureSpec, feature: wire.Feature, count: int) -> NDArray[Any]:
    """Tensors [count, elements] in the dtype that features.json claims, in memory of their own."""
    if spec.encoding != "none":
        return _encoded_tensors(spec, feature, count)
    numbers = _numbers(spec, feature)
    if numbers.size != count * spec.elements:
        raise DatasetError(
            f"{spec.key}: expected {count} x {list(spec.shape)} = {count * spec.elements} numbers, got {numbers.size}"
        )
    if spec.dtype.kind == "f":
        return numbers.reshape(count, spec.elements).astype(spec.dtype)
    _check_range(spec, numbers)
    return numbers.reshape(count, spec.elements).astype(spec.dtype)


def text_values(spec: FeatureSpec, feature: wire.Feature, count: int) -> list[str]:
    """Strings; DatasetError where one is not UTF-8."""
    return [text_of(spec, text) for text in byte_values(spec, feature, count)]


def first_text(spec: FeatureSpec, feature: wire.Feature) -> str:
    """The first string of a feature, "" where it has none."""
    _expect(spec, feature, wire.BYTES)
    return "".join(text_of(spec, text) for text in feature.byte_strings(1))


def text_of(spec: FeatureSpec, text: memoryview) -> str:
    """A string; DatasetError where it is not UTF-8."""
    try:
        return str(text, "utf-8")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{spec.key}: text is not UTF-8: {error.reason}") from None


def byte_values(spec: FeatureSpec, feature: wire.Feature, count: int) -> list[memoryview]:
    """Byte strings of images, text or encoded tensors."""
    found = _byte_strings(spec, feature)
    if len(found) != count:
        raise DatasetError(f"{spec.key}: expected {count} byte strings, got {len(found)}")
    return found


def _byte_strings(spec: FeatureSpec, feature: wire.Feature) -> list[memoryview]:
    _expect(spec, feature, wire.BYTES)
    return feature.byte_strings()


def _numbers(spec: FeatureSpec, feature: wire.Feature) -> NDArray[Any]:
    floats = spec.dtype.kind == "f"
    _expect(spec, feature, wire.FLOATS if floats else wire.INTS)
    return feature.floats() if floats else feature.ints()


def _expect(spec: FeatureSpec, feature: wire.Feature, kind: int) -> None:
    if feature.kind not in (kind, 0):  # an empty list may be left out
        raise DatasetError(
            f"{spec.key}: features.json says {spec.dtype} ({wire.LIST_NAMES[kind]}), "
            f"the record holds a {wire.LIST_NAMES[feature.kind]}"
        )


def _check_range(spec: FeatureSpec, numbers: NDArray[np.int64]) -> None:
    if not numbers.size or spec.dtype in (np.dtype(np.int64), np.dtype(np.uint64)):
        return
    low, high = (0, 1) if spec.dtype.kind == "b" else (np.iinfo(spec.dtype).min, np.iinfo(spec.dtype).max)
    if int(numbers.min()) < low or int(numbers.max()) > high:
        raise DatasetError(f"{spec.key}: {int(numbers.min())} to {int(numbers.max())} does not fit {spec.dtype}")


def _encoded_tensors(spec: FeatureSpec, feature: wire.Feature, count: int) -> NDArray[Any]:
    size = spec.elements * spec.dtype.itemsize
    rows = []
    for data in byte_values(spec, feature, count):
        raw = bytes(data)
        if spec.encoding == "zlib":
            inflate = zlib.decompressobj()
            try:
                raw = inflate.decompress(raw, size + 1)  # no more than it may be, whatever it claims
            except zlib.error as error:
                raise DatasetError(f"{spec.key}: zlib: {error}") from None
        if len(raw) != size:
            raise DatasetError(f"{spec.key}: expected {size} bytes for {spec.dtype} {list(spec.shape)}, got {len(raw)}")
        rows.append(np.frombuffer(raw, spec.dtype.newbyteorder("<")))
    return np.array(rows, spec.dtype).reshape(count, spec.elements)
