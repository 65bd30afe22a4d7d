/* What only the data can tell. A call's data is checked whole before anything is written.
 *
 * The common case is sound data, so a quick parallel pass only asks whether anything is wrong; if so, a slow serial one
 * finds the first fault.
 */
#include "locate.h"
#include "scratch.h"

#include <math.h>
#include <stdatomic.h>

static bool fault(rc_fault_report *report, rc_data_fault what, int32_t s, int64_t row, int64_t position) {
    *report = (rc_fault_report){.fault = (int32_t)what, .stream = s, .row = row, .position = position};
    return false;
}

/* Where output row b's sequence lies; false if there is none in bounds. */
static bool check_place(const rc_stream *stream, int32_t s, int64_t b, rc_fault_report *report) {
    const int64_t r = stream->rows ? stream->rows[b] : b;
    if (r < 0 || r >= stream->num_sequences) {
        return fault(report, RC_FAULT_ROW, s, b, 0);
    }
    if (stream->row_splits) {
        const int64_t begin = stream->row_splits[r], end = stream->row_splits[r + 1];
        if (begin < 0 || end < begin || end > stream->num_samples) {
            return fault(report, RC_FAULT_ROW_SPLITS, s, r, 0);
        }
    } else if (stream->lengths && (stream->lengths[r] < 0 || stream->lengths[r] > stream->num_samples)) {
        return fault(report, RC_FAULT_LENGTH, s, r, 0);
    }
    return true;
}

/* Too long for int32 sample indices; what check_call() could not see. */
static bool is_too_long(const rc_stream *stream, int64_t b) {
    if (!stream->row_splits) {
        return false;
    }
    const int64_t r = stream->rows ? stream->rows[b] : b;
    return stream->row_splits[r + 1] - stream->row_splits[r] > INT32_MAX;
}

/* ---- Times ------------------------------------------------------------------------------------------------------ */

static bool check_times_f32(const rc_sequence *q, int32_t s, rc_fault_report *report) {
    const float *times = (const float *)(const void *)q->times;
    bool tied = false, minimal = false;
    float earlier = times[0];
    for (int32_t i = 0; i < q->n; ++i) {
        const float later = times[i * q->time_stride];
        const int32_t what = rc_time_fault_f32(earlier, later);
        if (what != RC_FAULT_NONE) {
            return fault(report, (rc_data_fault)what, s, q->index, i);
        }
        if (i > 0) {
            const bool tie = rc_times_tied_f32(earlier, later);
            tied = tied || tie;
            minimal = minimal || rc_times_minimal_f32(earlier, later);
            if ((tied && minimal) || (tie && fabsf(later) >= RC_F32_INTEGER_LIMIT)) {
                return fault(report, RC_FAULT_TIME_COLLAPSED, s, q->index, i);
            }
        }
        earlier = later;
    }
    return true;
}

static bool check_times_f64(const rc_sequence *q, int32_t s, rc_fault_report *report) {
    const double *times = (const double *)(const void *)q->times;
    double earlier = times[0];
    for (int32_t i = 0; i < q->n; ++i) {
        const double later = times[i * q->time_stride];
        const int32_t what = rc_time_fault_f64(earlier, later);
        if (what != RC_FAULT_NONE) {
            return fault(report, (rc_data_fault)what, s, q->index, i);
        }
        earlier = later;
    }
    return true;
}

static bool check_times_i64(const rc_sequence *q, int32_t s, rc_fault_report *report) {
    const int64_t *times = (const int64_t *)(const void *)q->times;
    int64_t earlier = times[0];
    for (int32_t i = 0; i < q->n; ++i) {
        const int64_t later = times[i * q->time_stride];
        const int32_t what = rc_time_fault_i64(earlier, later);
        if (what != RC_FAULT_NONE) {
            return fault(report, (rc_data_fault)what, s, q->index, i);
        }
        earlier = later;
    }
    return true;
}

static bool check_times(const rc_sequence *q, int32_t time_dtype, int32_t s, rc_fault_report *report) {
    if (q->n == 0) {
        return true;
    }
    const rc_find_table *table = rc_row_kernels()->find;
    const bool dense = q->time_stride == 1;
    const void *times = q->times;
    switch (time_dtype) {
    case RC_FLOAT32:
        return (dense && !table->suspect_f32(times, q->n)) || check_times_f32(q, s, report);
    case RC_FLOAT64:
        return (dense && !table->suspect_f64(times, q->n)) || check_times_f64(q, s, report);
    default:
        return (dense && !table->suspect_i64(times, q->n)) || check_times_i64(q, s, report);
    }
}

/* ---- Targets ---------------------------------------------------------------------------------------------------- */

static const char *targets_of_row(const rc_align_call *call, int64_t b) {
    return (const char *)call->targets + b * call->targets_stride[0] * (int64_t)rc_dtype_size(call->time_dtype);
}

/* The first target of row b that is NaN once shifted, or -1. */
static int64_t first_nan_target(const rc_align_call *call, int64_t b, rc_time offset) {
    const void *row = targets_of_row(call, b);
    const int64_t stride = call->targets_stride[1];
    if (call->time_dtype == RC_FLOAT32) {
        const float *t = row;
        for (int64_t j = 0; j < call->num_targets; ++j) {
            if (isnan(rc_shift_f32(t[j * stride], offset.f32))) {
                return j;
            }
        }
    } else if (call->time_dtype == RC_FLOAT64) {
        const double *t = row;
        for (int64_t j = 0; j < call->num_targets; ++j) {
            if (isnan(rc_shift_f64(t[j * stride], offset.f64))) {
                return j;
            }
        }
    }
    return -1;
}

/* False: no target of row b is NaN, before the offset is added. */
static bool may_have_nan(const rc_align_call *call, int64_t b) {
    if (call->num_targets == 0 || call->time_dtype == RC_INT64) {
        return false;
    }
    if (call->targets_stride[1] != 1) {
        return true;
    }
    const rc_find_table *table = rc_row_kernels()->find;
    const void *row = targets_of_row(call, b);
    return call->time_dtype == RC_FLOAT32 ? table->has_nan_f32(row, call->num_targets)
                                          : table->has_nan_f64(row, call->num_targets);
}

static bool is_finite_offset(rc_time offset, int32_t time_dtype) {
    return time_dtype == RC_FLOAT32 ? isfinite(offset.f32) : time_dtype == RC_FLOAT64 ? isfinite(offset.f64) : true;
}

static bool check_policies(const rc_align_call *call, int32_t s, int64_t b, rc_fault_report *report) {
    const rc_stream *stream = &call->streams[s];
    const rc_policy policy = rc_make_policy(stream, call->time_dtype);
    const rc_sequence sequence = rc_sequence_of_row(stream, call->time_dtype, b);
    const int64_t step = call->targets_stride[1] * (int64_t)rc_dtype_size(call->time_dtype);
    rc_query query = {.sequence = &sequence,
                      .policy = &policy,
                      .target_stride = call->targets_stride[1],
                      .offset = rc_offset_of_row(stream, call->time_dtype, b),
                      .reads = rc_reads_of(stream)};
    rc_tile tile;
    for (int64_t begin = 0; begin < call->num_targets; begin += RC_TILE) {
        query.targets = targets_of_row(call, b) + begin * step;
        query.count = (int32_t)(call->num_targets - begin < RC_TILE ? call->num_targets - begin : RC_TILE);
        rc_find_tile(&query, call->time_dtype, &tile);
        for (int32_t j = 0; j < query.count; ++j) {
            bool outside = false;
            for (int read = 0; read < RC_NUM_READS; ++read) {
                outside = outside || ((query.reads >> read & 1u) && tile.brackets[read].outside[j]);
            }
            if (outside && stream->extrapolate == RC_EXTRAPOLATE_RAISE) {
                return fault(report, RC_FAULT_OUT_OF_RANGE, s, b, begin + j);
            }
            if (!tile.valid[j] && stream->invalid == RC_INVALID_RAISE) {
                return fault(report, RC_FAULT_INVALID_TARGET, s, b, begin + j);
            }
        }
    }
    return true;
}

/* ---- Rows and calls --------------------------------------------------------------------------------------------- */

bool rc_check_row(const rc_align_call *call, int32_t s, int64_t b, uint32_t known, rc_fault_report *report) {
    const rc_stream *stream = &call->streams[s];
    if (!check_place(stream, s, b, report)) {
        return false;
    }
    if (is_too_long(stream, b)) {
        return fault(report, RC_FAULT_NONE, s, b, 0);
    }
    if (!(known & RC_KNOWN_TIMES)) {
        const rc_sequence sequence = rc_sequence_of_row(stream, call->time_dtype, b);
        if (!check_times(&sequence, call->time_dtype, s, report)) {
            return false;
        }
    }
    const rc_time offset = rc_offset_of_row(stream, call->time_dtype, b);
    const bool steady = is_finite_offset(offset, call->time_dtype); /* makes no NaN of a number */
    if (!steady || (!(known & RC_KNOWN_TARGETS) && may_have_nan(call, b))) {
        const int64_t j = first_nan_target(call, b, offset);
        if (j >= 0) {
            return fault(report, RC_FAULT_TARGET_NAN, s, b, j);
        }
    }
    if (stream->extrapolate == RC_EXTRAPOLATE_RAISE || stream->invalid == RC_INVALID_RAISE) {
        return check_policies(call, s, b, report);
    }
    return true;
}

/* Output row with the longest sequence, of a stream whose batch shares its times: when its times are sound, so are
 * those of the others. */
static int64_t longest_row(const rc_stream *stream, int64_t batch) {
    if (!stream->lengths) {
        return 0;
    }
    int64_t longest = 0, most = -1;
    for (int64_t b = 0; b < batch; ++b) {
        const int64_t r = stream->rows ? stream->rows[b] : b;
        const int64_t n = r >= 0 && r < stream->num_sequences ? stream->lengths[r] : -1;
        if (n > most) {
            most = n;
            longest = b;
        }
    }
    return longest;
}

#define MAP_BYTES_PER_ROW 64 /* clearing so many costs less than looking through any sequence worth the map */

typedef struct scan {
    const rc_align_call *call;
    int64_t longest[RC_MAX_STREAMS];    /* -1: the batch does not share the stream's times */
    atomic_uchar *seen[RC_MAX_STREAMS]; /* by sequence: its times are looked through; NULL: not kept */
    atomic_bool found;
} scan;

/* Rows drawn from a packed dataset meet the same sequences again and again; each is looked through once. */
static bool keeps_seen(const rc_align_call *call, int32_t s) {
    const rc_stream *stream = &call->streams[s];
    return stream->rows && call->batch > 1 && stream->num_sequences <= MAP_BYTES_PER_ROW * call->batch;
}

/* Memory for the maps of `job`, to be given back; NULL: none wanted, or none to be had, and it goes without. */
static void *map_seen(scan *job) {
    size_t bytes = 0;
    for (int32_t s = 0; s < job->call->num_streams; ++s) {
        bytes += keeps_seen(job->call, s) ? (size_t)job->call->streams[s].num_sequences : 0;
    }
    atomic_uchar *memory = bytes > 0 ? rc_take_scratch(bytes * sizeof *memory) : NULL;
    if (!memory) {
        return NULL;
    }
    for (size_t k = 0; k < bytes; ++k) {
        atomic_init(&memory[k], 0);
    }
    atomic_uchar *next = memory;
    for (int32_t s = 0; s < job->call->num_streams; ++s) {
        if (keeps_seen(job->call, s)) {
            job->seen[s] = next;
            next += job->call->streams[s].num_sequences;
        }
    }
    return memory;
}

/* Whether another row, of this thread or another, looks or has looked through the times of output row b. */
static bool seen_before(const scan *job, int32_t s, int64_t b) {
    const int64_t r = job->call->streams[s].rows[b];
    return r >= 0 && r < job->call->streams[s].num_sequences &&
           atomic_exchange_explicit(&job->seen[s][r], 1, memory_order_relaxed) != 0;
}

static void scan_rows(int64_t begin, int64_t end, void *context) {
    scan *job = context;
    const rc_align_call *call = job->call;
    for (int64_t item = begin; item < end; ++item) {
        if (atomic_load_explicit(&job->found, memory_order_relaxed)) {
            return;
        }
        const int32_t s = (int32_t)(item / call->batch);
        const int64_t b = item % call->batch;
        const int64_t *rows = call->streams[s].rows;
        uint32_t known = 0;
        if (job->longest[s] >= 0 ? b != job->longest[s]
            : job->seen[s]       ? seen_before(job, s, b)
                                 : rows && item > begin && b > 0 && rows[b] == rows[b - 1]) {
            known |= RC_KNOWN_TIMES;
        }
        if (s > 0 || (b > 0 && call->targets_stride[0] == 0)) { /* a finite offset makes no NaN */
            known |= RC_KNOWN_TARGETS;
        }
        rc_fault_report report;
        if (!rc_check_row(call, s, b, known, &report)) {
            atomic_store_explicit(&job->found, true, memory_order_relaxed);
            return;
        }
    }
}

rc_status rc_check_data(const rc_align_call *call) {
    if (call->batch == 0) {
        return RC_OK;
    }
    scan job = {.call = call};
    atomic_init(&job.found, false);
    int64_t samples = 0;
    for (int32_t s = 0; s < call->num_streams; ++s) {
        const rc_stream *stream = &call->streams[s];
        const bool shared = stream->times_stride[0] == 0 && !stream->row_splits;
        job.longest[s] = shared ? longest_row(stream, call->batch) : -1;
        samples += shared                                            ? 1
                   : stream->row_splits && stream->num_sequences > 0 ? stream->num_samples / stream->num_sequences
                                                                     : stream->num_samples;
    }
    const int64_t row_cost = samples / call->num_streams + call->num_targets / call->num_streams + 8;
    const int64_t grain = 1 + (64 * 1024) / row_cost;
    void *maps = map_seen(&job);
    rc_run(call->parallel_for, call->pool, call->batch * call->num_streams, grain, scan_rows, &job);
    rc_give_scratch(maps);
    if (!atomic_load(&job.found)) {
        return RC_OK;
    }
    for (int32_t s = 0; s < call->num_streams; ++s) {
        for (int64_t b = 0; b < call->batch; ++b) {
            rc_fault_report report;
            if (!rc_check_row(call, s, b, 0, &report)) {
                if (report.fault == RC_FAULT_NONE) {
                    return rc_fail(RC_UNSUPPORTED, "streams[%d].row_splits: at most %d samples a sequence", s,
                                   INT32_MAX);
                }
                return rc_fail_fault(&report);
            }
        }
    }
    return RC_OK;
}
