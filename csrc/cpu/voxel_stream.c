/* Dense grids in one stream; see voxel_bins.h. */
#include "voxel_stream.h"
#include "scratch.h"

#include <stdlib.h>
#include <string.h>

#define SLAB_BYTES (256 * 1024) /* of a slab's cells, about: they stay in the second cache */
#define MAX_SLAB_BYTES (8 * 1024 * 1024)
#define MAX_SLABS 4096  /* of a sample */
#define ENOUGH_SLABS 16 /* of a call: work for every thread */
#define MIN_SLAB_BITS 8
#define STREAMED_BYTES (16 * 1024 * 1024) /* of an output: larger ones would only wipe the caches */
#define CARRIED_BYTES 64 /* rows up to this size go to the slabs themselves, others are read from there */

/* ---- Points to slabs -------------------------------------------------------------------------------------------- */

/* Brings the rows of a chunk's points to the places of the points. */
static void carry_rows(const rc_stream_work *job, const rc_chunk *chunk, const uint16_t *place, int64_t kept) {
    const rc_reducer *r = &job->reducer;
    const rc_sample sample = rc_sample_of(job->in, chunk->sample);
    const char *features = rc_features_of(r, chunk->sample);
    char *to = job->values + chunk->begin * job->columns * job->real;
    const int64_t row = job->columns * job->real;
    const int64_t first = chunk->begin - sample.begin, n = chunk->end - chunk->begin;
    for (int64_t i = 0; i < n; ++i) {
        if (place[i] >= kept) {
            continue;
        }
        const char *from = rc_feature_row(r, features, first + i);
        char *at = to + place[i] * row;
        if (!r->direct) {
            rc_load_features(r, from, 0, job->columns, at);
        } else if (row == 4) {
            memcpy(at, from, 4);
        } else if (row == 8) {
            memcpy(at, from, 8);
        } else if (row == 12) {
            memcpy(at, from, 12);
        } else if (row == 16) {
            memcpy(at, from, 16);
        } else {
            memcpy(at, from, (size_t)row);
        }
    }
}

/* `found` [points of a chunk]: room for their cells; `place` likewise. */
static void sort_chunk(const rc_stream_work *job, int64_t k, int32_t *found, uint16_t *place) {
    const rc_chunk *chunk = &job->chunks[k];
    const rc_sample sample = rc_sample_of(job->in, chunk->sample);
    const int64_t n = chunk->end - chunk->begin;
    const int32_t bits = job->slab_bits;
    const uint32_t none = (uint32_t)job->slabs_each, low = ((uint32_t)1 << bits) - 1u;
    job->outside[k] = rc_find_some_cells(job->in, chunk->sample, chunk->begin - sample.begin, n, found);
    if (job->call->inverse) {
        rc_row_kernels()->cells->widen(found, n, job->call->inverse + chunk->begin);
    }
    uint32_t *begins = job->begins + k * (job->slabs_each + 2);
    memset(begins, 0, sizeof *begins * (size_t)(none + 2));
    uint32_t *counts = begins + 1;
    for (int64_t i = 0; i < n; ++i) { /* -1, as unsigned, lies past every slab */
        const uint32_t slab = (uint32_t)found[i] >> bits;
        ++counts[slab < none ? slab : none];
    }
    for (uint32_t s = 0; s <= none; ++s) {
        counts[s] += begins[s];
    }
    uint16_t *cells = job->cells + chunk->begin;
    uint16_t *points = job->indexed ? job->points + chunk->begin : NULL;
    const int64_t kept = begins[none];
    for (int64_t i = 0; i < n; ++i) { /* moves each begin to its end: the next one's begin */
        const uint32_t slab = (uint32_t)found[i] >> bits;
        const uint32_t to = begins[slab < none ? slab : none]++;
        cells[to] = (uint16_t)((uint32_t)found[i] & low);
        place[i] = (uint16_t)to;
    }
    memmove(begins + 1, begins, sizeof *begins * (size_t)none);
    begins[0] = 0;
    for (int64_t i = 0; points && i < n; ++i) {
        points[place[i]] = (uint16_t)i;
    }
    if (job->carried) {
        carry_rows(job, chunk, place, kept);
    }
}

static void sort_chunks(int64_t begin, int64_t end, void *context) {
    rc_stream_work *job = context;
    int32_t *found = rc_take_scratch(RC_CHUNK_POINTS * (sizeof(int32_t) + sizeof(uint16_t)));
    if (!found) {
        atomic_store_explicit(&job->no_memory, true, memory_order_relaxed);
        return;
    }
    for (int64_t k = begin; k < end; ++k) {
        sort_chunk(job, k, found, (uint16_t *)(found + RC_CHUNK_POINTS));
    }
    rc_give_scratch(found);
}

/* ---- All together ----------------------------------------------------------------------------------------------- */

static void plan(rc_stream_work *job) {
    const rc_voxel_call *call = job->call;
    job->reducer = rc_reducer_of(job->in, call);
    rc_reducer *r = &job->reducer;
    const int64_t columns = call->features ? call->features->num_columns : 0;
    if (columns == 0) {
        r->sum = r->max = r->min = r->argmax = r->argmin = false;
    }
    job->max = r->max || r->argmax;
    job->min = r->min || r->argmin;
    job->columns = r->sum || job->max || job->min ? (int32_t)columns : 0;
    job->real = r->wide ? 8 : 4;
    job->streamed = (double)(job->in->batch * job->in->cells) * (double)(job->columns * job->real) > STREAMED_BYTES;
    const int64_t kinds = r->sum + job->max + job->min;
    const int64_t bytes = 4 + job->columns * (kinds * job->real + 4 * (r->argmax + r->argmin));
    job->carried = job->columns > 0 && (!r->direct || job->columns * job->real <= CARRIED_BYTES);
    job->indexed = job->columns > 0 && (!job->carried || r->argmax || r->argmin);
    int32_t bits = MIN_SLAB_BITS;
    while (bits < RC_BIN_CELLS_BITS && (bytes << (bits + 1)) <= SLAB_BYTES) {
        ++bits;
    }
    while (bits > MIN_SLAB_BITS && job->in->batch * (((job->in->cells - 1) >> bits) + 1) < ENOUGH_SLABS) {
        --bits;
    }
    while (bits < RC_BIN_CELLS_BITS && ((job->in->cells - 1) >> bits) >= MAX_SLABS) {
        ++bits;
    }
    job->slab_bits = bits;
    job->slabs_each = ((job->in->cells - 1) >> bits) + 1;
}

bool rc_bins_take(const rc_voxel_input *in, const rc_voxel_call *call) {
    if (in->long_cells) {
        return false;
    }
    for (int32_t o = 0; o < call->num_outputs; ++o) {
        const rc_voxel_output *output = &call->outputs[o];
        if (output->dtype == RC_BITS && in->grid->size[2] % 8 != 0) {
            return false; /* a row's last byte has room for cells that are none */
        }
        if (rc_output_has_columns(output) && call->features->num_columns > RC_BIN_COLUMNS) {
            return false;
        }
    }
    rc_stream_work job = {.in = in, .call = call};
    plan(&job);
    return job.slabs_each <= MAX_SLABS && rc_bytes_of_bins(&job) <= MAX_SLAB_BYTES;
}

static rc_status no_memory(const rc_voxel_input *in) {
    return rc_fail(RC_OUT_OF_MEMORY, "scratch space for %lld points could not be had", (long long)in->total);
}

static rc_status run(rc_stream_work *job, int64_t num_chunks) {
    const rc_voxel_input *in = job->in;
    int64_t k = 0;
    for (int64_t b = 0; b < in->batch; ++b) {
        const rc_sample sample = rc_sample_of(in, b);
        job->most = sample.end - sample.begin > job->most ? sample.end - sample.begin : job->most;
        job->first[b] = k;
        while (k < num_chunks && job->chunks[k].sample == b) {
            ++k;
        }
    }
    job->first[in->batch] = num_chunks;
    rc_run(in->parallel_for, in->pool, num_chunks, 1, sort_chunks, job);
    if (atomic_load(&job->no_memory)) {
        return no_memory(in);
    }
    rc_run(in->parallel_for, in->pool, in->batch * job->slabs_each, 1, rc_write_slabs, job);
    if (atomic_load(&job->no_memory)) {
        return no_memory(in);
    }
    int64_t *dropped = job->call->dropped;
    for (int64_t b = 0; dropped && b < in->batch; ++b) {
        dropped[b] = 0;
        for (k = job->first[b]; k < job->first[b + 1]; ++k) {
            dropped[b] += job->outside[k];
        }
    }
    if (job->call->inverse) { /* points that belong to no sample */
        const int64_t first = in->batch > 0 ? rc_sample_of(in, 0).begin : in->total;
        const int64_t last = in->batch > 0 ? rc_sample_of(in, in->batch - 1).end : in->total;
        for (int64_t i = 0; i < first; ++i) {
            job->call->inverse[i] = -1;
        }
        for (int64_t i = last; i < in->total; ++i) {
            job->call->inverse[i] = -1;
        }
    }
    return RC_OK;
}

rc_status rc_voxelize_bins(const rc_voxel_input *in, const rc_voxel_call *call) {
    rc_status status = rc_check_outside(in);
    if (status != RC_OK) {
        return status;
    }
    rc_stream_work job = {.in = in, .call = call};
    atomic_init(&job.no_memory, false);
    plan(&job);
    int64_t count = 0;
    rc_chunk *chunks = rc_make_chunks(in, RC_CHUNK_POINTS, &count);
    const size_t points = (size_t)in->total, each = (size_t)job.slabs_each + 2;
    size_t bytes = 1024; /* of everything that is cut up below */
    bytes += (size_t)(in->batch + 1 + count) * sizeof(int64_t) + (size_t)count * each * sizeof(uint32_t);
    bytes += points * (sizeof(uint16_t) + (job.indexed ? sizeof(uint16_t) : 0));
    bytes += points * (job.carried ? (size_t)(job.columns * job.real) : 0);
    char *block = chunks ? rc_take_scratch(bytes) : NULL;
    if (block) {
        size_t used = 0;
        job.chunks = chunks;
        job.first = rc_cut(block, &used, (size_t)(in->batch + 1) * sizeof *job.first);
        job.outside = rc_cut(block, &used, (size_t)count * sizeof *job.outside);
        job.begins = rc_cut(block, &used, (size_t)count * each * sizeof *job.begins);
        job.cells = rc_cut(block, &used, points * sizeof *job.cells);
        job.points = job.indexed ? rc_cut(block, &used, points * sizeof *job.points) : NULL;
        job.values = job.carried ? rc_cut(block, &used, points * (size_t)(job.columns * job.real)) : NULL;
        status = run(&job, count);
    } else {
        status = no_memory(in);
    }
    rc_give_scratch(block);
    free(chunks);
    return status;
}
