"""The transposed convolution that takes a compact code: the decoder's first layer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .autograd import ConvTranspose
from .code import SparseCode
from .contexts import autocast_dtype
from .kernels.conv_shapes import least_output


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
        return ConvTranspose.apply(
            input.backend,
            input.index,
            input.value,
            input.count,
            weight,
            bias,
            weight.detach().to(dtype),
            None if bias is None else bias.detach().to(dtype),
            self.stride,
            self.padding,
            self.sparse_output_padding(input, output_size, weight),
            relu,
            input.membership,
        )

    def sparse_output_padding(
        self, code: SparseCode, output_size: list[int] | None, weight: Tensor
    ) -> tuple[int, ...]:
        """Rows and columns added at the end, from ``output_size`` if given."""
        if output_size is None:
            return tuple(int(extra) for extra in self.output_padding)
        if len(output_size) < 2:
            raise ValueError(f"output_size is {output_size}, expected height and width")
        sizes = least_output(code.index, weight, self.stride, [int(rows) for rows in self.padding])
        extra = tuple(wanted - size for wanted, size in zip(output_size[-2:], sizes, strict=True))
        if not all(0 <= more < step for more, step in zip(extra, self.stride, strict=True)):
            raise ValueError(f"output_size is {tuple(output_size[-2:])}, expected from {sizes} by less than a stride")
        return extra
