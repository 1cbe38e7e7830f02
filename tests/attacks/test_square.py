"""Square attack: known optima, pixels at the ball's corners, and comparisons on fresh common draws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attacked_models import GAP, OneForm, distance
from models import Linear, random_images, small_defense
from neuroae.attacks import SquareSettings, mean_margin, mean_probabilities, square
from neuroae.attacks.square import add_square, add_stripes, square_side
from neuroae.utils.randomness import derive_seed

ROUNDING = 2**-24


class Blind(nn.Module):
    """Returns random logits by the seed, for any images."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds: list[int] = []
        self.rows = 0

    def forward(self, images: Tensor, *, seed: int, image_ids: Tensor) -> Tensor:
        self.seeds.append(seed)
        self.rows += len(images)
        return torch.randn(1, 10, generator=torch.Generator().manual_seed(seed % 2**32)).expand(len(images), 10)


@settings(max_examples=25)
@given(
    epsilon=st.floats(0, 0.5),
    queries=st.integers(1, 5),
    channels=st.integers(1, 3),
    height=st.integers(4, 9),
    width=st.integers(4, 9),
    p_init=st.floats(0.01, 1),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_pixel_goes_as_far_as_ball_and_box_allow(
    epsilon: float, queries: int, channels: int, height: int, width: int, p_init: float, seed: int
) -> None:
    torch.manual_seed(seed)
    images, ids = torch.rand(3, channels, height, width), torch.arange(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, 10)).eval()
    budget = SquareSettings(epsilon, queries, 1, p_init)
    perturbed = square(model, images, ids, budget, seed=0, image_ids=ids).images
    assert distance(perturbed, images, "linf").max() <= epsilon + ROUNDING
    brighter, darker = (images + epsilon).clamp(0, 1), (images - epsilon).clamp(0, 1)
    assert ((perturbed == brighter) | (perturbed == darker)).all()


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_square_reaches_the_optimum_of_a_form_without_sign_changes(targeted: bool) -> None:
    """Every square of the right sign raises the margin, so that squares soon cover the image."""
    images, _, ids = random_images(2, 2, 4)
    model = OneForm(2, 4).eval()
    model.form.data = model.form.data.abs() * torch.tensor([1.0, -1.0]).reshape(2, 1, 1)
    targets = torch.ones_like(ids) if targeted else None
    budget = SquareSettings(0.1, 700, 1)
    perturbed = square(model, images, torch.zeros_like(ids), budget, seed=0, image_ids=ids, targets=targets).images
    torch.testing.assert_close(perturbed, model.optimum(images, 0.1, "linf"), rtol=0, atol=1e-7)


@pytest.mark.parametrize(("target", "side"), [(None, 1), (2, -1)], ids=["untargeted", "targeted"])
def test_square_reaches_the_target_or_the_nearest_class(target: int | None, side: int) -> None:
    """Brighter images lead to the second class, which is the nearest, darker ones to the third."""
    images, labels, ids = torch.rand(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64), torch.arange(2)
    model = Linear(1, 4, 3).eval()
    model.layer.weight.data = torch.tensor([0.0, 1.0, -1.0])[:, None].expand(3, 16)
    model.layer.bias.data = torch.tensor([GAP, 0.0, -GAP])
    targets = None if target is None else torch.full_like(labels, target)
    budget = SquareSettings(0.1, 300, 1, fresh=False)
    perturbed = square(model, images, labels, budget, seed=0, image_ids=ids, targets=targets).images
    torch.testing.assert_close(perturbed, (images + side * 0.1).clamp(0, 1), rtol=0, atol=1e-7)


def test_lucky_draws_are_not_kept() -> None:
    """The logits depend on the draws alone, so that no square is better than none."""
    images, labels, ids = random_images()
    budget = SquareSettings(0.1, 30, 2)
    perturbed = square(Blind().eval(), images, labels, budget, seed=4, image_ids=ids).images
    assert torch.equal(perturbed, add_stripes(images, 0.1, derive_seed(4, "stripes"), ids))


def test_stripes_are_columns_of_either_sign() -> None:
    images, ids = torch.full((200, 2, 5, 6), 0.5), torch.arange(200)
    moved = add_stripes(images, 0.25, 3, ids) - images
    assert (moved == moved[:, :, :1]).all()
    assert set(moved.unique().tolist()) == {-0.25, 0.25}
    assert (moved[:, :, 0].mean(0).abs() < 0.08).all()
    neighbours = (moved[:, :, 0, 1:] * moved[:, :, 0, :-1]).mean()
    assert abs(float(neighbours)) < 0.25**2 * 0.1


def test_each_query_compares_both_images_on_the_same_fresh_draws() -> None:
    images, labels, ids = random_images()
    model, passes = Blind().eval(), []
    budget = SquareSettings(0.1, 5, 3)
    result = square(model, images, labels, budget, seed=4, image_ids=ids, progress=passes.append)
    queries = torch.tensor(model.seeds).reshape(5, 2, 3)
    assert torch.equal(queries[:, 0], queries[:, 1])
    assert len(set(model.seeds)) == 5 * 3
    assert result.forwards == budget.forwards == model.rows / len(images)
    assert sum(passes) == model.rows
    assert result.gradients == budget.gradients == 0
    assert not result.zero.any()
    assert not result.invalid.any()


class Counting(nn.Module):
    """Counts the images that it classifies."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))
        self.rows = 0

    def forward(self, images: Tensor) -> Tensor:
        self.rows += len(images)
        return self.network(images)


def test_a_deterministic_model_needs_one_pass_for_each_query() -> None:
    images, labels, ids = random_images()
    model, passes = Counting().eval(), []
    fresh = square(model, images, labels, SquareSettings(0.1, 60, 1), seed=0, image_ids=ids)
    assert model.rows == fresh.forwards * len(images) == 2 * 60 * len(images)
    model.rows = 0
    budget = SquareSettings(0.1, 60, 1, fresh=False)
    result = square(model, images, labels, budget, seed=0, image_ids=ids, progress=passes.append)
    assert torch.equal(result.images, fresh.images)
    assert model.rows == sum(passes) == result.forwards * len(images) == 61 * len(images)
    assert result.forwards == budget.forwards


def test_square_lowers_the_true_class_of_a_defense_on_unused_draws() -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    model.classifier.layer.weight.data *= 10
    clean, stripes, perturbed = (
        images,
        add_stripes(images, 0.2, derive_seed(0, "stripes"), ids),
        square(model, images, labels, SquareSettings(0.2, 150, 5), seed=0, image_ids=ids).images,
    )
    true = [
        mean_probabilities(model, batch, 200, 99, ids).gather(1, labels[:, None])
        for batch in (clean, stripes, perturbed)
    ]
    assert (true[2] < true[0]).all()
    assert (true[2] < true[1]).all()


def test_more_queries_never_hurt_on_a_deterministic_model() -> None:
    images, labels, ids = random_images()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)).eval()
    margins = [
        mean_margin(
            model,
            square(model, images, labels, SquareSettings(0.1, queries, 1), seed=0, image_ids=ids).images,
            labels,
            None,
            1,
            0,
            ids,
        )
        for queries in (1, 100)
    ]
    assert (margins[1] > margins[0]).all()


def test_an_attack_on_an_image_follows_from_its_id_and_the_seed() -> None:
    model, (images, labels, ids) = small_defense(), random_images()
    budget = SquareSettings(0.1, 20, 3)
    together, again, other = (
        square(model, images, labels, budget, seed=seed, image_ids=ids).images for seed in (0, 0, 1)
    )
    alone = square(model, images[2:3], labels[2:3], budget, seed=0, image_ids=ids[2:3]).images
    assert torch.equal(alone, together[2:3])
    assert torch.equal(again, together)
    assert not torch.equal(other, together)


@pytest.mark.parametrize(
    ("queries", "expected"),
    [
        (10_000, {0: 29, 10: 29, 11: 20, 50: 20, 51: 14, 201: 10, 501: 7, 1001: 5, 2001: 4, 4001: 3, 8001: 1}),
        (1000, {0: 29, 1: 29, 2: 20, 5: 20, 6: 14, 801: 1, 999: 1}),
    ],
)
def test_sides_follow_the_published_schedule(queries: int, expected: dict[int, int]) -> None:
    budget = SquareSettings(queries=queries, p_init=0.8)
    assert {query: square_side(query, budget, 32, 32) for query in expected} == expected


@pytest.mark.parametrize("side", [1, 3, 5])
def test_squares_are_uniform_in_the_image(side: int) -> None:
    """Every corner is equally likely, and the rest of the image does not change."""
    images, ids = torch.full((4000, 2, 5, 7), 0.5), torch.arange(4000)
    changed = add_square(images, images, 0.25, side, 3, ids) - images
    assert set(changed.unique().tolist()) == {-0.25, 0.0, 0.25}
    is_covered = changed[:, 0] != 0
    assert torch.equal(is_covered, changed[:, 1] != 0)
    assert (is_covered.sum((1, 2)) == side * side).all()
    first = is_covered.flatten(1).int().argmax(1)
    corners, counts = first.unique(return_counts=True)
    places = [(row, column) for row in range(5 - side + 1) for column in range(7 - side + 1)]
    assert corners.tolist() == [row * 7 + column for row, column in places]
    expected = 4000 / len(places)
    assert ((counts - expected).abs() < 5 * expected**0.5).all()
    assert (changed[:, 0].sign() != changed[:, 1].sign()).any()


class Typed(Counting):
    """Records the dtypes of its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        self.dtypes.add(logits.dtype)
        return logits


def test_logits_are_in_float32_under_autocast() -> None:
    images, labels, ids = random_images()
    model, budget = Typed().eval(), SquareSettings(0.1, 20, 1)
    expected = square(model, images, labels, budget, seed=0, image_ids=ids).images
    with torch.autocast("cpu", dtype=torch.bfloat16):
        perturbed = square(model, images, labels, budget, seed=0, image_ids=ids).images
    assert model.dtypes == {torch.float32}
    assert torch.equal(perturbed, expected)
