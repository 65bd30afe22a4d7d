// How a call is cut into tiles. Host code only.
#pragma once

#include "align_params.h"

namespace rc {

// What the plan comes to.
struct AlignPlan {
    bool general = false;
    int width = 0;  // plain calls of one unit: which of AlignKernels::plain_one
    int64_t blocks = 0;
    int32_t block_warps = 0;
};

// A stream as kernels see it; all but how its samples are checked. The call has been checked.
void fill_stream(const rc_stream& s, int32_t time_dtype, StreamParams* p);

// Fills call, streams and units (room for RC_MAX_STREAMS and RC_MAX_COLUMN_GROUPS). The call has been checked.
rc_status plan_align(const rc_align_call& call, int sm_count, CallParams* params, StreamParams* streams,
                     UnitParams* units, AlignPlan* plan);

}  // namespace rc
