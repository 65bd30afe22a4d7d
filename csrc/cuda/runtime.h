// CUDA state shared by the launchers: errors, the device's fault note.
#pragma once

#include <cuda_runtime_api.h>

#include "../common/common.h"

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
