// Features, channels last: empty cells are filled, rows go straight to the output.
#include "voxel_tiles.cuh"

namespace rc {

namespace {

template <typename T>
__device__ __forceinline__ void fill_cells(T* out, uint32_t n, T value, const uint4& word) {
    constexpr uint32_t per = 16 / sizeof(T);
    const uint32_t ahead = static_cast<uint32_t>((16 - (reinterpret_cast<uintptr_t>(out) & 15)) & 15) / sizeof(T);
    const uint32_t head = ahead < n ? ahead : n;
    const uint32_t words = (n - head) / per;
    if (threadIdx.x < head) {
        out[threadIdx.x] = value;
    }
    for (uint32_t w = threadIdx.x; w < words; w += kTileThreads) {
        reinterpret_cast<uint4*>(out + head)[w] = word;
    }
    for (uint32_t k = head + words * per + threadIdx.x; k < n; k += kTileThreads) {
        out[k] = value;
    }
}

// Writes `empty` to the cells of a tile that hold no point. False: also to some that do, which must then be written
// after a barrier: rows are no whole 16-byte words.
template <typename T>
__device__ __forceinline__ bool fill_empty(T* out, const Tile& tile, uint32_t n, uint32_t columns, T empty) {
    union {
        T elements[16 / sizeof(T)];
        uint4 word;
    } blank;
#pragma unroll
    for (uint32_t j = 0; j < 16 / sizeof(T); ++j) {
        blank.elements[j] = empty;
    }
    const uint32_t bytes = columns * static_cast<uint32_t>(sizeof(T));
    uint4* words = reinterpret_cast<uint4*>(out);
    if (bytes % 16 == 0 && (reinterpret_cast<uintptr_t>(out) & 15) == 0) {
        const uint32_t width = bytes / 16;
        if (width <= kTileThreads && kTileThreads % width == 0) {
            const uint32_t step = kTileThreads / width;
            uint32_t k = threadIdx.x / width;
            uint4* at = words + threadIdx.x;
            for (; k < n; k += step, at += kTileThreads) {
                if (tile.row_of[k] == kNoRow) {
                    __stcs(at, blank.word);
                }
            }
            return true;
        }
        for (uint32_t k = threadIdx.x / 32; k < n; k += kTileThreads / 32) {
            if (tile.row_of[k] == kNoRow) {
                for (uint32_t w = threadIdx.x & 31; w < width; w += 32) {
                    __stcs(words + static_cast<size_t>(k) * width + w, blank.word);
                }
            }
        }
        return true;
    }
    // Kept in the cache: rows are soon written into these words.
    fill_cells(out, n * columns, empty, blank.word);
    return false;
}

__device__ __forceinline__ bool fill_output(const FeatureOutput& output, const TileParams& params, const Tile& tile,
                                            int64_t first_cell, uint32_t n, int32_t columns) {
    const int64_t at = first_cell * columns;
    const uint32_t width = static_cast<uint32_t>(columns);
    const bool argument = is_argument(output.reduce);
    switch (output.dtype) {
    case RC_FLOAT16:
        return fill_empty(static_cast<half*>(output.data) + at, tile, n, width, narrow<half>(params.empty_value));
    case RC_BFLOAT16:
        return fill_empty(static_cast<bfloat16*>(output.data) + at, tile, n, width,
                          narrow<bfloat16>(params.empty_value));
    case RC_FLOAT32:
    case RC_INT32:
        return fill_empty(static_cast<uint32_t*>(output.data) + at, tile, n, width,
                          argument ? 0xffffffffu : __float_as_uint(static_cast<float>(params.empty_value)));
    default:
        return fill_empty(static_cast<unsigned long long*>(output.data) + at, tile, n, width,
                          argument ? ~0ull : static_cast<unsigned long long>(__double_as_longlong(params.empty_value)));
    }
}

// Fills the empty cells and stores the others. The features of a group's first rows are on their way meanwhile.
template <typename Feature, int kVector, uint32_t kWants, uint32_t kAhead>
__device__ __forceinline__ void write_channels_last(const ReduceParams& reduce, const TileParams& params,
                                                    const Tile& tile, int64_t sample, int64_t sample_begin,
                                                    int64_t first_cell, uint32_t num_cells) {
    const Reducer<Feature, kVector, kWants> reducer(reduce, tile.order, sample, tile.first);
    typename Reducer<Feature, kVector, kWants>::Ahead ahead[kAhead];
    const uint32_t groups = kTileThreads >> reduce.lane_shift;
    const uint32_t first_row = threadIdx.x >> reduce.lane_shift;
    const int32_t lane_columns = reduce.lanes * kVector;
    const int32_t first_column = static_cast<int32_t>(threadIdx.x & (static_cast<uint32_t>(reduce.lanes) - 1)) *
                                 kVector;
#pragma unroll
    for (uint32_t j = 0; j < kAhead; ++j) {
        const uint32_t row = first_row + j * groups;
        const bool some = row < tile.occupied && first_column < reduce.columns;
        ahead[j].begin = some ? tile.begin[row] : 0;
        ahead[j].end = some ? tile.begin[row + 1] : 0;
        reducer.ask_point(&ahead[j]);
    }
#pragma unroll
    for (uint32_t j = 0; j < kAhead; ++j) {
        reducer.ask_features(&ahead[j], first_column);
    }
    bool exact = true;
    for (int32_t o = 0; o < params.num_outputs; ++o) {
        exact = fill_output(params.outputs[o], params, tile, first_cell, num_cells, reduce.columns) && exact;
    }
    if (!exact) {
        __syncthreads();
    }
    const auto store = [&](const Accumulator<Feature, kVector>& row, int64_t to, uint32_t count) {
        for (int32_t o = 0; o < params.num_outputs; ++o) {
            store_row(params.outputs[o], row, to, count, sample_begin, params.empty_value);
        }
    };
    Accumulator<Feature, kVector> acc;
#pragma unroll
    for (uint32_t j = 0; j < kAhead; ++j) {
        if (ahead[j].begin < ahead[j].end && ahead[j].end - ahead[j].begin <= RC_SUM_BLOCK) {
            reducer.reduce_ahead(ahead[j], first_column, &acc);
            const int64_t cell = first_cell + tile.cell_of[first_row + j * groups];
            store(acc, cell * reduce.columns + first_column, ahead[j].end - ahead[j].begin);
        }
    }
    // What is left: further rows, rows of many points, and the columns that exceed what a group takes at once.
    for (uint32_t row = first_row, turn = 0; row < tile.occupied; row += groups, ++turn) {
        const uint32_t begin = tile.begin[row], end = tile.begin[row + 1];
        const int64_t cell = first_cell + tile.cell_of[row];
        for (int32_t column = first_column + (turn < kAhead && end - begin <= RC_SUM_BLOCK ? lane_columns : 0);
             column < reduce.columns; column += lane_columns) {
            reducer.reduce_cell(begin, end, column, &acc);
            store(acc, cell * reduce.columns + column, end - begin);
        }
    }
}

// Occupancy or count as int32 or float32, from the beginning of a 16-byte word on.
__device__ __forceinline__ void write_four_byte_cells(const CellOutput& out, bool occupancy, const Tile& tile,
                                                      int64_t first_cell, uint32_t n) {
    if (out.data == nullptr) {
        return;
    }
    const bool floating = out.dtype == RC_FLOAT32;
    const auto bits = [&](uint32_t row) {
        if (row == kNoRow) {
            return 0u;
        }
        const uint32_t count = occupancy ? 1u : tile.begin[row + 1] - tile.begin[row];
        return floating ? __float_as_uint(static_cast<float>(count)) : min(count, static_cast<uint32_t>(INT32_MAX));
    };
    uint32_t* data = static_cast<uint32_t*>(out.data) + first_cell;
    for (uint32_t w = threadIdx.x; w < n / 4; w += kTileThreads) {
        const uint2 rows = *reinterpret_cast<const uint2*>(tile.row_of + 4 * w);
        uint4 word = make_uint4(0, 0, 0, 0);
        if ((rows.x & rows.y) != 0xffffffffu) {
            word = make_uint4(bits(rows.x & 0xffffu), bits(rows.x >> 16), bits(rows.y & 0xffffu), bits(rows.y >> 16));
        }
        reinterpret_cast<uint4*>(data)[w] = word;
    }
    for (uint32_t k = n / 4 * 4 + threadIdx.x; k < n; k += kTileThreads) {
        data[k] = bits(tile.row_of[k]);
    }
}

// Blocks of a multiprocessor: as many as leave the registers that accumulators, and rows on their way, take.
constexpr int blocks_at_once(bool light, int ahead) {
    return light ? (ahead > kUsualAhead ? 4 : 5) : 2;
}

template <typename Feature, int kVector, uint32_t kWants, int kAhead, typename Key>
__global__ __launch_bounds__(kTileThreads,
                             blocks_at_once(light(kWants, sizeof(compute_t<Feature>)),
                                            kAhead)) void rows_kernel(const __grid_constant__ ReduceParams reduce,
                                                                      const __grid_constant__ TileParams params,
                                                                      const Key* __restrict__ keys,
                                                                      const uint32_t* __restrict__ order) {
    __shared__ __align__(16) uint16_t row_of[kMaxTileCells];
    __shared__ uint16_t cell_of[kMaxTileCells];
    __shared__ uint32_t begins[kMaxTileCells + 1];
    const TilePlace<Key> place(params);
    __shared__ uint32_t points[kTilePoints];
    Tile tile{row_of, cell_of, begins, points, nullptr, 0, 0};
    find_cells(keys, order, params, place, &tile);
    if (params.cells_with_rows) {
        write_four_byte_cells(params.count, false, tile, place.first_cell, place.num_cells);
        write_four_byte_cells(params.occupancy, true, tile, place.first_cell, place.num_cells);
    }
    write_channels_last<Feature, kVector, kWants, kAhead>(
        reduce, params, tile, place.sample, place.sample_begin(params), place.first_cell, place.num_cells);
}

template <typename Key>
rc_status launch(const VoxelRun& run, const SortedPoints& sorted, const ReduceParams& reduce, const TileParams& tile,
                 uint32_t tiles) {
    const int32_t chosen = launch_parameter(RC_TUNE_VOXEL_TILE_AHEAD, run.call->device, run.params.points.total);
    return with_feature_and_wants(reduce, [&](auto type, auto vector, auto wants) {
        using Feature = typename decltype(type)::type;
        // Grids whose cells take 64 bits are rare.
        constexpr bool any = has_aheads<Feature, vector.value, wants.value>() && sizeof(Key) == 4;
        return with_ahead<any>(chosen, [&](auto ahead) {
            rows_kernel<Feature, vector.value, wants.value, ahead.value, Key><<<tiles, kTileThreads, 0, run.stream>>>(
                reduce, tile, static_cast<const Key*>(sorted.keys), sorted.order);
            return check_cuda(cudaGetLastError(), "launching the rows kernel");
        });
    });
}

}  // namespace

rc_status launch_tile_rows(const VoxelRun& run, const SortedPoints& sorted, const ReduceParams& reduce,
                           const TileParams& tile, uint32_t tiles) {
    return sorted.wide ? launch<uint64_t>(run, sorted, reduce, tile, tiles)
                       : launch<uint32_t>(run, sorted, reduce, tile, tiles);
}

}  // namespace rc
