// The exported functions: one C function for each operation, on the best instruction set of this processor.
#include <cstdlib>
#include <cstring>
#include <new>

#include "abi.h"
#include "threads.h"

namespace neuroae {

namespace isa_plain {
extern const Kernels kernels;
}
#if defined(__x86_64__)
namespace isa_avx2 {
extern const Kernels kernels;
}
namespace isa_avx512 {
extern const Kernels kernels;
}
#if defined(NEUROAE_HAS_AVX512_BF16)
namespace isa_avx512_bf16 {
extern const Kernels kernels;
}
#endif
#endif

namespace {

// NEUROAE_CPU_ISA (plain, avx2, avx512 or avx512_bf16) lowers the choice, to test all of them on one machine.
const Kernels& choose() {
#if defined(__x86_64__)
    const char* requested = std::getenv("NEUROAE_CPU_ISA");
    auto allowed = [&](const Kernels& kernels) {
        return !requested || !*requested || std::strcmp(requested, kernels.name) == 0;
    };
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#if defined(NEUROAE_HAS_AVX512_BF16)
    if (allowed(isa_avx512_bf16::kernels) && avx512 && __builtin_cpu_supports("avx512bf16"))
        return isa_avx512_bf16::kernels;
#endif
    if (allowed(isa_avx512::kernels) && avx512) return isa_avx512::kernels;
    if (allowed(isa_avx2::kernels) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return isa_avx2::kernels;
#endif
    return isa_plain::kernels;
}

const Kernels& chosen_kernels() {
    static const Kernels& kernels = choose();
    return kernels;
}

// C has no exceptions: lack of memory and threads lost in a fork become a status.
template <class Call>
int32_t guarded(Call&& call) {
    try {
        return call(chosen_kernels());
    } catch (const std::bad_alloc&) {
        return kNoMemory;
    } catch (const ForkedPool&) {
        return kForked;
    }
}

}  // namespace
}  // namespace neuroae

#define NEUROAE_API extern "C" __attribute__((visibility("default")))

using namespace neuroae;

NEUROAE_API const char* neuroae_isa() { return chosen_kernels().name; }

// A digest of the sources that the library was built from.
NEUROAE_API const char* neuroae_sources() { return NEUROAE_SOURCES; }

// The number of structures, then the size of each. A caller without the sources compares them with its own.
NEUROAE_API const int64_t* neuroae_structure_sizes() {
    static const int64_t sizes[] = {10,
                                    sizeof(Images),
                                    sizeof(Dictionary),
                                    sizeof(Draws),
                                    sizeof(Selection),
                                    sizeof(Code),
                                    sizeof(Gradient),
                                    sizeof(Membership),
                                    sizeof(Layer),
                                    sizeof(Maps),
                                    sizeof(Filters)};
    return sizes;
}

NEUROAE_API int32_t neuroae_select(const Images* images, const Dictionary* dictionary, const Selection* out,
                                   int32_t threads) {
    return guarded([&](const Kernels& kernels) { return kernels.select(*images, *dictionary, *out, threads); });
}

NEUROAE_API int32_t neuroae_draw(const Selection* selection, const Dictionary* dictionary, const Draws* draws,
                                 const Code* out, int32_t threads) {
    return guarded(
        [&](const Kernels& kernels) { return kernels.draw(*selection, *dictionary, *draws, *out, threads); });
}

NEUROAE_API int32_t neuroae_encode(const Images* images, const Dictionary* dictionary, const Draws* draws,
                                   const Code* out, int32_t threads) {
    return guarded([&](const Kernels& kernels) { return kernels.encode(*images, *dictionary, *draws, *out, threads); });
}

NEUROAE_API int32_t neuroae_encode_backward(const float* grad_value, const Code* code, const Dictionary* dictionary,
                                            const Gradient* gradient, float* out, int32_t threads) {
    return guarded([&](const Kernels& kernels) {
        return kernels.encode_backward(grad_value, *code, *dictionary, *gradient, out, threads);
    });
}

NEUROAE_API int32_t neuroae_selection_backward(const Images* images, const Dictionary* dictionary,
                                               const Membership* membership, float* out, int32_t threads) {
    return guarded([&](const Kernels& kernels) {
        return kernels.selection_backward(*images, *dictionary, *membership, out, threads);
    });
}

NEUROAE_API int32_t neuroae_conv_transpose(const Code* code, const Layer* layer, void* out, int32_t threads) {
    return guarded([&](const Kernels& kernels) { return kernels.conv_transpose(*code, *layer, out, threads); });
}

NEUROAE_API int32_t neuroae_conv_transpose_backward_value(const void* grad, const void* output, const Code* code,
                                                          const Layer* layer, float* grad_value, int32_t threads) {
    return guarded([&](const Kernels& kernels) {
        return kernels.conv_transpose_backward_value(grad, output, *code, *layer, grad_value, threads);
    });
}

NEUROAE_API int32_t neuroae_conv_transpose_backward_weight(const void* grad, const void* output, const Code* code,
                                                           const Layer* layer, float* grad_weight, float* grad_bias,
                                                           int32_t threads) {
    return guarded([&](const Kernels& kernels) {
        return kernels.conv_transpose_backward_weight(grad, output, *code, *layer, grad_weight, grad_bias, threads);
    });
}

NEUROAE_API int32_t neuroae_convolve(const Maps* maps, const Filters* filters, void* out, int32_t threads) {
    return guarded([&](const Kernels& kernels) { return kernels.convolve(*maps, *filters, out, threads); });
}

NEUROAE_API int32_t neuroae_convolve_backward_weight(const Maps* moved, const Maps* fixed, float* grad_weight,
                                                     float* map_sums, int32_t threads) {
    return guarded([&](const Kernels& kernels) {
        return kernels.convolve_backward_weight(*moved, *fixed, grad_weight, map_sums, threads);
    });
}
