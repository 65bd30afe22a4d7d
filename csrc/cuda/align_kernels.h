// The compiled align kernels. Each output type has a translation unit of its own, so that builds run side by side.
#pragma once

#include "align_params.h"

namespace rc {

constexpr int kAlignWarps = 4;  // a block at most: small, so that a finished one makes room soon
constexpr int kAlignThreads = kAlignWarps * 32;

// Resident blocks a multiprocessor of the plain kernels, and rows of a tile. Deep: four vectors of two samples in flight
// a lane, for rows of many columns. Wide: two, in more warps, for rows of few columns, where finding the samples is most
// of the work; each lane finds two rows at once. Few: deep, for several streams. Measured on an H200.
constexpr int kDeepBlocks = 5;
constexpr int kFewBlocks = 6;
constexpr int kWideBlocks = 8;
constexpr int kGeneralBlocks = 4;
constexpr int kDeepRows = 32;
constexpr int kWideRows = 64;

// Kernels of one output type, each by time dtype (float32, float64, int64).
struct AlignKernels {
    // AlignParamsOne; by vector width: widest, half of it, one element, and the widest once more for wide calls.
    const void* plain_one[3][4];
    const void* plain_few[3];  // AlignParamsFew; any of the three widths by unit
    const void* general_few[3];
    const void* general_many[3];  // AlignParamsMany
};

const AlignKernels& align_kernels_float16();
const AlignKernels& align_kernels_bfloat16();
const AlignKernels& align_kernels_float32();
const AlignKernels& align_kernels_float64();
const AlignKernels& align_kernels_integer();  // general only

}  // namespace rc
