// What voxelize kernels are told about their points and their grid: one block of constants a launch, passed by value.
//
// Points are counted across the batch: point i of sample b is number b * N + i, of packed points its place in the tensor.
#pragma once

#include "../common/common.h"
#include "../core/voxel.h"
#include "fast_divide.h"

namespace rc {

// Where points come from, each a variant of every kernel.
enum class PointSource : int32_t {
    // float32 [B, N, 3] whose coordinates lie side by side, one grid for all; no mask, no pose, no clamping
    kPlain = 0,
    kCloud = 1,  // any other tensor of points that computes in float32
    kCloud64 = 2,
    kDepth = 3,
};

struct VoxelPoints {
    const void* points;  // or depth
    int64_t stride[3];   // sample, point, axis; depth: sample, camera, pixel
    const int64_t* row_splits;
    int64_t per_sample;  // N; packed: all points
    int64_t total;       // points across the batch
    int64_t batch;
    const uint8_t* mask;
    int64_t mask_stride[3];
    const void* poses;
    int64_t pose_stride[2];
    const float* intrinsics;
    int64_t intrinsics_stride[2];
    float depth_scale;
    uint32_t pixels;  // H * W
    FastDivide by_pixels;
    FastDivide by_width;
    int32_t dtype;
};

struct VoxelGridParams {
    double voxel[3];
    double min[3];
    const void* voxel_sizes;
    const void* grid_mins;
    int64_t voxel_sizes_stride;
    int64_t grid_mins_stride;
    int32_t size[3];
    int32_t bounds;
    int64_t cells;        // of a sample
    rc_frame_f32 frame;   // kPlain: the grid of all samples
    float reciprocal[3];  // of its voxel size; NaN: always divide
};

// 1 / v where v, 1 / v and their errors are normal numbers; else NaN.
RC_INLINE float safe_reciprocal(float v) {
    return v >= 0x1p-120f && v <= 0x1p120f ? 1.0f / v : NAN;
}

struct VoxelParams {
    VoxelPoints points;
    VoxelGridParams grid;
    // What a kernel that looks at every point writes beside its own output.
    unsigned long long* dropped;
    int64_t* inverse;
    rc_fault_report* note;
};

// Fills `params` and picks the variant; the call has been checked.
PointSource voxel_params(const rc_voxel_call& call, rc_fault_report* note, VoxelParams* params);

// Points across the batch.
int64_t total_points(const rc_voxel_call& call);

// Cells of a sample.
int64_t cells_of(const rc_voxel_grid& grid);

}  // namespace rc
