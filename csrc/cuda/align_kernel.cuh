// The align kernel: one warp, one tile of one unit. Warps do not wait for each other.
#pragma once

#include "align_general.cuh"
#include "align_kernels.h"

namespace rc {

// Everything a tile's second half needs to know.
template <typename AnyRecord>
struct Tile {
    const StreamParams& s;
    const UnitParams& unit;
    const CallParams& call;
    int64_t row0;
    int32_t count;
    uint32_t first_chunk;
    uint32_t chunks;
    int32_t lane;
    const AnyRecord* records;
    const RowExtra* extras;
};

template <typename Value, typename Out, int kVector, bool kFlat, int kInFlight, typename AnyRecord>
__device__ __forceinline__ void mix(const Tile<AnyRecord>& tile) {
    const CallParams& call = tile.call;
    const int64_t column = tile.unit.out_column + static_cast<int64_t>(tile.first_chunk) * kVector;
    TileView<Value, Out, AnyRecord> view;
    view.records = tile.records;
    view.extras = tile.extras;
    view.count = tile.count;
    view.chunks = tile.chunks;
    view.by_chunks = tile.chunks == tile.unit.tile_chunks ? tile.unit.by_tile_chunks : tile.unit.by_last_chunks;
    view.sample_stride = tile.s.values_stride[1];
    view.column_stride = tile.s.values_stride[2];
    view.out_column_stride = call.out_stride[2];
    view.out_row_stride = static_cast<uint32_t>(call.out_stride[1]);
    view.out = static_cast<Out*>(call.out) + column * (kVector > 1 ? 1 : call.out_stride[2]) +
               (kFlat ? tile.row0 * call.out_stride[1] : 0);
    view.split_store = kFlat && call.split_store;
    view.angle = tile.unit.kind == RC_ANGLE;
    mix_tile<Value, Out, kVector, kFlat, kInFlight>(view, tile.lane);
}

template <typename Value, typename Out>
__device__ __forceinline__ void mix_any_width(const Tile<WideRecord>& tile) {
    // Widest vector whose elements fill at most 16 bytes on either side.
    constexpr int widest = 16 / (sizeof(Value) > sizeof(Out) ? sizeof(Value) : sizeof(Out));
    switch (tile.unit.vector) {
    case 8:
        if constexpr (widest >= 8) {
            mix<Value, Out, 8, false, 4>(tile);
        }
        break;
    case 4:
        if constexpr (widest >= 4) {
            mix<Value, Out, 4, false, 4>(tile);
        }
        break;
    case 2:
        mix<Value, Out, 2, false, 4>(tile);
        break;
    default:
        mix<Value, Out, 1, false, 4>(tile);
    }
}

template <typename Out>
__device__ __forceinline__ void mix_any_type(const Tile<WideRecord>& tile) {
    switch (tile.s.value_dtype) {
    case RC_FLOAT16:
        return mix_any_width<half, Out>(tile);
    case RC_BFLOAT16:
        return mix_any_width<bfloat16, Out>(tile);
    case RC_FLOAT32:
        return mix_any_width<float, Out>(tile);
    default:
        return mix_any_width<double, Out>(tile);
    }
}

// Second halves. Plain: every stream has one floating type, the output's; its code is small enough to stay in the
// instruction cache of a call that lasts microseconds. kVector 0: each unit has its own width, of three. kDepth trades
// loads in flight a lane for resident warps; kRows are a tile's at most.
template <typename T, int kVector, int kDepth, int kResident, int kRows>
struct Plain {
    static constexpr bool general = false;
    static constexpr int rows = kRows;
    static constexpr int resident_blocks = kResident;
    using AnyRecord = std::conditional_t<std::is_same_v<T, double>, WideRecord, Record>;
    template <typename Time>
    static __device__ __forceinline__ void run(const Tile<AnyRecord>& tile) {
        constexpr int widest = 16 / sizeof(T);
        if constexpr (kVector > 0) {
            mix<T, T, kVector, true, kDepth>(tile);
        } else if (tile.unit.vector == widest) {
            mix<T, T, widest, true, kDepth>(tile);
        } else if (widest > 2 && tile.unit.vector == widest / 2) {
            mix<T, T, widest / 2, true, kDepth>(tile);
        } else {
            mix<T, T, 1, true, kDepth>(tile);
        }
    }
};

// General: any kind, any mixture of types, any strides.
template <typename Out>
struct General {
    static constexpr bool general = true;
    static constexpr int rows = kLanes;
    static constexpr int resident_blocks = kGeneralBlocks;
    using AnyRecord = WideRecord;
    template <typename Time>
    static __device__ __forceinline__ void run(const Tile<WideRecord>& tile) {
        const int32_t dtype = tile.s.value_dtype;
        const int32_t kind = tile.unit.kind;
        const int64_t out_column = tile.unit.out_column + static_cast<int64_t>(tile.first_chunk) * tile.unit.vector;
        const bool whole = tile.chunks == tile.unit.tile_chunks;
        const GeneralView view{tile.s,       tile.unit,
                               tile.chunks,  whole ? tile.unit.by_tile_chunks : tile.unit.by_last_chunks,
                               out_column,   tile.call.out_stride[2],
                               tile.records, tile.extras,
                               tile.count,   tile.lane};
        if constexpr (std::is_same_v<Out, IntegerOut>) {
            integer_tile(view, Sink<IntegerOut>{tile.call.out, tile.call.out_dtype});
        } else if (is_integer_dtype(dtype)) {
            integer_tile(view, Sink<Out>{static_cast<Out*>(tile.call.out)});
        } else if (rc_is_step_kind(kind) || kind == RC_LINEAR || kind == RC_ANGLE) {
            mix_any_type<Out>(tile);
        } else {
            curve_tile<Out, Time>(view, Sink<Out>{static_cast<Out*>(tile.call.out)});
        }
    }
};

template <typename Time, typename Path, typename Params>
__global__ void __launch_bounds__(kAlignThreads, Path::resident_blocks)
    align_kernel(const __grid_constant__ Params p, rc_fault_report* note) {
    using AnyRecord = typename Path::AnyRecord;
    __shared__ AnyRecord all_records[kAlignWarps][Path::rows];
    __shared__ RowExtra all_extras[Path::general ? kAlignWarps : 1][kLanes];
    const uint32_t warp = threadIdx.x / kLanes;
    const uint32_t block_warps = blockDim.x / kLanes;
    const int32_t lane = static_cast<int32_t>(threadIdx.x % kLanes);
    if (blockIdx.x >= p.call.first_check_block) {
        const uint32_t index = (blockIdx.x - p.call.first_check_block) * block_warps + warp;
        int k = 0;
        if constexpr (Params::max_streams > 1) {
            while (k + 1 < p.call.num_streams && index >= p.streams[k].end_check) {
                ++k;
            }
        }
        const StreamParams& s = p.streams[k];
        if (index < s.end_check) {
            check_slice<Time>(s, k, index - s.first_check, lane, note);
        }
        return;
    }
    int u = 0;
    if constexpr (Params::max_units > 1) {
        while (u + 1 < p.call.num_units && blockIdx.x >= p.units[u + 1].first_block) {
            ++u;
        }
    }
    const UnitParams& unit = p.units[u];
    const StreamParams& s = p.streams[Params::max_streams > 1 ? unit.stream : 0];
    const CallParams& call = p.call;
    const uint32_t index = (blockIdx.x - unit.first_block) * block_warps + warp;
    if (index >= unit.tiles) {
        return;
    }
    const uint32_t row_tile = unit.column_tiles.quotient(index);
    const uint32_t first_chunk = (index - row_tile * unit.column_tiles.divisor) * unit.tile_chunks;
    const int64_t row0 = static_cast<int64_t>(row_tile) * unit.tile_rows;
    const int32_t count = static_cast<int32_t>(
        min(static_cast<int64_t>(unit.tile_rows), call.batch * call.num_targets - row0));
    const bool leads = unit.leads && first_chunk == 0;
    AnyRecord* records = all_records[warp];
    RowExtra* extras = Path::general ? all_extras[Path::general ? warp : 0] : nullptr;
    const int64_t column = (unit.column + static_cast<int64_t>(first_chunk) * unit.vector) * s.values_stride[2];
    const char* base = static_cast<const char*>(s.values) + column * unit.value_bytes;
    if constexpr (Path::general) {
        if (lane < count) {
            locate<Time>(s, unit, call, row0 + lane, leads, base, &records[lane], extras + lane, note);
        }
    } else {
        if (unit.prefetch) {
            prefetch_times<Time>(s, call, row0, count, lane);
        }
        if (Path::rows > kLanes && count > kLanes) {
            locate_rows<2, Time>(s, unit, call, row0, count, lane, leads, base, records, note);
        } else {
            locate_rows<1, Time>(s, unit, call, row0, count, lane, leads, base, records, note);
        }
    }
    __syncwarp();
    if (unit.columns > 0) {
        const uint32_t chunks = min(unit.tile_chunks, unit.chunks - first_chunk);
        Path::template run<Time>(
            Tile<AnyRecord>{s, unit, call, row0, count, first_chunk, chunks, lane, records, extras});
    }
}

}  // namespace rc
