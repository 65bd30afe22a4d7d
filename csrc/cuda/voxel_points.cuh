// Points to cells, for every voxelize kernel: reads a point from its source and finds its cell.
#pragma once

#include "elements.cuh"
#include "voxel_frame.cuh"

namespace rc {

constexpr int64_t kNoCell = -1;
constexpr uint32_t kWholeWarp = 0xffffffffu;
constexpr int kRun = 4;  // points a thread takes at once: with three coordinates each, three 16-byte loads

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

// Coordinates of kRun points from i, which are 16-byte aligned.
__device__ __forceinline__ void load_run(const float* points, int64_t i, float p[kRun][3]) {
    const float4* from = reinterpret_cast<const float4*>(points + 3 * i);
    const float4 a = __ldcs(from), b = __ldcs(from + 1), c = __ldcs(from + 2);
    p[0][0] = a.x, p[0][1] = a.y, p[0][2] = a.z;
    p[1][0] = a.w, p[1][1] = b.x, p[1][2] = b.y;
    p[2][0] = b.z, p[2][1] = b.w, p[2][2] = c.x;
    p[3][0] = c.y, p[3][1] = c.z, p[3][2] = c.w;
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

    // The same of a point whose coordinates are already here, but the inverse is the caller's.
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

    // Whether kRun neighbouring pixels, from a multiple of kRun within their sample on, are in one camera and one word.
    __device__ __forceinline__ bool has_pixel_runs() const {
        if constexpr (kSource != PointSource::kDepth) {
            return false;
        } else {
            const VoxelPoints& points = params_.points;
            const size_t word = kRun * (points.dtype == RC_UINT16 ? sizeof(uint16_t) : sizeof(float));
            return points.mask == nullptr && points.stride[2] == 1 && points.pixels % kRun == 0 &&
                   points.stride[0] % kRun == 0 && points.stride[1] % kRun == 0 &&
                   reinterpret_cast<uintptr_t>(points.points) % word == 0;
        }
    }

    // cell() of such pixels of the current sample.
    template <bool kSides>
    __device__ __forceinline__ void pixel_cells(int64_t i, int64_t found[kRun]) {
        const VoxelPoints& points = params_.points;
        const uint32_t n = static_cast<uint32_t>(i - begin_);
        const uint32_t number = points.by_pixels.quotient(n);
        const uint32_t pixel = n - number * points.pixels;
        const int64_t at = sample_ * points.stride[0] + number * points.stride[1] + pixel;
        float depth[kRun];
        if (points.dtype == RC_UINT16) {
            const uint2 word = __ldcs(reinterpret_cast<const uint2*>(static_cast<const uint16_t*>(points.points) + at));
            depth[0] = static_cast<float>(word.x & 0xffffu), depth[1] = static_cast<float>(word.x >> 16);
            depth[2] = static_cast<float>(word.y & 0xffffu), depth[3] = static_cast<float>(word.y >> 16);
        } else {
            const float4 word = __ldcs(reinterpret_cast<const float4*>(static_cast<const float*>(points.points) + at));
            depth[0] = word.x, depth[1] = word.y, depth[2] = word.z, depth[3] = word.w;
        }
        const Camera camera = camera_of(number);
        uint32_t row = points.by_width.quotient(pixel);
        uint32_t column = pixel - row * points.by_width.divisor;
#pragma unroll
        for (int k = 0; k < kRun; ++k) {
            float p[3];
            found[k] = pixel_point(camera, depth[k], column, row, p) ? locate<kSides>(i + k, p) : kNoCell;
            if (kSides && params_.inverse != nullptr) {
                params_.inverse[i + k] = found[k];
            }
            if (++column == points.by_width.divisor) {
                column = 0;
                ++row;
            }
        }
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
            Real pose[12];
            if (points.poses != nullptr) {
                load_pose(0, pose);
            }
            place(pose, raw, p);
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

    // One thread's own, where the sample changes.
    __device__ __forceinline__ void flush_dropped() {
        if (params_.dropped != nullptr && dropped_ != 0) {
            atomicAdd(params_.dropped + sample_, static_cast<unsigned long long>(dropped_));
            dropped_ = 0;
        }
    }

private:
    // Of a camera: fx, fy, cx, cy and the rows of its pose, where it has one.
    struct Camera {
        float lens[4];
        float pose[12];
    };

    __device__ __forceinline__ Camera camera_of(uint32_t number) const {
        const VoxelPoints& points = params_.points;
        Camera camera;
        const float* lens = points.intrinsics + sample_ * points.intrinsics_stride[0] +
                            number * points.intrinsics_stride[1];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            camera.lens[k] = __ldg(lens + k);
        }
        if (points.poses != nullptr) {
            load_pose(number, camera.pose);
        }
        return camera;
    }

    __device__ __forceinline__ bool pixel_point(const Camera& camera, float depth, uint32_t column, uint32_t row,
                                                float p[3]) const {
        const VoxelPoints& points = params_.points;
        float raw[3];
        if (!rc_unproject(depth, points.depth_scale, camera.lens, static_cast<float>(column), static_cast<float>(row),
                          raw)) {
            return false;
        }
        place(camera.pose, raw, p);
        return true;
    }

    __device__ __forceinline__ bool read_depth(uint32_t n, float p[3]) const {
        const VoxelPoints& points = params_.points;
        const uint32_t number = points.by_pixels.quotient(n);
        const uint32_t pixel = n - number * points.pixels;
        if (points.mask != nullptr && points.mask[sample_ * points.mask_stride[0] + number * points.mask_stride[1] +
                                                  pixel * points.mask_stride[2]] == 0) {
            return false;
        }
        const int64_t at = sample_ * points.stride[0] + number * points.stride[1] + pixel * points.stride[2];
        const float depth = points.dtype == RC_UINT16
                                ? static_cast<float>(__ldg(static_cast<const uint16_t*>(points.points) + at))
                                : __ldg(static_cast<const float*>(points.points) + at);
        const uint32_t row = points.by_width.quotient(pixel);
        return pixel_point(camera_of(number), depth, pixel - row * points.by_width.divisor, row, p);
    }

    __device__ __forceinline__ void load_pose(int64_t camera, Real pose[12]) const {
        const VoxelPoints& points = params_.points;
        const Real* from = static_cast<const Real*>(points.poses) + sample_ * points.pose_stride[0] +
                           camera * points.pose_stride[1];
#pragma unroll
        for (int k = 0; k < 12; ++k) {
            pose[k] = __ldg(from + k);
        }
    }

    __device__ __forceinline__ void place(const Real pose[12], const Real raw[3], Real p[3]) const {
        if (params_.points.poses != nullptr) {
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

// Notes sizes and corners of grids that cannot be right, also of samples without points; one block of a kernel does it.
template <PointSource kSource>
__device__ __forceinline__ void check_grids(const VoxelParams& params) {
    using Types = SourceTypes<kSource>;
    const VoxelGridParams& grid = params.grid;
    if ((grid.voxel_sizes == nullptr && grid.grid_mins == nullptr) || blockIdx.x != 0) {
        return;
    }
    for (int64_t b = threadIdx.x; b < params.points.batch; b += blockDim.x) {
        typename Types::Frame frame;
        load_frame<typename Types::Frame, typename Types::Real>(grid, params.note, b, &frame);
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
