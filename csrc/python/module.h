// What the parts of the extension share.
#ifndef ROBOCACHE_PYTHON_MODULE_H
#define ROBOCACHE_PYTHON_MODULE_H

#include <pybind11/pybind11.h>

#include "robocache.h"

namespace robocache {

// A new robocache.DataError; throws pybind11::error_already_set when it cannot be made.
PyObject *make_data_error(const rc_fault_report &report, const char *text);

// Sets the Python error for a status and this thread's last error: DataError, ValueError, MemoryError, RuntimeError.
void set_python_error(rc_status status);

void add_launch_parameters(pybind11::module_ &m);
void add_numpy_door(pybind11::module_ &m);
void add_voxel_numpy_door(pybind11::module_ &m);
void add_dlpack_door(pybind11::module_ &m);
void add_bound_door(pybind11::module_ &m);
void add_voxel_door(pybind11::module_ &m);
void add_voxel_rows_door(pybind11::module_ &m);
void add_graph_door(pybind11::module_ &m);

} // namespace robocache

#endif // ROBOCACHE_PYTHON_MODULE_H
