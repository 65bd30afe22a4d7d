// The second half of a partition: one block fills one slab in shared memory from the runs that all chunks of its sample
// have for it, and writes it.
#pragma once

#include "voxel_points.cuh"
#include "voxel_write.cuh"

namespace rc {

constexpr int kSlabThreads = 1024;

// Runs begin at whole 16-byte words of entries.
constexpr uint32_t kWord = 8;

// An entry of the table: the word where a chunk's run for a slab begins, its entries, and whether all points of the chunk
// fell in one cell, so that one entry tells all.
__device__ __forceinline__ uint32_t pack_run(uint32_t word, uint32_t count, bool alike) {
    return word | count << 16 | (alike && count > 0 ? 0x80000000u : 0u);
}

struct PartitionParams {
    uint16_t* entries;  // [B, chunks, chunk_entries]
    uint32_t* table;    // [B, slabs, chunks]
    uint32_t chunks;    // of a sample
    uint32_t slabs;     // of a sample
    uint32_t shift;
    uint32_t chunk_entries;  // a chunk's points, and what its runs waste by beginning at whole words
    uint32_t lane_shift;     // log2 of the second kernel's lanes that share a run
    FastDivide by_chunks;
    FastDivide by_slabs;
    CellOutput occupancy;
    CellOutput count;
};

// A slab in shared memory: counters where a count is wanted, else a byte a cell.
template <bool kCount>
struct Slab {
    using Cell = std::conditional_t<kCount, uint32_t, uint8_t>;
    Cell* cells;

    __device__ __forceinline__ void add(uint32_t cell, uint32_t n) {
        if constexpr (kCount) {
            atomicAdd(cells + cell, n);
        } else {
            cells[cell] = 1;
        }
    }
    // The first `count` of a word's entries.
    __device__ __forceinline__ void add_word(const uint4& word, uint32_t count) {
        const uint32_t pairs[4] = {word.x, word.y, word.z, word.w};
#pragma unroll
        for (uint32_t k = 0; k < 4; ++k) {
            if (2 * k < count) {
                add(pairs[k] & 0xffffu, 1);
            }
            if (2 * k + 1 < count) {
                add(pairs[k] >> 16, 1);
            }
        }
    }
};

// What a finished slab tells to the writers.
template <bool kCount>
struct SlabCounts {
    static constexpr bool kFours = true;
    const typename Slab<kCount>::Cell* cells;
    __device__ __forceinline__ uint32_t operator()(uint32_t k) const { return cells[k]; }
    // Of cells k .. k + 3; k is a multiple of 4.
    __device__ __forceinline__ void four(uint32_t k, uint32_t counts[4]) const {
        if constexpr (kCount) {
            const uint4 word = *reinterpret_cast<const uint4*>(cells + k);
            counts[0] = word.x, counts[1] = word.y, counts[2] = word.z, counts[3] = word.w;
        } else {
            const uint32_t word = *reinterpret_cast<const uint32_t*>(cells + k);
            counts[0] = word & 0xff, counts[1] = (word >> 8) & 0xff, counts[2] = (word >> 16) & 0xff;
            counts[3] = word >> 24;
        }
    }
};

// The output is what a slab of bytes holds already.
__device__ __forceinline__ bool copies_bytes(const CellOutput& out, int64_t first) {
    const bool byte = out.dtype == RC_BOOL || out.dtype == RC_UINT8 || out.dtype == RC_INT8;
    return byte && !out.accumulate && ((reinterpret_cast<uintptr_t>(out.data) + first) & 15) == 0;
}

template <bool kCount>
__global__ __launch_bounds__(kSlabThreads) void slab_kernel(const __grid_constant__ PartitionParams part,
                                                            int64_t cells) {
    extern __shared__ uint4 slab_words[];
    Slab<kCount> slab{reinterpret_cast<typename Slab<kCount>::Cell*>(slab_words)};
    const uint32_t b = part.by_slabs.quotient(blockIdx.x);
    const int64_t base = static_cast<int64_t>(blockIdx.x - b * part.slabs) << part.shift;
    const uint32_t size = 1u << part.shift;
    const uint32_t n = static_cast<uint32_t>(cells - base < size ? cells - base : size);
    for (uint32_t w = threadIdx.x; w < size * sizeof(typename Slab<kCount>::Cell) / 16; w += kSlabThreads) {
        slab_words[w] = make_uint4(0, 0, 0, 0);
    }
    __syncthreads();
#if __CUDA_ARCH__ >= 900
    cudaGridDependencySynchronize();
#endif
    const uint32_t lanes = 1u << part.lane_shift;
    const uint32_t lane = threadIdx.x & (lanes - 1);
    const uint32_t groups = kSlabThreads >> part.lane_shift;
    const uint32_t* runs = part.table + static_cast<size_t>(blockIdx.x) * part.chunks;
    const uint4* entries = reinterpret_cast<const uint4*>(part.entries) +
                           static_cast<size_t>(b) * part.chunks * (part.chunk_entries / kWord);
    const size_t chunk_words = part.chunk_entries / kWord;
    constexpr uint32_t kAhead = 4;  // runs on their way together
    for (uint32_t run = threadIdx.x >> part.lane_shift; run < part.chunks; run += groups * kAhead) {
        uint32_t packed[kAhead];
        uint4 first[kAhead];
#pragma unroll
        for (uint32_t k = 0; k < kAhead; ++k) {
            packed[k] = run + k * groups < part.chunks ? __ldcg(runs + run + k * groups) : 0;
        }
#pragma unroll
        for (uint32_t k = 0; k < kAhead; ++k) {
            if (lane * kWord < ((packed[k] >> 16) & 0x7fffu)) {
                first[k] = __ldcg(entries + (run + k * groups) * chunk_words + (packed[k] & 0xffffu) + lane);
            }
        }
#pragma unroll
        for (uint32_t k = 0; k < kAhead; ++k) {
            const uint32_t count = (packed[k] >> 16) & 0x7fffu;
            if ((packed[k] >> 31) != 0) {
                if (lane == 0) {
                    slab.add(first[k].x & 0xffffu, count);
                }
                continue;
            }
            if (lane * kWord < count) {
                slab.add_word(first[k], count - lane * kWord);
            }
            const uint4* from = entries + (run + k * groups) * chunk_words + (packed[k] & 0xffffu);
            for (uint32_t w = lane + lanes; w * kWord < count; w += lanes) {
                slab.add_word(__ldcg(from + w), count - w * kWord);
            }
        }
    }
    __syncthreads();
    const SlabCounts<kCount> count{slab.cells};
    const int64_t first = b * cells + base;
    if (part.count.data != nullptr) {
        write_counts_as(part.count, first, n, count);
    }
    if (part.occupancy.data != nullptr) {
        if (part.occupancy.dtype == RC_BITS) {
            write_bits(part.occupancy, first, n, count);
        } else if (!kCount && copies_bytes(part.occupancy, first)) {
            uint4* out = reinterpret_cast<uint4*>(static_cast<uint8_t*>(part.occupancy.data) + first);
            for (uint32_t w = threadIdx.x; w < n / 16; w += kSlabThreads) {
                __stcs(out + w, slab_words[w]);
            }
            for (uint32_t k = n / 16 * 16 + threadIdx.x; k < n; k += kSlabThreads) {
                static_cast<uint8_t*>(part.occupancy.data)[first + k] = static_cast<uint8_t>(count(k));
            }
        } else {
            write_occupancy_as(part.occupancy, first, n, count);
        }
    }
}

}  // namespace rc
