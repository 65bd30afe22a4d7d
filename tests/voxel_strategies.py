"""Hypothesis strategies: whole calls of the voxel functions, over shapes, dtypes, layouts, reductions and options."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st

from .strategies import FLOATS, INTEGERS
from .voxel_backends import Call

NAN, INF = float("nan"), float("inf")
POINT_DTYPES = (torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16)
FEATURE_DTYPES = (*FLOATS, torch.uint8)
VOXELS = (0.1, 0.05, 1 / 3, 1.0, 0.25, 2.5)
SIZES = (1, 2, 3, 5, 8, 9, 17)
HOSTILE = (NAN, INF, -INF, -0.0, 0.0, 1e30, -1e30, 1e-42, -1e-42, 3.4e38, -3.4e38)
FEATURED = ("sum", "mean", "max", "min")
COUNT_DTYPES = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, *FLOATS)


def pick(values: tuple[Any, ...], shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    chosen = torch.randint(0, len(values), shape, generator=generator)
    return torch.tensor(values, dtype=torch.float64)[chosen]


def place_points(
    draw: st.DrawFn, shape: tuple[int, ...], size: tuple[int, ...], voxel: Any, low: Any, generator: torch.Generator
) -> torch.Tensor:
    """Coordinates [*shape, 3] in and around the grid, in float64: anywhere, on faces, all in one cell, hostile."""
    style = draw(st.sampled_from(["anywhere", "faces", "one cell", "hostile", "outside"]))
    extent = torch.tensor(size, dtype=torch.float64)
    if style == "one cell":
        cell = (torch.rand(3, generator=generator, dtype=torch.float64) * extent).floor()
        at = cell + torch.rand(*shape, 3, generator=generator, dtype=torch.float64) * 0.8 + 0.1
    elif style == "outside":
        at = torch.rand(*shape, 3, generator=generator, dtype=torch.float64) + extent + 2
    else:
        at = torch.rand(*shape, 3, generator=generator, dtype=torch.float64) * (extent + 2) - 1
    if style == "faces":
        at = at.round()
    points = at * torch.as_tensor(voxel, dtype=torch.float64) + torch.as_tensor(low, dtype=torch.float64)
    if style == "hostile":
        wild = torch.rand(*shape, 3, generator=generator) < 0.1
        points = torch.where(wild, pick(HOSTILE, (*shape, 3), generator), points)
    return points


def nudged(points: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Some coordinates a hair up or down, in their own precision."""
    if points.dtype not in (torch.float32, torch.float64):
        return points
    toward = pick((-INF, INF), tuple(points.shape), generator).to(points.dtype)
    chosen = torch.rand(points.shape, generator=generator) < 0.5
    return torch.where(chosen, torch.nextafter(points, toward), points)


def features_like(
    draw: st.DrawFn, shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> torch.Tensor:
    """[*shape, C]: negative ones, ties and equal magnitudes, sometimes NaN and infinities."""
    columns = draw(st.sampled_from([1, 2, 3, 4, 7, 8, 16, 33]))
    if dtype == torch.uint8:
        return torch.randint(0, 256, (*shape, columns), generator=generator, dtype=torch.uint8)
    style = draw(st.sampled_from(["normal", "ties", "negative", "odd"]))
    made = torch.randn(*shape, columns, generator=generator, dtype=torch.float64) * 10
    if style == "ties":
        made = pick((-1.0, -0.0, 0.0, 2.0), (*shape, columns), generator)
    elif style == "negative":
        made = -made.abs() - 1
    elif style == "odd":
        wild = torch.rand(*shape, columns, generator=generator) < 0.1
        made = torch.where(wild, pick((NAN, INF, -INF, -0.0, 1e30), (*shape, columns), generator), made)
    return made.to(dtype)


def per_axis(draw: st.DrawFn, choices: tuple[float, ...], batch: int, alone: bool, dtype: torch.dtype) -> Any:
    """A number, three numbers, a tensor [3] or a tensor [B, 3]."""
    form = draw(st.sampled_from(["number", "three", "tensor", *([] if alone else ["each"])]))
    values = [draw(st.sampled_from(choices)) for _ in range(3)]
    if form == "number":
        return values[0]
    if form == "three":
        return tuple(values)
    if form == "tensor":
        return torch.tensor(values, dtype=dtype)
    each = [[draw(st.sampled_from(choices)) for _ in range(3)] for _ in range(batch)]
    return torch.tensor(each, dtype=dtype).reshape(batch, 3)


def pose_of(draw: st.DrawFn, lead: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Affine and close to a rotation: [*lead, 3 or 4, 4]."""
    made = torch.eye(4).repeat(*lead, 1, 1)
    made[..., :3, :3] += torch.randn(*lead, 3, 3, generator=generator) * 0.2
    made[..., :3, 3] = torch.randn(*lead, 3, generator=generator) * 0.3
    return made[..., : draw(st.sampled_from([3, 4])), :]


def first_row(value: Any) -> Any:
    return value if not isinstance(value, torch.Tensor) else value.double().reshape(-1, 3)[0]


def frame_of(draw: st.DrawFn, batch: int, alone: bool, dtype: torch.dtype) -> dict[str, Any]:
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    return {
        "grid_size": draw(st.sampled_from([4, (5, 3, 9), (1, 8, 2), (17, 1, 3), (2, 3, 17), (8, 8, 8)])),
        "voxel_size": per_axis(draw, VOXELS, batch, alone, compute),
        "grid_min": per_axis(draw, (0.0, -1.0, 0.3, -0.7), batch, alone, compute),
    }


def cloud_of(
    draw: st.DrawFn, point_dtypes: tuple[torch.dtype, ...] = POINT_DTYPES
) -> tuple[torch.Tensor, tuple[int, ...], dict[str, Any], torch.Generator]:
    """Points, the shape they have without the axis, the options about them, and the generator for more."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dtype = draw(st.sampled_from(point_dtypes))
    layout = draw(st.sampled_from(["alone", "batch", "batch", "packed"]))
    batch = 1 if layout == "alone" else draw(st.integers(1, 4))
    count = draw(st.sampled_from([0, 1, 2, 7, 33, 130, 300]))
    options = frame_of(draw, batch, layout == "alone", dtype)
    size = options["grid_size"]
    size = (size,) * 3 if isinstance(size, int) else size
    shape = (batch, count) if layout == "batch" else (count,)
    voxel, low = first_row(options["voxel_size"]), first_row(options["grid_min"])
    points = nudged(place_points(draw, shape, size, voxel, low, generator).to(dtype), generator)
    if layout == "packed":
        edges = torch.randint(0, count + 1, (batch + 1,), generator=generator).sort().values
        options["row_splits"] = edges
    if draw(st.booleans()):
        options["mask"] = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.2, 0.8]))
    if draw(st.integers(0, 2)) == 0:
        lead = (batch,) if layout != "alone" and draw(st.booleans()) else ()
        options["pose"] = pose_of(draw, lead, generator)
    options["bounds"] = draw(st.sampled_from(["drop", "clamp"]))
    return points, shape, options, generator


def reductions(draw: st.DrawFn, featured: bool, sparse: bool = False) -> Any:
    """A name, or several in any order."""
    names = [*(FEATURED if featured else ()), *(() if sparse else ("occupancy", "count"))]
    if draw(st.booleans()):
        return draw(st.sampled_from(names))
    return tuple(draw(st.lists(st.sampled_from(names), min_size=1, max_size=len(names), unique=True)))


def dtypes_for(draw: st.DrawFn, names: Any, sparse: bool = False) -> Any:
    """None, or what each output can have, as one for a lone output or by name."""
    if draw(st.booleans()):
        return None
    choices: dict[str, tuple[Any, ...]] = dict.fromkeys(FEATURED, FLOATS)
    choices |= {"occupancy": (*COUNT_DTYPES, "bits"), "count": COUNT_DTYPES}
    if isinstance(names, str):
        return draw(st.sampled_from(choices[names]))
    return {name: draw(st.sampled_from(choices[name])) for name in names if draw(st.booleans())}


@st.composite
def dense_calls(draw: st.DrawFn, point_dtypes: tuple[torch.dtype, ...] = POINT_DTYPES) -> Call:
    """A call of voxelize_point_cloud with no data fault in it."""
    points, shape, options, generator = cloud_of(draw, point_dtypes)
    features = None
    if draw(st.integers(0, 2)):
        features = features_like(draw, shape, draw(st.sampled_from(FEATURE_DTYPES)), generator)
    options["reduce"] = reductions(draw, features is not None)
    options["out_dtype"] = dtypes_for(draw, options["reduce"])
    options["layout"] = draw(st.sampled_from(["channels_last", "channels_first"]))
    options["empty_value"] = draw(st.sampled_from([0, -1.5, NAN, INF]))
    for name in ("return_counts", "return_inverse", "return_dropped"):
        options[name] = draw(st.booleans())
    return Call("dense", (points, features), options)


@st.composite
def sparse_calls(draw: st.DrawFn) -> Call:
    """A call of voxelize_point_cloud_sparse with no data fault in it."""
    points, shape, options, generator = cloud_of(draw)
    features = None
    if draw(st.integers(0, 3)):
        features = features_like(draw, shape, draw(st.sampled_from(FEATURE_DTYPES)), generator)
    options["max_voxels"] = draw(st.sampled_from([0, 1, 3, 20, 400]))
    options["order"] = draw(st.sampled_from(["sorted", "first_appearance"]))
    if draw(st.booleans()):
        options["max_points"] = draw(st.sampled_from([1, 2, 5, 40]))
    elif features is not None:
        options["reduce"] = draw(st.one_of(st.none(), st.just(reductions(draw, True, sparse=True))))
        options["empty_value"] = draw(st.sampled_from([0, -1.5, NAN]))
        if options["reduce"] is not None:
            options["out_dtype"] = dtypes_for(draw, options["reduce"], sparse=True)
    return Call("sparse", (points, features), options)


@st.composite
def depth_calls(draw: st.DrawFn) -> Call:
    """A call of voxelize_depth with no data fault in it."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    lead = draw(st.sampled_from([(), (1,), (3,), (2, 1), (2, 3)]))
    height, width = draw(st.sampled_from([(1, 1), (5, 7), (8, 16), (13, 9), (0, 4)]))
    shape = (*lead, height, width)
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        depth = torch.randint(0, 3000, shape, generator=generator).to(torch.int32)
        depth[torch.rand(shape, generator=generator) < 0.1] = 0
        depth, options["depth_scale"] = depth.to(torch.uint16), 0.001
    else:
        depth = torch.rand(shape, generator=generator) * 3
        wild = torch.rand(shape, generator=generator) < 0.2
        depth = torch.where(wild, pick((NAN, INF, -INF, 0.0, -0.0, -1.0, 1e30, 1e-42), shape, generator).float(), depth)
    batch = lead[0] if lead else 1
    options |= frame_of(draw, batch, not lead, torch.float32)
    options["voxel_size"] = per_axis(draw, (0.25, 0.5, 1 / 3), batch, not lead, torch.float32)
    camera = torch.tensor([width * 0.9, width * 1.1, width * 0.47, height * 0.5])
    if draw(st.booleans()):
        camera = camera * (1 + torch.rand(*lead, 4, generator=generator) * 0.1)
    if draw(st.booleans()):
        matrix = torch.zeros(*camera.shape[:-1], 3, 3)
        matrix[..., 0, 0], matrix[..., 1, 1], matrix[..., 2, 2] = camera[..., 0], camera[..., 1], 1.0
        matrix[..., 0, 2], matrix[..., 1, 2] = camera[..., 2], camera[..., 3]
        camera = matrix
    pose = None
    if draw(st.integers(0, 2)):
        pose = pose_of(draw, lead if draw(st.booleans()) else (), generator)
    color = None
    if draw(st.booleans()):
        color = features_like(draw, shape, draw(st.sampled_from(FEATURE_DTYPES)), generator)
    options["reduce"] = reductions(draw, color is not None)
    options["bounds"] = draw(st.sampled_from(["drop", "clamp"]))
    options["layout"] = draw(st.sampled_from(["channels_last", "channels_first"]))
    if draw(st.booleans()):
        options["mask"] = torch.rand(shape, generator=generator) < 0.7
    for name in ("return_counts", "return_inverse", "return_dropped"):
        options[name] = draw(st.booleans())
    return Call("depth", (depth, camera, pose, color), options)


@st.composite
def devoxelize_calls(draw: st.DrawFn) -> Call:
    """A call of devoxelize with no data fault in it."""
    points, _, options, generator = cloud_of(draw)
    size = options.pop("grid_size")
    size = (size,) * 3 if isinstance(size, int) else size
    options["mode"] = draw(st.sampled_from(["nearest", "trilinear", "trilinear"]))
    dtypes = FLOATS if options["mode"] == "trilinear" else FLOATS + INTEGERS
    dtype = draw(st.sampled_from(dtypes))
    splits = options.get("row_splits")
    lead = () if points.dim() == 2 and splits is None else (len(points) if splits is None else len(splits) - 1,)
    shape = (*lead, *size, draw(st.sampled_from([1, 3, 4, 17])))
    if dtype.is_floating_point:
        grid = (torch.randn(shape, generator=generator, dtype=torch.float64) * 3).to(dtype)
        options["empty_value"] = draw(st.sampled_from([0, -1.5, NAN]))
        if draw(st.booleans()):
            options["out_dtype"] = draw(st.sampled_from(FLOATS))
    else:
        grid = torch.randint(0, 2 if dtype == torch.bool else 100, shape, generator=generator).to(dtype)
    if draw(st.booleans()):
        options["layout"] = "channels_first"
        grid = grid.movedim(-1, -4)
        grid = grid.contiguous() if draw(st.booleans()) else grid
    return Call("devoxelize", (grid, points), options)


@st.composite
def relaid(draw: st.DrawFn, call: Call) -> Call:
    """The same call with its tensors laid out otherwise: transposed, sliced with steps, at odd offsets, expanded."""

    def relayout(tensor: torch.Tensor | None) -> torch.Tensor | None:
        style = draw(st.sampled_from(["as is", "transposed", "step", "offset"]))
        if tensor is None or style == "as is":
            return tensor
        if style == "transposed":
            return tensor.transpose(0, -1).contiguous().transpose(0, -1)
        if style == "step":
            wide = torch.zeros(*tensor.shape[:-1], tensor.shape[-1] * 2 + 1, dtype=tensor.dtype)
            wide[..., 1::2] = tensor
            return wide[..., 1::2]
        flat = torch.zeros(tensor.numel() + 3, dtype=tensor.dtype)
        flat[3:] = tensor.flatten()
        return flat[3:].view(tensor.shape)

    options = {
        name: relayout(value) if isinstance(value, torch.Tensor) and draw(st.booleans()) else value
        for name, value in call.options.items()
    }
    return Call(call.op, tuple(relayout(t) for t in call.given), options)
