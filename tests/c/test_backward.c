/* Gradients: random calls against slow sums in the promised order, to the bit, and against differences of the forward
 * pass. */
#include "oracle.h"
#include "problem.h"

#define ROUNDS 1200

typedef struct gradients {
    rc_align_grad_call call;
    void *grad_out;
    void *values; /* accumulators */
    void *targets;
    void *expected_values;
    void *expected_targets;
    int64_t value_count;
    int64_t target_count;
    int64_t *row_order;
    int64_t *row_starts;
} gradients;

static bool is_narrow(const problem *p) {
    return p->streams[0].value_dtype != RC_FLOAT64;
}

static void make_row_order(gradients *g, const problem *p) {
    const rc_stream *s = &p->streams[0];
    if (!s->rows) {
        return;
    }
    g->row_order = allocate(p->call.batch, sizeof(int64_t));
    g->row_starts = allocate(s->num_sequences + 1, sizeof(int64_t));
    int64_t at = 0;
    for (int64_t r = 0; r < s->num_sequences; ++r) {
        for (int64_t b = 0; b < p->call.batch; ++b) {
            if (s->rows[b] == r) {
                g->row_order[at++] = b;
            }
        }
        g->row_starts[r + 1] = at;
    }
    g->call.row_order = g->row_order;
    g->call.row_starts = g->row_starts;
}

static void make_gradients(gradients *g, problem *p) {
    memset(g, 0, sizeof *g);
    const rc_stream *s = &p->streams[0];
    rc_align_grad_call *call = &g->call;
    call->struct_size = sizeof *call;
    call->grad_dtype = random_below(4);
    call->forward = &p->call;
    int64_t start = 0;
    const int64_t count = make_strides(p->call.batch, p->call.num_targets, s->num_columns, call->grad_out_stride,
                                       &start);
    const int64_t size = (int64_t)rc_dtype_size(call->grad_dtype);
    g->grad_out = allocate(count, (size_t)size);
    for (int64_t k = 0; k < count; ++k) {
        write_float((char *)g->grad_out + k * size, call->grad_dtype, random_unit() * 2.0 - 1.0);
    }
    call->grad_out = (char *)g->grad_out + start * size;
    g->value_count = (s->row_splits ? 1 : s->num_sequences) * s->num_samples * s->num_columns;
    g->target_count = p->call.batch * p->call.num_targets;
    g->values = allocate(g->value_count, 8);
    g->expected_values = allocate(g->value_count, 8);
    g->targets = allocate(g->target_count, 8);
    g->expected_targets = allocate(g->target_count, 8);
    call->grad_values = random_chance(0.9) ? g->values : NULL;
    call->grad_targets = p->call.time_dtype != RC_INT64 && random_chance(0.8) ? g->targets : NULL;
    make_row_order(g, p);
    p->call.out = NULL; /* not used */
    p->call.out_dtype = -1;
}

static void free_gradients(gradients *g) {
    free(g->grad_out);
    free(g->values);
    free(g->targets);
    free(g->expected_values);
    free(g->expected_targets);
    free(g->row_order);
    free(g->row_starts);
}

static double grad_at(const gradients *g, int64_t b, int64_t j, int64_t c) {
    const int64_t *stride = g->call.grad_out_stride;
    const int64_t at = b * stride[0] + j * stride[1] + c * stride[2];
    return read_value((const char *)g->call.grad_out + at * (int64_t)rc_dtype_size(g->call.grad_dtype),
                      g->call.grad_dtype);
}

static void add(const gradients *g, bool narrow, int64_t at, double weight, double amount, bool in_double) {
    if (!narrow) {
        ((double *)g->expected_values)[at] += weight * amount;
    } else if (in_double) {
        ((float *)g->expected_values)[at] += (float)(weight * amount);
    } else {
        const float part = (float)weight * (float)amount;
        ((float *)g->expected_values)[at] += part;
    }
}

/* One column of one target into the expected sums. */
static void expect_column(const gradients *g, const problem *p, const run *q, int64_t first, reading r,
                          const rc_column_group *group, int64_t b, int64_t j, int64_t c) {
    const rc_stream *s = &p->streams[0];
    const bool narrow = is_narrow(p);
    const int64_t step = s->num_columns, base = first * step + c;
    const double grad = grad_at(g, b, j, c);
    if (r.i0 == r.i1) {
        add(g, narrow, base + r.i0 * step, 1.0, grad, false);
    } else if (group->kind == RC_LINEAR || group->kind == RC_ANGLE) {
        const double left = narrow ? (double)(1.0f - (float)r.w) : 1.0 - r.w;
        add(g, narrow, base + r.i0 * step, left, grad, false);
        add(g, narrow, base + r.i1 * step, r.w, grad, false);
    } else if (group->kind == RC_PCHIP) {
        double v[4], h[3], by[4];
        window_at(s, q, r.i0, c, v);
        intervals(q, p->call.time_dtype, r.i0, h);
        rc_pchip(v, h, r.w, by, NULL);
        for (int64_t k = 0; k < 4; ++k) {
            if ((k == 0 && h[0] <= 0.0) || (k == 3 && h[2] <= 0.0)) {
                CHECK(by[k] == 0.0, "an absent sample has a gradient");
                continue;
            }
            add(g, narrow, base + (r.i0 - 1 + k) * step, by[k], grad, true);
        }
    } else if ((c - group->begin) % 4 == 0) {
        double q0[4], q1[4], go[4], g0[4], g1[4];
        for (int64_t k = 0; k < 4; ++k) {
            q0[k] = read_value(sample(s, q, r.i0, c + k), s->value_dtype);
            q1[k] = read_value(sample(s, q, r.i1, c + k), s->value_dtype);
            go[k] = grad_at(g, b, j, c + k);
        }
        rc_slerp_grad(q0, q1, r.w, go, g0, g1);
        for (int64_t k = 0; k < 4; ++k) {
            add(g, narrow, base + r.i0 * step + k, 1.0, g0[k], true);
            add(g, narrow, base + r.i1 * step + k, 1.0, g1[k], true);
        }
    }
}

/* d(out)/d(target) of one column. `t`: the shifted target. */
static double slope(const problem *p, const run *q, reading r, const rc_column_group *group, int64_t c, long double t) {
    const rc_stream *s = &p->streams[0];
    if (group->kind != RC_LINEAR && group->kind != RC_ANGLE && group->kind != RC_PCHIP) {
        return 0.0;
    }
    if (r.i0 == r.i1) {
        if (t < q->times[0] || t > q->times[q->n - 1] || r.i0 + 1 >= q->n) {
            return 0.0;
        }
        r.w = 0.0;
    }
    double v[4], h[3], rise = 0.0;
    window_at(s, q, r.i0, c, v);
    intervals(q, p->call.time_dtype, r.i0, h);
    if (group->kind == RC_PCHIP) {
        rc_pchip(v, h, r.w, NULL, &rise);
    } else if (group->kind == RC_LINEAR) {
        rise = v[2] - v[1];
    } else {
        rise = is_narrow(p) ? (double)rc_wrap_f32((float)v[2] - (float)v[1]) : rc_wrap_f64(v[2] - v[1]);
    }
    return rise / h[1];
}

static void expect(gradients *g, const problem *p) {
    const rc_stream *s = &p->streams[0];
    for (int64_t r = 0; r < s->num_sequences; ++r) {
        for (int64_t b = 0; b < p->call.batch; ++b) { /* output rows in order within each sequence */
            if ((s->rows ? s->rows[b] : b) != r) {
                continue;
            }
            const run q = run_of_row(s, p->call.time_dtype, b);
            const int64_t first = s->row_splits ? s->row_splits[r] : r * s->num_samples;
            for (int64_t j = 0; j < p->call.num_targets; ++j) {
                reading readings[MAX_GROUPS];
                const long double t = target_of(&p->call, 0, b, j);
                double by_target = 0.0;
                read_target(&p->call, 0, &q, b, j, readings);
                for (int32_t k = 0; k < s->num_groups; ++k) {
                    for (int64_t c = s->groups[k].begin; c < s->groups[k].end && readings[k].i0 >= 0; ++c) {
                        expect_column(g, p, &q, first, readings[k], &s->groups[k], b, j, c);
                        const bool sloped = s->groups[k].kind == RC_LINEAR || s->groups[k].kind == RC_ANGLE ||
                                            s->groups[k].kind == RC_PCHIP;
                        if (sloped) {
                            const double here = slope(p, &q, readings[k], &s->groups[k], c, t);
                            const bool flat = readings[k].i0 == readings[k].i1 &&
                                              (t < q.times[0] || t > q.times[q.n - 1] || readings[k].i0 + 1 >= q.n);
                            by_target += flat ? 0.0 : grad_at(g, b, j, c) * here;
                        }
                    }
                }
                const int64_t at = b * p->call.num_targets + j;
                if (p->call.time_dtype == RC_FLOAT32) {
                    ((float *)g->expected_targets)[at] = (float)by_target;
                } else {
                    ((double *)g->expected_targets)[at] = by_target;
                }
            }
            free(q.times);
        }
    }
}

static void compare(const void *got, const void *expected, int64_t count, int32_t dtype, const char *what, int round,
                    const char *isa) {
    const int64_t size = (int64_t)rc_dtype_size(dtype);
    for (int64_t k = 0; k < count; ++k) {
        const char *a = (const char *)got + k * size, *b = (const char *)expected + k * size;
        CHECK(same_value(a, b, dtype) || (read_value(a, dtype) == 0.0 && read_value(b, dtype) == 0.0),
              "round %d %s: %s[%" PRId64 "] is %.17g, expected %.17g", round, isa, what, k, read_value(a, dtype),
              read_value(b, dtype));
    }
}

static void test_random(void) {
    for (int round = 0; round < ROUNDS; ++round) {
        problem p;
        gradients g;
        make_problem(&p, true);
        make_gradients(&g, &p);
        expect(&g, &p);
        const char *isa;
        for (int32_t k = 0; (isa = isa_number(k)); ++k) {
            memset(g.values, 0, (size_t)g.value_count * 8);
            const rc_status status = rc_align_backward_cpu(&g.call);
            CHECK(status == RC_OK, "round %d %s: %s", round, isa, rc_last_error());
            if (g.call.grad_values) {
                compare(g.values, g.expected_values, g.value_count, is_narrow(&p) ? RC_FLOAT32 : RC_FLOAT64,
                        "grad_values", round, isa);
            }
            if (g.call.grad_targets) {
                compare(g.targets, g.expected_targets, g.target_count, p.call.time_dtype, "grad_targets", round, isa);
            }
        }
        free_gradients(&g);
        free_problem(&p);
    }
    printf("%d random gradients agree with the oracle\n", ROUNDS);
}

/* ---- Against differences of the forward pass --------------------------------------------------------------------- */

#define SAMPLES 6
#define TARGETS 9
#define COLUMNS 7

static double weighted_output(rc_align_call *call, const double *grad) {
    double out[TARGETS * COLUMNS], sum = 0.0;
    call->out = out;
    CHECK(rc_align_cpu(call) == RC_OK, "%s", rc_last_error());
    for (int k = 0; k < TARGETS * COLUMNS; ++k) {
        sum += grad[k] * out[k];
    }
    return sum;
}

static void test_differences(int32_t extrapolate) {
    const rc_column_group groups[] = {{0, 1, RC_LINEAR}, {1, 2, RC_PCHIP}, {2, 6, RC_SLERP_XYZW}, {6, 7, RC_ANGLE}};
    double values[SAMPLES * COLUMNS], times[SAMPLES], targets[TARGETS], grad[TARGETS * COLUMNS];
    double by_values[SAMPLES * COLUMNS] = {0}, by_targets[TARGETS];
    for (int i = 0; i < SAMPLES; ++i) {
        times[i] = i + 0.3 * random_unit();
    }
    for (int k = 0; k < SAMPLES * COLUMNS; ++k) {
        values[k] = random_unit() * 2.0 - 1.0;
    }
    for (int j = 0; j < TARGETS; ++j) {
        targets[j] = -0.5 + 6.5 * (j + 0.25) / TARGETS;
    }
    for (int k = 0; k < TARGETS * COLUMNS; ++k) {
        grad[k] = random_unit() * 2.0 - 1.0;
    }
    const rc_stream stream = {.values = values,
                              .times = times,
                              .values_stride = {SAMPLES * COLUMNS, COLUMNS, 1},
                              .times_stride = {SAMPLES, 1},
                              .num_sequences = 1,
                              .num_samples = SAMPLES,
                              .num_columns = COLUMNS,
                              .value_dtype = RC_FLOAT64,
                              .extrapolate = extrapolate,
                              .num_groups = 4,
                              .groups = groups,
                              .max_gap = (double)INFINITY,
                              .tolerance = -1.0};
    rc_align_call call = {.struct_size = sizeof call,
                          .time_dtype = RC_FLOAT64,
                          .out_dtype = RC_FLOAT64,
                          .num_streams = 1,
                          .streams = &stream,
                          .targets = targets,
                          .targets_stride = {TARGETS, 1},
                          .batch = 1,
                          .num_targets = TARGETS,
                          .out_stride = {TARGETS * COLUMNS, COLUMNS, 1}};
    const rc_align_grad_call backward = {.struct_size = sizeof backward,
                                         .grad_dtype = RC_FLOAT64,
                                         .forward = &call,
                                         .grad_out = grad,
                                         .grad_out_stride = {TARGETS * COLUMNS, COLUMNS, 1},
                                         .grad_values = by_values,
                                         .grad_targets = by_targets};
    CHECK(rc_align_backward_cpu(&backward) == RC_OK, "%s", rc_last_error());
    const double step = 1e-6;
    for (int k = 0; k < SAMPLES * COLUMNS; ++k) {
        const double kept = values[k];
        values[k] = kept + step;
        const double up = weighted_output(&call, grad);
        values[k] = kept - step;
        const double down = weighted_output(&call, grad);
        values[k] = kept;
        const double expected = (up - down) / (2.0 * step);
        CHECK(fabs(by_values[k] - expected) < 1e-6 * (1.0 + fabs(expected)), "value %d: %.12g, differences say %.12g",
              k, by_values[k], expected);
    }
    for (int k = 0; k < TARGETS * COLUMNS; ++k) { /* slerp has no gradient by targets */
        grad[k] = k % COLUMNS >= 2 && k % COLUMNS < 6 ? 0.0 : grad[k];
    }
    CHECK(rc_align_backward_cpu(&backward) == RC_OK, "%s", rc_last_error());
    for (int j = 0; j < TARGETS; ++j) {
        const double kept = targets[j];
        targets[j] = kept + step;
        const double up = weighted_output(&call, grad);
        targets[j] = kept - step;
        const double down = weighted_output(&call, grad);
        targets[j] = kept;
        const double expected = (up - down) / (2.0 * step);
        CHECK(fabs(by_targets[j] - expected) < 1e-6 * (1.0 + fabs(expected)), "target %d: %.12g, differences say %.12g",
              j, by_targets[j], expected);
    }
}

int main(void) {
    test_random();
    for (int k = 0; k < 50; ++k) {
        test_differences(RC_EXTRAPOLATE_CLAMP);
        test_differences(RC_EXTRAPOLATE_LINEAR);
    }
    printf("gradients agree with differences\n");
    return 0;
}
