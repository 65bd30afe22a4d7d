/* RoboCache: the public C API.
 *
 * One header, C11, no torch and no Python. Every call takes a plain descriptor, returns a status code and never
 * allocates device memory, exits the process or reads past what the descriptor describes. A status other than
 * RC_OK leaves its words, with the argument's name, what was expected and what came, in rc_last_error().
 *
 * Vocabulary
 *   stream     one sensor: values with a clock of their own
 *   sequence   one run of samples of a stream: row r of values [R, S, D], or samples
 *              row_splits[r] .. row_splits[r+1] of packed values [N, D]
 *   target     a time at which an output row is wanted
 *   bracket    the two neighbouring samples around a target
 *
 * Times are float32, float64 or int64 in any one unit. All times of one call share their dtype. Strides are counted
 * in elements, may be zero (shared by the batch) and may be negative. See docs/semantics.md for the arithmetic.
 *
 * Threads: calls on distinct outputs may run concurrently. rc_last_error() is per thread.
 */
#ifndef ROBOCACHE_H
#define ROBOCACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define RC_API __declspec(dllexport)
#else
#define RC_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Status ---------------------------------------------------------------------------------------------------- */

/* The outcome of a call. */
typedef enum rc_status {
    RC_OK = 0,
    RC_INVALID_ARGUMENT = 1, /* a size, pointer, enum or combination that cannot be right */
    RC_UNSUPPORTED = 2,      /* right, but beyond what this build or this kernel does */
    RC_BAD_DATA = 3,         /* the data breaks a promise (times backwards, NaN time, a `raise` policy) */
    RC_NO_CUDA = 4,      /* this build, this machine or this driver has no usable CUDA; rc_cuda_why_not() says why */
    RC_CUDA_ERROR = 5,   /* a CUDA call failed */
    RC_OUT_OF_MEMORY = 6 /* host memory for scratch space could not be had */
} rc_status;

/* Words for a status code ("invalid argument"). Never NULL. */
RC_API const char *rc_status_name(rc_status status);

/* The last error of the calling thread, or "" if there was none. Valid until this thread's next failing call. */
RC_API const char *rc_last_error(void);

/* What the data did wrong. */
typedef enum rc_data_fault {
    RC_FAULT_NONE = 0,
    RC_FAULT_TIME_NOT_FINITE = 1, /* a sample's time is NaN or infinite */
    RC_FAULT_TIME_BACKWARDS = 2,  /* a sample's time is before its predecessor's */
    RC_FAULT_TIME_COLLAPSED = 3,  /* float32 cannot resolve this stream: distinct stamps became equal */
    RC_FAULT_TARGET_NAN = 4,      /* a target time is NaN */
    RC_FAULT_OUT_OF_RANGE = 5,    /* extrapolate = raise and a target lies outside [first, last] */
    RC_FAULT_INVALID_TARGET = 6,  /* invalid = raise and a target is not valid */
    RC_FAULT_LENGTH = 7,          /* lengths[r] is not in [0, S] */
    RC_FAULT_ROW_SPLITS = 8,      /* row_splits decrease or leave [0, N] */
    RC_FAULT_ROW = 9,             /* rows[b] is not in [0, R) */
    RC_FAULT_POINT_OUTSIDE = 10,  /* bounds = raise and a point lies outside the grid */
    RC_FAULT_VOXEL_SIZE = 11,     /* a voxel size is not finite and positive */
    RC_FAULT_GRID_MIN = 12,       /* a grid's corner is NaN or infinite */
    RC_FAULT_POINT_SPLITS = 13    /* row_splits of points decrease or leave [0, N] */
} rc_data_fault;

/* A fault and where it stands. `row` is the output row b for faults of targets and rows, the sequence r for faults of
 * samples, the sample b for faults of points and grids; `position` is the target's, the sample's or the point's index in
 * it, or the axis. */
typedef struct rc_fault_report {
    int32_t fault;  /* rc_data_fault */
    int32_t stream; /* index of the stream */
    int64_t row;
    int64_t position;
} rc_fault_report;

/* The report behind the last error of the calling thread; fault is RC_FAULT_NONE when that was no data fault. */
RC_API void rc_last_fault(rc_fault_report *report);

/* Writes a sentence about `report` into `text` (always terminated); returns the length it wanted, as snprintf does. */
RC_API int rc_describe_fault(const rc_fault_report *report, char *text, size_t capacity);

/* ---- Types ----------------------------------------------------------------------------------------------------- */

/* Types of elements. */
typedef enum rc_dtype {
    RC_FLOAT16 = 0,
    RC_BFLOAT16 = 1,
    RC_FLOAT32 = 2,
    RC_FLOAT64 = 3,
    RC_BOOL = 4, /* one byte, 0 or 1 */
    RC_UINT8 = 5,
    RC_INT8 = 6,
    RC_INT16 = 7,
    RC_INT32 = 8,
    RC_INT64 = 9,
    RC_UINT16 = 10, /* depth images only */
    RC_BITS = 11    /* occupancy only: eight cells a byte, cell z in bit z % 8 of byte z / 8 of its row along z */
} rc_dtype;
#define RC_NUM_DTYPES 10 /* those that values can have */

/* Size in bytes; 0 for RC_BITS and if `dtype` is none of rc_dtype. */
RC_API size_t rc_dtype_size(int32_t dtype);

/* How a column is carried between samples. */
typedef enum rc_kind {
    RC_LINEAR = 0,
    RC_NEAREST = 1,  /* a tie takes the earlier sample */
    RC_PREVIOUS = 2, /* zero-order hold: the last sample at or before the target */
    RC_NEXT = 3,     /* the first sample at or after the target */
    RC_PCHIP = 4,    /* shape-preserving cubic (Fritsch and Butland 1984) */
    RC_SLERP_XYZW = 5,
    RC_SLERP_WXYZ = 6,
    RC_ANGLE = 7 /* radians, shortest arc, result in [-pi, pi) */
} rc_kind;
#define RC_NUM_KINDS 8

/* What stands at a target outside [first, last]. */
typedef enum rc_extrapolate {
    RC_EXTRAPOLATE_CLAMP = 0,  /* the value at the nearer end */
    RC_EXTRAPOLATE_NAN = 1,    /* NaN; floating values only */
    RC_EXTRAPOLATE_LINEAR = 2, /* the line through the end's two samples; step kinds hold */
    RC_EXTRAPOLATE_RAISE = 3   /* RC_BAD_DATA */
} rc_extrapolate;

/* What stands at a target that is not valid (see rc_stream). */
typedef enum rc_invalid {
    RC_INVALID_KEEP = 0, /* the held or interpolated value stays */
    RC_INVALID_NAN = 1,  /* NaN; floating values only */
    RC_INVALID_RAISE = 2 /* RC_BAD_DATA */
} rc_invalid;

/* ---- Align ----------------------------------------------------------------------------------------------------- */

#define RC_MAX_STREAMS 16
#define RC_MAX_COLUMN_GROUPS 128 /* over all streams of one call, after neighbours of one kind are merged */

/* Columns [begin, end) of a stream share a kind. Slerp groups hold whole quaternions: end - begin is a multiple of 4. */
typedef struct rc_column_group {
    int32_t begin;
    int32_t end;
    int32_t kind; /* rc_kind */
} rc_column_group;

/* One stream of samples.
 *
 * Dense:  row_splits == NULL. values [R, S, D], times [R, S] (or [S]: times_stride[0] == 0).
 *         lengths [R] or NULL: samples at or past lengths[r] are never read.
 * Packed: row_splits [R + 1]. values [N, D], times [N]; values_stride[0] and times_stride[0] are not used;
 *         S is N; lengths must be NULL.
 * rows [B] or NULL: output row b reads sequence rows[b]. Without rows, R == B and row b reads sequence b.
 *
 * A target is valid when it lies in [first, last] and, if it is not an exact hit, the bracket around it is no longer
 * than max_gap and the sample it uses is no further than tolerance (linear, pchip, slerp and angle: the nearer of the
 * two). For nearest, previous and next a given tolerance also admits targets that far outside the range. With several
 * kinds in a stream, a target is valid when it is so for each of them.
 *
 * All pointers are host pointers for rc_align_cpu and device pointers for rc_align_cuda, except `groups`. */
typedef struct rc_stream {
    const void *values;
    const void *times;         /* in the call's time_dtype */
    const int64_t *lengths;    /* [R] or NULL */
    const int64_t *row_splits; /* [R + 1] or NULL */
    const int64_t *rows;       /* [B] or NULL */
    const void *row_offsets;   /* [B], in the call's time_dtype, or NULL; added to time_offset */
    int64_t values_stride[3];  /* sequence, sample, column */
    int64_t times_stride[2];   /* sequence, sample */
    int64_t num_sequences;     /* R */
    int64_t num_samples;       /* S; packed: N */
    int64_t num_columns;       /* D */
    int32_t value_dtype;       /* rc_dtype */
    int32_t extrapolate;       /* rc_extrapolate */
    int32_t invalid;           /* rc_invalid */
    int32_t num_groups;        /* column groups cover [0, D) in order, without holes; 0 only if D == 0 */
    const rc_column_group *groups;
    double max_gap;     /* in units of time; infinity: no limit. Rounded to the time dtype (int64: floor) */
    double tolerance;   /* likewise; negative: none given */
    double time_offset; /* latency: a sample stamped t was taken at t - time_offset. int64 times: a whole number */
} rc_stream;

/* How CPU kernels get their threads: run body(begin, end, context) over [0, count) in pieces of at least `grain`, on
 * any threads, and return when all are done. `pool` is handed through. */
typedef void (*rc_range_fn)(int64_t begin, int64_t end, void *context);
typedef void (*rc_parallel_for_fn)(void *pool, int64_t count, int64_t grain, rc_range_fn body, void *context);

/* One call: all streams at the same targets, column blocks side by side.
 *   targets [B, T] (or [T]: targets_stride[0] == 0), out [B, T, sum of D], valid [B, T, streams] contiguous or NULL. */
typedef struct rc_align_call {
    uint32_t struct_size; /* sizeof(rc_align_call): tells a caller built against another version */
    int32_t time_dtype;   /* RC_FLOAT32, RC_FLOAT64 or RC_INT64 */
    int32_t out_dtype;    /* floating, or an integer type that holds every stream's values */
    int32_t num_streams;  /* 1 .. RC_MAX_STREAMS */
    const rc_stream *streams;
    const void *targets;
    int64_t targets_stride[2]; /* batch, target */
    int64_t batch;             /* B */
    int64_t num_targets;       /* T */
    void *out;
    int64_t out_stride[3]; /* batch, target, column */
    uint8_t *valid;
    rc_parallel_for_fn parallel_for; /* CPU: NULL runs serially */
    void *pool;
    int32_t device;    /* CUDA: device ordinal */
    int32_t reserved;  /* zero */
    void *cuda_stream; /* CUDA: cudaStream_t; NULL is the legacy default stream */
} rc_align_call;

/* Aligns on the CPU. Data faults are found before anything is written: RC_BAD_DATA leaves `out` as it was. */
RC_API rc_status rc_align_cpu(const rc_align_call *call);

/* Aligns on a GPU: one kernel launch on the given stream, no synchronisation, no allocation; may be captured.
 * Data faults are noted on the device (rc_cuda_take_fault); the outputs they touch hold NaN or held values. Of a stream
 * with `rows`, only the samples that a target reads are checked; others are checked whole. */
RC_API rc_status rc_align_cuda(const rc_align_call *call);

/* Gradient of a call with one stream.
 *
 * grad_values is an accumulator that the caller has zeroed, contiguous, float64 for float64 values and float32 for
 * others: [R, S, D], packed [N, D]. grad_targets is contiguous [B, T] in the time dtype (floating). Either may be NULL.
 * Sums run in order of output row and target, so results repeat bit for bit.
 *
 * With `rows`, several output rows may read one sequence: row_order [B] lists the output rows sorted by sequence, and
 * row_starts [R + 1] where each sequence's begin. Both are NULL without `rows`. */
typedef struct rc_align_grad_call {
    uint32_t struct_size;         /* sizeof(rc_align_grad_call) */
    int32_t grad_dtype;           /* dtype of grad_out, floating */
    const rc_align_call *forward; /* out, out_dtype and valid are not used */
    const void *grad_out;         /* [B, T, D] */
    int64_t grad_out_stride[3];
    void *grad_values;
    void *grad_targets;
    const int64_t *row_order;
    const int64_t *row_starts;
} rc_align_grad_call;

/* The gradients on the CPU. Data faults are found before anything is written. */
RC_API rc_status rc_align_backward_cpu(const rc_align_grad_call *call);
/* The gradients on a GPU: no synchronisation, no allocation; may be captured. Data faults are noted on the device. */
RC_API rc_status rc_align_backward_cuda(const rc_align_grad_call *call);

/* ---- Voxelize -------------------------------------------------------------------------------------------------- */

/* Points become cells of a grid of X by Y by Z cells, each sample b of a batch with a grid of its own.
 *
 * The index is a contract, the same on every device: along each axis q = floor((p - grid_min) / voxel_size), with IEEE
 * subtraction and division in the compute dtype (float64 for float64 points, else float32). A point lies in the grid iff
 * 0 <= q < size on all three axes, compared as floating numbers, which leaves NaN and infinity out. Its cell is
 * (x * Y + y) * Z + z.
 *
 * Samples of points are numbered 0 .. B - 1; a point's index is its place in its sample: n of [B, N], the place after
 * row_splits[b] of packed points, (v * H + h) * W + w of a depth image's pixel. */

/* Points as a tensor. */
typedef struct rc_point_cloud {
    const void *points;        /* [B, N, 3], or packed [N, 3] beside row_splits */
    int64_t points_stride[3];  /* sample (not used when packed), point, axis */
    const int64_t *row_splits; /* [B + 1] or NULL: sample b is points row_splits[b] .. row_splits[b + 1] */
    int64_t num_points;        /* N: of each sample; packed: of all together */
    int32_t dtype;             /* floating */
    int32_t reserved;          /* zero */
} rc_point_cloud;

/* Points as depth images of V cameras a sample; no point is ever stored. Pixel (h, w) of depth d sees
 * z = d * depth_scale, x = ((w - cx) * z) / fx, y = ((h - cy) * z) / fy in its camera's frame, each operation rounded
 * to float32. A depth that is zero, negative, NaN or infinite after scaling is no point. */
typedef struct rc_depth_images {
    const void *depth;            /* [B, V, H, W] */
    int64_t depth_stride[3];      /* sample, camera, pixel: pixel h * W + w */
    const float *intrinsics;      /* [B, V, 4]: fx, fy, cx, cy; the four stand side by side */
    int64_t intrinsics_stride[2]; /* sample, camera */
    int64_t num_cameras;          /* V */
    int64_t height;               /* H */
    int64_t width;                /* W */
    double depth_scale;           /* rounded to float32 */
    int32_t dtype;                /* RC_UINT16 or RC_FLOAT32 */
    int32_t reserved;             /* zero */
} rc_depth_images;

/* What each point carries. */
typedef struct rc_point_features {
    const void *values;
    int64_t stride[4];   /* sample (not used when packed), camera (0 for point clouds), point or pixel, column */
    int64_t num_columns; /* C */
    int32_t dtype;       /* floating or RC_UINT8 */
    int32_t reserved;    /* zero */
} rc_point_features;

/* Where the grids of a call stand. */
typedef struct rc_voxel_grid {
    int64_t size[3];            /* X, Y, Z: 1 .. RC_MAX_GRID_SIZE each, their product below 2^62 / B */
    double voxel_size[3];       /* of all samples, where voxel_sizes is NULL; rounded to the compute dtype */
    double grid_min[3];         /* the grid's lower corner, where grid_mins is NULL; likewise */
    const void *voxel_sizes;    /* [B, 3] in the compute dtype, or NULL */
    const void *grid_mins;      /* [B, 3] in the compute dtype, or NULL */
    int64_t voxel_sizes_stride; /* elements from sample to sample; 0: shared */
    int64_t grid_mins_stride;   /* likewise */
} rc_voxel_grid;

#define RC_MAX_GRID_SIZE 16777216 /* 2^24: every cell's coordinate is a float32 */

/* What becomes of a point outside the grid. */
typedef enum rc_bounds {
    RC_BOUNDS_DROP = 0,
    RC_BOUNDS_CLAMP = 1, /* it counts in the nearest cell of the grid; a NaN coordinate is dropped */
    RC_BOUNDS_RAISE = 2  /* RC_BAD_DATA; NaN coordinates too */
} rc_bounds;

/* What becomes of the points of a cell. */
typedef enum rc_reduce {
    RC_REDUCE_OCCUPANCY = 0, /* 1 where a point lies */
    RC_REDUCE_COUNT = 1,     /* points in the cell; integers hold at their largest */
    RC_REDUCE_SUM = 2,       /* of the features, in the order that docs/semantics.md fixes: the same bits everywhere */
    RC_REDUCE_MEAN = 3,      /* sum / count */
    RC_REDUCE_MAX = 4,       /* ties go to the lowest index; a NaN wins, the first of them */
    RC_REDUCE_MIN = 5,
    RC_REDUCE_ARGMAX = 6, /* index of the point that gives the maximum, -1 where there is none */
    RC_REDUCE_ARGMIN = 7
} rc_reduce;
#define RC_NUM_REDUCES 8
#define RC_MAX_VOXEL_OUTPUTS 8

/* One result, contiguous. Dense: occupancy and count [B, X, Y, Z] (RC_BITS: [B, X, Y, ceil(Z / 8)]), others
 * [B, X, Y, Z, C] or, channels first, [B, C, X, Y, Z]. Sparse: count [B, V], others [B, V, C].
 * dtype: occupancy any of rc_dtype but RC_UINT16; count likewise but RC_BITS; sum, mean, max, min floating; argmax and
 * argmin RC_INT32 or RC_INT64. Features compute in float32, float64 ones in double, and round once. */
typedef struct rc_voxel_output {
    void *data;
    int32_t reduce; /* rc_reduce; each at most once a call */
    int32_t dtype;
} rc_voxel_output;

/* One call. All pointers but those to descriptors are host pointers for the CPU and device pointers for CUDA. */
typedef struct rc_voxel_call {
    uint32_t struct_size;        /* sizeof(rc_voxel_call) */
    int32_t bounds;              /* rc_bounds */
    const rc_point_cloud *cloud; /* exactly one of cloud and depth */
    const rc_depth_images *depth;
    int64_t batch;                     /* B */
    const uint8_t *mask;               /* NULL, or nonzero where a point counts: [B, N], [N] packed, [B, V, H, W] */
    int64_t mask_stride[3];            /* sample (not used when packed), camera (0 for point clouds), point or pixel */
    const void *poses;                 /* NULL, or [B, V, 3, 4] in the compute dtype, row-major [R | t] side by side:
                                          p' = ((r0 * x + r1 * y) + r2 * z) + t, each operation rounded */
    int64_t poses_stride[2];           /* sample, camera (0 for point clouds); 0: shared */
    const rc_point_features *features; /* NULL where no output needs them */
    rc_voxel_grid grid;
    double empty_value; /* stands in sum, mean, max and min of an empty cell; rounded to their dtype */
    const rc_voxel_output *outputs;
    int32_t num_outputs;
    bool channels_first; /* dense only */
    bool accumulate;     /* dense occupancy and count are added to what their outputs hold */
    int64_t *dropped;    /* NULL, or [B]: points that lie outside the grid, also where they are clamped */
    int64_t *inverse;    /* NULL, or [B, N], [N] packed, [B, V, H, W]: the point's cell (sparse: its row), or -1 */
    rc_parallel_for_fn parallel_for; /* CPU: NULL runs serially */
    void *pool;
    int32_t device;        /* CUDA: device ordinal */
    int32_t reserved;      /* zero */
    void *cuda_stream;     /* CUDA: cudaStream_t */
    void *workspace;       /* CUDA: device memory of rc_*_cuda_workspace() bytes, 256-byte aligned; NULL if 0 */
    size_t workspace_size; /* CUDA: its bytes */
} rc_voxel_call;

/* Dense grids. On the CPU data faults are found before anything is written. On CUDA: no synchronisation, no allocation;
 * may be captured; faults are noted on the device, and the points they touch are dropped. */
RC_API rc_status rc_voxelize_cpu(const rc_voxel_call *call);
RC_API rc_status rc_voxelize_cuda(const rc_voxel_call *call);
/* Bytes of workspace that rc_voxelize_cuda wants for `call`; data pointers may still be NULL. */
RC_API rc_status rc_voxelize_cuda_workspace(const rc_voxel_call *call, size_t *bytes);

/* In which order the occupied cells of a sample stand. */
typedef enum rc_voxel_order {
    RC_ORDER_SORTED = 0,          /* by cell */
    RC_ORDER_FIRST_APPEARANCE = 1 /* by the lowest index of a cell's points */
} rc_voxel_order;

/* Occupied cells only, as rows of a fixed capacity V a sample. A sample's rows past its number of voxels hold -1 in
 * coords and arguments, 0 in counts and gathered points, empty_value elsewhere. Of more voxels than V, the first V in
 * order are kept; num_voxels still tells how many there are. */
typedef struct rc_sparse_call {
    uint32_t struct_size;      /* sizeof(rc_sparse_call) */
    int32_t order;             /* rc_voxel_order */
    const rc_voxel_call *call; /* outputs are sparse; no occupancy, no accumulate, not channels_first */
    int64_t max_voxels;        /* V, 0 .. 2^31 - 1 */
    int32_t *coords;           /* [B, V, 3] */
    int64_t *num_voxels;       /* [B] */
    /* The first P points of each voxel in order of their index, as detectors want them ("hard voxels"); 0: none. */
    int64_t max_points;
    void *gathered;         /* [B, V, P, C]: features as they are, in gathered_dtype; 0 where there is no point */
    int64_t *slots;         /* NULL, or shaped as inverse: row * P + place of the point in `gathered`, or -1 */
    int32_t gathered_dtype; /* floating, or the features' own */
    int32_t reserved;       /* zero */
} rc_sparse_call;

/* Occupied cells; faults, synchronisation, allocation and capture as in dense grids. */
RC_API rc_status rc_voxelize_sparse_cpu(const rc_sparse_call *call);
RC_API rc_status rc_voxelize_sparse_cuda(const rc_sparse_call *call);
/* Bytes of workspace that rc_voxelize_sparse_cuda wants for `call`; data pointers may still be NULL. */
RC_API rc_status rc_voxelize_sparse_cuda_workspace(const rc_sparse_call *call, size_t *bytes);

/* Gradient of one output. */
typedef struct rc_voxel_grad {
    const void *grad;  /* contiguous: [B, rows, C] or, channels first, [B, C, rows] */
    const void *arg;   /* max and min: their argmax or argmin, laid out as grad; others NULL */
    int32_t reduce;    /* sum, mean, max or min */
    int32_t dtype;     /* of grad, floating */
    int32_t arg_dtype; /* RC_INT32 or RC_INT64 */
    int32_t reserved;  /* zero */
} rc_voxel_grad;

/* Gradient of the features: every point gathers from the row that `inverse` names; others get 0. Rows are the cells of a
 * dense grid, the voxels of a sparse one, or its slots. */
typedef struct rc_voxel_grad_call {
    uint32_t struct_size; /* sizeof(rc_voxel_grad_call) */
    int32_t num_grads;
    const rc_voxel_grad *grads;
    int64_t batch;             /* B */
    int64_t num_points;        /* N of each sample (cameras and pixels together); packed: of all together */
    const int64_t *row_splits; /* [B + 1] or NULL */
    int64_t num_rows;          /* of each sample */
    int64_t num_columns;       /* C */
    const int64_t *inverse;    /* [B, N] or packed [N]; row in the sample, or -1 */
    const int32_t *counts;     /* [B, rows] where a mean is among the grads, else NULL */
    void *grad_features;       /* [B, N, C] or packed [N, C], contiguous; written whole */
    int32_t grad_dtype;        /* floating; sums run in float32, in double where this or a grad is float64 */
    bool channels_first;
    rc_parallel_for_fn parallel_for;
    void *pool;
    int32_t device;
    int32_t reserved;
    void *cuda_stream;
} rc_voxel_grad_call;

/* The gradient that rc_voxel_grad_call describes. On CUDA: no synchronisation, no allocation, no workspace; may be
 * captured. */
RC_API rc_status rc_voxelize_backward_cpu(const rc_voxel_grad_call *call);
RC_API rc_status rc_voxelize_backward_cuda(const rc_voxel_grad_call *call);

/* ---- Devoxelize ------------------------------------------------------------------------------------------------ */

/* What is read at a point. */
typedef enum rc_devoxelize_mode {
    RC_DEVOXELIZE_NEAREST = 0,  /* the value of the point's cell */
    RC_DEVOXELIZE_TRILINEAR = 1 /* between the eight cell centres around it; at a face the outermost centre holds */
} rc_devoxelize_mode;

/* Values of a grid at points. A point outside the grid, or masked, takes empty_value (RC_BOUNDS_CLAMP: the nearest
 * cell's value, trilinear at the clamped place; RC_BOUNDS_RAISE: RC_BAD_DATA). Trilinear: t = (p - grid_min) / voxel_size - 0.5,
 * w = t - floor(t), v0 + w * (v1 - v0) along z, then y, then x, each operation rounded in float32 (float64 for float64
 * points or values), then once to the output. */
typedef struct rc_devoxelize_call {
    uint32_t struct_size; /* sizeof(rc_devoxelize_call) */
    int32_t mode;         /* rc_devoxelize_mode */
    int32_t bounds;       /* rc_bounds */
    int32_t value_dtype;  /* trilinear: floating; nearest: any of RC_NUM_DTYPES */
    const rc_point_cloud *cloud;
    int64_t batch;          /* B */
    const uint8_t *mask;    /* NULL, [B, N], or [N] packed */
    int64_t mask_stride[2]; /* sample (not used when packed), point */
    const void *poses;      /* NULL or [B, 3, 4] in the points' compute dtype */
    int64_t poses_stride;   /* sample; 0: shared */
    rc_voxel_grid grid;
    const void *values;       /* [B, X, Y, Z, C] */
    int64_t values_stride[5]; /* sample, x, y, z, column */
    int64_t num_columns;      /* C */
    double empty_value;
    void *out;         /* [B, N, C] or packed [N, C], contiguous */
    int32_t out_dtype; /* floating for floating values, else value_dtype */
    int32_t device;
    rc_parallel_for_fn parallel_for;
    void *pool;
    void *cuda_stream;
} rc_devoxelize_call;

/* Reads the grid. On the CPU data faults are found before anything is written. On CUDA: no synchronisation, no
 * allocation, no workspace; may be captured; faults are noted on the device. */
RC_API rc_status rc_devoxelize_cpu(const rc_devoxelize_call *call);
RC_API rc_status rc_devoxelize_cuda(const rc_devoxelize_call *call);

/* Gradients of a call, by the grid's values and by the points.
 *
 * grad_values is NULL, or [B, X, Y, Z, C] contiguous that the caller has zeroed, float64 for float64 values, else
 * float32. On CUDA its sums run in no fixed order. grad_points is NULL, or shaped as the points, contiguous, in their
 * compute dtype, and written whole. */
typedef struct rc_devoxelize_grad_call {
    uint32_t struct_size;              /* sizeof(rc_devoxelize_grad_call) */
    int32_t grad_dtype;                /* of grad_out, floating */
    const rc_devoxelize_call *forward; /* out and out_dtype are not used */
    const void *grad_out;              /* shaped as out, contiguous */
    void *grad_values;
    void *grad_points;
} rc_devoxelize_grad_call;

/* Faults, synchronisation, allocation and capture as in the forward calls. */
RC_API rc_status rc_devoxelize_backward_cpu(const rc_devoxelize_grad_call *call);
RC_API rc_status rc_devoxelize_backward_cuda(const rc_devoxelize_grad_call *call);

/* ---- Copies and CUDA graphs ------------------------------------------------------------------------------------- */

#define RC_MAX_COPIES 64    /* tensors of one rc_copy_many_cuda call */
#define RC_MAX_COPY_DIMS 16 /* dimensions of one of them */

/* One tensor copied onto another of the same shape and element size; they must not overlap. Destination strides must
 * give every element a place of its own, but for dimensions whose stride is zero on both sides: these are copied once. */
typedef struct rc_copy {
    void *to;
    const void *from;
    const int64_t *sizes;        /* [num_dims] */
    const int64_t *to_strides;   /* [num_dims], in elements */
    const int64_t *from_strides; /* [num_dims], in elements */
    int32_t num_dims;
    int32_t element_size; /* bytes: 1, 2, 4, 8 or 16 */
} rc_copy;

/* Copies of one launch. */
typedef struct rc_copy_call {
    uint32_t struct_size; /* sizeof(rc_copy_call) */
    int32_t num_copies;   /* 0 .. RC_MAX_COPIES */
    const rc_copy *copies;
    int32_t device;    /* CUDA device ordinal, on which all of them lie */
    int32_t reserved;  /* zero */
    void *cuda_stream; /* cudaStream_t */
} rc_copy_call;

/* Copies many small tensors in one kernel launch; those that are no dense block of memory on both sides take further
 * launches, a batch of them each. No synchronisation, no allocation; may be captured. There is no CPU form: it saves
 * launches, and a CPU has none. */
RC_API rc_status rc_copy_many_cuda(const rc_copy_call *call);

/* One replay of an instantiated CUDA graph with the copies around it, all on one stream. It stands for: wait for
 * `wait_for`, copy in, launch the graph, copy out, record `done`. */
typedef struct rc_replay_call {
    uint32_t struct_size;      /* sizeof(rc_replay_call) */
    int32_t device;            /* CUDA device ordinal */
    void *graph_exec;          /* cudaGraphExec_t */
    const rc_copy *copies_in;  /* before the graph */
    const rc_copy *copies_out; /* behind it */
    int32_t num_copies_in;     /* 0 .. RC_MAX_COPIES */
    int32_t num_copies_out;    /* likewise */
    void *cuda_stream;         /* cudaStream_t */
    void *wait_for;            /* cudaEvent_t that the stream waits for first, or NULL */
    void *done;                /* cudaEvent_t recorded last, or NULL */
} rc_replay_call;

/* Replays. RC_UNSUPPORTED, before anything is launched, while `cuda_stream` is being captured. No synchronisation. */
RC_API rc_status rc_replay_graph_cuda(const rc_replay_call *call);

/* *capturing: whether a capture is under way on `cuda_stream`; of the legacy default stream also whether one on another
 * stream keeps it from being used. */
RC_API rc_status rc_cuda_is_capturing(void *cuda_stream, bool *capturing);

/* Makes the end of a capture that broke possible again: a capture on `cuda_stream` that was invalidated is dropped, and
 * where none is under way an empty one begins (thread local). Whoever began the first one can then end it in the usual
 * way, which gives back what it holds, and gets an empty graph. */
RC_API rc_status rc_cuda_mend_capture(void *cuda_stream);

/* ---- CUDA state ------------------------------------------------------------------------------------------------ */

/* True where this build holds CUDA kernels and a driver and a device answer. */
RC_API bool rc_cuda_available(void);
/* Why not, in words; "" where it is. */
RC_API const char *rc_cuda_why_not(void);
/* Waits for all work on `device`, moves the first fault noted there into `report` and clears it.
 * report->fault is RC_FAULT_NONE when there was none. */
RC_API rc_status rc_cuda_take_fault(int32_t device, rc_fault_report *report);

/* ---- Launch parameters: for measurement ------------------------------------------------------------------------ */

/* CUDA kernels take some of their launch parameters from a table, by the GPU's compute capability and by how much work a
 * call is; no value changes a result. A tuner reads and forces them here. Forcing is per process and meant for
 * measurement: a graph that was captured keeps the values of its capture. */
#define RC_NUM_SHAPE_CLASSES 3 /* small, medium, large; rc_shape_class_end() */
#define RC_MAX_LAUNCH_VALUES 8

/* One parameter and the values that it may have. */
typedef struct rc_launch_parameter {
    const char *name; /* "align.threads": kernel and parameter */
    const char *work; /* what a call's work is counted in: "points" */
    int32_t values[RC_MAX_LAUNCH_VALUES];
    int32_t num_values;
    int32_t default_value; /* on GPUs that were not measured; one of the values */
} rc_launch_parameter;

/* How many parameters there are. */
RC_API int32_t rc_launch_parameter_count(void);
/* The names stay valid. RC_INVALID_ARGUMENT if `parameter` is not in [0, count). */
RC_API rc_status rc_describe_launch_parameter(int32_t parameter, rc_launch_parameter *description);
/* The index of a name; -1 where there is none. */
RC_API int32_t rc_find_launch_parameter(const char *name);
/* Calls with less work than this, and not less than the class before ends at, are of the class; the last has no end. */
RC_API int64_t rc_shape_class_end(int32_t shape_class);
/* What a launch takes: on compute capability `arch` (10 * major + minor), in a shape class. */
RC_API rc_status rc_get_launch_parameter(int32_t parameter, int32_t arch, int32_t shape_class, int32_t *value);
/* Forces one of the parameter's values in a shape class, on every GPU; 0 gives the choice back to the table. */
RC_API rc_status rc_set_launch_parameter(int32_t parameter, int32_t shape_class, int32_t value);
/* Gives every choice back to the table. */
RC_API void rc_reset_launch_parameters(void);

/* ---- About this build ------------------------------------------------------------------------------------------ */

/* Kernels that count their launches, so that a test can tell which one really ran. A launch that is captured into a
 * CUDA graph counts once, when it is captured. */
typedef enum rc_kernel {
    RC_KERNEL_ALIGN_CPU = 0,
    RC_KERNEL_ALIGN_CUDA = 1,
    RC_KERNEL_ALIGN_BACKWARD_CPU = 2,
    RC_KERNEL_ALIGN_BACKWARD_CUDA = 3,
    RC_KERNEL_VOXELIZE_CPU = 4,
    RC_KERNEL_VOXELIZE_CUDA = 5,             /* any dense call; the next four tell which way it took */
    RC_KERNEL_VOXELIZE_SHARED_BITS_CUDA = 6, /* occupancy: a sample's bits in shared memory */
    RC_KERNEL_VOXELIZE_GLOBAL_CUDA = 7,      /* occupancy and count: atomics in global memory */
    RC_KERNEL_VOXELIZE_PARTITION_CUDA = 8,   /* occupancy and count: points by slab, slabs in shared memory */
    RC_KERNEL_VOXELIZE_SORT_CUDA = 9,        /* features: points sorted by cell */
    RC_KERNEL_VOXELIZE_SPARSE_CPU = 10,
    RC_KERNEL_VOXELIZE_SPARSE_CUDA = 11,
    RC_KERNEL_VOXELIZE_BACKWARD_CPU = 12,
    RC_KERNEL_VOXELIZE_BACKWARD_CUDA = 13,
    RC_KERNEL_DEVOXELIZE_CPU = 14,
    RC_KERNEL_DEVOXELIZE_CUDA = 15,
    RC_KERNEL_DEVOXELIZE_BACKWARD_CPU = 16,
    RC_KERNEL_DEVOXELIZE_BACKWARD_CUDA = 17,
    RC_KERNEL_COPY_MANY_CUDA = 18
} rc_kernel;
#define RC_NUM_KERNELS 19

/* "align_cpu", ...; NULL past the last. */
RC_API const char *rc_kernel_name(int32_t kernel);
/* Launches of a kernel since the last reset, over all threads; 0 past the last kernel. */
RC_API int64_t rc_launch_count(int32_t kernel);
/* Sets all counts to zero. */
RC_API void rc_reset_launch_counts(void);

/* "0.1.0". */
RC_API const char *rc_version(void);
/* CUDA targets in this build, "80 86 89 90 100 120+ptx"; "" when built without CUDA. */
RC_API const char *rc_cuda_archs(void);
/* Vector code in use on this CPU: "avx512", "avx2", "neon" or "portable". */
RC_API const char *rc_cpu_isa(void);
/* Forces one of them (tests); RC_UNSUPPORTED if this CPU or build lacks it, NULL chooses anew. Not thread safe. */
RC_API rc_status rc_set_cpu_isa(const char *isa);

#ifdef __cplusplus
}
#endif

#endif /* ROBOCACHE_H */
