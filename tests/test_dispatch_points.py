"""The tuned file: where it lies, what makes it unusable, and what is said then."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import robocache
from robocache._dispatch import points
from robocache._dispatch.calls import OPERATIONS
from robocache._dispatch.policy import Policy

from .dispatch_fakes import KEY, FakeDevice, device_fixture, policy_fixture, recorded  # noqa: F401  (fixtures)


@pytest.fixture(name="folder")
def folder_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(points.DIRECTORY, str(tmp_path))
    monkeypatch.setattr(points, "_noticed", False)
    return tmp_path


def test_where_files_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv(points.DIRECTORY, raising=False)
    assert points.directory() == tmp_path / "home" / ".cache" / "robocache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert points.directory() == tmp_path / "xdg" / "robocache"
    monkeypatch.setenv(points.DIRECTORY, str(tmp_path / "mine"))
    assert points.directory() == tmp_path / "mine"
    names = {points.path_for({**KEY, name: "other"}).name for name in points.KEY} | {points.path_for(KEY).name}
    assert len(names) == len(points.KEY) + 1  # every part of the key tells files apart
    assert all(name.startswith("dispatch-") and name.endswith(".json") for name in names)


def test_what_is_saved_is_loaded(folder: Path) -> None:
    tuned = recorded(noise=0.1)
    path = points.save(tuned)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = points.load(KEY)
    assert found == (tuned, path)
    assert [one.name for one in folder.iterdir()] == [path.name]  # no temporary file stays


def test_nothing_there_is_no_notice(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert points.load(KEY) is None


def _edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return edit


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut short": (_cut, ""),
    "empty": (lambda path: path.write_text("") and None, ""),
    "no text": (lambda path: path.write_bytes(b"\xff\xfe\x00\x81" * 40) and None, ""),
    "deep": (lambda path: path.write_text("[" * 100_000) and None, ""),
    "a list": (lambda path: path.write_text("[]") and None, "file: expected an object, got list"),
    "old schema": (_edit(lambda data: data.update(schema=0)), "schema: expected 1, got 0"),
    "no schema": (_edit(lambda data: data.pop("schema")), "schema: expected 1, got None"),
    "no key": (_edit(lambda data: data.pop("key")), "key: expected an object, got NoneType"),
    "short key": (_edit(lambda data: data["key"].pop("driver")), "key: driver not there"),
    "no copies": (_edit(lambda data: data["copies"].pop("out")), "copies.out: expected a list"),
    "copy of 0 us": (
        _edit(lambda data: data["copies"]["out"].__setitem__(0, [1024, 0.0])),
        "copies.out: expected a finite number",
    ),
    "nan": (
        _edit(lambda data: data["points"]["fuse"][3].update(cpu_us=float("nan"))),
        r"points.fuse\[3\].cpu_us: expected a finite number",
    ),
    "a word": (
        _edit(lambda data: data["points"]["fuse"][3].update(host_us="fast")),
        r"points.fuse\[3\].host_us: expected a finite number of at least 0.001, got 'fast'",
    ),
    "true": (_edit(lambda data: data["points"]["fuse"][3].update(pinned=True)), r"fuse\[3\].pinned: expected a finite"),
    "short work": (_edit(lambda data: data["points"]["fuse"][3]["work"].pop()), r"points.fuse\[3\].work: expected"),
    "few points": (
        _edit(lambda data: data["points"].update(fuse=data["points"]["fuse"][:3])),
        "points.fuse: expected a list of at least 4",
    ),
    "an operation is missing": (_edit(lambda data: data["points"].pop("devoxelize")), "points: devoxelize not there"),
    "an unknown operation": (
        _edit(lambda data: data["points"].update(blur=data["points"]["fuse"])),
        "points.blur: this version does not know",
    ),
    "other work": (_edit(lambda data: data["work"].update(fuse=["x"])), "counts its work differently"),
    "another machine": (
        _edit(lambda data: data["key"].update(gpu="Another GPU")),
        r"it was tuned for another set-up: gpu Another GPU \(here Test GPU 9000\)",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_file_that_cannot_be_used_is_ignored_with_one_notice(name: str, folder: Path) -> None:
    damage, told = DAMAGE[name]
    path = points.save(recorded())
    damage(path)
    with pytest.warns(RuntimeWarning, match=told) as caught:
        found = [points.load(KEY) for _ in range(2)]
    assert found == [None, None]
    assert len(caught) == 1
    text = str(caught[0].message)
    assert path.name in text and "is ignored" in text and "run `robocache tune`" in text
    assert path.exists()  # it is left as it is


def test_a_file_of_another_set_up_is_told_of(folder: Path) -> None:
    points.save(recorded())
    with pytest.warns(RuntimeWarning, match=r"another set-up: driver 580.1 \(here 590.2\), threads .* \(here 3\)"):
        assert points.load({**KEY, "driver": "590.2", "threads": 3}) is None


def test_calls_go_on_without_a_usable_file(policy: Policy, device: FakeDevice) -> None:
    path = points.save(recorded())
    _cut(path)
    policy.forget()
    grid, cloud = torch.rand(10, 10, 10, 2), torch.rand(20_000, 3)
    with pytest.warns(RuntimeWarning, match="is ignored"):
        robocache.devoxelize(grid, cloud, voxel_size=0.1, grid_min=0.0)
    said = robocache.explain(robocache.devoxelize, grid, cloud, voxel_size=0.1, grid_min=0.0)
    assert said.authority == "default"


def test_an_unreadable_folder_is_an_untuned_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(points.DIRECTORY, str(tmp_path / "file"))
    (tmp_path / "file").write_text("not a folder")
    assert points.others() == [] and points.load(KEY) is None
    with pytest.raises(OSError):
        points.want_writable()


def test_an_unwritable_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so the refusal is the operating system's by proxy."""

    def refuses(*given: Any, **said: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(points.tempfile, "mkstemp", refuses)
    with pytest.raises(PermissionError):
        points.want_writable()
    with pytest.raises(PermissionError):
        points.save(recorded())
    assert list(folder.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = points.save(recorded())
    before = path.read_bytes()

    def fails(*given: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(points.json, "dump", fails)
    with pytest.raises(OSError, match="No space left"):
        points.save(recorded(noise=0.5))
    assert path.read_bytes() == before and [one.name for one in folder.iterdir()] == [path.name]


def test_a_file_is_plain_data_and_holds_the_points(folder: Path) -> None:
    data = json.loads(points.save(recorded()).read_text())
    assert data["schema"] == points.SCHEMA and set(data["key"]) == set(points.KEY)
    assert list(data["points"]) == list(OPERATIONS)
    assert set(data["points"]["fuse"][0]) == {
        *("pageable", "pinned", "bytes_out", "work", "cpu_us", "host_us", "device_us"),
    }
