/* From a point to its cell, in one compute dtype. voxel.h includes this once for each, with
 *   RC_REAL       the compute dtype
 *   RC_NAME(f)    f with the dtype's suffix
 *   RC_FLOOR      its floor
 */

/* The grid of one sample. */
typedef struct RC_NAME(rc_frame) {
    RC_REAL min[3];
    RC_REAL voxel[3];
    RC_REAL size[3]; /* cells, exact: at most 2^24 */
} RC_NAME(rc_frame);

/* p in the frame of a row-major [R | t]; no product is contracted with a sum. */
RC_INLINE void RC_NAME(rc_transform)(const RC_REAL *RC_RESTRICT pose, const RC_REAL p[3], RC_REAL out[3]) {
    for (int r = 0; r < 3; ++r) {
        const RC_REAL *row = pose + 4 * r;
        out[r] = ((row[0] * p[0] + row[1] * p[1]) + row[2] * p[2]) + row[3];
    }
}

/* The floor of the point's place along an axis, as the contract defines it. */
RC_INLINE RC_REAL RC_NAME(rc_axis_cell)(RC_REAL p, RC_REAL min, RC_REAL voxel) {
    return RC_FLOOR((p - min) / voxel);
}

/* Places q of a point (whole numbers, infinities or NaN) to coordinates. True where the point lies in the grid; with
 * `clamp`, `at` then holds the nearest cell also where it does not, and *counts says whether the point counts at all. */
RC_INLINE bool RC_NAME(rc_cell_of)(const RC_NAME(rc_frame) * frame, const RC_REAL q[3], bool clamp, int32_t at[3],
                                   bool *counts) {
    bool inside = true, number = true;
    for (int d = 0; d < 3; ++d) {
        inside = inside & (q[d] >= (RC_REAL)0) & (q[d] < frame->size[d]);
        number = number & (q[d] == q[d]);
    }
    *counts = inside | (clamp & number);
    for (int d = 0; d < 3; ++d) {
        const RC_REAL top = frame->size[d] - (RC_REAL)1;
        const RC_REAL held = q[d] < (RC_REAL)0 ? (RC_REAL)0 : q[d] > top ? top : q[d];
        at[d] = *counts ? (int32_t)held : 0;
    }
    return inside;
}

/* A point in the grid's frame to its cell: rc_cell_of() of its places. */
RC_INLINE bool RC_NAME(rc_locate_point)(const RC_NAME(rc_frame) * frame, const RC_REAL p[3], bool clamp, int32_t at[3],
                                        bool *counts) {
    const RC_REAL q[3] = {RC_NAME(rc_axis_cell)(p[0], frame->min[0], frame->voxel[0]),
                          RC_NAME(rc_axis_cell)(p[1], frame->min[1], frame->voxel[1]),
                          RC_NAME(rc_axis_cell)(p[2], frame->min[2], frame->voxel[2])};
    return RC_NAME(rc_cell_of)(frame, q, clamp, at, counts);
}

/* Along one axis, the two neighbouring cell centres around a place t = (p - min) / voxel - 0.5, and the weight of the
 * second. At a face both are the outermost cell. `t` lies in [-0.5, size - 0.5]. */
RC_INLINE RC_REAL RC_NAME(rc_centres)(RC_REAL t, RC_REAL size, int32_t at[2]) {
    const RC_REAL low = RC_FLOOR(t);
    const RC_REAL top = size - (RC_REAL)1;
    const RC_REAL high = low + (RC_REAL)1;
    at[0] = (int32_t)(low < (RC_REAL)0 ? (RC_REAL)0 : low > top ? top : low);
    at[1] = (int32_t)(high < (RC_REAL)0 ? (RC_REAL)0 : high > top ? top : high);
    return t - low;
}

/* Which of two features stands as a cell's maximum (or minimum): does `v`, of a higher index, replace `best`? A NaN wins
 * and the first of them stays; ties stay. */
RC_INLINE bool RC_NAME(rc_beats)(RC_REAL v, RC_REAL best, bool maximum) {
    return best == best && (v != v || (maximum ? v > best : v < best));
}
