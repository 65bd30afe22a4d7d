"""`robocache inspect`: what it prints, what it finds, how it exits."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from examples.write_datasets import tfrecord
from robocache import datasets
from robocache._cli import main
from robocache.datasets.inspect import Audit, audit
from robocache.datasets.lerobot import LeRobotV21

from .dataset_files import FORMS, camera, episode, episodes, flip, only, opened, replaced, rewrite, write


def inspect(capsys: pytest.CaptureFixture[str], path: Path, *options: str) -> tuple[int, Any]:
    """Exit status and the report as data."""
    rate = () if (path / "meta").is_dir() else ("--rate", "30")
    status = main(["inspect", str(path), "--json", "--quiet", *rate, *options])
    return status, json.loads(capsys.readouterr().out)


def checks_of(report: Any, severity: str) -> set[str]:
    return {finding["check"] for finding in report["findings"] if finding["severity"] == severity}


@pytest.mark.parametrize("form", FORMS)
def test_a_clean_dataset(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, report = inspect(capsys, write(form, tmp_path, episodes()))
    assert status == 0
    assert (report["errors"], report["episodes"], report["readable"], report["frames"]) == (0, 3, 3, 26)
    assert report["seconds"] == pytest.approx(26 / 30)
    assert report["tasks"] == {"pick": 2, "place": 1}
    action = report["streams"]["action"]
    assert (action["shape"], action["dtype"], action["kind"], action["rate"]) == (
        [3],
        "float32",
        [[0, 3, "linear"]],
        "30",
    )
    everything = np.concatenate([found["action"] for found in episodes()])
    assert action["greatest"] == pytest.approx(everything.max(axis=0).tolist())
    assert report["streams"]["done"]["kind"] == [[0, 1, "previous"]]


def test_the_text_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = [{**episode(5), "cam": camera(5)} for _ in range(2)]
    content[1]["action"][2, 1] = np.nan
    path = write("v21", tmp_path, content)
    assert main(["inspect", str(path)]) == 1
    captured = capsys.readouterr()
    assert "episodes  2, 1 without errors" in captured.out
    assert (
        "error: not finite: action: episode 1: 1 values are NaN or Inf, the first at step 2, column 1" in captured.out
    )
    assert "32 x 48 x 3" in captured.out
    assert "30 Hz" in captured.out
    assert "2 of 2" not in captured.out
    assert "inspect" in captured.err  # the bar


def test_exit_status_of_wrong_paths_and_damaged_metadata(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path)]) == 2
    assert "Looked for" in capsys.readouterr().err
    path = write("v21", tmp_path, episodes())
    assert main(["inspect", str(path), "--split", "nope"]) == 2
    assert main(["inspect", str(path), "--episodes", "7:9", "--quiet"]) == 2
    for wrong in (["--episodes", "3"], ["--rate", "fast"], ["--format", "hdf5"]):
        with pytest.raises(SystemExit) as caught:
            main(["inspect", str(path), *wrong])
        assert caught.value.code == 2
    (path / "meta/info.json").write_text("{")
    capsys.readouterr()
    status, report = inspect(capsys, path)
    assert (status, report["errors"]) == (1, 1)
    assert "info.json" in report["findings"][0]["file"]


def test_some_episodes_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("v30", tmp_path, episodes())
    status, report = inspect(capsys, path, "--episodes", "1:")
    assert (status, report["audited"], report["frames"]) == (0, [1, 3], 14)


def rewritten(pattern: str, name: str, make: Callable[[pa.Table], Any]) -> Callable[[Path], None]:
    return lambda path: rewrite(only(path, pattern), replaced(name, make))


SECOND = "episode_000001.parquet"


@pytest.mark.parametrize(
    ("damage", "severity", "check", "words"),
    [
        (lambda path: only(path, SECOND).unlink(), "error", "missing file", "missing file"),
        (
            rewritten(SECOND, "task_index", lambda t: pa.array([9] * 5)),
            "error",
            "task",
            "task_index \\[9\\] has no task",
        ),
        (
            rewritten(SECOND, "timestamp", lambda t: pa.array(np.arange(5, dtype=np.float32) / 25)),
            "error",
            "timestamp",
            "off frame_index / 30 by up to .* its usual rate is 25 a second",
        ),
        (
            rewritten(SECOND, "timestamp", lambda t: pa.array(np.arange(5, dtype=np.float32) / 30 + np.float32(1e-3))),
            "warning",
            "timestamp",
            "off frame_index",
        ),
        (
            rewritten(SECOND, "timestamp", lambda t: pa.array(np.float32([0, 1 / 30, 1 / 30, 0.1, 4 / 30]))),
            "error",
            "timestamp",
            "timestamp does not rise at row 2",
        ),
        (
            rewritten(SECOND, "timestamp", lambda t: pa.array(np.full(5, np.nan, np.float32))),
            "error",
            "timestamp",
            "NaN",
        ),
        (
            rewritten(SECOND, "frame_index", lambda t: pa.array([0, 1, 1, 2, 3])),
            "error",
            "frame order",
            "does not rise",
        ),
        (
            lambda path: (path / "meta/info.json").write_text(
                (path / "meta/info.json").read_text().replace('"total_frames": 26', '"total_frames": 27')
            ),
            "error",
            "total",
            "total_frames is 27, meta/episodes sums to 26",
        ),
        (lambda path: (path / "meta/tasks.jsonl").unlink(), "error", "missing file", "missing file"),
    ],
)
def test_what_is_found_in_lerobot(
    damage: Any, severity: str, check: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write("v21", tmp_path, episodes())
    damage(path)
    status, report = inspect(capsys, path)
    found = [finding for finding in report["findings"] if finding["check"] == check]
    assert found, report["findings"]
    assert {finding["severity"] for finding in found} == {severity}
    assert re.search(words, found[0]["message"])
    assert status == (severity == "error")


def test_dropped_frames_are_a_gap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("v21", tmp_path, episodes())
    rewritten(SECOND, "frame_index", lambda t: pa.array([0, 1, 2, 3, 9]))(path)
    rewritten(SECOND, "timestamp", lambda t: pa.array(np.float32([0, 1, 2, 3, 9]) / np.float32(30)))(path)
    status, report = inspect(capsys, path)
    assert (status, checks_of(report, "warning")) == (0, {"gap"})
    assert report["findings"][0]["message"] == "1 gaps, the longest 0.2 s (6.0 usual intervals)"


def test_missing_and_wrong_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = [{**episode(length), "cam": camera(length)} for length in (6, 5, 7)]
    path = write("v21", tmp_path, content, video=True)
    videos = sorted(path.rglob("*.mp4"))
    assert inspect(capsys, path)[0] == 0
    videos[0].unlink()
    videos[2].write_bytes(videos[1].read_bytes())  # two frames short
    status, report = inspect(capsys, path)
    assert status == 1
    found = {(finding["episode"], finding["check"]) for finding in report["findings"] if finding["stream"] == "cam"}
    assert found == {(0, "missing file"), (2, "video length")}
    videos[1].write_bytes(videos[1].read_bytes()[:100])
    assert "damaged video" in checks_of(inspect(capsys, path)[1], "error")


def test_a_video_span_that_is_not_the_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("v30", tmp_path, [{**episode(length), "cam": camera(length)} for length in (6, 5)], video=True)
    assert checks_of(inspect(capsys, path)[1], "warning") == set()
    name = "videos/cam/to_timestamp"
    rewritten("meta/episodes/chunk-000/file-000.parquet", name, lambda t: pa.array([0.2, 9.0]))(path)
    status, report = inspect(capsys, path)
    assert (status, checks_of(report, "warning")) == (0, {"video length"})
    assert "5 frames are 0.1667 s" in report["findings"][0]["message"]
    rewritten("meta/episodes/chunk-000/file-000.parquet", name, lambda t: pa.array([0.15, 0.4]))(path)
    status, report = inspect(capsys, path, "--decode")
    errors = [(f["episode"], f["check"]) for f in report["findings"] if f["severity"] == "error"]
    assert (status, errors) == (1, [(0, "video length")])  # the other frames are the next episode's


def test_a_reader_that_stops_early(tmp_path: Path) -> None:
    path = write("v21", tmp_path, episodes())
    command = f"{sys.executable} -m robocache inspect {path} --json --quiet | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")


def test_what_is_found_in_rlds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("rlds", tmp_path, episodes())
    file = only(path, "*00001-of-00002")
    whole = file.read_bytes()
    file.write_bytes(whole + tfrecord(b""))
    status, report = inspect(capsys, path)
    assert (status, checks_of(report, "error")) == (1, {"record count"})
    file.write_bytes(whole[:-30])
    assert checks_of(inspect(capsys, path)[1], "error") == {"truncated file"}
    file.write_bytes(whole)
    flip(file, 100)
    assert checks_of(inspect(capsys, path)[1], "error") == {"checksum"}
    file.write_bytes(whole)
    features = (path / "features.json").read_text()
    content = json.loads(features)
    steps = content["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"]["features"]
    del steps["count"]
    (path / "features.json").write_text(json.dumps(content))
    status, report = inspect(capsys, path)
    assert (status, checks_of(report, "error")) == (1, {"schema"})
    assert "does not name steps/count" in report["findings"][0]["message"]
    steps["force"] = {"sequence": {"feature": {"tensor": {"dtype": "float32"}}}}
    (path / "features.json").write_text(json.dumps(content))
    assert "unread feature" in checks_of(inspect(capsys, path)[1], "warning")


def test_an_unknown_rate_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("rlds", tmp_path, episodes())
    assert main(["inspect", str(path), "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert checks_of(report, "warning") == {"rate unknown"}
    assert report["seconds"] is None


def arrays(values: Any, times: Any = None, **settings: Any) -> datasets.Dataset:
    entry = values if times is None else (values, times)
    return datasets.from_arrays([{"s": entry}], fps=10, **settings)


def found_in(dataset: datasets.Dataset) -> dict[str, tuple[str, str]]:
    return {finding.check: (finding.severity, finding.message) for finding in audit(dataset).findings}


def test_clocks_that_are_wrong() -> None:
    values = np.random.default_rng(0).normal(size=(6, 2))
    grid = np.arange(6) * 10**8
    assert found_in(arrays(values, grid)) == {}
    assert found_in(arrays(values, np.array([0, 1, 3, 2, 4, 5]) * 10**8))["backwards"] == (
        "error",
        "1 stamps go backwards, the first at sample 3",
    )
    assert found_in(arrays(values, np.array([0, 1, 1, 2, 3, 4]) * 10**8))["duplicate"][0] == "warning"
    assert found_in(arrays(values, np.array([0, 1, 2, 3, 4, 9]) * 10**8))["gap"] == (
        "warning",
        "1 gaps, the longest 0.5 s (5.0 usual intervals)",
    )
    assert found_in(arrays(values, grid * 2))["rate"] == ("error", "5 samples a second, 10 claimed")


def test_values_that_are_wrong() -> None:
    rng = np.random.default_rng(0)
    quaternions = rng.normal(size=(6, 4))
    quaternions[1:] = quaternions[0] + 0.01 * quaternions[1:]
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    kinds = {"s": "slerp_xyzw"}
    assert found_in(arrays(quaternions, kinds=kinds)) == {}
    flipped = quaternions * np.array([1, 1, -1, -1, 1, 1])[:, None]
    assert found_in(arrays(flipped, kinds=kinds))["quaternion sign"][0] == "warning"
    assert "2 sign flips" in found_in(arrays(flipped, kinds=kinds))["quaternion sign"][1]
    assert found_in(arrays(quaternions * 1.01, kinds=kinds))["quaternion norm"][0] == "warning"
    assert found_in(arrays(quaternions * 2, kinds=kinds))["quaternion norm"][0] == "error"
    assert found_in(arrays(rng.uniform(-180, 180, (9, 1)), kinds={"s": "angle"}))["angle range"][0] == "warning"
    values = rng.normal(size=(6, 3))
    values[:, 1] = 4
    message = found_in(arrays(values, column_names={"s": ["x", "pad", "y"]}))["constant"][1]
    assert message == "1 of 3 columns never change: pad"
    values[2, 0] = np.inf
    assert found_in(arrays(values))["not finite"][0] == "error"


def test_decode_finds_a_damaged_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("v21", tmp_path, [{**episode(3), "cam": camera(3)}])

    def damaged(table: pa.Table) -> pa.Array:
        images = table["cam"].to_pylist()
        images[2]["bytes"] = images[2]["bytes"][:20]
        return pa.array(images, table["cam"].type)

    rewritten("*.parquet", "cam", damaged)(path)
    assert inspect(capsys, path)[0] == 0
    status, report = inspect(capsys, path, "--decode")
    assert status == 1
    assert "frame 2: image cannot be decoded" in report["findings"][0]["message"]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_plot(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("v21", tmp_path, episodes())
    only(path, SECOND).unlink()
    picture = tmp_path / f"plot.{ending}"
    status, _ = inspect(capsys, path, "--plot", str(picture))
    assert status == 1
    assert picture.stat().st_size > 5000
    if ending == "svg":
        assert "2 of 3 episodes without errors" in picture.read_text()  # matplotlib keeps the text as a comment
    with pytest.raises(SystemExit):
        main(["inspect", str(path), "--plot", "plot.xyz"])
    assert "expected a file ending in" in capsys.readouterr().err


def test_the_report_does_not_hang_on_the_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("v21", tmp_path, episodes())
    picture = tmp_path / "new" / "folder" / "plot.png"
    assert inspect(capsys, path, "--plot", str(picture))[0] == 0
    assert picture.stat().st_size > 5000
    wrong = picture / "plot.png"  # below a file
    assert main(["inspect", str(path), "--quiet", "--plot", str(wrong)]) == 2
    captured = capsys.readouterr()
    assert "clean: no errors, no warnings" in captured.out
    assert f"--plot {wrong}: " in captured.err


def test_the_plot_passes_over_a_damaged_episode_where_there_is_no_rate(tmp_path: Path) -> None:
    content = episodes()
    content[0]["observation.state"] = content[0]["observation.state"][:, :6]
    path = write("rlds", tmp_path, content)
    features = path / "features.json"
    features.write_text(features.read_text().replace('"6"', '"7"'))
    picture = tmp_path / "plot.png"
    assert main(["inspect", str(path), "--quiet", "--plot", str(picture)]) == 1
    assert picture.stat().st_size > 5000


def test_a_link_that_leads_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("v21", tmp_path, episodes())
    whole = inspect(capsys, path)[1]["bytes"]
    (path / "gone").symlink_to(tmp_path / "nowhere")
    status, report = inspect(capsys, path)
    assert (status, report["bytes"]) == (0, whole)


def add_feature(path: Path, name: str, shape: list[int]) -> None:
    info = json.loads((path / "meta/info.json").read_text())
    info["features"][name] = {"dtype": "float32", "shape": shape}
    (path / "meta/info.json").write_text(json.dumps(info))


def test_a_stream_without_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("v21", tmp_path, [episode(4), episode(3)])
    add_feature(path, "none", [0])
    for file in path.rglob("*.parquet"):
        rewrite(file, lambda t: t.append_column("none", pa.array([[]] * len(t), pa.list_(pa.float32()))))
    assert main(["inspect", str(path), "--quiet"]) == 0
    assert re.search(r"none +0 +float32 +7 ", capsys.readouterr().out)


def test_names_that_a_terminal_would_obey(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("v21", tmp_path, episodes())
    table = path / "meta/episodes.jsonl"
    table.write_text(table.read_text().replace('"pick"', r'"\u001b[2J\u2713"'))
    add_feature(path, "half \ud800\nclean: no errors", [1])
    assert main(["inspect", str(path), "--quiet"]) == 1
    out = capsys.readouterr().out
    assert r"half \ud800\nclean: no errors" in out
    assert "\x1b" not in out
    command = [sys.executable, "-m", "robocache", "inspect", str(path), "--quiet"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert r"\u2713" in done.stdout


def test_an_audit_takes_time_in_proportion_to_its_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an episode costs is looked at here by what is read and counted for it, not by the clock."""
    dataset = opened("v21", write("v21", tmp_path, [{**episode(3), "cam": camera(3)} for _ in range(5)], video=True))
    assert isinstance(dataset, LeRobotV21)
    read = []
    table = dataset.task_table
    monkeypatch.setattr(dataset, "task_table", lambda: (read.append(1), table())[1])
    monkeypatch.setattr(Audit, "errors", property(lambda self: pytest.fail("counted anew")))
    monkeypatch.setitem(sys.modules, "av", None)
    findings = audit(dataset).findings
    assert len(read) == 2
    assert [(finding.check, finding.stream) for finding in findings] == [("not checked", "cam")]


def test_memory_of_an_audit_does_not_grow_with_the_dataset(tmp_path: Path) -> None:
    few, many = (audit(opened("v21", write("v21", tmp_path / str(count), [episode(4)] * count))) for count in (3, 30))
    assert many.frames == 10 * few.frames
    assert many.findings == few.findings
