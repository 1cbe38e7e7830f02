#include "threads.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace neuroae {
namespace {

// Uses the OpenMP runtime that PyTorch has loaded, and does not link one: a second runtime would have a second pool of
// threads, and the two would compete for the cores. GNU's, LLVM's and Intel's runtimes all have these functions.
struct OpenMP {
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned);
    int (*thread_number)();
    int (*team_size)();
    bool survives_forks;  // LLVM's and Intel's start new threads in the child, GNU's does not

    OpenMP() {
        parallel = reinterpret_cast<decltype(parallel)>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
        thread_number = reinterpret_cast<decltype(thread_number)>(dlsym(RTLD_DEFAULT, "omp_get_thread_num"));
        team_size = reinterpret_cast<decltype(team_size)>(dlsym(RTLD_DEFAULT, "omp_get_num_threads"));
        survives_forks = dlsym(RTLD_DEFAULT, "__kmpc_fork_call") != nullptr;
    }
    bool is_available() const { return parallel && thread_number && team_size; }
};

const OpenMP& openmp() {
    static const OpenMP runtime;
    return runtime;
}

struct Region {
    int64_t tasks;
    RangeFunction function;
    void* context;
    std::atomic<bool> no_memory{false};

    // No exception may leave a thread of the runtime.
    void run(int64_t part, int64_t parts) {
        int64_t begin = tasks * part / parts, end = tasks * (part + 1) / parts;
        if (begin >= end) return;
        try {
            function(context, begin, end);
        } catch (const std::bad_alloc&) {
            no_memory = true;
        }
    }
};

// Each thread that computes in parallel has its own pool, which works only in the process that created it.
void refuse_forked_pool() {
    static thread_local pid_t owner = 0;
    const pid_t process = getpid();
    if (owner != 0 && owner != process) throw ForkedPool{};
    owner = process;
}

void run_openmp_part(void* data) {
    static_cast<Region*>(data)->run(openmp().thread_number(), openmp().team_size());
}

}  // namespace

void parallel_ranges(int64_t tasks, int threads, RangeFunction function, void* context) {
    Region region{tasks, function, context};
    int64_t parts = std::min<int64_t>(threads, tasks);
    if (parts <= 1) {
        region.run(0, 1);
    } else if (openmp().is_available()) {
        if (!openmp().survives_forks) refuse_forked_pool();
        openmp().parallel(run_openmp_part, &region, static_cast<unsigned>(parts), 0);
    } else {
        std::vector<std::thread> others;
        others.reserve(parts);
        int64_t part = 1;
        try {
            for (; part < parts; ++part) others.emplace_back(&Region::run, &region, part, parts);
        } catch (const std::system_error&) {
            // The system gives no more threads: this one does the rest.
            for (; part < parts; ++part) region.run(part, parts);
        }
        region.run(0, parts);
        for (std::thread& other : others) other.join();
    }
    if (region.no_memory) throw std::bad_alloc();
}

}  // namespace neuroae
