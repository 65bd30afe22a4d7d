/* Random align calls: every kind, dtype, layout and policy, with whatever must not be read left as NaN. */
#ifndef RC_TESTS_PROBLEM_H
#define RC_TESTS_PROBLEM_H

#include "support.h"

#define MAX_GROUPS 6

typedef struct sensor {
    rc_column_group groups[MAX_GROUPS];
    void *values_memory;
    void *times_memory;
    int64_t *lengths;
    int64_t *row_splits;
    int64_t *rows;
    void *row_offsets;
} sensor;

typedef struct problem {
    rc_align_call call;
    rc_stream streams[4];
    sensor sensors[4];
    void *targets_memory;
    void *out_memory;
    int64_t out_count;
    int64_t columns;
} problem;

static inline void write_time(void *p, int32_t dtype, double units) {
    if (dtype == RC_INT64) {
        const int64_t stamp = 1700000000000000000 + (int64_t)(units * 1e6);
        memcpy(p, &stamp, 8);
    } else {
        write_float(p, dtype, units);
    }
}

/* Times of one sequence: steady, with jitter, repeated stamps and dropouts; in units from about 0 to n. */
static inline void write_times(char *p, int64_t step, int32_t dtype, int64_t n) {
    double now = random_unit();
    const double repeat = random_chance(0.3) ? 0.2 : 0.0;
    const double drop = random_chance(0.3) ? 0.1 : 0.0;
    for (int64_t i = 0; i < n; ++i) {
        write_time(p + i * step, dtype, now);
        if (!random_chance(repeat)) {
            now += 0.5 + random_unit() + (random_chance(drop) ? 10.0 : 0.0);
        }
    }
}

static inline void make_groups(problem *p, int32_t s) {
    rc_stream *stream = &p->streams[s];
    rc_column_group *groups = p->sensors[s].groups;
    static const int32_t widths[] = {1, 2, 3, 4, 7, 8, 12, 16, 17, 31, 33, 64, 70, 130};
    const int32_t count = random_chance(0.05) ? 0 : random_chance(0.6) ? 1 : 1 + random_below(MAX_GROUPS);
    int32_t column = 0;
    for (int32_t g = 0; g < count; ++g) {
        int32_t kind = is_float(stream->value_dtype) ? random_below(RC_NUM_KINDS) : RC_NEAREST + random_below(3);
        int32_t width = widths[random_below(sizeof widths / sizeof widths[0])];
        if (kind == RC_SLERP_XYZW || kind == RC_SLERP_WXYZ) {
            width *= 4;
        }
        groups[g] = (rc_column_group){column, column + width, kind};
        column += width;
    }
    stream->groups = groups;
    stream->num_groups = count;
    stream->num_columns = column;
}

/* Strides of [a, b, c] in memory of the returned number of elements: dense, with holes, transposed or backwards.
 * `start` is where element [0, 0, 0] lies. */
static inline int64_t make_strides(int64_t a, int64_t b, int64_t c, int64_t stride[3], int64_t *start) {
    const int32_t way = random_below(5);
    *start = 0;
    if (way == 1) { /* holes */
        stride[2] = 2;
        stride[1] = 2 * c + 1;
        stride[0] = b * stride[1] + 3;
        return a * stride[0];
    }
    if (way == 2) { /* transposed */
        stride[1] = 1;
        stride[2] = b;
        stride[0] = b * c;
        return a * b * c;
    }
    stride[2] = 1;
    stride[1] = c;
    stride[0] = b * c;
    if (way == 3 && a * b * c > 0) { /* backwards in the middle */
        *start = (b - 1) * c;
        stride[1] = -c;
    }
    return a * b * c;
}

static inline void make_sensor(problem *p, int32_t s, int64_t longest) {
    rc_stream *stream = &p->streams[s];
    sensor *own = &p->sensors[s];
    const int32_t td = p->call.time_dtype;
    const int64_t time_size = (int64_t)rc_dtype_size(td);
    const int64_t value_size = (int64_t)rc_dtype_size(stream->value_dtype);
    const int64_t batch = p->call.batch;
    stream->num_sequences = batch;
    if (random_chance(0.3)) {
        stream->num_sequences = 1 + random_below(4);
        own->rows = allocate(batch, sizeof(int64_t));
        for (int64_t b = 0; b < batch; ++b) {
            own->rows[b] = random_below((int32_t)stream->num_sequences);
        }
    }
    stream->num_samples = random_below((int32_t)longest + 1);
    const int64_t sequences = stream->num_sequences;
    const int32_t layout = random_below(3); /* dense, lengths, packed */
    bool shared_times = false;
    if (layout == 1) {
        own->lengths = allocate(sequences, sizeof(int64_t));
        for (int64_t r = 0; r < sequences; ++r) {
            own->lengths[r] = random_below((int32_t)stream->num_samples + 1);
        }
    } else if (layout == 2) {
        own->row_splits = allocate(sequences + 1, sizeof(int64_t));
        own->row_splits[0] = random_below(3); /* samples before the first sequence belong to none */
        for (int64_t r = 0; r < sequences; ++r) {
            own->row_splits[r + 1] = own->row_splits[r] + random_below((int32_t)longest + 1);
        }
        stream->num_samples = own->row_splits[sequences] + random_below(3);
    }
    const int64_t spans = layout == 2 ? 1 : sequences;
    int64_t start = 0;
    const int64_t elements = make_strides(spans, stream->num_samples, stream->num_columns, stream->values_stride,
                                          &start);
    own->values_memory = allocate(elements, (size_t)value_size);
    for (int64_t k = 0; k < elements; ++k) {
        write_random((char *)own->values_memory + k * value_size, stream->value_dtype);
    }
    stream->values = (char *)own->values_memory + start * value_size;
    shared_times = layout != 2 && random_chance(0.2);
    stream->times_stride[1] = 1 + (random_chance(0.2) ? 1 : 0);
    stream->times_stride[0] = shared_times ? 0 : stream->num_samples * stream->times_stride[1];
    const int64_t stamps = (shared_times ? 1 : spans) * stream->num_samples * stream->times_stride[1];
    own->times_memory = allocate(stamps, (size_t)time_size);
    for (int64_t k = 0; k < stamps; ++k) { /* what is not a sample: NaN, or a stamp that goes backwards */
        write_time((char *)own->times_memory + k * time_size, td, td == RC_INT64 ? (double)-k : (double)NAN);
    }
    for (int64_t r = 0; r < (shared_times ? 1 : sequences); ++r) {
        const int64_t first = layout == 2 ? own->row_splits[r] : r * stream->num_samples;
        int64_t n = layout == 2 ? own->row_splits[r + 1] - first : stream->num_samples;
        if (layout == 1 && !shared_times) {
            n = own->lengths[r];
        }
        const int64_t step = stream->times_stride[1] * time_size;
        write_times((char *)own->times_memory + first * step, step, td, n);
    }
    stream->times = own->times_memory;
    stream->lengths = own->lengths;
    stream->row_splits = own->row_splits;
    stream->rows = own->rows;
}

static inline void make_policies(problem *p, int32_t s) {
    rc_stream *stream = &p->streams[s];
    const bool floating = is_float(p->call.out_dtype);
    const double unit = p->call.time_dtype == RC_INT64 ? 1e6 : 1.0;
    static const int32_t sides[] = {RC_EXTRAPOLATE_CLAMP, RC_EXTRAPOLATE_LINEAR, RC_EXTRAPOLATE_NAN};
    stream->extrapolate = sides[random_below(floating ? 3 : 2)];
    stream->invalid = floating && random_chance(0.3) ? RC_INVALID_NAN : RC_INVALID_KEEP;
    stream->max_gap = random_chance(0.4) ? random_unit() * 2.0 * unit : (double)INFINITY;
    stream->tolerance = random_chance(0.4) ? random_unit() * 2.0 * unit : -1.0;
    stream->time_offset = random_chance(0.3) ? floor(random_unit() * 3.0 * unit) : 0.0;
    if (random_chance(0.2)) {
        const int64_t size = (int64_t)rc_dtype_size(p->call.time_dtype);
        char *offsets = allocate(p->call.batch, (size_t)size);
        for (int64_t b = 0; b < p->call.batch; ++b) {
            if (p->call.time_dtype == RC_INT64) {
                write_integer(offsets + b * size, RC_INT64, random_below(3000000));
            } else {
                write_float(offsets + b * size, p->call.time_dtype, random_unit() * 3.0);
            }
        }
        p->sensors[s].row_offsets = offsets;
        stream->row_offsets = offsets;
    }
}

static inline void make_targets(problem *p, int64_t longest) {
    rc_align_call *call = &p->call;
    const int64_t size = (int64_t)rc_dtype_size(call->time_dtype);
    const bool shared = random_chance(0.2);
    call->targets_stride[1] = random_chance(0.2) ? 2 : 1;
    call->targets_stride[0] = shared ? 0 : call->num_targets * call->targets_stride[1];
    const int64_t count = (shared ? 1 : call->batch) * call->num_targets * call->targets_stride[1];
    char *targets = allocate(count, (size_t)size);
    const bool sorted = random_chance(0.7);
    double now = -1.0;
    for (int64_t k = 0; k < count; ++k) {
        if (k % (call->num_targets * call->targets_stride[1]) == 0) {
            now = -1.0;
        }
        now += ((double)longest + 3.0) / (double)(call->num_targets + 1) * 2.0 * random_unit();
        write_time(targets + k * size, call->time_dtype, sorted ? now : random_unit() * (double)(longest + 3) - 1.0);
        const rc_stream *stream = &p->streams[random_below(call->num_streams)];
        if (random_chance(0.3) && stream->num_sequences > 0 && stream->num_samples > 0) { /* a stamp, if it is one */
            const char *from = (const char *)stream->times +
                               random_below((int32_t)stream->num_samples) * stream->times_stride[1] * size;
            if (call->time_dtype == RC_INT64 || !isnan(read_value(from, call->time_dtype))) {
                memcpy(targets + k * size, from, (size_t)size);
            }
        } else if (random_chance(0.02) && call->time_dtype != RC_INT64) {
            write_float(targets + k * size, call->time_dtype,
                        random_chance(0.5) ? (double)INFINITY : -(double)INFINITY);
        } else if (random_chance(0.02) && call->time_dtype == RC_INT64) {
            write_integer(targets + k * size, RC_INT64, random_chance(0.5) ? INT64_MAX : INT64_MIN);
        }
    }
    p->targets_memory = targets;
    call->targets = targets;
}

static inline int32_t integer_for(int32_t a, int32_t b) { /* the least of b's successors that holds both, or -1 */
    static const int8_t rank[RC_NUM_DTYPES] = {-1, -1, -1, -1, 0, 1, 1, 2, 3, 4};
    if (a == b) {
        return a;
    }
    if (rank[a] == rank[b]) {
        return RC_INT16;
    }
    return rank[a] > rank[b] ? a : b;
}

/* `single`: one stream of floating values (for gradients). */
static inline void make_problem(problem *p, bool single) {
    memset(p, 0, sizeof *p);
    rc_align_call *call = &p->call;
    static const int32_t time_dtypes[] = {RC_FLOAT32, RC_FLOAT64, RC_INT64};
    static const int32_t counts[] = {0, 1, 2, 3, 5, 63, 64, 65, 130};
    call->struct_size = sizeof *call;
    call->time_dtype = time_dtypes[random_below(3)];
    call->num_streams = single || random_chance(0.5) ? 1 : 2 + random_below(3);
    call->streams = p->streams;
    call->batch = random_chance(0.05) ? 0 : 1 + random_below(4);
    call->num_targets = counts[random_below(sizeof counts / sizeof counts[0])];
    const int64_t longest = random_chance(0.2) ? random_below(4) : 4 + random_below(200);
    const bool integers = !single && random_chance(0.25);
    int32_t least = -1;
    for (int32_t s = 0; s < call->num_streams; ++s) {
        rc_stream *stream = &p->streams[s];
        stream->value_dtype = integers ? RC_BOOL + random_below(6) : random_below(single ? 4 : RC_NUM_DTYPES);
        least = s == 0 ? stream->value_dtype : integers ? integer_for(least, stream->value_dtype) : least;
    }
    call->out_dtype = integers && random_chance(0.7)
                          ? least
                          : (is_float(p->streams[0].value_dtype) && random_chance(0.5) ? p->streams[0].value_dtype
                                                                                       : random_below(4));
    for (int32_t s = 0; s < call->num_streams; ++s) {
        make_groups(p, s);
        make_sensor(p, s, longest);
        make_policies(p, s);
        p->columns += p->streams[s].num_columns;
    }
    make_targets(p, longest);
    int64_t start = 0;
    p->out_count = make_strides(call->batch, call->num_targets, p->columns, call->out_stride, &start);
    const size_t out_size = rc_dtype_size(call->out_dtype);
    p->out_memory = allocate(p->out_count, out_size);
    call->out = (char *)p->out_memory + start * (int64_t)out_size;
    if (random_chance(0.7)) {
        call->valid = allocate(call->batch * call->num_targets * call->num_streams, 1);
    }
    call->parallel_for = random_chance(0.5) ? uneven_for : NULL;
}

static inline void free_problem(problem *p) {
    for (int32_t s = 0; s < p->call.num_streams; ++s) {
        free(p->sensors[s].values_memory);
        free(p->sensors[s].times_memory);
        free(p->sensors[s].lengths);
        free(p->sensors[s].row_splits);
        free(p->sensors[s].rows);
        free(p->sensors[s].row_offsets);
    }
    free(p->targets_memory);
    free(p->out_memory);
    free(p->call.valid);
}

#endif /* RC_TESTS_PROBLEM_H */
