/* Included by voxel_reduce.c once per compute type, with REAL, TYPED(name), MEMBER (of rc_cell_values) and BEATS
 * defined. No include guard on purpose. */

/* A row's numbers: the row itself or, converted, `buffer`. */
static const REAL *TYPED(row)(const rc_reducer *r, const char *features, uint32_t point, int64_t begin, int32_t columns,
                              REAL *buffer) {
    const char *row = rc_feature_row(r, features, point);
    if (r->direct) {
        return (const REAL *)(const void *)row + begin;
    }
    rc_load_features(r, row, begin, columns, buffer);
    return buffer;
}

static void TYPED(add)(REAL *restrict sum, const REAL *restrict v, int32_t columns) {
    for (int32_t c = 0; c < columns; ++c) {
        sum[c] += v[c];
    }
}

/* Up to RC_SUM_BLOCK neighbours from left to right. */
static void TYPED(sum_block)(const rc_reducer *r, const char *features, const uint32_t *points, uint32_t count,
                             int64_t begin, int32_t columns, REAL *sum) {
    REAL buffer[RC_REDUCE_COLUMNS];
    const REAL *v = TYPED(row)(r, features, points[0], begin, columns, buffer);
    for (int32_t c = 0; c < columns; ++c) {
        sum[c] = v[c];
    }
    for (uint32_t j = 1; j < count; ++j) {
        fetch(r, features, points, j + AHEAD, count, begin);
        TYPED(add)(sum, TYPED(row)(r, features, points[j], begin, columns, buffer), columns);
    }
}

/* The tree of core/voxel.h, level by level as its blocks become full. */
static void TYPED(sum_tree)(const rc_reducer *r, const char *features, const rc_group *group, int64_t begin,
                            int32_t columns, REAL *result) {
    REAL level[RC_SUM_LEVELS][RC_REDUCE_COLUMNS];
    uint32_t held[RC_SUM_LEVELS] = {0};
    const size_t bytes = (size_t)columns * sizeof(REAL);
    for (uint32_t done = 0; done < group->count;) {
        const uint32_t some = group->count - done < RC_SUM_BLOCK ? group->count - done : RC_SUM_BLOCK;
        TYPED(sum_block)(r, features, group->points + done, some, begin, columns, level[0]);
        done += some;
        for (int l = 1; l < RC_SUM_LEVELS; ++l) { /* a block of level l - 1 is full: its sum moves up */
            if (held[l]++ == 0) {
                memcpy(level[l], level[l - 1], bytes);
            } else {
                TYPED(add)(level[l], level[l - 1], columns);
            }
            if (held[l] < RC_SUM_BLOCK) {
                break;
            }
            held[l] = 0;
        }
    }
    const REAL *sum = NULL; /* of the blocks below a level that are not full: the level's last number */
    for (int l = 1; l < RC_SUM_LEVELS; ++l) {
        if (held[l] > 0 && sum) {
            TYPED(add)(level[l], sum, columns);
        }
        sum = held[l] > 0 ? level[l] : sum;
    }
    memcpy(result, sum, bytes);
}

static void TYPED(extreme)(const rc_reducer *r, const char *features, const rc_group *group, int64_t begin,
                           int32_t columns, bool maximum, REAL *restrict best, uint32_t *restrict at) {
    REAL buffer[RC_REDUCE_COLUMNS];
    const REAL *restrict v = TYPED(row)(r, features, group->points[0], begin, columns, buffer);
    for (int32_t c = 0; c < columns; ++c) {
        best[c] = v[c];
        at[c] = group->points[0];
    }
    for (uint32_t j = 1; j < group->count; ++j) {
        const uint32_t point = group->points[j];
        fetch(r, features, group->points, j + AHEAD, group->count, begin);
        v = TYPED(row)(r, features, point, begin, columns, buffer);
        for (int32_t c = 0; c < columns; ++c) {
            const bool beats = BEATS(v[c], best[c], maximum);
            best[c] = beats ? v[c] : best[c];
            at[c] = beats ? point : at[c];
        }
    }
}

static void TYPED(reduce)(const rc_reducer *r, const char *features, const rc_group *group, int64_t begin,
                          int32_t columns, rc_cell_values *values) {
    if (r->sum) {
        if (group->count <= RC_SUM_BLOCK) {
            TYPED(sum_block)(r, features, group->points, group->count, begin, columns, values->sum.MEMBER);
        } else {
            TYPED(sum_tree)(r, features, group, begin, columns, values->sum.MEMBER);
        }
    }
    if (r->max || r->argmax) {
        TYPED(extreme)(r, features, group, begin, columns, true, values->max.MEMBER, values->argmax);
    }
    if (r->min || r->argmin) {
        TYPED(extreme)(r, features, group, begin, columns, false, values->min.MEMBER, values->argmin);
    }
}

#undef REAL
#undef TYPED
#undef MEMBER
#undef BEATS
