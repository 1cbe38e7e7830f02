// Parallel loops on the OpenMP runtime that the process already has.
#pragma once

#include <cstdint>

namespace neuroae {

using RangeFunction = void (*)(void* context, int64_t begin, int64_t end);

// This thread has computed in parallel before its process was forked, and the other threads are not in the child: the
// runtime would wait for them for ever.
struct ForkedPool {};

// Cuts 0 .. tasks - 1 into one contiguous range a thread. Throws std::bad_alloc where one of them did, and ForkedPool.
void parallel_ranges(int64_t tasks, int threads, RangeFunction function, void* context);

template <class Body>
void parallel_for(int64_t tasks, int threads, Body&& body) {
    parallel_ranges(
        tasks, threads, [](void* context, int64_t begin, int64_t end) { (*static_cast<Body*>(context))(begin, end); },
        &body);
}

}  // namespace neuroae
