"""Hypothesis strategies: whole calls of `resample_trajectories`, over shapes, dtypes, kinds, layouts and options."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
TIMES = (torch.float32, torch.float64, torch.int64)
STEP_KINDS = ("nearest", "previous", "next")
CURVES = ("linear", "pchip", "slerp_xyzw", "slerp_wxyz", "angle")
ROUNDED = ("pchip", "slerp_xyzw", "slerp_wxyz")
UNIT = 1 / 8  # stamps are whole multiples of this, exact in every time dtype
EPOCH = 1_700_000_000_000_000_000


def examples(count: int) -> settings:
    """How many examples a test draws; the environment variable ROBOCACHE_EXAMPLES multiplies."""
    return settings(max_examples=count * int(os.environ.get("ROBOCACHE_EXAMPLES", "1")))


@dataclass
class Call:
    """Arguments of one call, with `options` as keyword arguments."""

    values: torch.Tensor
    times: torch.Tensor
    targets: torch.Tensor
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        out = self.options.get("out_dtype")
        return (self.values.dtype, *((out,) if out is not None else ()))

    @property
    def exact_columns(self) -> list[int]:
        """Columns whose kind gives the same bits everywhere."""
        kind, columns = self.options.get("kind", "linear"), self.values.shape[-1]
        if isinstance(kind, str):
            return [] if kind in ROUNDED else list(range(columns))
        return [c for cols, name in kind if name not in ROUNDED for c in range(*cols.indices(columns))]

    def stream(self) -> dict[str, Any]:
        """Keyword arguments of `robocache.Stream`."""
        options = {k: v for k, v in self.options.items() if k not in ("out_dtype", "return_valid")}
        return {"values": self.values, "times": self.times, **options}

    def __repr__(self) -> str:
        shapes = f"values {tuple(self.values.shape)} {self.values.dtype}, targets {tuple(self.targets.shape)}"
        return f"Call({shapes}, times {self.times.tolist()}, targets {self.targets.tolist()}, {self.options})"


def _stamps(draw: st.DrawFn, rows: int, samples: int, generator: torch.Generator) -> torch.Tensor:
    """Multiples of UNIT that never decrease: [rows, samples] int64."""
    style = draw(st.sampled_from(["even", "jitter", "duplicates", "holes"]))
    if style == "even":
        steps = torch.full((rows, samples), 8)
    elif style == "jitter":
        steps = torch.randint(1, 16, (rows, samples), generator=generator)
    elif style == "duplicates":
        steps = torch.randint(0, 3, (rows, samples), generator=generator) * 4
    else:
        steps = torch.randint(1, 4, (rows, samples), generator=generator)
        steps[torch.rand(rows, samples, generator=generator) < 0.1] = 400
    return steps.cumsum(1) - draw(st.integers(-50, 50))


def as_times(units: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return units + EPOCH if dtype == torch.int64 else (units.double() * UNIT).to(dtype)


def _targets(draw: st.DrawFn, stamps: torch.Tensor, batch: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """Hits, halves between stamps (ties), arbitrary and far targets, in units: [batch, count] int64."""
    low, high = (int(stamps.min()), int(stamps.max())) if stamps.numel() else (0, 8)
    targets = torch.randint(low - 12, high + 13, (batch, count), generator=generator)
    if stamps.numel() and count:
        hits = stamps.flatten()[torch.randint(0, stamps.numel(), (batch, count), generator=generator)]
        targets = torch.where(torch.rand(batch, count, generator=generator) < 0.3, hits, targets)
    if draw(st.booleans()):
        targets = targets.sort(dim=1).values
    return targets


def _kind(draw: st.DrawFn, dtype: torch.dtype) -> tuple[Any, int]:
    """A kind and the number of columns it goes with."""
    names = STEP_KINDS + CURVES if dtype.is_floating_point else STEP_KINDS
    columns = draw(st.sampled_from([1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 33, 64, 100]))
    if draw(st.integers(0, 3)):
        name = draw(st.sampled_from(names))
        return name, -(-columns // 4) * 4 if name.startswith("slerp") else columns
    groups, begin = [], 0
    for _ in range(draw(st.integers(1, 5))):
        name = draw(st.sampled_from(names))
        width = 4 * draw(st.integers(1, 2)) if name.startswith("slerp") else draw(st.integers(1, 6))
        groups.append((slice(begin, begin + width), name))
        begin += width
    return groups, begin


def _values(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    if not dtype.is_floating_point:
        info = torch.iinfo(dtype)
        return torch.randint(info.min, info.max, shape, generator=generator, dtype=torch.int64).to(dtype)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * 3).to(dtype)


def _options(draw: st.DrawFn, floating: bool, time_dtype: torch.dtype) -> dict[str, Any]:
    scale = 1 if time_dtype == torch.int64 else UNIT
    options: dict[str, Any] = {"extrapolate": draw(st.sampled_from(["clamp", "linear", *(["nan"] * floating)]))}
    if draw(st.booleans()):
        options["max_gap"] = draw(st.integers(0, 20)) * scale
    if draw(st.booleans()):
        options["tolerance"] = draw(st.integers(0, 12)) * scale
    if floating:
        options["invalid"] = draw(st.sampled_from(["keep", "nan"]))
    if draw(st.booleans()):
        options["time_offset"] = draw(st.integers(-30, 30)) * scale
    return options


@st.composite
def calls(
    draw: st.DrawFn,
    value_dtypes: tuple[torch.dtype, ...] = FLOATS + INTEGERS,
    time_dtypes: tuple[torch.dtype, ...] = TIMES,
) -> Call:
    """A call with no data fault in it. Values come from a drawn seed, structure from draws that shrink."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dtype, time_dtype = draw(st.sampled_from(value_dtypes)), draw(st.sampled_from(time_dtypes))
    kind, columns = _kind(draw, dtype)
    sequences, samples = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 3, 4, 5, 9, 33, 70, 200]))
    count = draw(st.sampled_from([1, 2, 3, 7, 16, 33, 65, 130]))
    layout = draw(st.sampled_from(["dense", "shared", "lengths", "packed", "rows", "packed rows"]))
    options = _options(draw, dtype.is_floating_point, time_dtype)
    options["kind"] = kind
    batch = draw(st.integers(1, 6)) if "rows" in layout else sequences
    stamps = _stamps(draw, 1 if layout == "shared" else sequences, samples, generator)
    values = _values((sequences, samples, columns), dtype, generator)
    times = as_times(stamps[0] if layout == "shared" else stamps, time_dtype)
    lengths = torch.randint(0, samples + 1, (sequences,), generator=generator)
    if layout == "lengths":
        options["lengths"] = lengths
    if "packed" in layout:
        keep = torch.arange(samples) < lengths[:, None]
        values, times = values[keep], times[keep]
        options["row_splits"] = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    if "rows" in layout:
        options["rows"] = torch.randint(0, sequences, (batch,), generator=generator)
    if "time_offset" in options and draw(st.booleans()):
        scale = 1 if time_dtype == torch.int64 else UNIT
        options["time_offset"] = (torch.randint(-30, 30, (batch,), generator=generator) * scale).to(time_dtype)
    targets = as_times(_targets(draw, stamps, batch, count, generator), time_dtype)
    if draw(st.integers(0, 3)) == 0:
        targets = targets[0].contiguous()
    if dtype.is_floating_point and draw(st.booleans()):
        options["out_dtype"] = draw(st.sampled_from(FLOATS))
    elif not dtype.is_floating_point and draw(st.booleans()):
        wider = [d for d in INTEGERS + FLOATS if torch.promote_types(dtype, d) == d]
        options["out_dtype"] = draw(st.sampled_from(wider))
    return Call(values, times, targets, options)


@st.composite
def strided(draw: st.DrawFn, call: Call) -> Call:
    """The same call with its tensors laid out otherwise: transposed, sliced with steps, expanded, at odd offsets."""

    def relayout(tensor: torch.Tensor) -> torch.Tensor:
        style = draw(st.sampled_from(["as is", "transposed", "step", "offset"]))
        if style == "transposed" and tensor.dim() > 1:
            return tensor.transpose(0, -1).contiguous().transpose(0, -1)
        if style == "step":
            wide = torch.zeros(*tensor.shape[:-1], tensor.shape[-1] * 2 + 1, dtype=tensor.dtype)
            wide[..., 1::2] = tensor
            return wide[..., 1::2]
        if style == "offset":
            flat = torch.zeros(tensor.numel() + 3, dtype=tensor.dtype)
            flat[3:] = tensor.flatten()
            return flat[3:].view(tensor.shape)
        return tensor

    options = dict(call.options)
    for name in ("lengths", "row_splits", "rows"):
        if name in options and draw(st.booleans()):
            options[name] = torch.stack([options[name], options[name]], dim=1)[:, 0]
    return Call(relayout(call.values), relayout(call.times), relayout(call.targets), options)
