/* rc_voxelize_cpu: cells of all points, points by cell, then the grid piece by piece. Each piece is written by one
 * thread, which fills it while it is in its cache. */
#include "voxel_bins.h"

#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES (256 * 1024) /* of the outputs, about */

typedef struct work {
    const rc_voxel_call *call;
    const rc_voxel_input *in;
    const rc_groups *groups;
    rc_reducer reducer;
    const rc_voxel_output *bits; /* occupancy as bits, or NULL */
    int64_t columns;
    int64_t piece;       /* cells of a piece */
    int64_t pieces_each; /* of a sample */
    int64_t rows_piece;  /* rows along z of a piece of bits */
    int64_t row_pieces_each;
} work;

static bool has_columns(const rc_voxel_output *output) {
    return output->reduce != RC_REDUCE_OCCUPANCY && output->reduce != RC_REDUCE_COUNT;
}

/* Column 0 of a cell. */
static char *cell_at(const work *job, const rc_voxel_output *output, int64_t b, int64_t cell) {
    const int64_t columns = has_columns(output) ? job->columns : 1;
    const int64_t at = job->call->channels_first ? b * columns * job->in->cells + cell
                                                 : (b * job->in->cells + cell) * columns;
    return (char *)output->data + at * (int64_t)rc_dtype_size(output->dtype);
}

static void write_empty_cells(const work *job, int64_t b, int64_t begin, int64_t end) {
    for (int32_t o = 0; o < job->call->num_outputs; ++o) {
        const rc_voxel_output *output = &job->call->outputs[o];
        if (output == job->bits || job->call->accumulate) {
            continue;
        }
        char *to = cell_at(job, output, b, begin);
        const int64_t columns = has_columns(output) ? job->columns : 1;
        if (!job->call->channels_first) {
            rc_write_empty(output, job->call->empty_value, (end - begin) * columns, to);
            continue;
        }
        const int64_t step = job->in->cells * (int64_t)rc_dtype_size(output->dtype);
        for (int64_t c = 0; c < columns; ++c) {
            rc_write_empty(output, job->call->empty_value, end - begin, to + c * step);
        }
    }
}

/* Occupancy and count of an occupied cell. */
static void write_plain(const work *job, int64_t b, const rc_group *group) {
    for (int32_t o = 0; o < job->call->num_outputs; ++o) {
        const rc_voxel_output *output = &job->call->outputs[o];
        if (output->reduce == RC_REDUCE_COUNT) {
            rc_write_count(output->dtype, group->count, job->call->accumulate, cell_at(job, output, b, group->cell));
        } else if (output->reduce == RC_REDUCE_OCCUPANCY && output != job->bits) {
            rc_write_one(output->dtype, cell_at(job, output, b, group->cell));
        }
    }
}

static void write_features(const work *job, const char *features, int64_t b, const rc_group *group) {
    const rc_reduce_table *table = rc_row_kernels()->reduce;
    const rc_reduce_fn reduce = job->reducer.wide ? table->f64 : table->f32;
    const int64_t step = job->call->channels_first ? job->in->cells : 1;
    rc_cell_values values;
    for (int64_t begin = 0; begin < job->columns; begin += RC_REDUCE_COLUMNS) {
        const int64_t left = job->columns - begin;
        const int32_t columns = (int32_t)(left < RC_REDUCE_COLUMNS ? left : RC_REDUCE_COLUMNS);
        reduce(&job->reducer, features, group, begin, columns, &values);
        for (int32_t o = 0; o < job->call->num_outputs; ++o) {
            const rc_voxel_output *output = &job->call->outputs[o];
            if (has_columns(output)) {
                rc_write_values(&job->reducer, output, &values, group->count, begin, columns, step,
                                cell_at(job, output, b, group->cell));
            }
        }
    }
}

static void write_pieces(int64_t begin, int64_t end, void *context) {
    const work *job = context;
    const bool reduces = job->columns > 0;
    for (int64_t task = begin; task < end; ++task) {
        const int64_t b = task / job->pieces_each;
        const int64_t first = task % job->pieces_each * job->piece;
        const int64_t last = job->in->cells - first < job->piece ? job->in->cells : first + job->piece;
        write_empty_cells(job, b, first, last);
        const char *features = reduces ? rc_features_of(&job->reducer, b) : NULL;
        rc_group_cursor cursor = rc_seek_group(job->groups, b, first);
        rc_group group;
        while (rc_next_group(&cursor, last, &group)) {
            write_plain(job, b, &group);
            if (reduces) {
                write_features(job, features, b, &group);
            }
        }
    }
}

/* Pieces of bits are whole rows along z, so that no two threads share a byte. */
static void write_bits(int64_t begin, int64_t end, void *context) {
    const work *job = context;
    const int64_t rows = job->in->grid->size[0] * job->in->grid->size[1], z = job->in->grid->size[2];
    const int64_t row_bytes = (z + 7) / 8;
    for (int64_t task = begin; task < end; ++task) {
        const int64_t b = task / job->row_pieces_each;
        const int64_t first = task % job->row_pieces_each * job->rows_piece;
        const int64_t last = rows - first < job->rows_piece ? rows : first + job->rows_piece;
        uint8_t *to = (uint8_t *)job->bits->data + b * rows * row_bytes;
        if (!job->call->accumulate) {
            memset(to + first * row_bytes, 0, (size_t)((last - first) * row_bytes));
        }
        rc_group_cursor cursor = rc_seek_group(job->groups, b, first * z);
        rc_group group;
        while (rc_next_group(&cursor, last * z, &group)) {
            const int64_t row = group.cell / z, place = group.cell % z;
            to[row * row_bytes + place / 8] |= (uint8_t)(1u << (place % 8));
        }
    }
}

static void plan(work *job) {
    int64_t bytes = 0;
    for (int32_t o = 0; o < job->call->num_outputs; ++o) {
        const rc_voxel_output *output = &job->call->outputs[o];
        if (output->dtype == RC_BITS) {
            job->bits = output;
            continue;
        }
        if (has_columns(output)) {
            job->columns = job->call->features->num_columns;
        }
        bytes += (has_columns(output) ? job->columns : 1) * (int64_t)rc_dtype_size(output->dtype);
    }
    job->piece = bytes > 0 ? 1 + PIECE_BYTES / bytes : job->in->cells;
    job->pieces_each = bytes > 0 ? (job->in->cells + job->piece - 1) / job->piece : 0;
    if (job->bits) {
        const int64_t rows = job->in->grid->size[0] * job->in->grid->size[1];
        job->rows_piece = 1 + 8 * PIECE_BYTES / (job->in->grid->size[2] + 64);
        job->row_pieces_each = (rows + job->rows_piece - 1) / job->rows_piece;
    }
}

rc_status rc_voxelize_cpu(const rc_voxel_call *call) {
    rc_status status = rc_check_voxel_call(call);
    if (status != RC_OK) {
        return status;
    }
    const rc_voxel_input in = rc_input_of_call(call);
    status = rc_check_voxel_data(&in);
    if (status != RC_OK) {
        return status;
    }
    if (rc_bins_take(&in, call)) {
        status = rc_voxelize_bins(&in, call);
        if (status == RC_OK) {
            rc_count_launch(RC_KERNEL_VOXELIZE_CPU);
        }
        return status;
    }
    void *cells = malloc(((size_t)in.total + 1) * (in.long_cells ? sizeof(int64_t) : sizeof(int32_t)));
    if (!cells) {
        return rc_fail(RC_OUT_OF_MEMORY, "scratch space for %lld points could not be had", (long long)in.total);
    }
    rc_groups groups = {0};
    status = rc_find_cells(&in, cells, call->dropped);
    if (status == RC_OK) {
        status = rc_make_groups(&in, cells, &groups);
    }
    if (status == RC_OK && call->inverse) {
        rc_write_inverse(&in, cells, call->inverse);
    }
    free(cells);
    if (status == RC_OK) {
        work job = {.call = call, .in = &in, .groups = &groups, .reducer = rc_reducer_of(&in, call)};
        plan(&job);
        rc_run(in.parallel_for, in.pool, in.batch * job.pieces_each, 1, write_pieces, &job);
        rc_run(in.parallel_for, in.pool, in.batch * job.row_pieces_each, 1, write_bits, &job);
        rc_count_launch(RC_KERNEL_VOXELIZE_CPU);
    }
    rc_free_groups(&groups);
    return status;
}
