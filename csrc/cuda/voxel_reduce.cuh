// The features of a cell's points to one row: sums by the tree of RC_SUM_BLOCK, extrema with their points.
//
// A group of lanes shares a row, each lane kVector columns of it. All groups of a block, and all lanes of a group, run
// these functions together or not at all; nothing here synchronises.
#pragma once

#include "voxel_points.cuh"
#include "voxel_sorted.h"

namespace rc {

// Wants that a kernel is compiled for: sums alone, maxima alone, or any, as the call says.
constexpr uint32_t kAnyWants = 0xffu;
template <uint32_t kWants>
__device__ __forceinline__ uint32_t wants_now(uint32_t called) {
    return kWants == kAnyWants ? called : kWants;
}

// Kernels whose accumulators leave room for more blocks on a multiprocessor.
constexpr bool light(uint32_t wants, size_t real_size) {
    return wants != kAnyWants && real_size == 4;
}

// kVector columns of a row under way.
template <typename Feature, int kVector>
struct Accumulator {
    using Real = compute_t<Feature>;
    Real sum[kVector];
    Real max[kVector];
    Real min[kVector];
    uint32_t argmax[kVector];  // numbers of points across the batch
    uint32_t argmin[kVector];

    template <bool kFirst>
    __device__ __forceinline__ void add(const Real v[kVector], uint32_t point, uint32_t wants) {
#pragma unroll
        for (int k = 0; k < kVector; ++k) {
            merge<kFirst>(k, wants, v[k], v[k], v[k], point, point);
        }
    }

    // Another result, of points that come later.
    template <bool kFirst>
    __device__ __forceinline__ void merge(int k, uint32_t wants, Real s, Real high, Real low, uint32_t at_high,
                                          uint32_t at_low) {
        if (wants & kWantSum) {
            sum[k] = kFirst ? s : sum[k] + s;
        }
        if ((wants & kWantMax) && (kFirst || beats(high, max[k], true))) {
            max[k] = high;
            argmax[k] = at_high;
        }
        if ((wants & kWantMin) && (kFirst || beats(low, min[k], false))) {
            min[k] = low;
            argmin[k] = at_low;
        }
    }

private:
    static __device__ __forceinline__ bool beats(float v, float best, bool maximum) {
        return rc_beats_f32(v, best, maximum);
    }
    static __device__ __forceinline__ bool beats(double v, double best, bool maximum) {
        return rc_beats_f64(v, best, maximum);
    }
};

template <typename Feature, int kVector, uint32_t kWants = kAnyWants>
class Reducer {
public:
    using Real = compute_t<Feature>;
    using Acc = Accumulator<Feature, kVector>;

    // `order` holds the points at positions from `first` on.
    __device__ __forceinline__ Reducer(const ReduceParams& params, const uint32_t* order, int64_t sample,
                                       uint32_t first = 0)
        : params_(params), order_(order), sample_(sample), first_(first) {}

    // Element offset of a point's feature row.
    __device__ __forceinline__ int64_t row_of(uint32_t point) const {
        if (params_.flat) {
            return point * params_.stride[2];
        }
        const uint32_t n = static_cast<uint32_t>(point - sample_ * params_.per_sample);
        const uint32_t camera = params_.cameras ? params_.by_pixels.quotient(n) : 0;
        return sample_ * params_.stride[0] + camera * params_.stride[1] +
               (n - camera * params_.pixels) * params_.stride[2];
    }

    __device__ __forceinline__ void load(uint32_t point, int32_t column, Real v[kVector]) const {
        const Feature* at = static_cast<const Feature*>(params_.features) + row_of(point);
        if constexpr (kVector == 1) {
            v[0] = widen(__ldg(at + column * params_.stride[3]));
        } else {
            const auto pack = *reinterpret_cast<const Pack<Feature, kVector>*>(at + column);
#pragma unroll
            for (int k = 0; k < kVector; ++k) {
                v[k] = widen(pack.at[k]);
            }
        }
    }

    // A cell whose first point is on its way while others are: begin == end: none.
    struct Ahead {
        uint32_t begin, end, point;
        Real first[kVector];
    };

    __device__ __forceinline__ void ask_point(Ahead* ahead) const {
        ahead->point = ahead->begin < ahead->end ? point_at(ahead->begin) : 0;
    }
    __device__ __forceinline__ void ask_features(Ahead* ahead, int32_t column) const {
        if (ahead->begin < ahead->end) {
            load(ahead->point, column, ahead->first);
        }
    }
    // At most one block of points.
    __device__ __forceinline__ void reduce_ahead(const Ahead& ahead, int32_t column, Acc* acc) const {
        acc->template add<true>(ahead.first, ahead.point, wants());
        add_points(ahead.begin + 1, ahead.end, column, acc);
    }

    // Points at positions begin .. end, at most one block of them: from left to right.
    __device__ __forceinline__ void reduce_points(uint32_t begin, uint32_t end, int32_t column, Acc* acc) const {
        Real first[kVector];
        const uint32_t point = point_at(begin);
        load(point, column, first);
        acc->template add<true>(first, point, wants());
        add_points(begin + 1, end, column, acc);
    }

    // More points to what is there already.
    __device__ __forceinline__ void add_points(uint32_t begin, uint32_t end, int32_t column, Acc* acc) const {
        constexpr uint32_t kAhead = 4;  // rows on their way at once
        uint32_t p = begin;
        for (; p + kAhead <= end; p += kAhead) {
            uint32_t points[kAhead];
            Real v[kAhead][kVector];
#pragma unroll
            for (uint32_t j = 0; j < kAhead; ++j) {
                points[j] = point_at(p + j);
            }
#pragma unroll
            for (uint32_t j = 0; j < kAhead; ++j) {
                load(points[j], column, v[j]);
            }
#pragma unroll
            for (uint32_t j = 0; j < kAhead; ++j) {
                acc->template add<false>(v[j], points[j], wants());
            }
        }
        for (; p < end; ++p) {
            Real v[kVector];
            const uint32_t point = point_at(p);
            load(point, column, v);
            acc->template add<false>(v, point, wants());
        }
    }

    // Blocks of `level` (1 is the lowest) from position begin to end, whose cell begins at `head`: from left to right.
    __device__ __forceinline__ void reduce_blocks(int level, uint32_t head, uint32_t begin, uint32_t end,
                                                  int32_t column, Acc* acc) const {
        const uint32_t shift = kBlockShift * static_cast<uint32_t>(level);
        merge_block<true>(level, head, begin, shift, column, acc);
        for (uint64_t s = begin + (uint64_t{1} << shift); s < end; s += uint64_t{1} << shift) {
            merge_block<false>(level, head, static_cast<uint32_t>(s), shift, column, acc);
        }
    }

    // A whole cell of more than one block, points at positions begin .. end, from its partial results.
    __device__ __forceinline__ void reduce_large(uint32_t begin, uint32_t end, int32_t column, Acc* acc) const {
        const uint32_t count = end - begin;
        int level = 1;
        while (((count - 1) >> (kBlockShift * static_cast<uint32_t>(level))) >= RC_SUM_BLOCK) {
            ++level;
        }
        reduce_blocks(level, begin, begin, end, column, acc);
    }

    // A whole cell.
    __device__ __forceinline__ void reduce_cell(uint32_t begin, uint32_t end, int32_t column, Acc* acc) const {
        if (end - begin <= RC_SUM_BLOCK) {
            reduce_points(begin, end, column, acc);
        } else {
            reduce_large(begin, end, column, acc);
        }
    }

    // Stores a block's result for the levels above.
    __device__ __forceinline__ void store_block(int level, uint32_t head, uint32_t begin, int32_t column,
                                                const Acc& acc) const {
        const PartialLevel& to = params_.levels[level - 1];
        const size_t row = block_row(head, begin, kBlockShift * static_cast<uint32_t>(level));
        Real* values = static_cast<Real*>(to.values) + row * values_width() + column;
        uint32_t* args = to.args + row * args_width() + column;
#pragma unroll
        for (int k = 0; k < kVector; ++k) {
            Real* v = values + k;
            uint32_t* a = args + k;
            if (wants() & kWantSum) {
                *v = acc.sum[k];
                v += params_.columns;
            }
            if (wants() & kWantMax) {
                *v = acc.max[k];
                v += params_.columns;
            }
            if (wants() & kWantMin) {
                *v = acc.min[k];
            }
            if (wants() & kWantArgmax) {
                *a = acc.argmax[k];
                a += params_.columns;
            }
            if (wants() & kWantArgmin) {
                *a = acc.argmin[k];
            }
        }
    }

private:
    __device__ __forceinline__ uint32_t point_at(uint32_t p) const { return order_[p - first_]; }
    __device__ __forceinline__ uint32_t wants() const { return wants_now<kWants>(params_.wants); }
    static __device__ __forceinline__ size_t block_row(uint32_t head, uint32_t begin, uint32_t shift) {
        return 2 * static_cast<size_t>(begin >> shift) + (begin == head ? 1 : 0);
    }
    __device__ __forceinline__ size_t values_width() const {
        return static_cast<size_t>(__popc(wants() & (kWantSum | kWantMax | kWantMin))) * params_.columns;
    }
    __device__ __forceinline__ size_t args_width() const {
        return static_cast<size_t>(__popc(wants() & (kWantArgmax | kWantArgmin))) * params_.columns;
    }

    template <bool kFirst>
    __device__ __forceinline__ void merge_block(int level, uint32_t head, uint32_t begin, uint32_t shift,
                                                int32_t column, Acc* acc) const {
        const PartialLevel& from = params_.levels[level - 1];
        const size_t row = block_row(head, begin, shift);
        const Real* values = static_cast<const Real*>(from.values) + row * values_width() + column;
        const uint32_t* args = from.args + row * args_width() + column;
#pragma unroll
        for (int k = 0; k < kVector; ++k) {
            const Real* v = values + k;
            const uint32_t* a = args + k;
            Real s{}, high{}, low{};
            uint32_t at_high = 0, at_low = 0;
            if (wants() & kWantSum) {
                s = *v;
                v += params_.columns;
            }
            if (wants() & kWantMax) {
                high = *v;
                v += params_.columns;
            }
            if (wants() & kWantMin) {
                low = *v;
            }
            if (wants() & kWantArgmax) {
                at_high = *a;
                a += params_.columns;
            }
            if (wants() & kWantArgmin) {
                at_low = *a;
            }
            acc->template merge<kFirst>(k, wants(), s, high, low, at_high, at_low);
        }
    }

    const ReduceParams& params_;
    const uint32_t* order_;
    int64_t sample_;
    uint32_t first_;
};

// Runs `launch` with the feature type and the vector width as compile-time constants.
template <typename T>
struct TypeOf {
    using type = T;
};
template <typename Launch>
rc_status with_feature(const ReduceParams& reduce, Launch&& launch) {
    const auto widths = [&](auto type) {
        return reduce.vector == 4 ? launch(type, std::integral_constant<int, 4>{})
                                  : launch(type, std::integral_constant<int, 1>{});
    };
    switch (reduce.dtype) {
    case RC_FLOAT16:
        return widths(TypeOf<half>{});
    case RC_BFLOAT16:
        return widths(TypeOf<bfloat16>{});
    case RC_FLOAT32:
        return widths(TypeOf<float>{});
    case RC_FLOAT64:
        return launch(TypeOf<double>{}, std::integral_constant<int, 1>{});
    default:
        return launch(TypeOf<uint8_t>{}, std::integral_constant<int, 1>{});
    }
}

// The same with the wants.
template <typename Launch>
rc_status with_feature_and_wants(const ReduceParams& reduce, Launch&& launch) {
    return with_feature(reduce, [&](auto type, auto vector) {
        switch (reduce.wants) {
        case kWantSum:
            return launch(type, vector, std::integral_constant<uint32_t, kWantSum>{});
        case kWantMax:
            return launch(type, vector, std::integral_constant<uint32_t, kWantMax>{});
        default:
            return launch(type, vector, std::integral_constant<uint32_t, kAnyWants>{});
        }
    });
}

// Rows that a group of lanes has on their way together, their points and features. Other numbers than the usual one are
// compiled, and taken as a launch parameter says, only for what most calls are: sums or maxima alone, in float32 or
// narrower, four columns a lane.
constexpr int kUsualAhead = 2;

template <typename Feature, int kVector, uint32_t kWants>
constexpr bool has_aheads() {
    return kVector == 4 && light(kWants, sizeof(compute_t<Feature>));
}

// Runs `launch` with the number as a compile-time constant.
template <bool kAny, typename Launch>
rc_status with_ahead(int32_t ahead, Launch&& launch) {
    if constexpr (kAny) {
        if (ahead == 1) {
            return launch(std::integral_constant<int, 1>{});
        }
        if (ahead == 4) {
            return launch(std::integral_constant<int, 4>{});
        }
    }
    return launch(std::integral_constant<int, kUsualAhead>{});
}

// ---- Positions ------------------------------------------------------------------------------------------------------

// First position whose key is not below x; the lanes of a warp search together.
template <typename Key>
__device__ __forceinline__ uint32_t warp_lower_bound(const Key* keys, uint32_t n, Key x) {
    const uint32_t lane = threadIdx.x & 31;
    uint32_t low = 0, high = n;
    while (low < high) {
        const uint32_t step = (high - low + 31) / 32;
        const uint64_t probe = low + static_cast<uint64_t>(lane + 1) * step - 1;  // the last of a lane's piece
        const bool below = probe < high && __ldg(keys + probe) < x;
        const uint64_t next = low + static_cast<uint64_t>(__popc(__ballot_sync(kWholeWarp, below))) * step;
        low = next < high ? static_cast<uint32_t>(next) : high;
        const uint64_t last = static_cast<uint64_t>(low) + step - 1;
        high = last < high ? static_cast<uint32_t>(last) : high;
    }
    return low;
}

// First position of the key that stands at `p`: looks back in growing steps.
template <typename Key>
__device__ __forceinline__ uint32_t cell_begin(const Key* keys, uint32_t p) {
    const Key key = __ldg(keys + p);
    uint32_t step = 1, found = p;
    while (found >= step && __ldg(keys + found - step) == key) {
        found -= step;
        step <<= 1;
    }
    uint32_t low = found >= step ? found - step + 1 : 0;  // the answer lies in [low, found]
    while (low < found) {
        const uint32_t middle = low + (found - low) / 2;
        if (__ldg(keys + middle) == key) {
            found = middle;
        } else {
            low = middle + 1;
        }
    }
    return found;
}

}  // namespace rc
