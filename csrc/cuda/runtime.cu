// Availability, device scope and the fault note.
#include "runtime.h"

#include <atomic>
#include <cstdio>
#include <cstring>
#include <mutex>

namespace rc {

namespace {

constexpr int kMaxDevices = 64;  // more than any host holds

// Static storage on every device: nothing is allocated, and capture never sees it.
__device__ rc_fault_report g_fault_note;

struct Availability {
    bool usable = false;
    char why_not[256] = "";
};

const Availability& availability() {
    static const Availability found = [] {
        Availability a;
        int count = 0;
        const cudaError_t error = cudaGetDeviceCount(&count);
        if (error != cudaSuccess) {
            std::snprintf(a.why_not, sizeof a.why_not, "the CUDA driver did not answer: %s", cudaGetErrorString(error));
            (void)cudaGetLastError();
        } else if (count == 0) {
            std::snprintf(a.why_not, sizeof a.why_not, "no CUDA device is visible");
        } else {
            a.usable = true;
        }
        return a;
    }();
    return found;
}

}  // namespace

rc_status check_cuda(cudaError_t error, const char* what) {
    if (error == cudaSuccess) {
        return RC_OK;
    }
    return rc_fail(RC_CUDA_ERROR, "%s failed: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

DeviceScope::DeviceScope(int32_t device) {
    int current = -1;
    status_ = check_cuda(cudaGetDevice(&current), "cudaGetDevice");
    if (status_ == RC_OK && current != device) {
        status_ = check_cuda(cudaSetDevice(device), "cudaSetDevice");
        if (status_ == RC_OK) {
            previous_ = current;
        }
    }
}

DeviceScope::~DeviceScope() {
    if (previous_ >= 0) {
        (void)cudaSetDevice(previous_);  // it was current before, so it can be again
    }
}

namespace {

// An attribute of a device, asked once; `otherwise` where it cannot be had. `known` holds one more than the value.
int attribute(std::atomic<int>* known, int32_t device, cudaDeviceAttr which, int otherwise) {
    if (device < 0 || device >= kMaxDevices) {
        return otherwise;
    }
    int value = known[device].load(std::memory_order_relaxed) - 1;
    if (value < 0) {
        if (cudaDeviceGetAttribute(&value, which, device) != cudaSuccess) {
            (void)cudaGetLastError();
            return otherwise;
        }
        known[device].store(value + 1, std::memory_order_relaxed);
    }
    return value;
}

}  // namespace

int multiprocessors(int32_t device) {
    static std::atomic<int> known[kMaxDevices];
    return attribute(known, device, cudaDevAttrMultiProcessorCount, 1);
}

int shared_memory(int32_t device) {
    static std::atomic<int> known[kMaxDevices];
    return attribute(known, device, cudaDevAttrMaxSharedMemoryPerBlockOptin, 48 * 1024);
}

bool launches_early(int32_t device) {
    static std::atomic<int> known[kMaxDevices];
    return attribute(known, device, cudaDevAttrComputeCapabilityMajor, 0) >= 9;
}

int compute_capability(int32_t device) {
    static std::atomic<int> major[kMaxDevices];
    static std::atomic<int> minor[kMaxDevices];
    return 10 * attribute(major, device, cudaDevAttrComputeCapabilityMajor, 0) +
           attribute(minor, device, cudaDevAttrComputeCapabilityMinor, 0);
}

rc_status fault_note(int32_t device, rc_fault_report** note) {
    static std::atomic<rc_fault_report*> known[kMaxDevices];
    if (device < 0 || device >= kMaxDevices) {
        return rc_fail(RC_INVALID_ARGUMENT, "device: expected 0 .. %d, got %d", kMaxDevices - 1, device);
    }
    rc_fault_report* address = known[device].load(std::memory_order_acquire);
    if (address == nullptr) {
        void* symbol = nullptr;
        const rc_status status = check_cuda(cudaGetSymbolAddress(&symbol, g_fault_note), "cudaGetSymbolAddress");
        if (status != RC_OK) {
            return status;
        }
        address = static_cast<rc_fault_report*>(symbol);
        known[device].store(address, std::memory_order_release);
    }
    *note = address;
    return RC_OK;
}

}  // namespace rc

extern "C" bool rc_cuda_available(void) {
    return rc::availability().usable;
}

extern "C" const char* rc_cuda_why_not(void) {
    return rc::availability().why_not;
}

extern "C" rc_status rc_cuda_take_fault(int32_t device, rc_fault_report* report) {
    if (report == nullptr) {
        return rc_fail(RC_INVALID_ARGUMENT, "report: expected a pointer, got NULL");
    }
    std::memset(report, 0, sizeof *report);
    if (!rc_cuda_available()) {
        return rc_fail(RC_NO_CUDA, "rc_cuda_take_fault: %s", rc_cuda_why_not());
    }
    rc::DeviceScope scope(device);
    if (scope.status() != RC_OK) {
        return scope.status();
    }
    rc_fault_report* note = nullptr;
    rc_status status = rc::fault_note(device, &note);
    if (status == RC_OK) {
        status = rc::check_cuda(cudaDeviceSynchronize(), "waiting for the device");
    }
    if (status == RC_OK) {
        status = rc::check_cuda(cudaMemcpy(report, note, sizeof *report, cudaMemcpyDeviceToHost),
                                "reading the fault note");
    }
    if (status == RC_OK && report->fault != RC_FAULT_NONE) {
        status = rc::check_cuda(cudaMemset(note, 0, sizeof *report), "clearing the fault note");
    }
    return status;
}
