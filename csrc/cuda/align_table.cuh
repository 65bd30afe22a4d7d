// Fills AlignKernels for one output type.
#pragma once

#include "align_kernel.cuh"

namespace rc {

template <typename Time, typename Path, typename Params>
const void* kernel_address() {
    return reinterpret_cast<const void*>(&align_kernel<Time, Path, Params>);
}

template <typename T>
AlignKernels plain_and_general() {
    constexpr int widest = 16 / sizeof(T);
    AlignKernels k{};
    const auto fill = [&k](int i, auto time) {
        using Time = decltype(time);
        k.plain_one[i][0] = kernel_address<Time, Plain<T, widest, 4, kDeepBlocks, kDeepRows>, AlignParamsOne>();
        k.plain_one[i][1] = kernel_address<Time, Plain<T, widest / 2, 4, kDeepBlocks, kDeepRows>, AlignParamsOne>();
        k.plain_one[i][2] = kernel_address<Time, Plain<T, 1, 4, kDeepBlocks, kDeepRows>, AlignParamsOne>();
        k.plain_one[i][3] = kernel_address<Time, Plain<T, widest, 2, kWideBlocks, kWideRows>, AlignParamsOne>();
        k.plain_few[i] = kernel_address<Time, Plain<T, 0, 4, kFewBlocks, kDeepRows>, AlignParamsFew>();
        k.general_few[i] = kernel_address<Time, General<T>, AlignParamsFew>();
        k.general_many[i] = kernel_address<Time, General<T>, AlignParamsMany>();
    };
    fill(0, float{});
    fill(1, double{});
    fill(2, int64_t{});
    return k;
}

}  // namespace rc
