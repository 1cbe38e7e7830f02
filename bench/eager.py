"""The alternative that every ratio is against: the defense in eager dense PyTorch, as the published code runs it.

conv2d, topk, scatter, dropout, quantization with a backward-pass stand-in, and ``nn.ConvTranspose2d``. It is written
for its layout and its arithmetic, not for speed, and it follows the paper where the paper and its code differ.
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


class EagerEncoder(nn.Module):
    """The encoder's settings and atoms, computed densely."""

    def __init__(self, encoder: SparseEncoder) -> None:
        super().__init__()
        self.settings = encoder
        self.register_buffer("norms", encoder.norms.reshape(1, -1, 1, 1))
        self.register_buffer("dead_zone", encoder.dead_zone.reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        settings = self.settings
        projections = F.conv2d(images, settings.atoms, stride=settings.stride)
        top = projections.abs().topk(settings.top_t, dim=1).indices
        kept = torch.zeros_like(projections).scatter(1, top, projections.gather(1, top))
        dropped = F.dropout(kept, settings.dropout_p, training=True) * (1 - settings.dropout_p)
        return Quantize.apply(dropped, self.norms, self.dead_zone, settings.sigma)


class EagerDefense(nn.Module):
    """Dense encoder, the decoder's parameters in ``nn.ConvTranspose2d``, and the same classifier."""

    def __init__(self, encoder: SparseEncoder, decoder: Decoder, classifier: nn.Module) -> None:
        super().__init__()
        self.encoder = EagerEncoder(encoder)
        self.conv1 = dense_twin(decoder.conv1)
        self.conv2 = dense_twin(decoder.conv2)
        self.conv3 = dense_twin(decoder.conv3)
        self.size = decoder.image_size
        self.classifier = classifier

    def first_layer(self, dense: Tensor) -> Tensor:
        return F.relu(self.conv1(dense))

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.conv3(F.relu(self.conv2(self.first_layer(self.encoder(images))))))
        top, left = ((hidden.shape[2 + i] - self.size[i]) // 2 for i in range(2))
        cropped = hidden[:, :, top : top + self.size[0], left : left + self.size[1]]
        return self.classifier(cropped.clamp(0, 1))


def dense_twin(layer: nn.ConvTranspose2d) -> nn.ConvTranspose2d:
    """The plain layer with the same parameters, in the default memory layout."""
    twin = nn.ConvTranspose2d(
        layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.output_padding
    )
    twin.load_state_dict(layer.state_dict())
    return twin
