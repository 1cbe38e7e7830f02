"""Our CIFAR-10 dictionary beside the published one (paper, Figures 2 and 5), on the same patches of test images."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from neuroae.dictionary import Patches, load_dictionary, random_patches
from neuroae.dictionary.measures import Mean, SparseFit, activations, correlations, l1_norms, near_copies, sparse_fit
from neuroae.models.folders import WEIGHTS, find_folder
from neuroae.models.presets import PRESETS
from neuroae.nn.classifiers import ResNet32
from neuroae.reports.pictures import draw_atoms, draw_histograms
from neuroae.utils.files import load_tensors
from neuroae.utils.markdown import table
from neuroae.utils.randomness import derive_seed
from neuroae.utils.versions import versions
from results.inputs import cifar10_test, file_digest
from results.options import OUTPUT, DataDir, Output
from results.outputs import write_results

REGULARIZATION = PRESETS["cifar10"].regularization
NUM_EXAMPLES = 10
OURS, PUBLISHED = "ours", "published"
NOTE = """\
Measured on {patches:,} patches of the {data[images]:,} images of {data[name]}, drawn by seed {seed}; lambda is
{regularization:g} and every atom has unit l2 norm. A number with a standard error is a mean over patches; the error is
taken over images, because patches of one image are alike. Correlations are those of eq. 6, activations those of eq. 7,
of the filters at every place inside the patch, as the classifier normalizes it.

`results.json` holds the numbers in full, the largest duality gap, which bounds what other codes could still gain in
eq. 1, the files' digests, how ours was learned, and the versions. Made by
`python -m results dictionary --data-dir DIR --dictionary FILE --reference FILE --classifier FOLDER`; without a
classifier there are no activations.

## Figure 2: the patch of median l2 norm

![One patch with the histograms of its numbers](figure2.png)

## Figure 5: ten random patches

![Ten patches with the histograms of their numbers](figure5.png)

## Our atoms

![All atoms in a grid, from the largest l1 norm to the smallest](atoms.png)"""


def dictionary(
    data_dir: DataDir,
    dictionary: Annotated[Path, typer.Option(help="Ours: what `neuroae dictionary --dataset cifar10` wrote.")],
    reference: Annotated[Path, typer.Option(help="The published one, as safetensors.")],
    classifier: Annotated[
        Path | None, typer.Option(help="An undefended ResNet-32.", show_default="no activations")
    ] = None,
    patches: Annotated[int, typer.Option(min=NUM_EXAMPLES, help="Patches drawn from the test images.")] = 10_000,
    seed: Annotated[int, typer.Option(help="The seed of the patches.")] = 0,
    output: Output = OUTPUT,
) -> None:
    """Figures 2 and 5: our dictionary and the paper's."""
    atoms = {OURS: load_dictionary(dictionary), PUBLISHED: load_dictionary(reference)}
    model = ResNet32.from_pretrained(classifier) if classifier else None
    data = cifar10_test(data_dir)
    channels = data.images.shape[1]
    side = require_one_shape(atoms, channels)
    sample = random_patches(data, side, patches, np.random.default_rng(derive_seed(seed, "dictionary results")))
    gammas = activations(model, sample.values) if model else None
    comparison = Comparison.of(atoms, sample, gammas)
    summary = {
        "data": {"name": data.name, "images": len(data), "fingerprint": data.fingerprint()},
        "patches": patches,
        "seed": seed,
        "regularization": REGULARIZATION,
        "found": asdict(comparison),
        "files": {OURS: describe_file(dictionary), PUBLISHED: describe_file(reference)},
        "classifier": describe_file(find_folder(classifier) / WEIGHTS) if classifier else None,
        "versions": versions(),
    }
    panels = {"correlations with atoms": {name: correlations(each, sample.values) for name, each in atoms.items()}}
    if gammas is not None:
        panels["activations of the first layer"] = {"ResNet-32": gammas}
    folder = output / "dictionary"
    draw_figures(folder, torch.from_numpy(sample.values).reshape(-1, channels, side, side), panels)
    draw_atoms(folder / "atoms.png", atoms[OURS])
    write_results(
        folder,
        "Our CIFAR-10 dictionary beside the published one",
        [comparison.markdown(), NOTE.format(**summary)],
        summary,
    )


@dataclass(frozen=True)
class Measures:
    """The measures of one dictionary; each ``Mean`` is over patches.

    Attributes:
        objective: The objective of eq. 1.
        gap: The largest duality gap of a patch, which bounds how far its objective is above the minimum.
        nonzeros: The number of coefficients that are not zero.
        correlation: The magnitude of the normalized correlations with the atoms, eq. 6.
        l1_least, l1_mean, l1_greatest: The least, the mean and the greatest of the atoms' l1 norms.
        unused: The number of atoms that no patch's code uses.
        copies: The number of atoms whose cosine with another is at least 0.999 in magnitude.
    """

    objective: Mean
    gap: float
    nonzeros: Mean
    correlation: Mean
    l1_least: float
    l1_mean: float
    l1_greatest: float
    unused: int
    copies: int

    @classmethod
    def of(cls, atoms: Tensor, patches: Patches, fit: SparseFit) -> "Measures":
        norms = l1_norms(atoms)
        return cls(
            objective=Mean.of(fit.objective, patches.image),
            gap=float(fit.gap.max()),
            nonzeros=Mean.of(fit.nonzeros, patches.image),
            correlation=Mean.of(np.abs(correlations(atoms, patches.values)).mean(1), patches.image),
            l1_least=float(norms.min()),
            l1_mean=float(norms.mean()),
            l1_greatest=float(norms.max()),
            unused=int((fit.uses == 0).sum()),
            copies=near_copies(atoms),
        )


@dataclass(frozen=True)
class Comparison:
    """Two dictionaries on the same patches.

    Attributes:
        measures: The measures of each dictionary, by its name.
        difference: The objective of ours minus that of the published one, patch by patch.
        activation: The magnitude of the normalized activations of a classifier's first layer, eq. 7.
    """

    measures: dict[str, Measures]
    difference: Mean
    activation: Mean | None

    @classmethod
    def of(cls, atoms: Mapping[str, Tensor], patches: Patches, gammas: np.ndarray | None) -> "Comparison":
        fits = {name: sparse_fit(each, patches.values, REGULARIZATION) for name, each in atoms.items()}
        return cls(
            {name: Measures.of(each, patches, fits[name]) for name, each in atoms.items()},
            Mean.of(fits[OURS].objective - fits[PUBLISHED].objective, patches.image),
            None if gammas is None else Mean.of(np.abs(gammas).mean(1), patches.image),
        )

    def markdown(self) -> str:
        def row(title: str, cell: Callable[[Measures], str]) -> tuple[str, ...]:
            return (title, *(cell(self.measures[name]) for name in (OURS, PUBLISHED)))

        percent = 100 / self.measures[PUBLISHED].objective.value
        rows = [
            row("value of eq. 1", lambda each: plus_minus(each.objective, 3)),
            ("ours minus published", plus_minus(self.difference, 4), ""),
            ("the same in % of published", plus_minus(self.difference, 2, percent), ""),
            row("coefficients that are not zero", lambda each: plus_minus(each.nonzeros, 2)),
            row("magnitude of correlations", lambda each: plus_minus(each.correlation, 3)),
            row("least l1 norm of an atom", lambda each: f"{each.l1_least:.2f}"),
            row("mean l1 norm", lambda each: f"{each.l1_mean:.2f}"),
            row("greatest l1 norm", lambda each: f"{each.l1_greatest:.2f}"),
            row("atoms in the code of no patch", lambda each: f"{each.unused}"),
            row("atoms with a near copy (cosine 0.999)", lambda each: f"{each.copies}"),
        ]
        if self.activation:
            rows.append(("magnitude of the ResNet-32's activations", plus_minus(self.activation, 3), ""))
        return table(("measure", OURS, PUBLISHED), rows)


def plus_minus(mean: Mean, digits: int, scale: float = 1.0) -> str:
    """Returns a mean and its standard error as text."""
    return f"{scale * mean.value:.{digits}f} ± {scale * mean.error:.{digits}f}"


def require_one_shape(atoms: Mapping[str, Tensor], channels: int) -> int:
    """Returns the side of the patches of both dictionaries.

    Raises:
        ValueError: The dictionaries have patches of different shapes, or of another number of channels.
    """
    shapes = {name: tuple(each.shape[1:]) for name, each in atoms.items()}
    if shapes[OURS] != shapes[PUBLISHED] or shapes[OURS][0] != channels:
        raise ValueError(
            f"dictionary and reference have atoms of {shapes[OURS]} and {shapes[PUBLISHED]}, "
            f"expected one shape, of {channels} channels"
        )
    return shapes[OURS][1]


def describe_file(path: Path) -> dict[str, Any]:
    """Returns a safetensors file's name, digest and metadata."""
    return file_digest(path) | {"metadata": load_tensors(path)[1]}


def draw_figures(folder: Path, patches: Tensor, panels: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Draws Figure 2, of the patch whose l2 norm is the median, and Figure 5, of the first ten patches."""
    typical = int(patches.square().sum((1, 2, 3)).argsort()[len(patches) // 2])
    for name, numbers in {"figure2.png": [typical], "figure5.png": list(range(NUM_EXAMPLES))}.items():
        histograms = {
            title: {source: values[numbers] for source, values in panel.items()} for title, panel in panels.items()
        }
        draw_histograms(folder / name, patches[numbers], histograms)
