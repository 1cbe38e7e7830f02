"""Corrupted patches (paper, Figure 4): patches of an attacked image with coefficients that the clean image lacks.

It reads the images that evaluations saved, and follows section 8.5.
"""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from neuroae import Defense, SparseEncoder
from neuroae.data import ImageSet
from neuroae.evaluation import load_evaluation
from neuroae.utils.markdown import table
from neuroae.utils.progress import progress_bar
from results.inputs import attack_names, attacks_to_draw, cifar10_test, evaluated_images, require_evaluated_model
from results.options import OUTPUT, DataDir, Evaluations, Model, Output
from results.outputs import provenance, provenance_line, save_figure, write_results

BLOCK = 64
BINS = 40
NOTE = """\
A patch is corrupted where a coefficient survives dropout whose atom is not among the top T of the clean patch (section
8.5). The share is the expectation over dropout; its mean and standard error are over images.

![Histograms of the share over images](figure4.png)

Made by `python -m results corruption --data-dir DIR --evaluation FOLDER ...`; `results.json` holds the numbers in
full."""


def corruption(evaluations: Evaluations, data_dir: DataDir, model: Model = "cifar10", output: Output = OUTPUT) -> None:
    """Figure 4: corrupted patches under each attack."""
    defense = Defense.from_pretrained(model)
    shares: dict[str, Tensor] = {}
    pictured: list[str] = []
    for folder in evaluations:
        results = load_evaluation(folder)
        require_evaluated_model(results, defense)
        data = evaluated_images(results, cifar10_test(data_dir))
        for name in attack_names(results):
            shares[name] = corrupted_shares(defense.encoder, data, results.images(name), name)
        pictured += attacks_to_draw(results)
    summary: dict[str, Any] = {
        name: {
            "mean": float(values.mean()),
            "standard_error": float(values.std() / len(values) ** 0.5),
            "images": len(values),
        }
        for name, values in shares.items()
    }
    origin = provenance(model, defense, data)
    rows = [
        (name, f"{row['mean']:.1%}", f"{row['standard_error']:.1%}", f"{row['images']:,}")
        for name, row in summary.items()
    ]
    text = table(("attack", "expected share of corrupted patches", "standard error", "images"), rows)
    folder = output / "corruption"
    save_figure(folder / "figure4.png", histograms({name: shares[name] for name in dict.fromkeys(pictured)}))
    write_results(
        folder, "Figure 4: corrupted patches", [text, NOTE, provenance_line(origin)], origin | {"attacks": summary}
    )


@torch.no_grad()
def corrupted_patches(encoder: SparseEncoder, clean: Tensor, attacked: Tensor) -> Tensor:
    """Returns the expected share of corrupted patches, z = 1 - sum over j of q(j) p^j (section 8.5), (B,) float64.

    q(j) is the share of an image's patches with j atoms in the top T that are not in the clean patch's top T. Such a
    patch is corrupted unless all j atoms are dropped.

    Args:
        encoder: The encoder, with its dictionary, T and p.
        clean, attacked: (B, C, H, W) float32 in [0, 1].
    """
    before, after = encoder.select(clean).atom.long(), encoder.select(attacked).atom.long()
    rows = before.flatten(0, 2)
    is_selected = torch.zeros(len(rows), encoder.atoms.shape[0], dtype=torch.bool, device=rows.device)
    is_selected.scatter_(1, rows, True)
    newcomers = (~is_selected.gather(1, after.flatten(0, 2))).sum(1).unflatten(0, before.shape[:3])
    return 1 - (encoder.dropout_p ** newcomers.double()).mean((1, 2))


def corrupted_shares(encoder: SparseEncoder, data: ImageSet, attacked: Tensor, name: str) -> Tensor:
    """Returns the share of every image, (N,) float64. ``name`` is shown with the progress."""
    shares = []
    with progress_bar(total=len(data), desc=name, unit="img") as progress:
        for start in range(0, len(data), BLOCK):
            part = slice(start, start + BLOCK)
            shares.append(corrupted_patches(encoder, data.take(part).pixels(), attacked[part]))
            progress.update(len(shares[-1]))
    return torch.cat(shares)


def histograms(shares: dict[str, Tensor]) -> Figure:
    """Draws a histogram for each attack, as outlines that do not hide each other."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    for name, values in shares.items():
        weights = torch.full((len(values),), 1 / len(values)).numpy()
        axis.hist(values.numpy(), bins=BINS, range=(0, 1), weights=weights, histtype="step", linewidth=1.5, label=name)
    axis.set_xlabel("expected share of corrupted patches")
    axis.set_ylabel("share of images")
    axis.legend()
    return figure
