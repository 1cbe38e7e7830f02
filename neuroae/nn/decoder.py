"""The CNN decoder (paper, section 2.3): from the sparse code back to the size of the image."""

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.validation import check_number
from .code import SparseCode
from .convolutions import SparseConvTranspose2d, WinogradConvTranspose2d
from .layer_autograd import SmoothClamp

CLAMP_WIDTH = 10.0


class Decoder(nn.Module):
    """Three transposed convolutions with a ReLU after each. Crops the result to the image and clamps it to [0, 1].

    Args:
        in_channels: The number of atoms, L.
        kernel_size: The kernel size of the first layer; the others have 3.
        stride: The stride of the first layer; the others have 1.
        image_size: Height and width of the output, or one number for both.
        out_channels: The number of the image's channels, C.
        resize: Enlarges the first layer's output to image_size + 2 (bicubic), like the published Imagenette decoder.
        clamp_width: For the surrogate "selection" only: the last ReLU and the clamp pass the gradient times
            1 / (1 + (d / clamp_width)^2), with d the distance of their input to [0, 1]. Most pixels of a trained
            decoder are exactly 0 or 1, where the true derivative is 0.

    Raises:
        TypeError, ValueError: ``clamp_width`` is not a number above 0.
    """

    def __init__(
        self,
        in_channels: int = 500,
        kernel_size: int = 4,
        stride: int = 2,
        image_size: int | tuple[int, int] = 32,
        out_channels: int = 3,
        resize: bool = False,
        clamp_width: float = CLAMP_WIDTH,
    ) -> None:
        super().__init__()
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        self.resize = resize
        self.clamp_width = clamp_width
        self.conv1 = SparseConvTranspose2d(in_channels, 300, kernel_size, stride)
        self.conv2 = WinogradConvTranspose2d(300, 100, 3)
        self.conv3 = nn.ConvTranspose2d(100, out_channels, 3)
        for layer in (self.conv2, self.conv3):
            layer.to(memory_format=torch.channels_last)

    def config(self) -> dict[str, Any]:
        """Returns the arguments by name, as values that JSON can hold."""
        return {
            "in_channels": self.conv1.in_channels,
            "kernel_size": self.conv1.kernel_size[0],
            "stride": self.conv1.stride[0],
            "image_size": list(self.image_size),
            "out_channels": self.conv3.out_channels,
            "resize": self.resize,
            "clamp_width": self.clamp_width,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Returns an untrained decoder with the arguments that ``config`` returned."""
        return cls(**config | {"image_size": tuple(config["image_size"])})

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "clamp_width":
            check_number(name, value, lambda width: width > 0, "above 0")
        super().__setattr__(name, value)

    def extra_repr(self) -> str:
        width = "" if self.clamp_width == CLAMP_WIDTH else f", clamp_width={self.clamp_width:.5g}"
        return f"image_size={self.image_size}, resize={self.resize}{width}"

    def forward(self, code: SparseCode | Tensor) -> Tensor:
        """Decodes a SparseCode or a dense (rows, L, m_h, m_w) tensor to images (rows, C, H, W) in [0, 1]."""
        smooth = isinstance(code, SparseCode) and code.carries_membership
        return self.finish(self.conv1(code, relu=True), smooth)

    def finish(self, hidden: Tensor, smooth: bool) -> Tensor:
        """Computes the images from the first layer's output.

        Args:
            hidden: (rows, 300, h, w), after the ReLU.
            smooth: Whether the clamp has the smooth gradient of ``clamp_width`` instead of the true one.
        """
        if self.resize:
            size = [side + 2 for side in self.image_size]
            hidden = F.interpolate(hidden, size, mode="bicubic", align_corners=False)
        image = crop(self.conv3(self.conv2(hidden, relu=True)), self.image_size)
        return SmoothClamp.apply(image, self.clamp_width) if smooth else F.relu(image).clamp(0, 1)


def crop(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """Returns the centre of the images.

    Raises:
        ValueError: The images are smaller than ``size``, (height, width).
    """
    height, width = size
    extra_h, extra_w = images.shape[2] - height, images.shape[3] - width
    if extra_h < 0 or extra_w < 0:
        raise ValueError(f"the decoder makes {images.shape[2]} x {images.shape[3]}, less than image_size {size}")
    top, left = extra_h // 2, extra_w // 2
    return images[:, :, top : top + height, left : left + width]
