/* Random clouds and depth images with grids around them, and what a point's cell is by the documented rule. */
#ifndef RC_TESTS_VOXEL_PROBLEM_H
#define RC_TESTS_VOXEL_PROBLEM_H

#include "support.h"

#define MAX_BATCH 3

typedef struct voxel_problem {
    rc_voxel_call call;
    rc_point_cloud cloud;
    rc_depth_images depth;
    rc_point_features features;
    rc_voxel_output outputs[RC_MAX_VOXEL_OUTPUTS];
    void *memory[32]; /* to free */
    int32_t blocks;
    int64_t splits[MAX_BATCH + 1];
    int64_t total;
    bool wide;           /* points compute in double */
    double (*places)[3]; /* [total]: in the grid's frame */
    int64_t *cells;      /* [total]: or -1 */
    int64_t *sample_of;  /* [total]: or -1 */
    int64_t *index_of;   /* [total]: in its sample */
    int64_t outside[MAX_BATCH];
} voxel_problem;

static inline void *keep(voxel_problem *p, int64_t count, size_t size) {
    CHECK(p->blocks < 32, "too many blocks");
    return p->memory[p->blocks++] = allocate(count, size);
}

static inline void free_problem(voxel_problem *p) {
    for (int32_t k = 0; k < p->blocks; ++k) {
        free(p->memory[k]);
    }
}

static inline int64_t cells_of(const voxel_problem *p) {
    return p->call.grid.size[0] * p->call.grid.size[1] * p->call.grid.size[2];
}

static inline double odd_coordinate(void) {
    static const double odd[] = {NAN, INFINITY, -INFINITY, -0.0, 1e30, -1e30, 1e-42, 0.0};
    return odd[random_below(8)];
}

static inline void make_cloud(voxel_problem *p, int64_t most) {
    rc_point_cloud *cloud = &p->cloud;
    const int64_t batch = p->call.batch;
    cloud->dtype = random_below(RC_FLOAT64 + 1);
    cloud->num_points = random_below((int32_t)most);
    const bool packed = random_chance(0.4);
    p->total = packed ? cloud->num_points : batch * cloud->num_points;
    if (packed) {
        for (int64_t b = 0; b <= batch; ++b) {
            const int64_t before = b > 0 ? p->splits[b - 1] : 0;
            p->splits[b] = before + random_below((int32_t)(p->total - before) + 1);
        }
        cloud->row_splits = p->splits;
    }
    const int64_t axis = 1 + random_below(2), step = random_chance(0.6) ? 3 * axis : 3 * axis + random_below(3);
    cloud->points_stride[0] = cloud->num_points * step;
    cloud->points_stride[1] = step;
    cloud->points_stride[2] = axis;
    const size_t size = rc_dtype_size(cloud->dtype);
    char *points = keep(p, p->total * step, size);
    const double spread = random_chance(0.3) ? 0.4 : 1.2; /* in grids */
    for (int64_t i = 0; i < p->total; ++i) {
        for (int d = 0; d < 3; ++d) {
            const double extent = p->call.grid.voxel_size[d] * (double)p->call.grid.size[d];
            const double at = p->call.grid.grid_min[d] + (random_unit() * spread - 0.1) * extent;
            write_float(points + (i * step + d * axis) * (int64_t)size, cloud->dtype,
                        random_chance(0.02) ? odd_coordinate() : at);
        }
    }
    cloud->points = points;
    p->call.cloud = cloud;
    p->wide = cloud->dtype == RC_FLOAT64;
}

static inline void make_depth(voxel_problem *p) {
    rc_depth_images *depth = &p->depth;
    *depth = (rc_depth_images){.num_cameras = 1 + random_below(3),
                               .height = random_below(12),
                               .width = 1 + random_below(40),
                               .depth_scale = 0.001,
                               .dtype = random_chance(0.5) ? RC_UINT16 : RC_FLOAT32};
    const int64_t pixels = depth->height * depth->width, cameras = p->call.batch * depth->num_cameras;
    p->total = cameras * pixels;
    depth->depth_stride[0] = depth->num_cameras * pixels;
    depth->depth_stride[1] = pixels;
    depth->depth_stride[2] = 1;
    depth->intrinsics_stride[0] = 4 * depth->num_cameras;
    depth->intrinsics_stride[1] = 4;
    float *lenses = keep(p, 4 * cameras, sizeof *lenses);
    for (int64_t k = 0; k < cameras; ++k) {
        lenses[4 * k] = lenses[4 * k + 1] = 10.0f + (float)random_unit();
        lenses[4 * k + 2] = lenses[4 * k + 3] = 6.0f;
    }
    char *values = keep(p, p->total, rc_dtype_size(depth->dtype));
    for (int64_t i = 0; i < p->total; ++i) {
        if (depth->dtype == RC_UINT16) {
            ((uint16_t *)(void *)values)[i] = (uint16_t)(random_chance(0.1) ? 0 : random_below(3000));
        } else {
            ((float *)(void *)values)[i] = random_chance(0.1) ? (float)odd_coordinate() : (float)(3000 * random_unit());
        }
    }
    depth->depth = values;
    depth->intrinsics = lenses;
    p->call.depth = depth;
}

static inline void make_extras(voxel_problem *p) {
    rc_voxel_call *call = &p->call;
    const bool cloud = call->cloud != NULL;
    const int64_t cameras = cloud ? 1 : p->depth.num_cameras;
    const int64_t each = cloud ? p->cloud.num_points : cameras * p->depth.height * p->depth.width;
    if (random_chance(0.4)) {
        uint8_t *mask = keep(p, p->total, 1);
        for (int64_t i = 0; i < p->total; ++i) {
            mask[i] = random_chance(0.8) ? (uint8_t)(1 + random_below(255)) : 0;
        }
        call->mask = mask;
        call->mask_stride[0] = each;
        call->mask_stride[1] = cloud ? 0 : p->depth.height * p->depth.width;
        call->mask_stride[2] = 1;
    }
    if (random_chance(0.4)) {
        const int64_t poses = call->batch * cameras;
        const int32_t dtype = p->wide ? RC_FLOAT64 : RC_FLOAT32;
        char *numbers = keep(p, 12 * poses, rc_dtype_size(dtype));
        for (int64_t k = 0; k < 12 * poses; ++k) {
            const double eye = k % 12 % 5 == 0 ? 1.0 : 0.0;
            write_float(numbers + k * (int64_t)rc_dtype_size(dtype), dtype, eye + 0.1 * random_unit());
        }
        call->poses = numbers;
        call->poses_stride[0] = 12 * cameras;
        call->poses_stride[1] = cloud ? 0 : 12;
    }
    if (random_chance(0.4)) { /* a grid of its own for each sample */
        const int32_t dtype = p->wide ? RC_FLOAT64 : RC_FLOAT32;
        const int64_t size = (int64_t)rc_dtype_size(dtype);
        char *sizes = keep(p, 3 * call->batch, (size_t)size), *mins = keep(p, 3 * call->batch, (size_t)size);
        for (int64_t k = 0; k < 3 * call->batch; ++k) {
            write_float(sizes + k * size, dtype, call->grid.voxel_size[k % 3] * (0.8 + 0.4 * random_unit()));
            write_float(mins + k * size, dtype, call->grid.grid_min[k % 3] + 0.1 * random_unit());
        }
        call->grid.voxel_sizes = sizes;
        call->grid.grid_mins = mins;
        call->grid.voxel_sizes_stride = call->grid.grid_mins_stride = 3;
    }
}

/* Each operation in float unless the points compute in double. */
static inline double rounded(const voxel_problem *p, double value) {
    return p->wide ? value : (double)(float)value;
}

static inline double real_at(const voxel_problem *p, const void *numbers, int64_t k) {
    return p->wide ? ((const double *)numbers)[k] : (double)((const float *)numbers)[k];
}

/* Point i before its pose; false: it does not count. Sums and products of two floats, rounded once from double, are
 * those of float. */
static inline bool raw_point(const voxel_problem *p, int64_t i, int64_t b, int64_t n, int64_t *camera, double at[3]) {
    const rc_voxel_call *call = &p->call;
    *camera = 0;
    if (call->mask && call->mask[i] == 0) {
        return false;
    }
    if (call->cloud) {
        const int64_t from = call->cloud->row_splits ? i * p->cloud.points_stride[1]
                                                     : b * p->cloud.points_stride[0] + n * p->cloud.points_stride[1];
        for (int d = 0; d < 3; ++d) {
            at[d] = read_value((const char *)p->cloud.points +
                                   (from + d * p->cloud.points_stride[2]) * (int64_t)rc_dtype_size(p->cloud.dtype),
                               p->cloud.dtype);
        }
        return true;
    }
    const int64_t pixels = p->depth.height * p->depth.width, pixel = n % pixels;
    *camera = n / pixels;
    const float *lens = p->depth.intrinsics + 4 * (b * p->depth.num_cameras + *camera);
    const float raw = p->depth.dtype == RC_UINT16 ? (float)((const uint16_t *)p->depth.depth)[i]
                                                  : ((const float *)p->depth.depth)[i];
    const float z = raw * (float)p->depth.depth_scale;
    if (!(z > 0.0f) || isinf(z)) {
        return false;
    }
    const float x = (float)(pixel % p->depth.width) - lens[2], y = (float)(pixel / p->depth.width) - lens[3];
    const float xz = x * z, yz = y * z;
    at[0] = (double)(xz / lens[0]);
    at[1] = (double)(yz / lens[1]);
    at[2] = (double)z;
    return true;
}

static inline void place_point(voxel_problem *p, int64_t i, int64_t b, int64_t n) {
    const rc_voxel_call *call = &p->call;
    double raw[3], at[3];
    int64_t camera;
    p->sample_of[i] = b;
    p->index_of[i] = n;
    if (!raw_point(p, i, b, n, &camera, raw)) {
        return;
    }
    memcpy(at, raw, sizeof at);
    for (int d = 0; call->poses && d < 3; ++d) {
        const int64_t row = b * call->poses_stride[0] + camera * call->poses_stride[1] + 4 * d;
        double sum = rounded(p, real_at(p, call->poses, row) * raw[0]);
        sum = rounded(p, sum + rounded(p, real_at(p, call->poses, row + 1) * raw[1]));
        sum = rounded(p, sum + rounded(p, real_at(p, call->poses, row + 2) * raw[2]));
        at[d] = rounded(p, sum + real_at(p, call->poses, row + 3));
    }
    bool inside = true, number = true;
    int64_t cell = 0;
    for (int d = 0; d < 3; ++d) {
        const double voxel = call->grid.voxel_sizes ? real_at(p, call->grid.voxel_sizes, 3 * b + d)
                                                    : rounded(p, call->grid.voxel_size[d]);
        const double min = call->grid.grid_mins ? real_at(p, call->grid.grid_mins, 3 * b + d)
                                                : rounded(p, call->grid.grid_min[d]);
        const double q = floor(rounded(p, rounded(p, at[d] - min) / voxel));
        const double size = (double)call->grid.size[d];
        inside = inside && q >= 0.0 && q < size;
        number = number && !isnan(q);
        cell = cell * call->grid.size[d] + (q >= size ? call->grid.size[d] - 1 : q > 0.0 ? (int64_t)q : 0);
    }
    memcpy(p->places[i], at, sizeof at);
    p->outside[b] += !inside;
    if (inside || (number && call->bounds == RC_BOUNDS_CLAMP)) {
        p->cells[i] = cell;
    }
}

/* Finds every point's cell. */
static inline void place_points(voxel_problem *p) {
    p->places = keep(p, p->total, sizeof *p->places);
    p->cells = keep(p, p->total, sizeof *p->cells);
    p->sample_of = keep(p, p->total, sizeof *p->sample_of);
    p->index_of = keep(p, p->total, sizeof *p->index_of);
    for (int64_t i = 0; i < p->total; ++i) {
        p->cells[i] = p->sample_of[i] = p->index_of[i] = -1;
    }
    const int64_t each = p->call.batch > 0 ? p->total / p->call.batch : 0;
    for (int64_t b = 0; b < p->call.batch; ++b) {
        const bool packed = p->call.cloud && p->call.cloud->row_splits;
        const int64_t begin = packed ? p->splits[b] : b * each, end = packed ? p->splits[b + 1] : begin + each;
        for (int64_t i = begin; i < end; ++i) {
            place_point(p, i, b, i - begin);
        }
    }
}

static inline void make_features(voxel_problem *p, int32_t columns) {
    static const int32_t dtypes[] = {RC_FLOAT32, RC_FLOAT16, RC_BFLOAT16, RC_FLOAT64, RC_UINT8};
    rc_point_features *f = &p->features;
    const int64_t gap = random_chance(0.3) ? 2 : 1;
    f->dtype = dtypes[random_chance(0.5) ? 0 : random_below(5)];
    f->num_columns = columns;
    f->stride[2] = columns * gap;
    f->stride[3] = gap;
    const int64_t each = p->call.batch > 0 ? p->total / p->call.batch : 0;
    f->stride[0] = each * f->stride[2];
    f->stride[1] = p->call.depth ? p->depth.height * p->depth.width * f->stride[2] : 0;
    char *values = keep(p, p->total * columns * gap, rc_dtype_size(f->dtype));
    for (int64_t k = 0; k < p->total * columns * gap; ++k) {
        write_random(values + k * (int64_t)rc_dtype_size(f->dtype), f->dtype);
    }
    f->values = values;
    p->call.features = f;
}

static inline double feature_at(const voxel_problem *p, int64_t i, int64_t c) {
    const int64_t at = i * p->features.stride[2] + c * p->features.stride[3];
    return read_value((const char *)p->features.values + at * (int64_t)rc_dtype_size(p->features.dtype),
                      p->features.dtype);
}

/* A grid and its points; features and outputs come after. */
static inline void make_problem(voxel_problem *p, int64_t most, int32_t largest) {
    memset(p, 0, sizeof *p);
    p->call = (rc_voxel_call){.struct_size = sizeof p->call,
                              .bounds = random_below(2),
                              .batch = 1 + random_below(MAX_BATCH),
                              .empty_value = random_chance(0.5) ? 0.0 : -7.5};
    for (int d = 0; d < 3; ++d) {
        p->call.grid.size[d] = 1 + random_below(largest);
        p->call.grid.voxel_size[d] = 0.05 + random_unit();
        p->call.grid.grid_min[d] = random_unit() - 0.5;
    }
    if (random_chance(0.25)) {
        make_depth(p);
    } else {
        make_cloud(p, most);
    }
    make_extras(p);
    place_points(p);
}

#endif /* RC_TESTS_VOXEL_PROBLEM_H */
