"""Why gradients through the survivors mislead on a defense with a top T: what they cannot see, measured."""

import torch
from torch import nn

from ...decoder import Decoder
from ...defense import Defense
from ...kernels.reference import project
from ...randomness import derive_seed
from ..scoring import Block, Scoring
from .check import Check, Verdict

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
