// The fast path of voxelize_point_cloud_sparse and devoxelize; see dlpack_door.cpp.
#include "module.h"
#include "voxel_outputs.h"

namespace py = pybind11;

namespace robocache {

namespace {

// ---- Sparse ---------------------------------------------------------------------------------------------------------

// Arguments of a sparse call.
enum SparseArgument {
    kPoints,
    kFeatures,
    kVoxelSize,
    kGridMin,
    kGridSize,
    kMaxVoxels,
    kMaxPoints,
    kOrder,
    kReduce,
    kRowSplits,
    kMask,
    kPose,
    kBounds,
    kOutDtype,
    kEmptyValue,
    kDeterministic,
    kBackend,
    kNumSparseArguments
};

struct SparseCall {
    VoxelSource source;
    VoxelInputs in;
    VoxelArgs args;
    ReduceNames names;
    PyObject *like = nullptr;
    Ref coords, num_voxels, outputs[RC_MAX_VOXEL_OUTPUTS], gathered, inverse, workspace;
};

// Either reductions of the features, or the first points of each voxel.
bool read_contents(PyObject *const *args, SparseCall &call) {
    VoxelInputs &in = call.in;
    in.reduce[in.num_reduce++] = RC_REDUCE_COUNT;
    in.out_dtypes[in.num_out_dtypes++] = RC_INT32;
    PyObject *reduce = args[kReduce], *out_dtype = args[kOutDtype];
    if (args[kMaxPoints] != Py_None) {
        int32_t dtype = in.features.dtype;
        return reduce == Py_None && whole_of(args[kMaxPoints], &in.max_points) && in.max_points >= 1 &&
               in.max_points <= std::numeric_limits<int32_t>::max() && out_dtype_of(out_dtype, &dtype) &&
               dtype == in.features.dtype;
    }
    if (reduce == Py_None && !in.features.given()) {
        return out_dtype == Py_None;
    }
    return read_reduce(reduce == Py_None ? names.mean : reduce, RC_REDUCE_SUM, call.names, in) &&
           read_out_dtypes(out_dtype, call.names, in);
}

bool read_sparse(PyObject *const *args, bool grads, SparseCall &call) {
    VoxelInputs &in = call.in;
    in.sparse = true;
    call.like = args[kPoints];
    // Voxels of bare points hold their coordinates, which then may want a gradient.
    const bool bare = args[kFeatures] == Py_None && args[kMaxPoints] != Py_None;
    if (!read_cloud(args[kPoints], args[kRowSplits], args[kMask], args[kPose], grads && bare, call.source) ||
        !read_features(args[kFeatures], false, grads, call.source) || !backend_fits(args[kBackend], call.source.own) ||
        !is_optional_flag(args[kDeterministic])) {
        return false;
    }
    describe(call.source, false, in);
    if (bare) {
        in.features = in.points;
    }
    return read_frame(args[kVoxelSize], args[kGridMin], call.source, in.grid) &&
           read_grid_size(args[kGridSize], in.grid) && whole_of(args[kMaxVoxels], &in.max_voxels) &&
           choice_of(args[kOrder], voxel_config.orders, &in.order) && bounds_of(args[kBounds], &in.bounds) &&
           number_of(args[kEmptyValue], &in.empty_value) && read_contents(args, call);
}

bool allocate(const Shape &shape, const SparseCall &call, Ref &to, void **data) {
    const OwnShape own(shape, call.source.alone);
    to = empty(own.sizes, own.ndim, shape.dtype, call.like, call.source.own, data);
    return static_cast<bool>(to);
}

bool allocate_all(SparseCall &call) {
    VoxelArgs &args = call.args;
    const bool hard = call.in.max_points > 0;
    Room room;
    bool fits = room.takes(args.coords) && (!hard || room.takes(args.gathered));
    for (int32_t o = 0; o < args.call.num_outputs; ++o) {
        fits = fits && room.takes(args.shapes[o]);
    }
    void *coords = nullptr, *num_voxels = nullptr, *inverse = nullptr;
    if (!fits || !allocate(args.coords, call, call.coords, &coords) ||
        !allocate(args.num_voxels, call, call.num_voxels, &num_voxels) ||
        (hard && !allocate(args.gathered, call, call.gathered, &args.sparse.gathered))) {
        return false;
    }
    for (int32_t o = 0; o < args.call.num_outputs; ++o) {
        if (!allocate(args.shapes[o], call, call.outputs[o], &args.outputs[o].data)) {
            return false;
        }
    }
    const View &own = call.source.own;
    call.inverse = empty(own.sizes, own.ndim - 1, RC_INT64, call.like, own, &inverse);
    args.sparse.coords = static_cast<int32_t *>(coords);
    args.sparse.num_voxels = static_cast<int64_t *>(num_voxels);
    args.call.inverse = static_cast<int64_t *>(inverse);
    return static_cast<bool>(call.inverse);
}

rc_status launch(SparseCall &call) {
    const bool on_cuda = call.source.own.device_type == kCuda;
    rc_status status;
    Py_BEGIN_ALLOW_THREADS;
    status = on_cuda ? rc_voxelize_sparse_cuda(&call.args.sparse) : rc_voxelize_sparse_cpu(&call.args.sparse);
    Py_END_ALLOW_THREADS;
    return status;
}

// What the voxels hold: a tensor, a dict of them, or None.
Ref contents(SparseCall &call) {
    if (call.gathered) {
        return std::move(call.gathered);
    }
    if (call.names.count > 0 && !call.names.several) {
        return std::move(call.outputs[1]);
    }
    if (call.names.count == 0) {
        Py_INCREF(Py_None);
        return Ref(Py_None);
    }
    Ref result(PyDict_New());
    for (size_t o = 0; result && o < call.names.count; ++o) {
        if (PyDict_SetItem(result.get(), call.names.names[o], call.outputs[o + 1].get()) != 0) {
            return Ref();
        }
    }
    return result;
}

// A tuple (coords, features, counts, num_voxels, inverse).
PyObject *fast_voxelize_sparse(PyObject *, PyObject *const *args, Py_ssize_t count) {
    if (count != kNumSparseArguments || !config.api || !is_tensor(args[kPoints]) || !is_quiet()) {
        return not_mine();
    }
    const int grad = grad_mode();
    SparseCall call;
    if (grad < 0 || !read_sparse(args, grad != 0, call)) {
        return not_mine();
    }
    VoxelBuilder builder(call.args, nullptr);
    if (!builder.build(call.in) || !allocate_all(call) || !place(call.args.call, call.in.points, is_small(call.args))) {
        return not_mine();
    }
    if (call.names.count == 0 && call.in.max_points == 0) {
        call.args.call.features = nullptr;
    }
    if (call.in.points.device_type == kCuda &&
        !take_workspace(call.args.sparse, &rc_voxelize_sparse_cuda_workspace, call.args.call, call.like, call.in.points,
                        call.workspace)) {
        return not_mine();
    }
    const rc_status status = launch(call);
    if (is_refusal(status)) {
        return not_mine();
    }
    if (status != RC_OK) {
        set_python_error(status);
        return nullptr;
    }
    Ref &counts = call.outputs[0];
    if (call.in.max_points > 0) { // of more points than it lists, a voxel tells those that it lists
        counts = Ref(PyObject_CallMethodOneArg(counts.get(), names.clamp_max_, args[kMaxPoints]));
        if (!counts) {
            return nullptr;
        }
    }
    const Ref features = contents(call);
    return features ? PyTuple_Pack(5, call.coords.get(), features.get(), counts.get(), call.num_voxels.get(),
                                   call.inverse.get())
                    : nullptr;
}

// ---- Devoxelize -----------------------------------------------------------------------------------------------------

enum DevoxelizeArgument {
    kGrid,
    kAt,
    kEdge,
    kCorner,
    kMode,
    kGridLayout,
    kSplits,
    kWhere,
    kTransform,
    kOutside,
    kEmpty,
    kAsked,
    kWay,
    kNumDevoxelizeArguments
};

// [X, Y, Z, C] without a batch, or with channels first, as [B, X, Y, Z, C].
bool read_values(PyObject *grid, PyObject *layout, bool grads, const VoxelSource &source, Batched &to) {
    View view;
    int64_t first = 0;
    if (!view_of(grid, &view) || !is_plain_float(grid, view, grads) || view.ndim != (source.alone ? 4 : 5) ||
        !choice_of(layout, voxel_config.layouts, &first) || !to.insert(view, 0, source.alone ? 1 : 0)) {
        return false;
    }
    if (first != 0) {
        to.columns_last();
    }
    return true;
}

// Floating grids to any floating dtype, others to their own.
bool read_asked(PyObject *out_dtype, DevoxelizeInputs &in) {
    if (!out_dtype_of(out_dtype, &in.out_dtype)) {
        return false;
    }
    return in.out_dtype == kNoDtype || in.out_dtype == in.values.dtype ||
           (is_floating(in.out_dtype) && is_floating(in.values.dtype));
}

PyObject *fast_devoxelize(PyObject *, PyObject *const *args, Py_ssize_t count) {
    if (count != kNumDevoxelizeArguments || !config.api || !is_tensor(args[kGrid]) || !is_quiet()) {
        return not_mine();
    }
    const int grad = grad_mode();
    VoxelSource source;
    Batched values;
    DevoxelizeInputs in;
    if (grad < 0 || !read_cloud(args[kAt], args[kSplits], args[kWhere], args[kTransform], grad != 0, source) ||
        !read_values(args[kGrid], args[kGridLayout], grad != 0, source, values) ||
        !read_frame(args[kEdge], args[kCorner], source, in.grid) ||
        !choice_of(args[kMode], voxel_config.modes, &in.mode) || !bounds_of(args[kOutside], &in.bounds) ||
        !number_of(args[kEmpty], &in.empty_value) || !backend_fits(args[kWay], source.own)) {
        return not_mine();
    }
    in.values = values;
    in.points = source.points;
    in.row_splits = source.row_splits;
    in.mask = source.mask;
    in.poses = source.poses;
    DevoxelizeArgs made;
    DevoxelizeBuilder builder(made, nullptr);
    if (!read_asked(args[kAsked], in) || !builder.build(in) || !place(made.call, in.points, is_small(made))) {
        return not_mine();
    }
    const OwnShape own(made.out, source.alone);
    Ref result = empty(own.sizes, own.ndim, made.out.dtype, args[kAt], source.own, &made.call.out);
    if (!result) {
        return not_mine();
    }
    const bool on_cuda = source.own.device_type == kCuda;
    rc_status status;
    Py_BEGIN_ALLOW_THREADS;
    status = on_cuda ? rc_devoxelize_cuda(&made.call) : rc_devoxelize_cpu(&made.call);
    Py_END_ALLOW_THREADS;
    if (is_refusal(status)) {
        return not_mine();
    }
    if (status != RC_OK) {
        set_python_error(status);
        return nullptr;
    }
    return result.release();
}

PyMethodDef methods[] = {
    {"fast_voxelize_sparse", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(fast_voxelize_sparse)),
     METH_FASTCALL, "The parts of voxelize_point_cloud_sparse for plain eager tensors, or NotImplemented."},
    {"fast_devoxelize", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(fast_devoxelize)), METH_FASTCALL,
     "devoxelize for plain eager tensors, or NotImplemented."},
    {nullptr, nullptr, 0, nullptr},
};

} // namespace

void add_voxel_rows_door(py::module_ &m) {
    if (PyModule_AddFunctions(m.ptr(), methods) != 0) {
        throw py::error_already_set();
    }
}

} // namespace robocache
