/* Checks that the voxelize and the devoxelize calls share. */
#ifndef RC_COMMON_CHECK_VOXEL_H
#define RC_COMMON_CHECK_VOXEL_H

#include "common.h"

#define RC_MAX_VOXEL_GRADS 4 /* sum, mean, max, min */

rc_status rc_check_struct_size(uint32_t got, size_t expected, const char *name);

/* Also tells how many points there are together. */
rc_status rc_check_cloud(const rc_point_cloud *cloud, int64_t batch, int64_t *total);

/* `wide`: points compute in float64. */
rc_status rc_check_grid(const rc_voxel_grid *grid, int64_t batch, bool wide);

bool rc_reduce_needs_features(int32_t reduce);

#endif /* RC_COMMON_CHECK_VOXEL_H */
