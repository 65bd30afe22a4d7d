// Element types of tensors: what they compute in, and how they are widened and rounded.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "../common/common.h"

namespace rc {

using half = __half;
using bfloat16 = __nv_bfloat16;

// Neighbouring elements that are loaded or stored at once, 16 bytes at most.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Pack {
    T at[kCount];
};

// Type arithmetic is done in: double for double, float for the rest.
template <typename T>
struct ComputeType {
    using type = float;
};
template <>
struct ComputeType<double> {
    using type = double;
};
template <typename T>
using compute_t = typename ComputeType<T>::type;

__device__ __forceinline__ float widen(half v) {
    return __half2float(v);
}
__device__ __forceinline__ float widen(bfloat16 v) {
    return __bfloat162float(v);
}
__device__ __forceinline__ float widen(float v) {
    return v;
}
__device__ __forceinline__ double widen(double v) {
    return v;
}

// One rounding; doubles reach the half types through float, as they do everywhere in RoboCache.
template <typename Out, typename In>
__device__ __forceinline__ Out narrow(In v) {
    if constexpr (sizeof(Out) == 2) {
        const float f = static_cast<float>(v);
        if constexpr (std::is_same_v<Out, half>) {
            return __float2half_rn(f);
        } else {
            return __float2bfloat16_rn(f);
        }
    } else {
        return static_cast<Out>(v);
    }
}
__device__ __forceinline__ float widen(uint8_t v) {
    return static_cast<float>(v);
}

// An element of a floating tensor whose dtype is known at run time.
template <typename Real>
__device__ __forceinline__ Real load_real(const void* data, int32_t dtype, int64_t at) {
    switch (dtype) {
    case RC_FLOAT16:
        return static_cast<Real>(widen(__ldg(static_cast<const half*>(data) + at)));
    case RC_BFLOAT16:
        return static_cast<Real>(widen(__ldg(static_cast<const bfloat16*>(data) + at)));
    case RC_FLOAT32:
        return static_cast<Real>(__ldg(static_cast<const float*>(data) + at));
    default:
        return static_cast<Real>(__ldg(static_cast<const double*>(data) + at));
    }
}

// One rounding to a floating dtype, or to RC_UINT8 of a value that it holds.
template <typename Real>
__device__ __forceinline__ void store_real(void* data, int32_t dtype, int64_t at, Real value) {
    switch (dtype) {
    case RC_FLOAT16:
        static_cast<half*>(data)[at] = narrow<half>(value);
        break;
    case RC_BFLOAT16:
        static_cast<bfloat16*>(data)[at] = narrow<bfloat16>(value);
        break;
    case RC_FLOAT32:
        static_cast<float*>(data)[at] = static_cast<float>(value);
        break;
    case RC_UINT8:
        static_cast<uint8_t*>(data)[at] = static_cast<uint8_t>(value);
        break;
    default:
        static_cast<double*>(data)[at] = static_cast<double>(value);
    }
}

}  // namespace rc
