"""The one table of named cases that correctness tests and benchmarks share, and the builder of their inputs.

A case says shapes, dtypes, kinds and options; `build` makes its inputs on any device from a seed. Benchmarks run the
rows as they stand; tests run `case.scaled(...)`, the same rows made small.
"""

from __future__ import annotations

import fnmatch
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

DTYPES: dict[str, torch.dtype] = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "fp64": torch.float64,
    "bool": torch.bool,
    "u8": torch.uint8,
    "i8": torch.int8,
    "i16": torch.int16,
    "i32": torch.int32,
    "i64": torch.int64,
}

# The integers of rc_kind, rc_extrapolate and rc_invalid, as torch.ops take them.
KINDS = {
    "linear": 0,
    "nearest": 1,
    "previous": 2,
    "next": 3,
    "pchip": 4,
    "slerp_xyzw": 5,
    "slerp_wxyz": 6,
    "angle": 7,
}
EXTRAPOLATE = {"clamp": 0, "nan": 1, "linear": 2, "raise": 3}
INVALID = {"keep": 0, "nan": 1, "raise": 2}

ROUNDED_KINDS = ("pchip", "slerp_xyzw", "slerp_wxyz")  # these may differ by 2 ulp of fp32 between backends

EPOCH_NS = 1_750_000_000_000_000_000  # int64 cases start here, as a robot's clock would
DURATION = 5.0  # seconds that every stream of a case spans


@dataclass(frozen=True)
class StreamSpec:
    """One stream: S samples of D columns."""

    samples: int
    columns: int
    dtype: str = "fp32"
    kind: Any = "linear"  # a name, or a tuple of ((begin, end), name)
    extrapolate: str = "clamp"
    invalid: str = "keep"
    max_gap: float | None = None  # seconds
    tolerance: float | None = None  # seconds
    time_offset: float | None = None  # seconds

    def groups(self) -> list[tuple[int, int, str]]:
        """Column groups (begin, end, kind)."""
        if isinstance(self.kind, str):
            return [(0, self.columns, self.kind)]
        return [(begin, end, name) for (begin, end), name in self.kind]


@dataclass(frozen=True)
class Case:
    """A named call: B output rows of T targets over one (resample) or several (fuse) streams."""

    name: str
    batch: int
    targets: int
    streams: tuple[StreamSpec, ...]
    time_dtype: str = "fp32"  # fp32, fp64 or i64
    out_dtype: str | None = None
    order: str = "sorted"  # of the targets: "sorted" or "random"
    layout: str = "dense"  # "dense", "lengths", or "rows": windows out of a packed dataset
    return_valid: bool = False
    tags: frozenset[str] = field(default_factory=frozenset)

    @property
    def op(self) -> str:
        return "fuse" if len(self.streams) > 1 else "resample"

    @property
    def columns(self) -> int:
        return sum(stream.columns for stream in self.streams)

    @property
    def exact(self) -> bool:
        """True when every backend must give the same bits."""
        return not any(name in ROUNDED_KINDS for stream in self.streams for _, _, name in stream.groups())

    def scaled(self, batch: int, limit: int) -> Case:
        """The same case made small: at most `batch` rows, and at most `limit` samples, targets and columns a stream."""

        def shrink(stream: StreamSpec) -> StreamSpec:
            columns = min(stream.columns, limit) if isinstance(stream.kind, str) else stream.columns
            if isinstance(stream.kind, str) and stream.kind.startswith("slerp"):
                columns = max(4, columns // 4 * 4)
            return replace(stream, samples=min(stream.samples, limit), columns=columns)

        return replace(
            self,
            batch=min(self.batch, batch),
            targets=min(self.targets, limit),
            streams=tuple(shrink(stream) for stream in self.streams),
        )

    def describe(self) -> dict[str, Any]:
        """Plain data for a results file."""
        return {
            "op": self.op,
            "batch": self.batch,
            "targets": self.targets,
            "time_dtype": self.time_dtype,
            "order": self.order,
            "layout": self.layout,
            "tags": sorted(self.tags),
            "streams": [
                {
                    "samples": stream.samples,
                    "columns": stream.columns,
                    "dtype": stream.dtype,
                    "kinds": [list(group) for group in stream.groups()],
                }
                for stream in self.streams
            ],
        }


def _single(name: str, b: int, s: int, d: int, t: int, dtype: str, **options: Any) -> Case:
    stream = {
        key: options.pop(key)
        for key in ("kind", "extrapolate", "invalid", "max_gap", "tolerance", "time_offset")
        if key in options
    }
    tags = frozenset(options.pop("tags", ()))
    return Case(name, b, t, (StreamSpec(s, d, dtype, **stream),), tags=tags, **options)


def _fused(name: str, b: int, shapes: Iterable[tuple[int, int]], t: int, dtype: str, **options: Any) -> Case:
    tags = frozenset(options.pop("tags", ()))
    return Case(name, b, t, tuple(StreamSpec(s, d, dtype) for s, d in shapes), tags=tags, **options)


_NUMBERS = ("numbers", "gpu")

# The rows of the published align table.
PUBLISHED: tuple[Case, ...] = (
    _single("resample-32x500x256-256-bf16", 32, 500, 256, 256, "bf16", tags=_NUMBERS),
    _single("resample-256x500x32-250-bf16", 256, 500, 32, 250, "bf16", tags=_NUMBERS),
    _single("resample-1024x500x256-250-bf16", 1024, 500, 256, 250, "bf16", tags=_NUMBERS),
    _single("resample-512x100x64-1000-fp32", 512, 100, 64, 1000, "fp32", tags=_NUMBERS),
    _single("resample-2048x1000x8-500-fp32", 2048, 1000, 8, 500, "fp32", tags=_NUMBERS),
    _fused("fuse-4-50-bf16", 4, ((30, 512), (100, 64), (200, 12)), 50, "bf16", tags=_NUMBERS),
    _fused("fuse-32-250-bf16", 32, ((150, 512), (500, 64), (1000, 12)), 250, "bf16", tags=_NUMBERS),
    _fused("fuse-256-128-bf16", 256, ((100, 512), (200, 128), (300, 64)), 128, "bf16", tags=_NUMBERS),
)
_BY_NAME = {case.name: case for case in PUBLISHED}

# The same rows scaled down for two CPU cores.
_CPU_BATCH = {
    "resample-32x500x256-256-bf16": 2,
    "resample-256x500x32-250-bf16": 16,
    "resample-1024x500x256-250-bf16": 32,
    "resample-512x100x64-1000-fp32": 32,
    "resample-2048x1000x8-500-fp32": 128,
    "fuse-4-50-bf16": 4,
    "fuse-32-250-bf16": 4,
    "fuse-256-128-bf16": 16,
}


def _variant(name: str, suffix: str, tags: tuple[str, ...], **changes: Any) -> Case:
    case = _BY_NAME[name]
    return replace(case, name=f"{name}-{suffix}", tags=frozenset(tags), **changes)


def _on_cpu(case: Case, **changes: Any) -> Case:
    suffix = "-i64" if changes.get("time_dtype") == "i64" else ""
    return replace(
        case,
        name=f"cpu-{case.name}{suffix}",
        batch=_CPU_BATCH[case.name],
        tags=frozenset({"cpu", "numbers"} | ({"int64"} if suffix else set())),
        **changes,
    )


VARIANTS: tuple[Case, ...] = (
    *(
        _variant(name, "i64", ("gpu", "int64"), time_dtype="i64")
        for name in (
            "resample-32x500x256-256-bf16",
            "resample-512x100x64-1000-fp32",
            "resample-2048x1000x8-500-fp32",
            "fuse-256-128-bf16",
        )
    ),
    *(
        _variant(name, "random", ("gpu", "random"), order="random")
        for name in (
            "resample-32x500x256-256-bf16",
            "resample-512x100x64-1000-fp32",
            "resample-2048x1000x8-500-fp32",
        )
    ),
)

# A robot's state vector: joints, wrapped joints, orientation and gripper.
_STATE = (((0, 7), "linear"), ((7, 9), "angle"), ((9, 13), "slerp_xyzw"), ((13, 14), "previous"))

KIND_CASES: tuple[Case, ...] = (
    _single("nearest-512x500x32-250-u8", 512, 500, 32, 250, "u8", kind="nearest", tags=("gpu", "kinds")),
    _single("previous-512x500x32-250-i64", 512, 500, 32, 250, "i64", kind="previous", tags=("gpu", "kinds")),
    _single("next-512x500x32-250-fp16", 512, 500, 32, 250, "fp16", kind="next", tags=("gpu", "kinds")),
    _single("angle-512x500x32-250-fp32", 512, 500, 32, 250, "fp32", kind="angle", tags=("gpu", "kinds")),
    _single("slerp-512x500x4-250-fp32", 512, 500, 4, 250, "fp32", kind="slerp_xyzw", tags=("gpu", "kinds")),
    _single("pchip-512x500x32-250-fp32", 512, 500, 32, 250, "fp32", kind="pchip", tags=("gpu", "kinds")),
    _single("linear-512x500x32-250-fp64", 512, 500, 32, 250, "fp64", time_dtype="fp64", tags=("gpu", "kinds")),
    _single(
        "state-512x500x14-250-fp32", 512, 500, 14, 250, "fp32", kind=_STATE, time_dtype="i64", tags=("gpu", "kinds")
    ),
    _single("lengths-512x500x64-250-bf16", 512, 500, 64, 250, "bf16", layout="lengths", tags=("gpu", "ragged")),
    # A whole recording on one clock: the one shape that interpolators of one axis take in one call.
    _single(
        "recording-1x100000x14-20000-fp32", 1, 100_000, 14, 20_000, "fp32", time_dtype="fp64", tags=("gpu", "recording")
    ),
    _single("windows-1024x500x64-16-bf16", 1024, 500, 64, 16, "bf16", layout="rows", tags=("gpu", "ragged")),
    Case(
        "robot-64-100-mixed",
        64,
        100,
        (
            StreamSpec(500, 14, "fp32", _STATE, max_gap=0.1),
            StreamSpec(1000, 6, "fp64", "linear", tolerance=0.02),
            StreamSpec(150, 512, "bf16", "previous", tolerance=0.05),
            StreamSpec(50, 1, "u8", "nearest", time_offset=0.01),
        ),
        time_dtype="i64",
        out_dtype="fp32",
        return_valid=True,
        tags=frozenset({"gpu", "kinds"}),
    ),
)

CPU_CASES: tuple[Case, ...] = (
    *(_on_cpu(case) for case in PUBLISHED),
    *(_on_cpu(case, time_dtype="i64") for case in PUBLISHED),
    *(
        replace(case, name=f"cpu-{case.name}", batch=max(1, case.batch // 16), tags=case.tags - {"gpu"} | {"cpu"})
        for case in KIND_CASES
    ),
)

CASES: tuple[Case, ...] = (*PUBLISHED, *VARIANTS, *KIND_CASES, *CPU_CASES)


def matching(table: Iterable[Any], device: str, pattern: str | None) -> list[Any]:
    """Cases of a table meant for `device` ("cuda" or "cpu"), as `select` chooses them."""
    tag = "cpu" if device == "cpu" else "gpu"
    if pattern is None:
        return [case for case in table if tag in case.tags]
    patterns = pattern.split(",")
    return [
        case
        for case in table
        if any(fnmatch.fnmatch(case.name, p) or fnmatch.fnmatch(case.name, f"*{p}*") for p in patterns)
        and ((tag in case.tags) or case.name in patterns)
    ]


def select(device: str, pattern: str | None = None) -> list[Case]:
    """Cases meant for `device` ("cuda" or "cpu") whose name matches a comma-separated list of patterns."""
    return matching(CASES, device, pattern)


# ---- Inputs --------------------------------------------------------------------------------------------------------


@dataclass
class Inputs:
    """What a case's call takes. `streams` holds keyword arguments, times in the call's units."""

    case: Case
    streams: list[dict[str, Any]]
    targets: torch.Tensor

    def to(self, device: torch.device | str) -> Inputs:
        """The same inputs on another device."""

        def move(value: Any) -> Any:
            return value.to(device) if isinstance(value, torch.Tensor) else value

        moved = [{key: move(value) for key, value in stream.items()} for stream in self.streams]
        return Inputs(self.case, moved, self.targets.to(device))

    def tensors(self) -> list[torch.Tensor]:
        return [v for s in self.streams for v in s.values() if isinstance(v, torch.Tensor)] + [self.targets]


def _spread(count: int, rows: int, generator: torch.Generator, device: torch.device, inside: bool) -> torch.Tensor:
    """Fractions of the duration, uniform with jitter, increasing along the last axis: [rows, count] float64."""
    u = torch.rand(rows, count, generator=generator, device=device, dtype=torch.float64)
    at = torch.arange(count, device=device, dtype=torch.float64)
    if inside:
        return (at + 0.1 + 0.8 * u) / count
    jitter = 0.8 * (u - 0.5)
    jitter[:, :1] = 0.0
    jitter[:, -1:] = 0.0
    return (at + jitter) / max(count - 1, 1)


def _as_times(fraction: torch.Tensor, time_dtype: str, duration: float = DURATION) -> torch.Tensor:
    if time_dtype == "i64":
        return (fraction * (duration * 1e9)).round().to(torch.int64) + EPOCH_NS
    return (fraction * duration).to(DTYPES[time_dtype])


def _span(seconds: float | None, time_dtype: str) -> float | int | None:
    """A length of time in the call's units."""
    if seconds is None:
        return None
    return round(seconds * 1e9) if time_dtype == "i64" else seconds


def _values(shape: tuple[int, ...], spec: StreamSpec, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    dtype = DTYPES[spec.dtype]
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator, device=device, dtype=torch.uint8).bool()
    if not dtype.is_floating_point:
        least = -100 if dtype.is_signed else 0
        return torch.randint(least, 120, shape, generator=generator, device=device, dtype=dtype)
    if dtype == torch.float64 or not isinstance(spec.kind, str) or spec.kind in ("angle", *ROUNDED_KINDS):
        values = torch.randn(shape, generator=generator, device=device, dtype=torch.float64)
    else:
        values = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
    for begin, end, kind in spec.groups():
        if kind.startswith("slerp"):
            quaternions = values[..., begin:end].unflatten(-1, (-1, 4))
            quaternions /= quaternions.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        elif kind == "angle":
            values[..., begin:end].remainder_(2 * torch.pi).sub_(torch.pi)
    return values.to(dtype)


def _stream(case: Case, spec: StreamSpec, generator: torch.Generator, device: torch.device) -> dict[str, Any]:
    b, s = case.batch, spec.samples
    stream: dict[str, Any] = {}
    if case.layout == "rows":
        # A dataset of sequences of different lengths, each row of the batch reading one of them.
        sequences = max(1, min(b, 64))
        lengths = torch.randint(
            max(1, s // 2), s + 1, (sequences,), generator=generator, device=device, dtype=torch.int64
        )
        splits = torch.zeros(sequences + 1, dtype=torch.int64, device=device)
        splits[1:] = lengths.cumsum(0)
        fraction = _spread(s, sequences, generator, device, inside=False)
        keep = torch.arange(s, device=device) < lengths[:, None]
        stream["times"] = _as_times(fraction, case.time_dtype)[keep]
        stream["values"] = _values((int(splits[-1]), spec.columns), spec, generator, device)
        stream["row_splits"] = splits
        stream["rows"] = torch.randint(0, sequences, (b,), generator=generator, device=device, dtype=torch.int64)
    else:
        stream["times"] = _as_times(_spread(s, b, generator, device, inside=False), case.time_dtype)
        stream["values"] = _values((b, s, spec.columns), spec, generator, device)
        if case.layout == "lengths":
            stream["lengths"] = torch.randint(
                max(1, s // 2), s + 1, (b,), generator=generator, device=device, dtype=torch.int64
            )
    stream["kind"] = spec.kind if isinstance(spec.kind, str) else [(slice(*columns), n) for columns, n in spec.kind]
    stream["extrapolate"] = spec.extrapolate
    stream["invalid"] = spec.invalid
    for name in ("max_gap", "tolerance", "time_offset"):
        span = _span(getattr(spec, name), case.time_dtype)
        if span is not None:
            stream[name] = span
    return stream


def build(case: Case, device: torch.device | str = "cpu", seed: int = 0) -> Inputs:
    """Makes a case's inputs: jittered uniform stamps over the case's duration, targets inside it."""
    device = torch.device(device)
    generator = torch.Generator(device=device)
    generator.manual_seed((zlib.crc32(case.name.encode()) * 1_000_003 + seed) % 2**62)
    streams = [_stream(case, spec, generator, device) for spec in case.streams]
    fraction = _spread(case.targets, case.batch, generator, device, inside=True)
    if case.order == "random":
        order = torch.rand(case.batch, case.targets, generator=generator, device=device).argsort(dim=1)
        fraction = fraction.gather(1, order)
    return Inputs(case, streams, _as_times(fraction, case.time_dtype))


# ---- Calls ---------------------------------------------------------------------------------------------------------


def bind_public(inputs: Inputs, backend: str = "auto", **options: Any) -> Callable[[], Any]:
    """The case through `robocache.resample_trajectories` or `robocache.fuse_multimodal`, ready to be called."""
    import robocache

    case = inputs.case
    if case.out_dtype is not None:
        options.setdefault("out_dtype", DTYPES[case.out_dtype])
    if case.return_valid:
        options.setdefault("return_valid", True)
    if case.op == "resample":
        stream = dict(inputs.streams[0])
        values, times = stream.pop("values"), stream.pop("times")
        stream |= {"backend": backend, **options}
        return lambda: robocache.resample_trajectories(values, times, inputs.targets, **stream)
    streams = [robocache.Stream(**stream) for stream in inputs.streams]
    options["backend"] = backend
    return lambda: robocache.fuse_multimodal(streams, inputs.targets, **options)


def call_public(inputs: Inputs, backend: str = "auto", **options: Any) -> Any:
    """The case through the public functions."""
    return bind_public(inputs, backend, **options)()


def has_plain_op(case: Case) -> bool:
    """True for cases that `bind_op` can say: one kind a stream, dense, no options."""
    plain = all(
        isinstance(s.kind, str) and (s.max_gap, s.tolerance, s.time_offset) == (None, None, None) for s in case.streams
    )
    return plain and case.layout == "dense" and not case.return_valid and case.out_dtype is None


def bind_op(inputs: Inputs) -> Callable[[], torch.Tensor]:
    """The case through `torch.ops.robocache` (see `has_plain_op`), ready to be called."""
    case = inputs.case
    ops = torch.ops.robocache
    if case.op == "resample":
        stream = inputs.streams[0]
        values, times, kind = stream["values"], stream["times"], KINDS[stream["kind"]]
        return lambda: ops.resample_trajectories(values, times, inputs.targets, kind)
    value_list = [stream["values"] for stream in inputs.streams]
    time_list = [stream["times"] for stream in inputs.streams]
    kinds = [KINDS[stream["kind"]] for stream in inputs.streams]
    return lambda: ops.fuse_multimodal(value_list, time_list, inputs.targets, kinds)
