// rc_align_backward_cuda: gradients by values and by targets.
#include <algorithm>

#include "align_backward.cuh"
#include "align_plan.h"

namespace rc {

namespace {

bool is_slerp(int32_t kind) {
    return kind == RC_SLERP_XYZW || kind == RC_SLERP_WXYZ;
}

// ---- By values ------------------------------------------------------------------------------------------------------

// Output rows row_order[begin .. begin + count) read sequence r; without rows, only r does.
struct RowsOfSequence {
    int64_t begin;
    int64_t count;
};

__device__ __forceinline__ RowsOfSequence rows_of_sequence(const GradParams& p, int64_t r, rc_fault_report* note) {
    if (p.rows == nullptr) {
        return RowsOfSequence{r, 1};
    }
    const int64_t begin = p.row_starts[r];
    const int64_t end = p.row_starts[r + 1];
    if (begin < 0 || end < begin || end > p.batch) {
        note_fault(note, RC_FAULT_ROW, 0, r, end);
        return RowsOfSequence{0, 0};
    }
    return RowsOfSequence{begin, end - begin};
}

// A target of a sequence: `item` counts the targets of all its output rows, row after row.
__device__ __forceinline__ GradRange record_item(const GradParams& p, const Sequence& q, const RowsOfSequence& rows,
                                                 int64_t item, int32_t kind, GradRecord* record, double* spacing,
                                                 rc_fault_report* note) {
    int64_t k = 0;
    int64_t t = item;
    if (item >= p.num_targets) {
        k = item / p.num_targets;
        t = item - k * p.num_targets;
    }
    int64_t b = q.row;
    if (p.rows != nullptr) {
        b = p.row_order[rows.begin + k];
        if (b < 0 || b >= p.batch || p.rows[b] != q.row) {
            note_fault(note, RC_FAULT_ROW, 0, b, q.row);
            return kNoSamples;
        }
    }
    return record_any_target(p, q, b, t, kind, record, spacing);
}

// A block owns a warp's worth of columns of one sequence. Tile after tile, its threads find a target each; then its
// warps share out the samples that the tile reads, and each walks along the targets of its own.
template <typename Grad, typename Acc, bool kCurves>
__global__ void __launch_bounds__(kGradThreads, kCurves ? 2 : 4)
    grad_values_kernel(const __grid_constant__ GradParams p, rc_fault_report* note) {
    __shared__ GradRecord records[kGradTile];
    __shared__ GradRange ranges[kGradTile];
    __shared__ GradRange warp_ranges[kGradWarps];
    __shared__ uint8_t lists[kGradWarps][kGradTile];
    __shared__ double spacing[kCurves ? kGradTile : 1][3];

    const int64_t r = blockIdx.x / p.column_blocks;
    const uint32_t column_block = blockIdx.x % p.column_blocks;
    const RowsOfSequence rows = rows_of_sequence(p, r, note);
    if (rows.count == 0) {
        return;
    }
    const Sequence q = sequence_of(p.stream, 0, r, note);
    if (q.length == 0) {
        return;
    }
    int32_t g = 0;
    while (g + 1 < p.num_groups && column_block >= p.groups[g + 1].first_block) {
        ++g;
    }
    const GradGroup group = p.groups[g];
    const int32_t thread = static_cast<int32_t>(threadIdx.x);
    const int32_t warp = thread / kLanes;
    const int32_t lane = thread % kLanes;
    const int64_t width = kCurves && (group.kind == RC_SLERP_XYZW || group.kind == RC_SLERP_WXYZ) ? 4 : 1;
    const int64_t place_in_group = static_cast<int64_t>(column_block - group.first_block) * kLanes + lane;
    const int64_t wanted = group.begin + place_in_group * width;
    const bool active = wanted < group.end;
    const int64_t column = active ? wanted : group.begin;  // idle lanes read along and keep nothing

    const int64_t first_sample = p.stream.row_splits != nullptr ? p.stream.row_splits[r] : r * p.stream.num_samples;
    Acc* sums = static_cast<Acc*>(p.grad_values) + first_sample * p.num_columns + column;
    const Grad* grad = static_cast<const Grad*>(p.grad_out) + column * p.grad_out_stride[2];
    const int64_t values = q.values + column * p.stream.values_stride[2];

    const int64_t items = rows.count * p.num_targets;
    for (int64_t begin = 0; begin < items; begin += kGradTile) {
        const int32_t count = static_cast<int32_t>(min(items - begin, static_cast<int64_t>(kGradTile)));
        __syncthreads();  // the last tile's records are done with, and its sums can be seen by all warps
        GradRange range = kNoSamples;
        if (thread < count) {
            range = record_item(p, q, rows, begin + thread, group.kind, &records[thread],
                                kCurves ? spacing[thread] : nullptr, note);
        }
        ranges[thread] = range;
        range.first = __reduce_min_sync(kWholeWarp, range.first);
        range.last = __reduce_max_sync(kWholeWarp, range.last);
        if (lane == 0) {
            warp_ranges[warp] = range;
        }
        __syncthreads();
        range = kNoSamples;
#pragma unroll
        for (int w = 0; w < kGradWarps; ++w) {
            range.first = min(range.first, warp_ranges[w].first);
            range.last = max(range.last, warp_ranges[w].last);
        }
        if (range.last < range.first) {  // for all of the block
            continue;
        }
        const int64_t samples = static_cast<int64_t>(range.last) - range.first + 1;
        const int64_t lo = range.first + samples * warp / kGradWarps;
        const int64_t hi = range.first + samples * (warp + 1) / kGradWarps;
        if (lo == hi) {  // fewer samples than warps; joins the others at the next tile
            continue;
        }
        int32_t found = 0;
        for (int32_t at = 0; at < count; at += kLanes) {
            const GradRange here = ranges[at + lane];  // past the count: no samples
            const bool reads = here.first < hi && here.last >= lo;
            const unsigned readers = __ballot_sync(kWholeWarp, reads);
            if (reads) {
                lists[warp][found + __popc(readers & ((1u << lane) - 1u))] = static_cast<uint8_t>(at + lane);
            }
            found += __popc(readers);
        }
        __syncwarp();
        const GradWalk walk{records, spacing, lists[warp], found};
        const uint32_t own = static_cast<uint32_t>(lo);
        const uint32_t span = active ? static_cast<uint32_t>(hi - lo) : 0u;
        if (rc_is_step_kind(group.kind)) {
            add_mixes<Grad, Acc, 1>(walk, grad, Sums<Acc, 1, 1>(sums, p.num_columns, own, span));
        } else if (!kCurves || group.kind == RC_LINEAR || group.kind == RC_ANGLE) {
            add_mixes<Grad, Acc, 2>(walk, grad, Sums<Acc, 2, 1>(sums, p.num_columns, own, span));
        } else if constexpr (kCurves) {
            if (group.kind == RC_PCHIP) {
                add_pchips(p, walk, grad, values, Sums<Acc, 4, 1>(sums, p.num_columns, own, span));
            } else {
                add_slerps(p, walk, grad, values, Sums<Acc, 2, 4>(sums, p.num_columns, own, span));
            }
        }
    }
}

template <typename Grad>
const void* grad_values_kernel_for(bool wide, bool curves) {
    if (wide) {
        return curves ? reinterpret_cast<const void*>(&grad_values_kernel<Grad, double, true>)
                      : reinterpret_cast<const void*>(&grad_values_kernel<Grad, double, false>);
    }
    return curves ? reinterpret_cast<const void*>(&grad_values_kernel<Grad, float, true>)
                  : reinterpret_cast<const void*>(&grad_values_kernel<Grad, float, false>);
}

const void* find_grad_values_kernel(int32_t grad_dtype, bool wide, bool curves) {
    switch (grad_dtype) {
    case RC_FLOAT16:
        return grad_values_kernel_for<half>(wide, curves);
    case RC_BFLOAT16:
        return grad_values_kernel_for<bfloat16>(wide, curves);
    case RC_FLOAT32:
        return grad_values_kernel_for<float>(wide, curves);
    default:
        return grad_values_kernel_for<double>(wide, curves);
    }
}

// ---- By targets -----------------------------------------------------------------------------------------------------

constexpr uint32_t kSloped = 1u << RC_LINEAR | 1u << RC_ANGLE | 1u << RC_PCHIP;  // kinds with a gradient by targets

// g d(out)/d(target) of a column for the bracket [i0, i0 + 1] at weight w; `at`: sample i0 at that column.
__device__ __forceinline__ double slope_term(const GradParams& p, int32_t kind, int64_t at, int64_t grad_at, double w,
                                             const double h[3]) {
    const StreamParams& s = p.stream;
    const int64_t stride = s.values_stride[1];
    const int64_t grads[1] = {grad_at};
    double g[1];
    load_doubles(p.grad_out, p.grad_dtype, grads, g);
    double rise;
    if (kind == RC_PCHIP) {
        const bool left = h[0] > 0.0;
        const bool right = h[2] > 0.0;
        const int64_t window[4] = {left ? at - stride : at, at, at + stride, right ? at + 2 * stride : at};
        double v[4];
        load_doubles(s.values, s.value_dtype, window, v);
        v[0] = left ? v[0] : 0.0;
        v[3] = right ? v[3] : 0.0;
        (void)rc_pchip(v, h, w, nullptr, &rise);
    } else {
        const int64_t pair[2] = {at, at + stride};
        double v[2];
        load_doubles(s.values, s.value_dtype, pair, v);
        if (kind == RC_LINEAR) {
            rise = v[1] - v[0];
        } else if (s.value_dtype == RC_FLOAT64) {
            rise = rc_wrap_f64(v[1] - v[0]);
        } else {  // the arc that the forward pass took
            rise = static_cast<double>(rc_wrap_f32(static_cast<float>(v[1]) - static_cast<float>(v[0])));
        }
    }
    return g[0] * (rise / h[1]);
}

// One lane's share of a target's gradient: every 32nd column of each group.
template <typename Time>
__device__ __forceinline__ double target_share(const GradParams& p, int64_t b, int64_t t, int32_t lane,
                                               rc_fault_report* note) {
    const StreamParams& s = p.stream;
    const Sequence q = sequence_of(s, 0, b, note);
    const Placed placed = place<Time>(p, q, b, t, RC_LINEAR);
    int32_t i0 = placed.bracket.i0;
    double w = placed.bracket.w;
    if (i0 < 0) {
        return 0.0;
    }
    if (i0 == placed.bracket.i1) {  // at a sample the slope is that of the interval that begins there
        if (placed.site.side != RC_INSIDE || placed.site.index + 1 >= q.length) {
            return 0.0;
        }
        i0 = placed.site.index;
        w = 0.0;
    }
    double h[3];
    spacing_around<Time>(s, q, i0, h);
    const int64_t sample = q.values + i0 * s.values_stride[1];
    const int64_t grad_row = b * p.grad_out_stride[0] + t * p.grad_out_stride[1];
    double sum = 0.0;
    for (int32_t g = 0; g < p.num_groups; ++g) {
        const GradGroup& group = p.groups[g];
        if ((kSloped >> group.kind & 1u) == 0) {
            continue;
        }
        for (int64_t c = static_cast<int64_t>(group.begin) + lane; c < group.end; c += kLanes) {
            const int64_t grad_at = grad_row + c * p.grad_out_stride[2];
            sum += slope_term(p, group.kind, sample + c * s.values_stride[2], grad_at, w, h);
        }
    }
    return sum;
}

// A warp a target. The lanes' shares are added in a fixed tree, so results repeat bit for bit.
template <typename Time>
__global__ void __launch_bounds__(kGradThreads)
    grad_targets_kernel(const __grid_constant__ GradParams p, rc_fault_report* note) {
    const int32_t lane = static_cast<int32_t>(threadIdx.x) % kLanes;
    const int64_t row = static_cast<int64_t>(blockIdx.x) * kGradWarps + threadIdx.x / kLanes;
    if (row >= p.batch * p.num_targets) {
        return;
    }
    double sum = 0.0;
    if ((p.stream.kinds & kSloped) != 0) {
        const int64_t b = row / p.num_targets;
        sum = target_share<Time>(p, b, row - b * p.num_targets, lane, note);
    }
    for (int apart = kLanes / 2; apart > 0; apart /= 2) {
        sum += __shfl_down_sync(kWholeWarp, sum, static_cast<unsigned>(apart));
    }
    if (lane == 0) {
        static_cast<Time*>(p.grad_targets)[row] = static_cast<Time>(sum);
    }
}

// ---- Launch ---------------------------------------------------------------------------------------------------------

void fill_grad_params(const rc_align_grad_call& call, GradParams* p) {
    const rc_align_call& forward = *call.forward;
    const rc_stream& s = *forward.streams;
    fill_stream(s, forward.time_dtype, &p->stream);
    p->targets = forward.targets;
    std::copy(forward.targets_stride, forward.targets_stride + 2, p->targets_stride);
    p->batch = forward.batch;
    p->num_targets = forward.num_targets;
    p->grad_out = call.grad_out;
    std::copy(call.grad_out_stride, call.grad_out_stride + 3, p->grad_out_stride);
    p->grad_values = call.grad_values;
    p->grad_targets = call.grad_targets;
    p->rows = s.rows;
    p->row_order = call.row_order;
    p->row_starts = call.row_starts;
    p->num_columns = s.num_columns;
    p->time_dtype = forward.time_dtype;
    p->grad_dtype = call.grad_dtype;
    p->num_groups = s.num_groups;
    for (int32_t g = 0; g < s.num_groups; ++g) {
        const rc_column_group& group = s.groups[g];
        p->groups[g] = GradGroup{group.begin, group.end, group.kind, p->column_blocks};
        const int64_t lanes = (int64_t{group.end} - group.begin) / (is_slerp(group.kind) ? 4 : 1);
        p->column_blocks += static_cast<uint32_t>((lanes + kLanes - 1) / kLanes);
    }
}

rc_status launch(const void* kernel, GradParams* params, rc_fault_report* note, int64_t blocks, cudaStream_t stream,
                 const char* what) {
    void* arguments[] = {params, &note};
    return check_cuda(
        cudaLaunchKernel(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kGradThreads), arguments, 0, stream), what);
}

rc_status run(const rc_align_grad_call& call, rc_fault_report* note) {
    const rc_align_call& forward = *call.forward;
    const rc_stream& s = *forward.streams;
    GradParams params{};
    fill_grad_params(call, &params);
    const bool by_values = call.grad_values != nullptr && s.num_columns > 0 && s.num_samples > 0 && s.num_sequences > 0;
    if (by_values && s.num_sequences > INT_MAX / int64_t{params.column_blocks}) {
        return rc_fail(RC_UNSUPPORTED, "this gradient needs more than 2^31 blocks; split the sequences");
    }
    const int64_t target_blocks = (forward.batch * forward.num_targets + kGradWarps - 1) / kGradWarps;
    if (call.grad_targets != nullptr && target_blocks > INT_MAX) {
        return rc_fail(RC_UNSUPPORTED, "this gradient needs more than 2^31 blocks; split the batch");
    }
    const cudaStream_t stream = static_cast<cudaStream_t>(forward.cuda_stream);
    rc_status status = RC_OK;
    if (by_values) {
        const uint32_t curves = 1u << RC_PCHIP | 1u << RC_SLERP_XYZW | 1u << RC_SLERP_WXYZ;
        const void* kernel = find_grad_values_kernel(call.grad_dtype, s.value_dtype == RC_FLOAT64,
                                                     (params.stream.kinds & curves) != 0);
        params.stream.rows = nullptr;
        status = launch(kernel, &params, note, s.num_sequences * params.column_blocks, stream,
                        "launching the kernel of the gradient by values");
        params.stream.rows = s.rows;
    }
    if (status == RC_OK && call.grad_targets != nullptr) {
        const void* single = reinterpret_cast<const void*>(&grad_targets_kernel<float>);
        const void* wide = reinterpret_cast<const void*>(&grad_targets_kernel<double>);
        status = launch(forward.time_dtype == RC_FLOAT32 ? single : wide, &params, note, target_blocks, stream,
                        "launching the kernel of the gradient by targets");
    }
    if (status == RC_OK && (by_values || call.grad_targets != nullptr)) {
        rc_count_launch(RC_KERNEL_ALIGN_BACKWARD_CUDA);
    }
    return status;
}

}  // namespace

}  // namespace rc

extern "C" rc_status rc_align_backward_cuda(const rc_align_grad_call* call) {
    rc_status status = rc_check_align_grad_call(call);
    if (status != RC_OK) {
        return status;
    }
    if (!rc_cuda_available()) {
        return rc_fail(RC_NO_CUDA, "rc_align_backward_cuda: %s", rc_cuda_why_not());
    }
    const rc_align_call* forward = call->forward;
    if (forward->batch == 0 || forward->num_targets == 0) {
        return RC_OK;
    }
    const rc::DeviceScope scope(forward->device);
    if (scope.status() != RC_OK) {
        return scope.status();
    }
    rc_fault_report* note = nullptr;
    status = rc::fault_note(forward->device, &note);
    if (status != RC_OK) {
        return status;
    }
    return rc::run(*call, note);
}
