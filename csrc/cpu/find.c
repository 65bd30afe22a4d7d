/* Brackets of a tile of targets, and scans of times, compiled once for each instruction set as rows.c is (flags there).
 *
 * Search and arithmetic are those of core/bracket.h. In front of them stands a guess: streams that keep their rate, and
 * targets too, put each target close to a straight line through the tile's ends, so most targets are found by looking
 * at three neighbouring samples, without a branch and without waiting for the target before. What the guess misses is
 * searched for.
 */
#include "locate.h"

#include <string.h>

/* Compilers would gather into vectors here, which costs more than the loads it is made of. */
#if defined(__GNUC__) && !defined(__clang__)
#define SCALAR_LOOP __attribute__((noinline, optimize("no-tree-vectorize")))
#else
#define SCALAR_LOOP
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

#define T float
#define SPAN float
#define TYPED(name) name##_f32
#define MEMBER f32
#define BETWEEN(later, earlier) ((later) - (earlier))
#define SIGNED(later, earlier) ((later) - (earlier))
#define RATIO(elapsed, gap) ((double)((elapsed) / (gap)))
#define POLICY_SPAN(span) ((float)(span).f)
#define IS_UNLIMITED(span) ((span).f == (double)INFINITY)
#include "find.inc.h"

#define T double
#define SPAN double
#define TYPED(name) name##_f64
#define MEMBER f64
#define BETWEEN(later, earlier) ((later) - (earlier))
#define SIGNED(later, earlier) ((later) - (earlier))
#define RATIO(elapsed, gap) ((elapsed) / (gap))
#define POLICY_SPAN(span) ((span).f)
#define IS_UNLIMITED(span) ((span).f == (double)INFINITY)
#include "find.inc.h"

#define T int64_t
#define SPAN uint64_t
#define TYPED(name) name##_i64
#define MEMBER i64
#define BETWEEN(later, earlier) ((uint64_t)(later) - (uint64_t)(earlier))
#define SIGNED(later, earlier) ((int64_t)BETWEEN(later, earlier)) /* wraps; good for a guess */
#define RATIO(elapsed, gap) ((double)(elapsed) / (double)(gap))
#define POLICY_SPAN(span) ((span).u)
#define IS_UNLIMITED(span) ((span).u == UINT64_MAX)
#include "find.inc.h"

/* ---- Scans of times --------------------------------------------------------------------------------------------- */

/* Times between finite ends that never decrease are all finite, and every comparison with a NaN is false. */
static bool suspect_f64(const double *times, int64_t count) {
    if (count == 0) {
        return false;
    }
    const double first = times[0], last = times[count - 1];
    int64_t bad = !(first - first == 0.0) || !(last - last == 0.0);
    for (int64_t i = 0; i + 1 < count; ++i) {
        bad |= times[i] <= times[i + 1] ? 0 : 1;
    }
    return bad != 0;
}

static bool suspect_i64(const int64_t *times, int64_t count) {
    int64_t bad = 0;
    for (int64_t i = 0; i + 1 < count; ++i) {
        bad |= times[i] <= times[i + 1] ? 0 : 1;
    }
    return bad != 0;
}

/* Ties are suspect as well: only the slow check tells collapsed stamps from repeated ones. */
static bool suspect_f32(const float *times, int64_t count) {
    if (count == 0) {
        return false;
    }
    const float first = times[0], last = times[count - 1];
    int32_t bad = !(first - first == 0.0f) || !(last - last == 0.0f);
    for (int64_t i = 0; i + 1 < count; ++i) {
        bad |= times[i] < times[i + 1] ? 0 : 1;
    }
    return bad != 0;
}

static bool has_nan_f32(const float *times, int64_t count) {
    int32_t found = 0;
    for (int64_t i = 0; i < count; ++i) {
        found |= times[i] != times[i] ? 1 : 0;
    }
    return found != 0;
}

static bool has_nan_f64(const double *times, int64_t count) {
    int64_t found = 0;
    for (int64_t i = 0; i < count; ++i) {
        found |= times[i] != times[i] ? 1 : 0;
    }
    return found != 0;
}

const rc_find_table JOIN(rc_find_, RC_ISA) = {
    .f32 = find_tile_f32,
    .f64 = find_tile_f64,
    .i64 = find_tile_i64,
    .suspect_f32 = suspect_f32,
    .suspect_f64 = suspect_f64,
    .suspect_i64 = suspect_i64,
    .has_nan_f32 = has_nan_f32,
    .has_nan_f64 = has_nan_f64,
};
