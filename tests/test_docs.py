"""The pages keep their word: their Python and C runs, every link leads somewhere, README lists every page."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import torch

import robocache
from benchmarks import evidence
from benchmarks.__main__ import make_plan, parse

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(robocache.__file__).parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def test_the_readme_examples_run_and_give_the_shapes_they_claim() -> None:
    torch.manual_seed(0)
    names: dict[str, object] = {}
    examples = blocks(ROOT / "README.md", "python")
    assert len(examples) == 5  # the fourth, on voxels: test_voxel_docs.py says more; the fifth: test_store_docs.py
    for example in examples:
        exec(example, names)
    assert names["aligned"].shape == (32, 100, 520)  # type: ignore[attr-defined]
    assert names["aligned"].dtype == torch.float32  # type: ignore[attr-defined]
    assert names["valid"].shape == (32, 100, 2)  # type: ignore[attr-defined]
    assert names["batch"].shape == (256, 16, 8)  # type: ignore[attr-defined]
    assert names["out"].shape == (45, 7)  # type: ignore[attr-defined]
    assert robocache.fused_columns(names["streams"]) == {"joints": slice(0, 8), "camera": slice(8, 520)}  # type: ignore[arg-type]


def test_the_semantics_examples_run() -> None:
    latency, kinds = blocks(ROOT / "docs" / "semantics.md", "python")
    stamps = torch.arange(5) * 33_333_333
    names = {
        "robocache": robocache,
        "features": torch.arange(5.0)[:, None],
        "stamps_ns": stamps,
        "targets_ns": stamps[1:2],
    }
    exec(latency, names)
    assert names["out"].item() == pytest.approx(1 + 45 / 33.333333, rel=1e-6)  # type: ignore[attr-defined]
    exec(kinds, names)
    state, times = torch.rand(20, 15), torch.arange(20.0)
    out = robocache.resample_trajectories(state, times, times[:-1] + 0.25, kind=names["kind"])  # type: ignore[arg-type]
    assert torch.equal(out[:, 14], state[:-1, 14])
    torch.testing.assert_close(out[:, 10:14].norm(dim=1), torch.ones(19))


def test_the_gap_table_of_the_semantics_page() -> None:
    text = next(block for block in blocks(ROOT / "docs" / "semantics.md", "text") if "stamps (ms)" in block)
    rows = [re.findall(r"[\d.]+|\byes\b|\bno\b|outside", line.split("max_gap")[0]) for line in text.splitlines()]
    stamps, targets, brackets, valid = rows
    times = torch.tensor([int(stamp) for stamp in stamps])
    wanted = torch.tensor([int(target) for target in targets])
    for target, bracket in zip(wanted.tolist(), brackets, strict=True):
        after = int(torch.searchsorted(times, target, right=True))
        gap = str(int(times[after] - times[after - 1])) if after < len(times) else "outside"
        assert gap == bracket
    values = times.float()[:, None]
    _, admitted = robocache.resample_trajectories(values, times, wanted, max_gap=20, return_valid=True)
    assert ["yes" if one else "no" for one in admitted.tolist()] == valid


def test_the_c_program_of_the_c_page_runs(tmp_path: Path) -> None:
    (source,) = blocks(ROOT / "docs" / "c-api.md", "c")
    (tmp_path / "align.c").write_text(source)
    command = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "align.c", f"-I{PACKAGE / 'include'}", "-o", "align"]
    command += [f"-L{PACKAGE / 'lib'}", "-lrobocache", f"-Wl,-rpath,{PACKAGE / 'lib'}"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run(["./align"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "0.5 5\n1.2 12\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        place = page.parent / file if file else page
        assert place.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", place.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page.name}: {target}"


def test_the_readme_lists_every_page() -> None:
    listed = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", (ROOT / "README.md").read_text().split("\n## Pages\n")[1]))
    assert listed == {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}


def test_make_targets_that_the_pages_name_exist() -> None:
    shown = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True).stdout
    exist = set(re.findall(r"make ([a-z-]+)", shown))
    for page in PAGES:
        # In running text "make it" is no target: only code counts.
        code = "\n".join(re.findall(r"`([^`\n]+)`", page.read_text()) + blocks(page, "sh"))
        named = set(re.findall(r"\bmake ([a-z][a-z-]*)", code))
        assert named <= exist, f"{page.name} names {named - exist}"


def test_make_docs_runs_every_test_of_the_pages() -> None:
    tests = {f"tests/{path.name}" for path in (ROOT / "tests").glob("test_*docs.py")}
    tests |= {f"tests/{name}.py" for name in ("test_sota", "test_evidence", "test_benchmarks_evidence")}
    shown = subprocess.run(["make", "-C", str(ROOT), "-n", "docs"], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"tests/\w+\.py", shown.split("-m pytest")[-1])) == tests


def test_the_build_variables_of_the_readme_are_those_of_the_build() -> None:
    read = set()
    for path in [*(ROOT / "build_tools").glob("*.py"), ROOT / "setup.py"]:
        read |= set(re.findall(r'environ\.get\("(ROBOCACHE_\w+)"', path.read_text()))
    table = set(re.findall(r"^\| `(ROBOCACHE_\w+)`", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert table == read


def test_the_performance_page_says_how_the_input_sets_rotate() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    text = " ".join(page.split("## How it is measured")[1].split("\n## ")[0].split())
    gpu, cpu = (make_plan(parse(["--device", device]), "align") for device in ("cuda", "cpu"))
    assert f"hold {gpu.rotate_bytes >> 20} MiB together with their outputs" in text
    assert f"but at least 2 and at most {gpu.max_sets}. Sets under {gpu.rotate_bytes // gpu.max_sets >> 20} MiB" in text
    assert f"wall time over sets of {cpu.rotate_bytes >> 20} MiB in all, at most {cpu.max_sets}," in text
    largest_l2 = max(one.content["provenance"].get("gpu_l2_bytes") or 0 for one in evidence.load())
    assert gpu.rotate_bytes > 2 * largest_l2  # "several times"


def test_performance_tables_and_numbers_are_those_of_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert {one.content["device"] for one in evidence.load() if one.suite == "align"} == {"cuda", "cpu"}
    assert evidence.main(["--check"]) == 0, capsys.readouterr().err
