"""What a user would write in plain torch: searchsorted, gather, interpolate. Eager and compiled, these are the peers.

The code is the obvious one, not the reference: dense or `lengths`, clamped ends, no masks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .cases import Case, Inputs


def plain(case: Case) -> bool:
    """True for a case without masks, gaps, offsets and ends other than clamped ones."""
    plain_streams = all(
        (s.max_gap, s.tolerance, s.time_offset) == (None, None, None) and s.extrapolate == "clamp" for s in case.streams
    )
    return plain_streams and not case.return_valid


def supports(case: Case) -> bool:
    """True where the obvious code computes what the case asks."""
    return plain(case) and case.layout != "rows"


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """values [B, S, D] at index [B, T] -> [B, T, D]."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def _bracket(times: Tensor, targets: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Samples around each target, and the weight of the later one; int64 and float64 differences in double."""
    last = times.shape[1] - 1
    if lengths is None:
        i1 = torch.searchsorted(times, targets, right=True).clamp(1, last)
    else:
        pad = torch.arange(times.shape[1], device=times.device) >= lengths[:, None]
        top = torch.iinfo(times.dtype).max if times.dtype == torch.int64 else torch.inf
        i1 = torch.searchsorted(times.masked_fill(pad, top), targets, right=True)
        i1 = torch.minimum(i1.clamp_min(1), (lengths - 1).clamp_min(1)[:, None])
    i0 = i1 - 1
    t0, t1 = times.gather(1, i0), times.gather(1, i1)
    since, gap = targets - t0, t1 - t0
    if times.dtype == torch.int64:
        since, gap = since.double(), gap.double()
    return i0, i1, (since / gap).clamp(0.0, 1.0)


def _wrap(a: Tensor) -> Tensor:
    return torch.remainder(a + torch.pi, 2 * torch.pi) - torch.pi


def _slerp(q0: Tensor, q1: Tensor, w: Tensor) -> Tensor:
    dot = (q0 * q1).sum(-1, keepdim=True)
    q1 = torch.where(dot < 0, -q1, q1)
    angle = torch.acos(dot.abs().clamp(max=1.0))
    sine = torch.sin(angle)
    near = sine < 1e-6
    safe = torch.where(near, torch.ones_like(sine), sine)
    wa = torch.where(near, 1 - w, torch.sin((1 - w) * angle) / safe)
    wb = torch.where(near, w, torch.sin(w * angle) / safe)
    mixed = wa * q0 + wb * q1
    return mixed / mixed.norm(dim=-1, keepdim=True)


def _pchip_slopes(values: Tensor, times: Tensor) -> Tensor:
    """Slopes of a monotone cubic at every sample: [B, S, D]."""
    h = (times[:, 1:] - times[:, :-1]).to(values.dtype)[..., None]
    m = (values[:, 1:] - values[:, :-1]) / h
    h0, h1, m0, m1 = h[:, :-1], h[:, 1:], m[:, :-1], m[:, 1:]
    w0, w1 = 2 * h1 + h0, h1 + 2 * h0
    inner = torch.where(m0 * m1 > 0, (w0 + w1) / (w0 / m0 + w1 / m1), torch.zeros_like(m0))

    def end(h: Tensor, h_in: Tensor, m: Tensor, m_in: Tensor) -> Tensor:
        d = ((2 * h + h_in) * m - h * m_in) / (h + h_in)
        d = torch.where(d.sign() != m.sign(), torch.zeros_like(d), d)
        return torch.where((m.sign() != m_in.sign()) & (d.abs() > 3 * m.abs()), 3 * m, d)

    first = end(h[:, :1], h[:, 1:2], m[:, :1], m[:, 1:2])
    last = end(h[:, -1:], h[:, -2:-1], m[:, -1:], m[:, -2:-1])
    return torch.cat([first, inner, last], dim=1)


def _pchip(values: Tensor, times: Tensor, i0: Tensor, i1: Tensor, w: Tensor) -> Tensor:
    wide = values.float() if values.dtype != torch.float64 else values
    slopes = _pchip_slopes(wide, times)
    h = (times.gather(1, i1) - times.gather(1, i0)).to(wide.dtype)[..., None]
    v0, v1, d0, d1, s = _rows(wide, i0), _rows(wide, i1), _rows(slopes, i0), _rows(slopes, i1), w[..., None]
    m = (v1 - v0) / h
    return v0 + h * s * (d0 + s * ((3 * m - 2 * d0 - d1) + s * (d0 + d1 - 2 * m)))


def _columns(values: Tensor, times: Tensor, i0: Tensor, i1: Tensor, w: Tensor, kind: str) -> Tensor:
    if kind == "previous":
        return _rows(values, torch.where(w >= 1, i1, i0))
    if kind == "next":
        return _rows(values, torch.where(w > 0, i1, i0))
    if kind == "nearest":
        return _rows(values, torch.where(w > 0.5, i1, i0))
    compute = torch.float64 if values.dtype == torch.float64 else torch.float32
    w = w.to(compute)
    if kind == "pchip":
        return _pchip(values, times, i0, i1, w).to(values.dtype)
    v0, v1 = _rows(values, i0).to(compute), _rows(values, i1).to(compute)
    w = w[..., None]
    if kind == "linear":
        out = v0 + w * (v1 - v0)
    elif kind == "angle":
        out = _wrap(v0 + w * _wrap(v1 - v0))
    else:
        shape = (*v0.shape[:-1], -1, 4)
        out = _slerp(v0.reshape(shape), v1.reshape(shape), w[..., None]).reshape(v0.shape)
    return out.to(values.dtype)


def _resample(stream: dict[str, Any], targets: Tensor) -> Tensor:
    i0, i1, w = _bracket(stream["times"], targets, stream.get("lengths"))
    kind = stream["kind"]
    if isinstance(kind, str):
        return _columns(stream["values"], stream["times"], i0, i1, w, kind)
    parts = [_columns(stream["values"][..., cols], stream["times"], i0, i1, w, name) for cols, name in kind]
    return torch.cat(parts, dim=-1)


def obvious(case: Case) -> Callable[[list[dict[str, Any]], Tensor], Tensor]:
    """The peer for a case, as a function of (tensors by stream, targets); options are closed over."""
    kinds = [
        spec.kind if isinstance(spec.kind, str) else [(slice(*columns), name) for columns, name in spec.kind]
        for spec in case.streams
    ]

    def peer(tensors: list[dict[str, Tensor]], targets: Tensor) -> Tensor:
        parts = [_resample({**s, "kind": kind}, targets) for s, kind in zip(tensors, kinds, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    return peer


def peer_arguments(inputs: Inputs) -> tuple[list[dict[str, Tensor]], Tensor]:
    """What `obvious(case)` takes: only the tensors."""
    names = ("values", "times", "lengths")
    return [{n: stream[n] for n in names if n in stream} for stream in inputs.streams], inputs.targets
