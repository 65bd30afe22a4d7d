// rc_voxelize_cuda: check, pick a way, run it.
#include "voxel_dense.h"
#include "voxel_sorted.h"

namespace rc {

const rc_voxel_output* find_output(const rc_voxel_call& call, int32_t reduce) {
    for (int32_t o = 0; o < call.num_outputs; ++o) {
        if (call.outputs[o].reduce == reduce) {
            return &call.outputs[o];
        }
    }
    return nullptr;
}

namespace {

enum class Way { kSharedBits, kGlobal, kPartition, kSort };

constexpr int64_t kFewPoints = 1000000;

Way pick_way(const rc_voxel_call& call, int multiprocessors) {
    if (wants_of(call) != 0) {
        return Way::kSort;
    }
    if (shared_bits_takes(call, multiprocessors)) {
        return Way::kSharedBits;
    }
    // Of few points, counting takes less than sorting them by slab.
    if (find_output(call, RC_REDUCE_COUNT) != nullptr && total_points(call) < kFewPoints) {
        return Way::kGlobal;
    }
    // How skewed a cloud is, the host does not know. Sorting by slab pays on scattered points; where neighbours share cells,
    // writing to them directly may take less (rows `-scan` and `-onecell` of docs/performance.md beside the uniform ones).
    return call.num_outputs > 0 && partition_takes(call, multiprocessors) ? Way::kPartition : Way::kGlobal;
}

rc_status run_way(Way way, VoxelRun* run) {
    switch (way) {
    case Way::kSharedBits:
        return voxelize_shared_bits(run);
    case Way::kGlobal:
        return voxelize_global(run);
    case Way::kPartition:
        return voxelize_partition(run);
    default:
        return voxelize_sorted(run);
    }
}

int32_t counter_of(Way way) {
    switch (way) {
    case Way::kSharedBits:
        return RC_KERNEL_VOXELIZE_SHARED_BITS_CUDA;
    case Way::kGlobal:
        return RC_KERNEL_VOXELIZE_GLOBAL_CUDA;
    case Way::kPartition:
        return RC_KERNEL_VOXELIZE_PARTITION_CUDA;
    default:
        return RC_KERNEL_VOXELIZE_SORT_CUDA;
    }
}

// A row of packed bits may lie across two tiles: then the bits of a call with features are a run of their own.
bool splits_bits(const rc_voxel_call& call) {
    const rc_voxel_output* occupancy = find_output(call, RC_REDUCE_OCCUPANCY);
    return occupancy != nullptr && occupancy->dtype == RC_BITS && call.grid.size[2] % 8 != 0 && wants_of(call) != 0;
}

rc_status run_dense(const rc_voxel_call& call, rc_fault_report* note, int multiprocessors, Workspace* workspace,
                    bool dry) {
    VoxelRun run{};
    run.call = &call;
    run.source = voxel_params(call, note, &run.params);
    run.workspace = workspace;
    run.stream = static_cast<cudaStream_t>(call.cuda_stream);
    run.multiprocessors = multiprocessors;
    run.dry = dry;
    if (!dry && call.dropped != nullptr) {
        const rc_status status = check_cuda(
            cudaMemsetAsync(call.dropped, 0, static_cast<size_t>(call.batch) * sizeof *call.dropped, run.stream),
            "clearing the counts of dropped points");
        if (status != RC_OK) {
            return status;
        }
    }
    return run_way(pick_way(call, multiprocessors), &run);
}

rc_status run_call(const rc_voxel_call& call, rc_fault_report* note, int multiprocessors, Workspace* workspace,
                   bool dry) {
    if (call.depth != nullptr &&
        call.depth->num_cameras * call.depth->height * call.depth->width > int64_t{INT32_MAX}) {
        return rc_fail(RC_UNSUPPORTED, "depth: at most 2^31 - 1 pixels a sample on CUDA");
    }
    if (!splits_bits(call)) {
        return run_dense(call, note, multiprocessors, workspace, dry);
    }
    rc_voxel_output others[RC_MAX_VOXEL_OUTPUTS];
    rc_voxel_call features = call;
    features.outputs = others;
    features.num_outputs = 0;
    for (int32_t o = 0; o < call.num_outputs; ++o) {
        if (call.outputs[o].reduce != RC_REDUCE_OCCUPANCY) {
            others[features.num_outputs++] = call.outputs[o];
        }
    }
    rc_voxel_call bits = call;
    bits.outputs = find_output(call, RC_REDUCE_OCCUPANCY);
    bits.num_outputs = 1;
    bits.dropped = nullptr;
    bits.inverse = nullptr;
    const rc_status status = run_dense(features, note, multiprocessors, workspace, dry);
    return status == RC_OK ? run_dense(bits, note, multiprocessors, workspace, dry) : status;
}

}  // namespace

}  // namespace rc

extern "C" rc_status rc_voxelize_cuda_workspace(const rc_voxel_call* call, size_t* bytes) {
    if (bytes == nullptr) {
        return rc_fail(RC_INVALID_ARGUMENT, "bytes: expected a pointer, got NULL");
    }
    *bytes = 0;
    if (!rc_cuda_available()) {
        return rc_fail(RC_NO_CUDA, "rc_voxelize_cuda_workspace: %s", rc_cuda_why_not());
    }
    const rc::DeviceScope scope(call->device);
    if (scope.status() != RC_OK) {
        return scope.status();
    }
    rc::Workspace workspace(nullptr);
    const rc_status status = rc::run_call(*call, nullptr, rc::multiprocessors(call->device), &workspace, true);
    *bytes = workspace.used();
    return status;
}

extern "C" rc_status rc_voxelize_cuda(const rc_voxel_call* call) {
    rc_status status = rc_check_voxel_call(call);
    if (status != RC_OK) {
        return status;
    }
    if (!rc_cuda_available()) {
        return rc_fail(RC_NO_CUDA, "rc_voxelize_cuda: %s", rc_cuda_why_not());
    }
    if (call->batch == 0) {
        return RC_OK;
    }
    const rc::DeviceScope scope(call->device);
    if (scope.status() != RC_OK) {
        return scope.status();
    }
    rc_fault_report* note = nullptr;
    status = rc::fault_note(call->device, &note);
    if (status != RC_OK) {
        return status;
    }
    const int multiprocessors = rc::multiprocessors(call->device);
    rc::Workspace needed(nullptr);
    status = rc::run_call(*call, note, multiprocessors, &needed, true);
    if (status != RC_OK) {
        return status;
    }
    if (needed.used() > call->workspace_size || (needed.used() > 0 && call->workspace == nullptr)) {
        return rc_fail(RC_INVALID_ARGUMENT, "workspace: expected %zu bytes, got %zu", needed.used(),
                       call->workspace_size);
    }
    rc::Workspace workspace(call->workspace);
    status = rc::run_call(*call, note, multiprocessors, &workspace, false);
    if (status == RC_OK) {
        rc_count_launch(rc::counter_of(rc::pick_way(*call, multiprocessors)));  // of bits split off, the features' way
        rc_count_launch(RC_KERNEL_VOXELIZE_CUDA);
    }
    return status;
}
