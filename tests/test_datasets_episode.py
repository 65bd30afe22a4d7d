"""Exact clocks, arrays in memory, kinds told by names."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import robocache
from robocache.datasets import DatasetError, from_arrays
from robocache.datasets._clock import frame_ticks, rational_rate, second_ticks, ticks_for
from robocache.datasets._kinds import kind_of_columns, units_of_columns, words


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        (30, Fraction(30)),
        (30.0, Fraction(30)),
        (12.5, Fraction(25, 2)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (3.75, Fraction(15, 4)),
        (Fraction(1001, 30), Fraction(1001, 30)),
        (np.float32(30), Fraction(30)),
        (np.int64(5), Fraction(5)),
    ],
)
def test_rates_are_rational(given: Any, rate: Fraction) -> None:
    assert rational_rate(given) == rate


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf"), True, "30", None, 1e9])
def test_wrong_rates_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="rate: expected samples per second"):
        rational_rate(wrong)


@pytest.mark.parametrize("rate", [Fraction(30), Fraction(30000, 1001), Fraction(25, 2), Fraction(3), Fraction(1000)])
def test_frames_and_nanoseconds_are_whole_ticks(rate: Fraction) -> None:
    ticks = ticks_for([rate])
    assert ticks % 10**9 == 0
    frames = np.array([0, 1, 7, 10**6, 10**9], np.int64)
    found = frame_ticks(frames, rate, ticks)
    for frame, tick in zip(frames.tolist(), found.tolist(), strict=True):
        assert Fraction(tick, ticks) == frame / rate


def test_frames_past_int64_are_refused() -> None:
    with pytest.raises(ValueError, match="beyond int64 ticks"):
        frame_ticks(np.array([2**62]), Fraction(30), 3 * 10**9)


def test_seconds_round_to_the_nearest_tick() -> None:
    ticks = 3 * 10**9
    seconds = np.array([0.1, 1 / 3, 123456.7, -1 / 30, 0.0])
    for given, found in zip(seconds.tolist(), second_ticks(seconds, ticks).tolist(), strict=True):
        assert abs(found - Fraction(given) * ticks) <= Fraction(1, 2) + Fraction(1, 1000)
    assert second_ticks(np.array([-1 / 30]), ticks)[0] == -(10**8)


def test_arrays_as_a_dataset() -> None:
    imu = np.arange(10.0).reshape(5, 2)
    nanoseconds = np.array([0, 10, 25, 30, 31]) * 10**6
    dataset = from_arrays(
        [
            {"state": np.zeros((30, 7), "f4"), "imu": (imu, nanoseconds), "grip": np.ones(30, bool)},
            {"state": np.ones((6, 7), "f4"), "imu": (imu, nanoseconds / 1e9), "grip": np.ones(6, bool)},
        ],
        fps=30,
        kinds={"state": [(slice(3, 7), "slerp_xyzw"), (..., "linear")]},
        units={"imu": "m/s^2"},
        text=[{"task": "a"}, {"task": "b"}],
    )
    assert (len(dataset), dataset.format, dataset.ticks_per_second) == (2, "arrays", 3 * 10**9)
    assert [dataset.length(0), dataset.length(-1)] == [30, 6]
    first, second = dataset
    assert first.streams["imu"].times.tolist() == (nanoseconds * 3).tolist()
    assert second.streams["imu"].times.tolist() == (nanoseconds * 3).tolist()
    assert first.streams["state"].times[1] == 10**8
    assert (first.streams["grip"].values.shape, first.streams["grip"].kind) == ((30, 1), "previous")
    assert first.streams["state"].kind == ((slice(0, 3), "linear"), (slice(3, 7), "slerp_xyzw"))
    assert (first.streams["imu"].units, second.text["task"]) == ("m/s^2", "b")
    again = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(again[0].load().streams["imu"].values, imu)


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ([], {}, "at least one episode"),
        ([{"a": np.zeros(3)}], {}, "neither fps nor rates"),
        ([{"a": np.zeros(3)}, {"b": np.zeros(3)}], {"fps": 1}, r"expected streams \['a'\], got \['b'\]"),
        ([{"a": np.zeros((3, 2))}, {"a": np.zeros((3, 3))}], {"fps": 1}, r"expected float64 \[S, 2\]"),
        ([{"a": (np.zeros(3), np.arange(2))}], {}, r"times: expected \[S\] = \[3\], got \[2\]"),
        ([{"a": (np.zeros(2), np.array([0, np.nan]))}], {}, "expected finite seconds"),
        ([{"a": np.zeros((3, 2, 2))}], {"fps": 1}, r"expected numbers \[S, D\]"),
        ([{"a": np.array(["x"])}], {"fps": 1}, r"expected numbers \[S, D\]"),
        ([{"a": np.zeros(3)}], {"fps": 1, "text": []}, "one mapping an episode"),
        ([{"a": np.zeros(3)}], {"fps": 1, "column_names": {"a": "xy"}}, "expected 1 names, got 2"),
    ],
)
def test_wrong_arrays_are_named(content: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        from_arrays(content, **settings)


def test_the_sample_that_holds_at_a_time() -> None:
    stream = from_arrays([{"s": (np.zeros(4), np.array([10, 20, 20, 35]))}])[0].streams["s"]
    assert stream.index_at([0, 9, 10, 19, 20, 34, 35, 99]).tolist() == [0, 0, 0, 0, 2, 2, 3, 3]
    assert stream.index_at(20) == 2


def test_a_dataset_error_names_its_place_and_survives_pickle() -> None:
    error = DatasetError("is cut off", file="a/b", category="truncated file").at(episode=7, file="other")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == "episode 7, a/b: is cut off"
    assert (again.episode, again.file, again.category, again.reason) == (7, "a/b", "truncated file", "is cut off")


def test_words() -> None:
    assert words("kLeftWristRoll") == ["k", "left", "wrist", "roll"]
    assert words("left.eef_qx") == ["left", "eef", "qx"]


POSE = ["x", "y", "z", "roll", "pitch", "yaw"]


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ([*POSE, "gripper"], ((slice(0, 3), "linear"), (slice(3, 6), "angle"), (slice(6, 7), "previous"))),
        (["x", "y", "z", "rx", "ry", "rz"], ((slice(0, 3), "linear"), (slice(3, 6), "angle"))),
        (["qx", "qy", "qz", "qw"], "slerp_xyzw"),
        (["qw", "qx", "qy", "qz"], "slerp_wxyz"),
        (["left_ori_x", "left_ori_y", "left_ori_z", "left_ori_w"], "slerp_xyzw"),
        (["a_qx", "a_qy", "b_qz", "b_qw"], "linear"),
        (["qx", "qz", "qy", "qw"], "linear"),
        (["kLeftWristRoll", "kLeftWristYaw"], "linear"),
        (["left_arm_eef_yaw"], "angle"),
        (["yaw_deg"], "linear"),
        (["base.yaw"], "angle"),
        (["shoulder_pan.pos", "gripper.pos"], "linear"),
        (["left_gripper"], "previous"),
        (["vel_yaw", "torque_roll", "base.angular_velocity.rz"], "linear"),
        (["current_yaw"], "angle"),
        (["delta_x", "delta_yaw"], "previous"),
        (["reward"], "previous"),
        (["vx", "vy"], "linear"),
    ],
)
def test_kinds_are_told_by_names(names: Sequence[str], kind: Any) -> None:
    assert kind_of_columns("observation.state", np.dtype("f4"), len(names), names) == kind


@pytest.mark.parametrize("stream", ["observation.eef_velocity", "wrench", "observation.state.jointTorque"])
def test_columns_of_velocities_and_forces_are_no_angles(stream: str) -> None:
    assert kind_of_columns(stream, np.dtype("f4"), 6, POSE) == "linear"


def test_kinds_without_names() -> None:
    assert kind_of_columns("state", np.dtype("f4"), 7, None) == "linear"
    assert kind_of_columns("state", np.dtype("f4"), 7, ["x"]) == "linear"
    assert kind_of_columns("task_index", np.dtype("i8"), 1, ["task_index"]) == "previous"
    assert kind_of_columns("language_embedding", np.dtype("f4"), 512, None) == "previous"
    assert kind_of_columns("is_first", np.dtype("?"), 1, None) == "previous"


def test_units_are_told_by_names() -> None:
    assert units_of_columns(["elbow_rad", "wrist_rad"]) == "rad"
    assert units_of_columns(["x_m", "yaw_deg", "grip"]) == "m, deg, ?"
    assert units_of_columns(["x", "y"]) is None
    assert units_of_columns(None) is None


def test_the_package_reaches_its_datasets() -> None:
    assert robocache.datasets.from_arrays is from_arrays
    assert "datasets" in robocache.__all__
