// The engine of one instruction set: included by isa_*.cpp, each compiled with its own flags.
#pragma once

#include "conv_transpose.h"
#include "conv_transpose_weight.h"
#include "encode.h"
#include "encode_backward.h"
#include "selection_backward.h"
#include "winograd.h"
#include "winograd_weight.h"

#define NEUROAE_ENGINE(label)                                                                                    \
    namespace neuroae {                                                                                          \
    namespace NEUROAE_ISA {                                                                                      \
    extern const Engine engine = {label, select, draw, encode, encode_backward, selection_backward,              \
                                  conv_transpose, conv_transpose_backward_value, conv_transpose_backward_weight, convolve,       \
                                  convolve_backward_weight};                                                     \
    }                                                                                                            \
    }
