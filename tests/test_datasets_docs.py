"""The examples on datasets run, and the pages name what is there."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import numpy as np
import pytest

from robocache import datasets
from robocache._cli import main
from robocache.datasets.inspect import checks
from robocache.datasets.rlds import dataset

from .dataset_files import episodes, write

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "datasets.md"


def test_the_readme_session(tmp_path: Path) -> None:
    session = re.findall(r"^```pycon\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (text,) = [part for part in session if "datasets.open" in part]
    example = doctest.DocTestParser().get_doctest(text, {"path": write("v21", tmp_path, episodes())}, "README", None, 0)
    with np.printoptions(precision=8):
        assert doctest.DocTestRunner().run(example).failed == 0


def test_the_page(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    names: dict[str, object] = {"path": write("v30", tmp_path, episodes())}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        exec(block, names)
    claimed = re.search(r"print\(ds\) +# (.*)", PAGE.read_text())
    assert claimed is not None
    assert capsys.readouterr().out.strip() == claimed[1]
    made = names["ds"]
    assert isinstance(made, datasets.Dataset)
    assert made[0].streams["imu"].times[1] == 5_000_000 * made.ticks_per_second // 10**9


def test_the_page_tells_the_limits_that_are_in_the_code() -> None:
    text = PAGE.read_text()
    assert f"gaps over {checks.GAP:g} intervals" in text
    assert f"a rate {100 * checks.RATE_TOLERANCE:g} % off" in text
    assert f"over {dataset._MOST_ABSENT} records more" in text
    assert f"more than {checks.NORM_WARNING:g}; by more than {checks.NORM_ERROR:g}" in text


def test_every_option_of_inspect_is_on_the_page(capsys) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit):
        main(["inspect", "--help"])
    options = set(re.findall(r"--[a-z]+", capsys.readouterr().out)) - {"--help", "--quiet", "--format", "--split"}
    assert options == {option for option in options if option in PAGE.read_text()}
