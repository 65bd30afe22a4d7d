// A call's points and grid in the kernels' terms.
#include "voxel_params.h"

namespace rc {

int64_t total_points(const rc_voxel_call& call) {
    if (call.depth != nullptr) {
        return call.batch * call.depth->num_cameras * call.depth->height * call.depth->width;
    }
    return call.cloud->row_splits != nullptr ? call.cloud->num_points : call.batch * call.cloud->num_points;
}

int64_t cells_of(const rc_voxel_grid& grid) {
    return grid.size[0] * grid.size[1] * grid.size[2];
}

namespace {

PointSource cloud_params(const rc_voxel_call& call, VoxelPoints* points) {
    const rc_point_cloud& cloud = *call.cloud;
    points->points = cloud.points;
    for (int d = 0; d < 3; ++d) {
        points->stride[d] = cloud.points_stride[d];
    }
    points->row_splits = cloud.row_splits;
    points->per_sample = cloud.num_points;
    points->dtype = cloud.dtype;
    if (cloud.dtype == RC_FLOAT64) {
        return PointSource::kCloud64;
    }
    const bool plain = cloud.dtype == RC_FLOAT32 && cloud.row_splits == nullptr && call.mask == nullptr &&
                       call.poses == nullptr && call.grid.voxel_sizes == nullptr && call.grid.grid_mins == nullptr &&
                       call.bounds != RC_BOUNDS_CLAMP && cloud.points_stride[2] == 1 && cloud.points_stride[1] == 3 &&
                       (call.batch == 1 || cloud.points_stride[0] == 3 * cloud.num_points);
    return plain ? PointSource::kPlain : PointSource::kCloud;
}

PointSource depth_params(const rc_depth_images& depth, VoxelPoints* points) {
    points->points = depth.depth;
    for (int d = 0; d < 3; ++d) {
        points->stride[d] = depth.depth_stride[d];
    }
    points->per_sample = depth.num_cameras * depth.height * depth.width;
    points->intrinsics = depth.intrinsics;
    points->intrinsics_stride[0] = depth.intrinsics_stride[0];
    points->intrinsics_stride[1] = depth.intrinsics_stride[1];
    points->depth_scale = static_cast<float>(depth.depth_scale);
    points->pixels = static_cast<uint32_t>(depth.height * depth.width);
    points->by_pixels = FastDivide::by(points->pixels > 0 ? points->pixels : 1);
    points->by_width = FastDivide::by(depth.width > 0 ? static_cast<uint32_t>(depth.width) : 1);
    points->dtype = depth.dtype;
    return PointSource::kDepth;
}

}  // namespace

PointSource voxel_params(const rc_voxel_call& call, rc_fault_report* note, VoxelParams* params) {
    *params = VoxelParams{};
    VoxelPoints& points = params->points;
    const PointSource source = call.depth != nullptr ? depth_params(*call.depth, &points) : cloud_params(call, &points);
    points.total = total_points(call);
    points.batch = call.batch;
    points.mask = call.mask;
    for (int d = 0; d < 3; ++d) {
        points.mask_stride[d] = call.mask_stride[d];
    }
    points.poses = call.poses;
    points.pose_stride[0] = call.poses_stride[0];
    points.pose_stride[1] = call.poses_stride[1];
    VoxelGridParams& grid = params->grid;
    for (int d = 0; d < 3; ++d) {
        grid.voxel[d] = call.grid.voxel_size[d];
        grid.min[d] = call.grid.grid_min[d];
        grid.size[d] = static_cast<int32_t>(call.grid.size[d]);
        grid.frame.voxel[d] = static_cast<float>(call.grid.voxel_size[d]);
        grid.frame.min[d] = static_cast<float>(call.grid.grid_min[d]);
        grid.frame.size[d] = static_cast<float>(call.grid.size[d]);
        grid.reciprocal[d] = safe_reciprocal(grid.frame.voxel[d]);
    }
    grid.voxel_sizes = call.grid.voxel_sizes;
    grid.grid_mins = call.grid.grid_mins;
    grid.voxel_sizes_stride = call.grid.voxel_sizes_stride;
    grid.grid_mins_stride = call.grid.grid_mins_stride;
    grid.bounds = call.bounds;
    grid.cells = cells_of(call.grid);
    params->dropped = reinterpret_cast<unsigned long long*>(call.dropped);
    params->inverse = call.inverse;
    params->note = note;
    return source;
}

}  // namespace rc
