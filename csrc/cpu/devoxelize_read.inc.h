/* Included by devoxelize_read.c once per compute type of points, with REAL, TYPED(name), FRAME, CENTRES and MEMBER
 * defined. No include guard on purpose. */

static void TYPED(stencils)(const rc_voxel_input *in, const FRAME *frame, int32_t count, rc_read_tile *tile) {
    const bool clamp = in->bounds == RC_BOUNDS_CLAMP;
    for (int32_t i = 0; i < count; ++i) {
        if (rc_read_cell(in, tile, i) < 0) {
            continue;
        }
        for (int d = 0; d < 3; ++d) {
            const REAL half = (REAL)0.5;
            REAL t = (tile->points.at.MEMBER[d][i] - frame->min[d]) / frame->voxel[d] - half;
            tile->clamped[i][d] = false;
            if (clamp) {
                const REAL high = frame->size[d] - half;
                tile->clamped[i][d] = t < -half || t > high;
                t = t < -half ? -half : t > high ? high : t;
            }
            tile->weight[i][d] = (double)CENTRES(t, frame->size[d], tile->at[i][d]);
        }
    }
}

#undef REAL
#undef TYPED
#undef FRAME
#undef CENTRES
#undef MEMBER
