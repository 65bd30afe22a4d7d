/* Cells and weights of points that read a grid. */
#include "devoxelize.h"

#define REAL float
#define TYPED(name) name##_f32
#define FRAME rc_frame_f32
#define CENTRES rc_centres_f32
#define MEMBER f32
#include "devoxelize_read.inc.h"

#define REAL double
#define TYPED(name) name##_f64
#define FRAME rc_frame_f64
#define CENTRES rc_centres_f64
#define MEMBER f64
#include "devoxelize_read.inc.h"

void rc_read_points(const rc_voxel_input *in, bool trilinear, int64_t b, int64_t first, int32_t count,
                    rc_read_tile *tile) {
    const rc_cell_table *table = rc_row_kernels()->cells;
    table->load(in, b, first, count, &tile->points);
    if (in->wide) {
        const rc_frame_f64 frame = rc_frame_of_f64(in, b);
        (void)table->locate_f64(in, &frame, &tile->points, count, &tile->cells);
        if (trilinear) {
            stencils_f64(in, &frame, count, tile);
        }
    } else {
        const rc_frame_f32 frame = rc_frame_of_f32(in, b);
        (void)table->locate_f32(in, &frame, &tile->points, count, &tile->cells);
        if (trilinear) {
            stencils_f32(in, &frame, count, tile);
        }
    }
}
