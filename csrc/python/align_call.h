// What the doors of alignment share: reading a call's streams and targets, and the rest of a call that was read.
#ifndef ROBOCACHE_PYTHON_ALIGN_CALL_H
#define ROBOCACHE_PYTHON_ALIGN_CALL_H

#include "dlpack_read.h"

namespace robocache {

bool read_targets(PyObject *target_times, bool grad_enabled, View *targets);

// `items` is a list of Stream that lives, and is not changed, for as long as the call is in use; `call.streams` has room
// for RC_MAX_STREAMS.
bool read_streams(PyObject *items, bool grad_enabled, Call &call);

// The rest of a call whose streams and targets are read: allocate, compute, wrap up.
PyObject *finish_align(Call &call, bool fused, PyObject *target_times, PyObject *return_valid, PyObject *out_dtype,
                       PyObject *out, PyObject *backend, bool grad_enabled);

} // namespace robocache

#endif // ROBOCACHE_PYTHON_ALIGN_CALL_H
