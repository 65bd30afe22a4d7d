// Dense features: sort, partial results, tiles.
#include "voxel_tiles.cuh"

namespace rc {

namespace {

// The order in which a tile keeps its rows.
constexpr int32_t kFeatureOrder[6] = {RC_REDUCE_SUM, RC_REDUCE_MEAN,   RC_REDUCE_MAX,
                                      RC_REDUCE_MIN, RC_REDUCE_ARGMAX, RC_REDUCE_ARGMIN};

CellOutput cell_output(const rc_voxel_call& call, int32_t reduce) {
    const rc_voxel_output* output = find_output(call, reduce);
    return output != nullptr ? CellOutput{output->data, output->dtype, call.accumulate} : CellOutput{nullptr, 0, false};
}

constexpr int32_t kBroadColumns = 12;

// Rows of few columns: more of them to a tile, so that finding them is worth it.
uint32_t tile_cells(const VoxelRun& run, const ReduceParams& reduce) {
    const rc_tunable tunable = reduce.columns >= kBroadColumns ? RC_TUNE_VOXEL_TILE_CELLS_BROAD
                                                               : RC_TUNE_VOXEL_TILE_CELLS_NARROW;
    return static_cast<uint32_t>(launch_parameter(tunable, run.call->device, run.params.points.total));
}

// Shared memory for rows, channels first. The fewer, the more blocks a multiprocessor has beside the tile's own 8 KB.
size_t row_bytes(const VoxelRun& run) {
    const int32_t kib = launch_parameter(RC_TUNE_VOXEL_PLANES_ROW_KIB, run.call->device, run.params.points.total);
    return static_cast<size_t>(kib) * 1024;
}

int64_t num_tiles(const VoxelRun& run, const ReduceParams& reduce) {
    const int64_t cells = tile_cells(run, reduce);
    return run.call->batch * ((run.params.grid.cells + cells - 1) / cells);
}

// An output of 4 bytes a cell that the rows' kernel can write in 16-byte words.
bool is_four_byte(const CellOutput& out, int64_t cells) {
    return out.data == nullptr || (!out.accumulate && (out.dtype == RC_INT32 || out.dtype == RC_FLOAT32) &&
                                   cells % 4 == 0 && reinterpret_cast<uintptr_t>(out.data) % 16 == 0);
}

void tile_params(const VoxelRun& run, const ReduceParams& reduce, TileParams* tile) {
    const rc_voxel_call& call = *run.call;
    *tile = TileParams{};
    tile->cells = run.params.grid.cells;
    tile->tile_cells = tile_cells(run, reduce);
    tile->tiles_per_sample = static_cast<uint32_t>((tile->cells + tile->tile_cells - 1) / tile->tile_cells);
    tile->by_tiles = FastDivide::by(tile->tiles_per_sample);
    tile->per_sample = run.params.points.per_sample;
    tile->row_splits = run.params.points.row_splits;
    tile->channels_first = call.channels_first;
    tile->empty_value = call.empty_value;
    tile->occupancy = cell_output(call, RC_REDUCE_OCCUPANCY);
    tile->count = cell_output(call, RC_REDUCE_COUNT);
    for (const int32_t wanted : kFeatureOrder) {
        const rc_voxel_output* output = find_output(call, wanted);
        if (output != nullptr && reduce.columns > 0) {
            tile->outputs[tile->num_outputs++] = {output->data, wanted, output->dtype};
            tile->num_values += wanted != RC_REDUCE_ARGMAX && wanted != RC_REDUCE_ARGMIN ? 1 : 0;
        }
    }
    tile->cells_with_rows = !call.channels_first && tile->num_outputs > 0 &&
                            is_four_byte(tile->occupancy, tile->cells) && is_four_byte(tile->count, tile->cells);
    tile->chunk = reduce.columns < reduce.lanes * reduce.vector ? reduce.columns : reduce.lanes * reduce.vector;
    const size_t chunk = static_cast<size_t>(tile->chunk > 0 ? tile->chunk : 1);
    const size_t real = reduce.dtype == RC_FLOAT64 ? 8 : 4;
    const size_t row = chunk * (static_cast<size_t>(tile->num_values) * real +
                                static_cast<size_t>(tile->num_outputs - tile->num_values) * 4);
    const size_t rows = row > 0 ? row_bytes(run) / row : 1;
    tile->num_rows = static_cast<uint32_t>(rows < 8 ? 8 : (rows > kMaxTileCells ? kMaxTileCells : rows));
}

size_t shared_bytes(const ReduceParams& reduce, const TileParams& tile) {
    const size_t real = reduce.dtype == RC_FLOAT64 ? 8 : 4;
    return static_cast<size_t>(tile.num_rows) * static_cast<size_t>(tile.chunk > 0 ? tile.chunk : 1) *
           (static_cast<size_t>(tile.num_values) * real + static_cast<size_t>(tile.num_outputs - tile.num_values) * 4);
}

}  // namespace

rc_status voxelize_sorted(VoxelRun* run) {
    SortedPoints sorted;
    rc_status status = sort_points(run, &sorted);
    ReduceParams reduce;
    reduce_params(run, wants_of(*run->call), RC_TUNE_VOXEL_TILE_VECTOR, &reduce);
    const int64_t tiles = num_tiles(*run, reduce);
    if (status == RC_OK && tiles >= INT32_MAX) {
        return rc_fail(RC_UNSUPPORTED, "grid_size: at most 2^31 - 2 tiles of %u cells a call on CUDA", kMaxTileCells);
    }
    uint32_t* bounds = run->workspace->take<uint32_t>(static_cast<size_t>(tiles) + 1);
    if (status != RC_OK || run->dry) {
        return status;
    }
    TileParams tile;
    tile_params(*run, reduce, &tile);
    tile.bounds = bounds;
    const uint32_t blocks = static_cast<uint32_t>(tiles);
    status = launch_tile_cells(*run, sorted, tile, blocks, bounds);
    if (status != RC_OK || tile.num_outputs == 0) {
        return status;
    }
    status = reduce_levels(*run, sorted, reduce);
    if (status != RC_OK) {
        return status;
    }
    return tile.channels_first ? launch_tile_planes(*run, sorted, reduce, tile, blocks, shared_bytes(reduce, tile))
                               : launch_tile_rows(*run, sorted, reduce, tile, blocks);
}

}  // namespace rc
