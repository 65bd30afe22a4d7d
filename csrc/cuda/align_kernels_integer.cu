#include "align_table.cuh"

namespace rc {

const AlignKernels& align_kernels_integer() {
    static const AlignKernels kernels = [] {
        AlignKernels k{};
        k.general_few[0] = kernel_address<float, General<IntegerOut>, AlignParamsFew>();
        k.general_few[1] = kernel_address<double, General<IntegerOut>, AlignParamsFew>();
        k.general_few[2] = kernel_address<int64_t, General<IntegerOut>, AlignParamsFew>();
        k.general_many[0] = kernel_address<float, General<IntegerOut>, AlignParamsMany>();
        k.general_many[1] = kernel_address<double, General<IntegerOut>, AlignParamsMany>();
        k.general_many[2] = kernel_address<int64_t, General<IntegerOut>, AlignParamsMany>();
        return k;
    }();
    return kernels;
}

}  // namespace rc
