#include "stack.h"

namespace robocache {

namespace {

void take_column_kinds(const List &list, size_t width, std::vector<ColumnKind> &kinds) {
    if (list.size() % width != 0) {
        raise_error("column_kinds: expected entries of " + std::to_string(width) + " numbers, got " +
                    std::to_string(list.size()) + " numbers");
    }
    kinds.reserve(list.size() / width);
    for (size_t i = 0; i < list.size(); i += width) {
        ColumnKind kind{};
        size_t at = i;
        kind.stream = width == 4 ? as_int(list[at++]) : 0;
        kind.begin = as_int(list[at++]);
        kind.end = as_int(list[at++]);
        kind.kind = as_int(list[at++]);
        kinds.push_back(kind);
    }
}

template <typename AnyList>
void expect_size(const char *name, const AnyList &list, size_t count) {
    if (list.given() && list.size() != count) {
        raise_error(std::string(name) + ": expected one entry for each of the " + std::to_string(count) +
                    " streams, got " + std::to_string(list.size()));
    }
}

// An entry of a list of tensors; an empty tensor stands for none.
Handle tensor_or_none(TensorList &list, size_t index) {
    if (!list.given()) {
        return Handle();
    }
    int64_t numel = 0;
    check(aoti_torch_get_numel(list[index].get(), &numel), "reading a tensor's size");
    return numel == 0 ? Handle() : std::move(list[index]);
}

} // namespace

int32_t take_out_dtype(StableIValue slot) {
    StableIValue content = 0;
    if (!take_optional(slot, &content)) {
        return kNoDtype;
    }
    const int32_t dtype = rc_dtype_of(static_cast<int32_t>(content));
    if (dtype == kNoDtype) {
        raise_error(
            "out_dtype: expected float16, bfloat16, float32, float64, bool, uint8, int8, int16, int32 or int64");
    }
    return dtype;
}

AlignInputs take_resample(StableIValue *stack) {
    AlignInputs in;
    in.tensors.resize(1);
    in.streams.resize(1);
    StreamTensors &t = in.tensors[0];
    StreamArgs &s = in.streams[0];
    t.values = Handle(from_stack(stack[0]));
    t.times = Handle(from_stack(stack[1]));
    in.target_tensor = Handle(from_stack(stack[2]));
    s.kind = as_int(stack[3]);
    s.extrapolate = as_int(stack[4]);
    s.invalid = as_int(stack[5]);
    s.max_gap = as_double(stack[6]);
    s.tolerance = as_double(stack[7]);
    s.time_offset = as_double(stack[8]);
    t.lengths = take_optional_tensor(stack[9]);
    t.row_splits = take_optional_tensor(stack[10]);
    t.rows = take_optional_tensor(stack[11]);
    t.row_offsets = take_optional_tensor(stack[12]);
    const List column_kinds = List::take_optional(stack[13]);
    take_column_kinds(column_kinds, 3, in.column_kinds);
    t.fill(s);
    in.targets = view_of(in.target_tensor.get());
    return in;
}

AlignInputs take_fuse(StableIValue *stack) {
    AlignInputs in;
    in.fused = true;
    TensorList values(stack[0]);
    TensorList times(stack[1]);
    in.target_tensor = Handle(from_stack(stack[2]));
    const List kinds = List::take_optional(stack[3]);
    const List extrapolate = List::take_optional(stack[4]);
    const List invalid = List::take_optional(stack[5]);
    const List max_gap = List::take_optional(stack[6]);
    const List tolerance = List::take_optional(stack[7]);
    const List time_offset = List::take_optional(stack[8]);
    TensorList lengths = TensorList::take_optional(stack[9]);
    TensorList row_splits = TensorList::take_optional(stack[10]);
    TensorList rows = TensorList::take_optional(stack[11]);
    TensorList row_offsets = TensorList::take_optional(stack[12]);
    const List column_kinds = List::take_optional(stack[13]);
    const size_t count = values.size();
    expect_size("times", times, count);
    expect_size("kinds", kinds, count);
    expect_size("extrapolate", extrapolate, count);
    expect_size("invalid", invalid, count);
    expect_size("max_gap", max_gap, count);
    expect_size("tolerance", tolerance, count);
    expect_size("time_offset", time_offset, count);
    expect_size("lengths", lengths, count);
    expect_size("row_splits", row_splits, count);
    expect_size("rows", rows, count);
    expect_size("row_offsets", row_offsets, count);
    in.tensors.resize(count);
    in.streams.resize(count);
    for (size_t i = 0; i < count; ++i) {
        StreamTensors &t = in.tensors[i];
        StreamArgs &s = in.streams[i];
        t.values = std::move(values[i]);
        t.times = std::move(times[i]);
        t.lengths = tensor_or_none(lengths, i);
        t.row_splits = tensor_or_none(row_splits, i);
        t.rows = tensor_or_none(rows, i);
        t.row_offsets = tensor_or_none(row_offsets, i);
        s.kind = kinds.given() ? as_int(kinds[i]) : s.kind;
        s.extrapolate = extrapolate.given() ? as_int(extrapolate[i]) : s.extrapolate;
        s.invalid = invalid.given() ? as_int(invalid[i]) : s.invalid;
        s.max_gap = max_gap.given() ? as_double(max_gap[i]) : s.max_gap;
        s.tolerance = tolerance.given() ? as_double(tolerance[i]) : s.tolerance;
        s.time_offset = time_offset.given() ? as_double(time_offset[i]) : s.time_offset;
        t.fill(s);
    }
    take_column_kinds(column_kinds, 4, in.column_kinds);
    in.targets = view_of(in.target_tensor.get());
    return in;
}

} // namespace robocache
