// Occupancy and count of any grid: every cell has a bit or a counter in global memory, points set it with an atomic, and
// the output is written from there. A count that is wanted as int32 is counted in the output itself.
//
// Three kernels, each begun while the one before still runs: points are read and their cells found while bits or counters
// are cleared.
#include "launch.cuh"
#include "voxel_dense.h"
#include "voxel_each.cuh"
#include "voxel_write.cuh"

namespace rc {

namespace {

constexpr uint32_t kCellsPerBlock = 4096;  // of an output: a 16-byte word a thread of the narrowest
constexpr uint32_t kRowsPerBlock = 64;     // of packed bits; a row has fewer than 2^22 bytes

__device__ __forceinline__ bool is_aligned(const uint32_t* data) {
    return (reinterpret_cast<uintptr_t>(data) & 15) == 0;
}

__global__ __launch_bounds__(kEachThreads) void clear_kernel(uint32_t* data, size_t words) {
    let_next_begin();
    const size_t thread = static_cast<size_t>(blockIdx.x) * kEachThreads + threadIdx.x;
    const size_t threads = static_cast<size_t>(gridDim.x) * kEachThreads;
    const size_t wide = is_aligned(data) ? words / 4 : 0;
    for (size_t w = thread; w < wide; w += threads) {
        reinterpret_cast<uint4*>(data)[w] = make_uint4(0, 0, 0, 0);
    }
    for (size_t w = 4 * wide + thread; w < words; w += threads) {
        data[w] = 0;
    }
}

template <PointSource kSource, bool kSides>
__global__ __launch_bounds__(kEachThreads, passes_at_once(kSource, kSides)) void count_kernel(
    const __grid_constant__ VoxelParams params, uint32_t* __restrict__ counts) {
    let_next_begin();
    each_run<kSource, kSides>(params, [&](const int64_t* i, const int64_t* cells) {
        uint32_t lengths[kRun];
        run_lengths(cells, i[1] == i[0] + 1, lengths);
        wait_for_previous();
#pragma unroll
        for (int k = 0; k < kRun; ++k) {
            if (lengths[k] != 0 && cells[k] != kNoCell) {
                atomicAdd(counts + cells[k], lengths[k]);
            }
        }
    });
    wait_for_previous();  // also without a point: what comes next counts on it
}

// `look`: read a word before the atomic, which pays where most bits are set already.
template <PointSource kSource, bool kSides>
__global__ __launch_bounds__(kEachThreads, passes_at_once(kSource, kSides)) void mark_kernel(
    const __grid_constant__ VoxelParams params, uint32_t* bits, bool look) {
    let_next_begin();
    each_run<kSource, kSides>(params, [&](const int64_t* i, const int64_t* cells) {
        bool sets[kRun];
        run_starts(cells, i[1] == i[0] + 1, sets);
        wait_for_previous();
#pragma unroll
        for (int k = 0; k < kRun; ++k) {
            sets[k] = sets[k] && cells[k] != kNoCell;
        }
        if (look) {
            // A word may be an old one from the cache: then the atomic runs once more than needed.
            uint32_t words[kRun];
#pragma unroll
            for (int k = 0; k < kRun; ++k) {
                words[k] = sets[k] ? __ldca(bits + (cells[k] >> 5)) : 0;
            }
#pragma unroll
            for (int k = 0; k < kRun; ++k) {
                sets[k] = sets[k] && ((words[k] >> (cells[k] & 31)) & 1u) == 0;
            }
        }
#pragma unroll
        for (int k = 0; k < kRun; ++k) {
            if (sets[k]) {
                atomicOr(bits + (cells[k] >> 5), 1u << (cells[k] & 31));
            }
        }
    });
    wait_for_previous();
}

// Looks at the points and writes nothing but what the call wants beside its outputs.
template <PointSource kSource, bool kSides>
__global__ __launch_bounds__(kEachThreads,
                             passes_at_once(kSource,
                                            kSides)) void locate_kernel(const __grid_constant__ VoxelParams params) {
    each_run<kSource, kSides>(params, [](const int64_t*, const int64_t*) {});
}

// Cells by their counts or bits. They were written by the kernel before, which may have left old words in the nearest
// cache: hence reads that pass it by.
struct FromCounts {
    const uint32_t* counts;
    __device__ __forceinline__ uint32_t operator()(int64_t cell) const { return __ldcg(counts + cell); }
    // Of cells cell .. cell + 3, a multiple of 4.
    __device__ __forceinline__ void four(int64_t cell, uint32_t found[4]) const {
        if (is_aligned(counts)) {
            const uint4 word = __ldcg(reinterpret_cast<const uint4*>(counts + cell));
            found[0] = word.x, found[1] = word.y, found[2] = word.z, found[3] = word.w;
            return;
        }
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            found[k] = (*this)(cell + k);
        }
    }
    // Of `n` cells from `cell` on, at most 8, one bit each.
    __device__ __forceinline__ uint32_t byte(int64_t cell, uint32_t n) const {
        uint32_t byte = 0;
        for (uint32_t j = 0; j < n; ++j) {
            byte |= ((*this)(cell + j) != 0 ? 1u : 0u) << j;
        }
        return byte;
    }
};

struct FromBits {
    const uint32_t* bits;
    __device__ __forceinline__ uint32_t operator()(int64_t cell) const {
        return (__ldcg(bits + (cell >> 5)) >> (cell & 31)) & 1u;
    }
    __device__ __forceinline__ void four(int64_t cell, uint32_t found[4]) const {
        const uint32_t nibble = __ldcg(bits + (cell >> 5)) >> (cell & 31);
        found[0] = nibble & 1u, found[1] = nibble & 2u, found[2] = nibble & 4u, found[3] = nibble & 8u;
    }
    __device__ __forceinline__ uint32_t byte(int64_t cell, uint32_t n) const {
        const uint32_t* at = bits + (cell >> 5);
        const uint32_t shift = static_cast<uint32_t>(cell & 31);
        const uint32_t word = __funnelshift_r(__ldcg(at), shift + n > 32 ? __ldcg(at + 1) : 0, shift);
        return word & ((1u << n) - 1);
    }
};

// The cells from `first` on.
template <typename From>
struct CellsFrom {
    static constexpr bool kFours = true;
    From from;
    int64_t first;
    __device__ __forceinline__ uint32_t operator()(uint32_t k) const { return from(first + k); }
    __device__ __forceinline__ void four(uint32_t k, uint32_t found[4]) const { from.four(first + k, found); }
};

template <typename From>
__global__ __launch_bounds__(kEachThreads) void write_kernel(From from, CellOutput out, int64_t cells, bool as_count) {
    wait_for_previous();
    const int64_t first = static_cast<int64_t>(blockIdx.x) * kCellsPerBlock;
    const uint32_t n = static_cast<uint32_t>(cells - first < kCellsPerBlock ? cells - first : kCellsPerBlock);
    const CellsFrom<From> count{from, first};
    if (as_count) {
        write_counts_as(out, first, n, count);
    } else {
        write_occupancy_as(out, first, n, count);
    }
}

// Packed bits: each row along z begins a byte.
template <typename From>
__global__ __launch_bounds__(kEachThreads) void write_bits_kernel(From from, CellOutput out, int64_t rows,
                                                                  FastDivide by_row_bytes, uint32_t depth) {
    wait_for_previous();
    const uint32_t row_bytes = by_row_bytes.divisor;
    const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kRowsPerBlock;
    const uint32_t n = static_cast<uint32_t>(rows - first_row < kRowsPerBlock ? rows - first_row : kRowsPerBlock);
    uint8_t* to = static_cast<uint8_t*>(out.data) + first_row * row_bytes;
    for (uint32_t k = threadIdx.x; k < n * row_bytes; k += blockDim.x) {
        const uint32_t row = by_row_bytes.quotient(k);
        const uint32_t z = 8 * (k - row * row_bytes);
        const uint32_t byte = from.byte((first_row + row) * depth + z, depth - z < 8 ? depth - z : 8);
        to[k] = static_cast<uint8_t>(out.accumulate ? to[k] | byte : byte);
    }
}

// A pass over all points, after another kernel of ours.
template <PointSource kSource, bool kSides>
LaunchShape pass_shape(const VoxelRun& run) {
    const int64_t total = run.params.points.total;
    const int threads = launch_parameter(RC_TUNE_VOXEL_EACH_THREADS, run.call->device, total);
    const int resident = passes_at_once(kSource, kSides) * kEachThreads / threads;
    const int waves = launch_parameter(RC_TUNE_VOXEL_EACH_WAVES, run.call->device, total);
    LaunchShape shape{};
    shape.blocks = each_blocks(total, run.multiprocessors, resident * waves, threads);
    shape.threads = static_cast<unsigned>(threads);
    shape.stream = run.stream;
    shape.early = launches_early(run.call->device);
    return shape;
}

// Begins only when all before it is done, so that what follows it may count on that too.
rc_status clear(const VoxelRun& run, uint32_t* data, size_t words) {
    const int fill = launch_parameter(RC_TUNE_VOXEL_GLOBAL_CLEAR_FILL, run.call->device, run.params.points.total);
    LaunchShape shape{};
    shape.blocks = each_blocks(static_cast<int64_t>(words), run.multiprocessors, fill / kEachThreads, kEachThreads);
    shape.threads = kEachThreads;
    shape.stream = run.stream;
    return launch(shape, "launching the clear kernel", clear_kernel, data, words);
}

template <typename From>
rc_status write_output(const VoxelRun& run, const rc_voxel_output& output, From from) {
    const CellOutput out{output.data, output.dtype, run.call->accumulate};
    const int64_t cells = run.call->batch * run.params.grid.cells;
    const bool packed = output.dtype == RC_BITS;
    const uint32_t depth = static_cast<uint32_t>(run.params.grid.size[2]);
    const int64_t rows = cells / depth;
    const int64_t blocks = packed ? (rows + kRowsPerBlock - 1) / kRowsPerBlock
                                  : (cells + kCellsPerBlock - 1) / kCellsPerBlock;
    if (blocks > INT32_MAX) {
        return rc_fail(RC_UNSUPPORTED, "grid_size: at most 2^31 blocks of %u %s a call on CUDA",
                       packed ? kRowsPerBlock : kCellsPerBlock, packed ? "rows" : "cells");
    }
    LaunchShape shape{};
    shape.blocks = static_cast<unsigned>(blocks);
    shape.threads = launch_threads(RC_TUNE_VOXEL_GLOBAL_WRITE_THREADS, run.call->device, run.params.points.total);
    shape.stream = run.stream;
    shape.early = launches_early(run.call->device);
    if (packed) {
        return launch(shape, "launching the write kernel", write_bits_kernel<From>, from, out, rows,
                      FastDivide::by((depth + 7) / 8), depth);
    }
    return launch(shape, "launching the write kernel", write_kernel<From>, from, out, cells,
                  output.reduce == RC_REDUCE_COUNT);
}

rc_status run_counts(VoxelRun* run, const rc_voxel_output& count, const rc_voxel_output* occupancy) {
    const size_t cells = static_cast<size_t>(run->call->batch * run->params.grid.cells);
    const bool in_place = count.dtype == RC_INT32 && !run->call->accumulate;
    uint32_t* counts = in_place ? static_cast<uint32_t*>(count.data) : run->workspace->take<uint32_t>(cells);
    if (run->dry) {
        return RC_OK;
    }
    rc_status status = clear(*run, counts, cells);
    if (status == RC_OK && has_points(run->params)) {
        status = with_source(run->source, run->params, [&](auto source, auto sides) {
            return launch(pass_shape<source.value, sides.value>(*run), "launching the count kernel",
                          count_kernel<source.value, sides.value>, run->params, counts);
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
    rc_status status = clear(*run, bits, words);
    if (status == RC_OK && has_points(run->params)) {
        const bool look = run->call->depth != nullptr || run->params.points.total > cells / 2;
        status = with_source(run->source, run->params, [&](auto source, auto sides) {
            return launch(pass_shape<source.value, sides.value>(*run), "launching the mark kernel",
                          mark_kernel<source.value, sides.value>, run->params, bits, look);
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
            LaunchShape shape = pass_shape<source.value, sides.value>(*run);
            shape.early = false;  // nothing of ours comes before
            return launch(shape, "launching the locate kernel", locate_kernel<source.value, sides.value>, run->params);
        });
    }
    return count != nullptr ? run_counts(run, *count, occupancy) : run_bits(run, *occupancy);
}

}  // namespace rc
