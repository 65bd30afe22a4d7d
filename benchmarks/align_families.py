"""The align suite's peers beside eager and compiled torch: Triton and CuPy on a GPU, NumPy and SciPy on the CPU.

Each says which cases it cannot do; see peer_set.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import peers, scipy_align
from .cases import Case, Inputs
from .peer_set import Family

_TRITON_KINDS = frozenset({"linear", "previous", "next", "nearest"})
_TRITON_STREAMS = 3


def _kinds(case: Case) -> set[str]:
    return {kind for stream in case.streams for _, _, kind in stream.groups()}


def _options(case: Case) -> str | None:
    """Why peers, which know no masks, gaps, offsets and kinds of extrapolation, cannot do a case."""
    if peers.plain(case):
        return None
    return "the case asks for masks, gaps, offsets or extrapolation, which only RoboCache has in one call"


def no_torch(case: Case) -> str | None:
    """Why eager and compiled torch cannot do a case."""
    if case.layout == "rows":
        return "the peer takes dense rows, not windows of a packed dataset"
    return _options(case)


def _beyond(case: Case, kinds: frozenset[str], library: str) -> str | None:
    """Why a library with these kinds cannot do a case."""
    missing = sorted(_kinds(case) - kinds)
    return _options(case) or (f"{library}: no {', '.join(missing)}" if missing else None)


def no_triton(case: Case) -> str | None:
    if case.layout == "rows":
        return no_torch(case)
    if len(case.streams) > _TRITON_STREAMS:
        return f"the Triton kernel takes up to {_TRITON_STREAMS} streams"
    if any(not isinstance(stream.kind, str) for stream in case.streams):
        return "the Triton kernel takes one kind a stream"
    return _beyond(case, _TRITON_KINDS, "the Triton kernel")


def no_cupy(case: Case) -> str | None:
    if case.batch > 1 or len(case.streams) > 1:
        return "cupy.interp takes one axis of samples; the rows of this case have one each"
    if _kinds(case) == {"pchip"}:
        return "cupyx.scipy.interpolate checks its samples on the host, which a captured graph cannot hold"
    if case.streams[0].dtype not in ("fp32", "fp64"):
        return f"the CuPy peer takes fp32 and fp64 values, not {case.streams[0].dtype}"
    return _beyond(case, frozenset({"linear"}), "cupy.interp")


def no_numpy(case: Case) -> str | None:
    return _beyond(case, scipy_align.NUMPY_KINDS, "searchsorted and a lerp in NumPy")


def no_interp(case: Case) -> str | None:
    return _beyond(case, scipy_align.INTERP_KINDS, "np.interp")


def no_scipy(case: Case) -> str | None:
    return _beyond(case, scipy_align.SCIPY_KINDS, "SciPy")


def _triton(inputs: Inputs) -> Callable[[], Any]:
    from . import triton_align

    return triton_align.bind(inputs)


def _cupy(inputs: Inputs) -> Callable[[], Any]:
    from . import cupy_peers

    return cupy_peers.bind_align(inputs)


FAMILIES = (
    Family("triton", "cuda", no_triton, _triton, "triton"),
    Family("cupy", "cuda", no_cupy, _cupy, "cupy"),
    Family("numpy", "cpu", no_numpy, scipy_align.bind_numpy, budget_s=1.0),
    Family("numpy-interp", "cpu", no_interp, scipy_align.bind_interp, budget_s=1.0),
    Family("scipy", "cpu", no_scipy, scipy_align.bind_scipy, "scipy", budget_s=1.0),
)
