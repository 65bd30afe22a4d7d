// Points sorted by cell, and what reduces the features of a cell's points: shared by dense and sparse calls.
#pragma once

#include "../core/voxel.h"
#include "voxel_dense.h"

namespace rc {

// Points in order of (cell across the batch, index). Points without a cell stand at the end with key `none`.
struct SortedPoints {
    const void* keys;       // uint32_t or, `wide`, uint64_t: b * cells + cell
    const uint32_t* order;  // number of the point across the batch
    uint32_t n;
    bool wide;
    uint64_t none;  // B * cells
};

// Takes its pieces of the workspace and, unless run->dry, finds the cells and sorts.
rc_status sort_points(VoxelRun* run, SortedPoints* sorted);

constexpr uint32_t kBlockShift = 7;  // log2 of RC_SUM_BLOCK
static_assert(RC_SUM_BLOCK == 1 << kBlockShift, "partial sums are addressed by shifts");
constexpr int kMaxLevels = 4;  // 128^5 points in one cell

// What a reduction is asked for.
enum ReduceWant : uint32_t {
    kWantSum = 1,
    kWantMax = 2,
    kWantMin = 4,
    kWantArgmax = 8,
    kWantArgmin = 16,
};

// Results of whole blocks of the summation tree, of cells with more than one block. The row of a block whose first point
// stands at position s is 2 * (s >> shift) + (1 if it is its cell's first block): of two blocks that begin in one
// window, one is a first block.
struct PartialLevel {
    void* values;    // [rows, wanted of sum, max, min, C] in the compute dtype
    uint32_t* args;  // [rows, wanted of argmax, argmin, C]
};

struct ReduceParams {
    const void* features;
    int64_t stride[4];  // sample, camera, point or pixel, column
    int64_t per_sample;
    FastDivide by_pixels;
    uint32_t pixels;
    bool flat;  // point i's row begins at i * stride[2]
    bool cameras;
    int32_t columns;
    int32_t dtype;
    uint32_t wants;
    int32_t vector;       // columns a lane takes: 4 or 1
    int32_t lanes;        // that share a row: a power of two up to 32
    uint32_t lane_shift;  // its log2
    int32_t num_levels;
    PartialLevel levels[kMaxLevels];
};

// Fills `reduce` for the call's features and outputs; takes the partial results' pieces. `vector`: the tunable that says
// how many columns a lane takes at most.
void reduce_params(VoxelRun* run, uint32_t wants, rc_tunable vector, ReduceParams* reduce);

// Computes the partial results of cells with more than RC_SUM_BLOCK points.
rc_status reduce_levels(const VoxelRun& run, const SortedPoints& sorted, const ReduceParams& reduce);

uint32_t wants_of(const rc_voxel_call& call);

}  // namespace rc
