"""The CNN decoder (paper, section 2.3): from the sparse code back to the size of the image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .code import SparseCode
from .sparse_conv import SparseConvTranspose2d
from .winograd import WinogradConvTranspose2d


class Decoder(nn.Module):
    """Three transposed convolutions, ReLU after each, cropped to the image and clamped to [0, 1].

    Args:
        in_channels: L, the number of atoms.
        kernel_size: of the first layer; the others have 3.
        stride: of the first layer; the others have 1.
        image_size: height and width of the output, or one number for both.
        out_channels: C, the image's channels.
        resize: enlarge the first layer's output to image_size + 2 (bicubic), as the published Imagenette decoder does.
    """

    def __init__(
        self,
        in_channels: int = 500,
        kernel_size: int = 4,
        stride: int = 2,
        image_size: int | tuple[int, int] = 32,
        out_channels: int = 3,
        resize: bool = False,
    ) -> None:
        super().__init__()
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        self.resize = resize
        self.conv1 = SparseConvTranspose2d(in_channels, 300, kernel_size, stride)
        self.conv2 = WinogradConvTranspose2d(300, 100, 3)
        self.conv3 = nn.ConvTranspose2d(100, out_channels, 3)
        for layer in (self.conv2, self.conv3):
            layer.to(memory_format=torch.channels_last)

    def extra_repr(self) -> str:
        return f"image_size={self.image_size}, resize={self.resize}"

    def forward(self, code: SparseCode | Tensor) -> Tensor:
        """A SparseCode or dense (rows, L, m_h, m_w) tensor to (rows, C, H, W) in [0, 1]."""
        hidden = self.conv1(code, relu=True)
        if self.resize:
            size = [side + 2 for side in self.image_size]
            hidden = F.interpolate(hidden, size, mode="bicubic", align_corners=False)
        hidden = self.conv2(hidden, relu=True)
        return crop(F.relu(self.conv3(hidden)), self.image_size).clamp(0, 1)


def crop(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """The centre of the images; an error where they are smaller than asked."""
    height, width = size
    extra_h, extra_w = images.shape[2] - height, images.shape[3] - width
    if extra_h < 0 or extra_w < 0:
        raise ValueError(f"the decoder makes {images.shape[2]} x {images.shape[3]}, less than image_size {size}")
    top, left = extra_h // 2, extra_w // 2
    return images[:, :, top : top + height, left : left + width]
