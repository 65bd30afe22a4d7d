"""examples/c/voxelize.c: a scene whose grid can be told by hand."""

from __future__ import annotations

import re
from pathlib import Path

from .test_c_example import ROOT, STRICT, compile_and_run

EXAMPLE = ROOT / "examples" / "c" / "voxelize.c"
WIDTH, HEIGHT, X, Y = 160, 120, 16, 12


def expected(left: int) -> dict[tuple[int, int, int], list[int]]:
    """The grey values in each cell: the table at z = 0, a box of 10 cm whose image begins at column `left`. No place is
    nearer than 0.6 % of a cell to a face, so that float32 makes no difference."""
    cells: dict[tuple[int, int, int], list[int]] = {}
    for h in range(HEIGHT):
        for w in range(WIDTH):
            if (h * WIDTH + w) % 50 == 0:
                continue  # a hole
            on_box = left <= w < left + 40 and 30 <= h < 60
            depth = 0.7 if on_box else 0.8
            x, y, z = (w - 79.5) * depth / 160, -(h - 59.5) * depth / 160, 0.8 - depth
            cell = tuple(int((p - low) // 0.05) for p, low in zip((x, y, z), (-0.4, -0.3, -0.025), strict=True))
            cells.setdefault(cell, []).append(200 if on_box else 100)  # type: ignore[arg-type]
    return cells


def maps(printed: str) -> list[list[str]]:
    """The maps that were printed, each from the row of the lowest y on."""
    rows = re.findall(r"^  ([.\d]{16})$", printed, re.MULTILINE)
    assert len(rows) == 2 * Y
    return [rows[:Y][::-1], rows[Y:][::-1]]


def test_the_voxel_example(tmp_path: Path) -> None:
    printed = compile_and_run(EXAMPLE, tmp_path / "voxelize", "-std=c11", *STRICT)
    first, second = expected(20), expected(90)
    pixels = sum(len(greys) for greys in first.values())
    assert f"{WIDTH * HEIGHT} pixels: {pixels} in {len(first)} cells, 0 outside" in printed
    one, both = maps(printed)
    for shown, cells in ((one, set(first)), (both, set(first) | set(second))):
        for x in range(X):
            for y in range(Y):
                heights = [z for cx, cy, z in cells if (cx, cy) == (x, y)]
                assert shown[y][x] == (str(max(heights)) if heights else "."), (x, y)
    greys = first[5, 7, 2]
    assert f"cell (5, 7, 2): {len(greys)} pixels of mean grey 200; cell (5, 7, 4): 0, -1" in printed
    last = max(second)
    assert f"{len(second)} voxels; the last is {last} of {len(second[last])} pixels" in printed
    assert "bad data" in printed and "invalid argument" in printed
