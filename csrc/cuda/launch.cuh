// Kernel launches with attributes.
#pragma once

#include "runtime.h"

namespace rc {

struct LaunchShape {
    unsigned blocks;
    unsigned threads;
    size_t shared;  // dynamic shared memory, in bytes
    cudaStream_t stream;
    // The kernel may begin while the one before it in the stream still runs (where launches_early()); it waits for that
    // one's results with wait_for_previous().
    bool early;
    unsigned cluster;  // blocks of a cluster; 1 for none
};

template <typename... Params, typename... Args>
rc_status launch(const LaunchShape& shape, const char* what, void (*kernel)(Params...), Args... args) {
    if (shape.shared > 0) {
        const rc_status status = check_cuda(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared)),
            "asking for shared memory");
        if (status != RC_OK) {
            return status;
        }
    }
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(shape.blocks);
    config.blockDim = dim3(shape.threads);
    config.dynamicSmemBytes = shape.shared;
    config.stream = shape.stream;
    cudaLaunchAttribute attributes[2]{};
    if (shape.early) {
        attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
    }
    if (shape.cluster > 1) {
        attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
        attributes[config.numAttrs++].val.clusterDim = {shape.cluster, 1, 1};
    }
    config.attrs = attributes;
    return check_cuda(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...), what);
}

#ifdef __CUDACC__
// The next kernel in the stream may begin, if it was launched to begin early.
__device__ __forceinline__ void let_next_begin() {
#if __CUDA_ARCH__ >= 900
    cudaTriggerProgrammaticLaunchCompletion();
#endif
}

// Until the kernel before this one in the stream has ended and all that it wrote can be read.
__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    cudaGridDependencySynchronize();
#endif
}
#endif

}  // namespace rc
