/* What lets one source serve C11 and CUDA: the same inline functions compile for both devices.
 *
 * Both builds switch contraction off (-ffp-contract=off, -fmad=false), so a * b + c rounds twice everywhere and the
 * devices agree to the bit.
 */
#ifndef RC_CORE_PORTABLE_H
#define RC_CORE_PORTABLE_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#define RC_INLINE static __host__ __device__ __forceinline__
#define RC_RESTRICT __restrict__
#else
#define RC_INLINE static inline
#define RC_RESTRICT restrict
#endif

#endif /* RC_CORE_PORTABLE_H */
