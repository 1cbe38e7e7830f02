"""The alternative to which all benchmarks compare: the defense in eager dense PyTorch, as the published code runs it.

It consists of conv2d, topk, scatter, dropout, quantization with a surrogate gradient, and ``nn.ConvTranspose2d``. It
keeps the published layout and arithmetic, without tuning, and follows the paper where paper and code differ.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroae import Decoder, SparseEncoder


class Quantize(torch.autograd.Function):
    """Eq. 3 forward, eq. 9 backward."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, norms: Tensor, dead_zone: Tensor, sigma: float) -> Tensor:
        ctx.save_for_backward(a, norms, dead_zone)
        ctx.sigma = sigma
        return torch.where(a.abs() >= dead_zone, a.sign() * norms, torch.zeros_like(a))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        a, norms, dead_zone = ctx.saved_tensors
        bumps = torch.cosh((a - dead_zone) / ctx.sigma) ** -2 + torch.cosh((a + dead_zone) / ctx.sigma) ** -2
        return grad * norms / (2 * ctx.sigma) * bumps, None, None, None


class SelectThrough(torch.autograd.Function):
    """Forward the survivors' code, backward the derivative of a smooth top T with a moving cut (docs/broken.md)."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, code: Tensor, norms: Tensor, dead_zone: Tensor, top_t: int, width: float
    ) -> Tensor:
        ctx.save_for_backward(a, norms, dead_zone)
        ctx.top_t, ctx.width = top_t, width
        return code.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        a, norms, dead_zone = ctx.saved_tensors
        magnitudes = a.abs()
        largest = magnitudes.topk(ctx.top_t + 1, dim=1).values
        distance = (magnitudes - (largest[:, -2:-1] + largest[:, -1:]) / 2) / ctx.width
        close = torch.sigmoid(distance) * torch.sigmoid(-distance)
        close = torch.where(magnitudes >= dead_zone, close, torch.zeros_like(close))
        share = close * norms * a.sign() * grad
        share = share - close * share.sum(1, keepdim=True) / close.sum(1, keepdim=True)
        return a.sign() * share / ctx.width, None, None, None, None, None


class SmoothClamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.width = width
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grad / (1 + ((x - x.clamp(0, 1)) / ctx.width) ** 2), None


class EagerEncoder(nn.Module):
    """Computes an encoder's code densely, with its settings and atoms."""

    def __init__(self, encoder: SparseEncoder) -> None:
        super().__init__()
        self.settings = encoder
        self.register_buffer("norms", encoder.norms.reshape(1, -1, 1, 1))
        self.register_buffer("dead_zone", encoder.dead_zone.reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        settings = self.settings
        projections = F.conv2d(images, settings.atoms, stride=settings.stride)
        top = projections.abs().topk(settings.top_t, dim=1).indices
        selected = torch.zeros_like(projections).scatter(1, top, projections.gather(1, top))
        survivors = F.dropout(selected, settings.dropout_p, training=True) * (1 - settings.dropout_p)
        if settings.surrogate != "selection":
            return Quantize.apply(survivors, self.norms, self.dead_zone, settings.sigma)
        code = torch.where(
            survivors.abs() >= self.dead_zone, survivors.sign() * self.norms, torch.zeros_like(survivors)
        )
        width = settings.resolved_selection_width()
        return SelectThrough.apply(projections, code.detach(), self.norms, self.dead_zone, settings.top_t, width)


class EagerDefense(nn.Module):
    """The dense encoder, ``nn.ConvTranspose2d`` layers with the decoder's parameters, and the same classifier."""

    def __init__(self, encoder: SparseEncoder, decoder: Decoder, classifier: nn.Module) -> None:
        super().__init__()
        self.encoder = EagerEncoder(encoder)
        self.conv1 = dense_twin(decoder.conv1)
        self.conv2 = dense_twin(decoder.conv2)
        self.conv3 = dense_twin(decoder.conv3)
        self.size, self.clamp_width, self.resize = decoder.image_size, decoder.clamp_width, decoder.resize
        self.classifier = classifier

    def first_layer(self, dense: Tensor) -> Tensor:
        return F.relu(self.conv1(dense))

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.first_layer(self.encoder(images))
        if self.resize:
            hidden = F.interpolate(hidden, [side + 2 for side in self.size], mode="bicubic", align_corners=False)
        hidden = self.conv3(F.relu(self.conv2(hidden)))
        top, left = ((hidden.shape[2 + i] - self.size[i]) // 2 for i in range(2))
        cropped = hidden[:, :, top : top + self.size[0], left : left + self.size[1]]
        if self.encoder.settings.surrogate == "selection":
            return self.classifier(SmoothClamp.apply(cropped, self.clamp_width))
        return self.classifier(F.relu(cropped).clamp(0, 1))


def dense_twin(layer: nn.ConvTranspose2d) -> nn.ConvTranspose2d:
    """Returns a plain layer with the same parameters, in the default memory layout."""
    twin = nn.ConvTranspose2d(
        layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.output_padding
    )
    twin.load_state_dict(layer.state_dict())
    return twin
