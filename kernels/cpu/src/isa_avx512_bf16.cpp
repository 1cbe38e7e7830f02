#define NEUROAE_ISA isa_avx512_bf16
#include "isa.h"
NEUROAE_ENGINE("avx512_bf16")
