#include "voxel_stack.h"

namespace robocache {

namespace {

// The first `capacity` numbers of a list, and how many there are.
size_t take_ints(StableIValue slot, int64_t *to, size_t capacity) {
    const List list(slot);
    for (size_t i = 0; i < list.size() && i < capacity; ++i) {
        to[i] = as_int(list[i]);
    }
    return list.size();
}

size_t take_doubles(StableIValue slot, double *to, size_t capacity) {
    const List list(slot);
    for (size_t i = 0; i < list.size() && i < capacity; ++i) {
        to[i] = as_double(list[i]);
    }
    return list.size();
}

View optional_view(const Handle &tensor) {
    return tensor ? view_of(tensor.get()) : View();
}

// uint16 is a dtype of depth images alone.
View depth_view(const Handle &tensor) {
    View view = view_of(tensor.get());
    if (view.dtype == kNoDtype) {
        int32_t dtype = 0;
        check(aoti_torch_get_dtype(tensor.get(), &dtype), "reading a tensor's dtype");
        view.dtype = dtype == torch_dtype_of(RC_UINT16) ? static_cast<int32_t>(RC_UINT16) : kNoDtype;
    }
    return view;
}

// The view of a tensor whose last `count` dimensions lie side by side; strided ones are copied.
View dense_view(Handle &tensor, int32_t count) {
    const View view = optional_view(tensor);
    return contiguous_view(tensor, view, !view.given() || is_dense(view, count));
}

// Of images [.., H, W, ..] with H as dimension 2.
View image_view(Handle &tensor, const View &view) {
    const bool image = view.given() && view.ndim >= 4;
    View found = contiguous_view(tensor, view, !image || walks_pixels(view, 2));
    found.dtype = view.dtype; // of a copied uint16 image, too
    return found;
}

// grid_size, voxel_size, grid_min, voxel_sizes, grid_mins from slot 0 on.
void take_grid(StableIValue *stack, GridArgs &to, Handle &voxel_sizes, Handle &grid_mins) {
    voxel_sizes = take_optional_tensor(stack[3]);
    grid_mins = take_optional_tensor(stack[4]);
    to.num_size = take_ints(stack[0], to.size, 3);
    to.num_voxel_size = take_doubles(stack[1], to.voxel_size, 3);
    to.num_grid_min = take_doubles(stack[2], to.grid_min, 3);
}

// reduce, out_dtypes, grid_size, ... grid_mins from slot 0 on.
void take_outputs(StableIValue *stack, VoxelTensors &to) {
    take_grid(stack + 2, to.in.grid, to.voxel_sizes, to.grid_mins);
    to.in.num_reduce = take_ints(stack[0], to.in.reduce, RC_MAX_VOXEL_OUTPUTS);
    to.in.num_out_dtypes = take_ints(stack[1], to.in.out_dtypes, RC_MAX_VOXEL_OUTPUTS);
}

void fill_views(VoxelTensors &to) {
    VoxelInputs &in = to.in;
    if (in.images) {
        in.points = image_view(to.points, depth_view(to.points));
        in.intrinsics = dense_view(to.intrinsics, 1);
        in.features = image_view(to.features, optional_view(to.features));
        in.mask = image_view(to.mask, optional_view(to.mask));
    } else {
        in.points = view_of(to.points.get());
        in.features = optional_view(to.features);
        in.mask = optional_view(to.mask);
        in.row_splits = vector_view(to.row_splits);
    }
    in.poses = dense_view(to.poses, 2);
    in.grid.voxel_sizes = dense_view(to.voxel_sizes, 1);
    in.grid.grid_mins = dense_view(to.grid_mins, 1);
    expect_device(in.points, in.points_name());
}

// points, features, reduce, ..., poses: the first twelve arguments of voxelize and voxelize_sparse.
void take_points(StableIValue *stack, VoxelTensors &to) {
    to.points = Handle(from_stack(stack[0]));
    to.features = take_optional_tensor(stack[1]);
    to.row_splits = take_optional_tensor(stack[9]);
    to.mask = take_optional_tensor(stack[10]);
    to.poses = take_optional_tensor(stack[11]);
    take_outputs(stack + 2, to);
}

} // namespace

void take_voxelize(StableIValue *stack, VoxelTensors &to) {
    take_points(stack, to);
    to.in.bounds = as_int(stack[12]);
    to.in.channels_first = as_bool(stack[13]);
    to.in.empty_value = as_double(stack[14]);
    to.in.need_inverse = as_bool(stack[15]);
    to.in.need_dropped = as_bool(stack[16]);
    fill_views(to);
}

void take_depth(StableIValue *stack, VoxelTensors &to) {
    to.in.images = true;
    to.points = Handle(from_stack(stack[0]));
    to.intrinsics = Handle(from_stack(stack[1]));
    to.features = take_optional_tensor(stack[2]);
    to.mask = take_optional_tensor(stack[10]);
    to.poses = take_optional_tensor(stack[11]);
    take_outputs(stack + 3, to);
    to.in.depth_scale = as_double(stack[12]);
    to.in.bounds = as_int(stack[13]);
    to.in.channels_first = as_bool(stack[14]);
    to.in.empty_value = as_double(stack[15]);
    to.in.need_inverse = as_bool(stack[16]);
    to.in.need_dropped = as_bool(stack[17]);
    fill_views(to);
}

void take_sparse(StableIValue *stack, VoxelTensors &to) {
    take_points(stack, to);
    to.in.sparse = true;
    to.in.max_voxels = as_int(stack[12]);
    to.in.max_points = as_int(stack[13]);
    to.in.order = as_int(stack[14]);
    to.in.bounds = as_int(stack[15]);
    to.in.empty_value = as_double(stack[16]);
    to.in.need_inverse = as_bool(stack[17]);
    fill_views(to);
}

void take_devoxelize(StableIValue *stack, DevoxelizeTensors &to) {
    DevoxelizeInputs &in = to.in;
    to.values = Handle(from_stack(stack[0]));
    to.points = Handle(from_stack(stack[1]));
    to.voxel_sizes = take_optional_tensor(stack[5]);
    to.grid_mins = take_optional_tensor(stack[6]);
    to.row_splits = take_optional_tensor(stack[7]);
    to.mask = take_optional_tensor(stack[8]);
    to.poses = take_optional_tensor(stack[9]);
    in.mode = as_int(stack[2]);
    in.grid.num_voxel_size = take_doubles(stack[3], in.grid.voxel_size, 3);
    in.grid.num_grid_min = take_doubles(stack[4], in.grid.grid_min, 3);
    in.bounds = as_int(stack[10]);
    in.empty_value = as_double(stack[11]);
    in.values = view_of(to.values.get());
    in.points = view_of(to.points.get());
    in.row_splits = vector_view(to.row_splits);
    in.mask = optional_view(to.mask);
    in.poses = dense_view(to.poses, 2);
    in.grid.voxel_sizes = dense_view(to.voxel_sizes, 1);
    in.grid.grid_mins = dense_view(to.grid_mins, 1);
    expect_device(in.points, "points");
}

int32_t take_floating_dtype(StableIValue slot, const char *name) {
    const int32_t dtype = rc_dtype_of(static_cast<int32_t>(slot));
    if (dtype == kNoDtype || !is_floating(dtype)) {
        raise_error(std::string(name) + ": expected float16, bfloat16, float32 or float64");
    }
    return dtype;
}

StableIValue make_list(Handle *tensors, size_t count) {
    StableListHandle list = nullptr;
    check(torch_new_list_reserve_size(count, &list), "making a list");
    for (size_t i = 0; i < count; ++i) {
        if (torch_list_push_back(list, to_stack(tensors[i].get())) != AOTI_TORCH_SUCCESS) {
            torch_delete_list(list); // what it holds is still the tensors' own
            raise_torch_error("filling a list");
        }
    }
    for (size_t i = 0; i < count; ++i) {
        tensors[i].release();
    }
    return reinterpret_cast<StableIValue>(list);
}

} // namespace robocache
