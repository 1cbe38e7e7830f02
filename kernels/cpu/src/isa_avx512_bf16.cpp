#define NEUROAE_ISA isa_avx512_bf16
#include "isa.h"
NEUROAE_KERNELS("avx512_bf16")
