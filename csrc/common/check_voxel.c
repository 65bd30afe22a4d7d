/* What the descriptors of voxelize calls tell by themselves. Points, features and grids in memory are not read. */
#include "check_voxel.h"

#include <inttypes.h>
#include <math.h>

#define INVALID(...) rc_fail(RC_INVALID_ARGUMENT, __VA_ARGS__)
#define UNSUPPORTED(...) rc_fail(RC_UNSUPPORTED, __VA_ARGS__)

#define MAX_CELLS (INT64_C(1) << 62) /* of a call, its batch together */

static const char *const reduce_names[RC_NUM_REDUCES] = {"occupancy", "count", "sum",    "mean",
                                                         "max",       "min",   "argmax", "argmin"};

rc_status rc_check_struct_size(uint32_t got, size_t expected, const char *name) {
    if (got != expected) {
        return INVALID("%s->struct_size: expected %zu, got %" PRIu32
                       "; the caller was built against another robocache.h",
                       name, expected, got);
    }
    return RC_OK;
}

/* ---- Points ----------------------------------------------------------------------------------------------------- */

rc_status rc_check_cloud(const rc_point_cloud *cloud, int64_t batch, int64_t *total) {
    if (!rc_dtype_is_float(cloud->dtype)) {
        return INVALID("points: expected a floating dtype, got %s", rc_dtype_name(cloud->dtype));
    }
    if (cloud->reserved != 0) {
        return INVALID("cloud->reserved: expected 0, got %" PRId32, cloud->reserved);
    }
    if (cloud->num_points < 0) {
        return INVALID("points: expected 0 or more, got %" PRId64, cloud->num_points);
    }
    if (!rc_product(cloud->row_splits ? 1 : batch, cloud->num_points, total) || *total > INT64_MAX / 32) {
        return UNSUPPORTED("points: [%" PRId64 ", %" PRId64 ", 3] take more bytes than int64 counts", batch,
                           cloud->num_points);
    }
    if (*total > 0 && !cloud->points) {
        return INVALID("points: expected %" PRId64 " points, got NULL", *total);
    }
    return RC_OK;
}

static rc_status check_depth(const rc_depth_images *depth, int64_t batch, int64_t *total) {
    if (depth->dtype != RC_UINT16 && depth->dtype != RC_FLOAT32) {
        return INVALID("depth: expected uint16 or float32, got %s", rc_dtype_name(depth->dtype));
    }
    if (depth->reserved != 0) {
        return INVALID("depth->reserved: expected 0, got %" PRId32, depth->reserved);
    }
    if (depth->num_cameras < 0 || depth->height < 0 || depth->width < 0) {
        return INVALID("depth: expected sizes of 0 or more, got %" PRId64 " cameras of %" PRId64 " by %" PRId64,
                       depth->num_cameras, depth->height, depth->width);
    }
    if (depth->height > RC_MAX_GRID_SIZE || depth->width > RC_MAX_GRID_SIZE) {
        return UNSUPPORTED("depth: at most %d rows and columns of pixels, got %" PRId64 " by %" PRId64,
                           RC_MAX_GRID_SIZE, depth->height, depth->width);
    }
    if (!isfinite((float)depth->depth_scale)) {
        return INVALID("depth_scale: expected a finite number that float32 holds, got %g", depth->depth_scale);
    }
    int64_t cameras = 0;
    if (!rc_product(batch, depth->num_cameras, &cameras) || !rc_product(cameras, depth->height * depth->width, total) ||
        *total > INT64_MAX / 32) {
        return UNSUPPORTED("depth: [%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64
                           "] take more bytes than int64 counts",
                           batch, depth->num_cameras, depth->height, depth->width);
    }
    if (*total > 0 && !depth->depth) {
        return INVALID("depth: expected %" PRId64 " pixels, got NULL", *total);
    }
    if (*total > 0 && !depth->intrinsics) {
        return INVALID("intrinsics: expected fx, fy, cx, cy of %" PRId64 " cameras, got NULL", cameras);
    }
    return RC_OK;
}

static rc_status check_features(const rc_point_features *features, int64_t total) {
    if (!rc_dtype_is_float(features->dtype) && features->dtype != RC_UINT8) {
        return INVALID("features: expected a floating dtype or uint8, got %s", rc_dtype_name(features->dtype));
    }
    if (features->reserved != 0) {
        return INVALID("features->reserved: expected 0, got %" PRId32, features->reserved);
    }
    if (features->num_columns < 0) {
        return INVALID("features: expected 0 columns or more, got %" PRId64, features->num_columns);
    }
    if (features->num_columns > INT32_MAX) {
        return UNSUPPORTED("features: at most %d columns, got %" PRId64, INT32_MAX, features->num_columns);
    }
    if (total > 0 && features->num_columns > 0 && !features->values) {
        return INVALID("features: expected %" PRId64 " rows of %" PRId64 " columns, got NULL", total,
                       features->num_columns);
    }
    return RC_OK;
}

/* ---- Grid ------------------------------------------------------------------------------------------------------- */

rc_status rc_check_grid(const rc_voxel_grid *grid, int64_t batch, bool wide) {
    for (int d = 0; d < 3; ++d) {
        if (grid->size[d] < 1 || grid->size[d] > RC_MAX_GRID_SIZE) {
            return INVALID("grid_size: expected 1 to %d cells along each axis, got [%" PRId64 ", %" PRId64 ", %" PRId64
                           "]",
                           RC_MAX_GRID_SIZE, grid->size[0], grid->size[1], grid->size[2]);
        }
    }
    int64_t cells = grid->size[0] * grid->size[1];
    if (!rc_product(cells, grid->size[2], &cells) || !rc_product(cells, batch, &cells) || cells >= MAX_CELLS) {
        return INVALID("grid_size: expected fewer than 2^62 cells, got %" PRId64 " grids of [%" PRId64 ", %" PRId64
                       ", %" PRId64 "]",
                       batch, grid->size[0], grid->size[1], grid->size[2]);
    }
    for (int d = 0; d < 3; ++d) {
        const double voxel = wide ? grid->voxel_size[d] : (double)(float)grid->voxel_size[d];
        const double corner = wide ? grid->grid_min[d] : (double)(float)grid->grid_min[d];
        if (!grid->voxel_sizes && !(voxel > 0.0 && isfinite(voxel))) {
            return INVALID("voxel_size: expected finite sizes above 0 (in %s), got %g along axis %d",
                           wide ? "float64" : "float32", grid->voxel_size[d], d);
        }
        if (!grid->grid_mins && !isfinite(corner)) {
            return INVALID("grid_min: expected finite coordinates (in %s), got %g along axis %d",
                           wide ? "float64" : "float32", grid->grid_min[d], d);
        }
    }
    return RC_OK;
}

/* ---- Outputs ---------------------------------------------------------------------------------------------------- */

bool rc_reduce_needs_features(int32_t reduce) {
    return reduce >= RC_REDUCE_SUM && reduce <= RC_REDUCE_ARGMIN;
}

static rc_status check_output_dtype(const rc_voxel_output *output, int32_t index) {
    const char *name = reduce_names[output->reduce];
    const int32_t dtype = output->dtype;
    const bool known = dtype >= 0 && dtype <= RC_BITS && dtype != RC_UINT16;
    switch (output->reduce) {
    case RC_REDUCE_OCCUPANCY:
        return known ? RC_OK
                     : INVALID("outputs[%" PRId32 "].dtype: %s expected any dtype of values or bits, got %s", index,
                               name, rc_dtype_name(dtype));
    case RC_REDUCE_COUNT:
        return known && dtype != RC_BITS
                   ? RC_OK
                   : INVALID("outputs[%" PRId32 "].dtype: %s expected any dtype of values, got %s", index, name,
                             rc_dtype_name(dtype));
    case RC_REDUCE_ARGMAX:
    case RC_REDUCE_ARGMIN:
        return dtype == RC_INT32 || dtype == RC_INT64
                   ? RC_OK
                   : INVALID("outputs[%" PRId32 "].dtype: %s expected int32 or int64, got %s", index, name,
                             rc_dtype_name(dtype));
    default:
        return rc_dtype_is_float(dtype) ? RC_OK
                                        : INVALID("outputs[%" PRId32 "].dtype: %s expected a floating dtype, got %s",
                                                  index, name, rc_dtype_name(dtype));
    }
}

/* Elements of an output of `rows` cells or voxels; in bytes it must stay below 2^63. */
static rc_status check_output_size(const rc_voxel_call *call, const rc_voxel_output *output, int32_t index,
                                   int64_t rows, const char *what) {
    const bool wide_rows = rc_reduce_needs_features(output->reduce);
    const int64_t columns = wide_rows ? call->features->num_columns : 1;
    const int64_t size = output->dtype == RC_BITS ? 1 : (int64_t)rc_dtype_size(output->dtype);
    int64_t bytes = 0;
    if (!rc_product(rows, columns, &bytes) || !rc_product(bytes, size, &bytes)) {
        return INVALID("%s: outputs[%" PRId32 "], %s of %s in %" PRId64 " columns, would need %.0f bytes, more than "
                       "int64 counts",
                       what, index, reduce_names[output->reduce], rc_dtype_name(output->dtype), columns,
                       (double)rows * (double)columns * (double)size);
    }
    if (bytes > 0 && !output->data) {
        return INVALID("outputs[%" PRId32 "].data: expected %" PRId64 " bytes, got NULL", index, bytes);
    }
    return RC_OK;
}

static rc_status check_outputs(const rc_voxel_call *call, int64_t rows, const char *what) {
    if (call->num_outputs < 0 || call->num_outputs > RC_MAX_VOXEL_OUTPUTS) {
        return INVALID("num_outputs: expected 0 to %d, got %" PRId32, RC_MAX_VOXEL_OUTPUTS, call->num_outputs);
    }
    if (call->num_outputs > 0 && !call->outputs) {
        return INVALID("outputs: expected %" PRId32 " outputs, got NULL", call->num_outputs);
    }
    uint32_t seen = 0;
    for (int32_t o = 0; o < call->num_outputs; ++o) {
        const rc_voxel_output *output = &call->outputs[o];
        if (output->reduce < 0 || output->reduce >= RC_NUM_REDUCES) {
            return INVALID("outputs[%" PRId32 "].reduce: expected 0 to %d, got %" PRId32, o, RC_NUM_REDUCES - 1,
                           output->reduce);
        }
        if (seen >> output->reduce & 1u) {
            return INVALID("outputs[%" PRId32 "].reduce: expected each reduction once, got %s again", o,
                           reduce_names[output->reduce]);
        }
        seen |= 1u << output->reduce;
        if (rc_reduce_needs_features(output->reduce) && !call->features) {
            return INVALID("features: expected values for %s, got NULL", reduce_names[output->reduce]);
        }
        rc_status status = check_output_dtype(output, o);
        if (status == RC_OK) {
            status = check_output_size(call, output, o, rows, what);
        }
        if (status != RC_OK) {
            return status;
        }
        if (call->accumulate && output->reduce > RC_REDUCE_COUNT) {
            return INVALID("accumulate: expected occupancy and count alone, got %s", reduce_names[output->reduce]);
        }
    }
    return RC_OK;
}

/* ---- Calls ------------------------------------------------------------------------------------------------------ */

/* All but the outputs. */
static rc_status check_input(const rc_voxel_call *call, const char *name) {
    if (!call) {
        return INVALID("%s: expected a descriptor, got NULL", name);
    }
    rc_status status = rc_check_struct_size(call->struct_size, sizeof(rc_voxel_call), name);
    if (status != RC_OK) {
        return status;
    }
    if (call->reserved != 0) {
        return INVALID("reserved: expected 0, got %" PRId32, call->reserved);
    }
    if (call->bounds < RC_BOUNDS_DROP || call->bounds > RC_BOUNDS_RAISE) {
        return INVALID("bounds: expected 0 to 2, got %" PRId32, call->bounds);
    }
    if (!call->cloud == !call->depth) {
        return INVALID("cloud: expected exactly one of cloud and depth, got %s", call->cloud ? "both" : "neither");
    }
    if (call->batch < 0) {
        return INVALID("batch: expected 0 or more, got %" PRId64, call->batch);
    }
    int64_t total = 0;
    status = call->cloud ? rc_check_cloud(call->cloud, call->batch, &total)
                         : check_depth(call->depth, call->batch, &total);
    if (status == RC_OK && call->features) {
        status = check_features(call->features, total);
    }
    if (status == RC_OK) {
        status = rc_check_grid(&call->grid, call->batch, call->cloud && call->cloud->dtype == RC_FLOAT64);
    }
    return status;
}

rc_status rc_check_voxel_call(const rc_voxel_call *call) {
    const rc_status status = check_input(call, "call");
    if (status != RC_OK) {
        return status;
    }
    return check_outputs(call, call->batch * call->grid.size[0] * call->grid.size[1] * call->grid.size[2], "grid_size");
}

/* The first points of each voxel. */
static rc_status check_gathered(const rc_sparse_call *call) {
    if (call->max_points < 0) {
        return INVALID("max_points: expected 0 or more, got %" PRId64, call->max_points);
    }
    if (call->max_points == 0) {
        return RC_OK;
    }
    const rc_point_features *features = call->call->features;
    if (!features) {
        return INVALID("features: expected values for max_points, got NULL");
    }
    if (!rc_dtype_is_float(call->gathered_dtype) && call->gathered_dtype != features->dtype) {
        return INVALID("gathered_dtype: expected a floating dtype or that of the features, %s, got %s",
                       rc_dtype_name(features->dtype), rc_dtype_name(call->gathered_dtype));
    }
    const double sizes[4] = {(double)(call->call->batch * call->max_voxels), (double)call->max_points,
                             (double)features->num_columns, (double)rc_dtype_size(call->gathered_dtype)};
    int64_t bytes = 0;
    if (!rc_product(call->call->batch * call->max_voxels, call->max_points, &bytes) ||
        !rc_product(bytes, features->num_columns, &bytes) ||
        !rc_product(bytes, (int64_t)rc_dtype_size(call->gathered_dtype), &bytes)) {
        return INVALID("max_points: %" PRId64 " points of %" PRId64 " voxels a sample would need %.0f bytes, more than "
                       "int64 counts",
                       call->max_points, call->max_voxels, sizes[0] * sizes[1] * sizes[2] * sizes[3]);
    }
    if (bytes > 0 && !call->gathered) {
        return INVALID("gathered: expected %" PRId64 " bytes, got NULL", bytes);
    }
    return RC_OK;
}

rc_status rc_check_sparse_call(const rc_sparse_call *call) {
    if (!call) {
        return INVALID("call: expected a descriptor, got NULL");
    }
    rc_status status = rc_check_struct_size(call->struct_size, sizeof(rc_sparse_call), "call");
    if (status == RC_OK) {
        status = check_input(call->call, "call->call");
    }
    if (status != RC_OK) {
        return status;
    }
    if (call->reserved != 0) {
        return INVALID("reserved: expected 0, got %" PRId32, call->reserved);
    }
    if (call->order != RC_ORDER_SORTED && call->order != RC_ORDER_FIRST_APPEARANCE) {
        return INVALID("order: expected 0 or 1, got %" PRId32, call->order);
    }
    if (call->max_voxels < 0 || call->max_voxels > INT32_MAX) {
        return INVALID("max_voxels: expected 0 to %d, got %" PRId64, INT32_MAX, call->max_voxels);
    }
    int64_t rows = 0, coordinates = 0;
    if (!rc_product(call->call->batch, call->max_voxels, &rows) || !rc_product(rows, 12, &coordinates)) {
        return INVALID("max_voxels: coords of %" PRId64 " voxels of %" PRId64 " samples would need %.0f bytes, more "
                       "than int64 counts",
                       call->max_voxels, call->call->batch,
                       12.0 * (double)call->max_voxels * (double)call->call->batch);
    }
    status = check_outputs(call->call, rows, "max_voxels");
    if (status == RC_OK) {
        status = check_gathered(call);
    }
    if (status != RC_OK) {
        return status;
    }
    for (int32_t o = 0; o < call->call->num_outputs; ++o) {
        if (call->call->outputs[o].reduce == RC_REDUCE_OCCUPANCY) {
            return INVALID("outputs[%" PRId32 "].reduce: occupancy has no sparse form", o);
        }
    }
    if (call->call->accumulate || call->call->channels_first) {
        return INVALID("%s: expected false for a sparse call",
                       call->call->accumulate ? "accumulate" : "channels_first");
    }
    if (rows > 0 && !call->coords) {
        return INVALID("coords: expected [B, V, 3] = [%" PRId64 ", %" PRId64 ", 3], got NULL", call->call->batch,
                       call->max_voxels);
    }
    if (call->call->batch > 0 && !call->num_voxels) {
        return INVALID("num_voxels: expected [B] = [%" PRId64 "], got NULL", call->call->batch);
    }
    return RC_OK;
}
