// torch.ops.robocache, voxelize: schemas, CPU and CUDA kernels and the Autograd dispatch. See register.cpp for the twins.
#include <string>

#include "autograd.h"
#include "voxel_stack.h"

namespace robocache {

namespace {

#define POINT_ARGS                                                                                                     \
    "Tensor points, Tensor? features, int[] reduce, int[] out_dtypes, int[] grid_size, float[] voxel_size, "           \
    "float[] grid_min, Tensor? voxel_sizes=None, Tensor? grid_mins=None, Tensor? row_splits=None, Tensor? mask=None, " \
    "Tensor? poses=None, "
#define GRID_ARGS                                                                                                      \
    "int bounds=0, bool channels_first=False, float empty_value=0.0, bool need_inverse=False, "                        \
    "bool need_dropped=False"
#define VOXELIZE_ARGS POINT_ARGS GRID_ARGS
#define DEPTH_ARGS                                                                                                     \
    "Tensor depth, Tensor intrinsics, Tensor? color, int[] reduce, int[] out_dtypes, int[] grid_size, "                \
    "float[] voxel_size, float[] grid_min, Tensor? voxel_sizes=None, Tensor? grid_mins=None, Tensor? mask=None, "      \
    "Tensor? poses=None, float depth_scale=1.0, " GRID_ARGS
#define SPARSE_ARGS                                                                                                    \
    POINT_ARGS "int max_voxels=0, int max_points=0, int order=0, int bounds=0, float empty_value=0.0, "                \
               "bool need_inverse=False"

using Take = void (*)(StableIValue *, VoxelTensors &);

constexpr size_t kMaxResults = RC_MAX_VOXEL_OUTPUTS + 5;

// Results in the order of the schema.
struct Results {
    Handle tensors[kMaxResults];
    size_t count = 0;

    // A new tensor; returns its address.
    void *add(const Shape &shape, const View &like) {
        tensors[count] = make(shape, like);
        return view_of(tensors[count++].get(), true).data;
    }
};

void build(VoxelBuilder &builder, const VoxelInputs &in, const std::string &error) {
    if (!builder.build(in)) {
        raise_error(error);
    }
}

// Workspace as the CUDA kernels ask for it. Freed while they may still run: torch gives it to later work of this stream.
template <typename Call>
Handle workspace(const Call &asking, rc_voxel_call &call, rc_status (*size_of)(const Call *, size_t *),
                 const View &points) {
    size_t bytes = 0;
    expect_ok(size_of(&asking, &bytes));
    if (bytes == 0) {
        return Handle();
    }
    const int64_t sizes[1] = {static_cast<int64_t>(bytes)};
    Handle made = empty(sizes, 1, RC_UINT8, points);
    call.workspace = view_of(made.get(), true).data;
    call.workspace_size = bytes;
    return made;
}

void launch(VoxelArgs &args, const View &points) {
    place(args.call, points, is_small(args));
    if (points.device_type == kCuda) {
        const Handle space = workspace(args.call, args.call, &rc_voxelize_cuda_workspace, points);
        expect_ok(rc_voxelize_cuda(&args.call));
    } else {
        expect_ok(rc_voxelize_cpu(&args.call));
    }
}

// -> [*outputs in order of reduce, inverse if asked, dropped if asked]
template <Take take>
void voxelize(StableIValue *stack) {
    VoxelTensors given;
    take(stack, given);
    VoxelArgs args;
    std::string error;
    VoxelBuilder builder(args, &error);
    build(builder, given.in, error);
    Results results;
    for (int32_t o = 0; o < args.call.num_outputs; ++o) {
        args.outputs[o].data = results.add(args.shapes[o], given.in.points);
    }
    if (given.in.need_inverse) {
        args.call.inverse = static_cast<int64_t *>(results.add(args.inverse, given.in.points));
    }
    if (given.in.need_dropped) {
        args.call.dropped = static_cast<int64_t *>(results.add(args.dropped, given.in.points));
    }
    launch(args, given.in.points);
    stack[0] = make_list(results.tensors, results.count);
}

// -> (inverse, dropped), each of shape [0] where it is not asked for. Its outputs are added to.
template <Take take, size_t num_args>
void voxelize_out(StableIValue *stack) {
    VoxelTensors given;
    TensorList out(stack[num_args]);
    take(stack, given);
    VoxelArgs args;
    std::string error;
    VoxelBuilder builder(args, &error);
    build(builder, given.in, error);
    if (out.size() != given.in.num_reduce) {
        raise_error("out: expected one tensor for each of the " + std::to_string(given.in.num_reduce) +
                    " reductions, got " + std::to_string(out.size()));
    }
    for (size_t o = 0; o < out.size(); ++o) {
        if (!builder.set_out(o, view_of(out[o].get(), true), given.in.points, given.in.points_name())) {
            raise_error(error);
        }
    }
    args.call.accumulate = true;
    Shape none;
    none.dtype = RC_INT64;
    none.add(0);
    Results results;
    void *inverse = results.add(given.in.need_inverse ? args.inverse : none, given.in.points);
    void *dropped = results.add(given.in.need_dropped ? args.dropped : none, given.in.points);
    args.call.inverse = given.in.need_inverse ? static_cast<int64_t *>(inverse) : nullptr;
    args.call.dropped = given.in.need_dropped ? static_cast<int64_t *>(dropped) : nullptr;
    launch(args, given.in.points);
    stack[0] = to_stack(results.tensors[0].release());
    stack[1] = to_stack(results.tensors[1].release());
}

// -> [coords, num_voxels, *outputs, gathered with max_points, inverse if asked, slots if asked with max_points]
void voxelize_sparse(StableIValue *stack) {
    VoxelTensors given;
    take_sparse(stack, given);
    VoxelArgs args;
    std::string error;
    VoxelBuilder builder(args, &error);
    build(builder, given.in, error);
    const View &points = given.in.points;
    Results results;
    args.sparse.coords = static_cast<int32_t *>(results.add(args.coords, points));
    args.sparse.num_voxels = static_cast<int64_t *>(results.add(args.num_voxels, points));
    for (int32_t o = 0; o < args.call.num_outputs; ++o) {
        args.outputs[o].data = results.add(args.shapes[o], points);
    }
    if (given.in.max_points > 0) {
        args.sparse.gathered = results.add(args.gathered, points);
    }
    if (given.in.need_inverse) {
        args.call.inverse = static_cast<int64_t *>(results.add(args.inverse, points));
        if (given.in.max_points > 0) {
            args.sparse.slots = static_cast<int64_t *>(results.add(args.inverse, points));
        }
    }
    place(args.call, points, is_small(args));
    if (points.device_type == kCuda) {
        const Handle space = workspace(args.sparse, args.call, &rc_voxelize_sparse_cuda_workspace, points);
        expect_ok(rc_voxelize_sparse_cuda(&args.sparse));
    } else {
        expect_ok(rc_voxelize_sparse_cpu(&args.sparse));
    }
    stack[0] = make_list(results.tensors, results.count);
}

StableIValue placeholder_list() {
    Handle tensors[1] = {Handle(from_stack(placeholder()))};
    return make_list(tensors, 1);
}

template <void (*compute)(StableIValue *), bool list>
void kernel(StableIValue *stack, uint64_t, uint64_t num_outputs) {
    try {
        compute(stack);
    } catch (const std::exception &error) {
        if (!NestedCall::keeps(error.what())) {
            throw;
        }
        for (uint64_t i = 0; i < num_outputs; ++i) {
            stack[i] = list ? placeholder_list() : placeholder();
        }
    }
}

// X_out in terms of _X_out, whose two results compilers know how to deal with: -> [inverse if asked, dropped if asked].
template <bool images, size_t num_args>
void out_kernel(StableIValue *stack, uint64_t, uint64_t) {
    const bool asked[2] = {as_bool(stack[num_args - 2]), as_bool(stack[num_args - 1])};
    StableIValue inner[num_args + 1];
    for (size_t i = 0; i <= num_args; ++i) {
        inner[i] = stack[i];
    }
    forward_call(images ? "robocache::_voxelize_depth_out" : "robocache::_voxelize_out", inner, free_tensors, 2);
    Handle results[2] = {Handle(from_stack(inner[0])), Handle(from_stack(inner[1]))};
    Handle wanted[2];
    size_t count = 0;
    for (size_t i = 0; i < 2; ++i) {
        if (asked[i]) {
            wanted[count++] = std::move(results[i]);
        }
    }
    stack[0] = make_list(wanted, count);
}

// The stack goes on as it came: the twins take the same arguments. Gradients flow to features (or color) alone.
enum class Op { voxelize, depth, sparse };
template <Op op>
void autograd_kernel(StableIValue *stack, uint64_t, uint64_t num_outputs) {
    static constexpr const char *names[3][2] = {
        {"robocache::_voxelize", "robocache::_voxelize_grad"},
        {"robocache::_voxelize_depth", "robocache::_voxelize_depth_grad"},
        {"robocache::_voxelize_sparse", "robocache::_voxelize_sparse_grad"},
    };
    const size_t features = op == Op::depth ? 2 : 1;
    const bool grad = aoti_torch_grad_mode_is_enabled() && optional_requires_grad(stack[features]);
    forward_call(names[static_cast<int>(op)][grad], stack, free_tensor_lists, num_outputs);
}

void register_kernels(torch::stable::detail::StableLibrary &m) {
    for (const char *name : {"voxelize", "_voxelize", "_voxelize_grad"}) {
        m.impl(name, &kernel<voxelize<take_voxelize>, true>);
    }
    for (const char *name : {"voxelize_depth", "_voxelize_depth", "_voxelize_depth_grad"}) {
        m.impl(name, &kernel<voxelize<take_depth>, true>);
    }
    for (const char *name : {"voxelize_sparse", "_voxelize_sparse", "_voxelize_sparse_grad"}) {
        m.impl(name, &kernel<voxelize_sparse, true>);
    }
    m.impl("_voxelize_out", &kernel<voxelize_out<take_voxelize, kNumVoxelizeArgs>, false>);
    m.impl("_voxelize_depth_out", &kernel<voxelize_out<take_depth, kNumDepthArgs>, false>);
}

} // namespace

// Numbers are the enums of robocache.h.
STABLE_TORCH_LIBRARY_FRAGMENT(robocache, m) {
    // points [B, N, 3] or packed [N, 3], features [B, N, C] or [N, C], mask [B, N] or [N], poses [B or 1, 3, 4]
    // -> [*outputs in order of reduce, inverse if asked, dropped if asked]
    m.def("voxelize(" VOXELIZE_ARGS ") -> Tensor[]");
    m.def("_voxelize(" VOXELIZE_ARGS ") -> Tensor[]");
    m.def("_voxelize_grad(" VOXELIZE_ARGS ") -> Tensor[]");
    // Adds to occupancy and count of the caller's -> [inverse if asked, dropped if asked]
    m.def("voxelize_out(" VOXELIZE_ARGS ", *, Tensor(a!)[] out) -> Tensor[]");
    m.def("_voxelize_out(" VOXELIZE_ARGS ", *, Tensor(a!)[] out) -> (Tensor, Tensor)");
    // depth [B, V, H, W], intrinsics [B, V, 4], color [B, V, H, W, C], poses [B or 1, V or 1, 3, 4].
    m.def("voxelize_depth(" DEPTH_ARGS ") -> Tensor[]");
    m.def("_voxelize_depth(" DEPTH_ARGS ") -> Tensor[]");
    m.def("_voxelize_depth_grad(" DEPTH_ARGS ") -> Tensor[]");
    m.def("voxelize_depth_out(" DEPTH_ARGS ", *, Tensor(a!)[] out) -> Tensor[]");
    m.def("_voxelize_depth_out(" DEPTH_ARGS ", *, Tensor(a!)[] out) -> (Tensor, Tensor)");
    // -> [coords, num_voxels, *outputs, gathered with max_points, inverse if asked, slots if asked with max_points]
    m.def("voxelize_sparse(" SPARSE_ARGS ") -> Tensor[]");
    m.def("_voxelize_sparse(" SPARSE_ARGS ") -> Tensor[]");
    m.def("_voxelize_sparse_grad(" SPARSE_ARGS ") -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(robocache, CPU, m) {
    register_kernels(m);
}

STABLE_TORCH_LIBRARY_IMPL(robocache, CUDA, m) {
    register_kernels(m);
}

STABLE_TORCH_LIBRARY_IMPL(robocache, CompositeImplicitAutograd, m) {
    m.impl("voxelize_out", &out_kernel<false, kNumVoxelizeArgs>);
    m.impl("voxelize_depth_out", &out_kernel<true, kNumDepthArgs>);
}

STABLE_TORCH_LIBRARY_IMPL(robocache, Autograd, m) {
    m.impl("voxelize", &autograd_kernel<Op::voxelize>);
    m.impl("voxelize_depth", &autograd_kernel<Op::depth>);
    m.impl("voxelize_sparse", &autograd_kernel<Op::sparse>);
}

} // namespace robocache
