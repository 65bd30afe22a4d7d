/* The rules of alignment written the slow and obvious way: one target, one column, every sample looked at in turn.
 *
 * Times are held as long double, which has room for int64 and double alike.
 */
#ifndef RC_TESTS_ORACLE_H
#define RC_TESTS_ORACLE_H

#include "core/interpolate.h"
#include "support.h"

typedef struct reading {
    int64_t i0, i1; /* -1: nothing; equal: a copy */
    double w;
    bool valid;
    bool outside;
} reading;

/* One sequence, its samples' times copied out. */
typedef struct run {
    int64_t n;
    long double *times;
    const char *values;
} run;

static inline long double read_time(const void *p, int32_t td) {
    return td == RC_INT64 ? (long double)*(const int64_t *)p : (long double)read_value(p, td);
}

/* later - earlier as the time dtype computes it. */
static inline long double elapsed(long double later, long double earlier, int32_t td) {
    return td == RC_FLOAT32   ? (long double)((float)later - (float)earlier)
           : td == RC_FLOAT64 ? (long double)((double)later - (double)earlier)
                              : later - earlier;
}

static inline double ratio(long double part, long double whole, int32_t td) {
    return td == RC_FLOAT32 ? (double)((float)part / (float)whole) : (double)part / (double)whole;
}

static inline long double plus(long double a, long double b, int32_t td) {
    if (td == RC_FLOAT32) {
        return (long double)((float)a + (float)b);
    }
    if (td == RC_FLOAT64) {
        return (long double)((double)a + (double)b);
    }
    const long double sum = a + b;
    return sum > (long double)INT64_MAX   ? (long double)INT64_MAX
           : sum < (long double)INT64_MIN ? (long double)INT64_MIN
                                          : sum;
}

static inline run run_of_row(const rc_stream *s, int32_t td, int64_t b) {
    const int64_t r = s->rows ? s->rows[b] : b;
    run q = {0};
    int64_t time = 0, value = 0;
    if (s->row_splits) {
        q.n = s->row_splits[r + 1] - s->row_splits[r];
        time = s->row_splits[r] * s->times_stride[1];
        value = s->row_splits[r] * s->values_stride[1];
    } else {
        q.n = s->lengths ? s->lengths[r] : s->num_samples;
        time = r * s->times_stride[0];
        value = r * s->values_stride[0];
    }
    q.times = allocate(q.n, sizeof(long double));
    for (int64_t i = 0; i < q.n; ++i) {
        q.times[i] = read_time((const char *)s->times + (time + i * s->times_stride[1]) * (int64_t)rc_dtype_size(td),
                               td);
    }
    q.values = (const char *)s->values + value * (int64_t)rc_dtype_size(s->value_dtype);
    return q;
}

static inline long double target_of(const rc_align_call *call, int32_t s, int64_t b, int64_t j) {
    const int32_t td = call->time_dtype;
    const int64_t size = (int64_t)rc_dtype_size(td);
    const rc_stream *stream = &call->streams[s];
    long double offset = (long double)(td == RC_FLOAT32 ? (double)(float)stream->time_offset : stream->time_offset);
    if (stream->row_offsets) {
        offset = plus(offset, read_time((const char *)stream->row_offsets + b * size, td), td);
    }
    const int64_t at = b * call->targets_stride[0] + j * call->targets_stride[1];
    return plus(read_time((const char *)call->targets + at * size, td), offset, td);
}

static inline long double policy_span(double span, int32_t td) {
    return td == RC_FLOAT32 ? (long double)(float)span : td == RC_INT64 ? floorl((long double)span) : (long double)span;
}

static inline reading read_at(const rc_stream *s, int32_t td, const run *q, long double t, int32_t kind) {
    const bool step = kind == RC_NEAREST || kind == RC_PREVIOUS || kind == RC_NEXT;
    const bool has_tolerance = s->tolerance >= 0.0;
    const long double tolerance = policy_span(s->tolerance, td), max_gap = policy_span(s->max_gap, td);
    const int64_t last = q->n - 1;
    reading nothing = {-1, -1, 0.0, false, true};
    if (q->n == 0 || t != t) {
        return nothing;
    }
    if (t < q->times[0] || t > q->times[last]) {
        const bool before = t < q->times[0];
        int64_t end = before ? 0 : last; /* `next` takes the first of equal stamps, all others the last */
        int64_t first = end;
        while (before && end < last && q->times[end + 1] == q->times[0]) {
            ++end;
        }
        while (!before && first > 0 && q->times[first - 1] == q->times[last]) {
            --first;
        }
        reading r = {end, end, 0.0, false, true};
        if (step) {
            const long double distance = before ? elapsed(q->times[0], t, td) : elapsed(t, q->times[last], td);
            r.i0 = r.i1 = kind == RC_NEXT ? first : end;
            r.valid = has_tolerance && distance <= tolerance;
            r.outside = !r.valid;
        } else if (s->extrapolate == RC_EXTRAPOLATE_LINEAR) {
            const int64_t j = before ? end : first - 1;
            if (j >= 0 && j < last) {
                const long double gap = elapsed(q->times[j + 1], q->times[j], td);
                r.i0 = j;
                r.i1 = j + 1;
                r.w = before ? -ratio(elapsed(q->times[j], t, td), gap, td)
                             : ratio(elapsed(t, q->times[j], td), gap, td);
            }
        }
        return r;
    }
    int64_t i = 0;
    while (i < last && q->times[i + 1] <= t) {
        ++i;
    }
    if (q->times[i] == t) {
        while (kind == RC_NEXT && i > 0 && q->times[i - 1] == t) {
            --i;
        }
        reading r = {i, i, 0.0, true, false};
        return r;
    }
    const long double since = elapsed(t, q->times[i], td), until = elapsed(q->times[i + 1], t, td);
    const long double gap = elapsed(q->times[i + 1], q->times[i], td);
    reading r = {i, i, 0.0, false, false};
    long double distance = since;
    if (kind == RC_NEXT || (kind == RC_NEAREST && until < since)) {
        distance = until;
        r.i0 = i + 1;
        while (kind == RC_NEAREST && r.i0 < last && q->times[r.i0 + 1] == q->times[r.i0]) {
            ++r.i0;
        }
        r.i1 = r.i0;
    } else if (!step) {
        distance = until < since ? until : since;
        r.i1 = i + 1;
        r.w = ratio(since, gap, td);
    }
    r.valid = gap <= max_gap && (!has_tolerance || distance <= tolerance);
    return r;
}

static inline const char *sample(const rc_stream *s, const run *q, int64_t i, int64_t c) {
    return q->values + (i * s->values_stride[1] + c * s->values_stride[2]) * (int64_t)rc_dtype_size(s->value_dtype);
}

/* Intervals around bracket i0, 0 where there is none. */
static inline void intervals(const run *q, int32_t td, int64_t i0, double h[3]) {
    h[0] = i0 > 0 ? (double)elapsed(q->times[i0], q->times[i0 - 1], td) : 0.0;
    h[1] = (double)elapsed(q->times[i0 + 1], q->times[i0], td);
    h[2] = i0 + 2 < q->n ? (double)elapsed(q->times[i0 + 2], q->times[i0 + 1], td) : 0.0;
}

/* Four samples around bracket i0 in one column, 0 where there is none. */
static inline void window_at(const rc_stream *s, const run *q, int64_t i0, int64_t c, double v[4]) {
    for (int64_t k = 0; k < 4; ++k) {
        const int64_t i = i0 - 1 + k;
        v[k] = i >= 0 && i < q->n ? read_value(sample(s, q, i, c), s->value_dtype) : 0.0;
    }
}

/* Column c of `group` at a reading, into `out`. */
static inline void evaluate(const rc_stream *s, int32_t td, const run *q, const rc_column_group *group, int64_t c,
                            reading r, void *out, int32_t out_dtype) {
    const bool narrow = s->value_dtype != RC_FLOAT64;
    const bool curve = group->kind == RC_PCHIP || group->kind == RC_SLERP_XYZW || group->kind == RC_SLERP_WXYZ;
    if (r.i0 < 0) {
        if (is_float(out_dtype)) {
            write_float(out, out_dtype, (double)NAN);
        } else {
            write_integer(out, out_dtype, 0);
        }
        return;
    }
    const char *first = sample(s, q, r.i0, c);
    const double v0 = read_value(first, s->value_dtype);
    const double v1 = read_value(sample(s, q, r.i1, c), s->value_dtype);
    if (r.i0 == r.i1 && group->kind == RC_ANGLE) {
        write_float(out, out_dtype, narrow ? (double)rc_wrap_f32((float)v0) : rc_wrap_f64(v0));
    } else if (r.i0 == r.i1 && s->value_dtype == out_dtype) {
        memcpy(out, first, rc_dtype_size(out_dtype));
    } else if (r.i0 == r.i1 && !is_float(out_dtype)) {
        write_integer(out, out_dtype, read_integer(first, s->value_dtype));
    } else if (r.i0 == r.i1 && s->value_dtype == RC_INT64 && out_dtype != RC_FLOAT64) {
        write_float(out, out_dtype, (double)(float)read_integer(first, RC_INT64));
    } else if (r.i0 == r.i1) {
        write_float(out, out_dtype, v0);
    } else if (!curve) {
        const float a = (float)v0, b = (float)v1, w = (float)r.w;
        double value;
        if (group->kind == RC_ANGLE) {
            value = narrow ? (double)rc_angle_f32(a, b, w) : rc_angle_f64(v0, v1, r.w);
        } else if (narrow) {
            const float difference = b - a;
            const float part = w * difference;
            value = (double)(float)(a + part);
        } else {
            const double difference = v1 - v0;
            const double part = r.w * difference;
            value = v0 + part;
        }
        write_float(out, out_dtype, value);
    } else if (group->kind == RC_PCHIP) {
        double v[4], h[3];
        window_at(s, q, r.i0, c, v);
        intervals(q, td, r.i0, h);
        write_float(out, out_dtype, rc_pchip(v, h, r.w, NULL, NULL));
    } else {
        double q0[4], q1[4], result[4];
        const int64_t begin = c - (c - group->begin) % 4;
        for (int64_t k = 0; k < 4; ++k) {
            q0[k] = read_value(sample(s, q, r.i0, begin + k), s->value_dtype);
            q1[k] = read_value(sample(s, q, r.i1, begin + k), s->value_dtype);
        }
        rc_slerp(q0, q1, r.w, result);
        write_float(out, out_dtype, result[c - begin]);
    }
}

/* Readings of one target by group, after what `extrapolate` and `invalid` blank. Returns the stream's validity. */
static inline bool read_target(const rc_align_call *call, int32_t s, const run *q, int64_t b, int64_t j,
                               reading *by_group) {
    const rc_stream *stream = &call->streams[s];
    const long double t = target_of(call, s, b, j);
    bool valid = true;
    if (stream->num_groups == 0) {
        return read_at(stream, call->time_dtype, q, t, RC_LINEAR).valid;
    }
    for (int32_t g = 0; g < stream->num_groups; ++g) {
        by_group[g] = read_at(stream, call->time_dtype, q, t, stream->groups[g].kind);
        valid = valid && by_group[g].valid;
    }
    for (int32_t g = 0; g < stream->num_groups; ++g) {
        if ((stream->extrapolate == RC_EXTRAPOLATE_NAN && by_group[g].outside) ||
            (stream->invalid == RC_INVALID_NAN && !valid)) {
            by_group[g].i0 = by_group[g].i1 = -1;
        }
    }
    return valid;
}

#endif /* RC_TESTS_ORACLE_H */
