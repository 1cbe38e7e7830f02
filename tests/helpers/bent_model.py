"""A nonlinear classifier, and images for it."""

import torch

from neuroae.data import ImageSet


def bent_model() -> torch.nn.Module:
    """Returns a network whose gradient changes within an attack's ball."""
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.Tanh(), torch.nn.Linear(16, 10)
    )
    network[1].weight.data *= 6
    return network.eval().requires_grad_(False)


def label_by_model(model: torch.nn.Module, count: int = 40) -> ImageSet:
    """Returns images of which the model classifies all but the first correctly."""
    images = torch.randint(256, (count, 1, 8, 8), dtype=torch.uint8)
    labels = model(images.float() / 255).argmax(-1)
    labels[0] = (labels[0] + 1) % 10
    return ImageSet("some", images, labels, torch.arange(count), tuple("abcdefghij"))
