"""Hypothesis strategies for inputs of the operations: drawn shapes and settings, numbers from a seeded generator."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor

from neuroae.kernels.ops import used_slots

Code = tuple[Tensor, Tensor, Tensor, Tensor]

DROPOUTS = (0.0, 0.5, 0.95, 0.999)
DEAD_ZONES = (0.0, 3 * 8 / 255, 0.3)


@dataclass
class Case:
    """Arguments of the encoder's operations."""

    images: Tensor
    atoms: Tensor
    norms: Tensor
    dead_zone: Tensor
    stride: int
    top_t: int
    dropout_p: float
    quantize: bool
    signed: bool
    seed: Tensor
    image_ids: Tensor
    start: int
    count: int

    def select_arguments(self) -> tuple[Any, ...]:
        return self.images, self.atoms, self.stride, self.top_t

    def draw_arguments(self, selection: tuple[Tensor, Tensor]) -> tuple[Any, ...]:
        randomness = (self.seed, self.image_ids, self.start, self.count, self.dropout_p)
        return (*selection, self.norms, self.dead_zone, *randomness, self.quantize, self.signed)

    def encode_arguments(self, realization: int) -> tuple[Any, ...]:
        levels = (self.norms, self.dead_zone, self.seed, self.image_ids)
        settings = (self.stride, self.top_t, realization, self.dropout_p, self.quantize, self.signed)
        return self.images, self.atoms, *levels, *settings

    def selection_arguments(self, grad_code: Tensor, selection_width: float) -> tuple[Any, ...]:
        tensors = (grad_code, self.images, self.atoms, self.norms, self.dead_zone)
        return *tensors, self.stride, self.top_t, selection_width, self.quantize, self.signed


@dataclass
class ConvCase:
    """Arguments of the sparse transposed convolution's operations."""

    index: Tensor
    value: Tensor
    count: Tensor
    weight: Tensor
    bias: Tensor | None
    grad_output: Tensor
    stride: list[int]
    padding: list[int]
    output_padding: list[int]

    def forward_arguments(self, relu: bool) -> tuple[Any, ...]:
        settings = (self.stride, self.padding, self.output_padding, relu)
        return self.index, self.value, self.count, self.weight, self.bias, *settings

    def value_arguments(self, output: Tensor | None) -> tuple[Any, ...]:
        return self.grad_output, output, self.index, self.count, self.weight, self.stride, self.padding

    def weight_arguments(self, output: Tensor | None) -> tuple[Any, ...]:
        tensors = (self.index, self.value, self.count, self.weight)
        return self.grad_output, output, *tensors, self.stride, self.padding


def generators() -> st.SearchStrategy[torch.Generator]:
    return st.integers(0, 2**32 - 1).map(lambda seed: torch.Generator().manual_seed(seed))


def words() -> st.SearchStrategy[int]:
    """32-bit numbers, including the least and the greatest."""
    return st.one_of(st.sampled_from((0, 1, 2**31, 2**32 - 1)), st.integers(0, 2**32 - 1))


def atom_counts() -> st.SearchStrategy[int]:
    return st.one_of(st.integers(1, 40), st.integers(1, 700), st.sampled_from((8, 16, 64, 256, 257, 512, 700)))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Random atoms and images of any shape and contents."""
    channels, patch, count = draw(st.integers(1, 4)), draw(st.integers(1, 8)), draw(atom_counts())
    generator = draw(generators())
    atoms = torch.randn(count, channels, patch, patch, generator=generator)
    atoms /= atoms.square().sum((1, 2, 3), keepdim=True).sqrt()
    stride, shape = draw(image_shapes(channels, patch))
    images = draw(pictures(shape, generator))
    return draw(with_settings(images, atoms, stride, draw(st.sampled_from(DEAD_ZONES))))


@st.composite
def clear_cases(draw: st.DrawFn, most_atoms: int = 700) -> Case:
    """Cases in which no projection is so close to 0 or to the dead zone that rounding decides its side."""
    channels, patch = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    counts = (st.integers(1, 9), st.integers(1, most_atoms), st.sampled_from((16, 32, 33)))
    count = draw(st.one_of(*counts))
    generator = draw(generators())
    atoms = torch.randn(count, channels, patch, patch, generator=generator)
    atoms /= atoms.square().sum((1, 2, 3), keepdim=True).sqrt()
    stride, shape = draw(image_shapes(channels, patch))
    images = draw(pictures(shape, generator))
    case = draw(with_settings(images, atoms, stride, draw(st.sampled_from((0.0, 0.1, 0.3)))))
    exact = F.conv2d(images.double(), atoms.double(), stride=stride).permute(0, 2, 3, 1).abs()
    for distance in (exact, (exact - case.dead_zone).abs()):
        assume(not ((distance > 0) & (distance < 1e-6)).any())
    return case


@st.composite
def exact_cases(draw: st.DrawFn) -> Case:
    """Numbers with so few bits that all projections are exact in float32: many tie, many are at the dead zone's edge.

    An atom has 1, 4, 16 or 64 entries of one magnitude, so its norms are powers of two. Some atoms occur twice.
    """
    channels, patch, count = draw(st.integers(1, 4)), draw(st.integers(1, 8)), draw(st.integers(2, 80))
    generator = draw(generators())
    size = channels * patch * patch
    atoms = torch.zeros(count, size)
    for atom in atoms:
        entries = draw(st.sampled_from([n for n in (1, 4, 16, 64) if n <= size]))
        signs = torch.randint(2, (entries,), generator=generator) * 2.0 - 1
        atom[torch.randperm(size, generator=generator)[:entries]] = signs / entries**0.5
    twins = torch.randint(count, (count,), generator=generator)
    atoms = atoms[torch.where(torch.rand(count, generator=generator) < 0.3, twins, torch.arange(count))]
    stride, shape = draw(image_shapes(channels, patch))
    images = torch.randint(9, shape, generator=generator) / 8
    return draw(with_settings(images, atoms.reshape(count, channels, patch, patch), stride, 0.125))


@st.composite
def image_shapes(draw: st.DrawFn, channels: int, patch: int) -> tuple[int, tuple[int, ...]]:
    """A stride, which may leave gaps, and the shape of 0 to 3 rectangular images, some with edges without patches."""
    stride = draw(st.integers(1, patch + 2))
    sides = [(draw(st.integers(1, 4)) - 1) * stride + patch + draw(st.integers(0, stride - 1)) for _ in range(2)]
    return stride, (draw(st.sampled_from((1, 2, 3, 0))), channels, *sides)


@st.composite
def pictures(draw: st.DrawFn, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    noise = torch.rand(shape, generator=generator)
    kind = draw(st.sampled_from(("noise", "8 bits", "black and white", "one black image", "one grey image")))
    if kind == "8 bits":
        return (noise * 255).round() / 255
    if kind == "black and white":
        return noise.round()
    if kind.startswith("one"):
        noise[:1] = 0.0 if "black" in kind else 0.5
    return noise


@st.composite
def with_settings(draw: st.DrawFn, images: Tensor, atoms: Tensor, stride: int, width: float) -> Case:
    """``width`` is beta * epsilon."""
    norms = atoms.double().abs().sum((1, 2, 3))
    count = len(atoms)
    realizations = draw(st.integers(1, 5))
    return Case(
        images,
        atoms,
        norms.float(),
        (width * norms).float(),
        stride,
        top_t=draw(st.one_of(st.just(1), st.just(count), st.integers(1, count))),
        dropout_p=draw(st.sampled_from(DROPOUTS)),
        quantize=draw(st.booleans()),
        signed=draw(st.booleans()),
        seed=torch.tensor(draw(st.integers(-(2**63), 2**63 - 1))),
        image_ids=torch.tensor([draw(words()) for _ in images], dtype=torch.int64),
        start=draw(st.one_of(st.integers(0, 3), st.just(2**32 - realizations))),
        count=realizations,
    )


@st.composite
def conv_cases(draw: st.DrawFn, dtype: torch.dtype) -> ConvCase:
    """A code with random survivors, weights in any memory order, and a gradient to the output."""
    generator = draw(generators())
    atoms, slots = draw(st.integers(1, 70)), draw(st.one_of(st.integers(1, 12), st.just(70)))
    channels = draw(st.one_of(st.integers(1, 40), st.sampled_from((64, 65, 100, 300))))
    rows, patches_h, patches_w = draw(st.sampled_from((1, 2, 3, 0))), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    index, value, count = poisoned(*random_code((rows, patches_h, patches_w, min(slots, atoms)), atoms, generator))
    kernel = [draw(st.integers(1, 5)) for _ in range(2)]
    stride = [draw(st.integers(1, 4)) for _ in range(2)]
    output_padding = [draw(st.integers(0, step - 1)) for step in stride]
    full = [
        (n - 1) * step + k + extra
        for n, step, k, extra in zip((patches_h, patches_w), stride, kernel, output_padding, strict=True)
    ]
    padding = [draw(st.integers(0, min(3, (size - 1) // 2))) for size in full]
    size = [side - 2 * pad for side, pad in zip(full, padding, strict=True)]
    weight = torch.randn(atoms, channels, *kernel, generator=generator).to(dtype)
    grad = torch.randn(rows, channels, *size, generator=generator).to(dtype)
    return ConvCase(
        index,
        value,
        count,
        draw(layouts(weight)),
        torch.randn(channels, generator=generator).to(dtype) if draw(st.booleans()) else None,
        draw(layouts(grad)),
        stride,
        padding,
        output_padding,
    )


def random_code(shape: tuple[int, ...], num_atoms: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Returns index, value and count: from no survivor to all slots full, some survivors in the dead zone."""
    slots = shape[-1]
    count = torch.randint(slots + 1, shape[:-1], generator=generator, dtype=torch.int32)
    used = torch.arange(slots) < count.unsqueeze(-1)
    choice = torch.rand(*shape[:-1], num_atoms, generator=generator).argsort(-1)[..., :slots]
    index = choice.where(used, num_atoms).sort(-1).values.where(used, -1).to(torch.int16)
    value = torch.randn(shape, generator=generator)
    value = value.where(torch.rand(shape, generator=generator) < 0.8, 0.0)
    return index, value.where(used, 0.0), count


def poisoned(index: Tensor, value: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns a code whose unused slots hold the largest index and NaN. No backend may read them."""
    unused = ~used_slots(count, index.shape[-1])
    return index.masked_fill(unused, 2**15 - 1), value.masked_fill(unused, torch.nan), count


def layouts(tensor: Tensor) -> st.SearchStrategy[Tensor]:
    """The same numbers in several memory orders."""
    return st.sampled_from(
        (
            tensor.contiguous(),
            tensor.contiguous(memory_format=torch.channels_last),
            tensor.transpose(2, 3).contiguous().transpose(2, 3),
            torch.stack((tensor, tensor), dim=-1)[..., 1],
        )
    )
