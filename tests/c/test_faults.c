/* Wrong calls and wrong data: the status, the words, the place, and an output that nobody touched. */
#include "support.h"

#define B 3
#define S 5
#define D 2
#define T 4

/* A sound call that each test breaks in one place. */
typedef struct fixture {
    float values[B * S * D];
    double times[B * S];
    double targets[B * T];
    float out[B * T * D];
    uint8_t valid[B * T];
    int64_t lengths[B], row_splits[B + 1], rows[B];
    rc_column_group group;
    rc_stream stream;
    rc_align_call call;
} fixture;

static void set_up(fixture *f) {
    memset(f, 0, sizeof *f);
    for (int k = 0; k < B * S; ++k) {
        f->times[k] = k % S;
    }
    for (int k = 0; k < B * T; ++k) {
        f->targets[k] = 0.5 + k % T;
    }
    for (int k = 0; k < B * T * D; ++k) {
        f->out[k] = -77.0f;
    }
    for (int r = 0; r <= B; ++r) {
        f->row_splits[r] = r * S;
    }
    for (int r = 0; r < B; ++r) {
        f->lengths[r] = S;
        f->rows[r] = B - 1 - r;
    }
    f->group = (rc_column_group){0, D, RC_LINEAR};
    f->stream = (rc_stream){.values = f->values,
                            .times = f->times,
                            .values_stride = {S * D, D, 1},
                            .times_stride = {S, 1},
                            .num_sequences = B,
                            .num_samples = S,
                            .num_columns = D,
                            .value_dtype = RC_FLOAT32,
                            .num_groups = 1,
                            .groups = &f->group,
                            .max_gap = (double)INFINITY,
                            .tolerance = -1.0};
    f->call = (rc_align_call){.struct_size = sizeof f->call,
                              .time_dtype = RC_FLOAT64,
                              .out_dtype = RC_FLOAT32,
                              .num_streams = 1,
                              .streams = &f->stream,
                              .targets = f->targets,
                              .targets_stride = {T, 1},
                              .batch = B,
                              .num_targets = T,
                              .out = f->out,
                              .out_stride = {T * D, D, 1},
                              .valid = f->valid};
}

static void expect_status(const fixture *f, rc_status expected, const char *words, int line) {
    const rc_status status = rc_align_cpu(&f->call);
    CHECK(status == expected, "line %d: got %s (%s), expected %s", line, rc_status_name(status), rc_last_error(),
          rc_status_name(expected));
    if (status != RC_OK) {
        CHECK(strstr(rc_last_error(), words), "line %d: \"%s\" lacks \"%s\"", line, rc_last_error(), words);
        for (int k = 0; k < B * T * D; ++k) {
            CHECK(f->out[k] == -77.0f, "line %d: output %d was written", line, k);
        }
    }
}

#define BREAK(status, words, ...)                                                                                      \
    do {                                                                                                               \
        fixture f;                                                                                                     \
        set_up(&f);                                                                                                    \
        __VA_ARGS__;                                                                                                   \
        expect_status(&f, status, words, __LINE__);                                                                    \
    } while (0)

static void test_descriptors(void) {
    const double infinity = (double)INFINITY, nan = (double)NAN;
    BREAK(RC_OK, "", (void)0);
    CHECK(rc_align_cpu(NULL) == RC_INVALID_ARGUMENT, "NULL call");
    BREAK(RC_INVALID_ARGUMENT, "struct_size", f.call.struct_size = 8);
    BREAK(RC_INVALID_ARGUMENT, "time_dtype", f.call.time_dtype = RC_INT32);
    BREAK(RC_INVALID_ARGUMENT, "time_dtype", f.call.time_dtype = -1);
    BREAK(RC_INVALID_ARGUMENT, "out_dtype", f.call.out_dtype = 10);
    BREAK(RC_INVALID_ARGUMENT, "float32", f.call.out_dtype = RC_INT32);
    BREAK(RC_INVALID_ARGUMENT, "num_streams", f.call.num_streams = 0);
    BREAK(RC_UNSUPPORTED, "num_streams", f.call.num_streams = RC_MAX_STREAMS + 1);
    BREAK(RC_INVALID_ARGUMENT, "streams", f.call.streams = NULL);
    BREAK(RC_INVALID_ARGUMENT, "reserved", f.call.reserved = 1);
    BREAK(RC_INVALID_ARGUMENT, "targets", f.call.targets = NULL);
    BREAK(RC_INVALID_ARGUMENT, "targets", f.call.num_targets = -1);
    BREAK(RC_INVALID_ARGUMENT, "num_sequences", f.call.batch = B + 1);
    BREAK(RC_INVALID_ARGUMENT, "out", f.call.out = NULL);
    BREAK(RC_INVALID_ARGUMENT, "out_stride[1]", f.call.out_stride[1] = 0);
    BREAK(RC_INVALID_ARGUMENT, "value_dtype", f.stream.value_dtype = 11);
    BREAK(RC_INVALID_ARGUMENT, "values", f.stream.values = NULL);
    BREAK(RC_INVALID_ARGUMENT, "times", f.stream.times = NULL);
    BREAK(RC_INVALID_ARGUMENT, "samples", f.stream.num_samples = -1);
    BREAK(RC_UNSUPPORTED, "num_samples", f.stream.num_samples = (int64_t)1 << 31);
    BREAK(RC_UNSUPPORTED, "num_columns", f.stream.num_columns = (int64_t)1 << 31);
    BREAK(RC_INVALID_ARGUMENT, "lengths", f.stream.lengths = f.lengths, f.stream.row_splits = f.row_splits);
    BREAK(RC_INVALID_ARGUMENT, "extrapolate", f.stream.extrapolate = 4);
    BREAK(RC_INVALID_ARGUMENT, "invalid", f.stream.invalid = -1);
    BREAK(RC_INVALID_ARGUMENT, "max_gap", f.stream.max_gap = -1.0);
    BREAK(RC_INVALID_ARGUMENT, "max_gap", f.stream.max_gap = nan);
    BREAK(RC_INVALID_ARGUMENT, "tolerance", f.stream.tolerance = nan);
    BREAK(RC_INVALID_ARGUMENT, "time_offset", f.stream.time_offset = infinity);
    BREAK(RC_INVALID_ARGUMENT, "whole number", f.call.time_dtype = RC_INT64, f.stream.time_offset = 0.5);
    BREAK(RC_INVALID_ARGUMENT, "time_offset", f.call.time_dtype = RC_INT64, f.stream.time_offset = 1e19);
    BREAK(RC_INVALID_ARGUMENT, "time_offset", f.call.time_dtype = RC_FLOAT32, f.stream.time_offset = 1e300);
    BREAK(RC_INVALID_ARGUMENT, "num_groups", f.stream.num_groups = 0);
    BREAK(RC_UNSUPPORTED, "num_groups", f.stream.num_groups = RC_MAX_COLUMN_GROUPS + 1);
    BREAK(RC_INVALID_ARGUMENT, "groups", f.stream.groups = NULL);
    BREAK(RC_INVALID_ARGUMENT, "kind", f.group.kind = RC_NUM_KINDS);
    BREAK(RC_INVALID_ARGUMENT, "begin at 0", f.group.begin = 1);
    BREAK(RC_INVALID_ARGUMENT, "cover all 2 columns", f.group.end = 1);
    BREAK(RC_INVALID_ARGUMENT, "groups[0]", f.group.end = D + 1);
    BREAK(RC_INVALID_ARGUMENT, "groups[0]", f.group.end = 0);
    BREAK(RC_INVALID_ARGUMENT, "quaternions", f.group.kind = RC_SLERP_WXYZ);
    BREAK(RC_INVALID_ARGUMENT, "nearest, previous or next", f.stream.value_dtype = RC_INT32);
    BREAK(RC_INVALID_ARGUMENT, "floating out_dtype", f.stream.value_dtype = RC_INT8, f.call.out_dtype = RC_INT8,
          f.group.kind = RC_NEXT, f.stream.invalid = RC_INVALID_NAN);
    BREAK(RC_INVALID_ARGUMENT, "uint8", f.stream.value_dtype = RC_UINT8, f.call.out_dtype = RC_INT8,
          f.group.kind = RC_NEXT);
}

static void test_many_groups(void) {
    fixture f;
    set_up(&f);
    rc_stream streams[2];
    rc_column_group groups[65];
    for (int32_t g = 0; g < 65; ++g) {
        groups[g] = (rc_column_group){g, g + 1, RC_LINEAR};
    }
    streams[0] = streams[1] = f.stream;
    streams[0].num_columns = streams[1].num_columns = 65;
    streams[0].groups = streams[1].groups = groups;
    streams[0].num_groups = streams[1].num_groups = 65;
    f.call.streams = streams;
    f.call.num_streams = 2;
    expect_status(&f, RC_UNSUPPORTED, "column groups", __LINE__);
}

static void test_data(void) {
    const double infinity = (double)INFINITY, nan = (double)NAN;
    BREAK(RC_BAD_DATA, "sequence 1, sample 2 is NaN or infinite", f.times[S + 2] = nan);
    BREAK(RC_BAD_DATA, "sequence 2, sample 4 is NaN or infinite", f.times[2 * S + 4] = infinity);
    BREAK(RC_BAD_DATA, "sequence 0, sample 0 is NaN or infinite", f.times[0] = -infinity);
    BREAK(RC_BAD_DATA, "sequence 2, sample 3 is earlier", f.times[2 * S + 3] = 1.0);
    BREAK(RC_BAD_DATA, "sequence 1, sample 1", f.times[2 * S + 1] = -5.0, f.times[S + 1] = -5.0, f.times[S + 3] = nan);
    BREAK(RC_BAD_DATA, "row 2, target 3 is NaN", f.targets[2 * T + 3] = nan);
    BREAK(RC_OK, "", f.targets[T] = infinity, f.targets[T + 1] = -infinity);
    BREAK(RC_BAD_DATA, "sequence 1", f.stream.lengths = f.lengths, f.lengths[1] = S + 1);
    BREAK(RC_BAD_DATA, "lengths", f.stream.lengths = f.lengths, f.lengths[2] = -1);
    BREAK(RC_OK, "", f.stream.lengths = f.lengths, f.lengths[1] = 2, f.times[S + 2] = nan);
    BREAK(RC_BAD_DATA, "row_splits", f.stream.row_splits = f.row_splits, f.stream.num_samples = B * S,
          f.row_splits[2] = 4);
    BREAK(RC_BAD_DATA, "row_splits", f.stream.row_splits = f.row_splits, f.stream.num_samples = B * S,
          f.row_splits[3] = B * S + 1);
    BREAK(RC_BAD_DATA, "row_splits", f.stream.row_splits = f.row_splits, f.stream.num_samples = B * S,
          f.row_splits[0] = -1);
    BREAK(RC_OK, "", f.stream.rows = f.rows);
    BREAK(RC_BAD_DATA, "rows: stream 0, row 1", f.stream.rows = f.rows, f.rows[1] = B);
    BREAK(RC_BAD_DATA, "rows", f.stream.rows = f.rows, f.rows[0] = -1);
    BREAK(RC_OK, "", f.stream.rows = f.rows, f.rows[0] = 0, f.times[2 * S] = nan); /* sequence 2 is not read */
    BREAK(RC_BAD_DATA, "row 0, target 0 lies outside", f.stream.extrapolate = RC_EXTRAPOLATE_RAISE,
          f.targets[0] = -1.0);
    BREAK(RC_OK, "", f.stream.extrapolate = RC_EXTRAPOLATE_RAISE, f.targets[T + 2] = 4.0);
    BREAK(RC_BAD_DATA, "row 1, target 1 is not valid", f.stream.invalid = RC_INVALID_RAISE, f.stream.max_gap = 1.0,
          f.times[S + 2] = 1.25, f.times[S + 3] = 2.75);
    BREAK(RC_BAD_DATA, "outside", f.stream.extrapolate = RC_EXTRAPOLATE_RAISE, f.stream.lengths = f.lengths,
          f.lengths[0] = 0);
}

/* Times shared by the batch are looked at once, as far as the longest sequence goes. */
static void test_shared_times(void) {
    fixture f;
    set_up(&f);
    f.stream.times_stride[0] = 0;
    f.times[3] = (double)NAN;
    expect_status(&f, RC_BAD_DATA, "sequence 0, sample 3", __LINE__);
    f.stream.lengths = f.lengths;
    f.lengths[0] = 1;
    f.lengths[1] = 3;
    f.lengths[2] = 4;
    expect_status(&f, RC_BAD_DATA, "sequence 2, sample 3", __LINE__);
    f.lengths[2] = 7;
    expect_status(&f, RC_BAD_DATA, "lengths", __LINE__);
    f.lengths[2] = 3;
    f.targets[0] = (double)NAN;
    expect_status(&f, RC_BAD_DATA, "row 0, target 0", __LINE__);
    f.targets[0] = 0.0;
    expect_status(&f, RC_OK, "", __LINE__);
}

/* An offset that is not finite makes NaN targets, in the row and stream that have it. */
static void test_row_offsets(void) {
    fixture f;
    set_up(&f);
    double offsets[B] = {0.0, (double)NAN, 0.0};
    f.stream.row_offsets = offsets;
    expect_status(&f, RC_BAD_DATA, "row 1, target 0 is NaN", __LINE__);
    offsets[1] = (double)INFINITY;
    f.targets[T + 2] = -(double)INFINITY;
    expect_status(&f, RC_BAD_DATA, "row 1, target 2 is NaN", __LINE__);
    offsets[1] = 1.0;
    expect_status(&f, RC_OK, "", __LINE__);
}

/* float32 epoch seconds lose their steps; repeated stamps of a small clock do not. */
static void test_collapsed(void) {
    float times[S], targets[T];
    fixture f;
    set_up(&f);
    f.call.time_dtype = RC_FLOAT32;
    f.call.batch = f.stream.num_sequences = 1;
    f.stream.times = times;
    f.call.targets = targets;
    for (int j = 0; j < T; ++j) {
        targets[j] = 0.0f;
    }
    for (int i = 0; i < S; ++i) {
        times[i] = (float)(1.7e9 + i * 20.0);
    }
    expect_status(&f, RC_BAD_DATA, "int64 nanoseconds or float64 seconds", __LINE__);
    const float ulp = 0x1p-10f; /* of 10000 */
    const float steps[S] = {10000.0f, 10000.0f + ulp, 10000.0f + ulp, 10000.0f + 2.0f * ulp, 10000.0f + 4.0f * ulp};
    memcpy(times, steps, sizeof times);
    expect_status(&f, RC_BAD_DATA, "sequence 0, sample 2", __LINE__);
    const float repeated[S] = {1.0f, 2.0f, 2.0f, 2.5f, 2.5f};
    memcpy(times, repeated, sizeof times);
    expect_status(&f, RC_OK, "", __LINE__);
}

static void test_gradient_calls(void) {
    fixture f;
    set_up(&f);
    float grad[B * T * D] = {0}, by_values[B * S * D] = {0};
    double by_targets[B * T];
    int64_t order[B] = {2, 1, 0}, starts[B + 1] = {0, 1, 2, 3};
    const rc_align_grad_call sound = {.struct_size = sizeof sound,
                                      .grad_dtype = RC_FLOAT32,
                                      .forward = &f.call,
                                      .grad_out = grad,
                                      .grad_out_stride = {T * D, D, 1},
                                      .grad_values = by_values,
                                      .grad_targets = by_targets};
    rc_align_grad_call call = sound;
    CHECK(rc_align_backward_cpu(NULL) == RC_INVALID_ARGUMENT, "NULL call");
    CHECK(rc_align_backward_cpu(&call) == RC_OK, "%s", rc_last_error());
#define BREAK_GRADIENT(status, words, ...)                                                                             \
    do {                                                                                                               \
        set_up(&f);                                                                                                    \
        call = sound;                                                                                                  \
        __VA_ARGS__;                                                                                                   \
        CHECK(rc_align_backward_cpu(&call) == (status), "%s", rc_last_error());                                        \
        CHECK((status) == RC_OK || strstr(rc_last_error(), words), "\"%s\" lacks \"%s\"", rc_last_error(), words);     \
    } while (0)
    BREAK_GRADIENT(RC_INVALID_ARGUMENT, "struct_size", call.struct_size = 0);
    BREAK_GRADIENT(RC_INVALID_ARGUMENT, "forward", call.forward = NULL);
    BREAK_GRADIENT(RC_INVALID_ARGUMENT, "grad_dtype", call.grad_dtype = RC_INT8);
    BREAK_GRADIENT(RC_INVALID_ARGUMENT, "grad_out", call.grad_out = NULL);
    BREAK_GRADIENT(RC_INVALID_ARGUMENT, "num_streams", f.call.num_streams = 2);
    BREAK_GRADIENT(RC_INVALID_ARGUMENT, "grad_targets", f.call.time_dtype = RC_INT64);
    BREAK_GRADIENT(RC_INVALID_ARGUMENT, "floating", f.stream.value_dtype = RC_INT16, f.group.kind = RC_NEXT);
    BREAK_GRADIENT(RC_INVALID_ARGUMENT, "row_order", call.row_order = order);
    BREAK_GRADIENT(RC_INVALID_ARGUMENT, "row_order", f.stream.rows = f.rows);
    BREAK_GRADIENT(RC_INVALID_ARGUMENT, "row_starts", f.stream.rows = f.rows, call.row_order = order);
    BREAK_GRADIENT(RC_OK, "", f.stream.rows = f.rows, call.row_order = order, call.row_starts = starts);
    BREAK_GRADIENT(RC_INVALID_ARGUMENT, "row_order[0]", f.stream.rows = f.rows, call.row_order = order,
                   call.row_starts = starts, order[0] = 5);
    BREAK_GRADIENT(RC_INVALID_ARGUMENT, "row_order[0]", f.stream.rows = f.rows, call.row_order = order,
                   call.row_starts = starts, order[0] = 1);
    order[0] = 2;
    BREAK_GRADIENT(RC_INVALID_ARGUMENT, "row_starts", f.stream.rows = f.rows, call.row_order = order,
                   call.row_starts = starts, starts[2] = 9);
    starts[2] = 2;
    BREAK_GRADIENT(RC_INVALID_ARGUMENT, "row_starts", f.stream.rows = f.rows, call.row_order = order,
                   call.row_starts = starts, starts[3] = 2);
    starts[3] = 3;
    BREAK_GRADIENT(RC_BAD_DATA, "sequence 1, sample 1", f.times[S + 1] = (double)NAN);
}

int main(void) {
    test_descriptors();
    test_many_groups();
    test_data();
    test_shared_times();
    test_row_offsets();
    test_collapsed();
    test_gradient_calls();
    printf("wrong calls and wrong data are refused\n");
    return 0;
}
