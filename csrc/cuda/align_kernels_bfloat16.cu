#include "align_table.cuh"

namespace rc {

const AlignKernels& align_kernels_bfloat16() {
    static const AlignKernels kernels = plain_and_general<bfloat16>();
    return kernels;
}

}  // namespace rc
