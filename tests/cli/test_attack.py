"""``neuroae attack``, on settings that take seconds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from neuroae.cli import app, main
from neuroae.data import load_dataset
from neuroae.evaluation import Results, load_evaluation
from neuroae.utils.files import load_json, save_tensors
from photos import write_photos
from saved_models import small_model

# The package's attribute of this name is the function.
COMMAND = sys.modules["neuroae.cli.attack"]
QUICK = ["--dataset", "digits", "--limit", 4, "--block", 3, "--steps", 2, "--realizations", 2, "--ensemble", 2]


def neuroae(*arguments: object) -> str:
    """Runs the command line; returns what it printed to standard output."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with two defenses and a classifier."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name, kind in {"defense": "defense", "other": "defense", "plain": "classifier"}.items():
        small_model(kind).save_pretrained(folder / name)
    return folder


@pytest.fixture(autouse=True)
def without_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns off the probes of the sanity report, whose attacks take longer than the tested ones."""
    monkeypatch.setattr("neuroae.evaluation.run.probe_evaluation", lambda *_: None)


def attacked(*arguments: object, output: Path) -> Results:
    printed = neuroae("attack", *arguments, "--output", output)
    results = load_evaluation(output)
    for name in results.records:
        assert f"| {name} " in printed
    return results


def test_all_modes_and_sources_by_default(models: Path, tmp_path: Path) -> None:
    sources = ["--source", models / "other", "--source", models / "plain"]
    results = attacked(models / "defense", *QUICK, *sources, "--epsilon", 0.1, "--restarts", 2, output=tmp_path)
    names = ["W-NFGA identity", "W-NFGA smooth", "W-AIGA", "selection"]
    assert list(results.records) == ["clean", *names, *(f"{name} from other" for name in names), "PGD from plain"]
    assert results.model == "defense"
    assert {len(records) for records in results.records.values()} == {4}
    assert {len(record.draws) for records in results.records.values() for record in records} == {2}
    passes = {name: records[0].gradients for name, records in results.records.items()}
    assert passes.pop("clean") == 0
    # The classifier draws nothing, so one realization is enough.
    assert passes.pop("PGD from plain") == 2 * 2
    assert set(passes.values()) == {2 * 2 * 2}
    for name in passes:
        assert all(0 < record.linf <= 0.1 + 2**-24 for record in results.records[name])


def test_every_method_by_its_name(models: Path, tmp_path: Path) -> None:
    methods = [option for method in ("pgd", "fgsm", "r-fgsm", "apgd", "square") for option in ("--attack", method)]
    few = ["--mode", "w-aiga", "--queries", 3, "--loss", "margin", "--average", "sign", "--precision", "bfloat16"]
    results = attacked(models / "defense", *QUICK, *methods, *few, output=tmp_path)
    identities = results.manifest["identity"]["attacks"]
    assert list(identities) == ["clean", "W-AIGA", "FGSM W-AIGA", "R+FGSM W-AIGA", "APGD W-AIGA", "Square"]
    settings = {name: identities[name]["settings"] for name in list(identities)[1:]}
    preset = 3 / 16
    assert {each["epsilon"] for each in settings.values()} == {preset}
    assert [settings[name]["steps"] for name in list(settings)[:4]] == [2, 1, 1, 2]
    assert settings["W-AIGA"]["step_size"] == pytest.approx(3 / 128)
    assert settings["FGSM W-AIGA"]["step_size"] == preset
    assert settings["R+FGSM W-AIGA"]["step_size"] == 1.25 * preset
    assert settings["R+FGSM W-AIGA"]["random_start"]
    assert settings["Square"] | {"queries": 3, "draws": 2} == settings["Square"]
    for name in list(settings)[:4]:
        assert (settings[name]["loss"], settings[name]["average"]) == ("margin", "sign")
        assert identities[name]["precision"] == "bfloat16"


def test_steps_are_as_long_beside_every_epsilon(models: Path, tmp_path: Path) -> None:
    few = ["--dataset", "digits", "--limit", 3, "--steps", 1, "--ensemble", 2]
    results = attacked(models / "plain", *few, "--epsilon", 0.1, "--epsilon", 0.4, output=tmp_path / "own")
    steps = [results.attack(f"PGD, epsilon {size}")["settings"]["step_size"] for size in ("0.1", "0.4")]
    assert steps == pytest.approx([0.1 / 8, 0.4 / 8])
    other = attacked(models / "plain", *few, "--epsilon", 0.4, "--step-size", 0.2, output=tmp_path / "given")
    assert other.attack("PGD")["settings"]["step_size"] == 0.2


def test_square_searches_the_l2_ball(models: Path, tmp_path: Path) -> None:
    options = ["--dataset", "digits", "--limit", 4, "--norm", "l2", "--epsilon", 0.5, "--queries", 5]
    results = attacked(models / "plain", *options, "--attack", "square", output=tmp_path)
    assert results.attack("Square")["settings"]["norm"] == "l2"
    assert all(0 < record.l2 <= 0.5 + 1e-6 for record in results.records["Square"])


def test_a_classifier_beside_a_defense_has_no_variant(models: Path, tmp_path: Path) -> None:
    sources = ["--source", models / "plain", "--variant", "mean-field", "--restarts", 2]
    results = attacked(models / "defense", *QUICK, "--mode", "w-aiga", *sources, output=tmp_path)
    assert list(results.records) == ["clean", "W-AIGA mean-field", "PGD from plain"]
    assert [results.attack(name)["settings"]["selection"] for name in list(results.records)[1:]] == [2, 2]


def test_gradient_attacks_start_at_random_where_asked(models: Path, tmp_path: Path) -> None:
    methods = [option for method in ("pgd", "fgsm", "apgd", "square") for option in ("--attack", method)]
    results = attacked(models / "plain", *QUICK, *methods, "--queries", 2, "--random-start", output=tmp_path)
    attacks = results.manifest["identity"]["attacks"]
    assert all(attacks[name]["settings"]["random_start"] for name in ("PGD", "FGSM", "APGD"))


def test_the_papers_settings_are_the_defaults(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):
        pass

    def stop(evaluation, output):  # type: ignore[no-untyped-def]
        raise Stop(evaluation)

    monkeypatch.setattr(COMMAND, "run_evaluation", stop)
    with pytest.raises(Stop) as stopped:
        neuroae("attack", models / "defense", "--dataset", "digits", "--output", tmp_path, "--attack", "pgd")
    (evaluation,) = stopped.value.args
    settings = evaluation.attacks[0].settings
    assert (settings.steps, settings.restarts, settings.realizations, settings.average) == (20, 1, 40, "normalized")
    assert (settings.loss, settings.norm, settings.random_start) == ("cross-entropy", "linf", False)
    assert (evaluation.scoring.draws, evaluation.block, len(evaluation.data)) == (10, 63, 500)


def test_the_standard_suite_is_the_default(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(Exception):
        pass

    def stop(evaluation, output):  # type: ignore[no-untyped-def]
        raise Asked(evaluation)

    monkeypatch.setattr(COMMAND, "run_evaluation", stop)
    with pytest.raises(Asked) as stopped:
        neuroae("attack", models / "defense", "--dataset", "digits", "--output", tmp_path, "--epsilon", "8/255")
    (evaluation,) = stopped.value.args
    (suite,) = evaluation.attacks
    assert suite.name == "standard suite, linf 8/255"
    assert suite.stages[0].name == "selection (offered by the model)"


def test_the_suite_ends_with_its_verdict(models: Path, tmp_path: Path) -> None:
    arguments = ("--dataset", "digits", "--limit", 3, "--suite", "quick", "--output", tmp_path)
    assert neuroae("attack", models / "plain", *arguments).startswith("plain keeps ")
    verdict = load_json(tmp_path / "summary.json")["verdict"]
    assert verdict["images"] == 3
    assert verdict["interval"][0] <= verdict["accuracy"] <= verdict["interval"][1]
    assert sum(stage["fooled"] for stage in verdict["stages"]) <= 3
    page = (tmp_path / "report.html").read_text()
    assert page.index("plain keeps") < page.index("<h2>Accuracies</h2>")


def test_the_selections_recipe_is_the_default_of_its_mode(models: Path, tmp_path: Path) -> None:
    few = ["--dataset", "digits", "--limit", 2, "--ensemble", 2, "--mode", "selection", "--steps", 2]
    plain = attacked(models / "defense", *few, output=tmp_path / "plain").attack("selection")
    expected = {"realizations": 2, "loss": "margin", "momentum": 0.75, "steps": 2, "average": "normalized"}
    assert {name: plain["settings"][name] for name in expected} == expected
    assert plain["surrogate"] == "selection"
    assert plain["clamp_width"] == 10
    options = ["--realizations", 3, "--loss", "dlr", "--momentum", 0, "--schedule", "cosine"]
    widths = ["--selection-width", 0.3, "--clamp-width", 4]
    changed = attacked(models / "defense", *few, *options, *widths, output=tmp_path / "changed").attack("selection")
    expected = {"realizations": 3, "loss": "dlr", "schedule": "cosine"}
    assert {name: changed["settings"][name] for name in expected} == expected
    assert "momentum" not in changed["settings"]
    assert (changed["selection_width"], changed["clamp_width"]) == (0.3, 4)


def test_a_classifier_has_no_modes(models: Path, tmp_path: Path) -> None:
    few = ["--dataset", "digits", "--limit", 2, "--steps", 1, "--mode", "selection"]
    results = attacked(models / "plain", *few, output=tmp_path)
    assert list(results.records) == ["clean", "PGD"]
    assert results.attack("PGD")["settings"]["loss"] == "cross-entropy"
    assert "momentum" not in results.attack("PGD")["settings"]


def test_repeated_options_make_an_attack_for_each_combination(models: Path, tmp_path: Path) -> None:
    values = ["--epsilon", 0.05, "--epsilon", 0.1, "--realizations", 1, "--realizations", 3]
    few = ["--dataset", "digits", "--limit", 3, "--steps", 1, "--ensemble", 2, "--mode", "w-aiga", "--queries", 2]
    methods = ["--attack", "pgd", "--attack", "square", "--source", models / "plain"]
    results = attacked(models / "defense", *few, *values, *methods, output=tmp_path)
    settings = {name: results.attack(name)["settings"] for name in results.records if name != "clean"}
    pairs = [(0.05, 1), (0.05, 3), (0.1, 1), (0.1, 3)]
    names = [f"W-AIGA, epsilon {size}, realizations {draws}" for size, draws in pairs]
    square = [f"Square, epsilon {size}, realizations {draws}" for size, draws in pairs]
    # The classifier draws nothing, so one realization is enough.
    others = [f"PGD from plain, epsilon {size}, realizations 1" for size in (0.05, 0.1)]
    assert list(settings) == [*names, *square, *others]
    assert [(settings[name]["epsilon"], settings[name]["realizations"]) for name in names] == pairs
    assert [(settings[name]["epsilon"], settings[name]["draws"]) for name in square] == pairs
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Accuracy against epsilon" in page
    assert "Accuracy against realizations" in page


def test_one_value_is_not_in_the_names(models: Path, tmp_path: Path) -> None:
    results = attacked(models / "plain", *QUICK, "--epsilon", 0.05, output=tmp_path)
    assert list(results.records) == ["clean", "PGD"]


def test_a_classifier_is_attacked_by_pgd_and_answers_once(models: Path, tmp_path: Path) -> None:
    few = ["--dataset", "digits", "--limit", 3, "--steps", 1, "--norm", "l2", "--epsilon", 1.5, "--step-size", 1]
    results = attacked(models / "plain", *few, output=tmp_path)
    assert list(results.records) == ["clean", "PGD"]
    assert results.manifest["identity"]["scoring"]["draws"] == 1
    assert all(0 < record.l2 <= 1.5 for record in results.records["PGD"])
    assert all(record.gradients == 1 for record in results.records["PGD"])


def test_two_processes_of_torchrun_leave_the_records_of_one(models: Path, tmp_path: Path) -> None:
    arguments = ["attack", models / "defense", *QUICK, "--mode", "w-aiga", "--output"]
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "neuroae"]
    command = [*launched, *map(str, arguments), str(tmp_path / "two")]
    finished = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    torch.set_num_threads(1)
    neuroae(*arguments, tmp_path / "one")
    one, two = ((tmp_path / name / "records.jsonl").read_bytes() for name in ("one", "two"))
    assert one == two
    assert (tmp_path / "two" / "report.html").exists()


def test_a_finished_attack_is_only_reported(models: Path, tmp_path: Path) -> None:
    arguments = ["attack", models / "plain", *QUICK, "--output", tmp_path]
    first = neuroae(*arguments)
    before = (tmp_path / "records.jsonl").stat().st_mtime_ns
    assert neuroae(*arguments) == first
    assert (tmp_path / "records.jsonl").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"manifest\.json belongs to another run: .*block is 3 there and 2 here"):
        neuroae(*arguments, "--block", 2)


def test_images_from_elsewhere_are_scored(models: Path, tmp_path: Path) -> None:
    first = attacked(models / "plain", *QUICK, output=tmp_path / "first")
    ids = torch.tensor([record.image for record in first.records["PGD"]])
    save_tensors(tmp_path / "theirs.safetensors", {"images": first.images("PGD"), "ids": ids})
    theirs = ["--images", tmp_path / "theirs.safetensors"]
    same = ["--dataset", "digits", "--limit", 4, "--ensemble", 2]
    results = attacked(models / "plain", *same, *theirs, output=tmp_path / "second")
    assert list(results.records) == ["clean", "theirs"]
    votes = [[record.vote for record in records] for records in (results.records["theirs"], first.records["PGD"])]
    assert votes[0] == votes[1]
    both = attacked(models / "plain", *same, *theirs, "--attack", "fgsm", output=tmp_path / "third")
    assert list(both.records) == ["clean", "FGSM", "theirs"]
    with pytest.raises(ValueError, match=r"leave the linf ball of epsilon 0\.01"):
        neuroae("attack", models / "plain", *same, *theirs, "--epsilon", 0.01, "--output", tmp_path / "fourth")


def test_fixed_masks_are_marked(models: Path, tmp_path: Path) -> None:
    few = ["--dataset", "digits", "--limit", 3, "--steps", 1, "--mode", "w-aiga", "--deterministic"]
    output = tmp_path / "out"
    assert "fixed masks" in neuroae("attack", models / "defense", *few, "--output", output).lower()
    results = load_evaluation(output)
    assert results.deterministic
    assert load_json(output / "manifest.json")["identity"]["scoring"]["deterministic"]
    assert {(len(record.draws), record.gradients) for record in results.records["W-AIGA"]} == {(1, 1)}


@pytest.mark.parametrize("variant", ["ensemble", "mean-field"])
def test_variants_are_of_the_crafting_model(models: Path, tmp_path: Path, variant: str) -> None:
    results = attacked(models / "defense", *QUICK, "--mode", "w-aiga", "--variant", variant, output=tmp_path)
    attack = results.attack(f"W-AIGA {variant}")
    assert (attack["variant"], attack["gradients"]) == (variant, 2 * (2 if variant == "ensemble" else 1))


def test_a_model_of_the_users_is_attacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mymodels.py").write_text(
        "import torch\n"
        "class Noisy(torch.nn.Linear):\n"
        "    def forward(self, images):\n"
        "        return super().forward(images.flatten(1)) + torch.randn(len(images), 10)\n"
        "def noisy():\n"
        "    torch.manual_seed(0)\n"
        "    return Noisy(64, 10).eval()\n"
    )
    results = attacked("mymodels:noisy", *QUICK, output=tmp_path / "out")
    assert results.model == "mymodels:noisy"
    assert {(len(record.draws), record.gradients) for record in results.records["PGD"]} == {(2, 2 * 2)}
    with pytest.raises(ValueError, match="mymodels:noisy draws, but not by seed and image id"):
        neuroae("attack", "mymodels:noisy", "--dataset", "digits", "--deterministic", "--output", tmp_path / "x")


def test_images_of_a_folder_are_brought_to_the_models_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(tmp_path / "photos")
    (tmp_path / "sized.py").write_text(
        "from torch import nn\ndef six():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 2)).eval()\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["--dataset", "image-folder", "--data-dir", "photos", "--image-size", 6, "--steps", 1]
    assert len(attacked("sized:six", *arguments, output=tmp_path / "out").records["PGD"]) == 2


def test_images_that_a_training_held_out_are_attacked(models: Path, tmp_path: Path) -> None:
    few = ["--dataset", "digits", "--hold-out", 3, "--seed", 5, "--steps", 1]
    results = attacked(models / "plain", *few, output=tmp_path)
    _, held_out = load_dataset("digits", "train").hold_out(3, seed=5)
    assert [record.image for record in results.records["clean"]] == held_out.ids.tolist()
    assert results.manifest["identity"]["data"]["name"] == held_out.name


def test_a_model_that_does_not_answer_with_logits_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pairs.py").write_text(
        "from torch import nn\n"
        "class Pair(nn.Linear):\n"
        "    def forward(self, images):\n"
        "        return images, images\n"
        "def pair():\n"
        "    return Pair(1, 1).eval()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["neuroae", "attack", "pairs:pair", "--dataset", "digits", "--output", "out"])
    with pytest.raises(SystemExit, match=r"neuroae: model answers with a tuple, expected a tensor of logits"):
        main()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["defense", "--attack", "cw"], "attack is 'cw', expected one of pgd, fgsm, r-fgsm, apgd, square"),
        (["defense", "--mode", "bpda"], "mode is 'bpda', expected one of w-nfga-identity"),
        (["defense", "--attack", "pgd", "--norm", "l2", "--epsilon", "1"], "norm is 'l2', which has no usual budget"),
        (["defense", "--norm", "l2"], "norm is 'l2', which has no usual budget: give epsilon too"),
        (["defense", "--suite", "quick", "--steps", "2"], "suite is 'quick', expected no option of single attacks"),
        (["defense", "--suite", "quick", "--precision", "bfloat16"], "beside it: --precision"),
        (["defense", "--suite", "quick", "--clamp-width", "2"], "beside it: --clamp-width"),
        (["defense", "--epsilon", "8"], "epsilon is 8.0, expected in [0, 1]"),
        (["defense", "--step-size", "0"], "step_size is 0.0, expected above 0"),
        (["plain", "--variant", "mean-field"], "source is a ResNet32, expected a Defense"),
        (["defense", "--deterministic", "--ensemble", "5"], "draws is 5, expected 1 where masks are fixed"),
        (["defense", "--deterministic", "--variant", "ensemble"], "makes no sense where masks are fixed"),
        (["defense", "--source", "nowhere"], "unknown name 'nowhere'"),
        (["defense", "--mode", "selection", "--momentum", "1"], "momentum is 1.0, expected in [0, 1)"),
        (["defense", "--mode", "selection", "--selection-width", "0"], "selection_width is 0.0, expected above 0"),
        (["defense", "--attack", "apgd", "--momentum", "0.5"], "--momentum is given, which no attack uses"),
        (["defense", "--attack", "apgd", "--momentum", "0"], "--momentum is given, which no attack uses"),
        (["defense", "--attack", "fgsm", "--steps", "2"], "no attack uses, expected --attack pgd, apgd"),
        (["defense", "--attack", "square", "--loss", "margin"], "no attack uses, expected --attack pgd, fgsm, r-fgsm"),
        (["defense", "--attack", "square", "--source", "other"], "--source is given, which no attack uses"),
        (["defense", "--attack", "own:attack", "--targeted"], "--targeted is given, which no attack uses"),
        (["defense", "--images", "no.safetensors", "--random-start"], "--random-start is given, which no attack uses"),
        (["defense", "--queries", "5"], "--queries is given, which no attack uses, expected --attack square"),
        (["nowhere:model"], "there is no module 'nowhere'"),
        (["defense", "--device", "warp"], "device is 'warp'"),
        (["defense", "--images", "no.safetensors"], "no.safetensors is missing"),
        (
            ["defense", "--images", "no.safetensors", "--epsilon", "0.1", "--epsilon", "0.2"],
            "epsilon has 2 values, expected one with images",
        ),
        (["defense", "--mode", "w-aiga", "--mode", "w-aiga"], "attacks are named clean, W-AIGA, W-AIGA"),
    ],
)
def test_mistakes_end_with_one_line_before_any_work(
    arguments: list[str], message: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models)
    output = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["neuroae", "attack", *arguments, "--dataset", "digits", "--output", str(output)])
    with pytest.raises(SystemExit) as ended:
        main()
    text = str(ended.value)
    assert text.startswith("neuroae: ")
    assert message in text
    assert len(text.splitlines()) == 1
    assert not output.exists()


OWN = """
import torch
from torch import nn

def images():
    torch.manual_seed(0)
    return torch.rand(5, 1, 8, 8), torch.arange(5)

def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval()

def brighter(model, images, labels, epsilon):
    return (images + epsilon).clamp(0, 1)

def too_far(model, images, labels, epsilon):
    return 1 - images
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the current folder with a model, images and attacks of a user's."""
    (tmp_path / "own_parts.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    return "own_parts"


def test_images_and_attacks_of_the_users_own(own: str, tmp_path: Path) -> None:
    options = ["--dataset", f"{own}:images", "--attack", f"{own}:brighter", "--attack", "pgd", "--targeted"]
    results = attacked(f"{own}:model", *options, "--epsilon", "8/255", output=tmp_path / "out")
    assert list(results.records) == ["clean", "PGD, targeted", f"{own}:brighter"]
    assert results.manifest["identity"]["data"]["images"] == 5
    assert results.attack("PGD, targeted")["targeted"]
    sizes = [record.linf for record in results.records[f"{own}:brighter"]]
    assert sizes == pytest.approx([8 / 255] * 5, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "own_parts:images"], "dataset is 'own_parts:images', which has no usual budget"),
        (["--dataset", "own_parts:images", "--epsilon", "0.1", "--hold-out", "2"], "which takes no --hold-out"),
        (["--dataset", "mnist"], "dataset is 'mnist', expected one of digits, cifar10"),
        (["--dataset", "own_parts:labels", "--epsilon", "0.1"], "module own_parts has no function 'labels'"),
        (["--dataset", "own_parts:model", "--epsilon", "0.1"], "returned a Sequential, expected images and labels"),
        (
            ["--dataset", "own_parts:images", "--epsilon", "0.1", "--attack", "own_parts:too_far"],
            "own_parts:too_far: 5 of 5 images leave the linf ball of epsilon 0.1",
        ),
        (
            ["--dataset", "own_parts:images", "--epsilon", "0.1", "--attack", "own_parts:model"],
            "own_parts:model takes no arguments, expected a function of model, images, labels, epsilon",
        ),
    ],
    ids=["no epsilon", "hold-out", "unknown", "no function", "no images", "outside of the ball", "no attack"],
)
def test_parts_of_the_users_own_that_do_not_fit(
    own: str, tmp_path: Path, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["neuroae", "attack", f"{own}:model", *options, "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match=message):
        main()


def test_several_evaluations_give_one_verdict(own: str, tmp_path: Path) -> None:
    common = ["--dataset", f"{own}:images", "--epsilon", "0.1"]
    for name, method in {"first": f"{own}:brighter", "second": "pgd"}.items():
        attacked(f"{own}:model", *common, "--attack", method, output=tmp_path / name)
    printed = neuroae("report", tmp_path / "first", tmp_path / "second", "--output", tmp_path)
    assert printed.startswith("own_parts:model keeps ")
    assert "under the worst of 2 attacks, linf perturbations of 0.1" in printed
    (verdict,) = load_json(tmp_path / "verdict.json")["verdicts"]
    assert [part["evaluation"] for part in verdict["parts"]] == ["first", "second"]
    assert verdict["accuracy"] <= min(part["accuracy"] for part in verdict["parts"])
