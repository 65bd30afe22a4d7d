#include "align_plan.h"

#include <algorithm>
#include <climits>
#include <cmath>

#include "../common/common.h"
#include "align_kernels.h"
#include "runtime.h"

namespace rc {

namespace {

constexpr int64_t kLanes = 32;

// Launch parameters out of the table. Small tiles put every multiprocessor to work and keep the chain of memory latencies
// short; large ones spread the cost of finding the samples over more of them.
struct AlignTuning {
    int64_t min_items;        // vectors a lane moves at least
    int64_t max_items;        // and at most
    int64_t max_items_broad;  // and at most in rows of more than broad_chunks vectors
    uint32_t broad_chunks;
    int64_t warps;      // resident warps a multiprocessor that a call should fill before its tiles grow
    int64_t few_warps;  // warps a multiprocessor below which even min_items is too many
    int32_t block_warps;
    int64_t vector_bytes;  // of a load or store at most
    uint32_t wide_chunks;  // rows of at most this many vectors are wide calls (see align_kernels.h)
};

// `items`: the vectors of the call's output, as wide as its addresses allow. Not as wide as the tuning allows, which hangs
// on this.
AlignTuning tuning_of(int32_t device, int64_t items) {
    const int32_t arch = compute_capability(device);
    const auto value = [&](rc_tunable tunable) { return rc_launch_value(tunable, arch, items); };
    AlignTuning tuning;
    tuning.min_items = value(RC_TUNE_ALIGN_MIN_ITEMS);
    tuning.max_items = value(RC_TUNE_ALIGN_MAX_ITEMS);
    tuning.max_items_broad = value(RC_TUNE_ALIGN_MAX_ITEMS_BROAD);
    tuning.broad_chunks = static_cast<uint32_t>(value(RC_TUNE_ALIGN_BROAD_CHUNKS));
    tuning.warps = value(RC_TUNE_ALIGN_WARPS);
    tuning.few_warps = value(RC_TUNE_ALIGN_FEW_WARPS);
    tuning.block_warps = value(RC_TUNE_ALIGN_THREADS) / static_cast<int32_t>(kLanes);
    tuning.vector_bytes = value(RC_TUNE_ALIGN_VECTOR_BYTES);
    tuning.wide_chunks = static_cast<uint32_t>(value(RC_TUNE_ALIGN_WIDE_CHUNKS));
    return tuning;
}

constexpr int kMaxVectorBytes = 16;   // of one load or store
constexpr uint32_t kMaxChunks = 512;  // of a tile: wider rows are cut into several tiles

// Samples that a warp checks: eight a lane, in two rounds of four.
constexpr int64_t kCheckSamples = 256;

bool plain_kind(int32_t kind) {
    return kind == RC_LINEAR || rc_is_step_kind(kind);
}

TimeValue time_value(double v, int32_t time_dtype) {
    TimeValue t{};
    if (time_dtype == RC_FLOAT32) {
        t.f32 = static_cast<float>(v);
    } else if (time_dtype == RC_FLOAT64) {
        t.f64 = v;
    } else {
        t.i64 = static_cast<int64_t>(v);
    }
    return t;
}

bool aligned(const void* pointer, int64_t bytes) {
    return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(bytes) == 0;
}

// Widest vector that a unit's addresses allow on both sides. `may_split`: an output of 16 bytes may be stored in halves.
int vector_width(const rc_align_call& call, const rc_stream& s, int32_t column, int32_t columns, int64_t out_column,
                 bool may_split) {
    const int64_t in = static_cast<int64_t>(rc_dtype_size(s.value_dtype));
    const int64_t out = static_cast<int64_t>(rc_dtype_size(call.out_dtype));
    if ((s.values_stride[2] != 1 || call.out_stride[2] != 1) && columns > 1) {
        return 1;
    }
    for (int64_t v = kMaxVectorBytes / std::max(in, out); v > 1; v /= 2) {
        const int64_t in_bytes = v * in;
        const int64_t out_bytes = may_split && v * out == 16 ? 8 : v * out;
        const bool in_fits = aligned(s.values, in_bytes) && column * in % in_bytes == 0 &&
                             s.values_stride[1] * in % in_bytes == 0 &&
                             (s.row_splits != nullptr || s.values_stride[0] * in % in_bytes == 0);
        const bool out_fits = aligned(call.out, out_bytes) && out_column * out % out_bytes == 0 &&
                              call.out_stride[0] * out % out_bytes == 0 && call.out_stride[1] * out % out_bytes == 0;
        if (columns % v == 0 && in_fits && out_fits) {
            return static_cast<int>(v);
        }
    }
    return 1;
}

}  // namespace

void fill_stream(const rc_stream& s, int32_t time_dtype, StreamParams* p) {
    p->values = s.values;
    p->times = s.times;
    p->lengths = s.lengths;
    p->row_splits = s.row_splits;
    p->rows = s.rows;
    p->row_offsets = s.row_offsets;
    std::copy(s.values_stride, s.values_stride + 3, p->values_stride);
    std::copy(s.times_stride, s.times_stride + 2, p->times_stride);
    p->num_sequences = s.num_sequences;
    p->num_samples = s.num_samples;
    p->offset = time_value(s.time_offset, time_dtype);
    p->policy = rc_make_policy(&s, time_dtype);
    p->kinds = rc_kinds_of(&s);
    p->value_dtype = s.value_dtype;
    p->invalid = s.invalid;
    p->has_offset = s.time_offset != 0.0 || s.row_offsets != nullptr;
}

namespace {

// Cuts a unit into tiles, each a warp's. Returns its number of blocks.
int64_t tile_unit(const rc_align_call& call, const rc_stream& s, const AlignTuning& tuning, int64_t items_per_lane,
                  int max_rows, UnitParams* unit) {
    const int64_t rows = call.batch * call.num_targets;
    const uint32_t chunks = std::max(unit->chunks, 1u);
    unit->tile_chunks = std::min(chunks, kMaxChunks);
    const uint32_t column_tiles = (chunks + unit->tile_chunks - 1) / unit->tile_chunks;
    const uint32_t last = chunks - (column_tiles - 1) * unit->tile_chunks;
    if (unit->tile_chunks > tuning.broad_chunks) {
        items_per_lane = std::min(items_per_lane, tuning.max_items_broad);
    }
    int64_t tile_rows = items_per_lane * kLanes / unit->tile_chunks;
    tile_rows = std::clamp<int64_t>(tile_rows, 1, max_rows);
    unit->tile_rows = static_cast<int32_t>(tile_rows);
    unit->prefetch = s.rows == nullptr && s.row_splits == nullptr && s.lengths == nullptr &&
                     s.num_samples < INT_MAX / (call.num_targets + kWideRows);
    unit->column_tiles = FastDivide::by(column_tiles);
    unit->by_tile_chunks = FastDivide::by(unit->tile_chunks);
    unit->by_last_chunks = FastDivide::by(last);
    const int64_t tiles = (rows + tile_rows - 1) / tile_rows * column_tiles;
    unit->tiles = static_cast<uint32_t>(std::min<int64_t>(tiles, INT_MAX));
    return (tiles + tuning.block_warps - 1) / tuning.block_warps;
}

// Cuts the check of a stream's samples into slices. Returns their number.
int64_t check_slices(const rc_stream& s, StreamParams* p) {
    p->check_slices = FastDivide::by(1);
    if (s.rows != nullptr || s.num_samples == 0) {
        return 0;  // windows out of a store: only what is read is checked
    }
    const bool shared = s.times_stride[0] == 0 && s.row_splits == nullptr && s.lengths == nullptr;
    const int64_t sequences = shared ? std::min<int64_t>(s.num_sequences, 1) : s.num_sequences;
    const int64_t samples = s.row_splits != nullptr ? s.num_samples / std::max<int64_t>(sequences, 1) : s.num_samples;
    const int64_t slices = std::max<int64_t>((samples + kCheckSamples - 1) / kCheckSamples, 1);
    p->check_slices = FastDivide::by(static_cast<uint32_t>(slices));
    return sequences * slices;
}

// Units of a plain call: an output of 16 bytes may be stored in halves. Returns the vectors of the output.
int64_t widen_plain(const rc_align_call& call, CallParams* params, UnitParams* units, int n) {
    const int widest = kMaxVectorBytes / static_cast<int>(rc_dtype_size(call.out_dtype));
    int64_t items = 0;
    params->split_store = false;
    for (int u = 0; u < n; ++u) {
        UnitParams& unit = units[u];
        const rc_stream& s = call.streams[unit.stream];
        const int whole = unit.vector;
        unit.vector = vector_width(call, s, unit.column, unit.columns, unit.out_column, true);
        params->split_store = params->split_store || (unit.vector == widest && whole < widest);
        if (unit.vector < widest / 2) {
            unit.vector = 1;  // plain kernels come in three widths
        }
        unit.chunks = static_cast<uint32_t>(unit.columns / unit.vector);
        items += call.batch * call.num_targets * unit.chunks;
    }
    return items;
}

// Halves vectors of more than `bytes`, of samples or of the output: what allows a vector allows its half. Returns the
// vectors of the output.
int64_t narrow_units(const rc_align_call& call, int64_t bytes, UnitParams* units, int n) {
    int64_t items = 0;
    for (int u = 0; u < n; ++u) {
        UnitParams& unit = units[u];
        const int32_t kind = unit.kind;
        const int64_t element = std::max<int64_t>(unit.value_bytes,
                                                  static_cast<int64_t>(rc_dtype_size(call.out_dtype)));
        while (plain_kind(kind) && unit.vector > 1 && unit.vector * element > bytes) {
            unit.vector /= 2;
        }
        unit.chunks = static_cast<uint32_t>(unit.columns / unit.vector);
        items += call.batch * call.num_targets * unit.chunks;
    }
    return items;
}

}  // namespace

rc_status plan_align(const rc_align_call& call, int sm_count, CallParams* params, StreamParams* streams,
                     UnitParams* units, AlignPlan* plan) {
    params->targets = call.targets;
    std::copy(call.targets_stride, call.targets_stride + 2, params->targets_stride);
    params->batch = call.batch;
    params->num_targets = call.num_targets;
    params->out = call.out;
    std::copy(call.out_stride, call.out_stride + 3, params->out_stride);
    params->valid = call.valid;
    params->time_dtype = call.time_dtype;
    params->out_dtype = call.out_dtype;
    params->num_streams = call.num_streams;
    params->by_targets = FastDivide::by(static_cast<uint32_t>(std::min<int64_t>(call.num_targets, INT_MAX)));
    params->short_rows = call.batch <= INT_MAX / call.num_targets;
    params->flat_out = call.batch == 1 || call.out_stride[0] == call.num_targets * call.out_stride[1];
    const bool narrow_out = call.out_stride[1] >= 0 && call.out_stride[1] < INT_MAX / kWideRows &&
                            call.out_stride[2] == 1;
    plan->general = !rc_dtype_is_float(call.out_dtype) || !params->flat_out || !narrow_out;

    int64_t out_column = 0;
    int64_t items = 0;
    int n = 0;
    for (int32_t k = 0; k < call.num_streams; ++k) {
        const rc_stream& s = call.streams[k];
        fill_stream(s, call.time_dtype, &streams[k]);
        const bool floating = rc_dtype_is_float(s.value_dtype);
        for (int32_t g = 0; g < s.num_groups; ++g) {
            const rc_column_group& group = s.groups[g];
            UnitParams& unit = units[n];
            unit = UnitParams{};
            unit.stream = k;
            unit.kind = group.kind;
            unit.column = group.begin;
            unit.columns = group.end - group.begin;
            unit.out_column = out_column + group.begin;
            unit.leads = g == 0;
            unit.quick = s.num_groups == 1 && group.kind == RC_LINEAR && s.time_offset == 0.0 &&
                         s.row_offsets == nullptr && s.tolerance < 0.0 && std::isinf(s.max_gap);
            unit.clamp_keep = s.extrapolate == RC_EXTRAPOLATE_CLAMP && s.invalid == RC_INVALID_KEEP;
            unit.value_bytes = static_cast<int32_t>(rc_dtype_size(s.value_dtype));
            const bool slerp = group.kind == RC_SLERP_XYZW || group.kind == RC_SLERP_WXYZ;
            const bool plain = floating && plain_kind(group.kind);
            plan->general = plan->general || !plain || s.value_dtype != call.out_dtype || s.times_stride[1] != 1 ||
                            s.values_stride[2] != 1;
            unit.vector = slerp ? 4 : 1;
            if (plain) {
                unit.vector = vector_width(call, s, unit.column, unit.columns, unit.out_column, false);
            }
            unit.chunks = static_cast<uint32_t>(unit.columns / unit.vector);
            items += call.batch * call.num_targets * unit.chunks;
            ++n;
        }
        if (s.num_groups == 0) {
            // A stream without columns still owes its mask and the check of its times.
            UnitParams& unit = units[n];
            unit = UnitParams{};
            unit.stream = k;
            unit.kind = RC_LINEAR;
            unit.out_column = out_column;
            unit.vector = 1;
            unit.leads = true;
            ++n;
        }
        out_column += s.num_columns;
    }
    params->num_units = n;
    plan->general = plan->general || n > AlignParamsFew::max_units || call.num_streams > AlignParamsFew::max_streams;
    if (!plan->general) {
        items = widen_plain(call, params, units, n);
    }
    const AlignTuning tuning = tuning_of(call.device, items);
    if (tuning.vector_bytes < kMaxVectorBytes) {
        items = narrow_units(call, tuning.vector_bytes, units, n);
        params->split_store = false;  // no vector has 16 bytes
    }
    if (!plan->general) {
        const int widest = kMaxVectorBytes / static_cast<int>(rc_dtype_size(call.out_dtype));
        plan->width = units[0].vector == widest ? 0 : (units[0].vector > 1 ? 1 : 2);
        if (plan->width == 0 && units[0].chunks <= tuning.wide_chunks) {
            plan->width = 3;
        }
    }

    const int max_rows = !plan->general && n == 1 && plan->width == 3 ? kWideRows : kDeepRows;
    const int64_t lanes = int64_t{sm_count} * tuning.warps * kLanes;
    // A call that cannot give every multiprocessor a few warps is cut finer still.
    const int64_t thin = items / (int64_t{sm_count} * tuning.few_warps * kLanes);
    const int64_t least = std::clamp<int64_t>(thin, 1, tuning.min_items);
    const int64_t items_per_lane = std::clamp(items / lanes, least, tuning.max_items);
    plan->blocks = 0;
    plan->block_warps = tuning.block_warps;
    for (int u = 0; u < n; ++u) {
        units[u].first_block = static_cast<uint32_t>(std::min<int64_t>(plan->blocks, INT_MAX));
        plan->blocks += tile_unit(call, call.streams[units[u].stream], tuning, items_per_lane, max_rows, &units[u]);
    }
    if (plan->blocks * tuning.block_warps > INT_MAX) {
        return rc_fail(RC_UNSUPPORTED, "this call needs more than 2^31 tiles; split the batch");
    }
    params->first_check_block = static_cast<uint32_t>(plan->blocks);
    int64_t checks = 0;
    for (int32_t k = 0; k < call.num_streams; ++k) {
        streams[k].first_check = static_cast<uint32_t>(checks);
        checks += check_slices(call.streams[k], &streams[k]);
        streams[k].end_check = static_cast<uint32_t>(checks);
    }
    plan->blocks += (checks + tuning.block_warps - 1) / tuning.block_warps;
    if (plan->blocks * tuning.block_warps > INT_MAX) {
        return rc_fail(RC_UNSUPPORTED, "this call needs more than 2^31 tiles; split the batch");
    }
    return RC_OK;
}

}  // namespace rc
