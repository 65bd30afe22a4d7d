"""A dense call on arrays from its options to its results: which outputs are written, where they stand, what is handed
out. Part of the NumPy door; torch is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import _native
from ._arrays import dtype_name, thread_count
from ._kinds import choice
from ._voxel_arrays import (
    Array,
    Points,
    asked_name,
    empty_number,
    grid_sizes,
    made,
    pair,
    prepare_grid,
    want_dtype,
    want_room,
    want_shape,
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


def _counts_as(counts: Array, dtype: Any) -> Array:
    """Counts as the kernels write them in `dtype`: integers hold at their largest, floats take a float32 once."""
    if dtype.kind in "iu":
        return np.minimum(counts, np.iinfo(dtype).max).astype(dtype)
    with np.errstate(over="ignore"):
        return counts.astype(np.bool_) if dtype.kind == "b" else counts.astype(np.float32).astype(dtype)


class _Dense:
    """One dense call."""

    def __init__(self, points: Points, features: Array | None, argument: str, options: Mapping[str, Any]) -> None:
        self.points, self.options, self.features = points, options, features
        self.several = not isinstance(options["reduce"], str)
        self.names = reductions(options["reduce"], list(REDUCES), features is not None, argument, "an array")
        self.bounds = choice("bounds", options["bounds"], BOUNDS)
        self.first = bool(choice("layout", options["layout"], LAYOUTS))
        self.size = grid_sizes(options["grid_size"], points.batch)
        self.empty_value = empty_number(options["empty_value"])
        for extra in ("return_counts", "return_inverse", "return_dropped"):
            if not isinstance(options[extra], bool):
                raise TypeError(f"{extra}: expected True or False, got {type(options[extra]).__name__}")

    def given_out(self) -> dict[str, Array]:
        """The caller's own outputs by name, or none."""
        out = self.options["out"]
        if out is None:
            return {}
        if self.several != isinstance(out, Mapping) or (self.several and set(out) != set(self.names)):
            told = f"a dict of arrays for {', '.join(self.names)}" if self.several else "a numpy.ndarray"
            got = sorted(out) if isinstance(out, Mapping) else type(out).__name__
            raise TypeError(f"out: expected {told}, got {got}")
        named = {name: out[name] if self.several else out for name in self.names}
        for name, array in named.items():
            label = f"out[{name!r}]" if self.several else "out"
            if name not in COUNTED:
                raise ValueError(f"{label}: expected None, as only occupancy and count add up over calls, got {name}")
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{label}: expected a numpy.ndarray, got {type(array).__name__}")
            flags = array.flags
            if not (flags.c_contiguous and flags.writeable and flags.aligned and array.dtype.isnative):
                raise ValueError(f"{label}: expected a writable, contiguous array of native byte order")
        return named

    def outputs(self, given: dict[str, Array]) -> tuple[dict[str, Array], dict[str, str]]:
        """Arrays [B, ..] and dtypes by name: the caller's, or new ones."""
        asked = self.options["out_dtype"]
        if asked is None and given:
            asked = {name: array.dtype for name, array in given.items()}
        own = None if self.features is None else dtype_name(self.features.dtype)
        dtypes = dict(zip(self.names, output_dtypes(self.names, asked, own, asked_name), strict=True))
        batch, columns = self.points.batch, 0 if self.features is None else self.features.shape[-1]
        shapes = {n: dense_shape(n, d, batch, self.size, columns, self.first) for n, d in dtypes.items()}
        if given:
            for name, array in given.items():
                label = f"out[{name!r}]" if self.several else "out"
                shape = shapes[name][1:] if self.points.alone else shapes[name]
                want_shape(label, "[X, Y, Z]" if self.points.alone else "[B, X, Y, Z]", shape, array)
                want_dtype(label, array, ("uint8" if dtypes[name] == "bits" else dtypes[name],))
            return {name: array[None] if self.points.alone else array for name, array in given.items()}, dtypes
        x, y, z = self.size
        told = f"{', '.join(self.names)} of {batch} x {x} x {y} x {z} cells"
        want_room("grid_size", told, [(shapes[name], dtypes[name]) for name in self.names])
        brought = [*(asked.values() if isinstance(asked, Mapping) else (asked,))]
        brought += [] if self.features is None else [self.features.dtype]
        return {name: made(shapes[name], dtypes[name], brought) for name in self.names}, dtypes

    def run(self) -> Any:
        given = self.given_out()
        outputs, dtypes = self.outputs(given)
        arguments = dict(self.points.arguments)
        arguments |= prepare_grid(self.points, self.options["voxel_size"], self.options["grid_min"], self.size)
        written, numbers = dict(outputs), {name: DTYPES[dtype] for name, dtype in dtypes.items()}
        counts = self._counts(outputs, bool(given))
        if counts is not None:
            written["count"], numbers["count"] = counts, DTYPES[dtype_name(counts.dtype)]
        inverse = np.empty(self.points.shape, np.int64) if self.options["return_inverse"] else None
        dropped = np.empty(self.points.batch, np.int64) if self.options["return_dropped"] else None
        arguments |= {
            "bounds": self.bounds,
            "empty_value": self.empty_value,
            "outputs": [(REDUCES[name], array, numbers[name]) for name, array in written.items()],
            "channels_first": self.first,
            "accumulate": bool(given),
            "inverse": None if inverse is None else pair(self.points.widened(inverse)),
            "dropped": None if dropped is None else pair(dropped),
        }
        work = sum(array.nbytes for array in written.values()) + int(np.prod(self.points.shape)) * 16
        _native.voxelize_arrays(arguments, thread_count(self.options["threads"], work))
        if counts is not None and "count" in outputs:
            outputs["count"] = _counts_as(counts, outputs["count"].dtype)
        counts = None if counts is None else _counts_as(counts, np.dtype(np.int32))
        return self._handed_out(outputs, given, counts, inverse, dropped)

    def _counts(self, outputs: dict[str, Array], adds: bool) -> Array | None:
        """Where the counts asked for beside the grid will stand; counts in another dtype follow from them."""
        if not self.options["return_counts"]:
            return None
        if "count" in outputs and adds:
            raise ValueError("return_counts: expected False where out adds up counts already, got True")
        wide = "count" in outputs and outputs["count"].dtype == np.int64
        # What is added to must be zero first; a new output is written whole.
        return (np.zeros if adds else np.empty)((self.points.batch, *self.size), np.int64 if wide else np.int32)

    def _handed_out(
        self,
        outputs: dict[str, Array],
        given: dict[str, Array],
        counts: Array | None,
        inverse: Array | None,
        dropped: Array | None,
    ) -> Any:
        def plain(array: Array) -> Array:
            return array[0] if self.points.alone else array

        grids = {name: plain(array) for name, array in outputs.items()}
        result: Any = self.options["out"] if given else grids if self.several else grids[self.names[0]]
        extras = [] if counts is None else [plain(counts)]
        extras += [] if inverse is None else [inverse]
        if dropped is not None:
            extras.append(dropped.reshape(()) if self.points.alone else dropped)
        return (result, *extras) if extras else result


def run_dense(points: Points, features: Array | None, argument: str, options: dict[str, Any]) -> Any:
    """The results of voxelize_point_cloud and voxelize_depth; a list of them for several grids. `argument` is what the
    features are called."""
    grids = each_grid(options["grid_size"], options["voxel_size"], options["grid_min"])
    if grids is None:
        return _Dense(points, features, argument, options).run()
    if options["out"] is not None:
        raise ValueError("out: expected None beside several grids")
    keys = ("grid_size", "voxel_size", "grid_min")
    calls = [_Dense(points, features, argument, {**options, **dict(zip(keys, grid, strict=True))}) for grid in grids]
    return [call.run() for call in calls]
