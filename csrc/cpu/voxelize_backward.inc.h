/* Included by voxelize_backward.c once per compute type, with REAL, TYPED(name) and REAL_DTYPE defined. No include guard
 * on purpose. */

/* Columns begin .. begin + columns of a gradient's row, converted. */
static void TYPED(load)(const work *job, const rc_voxel_grad *grad, int64_t at, int64_t step, int32_t columns,
                        REAL *numbers) {
    const rc_convert_fn convert = job->table->convert[grad->dtype][REAL_DTYPE];
    const int64_t size = (int64_t)rc_dtype_size(grad->dtype);
    const char *from = (const char *)grad->grad + at * size;
    if (step == 1) {
        convert(from, numbers, columns);
        return;
    }
    for (int32_t c = 0; c < columns; ++c) {
        convert(from + c * step * size, numbers + c, 1);
    }
}

/* Point n of sample b, which lies in `row`. */
static void TYPED(gather)(const work *job, int64_t b, int64_t n, int64_t row, char *to) {
    const rc_voxel_grad_call *call = job->call;
    const int64_t rows = call->num_rows, step = call->channels_first ? rows : 1;
    for (int64_t begin = 0; begin < call->num_columns; begin += COLUMNS) {
        const int64_t left = call->num_columns - begin;
        const int32_t columns = (int32_t)(left < COLUMNS ? left : COLUMNS);
        const int64_t at = call->channels_first ? (b * call->num_columns + begin) * rows + row
                                                : (b * rows + row) * call->num_columns + begin;
        REAL sum[COLUMNS] = {0}, v[COLUMNS];
        for (int32_t g = 0; g < call->num_grads; ++g) {
            const rc_voxel_grad *grad = &call->grads[g];
            TYPED(load)(job, grad, at, step, columns, v);
            if (grad->reduce == RC_REDUCE_MEAN) {
                const REAL count = (REAL)call->counts[b * rows + row];
                for (int32_t c = 0; c < columns; ++c) {
                    sum[c] += v[c] / count;
                }
            } else if (grad->reduce == RC_REDUCE_SUM) {
                for (int32_t c = 0; c < columns; ++c) {
                    sum[c] += v[c];
                }
            } else if (grad->arg_dtype == RC_INT32) {
                const int32_t *arg = (const int32_t *)grad->arg + at;
                for (int32_t c = 0; c < columns; ++c) {
                    sum[c] = arg[c * step] == n ? sum[c] + v[c] : sum[c];
                }
            } else {
                const int64_t *arg = (const int64_t *)grad->arg + at;
                for (int32_t c = 0; c < columns; ++c) {
                    sum[c] = arg[c * step] == n ? sum[c] + v[c] : sum[c];
                }
            }
        }
        job->table->convert[REAL_DTYPE][call->grad_dtype](sum, to + begin * (int64_t)rc_dtype_size(call->grad_dtype),
                                                          columns);
    }
}

#undef REAL
#undef TYPED
#undef REAL_DTYPE
