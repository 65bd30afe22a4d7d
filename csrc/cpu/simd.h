/* The few vector operations that rows.c needs, for the instruction set it is compiled for.
 *
 * RC_LANES floats make a vector; RC_LANES is 1 in the portable build, whose loops the compiler vectorises itself.
 * Loads widen to float32 and stores round to nearest even, as convert.h does. vcvtneps2bf16 is not used: it takes
 * subnormals for zero.
 */
#ifndef RC_CPU_SIMD_H
#define RC_CPU_SIMD_H

#include "convert.h"

#if defined(RC_ISA_AVX512)
#include <immintrin.h>
#define RC_LANES 16
#define RC_MASKED 1 /* tails are masked */
typedef __m512 rc_vec;
typedef __mmask16 rc_mask;

RC_INLINE rc_mask rc_first_lanes(int64_t count) {
    return (rc_mask)((1u << count) - 1u);
}

RC_INLINE rc_vec rc_splat(float value) {
    return _mm512_set1_ps(value);
}

RC_INLINE rc_vec rc_vsub(rc_vec a, rc_vec b) {
    return _mm512_sub_ps(a, b);
}

/* v0 + w * rise, rounded twice */
RC_INLINE rc_vec rc_vgrow(rc_vec v0, rc_vec rise, rc_vec w) {
    return _mm512_add_ps(v0, _mm512_mul_ps(w, rise));
}

RC_INLINE rc_vec rc_vlerp(rc_vec v0, rc_vec v1, rc_vec w) {
    return rc_vgrow(v0, rc_vsub(v1, v0), w);
}

RC_INLINE rc_vec rc_widen_bf16(__m256i halves) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

RC_INLINE __m256i rc_narrow_bf16(rc_vec v) {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    rounded = _mm512_srli_epi32(rounded, 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fff)));
}

RC_INLINE rc_vec rc_load_f32(const rc_f32 *p) {
    return _mm512_loadu_ps(p);
}

RC_INLINE rc_vec rc_load_bf16(const rc_bf16 *p) {
    return rc_widen_bf16(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

RC_INLINE rc_vec rc_load_f16(const rc_f16 *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

RC_INLINE void rc_store_f32(rc_f32 *p, rc_vec v) {
    _mm512_storeu_ps(p, v);
}

RC_INLINE void rc_store_bf16(rc_bf16 *p, rc_vec v) {
    _mm256_storeu_si256((__m256i *)(void *)p, rc_narrow_bf16(v));
}

RC_INLINE void rc_store_f16(rc_f16 *p, rc_vec v) {
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

RC_INLINE void rc_store_f64(rc_f64 *p, rc_vec v) {
    _mm512_storeu_pd(p, _mm512_cvtps_pd(_mm512_castps512_ps256(v)));
    _mm512_storeu_pd(p + 8, _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)));
}

RC_INLINE rc_vec rc_load_some_f32(const rc_f32 *p, rc_mask m) {
    return _mm512_maskz_loadu_ps(m, p);
}

RC_INLINE rc_vec rc_load_some_bf16(const rc_bf16 *p, rc_mask m) {
    return rc_widen_bf16(_mm256_maskz_loadu_epi16(m, p));
}

RC_INLINE rc_vec rc_load_some_f16(const rc_f16 *p, rc_mask m) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, p));
}

RC_INLINE void rc_store_some_f32(rc_f32 *p, rc_mask m, rc_vec v) {
    _mm512_mask_storeu_ps(p, m, v);
}

RC_INLINE void rc_store_some_bf16(rc_bf16 *p, rc_mask m, rc_vec v) {
    _mm256_mask_storeu_epi16(p, m, rc_narrow_bf16(v));
}

RC_INLINE void rc_store_some_f16(rc_f16 *p, rc_mask m, rc_vec v) {
    _mm256_mask_storeu_epi16(p, m, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

RC_INLINE void rc_store_some_f64(rc_f64 *p, rc_mask m, rc_vec v) {
    _mm512_mask_storeu_pd(p, (__mmask8)(m & 0xff), _mm512_cvtps_pd(_mm512_castps512_ps256(v)));
    _mm512_mask_storeu_pd(p + 8, (__mmask8)(m >> 8), _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)));
}

/* bfloat16 to bfloat16, RC_WIDE_LANES at once: even columns are shifted up to be floats, odd ones already lie in the
 * upper halves, and both come back by a blend. Rounding works on the halves: up when the lower half is above 0x8000, or
 * is that and the upper one is odd. NaNs need no care, since those that come of bfloat16 NaNs have no lower half. */
#define RC_WIDE_LANES 32
typedef __mmask32 rc_wide_mask;

RC_INLINE rc_wide_mask rc_first_wide_lanes(int64_t count) {
    return (rc_wide_mask)((1ull << count) - 1ull);
}

RC_INLINE __m512i rc_wide_lerp(__m512i a, __m512i b, rc_vec w) {
    const __m512i upper = _mm512_set1_epi32(-0x10000);
    const rc_vec even = rc_vlerp(_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)),
                                 _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)), w);
    const rc_vec odd = rc_vlerp(_mm512_castsi512_ps(_mm512_and_si512(a, upper)),
                                _mm512_castsi512_ps(_mm512_and_si512(b, upper)), w);
    const __m512i e = _mm512_castps_si512(even), o = _mm512_castps_si512(odd);
    const __m512i high = _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(e, 16), o);
    const __m512i low = _mm512_mask_blend_epi16(0xaaaaaaaau, e, _mm512_slli_epi32(o, 16));
    /* low | (high & 1): only "above 0x8000" is left to ask */
    const __m512i sticky = _mm512_ternarylogic_epi32(low, high, _mm512_set1_epi16(1), 0xf8);
    const __mmask32 up = _mm512_cmpgt_epu16_mask(sticky, _mm512_set1_epi16(-0x8000));
    return _mm512_mask_sub_epi16(high, up, high, _mm512_set1_epi16(-1));
}

RC_INLINE void rc_wide_row(const rc_bf16 *a, const rc_bf16 *b, rc_bf16 *o, rc_vec w) {
    _mm512_storeu_si512(o, rc_wide_lerp(_mm512_loadu_si512(a), _mm512_loadu_si512(b), w));
}

RC_INLINE void rc_wide_row_some(const rc_bf16 *a, const rc_bf16 *b, rc_bf16 *o, rc_vec w, rc_wide_mask m) {
    _mm512_mask_storeu_epi16(o, m, rc_wide_lerp(_mm512_maskz_loadu_epi16(m, a), _mm512_maskz_loadu_epi16(m, b), w));
}

#elif defined(RC_ISA_AVX2)
#include <immintrin.h>
#define RC_LANES 8
#define RC_MASKED 0 /* tails overlap the last whole vector */
typedef __m256 rc_vec;

RC_INLINE rc_vec rc_splat(float value) {
    return _mm256_set1_ps(value);
}

RC_INLINE rc_vec rc_vsub(rc_vec a, rc_vec b) {
    return _mm256_sub_ps(a, b);
}

/* v0 + w * rise, rounded twice */
RC_INLINE rc_vec rc_vgrow(rc_vec v0, rc_vec rise, rc_vec w) {
    return _mm256_add_ps(v0, _mm256_mul_ps(w, rise));
}

RC_INLINE rc_vec rc_vlerp(rc_vec v0, rc_vec v1, rc_vec w) {
    return rc_vgrow(v0, rc_vsub(v1, v0), w);
}

RC_INLINE rc_vec rc_load_f32(const rc_f32 *p) {
    return _mm256_loadu_ps(p);
}

RC_INLINE rc_vec rc_load_bf16(const rc_bf16 *p) {
    const __m256i halves = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(halves, 16));
}

RC_INLINE rc_vec rc_load_f16(const rc_f16 *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

RC_INLINE void rc_store_f32(rc_f32 *p, rc_vec v) {
    _mm256_storeu_ps(p, v);
}

RC_INLINE void rc_store_bf16(rc_bf16 *p, rc_vec v) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    rounded = _mm256_srli_epi32(rounded, 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fff), nan);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0x08);
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_castsi256_si128(packed));
}

RC_INLINE void rc_store_f16(rc_f16 *p, rc_vec v) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

RC_INLINE void rc_store_f64(rc_f64 *p, rc_vec v) {
    _mm256_storeu_pd(p, _mm256_cvtps_pd(_mm256_castps256_ps128(v)));
    _mm256_storeu_pd(p + 4, _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)));
}

/* As for AVX-512, sixteen columns at once. */
#define RC_WIDE_LANES 16

RC_INLINE void rc_wide_row(const rc_bf16 *pa, const rc_bf16 *pb, rc_bf16 *po, rc_vec w) {
    const __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)pa);
    const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)pb);
    const __m256i upper = _mm256_set1_epi32(-0x10000);
    const rc_vec even = rc_vlerp(_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
                                 _mm256_castsi256_ps(_mm256_slli_epi32(b, 16)), w);
    const rc_vec odd = rc_vlerp(_mm256_castsi256_ps(_mm256_and_si256(a, upper)),
                                _mm256_castsi256_ps(_mm256_and_si256(b, upper)), w);
    const __m256i e = _mm256_castps_si256(even), o = _mm256_castps_si256(odd);
    const __m256i high = _mm256_blend_epi16(_mm256_srli_epi32(e, 16), o, 0xaa);
    const __m256i low = _mm256_blend_epi16(e, _mm256_slli_epi32(o, 16), 0xaa);
    const __m256i sticky = _mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi16(1)));
    /* unsigned "above 0x8000" by a signed comparison */
    const __m256i up = _mm256_cmpgt_epi16(_mm256_xor_si256(sticky, _mm256_set1_epi16(-0x8000)), _mm256_setzero_si256());
    _mm256_storeu_si256((__m256i *)(void *)po, _mm256_sub_epi16(high, up));
}

#else
#define RC_LANES 1
#define RC_MASKED 0
#endif

#endif /* RC_CPU_SIMD_H */
