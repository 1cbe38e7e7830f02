"""The standard suite as one attack of an evaluation.

``neuroae.evaluate(model, images, labels)`` needs to know nothing about the model: a probe finds out what it offers and
what stands in the way, a cascade of attacks follows (``neuroae.attacks.suite``), and the images that are left are
counted on draws that no attack saw.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks import Perturbed, Probe, probe
from ..attacks.balls import NORMS, Norm
from ..attacks.checks import check_choice
from ..attacks.settings import GradientSettings, check_epsilon
from ..attacks.stages import EFFORTS, Stage, suite_stages
from ..attacks.suite import Outcome, run_suite
from ..data import ImageSet, image_set
from ..models.fingerprints import state_fingerprint
from ..utils.contexts import autocast, repeatable
from ..utils.files import load_json
from ..utils.randomness import derive_seed
from .attack import Attack, Progress
from .folder import MANIFEST
from .models import for_any_batch
from .plan import Evaluation, device_of, even_block
from .run import run_evaluation
from .scoring import Block, Scoring
from .verdict import Verdict, shown_epsilon

PROBED_IMAGES = 12
DRAWS = 10


class AnswersOnly(nn.Module):
    """A function from images to scores as a module; it gives no gradient."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        """Returns the function's scores (B, classes) as float32."""
        with torch.no_grad():
            scores = torch.as_tensor(self.function(images.detach()))
        return scores.to(images.device, torch.float32)


@dataclass(frozen=True, eq=False)
class SuiteAttack:
    """The suite as a ``Perturbation`` of an evaluation.

    Attributes:
        name: The attack's name in tables; seeds derive from it.
        suite: "standard" or "quick".
        epsilon: The radius of the ball.
        norm: "linf" or "l2".
        probe: What was measured of the attacked model.
        stages: The cascade.
        sources: Fingerprints of the models that attacks are transferred from, by name.
    """

    name: str
    suite: str
    epsilon: float
    norm: Norm
    probe: Probe
    stages: Sequence[Stage]
    sources: Mapping[str, str]

    @property
    def passes(self) -> int:
        return sum(stage.passes for stage in self.stages)

    @property
    def draws(self) -> int:
        """Realizations that judge an attempt."""
        return EFFORTS[self.suite].draws if self.probe.random else 1

    def craft(self, model: nn.Module, block: Block, scoring: Scoring, progress: Progress = int) -> Perturbed:
        with autocast("float32", block.images.device):
            outcome = run_suite(
                model,
                block.images,
                block.labels,
                self.stages,
                seed=derive_seed(scoring.seed, f"craft {self.name}"),
                image_ids=block.ids,
                draws=self.draws,
                scoring_draws=scoring.draws,
                probabilities=self.probe.probabilities,
                progress=progress,
            )
        return outcome.perturbed._replace(details=details_of(outcome, self.stages))

    def gradient_attacks(self) -> list[Attack]:
        """Returns the first stage that follows a gradient of the model as an attack of its own; none without one."""
        ran = (stage for stage in self.stages if not stage.skipped)
        attacks = (
            Attack(stage.name, stage.model, stage.settings)
            for stage in ran
            if isinstance(stage.settings, GradientSettings)
        )
        return list(islice(attacks, 1))

    def identity(self) -> dict[str, Any]:
        stages = [
            {"name": stage.name, "skipped": stage.skipped, "target": stage.target, "settings": asdict(stage.settings)}
            for stage in self.stages
        ]
        return {
            "method": "suite",
            "family": "white-box",
            "access": "white-box",
            "settings": {"suite": self.suite, "epsilon": self.epsilon, "norm": self.norm},
            "probe": self.probe.as_json(),
            "stages": stages,
            "sources": dict(self.sources),
            "draws": self.draws,
            "gradients": sum(0 if stage.skipped else stage.settings.gradients for stage in self.stages),
            "forwards": sum(0 if stage.skipped else stage.settings.forwards for stage in self.stages),
        }


def details_of(outcome: Outcome, stages: Sequence[Stage]) -> dict[str, Tensor]:
    """Returns what is kept of each image beside its record, each tensor with the images as its first dimension."""
    numbers = {stage.name: number for number, stage in enumerate(stages)}
    losses = {f"loss {numbers[name]}": values.T for name, values in outcome.losses.items()}
    return {
        "stage": outcome.stage,
        "margins": outcome.margins.T,
        "gradients": outcome.gradients.T,
        "forwards": outcome.forwards.T,
        **losses,
    }


def suite_attack(
    model: nn.Module,
    data: ImageSet,
    *,
    epsilon: float,
    norm: Norm = "linf",
    suite: str = "standard",
    sources: Mapping[str, nn.Module] | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
) -> SuiteAttack:
    """Probes a model and plans the suite on it.

    Args:
        model: The attacked model, in evaluation mode.
        data: The images; the first few are probed.
        epsilon: The radius of the ball, on the scale of pixels in [0, 1].
        norm: "linf" or "l2".
        suite: "standard" or "quick".
        sources: Other models by name, from which attacks are transferred as well.
        seed: The seed of the probe's draws.
        folder: The evaluation's folder. One that was begun keeps its probe, which is then not measured again.

    Raises:
        ValueError: An argument has an unknown value.
    """
    check_choice("suite", suite, tuple(EFFORTS))
    check_choice("norm", norm, NORMS)
    check_epsilon(epsilon, norm)
    name = f"{suite} suite, {norm} {shown_epsilon(epsilon)}"
    measured = earlier_probe(folder, name) if folder is not None else None
    if measured is None:
        images, labels, ids = Block.of(data.limited(PROBED_IMAGES), device_of(model))
        size = epsilon / 2 if norm == "linf" else epsilon / images[0].numel() ** 0.5
        with repeatable():
            measured = probe(model, images, labels, ids, derive_seed(seed, "probe suite"), size)
    sources = dict(sources or {})
    stages = suite_stages(
        model,
        measured,
        epsilon=epsilon,
        norm=norm,
        effort=EFFORTS[suite],
        sources=list(sources.items()),
        differentiable=not isinstance(model, AnswersOnly),
    )
    fingerprints = {name: state_fingerprint(source) for name, source in sources.items()}
    return SuiteAttack(name, suite, epsilon, norm, measured, stages, fingerprints)


def earlier_probe(folder: str | Path, name: str) -> Probe | None:
    """Returns the probe that a folder's manifest holds for this attack, None where it has none."""
    path = Path(folder) / MANIFEST
    if not path.exists():
        return None
    try:
        return Probe.from_json(load_json(path)["identity"]["attacks"][name]["probe"])
    except (KeyError, TypeError, json.JSONDecodeError):
        return None


def evaluate(
    model: nn.Module | Callable[[Tensor], Tensor],
    images: Tensor | ImageSet,
    labels: Tensor | None = None,
    *,
    epsilon: float = 8 / 255,
    norm: Norm = "linf",
    suite: str = "standard",
    sources: Mapping[str, nn.Module] | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    block: int | None = None,
    name: str = "model",
) -> Verdict:
    """Attacks any model by the standard suite, and returns what is left of its accuracy.

    Args:
        model: A module from images in [0, 1] to logits or probabilities (B, classes), in evaluation mode; it may be
            random and may lack a gradient. A plain function that returns scores is searched without gradients.
        images: (N, C, H, W) float32 in [0, 1], or an ``ImageSet`` with its labels.
        labels: (N,) int64.
        epsilon: The radius of the ball, on the scale of pixels in [0, 1].
        norm: "linf" or "l2".
        suite: "standard", or "quick" for a tenth of the cost.
        sources: Other models by name, from which attacks are transferred as well.
        folder: Keeps records and images there, and goes on from there when called again. None keeps all in memory.
        seed: The seed of all draws.
        block: Images in a batch; None for equal batches of at most 64.
        name: The model's name in the verdict.

    Returns:
        The verdict; print it.

    Raises:
        TypeError, ValueError: An argument does not fit; the message names it.
    """
    data = images if isinstance(images, ImageSet) else image_set(images, labels)
    block = even_block(len(data)) if block is None else block
    module = for_any_batch(name, model if isinstance(model, nn.Module) else AnswersOnly(model), data, block)
    attack = suite_attack(
        module, data, epsilon=epsilon, norm=norm, suite=suite, sources=sources, seed=seed, folder=folder
    )
    draws = DRAWS if attack.probe.random else 1
    evaluation = Evaluation(module, data, [attack], Scoring(draws, seed), block, name)
    return Verdict.of(run_evaluation(evaluation, folder))
