"""The evaluations as data: those of the paper's tables, and those of attacks that the paper did not try.

A function makes each experiment's attacks. Its parameters are the models that it needs, by their role
(``inputs.SHIPPED_MODELS``). The white-box attacks W-NFGA send gradients through the surviving coefficients, and W-AIGA
takes the autoencoder for the identity. PW-T transfers both from defenses with unsupervised decoders, with and without
activation/quantization, and B-T transfers PGD from an adversarially trained classifier.

Attacks on a defense's gradients are crafted in bfloat16 unless a name says otherwise; attacks on a classifier alone
and searches are crafted in float32. Scoring is in float32 always. An evaluation continues only with the same attacks,
so names, order and settings of finished evaluations must stay.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from neuroae import Defense
from neuroae.attacks import APGDSettings, PGDSettings, SquareSettings
from neuroae.attacks.settings import GradientSettings
from neuroae.evaluation import Attack, attacks_from
from neuroae.evaluation.attack import Perturbation, Variant
from neuroae.nn.classifiers import ResNet32
from neuroae.nn.encoder import SELECTION
from results.attacks import NO_CLAMP, TRUE_CLAMP, FixedCut, StraightThrough, ablate, snapshots
from results.experiment import CRAFTING, Experiment, pw_t, selection_attack
from results.inputs import ADVERSARIAL
from results.libraries import OURS, LibraryAttack, write_crosscheck
from results.paper import PAPER_EXPERIMENTS

W_NFGA = ("w-nfga-identity", "w-nfga-smooth")
UNSUPERVISED, UNQUANTIZED = "unsupervised", "unquantized"  # as tables name the sources of PW-T


def table1(
    defense: Defense, unsupervised: Defense, unquantized: Defense, adversarial: ResNet32
) -> Sequence[Perturbation]:
    """Returns white-box attacks, PW-T and B-T at the paper's default settings."""
    settings = PGDSettings()
    return [
        *attacks_from(defense, settings, W_NFGA, CRAFTING),
        *pw_t(UNSUPERVISED, unsupervised, settings),
        *pw_t(UNQUANTIZED, unquantized, settings),
        *attacks_from(adversarial, settings, transfer="adversarially trained"),
    ]


def precision(defense: Defense) -> Sequence[Perturbation]:
    """Returns one attack of Table 1, crafted in both precisions. Their draws differ, since they depend on the name."""
    attacks = [
        attacks_from(defense, PGDSettings(), ("w-nfga-smooth",), precision)[0] for precision in ("float32", CRAFTING)
    ]
    return [replace(attack, name=f"{attack.name}, crafted in {attack.precision}") for attack in attacks]


def table3_undefended(undefended: ResNet32) -> Sequence[Perturbation]:
    return attacks_from(undefended, PGDSettings())


def table3_adversarial(adversarial: ResNet32) -> Sequence[Perturbation]:
    """Returns the default attack, and the paper's worst case for this classifier with one of its 50 restarts.

    ``results.worst_case`` adds the other 49 where they can still change a verdict.
    """
    worst_case = PGDSettings(steps=100, loss="margin")
    return [
        *attacks_from(adversarial, PGDSettings()),
        *attacks_from(adversarial, worst_case, method="PGD margin, 100 steps"),
    ]


def table6(unquantized: Defense) -> Sequence[Perturbation]:
    """Returns the paper's worst transfer at the default settings, and with each setting raised in turn (8.7)."""
    settings = {
        "default": PGDSettings(),
        "N_S 100": PGDSettings(steps=100),
        "N_E 100": PGDSettings(realizations=100),
        "N_R 10": PGDSettings(restarts=10),
    }
    return [
        attack
        for name, each in settings.items()
        for attack in attacks_from(unquantized, each, ("w-aiga",), CRAFTING, UNQUANTIZED, method=f"{name}:")
    ]


def beyond(defense: Defense, unquantized: Defense) -> Sequence[Perturbation]:
    """Returns attacks that the paper did not try: white-box attacks, and transfers from its worst source.

    The ensemble as deployed has 10 members, so that 4 of its gradients are 40 realizations.
    """
    deployed, margin = PGDSettings(realizations=4), PGDSettings(loss="margin")

    def white_box(settings: GradientSettings, variant: Variant | None = None, method: str = "PGD") -> list[Attack]:
        return attacks_from(defense, settings, ("w-nfga-smooth",), CRAFTING, variant=variant, method=method)

    def transfer(settings: GradientSettings, variant: Variant | None = None, method: str = "PGD") -> list[Attack]:
        return attacks_from(unquantized, settings, ("w-aiga",), CRAFTING, UNQUANTIZED, variant=variant, method=method)

    attacks = transfer(PGDSettings()) + attacks_from(defense, PGDSettings(), ("w-aiga",), CRAFTING)
    for craft in (white_box, transfer):
        attacks += craft(deployed, "ensemble") + craft(PGDSettings(), "mean-field")
        attacks += craft(margin, method="PGD margin") + craft(APGDSettings(), method="APGD")
    return attacks + attacks_from(defense, SquareSettings(queries=1000, draws=10), method="Square")


def selection(defense: Defense) -> Sequence[Perturbation]:
    """Returns the attack through the selection: its recipe, another loss, a target, and more realizations."""
    return [
        selection_attack(defense, "selection"),
        selection_attack(defense, "selection, cross-entropy", loss="cross-entropy"),
        replace(selection_attack(defense, "selection, targeted"), targeted=True),
        selection_attack(defense, "selection, N_E 10", realizations=10),
    ]


def selection_more(defense: Defense) -> Sequence[Perturbation]:
    """Returns the attack through the selection with many more steps, and with many more realizations."""
    return [
        selection_attack(defense, "selection, N_S 100", steps=100),
        selection_attack(defense, "selection, N_E 40", realizations=40),
    ]


def selection_of_source(source: Defense) -> Sequence[Perturbation]:
    """Returns the selection's white-box attacks on a source of PW-T."""
    return [selection_attack(source, "selection"), selection_attack(source, "selection, N_E 10", realizations=10)]


def selection_parts(defense: Defense) -> Sequence[Perturbation]:
    """Returns the attack through the selection, and the same with each part of its gradient replaced."""
    sources = {
        "true clamp": defense.with_surrogate(SELECTION, clamp_width=TRUE_CLAMP),
        "identity for the clamp": defense.with_surrogate(SELECTION, clamp_width=NO_CLAMP),
        "fixed cut": ablate(defense, FixedCut),
        "straight-through top T": ablate(defense, StraightThrough),
    }
    realizations = {"straight-through top T": 3}
    return [
        selection_attack(defense, "selection"),
        *(
            Attack(
                f"selection, {name}",
                source,
                PGDSettings.selection_recipe(realizations=realizations.get(name, 2)),
                CRAFTING,
            )
            for name, source in sources.items()
        ),
    ]


def curve_attacks(defense: Defense, unquantized: Defense, ending: str, **settings: Any) -> list[Attack]:
    """Returns one point of each curve: the selection and the paper's two attacks with these settings."""
    paper = PGDSettings(**{"realizations": 10} | settings)
    (white_box,) = attacks_from(defense, paper, ("w-nfga-smooth",), CRAFTING)
    (transfer,) = attacks_from(unquantized, paper, ("w-aiga",), CRAFTING, UNQUANTIZED)
    ours = selection_attack(defense, "selection", **settings)
    return [replace(attack, name=f"{attack.name}, {ending}") for attack in (ours, white_box, transfer)]


def curve_epsilon(defense: Defense, unquantized: Defense) -> Sequence[Perturbation]:
    """Returns the attacks at each epsilon above 0; at 0 the curves have the clean images."""
    return [
        attack
        for size in (1, 2, 4, 8, 16)
        for attack in curve_attacks(
            defense, unquantized, f"epsilon {size}/255", epsilon=size / 255, step_size=size / 8 / 225
        )
    ]


def curve_realizations(defense: Defense, unquantized: Defense) -> Sequence[Perturbation]:
    return [
        attack
        for count in (1, 2, 5, 10, 20, 40)
        for attack in curve_attacks(defense, unquantized, f"N_E {count}", realizations=count)
    ]


def curve_steps(defense: Defense, unquantized: Defense) -> Sequence[Perturbation]:
    """Returns one run of each attack, seen after several numbers of its steps."""
    counts = (1, 2, 5, 10, 20, 50, 100, 200)
    runs = curve_attacks(defense, unquantized, "N_S", steps=counts[-1], realizations=2)
    return [snapshot for attack in runs for snapshot in snapshots(attack, counts)]


def crosscheck(adversarial: ResNet32) -> Sequence[Perturbation]:
    """Returns attacks of three libraries with the same settings, ours first: PGD from the image itself, and APGD.

    APGD starts at a random point, each library at its own, because that of torchattacks always does.
    """
    settings: dict[str, PGDSettings | APGDSettings] = {
        f"PGD, {loss}, {steps} steps": PGDSettings(loss=loss, steps=steps, realizations=1)
        for loss in ("cross-entropy", "margin")
        for steps in (20, 100)
    }
    settings["APGD, cross-entropy, 100 steps"] = APGDSettings(realizations=1, random_start=True, fresh=False)
    attacks: list[Perturbation] = []
    for title, each in settings.items():
        attacks += attacks_from(adversarial, each, method=f"{title}, {OURS}")
        if isinstance(each, PGDSettings):
            attacks.append(LibraryAttack(f"{title}, foolbox", "foolbox", each))
        attacks.append(LibraryAttack(f"{title}, torchattacks", "torchattacks", each))
    return attacks


EXPERIMENTS = {
    "table1": Experiment("Table 1: white-box attacks, PW-T and B-T.", table1, 1000),
    "precision": Experiment("One attack of Table 1, in both precisions.", precision, 100),
    "table3-undefended": Experiment("Table 3: the undefended classifier.", table3_undefended, 1000, "undefended"),
    "table3-adversarial": Experiment(
        "Table 3: the adversarially trained classifier.", table3_adversarial, 1000, ADVERSARIAL
    ),
    "table6": Experiment("Table 6: more steps, realizations and restarts.", table6, 200, block=10),
    "beyond": Experiment("Attacks that the paper did not try.", beyond, 200),
    "selection": Experiment("The attack through the selection.", selection, 1000),
    "selection-more": Experiment("The selection with more steps and realizations.", selection_more, 1000),
    "selection-unsupervised": Experiment(
        "The selection on the unsupervised defense.",
        lambda unsupervised: selection_of_source(unsupervised),
        1000,
        "unsupervised",
    ),
    "selection-unquantized": Experiment(
        "The selection without quantization.",
        lambda unquantized: selection_of_source(unquantized),
        1000,
        "unquantized",
    ),
    "selection-parts": Experiment("The selection, parts of its gradient replaced.", selection_parts, 200),
    "curve-epsilon": Experiment("Accuracy against epsilon.", curve_epsilon, 200),
    "curve-steps": Experiment("Accuracy against the number of steps.", curve_steps, 200),
    "curve-realizations": Experiment("Accuracy against the number of realizations.", curve_realizations, 200),
    "crosscheck": Experiment(
        "Our attacks, foolbox's and torchattacks'.",
        crosscheck,
        1000,
        ADVERSARIAL,
        write_page=write_crosscheck,
    ),
} | PAPER_EXPERIMENTS
