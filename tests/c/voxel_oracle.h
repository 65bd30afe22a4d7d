/* What stands in a cell, by the documented rules. */
#ifndef RC_TESTS_VOXEL_ORACLE_H
#define RC_TESTS_VOXEL_ORACLE_H

#include "voxel_problem.h"

enum { SUM_BLOCK = 128 };

typedef struct members {
    int64_t *points; /* by number in the call, rising */
    int64_t count;
} members;

static inline members members_of(const voxel_problem *p, int64_t b, int64_t cell) {
    members m = {allocate(p->total, sizeof *m.points), 0};
    for (int64_t i = 0; i < p->total; ++i) {
        if (p->sample_of[i] == b && p->cells[i] == cell) {
            m.points[m.count++] = i;
        }
    }
    return m;
}

static inline double in_features(const voxel_problem *p, double value) {
    return p->features.dtype == RC_FLOAT64 ? value : (double)(float)value;
}

/* Blocks of SUM_BLOCK from left to right, then their sums likewise. */
static inline double tree_sum(const voxel_problem *p, const members *m, int64_t c) {
    double *row = allocate(m->count, sizeof *row);
    int64_t n = m->count;
    for (int64_t k = 0; k < n; ++k) {
        row[k] = feature_at(p, m->points[k], c);
    }
    while (n > 1) {
        int64_t sums = 0;
        for (int64_t begin = 0; begin < n; begin += SUM_BLOCK) {
            double sum = row[begin];
            for (int64_t k = begin + 1; k < n && k < begin + SUM_BLOCK; ++k) {
                sum = in_features(p, sum + row[k]);
            }
            row[sums++] = sum;
        }
        n = sums;
    }
    const double result = row[0];
    free(row);
    return result;
}

static inline int64_t extreme(const voxel_problem *p, const members *m, int64_t c, bool maximum) {
    int64_t best = 0;
    for (int64_t k = 1; k < m->count; ++k) {
        const double v = feature_at(p, m->points[k], c), held = feature_at(p, m->points[best], c);
        if (!isnan(held) && (isnan(v) || (maximum ? v > held : v < held))) {
            best = k;
        }
    }
    return m->points[best];
}

static inline void expect(const voxel_problem *p, const rc_voxel_output *output, const members *m, int64_t c,
                          void *to) {
    const double count = (double)m->count;
    if (output->reduce == RC_REDUCE_ARGMAX || output->reduce == RC_REDUCE_ARGMIN) {
        const bool maximum = output->reduce == RC_REDUCE_ARGMAX;
        write_integer(to, output->dtype, m->count > 0 ? p->index_of[extreme(p, m, c, maximum)] : -1);
    } else if (output->reduce == RC_REDUCE_OCCUPANCY || output->reduce == RC_REDUCE_COUNT) {
        static const double most[RC_NUM_DTYPES] = {0, 0, 0, 0, 1, 255, 127, 32767, 2147483647.0, 9e18};
        double value = output->reduce == RC_REDUCE_OCCUPANCY ? (double)(m->count > 0) : count;
        if (is_float(output->dtype)) {
            write_float(to, output->dtype, value);
        } else {
            value = value < most[output->dtype] ? value : most[output->dtype];
            write_integer(to, output->dtype, (int64_t)value);
        }
    } else if (m->count == 0) {
        write_float(to, output->dtype, p->call.empty_value);
    } else if (output->reduce == RC_REDUCE_SUM) {
        write_float(to, output->dtype, tree_sum(p, m, c));
    } else if (output->reduce == RC_REDUCE_MEAN) {
        write_float(to, output->dtype, in_features(p, tree_sum(p, m, c) / count));
    } else {
        write_float(to, output->dtype, feature_at(p, extreme(p, m, c, output->reduce == RC_REDUCE_MAX), c));
    }
}

#endif /* RC_TESTS_VOXEL_ORACLE_H */
