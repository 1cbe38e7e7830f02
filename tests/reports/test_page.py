"""The page of a report, as a browser reads it, and the pictures in it."""

import base64
import io
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation_folder import ATTACKS, CLEAN_IDENTITY, AttackCase, share, write_evaluation
from neuroae.evaluation.results import load_partial
from neuroae.reports import Report, write_report
from neuroae.reports.pictures import SHOWN, choose, class_name, examples, png
from neuroae.utils.files import load_json, save_json


class Page(HTMLParser):
    """Collects a page's words, its elements, and its pictures with their alternative texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: Counter[str] = Counter()
        self.sources: dict[str, list[str]] = {}
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        values = dict(attrs)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "img":
            assert values["alt"]
            self.sources.setdefault(str(values["alt"]), []).append(str(values["src"]))
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href", "action", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a report, which tests must not change."""
    folder = write_evaluation(tmp_path_factory.mktemp("reported"), ATTACKS)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(reported: Path) -> Page:
    return Page((reported / "report.html").read_text(encoding="utf-8"))


def page_of(folder: Path) -> Page:
    write_report(folder)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_page_needs_nothing_else(reported: Path, page: Page) -> None:
    assert page.addresses
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert page.tags["script"] == page.tags["link"] == page.tags["iframe"] == 0
    assert "url(" not in (reported / "report.html").read_text(encoding="utf-8")


def test_the_page_says_what_was_found(reported: Path, page: Page) -> None:
    report = Report.of(reported)
    assert page.tags["tr"] == 1 + 4 + 2 + 1 + 2
    for text in ("small <model>", "12 images of pets test", "white <box>", "66.7%", "fingerprint aaaaaaaaaaaaaaaa"):
        assert text in page.text
    for check in report.checks:
        assert f"{check.verdict} {check.name} {check.finding}" in page.text
    for name in ("pass", "warn", "fail"):
        assert len(re.findall(rf"[✓!✗] {name}\b", page.text)) == report.verdicts[name]
    assert "pgd, transfer, from other, smooth, float32; epsilon 0.1, step_size 0.01, steps 5" in page.text
    assert "Against the first attack" in page.text
    assert "transfer 12 6 0 0.031 white, $wide^$ 12 7 0 0.016 Each attack is compared with white <box>" in page.text
    assert "FIXED MASKS" not in page.text
    assert "UNFINISHED" not in page.text


def test_the_pages_pictures_are_pictures(page: Page) -> None:
    sources = page.sources
    charts = [name for name in sources if name.startswith("Accuracy")]
    assert [name.split(".")[0] for name in charts] == [
        "Accuracy by attack",
        "Accuracy against the number of draws",
        "Accuracy against epsilon, for pixels in [0, 1]",
    ]
    for name, (source, *others) in sources.items():
        kind, _, content = source.partition(";base64,")
        decoded = base64.b64decode(content, validate=True)
        if name in charts:
            assert (kind, others) == ("data:image/svg+xml", [])
            assert ElementTree.fromstring(decoded).tag == "{http://www.w3.org/2000/svg}svg"
        else:
            assert kind == "data:image/png"
            assert Image.open(io.BytesIO(decoded)).size == (6, 6)
    assert len(sources["Its perturbation, amplified"]) == 3 * SHOWN


def test_examples_go_from_the_images_that_few_attacks_fool_to_those_that_most_do(reported: Path) -> None:
    results = load_partial(reported)
    numbers = choose(results)
    assert len(numbers) == len(set(numbers)) == SHOWN
    fooled = [
        sum(records[image].vote != records[image].label for records in results.records.values()) for image in numbers
    ]
    assert fooled == sorted(fooled)
    assert (fooled[0], fooled[-1]) == (0, 3)
    clean, white, *_ = examples(results)
    assert (clean.attack, clean.amplified, clean.side) == ("clean", 0, 6)
    assert white.amplified == pytest.approx(5, rel=1e-5)
    assert all(example.right and example.perturbation is None for example in clean.images)
    assert [example.id for example in white.images] == numbers
    for example in white.images:
        assert (example.label, example.right) == (("cat", "dog")[example.id % 2], example.id < 8)
        assert example.answer == (example.label if example.right else "eel")


@pytest.mark.parametrize("channels", [1, 3])
def test_pngs_hold_the_pixels(channels: int) -> None:
    image = torch.randint(256, (channels, 5, 7)).float() / 255
    content = png(image).removeprefix("data:image/png;base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert picture.size == (7, 5)
    pixels = torch.from_numpy(np.array(picture)).reshape(5, 7, channels).movedim(-1, 0)
    assert torch.equal(pixels, (image * 255).round().to(torch.uint8))


def test_an_evaluation_of_clean_images_alone_is_reported(tmp_path: Path) -> None:
    page = page_of(write_evaluation(tmp_path, {"clean": AttackCase(share(5, 6), CLEAN_IDENTITY)}))
    assert page.tags["tr"] == 2
    assert "83.3%" in page.text


def test_a_model_that_is_always_wrong_has_no_examples(tmp_path: Path) -> None:
    page = page_of(write_evaluation(tmp_path, {"clean": AttackCase([False] * 6, CLEAN_IDENTITY)}))
    assert not [name for name in page.sources if name.startswith("Image")]


@pytest.mark.parametrize(("channels", "expected"), [(1, "L"), (2, "L"), (3, "RGB"), (4, "RGB"), (5, "RGB")])
def test_pictures_of_any_number_of_channels(channels: int, expected: str) -> None:
    data = base64.b64decode(png(torch.rand(channels, 4, 6)).partition(",")[2])
    with Image.open(io.BytesIO(data)) as image:
        assert (image.mode, image.size) == (expected, (6, 4))


def test_answers_beyond_the_classes_of_the_data_have_numbers() -> None:
    assert [class_name(("cat", "dog"), number) for number in range(3)] == ["cat", "dog", "class 2"]


def test_of_two_classes_of_one_name_the_wrong_one_is_wrong(tmp_path: Path) -> None:
    """ImageNet has two kinds of cranes."""
    folder = write_evaluation(tmp_path, ATTACKS)
    save_json(folder / "manifest.json", load_json(folder / "manifest.json") | {"classes": ["crane"] * 3})
    images = examples(load_partial(folder))[1].images
    assert {(example.label, example.answer) for example in images} == {("crane", "crane")}
    assert [example.right for example in images] == [example.id < 8 for example in images]
