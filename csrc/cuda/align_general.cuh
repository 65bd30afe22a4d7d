// The kinds that are more than a mix of two samples (pchip, slerp), and integer values: an element or a
// quaternion at a time, the value dtype looked up as it goes.
#pragma once

#include "align_locate.cuh"
#include "align_rows.cuh"

namespace rc {

__device__ __forceinline__ bool is_integer_dtype(int32_t dtype) {
    return dtype >= RC_BOOL;
}

// A floating element as double; exact for every type.
__device__ __forceinline__ double load_double(const void* values, int32_t dtype, int64_t at) {
    switch (dtype) {
    case RC_FLOAT16:
        return widen(static_cast<const half*>(values)[at]);
    case RC_BFLOAT16:
        return widen(static_cast<const bfloat16*>(values)[at]);
    case RC_FLOAT32:
        return static_cast<const float*>(values)[at];
    default:
        return static_cast<const double*>(values)[at];
    }
}

__device__ __forceinline__ int64_t load_integer(const void* values, int32_t dtype, int64_t at) {
    switch (dtype) {
    case RC_BOOL:
        return static_cast<const uint8_t*>(values)[at] != 0;
    case RC_UINT8:
        return static_cast<const uint8_t*>(values)[at];
    case RC_INT8:
        return static_cast<const int8_t*>(values)[at];
    case RC_INT16:
        return static_cast<const int16_t*>(values)[at];
    case RC_INT32:
        return static_cast<const int32_t*>(values)[at];
    default:
        return static_cast<const int64_t*>(values)[at];
    }
}

// Where general tiles write: floating outputs of one type, or integers of any.
template <typename Out>
struct Sink {
    Out* out;
    __device__ __forceinline__ void real(int64_t at, double v) const { out[at] = narrow<Out>(v); }
    __device__ __forceinline__ void real(int64_t at, float v) const { out[at] = narrow<Out>(v); }
    __device__ __forceinline__ void integer(int64_t at, int64_t v) const {
        out[at] = narrow<Out>(static_cast<compute_t<Out>>(v));
    }
    __device__ __forceinline__ void fill(int64_t at) const { out[at] = not_a_number<Out>(); }
};

struct IntegerOut {};
template <>
struct Sink<IntegerOut> {
    void* out;
    int32_t dtype;
    __device__ __forceinline__ void integer(int64_t at, int64_t v) const {
        switch (dtype) {
        case RC_BOOL:
        case RC_UINT8:
            static_cast<uint8_t*>(out)[at] = static_cast<uint8_t>(v);
            break;
        case RC_INT8:
            static_cast<int8_t*>(out)[at] = static_cast<int8_t>(v);
            break;
        case RC_INT16:
            static_cast<int16_t*>(out)[at] = static_cast<int16_t>(v);
            break;
        case RC_INT32:
            static_cast<int32_t*>(out)[at] = static_cast<int32_t>(v);
            break;
        default:
            static_cast<int64_t*>(out)[at] = v;
        }
    }
    __device__ __forceinline__ void fill(int64_t at) const { integer(at, 0); }
};

// A general tile. Records point at each row's first column; output offsets are in elements from the sink's pointer.
struct GeneralView {
    const StreamParams& stream;
    const UnitParams& unit;
    uint32_t chunks;
    FastDivide by_chunks;
    int64_t out_column;
    int64_t out_column_stride;
    const WideRecord* records;
    const RowExtra* extras;
    int32_t count;
    int32_t lane;
};

template <typename Out>
__device__ void integer_tile(const GeneralView& view, const Sink<Out>& sink) {
    const StreamParams& s = view.stream;
    const uint32_t items = static_cast<uint32_t>(view.count) * view.chunks;
    for (uint32_t item = static_cast<uint32_t>(view.lane); item < items; item += 32) {
        const uint32_t row = view.by_chunks.quotient(item);
        const int64_t column = item - row * view.chunks;  // within the tile
        const int64_t out_at = view.extras[row].out + (view.out_column + column) * view.out_column_stride;
        const WideRecord& r = view.records[row];
        if (r.way == kFill) {
            sink.fill(out_at);
        } else {
            sink.integer(out_at, load_integer(r.sample, s.value_dtype, column * s.values_stride[2]));
        }
    }
}

template <typename Out, typename Time>
__device__ __forceinline__ void pchip_item(const StreamParams& s, const Sink<Out>& sink, const WideRecord& r,
                                           const RowExtra& extra, int64_t at, int64_t out_at) {
    if (r.way == kCopy) {
        sink.real(out_at, load_double(r.sample, s.value_dtype, at));
        return;
    }
    const Time* times = static_cast<const Time*>(s.times) + extra.times;
    double h[3];
    Clock<Time>::spacing(times, s.times_stride[1], extra.length, extra.i0, h);
    double v[4] = {0.0, 0.0, 0.0, 0.0};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        const bool present = k == 0 ? h[0] > 0.0 : (k == 3 ? h[2] > 0.0 : true);
        if (present) {
            v[k] = load_double(r.sample, s.value_dtype, at + (k - 1) * s.values_stride[1]);
        }
    }
    sink.real(out_at, rc_pchip(v, h, r.weight, nullptr, nullptr));
}

template <typename Out>
__device__ __forceinline__ void slerp_item(const StreamParams& s, const Sink<Out>& sink, const WideRecord& r,
                                           int64_t at, int64_t out_at, int64_t out_column_stride) {
    const bool copy = r.way == kCopy;
    double q0[4], q1[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        const int64_t column = at + k * s.values_stride[2];
        q0[k] = load_double(r.sample, s.value_dtype, column);
        q1[k] = copy ? 0.0 : load_double(r.sample, s.value_dtype, column + s.values_stride[1]);
    }
    double q[4] = {q0[0], q0[1], q0[2], q0[3]};
    if (!copy) {
        rc_slerp(q0, q1, r.weight, q);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        sink.real(out_at + k * out_column_stride, q[k]);
    }
}

template <typename Out, typename Time>
__device__ void curve_tile(const GeneralView& view, const Sink<Out>& sink) {
    const StreamParams& s = view.stream;
    const int32_t width = view.unit.vector;  // 4 for quaternions, else 1
    const uint32_t items = static_cast<uint32_t>(view.count) * view.chunks;
    for (uint32_t item = static_cast<uint32_t>(view.lane); item < items; item += 32) {
        const uint32_t row = view.by_chunks.quotient(item);
        const int64_t column = static_cast<int64_t>(item - row * view.chunks) * width;  // within the tile
        const int64_t out_at = view.extras[row].out + (view.out_column + column) * view.out_column_stride;
        const WideRecord& r = view.records[row];
        const int64_t at = column * s.values_stride[2];
        if (r.way == kFill) {
            for (int32_t k = 0; k < width; ++k) {
                sink.fill(out_at + k * view.out_column_stride);
            }
        } else if (view.unit.kind == RC_PCHIP) {
            pchip_item<Out, Time>(s, sink, r, view.extras[row], at, out_at);
        } else {
            slerp_item(s, sink, r, at, out_at, view.out_column_stride);
        }
    }
}

}  // namespace rc
