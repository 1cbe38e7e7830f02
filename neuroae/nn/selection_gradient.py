"""The gradient of many realizations through the selection, which computes their common part only once."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ..kernels import namespace
from ..utils.contexts import autocast_dtype, drawing_realization
from ..utils.modules import is_altered
from .autograd import membership_gradient, value_gradient
from .convolutions import SparseConvTranspose2d
from .decoder import Decoder
from .encoder import SparseEncoder
from .layer_autograd import dense_code_gradient


class SelectionGradient:
    """The gradient of the losses of many realizations under the surrogate "selection".

    The gradient of each realization's loss is normalized at the decoded image, and goes back through the decoder to
    the output of its first layer. There the gradients of all realizations are added up, because this layer's weight
    and the selection before it are the same for all. One dense backward pass of the layer and one of the selection
    then finish the gradient for all of them. Memory does not grow with the number of realizations. For a single
    realization the direction is the same as with plain autograd.

    Call ``logits`` and ``add`` in turn for a few realizations at a time, and ``finish`` once (see
    ``neuroae.attacks.protocol.GradientOfRealizations``).

    Args:
        encoder, decoder, classifier: The parts of a ``Defense``; their parameters require no gradient.
        images: (B, C, H, W) float32 in [0, 1].
        seed, image_ids: Seed and ids of the draws, as in ``SparseEncoder.encode``.
        normalize: Turns the realizations' gradients at the decoded images, (rows, C, H, W), into the terms that are
            added up.
    """

    def __init__(
        self,
        encoder: SparseEncoder,
        decoder: Decoder,
        classifier: nn.Module,
        images: Tensor,
        seed: int | Tensor,
        image_ids: Tensor,
        normalize: Callable[[Tensor], Tensor],
    ) -> None:
        self.encoder, self.decoder, self.classifier = encoder, decoder, classifier
        self.images, self.seed, self.image_ids, self.normalize = images.detach(), seed, image_ids, normalize
        self.selection = encoder.select(self.images)
        self.hidden_sum: Tensor | None = None
        self.value_sum = torch.zeros_like(self.images)

    def logits(self, start: int, count: int) -> Tensor:
        """Returns logits (count * B, classes) of realizations start .. start + count - 1."""
        with drawing_realization(self.seed, start, self.images.device):
            with torch.no_grad():
                self.code = self.selection.draw(self.seed, self.image_ids, start, count)
                hidden = self.decoder.conv1(self.code, relu=True)
            self.hidden = hidden.requires_grad_()
            self.decoded = self.decoder.finish(self.hidden, smooth=True)
            self.classified = self.decoded.detach().requires_grad_()
            return self.classifier(self.classified)

    def add(self, losses: Tensor) -> None:
        """Adds the gradients of losses (count * B,) of the latest logits to the sum."""
        if losses.requires_grad:
            ones = torch.ones_like(losses)
            (gradients,) = torch.autograd.grad(
                losses, self.classified, ones, allow_unused=True, materialize_grads=True
            )
        else:  # the classifier has no gradient at all
            gradients = torch.zeros_like(self.classified)
        terms = self.normalize(gradients.float()).to(self.decoded.dtype)
        (grad_hidden,) = torch.autograd.grad(self.decoded, self.hidden, terms)
        # The backward pass of the first layer's ReLU. It is in place, since the tensor is large and a copy slow.
        torch.ops.aten.threshold_backward.grad_input(grad_hidden, self.hidden.detach(), 0, grad_input=grad_hidden)
        if not self.encoder.quantize:
            self.value_sum += self.value_gradient(grad_hidden)
        for realization in grad_hidden.split(len(self.images)):
            if self.hidden_sum is None:
                # The sum reuses the first gradient's memory, since allocating costs more than adding.
                self.hidden_sum = realization.float()
            else:
                self.hidden_sum += realization
        del self.code, self.hidden, self.decoded, self.classified

    def value_gradient(self, grad_hidden: Tensor) -> Tensor:
        """Returns the gradient through the values of unquantized survivors (W-NFGA), summed over realizations."""
        encoder, code, layer = self.encoder, self.code, self.decoder.conv1
        index, _, projection, count = code.parts
        norms, dead_zone, _ = encoder.levels()
        grad_value = namespace(encoder.backend).conv_transpose_backward_value(
            grad_hidden, None, index, count, self.cast_weight(), layer.stride, layer.padding
        )
        dictionary = (encoder.atoms, norms, dead_zone)
        return value_gradient(encoder.code_settings(), grad_value, index, projection, count, dictionary, self.images)

    def cast_weight(self) -> Tensor:
        """Returns the first layer's weight in the dtype in which it computes."""
        weight = self.decoder.conv1.weight.detach()
        return weight.to(autocast_dtype(weight.device) or weight.dtype)

    def finish(self) -> Tensor:
        """Returns the sum of the normalized gradients at the images, (B, C, H, W) float32."""
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
    """Returns whether gradients may be added up at this first layer's output: its weight is the same in every call."""
    if type(layer) is not SparseConvTranspose2d or is_altered(layer) or is_parametrized(layer):
        return False
    return layer.groups == 1 and layer.dilation == (1, 1)
