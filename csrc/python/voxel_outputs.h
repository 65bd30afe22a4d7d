// Which results a voxelize call asks for, and in which dtypes: the rules of robocache/_voxel_names.py for the plain
// cases.
#ifndef ROBOCACHE_PYTHON_VOXEL_OUTPUTS_H
#define ROBOCACHE_PYTHON_VOXEL_OUTPUTS_H

#include "voxel_read.h"

namespace robocache {

// The names of a call's reductions. Borrowed: `reduce` is the caller's own argument, and a list of it is copied.
struct ReduceNames {
    Ref held;
    PyObject *const *names = nullptr;
    PyObject *single = nullptr;
    size_t count = 0;
    bool several = false;
    bool featured = false; // one of them is of the features

    ReduceNames() = default;
    ReduceNames(const ReduceNames &) = delete;
    ReduceNames &operator=(const ReduceNames &) = delete;
};

// A name or several, each once, from number `least` on; adds their numbers to in.reduce. False where features that
// they need are not given.
bool read_reduce(PyObject *reduce, int64_t least, ReduceNames &to, VoxelInputs &in);

// Adds the dtype of each name to in.out_dtypes: what the caller asks for, or the usual one.
bool read_out_dtypes(PyObject *out_dtype, const ReduceNames &names, VoxelInputs &in);

} // namespace robocache

#endif // ROBOCACHE_PYTHON_VOXEL_OUTPUTS_H
