// Streams and targets that are read once and drawn from many times, as the windows of a store are: a draw brings no more
// than the rows and their anchors, so that it does not describe some twenty tensors anew that have not changed.
#include <Python.h>

#include <memory>

#include "align_call.h"
#include "fast_call.h"
#include "module.h"

namespace py = pybind11;

namespace robocache {

namespace {

constexpr const char *kBoundName = "robocache.bound_streams";

// Never changes once it is made, so that threads may draw from it at the same time. Views point into the tensors that
// `items` and `targets` hold.
struct Bound {
    Ref items;   // list of Stream
    Ref targets; // tensor
    StreamArgs streams[RC_MAX_STREAMS];
    Call call;
};

void forget(PyObject *capsule) {
    delete static_cast<Bound *>(PyCapsule_GetPointer(capsule, kBoundName));
}

// (streams, target_times) -> capsule
PyObject *fast_bind(PyObject *, PyObject *const *args, Py_ssize_t count) {
    if (count != 2 || !config.api || !PyList_CheckExact(args[0]) || !is_tensor(args[1]) || !is_quiet()) {
        return not_mine();
    }
    auto bound = std::make_unique<Bound>();
    bound->items = Ref(PySequence_List(args[0])); // a list of our own: nobody changes it
    Py_INCREF(args[1]);
    bound->targets = Ref(args[1]);
    bound->call.streams = bound->streams;
    // As if gradients were on: they may be so at a draw.
    if (!bound->items || !read_targets(args[1], true, &bound->call.targets) ||
        !read_streams(bound->items.get(), true, bound->call)) {
        return not_mine();
    }
    PyObject *capsule = PyCapsule_New(bound.get(), kBoundName, forget);
    if (capsule) {
        static_cast<void>(bound.release()); // the capsule's now
    }
    return capsule;
}

// Rows and anchors: the first two rows of a table [2 or more, B], or two vectors [B].
bool read_anchors(PyObject *rows, PyObject *times, View *row_view, View *time_view) {
    if (times != Py_None) {
        return view_of(rows, row_view) && view_of(times, time_view) && is_plain_float(times, *time_view, true);
    }
    View table;
    if (!view_of(rows, &table) || table.ndim != 2 || table.sizes[0] < 2 || table.dtype != RC_INT64) {
        return false;
    }
    *row_view = table;
    row_view->ndim = 1;
    row_view->sizes = table.sizes + 1;
    row_view->strides = table.strides + 1;
    *time_view = *row_view;
    time_view->data = static_cast<char *>(table.data) + table.strides[0] * static_cast<int64_t>(sizeof(int64_t));
    return true;
}

// (bound, rows, times or None) -> (values, valid)
PyObject *fast_draw(PyObject *, PyObject *const *args, Py_ssize_t count) {
    if (count != 3 || !config.api || !is_tensor(args[1]) || !PyCapsule_IsValid(args[0], kBoundName) || !is_quiet()) {
        return not_mine();
    }
    const auto *bound = static_cast<const Bound *>(PyCapsule_GetPointer(args[0], kBoundName));
    View rows, times;
    if (!read_anchors(args[1], args[2], &rows, &times)) {
        return not_mine();
    }
    StreamArgs streams[RC_MAX_STREAMS];
    Call call;
    call.streams = streams;
    call.count = bound->call.count;
    call.kinds = bound->call.kinds;
    call.targets = bound->call.targets;
    for (size_t s = 0; s < call.count; ++s) {
        streams[s] = bound->streams[s];
        streams[s].rows = rows;
        streams[s].row_offsets = times;
    }
    return finish_align(call, true, bound->targets.get(), Py_True, Py_None, Py_None, names.automatic, false);
}

PyMethodDef methods[] = {
    {"fast_bind", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(fast_bind)), METH_FASTCALL,
     "Reads plain streams and targets for fast_draw, or NotImplemented."},
    {"fast_draw", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(fast_draw)), METH_FASTCALL,
     "fuse_multimodal of bound streams at rows and anchors, or NotImplemented."},
    {nullptr, nullptr, 0, nullptr},
};

} // namespace

void add_bound_door(py::module_ &m) {
    if (PyModule_AddFunctions(m.ptr(), methods) != 0) {
        throw py::error_already_set();
    }
}

} // namespace robocache
