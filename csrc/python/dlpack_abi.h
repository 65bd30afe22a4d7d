// The part of the DLPack 1.x ABI that the fast path speaks, in declarations of our own: the layout of a tensor's
// description and of the function table behind `torch.Tensor.__dlpack_c_exchange_api__`
// (https://dmlc.github.io/dlpack/latest/c_api.html). Only what the table must have for its offsets is spelled out.
#ifndef ROBOCACHE_PYTHON_DLPACK_ABI_H
#define ROBOCACHE_PYTHON_DLPACK_ABI_H

#include <cstdint>

namespace robocache::dlpack {

constexpr uint32_t kMajorVersion = 1;
constexpr const char *kCapsuleName = "dlpack_exchange_api";

struct Version {
    uint32_t major;
    uint32_t minor;
};

struct Device {
    int32_t type; // 1: CPU, 2: CUDA
    int32_t index;
};

enum TypeCode : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kBool = 6 };

struct DataType {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
};

// Strides count elements. Shape and strides belong to the exporting tensor.
struct Tensor {
    void *data;
    Device device;
    int32_t ndim;
    DataType dtype;
    int64_t *shape;
    int64_t *strides;
    uint64_t byte_offset;
};

struct ExchangeHeader {
    Version version;
    ExchangeHeader *previous;
};

struct ExchangeApi {
    ExchangeHeader header;
    void *managed_tensor_allocator;              // not used: a tensor it makes is foreign to torch's allocator, and
                                                 // Tensor.record_stream does nothing for it
    void *managed_tensor_from_py_object_no_sync; // not used
    void *managed_tensor_to_py_object_no_sync;   // not used
    int (*dltensor_from_py_object_no_sync)(void *py_object, Tensor *out);
    int (*current_work_stream)(int32_t device_type, int32_t device_index, void **out);
};

} // namespace robocache::dlpack

#endif // ROBOCACHE_PYTHON_DLPACK_ABI_H
