#include "align_call.h"

#include "fast_call.h"
#include "module.h"

namespace robocache {

static rc_status launch(Call &call) {
    rc_align_call &c = call.args.call;
    rc_status status;
    Py_BEGIN_ALLOW_THREADS;
    status = call.targets.device_type == kCuda ? rc_align_cuda(&c) : rc_align_cpu(&c);
    Py_END_ALLOW_THREADS;
    return status;
}

PyObject *finish_align(Call &call, bool fused, PyObject *target_times, PyObject *return_valid, PyObject *out_dtype,
                       PyObject *out, PyObject *backend, bool grad_enabled) {
    int32_t dtype = kNoDtype;
    if (!out_dtype_of(out_dtype, &dtype) || !backend_fits(backend, call.targets) || !PyBool_Check(return_valid)) {
        return not_mine();
    }
    View out_view;
    if (out != Py_None) {
        if (!view_of(out, &out_view) || !is_plain_float(out, out_view, grad_enabled)) {
            return not_mine();
        }
        dtype = dtype == kNoDtype ? out_view.dtype : dtype;
    }
    AlignBuilder builder(call.args, fused, nullptr);
    if (!builder.build(call.streams, call.count, call.targets, call.kinds.data(), call.kinds.size(), dtype) ||
        (out != Py_None && !builder.set_out(out_view, call.targets))) {
        return not_mine();
    }
    rc_align_call &c = call.args.call;
    if (!place(c, call.targets, false)) {
        return not_mine();
    }
    Ref result;
    if (out == Py_None) {
        void *data = nullptr;
        result = empty(call.args.out_sizes, 3, c.out_dtype, target_times, call.targets, &data);
        if (!result) {
            return not_mine();
        }
        builder.set_contiguous_out(data);
    } else {
        Py_INCREF(out);
        result = Ref(out);
    }
    Ref valid;
    if (return_valid == Py_True) {
        const int64_t sizes[3] = {c.batch, c.num_targets, c.num_streams};
        void *data = nullptr;
        valid = empty(sizes, fused ? 3 : 2, RC_BOOL, target_times, call.targets, &data);
        if (!valid) {
            return not_mine();
        }
        c.valid = static_cast<uint8_t *>(data);
    }
    const rc_status status = launch(call);
    if (is_refusal(status)) {
        return not_mine();
    }
    if (status != RC_OK) {
        set_python_error(status);
        return nullptr;
    }
    if (out != Py_None && !note_written(out)) {
        return nullptr;
    }
    return valid ? PyTuple_Pack(2, result.get(), valid.get()) : result.release();
}

bool read_targets(PyObject *target_times, bool grad_enabled, View *targets) {
    return view_of(target_times, targets) && is_plain_float(target_times, *targets, grad_enabled);
}

bool read_streams(PyObject *items, bool grad_enabled, Call &call) {
    const Py_ssize_t count = PyList_GET_SIZE(items);
    if (count < 1 || count > RC_MAX_STREAMS) {
        return false;
    }
    call.count = static_cast<size_t>(count);
    for (size_t s = 0; s < call.count; ++s) {
        PyObject *stream = PyList_GET_ITEM(items, static_cast<Py_ssize_t>(s));
        if (Py_TYPE(stream) != config.stream_type) {
            return false;
        }
        // A stream's attributes live as long as the stream: it is frozen, and `items` holds it.
        Ref held[11];
        PyObject *fields[11];
        for (int f = 0; f < 11; ++f) {
            held[f] = Ref(PyObject_GetAttr(stream, names.fields[f]));
            fields[f] = held[f].get();
            if (!fields[f]) {
                return false;
            }
        }
        if (!read_stream(fields, s, grad_enabled, call)) {
            return false;
        }
    }
    return true;
}

} // namespace robocache
