// NumPy arrays as the doors' views, and threads for CPU kernels where there is no torch to lend its own.
#ifndef ROBOCACHE_PYTHON_ARRAYS_H
#define ROBOCACHE_PYTHON_ARRAYS_H

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <thread>
#include <vector>

#include "../doors/view.h"

namespace robocache {

// An array as a view. NumPy counts strides in bytes; robocache/_arrays.py sees to it that they are whole elements.
struct ArrayView : View {
    std::vector<int64_t> shape_store, stride_store;
    pybind11::object owner;

    ArrayView(const pybind11::object &object, int32_t rc_dtype) : owner(object) {
        if (object.is_none()) {
            return;
        }
        const auto array = object.cast<pybind11::array>();
        ndim = static_cast<int32_t>(array.ndim());
        dtype = rc_dtype;
        int64_t dense = 1;
        for (pybind11::ssize_t d = array.ndim(); d-- > 0;) {
            shape_store.insert(shape_store.begin(), array.shape(d));
            // An array without elements may have any strides; here they are those of a contiguous one.
            stride_store.insert(stride_store.begin(), array.size() == 0 ? dense : array.strides(d) / array.itemsize());
            dense *= array.shape(d) > 1 ? array.shape(d) : 1;
        }
        shape_store.push_back(0); // never empty: a view without sizes is one that was not given
        stride_store.push_back(0);
        sizes = shape_store.data();
        strides = stride_store.data();
        data = const_cast<void *>(array.data());
    }
    // The views above point into the vectors.
    ArrayView(ArrayView &&) = default;
    ArrayView(const ArrayView &) = delete;
};

// Runs pieces of a range on threads of its own, for the time of one call.
struct Threads {
    int64_t count;

    // The kernel's parallel_for and pool; NULL where one thread is all there is.
    rc_parallel_for_fn runner() const {
        return count > 1 ? &Threads::parallel_for : nullptr;
    }

    static void parallel_for(void *pool, int64_t count, int64_t grain, rc_range_fn body, void *context) {
        const int64_t limit = static_cast<const Threads *>(pool)->count;
        const int64_t pieces = grain > 0 ? (count + grain - 1) / grain : count;
        const int64_t workers = pieces < limit ? pieces : limit;
        if (workers <= 1) {
            body(0, count, context);
            return;
        }
        const int64_t share = (count + workers - 1) / workers;
        std::vector<std::thread> threads;
        int64_t begin = share; // the first share is this thread's own
        try {
            threads.reserve(static_cast<size_t>(workers - 1));
            for (; begin < count; begin += share) {
                const int64_t end = begin + share < count ? begin + share : count;
                threads.emplace_back(body, begin, end, context);
            }
        } catch (const std::exception &) {
            body(begin, count, context); // no thread to be had: the rest runs here
        }
        body(0, share < count ? share : count, context);
        for (std::thread &thread : threads) {
            thread.join();
        }
    }
};

} // namespace robocache

#endif // ROBOCACHE_PYTHON_ARRAYS_H
