/* Slabs to the grid: each takes its points, and its cells are written once; see voxel_bins.h. */
#include "scratch.h"
#include "voxel_stream.h"

#include <string.h>

/* Sums or extremes to an output; they are finished in their place. */
static void put_values(const rc_stream_work *job, const rc_bins *bins, const rc_voxel_output *output, void *values,
                       char *to) {
    const rc_bin_table *table = rc_row_kernels()->bins;
    const bool wide = job->reducer.wide, mean = output->reduce == RC_REDUCE_MEAN;
    const int32_t dtype = wide ? RC_FLOAT64 : RC_FLOAT32;
    const int64_t columns = job->columns, cells = bins->cells, size = (int64_t)rc_dtype_size(output->dtype);
    const rc_convert_fn convert = rc_row_kernels()->convert[dtype][output->dtype];
    const bool in_rows = !job->call->channels_first || columns == 1;
    (wide ? table->finish_f64 : table->finish_f32)(bins, values, mean, job->call->empty_value);
    if (in_rows && output->dtype == dtype && job->streamed) {
        table->store(to, values, (size_t)(cells * columns * size));
        return;
    }
    if (in_rows) {
        convert(values, to, cells * columns);
        return;
    }
    union {
        float f32[RC_POINT_TILE];
        double f64[RC_POINT_TILE];
    } column;
    for (int64_t begin = 0; begin < cells; begin += RC_POINT_TILE) {
        const int64_t count = cells - begin < RC_POINT_TILE ? cells - begin : RC_POINT_TILE;
        for (int64_t c = 0; c < columns; ++c) {
            for (int64_t i = 0; i < count; ++i) {
                if (wide) {
                    column.f64[i] = ((const double *)values)[(begin + i) * columns + c];
                } else {
                    column.f32[i] = ((const float *)values)[(begin + i) * columns + c];
                }
            }
            convert(&column, to + (c * job->in->cells + begin) * size, count);
        }
    }
}

static void put_arguments(const rc_stream_work *job, const rc_voxel_output *output, const uint32_t *points,
                          int64_t cells, char *to) {
    const int64_t columns = job->columns;
    const int64_t cell_step = job->call->channels_first ? 1 : columns;
    const int64_t column_step = job->call->channels_first ? job->in->cells : 1;
    for (int64_t k = 0; k < cells; ++k) {
        for (int64_t c = 0; c < columns; ++c) {
            const uint32_t point = points[k * columns + c];
            const int64_t at = k * cell_step + c * column_step, value = point == UINT32_MAX ? -1 : (int64_t)point;
            if (output->dtype == RC_INT32) {
                ((int32_t *)(void *)to)[at] = (int32_t)value;
            } else {
                ((int64_t *)(void *)to)[at] = value;
            }
        }
    }
}

/* Column 0 of a cell. */
static char *cell_at(const rc_stream_work *job, const rc_voxel_output *output, int64_t b, int64_t cell) {
    if (output->dtype == RC_BITS) {
        return (char *)output->data + (b * job->in->cells + cell) / 8;
    }
    const int64_t columns = rc_output_has_columns(output) ? job->columns : 1;
    const int64_t at = job->call->channels_first ? b * columns * job->in->cells + cell
                                                 : (b * job->in->cells + cell) * columns;
    return (char *)output->data + at * (int64_t)rc_dtype_size(output->dtype);
}

static void put_output(const rc_stream_work *job, const rc_bins *bins, const rc_voxel_output *output, char *to) {
    const rc_bin_table *table = rc_row_kernels()->bins;
    switch (output->reduce) {
    case RC_REDUCE_OCCUPANCY:
    case RC_REDUCE_COUNT:
        if (output->dtype == RC_BITS) {
            table->put_bits(bins->counts, bins->cells, job->call->accumulate, (uint8_t *)to);
        } else {
            table->put_counts(bins->counts, bins->cells, output->reduce == RC_REDUCE_OCCUPANCY, job->call->accumulate,
                              output->dtype, to);
        }
        break;
    case RC_REDUCE_SUM:
    case RC_REDUCE_MEAN:
        put_values(job, bins, output, bins->sum, to);
        break;
    case RC_REDUCE_MAX:
        put_values(job, bins, output, bins->max, to);
        break;
    case RC_REDUCE_MIN:
        put_values(job, bins, output, bins->min, to);
        break;
    case RC_REDUCE_ARGMAX:
        put_arguments(job, output, bins->argmax, bins->cells, to);
        break;
    default:
        put_arguments(job, output, bins->argmin, bins->cells, to);
        break;
    }
}

/* Sums before means, which may be made in their place. */
static void put_slab(const rc_stream_work *job, const rc_bins *bins, int64_t b, int64_t cell) {
    for (int turn = 0; turn < 2; ++turn) {
        for (int32_t o = 0; o < job->call->num_outputs; ++o) {
            const rc_voxel_output *output = &job->call->outputs[o];
            const bool mean = output->reduce == RC_REDUCE_MEAN;
            if (mean == (turn == 1) && (job->columns > 0 || !rc_output_has_columns(output))) {
                put_output(job, bins, output, cell_at(job, output, b, cell));
            }
        }
    }
}

/* A slab without points. */
static void put_empty(const rc_stream_work *job, int64_t b, int64_t cell, int64_t cells) {
    for (int32_t o = 0; o < job->call->num_outputs && !job->call->accumulate; ++o) {
        const rc_voxel_output *output = &job->call->outputs[o];
        char *to = cell_at(job, output, b, cell);
        const int64_t columns = rc_output_has_columns(output) ? job->columns : 1;
        const int64_t step = job->in->cells * (int64_t)rc_dtype_size(output->dtype);
        if (output->dtype == RC_BITS) {
            memset(to, 0, (size_t)(cells / 8));
        } else if (!job->call->channels_first) {
            rc_write_empty(output, job->call->empty_value, cells * columns, to);
        } else {
            for (int64_t c = 0; c < columns; ++c) {
                rc_write_empty(output, job->call->empty_value, cells, to + c * step);
            }
        }
    }
}

static int64_t count_slab(const rc_stream_work *job, int64_t b, int64_t s) {
    int64_t points = 0;
    for (int64_t k = job->first[b]; k < job->first[b + 1]; ++k) {
        const uint32_t *begins = job->begins + k * (job->slabs_each + 2);
        points += begins[s + 1] - begins[s];
    }
    return points;
}

static void fill_slab(const rc_stream_work *job, rc_bins *bins, int64_t b, int64_t s) {
    const rc_bin_table *table = rc_row_kernels()->bins;
    const bool wide = job->reducer.wide;
    (wide ? table->clear_f64 : table->clear_f32)(bins);
    const int64_t origin = rc_sample_of(job->in, b).begin;
    rc_segment segment = {.features = job->columns > 0 ? rc_features_of(&job->reducer, b) : NULL};
    for (int64_t k = job->first[b]; k < job->first[b + 1]; ++k) {
        const uint32_t *begins = job->begins + k * (job->slabs_each + 2);
        const int64_t at = job->chunks[k].begin + begins[s];
        segment.count = begins[s + 1] - begins[s];
        segment.cells = job->cells + at;
        segment.points = job->indexed ? job->points + at : NULL;
        segment.values = job->carried ? job->values + at * job->columns * job->real : NULL;
        segment.first = job->chunks[k].begin - origin;
        (wide ? table->add_f64 : table->add_f32)(bins, &segment);
    }
    (wide ? table->close_f64 : table->close_f32)(bins);
}

/* Lays a slab's arrays out in `block`; returns the bytes they take, also where that is NULL. */
static size_t lay_out(const rc_stream_work *job, char *block, rc_bins *bins) {
    size_t used = 0;
    const size_t cells = (size_t)1 << job->slab_bits;
    const size_t numbers = cells * (size_t)job->columns, bytes = numbers * (size_t)job->real;
    const rc_reducer *r = &job->reducer;
    *bins = (rc_bins){.reducer = r, .columns = job->columns};
    bins->counts = rc_cut(block, &used, cells * sizeof(uint32_t));
    bins->max = job->max ? rc_cut(block, &used, bytes) : NULL;
    bins->min = job->min ? rc_cut(block, &used, bytes) : NULL;
    bins->argmax = r->argmax ? rc_cut(block, &used, numbers * sizeof(uint32_t)) : NULL;
    bins->argmin = r->argmin ? rc_cut(block, &used, numbers * sizeof(uint32_t)) : NULL;
    if (r->sum) {
        const size_t full = (size_t)(job->most / RC_SUM_BLOCK) + 1, most = full < cells ? full : cells;
        bins->sum = rc_cut(block, &used, bytes);
        bins->spill_of = rc_cut(block, &used, cells * sizeof(uint32_t));
        bins->spills = rc_cut(block, &used, most * sizeof(rc_spill));
        bins->levels = rc_cut(block, &used, most * RC_SUM_LEVELS * (size_t)(job->columns * job->real));
    }
    return used;
}

size_t rc_bytes_of_bins(const rc_stream_work *job) {
    rc_bins bins;
    return lay_out(job, NULL, &bins);
}

void rc_write_slabs(int64_t begin, int64_t end, void *context) {
    rc_stream_work *job = context;
    rc_bins bins;
    char *block = rc_take_scratch(rc_bytes_of_bins(job));
    if (!block) {
        atomic_store_explicit(&job->no_memory, true, memory_order_relaxed);
        return;
    }
    (void)lay_out(job, block, &bins);
    for (int64_t task = begin; task < end; ++task) {
        const int64_t b = task / job->slabs_each, s = task % job->slabs_each;
        const int64_t cell = s << job->slab_bits, all = (int64_t)1 << job->slab_bits;
        bins.cells = job->in->cells - cell < all ? job->in->cells - cell : all;
        if (count_slab(job, b, s) == 0) {
            put_empty(job, b, cell, bins.cells);
        } else {
            fill_slab(job, &bins, b, s);
            put_slab(job, &bins, b, cell);
        }
    }
    rc_give_scratch(block);
}
