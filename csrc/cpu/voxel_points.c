/* A call's points: their samples, what only the data can tell of them, and the cells of all. */
#include "voxel_points.h"

#include "rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void describe_cloud(rc_voxel_input *in) {
    in->per_sample = in->cloud->num_points;
    in->total = in->cloud->row_splits ? in->per_sample : in->batch * in->per_sample;
    in->wide = in->cloud->dtype == RC_FLOAT64;
}

static void describe_grid(rc_voxel_input *in) {
    in->cells = in->grid->size[0] * in->grid->size[1] * in->grid->size[2];
    in->long_cells = in->cells > INT32_MAX;
}

rc_voxel_input rc_input_of_call(const rc_voxel_call *call) {
    rc_voxel_input in = {.cloud = call->cloud,
                         .depth = call->depth,
                         .grid = &call->grid,
                         .mask = call->mask,
                         .poses = call->poses,
                         .mask_stride = {call->mask_stride[0], call->mask_stride[1], call->mask_stride[2]},
                         .poses_stride = {call->poses_stride[0], call->poses_stride[1]},
                         .batch = call->batch,
                         .bounds = call->bounds,
                         .parallel_for = call->parallel_for,
                         .pool = call->pool};
    if (in.cloud) {
        describe_cloud(&in);
    } else {
        in.per_sample = in.depth->num_cameras * in.depth->height * in.depth->width;
        in.total = in.batch * in.per_sample;
    }
    describe_grid(&in);
    return in;
}

rc_voxel_input rc_input_of_devoxelize(const rc_devoxelize_call *call) {
    rc_voxel_input in = {.cloud = call->cloud,
                         .grid = &call->grid,
                         .mask = call->mask,
                         .poses = call->poses,
                         .mask_stride = {call->mask_stride[0], 0, call->mask_stride[1]},
                         .poses_stride = {call->poses_stride, 0},
                         .batch = call->batch,
                         .bounds = call->bounds,
                         .parallel_for = call->parallel_for,
                         .pool = call->pool};
    describe_cloud(&in);
    describe_grid(&in);
    return in;
}

#define FRAME_OF(REAL, SUFFIX)                                                                                         \
    rc_frame_##SUFFIX rc_frame_of_##SUFFIX(const rc_voxel_input *in, int64_t b) {                                      \
        const rc_voxel_grid *grid = in->grid;                                                                          \
        const REAL *voxels = grid->voxel_sizes, *mins = grid->grid_mins;                                               \
        rc_frame_##SUFFIX frame;                                                                                       \
        for (int d = 0; d < 3; ++d) {                                                                                  \
            frame.voxel[d] = voxels ? voxels[b * grid->voxel_sizes_stride + d] : (REAL)grid->voxel_size[d];            \
            frame.min[d] = mins ? mins[b * grid->grid_mins_stride + d] : (REAL)grid->grid_min[d];                      \
            frame.size[d] = (REAL)grid->size[d];                                                                       \
        }                                                                                                              \
        return frame;                                                                                                  \
    }

FRAME_OF(float, f32)
FRAME_OF(double, f64)

/* ---- Faults ----------------------------------------------------------------------------------------------------- */

static rc_status fault(rc_data_fault what, int64_t row, int64_t position) {
    const rc_fault_report report = {.fault = (int32_t)what, .row = row, .position = position};
    return rc_fail_fault(&report);
}

rc_status rc_check_voxel_data(const rc_voxel_input *in) {
    const int64_t *splits = in->cloud ? in->cloud->row_splits : NULL;
    for (int64_t b = 0; splits && b < in->batch; ++b) {
        if (splits[b] < 0 || splits[b + 1] < splits[b] || splits[b + 1] > in->total) {
            return fault(RC_FAULT_POINT_SPLITS, b, 0);
        }
    }
    if (!in->grid->voxel_sizes && !in->grid->grid_mins) {
        return RC_OK;
    }
    for (int64_t b = 0; b < in->batch; ++b) {
        rc_frame_f64 frame;
        if (in->wide) {
            frame = rc_frame_of_f64(in, b);
        } else {
            const rc_frame_f32 narrow = rc_frame_of_f32(in, b);
            for (int d = 0; d < 3; ++d) {
                frame.voxel[d] = (double)narrow.voxel[d];
                frame.min[d] = (double)narrow.min[d];
            }
        }
        for (int d = 0; d < 3; ++d) {
            if (!(frame.voxel[d] > 0.0) || !isfinite(frame.voxel[d])) {
                return fault(RC_FAULT_VOXEL_SIZE, b, d);
            }
            if (!isfinite(frame.min[d])) {
                return fault(RC_FAULT_GRID_MIN, b, d);
            }
        }
    }
    return RC_OK;
}

/* ---- Chunks ----------------------------------------------------------------------------------------------------- */

rc_chunk *rc_make_chunks(const rc_voxel_input *in, int64_t size, int64_t *count) {
    int64_t needed = 0;
    for (int64_t b = 0; b < in->batch; ++b) {
        const rc_sample sample = rc_sample_of(in, b);
        needed += (sample.end - sample.begin + size - 1) / size;
    }
    rc_chunk *chunks = malloc(sizeof *chunks * (size_t)(needed > 0 ? needed : 1));
    *count = 0;
    for (int64_t b = 0; chunks && b < in->batch; ++b) {
        const rc_sample sample = rc_sample_of(in, b);
        for (int64_t begin = sample.begin; begin < sample.end; begin += size) {
            const int64_t end = sample.end - begin < size ? sample.end : begin + size;
            chunks[(*count)++] = (rc_chunk){b, begin, end};
        }
    }
    return chunks;
}

/* ---- Cells ------------------------------------------------------------------------------------------------------ */

int64_t rc_find_some_cells(const rc_voxel_input *in, int64_t b, int64_t first, int64_t count, void *cells) {
    char *to = cells;
    const rc_cell_table *table = rc_row_kernels()->cells;
    const int64_t size = in->long_cells ? 8 : 4;
    rc_point_tile tile;
    int64_t outside = 0;
    if (in->wide) {
        const rc_frame_f64 frame = rc_frame_of_f64(in, b);
        for (int64_t done = 0; done < count; done += RC_POINT_TILE) {
            const int32_t some = (int32_t)(count - done < RC_POINT_TILE ? count - done : RC_POINT_TILE);
            table->load(in, b, first + done, some, &tile);
            outside += table->locate_f64(in, &frame, &tile, some, to + done * size);
        }
    } else {
        const rc_frame_f32 frame = rc_frame_of_f32(in, b);
        for (int64_t done = 0; done < count; done += RC_POINT_TILE) {
            const int32_t some = (int32_t)(count - done < RC_POINT_TILE ? count - done : RC_POINT_TILE);
            table->load(in, b, first + done, some, &tile);
            outside += table->locate_f32(in, &frame, &tile, some, to + done * size);
        }
    }
    return outside;
}

typedef struct find_job {
    const rc_voxel_input *in;
    const rc_chunk *chunks;
    char *cells;
    int64_t *outside; /* by chunk */
} find_job;

static void find_chunks(int64_t begin, int64_t end, void *context) {
    const find_job *job = context;
    const int64_t size = job->in->long_cells ? 8 : 4;
    for (int64_t k = begin; k < end; ++k) {
        const rc_chunk *chunk = &job->chunks[k];
        const rc_sample sample = rc_sample_of(job->in, chunk->sample);
        job->outside[k] = rc_find_some_cells(job->in, chunk->sample, chunk->begin - sample.begin,
                                             chunk->end - chunk->begin, job->cells + chunk->begin * size);
    }
}

int64_t rc_first_outside(const rc_voxel_input *in, int64_t b) {
    const rc_sample sample = rc_sample_of(in, b);
    int64_t cells[1];
    for (int64_t n = 0; n < sample.end - sample.begin; ++n) {
        if (rc_find_some_cells(in, b, n, 1, cells) != 0) {
            return n;
        }
    }
    return -1;
}

/* Points that belong to no sample have no cell. */
static void clear_cells(const rc_voxel_input *in, void *cells, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
        if (in->long_cells) {
            ((int64_t *)cells)[i] = -1;
        } else {
            ((int32_t *)cells)[i] = -1;
        }
    }
}

rc_status rc_find_cells(const rc_voxel_input *in, void *cells, int64_t *dropped) {
    int64_t count = 0;
    rc_chunk *chunks = rc_make_chunks(in, 16 * RC_POINT_TILE, &count);
    int64_t *outside = malloc(sizeof *outside * (size_t)(count > 0 ? count : 1));
    if (!chunks || !outside) {
        free(chunks);
        free(outside);
        return rc_fail(RC_OUT_OF_MEMORY, "scratch space for %lld points could not be had", (long long)in->total);
    }
    find_job job = {in, chunks, cells, outside};
    rc_run(in->parallel_for, in->pool, count, 2, find_chunks, &job);
    const rc_sample first = in->batch > 0 ? rc_sample_of(in, 0) : (rc_sample){in->total, in->total};
    const rc_sample last = in->batch > 0 ? rc_sample_of(in, in->batch - 1) : first;
    clear_cells(in, cells, 0, first.begin);
    clear_cells(in, cells, last.end, in->total);
    rc_status status = RC_OK;
    for (int64_t k = 0; k < count && status == RC_OK; ++k) {
        if (in->bounds == RC_BOUNDS_RAISE && outside[k] > 0) {
            status = fault(RC_FAULT_POINT_OUTSIDE, chunks[k].sample, rc_first_outside(in, chunks[k].sample));
        }
    }
    if (dropped && status == RC_OK) {
        for (int64_t b = 0; b < in->batch; ++b) {
            dropped[b] = 0;
        }
        for (int64_t k = 0; k < count; ++k) {
            dropped[chunks[k].sample] += outside[k];
        }
    }
    free(chunks);
    free(outside);
    return status;
}

/* ---- Inverse ---------------------------------------------------------------------------------------------------- */

typedef struct inverse_job {
    const rc_voxel_input *in;
    const int32_t *cells;
    int64_t *inverse;
} inverse_job;

static void widen_cells(int64_t begin, int64_t end, void *context) {
    const inverse_job *job = context;
    rc_row_kernels()->cells->widen(job->cells + begin, end - begin, job->inverse + begin);
}

void rc_write_inverse(const rc_voxel_input *in, const void *cells, int64_t *inverse) {
    if (in->long_cells) {
        memcpy(inverse, cells, (size_t)in->total * sizeof *inverse);
    } else {
        inverse_job job = {in, cells, inverse};
        rc_run(in->parallel_for, in->pool, in->total, 32 * 1024, widen_cells, &job);
    }
}

rc_status rc_check_outside(const rc_voxel_input *in) {
    if (in->bounds != RC_BOUNDS_RAISE) {
        return RC_OK;
    }
    void *cells = malloc(((size_t)in->total + 1) * (in->long_cells ? sizeof(int64_t) : sizeof(int32_t)));
    if (!cells) {
        return rc_fail(RC_OUT_OF_MEMORY, "scratch space for %lld points could not be had", (long long)in->total);
    }
    const rc_status status = rc_find_cells(in, cells, NULL);
    free(cells);
    return status;
}
