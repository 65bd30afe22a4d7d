// From what a door was given (tensors) to the C API's voxelize descriptors: shapes, dtypes and devices are checked here.
// Knows neither torch nor Python.
#ifndef ROBOCACHE_DOORS_VOXEL_ARGS_H
#define ROBOCACHE_DOORS_VOXEL_ARGS_H

#include "point_args.h"

namespace robocache {

// A call as its arguments say it. `images`: `points` is depth [B, V, H, W] and `features` color.
struct VoxelInputs {
    bool images = false;
    View points, intrinsics, features, row_splits, mask, poses;
    GridArgs grid;
    int64_t reduce[RC_MAX_VOXEL_OUTPUTS] = {};
    int64_t out_dtypes[RC_MAX_VOXEL_OUTPUTS] = {};
    size_t num_reduce = 0, num_out_dtypes = 0;
    double depth_scale = 1.0, empty_value = 0.0;
    int64_t bounds = RC_BOUNDS_DROP;
    bool channels_first = false, need_inverse = false, need_dropped = false;
    bool sparse = false;
    int64_t max_voxels = 0, max_points = 0, order = RC_ORDER_SORTED;

    const char *points_name() const {
        return images ? "depth" : "points";
    }
    const char *features_name() const {
        return images ? "color" : "features";
    }
};

// A descriptor together with what it points to, and the shapes of its results.
struct VoxelArgs {
    rc_voxel_call call;
    rc_point_cloud cloud;
    rc_depth_images depth;
    rc_point_features features;
    rc_voxel_output outputs[RC_MAX_VOXEL_OUTPUTS];
    Shape shapes[RC_MAX_VOXEL_OUTPUTS];
    Shape inverse, dropped;
    rc_sparse_call sparse;
    Shape coords, num_voxels, gathered;
};

// Of a call that is built: see the other is_small().
inline bool is_small(const VoxelArgs &args) {
    double elements = elements_of(args.gathered);
    for (int32_t o = 0; o < args.call.num_outputs; ++o) {
        elements += elements_of(args.shapes[o]);
    }
    const rc_point_features *features = args.call.features;
    return is_small(elements_of(args.inverse), features ? features->num_columns : 0, elements);
}

// Builds the descriptor of a dense or sparse call; the first thing that is wrong ends it.
class VoxelBuilder : public PointChecks {
public:
    VoxelBuilder(VoxelArgs &args, std::string *error) : PointChecks(error), args_(args) {}

    // All but the addresses of results, threads, workspace and the CUDA stream.
    bool build(const VoxelInputs &in) {
        rc_voxel_call &call = args_.call;
        call = rc_voxel_call{};
        call.struct_size = sizeof call;
        call.bounds = narrow(in.bounds);
        call.empty_value = in.empty_value;
        call.channels_first = in.channels_first;
        call.outputs = args_.outputs;
        call.device = in.points.device_index;
        if (in.images ? !add_depth(in) : !add_cloud(in.points, in.row_splits, args_.cloud, &call.batch)) {
            return false;
        }
        if (!in.images) {
            call.cloud = &args_.cloud;
        }
        if (!add_grid(in.grid, in.points, in.points_name(), call.batch, call.grid) || !add_mask(in) || !add_poses(in) ||
            !add_features(in) || (in.sparse && !add_sparse(in)) || !add_outputs(in)) {
            return false;
        }
        args_.inverse = per_point(in, RC_INT64);
        args_.dropped = Shape();
        args_.dropped.dtype = RC_INT64;
        args_.dropped.add(call.batch);
        return true;
    }

    // A caller's own grid as output `index`.
    bool set_out(size_t index, const View &out, const View &points, const char *points_name) {
        const std::string text = "out[" + std::to_string(index) + "]";
        const char *name = text.c_str();
        const Shape &wanted = args_.shapes[index];
        bool right = out.ndim == wanted.ndim;
        for (int32_t d = 0; right && d < out.ndim; ++d) {
            right = out.sizes[d] == wanted.sizes[d];
        }
        if (!right) {
            return fail(name, "expected ", shape(wanted.sizes, wanted.ndim), ", got ", shape(out));
        }
        const int32_t dtype = wanted.dtype == RC_BITS ? static_cast<int32_t>(RC_UINT8) : wanted.dtype;
        if (out.dtype != dtype) {
            return fail(name, "expected ", dtype_name(dtype), ", got ", dtype_name(out.dtype));
        }
        if (!is_dense(out, out.ndim)) {
            return fail(name, "expected a contiguous tensor");
        }
        args_.outputs[index].data = out.data;
        return same_device(name, out, points, points_name);
    }

private:
    VoxelArgs &args_;

    // One number a point: [B, N], [N] packed, [B, V, H, W].
    static int32_t point_dims(const VoxelInputs &in) {
        return in.images ? 4 : in.row_splits.given() ? 1 : 2;
    }

    static Shape per_point(const VoxelInputs &in, int32_t dtype) {
        Shape made;
        made.dtype = dtype;
        for (int32_t d = 0; d < point_dims(in); ++d) {
            made.add(in.points.sizes[d]);
        }
        return made;
    }

    // Sample, camera, point or pixel.
    static void point_strides(const VoxelInputs &in, const View &view, int64_t to[3]) {
        const bool packed = in.row_splits.given();
        to[0] = packed ? 0 : view.strides[0];
        to[1] = in.images ? view.strides[1] : 0;
        to[2] = in.images ? pixel_stride(view, 2) : view.strides[packed ? 0 : 1];
    }

    bool add_depth(const VoxelInputs &in) {
        const View &depth = in.points;
        rc_depth_images &to = args_.depth;
        to = rc_depth_images{};
        if (depth.ndim != 4) {
            return fail("depth", "expected [B, V, H, W], got ", shape(depth));
        }
        if (depth.dtype != RC_UINT16 && depth.dtype != RC_FLOAT32) {
            return fail("depth", "expected uint16 or float32, got ", dtype_name(depth.dtype));
        }
        if (!walks_pixels(depth, 2)) {
            return fail("depth", "expected images whose rows follow one another");
        }
        const View &numbers = in.intrinsics;
        if (numbers.ndim != 3 || numbers.sizes[0] != depth.sizes[0] || numbers.sizes[1] != depth.sizes[1] ||
            numbers.sizes[2] != 4) {
            return fail("intrinsics", "expected [B, V, 4] = [", depth.sizes[0], ", ", depth.sizes[1], ", 4], got ",
                        shape(numbers));
        }
        if (numbers.dtype != RC_FLOAT32) {
            return fail("intrinsics", "expected float32, got ", dtype_name(numbers.dtype));
        }
        if (!is_dense(numbers, 1)) {
            return fail("intrinsics", "expected four numbers side by side");
        }
        to.depth = depth.data;
        to.depth_stride[0] = depth.strides[0];
        to.depth_stride[1] = depth.strides[1];
        to.depth_stride[2] = pixel_stride(depth, 2);
        to.intrinsics = static_cast<const float *>(numbers.data);
        to.intrinsics_stride[0] = numbers.strides[0];
        to.intrinsics_stride[1] = numbers.strides[1];
        to.num_cameras = depth.sizes[1];
        to.height = depth.sizes[2];
        to.width = depth.sizes[3];
        to.depth_scale = in.depth_scale;
        to.dtype = depth.dtype;
        args_.call.depth = &to;
        args_.call.batch = depth.sizes[0];
        return same_device("intrinsics", numbers, depth, "depth");
    }

    bool add_mask(const VoxelInputs &in) {
        if (!check_mask(in.mask, in.points, point_dims(in), in.points_name())) {
            return false;
        }
        if (in.mask.given()) {
            if (in.images && !walks_pixels(in.mask, 2)) {
                return fail("mask", "expected images whose rows follow one another");
            }
            args_.call.mask = static_cast<const uint8_t *>(in.mask.data);
            point_strides(in, in.mask, args_.call.mask_stride);
        }
        return true;
    }

    bool add_poses(const VoxelInputs &in) {
        const View &poses = in.poses;
        if (!poses.given()) {
            return true;
        }
        if (in.images) {
            const int64_t batch = args_.call.batch, cameras = in.points.sizes[1];
            const auto one_or = [&](int32_t d, int64_t size) { return poses.sizes[d] == 1 || poses.sizes[d] == size; };
            if (poses.ndim != 4 || poses.sizes[2] != 3 || poses.sizes[3] != 4 || !one_or(0, batch) ||
                !one_or(1, cameras)) {
                return fail("poses", "expected [B or 1, V or 1, 3, 4] with B = ", batch, ", V = ", cameras, ", got ",
                            shape(poses));
            }
            if (!check_pose_numbers(poses, in.points, "depth")) {
                return false;
            }
        } else if (!check_poses(poses, args_.call.batch, in.points)) {
            return false;
        }
        args_.call.poses = poses.data;
        args_.call.poses_stride[0] = shared_stride(poses, 0);
        args_.call.poses_stride[1] = in.images ? shared_stride(poses, 1) : 0;
        return true;
    }

    bool add_features(const VoxelInputs &in) {
        const View &values = in.features;
        if (!values.given()) {
            return true;
        }
        const char *name = in.features_name();
        const int32_t dims = point_dims(in);
        if (values.ndim != dims + 1 || !same_sizes(values, in.points, dims)) {
            std::string wanted = shape(in.points.sizes, dims);
            wanted.insert(wanted.size() - 1, ", C");
            return fail(name, "expected ", wanted, ", got ", shape(values));
        }
        if (!is_floating(values.dtype) && values.dtype != RC_UINT8) {
            return fail(name, "expected float16, bfloat16, float32, float64 or uint8, got ", dtype_name(values.dtype));
        }
        if (in.images && !walks_pixels(values, 2)) {
            return fail(name, "expected images whose rows follow one another");
        }
        rc_point_features &to = args_.features;
        to = rc_point_features{};
        to.values = values.data;
        point_strides(in, values, to.stride);
        to.stride[3] = values.strides[dims];
        to.num_columns = values.sizes[dims];
        to.dtype = values.dtype;
        args_.call.features = &to;
        return same_device(name, values, in.points, in.points_name());
    }

    bool add_sparse(const VoxelInputs &in) {
        rc_sparse_call &to = args_.sparse;
        to = rc_sparse_call{};
        to.struct_size = sizeof to;
        to.order = narrow(in.order);
        to.call = &args_.call;
        to.max_voxels = in.max_voxels;
        to.max_points = in.max_points;
        if (in.max_voxels < 0 || in.max_voxels > std::numeric_limits<int32_t>::max()) {
            return fail("max_voxels", "expected 0 to 2147483647, got ", in.max_voxels);
        }
        if (in.max_points < 0) {
            return fail("max_points", "expected 0 or more, got ", in.max_points);
        }
        const int64_t batch = args_.call.batch;
        args_.coords = args_.num_voxels = args_.gathered = Shape();
        args_.coords.dtype = RC_INT32;
        args_.num_voxels.dtype = RC_INT64;
        args_.num_voxels.add(batch);
        args_.coords.add(batch);
        args_.coords.add(in.max_voxels);
        args_.coords.add(3);
        if (in.max_points > 0) {
            if (!in.features.given()) {
                return fail("features", "expected values for max_points, got none");
            }
            to.gathered_dtype = in.features.dtype;
            args_.gathered.dtype = in.features.dtype;
            args_.gathered.add(batch);
            args_.gathered.add(in.max_voxels);
            args_.gathered.add(in.max_points);
            args_.gathered.add(args_.features.num_columns);
        }
        return fits("max_voxels", "coords", args_.coords) &&
               (in.max_points == 0 || fits("max_points", "gathered points", args_.gathered));
    }

    bool add_outputs(const VoxelInputs &in) {
        static const char *const names[RC_NUM_REDUCES] = {"occupancy", "count", "sum",    "mean",
                                                          "max",       "min",   "argmax", "argmin"};
        if (in.num_reduce > RC_MAX_VOXEL_OUTPUTS) {
            return fail("reduce", "expected at most ", RC_MAX_VOXEL_OUTPUTS, " numbers, got ", in.num_reduce);
        }
        if (in.num_out_dtypes != in.num_reduce) {
            return fail("out_dtypes", "expected one number for each of the ", in.num_reduce, " reductions, got ",
                        in.num_out_dtypes);
        }
        for (size_t o = 0; o < in.num_reduce; ++o) {
            const int64_t reduce = in.reduce[o], dtype = in.out_dtypes[o];
            if (reduce < 0 || reduce >= RC_NUM_REDUCES) {
                return fail("reduce", "expected 0 to ", RC_NUM_REDUCES - 1, ", got ", reduce);
            }
            if (dtype < 0 || dtype > RC_BITS || dtype == RC_UINT16 ||
                (dtype == RC_BITS && reduce != RC_REDUCE_OCCUPANCY)) {
                return fail("out_dtypes", "expected 0 to 9, or 11 (bits) for occupancy, got ", dtype, " for ",
                            names[reduce]);
            }
            const bool of_features = reduce > RC_REDUCE_COUNT;
            if (of_features && !in.features.given()) {
                return fail(in.features_name(), "expected values for ", names[reduce], ", got none");
            }
            Shape &made = args_.shapes[o] = Shape();
            made.dtype = static_cast<int32_t>(dtype);
            made.add(args_.call.batch);
            if (of_features && in.channels_first && !in.sparse) {
                made.add(args_.features.num_columns);
            }
            if (in.sparse) {
                made.add(in.max_voxels);
            } else {
                made.add(in.grid.size[0]);
                made.add(in.grid.size[1]);
                made.add(dtype == RC_BITS ? (in.grid.size[2] + 7) / 8 : in.grid.size[2]);
            }
            if (of_features && (in.sparse || !in.channels_first)) {
                made.add(args_.features.num_columns);
            }
            if (!fits(in.sparse ? "max_voxels" : "grid_size", names[reduce], made)) {
                return false;
            }
            args_.outputs[o] = {nullptr, static_cast<int32_t>(reduce), made.dtype};
        }
        args_.call.num_outputs = static_cast<int32_t>(in.num_reduce);
        return true;
    }
};

} // namespace robocache

#endif // ROBOCACHE_DOORS_VOXEL_ARGS_H
