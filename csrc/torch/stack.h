// Reading the arguments of a boxed call: what each slot of torch's stack holds, and who owns it.
#ifndef ROBOCACHE_TORCH_STACK_H
#define ROBOCACHE_TORCH_STACK_H

#include <cstring>
#include <vector>

#include "handles.h"

namespace robocache {

// Takes the content of an optional argument; false when it is None.
inline bool take_optional(StableIValue slot, StableIValue *content) {
    auto *box = reinterpret_cast<StableIValue *>(slot);
    if (!box) {
        return false;
    }
    *content = *box;
    delete box; // made by torch with new: see torch/csrc/stable/stableivalue_conversions.h
    return true;
}

inline Handle take_optional_tensor(StableIValue slot) {
    StableIValue content = 0;
    return take_optional(slot, &content) ? Handle(from_stack(content)) : Handle();
}

inline double as_double(StableIValue slot) {
    double value;
    std::memcpy(&value, &slot, sizeof value);
    return value;
}

inline int64_t as_int(StableIValue slot) {
    return static_cast<int64_t>(slot);
}

// A list of numbers that torch made for this call.
class List {
public:
    List() = default;
    explicit List(StableIValue slot) : handle_(reinterpret_cast<StableListHandle>(slot)) {
        check(torch_list_size(handle_, &size_), "reading a list");
    }
    static List take_optional(StableIValue slot) {
        StableIValue content = 0;
        return robocache::take_optional(slot, &content) ? List(content) : List();
    }
    List(List &&other) noexcept
        : handle_(std::exchange(other.handle_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    List(const List &) = delete;
    List &operator=(const List &) = delete;
    List &operator=(List &&) = delete;
    ~List() {
        if (handle_) {
            torch_delete_list(handle_);
        }
    }
    bool given() const {
        return handle_ != nullptr;
    }
    size_t size() const {
        return size_;
    }
    StableIValue operator[](size_t index) const {
        StableIValue item = 0;
        check(torch_list_get_item(handle_, index, &item), "reading a list");
        return item;
    }

private:
    StableListHandle handle_ = nullptr;
    size_t size_ = 0;
};

// A list of tensors. The list does not own its elements: whoever takes it takes each of them, once.
class TensorList {
public:
    explicit TensorList(StableIValue slot) : TensorList(List(slot)) {}
    static TensorList take_optional(StableIValue slot) {
        return TensorList(List::take_optional(slot));
    }
    bool given() const {
        return given_;
    }
    size_t size() const {
        return tensors_.size();
    }
    Handle &operator[](size_t index) {
        return tensors_[index];
    }

private:
    explicit TensorList(const List &list) : given_(list.given()) {
        tensors_.reserve(list.size());
        for (size_t i = 0; i < list.size(); ++i) {
            tensors_.emplace_back(from_stack(list[i]));
        }
    }
    std::vector<Handle> tensors_;
    bool given_;
};

// The tensors of one stream, alive for the call.
struct StreamTensors {
    Handle values, times, lengths, row_splits, rows, row_offsets;

    void fill(StreamArgs &args) {
        args.values = view_of(values.get());
        args.times = view_of(times.get());
        args.lengths = vector_view(lengths);
        args.row_splits = vector_view(row_splits);
        args.rows = vector_view(rows);
        args.row_offsets = vector_view(row_offsets);
    }
};

// Arguments of a call, from its stack. All slots are taken, whatever happens later.
struct AlignInputs {
    std::vector<StreamTensors> tensors;
    std::vector<StreamArgs> streams;
    std::vector<ColumnKind> column_kinds;
    Handle target_tensor;
    View targets;
    int32_t out_dtype = kNoDtype;
    bool fused = false;
};

constexpr size_t kNumAlignArgs = 15; // of every align op, before `out` and `valid`

// (values, times, target_times, kind, ..., column_kinds): `stack` points at `values`.
AlignInputs take_resample(StableIValue *stack);
// (Tensor[] values, Tensor[] times, target_times, kinds, ..., column_kinds).
AlignInputs take_fuse(StableIValue *stack);
// `ScalarType? out_dtype`.
int32_t take_out_dtype(StableIValue slot);

} // namespace robocache

#endif // ROBOCACHE_TORCH_STACK_H
