// Partial results of cells with many points, so that no cell is left to one group of lanes.
#include "voxel_reduce.cuh"

namespace rc {

namespace {

constexpr int kLevelThreads = 256;  // of a block at most

// Groups 2w and 2w + 1 look at window w of 128^level positions: for the block of a cell that began before it, and for the
// first block of a cell that begins in it. There is at most one of each.
template <typename Feature, int kVector, typename Key>
__global__ __launch_bounds__(kLevelThreads) void level_kernel(const __grid_constant__ ReduceParams reduce,
                                                              const Key* __restrict__ keys,
                                                              const uint32_t* __restrict__ order, uint32_t n, Key none,
                                                              int level, int64_t cells) {
    const uint32_t lanes = static_cast<uint32_t>(reduce.lanes);
    const uint64_t thread = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const uint64_t group = thread >> reduce.lane_shift;
    const uint32_t lane = static_cast<uint32_t>(thread) & (lanes - 1);
    const uint32_t shift = kBlockShift * static_cast<uint32_t>(level);
    const uint64_t size = uint64_t{1} << shift;
    const uint64_t window = (group >> 1) << shift;
    const bool first_block = (group & 1) != 0;
    const uint64_t at = first_block ? window + size : window;
    if (at >= n || at == 0) {
        return;
    }
    const Key key = __ldg(keys + at);
    if (key == none || (!first_block && __ldg(keys + at - 1) != key)) {
        return;
    }
    const uint32_t head = cell_begin(keys, static_cast<uint32_t>(at));
    if (head + size >= n || __ldg(keys + head + size) != key) {
        return;  // one block, which needs no partial result
    }
    uint64_t begin = head;
    if (first_block) {
        if (head < window || head >= window + size) {
            return;
        }
    } else {
        begin = head + ((window - head + size - 1) >> shift << shift);
        if (begin >= n || __ldg(keys + begin) != key) {
            return;
        }
    }
    // The block's end: whole, or where the cell ends.
    uint64_t end = begin + size;
    if (end > n || __ldg(keys + end - 1) != key) {
        uint64_t low = begin + 1, high = end < n ? end : n;  // keys[low - 1] == key
        while (low < high) {
            const uint64_t middle = low + (high - low) / 2;
            if (__ldg(keys + middle) == key) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        end = low;
    }
    const Reducer<Feature, kVector> reducer(reduce, order, static_cast<int64_t>(key / static_cast<Key>(cells)));
    for (int32_t column = static_cast<int32_t>(lane) * kVector; column < reduce.columns;
         column += static_cast<int32_t>(lanes) * kVector) {
        typename Reducer<Feature, kVector>::Acc acc;
        if (level == 1) {
            reducer.reduce_points(static_cast<uint32_t>(begin), static_cast<uint32_t>(end), column, &acc);
        } else {
            reducer.reduce_blocks(level - 1, head, static_cast<uint32_t>(begin), static_cast<uint32_t>(end), column,
                                  &acc);
        }
        reducer.store_block(level, head, static_cast<uint32_t>(begin), column, acc);
    }
}

template <typename Key>
rc_status launch_levels(const VoxelRun& run, const SortedPoints& sorted, const ReduceParams& reduce) {
    return with_feature(reduce, [&](auto type, auto vector) {
        using Feature = typename decltype(type)::type;
        const unsigned threads = launch_threads(RC_TUNE_VOXEL_LEVELS_THREADS, run.call->device, sorted.n);
        for (int level = 1; level <= reduce.num_levels; ++level) {
            const uint64_t windows = (sorted.n + (uint64_t{1} << (kBlockShift * level)) - 1) >> (kBlockShift * level);
            const uint64_t blocks = (2 * windows * static_cast<uint64_t>(reduce.lanes) + threads - 1) / threads;
            level_kernel<Feature, vector.value, Key><<<static_cast<unsigned>(blocks), threads, 0, run.stream>>>(
                reduce, static_cast<const Key*>(sorted.keys), sorted.order, sorted.n, static_cast<Key>(sorted.none),
                level, run.params.grid.cells);
            const rc_status status = check_cuda(cudaGetLastError(), "launching the level kernel");
            if (status != RC_OK) {
                return status;
            }
        }
        return RC_OK;
    });
}

}  // namespace

uint32_t wants_of(const rc_voxel_call& call) {
    uint32_t wants = 0;
    for (int32_t o = 0; o < call.num_outputs; ++o) {
        switch (call.outputs[o].reduce) {
        case RC_REDUCE_SUM:
        case RC_REDUCE_MEAN:
            wants |= kWantSum;
            break;
        case RC_REDUCE_MAX:
            wants |= kWantMax;
            break;
        case RC_REDUCE_MIN:
            wants |= kWantMin;
            break;
        case RC_REDUCE_ARGMAX:
            wants |= kWantMax | kWantArgmax;
            break;
        case RC_REDUCE_ARGMIN:
            wants |= kWantMin | kWantArgmin;
            break;
        default:
            break;
        }
    }
    return wants;
}

void reduce_params(VoxelRun* run, uint32_t wants, rc_tunable vector, ReduceParams* reduce) {
    const rc_voxel_call& call = *run->call;
    const rc_point_features& features = *call.features;
    *reduce = ReduceParams{};
    reduce->features = features.values;
    for (int d = 0; d < 4; ++d) {
        reduce->stride[d] = features.stride[d];
    }
    const VoxelPoints& points = run->params.points;
    reduce->per_sample = points.per_sample;
    reduce->columns = static_cast<int32_t>(features.num_columns);
    reduce->dtype = features.dtype;
    reduce->wants = wants;
    reduce->flat = points.row_splits != nullptr || call.batch == 1 ||
                   points.per_sample * features.stride[2] == features.stride[0];
    if (call.depth != nullptr) {
        reduce->cameras = true;
        reduce->pixels = points.pixels;
        reduce->by_pixels = points.by_pixels;
        reduce->flat = reduce->flat && (call.depth->num_cameras == 1 ||
                                        features.stride[1] == static_cast<int64_t>(points.pixels) * features.stride[2]);
    }
    // Four columns at once where every row allows the load.
    const size_t size = rc_dtype_size(features.dtype);
    const size_t align = size * 4 < 16 ? size * 4 : 16;
    bool wide = features.dtype != RC_FLOAT64 && features.dtype != RC_UINT8 && features.num_columns % 4 == 0 &&
                features.stride[3] == 1 && reinterpret_cast<uintptr_t>(features.values) % align == 0;
    for (int d = 0; d < 3; ++d) {
        wide = wide && features.stride[d] * static_cast<int64_t>(size) % static_cast<int64_t>(align) == 0;
    }
    reduce->vector = wide ? launch_parameter(vector, call.device, points.total) : 1;
    reduce->lanes = 1;
    while (reduce->lanes < 32 && reduce->lanes * reduce->vector < reduce->columns) {
        reduce->lanes *= 2;
        ++reduce->lane_shift;
    }
    const size_t values = (wants & kWantSum ? 1u : 0u) + (wants & kWantMax ? 1u : 0u) + (wants & kWantMin ? 1u : 0u);
    const size_t args = (wants & kWantArgmax ? 1u : 0u) + (wants & kWantArgmin ? 1u : 0u);
    const size_t real = features.dtype == RC_FLOAT64 ? 8 : 4;
    for (int level = 1; level <= kMaxLevels && points.total > int64_t{1} << (kBlockShift * level); ++level) {
        const size_t rows = 2 * (static_cast<size_t>(points.total >> (kBlockShift * level)) + 1);
        PartialLevel& piece = reduce->levels[level - 1];
        piece.values = run->workspace->take<char>(rows * values * static_cast<size_t>(reduce->columns) * real);
        piece.args = run->workspace->take<uint32_t>(rows * args * static_cast<size_t>(reduce->columns));
        reduce->num_levels = level;
    }
}

rc_status reduce_levels(const VoxelRun& run, const SortedPoints& sorted, const ReduceParams& reduce) {
    return sorted.wide ? launch_levels<uint64_t>(run, sorted, reduce) : launch_levels<uint32_t>(run, sorted, reduce);
}

}  // namespace rc
