"""The gradient through the selection with a part left out: what each of them does.

Each is plain PyTorch, and takes the place of ``SparseEncoder``'s own gradient in an otherwise equal defense.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroae import Defense, SparseCode, SparseEncoder
from neuroae.kernels.ops import Code
from neuroae.models.description import ENCODER_SETTINGS
from neuroae.nn.encoder import SELECTION

# Clamp widths at which the smooth clamp is the true one, and none at all.
NARROW, WIDE = 1e-6, 1e9


class PatchGradient(torch.autograd.Function):
    """Zeros in the shape of the dense code; ``gradient`` (projections, gradient to the code) makes the way back."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, encoder: "PartEncoder", shape: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(images)
        ctx.encoder = encoder
        return images.new_zeros(()).expand(shape)

    @staticmethod
    def backward(ctx: Any, grad_code: Tensor) -> tuple[Tensor, None, None]:
        (images,), encoder = ctx.saved_tensors, ctx.encoder
        with torch.autocast(images.device.type, enabled=False):
            projections = F.conv2d(images, encoder.atoms, stride=encoder.stride)
            grad = encoder.gradient(projections, grad_code.float())
            rows = F.conv_transpose2d(grad, encoder.atoms, stride=encoder.stride)
        rest = [size - part for size, part in zip(images.shape[2:], rows.shape[2:], strict=True)]
        return F.pad(rows, (0, rest[1], 0, rest[0])), None, None


class PartEncoder(SparseEncoder, ABC):
    """A quantized encoder with the surrogate "selection", whose gradient is a subclass's."""

    def make_code(self, parts: Code, images: Tensor, receiver: Tensor) -> SparseCode:
        index, value, projection, count = parts
        rows, patches_h, patches_w, _ = index.shape
        atoms = len(self.atoms)
        membership = PatchGradient.apply(receiver, self, (rows, atoms, patches_h, patches_w))
        return SparseCode(index, value.detach(), projection, count, atoms, self.backend, membership)

    @abstractmethod
    def gradient(self, projections: Tensor, grad_code: Tensor) -> Tensor:
        """To the projections, (rows, L, m_h, m_w), from that of every entry of the dense code."""


class FixedCut(PartEncoder):
    """The cut stays where it is: what one atom wins, no other loses."""

    def gradient(self, projections: Tensor, grad_code: Tensor) -> Tensor:
        magnitudes = projections.abs()
        largest = magnitudes.topk(self.top_t + 1, dim=1).values
        cut = (largest[:, -2:-1] + largest[:, -1:]) / 2
        distance = (magnitudes - cut) / self.resolved_selection_width()
        closeness = torch.sigmoid(distance) * torch.sigmoid(-distance)
        levels = (self.norms.reshape(1, -1, 1, 1), self.dead_zone.reshape(1, -1, 1, 1))
        return torch.where(magnitudes >= levels[1], closeness, 0) * levels[0] * grad_code


class StraightThrough(PartEncoder):
    """The gradient passes as if all atoms were selected and nothing were quantized."""

    def gradient(self, projections: Tensor, grad_code: Tensor) -> Tensor:
        return grad_code


def with_part(model: Defense, kind: type[PartEncoder]) -> Defense:
    """The defense with another encoder's gradient; the decoder and the classifier are shared."""
    settings = {name: getattr(model.encoder, name) for name in ENCODER_SETTINGS}
    encoder = kind(model.encoder.atoms, **settings | {"surrogate": SELECTION})
    return Defense(encoder, model.decoder, model.classifier).eval()
