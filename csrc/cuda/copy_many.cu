// rc_copy_many_cuda: many small tensors copied by one launch. What it saves is launches, about 5 us of host time each.
//
// The descriptors travel as kernel parameters, so nothing is uploaded first. A copy whose two sides are the same dense
// block of memory (any order of dimensions) is a run of bytes, whatever its shape; runs share one launch, cut into tiles
// of a few vectors a thread. Others are copied element by element, kMaxStrided of them a launch.
#include "copy_many.h"

#include <utility>

namespace rc {

namespace {

constexpr int kThreads = 256;    // of a block at most
constexpr int kFill = 2048;      // threads that a multiprocessor is given at most by a strided copy
constexpr int kMaxStrided = 24;  // as many as the 4 KB of kernel parameters hold
constexpr int kDims = 5;         // of a strided copy, after neighbours are merged; more take several rounds

struct Runs {
    char* to[RC_MAX_COPIES];
    const char* from[RC_MAX_COPIES];
    int64_t count[RC_MAX_COPIES];  // vectors
    uint32_t first_tile[RC_MAX_COPIES + 1];
    uint8_t width[RC_MAX_COPIES];  // bytes of a vector: 1, 2, 4, 8, 16
    int32_t num_runs;
};
static_assert(sizeof(Runs) <= 4096, "kernel parameters");

struct StridedCopy {
    char* to;
    const char* from;
    int64_t sizes[kDims];
    int64_t to_strides[kDims];  // bytes
    int64_t from_strides[kDims];
    int32_t width;
    int32_t num_dims;
};

struct Strided {
    StridedCopy copies[kMaxStrided];
    int32_t num_copies;
};
static_assert(sizeof(Strided) <= 4096, "kernel parameters");

// kAhead: vectors that a thread has on their way.
template <int kAhead, typename Vector>
__device__ __forceinline__ void copy_tile(char* to, const char* from, int64_t begin, int64_t count) {
    const Vector* __restrict__ source = reinterpret_cast<const Vector*>(from);
    Vector* __restrict__ target = reinterpret_cast<Vector*>(to);
    Vector held[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
        const int64_t at = begin + k * blockDim.x + threadIdx.x;
        if (at < count) {
            held[k] = source[at];
        }
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
        const int64_t at = begin + k * blockDim.x + threadIdx.x;
        if (at < count) {
            target[at] = held[k];
        }
    }
}

// One block, one tile of one run.
template <int kAhead>
__global__ __launch_bounds__(kThreads) void copy_runs_kernel(const __grid_constant__ Runs runs) {
    int low = 0;
    int high = runs.num_runs - 1;
    while (low < high) {  // the last run whose first tile is not behind this one
        const int middle = (low + high + 1) / 2;
        if (runs.first_tile[middle] <= blockIdx.x) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    const int64_t begin = static_cast<int64_t>(blockIdx.x - runs.first_tile[low]) * blockDim.x * kAhead;
    char* to = runs.to[low];
    const char* from = runs.from[low];
    const int64_t count = runs.count[low];
    switch (runs.width[low]) {
    case 16:
        copy_tile<kAhead, uint4>(to, from, begin, count);
        break;
    case 8:
        copy_tile<kAhead, uint2>(to, from, begin, count);
        break;
    case 4:
        copy_tile<kAhead, uint32_t>(to, from, begin, count);
        break;
    case 2:
        copy_tile<kAhead, uint16_t>(to, from, begin, count);
        break;
    default:
        copy_tile<kAhead, uint8_t>(to, from, begin, count);
    }
}

// blockIdx.y: the copy; threads stride over its elements.
__global__ __launch_bounds__(kThreads) void copy_strided_kernel(const __grid_constant__ Strided strided) {
    const StridedCopy& copy = strided.copies[blockIdx.y];
    int64_t elements = 1;
    for (int d = 0; d < copy.num_dims; ++d) {
        elements *= copy.sizes[d];
    }
    for (int64_t e = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; e < elements;
         e += static_cast<int64_t>(gridDim.x) * blockDim.x) {
        int64_t rest = e;
        int64_t to = 0;
        int64_t from = 0;
        for (int d = copy.num_dims - 1; d >= 0; --d) {
            const int64_t index = rest % copy.sizes[d];
            rest /= copy.sizes[d];
            to += index * copy.to_strides[d];
            from += index * copy.from_strides[d];
        }
        switch (copy.width) {
        case 16:
            *reinterpret_cast<uint4*>(copy.to + to) = *reinterpret_cast<const uint4*>(copy.from + from);
            break;
        case 8:
            *reinterpret_cast<uint2*>(copy.to + to) = *reinterpret_cast<const uint2*>(copy.from + from);
            break;
        case 4:
            *reinterpret_cast<uint32_t*>(copy.to + to) = *reinterpret_cast<const uint32_t*>(copy.from + from);
            break;
        case 2:
            *reinterpret_cast<uint16_t*>(copy.to + to) = *reinterpret_cast<const uint16_t*>(copy.from + from);
            break;
        default:
            copy.to[to] = copy.from[from];
        }
    }
}

// A copy with its dimensions of size 1 and of stride 0 dropped, sorted by stride, and neighbours merged.
struct Plain {
    int64_t sizes[RC_MAX_COPY_DIMS];
    int64_t to_strides[RC_MAX_COPY_DIMS];
    int64_t from_strides[RC_MAX_COPY_DIMS];
    int num_dims = 0;
    int64_t elements = 1;
};

int64_t magnitude(int64_t v) {
    return v < 0 ? -v : v;
}

void simplify(const rc_copy& copy, Plain* plain) {
    int n = 0;
    for (int d = 0; d < copy.num_dims; ++d) {
        if (copy.sizes[d] == 0) {
            plain->elements = 0;
            return;
        }
        if (copy.sizes[d] == 1 || (copy.to_strides[d] == 0 && copy.from_strides[d] == 0)) {
            continue;
        }
        int at = n++;  // insertion by falling stride of the destination
        for (; at > 0 && magnitude(plain->to_strides[at - 1]) < magnitude(copy.to_strides[d]); --at) {
            plain->sizes[at] = plain->sizes[at - 1];
            plain->to_strides[at] = plain->to_strides[at - 1];
            plain->from_strides[at] = plain->from_strides[at - 1];
        }
        plain->sizes[at] = copy.sizes[d];
        plain->to_strides[at] = copy.to_strides[d];
        plain->from_strides[at] = copy.from_strides[d];
        plain->elements *= copy.sizes[d];
    }
    int last = -1;
    for (int d = 0; d < n; ++d) {
        if (last >= 0 && plain->to_strides[last] == plain->to_strides[d] * plain->sizes[d] &&
            plain->from_strides[last] == plain->from_strides[d] * plain->sizes[d]) {
            plain->sizes[last] *= plain->sizes[d];
            plain->to_strides[last] = plain->to_strides[d];
            plain->from_strides[last] = plain->from_strides[d];
            continue;
        }
        ++last;
        plain->sizes[last] = plain->sizes[d];
        plain->to_strides[last] = plain->to_strides[d];
        plain->from_strides[last] = plain->from_strides[d];
    }
    plain->num_dims = last + 1;
}

int width_of(const void* to, const void* from, int64_t bytes) {
    const uintptr_t all = reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from) |
                          static_cast<uintptr_t>(bytes) | 16;
    return static_cast<int>(all & (~all + 1));  // the lowest bit that is set
}

// A tile: `ahead` vectors of each of `threads`.
rc_status launch_runs(const Runs& runs, unsigned threads, int32_t ahead, cudaStream_t stream) {
    const auto kernel = ahead == 2 ? copy_runs_kernel<2> : ahead == 8 ? copy_runs_kernel<8> : copy_runs_kernel<4>;
    kernel<<<runs.first_tile[runs.num_runs], threads, 0, stream>>>(runs);
    const rc_status status = check_cuda(cudaGetLastError(), "launching the copy kernel");
    if (status == RC_OK) {
        rc_count_launch(RC_KERNEL_COPY_MANY_CUDA);
    }
    return status;
}

class StridedBatch {
public:
    StridedBatch(int32_t device, unsigned threads, cudaStream_t stream)
        : device_(device), threads_(threads), stream_(stream) {}

    // Dimensions that a StridedCopy has no room for are walked here, outermost first.
    rc_status add(const Plain& plain, int first, char* to, const char* from, int32_t size) {
        if (plain.num_dims - first > kDims) {
            for (int64_t i = 0; i < plain.sizes[first]; ++i) {
                const rc_status status = add(plain, first + 1, to + i * plain.to_strides[first] * size,
                                             from + i * plain.from_strides[first] * size, size);
                if (status != RC_OK) {
                    return status;
                }
            }
            return RC_OK;
        }
        StridedCopy& copy = batch_.copies[batch_.num_copies++];
        copy.to = to;
        copy.from = from;
        copy.width = size;
        copy.num_dims = plain.num_dims - first;
        int64_t elements = 1;
        for (int d = 0; d < copy.num_dims; ++d) {
            copy.sizes[d] = plain.sizes[first + d];
            copy.to_strides[d] = plain.to_strides[first + d] * size;
            copy.from_strides[d] = plain.from_strides[first + d] * size;
            elements *= copy.sizes[d];
        }
        largest_ = elements > largest_ ? elements : largest_;
        return batch_.num_copies == kMaxStrided ? flush() : RC_OK;
    }

    rc_status flush() {
        if (batch_.num_copies == 0) {
            return RC_OK;
        }
        const unsigned blocks = striding_blocks(largest_, threads_, kFill, multiprocessors(device_));
        const dim3 grid(blocks, static_cast<unsigned>(batch_.num_copies));
        copy_strided_kernel<<<grid, threads_, 0, stream_>>>(batch_);
        batch_.num_copies = 0;
        largest_ = 0;
        const rc_status status = check_cuda(cudaGetLastError(), "launching the strided copy kernel");
        if (status == RC_OK) {
            rc_count_launch(RC_KERNEL_COPY_MANY_CUDA);
        }
        return status;
    }

private:
    Strided batch_{};
    int64_t largest_ = 0;
    int32_t device_;
    unsigned threads_;
    cudaStream_t stream_;
};

// Of 16 bytes, in all copies together.
int64_t words_of(const rc_copy* copies, int32_t count) {
    int64_t bytes = 0;
    for (int32_t i = 0; i < count; ++i) {
        int64_t elements = 1;
        for (int32_t d = 0; d < copies[i].num_dims; ++d) {
            elements *= copies[i].sizes[d];
        }
        bytes += elements * copies[i].element_size;
    }
    return bytes / 16;
}

}  // namespace

rc_status copy_many(const rc_copy* copies, int32_t count, int32_t device, cudaStream_t stream) {
    constexpr int64_t kMaxTiles = 0x7fffffff;  // blocks of a grid along x
    const int64_t words = words_of(copies, count);
    const unsigned threads = launch_threads(RC_TUNE_COPY_MANY_THREADS, device, words);
    const int32_t ahead = launch_parameter(RC_TUNE_COPY_MANY_AHEAD, device, words);
    const int64_t tile_vectors = static_cast<int64_t>(threads) * ahead;
    Runs runs;
    runs.num_runs = 0;
    runs.first_tile[0] = 0;
    Plain strided[RC_MAX_COPIES];
    int32_t strided_of[RC_MAX_COPIES];
    int num_strided = 0;
    for (int32_t i = 0; i < count; ++i) {
        const rc_copy& copy = copies[i];
        Plain plain;
        simplify(copy, &plain);
        if (plain.elements == 0) {
            continue;
        }
        const bool dense = plain.num_dims == 0 ||
                           (plain.num_dims == 1 && plain.to_strides[0] == 1 && plain.from_strides[0] == 1);
        if (!dense) {
            strided[num_strided] = plain;
            strided_of[num_strided++] = i;
            continue;
        }
        const int64_t bytes = plain.elements * copy.element_size;
        const int width = width_of(copy.to, copy.from, bytes);
        const int64_t vectors = bytes / width;
        const int64_t tiles = (vectors + tile_vectors - 1) / tile_vectors;
        int r = runs.num_runs;
        if (tiles > kMaxTiles - runs.first_tile[r]) {
            if (r == 0) {
                return rc_fail(RC_UNSUPPORTED, "copies[%d]: %lld bytes at this alignment are too many for one launch",
                               i, static_cast<long long>(bytes));
            }
            const rc_status status = launch_runs(runs, threads, ahead, stream);
            if (status != RC_OK) {
                return status;
            }
            r = 0;
        }
        runs.to[r] = static_cast<char*>(copy.to);
        runs.from[r] = static_cast<const char*>(copy.from);
        runs.count[r] = vectors;
        runs.width[r] = static_cast<uint8_t>(width);
        runs.first_tile[r + 1] = runs.first_tile[r] + static_cast<uint32_t>(tiles);
        runs.num_runs = r + 1;
    }
    if (runs.num_runs > 0) {
        const rc_status status = launch_runs(runs, threads, ahead, stream);
        if (status != RC_OK) {
            return status;
        }
    }
    if (num_strided == 0) {
        return RC_OK;
    }
    StridedBatch batch(device, threads, stream);
    for (int s = 0; s < num_strided; ++s) {
        const rc_copy& copy = copies[strided_of[s]];
        const rc_status status = batch.add(strided[s], 0, static_cast<char*>(copy.to),
                                           static_cast<const char*>(copy.from), copy.element_size);
        if (status != RC_OK) {
            return status;
        }
    }
    return batch.flush();
}

}  // namespace rc

extern "C" rc_status rc_copy_many_cuda(const rc_copy_call* call) {
    const rc_status status = rc_check_copy_call(call);
    if (status != RC_OK) {
        return status;
    }
    if (!rc_cuda_available()) {
        return rc_fail(RC_NO_CUDA, "rc_copy_many_cuda: %s", rc_cuda_why_not());
    }
    const rc::DeviceScope scope(call->device);
    if (scope.status() != RC_OK) {
        return scope.status();
    }
    return rc::copy_many(call->copies, call->num_copies, call->device, static_cast<cudaStream_t>(call->cuda_stream));
}
