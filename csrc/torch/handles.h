// Owning handles over the C shim of torch's stable ABI, leaner than torch::stable::Tensor (no shared_ptr, no
// conversion through lists), and what the kernels ask of torch: views, allocation, threads, the current CUDA stream.
#ifndef ROBOCACHE_TORCH_HANDLES_H
#define ROBOCACHE_TORCH_HANDLES_H

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>
#include <torch/csrc/stable/library.h>

#include <string>
#include <utility>

#include "../doors/align_args.h"

namespace robocache {

// Throws std::runtime_error, which torch shows as RuntimeError. Keeps the text for rethrow_nested().
[[noreturn]] void raise_error(const std::string &text);

// A call into torch that should have worked did not: raises `what` and torch's own words where it gives them.
[[noreturn]] void raise_torch_error(const char *what);

// The error behind a nested dispatcher call that failed; the shim itself hands on only a code.
[[noreturn]] void rethrow_nested(const char *op);

// While one lives, kernels of this thread keep their errors for it instead of throwing: torch before 2.13 prints every
// exception that crosses a nested dispatcher call and loses its words.
class NestedCall {
public:
    NestedCall();
    NestedCall(const NestedCall &) = delete;
    NestedCall &operator=(const NestedCall &) = delete;
    ~NestedCall();
    // Raises what a kernel left here, if any.
    void raise_kept() const;
    // For a kernel that failed: true if a nested call has taken `text`, so that it may return anything.
    static bool keeps(const char *text);

private:
    bool outer_;
};

inline void check(AOTITorchError code, const char *what) {
    if (code != AOTI_TORCH_SUCCESS) {
        raise_torch_error(what);
    }
}

// Owns one reference to a tensor.
class Handle {
public:
    Handle() = default;
    explicit Handle(AtenTensorHandle handle) : handle_(handle) {}
    Handle(Handle &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Handle &operator=(Handle &&other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    Handle(const Handle &) = delete;
    Handle &operator=(const Handle &) = delete;
    ~Handle() {
        if (handle_) {
            aoti_torch_delete_tensor_object(handle_);
        }
    }
    AtenTensorHandle get() const {
        return handle_;
    }
    AtenTensorHandle release() {
        return std::exchange(handle_, nullptr);
    }
    explicit operator bool() const {
        return handle_ != nullptr;
    }

private:
    AtenTensorHandle handle_ = nullptr;
};

inline StableIValue to_stack(AtenTensorHandle handle) {
    return reinterpret_cast<StableIValue>(handle);
}
inline AtenTensorHandle from_stack(StableIValue value) {
    return reinterpret_cast<AtenTensorHandle>(value);
}

// What the doors' checks need to know of a tensor. Copy-on-write inputs stay shared unless `writable`.
View view_of(AtenTensorHandle tensor, bool writable = false);

// A vector the kernels can walk: `tensor` itself, or a contiguous copy that replaces it.
View vector_view(Handle &tensor);

// kNoDtype for what values cannot have, uint16 among them.
int32_t rc_dtype_of(int32_t torch_dtype);
int32_t torch_dtype_of(int32_t rc_dtype);

// `tensor` itself, or where it is not `right` a contiguous copy that replaces it.
View contiguous_view(Handle &tensor, const View &view, bool right);

// A new contiguous tensor of up to five dimensions on the device of `like`.
Handle empty(const int64_t *sizes, int64_t ndim, int32_t dtype, const View &like);

// ... and all zero.
Handle zeros(const int64_t *sizes, int64_t ndim, int32_t dtype, const View &like);

// `tensor` in another dtype (aten::_to_copy).
Handle convert(Handle tensor, int32_t dtype);

// torch's current CUDA stream on a device.
void *current_cuda_stream(int32_t device_index);

} // namespace robocache

// torch's thread pool in the shape the C API wants; `pool` is not used. Exported for the extension beside this library.
extern "C" RC_API void robocache_torch_parallel_for(void *pool, int64_t count, int64_t grain, rc_range_fn body,
                                                    void *context);

#endif // ROBOCACHE_TORCH_HANDLES_H
