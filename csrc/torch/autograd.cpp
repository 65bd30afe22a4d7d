#include "autograd.h"

namespace robocache {

// The stable ABI has no getter for requires_grad. A view of a tensor that requires grad has a grad_fn and so is no leaf.
bool requires_grad(AtenTensorHandle tensor) {
    int32_t dtype = 0;
    check(aoti_torch_get_dtype(tensor, &dtype), "reading a tensor's dtype");
    const int32_t known = rc_dtype_of(dtype);
    if (known != kNoDtype && !is_floating(known)) {
        return false;
    }
    AtenTensorHandle self = nullptr;
    check(aoti_torch_new_tensor_handle(tensor, &self), "referring to a tensor");
    StableIValue stack[1] = {to_stack(self)};
    check(torch_call_dispatcher("aten::alias", "", stack, TORCH_ABI_VERSION), "aten::alias");
    check(torch_call_dispatcher("aten::is_leaf", "", stack, TORCH_ABI_VERSION), "aten::is_leaf");
    return (stack[0] & 0xff) == 0;
}

bool optional_requires_grad(StableIValue slot) {
    const auto *box = reinterpret_cast<const StableIValue *>(slot);
    return box && requires_grad(from_stack(*box));
}

bool any_requires_grad(StableIValue list_slot) {
    auto list = reinterpret_cast<StableListHandle>(list_slot);
    size_t size = 0;
    check(torch_list_size(list, &size), "reading a list");
    for (size_t i = 0; i < size; ++i) {
        StableIValue item = 0;
        check(torch_list_get_item(list, i, &item), "reading a list");
        if (requires_grad(from_stack(item))) { // the element stays the stack's
            return true;
        }
    }
    return false;
}

void free_tensors(StableIValue *stack, uint64_t num_outputs) {
    for (uint64_t i = 0; i < num_outputs; ++i) {
        const Handle unwanted(from_stack(stack[i]));
    }
}

void free_tensor_lists(StableIValue *stack, uint64_t num_outputs) {
    for (uint64_t i = 0; i < num_outputs; ++i) {
        auto list = reinterpret_cast<StableListHandle>(stack[i]);
        size_t size = 0;
        check(torch_list_size(list, &size), "reading a list");
        for (size_t k = 0; k < size; ++k) {
            StableIValue item = 0;
            check(torch_list_get_item(list, k, &item), "reading a list");
            const Handle unwanted(from_stack(item));
        }
        check(torch_delete_list(list), "deleting a list");
    }
}

void forward_call(const char *op, StableIValue *stack, FreeResults free_results, uint64_t num_outputs) {
    const NestedCall call;
    if (torch_call_dispatcher(op, "", stack, TORCH_ABI_VERSION) != AOTI_TORCH_SUCCESS) {
        rethrow_nested(op);
    }
    try {
        call.raise_kept();
    } catch (...) {
        free_results(stack, num_outputs);
        throw;
    }
}

StableIValue placeholder() {
    const int64_t sizes[1] = {0};
    return to_stack(empty(sizes, 1, RC_FLOAT32, View()).release());
}

} // namespace robocache
