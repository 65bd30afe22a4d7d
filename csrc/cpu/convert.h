/* Scalar conversions of values: float16 and bfloat16 by bit arithmetic, rounding to nearest even, subnormals included.
 *
 * rc_get_<type> reads a value as float or double; rc_put_<type> rounds one. Vector code must give the same bits
 * (a NaN may keep another payload).
 */
#ifndef RC_CPU_CONVERT_H
#define RC_CPU_CONVERT_H

#include "core/portable.h"

#include <string.h>

/* The C type behind each dtype's short name. */
typedef uint16_t rc_f16;
typedef uint16_t rc_bf16;
typedef float rc_f32;
typedef double rc_f64;
typedef uint8_t rc_b8;
typedef uint8_t rc_u8;
typedef int8_t rc_i8;
typedef int16_t rc_i16;
typedef int32_t rc_i32;
typedef int64_t rc_i64;

RC_INLINE float rc_float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

RC_INLINE uint32_t rc_bits_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

RC_INLINE float rc_get_bf16(rc_bf16 h) {
    return rc_float_of_bits((uint32_t)h << 16);
}

RC_INLINE rc_bf16 rc_put_bf16(float value) {
    const uint32_t bits = rc_bits_of_float(value);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (rc_bf16)((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : rounded);
}

RC_INLINE float rc_get_f16(rc_f16 h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t exponent = h & 0x7c00u;
    const uint32_t rest = (uint32_t)(h & 0x7fffu) << 13;
    if (exponent == 0) { /* zero and subnormals: m 2^-24, taken from 2^-14 (1 + m / 1024) */
        const float magnitude = rc_float_of_bits(0x38800000u + rest) - 0x1p-14f;
        return rc_float_of_bits(rc_bits_of_float(magnitude) | sign);
    }
    return rc_float_of_bits((exponent == 0x7c00u ? 0x7f800000u | rest : rest + 0x38000000u) | sign);
}

RC_INLINE rc_f16 rc_put_f16(float value) {
    const uint32_t bits = rc_bits_of_float(value);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t half;
    if (magnitude > 0x7f800000u) {
        return 0x7fffu;
    }
    if (magnitude >= 0x47800000u) { /* 2^16 and above, infinity */
        half = 0x7c00u;
    } else if (magnitude < 0x38800000u) { /* below 2^-14: adding 0.5 rounds at 2^-24, float16's last place there */
        half = rc_bits_of_float(rc_float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
    } else {
        half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    }
    return (rc_f16)(half | sign);
}

RC_INLINE float rc_get_f32(rc_f32 value) {
    return value;
}

RC_INLINE rc_f32 rc_put_f32(float value) {
    return value;
}

#endif /* RC_CPU_CONVERT_H */
