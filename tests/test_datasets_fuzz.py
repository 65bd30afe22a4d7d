"""Any flipped byte and any cut of a data file gives an error, or the very numbers that were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robocache import datasets
from robocache.datasets import DatasetError

from .dataset_files import cut, episodes, flip, only, opened, write

_CONTENT = episodes((4, 3))


@pytest.fixture(scope="module", params=["rlds", "rlds_gzip", "v21", "v30"])
def intact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, write(request.param, tmp_path_factory.mktemp("intact"), _CONTENT)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write("rlds", tmp_path_factory.mktemp("raw"), _CONTENT)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_gives_an_error_or_the_data(intact: tuple[str, Path], data: st.DataObject) -> None:
    form, path = intact
    file = only(path, "*.tfrecord-00000*" if form.startswith("rlds") else "data/chunk-000/*.parquet")
    whole = file.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    try:
        if data.draw(st.booleans()):
            flip(file, position, data.draw(st.integers(1, 255)))
        else:
            cut(file, position)
        for index, written in enumerate(_CONTENT):
            try:
                found = opened(form, path)[index].load()
            except DatasetError as error:
                assert (error.episode, bool(error.file)) == (index, True)  # noqa: PT017 - either outcome will do
                continue
            for name, array in written.items():
                assert np.array_equal(found.streams[name].values, array.reshape(len(array), -1))
    finally:
        file.write_bytes(whole)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=3))
def test_damage_without_checksums_is_an_error_or_arrays(raw: Path, flips: list[tuple[int, int]]) -> None:
    file = only(raw, "*.tfrecord-00000*")
    whole = file.read_bytes()
    for position, mask in flips:
        flip(file, position % len(whole), mask)
    try:
        found = datasets.open(raw, rate=30, checksums=False)[0].load()
        for stream in found.streams.values():
            assert len(stream.values) == found.length
    except DatasetError as error:
        assert error.episode == 0  # noqa: PT017 - either outcome will do
    finally:
        file.write_bytes(whole)
