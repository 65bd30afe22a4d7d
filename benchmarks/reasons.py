"""Why rows are not the fastest, or stay under 60 % of their bound.

The rows themselves are drawn from the results (findings.py). A row of that list that no reason here names fails the
report and its test; a name here that is not in the list is reported as stale. What keeps a row from its bound does not
say why a peer is faster: a reason speaks of one of the two.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """One reason for the rows of a suite whose names match one of `cases`."""

    about: str  # "slower" than a peer, or under its "bound"
    device: str  # "cuda" or "cpu"
    suite: str
    cases: tuple[str, ...]  # names or patterns, as fnmatch reads them
    text: str
    machine: str = "*"  # of the results' folders


REASONS: tuple[Reason, ...] = (
    Reason(
        "slower",
        "cuda",
        "align",
        ("resample-1024x500x256-250-bf16",),
        "Ours and the peer are both within 5 % of what a large copy reaches; about 1 % lies between them.",
    ),
    Reason(
        "bound",
        "cuda",
        "align",
        ("resample-32x500x256-256-bf16*", "resample-256x500x32-250-bf16", "fuse-4-50-bf16", "fuse-32-250-bf16"),
        "A few microseconds: a chain of memory latencies (ends of the sequence, its bracket, the samples) and the "
        "instructions between them, which no bandwidth shortens.",
    ),
    Reason(
        "bound",
        "cuda",
        "align",
        ("windows-*",),
        "A few microseconds, a chain of memory latencies as in the small rows.",
    ),
    Reason(
        "bound",
        "cuda",
        "align",
        ("nearest-*-u8", "previous-*-i64"),
        "Integer values run in the general kernel, which moves one element a lane.",
    ),
    Reason(
        "bound",
        "cuda",
        "align",
        ("next-*-fp16",),
        "Vectors are moved, but the search of step kinds takes the longer path.",
    ),
    Reason(
        "bound",
        "cuda",
        "align",
        ("angle-*",),
        "Runs in the general kernel, which moves one element a lane.",
    ),
    Reason(
        "bound",
        "cuda",
        "align",
        ("pchip-*", "slerp-*"),
        "Runs in the general kernel, one element or one quaternion a lane, and computes in double.",
    ),
    Reason(
        "bound",
        "cuda",
        "align",
        ("state-*", "robot-*"),
        "Mixes kinds or value types, so it runs in the general kernel, one element or one quaternion a lane.",
    ),
    Reason(
        "slower",
        "cpu",
        "voxelize",
        ("cpu-occupancy-1x500k-128-u8*", "cpu-count-1x500k-128-i32-scan"),
        "One pass over few points is all there is: compiled torch writes the grid directly, while the kernel first "
        "sorts points to slabs of the grid.",
    ),
    Reason(
        "slower",
        "cpu",
        "voxelize",
        ("cpu-mean-backward-*",),
        "A pure gather, for which `index_select` is faster than the kernel's row-by-row walk.",
    ),
)
