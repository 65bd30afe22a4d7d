// Tiles of a dense grid: one block takes the cells of one tile of a sample and finds, in the sorted points, which of them
// hold points and where those stand.
#pragma once

#include "voxel_reduce.cuh"
#include "voxel_store.cuh"
#include "voxel_write.cuh"

namespace rc {

constexpr int kTileThreads = 256;
constexpr uint32_t kMaxTileCells = 2048;
constexpr uint32_t kTilePoints = 1024;  // of a tile that are kept in shared memory
constexpr uint32_t kNoRow = 0xffffu;

struct TileParams {
    uint32_t tile_cells;  // at most kMaxTileCells, a multiple of 8
    uint32_t tiles_per_sample;
    FastDivide by_tiles;     // of a sample
    const uint32_t* bounds;  // [tiles + 1]: position where each tile's points begin
    int64_t cells;           // of a sample
    int64_t per_sample;      // points; 0: packed
    const int64_t* row_splits;
    uint32_t num_rows;  // channels first: rows that fit in shared memory at once
    int32_t chunk;      // channels first: columns of such a row
    bool channels_first;
    double empty_value;
    CellOutput occupancy;
    CellOutput count;
    bool cells_with_rows;      // both are written by the kernel that writes rows: see write_four_byte_cells()
    FeatureOutput outputs[6];  // sum, mean, max, min, argmax, argmin: those that are wanted, in this order
    int32_t num_values;        // of them, how many are no arguments
    int32_t num_outputs;
};

// What a block knows of its tile.
struct Tile {
    uint16_t* row_of;       // [tile_cells]: index among the tile's occupied cells, or kNoRow
    uint16_t* cell_of;      // [occupied]
    uint32_t* begin;        // [occupied + 1]: positions
    uint32_t* points;       // [kTilePoints]: what `order` has at the tile's positions, where they are few enough
    const uint32_t* order;  // the points at positions from `first` on: in shared memory or in global
    uint32_t first;
    uint32_t occupied;
};

// The tile of this block: its sample, its first cell in it, how many it has.
template <typename Key>
struct TilePlace {
    uint32_t sample;
    int64_t base;
    uint32_t num_cells;
    int64_t first_cell;  // across the batch

    __device__ __forceinline__ explicit TilePlace(const TileParams& params) {
        sample = params.by_tiles.quotient(blockIdx.x);
        base = static_cast<int64_t>(blockIdx.x - sample * params.tiles_per_sample) * params.tile_cells;
        const int64_t left = params.cells - base;
        num_cells = static_cast<uint32_t>(left < params.tile_cells ? left : params.tile_cells);
        first_cell = sample * params.cells + base;
    }
    __device__ __forceinline__ int64_t sample_begin(const TileParams& params) const {
        return params.row_splits != nullptr ? params.row_splits[sample] : sample * params.per_sample;
    }
};

// Numbers the occupied cells of a tile in order.
template <typename Key>
__device__ __forceinline__ void find_cells(const Key* keys, const uint32_t* order, const TileParams& params,
                                           const TilePlace<Key>& place, Tile* tile) {
    const Key base = static_cast<Key>(place.first_cell);
    const uint32_t num_cells = place.num_cells;
    const uint32_t begin = __ldg(params.bounds + blockIdx.x), end = __ldg(params.bounds + blockIdx.x + 1);
    __shared__ uint32_t warp_sums[kTileThreads / 32];
    for (uint32_t c = threadIdx.x; c < num_cells; c += kTileThreads) {
        tile->row_of[c] = static_cast<uint16_t>(kNoRow);
    }
    const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    const bool cached = tile->points != nullptr && end - begin <= kTilePoints;
    // Each position is a candidate for beginning a row; of many more points than cells, each cell is. Points that are
    // kept are looked at one by one in any case.
    const bool by_cell = !cached && end - begin > 4 * num_cells;
    const uint32_t candidates = by_cell ? num_cells : end - begin;
    tile->order = cached ? tile->points : order;
    tile->first = cached ? begin : 0;
    uint32_t rows = 0;
    for (uint32_t turn = 0; turn < candidates; turn += kTileThreads) {
        const uint32_t candidate = turn + threadIdx.x;
        uint32_t p = begin + candidate, cell = 0;
        bool head = false;
        if (candidate < candidates) {
            if (cached) {
                tile->points[candidate] = __ldg(order + p);
            }
            if (by_cell) {
                const Key key = base + candidate;
                uint32_t low = begin, high = end;
                while (low < high) {
                    const uint32_t middle = low + (high - low) / 2;
                    if (__ldg(keys + middle) < key) {
                        low = middle + 1;
                    } else {
                        high = middle;
                    }
                }
                p = low;
                cell = candidate;
                head = low < end && __ldg(keys + low) == key;
            } else {
                const Key key = __ldg(keys + p);
                cell = static_cast<uint32_t>(key - base);
                head = candidate == 0 || __ldg(keys + p - 1) != key;
            }
        }
        const uint32_t heads = __ballot_sync(kWholeWarp, head);
        __syncthreads();  // the sums of the turn before have been read, and row_of is cleared
        if (lane == 0) {
            warp_sums[warp] = __popc(heads);
        }
        __syncthreads();
        uint32_t row = rows + __popc(heads & ((1u << lane) - 1));
#pragma unroll
        for (uint32_t w = 0; w < kTileThreads / 32; ++w) {
            const uint32_t sum = warp_sums[w];
            row += w < warp ? sum : 0;
            rows += sum;
        }
        if (head) {
            tile->row_of[cell] = static_cast<uint16_t>(row);
            tile->cell_of[row] = static_cast<uint16_t>(cell);
            tile->begin[row] = p;
        }
    }
    if (threadIdx.x == 0) {
        tile->begin[rows] = end;
    }
    tile->occupied = rows;
    __syncthreads();
}

// Where each tile's points begin, and occupancy and count where they are wanted.
rc_status launch_tile_cells(const VoxelRun& run, const SortedPoints& sorted, const TileParams& tile, uint32_t tiles,
                            uint32_t* bounds);
// Features, channels last and channels first.
rc_status launch_tile_rows(const VoxelRun& run, const SortedPoints& sorted, const ReduceParams& reduce,
                           const TileParams& tile, uint32_t tiles);
rc_status launch_tile_planes(const VoxelRun& run, const SortedPoints& sorted, const ReduceParams& reduce,
                             const TileParams& tile, uint32_t tiles, size_t shared);

}  // namespace rc
