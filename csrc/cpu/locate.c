/* Sequences, offsets and the brackets of a tile. */
#include "locate.h"

#define T float
#define TYPED(name) name##_f32
#define MEMBER f32
#include "locate.inc.h"

#define T double
#define TYPED(name) name##_f64
#define MEMBER f64
#include "locate.inc.h"

#define T int64_t
#define TYPED(name) name##_i64
#define MEMBER i64
#include "locate.inc.h"

rc_sequence rc_sequence_at(const rc_stream *stream, int32_t time_dtype, int64_t r) {
    rc_sequence sequence = {
        .index = r, .value_stride = stream->values_stride[1], .time_stride = stream->times_stride[1]};
    int64_t value = 0, time = 0;
    if (stream->row_splits) {
        sequence.first = stream->row_splits[r];
        sequence.n = (int32_t)(stream->row_splits[r + 1] - sequence.first);
        value = sequence.first * sequence.value_stride;
        time = sequence.first * sequence.time_stride;
    } else {
        sequence.first = r * stream->num_samples;
        sequence.n = (int32_t)(stream->lengths ? stream->lengths[r] : stream->num_samples);
        value = r * stream->values_stride[0];
        time = r * stream->times_stride[0];
    }
    if (sequence.n > 0) { /* pointers may be NULL where there is nothing */
        sequence.times = (const char *)stream->times + time * (int64_t)rc_dtype_size(time_dtype);
        if (stream->num_columns > 0) {
            sequence.values = (const char *)stream->values + value * (int64_t)rc_dtype_size(stream->value_dtype);
        }
    }
    return sequence;
}

rc_sequence rc_sequence_of_row(const rc_stream *stream, int32_t time_dtype, int64_t b) {
    return rc_sequence_at(stream, time_dtype, stream->rows ? stream->rows[b] : b);
}

uint32_t rc_reads_of(const rc_stream *stream) {
    uint32_t reads = stream->num_groups == 0 ? 1u << RC_READ_BETWEEN : 0u;
    for (int32_t g = 0; g < stream->num_groups; ++g) {
        reads |= 1u << rc_read_of_kind(stream->groups[g].kind);
    }
    return reads;
}

rc_time rc_offset_of_row(const rc_stream *stream, int32_t time_dtype, int64_t b) {
    rc_time offset;
    if (time_dtype == RC_FLOAT32) {
        offset.f32 = (float)stream->time_offset;
        if (stream->row_offsets) {
            offset.f32 = rc_shift_f32(offset.f32, ((const float *)stream->row_offsets)[b]);
        }
    } else if (time_dtype == RC_FLOAT64) {
        offset.f64 = stream->time_offset;
        if (stream->row_offsets) {
            offset.f64 = rc_shift_f64(offset.f64, ((const double *)stream->row_offsets)[b]);
        }
    } else {
        offset.i64 = (int64_t)stream->time_offset;
        if (stream->row_offsets) {
            offset.i64 = rc_shift_i64(offset.i64, ((const int64_t *)stream->row_offsets)[b]);
        }
    }
    return offset;
}

void rc_find_tile(const rc_query *query, int32_t time_dtype, rc_tile *tile) {
    const rc_find_table *table = rc_row_kernels()->find;
    switch (time_dtype) {
    case RC_FLOAT32:
        table->f32(query, tile);
        break;
    case RC_FLOAT64:
        table->f64(query, tile);
        break;
    default:
        table->i64(query, tile);
        break;
    }
}

void rc_blank_tile(const rc_stream *stream, const rc_query *query, rc_tile *tile) {
    const bool outside = stream->extrapolate == RC_EXTRAPOLATE_NAN;
    const bool invalid = stream->invalid == RC_INVALID_NAN;
    if (!outside && !invalid) {
        return;
    }
    for (int read = 0; read < RC_NUM_READS; ++read) {
        if (!(query->reads >> read & 1u)) {
            continue;
        }
        rc_brackets *b = &tile->brackets[read];
        for (int32_t j = 0; j < query->count; ++j) {
            if ((outside && b->outside[j]) || (invalid && !tile->valid[j])) {
                b->i0[j] = b->i1[j] = -1;
            }
        }
    }
}

void rc_spacing_at(const rc_sequence *sequence, int32_t time_dtype, int32_t i0, double spacing[3]) {
    switch (time_dtype) {
    case RC_FLOAT32:
        spacing_at_f32(sequence, i0, spacing);
        break;
    case RC_FLOAT64:
        spacing_at_f64(sequence, i0, spacing);
        break;
    default:
        spacing_at_i64(sequence, i0, spacing);
        break;
    }
}
