"""Runs one attention case: each backend of scaled_dot_product_attention, and the alignment that makes such a batch.

A row's `robocache` is that alignment, timed in the same run; the backends are not its rivals but what it feeds, and
`align_share` is its time over the fastest of them. A backend is checked against the math backend in fp32 before it is
timed; one that refuses the shape stands in `absent`, with its own words.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .align import check_ours
from .attention_cases import BACKENDS, AttentionCase
from .cases import DTYPES, bind_public, build, call_public
from .measure import CheckFailed, Plan, Say, measure, optional
from .peer_set import bounded
from .timing import Timer
from .traffic import bytes_moved

_SDPA = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
DEFAULT = "default"  # torch chooses among them
# Of an output near 1: a few steps of the dtype; of fp32 those of TF32, in which a backend may multiply.
TOLERANCE = {"bf16": 1.6e-2, "fp16": 2e-3, "fp32": 2e-3}
LARGEST_SCORES = 8 << 30  # bytes of scores that the math backend may hold, several times over
CHECKED = 2  # samples that are compared: attention mixes nothing between samples

Inputs = tuple[Tensor, Tensor, Tensor]


def make(case: AttentionCase, device: str, seed: int) -> Inputs:
    """Queries, keys and values, normal: [B, H, S, D]."""
    generator = torch.Generator(device=device).manual_seed(case.seq * 1009 + seed)
    shape = (case.batch, case.heads, case.seq, case.width)

    def normal() -> Tensor:
        return torch.randn(shape, generator=generator, device=device).to(DTYPES[case.dtype])

    return normal(), normal(), normal()


def attend(inputs: Inputs, causal: bool, backend: str) -> Tensor:
    """The case through one backend; an error where the backend refuses."""
    call = torch.nn.functional.scaled_dot_product_attention
    if backend == DEFAULT:
        return call(*inputs, is_causal=causal)
    with sdpa_kernel(_SDPA[backend]):
        return call(*inputs, is_causal=causal)


def why_not(case: AttentionCase, inputs: Inputs, backend: str) -> str | None:
    """Why a backend is not timed: its scores do not fit, or its own words of refusal."""
    if backend == "math" and case.score_bytes > LARGEST_SCORES:
        return f"its scores would take {case.score_bytes / 1e9:.0f} GB in fp32"
    if inputs[0].device.type == "cpu" and backend in ("efficient", "cudnn"):
        return "the backend is for GPUs"  # where torch would silently take the math backend
    few: Inputs = tuple(one[:1] for one in inputs)  # type: ignore[assignment]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            attend(few, case.causal, backend)
        except RuntimeError as error:
            if "No available kernel" not in str(error):
                raise
            words = [str(one.message).split(" (Triggered internally")[0].strip() for one in told]
            kept = [one for one in words if "not used because" not in one]
            return " ".join(dict.fromkeys(kept))[:300] or str(error).splitlines()[0]
    return None


def check(case: AttentionCase, inputs: Inputs, backend: str) -> dict[str, float]:
    """Compares a backend's answer for the first samples with the math backend's in fp32."""
    few: Inputs = tuple(one[:CHECKED] for one in inputs)  # type: ignore[assignment]
    wide: Inputs = tuple(one.float() for one in few)  # type: ignore[assignment]
    want, got = attend(wide, case.causal, "math"), attend(few, case.causal, backend).float()
    limit = TOLERANCE[case.dtype]
    off = float(((got - want).abs() / want.abs().clamp_min(1.0)).max())
    if not off <= limit:
        raise CheckFailed(f"{backend}: off by {off:.3g} from the math backend in fp32, limit {limit}")
    return {"off": off, "limit": limit}


def _sets(case: AttentionCase, plan: Plan) -> list[Inputs]:
    one = 4 * case.batch * case.heads * case.seq * case.width * DTYPES[case.dtype].itemsize
    count = max(2, min(plan.max_sets, math.ceil(plan.rotate_bytes / one)))
    return [make(case, plan.device, seed) for seed in range(count)]


def _align(case: AttentionCase, plan: Plan, timer: Timer, row: dict[str, Any]) -> None:
    """The alignment that makes the batch: checked, its bytes counted, timed."""
    aligned = case.align
    first = build(aligned, plan.device, seed=0)
    row["align"] = aligned.name
    row["check"] = [check_ours(aligned, first)]
    ours = call_public(first, backend=plan.device)
    row["bytes"] = bytes_moved(first, ours, None)
    one = sum(t.numel() * t.element_size() for t in (*first.tensors(), ours))
    count = max(2, min(plan.max_sets, math.ceil(plan.rotate_bytes / one)))
    inputs = [first, *(build(aligned, plan.device, seed=k) for k in range(1, count))]
    calls = [bind_public(each, backend=plan.device) for each in inputs]
    row["variants"]["robocache"] = measure(calls, timer, plan)


def run_case(case: AttentionCase, plan: Plan, timer: Timer, bandwidth: float | None, say: Say) -> dict[str, Any]:
    """One row of the results; a backend's failure is noted beside it."""
    row: dict[str, Any] = {"name": case.name, **case.describe(), "variants": {}, "errors": {}, "absent": {}}
    with torch.no_grad():
        say("robocache")
        _align(case, plan, timer, row)
        ours = row["variants"]["robocache"]["cold"]["median"]
        if bandwidth:
            row["share_of_bandwidth"] = row["bytes"]["total"] / (ours * 1e-6) / bandwidth
        if plan.ours_only:
            return row
        sets = _sets(case, plan)
        limited = bounded(timer, 1.0 if plan.device == "cpu" else 0.15)
        for backend in (DEFAULT, *BACKENDS):
            reason = None if backend == DEFAULT else why_not(case, sets[0], backend)
            if reason is not None:
                row["absent"][backend] = reason
                continue
            say(backend)

            def time_it(backend: str = backend) -> dict[str, Any]:
                agreement = check(case, sets[0], backend)
                calls = [lambda one=one: attend(one, case.causal, backend) for one in sets]
                timed = measure(calls, limited, plan)
                return {**timed, **agreement, "tflops": case.flops / timed["cold"]["median"] / 1e6}

            optional(row, backend, time_it)
    times = [v["cold"]["median"] for name, v in row["variants"].items() if name != "robocache"]
    if times:
        row["align_share"] = ours / min(times)
    return row


# ---- Its table -----------------------------------------------------------------------------------------------------

HEADER = ("case", *(f"{name} us" for name in (DEFAULT, *BACKENDS)), "best TFLOP/s", "align us", "align / attention")


def cells(row: dict[str, Any], us: Callable[[float | None], str]) -> list[str]:
    """A row of the suite's table."""
    variants = row["variants"]
    times = [us(variants.get(name, {}).get("cold", {}).get("median")) for name in (DEFAULT, *BACKENDS)]
    speeds = [variant["tflops"] for variant in variants.values() if "tflops" in variant]
    share = row.get("align_share")
    return [
        row["name"],
        *times,
        f"{max(speeds):.3g}" if speeds else "-",
        us(variants.get("robocache", {}).get("cold", {}).get("median")),
        f"{share:.1%}" if share is not None else "-",
    ]
