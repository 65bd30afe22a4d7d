"""What a call moves and how much it computes, from its shapes, dtypes and options alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._stream import Stream
from .._voxel_names import COUNTED

# What counts as work of an operation, in the order of Workload.work.
ALIGN_WORK = ("rows", "places", "bytes", "plain", "angle", "slerp", "pchip")
VOXEL_WORK = ("samples", "points", "featured_points", "values", "bytes_out")
DEVOXELIZE_WORK = ("samples", "points", "nearest_values", "trilinear_values")
WORK: dict[str, tuple[str, ...]] = {
    "resample": ALIGN_WORK,
    "fuse": ALIGN_WORK,
    "voxelize": VOXEL_WORK,
    "voxelize_sparse": VOXEL_WORK,
    "voxelize_depth": VOXEL_WORK,
    "devoxelize": DEVOXELIZE_WORK,
}
OPERATIONS = tuple(WORK)
STAGED = 1 << 16  # bytes; less goes along with others through a staging buffer, page-locked or not
FUNCTIONS = {
    "resample": "resample_trajectories",
    "fuse": "fuse_multimodal",
    "voxelize": "voxelize_point_cloud",
    "voxelize_sparse": "voxelize_point_cloud_sparse",
    "voxelize_depth": "voxelize_depth",
    "devoxelize": "devoxelize",
}


class Workload(NamedTuple):
    """A call's size as the cost model takes it.

    Attributes:
        op: one of OPERATIONS.
        pageable: bytes of its inputs in ordinary memory.
        pinned: bytes of its inputs in page-locked memory.
        bytes_out: bytes of its answer.
        work: amounts, named in WORK[op].
    """

    op: str
    pageable: int
    pinned: int
    bytes_out: int
    work: tuple[float, ...]


# Types of most arguments, none of which holds a tensor; asking whether one is a Mapping takes longer.
HOLD_NOTHING = frozenset((type(None), str, int, float, bool, torch.dtype))


class Undescribed(Exception):
    """The arguments do not fit together; the call itself says what is wrong with them."""


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in arguments, each once, in order: in sequences, mappings and streams."""
    found: dict[int, Tensor] = {}
    _collect(value, found)
    return list(found.values())


def _collect(value: Any, found: dict[int, Tensor]) -> None:
    kind = type(value)
    if kind in HOLD_NOTHING:
        return
    if kind is Tensor or isinstance(value, Tensor):
        found[id(value)] = value
    elif isinstance(value, Mapping):
        for one in value.values():
            _collect(one, found)
    elif isinstance(value, (list, tuple)):
        for one in value:
            _collect(one, found)
    elif isinstance(value, Stream):
        _collect(vars(value), found)


def bytes_of(tensors: Sequence[Tensor]) -> int:
    return sum([tensor.numel() * tensor.element_size() for tensor in tensors])


def _family(kind: str) -> str:
    return kind if kind in ("angle", "pchip") else "slerp" if kind.startswith("slerp") else "plain"


def _kinds(kind: Any, columns: int) -> list[tuple[int, str]]:
    """(columns, kind) of a stream; `...` takes what the others leave."""
    if isinstance(kind, str):
        return [(columns, kind)]
    sized: list[tuple[int, str]] = []
    rest: str | None = None
    for where, name in kind:
        if where is Ellipsis:
            rest = name
        elif isinstance(where, slice):
            sized.append((len(range(*where.indices(columns))), name))
        else:
            sized.append((1 if isinstance(where, int) else len(where), name))
    if rest is not None:
        sized.append((columns - sum([count for count, _ in sized]), rest))
    return sized


def _align(streams: Sequence[Stream], targets: Tensor, out_dtype: torch.dtype | None, valid: bool) -> tuple[int, Any]:
    amounts = dict.fromkeys(ALIGN_WORK, 0.0)
    bytes_out = 0
    length = targets.shape[-1]
    out_size = max([stream.values.element_size() for stream in streams]) if out_dtype is None else out_dtype.itemsize
    for stream in streams:
        values, rows = stream.values, stream.rows
        columns = values.shape[-1] if values.ndim > 1 else 1
        samples = math.prod(values.shape[:-1])
        if stream.row_splits is not None:
            sequences = max(stream.row_splits.shape[0] - 1, 1)
        else:
            sequences = values.shape[0] if values.ndim == 3 else 1
        batch = sequences if rows is None else rows.shape[0]
        outputs = batch * length
        amounts["rows"] += batch
        amounts["places"] += samples + outputs
        out = outputs * columns * out_size
        # A target reads at most two samples' rows, and no sample's row is fetched twice from memory.
        read = min(samples * batch / max(sequences, 1), 2.0 * outputs) * columns * values.element_size()
        amounts["bytes"] += out + read
        for count, name in _kinds(stream.kind, columns):
            amounts[_family(name)] += outputs * count
        bytes_out += out + (outputs if valid else 0)
    return bytes_out, tuple(amounts.values())


def _resample(a: Mapping[str, Any]) -> tuple[int, Any]:
    stream = Stream(a["values"], a["times"], a["kind"], None, a["row_splits"], a["rows"])
    return _align([stream], a["target_times"], a["out_dtype"], a["return_valid"])


def _fuse(a: Mapping[str, Any]) -> tuple[int, Any]:
    streams = a["streams"]
    listed = list(streams.values()) if isinstance(streams, Mapping) else list(streams)
    return _align(listed, a["target_times"], a["out_dtype"], a["return_valid"])


def _names(reduce: Any) -> tuple[str, ...]:
    return () if reduce is None else (reduce,) if isinstance(reduce, str) else tuple(reduce)


def _size_of(name: str, out_dtype: Any, own: int) -> float:
    """Bytes of one element of an output."""
    if isinstance(out_dtype, Mapping):
        out_dtype = out_dtype.get(name)
    if out_dtype == "bits":
        return 0.125
    if isinstance(out_dtype, torch.dtype):
        return float(out_dtype.itemsize)
    return {"occupancy": 1.0, "count": 4.0}.get(name, float(own))


def _sizes(grid_size: Any) -> list[int]:
    """Cells of each grid that is asked for."""
    if isinstance(grid_size, int):
        return [grid_size**3]
    if len(grid_size) and not isinstance(grid_size[0], int):
        return [math.prod(one) for one in grid_size]
    return [math.prod(grid_size)]


def _columns(features: Tensor | None) -> tuple[int, int]:
    """Columns, and bytes of one element of what is made of them."""
    if features is None:
        return 0, 4
    return features.shape[-1], 4 if features.dtype == torch.uint8 else features.element_size()


def _grids(a: Mapping[str, Any], batch: int, points: int, features: Tensor | None) -> tuple[int, Any]:
    """Work of the dense forms."""
    columns, own = _columns(features)
    names, grids = _names(a["reduce"]), _sizes(a["grid_size"])
    featured = [name for name in names if name not in COUNTED]
    out = 0.0
    for cells in grids:
        for name in names:
            wide = 1 if name in COUNTED else columns
            out += batch * cells * wide * _size_of(name, a["out_dtype"], own)
        out += batch * cells * 4 if a["return_counts"] else 0
        out += points * 8 if a["return_inverse"] else 0
    count = len(grids)
    work = (batch, points * count, points * count if featured else 0, points * columns * len(featured) * count, out)
    return int(out), work


def _cloud(points: Tensor, row_splits: Tensor | None) -> tuple[int, int]:
    """Samples and points."""
    if row_splits is not None:
        return max(row_splits.shape[0] - 1, 1), points.shape[0]
    return (1 if points.ndim == 2 else points.shape[0]), math.prod(points.shape[:-1])


def _voxelize(a: Mapping[str, Any]) -> tuple[int, Any]:
    batch, points = _cloud(a["points"], a["row_splits"])
    return _grids(a, batch, points, a["features"])


def _depth(a: Mapping[str, Any]) -> tuple[int, Any]:
    depth = a["depth"]
    batch = 1 if depth.ndim == 2 else depth.shape[0]
    return _grids(a, batch, depth.numel(), a["color"])


def _sparse(a: Mapping[str, Any]) -> tuple[int, Any]:
    batch, points = _cloud(a["points"], a["row_splits"])
    features, voxels, listed = a["features"], a["max_voxels"], a["max_points"]
    columns, own = _columns(features)
    names: tuple[str, ...] = _names(a["reduce"])
    if listed is not None:
        width = listed * (columns or 3) * own
        values = points * (columns or 3)
    else:
        names = names or (("mean",) if features is not None else ())
        width = columns * own * len(names)
        values = points * columns * len(names)
    out = batch * voxels * (3 * 4 + 4 + width) + batch * 8 + points * 8
    return int(out), (batch, points, points if values else 0, values, out)


def _devoxelize(a: Mapping[str, Any]) -> tuple[int, Any]:
    batch, points = _cloud(a["points"], a["row_splits"])
    grid = a["grid"]
    columns = grid.shape[grid.ndim - 4] if a["layout"] == "channels_first" else grid.shape[-1]
    size = grid.element_size() if a["out_dtype"] is None else a["out_dtype"].itemsize
    values = points * columns
    smooth = a["mode"] == "trilinear"
    return values * size, (batch, points, 0 if smooth else values, values if smooth else 0)


_DESCRIBE: dict[str, Callable[[Mapping[str, Any]], tuple[int, Any]]] = {
    "resample": _resample,
    "fuse": _fuse,
    "voxelize": _voxelize,
    "voxelize_sparse": _sparse,
    "voxelize_depth": _depth,
    "devoxelize": _devoxelize,
}


def describe(op: str, arguments: Mapping[str, Any], pinned: Callable[[Tensor], bool]) -> Workload:
    """The workload of a call.

    Args:
        op: one of OPERATIONS.
        arguments: the public function's arguments by name, all of them.
        pinned: whether a tensor lies in page-locked memory.

    Raises:
        Undescribed: the arguments do not fit together.
    """
    try:
        bytes_out, work = _DESCRIBE[op](arguments)
    except (TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
        raise Undescribed(str(error)) from None
    ordinary = locked = 0
    for tensor in tensors_in([value for name, value in arguments.items() if name != "out"]):
        size = tensor.numel() * tensor.element_size()
        if size >= STAGED and pinned(tensor):
            locked += size
        else:
            ordinary += size
    return Workload(op, ordinary, locked, bytes_out, tuple([float(amount) for amount in work]))


# ---- What decides a call's work, as a key ---------------------------------------------------------------------------
# These run before every larger call on host tensors: attribute reads and a tuple, and nothing else.


def _form(tensor: Any) -> Any:
    return None if tensor is None else (tensor.shape, tensor.dtype)


def _resample_key(a: Mapping[str, Any]) -> Any:
    values, kind, splits, rows = a["values"], a["kind"], a["row_splits"], a["rows"]
    return (
        values.shape,
        values.dtype,
        a["target_times"].shape,
        kind if type(kind) is str else repr(kind),
        a["out_dtype"],
        None if splits is None else splits.shape,
        None if rows is None else rows.shape,
    )


def _fuse_key(a: Mapping[str, Any]) -> Any:
    streams = a["streams"]
    key: list[Any] = [a["target_times"].shape, a["out_dtype"]]
    for stream in streams.values() if isinstance(streams, Mapping) else streams:
        values, kind = stream.values, stream.kind
        key += [values.shape, values.dtype, kind if type(kind) is str else repr(kind)]
        key += [_form(stream.row_splits), _form(stream.rows)]
    return tuple(key)


def _voxel_key(points: Tensor, features: Any, a: Mapping[str, Any], *more: Any) -> Any:
    reduce, grid_size = a["reduce"], a["grid_size"]
    return (
        points.shape,
        points.dtype,
        _form(features),
        tuple(reduce) if type(reduce) is list else reduce,
        tuple(grid_size) if type(grid_size) is list else grid_size,
        a["out_dtype"],
        *more,
    )


def _voxelize_key(a: Mapping[str, Any]) -> Any:
    extras = (a["return_counts"], a["return_inverse"])
    return _voxel_key(a["points"], a["features"], a, *extras, _form(a["row_splits"]))


def _depth_key(a: Mapping[str, Any]) -> Any:
    return _voxel_key(a["depth"], a["color"], a, a["return_counts"], a["return_inverse"])


def _sparse_key(a: Mapping[str, Any]) -> Any:
    return _voxel_key(a["points"], a["features"], a, a["max_voxels"], a["max_points"], _form(a["row_splits"]))


def _devoxelize_key(a: Mapping[str, Any]) -> Any:
    return _form(a["grid"]), _form(a["points"]), a["mode"], a["layout"], a["out_dtype"], _form(a["row_splits"])


_KEYS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "resample": _resample_key,
    "fuse": _fuse_key,
    "voxelize": _voxelize_key,
    "voxelize_sparse": _sparse_key,
    "voxelize_depth": _depth_key,
    "devoxelize": _devoxelize_key,
}


def signature(op: str, arguments: Mapping[str, Any]) -> Any:
    """A key that calls share whose work and bytes are the same. May be unhashable where arguments are."""
    return op, torch.get_num_threads(), _KEYS[op](arguments)
