// How the Autograd kernel of an op finds out whether a gradient is wanted, and sends the call on to a twin.
#ifndef ROBOCACHE_TORCH_AUTOGRAD_H
#define ROBOCACHE_TORCH_AUTOGRAD_H

#include "handles.h"

namespace robocache {

// Of a tensor that stays the stack's.
bool requires_grad(AtenTensorHandle tensor);
// ... of `Tensor?`.
bool optional_requires_grad(StableIValue slot);
// ... of `Tensor[]`.
bool any_requires_grad(StableIValue list_slot);

// Frees what a call has left on the stack.
using FreeResults = void (*)(StableIValue *stack, uint64_t num_outputs);
void free_tensors(StableIValue *stack, uint64_t num_outputs);
void free_tensor_lists(StableIValue *stack, uint64_t num_outputs);

// Calls `op` with the stack as it stands. Results whose call left an error are freed by `free_results`.
void forward_call(const char *op, StableIValue *stack, FreeResults free_results, uint64_t num_outputs);

// Any tensor: the result of a call whose error a NestedCall has taken.
StableIValue placeholder();

} // namespace robocache

#endif // ROBOCACHE_TORCH_AUTOGRAD_H
