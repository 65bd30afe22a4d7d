#include "align_table.cuh"

namespace rc {

const AlignKernels& align_kernels_float32() {
    static const AlignKernels kernels = plain_and_general<float>();
    return kernels;
}

}  // namespace rc
