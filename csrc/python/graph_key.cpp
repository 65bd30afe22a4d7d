#include "graph_key.h"

#include <cstring>
#include <unordered_map>

#include "robocache.h"

namespace robocache::graphs {

const char *const kWhyNames[kNumWhy] = {"none",
                                        "cpu",
                                        "no tensor argument",
                                        "gradient",
                                        "vmap or functorch",
                                        "mode",
                                        "tracing",
                                        "subclass",
                                        "unhashable argument",
                                        "unsupported tensor",
                                        "several devices",
                                        "inside a capture",
                                        "arguments too deep",
                                        "not configured"};

KeyConfig key_config;

namespace {

constexpr int kMaxDepth = 32;

enum Tag : int64_t {
    kTagNone = 1,
    kTagFalse,
    kTagTrue,
    kTagInt,
    kTagFloat,
    kTagConstant,
    kTagTensor,
    kTagTuple,
    kTagList,
    kTagDict,
    kTagTupleType,
    kTagDataclass,
    kTagKeywords
};

// -1, 0, 1 as Python has it; errors count as "yes, something is there" and are cleared.
bool truth_of(PyObject *callable) {
    const Ref answer(PyObject_CallNoArgs(callable));
    const int truth = answer ? PyObject_IsTrue(answer.get()) : -1;
    if (truth < 0) {
        PyErr_Clear();
    }
    return truth != 0;
}

// The fields of a dataclass, or nullptr. An attribute that is missing costs microseconds to ask for, so the classes that
// have none are remembered; the references keep their addresses from being used again.
PyObject *dataclass_fields(PyTypeObject *type) {
    constexpr size_t kMost = 1024;
    static auto *plain = new std::unordered_map<PyTypeObject *, Ref>(); // never destroyed: Python may be gone by then
    if (plain->count(type) != 0) {
        return nullptr;
    }
    const Ref fields(PyObject_GetAttr(reinterpret_cast<PyObject *>(type), key_config.fields_name));
    if (fields && PyDict_CheckExact(fields.get())) {
        return fields.get();
    }
    PyErr_Clear();
    if (plain->size() >= kMost) {
        auto *full = plain; // dropping references may run Python, and with it this function
        plain = new std::unordered_map<PyTypeObject *, Ref>();
        delete full;
    }
    Py_INCREF(type);
    plain->emplace(type, Ref(reinterpret_cast<PyObject *>(type)));
    return nullptr;
}

class Reader {
public:
    Reader(Signature *signature, bool grad_enabled, int32_t device_type)
        : out_(*signature), grad_enabled_(grad_enabled), device_type_(device_type) {}

    Why visit(PyObject *object, int depth) {
        PyTypeObject *type = Py_TYPE(object);
        if (type == config.tensor_type || type == key_config.parameter) {
            return tensor(object);
        }
        if (object == Py_None) {
            return word(kTagNone);
        }
        if (object == Py_True || object == Py_False) {
            return word(object == Py_True ? kTagTrue : kTagFalse);
        }
        if (PyFloat_CheckExact(object)) {
            const double value = PyFloat_AS_DOUBLE(object);
            int64_t bits = 0;
            std::memcpy(&bits, &value, sizeof bits);
            out_.words.push_back(kTagFloat);
            return word(bits);
        }
        if (PyLong_CheckExact(object)) {
            int overflow = 0;
            const long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
            if (overflow == 0) {
                out_.words.push_back(kTagInt);
                return word(value);
            }
            return constant(object);
        }
        if (PyUnicode_CheckExact(object)) {
            return constant(object);
        }
        if (depth > kMaxDepth) {
            return Why::kTooDeep;
        }
        if (PyTuple_CheckExact(object)) {
            out_.words.push_back(kTagTuple);
            return tuple(object, depth);
        }
        if (PyList_CheckExact(object)) {
            // A list of our own: nobody shortens it meanwhile.
            const Ref copy(PyList_AsTuple(object));
            if (!copy) {
                return Why::kTooDeep;
            }
            out_.words.push_back(kTagList);
            return hold_and_visit_tuple(copy.get(), depth);
        }
        if (PyDict_CheckExact(object)) {
            out_.words.push_back(kTagDict);
            return dict(object, depth);
        }
        if (PyObject_TypeCheck(object, config.tensor_type)) {
            return Why::kSubclass;
        }
        if (PyTuple_Check(object)) { // a named tuple, torch.Size
            out_.words.push_back(kTagTupleType);
            const Why why = constant(reinterpret_cast<PyObject *>(type));
            return why != Why::kNone ? why : tuple(object, depth);
        }
        PyObject *fields = dataclass_fields(type); // borrowed from the class, which `object` keeps
        if (fields) {
            return dataclass(object, type, fields, depth);
        }
        return constant(object);
    }

    Why dict(PyObject *object, int depth) {
        const Ref items(PyDict_Items(object));
        if (!items) {
            return Why::kTooDeep;
        }
        const Py_ssize_t count = PyList_GET_SIZE(items.get());
        out_.words.push_back(count);
        for (Py_ssize_t i = 0; i < count; ++i) {
            PyObject *item = PyList_GET_ITEM(items.get(), i);
            Py_INCREF(item);
            out_.held.emplace_back(item); // keeps key and value
            Why why = constant(PyTuple_GET_ITEM(item, 0));
            if (why == Why::kNone) {
                why = visit(PyTuple_GET_ITEM(item, 1), depth + 1);
            }
            if (why != Why::kNone) {
                return why;
            }
        }
        return Why::kNone;
    }

    Why tuple(PyObject *object, int depth) {
        const Py_ssize_t count = PyTuple_GET_SIZE(object);
        out_.words.push_back(count);
        for (Py_ssize_t i = 0; i < count; ++i) {
            const Why why = visit(PyTuple_GET_ITEM(object, i), depth + 1);
            if (why != Why::kNone) {
                return why;
            }
        }
        return Why::kNone;
    }

    Why constant(PyObject *object) {
        const Py_hash_t hash = PyObject_Hash(object);
        if (hash == -1) {
            PyErr_Clear();
            return Why::kUnhashable;
        }
        out_.words.push_back(kTagConstant);
        out_.words.push_back(static_cast<int64_t>(hash));
        out_.constants.push_back(object);
        return Why::kNone;
    }

private:
    Why word(int64_t value) {
        out_.words.push_back(value);
        return Why::kNone;
    }

    Why hold_and_visit_tuple(PyObject *object, int depth) {
        Py_INCREF(object);
        out_.held.emplace_back(object);
        return tuple(object, depth);
    }

    Why dataclass(PyObject *object, PyTypeObject *type, PyObject *fields, int depth) {
        out_.words.push_back(kTagDataclass);
        Why why = constant(reinterpret_cast<PyObject *>(type));
        PyObject *name = nullptr;
        Py_ssize_t at = 0;
        while (why == Why::kNone && PyDict_Next(fields, &at, &name, nullptr)) {
            PyObject *value = PyObject_GetAttr(object, name);
            if (!value) {
                PyErr_Clear();
                return Why::kUnhashable;
            }
            out_.held.emplace_back(value);
            why = visit(value, depth + 1);
        }
        return why;
    }

    Why tensor(PyObject *object) {
        dlpack::Tensor view{};
        if (config.api->dltensor_from_py_object_no_sync(object, &view) != 0) {
            PyErr_Clear();
            return Why::kUnsupportedTensor; // sparse, quantized, lazily conjugated, on a device without memory
        }
        if (view.device.type != device_type_) {
            return view.device.type == kCpu ? Why::kCpu : Why::kUnsupportedTensor;
        }
        const bool real = view.dtype.code == dlpack::kFloat || view.dtype.code == dlpack::kBfloat;
        const bool exact = view.dtype.code == dlpack::kInt || view.dtype.code == dlpack::kUInt ||
                           view.dtype.code == dlpack::kBool;
        if ((!real && !exact) || view.dtype.lanes != 1 || view.dtype.bits % 8 != 0 || view.ndim > RC_MAX_COPY_DIMS ||
            (view.ndim > 0 && !view.strides)) {
            return Why::kUnsupportedTensor;
        }
        if (real) {
            if (grad_enabled_) {
                const Ref wanted(PyObject_GetAttr(object, names.requires_grad));
                if (wanted.get() != Py_False) {
                    PyErr_Clear();
                    return Why::kGradient;
                }
            }
            const Ref negated(PyObject_CallMethodNoArgs(object, names.is_neg));
            if (negated.get() != Py_False) {
                PyErr_Clear();
                return Why::kUnsupportedTensor;
            }
        }
        if (out_.device_index >= 0 && out_.device_index != view.device.index) {
            return Why::kSeveralDevices;
        }
        out_.device_index = view.device.index;
        Leaf leaf{object,     static_cast<char *>(view.data) + view.byte_offset,
                  view.shape, view.strides,
                  view.ndim,  view.dtype.bits / 8,
                  0};
        out_.words.push_back(kTagTensor);
        out_.words.push_back((static_cast<int64_t>(view.dtype.code) << 32) |
                             (static_cast<int64_t>(view.dtype.bits) << 16) | view.ndim);
        int64_t reach = 1;
        for (int32_t d = 0; d < view.ndim; ++d) {
            out_.words.push_back(view.shape[d]);
            // The stride of an axis of one element is nobody's business.
            out_.words.push_back(view.shape[d] > 1 ? view.strides[d] : 0);
            reach = view.shape[d] == 0 || reach == 0 ? 0 : reach + (view.shape[d] - 1) * view.strides[d];
        }
        leaf.span = reach * leaf.element_size;
        out_.tensors.push_back(leaf);
        return Why::kNone;
    }

    Signature &out_;
    bool grad_enabled_;
    int32_t device_type_;
};

uint64_t hash_of(const std::vector<int64_t> &words) {
    uint64_t h = 0x243f6a8885a308d3u; // digits of pi
    for (const int64_t word : words) {
        h = (h ^ static_cast<uint64_t>(word)) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    return h;
}

} // namespace

Why read_call(int64_t function, int32_t device_type, PyObject *args, PyObject *kwargs, Signature *signature) {
    if (!config.api || !key_config.flags) {
        return Why::kNotConfigured;
    }
    if (truth_of(key_config.functorch)) {
        return Why::kFunctorch;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(key_config.modes); ++i) {
        if (truth_of(PyTuple_GET_ITEM(key_config.modes, i))) {
            return Why::kMode;
        }
    }
    if (truth_of(key_config.tracing)) {
        return Why::kTracing;
    }
    signature->words.reserve(96);
    signature->tensors.reserve(8);
    signature->constants.reserve(16);
    signature->held.reserve(24);
    signature->words.push_back(function);
    const bool grad_enabled = truth_of(config.grad_enabled);
    Reader reader(signature, grad_enabled, device_type);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(key_config.flags); ++i) {
        PyObject *value = PyObject_CallNoArgs(PyTuple_GET_ITEM(key_config.flags, i));
        if (!value) {
            PyErr_Clear();
            signature->words.push_back(-1);
            continue;
        }
        signature->held.emplace_back(value);
        const Why why = reader.visit(value, 0);
        if (why != Why::kNone) {
            return why;
        }
    }
    Why why = reader.tuple(args, 0);
    if (why == Why::kNone && kwargs != Py_None) {
        signature->words.push_back(kTagKeywords);
        why = reader.dict(kwargs, 0);
    }
    if (why != Why::kNone) {
        return why;
    }
    if (signature->tensors.empty()) {
        return Why::kNoTensor;
    }
    signature->device_type = device_type;
    signature->words.push_back(signature->device_index);
    if (device_type == kCuda) {
        bool capturing = false;
        if (config.api->current_work_stream(kCuda, signature->device_index, &signature->stream) != 0 ||
            rc_cuda_is_capturing(signature->stream, &capturing) != RC_OK) {
            PyErr_Clear();
            return Why::kNotConfigured;
        }
        if (capturing) {
            return Why::kCapture;
        }
    }
    signature->hash = hash_of(signature->words);
    return Why::kNone;
}

bool same_constants(const std::vector<Ref> &a, const std::vector<PyObject *> &b) {
    if (a.size() != b.size()) {
        return false;
    }
    for (size_t i = 0; i < a.size(); ++i) {
        if (a[i].get() == b[i]) {
            continue;
        }
        if (Py_TYPE(a[i].get()) != Py_TYPE(b[i])) {
            return false;
        }
        const int same = PyObject_RichCompareBool(a[i].get(), b[i], Py_EQ);
        if (same != 1) {
            PyErr_Clear();
            return false;
        }
    }
    return true;
}

} // namespace robocache::graphs
