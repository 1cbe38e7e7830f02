"""Attacks that only the experiments use: ablations of the selection gradient, snapshots of a run, shared transfers."""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroae import Defense, SparseCode, SparseEncoder
from neuroae.attacks import Perturbed, PGDSettings
from neuroae.evaluation import Attack, Scoring
from neuroae.evaluation.attack import Perturbation, Progress
from neuroae.evaluation.scoring import Block
from neuroae.kernels.ops import Code
from neuroae.nn.encoder import SELECTION
from neuroae.utils.files import load_tensors, save_tensors

# Widths at which the smooth clamp of the decoder's gradient is the true clamp, and no clamp at all.
TRUE_CLAMP, NO_CLAMP = 1e-6, 1e9


class PatchGradient(torch.autograd.Function):
    """Zeros in the shape of the dense code. The encoder's ``gradient`` defines their gradient to the images."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, encoder: "AblatedEncoder", shape: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(images)
        ctx.encoder = encoder
        return images.new_zeros(()).expand(shape)

    @staticmethod
    def backward(ctx: Any, grad_code: Tensor) -> tuple[Tensor, None, None]:
        (images,), encoder = ctx.saved_tensors, ctx.encoder
        with torch.autocast(images.device.type, enabled=False):
            projections = F.conv2d(images, encoder.atoms, stride=encoder.stride)
            grad = encoder.gradient(projections, grad_code.float())
            rows = F.conv_transpose2d(grad, encoder.atoms, stride=encoder.stride)
        margins = [size - part for size, part in zip(images.shape[2:], rows.shape[2:], strict=True)]
        return F.pad(rows, (0, margins[1], 0, margins[0])), None, None


class AblatedEncoder(SparseEncoder, ABC):
    """A quantized encoder with the surrogate "selection", whose gradient a subclass defines in plain PyTorch."""

    def make_code(self, parts: Code, images: Tensor, receiver: Tensor) -> SparseCode:
        index, value, projection, count = parts
        rows, patches_h, patches_w, _ = index.shape
        num_atoms = len(self.atoms)
        membership = PatchGradient.apply(receiver, self, (rows, num_atoms, patches_h, patches_w))
        return SparseCode(
            index, value.detach(), projection, count, num_atoms, self.backend, membership, complete=False
        )

    @abstractmethod
    def gradient(self, projections: Tensor, grad_code: Tensor) -> Tensor:
        """Returns the gradient to the projections, (rows, L, m_h, m_w).

        Args:
            projections: The images' projections on the atoms, (rows, L, m_h, m_w).
            grad_code: The gradient to every entry of the dense code, of the same shape.
        """


class FixedCut(AblatedEncoder):
    """The selection gradient with a cut that does not move: what one atom gains, no other loses."""

    def gradient(self, projections: Tensor, grad_code: Tensor) -> Tensor:
        magnitudes = projections.abs()
        largest = magnitudes.topk(self.top_t + 1, dim=1).values
        cut = (largest[:, -2:-1] + largest[:, -1:]) / 2
        distance = (magnitudes - cut) / self.resolved_selection_width()
        closeness = torch.sigmoid(distance) * torch.sigmoid(-distance)
        norms, dead_zone = self.norms.reshape(1, -1, 1, 1), self.dead_zone.reshape(1, -1, 1, 1)
        return torch.where(magnitudes >= dead_zone, closeness, 0) * norms * grad_code


class StraightThrough(AblatedEncoder):
    """The gradient passes as if every atom were selected and nothing were quantized."""

    def gradient(self, projections: Tensor, grad_code: Tensor) -> Tensor:
        return grad_code


def ablate(model: Defense, kind: type[AblatedEncoder]) -> Defense:
    """Returns the defense with another encoder gradient; it shares the decoder and the classifier."""
    encoder = kind.from_config(model.encoder.config() | {"surrogate": SELECTION}, model.encoder.atoms)
    return Defense(encoder, model.decoder, model.classifier).eval()


class SharedRun:
    """One run of an attack on each block of images, which keeps the images after several numbers of steps.

    Args:
        attack: A PGD attack of one restart.
        counts: The numbers of steps after which to keep the images, at most the attack's own number.
    """

    def __init__(self, attack: Attack, counts: Sequence[int]) -> None:
        if not isinstance(attack.settings, PGDSettings) or attack.settings.restarts != 1:
            raise ValueError(f"settings is {attack.settings}, expected PGDSettings with 1 restart")
        self.attack, self.settings, self.counts = attack, attack.settings, counts
        # By the id of the block's first image: the result of the run, and the images by the number of steps.
        self.ends: dict[int, Perturbed] = {}
        self.images: dict[int, dict[int, Tensor]] = {}

    def craft(self, steps: int, model: nn.Module, block: Block, scoring: Scoring, progress: Progress) -> Perturbed:
        """Returns the block's result after ``steps`` steps. The first call for a block runs the attack."""
        first = int(block.ids[0])
        if first not in self.ends:
            images = self.images[first] = {}

            def keep(step: int, points: Tensor) -> None:
                if step in self.counts:
                    images[step] = points

            self.ends[first] = self.attack.craft(model, block, scoring, progress, after_step=keep)
        gradients = steps * self.settings.realizations
        return self.ends[first]._replace(images=self.images[first][steps], gradients=gradients)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """An attack after some of its steps: a perturbation like any other (``neuroae.evaluation.attack.Perturbation``).

    When an evaluation continues after a stop, the first missing snapshot of a block runs the attack again.
    Unusable gradients are counted over the whole run.
    """

    run: SharedRun
    steps: int

    @property
    def name(self) -> str:
        return f"{self.run.attack.name} {self.steps}"

    @property
    def passes(self) -> int:
        return self.run.settings.gradients

    def craft(self, model: nn.Module, block: Block, scoring: Scoring, progress: Progress = int) -> Perturbed:
        return self.run.craft(self.steps, model, block, scoring, progress)

    def identity(self) -> dict[str, Any]:
        return replace(self.run.attack, settings=replace(self.run.settings, steps=self.steps)).identity()


def snapshots(attack: Attack, counts: Sequence[int]) -> list[Snapshot]:
    """Returns the attack after each of these numbers of steps; all share one run."""
    run = SharedRun(attack, counts)
    return [Snapshot(run, steps) for steps in counts]


@dataclass(frozen=True, eq=False)
class SharedTransfer(Attack):
    """A transfer whose images are kept on disk, for other evaluations of the same source, images and seed.

    Without restarts and targets, its images do not depend on the model that they are to fool.

    Attributes:
        folder: The folder of the images.
    """

    folder: Path = Path()

    def craft(
        self,
        model: nn.Module,
        block: Block,
        scoring: Scoring,
        progress: Progress = int,
        after_step: Callable[[int, Tensor], object] | None = None,
    ) -> Perturbed:
        path = self.path(block, scoring)
        if not path.exists():
            crafted = super().craft(model, block, scoring, progress, after_step)
            tensors = {"ids": block.ids, "clean": block.images, "images": crafted.images}
            save_tensors(
                path,
                tensors | {"zero": crafted.zero, "invalid": crafted.invalid},
                {"gradients": crafted.gradients, "forwards": crafted.forwards},
            )
            return crafted
        tensors, notes = load_tensors(path)
        device = block.images.device
        if not (torch.equal(tensors["ids"], block.ids.cpu()) and torch.equal(tensors["clean"], block.images.cpu())):
            raise ValueError(f"{path} holds other images than expected")
        progress(self.passes * len(block.images))
        images, zero, invalid = (tensors[name].to(device) for name in ("images", "zero", "invalid"))
        return Perturbed(images, notes["gradients"], notes["forwards"], zero, invalid)

    def path(self, block: Block, scoring: Scoring) -> Path:
        """Returns the file of a block, named after what decides its images."""
        decisive = {"name": self.name, "seed": scoring.seed, "attack": self.identity(), "ids": block.ids.tolist()}
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
        return self.folder / re.sub(r"\W+", "-", self.name) / f"{int(block.ids[0])}-{digest[:16]}.safetensors"


def share_transfers(attacks: Sequence[Perturbation], folder: Path) -> list[Perturbation]:
    """Returns the attacks, with transfers that keep their images in the folder."""
    return [
        SharedTransfer(**{field.name: getattr(attack, field.name) for field in fields(attack)}, folder=folder)
        if isinstance(attack, Attack) and is_shareable(attack)
        else attack
        for attack in attacks
    ]


def is_shareable(attack: Attack) -> bool:
    """Returns whether the images of an attack do not depend on the attacked model."""
    return bool(attack.transfer) and not attack.targeted and getattr(attack.settings, "restarts", 0) == 1
