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
    RC_FAULT_ROW = 9              /* rows[b] is not in [0, R) */
} rc_data_fault;

/* A fault and where it stands. `row` is the output row b for faults of targets and rows, the sequence r for faults of
 * samples; `position` is the target's or the sample's index in it. */
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
    RC_INT64 = 9
} rc_dtype;
#define RC_NUM_DTYPES 10

/* Size in bytes; 0 if `dtype` is none of rc_dtype. */
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

RC_API rc_status rc_align_backward_cpu(const rc_align_grad_call *call);
RC_API rc_status rc_align_backward_cuda(const rc_align_grad_call *call);

/* ---- CUDA state ------------------------------------------------------------------------------------------------ */

/* True where this build holds CUDA kernels and a driver and a device answer. */
RC_API bool rc_cuda_available(void);
/* Why not, in words; "" where it is. */
RC_API const char *rc_cuda_why_not(void);
/* Waits for all work on `device`, moves the first fault noted there into `report` and clears it.
 * report->fault is RC_FAULT_NONE when there was none. */
RC_API rc_status rc_cuda_take_fault(int32_t device, rc_fault_report *report);

/* ---- About this build ------------------------------------------------------------------------------------------ */

/* Kernels that count their launches, so that a test can tell which one really ran. A launch that is captured into a
 * CUDA graph counts once, when it is captured. */
typedef enum rc_kernel {
    RC_KERNEL_ALIGN_CPU = 0,
    RC_KERNEL_ALIGN_CUDA = 1,
    RC_KERNEL_ALIGN_BACKWARD_CPU = 2,
    RC_KERNEL_ALIGN_BACKWARD_CUDA = 3
} rc_kernel;
#define RC_NUM_KERNELS 4

/* "align_cpu", ...; NULL past the last. */
RC_API const char *rc_kernel_name(int32_t kernel);
RC_API int64_t rc_launch_count(int32_t kernel);
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
