"""Lines of records and times: plain JSON with a checksum, as this version and earlier ones wrote them."""

import json
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation_folder import ATTACKS, earlier_line, records, write_evaluation
from neuroae.evaluation import load_evaluation, run_evaluation
from neuroae.evaluation.folder import append_lines, from_line, read_lines, to_line, write_lines
from neuroae.evaluation.records import append_records, read_records, record_fields
from small_evaluation import contents, small_evaluation

VALUE = {"attack": 'PGD, "quoted"', "image": 3, "draws": [1, 2], "selection": -0.5}
VALUES = st.dictionaries(
    st.text(max_size=6).filter(lambda key: key != "crc32"),
    st.one_of(st.integers(), st.floats(allow_nan=False), st.text(max_size=9), st.lists(st.integers(), max_size=3)),
    max_size=4,
)


@given(VALUES)
def test_a_line_is_json_with_the_checksum_of_the_rest_as_its_last_key(value: dict[str, object]) -> None:
    line = to_line(value)
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    plain = json.loads(line)
    assert list(plain) == [*value, "crc32"]
    rest = json.dumps(value, separators=(",", ":"))
    assert plain["crc32"] == f"{zlib.crc32(rest.encode()):08x}"
    assert from_line(line) == value


@given(VALUES)
def test_lines_of_earlier_versions_are_read(value: dict[str, object]) -> None:
    assert from_line(earlier_line(value)) == value


@pytest.mark.parametrize("line", [to_line(VALUE), earlier_line(VALUE)], ids=["new", "earlier"])
def test_a_damaged_or_torn_line_is_no_line(line: str) -> None:
    assert from_line(line) == VALUE
    for length in range(len(line)):
        assert from_line(line[:length]) is None
        assert from_line(f"{line[:length]}\n") is None or length == len(line) - 1
    for place, letter in enumerate(line[:-1]):
        assert from_line(line[:place] + chr(ord(letter) ^ 1) + line[place + 1 :]) is None


@pytest.mark.parametrize(
    "line",
    ["\n", "{}\n", '{"a":1}\n', '{"crc32":"00000000"}\n', f"{json.dumps(VALUE)}\n", earlier_line([3]), "cat\n"],
    ids=str,
)
def test_lines_without_their_checksum_are_left_out(line: str) -> None:
    assert from_line(line) is None


def test_a_file_may_hold_lines_of_several_versions(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    values = [VALUE | {"image": image} for image in range(4)]
    torn = to_line(VALUE)[:-9]
    path.write_text(earlier_line(values[0]) + to_line(values[1]) + earlier_line(values[2]) + torn)
    append_lines(path, values[3:])
    assert read_lines(path) == values


def test_records_of_several_versions_are_records(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    earlier, later = records("pgd", [True, False]), records("square", [False, True])
    path.write_text("".join(earlier_line(record_fields(record)) for record in earlier))
    append_records(path, later)
    assert read_records(path) == earlier + later


def test_what_a_file_holds_already_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(earlier_line(VALUE))
    before = contents(tmp_path)
    write_lines(path, [VALUE])
    assert contents(tmp_path) == before
    path.write_text(earlier_line(VALUE) + "half a li")
    write_lines(path, [VALUE])
    assert path.read_text() == to_line(VALUE)


def in_earlier_lines(folder: Path) -> None:
    """Rewrites every file of lines as earlier versions wrote it."""
    for path in folder.rglob("*.jsonl"):
        path.write_text("".join(map(earlier_line, read_lines(path))))


def test_a_folder_of_an_earlier_version_loads_and_goes_on(tmp_path: Path) -> None:
    complete = run_evaluation(small_evaluation(), tmp_path)
    in_earlier_lines(tmp_path)
    assert load_evaluation(tmp_path).records == complete.records
    before = contents(tmp_path)
    assert run_evaluation(small_evaluation(), tmp_path).records == complete.records
    assert contents(tmp_path) == before
    (tmp_path / "images" / "w-aiga" / "00001.safetensors").unlink()
    assert run_evaluation(small_evaluation(), tmp_path).records == complete.records


def test_pandas_reads_records_and_times(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    folder = write_evaluation(tmp_path, ATTACKS)
    frame = pandas.read_json(folder / "records.jsonl", lines=True)
    results = load_evaluation(folder)
    right = (frame.vote == frame.label).groupby(frame.attack).mean()
    assert right.to_dict() == {name: results.accuracy(name).value for name in results.records}
    assert frame.draws.map(tuple).tolist() == [
        record.draws for name in results.records for record in results.records[name]
    ]
    assert pandas.read_json(folder / "times.jsonl", lines=True).seconds.sum() == sum(results.seconds.values())
