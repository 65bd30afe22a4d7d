// What the descriptors of voxelize and devoxelize share: points, masks and grids, and the checks of them. Knows neither
// torch nor Python.
#ifndef ROBOCACHE_DOORS_POINT_ARGS_H
#define ROBOCACHE_DOORS_POINT_ARGS_H

#include <cstdio>

#include "view.h"

namespace robocache {

// Shape and dtype (RC_BITS: uint8) of a contiguous result.
struct Shape {
    int64_t sizes[5] = {0, 0, 0, 0, 0};
    int32_t ndim = 0;
    int32_t dtype = kNoDtype;

    void add(int64_t size) {
        sizes[ndim++] = size;
    }
};

// A grid as its arguments say it. Of a list of numbers, `num_*` says how long it was.
struct GridArgs {
    int64_t size[3] = {0, 0, 0};
    double voxel_size[3] = {0.0, 0.0, 0.0};
    double grid_min[3] = {0.0, 0.0, 0.0};
    size_t num_size = 0, num_voxel_size = 0, num_grid_min = 0;
    View voxel_sizes, grid_mins; // [B or 1, 3] in the compute dtype
};

// True where one stride leads from pixel to pixel, row by row; the rows of the image are dimension `row`.
inline bool walks_pixels(const View &view, int32_t row) {
    const int64_t height = view.sizes[row], width = view.sizes[row + 1];
    return height <= 1 || width <= 1 || view.strides[row] == width * view.strides[row + 1];
}

inline int64_t pixel_stride(const View &view, int32_t row) {
    return view.sizes[row + 1] == 1 ? view.strides[row] : view.strides[row + 1];
}

// True where the last `count` dimensions lie side by side.
inline bool is_dense(const View &view, int32_t count) {
    int64_t expected = 1;
    for (int32_t d = view.ndim - 1; d >= view.ndim - count && d >= 0; --d) {
        if (view.sizes[d] == 0) {
            return true;
        }
        if (view.sizes[d] > 1 && view.strides[d] != expected) {
            return false;
        }
        expected *= view.sizes[d];
    }
    return true;
}

// Elements of all dimensions together; a double, as shapes may come unchecked.
inline double elements_of(const Shape &shape) {
    double count = 1.0;
    for (int32_t d = 0; d < shape.ndim; ++d) {
        count *= static_cast<double>(shape.sizes[d]);
    }
    return count;
}

// One thread is done with such a call before others are awake: some ten microseconds of work at most.
inline bool is_small(double points, int64_t columns, double elements) {
    return points * static_cast<double>(columns + 8) <= 8192.0 && elements <= 16384.0;
}

inline int32_t compute_dtype(int32_t dtype) {
    return dtype == RC_FLOAT64 ? RC_FLOAT64 : RC_FLOAT32;
}

// What voxelize and devoxelize both take.
class PointChecks : public Checks {
public:
    using Checks::Checks;

protected:
    // Points [B, N, 3] or packed [N, 3]; also tells B.
    bool add_cloud(const View &points, const View &row_splits, rc_point_cloud &to, int64_t *batch) {
        const bool packed = row_splits.given();
        to = rc_point_cloud{};
        if (points.ndim != (packed ? 2 : 3) || points.sizes[points.ndim - 1] != 3) {
            return fail("points", "expected ", packed ? "[N, 3]" : "[B, N, 3]", ", got ", shape(points));
        }
        if (!is_floating(points.dtype)) {
            return fail("points", "expected float16, bfloat16, float32 or float64, got ", dtype_name(points.dtype));
        }
        if (packed) {
            if (row_splits.ndim != 1 || row_splits.sizes[0] < 1) {
                return fail("row_splits", "expected [B + 1], at least one offset, got ", shape(row_splits));
            }
            if (row_splits.dtype != RC_INT64) {
                return fail("row_splits", "expected int64, got ", dtype_name(row_splits.dtype));
            }
            if (!row_splits.is_contiguous_vector()) {
                return fail("row_splits", "expected a contiguous vector");
            }
            to.row_splits = static_cast<const int64_t *>(row_splits.data);
        }
        *batch = packed ? row_splits.sizes[0] - 1 : points.sizes[0];
        to.points = points.data;
        to.points_stride[0] = packed ? 0 : points.strides[0];
        to.points_stride[1] = points.strides[points.ndim - 2];
        to.points_stride[2] = points.strides[points.ndim - 1];
        to.num_points = points.sizes[points.ndim - 2];
        to.dtype = points.dtype;
        return same_device("row_splits", row_splits, points, "points");
    }

    // One entry of `like` a point, so `view` has its first `ndim` sizes.
    static bool same_sizes(const View &view, const View &like, int32_t ndim) {
        for (int32_t d = 0; d < ndim; ++d) {
            if (view.sizes[d] != like.sizes[d]) {
                return false;
            }
        }
        return true;
    }

    bool check_mask(const View &mask, const View &points, int32_t ndim, const char *points_name) {
        if (!mask.given()) {
            return true;
        }
        if (mask.ndim != ndim || !same_sizes(mask, points, ndim)) {
            return fail("mask", "expected ", shape(points.sizes, ndim), ", got ", shape(mask));
        }
        if (mask.dtype != RC_BOOL) {
            return fail("mask", "expected bool, got ", dtype_name(mask.dtype));
        }
        return same_device("mask", mask, points, points_name);
    }

    // Of each sample or of all: its stride.
    static int64_t shared_stride(const View &view, int32_t d) {
        return view.sizes[d] == 1 ? 0 : view.strides[d];
    }

    bool check_dtype(const char *argument, const View &view, int32_t dtype) {
        return view.dtype == dtype || fail(argument, "expected ", dtype_name(dtype),
                                           " (what the points compute in), got ", dtype_name(view.dtype));
    }

    // [B, 3] or [1, 3], of which each three lie side by side.
    bool add_vectors(const char *argument, const View &view, const View &points, const char *points_name, int64_t batch,
                     const void **data, int64_t *stride) {
        if (!view.given()) {
            return true;
        }
        if (view.ndim != 2 || view.sizes[1] != 3 || (view.sizes[0] != batch && view.sizes[0] != 1)) {
            return fail(argument, "expected [B, 3] = [", batch, ", 3] or [1, 3], got ", shape(view));
        }
        if (!is_dense(view, 1)) {
            return fail(argument, "expected three numbers side by side");
        }
        *data = address(view);
        *stride = shared_stride(view, 0);
        return check_dtype(argument, view, compute_dtype(points.dtype)) &&
               same_device(argument, view, points, points_name);
    }

    // Of point clouds: [B, 3, 4] or [1, 3, 4], the twelve of each side by side.
    bool check_poses(const View &poses, int64_t batch, const View &points) {
        if (poses.ndim != 3 || poses.sizes[1] != 3 || poses.sizes[2] != 4 ||
            (poses.sizes[0] != batch && poses.sizes[0] != 1)) {
            return fail("poses", "expected [B, 3, 4] = [", batch, ", 3, 4] or [1, 3, 4], got ", shape(poses));
        }
        return check_pose_numbers(poses, points, "points");
    }

    bool check_pose_numbers(const View &poses, const View &points, const char *points_name) {
        if (!is_dense(poses, 2)) {
            return fail("poses", "expected twelve numbers side by side");
        }
        return check_dtype("poses", poses, compute_dtype(points.dtype)) &&
               same_device("poses", poses, points, points_name);
    }

    bool add_grid(const GridArgs &from, const View &points, const char *points_name, int64_t batch, rc_voxel_grid &to) {
        to = rc_voxel_grid{};
        if (from.num_size != 3) {
            return fail("grid_size", "expected 3 numbers, got ", from.num_size);
        }
        if (from.num_voxel_size != 3) {
            return fail("voxel_size", "expected 3 numbers, got ", from.num_voxel_size);
        }
        if (from.num_grid_min != 3) {
            return fail("grid_min", "expected 3 numbers, got ", from.num_grid_min);
        }
        for (int d = 0; d < 3; ++d) {
            if (from.size[d] < 1 || from.size[d] > RC_MAX_GRID_SIZE) {
                return fail("grid_size", "expected 1 to ", RC_MAX_GRID_SIZE, " cells along each axis, got ",
                            shape(from.size, 3));
            }
            to.size[d] = from.size[d];
            to.voxel_size[d] = from.voxel_size[d];
            to.grid_min[d] = from.grid_min[d];
        }
        return add_vectors("voxel_sizes", from.voxel_sizes, points, points_name, batch, &to.voxel_sizes,
                           &to.voxel_sizes_stride) &&
               add_vectors("grid_mins", from.grid_mins, points, points_name, batch, &to.grid_mins,
                           &to.grid_mins_stride);
    }

    // False with an error that tells the bytes where int64 cannot count those of `shape`.
    bool fits(const char *argument, const char *what, const Shape &made) {
        const int64_t item = made.dtype == RC_BITS ? 1 : static_cast<int64_t>(rc_dtype_size(made.dtype));
        int64_t bytes = item;
        double wanted = static_cast<double>(item);
        bool right = true, none = false;
        for (int32_t d = 0; d < made.ndim; ++d) {
            none = none || made.sizes[d] == 0;
            right = !__builtin_mul_overflow(bytes, made.sizes[d], &bytes) && right;
            wanted *= static_cast<double>(made.sizes[d]);
        }
        if (right || none) {
            return true;
        }
        char words[64];
        std::snprintf(words, sizeof words, "%.0f", wanted);
        return fail(argument, what, " of shape ", shape(made.sizes, made.ndim), " would need ", words,
                    " bytes, more than int64 counts");
    }
};

} // namespace robocache

#endif // ROBOCACHE_DOORS_POINT_ARGS_H
