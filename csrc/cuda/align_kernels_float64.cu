#include "align_table.cuh"

namespace rc {

const AlignKernels& align_kernels_float64() {
    static const AlignKernels kernels = plain_and_general<double>();
    return kernels;
}

}  // namespace rc
