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
        "align",
        ("cpu-pchip-*",),
        "Slopes and cubics are computed in double, as SciPy does, at each target; eager torch computes in float32, "
        "each sample's slope once.",
    ),
    Reason(
        "slower",
        "cpu",
        "store",
        ("store-*",),
        "*torch-index* draws the same windows where frames are numbered: it adds to a row number and gathers rows. The "
        "store looks times up in each stream's clock, interpolates, and writes a mask, on and off the grid alike.",
    ),
    Reason(
        "slower",
        "cpu",
        "voxelize",
        ("cpu-occupancy-1x500k-128-u8*",),
        "One pass over few points is all there is: compiled torch writes the grid directly, while the kernel first "
        "sorts points to slabs of the grid.",
    ),
    Reason(
        "slower",
        "cpu",
        "voxelize",
        ("cpu-mean-backward-*", "cpu-max-backward-*"),
        "A pure gather, for which `index_select` is faster than the kernel's row-by-row walk.",
    ),
    Reason(
        "slower",
        "cuda",
        "align",
        ("resample-2048x1000x8-500-fp32*",),
        "Rows of eight columns: finding the samples is most of the work, and the kernel also checks every "
        "sample's time, "
        "which the Triton kernel does not.",
    ),
    Reason(
        "slower",
        "cuda",
        "align",
        ("nearest-*-u8", "previous-*-i64", "next-*-fp16"),
        "Step kinds run in kernels for any kind and value type: integers one element a lane, fp16 in vectors with the "
        "longer search. The Triton kernel is compiled for this one kind and copies rows.",
    ),
    Reason(
        "bound",
        "cuda",
        "align",
        ("recording-*",),
        "A few microseconds, a chain of memory latencies as in the small rows.",
    ),
    Reason(
        "bound",
        "cuda",
        "voxelize",
        ("occupancy-1x500k-*", "count-1x500k-*"),
        "About ten microseconds: two or three launches that depend on each other, each a chain of latencies; 500,000 "
        "points do not fill the device.",
    ),
    Reason(
        "slower",
        "cuda",
        "voxelize",
        ("occupancy-1x500k-128-u8-*", "occupancy-1x500k-128-bits"),
        "Neighbouring points share cells, so that plain stores meet in the cache and one kernel writes them directly; "
        "the slab kernels sort points first, which pays on scattered and on many points. Packed bits: the same two "
        "launches as bytes.",
    ),
    Reason(
        "bound",
        "cuda",
        "voxelize",
        ("occupancy-64x65536-100-u8-scan", "occupancy-64x65536-100-bits"),
        "Bound by the instructions a point takes and, of a scan, by shared-memory atomics of neighbours on one word; "
        "writing bits moves little, so that the points' arithmetic is all there is.",
    ),
    Reason(
        "bound",
        "cuda",
        "voxelize",
        ("mean-1x1M-*", "max-1x1M-*", "peract-*", "mean-step-*", "max-step-*"),
        "A radix sort of the points in three passes, which the device's latencies bound, before the grid is "
        "written once "
        "by tiles; points of a cell are then gathered row by row.",
    ),
    Reason(
        "slower",
        "cuda",
        "voxelize",
        ("mean-1x1M-c16-200-fp32-scan", "mean-1x1M-c16-200-fp32-depth", "max-1x1M-c16-200-fp32-depth", "peract-*"),
        "The Triton kernel adds with atomics, in no fixed order, into fewer cells than uniform points touch; "
        "ours sorts, "
        "so that sums repeat bit for bit. Written tiles of crowded cells wait for their longest.",
    ),
    Reason(
        "bound",
        "cuda",
        "voxelize",
        ("count-1x20M-*", "count-1x100M-*", "occupancy-1x100M-*"),
        "Points are sorted to slabs first, so that they are moved once more than the bound counts, and the "
        "partition is "
        "bound by its instructions.",
    ),
    Reason(
        "slower",
        "cuda",
        "voxelize",
        ("occupancy-1x100M-128-u8-scan",),
        "Neighbours of a scan fall into one cell, and plain stores of the same byte meet in the cache: compiled torch "
        "writes each point directly. The partition keeps its time on scattered points, where such stores take twice as "
        "long.",
    ),
    Reason(
        "bound",
        "cuda",
        "voxelize",
        ("sparse-*", "hard-kitti-*"),
        "About ten dependent launches: keys, a radix sort, scans, rows. Each is short and bound by latency; "
        "bytes are few.",
    ),
    Reason(
        "bound",
        "cuda",
        "voxelize",
        ("images-*",),
        "Each of five million pixels takes the arithmetic of unprojection and pose, while two bytes of depth are read: "
        "instructions bound it, with colour also the sort.",
    ),
    Reason(
        "bound",
        "cuda",
        "voxelize",
        ("devoxelize-*",),
        "Eight cells a point, at random places: reads, and in the gradient atomics, in the L2 cache bound "
        "it, which the "
        "bytes that must move do not count.",
    ),
    Reason(
        "slower",
        "cuda",
        "voxelize",
        ("devoxelize-1x1M-c16-100-fp32-first",),
        "Channels first: a lane takes one column, so that a point's cells are found once a column, where `grid_sample` "
        "finds them once a point.",
    ),
    Reason(
        "bound",
        "cuda",
        "voxelize",
        ("mean-backward-*", "max-backward-*"),
        "A gather of rows at random places, 64 bytes each, which reaches a part of the bandwidth of a copy.",
    ),
    Reason(
        "slower",
        "cuda",
        "graphs",
        ("resample-8-rotating", "add-8", "stream-new-shapes*", "stream-64-shapes-resample"),
        "Nothing to gain: one short launch, or shapes that do not come back. The cache leaves such calls "
        "eager, and what "
        "is lost is asking it.",
    ),
)
