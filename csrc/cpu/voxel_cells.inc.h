/* Included by voxel_cells.c once per compute type, with
 *   REAL, TYPED(name)   the type and its suffix
 *   FRAME, AXIS_CELL    of core/voxel.h
 *   MEMBER              of rc_point_tile.at
 * No include guard on purpose. */

static void TYPED(transform)(const REAL *pose, int32_t count, REAL (*at)[RC_POINT_TILE]) {
    REAL *restrict x = at[0], *restrict y = at[1], *restrict z = at[2];
    REAL m[12];
    for (int k = 0; k < 12; ++k) {
        m[k] = pose[k];
    }
    for (int32_t i = 0; i < count; ++i) {
        const REAL px = x[i], py = y[i], pz = z[i];
        x[i] = ((m[0] * px + m[1] * py) + m[2] * pz) + m[3];
        y[i] = ((m[4] * px + m[5] * py) + m[6] * pz) + m[7];
        z[i] = ((m[8] * px + m[9] * py) + m[10] * pz) + m[11];
    }
}

/* The rules of rc_cell_of() without a branch. Places below 0, and NaN, are held at 0. */
#define LOCATE(CELL, KEEP)                                                                                             \
    for (int32_t i = 0; i < count; ++i) {                                                                              \
        const REAL qx = AXIS_CELL(x[i], f.min[0], f.voxel[0]);                                                         \
        const REAL qy = AXIS_CELL(y[i], f.min[1], f.voxel[1]);                                                         \
        const REAL qz = AXIS_CELL(z[i], f.min[2], f.voxel[2]);                                                         \
        const int32_t inside = (qx >= 0) & (qx < f.size[0]) & (qy >= 0) & (qy < f.size[1]) & (qz >= 0) &               \
                               (qz < f.size[2]);                                                                       \
        const int32_t number = (qx == qx) & (qy == qy) & (qz == qz);                                                   \
        const REAL lx = qx > 0 ? qx : 0, ly = qy > 0 ? qy : 0, lz = qz > 0 ? qz : 0;                                   \
        const REAL hx = lx < top[0] ? lx : top[0], hy = ly < top[1] ? ly : top[1], hz = lz < top[2] ? lz : top[2];     \
        const CELL cell = ((CELL)(int32_t)hx * (CELL)size_y + (CELL)(int32_t)hy) * (CELL)size_z + (CELL)(int32_t)hz;   \
        const int32_t counts = (inside | (clamp & number)) & (KEEP);                                                   \
        to[i] = counts ? cell : -1;                                                                                    \
        outside += (inside ^ 1) & (KEEP);                                                                              \
    }

static int32_t TYPED(locate)(const rc_voxel_input *in, const FRAME *frame, const rc_point_tile *tile, int32_t count,
                             void *cells) {
    const FRAME f = *frame;
    const REAL *restrict x = tile->at.MEMBER[0];
    const REAL *restrict y = tile->at.MEMBER[1];
    const REAL *restrict z = tile->at.MEMBER[2];
    const int32_t *restrict keep = tile->keep;
    const REAL top[3] = {f.size[0] - 1, f.size[1] - 1, f.size[2] - 1};
    const int32_t size_y = (int32_t)in->grid->size[1], size_z = (int32_t)in->grid->size[2];
    const int32_t clamp = in->bounds == RC_BOUNDS_CLAMP;
    int32_t outside = 0;
    if (in->long_cells) {
        int64_t *restrict to = cells;
        LOCATE(int64_t, keep[i])
    } else {
        int32_t *restrict to = cells;
        LOCATE(int32_t, keep[i])
    }
    return outside;
}

#undef LOCATE
#undef REAL
#undef TYPED
#undef FRAME
#undef AXIS_CELL
#undef MEMBER
