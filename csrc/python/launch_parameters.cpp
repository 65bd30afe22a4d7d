// Launch parameters of the CUDA kernels, for the tuner: what there is, what is chosen, and how to force a value.
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <vector>

#include "module.h"

namespace py = pybind11;

namespace robocache {

namespace {

constexpr const char *shape_classes[RC_NUM_SHAPE_CLASSES] = {"small", "medium", "large"};

void check(rc_status status) {
    if (status != RC_OK) {
        set_python_error(status);
        throw py::error_already_set();
    }
}

int32_t find_parameter(const std::string &name) {
    const int32_t found = rc_find_launch_parameter(name.c_str());
    if (found < 0) {
        std::string known;
        for (int32_t p = 0; p < rc_launch_parameter_count(); ++p) {
            rc_launch_parameter about{};
            check(rc_describe_launch_parameter(p, &about));
            known += (p > 0 ? ", " : "") + std::string(about.name);
        }
        throw py::value_error("name: expected one of " + known + ", got '" + name + "'");
    }
    return found;
}

int32_t find_shape_class(const std::string &name) {
    for (int32_t c = 0; c < RC_NUM_SHAPE_CLASSES; ++c) {
        if (name == shape_classes[c]) {
            return c;
        }
    }
    throw py::value_error("shape_class: expected small, medium or large, got '" + name + "'");
}

py::list launch_parameters() {
    py::list all;
    for (int32_t p = 0; p < rc_launch_parameter_count(); ++p) {
        rc_launch_parameter about{};
        check(rc_describe_launch_parameter(p, &about));
        py::dict entry;
        entry["name"] = about.name;
        entry["work"] = about.work;
        entry["values"] = std::vector<int32_t>(about.values, about.values + about.num_values);
        entry["default"] = about.default_value;
        all.append(std::move(entry));
    }
    return all;
}

// {"small": 262144, "medium": 4194304, "large": None}: where each class ends.
py::dict shape_class_ends() {
    py::dict ends;
    for (int32_t c = 0; c < RC_NUM_SHAPE_CLASSES; ++c) {
        const int64_t end = rc_shape_class_end(c);
        ends[shape_classes[c]] = end == INT64_MAX ? py::object(py::none()) : py::object(py::int_(end));
    }
    return ends;
}

int32_t launch_parameter(const std::string &name, const std::string &shape_class, int32_t arch) {
    int32_t value = 0;
    check(rc_get_launch_parameter(find_parameter(name), arch, find_shape_class(shape_class), &value));
    return value;
}

void set_launch_parameter(const std::string &name, const std::string &shape_class, std::optional<int32_t> value) {
    const int32_t parameter = find_parameter(name);
    if (value == 0) {
        throw py::value_error(name + ": expected one of its values or None, got 0");
    }
    check(rc_set_launch_parameter(parameter, find_shape_class(shape_class), value.value_or(0)));
}

} // namespace

void add_launch_parameters(py::module_ &m) {
    m.def("launch_parameters", &launch_parameters,
          "Launch parameters of the CUDA kernels: a list of {name, work, values, default}.");
    m.def("shape_class_ends", &shape_class_ends, "The work at which each shape class ends; None for the last.");
    m.def("launch_parameter", &launch_parameter, py::arg("name"), py::arg("shape_class"), py::arg("arch"),
          "What a launch takes on compute capability `arch` (90: 9.0) in a shape class.");
    m.def("set_launch_parameter", &set_launch_parameter, py::arg("name"), py::arg("shape_class"), py::arg("value"),
          "Forces one of a parameter's values in a shape class, for measurement; None gives it back to the table.");
    m.def("reset_launch_parameters", &rc_reset_launch_parameters, "Gives every choice back to the table.");
}

} // namespace robocache
