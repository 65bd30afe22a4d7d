// Dense features: sort, partial results, then rows or tiles.
#include "voxel_fill.h"
#include "voxel_rows.h"
#include "voxel_tiles.cuh"

namespace rc {

namespace {

constexpr size_t kRowBytes =
    24 * 1024;  // of shared memory, channels first: with the tile's own 8 KB, seven blocks a multiprocessor

// The order in which rows have their outputs.
constexpr int32_t kFeatureOrder[6] = {RC_REDUCE_SUM, RC_REDUCE_MEAN,   RC_REDUCE_MAX,
                                      RC_REDUCE_MIN, RC_REDUCE_ARGMAX, RC_REDUCE_ARGMIN};

CellOutput cell_output(const rc_voxel_call& call, int32_t reduce) {
    const rc_voxel_output* output = find_output(call, reduce);
    return output != nullptr ? CellOutput{output->data, output->dtype, call.accumulate} : CellOutput{nullptr, 0, false};
}

// The outputs of features that are wanted; how many.
int32_t feature_outputs(const rc_voxel_call& call, const ReduceParams& reduce, FeatureOutput outputs[6]) {
    int32_t count = 0;
    for (const int32_t wanted : kFeatureOrder) {
        const rc_voxel_output* output = find_output(call, wanted);
        if (output != nullptr && reduce.columns > 0) {
            outputs[count++] = {output->data, wanted, output->dtype};
        }
    }
    return count;
}

// Rows of few columns: more of them to a tile, so that finding them is worth it.
uint32_t tile_cells(const ReduceParams& reduce) {
    return reduce.columns >= 12 ? kMaxTileCells / 2 : kMaxTileCells;
}

int64_t num_tiles(const VoxelRun& run, const ReduceParams& reduce) {
    const int64_t cells = tile_cells(reduce);
    return run.call->batch * ((run.params.grid.cells + cells - 1) / cells);
}

void tile_params(const VoxelRun& run, const ReduceParams& reduce, TileParams* tile) {
    const rc_voxel_call& call = *run.call;
    *tile = TileParams{};
    tile->cells = run.params.grid.cells;
    tile->tile_cells = tile_cells(reduce);
    tile->tiles_per_sample = static_cast<uint32_t>((tile->cells + tile->tile_cells - 1) / tile->tile_cells);
    tile->by_tiles = FastDivide::by(tile->tiles_per_sample);
    tile->per_sample = run.params.points.per_sample;
    tile->row_splits = run.params.points.row_splits;
    tile->empty_value = call.empty_value;
    tile->occupancy = cell_output(call, RC_REDUCE_OCCUPANCY);
    tile->count = cell_output(call, RC_REDUCE_COUNT);
    tile->num_outputs = feature_outputs(call, reduce, tile->outputs);
    for (int32_t o = 0; o < tile->num_outputs; ++o) {
        tile->num_values += is_argument(tile->outputs[o].reduce) ? 0 : 1;
    }
    tile->chunk = reduce.columns < reduce.lanes * reduce.vector ? reduce.columns : reduce.lanes * reduce.vector;
    const size_t chunk = static_cast<size_t>(tile->chunk > 0 ? tile->chunk : 1);
    const size_t real = reduce.dtype == RC_FLOAT64 ? 8 : 4;
    const size_t row = chunk * (static_cast<size_t>(tile->num_values) * real +
                                static_cast<size_t>(tile->num_outputs - tile->num_values) * 4);
    const size_t rows = row > 0 ? kRowBytes / row : 1;
    tile->num_rows = static_cast<uint32_t>(rows < 8 ? 8 : (rows > kMaxTileCells ? kMaxTileCells : rows));
}

size_t shared_bytes(const ReduceParams& reduce, const TileParams& tile) {
    const size_t real = reduce.dtype == RC_FLOAT64 ? 8 : 4;
    return static_cast<size_t>(tile.num_rows) * static_cast<size_t>(tile.chunk > 0 ? tile.chunk : 1) *
           (static_cast<size_t>(tile.num_values) * real + static_cast<size_t>(tile.num_outputs - tile.num_values) * 4);
}

// Channels first: a tile's rows wait in shared memory until they are written channel by channel.
rc_status sorted_tiles(VoxelRun* run) {
    SortedPoints sorted;
    rc_status status = sort_points(run, &sorted);
    ReduceParams reduce;
    reduce_params(run, wants_of(*run->call), &reduce);
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
    return status == RC_OK ? launch_tile_planes(*run, sorted, reduce, tile, blocks, shared_bytes(reduce, tile))
                           : status;
}

void rows_params(const VoxelRun& run, const ReduceParams& reduce, RowsParams* rows) {
    const rc_voxel_call& call = *run.call;
    *rows = RowsParams{};
    rows->cells = run.params.grid.cells;
    rows->per_sample = run.params.points.per_sample;
    rows->row_splits = run.params.points.row_splits;
    rows->needs_sample = !reduce.flat || (reduce.wants & (kWantArgmax | kWantArgmin)) != 0;
    rows->occupancy = cell_output(call, RC_REDUCE_OCCUPANCY);
    rows->count = cell_output(call, RC_REDUCE_COUNT);
    rows->num_outputs = feature_outputs(call, reduce, rows->outputs);
}

// Channels last: every cell is filled while the points are sorted, then the occupied ones are written over.
rc_status sorted_rows(VoxelRun* run) {
    const rc_voxel_call& call = *run->call;
    ReduceParams reduce;
    RowsParams rows;
    Fill fill(run->stream, call.device, run->multiprocessors);
    reduce_params(run, wants_of(call), &reduce);
    rows_params(*run, reduce, &rows);
    const int64_t cells = call.batch * run->params.grid.cells;
    fill.add(rows.occupancy.data, cells, rows.occupancy.dtype, 0);
    fill.add(rows.count.data, cells, rows.count.dtype, 0);
    for (int32_t o = 0; o < rows.num_outputs; ++o) {
        const bool argument = is_argument(rows.outputs[o].reduce);
        fill.add(rows.outputs[o].data, cells * reduce.columns, rows.outputs[o].dtype,
                 argument ? -1.0 : call.empty_value);
    }
    rc_status status = run->dry ? RC_OK : fill.start();
    if (status != RC_OK) {
        return status;
    }
    SortedPoints sorted;
    status = sort_points(run, &sorted);
    if (status != RC_OK || run->dry) {
        return status;
    }
    if (sorted.n > 0 && rows.num_outputs > 0) {
        status = reduce_levels(*run, sorted, reduce);
    }
    const rc_status joined = fill.join();
    if (status != RC_OK || joined != RC_OK || sorted.n == 0) {
        return status != RC_OK ? status : joined;
    }
    return launch_rows(*run, sorted, reduce, rows);
}

}  // namespace

rc_status voxelize_sorted(VoxelRun* run) {
    return run->call->channels_first ? sorted_tiles(run) : sorted_rows(run);
}

}  // namespace rc
