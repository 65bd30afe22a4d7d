// Reading the arguments of boxed voxelize and devoxelize calls.
#ifndef ROBOCACHE_TORCH_VOXEL_STACK_H
#define ROBOCACHE_TORCH_VOXEL_STACK_H

#include "../doors/devoxelize_args.h"
#include "../doors/voxel_args.h"
#include "stack.h"

namespace robocache {

// Arguments of a voxelize call and the tensors behind its views. All slots are taken, whatever happens later.
struct VoxelTensors {
    Handle points, intrinsics, features, voxel_sizes, grid_mins, row_splits, mask, poses;
    VoxelInputs in;
};

constexpr size_t kNumVoxelizeArgs = 17; // before `out`
constexpr size_t kNumDepthArgs = 18;

// (points, features, reduce, ..., need_dropped)
void take_voxelize(StableIValue *stack, VoxelTensors &to);
// (depth, intrinsics, color, reduce, ..., need_dropped)
void take_depth(StableIValue *stack, VoxelTensors &to);
// (points, features, reduce, ..., need_inverse)
void take_sparse(StableIValue *stack, VoxelTensors &to);

struct DevoxelizeTensors {
    Handle values, points, voxel_sizes, grid_mins, row_splits, mask, poses;
    DevoxelizeInputs in;
};

constexpr size_t kNumDevoxelizeArgs = 12; // before out_dtype

// (grid, points, mode, ..., empty_value)
void take_devoxelize(StableIValue *stack, DevoxelizeTensors &to);

// `ScalarType dtype`, of a floating tensor.
int32_t take_floating_dtype(StableIValue slot, const char *name);

// Takes over `tensors`, which must hold `count` tensors.
StableIValue make_list(Handle *tensors, size_t count);

inline bool as_bool(StableIValue slot) {
    return (slot & 0xff) != 0;
}

inline void expect_device(const View &view, const char *name) {
    if (view.device_type != kCpu && view.device_type != kCuda) {
        raise_error(std::string(name) + ": expected a CPU or CUDA tensor");
    }
}

inline void expect_ok(rc_status status) {
    if (status != RC_OK) {
        raise_error(rc_last_error());
    }
}

inline Handle make(const Shape &shape, const View &like) {
    return empty(shape.sizes, shape.ndim, shape.dtype, like);
}

// Device of a CUDA call, threads of a CPU call that is not small.
template <typename Call>
void place(Call &call, const View &points, bool small) {
    if (points.device_type == kCuda) {
        call.device = points.device_index;
        call.cuda_stream = current_cuda_stream(points.device_index);
    } else {
        call.parallel_for = small ? nullptr : robocache_torch_parallel_for;
    }
}

} // namespace robocache

#endif // ROBOCACHE_TORCH_VOXEL_STACK_H
