"""What the pages say of the store and the loader holds."""

from __future__ import annotations

import ast
import inspect
import re

import pytest
import torch

import robocache

from .recordings import recordings
from .test_docs import ROOT, blocks

LOADER = (ROOT / "docs" / "loader.md").read_text()


def test_the_readme_example_gives_the_shapes_it_claims() -> None:
    names: dict[str, object] = {"torch": torch, "robocache": robocache}
    (example,) = [code for code in blocks(ROOT / "README.md", "python") if "EpisodeStore" in code]
    exec(example, names)
    state, action, pad, last = (names[name] for name in ("state", "action", "pad", "windows"))
    assert [list(t.shape) for t in (state, action, pad)] == [[256, 2, 7], [256, 16, 7], [256, 16]]  # type: ignore[attr-defined]
    assert [list(last[n].shape) for n in ("state", "action")] == [[64, 1, 7], [64, 16, 7]]  # type: ignore[index]


@pytest.mark.parametrize("page", ["store.md", "loader.md"])
def test_calls_on_the_pages_have_arguments_that_exist(page: str) -> None:
    known = {
        "from_dataset": robocache.EpisodeStore.from_dataset,
        "sample": robocache.EpisodeStore.sample,
        "DataLoader": robocache.DataLoader,
        "voxelize_depth": robocache.voxelize_depth,
    }
    seen = 0
    for code in blocks(ROOT / "docs" / page, "python"):
        for node in ast.walk(ast.parse(code)):
            name = getattr(getattr(node, "func", None), "attr", None)
            if isinstance(node, ast.Call) and name in known:
                parameters = inspect.signature(known[name]).parameters
                assert {keyword.arg for keyword in node.keywords} <= set(parameters), ast.unparse(node)
                seen += 1
    assert seen >= 2


def test_attributes_that_the_loader_page_names_exist() -> None:
    with robocache.DataLoader(recordings(), 4, 2, device="cpu") as loader:
        batch = next(loader)
        for owner, name in re.findall(r"`(loader|batch)\.([a-z_]+)", LOADER):
            assert hasattr(loader if owner == "loader" else batch, name), f"{owner}.{name}"
        for part in re.findall(r"^- `(\w+)`: ", LOADER, re.MULTILINE):
            assert part in loader.meter.last
