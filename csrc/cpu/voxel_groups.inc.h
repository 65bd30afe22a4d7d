/* Included by voxel_groups.c once per cell type, with CELL (int32_t or int64_t), KEY (its unsigned kind, a cell counted
 * from its slab's first) and TYPED(name) defined. No include guard on purpose. */

/* How many of a chunk's points each slab gets; those without a cell count in the last entry. */
static void TYPED(count_chunk)(const work *job, const rc_chunk *chunk, uint32_t *counts) {
    const CELL *cells = job->cells;
    const int32_t bits = job->groups->slab_bits;
    const int64_t none = job->groups->slabs_each;
    memset(counts, 0, sizeof *counts * (size_t)(none + 1));
    for (int64_t i = chunk->begin; i < chunk->end; ++i) {
        const CELL cell = cells[i];
        ++counts[cell < 0 ? none : (int64_t)(cell >> bits)];
    }
}

/* Brings a chunk's points to their slabs. `next`: where each slab's next point goes, counted from the sample's first;
 * points without a cell go to the sample's end. */
static void TYPED(move_chunk)(const work *job, const rc_chunk *chunk, uint32_t *next) {
    const CELL *cells = job->cells;
    const rc_sample sample = rc_sample_of(job->in, chunk->sample);
    KEY *keys = (KEY *)job->keys + sample.begin;
    uint32_t *indices = job->indices + sample.begin;
    const int32_t bits = job->groups->slab_bits;
    const CELL low = (CELL)(((KEY)1 << bits) - 1u);
    const int64_t none = job->groups->slabs_each;
    for (int64_t i = chunk->begin; i < chunk->end; ++i) {
        const CELL cell = cells[i];
        const uint32_t to = next[cell < 0 ? none : (int64_t)(cell >> bits)]++;
        keys[to] = (KEY)(cell & low);
        indices[to] = (uint32_t)(i - sample.begin);
    }
}

/* Sorts a slab's points by counting those of each cell. `counts` is all zero before and after. */
static void TYPED(group_by_count)(const work *job, rc_slab *slab, int64_t base, uint32_t *counts, uint64_t *seen) {
    const rc_groups *groups = job->groups;
    const KEY *restrict keys = (const KEY *)job->keys + slab->place;
    const uint32_t *restrict indices = job->indices + slab->place;
    uint32_t *restrict order = groups->order + slab->place;
    const int64_t n = slab->points;
    const int64_t words = (((int64_t)1 << groups->slab_bits) + 63) / 64;
    memset(seen, 0, sizeof *seen * (size_t)words);
    for (int64_t j = 0; j < n; ++j) {
        ++counts[keys[j]];
        seen[keys[j] / 64] |= (uint64_t)1 << (keys[j] % 64);
    }
    int64_t found = 0;
    uint32_t place = 0;
    for (int64_t w = 0; w < words; ++w) {
        for (uint64_t word = seen[w]; word != 0; word &= word - 1) {
            const int64_t key = w * 64 + rc_lowest_bit(word);
            const uint32_t count = counts[key];
            groups->cell[slab->place + found] = base + key;
            groups->begin[slab->place + found++] = place;
            counts[key] = place;
            place += count;
        }
    }
    slab->groups = found;
    for (int64_t j = 0; j < n; ++j) {
        order[counts[keys[j]]++] = indices[j];
    }
    for (int64_t k = 0; k < found; ++k) {
        counts[groups->cell[slab->place + k] - base] = 0;
    }
}

/* Sorts a slab's points digit by digit, for cells far more than points. */
static void TYPED(group_by_digits)(const work *job, rc_slab *slab, int64_t base, entry *entries, entry *others) {
    const rc_groups *groups = job->groups;
    const KEY *keys = (const KEY *)job->keys + slab->place;
    const int64_t n = slab->points;
    for (int64_t j = 0; j < n; ++j) {
        entries[j] = (entry){keys[j], job->indices[slab->place + j]};
    }
    entries = sort_entries(entries, others, n, groups->slab_bits);
    slab->groups = 0;
    for (int64_t j = 0; j < n; ++j) {
        groups->order[slab->place + j] = entries[j].index;
        if (j == 0 || entries[j].key != entries[j - 1].key) {
            groups->cell[slab->place + slab->groups] = base + (int64_t)entries[j].key;
            groups->begin[slab->place + slab->groups++] = (uint32_t)j;
        }
    }
}

#undef CELL
#undef KEY
#undef TYPED
