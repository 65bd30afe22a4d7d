// First half of an align tile: which sample does each output row read, and with what weight?
//
// The rules are csrc/core/bracket.h's. A warp gives each of its lanes a row; nothing waits for another warp.
#pragma once

#include "align_params.h"
#include "runtime.h"

namespace rc {

template <typename Time>
struct Clock;

#define RC_CLOCK(Type, suffix, field)                                                                                  \
    template <>                                                                                                        \
    struct Clock<Type> {                                                                                               \
        static __device__ __forceinline__ Type offset(const TimeValue& v) { return v.field; }                          \
        static __device__ __forceinline__ Type shift(Type t, Type by) { return rc_shift_##suffix(t, by); }             \
        static __device__ __forceinline__ rc_site find(const Type* times, int64_t stride, int32_t n, Type t,           \
                                                       int32_t hint) {                                                 \
            return rc_find_##suffix(times, stride, n, t, hint);                                                        \
        }                                                                                                              \
        static __device__ __forceinline__ rc_bracket resolve(const Type* times, int64_t stride, int32_t n, Type t,     \
                                                             rc_site site, int32_t kind, const rc_policy* policy) {    \
            return rc_resolve_##suffix(times, stride, n, t, site, kind, policy);                                       \
        }                                                                                                              \
        static __device__ __forceinline__ int32_t fault(Type earlier, Type later) {                                    \
            return rc_time_fault_##suffix(earlier, later);                                                             \
        }                                                                                                              \
        static __device__ __forceinline__ void spacing(const Type* times, int64_t stride, int32_t n, int32_t i0,       \
                                                       double h[3]) {                                                  \
            rc_spacing_##suffix(times, stride, n, i0, h);                                                              \
        }                                                                                                              \
    };
RC_CLOCK(float, f32, f32)
RC_CLOCK(double, f64, f64)
RC_CLOCK(int64_t, i64, i64)
#undef RC_CLOCK

// A hint need not be exact: approximate division will do, and any index within bounds is right.
template <typename Time>
__device__ __forceinline__ int32_t guess_index(Time first, Time last, int32_t n, Time t) {
    const float at = __fdividef(static_cast<float>(t - first), static_cast<float>(last - first)) *
                     static_cast<float>(n - 1);
    return min(max(__float2int_rd(at), 0), n - 1);  // NaN becomes 0
}
template <>
__device__ __forceinline__ int32_t guess_index<int64_t>(int64_t first, int64_t last, int32_t n, int64_t t) {
    const int64_t since = static_cast<int64_t>(static_cast<uint64_t>(t) - static_cast<uint64_t>(first));
    const int64_t span = static_cast<int64_t>(static_cast<uint64_t>(last) - static_cast<uint64_t>(first));
    const float at = __fdividef(static_cast<float>(since), static_cast<float>(span)) * static_cast<float>(n - 1);
    return min(max(__float2int_rd(at), 0), n - 1);
}

// A run of samples: where it begins (in elements of values and times) and how long it is.
struct Sequence {
    int64_t values;
    int64_t times;
    int64_t row;  // r
    int32_t length;
};

// Sequence that output row b reads. A row, length or split that cannot be right is noted and reads as empty.
__device__ __forceinline__ Sequence sequence_of(const StreamParams& s, int32_t stream, int64_t b,
                                                rc_fault_report* note) {
    Sequence q{0, 0, b, 0};
    if (s.rows != nullptr) {
        q.row = s.rows[b];
        if (q.row < 0 || q.row >= s.num_sequences) {
            note_fault(note, RC_FAULT_ROW, stream, b, 0);
            return q;
        }
    }
    if (s.row_splits != nullptr) {
        const int64_t begin = s.row_splits[q.row];
        const int64_t end = s.row_splits[q.row + 1];
        if (begin < 0 || end < begin || end > s.num_samples || end - begin > INT32_MAX) {
            note_fault(note, RC_FAULT_ROW_SPLITS, stream, q.row, 0);
            return q;
        }
        q.values = begin * s.values_stride[1];
        q.times = begin * s.times_stride[1];
        q.length = static_cast<int32_t>(end - begin);
        return q;
    }
    q.values = q.row * s.values_stride[0];
    q.times = q.row * s.times_stride[0];
    int64_t length = s.num_samples;
    if (s.lengths != nullptr) {
        length = s.lengths[q.row];
        if (length < 0 || length > s.num_samples) {
            note_fault(note, RC_FAULT_LENGTH, stream, q.row, 0);
            length = length < 0 ? 0 : s.num_samples;
        }
    }
    q.length = static_cast<int32_t>(length);
    return q;
}

constexpr unsigned kWholeWarp = 0xffffffffu;
constexpr int kLanes = 32;

// Checks samples [begin, end) of a sequence against their predecessors, all lanes of the warp together, and notes what
// is wrong: the thorough half of check_sweep, which calls it only where something looks wrong.
template <typename Time>
__device__ __noinline__ void note_time_faults(const Time* times, int64_t stride, int32_t begin, int32_t end,
                                              int32_t stream, int64_t row, rc_fault_report* note) {
    const int32_t lane = static_cast<int32_t>(threadIdx.x % kLanes);
    bool tied = false;
    bool minimal = false;
    for (int32_t i = begin + lane; i < end; i += kLanes) {
        const Time later = times[i * stride];
        const Time earlier = i > 0 ? times[(i - 1) * stride] : later;
        const int32_t fault = Clock<Time>::fault(earlier, later);
        if (fault != RC_FAULT_NONE) {
            note_fault(note, fault, stream, row, i);
        }
        if constexpr (sizeof(Time) == 4) {
            if (i > 0 && rc_times_tied_f32(earlier, later)) {
                tied = true;
                if (fabsf(later) >= RC_F32_INTEGER_LIMIT) {
                    note_fault(note, RC_FAULT_TIME_COLLAPSED, stream, row, i);
                }
            }
            minimal = minimal || rc_times_minimal_f32(earlier, later);
        }
    }
    if (__any_sync(kWholeWarp, tied) && __any_sync(kWholeWarp, minimal) && lane == 0) {
        note_fault(note, RC_FAULT_TIME_COLLAPSED, stream, row, begin);
    }
}

// True where a sample's time is surely right after its predecessor's.
__device__ __forceinline__ bool surely_follows(float earlier, float later) {
    // Equal bits or neighbouring ones may tell of stamps that float32 cannot hold apart.
    const uint32_t apart = static_cast<uint32_t>(__float_as_int(later) - __float_as_int(earlier)) + 1u;
    return later >= earlier && fabsf(later) < INFINITY && apart > 2u;
}
__device__ __forceinline__ bool surely_follows(double earlier, double later) {
    return later >= earlier && fabs(later) < static_cast<double>(INFINITY);
}
__device__ __forceinline__ bool surely_follows(int64_t earlier, int64_t later) {
    return later >= earlier;
}

template <typename Time>
__device__ __forceinline__ void check_sweep(const Time* times, int64_t stride, int32_t begin, int32_t end, int32_t lane,
                                            int32_t stream, int64_t row, rc_fault_report* note) {
    bool sure = true;
#pragma unroll 4
    for (int32_t i = begin + lane; i < end; i += kLanes) {
        const Time* at = times + i * stride;
        const Time later = at[0];
        const bool follows = i > 0 ? surely_follows(at[-stride], later) : later - later == Time(0);
        sure = sure && follows;
    }
    if (!__all_sync(kWholeWarp, sure)) {
        note_time_faults(times, stride, begin, end, stream, row, note);
    }
}

// An output row of the call.
struct Row {
    int64_t index;  // b * T + t
    int64_t b;
    int64_t t;
};

__device__ __forceinline__ Row row_at(const CallParams& call, int64_t index) {
    Row row{index, 0, 0};
    if (call.short_rows) {
        const uint32_t b = call.by_targets.quotient(static_cast<uint32_t>(index));
        row.b = b;
        row.t = static_cast<uint32_t>(index) - b * static_cast<uint32_t>(call.num_targets);
    } else {
        row.b = index / call.num_targets;
        row.t = index - row.b * call.num_targets;
    }
    return row;
}

template <typename Time>
__device__ __forceinline__ Time target_at(const CallParams& call, const Row& row) {
    return static_cast<const Time*>(call.targets)[row.b * call.targets_stride[0] + row.t * call.targets_stride[1]];
}

// Faults that only the samples a row reads can show. Windows drawn from a large store are checked this way: checking
// the whole sequence would cost more than reading it.
template <typename Time>
__device__ __forceinline__ void check_bracket(const Time* times, int64_t stride, int32_t n, int32_t i, int32_t stream,
                                              int64_t sequence, rc_fault_report* note) {
    const Time earlier = times[i * stride];
    const int32_t fault = Clock<Time>::fault(earlier, earlier);
    if (fault != RC_FAULT_NONE) {
        note_fault(note, fault, stream, sequence, i);
    } else if (i + 1 < n) {
        const int32_t later_fault = Clock<Time>::fault(earlier, times[(i + 1) * stride]);
        if (later_fault != RC_FAULT_NONE) {
            note_fault(note, later_fault, stream, sequence, i + 1);
        }
    }
}

// Output row `index`: its record, mask bit and faults, for whatever the stream asks. Its arguments are few and it looks up
// the rest again, because what a call keeps on the stack costs every lane, also those that never come here.
template <typename Time, typename AnyRecord>
__device__ __noinline__ void locate(const StreamParams& s, const UnitParams& unit, const CallParams& call,
                                    int64_t index, bool leads, const char* base, AnyRecord* record, RowExtra* extra,
                                    rc_fault_report* note) {
    const Row row = row_at(call, index);
    const Sequence q = sequence_of(s, unit.stream, row.b, note);
    const Time* times = static_cast<const Time*>(s.times) + q.times;
    const int64_t stride = s.times_stride[1];
    const int32_t n = q.length;
    Time target = target_at<Time>(call, row);
    if (s.has_offset) {
        Time offset = Clock<Time>::offset(s.offset);
        if (s.row_offsets != nullptr) {
            offset = Clock<Time>::shift(static_cast<const Time*>(s.row_offsets)[row.b], offset);
        }
        target = Clock<Time>::shift(target, offset);
    }
    const int32_t hint = n > 0 ? guess_index(times[0], times[(n - 1) * stride], n, target) : 0;
    const rc_site site = Clock<Time>::find(times, stride, n, target, hint);
    const rc_bracket bracket = Clock<Time>::resolve(times, stride, n, target, site, unit.kind, &s.policy);
    bool valid = bracket.valid;
    for (uint32_t others = s.kinds & ~(1u << unit.kind); others != 0; others &= others - 1) {
        const int32_t kind = __ffs(static_cast<int>(others)) - 1;
        valid = valid && Clock<Time>::resolve(times, stride, n, target, site, kind, &s.policy).valid;
    }
    if (leads) {
        if (call.valid != nullptr) {
            call.valid[row.index * call.num_streams + unit.stream] = valid;
        }
        if (target != target) {
            note_fault(note, RC_FAULT_TARGET_NAN, unit.stream, row.b, row.t);
        }
        if (s.rows != nullptr && site.side != RC_NOWHERE) {
            check_bracket(times, stride, n, site.index, unit.stream, q.row, note);
        }
    }
    if (bracket.outside && s.policy.extrapolate == RC_EXTRAPOLATE_RAISE) {
        note_fault(note, RC_FAULT_OUT_OF_RANGE, unit.stream, row.b, row.t);
    }
    if (!valid && s.invalid == RC_INVALID_RAISE) {
        note_fault(note, RC_FAULT_INVALID_TARGET, unit.stream, row.b, row.t);
    }
    const bool fill = bracket.i0 < 0 || (bracket.outside && s.policy.extrapolate == RC_EXTRAPOLATE_NAN) ||
                      (!valid && s.invalid == RC_INVALID_NAN);
    record->sample = base + (q.values + bracket.i0 * s.values_stride[1]) * unit.value_bytes;
    record->weight = static_cast<decltype(record->weight)>(bracket.w);
    record->way = fill ? kFill : (bracket.i1 == bracket.i0 ? kCopy : kMix);
    if (extra != nullptr) {
        extra->out = row.b * call.out_stride[0] + row.t * call.out_stride[1];
        extra->times = q.times;
        extra->length = n;
        extra->i0 = bracket.i0;
    }
}

__device__ __forceinline__ float weight_of(float since, float gap) {
    return since / gap;
}
__device__ __forceinline__ double weight_of(double since, double gap) {
    return since / gap;
}
__device__ __forceinline__ double weight_of(uint64_t since, uint64_t gap) {
    return static_cast<double>(since) / static_cast<double>(gap);
}
__device__ __forceinline__ float elapsed(float later, float earlier) {
    return later - earlier;
}
__device__ __forceinline__ double elapsed(double later, double earlier) {
    return later - earlier;
}
__device__ __forceinline__ uint64_t elapsed(int64_t later, int64_t earlier) {
    return static_cast<uint64_t>(later) - static_cast<uint64_t>(earlier);
}

// The usual rows in few instructions: a linear stream without offset, gap limit or tolerance, contiguous times, and a
// target among the four samples around a straight-line guess, which travel together, or clamped to an end. A lane takes
// kRows rows at once, so that their chains of latencies run side by side. What this writes is what locate() would; the
// rows it leaves are false in `done`.
template <int kRows, typename Time, typename AnyRecord>
__device__ __forceinline__ void quick_locate(const StreamParams& s, const UnitParams& unit, const CallParams& call,
                                             int64_t row0, int32_t count, int32_t lane, bool leads, const char* base,
                                             AnyRecord* records, bool (&done)[kRows], rc_fault_report* note) {
    Sequence q[kRows];
    const Time* times[kRows];
    Time t[kRows], first[kRows], last[kRows];
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
        // Lanes past the end repeat the last row.
        const Row row = row_at(call, row0 + min(lane + k * kLanes, count - 1));
        t[k] = target_at<Time>(call, row);
        q[k] = sequence_of(s, unit.stream, row.b, note);
        times[k] = static_cast<const Time*>(s.times) + q[k].times;
        done[k] = q[k].length >= 4;
        first[k] = last[k] = Time(0);
        if (done[k]) {
            first[k] = times[k][0];
            last[k] = times[k][q[k].length - 1];
        }
    }
    Time window[kRows][4];
    int32_t begin[kRows];
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
        const int32_t guess = guess_index(first[k], last[k], q[k].length, t[k]);
        begin[k] = min(max(guess - 1, 0), q[k].length - 4);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            window[k][j] = done[k] ? times[k][begin[k] + j] : Time(0);
        }
    }
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
        const bool after_1 = window[k][1] <= t[k];
        const bool after_2 = window[k][2] <= t[k];
        const Time t0 = after_2 ? window[k][2] : (after_1 ? window[k][1] : window[k][0]);
        const Time t1 = after_2 ? window[k][3] : (after_1 ? window[k][2] : window[k][1]);
        const bool inside = t0 <= t[k] && t[k] < t1;
        // Past an end, and on it, clamp copies the end's sample: the last one of equal stamps, so the first sample only
        // if the second is later.
        const bool after = unit.clamp_keep && t[k] >= last[k];
        const bool before = unit.clamp_keep && t[k] < first[k] && begin[k] == 0 && window[k][0] < window[k][1];
        done[k] = done[k] && (inside || after || before);
        const int32_t at = lane + k * kLanes;
        if (done[k] && at < count) {
            const int32_t bracket = begin[k] + (after_2 ? 2 : static_cast<int32_t>(after_1));
            const int32_t i = inside ? bracket : (after ? q[k].length - 1 : 0);
            records[at].sample = base + (q[k].values + i * s.values_stride[1]) * unit.value_bytes;
            records[at].weight = static_cast<decltype(records[at].weight)>(
                weight_of(elapsed(t[k], t0), elapsed(t1, t0)));
            records[at].way = inside && t0 < t[k] ? kMix : kCopy;
            if (leads && s.rows != nullptr) {
                check_bracket(times[k], 1, q[k].length, i, unit.stream, q[k].row, note);
            }
            if (leads && call.valid != nullptr) {
                call.valid[(row0 + at) * call.num_streams + unit.stream] = inside || t[k] == last[k];
            }
        }
    }
}

// Finds all rows of a tile of at most kRows a lane.
template <int kRows, typename Time, typename AnyRecord>
__device__ __forceinline__ void locate_rows(const StreamParams& s, const UnitParams& unit, const CallParams& call,
                                            int64_t row0, int32_t count, int32_t lane, bool leads, const char* base,
                                            AnyRecord* records, rc_fault_report* note) {
    bool done[kRows] = {};
    if (unit.quick) {
        quick_locate<kRows, Time>(s, unit, call, row0, count, lane, leads, base, records, done, note);
    }
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
        const int32_t at = lane + k * kLanes;
        if (!done[k] && at < count) {
            locate<Time, AnyRecord>(s, unit, call, row0 + at, leads, base, &records[at], nullptr, note);
        }
    }
}

// Starts the times that a tile will likely look at on their way into L2 while its targets and the ends of its sequence are
// read: where the stream keeps its rate and the targets cover it, target t falls on about sample t * S / T.
template <typename Time>
__device__ __forceinline__ void prefetch_times(const StreamParams& s, const CallParams& call, int64_t row0,
                                               int32_t count, int32_t lane) {
    constexpr int64_t kLine = 128 / sizeof(Time);  // samples of an L2 line
    const Row row = row_at(call, row0);
    const uint32_t n = static_cast<uint32_t>(s.num_samples);
    const uint32_t t = static_cast<uint32_t>(row.t);
    const int64_t begin = static_cast<int64_t>(call.by_targets.quotient(t * n)) - kLine / 2;
    const int64_t end = static_cast<int64_t>(call.by_targets.quotient((t + static_cast<uint32_t>(count)) * n)) +
                        kLine / 2;
    const int64_t at = max(begin, int64_t{0}) + lane * kLine;
    if (at < min(end, s.num_samples)) {
        asm volatile(
            "prefetch.global.L2 [%0];" ::"l"(static_cast<const Time*>(s.times) + row.b * s.times_stride[0] + at));
    }
}

// ---- The check of the samples ---------------------------------------------------------------------------------------

// Warps of their own check the samples, so that the tiles' chain of latencies does not grow. Slice `index` of a stream:
// sequences in order, each cut into s.check_slices.
template <typename Time>
__device__ __forceinline__ void check_slice(const StreamParams& s, int32_t stream, uint32_t index, int32_t lane,
                                            rc_fault_report* note) {
    const uint32_t sequence = s.check_slices.quotient(index);
    const uint32_t slice = index - sequence * s.check_slices.divisor;
    // Without rows, output row and sequence are the same.
    const Sequence q = sequence_of(s, stream, sequence, note);
    const int64_t slices = s.check_slices.divisor;
    const int32_t begin = static_cast<int32_t>(static_cast<int64_t>(q.length) * slice / slices);
    const int32_t end = static_cast<int32_t>(static_cast<int64_t>(q.length) * (slice + 1) / slices);
    check_sweep(static_cast<const Time*>(s.times) + q.times, s.times_stride[1], begin, end, lane, stream, q.row, note);
}

}  // namespace rc
