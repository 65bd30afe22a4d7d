// Points to cells, for every voxelize kernel: reads a point from its source and finds its cell.
#pragma once

#include "../core/voxel.h"
#include "elements.cuh"
#include "runtime.h"
#include "voxel_params.h"

namespace rc {

constexpr int64_t kNoCell = -1;
constexpr uint32_t kWholeWarp = 0xffffffffu;

// ---- Frames ---------------------------------------------------------------------------------------------------------

// Rarely wanted: kept out of line, so that many points fit the instruction cache.
__device__ __noinline__ inline float divide_and_floor(float a, float v) {
    return floorf(a / v);
}

// The grid of one sample. Division is slow and the quotient is only wanted to the integer below: a product with the
// reciprocal tells it wherever it is not close to a whole number.
struct FastFrame {
    rc_frame_f32 exact;
    float reciprocal[3];  // NaN: always divide

    __device__ __forceinline__ void finish() {
        for (int d = 0; d < 3; ++d) {
            reciprocal[d] = safe_reciprocal(exact.voxel[d]);
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

// The same for one grid whose numbers are constants of the launch, in full-rate instructions: the nearest whole number
// to t is what remains of t + 1.5 * 2^23, and the floor is that or the one below. False: the point lies outside.
__device__ __forceinline__ bool locate_plain(const VoxelGridParams& grid, const float p[3], int32_t at[3]) {
    constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: for |t| < 2^22 the sum's last place is 1
    bool sure = true;
#pragma unroll
    for (int d = 0; d < 3; ++d) {
        const float t = (p[d] - grid.frame.min[d]) * grid.reciprocal[d];
        const float shifted = t + kShift;
        const float apart = t - (shifted - kShift);
        // As in FastFrame::place(); a |t| of 2^22 or more is never sure, nor is NaN.
        sure = sure && fabsf(apart) > __fmaf_rn(fabsf(t), 0x1p-21f, 0x1p-20f);
        at[d] = __float_as_int(shifted) - __float_as_int(kShift) - (apart < 0.0f ? 1 : 0);
    }
    if (!__builtin_expect(sure, 1)) {
#pragma unroll
        for (int d = 0; d < 3; ++d) {
            const float q = divide_and_floor(p[d] - grid.frame.min[d], grid.frame.voxel[d]);
            at[d] = q >= 0.0f && q < grid.frame.size[d] ? static_cast<int32_t>(q) : -1;
        }
    }
    return static_cast<uint32_t>(at[0]) < static_cast<uint32_t>(grid.size[0]) &&
           static_cast<uint32_t>(at[1]) < static_cast<uint32_t>(grid.size[1]) &&
           static_cast<uint32_t>(at[2]) < static_cast<uint32_t>(grid.size[2]);
}

// Its cell where a sample has fewer than 2^31 of them, or -1.
__device__ __forceinline__ int32_t plain_cell(const VoxelGridParams& grid, const float p[3]) {
    int32_t at[3];
    const bool inside = locate_plain(grid, p, at);
    return inside ? (at[0] * grid.size[1] + at[1]) * grid.size[2] + at[2] : -1;
}

// ---- Points ---------------------------------------------------------------------------------------------------------

__device__ __forceinline__ float load_as(const void* base, int64_t element, int32_t dtype, float) {
    switch (dtype) {
    case RC_FLOAT32:
        return __ldg(static_cast<const float*>(base) + element);
    case RC_FLOAT16:
        return widen(__ldg(static_cast<const half*>(base) + element));
    default:
        return widen(__ldg(static_cast<const bfloat16*>(base) + element));
    }
}
__device__ __forceinline__ double load_as(const void* base, int64_t element, int32_t, double) {
    return __ldg(static_cast<const double*>(base) + element);
}

// The sample of a packed point: the last whose points begin at or before it.
__device__ __forceinline__ int64_t sample_of(const int64_t* row_splits, int64_t batch, int64_t point) {
    int64_t low = 0, high = batch;  // row_splits[low] <= point is believed of low, not of high
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (__ldg(row_splits + middle) <= point) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

// Walks over points and finds their cells; keeps the frame of the sample it is in.
template <PointSource kSource>
class PointReader {
public:
    using Real = typename SourceTypes<kSource>::Real;
    using Frame = typename SourceTypes<kSource>::Frame;

    __device__ __forceinline__ explicit PointReader(const VoxelParams& params) : params_(params) {}

    // Goes to the sample of point i. False: it has none (it lies outside row_splits).
    __device__ __forceinline__ bool seek(int64_t i) {
        if (i >= begin_ && i < end_) {
            return true;
        }
        const VoxelPoints& points = params_.points;
        int64_t b, begin, end;
        if (points.row_splits != nullptr) {
            b = sample_of(points.row_splits, points.batch, i);
            begin = __ldg(points.row_splits + b);
            end = __ldg(points.row_splits + b + 1);
            if (i < begin || i >= end) {
                return false;
            }
        } else {
            b = points.batch == 1 ? 0 : i / points.per_sample;
            begin = b * points.per_sample;
            end = begin + points.per_sample;
        }
        enter(b, begin, end);
        return true;
    }

    // Makes b the current sample, of points begin .. end.
    __device__ __forceinline__ void enter(int64_t b, int64_t begin, int64_t end) {
        flush_dropped();
        sample_ = b;
        begin_ = begin;
        end_ = end;
        if constexpr (kSource != PointSource::kPlain) {
            load_frame<Frame, Real>(params_.grid, params_.note, b, &frame_);
        }
    }

    // Cell of point i of the current sample, or kNoCell. kSides: also counts what is dropped and writes the inverse.
    template <bool kSides>
    __device__ __forceinline__ int64_t cell(int64_t i) {
        Real p[3];
        int64_t found = kNoCell;
        if (read(i, p)) {
            found = locate<kSides>(i, p);
        }
        if (kSides && params_.inverse != nullptr) {
            params_.inverse[i] = found;
        }
        return found;
    }

    // The same of a point whose coordinates are already here; kPlain only.
    template <bool kSides>
    __device__ __forceinline__ int64_t locate(int64_t i, const Real p[3]) {
        const VoxelGridParams& grid = params_.grid;
        int32_t at[3];
        bool counts;
        bool inside;
        if constexpr (kSource == PointSource::kPlain) {
            inside = counts = locate_plain(grid, p, at);
        } else {
            inside = frame_.locate(p, grid.bounds == RC_BOUNDS_CLAMP, at, &counts);
        }
        if (kSides && !inside) {
            ++dropped_;
            if (grid.bounds == RC_BOUNDS_RAISE) {
                note_fault(params_.note, RC_FAULT_POINT_OUTSIDE, 0, sample_, i - begin_);
            }
        }
        return counts ? (static_cast<int64_t>(at[0]) * grid.size[1] + at[1]) * grid.size[2] + at[2] : kNoCell;
    }

    // Point i in the grid's frame; false: it does not count (masked, no depth).
    __device__ __forceinline__ bool read(int64_t i, Real p[3]) const {
        const VoxelPoints& points = params_.points;
        if constexpr (kSource == PointSource::kPlain) {
            const float* at = static_cast<const float*>(points.points) + 3 * i;
            p[0] = __ldg(at);
            p[1] = __ldg(at + 1);
            p[2] = __ldg(at + 2);
            return true;
        } else if constexpr (kSource == PointSource::kDepth) {
            return read_depth(static_cast<uint32_t>(i - begin_), p);
        } else {
            const bool packed = points.row_splits != nullptr;
            const int64_t n = packed ? i : i - begin_;
            const int64_t b = packed ? 0 : sample_;
            if (points.mask != nullptr && points.mask[b * points.mask_stride[0] + n * points.mask_stride[2]] == 0) {
                return false;
            }
            const int64_t at = b * points.stride[0] + n * points.stride[1];
            Real raw[3];
            for (int d = 0; d < 3; ++d) {
                raw[d] = load_as(points.points, at + d * points.stride[2], points.dtype, Real{});
            }
            place(raw, 0, p);
            return true;
        }
    }

    __device__ __forceinline__ int64_t sample() const { return sample_; }
    __device__ __forceinline__ int64_t begin() const { return begin_; }
    // Not of kPlain, whose frame is a constant.
    __device__ __forceinline__ const Frame& frame() const { return frame_; }

    // Hands in what was dropped, once a warp where it can; every thread of a warp calls it at its end.
    __device__ __forceinline__ void finish() {
        const uint32_t some = __ballot_sync(kWholeWarp, params_.dropped != nullptr && dropped_ != 0);
        if (some == 0) {
            return;
        }
        const int64_t sample = __shfl_sync(kWholeWarp, sample_, __ffs(static_cast<int>(some)) - 1);
        if (__all_sync(kWholeWarp, dropped_ == 0 || sample_ == sample)) {
            const uint32_t sum = __reduce_add_sync(kWholeWarp, dropped_);
            if ((threadIdx.x & 31) == 0) {
                atomicAdd(params_.dropped + sample, static_cast<unsigned long long>(sum));
            }
        } else {
            flush_dropped();
        }
    }

    __device__ __forceinline__ void flush_dropped() {
        if (params_.dropped != nullptr && dropped_ != 0) {
            atomicAdd(params_.dropped + sample_, static_cast<unsigned long long>(dropped_));
            dropped_ = 0;
        }
    }

private:
    __device__ __forceinline__ bool read_depth(uint32_t n, float p[3]) const {
        const VoxelPoints& points = params_.points;
        const uint32_t camera = points.by_pixels.quotient(n);
        const uint32_t pixel = n - camera * points.pixels;
        if (points.mask != nullptr && points.mask[sample_ * points.mask_stride[0] + camera * points.mask_stride[1] +
                                                  pixel * points.mask_stride[2]] == 0) {
            return false;
        }
        const int64_t at = sample_ * points.stride[0] + camera * points.stride[1] + pixel * points.stride[2];
        const float depth = points.dtype == RC_UINT16
                                ? static_cast<float>(__ldg(static_cast<const uint16_t*>(points.points) + at))
                                : __ldg(static_cast<const float*>(points.points) + at);
        const float* lens = points.intrinsics + sample_ * points.intrinsics_stride[0] +
                            camera * points.intrinsics_stride[1];
        const float intrinsics[4] = {__ldg(lens), __ldg(lens + 1), __ldg(lens + 2), __ldg(lens + 3)};
        const uint32_t row = points.by_width.quotient(pixel);
        const uint32_t column = pixel - row * points.by_width.divisor;
        float raw[3];
        if (!rc_unproject(depth, points.depth_scale, intrinsics, static_cast<float>(column), static_cast<float>(row),
                          raw)) {
            return false;
        }
        place(raw, camera, p);
        return true;
    }

    __device__ __forceinline__ void place(const Real raw[3], int64_t camera, Real p[3]) const {
        const VoxelPoints& points = params_.points;
        if (points.poses != nullptr) {
            const Real* from = static_cast<const Real*>(points.poses) + sample_ * points.pose_stride[0] +
                               camera * points.pose_stride[1];
            Real pose[12];
#pragma unroll
            for (int k = 0; k < 12; ++k) {
                pose[k] = __ldg(from + k);
            }
            transform(pose, raw, p);
        } else {
            p[0] = raw[0];
            p[1] = raw[1];
            p[2] = raw[2];
        }
    }

    const VoxelParams& params_;
    Frame frame_;
    int64_t sample_ = -1;
    int64_t begin_ = 0;
    int64_t end_ = 0;  // none
    uint32_t dropped_ = 0;
};

// Notes row_splits that cannot be right; one block of a kernel does it.
__device__ __forceinline__ void check_splits(const VoxelParams& params) {
    const VoxelPoints& points = params.points;
    if (points.row_splits == nullptr || blockIdx.x != 0) {
        return;
    }
    for (int64_t b = threadIdx.x; b < points.batch; b += blockDim.x) {
        const int64_t begin = points.row_splits[b], end = points.row_splits[b + 1];
        if (begin < 0 || end < begin || end > points.total) {
            note_fault(params.note, RC_FAULT_POINT_SPLITS, 0, b, 0);
        }
    }
}

// The samples' range that a kernel may read: of hostile splits nothing.
__device__ __forceinline__ void sample_range(const VoxelPoints& points, int64_t b, int64_t* begin, int64_t* end) {
    if (points.row_splits == nullptr) {
        *begin = b * points.per_sample;
        *end = *begin + points.per_sample;
        return;
    }
    *begin = points.row_splits[b];
    *end = points.row_splits[b + 1];
    if (*begin < 0 || *end < *begin || *end > points.total) {
        *begin = *end = 0;
    }
}

// Runs `launch` with the source as a compile-time constant, and with whether points leave anything beside their cell
// (what is dropped, the inverse, a fault): plain points usually do not.
template <typename Launch>
rc_status with_source(PointSource source, const VoxelParams& params, Launch&& launch) {
    const bool sides = params.dropped != nullptr || params.inverse != nullptr || params.grid.bounds == RC_BOUNDS_RAISE;
    switch (source) {
    case PointSource::kPlain:
        if (!sides) {
            return launch(std::integral_constant<PointSource, PointSource::kPlain>{}, std::false_type{});
        }
        return launch(std::integral_constant<PointSource, PointSource::kPlain>{}, std::true_type{});
    case PointSource::kCloud:
        return launch(std::integral_constant<PointSource, PointSource::kCloud>{}, std::true_type{});
    case PointSource::kCloud64:
        return launch(std::integral_constant<PointSource, PointSource::kCloud64>{}, std::true_type{});
    default:
        return launch(std::integral_constant<PointSource, PointSource::kDepth>{}, std::true_type{});
    }
}

}  // namespace rc
