/* Stands in for the CUDA sources in a build without them: every call says so. */
#include <string.h>

#include "../common/common.h"

static const char *const k_why =
    "this build holds no CUDA kernels (it was built without nvcc or with ROBOCACHE_CUDA=0)";

bool rc_cuda_available(void) {
    return false;
}

const char *rc_cuda_why_not(void) {
    return k_why;
}

rc_status rc_align_cuda(const rc_align_call *call) {
    (void)call;
    return rc_fail(RC_NO_CUDA, "rc_align_cuda: %s", k_why);
}

rc_status rc_align_backward_cuda(const rc_align_grad_call *call) {
    (void)call;
    return rc_fail(RC_NO_CUDA, "rc_align_backward_cuda: %s", k_why);
}

rc_status rc_voxelize_cuda(const rc_voxel_call *call) {
    (void)call;
    return rc_fail(RC_NO_CUDA, "rc_voxelize_cuda: %s", k_why);
}

rc_status rc_voxelize_sparse_cuda(const rc_sparse_call *call) {
    (void)call;
    return rc_fail(RC_NO_CUDA, "rc_voxelize_sparse_cuda: %s", k_why);
}

rc_status rc_voxelize_backward_cuda(const rc_voxel_grad_call *call) {
    (void)call;
    return rc_fail(RC_NO_CUDA, "rc_voxelize_backward_cuda: %s", k_why);
}

rc_status rc_devoxelize_cuda(const rc_devoxelize_call *call) {
    (void)call;
    return rc_fail(RC_NO_CUDA, "rc_devoxelize_cuda: %s", k_why);
}

rc_status rc_devoxelize_backward_cuda(const rc_devoxelize_grad_call *call) {
    (void)call;
    return rc_fail(RC_NO_CUDA, "rc_devoxelize_backward_cuda: %s", k_why);
}

rc_status rc_voxelize_cuda_workspace(const rc_voxel_call *call, size_t *bytes) {
    (void)call;
    if (bytes != NULL) {
        *bytes = 0;
    }
    return rc_fail(RC_NO_CUDA, "rc_voxelize_cuda_workspace: %s", k_why);
}

rc_status rc_voxelize_sparse_cuda_workspace(const rc_sparse_call *call, size_t *bytes) {
    (void)call;
    if (bytes != NULL) {
        *bytes = 0;
    }
    return rc_fail(RC_NO_CUDA, "rc_voxelize_sparse_cuda_workspace: %s", k_why);
}

rc_status rc_copy_many_cuda(const rc_copy_call *call) {
    (void)call;
    return rc_fail(RC_NO_CUDA, "rc_copy_many_cuda: %s", k_why);
}

rc_status rc_replay_graph_cuda(const rc_replay_call *call) {
    (void)call;
    return rc_fail(RC_NO_CUDA, "rc_replay_graph_cuda: %s", k_why);
}

rc_status rc_cuda_is_capturing(void *cuda_stream, bool *capturing) {
    (void)cuda_stream;
    if (capturing != NULL) {
        *capturing = false;
    }
    return rc_fail(RC_NO_CUDA, "rc_cuda_is_capturing: %s", k_why);
}

rc_status rc_cuda_mend_capture(void *cuda_stream) {
    (void)cuda_stream;
    return rc_fail(RC_NO_CUDA, "rc_cuda_mend_capture: %s", k_why);
}

rc_status rc_cuda_take_fault(int32_t device, rc_fault_report *report) {
    (void)device;
    if (report != NULL) {
        memset(report, 0, sizeof *report);
    }
    return rc_fail(RC_NO_CUDA, "rc_cuda_take_fault: %s", k_why);
}
