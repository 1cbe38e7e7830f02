"""Accuracy with its interval, blocks, fresh draws, and the paper's attack modes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from models import Linear, small_defense
from neuroae.attacks import PGDSettings
from neuroae.data import ImageSet
from neuroae.evaluation import MODES, Accuracy, Attack, attacks_from, evaluate


def image_set(count: int = 10) -> ImageSet:
    images = torch.randint(256, (count, 1, 8, 8), dtype=torch.uint8)
    return ImageSet("some", images, torch.arange(count) % 10, torch.arange(count) + 5, tuple("abcdefghij"))


BUDGET = PGDSettings(0.1, 0.05, steps=2, realizations=2)


@given(st.integers(1, 2000).flatmap(lambda images: st.tuples(st.integers(0, images), st.just(images))))
def test_intervals_are_clopper_pearsons(counts: tuple[int, int]) -> None:
    correct, images = counts
    low, high = Accuracy(correct, images).interval()
    assert low == pytest.approx(beta.ppf(0.025, correct, images - correct + 1) if correct else 0, abs=1e-6)
    assert high == pytest.approx(beta.ppf(0.975, correct + 1, images - correct) if correct < images else 1, abs=1e-6)
    assert low <= Accuracy(correct, images).value <= high


def test_clean_evaluation_counts_the_ensembles_votes() -> None:
    model, data = small_defense(), image_set()
    found = evaluate(model, data, ensemble=4, seed=1)
    assert found.name == "clean"
    assert found.passes == found.zero == found.invalid == 0
    torch.testing.assert_close(found.images, data.pixels())
    assert found.accuracy == Accuracy(int((found.predictions == data.labels).sum()), 10)


@pytest.mark.parametrize("attacked", [False, True])
def test_a_seed_repeats_an_evaluation(attacked: bool) -> None:
    model, data = small_defense(), image_set()
    attack = Attack("one", model, BUDGET) if attacked else None
    runs = [evaluate(model, data, attack, ensemble=3, seed=2, block=4) for _ in range(2)]
    assert torch.equal(runs[0].images, runs[1].images)
    assert torch.equal(runs[0].predictions, runs[1].predictions)


def test_scoring_draws_masks_that_no_gradient_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = small_defense(), image_set(4)
    seeds: dict[str, set[int]] = {"gradient": set(), "scoring": set()}
    realize = type(model).realize

    def recorded(self, selection, seed, *rest):  # type: ignore[no-untyped-def]
        seeds["gradient" if torch.is_grad_enabled() else "scoring"].add(int(seed))
        return realize(self, selection, seed, *rest)

    monkeypatch.setattr(type(model), "realize", recorded)
    evaluate(model, data, Attack("one", model, BUDGET), ensemble=2)
    assert len(seeds["gradient"]) == BUDGET.steps
    assert len(seeds["scoring"]) == 1
    assert not seeds["gradient"] & seeds["scoring"]
    scoring = set(seeds["scoring"])
    evaluate(model, data, Attack("two", model, BUDGET), ensemble=2)
    assert len(seeds["gradient"]) == 2 * BUDGET.steps
    assert seeds["scoring"] == scoring


def test_blocks_hold_consecutive_images_and_cover_all() -> None:
    model, data, sizes = Linear(1, 8, 10).eval(), image_set(10), []
    model.register_forward_hook(lambda _module, inputs, _output: sizes.append(len(inputs[0])))
    found = evaluate(model, data, ensemble=1, block=4)
    assert sizes == [4, 4, 2]
    torch.testing.assert_close(found.images, data.pixels())
    with pytest.raises(ValueError, match="block is 0"):
        evaluate(model, data, block=0)


def test_gradient_passes_and_their_failures_are_counted() -> None:
    class Flat(Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) * 0

    model, data = Flat(1, 8, 10).eval(), image_set(10)
    found = evaluate(model, data, Attack("one", model, BUDGET), ensemble=1, block=4)
    assert found.passes == found.zero == 10 * BUDGET.steps * BUDGET.realizations
    assert found.invalid == 0


def test_bfloat16_crafts_and_float32_scores() -> None:
    model, data, dtypes = Linear(1, 8, 10).eval(), image_set(4), []
    model.layer.register_forward_hook(lambda _module, _inputs, output: dtypes.append(output.dtype))
    found = evaluate(model, data, Attack("one", model, BUDGET, "bfloat16"), ensemble=1)
    assert dtypes == [torch.bfloat16] * (BUDGET.steps * BUDGET.realizations) + [torch.float32]
    assert found.images.dtype == torch.float32


def test_a_defense_is_attacked_in_the_papers_modes() -> None:
    model = small_defense()
    attacks = attacks_from(model, BUDGET)
    assert [attack.name for attack in attacks] == ["W-NFGA identity", "W-NFGA smooth", "W-AIGA"]
    assert [attack.source.encoder.surrogate for attack in attacks[:2]] == ["identity", "smooth"]
    assert [attack.source.autoencoder_identity for attack in attacks] == [False, False, True]
    assert all(attack.source.classifier is model.classifier for attack in attacks)
    (transfer,) = attacks_from(model, BUDGET, ["w-aiga"], transfer="other")
    assert transfer.name == "W-AIGA from other"
    with pytest.raises(ValueError, match=r"mode is 'w-nfga', expected one of w-nfga-identity"):
        attacks_from(model, BUDGET, ["w-nfga"])


def test_a_plain_model_is_attacked_with_one_realization() -> None:
    (attack,) = attacks_from(Linear(1, 8, 10), PGDSettings(realizations=40), MODES)
    assert attack.name == "PGD"
    assert attack.settings == PGDSettings(realizations=1)
