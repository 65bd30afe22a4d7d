// Device half of rc_align_backward_cuda: finding what targets read, and adding their gradients in order.
//
// A sum's order is that of the output rows and their targets, always, so it repeats bit for bit and equals the CPU's.
// What runs side by side are sums of their own: sequences, columns and, among the warps of a block, samples.
#pragma once

#include <climits>

#include "align_locate.cuh"
#include "align_rows.cuh"

namespace rc {

constexpr int kGradWarps = 8;
constexpr int kGradThreads = kGradWarps * kLanes;
constexpr int kGradTile = kGradThreads;  // targets found at once, one a thread
static_assert(kGradTile <= 256, "lists hold a target's place in its tile in a byte");

// Elements of grad_out that a lane asks for before it needs them: the walk along the targets waits for little else.
constexpr int kGradAhead = 8;

// Columns of one kind, cut into blocks of a warp's lanes: a column each, or a quaternion.
struct GradGroup {
    int32_t begin;
    int32_t end;
    int32_t kind;
    uint32_t first_block;  // among the column blocks of a sequence
};

struct GradParams {
    StreamParams stream;  // by values: without rows, so that sequences stand for themselves
    const void* targets;
    int64_t targets_stride[2];
    int64_t batch;
    int64_t num_targets;
    const void* grad_out;
    int64_t grad_out_stride[3];
    void* grad_values;
    void* grad_targets;
    const int64_t* rows;
    const int64_t* row_order;
    const int64_t* row_starts;
    int64_t num_columns;
    int32_t time_dtype;
    int32_t grad_dtype;
    int32_t num_groups;
    uint32_t column_blocks;  // of a sequence
    GradGroup groups[RC_MAX_COLUMN_GROUPS];
};

// ---- What a target reads --------------------------------------------------------------------------------------------

struct Placed {
    rc_site site;
    rc_bracket bracket;  // i0 == -1 also where a policy put NaN: no gradient
};

template <typename Time>
__device__ __forceinline__ Placed place(const GradParams& p, const Sequence& q, int64_t b, int64_t t, int32_t kind) {
    const StreamParams& s = p.stream;
    const Time* times = static_cast<const Time*>(s.times) + q.times;
    const int64_t stride = s.times_stride[1];
    const int32_t n = q.length;
    Time target = static_cast<const Time*>(p.targets)[b * p.targets_stride[0] + t * p.targets_stride[1]];
    if (s.has_offset) {
        Time offset = Clock<Time>::offset(s.offset);
        if (s.row_offsets != nullptr) {
            offset = Clock<Time>::shift(offset, static_cast<const Time*>(s.row_offsets)[b]);
        }
        target = Clock<Time>::shift(target, offset);
    }
    const int32_t hint = n > 0 ? guess_index(times[0], times[(n - 1) * stride], n, target) : 0;
    Placed at;
    at.site = Clock<Time>::find(times, stride, n, target, hint);
    at.bracket = Clock<Time>::resolve(times, stride, n, target, at.site, kind, &s.policy);
    bool fill = at.bracket.outside && s.policy.extrapolate == RC_EXTRAPOLATE_NAN;
    if (s.invalid == RC_INVALID_NAN) {
        bool valid = at.bracket.valid;
        for (uint32_t others = s.kinds & ~(1u << kind); others != 0; others &= others - 1) {
            const int32_t other = __ffs(static_cast<int>(others)) - 1;
            valid = valid && Clock<Time>::resolve(times, stride, n, target, at.site, other, &s.policy).valid;
        }
        fill = fill || !valid;
    }
    if (fill) {
        at.bracket.i0 = -1;
        at.bracket.i1 = -1;
    }
    return at;
}

template <typename Time>
__device__ __forceinline__ void spacing_around(const StreamParams& s, const Sequence& q, int32_t i0, double h[3]) {
    Clock<Time>::spacing(static_cast<const Time*>(s.times) + q.times, s.times_stride[1], q.length, i0, h);
}

// A target among those of a tile. i0 == i1: all of its gradient goes to that sample.
struct GradRecord {
    int64_t grad;  // element offset of its row of grad_out
    double weight;
    int32_t i0;
    int32_t i1;
};

// Samples [first, last] that a target's gradient goes to.
struct GradRange {
    int32_t first;
    int32_t last;
};
constexpr GradRange kNoSamples{INT_MAX, -1};

template <typename Time>
__device__ __forceinline__ GradRange record_target(const GradParams& p, const Sequence& q, int64_t b, int64_t t,
                                                   int32_t kind, GradRecord* record, double* spacing) {
    const rc_bracket bracket = place<Time>(p, q, b, t, kind).bracket;
    record->grad = b * p.grad_out_stride[0] + t * p.grad_out_stride[1];
    record->weight = bracket.w;
    record->i0 = bracket.i0;
    record->i1 = bracket.i1;
    if (bracket.i0 < 0) {
        return kNoSamples;
    }
    GradRange range{bracket.i0, bracket.i1};
    if (kind == RC_PCHIP && bracket.i0 != bracket.i1) {
        double h[3];
        spacing_around<Time>(p.stream, q, bracket.i0, h);
        spacing[0] = h[0];
        spacing[1] = h[1];
        spacing[2] = h[2];
        range.first -= h[0] > 0.0 ? 1 : 0;
        range.last += h[2] > 0.0 ? 1 : 0;
    }
    return range;
}

// Not inlined: the three clocks would cost the walk its registers. spacing: three doubles, for pchip.
__device__ __noinline__ GradRange record_any_target(const GradParams& p, Sequence q, int64_t b, int64_t t, int32_t kind,
                                                    GradRecord* record, double* spacing) {
    switch (p.time_dtype) {
    case RC_FLOAT32:
        return record_target<float>(p, q, b, t, kind, record, spacing);
    case RC_FLOAT64:
        return record_target<double>(p, q, b, t, kind, record, spacing);
    default:
        return record_target<int64_t>(p, q, b, t, kind, record, spacing);
    }
}

// ---- Elements -------------------------------------------------------------------------------------------------------

template <typename T, int N>
__device__ __forceinline__ void load_as_double(const void* from, const int64_t (&at)[N], double (&to)[N]) {
    T element[N];
#pragma unroll
    for (int k = 0; k < N; ++k) {
        element[k] = static_cast<const T*>(from)[at[k]];
    }
#pragma unroll
    for (int k = 0; k < N; ++k) {
        to[k] = static_cast<double>(widen(element[k]));
    }
}

// N floating elements; the type is looked up once, so that they all travel together.
template <int N>
__device__ __forceinline__ void load_doubles(const void* from, int32_t dtype, const int64_t (&at)[N], double (&to)[N]) {
    switch (dtype) {
    case RC_FLOAT16:
        load_as_double<half>(from, at, to);
        break;
    case RC_BFLOAT16:
        load_as_double<bfloat16>(from, at, to);
        break;
    case RC_FLOAT32:
        load_as_double<float>(from, at, to);
        break;
    default:
        load_as_double<double>(from, at, to);
        break;
    }
}

// An element in flight: its bits, in registers of their own until it is used.
template <typename T>
using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <typename T>
__device__ __forceinline__ Bits<T> ask(const T* at) {
    return __ldg(reinterpret_cast<const raw_t<T, 1>*>(at));
}
template <>
__device__ __forceinline__ Bits<double> ask<double>(const double* at) {
    return static_cast<Bits<double>>(__double_as_longlong(__ldg(at)));
}

template <typename T>
__device__ __forceinline__ T arrived(Bits<T> bits) {
    T value;
    memcpy(&value, &bits, sizeof value);  // little endian
    return value;
}

// ---- Sums in order --------------------------------------------------------------------------------------------------

// Running sums of neighbouring samples base .. base + kSamples - 1, kWidth columns each, that go to memory when the
// walk moves on: the order of additions is that of adding in memory. Only samples [lo, lo + span) are this lane's; the
// others are never read or written.
template <typename Acc, int kSamples, int kWidth>
struct Sums {
    Acc* memory;   // sample 0
    int64_t step;  // elements from sample to sample
    uint32_t lo;
    uint32_t span;
    int32_t base;
    Acc sum[kSamples][kWidth];

    __device__ __forceinline__ Sums(Acc* memory, int64_t step, uint32_t lo, uint32_t span)
        : memory(memory), step(step), lo(lo), span(span), base(-1024) {
#pragma unroll
        for (int k = 0; k < kSamples; ++k) {
#pragma unroll
            for (int c = 0; c < kWidth; ++c) {
                sum[k][c] = Acc(0);
            }
        }
    }
    __device__ __forceinline__ uint32_t sample(int k) const {
        return static_cast<uint32_t>(base) + static_cast<uint32_t>(k);
    }
    __device__ __forceinline__ bool owned(int k) const { return sample(k) - lo < span; }

    __device__ __forceinline__ void load(int k) {
        if (owned(k)) {
            const Acc* at = memory + sample(k) * step;
#pragma unroll
            for (int c = 0; c < kWidth; ++c) {
                sum[k][c] = at[c];
            }
        }
    }
    __device__ __forceinline__ void store(int k) const {
        if (owned(k)) {
            Acc* at = memory + sample(k) * step;
#pragma unroll
            for (int c = 0; c < kWidth; ++c) {
                at[c] = sum[k][c];
            }
        }
    }
    __device__ __forceinline__ void flush() const {
#pragma unroll
        for (int k = 0; k < kSamples; ++k) {
            store(k);
        }
    }
    __device__ __forceinline__ void move_to(int32_t to) {
        uint32_t ahead = static_cast<uint32_t>(to) - static_cast<uint32_t>(base);
        if (ahead == 0) {
            return;
        }
        if (ahead >= kSamples) {  // backwards, too
            flush();
            base = to;
#pragma unroll
            for (int k = 0; k < kSamples; ++k) {
                load(k);
            }
            return;
        }
        for (; ahead > 0; --ahead) {
            store(0);
#pragma unroll
            for (int k = 0; k + 1 < kSamples; ++k) {
#pragma unroll
                for (int c = 0; c < kWidth; ++c) {
                    sum[k][c] = sum[k + 1][c];
                }
            }
            ++base;
            load(kSamples - 1);
        }
    }
};

// What a warp walks along: the targets of a tile that read samples of its own, in order.
struct GradWalk {
    const GradRecord* records;
    const double (*spacing)[3];
    const uint8_t* list;
    int32_t count;
};

// linear, angle, and with kSamples == 1 the step kinds.
template <typename Grad, typename Acc, int kSamples>
__device__ __forceinline__ void add_mixes(const GradWalk& walk, const Grad* grad, Sums<Acc, kSamples, 1> sums) {
    Bits<Grad> ahead[kGradAhead];
#pragma unroll
    for (int u = 0; u < kGradAhead; ++u) {
        ahead[u] = u < walk.count ? ask(grad + walk.records[walk.list[u]].grad) : Bits<Grad>{0};
    }
    for (int32_t begin = 0; begin < walk.count; begin += kGradAhead) {
#pragma unroll
        for (int u = 0; u < kGradAhead; ++u) {
            const int32_t at = begin + u;
            if (at < walk.count) {
                const Acc g = static_cast<Acc>(widen(arrived<Grad>(ahead[u])));
                if (at + kGradAhead < walk.count) {
                    ahead[u] = ask(grad + walk.records[walk.list[at + kGradAhead]].grad);
                }
                const GradRecord& r = walk.records[walk.list[at]];
                sums.move_to(r.i0);
                if constexpr (kSamples == 1) {
                    sums.sum[0][0] += g;
                } else if (r.i0 == r.i1) {
                    sums.sum[0][0] += g;
                } else {
                    const Acc w1 = static_cast<Acc>(r.weight);
                    const Acc w0 = Acc(1) - w1;
                    sums.sum[0][0] += w0 * g;
                    sums.sum[1][0] += w1 * g;
                }
            }
        }
    }
    sums.flush();
}

// values: sample 0 at this lane's column, as an element offset.
template <typename Grad, typename Acc>
__device__ __forceinline__ void add_pchips(const GradParams& p, const GradWalk& walk, const Grad* grad, int64_t values,
                                           Sums<Acc, 4, 1> sums) {
    const int64_t stride = p.stream.values_stride[1];
    for (int32_t j = 0; j < walk.count; ++j) {
        const GradRecord& r = walk.records[walk.list[j]];
        const double g = static_cast<double>(widen(grad[r.grad]));
        sums.move_to(r.i0 - 1);
        if (r.i0 == r.i1) {
            sums.sum[1][0] += static_cast<Acc>(g);
            continue;
        }
        const double* h = walk.spacing[walk.list[j]];
        const bool left = h[0] > 0.0;
        const bool right = h[2] > 0.0;
        const int64_t v1 = values + r.i0 * stride;
        const int64_t at[4] = {left ? v1 - stride : v1, v1, v1 + stride, right ? v1 + 2 * stride : v1};
        double v[4];
        load_doubles(p.stream.values, p.stream.value_dtype, at, v);
        v[0] = left ? v[0] : 0.0;
        v[3] = right ? v[3] : 0.0;
        double by[4];
        (void)rc_pchip(v, h, r.weight, by, nullptr);
        if (left) {
            sums.sum[0][0] += static_cast<Acc>(by[0] * g);
        }
        sums.sum[1][0] += static_cast<Acc>(by[1] * g);
        sums.sum[2][0] += static_cast<Acc>(by[2] * g);
        if (right) {
            sums.sum[3][0] += static_cast<Acc>(by[3] * g);
        }
    }
    sums.flush();
}

template <typename Grad, typename Acc>
__device__ __forceinline__ void add_slerps(const GradParams& p, const GradWalk& walk, const Grad* grad, int64_t values,
                                           Sums<Acc, 2, 4> sums) {
    const int64_t stride = p.stream.values_stride[1];
    const int64_t column = p.stream.values_stride[2];
    for (int32_t j = 0; j < walk.count; ++j) {
        const GradRecord& r = walk.records[walk.list[j]];
        double g[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            g[k] = static_cast<double>(widen(grad[r.grad + k * p.grad_out_stride[2]]));
        }
        sums.move_to(r.i0);
        if (r.i0 == r.i1) {
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                sums.sum[0][k] += static_cast<Acc>(g[k]);
            }
            continue;
        }
        const int64_t q = values + r.i0 * stride;
        const int64_t at0[4] = {q, q + column, q + 2 * column, q + 3 * column};
        const int64_t at1[4] = {q + stride, q + stride + column, q + stride + 2 * column, q + stride + 3 * column};
        double q0[4], q1[4], by0[4], by1[4];
        load_doubles(p.stream.values, p.stream.value_dtype, at0, q0);
        load_doubles(p.stream.values, p.stream.value_dtype, at1, q1);
        rc_slerp_grad(q0, q1, r.weight, g, by0, by1);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            sums.sum[0][k] += static_cast<Acc>(by0[k]);
            sums.sum[1][k] += static_cast<Acc>(by1[k]);
        }
    }
    sums.flush();
}

}  // namespace rc
