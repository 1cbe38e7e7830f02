"""Our dictionary beside the published one (paper, Figures 2 and 5): ``python -m results.dictionary --help``.

Both are for CIFAR-10, and measured on the same patches of its test images.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from neuroae.data import load_dataset
from neuroae.dictionary import Patches, load_dictionary, random_patches
from neuroae.dictionary.measures import Mean, SparseFit, activations, correlations, l1_norms, near_copies, sparse_fit
from neuroae.models.folders import WEIGHTS, find
from neuroae.models.presets import PRESETS
from neuroae.nn.classifiers import ResNet32
from neuroae.reports.pictures import draw_atoms, draw_histograms
from neuroae.utils.files import load_tensors, replacing, save_json
from neuroae.utils.markdown import table
from neuroae.utils.randomness import derive_seed
from neuroae.utils.versions import versions
from results.command import run

REGULARIZATION = PRESETS["cifar10"].regularization
SHOWN = 10
OURS, PUBLISHED = "ours", "published"
PAGE = """\
# Our CIFAR-10 dictionary beside the published one

{table}

Measured on {patches:,} patches of the {data[images]:,} images of {data[name]}, drawn by seed {seed}; lambda is
{regularization:g} and every atom has unit l2 norm. What has a standard error is a mean over patches; the error is
taken over images, because patches of one image are alike. Correlations are those of eq. 6, activations those of eq. 7,
of the filters at every place inside the patch, as the classifier normalizes it.

`results.json` holds the numbers in full, the largest duality gap, which bounds what is left to gain in eq. 1 by other
codes, the files' digests, how ours was learned, and the versions. All of it was made by
`python -m results.dictionary --data-dir DIR --dictionary FILE --reference FILE --classifier FOLDER`; without a
classifier there are no activations.

## Figure 2: the patch of median l2 norm

![One patch with the histograms of its numbers](figure2.png)

## Figure 5: ten random patches

![Ten patches with the histograms of their numbers](figure5.png)

## Our atoms

![All atoms in a grid, from the largest l1 norm to the smallest](atoms.png)
"""


@dataclass(frozen=True)
class Measures:
    """Of one dictionary; each ``Mean`` is over patches.

    Attributes:
        objective: of eq. 1.
        gap: by how much a patch's objective may exceed its minimum, at most.
        nonzeros: coefficients that are not zero.
        correlation: magnitude of the normalized correlations with the atoms, eq. 6.
        l1_least, l1_mean, l1_greatest: of the atoms' l1 norms.
        unused: atoms in the code of no patch.
        copies: atoms whose cosine with another is at least 0.999 in magnitude.
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
        measures: of each, by its name.
        difference: objective of ours minus that of the published one, patch by patch.
        activation: magnitude of the normalized activations of a classifier's first layer, eq. 7.
    """

    measures: dict[str, Measures]
    difference: Mean
    activation: Mean | None

    @classmethod
    def of(cls, atoms: Mapping[str, Tensor], patches: Patches, gammas: np.ndarray | None) -> "Comparison":
        fits = {name: sparse_fit(some, patches.values, REGULARIZATION) for name, some in atoms.items()}
        return cls(
            {name: Measures.of(some, patches, fits[name]) for name, some in atoms.items()},
            Mean.of(fits[OURS].objective - fits[PUBLISHED].objective, patches.image),
            None if gammas is None else Mean.of(np.abs(gammas).mean(1), patches.image),
        )

    def markdown(self) -> str:
        def row(what: str, shown: Callable[[Measures], str]) -> tuple[str, ...]:
            return (what, *(shown(self.measures[name]) for name in (OURS, PUBLISHED)))

        percent = 100 / self.measures[PUBLISHED].objective.value
        rows = [
            row("value of eq. 1", lambda own: plus_minus(own.objective, 3)),
            ("ours minus published", plus_minus(self.difference, 4), ""),
            ("the same in % of published", plus_minus(self.difference, 2, percent), ""),
            row("coefficients that are not zero", lambda own: plus_minus(own.nonzeros, 2)),
            row("magnitude of correlations", lambda own: plus_minus(own.correlation, 3)),
            row("least l1 norm of an atom", lambda own: f"{own.l1_least:.2f}"),
            row("mean l1 norm", lambda own: f"{own.l1_mean:.2f}"),
            row("greatest l1 norm", lambda own: f"{own.l1_greatest:.2f}"),
            row("atoms in the code of no patch", lambda own: f"{own.unused}"),
            row("atoms with a near copy (cosine 0.999)", lambda own: f"{own.copies}"),
        ]
        if self.activation:
            rows.append(("magnitude of the ResNet-32's activations", plus_minus(self.activation, 3), ""))
        return table(("measure", OURS, PUBLISHED), rows)


def plus_minus(mean: Mean, digits: int, scale: float = 1.0) -> str:
    return f"{scale * mean.value:.{digits}f} ± {scale * mean.error:.{digits}f}"


def require_one_shape(atoms: Mapping[str, Tensor], channels: int) -> int:
    """The side of the patches that both dictionaries are for."""
    shapes = {name: tuple(some.shape[1:]) for name, some in atoms.items()}
    if shapes[OURS] != shapes[PUBLISHED] or shapes[OURS][0] != channels:
        raise ValueError(
            f"dictionary and reference have atoms of {shapes[OURS]} and {shapes[PUBLISHED]}, "
            f"expected one shape, of {channels} channels"
        )
    return shapes[OURS][1]


def described(path: Path) -> dict[str, Any]:
    """A safetensors file's name, digest, and what its metadata say."""
    return {
        "name": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "metadata": load_tensors(path)[1],
    }


def draw_figures(folder: Path, patches: Tensor, panels: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Figure 2, of the patch whose l2 norm is the median, and Figure 5, of the first ten."""
    typical = int(patches.square().sum((1, 2, 3)).argsort()[len(patches) // 2])
    for name, chosen in {"figure2.png": [typical], "figure5.png": list(range(SHOWN))}.items():
        own = {
            title: {who: values[chosen] for who, values in histograms.items()} for title, histograms in panels.items()
        }
        draw_histograms(folder / name, patches[chosen], own)


def main(
    data_dir: Annotated[Path, typer.Option(help="Where CIFAR-10 lies.")],
    dictionary: Annotated[Path, typer.Option(help="Ours: what `neuroae dictionary --dataset cifar10` wrote.")],
    reference: Annotated[Path, typer.Option(help="The published one, as safetensors.")],
    classifier: Annotated[
        Path | None, typer.Option(help="Folder of an undefended ResNet-32.", show_default="no activations")
    ] = None,
    patches: Annotated[int, typer.Option(min=SHOWN, help="Drawn from the test images.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the patches.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for the numbers and pictures.")] = Path("results/dictionary"),
) -> None:
    """Measure two dictionaries on patches of the CIFAR-10 test images."""
    atoms = {OURS: load_dictionary(dictionary), PUBLISHED: load_dictionary(reference)}
    model = ResNet32.from_pretrained(classifier) if classifier else None
    data = load_dataset("cifar10", "test", data_dir)
    channels = data.images.shape[1]
    side = require_one_shape(atoms, channels)
    drawn = random_patches(data, side, patches, np.random.default_rng(derive_seed(seed, "dictionary results")))
    gammas = activations(model, drawn.values) if model else None
    found = Comparison.of(atoms, drawn, gammas)
    summary = {
        "data": {"name": data.name, "images": len(data), "fingerprint": data.fingerprint()},
        "patches": patches,
        "seed": seed,
        "regularization": REGULARIZATION,
        "found": asdict(found),
        "files": {OURS: described(dictionary), PUBLISHED: described(reference)},
        "classifier": described(find(classifier) / WEIGHTS) if classifier else None,
        "versions": versions(),
    }
    save_json(output / "results.json", summary)
    panels = {"correlations with atoms": {name: correlations(some, drawn.values) for name, some in atoms.items()}}
    if gammas is not None:
        panels["activations of the first layer"] = {"ResNet-32": gammas}
    draw_figures(output, torch.from_numpy(drawn.values).reshape(-1, channels, side, side), panels)
    draw_atoms(output / "atoms.png", atoms[OURS])
    with replacing(output / "README.md") as temporary:
        temporary.write_text(PAGE.format(table=found.markdown(), **summary), encoding="utf-8")
    print(found.markdown())


if __name__ == "__main__":
    run(main)
