"""The compact code of images, and the selection from which codes are drawn."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..kernels.ops import Code, used_slots
from ..kernels.reference import to_dense
from ..utils.randomness import image_id_tensor, seed_tensor
from .atoms import AtomsState, Levels, tensor_version
from .autograd import CodeSettings, Draw


class SparseCode:
    """The coefficients of every patch that survived dropout, in ascending order of atoms, in static shapes.

    Rows are realizations times images: row r * B + b is realization r of image b. Every patch has room for T
    survivors; slots from ``count`` on are unused.

    Kernels do not write unused slots, and do not read them: 95% of a code are unused. The attributes ``index``,
    ``value`` and ``projection`` of a code from an encoder therefore write -1 and 0 to them at each access.

    Args:
        index, value, projection, count, atoms, backend, membership, survivors: As the attributes.
        complete: Whether the unused slots have been written. Otherwise they hold anything.

    Attributes:
        index: (rows, m_h, m_w, T) int16, the number of the atom; -1 in unused slots.
        value: (rows, m_h, m_w, T) float32, after activation/quantization (eq. 3); differentiable. A survivor in the
            dead zone has the value 0 and still has a slot, since gradients pass through it. 0 in unused slots.
        projection: (rows, m_h, m_w, T) float32, before activation/quantization, signed; 0 in unused slots.
        count: (rows, m_h, m_w) int32, the number of survivors.
        parts: Index, value, projection and count for kernels, which do not read unused slots.
        atoms: The number of atoms in the dictionary, L.
        backend: The backend that computed the code and that computes the next layer.
        membership: Zeros of shape (rows, L, m_h, m_w) under the surrogate "selection", None under the others. They
            take no memory, and carry the gradient of the dense code to the images.
        survivors: The expected number of survivors in a patch, T (1 - p); None where it is not known. Layers choose
            between sparse and dense computation by it.
    """

    def __init__(
        self,
        index: Tensor,
        value: Tensor,
        projection: Tensor,
        count: Tensor,
        atoms: int,
        backend: str = "auto",
        membership: Tensor | None = None,
        survivors: float | None = None,
        *,
        complete: bool = True,
    ) -> None:
        self.parts: Code = (index, value, projection, count)
        self.count = count
        self.atoms = atoms
        self.backend = backend
        self.membership = membership
        self.survivors = survivors
        self.complete = complete

    def __repr__(self) -> str:
        return f"SparseCode(shape={self.shape}, slots={self.parts[0].shape[3]}, backend={self.backend!r})"

    @property
    def index(self) -> Tensor:
        return self.without_unused(self.parts[0], -1)

    @property
    def value(self) -> Tensor:
        return self.without_unused(self.parts[1], 0)

    @property
    def projection(self) -> Tensor:
        return self.without_unused(self.parts[2], 0)

    def without_unused(self, part: Tensor, number: int) -> Tensor:
        """Returns a part of the code with this number in its unused slots."""
        if self.complete:
            return part
        unused = ~used_slots(self.count, part.shape[-1])
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return part.masked_fill(unused, number)
        # In place, so that the part stays the tensor that autograd knows. Saved for a backward pass, it may change
        # here all the same, since no kernel reads these slots; ``data`` does not count as a change.
        with torch.inference_mode() if part.is_inference() else nullcontext():
            part.data.masked_fill_(unused, number)
        return part

    def with_value(self, value: Tensor, membership: Tensor | None) -> SparseCode:
        """Returns the same survivors with other values and another carrier of the selection's gradient."""
        index, _, projection, count = self.parts
        settings = self.atoms, self.backend, membership, self.survivors
        return SparseCode(index, value, projection, count, *settings, complete=self.complete)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the dense tensor, (rows, L, m_h, m_w)."""
        rows, patches_h, patches_w = self.count.shape
        return rows, self.atoms, patches_h, patches_w

    def to_dense(self) -> Tensor:
        """Returns the code as a (rows, L, m_h, m_w) float32 tensor; differentiable."""
        index, value, _, count = self.parts
        dense = to_dense(value, index, count, self.atoms)
        return dense if self.membership is None or not self.carries_membership else dense + self.membership

    @property
    def carries_membership(self) -> bool:
        """Whether autograd records the gradient through the selection."""
        return self.membership is not None and self.membership.requires_grad


class DrawingEncoder(Protocol):
    """The part of a ``SparseEncoder`` that a selection uses to draw codes."""

    atoms: Tensor

    def code_settings(self) -> CodeSettings: ...

    def levels(self) -> Levels: ...

    def make_code(self, parts: Code, images: Tensor, receiver: Tensor) -> SparseCode: ...


@dataclass(eq=False)
class TopT:
    """A selection: the T coefficients of every patch from which realizations are drawn.

    Attributes:
        atom: (B, m_h, m_w, T) int16, the numbers of the selected atoms, ascending.
        projection: (B, m_h, m_w, T) float32, signed.
        images: The (B, C, H, W) images that were encoded. Gradients go to them.
        encoder: The encoder that selected.
        images_version: The version of ``images`` at the selection (see ``tensor_version``).
        atoms_state: The state of the encoder's dictionary at the selection.
    """

    atom: Tensor
    projection: Tensor
    images: Tensor
    encoder: DrawingEncoder
    images_version: int | None = None
    atoms_state: AtomsState | None = None

    def draw(
        self,
        seed: int | Tensor | None = None,
        image_ids: Tensor | None = None,
        start: int = 0,
        count: int = 1,
        receiver: Tensor | None = None,
    ) -> SparseCode:
        """Draws realizations start .. start + count - 1: dropout and activation/quantization of this selection.

        Args:
            seed: 64-bit seed; None takes one from torch's generator.
            image_ids: (B,) int64 in [0, 2^32), the images' numbers in the draw; None numbers the batch from 0.
            start: The first realization, in [0, 2^32).
            count: The number of realizations.
            receiver: A (count * B, C, H, W) tensor that requires grad. It gets each realization's image gradient in
                its own row; its values do not matter. None sends the sum over realizations to ``images``.

        Returns:
            A code of count * B rows, realization r of image b in row r * B + b.

        Raises:
            RuntimeError: The encoder's atoms, or the images that get the gradient, were changed after the selection.
            ValueError: ``receiver`` has another shape, or a realization is outside [0, 2^32).
        """
        encoder = self.encoder
        state = None if torch.compiler.is_compiling() else self.atoms_state
        if state is not None and not state.is_of(encoder.atoms):
            raise RuntimeError("the encoder's atoms were changed after the selection: select again")
        device = self.atom.device
        batch = self.atom.shape[0]
        if receiver is None:
            if self.images.requires_grad and self.images_version != tensor_version(self.images):
                raise RuntimeError(
                    "images were changed in place after the selection, so their gradient would be lost: select again"
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
