/* Launch parameters of the CUDA kernels that are chosen at launch, by shape class and GPU. */
#ifndef RC_LAUNCH_TABLE_H
#define RC_LAUNCH_TABLE_H

#include "robocache.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A parameter never changes a result, only how fast it comes. `threads` is of a block and at most the kernel's launch
 * bound; `fill` is how many threads a multiprocessor is given at most, those that stride over the rest included. */
typedef enum rc_tunable {
    RC_TUNE_ALIGN_THREADS,
    RC_TUNE_ALIGN_MIN_ITEMS,       /* vectors that a lane moves at least */
    RC_TUNE_ALIGN_MAX_ITEMS,       /* and at most */
    RC_TUNE_ALIGN_MAX_ITEMS_BROAD, /* and at most in broad rows */
    RC_TUNE_ALIGN_BROAD_CHUNKS,    /* rows of more vectors than this are broad */
    RC_TUNE_ALIGN_WARPS,           /* warps a multiprocessor that a call fills before its tiles grow */
    RC_TUNE_ALIGN_FEW_WARPS,       /* warps a multiprocessor below which even the least items are too many */
    RC_TUNE_ALIGN_VECTOR_BYTES,    /* of a load or store at most */
    RC_TUNE_ALIGN_WIDE_CHUNKS,     /* rows of at most this many vectors: fewer on their way a lane, more warps */
    RC_TUNE_VOXEL_EACH_THREADS,
    RC_TUNE_VOXEL_EACH_WAVES,             /* blocks of a pass over all points, for one that can be resident */
    RC_TUNE_VOXEL_GLOBAL_CLEAR_FILL,      /* of the kernel that clears bits or counters */
    RC_TUNE_VOXEL_GLOBAL_WRITE_THREADS,   /* of the kernel that writes the output from them */
    RC_TUNE_VOXEL_BITS_KIB,               /* KiB of shared memory at most for a sample's bits */
    RC_TUNE_VOXEL_BITS_CLUSTER,           /* blocks at most that share a sample's points */
    RC_TUNE_VOXEL_BITS_AHEAD_PERCENT,     /* blocks to a hundred multiprocessors at most that read points ahead */
    RC_TUNE_VOXEL_PARTITION_LONG_FROM,    /* times 2^16: calls of more points have long chunks, others short ones */
    RC_TUNE_VOXEL_PARTITION_SHORT_POINTS, /* points of a thread of a short chunk */
    RC_TUNE_VOXEL_PARTITION_LONG_THREADS, /* threads of a block that has a long chunk */
    RC_TUNE_VOXEL_SLAB_THREADS,
    RC_TUNE_VOXEL_SLAB_KIB,   /* KiB of shared memory at most for a slab */
    RC_TUNE_VOXEL_SLAB_AHEAD, /* runs that a thread has on their way */
    RC_TUNE_VOXEL_KEYS_THREADS,
    RC_TUNE_VOXEL_KEYS_FILL,
    RC_TUNE_VOXEL_LEVELS_THREADS,
    RC_TUNE_VOXEL_TILE_CELLS_BROAD,  /* cells of a tile of a dense grid: rows of 12 columns and more */
    RC_TUNE_VOXEL_TILE_CELLS_NARROW, /* and of fewer */
    RC_TUNE_VOXEL_TILE_AHEAD,        /* rows that a group of lanes has on their way, channels last */
    RC_TUNE_VOXEL_TILE_VECTOR,       /* columns a lane takes at most */
    RC_TUNE_VOXEL_PLANES_ROW_KIB,    /* KiB of shared memory for the rows of a tile, channels first */
    RC_TUNE_VOXEL_SPARSE_POINTS_THREADS,
    RC_TUNE_VOXEL_SPARSE_ROWS_THREADS,
    RC_TUNE_VOXEL_SPARSE_ROWS_AHEAD,  /* rows that a group of lanes has on their way */
    RC_TUNE_VOXEL_SPARSE_ROWS_VECTOR, /* columns a lane takes at most */
    RC_TUNE_VOXEL_BACKWARD_THREADS,
    RC_TUNE_VOXEL_BACKWARD_FILL,
    RC_TUNE_DEVOXELIZE_THREADS,
    RC_TUNE_DEVOXELIZE_FILL,
    RC_TUNE_DEVOXELIZE_VECTOR, /* columns a thread takes at most */
    RC_TUNE_DEVOXELIZE_BACKWARD_THREADS,
    RC_TUNE_DEVOXELIZE_BACKWARD_FILL,
    RC_TUNE_DEVOXELIZE_BACKWARD_VECTOR, /* columns that a point's thread takes at most at once */
    RC_TUNE_COPY_MANY_THREADS,
    RC_TUNE_COPY_MANY_AHEAD, /* vectors that a thread has on their way */
    RC_NUM_TUNABLES
} rc_tunable;

/* The shape class of a call with this much work. */
int32_t rc_shape_class(int64_t work);

/* The value for a GPU of compute capability `arch` (10 * major + minor): what rc_set_launch_parameter forced, else the
 * measured one, else the default. Any thread; a few loads. */
int32_t rc_launch_value(rc_tunable tunable, int32_t arch, int64_t work);

#ifdef __cplusplus
}
#endif

#endif /* RC_LAUNCH_TABLE_H */
