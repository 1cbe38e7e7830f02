"""Evaluation in memory: votes, blocks, fresh draws, and what is counted."""

import pytest
import torch

from models import Linear, small_defense
from neuroae import derive_seed
from neuroae.evaluation import Accuracy, Attack, Scoring, evaluate
from neuroae.evaluation.attack import Clean
from neuroae.evaluation.run import Bar, craft, judge
from neuroae.evaluation.scoring import Block
from small_evaluation import BUDGET, random_data


def test_clean_evaluation_counts_the_ensembles_votes() -> None:
    model, data = small_defense(), random_data(10)
    found = evaluate(model, data, ensemble=4, seed=1)
    assert found.name == "clean"
    assert found.passes == found.zero == found.invalid == 0
    torch.testing.assert_close(found.images, data.pixels())
    probabilities = model.predict_proba(data.pixels(), 4, derive_seed(1, "scoring"), data.ids)
    assert torch.equal(found.predictions, probabilities.argmax(-1))
    each = model(data.pixels(), realizations=4, seed=derive_seed(1, "scoring"), image_ids=data.ids)
    assert torch.equal(found.draws, each.argmax(-1))
    assert found.accuracy == Accuracy(int((probabilities.argmax(-1) == data.labels).sum()), 10)
    assert found.draw.value == pytest.approx(float((each.argmax(-1) == data.labels).double().mean()))


@pytest.mark.parametrize("attacked", [False, True])
def test_a_seed_repeats_an_evaluation(attacked: bool) -> None:
    model, data = small_defense(), random_data(10)
    attack = Attack("one", model, BUDGET) if attacked else None
    runs = [evaluate(model, data, attack, ensemble=3, seed=2, block=4) for _ in range(2)]
    assert torch.equal(runs[0].images, runs[1].images)
    assert torch.equal(runs[0].predictions, runs[1].predictions)


def test_scoring_draws_masks_that_no_gradient_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = small_defense(), random_data(4)
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
    model, data, sizes = Linear(1, 8, 10).eval(), random_data(10), []
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

    model, data = Flat(1, 8, 10).eval(), random_data(10)
    found = evaluate(model, data, Attack("one", model, BUDGET), ensemble=1, block=4)
    assert found.passes == found.zero == 10 * BUDGET.steps * BUDGET.realizations
    assert found.invalid == 0


def test_bfloat16_crafts_and_float32_scores() -> None:
    model, data, dtypes = Linear(1, 8, 10).eval(), random_data(4), []
    model.layer.register_forward_hook(lambda _module, _inputs, output: dtypes.append(output.dtype))
    found = evaluate(model, data, Attack("one", model, BUDGET, "bfloat16"), ensemble=1)
    assert dtypes == [torch.bfloat16] * (BUDGET.steps * BUDGET.realizations) + [torch.float32]
    assert found.images.dtype == torch.float32


def test_scoring_is_in_float32_whatever_is_on_around_it() -> None:
    model, data, dtypes = Linear(1, 8, 10).eval(), random_data(4), []
    model.layer.register_forward_hook(lambda _module, _inputs, output: dtypes.append(output.dtype))
    block, scoring = Block.of(data, torch.device("cpu")), Scoring(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        judge(model, "some", block, craft(Clean(), model, block, scoring), scoring)
    assert set(dtypes) == {torch.float32}


def test_a_model_that_draws_from_a_generator_draws_anew_in_every_block() -> None:
    """With one seed for all blocks, the same few draws would decide a whole data set."""

    class Chance(Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.randn(len(images), 10)

    found = evaluate(Chance(1, 8, 10).eval(), random_data(8), block=4)
    assert not torch.equal(found.draws[:, :4], found.draws[:, 4:])
    assert torch.equal(found.draws, evaluate(Chance(1, 8, 10).eval(), random_data(8), block=4).draws)


def test_the_bar_moves_within_a_block() -> None:
    attack = Attack("one", Linear(1, 8, 10).eval(), BUDGET)
    with Bar("some", attack, images=10, done=4, right=1) as bar:
        for _ in range(3):
            bar.crafting(attack.passes)
        assert bar.bar.n == pytest.approx(4 + 3)
        bar.scored(4, 2)
        assert bar.bar.n == 8
        assert bar.bar.postfix == "accuracy=37.5%"
