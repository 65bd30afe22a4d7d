// What the align kernels are told: one block of constants a launch, passed by value.
//
// A unit is a run of columns of one stream that share a kind. A tile is some output rows of one unit, and one warp's work;
// rows are counted across the batch, [B * T].
#pragma once

#include <type_traits>

#include "../core/bracket.h"
#include "fast_divide.h"

namespace rc {

union TimeValue {
    float f32;
    double f64;
    int64_t i64;
};

struct StreamParams {
    const void* values;
    const void* times;
    const int64_t* lengths;
    const int64_t* row_splits;
    const int64_t* rows;
    const void* row_offsets;
    int64_t values_stride[3];  // sequence, sample, column
    int64_t times_stride[2];   // sequence, sample
    int64_t num_sequences;
    int64_t num_samples;
    TimeValue offset;
    rc_policy policy;
    uint32_t kinds;  // bit k: the stream has a column of kind k
    int32_t value_dtype;
    int32_t invalid;
    bool has_offset;
    FastDivide check_slices;  // per sequence
    uint32_t first_check;     // the stream's slices among all that are checked
    uint32_t end_check;
};

struct UnitParams {
    int32_t stream;
    int32_t kind;
    int32_t column;  // first column within the stream
    int32_t columns;
    int64_t out_column;    // first column of the output
    int32_t vector;        // elements a lane moves at once; slerp: one quaternion
    int32_t value_bytes;   // of an element
    uint32_t chunks;       // columns / vector, or quaternions
    uint32_t tile_chunks;  // chunks of one tile
    int32_t tile_rows;     // output rows of one tile, at most a warp's lanes
    uint32_t tiles;        // all of this unit
    uint32_t first_block;
    FastDivide column_tiles;
    FastDivide by_tile_chunks;
    FastDivide by_last_chunks;  // the last column tile may be narrower
    bool leads;                 // this unit writes the stream's mask
    bool prefetch;              // start a tile's times on their way early
    bool quick;                 // linear, and the stream asks nothing more of its targets
    bool clamp_keep;            // what lies outside is clamped and kept
};

struct CallParams {
    const void* targets;
    int64_t targets_stride[2];
    int64_t batch;
    int64_t num_targets;
    void* out;
    int64_t out_stride[3];
    uint8_t* valid;
    int32_t time_dtype;
    int32_t out_dtype;
    int32_t num_streams;
    int32_t num_units;
    FastDivide by_targets;       // by num_targets
    uint32_t first_check_block;  // from here on, blocks check samples
    bool short_rows;             // batch * num_targets < 2^31: rows divide fast
    bool split_store;            // output rows are aligned to half of the widest vector only
    bool flat_out;               // output rows follow each other at out_stride[1], across the batch too
};

// Three sizes, so that the usual call passes a few hundred bytes and not eight thousand.
template <int kStreams, int kUnits>
struct AlignParams {
    static constexpr int max_streams = kStreams;
    static constexpr int max_units = kUnits;
    CallParams call;
    StreamParams streams[kStreams];
    UnitParams units[kUnits];
};
using AlignParamsOne = AlignParams<1, 1>;
using AlignParamsFew = AlignParams<4, 16>;
using AlignParamsMany = AlignParams<RC_MAX_STREAMS, RC_MAX_COLUMN_GROUPS>;

// What to do with an output row.
enum Way : int32_t {
    kFill = 0,  // nothing to read: NaN, or 0 for integers
    kCopy = 1,
    kMix = 2,  // with the sample one stride on
};

// What one output row reads, found once a tile and kept in shared memory.
struct alignas(16) Record {
    const void* sample;  // its first column, of the tile
    float weight;        // of the next sample
    int32_t way;
};

// The same with a weight in double: float64 values, pchip and slerp.
struct alignas(16) WideRecord {
    const void* sample;
    double weight;
    int32_t way;
};

// More about a row, for outputs that are not flat and for curves.
struct RowExtra {
    int64_t out;    // element offset of the output row
    int64_t times;  // where the sequence's times begin
    int32_t length;
    int32_t i0;
};

}  // namespace rc
