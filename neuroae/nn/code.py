"""The compact code: what the encoder makes, and what the decoder's first layer takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..kernels.reference import to_dense
from ..utils.randomness import image_id_tensor, seed_tensor
from .autograd import Draw

if TYPE_CHECKING:
    from .encoder import AtomsState, SparseEncoder


@dataclass(eq=False)
class SparseCode:
    """The survivors of every patch, in ascending order of atoms, in static shapes.

    Rows are realizations times images: row r * B + b is realization r of image b. There is room for T survivors a
    patch; slots from ``count`` on are unused.

    Attributes:
        index: (rows, m_h, m_w, T) int16, the atom; -1 where unused.
        value: (rows, m_h, m_w, T) float32, after activation/quantization (eq. 3); differentiable. A survivor in the
            dead zone has value 0 and still occupies its slot, since gradients pass through it.
        projection: (rows, m_h, m_w, T) float32, before activation/quantization, signed.
        count: (rows, m_h, m_w) int32, the number of survivors.
        atoms: L, the number of atoms in the dictionary.
        backend: the backend that made it, and that runs what is done with it.
        membership: under the surrogate "selection" zeros of shape (rows, L, m_h, m_w), which take no memory and carry
            the dense code's gradient to the images; None under any other.
    """

    index: Tensor
    value: Tensor
    projection: Tensor
    count: Tensor
    atoms: int
    backend: str = "auto"
    membership: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the dense tensor, (rows, L, m_h, m_w)."""
        rows, patches_h, patches_w, _ = self.index.shape
        return rows, self.atoms, patches_h, patches_w

    def to_dense(self) -> Tensor:
        """The (rows, L, m_h, m_w) float32 tensor that this code stands for; differentiable."""
        dense = to_dense(self.value, self.index, self.atoms)
        return dense if self.membership is None or not self.carries_membership else dense + self.membership

    @property
    def carries_membership(self) -> bool:
        """Whether a gradient through the selection is asked for."""
        return self.membership is not None and self.membership.requires_grad


def version_of(images: Tensor) -> int | None:
    """How often they were changed in place; None where PyTorch does not count."""
    return None if torch.compiler.is_compiling() or images.is_inference() else images._version


@dataclass(eq=False)
class TopT:
    """A selection: the T coefficients of every patch from which realizations are drawn.

    Attributes:
        atom: (B, m_h, m_w, T) int16, ascending.
        projection: (B, m_h, m_w, T) float32, signed.
        images: the (B, C, H, W) images that were encoded, to which gradients go.
        encoder: the encoder that selected.
        version: of the images then, which counts changes in place; None where it is not known.
        atoms: the encoder's dictionary then.
    """

    atom: Tensor
    projection: Tensor
    images: Tensor
    encoder: SparseEncoder
    version: int | None = None
    atoms: AtomsState | None = None

    def draw(
        self,
        seed: int | Tensor | None = None,
        image_ids: Tensor | None = None,
        start: int = 0,
        count: int = 1,
        receiver: Tensor | None = None,
    ) -> SparseCode:
        """Realizations start .. start + count - 1: dropout and activation/quantization of this selection.

        Args:
            seed: 64-bit seed; None takes one from torch's generator.
            image_ids: (B,) int64 in [0, 2^32), the images' numbers in the draw; None numbers the batch from 0.
            start: the first realization, in [0, 2^32).
            count: how many.
            receiver: a (count * B, C, H, W) tensor that requires grad; it gets each realization's image gradient in
                its own row. Its values do not matter. None sends the sum over realizations to ``images``.

        Returns:
            A code of count * B rows, realization r of image b in row r * B + b.

        Raises:
            RuntimeError: the encoder's atoms, or the images, which are to get the gradient, were changed since.
        """
        encoder = self.encoder
        if self.atoms is not None and not torch.compiler.is_compiling() and not self.atoms.is_of(encoder.atoms):
            raise RuntimeError("the encoder's atoms were changed since they were selected from: select again")
        device = self.atom.device
        batch = self.atom.shape[0]
        if receiver is None:
            if self.images.requires_grad and self.version != version_of(self.images):
                raise RuntimeError(
                    "images were changed in place since they were selected from: gradients would be lost"
                )
            receiver = self.images
        elif receiver.shape != (count * batch, *self.images.shape[1:]):
            raise ValueError(
                f"receiver has shape {tuple(receiver.shape)}, expected {(count * batch, *self.images.shape[1:])}"
            )
        norms, dead_zone, _ = encoder.levels()
        code = Draw.apply(
            receiver,
            encoder.atoms,
            norms,
            dead_zone,
            seed_tensor(seed, device),
            image_id_tensor(image_ids, batch, device),
            self.atom,
            self.projection,
            start,
            count,
            encoder.code_settings(),
        )
        return encoder.make_code(code, self.images, receiver)
