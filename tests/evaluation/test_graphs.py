"""The blocks of an attack in an evaluation share one graph of its steps."""

import pytest
import torch

from dictionaries import unit_atoms
from graphs import StandIn, record_on_the_cpu, records_graphs
from neuroae import Decoder, Defense, SparseEncoder, resnet32
from neuroae.attacks import PGDSettings
from neuroae.data import ImageSet
from neuroae.evaluation import Evaluation, Scoring, attacks_from, run_evaluation

SETTINGS = PGDSettings(0.1, 0.05, steps=3, realizations=2)
MODES = ["w-aiga", "w-nfga-smooth", "selection"]


def evaluation() -> Evaluation:
    """Returns an evaluation of three attacks on two blocks of 3 images and one of 2."""
    classifier = resnet32(10, in_channels=1, mean=(0.3,), std=(0.4,))
    model = Defense(SparseEncoder(unit_atoms(20, 1, 4), top_t=5), Decoder(20, 4, 2, 12, 1), classifier).eval()
    images = torch.randint(256, (8, 1, 12, 12), dtype=torch.uint8)
    data = ImageSet("random test", images, torch.arange(8), torch.arange(8) * 3, tuple("abcdefghij"))
    return Evaluation(model, data, attacks_from(model, SETTINGS, MODES), Scoring(2, 3), 3, "small")


def test_blocks_share_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last block, which is smaller, is eager."""
    graph, judged = StandIn(), evaluation()
    record_on_the_cpu(monkeypatch, graph.record)
    replayed = run_evaluation(judged)
    assert (graph.recordings, graph.replays) == (len(MODES), len(MODES) * 2 * (SETTINGS.steps - 1))
    records_graphs(monkeypatch, False)
    eager = run_evaluation(judged)
    assert replayed.records == eager.records
    for name in eager.records:
        assert torch.equal(replayed.images(name), eager.images(name)), name
