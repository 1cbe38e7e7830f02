"""The decoder's first two layers: a transposed convolution of sparse codes, and a fast 3 x 3 one of dense maps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import backend_name
from ..kernels.ops import minimum_output_size
from ..utils.contexts import autocast_dtype
from ..utils.devices import has_matrix_units
from .code import SparseCode
from .layer_autograd import ConvTranspose, DenseConvTranspose, LayerSettings

# The share of atoms that survive, above which the dense product is faster on a CPU, by the dtype. Forward and gradient
# to the values cross at a share of 0.3 in float32, and between 0.1 and 0.2 in bfloat16 (bench/test_crossover.py).
DENSE_SHARES = {torch.float32: 0.3, torch.bfloat16: 0.15}


class SparseConvTranspose2d(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` that also takes a SparseCode, for which it computes only with the survivors.

    Arguments, parameters and state_dict are those of ``nn.ConvTranspose2d``. The weight is in channels_last memory
    order, in which the weights of one atom are adjacent. The dense layer computes dense tensors, and codes if
    ``groups`` or ``dilation`` is not 1, or if so many atoms survive that it is faster (see ``is_dense``). Under
    autocast the output has autocast's dtype; sums are in float32.
    """

    def reset_parameters(self) -> None:
        self.weight.data = self.weight.data.contiguous(memory_format=torch.channels_last)
        super().reset_parameters()

    def forward(
        self, input: SparseCode | Tensor, output_size: list[int] | None = None, *, relu: bool = False
    ) -> Tensor:
        """Computes the transposed convolution.

        Args:
            input: A SparseCode of L = in_channels atoms, or a dense (rows, L, m_h, m_w) tensor.
            output_size: Height and width of the output, as in ``nn.ConvTranspose2d``.
            relu: Applies ReLU to the result in the same pass.

        Returns:
            (rows, C_out, H, W), channels_last.

        Raises:
            TypeError: ``input`` is neither a SparseCode nor a tensor.
            ValueError: The code has another number of atoms or is on another device than the weight, or
                ``output_size`` is not possible for this layer.
        """
        if isinstance(input, Tensor):
            dense = super().forward(input, output_size)
            return F.relu(dense) if relu else dense
        if not isinstance(input, SparseCode):
            raise TypeError(f"input is a {type(input).__name__}, expected a SparseCode or a tensor")
        if input.atoms != self.in_channels:
            raise ValueError(f"input is a code over {input.atoms} atoms, expected {self.in_channels}")
        # Read once: a parametrization may compute another weight at each access.
        weight, bias = self.weight, self.bias
        index, value, _, count = input.parts
        if index.device != weight.device:
            raise ValueError(f"input is on {index.device}, expected {weight.device}, where the weight is")
        if self.groups != 1 or self.dilation != (1, 1):
            return self.forward(input.to_dense().to(weight.dtype), output_size, relu=relu)
        dtype = autocast_dtype(weight.device) or weight.dtype
        if is_dense(input, dtype):
            return self.forward(input.to_dense().to(weight.dtype), output_size, relu=relu)
        padding = tuple(int(rows) for rows in self.padding)
        output_padding = self.sparse_output_padding(input, output_size, weight)
        return ConvTranspose.apply(
            index,
            value,
            count,
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
        """Returns how many rows and columns are added at the end of the smallest output."""
        if output_size is None:
            return tuple(int(extra) for extra in self.output_padding)
        if len(output_size) < 2:
            raise ValueError(f"output_size is {output_size}, expected height and width")
        sizes = minimum_output_size(code.count, weight, self.stride, [int(rows) for rows in self.padding])
        extra = tuple(side - size for side, size in zip(output_size[-2:], sizes, strict=True))
        if not all(0 <= more < step for more, step in zip(extra, self.stride, strict=True)):
            raise ValueError(
                f"output_size is {tuple(output_size[-2:])}, expected at least {sizes}, and less than a stride more"
            )
        return extra


def is_dense(code: SparseCode, dtype: torch.dtype) -> bool:
    """Returns whether the dense product is faster for a code than the gather of its survivors.

    The answer depends on the encoder's settings alone, not on the images, so that an image has the same bits in every
    batch. On a GPU the gather always computes codes.
    """
    if code.survivors is None or code.count.device.type != "cpu":
        return False
    return code.survivors > DENSE_SHARES.get(dtype, 1) * code.atoms


class WinogradConvTranspose2d(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` that computes 3 x 3 filters with stride 1 by Winograd's minimal filtering on the CPU.

    This takes a quarter of the multiplications. Outputs are computed in float32 for every input dtype, and agree with
    the dense layer to 1e-5 of the largest output. Gradients in float32 agree as well. For bfloat16 maps, gradients use
    bfloat16 products on processors that have them (AVX512_BF16); their root mean square error is about 1%. Parameters
    and state_dict are those of ``nn.ConvTranspose2d``. The layer falls back to ``nn.ConvTranspose2d`` where the C++
    backend is not faster: on other devices, in float64, in bfloat16 on a processor with matrix units, and for other
    settings of the layer. Under autocast the output has autocast's dtype.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None, *, relu: bool = False) -> Tensor:
        """Computes the transposed convolution.

        Args:
            input: (rows, C_in, H, W).
            output_size: Height and width of the output, as in ``nn.ConvTranspose2d``.
            relu: Applies ReLU to the result in the same pass.

        Returns:
            (rows, C_out, H + 2, W + 2), channels_last from the C++ backend.
        """
        # Read once: a parametrization may compute another weight at each access.
        weight, bias = self.weight, self.bias
        dtype = autocast_dtype(input.device) or weight.dtype
        if output_size is not None or not self.suits(input, weight, dtype):
            dense = super().forward(input, output_size)
            return F.relu(dense) if relu else dense
        return DenseConvTranspose.apply(input.to(dtype), weight.float(), None if bias is None else bias.float(), relu)

    def suits(self, input: Tensor, weight: Tensor, dtype: torch.dtype) -> bool:
        """Returns whether the C++ backend supports this layer and input, and is the fastest in ``dtype``."""
        plain = self.kernel_size == (3, 3) and self.stride == self.dilation == (1, 1) and self.groups == 1
        unpadded = self.padding == self.output_padding == (0, 0)
        # Autocast casts every dtype but float64.
        casts = autocast_dtype(input.device) is not None
        same_dtype = torch.float64 not in (input.dtype, weight.dtype) if casts else input.dtype == dtype
        on_cpu = input.device.type == "cpu" and input.dim() == 4
        return plain and unpadded and same_dtype and on_cpu and backend_is_faster(dtype)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def backend_is_faster(dtype: torch.dtype) -> bool:
    """Returns whether the C++ backend runs here and is the fastest in this dtype."""
    is_fastest = dtype == torch.float32 or (dtype == torch.bfloat16 and not has_matrix_units())
    return is_fastest and backend_name("cpu") == "cpu"
