/* Where a target falls among the samples of a sequence, and what each kind reads there.
 *
 * The rules live in bracket.inc.h, written once for a time type and included here for float32 (`_f32`), float64
 * (`_f64`) and int64 (`_i64`).
 */
#ifndef RC_CORE_BRACKET_H
#define RC_CORE_BRACKET_H

#include "portable.h"
#include "robocache.h"

/* A length of time as the caller gave it, rounded to the time dtype: `f` for floating times (and `f32`, the same as a
 * float, for float32 ones), `u` for int64 ones. */
typedef struct rc_span {
    double f;
    uint64_t u;
    float f32;
} rc_span;

/* What a stream asks of its targets. */
typedef struct rc_policy {
    rc_span max_gap;
    rc_span tolerance;
    int32_t has_tolerance;
    int32_t extrapolate; /* rc_extrapolate */
} rc_policy;

/* A target's place in a sequence. */
typedef struct rc_site {
    int32_t index; /* last sample at or before the target, after moving it into [first, last]; -1: no samples */
    int32_t side;  /* RC_INSIDE, ... */
    bool exact;    /* the target moved into range is a sample's time */
} rc_site;

#define RC_BEFORE (-1)
#define RC_INSIDE 0
#define RC_AFTER 1
#define RC_NOWHERE 2 /* the sequence is empty, or the target is NaN */

/* What one kind reads at a target: v0 + w * (v1 - v0) of samples i0 and i1. i0 == i1: a copy, no arithmetic.
 * i0 == -1: nothing can be read. */
typedef struct rc_bracket {
    int32_t i0;
    int32_t i1;
    double w;
    bool valid;
    bool outside; /* out of range and not admitted by the tolerance: `extrapolate` speaks */
} rc_bracket;

RC_INLINE bool rc_is_step_kind(int32_t kind) {
    return kind == RC_NEAREST || kind == RC_PREVIOUS || kind == RC_NEXT;
}

#define RC_TIME float
#define RC_SPAN float
#define RC_SUFFIX(name) name##_f32
#define RC_SPAN_OF(policy_span) ((policy_span).f32)
#define RC_ELAPSED(later, earlier) ((later) - (earlier))
#define RC_IS_NAN(t) ((t) != (t))
#define RC_IS_FINITE(t) ((t) - (t) == 0.0f)
#define RC_SHIFT(t, offset) ((t) + (offset))
#define RC_RATIO(elapsed, gap) ((double)((elapsed) / (gap)))
#include "bracket.inc.h"

#define RC_TIME double
#define RC_SPAN double
#define RC_SUFFIX(name) name##_f64
#define RC_SPAN_OF(policy_span) ((policy_span).f)
#define RC_ELAPSED(later, earlier) ((later) - (earlier))
#define RC_IS_NAN(t) ((t) != (t))
#define RC_IS_FINITE(t) ((t) - (t) == 0.0)
#define RC_SHIFT(t, offset) ((t) + (offset))
#define RC_RATIO(elapsed, gap) ((elapsed) / (gap))
#include "bracket.inc.h"

/* Adds and stays at the end of the range instead of wrapping. */
RC_INLINE int64_t rc_saturating_add(int64_t a, int64_t b) {
    int64_t sum = (int64_t)((uint64_t)a + (uint64_t)b);
    bool overflow = ((a ^ sum) & (b ^ sum)) < 0;
    return overflow ? (a < 0 ? INT64_MIN : INT64_MAX) : sum;
}

/* Unsigned differences are exact over the whole range of int64. */
#define RC_TIME int64_t
#define RC_SPAN uint64_t
#define RC_SUFFIX(name) name##_i64
#define RC_SPAN_OF(policy_span) ((policy_span).u)
#define RC_ELAPSED(later, earlier) ((uint64_t)(later) - (uint64_t)(earlier))
#define RC_IS_NAN(t) false
#define RC_IS_FINITE(t) true
#define RC_SHIFT(t, offset) rc_saturating_add((t), (offset))
#define RC_RATIO(elapsed, gap) ((double)(elapsed) / (double)(gap))
#include "bracket.inc.h"

/* float32 cannot resolve a stream whose neighbouring stamps are equal although its time advances by single units in
 * the last place, or whose equal stamps lie where float32 no longer holds every integer (2^24). These two tests on
 * neighbours find that: `tied` and `minimal` both seen in one sequence, or `tied` alone past 2^24. */
#define RC_F32_INTEGER_LIMIT 16777216.0f

RC_INLINE bool rc_times_tied_f32(float earlier, float later) {
    return earlier == later;
}

/* True when `later` is the next float32 after `earlier`. */
RC_INLINE bool rc_times_minimal_f32(float earlier, float later) {
    return earlier < later && nextafterf(earlier, later) == later;
}

#endif /* RC_CORE_BRACKET_H */
