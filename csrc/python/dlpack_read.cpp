#include "dlpack_read.h"

namespace robocache {

Config config;
Names names;

bool is_tensor(PyObject *object) {
    return Py_TYPE(object) == config.tensor_type;
}

// 1: yes, 0: no, -1: error.
static int attribute_is_true(PyObject *object, PyObject *name) {
    const Ref value(PyObject_GetAttr(object, name));
    return value ? PyObject_IsTrue(value.get()) : -1;
}

bool is_quiet() {
    const Py_ssize_t count = PyTuple_GET_SIZE(config.busy);
    for (Py_ssize_t i = 0; i < count; ++i) {
        const Ref answer(PyObject_CallNoArgs(PyTuple_GET_ITEM(config.busy, i)));
        if (!answer || PyObject_IsTrue(answer.get()) != 0) {
            return false;
        }
    }
    return true;
}

static int32_t rc_dtype_of(dlpack::DataType type) {
    if (type.lanes != 1) {
        return kNoDtype;
    }
    switch (type.code) {
    case dlpack::kFloat:
        return type.bits == 32 ? RC_FLOAT32 : type.bits == 64 ? RC_FLOAT64 : type.bits == 16 ? RC_FLOAT16 : kNoDtype;
    case dlpack::kBfloat:
        return type.bits == 16 ? RC_BFLOAT16 : kNoDtype;
    case dlpack::kBool:
        return type.bits == 8 ? RC_BOOL : kNoDtype;
    case dlpack::kUInt:
        return type.bits == 8 ? RC_UINT8 : type.bits == 16 ? RC_UINT16 : kNoDtype;
    case dlpack::kInt:
        return type.bits == 64   ? RC_INT64
               : type.bits == 32 ? RC_INT32
               : type.bits == 16 ? RC_INT16
               : type.bits == 8  ? RC_INT8
                                 : kNoDtype;
    default:
        return kNoDtype;
    }
}

bool depth_view(PyObject *object, View *view) {
    if (!is_tensor(object)) {
        return false;
    }
    dlpack::Tensor tensor{};
    if (config.api->dltensor_from_py_object_no_sync(object, &tensor) != 0) {
        return false;
    }
    static const int64_t none[1] = {0};
    view->data = static_cast<char *>(tensor.data) + tensor.byte_offset;
    view->sizes = tensor.ndim > 0 ? tensor.shape : none;
    view->strides = tensor.ndim > 0 ? tensor.strides : none;
    view->ndim = tensor.ndim;
    view->dtype = rc_dtype_of(tensor.dtype);
    view->device_type = tensor.device.type;
    view->device_index = tensor.device.index;
    int64_t elements = 1;
    for (int32_t d = 0; d < tensor.ndim; ++d) {
        elements *= tensor.shape[d];
    }
    const bool here = tensor.device.type == kCpu || tensor.device.type == kCuda;
    return here && view->dtype != kNoDtype && view->strides && (tensor.data || elements == 0);
}

bool is_plain_float(PyObject *object, const View &view, bool grad_enabled) {
    if (!is_floating(view.dtype)) {
        return true;
    }
    if (grad_enabled && attribute_is_true(object, names.requires_grad) != 0) {
        return false;
    }
    const Ref negated(PyObject_CallMethodNoArgs(object, names.is_neg));
    return negated.get() == Py_False;
}

bool view_of(PyObject *object, View *view) {
    return depth_view(object, view) && view->dtype != RC_UINT16;
}

bool optional_view(PyObject *object, View *view) {
    return object == Py_None || view_of(object, view);
}

// A length of time: None, or a number of 0 or more.
static bool span_of(PyObject *object, double *span) {
    if (object == Py_None) {
        return true;
    }
    if (!PyFloat_CheckExact(object) && !PyLong_CheckExact(object)) {
        return false;
    }
    *span = PyFloat_AsDouble(object);
    return *span >= 0.0;
}

bool choice_of(PyObject *object, PyObject *options, int64_t *number) {
    if (!PyUnicode_CheckExact(object)) {
        return false;
    }
    PyObject *found = PyDict_GetItemWithError(options, object); // borrowed
    if (!found) {
        return false;
    }
    *number = PyLong_AsLongLong(found);
    return true;
}

bool read_stream(PyObject *const *from, size_t index, bool grad_enabled, Call &call) {
    StreamArgs &to = call.streams[index];
    if (!view_of(from[0], &to.values) || !is_plain_float(from[0], to.values, grad_enabled) ||
        !view_of(from[1], &to.times) || !is_plain_float(from[1], to.times, false)) {
        return false;
    }
    if (!choice_of(from[2], config.kinds, &to.kind)) {
        if (PyErr_Occurred() || PyUnicode_Check(from[2]) || to.values.ndim < 1) {
            return false;
        }
        const int64_t columns = to.values.sizes[to.values.ndim - 1];
        const Ref size(PyLong_FromLongLong(columns));
        const Ref groups(size ? PyObject_CallFunctionObjArgs(config.flat_groups, from[2], size.get(), nullptr)
                              : nullptr);
        if (!groups || !PyTuple_CheckExact(groups.get())) {
            return false;
        }
        for (Py_ssize_t g = 0; g + 2 < PyTuple_GET_SIZE(groups.get()); g += 3) {
            call.kinds.push_back({static_cast<int64_t>(index), PyLong_AsLongLong(PyTuple_GET_ITEM(groups.get(), g)),
                                  PyLong_AsLongLong(PyTuple_GET_ITEM(groups.get(), g + 1)),
                                  PyLong_AsLongLong(PyTuple_GET_ITEM(groups.get(), g + 2))});
        }
    }
    if (!optional_view(from[3], &to.lengths) || !optional_view(from[4], &to.row_splits) ||
        !optional_view(from[5], &to.rows) || !choice_of(from[6], config.extrapolate, &to.extrapolate) ||
        !span_of(from[7], &to.max_gap) || !span_of(from[8], &to.tolerance) ||
        !choice_of(from[9], config.invalid, &to.invalid)) {
        return false;
    }
    PyObject *offset = from[10];
    if (offset == Py_None) {
        return true;
    }
    if (PyFloat_CheckExact(offset) || PyLong_CheckExact(offset)) {
        to.time_offset = PyFloat_AsDouble(offset);
        return to.time_offset >= -9007199254740992.0 && to.time_offset <= 9007199254740992.0;
    }
    return view_of(offset, &to.row_offsets) && is_plain_float(offset, to.row_offsets, false);
}

bool out_dtype_of(PyObject *object, int32_t *dtype) {
    if (object == Py_None) {
        return true;
    }
    for (int32_t d = 0; d < RC_NUM_DTYPES; ++d) {
        if (PyTuple_GET_ITEM(config.dtypes, d) == object) {
            *dtype = d;
            return true;
        }
    }
    return false;
}

} // namespace robocache
