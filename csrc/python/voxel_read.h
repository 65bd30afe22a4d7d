// Reading the arguments of the voxel functions on the fast path: tensors into the batched forms that the C API takes,
// numbers and names into the enums of robocache.h. Each function is false for what is not plain.
#ifndef ROBOCACHE_PYTHON_VOXEL_READ_H
#define ROBOCACHE_PYTHON_VOXEL_READ_H

#include <pybind11/pybind11.h>

#include "../doors/devoxelize_args.h"
#include "../doors/voxel_args.h"
#include "fast_call.h"

namespace robocache {

// What robocache._fast hands over: dicts of names and their numbers, kept for the life of the process.
struct VoxelConfig {
    PyObject *bounds = nullptr;
    PyObject *layouts = nullptr;
    PyObject *reduces = nullptr;
    PyObject *orders = nullptr;
    PyObject *modes = nullptr;
};
extern VoxelConfig voxel_config;

void configure_voxel_door(const pybind11::dict &needs);

// A view in another shape than its tensor's, with sizes and strides of its own.
class Batched : public View {
public:
    Batched() = default;
    Batched(const Batched &) = delete;
    Batched &operator=(const Batched &) = delete;

    // `from` with `count` dimensions of size 1 put before dimension `at`.
    bool insert(const View &from, int32_t at, int32_t count);

    // Numbers of samples (and cameras), [..., tail] in front of `tail` dimensions, as [1 or lead, ..., tail] with
    // `front` dimensions in front. False where those of `from` do not spread to `lead`.
    bool spread(const View &from, int32_t tail, const int64_t *lead, int32_t num_lead, int32_t front);

    // Dimension `d`, of size 1, read `size` times.
    void expand(int32_t d, int64_t size);

    // The first `size` of dimension `d`.
    void shorten(int32_t d, int64_t size);

    // [C, X, Y, Z] behind the sample as [X, Y, Z, C].
    void columns_last();

private:
    static constexpr int32_t kMaxDims = 6;
    int64_t sizes_[kMaxDims] = {};
    int64_t strides_[kMaxDims] = {};

    bool take(const View &from, int32_t dims);
};

// Where a call's points come from, and what of it must live as long as the call.
struct VoxelSource {
    View own;             // points or depth as the caller has them
    bool alone = false;   // results have no batch dimension
    int64_t lead[2] = {}; // sizes in front of the points or images: samples and cameras, `num_lead` of them
    int32_t num_lead = 0;
    int64_t batch = 0;
    Batched points, intrinsics, features, mask, poses, voxel_sizes, grid_mins;
    View row_splits;
};

// Points [N, 3], [B, N, 3], or packed beside row_splits; `grads`: a gradient may be wanted of them.
bool read_cloud(PyObject *points, PyObject *row_splits, PyObject *mask, PyObject *pose, bool grads, VoxelSource &to);

bool read_images(PyObject *depth, PyObject *intrinsics, PyObject *camera_to_grid, PyObject *mask, VoxelSource &to);

// What the points carry, or None; `grads`: a gradient may be wanted.
bool read_features(PyObject *features, bool images, bool grads, VoxelSource &to);

// Sizes and corners of cells: numbers, three, or a tensor.
bool read_frame(PyObject *voxel_size, PyObject *grid_min, VoxelSource &source, GridArgs &to);

bool read_grid_size(PyObject *grid_size, GridArgs &to);

// Copies what a source says into a call's arguments.
void describe(const VoxelSource &source, bool images, VoxelInputs &to);

// A float or an int, not of a class derived from them.
bool number_of(PyObject *object, double *number);

// An int, not of a class derived from it.
bool whole_of(PyObject *object, int64_t *number);

bool bounds_of(PyObject *bounds, int64_t *number);

// None, True or False.
bool is_optional_flag(PyObject *object);

// The sizes of a result without its batch where points came without one.
struct OwnShape {
    const int64_t *sizes;
    int32_t ndim;

    OwnShape(const Shape &shape, bool alone) : sizes(shape.sizes + alone), ndim(shape.ndim - alone) {}
};

// Whether results of these shapes are so small that no device need be asked for its memory: the slow way asks.
class Room {
public:
    bool takes(const Shape &shape);

private:
    double left_ = 1024.0 * 1024.0 * 1024.0;
};

// Workspace of a CUDA call, from torch's allocator. Freed while kernels may still use it: torch gives it to later work
// of the same stream. False where it cannot be had.
template <typename Descriptor>
bool take_workspace(const Descriptor &asking, rc_status (*size_of)(const Descriptor *, size_t *), rc_voxel_call &call,
                    PyObject *like, const View &like_view, Ref &held) {
    size_t bytes = 0;
    if (size_of(&asking, &bytes) != RC_OK) {
        return false;
    }
    if (bytes == 0) {
        return true;
    }
    const int64_t sizes[1] = {static_cast<int64_t>(bytes)};
    held = empty(sizes, 1, RC_UINT8, like, like_view, &call.workspace);
    call.workspace_size = bytes;
    return static_cast<bool>(held);
}

} // namespace robocache

#endif // ROBOCACHE_PYTHON_VOXEL_READ_H
