// A pass over all points of a call, four to a thread and turn.
#pragma once

#include "voxel_points.cuh"

namespace rc {

constexpr int kRun = 4;  // points a thread takes at once: with three coordinates each, three 16-byte loads
constexpr int kEachThreads = 256;

// Coordinates of kRun points from i, which are 16-byte aligned.
__device__ __forceinline__ void load_run(const float* points, int64_t i, float p[kRun][3]) {
    const float4* from = reinterpret_cast<const float4*>(points + 3 * i);
    const float4 a = __ldcs(from), b = __ldcs(from + 1), c = __ldcs(from + 2);
    p[0][0] = a.x, p[0][1] = a.y, p[0][2] = a.z;
    p[1][0] = a.w, p[1][1] = b.x, p[1][2] = b.y;
    p[2][0] = b.z, p[2][1] = b.w, p[2][2] = c.x;
    p[3][0] = c.y, p[3][1] = c.z, p[3][2] = c.w;
}

// Calls body(i, cells): i[k] and its cell counted across the batch (b * cells + cell), or kNoCell. Every thread of the
// block takes every turn, so the body may use the whole warp; i[k] >= total has kNoCell.
template <PointSource kSource, bool kSides, typename Body>
__device__ __forceinline__ void each_run(const VoxelParams& params, Body&& body) {
    PointReader<kSource> reader(params);
    if (kSides) {
        check_splits(params);
    }
    const int64_t total = params.points.total;
    const int64_t turn = static_cast<int64_t>(gridDim.x) * blockDim.x * kRun;
    const bool aligned = (reinterpret_cast<uintptr_t>(params.points.points) & 15) == 0;
    for (int64_t base = static_cast<int64_t>(blockIdx.x) * blockDim.x * kRun; base < total; base += turn) {
        int64_t i[kRun], found[kRun];
        if (kSource == PointSource::kPlain && aligned && base + blockDim.x * kRun <= total) {
            float p[kRun][3];
            const int64_t first = base + static_cast<int64_t>(threadIdx.x) * kRun;
            load_run(static_cast<const float*>(params.points.points), first, p);
#pragma unroll
            for (int k = 0; k < kRun; ++k) {
                i[k] = first + k;
                reader.seek(i[k]);
                const typename PointReader<kSource>::Real q[3] = {p[k][0], p[k][1], p[k][2]};
                found[k] = reader.template locate<kSides>(i[k], q);
                if (kSides && params.inverse != nullptr) {
                    params.inverse[i[k]] = found[k];
                }
                found[k] = found[k] == kNoCell ? kNoCell : reader.sample() * params.grid.cells + found[k];
            }
        } else {
#pragma unroll
            for (int k = 0; k < kRun; ++k) {
                i[k] = base + k * static_cast<int64_t>(blockDim.x) + threadIdx.x;
                found[k] = kNoCell;
                if (i[k] < total) {
                    if (reader.seek(i[k])) {
                        const int64_t cell = reader.template cell<kSides>(i[k]);
                        found[k] = cell == kNoCell ? kNoCell : reader.sample() * params.grid.cells + cell;
                    } else if (kSides && params.inverse != nullptr) {
                        params.inverse[i[k]] = kNoCell;
                    }
                }
            }
        }
        body(i, found);
    }
    if (kSides) {
        reader.finish();
    }
}

// Whether a pass has anything to look at: row_splits are checked also where there are no points.
inline bool has_points(const VoxelParams& params) {
    return params.points.total > 0 || params.points.row_splits != nullptr;
}

// Blocks for a pass: enough to fill the device, not more than there are turns.
inline unsigned each_blocks(int64_t total, int multiprocessors) {
    const int64_t turns = (total + kEachThreads * kRun - 1) / (kEachThreads * kRun);
    const int64_t fill = static_cast<int64_t>(multiprocessors) * (2048 / kEachThreads);
    return static_cast<unsigned>(turns < fill ? (turns > 0 ? turns : 1) : fill);
}

}  // namespace rc
