// Occupancy and counts on their way to the output: conversion to its dtype, 16 bytes at a time.
#pragma once

#include <limits>

#include "../common/common.h"
#include "elements.cuh"

namespace rc {

// One output of cells, as a kernel writes it.
struct CellOutput {
    void* data;  // NULL: not wanted
    int32_t dtype;
    bool accumulate;
};

// The threads that write a range of cells together: a block, or a part of it.
struct Writers {
    uint32_t index;  // of this thread among them
    uint32_t count;
};
__device__ __forceinline__ Writers whole_block() {
    return {threadIdx.x, blockDim.x};
}

// Counts of cells that come one by one, from any function.
template <typename Function>
struct EachCount {
    static constexpr bool kFours = false;
    Function function;
    __device__ __forceinline__ uint32_t operator()(uint32_t k) const { return function(k); }
};
template <typename Function>
__device__ __forceinline__ EachCount<Function> each_count(Function function) {
    return {function};
}

template <typename T>
__device__ __forceinline__ T occupied_value() {
    if constexpr (sizeof(T) == 2 && !std::is_integral_v<T>) {
        return narrow<T>(1.0f);
    } else {
        return static_cast<T>(1);
    }
}

template <typename T>
__device__ __forceinline__ T count_value(uint32_t count) {
    if constexpr (std::is_integral_v<T>) {
        constexpr uint64_t top = static_cast<uint64_t>(std::numeric_limits<T>::max());
        return static_cast<T>(count < top ? count : top);
    } else if constexpr (sizeof(T) == 8) {
        return static_cast<double>(count);
    } else {
        return narrow<T>(static_cast<float>(count));
    }
}

// `before` and `count` more.
template <typename T>
__device__ __forceinline__ T add_count(T before, uint32_t count) {
    if constexpr (std::is_same_v<T, int64_t>) {
        const int64_t room = std::numeric_limits<int64_t>::max() - (before > 0 ? before : 0);
        return before + (static_cast<int64_t>(count) < room ? static_cast<int64_t>(count) : room);
    } else if constexpr (std::is_integral_v<T>) {
        const int64_t sum = static_cast<int64_t>(before) + count;
        constexpr int64_t top = std::numeric_limits<T>::max();
        return static_cast<T>(sum < top ? sum : top);
    } else if constexpr (sizeof(T) == 8) {
        return before + static_cast<double>(count);
    } else {
        return narrow<T>(widen(before) + static_cast<float>(count));
    }
}

// The count of one cell to element `at`.
__device__ __forceinline__ void put_count(void* data, int32_t dtype, int64_t at, uint32_t count) {
    switch (dtype) {
    case RC_BOOL:
        static_cast<uint8_t*>(data)[at] = count != 0;
        break;
    case RC_UINT8:
        static_cast<uint8_t*>(data)[at] = count_value<uint8_t>(count);
        break;
    case RC_INT8:
        static_cast<int8_t*>(data)[at] = count_value<int8_t>(count);
        break;
    case RC_INT16:
        static_cast<int16_t*>(data)[at] = count_value<int16_t>(count);
        break;
    case RC_INT32:
        static_cast<int32_t*>(data)[at] = count_value<int32_t>(count);
        break;
    case RC_INT64:
        static_cast<int64_t*>(data)[at] = count;
        break;
    case RC_FLOAT16:
        static_cast<half*>(data)[at] = count_value<half>(count);
        break;
    case RC_BFLOAT16:
        static_cast<bfloat16*>(data)[at] = count_value<bfloat16>(count);
        break;
    case RC_FLOAT32:
        static_cast<float*>(data)[at] = count_value<float>(count);
        break;
    default:
        static_cast<double*>(data)[at] = count_value<double>(count);
    }
}

// Writes value(k) to out[k] for k in [0, n); whole 16-byte words where it can.
template <typename T, typename Value>
__device__ __forceinline__ void write_cells(T* out, uint32_t n, Value&& value, Writers writers = whole_block()) {
    constexpr uint32_t per = 16 / sizeof(T);
    const uint32_t ahead = static_cast<uint32_t>((16 - (reinterpret_cast<uintptr_t>(out) & 15)) & 15) / sizeof(T);
    const uint32_t head = ahead < n ? ahead : n;
    const uint32_t words = (n - head) / per;
    for (uint32_t k = writers.index; k < head; k += writers.count) {
        out[k] = value(k);
    }
    uint4* body = reinterpret_cast<uint4*>(out + head);
    for (uint32_t w = writers.index; w < words; w += writers.count) {
        union {
            T elements[per];
            uint4 word;
        } u;
#pragma unroll
        for (uint32_t j = 0; j < per; ++j) {
            u.elements[j] = value(head + w * per + j);
        }
        __stcs(body + w, u.word);
    }
    for (uint32_t k = head + words * per + writers.index; k < n; k += writers.count) {
        out[k] = value(k);
    }
}

// The same of counts: convert(count) to out[k]. Counts that come four at a time are read so where the output begins a
// 16-byte word.
template <typename T, typename Count, typename Convert>
__device__ __forceinline__ void write_converted(T* out, uint32_t n, Count&& count, Convert&& convert, Writers writers) {
    constexpr uint32_t per = 16 / sizeof(T);
    if constexpr (per >= 4 && std::remove_reference_t<Count>::kFours) {
        if ((reinterpret_cast<uintptr_t>(out) & 15) == 0) {
            const uint32_t words = n / per;
            for (uint32_t w = writers.index; w < words; w += writers.count) {
                union {
                    T elements[per];
                    uint4 word;
                } u;
#pragma unroll
                for (uint32_t j = 0; j < per; j += 4) {
                    uint32_t four[4];
                    count.four(w * per + j, four);
#pragma unroll
                    for (uint32_t k = 0; k < 4; ++k) {
                        u.elements[j + k] = convert(four[k]);
                    }
                }
                __stcs(reinterpret_cast<uint4*>(out) + w, u.word);
            }
            for (uint32_t k = words * per + writers.index; k < n; k += writers.count) {
                out[k] = convert(count(k));
            }
            return;
        }
    }
    write_cells(out, n, [&](uint32_t k) { return convert(count(k)); }, writers);
}

// Cells as occupancy: `count(k)` points lie in cell k.
template <typename T, typename Count>
__device__ __forceinline__ void write_occupancy(T* out, uint32_t n, bool accumulate, Count&& count, Writers writers) {
    if (accumulate) {
        for (uint32_t k = writers.index; k < n; k += writers.count) {
            if (count(k) != 0) {
                out[k] = occupied_value<T>();
            }
        }
    } else {
        write_converted(out, n, count, [](uint32_t c) { return c != 0 ? occupied_value<T>() : T{}; }, writers);
    }
}

template <typename T, typename Count>
__device__ __forceinline__ void write_counts(T* out, uint32_t n, bool accumulate, Count&& count, Writers writers) {
    if (accumulate) {
        for (uint32_t k = writers.index; k < n; k += writers.count) {
            const uint32_t c = count(k);
            if (c != 0) {
                out[k] = add_count(out[k], c);
            }
        }
    } else {
        write_converted(out, n, count, [](uint32_t c) { return count_value<T>(c); }, writers);
    }
}

// n cells from cell `first` of the output (counted across the batch), n <= 2^31. Not for RC_BITS.
template <typename Count>
__device__ __forceinline__ void write_occupancy_as(const CellOutput& out, int64_t first, uint32_t n, Count&& count,
                                                   Writers writers = whole_block()) {
    switch (out.dtype) {
    case RC_BOOL:
    case RC_UINT8:
    case RC_INT8:
        return write_occupancy(static_cast<uint8_t*>(out.data) + first, n, out.accumulate, count, writers);
    case RC_INT16:
        return write_occupancy(static_cast<int16_t*>(out.data) + first, n, out.accumulate, count, writers);
    case RC_INT32:
        return write_occupancy(static_cast<int32_t*>(out.data) + first, n, out.accumulate, count, writers);
    case RC_INT64:
        return write_occupancy(static_cast<int64_t*>(out.data) + first, n, out.accumulate, count, writers);
    case RC_FLOAT16:
        return write_occupancy(static_cast<half*>(out.data) + first, n, out.accumulate, count, writers);
    case RC_BFLOAT16:
        return write_occupancy(static_cast<bfloat16*>(out.data) + first, n, out.accumulate, count, writers);
    case RC_FLOAT32:
        return write_occupancy(static_cast<float*>(out.data) + first, n, out.accumulate, count, writers);
    default:
        return write_occupancy(static_cast<double*>(out.data) + first, n, out.accumulate, count, writers);
    }
}

template <typename Count>
__device__ __forceinline__ void write_counts_as(const CellOutput& out, int64_t first, uint32_t n, Count&& count,
                                                Writers writers = whole_block()) {
    switch (out.dtype) {
    case RC_BOOL:  // counts that hold at 1
        return write_occupancy(static_cast<uint8_t*>(out.data) + first, n, out.accumulate, count, writers);
    case RC_UINT8:
        return write_counts(static_cast<uint8_t*>(out.data) + first, n, out.accumulate, count, writers);
    case RC_INT8:
        return write_counts(static_cast<int8_t*>(out.data) + first, n, out.accumulate, count, writers);
    case RC_INT16:
        return write_counts(static_cast<int16_t*>(out.data) + first, n, out.accumulate, count, writers);
    case RC_INT32:
        return write_counts(static_cast<int32_t*>(out.data) + first, n, out.accumulate, count, writers);
    case RC_INT64:
        return write_counts(static_cast<int64_t*>(out.data) + first, n, out.accumulate, count, writers);
    case RC_FLOAT16:
        return write_counts(static_cast<half*>(out.data) + first, n, out.accumulate, count, writers);
    case RC_BFLOAT16:
        return write_counts(static_cast<bfloat16*>(out.data) + first, n, out.accumulate, count, writers);
    case RC_FLOAT32:
        return write_counts(static_cast<float*>(out.data) + first, n, out.accumulate, count, writers);
    default:
        return write_counts(static_cast<double*>(out.data) + first, n, out.accumulate, count, writers);
    }
}

// Cells k .. k + 7 as a byte.
template <typename Count>
__device__ __forceinline__ uint32_t byte_of(uint32_t k, Count&& count) {
    uint32_t byte = 0;
    if constexpr (std::remove_reference_t<Count>::kFours) {
        uint32_t four[8];
        count.four(k, four);
        count.four(k + 4, four + 4);
#pragma unroll
        for (uint32_t j = 0; j < 8; ++j) {
            byte |= (four[j] != 0 ? 1u : 0u) << j;
        }
    } else {
#pragma unroll
        for (uint32_t j = 0; j < 8; ++j) {
            byte |= (count(k + j) != 0 ? 1u : 0u) << j;
        }
    }
    return byte;
}

// Eight cells a byte, from cell `first` (a multiple of 8); rows along z are whole bytes.
template <typename Count>
__device__ __forceinline__ void write_bits(const CellOutput& out, int64_t first, uint32_t n, Count&& count,
                                           Writers writers = whole_block()) {
    uint8_t* bytes = static_cast<uint8_t*>(out.data) + first / 8;
    for (uint32_t k = writers.index; k < n / 8; k += writers.count) {
        const uint32_t byte = byte_of(8 * k, count);
        bytes[k] = static_cast<uint8_t>(out.accumulate ? bytes[k] | byte : byte);
    }
}

}  // namespace rc
