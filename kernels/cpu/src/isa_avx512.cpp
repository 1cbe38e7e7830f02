#define NEUROAE_ISA isa_avx512
#include "isa.h"
NEUROAE_KERNELS("avx512")
