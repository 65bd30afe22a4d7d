"""A dense call from its options to its results: which outputs are written, where they stand, what is handed out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._checks import VALUE_DTYPES, shape_text
from ._kinds import choice
from ._voxel_call import Source, call, prepare_grid, want_deterministic
from ._voxel_checks import (
    TORCH_DTYPES,
    dtype_name,
    grid_sizes,
    remembered,
    want_device,
    want_flag,
    want_number,
    want_room,
    want_tensor,
)
from ._voxel_names import (
    BOUNDS,
    COUNTED,
    DTYPES,
    LAYOUTS,
    REDUCES,
    dense_shape,
    each_grid,
    output_dtypes,
    reductions,
)


class Options(NamedTuple):
    """Keyword arguments of a dense call, as they came."""

    voxel_size: Any
    grid_min: Any
    grid_size: Any
    reduce: Any
    bounds: Any
    layout: Any
    out_dtype: Any
    empty_value: Any
    deterministic: Any
    return_counts: Any
    return_inverse: Any
    return_dropped: Any
    out: Any
    backend: Any


def _given_out(out: Any, names: tuple[str, ...], several: bool, source: Source) -> dict[str, Tensor]:
    """The caller's own outputs by name, or none."""
    if out is None:
        return {}
    if several != isinstance(out, Mapping) or (several and set(out) != set(names)):
        told = f"a dict of tensors for {', '.join(names)}" if several else "one torch.Tensor"
        raise TypeError(f"out: expected {told}, got {sorted(out) if isinstance(out, Mapping) else type(out).__name__}")
    named = dict(out) if several else {names[0]: out}
    for name, tensor in named.items():
        label = f"out[{name!r}]" if several else "out"
        if name not in COUNTED:
            raise ValueError(f"{label}: expected None, as only occupancy and count add up over calls, got {name}")
        want_tensor(label, tensor, VALUE_DTYPES)
        want_device(label, tensor, source.name, source.data.device)
        if not tensor.is_contiguous():
            raise ValueError(f"{label}: expected a contiguous tensor, got strides {shape_text(tensor.stride())}")
        if tensor.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{label}: expected a tensor that requires no gradient")
    return named


def _want_form(given: dict[str, Tensor], plan: Plan, alone: bool) -> None:
    for name, dtype, shape in zip(plan.names, plan.dtypes, plan.shapes, strict=False):
        tensor = given[name]
        label = f"out[{name!r}]" if plan.several else "out"
        own = shape[1:] if alone else shape
        if tuple(tensor.shape) != tuple(own):
            symbols = "X, Y, ceil(Z / 8)" if dtype == "bits" else "X, Y, Z"
            told = f"[{symbols}]" if alone else f"[B, {symbols}]"
            raise ValueError(f"{label}: expected {told} = {shape_text(own)}, got {shape_text(tensor.shape)}")
        if tensor.dtype != TORCH_DTYPES[dtype]:
            raise TypeError(f"{label}: expected {dtype_name(TORCH_DTYPES[dtype])}, got {dtype_name(tensor.dtype)}")


class Plan(NamedTuple):
    """What the options of a call decide, whatever its tensors hold."""

    names: tuple[str, ...]
    several: bool  # a dict is wanted
    dtypes: tuple[str, ...]  # of the outputs that are handed out
    shapes: tuple[tuple[Any, ...], ...]  # of the outputs that are written
    reduce: tuple[int, ...]  # likewise
    numbers: tuple[int, ...]  # likewise: rc_dtype
    featured: bool
    size: tuple[Any, Any, Any]
    bounds: int
    first: bool  # channels first
    flags: tuple[bool, bool, bool]  # counts, inverse and dropped are wanted


def _plan(
    reduce: Any,
    bounds: Any,
    layout: Any,
    out_dtype: Any,
    deterministic: Any,
    flags: tuple[Any, Any, Any],
    grid_size: Any,
    carried: tuple[str, Any] | None,  # dtype and columns of the features
    feature_name: str,
    batch: Any,
    device: torch.device,
    adds: bool,  # to the caller's grids
) -> Plan:
    several = not isinstance(reduce, str)
    names = reductions(reduce, list(REDUCES), carried is not None, feature_name, "a torch.Tensor")
    outside, first = choice("bounds", bounds, BOUNDS), bool(choice("layout", layout, LAYOUTS))
    size = grid_sizes(grid_size, batch)
    want_deterministic(deterministic)
    for name, flag in zip(("counts", "inverse", "dropped"), flags, strict=True):
        want_flag(f"return_{name}", flag)
    dtypes = output_dtypes(names, out_dtype, None if carried is None else carried[0], dtype_name)
    columns = 0 if carried is None else carried[1]
    # Counts beside the grid are one more output; a count in another dtype follows from them.
    written, wide = list(names), list(dtypes)
    if flags[0]:
        if "count" not in names:
            written.append("count")
            wide.append("int32")
        elif adds:
            raise ValueError("return_counts: expected False where out adds up counts already, got True")
        else:
            place = names.index("count")
            wide[place] = "int64" if dtypes[place] == "int64" else "int32"
    shapes = [dense_shape(name, dtype, batch, size, columns, first) for name, dtype in zip(written, wide, strict=True)]
    if not adds:
        x, y, z = size

        def told() -> str:
            return f"{', '.join(names)} of {batch} x {x} x {y} x {z} cells"

        want_room("grid_size", told, list(zip(shapes, wide, strict=True)), device)
    numbers = tuple([DTYPES[dtype] for dtype in wide])
    return Plan(
        names,
        several,
        tuple(dtypes),
        tuple(shapes),
        tuple([REDUCES[name] for name in written]),
        numbers,
        any(name not in COUNTED for name in names),
        size,
        outside,
        first,
        flags,
    )


def _run_one(source: Source, features: Tensor | None, feature_name: str, options: Options) -> Any:
    out, grid_size, device = options.out, options.grid_size, source.data.device
    carried = None if features is None else (dtype_name(features.dtype), features.shape[-1])
    shared = (options.bounds, options.layout)
    flags = (options.return_counts, options.return_inverse, options.return_dropped)
    rest: tuple[Any, ...] = (
        options.deterministic,
        flags,
        grid_size,
        carried,
        feature_name,
        source.batch,
        device,
        out is not None,
    )
    given: dict[str, Tensor] = {}
    if out is None:
        plan = remembered(_plan, options.reduce, *shared, options.out_dtype, *rest)
    else:
        names = reductions(options.reduce, list(REDUCES), carried is not None, feature_name, "a torch.Tensor")
        given = _given_out(out, names, not isinstance(options.reduce, str), source)
        asked = options.out_dtype
        asked = {name: tensor.dtype for name, tensor in given.items()} if asked is None else asked
        plan = _plan(options.reduce, *shared, asked, *rest)
        _want_form(given, plan, source.alone)
    empty_value = want_number("empty_value", options.empty_value)
    grid = prepare_grid(source, options.voxel_size, options.grid_min)
    features = features if plan.featured else None
    frame = (plan.reduce, plan.numbers, plan.size, *grid)
    last = (plan.bounds, plan.first, empty_value, *flags[1:])
    args: tuple[Any, ...]
    if source.intrinsics is None:
        name = "voxelize"
        args = (source.data, features, *frame, source.row_splits, source.mask, source.poses, *last)
    else:
        name = "voxelize_depth"
        args = (source.data, source.intrinsics, features, *frame, source.mask, source.poses, source.depth_scale, *last)
    if not given:
        made = call(name, options.backend, device, (features,), args)
        return _handed_out(source, plan, list(made), None)
    into = [given[name].unsqueeze(0) if source.alone else given[name] for name in plan.names]
    if len(plan.reduce) > len(into):
        into.append(torch.zeros(plan.shapes[-1], dtype=torch.int32, device=device))
    made = call(f"{name}_out", options.backend, device, (), args, out=into)
    return _handed_out(source, plan, [*into, *made], out)


def _counts_as(counts: Tensor, dtype: torch.dtype) -> Tensor:
    """Whole counts as the kernels write them in `dtype`: integers hold at their largest, floats round once."""
    if dtype == torch.bool:
        return counts > 0
    if dtype.is_floating_point:
        return counts.to(torch.float64 if dtype == torch.float64 else torch.float32).to(dtype)
    return counts.clamp(max=torch.iinfo(dtype).max).to(dtype)


def _handed_out(source: Source, plan: Plan, made: list[Tensor], out: Any) -> Any:
    names = plan.names
    grids, extras = made[: len(names)], made[len(names) :]
    results: list[Tensor] = []
    if plan.flags[0]:
        if "count" in names:
            place = names.index("count")
            counts, dtype = grids[place], TORCH_DTYPES[plan.dtypes[place]]
            grids[place] = counts if counts.dtype == dtype else _counts_as(counts, dtype)
        else:
            counts = extras.pop(0)
        counts = counts if counts.dtype == torch.int32 else _counts_as(counts, torch.int32)
        results.append(counts.squeeze(0) if source.alone else counts)
    if plan.flags[1]:
        results.append(extras.pop(0).reshape(source.shape))
    if plan.flags[2]:
        dropped = extras.pop(0)
        results.append(dropped.reshape(()) if source.alone else dropped)
    result = out
    if out is None:
        plain = [grid.squeeze(0) for grid in grids] if source.alone else grids
        result = dict(zip(names, plain, strict=True)) if plan.several else plain[0]
    return (result, *results) if results else result


def run_dense(source: Source, features: Tensor | None, feature_name: str, options: Options) -> Any:
    """The results of voxelize_point_cloud and voxelize_depth; a list of them for several grids."""
    grids = each_grid(options.grid_size, options.voxel_size, options.grid_min)
    if grids is None:
        return _run_one(source, features, feature_name, options)
    if options.out is not None:
        raise ValueError("out: expected None beside several grids")
    return [
        _run_one(source, features, feature_name, options._replace(grid_size=size, voxel_size=voxel, grid_min=low))
        for size, voxel, low in grids
    ]
