"""Whether the gradients that attacks follow are more than noise."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...attacks import eot_gradient
from ...attacks.settings import GradientSettings
from ...contexts import autocast
from ...randomness import derive_seed
from ..attack import Attack
from ..scoring import Block, Scoring
from .check import Check, Verdict

NAME = "gradients of independent draws agree"
MEANING = "A gradient that other draws do not repeat is noise, and steps along it lead nowhere."
NO_ATTACK = "Of a model that draws, evaluate an attack that follows gradients."
COUNTS = (1, 5, 20, 40)
# At a cosine of 1/2 an estimate holds as much signal as noise, at 1/10 a ninth of it.
CLEAR, FAINT = 0.5, 0.1


def gradient_agreement(attack: Attack, block: Block, scoring: Scoring) -> Check:
    """Mean cosine between two EOT gradients of disjoint draws, for growing numbers of draws.

    It is judged at the largest of these numbers that is no more than the attack's.

    Args:
        attack: that follows gradients; its loss and average are taken, on the model that it is crafted on.
        block: images to take gradients at.
        scoring: whose seed the draws follow from.
    """
    assert isinstance(attack.settings, GradientSettings)
    first, second = (running_sums(attack, block, scoring, derive_seed(scoring.seed, "agreement", i)) for i in (0, 1))
    cosines = {
        count: float(F.cosine_similarity(scaled(first[count]), scaled(second[count])).mean()) for count in COUNTS
    }
    judged = max(count for count in COUNTS if count <= attack.settings.realizations)
    cosine = cosines[judged]
    verdict: Verdict = "pass" if cosine >= CLEAR else "warn" if cosine >= FAINT else "fail"
    return Check(
        NAME,
        verdict,
        "cosine "
        + ", ".join(f"{value:.3f} at N_E {count}" for count, value in cosines.items())
        + f"; {attack.name}, mean over {len(block.ids)} images, judged at {judged}",
        MEANING,
        "" if verdict == "pass" else advice(judged, cosine),
        {f"N_E {count}": value for count, value in cosines.items()} | {"judged": judged, "images": len(block.ids)},
    )


def nothing_to_agree() -> Check:
    """Where no attack averages gradients of draws."""
    return Check(NAME, "warn", "not measured: no attack here averages gradients of several draws", MEANING, NO_ATTACK)


def scaled(sums: Tensor) -> Tensor:
    """(B, numbers), the largest of each 1 or 0: PyTorch takes a vector that is shorter than 1e-8 for none."""
    flat = sums.flatten(1)
    largest = flat.abs().amax(1, keepdim=True)
    return torch.where(largest > 0, flat / largest, 0)


def running_sums(attack: Attack, block: Block, scoring: Scoring, seed: int) -> dict[int, Tensor]:
    """Sums over the first draws of one stream, (B, C, H, W) each: a cosine needs no more of their means."""
    settings = attack.settings
    assert isinstance(settings, GradientSettings)
    model = attack.crafting_model(scoring, block.ids)
    total, done, found = torch.zeros_like(block.images), 0, {}
    for count in COUNTS:
        with autocast(attack.precision, block.images.device):
            part = eot_gradient(
                model,
                block.images,
                block.labels,
                realizations=count - done,
                seed=seed,
                image_ids=block.ids,
                start=done,
                chunk=settings.chunk,
                average=settings.average,
                loss=settings.loss,
            )
        total = total + part.gradient * (count - done)
        done = count
        found[count] = total
    return found


def advice(count: int, cosine: float) -> str:
    """Noise in a mean falls as 1/N_E, so a cosine c at N_E takes N_E (1 - c) / c draws to come to 1/2."""
    if cosine <= 0:
        return "Average more realizations a gradient, or craft on the mean field."
    needed = math.ceil(count * (1 - cosine) / cosine)
    return f"Average about {needed:,} realizations a gradient for a cosine of 0.5, or take more steps."
