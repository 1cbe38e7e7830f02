"""The files of an evaluation's folder, and how it recognizes its own evaluation."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import Linear
from neuroae import Defense
from neuroae.attacks import SquareSettings
from neuroae.evaluation import Attack, Scoring, attacks_from, load_evaluation, run, run_evaluation
from neuroae.evaluation.attack import Variant
from neuroae.evaluation.folder import Files
from neuroae.evaluation.manifest import identity_of, load_manifest, new_manifest, require_identity
from neuroae.evaluation.measurements import least_seconds, relative_cost
from neuroae.evaluation.plan import even_block
from neuroae.utils.files import load_json, load_tensors, save_json
from neuroae.utils.randomness import derive_seed
from small_evaluation import BUDGET, contents, small_evaluation

NAMES = ["clean", "W-AIGA", "W-NFGA smooth from other"]


def test_records_come_by_attack_and_image(tmp_path: Path) -> None:
    evaluation = small_evaluation()
    results = run_evaluation(evaluation, tmp_path)
    assert list(results.records) == NAMES
    for name, records in results.records.items():
        assert [record.attack for record in records] == [name] * 10
        assert [record.image for record in records] == evaluation.data.ids.tolist()
        assert [record.label for record in records] == evaluation.data.labels.tolist()
        assert results.seconds[name] > 0
    assert load_evaluation(tmp_path).records == results.records


def test_answers_are_the_models_on_the_saved_images(tmp_path: Path) -> None:
    evaluation = small_evaluation()
    results = run_evaluation(evaluation, tmp_path)
    scoring, selection = (derive_seed(evaluation.scoring.seed, purpose) for purpose in ("scoring", "selection"))
    assert isinstance(evaluation.model, Defense)
    for name, records in results.records.items():
        images, ids = results.images(name), evaluation.data.ids
        drawn = evaluation.model(images, realizations=4, seed=scoring, image_ids=ids)
        votes = evaluation.model.predict_proba(images, 4, scoring, ids).argmax(-1)
        assert [record.draws for record in records] == [tuple(column) for column in drawn.argmax(-1).T.tolist()]
        assert [record.vote for record in records] == votes.tolist()
        log_probabilities = evaluation.model.predict_proba(images, 4, selection, ids).log()
        for row, label, record in zip(log_probabilities, evaluation.data.labels, records, strict=True):
            others = torch.cat([row[:label], row[label + 1 :]]).max()
            assert record.selection == pytest.approx(float(others - row[label]), abs=1e-5)


def test_norms_are_of_the_saved_images_in_double_precision(tmp_path: Path) -> None:
    evaluation = small_evaluation()
    results = run_evaluation(evaluation, tmp_path)
    clean = evaluation.data.pixels().double()
    for name in NAMES:
        offsets = results.images(name).double() - clean
        assert [record.linf for record in results.records[name]] == [float(each.abs().max()) for each in offsets]
        norms = [float(each.norm()) for each in offsets]
        assert [record.l2 for record in results.records[name]] == pytest.approx(norms, rel=1e-12)
    assert {record.linf for record in results.records["clean"]} == {0.0}
    assert all(0 < record.linf <= BUDGET.epsilon + 2**-24 for record in results.records["W-AIGA"])


@given(images=st.integers(1, 5000))
def test_even_blocks_are_as_few_as_possible_and_about_equal(images: int) -> None:
    block = even_block(images)
    number = -(-images // block)
    assert block <= 64
    assert number <= -(-images // 64)
    assert number * block - images < number


def test_images_are_kept_in_blocks_with_their_ids(tmp_path: Path) -> None:
    evaluation = small_evaluation(images=10, block=4)
    run_evaluation(evaluation, tmp_path)
    files = sorted((tmp_path / "images" / "w-nfga-smooth-from-other").iterdir())
    blocks = [load_tensors(path)[0] for path in files]
    assert [path.name for path in files] == ["00000.safetensors", "00001.safetensors", "00002.safetensors"]
    assert [len(block["images"]) for block in blocks] == [4, 4, 2]
    assert torch.cat([block["ids"] for block in blocks]).tolist() == evaluation.data.ids.tolist()
    assert {block["images"].dtype for block in blocks} == {torch.float32}


def test_in_memory_and_in_a_folder_give_the_same(tmp_path: Path) -> None:
    evaluation = small_evaluation()
    results = run_evaluation(evaluation, tmp_path)
    in_memory = run_evaluation(evaluation)
    assert in_memory.folder is None
    assert in_memory.records == results.records
    assert (in_memory.model, in_memory.deterministic, in_memory.finished) == ("small", False, True)
    assert in_memory.manifest["identity"] == results.manifest["identity"]
    for name in NAMES:
        assert torch.equal(in_memory.images(name), results.images(name))
        assert in_memory.accuracy(name) == results.accuracy(name)
        assert in_memory.draw_accuracy(name) == results.draw_accuracy(name)
        assert in_memory.seconds[name] > 0
        assert in_memory.budget(name) is None
        for count in ("passes", "zero", "invalid"):
            assert getattr(in_memory, count)(name) == getattr(results, count)(name)


def test_gradients_selection_and_scoring_never_share_a_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: dict[str, set[int]] = {"gradient": set(), "forward": set()}
    realize = Defense.realize

    def recorded(self, selection, seed, *rest):  # type: ignore[no-untyped-def]
        seeds["gradient" if torch.is_grad_enabled() else "forward"].add(int(seed))
        return realize(self, selection, seed, *rest)

    evaluation = small_evaluation(images=3)
    two = replace(BUDGET, restarts=2)
    attacks = attacks_from(evaluation.model, two, ["w-aiga", "w-nfga-smooth"])
    monkeypatch.setattr(
        run, "gradient_costs", lambda evaluation: dict.fromkeys(one.name for one in evaluation.all_attacks)
    )
    monkeypatch.setattr(run, "behaviors", lambda *_: {})
    monkeypatch.setattr(Defense, "realize", recorded)
    run_evaluation(replace(evaluation, attacks=attacks), tmp_path)
    # A step of each attack; the choice among the restarts of each, the choice among attacks, and the scoring.
    assert len(seeds["gradient"]) == 2 * BUDGET.steps
    assert len(seeds["forward"]) == 2 + 1 + 1
    assert not seeds["gradient"] & seeds["forward"]


def test_the_manifest_tells_what_was_asked_and_what_it_cost(tmp_path: Path) -> None:
    evaluation = small_evaluation()
    results = run_evaluation(evaluation, tmp_path)
    manifest = load_json(tmp_path / "manifest.json")
    assert manifest["model"] == "small"
    assert manifest["classes"] == list(evaluation.data.classes)
    assert manifest["versions"][0]["torch"] == torch.__version__
    identity = manifest["identity"]
    assert identity["data"]["fingerprint"] == evaluation.data.fingerprint()
    assert identity["scoring"] == {"draws": 4, "seed": 3, "deterministic": False, "precision": "float32"}
    assert (identity["block"], identity["threads"], identity["device"]) == (3, 1, "cpu")
    white, transfer = (identity["attacks"][name] for name in NAMES[1:])
    assert (white["family"], transfer["family"]) == ("white-box", "PW-T")
    assert (white["surrogate"], transfer["surrogate"]) == ("autoencoder-identity", "smooth")
    assert white["source"]["fingerprint"] == identity["model"]["fingerprint"] != transfer["source"]["fingerprint"]
    assert white["settings"]["epsilon"] == BUDGET.epsilon
    assert white["gradients"] == BUDGET.steps * BUDGET.realizations
    assert results.budget("clean") is None
    cost = manifest["costs"]["W-AIGA"]
    assert cost["K"] > 0
    assert results.budget("W-AIGA") == cost["C"] == pytest.approx(cost["K"] * white["gradients"])
    assert load_json(tmp_path / "manifest.json")["seconds"] == pytest.approx(sum(results.seconds.values()))


@pytest.mark.parametrize(("variant", "rows"), [(None, 1), ("ensemble", 3)], ids=["realization", "ensemble"])
def test_a_gradient_is_set_beside_that_of_as_many_images_by_the_classifier(
    monkeypatch: pytest.MonkeyPatch, variant: Variant | None, rows: int
) -> None:
    """Costs are measured in the attack's precision. An ensemble of three has three times the images."""
    evaluation = small_evaluation()
    passes: list[tuple[int, bool]] = []
    evaluation.model.classifier.register_forward_pre_hook(
        lambda _, inputs: passes.append((len(inputs[0]), torch.is_autocast_enabled("cpu")))
    )

    def rows_of(runs: Sequence[Callable[[], None]], device: torch.device) -> Iterator[float]:
        assert device == torch.device("cpu")
        for action in runs:
            passes.clear()
            action()
            assert all(rounded for _, rounded in passes)
            yield sum(count for count, _ in passes)

    monkeypatch.setattr("neuroae.evaluation.measurements.least_seconds", rows_of)
    attack = Attack("one", evaluation.model, BUDGET, "bfloat16", "smooth", variant)
    assert relative_cost(attack, evaluation.load(0), Scoring(3)) == rows


def test_a_run_that_was_disturbed_does_not_count() -> None:
    slow, calls = iter([0.5, 0.0, 0.0, 0.3, 0.0, 0.3]), []
    runs = [lambda: time.sleep(0.02 + next(slow)), lambda: calls.append(1)]
    long, short = least_seconds(runs, torch.device("cpu"))
    assert short < 0.02 <= long < 0.3
    assert len(calls) == 6


def test_a_classifier_costs_what_it_costs_and_a_search_has_no_gradients() -> None:
    model = Linear(1, 8, 10).eval()
    part = small_evaluation().load(0)
    assert relative_cost(Attack("one", model, BUDGET), part, Scoring()) == 1.0
    assert relative_cost(Attack("one", model, SquareSettings(queries=2)), part, Scoring()) is None


def test_a_manifest_is_opened_without_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers in a manifest are measured once and then read."""
    evaluation = small_evaluation()
    run_evaluation(evaluation, tmp_path)
    monkeypatch.setattr(torch.nn.Module, "__call__", None)
    files, identity = Files(tmp_path), identity_of(evaluation)
    manifest = load_manifest(files)
    require_identity(files, manifest, evaluation, identity)
    costs = {name: cost and cost["K"] for name, cost in manifest["costs"].items()}
    renewed = new_manifest(evaluation, identity, costs, manifest["behavior"])
    assert renewed == {name: value for name, value in manifest.items() if name != "seconds"}


def test_other_versions_are_told_and_kept(tmp_path: Path) -> None:
    run_evaluation(small_evaluation(), tmp_path)
    manifest = load_json(tmp_path / "manifest.json")
    earlier = manifest["versions"][0] | {"torch": "2.0"}
    save_json(tmp_path / "manifest.json", manifest | {"versions": [earlier]})
    before = contents(tmp_path)
    run_evaluation(small_evaluation(), tmp_path)
    assert contents(tmp_path) == before
    (tmp_path / "images" / "clean" / "00001.safetensors").unlink()
    with pytest.warns(
        UserWarning, match=rf"other versions: versions\.torch is '2\.0' there and '{torch.__version__[:4]}"
    ):
        run_evaluation(small_evaluation(), tmp_path)
    assert load_json(tmp_path / "manifest.json")["versions"] == [earlier, manifest["versions"][0]]


def test_an_evaluation_that_is_not_done_has_no_results(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"manifest\.json is missing"):
        load_evaluation(tmp_path)
    run_evaluation(small_evaluation(), tmp_path)
    text = (tmp_path / "records.jsonl").read_text()
    (tmp_path / "records.jsonl").write_text(text[:-5])
    with pytest.raises(ValueError, match=r"records\.jsonl is damaged"):
        load_evaluation(tmp_path)
    (tmp_path / "records.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"records\.jsonl is missing: the evaluation is not done"):
        load_evaluation(tmp_path)


def test_progress_counts_images_and_tells_the_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = run_evaluation(small_evaluation(), tmp_path)
    lines = capsys.readouterr().err.splitlines()
    for name, records in results.records.items():
        right = sum(record.vote == record.label for record in records)
        last = [line for line in lines if f"small: {name}:" in line][-1]
        assert "| 10/10 [" in last
        assert f"accuracy={right / 10:.1%}" in last


def test_fixed_masks_are_marked_and_the_same_in_every_draw(tmp_path: Path) -> None:
    evaluation = small_evaluation()
    attacks = attacks_from(evaluation.model, BUDGET, ["w-aiga"], random=False)
    fixed = replace(evaluation, attacks=attacks, scoring=Scoring(1, 3, deterministic=True))
    results = run_evaluation(fixed, tmp_path)
    assert results.deterministic
    assert attacks[0].settings == replace(BUDGET, realizations=1, selection=1)
    masks = derive_seed(3, "fixed masks")
    for name, records in results.records.items():
        logits = evaluation.model(results.images(name), seed=masks, image_ids=evaluation.data.ids).detach()
        assert [record.vote for record in records] == logits.argmax(-1).tolist()
        assert [record.draws for record in records] == [(vote,) for vote in logits.argmax(-1).tolist()]
        for row, record in zip(logits.log_softmax(-1), records, strict=True):
            others = torch.cat([row[: record.label], row[record.label + 1 :]]).max()
            assert record.selection == pytest.approx(float(others - row[record.label]), abs=1e-5)


def test_a_decoder_may_make_images_of_another_size() -> None:
    evaluation = small_evaluation()
    model = evaluation.model
    model.decoder.layer = torch.nn.ConvTranspose2d(20, 1, 4, 3)
    model.classifier = Linear(1, 10, 10)
    cost = relative_cost(Attack("one", model.eval(), BUDGET, "float32", "smooth"), evaluation.load(0), Scoring(3))
    assert cost is not None
    assert cost > 0
