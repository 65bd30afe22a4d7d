/* Status codes, and the message that goes with the last one of a thread. */
#include "common.h"

#include <stdarg.h>
#include <stdio.h>

#define RC_MESSAGE_CAPACITY 512

static _Thread_local char last_error[RC_MESSAGE_CAPACITY];
static _Thread_local rc_fault_report last_fault;

const char *rc_status_name(rc_status status) {
    switch (status) {
    case RC_OK:
        return "ok";
    case RC_INVALID_ARGUMENT:
        return "invalid argument";
    case RC_UNSUPPORTED:
        return "unsupported";
    case RC_BAD_DATA:
        return "bad data";
    case RC_NO_CUDA:
        return "no CUDA";
    case RC_CUDA_ERROR:
        return "CUDA error";
    case RC_OUT_OF_MEMORY:
        return "out of memory";
    }
    return "unknown status";
}

const char *rc_last_error(void) {
    return last_error;
}

void rc_last_fault(rc_fault_report *report) {
    if (report) {
        *report = last_fault;
    }
}

rc_status rc_fail(rc_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    last_fault = (rc_fault_report){0};
    return status;
}

rc_status rc_fail_fault(const rc_fault_report *report) {
    (void)rc_describe_fault(report, last_error, sizeof last_error);
    last_fault = *report;
    return RC_BAD_DATA;
}
