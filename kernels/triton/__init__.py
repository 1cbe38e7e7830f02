"""The Triton backend: the operations on a GPU, or on CPU tensors under Triton's interpreter (``TRITON_INTERPRET=1``).

The dense convolution is that of the reference, for which PyTorch calls cuDNN.
"""

from ..reference import dense_conv_transpose, dense_conv_transpose_backward_input, dense_conv_transpose_backward_weight
from .conv_transpose import conv_transpose, conv_transpose_backward_value, conv_transpose_backward_weight
from .draw import draw
from .encode import encode
from .encode_backward import encode_backward
from .select import select
from .selection_backward import selection_backward

__all__ = [
    "conv_transpose",
    "conv_transpose_backward_value",
    "conv_transpose_backward_weight",
    "dense_conv_transpose",
    "dense_conv_transpose_backward_input",
    "dense_conv_transpose_backward_weight",
    "draw",
    "encode",
    "encode_backward",
    "select",
    "selection_backward",
]
