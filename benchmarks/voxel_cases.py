"""The table of voxelize cases that benchmarks and tests share.

As in `cases.py`, a case says shapes, dtypes and options, `voxel_inputs.build` makes its inputs on any device, and
`case.scaled(...)` is the same case made small. Rows that differ only in how the points lie name the uniform one as
their `base`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from .cases import matching

SCATTERS = ("uniform", "scan", "depth", "onecell")  # how points lie; see voxel_inputs.py
OPS = ("dense", "sparse", "images", "devoxelize", "step", "backward", "devoxelize_backward")


@dataclass(frozen=True)
class VoxelCase:
    """A named call. `step` is a dense call and its gradient, `backward` and `devoxelize_backward` a gradient alone."""

    name: str
    points: int = 0  # of each sample; images: cameras * height * width
    size: tuple[int, int, int] = (128, 128, 128)
    op: str = "dense"
    batch: int = 1
    reduce: tuple[str, ...] = ("occupancy",)
    out: tuple[tuple[str, str], ...] = ()  # dtypes by the name of the reduction
    columns: int = 0
    scatter: str = "uniform"
    voxel: tuple[float, float, float] = (0.01, 0.01, 0.01)
    image: tuple[int, int, int] = (0, 0, 0)  # cameras, height, width
    max_voxels: int = 0
    max_points: int = 0
    layout: str = "channels_last"
    gradients: tuple[bool, bool] = (True, False)  # of devoxelize_backward: by grid, by points
    base: str | None = None
    compiled: bool = False  # torch.compile of the peer is timed too
    tags: frozenset[str] = field(default_factory=frozenset)

    @property
    def grid_min(self) -> tuple[float, ...]:
        """The grid is centred."""
        return tuple(-cells * edge / 2 for cells, edge in zip(self.size, self.voxel, strict=True))

    @property
    def cells(self) -> int:
        return self.size[0] * self.size[1] * self.size[2]

    @property
    def all_points(self) -> int:
        return self.batch * self.points

    @property
    def exact(self) -> bool:
        """True when every backend must give the same bits."""
        return self.op in ("dense", "sparse", "images", "devoxelize")

    def scaled(self, batch: int, points: int, cells: int) -> VoxelCase:
        """The same case made small: at most `batch` samples and `points` points in each, `cells` cells an axis."""
        image, count = self.image, min(self.points, points)
        if self.op == "images":
            image = (min(2, image[0]), 12, 16)
            count = image[0] * image[1] * image[2]
        return replace(
            self,
            batch=min(self.batch, batch),
            points=count,
            size=tuple(min(one, cells) for one in self.size),
            image=image,
            max_voxels=min(self.max_voxels, points // 2),
        )

    def describe(self) -> dict[str, Any]:
        """Plain data for a results file."""
        told: dict[str, Any] = {
            "op": self.op,
            "batch": self.batch,
            "points": self.points,
            "size": list(self.size),
            "voxel": list(self.voxel),
            "scatter": self.scatter,
            "layout": self.layout,
            "tags": sorted(self.tags),
        }
        if self.op not in ("devoxelize", "devoxelize_backward"):
            told |= {"reduce": list(self.reduce), "out": dict(self.out)}
        for name in ("columns", "max_voxels", "max_points", "base"):
            if getattr(self, name):
                told[name] = getattr(self, name)
        if self.op == "images":
            told["image"] = list(self.image)
        return told


def _cube(cells: int) -> tuple[int, int, int]:
    return (cells, cells, cells)


def _scattered(case: VoxelCase, scatters: tuple[str, ...] = SCATTERS) -> tuple[VoxelCase, ...]:
    """The case with its points lying in other ways; the name of the uniform one stands alone."""
    return tuple(
        case if one == "uniform" else replace(case, name=f"{case.name}-{one}", scatter=one, base=case.name)
        for one in scatters
    )


_GPU = frozenset({"gpu"})
_CPU = frozenset({"cpu"})
_U8 = (("occupancy", "uint8"),)
_FP32 = (("occupancy", "float32"),)
_BITS = (("occupancy", "bits"),)
_COUNT = ("count",)
_PERACT = ("mean", "count", "occupancy")
_SPARSE = {"op": "sparse", "points": 1_000_000, "size": _cube(200), "max_voxels": 1_000_000}
_KITTI = {"op": "sparse", "points": 120_000, "batch": 4, "columns": 4, "reduce": (), "scatter": "scan"}
_IMAGES = {"op": "images", "points": 16 * 480 * 640, "image": (16, 480, 640), "size": _cube(100)}
_ONE = ("uniform", "onecell")


def _gpu_cases() -> tuple[VoxelCase, ...]:
    def case(name: str, points: int, cells: int, **options: Any) -> VoxelCase:
        return VoxelCase(name, points, _cube(cells), tags=_GPU, **options)

    rows = {"reduce": ("mean",), "columns": 16}
    return (
        *_scattered(case("occupancy-1x500k-128-u8", 500_000, 128, out=_U8, compiled=True)),
        *_scattered(case("count-1x500k-128-i32", 500_000, 128, reduce=_COUNT, compiled=True)),
        case("occupancy-1x500k-128-bits", 500_000, 128, out=_BITS),
        *_scattered(case("occupancy-64x65536-100-u8", 65_536, 100, batch=64, out=_U8, compiled=True)),
        case("occupancy-64x65536-100-fp32", 65_536, 100, batch=64, out=_FP32),
        case("occupancy-64x65536-100-bits", 65_536, 100, batch=64, out=_BITS),
        *_scattered(case("occupancy-256x16384-64-u8", 16_384, 64, batch=256, out=_U8, compiled=True), _ONE),
        *_scattered(case("mean-1x1M-c16-200-fp32", 1_000_000, 200, compiled=True, **rows)),
        *_scattered(case("max-1x1M-c16-200-fp32", 1_000_000, 200, compiled=True, **rows | {"reduce": ("max",)})),
        *_scattered(
            case("peract-16x65536-c7-100", 65_536, 100, batch=16, reduce=_PERACT, out=_FP32, columns=7, compiled=True)
        ),
        case("count-1x20M-128-i32", 20_000_000, 128, reduce=_COUNT),
        *_scattered(
            case("count-1x100M-256-i32", 100_000_000, 256, reduce=_COUNT, compiled=True), ("uniform", "scan", "onecell")
        ),
        *_scattered(
            case("occupancy-1x100M-128-u8", 100_000_000, 128, out=_U8, compiled=True), ("uniform", "scan", "onecell")
        ),
        *_scattered(
            VoxelCase("sparse-mean-1x1M-c16-200", reduce=("mean",), columns=16, tags=_GPU, compiled=True, **_SPARSE)
        ),
        *_scattered(VoxelCase("sparse-coords-1x1M-200", reduce=(), tags=_GPU, compiled=True, **_SPARSE)),
        *(replace(one, name=one.name.removeprefix("cpu-"), batch=4, tags=_GPU) for one in _HARD),
        VoxelCase("images-16x480x640-100-occupancy", out=_U8, tags=_GPU, compiled=True, **_IMAGES),
        VoxelCase("images-16x480x640-100-color-mean", reduce=("mean",), columns=3, tags=_GPU, compiled=True, **_IMAGES),
        case("devoxelize-1x1M-c16-100-fp32", 1_000_000, 100, op="devoxelize", columns=16),
        case(
            "devoxelize-1x1M-c16-100-fp32-first", 1_000_000, 100, op="devoxelize", columns=16, layout="channels_first"
        ),
        case("devoxelize-backward-1x1M-c16-100-grid", 1_000_000, 100, op="devoxelize_backward", columns=16),
        case(
            "devoxelize-backward-1x1M-c16-100-both",
            1_000_000,
            100,
            op="devoxelize_backward",
            columns=16,
            gradients=(True, True),
        ),
        case("mean-backward-1x1M-c16-200", 1_000_000, 200, op="backward", **rows),
        case("max-backward-1x1M-c16-200", 1_000_000, 200, op="backward", **rows | {"reduce": ("max",)}),
        case("mean-step-1x1M-c16-200", 1_000_000, 200, op="step", **rows),
        case("max-step-1x1M-c16-200", 1_000_000, 200, op="step", **rows | {"reduce": ("max",)}),
    )


# Hard voxels of one LiDAR scan: SECOND's and PointPillars' grids of KITTI (Yan et al. 2018; Lang et al., CVPR 2019).
_HARD = (
    VoxelCase(
        "cpu-hard-kitti-second",
        size=(1408, 1600, 40),
        voxel=(0.05, 0.05, 0.1),
        max_voxels=40_000,
        max_points=5,
        tags=_CPU,
        **{**_KITTI, "batch": 1},
    ),
    VoxelCase(
        "cpu-hard-kitti-pillars",
        size=(432, 496, 1),
        voxel=(0.16, 0.16, 4.0),
        max_voxels=16_000,
        max_points=32,
        tags=_CPU,
        **{**_KITTI, "batch": 1},
    ),
)


def _cpu_cases() -> tuple[VoxelCase, ...]:
    """The same kinds of rows, sized for two cores."""

    def case(name: str, points: int, cells: int, **options: Any) -> VoxelCase:
        return VoxelCase(f"cpu-{name}", points, _cube(cells), tags=_CPU, **options)

    rows = {"reduce": ("mean",), "columns": 16}
    sparse = {"op": "sparse", "max_voxels": 200_000}
    return (
        *_scattered(case("occupancy-1x500k-128-u8", 500_000, 128, out=_U8, compiled=True)),
        *_scattered(case("count-1x500k-128-i32", 500_000, 128, reduce=_COUNT, compiled=True)),
        case("occupancy-1x500k-128-bits", 500_000, 128, out=_BITS),
        case("occupancy-4x65536-100-u8", 65_536, 100, batch=4, out=_U8),
        case("occupancy-16x16384-64-u8", 16_384, 64, batch=16, out=_U8),
        *_scattered(case("mean-1x200k-c16-100-fp32", 200_000, 100, compiled=True, **rows)),
        *_scattered(case("max-1x200k-c16-100-fp32", 200_000, 100, compiled=True, **rows | {"reduce": ("max",)})),
        case("peract-2x65536-c7-100", 65_536, 100, batch=2, reduce=_PERACT, out=_FP32, columns=7, compiled=True),
        *_scattered(case("sparse-mean-1x200k-c16-100", 200_000, 100, reduce=("mean",), columns=16, **sparse)),
        *_scattered(case("sparse-coords-1x200k-100", 200_000, 100, reduce=(), **sparse)),
        *_HARD,
        VoxelCase("cpu-images-2x480x640-100-occupancy", out=_U8, tags=_CPU, **_CPU_IMAGES),
        VoxelCase("cpu-images-2x480x640-100-color-mean", reduce=("mean",), columns=3, tags=_CPU, **_CPU_IMAGES),
        case("devoxelize-1x200k-c16-100-fp32", 200_000, 100, op="devoxelize", columns=16),
        case("devoxelize-backward-1x200k-c16-100-grid", 200_000, 100, op="devoxelize_backward", columns=16),
        case("mean-backward-1x200k-c16-100", 200_000, 100, op="backward", **rows),
        case("max-backward-1x200k-c16-100", 200_000, 100, op="backward", **rows | {"reduce": ("max",)}),
        case("mean-step-1x200k-c16-100", 200_000, 100, op="step", **rows),
    )


_CPU_IMAGES = {**_IMAGES, "points": 2 * 480 * 640, "image": (2, 480, 640)}

CASES: tuple[VoxelCase, ...] = (*_gpu_cases(), *_cpu_cases())


def select(device: str, pattern: str | None = None) -> list[VoxelCase]:
    """Cases meant for `device` whose name matches; without a pattern all of them."""
    return matching(CASES, device, pattern)
