// The kernels of one instruction set. Each isa_*.cpp includes this file and is compiled with its own flags.
#pragma once

#include "conv_transpose.h"
#include "conv_transpose_weight.h"
#include "encode.h"
#include "encode_backward.h"
#include "selection_backward.h"
#include "winograd.h"
#include "winograd_weight.h"

#define NEUROAE_KERNELS(label)                                                                                    \
    namespace neuroae {                                                                                          \
    namespace NEUROAE_ISA {                                                                                      \
    extern const Kernels kernels = {label, select, draw, encode, encode_backward, selection_backward,            \
                                    conv_transpose, conv_transpose_backward_value,                               \
                                    conv_transpose_backward_weight, convolve, convolve_backward_weight};         \
    }                                                                                                            \
    }
