"""The cost model before anything was tuned: made to keep work on the CPU unless the GPU clearly pays.

The CPU's numbers are those of the CPU results in benchmarks/results for one thread, and every thread is taken to
help in full, which flatters it. The copies are those of ordinary memory through one staging buffer, and for page-locked
memory half of what PCIe 5.0 x16 gives. The GPU must then look twice as fast before it is taken.
"""

from __future__ import annotations

from .calls import WORK
from .model import Copies, CostModel, Curve, OperationModel, Side

MARGIN = 2.0
_LATENCY_US = 15.0  # of a copy, with the wait for it
_PAGEABLE_BYTES_PER_US = 6500.0
_PINNED_BYTES_PER_US = 25_000.0
_LAUNCH_US = 60.0  # Python, launch and the check for faults
_GPU_BYTES_PER_US = 500_000.0
_MOST_THREADS = 32  # memory is the limit beyond

# Microseconds of one thread for one of each amount of work, and the constant of a call.
_CPU_US: dict[str, tuple[float, ...]] = {
    "resample": (3.0, 0.01, 1e-3, 4e-5, 0.0, 6e-4, 2.5e-2, 2e-2),
    "fuse": (5.0, 0.01, 1e-3, 4e-5, 0.0, 6e-4, 2.5e-2, 2e-2),
    "voxelize": (20.0, 0.1, 8e-3, 0.04, 8e-3, 8e-5),
    "voxelize_sparse": (20.0, 0.1, 2e-2, 0.0, 8e-3, 4e-5),
    "voxelize_depth": (20.0, 0.1, 6e-3, 0.0, 3e-3, 8e-5),
    "devoxelize": (20.0, 0.1, 5e-3, 5e-3, 3e-2),
}


def _copy(bytes_per_us: float) -> Curve:
    sizes = [2.0**k for k in range(8, 34, 2)]
    return Curve([(size, _LATENCY_US + size / bytes_per_us) for size in sizes])


def default_model(threads: int) -> CostModel:
    """The model for a machine that was not tuned, by the CPU threads that torch may use."""
    helping = float(max(1, min(threads, _MOST_THREADS)))
    copies = Copies(_copy(_PAGEABLE_BYTES_PER_US), _copy(_PINNED_BYTES_PER_US), _copy(_PAGEABLE_BYTES_PER_US))
    operations = {}
    for op, names in WORK.items():
        constant, *by_work = _CPU_US[op]
        cpu = Side((constant, *[weight / helping for weight in by_work]))
        moved = tuple([1.0 / _GPU_BYTES_PER_US if name.startswith("bytes") else 1e-5 for name in names])
        gpu = Side((_LAUNCH_US, 1.0, *moved))
        operations[op] = OperationModel(cpu, {"host": gpu, "device": gpu})
    return CostModel(operations, copies, MARGIN, "default", "not tuned: run `robocache tune`")
