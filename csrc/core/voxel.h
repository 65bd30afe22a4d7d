/* Points, depths and cells: the arithmetic behind voxelize and devoxelize, for C and CUDA.
 *
 * Everything here is IEEE addition, subtraction, multiplication, division and floor, each rounded on its own, so that
 * plain torch, C and CUDA give one index to one point. docs/semantics.md says it in words.
 */
#ifndef RC_CORE_VOXEL_H
#define RC_CORE_VOXEL_H

#include "portable.h"

/* Sums of features run in a fixed tree, so that they do not depend on the device or on the number of threads: of a
 * cell's points in the order of their index, each RC_SUM_BLOCK neighbours are added from left to right (the first is
 * taken as it is); the block sums are added in the same way, and so on until one number is left. A cell of up to
 * RC_SUM_BLOCK points has the plain sum from left to right. */
#define RC_SUM_BLOCK 128

#define RC_REAL float
#define RC_NAME(f) f##_f32
#define RC_FLOOR floorf
#include "voxel.inc.h"
#undef RC_REAL
#undef RC_NAME
#undef RC_FLOOR

#define RC_REAL double
#define RC_NAME(f) f##_f64
#define RC_FLOOR floor
#include "voxel.inc.h"
#undef RC_REAL
#undef RC_NAME
#undef RC_FLOOR

/* A pixel's point in its camera's frame. False: the depth is none (zero, negative, NaN, infinite). */
RC_INLINE bool rc_unproject(float depth, float depth_scale, const float intrinsics[4], float column, float row,
                            float p[3]) {
    const float z = depth * depth_scale;
    if (!(z > 0.0f) || !(z <= 3.40282346638528859811704183484516925e+38f)) {
        return false;
    }
    p[0] = ((column - intrinsics[2]) * z) / intrinsics[0];
    p[1] = ((row - intrinsics[3]) * z) / intrinsics[1];
    p[2] = z;
    return true;
}

#endif /* RC_CORE_VOXEL_H */
