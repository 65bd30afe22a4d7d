// The ways of a dense call, and what they share on the host.
#pragma once

#include "runtime.h"
#include "voxel_params.h"

namespace rc {

// One piece of the caller's workspace after the other.
class Workspace {
public:
    explicit Workspace(void* base) : base_(static_cast<char*>(base)) {}
    // Bytes rounded up so that the next piece is aligned for everything. Without a base only counts.
    template <typename T>
    T* take(size_t count) {
        T* piece = base_ != nullptr ? reinterpret_cast<T*>(base_ + used_) : nullptr;
        used_ += (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
        return piece;
    }
    size_t used() const { return used_; }

private:
    static constexpr size_t kAlignment = 256;
    char* base_;
    size_t used_ = 0;
};

// A way of computing. Each `*_run` takes the pieces it needs from the workspace and, unless `dry`, launches.
struct VoxelRun {
    const rc_voxel_call* call;
    VoxelParams params;
    PointSource source;
    Workspace* workspace;
    cudaStream_t stream;
    int multiprocessors;
    bool dry;
};

// Occupancy and count through bits or counters of all cells in global memory.
rc_status voxelize_global(VoxelRun* run);

// Occupancy of many samples, each in shared memory.
bool shared_bits_takes(const rc_voxel_call& call, int multiprocessors);
rc_status voxelize_shared_bits(VoxelRun* run);

// Occupancy and count by way of slabs: the points of a chunk are sorted by slab, then each slab is filled in shared
// memory and written once.
bool partition_takes(const rc_voxel_call& call, int multiprocessors);
rc_status voxelize_partition(VoxelRun* run);

// Everything, by way of the points sorted by cell.
rc_status voxelize_sorted(VoxelRun* run);

const rc_voxel_output* find_output(const rc_voxel_call& call, int32_t reduce);

}  // namespace rc
