/* Row kernels: given the brackets of a tile of targets, write one column group of their output rows.
 *
 * They are compiled once for each instruction set (rows.c); rc_row_table holds one set's functions and rc_row_kernels()
 * is the set in use.
 */
#ifndef RC_CPU_ROWS_H
#define RC_CPU_ROWS_H

#include "robocache.h"

#define RC_TILE 64 /* targets whose brackets are found together; a tile's brackets and rows stay in the first caches */

/* A tile of targets of one column group. Columns are contiguous in `values` and `out`. */
typedef struct rc_rows {
    const char *values;    /* sample 0, first column of the group */
    ptrdiff_t sample_step; /* bytes from sample to sample */
    char *out;             /* first target, first column of the group */
    ptrdiff_t target_step; /* bytes from target to target */
    int64_t columns;       /* width of the group */
    int32_t count;         /* targets, at most RC_TILE */
    int32_t value_dtype;
    int32_t out_dtype;
    const int32_t *i0; /* samples to read; i0 == i1: a copy, i0 == -1: NaN (integers: 0) */
    const int32_t *i1;
    const float *w32;           /* weight of sample i1 */
    const double *w64;          /* likewise, not rounded */
    const double (*spacing)[3]; /* pchip: lengths of the intervals before, in and after the bracket; 0: none */
} rc_rows;

typedef void (*rc_rows_fn)(const rc_rows *rows);
typedef void (*rc_convert_fn)(const void *from, void *to, int64_t count);

#define RC_NUM_FLOATS 4 /* rc_dtype's floating types come first */

/* Searches for a tile's brackets, and scans of times; find.c, compiled like rows.c. */
struct rc_query;
struct rc_tile;
typedef void (*rc_find_fn)(const struct rc_query *query, struct rc_tile *tile);
typedef struct rc_find_table {
    rc_find_fn f32, f64, i64;
    /* True unless all is well with contiguous times; the slow check then finds out what and where. */
    bool (*suspect_f32)(const float *times, int64_t count);
    bool (*suspect_f64)(const double *times, int64_t count);
    bool (*suspect_i64)(const int64_t *times, int64_t count);
    bool (*has_nan_f32)(const float *times, int64_t count);
    bool (*has_nan_f64)(const double *times, int64_t count);
} rc_find_table;

/* Points to cells and cells to values. */
struct rc_cell_table;
struct rc_reduce_table;
struct rc_bin_table;

typedef struct rc_row_table {
    const char *name;
    const rc_find_table *find;
    const struct rc_cell_table *cells;                   /* voxel_cells.c */
    const struct rc_reduce_table *reduce;                /* voxel_reduce.c */
    const struct rc_bin_table *bins;                     /* voxel_bins.c */
    rc_convert_fn convert[RC_NUM_DTYPES][RC_NUM_DTYPES]; /* [from][to]; NULL where no call may ask for it */
    rc_rows_fn linear[RC_NUM_FLOATS][RC_NUM_FLOATS];     /* [value_dtype][out_dtype] */
    rc_rows_fn angle[RC_NUM_FLOATS][RC_NUM_FLOATS];
} rc_row_table;

extern const rc_row_table rc_rows_portable;
extern const rc_find_table rc_find_portable;
#if defined(__x86_64__) || defined(_M_X64)
#define RC_ON_X86 1
extern const rc_row_table rc_rows_avx2;
extern const rc_row_table rc_rows_avx512;
extern const rc_find_table rc_find_avx2;
extern const rc_find_table rc_find_avx512;
#endif

/* The kernels chosen for this CPU. */
const rc_row_table *rc_row_kernels(void);

/* The kernel for a kind. */
rc_rows_fn rc_rows_for(const rc_row_table *table, int32_t kind, int32_t value_dtype, int32_t out_dtype);

/* Kernels that no instruction set makes faster. */
void rc_rows_copy(const rc_rows *rows);
void rc_rows_pchip(const rc_rows *rows);
void rc_rows_slerp(const rc_rows *rows);

/* Writes `count` NaNs, or zeros for integers. */
void rc_fill_missing(void *out, int32_t out_dtype, int64_t count);

#endif /* RC_CPU_ROWS_H */
