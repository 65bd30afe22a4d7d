// The NumPy door of voxelize and devoxelize. Options were checked in Python, arrays come in the batched forms that the C
// API takes (robocache/_voxel_arrays.py); here they become a descriptor, by the builders of the torch door.
#include <deque>
#include <string>

#include "../doors/devoxelize_args.h"
#include "../doors/voxel_args.h"
#include "arrays.h"
#include "module.h"

namespace py = pybind11;

namespace robocache {

namespace {

// What a call was given, by name. An array stands beside its dtype's number as (array, dtype); what was not given is
// None or not there.
class Arguments {
public:
    explicit Arguments(const py::dict &from) : from_(from) {}

    py::object operator[](const char *name) const {
        return from_[name];
    }
    template <typename T>
    T number(const char *name) const {
        return py::object(from_[name]).cast<T>();
    }
    bool given(const char *name) const {
        return from_.contains(name) && !py::object(from_[name]).is_none();
    }
    bool flag(const char *name) const {
        return given(name) && number<bool>(name);
    }
    // The view's sizes and strides live as long as this object.
    View view(const char *name) {
        if (!given(name)) {
            return View();
        }
        const py::tuple pair = from_[name];
        return keep(pair[0], pair[1].cast<int32_t>());
    }
    View keep(const py::object &array, int32_t dtype) {
        return views_.emplace_back(array, dtype);
    }
    // Where a result of `form` goes: an array of just that shape, or NULL where it was not asked for.
    void *result(const char *name, const Shape &form) {
        const View view = this->view(name);
        bool right = !view.given() || (view.ndim == form.ndim && view.dtype == form.dtype && is_dense(view, view.ndim));
        for (int32_t d = 0; right && d < view.ndim; ++d) {
            right = view.sizes[d] == form.sizes[d];
        }
        if (!right) {
            throw py::value_error(std::string(name) + ": expected a contiguous array " +
                                  Checks::shape(form.sizes, form.ndim) + " of " + dtype_name(form.dtype));
        }
        return view.data;
    }

private:
    const py::dict &from_;
    std::deque<ArrayView> views_;
};

void read_grid(const Arguments &from, GridArgs &to) {
    const py::tuple voxel = from["voxel_size"], low = from["grid_min"];
    for (size_t axis = 0; axis < 3; ++axis) {
        to.voxel_size[axis] = voxel[axis].cast<double>();
        to.grid_min[axis] = low[axis].cast<double>();
    }
    to.num_voxel_size = voxel.size();
    to.num_grid_min = low.size();
}

void read_inputs(Arguments &from, VoxelInputs &to) {
    to.images = from.given("depth");
    to.points = from.view(to.images ? "depth" : "points");
    to.intrinsics = from.view("intrinsics");
    to.features = from.view("features");
    to.row_splits = from.view("row_splits");
    to.mask = from.view("mask");
    to.poses = from.view("poses");
    read_grid(from, to.grid);
    const py::tuple size = from["grid_size"];
    for (size_t axis = 0; axis < 3; ++axis) {
        to.grid.size[axis] = size[axis].cast<int64_t>();
    }
    to.grid.num_size = size.size();
    to.grid.voxel_sizes = from.view("voxel_sizes");
    to.grid.grid_mins = from.view("grid_mins");
    to.depth_scale = to.images ? from.number<double>("depth_scale") : 1.0;
    to.empty_value = from.number<double>("empty_value");
    to.bounds = from.number<int64_t>("bounds");
    to.channels_first = from.flag("channels_first");
}

[[noreturn]] void refuse(const std::string &error) {
    throw py::value_error(error);
}

// The outputs, tuples (reduce, array, dtype): their numbers, the descriptor, and where they go.
void describe(Arguments &from, VoxelInputs &in, VoxelArgs &args, Threads &pool) {
    const py::list outputs = from["outputs"];
    if (outputs.size() > RC_MAX_VOXEL_OUTPUTS) {
        refuse("outputs: expected at most " + std::to_string(RC_MAX_VOXEL_OUTPUTS));
    }
    for (size_t o = 0; o < outputs.size(); ++o) {
        const py::tuple output = outputs[o];
        in.reduce[o] = output[0].cast<int64_t>();
        in.out_dtypes[o] = output[2].cast<int64_t>();
    }
    in.num_reduce = in.num_out_dtypes = outputs.size();
    std::string error;
    VoxelBuilder builder(args, &error);
    if (!builder.build(in)) {
        refuse(error);
    }
    for (size_t o = 0; o < outputs.size(); ++o) {
        const py::tuple output = outputs[o];
        const auto dtype = output[2].cast<int32_t>();
        const View view = from.keep(output[1], dtype == RC_BITS ? static_cast<int32_t>(RC_UINT8) : dtype);
        if (!builder.set_out(o, view, in.points, in.points_name())) {
            refuse(error);
        }
    }
    args.call.accumulate = from.flag("accumulate");
    args.call.inverse = static_cast<int64_t *>(from.result("inverse", args.inverse));
    args.call.dropped = static_cast<int64_t *>(from.result("dropped", args.dropped));
    args.call.parallel_for = pool.runner();
    args.call.pool = &pool;
}

void finish(rc_status status) {
    if (status != RC_OK) {
        set_python_error(status);
        throw py::error_already_set();
    }
}

void voxelize(const py::dict &arguments, int64_t threads) {
    Arguments from(arguments);
    Threads pool{threads};
    VoxelInputs in;
    VoxelArgs args;
    read_inputs(from, in);
    describe(from, in, args, pool);
    rc_status status;
    {
        const py::gil_scoped_release release;
        status = rc_voxelize_cpu(&args.call);
    }
    finish(status);
}

void voxelize_sparse(const py::dict &arguments, int64_t threads) {
    Arguments from(arguments);
    Threads pool{threads};
    VoxelInputs in;
    VoxelArgs args;
    read_inputs(from, in);
    in.sparse = true;
    in.max_voxels = from.number<int64_t>("max_voxels");
    in.max_points = from.number<int64_t>("max_points");
    in.order = from.number<int64_t>("order");
    describe(from, in, args, pool);
    rc_sparse_call &call = args.sparse;
    call.coords = static_cast<int32_t *>(from.result("coords", args.coords));
    call.num_voxels = static_cast<int64_t *>(from.result("num_voxels", args.num_voxels));
    if (in.max_points > 0) {
        args.gathered.dtype = call.gathered_dtype = from.view("gathered").dtype;
        call.gathered = from.result("gathered", args.gathered);
    }
    rc_status status;
    {
        const py::gil_scoped_release release;
        status = rc_voxelize_sparse_cpu(&call);
    }
    finish(status);
}

void devoxelize(const py::dict &arguments, int64_t threads) {
    Arguments from(arguments);
    Threads pool{threads};
    DevoxelizeInputs in;
    DevoxelizeArgs args;
    in.values = from.view("values");
    in.points = from.view("points");
    in.row_splits = from.view("row_splits");
    in.mask = from.view("mask");
    in.poses = from.view("poses");
    read_grid(from, in.grid);
    in.grid.voxel_sizes = from.view("voxel_sizes");
    in.grid.grid_mins = from.view("grid_mins");
    in.mode = from.number<int64_t>("mode");
    in.bounds = from.number<int64_t>("bounds");
    in.empty_value = from.number<double>("empty_value");
    in.out_dtype = from.view("out").dtype;
    std::string error;
    DevoxelizeBuilder builder(args, &error);
    if (!builder.build(in)) {
        refuse(error);
    }
    rc_devoxelize_call &call = args.call;
    call.out = from.result("out", args.out);
    call.parallel_for = pool.runner();
    call.pool = &pool;
    rc_status status;
    {
        const py::gil_scoped_release release;
        status = rc_devoxelize_cpu(&call);
    }
    finish(status);
}

} // namespace

void add_voxel_numpy_door(py::module_ &m) {
    m.def("voxelize_arrays", &voxelize, py::arg("arguments"), py::arg("threads"),
          "Voxelizes arrays into dense outputs; checked and prepared by robocache.numpy.");
    m.def("voxelize_sparse_arrays", &voxelize_sparse, py::arg("arguments"), py::arg("threads"),
          "Voxelizes arrays into sparse outputs; checked and prepared by robocache.numpy.");
    m.def("devoxelize_arrays", &devoxelize, py::arg("arguments"), py::arg("threads"),
          "Reads a grid at points; checked and prepared by robocache.numpy.");
}

} // namespace robocache
