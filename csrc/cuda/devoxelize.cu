// rc_devoxelize_cuda: nearest and trilinear values of a grid at points.
#include "devoxelize.cuh"

namespace rc {

namespace {

constexpr int kThreads = 256;  // of a block at most

template <typename Value, typename Real>
__device__ __forceinline__ Real value_at(const Value* values, int64_t at) {
    return static_cast<Real>(widen(__ldg(values + at)));
}

// One thread, one point and kVector columns; lanes of a point are neighbours.
template <PointSource kSource, typename Value, int kVector>
__global__ __launch_bounds__(kThreads) void devoxelize_kernel(const __grid_constant__ DevoxelizeParams params,
                                                              int32_t mode, int32_t out_dtype) {
    using PointReal = typename PointReader<kSource>::Real;
    using Real = std::conditional_t<sizeof(PointReal) == 8, double, compute_t<Value>>;
    const VoxelGridParams& grid = params.points.grid;
    check_splits(params.points);
    PointReader<kSource> reader(params.points);
    const int64_t groups = params.by_groups.divisor;
    const int64_t threads = params.points.points.total * groups;
    const Value* values = static_cast<const Value*>(params.values);
    for (int64_t t = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; t < threads;
         t += static_cast<int64_t>(gridDim.x) * blockDim.x) {
        const int64_t i = t / groups;
        const int32_t column = static_cast<int32_t>(t - i * groups) * kVector;
        PointReal p[3];
        int32_t at[3];
        const bool counts = find_point<true>(&reader, params, i, p, at);
        const int64_t to = i * params.columns + column;
        if (!counts) {
#pragma unroll
            for (int k = 0; k < kVector; ++k) {
                store_real(params.out, out_dtype, to + k, params.empty_value);
            }
            continue;
        }
        const int64_t sample = reader.sample() * params.stride[0] + column * params.stride[4];
        if (mode == RC_DEVOXELIZE_NEAREST) {
            const int64_t from = sample + at[0] * params.stride[1] + at[1] * params.stride[2] +
                                 at[2] * params.stride[3];
#pragma unroll
            for (int k = 0; k < kVector; ++k) {
                store_real(params.out, out_dtype, to + k, value_at<Value, Real>(values, from + k * params.stride[4]));
            }
            continue;
        }
        Stencil<PointReal> stencil;
        stencil_of(reader.frame(), p, grid.bounds == RC_BOUNDS_CLAMP, &stencil);
        Real corner[8][kVector];
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            const int64_t from = sample + stencil.at[0][j >> 2] * params.stride[1] +
                                 stencil.at[1][(j >> 1) & 1] * params.stride[2] +
                                 stencil.at[2][j & 1] * params.stride[3];
#pragma unroll
            for (int k = 0; k < kVector; ++k) {
                corner[j][k] = value_at<Value, Real>(values, from + k * params.stride[4]);
            }
        }
        const Real w[3] = {static_cast<Real>(stencil.weight[0]), static_cast<Real>(stencil.weight[1]),
                           static_cast<Real>(stencil.weight[2])};
#pragma unroll
        for (int k = 0; k < kVector; ++k) {
            Real y[2];
#pragma unroll
            for (int x = 0; x < 2; ++x) {
                const Real z0 = corner[4 * x][k] + w[2] * (corner[4 * x + 1][k] - corner[4 * x][k]);
                const Real z1 = corner[4 * x + 2][k] + w[2] * (corner[4 * x + 3][k] - corner[4 * x + 2][k]);
                y[x] = z0 + w[1] * (z1 - z0);
            }
            store_real(params.out, out_dtype, to + k, y[0] + w[0] * (y[1] - y[0]));
        }
    }
}

// Nearest of values that are moved as they are: integers.
template <PointSource kSource, typename Value>
__global__ __launch_bounds__(kThreads) void copy_kernel(const __grid_constant__ DevoxelizeParams params, Value empty) {
    using PointReal = typename PointReader<kSource>::Real;
    check_splits(params.points);
    PointReader<kSource> reader(params.points);
    const int64_t elements = params.points.points.total * params.columns;
    for (int64_t e = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; e < elements;
         e += static_cast<int64_t>(gridDim.x) * blockDim.x) {
        const int64_t i = e / params.columns;
        const int64_t column = e - i * params.columns;
        PointReal p[3];
        int32_t at[3];
        const bool counts = find_point<true>(&reader, params, i, p, at);
        Value value = empty;
        if (counts) {
            value = __ldg(static_cast<const Value*>(params.values) + reader.sample() * params.stride[0] +
                          at[0] * params.stride[1] + at[1] * params.stride[2] + at[2] * params.stride[3] +
                          column * params.stride[4]);
        }
        static_cast<Value*>(params.out)[e] = value;
    }
}

struct Launch {
    DevoxelizeParams params;
    const rc_devoxelize_call* call;
    PointSource source;
    unsigned blocks;
    unsigned threads;
    int vector;
};

template <PointSource kSource>
rc_status launch(const Launch& to) {
    const cudaStream_t stream = static_cast<cudaStream_t>(to.call->cuda_stream);
    const auto floating = [&](auto value) {
        using Value = decltype(value);
        const auto kernel = to.vector == 4 ? devoxelize_kernel<kSource, Value, 4>
                                           : devoxelize_kernel<kSource, Value, 1>;
        kernel<<<to.blocks, to.threads, 0, stream>>>(to.params, to.call->mode, to.call->out_dtype);
    };
    const auto whole = [&](auto value) {
        using Value = decltype(value);
        copy_kernel<kSource, Value>
            <<<to.blocks, to.threads, 0, stream>>>(to.params, static_cast<Value>(to.call->empty_value));
    };
    switch (to.call->value_dtype) {
    case RC_FLOAT16:
        floating(half{});
        break;
    case RC_BFLOAT16:
        floating(bfloat16{});
        break;
    case RC_FLOAT32:
        floating(float{});
        break;
    case RC_FLOAT64:
        floating(double{});
        break;
    case RC_INT16:
        whole(int16_t{});
        break;
    case RC_INT32:
        whole(int32_t{});
        break;
    case RC_INT64:
        whole(static_cast<long long>(0));
        break;
    case RC_INT8:
        whole(static_cast<signed char>(0));
        break;
    default:
        whole(uint8_t{});
    }
    return check_cuda(cudaGetLastError(), "launching the devoxelize kernel");
}

}  // namespace

Columns columns_of(const rc_devoxelize_call& call) {
    if (call.num_columns % 4 != 0) {
        return Columns::kOne;
    }
    const int64_t size = static_cast<int64_t>(rc_dtype_size(call.value_dtype));
    const int64_t align = size * 4 < 16 ? size * 4 : 16;
    bool packed = call.values_stride[4] == 1 &&
                  reinterpret_cast<uintptr_t>(call.values) % static_cast<size_t>(align) == 0;
    for (int d = 0; d < 4; ++d) {
        packed = packed && call.values_stride[d] * size % align == 0;
    }
    return packed ? Columns::kFourPacked : Columns::kFour;
}

PointSource devoxelize_params(const rc_devoxelize_call& call, rc_fault_report* note, DevoxelizeParams* params) {
    rc_voxel_call points{};
    points.cloud = call.cloud;
    points.batch = call.batch;
    points.bounds = call.bounds;
    points.mask = call.mask;
    points.mask_stride[0] = call.mask_stride[0];
    points.mask_stride[2] = call.mask_stride[1];
    points.poses = call.poses;
    points.poses_stride[0] = call.poses_stride;
    points.grid = call.grid;
    *params = DevoxelizeParams{};
    const PointSource source = voxel_params(points, note, &params->points);
    params->values = call.values;
    for (int d = 0; d < 5; ++d) {
        params->stride[d] = call.values_stride[d];
    }
    params->columns = static_cast<int32_t>(call.num_columns);
    params->empty_value = call.empty_value;
    params->out = call.out;
    return source;
}

}  // namespace rc

extern "C" rc_status rc_devoxelize_cuda(const rc_devoxelize_call* call) {
    rc_status status = rc_check_devoxelize_call(call);
    if (status != RC_OK) {
        return status;
    }
    if (!rc_cuda_available()) {
        return rc_fail(RC_NO_CUDA, "rc_devoxelize_cuda: %s", rc_cuda_why_not());
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
    rc::Launch to{};
    to.call = call;
    to.source = rc::devoxelize_params(*call, note, &to.params);
    if ((to.params.points.points.total == 0 && to.params.points.points.row_splits == nullptr) ||
        call->num_columns == 0) {
        return RC_OK;
    }
    const bool four = call->num_columns % 4 == 0 && call->values_stride[4] == 1;
    // The class of a call must not hang on the width that is chosen by it: so it counts the widest vectors.
    const int64_t total = to.params.points.points.total, work = total * (call->num_columns / (four ? 4 : 1));
    to.vector = four ? rc::launch_parameter(RC_TUNE_DEVOXELIZE_VECTOR, call->device, work) : 1;
    const int64_t groups = call->num_columns / to.vector;
    to.params.by_groups = rc::FastDivide::by(static_cast<uint32_t>(groups));
    to.threads = rc::launch_threads(RC_TUNE_DEVOXELIZE_THREADS, call->device, work);
    to.blocks = rc::striding_blocks(total * groups, to.threads,
                                    rc::launch_parameter(RC_TUNE_DEVOXELIZE_FILL, call->device, work),
                                    rc::multiprocessors(call->device));
    status = to.source == rc::PointSource::kCloud64 ? rc::launch<rc::PointSource::kCloud64>(to)
                                                    : rc::launch<rc::PointSource::kCloud>(to);
    if (status == RC_OK) {
        rc_count_launch(RC_KERNEL_DEVOXELIZE_CUDA);
    }
    return status;
}
