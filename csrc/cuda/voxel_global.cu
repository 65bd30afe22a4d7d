// Occupancy and count of any grid: every cell has a bit or a counter in global memory, points set it with an atomic, and
// the output is written from there. A count that is wanted as int32 is counted in the output itself.
#include "voxel_dense.h"
#include "voxel_each.cuh"
#include "voxel_write.cuh"

namespace rc {

namespace {

constexpr uint32_t kCellsPerBlock = 16384;  // of an output that is written from bits or counters

// One atomic for the warp where all its points fall in one cell, as they do when everything stands still.
template <typename Atomic>
__device__ __forceinline__ void once_a_warp(const int64_t cells[kRun], Atomic&& atomic) {
    const bool alike = cells[0] == cells[1] && cells[0] == cells[2] && cells[0] == cells[3];
    const int64_t leaders = __shfl_sync(kWholeWarp, cells[0], 0);  // of every lane, before any condition
    if (__all_sync(kWholeWarp, alike && cells[0] == leaders) != 0) {
        if ((threadIdx.x & 31) == 0 && cells[0] != kNoCell) {
            atomic(cells[0], 32u * kRun);
        }
        return;
    }
#pragma unroll
    for (int k = 0; k < kRun; ++k) {
        if (cells[k] != kNoCell) {
            atomic(cells[k], 1u);
        }
    }
}

template <PointSource kSource, bool kSides>
__global__ __launch_bounds__(kEachThreads) void count_kernel(const __grid_constant__ VoxelParams params,
                                                             uint32_t* __restrict__ counts) {
    each_run<kSource, kSides>(params, [&](const int64_t*, const int64_t* cells) {
        once_a_warp(cells, [&](int64_t cell, uint32_t n) { atomicAdd(counts + cell, n); });
    });
}

// `look`: read a word before the atomic, which pays where most bits are set already.
template <PointSource kSource, bool kSides>
__global__ __launch_bounds__(kEachThreads) void mark_kernel(const __grid_constant__ VoxelParams params, uint32_t* bits,
                                                            bool look) {
    each_run<kSource, kSides>(params, [&](const int64_t*, const int64_t* cells) {
        once_a_warp(cells, [&](int64_t cell, uint32_t) {
            uint32_t* word = bits + (cell >> 5);
            const uint32_t bit = 1u << (cell & 31);
            // A word may be an old one from the cache: then the atomic runs once more than needed.
            if (!look || (__ldca(word) & bit) == 0) {
                atomicOr(word, bit);
            }
        });
    });
}

// Looks at the points and writes nothing but what the call wants beside its outputs.
template <PointSource kSource, bool kSides>
__global__ __launch_bounds__(kEachThreads) void locate_kernel(const __grid_constant__ VoxelParams params) {
    each_run<kSource, kSides>(params, [](const int64_t*, const int64_t*) {});
}

struct FromCounts {
    const uint32_t* counts;
    __device__ __forceinline__ uint32_t operator()(int64_t cell) const { return __ldg(counts + cell); }
};

struct FromBits {
    const uint32_t* bits;
    __device__ __forceinline__ uint32_t operator()(int64_t cell) const {
        return (__ldg(bits + (cell >> 5)) >> (cell & 31)) & 1u;
    }
};

template <typename From>
__global__ __launch_bounds__(kEachThreads) void write_kernel(From from, CellOutput out, int64_t cells, bool as_count) {
    const int64_t first = static_cast<int64_t>(blockIdx.x) * kCellsPerBlock;
    const uint32_t n = static_cast<uint32_t>(cells - first < kCellsPerBlock ? cells - first : kCellsPerBlock);
    const auto count = each_count([&](uint32_t k) { return from(first + k); });
    if (as_count) {
        write_counts_as(out, first, n, count);
    } else {
        write_occupancy_as(out, first, n, count);
    }
}

// Packed bits: each row along z begins a byte.
template <typename From>
__global__ __launch_bounds__(kEachThreads) void write_bits_kernel(From from, CellOutput out, int64_t bytes,
                                                                  uint32_t row_bytes, uint32_t depth) {
    uint8_t* data = static_cast<uint8_t*>(out.data);
    for (int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; at < bytes;
         at += static_cast<int64_t>(gridDim.x) * blockDim.x) {
        const int64_t row = at / row_bytes;
        const uint32_t z = static_cast<uint32_t>(at - row * row_bytes) * 8;
        uint32_t byte = out.accumulate ? data[at] : 0;
        for (uint32_t j = 0; j < 8 && z + j < depth; ++j) {
            byte |= (from(row * depth + z + j) != 0 ? 1u : 0u) << j;
        }
        data[at] = static_cast<uint8_t>(byte);
    }
}

rc_status launched(const char* what) {
    return check_cuda(cudaGetLastError(), what);
}

template <typename From>
rc_status write_output(const VoxelRun& run, const rc_voxel_output& output, From from) {
    const CellOutput out{output.data, output.dtype, run.call->accumulate};
    const int64_t cells = run.call->batch * run.params.grid.cells;
    if (output.dtype == RC_BITS) {
        const uint32_t depth = static_cast<uint32_t>(run.params.grid.size[2]);
        const uint32_t row_bytes = (depth + 7) / 8;
        const int64_t bytes = cells / depth * row_bytes;
        write_bits_kernel<<<each_blocks(bytes, run.multiprocessors), kEachThreads, 0, run.stream>>>(from, out, bytes,
                                                                                                    row_bytes, depth);
    } else {
        const int64_t blocks = (cells + kCellsPerBlock - 1) / kCellsPerBlock;
        if (blocks > INT32_MAX) {
            return rc_fail(RC_UNSUPPORTED, "grid_size: at most 2^31 blocks of %u cells a call on CUDA", kCellsPerBlock);
        }
        write_kernel<<<static_cast<unsigned>(blocks), kEachThreads, 0, run.stream>>>(from, out, cells,
                                                                                     output.reduce == RC_REDUCE_COUNT);
    }
    return launched("launching the write kernel");
}

rc_status run_counts(VoxelRun* run, const rc_voxel_output& count, const rc_voxel_output* occupancy) {
    const size_t cells = static_cast<size_t>(run->call->batch * run->params.grid.cells);
    const bool in_place = count.dtype == RC_INT32 && !run->call->accumulate;
    uint32_t* counts = in_place ? static_cast<uint32_t*>(count.data) : run->workspace->take<uint32_t>(cells);
    if (run->dry) {
        return RC_OK;
    }
    rc_status status = check_cuda(cudaMemsetAsync(counts, 0, cells * sizeof *counts, run->stream), "clearing counters");
    if (status == RC_OK && has_points(run->params)) {
        status = with_source(run->source, run->params, [&](auto source, auto sides) {
            count_kernel<source.value, sides.value>
                <<<each_blocks(run->params.points.total, run->multiprocessors), kEachThreads, 0, run->stream>>>(
                    run->params, counts);
            return launched("launching the count kernel");
        });
    }
    if (status == RC_OK && !in_place) {
        status = write_output(*run, count, FromCounts{counts});
    }
    if (status == RC_OK && occupancy != nullptr) {
        status = write_output(*run, *occupancy, FromCounts{counts});
    }
    return status;
}

rc_status run_bits(VoxelRun* run, const rc_voxel_output& occupancy) {
    const int64_t cells = run->call->batch * run->params.grid.cells;
    const size_t words = static_cast<size_t>((cells + 31) / 32);
    uint32_t* bits = run->workspace->take<uint32_t>(words);
    if (run->dry) {
        return RC_OK;
    }
    rc_status status = check_cuda(cudaMemsetAsync(bits, 0, words * sizeof *bits, run->stream), "clearing bits");
    if (status == RC_OK && has_points(run->params)) {
        const bool look = run->params.points.total > cells / 2;
        status = with_source(run->source, run->params, [&](auto source, auto sides) {
            mark_kernel<source.value, sides.value>
                <<<each_blocks(run->params.points.total, run->multiprocessors), kEachThreads, 0, run->stream>>>(
                    run->params, bits, look);
            return launched("launching the mark kernel");
        });
    }
    return status == RC_OK ? write_output(*run, occupancy, FromBits{bits}) : status;
}

}  // namespace

rc_status voxelize_global(VoxelRun* run) {
    const rc_voxel_output* count = find_output(*run->call, RC_REDUCE_COUNT);
    const rc_voxel_output* occupancy = find_output(*run->call, RC_REDUCE_OCCUPANCY);
    if (count == nullptr && occupancy == nullptr) {  // inverse or dropped alone
        if (run->dry || !has_points(run->params)) {
            return RC_OK;
        }
        return with_source(run->source, run->params, [&](auto source, auto sides) {
            locate_kernel<source.value, sides.value>
                <<<each_blocks(run->params.points.total, run->multiprocessors), kEachThreads, 0, run->stream>>>(
                    run->params);
            return launched("launching the locate kernel");
        });
    }
    return count != nullptr ? run_counts(run, *count, occupancy) : run_bits(run, *occupancy);
}

}  // namespace rc
