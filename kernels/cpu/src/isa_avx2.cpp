#define NEUROAE_ISA isa_avx2
#include "isa.h"
NEUROAE_KERNELS("avx2")
