/* Points by cell; see voxel_groups.h. */
#include "voxel_groups.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SLABS 4096       /* of a sample: their next places stay in the second cache */
#define POINTS_PER_SLAB 2048 /* no fewer on average: a slab has its cost */
#define MIN_SLAB_BITS 12
#define MAX_COUNT_BITS 20   /* slabs of up to so many cells are sorted by counting */
#define CELLS_PER_POINT 512 /* likewise: a word of `seen` has 64 cells */
#define CHUNK_POINTS (16 * 1024)

typedef struct entry {
    uint64_t key;
    uint32_t index;
} entry;

typedef struct work {
    const rc_voxel_input *in;
    rc_groups *groups;
    const void *cells;
    const rc_chunk *chunks;
    uint32_t *counts;  /* [chunks, slabs_each + 1]: points, then next places */
    int64_t *first;    /* [B + 1]: a sample's first chunk */
    void *keys;        /* by place: cell counted from its slab's first, in uint32 or uint64 */
    uint32_t *indices; /* by place: index of the point in its sample */
    int64_t most;      /* points of the fullest slab */
    atomic_bool no_memory;
} work;

RC_INLINE int64_t rc_lowest_bit(uint64_t word) {
#if defined(__GNUC__)
    return __builtin_ctzll(word);
#else
    int64_t bit = 0;
    while (!(word >> bit & 1u)) {
        ++bit;
    }
    return bit;
#endif
}

/* By key, eight bits at a time from the lowest; entries of one key keep their order. Returns where the result is. */
static entry *sort_entries(entry *entries, entry *others, int64_t n, int32_t bits) {
    for (int32_t shift = 0; shift < bits; shift += 8) {
        uint32_t next[256] = {0};
        for (int64_t j = 0; j < n; ++j) {
            ++next[entries[j].key >> shift & 255u];
        }
        if (n > 0 && next[entries[0].key >> shift & 255u] == n) {
            continue; /* all alike */
        }
        uint32_t place = 0;
        for (int d = 0; d < 256; ++d) {
            const uint32_t count = next[d];
            next[d] = place;
            place += count;
        }
        for (int64_t j = 0; j < n; ++j) {
            others[next[entries[j].key >> shift & 255u]++] = entries[j];
        }
        entry *swap = entries;
        entries = others;
        others = swap;
    }
    return entries;
}

#define CELL int32_t
#define KEY uint32_t
#define TYPED(name) name##_i32
#include "voxel_groups.inc.h"

#define CELL int64_t
#define KEY uint64_t
#define TYPED(name) name##_i64
#include "voxel_groups.inc.h"

/* ---- To the slabs ----------------------------------------------------------------------------------------------- */

static void count_chunks(int64_t begin, int64_t end, void *context) {
    const work *job = context;
    for (int64_t k = begin; k < end; ++k) {
        uint32_t *counts = job->counts + k * (job->groups->slabs_each + 1);
        if (job->in->long_cells) {
            count_chunk_i64(job, &job->chunks[k], counts);
        } else {
            count_chunk_i32(job, &job->chunks[k], counts);
        }
    }
}

/* From counts to places: a sample's slabs in order, in each the chunks in order. */
static void place_samples(int64_t begin, int64_t end, void *context) {
    const work *job = context;
    const int64_t slabs = job->groups->slabs_each;
    for (int64_t b = begin; b < end; ++b) {
        const int64_t origin = rc_sample_of(job->in, b).begin;
        uint32_t place = 0;
        for (int64_t s = 0; s <= slabs; ++s) {
            const uint32_t from = place;
            for (int64_t k = job->first[b]; k < job->first[b + 1]; ++k) {
                uint32_t *count = &job->counts[k * (slabs + 1) + s];
                const uint32_t points = *count;
                *count = place;
                place += points;
            }
            if (s < slabs) {
                job->groups->slabs[b * slabs + s] = (rc_slab){.place = origin + from, .points = place - from};
            }
        }
    }
}

static void move_chunks(int64_t begin, int64_t end, void *context) {
    const work *job = context;
    for (int64_t k = begin; k < end; ++k) {
        uint32_t *next = job->counts + k * (job->groups->slabs_each + 1);
        if (job->in->long_cells) {
            move_chunk_i64(job, &job->chunks[k], next);
        } else {
            move_chunk_i32(job, &job->chunks[k], next);
        }
    }
}

/* ---- In a slab -------------------------------------------------------------------------------------------------- */

static bool counts_cells(const rc_groups *groups, const rc_slab *slab) {
    return groups->slab_bits <= MAX_COUNT_BITS && ((int64_t)1 << groups->slab_bits) <= CELLS_PER_POINT * slab->points;
}

static void group_slabs(int64_t begin, int64_t end, void *context) {
    work *job = context;
    rc_groups *groups = job->groups;
    bool by_count = false, by_digits = false;
    for (int64_t s = begin; s < end; ++s) {
        const bool counts = counts_cells(groups, &groups->slabs[s]);
        by_count = by_count || (counts && groups->slabs[s].points > 0);
        by_digits = by_digits || (!counts && groups->slabs[s].points > 0);
    }
    const size_t cells = by_count ? (size_t)1 << groups->slab_bits : 0;
    const size_t entries = by_digits ? (size_t)job->most : 0;
    uint32_t *counts = calloc(cells + 1, sizeof *counts);
    uint64_t *seen = malloc((cells / 64 + 1) * sizeof *seen);
    entry *sorted = malloc((2 * entries + 1) * sizeof *sorted);
    if (!counts || !seen || !sorted) {
        atomic_store_explicit(&job->no_memory, true, memory_order_relaxed);
        begin = end;
    }
    for (int64_t s = begin; s < end; ++s) {
        rc_slab *slab = &groups->slabs[s];
        const int64_t base = (s % groups->slabs_each) << groups->slab_bits;
        if (slab->points == 0) {
            continue;
        }
        if (counts_cells(groups, slab)) {
            (job->in->long_cells ? group_by_count_i64 : group_by_count_i32)(job, slab, base, counts, seen);
        } else {
            (job->in->long_cells ? group_by_digits_i64 : group_by_digits_i32)(job, slab, base, sorted,
                                                                              sorted + entries);
        }
    }
    free(counts);
    free(seen);
    free(sorted);
}

/* ---- All together ----------------------------------------------------------------------------------------------- */

/* Slabs small enough for a cache, but not many more than the fullest sample's points call for. */
static void choose_slabs(const rc_voxel_input *in, rc_groups *groups) {
    int64_t most = 0;
    for (int64_t b = 0; b < in->batch; ++b) {
        const rc_sample sample = rc_sample_of(in, b);
        most = sample.end - sample.begin > most ? sample.end - sample.begin : most;
    }
    int64_t wanted = most / POINTS_PER_SLAB;
    wanted = wanted < 1 ? 1 : wanted > MAX_SLABS ? MAX_SLABS : wanted;
    groups->slab_bits = MIN_SLAB_BITS;
    while (((in->cells - 1) >> groups->slab_bits) >= wanted) {
        ++groups->slab_bits;
    }
    groups->slabs_each = ((in->cells - 1) >> groups->slab_bits) + 1;
}

static rc_status no_memory(const rc_voxel_input *in) {
    return rc_fail(RC_OUT_OF_MEMORY, "scratch space to sort %lld points by cell could not be had",
                   (long long)in->total);
}

static bool allocate(work *job, int64_t chunks) {
    const rc_voxel_input *in = job->in;
    rc_groups *groups = job->groups;
    const size_t points = (size_t)in->total + 1, slabs = (size_t)(in->batch * groups->slabs_each) + 1;
    job->counts = malloc(((size_t)chunks * (size_t)(groups->slabs_each + 1) + 1) * sizeof *job->counts);
    job->first = malloc(((size_t)in->batch + 1) * sizeof *job->first);
    job->keys = malloc(points * (in->long_cells ? sizeof(uint64_t) : sizeof(uint32_t)));
    job->indices = malloc(points * sizeof *job->indices);
    groups->slabs = calloc(slabs, sizeof *groups->slabs);
    groups->order = malloc(points * sizeof *groups->order);
    groups->cell = malloc(points * sizeof *groups->cell);
    groups->begin = malloc(points * sizeof *groups->begin);
    return job->chunks && job->counts && job->first && job->keys && job->indices && groups->slabs && groups->order &&
           groups->cell && groups->begin;
}

rc_status rc_make_groups(const rc_voxel_input *in, const void *cells, rc_groups *groups) {
    *groups = (rc_groups){0};
    choose_slabs(in, groups);
    int64_t num_chunks = 0;
    for (int64_t b = 0; b < in->batch; ++b) {
        const rc_sample sample = rc_sample_of(in, b);
        if (sample.end - sample.begin > UINT32_MAX) {
            return rc_fail(RC_UNSUPPORTED, "points: at most 2^32 - 1 points a sample, got %lld",
                           (long long)(sample.end - sample.begin));
        }
    }
    const int64_t size = CHUNK_POINTS > 4 * groups->slabs_each ? CHUNK_POINTS : 4 * groups->slabs_each;
    rc_chunk *chunks = rc_make_chunks(in, size, &num_chunks);
    work job = {.in = in, .groups = groups, .cells = cells, .chunks = chunks};
    atomic_init(&job.no_memory, false);
    const bool got = allocate(&job, num_chunks);
    if (got) {
        int64_t k = 0;
        for (int64_t b = 0; b < in->batch; ++b) {
            job.first[b] = k;
            while (k < num_chunks && chunks[k].sample == b) {
                ++k;
            }
        }
        job.first[in->batch] = num_chunks;
        const int64_t slabs = in->batch * groups->slabs_each;
        rc_run(in->parallel_for, in->pool, num_chunks, 1, count_chunks, &job);
        rc_run(in->parallel_for, in->pool, in->batch, 16, place_samples, &job);
        rc_run(in->parallel_for, in->pool, num_chunks, 1, move_chunks, &job);
        for (int64_t s = 0; s < slabs; ++s) {
            job.most = groups->slabs[s].points > job.most ? groups->slabs[s].points : job.most;
        }
        const int64_t each = slabs > 0 ? in->total / slabs + 64 : 1;
        rc_run(in->parallel_for, in->pool, slabs, 1 + CHUNK_POINTS / each, group_slabs, &job);
    }
    free(chunks);
    free(job.counts);
    free(job.first);
    free(job.keys);
    free(job.indices);
    if (!got || atomic_load(&job.no_memory)) {
        rc_free_groups(groups);
        return no_memory(in);
    }
    return RC_OK;
}

void rc_free_groups(rc_groups *groups) {
    free(groups->slabs);
    free(groups->order);
    free(groups->cell);
    free(groups->begin);
    *groups = (rc_groups){0};
}

rc_group_cursor rc_seek_group(const rc_groups *groups, int64_t b, int64_t cell) {
    const rc_slab *slabs = groups->slabs + b * groups->slabs_each;
    rc_group_cursor cursor = {
        .groups = groups, .slab = slabs + (cell >> groups->slab_bits), .end = slabs + groups->slabs_each};
    int64_t low = 0, high = cursor.slab->groups; /* groups before low lie before the cell */
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (groups->cell[cursor.slab->place + middle] < cell) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    cursor.k = low;
    return cursor;
}
