// A pass over all points of a call, four to a thread and turn.
#pragma once

#include "voxel_points.cuh"

namespace rc {

constexpr int kEachThreads = 256;  // of a block at most

// Neighbouring points of a scan or an image often fall in one cell. Of a warp's 32 * kRun points, in their order, tells
// each whether it starts a run of equal cells. `together`: a thread has neighbours; else neighbouring lanes have them.
template <typename Cell>
__device__ __forceinline__ void run_starts(const Cell cells[kRun], bool together, bool starts[kRun]) {
    const bool first_lane = (threadIdx.x & 31) == 0;
    if (together) {
        const Cell before = __shfl_up_sync(kWholeWarp, cells[kRun - 1], 1);
        starts[0] = first_lane || cells[0] != before;
#pragma unroll
        for (int k = 1; k < kRun; ++k) {
            starts[k] = cells[k] != cells[k - 1];
        }
    } else {
#pragma unroll
        for (int k = 0; k < kRun; ++k) {
            const Cell before = __shfl_up_sync(kWholeWarp, cells[k], 1);
            starts[k] = first_lane || cells[k] != before;
        }
    }
}

// The number of points in the run that a point starts; 0 where it starts none.
template <typename Cell>
__device__ __forceinline__ void run_lengths(const Cell cells[kRun], bool together, uint32_t lengths[kRun]) {
    bool starts[kRun];
    run_starts(cells, together, starts);
    bool single = true;
#pragma unroll
    for (int k = 0; k < kRun; ++k) {
        single = single && starts[k];
        lengths[k] = starts[k] ? 1 : 0;
    }
    if (__all_sync(kWholeWarp, single) != 0) {
        return;
    }
    const uint32_t lane = threadIdx.x & 31;
    const uint32_t lanes_above = lane == 31 ? 0 : kWholeWarp << (lane + 1);
    uint32_t masks[kRun];
    uint32_t any = 0;
#pragma unroll
    for (int k = 0; k < kRun; ++k) {
        masks[k] = __ballot_sync(kWholeWarp, starts[k]);
        any |= masks[k];
    }
    if (together) {
        uint32_t end = 32 * kRun;  // of the run that a thread's last start begins
        if ((any & lanes_above) != 0) {
            const uint32_t next = static_cast<uint32_t>(__ffs(static_cast<int>(any & lanes_above))) - 1;
#pragma unroll
            for (int k = kRun - 1; k >= 0; --k) {
                end = ((masks[k] >> next) & 1) != 0 ? next * kRun + k : end;
            }
        }
#pragma unroll
        for (int k = kRun - 1; k >= 0; --k) {
            if (starts[k]) {
                lengths[k] = end - (lane * kRun + k);
                end = lane * kRun + k;
            }
        }
    } else {
#pragma unroll
        for (int k = 0; k < kRun; ++k) {
            const uint32_t above = masks[k] & lanes_above;
            const uint32_t end = above != 0 ? static_cast<uint32_t>(__ffs(static_cast<int>(above))) - 1 : 32;
            lengths[k] = starts[k] ? end - lane : 0;
        }
    }
}

// Calls body(i, cells): i[k] and its cell counted across the batch (b * cells + cell), or kNoCell. Every thread of the
// block takes every turn, so the body may use the whole warp; i[k] >= total has kNoCell. Of a turn, either each thread's
// points are neighbours (i[1] == i[0] + 1), or those of neighbouring lanes.
template <PointSource kSource, bool kSides, typename Body>
__device__ __forceinline__ void each_run(const VoxelParams& params, Body&& body) {
    PointReader<kSource> reader(params);
    if (kSides) {
        check_splits(params);
        check_grids<kSource>(params);
    }
    const int64_t total = params.points.total;
    const int64_t turn = static_cast<int64_t>(gridDim.x) * blockDim.x * kRun;
    const bool aligned = (reinterpret_cast<uintptr_t>(params.points.points) & 15) == 0;
    const bool pixel_runs = reader.has_pixel_runs();
    for (int64_t base = static_cast<int64_t>(blockIdx.x) * blockDim.x * kRun; base < total; base += turn) {
        int64_t i[kRun], found[kRun];
        const int64_t first = base + static_cast<int64_t>(threadIdx.x) * kRun;
        const bool whole = base + blockDim.x * kRun <= total;
        if (kSource == PointSource::kPlain && aligned && whole) {
            float p[kRun][3];
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
        } else if (kSource == PointSource::kDepth && pixel_runs && whole) {
            reader.seek(first);
            if constexpr (kSource == PointSource::kDepth) {
                reader.template pixel_cells<kSides>(first, found);
            }
#pragma unroll
            for (int k = 0; k < kRun; ++k) {
                i[k] = first + k;
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

// Whether a pass has anything to look at: row_splits and grids are checked also where there are no points.
inline bool has_points(const VoxelParams& params) {
    return params.points.total > 0 || params.points.row_splits != nullptr || params.grid.voxel_sizes != nullptr ||
           params.grid.grid_mins != nullptr;
}

// Blocks of kEachThreads that a multiprocessor has at once in a pass, by the registers that finding a cell takes.
constexpr int passes_at_once(PointSource source, bool sides) {
    switch (source) {
    case PointSource::kPlain:
        return sides ? 5 : 6;
    case PointSource::kCloud64:
        return 2;
    default:
        return 3;
    }
}

// Blocks of `threads` for a pass: `at_once` a multiprocessor, not more than there are turns.
inline unsigned each_blocks(int64_t total, int multiprocessors, int at_once, int threads) {
    const int64_t turns = (total + threads * kRun - 1) / (threads * kRun);
    const int64_t fill = static_cast<int64_t>(multiprocessors) * at_once;
    return static_cast<unsigned>(turns < fill ? (turns > 0 ? turns : 1) : fill);
}

}  // namespace rc
