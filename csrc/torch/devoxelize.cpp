// torch.ops.robocache, devoxelize: schemas, CPU and CUDA kernels and the Autograd dispatch. See register.cpp for the twins.
#include <string>

#include "autograd.h"
#include "voxel_stack.h"

namespace robocache {

namespace {

#define DEVOXELIZE_OPTIONS                                                                                             \
    "int mode, float[] voxel_size, float[] grid_min, Tensor? voxel_sizes=None, Tensor? grid_mins=None, "               \
    "Tensor? row_splits=None, Tensor? mask=None, Tensor? poses=None, int bounds=0, float empty_value=0.0"
#define DEVOXELIZE_ARGS "Tensor grid, Tensor points, " DEVOXELIZE_OPTIONS ", ScalarType? out_dtype=None"

void build(DevoxelizeBuilder &builder, const DevoxelizeInputs &in, const std::string &error) {
    if (!builder.build(in)) {
        raise_error(error);
    }
}

void devoxelize(StableIValue *stack) {
    DevoxelizeTensors given;
    take_devoxelize(stack, given);
    given.in.out_dtype = take_out_dtype(stack[kNumDevoxelizeArgs]);
    DevoxelizeArgs args;
    std::string error;
    DevoxelizeBuilder builder(args, &error);
    build(builder, given.in, error);
    Handle out = make(args.out, given.in.points);
    args.call.out = view_of(out.get(), true).data;
    place(args.call, given.in.points, is_small(args));
    expect_ok(given.in.points.device_type == kCuda ? rc_devoxelize_cuda(&args.call) : rc_devoxelize_cpu(&args.call));
    stack[0] = to_stack(out.release());
}

void devoxelize_kernel(StableIValue *stack, uint64_t, uint64_t) {
    try {
        devoxelize(stack);
    } catch (const std::exception &error) {
        if (!NestedCall::keeps(error.what())) {
            throw;
        }
        stack[0] = placeholder();
    }
}

void expect_shape(const View &grad, const Shape &wanted) {
    bool right = grad.ndim == wanted.ndim;
    for (int32_t d = 0; right && d < grad.ndim; ++d) {
        right = grad.sizes[d] == wanted.sizes[d];
    }
    if (!right) {
        raise_error("grad: expected " + Checks::shape(wanted.sizes, wanted.ndim) + ", got " + Checks::shape(grad));
    }
    if (grad.dtype == kNoDtype || !is_floating(grad.dtype)) {
        raise_error(std::string("grad: expected a floating dtype, got ") + dtype_name(grad.dtype));
    }
}

// (grad, grid, points, ..., empty_value, need_grid, need_points) -> (grad_grid, grad_points). One that is not needed has
// shape [0].
void devoxelize_backward_kernel(StableIValue *stack, uint64_t, uint64_t) {
    Handle grad(from_stack(stack[0]));
    const bool need_grid = as_bool(stack[kNumDevoxelizeArgs + 1]);
    const bool need_points = as_bool(stack[kNumDevoxelizeArgs + 2]);
    DevoxelizeTensors given;
    take_devoxelize(stack + 1, given);
    DevoxelizeArgs args;
    std::string error;
    DevoxelizeBuilder builder(args, &error);
    build(builder, given.in, error);
    const View &values = given.in.values;
    const View &points = given.in.points;
    View grad_view = view_of(grad.get());
    grad_view = contiguous_view(grad, grad_view, is_dense(grad_view, grad_view.ndim));
    expect_shape(grad_view, args.out);
    if (grad_view.device_type != points.device_type || grad_view.device_index != points.device_index) {
        raise_error("grad: expected the device of points");
    }
    if (!is_floating(values.dtype)) {
        raise_error(std::string("grid: expected a floating dtype for a gradient, got ") + dtype_name(values.dtype));
    }
    rc_devoxelize_grad_call call{};
    call.struct_size = sizeof call;
    call.grad_dtype = grad_view.dtype;
    call.forward = &args.call;
    call.grad_out = grad_view.data;
    const int64_t none[1] = {0};
    Handle grad_values, grad_points;
    if (need_grid) {
        const int32_t accumulator = values.dtype == RC_FLOAT64 ? RC_FLOAT64 : RC_FLOAT32;
        grad_values = zeros(values.sizes, values.ndim, accumulator, values);
        call.grad_values = view_of(grad_values.get(), true).data;
    } else {
        grad_values = empty(none, 1, values.dtype, values);
    }
    if (need_points) {
        grad_points = empty(points.sizes, points.ndim, compute_dtype(points.dtype), points);
        call.grad_points = view_of(grad_points.get(), true).data;
    } else {
        grad_points = empty(none, 1, points.dtype, points);
    }
    if (need_grid || need_points) {
        place(args.call, points, is_small(args));
        expect_ok(points.device_type == kCuda ? rc_devoxelize_backward_cuda(&call) : rc_devoxelize_backward_cpu(&call));
    }
    if (need_grid && values.dtype <= RC_BFLOAT16) {
        grad_values = convert(std::move(grad_values), values.dtype);
    }
    if (need_points && points.dtype <= RC_BFLOAT16) {
        grad_points = convert(std::move(grad_points), points.dtype);
    }
    stack[0] = to_stack(grad_values.release());
    stack[1] = to_stack(grad_points.release());
}

void autograd_kernel(StableIValue *stack, uint64_t, uint64_t num_outputs) {
    const bool grad = aoti_torch_grad_mode_is_enabled() &&
                      (requires_grad(from_stack(stack[0])) || requires_grad(from_stack(stack[1])));
    forward_call(grad ? "robocache::_devoxelize_grad" : "robocache::_devoxelize", stack, free_tensors, num_outputs);
}

void register_kernels(torch::stable::detail::StableLibrary &m) {
    for (const char *name : {"devoxelize", "_devoxelize", "_devoxelize_grad"}) {
        m.impl(name, &devoxelize_kernel);
    }
    m.impl("devoxelize_backward", &devoxelize_backward_kernel);
}

} // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(robocache, m) {
    // grid [B, X, Y, Z, C], points [B, N, 3] or packed [N, 3] -> [B, N, C] or [N, C]
    m.def("devoxelize(" DEVOXELIZE_ARGS ") -> Tensor");
    m.def("_devoxelize(" DEVOXELIZE_ARGS ") -> Tensor");
    m.def("_devoxelize_grad(" DEVOXELIZE_ARGS ") -> Tensor");
    // -> (grad_grid, shaped and typed as grid, and grad_points as points); [0] where not needed.
    m.def("devoxelize_backward(Tensor grad, Tensor grid, Tensor points, " DEVOXELIZE_OPTIONS
          ", bool need_grid=True, bool need_points=False) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(robocache, CPU, m) {
    register_kernels(m);
}

STABLE_TORCH_LIBRARY_IMPL(robocache, CUDA, m) {
    register_kernels(m);
}

STABLE_TORCH_LIBRARY_IMPL(robocache, Autograd, m) {
    m.impl("devoxelize", &autograd_kernel);
}

} // namespace robocache
