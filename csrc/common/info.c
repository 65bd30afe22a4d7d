/* What this build is, its types, and how often its kernels ran. */
#include "common.h"

#include <stdatomic.h>

#ifndef RC_CUDA_ARCHS
#error "compile with -DRC_CUDA_ARCHS=\"...\", the CUDA targets in the build"
#endif
#ifndef RC_VERSION_STRING
#error "compile with -DRC_VERSION_STRING=\"...\", the package's version"
#endif

const char *rc_version(void) {
    return RC_VERSION_STRING;
}

const char *rc_cuda_archs(void) {
    return RC_CUDA_ARCHS;
}

/* ---- Types ------------------------------------------------------------------------------------------------------ */

size_t rc_dtype_size(int32_t dtype) {
    static const uint8_t sizes[RC_BITS + 1] = {2, 2, 4, 8, 1, 1, 1, 2, 4, 8, 2, 0};
    return dtype >= 0 && dtype <= RC_BITS ? sizes[dtype] : 0;
}

const char *rc_dtype_name(int32_t dtype) {
    static const char *const names[RC_BITS + 1] = {"float16", "bfloat16", "float32", "float64", "bool",   "uint8",
                                                   "int8",    "int16",    "int32",   "int64",   "uint16", "bits"};
    return dtype >= 0 && dtype <= RC_BITS ? names[dtype] : "an unknown dtype";
}

bool rc_dtype_is_float(int32_t dtype) {
    return dtype == RC_FLOAT16 || dtype == RC_BFLOAT16 || dtype == RC_FLOAT32 || dtype == RC_FLOAT64;
}

/* ---- Launch counters -------------------------------------------------------------------------------------------- */

static _Atomic int64_t launches[RC_NUM_KERNELS];

const char *rc_kernel_name(int32_t kernel) {
    static const char *const names[RC_NUM_KERNELS] = {"align_cpu",
                                                      "align_cuda",
                                                      "align_backward_cpu",
                                                      "align_backward_cuda",
                                                      "voxelize_cpu",
                                                      "voxelize_cuda",
                                                      "voxelize_shared_bits_cuda",
                                                      "voxelize_global_cuda",
                                                      "voxelize_partition_cuda",
                                                      "voxelize_sort_cuda",
                                                      "voxelize_sparse_cpu",
                                                      "voxelize_sparse_cuda",
                                                      "voxelize_backward_cpu",
                                                      "voxelize_backward_cuda",
                                                      "devoxelize_cpu",
                                                      "devoxelize_cuda",
                                                      "devoxelize_backward_cpu",
                                                      "devoxelize_backward_cuda",
                                                      "copy_many_cuda"};
    return kernel >= 0 && kernel < RC_NUM_KERNELS ? names[kernel] : NULL;
}

void rc_count_launch(int32_t kernel) {
    if (kernel >= 0 && kernel < RC_NUM_KERNELS) {
        atomic_fetch_add_explicit(&launches[kernel], 1, memory_order_relaxed);
    }
}

int64_t rc_launch_count(int32_t kernel) {
    return kernel >= 0 && kernel < RC_NUM_KERNELS ? atomic_load_explicit(&launches[kernel], memory_order_relaxed) : 0;
}

void rc_reset_launch_counts(void) {
    for (int32_t k = 0; k < RC_NUM_KERNELS; ++k) {
        atomic_store_explicit(&launches[k], 0, memory_order_relaxed);
    }
}
