/* Small things looked at one by one: every half-precision number, names and sizes, saturating time, sentences. */
#include "support.h"

#define COUNT 65536

/* Copies `count` columns of one sample: a conversion, and nothing else. */
static void copy(const void *values, int32_t value_dtype, void *out, int32_t out_dtype, int64_t count, int32_t kind) {
    const double time = 0.0;
    const rc_column_group group = {0, (int32_t)count, kind};
    const rc_stream stream = {.values = values,
                              .times = &time,
                              .values_stride = {0, 0, 1},
                              .num_sequences = 1,
                              .num_samples = 1,
                              .num_columns = count,
                              .value_dtype = value_dtype,
                              .num_groups = 1,
                              .groups = &group,
                              .max_gap = (double)INFINITY,
                              .tolerance = -1.0};
    const rc_align_call call = {.struct_size = sizeof call,
                                .time_dtype = RC_FLOAT64,
                                .out_dtype = out_dtype,
                                .num_streams = 1,
                                .streams = &stream,
                                .targets = &time,
                                .batch = 1,
                                .num_targets = 1,
                                .out = out,
                                .out_stride = {0, 0, 1}};
    CHECK(rc_align_cpu(&call) == RC_OK, "%s", rc_last_error());
}

static void expect_same(const void *got, const void *values, int32_t value_dtype, int32_t out_dtype, int64_t count,
                        const char *isa) {
    const int64_t from = (int64_t)rc_dtype_size(value_dtype), to = (int64_t)rc_dtype_size(out_dtype);
    for (int64_t k = 0; k < count; ++k) {
        uint64_t expected = 0;
        const double value = read_value((const char *)values + k * from, value_dtype);
        if (value_dtype == out_dtype) {
            memcpy(&expected, (const char *)values + k * from, (size_t)to);
        } else {
            write_float(&expected, out_dtype, value);
        }
        CHECK(same_value((const char *)got + k * to, &expected, out_dtype), "%s, %d to %d: %.17g became %.17g", isa,
              value_dtype, out_dtype, value, read_value((const char *)got + k * to, out_dtype));
    }
}

/* Every float16 and bfloat16, and the float32 numbers at, next to and halfway between them. */
static void test_conversions(const char *isa) {
    uint16_t *halves = allocate(COUNT, 2);
    float *singles = allocate(COUNT, 4);
    uint64_t *out = allocate(COUNT, 8);
    for (int32_t k = 0; k < COUNT; ++k) {
        halves[k] = (uint16_t)k;
    }
    for (int32_t to = RC_FLOAT16; to <= RC_FLOAT64; ++to) {
        for (int32_t from = RC_FLOAT16; from <= RC_BFLOAT16; ++from) {
            copy(halves, from, out, to, COUNT, RC_LINEAR);
            expect_same(out, halves, from, to, COUNT, isa);
        }
        for (int32_t nudge = -1; nudge <= 1; ++nudge) {
            for (int32_t half = 0; half < 2; ++half) {
                for (int32_t k = 0; k < COUNT; ++k) {
                    uint32_t bits = (uint32_t)k << 16; /* a bfloat16 number, or halfway to the next */
                    bits += (half ? 0x8000u : 0u) + (uint32_t)nudge;
                    memcpy(&singles[k], &bits, 4);
                }
                copy(singles, RC_FLOAT32, out, to, COUNT, RC_LINEAR);
                expect_same(out, singles, RC_FLOAT32, to, COUNT, isa);
                for (int32_t k = 0; k < COUNT; ++k) { /* the same about float16 numbers */
                    const double at = half_to_double((uint16_t)k), next = half_to_double((uint16_t)(k + 1));
                    singles[k] = (float)(half && isfinite(at) && isfinite(next) ? (at + next) / 2.0 : at);
                    uint32_t bits;
                    memcpy(&bits, &singles[k], 4);
                    bits += (uint32_t)nudge;
                    memcpy(&singles[k], &bits, 4);
                }
                copy(singles, RC_FLOAT32, out, to, COUNT, RC_LINEAR);
                expect_same(out, singles, RC_FLOAT32, to, COUNT, isa);
            }
        }
    }
    free(halves);
    free(singles);
    free(out);
}

static void test_names(void) {
    CHECK(rc_version()[0] >= '0' && rc_version()[0] <= '9', "version is \"%s\"", rc_version());
    static const size_t sizes[RC_NUM_DTYPES] = {2, 2, 4, 8, 1, 1, 1, 2, 4, 8};
    for (int32_t k = 0; k < RC_NUM_DTYPES; ++k) {
        CHECK(rc_dtype_size(k) == sizes[k], "dtype %d", k);
    }
    CHECK(rc_dtype_size(-1) == 0 && rc_dtype_size(RC_BITS) == 0 && rc_dtype_size(RC_BITS + 1) == 0, "no dtype");
    CHECK(strcmp(rc_status_name(RC_BAD_DATA), "bad data") == 0, "%s", rc_status_name(RC_BAD_DATA));
    CHECK(strcmp(rc_status_name((rc_status)99), "unknown status") == 0, "%s", rc_status_name((rc_status)99));
    CHECK(strcmp(rc_kernel_name(RC_KERNEL_ALIGN_CPU), "align_cpu") == 0, "%s", rc_kernel_name(RC_KERNEL_ALIGN_CPU));
    CHECK(!rc_kernel_name(RC_NUM_KERNELS) && !rc_kernel_name(-1), "names past the ends");
    CHECK(rc_launch_count(-1) == 0 && rc_launch_count(RC_NUM_KERNELS) == 0, "counts past the ends");
    CHECK(rc_set_cpu_isa("abacus") == RC_UNSUPPORTED && strstr(rc_last_error(), "abacus"), "%s", rc_last_error());
}

static void test_counters(void) {
    const float value = 1.0f;
    float out;
    rc_reset_launch_counts();
    copy(&value, RC_FLOAT32, &out, RC_FLOAT32, 1, RC_NEXT);
    CHECK(rc_launch_count(RC_KERNEL_ALIGN_CPU) == 1, "%" PRId64, rc_launch_count(RC_KERNEL_ALIGN_CPU));
    CHECK(rc_launch_count(RC_KERNEL_ALIGN_BACKWARD_CPU) == 0, "another kernel counted");
    rc_reset_launch_counts();
    CHECK(rc_launch_count(RC_KERNEL_ALIGN_CPU) == 0, "not reset");
}

static void test_sentences(void) {
    char text[300];
    for (int32_t fault = RC_FAULT_NONE; fault <= RC_FAULT_ROW + 1; ++fault) {
        const rc_fault_report report = {.fault = fault, .stream = 3, .row = 14, .position = 159};
        const int length = rc_describe_fault(&report, text, sizeof text);
        CHECK(length > 0 && (size_t)length == strlen(text), "fault %d: %d, \"%s\"", fault, length, text);
        CHECK(fault == RC_FAULT_NONE || fault > RC_FAULT_ROW || (strstr(text, "14") && strstr(text, "3")), "\"%s\"",
              text);
        char small[8];
        CHECK(rc_describe_fault(&report, small, sizeof small) == length && strlen(small) == 7, "\"%s\"", small);
        CHECK(rc_describe_fault(&report, NULL, 0) == length, "length alone");
    }
}

/* int64 targets and offsets stay at the ends of their range; differences use all of it. */
static void test_far_times(void) {
    const int64_t times[2] = {INT64_MIN, INT64_MAX};
    const double values[2] = {0.0, 1.0};
    const int64_t targets[3] = {INT64_MAX - 1, 0, INT64_MIN};
    double out[3];
    uint8_t valid[3];
    const rc_column_group group = {0, 1, RC_LINEAR};
    rc_stream stream = {.values = values,
                        .times = times,
                        .values_stride = {2, 1, 1},
                        .times_stride = {2, 1},
                        .num_sequences = 1,
                        .num_samples = 2,
                        .num_columns = 1,
                        .value_dtype = RC_FLOAT64,
                        .num_groups = 1,
                        .groups = &group,
                        .max_gap = (double)INFINITY,
                        .tolerance = -1.0};
    const rc_align_call call = {.struct_size = sizeof call,
                                .time_dtype = RC_INT64,
                                .out_dtype = RC_FLOAT64,
                                .num_streams = 1,
                                .streams = &stream,
                                .targets = targets,
                                .targets_stride = {3, 1},
                                .batch = 1,
                                .num_targets = 3,
                                .out = out,
                                .out_stride = {3, 1, 1},
                                .valid = valid};
    CHECK(rc_align_cpu(&call) == RC_OK, "%s", rc_last_error());
    CHECK(out[0] == 1.0 && out[1] == 0.5 && out[2] == 0.0, "%.17g %.17g %.17g", out[0], out[1], out[2]);
    CHECK(valid[0] && valid[1] && valid[2], "valid");
    stream.time_offset = 1000.0; /* the first target stays at the end */
    CHECK(rc_align_cpu(&call) == RC_OK, "%s", rc_last_error());
    CHECK(out[0] == 1.0 && valid[0], "%.17g", out[0]);
}

/* Sizes of 0 in every place: nothing is read, and what there is to write is written. */
static void test_empty(void) {
    for (int32_t empty = 0; empty < 16; ++empty) {
        const int64_t b = empty & 1 ? 0 : 2, s = empty & 2 ? 0 : 3, d = empty & 4 ? 0 : 4, t = empty & 8 ? 0 : 5;
        float *values = allocate(b * s * d, 4), *times = allocate(b * s, 4), *targets = allocate(b * t, 4);
        float *out = allocate(b * t * d, 4);
        uint8_t *valid = allocate(b * t, 1);
        for (int64_t k = 0; k < b * s; ++k) {
            times[k] = (float)(k % 3);
        }
        const rc_column_group group = {0, 4, RC_SLERP_XYZW};
        const rc_stream stream = {.values = values,
                                  .times = times,
                                  .values_stride = {s * d, d, 1},
                                  .times_stride = {s, 1},
                                  .num_sequences = b,
                                  .num_samples = s,
                                  .num_columns = d,
                                  .value_dtype = RC_FLOAT32,
                                  .num_groups = d > 0,
                                  .groups = &group,
                                  .max_gap = (double)INFINITY,
                                  .tolerance = -1.0};
        const rc_align_call call = {.struct_size = sizeof call,
                                    .time_dtype = RC_FLOAT32,
                                    .out_dtype = RC_FLOAT32,
                                    .num_streams = 1,
                                    .streams = &stream,
                                    .targets = targets,
                                    .targets_stride = {t, 1},
                                    .batch = b,
                                    .num_targets = t,
                                    .out = out,
                                    .out_stride = {t * d, d, 1},
                                    .valid = valid};
        CHECK(rc_align_cpu(&call) == RC_OK, "%d: %s", empty, rc_last_error());
        for (int64_t k = 0; k < b * t; ++k) {
            CHECK(valid[k] == (s > 0), "%d: valid", empty);
        }
        for (int64_t k = 0; k < b * t * d; ++k) {
            CHECK(s > 0 ? out[k] == 0.0f : isnan(out[k]), "%d: %g", empty, (double)out[k]);
        }
        free(values);
        free(times);
        free(targets);
        free(out);
        free(valid);
    }
}

int main(void) {
    const char *isa;
    for (int32_t k = 0; (isa = isa_number(k)); ++k) {
        CHECK(strcmp(isa, rc_cpu_isa()) == 0, "%s, not %s", rc_cpu_isa(), isa);
        test_conversions(isa);
    }
    test_names();
    test_counters();
    test_sentences();
    test_far_times();
    test_empty();
    printf("conversions, names, counters, sentences, far times and empty calls are right\n");
    return 0;
}
