"""Checks of gradients: whether they exist, whether draws agree on them, and what they cannot see in a defense."""

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
from .check import Check, Verdict, graded, unmeasured, worst

ZERO = "gradients are not zero"
FINITE = "gradients are finite"
# A realization without a gradient counts for nothing in the average: one in a hundred is no loss, one in ten is.
FEW, MANY = 0.01, 0.1


def zero_gradients(records: Mapping[str, Sequence[Record]]) -> Check:
    """Measures how many gradient passes gave a gradient that is zero throughout.

    Passes where no attack has more than 1% of them, and no image has no others. The finding names the attack with
    the largest rate.
    """
    return rate_check(
        ZERO,
        "zero",
        {attack: [record.zero for record in group] for attack, group in records.items()},
        records,
        (FEW, MANY),
        "A realization whose gradient is zero throughout tells an attack nothing. Many of them are a sign of a "
        "saturated loss or a gradient that is cut off, not of a robust model.",
        "Attack with the margin loss, a smoother surrogate gradient, or more realizations.",
    )


def invalid_gradients(records: Mapping[str, Sequence[Record]]) -> Check:
    """Measures how many gradient passes gave a gradient with NaN or infinity in it.

    Passes where none did. The finding names the attack with the largest rate.
    """
    return rate_check(
        FINITE,
        "NaN or infinite",
        {attack: [record.invalid for record in group] for attack, group in records.items()},
        records,
        (0.0, FEW),
        "Attacks leave out a gradient with NaN or infinity in it. Where all gradients are like that, nothing moves.",
        "Look for the operation whose derivative is not finite, or craft in float32.",
    )


def rate_check(
    name: str,
    fault: str,
    faulty: Mapping[str, Sequence[int]],
    records: Mapping[str, Sequence[Record]],
    limits: tuple[float, float],
    meaning: str,
    advice: str,
) -> Check:
    """Judges the rate of faulty gradient passes.

    Args:
        name: The check's name.
        fault: What is wrong with a faulty gradient, in words.
        faulty: By attack, the number of faulty gradient passes of each image.
        records: The records of each attack, in the same order.
        limits: The rates above which the check warns and fails.
        meaning: The check's meaning.
        advice: The check's advice.
    """
    passes = {attack: sum(record.gradients for record in group) for attack, group in records.items()}
    rates = {attack: sum(counts) / passes[attack] for attack, counts in faulty.items() if passes[attack]}
    if not rates:
        return unmeasured(name, "no attack took gradients", meaning, "Evaluate an attack that follows gradients.")
    attack, rate = max(rates.items(), key=lambda item: item[1])
    blind = max(
        sum(count == record.gradients > 0 for count, record in zip(faulty[other], records[other], strict=True))
        for other in rates
    )
    verdict = worst([graded(rate, *limits), "warn" if blind else "pass"])
    return Check(
        name,
        verdict,
        f"the largest share is {rate:.2%} that are {fault}, of {passes[attack]:,} gradients under {attack}; "
        f"{blind:,} images have no other gradients",
        meaning,
        "" if verdict == "pass" else advice,
        {"rate": rate, "passes": passes[attack], "blind": blind},
    )


AGREEMENT = "gradients of independent draws agree"
AGREEMENT_MEANING = "A gradient that other draws do not repeat is noise, and steps along it lead nowhere."
COUNTS = (1, 5, 20, 40)
# At a cosine of 1/2 an average holds as much signal as noise, at 1/10 a ninth of it.
HALF_SIGNAL, FAINT = 0.5, 0.1


def gradient_agreement(attack: Attack, block: Block, scoring: Scoring) -> Check:
    """Measures the mean cosine between two averaged gradients of disjoint draws, for growing numbers of draws.

    Passes where the cosine is at least 0.5, at the largest measured number of draws that the attack's reaches.

    Args:
        attack: An attack that follows gradients; its loss, average and crafting model are used.
        block: The images where gradients are taken.
        scoring: The draws of the evaluation; those of the check derive from its seed.
    """
    assert isinstance(attack.settings, GradientSettings)
    first, second = (running_sums(attack, block, scoring, derive_seed(scoring.seed, "agreement", i)) for i in (0, 1))
    cosines = {
        count: float(F.cosine_similarity(scaled(first[count]), scaled(second[count])).mean()) for count in COUNTS
    }
    judged = max(count for count in COUNTS if count <= attack.settings.realizations)
    cosine = cosines[judged]
    verdict: Verdict = "pass" if cosine >= HALF_SIGNAL else "warn" if cosine >= FAINT else "fail"
    return Check(
        AGREEMENT,
        verdict,
        "cosine "
        + ", ".join(f"{value:.3f} at N_E {count}" for count, value in cosines.items())
        + f"; {attack.name}, mean over {len(block.ids)} images, judged at {judged}",
        AGREEMENT_MEANING,
        "" if verdict == "pass" else agreement_advice(judged, cosine),
        {f"N_E {count}": value for count, value in cosines.items()} | {"judged": judged, "images": len(block.ids)},
    )


def no_agreement() -> Check:
    """Returns the check of an evaluation in which no attack averages gradients of several draws."""
    reason = "no attack here averages gradients of several draws"
    advice = "If the model draws, evaluate an attack that follows gradients."
    return unmeasured(AGREEMENT, reason, AGREEMENT_MEANING, advice)


def scaled(sums: Tensor) -> Tensor:
    """Returns (B, pixels) with a largest magnitude of 1 or 0 each, since PyTorch's cosine ignores tiny vectors."""
    flat = sums.flatten(1)
    largest = flat.abs().amax(1, keepdim=True)
    return torch.where(largest > 0, flat / largest, 0)


def running_sums(attack: Attack, block: Block, scoring: Scoring, seed: int) -> dict[int, Tensor]:
    """Returns sums of gradients over the first draws of a stream, (B, C, H, W), by the number of draws.

    Sums have the same cosine as means.
    """
    settings = attack.settings
    assert isinstance(settings, GradientSettings)
    model = attack.crafting_model(scoring, block.ids)
    total, done, sums = torch.zeros_like(block.images), 0, {}
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
        sums[count] = total
    return sums


def agreement_advice(count: int, cosine: float) -> str:
    """Returns how many draws to average.

    Noise in a mean falls as 1 / N_E, so a cosine of c at N_E rises to 1/2 at N_E (1 - c) / c draws.
    """
    if cosine <= 0:
        return "Average more realizations per gradient, or craft on the mean field."
    needed = math.ceil(count * (1 - cosine) / cosine)
    return f"Average about {needed:,} realizations per gradient for a cosine of 0.5, or take more steps."


CLAMP = "an attack gets through the clamp of the decoder"
CUT = "an attack follows atoms across the cut of the top T"
CLAMP_MEANING = (
    "The decoder clamps its images to [0, 1]. Where a decoded pixel is 0 or 1, the clamp's derivative is 0 and no "
    "gradient passes."
)
CUT_MEANING = (
    "An attack can move atoms in and out of the top T. A gradient through the selected coefficients alone (W-NFGA, "
    "the paper's white-box near-full gradient approximation) does not see that."
)
SELECTION_ADVICE = "Attack through the selection: `--mode selection`."
# Larger shares are more than a detail.
MOST_CLAMPED, MOST_NEAR_CUT = 0.5, 0.1


def selection_checks(model: nn.Module, block: Block, scoring: Scoring, through_selection: bool) -> list[Check]:
    """Measures what gradients through the selected coefficients cannot see in a defense.

    The first check measures the share of decoded pixels at 0 or 1, the second the share of atoms that the budget may
    carry across the cut between the top T and the rest. They pass where the shares are at most 50% and 10%, and
    wherever an attack of the evaluation follows the selection.

    Args:
        model: The attacked model. Only a ``Defense`` with our ``Decoder`` is checked; any other gives no checks.
        block: Clean images.
        scoring: The draws of the evaluation; the draw of the check derives from its seed.
        through_selection: Whether an attack of the evaluation follows the surrogate "selection".
    """
    if not (isinstance(model, Defense) and isinstance(model.decoder, Decoder)):
        return []
    share = saturated_share(model, block, scoring)
    clamped = f"{share:.1%} of decoded pixels are exactly 0 or 1"
    checks = [share_check(CLAMP, clamped, CLAMP_MEANING, share, MOST_CLAMPED, through_selection)]
    encoder = model.encoder
    if encoder.top_t < len(encoder.atoms):
        share = share_near_cut(model, block)
        near = f"{share:.1%} of atoms lie within epsilon * norm of the cut"
        checks.append(share_check(CUT, near, CUT_MEANING, share, MOST_NEAR_CUT, through_selection))
    return checks


@torch.no_grad()
def saturated_share(model: Defense, block: Block, scoring: Scoring) -> float:
    """Returns the share of decoded pixels that are exactly 0 or 1."""
    decoded = model.autoencode(block.images, derive_seed(scoring.seed, "saturation"), block.ids)
    return float(((decoded == 0) | (decoded == 1)).float().mean())


@torch.no_grad()
def share_near_cut(model: Defense, block: Block) -> float:
    """Returns the share of atoms whose magnitude in a patch lies within epsilon * norm of the cut."""
    encoder, shares = model.encoder, []
    for image in block.images.split(1):
        magnitudes = project(image, encoder.atoms, encoder.stride).abs()
        largest = magnitudes.topk(encoder.top_t + 1, dim=-1).values
        cut = largest[..., -2:].mean(-1, keepdim=True)
        shares.append(((magnitudes - cut).abs() <= encoder.epsilon * encoder.norms).float().mean())
    return float(torch.stack(shares).mean())


def share_check(name: str, finding: str, meaning: str, share: float, most: float, through_selection: bool) -> Check:
    passed = share <= most or through_selection
    verdict: Verdict = "pass" if passed else "warn"
    finding += "; an attack through the selection sees them" if through_selection else ""
    return Check(name, verdict, finding, meaning, "" if passed else SELECTION_ADVICE, {"share": share})
