"""The generated launch table: its text, where its rows come from, and whether the committed one is up to date."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest

from benchmarks import launch_table
from robocache._backend import native

from .test_benchmarks_tune import ENDS, PARAMETERS, result


def test_the_text_of_a_table() -> None:
    won = {"small": 32, "medium": 64, "large": 128}
    text = launch_table.text([result(align_threads=won), result(100)], PARAMETERS)
    for words in ("90: NVIDIA H200, 2026-01-02", "driver 580.1, CUDA 13.0, nvcc release 13.0", "commit abc"):
        assert words in text
    assert "python -m benchmarks.tune --write\n" in text
    assert text.index(".arch = 90") < text.index(".arch = 100")
    assert "[RC_TUNE_ALIGN_THREADS] = {32, 64, 128}," in text and "[RC_TUNE_ALIGN_WARPS] = {16, 16, 16}," in text
    assert launch_table.text([result(100), result(align_threads=won)], PARAMETERS) == text


def test_gpus_of_one_capability_share_a_row_and_the_newest_has_it() -> None:
    old = result(date="2026-01-01T00:00:00+00:00", align_threads=dict.fromkeys(ENDS, 32))
    text = launch_table.text([result(), old], PARAMETERS)
    assert text.count(".arch") == 1 and "[RC_TUNE_ALIGN_THREADS] = {128, 128, 128}," in text


def test_results_of_another_build_are_refused() -> None:
    lacking = result()
    del lacking["table"]["align.warps"]
    with pytest.raises(ValueError, match=r"table of 90: expected a value of align.warps, got none; tune anew"):
        launch_table.text([lacking], PARAMETERS)
    with pytest.raises(ValueError, match=r"align.nothing is no launch parameter of this build"):
        launch_table.text([result(align_nothing=dict.fromkeys(ENDS, 1))], PARAMETERS)
    with pytest.raises(ValueError, match=r"align.threads: expected one of \[32, 64, 128\], got 48"):
        launch_table.text([result(align_threads=dict.fromkeys(ENDS, 48))], PARAMETERS)
    hostile = copy.deepcopy(result())
    hostile["provenance"]["arguments"] = ["*/ {.arch = 1} /*"]
    assert launch_table.text([hostile], PARAMETERS).count("*/") == 2  # the head's end, and one about the format


def test_the_committed_table_is_what_the_committed_results_say() -> None:
    assert launch_table.TABLE.read_text() == launch_table.text(launch_table.committed(), native.launch_parameters())


def test_every_parameter_stands_in_every_row_and_in_the_enumeration() -> None:
    header = (launch_table.TABLE.parent / "launch_table.h").read_text()
    names = [launch_table.enumerator(parameter["name"]) for parameter in native.launch_parameters()]
    assert re.findall(r"^    (RC_TUNE_\w+),", header, re.MULTILINE) == names
    rows = launch_table.TABLE.read_text().split(".arch = ")[1:]
    assert len(rows) == len({r["arch"] for r in launch_table.committed()})
    for row in rows:
        assert re.findall(r"\[(RC_TUNE_\w+)\]", row) == names


def test_the_results_on_disk_are_found(tmp_path: Path) -> None:
    assert launch_table.text(launch_table.committed(tmp_path), PARAMETERS).count("No GPU has been measured") == 1
    (tmp_path / "nvidia-h200").mkdir()
    (tmp_path / "nvidia-h200" / "tune.json").write_text(json.dumps(result()))
    assert launch_table.committed(tmp_path) == [result()]
