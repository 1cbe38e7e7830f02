"""Whether an image's answer depends on the images beside it in the batch."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...attacks.protocol import realizer
from ...utils.contexts import autocast
from ...utils.modules import takes_seeds
from ...utils.randomness import derive_seed
from ..records import Record
from ..scoring import Block, Scoring
from .check import Check, Verdict

SINGLE_DRAWS = "scores are not of single draws"
DRAWS_MEANING = (
    "A random model gives one image several answers. Scores of single draws are noise then, and so are gradients of "
    "single draws; and who may ask again gets what it wants."
)


def randomness(clean: Sequence[Record], fixed_masks: bool = False) -> Check:
    """Flip rate: how often two scoring draws of one clean image give two classes.

    Args:
        clean: records of the clean images.
        fixed_masks: the evaluation drew the same masks in every call.
    """
    if fixed_masks:
        found, advice = "masks were fixed", "Evaluate the random model; this evaluation says nothing about it."
        return Check(SINGLE_DRAWS, "fail", found, DRAWS_MEANING, advice, {"draws": 1})
    draws = min((len(record.draws) for record in clean), default=0)
    if draws < 2:
        found = f"not measured: {draws} scoring draw an image"
        advice = "Right for a deterministic model; score a random one by several draws."
        return Check(SINGLE_DRAWS, "warn", found, DRAWS_MEANING, advice)
    rate = sum(flips(record.draws) for record in clean) / len(clean)
    found = f"two draws of a clean image differ in {rate:.2%} of cases; {draws} draws an image were scored"
    return Check(SINGLE_DRAWS, "pass", found, DRAWS_MEANING, numbers={"flip rate": rate, "draws": draws})


def one_draw(random: bool) -> Check:
    """Of an evaluation that scored one draw an image: right for a model that draws nothing."""
    if random:
        found, advice = "one draw an image of a model that draws", "Score by several draws."
        return Check(SINGLE_DRAWS, "fail", found, DRAWS_MEANING, advice, {"draws": 1, "random": 1})
    found = "two answers to the same images are the same: the model draws nothing"
    return Check(SINGLE_DRAWS, "pass", found, DRAWS_MEANING, numbers={"draws": 1, "random": 0})


def flips(draws: Sequence[int]) -> float:
    """Probability that two different draws, taken at random, give different classes."""
    count = len(draws)
    same = sum(number * (number - 1) for number in Counter(draws).values())
    return 1 - same / (count * (count - 1))


BATCHES = "answers do not depend on the batch"
BATCHES_MEANING = (
    "A model that answers an image by its neighbours, as batch normalization by the batch's own statistics does, has "
    "no accuracy of its own: another batch gives another number, and an attack that moves the neighbours moves it too."
)
ADVICE = (
    "Do not call these accuracies robustness. Give normalizations running statistics (track_running_stats=True, and "
    "evaluation mode), or evaluate and deploy the model one image at a time (--block 1)."
)
DRAWS = 16
SHUFFLES = 999
# In shares of the spread of the logits: float32 rounds far below the first, bfloat16 and 8 bits below the second.
ROUNDING, CLEAR = 1e-3, 1e-2
# A model that rounds inside may turn over for a few images by the last bits, which differ with the batch.
FEW = 0.1
UNLIKELY, IMPOSSIBLE = 0.01, 0.001


def batch_independence(model: nn.Module, block: Block, scoring: Scoring) -> Check:
    """Compares the answers to images that come alone with those to the same images in one batch.

    Draws are the same on both sides where the model draws nothing, or by seed and image id. One that draws from
    torch's generators draws for a batch in another order than for an image, so its mean probabilities are compared,
    by a permutation test over the draws. A model that takes no single images is asked in other company instead.

    Args:
        model: that was attacked.
        block: at least two images.
        scoring: whose seed the draws follow from.
    """
    if len(block.ids) < 2:
        return unmeasured("there is one image", "Evaluate several images.")
    with torch.no_grad(), autocast("float32", block.images.device):
        try:
            together = torch.stack([in_batch(model, block, scoring, draw) for draw in range(DRAWS)])
        except Exception as error:  # models have ways of their own to refuse
            reason = f"the model takes no batch of {len(block.ids)} images ({first_line(error)})"
            return unmeasured(reason, "Right for a model that takes one image at a time.")
        if not torch.equal(together[0], in_batch(model, block, scoring, 0)):
            return unmeasured(
                "the model answers one batch differently when it is asked twice with the same draws",
                "Let the model draw from torch's generators, or by seed and image_ids, and keep no state.",
            )
        try:
            alone(model, block, scoring, 0)
            company, apart = "alone", alone
        except Exception:
            company, apart = "beside other images", beside_others
        is_random = not torch.equal(together, together[:1].expand_as(together))
        if takes_seeds(model) or not is_random:
            check = judged(together[0], apart(model, block, scoring, 0), company)
            # A part of a model that takes seeds may draw from torch's generators all the same.
            if check.verdict == "pass" or not is_random:
                return check
        separate = torch.stack([apart(model, block, scoring, draw) for draw in range(DRAWS)])
    return judged_by_distribution(separate.softmax(-1), together.softmax(-1), company)


def one_at_a_time() -> Check:
    """Of an evaluation in blocks of one image, where there are no neighbours."""
    return Check(
        BATCHES, "pass", "every image was answered alone, in a block of one", BATCHES_MEANING, numbers={"block": 1}
    )


def in_batch(model: nn.Module, block: Block, scoring: Scoring, draw: int) -> Tensor:
    """(B, classes) logits of one realization."""
    return logits_of(model, block.images, block.ids, derive_seed(scoring.seed, "batches"), draw)


def alone(model: nn.Module, block: Block, scoring: Scoring, draw: int) -> Tensor:
    """The same of each image by itself; what is drawn by image id is the same."""
    seed = derive_seed(scoring.seed, "batches")
    shared = takes_seeds(model)
    each = [
        logits_of(model, image, ids, seed if shared else derive_seed(seed, "alone", place), draw)
        for place, (image, ids) in enumerate(zip(block.images.split(1), block.ids.split(1), strict=True))
    ]
    return torch.cat(each)


def beside_others(model: nn.Module, block: Block, scoring: Scoring, draw: int) -> Tensor:
    """The same of each image at its place in the batch, with the negatives of every other image there."""
    seed = derive_seed(scoring.seed, "batches")
    even = (torch.arange(len(block.ids), device=block.images.device) % 2 == 0)[:, None, None, None]
    first, second = (
        logits_of(model, torch.where(kept, block.images, 1 - block.images), block.ids, seed, draw)
        for kept in (even, ~even)
    )
    return torch.where(even[:, :, 0, 0], first, second)


def logits_of(model: nn.Module, images: Tensor, ids: Tensor, seed: int, draw: int) -> Tensor:
    # A model may change the images that it is shown.
    return realizer(model, images.clone(), seed, ids)(draw, 1, images.clone()).float()


def judged(together: Tensor, apart: Tensor, company: str) -> Check:
    """Of answers with the same draws: how far each image's logits differ, in shares of the logits' spread."""
    spread = float((together.amax(-1) - together.amin(-1)).max())
    difference = (together - apart).abs().amax(-1) / max(spread, torch.finfo(torch.float32).tiny)
    largest, clear = float(difference.max()), int((~(difference <= CLEAR)).sum())
    turned = int((together.argmax(-1) != apart.argmax(-1)).sum())
    verdict: Verdict = "fail" if clear > FEW * len(together) else "pass" if largest <= ROUNDING else "warn"
    return Check(
        BATCHES,
        verdict,
        f"of {len(together)} images, {turned} get another class {company} than in one batch, and {clear} get logits "
        f"that differ by more than {CLEAR:.0%} of their spread; at most they differ by {largest:.2g}",
        BATCHES_MEANING,
        "" if verdict == "pass" else ADVICE,
        {"images": len(together), "other class": turned, "differ": clear, "largest difference": largest},
    )


def judged_by_distribution(apart: Tensor, together: Tensor, company: str) -> Check:
    """Of (draws, B, classes) probabilities whose draws differ: the difference of means beside that of mixed draws."""
    draws = torch.cat([apart, together]).flatten(1).double()
    count = len(apart)
    signs = torch.ones(SHUFFLES + 1, len(draws), dtype=torch.float64, device=draws.device)
    generator = torch.Generator().manual_seed(0)
    for row in range(SHUFFLES):
        signs[row, torch.randperm(len(draws), generator=generator)[:count].to(draws.device)] = -1
    signs[SHUFFLES, :count] = -1
    sizes = (signs @ draws / count).square().sum(-1)
    p = float((sizes >= sizes[-1]).double().mean())
    distance = float((apart.mean(0) - together.mean(0)).abs().sum(-1).mean()) / 2
    verdict: Verdict = "fail" if p <= IMPOSSIBLE else "warn" if p <= UNLIKELY else "pass"
    return Check(
        BATCHES,
        verdict,
        f"mean probabilities of {count} draws {company} and of {count} in one batch are {distance:.3f} apart "
        f"(total variation, mean over {apart.shape[1]} images); p = {p:.3f} that both are draws of one distribution",
        BATCHES_MEANING,
        "" if verdict == "pass" else ADVICE,
        {"images": apart.shape[1], "draws": count, "total variation": distance, "p": p},
    )


def unmeasured(reason: str, advice: str) -> Check:
    return Check(BATCHES, "warn", f"not measured: {reason}", BATCHES_MEANING, advice)


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
