"""The defenses of the gallery, each a module from images in [0, 1] to logits or probabilities.

Those before the CIFAR-10 classifier that ships are front ends alone; those on handwritten digits need a classifier of
their own, which is trained in seconds.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.ndimage
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from neuroae.data import load_dataset
from neuroae.models import load_pretrained

LEVELS = 7
NOISE = 0.05
QUALITY = 50
SATURATION = 1000
EPOCHS = 12


class FrontEnd(nn.Module):
    """A function of the images before a classifier."""

    def __init__(self, transform: Callable[[Tensor], Tensor], classifier: nn.Module) -> None:
        super().__init__()
        self.transform, self.classifier = transform, classifier

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.transform(images))


def bit_depth(images: Tensor) -> Tensor:
    """3 bits a channel."""
    return (images * LEVELS).round() / LEVELS


def jpeg(images: Tensor) -> Tensor:
    """Through Pillow, at quality 50."""
    decoded = []
    for pixels in (images.detach().permute(0, 2, 3, 1) * 255).round().byte().numpy():
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "jpeg", quality=QUALITY)
        decoded.append(np.array(Image.open(file)))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 255


def median(images: Tensor) -> Tensor:
    """3 x 3, through SciPy."""
    return torch.from_numpy(scipy.ndimage.median_filter(images.detach().numpy(), (1, 1, 3, 3)))


def resize_and_pad(images: Tensor) -> Tensor:
    """To a random side of 26 to 32 pixels, and back to 32 by zeros at random places (Xie et al., 2018)."""
    side = int(torch.randint(26, 33, ()))
    shrunk = F.interpolate(images, (side, side), mode="bilinear", align_corners=False)
    left, top = (int(torch.randint(0, 33 - side, ())) for _ in range(2))
    return F.pad(shrunk, (left, 32 - side - left, top, 32 - side - top))


def crop(images: Tensor) -> Tensor:
    """A random 28 x 28 part, enlarged to 32 x 32."""
    top, left = (int(torch.randint(0, 5, ())) for _ in range(2))
    part = images[..., top : top + 28, left : left + 28]
    return F.interpolate(part, (32, 32), mode="bilinear", align_corners=False)


def noise(images: Tensor) -> Tensor:
    return images + NOISE * torch.randn_like(images)


def noise_and_rounding(images: Tensor) -> Tensor:
    return bit_depth(noise(images))


def random_choice(images: Tensor) -> Tensor:
    """Mirroring, blur, shift or rounding, by chance."""
    transforms = (lambda x: x.flip(-1), lambda x: F.avg_pool2d(x, 3, 1, 1), lambda x: x.roll(2, -1), bit_depth)
    return transforms[int(torch.randint(0, len(transforms), ()))](images)


class ZeroGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return torch.zeros_like(grad)


def zeroed(images: Tensor) -> Tensor:
    """Unchanged, with a gradient of zero."""
    return ZeroGradient.apply(images)


def detached(images: Tensor) -> Tensor:
    """A contrast stretch that is cut from the graph."""
    return (1.1 * images.detach() - 0.05).clamp(0, 1)


class Saturated(nn.Module):
    """Softmax of 1,000 times the logits: probabilities of exactly 0 and 1."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        return torch.softmax(SATURATION * self.classifier(images), -1)


def thermometer(images: Tensor) -> Tensor:
    """10 channels, 1 where the pixel is above each level (Buckman et al., 2018)."""
    levels = (torch.arange(10, device=images.device) + 0.5) / 10
    return (images > levels.view(1, -1, 1, 1)).float()


def one_hot(images: Tensor) -> Tensor:
    """10 channels, 1 where the pixel falls into each of as many levels."""
    level = (images[:, 0] * 10).long().clamp(max=9)
    return F.one_hot(level, 10).permute(0, 3, 1, 2).float()


class WinnersTakeAll(nn.Module):
    """The largest 10% of a layer's activations stay (Xiao et al., 2020)."""

    def forward(self, hidden: Tensor) -> Tensor:
        flat = hidden.flatten(1)
        threshold = flat.topk(flat.shape[1] // 10, dim=1).values[:, -1:]
        return torch.where(flat >= threshold, flat, 0).view_as(hidden)


class ActivationPruning(nn.Module):
    """Activations are drawn in proportion to their size, and those that stay are scaled up (Dhillon et al., 2018)."""

    def forward(self, hidden: Tensor) -> Tensor:
        size = hidden.detach().abs().flatten(1) + 1e-6
        share = size / size.sum(1, keepdim=True)
        probability = -torch.expm1(size.shape[1] * torch.log1p(-share))
        mask = (torch.rand_like(probability) < probability).float() / probability
        return (hidden.flatten(1) * mask).view_as(hidden)


def digits_network(channels: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        activation(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),
        activation(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def trained(network: nn.Sequential, encode: Callable[[Tensor], Tensor]) -> nn.Sequential:
    """The network, trained on encoded digits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        data = load_dataset("digits", "train")
        for module in network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(data)).split(64):
                loss = F.cross_entropy(network(encode(data.pixels()[rows])), data.labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return network.eval()


def identity(images: Tensor) -> Tensor:
    return images


@dataclass(frozen=True)
class Broken:
    """
    Attributes:
        build: Makes the defense.
        plain: Makes the model without it.
        dataset: "cifar10" or "digits".
        is_random: Whether it draws.
        allowed: Percent of the images that may stand under the standard suite, of those that fall without the defense.
    """

    build: Callable[[], nn.Module]
    plain: Callable[[], nn.Module]
    dataset: str
    is_random: bool = False
    allowed: int = 5


def cifar10() -> nn.Module:
    return load_pretrained("cifar10-undefended")[0].eval()


def front_end(transform: Callable[[Tensor], Tensor], is_random: bool = False, allowed: int = 5) -> Broken:
    return Broken(lambda: FrontEnd(transform, cifar10()).eval(), cifar10, "cifar10", is_random, allowed)


def plain_digits() -> nn.Sequential:
    return trained(digits_network(1, nn.ReLU), identity)


def digits(encode: Callable[[Tensor], Tensor], channels: int, activation: Callable[[], nn.Module]) -> Broken:
    def build() -> nn.Module:
        return FrontEnd(encode, trained(digits_network(channels, activation), encode)).eval()

    return Broken(build, plain_digits, "digits")


def pruned_digits() -> nn.Module:
    """A trained network whose activations are pruned afterwards."""
    layers = [[layer, ActivationPruning()] if isinstance(layer, nn.ReLU) else [layer] for layer in plain_digits()]
    return nn.Sequential(*(layer for pair in layers for layer in pair)).eval()


GALLERY: dict[str, Broken] = {
    "bit depth": front_end(bit_depth),
    "JPEG": front_end(jpeg),
    "median filter": front_end(median, allowed=10),
    "random resizing and padding": front_end(resize_and_pad, True, 10),
    "random crops": front_end(crop, True, 10),
    "noise": front_end(noise, True, 10),
    "noise, then rounding": front_end(noise_and_rounding, True, 10),
    "random choice of transforms": front_end(random_choice, True, 10),
    "zeroed gradient": front_end(zeroed),
    "detached front end": front_end(detached),
    "saturated softmax": Broken(lambda: Saturated(cifar10()).eval(), cifar10, "cifar10"),
    "thermometer code": digits(thermometer, 10, nn.ReLU),
    "one-hot quantization": digits(one_hot, 10, nn.ReLU),
    "winners-take-all": digits(identity, 1, WinnersTakeAll),
    "stochastic activation pruning": Broken(pruned_digits, plain_digits, "digits", True, 10),
}
