#include "handles.h"

#include <dlfcn.h>

#include <stdexcept>

namespace robocache {

namespace {

thread_local std::string nested_error;
thread_local bool nested = false;

void *torch_cpu_symbol(const char *name) {
    void *library = dlopen("libtorch_cpu.so", RTLD_NOLOAD | RTLD_LAZY);
    return library ? dlsym(library, name) : nullptr;
}

// torch's own words for the last failure of a shim call (torch 2.13 on), or nothing.
std::string torch_words() {
    using What = const char *(*)();
    static const What what = reinterpret_cast<What>(torch_cpu_symbol("torch_exception_get_what_without_backtrace"));
    const char *words = what ? what() : nullptr;
    return words ? words : "";
}

struct Dtypes {
    int32_t torch[RC_BITS + 1];
    Dtypes() {
        torch[RC_FLOAT16] = aoti_torch_dtype_float16();
        torch[RC_BFLOAT16] = aoti_torch_dtype_bfloat16();
        torch[RC_FLOAT32] = aoti_torch_dtype_float32();
        torch[RC_FLOAT64] = aoti_torch_dtype_float64();
        torch[RC_BOOL] = aoti_torch_dtype_bool();
        torch[RC_UINT8] = aoti_torch_dtype_uint8();
        torch[RC_INT8] = aoti_torch_dtype_int8();
        torch[RC_INT16] = aoti_torch_dtype_int16();
        torch[RC_INT32] = aoti_torch_dtype_int32();
        torch[RC_INT64] = aoti_torch_dtype_int64();
        torch[RC_UINT16] = aoti_torch_dtype_uint16();
        torch[RC_BITS] = aoti_torch_dtype_uint8();
    }
};

const Dtypes &dtypes() {
    static const Dtypes table;
    return table;
}

} // namespace

void raise_error(const std::string &text) {
    nested_error = text;
    throw std::runtime_error(text);
}

void raise_torch_error(const char *what) {
    const std::string words = torch_words();
    raise_error(std::string(what) + (words.empty() ? " failed" : " failed: " + words));
}

void rethrow_nested(const char *op) {
    if (!nested_error.empty()) {
        throw std::runtime_error(std::exchange(nested_error, std::string()));
    }
    const std::string words = torch_words();
    throw std::runtime_error(words.empty() ? std::string(op) + " failed" : words);
}

NestedCall::NestedCall() : outer_(nested) {
    nested = true;
    nested_error.clear();
}

NestedCall::~NestedCall() {
    nested = outer_;
}

void NestedCall::raise_kept() const {
    if (!nested_error.empty()) {
        throw std::runtime_error(std::exchange(nested_error, std::string()));
    }
}

bool NestedCall::keeps(const char *text) {
    if (nested) {
        nested_error = text;
    }
    return nested;
}

int32_t rc_dtype_of(int32_t torch_dtype) {
    for (int32_t dtype = 0; dtype < RC_NUM_DTYPES; ++dtype) {
        if (dtypes().torch[dtype] == torch_dtype) {
            return dtype;
        }
    }
    return kNoDtype;
}

int32_t torch_dtype_of(int32_t rc_dtype) {
    return dtypes().torch[rc_dtype];
}

View view_of(AtenTensorHandle tensor, bool writable) {
    static const int32_t cpu = aoti_torch_device_type_cpu();
    static const int32_t cuda = aoti_torch_device_type_cuda();
    View view;
    int64_t *sizes = nullptr;
    int64_t *strides = nullptr;
    int64_t ndim = 0;
    int32_t dtype = 0;
    int32_t device_type = 0;
    check(aoti_torch_get_dim(tensor, &ndim), "reading a tensor's dimensions");
    check(aoti_torch_get_sizes(tensor, &sizes), "reading a tensor's sizes");
    check(aoti_torch_get_strides(tensor, &strides), "reading a tensor's strides");
    check(aoti_torch_get_dtype(tensor, &dtype), "reading a tensor's dtype");
    check(aoti_torch_get_device_type(tensor, &device_type), "reading a tensor's device");
    check(aoti_torch_get_device_index(tensor, &view.device_index), "reading a tensor's device");
    if (writable) {
        check(torch_get_mutable_data_ptr(tensor, &view.data), "reading a tensor's address");
    } else {
        const void *data = nullptr;
        check(torch_get_const_data_ptr(tensor, &data), "reading a tensor's address");
        view.data = const_cast<void *>(data); // the descriptor keeps inputs const
    }
    static const int64_t scalar_sizes[1] = {1};
    view.sizes = ndim > 0 ? sizes : scalar_sizes; // not null: the argument is given
    view.strides = ndim > 0 ? strides : scalar_sizes;
    view.ndim = static_cast<int32_t>(ndim);
    view.dtype = rc_dtype_of(dtype);
    view.device_type = device_type == cpu ? kCpu : device_type == cuda ? kCuda : -1;
    return view;
}

View vector_view(Handle &tensor) {
    if (!tensor) {
        return View();
    }
    View view = view_of(tensor.get());
    if (view.ndim == 1 && !view.is_contiguous_vector()) {
        AtenTensorHandle copy = nullptr;
        check(aoti_torch_clone(tensor.get(), &copy), "copying a strided vector");
        tensor = Handle(copy);
        view = view_of(tensor.get());
    }
    return view;
}

Handle empty(const int64_t *sizes, int64_t ndim, int32_t dtype, const View &like) {
    int64_t strides[5];
    int64_t stride = 1;
    for (int64_t d = ndim - 1; d >= 0; --d) {
        strides[d] = stride;
        stride *= sizes[d] > 1 ? sizes[d] : 1; // as torch counts the strides of empty tensors
    }
    static const int32_t cpu = aoti_torch_device_type_cpu();
    static const int32_t cuda = aoti_torch_device_type_cuda();
    AtenTensorHandle made = nullptr;
    check(aoti_torch_empty_strided(ndim, sizes, strides, torch_dtype_of(dtype), like.device_type == kCuda ? cuda : cpu,
                                   like.device_index, &made),
          "allocating an output");
    return Handle(made);
}

Handle zeros(const int64_t *sizes, int64_t ndim, int32_t dtype, const View &like) {
    Handle made = empty(sizes, ndim, dtype, like);
    check(aoti_torch_zero_(made.get()), "clearing a tensor");
    return made;
}

View contiguous_view(Handle &tensor, const View &view, bool right) {
    if (right || view.dtype == kNoDtype || view.ndim > 5) { // the checks have words for the last two
        return view;
    }
    Handle copy = empty(view.sizes, view.ndim, view.dtype, view);
    check(aoti_torch_copy_(copy.get(), tensor.get(), 1), "copying a strided tensor");
    tensor = std::move(copy);
    return view_of(tensor.get());
}

Handle convert(Handle tensor, int32_t dtype) {
    // aten::_to_copy(Tensor self, *, dtype, layout, device, pin_memory, non_blocking, memory_format)
    using torch::headeronly::ScalarType;
    static const ScalarType types[] = {ScalarType::Half, ScalarType::BFloat16, ScalarType::Float, ScalarType::Double};
    StableIValue stack[7] = {to_stack(tensor.release()),
                             torch::stable::detail::from(std::optional<ScalarType>(types[dtype])),
                             torch::stable::detail::from(std::nullopt),
                             torch::stable::detail::from(std::nullopt),
                             torch::stable::detail::from(std::nullopt),
                             torch::stable::detail::from(false),
                             torch::stable::detail::from(std::nullopt)};
    check(torch_call_dispatcher("aten::_to_copy", "", stack, TORCH_ABI_VERSION), "converting a gradient");
    return Handle(from_stack(stack[0]));
}

void *current_cuda_stream(int32_t device_index) {
    // Not linked: the symbol lives in libtorch_cuda, which a CPU-only torch does not have.
    using CurrentStream = AOTITorchError (*)(int32_t, void **);
    static const CurrentStream current = [] {
        void *library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
        return reinterpret_cast<CurrentStream>(library ? dlsym(library, "aoti_torch_get_current_cuda_stream")
                                                       : nullptr);
    }();
    if (!current) {
        raise_error("CUDA tensors, but libtorch_cuda.so with aoti_torch_get_current_cuda_stream is not loaded");
    }
    void *stream = nullptr;
    check(current(device_index, &stream), "reading the current CUDA stream");
    return stream;
}

} // namespace robocache

void robocache_torch_parallel_for(void *, int64_t count, int64_t grain, rc_range_fn body, void *context) {
    if (torch_parallel_for(0, count, grain, body, context) != AOTI_TORCH_SUCCESS) {
        body(0, count, context); // pieces write disjoint outputs, so running one again changes nothing
    }
}
