"""Checks of the model's draws: whether a random model is scored on several, and whether they depend on the batch."""

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
from .check import Check, Verdict, unmeasured

SEVERAL_DRAWS = "a random model is scored on several draws"
SEVERAL_DRAWS_MEANING = (
    "A random model gives one image several answers. A single draw is noise, in a score and in a gradient, and an "
    "attacker who may ask again waits for the answer that suits."
)


def several_draws(clean: Sequence[Record], fixed_masks: bool = False) -> Check:
    """Measures the flip rate: how often two scoring draws of one clean image give two classes.

    Passes where images were scored on at least two draws, whatever the rate. Fails where masks were fixed.

    Args:
        clean: The records of the clean images.
        fixed_masks: Whether the evaluation drew the same masks in every call.
    """
    if fixed_masks:
        finding, advice = "masks were fixed", "Evaluate the random model; this evaluation says nothing about it."
        return Check(SEVERAL_DRAWS, "fail", finding, SEVERAL_DRAWS_MEANING, advice, {"draws": 1})
    draws = min((len(record.draws) for record in clean), default=0)
    if draws < 2:
        advice = "One draw is right for a deterministic model; score a random one on several."
        return unmeasured(SEVERAL_DRAWS, f"{draws} scoring draw per image", SEVERAL_DRAWS_MEANING, advice)
    rate = sum(flip_rate(record.draws) for record in clean) / len(clean)
    finding = f"{draws} scoring draws per image; two draws of a clean image differ in {rate:.2%} of cases"
    numbers = {"flip rate": rate, "draws": draws}
    return Check(SEVERAL_DRAWS, "pass", finding, SEVERAL_DRAWS_MEANING, numbers=numbers)


def one_draw(random: bool) -> Check:
    """Judges an evaluation with one scoring draw per image: passes for a model that draws nothing, else fails."""
    if random:
        finding, advice = "one scoring draw per image of a model that draws", "Score on several draws."
        return Check(SEVERAL_DRAWS, "fail", finding, SEVERAL_DRAWS_MEANING, advice, {"draws": 1, "random": 1})
    finding = "the model draws nothing: it answers the same images twice in the same way"
    return Check(SEVERAL_DRAWS, "pass", finding, SEVERAL_DRAWS_MEANING, numbers={"draws": 1, "random": 0})


def flip_rate(draws: Sequence[int]) -> float:
    """Returns the probability that two different draws, chosen at random, give different classes."""
    count = len(draws)
    same = sum(number * (number - 1) for number in Counter(draws).values())
    return 1 - same / (count * (count - 1))


BATCHES = "answers do not depend on the batch"
BATCHES_MEANING = (
    "Some models answer an image by the images beside it, as batch normalization does that uses the statistics of the "
    "batch. Their accuracy changes with the batch, and an attack that moves the other images moves it too."
)
BATCHES_ADVICE = (
    "Do not call these accuracies robustness. Give normalizations running statistics (track_running_stats=True, and "
    "evaluation mode), or evaluate and deploy the model one image at a time (--block 1)."
)
COMPARED_DRAWS = 16
SHUFFLES = 999
# In shares of the spread of the logits: float32 rounds far below the first, bfloat16 and 8 bits below the second.
ROUNDING, CLEAR = 1e-3, 1e-2
# A model that rounds inside may turn over for a few images by the last bits, which differ with the batch.
TOLERATED_SHARE = 0.1
# Of p-values: below the first a warning, below the second a failure.
UNLIKELY, IMPOSSIBLE = 0.01, 0.001


def batch_independence(model: nn.Module, block: Block, scoring: Scoring) -> Check:
    """Compares answers to images that come alone with answers to the same images in one batch.

    Passes where the logits agree within rounding. Both sides use the same draws if the model draws nothing, or draws
    by seed and image id. A model that draws from torch's generators draws for a batch in another order than for
    single images: for it, the check compares mean probabilities by a permutation test over the draws. A model that
    does not take single images is asked about each image beside other images instead.

    Args:
        model: The attacked model.
        block: At least two images.
        scoring: The draws of the evaluation; those of the check derive from its seed.
    """
    if len(block.ids) < 2:
        return unmeasured(BATCHES, "there is one image", BATCHES_MEANING, "Evaluate several images.")
    with torch.no_grad(), autocast("float32", block.images.device):
        try:
            together = torch.stack([in_batch(model, block, scoring, draw) for draw in range(COMPARED_DRAWS)])
        except Exception as error:  # models refuse batches by errors of any type
            reason = f"the model takes no batch of {len(block.ids)} images ({first_line(error)})"
            advice = "Nothing, if the model takes one image at a time."
            return unmeasured(BATCHES, reason, BATCHES_MEANING, advice)
        if not torch.equal(together[0], in_batch(model, block, scoring, 0)):
            return unmeasured(
                BATCHES,
                "the model does not repeat its answers to one batch when it is given the same draws",
                BATCHES_MEANING,
                "Let the model draw from torch's generators, or by seed and image_ids, and keep no state.",
            )
        try:
            alone(model, block, scoring, 0)
            company, apart = "alone", alone
        except Exception:
            company, apart = "beside other images", beside_others
        is_random = not torch.equal(together, together[:1].expand_as(together))
        if takes_seeds(model) or not is_random:
            check = compare_logits(together[0], apart(model, block, scoring, 0), company)
            # A part of a model that takes seeds may draw from torch's generators all the same.
            if check.verdict == "pass" or not is_random:
                return check
        separate = torch.stack([apart(model, block, scoring, draw) for draw in range(COMPARED_DRAWS)])
    return compare_distributions(separate.softmax(-1), together.softmax(-1), company)


def one_at_a_time() -> Check:
    """Returns the check of an evaluation in blocks of one image, which passes: no image has others beside it."""
    finding = "every image was answered alone, in a block of one"
    return Check(BATCHES, "pass", finding, BATCHES_MEANING, numbers={"block": 1})


def in_batch(model: nn.Module, block: Block, scoring: Scoring, draw: int) -> Tensor:
    """Returns (B, classes) logits of one realization of the whole block."""
    return logits_of(model, block.images, block.ids, derive_seed(scoring.seed, "batches"), draw)


def alone(model: nn.Module, block: Block, scoring: Scoring, draw: int) -> Tensor:
    """Returns (B, classes) logits of images that come alone. What is drawn by image id is as in the batch."""
    seed = derive_seed(scoring.seed, "batches")
    by_id = takes_seeds(model)
    each = [
        logits_of(model, image, ids, seed if by_id else derive_seed(seed, "alone", place), draw)
        for place, (image, ids) in enumerate(zip(block.images.split(1), block.ids.split(1), strict=True))
    ]
    return torch.cat(each)


def beside_others(model: nn.Module, block: Block, scoring: Scoring, draw: int) -> Tensor:
    """Returns (B, classes) logits of images at their places in the batch, where every other image is a negative."""
    seed = derive_seed(scoring.seed, "batches")
    even = (torch.arange(len(block.ids), device=block.images.device) % 2 == 0)[:, None, None, None]
    first, second = (
        logits_of(model, torch.where(unchanged, block.images, 1 - block.images), block.ids, seed, draw)
        for unchanged in (even, ~even)
    )
    return torch.where(even[:, :, 0, 0], first, second)


def logits_of(model: nn.Module, images: Tensor, ids: Tensor, seed: int, draw: int) -> Tensor:
    # A model may change the images that it is shown.
    return realizer(model, images.clone(), seed, ids)(draw, 1, images.clone()).float()


def compare_logits(together: Tensor, apart: Tensor, company: str) -> Check:
    """Measures how far (B, classes) logits of the same draws differ, in shares of their spread."""
    spread = float((together.amax(-1) - together.amin(-1)).max())
    difference = (together - apart).abs().amax(-1) / max(spread, torch.finfo(torch.float32).tiny)
    largest, clear = float(difference.max()), int((~(difference <= CLEAR)).sum())
    turned = int((together.argmax(-1) != apart.argmax(-1)).sum())
    too_many = clear > TOLERATED_SHARE * len(together)
    verdict: Verdict = "fail" if too_many else "pass" if largest <= ROUNDING else "warn"
    return Check(
        BATCHES,
        verdict,
        f"of {len(together)} images, {turned} get another class {company} than in one batch, and {clear} get logits "
        f"that differ by more than {CLEAR:.0%} of their spread; the largest difference is {largest:.2g} of it",
        BATCHES_MEANING,
        "" if verdict == "pass" else BATCHES_ADVICE,
        {"images": len(together), "other class": turned, "differ": clear, "largest difference": largest},
    )


def compare_distributions(apart: Tensor, together: Tensor, company: str) -> Check:
    """Compares mean probabilities over different draws, (draws, B, classes) each, by a permutation test."""
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
        f"(total variation, mean over {apart.shape[1]} images); p = {p:.3f} for draws of one distribution",
        BATCHES_MEANING,
        "" if verdict == "pass" else BATCHES_ADVICE,
        {"images": apart.shape[1], "draws": count, "total variation": distance, "p": p},
    )


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
