// Outputs of a dense or sparse call in the kernels' terms.
#pragma once

#include <cstdint>

#include "../common/common.h"

namespace rc {

// One output of cells, as a kernel writes it.
struct CellOutput {
    void* data;  // NULL: not wanted
    int32_t dtype;
    bool accumulate;
};

// An output of features.
struct FeatureOutput {
    void* data;
    int32_t reduce;
    int32_t dtype;
};

#ifdef __CUDACC__
__host__ __device__
#endif
    inline bool is_argument(int32_t reduce) {
    return reduce == RC_REDUCE_ARGMAX || reduce == RC_REDUCE_ARGMIN;
}

}  // namespace rc
