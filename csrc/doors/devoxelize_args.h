// From what a door was given (tensors) to the C API's devoxelize descriptor. Knows neither torch nor Python.
#ifndef ROBOCACHE_DOORS_DEVOXELIZE_ARGS_H
#define ROBOCACHE_DOORS_DEVOXELIZE_ARGS_H

#include "point_args.h"

namespace robocache {

// A call as its arguments say it; grid.size is taken from `values`.
struct DevoxelizeInputs {
    View values, points, row_splits, mask, poses;
    GridArgs grid;
    int64_t mode = RC_DEVOXELIZE_TRILINEAR, bounds = RC_BOUNDS_DROP;
    double empty_value = 0.0;
    int32_t out_dtype = kNoDtype; // none: that of the values
};

struct DevoxelizeArgs {
    rc_devoxelize_call call;
    rc_point_cloud cloud;
    Shape out;
};

// Of a call that is built: see the other is_small().
inline bool is_small(const DevoxelizeArgs &args) {
    const double columns = static_cast<double>(args.call.num_columns);
    const double elements = elements_of(args.out);
    return is_small(columns > 0.0 ? elements / columns : 0.0, args.call.num_columns, elements);
}

class DevoxelizeBuilder : public PointChecks {
public:
    DevoxelizeBuilder(DevoxelizeArgs &args, std::string *error) : PointChecks(error), args_(args) {}

    // All but the output's address, threads and the CUDA stream.
    bool build(const DevoxelizeInputs &in) {
        rc_devoxelize_call &call = args_.call;
        call = rc_devoxelize_call{};
        call.struct_size = sizeof call;
        call.mode = narrow(in.mode);
        call.bounds = narrow(in.bounds);
        call.empty_value = in.empty_value;
        call.device = in.points.device_index;
        call.cloud = &args_.cloud;
        const bool packed = in.row_splits.given();
        const int32_t point_dims = packed ? 1 : 2;
        if (!add_cloud(in.points, in.row_splits, args_.cloud, &call.batch) || !add_values(in) ||
            !check_mask(in.mask, in.points, point_dims, "points") || !add_poses(in)) {
            return false;
        }
        if (in.mask.given()) {
            call.mask = static_cast<const uint8_t *>(in.mask.data);
            call.mask_stride[0] = packed ? 0 : in.mask.strides[0];
            call.mask_stride[1] = in.mask.strides[packed ? 0 : 1];
        }
        call.out_dtype = in.out_dtype == kNoDtype ? in.values.dtype : in.out_dtype;
        args_.out = Shape();
        args_.out.dtype = call.out_dtype;
        for (int32_t d = 0; d < point_dims; ++d) {
            args_.out.add(in.points.sizes[d]);
        }
        args_.out.add(call.num_columns);
        return fits("out", "values", args_.out);
    }

private:
    DevoxelizeArgs &args_;

    bool add_values(const DevoxelizeInputs &in) {
        rc_devoxelize_call &call = args_.call;
        const View &values = in.values;
        if (values.ndim != 5 || values.sizes[0] != call.batch) {
            return fail("grid", "expected [B, X, Y, Z, C] with B = ", call.batch, ", got ", shape(values));
        }
        if (values.dtype == kNoDtype) {
            return fail("grid",
                        "expected float16, bfloat16, float32, float64, bool, uint8, int8, int16, int32 or int64, got "
                        "an unsupported dtype");
        }
        GridArgs grid = in.grid;
        grid.num_size = 3;
        for (int d = 0; d < 3; ++d) {
            grid.size[d] = values.sizes[1 + d];
            if (grid.size[d] < 1 || grid.size[d] > RC_MAX_GRID_SIZE) {
                return fail("grid", "expected 1 to ", RC_MAX_GRID_SIZE, " cells along each axis, got ", shape(values));
            }
        }
        call.values = values.data;
        call.value_dtype = values.dtype;
        call.num_columns = values.sizes[4];
        for (int d = 0; d < 5; ++d) {
            call.values_stride[d] = values.strides[d];
        }
        return add_grid(grid, in.points, "points", call.batch, call.grid) &&
               same_device("grid", values, in.points, "points");
    }

    bool add_poses(const DevoxelizeInputs &in) {
        const View &poses = in.poses;
        if (!poses.given()) {
            return true;
        }
        const int64_t batch = args_.call.batch;
        if (!check_poses(poses, batch, in.points)) {
            return false;
        }
        args_.call.poses = poses.data;
        args_.call.poses_stride = shared_stride(poses, 0);
        return true;
    }
};

} // namespace robocache

#endif // ROBOCACHE_DOORS_DEVOXELIZE_ARGS_H
