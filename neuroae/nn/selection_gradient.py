"""One gradient through the selection, of many realizations: what they share is computed once."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ..kernels import namespace
from ..utils.contexts import autocast_dtype, drawing_from
from ..utils.modules import is_altered
from ..utils.randomness import derive_seed
from .autograd import dense_code_gradient, membership_gradient, value_gradient
from .convolutions import SparseConvTranspose2d
from .decoder import Decoder
from .encoder import SparseEncoder


class SelectionGradient:
    """The gradient of losses of many realizations under the surrogate "selection", added up where they meet.

    Every realization has a loss and an image that the decoder makes of it. There its gradient is weighed, and goes
    back through the decoder. The first layer has the same weight for all realizations, and the selection is the same:
    so gradients are added up before that layer, and one dense backward pass of it and one of the selection finish.
    Memory does not grow with the number of realizations. For one realization the direction is that of plain autograd.

    Call ``logits`` and ``add`` in turn for a few realizations at a time, and ``finish`` once.

    Args:
        encoder, decoder, classifier: of a ``Defense``; no parameter asks for a gradient.
        images: (B, C, H, W) float32 in [0, 1].
        seed, image_ids: of the draws.
        weigh: from the gradients of realizations to the decoded images, (rows, C, H, W), to what each adds to the sum.
    """

    def __init__(
        self,
        encoder: SparseEncoder,
        decoder: Decoder,
        classifier: nn.Module,
        images: Tensor,
        seed: int,
        image_ids: Tensor,
        weigh: Callable[[Tensor], Tensor],
    ) -> None:
        self.encoder, self.decoder, self.classifier = encoder, decoder, classifier
        self.images, self.seed, self.image_ids, self.weigh = images.detach(), seed, image_ids, weigh
        self.selection = encoder.select(self.images)
        self.hidden_sum: Tensor | None = None
        self.value_sum = torch.zeros_like(self.images)

    def logits(self, start: int, count: int) -> Tensor:
        """Logits (count * B, classes) of realizations start .. start + count - 1."""
        with drawing_from(derive_seed(self.seed, "realization", start), self.images.device):
            with torch.no_grad():
                self.code = self.selection.draw(self.seed, self.image_ids, start, count)
                hidden = self.decoder.conv1(self.code, relu=True)
            self.hidden = hidden.requires_grad_()
            self.decoded = self.decoder.finish(self.hidden, smooth=True)
            self.seen = self.decoded.detach().requires_grad_()
            return self.classifier(self.seen)

    def add(self, losses: Tensor) -> None:
        """Takes in the gradients of the latest logits' losses, (count * B,)."""
        if losses.requires_grad:
            ones = torch.ones_like(losses)
            (gradients,) = torch.autograd.grad(losses, self.seen, ones, allow_unused=True, materialize_grads=True)
        else:  # the classifier has no gradient at all
            gradients = torch.zeros_like(self.seen)
        weighed = self.weigh(gradients.float()).to(self.decoded.dtype)
        (grad_hidden,) = torch.autograd.grad(self.decoded, self.hidden, weighed)
        # Through the first layer's ReLU, in place: as many bytes as a layer's output move in every pass over them.
        torch.ops.aten.threshold_backward.grad_input(grad_hidden, self.hidden.detach(), 0, grad_input=grad_hidden)
        if not self.encoder.quantize:
            self.value_sum += self.value_gradient(grad_hidden)
        for realization in grad_hidden.split(len(self.images)):
            if self.hidden_sum is None:
                # The first chunk's memory serves for the sum: fresh memory costs more than it takes to fill it.
                self.hidden_sum = realization.float()
            else:
                self.hidden_sum += realization
        del self.code, self.hidden, self.decoded, self.seen

    def value_gradient(self, grad_hidden: Tensor) -> Tensor:
        """Unquantized, the survivors' values have a derivative of their own: W-NFGA, summed over realizations."""
        encoder, code, layer = self.encoder, self.code, self.decoder.conv1
        norms, dead_zone, _ = encoder.levels()
        grad_value = namespace(encoder.backend).conv_transpose_backward_value(
            grad_hidden, None, code.index, code.count, self.cast_weight(), layer.stride, layer.padding
        )
        dictionary = (encoder.atoms, norms, dead_zone)
        return value_gradient(
            encoder.code_settings(), grad_value, code.index, code.projection, dictionary, self.images
        )

    def cast_weight(self) -> Tensor:
        """The first layer's, in what it computes in."""
        weight = self.decoder.conv1.weight.detach()
        return weight.to(autocast_dtype(weight.device) or weight.dtype)

    def finish(self) -> Tensor:
        """The sum of the weighed gradients, at the images: (B, C, H, W) float32."""
        assert self.hidden_sum is not None
        encoder, layer, weight = self.encoder, self.decoder.conv1, self.cast_weight()
        padding = [int(rows) for rows in layer.padding]
        patches = self.selection.atom.shape[1:3]
        grad_code = dense_code_gradient(self.hidden_sum.to(weight.dtype), weight, layer.stride, padding, patches)
        norms, dead_zone, _ = encoder.levels()
        dictionary = (encoder.atoms, norms, dead_zone)
        settings = encoder.membership_settings()
        return self.value_sum + membership_gradient(settings, grad_code, self.images, dictionary)


def is_shareable(layer: nn.Module) -> bool:
    """Whether the sum over realizations may stand before this first layer: its weight is the same in every call."""
    if type(layer) is not SparseConvTranspose2d or is_altered(layer) or is_parametrized(layer):
        return False
    return layer.groups == 1 and layer.dilation == (1, 1)
