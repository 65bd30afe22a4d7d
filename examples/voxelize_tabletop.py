"""Voxelizes what depth cameras see of a tabletop, or a point cloud from a PCD file.

Without a file it makes two RGB-D views of a few things on a table and turns them into a grid straight from depth:
occupancy, points a cell and mean colour in one pass, compared with the grid of the same points held in memory. With
--pcd it takes the points of a file. Either way the occupied cells then become tokens (sparse voxels), every point reads
its colour back from the grid (devoxelize), and a report and a plot tell what came of it.

    python examples/voxelize_tabletop.py
    python examples/voxelize_tabletop.py --pcd path/to/cloud.pcd --voxel-size 0.01
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pcd
import report
import tabletop
import torch
import voxel_plots
from torch import Tensor

import robocache

DEPTH_SCALE = 0.001  # metres in a unit of depth
TABLE_MIN, TABLE_EXTENT = (-0.46, -0.33, -0.03), (0.92, 0.66, 0.27)  # metres: the table and what stands on it
HEADER = ("call", "result", "holds", "kernel", "time")


@dataclass
class Scan:
    """Points to voxelize and what they carry."""

    title: str
    points: Tensor  # [N, 3] float32, metres; NaN: none
    features: Tensor  # [N, C]: colours uint8, or the points themselves
    colored: bool
    image: tuple[int, int] | None  # height and width of the first H * W points, where they form an image


@dataclass
class Grid:
    """Where the cells are: the same keywords for every call; devoxelize sees the size by its grid."""

    voxel_size: float
    grid_min: tuple[float, float, float]
    grid_size: tuple[int, int, int]

    @property
    def frame(self) -> dict[str, Any]:
        return {"voxel_size": self.voxel_size, "grid_min": self.grid_min}

    @property
    def keywords(self) -> dict[str, Any]:
        return {**self.frame, "grid_size": self.grid_size}


class Timed:
    """Runs calls and keeps a table of what each gave, which kernel ran and how long a call takes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rows: list[list[str]] = []

    def __call__(self, name: str, call: Callable[[], Any], words: Callable[[Any], tuple[str, str]]) -> Any:
        before = robocache.launch_counts()
        result = call()
        kernel = report.kernels_run(before)
        taken = report.median_time(call, self.device, repeats=5)
        self.rows.append([name, *words(result), kernel, report.duration(taken)])
        return result


def shape(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def thousands(number: float) -> str:
    return f"{int(number):,}"


def dense_words(result: tuple[dict[str, Tensor], Tensor]) -> tuple[str, str]:
    grids, dropped = result
    occupied, counted = grids["occupancy"].sum().item(), grids["count"].sum().item()
    held = f"{thousands(counted)} points in {thousands(occupied)} cells, {thousands(dropped.sum().item())} outside"
    return shape(grids["mean"]), held


def grid_around(points: Tensor, voxel_size: float) -> Grid:
    """The smallest grid that holds every finite point."""
    finite = points[points.isfinite().all(dim=1)]
    low = robocache.auto_grid_min(finite, voxel_size)
    cells = torch.floor((finite.amax(dim=0) - low) / torch.tensor(voxel_size, dtype=low.dtype)).double() + 1
    x, y, z = (int(number) for number in cells.tolist())
    a, b, c = low.tolist()
    return Grid(voxel_size, (a, b, c), (x, y, z))


def read_file(path: Path) -> Scan:
    """The points of a PCD file; where they carry no colour, they carry themselves."""
    cloud = pcd.read_pcd(path)
    finite = cloud.points.isfinite().all(dim=1)
    if not bool(finite.any()):
        raise pcd.CloudError(f"{path}: none of its {len(finite)} points has finite coordinates")
    print(
        f"{path.name}: {thousands(len(finite))} points, {thousands((~finite).sum().item())} of them NaN, "
        + (f"organised {cloud.height} x {cloud.width}, " if cloud.height > 1 else "")
        + ("with colours" if cloud.colors is not None else "without colours: cells hold their points' mean place")
    )
    features = cloud.points if cloud.colors is None else cloud.colors
    image = (cloud.height, cloud.width) if cloud.height > 1 else None
    return Scan(path.name, cloud.points, features, cloud.colors is not None, image)


def scan_of(views: tabletop.Views) -> Scan:
    """The views' points in memory, as voxelize_depth never needs them."""
    points = tabletop.unproject(views.depth, views.intrinsics, views.camera_to_table, DEPTH_SCALE).reshape(-1, 3)
    title = f"{views.depth.shape[0]} depth cameras"
    return Scan(title, points, views.color.reshape(-1, 3), True, (tabletop.HEIGHT, tabletop.WIDTH))


def round_trip(scan: Scan, grids: dict[str, Tensor], grid: Grid, run: Timed) -> tuple[Tensor, list[str]]:
    """Every point reads its cell's mean back; returns what each read [N, C], and lines about how close that is."""
    mean, occupied = grids["mean"], grids["occupancy"].to(grids["mean"].dtype)[..., None]
    nearest = run(
        "devoxelize nearest",
        lambda: robocache.devoxelize(mean, scan.points, mode="nearest", empty_value=float("nan"), **grid.frame),
        lambda out: (shape(out), f"{thousands(out.isfinite().all(dim=1).sum().item())} points read a cell"),
    )
    # Empty cells hold 0, which must not bleed into their neighbours: each corner weighs by whether it holds anything.
    weighted = torch.cat([mean * occupied, occupied], dim=-1)
    smooth = run(
        "devoxelize trilinear",
        lambda: robocache.devoxelize(weighted, scan.points, mode="trilinear", **grid.frame),
        lambda out: (shape(out), f"{thousands((out[:, -1] > 0).sum().item())} points near a cell"),
    )
    held = nearest.isfinite().all(dim=1)
    lines = []
    for mode, read in (("nearest", nearest), ("trilinear", smooth[:, :-1] / smooth[:, -1:])):
        off = (read[held] - scan.features[held].to(read.dtype)).norm(dim=1)
        unit, scale = ("of 255", 1.0) if scan.colored else ("mm", 1e3)
        lines.append(f"  {mode:10} {report.spread(off * scale)} {unit}")
    return nearest, lines


def process(
    scan: Scan, grid: Grid, device: torch.device, views: tabletop.Views | None, max_voxels: int, plot: Path
) -> None:
    """Voxelizes, tokenizes, reads back; prints the report and saves the plot."""
    scan = Scan(scan.title, scan.points.to(device), scan.features.to(device), scan.colored, scan.image)
    reduce, run = ("occupancy", "count", "mean"), Timed(device)
    finite = scan.points.isfinite().all(dim=1)
    size = " x ".join(str(n) for n in grid.grid_size)
    print(
        f"grid: {size} cells of {grid.voxel_size * 1e3:g} mm from {[round(x, 3) for x in grid.grid_min]}, on {device}\n"
    )

    grids, _ = run(
        "voxelize_point_cloud",
        lambda: robocache.voxelize_point_cloud(
            scan.points, scan.features, mask=finite, reduce=reduce, return_dropped=True, **grid.keywords
        ),
        dense_words,
    )
    same = None
    if views is not None:
        depth, intrinsics, poses, color = (
            t.to(device)[None] for t in (views.depth, views.intrinsics, views.camera_to_table, views.color)
        )
        direct, _ = run(
            "voxelize_depth",
            lambda: robocache.voxelize_depth(
                depth, intrinsics, poses, color, depth_scale=DEPTH_SCALE, reduce=reduce, return_dropped=True,
                **grid.keywords,
            ),
            dense_words,
        )  # fmt: skip
        same = all(torch.equal(direct[name][0], grids[name]) for name in reduce)
    tokens = run(
        "voxelize_point_cloud_sparse",
        lambda: robocache.voxelize_point_cloud_sparse(
            scan.points, scan.features, mask=finite, max_voxels=max_voxels, **grid.keywords
        ),
        lambda out: (
            shape(out.features),
            f"{thousands(out.num_voxels.item())} voxels, room for {thousands(max_voxels)}",
        ),
    )
    read, lines = round_trip(scan, grids, grid, run)

    print(report.table(HEADER, run.rows, left=(0, 1, 2, 3)))
    if same is not None:
        print(f"\nthe grid from depth and the grid from points in memory: {'the same bits' if same else 'DIFFERENT'}")
    count = grids["count"]
    filled = count[count > 0].double()
    print(f"points in an occupied cell, median / 95th percentile / largest: {report.spread(filled)}")
    print(f"{'colour' if scan.colored else 'place'} read back, off by median / 95th percentile / largest:")
    print("\n".join(lines))
    kept = min(int(tokens.num_voxels), max_voxels)
    if kept < int(tokens.num_voxels):
        print(f"note: --max-voxels {max_voxels} keeps the first {thousands(kept)} voxels only")
    coords = tokens.coords[:kept].cpu().numpy()
    voxel_plots.save_voxels(
        voxel_plots.Picture(
            title=f"{scan.title}: {size} cells of {grid.voxel_size * 1e3:g} mm",
            points=scan.points.cpu().numpy(),
            features=scan.features.cpu().numpy(),
            colored=scan.colored,
            image=scan.image,
            count=count.cpu().numpy(),
            coords=coords,
            tokens=tokens.features[:kept].cpu().numpy(),
            read=read.cpu().numpy(),
            voxel_size=grid.voxel_size,
            grid_min=grid.grid_min,
        ),
        plot,
    )
    print(f"plot: {plot}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pcd", type=Path, metavar="FILE", help="a PCL point cloud instead of the own scene")
    parser.add_argument(
        "--voxel-size", type=float, default=0.01, metavar="METRES", help="edge of a cell (default: 0.01)"
    )
    parser.add_argument("--max-voxels", type=int, default=32768, metavar="V", help="room for tokens (default: 32768)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seed", type=int, default=7, help="of the scene that is made")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="folder for the plot")
    arguments = parser.parse_args()
    if not 0 < arguments.voxel_size < float("inf"):
        parser.error("--voxel-size: expected a number above 0")
    if arguments.max_voxels < 1:
        parser.error("--max-voxels: expected 1 or more")
    device = report.choose_device(arguments.device)
    try:
        if arguments.pcd is not None:
            scan = read_file(arguments.pcd)
            grid, views, name = grid_around(scan.points, arguments.voxel_size), None, arguments.pcd.stem
        else:
            print("making two RGB-D views of a tabletop ...", flush=True)
            views = tabletop.make_views(arguments.seed)
            scan, name = scan_of(views), "tabletop"
            x, y, z = (max(1, round(extent / arguments.voxel_size)) for extent in TABLE_EXTENT)
            grid = Grid(arguments.voxel_size, TABLE_MIN, (x, y, z))
            print(
                f"tabletop: {len(views.depth)} cameras of {tabletop.HEIGHT} x {tabletop.WIDTH} pixels, "
                f"{thousands((views.depth.int() > 0).sum().item())} of them with a depth"
            )
        process(scan, grid, device, views, arguments.max_voxels, arguments.out / f"{name}_voxels.png")
    except (pcd.CloudError, OSError) as wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 1
    except ValueError as wrong:
        argument = str(wrong).split(":")[0]
        if argument not in ("grid_size", "max_voxels"):
            raise
        hint = "; a larger --voxel-size makes a smaller grid" if argument == "grid_size" else ""
        print(f"error: {wrong}{hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
