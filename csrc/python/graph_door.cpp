// The hot path of robocache.graphs: one call from "is this a call that was captured" to its outputs.
#include "graph_entry.h"
#include "module.h"

#include <pybind11/stl.h>

namespace py = pybind11;

namespace robocache::graphs {

namespace {

constexpr const char *kTableName = "robocache graph table";

Ref keep(PyObject *object) {
    Py_INCREF(object);
    return Ref(object);
}

std::unique_ptr<Sighting> sighting_of(Signature &&signature, std::shared_ptr<Entry> entry) {
    auto sighting = std::make_unique<Sighting>();
    for (const Leaf &leaf : signature.tensors) {
        sighting->objects.push_back(keep(leaf.object));
    }
    for (PyObject *constant : signature.constants) {
        sighting->constants.push_back(keep(constant));
    }
    sighting->signature = std::move(signature);
    sighting->entry = std::move(entry);
    return sighting;
}

PyObject *hand_out(std::unique_ptr<Sighting> sighting) {
    try {
        return py::cast(std::move(sighting)).release().ptr();
    } catch (py::error_already_set &error) {
        error.restore();
        return nullptr;
    }
}

uint32_t short_address(const char *data) {
    const auto wide = reinterpret_cast<uintptr_t>(data);
    return static_cast<uint32_t>((wide >> 4) ^ (wide >> 36)) | 1; // never 0, which is "not seen"
}

// Counts a call that no entry knows. True when it has been seen often enough; `stayed` then tells which tensors stand
// where they stood last time.
bool sight(Table &table, const Signature &signature, std::vector<bool> *stayed) {
    Seen::Slot &slot = table.seen.slot(signature.hash);
    if (slot.hash != signature.hash) {
        slot.hash = signature.hash;
        slot.countdown = table.capture_after;
        slot.addresses.fill(0);
    }
    slot.countdown -= slot.countdown > 0 ? 1 : 0;
    const bool ready = slot.countdown == 0;
    for (size_t i = 0; i < signature.tensors.size(); ++i) {
        const bool watched = i < Seen::kAddresses;
        const uint32_t address = short_address(signature.tensors[i].data);
        if (ready) {
            stayed->push_back(watched && slot.addresses[i] == address);
        }
        if (watched) {
            slot.addresses[i] = address;
        }
    }
    return ready;
}

// (table, function, args, kwargs or None) -> NotImplemented: run it eagerly; a Sighting: Python decides; else the result.
PyObject *graph_call(PyObject *, PyObject *const *args, Py_ssize_t count) {
    auto *table = count == 4 ? static_cast<Table *>(PyCapsule_GetPointer(args[0], kTableName)) : nullptr;
    if (!table || !PyTuple_CheckExact(args[2]) || (args[3] != Py_None && !PyDict_CheckExact(args[3]))) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "graph_call: expected (table, function, args tuple, kwargs dict or None)");
        }
        return nullptr;
    }
    const int64_t function = PyLong_AsLongLong(args[1]);
    if (table->borrowing == 0) {
        Doze &doze = table->dozing[function];
        if (doze.sleeps()) {
            ++(doze.off ? table->off : table->misses);
            Py_RETURN_NOTIMPLEMENTED;
        }
    }
    Signature signature;
    const Why why = read_call(function, table->device_type, args[2], args[3], &signature);
    if (why != Why::kNone) {
        ++table->left_alone[static_cast<size_t>(why)];
        Py_RETURN_NOTIMPLEMENTED;
    }
    std::shared_ptr<Entry> entry = table->find(signature);
    std::vector<bool> stayed;
    const bool ready = !entry && sight(*table, signature, &stayed);
    if (entry) {
        entry->last_use = ++table->clock;
    }
    if (table->borrowing > 0 || ready) {
        table->dozing[function].note_fruit();
        // A lent output may come back as an input: Python looks whether it is still what it was.
        auto sighting = sighting_of(std::move(signature), std::move(entry));
        sighting->stayed = std::move(stayed);
        sighting->ready = ready;
        return hand_out(std::move(sighting));
    }
    if (!entry) {
        ++table->misses;
        table->dozing[function].note_fruitless(false);
        Py_RETURN_NOTIMPLEMENTED;
    }
    if (entry->state == State::kOff) {
        table->dozing[function].note_fruitless(true);
        ++entry->eager;
        ++table->off;
        Py_RETURN_NOTIMPLEMENTED;
    }
    table->dozing[function].note_fruit();
    if (entry->state == State::kOn) {
        PyObject *result = replay(*entry, signature.tensors, signature.stream);
        if (result) {
            ++entry->hits;
            ++table->hits;
            return result;
        }
        if (PyErr_Occurred()) {
            return nullptr;
        }
    }
    return hand_out(sighting_of(std::move(signature), std::move(entry)));
}

PyMethodDef methods[] = {
    {"graph_call", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(graph_call)), METH_FASTCALL,
     "(table, function, args, kwargs): replays a captured call; NotImplemented or a Sighting otherwise."},
    {nullptr, nullptr, 0, nullptr},
};

void check(rc_status status) {
    if (status != RC_OK) {
        set_python_error(status);
        throw py::error_already_set();
    }
}

dlpack::Tensor view_or_throw(const py::handle &tensor) {
    dlpack::Tensor view{};
    if (!config.api) {
        throw std::runtime_error("the extension has no exchange table of torch");
    }
    if (config.api->dltensor_from_py_object_no_sync(tensor.ptr(), &view) != 0) {
        throw py::error_already_set();
    }
    return view;
}

Static static_of(const py::handle &tensor) {
    const dlpack::Tensor view = view_or_throw(tensor);
    Static made;
    made.data = static_cast<char *>(view.data) + view.byte_offset;
    made.sizes.assign(view.shape, view.shape + view.ndim);
    made.strides.assign(view.strides, view.strides + view.ndim);
    made.element_size = view.dtype.bits * view.dtype.lanes / 8;
    return made;
}

// to[i].copy_(from[i]) for CUDA tensors of one device, equal shapes and dtypes, on the current stream.
void copy_many(const std::vector<py::object> &to, const std::vector<py::object> &from) {
    if (to.size() != from.size()) {
        throw py::value_error("copy_many: expected as many sources as destinations, got " +
                              std::to_string(from.size()) + " for " + std::to_string(to.size()));
    }
    if (to.empty()) {
        return;
    }
    std::vector<rc_copy> copies;
    int32_t device = -1;
    for (size_t i = 0; i < to.size(); ++i) {
        const dlpack::Tensor a = view_or_throw(to[i]);
        const dlpack::Tensor b = view_or_throw(from[i]);
        const std::string which = "copy_many: pair " + std::to_string(i) + ": ";
        if (a.device.type != kCuda || b.device.type != kCuda || a.device.index != b.device.index ||
            (device >= 0 && a.device.index != device)) {
            throw py::value_error(which + "expected tensors on one CUDA device");
        }
        if (a.ndim != b.ndim || a.dtype.bits != b.dtype.bits || a.dtype.code != b.dtype.code ||
            !std::equal(a.shape, a.shape + a.ndim, b.shape)) {
            throw py::value_error(which + "expected equal shapes and dtypes");
        }
        device = a.device.index;
        rc_copy copy{};
        copy.to = static_cast<char *>(a.data) + a.byte_offset;
        copy.from = static_cast<char *>(b.data) + b.byte_offset;
        copy.sizes = a.shape;
        copy.to_strides = a.strides;
        copy.from_strides = b.strides;
        copy.num_dims = a.ndim;
        copy.element_size = a.dtype.bits * a.dtype.lanes / 8;
        copies.push_back(copy);
    }
    rc_copy_call call{};
    call.struct_size = sizeof call;
    call.device = device;
    if (config.api->current_work_stream(kCuda, device, &call.cuda_stream) != 0) {
        throw py::error_already_set();
    }
    rc_status status = RC_OK;
    {
        const py::gil_scoped_release release;
        for (size_t begin = 0; begin < copies.size() && status == RC_OK; begin += RC_MAX_COPIES) {
            call.copies = copies.data() + begin;
            call.num_copies = static_cast<int32_t>(std::min<size_t>(RC_MAX_COPIES, copies.size() - begin));
            status = rc_copy_many_cuda(&call);
        }
    }
    check(status);
}

bool configure(const py::dict &needs) {
    if (!config.api) {
        return false;
    }
    const auto take = [&](const char *name) { return py::object(needs[name]).release().ptr(); };
    key_config.functorch = take("functorch");
    key_config.modes = take("modes");
    key_config.tracing = take("tracing");
    key_config.parameter = reinterpret_cast<PyTypeObject *>(take("parameter"));
    key_config.fields_name = PyUnicode_InternFromString("__dataclass_fields__");
    key_config.flags = take("flags"); // last: readers look at it first
    return true;
}

std::vector<Node> nodes_of(const py::list &list) {
    std::vector<Node> nodes;
    for (const py::handle &item : list) {
        const py::tuple node = py::reinterpret_borrow<py::tuple>(item);
        nodes.push_back({node[0].cast<int32_t>(), node[1].cast<int32_t>(), keep(py::object(node[2]).ptr())});
    }
    return nodes;
}

// What a replay needs. `inputs` are (address, shape, strides, element size, in place); `outputs` the graph's own tensors,
// `like` tensors of the strides that their copies get, `nodes` (kind, count, object) the result's structure.
void arm(Entry &entry, uintptr_t exec, uintptr_t event, uintptr_t last_stream, int32_t device, const py::list &inputs,
         const py::list &outputs, const py::list &like, const py::list &nodes, int32_t mode, const py::list &sets) {
    if (outputs.size() != like.size() || outputs.size() > RC_MAX_COPIES) {
        throw py::value_error("arm: too many tensors, or lists of unequal lengths");
    }
    auto plan = std::make_shared<Plan>();
    size_t copied = 0;
    for (const py::handle &item : inputs) {
        const auto [address, shape, strides, size, stays] =
            item.cast<std::tuple<uintptr_t, std::vector<int64_t>, std::vector<int64_t>, int32_t, bool>>();
        Static input;
        input.data = reinterpret_cast<char *>(address);
        input.sizes = shape;
        input.strides = strides;
        input.element_size = size;
        input.in_place = stays;
        copied += stays ? 0 : 1;
        plan->inputs.push_back(std::move(input));
    }
    if (copied > RC_MAX_COPIES) {
        throw py::value_error("arm: too many tensors to copy");
    }
    for (size_t o = 0; o < outputs.size(); ++o) {
        Static output = static_of(outputs[o]);
        output.shape = Ref(py::tuple(outputs[o].attr("shape")).release().ptr());
        output.clone_strides = Ref(py::tuple(like[o].attr("stride")()).release().ptr());
        output.dtype = Ref(py::object(outputs[o].attr("dtype")).release().ptr());
        plan->outputs.push_back(std::move(output));
    }
    plan->nodes = nodes_of(nodes);
    for (const py::handle &set : sets) {
        plan->sets.emplace_back();
        for (const py::handle &tensor : set) {
            plan->sets.back().push_back(keep(tensor.ptr()));
        }
    }
    plan->mode = static_cast<Outputs>(mode);
    plan->device = device;
    plan->exec = reinterpret_cast<void *>(exec);
    plan->event = reinterpret_cast<void *>(event);
    plan->replayed = true; // by torch, on last_stream
    plan->last_stream = reinterpret_cast<void *>(last_stream);
    entry.plan = std::move(plan);
}

py::object rebuild_result(const py::list &nodes, const py::list &tensors) {
    Plan plan;
    plan.nodes = nodes_of(nodes);
    std::vector<Ref> kept;
    for (const py::handle &tensor : tensors) {
        kept.push_back(keep(tensor.ptr()));
    }
    PyObject *result = rebuild(plan, kept);
    if (!result) {
        throw py::error_already_set();
    }
    return py::reinterpret_steal<py::object>(result);
}

// The call as a Sighting that counts nothing, or the reason for leaving it alone.
py::object look(Table &table, int64_t function, const py::tuple &args, const py::dict &kwargs) {
    Signature signature;
    const Why why = read_call(function, table.device_type, args.ptr(), kwargs.empty() ? Py_None : kwargs.ptr(),
                              &signature);
    if (why != Why::kNone) {
        return py::str(kWhyNames[static_cast<size_t>(why)]);
    }
    auto entry = table.find(signature);
    auto sighting = sighting_of(std::move(signature), std::move(entry));
    sighting->stayed.assign(sighting->objects.size(), false);
    return py::cast(std::move(sighting));
}

// No replay begins after this; the memory behind the entry's pointers may go once its event has passed.
void retire(Entry &entry) {
    const std::shared_ptr<Plan> plan = std::move(entry.plan);
    entry.plan = nullptr;
    if (plan) {
        const py::gil_scoped_release release; // the mutex is only ever waited for without the GIL
        const std::lock_guard<std::mutex> lock(plan->mutex);
        plan->retired = true;
    }
}

// The result, or NotImplemented where nothing was launched.
py::object replay_sighting(Entry &entry, const Sighting &sighting) {
    PyObject *result = replay(entry, sighting.signature.tensors, sighting.signature.stream);
    if (result) {
        return py::reinterpret_steal<py::object>(result);
    }
    if (PyErr_Occurred()) {
        throw py::error_already_set();
    }
    return py::reinterpret_borrow<py::object>(Py_NotImplemented);
}

py::list objects_of(const std::vector<Ref> &refs) {
    py::list list;
    for (const Ref &ref : refs) {
        list.append(py::reinterpret_borrow<py::object>(ref.get()));
    }
    return list;
}

// An entry for the sighting's call, in the table.
std::shared_ptr<Entry> insert(Table &table, const Sighting &sighting) {
    auto entry = std::make_shared<Entry>();
    entry->hash = sighting.signature.hash;
    entry->words = sighting.signature.words;
    for (const Ref &constant : sighting.constants) {
        entry->constants.push_back(keep(constant.get()));
    }
    entry->last_use = ++table.clock;
    table.entries.emplace(entry->hash, entry);
    return entry;
}

bool erase(Table &table, const std::shared_ptr<Entry> &entry) {
    const auto range = table.entries.equal_range(entry->hash);
    for (auto at = range.first; at != range.second; ++at) {
        if (at->second == entry) {
            const std::shared_ptr<Entry> kept = at->second; // its references may run Python as they go
            table.entries.erase(at);
            return true;
        }
    }
    return false;
}

py::dict left_alone(const Table &table) {
    py::dict counts;
    for (int why = 1; why < kNumWhy; ++why) {
        if (table.left_alone[static_cast<size_t>(why)] > 0) {
            counts[kWhyNames[why]] = table.left_alone[static_cast<size_t>(why)];
        }
    }
    return counts;
}

void reset_counts(Table &table) {
    table.misses = table.off = table.hits = 0;
    table.left_alone.fill(0);
}

} // namespace

} // namespace robocache::graphs

namespace robocache {

void add_graph_door(py::module_ &m) {
    using namespace graphs;
    if (PyModule_AddFunctions(m.ptr(), methods) != 0) {
        throw py::error_already_set();
    }
    py::class_<Entry, std::shared_ptr<Entry>>(m, "GraphEntry")
        .def_property(
            "state", [](const Entry &entry) { return static_cast<int32_t>(entry.state); },
            [](Entry &entry, int32_t state) { entry.state = static_cast<State>(state); })
        .def_readwrite("hits", &Entry::hits)
        .def_readonly("eager", &Entry::eager)
        .def_readwrite("generation", &Entry::generation)
        .def_readwrite("last_use", &Entry::last_use)
        .def("arm", &arm)
        .def("retire", &retire)
        .def("replay", &replay_sighting);
    py::class_<Sighting>(m, "GraphSighting")
        .def_property_readonly("hash", [](const Sighting &s) { return s.signature.hash; })
        .def_property_readonly("tensors", [](const Sighting &s) { return objects_of(s.objects); })
        .def_property_readonly("addresses",
                               [](const Sighting &s) {
                                   std::vector<uintptr_t> found;
                                   for (const Leaf &leaf : s.signature.tensors) {
                                       found.push_back(reinterpret_cast<uintptr_t>(leaf.data));
                                   }
                                   return found;
                               })
        .def_property_readonly("spans",
                               [](const Sighting &s) {
                                   std::vector<int64_t> found;
                                   for (const Leaf &leaf : s.signature.tensors) {
                                       found.push_back(leaf.span);
                                   }
                                   return found;
                               })
        .def_readonly("stayed", &Sighting::stayed)
        .def_readonly("ready", &Sighting::ready)
        .def_readonly("entry", &Sighting::entry)
        .def_property_readonly("device_index", [](const Sighting &s) { return s.signature.device_index; });
    py::class_<Table, std::shared_ptr<Table>>(m, "GraphTable")
        .def(py::init([](bool cuda, int32_t capture_after) {
                 auto table = std::make_shared<Table>();
                 table->device_type = cuda ? kCuda : kCpu;
                 table->capture_after = capture_after;
                 return table;
             }),
             py::arg("cuda"), py::arg("capture_after"))
        // The table lives as long as the handle's owner, the cache.
        .def_property_readonly("handle", [](Table &table) { return py::capsule(&table, kTableName); })
        .def("look", &look)
        .def("insert", &insert)
        .def("erase", &erase)
        .def("touch", [](Table &table, Entry &entry) { entry.last_use = ++table.clock; })
        .def(
            "snooze",
            [](Table &table, uint64_t hash, int32_t sightings) {
                Seen::Slot &slot = table.seen.slot(hash);
                slot.hash = hash;
                slot.countdown = sightings;
            },
            "The call with this hash is looked at again after so many sightings.")
        .def("forget",
             [](Table &table) {
                 table.seen = Seen();
                 table.dozing.clear();
             })
        .def("forget_function", [](Table &table, int64_t function) { table.dozing.erase(function); })
        .def("left_alone", &left_alone)
        .def("reset_counts", &reset_counts)
        .def_readwrite("misses", &Table::misses)
        .def_readwrite("off", &Table::off)
        .def_readwrite("hits", &Table::hits)
        .def_readwrite("borrowing", &Table::borrowing)
        .def_property_readonly("size", [](const Table &table) { return table.entries.size(); });
    m.def("configure_graphs", &configure, py::arg("needs"));
    m.def("rebuild_result", &rebuild_result, py::arg("nodes"), py::arg("tensors"),
          "The structure that robocache.graphs.outline described, around tensors.");
    m.def("copy_many", &copy_many, py::arg("to"), py::arg("source"),
          "Copies CUDA tensors onto others of the same shapes and dtypes in one launch.");
    m.def(
        "mend_capture", [](uintptr_t stream) { check(rc_cuda_mend_capture(reinterpret_cast<void *>(stream))); },
        py::arg("stream"));
}

} // namespace robocache
