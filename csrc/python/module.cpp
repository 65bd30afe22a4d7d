// robocache._native: the pybind11 extension. Knows no torch: the NumPy door, the DLPack fast path, and what the library
// tells about itself.
#include "module.h"

#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace robocache {

PyObject *make_data_error(const rc_fault_report &report, const char *text) {
    const py::object make = py::module_::import("robocache._errors").attr("data_error");
    return make(text, report.fault, report.stream, report.row, report.position).release().ptr();
}

void set_python_error(rc_status status) {
    const std::string text = rc_last_error();
    switch (status) {
    case RC_BAD_DATA: {
        rc_fault_report report{};
        rc_last_fault(&report);
        try {
            const py::object error = py::reinterpret_steal<py::object>(make_data_error(report, text.c_str()));
            PyErr_SetObject(reinterpret_cast<PyObject *>(Py_TYPE(error.ptr())), error.ptr());
        } catch (py::error_already_set &error) {
            error.restore();
        }
        return;
    }
    case RC_INVALID_ARGUMENT:
    case RC_UNSUPPORTED:
        PyErr_SetString(PyExc_ValueError, text.c_str());
        return;
    case RC_OUT_OF_MEMORY:
        PyErr_SetString(PyExc_MemoryError, text.c_str());
        return;
    default:
        PyErr_SetString(PyExc_RuntimeError, text.c_str());
    }
}

namespace {

py::dict launch_counts() {
    py::dict counts;
    for (int32_t kernel = 0; kernel < RC_NUM_KERNELS; ++kernel) {
        counts[rc_kernel_name(kernel)] = rc_launch_count(kernel);
    }
    return counts;
}

// (fault, stream, row, position, sentence) of this thread's last error; fault is 0 when it was no data fault.
py::tuple last_fault() {
    rc_fault_report report{};
    rc_last_fault(&report);
    return py::make_tuple(report.fault, report.stream, report.row, report.position, rc_last_error());
}

// Waits for the device; raises its first fault as DataError.
void check_device(int32_t device) {
    rc_fault_report report{};
    rc_status status;
    {
        const py::gil_scoped_release release;
        status = rc_cuda_take_fault(device, &report);
    }
    if (status != RC_OK) {
        set_python_error(status);
        throw py::error_already_set();
    }
    if (report.fault != RC_FAULT_NONE) {
        char text[512];
        rc_describe_fault(&report, text, sizeof text);
        const py::object error = py::reinterpret_steal<py::object>(make_data_error(report, text));
        PyErr_SetObject(reinterpret_cast<PyObject *>(Py_TYPE(error.ptr())), error.ptr());
        throw py::error_already_set();
    }
}

void set_cpu_isa(const py::object &isa) {
    const std::string name = isa.is_none() ? std::string() : isa.cast<std::string>();
    const rc_status status = rc_set_cpu_isa(isa.is_none() ? nullptr : name.c_str());
    if (status != RC_OK) {
        set_python_error(status);
        throw py::error_already_set();
    }
}

} // namespace

} // namespace robocache

PYBIND11_MODULE(_native, m) {
    using namespace robocache;
    m.doc() = "The native library behind robocache, for NumPy arrays and for torch tensors by DLPack.";
    m.def("version", &rc_version, "Version of the library.");
    m.def("launch_counts", &launch_counts, "How often each kernel ran.");
    m.def("reset_launch_counts", &rc_reset_launch_counts, "Sets all launch counts to 0.");
    m.def("last_fault", &last_fault, "(fault, stream, row, position, sentence) of this thread's last error.");
    m.def("check_device", &check_device, py::arg("device"), "Waits for a CUDA device and raises its first data fault.");
    m.def("cuda_available", &rc_cuda_available, "True where CUDA kernels can run.");
    m.def("cuda_why_not", &rc_cuda_why_not, "Why CUDA kernels cannot run; empty where they can.");
    m.def("cuda_archs", &rc_cuda_archs, "CUDA targets in this build.");
    m.def("cpu_isa", &rc_cpu_isa, "Vector instructions in use.");
    m.def("set_cpu_isa", &set_cpu_isa, py::arg("isa"), "Forces vector instructions by name; None chooses anew.");
    add_launch_parameters(m);
    add_numpy_door(m);
    add_voxel_numpy_door(m);
    add_dlpack_door(m);
    add_bound_door(m);
    add_voxel_door(m);
    add_voxel_rows_door(m);
    add_graph_door(m);
}
