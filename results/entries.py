"""The paper's accuracies as data, each with the experiment of ours that measures it."""

from collections.abc import Iterator
from dataclasses import dataclass

DEFENSE = "defense"
LOWEST = "lowest"
WORST = "worst of each image"


@dataclass(frozen=True)
class Entry:
    """One accuracy of the paper beside ours.

    Attributes:
        table: The number of the paper's table; "" if the paper does not have the row.
        model, attack: The row's model and attack, as the table names them.
        percent: The paper's accuracy; None if it has none.
        experiments: Our experiments that measure the accuracy; several for ``LOWEST``.
        row: The row's name in the experiment, or the beginning of one name; or ``LOWEST``, over all single attacks.
    """

    table: str
    model: str
    attack: str
    percent: float | None
    experiments: tuple[str, ...]
    row: str


def entry(table: str, model: str, attack: str, percent: float | None, experiment: str, row: str) -> Entry:
    """Returns the entry of one experiment's row."""
    return Entry(table, model, attack, percent, (experiment,), row)


PW_T = "linf 8/255, lowest of PW-T"
PW_T_EACH = "linf 8/255, worst of each image of PW-T"
SELECTION = ("selection", "selection, cross-entropy", "selection, targeted", "selection, N_E 10")
MORE = ("selection, N_S 100", "selection, N_E 40")
BEYOND = (
    "W-NFGA smooth ensemble",
    "W-NFGA smooth mean-field",
    "PGD margin W-NFGA smooth",
    "APGD W-NFGA smooth",
    "W-AIGA",
    "W-AIGA from unquantized",
    "W-AIGA ensemble from unquantized",
    "W-AIGA mean-field from unquantized",
    "PGD margin W-AIGA from unquantized",
    "APGD W-AIGA from unquantized",
    "Square",
)
# Table 2 by our experiment: the row's name, and the paper's accuracies: clean, and under W-NFGA, PW-T and W-AIGA.
TABLE2 = {
    "table2-complete": ("complete, 12 epochs", 80.06, 61.28, 39.53, 79.48),
    "table2-no-quantization": ("without activation/quantization", 81.68, 38.48, 37.95, 74.05),
    "table2-no-dropout": ("without dropout", 76.93, 76.61, 34.68, 76.92),
    "table2-no-top-t": ("without top T", 65.72, 23.35, 29.95, 59.80),
    "table2-unsupervised": ("unsupervised decoder", 80.03, 65.83, None, 30.01),
}
# Table 4 by the experiment or model: the paper's clean accuracy, and those at epsilon 2, 4 and 8.
TABLE4_UNDEFENDED, TABLE4_DEFENSE = (89.35, 11.44, 0.28, 0.0), (79.36, 76.03, 72.81, 65.45)
BUDGETS = (2, 4, 8)
# Table 5 by our experiment: the row's name, the white-box attack's name, and the paper's clean accuracy and accuracies
# under W-NFGA and PW-T.
TABLE5 = {
    "table5-t1-p0": ("T 1, p 0", "W-NFGA smooth", 81.48, 65.82, 39.42),
    "table5-t5-p0.5": ("T 5, p 0.5", "W-NFGA smooth", 85.26, 67.70, 38.63),
    "table5-t10-p0.75": ("T 10, p 0.75", "W-NFGA smooth", 84.78, 64.14, 36.40),
    "table5-k-sparse": ("k-sparse autoencoder", "PGD", 91.33, 0.06, 71.88),
    "table5-dropout": ("dropout in the classifier", "PGD", 88.22, 0.08, 66.05),
    "table5-blur": ("Gaussian blur", "PGD", 91.59, 0.0, 72.80),
}


def table2_entries(experiment: str) -> Iterator[Entry]:
    """Yields a row of Table 2, and beside it the attack through the selection.

    Transfers from the sources without dropout and without top T have an experiment of their own.
    """
    model, clean, w_nfga, pw_t, w_aiga = TABLE2[experiment]
    yield entry("2", model, "clean", clean, experiment, "clean")
    yield entry("2", model, "W-NFGA smooth", w_nfga, experiment, "W-NFGA smooth")
    if experiment != "table2-unsupervised":
        yield entry("2", model, "PW-T", pw_t, experiment, PW_T)
        yield entry("2", model, "PW-T, other sources", None, f"{experiment}-us", LOWEST)
    yield entry("2", model, "W-AIGA", w_aiga, experiment, "W-AIGA")
    yield entry("2", model, "selection", None, experiment, "selection")


def table3_entries(
    model: str, experiment: str, method: str, clean: float | None, worst: float | None
) -> tuple[Entry, ...]:
    """Returns the accuracies of a classifier: clean, under one start with the margin loss, and the lowest of all."""
    restarts = [f"worst_case-{method}-{loss}" for loss in ("margin", "cross-entropy")] if worst is not None else []
    return (
        entry("3", model, "clean", clean, experiment, "clean"),
        entry("3", model, "margin, N_S 100, N_R 1", None, experiment, "PGD margin, 100 steps"),
        Entry("3", model, "worst case", worst, (experiment, *restarts), LOWEST),
    )


def table4_entries() -> Iterator[Entry]:
    """Yields the rows of Table 4 that our experiments measure."""
    classifiers = {
        "undefended": ("table4-undefended", TABLE4_UNDEFENDED),
        "R+FGSM, 15 epochs": ("table4-r-fgsm", (None,) * 4),
    }
    for model, (experiment, percents) in classifiers.items():
        yield entry("4", model, "clean", percents[0], experiment, "clean")
        for size, percent in zip(BUDGETS, percents[1:], strict=True):
            title = f"PGD, epsilon {size}/255"
            yield entry("4", model, title, percent, experiment, title)
    yield entry("4", "defense, 15 epochs", "clean", TABLE4_DEFENSE[0], "table4-selection", "clean")
    for size, percent in zip(BUDGETS, TABLE4_DEFENSE[1:], strict=True):
        title = f"epsilon {size}/255"
        papers = f"W-AIGA from unquantized, {title}"
        yield entry("4", "defense, 15 epochs", f"PW-T, {title}", percent, "table4-paper", papers)
        white_box = f"W-NFGA smooth, {title}"
        yield entry("4", "defense, 15 epochs", white_box, None, "table4-paper", white_box)
        yield entry("4", "defense, 15 epochs", f"selection, {title}", None, "table4-selection", f"selection, {title}")


def table5_entries(experiment: str) -> Iterator[Entry]:
    """Yields a row of Table 5, and beside it the attack through the selection on a defense."""
    model, attack, clean, w_nfga, pw_t = TABLE5[experiment]
    yield entry("5", model, "clean", clean, experiment, "clean")
    yield entry("5", model, attack, w_nfga, experiment, attack)
    yield entry("5", model, "PW-T", pw_t, experiment, PW_T)
    if attack != "PGD":
        yield entry("5", model, "selection", None, experiment, "selection")


ENTRIES = (
    entry("1", DEFENSE, "clean", 80.06, "table1", "clean"),
    entry("1", DEFENSE, "W-NFGA identity", 63.72, "table1", "W-NFGA identity"),
    entry("1", DEFENSE, "W-NFGA smooth", 61.28, "table1", "W-NFGA smooth"),
    entry("1", DEFENSE, "PW-T", 39.53, "table1", PW_T),
    entry("1", DEFENSE, "PW-T, worst of each image", None, "table1", PW_T_EACH),
    entry("1", DEFENSE, "B-T", 57.76, "table1", "PGD from adversarially trained"),
    *(each for experiment in TABLE2 for each in table2_entries(experiment)),
    entry("2", DEFENSE, "clean", None, "table1", "clean"),
    entry("2", DEFENSE, "W-NFGA smooth", None, "table1", "W-NFGA smooth"),
    entry("2", DEFENSE, "PW-T", None, "table1", PW_T),
    entry("2", DEFENSE, "W-AIGA", None, "beyond", "W-AIGA"),
    entry("2", DEFENSE, "selection", None, "selection", "selection"),
    entry("3", "undefended", "clean", 93.10, "table3-undefended", "clean"),
    entry("3", "undefended", "PGD", 0.0, "table3-undefended", "PGD"),
    entry("3", "PGD adversarially trained", "clean", 79.41, "table3-adversarial", "clean"),
    entry("3", "PGD adversarially trained", "margin, N_S 100, N_R 50", None, "worst_case", "50 starts"),
    Entry("3", "PGD adversarially trained", "worst case", 42.05, ("worst_case", "table3-adversarial"), LOWEST),
    *table3_entries("R+FGSM, published", "table3-r-fgsm", "r-fgsm-at", 80.86, 42.42),
    *table3_entries("TRADES, published", "table3-trades", "trades", 75.17, 45.79),
    *table3_entries("R+FGSM, 15 epochs", "table3-our-r-fgsm", "r-fgsm-at", None, None),
    entry("3", DEFENSE, "clean", 80.06, "table1", "clean"),
    Entry("3", DEFENSE, "worst case", 39.53, ("table1",), LOWEST),
    Entry("3", DEFENSE, "lowest with selection", None, ("table1", "selection", "selection-more"), LOWEST),
    *table4_entries(),
    *(each for experiment in TABLE5 for each in table5_entries(experiment)),
    entry("6", DEFENSE, "PW-T, default", 39.53, "table6", "default"),
    entry("6", DEFENSE, "PW-T, N_S 100", 38.93, "table6", "N_S 100"),
    entry("6", DEFENSE, "PW-T, N_E 100", 39.25, "table6", "N_E 100"),
    entry("6", DEFENSE, "PW-T, N_R 10", 39.38, "table6", "N_R 10"),
    *(entry("", DEFENSE, name, None, "selection", name) for name in SELECTION),
    *(entry("", DEFENSE, name, None, "selection-more", name) for name in MORE),
    *(
        entry("", source, f"{name} of {source}", None, f"selection-{source}", name)
        for source in ("unsupervised", "unquantized")
        for name in ("clean", "selection", "selection, N_E 10")
    ),
    *(entry("", DEFENSE, name, None, "beyond", name) for name in BEYOND),
    entry("", DEFENSE, "worst of each image over all attacks", None, "worst_of_all", WORST),
    entry("", DEFENSE, "worst of each image, Table 1 and selection", None, "worst_of_1000", WORST),
)
