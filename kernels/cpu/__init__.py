"""The C++ engine: the operations of ``reference.py`` on CPU tensors, on ``torch.get_num_threads()`` threads."""

from .codes import draw, encode, encode_backward, select, selection_backward
from .convolutions import (
    conv_transpose,
    conv_transpose_backward_value,
    conv_transpose_backward_weight,
    dense_conv_transpose,
    dense_conv_transpose_backward_input,
    dense_conv_transpose_backward_weight,
)
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
