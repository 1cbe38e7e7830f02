"""The comparison of two dictionaries, on noise instead of CIFAR-10."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import sparse_encode
from torch import Tensor

import results
from dictionaries import unit_atoms
from neuroae import resnet32
from neuroae.data import load_dataset
from neuroae.dictionary import load_dictionary, random_patches, save_dictionary
from neuroae.dictionary.measures import activations, correlations
from neuroae.utils.files import load_json
from neuroae.utils.randomness import derive_seed
from results_data import cifar10_folder, run

PATCHES = 40
DICTIONARIES = {"ours": "dictionary", "published": "reference"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Noise as data, two random dictionaries, and an untrained classifier: the options and their files."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("inputs")
    files = {
        "data-dir": cifar10_folder(folder / "data"),
        "dictionary": folder / "ours.safetensors",
        "reference": folder / "published.safetensors",
        "classifier": folder / "classifier",
    }
    save_dictionary(files["dictionary"], unit_atoms(80, 3, 4), {"seed": 7})
    save_dictionary(files["reference"], unit_atoms(20, 3, 4))
    resnet32().save_pretrained(files["classifier"])
    return files


@pytest.fixture(scope="module")
def patches(inputs: dict[str, Path]) -> np.ndarray:
    """Returns the measured patches, (PATCHES, 48)."""
    data = load_dataset("cifar10", "test", inputs["data-dir"])
    return random_patches(data, 4, PATCHES, np.random.default_rng(derive_seed(0, "dictionary results"))).values


@pytest.fixture(scope="module")
def outputs(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Returns the written folder and the printed text."""
    output = tmp_path_factory.mktemp("written")
    return output / "dictionary", compare(inputs, output)


def compare(files: Mapping[str, Path], output: Path) -> str:
    options = [text for name, path in (*files.items(), ("output", output)) for text in (f"--{name}", path)]
    return run("dictionary", *options, "--patches", PATCHES).stdout


def test_numbers_are_those_of_the_same_patches(
    inputs: dict[str, Path], patches: np.ndarray, outputs: tuple[Path, str]
) -> None:
    folder, printed = outputs
    summary = load_json(folder / "results.json")
    objectives = {}
    for name, option in DICTIONARIES.items():
        atoms = load_dictionary(inputs[option]).flatten(1).double().numpy()
        codes = sparse_encode(patches, atoms, algorithm="lasso_cd", alpha=1.0, max_iter=100_000)
        objectives[name] = 0.5 * ((patches - codes @ atoms) ** 2).sum(1) + abs(codes).sum(1)
        measures = summary["found"]["measures"][name]
        assert measures["objective"]["value"] == pytest.approx(objectives[name].mean(), rel=1e-5)
        assert measures["correlation"]["value"] == pytest.approx(abs(patches @ atoms.T).mean(), rel=1e-6)
        norms = abs(atoms).sum(1)
        assert measures["l1_least"] == pytest.approx(norms.min())
        assert measures["l1_mean"] == pytest.approx(norms.mean())
        assert measures["l1_greatest"] == pytest.approx(norms.max())
        assert f"{objectives[name].mean():.3f} ± " in printed
    difference = (objectives["ours"] - objectives["published"]).mean()
    assert summary["found"]["difference"]["value"] == pytest.approx(difference, rel=1e-3)
    assert f"{100 * difference / objectives['published'].mean():.2f} ± " in printed


def test_files_say_what_was_compared_on_what(inputs: dict[str, Path], outputs: tuple[Path, str]) -> None:
    folder, printed = outputs
    summary = load_json(folder / "results.json")
    assert summary["data"]["fingerprint"] == load_dataset("cifar10", "test", inputs["data-dir"]).fingerprint()
    assert summary["patches"] == PATCHES
    assert summary["files"]["ours"]["metadata"] == {"seed": 7}
    assert summary["files"]["ours"]["sha256"] != summary["files"]["published"]["sha256"]
    page = (folder / "README.md").read_text()
    assert printed.rstrip() in page
    pictures = sorted(path.name for path in folder.glob("*.png"))
    assert pictures == ["atoms.png", "figure2.png", "figure5.png"]
    for name in pictures:
        assert (folder / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert f"({name})" in page


@pytest.mark.parametrize("with_classifier", [True, False])
def test_figures_show_the_typical_patch_and_the_first_ten(
    inputs: dict[str, Path],
    patches: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    with_classifier: bool,
) -> None:
    drawn: dict[str, tuple[Tensor, Any]] = {}
    monkeypatch.setattr(
        "results.dictionary.draw_histograms", lambda path, *arguments: drawn.update({path.name: arguments})
    )
    files = inputs if with_classifier else {name: path for name, path in inputs.items() if name != "classifier"}
    printed = compare(files, tmp_path)
    norms = np.linalg.norm(patches, axis=1)
    typical = int((norms == np.sort(norms)[PATCHES // 2]).argmax())
    for name, numbers in {"figure2.png": [typical], "figure5.png": list(range(10))}.items():
        pictured, panels = drawn[name]
        np.testing.assert_array_equal(pictured.flatten(1).numpy(), patches[numbers])
        first, *others = panels.values()
        for source, option in DICTIONARIES.items():
            expected = correlations(load_dictionary(inputs[option]), patches)[numbers]
            np.testing.assert_allclose(first[source], expected)
        assert len(others) == with_classifier
        for histograms in others:
            (gammas,) = histograms.values()
            model = resnet32().from_pretrained(inputs["classifier"])
            np.testing.assert_allclose(gammas, activations(model, patches)[numbers])
    summary = load_json(tmp_path / "dictionary" / "results.json")
    assert (summary["found"]["activation"] is not None) == with_classifier
    assert (summary["classifier"] is not None) == with_classifier
    assert ("activations" in printed) == with_classifier


def test_dictionaries_of_different_patches_are_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_dictionary(other, unit_atoms(20, 3, 5))
    with pytest.raises(ValueError, match=r"atoms of \(3, 4, 4\) and \(3, 5, 5\), expected one shape, of 3 channels"):
        compare(inputs | {"reference": other}, tmp_path / "written")
    assert not (tmp_path / "written").exists()


def test_our_dictionary_is_no_worse_than_the_published_one_by_two_percent() -> None:
    """The dictionary was measured when it was learned, on the same held-out patches."""
    comparison = load_json(Path(results.__file__).parent / "dictionary" / "results.json")["found"]
    worst = comparison["difference"]["value"] + 2 * comparison["difference"]["error"]
    assert worst <= 0.02 * comparison["measures"]["published"]["objective"]["value"]
