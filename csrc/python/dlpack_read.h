// Reading torch tensors and streams through the DLPack exchange table.
#ifndef ROBOCACHE_PYTHON_DLPACK_READ_H
#define ROBOCACHE_PYTHON_DLPACK_READ_H

#include <Python.h>

#include <utility>
#include <vector>

#include "../doors/align_args.h"
#include "dlpack_abi.h"

namespace robocache {

// What robocache._fast hands over once (voxel_read.h has the rest); all references are kept for the life of the process.
struct Config {
    const dlpack::ExchangeApi *api = nullptr;
    rc_parallel_for_fn parallel_for = nullptr;
    PyTypeObject *tensor_type = nullptr;
    PyTypeObject *stream_type = nullptr;
    PyObject *empty = nullptr;
    PyObject *empty_strided = nullptr;
    PyObject *increment_version = nullptr;
    PyObject *grad_enabled = nullptr; // callable, no arguments
    PyObject *busy = nullptr;         // tuple of callables; one that returns neither 0, False nor None: not ours
    PyObject *dtypes = nullptr;       // tuple of torch dtypes by rc_dtype
    PyObject *kinds = nullptr;        // dict name -> number
    PyObject *extrapolate = nullptr;
    PyObject *invalid = nullptr;
    PyObject *flat_groups = nullptr; // callable (kind, columns) -> (begin, end, kind, ...)
};
extern Config config;

// Names and keyword tuples, made once.
struct Names {
    PyObject *requires_grad, *dtype, *device, *is_neg, *clamp_max_;
    PyObject *mean;                      // a reduction
    PyObject *automatic;                 // "auto", a backend
    PyObject *dtype_only, *dtype_device; // keywords of torch.empty
    PyObject *fields[11];                // of Stream
};
extern Names names;

// One owned reference.
class Ref {
public:
    Ref() = default;
    explicit Ref(PyObject *object) : object_(object) {}
    Ref(Ref &&other) noexcept : object_(other.object_) {
        other.object_ = nullptr;
    }
    Ref &operator=(Ref &&other) noexcept {
        std::swap(object_, other.object_);
        return *this;
    }
    Ref(const Ref &) = delete;
    Ref &operator=(const Ref &) = delete;
    ~Ref() {
        Py_XDECREF(object_);
    }
    PyObject *get() const {
        return object_;
    }
    PyObject *release() {
        PyObject *object = object_;
        object_ = nullptr;
        return object;
    }
    explicit operator bool() const {
        return object_ != nullptr;
    }

private:
    PyObject *object_ = nullptr;
};

// Keeps what describes a call; `kinds` has the groups of streams with several kinds.
struct Call {
    StreamArgs *streams; // the caller's, as many as it needs: clearing all 16 would cost more than reading one
    size_t count;
    std::vector<ColumnKind> kinds;
    View targets;
    AlignArgs args;
};

// No mode, transform or tracer stands between the caller and the kernels.
bool is_quiet();

bool is_tensor(PyObject *object);

// A plain tensor as a view; false when it is not one the kernels can read in place.
bool view_of(PyObject *object, View *view);

// ... None leaves `view` as it is.
bool optional_view(PyObject *object, View *view);

// ... of depth images, which alone may be uint16.
bool depth_view(PyObject *object, View *view);

// Floating tensors: neither asking for a gradient nor lazily negated.
bool is_plain_float(PyObject *object, const View &view, bool grad_enabled);

// `from` holds the fields of Stream in their order; false for a stream that is not plain.
bool read_stream(PyObject *const *from, size_t index, bool grad_enabled, Call &call);

// The number of a name; false for what is none.
bool choice_of(PyObject *object, PyObject *options, int64_t *number);

// None leaves `dtype` as it is; false for what is no torch dtype the kernels know.
bool out_dtype_of(PyObject *object, int32_t *dtype);

} // namespace robocache

#endif // ROBOCACHE_PYTHON_DLPACK_READ_H
