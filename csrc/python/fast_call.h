// What every function of the fast path does: refuses calls that are not its own, and takes results from torch's
// allocator.
#ifndef ROBOCACHE_PYTHON_FAST_CALL_H
#define ROBOCACHE_PYTHON_FAST_CALL_H

#include "dlpack_read.h"

namespace robocache {

// NotImplemented, whatever error stands: the slow way has the good message.
PyObject *not_mine();

// 1: gradients are on, 0: off, -1: error.
int grad_mode();

// `backend` is "auto" or the device of `like`; a CUDA device has kernels, and nobody waits for faults.
bool backend_fits(PyObject *backend, const View &like);

// A contiguous tensor from torch's own allocator, on the device of `like`; the address of its elements.
Ref empty(const int64_t *sizes, int ndim, int32_t dtype, PyObject *like, const View &like_view, void **data);

// Tells autograd that `tensor` was written; false with a Python error.
bool note_written(PyObject *tensor);

// Device and stream of a CUDA call, threads of a CPU call that is not small. False where torch does not tell its stream.
template <typename Descriptor>
bool place(Descriptor &call, const View &like, bool small) {
    if (like.device_type == kCuda) {
        call.device = like.device_index;
        return config.api->current_work_stream(kCuda, like.device_index, &call.cuda_stream) == 0;
    }
    call.parallel_for = small ? nullptr : config.parallel_for;
    return true;
}

// True where nothing was done: the arguments do not fit, and the slow way says so in its own words.
inline bool is_refusal(rc_status status) {
    return status == RC_INVALID_ARGUMENT || status == RC_UNSUPPORTED || status == RC_NO_CUDA;
}

} // namespace robocache

#endif // ROBOCACHE_PYTHON_FAST_CALL_H
