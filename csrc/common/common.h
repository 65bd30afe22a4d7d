/* Shared by the CPU and CUDA entry points: errors, launch counters and the checks of a call's descriptor. */
#ifndef RC_COMMON_H
#define RC_COMMON_H

#include "../core/bracket.h"
#include "robocache.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define RC_PRINTF(at, first) __attribute__((format(printf, at, first)))
#else
#define RC_PRINTF(at, first)
#endif

/* Stores the message for rc_last_error() and returns `status`. */
rc_status rc_fail(rc_status status, const char *format, ...) RC_PRINTF(2, 3);

/* rc_fail(RC_BAD_DATA) with the report's own sentence. */
rc_status rc_fail_fault(const rc_fault_report *report);

/* Adds one to a kernel's counter; any thread. */
void rc_count_launch(int32_t kernel);

/* Everything about a call that its descriptor alone can tell: sizes, pointers, enums, groups, combinations. Reads no
 * data. Names the argument, what was expected and what came. */
rc_status rc_check_align_call(const rc_align_call *call);
rc_status rc_check_align_grad_call(const rc_align_grad_call *call);
rc_status rc_check_voxel_call(const rc_voxel_call *call); /* a dense call */
rc_status rc_check_sparse_call(const rc_sparse_call *call);
rc_status rc_check_voxel_grad_call(const rc_voxel_grad_call *call);
rc_status rc_check_devoxelize_call(const rc_devoxelize_call *call);
rc_status rc_check_devoxelize_grad_call(const rc_devoxelize_grad_call *call);
rc_status rc_check_copies(const rc_copy *copies, int32_t count, const char *name);
rc_status rc_check_copy_call(const rc_copy_call *call);
rc_status rc_check_replay_call(const rc_replay_call *call);

/* A stream's policy in the time dtype's terms. */
rc_policy rc_make_policy(const rc_stream *stream, int32_t time_dtype);

/* Bit k set: the stream has a column of kind k. */
uint32_t rc_kinds_of(const rc_stream *stream);

bool rc_dtype_is_float(int32_t dtype);

/* a * b for sizes that are not negative; false when it leaves int64. */
RC_INLINE bool rc_product(int64_t a, int64_t b, int64_t *result) {
    if (a != 0 && b > INT64_MAX / a) {
        return false;
    }
    *result = a * b;
    return true;
}

/* "float32", ...; "an unknown dtype" past the last. Never NULL. */
const char *rc_dtype_name(int32_t dtype);

#ifdef __cplusplus
}
#endif

#endif /* RC_COMMON_H */
