"""The 3 x 3 transposed convolution that takes most of a defense's time: the decoder's second layer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import backend_name
from ..kernels.ops import minimum_output_size
from ..utils.contexts import autocast_dtype
from ..utils.devices import has_matrix_units
from .autograd import ConvTranspose, DenseConvTranspose, LayerSettings
from .code import SparseCode


class SparseConvTranspose2d(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` that also takes a SparseCode, and then does only the work of its survivors.

    Parameters and state_dict are those of ``nn.ConvTranspose2d``. The weight is kept in channels_last memory order,
    in which the weights of one atom lie together. A dense tensor, ``groups`` or ``dilation`` other than 1 take the
    dense layer. Under autocast the output has autocast's dtype, accumulated in float32.
    """

    def reset_parameters(self) -> None:
        self.weight.data = self.weight.data.contiguous(memory_format=torch.channels_last)
        super().reset_parameters()

    def forward(
        self, input: SparseCode | Tensor, output_size: list[int] | None = None, *, relu: bool = False
    ) -> Tensor:
        """
        Args:
            input: a SparseCode of L = in_channels atoms, or a dense (rows, L, m_h, m_w) tensor.
            output_size: as in ``nn.ConvTranspose2d``.
            relu: apply ReLU to the result in the same pass.

        Returns:
            (rows, C_out, H, W), channels_last.
        """
        if isinstance(input, Tensor):
            dense = super().forward(input, output_size)
            return F.relu(dense) if relu else dense
        if not isinstance(input, SparseCode):
            raise TypeError(f"input is a {type(input).__name__}, expected a SparseCode or a tensor")
        if input.atoms != self.in_channels:
            raise ValueError(f"input is a code over {input.atoms} atoms, expected {self.in_channels}")
        # Once: a parametrization may make another weight of itself each time.
        weight, bias = self.weight, self.bias
        if input.index.device != weight.device:
            raise ValueError(f"input is on {input.index.device}, expected {weight.device}, where the weight is")
        if self.groups != 1 or self.dilation != (1, 1):
            return self.forward(input.to_dense().to(weight.dtype), output_size, relu=relu)
        dtype = autocast_dtype(weight.device) or weight.dtype
        padding = tuple(int(rows) for rows in self.padding)
        output_padding = self.sparse_output_padding(input, output_size, weight)
        return ConvTranspose.apply(
            input.index,
            input.value,
            input.count,
            input.membership,
            weight,
            bias,
            weight.detach().to(dtype),
            None if bias is None else bias.detach().to(dtype),
            LayerSettings(input.backend, self.stride, padding, output_padding, relu),
        )

    def sparse_output_padding(
        self, code: SparseCode, output_size: list[int] | None, weight: Tensor
    ) -> tuple[int, ...]:
        """Rows and columns added at the end, from ``output_size`` if given."""
        if output_size is None:
            return tuple(int(extra) for extra in self.output_padding)
        if len(output_size) < 2:
            raise ValueError(f"output_size is {output_size}, expected height and width")
        sizes = minimum_output_size(code.index, weight, self.stride, [int(rows) for rows in self.padding])
        extra = tuple(wanted - size for wanted, size in zip(output_size[-2:], sizes, strict=True))
        if not all(0 <= more < step for more, step in zip(extra, self.stride, strict=True)):
            raise ValueError(f"output_size is {tuple(output_size[-2:])}, expected from {sizes} by less than a stride")
        return extra


class WinogradConvTranspose2d(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` with 3 x 3 filters and stride 1 that Winograd's minimal filtering computes on the CPU.

    A quarter of the multiplications. Outputs are computed in float32 whatever the input's dtype, and are those of the
    dense layer to 1e-5 of the greatest. So are gradients in float32; those of bfloat16 maps come of products of
    bfloat16 numbers where the processor multiplies these (AVX512_BF16), with a root mean square error of about a
    hundredth of the gradient's. Parameters and state_dict are those of ``nn.ConvTranspose2d``, and so is everything
    that the C++ backend has no faster way for: other devices, float64, bfloat16 on a processor with matrix units, and
    other settings of the layer. Under autocast the output has autocast's dtype.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None, *, relu: bool = False) -> Tensor:
        """
        Args:
            input: (rows, C_in, H, W).
            output_size: as in ``nn.ConvTranspose2d``.
            relu: apply ReLU to the result in the same pass.

        Returns:
            (rows, C_out, H + 2, W + 2), channels_last from the C++ backend.
        """
        # Once: a parametrization may make another weight of itself each time.
        weight, bias = self.weight, self.bias
        dtype = autocast_dtype(input.device) or weight.dtype
        if output_size is not None or not self.suits(input, weight, dtype):
            dense = super().forward(input, output_size)
            return F.relu(dense) if relu else dense
        return DenseConvTranspose.apply(input.to(dtype), weight.float(), None if bias is None else bias.float(), relu)

    def suits(self, input: Tensor, weight: Tensor, dtype: torch.dtype) -> bool:
        """Whether the C++ backend takes this layer and is the fastest for it, computing in ``dtype``."""
        plain = self.kernel_size == (3, 3) and self.stride == self.dilation == (1, 1) and self.groups == 1
        unpadded = self.padding == self.output_padding == (0, 0)
        # Autocast brings all but float64 to its own.
        automatic = autocast_dtype(input.device) is not None
        alike = torch.float64 not in (input.dtype, weight.dtype) if automatic else input.dtype == dtype
        maps = input.device.type == "cpu" and input.dim() == 4
        return plain and unpadded and alike and maps and backend_is_faster(dtype)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def backend_is_faster(dtype: torch.dtype) -> bool:
    """Whether the C++ backend runs here, and a dtype is one that it is the fastest for."""
    known = dtype == torch.float32 or (dtype == torch.bfloat16 and not has_matrix_units())
    return known and backend_name("cpu") == "cpu"
