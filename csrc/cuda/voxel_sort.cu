// Cells of all points, sorted: by CUB's radix sort, which is stable, so that a cell's points keep the order of their index.
#include <cub/device/device_radix_sort.cuh>

#include "voxel_each.cuh"
#include "voxel_sorted.h"

namespace rc {

namespace {

template <PointSource kSource, bool kSides, typename Key>
__global__ __launch_bounds__(kEachThreads) void key_kernel(const __grid_constant__ VoxelParams params,
                                                           Key* __restrict__ keys, uint32_t* __restrict__ order,
                                                           Key none) {
    each_run<kSource, kSides>(params, [&](const int64_t* i, const int64_t* cells) {
        if (i[1] == i[0] + 1 && i[0] % kRun == 0 && i[kRun - 1] < params.points.total) {  // a thread's own neighbours
            Key key[kRun];
            uint32_t number[kRun];
#pragma unroll
            for (int k = 0; k < kRun; ++k) {
                key[k] = cells[k] == kNoCell ? none : static_cast<Key>(cells[k]);
                number[k] = static_cast<uint32_t>(i[k]);
            }
            if constexpr (sizeof(Key) == 4) {
                *reinterpret_cast<uint4*>(keys + i[0]) = make_uint4(key[0], key[1], key[2], key[3]);
            } else {
                *reinterpret_cast<ulonglong2*>(keys + i[0]) = make_ulonglong2(key[0], key[1]);
                *reinterpret_cast<ulonglong2*>(keys + i[0] + 2) = make_ulonglong2(key[2], key[3]);
            }
            *reinterpret_cast<uint4*>(order + i[0]) = make_uint4(number[0], number[1], number[2], number[3]);
            return;
        }
#pragma unroll
        for (int k = 0; k < kRun; ++k) {
            if (i[k] < params.points.total) {
                keys[i[k]] = cells[k] == kNoCell ? none : static_cast<Key>(cells[k]);
                order[i[k]] = static_cast<uint32_t>(i[k]);
            }
        }
    });
}

int bit_length(uint64_t value) {
    int bits = 0;
    for (; value != 0; value >>= 1) {
        ++bits;
    }
    return bits;
}

template <typename Key>
rc_status sort_as(VoxelRun* run, SortedPoints* sorted) {
    const size_t n = sorted->n;
    cub::DoubleBuffer<Key> keys(run->workspace->take<Key>(n), run->workspace->take<Key>(n));
    cub::DoubleBuffer<uint32_t> order(run->workspace->take<uint32_t>(n), run->workspace->take<uint32_t>(n));
    const int bits = bit_length(sorted->none);
    size_t bytes = 0;
    rc_status status = check_cuda(
        cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys, order, sorted->n, 0, bits, run->stream),
        "sizing the sort");
    if (status != RC_OK) {
        return status;
    }
    char* scratch = run->workspace->take<char>(bytes);
    if (run->dry) {
        return RC_OK;
    }
    if (has_points(run->params)) {
        const int64_t total = run->params.points.total;
        const int32_t device = run->call->device;
        const unsigned threads = launch_threads(RC_TUNE_VOXEL_KEYS_THREADS, device, total);
        const unsigned blocks = striding_blocks((total + kRun - 1) / kRun, threads,
                                                launch_parameter(RC_TUNE_VOXEL_KEYS_FILL, device, total),
                                                run->multiprocessors);
        status = with_source(run->source, run->params, [&](auto source, auto sides) {
            key_kernel<source.value, sides.value, Key><<<blocks, threads, 0, run->stream>>>(
                run->params, keys.Current(), order.Current(), static_cast<Key>(sorted->none));
            return check_cuda(cudaGetLastError(), "launching the key kernel");
        });
        if (status == RC_OK && n > 0) {
            status = check_cuda(
                cub::DeviceRadixSort::SortPairs(scratch, bytes, keys, order, sorted->n, 0, bits, run->stream),
                "sorting points by cell");
        }
    }
    sorted->keys = keys.Current();
    sorted->order = order.Current();
    return status;
}

}  // namespace

rc_status sort_points(VoxelRun* run, SortedPoints* sorted) {
    const int64_t total = run->params.points.total;
    if (total > static_cast<int64_t>(UINT32_MAX) - RC_SUM_BLOCK) {
        return rc_fail(RC_UNSUPPORTED,
                       "points: at most 2^32 - 129 points a call on CUDA where they are sorted, got %lld",
                       static_cast<long long>(total));
    }
    *sorted = SortedPoints{};
    sorted->n = static_cast<uint32_t>(total);
    sorted->none = static_cast<uint64_t>(run->call->batch) * static_cast<uint64_t>(run->params.grid.cells);
    sorted->wide = sorted->none > UINT32_MAX;
    return sorted->wide ? sort_as<uint64_t>(run, sorted) : sort_as<uint32_t>(run, sorted);
}

}  // namespace rc
