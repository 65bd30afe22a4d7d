#include "graph_entry.h"

#include "module.h"

namespace robocache::graphs {

std::shared_ptr<Entry> Table::find(const Signature &signature) {
    // Comparing constants may run Python, and with it other threads: candidates are kept before the first comparison.
    std::array<std::shared_ptr<Entry>, 4> candidates;
    size_t count = 0;
    const auto range = entries.equal_range(signature.hash);
    for (auto at = range.first; at != range.second && count < candidates.size(); ++at) {
        candidates[count++] = at->second;
    }
    for (size_t i = 0; i < count; ++i) {
        if (candidates[i]->matches(signature)) {
            return candidates[i];
        }
    }
    return nullptr;
}

namespace {

Ref new_tensor(const Static &like, PyObject *device) {
    PyObject *arguments[4] = {like.shape.get(), like.clone_strides.get(), like.dtype.get(), device};
    return Ref(PyObject_Vectorcall(config.empty_strided, arguments, 2, names.dtype_device));
}

class Builder {
public:
    Builder(const Plan &plan, const std::vector<Ref> &tensors) : plan_(plan), tensors_(tensors) {}

    Ref build() {
        const Node &node = plan_.nodes[node_++];
        switch (node.kind) {
        case kNodeTensor: {
            PyObject *tensor = tensors_[tensor_++].get();
            Py_INCREF(tensor);
            return Ref(tensor);
        }
        case kNodeConstant:
            Py_INCREF(node.object.get());
            return Ref(node.object.get());
        case kNodeList: {
            Ref list(PyList_New(node.count));
            for (int32_t i = 0; list && i < node.count; ++i) {
                Ref item = build();
                if (!item) {
                    return Ref();
                }
                PyList_SET_ITEM(list.get(), i, item.release());
            }
            return list;
        }
        case kNodeDict: {
            Ref dict(PyDict_New());
            for (int32_t i = 0; dict && i < node.count; ++i) {
                const Ref item = build();
                if (!item || PyDict_SetItem(dict.get(), PyTuple_GET_ITEM(node.object.get(), i), item.get()) != 0) {
                    return Ref();
                }
            }
            return dict;
        }
        default: {
            Ref tuple(PyTuple_New(node.count));
            for (int32_t i = 0; tuple && i < node.count; ++i) {
                Ref item = build();
                if (!item) {
                    return Ref();
                }
                PyTuple_SET_ITEM(tuple.get(), i, item.release());
            }
            return tuple && node.kind == kNodeNamedTuple ? Ref(PyObject_Call(node.object.get(), tuple.get(), nullptr))
                                                         : std::move(tuple);
        }
        }
    }

private:
    const Plan &plan_;
    const std::vector<Ref> &tensors_;
    size_t node_ = 0;
    size_t tensor_ = 0;
};

rc_copy copy_of(char *to, const char *from, const int64_t *sizes, const int64_t *to_strides,
                const int64_t *from_strides, size_t dims, int32_t element_size) {
    rc_copy copy{};
    copy.to = to;
    copy.from = from;
    copy.sizes = sizes;
    copy.to_strides = to_strides;
    copy.from_strides = from_strides;
    copy.num_dims = static_cast<int32_t>(dims);
    copy.element_size = element_size;
    return copy;
}

} // namespace

PyObject *rebuild(const Plan &plan, const std::vector<Ref> &tensors) {
    return Builder(plan, tensors).build().release();
}

PyObject *replay(Entry &entry, const std::vector<Leaf> &tensors, void *stream) {
    const std::shared_ptr<Plan> plan = entry.plan;
    if (!plan) {
        return nullptr;
    }
    rc_copy in[RC_MAX_COPIES];
    rc_copy out[RC_MAX_COPIES];
    rc_replay_call call{};
    call.struct_size = sizeof call;
    call.device = plan->device;
    call.copies_in = in;
    call.copies_out = out;
    call.cuda_stream = stream;
    for (size_t i = 0; i < plan->inputs.size(); ++i) {
        const Static &input = plan->inputs[i];
        const Leaf &leaf = tensors[i];
        if (leaf.data == input.data) {
            continue;
        }
        if (input.in_place) {
            return nullptr;
        }
        in[call.num_copies_in++] = copy_of(input.data, leaf.data, input.sizes.data(), input.strides.data(),
                                           leaf.strides, input.sizes.size(), input.element_size);
    }
    // Everything that may run Python comes before the launches: behind them nothing may fail or wait.
    std::vector<Ref> made;
    const std::vector<Ref> *results = &made;
    if (plan->mode == Outputs::kClone) {
        made.reserve(plan->outputs.size());
        const Ref device(tensors.empty() ? nullptr : PyObject_GetAttr(tensors[0].object, names.device));
        if (!device) {
            return nullptr;
        }
        for (const Static &output : plan->outputs) {
            Ref tensor = new_tensor(output, device.get());
            if (!tensor) {
                return nullptr;
            }
            made.push_back(std::move(tensor));
        }
    } else {
        const size_t set = plan->mode == Outputs::kRing ? static_cast<size_t>(entry.generation) % plan->sets.size() : 0;
        results = &plan->sets[set];
    }
    if (plan->mode != Outputs::kBorrow) {
        for (size_t o = 0; o < plan->outputs.size(); ++o) {
            const Static &output = plan->outputs[o];
            dlpack::Tensor view{};
            if (config.api->dltensor_from_py_object_no_sync((*results)[o].get(), &view) != 0) {
                return nullptr;
            }
            out[call.num_copies_out++] = copy_of(static_cast<char *>(view.data) + view.byte_offset, output.data,
                                                 output.sizes.data(), view.strides, output.strides.data(),
                                                 output.sizes.size(), output.element_size);
        }
    }
    ++entry.generation;
    rc_status status = RC_OK;
    bool retired = false;
    Py_BEGIN_ALLOW_THREADS;
    {
        const std::lock_guard<std::mutex> lock(plan->mutex);
        retired = plan->retired || !plan->exec;
        if (!retired) {
            call.graph_exec = plan->exec;
            call.wait_for = plan->replayed && plan->last_stream != stream ? plan->event : nullptr;
            call.done = plan->event;
            status = rc_replay_graph_cuda(&call);
            if (status == RC_OK) {
                plan->last_stream = stream;
                plan->replayed = true;
            }
        }
    }
    Py_END_ALLOW_THREADS;
    if (retired || status == RC_UNSUPPORTED) {
        return nullptr;
    }
    if (status != RC_OK) {
        set_python_error(status);
        return nullptr;
    }
    return rebuild(*plan, *results);
}

} // namespace robocache::graphs
