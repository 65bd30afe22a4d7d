// Occupied cells as rows: sort the points by cell, number the cells, reduce each. Nothing waits for the host: how many
// cells there are stays on the device, and every capacity is the caller's.
#include <cub/device/device_scan.cuh>
#include <cuda/std/iterator>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>

#include "voxel_store.cuh"
#include "voxel_write.cuh"

namespace rc {

namespace {

constexpr int kSparseThreads = 256;

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
    const int64_t b = (static_cast<int64_t>(blockIdx.x) * kSparseThreads + threadIdx.x) / 32;
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
    const uint64_t p = static_cast<uint64_t>(blockIdx.x) * kSparseThreads + threadIdx.x;
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
    const uint64_t p = static_cast<uint64_t>(blockIdx.x) * kSparseThreads + threadIdx.x;
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
    const uint64_t p = static_cast<uint64_t>(blockIdx.x) * kSparseThreads + threadIdx.x;
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

// A row's coordinates and count, one thread each; a sample's first row also says how many there are.
template <typename Key>
__global__ __launch_bounds__(kSparseThreads) void coords_kernel(const __grid_constant__ SparseParams params,
                                                                const Key* __restrict__ keys) {
    const int64_t at = static_cast<int64_t>(blockIdx.x) * kSparseThreads + threadIdx.x;
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
        switch (params.count.dtype) {
        case RC_INT32:
            static_cast<int32_t*>(params.count.data)[at] = count_value<int32_t>(count);
            break;
        case RC_INT64:
            static_cast<int64_t*>(params.count.data)[at] = count;
            break;
        case RC_INT16:
            static_cast<int16_t*>(params.count.data)[at] = count_value<int16_t>(count);
            break;
        case RC_INT8:
            static_cast<int8_t*>(params.count.data)[at] = count_value<int8_t>(count);
            break;
        case RC_UINT8:
            static_cast<uint8_t*>(params.count.data)[at] = count_value<uint8_t>(count);
            break;
        case RC_BOOL:
            static_cast<uint8_t*>(params.count.data)[at] = count != 0;
            break;
        case RC_FLOAT16:
            static_cast<half*>(params.count.data)[at] = count_value<half>(count);
            break;
        case RC_BFLOAT16:
            static_cast<bfloat16*>(params.count.data)[at] = count_value<bfloat16>(count);
            break;
        case RC_FLOAT32:
            static_cast<float*>(params.count.data)[at] = count_value<float>(count);
            break;
        default:
            static_cast<double*>(params.count.data)[at] = count_value<double>(count);
        }
    }
}

constexpr int kRowsAhead = 2;  // of a group of lanes: their points and features are on their way together

// The features of the rows, kRowsAhead a group of lanes.
template <typename Feature, int kVector, uint32_t kWants>
__global__ __launch_bounds__(kSparseThreads, light(kWants, sizeof(compute_t<Feature>))
                                                 ? 4
                                                 : 2) void features_kernel(const __grid_constant__ ReduceParams reduce,
                                                                           const __grid_constant__ SparseParams params,
                                                                           const uint32_t* __restrict__ order) {
    const int64_t thread = static_cast<int64_t>(blockIdx.x) * kSparseThreads + threadIdx.x;
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
    const int64_t thread = static_cast<int64_t>(blockIdx.x) * kSparseThreads + threadIdx.x;
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

unsigned blocks_of(int64_t threads) {
    return static_cast<unsigned>((threads + kSparseThreads - 1) / kSparseThreads);
}

rc_status launched(const char* what) {
    return check_cuda(cudaGetLastError(), what);
}

// Numbers cells along an array of flags. Without `scratch` only says how much it wants.
template <typename Flags>
rc_status scan(void* scratch, size_t* bytes, Flags flags, uint32_t* sums, uint32_t n, cudaStream_t stream) {
    return check_cuda(cub::DeviceScan::InclusiveSum(scratch, *bytes, flags, sums, static_cast<int64_t>(n), stream),
                      "numbering cells");
}

template <typename Key>
class SparseRun {
public:
    SparseRun(VoxelRun* run, const rc_sparse_call& call, const SortedPoints& sorted, const ReduceParams& reduce)
        : run_(run), call_(call), sorted_(sorted), reduce_(reduce) {}

    rc_status go() {
        fill();
        const size_t n = sorted_.n;
        const auto heads = thrust::make_transform_iterator(thrust::make_counting_iterator(0u),
                                                           IsHead<Key>{keys(), static_cast<Key>(sorted_.none)});
        size_t bytes = 0;
        size_t flag_bytes = 0;
        rc_status status = scan(nullptr, &bytes, heads, params_.cells.number, sorted_.n, run_->stream);
        if (status == RC_OK) {
            status = scan(nullptr, &flag_bytes, params_.cells.flags, params_.cells.appearance, sorted_.n, run_->stream);
        }
        if (status != RC_OK) {
            return status;
        }
        bytes = bytes > flag_bytes ? bytes : flag_bytes;
        char* scratch = run_->workspace->take<char>(bytes);
        if (run_->dry) {
            return RC_OK;
        }
        if (n > 0) {
            status = scan(scratch, &bytes, heads, params_.cells.number, sorted_.n, run_->stream);
        }
        if (status == RC_OK) {
            base_kernel<Key><<<blocks_of((call_.call->batch + 1) * 32), kSparseThreads, 0, run_->stream>>>(
                params_, keys(), sorted_.n);
            status = launched("launching the base kernel");
        }
        if (status == RC_OK && n > 0) {
            begin_kernel<Key><<<blocks_of(sorted_.n), kSparseThreads, 0, run_->stream>>>(
                params_, keys(), sorted_.order, sorted_.n, static_cast<Key>(sorted_.none));
            status = launched("launching the begin kernel");
        }
        if (status == RC_OK && n > 0 && call_.order == RC_ORDER_FIRST_APPEARANCE) {
            status = scan(scratch, &bytes, params_.cells.flags, params_.cells.appearance, sorted_.n, run_->stream);
            if (status == RC_OK) {
                appearance_kernel<Key><<<blocks_of(sorted_.n), kSparseThreads, 0, run_->stream>>>(
                    params_, keys(), sorted_.order, sorted_.n, static_cast<Key>(sorted_.none));
                status = launched("launching the appearance kernel");
            }
        }
        return status == RC_OK ? write() : status;
    }

private:
    const Key* keys() const { return static_cast<const Key*>(sorted_.keys); }

    void fill() {
        const rc_voxel_call& call = *call_.call;
        const size_t n = sorted_.n;
        Workspace& workspace = *run_->workspace;
        params_.cells.number = workspace.take<uint32_t>(n);
        params_.cells.begin = workspace.take<uint32_t>(n + 1);
        params_.cells.base = workspace.take<uint32_t>(static_cast<size_t>(call.batch) + 1);
        if (call_.order == RC_ORDER_FIRST_APPEARANCE) {
            params_.cells.appearance = workspace.take<uint32_t>(n);
            params_.cells.flags = workspace.take<uint32_t>(n);
            params_.cells.row_of = workspace.take<uint32_t>(n);
            params_.cells.cell_of = workspace.take<uint32_t>(n);
        }
        params_.batch = call.batch;
        params_.sample_cells = run_->params.grid.cells;
        params_.per_sample = run_->params.points.per_sample;
        params_.row_splits = run_->params.points.row_splits;
        params_.size[0] = run_->params.grid.size[1];
        params_.size[1] = run_->params.grid.size[2];
        params_.max_voxels = call_.max_voxels;
        params_.max_points = call_.max_points;
        params_.num_rows = call.batch * call_.max_voxels;
        const int64_t most = params_.num_rows * (call_.max_points > 0 ? call_.max_points : 1);
        params_.short_rows = most <= INT32_MAX && call_.max_points <= INT32_MAX && call_.max_voxels > 0;
        params_.by_voxels = FastDivide::by(params_.short_rows ? static_cast<uint32_t>(call_.max_voxels) : 1);
        params_.by_points = FastDivide::by(
            params_.short_rows && call_.max_points > 0 ? static_cast<uint32_t>(call_.max_points) : 1);
        params_.coords = call_.coords;
        params_.num_voxels = call_.num_voxels;
        params_.inverse = call.inverse;
        params_.slots = call_.slots;
        params_.gathered = call_.gathered;
        params_.gathered_dtype = call_.gathered_dtype;
        params_.empty_value = call.empty_value;
        for (int32_t o = 0; o < call.num_outputs; ++o) {
            const rc_voxel_output& output = call.outputs[o];
            if (output.reduce == RC_REDUCE_COUNT) {
                params_.count = {output.data, output.dtype, false};
            } else {
                params_.outputs[params_.num_outputs++] = {output.data, output.reduce, output.dtype};
            }
        }
    }

    rc_status write() {
        const int64_t rows = call_.call->batch * call_.max_voxels;
        coords_kernel<Key>
            <<<blocks_of(rows > call_.call->batch ? rows : call_.call->batch), kSparseThreads, 0, run_->stream>>>(
                params_, keys());
        rc_status status = launched("launching the coordinates kernel");
        if (status == RC_OK && sorted_.n > 0 && (params_.inverse != nullptr || params_.slots != nullptr)) {
            inverse_kernel<Key><<<blocks_of(sorted_.n), kSparseThreads, 0, run_->stream>>>(
                params_, keys(), sorted_.order, sorted_.n, static_cast<Key>(sorted_.none));
            status = launched("launching the inverse kernel");
        }
        if (status == RC_OK && params_.num_outputs > 0 && reduce_.columns > 0 && rows > 0) {
            status = reduce_levels(*run_, sorted_, reduce_);
            if (status == RC_OK) {
                status = with_feature_and_wants(reduce_, [&](auto type, auto vector, auto wants) {
                    features_kernel<typename decltype(type)::type, vector.value, wants.value>
                        <<<blocks_of((rows + kRowsAhead - 1) / kRowsAhead * reduce_.lanes), kSparseThreads, 0,
                           run_->stream>>>(reduce_, params_, sorted_.order);
                    return launched("launching the features kernel");
                });
            }
        }
        const int64_t slots = rows * call_.max_points;
        if (status == RC_OK && call_.max_points > 0 && reduce_.columns > 0 && slots > 0) {
            status = with_feature(reduce_, [&](auto type, auto vector) {
                gather_kernel<typename decltype(type)::type, vector.value>
                    <<<blocks_of(slots * reduce_.lanes), kSparseThreads, 0, run_->stream>>>(reduce_, params_,
                                                                                            sorted_.order);
                return launched("launching the gather kernel");
            });
        }
        return status;
    }

    VoxelRun* run_;
    const rc_sparse_call& call_;
    const SortedPoints& sorted_;
    const ReduceParams& reduce_;
    SparseParams params_{};
};

rc_status run_sparse(const rc_sparse_call& sparse, rc_fault_report* note, Workspace* workspace, bool dry) {
    const rc_voxel_call& call = *sparse.call;
    VoxelRun run{};
    run.call = &call;
    run.source = voxel_params(call, note, &run.params);
    run.params.inverse = nullptr;  // not the cell but the row is wanted
    run.workspace = workspace;
    run.stream = static_cast<cudaStream_t>(call.cuda_stream);
    run.multiprocessors = multiprocessors(call.device);
    run.dry = dry;
    if (call.depth != nullptr && run.params.points.per_sample > int64_t{INT32_MAX}) {
        return rc_fail(RC_UNSUPPORTED, "depth: at most 2^31 - 1 pixels a sample on CUDA");
    }
    int64_t items = call.batch * sparse.max_voxels;
    items *= sparse.max_points > 0 ? sparse.max_points : 1;
    if (items > int64_t{1} << 33) {
        return rc_fail(RC_UNSUPPORTED, "max_voxels: at most 2^33 rows or slots a call on CUDA, got %lld",
                       static_cast<long long>(items));
    }
    if (!dry && call.dropped != nullptr) {
        const rc_status status = check_cuda(
            cudaMemsetAsync(call.dropped, 0, static_cast<size_t>(call.batch) * sizeof *call.dropped, run.stream),
            "clearing the counts of dropped points");
        if (status != RC_OK) {
            return status;
        }
    }
    SortedPoints sorted;
    const rc_status status = sort_points(&run, &sorted);
    if (status != RC_OK) {
        return status;
    }
    ReduceParams reduce{};
    if (call.features != nullptr) {
        reduce_params(&run, wants_of(call), &reduce);
    }
    return sorted.wide ? SparseRun<uint64_t>(&run, sparse, sorted, reduce).go()
                       : SparseRun<uint32_t>(&run, sparse, sorted, reduce).go();
}

}  // namespace

}  // namespace rc

extern "C" rc_status rc_voxelize_sparse_cuda_workspace(const rc_sparse_call* call, size_t* bytes) {
    if (bytes == nullptr) {
        return rc_fail(RC_INVALID_ARGUMENT, "bytes: expected a pointer, got NULL");
    }
    *bytes = 0;
    if (!rc_cuda_available()) {
        return rc_fail(RC_NO_CUDA, "rc_voxelize_sparse_cuda_workspace: %s", rc_cuda_why_not());
    }
    const rc::DeviceScope scope(call->call->device);
    if (scope.status() != RC_OK) {
        return scope.status();
    }
    rc::Workspace workspace(nullptr, 0);
    const rc_status status = rc::run_sparse(*call, nullptr, &workspace, true);
    *bytes = workspace.used();
    return status;
}

extern "C" rc_status rc_voxelize_sparse_cuda(const rc_sparse_call* call) {
    rc_status status = rc_check_sparse_call(call);
    if (status != RC_OK) {
        return status;
    }
    if (!rc_cuda_available()) {
        return rc_fail(RC_NO_CUDA, "rc_voxelize_sparse_cuda: %s", rc_cuda_why_not());
    }
    if (call->call->batch == 0) {
        return RC_OK;
    }
    const rc::DeviceScope scope(call->call->device);
    if (scope.status() != RC_OK) {
        return scope.status();
    }
    rc_fault_report* note = nullptr;
    status = rc::fault_note(call->call->device, &note);
    if (status != RC_OK) {
        return status;
    }
    rc::Workspace needed(nullptr, 0);
    status = rc::run_sparse(*call, note, &needed, true);
    if (status != RC_OK) {
        return status;
    }
    if (needed.used() > call->call->workspace_size || (needed.used() > 0 && call->call->workspace == nullptr)) {
        return rc_fail(RC_INVALID_ARGUMENT, "workspace: expected %zu bytes, got %zu", needed.used(),
                       call->call->workspace_size);
    }
    rc::Workspace workspace(call->call->workspace, call->call->workspace_size);
    status = rc::run_sparse(*call, note, &workspace, false);
    if (status == RC_OK) {
        rc_count_launch(RC_KERNEL_VOXELIZE_SPARSE_CUDA);
    }
    return status;
}
