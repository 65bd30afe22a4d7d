/* rc_devoxelize_cpu: a tile of points finds where it reads, then each point mixes its eight cells. */
#include "devoxelize.h"

#include <string.h>

typedef struct work {
    const rc_devoxelize_call *call;
    const rc_voxel_input *in;
    const rc_row_table *table;
    const rc_chunk *chunks;
    bool wide;     /* values mix in double */
    int64_t size;  /* bytes of a value */
    char empty[8]; /* empty_value in the out dtype */
} work;

/* Columns begin .. begin + columns of a cell's values, as numbers of `dtype`. */
static void load_values(const work *job, const char *cell, int64_t begin, int32_t columns, int32_t dtype, void *to) {
    const rc_convert_fn convert = job->table->convert[job->call->value_dtype][dtype];
    const int64_t step = job->call->values_stride[4] * job->size, size = (int64_t)rc_dtype_size(dtype);
    cell += begin * step;
    if (step == job->size) {
        convert(cell, to, columns);
        return;
    }
    for (int32_t c = 0; c < columns; ++c) {
        convert(cell + c * step, (char *)to + c * size, 1);
    }
}

static const char *cell_at(const work *job, int64_t b, int64_t x, int64_t y, int64_t z) {
    const int64_t *stride = job->call->values_stride;
    const int64_t at = b * stride[0] + x * stride[1] + y * stride[2] + z * stride[3];
    return (const char *)job->call->values + at * job->size;
}

#define MIX(REAL, SUFFIX, REAL_DTYPE)                                                                                  \
    static void mix_##SUFFIX(const work *job, int64_t b, const rc_read_tile *tile, int32_t i, char *to) {              \
        const int64_t out_size = (int64_t)rc_dtype_size(job->call->out_dtype);                                         \
        const REAL wx = (REAL)tile->weight[i][0], wy = (REAL)tile->weight[i][1], wz = (REAL)tile->weight[i][2];        \
        REAL v[8][RC_DEVOXELIZE_COLUMNS];                                                                              \
        for (int64_t begin = 0; begin < job->call->num_columns; begin += RC_DEVOXELIZE_COLUMNS) {                      \
            const int64_t left = job->call->num_columns - begin;                                                       \
            const int32_t columns = (int32_t)(left < RC_DEVOXELIZE_COLUMNS ? left : RC_DEVOXELIZE_COLUMNS);            \
            for (int j = 0; j < 8; ++j) {                                                                              \
                const char *cell = cell_at(job, b, tile->at[i][0][j >> 2], tile->at[i][1][j >> 1 & 1],                 \
                                           tile->at[i][2][j & 1]);                                                     \
                load_values(job, cell, begin, columns, REAL_DTYPE, v[j]);                                              \
            }                                                                                                          \
            for (int32_t c = 0; c < columns; ++c) {                                                                    \
                const REAL z00 = v[0][c] + wz * (v[1][c] - v[0][c]), z01 = v[2][c] + wz * (v[3][c] - v[2][c]);         \
                const REAL z10 = v[4][c] + wz * (v[5][c] - v[4][c]), z11 = v[6][c] + wz * (v[7][c] - v[6][c]);         \
                const REAL y0 = z00 + wy * (z01 - z00), y1 = z10 + wy * (z11 - z10);                                   \
                v[0][c] = y0 + wx * (y1 - y0);                                                                         \
            }                                                                                                          \
            job->table->convert[REAL_DTYPE][job->call->out_dtype](v[0], to + begin * out_size, columns);               \
        }                                                                                                              \
    }

MIX(float, f32, RC_FLOAT32)
MIX(double, f64, RC_FLOAT64)

static void copy_cell(const work *job, int64_t b, int64_t cell, char *to) {
    const int64_t y = job->in->grid->size[1], z = job->in->grid->size[2];
    const char *from = cell_at(job, b, cell / z / y, cell / z % y, cell % z);
    load_values(job, from, 0, (int32_t)job->call->num_columns, job->call->out_dtype, to);
}

static void fill(const work *job, int64_t begin, int64_t end) {
    const int64_t columns = job->call->num_columns, size = (int64_t)rc_dtype_size(job->call->out_dtype);
    char *to = (char *)job->call->out + begin * columns * size;
    for (int64_t k = 0; k < (end - begin) * columns; ++k) {
        memcpy(to + k * size, job->empty, (size_t)size);
    }
}

static void read_chunks(int64_t begin, int64_t end, void *context) {
    const work *job = context;
    const bool trilinear = job->call->mode == RC_DEVOXELIZE_TRILINEAR;
    const int64_t row = job->call->num_columns * (int64_t)rc_dtype_size(job->call->out_dtype);
    rc_read_tile tile;
    for (int64_t k = begin; k < end; ++k) {
        const rc_chunk *chunk = &job->chunks[k];
        const int32_t count = (int32_t)(chunk->end - chunk->begin);
        rc_read_points(job->in, trilinear, chunk->sample, chunk->begin - rc_sample_of(job->in, chunk->sample).begin,
                       count, &tile);
        for (int32_t i = 0; i < count; ++i) {
            const int64_t cell = rc_read_cell(job->in, &tile, i);
            char *to = (char *)job->call->out + (chunk->begin + i) * row;
            if (cell < 0) {
                fill(job, chunk->begin + i, chunk->begin + i + 1);
            } else if (!trilinear) {
                copy_cell(job, chunk->sample, cell, to);
            } else if (job->wide) {
                mix_f64(job, chunk->sample, &tile, i, to);
            } else {
                mix_f32(job, chunk->sample, &tile, i, to);
            }
        }
    }
}

/* empty_value as an integer holds at the ends of its type. */
static void make_empty(double value, int32_t dtype, char *to) {
    static const double low[RC_NUM_DTYPES] = {[RC_INT8] = INT8_MIN, [RC_INT16] = INT16_MIN, [RC_INT32] = INT32_MIN};
    static const double high[RC_NUM_DTYPES] = {
        [RC_BOOL] = 1, [RC_UINT8] = UINT8_MAX, [RC_INT8] = INT8_MAX, [RC_INT16] = INT16_MAX, [RC_INT32] = INT32_MAX};
    int64_t whole;
    if (dtype == RC_BOOL) {
        whole = value != 0.0;
    } else if (dtype == RC_INT64) {
        whole = value >= 0x1p63 ? INT64_MAX : value < -0x1p63 ? INT64_MIN : value == value ? (int64_t)value : 0;
    } else {
        whole = value != value ? 0
                               : (int64_t)(value < low[dtype]    ? low[dtype]
                                           : value > high[dtype] ? high[dtype]
                                                                 : value);
    }
    const int8_t i8 = (int8_t)whole;
    const int16_t i16 = (int16_t)whole;
    const int32_t i32 = (int32_t)whole;
    const size_t size = rc_dtype_size(dtype);
    memcpy(to,
           size == 1   ? (const void *)&i8
           : size == 2 ? (const void *)&i16
           : size == 4 ? (const void *)&i32
                       : &whole,
           size);
}

rc_status rc_devoxelize_cpu(const rc_devoxelize_call *call) {
    rc_status status = rc_check_devoxelize_call(call);
    if (status != RC_OK) {
        return status;
    }
    const rc_voxel_input in = rc_input_of_devoxelize(call);
    status = rc_check_voxel_data(&in);
    if (status == RC_OK) {
        status = rc_check_outside(&in);
    }
    if (status != RC_OK) {
        return status;
    }
    int64_t count = 0;
    rc_chunk *chunks = rc_make_chunks(&in, RC_POINT_TILE, &count);
    if (!chunks) {
        return rc_fail(RC_OUT_OF_MEMORY, "scratch space for %lld points could not be had", (long long)in.total);
    }
    work job = {.call = call,
                .in = &in,
                .table = rc_row_kernels(),
                .chunks = chunks,
                .wide = in.wide || call->value_dtype == RC_FLOAT64,
                .size = (int64_t)rc_dtype_size(call->value_dtype)};
    if (rc_dtype_is_float(call->out_dtype)) {
        job.table->convert[RC_FLOAT64][call->out_dtype](&call->empty_value, job.empty, 1);
    } else {
        make_empty(call->empty_value, call->out_dtype, job.empty);
    }
    /* Packed points before the first sample and after the last belong to none. */
    fill(&job, 0, in.batch > 0 ? rc_sample_of(&in, 0).begin : in.total);
    fill(&job, in.batch > 0 ? rc_sample_of(&in, in.batch - 1).end : in.total, in.total);
    rc_run(in.parallel_for, in.pool, count, 1, read_chunks, &job);
    free(chunks);
    rc_count_launch(RC_KERNEL_DEVOXELIZE_CPU);
    return RC_OK;
}
