#include "voxel_outputs.h"

namespace robocache {

bool read_reduce(PyObject *reduce, int64_t least, ReduceNames &to, VoxelInputs &in) {
    if (PyUnicode_CheckExact(reduce)) {
        to.single = reduce;
        to.names = &to.single;
        to.count = 1;
    } else if (PyTuple_CheckExact(reduce) || PyList_CheckExact(reduce)) {
        to.held = Ref(PySequence_Tuple(reduce));
        if (!to.held) {
            return false;
        }
        to.names = PySequence_Fast_ITEMS(to.held.get());
        to.count = static_cast<size_t>(PyTuple_GET_SIZE(to.held.get()));
        to.several = true;
    }
    if (to.count == 0 || to.count + in.num_reduce > RC_MAX_VOXEL_OUTPUTS) {
        return false;
    }
    uint32_t seen = 0;
    for (size_t i = 0; i < to.count; ++i) {
        int64_t number = 0;
        if (!choice_of(to.names[i], voxel_config.reduces, &number) || number < least || (seen >> number & 1u)) {
            return false;
        }
        seen |= 1u << number;
        to.featured = to.featured || number > RC_REDUCE_COUNT;
        in.reduce[in.num_reduce++] = number;
    }
    return !to.featured || in.features.given();
}

static bool is_named(PyObject *object, const char *name) {
    return PyUnicode_CheckExact(object) && PyUnicode_CompareWithASCIIString(object, name) == 0;
}

// A torch dtype, or "bits".
static bool asked_dtype(PyObject *object, int32_t *dtype) {
    if (is_named(object, "bits")) {
        *dtype = RC_BITS;
        return true;
    }
    return object != Py_None && out_dtype_of(object, dtype);
}

static bool can_have(int64_t reduce, int32_t dtype) {
    if (reduce > RC_REDUCE_COUNT) {
        return is_floating(dtype);
    }
    return dtype != RC_BITS || reduce == RC_REDUCE_OCCUPANCY;
}

static int32_t usual_dtype(int64_t reduce, const View &features) {
    switch (reduce) {
    case RC_REDUCE_OCCUPANCY:
        return RC_BOOL;
    case RC_REDUCE_COUNT:
        return RC_INT32;
    default:
        return is_floating(features.dtype) ? features.dtype : static_cast<int32_t>(RC_FLOAT32);
    }
}

bool read_out_dtypes(PyObject *out_dtype, const ReduceNames &names, VoxelInputs &in) {
    const bool by_name = PyDict_CheckExact(out_dtype);
    int32_t shared = kNoDtype;
    if (out_dtype != Py_None && !by_name && !asked_dtype(out_dtype, &shared)) {
        return false;
    }
    Py_ssize_t found = 0;
    bool any = false;
    for (size_t i = 0; i < names.count; ++i) {
        const int64_t reduce = in.reduce[in.num_out_dtypes];
        int32_t dtype = shared;
        if (by_name) {
            PyObject *entry = PyDict_GetItemWithError(out_dtype, names.names[i]); // borrowed
            found += entry != nullptr;
            if (entry && entry != Py_None && (!asked_dtype(entry, &dtype) || !can_have(reduce, dtype))) {
                return false;
            }
        }
        const bool fits = dtype != kNoDtype && can_have(reduce, dtype);
        any = any || fits;
        in.out_dtypes[in.num_out_dtypes++] = fits ? dtype : usual_dtype(reduce, in.features);
    }
    return by_name ? found == PyDict_GET_SIZE(out_dtype) && !PyErr_Occurred() : any || shared == kNoDtype;
}

} // namespace robocache
