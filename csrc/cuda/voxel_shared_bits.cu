// Occupancy of many samples: each has its bits, in one slab or two, in shared memory, and the grid is written from there
// at once.
#include "voxel_dense.h"
#include "voxel_each.cuh"
#include "voxel_write.cuh"

namespace rc {

namespace {

constexpr int kThreads = 1024;
constexpr int64_t kMaxSlabs = 2;               // of a sample
constexpr int64_t kMaxSlabBytes = 160 * 1024;  // of shared memory

struct SharedBitsParams {
    uint32_t slabs;       // of a sample
    uint32_t slab_cells;  // a multiple of 128
    FastDivide by_slabs;
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

// kAhead: the next points are on their way while these are marked, for want of a second block on the multiprocessor.
template <PointSource kSource, bool kSides, bool kAhead>
__global__ __launch_bounds__(kThreads,
                             kAhead ? 1 : 2) void shared_bits_kernel(const __grid_constant__ VoxelParams params,
                                                                     const __grid_constant__ SharedBitsParams shared) {
    extern __shared__ uint4 words[];
    uint32_t* bits = reinterpret_cast<uint32_t*>(words);
    const uint32_t b = shared.by_slabs.quotient(blockIdx.x);
    const uint32_t slab = blockIdx.x - b * shared.slabs;
    const int64_t base = static_cast<int64_t>(slab) * shared.slab_cells;
    for (uint32_t w = threadIdx.x; w < shared.slab_cells / 128; w += kThreads) {
        words[w] = make_uint4(0, 0, 0, 0);
    }
    __syncthreads();

    int64_t begin, end;
    sample_range(params.points, b, &begin, &end);
    PointReader<kSource> reader(params);
    reader.enter(b, begin, end);
    if (kSides) {
        check_splits(params);
    }
    const bool leads = slab == 0;  // one slab tells of what lies beside a point's cell
    const uint32_t base32 = static_cast<uint32_t>(base);
    const auto mark = [&](int32_t cell) {  // -1 lies beyond every slab
        const uint32_t k = static_cast<uint32_t>(cell) - base32;
        if (k < shared.slab_cells) {
            atomicOr(bits + (k >> 5), 1u << (k & 31));
        }
    };
    int64_t i = begin;
    if constexpr (kSource == PointSource::kPlain && !kSides) {
        if (((reinterpret_cast<uintptr_t>(params.points.points) + 12 * begin) & 15) == 0) {
            const float* points = static_cast<const float*>(params.points.points) + 3 * begin;
            constexpr uint32_t kTurn = kThreads * kRun;
            const uint32_t turns = static_cast<uint32_t>((end - begin) / kTurn);
            float p[kRun][3], next[kRun][3];
            if (kAhead && turns > 0) {
                load_run(points, threadIdx.x * kRun, next);
            }
            for (uint32_t turn = 0; turn < turns; ++turn) {
                if constexpr (kAhead) {
                    memcpy(p, next, sizeof p);
                    if (turn + 1 < turns) {
                        load_run(points, static_cast<int64_t>(turn + 1) * kTurn + threadIdx.x * kRun, next);
                    }
                } else {
                    load_run(points, static_cast<int64_t>(turn) * kTurn + threadIdx.x * kRun, p);
                }
#pragma unroll
                for (int k = 0; k < kRun; ++k) {
                    mark(plain_cell(params.grid, p[k]));
                }
            }
            i += static_cast<int64_t>(turns) * kTurn;
        }
    }
#pragma unroll 1
    for (i += threadIdx.x; i < end; i += kThreads) {
        mark(static_cast<int32_t>(kSides && leads ? reader.template cell<true>(i) : reader.template cell<false>(i)));
    }
    if (kSides && leads) {
        reader.finish();
    }
    __syncthreads();

    const int64_t cells = params.grid.cells;
    const uint32_t n = static_cast<uint32_t>(cells - base < shared.slab_cells ? cells - base : shared.slab_cells);
    const int64_t first = b * cells + base;
    const CellOutput& out = shared.occupancy;
    const bool byte = out.dtype == RC_BOOL || out.dtype == RC_UINT8 || out.dtype == RC_INT8;
    if (out.dtype == RC_BITS) {
        write_bits(out, first, n, BitCounts{bits});
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

// Slabs of a sample: what shared memory asks for, and more where samples alone do not fill the device. 0: too many.
int64_t slabs_of(const rc_voxel_call& call, int multiprocessors) {
    const int64_t bytes = (cells_of(call.grid) + 7) / 8;
    const int64_t least = (bytes + kMaxSlabBytes - 1) / kMaxSlabBytes;
    const int64_t wanted = (multiprocessors * 7 / 8 + call.batch - 1) / call.batch;
    const int64_t slabs = wanted > least ? wanted : least;
    return slabs <= kMaxSlabs ? slabs : 0;
}

}  // namespace

bool shared_bits_takes(const rc_voxel_call& call, int multiprocessors) {
    const rc_voxel_output* occupancy = find_output(call, RC_REDUCE_OCCUPANCY);
    if (call.num_outputs != 1 || occupancy == nullptr || call.batch < 1) {
        return false;
    }
    if (occupancy->dtype == RC_BITS && call.grid.size[2] % 8 != 0) {
        return false;  // a byte may lie across two slabs
    }
    return cells_of(call.grid) <= kMaxSlabs * kMaxSlabBytes * 8 && slabs_of(call, multiprocessors) > 0;
}

rc_status voxelize_shared_bits(VoxelRun* run) {
    if (run->dry) {
        return RC_OK;
    }
    const rc_voxel_call& call = *run->call;
    const rc_voxel_output* occupancy = find_output(call, RC_REDUCE_OCCUPANCY);
    const int64_t cells = run->params.grid.cells;
    SharedBitsParams shared{};
    shared.slabs = static_cast<uint32_t>(slabs_of(call, run->multiprocessors));
    shared.slab_cells = static_cast<uint32_t>((cells + shared.slabs - 1) / shared.slabs + 127) / 128 * 128;
    shared.by_slabs = FastDivide::by(shared.slabs);
    shared.occupancy = {occupancy->data, occupancy->dtype, call.accumulate};
    const size_t bytes = shared.slab_cells / 8;
    const unsigned blocks = static_cast<unsigned>(call.batch) * shared.slabs;
    const bool ahead = blocks <= static_cast<unsigned>(run->multiprocessors);
    return with_source(run->source, run->params, [&](auto source, auto sides) {
        const auto kernel = ahead ? shared_bits_kernel<source.value, sides.value, true>
                                  : shared_bits_kernel<source.value, sides.value, false>;
        const rc_status status = check_cuda(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
            "asking for shared memory");
        if (status != RC_OK) {
            return status;
        }
        kernel<<<blocks, kThreads, bytes, run->stream>>>(run->params, shared);
        return check_cuda(cudaGetLastError(), "launching the shared bits kernel");
    });
}

}  // namespace rc
