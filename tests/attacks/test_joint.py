"""Several sources as one: each counts alike, whatever the size of its gradient."""

import torch
from torch import nn

from models import random_images
from neuroae.attacks import eot_gradient
from neuroae.attacks.balls import unit_l2
from neuroae.attacks.joint import JointSources


def classifier(scale: float, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model[1].weight.data *= scale
    return model.eval()


def test_each_source_counts_alike_whatever_the_size_of_its_gradient() -> None:
    images, labels, ids = random_images(3, 1, 8)
    models = [classifier(1, 0), classifier(100, 1)]
    joint = eot_gradient(JointSources(models), images, labels, realizations=1, seed=0, image_ids=ids).gradient
    points = [images.clone().requires_grad_() for _ in models]
    logits = [model(point).log_softmax(-1) for model, point in zip(models, points, strict=True)]
    loss = torch.nn.functional.cross_entropy(sum(logits) / 2, labels, reduction="sum")
    gradients = torch.autograd.grad(loss, points)
    torch.testing.assert_close(joint, sum(map(unit_l2, gradients)) / 2)


def test_the_answer_is_the_mean_of_log_probabilities() -> None:
    images, _, _ = random_images(3, 1, 8)
    models = [classifier(1, 0), classifier(5, 1)]
    expected = (models[0](images).log_softmax(-1) + models[1](images).log_softmax(-1)) / 2
    torch.testing.assert_close(JointSources(models)(images), expected)
