/* The features of one cell's points to one value a column. */
#ifndef RC_CPU_VOXEL_REDUCE_H
#define RC_CPU_VOXEL_REDUCE_H

#include "rows.h"
#include "voxel_groups.h"

#define RC_REDUCE_COLUMNS 64 /* worked on together; their sums and extremes stay in the first cache */
#define RC_SUM_LEVELS 6      /* RC_SUM_BLOCK^5 is above the 2^32 points that a sample may have */

/* What a call asks of its features, and where they lie. */
typedef struct rc_reducer {
    const rc_voxel_input *in;
    const rc_point_features *features;
    rc_convert_fn convert; /* to the compute dtype */
    int64_t size;          /* bytes of a feature */
    int64_t pixels;        /* points of a camera, where cameras do not follow each other in one stride; else 0 */
    bool direct;           /* rows need no conversion */
    bool wide;             /* double */
    bool sum, max, min, argmax, argmin;
} rc_reducer;

rc_reducer rc_reducer_of(const rc_voxel_input *in, const rc_voxel_call *call);

/* Point 0 of sample b, column 0. */
const char *rc_features_of(const rc_reducer *r, int64_t b);

/* Point n of a sample. */
RC_INLINE const char *rc_feature_row(const rc_reducer *r, const char *features, int64_t n) {
    const int64_t *stride = r->features->stride;
    if (r->pixels == 0) {
        return features + n * stride[2] * r->size;
    }
    return features + (n / r->pixels * stride[1] + n % r->pixels * stride[2]) * r->size;
}

/* Results of one cell, RC_REDUCE_COLUMNS at most; double where the reducer is wide. */
typedef struct rc_cell_values {
    union {
        float f32[RC_REDUCE_COLUMNS];
        double f64[RC_REDUCE_COLUMNS];
    } sum, max, min;
    uint32_t argmax[RC_REDUCE_COLUMNS];
    uint32_t argmin[RC_REDUCE_COLUMNS];
} rc_cell_values;

/* Columns begin .. begin + columns of a group's points; compiled once for each instruction set. */
typedef void (*rc_reduce_fn)(const rc_reducer *r, const char *features, const rc_group *group, int64_t begin,
                             int32_t columns, rc_cell_values *values);
typedef struct rc_reduce_table {
    rc_reduce_fn f32, f64;
} rc_reduce_table;

extern const rc_reduce_table rc_reduce_portable;
#if defined(__x86_64__) || defined(_M_X64)
extern const rc_reduce_table rc_reduce_avx2;
extern const rc_reduce_table rc_reduce_avx512;
#endif

/* Columns begin .. begin + columns of one row's numbers in the compute dtype. */
void rc_load_features(const rc_reducer *r, const char *row, int64_t begin, int32_t columns, void *numbers);

/* ---- Outputs ---------------------------------------------------------------------------------------------------- */

/* Writes columns begin .. begin + columns of one cell's results to an output whose column 0 is `to`; columns lie `step`
 * elements apart. Not for occupancy and count. */
void rc_write_values(const rc_reducer *r, const rc_voxel_output *output, const rc_cell_values *values, uint32_t count,
                     int64_t begin, int32_t columns, int64_t step, char *to);

/* `count` elements of an output's empty cells. */
void rc_write_empty(const rc_voxel_output *output, double empty_value, int64_t count, char *to);

/* One cell's count, to its dtype (not RC_BITS) or added to what is there. */
void rc_write_count(int32_t dtype, uint32_t count, bool accumulate, char *to);
/* 1 in an output's dtype (not RC_BITS). */
void rc_write_one(int32_t dtype, char *to);

#endif /* RC_CPU_VOXEL_REDUCE_H */
