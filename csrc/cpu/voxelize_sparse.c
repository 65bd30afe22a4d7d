/* rc_voxelize_sparse_cpu: cells of all points, points by cell, then a row for each occupied cell. */
#include "voxel_reduce.h"

#include <stdlib.h>
#include <string.h>

typedef struct work {
    const rc_sparse_call *sparse;
    const rc_voxel_call *call;
    const rc_voxel_input *in;
    const rc_groups *groups;
    rc_reducer reducer;
    rc_convert_fn gather; /* features to gathered_dtype */
    bool reduces;
    int64_t columns;
    int64_t *base;    /* [B, slabs]: rows before a slab's, in cell order */
    uint32_t *row_of; /* by point: rows before the one that begins with it; NULL: in cell order */
    int64_t *voxels;  /* [B] */
} work;

/* ---- Rows ------------------------------------------------------------------------------------------------------- */

static void number_samples(int64_t begin, int64_t end, void *context) {
    const work *job = context;
    const int64_t slabs = job->groups->slabs_each;
    for (int64_t b = begin; b < end; ++b) {
        int64_t rows = 0;
        for (int64_t s = b * slabs; s < (b + 1) * slabs; ++s) {
            job->base[s] = rows;
            rows += job->groups->slabs[s].groups;
        }
        job->voxels[b] = rows;
        if (!job->row_of) {
            continue;
        }
        /* First appearance: mark each cell's first point, then count the marks up to it. */
        const rc_sample sample = rc_sample_of(job->in, b);
        uint32_t *row_of = job->row_of + sample.begin;
        memset(row_of, 0, (size_t)(sample.end - sample.begin) * sizeof *row_of);
        for (int64_t s = b * slabs; s < (b + 1) * slabs; ++s) {
            const rc_slab *slab = &job->groups->slabs[s];
            for (int64_t k = 0; k < slab->groups; ++k) {
                row_of[rc_group_at(job->groups, slab, k).points[0]] = 1;
            }
        }
        uint32_t before = 0;
        for (int64_t n = 0; n < sample.end - sample.begin; ++n) {
            const uint32_t marked = row_of[n];
            row_of[n] = before;
            before += marked;
        }
    }
}

/* ---- Values ----------------------------------------------------------------------------------------------------- */

static void write_coords(const work *job, int64_t cell, int32_t *to) {
    const int64_t y = job->in->grid->size[1], z = job->in->grid->size[2];
    to[0] = (int32_t)(cell / z / y);
    to[1] = (int32_t)(cell / z % y);
    to[2] = (int32_t)(cell % z);
}

/* Where row `at` (counted across the batch) of an output begins. */
static char *row_at(const work *job, const rc_voxel_output *output, int64_t at) {
    const int64_t columns = output->reduce == RC_REDUCE_COUNT ? 1 : job->columns;
    return (char *)output->data + at * columns * (int64_t)rc_dtype_size(output->dtype);
}

static void write_outputs(const work *job, const char *features, const rc_group *group, int64_t at) {
    const rc_reduce_table *table = rc_row_kernels()->reduce;
    const rc_reduce_fn reduce = job->reducer.wide ? table->f64 : table->f32;
    rc_cell_values values;
    for (int64_t begin = 0; job->reduces && begin < job->columns; begin += RC_REDUCE_COLUMNS) {
        const int64_t left = job->columns - begin;
        const int32_t columns = (int32_t)(left < RC_REDUCE_COLUMNS ? left : RC_REDUCE_COLUMNS);
        reduce(&job->reducer, features, group, begin, columns, &values);
        for (int32_t o = 0; o < job->call->num_outputs; ++o) {
            const rc_voxel_output *output = &job->call->outputs[o];
            if (output->reduce != RC_REDUCE_COUNT) {
                rc_write_values(&job->reducer, output, &values, group->count, begin, columns, 1,
                                row_at(job, output, at));
            }
        }
    }
    for (int32_t o = 0; o < job->call->num_outputs; ++o) {
        const rc_voxel_output *output = &job->call->outputs[o];
        if (output->reduce == RC_REDUCE_COUNT) {
            rc_write_count(output->dtype, group->count, false, row_at(job, output, at));
        }
    }
}

/* The first points of a row as they are, then zeros. */
static void write_gathered(const work *job, const char *features, const rc_group *group, int64_t at) {
    const rc_sparse_call *sparse = job->sparse;
    const int64_t size = (int64_t)rc_dtype_size(sparse->gathered_dtype);
    const rc_point_features *carried = job->call->features;
    const int64_t row_bytes = job->columns * size, step = carried ? carried->stride[3] * job->reducer.size : 0;
    char *to = (char *)sparse->gathered + at * sparse->max_points * row_bytes;
    const int64_t held = group && group->count < sparse->max_points ? group->count : group ? sparse->max_points : 0;
    for (int64_t k = 0; k < held; ++k) {
        const char *row = rc_feature_row(&job->reducer, features, group->points[k]);
        char *slot = to + k * row_bytes;
        if (step == job->reducer.size) {
            job->gather(row, slot, job->columns);
        } else {
            for (int64_t c = 0; c < job->columns; ++c) {
                job->gather(row + c * step, slot + c * size, 1);
            }
        }
    }
    if (held < sparse->max_points && row_bytes > 0) {
        memset(to + held * row_bytes, 0, (size_t)((sparse->max_points - held) * row_bytes));
    }
}

static void write_slabs(int64_t begin, int64_t end, void *context) {
    const work *job = context;
    const rc_sparse_call *sparse = job->sparse;
    for (int64_t s = begin; s < end; ++s) {
        const rc_slab *slab = &job->groups->slabs[s];
        const int64_t b = s / job->groups->slabs_each;
        const rc_sample sample = rc_sample_of(job->in, b);
        const char *features = job->reducer.features ? rc_features_of(&job->reducer, b) : NULL;
        for (int64_t k = 0; k < slab->groups; ++k) {
            const rc_group group = rc_group_at(job->groups, slab, k);
            const int64_t row = job->row_of ? (int64_t)job->row_of[sample.begin + group.points[0]] : job->base[s] + k;
            if (row >= sparse->max_voxels) {
                continue;
            }
            const int64_t at = b * sparse->max_voxels + row;
            write_coords(job, group.cell, sparse->coords + 3 * at);
            write_outputs(job, features, &group, at);
            if (sparse->max_points > 0) {
                write_gathered(job, features, &group, at);
            }
            for (uint32_t j = 0; job->call->inverse && j < group.count; ++j) {
                job->call->inverse[sample.begin + group.points[j]] = row;
            }
            for (int64_t j = 0; sparse->slots && j < group.count && j < sparse->max_points; ++j) {
                sparse->slots[sample.begin + group.points[j]] = row * sparse->max_points + j;
            }
        }
    }
}

/* Rows past a sample's number of voxels. */
static void write_unused(int64_t begin, int64_t end, void *context) {
    const work *job = context;
    const rc_sparse_call *sparse = job->sparse;
    for (int64_t b = begin; b < end; ++b) {
        sparse->num_voxels[b] = job->voxels[b];
        if (job->voxels[b] >= sparse->max_voxels) {
            continue;
        }
        const int64_t at = b * sparse->max_voxels + job->voxels[b], rows = sparse->max_voxels - job->voxels[b];
        memset(sparse->coords + 3 * at, 0xff, (size_t)(3 * rows) * sizeof *sparse->coords);
        for (int32_t o = 0; o < job->call->num_outputs; ++o) {
            const rc_voxel_output *output = &job->call->outputs[o];
            const int64_t columns = output->reduce == RC_REDUCE_COUNT ? 1 : job->columns;
            rc_write_empty(output, job->call->empty_value, rows * columns, row_at(job, output, at));
        }
        for (int64_t k = 0; sparse->max_points > 0 && k < rows; ++k) {
            write_gathered(job, NULL, NULL, at + k);
        }
    }
}

static void clear_inverse(int64_t begin, int64_t end, void *context) {
    const work *job = context;
    if (job->call->inverse) {
        memset(job->call->inverse + begin, 0xff, (size_t)(end - begin) * sizeof *job->call->inverse);
    }
    if (job->sparse->slots) {
        memset(job->sparse->slots + begin, 0xff, (size_t)(end - begin) * sizeof *job->sparse->slots);
    }
}

/* ---- Entry ------------------------------------------------------------------------------------------------------ */

static rc_status no_memory(const rc_voxel_input *in) {
    return rc_fail(RC_OUT_OF_MEMORY, "scratch space for %lld points could not be had", (long long)in->total);
}

static rc_status write_rows(const rc_sparse_call *sparse, const rc_voxel_input *in, const rc_groups *groups) {
    const rc_voxel_call *call = sparse->call;
    const int64_t slabs = in->batch * groups->slabs_each;
    work job = {.sparse = sparse,
                .call = call,
                .in = in,
                .groups = groups,
                .reducer = rc_reducer_of(in, call),
                .columns = call->features ? call->features->num_columns : 0,
                .base = malloc(((size_t)slabs + 1) * sizeof *job.base),
                .voxels = malloc(((size_t)in->batch + 1) * sizeof *job.voxels)};
    if (sparse->max_points > 0 && call->features) {
        job.gather = rc_row_kernels()->convert[call->features->dtype][sparse->gathered_dtype];
    }
    const rc_reducer *r = &job.reducer;
    job.reduces = r->sum || r->max || r->min || r->argmax || r->argmin;
    const bool first = sparse->order == RC_ORDER_FIRST_APPEARANCE;
    if (first) {
        job.row_of = malloc(((size_t)in->total + 1) * sizeof *job.row_of);
    }
    const bool got = job.base && job.voxels && (!first || job.row_of);
    if (got) {
        rc_run(in->parallel_for, in->pool, in->batch, 1, number_samples, &job);
        if (call->inverse || sparse->slots) {
            rc_run(in->parallel_for, in->pool, in->total, 32 * 1024, clear_inverse, &job);
        }
        rc_run(in->parallel_for, in->pool, slabs, 1, write_slabs, &job);
        rc_run(in->parallel_for, in->pool, in->batch, 1, write_unused, &job);
        rc_count_launch(RC_KERNEL_VOXELIZE_SPARSE_CPU);
    }
    free(job.base);
    free(job.voxels);
    free(job.row_of);
    return got ? RC_OK : no_memory(in);
}

rc_status rc_voxelize_sparse_cpu(const rc_sparse_call *sparse) {
    rc_status status = rc_check_sparse_call(sparse);
    if (status != RC_OK) {
        return status;
    }
    const rc_voxel_input in = rc_input_of_call(sparse->call);
    status = rc_check_voxel_data(&in);
    if (status != RC_OK) {
        return status;
    }
    void *cells = malloc(((size_t)in.total + 1) * (in.long_cells ? sizeof(int64_t) : sizeof(int32_t)));
    if (!cells) {
        return no_memory(&in);
    }
    rc_groups groups = {0};
    status = rc_find_cells(&in, cells, sparse->call->dropped);
    if (status == RC_OK) {
        status = rc_make_groups(&in, cells, &groups);
    }
    free(cells);
    if (status == RC_OK) {
        status = write_rows(sparse, &in, &groups);
    }
    rc_free_groups(&groups);
    return status;
}
