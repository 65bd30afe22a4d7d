/* Row kernels, compiled once for each instruction set with one of
 *
 *   -DRC_ISA=portable                        no flags: the compiler vectorises for the architecture's baseline
 *   -DRC_ISA=avx2   -DRC_ISA_AVX2=1          -mavx2 -mf16c
 *   -DRC_ISA=avx512 -DRC_ISA_AVX512=1        -mavx512f -mavx512bw -mavx512vl -mavx512dq -mf16c
 *
 * (csrc/sources.json lists the builds) and always with -ffp-contract=off: no build may fuse a multiply with an add, so
 * all give the same bits.
 */
#include "rows.h"

#include "core/interpolate.h"
#include "simd.h"
#include "voxel_bins.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define STRING_(a) #a
#define STRING(a) STRING_(a)

#if defined(__aarch64__) || defined(_M_ARM64)
#define PORTABLE_NAME "neon" /* part of the architecture's baseline */
#else
#define PORTABLE_NAME "portable"
#endif

/* ---- Conversions ------------------------------------------------------------------------------------------------ */

/* Vectors where there are some, then single values. `some` handles a tail with masks. */
#if RC_LANES > 1
#define CONVERT_VECTORS(IN, OUT)                                                                                       \
    for (; c + RC_LANES <= count; c += RC_LANES) {                                                                     \
        rc_store_##OUT(o + c, rc_load_##IN(a + c));                                                                    \
    }
#else
#define CONVERT_VECTORS(IN, OUT)
#endif

#define DEFINE_CONVERT_F32(IN, OUT)                                                                                    \
    static void convert_##IN##_##OUT(const void *from, void *to, int64_t count) {                                      \
        const rc_##IN *restrict a = from;                                                                              \
        rc_##OUT *restrict o = to;                                                                                     \
        int64_t c = 0;                                                                                                 \
        CONVERT_VECTORS(IN, OUT)                                                                                       \
        for (; c < count; ++c) {                                                                                       \
            o[c] = rc_put_##OUT(rc_get_##IN(a[c]));                                                                    \
        }                                                                                                              \
    }

RC_INLINE rc_f64 rc_put_f64(float value) {
    return (double)value;
}

DEFINE_CONVERT_F32(f16, bf16)
DEFINE_CONVERT_F32(f16, f32)
DEFINE_CONVERT_F32(f16, f64)
DEFINE_CONVERT_F32(bf16, f16)
DEFINE_CONVERT_F32(bf16, f32)
DEFINE_CONVERT_F32(bf16, f64)
DEFINE_CONVERT_F32(f32, f16)
DEFINE_CONVERT_F32(f32, bf16)
DEFINE_CONVERT_F32(f32, f64)

/* By way of float32 (FLOAT(x) is (float)x) or double, as the output asks. */
#define DEFINE_CONVERT(IN, OUT, EXPRESSION)                                                                            \
    static void convert_##IN##_##OUT(const void *from, void *to, int64_t count) {                                      \
        const rc_##IN *restrict a = from;                                                                              \
        rc_##OUT *restrict o = to;                                                                                     \
        for (int64_t c = 0; c < count; ++c) {                                                                          \
            const rc_##IN x = a[c];                                                                                    \
            o[c] = EXPRESSION;                                                                                         \
        }                                                                                                              \
    }

DEFINE_CONVERT(f64, f16, rc_put_f16((float)x))
DEFINE_CONVERT(f64, bf16, rc_put_bf16((float)x))
DEFINE_CONVERT(f64, f32, (float)x)

#define DEFINE_CONVERT_INTEGER(IN)                                                                                     \
    DEFINE_CONVERT(IN, f16, rc_put_f16((float)x))                                                                      \
    DEFINE_CONVERT(IN, bf16, rc_put_bf16((float)x))                                                                    \
    DEFINE_CONVERT(IN, f32, (float)x)                                                                                  \
    DEFINE_CONVERT(IN, f64, (double)x)

DEFINE_CONVERT_INTEGER(u8) /* bool too */
DEFINE_CONVERT_INTEGER(i8)
DEFINE_CONVERT_INTEGER(i16)
DEFINE_CONVERT_INTEGER(i32)
DEFINE_CONVERT_INTEGER(i64)
DEFINE_CONVERT(u8, i16, (int16_t)x)
DEFINE_CONVERT(u8, i32, (int32_t)x)
DEFINE_CONVERT(u8, i64, (int64_t)x)
DEFINE_CONVERT(i8, i16, (int16_t)x)
DEFINE_CONVERT(i8, i32, (int32_t)x)
DEFINE_CONVERT(i8, i64, (int64_t)x)
DEFINE_CONVERT(i16, i32, (int32_t)x)
DEFINE_CONVERT(i16, i64, (int64_t)x)
DEFINE_CONVERT(i32, i64, (int64_t)x)

/* Same type on both sides: the bits. */
#define DEFINE_MOVE(SIZE)                                                                                              \
    static void move_##SIZE(const void *from, void *to, int64_t count) {                                               \
        memcpy(to, from, (size_t)count * (SIZE));                                                                      \
    }

DEFINE_MOVE(1)
DEFINE_MOVE(2)
DEFINE_MOVE(4)
DEFINE_MOVE(8)
#define convert_f16_f16 move_2
#define convert_bf16_bf16 move_2
#define convert_f32_f32 move_4
#define convert_f64_f64 move_8

/* ---- Linear ----------------------------------------------------------------------------------------------------- */

#if RC_LANES > 1
#define LERP_VECTORS(IN, OUT)                                                                                          \
    const rc_vec vw = rc_splat(w);                                                                                     \
    ROW_LOOP(RC_LANES, rc_store_##OUT(o + c, rc_vlerp(rc_load_##IN(a + c), rc_load_##IN(b + c), vw));)
#else
#define LERP_VECTORS(IN, OUT)
#endif

/* Where targets are denser than samples, several in a row share a bracket: its samples are then loaded, widened and
 * subtracted once, RUN_VECTORS at a time, for all of them. */
#if RC_LANES > 1
#define RUN_VECTORS 4
#define LERP_RUN(IN, OUT)                                                                                              \
    const bool whole_blocks = columns % (RUN_VECTORS * RC_LANES) == 0;                                                 \
    if (whole_blocks && j + 1 < rows->count && rows->i0[j + 1] == i0 && rows->i1[j + 1] == i1) {                       \
        int32_t end = j + 2;                                                                                           \
        while (end < rows->count && rows->i0[end] == i0 && rows->i1[end] == i1) {                                      \
            ++end;                                                                                                     \
        }                                                                                                              \
        for (int64_t block = 0; block < columns; block += RUN_VECTORS * RC_LANES) {                                    \
            rc_vec v0[RUN_VECTORS], rise[RUN_VECTORS];                                                                 \
            for (int k = 0; k < RUN_VECTORS; ++k) {                                                                    \
                v0[k] = rc_load_##IN(a + block + k * RC_LANES);                                                        \
                rise[k] = rc_vsub(rc_load_##IN(b + block + k * RC_LANES), v0[k]);                                      \
            }                                                                                                          \
            rc_##OUT *to = o + block;                                                                                  \
            for (int32_t t = j; t < end; ++t) {                                                                        \
                const rc_vec vw = rc_splat(rows->w32[t]);                                                              \
                for (int k = 0; k < RUN_VECTORS; ++k) {                                                                \
                    rc_store_##OUT(to + k * RC_LANES, rc_vgrow(v0[k], rise[k], vw));                                   \
                }                                                                                                      \
                to = (rc_##OUT *)(void *)((char *)to + rows->target_step);                                             \
            }                                                                                                          \
        }                                                                                                              \
        j = end - 1;                                                                                                   \
        continue;                                                                                                      \
    }
#else
#define LERP_RUN(IN, OUT)
#endif

#if RC_MASKED
#define LERP_TAIL(IN, OUT)                                                                                             \
    if (c < columns) {                                                                                                 \
        const rc_mask m = rc_first_lanes(columns - c);                                                                 \
        rc_store_some_##OUT(o + c, m, rc_vlerp(rc_load_some_##IN(a + c, m), rc_load_some_##IN(b + c, m), vw));         \
    }
#elif RC_LANES > 1
#define LERP_TAIL(IN, OUT)                                                                                             \
    if (c < columns && columns >= RC_LANES) {                                                                          \
        c = columns - RC_LANES;                                                                                        \
        rc_store_##OUT(o + c, rc_vlerp(rc_load_##IN(a + c), rc_load_##IN(b + c), vw));                                 \
    } else {                                                                                                           \
        for (; c < columns; ++c) {                                                                                     \
            o[c] = rc_put_##OUT(rc_lerp_f32(rc_get_##IN(a[c]), rc_get_##IN(b[c]), w));                                 \
        }                                                                                                              \
    }
#else
#define LERP_TAIL(IN, OUT)                                                                                             \
    for (; c < columns; ++c) {                                                                                         \
        o[c] = rc_put_##OUT(rc_lerp_f32(rc_get_##IN(a[c]), rc_get_##IN(b[c]), w));                                     \
    }
#endif

/* Targets skip about among samples, which hides long rows from the hardware's own prefetcher: a loop over such a row
 * asks, line by line as it goes, for the row of a target further on, unless that target reads the same samples. */
#define PREFETCH_BYTES 256
#define PREFETCH_TARGETS 4

RC_INLINE bool wants_prefetch(const rc_rows *rows, int32_t j, int64_t bytes) {
    const int32_t ahead = j + PREFETCH_TARGETS;
    return bytes >= PREFETCH_BYTES && ahead < rows->count && rows->i0[ahead] > rows->i1[j];
}

/* All whole vectors of a row; VECTOR does the one at column c. */
#define ROW_LOOP(LANES, VECTOR)                                                                                        \
    if (wants_prefetch(rows, j, columns * (int64_t)sizeof *a)) {                                                       \
        const int32_t ahead = j + PREFETCH_TARGETS;                                                                    \
        const char *next0 = rows->values + rows->i0[ahead] * rows->sample_step;                                        \
        const char *next1 = rows->values + rows->i1[ahead] * rows->sample_step;                                        \
        for (; c + (LANES) <= columns; c += (LANES)) {                                                                 \
            __builtin_prefetch(next0 + c * (int64_t)sizeof *a);                                                        \
            __builtin_prefetch(next1 + c * (int64_t)sizeof *a);                                                        \
            VECTOR                                                                                                     \
        }                                                                                                              \
    }                                                                                                                  \
    for (; c + (LANES) <= columns; c += (LANES)) {                                                                     \
        VECTOR                                                                                                         \
    }

/* Rows of one vector at most: nothing but the vector is left of the loop. */
#if RC_MASKED
#define SHORT_ROWS_linear_f32(IN, OUT)                                                                                 \
    if (columns == RC_LANES) {                                                                                         \
        SHORT_LOOP(IN, OUT, rc_store_##OUT(o, rc_vlerp(rc_load_##IN(a), rc_load_##IN(b), rc_splat(rows->w32[j])));)    \
        return;                                                                                                        \
    }                                                                                                                  \
    if (columns < RC_LANES) {                                                                                          \
        const rc_mask m = rc_first_lanes(columns);                                                                     \
        SHORT_LOOP(IN, OUT,                                                                                            \
                   rc_store_some_##OUT(                                                                                \
                       o, m, rc_vlerp(rc_load_some_##IN(a, m), rc_load_some_##IN(b, m), rc_splat(rows->w32[j])));)     \
        return;                                                                                                        \
    }
#define SHORT_ROWS_linear_bf16(IN, OUT)                                                                                \
    if (columns == RC_WIDE_LANES) {                                                                                    \
        SHORT_LOOP(IN, OUT, rc_wide_row(a, b, o, rc_splat(rows->w32[j]));)                                             \
        return;                                                                                                        \
    }                                                                                                                  \
    if (columns < RC_WIDE_LANES) {                                                                                     \
        const rc_wide_mask m = rc_first_wide_lanes(columns);                                                           \
        SHORT_LOOP(IN, OUT, rc_wide_row_some(a, b, o, rc_splat(rows->w32[j]), m);)                                     \
        return;                                                                                                        \
    }
#define SHORT_LOOP(IN, OUT, VECTOR)                                                                                    \
    char *out = rows->out;                                                                                             \
    for (int32_t j = 0; j < rows->count; ++j, out += rows->target_step) {                                              \
        rc_##OUT *restrict o = (rc_##OUT *)(void *)out;                                                                \
        const int32_t i0 = rows->i0[j];                                                                                \
        const int32_t i1 = rows->i1[j];                                                                                \
        if (i0 != i1) {                                                                                                \
            const rc_##IN *a = (const rc_##IN *)(const void *)(rows->values + i0 * rows->sample_step);                 \
            const rc_##IN *b = (const rc_##IN *)(const void *)(rows->values + i1 * rows->sample_step);                 \
            VECTOR                                                                                                     \
        } else if (i0 >= 0) {                                                                                          \
            convert_##IN##_##OUT(rows->values + i0 * rows->sample_step, o, columns);                                   \
        } else {                                                                                                       \
            rc_fill_missing(o, rows->out_dtype, columns);                                                              \
        }                                                                                                              \
    }
#else
#define SHORT_ROWS_linear_f32(IN, OUT)
#define SHORT_ROWS_linear_bf16(IN, OUT)
#endif
#define SHORT_ROWS_none(IN, OUT)

/* The walk over a tile: missing rows, copies, and INTERPOLATE for the others. */
#define DEFINE_ROWS(NAME, IN, OUT, SHORT, COPY, INTERPOLATE)                                                           \
    static void NAME##_##IN##_##OUT(const rc_rows *rows) {                                                             \
        const int64_t columns = rows->columns;                                                                         \
        SHORT(IN, OUT)                                                                                                 \
        for (int32_t j = 0; j < rows->count; ++j) {                                                                    \
            rc_##OUT *restrict o = (rc_##OUT *)(void *)(rows->out + j * rows->target_step);                            \
            const int32_t i0 = rows->i0[j];                                                                            \
            const int32_t i1 = rows->i1[j];                                                                            \
            if (i0 < 0) {                                                                                              \
                rc_fill_missing(o, rows->out_dtype, columns);                                                          \
                continue;                                                                                              \
            }                                                                                                          \
            const rc_##IN *a = (const rc_##IN *)(const void *)(rows->values + i0 * rows->sample_step);                 \
            if (i0 == i1) {                                                                                            \
                COPY(IN, OUT)                                                                                          \
                continue;                                                                                              \
            }                                                                                                          \
            const rc_##IN *b = (const rc_##IN *)(const void *)(rows->values + i1 * rows->sample_step);                 \
            INTERPOLATE(IN, OUT)                                                                                       \
        }                                                                                                              \
    }

#define CONVERT_ROW(IN, OUT) convert_##IN##_##OUT(a, o, columns);
#define LERP_ROW_F32(IN, OUT)                                                                                          \
    LERP_RUN(IN, OUT)                                                                                                  \
    const float w = rows->w32[j];                                                                                      \
    int64_t c = 0;                                                                                                     \
    LERP_VECTORS(IN, OUT)                                                                                              \
    LERP_TAIL(IN, OUT)

/* bfloat16 on both sides, the usual case of training, has a denser loop of its own. */
#if RC_LANES > 1
#if RC_MASKED
#define LERP_ROW_BF16_TAIL                                                                                             \
    if (c < columns) {                                                                                                 \
        rc_wide_row_some(a + c, b + c, o + c, rc_splat(w), rc_first_wide_lanes(columns - c));                          \
    }
#else
#define LERP_ROW_BF16_TAIL                                                                                             \
    if (c < columns && c > 0) {                                                                                        \
        c = columns - RC_WIDE_LANES;                                                                                   \
        rc_wide_row(a + c, b + c, o + c, rc_splat(w));                                                                 \
    } else {                                                                                                           \
        LERP_VECTORS(bf16, bf16)                                                                                       \
        LERP_TAIL(bf16, bf16)                                                                                          \
    }
#endif
#define LERP_ROW_BF16(IN, OUT)                                                                                         \
    const float w = rows->w32[j];                                                                                      \
    int64_t c = 0;                                                                                                     \
    ROW_LOOP(RC_WIDE_LANES, rc_wide_row(a + c, b + c, o + c, rc_splat(w));)                                            \
    LERP_ROW_BF16_TAIL
#else
#define LERP_ROW_BF16 LERP_ROW_F32
#endif

#define LERP_ROW_F64(IN, OUT)                                                                                          \
    const double w = rows->w64[j];                                                                                     \
    for (int64_t c = 0; c < columns; ++c) {                                                                            \
        o[c] = put_from_f64_##OUT(rc_lerp_f64(a[c], b[c], w));                                                         \
    }

/* Double results round through float32 on their way to the half types. */
#define put_from_f64_f16(x) rc_put_f16((float)(x))
#define put_from_f64_bf16(x) rc_put_bf16((float)(x))
#define put_from_f64_f32(x) ((float)(x))
#define put_from_f64_f64(x) (x)

#define FOR_FLOAT_OUTPUTS(NAME, IN, SHORT, COPY, INTERPOLATE)                                                          \
    DEFINE_ROWS(NAME, IN, f16, SHORT, COPY, INTERPOLATE)                                                               \
    DEFINE_ROWS(NAME, IN, bf16, SHORT, COPY, INTERPOLATE)                                                              \
    DEFINE_ROWS(NAME, IN, f32, SHORT, COPY, INTERPOLATE)                                                               \
    DEFINE_ROWS(NAME, IN, f64, SHORT, COPY, INTERPOLATE)

FOR_FLOAT_OUTPUTS(linear, f16, SHORT_ROWS_linear_f32, CONVERT_ROW, LERP_ROW_F32)
DEFINE_ROWS(linear, bf16, f16, SHORT_ROWS_linear_f32, CONVERT_ROW, LERP_ROW_F32)
DEFINE_ROWS(linear, bf16, bf16, SHORT_ROWS_linear_bf16, CONVERT_ROW, LERP_ROW_BF16)
DEFINE_ROWS(linear, bf16, f32, SHORT_ROWS_linear_f32, CONVERT_ROW, LERP_ROW_F32)
DEFINE_ROWS(linear, bf16, f64, SHORT_ROWS_linear_f32, CONVERT_ROW, LERP_ROW_F32)
FOR_FLOAT_OUTPUTS(linear, f32, SHORT_ROWS_linear_f32, CONVERT_ROW, LERP_ROW_F32)
FOR_FLOAT_OUTPUTS(linear, f64, SHORT_ROWS_none, CONVERT_ROW, LERP_ROW_F64)

/* ---- Angle ------------------------------------------------------------------------------------------------------ */

#define WRAP_ROW_F32(IN, OUT)                                                                                          \
    for (int64_t c = 0; c < columns; ++c) {                                                                            \
        o[c] = rc_put_##OUT(rc_wrap_f32(rc_get_##IN(a[c])));                                                           \
    }
#define ANGLE_ROW_F32(IN, OUT)                                                                                         \
    const float w = rows->w32[j];                                                                                      \
    for (int64_t c = 0; c < columns; ++c) {                                                                            \
        o[c] = rc_put_##OUT(rc_angle_f32(rc_get_##IN(a[c]), rc_get_##IN(b[c]), w));                                    \
    }
#define WRAP_ROW_F64(IN, OUT)                                                                                          \
    for (int64_t c = 0; c < columns; ++c) {                                                                            \
        o[c] = put_from_f64_##OUT(rc_wrap_f64(a[c]));                                                                  \
    }
#define ANGLE_ROW_F64(IN, OUT)                                                                                         \
    const double w = rows->w64[j];                                                                                     \
    for (int64_t c = 0; c < columns; ++c) {                                                                            \
        o[c] = put_from_f64_##OUT(rc_angle_f64(a[c], b[c], w));                                                        \
    }

FOR_FLOAT_OUTPUTS(angle, f16, SHORT_ROWS_none, WRAP_ROW_F32, ANGLE_ROW_F32)
FOR_FLOAT_OUTPUTS(angle, bf16, SHORT_ROWS_none, WRAP_ROW_F32, ANGLE_ROW_F32)
FOR_FLOAT_OUTPUTS(angle, f32, SHORT_ROWS_none, WRAP_ROW_F32, ANGLE_ROW_F32)
FOR_FLOAT_OUTPUTS(angle, f64, SHORT_ROWS_none, WRAP_ROW_F64, ANGLE_ROW_F64)

/* ---- The table -------------------------------------------------------------------------------------------------- */

#define FLOAT_OUTPUTS(NAME, IN) {NAME##_##IN##_f16, NAME##_##IN##_bf16, NAME##_##IN##_f32, NAME##_##IN##_f64}
#define FLOAT_TABLE(NAME)                                                                                              \
    {FLOAT_OUTPUTS(NAME, f16), FLOAT_OUTPUTS(NAME, bf16), FLOAT_OUTPUTS(NAME, f32), FLOAT_OUTPUTS(NAME, f64)}
#define FLOATS(IN) convert_##IN##_f16, convert_##IN##_bf16, convert_##IN##_f32, convert_##IN##_f64

#ifdef RC_ISA_AVX512
#define TABLE_NAME "avx512"
#elif defined(RC_ISA_AVX2)
#define TABLE_NAME "avx2"
#else
#define TABLE_NAME PORTABLE_NAME
#endif

const rc_row_table JOIN(rc_rows_, RC_ISA) = {
    .name = TABLE_NAME,
    .find = &JOIN(rc_find_, RC_ISA),
    .cells = &JOIN(rc_cells_, RC_ISA),
    .reduce = &JOIN(rc_reduce_, RC_ISA),
    .bins = &JOIN(rc_bins_, RC_ISA),
    .convert =
        {
            /* to: f16, bf16, f32, f64, bool, u8, i8, i16, i32, i64 */
            {FLOATS(f16), NULL, NULL, NULL, NULL, NULL, NULL},
            {FLOATS(bf16), NULL, NULL, NULL, NULL, NULL, NULL},
            {FLOATS(f32), NULL, NULL, NULL, NULL, NULL, NULL},
            {FLOATS(f64), NULL, NULL, NULL, NULL, NULL, NULL},
            {FLOATS(u8), move_1, move_1, move_1, convert_u8_i16, convert_u8_i32, convert_u8_i64},
            {FLOATS(u8), NULL, move_1, NULL, convert_u8_i16, convert_u8_i32, convert_u8_i64},
            {FLOATS(i8), NULL, NULL, move_1, convert_i8_i16, convert_i8_i32, convert_i8_i64},
            {FLOATS(i16), NULL, NULL, NULL, move_2, convert_i16_i32, convert_i16_i64},
            {FLOATS(i32), NULL, NULL, NULL, NULL, move_4, convert_i32_i64},
            {FLOATS(i64), NULL, NULL, NULL, NULL, NULL, move_8},
        },
    .linear = FLOAT_TABLE(linear),
    .angle = FLOAT_TABLE(angle),
};
