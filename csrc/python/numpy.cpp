// The NumPy door: arrays in, arrays out, no torch. Shapes, dtypes and options were checked in Python (robocache/_checks.py)
// and arrays come contiguous where the C API wants it; here they become a descriptor.
#include <string>
#include <vector>

#include "../doors/align_args.h"
#include "arrays.h"
#include "module.h"

namespace py = pybind11;

namespace robocache {

namespace {

// streams: tuples (values, times, value_dtype, lengths, row_splits, rows, row_offsets, kind, groups, extrapolate,
// invalid, max_gap, tolerance, time_offset) with groups a flat tuple (begin, end, kind, ...) or None.
void align(const py::sequence &streams, const py::object &targets, int32_t time_dtype, const py::object &out,
           int32_t out_dtype, const py::object &valid, int64_t threads) {
    std::vector<ArrayView> views;
    views.reserve(streams.size() * 6);
    std::vector<StreamArgs> args(streams.size());
    std::vector<ColumnKind> kinds;
    for (size_t s = 0; s < streams.size(); ++s) {
        const py::tuple from = streams[s];
        StreamArgs &to = args[s];
        const auto view = [&views](const py::object &object, int32_t dtype) -> const View & {
            views.emplace_back(object, dtype);
            return views.back();
        };
        to.values = view(from[0], from[2].cast<int32_t>());
        to.times = view(from[1], time_dtype);
        to.lengths = view(from[3], RC_INT64);
        to.row_splits = view(from[4], RC_INT64);
        to.rows = view(from[5], RC_INT64);
        to.row_offsets = view(from[6], time_dtype);
        to.kind = from[7].cast<int64_t>();
        if (!from[8].is_none()) {
            const py::tuple groups = from[8];
            for (size_t g = 0; g + 2 < groups.size(); g += 3) {
                kinds.push_back({static_cast<int64_t>(s), groups[g].cast<int64_t>(), groups[g + 1].cast<int64_t>(),
                                 groups[g + 2].cast<int64_t>()});
            }
        }
        to.extrapolate = from[9].cast<int64_t>();
        to.invalid = from[10].cast<int64_t>();
        to.max_gap = from[11].cast<double>();
        to.tolerance = from[12].cast<double>();
        to.time_offset = from[13].cast<double>();
    }
    const ArrayView target_view(targets, time_dtype);
    const ArrayView out_view(out, out_dtype);
    AlignArgs call;
    std::string error;
    const bool fused = !valid.is_none() && valid.cast<py::array>().ndim() == 3;
    AlignBuilder builder(call, fused, &error);
    if (!builder.build(args.data(), args.size(), target_view, kinds.data(), kinds.size(), out_dtype) ||
        !builder.set_out(out_view, target_view)) {
        throw py::value_error(error);
    }
    if (!valid.is_none()) {
        const ArrayView valid_view(valid, RC_BOOL);
        if (!builder.set_valid(valid_view, target_view)) {
            throw py::value_error(error);
        }
    }
    Threads pool{threads};
    call.call.parallel_for = pool.runner();
    call.call.pool = &pool;
    rc_status status;
    {
        const py::gil_scoped_release release;
        status = rc_align_cpu(&call.call);
    }
    if (status != RC_OK) {
        set_python_error(status);
        throw py::error_already_set();
    }
}

} // namespace

void add_numpy_door(py::module_ &m) {
    m.def("align_arrays", &align, py::arg("streams"), py::arg("targets"), py::arg("time_dtype"), py::arg("out"),
          py::arg("out_dtype"), py::arg("valid"), py::arg("threads"),
          "Aligns arrays into `out`; checked and prepared by robocache.numpy.");
}

} // namespace robocache
