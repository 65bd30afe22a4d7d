/* Included by bracket.h once per time type; see there for the macros it takes. No include guard on purpose. */

/* Last index i in [0, n) with times[i] <= t, given times[0] <= t. Gallops from `hint` (in [0, n)) and then halves, so a
 * good hint costs two reads and a bad one 2 log2(n). Ends within bounds on any data, sorted or not. */
RC_INLINE int32_t RC_SUFFIX(rc_last_at_or_before)(const RC_TIME *RC_RESTRICT times, int64_t stride, int32_t n,
                                                  RC_TIME t, int32_t hint) {
    int32_t lo, hi; /* times[lo] <= t, and hi == n or times[hi] > t */
    int32_t step = 1;
    if (times[hint * stride] <= t) {
        lo = hint;
        hi = n - lo > 1 ? lo + 1 : n;
        while (hi < n && times[hi * stride] <= t) {
            lo = hi;
            step = step < (1 << 29) ? step * 2 : step;
            hi = n - lo > step ? lo + step : n;
        }
    } else {
        hi = hint;
        lo = hi > 1 ? hi - 1 : 0;
        while (lo > 0 && times[lo * stride] > t) {
            hi = lo;
            step = step < (1 << 29) ? step * 2 : step;
            lo = hi > step ? hi - step : 0;
        }
    }
    while (hi - lo > 1) {
        int32_t mid = lo + (hi - lo) / 2;
        if (times[mid * stride] <= t) {
            lo = mid;
        } else {
            hi = mid;
        }
    }
    return lo;
}

/* First index with the time of sample `i`, among samples equal to it and before it. */
RC_INLINE int32_t RC_SUFFIX(rc_first_equal)(const RC_TIME *RC_RESTRICT times, int64_t stride, int32_t i) {
    RC_TIME t = times[i * stride];
    if (i == 0 || times[(i - 1) * stride] != t) {
        return i;
    }
    int32_t lo = -1, hi = i - 1; /* times[hi] == t, and lo == -1 or times[lo] < t */
    while (hi - lo > 1) {
        int32_t mid = lo + (hi - lo) / 2;
        if (times[mid * stride] < t) {
            lo = mid;
        } else {
            hi = mid;
        }
    }
    return hi;
}

/* Last index with the time of sample `i`, among samples equal to it and after it. */
RC_INLINE int32_t RC_SUFFIX(rc_last_equal)(const RC_TIME *RC_RESTRICT times, int64_t stride, int32_t n, int32_t i) {
    if (i + 1 >= n || times[(i + 1) * stride] != times[i * stride]) {
        return i;
    }
    RC_TIME t = times[i * stride];
    int32_t lo = i + 1, hi = n; /* times[lo] == t, and hi == n or times[hi] > t */
    while (hi - lo > 1) {
        int32_t mid = lo + (hi - lo) / 2;
        if (times[mid * stride] <= t) {
            lo = mid;
        } else {
            hi = mid;
        }
    }
    return lo;
}

/* Finds a target. `hint` is any index in [0, n): the last answer, or a guess. */
RC_INLINE rc_site RC_SUFFIX(rc_find)(const RC_TIME *RC_RESTRICT times, int64_t stride, int32_t n, RC_TIME t,
                                     int32_t hint) {
    rc_site site = {-1, RC_NOWHERE, false};
    if (n <= 0 || RC_IS_NAN(t)) {
        return site;
    }
    RC_TIME first = times[0];
    RC_TIME last = times[(n - 1) * stride];
    site.side = RC_INSIDE;
    if (t < first) {
        site.side = RC_BEFORE;
        t = first;
    } else if (t >= last) {
        site.side = t > last ? RC_AFTER : RC_INSIDE;
        site.index = n - 1;
        site.exact = true;
        return site;
    }
    if (!(first <= t)) { /* a NaN among the times: reported elsewhere, kept in bounds here */
        site.index = 0;
        return site;
    }
    site.index = RC_SUFFIX(rc_last_at_or_before)(times, stride, n, t, hint);
    site.exact = times[site.index * stride] == t;
    return site;
}

/* A hint that costs two reads where the stream keeps its rate: the straight line between the ends. */
RC_INLINE int32_t RC_SUFFIX(rc_guess)(RC_TIME first, RC_TIME last, int32_t n, RC_TIME t) {
    if (!(t > first) || !(t < last)) {
        return 0;
    }
    float at = (float)RC_ELAPSED(t, first) / (float)RC_ELAPSED(last, first) * (float)(n - 1);
    int32_t limit = n - 1;
    return at >= 0.0f && at < (float)limit ? (int32_t)at : 0;
}

/* What `kind` reads at a found target `t`. */
RC_INLINE rc_bracket RC_SUFFIX(rc_resolve)(const RC_TIME *RC_RESTRICT times, int64_t stride, int32_t n, RC_TIME t,
                                           rc_site site, int32_t kind, const rc_policy *policy) {
    rc_bracket b = {-1, -1, 0.0, false, true};
    if (site.side == RC_NOWHERE) {
        return b;
    }
    const int32_t i = site.index;
    if (site.side == RC_INSIDE) {
        b.outside = false;
        if (site.exact || i + 1 >= n) {
            b.i0 = kind == RC_NEXT ? RC_SUFFIX(rc_first_equal)(times, stride, i) : i;
            b.i1 = b.i0;
            b.valid = true;
            return b;
        }
        const RC_TIME t0 = times[i * stride];
        const RC_TIME t1 = times[(i + 1) * stride];
        const RC_SPAN since = RC_ELAPSED(t, t0);
        const RC_SPAN until = RC_ELAPSED(t1, t);
        const RC_SPAN gap = RC_ELAPSED(t1, t0);
        RC_SPAN distance;
        if (kind == RC_PREVIOUS) {
            b.i0 = b.i1 = i;
            distance = since;
        } else if (kind == RC_NEXT) {
            b.i0 = b.i1 = i + 1;
            distance = until;
        } else if (kind == RC_NEAREST) {
            const bool later = until < since;
            b.i0 = b.i1 = later ? RC_SUFFIX(rc_last_equal)(times, stride, n, i + 1) : i;
            distance = later ? until : since;
        } else {
            b.i0 = i;
            b.i1 = i + 1;
            b.w = RC_RATIO(since, gap);
            distance = until < since ? until : since;
        }
        b.valid = gap <= RC_SPAN_OF(policy->max_gap) &&
                  (!policy->has_tolerance || distance <= RC_SPAN_OF(policy->tolerance));
        return b;
    }
    const bool before = site.side == RC_BEFORE;
    if (rc_is_step_kind(kind)) {
        const RC_SPAN distance = before ? RC_ELAPSED(times[0], t) : RC_ELAPSED(t, times[(n - 1) * stride]);
        b.valid = policy->has_tolerance && distance <= RC_SPAN_OF(policy->tolerance);
        b.outside = !b.valid;
        b.i0 = b.i1 = kind == RC_NEXT ? RC_SUFFIX(rc_first_equal)(times, stride, i) : i;
        return b;
    }
    b.i0 = b.i1 = i;
    if (policy->extrapolate == RC_EXTRAPOLATE_LINEAR) {
        const int32_t j = before ? i : RC_SUFFIX(rc_first_equal)(times, stride, i) - 1;
        if (j >= 0 && j + 1 < n) { /* else all stamps are equal: hold */
            const RC_TIME t0 = times[j * stride];
            const RC_SPAN gap = RC_ELAPSED(times[(j + 1) * stride], t0);
            b.i0 = j;
            b.i1 = j + 1;
            b.w = before ? -RC_RATIO(RC_ELAPSED(t0, t), gap) : RC_RATIO(RC_ELAPSED(t, t0), gap);
        }
    }
    return b;
}

/* The three interval lengths a cubic over [i0, i0 + 1] needs; 0 where there is no neighbour or no time between. */
RC_INLINE void RC_SUFFIX(rc_spacing)(const RC_TIME *RC_RESTRICT times, int64_t stride, int32_t n, int32_t i0,
                                     double spacing[3]) {
    const RC_TIME t0 = times[i0 * stride];
    const RC_TIME t1 = times[(i0 + 1) * stride];
    spacing[0] = i0 > 0 ? (double)RC_ELAPSED(t0, times[(i0 - 1) * stride]) : 0.0;
    spacing[1] = (double)RC_ELAPSED(t1, t0);
    spacing[2] = i0 + 2 < n ? (double)RC_ELAPSED(times[(i0 + 2) * stride], t1) : 0.0;
}

/* What is wrong with a sample's time, seen beside its predecessor's (its own for the first): rc_data_fault. */
RC_INLINE int32_t RC_SUFFIX(rc_time_fault)(RC_TIME earlier, RC_TIME later) {
    if (!RC_IS_FINITE(later)) {
        return RC_FAULT_TIME_NOT_FINITE;
    }
    return later < earlier ? RC_FAULT_TIME_BACKWARDS : RC_FAULT_NONE;
}

/* A target as the stream's clock shows it. */
RC_INLINE RC_TIME RC_SUFFIX(rc_shift)(RC_TIME t, RC_TIME offset) {
    return RC_SHIFT(t, offset);
}

#undef RC_TIME
#undef RC_SPAN
#undef RC_SUFFIX
#undef RC_SPAN_OF
#undef RC_ELAPSED
#undef RC_IS_NAN
#undef RC_IS_FINITE
#undef RC_SHIFT
#undef RC_RATIO
