"""EOT (expectation over transformation): seeds, chunks, averages and unusable gradients."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacked_models import Fixed, Noisy, Silent
from models import Linear, random_images, small_defense
from neuroae.attacks import eot_gradient, mean_margin
from neuroae.attacks.eot import AVERAGES
from neuroae.attacks.losses import LOSS_NAMES
from neuroae.attacks.protocol import realizations_at_once, realizer
from neuroae.nn.selection_gradient import SelectionGradient
from results_data import small_cifar10_defense

MODELS = pytest.mark.parametrize("model", [small_defense, Noisy], ids=["defense", "draws from torch's generator"])


class Seeded(nn.Module):
    """Draws by seed and image id, and records both."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = Linear(1, 8, 10)
        self.calls: list[tuple[int, list[int]]] = []

    def forward(self, images: Tensor, *, seed: int, image_ids: Tensor) -> Tensor:
        self.calls.append((seed, image_ids.tolist()))
        noise = [torch.rand(1, generator=torch.Generator().manual_seed(seed % 2**32 + int(i))) for i in image_ids]
        return self.linear(images) * torch.stack(noise)


@pytest.mark.parametrize("average", AVERAGES)
def test_streamed_gradient_is_that_of_all_realizations_at_once(average: str) -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    estimate = eot_gradient(model, images, labels, realizations=7, seed=5, image_ids=ids, average=average)
    leaf = images.clone().requires_grad_()
    each = []
    for realization in range(7):
        logits = model.realize(model.encoder.select(leaf), 5, ids, realization, 1)
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), leaf)
        each.append(gradient)
    if average == "sign":
        each = [gradient.sign() for gradient in each]
    if average == "normalized":
        each = [gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None] for gradient in each]
    torch.testing.assert_close(estimate.gradient, torch.stack(each).mean(0), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_loss_and_margin_are_those_of_the_realizations(targeted: bool) -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    targets = (labels + 3) % 10 if targeted else None
    estimate = eot_gradient(model, images, labels, realizations=7, seed=5, image_ids=ids, targets=targets)
    logits, aimed = model(images, 7, 5, ids).detach(), labels if targets is None else targets
    losses = F.cross_entropy(logits.flatten(0, 1), aimed.repeat(7), reduction="none").unflatten(0, (7, -1))
    torch.testing.assert_close(estimate.loss, -losses.mean(0) if targeted else losses.mean(0))
    torch.testing.assert_close(estimate.margin, mean_margin(model, images, labels, targets, 7, 5, ids))


@MODELS
@pytest.mark.parametrize("chunk", [2, 3, 7, 50])
def test_chunk_size_changes_nothing_but_rounding(model: type[nn.Module], chunk: int) -> None:
    attacked, (images, labels, ids) = model().eval(), random_images()
    arguments = {"realizations": 7, "seed": 5, "image_ids": ids}
    single = eot_gradient(attacked, images, labels, chunk=1, **arguments)
    several = eot_gradient(attacked, images, labels, chunk=chunk, **arguments)
    torch.testing.assert_close(several.gradient, single.gradient, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(several.margin, single.margin, rtol=1e-4, atol=1e-6)


def test_two_ranges_of_realizations_average_to_the_full_range() -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    full = eot_gradient(model, images, labels, realizations=6, seed=5, image_ids=ids).gradient
    parts = [
        eot_gradient(model, images, labels, realizations=3, seed=5, image_ids=ids, start=start).gradient
        for start in (0, 3)
    ]
    torch.testing.assert_close((parts[0] + parts[1]) / 2, full, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("average", AVERAGES)
def test_a_chunk_is_freed_before_the_next_one(average: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise memory would grow with the number of realizations."""
    model, (images, labels, ids) = small_defense(), random_images()
    realize, living = type(model).realize, []

    def recorded(self, *arguments):  # type: ignore[no-untyped-def]
        assert not [reference for reference in living if reference() is not None]
        logits = realize(self, *arguments)
        living.extend(weakref.ref(tensor) for tensor in (logits, arguments[-1]))
        return logits

    monkeypatch.setattr(type(model), "realize", recorded)
    eot_gradient(model, images, labels, realizations=4, seed=0, image_ids=ids, chunk=2, average=average)
    assert len(living) == 4


@pytest.mark.parametrize("quantize", [True, False], ids=["quantized", "unquantized"])
def test_a_chunk_is_freed_where_realizations_are_added_up(quantize: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the sum before the decoder's first layer stays."""
    model = small_cifar10_defense(quantize=quantize).with_surrogate("selection")
    images, labels, ids = random_images(2, channels=3, size=32)
    logits, living = SelectionGradient.logits, []

    def recorded(self, *arguments):  # type: ignore[no-untyped-def]
        assert not [reference for reference in living if reference() is not None]
        output = logits(self, *arguments)
        parts = (output, self.hidden, self.decoded, self.classified, self.code.index)
        living.extend(weakref.ref(tensor) for tensor in parts)
        return output

    monkeypatch.setattr(SelectionGradient, "logits", recorded)
    eot_gradient(model, images, labels, realizations=6, seed=0, image_ids=ids, chunk=2)
    assert len(living) == 15


@pytest.mark.parametrize(
    ("batch", "expected"), [(6, [10, 10, 5]), (1, [25]), (33, [1] * 25), (64, [1] * 25), (70, [1] * 25)]
)
def test_small_batches_are_filled_up_with_realizations(
    batch: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (images, labels, ids) = small_defense(), random_images(batch)
    realize, counts = type(model).realize, []

    def recorded(self, selection, seed, image_ids, start, count, receiver):  # type: ignore[no-untyped-def]
        counts.append(count)
        return realize(self, selection, seed, image_ids, start, count, receiver)

    monkeypatch.setattr(type(model), "realize", recorded)
    eot_gradient(model, images, labels, realizations=25, seed=0, image_ids=ids)
    assert counts == expected


def test_a_model_without_a_realizer_has_one_realization_in_memory_at_a_time() -> None:
    shape = torch.Size((2, 3, 8, 8))
    assert realizations_at_once(Noisy(), None, shape) == 1
    assert realizations_at_once(Noisy(), 3, shape) == 3


def test_large_images_count_as_several_rows() -> None:
    model = small_defense()
    shapes = [(16, 3, 32, 32), (4, 3, 160, 160), (1, 3, 160, 160), (200, 3, 32, 32)]
    assert [realizations_at_once(model, None, torch.Size(shape)) for shape in shapes] == [4, 1, 2, 1]


@pytest.mark.parametrize("broken", [torch.nan, torch.inf], ids=str)
@pytest.mark.parametrize("average", AVERAGES)
def test_unusable_gradients_are_counted_and_left_out(average: str, broken: float) -> None:
    images, labels, ids = random_images()
    images[:, 0, 0, 0] = 0.5
    model = Silent(broken).eval()
    arguments = {"realizations": 3, "seed": 0, "image_ids": ids, "average": average}
    before = eot_gradient(model, images, labels, **arguments)
    images[0, 0, 0, 0], images[1, 0, 0, 0] = 0, 1
    after = eot_gradient(model, images, labels, **arguments)
    assert not before.zero.any()
    assert not before.invalid.any()
    assert after.zero.tolist() == [3, 0, 0, 0, 0, 0]
    assert after.invalid.tolist() == [0, 3, 0, 0, 0, 0]
    assert torch.equal(after.gradient[:2], torch.zeros_like(after.gradient[:2]))
    assert torch.equal(after.gradient[2:], before.gradient[2:])


def test_the_gradient_of_a_confident_model_is_not_lost() -> None:
    """Its entries are near 1e-27, so their squares are zero in float32.

    The true class has probability 1 up to rounding, so the gradient comes from the other class.
    """
    model, (images, _, ids) = Linear(1, 8, 2).eval(), random_images()
    model.layer.bias.data = torch.tensor([60.0, 0.0])
    estimate = eot_gradient(model, images, torch.zeros(6).long(), realizations=2, seed=0, image_ids=ids)
    rise = model.layer.weight[1].detach()
    assert not estimate.zero.any()
    torch.testing.assert_close(estimate.gradient.flatten(1), (rise / rise.norm()).expand(6, -1), rtol=1e-4, atol=1e-6)


def test_the_normalized_average_of_a_deterministic_model_has_length_one() -> None:
    """All realizations have the same gradient, whose length does not matter."""
    model, (images, labels, ids) = Linear(1, 8, 10).eval(), random_images()
    gradient = eot_gradient(model, images, labels, realizations=4, seed=0, image_ids=ids).gradient
    torch.testing.assert_close(gradient.flatten(1).norm(dim=1), torch.ones(len(images)))


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_gradient_is_the_slope_of_the_loss(loss: str, targeted: bool) -> None:
    """Compares with central differences in double precision, on a nonlinear model."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)).eval()
    images, labels, ids = random_images()
    arguments = {"realizations": 1, "seed": 0, "image_ids": ids, "loss": loss}
    arguments["targets"] = (labels + 3) % 10 if targeted else None
    gradient = eot_gradient(model, images, labels, average="mean", **arguments).gradient
    direction = torch.randn(images.shape)
    step = 1e-3
    lower, upper = (
        eot_gradient(model, (images + side * step * direction).clamp(0, 1), labels, **arguments).loss.double()
        for side in (-1, 1)
    )
    moved = ((images + step * direction).clamp(0, 1) - (images - step * direction).clamp(0, 1)).double()
    torch.testing.assert_close((gradient.double() * moved).sum((1, 2, 3)), upper - lower, rtol=0.02, atol=2e-5)


def test_parameters_get_no_gradient_and_keep_their_flags() -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    model.decoder.layer.bias.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    eot_gradient(model, images, labels, realizations=2, seed=0, image_ids=ids)
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_gradient_of_w_aiga_is_the_classifiers_at_the_decoded_image() -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    identity = model.with_surrogate("autoencoder-identity")
    gradient = eot_gradient(identity, images, labels, realizations=1, seed=4, image_ids=ids, average="mean").gradient
    decoded = model.autoencode(images, 4, ids).detach().requires_grad_()
    (expected,) = torch.autograd.grad(F.cross_entropy(model.classifier(decoded), labels, reduction="sum"), decoded)
    torch.testing.assert_close(gradient, expected)


def test_a_model_that_draws_by_seed_and_id_gets_a_seed_for_each_realization() -> None:
    model, (images, labels, ids) = Seeded().eval(), random_images()
    eot_gradient(model, images, labels, realizations=3, seed=5, image_ids=ids)
    one_by_one, model.calls = model.calls, []
    eot_gradient(model, images, labels, realizations=3, seed=5, image_ids=ids, chunk=3)
    assert model.calls == one_by_one
    assert len({seed for seed, _ in one_by_one}) == 3
    assert all(call_ids == ids.tolist() for _, call_ids in one_by_one)


@MODELS
def test_realizations_differ_and_follow_from_their_number(model: type[nn.Module]) -> None:
    attacked, (images, _, ids) = model().eval(), random_images()
    realize = realizer(attacked, images, 3, ids)
    with torch.no_grad():
        together = realize(0, 4, images.repeat(4, 1, 1, 1)).unflatten(0, (4, -1))
        again = realize(2, 1, images)
    assert not torch.allclose(together[0], together[1])
    torch.testing.assert_close(again, together[2])


def test_torchs_generator_has_the_same_state_afterwards() -> None:
    model, (images, labels, ids) = Noisy().eval(), random_images()
    state = torch.random.get_rng_state()
    eot_gradient(model, images, labels, realizations=2, seed=0, image_ids=ids)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.zeros(10), "shape"),
        (torch.zeros(1, 10), r"shape \(1, 10\), expected logits \(6, classes\)"),
        (torch.zeros(6, 4), "hold class 5, expected below 4"),
    ],
    ids=["flat", "one row", "too few classes"],
)
def test_outputs_that_are_no_logits_are_refused(logits: Tensor, message: str) -> None:
    images, labels, ids = random_images()
    model = nn.Module()
    model.forward = lambda images: logits + 0 * images.sum()  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=message):
        eot_gradient(model.eval(), images, labels, realizations=1, seed=0, image_ids=ids)


def test_the_margin_of_a_confident_answer_is_not_rounded_away() -> None:
    """Probabilities of 1 - 1e-9 round to 1 in float32, so that their margins would be equal."""
    images, labels, ids = random_images(2)
    model = Fixed(torch.tensor([[30.0, 0.0], [0.0, 20.0]])).eval()
    margins = mean_margin(model, images, labels, None, 3, 0, ids)
    torch.testing.assert_close(margins, torch.tensor([-30.0, -20.0]))
