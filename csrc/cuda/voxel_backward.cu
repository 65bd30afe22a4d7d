// Gradient of the features: each point gathers from its row, so nothing is added by two threads.
#include "voxel_points.cuh"

namespace rc {

namespace {

constexpr int kThreads = 256;  // of a block at most
constexpr int kMaxGrads = 4;   // sum, mean, max, min

struct GradParams {
    rc_voxel_grad grads[kMaxGrads];
    int32_t num_grads;
    int64_t total;  // points
    int64_t per_sample;
    int64_t batch;
    const int64_t* row_splits;
    int64_t rows;
    int64_t columns;
    const int64_t* inverse;
    const int32_t* counts;
    void* out;
    bool channels_first;
};

template <typename Out, typename Real>
__global__ __launch_bounds__(kThreads) void gather_grad_kernel(const __grid_constant__ GradParams params) {
    const int64_t elements = params.total * params.columns;
    for (int64_t e = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; e < elements;
         e += static_cast<int64_t>(gridDim.x) * blockDim.x) {
        const int64_t i = e / params.columns;
        const int64_t c = e - i * params.columns;
        const int64_t row = __ldg(params.inverse + i);
        Real sum{};
        if (row >= 0 && row < params.rows) {
            int64_t b, n;
            if (params.row_splits != nullptr) {
                b = sample_of(params.row_splits, params.batch, i);
                n = i - __ldg(params.row_splits + b);
            } else {
                b = i / params.per_sample;
                n = i - b * params.per_sample;
            }
            const int64_t at = params.channels_first ? (b * params.columns + c) * params.rows + row
                                                     : (b * params.rows + row) * params.columns + c;
            for (int32_t g = 0; g < params.num_grads; ++g) {
                const rc_voxel_grad& grad = params.grads[g];
                if (grad.reduce == RC_REDUCE_MAX || grad.reduce == RC_REDUCE_MIN) {
                    const int64_t winner = grad.arg_dtype == RC_INT32
                                               ? __ldg(static_cast<const int32_t*>(grad.arg) + at)
                                               : __ldg(static_cast<const int64_t*>(grad.arg) + at);
                    if (winner != n) {
                        continue;
                    }
                }
                Real v = load_real<Real>(grad.grad, grad.dtype, at);
                if (grad.reduce == RC_REDUCE_MEAN) {
                    v /= static_cast<Real>(__ldg(params.counts + b * params.rows + row));
                }
                sum += v;
            }
        }
        static_cast<Out*>(params.out)[e] = narrow<Out>(sum);
    }
}

template <typename Out>
void (*kernel_of(bool wide))(GradParams) {
    return wide ? gather_grad_kernel<Out, double> : gather_grad_kernel<Out, float>;
}

}  // namespace

}  // namespace rc

extern "C" rc_status rc_voxelize_backward_cuda(const rc_voxel_grad_call* call) {
    rc_status status = rc_check_voxel_grad_call(call);
    if (status != RC_OK) {
        return status;
    }
    if (!rc_cuda_available()) {
        return rc_fail(RC_NO_CUDA, "rc_voxelize_backward_cuda: %s", rc_cuda_why_not());
    }
    rc::GradParams params{};
    if (call->num_grads > rc::kMaxGrads) {
        return rc_fail(RC_INVALID_ARGUMENT, "num_grads: expected at most %d, got %d", rc::kMaxGrads, call->num_grads);
    }
    bool wide = call->grad_dtype == RC_FLOAT64;
    for (int32_t g = 0; g < call->num_grads; ++g) {
        params.grads[g] = call->grads[g];
        wide = wide || call->grads[g].dtype == RC_FLOAT64;
    }
    params.num_grads = call->num_grads;
    params.total = call->row_splits != nullptr ? call->num_points : call->batch * call->num_points;
    params.per_sample = call->num_points;
    params.batch = call->batch;
    params.row_splits = call->row_splits;
    params.rows = call->num_rows;
    params.columns = call->num_columns;
    params.inverse = call->inverse;
    params.counts = call->counts;
    params.out = call->grad_features;
    params.channels_first = call->channels_first;
    if (params.total == 0 || params.columns == 0) {
        return RC_OK;
    }
    const rc::DeviceScope scope(call->device);
    if (scope.status() != RC_OK) {
        return scope.status();
    }
    void (*kernel)(rc::GradParams) = call->grad_dtype == RC_FLOAT16    ? rc::kernel_of<rc::half>(wide)
                                     : call->grad_dtype == RC_BFLOAT16 ? rc::kernel_of<rc::bfloat16>(wide)
                                     : call->grad_dtype == RC_FLOAT32  ? rc::kernel_of<float>(wide)
                                                                       : rc::kernel_of<double>(true);
    const int64_t elements = params.total * params.columns;
    const unsigned threads = rc::launch_threads(RC_TUNE_VOXEL_BACKWARD_THREADS, call->device, elements);
    const int32_t fill = rc::launch_parameter(RC_TUNE_VOXEL_BACKWARD_FILL, call->device, elements);
    const unsigned blocks = rc::striding_blocks(elements, threads, fill, rc::multiprocessors(call->device));
    kernel<<<blocks, threads, 0, static_cast<cudaStream_t>(call->cuda_stream)>>>(params);
    status = rc::check_cuda(cudaGetLastError(), "launching the voxelize backward kernel");
    if (status == RC_OK) {
        rc_count_launch(RC_KERNEL_VOXELIZE_BACKWARD_CUDA);
    }
    return status;
}
