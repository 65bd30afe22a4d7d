#include "align_table.cuh"

namespace rc {

const AlignKernels& align_kernels_float16() {
    static const AlignKernels kernels = plain_and_general<half>();
    return kernels;
}

}  // namespace rc
