"""The operations: one declaration each, with the arguments that all backends take.

A declaration takes the arguments of its operation, raises an error for those that no backend can work with, and
returns the outputs, uninitialized. It has three uses: torch.library derives the operation's schema from its signature
and runs it on fake tensors (``registration.py``), and each backend calls it first and then fills the outputs.

Declarations look at types and shapes. Checks of values are in ``checks.py``, since fake tensors have no values.

Shapes: B images, R realizations, rows = R * B with row r * B + b, m_h x m_w patches in an image (numbered
i * m_w + j), L atoms, T coefficients selected in each patch. The outputs of ``draw`` and ``encode`` are a code, with
room for T survivors in each patch: index (rows, m_h, m_w, T) int16, value and projection of the same shape in float32,
and count (rows, m_h, m_w) int32. Slots fill from the front in ascending order of atoms. Slots from ``count`` on are
unused: no backend needs to write them, and none reads them.
"""

from .convolutions import (
    conv_transpose,
    conv_transpose_backward_value,
    conv_transpose_backward_weight,
    dense_conv_transpose,
    dense_conv_transpose_backward_input,
    dense_conv_transpose_backward_weight,
    minimum_output_size,
)
from .declaration import OPERATIONS, require
from .encoder import (
    MAX_ATOMS,
    SURROGATES,
    Code,
    covered_size,
    draw,
    empty_code,
    encode,
    encode_backward,
    select,
    selection_backward,
    used_slots,
)

__all__ = [
    "MAX_ATOMS",
    "OPERATIONS",
    "SURROGATES",
    "Code",
    "conv_transpose",
    "conv_transpose_backward_value",
    "conv_transpose_backward_weight",
    "covered_size",
    "dense_conv_transpose",
    "dense_conv_transpose_backward_input",
    "dense_conv_transpose_backward_weight",
    "draw",
    "empty_code",
    "encode",
    "encode_backward",
    "minimum_output_size",
    "require",
    "select",
    "selection_backward",
    "used_slots",
]
