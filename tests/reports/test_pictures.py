"""Tables of accuracies, and pictures of images on their way through a model."""

import struct
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import small_defense
from neuroae.data import ImageSet
from neuroae.evaluation import CLEAN, Record, Results
from neuroae.reports import Row, Strip, draw_picture, markdown_table, stages

CLASSES = ("cat", "dog", "eel")


@pytest.fixture
def data() -> ImageSet:
    images = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
    return ImageSet("some", images, torch.tensor([0, 1, 2, 0]), torch.tensor([7, 3, 5, 9]), CLASSES)


def records(data: ImageSet, attack: str, votes: list[int], *counts: int) -> list[Record]:
    """Returns records in which each image has so many gradients, and so many zero and invalid ones."""
    gradients, zero, invalid = counts
    return [
        Record(attack, image, label, vote, (vote,), 0.0, 0.0, 0.0, gradients, 0, zero, invalid)
        for image, label, vote in zip(data.ids.tolist(), data.labels.tolist(), votes, strict=True)
    ]


@pytest.fixture
def results(data: ImageSet) -> Results:
    attacked = records(data, "W-AIGA from other", [0, 2, 1, 0], 500, 12, 8)
    attacks = {CLEAN: records(data, CLEAN, [0, 1, 2, 1], 0, 0, 0), "W-AIGA from other": attacked}
    return Results(None, {}, attacks, dict.fromkeys(attacks, 12.34))


def test_table_shows_accuracy_interval_and_cost(results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    print(markdown_table([Row.of("defense", results, attack) for attack in results.records]))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    assert cells[0][:4] == ["model", "attack", "accuracy", "95% interval"]
    assert cells[2] == ["defense", "clean", "75.0%", "19.4% to 99.4%", "4", "12.3", "", ""]
    assert cells[3] == ["defense", "W-AIGA from other", "50.0%", "6.8% to 93.2%", "4", "12.3", "2,000", "4.0%"]


def test_stages_follow_the_encoder() -> None:
    encoder = small_defense(epsilon=0.1).encoder
    image, seed = torch.rand(1, 8, 8), 4
    projections, selected, survivors, quantized = stages(encoder, image, seed).values()
    patches = image.unfold(1, 4, 2).unfold(2, 4, 2)
    expected = torch.einsum("cijab,lcab->lij", patches, encoder.atoms)
    torch.testing.assert_close(projections, expected)
    assert torch.count_nonzero(selected, dim=0).tolist() == [[encoder.top_t] * 3] * 3
    torch.testing.assert_close(selected[selected != 0], projections[selected != 0])
    smallest = selected.abs().masked_fill(selected == 0, torch.inf).amin(0)
    assert bool((projections.abs() <= smallest).masked_fill(selected != 0, True).all())
    assert 0 < torch.count_nonzero(survivors) < torch.count_nonzero(selected)
    torch.testing.assert_close(survivors[survivors != 0], selected[survivors != 0])
    strong = survivors.abs() >= encoder.dead_zone[:, None, None]
    torch.testing.assert_close(quantized, torch.where(strong, survivors.sign() * encoder.norms[:, None, None], 0.0))
    torch.testing.assert_close(quantized, encoder(image[None], seed=seed)[0])


def png_size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


@pytest.mark.parametrize("channels", [1, 3])
def test_picture_has_a_row_for_each_strip(tmp_path: Path, channels: int) -> None:
    def strip(count: int) -> Strip:
        return Strip.of("some", torch.rand(count, channels, 8, 8), torch.zeros(9).long(), torch.ones(9).long(), "ab")

    draw_picture(tmp_path / "short.png", [strip(3)])
    draw_picture(tmp_path / "long.png", [strip(3), strip(5), Strip("bare", torch.rand(5, channels, 8, 8))])
    (short_width, short_height), (long_width, long_height) = (
        png_size(tmp_path / name) for name in ("short.png", "long.png")
    )
    assert long_height == pytest.approx(3 * short_height, abs=2)
    assert long_width > short_width
    draw_picture(tmp_path / "stages.png", [strip(3)], {"one": torch.randn(9, 2, 2), "two": torch.zeros(9, 2, 2)})
    assert png_size(tmp_path / "stages.png")[1] > short_height


def test_captions_say_what_is_right() -> None:
    strip = Strip.of("some", torch.rand(2, 1, 8, 8), torch.tensor([1, 0, 2]), torch.tensor([1, 2, 2]), CLASSES)
    assert strip.captions == ["dog", "cat"]
    assert strip.right == [True, False]


def test_encoding_a_stage_needs_no_gradient() -> None:
    images: list[Tensor] = list(stages(small_defense().encoder, torch.rand(1, 8, 8), 0).values())
    assert not any(stage.requires_grad for stage in images)
