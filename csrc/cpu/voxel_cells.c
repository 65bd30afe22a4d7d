/* Coordinates and cells of a tile of points, compiled once for each instruction set as rows.c is (flags there).
 *
 * Division, floor and comparison are the same in vectors as one by one, so every build gives a point the same cell.
 */
#include "voxel_points.h"

#include "convert.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

#define REAL float
#define TYPED(name) name##_f32
#define FRAME rc_frame_f32
#define AXIS_CELL rc_axis_cell_f32
#define MEMBER f32
#include "voxel_cells.inc.h"

#define REAL double
#define TYPED(name) name##_f64
#define FRAME rc_frame_f64
#define AXIS_CELL rc_axis_cell_f64
#define MEMBER f64
#include "voxel_cells.inc.h"

/* ---- Point clouds ----------------------------------------------------------------------------------------------- */

/* Points that lie side by side get a loop of their own, which becomes vector code. */
#define LOAD_AXES(TYPE, MEMBER, GET)                                                                                   \
    do {                                                                                                               \
        const TYPE *restrict from = (const TYPE *)cloud->points + at;                                                  \
        if (step == 3 && axis == 1) {                                                                                  \
            for (int32_t i = 0; i < count; ++i) {                                                                      \
                tile->at.MEMBER[0][i] = GET(from[3 * i]);                                                              \
                tile->at.MEMBER[1][i] = GET(from[3 * i + 1]);                                                          \
                tile->at.MEMBER[2][i] = GET(from[3 * i + 2]);                                                          \
            }                                                                                                          \
        } else {                                                                                                       \
            for (int32_t i = 0; i < count; ++i) {                                                                      \
                for (int d = 0; d < 3; ++d) {                                                                          \
                    tile->at.MEMBER[d][i] = GET(from[i * step + d * axis]);                                            \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

static void load_cloud(const rc_voxel_input *in, int64_t b, int64_t first, int32_t count, rc_point_tile *tile) {
    const rc_point_cloud *cloud = in->cloud;
    const int64_t step = cloud->points_stride[1], axis = cloud->points_stride[2];
    const bool packed = cloud->row_splits != NULL;
    const int64_t n = packed ? cloud->row_splits[b] + first : first;
    const int64_t at = (packed ? 0 : b * cloud->points_stride[0]) + n * step;
    switch (cloud->dtype) {
    case RC_FLOAT16:
        LOAD_AXES(rc_f16, f32, rc_get_f16);
        break;
    case RC_BFLOAT16:
        LOAD_AXES(rc_bf16, f32, rc_get_bf16);
        break;
    case RC_FLOAT32:
        LOAD_AXES(float, f32, );
        break;
    default:
        LOAD_AXES(double, f64, );
        break;
    }
    if (in->mask) {
        const uint8_t *mask = in->mask + (packed ? 0 : b * in->mask_stride[0]) + n * in->mask_stride[2];
        for (int32_t i = 0; i < count; ++i) {
            tile->keep[i] = mask[i * in->mask_stride[2]] != 0;
        }
    } else {
        for (int32_t i = 0; i < count; ++i) {
            tile->keep[i] = 1;
        }
    }
    if (in->poses && in->wide) {
        transform_f64((const double *)in->poses + b * in->poses_stride[0], count, tile->at.f64);
    } else if (in->poses) {
        transform_f32((const float *)in->poses + b * in->poses_stride[0], count, tile->at.f32);
    }
}

/* ---- Depth images ----------------------------------------------------------------------------------------------- */

/* rc_unproject() of pixels of one row. A pixel without depth gets some number and is not kept. */
static void unproject(const float *depth, const rc_depth_images *images, const float *lens, int64_t row, int64_t column,
                      int32_t count, int32_t to, rc_point_tile *tile) {
    const float scale = (float)images->depth_scale;
    const float fx = lens[0], fy = lens[1], cx = lens[2], cy = lens[3];
    const float height = (float)row - cy;
    float *restrict x = tile->at.f32[0] + to, *restrict y = tile->at.f32[1] + to, *restrict z = tile->at.f32[2] + to;
    int32_t *restrict keep = tile->keep + to;
    const int32_t left = (int32_t)column;
    for (int32_t i = 0; i < count; ++i) {
        const float d = depth[i] * scale;
        x[i] = (((float)(left + i) - cx) * d) / fx;
        y[i] = (height * d) / fy;
        z[i] = d;
        keep[i] = (d > 0.0f) & (d <= 3.40282346638528859811704183484516925e+38f);
    }
}

/* Pixels of one camera, row by row. */
static void load_camera(const rc_voxel_input *in, int64_t b, int64_t camera, int64_t pixel, int32_t count, int32_t to,
                        rc_point_tile *tile) {
    const rc_depth_images *images = in->depth;
    const float *lens = images->intrinsics + b * images->intrinsics_stride[0] + camera * images->intrinsics_stride[1];
    const int64_t step = images->depth_stride[2];
    const int64_t at = b * images->depth_stride[0] + camera * images->depth_stride[1] + pixel * step;
    float depth[RC_POINT_TILE];
    if (images->dtype == RC_UINT16) {
        const uint16_t *from = (const uint16_t *)images->depth + at;
        for (int32_t i = 0; i < count; ++i) {
            depth[i] = (float)from[i * step];
        }
    } else {
        const float *from = (const float *)images->depth + at;
        for (int32_t i = 0; i < count; ++i) {
            depth[i] = from[i * step];
        }
    }
    for (int32_t done = 0; done < count;) {
        const int64_t row = (pixel + done) / images->width, column = (pixel + done) % images->width;
        const int64_t left = images->width - column;
        const int32_t some = count - done < left ? count - done : (int32_t)left;
        unproject(depth + done, images, lens, row, column, some, to + done, tile);
        done += some;
    }
    if (in->mask) {
        const uint8_t *mask = in->mask + b * in->mask_stride[0] + camera * in->mask_stride[1] +
                              pixel * in->mask_stride[2];
        for (int32_t i = 0; i < count; ++i) {
            tile->keep[to + i] &= mask[i * in->mask_stride[2]] != 0;
        }
    }
    if (in->poses) {
        const float *pose = (const float *)in->poses + b * in->poses_stride[0] + camera * in->poses_stride[1];
        float (*from)[RC_POINT_TILE] = (float (*)[RC_POINT_TILE])(tile->at.f32[0] + to);
        transform_f32(pose, count, from);
    }
}

static void load(const rc_voxel_input *in, int64_t b, int64_t first, int32_t count, rc_point_tile *tile) {
    if (in->cloud) {
        load_cloud(in, b, first, count, tile);
        return;
    }
    const int64_t pixels = in->depth->height * in->depth->width;
    for (int32_t done = 0; done < count;) {
        const int64_t camera = (first + done) / pixels, pixel = (first + done) % pixels;
        const int64_t left = pixels - pixel;
        const int32_t some = count - done < left ? count - done : (int32_t)left;
        load_camera(in, b, camera, pixel, some, done, tile);
        done += some;
    }
}

static void widen(const int32_t *cells, int64_t count, int64_t *inverse) {
    for (int64_t i = 0; i < count; ++i) {
        inverse[i] = cells[i];
    }
}

const rc_cell_table JOIN(rc_cells_, RC_ISA) = {
    .load = load,
    .locate_f32 = locate_f32,
    .locate_f64 = locate_f64,
    .widen = widen,
};
