// Second half of an align tile: move and mix the samples, a vector of columns at a time.
#pragma once

#include <cstring>

#include "../core/interpolate.h"
#include "align_params.h"
#include "elements.cuh"

namespace rc {

__device__ __forceinline__ float lerp(float v0, float v1, float w) {
    return rc_lerp_f32(v0, v1, w);
}
__device__ __forceinline__ double lerp(double v0, double v1, double w) {
    return rc_lerp_f64(v0, v1, w);
}

__device__ __forceinline__ float angle(float v0, float v1, float w) {
    return rc_angle_f32(v0, v1, w);
}
__device__ __forceinline__ double angle(double v0, double v1, double w) {
    return rc_angle_f64(v0, v1, w);
}
__device__ __forceinline__ float wrap(float v) {
    return rc_wrap_f32(v);
}
__device__ __forceinline__ double wrap(double v) {
    return rc_wrap_f64(v);
}

template <typename Out>
__device__ __forceinline__ Out not_a_number() {
    return narrow<Out>(nanf(""));
}

// ---- Vectors: raw bits, so that a 16-byte load stays four registers until it is used --------------------------------

template <int kBytes>
struct Raw;
template <>
struct Raw<1> {
    using type = uint8_t;
};
template <>
struct Raw<2> {
    using type = uint16_t;
};
template <>
struct Raw<4> {
    using type = uint32_t;
};
template <>
struct Raw<8> {
    using type = uint2;
};
template <>
struct Raw<16> {
    using type = uint4;
};
template <typename T, int N>
using raw_t = typename Raw<static_cast<int>(sizeof(T)) * N>::type;

// Elements of a vector as the type arithmetic is done in. The copies through a union vanish in registers.
template <typename T, int N>
__device__ __forceinline__ void unpack(raw_t<T, N> raw, compute_t<T> (&value)[N]) {
    if constexpr (std::is_same_v<T, bfloat16> && N > 1) {
        uint32_t word[N / 2];
        memcpy(word, &raw, sizeof raw);
#pragma unroll
        for (int k = 0; k < N / 2; ++k) {
            value[2 * k] = __uint_as_float(word[k] << 16);  // bfloat16 is the upper half of a float
            value[2 * k + 1] = __uint_as_float(word[k] & 0xffff0000u);
        }
    } else if constexpr (std::is_same_v<T, half> && N > 1) {
        __half2 pair[N / 2];
        memcpy(pair, &raw, sizeof raw);
#pragma unroll
        for (int k = 0; k < N / 2; ++k) {
            const float2 f = __half22float2(pair[k]);
            value[2 * k] = f.x;
            value[2 * k + 1] = f.y;
        }
    } else {
        T element[N];
        memcpy(element, &raw, sizeof raw);
#pragma unroll
        for (int k = 0; k < N; ++k) {
            value[k] = widen(element[k]);
        }
    }
}

template <typename T, int N, typename Compute>
__device__ __forceinline__ raw_t<T, N> pack(const Compute (&value)[N]) {
    raw_t<T, N> raw;
    if constexpr (std::is_same_v<T, bfloat16> && N > 1) {
        __nv_bfloat162 pair[N / 2];
#pragma unroll
        for (int k = 0; k < N / 2; ++k) {
            pair[k] = __floats2bfloat162_rn(static_cast<float>(value[2 * k]), static_cast<float>(value[2 * k + 1]));
        }
        memcpy(&raw, pair, sizeof raw);
    } else if constexpr (std::is_same_v<T, half> && N > 1) {
        __half2 pair[N / 2];
#pragma unroll
        for (int k = 0; k < N / 2; ++k) {
            pair[k] = __floats2half2_rn(static_cast<float>(value[2 * k]), static_cast<float>(value[2 * k + 1]));
        }
        memcpy(&raw, pair, sizeof raw);
    } else {
        T element[N];
#pragma unroll
        for (int k = 0; k < N; ++k) {
            element[k] = narrow<T>(value[k]);
        }
        memcpy(&raw, element, sizeof raw);
    }
    return raw;
}

// ---- Tiles ----------------------------------------------------------------------------------------------------------

// Records come from shared memory in one read.
__device__ __forceinline__ Record load(const Record* at) {
    const uint4 bits = *reinterpret_cast<const uint4*>(at);
    Record record;
    memcpy(&record, &bits, sizeof record);
    return record;
}
__device__ __forceinline__ WideRecord load(const WideRecord* at) {
    return *at;
}

// A store of one instruction (the compiler may cut an assignment into words), or of two halves where the output's rows
// are aligned to no more. Streaming: what is written is not read again here, and L2 is better used for samples.
__device__ __forceinline__ void store(uint8_t* at, uint8_t v, bool) {
    *at = v;
}
__device__ __forceinline__ void store(uint16_t* at, uint16_t v, bool) {
    *at = v;
}
__device__ __forceinline__ void store(uint32_t* at, uint32_t v, bool) {
    *at = v;
}
__device__ __forceinline__ void store(uint2* at, uint2 v, bool) {
    __stcs(at, v);
}
__device__ __forceinline__ void store(uint4* at, uint4 v, bool split) {
    if (split) {
        uint2* half = reinterpret_cast<uint2*>(at);
        __stcs(half, make_uint2(v.x, v.y));
        __stcs(half + 1, make_uint2(v.z, v.w));
    } else {
        __stcs(at, v);
    }
}

// Where a tile reads and writes. Records hold where each row's first column lies.
template <typename Value, typename Out, typename AnyRecord>
struct TileView {
    const AnyRecord* records;
    const RowExtra* extras;  // where the output rows lie, unless the output is flat
    int32_t count;
    uint32_t chunks;
    FastDivide by_chunks;
    int64_t sample_stride;
    int64_t column_stride;  // 1 on both sides where kVector > 1, and in flat tiles
    int64_t out_column_stride;
    uint32_t out_row_stride;  // flat outputs: a tile spans less than 2^31 elements
    Out* out;                 // the tile's first column; flat outputs: its first row, too
    bool split_store;
    bool angle;  // along the shorter arc: single elements of tiles that are not flat
};

template <typename Value, typename Out, int kVector, typename Weight>
__device__ __forceinline__ raw_t<Out, kVector> mixed(raw_t<Value, kVector> v0, raw_t<Value, kVector> v1, Weight weight,
                                                     bool along_arc) {
    using Compute = compute_t<Value>;
    Compute a[kVector], b[kVector];
    unpack<Value, kVector>(v0, a);
    unpack<Value, kVector>(v1, b);
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
        const Compute w = static_cast<Compute>(weight);
        a[k] = along_arc ? angle(a[k], b[k], w) : lerp(a[k], b[k], w);
    }
    return pack<Out, kVector>(a);
}

template <typename Value, typename Out, int kVector>
__device__ __forceinline__ raw_t<Out, kVector> copied(raw_t<Value, kVector> v0, int32_t way, bool along_arc) {
    using Compute = compute_t<Value>;
    Compute a[kVector];
    if (way == kFill) {
#pragma unroll
        for (int k = 0; k < kVector; ++k) {
            a[k] = nanf("");
        }
        return pack<Out, kVector>(a);
    }
    if constexpr (std::is_same_v<Value, Out>) {
        if (!along_arc) {
            return v0;  // bit for bit, NaN payloads too
        }
    }
    unpack<Value, kVector>(v0, a);
    if (along_arc) {
#pragma unroll
        for (int k = 0; k < kVector; ++k) {
            a[k] = wrap(a[k]);
        }
    }
    return pack<Out, kVector>(a);
}

// The items start, start + 32, ... of a tile, kCount of them.
template <typename Value, typename Out, int kVector, bool kFlat, int kCount, typename AnyRecord>
__device__ __forceinline__ void mix_items(const TileView<Value, Out, AnyRecord>& view, uint32_t start, uint32_t items) {
    using Source = raw_t<Value, kVector>;
    using Target = raw_t<Out, kVector>;
    Source v0[kCount], v1[kCount];
    decltype(AnyRecord::weight) weight[kCount];
    int32_t way[kCount];
    Out* out[kCount];
    bool all_mix = true;
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
        // Past the end a lane reads its tile's last item again and keeps the result to itself.
        const uint32_t item = min(start + u * 32, items - 1);
        const uint32_t row = view.by_chunks.quotient(item);
        const uint32_t chunk = item - row * view.chunks;
        const AnyRecord record = load(view.records + row);
        const Value* sample = static_cast<const Value*>(record.sample);
        if constexpr (kFlat) {
            out[u] = view.out + (row * view.out_row_stride + chunk * static_cast<uint32_t>(kVector));
        } else {
            out[u] = view.out + (view.extras[row].out + chunk * kVector * view.out_column_stride);
        }
        sample += kFlat ? chunk * static_cast<uint32_t>(kVector) : chunk * kVector * view.column_stride;
        way[u] = record.way;
        weight[u] = record.weight;
        all_mix = all_mix && record.way == kMix;
        if (record.way != kFill) {
            v0[u] = __ldg(reinterpret_cast<const Source*>(sample));
        }
        if (record.way == kMix) {
            v1[u] = __ldg(reinterpret_cast<const Source*>(sample + view.sample_stride));
        }
    }
    if (all_mix) {  // nearly always
#pragma unroll
        for (int u = 0; u < kCount; ++u) {
            if (start + u * 32 < items) {
                store(reinterpret_cast<Target*>(out[u]),
                      mixed<Value, Out, kVector>(v0[u], v1[u], weight[u], !kFlat && kVector == 1 && view.angle),
                      view.split_store);
            }
        }
    } else {
#pragma unroll
        for (int u = 0; u < kCount; ++u) {
            if (start + u * 32 < items) {
                store(reinterpret_cast<Target*>(out[u]),
                      way[u] == kMix
                          ? mixed<Value, Out, kVector>(v0[u], v1[u], weight[u], !kFlat && kVector == 1 && view.angle)
                          : copied<Value, Out, kVector>(v0[u], way[u], !kFlat && kVector == 1 && view.angle),
                      view.split_store);
            }
        }
    }
}

// linear, nearest, previous and next: out = v0, or v0 + w (v1 - v0); angle: the same along the shorter arc.
// kVector > 1 needs unit column strides.
// kInFlight: vectors a lane asks for, from each of two samples, before it uses the first.
template <typename Value, typename Out, int kVector, bool kFlat, int kInFlight, typename AnyRecord>
__device__ __forceinline__ void mix_tile(const TileView<Value, Out, AnyRecord>& view, int32_t lane) {
    const uint32_t items = static_cast<uint32_t>(view.count) * view.chunks;
    uint32_t start = static_cast<uint32_t>(lane);
    uint32_t left = items;
    for (; left > kInFlight / 2 * 32; left -= min(left, kInFlight * 32u), start += kInFlight * 32) {
        mix_items<Value, Out, kVector, kFlat, kInFlight>(view, start, items);
    }
    if (left > 0) {
        mix_items<Value, Out, kVector, kFlat, kInFlight / 2>(view, start, items);
    }
}

}  // namespace rc
