// Occupied cells of sorted points get numbers, and numbers rows.
#pragma once

#include "voxel_store.cuh"
#include "voxel_write.cuh"

namespace rc {

constexpr int kSparseThreads = 256;  // of a block at most

// 1 where a cell's points begin.
template <typename Key>
struct IsHead {
    const Key* keys;
    Key none;
    __device__ __forceinline__ uint32_t operator()(uint32_t p) const {
        const Key key = keys[p];
        return key != none && (p == 0 || keys[p - 1] != key) ? 1u : 0u;
    }
};

// Occupied cells across the batch are numbered in the order of their keys.
struct Cells {
    uint32_t* number;      // [N]: by position, cells that begin at or before it
    uint32_t* begin;       // [N + 1]: by cell, position of its first point; one past the last cell, where points end
    uint32_t* base;        // [B + 1]: cells of the samples before b
    uint32_t* appearance;  // [N]: by point, cells whose first point it or an earlier point is; NULL when sorted
    uint32_t* flags;       // [N]: by point, 1 where it is its cell's first; NULL when sorted
    uint32_t* row_of;      // [N]: by cell, its row; NULL when sorted
    uint32_t* cell_of;     // [N]: by base[b] + row, its cell; NULL when sorted
};

struct SparseParams {
    Cells cells;
    int64_t batch;
    int64_t sample_cells;
    int64_t per_sample;
    const int64_t* row_splits;
    int32_t size[2];  // Y, Z
    int64_t max_voxels;
    int64_t max_points;
    int64_t num_rows;  // B * V
    bool short_rows;   // all of them, or all slots, below 2^31: the divisions below hold
    FastDivide by_voxels;
    FastDivide by_points;
    int32_t* coords;
    int64_t* num_voxels;
    int64_t* inverse;
    int64_t* slots;
    void* gathered;
    int32_t gathered_dtype;
    CellOutput count;
    FeatureOutput outputs[6];
    int32_t num_outputs;
    double empty_value;
};

// Cells before each sample, and where the last cell's points end.
template <typename Key>
__global__ __launch_bounds__(kSparseThreads) void base_kernel(const __grid_constant__ SparseParams params,
                                                              const Key* __restrict__ keys, uint32_t n) {
    const int64_t b = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
    if (b > params.batch) {
        return;
    }
    const uint32_t at = warp_lower_bound(keys, n, static_cast<Key>(b * params.sample_cells));
    if ((threadIdx.x & 31) == 0) {
        const uint32_t before = at > 0 ? params.cells.number[at - 1] : 0;
        params.cells.base[b] = before;
        if (b == params.batch) {
            params.cells.begin[before] = at;
        }
    }
}

template <typename Key>
__global__ __launch_bounds__(kSparseThreads) void begin_kernel(const __grid_constant__ SparseParams params,
                                                               const Key* __restrict__ keys,
                                                               const uint32_t* __restrict__ order, uint32_t n,
                                                               Key none) {
    const uint64_t p = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (p >= n) {
        return;
    }
    const IsHead<Key> is_head{keys, none};
    const bool head = is_head(static_cast<uint32_t>(p)) != 0;
    if (head) {
        params.cells.begin[params.cells.number[p] - 1] = static_cast<uint32_t>(p);
    }
    if (params.cells.flags != nullptr) {
        params.cells.flags[order[p]] = head ? 1u : 0u;  // every point stands at one position
    }
}

// First appearance: from cells to rows and back.
template <typename Key>
__global__ __launch_bounds__(kSparseThreads) void appearance_kernel(const __grid_constant__ SparseParams params,
                                                                    const Key* __restrict__ keys,
                                                                    const uint32_t* __restrict__ order, uint32_t n,
                                                                    Key none) {
    const uint64_t p = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const IsHead<Key> is_head{keys, none};
    if (p >= n || is_head(static_cast<uint32_t>(p)) == 0) {
        return;
    }
    const uint32_t cell = params.cells.number[p] - 1;
    const uint32_t base = params.cells.base[keys[p] / static_cast<Key>(params.sample_cells)];
    // Points of the samples before come first in either order, and so do their cells.
    const uint32_t place = params.cells.appearance[order[p]] - 1;
    params.cells.row_of[cell] = place - base;
    params.cells.cell_of[place] = cell;
}

// By position: the row of each point, and its place among the points that are gathered.
template <typename Key>
__global__ __launch_bounds__(kSparseThreads) void inverse_kernel(const __grid_constant__ SparseParams params,
                                                                 const Key* __restrict__ keys,
                                                                 const uint32_t* __restrict__ order, uint32_t n,
                                                                 Key none) {
    const uint64_t p = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (p >= n) {
        return;
    }
    const Key key = keys[p];
    int64_t row = -1, slot = -1;
    if (key != none) {
        const uint32_t cell = params.cells.number[p] - 1;
        row = params.cells.row_of != nullptr ? params.cells.row_of[cell]
                                             : cell - params.cells.base[key / static_cast<Key>(params.sample_cells)];
        if (row >= params.max_voxels) {
            row = -1;
        } else {
            const int64_t place = static_cast<int64_t>(p) - params.cells.begin[cell];
            slot = place < params.max_points ? row * params.max_points + place : -1;
        }
    }
    const uint32_t point = order[p];
    if (params.inverse != nullptr) {
        params.inverse[point] = row;
    }
    if (params.slots != nullptr) {
        params.slots[point] = slot;
    }
}

// A row across the batch to its sample.
__device__ __forceinline__ int64_t sample_of_row(const SparseParams& params, int64_t at) {
    return params.short_rows ? params.by_voxels.quotient(static_cast<uint32_t>(at)) : at / params.max_voxels;
}

// Row of a sample to its cell; false: the row is not used.
__device__ __forceinline__ bool cell_of_row(const SparseParams& params, int64_t b, int64_t row, uint32_t* cell) {
    const uint32_t base = params.cells.base[b];
    if (row >= params.cells.base[b + 1] - base) {
        return false;
    }
    const uint32_t place = base + static_cast<uint32_t>(row);
    *cell = params.cells.cell_of != nullptr ? params.cells.cell_of[place] : place;
    return true;
}

}  // namespace rc
