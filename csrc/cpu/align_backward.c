/* rc_align_backward_cpu: gradients by values and by targets.
 *
 * The gradient by values is a sum over all targets that read a sample. One task owns a sequence (or a block of its
 * columns) and adds target after target, output row after output row, so that the sum's order never changes.
 */
#include "locate.h"

#include "core/interpolate.h"

#include <string.h>

#define CHUNK 64         /* columns worked on at once; whole quaternions */
#define COLUMN_BLOCK 128 /* columns of a task where there are too few sequences for all threads */
#define MANY_SEQUENCES 16

/* What one target's gradient is made from. */
typedef struct source {
    const rc_align_grad_call *call;
    const rc_stream *stream;
    const rc_sequence *sequence;
    const char *grad; /* grad_out at the tile's first target, column 0 */
} source;

/* Columns of any stride as doubles or floats. */
static void load_columns(const char *from, int64_t step, int64_t columns, int32_t dtype, int32_t to_dtype, void *to) {
    const rc_convert_fn convert = rc_row_kernels()->convert[dtype][to_dtype];
    const size_t size = rc_dtype_size(dtype);
    if (columns == 1 || step == (int64_t)size) {
        convert(from, to, columns);
        return;
    }
    uint64_t gathered[CHUNK];
    for (int64_t c = 0; c < columns; ++c) {
        memcpy((char *)gathered + c * (int64_t)size, from + c * step, size);
    }
    convert(gathered, to, columns);
}

static void load_gradient(const source *from, int32_t j, int64_t begin, int64_t columns, int32_t dtype, void *g) {
    const int64_t size = (int64_t)rc_dtype_size(from->call->grad_dtype);
    const int64_t *stride = from->call->grad_out_stride;
    load_columns(from->grad + (j * stride[1] + begin * stride[2]) * size, stride[2] * size, columns,
                 from->call->grad_dtype, dtype, g);
}

/* The samples a curve over [i0, i0 + 1] reads; those it does not are left alone. */
static void load_window(const source *from, int32_t kind, int64_t i0, const double spacing[3], int64_t begin,
                        int64_t columns, double v[4][CHUNK]) {
    const int64_t size = (int64_t)rc_dtype_size(from->stream->value_dtype);
    const int64_t step = from->stream->values_stride[2] * size;
    for (int64_t k = 0; k < 4; ++k) {
        const bool outer = k == 0 || k == 3;
        if (outer && (kind != RC_PCHIP || !(spacing[k == 0 ? 0 : 2] > 0.0))) {
            memset(v[k], 0, (size_t)columns * sizeof(double));
            continue;
        }
        load_columns(from->sequence->values + (i0 - 1 + k) * from->sequence->value_stride * size + begin * step, step,
                     columns, from->stream->value_dtype, RC_FLOAT64, v[k]);
    }
}

#define A float
#define TYPED(name) name##_f32
#define A_DTYPE RC_FLOAT32
#define WEIGHT w32
#include "accumulate.inc.h"

#define A double
#define TYPED(name) name##_f64
#define A_DTYPE RC_FLOAT64
#define WEIGHT w64
#include "accumulate.inc.h"

/* What all tasks know. */
typedef struct work {
    const rc_align_grad_call *call;
    const rc_align_call *forward;
    const rc_stream *stream;
    rc_policy policy;
    uint32_t reads;
    bool spacing;
    int64_t tiles;  /* of an output row */
    int64_t blocks; /* of a sequence's columns */
    int64_t block_size;
} work;

static void find(const work *job, const rc_sequence *sequence, int64_t b, int64_t first, int32_t count, rc_tile *tile) {
    const rc_align_call *call = job->forward;
    const rc_query query = {
        .sequence = sequence,
        .policy = &job->policy,
        .targets = (const char *)call->targets + (b * call->targets_stride[0] + first * call->targets_stride[1]) *
                                                     (int64_t)rc_dtype_size(call->time_dtype),
        .target_stride = call->targets_stride[1],
        .offset = rc_offset_of_row(job->stream, call->time_dtype, b),
        .count = count,
        .reads = job->reads,
        .spacing = job->spacing,
        .sites = true,
    };
    rc_find_tile(&query, call->time_dtype, tile);
    rc_blank_tile(job->stream, &query, tile);
}

static int32_t tile_count(const work *job, int64_t first) {
    const int64_t left = job->forward->num_targets - first;
    return (int32_t)(left < RC_TILE ? left : RC_TILE);
}

static const char *grad_at(const work *job, int64_t b, int64_t first) {
    const int64_t *stride = job->call->grad_out_stride;
    return (const char *)job->call->grad_out +
           (b * stride[0] + first * stride[1]) * (int64_t)rc_dtype_size(job->call->grad_dtype);
}

/* ---- By values -------------------------------------------------------------------------------------------------- */

/* Where a block that begins at column `at` begins in a group: quaternions stay whole. */
static int64_t clip(const rc_column_group *group, int64_t at) {
    const int64_t inside = at > group->begin ? (at - group->begin + 3) / 4 * 4 : 0;
    return inside < group->end - group->begin ? group->begin + inside : group->end;
}

static void add_row(const work *job, const rc_sequence *sequence, int64_t b, int64_t column_begin, int64_t column_end) {
    const rc_stream *stream = job->stream;
    const int64_t offset = sequence->first * stream->num_columns;
    rc_tile tile;
    for (int64_t first = 0; first < job->forward->num_targets; first += RC_TILE) {
        const int32_t count = tile_count(job, first);
        find(job, sequence, b, first, count, &tile);
        const source from = {job->call, stream, sequence, grad_at(job, b, first)};
        for (int32_t g = 0; g < stream->num_groups; ++g) {
            const rc_column_group *group = &stream->groups[g];
            const int64_t end = clip(group, column_end);
            for (int64_t begin = clip(group, column_begin); begin < end; begin += CHUNK) {
                const int64_t columns = end - begin < CHUNK ? end - begin : CHUNK;
                for (int32_t j = 0; j < count; ++j) {
                    if (stream->value_dtype == RC_FLOAT64) {
                        double *sums = (double *)job->call->grad_values + offset + begin;
                        add_target_f64(&from, group->kind, &tile, j, begin, columns, sums);
                    } else {
                        float *sums = (float *)job->call->grad_values + offset + begin;
                        add_target_f32(&from, group->kind, &tile, j, begin, columns, sums);
                    }
                }
            }
        }
    }
}

static void add_sequences(int64_t begin, int64_t end, void *context) {
    const work *job = context;
    const rc_align_grad_call *call = job->call;
    for (int64_t task = begin; task < end; ++task) {
        const int64_t r = task / job->blocks;
        const int64_t column = task % job->blocks * job->block_size;
        const int64_t rows_begin = job->stream->rows ? call->row_starts[r] : r;
        const int64_t rows_end = job->stream->rows ? call->row_starts[r + 1] : r + 1;
        if (rows_begin == rows_end) { /* never read, so never checked */
            continue;
        }
        const rc_sequence sequence = rc_sequence_at(job->stream, job->forward->time_dtype, r);
        for (int64_t k = rows_begin; k < rows_end; ++k) {
            const int64_t b = job->stream->rows ? call->row_order[k] : r;
            add_row(job, &sequence, b, column, column + job->block_size);
        }
    }
}

/* ---- By targets ------------------------------------------------------------------------------------------------- */

/* Sum over `columns` columns of g d(out)/d(target) for the bracket [i0, i0 + 1] at weight w. */
static double slope_sum(const source *from, int32_t kind, int32_t j, int64_t i0, double w, const double spacing[3],
                        int64_t begin, int64_t columns, double sum) {
    double g[CHUNK], v[4][CHUNK];
    load_gradient(from, j, begin, columns, RC_FLOAT64, g);
    load_window(from, kind, i0, spacing, begin, columns, v);
    for (int64_t c = 0; c < columns; ++c) {
        double rise;
        if (kind == RC_PCHIP) {
            const double window[4] = {v[0][c], v[1][c], v[2][c], v[3][c]};
            (void)rc_pchip(window, spacing, w, NULL, &rise);
        } else if (kind == RC_LINEAR) {
            rise = v[2][c] - v[1][c];
        } else if (from->stream->value_dtype == RC_FLOAT64) {
            rise = rc_wrap_f64(v[2][c] - v[1][c]);
        } else { /* the arc that the forward pass took */
            rise = (double)rc_wrap_f32((float)v[2][c] - (float)v[1][c]);
        }
        sum += g[c] * (rise / spacing[1]);
    }
    return sum;
}

static double target_gradient(const work *job, const source *from, const rc_tile *tile, int32_t j) {
    const rc_brackets *b = &tile->brackets[RC_READ_BETWEEN];
    const rc_site site = tile->sites[j];
    int64_t i0 = b->i0[j];
    double w = b->w64[j];
    if (i0 < 0) {
        return 0.0;
    }
    if (i0 == b->i1[j]) { /* at a sample the slope is that of the interval that begins there */
        if (site.side != RC_INSIDE || site.index + 1 >= from->sequence->n) {
            return 0.0;
        }
        i0 = site.index;
        w = 0.0;
    }
    double spacing[3];
    rc_spacing_at(from->sequence, job->forward->time_dtype, (int32_t)i0, spacing);
    double sum = 0.0;
    for (int32_t g = 0; g < from->stream->num_groups; ++g) {
        const rc_column_group *group = &from->stream->groups[g];
        if (group->kind != RC_LINEAR && group->kind != RC_ANGLE && group->kind != RC_PCHIP) {
            continue;
        }
        for (int64_t begin = group->begin; begin < group->end; begin += CHUNK) {
            const int64_t columns = group->end - begin < CHUNK ? group->end - begin : CHUNK;
            sum = slope_sum(from, group->kind, j, i0, w, spacing, begin, columns, sum);
        }
    }
    return sum;
}

static void differentiate_tiles(int64_t begin, int64_t end, void *context) {
    const work *job = context;
    const rc_align_call *forward = job->forward;
    rc_tile tile;
    for (int64_t task = begin; task < end; ++task) {
        const int64_t b = task / job->tiles;
        const int64_t first = task % job->tiles * RC_TILE;
        const int32_t count = tile_count(job, first);
        const rc_sequence sequence = rc_sequence_of_row(job->stream, forward->time_dtype, b);
        const source from = {job->call, job->stream, &sequence, grad_at(job, b, first)};
        if (job->reads >> RC_READ_BETWEEN & 1u) {
            find(job, &sequence, b, first, count, &tile);
        }
        for (int32_t j = 0; j < count; ++j) {
            const double sum = job->reads >> RC_READ_BETWEEN & 1u ? target_gradient(job, &from, &tile, j) : 0.0;
            const int64_t at = b * forward->num_targets + first + j;
            if (forward->time_dtype == RC_FLOAT32) {
                ((float *)job->call->grad_targets)[at] = (float)sum;
            } else {
                ((double *)job->call->grad_targets)[at] = sum;
            }
        }
    }
}

/* ---- Entry ------------------------------------------------------------------------------------------------------ */

/* row_order and row_starts must describe rows: they are used as indices. */
static rc_status check_row_order(const rc_align_grad_call *call) {
    const rc_stream *stream = call->forward->streams;
    const int64_t batch = call->forward->batch;
    if (!stream->rows || !call->grad_values || batch == 0) {
        return RC_OK;
    }
    if (call->row_starts[0] != 0 || call->row_starts[stream->num_sequences] != batch) {
        return rc_fail(RC_INVALID_ARGUMENT, "row_starts: expected to begin with 0 and end with the batch size, %lld",
                       (long long)batch);
    }
    for (int64_t r = 0; r < stream->num_sequences; ++r) {
        const int64_t begin = call->row_starts[r], end = call->row_starts[r + 1];
        if (begin < 0 || end < begin || end > batch) {
            return rc_fail(RC_INVALID_ARGUMENT, "row_starts[%lld]: expected offsets that never decrease, got %lld",
                           (long long)(r + 1), (long long)end);
        }
        for (int64_t k = begin; k < end; ++k) {
            const int64_t b = call->row_order[k];
            if (b < 0 || b >= batch || stream->rows[b] != r) {
                return rc_fail(RC_INVALID_ARGUMENT,
                               "row_order[%lld]: expected an output row of sequence %lld, got %lld", (long long)k,
                               (long long)r, (long long)b);
            }
        }
    }
    return RC_OK;
}

rc_status rc_align_backward_cpu(const rc_align_grad_call *call) {
    rc_status status = rc_check_align_grad_call(call);
    if (status == RC_OK) {
        status = rc_check_data(call->forward);
    }
    if (status == RC_OK) {
        status = check_row_order(call);
    }
    if (status != RC_OK) {
        return status;
    }
    const rc_align_call *forward = call->forward;
    const rc_stream *stream = forward->streams;
    if (forward->batch == 0 || forward->num_targets == 0) {
        return RC_OK;
    }
    work job = {.call = call,
                .forward = forward,
                .stream = stream,
                .policy = rc_make_policy(stream, forward->time_dtype),
                .reads = rc_reads_of(stream),
                .spacing = (rc_kinds_of(stream) >> RC_PCHIP & 1u) != 0,
                .tiles = (forward->num_targets + RC_TILE - 1) / RC_TILE,
                .blocks = 1,
                .block_size = stream->num_columns};
    const int64_t target_cost = 16 * stream->num_columns + 64;
    if (call->grad_values && stream->num_columns > 0) {
        if (stream->num_sequences < MANY_SEQUENCES && stream->num_columns > COLUMN_BLOCK) {
            job.block_size = COLUMN_BLOCK;
            job.blocks = (stream->num_columns + COLUMN_BLOCK - 1) / COLUMN_BLOCK;
        }
        const int64_t task_cost = forward->num_targets * (target_cost / job.blocks + 64);
        rc_run(forward->parallel_for, forward->pool, stream->num_sequences * job.blocks, 1 + (64 * 1024) / task_cost,
               add_sequences, &job);
    }
    if (call->grad_targets) {
        const int64_t task_cost = RC_TILE * target_cost;
        rc_run(forward->parallel_for, forward->pool, forward->batch * job.tiles, 1 + (64 * 1024) / task_cost,
               differentiate_tiles, &job);
    }
    rc_count_launch(RC_KERNEL_ALIGN_BACKWARD_CPU);
    return RC_OK;
}
