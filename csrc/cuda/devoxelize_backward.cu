// Gradients of devoxelize by the grid, with atomics, and by the points, a thread each.
#include "devoxelize.cuh"

namespace rc {

namespace {

constexpr int kThreads = 256;  // of a block at most

// kVector columns of a gradient, which lie side by side; kVector 4: in one load where it is float32.
template <int kVector, typename Real>
__device__ __forceinline__ void load_gradient(const void* grad, int32_t dtype, bool packed, int64_t at,
                                              Real g[kVector]) {
    if (kVector == 4 && packed) {
        const auto pack = *reinterpret_cast<const Pack<float, 4>*>(static_cast<const float*>(grad) + at);
#pragma unroll
        for (int k = 0; k < kVector; ++k) {
            g[k] = static_cast<Real>(pack.at[k & 3]);
        }
        return;
    }
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
        g[k] = load_real<Real>(grad, dtype, at + k);
    }
}

// Real: of the gradient of values; the corners' weights are products of w and 1 - w.
template <PointSource kSource, typename Real>
__global__ __launch_bounds__(kThreads) void scatter_grad_kernel(const __grid_constant__ DevoxelizeParams params,
                                                                int32_t mode, int32_t grad_dtype) {
    using PointReal = typename PointReader<kSource>::Real;
    const VoxelGridParams& grid = params.points.grid;
    PointReader<kSource> reader(params.points);
    const int64_t elements = params.points.points.total * params.columns;
    Real* values = static_cast<Real*>(params.grad_values);
    for (int64_t e = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; e < elements;
         e += static_cast<int64_t>(gridDim.x) * blockDim.x) {
        const int64_t i = e / params.columns;
        const int64_t column = e - i * params.columns;
        PointReal p[3];
        int32_t at[3];
        const bool counts = find_point<false>(&reader, params, i, p, at);
        if (!counts) {
            continue;
        }
        const Real g = load_real<Real>(params.grad_out, grad_dtype, e);
        const auto element = [&](int32_t x, int32_t y, int32_t z) {
            return values +
                   (((reader.sample() * grid.size[0] + x) * grid.size[1] + y) * grid.size[2] + z) * params.columns +
                   column;
        };
        if (mode == RC_DEVOXELIZE_NEAREST) {
            atomicAdd(element(at[0], at[1], at[2]), g);
            continue;
        }
        Stencil<PointReal> stencil;
        stencil_of(reader.frame(), p, grid.bounds == RC_BOUNDS_CLAMP, &stencil);
        Real share[3][2];
#pragma unroll
        for (int d = 0; d < 3; ++d) {
            share[d][1] = static_cast<Real>(stencil.weight[d]);
            share[d][0] = static_cast<Real>(1) - share[d][1];
        }
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            const int x = j >> 2, y = (j >> 1) & 1, z = j & 1;
            atomicAdd(element(stencil.at[0][x], stencil.at[1][y], stencil.at[2][z]),
                      g * (share[0][x] * share[1][y] * share[2][z]));
        }
    }
}

template <typename Real>
__device__ __forceinline__ Real mix(Real a, Real b, Real w) {
    return a + w * (b - a);
}

// Column k of the eight cells around a point.
template <typename Real, int kVector>
__device__ __forceinline__ void add_slope(const Real (&v)[8][kVector], int k, const double w[3], double g,
                                          double slope[3]) {
    double y[2], by_y[2], by_z[2];
#pragma unroll
    for (int x = 0; x < 2; ++x) {
        const double a = v[4 * x][k], b = v[4 * x + 1][k], c = v[4 * x + 2][k], d = v[4 * x + 3][k];
        const double z0 = mix(a, b, w[2]);
        const double z1 = mix(c, d, w[2]);
        y[x] = mix(z0, z1, w[1]);
        by_y[x] = z1 - z0;
        by_z[x] = mix(b - a, d - c, w[1]);
    }
    slope[0] += g * (y[1] - y[0]);
    slope[1] += g * mix(by_y[0], by_y[1], w[0]);
    slope[2] += g * mix(by_z[0], by_z[1], w[0]);
}

// One thread, one point; kVector columns at once, added up from left to right.
template <PointSource kSource, typename Value, int kVector, bool kPacked>
__global__ __launch_bounds__(kThreads) void point_grad_kernel(const __grid_constant__ DevoxelizeParams params,
                                                              int32_t mode, int32_t grad_dtype, bool packed_grad) {
    using PointReal = typename PointReader<kSource>::Real;
    const VoxelGridParams& grid = params.points.grid;
    PointReader<kSource> reader(params.points);
    PointReal* out = static_cast<PointReal*>(params.grad_points);
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < params.points.points.total;
         i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
        PointReal p[3];
        int32_t at[3];
        const bool counts = mode == RC_DEVOXELIZE_TRILINEAR && find_point<false>(&reader, params, i, p, at);
        double slope[3] = {0.0, 0.0, 0.0};
        if (counts) {
            Stencil<PointReal> stencil;
            stencil_of(reader.frame(), p, grid.bounds == RC_BOUNDS_CLAMP, &stencil);
            const double w[3] = {stencil.weight[0], stencil.weight[1], stencil.weight[2]};
            const Value* values = static_cast<const Value*>(params.values);
            for (int32_t c = 0; c < params.columns; c += kVector) {
                double g[kVector];
                load_gradient<kVector>(params.grad_out, grad_dtype, packed_grad, i * params.columns + c, g);
                compute_t<Value> v[8][kVector];
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    load_cell<kVector, kPacked>(values,
                                                reader.sample() * params.stride[0] +
                                                    stencil.at[0][j >> 2] * params.stride[1] +
                                                    stencil.at[1][(j >> 1) & 1] * params.stride[2] +
                                                    stencil.at[2][j & 1] * params.stride[3] + c * params.stride[4],
                                                params.stride[4], v[j]);
                }
#pragma unroll
                for (int k = 0; k < kVector; ++k) {
                    add_slope(v, k, w, g[k], slope);
                }
            }
            for (int d = 0; d < 3; ++d) {
                slope[d] = stencil.clamped[d] ? 0.0 : slope[d] / reader.frame().exact.voxel[d];
            }
            if (params.points.points.poses != nullptr) {
                const PointReal* pose = static_cast<const PointReal*>(params.points.points.poses) +
                                        reader.sample() * params.points.points.pose_stride[0];
                double turned[3];
                for (int d = 0; d < 3; ++d) {
                    turned[d] = pose[d] * slope[0] + pose[4 + d] * slope[1] + pose[8 + d] * slope[2];
                }
                for (int d = 0; d < 3; ++d) {
                    slope[d] = turned[d];
                }
            }
        }
        for (int d = 0; d < 3; ++d) {
            out[3 * i + d] = static_cast<PointReal>(slope[d]);
        }
    }
}

template <PointSource kSource>
rc_status launch_point_grad(const rc_devoxelize_grad_call& call, const DevoxelizeParams& params, unsigned blocks,
                            unsigned threads, Columns columns, bool packed) {
    const rc_devoxelize_call& forward = *call.forward;
    const auto launch = [&](auto value) {
        using Value = decltype(value);
        const auto kernel = columns == Columns::kFourPacked ? point_grad_kernel<kSource, Value, 4, true>
                            : columns == Columns::kFour     ? point_grad_kernel<kSource, Value, 4, false>
                                                            : point_grad_kernel<kSource, Value, 1, false>;
        kernel<<<blocks, threads, 0, static_cast<cudaStream_t>(forward.cuda_stream)>>>(params, forward.mode,
                                                                                       call.grad_dtype, packed);
    };
    switch (forward.value_dtype) {
    case RC_FLOAT16:
        launch(half{});
        break;
    case RC_BFLOAT16:
        launch(bfloat16{});
        break;
    case RC_FLOAT32:
        launch(float{});
        break;
    default:
        launch(double{});
    }
    return check_cuda(cudaGetLastError(), "launching the point gradient kernel");
}

template <PointSource kSource>
rc_status launch(const rc_devoxelize_grad_call& call, const DevoxelizeParams& params) {
    const rc_devoxelize_call& forward = *call.forward;
    const cudaStream_t stream = static_cast<cudaStream_t>(forward.cuda_stream);
    const int64_t total = params.points.points.total;
    const unsigned threads = launch_threads(RC_TUNE_DEVOXELIZE_BACKWARD_THREADS, forward.device, total);
    const int32_t fill = launch_parameter(RC_TUNE_DEVOXELIZE_BACKWARD_FILL, forward.device, total);
    const auto blocks = [&](int64_t work) {
        return striding_blocks(work, threads, fill, multiprocessors(forward.device));
    };
    rc_status status = RC_OK;
    const bool ones = launch_parameter(RC_TUNE_DEVOXELIZE_BACKWARD_VECTOR, forward.device, total) == 1;
    const Columns columns = ones ? Columns::kOne : columns_of(forward);
    const bool packed = columns != Columns::kOne && call.grad_dtype == RC_FLOAT32 &&
                        reinterpret_cast<uintptr_t>(call.grad_out) % 16 == 0;
    if (call.grad_values != nullptr) {
        const auto kernel = forward.value_dtype == RC_FLOAT64 ? scatter_grad_kernel<kSource, double>
                                                              : scatter_grad_kernel<kSource, float>;
        kernel<<<blocks(total * params.columns), threads, 0, stream>>>(params, forward.mode, call.grad_dtype);
        status = check_cuda(cudaGetLastError(), "launching the devoxelize backward kernel");
    }
    if (status == RC_OK && call.grad_points != nullptr) {
        status = launch_point_grad<kSource>(call, params, blocks(total), threads, columns, packed);
    }
    return status;
}

}  // namespace

}  // namespace rc

extern "C" rc_status rc_devoxelize_backward_cuda(const rc_devoxelize_grad_call* call) {
    rc_status status = rc_check_devoxelize_grad_call(call);
    if (status != RC_OK) {
        return status;
    }
    if (!rc_cuda_available()) {
        return rc_fail(RC_NO_CUDA, "rc_devoxelize_backward_cuda: %s", rc_cuda_why_not());
    }
    const rc_devoxelize_call& forward = *call->forward;
    const rc::DeviceScope scope(forward.device);
    if (scope.status() != RC_OK) {
        return scope.status();
    }
    rc_fault_report* note = nullptr;
    status = rc::fault_note(forward.device, &note);
    if (status != RC_OK) {
        return status;
    }
    rc::DevoxelizeParams params;
    const rc::PointSource source = rc::devoxelize_params(forward, note, &params);
    params.grad_out = call->grad_out;
    params.grad_values = call->grad_values;
    params.grad_points = call->grad_points;
    if (params.points.points.total == 0) {
        return RC_OK;
    }
    status = source == rc::PointSource::kCloud64 ? rc::launch<rc::PointSource::kCloud64>(*call, params)
                                                 : rc::launch<rc::PointSource::kCloud>(*call, params);
    if (status == RC_OK) {
        rc_count_launch(RC_KERNEL_DEVOXELIZE_BACKWARD_CUDA);
    }
    return status;
}
