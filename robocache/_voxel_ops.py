"""What Python adds to the voxelize and devoxelize operators: fakes and gradients. Used by _ops.

Numbers for reductions, dtypes and bounds are the enums of robocache.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._schemas import as_dispatched, named, names_of
from .reference.devoxelize import grid_gradient

LISTS = ("voxelize", "voxelize_depth", "voxelize_sparse")  # those that return Tensor[]
FUNCTIONAL = (*LISTS, "devoxelize")
TWINS = tuple(f"_{name}" for name in FUNCTIONAL)
GRAD_TWINS = tuple(f"_{name}_grad" for name in FUNCTIONAL)
COMPOSITE = ("voxelize_out", "voxelize_depth_out")  # in terms of OUT
OUT = tuple(f"_{name}" for name in COMPOSITE)
BACKWARD = ("voxelize_backward", "devoxelize_backward")
OPS: tuple[str, ...] = (*FUNCTIONAL, *TWINS, *GRAD_TWINS, *COMPOSITE, *OUT, *BACKWARD)

OCCUPANCY, COUNT, SUM, MEAN, MAX, MIN, ARGMAX, ARGMIN = range(8)
INT32, INT64, BITS = 8, 9, 11
DTYPES: dict[int, torch.dtype] = {
    0: torch.float16,
    1: torch.bfloat16,
    2: torch.float32,
    3: torch.float64,
    4: torch.bool,
    5: torch.uint8,
    6: torch.int8,
    7: torch.int16,
    INT32: torch.int32,
    INT64: torch.int64,
    BITS: torch.uint8,
}
DROP, RAISE = 0, 2

Bound = dict[str, Any]

# ---- Fakes ----------------------------------------------------------------------------------------------------------


def _batch(points: Tensor, row_splits: Tensor | None) -> Any:
    return points.shape[0] if row_splits is None else row_splits.shape[0] - 1


def _check_points(points: Tensor, row_splits: Tensor | None) -> None:
    packed = row_splits is not None
    torch._check(
        points.ndim == (2 if packed else 3),
        lambda: f"points: expected {'[N, 3]' if packed else '[B, N, 3]'}, got {list(points.shape)}",
    )
    torch._check(points.shape[-1] == 3, lambda: f"points: expected three coordinates, got {list(points.shape)}")


def _check_lists(bound: Bound) -> None:
    reduce, dtypes = bound["reduce"], bound["out_dtypes"]
    torch._check(len(reduce) <= 8, lambda: f"reduce: expected at most 8 numbers, got {len(reduce)}")
    torch._check(
        len(reduce) == len(dtypes),
        lambda: f"out_dtypes: expected one number for each of the {len(reduce)} reductions, got {len(dtypes)}",
    )
    for one, dtype in zip(reduce, dtypes, strict=True):
        torch._check(0 <= one <= ARGMIN, lambda one=one: f"reduce: expected 0 to 7, got {one}")
        torch._check(dtype in DTYPES, lambda dtype=dtype: f"out_dtypes: expected 0 to 9 or 11, got {dtype}")
    for name in ("grid_size", "voxel_size", "grid_min"):
        torch._check(len(bound[name]) == 3, lambda name=name: f"{name}: expected 3 numbers, got {len(bound[name])}")


def _check_values(name: str, values: Tensor | None, shape: Sequence[Any], reduce: Sequence[int]) -> Any:
    """Columns of the features; they must be there for reductions of them."""
    if values is None:
        torch._check(all(one <= COUNT for one in reduce), lambda: f"{name}: expected values, got none")
        return 0
    torch._check(
        values.ndim == len(shape) + 1,
        lambda: f"{name}: expected [{', '.join(map(str, shape))}, C], got {list(values.shape)}",
    )
    for size, wanted in zip(values.shape, shape, strict=False):
        torch._check(
            size == wanted, lambda: f"{name}: expected [{', '.join(map(str, shape))}, C], got {list(values.shape)}"
        )
    return values.shape[-1]


def _fake_dense(points: Tensor, batch: Any, columns: Any, bound: Bound) -> list[Tensor]:
    x, y, z = bound["grid_size"]
    made = []
    for reduce, dtype in zip(bound["reduce"], bound["out_dtypes"], strict=True):
        size: tuple[Any, ...] = (batch, x, y, (z + 7) // 8 if dtype == BITS else z)
        if reduce > COUNT:
            size = (batch, columns, x, y, z) if bound["channels_first"] else (batch, x, y, z, columns)
        made.append(points.new_empty(size, dtype=DTYPES[dtype]))
    return made


def _fake_extras(points: Tensor, shape: Sequence[Any], batch: Any, bound: Bound) -> list[Tensor]:
    made = [points.new_empty(shape, dtype=torch.int64)] if bound["need_inverse"] else []
    return made + ([points.new_empty((batch,), dtype=torch.int64)] if bound["need_dropped"] else [])


def _check_call(name: str, bound: Bound) -> tuple[Tensor, Sequence[Any], Any, Any]:
    """Points (or depths), shape of what each of them has one of, batch and columns."""
    _check_lists(bound)
    if name == "voxelize_depth":
        depth, intrinsics = bound["depth"], bound["intrinsics"]
        torch._check(depth.ndim == 4, lambda: f"depth: expected [B, V, H, W], got {list(depth.shape)}")
        torch._check(
            intrinsics.ndim == 3 and intrinsics.shape[-1] == 4,
            lambda: f"intrinsics: expected [B, V, 4], got {list(intrinsics.shape)}",
        )
        columns = _check_values("color", bound["color"], depth.shape, bound["reduce"])
        return depth, depth.shape, depth.shape[0], columns
    points, row_splits = bound["points"], bound["row_splits"]
    _check_points(points, row_splits)
    columns = _check_values("features", bound["features"], points.shape[:-1], bound["reduce"])
    return points, points.shape[:-1], _batch(points, row_splits), columns


def _fake_voxelize(name: str, bound: Bound) -> list[Tensor]:
    points, shape, batch, columns = _check_call(name, bound)
    return _fake_dense(points, batch, columns, bound) + _fake_extras(points, shape, batch, bound)


def _fake_out(name: str, bound: Bound) -> tuple[Tensor, Tensor]:
    points, shape, batch, _ = _check_call(name, bound)
    return (
        points.new_empty(shape if bound["need_inverse"] else (0,), dtype=torch.int64),
        points.new_empty((batch if bound["need_dropped"] else 0,), dtype=torch.int64),
    )


def _fake_sparse(name: str, bound: Bound) -> list[Tensor]:
    points, shape, batch, columns = _check_call(name, bound)
    cap, per_voxel = bound["max_voxels"], bound["max_points"]
    made = [
        points.new_empty((batch, cap, 3), dtype=torch.int32),
        points.new_empty((batch,), dtype=torch.int64),
    ]
    for reduce, dtype in zip(bound["reduce"], bound["out_dtypes"], strict=True):
        made.append(points.new_empty((batch, cap, columns) if reduce > COUNT else (batch, cap), dtype=DTYPES[dtype]))
    if per_voxel > 0:
        torch._check(bound["features"] is not None, lambda: "features: expected values for max_points, got none")
        made.append(bound["features"].new_empty((batch, cap, per_voxel, columns)))
    count = (2 if per_voxel > 0 else 1) if bound["need_inverse"] else 0
    return made + [points.new_empty(shape, dtype=torch.int64) for _ in range(count)]


def _fake_devoxelize(name: str, bound: Bound) -> Tensor:
    grid, points = bound["grid"], bound["points"]
    torch._check(grid.ndim == 5, lambda: f"grid: expected [B, X, Y, Z, C], got {list(grid.shape)}")
    _check_points(points, bound["row_splits"])
    return points.new_empty((*points.shape[:-1], grid.shape[-1]), dtype=bound["out_dtype"] or grid.dtype)


def _fake_voxelize_backward(name: str, bound: Bound) -> Tensor:
    grads, inverse = bound["grads"], bound["inverse"]
    torch._check(len(grads) > 0, lambda: "grads: expected 1 to 4 tensors, got 0")
    columns = grads[0].shape[1 if bound["channels_first"] else -1]
    return inverse.new_empty((*inverse.shape, columns), dtype=bound["dtype"])


def _fake_devoxelize_backward(name: str, bound: Bound) -> tuple[Tensor, Tensor]:
    grid, points = bound["grid"], bound["points"]
    return (
        grid.new_empty(grid.shape if bound["need_grid"] else (0,)),
        points.new_empty(points.shape if bound["need_points"] else (0,)),
    )


FAKES = {
    "voxelize": _fake_voxelize,
    "voxelize_depth": _fake_voxelize,
    "voxelize_sparse": _fake_sparse,
    "devoxelize": _fake_devoxelize,
}


def register_fakes() -> None:
    fakes = {
        **{
            twin: FAKES[name]
            for names in (FUNCTIONAL, TWINS, GRAD_TWINS)
            for name, twin in zip(FAKES, names, strict=True)
        },
        **dict.fromkeys(OUT, _fake_out),
        **dict(zip(BACKWARD, (_fake_voxelize_backward, _fake_devoxelize_backward), strict=True)),
    }
    for op, fake in fakes.items():
        public = op.removeprefix("_").removesuffix("_grad").removesuffix("_out")

        def call(*args: Any, _op: str = op, _public: str = public, _fake: Any = fake, **kwargs: Any) -> Any:
            return _fake(_public, named(_op, args, kwargs))

        torch.library.register_fake(f"robocache::{op}", call)


# ---- Gradients ------------------------------------------------------------------------------------------------------


def feature_name(name: str) -> str:
    return "color" if name == "voxelize_depth" else "features"


def differentiable(name: str, bound: Bound) -> list[bool]:
    """Of each result of an operator that returns a list: does a gradient flow through it?"""
    flows = [SUM <= one <= MIN for one in bound["reduce"]]
    if name == "voxelize_sparse":
        hard = bound["max_points"] > 0
        extras = (2 if hard else 1) if bound["need_inverse"] else 0
        return [False, False, *flows, *[True] * hard, *[False] * extras]
    return [*flows, *[False] * (bound["need_inverse"] + bound["need_dropped"])]


def _kept(name: str, bound: Bound, outputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """What of the results a backward can use again."""
    first = 2 if name == "voxelize_sparse" else 0
    kept = {}
    for one, dtype, output in zip(bound["reduce"], bound["out_dtypes"], outputs[first:], strict=False):
        if one == COUNT and dtype == INT32:
            kept["counts"] = output
    if bound["need_inverse"]:
        at = first + len(bound["reduce"])
        if name == "voxelize_sparse" and bound["max_points"] > 0:
            return {**kept, "inverse": outputs[at + 1], "slots": outputs[at + 2]}
        return {**kept, "inverse": outputs[at]}
    return kept


def save(ctx: Any, name: str, args: Sequence[Any], outputs: Sequence[Tensor]) -> None:
    """Keeps on `ctx` what backward_of() needs. Features themselves are needed for max and min alone."""
    names = names_of(name)
    bound = dict(zip(names, args, strict=True))
    flows = differentiable(name, bound)
    if len(outputs) != len(flows):
        return  # a stand-in for the results of a call that failed
    ctx.mark_non_differentiable(*[output for output, flow in zip(outputs, flows, strict=True) if not flow])
    values = bound[feature_name(name)]
    ctx.values_dtype, ctx.num_args = values.dtype, len(names)
    ctx.plain = {key: None if isinstance(arg, Tensor) else arg for key, arg in bound.items()}
    kept = _kept(name, bound, outputs)
    tensors = {key: arg for key, arg in bound.items() if isinstance(arg, Tensor)}
    if not any(one in (MAX, MIN) for one in bound["reduce"]) and (
        "slots" in kept or not bound.get("max_points")  # recomputing slots gathers features again
    ):
        del tensors[feature_name(name)]
    ctx.saved_names = (*tensors, *kept)
    ctx.kept_names = tuple(kept)
    ctx.save_for_backward(*tensors.values(), *kept.values())


def backward_of(ctx: Any, name: str, grads: Sequence[Tensor | None]) -> Tensor | None:
    """Gradient of the features from those of an operator's results."""
    saved = dict(zip(ctx.saved_names, ctx.saved_tensors, strict=True))
    kept = {key: saved.pop(key) for key in ctx.kept_names}
    return features_backward(name, {**ctx.plain, **saved}, grads, ctx.values_dtype, kept)


def _points_in_a_sample(name: str, bound: Bound) -> Any:
    if name == "voxelize_depth":
        _, cameras, height, width = bound["depth"].shape
        return cameras * height * width
    return bound["points"].shape[-2]


def features_backward(
    name: str, bound: Bound, grads: Sequence[Tensor | None], dtype: torch.dtype, kept: dict[str, Tensor]
) -> Tensor | None:
    """See backward_of(). `kept` are results of the forward call that need no recomputing."""
    sparse = name == "voxelize_sparse"
    first = 2 if sparse else 0
    wanted = [
        (one, grad)
        for one, grad in zip(bound["reduce"], grads[first:], strict=False)
        if grad is not None and SUM <= one <= MIN
    ]
    hard = bound["max_points"] if sparse else 0
    gathered = grads[first + len(bound["reduce"])] if hard else None
    again = []
    if any(one == MEAN for one, _ in wanted) and "counts" not in kept:
        again.append((COUNT, INT32))
    index = INT32 if _points_in_a_sample(name, bound) < 2**31 else INT64
    again += [(arg, index) for one, arg in ((MAX, ARGMAX), (MIN, ARGMIN)) if any(w == one for w, _ in wanted)]
    need_slots = gathered is not None and "slots" not in kept
    need_inverse = need_slots or (bool(wanted) and "inverse" not in kept)
    found = dict(kept)
    args: dict[int, Tensor] = {}
    if again or need_inverse:
        call = {
            **bound,
            "reduce": [one for one, _ in again],
            "out_dtypes": [number for _, number in again],
            "bounds": DROP if bound["bounds"] == RAISE else bound["bounds"],  # it has been said once
            "need_inverse": need_inverse,
        }
        call |= {"max_points": hard if need_slots else 0} if sparse else {"need_dropped": False}
        results = getattr(torch.ops.robocache, f"_{name}")(*call.values())[first:]
        args = {one: result for (one, _), result in zip(again, results, strict=False)}
        found = {**_kept(name, call, [*[results[0]] * first, *results]), **found} if results else found
    parts: list[Tensor] = []
    row_splits = bound.get("row_splits")
    if wanted:
        none = wanted[0][1].new_empty(0, dtype=torch.int32)
        rows = bound["max_voxels"] if sparse else bound["grid_size"][0] * bound["grid_size"][1] * bound["grid_size"][2]
        parts.append(
            torch.ops.robocache.voxelize_backward(
                [grad for _, grad in wanted],
                [one for one, _ in wanted],
                [args.get({MAX: ARGMAX, MIN: ARGMIN}.get(one, -1), none) for one, _ in wanted],
                found["inverse"],
                found.get("counts") if any(one == MEAN for one, _ in wanted) else None,
                row_splits,
                rows,
                bool(bound.get("channels_first")),
                dtype,
            )
        )
    if gathered is not None:
        none = gathered.new_empty(0, dtype=torch.int32)
        rows = bound["max_voxels"] * hard
        slots = found["slots"]
        parts.append(
            torch.ops.robocache.voxelize_backward(
                [gathered], [SUM], [none], slots, None, row_splits, rows, False, dtype
            )
        )
    return None if not parts else parts[0] if len(parts) == 1 else parts[0] + parts[1]


def save_devoxelize(ctx: Any, args: Sequence[Any]) -> None:
    names = names_of("devoxelize")
    bound = dict(zip(names, args, strict=True))
    ctx.plain = {key: None if isinstance(arg, Tensor) else arg for key, arg in bound.items()}
    tensors = {key: arg for key, arg in bound.items() if isinstance(arg, Tensor)}
    ctx.saved_names = tuple(tensors)
    ctx.num_args = len(names)
    ctx.save_for_backward(*tensors.values())


def devoxelize_backward_of(ctx: Any, grad: Tensor, needs: Sequence[bool]) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of grid and points, None where they are not needed."""
    bound = {**ctx.plain, **dict(zip(ctx.saved_names, ctx.saved_tensors, strict=True))}
    del bound["out_dtype"]
    bound["bounds"] = DROP if bound["bounds"] == RAISE else bound["bounds"]
    need_grid, need_points = needs
    by_grid = by_points = None
    if need_grid and grad.is_cuda and torch.are_deterministic_algorithms_enabled():
        # The CUDA kernel adds with atomics, whose order is another in each run.
        by_grid, need_grid = grid_gradient(grad, **bound), False
    if need_grid or need_points:
        made = torch.ops.robocache.devoxelize_backward(grad, *bound.values(), need_grid, need_points)
        by_grid = made[0] if need_grid else by_grid
        by_points = made[1] if need_points else None
    return by_grid, by_points


def _no_gradients(name: str, inputs: Sequence[Any]) -> list[Any]:
    """Nones in the structure of the arguments as they came: an empty list has an empty list of gradients."""
    return [[] if isinstance(arg, list) and not arg else None for arg in as_dispatched(name, tuple(inputs))]


def register_gradients() -> None:
    for name, twin in zip(FUNCTIONAL, GRAD_TWINS, strict=True):
        if name == "devoxelize":
            continue
        at = names_of(name).index(feature_name(name))

        def setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor], _name: str = name) -> None:
            ctx.none = _no_gradients(_name, inputs)
            ctx.set_materialize_grads(False)
            save(ctx, _name, inputs, output)

        def backward(ctx: Any, grads: list[Tensor | None], _name: str = name, _at: int = at) -> tuple[Any, ...]:
            result = list(ctx.none)
            result[_at] = backward_of(ctx, _name, grads)
            return tuple(result)

        torch.library.register_autograd(f"robocache::{twin}", backward, setup_context=setup)

    def setup_devoxelize(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        save_devoxelize(ctx, inputs)

    def backward_devoxelize(ctx: Any, grad: Tensor | None) -> tuple[Any, ...]:
        none = [None] * (ctx.num_args - 2)
        if grad is None:
            return (None, None, *none)
        return (*devoxelize_backward_of(ctx, grad, ctx.needs_input_grad[:2]), *none)

    torch.library.register_autograd("robocache::_devoxelize_grad", backward_devoxelize, setup_context=setup_devoxelize)
