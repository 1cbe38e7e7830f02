"""The paper's numbers beside ours: shown numbers, missing ones, and numbers that must not be mixed."""

from pathlib import Path

import pytest

from neuroae.utils.files import save_json
from results.entries import BEYOND, ENTRIES
from results.tables import TITLES, Measured, read_measured, row_named
from results_data import run


def summary(folder: Path, attacks: dict[str, float], together: dict[str, float], model: str = "a" * 64) -> None:
    def listed(accuracies: dict[str, float]) -> list[dict[str, object]]:
        return [
            {"attack": name, "vote": value, "vote_low": value - 0.05, "vote_high": value + 0.05, "images": 1000}
            for name, value in accuracies.items()
        ]

    save_json(folder / "manifest.json", {"identity": {"model": {"fingerprint": model}}})
    save_json(folder / "summary.json", {"attacks": listed(attacks), "together": listed(together)})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Returns a folder with Table 1 and the worst case of the adversarially trained classifier."""
    attacks = {"clean": 0.8, "W-NFGA identity": 0.6, "W-NFGA smooth": 0.5, "W-AIGA from unquantized": 0.4}
    attacks |= {"W-NFGA smooth from unquantized": 0.45, "PGD from adversarially trained": 0.55}
    together = {"linf 8/255, lowest of PW-T: W-AIGA from unquantized": 0.4, "linf 8/255, lowest of all: x": 0.4}
    together |= {"linf 8/255, worst of each image of PW-T": 0.35, "linf 8/255, worst of each image": 0.3}
    summary(tmp_path / "table1", attacks, together)
    row = {"attack": "50 starts", "accuracy": 0.425, "images": 1000, "low": 0.4, "high": 0.45}
    first = row | {"attack": "1 start", "accuracy": 0.43}
    save_json(tmp_path / "worst_case" / "results.json", {"rows": [first, row]})
    return tmp_path


def page(results: Path) -> dict[tuple[str, str], list[str]]:
    """Returns the cells of each row by table and attack."""
    result = run("tables", "--output", results)
    text = (results / "README.md").read_text()
    assert result.stdout.strip() in text
    sections = {title: text.split(f"## {title}\n\n")[1].split("\n\n")[0].splitlines()[2:] for title in TITLES.values()}
    rows = [
        (number, [cell.strip() for cell in line.strip("|").split("|")])
        for number, title in TITLES.items()
        for line in sections[title]
    ]
    assert len(rows) == len(ENTRIES)
    return {(number, cells[1]): [number, *cells] for number, cells in rows if number not in ("2", "4", "5")}


def test_every_number_that_is_measured_stands_beside_the_papers(results: Path) -> None:
    cells = page(results)
    assert cells["1", "clean"][3:7] == ["80.06%", "80.0%", "75.0% to 85.0%", "1,000"]
    assert cells["1", "W-NFGA smooth"][3:5] == ["61.28%", "50.0%"]
    assert cells["1", "PW-T"][3:5] == ["39.53%", "40.0%"]
    assert cells["1", "PW-T, worst of each image"][3:5] == ["", "35.0%"]
    assert cells["1", "B-T"][4] == "55.0%"
    assert cells["3", "margin, N_S 100, N_R 50"][3:7] == ["", "42.5%", "40.0% to 45.0%", "1,000"]
    assert cells["1", "PW-T"][7] == "[table1](table1/)"


def worst_cases(results: Path) -> list[str]:
    """The accuracies of both: of the adversarially trained classifier, and of the defense."""
    page(results)
    lines = [line for line in (results / "README.md").read_text().splitlines() if "| worst case " in line]
    return [line.split("|")[4].strip() for line in lines if "R+FGSM" not in line and "TRADES" not in line]


def test_the_worst_case_is_the_lowest_of_single_attacks_in_all_its_folders(results: Path) -> None:
    assert worst_cases(results) == ["", "40.0%"]
    summary(results / "table3-adversarial", {"clean": 0.1, "PGD": 0.41}, {"linf 8/255, worst of each image": 0.3})
    assert worst_cases(results) == ["41.0%", "40.0%"]


def test_the_worst_case_of_a_published_classifier_needs_its_restarts(results: Path) -> None:
    summary(results / "table3-trades", {"clean": 0.77, "PGD": 0.5, "PGD margin, 100 steps": 0.48}, {})

    def row() -> str:
        page(results)
        lines = (results / "README.md").read_text().splitlines()
        return next(line for line in lines if "TRADES, published" in line and "| worst case " in line)

    assert "%" not in row().replace("45.79%", "")
    for loss, accuracy in (("margin", 0.46), ("cross-entropy", 0.47)):
        numbers = {"attack": "50 starts", "accuracy": accuracy, "images": 1000, "low": 0.4, "high": 0.5}
        save_json(results / f"worst_case-trades-{loss}" / "results.json", {"rows": [numbers]})
    assert "| 46.0% |" in " ".join(row().split())


def test_what_is_not_measured_has_no_number(results: Path) -> None:
    assert page(results)["6", "PW-T, N_R 10"][3:] == ["39.38%", "", "", "", "table6"]
    text = " ".join((results / "README.md").read_text().split())
    waiting = text.split("Not measured yet: ")[1].split("`. ")[0]
    assert "`table6`" in waiting
    assert "`table1`" not in waiting


def test_the_beginning_of_a_name_must_tell_one_row(results: Path) -> None:
    rows = read_measured(results / "table1")
    with pytest.raises(ValueError, match="4 rows are named 'linf 8/255'"):
        row_named(rows, "linf 8/255")
    with pytest.raises(ValueError, match="0 rows are named 'unquantized'"):
        row_named(rows, "unquantized")


def test_a_whole_name_comes_before_beginnings_of_others(results: Path) -> None:
    assert row_named(read_measured(results / "table1"), "W-NFGA smooth") == Measured(0.5, 0.45, 0.55, 1000)


def test_the_default_of_table_6_is_not_the_lowest_of_all(tmp_path: Path) -> None:
    attacks = {f"{name}: W-AIGA from unquantized": 0.4 for name in ("default", "N_S 100", "N_E 100", "N_R 10")}
    lowest = {"linf 8/255, lowest of all: default: W-AIGA from unquantized": 0.3}
    summary(tmp_path / "table6", attacks, lowest)
    assert page(tmp_path)["6", "PW-T, default"][4] == "40.0%"


def test_what_the_paper_does_not_have_stands_without_its_number(tmp_path: Path) -> None:
    summary(tmp_path / "beyond", dict.fromkeys(BEYOND, 0.5) | {"clean": 0.8}, {})
    row = {"attack": "worst of each image", "accuracy": 0.25, "images": 200, "low": 0.2, "high": 0.3}
    save_json(tmp_path / "worst_of_all" / "results.json", {"fingerprint": "a" * 64, "rows": [row]})
    cells = page(tmp_path)
    assert cells["", "Square"][3:] == ["", "50.0%", "45.0% to 55.0%", "1,000", "[beyond](beyond/)"]
    assert cells["", "worst of each image over all attacks"][3:6] == ["", "25.0%", "20.0% to 30.0%"]


def test_numbers_of_two_defenses_are_refused(results: Path) -> None:
    summary(results / "table3-undefended", {"clean": 0.9, "PGD": 0.0}, {}, model="b" * 64)
    assert page(results)["3", "PGD"][4] == "0.0%"  # another model, as it should be
    save_json(results / "worst_of_all" / "results.json", {"fingerprint": "c" * 64, "rows": []})
    with pytest.raises(ValueError, match=r"2 defenses.*/table1 of a{16}; .*/worst_of_all of c{16}"):
        page(results)


def test_figures_are_linked_where_they_were_drawn(results: Path) -> None:
    (results / "dictionary").mkdir()
    (results / "dictionary" / "figure2.png").touch()
    page(results)
    text = (results / "README.md").read_text().split("## Figures")[1]
    rows = {cells[1].strip(): cells[3].strip() for line in text.splitlines() if len(cells := line.split("|")) > 3}
    assert rows["2"] == "[dictionary/figure2.png](dictionary/figure2.png)"
    assert rows["4"] == "not drawn yet"
