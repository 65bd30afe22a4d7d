"""The voxelize suite's own parts: its table of cases, inputs, peers, checks, bytes, bars and reports."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import robocache
from benchmarks import __main__ as command
from benchmarks import (
    bars,
    graphs,
    measure,
    provenance,
    report,
    tables,
    timing,
    voxel_cases,
    voxel_checks,
    voxel_inputs,
    voxelize,
)
from benchmarks import voxel_peers as peers
from benchmarks.voxel_cases import VoxelCase

BASES = [case for case in voxel_cases.CASES if case.base is None and "gpu" in case.tags]
TINY = VoxelCase("tiny", 300, (6, 5, 4), reduce=("count",), tags=frozenset({"cpu"}))
ONE = VoxelCase("tiny-onecell", 300, (6, 5, 4), reduce=("count",), scatter="onecell", base="tiny")
PLAN = measure.Plan("cpu", repeats=3, compile_modes=(), max_sets=2, warm=False)


def small(case: VoxelCase) -> VoxelCase:
    return case.scaled(2, 900, 9)


# ---- Cases and inputs ----------------------------------------------------------------------------------------------


def test_names_are_unique_and_bases_exist() -> None:
    by_name = {case.name: case for case in voxel_cases.CASES}
    assert len(by_name) == len(voxel_cases.CASES)
    for case in voxel_cases.CASES:
        assert case.op in voxel_cases.OPS and case.scatter in voxel_cases.SCATTERS
        assert (case.base is not None) == (case.scatter != "uniform") or case.op == "sparse"
        if case.base is not None:
            base = by_name[case.base]
            assert (base.points, base.size, base.reduce, base.scatter) == (
                case.points,
                case.size,
                case.reduce,
                "uniform",
            )
    assert set(bars.BARS) <= set(by_name) | {case.name for case in graphs.CASES}


@pytest.mark.parametrize("scatter", voxel_cases.SCATTERS)
def test_points_lie_inside_as_they_should(scatter: str) -> None:
    case = VoxelCase("lie", 4000, (20, 16, 12), batch=2, scatter=scatter, voxel=(0.05, 0.1, 0.2), reduce=("count",))
    inputs = voxel_inputs.build(case, seed=1)
    again, other = voxel_inputs.build(case, seed=1), voxel_inputs.build(case, seed=2)
    assert torch.equal(inputs.points, again.points) and not torch.equal(inputs.points, other.points)
    counts, dropped = robocache.voxelize_point_cloud(
        inputs.points,
        voxel_size=case.voxel,
        grid_min=case.grid_min,
        grid_size=case.size,
        reduce="count",
        return_dropped=True,
    )
    assert dropped.tolist() == [0, 0]
    cells = [int((sample > 0).sum()) for sample in counts]
    if scatter == "onecell":
        assert cells == [1, 1]
    elif scatter == "uniform":
        assert min(cells) > 0.5 * case.cells
    else:  # surfaces: many cells, but not the volume
        assert all(50 < one < 0.5 * case.cells for one in cells)


def test_scans_and_depth_images_are_in_order() -> None:
    def steps(scatter: str) -> float:
        case = VoxelCase("order", 4096, (64, 64, 64), scatter=scatter)
        points = voxel_inputs.build(case).points[0]
        return float((points[1:] - points[:-1]).norm(dim=-1).median())

    assert steps("scan") < 0.2 * steps("uniform") and steps("depth") < 0.2 * steps("uniform")


def test_images_see_the_grid() -> None:
    case = next(case for case in voxel_cases.CASES if case.op == "images").scaled(1, 0, 100)
    inputs = voxel_inputs.build(case)
    options = {"voxel_size": case.voxel, "grid_min": case.grid_min, "grid_size": case.size, "depth_scale": 0.001}
    counts, dropped = robocache.voxelize_depth(
        inputs.depth, inputs.intrinsics, inputs.poses, reduce="count", return_dropped=True, **options
    )
    assert int(counts.sum()) == inputs.depth.numel() and int(dropped.sum()) == 0


# ---- Peers and checks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", BASES, ids=lambda case: case.name)
def test_ours_and_peers_compute_the_same(case: VoxelCase) -> None:
    inputs = voxel_inputs.build(small(case), seed=3)
    ours = voxel_inputs.flat(voxel_inputs.bind(inputs, "cpu")())
    assert voxel_checks.check_ours(inputs)["reference"].startswith("torch")
    calls = [peers.bind_peer(peers.obvious(inputs.case), inputs)]
    calls += [peers.bind_numpy(inputs)] if peers.has_numpy(inputs.case) else []
    for call in calls:
        got = call()
        assert voxel_checks.check_peer(inputs.case, "peer", got, ours)["agree"] >= 0.999
        for place in range(1 if case.op == "sparse" else len(ours)):
            wrong = copy.deepcopy(voxel_inputs.flat(got))
            wrong[place] = wrong[place] + 1
            with pytest.raises(measure.CheckFailed):
                voxel_checks.check_peer(inputs.case, "peer", wrong, ours)


@pytest.mark.parametrize("place", [1, 2, 4])
def test_wrong_sparse_rows_are_noticed(place: int) -> None:
    case = small(next(case for case in BASES if case.name == "sparse-mean-1x1M-c16-200"))
    ours = voxel_inputs.flat(voxel_inputs.bind(voxel_inputs.build(case), "cpu")())
    wrong = [tensor.clone() for tensor in ours]
    wrong[place][..., 1:] = wrong[place][..., :-1].clone()
    assert voxel_checks.check_peer(case, "peer", ours, ours)["agree"] == 1.0
    with pytest.raises(measure.CheckFailed):
        voxel_checks.check_peer(case, "peer", wrong, ours)


def test_clouds_beyond_the_reference_are_counted_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voxel_checks, "LARGEST_REFERENCE", 10)
    inputs = voxel_inputs.build(TINY)
    assert voxel_checks.check_ours(inputs) == {"reference": "exact counts"}
    right = voxel_inputs.bind(inputs, "cpu")()
    wrong = right.clone()
    wrong.view(-1)[0] += 1
    monkeypatch.setattr(voxel_checks, "bind", lambda inputs, backend: lambda: wrong)
    with pytest.raises(measure.CheckFailed, match="not the exact one"):
        voxel_checks.check_ours(inputs)


@pytest.mark.parametrize("op", ["dense", "devoxelize_backward"])
def test_a_wrong_answer_is_not_timed(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = VoxelCase("wrong", 50, (4, 4, 4), op=op, reduce=("mean",), columns=2)
    right = voxel_inputs.bind

    def bind(inputs: Any, backend: str) -> Any:
        call = right(inputs, backend)
        return call if backend == "torch" else lambda: [one + 1e-3 for one in voxel_inputs.flat(call())]

    monkeypatch.setattr(voxel_checks, "bind", bind)
    with pytest.raises(measure.CheckFailed, match="off"):
        voxelize.run_case(case, PLAN, timing.WallTimer(), None, lambda text: None)


# ---- Bytes ---------------------------------------------------------------------------------------------------------


def moved(case: VoxelCase) -> dict[str, int]:
    inputs = voxel_inputs.build(case)
    return voxel_checks.bytes_moved(inputs, voxel_inputs.flat(voxel_inputs.bind(inputs, "cpu")()))


def test_bytes_of_dense_and_sparse_calls() -> None:
    dense = moved(
        VoxelCase("b", 50, (4, 3, 9), batch=2, reduce=("mean", "occupancy"), columns=5, out=voxel_cases._BITS)
    )
    cells = 2 * 4 * 3
    assert dense == {
        "points": 2 * 50 * 12,
        "features": 2 * 50 * 20,
        "out": cells * 9 * 20 + cells * 2,
        "total": 2 * 50 * 32 + cells * 182,
    }
    sparse = moved(VoxelCase("b", 50, (4, 4, 4), op="sparse", reduce=("mean",), columns=2, max_voxels=7))
    assert sparse["out"] == 7 * (12 + 8 + 4) + 8 + 50 * 8  # coords, means and counts; num_voxels; inverse


def test_bytes_of_reads_and_gradients() -> None:
    one = VoxelCase("b", 50, (8, 8, 8), op="devoxelize", columns=3, scatter="onecell")
    got = moved(one)
    assert got["grid"] % 12 == 0 and got["grid"] <= 27 * 12 and got["grid"] >= 8 * 12
    inputs = voxel_inputs.build(one)
    grid = torch.ones(1, 8, 8, 8, 3, requires_grad=True)
    out = robocache.devoxelize(grid, inputs.points, voxel_size=one.voxel, grid_min=one.grid_min)
    out.sum().backward()
    assert got["grid"] == int((grid.grad != 0).sum()) * 4
    back = moved(VoxelCase("b", 50, (8, 8, 8), op="backward", reduce=("mean",), columns=3, scatter="onecell"))
    assert (back["grad"], back["grid"], back["index"], back["out"]) == (12, 4, 400, 600)


def test_a_gpu_table_tells_cold_warm_and_wall_apart() -> None:
    """Of a row as a GPU run writes it."""
    made = row("occupancy-1x500k-128-u8", 7.5, eager=40.0) | {"floor_us": 2.0, "share_of_bandwidth": 0.27}
    made["variants"]["robocache"] |= {"warm": {"median": 5.0}, "eager_wall_us": 31.5}
    made["variants"]["eager"]["eager_wall_us"] = 99.5
    header, cells = tables.table_of("voxelize", {"suite": "voxelize", "device": "cuda", "plan": {}, "cases": [made]})
    told = dict(zip(header, cells[0], strict=True))
    assert told["robocache"].startswith("7.50") and told["warm"] == "5.00" and told["wall"] == "31.5"
    assert told["eager"] == "40.0" and told["eager wall"] == "99.5"


# ---- Bars and reports ----------------------------------------------------------------------------------------------


def row(name: str, us: float, eager: float | None = None, base: str | None = None, points: int = 1_000_000) -> dict:
    stats = timing.summarize([us, us, us], 1).as_dict()
    made: dict[str, Any] = {"name": name, "errors": {}, "variants": {"robocache": {"cold": stats}}}
    made |= {"bytes": {"total": 10_000}, "points_per_second": points / (us * 1e-6)}
    if eager is not None:
        made["variants"]["eager"] = {"cold": timing.summarize([eager] * 3, 1).as_dict()}
    return made | ({"base": base} if base else {})


def test_verdicts() -> None:
    uniform = row("occupancy-1x500k-128-u8", 7.5)
    rows = [uniform, row("occupancy-1x500k-128-u8-onecell", 22.6, base="occupancy-1x500k-128-u8")]
    assert bars.verdict(uniform, rows) == "7.5 us: met"
    assert bars.verdict(row("occupancy-1x500k-128-u8", 7.6), rows) == "7.5 us: missed"
    assert bars.of_base(rows[1], rows) == pytest.approx(22.6 / 7.5)
    assert bars.verdict(rows[1], rows) == "3x uniform: missed"
    assert bars.verdict(rows[1], [row("occupancy-1x500k-128-u8", 8.0)]) == "3x uniform: met"
    assert bars.verdict(rows[1], rows[1:]) == "-"  # nothing to compare with
    assert bars.verdict(row("sparse-coords-1x1M-200", 199.0), []) == "5 G points/s: met"
    assert bars.verdict(row("sparse-coords-1x1M-200", 201.0), []) == "5 G points/s: missed"
    assert bars.verdict(row("cpu-count-1x500k-128-i32", 10.0, eager=30.0), []) == "3x eager: met"
    assert bars.verdict(row("cpu-count-1x500k-128-i32", 10.0, eager=29.0), []) == "3x eager: missed"
    assert bars.verdict(row("cpu-count-1x500k-128-i32", 10.0), []) == "-"
    assert bars.verdict(row("no such row", 1.0), []) == "-"


@pytest.fixture
def tiny_table(monkeypatch: pytest.MonkeyPatch) -> Any:
    broken = VoxelCase("broken", 10, (4, 4, 4), reduce=("no such reduction",), tags=frozenset({"cpu"}))
    monkeypatch.setattr(voxel_cases, "CASES", (TINY, ONE, broken))
    monkeypatch.setattr(timing, "copy_bandwidth", lambda *a, **k: {"bytes_per_second": 1e10})
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("tiny_table")
def test_a_quick_run_and_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, page = tmp_path / "voxelize.json", tmp_path / "page.md"
    arguments = ["--device", "cpu", "--suite", "voxelize", "--quick", "--no-host", "--out", str(out)]
    assert command.main(arguments) == 1  # for the broken row; the others are there
    results = json.loads(out.read_text())
    rows = {one["name"]: one for one in results["cases"]}
    assert results["suite"] == "voxelize" and results["complete"] is False
    assert rows["broken"]["variants"] == {} and "no such reduction" in rows["broken"]["errors"]["robocache"]
    for name in ("tiny", "tiny-onecell"):
        assert rows[name]["errors"] == {} and set(rows[name]["variants"]) >= {"robocache", "eager", "numpy"}
        assert set(rows[name]["variants"]["robocache"]["cold"]) == {
            *("median", "p5", "p95", "p99", "mean", "ci95", "repeats", "calls", "ci95_p99")
        }
    printed = capsys.readouterr().out
    assert "tiny: robocache " in printed and "broken: robocache:" in printed
    assert str(provenance.ROOT) not in out.read_text()

    assert command.main([*arguments, "--filter", "tiny"]) == 0
    assert {one["name"] for one in json.loads(out.read_text())["cases"]} == {"tiny", "tiny-onecell"}
    begin, end = report.markers("voxelize")
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    assert report.main([str(out), "--write", str(page), "--check"]) == 1
    assert report.main([str(out), "--write", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text and "| tiny-onecell |" in text
    assert report.main([str(out), "--write", str(page), "--check"]) == 0
    page.write_text("no markers")
    with pytest.raises(SystemExit, match="bench:voxelize:begin"):
        report.main([str(out), "--write", str(page)])


@pytest.mark.usefixtures("tiny_table")
def test_a_filter_chooses_the_suites_that_have_such_rows(tmp_path: Path) -> None:
    out = tmp_path / "one.json"
    assert (
        command.main(["--device", "cpu", "--filter", "tiny", "--repeats", "3", "--ours-only", "--out", str(out)]) == 0
    )
    results = json.loads(out.read_text())
    assert results["suite"] == "voxelize" and [one["name"] for one in results["cases"]] == ["tiny"]
    with pytest.raises(SystemExit, match="no case"):
        command.main(["--device", "cpu", "--filter", "nothing"])
    with pytest.raises(SystemExit, match="--out: expected one suite"):
        command.main(["--device", "cpu", "--host-only", "--out", str(out)])


def test_a_budget_cuts_repeats_of_slow_calls_only() -> None:
    assert timing._within(None, 100, 50.0, 50.0) == 100
    assert timing._within(1.0, 100, 19.0, 19.0) == 100  # a call of up to 20 ms keeps its repeats
    assert timing._within(1.0, 100, 50.0, 50.0) == 20
    assert timing._within(1.0, 100, 5000.0, 5000.0) == timing.LEAST_REPEATS
    assert timing._within(1.0, 5, 5000.0, 5000.0) == 5


def test_host_cost_of_voxel_calls() -> None:
    from benchmarks.host import run_host

    result = run_host("cpu", 5, 2, lambda text: None, "voxelize")
    assert "errors" not in result
    assert {"clone", "voxelize_point_cloud", "voxelize_depth", "devoxelize", "ops.voxelize"} <= set(result["grad"])
