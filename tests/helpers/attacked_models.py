"""Models with a known best attack, and models that misbehave, for the tests of the attacks."""

from collections.abc import Collection

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from models import Linear

GAP = 20.0


class OneForm(nn.Module):
    """Four classes. The first logit is a linear form of the image, the others are constants GAP apart.

    So every loss for label 0, and every targeted loss for label 0 and target 1, depends on that form alone while the
    form is above -GAP.
    """

    def __init__(self, channels: int = 1, size: int = 8) -> None:
        super().__init__()
        self.form = nn.Parameter(0.3 * torch.randn(channels, size, size))

    def forward(self, images: Tensor) -> Tensor:
        first = (images * self.form).sum((1, 2, 3))
        others = torch.tensor([0.0, -GAP, -2 * GAP]).expand(len(images), 3)
        return torch.cat([first[:, None], others], 1)

    def optimum(self, images: Tensor, epsilon: float, norm: str) -> Tensor:
        """Returns where the form is lowest; in l2 a clipped multiple of the form, solved in double precision."""
        fall = -self.form.detach().double()
        clean = images.double()
        if norm == "linf":
            return (clean + epsilon * fall.sign()).clamp(0, 1).float()
        best = []
        for image in clean:

            def excess(multiple: float, image: Tensor = image) -> float:
                return float((image - (image + multiple * fall).clamp(0, 1)).norm()) - epsilon

            largest = 1e6
            multiple = brentq(excess, 0, largest, xtol=1e-15) if excess(largest) > 0 else largest
            best.append((image + multiple * fall).clamp(0, 1))
        return torch.stack(best).float()


class Noisy(nn.Module):
    """Draws from torch's generator, like a user's random model, and records the first number of each draw."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = Linear(1, 8, 10)
        self.drawn: list[float] = []

    def forward(self, images: Tensor) -> Tensor:
        noise = torch.rand_like(images)
        self.drawn.append(float(noise.flatten()[0]))
        return self.linear(images * noise)


class Witness(Linear):
    """Records the images of each call."""

    def __init__(self) -> None:
        super().__init__(1, 8, 10)
        self.inputs: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.inputs.append(images.detach())
        return super().forward(images)


class Silent(nn.Module):
    """Has a gradient of zero for images whose first pixel is 0, and of NaN where that pixel is 1."""

    def __init__(self, broken: float = torch.nan) -> None:
        super().__init__()
        self.linear = Linear(1, 8, 10)
        self.broken = broken

    def forward(self, images: Tensor) -> Tensor:
        first = images[:, 0, 0, 0].detach()[:, None, None, None]
        inputs = images * 1
        if inputs.requires_grad:
            inputs.register_hook(lambda gradient: torch.where(first == 1, self.broken, gradient))
        return self.linear(inputs) * first.flatten(1)


class Broken(OneForm):
    """A form whose logits are NaN in some calls."""

    def __init__(self, broken: Collection[int]) -> None:
        super().__init__()
        self.broken = broken
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(images) * (torch.nan if self.calls - 1 in self.broken else 1)


class Fixed(nn.Module):
    """Returns fixed logits for all images."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits + 0 * images.flatten(1).sum(1, keepdim=True)


def distance(perturbed: Tensor, images: Tensor, norm: str) -> np.ndarray:
    """Returns the norms of the perturbations, (B,), in double precision."""
    offsets = (perturbed.double() - images.double()).flatten(1).numpy()
    return np.abs(offsets).max(1) if norm == "linf" else np.sqrt(np.square(offsets).sum(1))
