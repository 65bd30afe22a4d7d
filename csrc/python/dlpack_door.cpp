// The fast path of the public torch functions: plain eager tensors that need no gradient go straight into the C library,
// described by torch's own DLPack exchange table, past the dispatcher and the schema.
//
// Every function here returns NotImplemented, before any work, for a call that is not its own: a mode or transform is
// active, an argument is of another type, a shape does not fit. The slow path then does it, or raises the good message.
#include <Python.h>

#include "align_call.h"
#include "fast_call.h"
#include "module.h"
#include "voxel_read.h"

namespace py = pybind11;

namespace robocache {

namespace {

constexpr const char *kStreamFields[11] = {"values",      "times",   "kind",      "lengths", "row_splits", "rows",
                                           "extrapolate", "max_gap", "tolerance", "invalid", "time_offset"};

// (values, times, target_times, kind, lengths, row_splits, rows, extrapolate, max_gap, tolerance, invalid, time_offset,
//  return_valid, out_dtype, out, backend)
PyObject *fast_resample(PyObject *, PyObject *const *args, Py_ssize_t count) {
    if (count != 16 || !config.api || !is_tensor(args[0]) || !is_quiet()) {
        return not_mine();
    }
    const int grad = grad_mode();
    StreamArgs stream;
    Call call;
    call.streams = &stream;
    call.count = 1;
    PyObject *const fields[11] = {args[0], args[1], args[3], args[4],  args[5], args[6],
                                  args[7], args[8], args[9], args[10], args[11]};
    if (grad < 0 || !read_targets(args[2], grad != 0, &call.targets) || !read_stream(fields, 0, grad != 0, call)) {
        return not_mine();
    }
    return finish_align(call, false, args[2], args[12], args[13], args[14], args[15], grad != 0);
}

// (streams, target_times, return_valid, out_dtype, out, backend)
PyObject *fast_fuse(PyObject *, PyObject *const *args, Py_ssize_t count) {
    if (count != 6 || !config.api || !is_tensor(args[1]) || !is_quiet()) {
        return not_mine();
    }
    Ref items;
    if (PyDict_CheckExact(args[0])) {
        items = Ref(PyDict_Values(args[0]));
    } else if (PyList_CheckExact(args[0]) || PyTuple_CheckExact(args[0])) {
        items = Ref(PySequence_List(args[0])); // a list of our own: nobody shortens it meanwhile
    }
    const int grad = grad_mode();
    StreamArgs streams[RC_MAX_STREAMS];
    Call call;
    call.streams = streams;
    if (!items || grad < 0 || !read_targets(args[1], grad != 0, &call.targets)) {
        return not_mine();
    }
    if (!read_streams(items.get(), grad != 0, call)) {
        return not_mine();
    }
    return finish_align(call, true, args[1], args[2], args[3], args[4], args[5], grad != 0);
}

PyMethodDef methods[] = {
    {"fast_resample", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(fast_resample)), METH_FASTCALL,
     "resample_trajectories for plain eager tensors, or NotImplemented."},
    {"fast_fuse", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(fast_fuse)), METH_FASTCALL,
     "fuse_multimodal for plain eager tensors, or NotImplemented."},
    {nullptr, nullptr, 0, nullptr},
};

PyObject *keep(const py::object &object) {
    return py::object(object).release().ptr();
}

// Takes what the fast path needs of torch; false when torch's exchange table is of a version it does not know.
bool configure(const py::capsule &exchange, uintptr_t parallel_for, const py::dict &needs) {
    auto *header = static_cast<dlpack::ExchangeHeader *>(PyCapsule_GetPointer(exchange.ptr(), dlpack::kCapsuleName));
    if (!header) {
        throw py::error_already_set();
    }
    while (header && header->version.major != dlpack::kMajorVersion) {
        header = header->previous;
    }
    if (!header) {
        return false;
    }
    const auto *api = reinterpret_cast<const dlpack::ExchangeApi *>(header);
    if (!api->dltensor_from_py_object_no_sync || !api->current_work_stream) {
        return false;
    }
    names.requires_grad = PyUnicode_InternFromString("requires_grad");
    names.dtype = PyUnicode_InternFromString("dtype");
    names.device = PyUnicode_InternFromString("device");
    names.is_neg = PyUnicode_InternFromString("is_neg");
    names.clamp_max_ = PyUnicode_InternFromString("clamp_max_");
    names.automatic = PyUnicode_InternFromString("auto");
    names.mean = PyUnicode_InternFromString("mean");
    names.dtype_only = PyTuple_Pack(1, names.dtype);
    names.dtype_device = PyTuple_Pack(2, names.dtype, names.device);
    for (int f = 0; f < 11; ++f) {
        names.fields[f] = PyUnicode_InternFromString(kStreamFields[f]);
    }
    config.parallel_for = reinterpret_cast<rc_parallel_for_fn>(parallel_for);
    config.tensor_type = reinterpret_cast<PyTypeObject *>(keep(needs["tensor_type"]));
    config.stream_type = reinterpret_cast<PyTypeObject *>(keep(needs["stream_type"]));
    config.empty = keep(needs["empty"]);
    config.empty_strided = keep(needs["empty_strided"]);
    config.increment_version = keep(needs["increment_version"]);
    config.grad_enabled = keep(needs["grad_enabled"]);
    config.busy = keep(needs["busy"]);
    config.dtypes = keep(needs["dtypes"]);
    config.kinds = keep(needs["kinds"]);
    config.extrapolate = keep(needs["extrapolate"]);
    config.invalid = keep(needs["invalid"]);
    config.flat_groups = keep(needs["flat_groups"]);
    configure_voxel_door(needs);
    config.api = api; // last: the functions look at it first
    return true;
}

} // namespace

void add_dlpack_door(py::module_ &m) {
    if (PyModule_AddFunctions(m.ptr(), methods) != 0) {
        throw py::error_already_set();
    }
    m.def("configure_fast", &configure, py::arg("exchange"), py::arg("parallel_for"), py::arg("needs"),
          "Hands torch's DLPack exchange table and helpers to the functions of the fast path.");
}

} // namespace robocache
