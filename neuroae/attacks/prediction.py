"""What a model says, averaged over its randomness (paper, eq. 8)."""

import torch
from torch import Tensor, nn

from ..defense import Defense
from .eot import seeded


@torch.no_grad()
def mean_probabilities(model: nn.Module, images: Tensor, ensemble: int, seed: int, image_ids: Tensor) -> Tensor:
    """Mean softmax output over ``ensemble`` realizations, (B, classes) float32."""
    if isinstance(model, Defense):
        return model.predict_proba(images, ensemble, seed, image_ids)
    total = seeded(model, images, seed, 0).float().softmax(-1)
    for realization in range(1, ensemble):
        total += seeded(model, images, seed, realization).float().softmax(-1)
    return total / ensemble
