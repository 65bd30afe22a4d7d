"""The arithmetic between two samples: csrc/core/interpolate.h in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_PI = {torch.float32: 3.14159274101257324, torch.float64: 3.141592653589793116}


def wrap(angle: Tensor) -> Tensor:
    """Radians into [-pi, pi) of the dtype; an angle that is there already keeps its bits."""
    pi = torch.full((), _PI[angle.dtype], dtype=angle.dtype, device=angle.device)
    two_pi = pi + pi
    turns = torch.floor((angle + pi) / two_pi).detach()
    wrapped = angle - turns * two_pi
    wrapped = torch.where(wrapped >= pi, wrapped - two_pi, wrapped)
    wrapped = torch.where(wrapped < -pi, -pi, wrapped)
    return torch.where((angle >= -pi) & (angle < pi), angle, wrapped)


# ---- pchip ----------------------------------------------------------------------------------------------------------


def _inner_slope(h_left: Tensor, h_right: Tensor, m_left: Tensor, m_right: Tensor) -> Tensor:
    """Weighted harmonic mean of the slopes on both sides of a knot, 0 where they turn, NaN where one is."""
    w_left = h_right + h_right + h_left
    w_right = h_right + (h_left + h_left)
    same = ((m_left > 0) & (m_right > 0)) | ((m_left < 0) & (m_right < 0))
    one = torch.ones_like(m_left)
    safe_left, safe_right = torch.where(same, m_left, one), torch.where(same, m_right, one)
    mean = (w_left + w_right) / (w_left / safe_left + w_right / safe_right)
    either_nan = (m_left != m_left) | (m_right != m_right)
    return torch.where(either_nan, m_left + m_right, torch.where(same, mean, torch.zeros_like(mean)))


def _end_slope(h: Tensor, h_in: Tensor, m: Tensor, m_in: Tensor) -> Tensor:
    """Slope at an end knot from its interval and the next one inward, limited to keep the shape."""
    total = h + h_in
    d = (h + h + h_in) / total * m + -h / total * m_in
    disagrees = ((d > 0) != (m > 0)) | ((d < 0) != (m < 0))
    turns = ((m > 0) != (m_in > 0)) | ((m < 0) != (m_in < 0))
    steep = turns & (d.abs() > 3 * m.abs())
    limited = torch.where(disagrees, torch.where(d != d, d, torch.zeros_like(d)), torch.where(steep, 3 * m, d))
    return torch.where(h_in > 0, limited, m)


def pchip(v: Sequence[Tensor], h: Sequence[Tensor], s: Tensor) -> Tensor:
    """Monotone cubic between v[1] and v[2] at s, all float64 [B, T, d]; h [B, T, 1]: lengths of the three intervals.

    Outside [0, 1] the end's tangent goes on. An interval of length 0 is missing. (Fritsch and Butland 1984.)
    """
    left, right = h[0] > 0, h[2] > 0
    one = torch.ones_like(h[1])
    h_mid = torch.where(h[1] > 0, h[1], one)
    zero = torch.zeros_like(v[1])
    m = (v[2] - v[1]) / h_mid
    m_left = torch.where(left, (v[1] - v[0]) / torch.where(left, h[0], one), zero)
    m_right = torch.where(right, (v[3] - v[2]) / torch.where(right, h[2], one), zero)
    d0 = torch.where(left, _inner_slope(h[0], h_mid, m_left, m), _end_slope(h_mid, h[2], m, m_right))
    d1 = torch.where(right, _inner_slope(h_mid, h[2], m, m_right), _end_slope(h_mid, h[0], m, m_left))
    c2 = 3 * m - 2 * d0 - d1
    c3 = d0 + d1 - 2 * m
    inside = v[1] + h_mid * s * (d0 + s * (c2 + s * c3))
    before = v[1] + h_mid * s * d0
    after = v[2] + h_mid * (s - 1) * d1
    return torch.where(s < 0, before, torch.where(s > 1, after, inside))


# ---- Slerp ----------------------------------------------------------------------------------------------------------


def _dot(a: Tensor, b: Tensor) -> Tensor:
    product = a * b
    return (((product[..., 0] + product[..., 1]) + product[..., 2]) + product[..., 3]).unsqueeze(-1)


def _unit(q: Tensor) -> Tensor:
    return q / torch.sqrt(_dot(q, q))


def slerp(q0: Tensor, q1: Tensor, w: Tensor) -> Tensor:
    """Unit quaternions [..., 4] along the shorter arc (Shoemake 1985), the angle by Kahan's formula.

    A zero quaternion gives NaN.
    """
    a, b = _unit(q0), _unit(q1)
    b = torch.where(_dot(a, b) < 0, -b, b)
    difference, total = a - b, a + b
    angle = 2 * torch.atan2(torch.sqrt(_dot(difference, difference)), torch.sqrt(_dot(total, total)))
    sine = torch.sin(angle)
    flat = sine == 0
    safe = torch.where(flat, torch.ones_like(sine), sine)
    from_a = torch.where(flat, (1 - w).expand_as(sine), torch.sin((1 - w) * angle) / safe)
    from_b = torch.where(flat, w.expand_as(sine), torch.sin(w * angle) / safe)
    return _unit(from_a * a + from_b * b)
