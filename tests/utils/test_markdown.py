"""Tables in Markdown."""

import hypothesis
import pytest
from hypothesis import strategies as st

from neuroae.utils.markdown import table

CELLS = st.text(st.characters(codec="ascii", exclude_categories=["C"], exclude_characters="|\\"), max_size=9)


@pytest.mark.parametrize(
    ("text_columns", "expected"),
    [
        (0, ["|   n | longer |", "| --: | -----: |", "|   1 |      b |"]),
        (1, ["| n   | longer |", "| --- | -----: |", "| 1   |      b |"]),
        (2, ["| n   | longer |", "| --- | ------ |", "| 1   | b      |"]),
    ],
)
def test_text_stands_left_and_numbers_right(text_columns: int, expected: list[str]) -> None:
    assert table(["n", "longer"], [["1", "b"]], text_columns).splitlines() == expected


@hypothesis.given(
    st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1))
)
def test_cells_come_back_from_aligned_lines(rows: list[list[str]]) -> None:
    lines = table(rows[0], rows[1:]).splitlines()
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (lines[0], *lines[2:])]
    assert cells == [[cell.strip() for cell in row] for row in rows]


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert table(["a"], [["x|y"]]).splitlines()[2] == r"| x\|y |"


def test_rows_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        table(["a", "b"], [["1"]])
