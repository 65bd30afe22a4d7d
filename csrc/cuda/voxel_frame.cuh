// Grids of samples: from a point's coordinates to its cell, with the bits of core/voxel.h and fewer divisions.
#pragma once

#include "../core/voxel.h"
#include "runtime.h"
#include "voxel_params.h"

namespace rc {

// Rarely wanted: kept out of line, so that many points fit the instruction cache.
__device__ __noinline__ inline float divide_and_floor(float a, float v) {
    return floorf(a / v);
}

// A point's cell along each axis in full-rate instructions; false: not sure of it. The whole number nearest to h, half less
// than the product with the reciprocal, is the product's floor wherever h is not close to the middle of two whole numbers.
// The rounded quotient less a half differs from h by less than |h| 2^-22 + 2^-23. Infinity, NaN and an |h| of 2^22 or more
// are never sure.
__device__ __forceinline__ bool place_quick(const rc_frame_f32& frame, const float reciprocal[3], const float p[3],
                                            int32_t at[3]) {
    constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: for |h| < 2^22 the sum's last place is 1
    bool sure = true;
#pragma unroll
    for (int d = 0; d < 3; ++d) {
        const float h = __fmaf_rn(p[d] - frame.min[d], reciprocal[d], -0.5f);
        const float shifted = h + kShift;
        const float apart = h - (shifted - kShift);
        sure &= __fmaf_rn(fabsf(h), 0x1p-21f, fabsf(apart)) < 0.5f - 0x1p-20f;
        at[d] = __float_as_int(shifted) - __float_as_int(kShift);
    }
    return sure;
}

// The same by division; -1 outside of the grid.
__device__ __forceinline__ void place_exact(const rc_frame_f32& frame, const float p[3], int32_t at[3]) {
#pragma unroll
    for (int d = 0; d < 3; ++d) {
        const float q = divide_and_floor(p[d] - frame.min[d], frame.voxel[d]);
        at[d] = q >= 0.0f && q < frame.size[d] ? static_cast<int32_t>(q) : -1;
    }
}

__device__ __forceinline__ bool lies_inside(const int32_t at[3], const int32_t size[3]) {
    return static_cast<uint32_t>(at[0]) < static_cast<uint32_t>(size[0]) &&
           static_cast<uint32_t>(at[1]) < static_cast<uint32_t>(size[1]) &&
           static_cast<uint32_t>(at[2]) < static_cast<uint32_t>(size[2]);
}

// Whether a point lies in a grid, and its cell there.
__device__ __forceinline__ bool locate_quick(const rc_frame_f32& frame, const float reciprocal[3],
                                             const int32_t size[3], const float p[3], int32_t at[3]) {
    if (!__builtin_expect(place_quick(frame, reciprocal, p, at), 1)) {
        place_exact(frame, p, at);
    }
    return lies_inside(at, size);
}

// The grid of one sample. Division is slow and the quotient is only wanted to the integer below: a product with the
// reciprocal tells it wherever it is not close to a whole number.
struct FastFrame {
    rc_frame_f32 exact;
    float reciprocal[3];  // NaN: always divide
    int32_t size[3];

    __device__ __forceinline__ void finish() {
        for (int d = 0; d < 3; ++d) {
            reciprocal[d] = safe_reciprocal(exact.voxel[d]);
            size[d] = static_cast<int32_t>(exact.size[d]);
        }
    }

    // floor((p - min) / voxel), as rc_axis_cell_f32 has it. The product t differs from the rounded quotient by less than
    // |t| 2^-22; where no whole number is that near, both have one floor. NaN and infinity fail the test and divide.
    __device__ __forceinline__ float place(float p, int d) const {
        const float a = p - exact.min[d];
        const float t = a * reciprocal[d];
        const float low = floorf(t);
        const float margin = __fmaf_rn(fabsf(t), 0x1p-21f, fabsf((t - low) - 0.5f));
        if (__builtin_expect(margin < 0.5f - 0x1p-20f, 1)) {
            return low;
        }
        return divide_and_floor(a, exact.voxel[d]);
    }

    __device__ __forceinline__ bool locate(const float p[3], bool clamp, int32_t at[3], bool* counts) const {
        if (!clamp) {
            return *counts = locate_quick(exact, reciprocal, size, p, at);
        }
        const float q[3] = {place(p[0], 0), place(p[1], 1), place(p[2], 2)};
        return rc_cell_of_f32(&exact, q, clamp, at, counts);
    }
};

struct ExactFrame {
    rc_frame_f64 exact;
    __device__ __forceinline__ void finish() {}
    __device__ __forceinline__ bool locate(const double p[3], bool clamp, int32_t at[3], bool* counts) const {
        return rc_locate_point_f64(&exact, p, clamp, at, counts);
    }
};

__device__ __forceinline__ void transform(const float* pose, const float p[3], float out[3]) {
    rc_transform_f32(pose, p, out);
}
__device__ __forceinline__ void transform(const double* pose, const double p[3], double out[3]) {
    rc_transform_f64(pose, p, out);
}

template <PointSource kSource>
struct SourceTypes {
    using Real = float;
    using Frame = FastFrame;
};
template <>
struct SourceTypes<PointSource::kCloud64> {
    using Real = double;
    using Frame = ExactFrame;
};

// The frame of sample b; a size or a corner that cannot be right is noted once.
template <typename Frame, typename Real>
__device__ __forceinline__ void load_frame(const VoxelGridParams& grid, rc_fault_report* note, int64_t b,
                                           Frame* frame) {
    const Real* voxels = static_cast<const Real*>(grid.voxel_sizes);
    const Real* mins = static_cast<const Real*>(grid.grid_mins);
#pragma unroll
    for (int d = 0; d < 3; ++d) {
        const Real voxel = voxels != nullptr ? __ldg(voxels + b * grid.voxel_sizes_stride + d)
                                             : static_cast<Real>(grid.voxel[d]);
        const Real min = mins != nullptr ? __ldg(mins + b * grid.grid_mins_stride + d) : static_cast<Real>(grid.min[d]);
        frame->exact.voxel[d] = voxel;
        frame->exact.min[d] = min;
        frame->exact.size[d] = static_cast<Real>(grid.size[d]);
        if (voxels != nullptr && !(voxel > static_cast<Real>(0) && isfinite(voxel))) {
            note_fault(note, RC_FAULT_VOXEL_SIZE, 0, b, d);
        }
        if (mins != nullptr && !isfinite(min)) {
            note_fault(note, RC_FAULT_GRID_MIN, 0, b, d);
        }
    }
    frame->finish();
}

// locate_quick() of the grid that all samples share, whose numbers are constants of the launch.
__device__ __forceinline__ bool locate_plain(const VoxelGridParams& grid, const float p[3], int32_t at[3]) {
    return locate_quick(grid.frame, grid.reciprocal, grid.size, p, at);
}

// A cell's number where a sample has fewer than 2^31 of them, or -1.
__device__ __forceinline__ int32_t plain_cell(const VoxelGridParams& grid, const int32_t at[3]) {
    return lies_inside(at, grid.size) ? (at[0] * grid.size[1] + at[1]) * grid.size[2] + at[2] : -1;
}

__device__ __noinline__ inline int32_t exact_plain_cell(const VoxelGridParams& grid, float x, float y, float z) {
    const float p[3] = {x, y, z};
    int32_t at[3];
    place_exact(grid.frame, p, at);
    return plain_cell(grid, at);
}

// Cells of kPoints points in that grid, with one question for all of them whether they are sure.
template <int kPoints>
__device__ __forceinline__ void plain_cells(const VoxelGridParams& grid, const float p[kPoints][3],
                                            int32_t cells[kPoints]) {
    bool sure = true;
#pragma unroll
    for (int k = 0; k < kPoints; ++k) {
        int32_t at[3];
        sure &= place_quick(grid.frame, grid.reciprocal, p[k], at);
        cells[k] = plain_cell(grid, at);
    }
    if (!__builtin_expect(sure, 1)) {
#pragma unroll
        for (int k = 0; k < kPoints; ++k) {
            cells[k] = exact_plain_cell(grid, p[k][0], p[k][1], p[k][2]);
        }
    }
}

}  // namespace rc
