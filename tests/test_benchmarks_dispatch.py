"""The dispatch suite: its arithmetic, its tables, and a run on a device that is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import dispatch, report
from robocache._dispatch import points, sweep
from robocache._dispatch.policy import Policy

from .dispatch_fakes import FakeDevice, device_fixture, policy_fixture, recorded, tuned_fixture  # noqa: F401  (fixtures)


def row(
    op: str, result: str, choice: str, cpu: float, gpu: float, auto: float, first: str | None = None
) -> dict[str, Any]:
    times = {"cpu": cpu, "gpu": gpu, "auto": auto}
    return {
        "name": op,
        "op": op,
        "result": result,
        "first_choice": first or choice,
        "choice": choice,
        "times_us": times,
        "first_ratio": times[first or choice] / min(cpu, gpu),
        "ratio": times[choice] / min(cpu, gpu),
        "errors": {},
    }


def test_summaries_by_hand() -> None:
    rows = [
        row("fuse", "host", "cpu", 10.0, 40.0, 10.0),
        row("fuse", "host", "gpu", 1000.0, 250.0, 250.0, first="cpu"),
        row("fuse", "device", "cpu", 130.0, 100.0, 130.0),
    ]
    found = dispatch.summaries(rows)
    assert list(found) == ["fuse, host", "fuse, device", "all, host", "all, device", "all"]
    host = found["fuse, host"]
    assert host["cpu_us"] == pytest.approx(100) and host["gpu_us"] == pytest.approx(100)
    assert host["auto_us"] == host["chosen_us"] == pytest.approx(50)
    assert host["within"] and host["beats_both"] and host["gpu_taken"] == 1
    assert (host["worst_choice"], host["worst_first"], host["first_over_worst"]) == (1, 4, 1)
    assert host["first_us"] == pytest.approx(100)
    assert dispatch.cells("fuse, host", host)[-3:-1] == ["4.00x (1 over 1.15)", "1.00x"]
    device = found["fuse, device"]
    assert device["worst_choice"] == pytest.approx(1.3) and device["over_worst"] == 1
    assert not device["within"] and not device["beats_both"]
    assert dispatch.cells("fuse, host", host)[-1] == "yes"
    assert dispatch.cells("fuse, device", device)[-1] == "1 over 1.15 x, not under both"


def test_calls_take_turns() -> None:
    order: list[str] = []
    found = dispatch.in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 0.0)
    assert order == ["a", "a", "b", "b"] * 6 and set(found) == {"a", "b"}  # warm, then twice a turn


def test_expanded_inputs_are_made_whole_before_they_are_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's pin_memory keeps an expanded tensor's strides, and then cannot write to it."""

    def locked(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor)

    monkeypatch.setattr(torch.Tensor, "pin_memory", locked)
    spec = next(spec for spec in sweep.unseen("voxelize_depth", 20) if spec["batch"] > 1)
    arguments = sweep.build("voxelize_depth", spec)
    assert 0 in arguments["camera_to_grid"].stride()
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
        arguments["camera_to_grid"].pin_memory()
    made = dispatch._pinned(arguments)
    assert torch.equal(made["camera_to_grid"], arguments["camera_to_grid"])
    assert made["camera_to_grid"].is_contiguous() and torch.equal(made["depth"], arguments["depth"])


def test_an_untuned_machine_is_told_to_tune(
    policy: Policy, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch.torch, "empty", lambda *given, **said: None)
    with pytest.raises(SystemExit, match="nothing is tuned for this machine: run `python -m robocache tune` first"):
        dispatch.tuned_points()
    device.refusal = "gone"
    with pytest.raises(SystemExit, match="no GPU can be used: gone"):
        dispatch.tuned_points()


def test_a_run_writes_rows_summaries_and_the_points(
    tuned: Policy, device: FakeDevice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(dispatch, "tuned_points", lambda: points.as_json(recorded()))
    monkeypatch.setattr(dispatch.torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(dispatch, "_pinned", lambda arguments: arguments)
    monkeypatch.setattr(dispatch, "OPERATIONS", ("resample", "devoxelize"))
    small = {op: sorted(sweep.grid(op), key=lambda s: s["batch"] * s.get("points", s.get("targets")))[:2] for op in
             ("resample", "devoxelize")}  # fmt: skip
    monkeypatch.setattr(dispatch.sweep, "unseen", lambda op, count: small[op])
    monkeypatch.setattr(command, "select", lambda options, suite: ["sizes"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(command.provenance, "provenance", _provenance)
    path = tmp_path / "dispatch.json"
    assert command.main(["--device", "cuda", "--suite", "dispatch", "--quick", "--out", str(path)]) == 0
    results = json.loads(path.read_text())
    assert results["suite"] == "dispatch" and results["complete"] and len(results["cases"]) == 8
    assert results["tuned"]["schema"] == points.SCHEMA
    for one in results["cases"]:
        assert set(one["times_us"]) == {"cpu", "gpu", "auto"} and one["choice"] in ("cpu", "gpu")
        assert (one["ratio"] >= 1 and one["authority"] == "file") or one["choice"] == "cpu"
        assert one["first_choice"] in ("cpu", "gpu") and one["first_ratio"] >= 1
        assert one["measured"]["cpu"]["calls"] + one["measured"]["gpu"]["calls"] >= 4
    assert set(results["summaries"]) >= {"all", "all, host", "all, device", "resample, host"}
    page = tmp_path / "page.md"
    page.write_text("\n".join(report.markers("dispatch")) + "\n")
    assert report.main([str(path), "--write", str(page)]) == 0
    assert "| all, host |" in page.read_text() and "Geometric means" in page.read_text()


def test_a_size_that_fails_is_a_row_with_an_error(tuned: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "tuned_points", dict)
    monkeypatch.setattr(dispatch, "measure_case", lambda *given: 1 / 0)
    found = dispatch.run_suite(2, 0.0, lambda text: None)
    assert len(found["cases"]) == 24 and found["summaries"] == {}
    assert all(one["errors"] == {"robocache": "ZeroDivisionError: division by zero"} for one in found["cases"])


def test_the_suite_is_for_machines_with_a_gpu() -> None:
    options = command.parse(["--device", "cpu"])
    assert "dispatch" in options.suite and command.select(options, "dispatch") == []
    assert command.select(command.parse(["--device", "cuda"]), "dispatch")
    assert not command.select(command.parse(["--device", "cuda", "--filter", "fuse"]), "dispatch")


def _provenance(device: str, argv: list[str]) -> dict[str, Any]:
    git = {"commit": "0" * 40, "dirty": False}
    facts = {"git": git, "gpu": "Test GPU", "driver": "1", "cuda": "13", "cpu": "Test", "threads": 2}
    return {**facts, "torch": "2", "date": "2026-11-25"}
