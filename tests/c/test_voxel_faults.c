/* Wrong voxelize calls and wrong data: the status, the words, and outputs left as they were. */
#include "support.h"

enum { B = 2, N = 5, C = 2, CELLS = 24 };

typedef struct fixture {
    float points[B * N][3];
    float values[B * N][C];
    float voxel_sizes[B][3];
    float grid_mins[B][3];
    int64_t splits[B + 1];
    rc_point_cloud cloud;
    rc_depth_images depth;
    uint16_t pixels[B * 6];
    float lenses[B][4];
    rc_point_features features;
    int32_t counts[B * CELLS];
    float means[B * CELLS * C];
    int64_t inverse[B * N];
    int32_t coords[B * 4 * 3];
    int64_t num_voxels[B];
    rc_voxel_output outputs[2];
    rc_voxel_call call;
    rc_sparse_call sparse;
    float out[B * N * C];
    rc_devoxelize_call devoxelize;
} fixture;

static void set_up(fixture *f) {
    memset(f, 0, sizeof *f);
    for (int i = 0; i < B * N; ++i) {
        f->points[i][0] = f->points[i][1] = f->points[i][2] = 0.5f;
    }
    for (int k = 0; k < B * 3; ++k) {
        f->voxel_sizes[k / 3][k % 3] = 1.0f;
    }
    for (int k = 0; k < B * 4; ++k) {
        f->lenses[k / 4][k % 4] = 1.0f;
    }
    f->splits[1] = 4;
    f->splits[2] = B * N;
    for (int k = 0; k < B * CELLS; ++k) {
        f->counts[k] = -77;
    }
    f->cloud = (rc_point_cloud){
        .points = f->points, .points_stride = {3 * N, 3, 1}, .num_points = N, .dtype = RC_FLOAT32};
    f->depth = (rc_depth_images){.depth = f->pixels,
                                 .depth_stride = {6, 6, 1},
                                 .intrinsics = f->lenses[0],
                                 .intrinsics_stride = {4, 4},
                                 .num_cameras = 1,
                                 .height = 2,
                                 .width = 3,
                                 .depth_scale = 0.001,
                                 .dtype = RC_UINT16};
    f->features = (rc_point_features){
        .values = f->values, .stride = {N * C, 0, C, 1}, .num_columns = C, .dtype = RC_FLOAT32};
    f->outputs[0] = (rc_voxel_output){f->counts, RC_REDUCE_COUNT, RC_INT32};
    f->outputs[1] = (rc_voxel_output){f->means, RC_REDUCE_MEAN, RC_FLOAT32};
    f->call = (rc_voxel_call){
        .struct_size = sizeof f->call,
        .cloud = &f->cloud,
        .batch = B,
        .features = &f->features,
        .grid = {.size = {2, 3, 4}, .voxel_size = {1, 1, 1}, .voxel_sizes_stride = 3, .grid_mins_stride = 3},
        .outputs = f->outputs,
        .num_outputs = 2,
        .inverse = f->inverse};
    f->sparse = (rc_sparse_call){.struct_size = sizeof f->sparse,
                                 .call = &f->call,
                                 .max_voxels = 4,
                                 .coords = f->coords,
                                 .num_voxels = f->num_voxels};
    f->devoxelize = (rc_devoxelize_call){.struct_size = sizeof f->devoxelize,
                                         .mode = RC_DEVOXELIZE_TRILINEAR,
                                         .value_dtype = RC_FLOAT32,
                                         .cloud = &f->cloud,
                                         .batch = B,
                                         .grid = f->call.grid,
                                         .values = f->means,
                                         .values_stride = {CELLS * C, 12 * C, 4 * C, C, 1},
                                         .num_columns = C,
                                         .out = f->out,
                                         .out_dtype = RC_FLOAT32};
}

static void expect(const fixture *f, rc_status got, rc_status expected, const char *words, int line) {
    CHECK(got == expected, "line %d: got %s (%s), expected %s", line, rc_status_name(got), rc_last_error(),
          rc_status_name(expected));
    if (got != RC_OK) {
        CHECK(strstr(rc_last_error(), words), "line %d: \"%s\" lacks \"%s\"", line, rc_last_error(), words);
        for (int k = 0; k < B * CELLS; ++k) {
            CHECK(f->counts[k] == -77, "line %d: output %d was written", line, k);
        }
    }
}

#define RUN(run, status, words, ...)                                                                                   \
    do {                                                                                                               \
        fixture f;                                                                                                     \
        set_up(&f);                                                                                                    \
        __VA_ARGS__;                                                                                                   \
        expect(&f, run, status, words, __LINE__);                                                                      \
    } while (0)
#define DENSE(status, words, ...) RUN(rc_voxelize_cpu(&f.call), status, words, __VA_ARGS__)
#define SPARSE(status, words, ...) RUN(rc_voxelize_sparse_cpu(&f.sparse), status, words, __VA_ARGS__)
#define READ(status, words, ...) RUN(rc_devoxelize_cpu(&f.devoxelize), status, words, __VA_ARGS__)
#define WRONG RC_INVALID_ARGUMENT

static void test_dense(void) {
    const double nan = (double)NAN, infinity = (double)INFINITY;
    DENSE(RC_OK, "", (void)0);
    DENSE(RC_OK, "", f.call.cloud = NULL, f.call.depth = &f.depth, f.call.features = NULL, f.call.num_outputs = 1,
          f.call.inverse = NULL);
    CHECK(rc_voxelize_cpu(NULL) == WRONG, "NULL");
    DENSE(WRONG, "struct_size", f.call.struct_size = 1);
    DENSE(WRONG, "reserved", f.call.reserved = 1);
    DENSE(WRONG, "bounds", f.call.bounds = 3);
    DENSE(WRONG, "cloud", f.call.cloud = NULL);
    DENSE(WRONG, "cloud", f.call.depth = &f.depth);
    DENSE(WRONG, "batch", f.call.batch = -1);
    DENSE(WRONG, "points", f.cloud.dtype = RC_INT32);
    DENSE(WRONG, "points", f.cloud.points = NULL);
    DENSE(WRONG, "points", f.cloud.num_points = -1);
    DENSE(RC_UNSUPPORTED, "int64", f.cloud.num_points = INT64_MAX / 2);
    DENSE(WRONG, "features", f.call.features = NULL);
    DENSE(WRONG, "features", f.features.values = NULL);
    DENSE(WRONG, "features", f.features.dtype = RC_INT64);
    DENSE(WRONG, "grid_size", f.call.grid.size[1] = 0);
    DENSE(WRONG, "grid_size", f.call.grid.size[2] = RC_MAX_GRID_SIZE + 1);
    DENSE(WRONG, "2^62", f.call.grid.size[0] = f.call.grid.size[1] = f.call.grid.size[2] = RC_MAX_GRID_SIZE);
    DENSE(WRONG, "bytes", f.call.grid.size[0] = f.call.grid.size[1] = 1 << 20, f.call.grid.size[2] = 1 << 20,
          f.call.outputs = f.outputs, f.features.num_columns = 64);
    DENSE(WRONG, "voxel_size", f.call.grid.voxel_size[1] = 0.0);
    DENSE(WRONG, "voxel_size", f.call.grid.voxel_size[2] = nan);
    DENSE(WRONG, "voxel_size", f.call.grid.voxel_size[0] = 1e-60);
    DENSE(WRONG, "grid_min", f.call.grid.grid_min[0] = infinity);
    DENSE(WRONG, "num_outputs", f.call.num_outputs = 9);
    DENSE(WRONG, "reduce", f.outputs[0].reduce = 8);
    DENSE(WRONG, "once", f.outputs[0].reduce = RC_REDUCE_MEAN, f.outputs[0].dtype = RC_FLOAT32);
    DENSE(WRONG, "floating", f.outputs[1].dtype = RC_INT32);
    DENSE(WRONG, "bits", f.outputs[0].dtype = RC_BITS);
    DENSE(WRONG, "uint16", f.outputs[0].reduce = RC_REDUCE_OCCUPANCY, f.outputs[0].dtype = RC_UINT16);
    DENSE(WRONG, "int32 or int64", f.outputs[1].reduce = RC_REDUCE_ARGMAX);
    DENSE(WRONG, "data", f.outputs[1].data = NULL);
    DENSE(WRONG, "accumulate", f.call.accumulate = true);
    DENSE(WRONG, "depth", f.call.cloud = NULL, f.call.depth = &f.depth, f.depth.dtype = RC_INT16);
    DENSE(WRONG, "intrinsics", f.call.cloud = NULL, f.call.depth = &f.depth, f.depth.intrinsics = NULL);
    DENSE(WRONG, "depth_scale", f.call.cloud = NULL, f.call.depth = &f.depth, f.depth.depth_scale = nan);
}

static void test_others(void) {
    SPARSE(RC_OK, "", (void)0);
    CHECK(rc_voxelize_sparse_cpu(NULL) == WRONG, "NULL");
    SPARSE(WRONG, "struct_size", f.sparse.struct_size = 1);
    SPARSE(WRONG, "call", f.sparse.call = NULL);
    SPARSE(WRONG, "order", f.sparse.order = 2);
    SPARSE(WRONG, "max_voxels", f.sparse.max_voxels = -1);
    SPARSE(WRONG, "max_points", f.sparse.max_points = -1);
    SPARSE(WRONG, "gathered", f.sparse.max_points = 2, f.sparse.gathered_dtype = RC_FLOAT32);
    SPARSE(WRONG, "gathered_dtype", f.sparse.max_points = 2, f.sparse.gathered_dtype = RC_INT8);
    SPARSE(WRONG, "bytes", f.sparse.max_points = INT64_MAX / 4, f.sparse.gathered_dtype = RC_FLOAT32);
    SPARSE(WRONG, "coords", f.sparse.coords = NULL);
    SPARSE(WRONG, "num_voxels", f.sparse.num_voxels = NULL);
    SPARSE(WRONG, "occupancy", f.outputs[0].reduce = RC_REDUCE_OCCUPANCY);
    SPARSE(WRONG, "channels_first", f.call.channels_first = true);
    READ(RC_OK, "", (void)0);
    CHECK(rc_devoxelize_cpu(NULL) == WRONG, "NULL");
    READ(WRONG, "mode", f.devoxelize.mode = 2);
    READ(WRONG, "trilinear", f.devoxelize.value_dtype = RC_INT32);
    READ(WRONG, "out_dtype", f.devoxelize.out_dtype = RC_INT32);
    READ(WRONG, "out", f.devoxelize.out = NULL);
    READ(WRONG, "grid", f.devoxelize.values = NULL);
    READ(WRONG, "cloud", f.devoxelize.cloud = NULL);
}

/* The same data fault in each call; and where it stands. */
#define FAULT(what, at_row, at_position, words, ...)                                                                   \
    do {                                                                                                               \
        for (int call = 0; call < 3; ++call) {                                                                         \
            fixture f;                                                                                                 \
            set_up(&f);                                                                                                \
            __VA_ARGS__;                                                                                               \
            f.devoxelize.bounds = f.call.bounds;                                                                       \
            f.devoxelize.grid = f.call.grid;                                                                           \
            const rc_status got = call == 0   ? rc_voxelize_cpu(&f.call)                                               \
                                  : call == 1 ? rc_voxelize_sparse_cpu(&f.sparse)                                      \
                                              : rc_devoxelize_cpu(&f.devoxelize);                                      \
            expect(&f, got, RC_BAD_DATA, words, __LINE__);                                                             \
            rc_fault_report report;                                                                                    \
            rc_last_fault(&report);                                                                                    \
            CHECK(report.fault == (what) && report.row == (at_row) && report.position == (at_position),                \
                  "line %d: fault %d, row %" PRId64 ", position %" PRId64, __LINE__, report.fault, report.row,         \
                  report.position);                                                                                    \
        }                                                                                                              \
    } while (0)

static void test_data(void) {
    FAULT(RC_FAULT_POINT_OUTSIDE, 1, 2, "raise", f.call.bounds = RC_BOUNDS_RAISE, f.points[N + 2][1] = 3.0f);
    FAULT(RC_FAULT_POINT_OUTSIDE, 0, 0, "NaN", f.call.bounds = RC_BOUNDS_RAISE, f.points[0][2] = NAN);
    FAULT(RC_FAULT_VOXEL_SIZE, 1, 2, "voxel_size", f.call.grid.voxel_sizes = f.voxel_sizes, f.voxel_sizes[1][2] = 0.0f);
    FAULT(RC_FAULT_GRID_MIN, 0, 1, "grid_min", f.call.grid.grid_mins = f.grid_mins, f.grid_mins[0][1] = -INFINITY);
#define PACKED f.cloud.num_points = B * N, f.cloud.row_splits = f.splits
    FAULT(RC_FAULT_POINT_SPLITS, 0, 0, "row_splits", PACKED, f.splits[0] = -1);
    FAULT(RC_FAULT_POINT_SPLITS, 1, 0, "row_splits", PACKED, f.splits[2] = 3);
    FAULT(RC_FAULT_POINT_SPLITS, 1, 0, "row_splits", PACKED, f.splits[2] = B * N + 1);
    FAULT(RC_FAULT_POINT_SPLITS, 0, 0, "row_splits", PACKED, f.splits[1] = INT64_MIN);
}

/* The gradient's rows come from the caller: what is out of range reads nothing. */
static void test_gradient(void) {
    const int64_t inverse[3] = {5, -9, INT64_MAX};
    int64_t splits[2] = {0, 4};
    float grad[4] = {1, 1, 1, 1}, out[3];
    const rc_voxel_grad one = {.grad = grad, .reduce = RC_REDUCE_SUM, .dtype = RC_FLOAT32};
    rc_voxel_grad_call call = {.struct_size = sizeof call,
                               .num_grads = 1,
                               .grads = &one,
                               .batch = 1,
                               .num_points = 3,
                               .num_rows = 4,
                               .num_columns = 1,
                               .inverse = inverse,
                               .grad_features = out,
                               .grad_dtype = RC_FLOAT32};
    CHECK(rc_voxelize_backward_cpu(&call) == RC_OK, "%s", rc_last_error());
    CHECK(out[0] == 0.0f && out[1] == 0.0f && out[2] == 0.0f, "rows out of range");
    call.row_splits = splits;
    CHECK(rc_voxelize_backward_cpu(&call) == RC_BAD_DATA && strstr(rc_last_error(), "row_splits"), "%s",
          rc_last_error());
    call.row_splits = NULL;
    call.num_grads = 5;
    CHECK(rc_voxelize_backward_cpu(&call) == WRONG && strstr(rc_last_error(), "num_grads"), "%s", rc_last_error());
    call.num_grads = 1;
    call.inverse = NULL;
    CHECK(rc_voxelize_backward_cpu(&call) == WRONG && strstr(rc_last_error(), "inverse"), "%s", rc_last_error());
}

int main(void) {
    test_dense();
    test_others();
    test_data();
    test_gradient();
    printf("wrong voxelize calls and wrong data are refused\n");
    return 0;
}
