/* From targets to samples: the sequence an output row reads, and the brackets of a tile of its targets. */
#ifndef RC_CPU_LOCATE_H
#define RC_CPU_LOCATE_H

#include "common/common.h"
#include "rows.h"
#include "run.h"

/* Samples that one output row reads. */
typedef struct rc_sequence {
    const char *values;   /* sample 0, column 0 */
    const char *times;    /* sample 0 */
    int64_t value_stride; /* elements from sample to sample */
    int64_t time_stride;
    int64_t index; /* r */
    int64_t first; /* sample 0's place among the stream's samples: r S, or row_splits[r] */
    int32_t n;     /* samples */
} rc_sequence;

/* The sequence of output row b, of a stream that rc_check_row() has found sound. */
rc_sequence rc_sequence_of_row(const rc_stream *stream, int32_t time_dtype, int64_t b);
/* Sequence r itself. */
rc_sequence rc_sequence_at(const rc_stream *stream, int32_t time_dtype, int64_t r);

/* Kinds that read the same samples share their brackets. */
typedef enum rc_read {
    RC_READ_BETWEEN = 0, /* linear, pchip, slerp, angle: both neighbours and a weight */
    RC_READ_NEAREST = 1,
    RC_READ_PREVIOUS = 2,
    RC_READ_NEXT = 3
} rc_read;
#define RC_NUM_READS 4

RC_INLINE rc_read rc_read_of_kind(int32_t kind) {
    return kind == RC_NEAREST    ? RC_READ_NEAREST
           : kind == RC_PREVIOUS ? RC_READ_PREVIOUS
           : kind == RC_NEXT     ? RC_READ_NEXT
                                 : RC_READ_BETWEEN;
}

/* Bit k set: the stream reads in way k. A stream without columns still has valid targets: as linear's. */
uint32_t rc_reads_of(const rc_stream *stream);

/* A stream's offset for output row b, in the time dtype. */
typedef union rc_time {
    float f32;
    double f64;
    int64_t i64;
} rc_time;

rc_time rc_offset_of_row(const rc_stream *stream, int32_t time_dtype, int64_t b);

/* What to find. */
typedef struct rc_query {
    const rc_sequence *sequence;
    const rc_policy *policy;
    const char *targets;   /* the tile's first target */
    int64_t target_stride; /* elements */
    rc_time offset;
    int32_t count;  /* targets, at most RC_TILE */
    uint32_t reads; /* bits of rc_read */
    bool spacing;   /* pchip is among the kinds */
    bool sites;     /* the sites are wanted too */
} rc_query;

/* Brackets of one way to read. */
typedef struct rc_brackets {
    int32_t i0[RC_TILE];
    int32_t i1[RC_TILE];
    double w64[RC_TILE];
    float w32[RC_TILE];
    bool outside[RC_TILE];
} rc_brackets;

typedef struct rc_tile {
    rc_brackets brackets[RC_NUM_READS];
    double spacing[RC_TILE][3]; /* around the bracket of RC_READ_BETWEEN, if asked for */
    rc_site sites[RC_TILE];     /* likewise */
    bool valid[RC_TILE];        /* for every way to read */
} rc_tile;

void rc_find_tile(const rc_query *query, int32_t time_dtype, rc_tile *tile);

/* Marks what `extrapolate` and `invalid` turn into NaN as nothing to read. */
void rc_blank_tile(const rc_stream *stream, const rc_query *query, rc_tile *tile);

/* Lengths of the intervals before, in and after the bracket [i0, i0 + 1], as rc_rows.spacing has them. */
void rc_spacing_at(const rc_sequence *sequence, int32_t time_dtype, int32_t i0, double spacing[3]);

/* Checks all that output row b of stream s reads: its sequence's place and times, its targets, and the `raise`
 * policies. False: `report` says what and where. `known`: bits of what need not be looked at again. */
#define RC_KNOWN_TIMES 1u
#define RC_KNOWN_TARGETS 2u
bool rc_check_row(const rc_align_call *call, int32_t s, int64_t b, uint32_t known, rc_fault_report *report);

/* Checks a whole call; RC_BAD_DATA names the first fault by stream, row and position. */
rc_status rc_check_data(const rc_align_call *call);

#endif /* RC_CPU_LOCATE_H */
