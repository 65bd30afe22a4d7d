/* Values of a grid at points against the slow and obvious way; gradients of both operations against sums over points. */
#include "voxel_problem.h"

typedef struct grid {
    char *values;
    int32_t dtype;
    int64_t columns;
    int64_t stride[5];
} grid;

static double value_at(const grid *g, int64_t b, const int32_t at[3], int64_t c) {
    const int64_t k = b * g->stride[0] + at[0] * g->stride[1] + at[1] * g->stride[2] + at[2] * g->stride[3] +
                      c * g->stride[4];
    return read_value(g->values + k * (int64_t)rc_dtype_size(g->dtype), g->dtype);
}

/* Neighbours along an axis and the weight of the second. */
static double neighbours(const voxel_problem *p, int64_t i, int d, int32_t at[2], bool *held) {
    const rc_voxel_grid *grid = &p->call.grid;
    const int64_t b = p->sample_of[i];
    const double voxel = grid->voxel_sizes ? real_at(p, grid->voxel_sizes, 3 * b + d) : rounded(p, grid->voxel_size[d]);
    const double min = grid->grid_mins ? real_at(p, grid->grid_mins, 3 * b + d) : rounded(p, grid->grid_min[d]);
    const double top = (double)grid->size[d] - 0.5;
    double t = rounded(p, rounded(p, rounded(p, p->places[i][d] - min) / voxel) - 0.5);
    *held = t < -0.5 || t > top;
    t = t < -0.5 ? -0.5 : t > top ? top : t;
    for (int k = 0; k < 2; ++k) {
        const double place = floor(t) + k, last = (double)grid->size[d] - 1.0;
        at[k] = (int32_t)(place < 0.0 ? 0.0 : place > last ? last : place);
    }
    return rounded(p, t - floor(t));
}

static double mix(bool wide, double v0, double v1, double w) {
    if (wide) {
        return v0 + w * (v1 - v0);
    }
    const float rise = (float)v1 - (float)v0, step = (float)w * rise;
    return (double)((float)v0 + step);
}

static double trilinear(const voxel_problem *p, const grid *g, int64_t i, int64_t c, bool wide) {
    int32_t at[3][2];
    double w[3];
    bool held;
    for (int d = 0; d < 3; ++d) {
        w[d] = neighbours(p, i, d, at[d], &held);
    }
    double x[2], y[2], z[2];
    for (int j = 0; j < 2; ++j) {
        for (int k = 0; k < 2; ++k) {
            for (int l = 0; l < 2; ++l) {
                z[l] = value_at(g, p->sample_of[i], (int32_t[3]){at[0][j], at[1][k], at[2][l]}, c);
            }
            y[k] = mix(wide, z[0], z[1], w[2]);
        }
        x[j] = mix(wide, y[0], y[1], w[1]);
    }
    return mix(wide, x[0], x[1], w[0]);
}

static void make_grid(voxel_problem *p, grid *g, bool floating) {
    const int64_t *size = p->call.grid.size;
    static const int32_t widths[] = {1, 3, 4, 65};
    g->columns = widths[random_below(4)];
    g->dtype = floating ? random_below(RC_FLOAT64 + 1) : random_below(RC_NUM_DTYPES);
    const bool first = random_chance(0.4); /* channels first */
    const int64_t cells = cells_of(p);
    g->stride[0] = cells * g->columns;
    g->stride[3] = first ? 1 : g->columns;
    g->stride[2] = size[2] * g->stride[3];
    g->stride[1] = size[1] * g->stride[2];
    g->stride[4] = first ? cells : 1;
    g->values = keep(p, p->call.batch * cells * g->columns, rc_dtype_size(g->dtype));
    for (int64_t k = 0; k < p->call.batch * cells * g->columns; ++k) {
        write_random(g->values + k * (int64_t)rc_dtype_size(g->dtype), g->dtype);
    }
}

static rc_devoxelize_call describe(const voxel_problem *p, const grid *g, int32_t mode) {
    rc_devoxelize_call call = {.struct_size = sizeof call,
                               .mode = mode,
                               .bounds = p->call.bounds,
                               .value_dtype = g->dtype,
                               .cloud = p->call.cloud,
                               .batch = p->call.batch,
                               .mask = p->call.mask,
                               .mask_stride = {p->call.mask_stride[0], p->call.mask_stride[2]},
                               .poses = p->call.poses,
                               .poses_stride = p->call.poses_stride[0],
                               .grid = p->call.grid,
                               .values = g->values,
                               .num_columns = g->columns,
                               .empty_value = 3.0};
    memcpy(call.values_stride, g->stride, sizeof g->stride);
    return call;
}

static void make_points(voxel_problem *p) {
    do {
        make_problem(p, 200, 5);
        if (!p->call.cloud) {
            free_problem(p);
        }
    } while (!p->call.cloud);
}

static void test_forward(int32_t rounds) {
    for (int32_t k = 0; k < rounds; ++k) {
        voxel_problem p;
        grid g;
        make_points(&p);
        const int32_t mode = random_below(2);
        make_grid(&p, &g, mode == RC_DEVOXELIZE_TRILINEAR);
        rc_devoxelize_call call = describe(&p, &g, mode);
        call.out_dtype = is_float(g.dtype) ? random_below(RC_FLOAT64 + 1) : g.dtype;
        const int64_t size = (int64_t)rc_dtype_size(call.out_dtype);
        char *out = keep(&p, p.total * g.columns, (size_t)size);
        call.out = out;
        const bool wide = p.wide || g.dtype == RC_FLOAT64;
        for (int32_t n = 0; n == 0 || isa_number(n); ++n) {
            (void)isa_number(n);
            call.parallel_for = random_chance(0.5) ? uneven_for : NULL;
            CHECK(rc_devoxelize_cpu(&call) == RC_OK, "%s", rc_last_error());
            for (int64_t e = 0; e < p.total * g.columns; ++e) {
                const int64_t i = e / g.columns, c = e % g.columns, cell = p.cells[i];
                const int64_t y = p.call.grid.size[1], z = p.call.grid.size[2];
                char want[8];
                const int32_t at[3] = {(int32_t)(cell / z / y), (int32_t)(cell / z % y), (int32_t)(cell % z)};
                if (!is_float(call.out_dtype)) {
                    const int64_t from = cell < 0 ? 0
                                                  : p.sample_of[i] * g.stride[0] + at[0] * g.stride[1] +
                                                        at[1] * g.stride[2] + at[2] * g.stride[3] + c * g.stride[4];
                    write_integer(want, g.dtype,
                                  cell >= 0            ? read_integer(g.values + from * size, g.dtype)
                                  : g.dtype == RC_BOOL ? 1
                                                       : 3);
                } else {
                    write_float(want, call.out_dtype,
                                cell < 0                        ? 3.0
                                : mode == RC_DEVOXELIZE_NEAREST ? value_at(&g, p.sample_of[i], at, c)
                                                                : trilinear(&p, &g, i, c, wide));
                }
                CHECK(same_value(out + e * size, want, call.out_dtype),
                      "mode %d, point %" PRId64 ", column %" PRId64 ": got %g, expected %g", mode, i, c,
                      read_value(out + e * size, call.out_dtype), read_value(want, call.out_dtype));
            }
        }
        free_problem(&p);
    }
}

/* ---- Gradient of devoxelize -------------------------------------------------------------------------------------- */

static bool close_to(double got, double want, double scale) {
    return fabs(got - want) <= 1e-4 * (1.0 + scale) || (isnan(got) && isnan(want));
}

static void test_backward(int32_t rounds) {
    for (int32_t k = 0; k < rounds; ++k) {
        voxel_problem p;
        grid g;
        make_points(&p);
        make_grid(&p, &g, true);
        const int64_t count = p.call.batch * cells_of(&p) * g.columns, size = (int64_t)rc_dtype_size(g.dtype);
        for (int64_t e = 0; e < count; ++e) {
            write_float(g.values + e * size, g.dtype, random_unit());
        }
        const int32_t mode = random_below(2);
        rc_devoxelize_call forward = describe(&p, &g, mode);
        const int32_t grad_dtype = g.dtype == RC_FLOAT64 ? RC_FLOAT64 : RC_FLOAT32;
        const int64_t real = (int64_t)rc_dtype_size(grad_dtype);
        char *upstream = keep(&p, p.total * g.columns, rc_dtype_size(grad_dtype));
        for (int64_t e = 0; e < p.total * g.columns; ++e) {
            write_float(upstream + e * real, grad_dtype, random_unit() - 0.5);
        }
        double *want = keep(&p, count, sizeof *want);
        for (int64_t e = 0; e < p.total * g.columns; ++e) {
            const int64_t i = e / g.columns, c = e % g.columns;
            const double v = read_value(upstream + e * real, grad_dtype);
            int32_t at[3][2];
            double w[3] = {0.0, 0.0, 0.0};
            bool held;
            if (p.cells[i] < 0) {
                continue;
            }
            double *to = want + p.sample_of[i] * cells_of(&p) * g.columns + c;
            if (mode == RC_DEVOXELIZE_NEAREST) {
                to[p.cells[i] * g.columns] += v;
                continue;
            }
            for (int d = 0; d < 3; ++d) {
                w[d] = neighbours(&p, i, d, at[d], &held);
            }
            for (int j = 0; j < 8; ++j) {
                const int x = j / 4, y = j / 2 % 2, z = j % 2;
                const int64_t cell = (at[0][x] * p.call.grid.size[1] + at[1][y]) * p.call.grid.size[2] + at[2][z];
                to[cell * g.columns] += v * (x ? w[0] : 1.0 - w[0]) * (y ? w[1] : 1.0 - w[1]) * (z ? w[2] : 1.0 - w[2]);
            }
        }
        char *values = keep(&p, count, (size_t)real), *again = keep(&p, count, (size_t)real);
        char *points = keep(&p, 3 * p.total, p.wide ? 8 : 4);
        rc_devoxelize_grad_call call = {.struct_size = sizeof call,
                                        .grad_dtype = grad_dtype,
                                        .forward = &forward,
                                        .grad_out = upstream,
                                        .grad_values = values,
                                        .grad_points = points};
        CHECK(rc_devoxelize_backward_cpu(&call) == RC_OK, "%s", rc_last_error());
        for (int64_t e = 0; e < count; ++e) {
            const double got = read_value(values + e * real, grad_dtype);
            CHECK(close_to(got, want[e], fabs(want[e])), "element %" PRId64 ": got %g, expected %g", e, got, want[e]);
        }
        forward.parallel_for = uneven_for;
        call.grad_values = again;
        CHECK(rc_devoxelize_backward_cpu(&call) == RC_OK, "%s", rc_last_error());
        CHECK(memcmp(values, again, (size_t)(count * real)) == 0, "threads change the gradient");
        free_problem(&p);
    }
}

/* The slope along the points, on a grid that is linear in them: known everywhere between the outermost centres. */
static void test_point_gradient(void) {
    float values[4][3][5];
    for (int x = 0; x < 4; ++x) {
        for (int y = 0; y < 3; ++y) {
            for (int z = 0; z < 5; ++z) {
                values[x][y][z] = (float)(2 * x - 3 * y + 5 * z);
            }
        }
    }
    const float points[4][3] = {{1.25f, 2.6f, 5.1f}, {9.0f, 2.6f, 5.1f}, {3.9f, 2.6f, 5.1f}, {NAN, 1.0f, 1.0f}};
    const float upstream[4] = {1.0f, 1.0f, 2.0f, 1.0f};
    /* Inside x, y and z change places, so that the pose's transpose shows. */
    const float pose[12] = {1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0};
    const rc_point_cloud cloud = {.points = points, .points_stride = {12, 3, 1}, .num_points = 4, .dtype = RC_FLOAT32};
    const rc_devoxelize_call forward = {.struct_size = sizeof forward,
                                        .mode = RC_DEVOXELIZE_TRILINEAR,
                                        .bounds = RC_BOUNDS_CLAMP,
                                        .value_dtype = RC_FLOAT32,
                                        .cloud = &cloud,
                                        .batch = 1,
                                        .poses = pose,
                                        .grid = {.size = {4, 3, 5}, .voxel_size = {1.0, 2.0, 1.0}},
                                        .values = values,
                                        .values_stride = {60, 15, 5, 1, 1},
                                        .num_columns = 1};
    float got[4][3];
    const rc_devoxelize_grad_call call = {.struct_size = sizeof call,
                                          .grad_dtype = RC_FLOAT32,
                                          .forward = &forward,
                                          .grad_out = upstream,
                                          .grad_points = got};
    CHECK(rc_devoxelize_backward_cpu(&call) == RC_OK, "%s", rc_last_error());
    /* y of the grid is the third coordinate: 5.1 / 2 - 0.5 = 2.05, past the last centre but in the grid. */
    const float want[4][3] = {{2, 5, 0}, {0, 5, 0}, {0, 10, 0}, {0, 0, 0}};
    for (int i = 0; i < 4; ++i) {
        for (int d = 0; d < 3; ++d) {
            CHECK(fabsf(got[i][d] - want[i][d]) < 1e-5f, "point %d, axis %d: %g, expected %g", i, d, (double)got[i][d],
                  (double)want[i][d]);
        }
    }
}

/* ---- Gradient of the features ------------------------------------------------------------------------------------ */

static void test_features(int32_t rounds) {
    enum { POINTS = 60, ROWS = 7, COLUMNS = 5, BATCH = 2 };
    for (int32_t k = 0; k < rounds; ++k) {
        float grad[4][BATCH * ROWS * COLUMNS], out[BATCH * POINTS * COLUMNS];
        int32_t arg32[BATCH * ROWS * COLUMNS], counts[BATCH * ROWS];
        int64_t arg64[BATCH * ROWS * COLUMNS], inverse[BATCH * POINTS], splits[3] = {1, 50, 115};
        const bool packed = random_chance(0.5), first = random_chance(0.5);
        for (int e = 0; e < BATCH * ROWS * COLUMNS; ++e) {
            arg64[e] = arg32[e] = random_below(POINTS);
            for (int g = 0; g < 4; ++g) {
                grad[g][e] = (float)random_unit();
            }
        }
        for (int r = 0; r < BATCH * ROWS; ++r) {
            counts[r] = 1 + random_below(9);
        }
        for (int i = 0; i < BATCH * POINTS; ++i) {
            inverse[i] = random_below(ROWS + 1) - 1;
        }
        const rc_voxel_grad grads[4] = {{grad[0], NULL, RC_REDUCE_SUM, RC_FLOAT32, 0, 0},
                                        {grad[1], NULL, RC_REDUCE_MEAN, RC_FLOAT32, 0, 0},
                                        {grad[2], arg32, RC_REDUCE_MAX, RC_FLOAT32, RC_INT32, 0},
                                        {grad[3], arg64, RC_REDUCE_MIN, RC_FLOAT32, RC_INT64, 0}};
        const rc_voxel_grad_call call = {.struct_size = sizeof call,
                                         .num_grads = 4,
                                         .grads = grads,
                                         .batch = BATCH,
                                         .num_points = packed ? BATCH * POINTS : POINTS,
                                         .row_splits = packed ? splits : NULL,
                                         .num_rows = ROWS,
                                         .num_columns = COLUMNS,
                                         .inverse = inverse,
                                         .counts = counts,
                                         .grad_features = out,
                                         .grad_dtype = RC_FLOAT32,
                                         .channels_first = first,
                                         .parallel_for = uneven_for};
        memset(out, 0xa5, sizeof out);
        CHECK(rc_voxelize_backward_cpu(&call) == RC_OK, "%s", rc_last_error());
        for (int e = 0; e < BATCH * POINTS * COLUMNS; ++e) {
            const int64_t i = e / COLUMNS, c = e % COLUMNS;
            int64_t b = i / POINTS, n = i % POINTS;
            if (packed) {
                b = i >= splits[1];
                n = i - splits[b];
            }
            float want = 0.0f;
            if (inverse[i] >= 0 && (!packed || (i >= splits[0] && i < splits[2]))) {
                const int64_t row = inverse[i];
                const int64_t at = first ? (b * COLUMNS + c) * ROWS + row : (b * ROWS + row) * COLUMNS + c;
                want += grad[0][at];
                want += grad[1][at] / (float)counts[b * ROWS + row];
                want += arg32[at] == n ? grad[2][at] : 0.0f;
                want += arg64[at] == n ? grad[3][at] : 0.0f;
            }
            CHECK(out[e] == want, "point %" PRId64 ", column %" PRId64 ": %g, expected %g", i, c, (double)out[e],
                  (double)want);
        }
    }
}

int main(void) {
    test_forward(150);
    test_backward(80);
    test_point_gradient();
    test_features(40);
    printf("values at points and gradients agree with the oracle\n");
    return 0;
}
