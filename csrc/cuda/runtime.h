// CUDA state shared by the launchers: errors, the device's fault note.
#pragma once

#include <cuda_runtime_api.h>

#include "../common/common.h"
#include "../common/launch_table.h"

namespace rc {

// rc_fail(RC_CUDA_ERROR) naming the call that failed; RC_OK passes.
rc_status check_cuda(cudaError_t error, const char* what);

// Makes `device` current for a scope; costs one call where it is already.
class DeviceScope {
public:
    explicit DeviceScope(int32_t device);
    ~DeviceScope();
    DeviceScope(const DeviceScope&) = delete;
    DeviceScope& operator=(const DeviceScope&) = delete;
    rc_status status() const { return status_; }

private:
    int previous_ = -1;
    rc_status status_ = RC_OK;
};

// Multiprocessors of a device, asked once.
int multiprocessors(int32_t device);

// Bytes of shared memory that a block may ask for, asked once.
int shared_memory(int32_t device);

// True where a kernel can be launched before the one it waits for has ended (compute capability 9 and later); asked once.
bool launches_early(int32_t device);

// Its compute capability as the launch table has it: 10 * major + minor; asked once.
int compute_capability(int32_t device);

// A launch parameter for a call of so much work on a device. The call's `work` is counted as the tunable says.
inline int32_t launch_parameter(rc_tunable tunable, int32_t device, int64_t work) {
    return rc_launch_value(tunable, compute_capability(device), work);
}

// Threads of a block, where that is a launch parameter.
inline unsigned launch_threads(rc_tunable tunable, int32_t device, int64_t work) {
    return static_cast<unsigned>(launch_parameter(tunable, device, work));
}

// Blocks of `threads` for `work` threads that stride: at most `fill` threads a multiprocessor, and at least one block.
inline unsigned striding_blocks(int64_t work, unsigned threads, int32_t fill, int multiprocessors) {
    const int64_t turns = (work + threads - 1) / threads;
    const int64_t most = static_cast<int64_t>(multiprocessors) * (fill / static_cast<int32_t>(threads));
    return static_cast<unsigned>(turns < most ? (turns > 0 ? turns : 1) : most);
}

// The fault note of `device` as kernels see it. Kernels get it as an argument, because a __device__ variable is one
// copy per translation unit.
rc_status fault_note(int32_t device, rc_fault_report** note);

#ifdef __CUDACC__
// The first fault since the last rc_cuda_take_fault stays; later ones are dropped.
__device__ inline void note_fault(rc_fault_report* note, int32_t fault, int32_t stream, int64_t row, int64_t position) {
    if (atomicCAS(&note->fault, RC_FAULT_NONE, fault) == RC_FAULT_NONE) {
        note->stream = stream;
        note->row = row;
        note->position = position;
    }
}
#endif

}  // namespace rc
