// Occupancy of many samples: each has its bits in shared memory, and the grid is written from there at once.
//
// Where there are fewer samples than multiprocessors, several blocks have a sample. As a cluster each takes a share of
// its points, with bits for the whole grid, and writes a part of the grid after looking into the bits of the others.
// Where they cannot (devices before compute capability 9, large grids), each takes all points and a part of the bits.
#include <cooperative_groups.h>

#include <numeric>

#include "launch.cuh"
#include "voxel_dense.h"
#include "voxel_each.cuh"
#include "voxel_write.cuh"

namespace rc {

namespace {

constexpr int kThreads = 1024;
constexpr int64_t kMaxParts = 2;     // of a sample, whose blocks each take all points
constexpr int64_t kWordCells = 128;  // bits of a 16-byte word
constexpr int64_t kSpare = 16;       // bytes after the bits: packing may read a word past the last

struct SharedBitsParams {
    uint32_t parts;       // blocks of a sample
    bool cluster;         // they share its points; else its cells
    uint32_t part_cells;  // that a block writes: a multiple of 128, and of a row along z where rows end within a byte
    uint32_t held_cells;  // whose bits a block has: a multiple of 128
    uint32_t depth;       // cells of a row along z
    FastDivide by_parts;
    FastDivide by_row_bytes;
    CellOutput occupancy;
};

struct BitCounts {
    static constexpr bool kFours = true;
    const uint32_t* bits;
    __device__ __forceinline__ uint32_t operator()(uint32_t k) const { return (bits[k >> 5] >> (k & 31)) & 1u; }
    __device__ __forceinline__ void four(uint32_t k, uint32_t counts[4]) const {
        const uint32_t nibble = bits[k >> 5] >> (k & 31);
        counts[0] = nibble & 1u, counts[1] = nibble & 2u, counts[2] = nibble & 4u, counts[3] = nibble & 8u;
    }
};

// Four bits as four bytes.
__device__ __forceinline__ uint32_t spread(uint32_t nibble) {
    return ((nibble & 0xfu) * 0x00204081u) & 0x01010101u;
}

// The block's share of the points of sample b, as calls of mark(cell) with a cell of the sample or -1; of neighbours in
// one cell, once. kAhead: the next points are on their way while these are marked, for want of a second block on the
// multiprocessor.
template <PointSource kSource, bool kSides, bool kAhead, typename Mark>
__device__ __forceinline__ void mark_points(const VoxelParams& params, int64_t b, uint32_t share, uint32_t shares,
                                            bool tells, Mark&& mark) {
    int64_t begin, end;
    sample_range(params.points, b, &begin, &end);
    PointReader<kSource> reader(params);
    reader.enter(b, begin, end);
    if (kSides) {
        check_splits(params);
        check_grids<kSource>(params);
    }
    constexpr uint32_t kTurn = kThreads * kRun;
    uint32_t turns = 0;  // of whole runs
    const auto mark_run = [&](const auto cells[kRun]) {
        bool starts[kRun];
        run_starts(cells, true, starts);
#pragma unroll
        for (int k = 0; k < kRun; ++k) {
            if (starts[k]) {
                mark(static_cast<int32_t>(cells[k]));
            }
        }
    };
    if constexpr (kSource == PointSource::kPlain && !kSides) {
        if (((reinterpret_cast<uintptr_t>(params.points.points) + 12 * begin) & 15) == 0) {
            const float* points = static_cast<const float*>(params.points.points) + 3 * begin;
            turns = static_cast<uint32_t>((end - begin) / kTurn);
            float p[kRun][3], next[kRun][3];
            if (kAhead && share < turns) {
                load_run(points, static_cast<int64_t>(share) * kTurn + threadIdx.x * kRun, next);
            }
            for (uint32_t turn = share; turn < turns; turn += shares) {
                if constexpr (kAhead) {
                    memcpy(p, next, sizeof p);
                    if (turn + shares < turns) {
                        load_run(points, static_cast<int64_t>(turn + shares) * kTurn + threadIdx.x * kRun, next);
                    }
                } else {
                    load_run(points, static_cast<int64_t>(turn) * kTurn + threadIdx.x * kRun, p);
                }
                int32_t cells[kRun];
                plain_cells<kRun>(params.grid, p, cells);
                mark_run(cells);
            }
        }
    } else if constexpr (kSource == PointSource::kDepth) {
        if (tells && reader.has_pixel_runs()) {
            turns = static_cast<uint32_t>((end - begin) / kTurn);
#pragma unroll 1
            for (uint32_t turn = share; turn < turns; turn += shares) {
                int64_t cells[kRun];
                reader.template pixel_cells<true>(begin + static_cast<int64_t>(turn) * kTurn + threadIdx.x * kRun,
                                                  cells);
                mark_run(cells);
            }
        }
    }
    const bool first_lane = (threadIdx.x & 31) == 0;
#pragma unroll 1
    for (int64_t base = begin + static_cast<int64_t>(turns) * kTurn + share * kThreads; base < end;
         base += static_cast<int64_t>(shares) * kThreads) {
        const int64_t i = base + threadIdx.x;
        int32_t cell = -1;
        if (i < end) {
            cell = static_cast<int32_t>(kSides && tells ? reader.template cell<true>(i)
                                                        : reader.template cell<false>(i));
        }
        const int32_t before = __shfl_up_sync(kWholeWarp, cell, 1);
        if (first_lane || cell != before) {
            mark(cell);
        }
    }
    if (kSides && tells) {
        reader.finish();
    }
}

// Packed bits of n cells from cell `first` of the output (counted across the batch), whole rows along z.
__device__ __forceinline__ void write_packed(const SharedBitsParams& shared, int64_t first, uint32_t n,
                                             const uint32_t* bits) {
    const CellOutput& out = shared.occupancy;
    const uint32_t depth = shared.depth;
    if (depth % 8 == 0) {  // as they lie here
        uint8_t* to = static_cast<uint8_t*>(out.data) + first / 8;
        uint32_t copied = 0;
        if (!out.accumulate && (reinterpret_cast<uintptr_t>(to) & 15) == 0) {
            copied = n / kWordCells * 16;
            for (uint32_t w = threadIdx.x; w < copied / 16; w += kThreads) {
                __stcs(reinterpret_cast<uint4*>(to) + w, reinterpret_cast<const uint4*>(bits)[w]);
            }
        }
        for (uint32_t k = copied + threadIdx.x; k < n / 8; k += kThreads) {
            const uint8_t byte = reinterpret_cast<const uint8_t*>(bits)[k];
            to[k] = out.accumulate ? to[k] | byte : byte;
        }
        return;
    }
    const uint32_t row_bytes = shared.by_row_bytes.divisor;
    uint8_t* to = static_cast<uint8_t*>(out.data) + first / depth * row_bytes;
    for (uint32_t k = threadIdx.x; k < n / depth * row_bytes; k += kThreads) {
        const uint32_t row = shared.by_row_bytes.quotient(k);
        const uint32_t z = 8 * (k - row * row_bytes);
        const uint32_t at = row * depth + z;
        const uint32_t word = __funnelshift_r(bits[at >> 5], bits[(at >> 5) + 1], at & 31);
        const uint8_t byte = static_cast<uint8_t>(word & (depth - z < 8 ? (1u << (depth - z)) - 1 : 0xffu));
        to[k] = out.accumulate ? to[k] | byte : byte;
    }
}

// n cells from cell `first` of the output (counted across the batch); theirs are the bits from `bits` on.
__device__ __forceinline__ void write_part(const SharedBitsParams& shared, int64_t first, uint32_t n,
                                           const uint32_t* bits) {
    const CellOutput& out = shared.occupancy;
    const bool byte = out.dtype == RC_BOOL || out.dtype == RC_UINT8 || out.dtype == RC_INT8;
    if (out.dtype == RC_BITS) {
        write_packed(shared, first, n, bits);
    } else if (byte && !out.accumulate && ((reinterpret_cast<uintptr_t>(out.data) + first) & 15) == 0) {
        uint4* to = reinterpret_cast<uint4*>(static_cast<uint8_t*>(out.data) + first);
        for (uint32_t w = threadIdx.x; w < n / 16; w += kThreads) {
            const uint32_t half_word = bits[w >> 1] >> ((w & 1) * 16);
            __stcs(to + w, make_uint4(spread(half_word), spread(half_word >> 4), spread(half_word >> 8),
                                      spread(half_word >> 12)));
        }
        for (uint32_t k = n / 16 * 16 + threadIdx.x; k < n; k += kThreads) {
            static_cast<uint8_t*>(out.data)[first + k] = static_cast<uint8_t>(BitCounts{bits}(k));
        }
    } else {
        write_occupancy_as(out, first, n, BitCounts{bits});
    }
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
// Gives the words begin .. end of this block the bits that the other blocks of its cluster have there, of which each
// does the same to words of its own. No block may end before barrier_wait() of the cluster.
__device__ __forceinline__ void join_cluster(uint4* words, uint32_t begin, uint32_t end) {
    const auto cluster = cooperative_groups::this_cluster();
    const unsigned blocks = cluster.num_blocks(), rank = cluster.block_rank();
    cluster.sync();
    for (uint32_t w = begin + threadIdx.x; w < end; w += kThreads) {
        uint4 all = words[w];
        for (unsigned other = 1; other < blocks; ++other) {
            const unsigned from = rank + other < blocks ? rank + other : rank + other - blocks;
            const uint4 word = cluster.map_shared_rank(words, from)[w];
            all.x |= word.x, all.y |= word.y, all.z |= word.z, all.w |= word.w;
        }
        words[w] = all;
    }
    cluster.barrier_arrive();
    __syncthreads();
}
#endif

// Blocks of a multiprocessor: two only where that leaves the registers that finding a cell takes.
constexpr int blocks_at_once(PointSource source, bool ahead) {
    return ahead || source == PointSource::kDepth || source == PointSource::kCloud64 ? 1 : 2;
}

template <PointSource kSource, bool kSides, bool kAhead>
__global__ __launch_bounds__(kThreads, blocks_at_once(kSource, kAhead)) void shared_bits_kernel(
    const __grid_constant__ VoxelParams params, const __grid_constant__ SharedBitsParams shared) {
    extern __shared__ uint4 words[];
    uint32_t* bits = reinterpret_cast<uint32_t*>(words);
    const uint32_t b = shared.by_parts.quotient(blockIdx.x);
    const uint32_t part = blockIdx.x - b * shared.parts;
    const uint32_t first = part * shared.part_cells;   // that the block writes
    const uint32_t held = shared.cluster ? 0 : first;  // the first whose bit it has
    for (uint32_t w = threadIdx.x; w < shared.held_cells / kWordCells; w += kThreads) {
        words[w] = make_uint4(0, 0, 0, 0);
    }
    __syncthreads();

    const auto mark = [&](int32_t cell) {  // -1 lies beyond every part
        const uint32_t k = static_cast<uint32_t>(cell) - held;
        if (k < shared.held_cells) {
            atomicOr(bits + (k >> 5), 1u << (k & 31));
        }
    };
    if (shared.cluster) {
        mark_points<kSource, kSides, kAhead>(params, b, part, shared.parts, true, mark);
    } else {  // one part tells of what lies beside a point's cell
        mark_points<kSource, kSides, kAhead>(params, b, 0, 1, part == 0, mark);
    }

    const int64_t cells = params.grid.cells;
    const int64_t left = cells - first;
    const uint32_t n = static_cast<uint32_t>(left < shared.part_cells ? (left > 0 ? left : 0) : shared.part_cells);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    if (shared.cluster) {
        const uint32_t begin = first / kWordCells;
        join_cluster(words, begin, begin + (n + kWordCells - 1) / kWordCells);
        write_part(shared, b * cells + first, n, bits + first / 32);
        cooperative_groups::this_cluster().barrier_wait();
        return;
    }
#endif
    __syncthreads();
    write_part(shared, b * cells + first, n, bits);
}

// How a call is cut; of 0 parts: not to be done this way.
SharedBitsParams plan_of(const rc_voxel_call& call, int multiprocessors) {
    SharedBitsParams plan{};
    const int64_t cells = cells_of(call.grid), depth = call.grid.size[2];
    const int64_t room = (shared_memory(call.device) - kSpare) / kSpare * kSpare;
    const int64_t usual = int64_t{1024} * launch_parameter(RC_TUNE_VOXEL_BITS_KIB, call.device, total_points(call));
    const int64_t max_bytes = room < usual ? room : usual;
    const rc_voxel_output* occupancy = find_output(call, RC_REDUCE_OCCUPANCY);
    if (call.num_outputs != 1 || occupancy == nullptr || call.batch < 1 || cells < 1 ||
        cells > kMaxParts * max_bytes * 8) {
        return plan;
    }
    const int64_t bytes = (cells + 7) / 8;
    const int64_t wanted = (multiprocessors * 7 / 8 + call.batch - 1) / call.batch;
    int64_t parts = (bytes + max_bytes - 1) / max_bytes;
    // At most 8: what every device with clusters takes.
    const int64_t max_cluster = launch_parameter(RC_TUNE_VOXEL_BITS_CLUSTER, call.device, total_points(call));
    plan.cluster = parts == 1 && wanted > 1 && wanted <= max_cluster && launches_early(call.device);
    if (plan.cluster) {
        while (parts < wanted) {
            parts *= 2;
        }
    } else {
        parts = wanted > parts ? wanted : parts;
    }
    // Where rows end within a byte, a part has whole rows, so that no byte is of two parts.
    const bool rows = occupancy->dtype == RC_BITS && depth % 8 != 0 && parts > 1;
    const int64_t unit = rows ? std::lcm(kWordCells, depth) : kWordCells;
    const int64_t part_cells = ((cells + parts - 1) / parts + unit - 1) / unit * unit;
    const int64_t held_cells = plan.cluster ? (cells + kWordCells - 1) / kWordCells * kWordCells : part_cells;
    if ((!plan.cluster && parts > kMaxParts) || held_cells > max_bytes * 8 || part_cells * parts > INT32_MAX) {
        return SharedBitsParams{};
    }
    plan.parts = static_cast<uint32_t>(parts);
    plan.part_cells = static_cast<uint32_t>(part_cells);
    plan.held_cells = static_cast<uint32_t>(held_cells);
    plan.depth = static_cast<uint32_t>(depth);
    plan.by_parts = FastDivide::by(plan.parts);
    plan.by_row_bytes = FastDivide::by((plan.depth + 7) / 8);
    plan.occupancy = {occupancy->data, occupancy->dtype, call.accumulate};
    return plan;
}

}  // namespace

bool shared_bits_takes(const rc_voxel_call& call, int multiprocessors) {
    return plan_of(call, multiprocessors).parts > 0;
}

rc_status voxelize_shared_bits(VoxelRun* run) {
    if (run->dry) {
        return RC_OK;
    }
    const SharedBitsParams shared = plan_of(*run->call, run->multiprocessors);
    LaunchShape shape{};
    shape.blocks = static_cast<unsigned>(run->call->batch) * shared.parts;
    shape.threads = kThreads;
    shape.shared = shared.held_cells / 8 + kSpare;
    shape.stream = run->stream;
    shape.cluster = shared.cluster ? shared.parts : 1;
    const int32_t percent = launch_parameter(RC_TUNE_VOXEL_BITS_AHEAD_PERCENT, run->call->device,
                                             run->params.points.total);
    const bool ahead = int64_t{100} * shape.blocks <= int64_t{percent} * run->multiprocessors;
    return with_source(run->source, run->params, [&](auto source, auto sides) {
        const auto kernel = ahead ? shared_bits_kernel<source.value, sides.value, true>
                                  : shared_bits_kernel<source.value, sides.value, false>;
        return launch(shape, "launching the shared bits kernel", kernel, run->params, shared);
    });
}

}  // namespace rc
