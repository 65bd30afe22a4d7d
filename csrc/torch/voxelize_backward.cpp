// torch.ops.robocache.voxelize_backward: the gradient of features.
#include <array>
#include <string>

#include "voxel_stack.h"

namespace robocache {

namespace {

constexpr size_t kMaxGrads = 4; // sum, mean, max, min

// The grads and their arguments, contiguous, as the C API takes them.
struct Grads {
    std::array<rc_voxel_grad, kMaxGrads> grads{};
    int64_t num_columns = 0;
    int64_t batch = 0;
    int64_t num_rows = 0;

    // [B, rows.., C] or, channels first, [B, C, rows..].
    bool has_shape(const View &view, bool channels_first) const {
        if (view.ndim < 3 || view.sizes[0] != batch || view.sizes[channels_first ? 1 : view.ndim - 1] != num_columns) {
            return false;
        }
        int64_t rows = 1;
        for (int32_t d = channels_first ? 2 : 1; d < (channels_first ? view.ndim : view.ndim - 1); ++d) {
            rows *= view.sizes[d];
        }
        return rows == num_rows;
    }
};

View whole_view(Handle &tensor) {
    const View view = view_of(tensor.get());
    return contiguous_view(tensor, view, is_dense(view, view.ndim));
}

void expect_beside(const View &view, const View &like, const char *name) {
    if (view.device_type != like.device_type || view.device_index != like.device_index) {
        raise_error(std::string(name) + ": expected the device of inverse");
    }
}

std::string label(const char *name, size_t index) {
    return std::string(name) + "[" + std::to_string(index) + "]";
}

// (grads, reduce, args, inverse, counts, row_splits, num_rows, channels_first, dtype) -> grad_features
void voxelize_backward_kernel(StableIValue *stack, uint64_t, uint64_t) {
    TensorList grads(stack[0]);
    const List reduce(stack[1]);
    TensorList args(stack[2]);
    Handle inverse_tensor(from_stack(stack[3]));
    Handle counts_tensor = take_optional_tensor(stack[4]);
    Handle splits_tensor = take_optional_tensor(stack[5]);
    const bool channels_first = as_bool(stack[7]);
    rc_voxel_grad_call call{};
    call.struct_size = sizeof call;
    call.num_rows = as_int(stack[6]);
    call.channels_first = channels_first;
    call.grad_dtype = take_floating_dtype(stack[8], "dtype");
    if (grads.size() < 1 || grads.size() > kMaxGrads) {
        raise_error("grads: expected 1 to 4 tensors, got " + std::to_string(grads.size()));
    }
    if (reduce.size() != grads.size() || args.size() != grads.size()) {
        raise_error("reduce, args: expected one entry for each of the " + std::to_string(grads.size()) +
                    " grads, got " + std::to_string(reduce.size()) + " and " + std::to_string(args.size()));
    }
    const View inverse = whole_view(inverse_tensor);
    const View splits = vector_view(splits_tensor);
    expect_device(inverse, "inverse");
    if (inverse.dtype != RC_INT64 || (splits.given() ? inverse.ndim != 1 : inverse.ndim < 2 || inverse.ndim > 4)) {
        raise_error("inverse: expected int64 [B, ...], or [N] beside row_splits, got " + Checks::shape(inverse));
    }
    if (splits.given() && (splits.dtype != RC_INT64 || splits.ndim != 1 || splits.sizes[0] < 1)) {
        raise_error("row_splits: expected int64 [B + 1], got " + Checks::shape(splits));
    }
    call.batch = splits.given() ? splits.sizes[0] - 1 : inverse.sizes[0];
    call.row_splits = splits.given() ? static_cast<const int64_t *>(splits.data) : nullptr;
    call.num_points = 1;
    Shape made;
    made.dtype = call.grad_dtype;
    for (int32_t d = 0; d < inverse.ndim; ++d) {
        made.add(inverse.sizes[d]);
        call.num_points *= d > 0 || splits.given() ? inverse.sizes[d] : 1;
    }
    call.inverse = static_cast<const int64_t *>(inverse.data);
    Grads found;
    found.batch = call.batch;
    found.num_rows = call.num_rows;
    for (size_t g = 0; g < grads.size(); ++g) {
        const View grad = whole_view(grads[g]);
        if (g == 0 && grad.ndim >= 3) {
            found.num_columns = grad.sizes[channels_first ? 1 : grad.ndim - 1];
        }
        if (!found.has_shape(grad, channels_first) || grad.dtype == kNoDtype || !is_floating(grad.dtype)) {
            raise_error(label("grads", g) + ": expected floating [" + std::to_string(call.batch) +
                        (channels_first ? ", C, ..]" : ", .., C]") + " of " + std::to_string(call.num_rows) +
                        " rows and the columns of grads[0], got " + Checks::shape(grad));
        }
        expect_beside(grad, inverse, label("grads", g).c_str());
        const int32_t kind = narrow(as_int(reduce[g]));
        found.grads[g] = {grad.data, nullptr, kind, grad.dtype, RC_INT64, 0};
        if (kind == RC_REDUCE_MAX || kind == RC_REDUCE_MIN) {
            const View arg = whole_view(args[g]);
            if (!found.has_shape(arg, channels_first) || (arg.dtype != RC_INT32 && arg.dtype != RC_INT64)) {
                raise_error(label("args", g) + ": expected int32 or int64, shaped as its grad, got " +
                            Checks::shape(arg));
            }
            expect_beside(arg, inverse, label("args", g).c_str());
            found.grads[g].arg = arg.data;
            found.grads[g].arg_dtype = arg.dtype;
        }
    }
    call.grads = found.grads.data();
    call.num_grads = static_cast<int32_t>(grads.size());
    call.num_columns = found.num_columns;
    View counts;
    if (counts_tensor) {
        counts = whole_view(counts_tensor);
        int64_t numel = 1;
        for (int32_t d = 0; d < counts.ndim; ++d) {
            numel *= counts.sizes[d];
        }
        if (counts.dtype != RC_INT32 || numel != call.batch * call.num_rows) {
            raise_error("counts: expected int32 of " + std::to_string(call.batch) + " x " +
                        std::to_string(call.num_rows) + " rows, got " + Checks::shape(counts));
        }
        expect_beside(counts, inverse, "counts");
        call.counts = static_cast<const int32_t *>(counts.data);
    }
    if (splits.given()) {
        expect_beside(splits, inverse, "row_splits");
    }
    made.add(call.num_columns);
    Handle result = make(made, inverse);
    call.grad_features = view_of(result.get(), true).data;
    place(call, inverse, false); // its pieces of work are large
    expect_ok(inverse.device_type == kCuda ? rc_voxelize_backward_cuda(&call) : rc_voxelize_backward_cpu(&call));
    stack[0] = to_stack(result.release());
}

} // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(robocache, m) {
    // grads [B, rows.., C] or, channels first, [B, C, rows..]; args: of max and min their argmax and argmin, an empty
    // tensor of others; inverse: as the forward call gives it; counts [B, rows..] int32 where a mean is among the grads
    // -> [*inverse.shape, C]
    m.def("voxelize_backward(Tensor[] grads, int[] reduce, Tensor[] args, Tensor inverse, Tensor? counts, "
          "Tensor? row_splits, int num_rows, bool channels_first, ScalarType dtype) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(robocache, CPU, m) {
    m.impl("voxelize_backward", &voxelize_backward_kernel);
}

STABLE_TORCH_LIBRARY_IMPL(robocache, CUDA, m) {
    m.impl("voxelize_backward", &voxelize_backward_kernel);
}

} // namespace robocache
