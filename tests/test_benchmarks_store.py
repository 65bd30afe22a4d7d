"""The store suite's own parts: recordings, peers that keep LeRobot's rule, checks that can fail, bars and reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import bars, measure, report, store, store_peers, timing

TINY = store.StoreCase("store-tiny", batch=40, horizon=4, episodes=3, seconds=1.0, tags=frozenset({"cpu"}))
PLAN = measure.Plan("cpu", repeats=3)


def test_names_are_unique_and_bars_have_rows() -> None:
    names = [case.name for case in store.CASES]
    assert len(set(names)) == len(names) and set(bars.STORE_BARS) <= set(names)
    assert {case.name for case in store.select("cpu")} < {case.name for case in store.select("cuda")} == set(names)
    assert [case.name for case in store.select("cuda", "*spilled")] == ["store-4096x16-4-spilled"]


def test_peers_keep_lerobots_rule() -> None:
    dataset = store.recordings(TINY)
    table = store_peers.FrameTable(dataset, tuple(store.STREAMS), store.FPS, torch.float32)
    items = store_peers.LeRobotItems(table, {"state": [-2, 0, 3], "imu": [1]}, "cpu")
    assert len(items) == 90
    for index in (0, 1, 29, 30, 61, 89):
        episode, frame = divmod(index, 30)
        item = items[index]
        want, pad = table.windows("state", torch.tensor([episode]), torch.tensor([frame]), [-2, 0, 3])
        assert torch.equal(item["state"], want[0]) and torch.equal(item["state_is_pad"], pad[0])
        assert item["state_is_pad"].tolist() == [frame < 2, False, frame > 26]
        state = torch.from_numpy(dataset[episode].streams["state"].values)
        assert torch.equal(item["state"], state[torch.tensor([frame - 2, frame, frame + 3]).clamp(0, 29)])
    batch = items.batch(5)()
    assert batch["state"].shape == (5, 3, 14) and batch["imu_is_pad"].shape == (5, 1)
    values, pad = store_peers.IndexedFrames(table, "cpu").draw(7, 4)
    assert values.shape == (7, 4, 28) and pad.shape == (7, 4)


@pytest.mark.parametrize("changes", [{}, {"anchors": "times"}, {"dtype": "bfloat16"}, {"spilled": 0.5}], ids=str)
def test_a_row_is_checked_and_timed(changes: dict[str, Any]) -> None:
    case = store.StoreCase(**{**TINY.__dict__, **changes})
    row = store.run_case(case, PLAN, timing.WallTimer(), None, lambda text: None)
    assert not row["errors"] and row["check"] == [{"windows": 40, "reference": 64}]
    peers = {"lerobot-style", "torch-index"} if not {"anchors", "spilled"} & set(changes) else set()
    assert set(row["speedup"]) == peers and json.dumps(row)
    assert (row["store"]["spilled_bytes"] > 0) == ("spilled" in changes)


def test_a_wrong_answer_ends_the_row() -> None:
    dataset = store.recordings(TINY)
    built = store.build(TINY, dataset, "cpu")
    table = store_peers.FrameTable(dataset, tuple(store.STREAMS), store.FPS, torch.float32)
    batch = built.sample(10, 4)
    store.check(TINY, built, batch, table)
    batch.values[3, 2, 1] += 1
    with pytest.raises(measure.CheckFailed, match="state: windows on frames"):
        store.check(TINY, built, batch, table)
    batch = built.sample(10, 4)
    batch.values[3, 2, 20] += 1
    with pytest.raises(measure.CheckFailed, match="not the reference's"):
        store.check(TINY, built, batch, table)
    batch = built.sample(10, 4)
    batch.valid[0, 0, 0] ^= True
    with pytest.raises(measure.CheckFailed, match="is_pad"):
        store.check(TINY, built, batch, table)


def test_bars_and_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def row(ours: float, items: float) -> dict[str, Any]:
        variants = {"robocache": {"cold": {"median": ours}}, "lerobot-style": {"cold": {"median": items}}}
        return {"name": "store-4096x16-4", "variants": variants}

    assert bars.store_verdict(row(50.0, 6000.0)) == "60 us: met, 100 x lerobot-style: met"
    assert bars.store_verdict(row(61.0, 6000.0)) == "60 us: missed, 100 x lerobot-style: missed"
    assert bars.store_verdict({"name": "store-4096x16-4", "variants": {}}) == "-"
    monkeypatch.setattr(store, "CASES", (TINY,))
    out = tmp_path / "store.json"
    assert command.main(["--device", "cpu", "--suite", "store", "--no-host", "--repeats", "5", "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    assert results["suite"] == "store" and results["complete"] is True
    assert "store-tiny" in capsys.readouterr().out and "| store-tiny |" in report.markdown(results)
