"""The gradient through the selection: the reference against its definition, and the two ways to compute it."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dictionaries import unit_atoms
from models import random_images, small_defense
from neuroae import Decoder, Defense, SparseEncoder, resnet32
from neuroae.attacks import PGDSettings, eot_gradient, pgd
from neuroae.attacks.losses import margin
from neuroae.kernels import reference
from neuroae.models.fingerprints import fingerprint
from neuroae.nn.layer_autograd import SmoothClamp
from neuroae.nn.variants import Ensemble, MeanField
from results_data import small_cifar10_defense
from strategies import Case, cases, generators

IDS = torch.arange(3)


def cut_at(magnitudes: Tensor, alive: Tensor, width: float, total: Tensor, start: Tensor) -> Tensor:
    """Returns the cut at which the logistic functions of the atoms sum to ``total``, by bisection."""
    low, high = start - 1, start + 1
    for _ in range(80):
        middle = (low + high) / 2
        above = (alive * torch.sigmoid((magnitudes - middle) / width)).sum(-1, keepdim=True) > total
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (low + high) / 2


class Smooth:
    """The function with the reference's derivative: sign(a) norm s((|a| - c) / w), with c that keeps the sum of s."""

    def __init__(self, a: Tensor, case: Case, width: float) -> None:
        self.norms, self.case, self.width = case.norms.double(), case, width
        self.everything = case.top_t == len(case.atoms)
        magnitudes, self.signs = a.detach().abs(), a.detach().sign()
        self.levels = self.norms.expand_as(a) if case.quantize else magnitudes
        dead_zone = case.dead_zone.double()
        self.alive = (magnitudes >= dead_zone) | (not case.quantize)
        if self.everything:
            self.alive = torch.ones_like(self.alive)
            self.cut = dead_zone.expand_as(magnitudes)
        else:
            largest = magnitudes.sort(-1, descending=True).values
            self.cut = (largest[..., case.top_t - 1] + largest[..., case.top_t])[..., None] / 2
        self.total = (self.alive * torch.sigmoid((magnitudes - self.cut) / width)).sum(-1, keepdim=True)

    def values(self, a: Tensor, cut: Tensor) -> Tensor:
        """Returns the values at a cut. Without quantization membership alone changes, and coefficients stay."""
        share = self.alive * torch.sigmoid((a.abs() - cut) / self.width)
        if self.everything and not self.case.quantize:
            share = share * 0
        return share * self.levels * (self.signs if self.case.signed else 1)

    def differentiable(self, a: Tensor) -> Tensor:
        """Moves the cut by one Newton step, which has the derivative of the exact cut."""
        if self.everything:
            return self.values(a, self.cut)
        share = self.alive * torch.sigmoid((a.abs() - self.cut) / self.width)
        slope = (share * (1 - share) / self.width).sum(-1, keepdim=True).detach()
        moved = (share.sum(-1, keepdim=True) - self.total) / slope.where(slope > 0, torch.inf)
        return self.values(a, self.cut + moved)

    def exact(self, a: Tensor) -> Tensor:
        if self.everything:
            return self.values(a, self.cut)
        return self.values(a, cut_at(a.abs(), self.alive, self.width, self.total, self.cut))


@given(case=cases(), width=st.sampled_from([0.02, 0.1, 1.0]), generator=generators())
def test_the_reference_is_autograd_of_the_smooth_selection(
    case: Case, width: float, generator: torch.Generator
) -> None:
    a = F.conv2d(case.images.double(), case.atoms.double(), stride=case.stride).permute(0, 2, 3, 1).contiguous()
    grad_code = torch.randn(a.shape, generator=generator, dtype=torch.float64)
    leaf = a.clone().requires_grad_()
    Smooth(a, case, width).differentiable(leaf).backward(grad_code)
    levels = (case.norms.double(), case.dead_zone.double())
    actual = reference.membership_gradient(a, grad_code, *levels, case.top_t, width, case.quantize, case.signed)
    assert leaf.grad is not None
    torch.testing.assert_close(actual, leaf.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("quantize", [True, False], ids=["quantized", "unquantized"])
@pytest.mark.parametrize("top_t", [1, 5, 12], ids=["T=1", "T=5", "T=L"])
def test_finite_differences_of_the_smooth_selection(top_t: int, quantize: bool, signed: bool) -> None:
    """The cut is found by bisection at every point."""
    atoms = unit_atoms(12, 1, 3)
    norms = atoms.abs().sum((1, 2, 3))
    case = Case(
        torch.rand(1, 1, 5, 5),
        atoms,
        norms,
        0.1 * norms,
        1,
        top_t,
        dropout_p=0.5,
        quantize=quantize,
        signed=signed,
        seed=torch.tensor(0),
        image_ids=torch.arange(1),
        start=0,
        count=1,
    )
    images = case.images.double()

    def project(x: Tensor) -> Tensor:
        return F.conv2d(x, atoms.double()).permute(0, 2, 3, 1)

    smooth = Smooth(project(images), case, 0.2)
    grad_code = torch.randn(project(images).shape, dtype=torch.float64)
    actual = reference.selection_backward(
        grad_code.float(), case.images, atoms, norms, case.dead_zone, 1, top_t, 0.2, quantize, signed
    )
    step = 1e-6
    expected = torch.zeros_like(images)
    for pixel in range(images.numel()):
        moved = [images.clone() for _ in range(2)]
        for x, sign in zip(moved, (1, -1), strict=True):
            x.view(-1)[pixel] += sign * step
        high, low = ((grad_code.float().double() * smooth.exact(project(x))).sum() for x in moved)
        expected.view(-1)[pixel] = (high - low) / (2 * step)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-5)


def defenses() -> dict[str, Defense]:
    return {
        "another decoder": small_defense(),
        "quantized": small_cifar10_defense(),
        "unquantized": small_cifar10_defense(quantize=False),
    }


def images_for(model: Defense) -> tuple[Tensor, Tensor, Tensor]:
    return random_images(3, channels=3, size=32) if isinstance(model.decoder, Decoder) else random_images(3)


@pytest.mark.parametrize("name", defenses())
def test_the_forward_pass_does_not_change(name: str) -> None:
    model = defenses()[name]
    images, _, ids = images_for(model)
    selection = model.with_surrogate("selection")
    for x in (images, images.clone().requires_grad_()):
        assert torch.equal(selection(x, seed=3, image_ids=ids), model(x, seed=3, image_ids=ids))
        left, right = (one.encoder(x, seed=3, image_ids=ids) for one in (selection, model))
        assert torch.equal(left, right)


def plain_gradient(model: nn.Module, images: Tensor, labels: Tensor, ids: Tensor, seed: int = 3) -> Tensor:
    leaf = images.clone().requires_grad_()
    loss = margin(model(leaf, seed=seed, image_ids=ids), labels).sum()
    return torch.autograd.grad(loss, leaf)[0]


@pytest.mark.parametrize("average", ["normalized", "mean"])
@pytest.mark.parametrize("name", defenses())
def test_both_ways_agree_in_direction_for_one_realization(name: str, average: str) -> None:
    model = defenses()[name].with_surrogate("selection")
    images, labels, ids = images_for(model)
    expected = plain_gradient(model, images, labels, ids)
    actual = eot_gradient(
        model, images, labels, realizations=1, seed=3, image_ids=ids, loss="margin", average=average
    ).gradient
    cosine = F.cosine_similarity(actual.flatten(1).double(), expected.flatten(1).double())
    torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=0, atol=1e-6)
    if average == "mean":
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("chunk", [1, 2, 5], ids="{} at a time".format)
@pytest.mark.parametrize("quantize", [True, False], ids=["quantized", "unquantized"])
def test_a_plain_mean_is_the_mean_of_the_realizations(quantize: bool, chunk: int) -> None:
    """Without a division by norms, adding up before the first layer changes rounding alone."""
    model = small_cifar10_defense(quantize=quantize).with_surrogate("selection")
    images, labels, ids = images_for(model)
    leaf = images.clone().requires_grad_()
    logits = model(leaf, realizations=5, seed=3, image_ids=ids)
    expected = torch.autograd.grad(sum(margin(each, labels).sum() for each in logits) / 5, leaf)[0]
    actual = eot_gradient(
        model,
        images,
        labels,
        realizations=5,
        seed=3,
        image_ids=ids,
        loss="margin",
        average="mean",
        chunk=chunk,
    ).gradient
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_unusable_gradients_are_counted_at_the_decoded_image() -> None:
    model = small_cifar10_defense().with_surrogate("selection")
    images, labels, ids = images_for(model)

    class Broken(nn.Module):
        """The first image has no gradient, and the second a gradient of NaN."""

        def forward(self, decoded: Tensor) -> Tensor:
            score = decoded.flatten(1).sum(1)
            parts = list(score.unflatten(0, (-1, 3)).unbind(1))
            parts[0] = parts[0].detach()
            parts[1] = parts[1] + (parts[1] - parts[1].detach()).abs().sqrt()
            score = torch.stack(parts, 1).flatten()
            return torch.stack([score, torch.zeros_like(score)], 1)

    model.classifier = Broken()
    estimate = eot_gradient(model, images, labels * 0, realizations=2, seed=3, image_ids=ids, loss="margin")
    assert estimate.zero.tolist() == [2, 0, 0]
    assert estimate.invalid.tolist() == [0, 2, 0]
    assert estimate.gradient[:2].abs().max() == 0
    assert estimate.gradient[2].abs().max() > 0


def test_only_the_selection_has_a_smooth_clamp() -> None:
    model = small_cifar10_defense()
    for layer in (model.decoder.conv2, model.decoder.conv3):
        nn.init.constant_(layer.bias, -50.0)
    images, labels, ids = images_for(model)
    assert plain_gradient(model.with_surrogate("identity"), images, labels, ids).abs().max() == 0
    wide = plain_gradient(model.with_surrogate("selection", clamp_width=1e9), images, labels, ids)
    assert model.decoder.clamp_width == 10.0
    narrow = plain_gradient(model.with_surrogate("selection", clamp_width=1e-6), images, labels, ids)
    assert narrow.abs().max() <= 1e-6 * wide.abs().max()


def test_the_smooth_clamp() -> None:
    x = torch.tensor([-30.0, -1.0, 0.0, 0.25, 1.0, 3.0, 31.0], requires_grad=True)
    y = SmoothClamp.apply(x, 10.0)
    assert torch.equal(y, x.detach().clamp(0, 1))
    (grad,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(grad, 1 / (1 + torch.tensor([30.0, 1, 0, 0, 0, 2, 30]).div(10).square()))


def test_a_dense_layer_gets_the_gradient_of_every_entry() -> None:
    encoder = SparseEncoder(unit_atoms(20, 3, 4), top_t=5, surrogate="selection", selection_width=0.1)
    images = torch.rand(2, 3, 12, 14, requires_grad=True)
    dense = encoder(images, seed=1)
    grad_code = torch.randn(dense.shape)
    (grad,) = torch.autograd.grad(dense, images, grad_code)
    expected = reference.selection_backward(
        grad_code.permute(0, 2, 3, 1),
        images.detach(),
        encoder.atoms,
        encoder.norms,
        encoder.dead_zone,
        2,
        5,
        0.1,
        True,
        True,
    )
    torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("wrap", [Ensemble, MeanField])
def test_views_of_the_defense_follow_the_selection_too(wrap: Callable[[Defense], nn.Module]) -> None:
    model = small_cifar10_defense()
    images, labels, _ = images_for(model)
    gradients = []
    for surrogate in ("selection", "identity"):
        view = wrap(model.with_surrogate(surrogate)).eval()
        leaf = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(margin(view(leaf), labels).sum(), leaf)
        gradients.append(gradient)
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    cosine = F.cosine_similarity(*(gradient.flatten(1) for gradient in gradients))
    assert cosine.max() < 0.9


def test_the_default_width_follows_epsilon_and_the_norms() -> None:
    atoms = unit_atoms(20, 3, 4)
    encoder = SparseEncoder(atoms, top_t=5, epsilon=0.1)
    assert encoder.resolved_selection_width() == pytest.approx(0.01 * float(encoder.norms.mean()))
    encoder.epsilon = 0.2
    assert encoder.resolved_selection_width() == pytest.approx(0.02 * float(encoder.norms.mean()))
    encoder.epsilon = 0.0
    encoder.surrogate = "selection"
    with pytest.raises(ValueError, match="selection_width is None and epsilon is 0"):
        encoder(torch.rand(1, 3, 8, 8))
    encoder.selection_width = 0.3
    assert encoder.resolved_selection_width() == 0.3
    assert Defense.from_pretrained("cifar10").encoder.resolved_selection_width() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda model: model.with_surrogate("selection", selection_width=0.0),
            "selection_width is 0.0, expected above",
        ),
        (lambda model: model.with_surrogate("selection", clamp_width=-1.0), "clamp_width is -1.0, expected above 0"),
        (lambda model: model.with_surrogate("smooth", clamp_width=1.0), "surrogate is 'smooth', expected 'selection'"),
        (lambda model: model.with_surrogate("choice"), "surrogate is 'choice', expected one of .*selection"),
        (
            lambda _: small_defense().with_surrogate("selection", clamp_width=1.0),
            "decoder is a .*, expected a Decoder with a clamp width",
        ),
    ],
)
def test_widths_that_do_not_fit_are_refused(change: Callable[[Defense], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change(small_cifar10_defense())


def test_widths_are_saved_where_they_are_not_the_defaults(tmp_path: object) -> None:
    model = small_cifar10_defense()
    before = fingerprint(model)
    model.encoder.selection_width = 0.3
    model.decoder.clamp_width = 4.0
    assert fingerprint(model) != before
    model.save_pretrained(f"{tmp_path}/model")
    again = Defense.from_pretrained(f"{tmp_path}/model")
    assert (again.encoder.selection_width, again.decoder.clamp_width) == (0.3, 4.0)
    model.encoder.selection_width = None
    model.decoder.clamp_width = 10.0
    assert fingerprint(model) == before
    model.with_surrogate("selection").save_pretrained(f"{tmp_path}/selection")
    assert Defense.from_pretrained(f"{tmp_path}/selection").encoder.surrogate == "selection"


def test_a_compiled_model_has_the_same_gradient() -> None:
    encoder = SparseEncoder(unit_atoms(20, 3, 4), top_t=5, surrogate="selection")
    decoder = Decoder(20, 4, 2, 16, 3)
    model = Defense(encoder, decoder, nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))).eval()
    images, labels, ids = random_images(3, channels=3, size=16)
    expected = plain_gradient(model, images, labels % 4, ids)
    actual = plain_gradient(torch.compile(model, fullgraph=True), images, labels % 4, ids)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


class Scripted(nn.Module):
    """A linear model with other weights in every call."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = iter(weights)

    def forward(self, x: Tensor) -> Tensor:
        score = (x * next(self.weights)).flatten(1).sum(1)
        return torch.stack([torch.zeros_like(score), score], 1)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_momentum_is_on_unit_gradients(momentum: float) -> None:
    weights = torch.randn(6, 1, 4, 4) * torch.tensor([1, 100, 0.01, 1, 10, 0.1])[:, None, None, None]
    start, zero = torch.full((1, 1, 4, 4), 0.5), torch.zeros(1, dtype=torch.int64)
    settings = PGDSettings(
        epsilon=0.5, step_size=0.01, steps=6, realizations=1, loss="margin", average="mean", momentum=momentum
    )
    actual = pgd(Scripted(weights).eval(), start, zero, settings, seed=0, image_ids=zero).images
    velocity, expected = torch.zeros_like(start), start.clone()
    for weight in weights:
        velocity = momentum * velocity + weight / weight.norm()
        expected += 0.01 * velocity.sign()
    torch.testing.assert_close(actual, expected)


def test_a_cosine_schedule_shrinks_the_steps() -> None:
    settings = PGDSettings(step_size=0.1, steps=4, schedule="cosine")
    sizes = [settings.size_of_step(step) for step in range(4)]
    assert sizes == pytest.approx([0.1, 0.1 * (1 + 2**-0.5) / 2, 0.05, 0.1 * (1 - 2**-0.5) / 2])
    assert [PGDSettings(step_size=0.1).size_of_step(step) for step in range(3)] == [0.1] * 3
    for settings in ({"momentum": 1.0}, {"momentum": -0.1}, {"schedule": "linear"}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            PGDSettings(**settings)


def test_the_recipe() -> None:
    recipe = PGDSettings.selection()
    assert recipe == PGDSettings(
        epsilon=8 / 255, step_size=1 / 225, steps=20, realizations=2, loss="margin", momentum=0.75
    )
    assert recipe.gradients == 40
    assert recipe.selection is None
    assert PGDSettings.selection(epsilon=0.1, steps=7).steps == 7


def test_resnet_and_decoder_are_attacked_within_the_ball() -> None:
    model = Defense(
        SparseEncoder(unit_atoms(20, 3, 4), top_t=5), Decoder(20, 4, 2, 32, 3), resnet32(num_classes=10)
    ).eval()
    images, labels, ids = random_images(2, channels=3, size=32)
    result = pgd(
        model.with_surrogate("selection"), images, labels, PGDSettings.selection(steps=2), seed=0, image_ids=ids
    )
    assert 0 < (result.images - images).abs().max() <= 2 / 225 + 1e-6
    assert result.zero.sum() == result.invalid.sum() == 0
