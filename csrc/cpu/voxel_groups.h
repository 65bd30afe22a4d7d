/* Points by cell: for every occupied cell the indices of its points, rising, and the cells of a sample in order.
 *
 * A sample's cells are cut into slabs of 2^k neighbours. Points are first brought to their slabs, which keeps their
 * order, then each slab sorts its own; both steps share out over any number of threads and give one result.
 */
#ifndef RC_CPU_VOXEL_GROUPS_H
#define RC_CPU_VOXEL_GROUPS_H

#include "voxel_points.h"

typedef struct rc_slab {
    int64_t place;  /* of its first point in `order`, and of its first group in `cell` and `begin` */
    int64_t points; /* below 2^32 */
    int64_t groups; /* occupied cells */
} rc_slab;

typedef struct rc_groups {
    int32_t slab_bits;
    int64_t slabs_each; /* of a sample */
    rc_slab *slabs;     /* [B, slabs_each] */
    uint32_t *order;    /* by place: index of a point in its sample */
    int64_t *cell;      /* by place: cell of a group */
    uint32_t *begin;    /* by place: where a group's points begin, counted from its slab's place */
} rc_groups;

/* One occupied cell. */
typedef struct rc_group {
    int64_t cell;
    const uint32_t *points; /* rising */
    uint32_t count;         /* at least 1 */
} rc_group;

RC_INLINE rc_group rc_group_at(const rc_groups *groups, const rc_slab *slab, int64_t k) {
    const int64_t at = slab->place + k;
    const int64_t end = k + 1 < slab->groups ? (int64_t)groups->begin[at + 1] : slab->points;
    const int64_t begin = (int64_t)groups->begin[at];
    return (rc_group){groups->cell[at], groups->order + slab->place + begin, (uint32_t)(end - begin)};
}

/* Groups the points by `cells` (as rc_find_cells() gives them). */
rc_status rc_make_groups(const rc_voxel_input *in, const void *cells, rc_groups *groups);
void rc_free_groups(rc_groups *groups);

/* Walks over a sample's groups from the first at or past `cell`. */
typedef struct rc_group_cursor {
    const rc_groups *groups;
    const rc_slab *slab;
    const rc_slab *end; /* one past the sample's last */
    int64_t k;
} rc_group_cursor;

rc_group_cursor rc_seek_group(const rc_groups *groups, int64_t b, int64_t cell);

/* The next group, if there is one below cell `limit`. */
RC_INLINE bool rc_next_group(rc_group_cursor *cursor, int64_t limit, rc_group *group) {
    while (cursor->slab < cursor->end) {
        if (cursor->k < cursor->slab->groups) {
            if (cursor->groups->cell[cursor->slab->place + cursor->k] >= limit) {
                return false;
            }
            *group = rc_group_at(cursor->groups, cursor->slab, cursor->k++);
            return true;
        }
        ++cursor->slab;
        cursor->k = 0;
    }
    return false;
}

#endif /* RC_CPU_VOXEL_GROUPS_H */
