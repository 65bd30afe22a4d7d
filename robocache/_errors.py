"""What robocache raises about data."""

from __future__ import annotations

FAULTS = (
    "none",
    "time_not_finite",
    "time_backwards",
    "time_collapsed",
    "target_nan",
    "out_of_range",
    "invalid_target",
    "length",
    "row_splits",
    "row",
    "point_outside",
    "voxel_size",
    "grid_min",
    "point_splits",
)


class DataError(ValueError):
    """The data breaks a promise: times that go backwards, a NaN time, a target or point that a `raise` policy refuses.

    Attributes:
        fault: what is wrong, one of "time_not_finite", "time_backwards", "time_collapsed", "target_nan",
            "out_of_range", "invalid_target", "length", "row_splits", "row"; of voxels "point_outside", "voxel_size",
            "grid_min", "point_splits".
        stream: index of the stream, 0 for `resample_trajectories` and for voxels.
        row: the output row for faults of targets and rows, the sequence for faults of samples, the sample for faults of
            points and grids.
        position: index of the target, of the sample or of the point in it; the axis for faults of grids.
    """

    def __init__(self, message: str, fault: str, stream: int, row: int, position: int) -> None:
        super().__init__(message)
        self.fault = fault
        self.stream = stream
        self.row = row
        self.position = position

    def __reduce__(self) -> tuple[type[DataError], tuple[str, str, int, int, int]]:
        return type(self), (str(self), self.fault, self.stream, self.row, self.position)


def data_error(message: str, fault: int, stream: int, row: int, position: int) -> DataError:
    """A DataError from the numbers of an rc_fault_report."""
    return DataError(message, FAULTS[fault], stream, row, position)
