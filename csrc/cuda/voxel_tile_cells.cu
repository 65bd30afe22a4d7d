// Occupancy and count of calls that sort their points anyway, and where each tile's points begin.
#include "voxel_tiles.cuh"

namespace rc {

namespace {

// What a tile tells to the writers of occupancy and count.
struct TileCounts {
    static constexpr bool kFours = true;
    const Tile& tile;
    __device__ __forceinline__ uint32_t of_row(uint32_t row) const {
        return row == kNoRow ? 0 : tile.begin[row + 1] - tile.begin[row];
    }
    __device__ __forceinline__ uint32_t operator()(uint32_t k) const { return of_row(tile.row_of[k]); }
    __device__ __forceinline__ void four(uint32_t k, uint32_t counts[4]) const {
        const uint2 rows = *reinterpret_cast<const uint2*>(tile.row_of + k);
        counts[0] = counts[1] = counts[2] = counts[3] = 0;
        if ((rows.x & rows.y) != 0xffffffffu) {
            counts[0] = of_row(rows.x & 0xffffu), counts[1] = of_row(rows.x >> 16);
            counts[2] = of_row(rows.y & 0xffffu), counts[3] = of_row(rows.y >> 16);
        }
    }
};

// Position where each tile's points begin, a warp each.
template <typename Key>
__global__ __launch_bounds__(kTileThreads) void bounds_kernel(const __grid_constant__ TileParams params,
                                                              const Key* __restrict__ keys, uint32_t n, Key none,
                                                              uint32_t* __restrict__ bounds, uint32_t tiles) {
    const uint32_t t = blockIdx.x * (kTileThreads / 32) + threadIdx.x / 32;
    if (t > tiles) {
        return;
    }
    const uint32_t sample = params.by_tiles.quotient(t);
    const uint32_t in_sample = t - sample * params.tiles_per_sample;
    const Key first = t == tiles ? none
                                 : static_cast<Key>(sample * params.cells +
                                                    static_cast<int64_t>(in_sample) * params.tile_cells);
    const uint32_t at = warp_lower_bound(keys, n, first);
    if ((threadIdx.x & 31) == 0) {
        bounds[t] = at;
    }
}

template <typename Key>
__global__ __launch_bounds__(kTileThreads) void cells_kernel(const __grid_constant__ TileParams params,
                                                             const Key* __restrict__ keys) {
    __shared__ __align__(16) uint16_t row_of[kMaxTileCells];
    __shared__ uint16_t cell_of[kMaxTileCells];
    __shared__ uint32_t begins[kMaxTileCells + 1];
    const TilePlace<Key> place(params);
    Tile tile{row_of, cell_of, begins, nullptr, nullptr, 0, 0};
    find_cells(keys, static_cast<const uint32_t*>(nullptr), params, place, &tile);
    const TileCounts count{tile};
    if (params.count.data != nullptr) {
        write_counts_as(params.count, place.first_cell, place.num_cells, count);
    }
    if (params.occupancy.data != nullptr) {
        if (params.occupancy.dtype == RC_BITS) {
            write_bits(params.occupancy, place.first_cell, place.num_cells, count);
        } else {
            write_occupancy_as(params.occupancy, place.first_cell, place.num_cells, count);
        }
    }
}

template <typename Key>
rc_status launch(const VoxelRun& run, const SortedPoints& sorted, const TileParams& tile, uint32_t tiles,
                 uint32_t* bounds) {
    const Key* keys = static_cast<const Key*>(sorted.keys);
    bounds_kernel<Key><<<tiles / (kTileThreads / 32) + 1, kTileThreads, 0, run.stream>>>(
        tile, keys, sorted.n, static_cast<Key>(sorted.none), bounds, tiles);
    const rc_status status = check_cuda(cudaGetLastError(), "launching the bounds kernel");
    if (status != RC_OK || tile.cells_with_rows || (tile.count.data == nullptr && tile.occupancy.data == nullptr)) {
        return status;
    }
    cells_kernel<Key><<<tiles, kTileThreads, 0, run.stream>>>(tile, keys);
    return check_cuda(cudaGetLastError(), "launching the cells kernel");
}

}  // namespace

rc_status launch_tile_cells(const VoxelRun& run, const SortedPoints& sorted, const TileParams& tile, uint32_t tiles,
                            uint32_t* bounds) {
    return sorted.wide ? launch<uint64_t>(run, sorted, tile, tiles, bounds)
                       : launch<uint32_t>(run, sorted, tile, tiles, bounds);
}

}  // namespace rc
