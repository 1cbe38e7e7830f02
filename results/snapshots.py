"""One attack seen along its way: what it has reached after several numbers of steps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from neuroae.attacks import Perturbed, PGDSettings, pgd
from neuroae.evaluation import Attack, Scoring
from neuroae.evaluation.attack import Progress
from neuroae.evaluation.scoring import Block
from neuroae.utils.contexts import autocast
from neuroae.utils.randomness import derive_seed


@dataclass(frozen=True, eq=False)
class Snapshot:
    """An attack of one restart after so many of its steps.

    All snapshots of an attack share what one run has crafted, by the first image of a block: the end of the run, and
    the points after each number of steps. After a stop, the first snapshot that is missing crafts anew what the rest
    needs. Gradients of no use are counted over the whole run.
    """

    attack: Attack
    steps: int
    counts: Sequence[int]
    reached: dict[int, Perturbed]
    points: dict[tuple[int, int], Tensor]

    @property
    def name(self) -> str:
        return f"{self.attack.name} {self.steps}"

    @property
    def settings(self) -> PGDSettings:
        assert isinstance(self.attack.settings, PGDSettings)
        return self.attack.settings

    @property
    def passes(self) -> int:
        return self.settings.gradients

    def craft(self, model: nn.Module, block: Block, scoring: Scoring, progress: Progress = int) -> Perturbed:
        first = int(block.ids[0])
        if first not in self.reached:
            self.run(block, scoring, progress)
        whole = self.reached[first]
        return whole._replace(images=self.points[first, self.steps], gradients=self.steps * self.settings.realizations)

    def run(self, block: Block, scoring: Scoring, progress: Progress) -> None:
        def keep(steps: int, points: Tensor) -> None:
            if steps in self.counts:
                self.points[int(block.ids[0]), steps] = points

        with autocast(self.attack.precision, block.images.device):
            self.reached[int(block.ids[0])] = pgd(
                self.attack.crafting_model(scoring, block.ids),
                block.images,
                block.labels,
                self.settings,
                seed=derive_seed(scoring.seed, f"craft {self.attack.name}"),
                image_ids=block.ids,
                progress=progress,
                after_step=keep,
            )

    def identity(self) -> dict[str, Any]:
        return replace(self.attack, settings=replace(self.settings, steps=self.steps)).identity()


def snapshots(attack: Attack, counts: Sequence[int]) -> list[Snapshot]:
    """The attack after each number of steps, the last of which is its own."""
    reached: dict[int, Perturbed] = {}
    points: dict[tuple[int, int], Tensor] = {}
    return [Snapshot(attack, steps, counts, reached, points) for steps in counts]
