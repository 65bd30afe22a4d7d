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

// Where a slab's bits are: an address in the window of shared memory, of this block's or of its neighbour's.
__device__ __forceinline__ uint32_t shared_address(const void* words) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(words));
}

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ uint32_t neighbour_address(uint32_t address, uint32_t rank) {
    uint32_t mapped;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(mapped) : "r"(address), "r"(rank));
    return mapped;
}
__device__ __forceinline__ void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
#endif

// kPair: the two slabs of a sample belong to a cluster of two blocks. Each block then takes half of the points and sets
// their bits in its own memory or in the other's. Without it each slab looks at all points.
template <bool kPair>
struct Bits {
    uint32_t slab_cells;
    uint32_t first;       // kPair: 0, else the slab's first cell
    uint32_t address[2];  // of the slabs' bits; without kPair, of this block's

    __device__ __forceinline__ void set(int32_t cell) const {  // -1 lies beyond every slab
        uint32_t k = static_cast<uint32_t>(cell) - first;
#if __CUDA_ARCH__ >= 900
        if constexpr (kPair) {
            const bool second = k >= slab_cells;
            k -= second ? slab_cells : 0;
            if (k < slab_cells) {
                const uint32_t word = (second ? address[1] : address[0]) + (k >> 5) * 4;
                asm volatile("red.relaxed.cluster.shared::cluster.or.b32 [%0], %1;" ::"r"(word), "r"(1u << (k & 31))
                             : "memory");
            }
            return;
        }
#endif
        if (k < slab_cells) {
            asm volatile("red.shared.or.b32 [%0], %1;" ::"r"(address[0] + (k >> 5) * 4), "r"(1u << (k & 31))
                         : "memory");
        }
    }
};

template <PointSource kSource, bool kSides, bool kPair>
__global__ __launch_bounds__(kThreads, 2) void shared_bits_kernel(const __grid_constant__ VoxelParams params,
                                                                  const __grid_constant__ SharedBitsParams shared) {
    extern __shared__ uint4 words[];
    const uint32_t* bits = reinterpret_cast<const uint32_t*>(words);
    const uint32_t b = shared.by_slabs.quotient(blockIdx.x);
    const uint32_t slab = blockIdx.x - b * shared.slabs;
    const int64_t base = static_cast<int64_t>(slab) * shared.slab_cells;
    for (uint32_t w = threadIdx.x; w < shared.slab_cells / 128; w += kThreads) {
        words[w] = make_uint4(0, 0, 0, 0);
    }
    int64_t begin, end;
    sample_range(params.points, b, &begin, &end);
    PointReader<kSource> reader(params);
    reader.enter(b, begin, end);
    const uint32_t own = shared_address(words);
    Bits<kPair> marks{shared.slab_cells, static_cast<uint32_t>(base), {own, own}};
    bool leads = slab == 0;  // one block tells of what lies beside a point's cell
#if __CUDA_ARCH__ >= 900
    if constexpr (kPair) {
        marks.first = 0;
        marks.address[0] = neighbour_address(own, 0);
        marks.address[1] = neighbour_address(own, 1);
        const int64_t half = ((end - begin + 1) / 2 + kRun - 1) / kRun * kRun;
        begin += slab == 0 ? 0 : (half < end - begin ? half : end - begin);
        end = slab == 0 && begin + half < end ? begin + half : end;
        leads = true;  // of its half
        cluster_barrier();
    }
#endif
    if constexpr (!kPair) {
        __syncthreads();
    }

    int64_t i = begin;
    if constexpr (kSource == PointSource::kPlain && !kSides) {
        if (((reinterpret_cast<uintptr_t>(params.points.points) + 12 * begin) & 15) == 0) {
            const float* points = static_cast<const float*>(params.points.points) + 3 * begin;
            constexpr uint32_t kTurn = kThreads * kRun;
            const uint32_t turns = static_cast<uint32_t>((end - begin) / kTurn);
            for (uint32_t turn = 0; turn < turns; ++turn) {
                float p[kRun][3];
                load_run(points, static_cast<int64_t>(turn) * kTurn + threadIdx.x * kRun, p);
#pragma unroll
                for (int k = 0; k < kRun; ++k) {
                    marks.set(plain_cell(params.grid, p[k]));
                }
            }
            i += static_cast<int64_t>(turns) * kTurn;
        }
    }
#pragma unroll 1
    for (i += threadIdx.x; i < end; i += kThreads) {
        marks.set(
            static_cast<int32_t>(kSides && leads ? reader.template cell<true>(i) : reader.template cell<false>(i)));
    }
    if (kSides && leads) {
        reader.finish();
    }
#if __CUDA_ARCH__ >= 900
    if constexpr (kPair) {
        cluster_barrier();
    }
#endif
    if constexpr (!kPair) {
        __syncthreads();
    }

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
    // A pair of blocks shares its points where the device has clusters.
    const bool pair = shared.slabs == 2 && has_clusters(call.device);
    return with_source(run->source, run->params, [&](auto source, auto sides) {
        const auto kernel = pair ? shared_bits_kernel<source.value, sides.value, true>
                                 : shared_bits_kernel<source.value, sides.value, false>;
        const rc_status status = check_cuda(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
            "asking for shared memory");
        if (status != RC_OK) {
            return status;
        }
        cudaLaunchConfig_t config{};
        config.gridDim = dim3(static_cast<unsigned>(call.batch) * shared.slabs);
        config.blockDim = dim3(kThreads);
        config.dynamicSmemBytes = bytes;
        config.stream = run->stream;
        cudaLaunchAttribute cluster{};
        cluster.id = cudaLaunchAttributeClusterDimension;
        cluster.val.clusterDim.x = 2;
        cluster.val.clusterDim.y = 1;
        cluster.val.clusterDim.z = 1;
        config.attrs = &cluster;
        config.numAttrs = pair ? 1 : 0;
        return check_cuda(cudaLaunchKernelEx(&config, kernel, run->params, shared), "launching the shared bits kernel");
    });
}

}  // namespace rc
