"""The launch table through the library: names, values, classes, forcing, and what is refused. Needs no GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import robocache
from benchmarks import launch_table
from robocache._backend import native

LIBRARY = Path(robocache.__file__).parent / "lib" / "librobocache.so"
UNMEASURED = 1  # a compute capability that no GPU has


@pytest.fixture(autouse=True)
def _given_back() -> Iterator[None]:
    yield
    native.reset_launch_parameters()


def test_every_parameter_is_described() -> None:
    listed = native.launch_parameters()
    names = [parameter["name"] for parameter in listed]
    assert len(listed) >= 20 and len(set(names)) == len(names)
    for parameter in listed:
        kernel, _, what = parameter["name"].partition(".")
        assert kernel and what and parameter["work"]
        assert parameter["default"] in parameter["values"] and len(parameter["values"]) >= 2
        assert parameter["values"] == sorted(set(parameter["values"])) and parameter["values"][0] > 0
        if what == "threads":
            assert all(value % 32 == 0 for value in parameter["values"])


def test_a_gpu_that_was_not_measured_takes_the_defaults() -> None:
    for parameter in native.launch_parameters():
        for shape_class in launch_table.SHAPE_CLASSES:
            assert native.launch_parameter(parameter["name"], shape_class, UNMEASURED) == parameter["default"]


def test_measured_gpus_take_what_their_results_chose() -> None:
    for result in launch_table.newest_by_arch(launch_table.committed()):
        for name, by_class in result["table"].items():
            for shape_class, value in by_class.items():
                assert native.launch_parameter(name, shape_class, result["arch"]) == value


def test_classes() -> None:
    ends = native.shape_class_ends()
    assert tuple(ends) == launch_table.SHAPE_CLASSES
    assert 0 < ends["small"] < ends["medium"] and ends["large"] is None


def test_a_forced_value_holds_in_its_class_alone_until_it_is_given_back() -> None:
    def values() -> dict[str, int]:
        classes = launch_table.SHAPE_CLASSES
        return {name: native.launch_parameter("align.warps", name, UNMEASURED) for name in classes}

    before = values()
    native.set_launch_parameter("align.warps", "medium", 64)
    assert values() == before | {"medium": 64}
    native.set_launch_parameter("align.warps", "medium", None)
    assert values() == before
    native.set_launch_parameter("align.warps", "large", 8)
    native.reset_launch_parameters()
    assert values() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("align.speed", "small", 1), r"name: expected one of align.threads, .*, got 'align.speed'"),
        (("align.threads", "huge", 64), r"shape_class: expected small, medium or large, got 'huge'"),
        (("align.threads", "small", 48), r"align.threads: expected one of 32, 64, 128, .*got 48"),
        (("align.threads", "small", 0), r"align.threads: expected one of its values or None, got 0"),
        (("align.threads", "small", -32), r"align.threads: expected one of 32, 64, 128, .*got -32"),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        native.set_launch_parameter(*arguments)
    assert native.launch_parameter("align.threads", "small", UNMEASURED) == 128


def test_the_c_functions_check_their_arguments() -> None:
    library = ctypes.CDLL(str(LIBRARY))
    library.rc_last_error.restype = ctypes.c_char_p
    count = library.rc_launch_parameter_count()
    assert library.rc_find_launch_parameter(b"align.threads") == 0
    assert library.rc_find_launch_parameter(b"nothing") == -1 and library.rc_find_launch_parameter(None) == -1
    value = ctypes.c_int32()
    for parameter, shape_class, words in ((-1, 0, "parameter"), (count, 0, "parameter"), (0, 3, "shape_class")):
        assert library.rc_get_launch_parameter(parameter, 90, shape_class, ctypes.byref(value)) == 1
        assert words in library.rc_last_error().decode()
        assert library.rc_set_launch_parameter(parameter, shape_class, 0) == 1
    assert library.rc_get_launch_parameter(0, 90, 0, None) == 1
    assert "value: expected a pointer, got NULL" in library.rc_last_error().decode()
    assert library.rc_describe_launch_parameter(0, None) == 1
    assert library.rc_describe_launch_parameter(count, None) == 1
