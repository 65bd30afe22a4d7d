// What makes two calls of a function the same call to the graph cache, read from the arguments themselves.
//
// A signature is a list of words (structure, numbers, shapes, strides, dtypes, devices, mode flags) and the constants
// that no word can hold. Two calls are alike when their words are equal and their constants have equal types and values.
#ifndef ROBOCACHE_PYTHON_GRAPH_KEY_H
#define ROBOCACHE_PYTHON_GRAPH_KEY_H

#include <Python.h>

#include <cstdint>
#include <vector>

#include "dlpack_read.h"

namespace robocache::graphs {

// Why a call is left alone. The order is that of kWhyNames.
enum class Why : int32_t {
    kNone = 0,
    kCpu,
    kNoTensor,
    kGradient,
    kFunctorch,
    kMode,
    kTracing,
    kSubclass,
    kUnhashable,
    kUnsupportedTensor,
    kSeveralDevices,
    kCapture,
    kTooDeep,
    kNotConfigured
};
constexpr int kNumWhy = 14;
extern const char *const kWhyNames[kNumWhy];

struct Leaf {
    PyObject *object; // borrowed from the arguments, or from Signature::held
    char *data;
    const int64_t *sizes; // the tensor's own
    const int64_t *strides;
    int32_t ndim;
    int32_t element_size;
    int64_t span; // bytes from data to the end of its last element
};

struct Signature {
    std::vector<int64_t> words;
    std::vector<PyObject *> constants; // borrowed, or held
    std::vector<Leaf> tensors;
    std::vector<Ref> held; // values of flags and of dataclass fields
    uint64_t hash = 0;
    int32_t device_type = 0;
    int32_t device_index = -1;
    void *stream = nullptr;
};

// What robocache.graphs hands over once.
struct KeyConfig {
    PyObject *flags = nullptr;     // tuple of callables without arguments: the modes that kernels depend on
    PyObject *functorch = nullptr; // callables that return something true while their thing is active
    PyObject *modes = nullptr;     // tuple
    PyObject *tracing = nullptr;   // callable
    PyTypeObject *parameter = nullptr;
    PyObject *fields_name = nullptr; // "__dataclass_fields__"
    PyObject *is_conj = nullptr;
};
extern KeyConfig key_config;

// Reads a call; kNone, or why it is left alone. Leaves no Python error behind.
Why read_call(int64_t function, int32_t device_type, PyObject *args, PyObject *kwargs, Signature *signature);

// Same types and values; false, with the error cleared, where a comparison fails.
bool same_constants(const std::vector<Ref> &a, const std::vector<PyObject *> &b);

} // namespace robocache::graphs

#endif // ROBOCACHE_PYTHON_GRAPH_KEY_H
