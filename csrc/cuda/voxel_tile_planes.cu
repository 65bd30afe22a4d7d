// Features, channels first: rows wait in shared memory until their tile is written channel by channel.
#include "voxel_tiles.cuh"

namespace rc {

namespace {

// Rows in shared memory: for each output that is no argument [num_rows, chunk] Reals, then the arguments.
template <typename Feature, int kVector>
__device__ __forceinline__ void reduce_rows(const ReduceParams& reduce, const TileParams& params, const Tile& tile,
                                            int64_t sample, int64_t sample_begin, uint32_t first_row, uint32_t end_row,
                                            int32_t first_column, compute_t<Feature>* values, uint32_t* args) {
    using Real = compute_t<Feature>;
    const uint32_t lanes = static_cast<uint32_t>(reduce.lanes);
    const Reducer<Feature, kVector> reducer(reduce, tile.order, sample, tile.first);
    const int32_t in_chunk = static_cast<int32_t>(threadIdx.x & (lanes - 1)) * kVector;
    const int32_t column = first_column + in_chunk;
    if (in_chunk >= params.chunk || column >= reduce.columns) {
        return;
    }
    const size_t plane = static_cast<size_t>(params.num_rows) * params.chunk;
    for (uint32_t row = first_row + (threadIdx.x >> reduce.lane_shift); row < end_row;
         row += kTileThreads >> reduce.lane_shift) {
        Accumulator<Feature, kVector> acc;
        const uint32_t begin = tile.begin[row], end = tile.begin[row + 1];
        reducer.reduce_cell(begin, end, column, &acc);
        const size_t at = static_cast<size_t>(row - first_row) * params.chunk + in_chunk;
        for (int32_t o = 0; o < params.num_outputs; ++o) {
            const int32_t wanted = params.outputs[o].reduce;
#pragma unroll
            for (int k = 0; k < kVector; ++k) {
                if (o >= params.num_values) {
                    args[(o - params.num_values) * plane + at + k] = static_cast<uint32_t>(
                        (wanted == RC_REDUCE_ARGMAX ? acc.argmax[k] : acc.argmin[k]) - sample_begin);
                } else {
                    values[o * plane + at + k] = result_of(acc, k, wanted, end - begin);
                }
            }
        }
    }
}

// Cells [first, end) of the tile, columns [first_column, first_column + chunk) of one output.
template <typename T, typename Source>
__device__ __forceinline__ void write_rows(T* out, const TileParams& params, const Tile& tile, int64_t sample,
                                           int64_t tile_base, uint32_t first, uint32_t end, int32_t first_column,
                                           int32_t columns, uint32_t first_row, const Source* rows, T empty) {
    const int32_t chunk = min(params.chunk, columns - first_column);
    for (int32_t c = 0; c < chunk; ++c) {
        T* to = out + (sample * columns + first_column + c) * params.cells + tile_base + first;
        write_cells(to, end - first, [&](uint32_t k) {
            const uint32_t row = tile.row_of[first + k];
            return row == kNoRow ? empty : narrow<T>(rows[static_cast<size_t>(row - first_row) * params.chunk + c]);
        });
    }
}

template <typename Real>
__device__ __forceinline__ void write_output(const FeatureOutput& output, const TileParams& params, const Tile& tile,
                                             int64_t sample, int64_t tile_base, uint32_t first, uint32_t end,
                                             int32_t first_column, int32_t columns, uint32_t first_row,
                                             const Real* values, const uint32_t* args) {
    const auto write = [&](auto* out, const auto* rows, auto empty) {
        write_rows(out, params, tile, sample, tile_base, first, end, first_column, columns, first_row, rows, empty);
    };
    if (is_argument(output.reduce)) {
        if (output.dtype == RC_INT32) {
            write(static_cast<int32_t*>(output.data), args, -1);
        } else {
            write(static_cast<int64_t*>(output.data), args, int64_t{-1});
        }
        return;
    }
    switch (output.dtype) {
    case RC_FLOAT16:
        return write(static_cast<half*>(output.data), values, narrow<half>(params.empty_value));
    case RC_BFLOAT16:
        return write(static_cast<bfloat16*>(output.data), values, narrow<bfloat16>(params.empty_value));
    case RC_FLOAT32:
        return write(static_cast<float*>(output.data), values, static_cast<float>(params.empty_value));
    default:
        return write(static_cast<double*>(output.data), values, params.empty_value);
    }
}

template <typename Feature, int kVector, typename Key>
__global__ __launch_bounds__(kTileThreads) void planes_kernel(const __grid_constant__ ReduceParams reduce,
                                                              const __grid_constant__ TileParams params,
                                                              const Key* __restrict__ keys,
                                                              const uint32_t* __restrict__ order) {
    extern __shared__ uint4 row_words[];
    __shared__ __align__(16) uint16_t row_of[kMaxTileCells];
    __shared__ uint16_t cell_of[kMaxTileCells];
    __shared__ uint32_t begins[kMaxTileCells + 1];
    const TilePlace<Key> place(params);
    __shared__ uint32_t points[kTilePoints];
    Tile tile{row_of, cell_of, begins, points, nullptr, 0, 0};
    find_cells(keys, order, params, place, &tile);
    const size_t plane = static_cast<size_t>(params.num_rows) * params.chunk;
    compute_t<Feature>* values = reinterpret_cast<compute_t<Feature>*>(row_words);
    uint32_t* args = reinterpret_cast<uint32_t*>(values + params.num_values * plane);
    // As many occupied cells at once as have room; with them go the empty ones up to the next.
    uint32_t first = 0;
    for (uint32_t row = 0; first < place.num_cells; row += params.num_rows) {
        const uint32_t end_row = min(row + params.num_rows, tile.occupied);
        const uint32_t end = row + params.num_rows < tile.occupied ? tile.cell_of[end_row] : place.num_cells;
        for (int32_t column = 0; column < reduce.columns; column += params.chunk) {
            reduce_rows<Feature, kVector>(reduce, params, tile, place.sample, place.sample_begin(params), row, end_row,
                                          column, values, args);
            __syncthreads();
            for (int32_t o = 0; o < params.num_outputs; ++o) {
                write_output(params.outputs[o], params, tile, place.sample, place.base, first, end, column,
                             reduce.columns, row, values + min(o, params.num_values - 1) * plane,
                             args + max(o - params.num_values, 0) * plane);
            }
            __syncthreads();
        }
        first = end;
    }
}

template <typename Key>
rc_status launch(const VoxelRun& run, const SortedPoints& sorted, const ReduceParams& reduce, const TileParams& tile,
                 uint32_t tiles, size_t shared) {
    return with_feature(reduce, [&](auto type, auto vector) {
        const auto kernel = planes_kernel<typename decltype(type)::type, vector.value, Key>;
        const rc_status status = check_cuda(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
            "asking for shared memory");
        if (status != RC_OK) {
            return status;
        }
        kernel<<<tiles, kTileThreads, shared, run.stream>>>(reduce, tile, static_cast<const Key*>(sorted.keys),
                                                            sorted.order);
        return check_cuda(cudaGetLastError(), "launching the planes kernel");
    });
}

}  // namespace

rc_status launch_tile_planes(const VoxelRun& run, const SortedPoints& sorted, const ReduceParams& reduce,
                             const TileParams& tile, uint32_t tiles, size_t shared) {
    return sorted.wide ? launch<uint64_t>(run, sorted, reduce, tile, tiles, shared)
                       : launch<uint32_t>(run, sorted, reduce, tile, tiles, shared);
}

}  // namespace rc
