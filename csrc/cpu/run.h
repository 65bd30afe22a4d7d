/* How every kernel gets its threads. */
#ifndef RC_CPU_RUN_H
#define RC_CPU_RUN_H

#include "robocache.h"

/* Runs body over [0, count) through a call's threads, or here if that is less than one piece of work or the call brings
 * none. */
static inline void rc_run(rc_parallel_for_fn parallel_for, void *pool, int64_t count, int64_t grain, rc_range_fn body,
                          void *context) {
    if (count <= 0) {
        return;
    }
    if (!parallel_for || count <= grain) {
        body(0, count, context);
    } else {
        parallel_for(pool, count, grain, body, context);
    }
}

#endif /* RC_CPU_RUN_H */
