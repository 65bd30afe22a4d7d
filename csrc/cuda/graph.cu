// Replaying an instantiated graph with the copies around it, and captures that broke.
#include "copy_many.h"

extern "C" rc_status rc_replay_graph_cuda(const rc_replay_call* call) {
    rc_status status = rc_check_replay_call(call);
    if (status != RC_OK) {
        return status;
    }
    if (!rc_cuda_available()) {
        return rc_fail(RC_NO_CUDA, "rc_replay_graph_cuda: %s", rc_cuda_why_not());
    }
    const rc::DeviceScope scope(call->device);
    if (scope.status() != RC_OK) {
        return scope.status();
    }
    const cudaStream_t stream = static_cast<cudaStream_t>(call->cuda_stream);
    bool capturing = false;
    status = rc_cuda_is_capturing(stream, &capturing);
    if (status != RC_OK) {
        return status;
    }
    if (capturing) {
        return rc_fail(RC_UNSUPPORTED, "rc_replay_graph_cuda: the stream is being captured");
    }
    if (call->wait_for != nullptr) {
        status = rc::check_cuda(cudaStreamWaitEvent(stream, static_cast<cudaEvent_t>(call->wait_for), 0),
                                "waiting for the graph's last replay");
    }
    if (status == RC_OK) {
        status = rc::copy_many(call->copies_in, call->num_copies_in, call->device, stream);
    }
    if (status == RC_OK) {
        status = rc::check_cuda(cudaGraphLaunch(static_cast<cudaGraphExec_t>(call->graph_exec), stream),
                                "launching the graph");
    }
    if (status == RC_OK) {
        status = rc::copy_many(call->copies_out, call->num_copies_out, call->device, stream);
    }
    if (status == RC_OK && call->done != nullptr) {
        status = rc::check_cuda(cudaEventRecord(static_cast<cudaEvent_t>(call->done), stream),
                                "noting the graph's replay");
    }
    return status;
}

extern "C" rc_status rc_cuda_is_capturing(void* cuda_stream, bool* capturing) {
    if (capturing == nullptr) {
        return rc_fail(RC_INVALID_ARGUMENT, "capturing: expected a pointer, got NULL");
    }
    *capturing = false;
    if (!rc_cuda_available()) {
        return rc_fail(RC_NO_CUDA, "rc_cuda_is_capturing: %s", rc_cuda_why_not());
    }
    cudaStreamCaptureStatus state = cudaStreamCaptureStatusNone;
    const cudaError_t error = cudaStreamIsCapturing(static_cast<cudaStream_t>(cuda_stream), &state);
    if (error == cudaErrorStreamCaptureImplicit) {
        // The legacy stream, while another stream of this device is captured: it cannot be used until that ends.
        (void)cudaGetLastError();
        *capturing = true;
        return RC_OK;
    }
    *capturing = state != cudaStreamCaptureStatusNone;
    return rc::check_cuda(error, "asking whether the stream is captured");
}

extern "C" rc_status rc_cuda_mend_capture(void* cuda_stream) {
    if (!rc_cuda_available()) {
        return rc_fail(RC_NO_CUDA, "rc_cuda_mend_capture: %s", rc_cuda_why_not());
    }
    const cudaStream_t stream = static_cast<cudaStream_t>(cuda_stream);
    cudaStreamCaptureStatus state = cudaStreamCaptureStatusNone;
    rc_status status = rc::check_cuda(cudaStreamIsCapturing(stream, &state), "asking whether the stream is captured");
    if (status != RC_OK || state == cudaStreamCaptureStatusActive) {
        return status;
    }
    if (state == cudaStreamCaptureStatusInvalidated) {
        cudaGraph_t dropped = nullptr;
        (void)cudaStreamEndCapture(stream, &dropped);  // says that the capture is invalid, which is known
        (void)cudaGetLastError();
        if (dropped != nullptr) {
            (void)cudaGraphDestroy(dropped);
        }
    }
    return rc::check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                          "beginning an empty capture");
}
