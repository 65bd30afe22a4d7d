// Writes empty cells while the points are sorted: the sort waits for latencies and leaves the memory idle.
#include "voxel_fill.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>

namespace rc {

namespace {

constexpr int kFillThreads = 512;
// Less than this is written in a few microseconds, which a second stream would cost.
constexpr uint64_t kLeastBeside = uint64_t{8} << 20;

__device__ __forceinline__ void put_element(char* at, const uint4& word, uint32_t element) {
    switch (element) {
    case 1:
        *at = static_cast<char>(word.x);
        break;
    case 2:
        *reinterpret_cast<uint16_t*>(at) = static_cast<uint16_t>(word.x);
        break;
    case 4:
        *reinterpret_cast<uint32_t*>(at) = word.x;
        break;
    default:
        *reinterpret_cast<uint2*>(at) = make_uint2(word.x, word.y);
    }
}

// Streaming stores: what is written here is read no sooner than the whole fill has passed through the cache.
__global__ __launch_bounds__(kFillThreads) void fill_kernel(const __grid_constant__ FillParams params) {
    const uint64_t thread = static_cast<uint64_t>(blockIdx.x) * kFillThreads + threadIdx.x;
    const uint64_t threads = static_cast<uint64_t>(gridDim.x) * kFillThreads;
    for (int s = 0; s < params.num_segments; ++s) {
        const FillSegment& segment = params.segments[s];
        char* data = static_cast<char*>(segment.data);
        const uint64_t ahead = (16 - (reinterpret_cast<uintptr_t>(data) & 15)) & 15;
        const uint64_t head = ahead < segment.bytes ? ahead : segment.bytes;
        const uint64_t words = (segment.bytes - head) / 16;
        const uint64_t tail = segment.bytes - head - words * 16;
        if (thread * segment.element < head) {
            put_element(data + thread * segment.element, segment.word, segment.element);
        }
        if (thread * segment.element < tail) {
            put_element(data + head + words * 16 + thread * segment.element, segment.word, segment.element);
        }
        uint4* body = reinterpret_cast<uint4*>(data + head);
#pragma unroll 4
        for (uint64_t w = thread; w < words; w += threads) {
            __stcs(body + w, segment.word);
        }
    }
}

// The calling thread's own stream on a device, and the events that tie it to others.
struct SideStream {
    cudaStream_t stream = nullptr;
    cudaEvent_t fork = nullptr;
    cudaEvent_t join = nullptr;
    ~SideStream() {
        // Where the process ends the driver may be gone already, and says so.
        if (join != nullptr) {
            (void)cudaEventDestroy(join);
        }
        if (fork != nullptr) {
            (void)cudaEventDestroy(fork);
        }
        if (stream != nullptr) {
            (void)cudaStreamDestroy(stream);
        }
    }
};

rc_status side_stream(int32_t device, SideStream** side) {
    thread_local SideStream sides[kMaxDevices];
    if (device < 0 || device >= kMaxDevices) {
        return rc_fail(RC_INVALID_ARGUMENT, "device: expected 0 .. %d, got %d", kMaxDevices - 1, device);
    }
    SideStream& found = sides[device];
    rc_status status = RC_OK;
    if (found.stream == nullptr) {
        status = check_cuda(cudaStreamCreateWithFlags(&found.stream, cudaStreamNonBlocking), "making a stream");
    }
    if (status == RC_OK && found.fork == nullptr) {
        status = check_cuda(cudaEventCreateWithFlags(&found.fork, cudaEventDisableTiming), "making an event");
    }
    if (status == RC_OK && found.join == nullptr) {
        status = check_cuda(cudaEventCreateWithFlags(&found.join, cudaEventDisableTiming), "making an event");
    }
    *side = &found;
    return status;
}

}  // namespace

rc_status Beside::read_dependencies(std::vector<cudaGraphNode_t>* nodes, std::vector<cudaGraphEdgeData>* edges) {
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    const cudaGraphNode_t* found = nullptr;
    const cudaGraphEdgeData* found_edges = nullptr;
    size_t count = 0;
#if CUDART_VERSION >= 13000
    const cudaError_t error = cudaStreamGetCaptureInfo(stream_, &capture, nullptr, nullptr, &found, &found_edges,
                                                       &count);
#else
    const cudaError_t error = cudaStreamGetCaptureInfo_v3(stream_, &capture, nullptr, nullptr, &found, &found_edges,
                                                          &count);
#endif
    const rc_status status = check_cuda(error, "asking for the capture's state");
    if (status == RC_OK) {
        nodes->assign(found, found + count);
        edges->assign(count, cudaGraphEdgeData{});
        if (found_edges != nullptr) {
            edges->assign(found_edges, found_edges + count);
        }
    }
    return status;
}

rc_status Beside::set_dependencies(std::vector<cudaGraphNode_t>* nodes, const std::vector<cudaGraphEdgeData>& edges,
                                   unsigned flags) {
#if CUDART_VERSION >= 13000
    const cudaError_t error = cudaStreamUpdateCaptureDependencies(stream_, nodes->data(), edges.data(), nodes->size(),
                                                                  flags);
#else
    const cudaError_t error = cudaStreamUpdateCaptureDependencies_v2(stream_, nodes->data(), edges.data(),
                                                                     nodes->size(), flags);
#endif
    return check_cuda(error, "branching the captured graph");
}

rc_status Beside::begin(cudaStream_t* where) {
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    rc_status status = check_cuda(cudaStreamIsCapturing(stream_, &capture), "asking whether the stream is captured");
    if (status != RC_OK) {
        return status;
    }
    if (capture != cudaStreamCaptureStatusNone) {
        status = read_dependencies(&before_, &before_edges_);
        state_ = status == RC_OK ? State::kCapturing : State::kIdle;
        *where = stream_;
        return status;
    }
    SideStream* side = nullptr;
    status = side_stream(device_, &side);
    if (status == RC_OK) {
        status = check_cuda(cudaEventRecord(side->fork, stream_), "recording an event");
    }
    if (status == RC_OK) {
        status = check_cuda(cudaStreamWaitEvent(side->stream, side->fork, 0), "waiting for an event");
    }
    if (status == RC_OK) {
        state_ = State::kLaunching;
        *where = side->stream;
    }
    return status;
}

rc_status Beside::begun() {
    if (state_ == State::kCapturing) {
        rc_status status = read_dependencies(&own_, &own_edges_);
        if (status == RC_OK) {
            status = set_dependencies(&before_, before_edges_, cudaStreamSetCaptureDependencies);
        }
        state_ = status == RC_OK ? State::kCaptured : State::kIdle;
        return status;
    }
    SideStream* side = nullptr;
    rc_status status = side_stream(device_, &side);
    if (status == RC_OK) {
        status = check_cuda(cudaEventRecord(side->join, side->stream), "recording an event");
    }
    state_ = status == RC_OK ? State::kLaunched : State::kIdle;
    return status;
}

rc_status Beside::join() {
    const State state = state_;
    state_ = State::kIdle;
    if (state == State::kCaptured) {
        return set_dependencies(&own_, own_edges_, cudaStreamAddCaptureDependencies);
    }
    if (state == State::kLaunching || state == State::kLaunched) {
        SideStream* side = nullptr;
        rc_status status = side_stream(device_, &side);
        if (status == RC_OK &&
            state == State::kLaunching) {  // something failed between: what was launched is waited for
            status = check_cuda(cudaEventRecord(side->join, side->stream), "recording an event");
        }
        return status == RC_OK ? check_cuda(cudaStreamWaitEvent(stream_, side->join, 0), "waiting for an event")
                               : status;
    }
    return RC_OK;
}

void Fill::add(void* data, int64_t elements, int32_t dtype, double value) {
    if (data == nullptr || elements == 0) {
        return;
    }
    unsigned char bytes[8] = {};
    const auto put = [&](auto v) { std::memcpy(bytes, &v, sizeof v); };
    switch (dtype) {
    case RC_FLOAT16:
        put(__half_raw(__float2half_rn(static_cast<float>(value))));
        break;
    case RC_BFLOAT16:
        put(__nv_bfloat16_raw(__float2bfloat16_rn(static_cast<float>(value))));
        break;
    case RC_FLOAT32:
        put(static_cast<float>(value));
        break;
    case RC_FLOAT64:
        put(value);
        break;
    default:
        put(static_cast<int64_t>(value));
    }
    FillSegment& segment = params_.segments[params_.num_segments++];
    segment.data = data;
    segment.element = static_cast<uint32_t>(rc_dtype_size(dtype));
    segment.bytes = static_cast<uint64_t>(elements) * segment.element;
    unsigned char word[16];
    for (uint32_t k = 0; k < 16; ++k) {
        word[k] = bytes[k % segment.element];
    }
    std::memcpy(&segment.word, word, sizeof word);
    bytes_ += segment.bytes;
}

rc_status Fill::start() {
    if (params_.num_segments == 0) {
        return RC_OK;
    }
    const bool beside = bytes_ >= kLeastBeside;
    // One block a multiprocessor leaves room for what runs at the same time, and its stores still fill the memory's queue.
    const uint64_t words = bytes_ / 16 + 1;
    const uint64_t most = static_cast<uint64_t>(multiprocessors_) * (beside ? 1 : 4);
    const uint64_t turns = (words + kFillThreads - 1) / kFillThreads;
    const unsigned blocks = static_cast<unsigned>(turns < most ? turns : most);
    cudaStream_t where = stream_;
    rc_status status = beside ? beside_.begin(&where) : RC_OK;
    if (status == RC_OK) {
        fill_kernel<<<blocks, kFillThreads, 0, where>>>(params_);
        status = check_cuda(cudaGetLastError(), "launching the fill kernel");
    }
    return status == RC_OK && beside ? beside_.begun() : status;
}

}  // namespace rc
