/* rc_align_cpu: every stream of every output row at its targets.
 *
 * A task is a tile of RC_TILE targets of one output row. For each stream it finds the tile's brackets once, shares them
 * between the column groups, and lets a row kernel write each group.
 */
#include "locate.h"

#include <string.h>

#define CHUNK 64 /* columns gathered at once where they are not contiguous; whole quaternions */

/* What all tasks know about a stream. */
typedef struct prepared {
    rc_policy policy;
    uint32_t reads;
    bool spacing;
    int64_t column;     /* its first column of `out` */
    rc_rows_fn *kernel; /* by group */
} prepared;

typedef struct work {
    const rc_align_call *call;
    prepared streams[RC_MAX_STREAMS];
    rc_rows_fn kernels[RC_MAX_COLUMN_GROUPS];
    int64_t tiles; /* of an output row */
    int64_t time_size;
    int64_t out_size;
} work;

static void copy_elements(char *to, int64_t to_step, const char *from, int64_t from_step, int64_t count, size_t size) {
    for (int64_t k = 0; k < count; ++k) {
        memcpy(to + k * to_step, from + k * from_step, size);
    }
}

/* Runs a row kernel on columns that are not contiguous, by gathering each target's samples: sample i0 as number 1 of
 * four, so that a cubic finds its neighbours. */
static void run_strided(const rc_rows *tile, rc_rows_fn kernel, bool cubic, int64_t value_step, int64_t out_step) {
    static const int32_t one = 1, two = 2;
    const size_t value_size = rc_dtype_size(tile->value_dtype);
    const size_t out_size = rc_dtype_size(tile->out_dtype);
    int64_t samples[4][CHUNK];
    int64_t result[CHUNK];
    for (int32_t j = 0; j < tile->count; ++j) {
        const int32_t i0 = tile->i0[j], i1 = tile->i1[j];
        const bool copy = i0 == i1;
        rc_rows rows = *tile;
        rows.count = 1;
        rows.values = (const char *)samples;
        rows.sample_step = (ptrdiff_t)sizeof samples[0];
        rows.out = (char *)result;
        rows.i0 = i0 < 0 ? &tile->i0[j] : &one;
        rows.i1 = i0 < 0 ? &tile->i1[j] : copy ? &one : &two;
        rows.w32 = &tile->w32[j];
        rows.w64 = &tile->w64[j];
        rows.spacing = &tile->spacing[j];
        const bool used[4] = {cubic && !copy && tile->spacing[j][0] > 0.0, i0 >= 0, i0 >= 0 && !copy,
                              cubic && !copy && tile->spacing[j][2] > 0.0};
        const int32_t index[4] = {i0 - 1, i0, i1, i1 + 1};
        for (int64_t begin = 0; begin < tile->columns; begin += CHUNK) {
            rows.columns = tile->columns - begin < CHUNK ? tile->columns - begin : CHUNK;
            for (int k = 0; k < 4; ++k) {
                if (used[k]) {
                    copy_elements((char *)samples[k], (int64_t)value_size,
                                  tile->values + index[k] * tile->sample_step + begin * value_step, value_step,
                                  rows.columns, value_size);
                }
            }
            kernel(&rows);
            copy_elements(tile->out + j * tile->target_step + begin * out_step, out_step, (const char *)result,
                          (int64_t)out_size, rows.columns, out_size);
        }
    }
}

static void write_groups(const work *job, int32_t s, const rc_sequence *sequence, const rc_tile *tile, int32_t count,
                         char *out) {
    const rc_align_call *call = job->call;
    const rc_stream *stream = &call->streams[s];
    const int64_t value_size = (int64_t)rc_dtype_size(stream->value_dtype);
    const int64_t value_step = stream->values_stride[2] * value_size;
    const int64_t out_step = call->out_stride[2] * job->out_size;
    for (int32_t g = 0; g < stream->num_groups; ++g) {
        const rc_column_group *group = &stream->groups[g];
        const rc_brackets *b = &tile->brackets[rc_read_of_kind(group->kind)];
        const rc_rows rows = {
            .values = sequence->values ? sequence->values + group->begin * value_step : NULL,
            .sample_step = (ptrdiff_t)(sequence->value_stride * value_size),
            .out = out + group->begin * out_step,
            .target_step = (ptrdiff_t)(call->out_stride[1] * job->out_size),
            .columns = group->end - group->begin,
            .count = count,
            .value_dtype = stream->value_dtype,
            .out_dtype = call->out_dtype,
            .i0 = b->i0,
            .i1 = b->i1,
            .w32 = b->w32,
            .w64 = b->w64,
            .spacing = tile->spacing,
        };
        const rc_rows_fn kernel = job->streams[s].kernel[g];
        if (rows.columns <= 1 || (value_step == value_size && out_step == job->out_size)) {
            kernel(&rows);
        } else {
            run_strided(&rows, kernel, group->kind == RC_PCHIP, value_step, out_step);
        }
    }
}

static void align_tiles(int64_t begin, int64_t end, void *context) {
    const work *job = context;
    const rc_align_call *call = job->call;
    rc_tile tile;
    for (int64_t task = begin; task < end; ++task) {
        const int64_t b = task / job->tiles;
        const int64_t first = task % job->tiles * RC_TILE;
        const int32_t count = (int32_t)(call->num_targets - first < RC_TILE ? call->num_targets - first : RC_TILE);
        const char *targets = (const char *)call->targets +
                              (b * call->targets_stride[0] + first * call->targets_stride[1]) * job->time_size;
        for (int32_t s = 0; s < call->num_streams; ++s) {
            const rc_stream *stream = &call->streams[s];
            const prepared *p = &job->streams[s];
            const rc_sequence sequence = rc_sequence_of_row(stream, call->time_dtype, b);
            const rc_query query = {.sequence = &sequence,
                                    .policy = &p->policy,
                                    .targets = targets,
                                    .target_stride = call->targets_stride[1],
                                    .offset = rc_offset_of_row(stream, call->time_dtype, b),
                                    .count = count,
                                    .reads = p->reads,
                                    .spacing = p->spacing};
            rc_find_tile(&query, call->time_dtype, &tile);
            rc_blank_tile(stream, &query, &tile);
            if (call->valid) {
                uint8_t *valid = call->valid + (b * call->num_targets + first) * call->num_streams + s;
                for (int32_t j = 0; j < count; ++j) {
                    valid[j * call->num_streams] = tile.valid[j];
                }
            }
            if (stream->num_columns > 0) {
                char *out = (char *)call->out +
                            (b * call->out_stride[0] + first * call->out_stride[1] + p->column * call->out_stride[2]) *
                                job->out_size;
                write_groups(job, s, &sequence, &tile, count, out);
            }
        }
    }
}

rc_status rc_align_cpu(const rc_align_call *call) {
    rc_status status = rc_check_align_call(call);
    if (status == RC_OK) {
        status = rc_check_data(call);
    }
    if (status != RC_OK || call->batch == 0 || call->num_targets == 0) {
        return status;
    }
    const rc_row_table *table = rc_row_kernels();
    work job = {.call = call,
                .tiles = (call->num_targets + RC_TILE - 1) / RC_TILE,
                .time_size = (int64_t)rc_dtype_size(call->time_dtype),
                .out_size = (int64_t)rc_dtype_size(call->out_dtype)};
    int64_t columns = 0;
    int32_t groups = 0;
    for (int32_t s = 0; s < call->num_streams; ++s) {
        const rc_stream *stream = &call->streams[s];
        job.streams[s] = (prepared){.policy = rc_make_policy(stream, call->time_dtype),
                                    .reads = rc_reads_of(stream),
                                    .spacing = (rc_kinds_of(stream) >> RC_PCHIP & 1u) != 0,
                                    .column = columns,
                                    .kernel = &job.kernels[groups]};
        for (int32_t g = 0; g < stream->num_groups; ++g) {
            job.kernels[groups++] = rc_rows_for(table, stream->groups[g].kind, stream->value_dtype, call->out_dtype);
        }
        columns += stream->num_columns;
    }
    const int64_t targets_each = call->num_targets < RC_TILE ? call->num_targets : RC_TILE;
    const int64_t task_cost = targets_each * (columns * job.out_size + 32 * call->num_streams);
    rc_run(call->parallel_for, call->pool, call->batch * job.tiles, 1 + (64 * 1024) / task_cost, align_tiles, &job);
    rc_count_launch(RC_KERNEL_ALIGN_CPU);
    return RC_OK;
}
