"""Which column is a quaternion, an angle, a gripper: told from names that a dataset's own metadata gives.

qx qy qz qw (in that order)      slerp_xyzw       also quat_x ..., ori_x ..., rot_x ... with a w; left_qx ...
qw qx qy qz                      slerp_wxyz
roll pitch yaw, rx ry rz         angle            of an end effector, base or pose; not of a joint (wrist_roll), nor a
                                                  velocity, acceleration, force or torque about an axis (vel_yaw)
delta_..., velocity of a gripper previous         a delta belongs to its step
gripper                          previous         except a measured position or width (gripper.pos): linear
reward, done, is_first, ...      previous         flags and numbers of a class are held
other floats                     linear
integers and booleans            previous         a value holds until the next is known
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._kinds import Kind

_ANGLES = {"roll", "pitch", "yaw", "rx", "ry", "rz"}
_POSE_WORDS = {"ee", "eef", "tcp", "tool", "pose", "ori", "orientation", "rot", "rotation", "euler", "cartesian", "end"}
# A joint named for the way it turns has limits and does not wrap.
_JOINT_WORDS = {
    *("joint", "shoulder", "elbow", "wrist", "forearm", "hip", "knee", "ankle", "waist", "torso", "neck", "head"),
    *("thumb", "finger", "index", "middle", "ring", "pinky", "hand", "spine", "trunk", "gripper", "leg", "motor"),
}
# What is measured about or along an axis, in any unit but that of an angle, does not wrap either.
_RATE_WORDS = {
    *("vel", "velocity", "velocities", "angvel", "speed", "rate", "gyro", "omega", "twist", "acc", "accel", "jerk"),
    *("acceleration", "torque", "torques", "tau", "moment", "force", "forces", "effort", "efforts", "wrench"),
}
_MEASURED = {"pos", "position", "width", "opening", "distance", "qpos"}
_HELD = {
    *("reward", "discount", "done", "success", "terminal", "truncated", "terminated", "is", "has", "embedding"),
    *("pad", "mode", "state_type", "open", "close", "closed", "delta", "intervention"),
}
_QUATERNION_PREFIXES = ("q", "quat", "quaternion", "ori", "orientation", "rot", "rotation")
_UNIT_WORDS = {"rad": "rad", "radians": "rad", "deg": "deg", "degrees": "deg", "m": "m", "mm": "mm"}


def words(name: str) -> list[str]:
    """The words of a name: split at anything but letters and digits, and at capitals.

    >>> words("kLeftWristRoll"), words("left.eef_qx")
    (['k', 'left', 'wrist', 'roll'], ['left', 'eef', 'qx'])
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]


def kind_of_columns(stream: str, dtype: np.dtype[Any], num_columns: int, names: Sequence[str] | None) -> Kind:
    """The kind of a vector stream from its dtype, its name and its columns' names, by the table above."""
    if dtype.kind != "f" or set(words(stream.rpartition(".")[2])) & _HELD:
        return "previous"
    if names is None or len(names) != num_columns:
        return "linear"
    split = [words(name) for name in names]
    rates = bool(set(words(stream.rpartition(".")[2])) & _RATE_WORDS)
    kinds = [_kind_of_name(name, rates) for name in split]
    for first in range(num_columns - 3):
        order = _quaternion(split[first : first + 4])
        if order is not None:
            kinds[first : first + 4] = [order] * 4
    groups: list[tuple[slice, str]] = []
    for column, kind in enumerate(kinds):
        if groups and groups[-1][1] == kind:
            groups[-1] = (slice(groups[-1][0].start, column + 1), kind)
        else:
            groups.append((slice(column, column + 1), kind))
    return groups[0][1] if len(groups) == 1 else tuple(groups)


def _kind_of_name(name: list[str], rates: bool) -> str:
    """The kind of a column; `rates`: all columns of its stream are velocities, forces or the like."""
    found = set(name)
    if found & _HELD:
        return "previous"
    if "gripper" in found or "grip" in found:
        return "linear" if found & _MEASURED else "previous"
    turning = [word for word in name if word not in ("rad", "pos")]
    if turning and turning[-1] in _ANGLES and "deg" not in found:
        joint = found & _JOINT_WORDS and not found & _POSE_WORDS
        return "linear" if joint or rates or found & _RATE_WORDS else "angle"
    return "linear"


def _quaternion(split: Sequence[list[str]]) -> str | None:
    """slerp_xyzw or slerp_wxyz where four neighbours are the parts of one quaternion."""
    parts = [_quaternion_part(name) for name in split]
    if any(part is None for part in parts):
        return None
    letters = "".join(part[1] for part in parts if part is not None)
    same = len({part[0] for part in parts if part is not None}) == 1
    return {"xyzw": "slerp_xyzw", "wxyz": "slerp_wxyz"}.get(letters) if same else None


def _quaternion_part(name: list[str]) -> tuple[tuple[str, ...], str] | None:
    """(what the quaternion is called, which of its letters), of "left_qx" or "eef_quat_w"."""
    if not name:
        return None
    last = name[-1]
    if len(last) == 2 and last[0] == "q" and last[1] in "xyzw":
        return tuple(name[:-1]), last[1]
    if len(name) >= 2 and last in ("x", "y", "z", "w") and name[-2] in _QUATERNION_PREFIXES:
        return tuple(name[:-1]), last
    return None


def units_of_columns(names: Sequence[str] | None) -> str | None:
    """Units that the names themselves tell ("elbow_rad"): one for all columns or one a column, else None."""
    units = [next((_UNIT_WORDS[word] for word in words(name)[-1:] if word in _UNIT_WORDS), "?") for name in names or ()]
    if not units or set(units) == {"?"}:
        return None
    return units[0] if len(set(units)) == 1 else ", ".join(units)
