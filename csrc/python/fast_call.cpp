#include "fast_call.h"

#include <cstdlib>
#include <cstring>

namespace robocache {

PyObject *not_mine() {
    PyErr_Clear();
    Py_RETURN_NOTIMPLEMENTED;
}

int grad_mode() {
    const Ref enabled(PyObject_CallNoArgs(config.grad_enabled));
    return enabled ? PyObject_IsTrue(enabled.get()) : -1;
}

static bool checks_synchronously() {
    const char *asked = std::getenv("ROBOCACHE_CHECK");
    return asked && std::strcmp(asked, "sync") == 0;
}

bool backend_fits(PyObject *backend, const View &like) {
    const bool on_cuda = like.device_type == kCuda;
    const bool named = PyUnicode_CheckExact(backend) &&
                       (PyUnicode_CompareWithASCIIString(backend, "auto") == 0 ||
                        PyUnicode_CompareWithASCIIString(backend, on_cuda ? "cuda" : "cpu") == 0);
    return named && (!on_cuda || (!checks_synchronously() && rc_cuda_available()));
}

Ref empty(const int64_t *sizes, int ndim, int32_t dtype, PyObject *like, const View &like_view, void **data) {
    const Ref shape(PyTuple_New(ndim));
    const bool on_cuda = like_view.device_type == kCuda;
    // A default device other than the CPU is a mode, which makes a call the slow way's.
    const Ref device(on_cuda ? PyObject_GetAttr(like, names.device) : nullptr);
    if (!shape || (on_cuda && !device)) {
        return Ref();
    }
    for (int d = 0; d < ndim; ++d) {
        PyTuple_SET_ITEM(shape.get(), d, PyLong_FromLongLong(sizes[d]));
    }
    const int32_t stored = dtype == RC_BITS ? static_cast<int32_t>(RC_UINT8) : dtype;
    PyObject *arguments[3] = {shape.get(), PyTuple_GET_ITEM(config.dtypes, stored), device.get()};
    Ref made(PyObject_Vectorcall(config.empty, arguments, 1, on_cuda ? names.dtype_device : names.dtype_only));
    View view;
    if (!made || !view_of(made.get(), &view) || view.device_type != like_view.device_type) {
        return Ref();
    }
    *data = view.data;
    return made;
}

bool note_written(PyObject *tensor) {
    const Ref list(PyList_New(1));
    if (!list) {
        return false;
    }
    Py_INCREF(tensor);
    PyList_SET_ITEM(list.get(), 0, tensor);
    const Ref done(PyObject_CallOneArg(config.increment_version, list.get()));
    return static_cast<bool>(done);
}

} // namespace robocache
