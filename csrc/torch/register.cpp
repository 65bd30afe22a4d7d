// torch.ops.robocache, align: schemas, CPU and CUDA kernels and the Autograd dispatch, on torch's stable ABI. The other
// families (voxelize.cpp, devoxelize.cpp) are fragments of the same library.
//
// Kernels are boxed by hand: a call reads its own stack, which costs less than generic boxing. Each public op X has two
// private twins with the same arguments: _X, the computation with nothing above it, and _X_grad, whose gradient Python
// registers. The Autograd kernel of X sends a call to one or the other, so a call without gradients never meets Python.
#include <string>

#include "autograd.h"
#include "stack.h"

namespace robocache {

namespace {

#define RESAMPLE_ARGS                                                                                                  \
    "Tensor values, Tensor times, Tensor target_times, int kind=0, int extrapolate=0, int invalid=0, "                 \
    "float max_gap=-1.0, float tolerance=-1.0, float time_offset=0.0, Tensor? lengths=None, Tensor? row_splits=None, " \
    "Tensor? rows=None, Tensor? row_offsets=None, int[]? column_kinds=None"
#define FUSE_ARGS                                                                                                      \
    "Tensor[] values, Tensor[] times, Tensor target_times, int[]? kinds=None, int[]? extrapolate=None, "               \
    "int[]? invalid=None, float[]? max_gap=None, float[]? tolerance=None, float[]? time_offset=None, "                 \
    "Tensor[]? lengths=None, Tensor[]? row_splits=None, Tensor[]? rows=None, Tensor[]? row_offsets=None, "             \
    "int[]? column_kinds=None"
#define DTYPE ", ScalarType? out_dtype=None"

using Kernel = void (*)(StableIValue *, uint64_t, uint64_t);
using Take = AlignInputs (*)(StableIValue *);

void launch(AlignArgs &args, const View &targets) {
    rc_align_call &call = args.call;
    rc_status status;
    if (targets.device_type == kCuda) {
        call.device = targets.device_index;
        call.cuda_stream = current_cuda_stream(targets.device_index);
        status = rc_align_cuda(&call);
    } else {
        call.parallel_for = robocache_torch_parallel_for;
        status = rc_align_cpu(&call);
    }
    if (status != RC_OK) {
        raise_error(rc_last_error());
    }
}

void build(AlignBuilder &builder, const AlignInputs &in, const std::string &error) {
    if (!builder.build(in.streams.data(), in.streams.size(), in.targets, in.column_kinds.data(), in.column_kinds.size(),
                       in.out_dtype)) {
        raise_error(error);
    }
    if (in.targets.device_type != kCpu && in.targets.device_type != kCuda) {
        raise_error("target_times: expected a CPU or CUDA tensor");
    }
}

// out = op(...), or with `with_valid` (out, valid) = op(...).
template <Take take, bool with_valid>
void align(StableIValue *stack) {
    AlignInputs in = take(stack);
    in.out_dtype = take_out_dtype(stack[14]);
    AlignArgs args;
    std::string error;
    AlignBuilder builder(args, in.fused, &error);
    build(builder, in, error);
    Handle out = empty(args.out_sizes, 3, args.call.out_dtype, in.targets);
    builder.set_contiguous_out(view_of(out.get(), true).data);
    Handle valid;
    if (with_valid) {
        const int64_t sizes[3] = {args.call.batch, args.call.num_targets, args.call.num_streams};
        valid = empty(sizes, in.fused ? 3 : 2, RC_BOOL, in.targets);
        args.call.valid = static_cast<uint8_t *>(view_of(valid.get(), true).data);
    }
    launch(args, in.targets);
    stack[0] = to_stack(out.release());
    if (with_valid) {
        stack[1] = to_stack(valid.release());
    }
}

template <Take take, bool with_valid>
void align_kernel(StableIValue *stack, uint64_t, uint64_t) {
    try {
        align<take, with_valid>(stack);
    } catch (const std::exception &error) {
        if (!NestedCall::keeps(error.what())) {
            throw;
        }
        stack[0] = placeholder();
        if (with_valid) {
            stack[1] = placeholder();
        }
    }
}

// op(..., out) and op(..., out, valid): nothing is returned.
template <Take take, bool with_valid>
void align_out_kernel(StableIValue *stack, uint64_t, uint64_t) {
    Handle out(from_stack(stack[15]));
    Handle valid(with_valid ? from_stack(stack[16]) : nullptr);
    AlignInputs in = take(stack);
    in.out_dtype = take_out_dtype(stack[14]);
    const View out_view = view_of(out.get(), true);
    if (in.out_dtype == kNoDtype && out_view.dtype != kNoDtype) {
        in.out_dtype = out_view.dtype;
    }
    AlignArgs args;
    std::string error;
    AlignBuilder builder(args, in.fused, &error);
    build(builder, in, error);
    if (!builder.set_out(out_view, in.targets) ||
        (with_valid && !builder.set_valid(view_of(valid.get(), true), in.targets))) {
        raise_error(error);
    }
    launch(args, in.targets);
}

// (grad, values, times, target_times, ..., column_kinds, row_order, row_starts, need_values, need_targets)
// -> (grad_values, grad_targets). One that is not needed has shape [0].
void resample_backward_kernel(StableIValue *stack, uint64_t, uint64_t) {
    Handle grad(from_stack(stack[0]));
    Handle row_order = take_optional_tensor(stack[15]);
    Handle row_starts = take_optional_tensor(stack[16]);
    const bool need_values = (stack[17] & 0xff) != 0;
    const bool need_targets = (stack[18] & 0xff) != 0;
    AlignInputs in = take_resample(stack + 1);
    AlignArgs args;
    std::string error;
    AlignBuilder builder(args, false, &error);
    build(builder, in, error);
    const View &values = in.streams[0].values;
    const View grad_view = view_of(grad.get());
    // Checked as an output of the forward call would be.
    args.call.out_dtype = grad_view.dtype;
    if (!is_floating(grad_view.dtype) || !is_floating(values.dtype)) {
        raise_error("grad: expected floating values and a floating gradient");
    }
    if (!builder.set_out(grad_view, in.targets)) {
        raise_error("grad" + error.substr(error.find(':')));
    }
    rc_align_grad_call call{};
    call.struct_size = sizeof call;
    call.grad_dtype = grad_view.dtype;
    call.forward = &args.call;
    call.grad_out = grad_view.data;
    for (int d = 0; d < 3; ++d) {
        call.grad_out_stride[d] = grad_view.strides[d];
    }
    args.call.out = nullptr;
    const View order = vector_view(row_order);
    const View starts = vector_view(row_starts);
    const bool has_rows = in.streams[0].rows.given();
    if (has_rows && need_values) {
        const int64_t sequences = args.streams[0].num_sequences;
        if (!order.given() || !order.is_vector(args.call.batch) || order.dtype != RC_INT64) {
            raise_error("row_order: expected int64 [B] = [" + std::to_string(args.call.batch) + "] beside rows");
        }
        if (!starts.given() || !starts.is_vector(sequences + 1) || starts.dtype != RC_INT64) {
            raise_error("row_starts: expected int64 [R + 1] = [" + std::to_string(sequences + 1) + "] beside rows");
        }
        call.row_order = static_cast<const int64_t *>(order.data);
        call.row_starts = static_cast<const int64_t *>(starts.data);
    }
    const int64_t none[1] = {0};
    Handle grad_values, grad_targets;
    if (need_values) {
        const int32_t accumulator = values.dtype == RC_FLOAT64 ? RC_FLOAT64 : RC_FLOAT32;
        grad_values = zeros(values.sizes, values.ndim, accumulator, values);
        call.grad_values = view_of(grad_values.get(), true).data;
    } else {
        grad_values = empty(none, 1, values.dtype, in.targets);
    }
    if (need_targets) {
        const int64_t sizes[2] = {args.call.batch, args.call.num_targets};
        grad_targets = zeros(sizes, 2, args.call.time_dtype, in.targets);
        call.grad_targets = view_of(grad_targets.get(), true).data;
    } else {
        grad_targets = empty(none, 1, args.call.time_dtype, in.targets);
    }
    if (need_values || need_targets) {
        rc_status status;
        if (in.targets.device_type == kCuda) {
            args.call.device = in.targets.device_index;
            args.call.cuda_stream = current_cuda_stream(in.targets.device_index);
            status = rc_align_backward_cuda(&call);
        } else {
            args.call.parallel_for = robocache_torch_parallel_for;
            status = rc_align_backward_cpu(&call);
        }
        if (status != RC_OK) {
            raise_error(rc_last_error());
        }
    }
    if (need_values && (values.dtype == RC_FLOAT16 || values.dtype == RC_BFLOAT16)) {
        grad_values = convert(std::move(grad_values), values.dtype);
    }
    stack[0] = to_stack(grad_values.release());
    stack[1] = to_stack(grad_targets.release());
}

// The stack goes on as it came: the twins take the same arguments.
template <bool fused, bool with_valid>
void autograd_kernel(StableIValue *stack, uint64_t, uint64_t num_outputs) {
    bool grad = false;
    if (aoti_torch_grad_mode_is_enabled()) {
        grad = fused ? any_requires_grad(stack[0]) : requires_grad(from_stack(stack[0]));
        grad = grad || requires_grad(from_stack(stack[2]));
    }
    if (fused) {
        forward_call(with_valid
                         ? (grad ? "robocache::_fuse_multimodal_valid_grad" : "robocache::_fuse_multimodal_valid")
                         : (grad ? "robocache::_fuse_multimodal_grad" : "robocache::_fuse_multimodal"),
                     stack, free_tensors, num_outputs);
    } else {
        forward_call(
            with_valid
                ? (grad ? "robocache::_resample_trajectories_valid_grad" : "robocache::_resample_trajectories_valid")
                : (grad ? "robocache::_resample_trajectories_grad" : "robocache::_resample_trajectories"),
            stack, free_tensors, num_outputs);
    }
}

void register_kernels(torch::stable::detail::StableLibrary &m) {
    for (const char *name : {"resample_trajectories", "_resample_trajectories", "_resample_trajectories_grad"}) {
        m.impl(name, &align_kernel<take_resample, false>);
    }
    for (const char *name :
         {"resample_trajectories_valid", "_resample_trajectories_valid", "_resample_trajectories_valid_grad"}) {
        m.impl(name, &align_kernel<take_resample, true>);
    }
    for (const char *name : {"fuse_multimodal", "_fuse_multimodal", "_fuse_multimodal_grad"}) {
        m.impl(name, &align_kernel<take_fuse, false>);
    }
    for (const char *name : {"fuse_multimodal_valid", "_fuse_multimodal_valid", "_fuse_multimodal_valid_grad"}) {
        m.impl(name, &align_kernel<take_fuse, true>);
    }
    m.impl("resample_trajectories_out", &align_out_kernel<take_resample, false>);
    m.impl("resample_trajectories_valid_out", &align_out_kernel<take_resample, true>);
    m.impl("fuse_multimodal_out", &align_out_kernel<take_fuse, false>);
    m.impl("fuse_multimodal_valid_out", &align_out_kernel<take_fuse, true>);
    m.impl("resample_trajectories_backward", &resample_backward_kernel);
}

} // namespace

// Numbers are the enums of robocache.h; -1.0 for max_gap and tolerance means none.
STABLE_TORCH_LIBRARY(robocache, m) {
    // values [B, S, D] or packed [N, D], times [B, S], [S] or [N], target_times [B, T] or [T] -> [B, T, D].
    // column_kinds: (begin, end, kind) for each run of columns; overrides kind.
    m.def("resample_trajectories(" RESAMPLE_ARGS DTYPE ") -> Tensor");
    m.def("_resample_trajectories(" RESAMPLE_ARGS DTYPE ") -> Tensor");
    m.def("_resample_trajectories_grad(" RESAMPLE_ARGS DTYPE ") -> Tensor");
    // ... and the mask valid [B, T].
    m.def("resample_trajectories_valid(" RESAMPLE_ARGS DTYPE ") -> (Tensor, Tensor)");
    m.def("_resample_trajectories_valid(" RESAMPLE_ARGS DTYPE ") -> (Tensor, Tensor)");
    m.def("_resample_trajectories_valid_grad(" RESAMPLE_ARGS DTYPE ") -> (Tensor, Tensor)");
    // Into tensors of the caller's; out_dtype is that of out.
    m.def("resample_trajectories_out(" RESAMPLE_ARGS DTYPE ", *, Tensor(a!) out) -> ()");
    m.def("resample_trajectories_valid_out(" RESAMPLE_ARGS DTYPE ", *, Tensor(a!) out, Tensor(b!) valid) -> ()");
    // -> (grad_values, shaped and typed as values; grad_targets [B, T] in the time dtype); [0] where not needed.
    // row_order and row_starts sort the output rows by sequence where `rows` is given.
    m.def("resample_trajectories_backward(Tensor grad, " RESAMPLE_ARGS ", Tensor? row_order=None, "
          "Tensor? row_starts=None, bool need_values=True, bool need_targets=False) -> (Tensor, Tensor)");
    // One entry a stream in every list; an empty tensor means that the stream has none.
    // column_kinds: (stream, begin, end, kind). -> [B, T, sum of D]
    m.def("fuse_multimodal(" FUSE_ARGS DTYPE ") -> Tensor");
    m.def("_fuse_multimodal(" FUSE_ARGS DTYPE ") -> Tensor");
    m.def("_fuse_multimodal_grad(" FUSE_ARGS DTYPE ") -> Tensor");
    // ... and the mask valid [B, T, streams].
    m.def("fuse_multimodal_valid(" FUSE_ARGS DTYPE ") -> (Tensor, Tensor)");
    m.def("_fuse_multimodal_valid(" FUSE_ARGS DTYPE ") -> (Tensor, Tensor)");
    m.def("_fuse_multimodal_valid_grad(" FUSE_ARGS DTYPE ") -> (Tensor, Tensor)");
    m.def("fuse_multimodal_out(" FUSE_ARGS DTYPE ", *, Tensor(a!) out) -> ()");
    m.def("fuse_multimodal_valid_out(" FUSE_ARGS DTYPE ", *, Tensor(a!) out, Tensor(b!) valid) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(robocache, CPU, m) {
    register_kernels(m);
}

STABLE_TORCH_LIBRARY_IMPL(robocache, CUDA, m) {
    register_kernels(m);
}

STABLE_TORCH_LIBRARY_IMPL(robocache, Autograd, m) {
    m.impl("resample_trajectories", &autograd_kernel<false, false>);
    m.impl("resample_trajectories_valid", &autograd_kernel<false, true>);
    m.impl("fuse_multimodal", &autograd_kernel<true, false>);
    m.impl("fuse_multimodal_valid", &autograd_kernel<true, true>);
}

} // namespace robocache
