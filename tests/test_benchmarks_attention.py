"""The attention suite: its cases, what it checks, how it counts, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import attention, attention_cases, measure, plots, report, sota, timing
from benchmarks.attention_cases import AttentionCase

PLAN = measure.Plan("cpu", repeats=3, max_sets=2, warm=False)
TINY = AttentionCase(16, batch=2, heads=2, width=8, dtype="fp32", tags=frozenset({"cpu"}))


def test_the_table() -> None:
    names = [case.name for case in attention_cases.CASES]
    assert len(set(names)) == len(names)
    gpu = attention_cases.select("cuda")
    base = [case for case in gpu if (case.batch, case.heads, case.dtype, case.causal) == (32, 8, "bf16", False)]
    assert [case.seq for case in base] == [64, 128, 256, 512, 1024, 2048, 4096]
    assert all(case.width == 64 for case in gpu)
    assert len({case.heads for case in gpu}) >= 5 and len({case.batch for case in gpu}) >= 5
    assert {case.dtype for case in gpu} == {"bf16", "fp16", "fp32"} and any(case.causal for case in gpu)
    cpu = attention_cases.select("cpu")
    assert max(case.seq for case in cpu) <= 512 and {case.batch for case in cpu} == {2}


def test_flops_by_hand() -> None:
    case = AttentionCase(512)
    assert case.flops == 2 * 2 * 32 * 8 * 512 * 512 * 64  # two products, two operations each
    assert AttentionCase(512, causal=True).flops == case.flops // 2


def test_the_alignment_makes_the_batch() -> None:
    case = AttentionCase(128, batch=4)
    assert (case.align.batch, case.align.targets, case.align.columns) == (4, 128, 8 * 64)
    assert case.align.streams[0].samples == 256 and case.align.streams[0].dtype == "bf16"


def test_a_row_on_the_cpu() -> None:
    row = attention.run_case(TINY, PLAN, timing.WallTimer(budget_s=0.05), None, lambda text: None)
    assert row["errors"] == {}
    assert set(row["variants"]) == {"robocache", "default", "math", "flash"}
    assert row["absent"] == dict.fromkeys(["efficient", "cudnn"], "the backend is for GPUs")
    flash = row["variants"]["flash"]
    assert flash["off"] <= flash["limit"]
    assert flash["tflops"] == pytest.approx(TINY.flops / (flash["cold"]["median"] * 1e-6) / 1e12)
    fastest = min(row["variants"][name]["cold"]["median"] for name in ("default", "math", "flash"))
    assert row["align_share"] == pytest.approx(row["variants"]["robocache"]["cold"]["median"] / fastest)
    assert row["check"][0]["ulp"] == 0


def test_ours_alone_leaves_the_backends_out() -> None:
    plan = measure.Plan("cpu", repeats=3, ours_only=True, max_sets=2, warm=False)
    row = attention.run_case(TINY, plan, timing.WallTimer(budget_s=0.05), 1e10, lambda text: None)
    assert set(row["variants"]) == {"robocache"} and "align_share" not in row and row["share_of_bandwidth"] > 0


def test_a_wrong_backend_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = attention.attend

    def wrong(inputs: Any, causal: bool, backend: str) -> torch.Tensor:
        return right(inputs, causal, backend) + (0.1 if backend == "flash" else 0.0)

    monkeypatch.setattr(attention, "attend", wrong)
    row = attention.run_case(TINY, PLAN, timing.WallTimer(budget_s=0.05), None, lambda text: None)
    assert "flash" not in row["variants"] and "off by" in row["errors"]["flash"] and "math" in row["variants"]


def test_a_wrong_causal_mask_is_noticed() -> None:
    causal = AttentionCase(16, batch=2, heads=2, width=8, dtype="fp32", causal=True)
    inputs = attention.make(causal, "cpu", 0)
    attention.check(causal, inputs, "flash")
    off = attention.attend(inputs, False, "math") - attention.attend(inputs, True, "math")
    assert float(off.abs().max()) > 10 * attention.TOLERANCE["bf16"]


def test_refusals_keep_their_words(monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    inputs = attention.make(TINY, "cpu", 0)

    def refuse(inputs: Any, causal: bool, backend: str) -> torch.Tensor:
        warnings.warn("Flash attention kernel not used because: (Triggered internally at x.cpp:1)", stacklevel=1)
        warnings.warn("Expected query to have dtype Half. (Triggered internally at x.cpp:2)", stacklevel=1)
        raise RuntimeError("No available kernel. Aborting execution.")

    monkeypatch.setattr(attention, "attend", refuse)
    assert attention.why_not(TINY, inputs, "flash") == "Expected query to have dtype Half."

    def fail(inputs: Any, causal: bool, backend: str) -> torch.Tensor:
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr(attention, "attend", fail)
    with pytest.raises(RuntimeError, match="illegal"):
        attention.why_not(TINY, inputs, "flash")
    assert "17 GB" in str(attention.why_not(AttentionCase(4096), inputs, "math"))


def test_the_command_and_its_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_cases, "CASES", (TINY,))
    monkeypatch.setattr(timing, "copy_bandwidth", lambda *a, **k: {"bytes_per_second": 1e10})
    threads = torch.get_num_threads()
    out = tmp_path / "attention.json"
    try:
        status = command.main(["--device", "cpu", "--suite", "attention", "--repeats", "3", "--out", str(out)])
    finally:
        torch.set_num_threads(threads)
    results = json.loads(out.read_text())
    assert status == 0 and results["suite"] == "attention" and "host" not in results
    table = report.markdown(results)
    assert "align / attention" in table and f"| {TINY.name} |" in table
    assert [plot.file.rsplit("-", 1)[1] for plot in plots.planned(results)] == ["speed.svg", "share.svg"]
    assert sota.all_findings([results]) == []  # the backends are no rivals
    assert "*cudnn*: the backend is for GPUs" in sota.page([results], whole=False)
