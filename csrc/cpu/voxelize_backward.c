/* rc_voxelize_backward_cpu: every point gathers from its row. */
#include "common/common.h"
#include "core/portable.h"
#include "rows.h"
#include "run.h"

#include <string.h>

#define COLUMNS 64 /* gathered together */

typedef struct work {
    const rc_voxel_grad_call *call;
    const rc_row_table *table;
    int64_t element;                          /* bytes of the gradient that is written */
    int64_t grad_bytes[RC_MAX_VOXEL_OUTPUTS]; /* of a row of each gradient */
    int64_t arg_bytes[RC_MAX_VOXEL_OUTPUTS];  /* of its arguments, or 0 */
    bool wide;
} work;

#define REAL float
#define TYPED(name) name##_f32
#define REAL_DTYPE RC_FLOAT32
#include "voxelize_backward.inc.h"

#define REAL double
#define TYPED(name) name##_f64
#define REAL_DTYPE RC_FLOAT64
#include "voxelize_backward.inc.h"

/* The last sample of a packed cloud that begins at or before a point, or the first. */
static int64_t sample_of(const rc_voxel_grad_call *call, int64_t point) {
    int64_t low = 0, high = call->batch; /* row_splits before low are at or before the point */
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (call->row_splits[middle] <= point) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low > 0 ? low - 1 : 0;
}

#define AHEAD 16      /* points whose rows are asked for early: they lie anywhere in grids larger than any cache */
#define CACHE_LINE 64 /* bytes */

/* Starts the first lines of a row on their way. */
static void ask_for(const void *rows, int64_t row, int64_t bytes) {
    const char *from = (const char *)rows + row * bytes;
    for (int64_t line = 0; line < bytes && line < 4 * CACHE_LINE; line += CACHE_LINE) {
        __builtin_prefetch(from + line);
    }
}

/* The rows of a point. A guess of the sample is good enough. */
static void ask_for_rows(const work *job, int64_t b, int64_t point) {
    const rc_voxel_grad_call *call = job->call;
    const int64_t row = call->inverse[point];
    if (row < 0 || row >= call->num_rows || b >= call->batch) {
        return;
    }
    const int64_t at = b * call->num_rows + row;
    for (int32_t g = 0; g < call->num_grads; ++g) {
        ask_for(call->grads[g].grad, at, job->grad_bytes[g]);
        ask_for(call->grads[g].arg, at, job->arg_bytes[g]);
    }
    if (call->counts) {
        __builtin_prefetch(call->counts + at);
    }
}

static void gather_points(int64_t begin, int64_t end, void *context) {
    const work *job = context;
    const rc_voxel_grad_call *call = job->call;
    const int64_t columns = call->num_columns;
    int64_t b = call->row_splits ? sample_of(call, begin) : begin / call->num_points;
    for (int64_t i = begin; i < end; ++i) {
        int64_t n;
        if (call->row_splits) {
            while (b < call->batch && i >= call->row_splits[b + 1]) {
                ++b;
            }
            n = b < call->batch ? i - call->row_splits[b] : -1;
        } else {
            n = i - b * call->num_points;
            if (n == call->num_points) {
                ++b;
                n = 0;
            }
        }
        if (!call->channels_first && i + AHEAD < end) {
            ask_for_rows(job, b, i + AHEAD);
        }
        const int64_t row = n >= 0 ? call->inverse[i] : -1; /* a packed point may lie in no sample */
        char *to = (char *)call->grad_features + i * columns * job->element;
        if (row < 0 || row >= call->num_rows || call->num_grads == 0) {
            memset(to, 0, (size_t)(columns * job->element));
        } else if (job->wide) {
            gather_f64(job, b, n, row, to);
        } else {
            gather_f32(job, b, n, row, to);
        }
    }
}

static rc_status check_splits(const rc_voxel_grad_call *call) {
    for (int64_t b = 0; call->row_splits && b < call->batch; ++b) {
        const int64_t begin = call->row_splits[b], end = call->row_splits[b + 1];
        if (begin < 0 || end < begin || end > call->num_points) {
            const rc_fault_report report = {.fault = RC_FAULT_POINT_SPLITS, .row = b};
            return rc_fail_fault(&report);
        }
    }
    return RC_OK;
}

rc_status rc_voxelize_backward_cpu(const rc_voxel_grad_call *call) {
    rc_status status = rc_check_voxel_grad_call(call);
    if (status == RC_OK) {
        status = check_splits(call);
    }
    const int64_t points = status != RC_OK ? 0 : call->row_splits ? call->num_points : call->batch * call->num_points;
    if (status != RC_OK || points == 0 || call->num_columns == 0) {
        return status;
    }
    work job = {.call = call,
                .table = rc_row_kernels(),
                .element = (int64_t)rc_dtype_size(call->grad_dtype),
                .wide = call->grad_dtype == RC_FLOAT64};
    for (int32_t g = 0; g < call->num_grads; ++g) {
        const rc_voxel_grad *grad = &call->grads[g];
        job.wide = job.wide || grad->dtype == RC_FLOAT64;
        job.grad_bytes[g] = call->num_columns * (int64_t)rc_dtype_size(grad->dtype);
        job.arg_bytes[g] = grad->arg ? call->num_columns * (int64_t)rc_dtype_size(grad->arg_dtype) : 0;
    }
    const int64_t cost = (call->num_grads + 1) * (call->num_columns + 8);
    rc_run(call->parallel_for, call->pool, points, 1 + (64 * 1024) / cost, gather_points, &job);
    rc_count_launch(RC_KERNEL_VOXELIZE_BACKWARD_CPU);
    return RC_OK;
}
