/* Dense and sparse grids against the slow and obvious way, for every vector code, alone and in pieces. */
#include "voxel_oracle.h"

/* ---- Outputs ----------------------------------------------------------------------------------------------------- */

static bool has_columns(int32_t reduce) {
    return reduce > RC_REDUCE_COUNT;
}

static int32_t random_dtype(int32_t reduce) {
    if (reduce == RC_REDUCE_ARGMAX || reduce == RC_REDUCE_ARGMIN) {
        return random_chance(0.5) ? RC_INT32 : RC_INT64;
    }
    if (has_columns(reduce)) {
        return random_chance(0.5) ? RC_FLOAT32 : random_below(RC_FLOAT64 + 1);
    }
    return reduce == RC_REDUCE_OCCUPANCY && random_chance(0.3) ? RC_BITS : random_below(RC_NUM_DTYPES);
}

static size_t element_size(int32_t dtype) {
    return dtype == RC_BITS ? 1 : rc_dtype_size(dtype);
}

static int64_t elements_of(const voxel_problem *p, const rc_voxel_output *output, int64_t rows) {
    if (output->dtype == RC_BITS) {
        return p->call.batch * p->call.grid.size[0] * p->call.grid.size[1] * ((p->call.grid.size[2] + 7) / 8);
    }
    return p->call.batch * rows * (has_columns(output->reduce) ? p->features.num_columns : 1);
}

static void make_outputs(voxel_problem *p, bool sparse, int64_t rows) {
    p->call.outputs = p->outputs;
    p->call.accumulate = !sparse && random_chance(0.2);
    for (int32_t reduce = sparse ? RC_REDUCE_COUNT : 0; reduce < RC_NUM_REDUCES; ++reduce) {
        if (!random_chance(0.4) || (has_columns(reduce) && p->call.accumulate)) {
            continue;
        }
        rc_voxel_output *output = &p->outputs[p->call.num_outputs++];
        *output = (rc_voxel_output){.reduce = reduce, .dtype = random_dtype(reduce)};
        const int64_t count = elements_of(p, output, rows);
        output->data = keep(p, count, element_size(output->dtype));
    }
}

static bool same_output(const rc_voxel_output *output, const void *got, const void *want) {
    return output->dtype == RC_BITS ? memcmp(got, want, 1) == 0 : same_value(got, want, output->dtype);
}

/* ---- Dense ------------------------------------------------------------------------------------------------------- */

static void check_bits(const voxel_problem *p, const rc_voxel_output *output, int64_t b) {
    const int64_t z_size = p->call.grid.size[2], rows = p->call.grid.size[0] * p->call.grid.size[1];
    const uint8_t *bytes = (const uint8_t *)output->data + b * rows * ((z_size + 7) / 8);
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t z = 0; z < (z_size + 7) / 8 * 8; ++z) {
            const members m = z < z_size ? members_of(p, b, row * z_size + z) : (members){NULL, 0};
            const bool set = bytes[row * ((z_size + 7) / 8) + z / 8] >> (z % 8) & 1;
            CHECK(set == (m.count > 0), "bit %" PRId64 " of row %" PRId64, z, row);
            free(m.points);
        }
    }
}

static void check_dense(const voxel_problem *p, const char *isa) {
    const int64_t cells = cells_of(p);
    for (int64_t b = 0; b < p->call.batch; ++b) {
        for (int32_t o = 0; o < p->call.num_outputs; ++o) {
            const rc_voxel_output *output = &p->outputs[o];
            if (output->dtype == RC_BITS) {
                check_bits(p, output, b);
                continue;
            }
            const int64_t columns = has_columns(output->reduce) ? p->features.num_columns : 1;
            for (int64_t cell = 0; cell < cells; ++cell) {
                const members m = members_of(p, b, cell);
                for (int64_t c = 0; c < columns; ++c) {
                    const int64_t at = p->call.channels_first ? (b * columns + c) * cells + cell
                                                              : (b * cells + cell) * columns + c;
                    char want[8];
                    expect(p, output, &m, c, want);
                    const char *got = (const char *)output->data + at * (int64_t)rc_dtype_size(output->dtype);
                    CHECK(same_output(output, got, want),
                          "%s: reduce %d, dtype %d, sample %" PRId64 ", cell %" PRId64 " of %" PRId64
                          " points, column %" PRId64 ": got %g, expected %g",
                          isa, output->reduce, output->dtype, b, cell, m.count, c, read_value(got, output->dtype),
                          read_value(want, output->dtype));
                }
                free(m.points);
            }
        }
        CHECK(p->call.dropped[b] == p->outside[b], "%s: dropped %" PRId64 ", expected %" PRId64, isa,
              p->call.dropped[b], p->outside[b]);
    }
    for (int64_t i = 0; i < p->total; ++i) {
        CHECK(p->call.inverse[i] == p->cells[i], "%s: inverse of point %" PRId64 ": %" PRId64 ", expected %" PRId64,
              isa, i, p->call.inverse[i], p->cells[i]);
    }
}

static void clear_outputs(voxel_problem *p, int64_t rows) {
    for (int32_t o = 0; o < p->call.num_outputs; ++o) {
        const size_t bytes = (size_t)elements_of(p, &p->outputs[o], rows) * element_size(p->outputs[o].dtype);
        memset(p->outputs[o].data, p->call.accumulate ? 0 : 0xa5, bytes);
    }
}

static void test_dense(int32_t rounds, int32_t most, int32_t largest) {
    static const int32_t widths[] = {1, 2, 3, 4, 5, 8, 16, 17, 33, 70, 0};
    for (int32_t k = 0; k < rounds; ++k) {
        voxel_problem p;
        make_problem(&p, most, largest);
        make_features(&p, widths[random_below(11)]);
        p.call.channels_first = random_chance(0.3);
        make_outputs(&p, false, cells_of(&p));
        p.call.inverse = keep(&p, p.total, sizeof(int64_t));
        p.call.dropped = keep(&p, p.call.batch, sizeof(int64_t));
        for (int32_t n = 0; n == 0 || isa_number(n); ++n) {
            const char *isa = isa_number(n);
            p.call.parallel_for = random_chance(0.5) ? uneven_for : NULL;
            clear_outputs(&p, cells_of(&p));
            CHECK(rc_voxelize_cpu(&p.call) == RC_OK, "%s", rc_last_error());
            check_dense(&p, isa);
        }
        free_problem(&p);
    }
}

/* More points in a cell than two levels of sums hold. */
static void test_many_points(void) {
    enum { POINTS = 40000, COLUMNS = 3 };
    float *points = allocate(3 * POINTS, sizeof *points), *values = allocate(COLUMNS * POINTS, sizeof *values);
    for (int k = 0; k < 3 * POINTS; ++k) {
        points[k] = k % 3 == 2 && k / 3 % 2 == 1 ? 1.5f : 0.5f;
    }
    for (int k = 0; k < COLUMNS * POINTS; ++k) {
        values[k] = (float)random_unit() * 100.0f;
    }
    voxel_problem p = {0};
    p.total = POINTS;
    p.cloud = (rc_point_cloud){.points = points, .points_stride = {0, 3, 1}, .num_points = POINTS, .dtype = RC_FLOAT32};
    p.features = (rc_point_features){
        .values = values, .stride = {0, 0, COLUMNS, 1}, .num_columns = COLUMNS, .dtype = RC_FLOAT32};
    float means[COLUMNS * 2];
    p.outputs[0] = (rc_voxel_output){means, RC_REDUCE_MEAN, RC_FLOAT32};
    p.call = (rc_voxel_call){.struct_size = sizeof p.call,
                             .cloud = &p.cloud,
                             .batch = 1,
                             .features = &p.features,
                             .grid = {.size = {1, 1, 2}, .voxel_size = {1, 1, 1}},
                             .outputs = p.outputs,
                             .num_outputs = 1};
    place_points(&p);
    int64_t num_voxels[1];
    int32_t coords[6];
    const rc_sparse_call sparse = {
        .struct_size = sizeof sparse, .call = &p.call, .max_voxels = 2, .coords = coords, .num_voxels = num_voxels};
    for (int32_t way = 0; way < 2; ++way) {
        memset(means, 0xa5, sizeof means);
        CHECK((way == 0 ? rc_voxelize_cpu(&p.call) : rc_voxelize_sparse_cpu(&sparse)) == RC_OK, "%s", rc_last_error());
        for (int64_t cell = 0; cell < 2; ++cell) {
            const members m = members_of(&p, 0, cell);
            CHECK(m.count == POINTS / 2, "members");
            for (int64_t c = 0; c < COLUMNS; ++c) {
                float want;
                expect(&p, &p.outputs[0], &m, c, &want);
                CHECK(means[cell * COLUMNS + c] == want, "cell %" PRId64 ", column %" PRId64 ": %.9g, expected %.9g",
                      cell, c, (double)means[cell * COLUMNS + c], (double)want);
            }
            free(m.points);
        }
    }
    free_problem(&p);
    free(points);
    free(values);
}

/* ---- Sparse ------------------------------------------------------------------------------------------------------ */

/* The sample's occupied cells in order; returns how many. */
static int64_t occupied_cells(const voxel_problem *p, int64_t b, int32_t order, int64_t *cells) {
    int64_t count = 0;
    const int64_t all = cells_of(p);
    if (order == RC_ORDER_SORTED) {
        for (int64_t cell = 0; cell < all; ++cell) {
            const members m = members_of(p, b, cell);
            cells[count] = cell;
            count += m.count > 0;
            free(m.points);
        }
        return count;
    }
    for (int64_t i = 0; i < p->total; ++i) {
        bool fresh = p->sample_of[i] == b && p->cells[i] >= 0;
        for (int64_t k = 0; k < count; ++k) {
            fresh = fresh && cells[k] != p->cells[i];
        }
        if (fresh) {
            cells[count++] = p->cells[i];
        }
    }
    return count;
}

static void check_gathered(const voxel_problem *p, const rc_sparse_call *s, int64_t at, const members *m) {
    const int64_t columns = p->features.num_columns, size = (int64_t)rc_dtype_size(s->gathered_dtype);
    for (int64_t k = 0; k < s->max_points; ++k) {
        for (int64_t c = 0; c < columns; ++c) {
            char want[8] = {0};
            if (k < m->count && is_float(s->gathered_dtype)) {
                write_float(want, s->gathered_dtype, feature_at(p, m->points[k], c));
            } else if (k < m->count) {
                write_integer(want, s->gathered_dtype, (int64_t)feature_at(p, m->points[k], c));
            }
            const char *got = (const char *)s->gathered + ((at * s->max_points + k) * columns + c) * size;
            CHECK(same_value(got, want, s->gathered_dtype), "gathered point %" PRId64 ", column %" PRId64, k, c);
        }
    }
}

static void check_sparse(const voxel_problem *p, const rc_sparse_call *s) {
    int64_t *cells = allocate(cells_of(p) + 1, sizeof *cells);
    int64_t *row_of = allocate(cells_of(p), sizeof *row_of);
    const int64_t *size = p->call.grid.size;
    for (int64_t b = 0; b < p->call.batch; ++b) {
        const int64_t found = occupied_cells(p, b, s->order, cells);
        CHECK(s->num_voxels[b] == found, "num_voxels %" PRId64 ", expected %" PRId64, s->num_voxels[b], found);
        for (int64_t row = 0; row < found; ++row) {
            row_of[cells[row]] = row;
        }
        for (int64_t row = 0; row < s->max_voxels; ++row) {
            const int64_t at = b * s->max_voxels + row, cell = row < found ? cells[row] : -1;
            const int32_t *coords = s->coords + 3 * at;
            const members m = members_of(p, b, cell);
            const int64_t held = row < found ? m.count : 0;
            const members used = {m.points, held};
            CHECK(row < found ? (coords[0] * size[1] + coords[1]) * size[2] + coords[2] == cell
                              : coords[0] == -1 && coords[1] == -1 && coords[2] == -1,
                  "coords of row %" PRId64, row);
            for (int32_t o = 0; o < p->call.num_outputs; ++o) {
                const rc_voxel_output *output = &p->outputs[o];
                const int64_t columns = has_columns(output->reduce) ? p->features.num_columns : 1;
                for (int64_t c = 0; c < columns; ++c) {
                    char want[8];
                    expect(p, output, &used, c, want);
                    const char *got = (const char *)output->data +
                                      (at * columns + c) * (int64_t)rc_dtype_size(output->dtype);
                    CHECK(same_output(output, got, want), "reduce %d, row %" PRId64 ", column %" PRId64, output->reduce,
                          row, c);
                }
            }
            check_gathered(p, s, at, &used);
            free(m.points);
        }
        for (int64_t i = 0; i < p->total; ++i) {
            if (p->sample_of[i] != b) {
                continue;
            }
            int64_t row = p->cells[i] >= 0 ? row_of[p->cells[i]] : -1, place = 0;
            row = row < s->max_voxels ? row : -1;
            for (int64_t j = 0; j < i; ++j) {
                place += p->sample_of[j] == b && p->cells[j] == p->cells[i];
            }
            CHECK(p->call.inverse[i] == row, "inverse of %" PRId64, i);
            CHECK(s->slots[i] == (row >= 0 && place < s->max_points ? row * s->max_points + place : -1),
                  "slot of %" PRId64, i);
        }
    }
    for (int64_t i = 0; i < p->total; ++i) {
        CHECK(p->sample_of[i] >= 0 || (p->call.inverse[i] == -1 && s->slots[i] == -1), "point of no sample");
    }
    free(cells);
    free(row_of);
}

static void test_sparse(int32_t rounds) {
    static const int32_t widths[] = {1, 3, 4, 9, 66};
    for (int32_t k = 0; k < rounds; ++k) {
        voxel_problem p;
        make_problem(&p, 200, 6);
        make_features(&p, widths[random_below(5)]);
        rc_sparse_call s = {.struct_size = sizeof s,
                            .order = random_below(2),
                            .call = &p.call,
                            .max_voxels = random_below(60),
                            .max_points = random_below(4)};
        make_outputs(&p, true, s.max_voxels);
        s.gathered_dtype = random_chance(0.5) ? p.features.dtype : random_below(RC_FLOAT64 + 1);
        s.coords = keep(&p, p.call.batch * s.max_voxels * 3, sizeof *s.coords);
        s.num_voxels = keep(&p, p.call.batch, sizeof *s.num_voxels);
        void *gathered = allocate(p.call.batch * s.max_voxels * s.max_points * p.features.num_columns,
                                  rc_dtype_size(s.gathered_dtype));
        int64_t *slots = allocate(p.total, sizeof *slots);
        s.gathered = gathered;
        s.slots = slots;
        p.call.inverse = keep(&p, p.total, sizeof(int64_t));
        for (int32_t n = 0; n == 0 || isa_number(n); ++n) {
            (void)isa_number(n);
            p.call.parallel_for = random_chance(0.5) ? uneven_for : NULL;
            clear_outputs(&p, s.max_voxels);
            CHECK(rc_voxelize_sparse_cpu(&s) == RC_OK, "%s", rc_last_error());
            check_sparse(&p, &s);
        }
        free(gathered);
        free(slots);
        free_problem(&p);
    }
}

/* Cells that int32 does not number. */
static void test_far_cells(void) {
    const int64_t size = RC_MAX_GRID_SIZE / 64;
    float points[5][3] = {{1, 2, 3}, {262143, 262143, 262143}, {0, 0, 0}, {1, 2, 3}, {262144, 0, 0}};
    const rc_point_cloud cloud = {.points = points, .points_stride = {15, 3, 1}, .num_points = 5, .dtype = RC_FLOAT32};
    int32_t coords[9], counts[3];
    int64_t num_voxels[1], inverse[5];
    const rc_voxel_output output = {counts, RC_REDUCE_COUNT, RC_INT32};
    const rc_voxel_call call = {.struct_size = sizeof call,
                                .cloud = &cloud,
                                .batch = 1,
                                .grid = {.size = {size, size, size}, .voxel_size = {1, 1, 1}},
                                .outputs = &output,
                                .num_outputs = 1,
                                .inverse = inverse};
    const rc_sparse_call sparse = {
        .struct_size = sizeof sparse, .call = &call, .max_voxels = 3, .coords = coords, .num_voxels = num_voxels};
    CHECK(rc_voxelize_sparse_cpu(&sparse) == RC_OK, "%s", rc_last_error());
    const int32_t want[9] = {0, 0, 0, 1, 2, 3, 262143, 262143, 262143};
    const int64_t rows[5] = {1, 2, 0, 1, -1};
    CHECK(num_voxels[0] == 3 && memcmp(coords, want, sizeof want) == 0, "coords");
    CHECK(counts[0] == 1 && counts[1] == 2 && counts[2] == 1, "counts");
    CHECK(memcmp(inverse, rows, sizeof rows) == 0, "inverse");
}

int main(void) {
    test_dense(300, 300, 6);
    test_dense(6, 200, 20);
    test_many_points();
    test_sparse(150);
    test_far_cells();
    printf("grids agree with the oracle\n");
    return 0;
}
