/* A slab's cells take their points, compiled once for each instruction set as rows.c is (flags there). */
#include "voxel_bins.h"

#include "convert.h"

#include <math.h>
#include <string.h>

#if defined(RC_ISA_AVX2) || defined(RC_ISA_AVX512)
#include <immintrin.h>
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

#if defined(__GNUC__)
#define FORCE_INLINE static inline __attribute__((always_inline))
#else
#define FORCE_INLINE static inline
#endif

/* A loop of few turns is made vector code rather than written out. */
#if defined(__GNUC__) && !defined(__clang__)
#define VECTOR_LOOP _Pragma("GCC unroll 1")
#else
#define VECTOR_LOOP
#endif

#define AHEAD 8 /* points between asking for a row and reading it */

#define REAL float
#define TYPED(name) name##_f32
#include "voxel_bins.inc.h"

#define REAL double
#define TYPED(name) name##_f64
#include "voxel_bins.inc.h"

/* ---- Stores ----------------------------------------------------------------------------------------------------- */

#if defined(RC_ISA_AVX2) || defined(RC_ISA_AVX512)
static void store(void *to, const void *from, size_t bytes) {
    char *out = to;
    const char *in = from;
    const size_t ahead = (32 - ((uintptr_t)out & 31)) & 31, head = ahead < bytes ? ahead : bytes;
    memcpy(out, in, head);
    size_t k = head;
    for (; k + 32 <= bytes; k += 32) {
        const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(in + k));
        _mm256_stream_si256((__m256i *)(void *)(out + k), v);
    }
    memcpy(out + k, in + k, bytes - k);
    _mm_sfence(); /* the stores are seen before the call's end is */
}
#else
static void store(void *to, const void *from, size_t bytes) {
    memcpy(to, from, bytes);
}
#endif

/* ---- Counts ----------------------------------------------------------------------------------------------------- */

/* ONE: an occupied cell; COUNT(c): c points; ADD(before, c): c more. */
#define PUT_COUNTS(TYPE, ONE, COUNT, ADD)                                                                              \
    do {                                                                                                               \
        TYPE *restrict out = (TYPE *)(void *)to;                                                                       \
        if (occupancy && accumulate) {                                                                                 \
            for (int64_t k = 0; k < cells; ++k) {                                                                      \
                out[k] = counts[k] > 0 ? (TYPE)(ONE) : out[k];                                                         \
            }                                                                                                          \
        } else if (occupancy) {                                                                                        \
            for (int64_t k = 0; k < cells; ++k) {                                                                      \
                out[k] = counts[k] > 0 ? (TYPE)(ONE) : (TYPE)0;                                                        \
            }                                                                                                          \
        } else if (accumulate) {                                                                                       \
            for (int64_t k = 0; k < cells; ++k) {                                                                      \
                const uint32_t c = counts[k];                                                                          \
                out[k] = c > 0 ? ADD(out[k], c) : out[k];                                                              \
            }                                                                                                          \
        } else {                                                                                                       \
            for (int64_t k = 0; k < cells; ++k) {                                                                      \
                out[k] = COUNT(counts[k]);                                                                             \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

#define DEFINE_INTEGER(TYPE, SUFFIX, MAX)                                                                              \
    RC_INLINE TYPE count_##SUFFIX(uint32_t c) {                                                                        \
        return (TYPE)(c > (uint32_t)(MAX) ? (uint32_t)(MAX) : c);                                                      \
    }                                                                                                                  \
    RC_INLINE TYPE add_##SUFFIX(TYPE before, uint32_t c) {                                                             \
        const int64_t sum = (int64_t)before + (int64_t)c;                                                              \
        return (TYPE)(sum > (int64_t)(MAX) ? (int64_t)(MAX) : sum);                                                    \
    }

DEFINE_INTEGER(uint8_t, u8, UINT8_MAX)
DEFINE_INTEGER(int8_t, i8, INT8_MAX)
DEFINE_INTEGER(int16_t, i16, INT16_MAX)
DEFINE_INTEGER(int32_t, i32, INT32_MAX)

RC_INLINE int64_t count_i64(uint32_t c) {
    return (int64_t)c;
}

RC_INLINE int64_t add_i64(int64_t before, uint32_t c) {
    return before > INT64_MAX - (int64_t)c ? INT64_MAX : before + (int64_t)c;
}

#define COUNT_F16(c) rc_put_f16((float)(c))
#define ADD_F16(before, c) rc_put_f16(rc_get_f16(before) + (float)(c))
#define COUNT_BF16(c) rc_put_bf16((float)(c))
#define ADD_BF16(before, c) rc_put_bf16(rc_get_bf16(before) + (float)(c))
#define COUNT_F32(c) ((float)(c))
#define ADD_F32(before, c) ((before) + (float)(c))
#define COUNT_F64(c) ((double)(c))
#define ADD_F64(before, c) ((before) + (double)(c))

static void put_counts(const uint32_t *counts, int64_t cells, bool occupancy, bool accumulate, int32_t dtype,
                       char *to) {
    switch (dtype) {
    case RC_BOOL: /* counts that hold at 1 */
        occupancy = true;
        PUT_COUNTS(uint8_t, 1, count_u8, add_u8);
        break;
    case RC_UINT8:
        PUT_COUNTS(uint8_t, 1, count_u8, add_u8);
        break;
    case RC_INT8:
        PUT_COUNTS(int8_t, 1, count_i8, add_i8);
        break;
    case RC_INT16:
        PUT_COUNTS(int16_t, 1, count_i16, add_i16);
        break;
    case RC_INT32:
        PUT_COUNTS(int32_t, 1, count_i32, add_i32);
        break;
    case RC_INT64:
        PUT_COUNTS(int64_t, 1, count_i64, add_i64);
        break;
    case RC_FLOAT16:
        PUT_COUNTS(rc_f16, 0x3c00, COUNT_F16, ADD_F16);
        break;
    case RC_BFLOAT16:
        PUT_COUNTS(rc_bf16, 0x3f80, COUNT_BF16, ADD_BF16);
        break;
    case RC_FLOAT32:
        PUT_COUNTS(float, 1, COUNT_F32, ADD_F32);
        break;
    default:
        PUT_COUNTS(double, 1, COUNT_F64, ADD_F64);
        break;
    }
}

/* `cells` is a multiple of 8. */
static void put_bits(const uint32_t *counts, int64_t cells, bool accumulate, uint8_t *to) {
    for (int64_t k = 0; k < cells / 8; ++k) {
        uint32_t byte = accumulate ? to[k] : 0;
        for (int j = 0; j < 8; ++j) {
            byte |= (uint32_t)(counts[8 * k + j] > 0) << j;
        }
        to[k] = (uint8_t)byte;
    }
}

const rc_bin_table JOIN(rc_bins_, RC_ISA) = {
    .clear_f32 = clear_f32,
    .clear_f64 = clear_f64,
    .add_f32 = add_f32,
    .add_f64 = add_f64,
    .close_f32 = close_f32,
    .close_f64 = close_f64,
    .finish_f32 = finish_f32,
    .finish_f64 = finish_f64,
    .put_counts = put_counts,
    .store = store,
    .put_bits = put_bits,
};
