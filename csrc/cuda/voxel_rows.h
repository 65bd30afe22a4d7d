// Rows of occupied cells, channels last.
#pragma once

#include "voxel_outputs.h"
#include "voxel_sorted.h"

namespace rc {

struct RowsParams {
    int64_t cells;       // of a sample
    int64_t per_sample;  // points; 0: packed
    const int64_t* row_splits;
    bool needs_sample;  // to number points within it, or to find a feature's row
    CellOutput occupancy;
    CellOutput count;
    FeatureOutput outputs[6];  // sum, mean, max, min, argmax, argmin: those that are wanted, in this order
    int32_t num_outputs;
};

rc_status launch_rows(const VoxelRun& run, const SortedPoints& sorted, const ReduceParams& reduce,
                      const RowsParams& rows);

}  // namespace rc
