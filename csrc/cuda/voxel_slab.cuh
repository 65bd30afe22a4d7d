// The second half of a partition: one block fills one slab in shared memory from the runs that all chunks of its sample
// have for it, and writes it.
#pragma once

#include "launch.cuh"
#include "voxel_points.cuh"
#include "voxel_write.cuh"

namespace rc {

// Threads of a block. Known when the kernel is compiled: that saves registers, of which it takes all there are.
constexpr uint32_t kSlabThreads = 1024;
constexpr uint32_t kFewSlabThreads = 512;

// A cell as its slab and its place there.
struct PlacedCell {
    static constexpr uint32_t kSlabShift = 18;
    uint32_t packed;  // the place in the lower 16 bits

    // The slab's one of `counters`. That it lies 4 bytes a slab from the first costs no more than a shift.
    __device__ __forceinline__ uint32_t* of(uint32_t* counters) const {
        return reinterpret_cast<uint32_t*>(reinterpret_cast<char*>(counters) + (packed >> (kSlabShift - 2)));
    }
    __device__ __forceinline__ uint32_t slab() const { return packed >> kSlabShift; }
    __device__ __forceinline__ uint32_t place() const { return packed & 0xffffu; }
};

// Which slab a cell is filled in. Rows of kRowCells neighbouring cells are dealt to a sample's slabs in turn, and each
// round begins kTurn slabs further than the one before: so walls and floors, where scans have most of their points, lie
// in all slabs alike, also where they stand along an axis of the grid or across two. (kTurn is odd, and neither
// neighbour of it is divisible by 8.)
constexpr uint32_t kRowShift = 7;
constexpr uint32_t kRowCells = 1u << kRowShift;

struct SlabDeal {
    static constexpr uint32_t kTurn = 53;
    uint32_t bits;  // log2 of a sample's slabs

    __host__ __device__ __forceinline__ uint32_t slabs() const { return 1u << bits; }
    __device__ __forceinline__ PlacedCell place(uint32_t cell) const {
        const uint32_t round = cell >> (kRowShift + bits);
        const uint32_t turned = cell + round * (kTurn << kRowShift);
        const uint32_t slab = turned & ((slabs() - 1) << kRowShift);
        return {(slab << (PlacedCell::kSlabShift - kRowShift)) + (round << kRowShift) + (cell & (kRowCells - 1))};
    }
    // The row of cells that a slab got in a round.
    __device__ __forceinline__ uint32_t row(uint32_t slab, uint32_t round) const {
        return round << bits | ((slab - round * kTurn) & (slabs() - 1));
    }
};

// Runs of entries begin at whole 16-byte words of them.
constexpr uint32_t kWord = 8;

// What a chunk has for a slab, as the table holds it: `size` entries of 16 bits from word `word` of the chunk's on. Each
// is a point's place, or two of them are a place and the number of points there.
struct SlabRun {
    uint32_t packed;
    static __device__ __forceinline__ SlabRun of(uint32_t word, uint32_t size, bool pairs) {
        return {word | size << 16 | (pairs ? 0x80000000u : 0u)};
    }
    __device__ __forceinline__ uint32_t word() const { return packed & 0xffffu; }
    __device__ __forceinline__ uint32_t size() const { return (packed >> 16) & 0x7fffu; }
    __device__ __forceinline__ bool pairs() const { return (packed >> 31) != 0; }
};

struct PartitionParams {
    uint16_t* entries;  // [B, chunks, chunk_entries]
    uint32_t* table;    // [B, slabs, chunks]
    uint32_t chunks;    // of a sample
    SlabDeal deal;
    uint32_t rounds;         // rows of a slab
    uint32_t chunk_entries;  // a chunk's points, and what its runs waste by beginning at whole words
    uint32_t lane_shift;     // log2 of the second kernel's lanes that share a run
    FastDivide by_chunks;
    CellOutput occupancy;
    CellOutput count;
};

// A slab in shared memory: counters where a count is wanted, else a byte a cell.
template <bool kCount>
struct Slab {
    using Cell = std::conditional_t<kCount, uint32_t, uint8_t>;
    Cell* cells;

    __device__ __forceinline__ void add(uint32_t place, uint32_t n) {
        if constexpr (kCount) {
            atomicAdd(cells + place, n);
        } else {
            cells[place] = 1;
        }
    }
    // Word w of a run; nothing past its end.
    __device__ __forceinline__ void add_word(const uint4& word, uint32_t w, SlabRun run) {
        if (w * kWord >= run.size()) {
            return;
        }
        const uint32_t size = run.size() - w * kWord;
        const uint32_t twos[4] = {word.x, word.y, word.z, word.w};
        if (kCount && run.pairs()) {
#pragma unroll
            for (uint32_t k = 0; k < 4; ++k) {
                if (2 * k < size) {
                    add(twos[k] & 0xffffu, twos[k] >> 16);
                }
            }
            return;
        }
#pragma unroll
        for (uint32_t k = 0; k < 4; ++k) {
            if (2 * k < size) {
                add(twos[k] & 0xffffu, 1);
            }
            if (2 * k + 1 < size) {
                add(twos[k] >> 16, 1);
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

// Cells `first` .. first + n of the output, by `writers`.
template <bool kCount>
__device__ __forceinline__ void write_row(const PartitionParams& part, int64_t first, uint32_t n,
                                          const SlabCounts<kCount>& count, Writers writers) {
    if (part.count.data != nullptr) {
        write_counts_as(part.count, first, n, count, writers);
    }
    if (part.occupancy.data == nullptr) {
        return;
    }
    if (part.occupancy.dtype == RC_BITS) {
        write_bits(part.occupancy, first, n, count, writers);
    } else if (!kCount && n % 16 == 0 && copies_bytes(part.occupancy, first)) {
        uint4* to = reinterpret_cast<uint4*>(static_cast<uint8_t*>(part.occupancy.data) + first);
        for (uint32_t w = writers.index; w < n / 16; w += writers.count) {
            __stcs(to + w, reinterpret_cast<const uint4*>(count.cells)[w]);
        }
    } else {
        write_occupancy_as(part.occupancy, first, n, count, writers);
    }
}

// Adds what all chunks of sample b have for this block's slab. kAhead: runs of a thread that are on their way together.
template <bool kCount, uint32_t kThreads, uint32_t kAhead>
__device__ __forceinline__ void fill_slab(const PartitionParams& part, uint32_t b, Slab<kCount>* slab) {
    const uint32_t lanes = 1u << part.lane_shift;
    const uint32_t lane = threadIdx.x & (lanes - 1);
    const uint32_t group = threadIdx.x >> part.lane_shift;
    const uint32_t groups = kThreads >> part.lane_shift;
    const uint32_t* runs = part.table + static_cast<size_t>(blockIdx.x) * part.chunks;
    const uint32_t chunk_words = part.chunk_entries / kWord;
    const uint4* entries = reinterpret_cast<const uint4*>(part.entries) +
                           static_cast<size_t>(b) * part.chunks * chunk_words;
    constexpr uint32_t kOwnTurns = 4;  // of a run's lanes; what is longer, a warp does together
    const uint32_t own_words = lanes < 32 ? lanes * kOwnTurns : UINT32_MAX / kWord;
    for (uint32_t base = 0; base < part.chunks; base += groups * kAhead) {
        SlabRun run[kAhead];
        uint4 first[kAhead];
        const uint4* from[kAhead];
        bool crowded = false;
#pragma unroll
        for (uint32_t k = 0; k < kAhead; ++k) {
            const uint32_t chunk = base + group + k * groups;
            run[k] = {chunk < part.chunks ? __ldcg(runs + chunk) : 0};
            from[k] = entries + static_cast<size_t>(chunk) * chunk_words;
        }
#pragma unroll
        for (uint32_t k = 0; k < kAhead; ++k) {
            from[k] += run[k].word();
            if (lane * kWord < run[k].size()) {
                first[k] = __ldcg(from[k] + lane);
            }
            crowded = crowded || run[k].size() > own_words * kWord;
        }
#pragma unroll
        for (uint32_t k = 0; k < kAhead; ++k) {
            slab->add_word(first[k], lane, run[k]);
            for (uint32_t w = lane + lanes; w < own_words && w * kWord < run[k].size(); w += lanes) {
                slab->add_word(__ldcg(from[k] + w), w, run[k]);
            }
        }
        if (__any_sync(kWholeWarp, crowded) == 0) {
            continue;
        }
#pragma unroll
        for (uint32_t k = 0; k < kAhead; ++k) {
            uint32_t left = __ballot_sync(kWholeWarp, lane == 0 && run[k].size() > own_words * kWord);
            for (; left != 0; left &= left - 1) {
                const int source = __ffs(static_cast<int>(left)) - 1;
                const SlabRun its{__shfl_sync(kWholeWarp, run[k].packed, source)};
                const uint4* words = reinterpret_cast<const uint4*>(
                    __shfl_sync(kWholeWarp, reinterpret_cast<unsigned long long>(from[k]), source));
                for (uint32_t w = own_words + (threadIdx.x & 31); w * kWord < its.size(); w += 32 * kAhead) {
                    uint4 word[kAhead];
#pragma unroll
                    for (uint32_t j = 0; j < kAhead; ++j) {
                        if ((w + 32 * j) * kWord < its.size()) {
                            word[j] = __ldcg(words + w + 32 * j);
                        }
                    }
#pragma unroll
                    for (uint32_t j = 0; j < kAhead; ++j) {
                        slab->add_word(word[j], w + 32 * j, its);
                    }
                }
            }
        }
    }
}

template <bool kCount, uint32_t kThreads, uint32_t kAhead>
__global__ __launch_bounds__(kThreads) void slab_kernel(const __grid_constant__ PartitionParams part, int64_t cells) {
    extern __shared__ uint4 slab_words[];
    using Cell = typename Slab<kCount>::Cell;
    Slab<kCount> slab{reinterpret_cast<Cell*>(slab_words)};
    const uint32_t b = blockIdx.x >> part.deal.bits;
    const uint32_t number = blockIdx.x & (part.deal.slabs() - 1);
    for (uint32_t w = threadIdx.x; w < part.rounds * (kRowCells * sizeof(Cell) / 16); w += kThreads) {
        slab_words[w] = make_uint4(0, 0, 0, 0);
    }
    __syncthreads();
    wait_for_previous();
    fill_slab<kCount, kThreads, kAhead>(part, b, &slab);
    __syncthreads();
    // Rows of 128 cells, each by eight threads: 16 bytes a thread of the narrowest outputs.
    constexpr uint32_t kRowThreads = 8;
    const Writers writers{threadIdx.x % kRowThreads, kRowThreads};
    for (uint32_t round = threadIdx.x / kRowThreads; round < part.rounds; round += kThreads / kRowThreads) {
        const int64_t base = static_cast<int64_t>(part.deal.row(number, round)) << kRowShift;
        if (base < cells) {
            const uint32_t n = static_cast<uint32_t>(cells - base < kRowCells ? cells - base : kRowCells);
            write_row(part, b * cells + base, n, SlabCounts<kCount>{slab.cells + round * kRowCells}, writers);
        }
    }
}

template <bool kCount, uint32_t kThreads>
auto slab_kernel_of(int32_t ahead) {
    return ahead == 1   ? slab_kernel<kCount, kThreads, 1>
           : ahead == 2 ? slab_kernel<kCount, kThreads, 2>
                        : slab_kernel<kCount, kThreads, 4>;
}

}  // namespace rc
