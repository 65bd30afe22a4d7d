/* Everything that a call's descriptor tells by itself. Nothing the pointers lead to is read, except the descriptor's
 * own streams and column groups. */
#include "common.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define RC_INT64_LIMIT 9223372036854775808.0   /* 2^63 */
#define RC_UINT64_LIMIT 18446744073709551616.0 /* 2^64 */

static const char *const kind_names[RC_NUM_KINDS] = {"linear", "nearest",    "previous",   "next",
                                                     "pchip",  "slerp_xyzw", "slerp_wxyz", "angle"};

#define INVALID(...) rc_fail(RC_INVALID_ARGUMENT, __VA_ARGS__)
#define UNSUPPORTED(...) rc_fail(RC_UNSUPPORTED, __VA_ARGS__)

static bool is_dtype(int32_t dtype) {
    return dtype >= 0 && dtype < RC_NUM_DTYPES;
}

/* An integer type that holds every value of `from` (torch.promote_types(from, to) == to). */
static bool integer_holds(int32_t to, int32_t from) {
    if (to == from || from == RC_BOOL) {
        return true;
    }
    if (to == RC_BOOL || to == RC_UINT8) {
        return false;
    }
    return from == RC_UINT8 ? to >= RC_INT16 : to > from;
}

static rc_status check_groups(const rc_stream *s, int32_t index) {
    if (s->num_groups < 0 || (s->num_groups == 0 && s->num_columns > 0)) {
        return INVALID("streams[%" PRId32 "].num_groups: expected at least 1 for %" PRId64 " columns, got %" PRId32,
                       index, s->num_columns, s->num_groups);
    }
    if (s->num_groups > RC_MAX_COLUMN_GROUPS) {
        return UNSUPPORTED("streams[%" PRId32 "].num_groups: at most %d column groups, got %" PRId32, index,
                           RC_MAX_COLUMN_GROUPS, s->num_groups);
    }
    if (s->num_groups > 0 && !s->groups) {
        return INVALID("streams[%" PRId32 "].groups: expected %" PRId32 " column groups, got NULL", index,
                       s->num_groups);
    }
    int32_t next = 0;
    for (int32_t g = 0; g < s->num_groups; ++g) {
        const rc_column_group *group = &s->groups[g];
        if (group->kind < 0 || group->kind >= RC_NUM_KINDS) {
            return INVALID("streams[%" PRId32 "].groups[%" PRId32 "].kind: expected 0 to %d, got %" PRId32, index, g,
                           RC_NUM_KINDS - 1, group->kind);
        }
        if (group->begin != next || group->end < group->begin || group->end > s->num_columns ||
            (group->end == group->begin && s->num_columns > 0)) {
            return INVALID("streams[%" PRId32 "].groups[%" PRId32 "]: expected columns that begin at %" PRId32
                           " and end by %" PRId64 ", got [%" PRId32 ", %" PRId32 ")",
                           index, g, next, s->num_columns, group->begin, group->end);
        }
        const bool slerp = group->kind == RC_SLERP_XYZW || group->kind == RC_SLERP_WXYZ;
        if (slerp && (group->end - group->begin) % 4 != 0) {
            return INVALID("streams[%" PRId32 "].groups[%" PRId32 "]: %s expected whole quaternions (a multiple of 4 "
                           "columns), got %" PRId32 " columns",
                           index, g, kind_names[group->kind], group->end - group->begin);
        }
        if (!rc_dtype_is_float(s->value_dtype) && !rc_is_step_kind(group->kind)) {
            return INVALID("streams[%" PRId32 "].groups[%" PRId32 "].kind: %s values take nearest, previous or next, "
                           "got %s",
                           index, g, rc_dtype_name(s->value_dtype), kind_names[group->kind]);
        }
        next = group->end;
    }
    if (next != s->num_columns) {
        return INVALID("streams[%" PRId32 "].groups: expected to cover all %" PRId64 " columns, got %" PRId32, index,
                       s->num_columns, next);
    }
    return RC_OK;
}

static rc_status check_policies(const rc_stream *s, int32_t index, int32_t time_dtype) {
    if (s->extrapolate < RC_EXTRAPOLATE_CLAMP || s->extrapolate > RC_EXTRAPOLATE_RAISE) {
        return INVALID("streams[%" PRId32 "].extrapolate: expected 0 to 3, got %" PRId32, index, s->extrapolate);
    }
    if (s->invalid < RC_INVALID_KEEP || s->invalid > RC_INVALID_RAISE) {
        return INVALID("streams[%" PRId32 "].invalid: expected 0 to 2, got %" PRId32, index, s->invalid);
    }
    if (!(s->max_gap >= 0.0)) {
        return INVALID("streams[%" PRId32 "].max_gap: expected 0 or more (infinity: no limit), got %g", index,
                       s->max_gap);
    }
    if (isnan(s->tolerance)) {
        return INVALID("streams[%" PRId32 "].tolerance: expected a number (negative: none), got NaN", index);
    }
    if (!isfinite(s->time_offset)) {
        return INVALID("streams[%" PRId32 "].time_offset: expected a finite number, got %g", index, s->time_offset);
    }
    if (time_dtype == RC_INT64 && (s->time_offset != floor(s->time_offset) || fabs(s->time_offset) >= RC_INT64_LIMIT)) {
        return INVALID("streams[%" PRId32 "].time_offset: expected a whole number that int64 holds, got %.17g", index,
                       s->time_offset);
    }
    if (time_dtype == RC_FLOAT32 && !isfinite((float)s->time_offset)) {
        return INVALID("streams[%" PRId32 "].time_offset: expected a number that float32 holds, got %g", index,
                       s->time_offset);
    }
    return RC_OK;
}

static rc_status check_stream(const rc_stream *s, int32_t index, const rc_align_call *call) {
    if (!is_dtype(s->value_dtype)) {
        return INVALID("streams[%" PRId32 "].value_dtype: expected 0 to %d, got %" PRId32, index, RC_NUM_DTYPES - 1,
                       s->value_dtype);
    }
    if (s->num_sequences < 0 || s->num_samples < 0 || s->num_columns < 0) {
        return INVALID("streams[%" PRId32 "]: expected sizes of 0 or more, got %" PRId64 " sequences, %" PRId64
                       " samples, %" PRId64 " columns",
                       index, s->num_sequences, s->num_samples, s->num_columns);
    }
    if (s->num_columns > INT32_MAX) {
        return UNSUPPORTED("streams[%" PRId32 "].num_columns: at most %d, got %" PRId64, index, INT32_MAX,
                           s->num_columns);
    }
    if (!s->row_splits && s->num_samples > INT32_MAX) {
        return UNSUPPORTED("streams[%" PRId32 "].num_samples: at most %d samples a sequence, got %" PRId64, index,
                           INT32_MAX, s->num_samples);
    }
    if (s->row_splits && s->lengths) {
        return INVALID("streams[%" PRId32 "].lengths: expected NULL beside row_splits", index);
    }
    if (!s->rows && s->num_sequences != call->batch) {
        return INVALID("streams[%" PRId32 "].num_sequences: expected the batch size, %" PRId64
                       ", for a stream without rows, got %" PRId64,
                       index, call->batch, s->num_sequences);
    }
    int64_t elements = s->num_samples;
    if (!rc_product(elements, s->row_splits ? 1 : s->num_sequences, &elements)) {
        return UNSUPPORTED("streams[%" PRId32 "]: %" PRId64 " sequences of %" PRId64
                           " samples are more than int64 counts",
                           index, s->num_sequences, s->num_samples);
    }
    if (elements > 0 && !s->times) {
        return INVALID("streams[%" PRId32 "].times: expected %" PRId64 " samples, got NULL", index, elements);
    }
    if (elements > 0 && s->num_columns > 0 && !s->values) {
        return INVALID("streams[%" PRId32 "].values: expected %" PRId64 " samples of %" PRId64 " columns, got NULL",
                       index, elements, s->num_columns);
    }
    const rc_status status = check_policies(s, index, call->time_dtype);
    return status != RC_OK ? status : check_groups(s, index);
}

/* What the output asks of a stream. */
static rc_status check_stream_output(const rc_stream *s, int32_t index, int32_t out_dtype) {
    if (rc_dtype_is_float(out_dtype)) {
        return RC_OK;
    }
    if (rc_dtype_is_float(s->value_dtype) || !integer_holds(out_dtype, s->value_dtype)) {
        return INVALID("out_dtype: expected a type that holds the %s values of streams[%" PRId32 "], got %s",
                       rc_dtype_name(s->value_dtype), index, rc_dtype_name(out_dtype));
    }
    if (s->extrapolate == RC_EXTRAPOLATE_NAN || s->invalid == RC_INVALID_NAN) {
        return INVALID("streams[%" PRId32 "].%s: NaN needs a floating out_dtype, got %s", index,
                       s->extrapolate == RC_EXTRAPOLATE_NAN ? "extrapolate" : "invalid", rc_dtype_name(out_dtype));
    }
    return RC_OK;
}

static rc_status check_output(const rc_align_call *call) {
    if (!is_dtype(call->out_dtype)) {
        return INVALID("out_dtype: expected 0 to %d, got %" PRId32, RC_NUM_DTYPES - 1, call->out_dtype);
    }
    int64_t columns = 0;
    for (int32_t s = 0; s < call->num_streams; ++s) {
        const rc_status status = check_stream_output(&call->streams[s], s, call->out_dtype);
        if (status != RC_OK) {
            return status;
        }
        columns += call->streams[s].num_columns;
    }
    const int64_t sizes[3] = {call->batch, call->num_targets, columns};
    if (sizes[0] == 0 || sizes[1] == 0 || sizes[2] == 0) {
        return RC_OK;
    }
    if (!call->out) {
        return INVALID("out: expected [B, T, D] = [%" PRId64 ", %" PRId64 ", %" PRId64 "], got NULL", sizes[0],
                       sizes[1], sizes[2]);
    }
    for (int d = 0; d < 3; ++d) {
        if (sizes[d] > 1 && call->out_stride[d] == 0) {
            return INVALID("out_stride[%d]: expected elements of their own for %" PRId64 " entries, got stride 0", d,
                           sizes[d]);
        }
    }
    return RC_OK;
}

/* `gradient`: the forward call of a gradient, of one stream and without output. */
static rc_status check_call(const rc_align_call *call, const char *name, bool gradient) {
    if (!call) {
        return INVALID("%s: expected a descriptor, got NULL", name);
    }
    if (call->struct_size != sizeof(rc_align_call)) {
        return INVALID("%s->struct_size: expected %zu, got %" PRIu32
                       "; the caller was built against another robocache.h",
                       name, sizeof(rc_align_call), call->struct_size);
    }
    if (call->time_dtype != RC_FLOAT32 && call->time_dtype != RC_FLOAT64 && call->time_dtype != RC_INT64) {
        return INVALID("time_dtype: expected float32, float64 or int64, got %s", rc_dtype_name(call->time_dtype));
    }
    if (call->num_streams < 1) {
        return INVALID("num_streams: expected 1 to %d, got %" PRId32, RC_MAX_STREAMS, call->num_streams);
    }
    if (call->num_streams > RC_MAX_STREAMS) {
        return UNSUPPORTED("num_streams: at most %d streams a call, got %" PRId32, RC_MAX_STREAMS, call->num_streams);
    }
    if (gradient && call->num_streams != 1) {
        return INVALID("%s->num_streams: expected 1, got %" PRId32, name, call->num_streams);
    }
    if (!call->streams) {
        return INVALID("streams: expected %" PRId32 " streams, got NULL", call->num_streams);
    }
    if (call->reserved != 0) {
        return INVALID("reserved: expected 0, got %" PRId32, call->reserved);
    }
    if (call->batch < 0 || call->num_targets < 0) {
        return INVALID("targets: expected [B, T] of 0 or more, got [%" PRId64 ", %" PRId64 "]", call->batch,
                       call->num_targets);
    }
    int64_t targets = 0;
    if (!rc_product(call->batch, call->num_targets, &targets)) {
        return UNSUPPORTED("targets: [%" PRId64 ", %" PRId64 "] are more than int64 counts", call->batch,
                           call->num_targets);
    }
    if (targets > 0 && !call->targets) {
        return INVALID("targets: expected [B, T] = [%" PRId64 ", %" PRId64 "], got NULL", call->batch,
                       call->num_targets);
    }
    int64_t groups = 0;
    for (int32_t s = 0; s < call->num_streams; ++s) {
        const rc_status status = check_stream(&call->streams[s], s, call);
        if (status != RC_OK) {
            return status;
        }
        groups += call->streams[s].num_groups;
    }
    if (groups > RC_MAX_COLUMN_GROUPS) {
        return UNSUPPORTED("streams: at most %d column groups a call, got %" PRId64, RC_MAX_COLUMN_GROUPS, groups);
    }
    return gradient ? RC_OK : check_output(call);
}

rc_status rc_check_align_call(const rc_align_call *call) {
    return check_call(call, "call", false);
}

rc_status rc_check_align_grad_call(const rc_align_grad_call *call) {
    if (!call) {
        return INVALID("call: expected a descriptor, got NULL");
    }
    if (call->struct_size != sizeof(rc_align_grad_call)) {
        return INVALID("call->struct_size: expected %zu, got %" PRIu32
                       "; the caller was built against another robocache.h",
                       sizeof(rc_align_grad_call), call->struct_size);
    }
    const rc_status status = check_call(call->forward, "forward", true);
    if (status != RC_OK) {
        return status;
    }
    const rc_stream *s = call->forward->streams;
    if (!rc_dtype_is_float(call->grad_dtype)) {
        return INVALID("grad_dtype: expected a floating dtype, got %s", rc_dtype_name(call->grad_dtype));
    }
    if (!rc_dtype_is_float(s->value_dtype)) {
        return INVALID("values: expected a floating dtype for a gradient, got %s", rc_dtype_name(s->value_dtype));
    }
    if (call->grad_targets && call->forward->time_dtype == RC_INT64) {
        return INVALID("grad_targets: expected floating times, got int64");
    }
    if (call->forward->batch > 0 && call->forward->num_targets > 0 && s->num_columns > 0 && !call->grad_out) {
        return INVALID("grad_out: expected [B, T, D] = [%" PRId64 ", %" PRId64 ", %" PRId64 "], got NULL",
                       call->forward->batch, call->forward->num_targets, s->num_columns);
    }
    if (s->rows && call->grad_values && call->forward->batch > 0 && (!call->row_order || !call->row_starts)) {
        return INVALID("%s: expected the output rows by sequence for a stream with rows, got NULL",
                       call->row_order ? "row_starts" : "row_order");
    }
    if (!s->rows && (call->row_order || call->row_starts)) {
        return INVALID("%s: expected NULL for a stream without rows", call->row_order ? "row_order" : "row_starts");
    }
    return RC_OK;
}

/* ---- Policies --------------------------------------------------------------------------------------------------- */

static rc_span make_span(double span, int32_t time_dtype) {
    rc_span result = {0};
    if (time_dtype == RC_INT64) {
        result.u = span >= RC_UINT64_LIMIT ? UINT64_MAX : (uint64_t)span; /* whole part: floor, as span >= 0 */
    } else {
        result.f32 = (float)span;
        result.f = time_dtype == RC_FLOAT32 ? (double)result.f32 : span;
    }
    return result;
}

rc_policy rc_make_policy(const rc_stream *stream, int32_t time_dtype) {
    rc_policy policy = {.extrapolate = stream->extrapolate};
    policy.max_gap = make_span(stream->max_gap, time_dtype);
    policy.has_tolerance = stream->tolerance >= 0.0;
    policy.tolerance = make_span(policy.has_tolerance ? stream->tolerance : 0.0, time_dtype);
    return policy;
}

uint32_t rc_kinds_of(const rc_stream *stream) {
    uint32_t kinds = 0;
    for (int32_t g = 0; g < stream->num_groups; ++g) {
        kinds |= 1u << stream->groups[g].kind;
    }
    return kinds;
}
