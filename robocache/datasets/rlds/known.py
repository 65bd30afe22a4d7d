"""What the columns of well-known RLDS datasets are. features.json does not say, and its descriptions are often copied.

Column names are those that `_kinds` understands: the kind of a column follows from its name, here as elsewhere.
"""

from __future__ import annotations

_POSE = ("x", "y", "z", "roll", "pitch", "yaw")
_POSE_DELTA = tuple(f"delta_{axis}" for axis in _POSE)
_POSE_UNITS = "m, m, m, rad, rad, rad"

# (columns, units) by (stream, how many columns it has)
Known = dict[tuple[str, int], tuple[tuple[str, ...], str | None]]

# BridgeData V2 (arXiv:2308.12952, and its converter to RLDS): end effector pose and gripper opening; a padded form has
# a column of zeros before the gripper. Actions are pose deltas of a step and an absolute gripper command.
_BRIDGE: Known = {
    ("observation.state", 7): ((*_POSE, "gripper_position"), f"{_POSE_UNITS}, 1"),
    ("observation.state", 8): ((*_POSE, "pad", "gripper_position"), f"{_POSE_UNITS}, 1, 1"),
    ("action", 7): ((*_POSE_DELTA, "gripper"), f"{_POSE_UNITS}, 1"),
}
# RT-1 (arXiv:2212.06817) in Open X-Embodiment: the tool's pose is a position and a quaternion with w last.
_FRACTAL: Known = {
    ("observation.base_pose_tool_reached", 7): (("x", "y", "z", "qx", "qy", "qz", "qw"), None),
    ("action.world_vector", 3): (_POSE_DELTA[:3], "m"),
    ("action.rotation_delta", 3): (_POSE_DELTA[3:], "rad"),
}
# DROID (arXiv:2403.12945, features.json of droid/1.0.0): Euler angles in cartesian_position.
_DROID: Known = {(f"{place}.cartesian_position", 6): (_POSE, _POSE_UNITS) for place in ("observation", "action_dict")}

COLUMNS: dict[str, Known] = {
    "bridge_dataset": _BRIDGE,
    "bridge_orig": _BRIDGE,
    "bridge_oxe": _BRIDGE,
    "bridge": _BRIDGE | _FRACTAL,
    "fractal20220817_data": _FRACTAL,
    "droid": _DROID,
    "droid_100": _DROID,
}


def known_columns(dataset: str, stream: str, num_columns: int) -> tuple[tuple[str, ...] | None, str | None]:
    """(column names, units) of a stream of a dataset that is known, else of its own name if it has one column."""
    names, units = COLUMNS.get(dataset, {}).get((stream, num_columns), (None, None))
    if names is None and num_columns == 1:
        names = (stream.rpartition(".")[2],)
    return names, units
