/* Included by align_backward.c once per accumulator type, with A, TYPED(name), A_DTYPE and WEIGHT defined: the gradient
 * of one target by the samples it reads. No include guard on purpose. */

/* Adds `columns` columns of one target. `sums`: the accumulator's sample 0 at the first of these columns. */
static void TYPED(add_target)(const source *from, int32_t kind, const rc_tile *tile, int32_t j, int64_t begin,
                              int64_t columns, A *sums) {
    const rc_brackets *b = &tile->brackets[rc_read_of_kind(kind)];
    const int64_t i0 = b->i0[j], i1 = b->i1[j];
    const int64_t step = from->stream->num_columns;
    if (i0 < 0) {
        return;
    }
    if (i0 == i1 || kind == RC_LINEAR || kind == RC_ANGLE) {
        A g[CHUNK];
        load_gradient(from, j, begin, columns, A_DTYPE, g);
        A *restrict sum0 = sums + i0 * step;
        if (i0 == i1) {
            for (int64_t c = 0; c < columns; ++c) {
                sum0[c] += g[c];
            }
            return;
        }
        A *restrict sum1 = sums + i1 * step;
        const A w1 = b->WEIGHT[j];
        const A w0 = (A)1 - w1;
        for (int64_t c = 0; c < columns; ++c) {
            sum0[c] += w0 * g[c];
            sum1[c] += w1 * g[c];
        }
        return;
    }
    double g[CHUNK], v[4][CHUNK];
    load_gradient(from, j, begin, columns, RC_FLOAT64, g);
    load_window(from, kind, i0, tile->spacing[j], begin, columns, v);
    if (kind == RC_PCHIP) {
        for (int64_t c = 0; c < columns; ++c) {
            const double window[4] = {v[0][c], v[1][c], v[2][c], v[3][c]};
            double by[4];
            (void)rc_pchip(window, tile->spacing[j], b->w64[j], by, NULL);
            for (int64_t k = 0; k < 4; ++k) {
                if ((k > 0 || tile->spacing[j][0] > 0.0) && (k < 3 || tile->spacing[j][2] > 0.0)) {
                    A *sum = &sums[(i0 - 1 + k) * step + c];
                    *sum += (A)(by[k] * g[c]);
                }
            }
        }
        return;
    }
    for (int64_t c = 0; c < columns; c += 4) {
        double by0[4], by1[4];
        rc_slerp_grad(v[1] + c, v[2] + c, b->w64[j], g + c, by0, by1);
        for (int64_t k = 0; k < 4; ++k) {
            sums[i0 * step + c + k] += (A)by0[k];
            sums[i1 * step + c + k] += (A)by1[k];
        }
    }
}

#undef A
#undef TYPED
#undef A_DTYPE
#undef WEIGHT
