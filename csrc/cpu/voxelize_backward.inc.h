/* Included by voxelize_backward.c once per compute type, with REAL, TYPED(name) and REAL_DTYPE defined. No include guard
 * on purpose. */

/* Columns of a gradient's row from element `at` on: where they lie, or converted into `numbers`. */
static const REAL *TYPED(load)(const work *job, const rc_voxel_grad *grad, int64_t at, int64_t step, int32_t columns,
                               REAL *numbers) {
    if (step == 1 && grad->dtype == REAL_DTYPE) {
        return (const REAL *)grad->grad + at;
    }
    const rc_convert_fn convert = job->table->convert[grad->dtype][REAL_DTYPE];
    const int64_t size = (int64_t)rc_dtype_size(grad->dtype);
    const char *from = (const char *)grad->grad + at * size;
    if (step == 1) {
        convert(from, numbers, columns);
        return numbers;
    }
    for (int32_t c = 0; c < columns; ++c) {
        convert(from + c * step * size, numbers + c, 1);
    }
    return numbers;
}

/* sum = 0 or sum, and v, or v / count, or v where the point is the cell's extreme. Starting from 0 here spares clearing
 * `sum`, which compilers do with string instructions that cost more than all the rest. */
RC_INLINE void TYPED(add)(bool start, const rc_voxel_grad *grad, const REAL *restrict v, REAL count, int64_t at,
                          int64_t step, int64_t n, int32_t columns, REAL *restrict sum) {
    const REAL zero = 0;
    if (grad->reduce == RC_REDUCE_MEAN) {
        for (int32_t c = 0; c < columns; ++c) {
            sum[c] = (start ? zero : sum[c]) + v[c] / count;
        }
    } else if (grad->reduce == RC_REDUCE_SUM) {
        for (int32_t c = 0; c < columns; ++c) {
            sum[c] = (start ? zero : sum[c]) + v[c];
        }
    } else if (grad->arg_dtype == RC_INT32) {
        const int32_t *arg = (const int32_t *)grad->arg + at;
        for (int32_t c = 0; c < columns; ++c) {
            const REAL before = start ? zero : sum[c];
            sum[c] = arg[c * step] == n ? before + v[c] : before;
        }
    } else {
        const int64_t *arg = (const int64_t *)grad->arg + at;
        for (int32_t c = 0; c < columns; ++c) {
            const REAL before = start ? zero : sum[c];
            sum[c] = arg[c * step] == n ? before + v[c] : before;
        }
    }
}

/* Point n of sample b, which lies in `row`. */
static void TYPED(gather)(const work *job, int64_t b, int64_t n, int64_t row, char *to) {
    const rc_voxel_grad_call *call = job->call;
    const int64_t rows = call->num_rows, step = call->channels_first ? rows : 1;
    const REAL count = call->counts ? (REAL)call->counts[b * rows + row] : (REAL)1;
    const bool in_place = call->grad_dtype == REAL_DTYPE;
    for (int64_t begin = 0; begin < call->num_columns; begin += COLUMNS) {
        const int64_t left = call->num_columns - begin;
        const int32_t columns = (int32_t)(left < COLUMNS ? left : COLUMNS);
        const int64_t at = call->channels_first ? (b * call->num_columns + begin) * rows + row
                                                : (b * rows + row) * call->num_columns + begin;
        REAL own[COLUMNS], numbers[COLUMNS];
        REAL *sum = in_place ? (REAL *)(void *)to + begin : own;
        for (int32_t g = 0; g < call->num_grads; ++g) {
            const rc_voxel_grad *grad = &call->grads[g];
            const REAL *v = TYPED(load)(job, grad, at, step, columns, numbers);
            if (g == 0) {
                TYPED(add)(true, grad, v, count, at, step, n, columns, sum);
            } else {
                TYPED(add)(false, grad, v, count, at, step, n, columns, sum);
            }
        }
        if (!in_place) {
            job->table->convert[REAL_DTYPE][call->grad_dtype](sum, to + begin * job->element, columns);
        }
    }
}

#undef REAL
#undef TYPED
#undef REAL_DTYPE
