/* Checks of what rc_copy_many_cuda and rc_replay_graph_cuda are asked for. */
#include "common.h"

rc_status rc_check_copies(const rc_copy *copies, int32_t count, const char *name) {
    if (count < 0 || count > RC_MAX_COPIES) {
        return rc_fail(RC_INVALID_ARGUMENT, "num_%s: expected 0 .. %d, got %d", name, RC_MAX_COPIES, count);
    }
    if (count > 0 && copies == NULL) {
        return rc_fail(RC_INVALID_ARGUMENT, "%s: expected %d copies, got NULL", name, count);
    }
    for (int32_t i = 0; i < count; ++i) {
        const rc_copy *copy = &copies[i];
        const int32_t size = copy->element_size;
        if (size != 1 && size != 2 && size != 4 && size != 8 && size != 16) {
            return rc_fail(RC_INVALID_ARGUMENT, "%s[%d].element_size: expected 1, 2, 4, 8 or 16, got %d", name, i,
                           size);
        }
        if (copy->num_dims < 0 || copy->num_dims > RC_MAX_COPY_DIMS) {
            return rc_fail(RC_INVALID_ARGUMENT, "%s[%d].num_dims: expected 0 .. %d, got %d", name, i, RC_MAX_COPY_DIMS,
                           copy->num_dims);
        }
        if (copy->num_dims > 0 && (copy->sizes == NULL || copy->to_strides == NULL || copy->from_strides == NULL)) {
            return rc_fail(RC_INVALID_ARGUMENT, "%s[%d]: expected sizes and strides of %d dimensions, got NULL", name,
                           i, copy->num_dims);
        }
        int64_t elements = 1;
        for (int32_t d = 0; d < copy->num_dims; ++d) {
            if (copy->sizes[d] < 0) {
                return rc_fail(RC_INVALID_ARGUMENT, "%s[%d].sizes[%d]: expected 0 or more, got %lld", name, i, d,
                               (long long)copy->sizes[d]);
            }
            if (copy->sizes[d] > 1 && copy->to_strides[d] == 0 && copy->from_strides[d] != 0) {
                return rc_fail(RC_INVALID_ARGUMENT,
                               "%s[%d].to_strides[%d]: expected a place for each of %lld elements, got stride 0", name,
                               i, d, (long long)copy->sizes[d]);
            }
            if (!rc_product(elements, copy->sizes[d], &elements)) {
                return rc_fail(RC_INVALID_ARGUMENT, "%s[%d].sizes: more than 2^63 elements", name, i);
            }
        }
        if (elements > INT64_MAX / 16) {
            return rc_fail(RC_INVALID_ARGUMENT, "%s[%d].sizes: more than 2^59 elements", name, i);
        }
        if (elements > 0 && (copy->to == NULL || copy->from == NULL)) {
            return rc_fail(RC_INVALID_ARGUMENT, "%s[%d]: expected two pointers, got NULL", name, i);
        }
    }
    return RC_OK;
}

rc_status rc_check_copy_call(const rc_copy_call *call) {
    if (call == NULL || call->struct_size != sizeof(rc_copy_call)) {
        return rc_fail(RC_INVALID_ARGUMENT, "call: expected an rc_copy_call of %zu bytes", sizeof(rc_copy_call));
    }
    if (call->device < 0) {
        return rc_fail(RC_INVALID_ARGUMENT, "device: expected 0 or more, got %d", call->device);
    }
    return rc_check_copies(call->copies, call->num_copies, "copies");
}

rc_status rc_check_replay_call(const rc_replay_call *call) {
    if (call == NULL || call->struct_size != sizeof(rc_replay_call)) {
        return rc_fail(RC_INVALID_ARGUMENT, "call: expected an rc_replay_call of %zu bytes", sizeof(rc_replay_call));
    }
    if (call->device < 0) {
        return rc_fail(RC_INVALID_ARGUMENT, "device: expected 0 or more, got %d", call->device);
    }
    if (call->graph_exec == NULL) {
        return rc_fail(RC_INVALID_ARGUMENT, "graph_exec: expected an instantiated graph, got NULL");
    }
    const rc_status status = rc_check_copies(call->copies_in, call->num_copies_in, "copies_in");
    return status != RC_OK ? status : rc_check_copies(call->copies_out, call->num_copies_out, "copies_out");
}
