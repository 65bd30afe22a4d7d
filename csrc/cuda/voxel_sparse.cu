// Occupied cells as rows: sort the points by cell, number the cells, reduce each. Nothing waits for the host: how many
// cells there are stays on the device, and every capacity is the caller's.
#include <cub/device/device_scan.cuh>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>

#include "voxel_sparse_cells.cuh"
#include "voxel_sparse_rows.cuh"

namespace rc {

namespace {

unsigned blocks_of(int64_t work, unsigned threads) {
    return static_cast<unsigned>((work + threads - 1) / threads);
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

        : run_(run), call_(call), sorted_(sorted), reduce_(reduce),
          by_points_(launch_threads(RC_TUNE_VOXEL_SPARSE_POINTS_THREADS, call.call->device, sorted.n)),
          by_rows_(launch_threads(RC_TUNE_VOXEL_SPARSE_ROWS_THREADS, call.call->device, sorted.n)) {}

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
            base_kernel<Key><<<blocks_of((call_.call->batch + 1) * 32, by_points_), by_points_, 0, run_->stream>>>(
                params_, keys(), sorted_.n);
            status = launched("launching the base kernel");
        }
        if (status == RC_OK && n > 0) {
            begin_kernel<Key><<<blocks_of(sorted_.n, by_points_), by_points_, 0, run_->stream>>>(
                params_, keys(), sorted_.order, sorted_.n, static_cast<Key>(sorted_.none));
            status = launched("launching the begin kernel");
        }
        if (status == RC_OK && n > 0 && call_.order == RC_ORDER_FIRST_APPEARANCE) {
            status = scan(scratch, &bytes, params_.cells.flags, params_.cells.appearance, sorted_.n, run_->stream);
            if (status == RC_OK) {
                appearance_kernel<Key><<<blocks_of(sorted_.n, by_points_), by_points_, 0, run_->stream>>>(
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
        const int64_t most = rows > call_.call->batch ? rows : call_.call->batch;
        coords_kernel<Key><<<blocks_of(most, by_rows_), by_rows_, 0, run_->stream>>>(params_, keys());
        rc_status status = launched("launching the coordinates kernel");
        if (status == RC_OK && sorted_.n > 0 && (params_.inverse != nullptr || params_.slots != nullptr)) {
            inverse_kernel<Key><<<blocks_of(sorted_.n, by_points_), by_points_, 0, run_->stream>>>(
                params_, keys(), sorted_.order, sorted_.n, static_cast<Key>(sorted_.none));
            status = launched("launching the inverse kernel");
        }
        if (status == RC_OK && params_.num_outputs > 0 && reduce_.columns > 0 && rows > 0) {
            status = reduce_levels(*run_, sorted_, reduce_);
            if (status == RC_OK) {
                status = write_features(rows);
            }
        }
        const int64_t slots = rows * call_.max_points;
        if (status == RC_OK && call_.max_points > 0 && reduce_.columns > 0 && slots > 0) {
            status = with_feature(reduce_, [&](auto type, auto vector) {
                gather_kernel<typename decltype(type)::type, vector.value>
                    <<<blocks_of(slots * reduce_.lanes, by_rows_), by_rows_, 0, run_->stream>>>(reduce_, params_,
                                                                                                sorted_.order);
                return launched("launching the gather kernel");
            });
        }
        return status;
    }

    rc_status write_features(int64_t rows) {
        const int32_t chosen = launch_parameter(RC_TUNE_VOXEL_SPARSE_ROWS_AHEAD, call_.call->device, sorted_.n);
        return with_feature_and_wants(reduce_, [&](auto type, auto vector, auto wants) {
            using Feature = typename decltype(type)::type;
            return with_ahead<has_aheads<Feature, vector.value, wants.value>()>(chosen, [&](auto ahead) {
                const int64_t groups = (rows + ahead.value - 1) / ahead.value;
                features_kernel<Feature, vector.value, wants.value, ahead.value>
                    <<<blocks_of(groups * reduce_.lanes, by_rows_), by_rows_, 0, run_->stream>>>(reduce_, params_,
                                                                                                 sorted_.order);
                return launched("launching the features kernel");
            });
        });
    }

    VoxelRun* run_;
    const rc_sparse_call& call_;
    const SortedPoints& sorted_;
    const ReduceParams& reduce_;
    const unsigned by_points_, by_rows_;  // threads of a block
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
        reduce_params(&run, wants_of(call), RC_TUNE_VOXEL_SPARSE_ROWS_VECTOR, &reduce);
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
    rc::Workspace workspace(nullptr);
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
    rc::Workspace needed(nullptr);
    status = rc::run_sparse(*call, note, &needed, true);
    if (status != RC_OK) {
        return status;
    }
    if (needed.used() > call->call->workspace_size || (needed.used() > 0 && call->call->workspace == nullptr)) {
        return rc_fail(RC_INVALID_ARGUMENT, "workspace: expected %zu bytes, got %zu", needed.used(),
                       call->call->workspace_size);
    }
    rc::Workspace workspace(call->call->workspace);
    status = rc::run_sparse(*call, note, &workspace, false);
    if (status == RC_OK) {
        rc_count_launch(RC_KERNEL_VOXELIZE_SPARSE_CUDA);
    }
    return status;
}
