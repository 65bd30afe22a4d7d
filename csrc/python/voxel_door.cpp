// The fast path of voxelize_point_cloud and voxelize_depth; see dlpack_door.cpp.
#include "module.h"
#include "voxel_outputs.h"

namespace py = pybind11;

namespace robocache {

namespace {

// Keyword arguments of a dense call, in the order of robocache._voxel_dense.Options.
enum Option {
    kVoxelSize,
    kGridMin,
    kGridSize,
    kReduce,
    kBounds,
    kLayout,
    kOutDtype,
    kEmptyValue,
    kDeterministic,
    kReturnCounts,
    kReturnInverse,
    kReturnDropped,
    kOut,
    kBackend,
    kNumOptions
};

struct DenseCall {
    VoxelSource source;
    VoxelInputs in;
    VoxelArgs args;
    ReduceNames names;
    PyObject *like = nullptr; // points or depth
    bool grad_enabled = false;
    bool counts = false; // a result beside the grids
    Ref grids[RC_MAX_VOXEL_OUTPUTS];
    Ref inverse, dropped, workspace;
    Batched out[RC_MAX_VOXEL_OUTPUTS];
};

bool flag_of(PyObject *object, bool *flag) {
    *flag = object == Py_True;
    return PyBool_Check(object);
}

bool read_options(PyObject *const *options, DenseCall &call) {
    VoxelInputs &in = call.in;
    int64_t layout = 0;
    if (!backend_fits(options[kBackend], call.source.own) ||
        !read_frame(options[kVoxelSize], options[kGridMin], call.source, in.grid) ||
        !read_grid_size(options[kGridSize], in.grid) ||
        !read_reduce(options[kReduce], RC_REDUCE_OCCUPANCY, call.names, in) ||
        !bounds_of(options[kBounds], &in.bounds) || !choice_of(options[kLayout], voxel_config.layouts, &layout) ||
        !number_of(options[kEmptyValue], &in.empty_value) || !is_optional_flag(options[kDeterministic]) ||
        !flag_of(options[kReturnCounts], &call.counts) || !flag_of(options[kReturnInverse], &in.need_inverse) ||
        !flag_of(options[kReturnDropped], &in.need_dropped)) {
        return false;
    }
    in.channels_first = layout != 0;
    return true;
}

// Where the count of a call stands among its outputs, or their number.
size_t place_of_count(const DenseCall &call) {
    size_t place = 0;
    while (place < call.in.num_reduce && call.in.reduce[place] != RC_REDUCE_COUNT) {
        ++place;
    }
    return place;
}

// Counts beside the grids are one more output, or the count among them where it is in the same dtype.
bool add_counts(DenseCall &call) {
    VoxelInputs &in = call.in;
    const size_t place = place_of_count(call);
    if (!call.counts || place < in.num_reduce) {
        return !call.counts || in.out_dtypes[place] == RC_INT32;
    }
    in.reduce[in.num_reduce++] = RC_REDUCE_COUNT;
    in.out_dtypes[in.num_out_dtypes++] = RC_INT32;
    return true;
}

bool allocate(const Shape &shape, bool alone, const DenseCall &call, Ref &to, void **data) {
    const OwnShape own(shape, alone);
    to = empty(own.sizes, own.ndim, shape.dtype, call.like, call.source.own, data);
    return static_cast<bool>(to);
}

bool allocate_grids(DenseCall &call) {
    Room room;
    for (int32_t o = 0; o < call.args.call.num_outputs; ++o) {
        if (!room.takes(call.args.shapes[o])) {
            return false;
        }
    }
    for (int32_t o = 0; o < call.args.call.num_outputs; ++o) {
        if (!allocate(call.args.shapes[o], call.source.alone, call, call.grids[o], &call.args.outputs[o].data)) {
            return false;
        }
    }
    return true;
}

// Inverse and dropped, where they are asked for.
bool allocate_extras(DenseCall &call) {
    void *data = nullptr;
    if (call.in.need_inverse) {
        const View &own = call.source.own;
        call.inverse = empty(own.sizes, own.ndim - (call.in.images ? 0 : 1), RC_INT64, call.like, own, &data);
        call.args.call.inverse = static_cast<int64_t *>(data);
        if (!call.inverse) {
            return false;
        }
    }
    if (call.in.need_dropped) {
        if (!allocate(call.args.dropped, call.source.alone, call, call.dropped, &data)) {
            return false;
        }
        call.args.call.dropped = static_cast<int64_t *>(data);
    }
    return true;
}

bool read_out_one(PyObject *out, size_t place, DenseCall &call) {
    View view;
    if (!view_of(out, &view) || !is_plain_float(out, view, call.grad_enabled) ||
        call.in.reduce[place] > RC_REDUCE_COUNT) {
        return false;
    }
    Py_INCREF(out);
    call.grids[place] = Ref(out);
    return call.out[place].insert(view, 0, call.source.alone ? 1 : 0);
}

// The caller's own grids: one, or a dict of them for several names. Their dtypes hold where none is asked for.
bool read_out(PyObject *out, PyObject *out_dtype, DenseCall &call) {
    const ReduceNames &names = call.names;
    if (call.counts || names.several != PyDict_CheckExact(out) ||
        (names.several && PyDict_GET_SIZE(out) != static_cast<Py_ssize_t>(names.count))) {
        return false;
    }
    for (size_t o = 0; o < names.count; ++o) {
        PyObject *one = names.several ? PyDict_GetItemWithError(out, names.names[o]) : out; // borrowed
        if (!one || !read_out_one(one, o, call)) {
            return false;
        }
        if (out_dtype == Py_None) {
            call.in.out_dtypes[call.in.num_out_dtypes++] = call.out[o].dtype;
        }
    }
    return out_dtype == Py_None || read_out_dtypes(out_dtype, names, call.in);
}

bool set_out(VoxelBuilder &builder, DenseCall &call) {
    for (size_t o = 0; o < call.names.count; ++o) {
        if (!builder.set_out(o, call.out[o], call.in.points, call.in.points_name())) {
            return false;
        }
    }
    call.args.call.accumulate = true;
    return true;
}

rc_status launch(DenseCall &call) {
    const bool on_cuda = call.source.own.device_type == kCuda;
    rc_status status;
    Py_BEGIN_ALLOW_THREADS;
    status = on_cuda ? rc_voxelize_cuda(&call.args.call) : rc_voxelize_cpu(&call.args.call);
    Py_END_ALLOW_THREADS;
    return status;
}

// The grid or a dict of grids, then counts, inverse and dropped where they were asked for.
PyObject *hand_out(DenseCall &call, PyObject *out) {
    Ref result;
    if (out != Py_None) {
        Py_INCREF(out);
        result = Ref(out);
    } else if (call.names.several) {
        result = Ref(PyDict_New());
        for (size_t o = 0; result && o < call.names.count; ++o) {
            if (PyDict_SetItem(result.get(), call.names.names[o], call.grids[o].get()) != 0) {
                return nullptr;
            }
        }
    } else {
        Py_INCREF(call.grids[0].get());
        result = Ref(call.grids[0].get());
    }
    PyObject *extras[3];
    Py_ssize_t count = 0;
    if (call.counts) {
        extras[count++] = call.grids[place_of_count(call)].get();
    }
    if (call.inverse) {
        extras[count++] = call.inverse.get();
    }
    if (call.dropped) {
        extras[count++] = call.dropped.get();
    }
    if (!result || count == 0) {
        return result.release();
    }
    PyObject *all = PyTuple_New(1 + count);
    if (all) {
        PyTuple_SET_ITEM(all, 0, result.release());
        for (Py_ssize_t i = 0; i < count; ++i) {
            Py_INCREF(extras[i]);
            PyTuple_SET_ITEM(all, i + 1, extras[i]);
        }
    }
    return all;
}

// The rest of a call whose points and features are read: options, results, the kernel.
PyObject *finish(DenseCall &call, PyObject *const *options) {
    VoxelInputs &in = call.in;
    PyObject *out = options[kOut];
    if (!read_options(options, call)) {
        return not_mine();
    }
    if (out != Py_None ? !read_out(out, options[kOutDtype], call)
                       : !read_out_dtypes(options[kOutDtype], call.names, in) || !add_counts(call)) {
        return not_mine();
    }
    VoxelBuilder builder(call.args, nullptr);
    if (!builder.build(in) || !(out != Py_None ? set_out(builder, call) : allocate_grids(call)) ||
        !allocate_extras(call) || !place(call.args.call, in.points, is_small(call.args))) {
        return not_mine();
    }
    if (!call.names.featured) {
        call.args.call.features = nullptr; // checked, but of no use
    }
    if (in.points.device_type == kCuda && !take_workspace(call.args.call, &rc_voxelize_cuda_workspace, call.args.call,
                                                          call.like, in.points, call.workspace)) {
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
    for (size_t o = 0; out != Py_None && o < call.names.count; ++o) {
        if (!note_written(call.grids[o].get())) {
            return nullptr;
        }
    }
    return hand_out(call, out);
}

// (points, features, row_splits, mask, pose, *options)
PyObject *fast_voxelize(PyObject *, PyObject *const *args, Py_ssize_t count) {
    if (count != 5 + kNumOptions || !config.api || !is_tensor(args[0]) || !is_quiet()) {
        return not_mine();
    }
    const int grad = grad_mode();
    DenseCall call;
    call.like = args[0];
    call.grad_enabled = grad != 0;
    if (grad < 0 || !read_cloud(args[0], args[2], args[3], args[4], false, call.source) ||
        !read_features(args[1], false, call.grad_enabled, call.source)) {
        return not_mine();
    }
    describe(call.source, false, call.in);
    return finish(call, args + 5);
}

// (depth, intrinsics, camera_to_grid, color, depth_scale, mask, *options)
PyObject *fast_voxelize_depth(PyObject *, PyObject *const *args, Py_ssize_t count) {
    if (count != 6 + kNumOptions || !config.api || !is_tensor(args[0]) || !is_quiet()) {
        return not_mine();
    }
    const int grad = grad_mode();
    DenseCall call;
    call.like = args[0];
    call.grad_enabled = grad != 0;
    if (grad < 0 || !read_images(args[0], args[1], args[2], args[5], call.source) ||
        !read_features(args[3], true, call.grad_enabled, call.source) || !number_of(args[4], &call.in.depth_scale)) {
        return not_mine();
    }
    describe(call.source, true, call.in);
    return finish(call, args + 6);
}

PyMethodDef methods[] = {
    {"fast_voxelize", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(fast_voxelize)), METH_FASTCALL,
     "voxelize_point_cloud for plain eager tensors, or NotImplemented."},
    {"fast_voxelize_depth", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(fast_voxelize_depth)),
     METH_FASTCALL, "voxelize_depth for plain eager tensors, or NotImplemented."},
    {nullptr, nullptr, 0, nullptr},
};

} // namespace

void add_voxel_door(py::module_ &m) {
    if (PyModule_AddFunctions(m.ptr(), methods) != 0) {
        throw py::error_already_set();
    }
}

} // namespace robocache
