"""The sparse randomized encoder (paper, section 2.2) as a layer."""

from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from ..kernels import backend_name, is_interpreting, load_backend, namespace
from ..kernels.ops import SURROGATES, Code
from ..utils.randomness import image_id_tensor, seed_tensor
from ..utils.validation import check_boolean, check_integer, check_number
from .atoms import AtomsState, Levels, check_atoms, measure_levels, tensor_version
from .autograd import CodeSettings, Encode, Membership, MembershipSettings
from .code import SparseCode, TopT

SELECTION = "selection"
ENCODER_SURROGATES = (*SURROGATES, SELECTION)

Backend = Literal["auto", "reference", "cpu", "triton"]


class SparseEncoder(nn.Module):
    """Projects patches onto a dictionary, keeps the top T, drops most at random, and reduces the rest to signs.

    The encoder has no trained parameters. Dropout is part of the defense: it is on in training and in evaluation mode.
    The layer computes in float32 under every autocast, TF32 and matmul-precision setting, and
    ``.to(torch.bfloat16)`` leaves its dictionary in float32.

    Norms and dead zones follow the atoms, even when these are changed in place or replaced for one call, as by
    ``torch.func.functional_call``. Compiled and exported code cannot do this: call ``refresh_norms`` there.

    Args:
        atoms: The dictionary, (L, C, n, n) float32, 1 to 32,767 atoms of unit l2 norm (tolerance 1e-4).
        stride: Pixels between patches, S.
        top_t: The number of coefficients of each patch that are kept before dropout, T, in 1 .. L. L switches the
            selection off.
        dropout_p: The probability in [0, 1) that a kept coefficient is dropped (eq. 2). Survivors are not rescaled.
        epsilon: The l-infinity budget that the dead zone is designed for, on the scale of pixels in [0, 1].
        beta: The factor of the dead zone, |a| < beta * epsilon * norm with norm the atom's l1 norm (eq. 3).
        quantize: True passes sign * norm, False the projections.
        signed: False takes magnitudes first, as the published code did, so that values are 0 or +norm.
        surrogate: The kind of gradient. "identity", "smooth" (eq. 9) and "smooth-normalized" (of the published code)
            replace the quantizer's derivative; the gradient flows through the survivors only (W-NFGA, the paper's
            white-box near-full gradient approximation, section 4). "selection" follows how atoms enter and leave the
            top T; the gradient flows to all atoms.
        sigma: The width of the smooth surrogates.
        backend: The set of kernels. "auto" chooses it by the images' device; "reference", "cpu" and "triton" are the
            choices.
        selection_width: For the surrogate "selection" only: how far from the T-th magnitude an atom counts, on the
            scale of projections. None takes a tenth of epsilon times the atoms' mean l1 norm, 0.02 at the paper's
            settings.

    Raises:
        TypeError: A tensor has the wrong dtype or an argument the wrong type.
        ValueError: Another argument does not fit; the message gives its name, its value and what was expected.
    """

    # The arguments that describe the encoder, without its atoms, and without ``backend``, which changes no results.
    CONFIG = (
        "stride",
        "top_t",
        "dropout_p",
        "epsilon",
        "beta",
        "quantize",
        "signed",
        "surrogate",
        "sigma",
        "selection_width",
    )

    atoms: Tensor
    norms: Tensor
    dead_zone: Tensor
    # The atoms from which norms and dead zones were computed. Modules pickled by earlier versions have none.
    atoms_state: AtomsState | None = None

    def __init__(
        self,
        atoms: Tensor,
        stride: int = 2,
        top_t: int = 50,
        dropout_p: float = 0.95,
        epsilon: float = 8 / 255,
        beta: float = 3.0,
        quantize: bool = True,
        signed: bool = True,
        surrogate: str = "smooth",
        sigma: float = 0.25,
        backend: Backend = "auto",
        selection_width: float | None = None,
    ) -> None:
        super().__init__()
        check_atoms(atoms)
        self.register_buffer("atoms", atoms.detach().clone(memory_format=torch.contiguous_format))
        self.stride = stride
        self.top_t = top_t
        self.dropout_p = dropout_p
        self.epsilon = epsilon
        self.beta = beta
        self.quantize = quantize
        self.signed = signed
        self.surrogate = surrogate
        self.sigma = sigma
        self.backend = backend
        self.selection_width = selection_width
        self.register_buffer("norms", torch.empty(0), persistent=False)
        self.register_buffer("dead_zone", torch.empty(0), persistent=False)
        self.refresh_norms()

    def config(self) -> dict[str, Any]:
        """Returns the arguments except atoms and backend, by name, as values that JSON can hold."""
        return {name: getattr(self, name) for name in self.CONFIG}

    @classmethod
    def from_config(cls, config: dict[str, Any], atoms: Tensor) -> Self:
        """Returns an encoder with the settings that ``config`` returned, and these atoms."""
        return cls(atoms, **config)

    def __setattr__(self, name: str, value: Any) -> None:
        """Checks settings and atoms at every assignment, and updates norms and dead zones."""
        if name in CHECKS:
            CHECKS[name](name, value)
        if name == "atoms":
            check_integer("top_t", self.top_t, 1, len(value))
            value = value.detach().contiguous()
        elif name == "top_t":
            check_integer(name, value, 1, len(self.atoms))
        elif name in FRACTIONS:
            value = float(value)
        super().__setattr__(name, value)
        if name in ("atoms", "epsilon", "beta") and "dead_zone" in self._buffers:
            # Views of one model share the dictionary of buffers.
            vars(self)["_buffers"] = dict(self._buffers)
            self.refresh_norms()

    def refresh_norms(self) -> None:
        """Computes the l1 norms of the atoms and their dead zones again."""
        self.norms, self.dead_zone, width = self.measure_levels()
        self.atoms_state = AtomsState.of(self.atoms, width)

    def measure_levels(self) -> Levels:
        """Computes norms, dead zones and the default width from the atoms."""
        return measure_levels(self.atoms, self.epsilon, self.beta)

    def levels(self) -> Levels:
        """Returns norms, dead zones and the default width of the current atoms.

        Raises:
            ValueError: The atoms were changed or replaced and have no unit l2 norm.
        """
        # While a graph is compiled or exported, a tensor's identity is not available.
        if not torch.compiler.is_compiling() and not (self.atoms_state and self.atoms_state.is_of(self.atoms)):
            check_atoms(self.atoms)
            if self.atoms_state and self.atoms_state.atoms is not self.atoms:
                return self.measure_levels()  # not stored, since the atoms may be replaced for this call only
            self.refresh_norms()
        assert self.atoms_state is not None
        return Levels(self.norms, self.dead_zone, self.atoms_state.selection_width)

    def forward(self, images: Tensor, seed: int | Tensor | None = None, image_ids: Tensor | None = None) -> Tensor:
        """Returns one realization as a dense (B, L, m_h, m_w) float32 tensor, for any layer.

        Takes the arguments of ``encode``.
        """
        return self.encode(images, seed=seed, image_ids=image_ids).to_dense()

    def encode(
        self,
        images: Tensor,
        realizations: int = 1,
        seed: int | Tensor | None = None,
        image_ids: Tensor | None = None,
    ) -> SparseCode:
        """Returns the code of the images. Every call without a seed draws fresh dropout.

        Args:
            images: (B, C, H, W) float32 in [0, 1] (tolerance 1e-6).
            realizations: The number of independent dropout masks for each image, R.
            seed: 64-bit seed; None takes one from torch's generator, so that ``torch.manual_seed`` governs it.
            image_ids: (B,) int64 in [0, 2^32). An image's mask depends on its id, not on its place in the batch. None
                numbers the batch from 0.

        Returns:
            A code of R * B rows, realization r of image b in row r * B + b.

        Raises:
            TypeError, ValueError: An argument does not fit; the message names it.
        """
        check_integer("realizations", realizations, 1)
        if realizations != 1:
            return self.select(images).draw(seed, image_ids, count=realizations)
        images = self.prepare_images(images)
        norms, dead_zone, _ = self.levels()
        code = Encode.apply(
            images,
            self.atoms,
            norms,
            dead_zone,
            seed_tensor(seed, images.device),
            image_id_tensor(image_ids, images.shape[0], images.device),
            0,
            self.code_settings(),
        )
        return self.make_code(code, images, images)

    def select(self, images: Tensor) -> TopT:
        """Returns the top T projections of each patch, from which many realizations can be drawn.

        For example, ``select(images).draw(seed, count=40)`` draws 40. ``images`` are as in ``encode``.
        """
        images = self.prepare_images(images)
        width = self.levels().selection_width  # raises for atoms that do not fit
        with torch.no_grad():
            atom, projection = namespace(self.backend).select(images, self.atoms, self.stride, self.top_t)
        return TopT(atom, projection, images, self, tensor_version(images), AtomsState.of(self.atoms, width))

    @property
    def value_surrogate(self) -> str:
        """The surrogate for the derivative of the survivors' values."""
        return "identity" if self.surrogate == SELECTION else self.surrogate

    def make_code(self, parts: Code, images: Tensor, receiver: Tensor) -> SparseCode:
        """Returns a code, with the tensor that carries its gradient through the selection.

        Args:
            parts: Index, value, projection and count.
            images: The (B, C, H, W) images that were encoded.
            receiver: The tensor that gets the gradient (see ``TopT.draw``).
        """
        index, value, projection, count = parts
        num_atoms, membership = self.atoms.shape[0], None
        if self.surrogate == SELECTION:
            if self.quantize:
                value = value.detach()
            rows, patches_h, patches_w, _ = index.shape
            norms, dead_zone, _ = self.levels()
            membership = Membership.apply(
                receiver,
                images.detach(),
                self.atoms,
                norms,
                dead_zone,
                (rows, num_atoms, patches_h, patches_w),
                self.membership_settings(),
            )
        settings = num_atoms, self.backend, membership, self.top_t * (1 - self.dropout_p)
        return SparseCode(index, value, projection, count, *settings, complete=False)

    def code_settings(self) -> CodeSettings:
        """Returns the settings that encoding, drawing and their backward passes need."""
        return CodeSettings(
            self.backend,
            self.stride,
            self.top_t,
            self.dropout_p,
            self.quantize,
            self.signed,
            self.value_surrogate,
            self.sigma,
        )

    def membership_settings(self) -> MembershipSettings:
        """Returns the settings of the gradient through the selection."""
        # Without quantization, the values of survivors have a gradient as well, in the realizations that keep them. To
        # match, the selection's gradient is multiplied by the probability that dropout keeps an atom.
        factor = 1.0 if self.quantize else 1 - self.dropout_p
        return MembershipSettings(
            self.backend,
            self.stride,
            self.top_t,
            self.resolved_selection_width(),
            self.quantize,
            self.signed,
            factor,
        )

    def resolved_selection_width(self) -> float:
        """Returns ``selection_width``, or its default where it is None.

        Raises:
            ValueError: The width is None and epsilon is 0, so that the default would be 0.
        """
        if self.selection_width is not None:
            return self.selection_width
        if self.epsilon == 0:
            raise ValueError("selection_width is None and epsilon is 0, expected a width above 0")
        return self.levels().selection_width

    def prepare_images(self, images: Tensor) -> Tensor:
        """Returns the images in float32 and contiguous. The kernels check the pixels' range when they read them.

        Raises:
            TypeError: ``images`` is not a tensor, or not in float32. Under autocast half precision is accepted too.
            ValueError: Shape or device do not fit the atoms, or the backend does not serve the device.
        """
        if not isinstance(images, Tensor):
            raise TypeError(f"images is a {type(images).__name__}, expected a tensor")
        if images.dtype != torch.float32:
            half = images.dtype in (torch.bfloat16, torch.float16)
            if not (half and torch.is_autocast_enabled(images.device.type)):
                hint = "; divide by 255" if images.dtype == torch.uint8 else ""
                raise TypeError(f"images has dtype {images.dtype}, expected torch.float32 in [0, 1]{hint}")
            images = images.float()
        channels, patch = self.atoms.shape[1:3]
        if images.dim() != 4 or images.shape[1] != channels:
            raise ValueError(f"images has shape {tuple(images.shape)}, expected (B, {channels}, H, W)")
        if images.shape[2] < patch or images.shape[3] < patch:
            raise ValueError(
                f"images are {images.shape[2]} x {images.shape[3]}, expected at least one patch, {patch} x {patch}"
            )
        if images.device != self.atoms.device:
            raise ValueError(
                f"images is on {images.device}, expected {self.atoms.device}, where the encoder's atoms are"
            )
        if self.backend in ("cpu", "triton"):
            self.require_backend(images.device.type)
        return images.contiguous()

    def require_backend(self, device_type: str) -> None:
        expected = "cpu" if self.backend == "cpu" or is_interpreting() else "cuda"
        if device_type != expected or backend_name(device_type) != self.backend:
            raise ValueError(f"backend is {self.backend!r}, which does not serve tensors on {device_type}")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SparseEncoder":
        """Moves the dictionary between devices; its dtype and memory layout stay."""
        state = self.atoms_state if self.atoms_state and self.atoms_state.is_of(self.atoms) else None
        buffers = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)
        for name, buffer in buffers.items():
            moved = self._buffers[name]
            assert moved is not None
            if moved.dtype != torch.float32:
                moved = buffer.to(moved.device)
            self._buffers[name] = moved.contiguous()
        if state:
            self.atoms_state = AtomsState.of(self.atoms, state.selection_width)
        else:
            self.refresh_norms()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Checks a dictionary before it is copied.

        This is not a hook, because a copy of this layer would copy the hook, which would still hold this layer.
        """
        if prefix + "atoms" in state_dict:
            check_atoms(state_dict[prefix + "atoms"])
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        self._buffers["atoms"] = self.atoms.contiguous()
        self.refresh_norms()

    def extra_repr(self) -> str:
        num_atoms, channels, patch, _ = self.atoms.shape
        return (
            f"atoms={num_atoms}, patch={channels} x {patch} x {patch}, stride={self.stride}, top_t={self.top_t}, "
            f"dropout_p={self.dropout_p}, epsilon={self.epsilon:.5g}, beta={self.beta}, quantize={self.quantize}, "
            f"signed={self.signed}, surrogate={self.surrogate!r}, sigma={self.sigma}, backend={self.backend!r}"
            + ("" if self.selection_width is None else f", selection_width={self.selection_width:.5g}")
        )


def check_surrogate(name: str, value: object) -> None:
    if value not in ENCODER_SURROGATES:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(ENCODER_SURROGATES)}")


def check_selection_width(name: str, value: float | None) -> None:
    if value is not None:
        check_number(name, value, lambda width: width > 0, "above 0")


def check_backend(_name: str, value: str) -> None:
    if value != "auto":
        load_backend(value)


FRACTIONS = ("dropout_p", "epsilon", "beta", "sigma")
CHECKS: dict[str, Callable[[str, Any], None]] = {
    "atoms": lambda _, value: check_atoms(value),
    "stride": lambda name, value: check_integer(name, value, 1),
    "dropout_p": lambda name, value: check_number(name, value, lambda p: 0 <= p < 1, "in [0, 1)"),
    "epsilon": lambda name, value: check_number(
        name, value, lambda e: 0 <= e <= 1, "in [0, 1], on the scale of pixels in [0, 1]"
    ),
    "beta": lambda name, value: check_number(name, value, lambda b: b >= 0, "at least 0"),
    "sigma": lambda name, value: check_number(name, value, lambda s: s > 0, "above 0"),
    "quantize": check_boolean,
    "signed": check_boolean,
    "surrogate": check_surrogate,
    "selection_width": check_selection_width,
    "backend": check_backend,
}
