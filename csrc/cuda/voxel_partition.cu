// Occupancy and count by slabs: no atomic ever leaves a multiprocessor, and every cell is written once.
//
// A sample's grid is cut into slabs of 2^shift cells that fit in shared memory. The first kernel takes a chunk of points a
// block and sorts their cells by slab (16 bits each are left of a cell within its slab); the second fills one slab a
// block from the runs that all chunks have for it, and writes it.
#include <cub/block/block_scan.cuh>

#include "voxel_dense.h"
#include "voxel_each.cuh"
#include "voxel_slab.cuh"

namespace rc {

namespace {

constexpr uint32_t kMaxSlabs = 2048;  // of a sample: a block's counters of slabs
// Threads of a block and points of a thread. While there are few chunks, many threads; then long runs.
constexpr int kSmallThreads = 1024;
constexpr int kSmallItems = 4;
constexpr int kLargeThreads = 512;
constexpr int kLargeItems = 16;
constexpr int64_t kManyPoints = int64_t{1} << 21;

// Adds one to a shared counter for every lane whose `slab` is not negative, and returns the count before: in one go
// where the warp agrees.
__device__ __forceinline__ uint32_t rank_in_slab(uint32_t* counters, int32_t slab) {
    if (__all_sync(kWholeWarp, slab == __shfl_sync(kWholeWarp, slab, 0)) == 0) {
        return slab >= 0 ? atomicAdd(counters + slab, 1u) : 0;
    }
    if (slab < 0) {
        return 0;
    }
    const uint32_t lane = threadIdx.x & 31;
    uint32_t base = 0;
    if (lane == 0) {
        base = atomicAdd(counters + slab, 32u);
    }
    return __shfl_sync(kWholeWarp, base, 0) + lane;
}

template <PointSource kSource, bool kSides, int kThreads, int kItems>
__global__ __launch_bounds__(kThreads,
                             1024 / kThreads) void partition_kernel(const __grid_constant__ VoxelParams params,
                                                                    const __grid_constant__ PartitionParams part) {
    constexpr uint32_t kChunk = kThreads * kItems;
    using Scan = cub::BlockScan<uint32_t, kThreads>;
    __shared__ uint32_t starts[kMaxSlabs];
    __shared__ typename Scan::TempStorage scan_storage;
    __shared__ int32_t first_cell;
    extern __shared__ uint4 staged_words[];
    uint16_t* staged = reinterpret_cast<uint16_t*>(staged_words);
#if __CUDA_ARCH__ >= 900
    cudaTriggerProgrammaticLaunchCompletion();  // the slabs' blocks may clear their memory meanwhile
#endif
    const uint32_t b = part.by_chunks.quotient(blockIdx.x);
    const uint32_t chunk = blockIdx.x - b * part.chunks;
    const int64_t sample_begin = b * params.points.per_sample;
    const int64_t sample_end = sample_begin + params.points.per_sample;
    const int64_t begin = sample_begin + static_cast<int64_t>(chunk) * kChunk;
    PointReader<kSource> reader(params);
    reader.enter(b, sample_begin, sample_end);
    constexpr uint32_t kEach = kMaxSlabs / kThreads;
#pragma unroll
    for (uint32_t k = 0; k < kEach; ++k) {
        starts[threadIdx.x + k * kThreads] = 0;
    }

    int32_t cells[kItems];
    const bool aligned = ((reinterpret_cast<uintptr_t>(params.points.points) + 12 * begin) & 15) == 0;
    if (kSource == PointSource::kPlain && aligned && begin + kChunk <= sample_end) {
        float p[kItems / kRun][kRun][3];
#pragma unroll
        for (int r = 0; r < kItems / kRun; ++r) {
            const float* points = static_cast<const float*>(params.points.points) + 3 * begin;
            load_run(points, (r * kThreads + static_cast<int>(threadIdx.x)) * kRun, p[r]);
        }
#pragma unroll
        for (int r = 0; r < kItems / kRun; ++r) {
#pragma unroll
            for (int k = 0; k < kRun; ++k) {
                if constexpr (kSides) {
                    const int64_t i = begin + (r * kThreads + static_cast<int>(threadIdx.x)) * kRun + k;
                    const typename PointReader<kSource>::Real q[3] = {p[r][k][0], p[r][k][1], p[r][k][2]};
                    const int64_t cell = reader.template locate<true>(i, q);
                    if (params.inverse != nullptr) {
                        params.inverse[i] = cell;
                    }
                    cells[r * kRun + k] = static_cast<int32_t>(cell);
                } else {
                    cells[r * kRun + k] = plain_cell(params.grid, p[r][k]);
                }
            }
        }
    } else {
#pragma unroll
        for (int k = 0; k < kItems; ++k) {
            const int64_t i = begin + k * kThreads + threadIdx.x;
            cells[k] = i < sample_end ? static_cast<int32_t>(reader.template cell<kSides>(i)) : -1;
        }
    }
    if (kSides) {
        reader.finish();
    }
    if (threadIdx.x == 0) {
        first_cell = cells[0];
    }
    __syncthreads();

    uint32_t ranks[kItems];
    bool alike = true;
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
        ranks[k] = rank_in_slab(starts, cells[k] < 0 ? -1 : cells[k] >> part.shift);
        alike = alike && (cells[k] == first_cell);
    }
    alike = __syncthreads_and(alike && first_cell >= 0) != 0;

    // Counts to starts: each thread has kEach neighbouring slabs.
    const uint32_t s = kEach * threadIdx.x;
    uint32_t counts[kEach], sums[kEach], total;
#pragma unroll
    for (uint32_t k = 0; k < kEach; ++k) {
        counts[k] = starts[s + k];
    }
    uint32_t words[kEach];
#pragma unroll
    for (uint32_t k = 0; k < kEach; ++k) {
        words[k] = (counts[k] + kWord - 1) / kWord;
    }
    Scan(scan_storage).ExclusiveSum(words, sums, total);
#pragma unroll
    for (uint32_t k = 0; k < kEach; ++k) {
        starts[s + k] = sums[k] * kWord;
        if (s + k < part.slabs) {
            const size_t row = static_cast<size_t>(b) * part.slabs + s + k;
            part.table[row * part.chunks + chunk] = pack_run(sums[k], counts[k], alike);
        }
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
        if (cells[k] >= 0) {
            staged[starts[cells[k] >> part.shift] + ranks[k]] = static_cast<uint16_t>(cells[k] &
                                                                                      ((1 << part.shift) - 1));
        }
    }
    __syncthreads();
    uint4* out = reinterpret_cast<uint4*>(part.entries + static_cast<size_t>(blockIdx.x) * part.chunk_entries);
    for (uint32_t w = threadIdx.x; w < total; w += kThreads) {
        out[w] = staged_words[w];
    }
}

// Slabs as large as shared memory has them, but enough of them to fill the device.
uint32_t slab_shift(int64_t batch, int64_t cells, bool count, int multiprocessors) {
    uint32_t shift = count ? 15 : 16;
    while (shift > 12 && batch * ((cells + (int64_t{1} << shift) - 1) >> shift) < multiprocessors * 7 / 8) {
        --shift;
    }
    return shift;
}

template <typename... Args>
rc_status launch_after(bool early_launch, void (*kernel)(Args...), unsigned blocks, size_t shared, cudaStream_t stream,
                       Args... args) {
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(blocks);
    config.blockDim = dim3(kSlabThreads);
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    cudaLaunchAttribute early{};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &early;
    config.numAttrs = early_launch ? 1 : 0;
    return check_cuda(cudaLaunchKernelEx(&config, kernel, args...), "launching the slab kernel");
}

template <bool kCount>
rc_status launch_slabs(const VoxelRun& run, const PartitionParams& part) {
    const size_t shared = (size_t{1} << part.shift) * sizeof(typename Slab<kCount>::Cell);
    const rc_status status = check_cuda(cudaFuncSetAttribute(slab_kernel<kCount>,
                                                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                             static_cast<int>(shared)),
                                        "asking for shared memory");
    if (status != RC_OK) {
        return status;
    }
    return launch_after(launches_early(run.call->device), slab_kernel<kCount>,
                        static_cast<unsigned>(run.call->batch) * part.slabs, shared, run.stream, part,
                        run.params.grid.cells);
}

}  // namespace

bool partition_takes(const rc_voxel_call& call, int multiprocessors) {
    const int64_t cells = cells_of(call.grid);
    const rc_voxel_output* occupancy = find_output(call, RC_REDUCE_OCCUPANCY);
    const bool count = find_output(call, RC_REDUCE_COUNT) != nullptr;
    if (call.cloud != nullptr && call.cloud->row_splits != nullptr) {
        return false;  // how many points a sample has is known on the device only
    }
    if (occupancy != nullptr && occupancy->dtype == RC_BITS && call.grid.size[2] % 8 != 0) {
        return false;  // a byte may lie across two slabs
    }
    if (cells > INT32_MAX || call.batch > INT32_MAX / 64) {
        return false;
    }
    const uint32_t shift = slab_shift(call.batch, cells, count, multiprocessors);
    const int64_t slabs = (cells + (int64_t{1} << shift) - 1) >> shift;
    const int64_t points = total_points(call) / (call.batch > 0 ? call.batch : 1);
    // Chunks and slabs must each hold enough to be worth their block; few points in many cells are better off with
    // atomics.
    return slabs <= kMaxSlabs && points >= 4 * slabs && points * call.batch >= 65536 &&
           call.batch * slabs < (int64_t{1} << 24);
}

rc_status voxelize_partition(VoxelRun* run) {
    const rc_voxel_call& call = *run->call;
    const rc_voxel_output* occupancy = find_output(call, RC_REDUCE_OCCUPANCY);
    const rc_voxel_output* count = find_output(call, RC_REDUCE_COUNT);
    const int64_t cells = run->params.grid.cells;
    PartitionParams part{};
    part.shift = slab_shift(call.batch, cells, count != nullptr, run->multiprocessors);
    part.slabs = static_cast<uint32_t>((cells + (int64_t{1} << part.shift) - 1) >> part.shift);
    const bool large = run->params.points.total > kManyPoints;
    const uint32_t chunk_points = large ? kLargeThreads * kLargeItems : kSmallThreads * kSmallItems;
    part.chunks = static_cast<uint32_t>((run->params.points.per_sample + chunk_points - 1) / chunk_points);
    const size_t blocks = static_cast<size_t>(call.batch) * part.chunks;
    part.chunk_entries = chunk_points + kWord * (part.slabs < chunk_points ? part.slabs : chunk_points);
    part.entries = run->workspace->take<uint16_t>(blocks * part.chunk_entries);
    part.table = run->workspace->take<uint32_t>(blocks * part.slabs);
    if (run->dry) {
        return RC_OK;
    }
    if (occupancy != nullptr) {
        part.occupancy = {occupancy->data, occupancy->dtype, call.accumulate};
    }
    if (count != nullptr) {
        part.count = {count->data, count->dtype, call.accumulate};
    }
    part.by_chunks = FastDivide::by(part.chunks > 0 ? part.chunks : 1);
    part.by_slabs = FastDivide::by(part.slabs);
    // Lanes to a run: as many as it has words, and no fewer than keep all of them busy.
    const uint32_t run_words = (chunk_points / part.slabs + kWord - 1) / kWord;
    while ((1u << part.lane_shift) < run_words && part.lane_shift < 5) {
        ++part.lane_shift;
    }
    while ((part.chunks << part.lane_shift) < kSlabThreads) {
        ++part.lane_shift;
    }
    const size_t shared = part.chunk_entries * sizeof(uint16_t);
    rc_status status = with_source(run->source, run->params, [&](auto source, auto sides) {
        const auto kernel = large ? partition_kernel<source.value, sides.value, kLargeThreads, kLargeItems>
                                  : partition_kernel<source.value, sides.value, kSmallThreads, kSmallItems>;
        const rc_status asked = check_cuda(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
            "asking for shared memory");
        if (asked != RC_OK) {
            return asked;
        }
        kernel<<<static_cast<unsigned>(blocks), large ? kLargeThreads : kSmallThreads, shared, run->stream>>>(
            run->params, part);
        return check_cuda(cudaGetLastError(), "launching the partition kernel");
    });
    if (status == RC_OK) {
        status = count != nullptr ? launch_slabs<true>(*run, part) : launch_slabs<false>(*run, part);
    }
    return status;
}

}  // namespace rc
