"""Why gradients through the survivors mislead on a defense with a top T: what they cannot see, measured."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...attacks import eot_gradient
from ...attacks.settings import GradientSettings
from ...kernels.reference import project
from ...nn.decoder import Decoder
from ...nn.defense import Defense
from ...utils.contexts import autocast
from ...utils.randomness import derive_seed
from ..attack import Attack
from ..records import Record
from ..scoring import Block, Scoring
from .check import Check, Verdict, graded, worst

ZERO = "gradients are not zero"
FINITE = "gradients are finite"
# A realization without a gradient counts for nothing in the average: one in a hundred is no loss, one in ten is.
FEW, MANY = 0.01, 0.1


def zero_gradients(records: Mapping[str, Sequence[Record]]) -> Check:
    """Of each attack's records; the attack with the largest rate is told."""
    return rated(
        ZERO,
        "zero",
        {attack: [record.zero for record in own] for attack, own in records.items()},
        records,
        (FEW, MANY),
        "A realization whose gradient is zero throughout tells an attack nothing. Many of them mean a saturated loss "
        "or a gradient that is cut off, not a model that is robust.",
        "Attack with the margin loss, a smoother surrogate gradient, or more realizations.",
    )


def invalid_gradients(records: Mapping[str, Sequence[Record]]) -> Check:
    """NaN or infinite, of each attack's records; the attack with the largest rate is told."""
    return rated(
        FINITE,
        "NaN or infinite",
        {attack: [record.invalid for record in own] for attack, own in records.items()},
        records,
        (0.0, FEW),
        "A gradient with NaN or infinity in it is left out; where all are, the attack does not move.",
        "Find the operation whose derivative is not finite, or craft in float32.",
    )


def rated(
    name: str,
    fault: str,
    unusable: Mapping[str, Sequence[int]],
    records: Mapping[str, Sequence[Record]],
    limits: tuple[float, float],
    meaning: str,
    advice: str,
) -> Check:
    passes = {attack: sum(record.gradients for record in own) for attack, own in records.items()}
    rates = {attack: sum(counts) / passes[attack] for attack, counts in unusable.items() if passes[attack]}
    if not rates:
        found = "not measured: no attack took gradients"
        return Check(name, "warn", found, meaning, "Evaluate an attack that follows gradients.")
    attack, rate = max(rates.items(), key=lambda item: item[1])
    blind = max(
        sum(count == record.gradients > 0 for count, record in zip(unusable[other], records[other], strict=True))
        for other in rates
    )
    verdict = worst([graded(rate, *limits), "warn" if blind else "pass"])
    return Check(
        name,
        verdict,
        f"at most {rate:.2%} are {fault}, of {passes[attack]:,} under {attack}; images with no others: {blind:,}",
        meaning,
        "" if verdict == "pass" else advice,
        {"rate": rate, "passes": passes[attack], "blind": blind},
    )


AGREEMENT = "gradients of independent draws agree"
AGREEMENT_MEANING = "A gradient that other draws do not repeat is noise, and steps along it lead nowhere."
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
        AGREEMENT,
        verdict,
        "cosine "
        + ", ".join(f"{value:.3f} at N_E {count}" for count, value in cosines.items())
        + f"; {attack.name}, mean over {len(block.ids)} images, judged at {judged}",
        AGREEMENT_MEANING,
        "" if verdict == "pass" else advice(judged, cosine),
        {f"N_E {count}": value for count, value in cosines.items()} | {"judged": judged, "images": len(block.ids)},
    )


def nothing_to_agree() -> Check:
    """Where no attack averages gradients of draws."""
    return Check(
        AGREEMENT,
        "warn",
        "not measured: no attack here averages gradients of several draws",
        AGREEMENT_MEANING,
        NO_ATTACK,
    )


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


CLAMP = "an attack gets through the clamp of the decoder"
CUT = "an attack follows atoms across the cut of the top T"
CLAMP_MEANING = "Where a pixel of the decoded image is 0 or 1 the clamp's derivative is 0, and no gradient passes."
CUT_MEANING = (
    "An attack moves atoms in and out of the top T. Gradients through the survivors alone (W-NFGA) send nothing there."
)
ADVICE = "Attack through the selection: `--mode selection`."
# Shares above which what an attack cannot see is more than a detail.
SATURATED, NEAR = 0.5, 0.1


def selection_checks(model: nn.Module, block: Block, scoring: Scoring, through_selection: bool) -> list[Check]:
    """The share of decoded pixels at 0 or 1, and of atoms that the budget may carry over the cut.

    Args:
        model: a ``Defense`` with our ``Decoder``; of any other there is nothing to say.
        block: clean images.
        scoring: whose seed the draw follows from.
        through_selection: an attack of the evaluation follows both.
    """
    if not (isinstance(model, Defense) and isinstance(model.decoder, Decoder)):
        return []
    checks = [judged(CLAMP, saturated_share(model, block, scoring), SATURATED, through_selection)]
    encoder = model.encoder
    if encoder.top_t < len(encoder.atoms):
        checks.append(judged(CUT, share_near_cut(model, block), NEAR, through_selection))
    return checks


@torch.no_grad()
def saturated_share(model: Defense, block: Block, scoring: Scoring) -> float:
    decoded = model.autoencode(block.images, derive_seed(scoring.seed, "saturation"), block.ids)
    return float(((decoded == 0) | (decoded == 1)).float().mean())


@torch.no_grad()
def share_near_cut(model: Defense, block: Block) -> float:
    """Of all atoms of a patch, those whose magnitude lies within epsilon * norm of the cut."""
    encoder, shares = model.encoder, []
    for image in block.images.split(1):
        magnitudes = project(image, encoder.atoms, encoder.stride).abs()
        largest = magnitudes.topk(encoder.top_t + 1, dim=-1).values
        cut = largest[..., -2:].mean(-1, keepdim=True)
        shares.append(((magnitudes - cut).abs() <= encoder.epsilon * encoder.norms).float().mean())
    return float(torch.stack(shares).mean())


def judged(name: str, share: float, most: float, through_selection: bool) -> Check:
    what = "of decoded pixels are exactly 0 or 1" if name == CLAMP else "of atoms lie within epsilon * norm of the cut"
    meaning = CLAMP_MEANING if name == CLAMP else CUT_MEANING
    seen = "; attacks through the selection see them" if through_selection else ""
    passed = share <= most or through_selection
    verdict: Verdict = "pass" if passed else "warn"
    return Check(name, verdict, f"{share:.1%} {what}{seen}", meaning, "" if passed else ADVICE, {"share": share})
