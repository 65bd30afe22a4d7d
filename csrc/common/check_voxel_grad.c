/* What the descriptor of a gradient of voxelize tells by itself. */
#include "check_voxel.h"

#include <inttypes.h>

#define INVALID(...) rc_fail(RC_INVALID_ARGUMENT, __VA_ARGS__)
#define UNSUPPORTED(...) rc_fail(RC_UNSUPPORTED, __VA_ARGS__)

static rc_status check_grad(const rc_voxel_grad_call *call, int32_t g, int64_t elements) {
    const rc_voxel_grad *grad = &call->grads[g];
    if (grad->reduce < RC_REDUCE_SUM || grad->reduce > RC_REDUCE_MIN) {
        return INVALID("grads[%" PRId32 "].reduce: expected sum, mean, max or min, got %" PRId32, g, grad->reduce);
    }
    if (!rc_dtype_is_float(grad->dtype)) {
        return INVALID("grads[%" PRId32 "].dtype: expected a floating dtype, got %s", g, rc_dtype_name(grad->dtype));
    }
    if (grad->reserved != 0) {
        return INVALID("grads[%" PRId32 "].reserved: expected 0, got %" PRId32, g, grad->reserved);
    }
    if (elements > 0 && !grad->grad) {
        return INVALID("grads[%" PRId32 "].grad: expected %" PRId64 " numbers, got NULL", g, elements);
    }
    if (grad->reduce == RC_REDUCE_MAX || grad->reduce == RC_REDUCE_MIN) {
        if (grad->arg_dtype != RC_INT32 && grad->arg_dtype != RC_INT64) {
            return INVALID("grads[%" PRId32 "].arg_dtype: expected int32 or int64, got %s", g,
                           rc_dtype_name(grad->arg_dtype));
        }
        if (elements > 0 && !grad->arg) {
            return INVALID("grads[%" PRId32 "].arg: expected the %s of the forward call, got NULL", g,
                           grad->reduce == RC_REDUCE_MAX ? "argmax" : "argmin");
        }
    }
    if (grad->reduce == RC_REDUCE_MEAN && elements > 0 && !call->counts) {
        return INVALID("counts: expected those of the forward call for mean, got NULL");
    }
    return RC_OK;
}

rc_status rc_check_voxel_grad_call(const rc_voxel_grad_call *call) {
    if (!call) {
        return INVALID("call: expected a descriptor, got NULL");
    }
    const rc_status status = rc_check_struct_size(call->struct_size, sizeof(rc_voxel_grad_call), "call");
    if (status != RC_OK) {
        return status;
    }
    if (call->reserved != 0) {
        return INVALID("reserved: expected 0, got %" PRId32, call->reserved);
    }
    if (call->num_grads < 0 || call->num_grads > RC_MAX_VOXEL_GRADS) {
        return INVALID("num_grads: expected 0 to %d, got %" PRId32, RC_MAX_VOXEL_GRADS, call->num_grads);
    }
    if (call->num_grads > 0 && !call->grads) {
        return INVALID("grads: expected %" PRId32 " gradients, got NULL", call->num_grads);
    }
    if (call->batch < 0 || call->num_points < 0 || call->num_rows < 0 || call->num_columns < 0) {
        return INVALID("call: expected sizes of 0 or more, got %" PRId64 " samples of %" PRId64 " points, %" PRId64
                       " rows, %" PRId64 " columns",
                       call->batch, call->num_points, call->num_rows, call->num_columns);
    }
    if (!rc_dtype_is_float(call->grad_dtype)) {
        return INVALID("grad_dtype: expected a floating dtype, got %s", rc_dtype_name(call->grad_dtype));
    }
    int64_t points = 0, elements = 0, rows = 0;
    if (!rc_product(call->row_splits ? 1 : call->batch, call->num_points, &points) ||
        !rc_product(points, call->num_columns, &elements) || elements > INT64_MAX / 8 ||
        !rc_product(call->batch, call->num_rows, &rows) || !rc_product(rows, call->num_columns, &rows) ||
        rows > INT64_MAX / 8) {
        return UNSUPPORTED("call: %" PRId64 " samples of %" PRId64 " points and %" PRId64 " rows of %" PRId64
                           " columns take more bytes than int64 counts",
                           call->batch, call->num_points, call->num_rows, call->num_columns);
    }
    if (points > 0 && !call->inverse) {
        return INVALID("inverse: expected that of the forward call, %" PRId64 " points, got NULL", points);
    }
    if (elements > 0 && !call->grad_features) {
        return INVALID("grad_features: expected [%" PRId64 ", %" PRId64 "], got NULL", points, call->num_columns);
    }
    for (int32_t g = 0; g < call->num_grads; ++g) {
        const rc_status found = check_grad(call, g, elements > 0 ? rows : 0);
        if (found != RC_OK) {
            return found;
        }
    }
    return RC_OK;
}
