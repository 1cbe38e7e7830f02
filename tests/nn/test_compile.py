"""torch.compile with fullgraph: the eager outputs, and the eager surrogate gradients, which a graph must not drop."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from dictionaries import unit_atoms
from neuroae import Decoder, Defense, SparseConvTranspose2d, SparseEncoder


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def encoder(atoms: Tensor) -> SparseEncoder:
    return SparseEncoder(atoms, top_t=8, dropout_p=0.5)


def encoder_alone(encoder: SparseEncoder) -> nn.Module:
    return encoder


class EncoderAndLayer(nn.Module):
    """The code goes to the sparse layer, with ReLU inside."""

    def __init__(self, encoder: SparseEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.layer = SparseConvTranspose2d(20, 6, 4, 2)

    def forward(self, images: Tensor, seed: Tensor, image_ids: Tensor | None = None) -> Tensor:
        result: Tensor = self.layer(self.encoder.encode(images, seed=seed, image_ids=image_ids), relu=True)
        return result


class Realizations(nn.Module):
    """Several realizations, drawn from one selection."""

    def __init__(self, encoder: SparseEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor, seed: Tensor) -> Tensor:
        return self.encoder.encode(images, realizations=3, seed=seed).to_dense()


class Scorer(nn.Module):
    """A small defense."""

    def __init__(self, encoder: SparseEncoder) -> None:
        super().__init__()
        classifier = nn.Sequential(nn.Flatten(), nn.Linear(6 * 10 * 12, 4))
        self.defense = Defense(encoder, SparseConvTranspose2d(20, 6, 4, 2), classifier)

    def forward(self, images: Tensor, seed: Tensor) -> Tensor:
        result: Tensor = self.defense(images, seed=seed)
        return result


class EncoderAndDecoder(nn.Module):
    """With the layers of every default model, Winograd's among them."""

    def __init__(self, encoder: SparseEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = Decoder(20, 4, 2, (10, 12))

    def forward(self, images: Tensor, seed: Tensor) -> Tensor:
        result: Tensor = self.decoder(self.encoder.encode(images, seed=seed))
        return result


MODELS: dict[str, Callable[[SparseEncoder], nn.Module]] = {
    "encoder": encoder_alone,
    "encoder and sparse layer": EncoderAndLayer,
    "realizations": Realizations,
    "defense": Scorer,
    "decoder": EncoderAndDecoder,
}


def compile_whole(model: nn.Module, backend: Any, dynamic: bool | None = None) -> nn.Module:
    return cast(nn.Module, torch.compile(model, fullgraph=True, backend=backend, dynamic=dynamic))


def outputs_and_gradients(model: nn.Module, images: Tensor, seed: int) -> list[Tensor]:
    leaf = images.clone().requires_grad_()
    model.zero_grad()
    output = model(leaf, seed=torch.tensor(seed))
    weights = torch.linspace(-1, 2, output.numel()).reshape(output.shape)
    (output * weights).sum().backward()
    assert leaf.grad is not None
    return [output.detach(), leaf.grad, *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def assert_compiled_is_eager(model: nn.Module, compiled: nn.Module, images: Tensor, seeds: tuple[int, ...]) -> None:
    for seed in seeds:
        tensors = outputs_and_gradients(compiled, images, seed), outputs_and_gradients(model, images, seed)
        for actual, expected in zip(*tensors, strict=True):
            assert expected.abs().max() > 0
            torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("build", MODELS.values(), ids=list(MODELS))
def test_compiled_models_give_eager_outputs_and_gradients(
    build: Callable[[SparseEncoder], nn.Module], encoder: SparseEncoder
) -> None:
    """Two seeds in one graph: the seed is an input, not a constant."""
    model, counter = build(encoder), CompileCounterWithBackend("aot_eager")
    compiled = compile_whole(model, counter)
    images = torch.rand(2, 3, 10, 12)
    assert_compiled_is_eager(model, compiled, images, seeds=(1, 2, -5))
    assert counter.frame_count == 1
    with torch.no_grad():
        assert not torch.equal(compiled(images, seed=torch.tensor(1)), compiled(images, seed=torch.tensor(2)))


def test_inductor_gives_eager_outputs_and_gradients(encoder: SparseEncoder) -> None:
    model = EncoderAndLayer(encoder)
    compiled = compile_whole(model, "inductor")
    assert_compiled_is_eager(model, compiled, torch.rand(2, 3, 10, 12), seeds=(1, 2))


@pytest.mark.parametrize("surrogate", ["identity", "smooth-normalized"])
def test_the_surrogate_survives_compilation(atoms: Tensor, surrogate: str) -> None:
    """Not only the default one."""
    encoder = SparseEncoder(atoms, top_t=8, dropout_p=0.5, surrogate=surrogate)
    compiled = compile_whole(encoder, "aot_eager")
    images = torch.rand(2, 3, 10, 12)
    assert_compiled_is_eager(encoder, compiled, images, seeds=(1,))
    smooth = SparseEncoder(atoms, top_t=8, dropout_p=0.5)
    actual, other = (outputs_and_gradients(model, images, 1)[1] for model in (compiled, smooth))
    assert not torch.allclose(actual, other)


def test_one_graph_serves_other_batches_and_sizes(encoder: SparseEncoder) -> None:
    model, counter = EncoderAndLayer(encoder), CompileCounterWithBackend("aot_eager")
    compiled = compile_whole(model, counter, dynamic=True)
    assert_compiled_is_eager(model, compiled, torch.rand(2, 3, 10, 12), seeds=(1,))
    graphs = counter.frame_count
    for shape in ((5, 3, 10, 12), (3, 3, 17, 21)):
        assert_compiled_is_eager(model, compiled, torch.rand(shape), seeds=(1,))
    assert counter.frame_count == graphs


def test_image_ids_are_inputs_of_the_graph(encoder: SparseEncoder) -> None:
    model = EncoderAndLayer(encoder)
    compiled = compile_whole(model, "aot_eager")
    images, seed = torch.rand(2, 3, 10, 12), torch.tensor(1)
    for first in (0, 100):
        ids = torch.arange(first, first + 2)
        torch.testing.assert_close(compiled(images, seed, ids), model(images, seed, ids))


@pytest.mark.parametrize("pixel", [2.0, -0.5, float("nan")], ids=str)
def test_the_range_is_checked_inside_the_graph(encoder: SparseEncoder, pixel: float) -> None:
    compiled = compile_whole(encoder, "aot_eager")
    images, seed = torch.rand(2, 3, 10, 12), torch.tensor(1)
    compiled(images, seed=seed)
    images[1, 2, 9, 11] = pixel
    with pytest.raises(ValueError, match="images holds values"):
        compiled(images, seed=seed)


def test_shapes_are_checked_in_the_graph(encoder: SparseEncoder) -> None:
    compiled = torch.compile(encoder, backend="aot_eager")
    with pytest.raises(Exception, match=r"images has shape .*expected \(B, 3, H, W\)"):
        compiled(torch.rand(2, 1, 10, 12), seed=torch.tensor(1))


def test_an_exported_encoder_gives_the_eager_code() -> None:
    encoder = SparseEncoder(unit_atoms(20, 3, 4), top_t=8, dropout_p=0.5)
    images, seed = torch.rand(2, 3, 10, 12), torch.tensor(1)
    exported = torch.export.export(encoder, (images, seed)).module()
    for other in (1, 2):
        assert torch.equal(exported(images, torch.tensor(other)), encoder(images, torch.tensor(other)))
