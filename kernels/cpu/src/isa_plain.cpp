#define NEUROAE_ISA isa_plain
#include "isa.h"
NEUROAE_KERNELS("plain")
