// Memory for large outputs and for scratch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace neuroae {

// Asks for large pages under an output that is about to be written from end to end. The memory of a large tensor is
// usually new from the operating system, and getting it in pages of 4 KiB costs more than writing it.
inline void expect_writes(void* data, std::size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr std::uintptr_t kPage = std::uintptr_t{2} << 20;
    const std::uintptr_t start = (reinterpret_cast<std::uintptr_t>(data) + kPage - 1) & ~(kPage - 1);
    const std::uintptr_t end = (reinterpret_cast<std::uintptr_t>(data) + bytes) & ~(kPage - 1);
    if (end > start) madvise(reinterpret_cast<void*>(start), end - start, MADV_HUGEPAGE);
#else
    (void)data;
    (void)bytes;
#endif
}

// Uninitialized elements, aligned to a cache line.
template <class E>
class Scratch {
  public:
    explicit Scratch(int64_t count)
        : elements(static_cast<E*>(::operator new(count * sizeof(E), std::align_val_t{kLine}))) {}
    E* data() const { return elements.get(); }

  private:
    static constexpr std::size_t kLine = 64;
    struct Release {
        void operator()(E* memory) const { ::operator delete(memory, std::align_val_t{kLine}); }
    };
    std::unique_ptr<E, Release> elements;
};

}  // namespace neuroae
