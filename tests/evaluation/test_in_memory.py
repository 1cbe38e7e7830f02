"""Evaluation in memory: votes, blocks, fresh draws and counts."""

import pytest
import torch

from models import Linear, small_defense
from neuroae import derive_seed
from neuroae.evaluation import CLEAN, Accuracy, Attack, Evaluation, Scoring, run_evaluation
from neuroae.evaluation.attack import Clean, craft
from neuroae.evaluation.run import Bar
from neuroae.evaluation.scoring import Block, judge
from small_evaluation import BUDGET, random_data


def test_clean_evaluation_counts_the_ensembles_votes() -> None:
    model, data = small_defense(), random_data(10)
    results = run_evaluation(Evaluation(model, data, [], Scoring(4, 1)))
    assert list(results.records) == [CLEAN]
    assert results.passes(CLEAN) == results.zero(CLEAN) == results.invalid(CLEAN) == 0
    torch.testing.assert_close(results.images(CLEAN), data.pixels())
    probabilities = model.predict_proba(data.pixels(), 4, derive_seed(1, "scoring"), data.ids)
    assert [record.vote for record in results.records[CLEAN]] == probabilities.argmax(-1).tolist()
    each = model(data.pixels(), realizations=4, seed=derive_seed(1, "scoring"), image_ids=data.ids)
    assert [list(record.draws) for record in results.records[CLEAN]] == each.argmax(-1).T.tolist()
    assert results.accuracy(CLEAN) == Accuracy(int((probabilities.argmax(-1) == data.labels).sum()), 10)
    expected = float((each.argmax(-1) == data.labels).double().mean())
    assert results.draw_accuracy(CLEAN).value == pytest.approx(expected)


@pytest.mark.parametrize("attacked", [False, True])
def test_a_seed_repeats_an_evaluation(attacked: bool) -> None:
    model, data = small_defense(), random_data(10)
    attacks = [Attack("one", model, BUDGET)] if attacked else []
    runs = [run_evaluation(Evaluation(model, data, attacks, Scoring(3, 2), 4)) for _ in range(2)]
    assert runs[0].records == runs[1].records
    for name in runs[0].records:
        assert torch.equal(runs[0].images(name), runs[1].images(name))


def test_scoring_draws_masks_that_no_gradient_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = small_defense(), random_data(4)
    seeds: dict[str, set[int]] = {"gradient": set(), "forward": set()}
    realize = type(model).realize

    def recorded(self, selection, seed, *rest):  # type: ignore[no-untyped-def]
        seeds["gradient" if torch.is_grad_enabled() else "forward"].add(int(seed))
        return realize(self, selection, seed, *rest)

    monkeypatch.setattr(type(model), "realize", recorded)
    run_evaluation(Evaluation(model, data, [Attack("one", model, BUDGET)], Scoring(2)))
    assert len(seeds["gradient"]) == BUDGET.steps
    assert seeds["forward"] == {derive_seed(0, "selection"), derive_seed(0, "scoring")}
    assert not seeds["gradient"] & seeds["forward"]
    run_evaluation(Evaluation(model, data, [Attack("two", model, BUDGET)], Scoring(2)))
    assert len(seeds["gradient"]) == 2 * BUDGET.steps
    assert len(seeds["forward"]) == 2


def test_blocks_hold_consecutive_images_and_cover_all() -> None:
    model, data, sizes = Linear(1, 8, 10).eval(), random_data(10), []
    model.register_forward_hook(lambda _module, inputs, _output: sizes.append(len(inputs[0])))
    results = run_evaluation(Evaluation(model, data, [], Scoring(1), 4))
    assert sizes == [4, 4, 4, 4, 2, 2]  # on the selection draws, and on the scoring draws
    torch.testing.assert_close(results.images(CLEAN), data.pixels())
    with pytest.raises(ValueError, match="block is 0"):
        Evaluation(model, data, [], block=0)


def test_gradient_passes_and_their_failures_are_counted() -> None:
    class Flat(Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) * 0

    model, data = Flat(1, 8, 10).eval(), random_data(10)
    results = run_evaluation(Evaluation(model, data, [Attack("one", model, BUDGET)], Scoring(1), 4))
    assert results.passes("one") == results.zero("one") == 10 * BUDGET.steps * BUDGET.realizations
    assert results.invalid("one") == 0


def test_bfloat16_crafts_and_float32_scores() -> None:
    model, data, dtypes = Linear(1, 8, 10).eval(), random_data(4), []
    model.layer.register_forward_hook(lambda _module, _inputs, output: dtypes.append(output.dtype))
    results = run_evaluation(Evaluation(model, data, [Attack("one", model, BUDGET, "bfloat16")], Scoring(1)))
    scored = [torch.float32] * 2  # on the selection draws, and on the scoring draws
    assert dtypes == scored + [torch.bfloat16] * (BUDGET.steps * BUDGET.realizations) + scored
    assert results.images("one").dtype == torch.float32


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

    first, again = (run_evaluation(Evaluation(Chance(1, 8, 10).eval(), random_data(8), [], block=4)) for _ in range(2))
    draws = [record.draws for record in first.records[CLEAN]]
    assert draws[:4] != draws[4:]
    assert draws == [record.draws for record in again.records[CLEAN]]


def test_the_bar_moves_within_a_block() -> None:
    attack = Attack("one", Linear(1, 8, 10).eval(), BUDGET)
    with Bar("some", attack, images=10, done=4, right=1) as bar:
        for _ in range(3):
            bar.crafting(attack.passes)
        assert bar.bar.n == pytest.approx(4 + 3)
        bar.scored(4, 2)
        assert bar.bar.n == 8
        assert bar.bar.postfix == "accuracy=37.5%"
