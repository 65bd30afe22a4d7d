/* Features on their way in, results on their way out. */
#include "voxel_reduce.h"

#include "convert.h"

#include <string.h>

static bool wants(const rc_voxel_call *call, int32_t reduce) {
    for (int32_t o = 0; o < call->num_outputs; ++o) {
        if (call->outputs[o].reduce == reduce) {
            return true;
        }
    }
    return false;
}

rc_reducer rc_reducer_of(const rc_voxel_input *in, const rc_voxel_call *call) {
    rc_reducer r = {.in = in, .features = call->features};
    if (!call->features) {
        return r;
    }
    const rc_point_features *features = call->features;
    r.wide = features->dtype == RC_FLOAT64;
    const int32_t compute = r.wide ? RC_FLOAT64 : RC_FLOAT32;
    r.size = (int64_t)rc_dtype_size(features->dtype);
    r.convert = rc_row_kernels()->convert[features->dtype][compute];
    r.direct = features->dtype == compute && (features->stride[3] == 1 || features->num_columns <= 1);
    if (in->depth && in->depth->num_cameras > 1) {
        const int64_t pixels = in->depth->height * in->depth->width;
        r.pixels = features->stride[1] == pixels * features->stride[2] ? 0 : pixels;
    }
    r.sum = wants(call, RC_REDUCE_SUM) || wants(call, RC_REDUCE_MEAN);
    r.max = wants(call, RC_REDUCE_MAX);
    r.min = wants(call, RC_REDUCE_MIN);
    r.argmax = wants(call, RC_REDUCE_ARGMAX);
    r.argmin = wants(call, RC_REDUCE_ARGMIN);
    return r;
}

const char *rc_features_of(const rc_reducer *r, int64_t b) {
    const bool packed = r->in->cloud && r->in->cloud->row_splits;
    const int64_t at = packed ? r->in->cloud->row_splits[b] * r->features->stride[2] : b * r->features->stride[0];
    return (const char *)r->features->values + at * r->size;
}

void rc_load_features(const rc_reducer *r, const char *row, int64_t begin, int32_t columns, void *numbers) {
    const int64_t step = r->features->stride[3] * r->size;
    row += begin * step;
    if (step == r->size) {
        r->convert(row, numbers, columns);
        return;
    }
    for (int32_t c = 0; c < columns; ++c) {
        if (r->wide) {
            r->convert(row + c * step, (double *)numbers + c, 1);
        } else {
            r->convert(row + c * step, (float *)numbers + c, 1);
        }
    }
}

/* ---- Values ----------------------------------------------------------------------------------------------------- */

/* Numbers of the compute dtype to an output's; `step` elements apart. */
static void put(bool wide, const void *numbers, int32_t columns, int32_t dtype, int64_t step, char *to) {
    const rc_convert_fn convert = rc_row_kernels()->convert[wide ? RC_FLOAT64 : RC_FLOAT32][dtype];
    if (step == 1) {
        convert(numbers, to, columns);
        return;
    }
    const int64_t from = wide ? 8 : 4, size = (int64_t)rc_dtype_size(dtype);
    for (int32_t c = 0; c < columns; ++c) {
        convert((const char *)numbers + c * from, to + c * step * size, 1);
    }
}

static void put_arguments(const uint32_t *points, int32_t columns, int32_t dtype, int64_t step, char *to) {
    for (int32_t c = 0; c < columns; ++c) {
        if (dtype == RC_INT32) {
            ((int32_t *)(void *)to)[c * step] = (int32_t)points[c];
        } else {
            ((int64_t *)(void *)to)[c * step] = points[c];
        }
    }
}

void rc_write_values(const rc_reducer *r, const rc_voxel_output *output, const rc_cell_values *values, uint32_t count,
                     int64_t begin, int32_t columns, int64_t step, char *to) {
    to += begin * step * (int64_t)rc_dtype_size(output->dtype);
    union {
        float f32[RC_REDUCE_COLUMNS];
        double f64[RC_REDUCE_COLUMNS];
    } mean;
    switch (output->reduce) {
    case RC_REDUCE_SUM:
        put(r->wide, &values->sum, columns, output->dtype, step, to);
        break;
    case RC_REDUCE_MEAN:
        if (r->wide) {
            for (int32_t c = 0; c < columns; ++c) {
                mean.f64[c] = values->sum.f64[c] / (double)count;
            }
        } else {
            for (int32_t c = 0; c < columns; ++c) {
                mean.f32[c] = values->sum.f32[c] / (float)count;
            }
        }
        put(r->wide, &mean, columns, output->dtype, step, to);
        break;
    case RC_REDUCE_MAX:
        put(r->wide, &values->max, columns, output->dtype, step, to);
        break;
    case RC_REDUCE_MIN:
        put(r->wide, &values->min, columns, output->dtype, step, to);
        break;
    case RC_REDUCE_ARGMAX:
        put_arguments(values->argmax, columns, output->dtype, step, to);
        break;
    default:
        put_arguments(values->argmin, columns, output->dtype, step, to);
        break;
    }
}

/* One element's bytes, `count` times. */
static void repeat(const void *element, size_t size, int64_t count, char *to) {
    static const char zero[8] = {0};
    if (count <= 0) {
        return;
    }
    if (memcmp(element, zero, size) == 0) {
        memset(to, 0, (size_t)count * size);
        return;
    }
    for (int64_t k = 0; k < count && k < 64; ++k) {
        memcpy(to + k * (int64_t)size, element, size);
    }
    for (int64_t done = 64; done < count;) { /* from what stands there already */
        const int64_t some = count - done < 64 ? count - done : 64;
        memcpy(to + done * (int64_t)size, to, (size_t)some * size);
        done += some;
    }
}

void rc_write_empty(const rc_voxel_output *output, double empty_value, int64_t count, char *to) {
    char element[8] = {0};
    const size_t size = rc_dtype_size(output->dtype);
    if (output->reduce == RC_REDUCE_ARGMAX || output->reduce == RC_REDUCE_ARGMIN) {
        memset(element, 0xff, sizeof element); /* -1 */
    } else if (output->reduce > RC_REDUCE_COUNT) {
        rc_row_kernels()->convert[RC_FLOAT64][output->dtype](&empty_value, element, 1);
    }
    repeat(element, size, count, to);
}

/* ---- Counts ----------------------------------------------------------------------------------------------------- */

/* Adds without leaving the type. */
#define ADD_COUNT(TYPE, MAX)                                                                                           \
    do {                                                                                                               \
        TYPE *at = (TYPE *)(void *)to;                                                                                 \
        const int64_t before = accumulate ? *at : 0;                                                                   \
        *at = (TYPE)(before > (int64_t)(MAX) - (int64_t)count ? (int64_t)(MAX) : before + (int64_t)count);             \
    } while (0)

void rc_write_count(int32_t dtype, uint32_t count, bool accumulate, char *to) {
    const float number = (float)count;
    switch (dtype) {
    case RC_BOOL:
        *(uint8_t *)to = 1;
        break;
    case RC_UINT8:
        ADD_COUNT(uint8_t, UINT8_MAX);
        break;
    case RC_INT8:
        ADD_COUNT(int8_t, INT8_MAX);
        break;
    case RC_INT16:
        ADD_COUNT(int16_t, INT16_MAX);
        break;
    case RC_INT32:
        ADD_COUNT(int32_t, INT32_MAX);
        break;
    case RC_INT64:
        ADD_COUNT(int64_t, INT64_MAX);
        break;
    case RC_FLOAT16: {
        rc_f16 *at = (rc_f16 *)(void *)to;
        *at = rc_put_f16(accumulate ? rc_get_f16(*at) + number : number);
        break;
    }
    case RC_BFLOAT16: {
        rc_bf16 *at = (rc_bf16 *)(void *)to;
        *at = rc_put_bf16(accumulate ? rc_get_bf16(*at) + number : number);
        break;
    }
    case RC_FLOAT32: {
        float *at = (float *)(void *)to;
        *at = accumulate ? *at + number : number;
        break;
    }
    default: {
        double *at = (double *)(void *)to;
        *at = accumulate ? *at + (double)count : (double)count;
        break;
    }
    }
}

void rc_write_one(int32_t dtype, char *to) {
    rc_write_count(dtype, 1, false, to);
}
