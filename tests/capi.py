"""The C API through ctypes, on torch tensors: the same call as the public functions, with no layer between."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import EXTRAPOLATE, INVALID, KINDS

from .oracle import groups_of

DTYPES = {
    torch.float16: 0,
    torch.bfloat16: 1,
    torch.float32: 2,
    torch.float64: 3,
    torch.bool: 4,
    torch.uint8: 5,
    torch.int8: 6,
    torch.int16: 7,
    torch.int32: 8,
    torch.int64: 9,
}


class ColumnGroup(ctypes.Structure):
    _fields_ = [("begin", ctypes.c_int32), ("end", ctypes.c_int32), ("kind", ctypes.c_int32)]


class Stream(ctypes.Structure):
    _fields_ = [
        ("values", ctypes.c_void_p),
        ("times", ctypes.c_void_p),
        ("lengths", ctypes.c_void_p),
        ("row_splits", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
        ("row_offsets", ctypes.c_void_p),
        ("values_stride", ctypes.c_int64 * 3),
        ("times_stride", ctypes.c_int64 * 2),
        ("num_sequences", ctypes.c_int64),
        ("num_samples", ctypes.c_int64),
        ("num_columns", ctypes.c_int64),
        ("value_dtype", ctypes.c_int32),
        ("extrapolate", ctypes.c_int32),
        ("invalid", ctypes.c_int32),
        ("num_groups", ctypes.c_int32),
        ("groups", ctypes.POINTER(ColumnGroup)),
        ("max_gap", ctypes.c_double),
        ("tolerance", ctypes.c_double),
        ("time_offset", ctypes.c_double),
    ]


class AlignCall(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("time_dtype", ctypes.c_int32),
        ("out_dtype", ctypes.c_int32),
        ("num_streams", ctypes.c_int32),
        ("streams", ctypes.POINTER(Stream)),
        ("targets", ctypes.c_void_p),
        ("targets_stride", ctypes.c_int64 * 2),
        ("batch", ctypes.c_int64),
        ("num_targets", ctypes.c_int64),
        ("out", ctypes.c_void_p),
        ("out_stride", ctypes.c_int64 * 3),
        ("valid", ctypes.c_void_p),
        ("parallel_for", ctypes.c_void_p),
        ("pool", ctypes.c_void_p),
        ("device", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("cuda_stream", ctypes.c_void_p),
    ]


class CApiError(RuntimeError):
    """A status other than RC_OK, with rc_last_error()."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


def library_path() -> Path:
    import robocache

    return Path(robocache.__file__).parent / "lib" / "librobocache.so"


@functools.cache
def library(path: Path | None = None) -> ctypes.CDLL:
    """The C library that the Python package loaded; the same counters and vector code."""
    lib = ctypes.CDLL(str(path or library_path()))
    for name in ("rc_last_error", "rc_cpu_isa", "rc_version", "rc_kernel_name"):
        getattr(lib, name).restype = ctypes.c_char_p
    lib.rc_launch_count.restype = ctypes.c_int64
    lib.rc_set_cpu_isa.argtypes = [ctypes.c_char_p]
    return lib


def check(status: int) -> None:
    if status != 0:
        raise CApiError(status, library().rc_last_error().decode())


@contextmanager
def cpu_isa(name: str) -> Iterator[bool]:
    """Runs with one vector code; yields False where this CPU or build lacks it."""
    had = library().rc_set_cpu_isa(name.encode()) == 0
    try:
        yield had
    finally:
        check(library().rc_set_cpu_isa(None))


def _pointer(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _contiguous(index: torch.Tensor | None) -> torch.Tensor | None:
    return None if index is None else index.contiguous()


def _times_stride(times: torch.Tensor) -> tuple[int, int]:
    return (0, times.stride(0)) if times.dim() == 1 else (times.stride(0), times.stride(1))


def _groups(kind: Any, columns: int) -> list[tuple[int, int, int]]:
    """Contiguous runs of columns of one kind, in column order."""
    kinds = [0] * columns
    for cols, name in groups_of(kind, columns):
        for c in cols:
            kinds[c] = KINDS[name]
    runs: list[tuple[int, int, int]] = []
    for c, k in enumerate(kinds):
        if runs and runs[-1][2] == k:
            runs[-1] = (runs[-1][0], c + 1, k)
        else:
            runs.append((c, c + 1, k))
    return runs


def make_stream(stream: dict[str, Any], keep: list[Any], batch: int) -> Stream:
    """A descriptor of one stream; what it points to is appended to `keep`."""
    values, times = stream["values"], stream["times"]
    splits, rows, lengths = (_contiguous(stream.get(name)) for name in ("row_splits", "rows", "lengths"))
    d = Stream(values=_pointer(values), times=_pointer(times), lengths=_pointer(lengths))
    d.row_splits = _pointer(splits)
    d.rows = None if rows is None else rows.data_ptr() or ctypes.addressof(d)  # empty, but given
    packed = splits is not None
    d.values_stride[:] = (0, *values.stride()) if packed else values.stride()
    d.times_stride[:] = _times_stride(times)
    d.num_sequences = splits.numel() - 1 if packed else values.shape[0]
    d.num_samples, d.num_columns = values.shape[-2], values.shape[-1]
    d.value_dtype = DTYPES[values.dtype]
    d.extrapolate = EXTRAPOLATE[stream.get("extrapolate", "clamp")]
    d.invalid = INVALID[stream.get("invalid", "keep")]
    runs = _groups(stream.get("kind", "linear"), values.shape[-1])
    groups = (ColumnGroup * max(len(runs), 1))(*[ColumnGroup(*run) for run in runs])
    d.num_groups, d.groups = len(runs), ctypes.cast(groups, ctypes.POINTER(ColumnGroup))
    gap, tolerance = stream.get("max_gap"), stream.get("tolerance")
    d.max_gap = math.inf if gap is None else gap
    d.tolerance = -1.0 if tolerance is None else tolerance
    offset = stream.get("time_offset")
    if isinstance(offset, torch.Tensor):
        offset = offset.expand(batch).contiguous()
        d.row_offsets = _pointer(offset)
    else:
        d.time_offset = 0.0 if offset is None else float(offset)
    keep += [values, times, lengths, splits, rows, groups, offset]
    return d


def align(
    streams: Sequence[dict[str, Any]],
    targets: torch.Tensor,
    out_dtype: torch.dtype | None = None,
    out: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """rc_align_cpu, or rc_align_cuda for tensors on a GPU: (out [B, T, sum D], valid [B, T, streams])."""
    first = streams[0]
    rows, splits = first.get("rows"), first.get("row_splits")
    batch = first["values"].shape[0] if splits is None else splits.numel() - 1
    batch = batch if rows is None else rows.numel()
    count, columns = targets.shape[-1], sum(s["values"].shape[-1] for s in streams)
    if out_dtype is None:
        out_dtype = functools.reduce(torch.promote_types, [s["values"].dtype for s in streams])
    device = targets.device
    if out is None:
        out = torch.full((batch, count, columns), 77, device=device).to(out_dtype)
    valid = torch.full((batch, count, len(streams)), 7, dtype=torch.uint8, device=device)
    keep: list[Any] = []
    described = (Stream * len(streams))(*[make_stream(s, keep, batch) for s in streams])
    call = AlignCall(
        struct_size=ctypes.sizeof(AlignCall),
        time_dtype=DTYPES[targets.dtype],
        out_dtype=DTYPES[out.dtype],
        num_streams=len(streams),
        streams=ctypes.cast(described, ctypes.POINTER(Stream)),
        targets=_pointer(targets),
        batch=batch,
        num_targets=count,
        out=_pointer(out),
        valid=_pointer(valid),
    )
    call.targets_stride[:] = _times_stride(targets)
    call.out_stride[:] = out.stride()
    if device.type == "cuda":
        call.device = device.index if device.index is not None else torch.cuda.current_device()
        call.cuda_stream = torch.cuda.current_stream(device).cuda_stream
        check(library().rc_align_cuda(ctypes.byref(call)))
    else:
        check(library().rc_align_cpu(ctypes.byref(call)))
    return out, valid
