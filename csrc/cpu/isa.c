/* Which row kernels this CPU gets. */
#include "rows.h"

#include "common/common.h"

#include <stdatomic.h>
#include <string.h>

typedef struct isa {
    const rc_row_table *table;
    bool (*present)(void);
} isa;

static bool always(void) {
    return true;
}

#ifdef RC_ON_X86
/* The compiler's own CPU test includes that the operating system saves the wide registers. */
static bool has_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
#endif

/* Best first. */
static const isa isas[] = {
#ifdef RC_ON_X86
    {&rc_rows_avx512, has_avx512},
    {&rc_rows_avx2, has_avx2},
#endif
    {&rc_rows_portable, always},
};
#define NUM_ISAS (sizeof isas / sizeof isas[0])

static _Atomic(const rc_row_table *) chosen;

const rc_row_table *rc_row_kernels(void) {
    const rc_row_table *table = atomic_load_explicit(&chosen, memory_order_acquire);
    for (size_t k = 0; !table && k < NUM_ISAS; ++k) {
        if (isas[k].present()) {
            table = isas[k].table;
            atomic_store_explicit(&chosen, table, memory_order_release);
        }
    }
    return table;
}

const char *rc_cpu_isa(void) {
    return rc_row_kernels()->name;
}

rc_status rc_set_cpu_isa(const char *name) {
    if (!name) {
        atomic_store_explicit(&chosen, NULL, memory_order_release);
        return RC_OK;
    }
    for (size_t k = 0; k < NUM_ISAS; ++k) {
        if (strcmp(name, isas[k].table->name) == 0) {
            if (!isas[k].present()) {
                return rc_fail(RC_UNSUPPORTED, "isa: this CPU lacks \"%s\"", name);
            }
            atomic_store_explicit(&chosen, isas[k].table, memory_order_release);
            return RC_OK;
        }
    }
    return rc_fail(RC_UNSUPPORTED, "isa: this build has no \"%s\"", name);
}
