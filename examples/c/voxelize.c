/* A depth camera over a table, and the grid of what stands there.
 *
 * The camera hangs 0.8 m above the table and looks straight down; it sends uint16 millimetres and a grey value for each
 * pixel. One call turns a frame into a grid of 5 cm cells: which are occupied, how many pixels fell into each, and their mean
 * grey. A second frame is added to the occupancy of the first. Then the occupied cells alone, as a list.
 *
 * The README beside this file has the compile line.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "robocache.h"

enum {
    WIDTH = 160,
    HEIGHT = 120,
    PIXELS = WIDTH * HEIGHT,
    X = 16,
    Y = 12,
    Z = 5,
    CELLS = X * Y * Z,
    BIT_BYTES = X * Y * ((Z + 7) / 8),
    MAX_VOXELS = 256
};

typedef struct frame {
    uint16_t depth[PIXELS]; /* millimetres; 0: the sensor saw nothing */
    uint8_t grey[PIXELS];
} frame;

static void require(rc_status status) {
    if (status != RC_OK) {
        fprintf(stderr, "robocache: %s: %s\n", rc_status_name(status), rc_last_error());
        exit(1);
    }
}

/* A box of `height` millimetres on the table, in pixels as the camera sees it. */
static void put_box(frame *to, int left, int top, int width, int depth, int height, uint8_t grey) {
    for (int h = top; h < top + depth; ++h) {
        for (int w = left; w < left + width; ++w) {
            to->depth[h * WIDTH + w] = (uint16_t)(800 - height);
            to->grey[h * WIDTH + w] = grey;
        }
    }
}

static void record(frame *to, int box_left) {
    for (int p = 0; p < PIXELS; ++p) {
        to->depth[p] = 800;
        to->grey[p] = 100;
    }
    put_box(to, box_left, 30, 40, 30, 100, 200);
    for (int p = 0; p < PIXELS; p += 50) {
        to->depth[p] = 0; /* holes */
    }
}

/* Cell z is bit z % 8 of byte z / 8 of its row along z. */
static bool is_occupied(const uint8_t *bits, int x, int y, int z) {
    return (bits[(x * Y + y) * ((Z + 7) / 8) + z / 8] >> (z % 8) & 1) != 0;
}

/* The table from above: the highest occupied layer over each place, '.' where there is none. */
static void print_map(const uint8_t *bits) {
    for (int y = Y - 1; y >= 0; --y) {
        char row[X + 1];
        for (int x = 0; x < X; ++x) {
            row[x] = '.';
            for (int z = 0; z < Z; ++z) {
                row[x] = is_occupied(bits, x, y, z) ? (char)('0' + z) : row[x];
            }
        }
        row[X] = '\0';
        printf("  %s\n", row);
    }
}

int main(void) {
    static frame seen; /* large for a stack */
    static uint8_t bits[BIT_BYTES];
    static int32_t counts[CELLS];
    static float grey[CELLS];
    int64_t dropped[1];
    record(&seen, 20);

    const float intrinsics[4] = {160.0f, 160.0f, 79.5f, 59.5f}; /* fx, fy, cx, cy */
    /* From the camera (x right, y down, z forward) to the table (z up), row by row [R | t]. */
    const float pose[12] = {1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 0.8f};
    const rc_depth_images images = {
        .depth = seen.depth,
        .depth_stride = {PIXELS, PIXELS, 1}, /* sample, camera, pixel */
        .intrinsics = intrinsics,
        .intrinsics_stride = {4, 4},
        .num_cameras = 1,
        .height = HEIGHT,
        .width = WIDTH,
        .depth_scale = 0.001, /* metres */
        .dtype = RC_UINT16,
    };
    const rc_point_features features = {
        .values = seen.grey,
        .stride = {PIXELS, PIXELS, 1, 1},
        .num_columns = 1,
        .dtype = RC_UINT8,
    };
    const rc_voxel_output outputs[] = {
        {bits, RC_REDUCE_OCCUPANCY, RC_BITS},
        {counts, RC_REDUCE_COUNT, RC_INT32},
        {grey, RC_REDUCE_MEAN, RC_FLOAT32},
    };
    rc_voxel_call call = {
        .struct_size = sizeof call,
        .bounds = RC_BOUNDS_DROP,
        .depth = &images,
        .batch = 1,
        .poses = pose,
        .poses_stride = {12, 12},
        .features = &features,
        .grid =
            {
                .size = {X, Y, Z},
                .voxel_size = {0.05, 0.05, 0.05},
                .grid_min = {-0.4, -0.3, -0.025},
            },
        .empty_value = -1.0,
        .outputs = outputs,
        .num_outputs = 3,
        .dropped = dropped,
    };
    require(rc_voxelize_cpu(&call));

    int64_t points = 0, occupied = 0;
    for (int cell = 0; cell < CELLS; ++cell) {
        points += counts[cell];
        occupied += counts[cell] > 0;
    }
    printf("RoboCache %s, %s\n", rc_version(), rc_cpu_isa());
    printf("%d pixels: %" PRId64 " in %" PRId64 " cells, %" PRId64 " outside\n", PIXELS, points, occupied, dropped[0]);
    print_map(bits);
    const int on_box = (5 * Y + 7) * Z + 2, empty = (5 * Y + 7) * Z + 4;
    printf("cell (5, 7, 2): %d pixels of mean grey %g; cell (5, 7, 4): %d, %g\n", counts[on_box], (double)grey[on_box],
           counts[empty], (double)grey[empty]);

    /* The box moves. Occupancy is added to what is there; the other outputs are not wanted. */
    record(&seen, 90);
    call.num_outputs = 1;
    call.accumulate = true;
    require(rc_voxelize_cpu(&call));
    printf("\nboth frames:\n");
    print_map(bits);

    /* The occupied cells of the second frame, in order of their number. */
    static int32_t coords[MAX_VOXELS][3], filled[MAX_VOXELS];
    const rc_voxel_output sparse_output = {filled, RC_REDUCE_COUNT, RC_INT32};
    int64_t num_voxels[1];
    call.accumulate = false;
    call.outputs = &sparse_output;
    const rc_sparse_call sparse = {
        .struct_size = sizeof sparse,
        .order = RC_ORDER_SORTED,
        .call = &call,
        .max_voxels = MAX_VOXELS,
        .coords = &coords[0][0],
        .num_voxels = num_voxels,
    };
    require(rc_voxelize_sparse_cpu(&sparse));
    const int64_t kept = num_voxels[0] < MAX_VOXELS ? num_voxels[0] : MAX_VOXELS;
    printf("\n%" PRId64 " voxels; the last is (%d, %d, %d) of %d pixels\n", num_voxels[0], coords[kept - 1][0],
           coords[kept - 1][1], coords[kept - 1][2], filled[kept - 1]);

    /* What mistakes look like: a point outside where none may be is found before anything is written. */
    memset(filled, 0, sizeof filled);
    seen.depth[PIXELS - 1] = 2000;
    call.bounds = RC_BOUNDS_RAISE;
    const rc_status outside = rc_voxelize_sparse_cpu(&sparse);
    printf("\nA pixel below the table: %s\n  %s\n", rc_status_name(outside), rc_last_error());
    call.grid.size[2] = 0;
    const rc_status wrong = rc_voxelize_sparse_cpu(&sparse);
    printf("A grid without height: %s\n  %s\n", rc_status_name(wrong), rc_last_error());
    return outside == RC_BAD_DATA && wrong == RC_INVALID_ARGUMENT && filled[0] == 0 ? 0 : 1;
}
