"""The operations on a GPU, in Triton; under its interpreter (``TRITON_INTERPRET=1``) on CPU tensors.

The dense convolution is the reference's, which is cuDNN's.
"""

from ..reference import dense_conv_transpose, dense_conv_transpose_backward_input, dense_conv_transpose_backward_weight
from .backward import encode_backward
from .conv_transpose import conv_transpose
from .conv_transpose_backward import conv_transpose_backward_value, conv_transpose_backward_weight
from .draw import draw
from .encode import encode
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
