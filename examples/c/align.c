/* One training row per camera frame, from sensors that each run by their own clock.
 *
 * A robot logs an IMU at 200 Hz (angular rate and an orientation quaternion) and its joints at 50 Hz (two angles and a
 * gripper flag), all stamped in int64 nanoseconds since 1970. The joint bus drops out for a while. A camera takes
 * frames at 30 Hz; for each frame we want what the sensors read at that moment, and to know where that cannot be said.
 *
 * The README beside this file has the compile line.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "robocache.h"

enum {
    IMU_SAMPLES = 100,
    IMU_COLUMNS = 7, /* wx, wy, wz (rad/s); qx, qy, qz, qw */
    JOINT_SAMPLES = 20,
    JOINT_COLUMNS = 3, /* elbow, wrist (rad); gripper closed */
    FRAMES = 15,
    ROW_COLUMNS = IMU_COLUMNS + JOINT_COLUMNS,
    STREAMS = 2
};

static const int64_t START = 1767225600000000000; /* ns since 1970 */
static const int64_t MS = 1000000;

static void require(rc_status status) {
    if (status != RC_OK) {
        fprintf(stderr, "robocache: %s: %s\n", rc_status_name(status), rc_last_error());
        exit(1);
    }
}

/* The robot turns about z at 1 rad/s. */
static void record_imu(int64_t times[IMU_SAMPLES], float values[IMU_SAMPLES][IMU_COLUMNS]) {
    for (int i = 0; i < IMU_SAMPLES; ++i) {
        const double seconds = 0.005 * i;
        times[i] = START + 5 * MS * i;
        for (int c = 0; c < IMU_COLUMNS; ++c) {
            values[i][c] = 0.0f;
        }
        values[i][2] = 1.0f;
        values[i][5] = (float)sin(0.5 * seconds);
        values[i][6] = (float)cos(0.5 * seconds);
    }
}

/* The elbow swings, the wrist passes from +pi to -pi, the gripper closes; nothing arrives between 160 and 260 ms. */
static void record_joints(int64_t times[JOINT_SAMPLES], float values[JOINT_SAMPLES][JOINT_COLUMNS]) {
    for (int i = 0; i < JOINT_SAMPLES; ++i) {
        const int64_t ms = i <= 8 ? 20 * i : 20 * i + 80;
        const double seconds = 0.001 * (double)ms;
        times[i] = START + ms * MS;
        values[i][0] = (float)sin(4.0 * seconds);
        values[i][1] = (float)remainder(2.8 + 2.0 * seconds, 6.283185307179586);
        values[i][2] = ms < 300 ? 0.0f : 1.0f;
    }
}

int main(void) {
    int64_t imu_times[IMU_SAMPLES], joint_times[JOINT_SAMPLES], frames[FRAMES];
    float imu[IMU_SAMPLES][IMU_COLUMNS], joints[JOINT_SAMPLES][JOINT_COLUMNS];
    float rows[FRAMES][ROW_COLUMNS];
    uint8_t valid[FRAMES][STREAMS];
    record_imu(imu_times, imu);
    record_joints(joint_times, joints);
    for (int f = 0; f < FRAMES; ++f) {
        frames[f] = START + 10 * MS + f * 100 * MS / 3;
    }

    /* How each column is carried from sample to sample. */
    const rc_column_group imu_groups[] = {{0, 3, RC_LINEAR}, {3, 7, RC_SLERP_XYZW}};
    const rc_column_group joint_groups[] = {{0, 1, RC_PCHIP}, {1, 2, RC_ANGLE}, {2, 3, RC_PREVIOUS}};

    rc_stream streams[STREAMS] = {
        {
            .values = imu,
            .times = imu_times,
            .values_stride = {0, IMU_COLUMNS, 1}, /* a batch of one: its stride does not matter */
            .times_stride = {0, 1},
            .num_sequences = 1,
            .num_samples = IMU_SAMPLES,
            .num_columns = IMU_COLUMNS,
            .value_dtype = RC_FLOAT32,
            .num_groups = 2,
            .groups = imu_groups,
            .max_gap = INFINITY, /* no limit */
            .tolerance = -1.0,   /* none */
        },
        {
            .values = joints,
            .times = joint_times,
            .values_stride = {0, JOINT_COLUMNS, 1},
            .times_stride = {0, 1},
            .num_sequences = 1,
            .num_samples = JOINT_SAMPLES,
            .num_columns = JOINT_COLUMNS,
            .value_dtype = RC_FLOAT32,
            .num_groups = 3,
            .groups = joint_groups,
            .max_gap = 40e6, /* ns: do not trust what lies between samples further apart than two periods */
            .tolerance = -1.0,
            .time_offset = 2e6, /* ns: stamps are 2 ms late */
        },
    };
    rc_align_call call = {
        .struct_size = sizeof call,
        .time_dtype = RC_INT64,
        .out_dtype = RC_FLOAT32,
        .num_streams = STREAMS,
        .streams = streams,
        .targets = frames,
        .targets_stride = {0, 1},
        .batch = 1,
        .num_targets = FRAMES,
        .out = rows,
        .out_stride = {0, ROW_COLUMNS, 1},
        .valid = &valid[0][0],
    };
    require(rc_align_cpu(&call));

    printf("RoboCache %s, %s\n", rc_version(), rc_cpu_isa());
    printf("frame     ms      qz      qw   elbow   wrist  closed  imu joints\n");
    for (int f = 0; f < FRAMES; ++f) {
        const float *row = rows[f];
        printf("%5d %6.1f %7.4f %7.4f %7.4f %7.4f %7.0f  %3s %6s\n", f, (double)(frames[f] - START) / 1e6,
               (double)row[5], (double)row[6], (double)row[7], (double)row[8], (double)row[9],
               valid[f][0] ? "yes" : "no", valid[f][1] ? "yes" : "no");
    }

    /* What a mistake looks like: clocks that run backwards are found before anything is written. */
    joint_times[5] = joint_times[3];
    const rc_status status = rc_align_cpu(&call);
    printf("\nA stamp set back: %s\n  %s\n", rc_status_name(status), rc_last_error());
    if (status != RC_BAD_DATA) {
        return 1;
    }
    joint_times[5] = joint_times[4] + 20 * MS;

    /* And a call that cannot be right. */
    streams[0].num_columns = 6;
    const rc_status wrong = rc_align_cpu(&call);
    printf("A column short: %s\n  %s\n", rc_status_name(wrong), rc_last_error());
    return wrong == RC_INVALID_ARGUMENT ? 0 : 1;
}
