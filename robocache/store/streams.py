"""What is packed: the vector streams of a dataset, their columns, dtypes and kinds, and which one is the main clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from .._checks import Options, options_of
from .._kinds import KIND_NAMES, Kind, groups_of
from .._stream import Stream

STORE_DTYPES = (None, torch.bfloat16, torch.float16, torch.float32, torch.float64)
# NumPy's dtype to the torch dtype that holds all of its values; torch computes little on wider unsigned integers.
_TORCH_DTYPES = {
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
    "bool": torch.bool,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint16": torch.int32,
    "uint32": torch.int64,
}


@dataclass(frozen=True)
class StreamLayout:
    """How one stream is packed.

    Attributes:
        name: of the stream.
        columns: D.
        dtype: of the packed values.
        kind: a name, or ((range of columns, name), ...): a form that can be hashed, so calls look it up.
        rate: claimed samples per second, or None.
    """

    name: str
    columns: int
    dtype: torch.dtype
    kind: Kind
    rate: Fraction | None

    @property
    def value_bytes(self) -> int:
        """Bytes of one sample's values."""
        return self.columns * self.dtype.itemsize


def _hashable(kind: Kind, columns: int, name: str) -> Kind:
    if isinstance(kind, str):
        return kind
    groups = groups_of(kind, columns, f"{name}: kind")
    if len(groups) == 1:
        return KIND_NAMES[groups[0][2]]
    return tuple((range(begin, end), KIND_NAMES[number]) for begin, end, number in groups)


def _layout(spec: Any, dtype: torch.dtype | None) -> StreamLayout:
    own = _TORCH_DTYPES.get(np.dtype(spec.dtype).name)
    if own is None:
        raise ValueError(f"streams[{spec.name!r}]: expected values of one of {sorted(_TORCH_DTYPES)}, got {spec.dtype}")
    packed = dtype if dtype is not None and own.is_floating_point else own
    columns = int(spec.shape[0])
    layout = StreamLayout(spec.name, columns, packed, _hashable(spec.kind, columns, spec.name), spec.rate)
    check_kind(layout)
    return layout


def check_kind(layout: StreamLayout) -> Options:
    """The stream's options; ValueError where its kind does not fit its columns or its dtype."""
    like = torch.empty(0, layout.columns, dtype=layout.dtype)
    stream = Stream(like, None, layout.kind)
    return options_of(stream, f"streams[{layout.name!r}].", str(layout.dtype).removeprefix("torch."), "int64")


def layouts_of(
    specs: Mapping[str, Any], streams: Iterable[str] | None = None, dtype: torch.dtype | None = None
) -> tuple[StreamLayout, ...]:
    """Layouts of the named streams, or of all vector streams, in the dataset's order.

    Args:
        specs: `Dataset.specs`.
        streams: names of vector streams.
        dtype: of floating values; None keeps what the dataset has. Integers and booleans always stay what they are.

    Raises:
        ValueError: an unknown name, a stream that is no vector, or no stream at all.
    """
    if dtype not in STORE_DTYPES:
        raise ValueError(f"dtype: expected None or a floating torch.dtype, got {dtype}")
    vectors = {name: spec for name, spec in specs.items() if spec.modality == "vector"}
    if isinstance(streams, str):
        raise TypeError(f"streams: expected a sequence of names, got the name {streams!r} alone")
    names = list(vectors) if streams is None else list(streams)
    if not names:
        raise ValueError("streams: expected at least one vector stream, got none")
    known = ", ".join(map(repr, vectors))
    for name in names:
        if name not in vectors:
            raise ValueError(f"streams: expected names of vector streams ({known}), got {name!r}")
    if len(set(names)) != len(names):
        raise ValueError(f"streams: expected each name once, got {names}")
    return tuple(_layout(vectors[name], dtype) for name in names)


def main_clock(layouts: Sequence[StreamLayout], fps: Fraction | None, clock: str | None) -> int:
    """Which stream is the frames' clock: the one asked for, else the first at the dataset's rate, else the first."""
    names = [layout.name for layout in layouts]
    if clock is not None:
        if clock not in names:
            raise ValueError(f"clock: expected one of {', '.join(map(repr, names))}, got {clock!r}")
        return names.index(clock)
    return next((i for i, layout in enumerate(layouts) if fps is not None and layout.rate == fps), 0)
