"""The evaluations of the paper's Tables 2 to 5 and of Figures 4 and 6, as data.

Table 2 and 5 attack defenses without one of their parts or with other settings, and other architectures. ``python -m
results queue`` trains the models that do not ship. Transfers (PW-T) are from defenses with unsupervised decoders: the
shipped ones, and in experiments of their own those without dropout or without top T, whose trainings are long. In
addition to the paper's attacks, each defense is attacked through its selection.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from neuroae import Defense
from neuroae.attacks import PGDSettings
from neuroae.attacks.settings import GradientSettings
from neuroae.evaluation import Attack, attacks_from
from neuroae.evaluation.attack import Perturbation
from results.experiment import CRAFTING, Experiment, selection_attack

WHITE_BOX = ("w-nfga-smooth", "w-aiga")
NUM_ABLATION, NUM_TABLE3, NUM_IMAGENETTE, NUM_PAPERS_IMAGENETTE, NUM_FIGURES = 500, 1000, 500, 100, 200
WORST_CASE_STEPS = 100
BUDGETS = (2, 4, 8)


def draws(model: nn.Module) -> bool | None:
    """Returns whether a model draws: a defense with dropout does; None for models whose type decides."""
    return model.encoder.dropout_p > 0 if isinstance(model, Defense) else None


def papers_attacks(
    source: nn.Module, settings: GradientSettings, transfer: str = "", modes: Sequence[str] = WHITE_BOX
) -> list[Attack]:
    """Returns W-NFGA and W-AIGA on a defense, or PGD on another model; one realization for what draws nothing."""
    precision = CRAFTING if isinstance(source, Defense) else "float32"
    return attacks_from(source, settings, modes, precision, transfer, random=draws(source))


def transfers(**sources: Defense) -> list[Attack]:
    """Returns PW-T from each source, by W-NFGA and by W-AIGA."""
    attacks = []
    for role, source in sources.items():
        attacks += papers_attacks(source, PGDSettings(), role.removesuffix("_us").replace("_", " "))
    return attacks


def selection(model: Defense) -> Attack:
    """Returns the attack through the selection; with one realization if the model draws nothing."""
    return selection_attack(model, "selection", **({} if draws(model) else {"realizations": 1}))


def white_box(model: nn.Module, modes: Sequence[str] = WHITE_BOX) -> list[Attack]:
    """Returns the paper's white-box attacks, and for a defense the attack through its selection."""
    attacks = papers_attacks(model, PGDSettings(), modes=modes)
    return [*attacks, selection(model)] if isinstance(model, Defense) else attacks


def ablation(model: Defense, unsupervised: Defense, unquantized: Defense) -> Sequence[Perturbation]:
    """Returns the attacks of a row of Table 2: white box, and PW-T from the shipped unsupervised defenses."""
    return white_box(model) + transfers(unsupervised=unsupervised, unquantized=unquantized)


def twins(model: Defense, no_dropout_us: Defense, no_top_t_us: Defense) -> Sequence[Perturbation]:
    """Returns PW-T from the unsupervised defenses without dropout and without top T, the other sources of Table 2."""
    return transfers(no_dropout_us=no_dropout_us, no_top_t_us=no_top_t_us)


def unsupervised_row(model: Defense) -> Sequence[Perturbation]:
    """Returns the attacks of the last row of Table 2.

    W-NFGA and W-AIGA on this model are the transfers from it in the other rows, which are crafted only once.
    """
    return [*transfers(unsupervised=model), selection(model)]


def variant(model: nn.Module, unsupervised: Defense, unquantized: Defense) -> Sequence[Perturbation]:
    """Returns the attacks of a row of Table 5: W-NFGA or PGD, and PW-T from the shipped unsupervised defenses."""
    return white_box(model, WHITE_BOX[:1]) + transfers(unsupervised=unsupervised, unquantized=unquantized)


def worst_cases(model: nn.Module) -> Sequence[Perturbation]:
    """Returns the attacks of a classifier in Table 3: the default one, and 100 steps with both losses.

    ``results.worst_case`` adds 49 restarts to the latter.
    """
    return [
        *attacks_from(model, PGDSettings()),
        *attacks_from(model, PGDSettings(steps=WORST_CASE_STEPS), method="PGD, 100 steps"),
        *attacks_from(model, PGDSettings(steps=WORST_CASE_STEPS, loss="margin"), method="PGD margin, 100 steps"),
    ]


def at_budgets(make: Callable[[float], Sequence[Attack]]) -> list[Attack]:
    """Returns attacks at each budget of Table 4, with the budget in their names."""
    return [
        replace(attack, name=f"{attack.name}, epsilon {size}/255") for size in BUDGETS for attack in make(size / 255)
    ]


def table4_classifier(model: nn.Module) -> Sequence[Perturbation]:
    """Returns the default attack at each budget."""
    return at_budgets(lambda epsilon: attacks_from(model, PGDSettings(epsilon=epsilon)))


def table4_selection(model: Defense) -> Sequence[Perturbation]:
    """Returns the attack through the selection at each budget, with steps in proportion."""
    step = PGDSettings().step_size / PGDSettings().epsilon
    return at_budgets(
        lambda epsilon: [selection_attack(model, "selection", epsilon=epsilon, step_size=step * epsilon)]
    )


def table4_paper(model: Defense, imagenette_us: Defense) -> Sequence[Perturbation]:
    """Returns W-NFGA and the paper's worst transfer, W-AIGA, at each budget with 10 realizations."""

    def make(epsilon: float) -> list[Attack]:
        settings = PGDSettings(epsilon=epsilon, realizations=10)
        white_box = papers_attacks(model, settings, modes=WHITE_BOX[:1])
        return white_box + papers_attacks(imagenette_us, settings, "unquantized", WHITE_BOX[1:])

    return at_budgets(make)


def figures(model: Defense, unquantized: Defense) -> Sequence[Perturbation]:
    """Returns the attacks of Figures 4 and 6, with the selection beside them."""
    return [
        *white_box(model, WHITE_BOX[:1]),
        *papers_attacks(unquantized, PGDSettings(), "unquantized", WHITE_BOX[1:]),
    ]


def shared(summary: str, make: Callable[..., Sequence[Perturbation]], attacked: str) -> Experiment:
    """Returns an experiment of Table 2 or 5, which shares transferred images with the others."""
    return Experiment(summary, make, NUM_ABLATION, attacked, shares_transfers=True)


def on_imagenette(
    summary: str, make: Callable[..., Sequence[Perturbation]], num_images: int, attacked: str, block: int = 20
) -> Experiment:
    return Experiment(summary, make, num_images, attacked, block, dataset="imagenette")


PAPER_EXPERIMENTS = {
    "table2-complete": shared("Table 2: the complete defense.", ablation, "complete"),
    "table2-no-quantization": shared("Table 2: without activation/quantization.", ablation, "no_quantization"),
    "table2-no-dropout": shared("Table 2: without dropout.", ablation, "no_dropout"),
    "table2-no-top-t": shared("Table 2: without top T.", ablation, "no_top_t"),
    "table2-complete-us": shared("Table 2, other sources: the complete defense.", twins, "complete"),
    "table2-no-quantization-us": shared("Table 2, other sources: without quantization.", twins, "no_quantization"),
    "table2-no-dropout-us": shared("Table 2, other sources: without dropout.", twins, "no_dropout"),
    "table2-no-top-t-us": shared("Table 2, other sources: without top T.", twins, "no_top_t"),
    "table2-unsupervised": shared("Table 2: with an unsupervised decoder.", unsupervised_row, "unsupervised"),
    "table3-r-fgsm": Experiment(
        "Table 3: the published R+FGSM classifier.", worst_cases, NUM_TABLE3, "published_r_fgsm"
    ),
    "table3-trades": Experiment(
        "Table 3: the published TRADES classifier.", worst_cases, NUM_TABLE3, "published_trades"
    ),
    "table3-our-r-fgsm": Experiment("Table 3: R+FGSM at a reduced schedule.", worst_cases, NUM_TABLE3, "r_fgsm"),
    "table4-undefended": on_imagenette(
        "Table 4: the undefended EfficientNet-B0.", table4_classifier, NUM_IMAGENETTE, "imagenette_undefended"
    ),
    "table4-r-fgsm": on_imagenette(
        "Table 4: R+FGSM at a reduced schedule.", table4_classifier, NUM_IMAGENETTE, "imagenette_r_fgsm"
    ),
    "table4-selection": on_imagenette(
        "Table 4: the selection on the defense.", table4_selection, NUM_IMAGENETTE, "imagenette"
    ),
    "table4-paper": on_imagenette(
        "Table 4: W-NFGA and PW-T on the defense.", table4_paper, NUM_PAPERS_IMAGENETTE, "imagenette"
    ),
    "table5-t1-p0": shared("Table 5: T 1 without dropout.", variant, "t1_p0"),
    "table5-t5-p0.5": shared("Table 5: T 5, p 0.5.", variant, "t5_p05"),
    "table5-t10-p0.75": shared("Table 5: T 10, p 0.75.", variant, "t10_p075"),
    "table5-k-sparse": shared("Table 5: the k-sparse autoencoder.", variant, "k_sparse"),
    "table5-dropout": shared("Table 5: the published classifier with dropout.", variant, "published_dropout"),
    "table5-blur": shared("Table 5: the published classifier behind a blur.", variant, "published_blur"),
    "figures": Experiment("The attacks of Figures 4 and 6.", figures, NUM_FIGURES),
}
