"""Steps of attacks from a graph: which steps are replays, on which models, and that they change nothing.

A stand-in takes the place of the CUDA graph. ``test_graphs_on_a_gpu`` uses real graphs.
"""

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from attacked_models import Noisy
from dictionaries import unit_atoms
from graphs import StandIn, record_on_the_cpu, records_graphs
from models import random_images
from neuroae import Decoder, Defense, SparseEncoder, resnet32
from neuroae.attacks import APGDSettings, Perturbed, PGDSettings, StraightThrough, apgd, eot_gradient, pgd
from neuroae.attacks.joint import JointSources
from neuroae.attacks.steps import SHARED, StepGradients, is_recordable, shared_graphs
from neuroae.nn.classifiers import DropoutResNet32
from neuroae.nn.efficientnet import EfficientNetB0
from neuroae.nn.front_ends import FrontEndClassifier, GaussianBlur, KSparseAutoencoder
from neuroae.nn.variants import Ensemble
from neuroae.utils.contexts import frozen

PGD = PGDSettings(epsilon=0.1, step_size=0.03, steps=4, realizations=3, chunk=2, restarts=2, momentum=0.5)
APGD = APGDSettings(epsilon=0.1, steps=5, realizations=2, loss="margin")


def defense(surrogate: str = "smooth", **settings: Any) -> Defense:
    torch.manual_seed(0)
    encoder = SparseEncoder(unit_atoms(20, 1, 4), top_t=5, dropout_p=0.5, surrogate="smooth", **settings)
    return Defense(encoder, Decoder(20, 4, 2, 12, 1), classifier()).eval().with_surrogate(surrogate)


def classifier() -> nn.Module:
    return resnet32(10, in_channels=1, mean=(0.3,), std=(0.4,)).eval()


def photos() -> nn.Module:
    pytest.importorskip("torchvision")
    return EfficientNetB0(10).eval()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "smooth": defense,
    "selection": lambda: defense("selection"),
    "selection, unquantized": lambda: defense("selection", quantize=False),
    "autoencoder-identity": lambda: defense("autoencoder-identity"),
    "classifier": classifier,
    "blur": lambda: FrontEndClassifier(GaussianBlur(), classifier()).eval(),
    "k-sparse": lambda: FrontEndClassifier(KSparseAutoencoder(1, 12, 20, 5), classifier()).eval(),
    "photos": photos,
}


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    record_on_the_cpu(monkeypatch, stand_in.record)
    return stand_in


def attacked(model: nn.Module, settings: PGDSettings | APGDSettings, targeted: bool = False) -> Perturbed:
    images, labels, ids = (tensor.to(next(model.parameters()).device) for tensor in inputs(model))
    attack: Callable[..., Perturbed] = pgd if isinstance(settings, PGDSettings) else apgd
    targets = (labels + 1) % 10 if targeted else None
    return attack(model, images, labels, settings, seed=3, image_ids=ids, targets=targets)


def inputs(model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return random_images(3, 3 if isinstance(model, EfficientNetB0) else 1, 8 if isinstance(model, Noisy) else 12)


def assert_same(first: Perturbed, second: Perturbed) -> None:
    for name in ("images", "zero", "invalid"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name


VARIANTS = {
    "targeted": (PGD, True),
    "sign and dlr": (replace(PGD, average="sign", loss="dlr"), False),
    "apgd": (APGD, False),
}


@pytest.mark.parametrize(
    ("name", "settings", "targeted"),
    [*((name, PGD, False) for name in MODELS), *(("selection", *variant) for variant in VARIANTS.values())],
    ids=[*MODELS, *VARIANTS],
)
def test_a_graph_changes_nothing(
    graph: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    settings: PGDSettings | APGDSettings,
    targeted: bool,
) -> None:
    """All gradients but the first are replays."""
    model = MODELS[name]()
    replayed = attacked(model, settings, targeted)
    gradients = settings.gradients // settings.realizations // settings.restarts
    assert (graph.recordings, graph.replays) == (1, gradients - 1)
    records_graphs(monkeypatch, False)
    assert_same(replayed, attacked(model, settings, targeted))
    assert graph.recordings == 1


@pytest.mark.parametrize("name", ["smooth", "selection", "autoencoder-identity"])
def test_every_replay_has_the_draws_of_its_seed(graph: StandIn, name: str) -> None:
    model = MODELS[name]()
    images, labels, ids = inputs(model)
    with frozen(model):
        gradients = StepGradients(
            model, labels, None, ids, realizations=2, chunk=1, average="mean", loss="cross-entropy"
        )
        estimates = [gradients(images, seed) for seed in range(4)]
    assert graph.replays == 3
    for seed, estimate in enumerate(estimates):
        expected = eot_gradient(
            model, images, labels, realizations=2, seed=seed, image_ids=ids, chunk=1, average="mean"
        )
        assert all(map(torch.equal, estimate, expected)), seed
    assert len({estimate.gradient.sum().item() for estimate in estimates}) == 4


def test_graph_and_memory_go_with_the_attack(graph: StandIn) -> None:
    model = classifier()
    images, labels, ids = inputs(model)
    gradients = StepGradients(model, labels, None, ids, realizations=1, chunk=1, average="mean", loss="margin")
    with frozen(model):
        gradients(images, 0), gradients(images, 1)
    assert gradients.repeated is not None
    reference = weakref.ref(gradients.repeated.graph)
    assert reference() is not None
    del gradients
    assert reference() is None


def test_attacks_share_a_graph(graph: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views of one model are the same to a graph. A batch of another size is eager."""
    model, batches = defense(), [random_images(count, 1, 12) for count in (3, 3, 2)]

    def run() -> list[Perturbed]:
        views = [model.with_surrogate("selection") for _ in batches]
        pairs = zip(views, batches, strict=True)
        return [pgd(view, images, labels, PGD, seed=3, image_ids=ids) for view, (images, labels, ids) in pairs]

    with shared_graphs():
        replayed = run()
        reference = weakref.ref(SHARED.get())
    assert (graph.recordings, graph.replays) == (1, 2 * (PGD.steps - 1))
    assert reference() is None
    records_graphs(monkeypatch, False)
    for first, second in zip(replayed, run(), strict=True):
        assert_same(first, second)


def change_setting(model: Defense) -> None:
    model.encoder.top_t = 4


def change_weight(model: Defense) -> None:
    with torch.no_grad():
        model.classifier.linear.weight *= 2


def change_atoms(model: Defense) -> None:
    model.encoder.atoms = unit_atoms(20, 1, 4).flip(0)


def change_statistics(model: Defense) -> None:
    model.classifier.bn1.running_mean = torch.ones_like(model.classifier.bn1.running_mean)


@pytest.mark.parametrize("change", [change_setting, change_weight, change_atoms, change_statistics])
def test_a_model_that_changed_between_attacks_is_recorded_anew(
    graph: StandIn, monkeypatch: pytest.MonkeyPatch, change: Callable[[Defense], None]
) -> None:
    model = defense()
    with shared_graphs():
        attacked(model, PGD)
        change(model)
        replayed = attacked(model, PGD)
    assert graph.recordings == 2
    records_graphs(monkeypatch, False)
    assert_same(replayed, attacked(model, PGD))


@pytest.mark.parametrize(
    "setting", [{"realizations": 2}, {"chunk": 1}, {"average": "mean"}, {"loss": "margin"}], ids=str
)
def test_an_attack_with_other_settings_is_recorded_anew(
    graph: StandIn, monkeypatch: pytest.MonkeyPatch, setting: dict[str, Any]
) -> None:
    model, other = classifier(), replace(PGD, **setting)
    with shared_graphs():
        attacked(model, PGD)
        replayed = [attacked(model, other), attacked(model, other, targeted=True)]
    assert graph.recordings == 3
    records_graphs(monkeypatch, False)
    assert_same(replayed[0], attacked(model, other))
    assert_same(replayed[1], attacked(model, other, targeted=True))


def test_a_recording_that_fails_leaves_the_attack_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = []

    def refuse(function: Callable[[], Any]) -> None:
        recordings.append(function)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    record_on_the_cpu(monkeypatch, refuse)
    with pytest.warns(UserWarning, match=r"^the attack goes on .* may be slower: operation not .* capturing$"):
        eager = attacked(defense(), PGD)
    assert len(recordings) == 1
    records_graphs(monkeypatch, False)
    assert_same(eager, attacked(defense(), PGD))


def with_hook(model: Defense) -> Defense:
    model.classifier.register_forward_hook(lambda *_: None)
    return model


def with_assigned_forward(model: Defense) -> Defense:
    model.classifier.forward = model.classifier.forward
    return model


class Subclass(Defense):
    pass


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "a hook": lambda: with_hook(defense()),
    "an assigned forward": lambda: with_assigned_forward(defense()),
    "a subclass": lambda: Subclass(*defense().children()).eval(),
    "another's model": Noisy,
    "dropout at test time": lambda: DropoutResNet32().eval(),
    "dropout in training mode": lambda: nn.Sequential(nn.Dropout().train(), classifier()),
    "pooling at random": lambda: nn.Sequential(nn.FractionalMaxPool2d(2, 2)).eval(),
    "several sources": lambda: JointSources([classifier()]),
    "an ensemble": lambda: Ensemble(defense(), 2),
    "straight through": lambda: StraightThrough(classifier()),
}


@pytest.mark.parametrize("name", [*MODELS, *OTHERS])
def test_only_models_that_draw_by_seeds_alone_are_recorded(name: str) -> None:
    assert is_recordable({**MODELS, **OTHERS}[name]()) == (name in MODELS)


def test_no_model_is_recorded_under_a_hook_on_all_modules() -> None:
    handle = register_module_forward_hook(lambda *_: None)
    try:
        assert not is_recordable(classifier())
    finally:
        handle.remove()


def test_another_model_is_attacked_as_ever(graph: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's generators are seeded for each realization of every step."""
    model = Noisy().eval()
    eager = attacked(model, PGD)
    assert graph.recordings == 0
    records_graphs(monkeypatch, False)
    assert_same(eager, attacked(model, PGD))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("settings", [PGD, APGD], ids=["pgd", "apgd"])
@pytest.mark.parametrize("name", MODELS)
def test_graphs_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, name: str, settings: PGDSettings | APGDSettings
) -> None:
    """The same bits with cuDNN's deterministic algorithms, and no recording fails."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    model = MODELS[name]().cuda()
    results = []
    for records in (True, False):
        records_graphs(monkeypatch, records)
        results.append(attacked(model, settings))
    assert_same(*results)
    assert not [warning for warning in recwarn if "CUDA graph" in str(warning.message)]
