/* Dense grids in one stream: points are brought to slabs of neighbouring cells, and each slab's cells, small enough for a
 * cache, take their points one after the other.
 *
 * A piece of the points (a chunk) sorts its own by slab and notes where each slab's begin. A slab then reads its part of
 * each chunk in order, so a cell sees its points in the order of their index, whatever the number of threads.
 */
#ifndef RC_CPU_VOXEL_BINS_H
#define RC_CPU_VOXEL_BINS_H

#include "voxel_reduce.h"

#define RC_BIN_CELLS_BITS 16  /* a cell of a slab is a uint16 */
#define RC_BIN_COLUMNS 32     /* at most; wider rows are summed cell by cell */
#define RC_CHUNK_POINTS 32768 /* so is a point of a chunk */

/* A slab's points of one chunk. */
typedef struct rc_segment {
    const uint16_t *cells;  /* counted from the slab's first */
    const uint16_t *points; /* counted from `first`; NULL where nobody asks */
    const void *values;     /* [count, columns] in the compute dtype; NULL: read by point */
    const char *features;   /* of the sample */
    int64_t first;          /* the chunk's first point in its sample */
    int64_t count;
} rc_segment;

/* Sums of the full blocks of a cell with more than RC_SUM_BLOCK points. */
typedef struct rc_spill {
    uint32_t cell;
    uint32_t held[RC_SUM_LEVELS];
} rc_spill;

/* A slab's cells. */
typedef struct rc_bins {
    const rc_reducer *reducer;
    int32_t columns;
    uint32_t *counts; /* [cells] */
    void *sum;        /* [cells, columns], float or double; NULL: not wanted; likewise the next */
    void *max;
    void *min;
    uint32_t *argmax; /* UINT32_MAX: none yet */
    uint32_t *argmin;
    int64_t cells;
    uint32_t *spill_of; /* [cells]: 0 or the number of the cell's spill, from 1; valid if num_spills > 0 */
    rc_spill *spills;
    void *levels; /* [spills, RC_SUM_LEVELS, columns] */
    uint32_t num_spills;
    uint32_t most_spills;
} rc_bins;

typedef struct rc_bin_table {
    /* Empty cells. */
    void (*clear_f32)(rc_bins *bins);
    void (*clear_f64)(rc_bins *bins);
    /* Takes a segment. */
    void (*add_f32)(rc_bins *bins, const rc_segment *segment);
    void (*add_f64)(rc_bins *bins, const rc_segment *segment);
    /* Adds the full blocks of cells with many points to their last ones. */
    void (*close_f32)(rc_bins *bins);
    void (*close_f64)(rc_bins *bins);
    /* Sums or extremes with `empty` in empty cells; sums to means, where `mean`. */
    void (*finish_f32)(const rc_bins *bins, void *values, bool mean, double empty);
    void (*finish_f64)(const rc_bins *bins, void *values, bool mean, double empty);
    /* Counts to an output of occupancy or count; not bits. */
    void (*put_counts)(const uint32_t *counts, int64_t cells, bool occupancy, bool accumulate, int32_t dtype, char *to);
    /* memcpy() past the caches, for outputs that do not fit them. */
    void (*store)(void *to, const void *from, size_t bytes);
    void (*put_bits)(const uint32_t *counts, int64_t cells, bool accumulate, uint8_t *to);
} rc_bin_table;

extern const rc_bin_table rc_bins_portable;
#if defined(__x86_64__) || defined(_M_X64)
extern const rc_bin_table rc_bins_avx2;
extern const rc_bin_table rc_bins_avx512;
#endif

/* True where this way serves a call: cells in int32, not too many slabs, few columns. */
bool rc_bins_take(const rc_voxel_input *in, const rc_voxel_call *call);

/* The whole call, after its data have been checked. Writes outputs, inverse and dropped. */
rc_status rc_voxelize_bins(const rc_voxel_input *in, const rc_voxel_call *call);

#endif /* RC_CPU_VOXEL_BINS_H */
