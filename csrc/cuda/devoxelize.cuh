// Values of a grid at points, and their gradients: what both directions share.
#pragma once

#include "voxel_points.cuh"

namespace rc {

struct DevoxelizeParams {
    VoxelParams points;
    const void* values;
    int64_t stride[5];  // sample, x, y, z, column
    int32_t columns;
    FastDivide by_groups;  // lanes or vectors of a point's columns
    double empty_value;
    void* out;
    // Backward:
    const void* grad_out;
    void* grad_values;  // [B, X, Y, Z, C] contiguous
    void* grad_points;
};

// Where a point reads: the corner of lowest index along each axis, the step to the next, and its weight.
template <typename Real>
struct Stencil {
    int32_t at[3][2];
    Real weight[3];
    bool clamped[3];  // the place was held at the grid's end: it does not move with the point
};

template <typename Frame, typename Real>
__device__ __forceinline__ void stencil_of(const Frame& frame, const Real p[3], bool clamp, Stencil<Real>* stencil) {
#pragma unroll
    for (int d = 0; d < 3; ++d) {
        Real t = (p[d] - frame.exact.min[d]) / frame.exact.voxel[d] - static_cast<Real>(0.5);
        stencil->clamped[d] = false;
        if (clamp) {
            const Real low = static_cast<Real>(-0.5), high = frame.exact.size[d] - static_cast<Real>(0.5);
            stencil->clamped[d] = t < low || t > high;
            t = t < low ? low : (t > high ? high : t);
        }
        if constexpr (sizeof(Real) == 8) {
            stencil->weight[d] = rc_centres_f64(t, frame.exact.size[d], stencil->at[d]);
        } else {
            stencil->weight[d] = rc_centres_f32(t, frame.exact.size[d], stencil->at[d]);
        }
    }
}

// Point i in the grid's frame and the cell it reads; false: it reads none. kNotes: a point outside that must not be is
// noted (by the forward pass).
template <bool kNotes, typename Reader, typename Real>
__device__ __forceinline__ bool find_point(Reader* reader, const DevoxelizeParams& params, int64_t i, Real p[3],
                                           int32_t at[3]) {
    const int32_t bounds = params.points.grid.bounds;
    bool counts = false;
    if (reader->seek(i) && reader->read(i, p)) {
        const bool inside = reader->frame().locate(p, bounds == RC_BOUNDS_CLAMP, at, &counts);
        if (kNotes && !inside && bounds == RC_BOUNDS_RAISE) {
            note_fault(params.points.note, RC_FAULT_POINT_OUTSIDE, 0, reader->sample(), i - reader->begin());
        }
    }
    return counts;
}

// kVector columns of a grid's cell; kPacked: they are loaded at once.
template <int kVector, bool kPacked, typename Value, typename Real>
__device__ __forceinline__ void load_cell(const Value* values, int64_t from, int64_t stride, Real v[kVector]) {
    if constexpr (kPacked) {
        const auto pack = *reinterpret_cast<const Pack<Value, kVector>*>(values + from);
#pragma unroll
        for (int k = 0; k < kVector; ++k) {
            v[k] = static_cast<Real>(widen(pack.at[k]));
        }
    } else {
#pragma unroll
        for (int k = 0; k < kVector; ++k) {
            v[k] = static_cast<Real>(widen(__ldg(values + from + k * stride)));
        }
    }
}

// Columns a thread takes at once.
enum class Columns {
    kOne,
    kFour,        // whatever lies between them
    kFourPacked,  // that can be loaded at once
};
Columns columns_of(const rc_devoxelize_call& call);

// Fills `params` from a call that has been checked; picks the source of points.
PointSource devoxelize_params(const rc_devoxelize_call& call, rc_fault_report* note, DevoxelizeParams* params);

}  // namespace rc
