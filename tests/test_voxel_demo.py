"""The voxel demo: its own tabletop, PCD files, and what it says of files that are none."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import robocache

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
sys.path.append(str(EXAMPLES))

import pcd  # noqa: E402
import tabletop  # noqa: E402
import voxelize_tabletop  # noqa: E402

HEADER = """# .PCD v0.7 - Point Cloud Data file format
VERSION 0.7
FIELDS x y z {names}
SIZE 4 4 4 {sizes}
TYPE F F F {types}
COUNT 1 1 1 {counts}
WIDTH {width}
HEIGHT {height}
VIEWPOINT 0 0 0 1 0 0 0
POINTS {points}
DATA {data}
"""


def header(data: str, width: int, height: int = 1, **changes: object) -> str:
    told = {"names": "normal rgb", "sizes": "4 4", "types": "F U", "counts": "2 1", "points": width * height}
    return HEADER.format(**{**told, "data": data, "width": width, "height": height, **changes})


def run_demo(*arguments: object) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(EXAMPLES / "voxelize_tabletop.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})


def run_main(monkeypatch: Any, *arguments: object) -> int:
    """The demo in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["voxelize_tabletop.py", *map(str, arguments)])
    try:
        return voxelize_tabletop.main()
    except SystemExit as stopped:
        return int(stopped.code or 0)


def is_png(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 20_000


# ---- The demo -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_demo_voxelizes_its_own_tabletop(tmp_path: Path) -> None:
    done = run_demo("--out", tmp_path, "--device", "cpu", "--voxel-size", "0.02")
    assert done.returncode == 0, done.stderr
    assert "2 cameras of 480 x 640 pixels" in done.stdout
    assert "grid: 46 x 33 x 14 cells of 20 mm" in done.stdout
    rows = {line.split("  ")[0]: line for line in done.stdout.splitlines() if "_cpu" in line}
    assert list(rows) == [
        "voxelize_point_cloud",
        "voxelize_depth",
        "voxelize_point_cloud_sparse",
        "devoxelize nearest",
        "devoxelize trilinear",
    ]
    held = r"([\d,]+) points in ([\d,]+) cells, ([\d,]+) outside"
    from_points = re.search(held, rows["voxelize_point_cloud"])
    from_depth = re.search(held, rows["voxelize_depth"])
    assert from_points is not None and from_depth is not None and from_points.groups() == from_depth.groups()
    points, cells, outside = (int(number.replace(",", "")) for number in from_points.groups())
    depth = tabletop.make_views().depth
    assert points + outside == int((depth.int() > 0).sum())
    assert 1000 < cells < 46 * 33 * 14 // 4
    assert f"{cells:,} voxels" in rows["voxelize_point_cloud_sparse"]
    assert f"{points:,} points read a cell" in rows["devoxelize nearest"]
    assert "the same bits" in done.stdout and "DIFFERENT" not in done.stdout
    assert is_png(tmp_path / "tabletop_voxels.png")


@pytest.mark.slow
def test_the_demo_takes_a_cloud_without_colours(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform(-0.1, 0.1, (500, 3))
    path = tmp_path / "cube.pcd"
    rows = [f"{x} {y} {z}" for x, y, z in points] + ["nan nan nan"]
    path.write_text(header("ascii", 501, names="", sizes="", types="", counts="") + "\n".join(rows) + "\n")
    done = run_demo("--pcd", path, "--out", tmp_path, "--device", "cpu", "--voxel-size", "0.05", "--max-voxels", "10")
    assert done.returncode == 0, done.stderr
    assert "cube.pcd: 501 points, 1 of them NaN, without colours" in done.stdout
    assert re.search(r"grid: 4 x 4 x 4 cells of 50 mm from \[-0\.1, -0\.1, -0\.1\]", done.stdout)
    assert "500 points in 64 cells, 0 outside" in done.stdout
    assert "64 voxels, room for 10" in done.stdout and "keeps the first 10 voxels only" in done.stdout
    (largest,) = re.findall(r"^  nearest +\S+ / \S+ / (\S+) mm$", done.stdout, re.MULTILINE)
    assert 0 < float(largest) < 50 * 3**0.5  # a cell's mean lies in it
    assert is_png(tmp_path / "cube_voxels.png")


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("bun0", "0.02", ["397 points, 0 of them NaN", "397 points in 103 cells"]),
        ("milk_cartoon_all_small_clorox", "0.02", ["65,793 of them NaN", "organised 480 x 640", "with colours"]),
    ],
)
def test_the_demo_takes_clouds_of_pcl(real_data: Path, tmp_path: Path, name: str, size: str, words: list[str]) -> None:
    done = run_demo("--pcd", real_data / "pcl" / f"{name}.pcd", "--out", tmp_path, "--voxel-size", size)
    assert done.returncode == 0, done.stderr
    for each in words:
        assert each in done.stdout
    assert is_png(tmp_path / f"{name}_voxels.png")


@pytest.mark.parametrize(
    ("rows", "arguments", "words"),
    [
        ("1 2\n", [], r"bad\.pcd: line 1 of the data: expected 3 numbers, got 2"),
        ("nan 0 0\n", [], "none of its 1 points has finite coordinates"),
        ("0 0 0\n", ["--voxel-size", "0"], "--voxel-size: expected a number above 0"),
        ("0 0 0\n", ["--max-voxels", str(2**31)], "error: max_voxels: expected 0 to 2147483647"),
    ],
)
def test_the_demo_says_what_is_wrong_and_fails(
    tmp_path: Path, rows: str, arguments: list[str], words: str, monkeypatch: Any, capsys: Any
) -> None:
    path = tmp_path / "bad.pcd"
    path.write_text(header("ascii", 1, names="", sizes="", types="", counts="") + rows)
    assert run_main(monkeypatch, "--pcd", path, "--out", tmp_path, *arguments) != 0
    assert re.search(words, capsys.readouterr().err.splitlines()[-1])
    assert not list(tmp_path.glob("*.png"))


def test_a_grid_past_all_memory_says_what_to_change(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    path = tmp_path / "wide.pcd"
    rows = "0 0 0\n9000 9000 9000\n"
    path.write_text(header("ascii", 2, names="", sizes="", types="", counts="") + rows)
    assert run_main(monkeypatch, "--pcd", path, "--out", tmp_path, "--device", "cpu", "--voxel-size", "0.01") == 1
    told = capsys.readouterr().err
    assert told.startswith("error: grid_size: ") and "bytes" in told
    assert told.rstrip().endswith("a larger --voxel-size makes a smaller grid")


def test_the_grid_around_a_cloud_holds_it() -> None:
    points = torch.tensor([[0.31, -0.2, 0.0], [0.399, 0.1, 0.55], [float("nan"), 9.0, 9.0]])
    grid = voxelize_tabletop.grid_around(points, 0.1)
    assert grid.grid_size == (1, 4, 6)
    count, dropped = robocache.voxelize_point_cloud(points, reduce="count", return_dropped=True, **grid.keywords)
    assert int(count.sum()) == 2 and int(dropped) == 1


def test_the_scene_is_what_its_cameras_see() -> None:
    """The table's top lies at z = 0, and a pixel on the ball is as far as the ball's surface."""
    views = tabletop.make_views(seed=1)
    again = tabletop.make_views(seed=1)
    assert torch.equal(views.depth.int(), again.depth.int()) and torch.equal(views.color, again.color)
    points = tabletop.unproject(views.depth, views.intrinsics, views.camera_to_table, 0.001)
    on_table = (points[..., :2].abs() < 0.3).all(dim=-1) & (points[..., 2].abs() < 0.01)
    assert int(on_table.sum()) > 50_000
    assert abs(float(points[on_table][:, 2].mean())) < 1e-3
    ball = torch.tensor(tabletop.THINGS[4].center)
    yellow = (views.color[..., 0] > 150) & (views.color[..., 1] > 100) & (views.color[..., 2] < 60)
    seen = points[yellow & points.isfinite().all(dim=-1)]
    assert len(seen) > 500
    assert float(((seen - ball).norm(dim=1) - 0.045).abs().median()) < 2e-3


# ---- PCD files ------------------------------------------------------------------------------------------------------

CLOUD = np.array(
    [(1.5, -2.0, 0.25, 7.0, 8.0, 0xFF102030), (np.nan, 0.0, 1e-3, 0.0, 0.0, 0x000000FF)],
    dtype=[("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("n", "<f4"), ("m", "<f4"), ("rgb", "<u4")],
)


def compress_lzf(raw: bytes) -> bytes:
    """Runs of one byte as copies of the byte before (which overlap what they write), all else as it is."""
    packed = bytearray()
    at = 0
    while at < len(raw):
        run = 0
        while at > 0 and run < 264 and at + run < len(raw) and raw[at + run] == raw[at - 1]:
            run += 1
        if run >= 3:
            length = run - 2
            packed += bytes([length << 5, 0]) if length < 7 else bytes([7 << 5, length - 7, 0])
            at += run
        else:
            packed += bytes([0, raw[at]])
            at += 1
    return bytes(packed)


def write_cloud(path: Path, data: str) -> None:
    start = header(data, 2).encode()
    if data == "ascii":
        rows = [" ".join(repr(row[name].item()) for name in CLOUD.dtype.names) for row in CLOUD]
        path.write_bytes(start + "\n".join(rows).encode())
    elif data == "binary":
        path.write_bytes(start + CLOUD.tobytes())
    else:
        normals = np.stack([CLOUD["n"], CLOUD["m"]], axis=1).tobytes()  # one field of two numbers
        raw = b"".join([*(CLOUD[axis].tobytes() for axis in "xyz"), normals, CLOUD["rgb"].tobytes()])
        packed = compress_lzf(raw)
        path.write_bytes(start + struct.pack("<II", len(packed), len(raw)) + packed)


@pytest.mark.parametrize("data", pcd.KINDS)
def test_a_cloud_is_read(tmp_path: Path, data: str) -> None:
    path = tmp_path / "cloud.pcd"
    write_cloud(path, data)
    cloud = pcd.read_pcd(path)
    assert cloud.points.dtype == torch.float32 and (cloud.width, cloud.height) == (2, 1)
    want = torch.tensor([[1.5, -2.0, 0.25], [float("nan"), 0.0, 1e-3]])
    torch.testing.assert_close(cloud.points, want, rtol=0, atol=0, equal_nan=True)
    assert cloud.colors is not None and cloud.colors.tolist() == [[0x10, 0x20, 0x30], [0, 0, 0xFF]]


def test_colours_that_the_header_calls_floats(tmp_path: Path) -> None:
    path = tmp_path / "cloud.pcd"
    bits = np.array([0x00FF8001], "<u4")
    start = header("binary", 1, names="rgb", sizes="4", types="F", counts="1").encode()
    path.write_bytes(start + np.zeros(3, "<f4").tobytes() + bits.tobytes())
    colors = pcd.read_pcd(path).colors
    assert colors is not None and colors.tolist() == [[255, 128, 1]]


@given(st.binary(max_size=400) | st.lists(st.sampled_from([b"a", b"bb" * 40, b"\0" * 300]), max_size=8).map(b"".join))
def test_lzf_gives_back_what_was_packed(raw: bytes) -> None:
    assert pcd.decompress_lzf(compress_lzf(raw), len(raw)) == raw


@given(st.binary(max_size=200), st.integers(0, 300))
def test_lzf_of_anything_ends_well(packed: bytes, size: int) -> None:
    try:
        out = pcd.decompress_lzf(packed, size)
    except pcd.CloudError:  # and nothing else
        return
    assert len(out) == size


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a PCD file"),
        ("solid cube\nfacet normal 0 0 1\n", "not a PCD file"),
        (header("zip", 1), "DATA: expected one of ascii, binary, binary_compressed, got 'zip'"),
        (header("ascii", 1).replace("x y z", "a y z"), "FIELDS: expected one x, got 'a y z normal rgb'"),
        (header("ascii", 1).replace("SIZE 4", "SIZE"), "SIZE: expected 5 numbers, got 4"),
        (header("ascii", 1).replace("TYPE F", "TYPE Q"), "FIELDS: x has TYPE Q, SIZE 4, COUNT 1: no such number"),
        (header("ascii", 1).replace("WIDTH 1", "WIDTH -1"), "WIDTH: expected whole numbers, got '-1'"),
        (header("ascii", 2, points=3), r"POINTS: expected WIDTH x HEIGHT = 2, got 3"),
        (header("ascii", 1) + "0 0 0 0 0 red\n", "line 1 of the data: expected numbers, got '0 0 0 0 0 red'"),
        (header("ascii", 2) + "0 0 0 0 0 0\n", "holds 1 points, expected 2"),
        (header("ascii", 1) + "0 0 0 0 0 0\n" * 2, "holds more than the 1 points"),
        (header("binary", 10**9), "holds 0 bytes of data, expected 24000000000 for 1000000000 points"),
        (header("binary_compressed", 1), "ends before its compressed data"),
        (header("binary_compressed", 1) + "\x04\0\0\0\x02\0\0\0", "states 2 bytes of data, expected 24 for 1 points"),
        (header("binary_compressed", 1) + "\x09\0\0\0\x18\0\0\0\0", "ends after 1 of 9 compressed bytes"),
        (header("binary_compressed", 1) + "\x02\0\0\0\x18\0\0\0\x20\x00", "refers to what was never there"),
        (header("binary_compressed", 1) + "\x02\0\0\0\x18\0\0\0\x00a", "gives 1 bytes, expected 24"),
    ],
)
def test_a_malformed_file_is_told(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "cloud.pcd"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(pcd.CloudError, match=rf"cloud\.pcd: .*{words}"):
        pcd.read_pcd(path)


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(pcd.CloudError, match="No such file"):
        pcd.read_pcd(tmp_path / "nothing.pcd")
