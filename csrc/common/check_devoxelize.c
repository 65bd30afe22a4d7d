/* What the descriptors of devoxelize calls tell by themselves. */
#include "check_voxel.h"

#include <inttypes.h>

#define INVALID(...) rc_fail(RC_INVALID_ARGUMENT, __VA_ARGS__)
#define UNSUPPORTED(...) rc_fail(RC_UNSUPPORTED, __VA_ARGS__)

/* All but the output; `elements`: those of out. */
static rc_status check_input(const rc_devoxelize_call *call, const char *name, int64_t *elements) {
    if (!call) {
        return INVALID("%s: expected a descriptor, got NULL", name);
    }
    rc_status status = rc_check_struct_size(call->struct_size, sizeof(rc_devoxelize_call), name);
    if (status != RC_OK) {
        return status;
    }
    if (call->mode != RC_DEVOXELIZE_NEAREST && call->mode != RC_DEVOXELIZE_TRILINEAR) {
        return INVALID("mode: expected 0 or 1, got %" PRId32, call->mode);
    }
    if (call->bounds < RC_BOUNDS_DROP || call->bounds > RC_BOUNDS_RAISE) {
        return INVALID("bounds: expected 0 to 2, got %" PRId32, call->bounds);
    }
    if (call->value_dtype < 0 || call->value_dtype >= RC_NUM_DTYPES) {
        return INVALID("value_dtype: expected 0 to %d, got %" PRId32, RC_NUM_DTYPES - 1, call->value_dtype);
    }
    if (call->mode == RC_DEVOXELIZE_TRILINEAR && !rc_dtype_is_float(call->value_dtype)) {
        return INVALID("grid: expected a floating dtype for trilinear, got %s", rc_dtype_name(call->value_dtype));
    }
    if (!call->cloud) {
        return INVALID("cloud: expected points, got NULL");
    }
    if (call->batch < 0) {
        return INVALID("batch: expected 0 or more, got %" PRId64, call->batch);
    }
    int64_t total = 0;
    status = rc_check_cloud(call->cloud, call->batch, &total);
    if (status == RC_OK) {
        status = rc_check_grid(&call->grid, call->batch, call->cloud->dtype == RC_FLOAT64);
    }
    if (status != RC_OK) {
        return status;
    }
    if (call->num_columns < 0) {
        return INVALID("grid: expected 0 columns or more, got %" PRId64, call->num_columns);
    }
    if (call->num_columns > INT32_MAX) {
        return UNSUPPORTED("grid: at most %d columns, got %" PRId64, INT32_MAX, call->num_columns);
    }
    if (!rc_product(total, call->num_columns, elements) || *elements > INT64_MAX / 8) {
        return UNSUPPORTED("out: [%" PRId64 ", %" PRId64 "] would need %.0f bytes, more than int64 counts", total,
                           call->num_columns, 8.0 * (double)total * (double)call->num_columns);
    }
    if (*elements > 0 && call->batch > 0 && !call->values) {
        return INVALID("grid: expected [%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 "], got NULL",
                       call->batch, call->grid.size[0], call->grid.size[1], call->grid.size[2], call->num_columns);
    }
    return RC_OK;
}

rc_status rc_check_devoxelize_call(const rc_devoxelize_call *call) {
    int64_t elements = 0;
    const rc_status status = check_input(call, "call", &elements);
    if (status != RC_OK) {
        return status;
    }
    const bool floating = rc_dtype_is_float(call->value_dtype);
    if (floating ? !rc_dtype_is_float(call->out_dtype) : call->out_dtype != call->value_dtype) {
        return INVALID("out_dtype: expected %s for a grid of %s, got %s",
                       floating ? "a floating dtype" : rc_dtype_name(call->value_dtype),
                       rc_dtype_name(call->value_dtype), rc_dtype_name(call->out_dtype));
    }
    if (elements > 0 && !call->out) {
        return INVALID("out: expected %" PRId64 " values, got NULL", elements);
    }
    return RC_OK;
}

rc_status rc_check_devoxelize_grad_call(const rc_devoxelize_grad_call *call) {
    if (!call) {
        return INVALID("call: expected a descriptor, got NULL");
    }
    rc_status status = rc_check_struct_size(call->struct_size, sizeof(rc_devoxelize_grad_call), "call");
    int64_t elements = 0;
    if (status == RC_OK) {
        status = check_input(call->forward, "forward", &elements);
    }
    if (status != RC_OK) {
        return status;
    }
    if (!rc_dtype_is_float(call->forward->value_dtype)) {
        return INVALID("grid: expected a floating dtype for a gradient, got %s",
                       rc_dtype_name(call->forward->value_dtype));
    }
    if (!rc_dtype_is_float(call->grad_dtype)) {
        return INVALID("grad_dtype: expected a floating dtype, got %s", rc_dtype_name(call->grad_dtype));
    }
    if (elements > 0 && !call->grad_out) {
        return INVALID("grad_out: expected %" PRId64 " numbers, got NULL", elements);
    }
    return RC_OK;
}
