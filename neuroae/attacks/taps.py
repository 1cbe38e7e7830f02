"""Taps: a gradient taken at a place within a model where there still is one.

An *input tap* takes everything before a submodule for the identity: the backward pass ends at the submodule's input,
an image like the model's own, and goes on to the model's input unchanged. For a ``Defense`` that is W-AIGA, the
white-box attack on the autoencoder as the identity (paper, section 4). A *logits tap* leaves out what comes after the
logits, such as a softmax that saturates.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..utils.modules import Wrapper
from .bpda import resized, substitute

# How alike two images are, as the correlation of their pixels, for one to stand for the other.
ALIKE = 0.5
# Images of other sizes count, as random resizing makes them, down to half the side and up to twice.
SIZES = (0.5, 2.0)
# Rows whose class is the same in the tapped logits and in the model's answer.
AGREEING = 0.9
SQUASHING = {"softmax", "log_softmax", "softmin", "sigmoid", "logsigmoid", "tanh", "clamp", "clip", "hardtanh", "sign"}


class InputTap(Wrapper):
    """A model with its exact forward pass whose gradient leaves at the input of one of its submodules.

    Args:
        model: The model.
        path: The submodule's name in ``model.named_modules()``.
    """

    def __init__(self, model: nn.Module, path: str) -> None:
        super().__init__(model)
        self.path = path

    def forward(self, images: Tensor, **draws: Any) -> Tensor:
        """Returns the model's logits (B, classes)."""

        def enter(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if not arguments or not could_be_image(arguments[0], images):
                return None
            return (substitute(arguments[0], images), *arguments[1:])

        handle = self.model.get_submodule(self.path).register_forward_pre_hook(enter)
        try:
            # What is before the tap gets no gradient: it may refuse images that have one, as NumPy does.
            return self.model(images.detach(), **draws)
        finally:
            handle.remove()


class LogitsTap(Wrapper):
    """A model that answers with what it squashes in the end: the logits before a softmax that saturates, for example.

    Args:
        model: The model.
        path: The submodule whose latest output is taken; "" for the latest input of a squashing function.
    """

    def __init__(self, model: nn.Module, path: str) -> None:
        super().__init__(model)
        self.path = path

    def forward(self, images: Tensor, **draws: Any) -> Tensor:
        """Returns the tapped logits (B, classes)."""
        with recorded_logits(self.model) as seen:
            answer = self.model(images, **draws)
        logits = [tensor for path, tensor in seen if path == self.path and tensor.shape == answer.shape]
        return logits[-1] if logits else answer


@dataclass(frozen=True)
class Passage:
    """A call of a submodule on an image.

    Attributes:
        path: The submodule's name.
        connected: Whether the model's input has a gradient there.
        image: Its input, (B, C, H, W).
    """

    path: str
    connected: bool
    image: Tensor


def input_taps(model: nn.Module, images: Tensor, loss_of: Callable[[Tensor], Tensor], **draws: Any) -> list[str]:
    """Returns the submodules at whose input an input tap may help, in the order of their calls.

    They see an image like the model's input (see ``ALIKE``), but not that input itself, and the loss has a gradient
    there.

    Args:
        model: The model, frozen.
        images: (B, C, H, W) float32 in [0, 1].
        loss_of: From the model's answer (B, classes) to losses (B,).
        draws: Seed and image ids, where the model takes them.
    """
    passages: list[Passage] = []
    handles = [
        module.register_forward_pre_hook(recording(path, images, passages))
        for path, module in model.named_modules()
        if path
    ]
    try:
        with torch.enable_grad():
            try:
                losses = loss_of(model(images.clone().requires_grad_(), **draws))
            except RuntimeError:  # a part in NumPy refuses images with a gradient
                passages.clear()
                losses = loss_of(model(images.clone(), **draws))
    finally:
        for handle in handles:
            handle.remove()
    if not passages or not losses.requires_grad:
        return []
    places = [passage.image for passage in passages]
    gradients = torch.autograd.grad(losses.sum(), places, allow_unused=True)
    useful = [
        passage.path
        for passage, gradient in zip(passages, gradients, strict=True)
        if gradient is not None and is_usable(gradient) and not is_input(passage, images)
    ]
    return list(dict.fromkeys(useful))


def recording(path: str, images: Tensor, passages: list[Passage]) -> Callable[..., Any]:
    """Returns a hook that notes calls on images, and makes autograd track an image that has no gradient."""

    def enter(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not arguments or not could_be_image(arguments[0], images) or not is_alike(arguments[0], images):
            return None
        image, connected = arguments[0], arguments[0].requires_grad
        if not connected:
            image = image.detach().requires_grad_()
        passages.append(Passage(path, connected, image))
        return (image, *arguments[1:])

    return enter


def could_be_image(value: object, images: Tensor) -> bool:
    """Returns whether a value is a batch of as many images with as many channels, and of a similar size."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.dim() != 4:
        return False
    if value.shape[:2] != images.shape[:2]:
        return False
    ratios = [side / before for side, before in zip(value.shape[2:], images.shape[2:], strict=True)]
    return all(SIZES[0] <= ratio <= SIZES[1] for ratio in ratios)


def is_alike(image: Tensor, images: Tensor) -> bool:
    """Returns whether pixels are correlated with the input's: normalization and noise change that little."""
    shown = resized(image.detach(), images.shape).flatten(1).double()
    pair = torch.stack([shown, images.detach().flatten(1).double()])
    pair = pair - pair.mean(-1, keepdim=True)
    norms = pair.norm(dim=-1).prod(0)
    return bool(((pair[0] * pair[1]).sum(-1) > ALIKE * norms)[norms > 0].float().mean() > ALIKE)


def is_input(passage: Passage, images: Tensor) -> bool:
    """Returns whether an image is still the model's input, with the same pixels and gradient."""
    image = passage.image
    return passage.connected and image.shape == images.shape and torch.equal(image.detach(), images.detach())


def is_usable(gradient: Tensor) -> bool:
    """Returns whether a gradient is finite and not zero on most images."""
    largest = gradient.abs().flatten(1).amax(1)
    return bool((largest.isfinite() & (largest > 0)).float().mean() > ALIKE)


def logits_tap(model: nn.Module, images: Tensor, loss_of: Callable[[Tensor], Tensor], **draws: Any) -> str | None:
    """Returns the path of a ``LogitsTap`` whose logits have a gradient and name the model's classes; None without.

    Takes the arguments of ``input_taps``.
    """
    points = images.clone().requires_grad_()
    with torch.enable_grad(), recorded_logits(model) as seen:
        try:
            answer = model(points, **draws)
        except RuntimeError:  # no gradient passes such a model
            return None
        for path, logits in reversed(seen):
            if logits is answer or logits.shape != answer.shape or not logits.requires_grad:
                continue
            if (logits.argmax(-1) == answer.argmax(-1)).float().mean() < AGREEING:
                continue
            (gradient,) = torch.autograd.grad(loss_of(logits).sum(), points, retain_graph=True, allow_unused=True)
            if gradient is not None and is_usable(gradient):
                return path
    return None


@contextmanager
def recorded_logits(model: nn.Module) -> Iterator[list[tuple[str, Tensor]]]:
    """Lists, while the block runs the model, outputs of submodules and inputs of squashing functions, (B, classes)."""
    seen: list[tuple[str, Tensor]] = []

    def leave(path: str) -> Callable[..., None]:
        def note(_: nn.Module, __: Any, output: object) -> None:
            if isinstance(output, Tensor) and output.dim() == 2 and output.is_floating_point():
                seen.append((path, output))

        return note

    handles = [module.register_forward_hook(leave(path)) for path, module in model.named_modules() if path]
    try:
        with SquashingRecorder(seen):
            yield seen
    finally:
        for handle in handles:
            handle.remove()


class SquashingRecorder(TorchFunctionMode):
    """Notes what goes into squashing functions, under the path ""."""

    def __init__(self, seen: list[tuple[str, Tensor]]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        squashes = getattr(func, "__name__", "").strip("_") in SQUASHING
        if squashes and args and isinstance(args[0], Tensor) and args[0].dim() == 2 and args[0].is_floating_point():
            self.seen.append(("", args[0]))
        return func(*args, **(kwargs or {}))
