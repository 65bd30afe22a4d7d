// What stands in the rows of occupied cells: coordinates and counts, reduced features, gathered points.
#pragma once

#include "voxel_sparse_cells.cuh"

namespace rc {

// A row's coordinates and count, one thread each; a sample's first row also says how many there are.
template <typename Key>
__global__ __launch_bounds__(kSparseThreads) void coords_kernel(const __grid_constant__ SparseParams params,
                                                                const Key* __restrict__ keys) {
    const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at < params.batch) {
        params.num_voxels[at] = params.cells.base[at + 1] - params.cells.base[at];
    }
    if (at >= params.num_rows) {
        return;
    }
    const int64_t b = sample_of_row(params, at);
    int32_t x = -1, y = -1, z = -1;
    uint32_t cell = 0, count = 0;
    if (cell_of_row(params, b, at - b * params.max_voxels, &cell)) {
        const uint32_t begin = params.cells.begin[cell];
        count = params.cells.begin[cell + 1] - begin;
        const int64_t id = static_cast<int64_t>(keys[begin]) - b * params.sample_cells;
        const int64_t column = id / params.size[1];
        z = static_cast<int32_t>(id - column * params.size[1]);
        x = static_cast<int32_t>(column / params.size[0]);
        y = static_cast<int32_t>(column - static_cast<int64_t>(x) * params.size[0]);
    }
    params.coords[3 * at] = x;
    params.coords[3 * at + 1] = y;
    params.coords[3 * at + 2] = z;
    if (params.count.data != nullptr) {
        put_count(params.count.data, params.count.dtype, at, count);
    }
}

// The features of the rows, kRowsAhead a group of lanes, whose points and features are on their way together.
template <typename Feature, int kVector, uint32_t kWants, int kRowsAhead>
__global__ __launch_bounds__(kSparseThreads, light(kWants, sizeof(compute_t<Feature>))
                                                 ? 4
                                                 : 2) void features_kernel(const __grid_constant__ ReduceParams reduce,
                                                                           const __grid_constant__ SparseParams params,
                                                                           const uint32_t* __restrict__ order) {
    const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const int64_t group = thread >> reduce.lane_shift;
    const int32_t lane = static_cast<int32_t>(thread & (reduce.lanes - 1));
    const int64_t first = group * kRowsAhead;
    using RowReducer = Reducer<Feature, kVector, kWants>;
    typename RowReducer::Ahead ahead[kRowsAhead];
    int64_t sample[kRowsAhead];
#pragma unroll
    for (int j = 0; j < kRowsAhead; ++j) {
        const int64_t at = first + j;
        ahead[j].begin = ahead[j].end = 0;
        sample[j] = 0;
        uint32_t cell = 0;
        if (at < params.num_rows) {
            sample[j] = sample_of_row(params, at);
            if (cell_of_row(params, sample[j], at - sample[j] * params.max_voxels, &cell)) {
                ahead[j].begin = params.cells.begin[cell];
                ahead[j].end = params.cells.begin[cell + 1];
            }
        }
    }
    for (int32_t column = lane * kVector; column < reduce.columns; column += reduce.lanes * kVector) {
#pragma unroll
        for (int j = 0; j < kRowsAhead; ++j) {
            RowReducer(reduce, order, sample[j]).ask_point(&ahead[j]);
        }
#pragma unroll
        for (int j = 0; j < kRowsAhead; ++j) {
            RowReducer(reduce, order, sample[j]).ask_features(&ahead[j], column);
        }
#pragma unroll
        for (int j = 0; j < kRowsAhead; ++j) {
            if (first + j >= params.num_rows) {
                continue;
            }
            Accumulator<Feature, kVector> acc;
            if (ahead[j].end - ahead[j].begin > RC_SUM_BLOCK) {
                RowReducer(reduce, order, sample[j]).reduce_large(ahead[j].begin, ahead[j].end, column, &acc);
            } else if (ahead[j].begin < ahead[j].end) {
                RowReducer(reduce, order, sample[j]).reduce_ahead(ahead[j], column, &acc);
            }
            const int64_t sample_begin = params.row_splits != nullptr ? params.row_splits[sample[j]]
                                                                      : sample[j] * params.per_sample;
            for (int32_t o = 0; o < params.num_outputs; ++o) {
                store_row(params.outputs[o], acc, (first + j) * reduce.columns + column, ahead[j].end - ahead[j].begin,
                          sample_begin, params.empty_value);
            }
        }
    }
}

// The first points of each row, a group of lanes a slot.
template <typename Feature, int kVector>
__global__ __launch_bounds__(kSparseThreads) void gather_kernel(const __grid_constant__ ReduceParams reduce,
                                                                const __grid_constant__ SparseParams params,
                                                                const uint32_t* __restrict__ order) {
    const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const int64_t at = thread >> reduce.lane_shift;
    const int32_t lane = static_cast<int32_t>(thread & (reduce.lanes - 1));
    if (at >= params.num_rows * params.max_points) {
        return;
    }
    const int64_t global_row = params.short_rows ? params.by_points.quotient(static_cast<uint32_t>(at))
                                                 : at / params.max_points;
    const int64_t place = at - global_row * params.max_points;
    const int64_t b = sample_of_row(params, global_row);
    const int64_t row = global_row - b * params.max_voxels;
    uint32_t cell = 0;
    int64_t p = -1;
    if (cell_of_row(params, b, row, &cell)) {
        const uint32_t begin = params.cells.begin[cell];
        p = place < params.cells.begin[cell + 1] - begin ? begin + place : -1;
    }
    const Reducer<Feature, kVector> reducer(reduce, order, b);
    for (int32_t column = lane * kVector; column < reduce.columns; column += reduce.lanes * kVector) {
        compute_t<Feature> v[kVector] = {};
        if (p >= 0) {
            reducer.load(order[p], column, v);
        }
#pragma unroll
        for (int k = 0; k < kVector; ++k) {
            store_real(params.gathered, params.gathered_dtype, at * reduce.columns + column + k, v[k]);
        }
    }
}

}  // namespace rc
