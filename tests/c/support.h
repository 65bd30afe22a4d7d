/* Shared by the C tests: a random generator, buffers, and plain conversions that owe nothing to the library's own. */
#ifndef RC_TESTS_SUPPORT_H
#define RC_TESTS_SUPPORT_H

#include "robocache.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                                            \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fputc('\n', stderr);                                                                                       \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* ---- Random numbers: xorshift64*, the same on every machine ----------------------------------------------------- */

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static inline uint64_t random_bits(void) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545f4914f6cdd1du;
}

/* 0 .. limit - 1 */
static inline int32_t random_below(int32_t limit) {
    return (int32_t)((random_bits() >> 33) % (uint64_t)limit);
}

/* [0, 1) */
static inline double random_unit(void) {
    return (double)(random_bits() >> 11) * 0x1p-53;
}

static inline bool random_chance(double p) {
    return random_unit() < p;
}

/* ---- Memory: exactly as large as asked, so that a sanitizer sees every step beyond ------------------------------- */

static inline void *allocate(int64_t count, size_t size) {
    void *memory = calloc((size_t)(count > 0 ? count : 0) * size + (count > 0 ? 0 : 1), 1);
    CHECK(memory, "no memory");
    return memory;
}

/* ---- Values ----------------------------------------------------------------------------------------------------- */

static inline bool is_float(int32_t dtype) {
    return dtype <= RC_FLOAT64;
}

static inline float bits_to_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* float16 by its definition. */
static inline double half_to_double(uint16_t h) {
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    const double sign = h & 0x8000 ? -1.0 : 1.0;
    if (exponent == 31) {
        return fraction ? (double)NAN : sign * (double)INFINITY;
    }
    return sign * (exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24));
}

static inline double read_value(const void *p, int32_t dtype) {
    uint16_t half;
    memcpy(&half, p, rc_dtype_size(dtype) >= 2 ? 2 : 0);
    switch (dtype) {
    case RC_FLOAT16:
        return half_to_double(half);
    case RC_BFLOAT16:
        return (double)bits_to_float((uint32_t)half << 16);
    case RC_FLOAT32:
        return (double)*(const float *)p;
    case RC_FLOAT64:
        return *(const double *)p;
    case RC_BOOL:
    case RC_UINT8:
        return *(const uint8_t *)p;
    case RC_INT8:
        return *(const int8_t *)p;
    case RC_INT16:
        return *(const int16_t *)p;
    case RC_INT32:
        return *(const int32_t *)p;
    default:
        return (double)*(const int64_t *)p;
    }
}

static inline int64_t read_integer(const void *p, int32_t dtype) {
    return dtype == RC_INT64 ? *(const int64_t *)p : (int64_t)read_value(p, dtype);
}

/* Nearest half-precision number, by looking at all of them in order (ties to even). `to_double` maps 0 .. 0x7fff, in
 * rising order, to the non-negative numbers and infinity. */
static inline uint16_t nearest_half(float value, double (*to_double)(uint16_t), uint16_t infinity) {
    const double magnitude = fabs((double)value);
    const uint16_t sign = signbit(value) ? 0x8000 : 0;
    uint16_t lo = 0, hi = infinity; /* to_double(lo) <= magnitude < to_double(hi) */
    if (isinf(value)) {
        return (uint16_t)(sign | infinity);
    }
    while (hi - lo > 1) {
        const uint16_t mid = (uint16_t)((lo + hi) / 2);
        if (to_double(mid) <= magnitude) {
            lo = mid;
        } else {
            hi = mid;
        }
    }
    const double below = to_double(lo);
    /* Past the largest number, infinity stands where the next number would. */
    const double above = hi == infinity ? below + (below - to_double((uint16_t)(lo - 1))) : to_double(hi);
    const double down = magnitude - below, up = above - magnitude;
    const bool take_upper = up < down || (up == down && (lo & 1));
    return (uint16_t)(sign | (take_upper ? hi : lo));
}

static inline double bfloat_to_double(uint16_t h) {
    return (double)bits_to_float((uint32_t)h << 16);
}

/* Rounds once to float32 and once more to the half types; integers are not for this function. */
static inline void write_float(void *p, int32_t dtype, double value) {
    const float single = (float)value;
    uint16_t half;
    switch (dtype) {
    case RC_FLOAT16:
        half = isnan(single) ? 0x7e00 : nearest_half(single, half_to_double, 0x7c00);
        memcpy(p, &half, 2);
        break;
    case RC_BFLOAT16:
        half = isnan(single) ? 0x7fc0 : nearest_half(single, bfloat_to_double, 0x7f80);
        memcpy(p, &half, 2);
        break;
    case RC_FLOAT32:
        memcpy(p, &single, 4);
        break;
    default:
        memcpy(p, &value, 8);
        break;
    }
}

static inline void write_integer(void *p, int32_t dtype, int64_t value) {
    const size_t size = rc_dtype_size(dtype);
    const int8_t i8 = (int8_t)value;
    const int16_t i16 = (int16_t)value;
    const int32_t i32 = (int32_t)value;
    memcpy(p,
           size == 1   ? (const void *)&i8
           : size == 2 ? (const void *)&i16
           : size == 4 ? (const void *)&i32
                       : &value,
           size);
}

/* Equal bits, or NaN both. */
static inline bool same_value(const void *a, const void *b, int32_t dtype) {
    if (memcmp(a, b, rc_dtype_size(dtype)) == 0) {
        return true;
    }
    return is_float(dtype) && isnan(read_value(a, dtype)) && isnan(read_value(b, dtype));
}

/* Any bits: NaNs, infinities and subnormals are frequent. bool stays 0 or 1. */
static inline void write_random(void *p, int32_t dtype) {
    static const double special[] = {0.0,     -0.0,      1.0,     -1.0,      65504.0, 65520.0,  1e-45,     6e-8,
                                     1.5e-39, 3.4028e38, -3.3e38, 3.1415927, 1e300,   INFINITY, -INFINITY, NAN};
    if (is_float(dtype)) {
        if (random_chance(0.1)) {
            write_float(p, dtype, special[random_below(sizeof special / sizeof special[0])]);
        } else {
            write_float(p, dtype, ldexp(random_unit() * 2.0 - 1.0, random_below(8)));
        }
    } else {
        const uint64_t bits = random_bits();
        memcpy(p, &bits, rc_dtype_size(dtype));
        if (dtype == RC_BOOL) {
            *(uint8_t *)p &= 1;
        }
    }
}

/* An isa this machine has. `k` counts up; NULL past the last. */
static inline const char *isa_number(int32_t k) {
    static const char *const names[] = {"portable", "neon", "avx2", "avx512"};
    for (size_t n = 0; n < sizeof names / sizeof names[0]; ++n) {
        if (rc_set_cpu_isa(names[n]) == RC_OK && k-- == 0) {
            return names[n];
        }
    }
    CHECK(rc_set_cpu_isa(NULL) == RC_OK, "%s", rc_last_error());
    return NULL;
}

/* Runs pieces backwards and of uneven sizes, as a pool might. */
static inline void uneven_for(void *pool, int64_t count, int64_t grain, rc_range_fn body, void *context) {
    (void)pool;
    int64_t end = count;
    for (int64_t piece = grain; end > 0; piece += 1 + piece / 2) {
        const int64_t begin = end > piece ? end - piece : 0;
        body(begin, end, context);
        end = begin;
    }
}

#endif /* RC_TESTS_SUPPORT_H */
