"""What the pages say about voxels holds: the README's example, tables of the semantics page, names on the C page."""

from __future__ import annotations

import re

import torch

import robocache
from robocache._errors import FAULTS

from .test_c_example import declared
from .test_docs import ROOT, blocks

SEMANTICS = (ROOT / "docs" / "semantics.md").read_text()
VOXELS = SEMANTICS[SEMANTICS.index("# What voxelize computes") :]


def rows(text: str, head: str) -> list[list[str]]:
    """The cells of the table whose first line begins with `head`."""
    lines = text[text.index(head) :].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_readme_example_gives_the_shapes_it_claims() -> None:
    torch.manual_seed(0)
    names: dict[str, object] = {"torch": torch, "robocache": robocache}
    (example,) = [code for code in blocks(ROOT / "README.md", "python") if "voxelize_depth" in code]
    exec(example, names)
    grids, tokens = names["grids"], names["tokens"]
    told = {
        "occupancy": ([4, 50, 50, 40], torch.bool),
        "count": ([4, 50, 50, 40], torch.int32),
        "mean": ([4, 50, 50, 40, 3], torch.float32),
    }
    assert {name: (list(grid.shape), grid.dtype) for name, grid in grids.items()} == told  # type: ignore[attr-defined]
    assert list(names["seen"].shape) == [4, 50, 50, 75]  # type: ignore[attr-defined]
    assert int(names["seen"].sum()) > 0  # type: ignore[attr-defined]
    shapes = {name: list(getattr(tokens, name).shape) for name in tokens._fields}  # type: ignore[attr-defined]
    assert shapes == {
        "coords": [4, 16384, 3],
        "features": [4, 16384, 3],
        "counts": [4, 16384],
        "num_voxels": [4],
        "inverse": [4, 20000],
    }
    assert bool((tokens.num_voxels <= 16384).all())  # type: ignore[attr-defined]
    assert list(names["read"].shape) == [4, 20000, 3]  # type: ignore[attr-defined]


def test_the_faults_of_the_page_are_those_of_the_library() -> None:
    told = {fault.strip("`") for fault, _ in rows(VOXELS, "| fault |")}
    assert told == set(FAULTS[FAULTS.index("row") + 1 :])


def test_the_table_of_bounds() -> None:
    """Each cell of the table, by a call."""
    infinity = float("inf")
    frame = {"voxel_size": 1.0, "grid_min": 0.0, "grid_size": 2}
    values = {"in the grid": 0.5, "outside, ±infinity among it": infinity, "NaN": float("nan")}
    table = {row[0]: row[1:] for row in rows(VOXELS, "| a coordinate |")}
    assert len(table) == 4
    for name, value in values.items():
        for bounds, told in zip(("drop", "clamp", "raise"), table[name], strict=True):
            points = torch.tensor([[0.5, value, 0.5]])
            try:
                grid, dropped = robocache.voxelize_point_cloud(points, bounds=bounds, return_dropped=True, **frame)
            except robocache.DataError:
                assert told == "an error", (name, bounds)
                continue
            found = grid.nonzero().tolist()
            assert (
                told
                == {(): "no cell", (0,): "counts", (1,): "counts in the nearest cell"}[tuple(cell[1] for cell in found)]
            )
            assert int(dropped) == (name != "in the grid")


def test_empty_cells_and_usual_dtypes() -> None:
    points, features = torch.full((1, 3), 0.5), torch.tensor([[9]], dtype=torch.uint8)
    table = rows(VOXELS, "| reduce |")
    names = [name for row in table for name in re.findall(r"`(\w+)`", row[0])]
    assert names == ["occupancy", "count", "sum", "mean", "max", "min"]
    grids = robocache.voxelize_point_cloud(
        points, features, voxel_size=1.0, grid_min=0.0, grid_size=(1, 1, 2), reduce=names, empty_value=-7
    )
    for row in table:
        for name in re.findall(r"`(\w+)`", row[0]):
            grid = grids[name].flatten()
            assert grid[1].item() == (0 if row[2] == "0" else -7), name
            usual = {"occupancy": torch.bool, "count": torch.int32}.get(name, torch.float32)
            assert grid.dtype == usual and row[3].startswith("floating" if usual == torch.float32 else str(usual)[6:])


def test_calls_that_the_c_page_names_exist() -> None:
    for page in (ROOT / "docs" / "c-api.md", ROOT / "examples" / "c" / "README.md"):
        named = set(re.findall(r"`(rc_\w+)`", page.read_text()))
        functions = {name for name in named if re.search(r"_(cpu|cuda|workspace|fault|error)$", name)}
        assert functions <= declared(), functions - declared()
        header = (ROOT / "csrc" / "include" / "robocache.h").read_text()
        assert all(re.search(rf"\b{name}\b", header) for name in named)
