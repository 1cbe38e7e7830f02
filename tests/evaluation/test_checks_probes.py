"""Checks that run the model."""

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation_folder import records
from models import Linear, random_images, small_defense
from neuroae.attacks import PGDSettings, SquareSettings, eot_gradient
from neuroae.data import ImageSet
from neuroae.evaluation import Attack, Scoring
from neuroae.evaluation.checks import INPUT_RANGE, Check, examined_attack, probe
from neuroae.evaluation.checks.draws import SEVERAL_DRAWS
from neuroae.evaluation.checks.gradients import AGREEMENT, COUNTS, gradient_agreement, running_sums, selection_checks
from neuroae.evaluation.checks.outcomes import ITERATIVE
from neuroae.evaluation.checks.sanity import attack_a_few, small_attacks
from neuroae.evaluation.checks.threat_model import CHANCE, FALLS, input_range
from neuroae.evaluation.scoring import Block
from results_data import small_cifar10_defense

BUDGET = PGDSettings(0.1, 0.05, steps=2, realizations=5)
SCORING = Scoring(draws=2, seed=4)


class Bright(nn.Module):
    """Distinguishes dark and bright images, after rescaling them."""

    def __init__(self, scale: float = 1, shift: float = 0, threshold: float = 0.5, clean_only: bool = False) -> None:
        super().__init__()
        self.scale, self.shift, self.threshold, self.clean_only = scale, shift, threshold, clean_only
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        if self.clean_only and not bool(((images >= 0) & (images <= 1)).all()):
            raise AssertionError("out of range")
        light = images.mean((1, 2, 3)) * self.scale + self.shift - self.threshold
        return torch.stack([-light, light], 1)


class NoisyGradient(nn.Module):
    """A linear model with noise in its gradient, but not in its answers."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.layer, self.noise = Linear(1, 8, 10), noise
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        drawn = self.noise * torch.randn_like(images)
        logits: Tensor = self.layer(images)
        return logits + ((images - images.detach()) * drawn).sum((1, 2, 3))[:, None] * torch.arange(10)


def dark_and_bright(count: int = 40) -> Block:
    labels = torch.arange(count) % 2
    images = torch.where(labels.bool()[:, None, None, None], 0.75, 0.25).expand(-1, 1, 4, 4).contiguous()
    return Block(images + 0.05 * torch.rand_like(images), labels, torch.arange(count) + 7)


def balanced_linear() -> Linear:
    """Returns a linear model that predicts many classes for random images."""
    model = Linear(1, 8, 10).eval()
    with torch.no_grad():
        model.layer.weight -= model.layer.weight.mean(1, keepdim=True)
        model.layer.bias.zero_()
    return model


def label_as_predicted(model: nn.Module, count: int = 20) -> ImageSet:
    """Returns random images labeled with the model's predictions."""
    images = torch.randint(256, (count, 1, 8, 8), dtype=torch.uint8)
    labels = model(images.float() / 255).argmax(-1)
    return ImageSet("some", images, labels, torch.arange(count) + 3, tuple("abcdefghij"))


@pytest.mark.parametrize(
    ("model", "verdict"),
    [
        pytest.param(Bright(), "pass", id="no-normalization"),
        pytest.param(Bright(1 / 0.2, -0.5 / 0.2, 0), "pass", id="normalized-inside"),
        pytest.param(Bright(clean_only=True), "pass", id="other-scales-refused"),
        pytest.param(Bright(threshold=127.5), "fail", id="made-for-bytes"),
        pytest.param(Bright(threshold=0), "fail", id="normalized-outside"),
        pytest.param(Bright(threshold=0.275), "fail", id="better-when-normalized-outside"),
        pytest.param(Bright(scale=-1, threshold=-0.5), "fail", id="always-wrong"),
    ],
)
def test_the_scale_that_a_model_was_made_for_is_found(model: nn.Module, verdict: str) -> None:
    check = input_range(model, dark_and_bright(), SCORING)
    assert check.name == INPUT_RANGE
    assert check.verdict == verdict
    assert check.numbers["chance"] == 0.5


def test_few_images_above_chance_are_a_warning() -> None:
    assert input_range(Bright(), dark_and_bright(4), SCORING).verdict == "warn"


def test_refused_scales_are_told() -> None:
    check = input_range(Bright(clean_only=True), dark_and_bright(), SCORING)
    assert check.finding.count("refused") == 3
    assert set(check.numbers) == {"[0, 1]", "chance", "images"}


def block_for(model: nn.Module, count: int = 6) -> Block:
    return Block.of(label_as_predicted(model, count), torch.device("cpu"))


def test_running_sums_are_those_of_so_many_draws() -> None:
    model = small_defense()
    block, attack = block_for(model), Attack("one", model, BUDGET)
    for count, total in running_sums(attack, block, SCORING, seed=9).items():
        average = eot_gradient(model, block.images, block.labels, realizations=count, seed=9, image_ids=block.ids)
        torch.testing.assert_close(total, average.gradient * count)


def test_agreement_is_the_cosine_of_disjoint_draws() -> None:
    model = small_defense()
    check = gradient_agreement(Attack("one", model, BUDGET), block_for(model), SCORING)
    cosines = [check.numbers[f"N_E {count}"] for count in COUNTS]
    assert cosines == sorted(cosines)
    assert 0 < cosines[0] < cosines[-1] < 1
    assert check.numbers["judged"] == 5


@pytest.mark.parametrize(("noise", "verdict"), [(0.0, "pass"), (1.0, "pass"), (5.0, "warn"), (100.0, "fail")], ids=str)
def test_noise_in_gradients_is_told_from_signal(noise: float, verdict: str) -> None:
    model = NoisyGradient(noise)
    attack = Attack("one", model, replace(BUDGET, realizations=100, average="mean"))
    check = gradient_agreement(attack, block_for(model), SCORING)
    assert check.verdict == verdict
    assert check.numbers["judged"] == 40
    if not noise:
        assert [check.numbers[f"N_E {count}"] for count in COUNTS] == pytest.approx([1.0] * len(COUNTS))


def test_small_gradients_agree_as_large_ones_do() -> None:
    """The gradients of a confident model are so small that PyTorch's cosine treats their norms as 0."""
    model = Linear(1, 8, 10).eval()
    with torch.no_grad():
        model.layer.bias += 30 * torch.eye(10)[3]
    images, _, ids = random_images()
    block = Block(images, torch.full((6,), 3), ids)
    check = gradient_agreement(Attack("one", model, replace(BUDGET, average="mean")), block, SCORING)
    assert check.numbers["N_E 1"] == pytest.approx(1.0)


def test_images_of_one_class_do_not_tell_the_input_range() -> None:
    images, _, ids = random_images()
    check = input_range(Linear(1, 8, 10).eval(), Block(images, torch.zeros(6, dtype=torch.int64), ids), SCORING)
    assert check.verdict == "warn"
    assert "one class" in check.finding


def test_advice_is_the_number_of_draws_that_half_the_signal_takes() -> None:
    model = NoisyGradient(2.5)
    block, attack = block_for(model, 20), Attack("one", model, replace(BUDGET, realizations=100, average="mean"))
    match = re.search(r"about (\d+) realizations", gradient_agreement(attack, block, SCORING).advice)
    assert match
    first, second = (
        eot_gradient(
            model,
            block.images,
            block.labels,
            realizations=int(match[1]),
            seed=seed,
            image_ids=block.ids,
            average="mean",
        ).gradient.flatten(1)
        for seed in (1, 2)
    )
    assert float(F.cosine_similarity(first, second).mean()) == pytest.approx(0.5, abs=0.08)


def test_small_attacks_on_a_linear_model_pass() -> None:
    model = balanced_linear()
    checks = attack_a_few(model, block_for(model, 40), Attack("one", model, BUDGET), SCORING)
    assert [check.name for check in checks] == [ITERATIVE.name, FALLS, CHANCE]
    assert [check.verdict for check in checks] == ["pass"] * 3
    assert list(checks[1].numbers) == ["0", "0.05", "0.1", "0.2", "0.5"]


def test_small_attacks_on_a_model_without_a_gradient_fail() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = balanced_linear()

        def forward(self, images: Tensor) -> Tensor:
            return self.model(images.detach()) + 0 * images.flatten(1)[:, :10]

    model = Hidden().eval()
    checks = attack_a_few(model, block_for(model, 40), Attack("one", model, BUDGET), SCORING)
    assert {check.name: check.verdict for check in checks} == {ITERATIVE.name: "warn", FALLS: "warn", CHANCE: "fail"}


def test_small_attacks_follow_the_attack_that_is_examined() -> None:
    model = small_defense()
    examined = Attack("one", model, replace(BUDGET, norm="l2", epsilon=2.0, loss="margin"), "bfloat16", "identity")
    attacks = {attack.name.removesuffix(" by one"): attack for attack in small_attacks(examined)}
    assert {attack.surrogate for attack in attacks.values()} == {"identity"}
    assert {attack.precision for attack in attacks.values()} == {"bfloat16"}
    assert {attack.settings.loss for attack in attacks.values()} == {"margin"}  # type: ignore[union-attr]
    budgets = [(attack.settings.norm, attack.settings.epsilon) for attack in attacks.values()]  # type: ignore[union-attr]
    assert budgets == [("l2", 1.0), ("l2", 2.0), ("l2", 4.0), ("linf", 0.5), ("l2", 2.0)]
    assert attacks["FGSM"].settings == replace(attacks["PGD, 1 epsilon"].settings, steps=1, step_size=2.0)


def unmeasured(*names: str) -> list[Check]:
    return [Check(name, "warn", "", "") for name in names]


def test_only_what_is_not_known_is_probed() -> None:
    model = Linear(1, 8, 10).eval()
    data, attack = label_as_predicted(model), Attack("one", model, BUDGET)

    def names(*checks: Check) -> list[str]:
        return [check.name for check in probe(model, data, attack, SCORING, checks)]

    assert names() == [INPUT_RANGE, AGREEMENT]
    assert names(*unmeasured(SEVERAL_DRAWS, CHANCE)) == [INPUT_RANGE, SEVERAL_DRAWS, AGREEMENT, CHANCE]
    measured = Check(FALLS, "fail", "", "", numbers={"x": 1})
    assert names(measured, *unmeasured(ITERATIVE.name)) == [INPUT_RANGE, AGREEMENT, ITERATIVE.name]


def test_images_sorted_by_class_are_probed_from_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """With images of one class only, every accuracy would look like chance."""
    labels_of_blocks: list[Tensor] = []
    monkeypatch.setattr(
        "neuroae.evaluation.checks.sanity.attack_a_few",
        lambda _model, block, *_: labels_of_blocks.append(block.labels) or [],
    )
    model = Bright()
    images, labels, _ = dark_and_bright(300)
    order = labels.sort(stable=True).indices
    pixels = (images[order] * 255).to(torch.uint8)
    data = ImageSet("sorted", pixels, labels[order], torch.arange(300), ("dark", "bright"))
    checks = probe(model, data, Attack("one", model, BUDGET), SCORING, unmeasured(CHANCE))
    assert checks[0].name == INPUT_RANGE
    assert checks[0].verdict == "pass"
    assert labels_of_blocks[0].tolist() == [0] * 32 + [1] * 32


def test_of_a_transfer_only_the_gradients_are_examined() -> None:
    model = Linear(1, 8, 10).eval()
    transfer = Attack("one", model, BUDGET, transfer="other")
    checks = probe(model, label_as_predicted(model), transfer, SCORING, unmeasured(FALLS, CHANCE))
    assert [check.name for check in checks] == [INPUT_RANGE, AGREEMENT]


def test_the_attack_that_is_examined_has_single_draws_of_the_attacked_model_if_there_is_one() -> None:
    model = small_defense()
    transfer = Attack("two", model, BUDGET, transfer="other")
    ensemble, single = Attack("three", model, BUDGET, variant="ensemble"), Attack("four", model, BUDGET)
    assert examined_attack([transfer, ensemble, single, replace(single, name="five")], {}) is single
    assert examined_attack([transfer, ensemble], {}) is ensemble
    assert examined_attack([transfer], {}) is transfer
    assert examined_attack([replace(transfer, settings=replace(BUDGET, realizations=1))], {}) is None


def test_of_attacks_of_a_kind_the_one_that_fools_most_is_examined() -> None:
    model = small_defense()
    attacks = [Attack(name, model, BUDGET) for name in ("weak", "strong", "as strong")]
    fooled = {"weak": 1, "strong": 3, "as strong": 3}
    answers = {name: records(name, [image >= count for image in range(4)]) for name, count in fooled.items()}
    assert examined_attack(attacks, answers).name == "strong"  # type: ignore[union-attr]


def test_without_gradients_none_are_probed() -> None:
    model = small_defense()
    assert examined_attack([Attack("one", model, SquareSettings(0.1, 1, 1))], {}) is None
    checks = probe(model, label_as_predicted(model), None, SCORING, unmeasured(SEVERAL_DRAWS, FALLS))
    assert {check.name: check.verdict for check in checks}[SEVERAL_DRAWS] == "fail"
    assert [check.name for check in checks] == [INPUT_RANGE, SEVERAL_DRAWS, AGREEMENT]
    assert not checks[-1].measured


def test_probes_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuroae.evaluation.checks.sanity.STEPS", 2)
    model = small_defense()
    data, attack = label_as_predicted(model, 4), Attack("one", model, BUDGET)
    expected = unmeasured(SEVERAL_DRAWS, FALLS, CHANCE, ITERATIVE.name)
    assert probe(model, data, attack, SCORING, expected) == probe(model, data, attack, SCORING, expected)


def test_what_gradients_through_the_survivors_cannot_see_is_measured() -> None:
    model = small_cifar10_defense()
    images, labels, ids = random_images(3, channels=3, size=32)
    block = Block(images, labels, ids)
    nn.init.constant_(model.decoder.conv3.bias, -100.0)
    model.encoder.epsilon = 1.0
    clamp, cut = selection_checks(model, block, SCORING, through_selection=False)
    assert (clamp.verdict, clamp.numbers["share"]) == ("warn", 1.0)
    assert cut.verdict == "warn"
    exact = F.conv2d(images, model.encoder.atoms, stride=2).abs()
    largest = exact.sort(dim=1, descending=True).values
    middle = largest[:, model.encoder.top_t - 1 : model.encoder.top_t + 1].mean(1, keepdim=True)
    near = (exact - middle).abs() <= model.encoder.norms[:, None, None]
    assert cut.numbers["share"] == pytest.approx(float(near.float().mean()), abs=1e-6)
    checks = selection_checks(model, block, SCORING, through_selection=True)
    assert [check.verdict for check in checks] == ["pass", "pass"]
    nn.init.constant_(model.decoder.conv3.bias, 0.5)
    nn.init.zeros_(model.decoder.conv3.weight)
    model.encoder.epsilon = 1e-6
    quiet = selection_checks(model, block, SCORING, through_selection=False)
    assert [check.verdict for check in quiet] == ["pass", "pass"]
    assert selection_checks(small_defense(), block, SCORING, through_selection=False) == []
