// Division by a constant of the launch.
#pragma once

#include <cstdint>

namespace rc {

// Division by a constant as a multiply and a shift (Granlund and Montgomery 1994); for n < 2^31. Doubling n first leaves
// no special case, not even for 1.
struct FastDivide {
    uint32_t divisor;
    uint32_t multiplier;  // ceil(2^(31 + shift) / divisor)
    uint32_t shift;       // ceil(log2(divisor))

    static FastDivide by(uint32_t divisor) {
        FastDivide f{divisor, 0, 0};
        while ((uint64_t{1} << f.shift) < divisor) {
            ++f.shift;
        }
        f.multiplier = static_cast<uint32_t>(((uint64_t{1} << (31 + f.shift)) + divisor - 1) / divisor);
        return f;
    }
#ifdef __CUDACC__
    __device__ __forceinline__ uint32_t quotient(uint32_t n) const { return __umulhi(n << 1, multiplier) >> shift; }
#endif
};

}  // namespace rc
