// Occupancy and count by slabs: no atomic ever leaves a multiprocessor, and every cell is written once.
//
// A sample's cells are dealt to slabs that fit in shared memory. The first kernel takes a chunk of points a block and
// sorts their cells by slab (16 bits each are left of a cell within its slab); the second fills one slab a block from the
// runs that all chunks have for it, and writes it. Neighbouring points in one cell are one entry: of a count with the
// number of them beside it, where that makes a chunk shorter.
#include <cub/block/block_scan.cuh>

#include "voxel_dense.h"
#include "voxel_each.cuh"
#include "voxel_slab.cuh"

namespace rc {

namespace {

constexpr uint32_t kMaxSlabs = 2048;  // of a sample: a block's counters of slabs
// While there are few chunks, many threads have few points each: the chunks are short. Then fewer threads have more, for
// long runs. 16 points are what the registers of a thread hold where a multiprocessor has 1024 of them.
constexpr int kShortThreads = 1024;
constexpr int kLongItems = 16;
// A chunk is scattered where fewer than one in kScattered of its points lies in its neighbour's row of cells.
constexpr int kScattered = 4;

// Points without a cell, and those left out, are placed past all slabs, each lane's in one of its own.
constexpr uint32_t kNoSlabs = 32;

__device__ __forceinline__ PlacedCell no_cell() {
    return {(kMaxSlabs + (threadIdx.x & 31)) << PlacedCell::kSlabShift};
}

__device__ __forceinline__ bool has_slab(PlacedCell cell) {
    return cell.packed < kMaxSlabs << PlacedCell::kSlabShift;
}

// A chunk's cells, kItems a thread. `together`: kRun neighbours of a thread are neighbours in the chunk; else those of
// neighbouring lanes are.
template <PointSource kSource, bool kSides, int kThreads, int kItems>
__device__ __forceinline__ void read_cells(const VoxelParams& params, PointReader<kSource>* reader, int64_t begin,
                                           int64_t end, bool together, int32_t cells[kItems]) {
    if (!together) {
#pragma unroll
        for (int k = 0; k < kItems; ++k) {
            const int64_t i = begin + k * kThreads + threadIdx.x;
            cells[k] = i < end ? static_cast<int32_t>(reader->template cell<kSides>(i)) : -1;
        }
        return;
    }
    float p[kItems / kRun][kRun][3];
#pragma unroll
    for (int r = 0; r < kItems / kRun; ++r) {
        const float* points = static_cast<const float*>(params.points.points) + 3 * begin;
        load_run(points, (r * kThreads + static_cast<int>(threadIdx.x)) * kRun, p[r]);
    }
#pragma unroll
    for (int r = 0; r < kItems / kRun; ++r) {
        if constexpr (kSides) {
#pragma unroll
            for (int k = 0; k < kRun; ++k) {
                const int64_t i = begin + (r * kThreads + static_cast<int>(threadIdx.x)) * kRun + k;
                const typename PointReader<kSource>::Real q[3] = {p[r][k][0], p[r][k][1], p[r][k][2]};
                const int64_t cell = reader->template locate<true>(i, q);
                if (params.inverse != nullptr) {
                    params.inverse[i] = cell;
                }
                cells[r * kRun + k] = static_cast<int32_t>(cell);
            }
        } else {
            plain_cells<kRun>(params.grid, p[r], cells + r * kRun);
        }
    }
}

// Adds one to a slab's counter for every lane whose cell has a slab, and returns the count before: in one go where those
// lanes agree.
__device__ __forceinline__ uint32_t rank_in_slab(uint32_t* counters, PlacedCell cell) {
    const bool has = has_slab(cell);
    const uint32_t lanes = __ballot_sync(kWholeWarp, has);
    const int leader = lanes != 0 ? __ffs(static_cast<int>(lanes)) - 1 : 0;
    const uint32_t common = __shfl_sync(kWholeWarp, cell.slab(), leader);
    if (__all_sync(kWholeWarp, !has || cell.slab() == common) == 0) {
        return atomicAdd(cell.of(counters), 1u);
    }
    const uint32_t lane = threadIdx.x & 31;
    uint32_t base = 0;
    if (lanes != 0 && lane == static_cast<uint32_t>(leader)) {
        base = atomicAdd(cell.of(counters), static_cast<uint32_t>(__popc(lanes)));
    }
    return __shfl_sync(kWholeWarp, base, leader) + static_cast<uint32_t>(__popc(lanes & ((1u << lane) - 1)));
}

// Scattered points, an entry each: places cells, and ranks them within their slabs.
template <int kItems>
__device__ __forceinline__ void rank_points(const SlabDeal& deal, uint32_t* counters, const int32_t cells[kItems],
                                            PlacedCell placed[kItems], uint32_t ranks[kItems]) {
    const PlacedCell none = no_cell();
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
        const PlacedCell cell = deal.place(static_cast<uint32_t>(cells[k]));
        placed[k] = {cells[k] >= 0 ? cell.packed : none.packed};
        ranks[k] = atomicAdd(placed[k].of(counters), 1u);
    }
}

// What the warps of a block tell each other of their points.
template <int kThreads>
struct Tallies {
    static constexpr uint32_t kWarps = kThreads / 32;
    uint32_t points_and_starts[kWarps];  // points in the grid; in the low half, runs of them
    int32_t cell[kWarps];                // of all of a warp's points, where they have only one; else -1

    struct Sum {
        uint32_t points;
        uint32_t starts;
        bool alike;  // all points of the block are in one cell
    };
    __device__ __forceinline__ void tell(uint32_t points, uint32_t starts, int32_t common) {
        const uint32_t sum = __reduce_add_sync(kWholeWarp, points << 16 | starts);
        const int32_t first = __shfl_sync(kWholeWarp, common, 0);
        const bool alike = __all_sync(kWholeWarp, common == first) != 0;
        if ((threadIdx.x & 31) == 0) {
            points_and_starts[threadIdx.x / 32] = sum;
            cell[threadIdx.x / 32] = alike ? first : -1;
        }
    }
    // After a barrier; for whole warps.
    __device__ __forceinline__ Sum sum() const {
        const uint32_t lane = threadIdx.x & 31;
        const uint32_t total = __reduce_add_sync(kWholeWarp, lane < kWarps ? points_and_starts[lane] : 0);
        const int32_t first = cell[0];
        const bool alike = __all_sync(kWholeWarp, cell[lane < kWarps ? lane : 0] == first) != 0;
        return {total >> 16, total & 0xffffu, alike && first >= 0};
    }
};

// Points of which many have a neighbour's cell: of occupancy an entry a run of them; of a count an entry a run with its
// length, in the upper halves of the ranks, where that is shorter than one a point. Tells which.
template <int kThreads, int kItems>
__device__ __forceinline__ bool rank_runs(const SlabDeal& deal, uint32_t* counters, Tallies<kThreads>* tallies,
                                          bool counts, bool together, const int32_t cells[kItems],
                                          PlacedCell placed[kItems], uint32_t ranks[kItems]) {
    uint32_t points = 0, starts = 0;
    int32_t common = cells[0];
#pragma unroll
    for (int r = 0; r < kItems; r += kRun) {
        run_lengths(cells + r, together, ranks + r);
#pragma unroll
        for (int k = r; k < r + kRun; ++k) {
            points += cells[k] >= 0 ? 1 : 0;
            starts += cells[k] >= 0 && ranks[k] != 0 ? 1 : 0;
            common = cells[k] == cells[0] ? common : -1;
        }
    }
    tallies->tell(points, starts, common);
    __syncthreads();
    const auto sum = tallies->sum();
    const bool pairs = counts && 2 * sum.starts <= sum.points;
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
        const bool first = threadIdx.x == 0 && k == 0;
        const bool left_out = sum.alike ? !first : ranks[k] == 0 && (pairs || !counts);
        const uint32_t length = sum.alike ? kThreads * kItems : ranks[k];
        placed[k] = cells[k] < 0 || left_out ? no_cell() : deal.place(static_cast<uint32_t>(cells[k]));
        ranks[k] = rank_in_slab(counters, placed[k]) | (pairs ? length << 16 : 0);
    }
    return pairs;
}

template <PointSource kSource, bool kSides, int kThreads, int kItems>
__global__ __launch_bounds__(kThreads,
                             1024 / kThreads) void partition_kernel(const __grid_constant__ VoxelParams params,
                                                                    const __grid_constant__ PartitionParams part) {
    constexpr uint32_t kChunk = kThreads * kItems;
    using Scan = cub::BlockScan<uint32_t, kThreads>;
    __shared__ uint32_t starts[kMaxSlabs + kNoSlabs];
    __shared__ typename Scan::TempStorage scan_storage;
    __shared__ Tallies<kThreads> tallies;
    extern __shared__ uint4 staged_words[];
    uint16_t* staged = reinterpret_cast<uint16_t*>(staged_words);
    let_next_begin();  // the slabs' blocks may clear their memory meanwhile
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
    const bool together = kSource == PointSource::kPlain && aligned && begin + kChunk <= sample_end;
    read_cells<kSource, kSides, kThreads, kItems>(params, &reader, begin, sample_end, together, cells);
    if (kSides) {
        reader.finish();
    }

    // Looking for runs takes half as many instructions as all else: only where a sample of the chunk has neighbours.
    PlacedCell placed[kItems];
    uint32_t ranks[kItems];
    const int32_t neighbour = together ? cells[1] : __shfl_down_sync(kWholeWarp, cells[0], 1);
    const int near = __syncthreads_count(cells[0] >> kRowShift == neighbour >> kRowShift);
    bool pairs = false;
    if (near < kThreads / kScattered) {
        rank_points<kItems>(part.deal, starts, cells, placed, ranks);
    } else {
        pairs = rank_runs<kThreads, kItems>(part.deal, starts, &tallies, part.count.data != nullptr, together, cells,
                                            placed, ranks);
    }
    __syncthreads();

    // Counts to starts: each thread has kEach neighbouring slabs.
    const uint32_t s = kEach * threadIdx.x;
    uint32_t counts_of[kEach], sums[kEach], total;
#pragma unroll
    for (uint32_t k = 0; k < kEach; ++k) {
        counts_of[k] = starts[s + k];
    }
    const uint32_t halves = pairs ? 2 : 1;  // of an entry
    uint32_t words[kEach];
#pragma unroll
    for (uint32_t k = 0; k < kEach; ++k) {
        words[k] = (counts_of[k] * halves + kWord - 1) / kWord;
    }
    Scan(scan_storage).ExclusiveSum(words, sums, total);
#pragma unroll
    for (uint32_t k = 0; k < kEach; ++k) {
        starts[s + k] = sums[k] * kWord;
        if (s + k < part.deal.slabs()) {
            const size_t row = static_cast<size_t>(b) * part.deal.slabs() + s + k;
            part.table[row * part.chunks + chunk] = SlabRun::of(sums[k], counts_of[k] * halves, pairs).packed;
        }
    }
    __syncthreads();
    if (pairs) {
#pragma unroll
        for (int k = 0; k < kItems; ++k) {
            uint32_t* run = reinterpret_cast<uint32_t*>(staged + *placed[k].of(starts));
            if (has_slab(placed[k])) {
                run[ranks[k] & 0xffffu] = placed[k].place() | (ranks[k] & 0xffff0000u);
            }
        }
    } else {
#pragma unroll
        for (int k = 0; k < kItems; ++k) {
            const uint32_t at = *placed[k].of(starts) + ranks[k];
            if (has_slab(placed[k])) {
                staged[at] = static_cast<uint16_t>(placed[k].place());
            }
        }
    }
    __syncthreads();
    uint4* out = reinterpret_cast<uint4*>(part.entries + static_cast<size_t>(blockIdx.x) * part.chunk_entries);
    for (uint32_t w = threadIdx.x; w < total; w += kThreads) {
        out[w] = staged_words[w];
    }
}

int64_t rows_of(int64_t cells) {
    return (cells + kRowCells - 1) >> kRowShift;
}

// Slabs as large as shared memory has them, but enough of them to fill the device.
SlabDeal deal_of(const rc_voxel_call& call, int multiprocessors) {
    const bool count = find_output(call, RC_REDUCE_COUNT) != nullptr;
    const int64_t batch = call.batch, rows = rows_of(cells_of(call.grid));
    const int64_t row_bytes = kRowCells * (count ? sizeof(uint32_t) : sizeof(uint8_t));
    const int64_t bytes = int64_t{1024} * launch_parameter(RC_TUNE_VOXEL_SLAB_KIB, call.device, total_points(call));
    const int64_t room = shared_memory(call.device) / row_bytes, usual = bytes / row_bytes;
    const int64_t held = room < usual ? room : usual, places = (int64_t{1} << 16) >> kRowShift;
    const int64_t most_rows = held < places ? held : places;  // of a slab
    SlabDeal deal{0};
    while (deal.slabs() < rows &&
           ((rows + deal.slabs() - 1) >> deal.bits > most_rows || batch << deal.bits < multiprocessors * 7 / 8)) {
        ++deal.bits;
    }
    return deal;
}

// A chunk as a block has it: its threads, and the points of each.
struct ChunkShape {
    int threads;
    int items;
};

ChunkShape chunk_shape(const VoxelRun& run) {
    const int64_t total = run.params.points.total;
    const auto value = [&](rc_tunable tunable) { return launch_parameter(tunable, run.call->device, total); };
    if (total > int64_t{value(RC_TUNE_VOXEL_PARTITION_LONG_FROM)} << 16) {
        return {value(RC_TUNE_VOXEL_PARTITION_LONG_THREADS), kLongItems};
    }
    return {kShortThreads, value(RC_TUNE_VOXEL_PARTITION_SHORT_POINTS)};
}

template <PointSource kSource, bool kSides>
auto partition_kernel_of(const ChunkShape& chunk) {
    if (chunk.items == kLongItems) {
        return chunk.threads == 256 ? partition_kernel<kSource, kSides, 256, kLongItems>
                                    : partition_kernel<kSource, kSides, 512, kLongItems>;
    }
    return chunk.items == 8 ? partition_kernel<kSource, kSides, kShortThreads, 8>
                            : partition_kernel<kSource, kSides, kShortThreads, 4>;
}

template <bool kCount>
rc_status launch_slabs(const VoxelRun& run, const PartitionParams& part, unsigned threads) {
    LaunchShape shape{};
    shape.blocks = static_cast<unsigned>(run.call->batch) << part.deal.bits;
    shape.threads = threads;
    shape.shared = size_t{part.rounds} * kRowCells * sizeof(typename Slab<kCount>::Cell);
    shape.stream = run.stream;
    shape.early = launches_early(run.call->device);
    const int32_t ahead = launch_parameter(RC_TUNE_VOXEL_SLAB_AHEAD, run.call->device, run.params.points.total);
    const auto kernel = threads == kFewSlabThreads ? slab_kernel_of<kCount, kFewSlabThreads>(ahead)
                                                   : slab_kernel_of<kCount, kSlabThreads>(ahead);
    return launch(shape, "launching the slab kernel", kernel, part, run.params.grid.cells);
}

}  // namespace

bool partition_takes(const rc_voxel_call& call, int multiprocessors) {
    const int64_t cells = cells_of(call.grid);
    const rc_voxel_output* occupancy = find_output(call, RC_REDUCE_OCCUPANCY);
    if (call.depth != nullptr || call.cloud->row_splits != nullptr) {
        return false;  // of images most atomics can be spared; how many points a packed sample has is known on the device
    }
    if (occupancy != nullptr && occupancy->dtype == RC_BITS && call.grid.size[2] % 8 != 0) {
        return false;  // a byte may lie across two slabs
    }
    if (cells > INT32_MAX || call.batch > INT32_MAX / 64) {
        return false;
    }
    const int64_t slabs = deal_of(call, multiprocessors).slabs();
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
    part.deal = deal_of(call, run->multiprocessors);
    part.rounds = static_cast<uint32_t>((rows_of(cells) + part.deal.slabs() - 1) >> part.deal.bits);
    const ChunkShape chunk = chunk_shape(*run);
    const uint32_t chunk_points = static_cast<uint32_t>(chunk.threads * chunk.items);
    part.chunks = static_cast<uint32_t>((run->params.points.per_sample + chunk_points - 1) / chunk_points);
    const size_t blocks = static_cast<size_t>(call.batch) * part.chunks;
    part.chunk_entries = chunk_points + kWord * (part.deal.slabs() < chunk_points ? part.deal.slabs() : chunk_points);
    part.entries = run->workspace->take<uint16_t>(blocks * part.chunk_entries);
    part.table = run->workspace->take<uint32_t>(blocks * part.deal.slabs());
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
    // Lanes to a run: as many as it has words, and no fewer than keep all of them busy.
    const uint32_t run_words = (chunk_points / part.deal.slabs() + kWord - 1) / kWord;
    while ((1u << part.lane_shift) < run_words && part.lane_shift < 5) {
        ++part.lane_shift;
    }
    const unsigned slab_threads = launch_threads(RC_TUNE_VOXEL_SLAB_THREADS, call.device, run->params.points.total);
    while ((part.chunks << part.lane_shift) < slab_threads) {
        ++part.lane_shift;
    }
    LaunchShape shape{};
    shape.blocks = static_cast<unsigned>(blocks);
    shape.threads = static_cast<unsigned>(chunk.threads);
    shape.shared = part.chunk_entries * sizeof(uint16_t);
    shape.stream = run->stream;
    rc_status status = with_source(run->source, run->params, [&](auto source, auto sides) {
        if constexpr (source.value == PointSource::kDepth) {
            return rc_fail(RC_UNSUPPORTED, "depth: images are not sorted by slab");
        } else {
            const auto kernel = partition_kernel_of<source.value, sides.value>(chunk);
            return launch(shape, "launching the partition kernel", kernel, run->params, part);
        }
    });
    if (status == RC_OK) {
        status = count != nullptr ? launch_slabs<true>(*run, part, slab_threads)
                                  : launch_slabs<false>(*run, part, slab_threads);
    }
    return status;
}

}  // namespace rc
