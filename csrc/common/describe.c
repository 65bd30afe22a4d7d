/* Sentences about faults in the data. Each says where, what is wrong there and what to do about it. */
#include "common.h"

#include <inttypes.h>
#include <stdio.h>

int rc_describe_fault(const rc_fault_report *report, char *text, size_t capacity) {
    if (!report) {
        return snprintf(text, capacity, "no report");
    }
    const int32_t stream = report->stream;
    const int64_t row = report->row;
    const int64_t position = report->position;
    switch (report->fault) {
    case RC_FAULT_NONE:
        return snprintf(text, capacity, "no fault");
    case RC_FAULT_TIME_NOT_FINITE:
        return snprintf(text, capacity,
                        "times: stream %" PRId32 ", sequence %" PRId64 ", sample %" PRId64
                        " is NaN or infinite; expected finite times (cut padding off with lengths)",
                        stream, row, position);
    case RC_FAULT_TIME_BACKWARDS:
        return snprintf(text, capacity,
                        "times: stream %" PRId32 ", sequence %" PRId64 ", sample %" PRId64
                        " is earlier than the sample before it; expected times that never decrease",
                        stream, row, position);
    case RC_FAULT_TIME_COLLAPSED:
        return snprintf(text, capacity,
                        "times: stream %" PRId32 ", sequence %" PRId64 ", sample %" PRId64
                        ": float32 cannot resolve these times, distinct stamps became equal; pass int64 nanoseconds or "
                        "float64 seconds, or subtract the start before narrowing",
                        stream, row, position);
    case RC_FAULT_TARGET_NAN:
        return snprintf(text, capacity,
                        "target_times: row %" PRId64 ", target %" PRId64
                        " is NaN (after the time offset of stream %" PRId32 ")",
                        row, position, stream);
    case RC_FAULT_OUT_OF_RANGE:
        return snprintf(text, capacity,
                        "target_times: row %" PRId64 ", target %" PRId64 " lies outside the samples of stream %" PRId32
                        " and extrapolate is \"raise\"",
                        row, position, stream);
    case RC_FAULT_INVALID_TARGET:
        return snprintf(text, capacity,
                        "target_times: row %" PRId64 ", target %" PRId64 " is not valid in stream %" PRId32
                        " (out of range, or max_gap or tolerance is exceeded) and invalid is \"raise\"",
                        row, position, stream);
    case RC_FAULT_LENGTH:
        return snprintf(text, capacity,
                        "lengths: stream %" PRId32 ", sequence %" PRId64
                        ": expected a length between 0 and the number of samples",
                        stream, row);
    case RC_FAULT_ROW_SPLITS:
        return snprintf(text, capacity,
                        "row_splits: stream %" PRId32 ", sequence %" PRId64
                        ": expected offsets that never decrease, between 0 and the number of samples",
                        stream, row);
    case RC_FAULT_ROW:
        return snprintf(text, capacity,
                        "rows: stream %" PRId32 ", row %" PRId64
                        ": expected the index of a sequence, at least 0 and below their number",
                        stream, row);
    case RC_FAULT_POINT_OUTSIDE:
        return snprintf(text, capacity,
                        "points: sample %" PRId64 ", point %" PRId64
                        " lies outside the grid or is NaN, and bounds is \"raise\"",
                        row, position);
    case RC_FAULT_VOXEL_SIZE:
        return snprintf(text, capacity,
                        "voxel_size: sample %" PRId64 ", axis %" PRId64 ": expected a finite size above 0", row,
                        position);
    case RC_FAULT_GRID_MIN:
        return snprintf(text, capacity, "grid_min: sample %" PRId64 ", axis %" PRId64 ": expected a finite coordinate",
                        row, position);
    case RC_FAULT_POINT_SPLITS:
        return snprintf(text, capacity,
                        "row_splits: sample %" PRId64
                        ": expected offsets that never decrease, between 0 and the number of points",
                        row);
    default:
        return snprintf(text, capacity, "unknown fault %" PRId32, report->fault);
    }
}
