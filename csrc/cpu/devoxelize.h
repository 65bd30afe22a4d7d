/* Where a point reads a grid: what both directions of devoxelize share. */
#ifndef RC_CPU_DEVOXELIZE_H
#define RC_CPU_DEVOXELIZE_H

#include "rows.h"
#include "voxel_points.h"

#include <stdlib.h>

#define RC_DEVOXELIZE_COLUMNS 64 /* worked on together */

/* Cells and, for trilinear, weights of a tile of points. */
typedef struct rc_read_tile {
    rc_point_tile points;
    union {
        int32_t i32[RC_POINT_TILE];
        int64_t i64[RC_POINT_TILE];
    } cells;                         /* as rc_find_cells() gives them */
    int32_t at[RC_POINT_TILE][3][2]; /* of a point that counts: neighbours along each axis */
    double weight[RC_POINT_TILE][3]; /* of the second; float32 numbers for points that compute in it */
    bool clamped[RC_POINT_TILE][3];  /* held at the grid's end: does not move with the point */
} rc_read_tile;

RC_INLINE int64_t rc_read_cell(const rc_voxel_input *in, const rc_read_tile *tile, int32_t i) {
    return in->long_cells ? tile->cells.i64[i] : tile->cells.i32[i];
}

/* Points first .. first + count of sample b, counted from its first. Stencils for trilinear only. */
void rc_read_points(const rc_voxel_input *in, bool trilinear, int64_t b, int64_t first, int32_t count,
                    rc_read_tile *tile);

#endif /* RC_CPU_DEVOXELIZE_H */
