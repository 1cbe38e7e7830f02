"""The suite is neither lenient nor slanderous: planted weaknesses are found, and what it calls fooled stays fooled."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import neuroae
from neuroae.attacks.losses import drawn_probabilities
from neuroae.data import ImageSet, load_dataset
from neuroae.evaluation import Verdict
from neuroae.utils.randomness import derive_seed

EPSILON = 0.1
FRESH_DRAWS = 1000
PATTERN = 1 - 2 * (torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.5).float()


class Planted(nn.Module):
    """Answers class 0 whatever it sees, unless the image holds enough of a hidden pattern."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        share = ((images - 0.5) * PATTERN).mean((1, 2, 3))
        hidden = 300 * F.softplus(60 * (share - self.threshold)) / 60
        return torch.stack([torch.full_like(hidden, 3.0), hidden], 1)


def test_a_planted_weakness_is_found() -> None:
    torch.manual_seed(0)
    images, labels = 0.4 + 0.2 * torch.rand(12, 1, 8, 8), torch.zeros(12, dtype=torch.int64)
    highest = float(((images - 0.5) * PATTERN).mean((1, 2, 3)).max())
    model = Planted(highest + EPSILON / 3)
    for seed in range(20):  # noise of the same size does not find it
        noise = EPSILON * (1 - 2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(seed)).round())
        assert (model(images + noise).argmax(1) == 0).all()
    verdict = neuroae.evaluate(model, images, labels, epsilon=EPSILON, suite="quick")
    assert (verdict.clean.value, verdict.accuracy.value) == (1, 0)


class Noisy(nn.Module):
    """A classifier behind noise."""

    def __init__(self, classifier: nn.Module, size: float) -> None:
        super().__init__()
        self.classifier, self.size = classifier, size

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier((images + self.size * torch.randn_like(images)).clamp(0, 1))


@pytest.fixture(scope="module")
def robust() -> nn.Module:
    """A classifier of digits, adversarially trained for a few seconds."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 24, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(384, 64), nn.ReLU()
        )
        model.append(nn.Linear(64, 10))
        data = load_dataset("digits", "train")
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(15):
            for rows in torch.randperm(len(data)).split(128):
                images, labels = data.pixels()[rows], data.labels[rows]
                points = images.clone()
                for _ in range(3):
                    points.requires_grad_()
                    (gradient,) = torch.autograd.grad(F.cross_entropy(model(points), labels), points)
                    points = points.detach() + EPSILON / 2 * gradient.sign()
                    points = torch.minimum(torch.maximum(points, images - EPSILON), images + EPSILON).clamp(0, 1)
                loss = F.cross_entropy(model(points), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_dataset("digits", "test").limited(60)


@pytest.fixture(scope="module")
def alone(robust: nn.Module, digits: ImageSet) -> Verdict:
    return neuroae.evaluate(robust, digits, epsilon=EPSILON, suite="quick")


@pytest.mark.parametrize("size", [0.02, 0.1], ids=["little noise", "much noise"])
def test_what_is_called_fooled_stays_fooled(robust: nn.Module, digits: ImageSet, alone: Verdict, size: float) -> None:
    """The vote of 1,000 draws that nothing else saw confirms the verdict."""
    model = Noisy(robust, size).eval()
    verdict = neuroae.evaluate(model, digits, epsilon=EPSILON, suite="quick")
    low, high = verdict.interval
    right = torch.tensor([record.vote == record.label for record in verdict.results.records[verdict.attack]])
    images = verdict.results.images(verdict.attack)
    seed = derive_seed(123, "fresh draws")
    draws = drawn_probabilities(model, images, FRESH_DRAWS, seed, digits.ids)
    still_right = sum(draws).argmax(1) == digits.labels
    assert low <= still_right.float().mean() <= high
    fooled = ~right
    assert fooled.any()
    assert (still_right & fooled).sum() <= (1 - low) * len(digits) * 0.1 + 1
    # The classifier is adversarially trained, so the noise takes little of what it is worth.
    assert alone.accuracy.value > 0.5
    assert verdict.accuracy.value >= alone.interval[0]
