"""Front ends without the defense's encoder (paper, section 8.6, Table 5), and a classifier behind one of them."""

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.validation import check_integer, check_number
from .architectures import is_deterministic
from .code import SparseCode
from .convolutions import SparseConvTranspose2d, WinogradConvTranspose2d
from .decoder import crop
from .pretrained_model import PretrainedModel

PAPERS_SIGMA = 0.625


class KSparseAutoencoder(nn.Module):
    """A k-sparse autoencoder (Makhzani and Frey, 2013): k of the middle layer's channels survive at each place.

    Three convolutions with ReLU, the k largest channels of each place, and the mirrored transposed convolutions with
    ReLU. The result is cropped to the image and clamped to [0, 1]. Unlike the defense's encoder, all of it is trained.

    Args:
        in_channels: The number of the images' channels, C.
        image_size: Height and width of the images, or one number for both; even.
        channels: The number of channels in the middle.
        k: How many of them survive at each place.

    Raises:
        TypeError, ValueError: ``channels`` or ``k`` is not an integer above 0, or k exceeds the channels.
    """

    NAME = "k-sparse-autoencoder"

    def __init__(
        self, in_channels: int = 3, image_size: int | tuple[int, int] = 32, channels: int = 500, k: int = 50
    ) -> None:
        super().__init__()
        check_integer("channels", channels, 1)
        check_integer("k", k, 1, channels)
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        if any(side % 2 or side < 10 for side in self.image_size):
            raise ValueError(f"image_size is {self.image_size}, expected even sides of at least 10 pixels")
        self.k = k
        self.conv1 = nn.Conv2d(in_channels, 100, 4, 2, 1)
        self.conv2 = nn.Conv2d(100, 300, 3)
        self.conv3 = nn.Conv2d(300, channels, 3)
        self.deconv1 = SparseConvTranspose2d(channels, 300, 3)
        self.deconv2 = WinogradConvTranspose2d(300, 100, 3)
        self.deconv3 = nn.ConvTranspose2d(100, in_channels, 4, 2, 1)
        for layer in (self.conv1, self.conv2, self.conv3, self.deconv2, self.deconv3):
            layer.to(memory_format=torch.channels_last)

    def config(self) -> dict[str, Any]:
        """Returns the front end's name and the arguments, as values that JSON can hold."""
        return {
            "name": self.NAME,
            "in_channels": self.conv1.in_channels,
            "image_size": list(self.image_size),
            "channels": self.conv3.out_channels,
            "k": self.k,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Returns an untrained autoencoder with the arguments that ``config`` returned."""
        return cls(config["in_channels"], tuple(config["image_size"]), config["channels"], config["k"])

    def extra_repr(self) -> str:
        return f"image_size={self.image_size}, k={self.k}"

    def forward(self, images: Tensor) -> Tensor:
        """Returns decoded images (B, C, H, W) in [0, 1] of images (B, C, H, W) in [0, 1].

        Raises:
            ValueError: The images have another size.
        """
        if images.dim() != 4 or images.shape[2:] != self.image_size:
            raise ValueError(f"images has shape {tuple(images.shape)}, expected (B, C, *{self.image_size})")
        hidden = self.deconv2(self.deconv1(self.encode(images), relu=True), relu=True)
        return crop(F.relu(self.deconv3(hidden)), self.image_size).clamp(0, 1)

    def encode(self, images: Tensor) -> SparseCode:
        """Returns the k largest channels of each place as a code, whose gradient goes through these channels alone."""
        x = images.contiguous(memory_format=torch.channels_last)
        for layer in (self.conv1, self.conv2, self.conv3):
            x = F.relu(layer(x))
        x = x.permute(0, 2, 3, 1).float()
        index = x.topk(self.k, dim=-1).indices.sort(dim=-1).values
        value = x.gather(-1, index)
        count = torch.full(index.shape[:3], self.k, dtype=torch.int32, device=x.device)
        return SparseCode(index.short(), value, value.detach(), count, self.conv3.out_channels)


class GaussianBlur(nn.Module):
    """Blurs each channel with a Gaussian; borders are reflected. Nothing in it is trained.

    Args:
        sigma: The standard deviation of the Gaussian in pixels. The paper's 0.625 brings blurred images closest to
            those behind its unsupervised autoencoder.
        kernel_size: The side of the kernel, odd.

    Raises:
        TypeError, ValueError: ``sigma`` is not a number above 0, or ``kernel_size`` is not an odd integer above 0.
    """

    NAME = "gaussian-blur"
    kernel: Tensor

    def __init__(self, sigma: float = PAPERS_SIGMA, kernel_size: int = 5) -> None:
        super().__init__()
        check_number("sigma", sigma, lambda width: width > 0, "above 0")
        check_integer("kernel_size", kernel_size, 1)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}, expected an odd number")
        self.sigma, self.kernel_size = sigma, kernel_size
        offsets = torch.arange(kernel_size) - kernel_size // 2
        profile = torch.exp(-offsets.double().square() / (2 * sigma**2))
        profile = profile / profile.sum()
        self.register_buffer("kernel", torch.outer(profile, profile).float()[None, None])

    def config(self) -> dict[str, Any]:
        """Returns the front end's name and the arguments, as values that JSON can hold."""
        return {"name": self.NAME, "sigma": self.sigma, "kernel_size": self.kernel_size}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Returns a blur with the arguments that ``config`` returned."""
        return cls(config["sigma"], config["kernel_size"])

    def extra_repr(self) -> str:
        return f"sigma={self.sigma:.5g}, kernel_size={self.kernel_size}"

    def forward(self, images: Tensor) -> Tensor:
        """Returns blurred images (B, C, H, W) of images (B, C, H, W) with sides above ``kernel_size`` // 2."""
        padded = F.pad(images, [self.kernel_size // 2] * 4, mode="reflect")
        channels = images.shape[1]
        return F.conv2d(padded, self.kernel.expand(channels, -1, -1, -1), groups=channels)


FRONT_ENDS: dict[str, type[KSparseAutoencoder] | type[GaussianBlur]] = {
    kind.NAME: kind for kind in (KSparseAutoencoder, GaussianBlur)
}


class FrontEndClassifier(PretrainedModel):
    """A classifier behind a deterministic front end. Plain training teaches both together.

    Args:
        front_end: From images (B, C, H, W) in [0, 1] to images of the same shape.
        classifier: From images in [0, 1] to logits.
    """

    def __init__(self, front_end: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.front_end = front_end
        self.classifier = classifier

    def config(self) -> dict[str, Any]:
        """Returns the configurations of front end and classifier, as values that JSON can hold.

        Raises:
            TypeError: The front end or the classifier is not one of ours.
        """
        if type(self.front_end) not in FRONT_ENDS.values() or not is_deterministic(self.classifier):
            kinds = f"{type(self.front_end).__name__} and {type(self.classifier).__name__}"
            raise TypeError(f"front end and classifier are {kinds}, expected a deterministic classifier of neuroae")
        return {"front_end": self.front_end.config(), "classifier": self.classifier.config()}  # type: ignore[operator]

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, classes) of images (B, C, H, W) in [0, 1]."""
        logits: Tensor = self.classifier(self.front_end(images))
        return logits
