/* From points to cells: what dense and sparse grids and devoxelize share.
 *
 * Points are numbered across the call as they lie: sample b's are [begin, end) of rc_sample_of(), and a point's index in
 * its sample counts from begin.
 */
#ifndef RC_CPU_VOXEL_POINTS_H
#define RC_CPU_VOXEL_POINTS_H

#include "common/common.h"
#include "core/voxel.h"
#include "run.h"

#define RC_POINT_TILE 512 /* points whose coordinates are worked on together; they stay in the first cache */

/* A call's points, grid and threads. */
typedef struct rc_voxel_input {
    const rc_point_cloud *cloud;
    const rc_depth_images *depth;
    const rc_voxel_grid *grid;
    const uint8_t *mask;
    const void *poses;
    int64_t mask_stride[3];
    int64_t poses_stride[2];
    int64_t batch;
    int64_t total;      /* points of the call */
    int64_t per_sample; /* points of each sample; packed: not used */
    int64_t cells;      /* of each sample */
    int32_t bounds;
    bool wide;       /* points compute in double */
    bool long_cells; /* cells are numbered in int64, else in int32 */
    rc_parallel_for_fn parallel_for;
    void *pool;
} rc_voxel_input;

rc_voxel_input rc_input_of_call(const rc_voxel_call *call);
rc_voxel_input rc_input_of_devoxelize(const rc_devoxelize_call *call);

/* Where a sample's points lie. */
typedef struct rc_sample {
    int64_t begin;
    int64_t end;
} rc_sample;

RC_INLINE rc_sample rc_sample_of(const rc_voxel_input *in, int64_t b) {
    rc_sample sample = {b * in->per_sample, (b + 1) * in->per_sample};
    if (in->cloud && in->cloud->row_splits) {
        sample.begin = in->cloud->row_splits[b];
        sample.end = in->cloud->row_splits[b + 1];
    }
    return sample;
}

rc_frame_f32 rc_frame_of_f32(const rc_voxel_input *in, int64_t b);
rc_frame_f64 rc_frame_of_f64(const rc_voxel_input *in, int64_t b);

/* Coordinates of a tile's points in the grid's frame, axis by axis, and which of them count at all. */
typedef struct rc_point_tile {
    union {
        float f32[3][RC_POINT_TILE];
        double f64[3][RC_POINT_TILE];
    } at;
    int32_t keep[RC_POINT_TILE]; /* 1, or 0: masked, or no depth */
} rc_point_tile;

/* Compiled once for each instruction set: voxel_cells.c. */
typedef struct rc_cell_table {
    /* Points first .. first + count of sample b, counted from its first. */
    void (*load)(const rc_voxel_input *in, int64_t b, int64_t first, int32_t count, rc_point_tile *tile);
    /* Their cells, or -1; `cells` are int64 if in->long_cells, else int32. Returns how many lie outside. */
    int32_t (*locate_f32)(const rc_voxel_input *in, const rc_frame_f32 *frame, const rc_point_tile *tile, int32_t count,
                          void *cells);
    int32_t (*locate_f64)(const rc_voxel_input *in, const rc_frame_f64 *frame, const rc_point_tile *tile, int32_t count,
                          void *cells);
    /* int32 cells as an inverse. */
    void (*widen)(const int32_t *cells, int64_t count, int64_t *inverse);
} rc_cell_table;

extern const rc_cell_table rc_cells_portable;
#if defined(__x86_64__) || defined(_M_X64)
extern const rc_cell_table rc_cells_avx2;
extern const rc_cell_table rc_cells_avx512;
#endif

/* Faults of row_splits, voxel sizes and corners. Splits are sound afterwards. */
rc_status rc_check_voxel_data(const rc_voxel_input *in);

/* A piece of one sample's points. */
typedef struct rc_chunk {
    int64_t sample;
    int64_t begin; /* among the points of the call */
    int64_t end;
} rc_chunk;

/* All samples' points in pieces of up to `size`, in order. NULL: no memory. */
rc_chunk *rc_make_chunks(const rc_voxel_input *in, int64_t size, int64_t *count);

/* Cells of all points in int32 or int64 (long_cells); -1 where there is none. Adds up `dropped` [B] (may be NULL). With
 * RC_BOUNDS_RAISE, a point outside is RC_BAD_DATA. */
rc_status rc_find_cells(const rc_voxel_input *in, void *cells, int64_t *dropped);

/* RC_BAD_DATA where bounds = raise and a point lies outside. */
rc_status rc_check_outside(const rc_voxel_input *in);

/* Cells of points first .. first + count of sample b, counted from its first; returns how many lie outside. */
int64_t rc_find_some_cells(const rc_voxel_input *in, int64_t b, int64_t first, int64_t count, void *cells);

/* Cells as an inverse [total]. */
void rc_write_inverse(const rc_voxel_input *in, const void *cells, int64_t *inverse);

/* The first point of sample b outside the grid, counted from the sample's first; -1: none. */
int64_t rc_first_outside(const rc_voxel_input *in, int64_t b);

#endif /* RC_CPU_VOXEL_POINTS_H */
