// What every door's checks share: tensors and arrays as views, and the words of an error. Knows neither torch nor Python.
#ifndef ROBOCACHE_DOORS_VIEW_H
#define ROBOCACHE_DOORS_VIEW_H

#include <cstdint>
#include <limits>
#include <sstream>
#include <string>

#include "robocache.h"

namespace robocache {

constexpr int32_t kNoDtype = -1;
constexpr int32_t kCpu = 1; // device types as DLPack numbers them
constexpr int32_t kCuda = 2;

// A tensor or an array. Strides are in elements. `sizes == nullptr` means that the argument was not given.
struct View {
    void *data = nullptr;
    const int64_t *sizes = nullptr;
    const int64_t *strides = nullptr;
    int32_t ndim = 0;
    int32_t dtype = kNoDtype; // rc_dtype
    int32_t device_type = kCpu;
    int32_t device_index = 0;

    bool given() const {
        return sizes != nullptr;
    }
    bool is_vector(int64_t size) const {
        return ndim == 1 && sizes[0] == size;
    }
    bool is_contiguous_vector() const {
        return ndim == 1 && (strides[0] == 1 || sizes[0] <= 1);
    }
};

inline const char *dtype_name(int32_t dtype) {
    static const char *const names[RC_NUM_DTYPES] = {"float16", "bfloat16", "float32", "float64", "bool",
                                                     "uint8",   "int8",     "int16",   "int32",   "int64"};
    if (dtype == RC_UINT16) {
        return "uint16";
    }
    return dtype >= 0 && dtype < RC_NUM_DTYPES ? names[dtype] : "an unsupported dtype";
}

inline bool is_floating(int32_t dtype) {
    return dtype >= RC_FLOAT16 && dtype <= RC_FLOAT64;
}

// Enums and columns arrive as 64-bit integers; what does not fit is none of them either.
inline int32_t narrow(int64_t value) {
    return value >= 0 && value <= std::numeric_limits<int32_t>::max() ? static_cast<int32_t>(value) : -1;
}

// The first thing that is wrong goes into `*error`, where wanted.
class Checks {
public:
    explicit Checks(std::string *error) : error_(error) {}

    // "argument: parts...". Always false.
    template <typename... Parts>
    bool fail(const char *argument, const Parts &...parts) {
        if (error_) {
            std::ostringstream text;
            text << argument << ": ";
            (text << ... << parts);
            *error_ = text.str();
        }
        return false;
    }

    static std::string shape(const int64_t *sizes, int32_t ndim) {
        std::string text = "[";
        for (int32_t d = 0; d < ndim; ++d) {
            text += (d ? ", " : "") + std::to_string(sizes[d]);
        }
        return text + "]";
    }

    static std::string shape(const View &view) {
        return shape(view.sizes, view.ndim);
    }

protected:
    std::string *error_;

    static std::string device(const View &view) {
        if (view.device_type == kCpu) {
            return "cpu";
        }
        return (view.device_type == kCuda ? "cuda:" : "another device:") + std::to_string(view.device_index);
    }

    static bool on_one_device(const View &a, const View &b) {
        return a.device_type == b.device_type && (a.device_type == kCpu || a.device_index == b.device_index);
    }

    // `like` is the argument `name`. True also where `view` was not given.
    bool same_device(const char *argument, const View &view, const View &like, const char *name) {
        return !view.given() || on_one_device(view, like) ||
               fail(argument, "expected device ", device(like), " (that of ", name, "), got ", device(view));
    }

    // Of a tensor that was given; an empty one has no address of its own and must not look as if it were not given.
    static const void *address(const View &view) {
        static const int64_t nothing = 0;
        return !view.given() ? nullptr : view.data ? view.data : &nothing;
    }
};

} // namespace robocache

#endif // ROBOCACHE_DOORS_VIEW_H
