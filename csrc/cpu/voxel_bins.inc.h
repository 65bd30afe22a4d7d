/* Included by voxel_bins.c once per compute type, with REAL and TYPED(name) defined. No include guard on
 * purpose. */

static void TYPED(clear)(rc_bins *bins) {
    const int64_t all = bins->cells * bins->columns;
    memset(bins->counts, 0, (size_t)bins->cells * sizeof *bins->counts);
    bins->num_spills = 0;
    REAL *restrict sum = bins->sum, *restrict max = bins->max, *restrict min = bins->min;
    for (int64_t k = 0; sum && k < all; ++k) {
        sum[k] = (REAL)-0.0; /* -0 + v is v, for every v: the first is taken as it is */
    }
    for (int64_t k = 0; max && k < all; ++k) {
        max[k] = -(REAL)INFINITY;
    }
    for (int64_t k = 0; min && k < all; ++k) {
        min[k] = (REAL)INFINITY;
    }
    for (int64_t k = 0; bins->argmax && k < all; ++k) {
        bins->argmax[k] = UINT32_MAX;
    }
    for (int64_t k = 0; bins->argmin && k < all; ++k) {
        bins->argmin[k] = UINT32_MAX;
    }
}

/* ---- Sums of many points ---------------------------------------------------------------------------------------- */

/* One more number, that of a full block below level 1, into the levels of the tree. */
static void TYPED(push)(rc_spill *spill, REAL *levels, const REAL *sum, int32_t columns) {
    for (int l = 1; l < RC_SUM_LEVELS; ++l) {
        REAL *level = levels + l * columns;
        const bool first = spill->held[l]++ == 0;
        for (int32_t c = 0; c < columns; ++c) {
            level[c] = first ? sum[c] : level[c] + sum[c];
        }
        if (spill->held[l] < RC_SUM_BLOCK) {
            return;
        }
        spill->held[l] = 0;
        sum = level;
    }
}

/* A cell's block is full and another point comes: its sum goes to the levels. */
static void TYPED(spill)(rc_bins *bins, uint32_t cell) {
    const int32_t columns = bins->columns;
    if (bins->num_spills == 0) {
        memset(bins->spill_of, 0, (size_t)bins->cells * sizeof *bins->spill_of);
    }
    if (bins->spill_of[cell] == 0) {
        bins->spills[bins->num_spills] = (rc_spill){.cell = cell};
        bins->spill_of[cell] = ++bins->num_spills;
    }
    const uint32_t s = bins->spill_of[cell] - 1;
    REAL *sum = (REAL *)bins->sum + (int64_t)cell * columns;
    TYPED(push)(&bins->spills[s], (REAL *)bins->levels + (int64_t)s * RC_SUM_LEVELS * columns, sum, columns);
    for (int32_t c = 0; c < columns; ++c) {
        sum[c] = (REAL)-0.0;
    }
}

static void TYPED(close)(rc_bins *bins) {
    const int32_t columns = bins->columns;
    for (uint32_t s = 0; s < bins->num_spills; ++s) {
        const rc_spill *spill = &bins->spills[s];
        REAL *sum = (REAL *)bins->sum + (int64_t)spill->cell * columns; /* of the last block: one number more above */
        for (int l = 1; l < RC_SUM_LEVELS; ++l) {
            const REAL *level = (const REAL *)bins->levels + ((int64_t)s * RC_SUM_LEVELS + l) * columns;
            for (int32_t c = 0; spill->held[l] > 0 && c < columns; ++c) {
                sum[c] = level[c] + sum[c];
            }
        }
    }
}

/* ---- Points ----------------------------------------------------------------------------------------------------- */

RC_INLINE const REAL *TYPED(values_of)(const rc_bins *bins, const rc_segment *segment, int64_t j, int32_t columns) {
    if (segment->values) {
        return (const REAL *)segment->values + j * columns;
    }
    return (const REAL *)(const void *)rc_feature_row(bins->reducer, segment->features,
                                                      segment->first + segment->points[j]);
}

/* Rows far from each other are asked for ahead of their turn. */
RC_INLINE void TYPED(fetch)(const rc_bins *bins, const rc_segment *segment, int64_t j) {
#if defined(__GNUC__)
    if (!segment->values && j < segment->count) {
        __builtin_prefetch(rc_feature_row(bins->reducer, segment->features, segment->first + segment->points[j]));
    }
#else
    (void)bins, (void)segment, (void)j;
#endif
}

FORCE_INLINE void TYPED(add_sums)(rc_bins *bins, const rc_segment *segment, const int32_t columns) {
    uint32_t *restrict counts = bins->counts;
    REAL *restrict sums = bins->sum;
    for (int64_t j = 0; j < segment->count; ++j) {
        const uint32_t cell = segment->cells[j];
        TYPED(fetch)(bins, segment, j + AHEAD);
        const REAL *v = TYPED(values_of)(bins, segment, j, columns);
        const uint32_t before = counts[cell]++;
        if (before % RC_SUM_BLOCK == 0 && before > 0) {
            TYPED(spill)(bins, cell);
        }
        REAL *sum = sums + (int64_t)cell * columns;
        for (int32_t c = 0; c < columns; ++c) {
            sum[c] += v[c];
        }
    }
}

/* rc_beats() without a branch. */
RC_INLINE bool TYPED(beats)(REAL v, REAL best, bool maximum) {
    return (best == best) & ((v != v) | (maximum ? v > best : v < best));
}

FORCE_INLINE void TYPED(add_extremes)(rc_bins *bins, const rc_segment *segment, const int32_t columns, bool maximum,
                                      REAL *all, uint32_t *arguments) {
    for (int64_t j = 0; j < segment->count; ++j) {
        const int64_t cell = segment->cells[j];
        TYPED(fetch)(bins, segment, j + AHEAD);
        const REAL *restrict v = TYPED(values_of)(bins, segment, j, columns);
        REAL *restrict best = all + cell * columns;
        if (arguments) {
            uint32_t *restrict at = arguments + cell * columns;
            const uint32_t point = (uint32_t)(segment->first + segment->points[j]);
            VECTOR_LOOP
            for (int32_t c = 0; c < columns; ++c) {
                const bool beats = (at[c] == UINT32_MAX) | TYPED(beats)(v[c], best[c], maximum);
                best[c] = beats ? v[c] : best[c];
                at[c] = beats ? point : at[c];
            }
        } else {
            VECTOR_LOOP
            for (int32_t c = 0; c < columns; ++c) {
                best[c] = TYPED(beats)(v[c], best[c], maximum) ? v[c] : best[c];
            }
        }
    }
}

/* Numbers of columns that are common get loops without a count. */
#define FOR_COLUMNS(CALL)                                                                                              \
    switch (bins->columns) {                                                                                           \
    case 1:                                                                                                            \
        CALL(1);                                                                                                       \
        break;                                                                                                         \
    case 2:                                                                                                            \
        CALL(2);                                                                                                       \
        break;                                                                                                         \
    case 3:                                                                                                            \
        CALL(3);                                                                                                       \
        break;                                                                                                         \
    case 4:                                                                                                            \
        CALL(4);                                                                                                       \
        break;                                                                                                         \
    case 8:                                                                                                            \
        CALL(8);                                                                                                       \
        break;                                                                                                         \
    case 16:                                                                                                           \
        CALL(16);                                                                                                      \
        break;                                                                                                         \
    default:                                                                                                           \
        CALL(bins->columns);                                                                                           \
        break;                                                                                                         \
    }

#define SUMS(COLUMNS) TYPED(add_sums)(bins, segment, COLUMNS)
#define MAXIMA(COLUMNS) TYPED(add_extremes)(bins, segment, COLUMNS, true, bins->max, bins->argmax)
#define MINIMA(COLUMNS) TYPED(add_extremes)(bins, segment, COLUMNS, false, bins->min, bins->argmin)

static void TYPED(add)(rc_bins *bins, const rc_segment *segment) {
    if (bins->sum) {
        FOR_COLUMNS(SUMS)
    } else {
        for (int64_t j = 0; j < segment->count; ++j) {
            ++bins->counts[segment->cells[j]];
        }
    }
    if (bins->max) {
        FOR_COLUMNS(MAXIMA)
    }
    if (bins->min) {
        FOR_COLUMNS(MINIMA)
    }
}

#undef SUMS
#undef MAXIMA
#undef MINIMA

/* `empty` in empty cells; sums to means, where `mean`. */
FORCE_INLINE void TYPED(finish_columns)(const rc_bins *bins, REAL *restrict values, bool mean, REAL empty,
                                        const int32_t columns) {
    const uint32_t *restrict counts = bins->counts;
    const int64_t cells = bins->cells;
    for (int64_t cell = 0; cell < cells; ++cell) {
        REAL *v = values + cell * columns;
        if (counts[cell] == 0) {
            for (int32_t c = 0; c < columns; ++c) {
                v[c] = empty;
            }
        } else if (mean && counts[cell] > 1) {
            const REAL by = (REAL)counts[cell];
            for (int32_t c = 0; c < columns; ++c) {
                v[c] /= by;
            }
        }
    }
}

/* One column: vectors of cells, and divisions by 0 that nobody looks at. */
static void TYPED(finish_column)(const rc_bins *bins, REAL *restrict values, bool mean, REAL empty) {
    const uint32_t *restrict counts = bins->counts;
    const int64_t cells = bins->cells;
    if (mean) {
        for (int64_t cell = 0; cell < cells; ++cell) {
            const REAL quotient = values[cell] / (REAL)counts[cell];
            values[cell] = counts[cell] > 0 ? quotient : empty;
        }
    } else {
        for (int64_t cell = 0; cell < cells; ++cell) {
            values[cell] = counts[cell] > 0 ? values[cell] : empty;
        }
    }
}

#define FINISH(COLUMNS) TYPED(finish_columns)(bins, values, mean, (REAL)empty, COLUMNS)

static void TYPED(finish)(const rc_bins *bins, void *values, bool mean, double empty) {
    if (bins->columns == 1) {
        TYPED(finish_column)(bins, values, mean, (REAL)empty);
    } else {
        FOR_COLUMNS(FINISH)
    }
}

#undef FINISH
#undef FOR_COLUMNS
#undef REAL
#undef TYPED
