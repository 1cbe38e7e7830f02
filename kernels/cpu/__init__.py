"""The C++ backend: the operations on CPU tensors, on ``torch.get_num_threads()`` threads."""

from .convolutions import (
    conv_transpose,
    conv_transpose_backward_value,
    conv_transpose_backward_weight,
    dense_conv_transpose,
    dense_conv_transpose_backward_input,
    dense_conv_transpose_backward_weight,
)
from .encoder import draw, encode, encode_backward, select, selection_backward
from .library import digest, instruction_set, library

__all__ = [
    "conv_transpose",
    "conv_transpose_backward_value",
    "conv_transpose_backward_weight",
    "dense_conv_transpose",
    "dense_conv_transpose_backward_input",
    "dense_conv_transpose_backward_weight",
    "digest",
    "draw",
    "encode",
    "encode_backward",
    "instruction_set",
    "library",
    "select",
    "selection_backward",
]
