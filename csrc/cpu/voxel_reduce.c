/* Sums and extremes of a cell's points, compiled once for each instruction set as rows.c is (flags there). */
#include "voxel_reduce.h"

#include <string.h>

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

#define AHEAD 4 /* points between asking for a row and reading it */

/* Rows lie far from each other: they are asked for ahead of their turn. */
RC_INLINE void fetch(const rc_reducer *r, const char *features, const uint32_t *points, uint32_t j, uint32_t count,
                     int64_t begin) {
#if defined(__GNUC__)
    if (j < count) {
        __builtin_prefetch(rc_feature_row(r, features, points[j]) + begin * r->features->stride[3] * r->size);
    }
#else
    (void)r, (void)features, (void)points, (void)j, (void)count, (void)begin;
#endif
}

#define REAL float
#define TYPED(name) name##_f32
#define MEMBER f32
#define BEATS rc_beats_f32
#include "voxel_reduce.inc.h"

#define REAL double
#define TYPED(name) name##_f64
#define MEMBER f64
#define BEATS rc_beats_f64
#include "voxel_reduce.inc.h"

const rc_reduce_table JOIN(rc_reduce_, RC_ISA) = {.f32 = reduce_f32, .f64 = reduce_f64};
