"""The sparse randomized encoder (paper, section 2.2) as a layer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..kernels import backend_name, interpreting, load_backend, namespace
from ..kernels.ops import MAX_ATOMS, SURROGATES, Code
from ..utils.randomness import image_id_tensor, seed_tensor
from ..utils.validation import check_boolean, check_integer, check_number
from .autograd import CodeSettings, Encode, Membership, MembershipSettings
from .code import SparseCode, TopT, version_of

UNIT_NORM_TOLERANCE = 1e-4
SELECTION = "selection"
ENCODER_SURROGATES = (*SURROGATES, SELECTION)
# Of epsilon times the mean l1 norm, which is how far an attack moves a typical projection.
WIDTH_SHARE = 0.1

Backend = Literal["auto", "reference", "cpu", "triton"]


class Levels(NamedTuple):
    """What follows from the atoms.

    Attributes:
        norms: (L,) float32, the l1 norm of each.
        dead_zone: (L,) float32, beta * epsilon * norm.
        selection_width: the default of the encoder's, a number.
    """

    norms: Tensor
    dead_zone: Tensor
    selection_width: float


@dataclass(frozen=True, eq=False)
class AtomsState:
    """A dictionary as it was at some moment. Not a tuple, whose numbers the fingerprints of models would hold.

    Attributes:
        atoms: the tensor.
        version: how often it was changed in place; None where PyTorch does not count.
        selection_width: the default that follows from it.
    """

    atoms: Tensor
    version: int | None
    selection_width: float

    @classmethod
    def of(cls, atoms: Tensor, selection_width: float) -> "AtomsState":
        return cls(atoms, version_of(atoms), selection_width)

    def is_of(self, atoms: Tensor) -> bool:
        """Whether these are the atoms, unchanged. Compares identities, and no values."""
        return self.atoms is atoms and self.version in (None, version_of(atoms))


class SparseEncoder(nn.Module):
    """Projects patches onto a dictionary, keeps the top T, drops most at random, and reduces the rest to signs.

    There is nothing to train. Dropout is on in training and in evaluation mode alike: it is part of the defense.
    The layer computes in float32 whatever autocast, TF32 or matmul-precision setting is on around it, and
    ``.to(torch.bfloat16)`` leaves its dictionary in float32.

    Norms and dead zones follow the atoms, also where these are changed in place or replaced for a call, as by
    ``torch.func.functional_call``. In compiled and exported code ``refresh_norms`` must be called instead.

    Args:
        atoms: (L, C, n, n) float32, each of unit l2 norm (tolerance 1e-4); 1 to 32,767 atoms.
        stride: S, pixels between patches.
        top_t: T, coefficients kept of each patch before dropout, in 1 .. L; L switches the selection off.
        dropout_p: probability in [0, 1) that a kept coefficient is dropped (eq. 2); survivors are not rescaled.
        epsilon: the l-infinity budget that the dead zone is designed for, on the scale of pixels in [0, 1].
        beta: the dead zone is |a| < beta * epsilon * norm, with norm the atom's l1 norm (eq. 3).
        quantize: False passes projections instead of sign * norm.
        signed: False takes magnitudes first, as the published code did: values are 0 or +norm.
        surrogate: what the backward pass takes for the derivative. "identity", "smooth" (eq. 9) and
            "smooth-normalized" (the published code's) stand for the quantizer's and pass through the survivors alone
            (W-NFGA, section 4). "selection" follows how atoms enter and leave the top T, and goes to all of them.
        sigma: width of the smooth surrogates.
        selection_width: of the surrogate "selection": how far from the T-th magnitude an atom counts, on the scale of
            projections. None is a tenth of epsilon times the mean l1 norm of the atoms, 0.02 at the paper's settings.
        backend: "auto" takes the backend of the images' device; "reference", "cpu" or "triton" insist on one.

    Raises:
        TypeError: a tensor of the wrong dtype or an argument of the wrong type.
        ValueError: anything else that does not fit, naming the argument, what came and what was expected.
    """

    atoms: Tensor
    norms: Tensor
    dead_zone: Tensor
    # The atoms that norms and dead zones are of; modules that earlier versions pickled have none.
    measured: AtomsState | None = None

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

    def __setattr__(self, name: str, value: Any) -> None:
        """Settings and atoms are checked whenever they are given; norms and dead zones follow."""
        if name in SETTINGS:
            SETTINGS[name](name, value)
        if name == "atoms":
            check_integer("top_t", self.top_t, 1, len(value))
            value = value.detach().contiguous()
        elif name == "top_t":
            check_integer(name, value, 1, len(self.atoms))
        elif name in FRACTIONS:
            value = float(value)
        super().__setattr__(name, value)
        if name in ("atoms", "epsilon", "beta") and "dead_zone" in self._buffers:
            # Views of one model share them.
            vars(self)["_buffers"] = dict(self._buffers)
            self.refresh_norms()

    def refresh_norms(self) -> None:
        """Recomputes what follows from the atoms, their l1 norms and the dead zone of each."""
        self.norms, self.dead_zone, width = self.measure_levels()
        self.measured = AtomsState.of(self.atoms, width)

    def measure_levels(self) -> Levels:
        with torch.inference_mode(False), torch.no_grad():
            norms = self.atoms.double().abs().sum((1, 2, 3))
            dead_zone = (self.beta * self.epsilon * norms).float()
            # A number, since reading one from a GPU would wait for it in every call.
            width = 0.0 if norms.is_meta else WIDTH_SHARE * self.epsilon * float(norms.mean())
            return Levels(norms.float(), dead_zone, width)

    def levels(self) -> Levels:
        """Those of the atoms as they are now.

        Raises:
            ValueError: the atoms were changed or replaced, and have no unit l2 norm.
        """
        # A graph that is being compiled or exported cannot ask which tensor it has.
        if not torch.compiler.is_compiling() and not (self.measured and self.measured.is_of(self.atoms)):
            check_atoms(self.atoms)
            if self.measured and self.measured.atoms is not self.atoms:
                return self.measure_levels()  # not kept: such atoms may be here for this call alone
            self.refresh_norms()
        assert self.measured is not None
        return Levels(self.norms, self.dead_zone, self.measured.selection_width)

    def forward(self, images: Tensor, seed: int | Tensor | None = None, image_ids: Tensor | None = None) -> Tensor:
        """One realization as a dense (B, L, m_h, m_w) float32 tensor, for any layer that takes one.

        Args are those of ``encode``. Gradients are W-NFGA (paper, section 4).
        """
        return self.encode(images, seed=seed, image_ids=image_ids).to_dense()

    def encode(
        self,
        images: Tensor,
        realizations: int = 1,
        seed: int | Tensor | None = None,
        image_ids: Tensor | None = None,
    ) -> SparseCode:
        """The code of the images, with fresh dropout in every call unless a seed is given.

        Args:
            images: (B, C, H, W) float32 in [0, 1] (tolerance 1e-6).
            realizations: R, independent dropout masks for each image.
            seed: 64-bit; None takes one from torch's generator, so that ``torch.manual_seed`` governs it.
            image_ids: (B,) int64 in [0, 2^32); an image's mask depends on its id, not on its place in the batch.
                None numbers the batch from 0.

        Returns:
            SparseCode of R * B rows, realization r of image b in row r * B + b.
        """
        check_integer("realizations", realizations, 1)
        if realizations != 1:
            return self.select(images).draw(seed, image_ids, count=realizations)
        images = self.checked(images)
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
        """Projection and top T only, to draw many realizations from: ``select(images).draw(seed, count=40)``."""
        images = self.checked(images)
        width = self.levels().selection_width  # refuses atoms that do not fit
        with torch.no_grad():
            atom, projection = namespace(self.backend).select(images, self.atoms, self.stride, self.top_t)
        return TopT(atom, projection, images, self, version_of(images), AtomsState.of(self.atoms, width))

    @property
    def value_surrogate(self) -> str:
        """The stand-in for the derivative of the survivors' values."""
        return "identity" if self.surrogate == SELECTION else self.surrogate

    def make_code(self, parts: Code, images: Tensor, receiver: Tensor) -> SparseCode:
        """Index, value, projection and count as a code, with what carries its gradient through the selection.

        ``images`` (B, C, H, W) were encoded; ``receiver`` gets the gradient (see ``TopT.draw``).
        """
        index, value, projection, count = parts
        atoms, membership = self.atoms.shape[0], None
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
                (rows, atoms, patches_h, patches_w),
                self.membership_settings(),
            )
        return SparseCode(index, value, projection, count, atoms, self.backend, membership)

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
        # Unquantized, the survivors' values have a derivative of their own. Beside it the gradient of entering counts
        # as often as dropout leaves a coefficient.
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
        """``selection_width``, or what None stands for.

        Raises:
            ValueError: it is None and epsilon is 0, from which no width follows.
        """
        if self.selection_width is not None:
            return self.selection_width
        if self.epsilon == 0:
            raise ValueError("selection_width is None and epsilon is 0, expected a width above 0")
        return self.levels().selection_width

    def checked(self, images: Tensor) -> Tensor:
        """The images in float32 and contiguous, or an error; their values are checked where they are read."""
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
        served = "cpu" if self.backend == "cpu" or interpreting() else "cuda"
        if device_type != served or backend_name(device_type) != self.backend:
            raise ValueError(f"backend is {self.backend!r}, which does not serve tensors on {device_type}")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SparseEncoder":
        """Moves the dictionary between devices, but lets nothing change its dtype or memory layout."""
        measured = self.measured if self.measured and self.measured.is_of(self.atoms) else None
        before = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            moved = self._buffers[name]
            assert moved is not None
            if moved.dtype != torch.float32:
                moved = buffer.to(moved.device)
            self._buffers[name] = moved.contiguous()
        if measured:
            self.measured = AtomsState.of(self.atoms, measured.selection_width)
        else:
            self.refresh_norms()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Refuses a dictionary before anything of it is copied. Not a hook, which would go with a copy of this layer
        and hold on to the layer itself."""
        if prefix + "atoms" in state_dict:
            check_atoms(state_dict[prefix + "atoms"])
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        self._buffers["atoms"] = self.atoms.contiguous()
        self.refresh_norms()

    def extra_repr(self) -> str:
        count, channels, patch, _ = self.atoms.shape
        return (
            f"atoms={count}, patch={channels} x {patch} x {patch}, stride={self.stride}, top_t={self.top_t}, "
            f"dropout_p={self.dropout_p}, epsilon={self.epsilon:.5g}, beta={self.beta}, quantize={self.quantize}, "
            f"signed={self.signed}, surrogate={self.surrogate!r}, sigma={self.sigma}, backend={self.backend!r}"
            + ("" if self.selection_width is None else f", selection_width={self.selection_width:.5g}")
        )


def check_atoms(atoms: Tensor) -> None:
    if not isinstance(atoms, Tensor):
        raise TypeError(f"atoms is a {type(atoms).__name__}, expected a tensor")
    if atoms.dtype != torch.float32:
        raise TypeError(f"atoms has dtype {atoms.dtype}, expected torch.float32")
    if atoms.dim() != 4 or atoms.shape[2] != atoms.shape[3] or atoms.numel() == 0:
        raise ValueError(f"atoms has shape {tuple(atoms.shape)}, expected (L, C, n, n)")
    if atoms.shape[0] > MAX_ATOMS:
        raise ValueError(f"atoms holds {atoms.shape[0]} atoms, expected at most {MAX_ATOMS}")
    if atoms.is_meta:
        return
    norms = atoms.double().square().sum((1, 2, 3)).sqrt()
    if not bool(((norms - 1).abs() <= UNIT_NORM_TOLERANCE).all()):
        raise ValueError(
            f"atoms has l2 norms from {norms.min():.6g} to {norms.max():.6g}, expected 1 "
            f"(tolerance {UNIT_NORM_TOLERANCE:g}); divide each atom by its norm"
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
SETTINGS: dict[str, Callable[[str, Any], None]] = {
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
