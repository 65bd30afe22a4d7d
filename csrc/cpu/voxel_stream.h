/* What the two halves of rc_voxelize_bins() share: points to slabs, and slabs to the grid. */
#ifndef RC_CPU_VOXEL_STREAM_H
#define RC_CPU_VOXEL_STREAM_H

#include "voxel_bins.h"

#include <stdatomic.h>

typedef struct rc_stream_work {
    const rc_voxel_input *in;
    const rc_voxel_call *call;
    rc_reducer reducer;
    int32_t columns; /* 0: no features */
    int32_t slab_bits;
    int64_t slabs_each; /* of a sample */
    int64_t real;       /* bytes of a number in the compute dtype of features */
    bool max, min;      /* wanted themselves or for their argument */
    bool indexed;       /* slabs ask for the points' indices */
    bool carried;       /* points' rows go along */
    bool streamed;      /* outputs go past the caches */
    const rc_chunk *chunks;
    int64_t *first;   /* [B + 1]: a sample's first chunk */
    int64_t *outside; /* by chunk */
    uint32_t *begins; /* [chunks, slabs_each + 2]: where each slab's points begin in the chunk */
    uint16_t *cells;  /* by place: a chunk's points by slab, from its begin */
    uint16_t *points;
    char *values;
    int64_t most; /* points of the fullest sample */
    atomic_bool no_memory;
} rc_stream_work;

RC_INLINE bool rc_output_has_columns(const rc_voxel_output *output) {
    return output->reduce != RC_REDUCE_OCCUPANCY && output->reduce != RC_REDUCE_COUNT;
}

/* The next `bytes` of a block of scratch memory, at a multiple of a cache line; NULL: only counts them. */
RC_INLINE void *rc_cut(char *block, size_t *used, size_t bytes) {
    void *piece = block ? block + *used : NULL;
    *used += (bytes + 63) / 64 * 64;
    return piece;
}

/* Bytes of scratch memory that a slab's cells take. */
size_t rc_bytes_of_bins(const rc_stream_work *job);

/* Slabs begin .. end of the call; `context` is the rc_stream_work. */
void rc_write_slabs(int64_t begin, int64_t end, void *context);

#endif /* RC_CPU_VOXEL_STREAM_H */
