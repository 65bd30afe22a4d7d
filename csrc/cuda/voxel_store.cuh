// A reduced row on its way to the outputs of features: division, arguments, rounding.
#pragma once

#include "voxel_reduce.cuh"

namespace rc {

// An output of features.
struct FeatureOutput {
    void* data;
    int32_t reduce;
    int32_t dtype;
};

__device__ __forceinline__ bool is_argument(int32_t reduce) {
    return reduce == RC_REDUCE_ARGMAX || reduce == RC_REDUCE_ARGMIN;
}

// One column of a row as an output has it; not for arguments.
template <typename Feature, int kVector>
__device__ __forceinline__ compute_t<Feature> result_of(const Accumulator<Feature, kVector>& acc, int k, int32_t reduce,
                                                        uint32_t count) {
    switch (reduce) {
    case RC_REDUCE_SUM:
        return acc.sum[k];
    case RC_REDUCE_MEAN:
        return acc.sum[k] / static_cast<compute_t<Feature>>(count);
    case RC_REDUCE_MAX:
        return acc.max[k];
    default:
        return acc.min[k];
    }
}

// kVector columns of a row of `count` points to one output, from its element `to` on; of no points, what stands there
// then. Points are numbered across the batch, those of the sample from `sample_begin` on.
template <typename Feature, int kVector>
__device__ __forceinline__ void store_row(const FeatureOutput& output, const Accumulator<Feature, kVector>& acc,
                                          int64_t to, uint32_t count, int64_t sample_begin, double empty_value) {
    using Real = compute_t<Feature>;
    if (is_argument(output.reduce)) {
#pragma unroll
        for (int k = 0; k < kVector; ++k) {
            const uint32_t point = output.reduce == RC_REDUCE_ARGMAX ? acc.argmax[k] : acc.argmin[k];
            const int64_t index = count > 0 ? point - sample_begin : -1;
            if (output.dtype == RC_INT32) {
                static_cast<int32_t*>(output.data)[to + k] = static_cast<int32_t>(index);
            } else {
                static_cast<int64_t*>(output.data)[to + k] = index;
            }
        }
        return;
    }
    Real v[kVector];
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
        v[k] = count > 0 ? result_of(acc, k, output.reduce, count) : static_cast<Real>(empty_value);
    }
    if constexpr (kVector == 4 && sizeof(Real) == 4) {
        if (output.dtype == RC_FLOAT32 && (reinterpret_cast<uintptr_t>(output.data) & 15) == 0) {
            __stcs(reinterpret_cast<float4*>(static_cast<float*>(output.data) + to),
                   make_float4(v[0], v[1], v[2], v[3]));
            return;
        }
    }
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
        store_real(output.data, output.dtype, to + k, v[k]);
    }
}

}  // namespace rc
