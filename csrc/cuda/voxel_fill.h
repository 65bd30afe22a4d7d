// Outputs filled with what stands where no point is, beside the work that finds the points.
#pragma once

#include <vector>

#include "runtime.h"

namespace rc {

// A piece of memory that takes one value throughout.
struct FillSegment {
    void* data;
    uint64_t bytes;
    uint4 word;        // the value, repeated
    uint32_t element;  // bytes of one value
};

struct FillParams {
    FillSegment segments[RC_MAX_VOXEL_OUTPUTS];
    int32_t num_segments;
};

// Launches that may run at the same time as what its stream does next. Under capture they become a branch of the graph;
// else they go to a stream of the calling thread's own.
class Beside {
public:
    Beside(cudaStream_t stream, int32_t device) : stream_(stream), device_(device) {}
    ~Beside() { (void)join(); }
    Beside(const Beside&) = delete;
    Beside& operator=(const Beside&) = delete;
    // Where to launch what runs beside.
    rc_status begin(cudaStream_t* where);
    // It is launched: the stream goes on without it.
    rc_status begun();
    // The stream waits for it.
    rc_status join();

private:
    rc_status read_dependencies(std::vector<cudaGraphNode_t>* nodes, std::vector<cudaGraphEdgeData>* edges);
    rc_status set_dependencies(std::vector<cudaGraphNode_t>* nodes, const std::vector<cudaGraphEdgeData>& edges,
                               unsigned flags);

    enum class State { kIdle, kCapturing, kLaunching, kCaptured, kLaunched };
    cudaStream_t stream_;
    int32_t device_;
    State state_ = State::kIdle;
    std::vector<cudaGraphNode_t> before_, own_;  // under capture only: nothing is allocated elsewhere
    std::vector<cudaGraphEdgeData> before_edges_, own_edges_;
};

// What a call fills. start() launches it, join() makes the stream wait.
class Fill {
public:
    Fill(cudaStream_t stream, int32_t device, int multiprocessors)
        : stream_(stream), multiprocessors_(multiprocessors), beside_(stream, device) {}
    // `elements` of `dtype`, each `value` rounded to it; an integer dtype takes whole numbers.
    void add(void* data, int64_t elements, int32_t dtype, double value);
    rc_status start();
    rc_status join() { return beside_.join(); }

private:
    cudaStream_t stream_;
    int multiprocessors_;
    FillParams params_{};
    uint64_t bytes_ = 0;
    Beside beside_;
};

}  // namespace rc
