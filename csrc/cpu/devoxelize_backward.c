/* rc_devoxelize_backward_cpu.
 *
 * By the grid: points are sorted by cell, and slices of the grid along x are the tasks; each collects from the points in
 * it and in the cells just before and after. A value's shares are added in the order of cells and then of points,
 * whatever the number of threads. By the points: a tile at a time. */
#include "devoxelize.h"
#include "voxel_groups.h"

#include <string.h>

#define MIN_SLICE 4 /* points in the cells beside a slice are looked at twice */
#define MAX_SLICES 64

/* Where one point's gradient goes. */
typedef struct reading {
    int32_t at[3][2];
    double weight[3];
} reading;

typedef struct work {
    const rc_devoxelize_grad_call *call;
    const rc_devoxelize_call *forward;
    const rc_voxel_input *in;
    const rc_row_table *table;
    const rc_groups *groups;
    const rc_chunk *chunks;
    char *cells;         /* by point, as rc_find_cells() gives them */
    reading *readings;   /* by point; trilinear only */
    int64_t slice;       /* cells along x of a task */
    int64_t slices_each; /* of a sample */
} work;

/* Columns begin .. begin + columns of a point's row of grad_out, in `dtype`. */
static void load_gradient(const work *job, int64_t point, int64_t begin, int32_t columns, int32_t dtype, void *to) {
    const int64_t at = point * job->forward->num_columns + begin;
    job->table->convert[job->call->grad_dtype][dtype](
        (const char *)job->call->grad_out + at * (int64_t)rc_dtype_size(job->call->grad_dtype), to, columns);
}

static int32_t columns_from(const work *job, int64_t begin) {
    const int64_t left = job->forward->num_columns - begin;
    return (int32_t)(left < RC_DEVOXELIZE_COLUMNS ? left : RC_DEVOXELIZE_COLUMNS);
}

/* ---- By the grid ------------------------------------------------------------------------------------------------ */

static void note_readings(int64_t begin, int64_t end, void *context) {
    const work *job = context;
    const int64_t size = job->in->long_cells ? 8 : 4;
    rc_read_tile tile;
    for (int64_t k = begin; k < end; ++k) {
        const rc_chunk *chunk = &job->chunks[k];
        const int32_t count = (int32_t)(chunk->end - chunk->begin);
        rc_read_points(job->in, job->readings != NULL, chunk->sample,
                       chunk->begin - rc_sample_of(job->in, chunk->sample).begin, count, &tile);
        memcpy(job->cells + chunk->begin * size, &tile.cells, (size_t)(count * size));
        for (int32_t i = 0; job->readings && i < count; ++i) {
            if (rc_read_cell(job->in, &tile, i) >= 0) {
                memcpy(job->readings[chunk->begin + i].at, tile.at[i], sizeof tile.at[i]);
                memcpy(job->readings[chunk->begin + i].weight, tile.weight[i], sizeof tile.weight[i]);
            }
        }
    }
}

/* A point's shares of the cells that lie in [first, last) along x. */
#define ADD_SHARES(REAL, SUFFIX, REAL_DTYPE)                                                                           \
    static void add_shares_##SUFFIX(const work *job, int64_t b, int64_t point, int64_t first, int64_t last) {          \
        const int64_t *size = job->in->grid->size;                                                                     \
        const int64_t all = job->forward->num_columns;                                                                 \
        const reading *r = &job->readings[point];                                                                      \
        REAL share[3][2], g[RC_DEVOXELIZE_COLUMNS];                                                                    \
        for (int d = 0; d < 3; ++d) {                                                                                  \
            share[d][1] = (REAL)r->weight[d];                                                                          \
            share[d][0] = (REAL)1 - share[d][1];                                                                       \
        }                                                                                                              \
        for (int64_t begin = 0; begin < all; begin += RC_DEVOXELIZE_COLUMNS) {                                         \
            const int32_t columns = columns_from(job, begin);                                                          \
            load_gradient(job, point, begin, columns, REAL_DTYPE, g);                                                  \
            for (int j = 0; j < 8; ++j) {                                                                              \
                const int64_t x = r->at[0][j >> 2], y = r->at[1][j >> 1 & 1], z = r->at[2][j & 1];                     \
                if (x < first || x >= last) {                                                                          \
                    continue;                                                                                          \
                }                                                                                                      \
                const REAL w = share[0][j >> 2] * share[1][j >> 1 & 1] * share[2][j & 1];                              \
                REAL *restrict sum = (REAL *)job->call->grad_values +                                                  \
                                     (((b * size[0] + x) * size[1] + y) * size[2] + z) * all + begin;                  \
                for (int32_t c = 0; c < columns; ++c) {                                                                \
                    sum[c] += g[c] * w;                                                                                \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    static void add_whole_##SUFFIX(const work *job, int64_t b, int64_t point, int64_t cell) {                          \
        const int64_t all = job->forward->num_columns;                                                                 \
        REAL g[RC_DEVOXELIZE_COLUMNS];                                                                                 \
        for (int64_t begin = 0; begin < all; begin += RC_DEVOXELIZE_COLUMNS) {                                         \
            const int32_t columns = columns_from(job, begin);                                                          \
            load_gradient(job, point, begin, columns, REAL_DTYPE, g);                                                  \
            REAL *restrict sum = (REAL *)job->call->grad_values + (b * job->in->cells + cell) * all + begin;           \
            for (int32_t c = 0; c < columns; ++c) {                                                                    \
                sum[c] += g[c];                                                                                        \
            }                                                                                                          \
        }                                                                                                              \
    }

ADD_SHARES(float, f32, RC_FLOAT32)
ADD_SHARES(double, f64, RC_FLOAT64)

static void add_slices(int64_t begin, int64_t end, void *context) {
    const work *job = context;
    const bool wide = job->forward->value_dtype == RC_FLOAT64, trilinear = job->readings != NULL;
    const int64_t x_size = job->in->grid->size[0], plane = job->in->cells / x_size;
    for (int64_t task = begin; task < end; ++task) {
        const int64_t b = task / job->slices_each, first = task % job->slices_each * job->slice;
        const int64_t last = x_size - first < job->slice ? x_size : first + job->slice;
        const int64_t from = trilinear && first > 0 ? first - 1 : first;
        const int64_t to = trilinear && last < x_size ? last + 1 : last;
        const int64_t origin = rc_sample_of(job->in, b).begin;
        rc_group_cursor cursor = rc_seek_group(job->groups, b, from * plane);
        rc_group group;
        while (rc_next_group(&cursor, to * plane, &group)) {
            for (uint32_t j = 0; j < group.count; ++j) {
                const int64_t point = origin + group.points[j];
                if (trilinear) {
                    (wide ? add_shares_f64 : add_shares_f32)(job, b, point, first, last);
                } else {
                    (wide ? add_whole_f64 : add_whole_f32)(job, b, point, group.cell);
                }
            }
        }
    }
}

static rc_status differentiate_grid(work *job, int64_t chunks) {
    const rc_voxel_input *in = job->in;
    const size_t points = (size_t)in->total + 1;
    const bool trilinear = job->forward->mode == RC_DEVOXELIZE_TRILINEAR;
    job->cells = malloc(points * (in->long_cells ? sizeof(int64_t) : sizeof(int32_t)));
    job->readings = trilinear ? malloc(points * sizeof *job->readings) : NULL;
    rc_groups groups = {0};
    rc_status status = RC_OK;
    if (!job->cells || (trilinear && !job->readings)) {
        status = rc_fail(RC_OUT_OF_MEMORY, "scratch space for %lld points could not be had", (long long)in->total);
    } else {
        rc_run(in->parallel_for, in->pool, chunks, 1, note_readings, job);
        status = rc_make_groups(in, job->cells, &groups);
    }
    if (status == RC_OK) {
        const int64_t x = in->grid->size[0];
        job->groups = &groups;
        job->slice = x / MAX_SLICES > MIN_SLICE ? x / MAX_SLICES : MIN_SLICE;
        job->slices_each = (x + job->slice - 1) / job->slice;
        rc_run(in->parallel_for, in->pool, in->batch * job->slices_each, 1, add_slices, job);
    }
    rc_free_groups(&groups);
    free(job->cells);
    free(job->readings);
    job->groups = NULL;
    return status;
}

/* ---- By the points ---------------------------------------------------------------------------------------------- */

static double mix(double a, double b, double w) {
    return a + w * (b - a);
}

/* One column of the eight cells around a point. */
static void add_slope(const double v[8], const double w[3], double g, double slope[3]) {
    double y[2], by_y[2], by_z[2];
    for (int x = 0; x < 2; ++x) {
        const double z0 = mix(v[4 * x], v[4 * x + 1], w[2]);
        const double z1 = mix(v[4 * x + 2], v[4 * x + 3], w[2]);
        y[x] = mix(z0, z1, w[1]);
        by_y[x] = z1 - z0;
        by_z[x] = mix(v[4 * x + 1] - v[4 * x], v[4 * x + 3] - v[4 * x + 2], w[1]);
    }
    slope[0] += g * (y[1] - y[0]);
    slope[1] += g * mix(by_y[0], by_y[1], w[0]);
    slope[2] += g * mix(by_z[0], by_z[1], w[0]);
}

/* Derivative of a point's row by its place, in cells. */
static void slope_of(const work *job, int64_t b, int64_t point, const rc_read_tile *tile, int32_t i, double slope[3]) {
    const rc_devoxelize_call *forward = job->forward;
    const int64_t *stride = forward->values_stride;
    const rc_convert_fn convert = job->table->convert[forward->value_dtype][RC_FLOAT64];
    const int64_t size = (int64_t)rc_dtype_size(forward->value_dtype);
    double g[RC_DEVOXELIZE_COLUMNS];
    for (int64_t begin = 0; begin < forward->num_columns; begin += RC_DEVOXELIZE_COLUMNS) {
        const int32_t columns = columns_from(job, begin);
        load_gradient(job, point, begin, columns, RC_FLOAT64, g);
        for (int32_t c = 0; c < columns; ++c) {
            double v[8];
            for (int j = 0; j < 8; ++j) {
                const int64_t at = b * stride[0] + tile->at[i][0][j >> 2] * stride[1] +
                                   tile->at[i][1][j >> 1 & 1] * stride[2] + tile->at[i][2][j & 1] * stride[3] +
                                   (begin + c) * stride[4];
                convert((const char *)forward->values + at * size, &v[j], 1);
            }
            add_slope(v, tile->weight[i], g[c], slope);
        }
    }
}

/* From cells to the grid's lengths, and back through the pose. */
static void turn_slope(const work *job, int64_t b, const bool clamped[3], double slope[3]) {
    const rc_voxel_input *in = job->in;
    const rc_frame_f64 wide = in->wide ? rc_frame_of_f64(in, b) : (rc_frame_f64){{0}, {0}, {0}};
    const rc_frame_f32 narrow = in->wide ? (rc_frame_f32){{0}, {0}, {0}} : rc_frame_of_f32(in, b);
    for (int d = 0; d < 3; ++d) {
        slope[d] = clamped[d] ? 0.0 : slope[d] / (in->wide ? wide.voxel[d] : (double)narrow.voxel[d]);
    }
    if (!in->poses) {
        return;
    }
    double turned[3];
    for (int d = 0; d < 3; ++d) {
        const int64_t at = b * in->poses_stride[0] + d;
        double column[3];
        for (int k = 0; k < 3; ++k) {
            column[k] = in->wide ? ((const double *)in->poses)[at + 4 * k]
                                 : (double)((const float *)in->poses)[at + 4 * k];
        }
        turned[d] = column[0] * slope[0] + column[1] * slope[1] + column[2] * slope[2];
    }
    memcpy(slope, turned, sizeof turned);
}

static void write_slope(const work *job, int64_t point, const double slope[3]) {
    for (int d = 0; d < 3; ++d) {
        if (job->in->wide) {
            ((double *)job->call->grad_points)[3 * point + d] = slope[d];
        } else {
            ((float *)job->call->grad_points)[3 * point + d] = (float)slope[d];
        }
    }
}

static void differentiate_chunks(int64_t begin, int64_t end, void *context) {
    const work *job = context;
    const bool trilinear = job->forward->mode == RC_DEVOXELIZE_TRILINEAR;
    rc_read_tile tile;
    for (int64_t k = begin; k < end; ++k) {
        const rc_chunk *chunk = &job->chunks[k];
        const int32_t count = (int32_t)(chunk->end - chunk->begin);
        if (trilinear) {
            rc_read_points(job->in, true, chunk->sample, chunk->begin - rc_sample_of(job->in, chunk->sample).begin,
                           count, &tile);
        }
        for (int32_t i = 0; i < count; ++i) {
            double slope[3] = {0.0, 0.0, 0.0};
            if (trilinear && rc_read_cell(job->in, &tile, i) >= 0) {
                slope_of(job, chunk->sample, chunk->begin + i, &tile, i, slope);
                turn_slope(job, chunk->sample, tile.clamped[i], slope);
            }
            write_slope(job, chunk->begin + i, slope);
        }
    }
}

/* Packed points before the first sample and after the last belong to none. */
static void clear_rest(const work *job) {
    static const double none[3] = {0.0, 0.0, 0.0};
    const rc_voxel_input *in = job->in;
    const int64_t first = in->batch > 0 ? rc_sample_of(in, 0).begin : in->total;
    const int64_t last = in->batch > 0 ? rc_sample_of(in, in->batch - 1).end : in->total;
    for (int64_t i = 0; i < first; ++i) {
        write_slope(job, i, none);
    }
    for (int64_t i = last; i < in->total; ++i) {
        write_slope(job, i, none);
    }
}

rc_status rc_devoxelize_backward_cpu(const rc_devoxelize_grad_call *call) {
    rc_status status = rc_check_devoxelize_grad_call(call);
    if (status != RC_OK) {
        return status;
    }
    const rc_voxel_input in = rc_input_of_devoxelize(call->forward);
    status = rc_check_voxel_data(&in);
    if (status == RC_OK) {
        status = rc_check_outside(&in);
    }
    if (status != RC_OK) {
        return status;
    }
    int64_t count = 0;
    rc_chunk *chunks = rc_make_chunks(&in, RC_POINT_TILE, &count);
    if (!chunks) {
        return rc_fail(RC_OUT_OF_MEMORY, "scratch space for %lld points could not be had", (long long)in.total);
    }
    work job = {.call = call, .forward = call->forward, .in = &in, .table = rc_row_kernels(), .chunks = chunks};
    if (call->grad_values && call->forward->num_columns > 0) {
        status = differentiate_grid(&job, count);
    }
    if (call->grad_points && status == RC_OK) {
        clear_rest(&job);
        rc_run(in.parallel_for, in.pool, count, 1, differentiate_chunks, &job);
    }
    free(chunks);
    if (status == RC_OK) {
        rc_count_launch(RC_KERNEL_DEVOXELIZE_BACKWARD_CPU);
    }
    return status;
}
