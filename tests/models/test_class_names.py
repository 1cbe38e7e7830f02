"""Class names: folders keep them, and the labels of images are matched by them."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from neuroae import resnet32
from neuroae.cli import app
from neuroae.cli.runs import Start
from neuroae.data import ImageSet
from neuroae.evaluation import Results, load_evaluation
from neuroae.models import load_pretrained, pretrained_classes
from neuroae.utils.files import load_json, save_json
from photos import write_image

NAMES = ("cat", "dog", "eel")


def save_model(folder: Path, classes: Sequence[str] | None = NAMES) -> Path:
    """Saves a classifier that predicts eel, class 2, for every image."""
    model = resnet32(3, 3, (0.5,) * 3, (0.25,) * 3).eval()
    torch.nn.init.zeros_(model.linear.weight)
    model.linear.bias.data = torch.tensor([0.0, 0.0, 1.0])
    model.save_pretrained(folder, {} if classes is None else {"classes": list(classes)})
    return folder


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Writes images of dogs and eels, and returns their folder."""
    pytest.importorskip("torchvision")
    monkeypatch.setenv("NEUROAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("neuroae.evaluation.run.probe_evaluation", lambda *_: None)
    for split, name, number in ((s, n, k) for s in ("train", "test") for n in ("dog", "eel") for k in range(2)):
        write_image(tmp_path / "photos" / split / name / f"{number}.png", number)
    return tmp_path / "photos"


def neuroae(*arguments: object) -> None:
    CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


def attack(model: Path, photos: Path, *options: object) -> Results:
    data = ["--dataset", "image-folder", "--data-dir", photos, "--image-size", 8]
    neuroae("attack", model, *data, "--steps", 1, "--output", photos.parent / "out", *options)
    return load_evaluation(photos.parent / "out")


def test_images_of_some_of_the_classes_are_matched_by_name(photos: Path, tmp_path: Path) -> None:
    results = attack(save_model(tmp_path / "model"), photos)
    clean = results.records["clean"]
    assert [record.label for record in clean] == [1, 1, 2, 2]
    assert [record.vote == record.label for record in clean] == [False, False, True, True]
    assert results.manifest["classes"] == list(NAMES)


def test_a_class_that_the_model_does_not_have_is_refused_by_name(photos: Path, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", ("cat", "dog", "bear"))
    with pytest.raises(ValueError, match=r"has the classes eel, expected some of cat, dog, bear, which .*model"):
        attack(model, photos)
    assert not (tmp_path / "out").exists()


def test_a_source_with_other_classes_is_refused(photos: Path, tmp_path: Path) -> None:
    model, other = save_model(tmp_path / "model"), save_model(tmp_path / "other", ("eel", "dog", "cat"))
    with pytest.raises(
        ValueError, match=r"other has the classes eel, dog, cat, expected cat, dog, eel as .*model has"
    ):
        attack(model, photos, "--source", other)


def test_a_model_without_names_uses_labels_unchanged(photos: Path, tmp_path: Path) -> None:
    results = attack(save_model(tmp_path / "model", None), photos)
    assert [record.label for record in results.records["clean"]] == [0, 0, 1, 1]


def images(*classes: str) -> ImageSet:
    labels = torch.arange(len(classes)).repeat(2)
    return ImageSet("some", torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8), labels, labels, classes)


def test_labels_follow_the_order_of_the_classes() -> None:
    matched = images("eel", "cat").in_classes(NAMES)
    assert (matched.labels.tolist(), matched.classes) == ([2, 0, 2, 0], NAMES)
    assert images(*NAMES).in_classes(list(NAMES)).labels.tolist() == [0, 1, 2] * 2


def test_training_saves_the_names(photos: Path, tmp_path: Path) -> None:
    data = ["--dataset", "image-folder", "--data-dir", photos, "--image-size", 8]
    neuroae("train", *data, "--method", "plain", "--epochs", 1, "--output", tmp_path / "trained")
    assert load_pretrained(tmp_path / "trained")[1]["classes"] == ["dog", "eel"]
    assert pretrained_classes(tmp_path / "trained") == ("dog", "eel")
    assert "| classes | dog, eel |" in " ".join((tmp_path / "trained/README.md").read_text().split())


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("cat", r"notes\.classes is 'cat', expected a list of names"),
        (["cat", 1, "eel"], r"notes\.classes is .*expected a list of names"),
        (["cat", "dog"], r"notes\.classes holds cat, dog, expected 3 different names"),
        (["cat", "dog", "dog"], r"notes\.classes holds cat, dog, dog, expected 3 different names"),
    ],
    ids=["text", "a number", "too few", "twice"],
)
def test_invalid_names_are_refused(tmp_path: Path, classes: object, message: str) -> None:
    save_model(tmp_path)
    config = load_json(tmp_path / "config.json")
    save_json(tmp_path / "config.json", config | {"notes": {"classes": classes}})
    with pytest.raises(ValueError, match=rf"config\.json.*{message}"):
        pretrained_classes(tmp_path)
    with pytest.raises(ValueError, match=message):
        resnet32(3, 3, (0.5,) * 3, (0.25,) * 3).save_pretrained(tmp_path / "new", {"classes": classes})


def test_a_start_with_other_classes_is_a_warning(tmp_path: Path) -> None:
    start = Start.load(str(save_model(tmp_path)))
    with pytest.warns(UserWarning, match="init was trained on the classes cat, dog, eel, and some has dog, eel, fox"):
        start.compare_classes(images("dog", "eel", "fox"))


@pytest.mark.filterwarnings("error")
def test_a_start_with_the_same_classes_or_without_names_is_no_warning(tmp_path: Path) -> None:
    Start.load(str(save_model(tmp_path))).compare_classes(images(*NAMES))
    Start.load(str(save_model(tmp_path, None))).compare_classes(images("dog", "eel", "fox"))
