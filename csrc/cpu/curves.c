/* Row kernels for copies and for the kinds that run in double whatever the values' type: pchip and slerp. */
#include "rows.h"

#include "common/common.h"
#include "core/interpolate.h"

#include <string.h>

#define CHUNK 64 /* columns worked on at once; whole quaternions */

void rc_fill_missing(void *out, int32_t out_dtype, int64_t count) {
    const size_t size = rc_dtype_size(out_dtype);
    if (!rc_dtype_is_float(out_dtype)) {
        memset(out, 0, (size_t)count * size);
        return;
    }
    static const uint16_t nan16 = 0x7e00, nan_bf16 = 0x7fc0;
    static const uint32_t nan32 = 0x7fc00000u;
    static const uint64_t nan64 = 0x7ff8000000000000u;
    const void *const nans[RC_NUM_FLOATS] = {&nan16, &nan_bf16, &nan32, &nan64};
    char *at = out;
    for (int64_t c = 0; c < count; ++c, at += size) {
        memcpy(at, nans[out_dtype], size);
    }
}

void rc_rows_copy(const rc_rows *rows) {
    const rc_convert_fn convert = rc_row_kernels()->convert[rows->value_dtype][rows->out_dtype];
    for (int32_t j = 0; j < rows->count; ++j) {
        char *out = rows->out + j * rows->target_step;
        if (rows->i0[j] < 0) {
            rc_fill_missing(out, rows->out_dtype, rows->columns);
        } else {
            convert(rows->values + rows->i0[j] * rows->sample_step, out, rows->columns);
        }
    }
}

/* Four samples' columns as doubles, and the way back. */
typedef struct window {
    double v[4][CHUNK];
    double result[CHUNK];
} window;

typedef void (*curve_fn)(window *w, int64_t columns, int32_t j, const rc_rows *rows);

static void pchip_chunk(window *w, int64_t columns, int32_t j, const rc_rows *rows) {
    for (int64_t c = 0; c < columns; ++c) {
        const double v[4] = {w->v[0][c], w->v[1][c], w->v[2][c], w->v[3][c]};
        w->result[c] = rc_pchip(v, rows->spacing[j], rows->w64[j], NULL, NULL);
    }
}

static void slerp_chunk(window *w, int64_t columns, int32_t j, const rc_rows *rows) {
    for (int64_t c = 0; c < columns; c += 4) {
        rc_slerp(w->v[1] + c, w->v[2] + c, rows->w64[j], w->result + c);
    }
}

/* The walk over a tile. `cubic`: the curve also reads the samples around the bracket. */
static void curve_rows(const rc_rows *rows, curve_fn curve, bool cubic) {
    const rc_row_table *table = rc_row_kernels();
    const rc_convert_fn copy = table->convert[rows->value_dtype][rows->out_dtype];
    const rc_convert_fn widen = table->convert[rows->value_dtype][RC_FLOAT64];
    const rc_convert_fn narrow = table->convert[RC_FLOAT64][rows->out_dtype];
    const ptrdiff_t value_size = (ptrdiff_t)rc_dtype_size(rows->value_dtype);
    const ptrdiff_t out_size = (ptrdiff_t)rc_dtype_size(rows->out_dtype);
    window w;
    for (int32_t j = 0; j < rows->count; ++j) {
        char *out = rows->out + j * rows->target_step;
        const int32_t i0 = rows->i0[j], i1 = rows->i1[j];
        if (i0 < 0) {
            rc_fill_missing(out, rows->out_dtype, rows->columns);
            continue;
        }
        if (i0 == i1) {
            copy(rows->values + i0 * rows->sample_step, out, rows->columns);
            continue;
        }
        int32_t samples[4] = {i0, i0, i1, i1}; /* an outer sample that is missing is not used: any finite one will do */
        if (cubic) {
            samples[0] = rows->spacing[j][0] > 0.0 ? i0 - 1 : i0;
            samples[3] = rows->spacing[j][2] > 0.0 ? i1 + 1 : i1;
        }
        for (int64_t begin = 0; begin < rows->columns; begin += CHUNK) {
            const int64_t columns = rows->columns - begin < CHUNK ? rows->columns - begin : CHUNK;
            for (int k = cubic ? 0 : 1; k < (cubic ? 4 : 3); ++k) {
                widen(rows->values + samples[k] * rows->sample_step + begin * value_size, w.v[k], columns);
            }
            curve(&w, columns, j, rows);
            narrow(w.result, out + begin * out_size, columns);
        }
    }
}

void rc_rows_pchip(const rc_rows *rows) {
    curve_rows(rows, pchip_chunk, true);
}

void rc_rows_slerp(const rc_rows *rows) {
    curve_rows(rows, slerp_chunk, false);
}

rc_rows_fn rc_rows_for(const rc_row_table *table, int32_t kind, int32_t value_dtype, int32_t out_dtype) {
    switch (kind) {
    case RC_LINEAR:
        return table->linear[value_dtype][out_dtype];
    case RC_ANGLE:
        return table->angle[value_dtype][out_dtype];
    case RC_PCHIP:
        return rc_rows_pchip;
    case RC_SLERP_XYZW:
    case RC_SLERP_WXYZ:
        return rc_rows_slerp;
    default:
        return rc_rows_copy;
    }
}
