/* Included by locate.c once per time type, with T, TYPED(name) and MEMBER (of rc_time) defined. No include guard on
 * purpose. */

static void TYPED(spacing_at)(const rc_sequence *sequence, int32_t i0, double spacing[3]) {
    TYPED(rc_spacing)((const T *)(const void *)sequence->times, sequence->time_stride, sequence->n, i0, spacing);
}

#undef T
#undef TYPED
#undef MEMBER
