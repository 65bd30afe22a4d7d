/* The tunables, their defaults, and the table of measured values. */
#include "launch_table.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "common.h"

/* A class ends where the next begins. 2^18 threads are about what a large GPU holds at once (132 multiprocessors of
 * 2048), and 2^22 are sixteen times that, where the ends of a launch no longer count. */
static const int64_t class_ends[RC_NUM_SHAPE_CLASSES - 1] = {INT64_C(1) << 18, INT64_C(1) << 22};

#define TUNABLE(id, name_, work_, default_, ...)                                                                       \
    [id] = {.name = name_,                                                                                             \
            .work = work_,                                                                                             \
            .values = {__VA_ARGS__},                                                                                   \
            .num_values = (int32_t)(sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)),                         \
            .default_value = default_}

static const rc_launch_parameter tunables[RC_NUM_TUNABLES] = {
    TUNABLE(RC_TUNE_ALIGN_THREADS, "align.threads", "output vectors", 128, 32, 64, 128),
    TUNABLE(RC_TUNE_ALIGN_MIN_ITEMS, "align.min_items", "output vectors", 4, 1, 2, 4, 8),
    TUNABLE(RC_TUNE_ALIGN_MAX_ITEMS, "align.max_items", "output vectors", 16, 8, 12, 16, 24, 32),
    TUNABLE(RC_TUNE_ALIGN_MAX_ITEMS_BROAD, "align.max_items_broad", "output vectors", 12, 4, 8, 12, 16, 24),
    TUNABLE(RC_TUNE_ALIGN_BROAD_CHUNKS, "align.broad_chunks", "output vectors", 16, 8, 16, 32),
    TUNABLE(RC_TUNE_ALIGN_WARPS, "align.warps", "output vectors", 16, 8, 16, 32, 64),
    TUNABLE(RC_TUNE_ALIGN_FEW_WARPS, "align.few_warps", "output vectors", 4, 2, 4, 8),
    TUNABLE(RC_TUNE_ALIGN_VECTOR_BYTES, "align.vector_bytes", "output vectors", 16, 8, 16),
    TUNABLE(RC_TUNE_ALIGN_WIDE_CHUNKS, "align.wide_chunks", "output vectors", 4, 1, 4, 16, 64),
    TUNABLE(RC_TUNE_VOXEL_EACH_THREADS, "voxel_each.threads", "points", 256, 64, 128, 256),
    TUNABLE(RC_TUNE_VOXEL_EACH_WAVES, "voxel_each.waves", "points", 1, 1, 2, 4, 8),
    TUNABLE(RC_TUNE_VOXEL_GLOBAL_CLEAR_FILL, "voxel_global.clear_fill", "points", 1024, 512, 1024, 2048),
    TUNABLE(RC_TUNE_VOXEL_GLOBAL_WRITE_THREADS, "voxel_global.write_threads", "points", 256, 64, 128, 256),
    TUNABLE(RC_TUNE_VOXEL_BITS_KIB, "voxel_bits.kib", "points", 160, 64, 96, 160, 208),
    TUNABLE(RC_TUNE_VOXEL_BITS_CLUSTER, "voxel_bits.cluster", "points", 4, 1, 2, 4, 8),
    TUNABLE(RC_TUNE_VOXEL_BITS_AHEAD_PERCENT, "voxel_bits.ahead_percent", "points", 100, 1, 100, 10000),
    TUNABLE(RC_TUNE_VOXEL_PARTITION_LONG_FROM, "voxel_partition.long_from", "points", 32, 1, 8, 32, 128, 1024),
    TUNABLE(RC_TUNE_VOXEL_PARTITION_SHORT_POINTS, "voxel_partition.short_points", "points", 4, 4, 8),
    TUNABLE(RC_TUNE_VOXEL_PARTITION_LONG_THREADS, "voxel_partition.long_threads", "points", 512, 256, 512),
    TUNABLE(RC_TUNE_VOXEL_SLAB_THREADS, "voxel_slab.threads", "points", 1024, 512, 1024),
    TUNABLE(RC_TUNE_VOXEL_SLAB_KIB, "voxel_slab.kib", "points", 128, 32, 64, 96, 128, 192),
    TUNABLE(RC_TUNE_VOXEL_SLAB_AHEAD, "voxel_slab.ahead", "points", 4, 1, 2, 4),
    TUNABLE(RC_TUNE_VOXEL_KEYS_THREADS, "voxel_keys.threads", "points", 256, 64, 128, 256),
    TUNABLE(RC_TUNE_VOXEL_KEYS_FILL, "voxel_keys.fill", "points", 2048, 1024, 2048, 4096, 8192),
    TUNABLE(RC_TUNE_VOXEL_LEVELS_THREADS, "voxel_levels.threads", "points", 256, 64, 128, 256),
    TUNABLE(RC_TUNE_VOXEL_TILE_CELLS_BROAD, "voxel_tile.cells_broad", "points", 1024, 256, 512, 1024, 2048),
    TUNABLE(RC_TUNE_VOXEL_TILE_CELLS_NARROW, "voxel_tile.cells_narrow", "points", 2048, 512, 1024, 2048),
    TUNABLE(RC_TUNE_VOXEL_TILE_AHEAD, "voxel_tile.ahead", "points", 2, 1, 2, 4),
    TUNABLE(RC_TUNE_VOXEL_TILE_VECTOR, "voxel_tile.vector", "points", 4, 1, 4),
    TUNABLE(RC_TUNE_VOXEL_PLANES_ROW_KIB, "voxel_planes.row_kib", "points", 24, 12, 16, 24, 32, 48),
    TUNABLE(RC_TUNE_VOXEL_SPARSE_POINTS_THREADS, "voxel_sparse_points.threads", "points", 256, 64, 128, 256),
    TUNABLE(RC_TUNE_VOXEL_SPARSE_ROWS_THREADS, "voxel_sparse_rows.threads", "points", 256, 64, 128, 256),
    TUNABLE(RC_TUNE_VOXEL_SPARSE_ROWS_AHEAD, "voxel_sparse_rows.ahead", "points", 2, 1, 2, 4),
    TUNABLE(RC_TUNE_VOXEL_SPARSE_ROWS_VECTOR, "voxel_sparse_rows.vector", "points", 4, 1, 4),
    TUNABLE(RC_TUNE_VOXEL_BACKWARD_THREADS, "voxel_backward.threads", "gradient elements", 256, 64, 128, 256),
    TUNABLE(RC_TUNE_VOXEL_BACKWARD_FILL, "voxel_backward.fill", "gradient elements", 16384, 2048, 4096, 16384, 65536),
    TUNABLE(RC_TUNE_DEVOXELIZE_THREADS, "devoxelize.threads", "output vectors", 256, 64, 128, 256),
    TUNABLE(RC_TUNE_DEVOXELIZE_FILL, "devoxelize.fill", "output vectors", 32768, 2048, 8192, 32768, 131072),
    TUNABLE(RC_TUNE_DEVOXELIZE_VECTOR, "devoxelize.vector", "output vectors", 4, 1, 4),
    TUNABLE(RC_TUNE_DEVOXELIZE_BACKWARD_THREADS, "devoxelize_backward.threads", "points", 256, 64, 128, 256),
    TUNABLE(RC_TUNE_DEVOXELIZE_BACKWARD_FILL, "devoxelize_backward.fill", "points", 32768, 2048, 8192, 32768, 131072),
    TUNABLE(RC_TUNE_DEVOXELIZE_BACKWARD_VECTOR, "devoxelize_backward.vector", "points", 4, 1, 4),
    TUNABLE(RC_TUNE_COPY_MANY_THREADS, "copy_many.threads", "16-byte words", 256, 64, 128, 256),
    TUNABLE(RC_TUNE_COPY_MANY_AHEAD, "copy_many.ahead", "16-byte words", 4, 2, 4, 8),
};

/* What one architecture was measured to want; 0 where it was not. */
typedef struct launch_row {
    int32_t arch;
    int32_t values[RC_NUM_TUNABLES][RC_NUM_SHAPE_CLASSES];
} launch_row;

static const launch_row measured[] = {
#include "launch_table.inc"
    {.arch = 0} /* ends the table */
};

static _Atomic int32_t forced[RC_NUM_TUNABLES][RC_NUM_SHAPE_CLASSES]; /* 0: none */

static int32_t chosen(int32_t tunable, int32_t arch, int32_t shape_class) {
    for (const launch_row *row = measured; row->arch != 0; ++row) {
        if (row->arch == arch && row->values[tunable][shape_class] != 0) {
            return row->values[tunable][shape_class];
        }
    }
    return tunables[tunable].default_value;
}

int32_t rc_shape_class(int64_t work) {
    return (work >= class_ends[0]) + (work >= class_ends[1]);
}

int32_t rc_launch_value(rc_tunable tunable, int32_t arch, int64_t work) {
    const int32_t shape_class = rc_shape_class(work);
    const int32_t value = atomic_load_explicit(&forced[tunable][shape_class], memory_order_relaxed);
    return value != 0 ? value : chosen((int32_t)tunable, arch, shape_class);
}

/* ---- For measurement -------------------------------------------------------------------------------------------- */

static rc_status check_place(int32_t parameter, int32_t shape_class) {
    if (parameter < 0 || parameter >= RC_NUM_TUNABLES) {
        return rc_fail(RC_INVALID_ARGUMENT, "parameter: expected 0 .. %d, got %d", RC_NUM_TUNABLES - 1, parameter);
    }
    if (shape_class < 0 || shape_class >= RC_NUM_SHAPE_CLASSES) {
        return rc_fail(RC_INVALID_ARGUMENT, "shape_class: expected 0 .. %d, got %d", RC_NUM_SHAPE_CLASSES - 1,
                       shape_class);
    }
    return RC_OK;
}

int32_t rc_launch_parameter_count(void) {
    return RC_NUM_TUNABLES;
}

rc_status rc_describe_launch_parameter(int32_t parameter, rc_launch_parameter *description) {
    const rc_status status = check_place(parameter, 0);
    if (status != RC_OK) {
        return status;
    }
    if (description == NULL) {
        return rc_fail(RC_INVALID_ARGUMENT, "description: expected a pointer, got NULL");
    }
    *description = tunables[parameter];
    return RC_OK;
}

int32_t rc_find_launch_parameter(const char *name) {
    for (int32_t p = 0; name != NULL && p < RC_NUM_TUNABLES; ++p) {
        if (strcmp(tunables[p].name, name) == 0) {
            return p;
        }
    }
    return -1;
}

int64_t rc_shape_class_end(int32_t shape_class) {
    return shape_class >= 0 && shape_class < RC_NUM_SHAPE_CLASSES - 1 ? class_ends[shape_class] : INT64_MAX;
}

rc_status rc_get_launch_parameter(int32_t parameter, int32_t arch, int32_t shape_class, int32_t *value) {
    const rc_status status = check_place(parameter, shape_class);
    if (status != RC_OK) {
        return status;
    }
    if (value == NULL) {
        return rc_fail(RC_INVALID_ARGUMENT, "value: expected a pointer, got NULL");
    }
    const int32_t found = atomic_load_explicit(&forced[parameter][shape_class], memory_order_relaxed);
    *value = found != 0 ? found : chosen(parameter, arch, shape_class);
    return RC_OK;
}

rc_status rc_set_launch_parameter(int32_t parameter, int32_t shape_class, int32_t value) {
    const rc_status status = check_place(parameter, shape_class);
    if (status != RC_OK) {
        return status;
    }
    const rc_launch_parameter *tunable = &tunables[parameter];
    bool known = value == 0;
    for (int32_t v = 0; v < tunable->num_values; ++v) {
        known = known || tunable->values[v] == value;
    }
    if (!known) {
        char allowed[128] = "";
        size_t length = 0;
        for (int32_t v = 0; v < tunable->num_values && length < sizeof allowed; ++v) {
            length += (size_t)snprintf(allowed + length, sizeof allowed - length, "%s%d", v > 0 ? ", " : "",
                                       tunable->values[v]);
        }
        return rc_fail(RC_INVALID_ARGUMENT, "%s: expected one of %s, or 0 for the table's, got %d", tunable->name,
                       allowed, value);
    }
    atomic_store_explicit(&forced[parameter][shape_class], value, memory_order_relaxed);
    return RC_OK;
}

void rc_reset_launch_parameters(void) {
    for (int32_t p = 0; p < RC_NUM_TUNABLES; ++p) {
        for (int32_t c = 0; c < RC_NUM_SHAPE_CLASSES; ++c) {
            atomic_store_explicit(&forced[p][c], 0, memory_order_relaxed);
        }
    }
}
