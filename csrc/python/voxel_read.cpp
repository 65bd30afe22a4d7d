#include "voxel_read.h"

namespace robocache {

VoxelConfig voxel_config;

void configure_voxel_door(const pybind11::dict &needs) {
    const auto keep = [&](const char *name) { return pybind11::object(needs[name]).release().ptr(); };
    voxel_config.bounds = keep("bounds");
    voxel_config.layouts = keep("layouts");
    voxel_config.reduces = keep("reduces");
    voxel_config.orders = keep("orders");
    voxel_config.modes = keep("modes");
}

// ---- Batched forms --------------------------------------------------------------------------------------------------

bool Batched::take(const View &from, int32_t dims) {
    if (dims < 0 || dims > kMaxDims) {
        return false;
    }
    static_cast<View &>(*this) = from;
    sizes = sizes_;
    strides = strides_;
    ndim = dims;
    return true;
}

bool Batched::insert(const View &from, int32_t at, int32_t count) {
    if (at > from.ndim || !take(from, from.ndim + count)) {
        return false;
    }
    for (int32_t d = 0; d < from.ndim; ++d) {
        sizes_[d < at ? d : d + count] = from.sizes[d];
        strides_[d < at ? d : d + count] = from.strides[d];
    }
    for (int32_t d = at; d < at + count; ++d) {
        sizes_[d] = 1;
        strides_[d] = at < from.ndim ? from.sizes[at] * from.strides[at] : 1;
    }
    return true;
}

bool Batched::spread(const View &from, int32_t tail, const int64_t *lead, int32_t num_lead, int32_t front) {
    const int32_t given = from.ndim - tail;
    if (given < 0 || given > num_lead || !take(from, front + tail)) {
        return false;
    }
    for (int32_t d = 0; d < front; ++d) {
        sizes_[d] = 1;
        strides_[d] = 0;
    }
    for (int32_t d = 0; d < given; ++d) {
        const int32_t to = num_lead - given + d;
        if (from.sizes[d] != 1 && from.sizes[d] != lead[to]) {
            return false;
        }
        sizes_[to] = from.sizes[d];
        strides_[to] = from.strides[d];
    }
    for (int32_t d = 0; d < tail; ++d) {
        sizes_[front + d] = from.sizes[given + d];
        strides_[front + d] = from.strides[given + d];
    }
    return true;
}

void Batched::expand(int32_t d, int64_t size) {
    if (sizes_[d] == 1) {
        sizes_[d] = size;
        strides_[d] = size == 1 ? strides_[d] : 0;
    }
}

void Batched::shorten(int32_t d, int64_t size) {
    sizes_[d] = size;
}

void Batched::columns_last() {
    const int64_t size = sizes_[1], stride = strides_[1];
    for (int32_t d = 1; d < 4; ++d) {
        sizes_[d] = sizes_[d + 1];
        strides_[d] = strides_[d + 1];
    }
    sizes_[4] = size;
    strides_[4] = stride;
}

// ---- Tensors --------------------------------------------------------------------------------------------------------

// [..., 3, 4] or [..., 4, 4], whose last row is not read.
static bool read_pose(PyObject *pose, int32_t front, VoxelSource &to) {
    if (pose == Py_None) {
        return true;
    }
    View view;
    if (!view_of(pose, &view) || !is_plain_float(pose, view, false) || view.ndim < 2 ||
        view.sizes[view.ndim - 1] != 4 || (view.sizes[view.ndim - 2] != 3 && view.sizes[view.ndim - 2] != 4) ||
        !to.poses.spread(view, 2, to.lead, to.num_lead, front)) {
        return false;
    }
    to.poses.shorten(front, 3);
    return true;
}

// Puts dimensions of samples (and cameras) in front of what stands for each point or pixel.
static bool add_front(const View &from, bool images, const VoxelSource &source, Batched &to) {
    return images ? to.insert(from, source.num_lead, 2 - source.num_lead) : to.insert(from, 0, source.alone ? 1 : 0);
}

static bool read_mask(PyObject *mask, bool images, VoxelSource &to) {
    View view;
    return mask == Py_None || (view_of(mask, &view) && add_front(view, images, to, to.mask));
}

bool read_cloud(PyObject *points, PyObject *row_splits, PyObject *mask, PyObject *pose, bool grads, VoxelSource &to) {
    if (!view_of(points, &to.own) || !is_plain_float(points, to.own, grads) ||
        !optional_view(row_splits, &to.row_splits)) {
        return false;
    }
    const bool packed = to.row_splits.given();
    if (to.own.ndim != 2 && (packed || to.own.ndim != 3)) {
        return false;
    }
    if (packed && (to.row_splits.ndim != 1 || to.row_splits.sizes[0] < 1)) {
        return false;
    }
    to.alone = to.own.ndim == 2 && !packed;
    to.batch = packed ? to.row_splits.sizes[0] - 1 : to.alone ? 1 : to.own.sizes[0];
    to.num_lead = to.alone ? 0 : 1;
    to.lead[0] = to.batch;
    return add_front(to.own, false, to, to.points) && read_mask(mask, false, to) && read_pose(pose, 1, to);
}

bool read_images(PyObject *depth, PyObject *intrinsics, PyObject *camera_to_grid, PyObject *mask, VoxelSource &to) {
    View numbers;
    if (!depth_view(depth, &to.own) || !is_plain_float(depth, to.own, false) || to.own.ndim < 2 || to.own.ndim > 4 ||
        !view_of(intrinsics, &numbers) || !is_plain_float(intrinsics, numbers, false)) {
        return false;
    }
    to.num_lead = to.own.ndim - 2;
    to.alone = to.num_lead == 0;
    for (int32_t d = 0; d < to.num_lead; ++d) {
        to.lead[d] = to.own.sizes[d];
    }
    to.batch = to.alone ? 1 : to.lead[0];
    // [..., 3, 3] matrices are taken apart by the slow way.
    const bool matrices = numbers.ndim >= 2 && numbers.sizes[numbers.ndim - 2] == 3 &&
                          numbers.sizes[numbers.ndim - 1] == 3;
    if (matrices || !to.intrinsics.spread(numbers, 1, to.lead, to.num_lead, 2) ||
        !add_front(to.own, true, to, to.points)) {
        return false;
    }
    to.intrinsics.expand(0, to.points.sizes[0]);
    to.intrinsics.expand(1, to.points.sizes[1]);
    return read_mask(mask, true, to) && read_pose(camera_to_grid, 2, to);
}

bool read_features(PyObject *features, bool images, bool grads, VoxelSource &to) {
    View view;
    return features == Py_None || (view_of(features, &view) && is_plain_float(features, view, grads) &&
                                   add_front(view, images, to, to.features));
}

void describe(const VoxelSource &source, bool images, VoxelInputs &to) {
    to.images = images;
    to.points = source.points;
    to.intrinsics = source.intrinsics;
    to.features = source.features;
    to.row_splits = source.row_splits;
    to.mask = source.mask;
    to.poses = source.poses;
}

// ---- Numbers and names ----------------------------------------------------------------------------------------------

bool number_of(PyObject *object, double *number) {
    if (!PyFloat_CheckExact(object) && !PyLong_CheckExact(object)) {
        return false;
    }
    *number = PyFloat_AsDouble(object);
    return *number != -1.0 || !PyErr_Occurred();
}

bool whole_of(PyObject *object, int64_t *number) {
    if (!PyLong_CheckExact(object)) {
        return false;
    }
    *number = PyLong_AsLongLong(object);
    return *number != -1 || !PyErr_Occurred();
}

// The same for three axes, or one each.
template <typename Number>
static bool three_of(PyObject *object, bool (*one_of)(PyObject *, Number *), Number to[3]) {
    if (PyTuple_CheckExact(object) || PyList_CheckExact(object)) {
        PyObject **items = PySequence_Fast_ITEMS(object);
        return PySequence_Fast_GET_SIZE(object) == 3 && one_of(items[0], to) && one_of(items[1], to + 1) &&
               one_of(items[2], to + 2);
    }
    if (!one_of(object, to)) {
        return false;
    }
    to[1] = to[2] = to[0];
    return true;
}

// Numbers of all samples, or a tensor [3] or [B, 3] in what the points compute in.
static bool read_axes(PyObject *object, const VoxelSource &source, double numbers[3], Batched &table) {
    if (!is_tensor(object)) {
        return three_of(object, number_of, numbers);
    }
    View view;
    numbers[0] = numbers[1] = numbers[2] = 1.0;
    return view_of(object, &view) && is_plain_float(object, view, false) &&
           (view.ndim == 1 || (view.ndim == 2 && !source.alone && view.sizes[0] == source.batch)) &&
           table.insert(view, 0, 2 - view.ndim);
}

bool read_frame(PyObject *voxel_size, PyObject *grid_min, VoxelSource &source, GridArgs &to) {
    if (!read_axes(voxel_size, source, to.voxel_size, source.voxel_sizes) ||
        !read_axes(grid_min, source, to.grid_min, source.grid_mins)) {
        return false;
    }
    to.num_voxel_size = to.num_grid_min = 3;
    to.voxel_sizes = source.voxel_sizes;
    to.grid_mins = source.grid_mins;
    return true;
}

bool read_grid_size(PyObject *grid_size, GridArgs &to) {
    to.num_size = 3;
    return three_of(grid_size, whole_of, to.size);
}

bool bounds_of(PyObject *bounds, int64_t *number) {
    return choice_of(bounds, voxel_config.bounds, number);
}

bool is_optional_flag(PyObject *object) {
    return object == Py_None || PyBool_Check(object);
}

bool Room::takes(const Shape &shape) {
    double bytes = shape.dtype == RC_BITS ? 1.0 : static_cast<double>(rc_dtype_size(shape.dtype));
    for (int32_t d = 0; d < shape.ndim; ++d) {
        bytes *= static_cast<double>(shape.sizes[d]);
    }
    left_ -= bytes;
    return left_ >= 0.0;
}

} // namespace robocache
