"""Calls of every operation by size: those that tuning measures, and others that it does not see."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import torch

from .._stream import Stream

Spec = dict[str, Any]  # sizes and options of one call, plain data

_KINDS = ("linear", "angle", "slerp_xyzw", "pchip")
_MOST_OUTPUTS = 1 << 22
_MOST_OUT_BYTES = 48 << 20
_SIDE = 1.0  # edge of the cube that points lie in


# ---- Sizes ------------------------------------------------------------------------------------------------------


def _align_spec(kind: str, batch: int, outputs: int, columns: int, ratio: float, dtype: str) -> Spec:
    targets = max(1, outputs // (batch * columns))
    return {
        "kind": kind,
        "batch": batch,
        "columns": columns,
        "targets": targets,
        "samples": max(2, round(targets * ratio)),
        "dtype": dtype,
    }


def _align_grid(quick: bool) -> list[Spec]:
    batches = (1, 64) if quick else (1, 16, 256)
    sizes = (14, 18, 22) if quick else (13, 16, 19, 22)
    specs = []
    for number, (kind, batch, size) in enumerate((k, b, s) for k in _KINDS for b in batches for s in sizes):
        columns = (8, 64, 16, 256, 4)[number % 5]
        dtype = "bfloat16" if kind == "linear" and number % 2 else "float32"
        specs.append(_align_spec(kind, batch, 1 << size, columns, (0.5, 2.0)[number % 2], dtype))
    return specs


def _align_unseen(draw: random.Random) -> Spec:
    return _align_spec(
        draw.choice(_KINDS),
        _between(draw, 1, 400),
        _between(draw, 12_000, _MOST_OUTPUTS),
        4 * _between(draw, 1, 50),
        draw.uniform(0.4, 2.5),
        draw.choice(("float32", "float32", "bfloat16")),
    )


def _voxel_spec(reduce: Any, batch: int, points: int, columns: int, size: int) -> Spec:
    featured = sum(name in ("mean", "max", "sum", "min") for name in ([reduce] if isinstance(reduce, str) else reduce))
    width = 4 * (columns * featured + 1)
    while batch * size**3 * width > _MOST_OUT_BYTES and size > 16:
        size = size * 3 // 4
    return {
        "reduce": reduce,
        "batch": batch,
        "points": max(1, points // batch),
        "columns": columns if featured else 0,
        "size": size,
    }


_REDUCES: tuple[Any, ...] = ("occupancy", "count", "mean", ("mean", "max", "count"))


def _voxel_grid(quick: bool) -> list[Spec]:
    batches = (1, 16) if quick else (1, 8, 64)
    sizes = (12, 16, 20) if quick else (11, 14, 17, 20)
    specs = []
    for number, (reduce, batch, size) in enumerate((r, b, s) for r in _REDUCES for b in batches for s in sizes):
        specs.append(_voxel_spec(reduce, batch, 1 << size, (4, 16)[number % 2], (32, 64, 128)[number % 3]))
    return specs


def _voxel_unseen(draw: random.Random) -> Spec:
    points = _between(draw, 1500, 1 << 20)
    return _voxel_spec(
        draw.choice(_REDUCES), _between(draw, 1, 80), points, _between(draw, 2, 20), _between(draw, 24, 140)
    )


def _sparse_spec(reduce: str | None, listed: int | None, batch: int, points: int, columns: int, size: int) -> Spec:
    points = max(1, points // batch)
    voxels = max(16, points // 4)
    return {
        "reduce": reduce,
        "max_points": listed,
        "batch": batch,
        "points": points,
        "columns": columns if reduce else 0,
        "size": size,
        "max_voxels": voxels,
    }


def _sparse_grid(quick: bool) -> list[Spec]:
    sizes = (12, 16, 20) if quick else (11, 13, 15, 17, 20)
    forms: tuple[tuple[str | None, int | None], ...] = ((None, None), ("mean", None), (None, 8))
    specs = []
    for number, ((reduce, listed), batch, size) in enumerate((f, b, s) for f in forms for b in (1, 16) for s in sizes):
        specs.append(_sparse_spec(reduce, listed, batch, 1 << size, (4, 16)[number % 2], (64, 128)[number % 2]))
    return specs


def _sparse_unseen(draw: random.Random) -> Spec:
    reduce, listed = draw.choice(((None, None), ("mean", None), (None, 8)))
    points = _between(draw, 1500, 1 << 20)
    return _sparse_spec(reduce, listed, _between(draw, 1, 20), points, _between(draw, 2, 20), _between(draw, 50, 140))


def _depth_spec(reduce: str, batch: int, height: int, width: int, dtype: str, size: int) -> Spec:
    columns = 3 if reduce == "mean" else 0
    while batch * size**3 * 4 * (columns + 1) > _MOST_OUT_BYTES and size > 16:
        size = size * 3 // 4
    return {
        "reduce": reduce,
        "batch": batch,
        "height": height,
        "width": width,
        "dtype": dtype,
        "columns": columns,
        "size": size,
    }


def _depth_grid(quick: bool) -> list[Spec]:
    images = ((60, 80), (240, 320)) if quick else ((48, 64), (120, 160), (240, 320), (480, 640))
    specs = []
    for number, (reduce, batch, image) in enumerate(
        (r, b, i) for r in ("occupancy", "mean") for b in (1, 4, 16) for i in images
    ):
        if batch * image[0] * image[1] <= 1 << 21:
            specs.append(_depth_spec(reduce, batch, *image, ("uint16", "float32")[number % 2], (50, 100)[number % 2]))
    return specs


def _depth_unseen(draw: random.Random) -> Spec:
    height, batch = _between(draw, 50, 480), _between(draw, 1, 12)
    while batch * height * height * 4 // 3 > 1 << 21:
        height = height * 3 // 4
    dtype = draw.choice(("uint16", "float32"))
    return _depth_spec(
        draw.choice(("occupancy", "mean")), batch, height, height * 4 // 3, dtype, _between(draw, 30, 110)
    )


def _devoxelize_spec(mode: str, batch: int, points: int, columns: int, size: int) -> Spec:
    while batch * size**3 * 4 * columns > _MOST_OUT_BYTES and size > 8:
        size = size * 3 // 4
    return {"mode": mode, "batch": batch, "points": max(1, points // batch), "columns": columns, "size": size}


def _devoxelize_grid(quick: bool) -> list[Spec]:
    sizes = (12, 16, 19) if quick else (11, 13, 15, 17, 19)
    specs = []
    for number, (mode, batch, size) in enumerate(
        (m, b, s) for m in ("trilinear", "nearest") for b in (1, 16) for s in sizes
    ):
        for columns, edge in ((4, 64), (32, 32)) if number % 2 else ((4, 32), (16, 64)):
            specs.append(_devoxelize_spec(mode, batch, 1 << size, columns, edge))
    return specs


def _devoxelize_unseen(draw: random.Random) -> Spec:
    points = _between(draw, 1500, 1 << 19)
    mode = draw.choice(("trilinear", "nearest"))
    return _devoxelize_spec(mode, _between(draw, 1, 20), points, _between(draw, 2, 36), _between(draw, 24, 72))


def _between(draw: random.Random, low: int, high: int) -> int:
    """A whole number, evenly spread in its logarithm."""
    return round(math.exp(draw.uniform(math.log(low), math.log(high))))


# ---- Arguments --------------------------------------------------------------------------------------------------


def _stamps(batch: int, count: int, generator: torch.Generator) -> torch.Tensor:
    jitter = torch.rand(batch, count, generator=generator, dtype=torch.float64)
    return (torch.arange(count, dtype=torch.float64) + 0.8 * jitter) / count


def _targets(spec: Spec, generator: torch.Generator) -> torch.Tensor:
    return _stamps(spec["batch"], spec["targets"], generator) * 0.9 + 0.05


def _values(spec: Spec, columns: int, samples: int, generator: torch.Generator) -> torch.Tensor:
    shape = (spec["batch"], samples, columns)
    # Drawn once and repeated: drawing costs more than the calls that are timed.
    some = torch.randn(min(math.prod(shape), 1 << 16), generator=generator)
    flat = some.repeat(-(-math.prod(shape) // some.numel()))[: math.prod(shape)]
    return flat.reshape(shape).to(getattr(torch, spec["dtype"]))


def _resample(spec: Spec, generator: torch.Generator) -> dict[str, Any]:
    return {
        "values": _values(spec, spec["columns"], spec["samples"], generator),
        "times": _stamps(spec["batch"], spec["samples"], generator),
        "target_times": _targets(spec, generator),
        "kind": spec["kind"],
    }


def _fuse(spec: Spec, generator: torch.Generator) -> dict[str, Any]:
    """Three streams: the spec's own, one of half the columns and another rate, and a command of one column."""
    streams = []
    for columns, samples, kind in (
        (spec["columns"], spec["samples"], spec["kind"]),
        (max(1, spec["columns"] // 2), max(2, spec["samples"] // 3), "linear"),
        (1, max(2, spec["samples"] // 2), "previous"),
    ):
        values = _values(spec, columns, samples, generator)
        streams.append(Stream(values, _stamps(spec["batch"], samples, generator), kind))
    return {"streams": streams, "target_times": _targets(spec, generator)}


def _rows(batch: int, count: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(batch, count, columns, generator=generator)


def _where(spec: Spec) -> dict[str, Any]:
    return {"voxel_size": _SIDE / spec["size"], "grid_min": 0.0}


def _voxelize(spec: Spec, generator: torch.Generator) -> dict[str, Any]:
    features = None
    if spec["columns"]:
        features = _rows(spec["batch"], spec["points"], spec["columns"], generator)
    reduce = spec["reduce"] if isinstance(spec["reduce"], str) else tuple(spec["reduce"])
    return {
        "points": _rows(spec["batch"], spec["points"], 3, generator),
        "features": features,
        "grid_size": (spec["size"],) * 3,
        "reduce": reduce,
        **_where(spec),
    }


def _sparse(spec: Spec, generator: torch.Generator) -> dict[str, Any]:
    arguments = _voxelize({**spec, "reduce": "count"}, generator)
    return {**arguments, **{name: spec[name] for name in ("reduce", "max_points", "max_voxels")}}


def _depth(spec: Spec, generator: torch.Generator) -> dict[str, Any]:
    shape = (spec["batch"], 1, spec["height"], spec["width"])
    depth = torch.rand(shape, generator=generator) * 0.9 + 0.1
    color = torch.rand(*shape, 3, generator=generator) if spec["columns"] else None
    focal = float(spec["width"])
    millimeters = spec["dtype"] == "uint16"
    return {
        "depth": (depth * 1000).to(torch.int32).to(torch.uint16) if millimeters else depth,
        "intrinsics": torch.tensor([focal, focal, spec["width"] / 2, spec["height"] / 2]),
        "camera_to_grid": torch.eye(4)[:3].expand(spec["batch"], 1, 3, 4),
        "color": color,
        "depth_scale": 0.001 if millimeters else 1.0,
        "grid_size": (spec["size"],) * 3,
        "reduce": spec["reduce"],
        "voxel_size": _SIDE / spec["size"],
        "grid_min": (-0.5, -0.5, 0.0),
    }


def _devoxelize(spec: Spec, generator: torch.Generator) -> dict[str, Any]:
    shape = (spec["batch"], *[spec["size"]] * 3, spec["columns"])
    return {
        "grid": torch.rand(shape, generator=generator),
        "points": _rows(spec["batch"], spec["points"], 3, generator),
        "mode": spec["mode"],
        **_where(spec),
    }


_GRIDS: dict[str, Callable[[bool], list[Spec]]] = {
    "resample": _align_grid,
    "fuse": _align_grid,
    "voxelize": _voxel_grid,
    "voxelize_sparse": _sparse_grid,
    "voxelize_depth": _depth_grid,
    "devoxelize": _devoxelize_grid,
}
_UNSEEN: dict[str, Callable[[random.Random], Spec]] = {
    "resample": _align_unseen,
    "fuse": _align_unseen,
    "voxelize": _voxel_unseen,
    "voxelize_sparse": _sparse_unseen,
    "voxelize_depth": _depth_unseen,
    "devoxelize": _devoxelize_unseen,
}
_BUILD: dict[str, Callable[[Spec, torch.Generator], dict[str, Any]]] = {
    "resample": _resample,
    "fuse": _fuse,
    "voxelize": _voxelize,
    "voxelize_sparse": _sparse,
    "voxelize_depth": _depth,
    "devoxelize": _devoxelize,
}


def grid(op: str, quick: bool = False) -> list[Spec]:
    """The sizes that tuning measures: batch and size on a log grid."""
    return _GRIDS[op](quick)


def unseen(op: str, count: int, seed: int = 1) -> list[Spec]:
    """`count` sizes that are in no grid, evenly spread in their logarithms; the same for the same seed."""
    draw = random.Random(f"{op} {seed}")
    known = [*grid(op), *grid(op, True)]
    found: list[Spec] = []
    while len(found) < count:
        spec = _UNSEEN[op](draw)
        if spec not in known and spec not in found:
            found.append(spec)
    return found


def build(op: str, spec: Spec, seed: int = 0) -> dict[str, Any]:
    """The public function's arguments, with host tensors; those that are left out have their defaults."""
    generator = torch.Generator().manual_seed(seed)
    return _BUILD[op](spec, generator)
