/* Included by find.c once per time type; see there for the macros it takes. No include guard on purpose. */

/* From guesses to the samples around, if those are next to the guess. */
SCALAR_LOOP static void TYPED(settle)(const T *restrict times, const T *restrict targets, const int32_t *restrict guess,
                                      int32_t count, int32_t *restrict index, T *restrict t0, T *restrict t1) {
    for (int32_t j = 0; j < count; ++j) {
        const T t = targets[j];
        const T *near = times + guess[j];
        const int32_t later = (near[0] <= t) + (near[1] <= t);
        index[j] = guess[j] - 1 + later;
        t0[j] = near[later - 1];
        t1[j] = near[later];
    }
}

/* The samples around each target by a guess; sure[j] tells whether they are, the result whether all are. n >= 4,
 * contiguous times. */
static bool TYPED(guess_tile)(const T *restrict times, int32_t n, const T *restrict targets, int32_t count,
                              int32_t *restrict index, T *restrict t0, T *restrict t1, int32_t *restrict sure) {
    const T first = times[0];
    const T last = times[n - 1];
    const T end = targets[count - 1];
    const int32_t a = TYPED(rc_find)(times, 1, n, targets[0], TYPED(rc_guess)(first, last, n, targets[0])).index;
    const int32_t b = TYPED(rc_find)(times, 1, n, end, TYPED(rc_guess)(first, last, n, end)).index;
    /* The line through both ends' samples; flat if the targets do not advance. */
    const int32_t from = a < b ? a : b;
    const T origin = times[from < 0 ? 0 : from];
    const double rise = a < b ? (double)BETWEEN(times[b], times[a]) : 0.0;
    const float slope = rise > 0.0 ? (float)((double)(b - a) / rise) : 0.0f;
    const float limit = (float)(n - 3 < (1 << 24) ? n - 3 : (1 << 24));
    const float at_origin = (float)from;
    int32_t guess[RC_TILE];
    for (int32_t j = 0; j < count; ++j) {
        float at = at_origin + (float)SIGNED(targets[j], origin) * slope;
        at = at > 1.0f ? at : 1.0f; /* NaN too */
        at = at < limit ? at : limit;
        guess[j] = (int32_t)at;
    }
    TYPED(settle)(times, targets, guess, count, index, t0, t1);
    int32_t all = 1;
    for (int32_t j = 0; j < count; ++j) {
        sure[j] = (t0[j] <= targets[j]) & (targets[j] < t1[j]);
        all &= sure[j];
    }
    return all != 0;
}

/* Brackets of RC_READ_BETWEEN where the samples are sure. */
static void TYPED(weigh_tile)(const T *restrict targets, int32_t count, const int32_t *restrict index,
                              const T *restrict t0, const T *restrict t1, const rc_policy *policy,
                              rc_brackets *restrict b, bool *restrict valid) {
    const SPAN max_gap = POLICY_SPAN(policy->max_gap);
    const SPAN tolerance = POLICY_SPAN(policy->tolerance);
    for (int32_t j = 0; j < count; ++j) {
        const SPAN since = BETWEEN(targets[j], t0[j]);
        const SPAN gap = BETWEEN(t1[j], t0[j]);
        b->w64[j] = RATIO(since, gap);
        b->w32[j] = (float)b->w64[j];
    }
    for (int32_t j = 0; j < count; ++j) {
        b->i0[j] = index[j];
        b->i1[j] = index[j] + (targets[j] != t0[j]);
        b->outside[j] = false;
    }
    if (!policy->has_tolerance && IS_UNLIMITED(policy->max_gap)) {
        memset(valid, true, (size_t)count * sizeof *valid);
        return;
    }
    for (int32_t j = 0; j < count; ++j) {
        const SPAN since = BETWEEN(targets[j], t0[j]);
        const SPAN until = BETWEEN(t1[j], targets[j]);
        const SPAN distance = until < since ? until : since;
        const bool near = !policy->has_tolerance || distance <= tolerance;
        valid[j] = (targets[j] == t0[j]) | ((BETWEEN(t1[j], t0[j]) <= max_gap) & near);
    }
}

static void TYPED(find_tile)(const rc_query *query, rc_tile *tile) {
    const rc_sequence *sequence = query->sequence;
    const T *times = (const T *)(const void *)sequence->times;
    const T *targets = (const T *)(const void *)query->targets;
    const int64_t stride = sequence->time_stride;
    const int32_t n = sequence->n;
    const int32_t count = query->count;
    static const int32_t kinds[RC_NUM_READS] = {RC_LINEAR, RC_NEAREST, RC_PREVIOUS, RC_NEXT};
    T shifted[RC_TILE], t0[RC_TILE], t1[RC_TILE];
    int32_t index[RC_TILE], sure[RC_TILE];
    for (int32_t j = 0; j < count; ++j) {
        shifted[j] = TYPED(rc_shift)(targets[j * query->target_stride], query->offset.MEMBER);
    }
    const bool guessed = stride == 1 && n >= 4 && count >= 4;
    const bool all_sure = guessed && TYPED(guess_tile)(times, n, shifted, count, index, t0, t1, sure);
    const bool weighed = guessed && (query->reads >> RC_READ_BETWEEN & 1u);
    if (weighed) {
        rc_brackets *b = &tile->brackets[RC_READ_BETWEEN];
        TYPED(weigh_tile)(shifted, count, index, t0, t1, query->policy, b, tile->valid);
    }
    const bool only_between = query->reads == 1u << RC_READ_BETWEEN;
    if (all_sure && only_between && !query->sites && !query->spacing) {
        return;
    }
    const bool guess_first = count > 0 && n > 0 && !guessed;
    int32_t hint = guess_first ? TYPED(rc_guess)(times[0], times[(n - 1) * stride], n, shifted[0]) : 0;
    for (int32_t j = 0; j < count; ++j) {
        if (guessed && sure[j]) {
            tile->sites[j] = (rc_site){index[j], RC_INSIDE, t0[j] == shifted[j]};
            hint = index[j];
        } else {
            tile->sites[j] = TYPED(rc_find)(times, stride, n, shifted[j], hint);
            hint = tile->sites[j].index >= 0 ? tile->sites[j].index : hint;
        }
        const bool done = weighed && sure[j]; /* between, that is */
        bool valid = done ? tile->valid[j] : true;
        for (int read = done ? 1 : 0; read < RC_NUM_READS; ++read) {
            if (!(query->reads >> read & 1u)) {
                continue;
            }
            rc_brackets *b = &tile->brackets[read];
            const rc_bracket found = TYPED(rc_resolve)(times, stride, n, shifted[j], tile->sites[j], kinds[read],
                                                       query->policy);
            b->i0[j] = found.i0;
            b->i1[j] = found.i1;
            b->w64[j] = found.w;
            b->w32[j] = (float)found.w;
            b->outside[j] = found.outside;
            valid = valid && found.valid;
        }
        tile->valid[j] = valid;
    }
    if (query->spacing) {
        const rc_brackets *b = &tile->brackets[RC_READ_BETWEEN];
        for (int32_t j = 0; j < count; ++j) {
            if (b->i0[j] != b->i1[j]) {
                TYPED(rc_spacing)(times, stride, n, b->i0[j], tile->spacing[j]);
            }
        }
    }
}

#undef T
#undef SPAN
#undef TYPED
#undef MEMBER
#undef BETWEEN
#undef SIGNED
#undef RATIO
#undef POLICY_SPAN
#undef IS_UNLIMITED
