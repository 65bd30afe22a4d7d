// The launcher behind rc_copy_many_cuda, for callers that have checked their copies and set their device.
#pragma once

#include "runtime.h"

namespace rc {

rc_status copy_many(const rc_copy* copies, int32_t count, int32_t device, cudaStream_t stream);

}  // namespace rc
