// rc_align_cuda: check, plan, launch.
#include <algorithm>

#include "align_kernels.h"
#include "align_plan.h"
#include "runtime.h"

namespace rc {

namespace {

const AlignKernels& kernels_for(int32_t out_dtype) {
    switch (out_dtype) {
    case RC_FLOAT16:
        return align_kernels_float16();
    case RC_BFLOAT16:
        return align_kernels_bfloat16();
    case RC_FLOAT32:
        return align_kernels_float32();
    case RC_FLOAT64:
        return align_kernels_float64();
    default:
        return align_kernels_integer();
    }
}

rc_status launch(const void* kernel, void* params, rc_fault_report* note, const AlignPlan& plan, cudaStream_t stream) {
    void* arguments[] = {params, &note};
    const dim3 threads(static_cast<unsigned>(plan.block_warps) * 32);
    const cudaError_t error = cudaLaunchKernel(kernel, dim3(static_cast<unsigned>(plan.blocks)), threads, arguments, 0,
                                               stream);
    const rc_status status = check_cuda(error, "launching the align kernel");
    if (status == RC_OK) {
        rc_count_launch(RC_KERNEL_ALIGN_CUDA);
    }
    return status;
}

// The smaller parameter blocks are prefixes of what the plan filled.
template <typename Params>
void shrink(const AlignParamsMany& all, Params* some) {
    some->call = all.call;
    std::copy(all.streams, all.streams + std::min(all.call.num_streams, Params::max_streams), some->streams);
    std::copy(all.units, all.units + std::min(all.call.num_units, Params::max_units), some->units);
}

template <typename Params>
bool fits(const AlignParamsMany& all) {
    return all.call.num_streams <= Params::max_streams && all.call.num_units <= Params::max_units;
}

}  // namespace

}  // namespace rc

extern "C" rc_status rc_align_cuda(const rc_align_call* call) {
    rc_status status = rc_check_align_call(call);
    if (status != RC_OK) {
        return status;
    }
    if (!rc_cuda_available()) {
        return rc_fail(RC_NO_CUDA, "rc_align_cuda: %s", rc_cuda_why_not());
    }
    if (call->batch == 0 || call->num_targets == 0) {
        return RC_OK;
    }
    const rc::DeviceScope scope(call->device);
    if (scope.status() != RC_OK) {
        return scope.status();
    }
    rc_fault_report* note = nullptr;
    status = rc::fault_note(call->device, &note);
    if (status != RC_OK) {
        return status;
    }
    rc::AlignParamsMany all;
    rc::AlignPlan plan;
    status = rc::plan_align(*call, rc::multiprocessors(call->device), &all.call, all.streams, all.units, &plan);
    if (status != RC_OK || plan.blocks == 0) {
        return status;
    }
    const rc::AlignKernels& kernels = rc::kernels_for(call->out_dtype);
    const cudaStream_t stream = static_cast<cudaStream_t>(call->cuda_stream);
    const int clock = call->time_dtype == RC_FLOAT32 ? 0 : (call->time_dtype == RC_FLOAT64 ? 1 : 2);
    if (!plan.general && rc::fits<rc::AlignParamsOne>(all)) {
        rc::AlignParamsOne one;
        rc::shrink(all, &one);
        return rc::launch(kernels.plain_one[clock][plan.width], &one, note, plan, stream);
    }
    if (rc::fits<rc::AlignParamsFew>(all)) {
        rc::AlignParamsFew few;
        rc::shrink(all, &few);
        const void* kernel = plan.general ? kernels.general_few[clock] : kernels.plain_few[clock];
        return rc::launch(kernel, &few, note, plan, stream);
    }
    return rc::launch(kernels.general_many[clock], &all, note, plan, stream);
}
