// From what a door was given (tensors, arrays) to the C API's descriptor: shapes, dtypes and devices are checked here,
// the same way for every door. Knows neither torch nor Python.
#ifndef ROBOCACHE_DOORS_ALIGN_ARGS_H
#define ROBOCACHE_DOORS_ALIGN_ARGS_H

#include "view.h"

namespace robocache {

// One stream as its arguments say it. A negative max_gap or tolerance means none.
struct StreamArgs {
    View values, times, lengths, row_splits, rows, row_offsets;
    int64_t kind = RC_LINEAR;
    int64_t extrapolate = RC_EXTRAPOLATE_CLAMP;
    int64_t invalid = RC_INVALID_KEEP;
    double max_gap = -1.0;
    double tolerance = -1.0;
    double time_offset = 0.0;
};

// Columns [begin, end) of stream `stream` are of `kind`.
struct ColumnKind {
    int64_t stream, begin, end, kind;
};

// A descriptor together with what it points to.
struct AlignArgs {
    rc_align_call call;
    rc_stream streams[RC_MAX_STREAMS];
    rc_column_group groups[RC_MAX_COLUMN_GROUPS];
    int64_t out_sizes[3];
};

// torch.promote_types for the dtypes there are.
inline int32_t promote(int32_t a, int32_t b) {
    if (a == b) {
        return a;
    }
    if (is_floating(a) && is_floating(b)) {
        const bool halves = a <= RC_BFLOAT16 && b <= RC_BFLOAT16;
        return halves ? static_cast<int32_t>(RC_FLOAT32) : (a > b ? a : b);
    }
    if (is_floating(a) || is_floating(b)) {
        return is_floating(a) ? a : b;
    }
    const int32_t low = a < b ? a : b;
    const int32_t high = a < b ? b : a;
    return low == RC_UINT8 && high == RC_INT8 ? static_cast<int32_t>(RC_INT16) : high;
}

// Builds a descriptor; the first thing that is wrong goes into `*error` (where wanted) and ends it.
class AlignBuilder : public Checks {
public:
    AlignBuilder(AlignArgs &args, bool fused, std::string *error) : Checks(error), args_(args), fused_(fused) {}

    // All but `out`, `valid`, threads and the CUDA stream. `out_dtype` may be kNoDtype: the streams' common dtype.
    bool build(const StreamArgs *streams, size_t count, const View &targets, const ColumnKind *kinds, size_t num_kinds,
               int32_t out_dtype) {
        if (count < 1 || count > RC_MAX_STREAMS) {
            return fail("streams", "expected 1 to ", RC_MAX_STREAMS, " streams, got ", count);
        }
        if (targets.ndim != 1 && targets.ndim != 2) {
            return fail("target_times", "expected [B, T] or [T], got ", shape(targets));
        }
        if (targets.dtype != RC_FLOAT32 && targets.dtype != RC_FLOAT64 && targets.dtype != RC_INT64) {
            return fail("target_times", "expected float32, float64 or int64, got ", dtype_name(targets.dtype));
        }
        rc_align_call &call = args_.call;
        call = rc_align_call{};
        call.struct_size = sizeof(rc_align_call);
        call.time_dtype = targets.dtype;
        call.num_streams = static_cast<int32_t>(count);
        call.streams = args_.streams;
        call.targets = targets.data;
        call.num_targets = targets.sizes[targets.ndim - 1];
        call.targets_stride[0] = targets.ndim == 2 ? targets.strides[0] : 0;
        call.targets_stride[1] = targets.strides[targets.ndim - 1];
        call.device = targets.device_index;
        int64_t columns = 0;
        int32_t common = kNoDtype;
        for (size_t s = 0; s < count; ++s) {
            stream_ = s;
            if (!add_stream(streams[s], targets)) {
                return false;
            }
            columns += args_.streams[s].num_columns;
            common = s == 0 ? streams[s].values.dtype : promote(common, streams[s].values.dtype);
        }
        if (targets.ndim == 2 && targets.sizes[0] != call.batch) {
            return fail("target_times", "expected [B, T] = [", call.batch, ", ", call.num_targets, "], got ",
                        shape(targets));
        }
        call.out_dtype = out_dtype == kNoDtype ? common : out_dtype;
        args_.out_sizes[0] = call.batch;
        args_.out_sizes[1] = call.num_targets;
        args_.out_sizes[2] = columns;
        return add_kinds(streams, kinds, num_kinds);
    }

    // A caller's own output tensor.
    bool set_out(const View &out, const View &targets) {
        const int64_t *sizes = args_.out_sizes;
        if (out.ndim != 3 || out.sizes[0] != sizes[0] || out.sizes[1] != sizes[1] || out.sizes[2] != sizes[2]) {
            return fail("out", "expected [B, T, D] = [", sizes[0], ", ", sizes[1], ", ", sizes[2], "], got ",
                        shape(out));
        }
        if (out.dtype != args_.call.out_dtype) {
            return fail("out", "expected ", dtype_name(args_.call.out_dtype), ", got ", dtype_name(out.dtype));
        }
        args_.call.out = out.data;
        for (int d = 0; d < 3; ++d) {
            args_.call.out_stride[d] = out.strides[d];
        }
        return same_device("out", out, targets, "target_times");
    }

    // A caller's own validity mask: [B, T], of fuse [B, T, streams].
    bool set_valid(const View &valid, const View &targets) {
        const rc_align_call &call = args_.call;
        const int32_t ndim = fused_ ? 3 : 2;
        const bool right = valid.ndim == ndim && valid.sizes[0] == call.batch && valid.sizes[1] == call.num_targets &&
                           (!fused_ || valid.sizes[2] == call.num_streams);
        if (!right) {
            return fail("valid", "expected [", call.batch, ", ", call.num_targets,
                        fused_ ? ", " + std::to_string(call.num_streams) : std::string(), "], got ", shape(valid));
        }
        if (valid.dtype != RC_BOOL) {
            return fail("valid", "expected bool, got ", dtype_name(valid.dtype));
        }
        int64_t expected = 1;
        const bool is_empty = call.batch == 0 || call.num_targets == 0; // then any strides will do
        for (int32_t d = ndim - 1; d >= 0 && !is_empty; --d) {
            if (valid.sizes[d] > 1 && valid.strides[d] != expected) {
                return fail("valid", "expected a contiguous tensor");
            }
            expected *= valid.sizes[d];
        }
        args_.call.valid = static_cast<uint8_t *>(valid.data);
        return same_device("valid", valid, targets, "target_times");
    }

    // Strides of a contiguous output that the door allocates.
    void set_contiguous_out(void *out) {
        args_.call.out = out;
        args_.call.out_stride[2] = 1;
        args_.call.out_stride[1] = args_.out_sizes[2];
        args_.call.out_stride[0] = args_.out_sizes[1] * args_.out_sizes[2];
    }

private:
    AlignArgs &args_;
    bool fused_;
    size_t stream_ = 0;

    // "times", or "streams[2].times" when there are several.
    template <typename... Parts>
    bool fail_stream(const char *argument, const Parts &...parts) {
        if (!error_) {
            return false;
        }
        const std::string name = fused_ ? "streams[" + std::to_string(stream_) + "]." + argument : argument;
        return fail(name.c_str(), parts...);
    }

    bool same_device_stream(const char *argument, const View &view, const View &targets) {
        return !view.given() || on_one_device(view, targets) ||
               fail_stream(argument, "expected device ", device(targets), " (that of target_times), got ",
                           device(view));
    }

    // lengths, row_splits, rows, row_offsets: contiguous vectors.
    bool vector(const char *argument, const char *symbol, const View &view, int64_t size, int32_t dtype) {
        if (!view.given()) {
            return true;
        }
        if (size >= 0 ? !view.is_vector(size) : view.ndim != 1) {
            if (size < 0) {
                return fail_stream(argument, "expected [", symbol, "], got ", shape(view));
            }
            return fail_stream(argument, "expected [", symbol, "] = [", size, "], got ", shape(view));
        }
        if (view.dtype != dtype) {
            return fail_stream(argument, "expected ", dtype_name(dtype), ", got ", dtype_name(view.dtype));
        }
        return view.is_contiguous_vector() || fail_stream(argument, "expected a contiguous vector");
    }

    bool add_stream(const StreamArgs &from, const View &targets) {
        rc_align_call &call = args_.call;
        rc_stream &to = args_.streams[stream_];
        to = rc_stream{};
        const View &values = from.values;
        const View &times = from.times;
        const bool packed = from.row_splits.given();
        if (values.dtype == kNoDtype) {
            return fail_stream("values",
                               "expected float16, bfloat16, float32, float64, bool, uint8, int8, int16, int32 "
                               "or int64, got an unsupported dtype");
        }
        if (times.dtype != targets.dtype) {
            return fail_stream("times", "expected the dtype of target_times, ", dtype_name(targets.dtype), ", got ",
                               dtype_name(times.dtype));
        }
        if (values.ndim != (packed ? 2 : 3)) {
            return fail_stream("values", "expected ", packed ? "[N, D]" : "[B, S, D]", ", got ", shape(values));
        }
        if (packed) {
            if (from.lengths.given()) {
                return fail_stream("lengths", "not beside row_splits, which say it already");
            }
            to.num_samples = values.sizes[0];
            to.num_columns = values.sizes[1];
            to.values_stride[1] = values.strides[0];
            to.values_stride[2] = values.strides[1];
            if (!vector("row_splits", "R + 1", from.row_splits, -1, RC_INT64)) {
                return false;
            }
            if (from.row_splits.sizes[0] < 1) {
                return fail_stream("row_splits", "expected [R + 1], at least one offset, got [0]");
            }
            to.num_sequences = from.row_splits.sizes[0] - 1;
            to.row_splits = static_cast<const int64_t *>(address(from.row_splits));
            if (!times.is_vector(to.num_samples)) {
                return fail_stream("times", "expected [N] = [", to.num_samples, "], got ", shape(times));
            }
        } else {
            to.num_sequences = values.sizes[0];
            to.num_samples = values.sizes[1];
            to.num_columns = values.sizes[2];
            for (int d = 0; d < 3; ++d) {
                to.values_stride[d] = values.strides[d];
            }
            const bool own = times.ndim == 2 && times.sizes[0] == to.num_sequences && times.sizes[1] == to.num_samples;
            if (!own && !times.is_vector(to.num_samples)) {
                return fail_stream("times", "expected [B, S] = [", to.num_sequences, ", ", to.num_samples,
                                   "] or [S] = [", to.num_samples, "], got ", shape(times));
            }
            to.times_stride[0] = times.ndim == 2 ? times.strides[0] : 0;
        }
        to.times_stride[1] = times.strides[times.ndim - 1];
        if (!vector("lengths", "B", from.lengths, to.num_sequences, RC_INT64) ||
            !vector("rows", "B", from.rows, -1, RC_INT64)) {
            return false;
        }
        const int64_t batch = from.rows.given() ? from.rows.sizes[0] : to.num_sequences;
        if (stream_ > 0 && batch != call.batch) {
            return fail_stream(from.rows.given() ? "rows" : "values", "expected the batch of the first stream, ",
                               call.batch, ", got ", batch);
        }
        call.batch = batch;
        if (!vector("row_offsets", "B", from.row_offsets, batch, targets.dtype)) {
            return false;
        }
        if (!same_device_stream("values", values, targets) || !same_device_stream("times", times, targets) ||
            !same_device_stream("lengths", from.lengths, targets) ||
            !same_device_stream("row_splits", from.row_splits, targets) ||
            !same_device_stream("rows", from.rows, targets) ||
            !same_device_stream("row_offsets", from.row_offsets, targets)) {
            return false;
        }
        to.values = values.data;
        to.times = times.data;
        to.lengths = static_cast<const int64_t *>(address(from.lengths));
        to.rows = static_cast<const int64_t *>(address(from.rows));
        to.row_offsets = from.row_offsets.data;
        to.value_dtype = values.dtype;
        to.extrapolate = narrow(from.extrapolate);
        to.invalid = narrow(from.invalid);
        to.max_gap = from.max_gap < 0.0 ? std::numeric_limits<double>::infinity() : from.max_gap;
        to.tolerance = from.tolerance;
        to.time_offset = from.time_offset;
        return true;
    }

    bool add_kinds(const StreamArgs *streams, const ColumnKind *kinds, size_t num_kinds) {
        size_t next = 0;
        size_t used = 0;
        for (int32_t s = 0; s < args_.call.num_streams; ++s) {
            rc_stream &stream = args_.streams[s];
            stream.groups = args_.groups + used;
            const size_t first = used;
            const bool listed = next < num_kinds && kinds[next].stream == s;
            for (; next < num_kinds && kinds[next].stream == s; ++next) {
                if (used == RC_MAX_COLUMN_GROUPS) {
                    return fail("column_kinds", "at most ", RC_MAX_COLUMN_GROUPS, " column groups a call");
                }
                args_.groups[used++] = {narrow(kinds[next].begin), narrow(kinds[next].end), narrow(kinds[next].kind)};
            }
            if (!listed && stream.num_columns > 0) {
                if (used == RC_MAX_COLUMN_GROUPS) {
                    return fail("column_kinds", "at most ", RC_MAX_COLUMN_GROUPS, " column groups a call");
                }
                args_.groups[used++] = {0, narrow(stream.num_columns), narrow(streams[s].kind)};
            }
            stream.num_groups = static_cast<int32_t>(used - first);
        }
        return next == num_kinds || fail("column_kinds", "expected entries in the order of the streams, got stream ",
                                         kinds[next].stream, " at entry ", next);
    }
};

} // namespace robocache

#endif // ROBOCACHE_DOORS_ALIGN_ARGS_H
