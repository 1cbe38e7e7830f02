// Parallel loops on the OpenMP runtime that the process already has.
#pragma once

#include <cstdint>

namespace neuroae {

using RangeFunction = void (*)(void* context, int64_t begin, int64_t end);

// The process was forked from one that had computed in parallel. Its other threads do not exist in the child, and the
// OpenMP runtime would wait for them forever.
struct ForkedPool {};

// Divides 0 .. tasks - 1 into one contiguous range for each thread. Throws std::bad_alloc if `function` does in any
// thread, and ForkedPool.
void parallel_ranges(int64_t tasks, int threads, RangeFunction function, void* context);

template <class Body>
void parallel_for(int64_t tasks, int threads, Body&& body) {
    parallel_ranges(
        tasks, threads, [](void* context, int64_t begin, int64_t end) { (*static_cast<Body*>(context))(begin, end); },
        &body);
}

}  // namespace neuroae
