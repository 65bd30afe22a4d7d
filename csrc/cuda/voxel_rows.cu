// Features, channels last: the row of each occupied cell goes straight to the output, which holds empty cells already.
#include "voxel_rows.h"
#include "voxel_store.cuh"
#include "voxel_write.cuh"

namespace rc {

namespace {

constexpr int kRowThreads = 256;
// Positions a group of lanes looks at together, so that their points and features are on their way together.
constexpr int kAhead = 4;

// A cell's points stand side by side; the group of lanes that looks at the first of them reduces them all.
template <typename Feature, int kVector, uint32_t kWants, typename Key>
__global__ __launch_bounds__(kRowThreads, light(kWants, sizeof(compute_t<Feature>)) ? 4 : 2) void rows_kernel(
    const __grid_constant__ ReduceParams reduce, const __grid_constant__ RowsParams params,
    const Key* __restrict__ keys, const uint32_t* __restrict__ order, uint32_t n, Key none) {
    using RowReducer = Reducer<Feature, kVector, kWants>;
    const uint64_t thread = static_cast<uint64_t>(blockIdx.x) * kRowThreads + threadIdx.x;
    const uint64_t first = (thread >> reduce.lane_shift) * kAhead;
    const int32_t lane = static_cast<int32_t>(thread) & (reduce.lanes - 1);
    if (first >= n) {
        return;
    }
    const uint32_t begin = static_cast<uint32_t>(first);
    Key near[kAhead + 2];  // the keys from begin - 1 on
#pragma unroll
    for (int j = 0; j < kAhead + 2; ++j) {
        const uint64_t p = first + static_cast<uint64_t>(j);  // one more than the position
        near[j] = p >= 1 && p <= n ? __ldg(keys + p - 1) : none;
    }
    typename RowReducer::Ahead ahead[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
        const Key key = near[j + 1];
        const uint32_t p = begin + static_cast<uint32_t>(j);
        const bool row = key != none && key != near[j];
        ahead[j].begin = ahead[j].end = p;
        if (row) {
            ahead[j].end = near[j + 2] != key ? p + 1 : cell_end(keys, n, p + 1);
        }
    }
    // Found anew where it is wanted, which is seldom: kept, it would take two registers a position.
    const auto sample_of = [&](int j) {
        return params.needs_sample && ahead[j].begin < ahead[j].end
                   ? static_cast<int64_t>(near[j + 1] / static_cast<Key>(params.cells))
                   : 0;
    };
    if (lane == 0) {
#pragma unroll
        for (int j = 0; j < kAhead; ++j) {
            if (ahead[j].begin < ahead[j].end) {
                if (params.count.data != nullptr) {
                    put_count(params.count.data, params.count.dtype, static_cast<int64_t>(near[j + 1]),
                              ahead[j].end - ahead[j].begin);
                }
                if (params.occupancy.data != nullptr) {
                    put_count(params.occupancy.data, params.occupancy.dtype, static_cast<int64_t>(near[j + 1]), 1);
                }
            }
        }
    }
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
        RowReducer(reduce, order, sample_of(j)).ask_point(&ahead[j]);
    }
    for (int32_t column = lane * kVector; column < reduce.columns; column += reduce.lanes * kVector) {
#pragma unroll
        for (int j = 0; j < kAhead; ++j) {
            RowReducer(reduce, order, sample_of(j)).ask_features(&ahead[j], column);
        }
#pragma unroll
        for (int j = 0; j < kAhead; ++j) {
            const uint32_t count = ahead[j].end - ahead[j].begin;
            if (count == 0) {
                continue;
            }
            const int64_t sample = sample_of(j);
            const RowReducer reducer(reduce, order, sample);
            Accumulator<Feature, kVector> acc;
            if (count > RC_SUM_BLOCK) {
                reducer.reduce_large(ahead[j].begin, ahead[j].end, column, &acc);
            } else {
                reducer.reduce_ahead(ahead[j], column, &acc);
            }
            const int64_t sample_begin = params.row_splits != nullptr ? __ldg(params.row_splits + sample)
                                                                      : sample * params.per_sample;
            const int64_t to = static_cast<int64_t>(near[j + 1]) * reduce.columns + column;
            for (int32_t o = 0; o < params.num_outputs; ++o) {
                store_row(params.outputs[o], acc, to, count, sample_begin, 0.0);
            }
        }
    }
}

template <typename Key>
rc_status launch(const VoxelRun& run, const SortedPoints& sorted, const ReduceParams& reduce, const RowsParams& rows) {
    return with_feature_and_wants(reduce, [&](auto type, auto vector, auto wants) {
        const uint64_t groups = (static_cast<uint64_t>(sorted.n) + kAhead - 1) / kAhead;
        const uint64_t blocks = ((groups << reduce.lane_shift) + kRowThreads - 1) / kRowThreads;
        rows_kernel<typename decltype(type)::type, vector.value, wants.value, Key>
            <<<static_cast<unsigned>(blocks), kRowThreads, 0, run.stream>>>(
                reduce, rows, static_cast<const Key*>(sorted.keys), sorted.order, sorted.n,
                static_cast<Key>(sorted.none));
        return check_cuda(cudaGetLastError(), "launching the rows kernel");
    });
}

}  // namespace

rc_status launch_rows(const VoxelRun& run, const SortedPoints& sorted, const ReduceParams& reduce,
                      const RowsParams& rows) {
    return sorted.wide ? launch<uint64_t>(run, sorted, reduce, rows) : launch<uint32_t>(run, sorted, reduce, rows);
}

}  // namespace rc
