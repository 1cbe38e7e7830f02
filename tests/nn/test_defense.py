"""The defense: realizations, ensembles (eq. 8), surrogates that share parameters, and module behaviour."""

import copy
import io
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from dictionaries import unit_atoms
from neuroae import Decoder, Defense, SparseConvTranspose2d, SparseEncoder, resnet32
from neuroae.nn.code import SparseCode
from neuroae.nn.defense import is_plain


class SmallDecoder(nn.Module):
    """A decoder with one layer, so that the model is fast."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = SparseConvTranspose2d(20, 3, 4, 2)

    def forward(self, code: SparseCode) -> Tensor:
        result: Tensor = self.conv1(code).sigmoid()
        return result


@pytest.fixture
def model() -> Defense:
    encoder = SparseEncoder(unit_atoms(20, 3, 4), top_t=8, dropout_p=0.5)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(3 * 10 * 10, 16), nn.Tanh(), nn.Linear(16, 4))
    return Defense(encoder, SmallDecoder(), classifier)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 10, 10, requires_grad=True)


def gradient(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    (result,) = torch.autograd.grad(model(images).square().sum(), images)
    return result


def test_logits_are_those_of_the_parts(model: Defense, images: Tensor) -> None:
    expected = model.classifier(model.decoder(model.encoder.encode(images, seed=1)))
    assert torch.equal(model(images, seed=1), expected)
    torch.testing.assert_close(model.autoencode(images, seed=1), model.decoder(model.encoder.encode(images, seed=1)))


@pytest.mark.parametrize("size", [(10, 12), (14, 14)], ids=str)
def test_images_of_another_size_than_the_decoders_are_refused(model: Defense, size: tuple[int, int]) -> None:
    """The decoder would crop its output to its own size."""
    model.decoder = Decoder(20, 4, 2, image_size=10)
    assert model(torch.rand(2, 3, 10, 10)).shape == (2, 4)
    for call in (model, model.predict_proba, lambda images: model(images, realizations=2)):
        with pytest.raises(ValueError, match=f"images are {size[0]} x {size[1]}, expected 10 x 10, the decoder's"):
            call(torch.rand(2, 3, *size))


def test_realizations_are_drawn_from_one_selection(model: Defense, images: Tensor) -> None:
    logits = model(images, realizations=4, seed=1)
    assert logits.shape == (4, 3, 4)
    torch.testing.assert_close(logits[0], model(images, seed=1))
    selection = model.encoder.select(images)
    for realization in range(4):
        one = model.realize(selection, 1, None, realization, 1)
        torch.testing.assert_close(logits[realization], one)
    assert not torch.equal(logits[0], logits[1])


def test_a_receiver_gets_separate_gradients_of_realizations(model: Defense, images: Tensor) -> None:
    selection = model.encoder.select(images)
    together = gradient(lambda x: model(x, realizations=3, seed=1), images)
    receiver = images.detach().repeat(3, 1, 1, 1).requires_grad_()
    apart = gradient(lambda x: model.realize(selection, 1, None, 0, 3, receiver=x), receiver)
    torch.testing.assert_close(apart.unflatten(0, (3, 3)).sum(0), together)


@pytest.mark.parametrize("ensemble", [1, 3, 10])
def test_predict_proba_is_the_mean_softmax(model: Defense, images: Tensor, ensemble: int) -> None:
    probabilities = model.predict_proba(images, ensemble=ensemble, seed=2)
    expected = model(images, realizations=ensemble, seed=2).softmax(-1).mean(0)
    torch.testing.assert_close(probabilities, expected.detach())
    assert not probabilities.requires_grad


@pytest.mark.parametrize("chunk", [2, 3, 7, 10])
def test_chunks_do_not_change_predictions(model: Defense, images: Tensor, chunk: int) -> None:
    expected = model.predict_proba(images, ensemble=7, seed=2)
    torch.testing.assert_close(model.predict_proba(images, ensemble=7, seed=2, chunk=chunk), expected)


def test_predict_proba_selects_once(model: Defense, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    select = Mock(wraps=model.encoder.select)
    realize = Mock(wraps=model.realize)
    monkeypatch.setattr(model.encoder, "select", select)
    monkeypatch.setattr(model, "realize", realize)
    model.predict_proba(images, ensemble=5, seed=2, chunk=2)
    select.assert_called_once()
    assert [call.args[3:] for call in realize.call_args_list] == [(0, 2), (2, 2), (4, 1)]


def test_predictions_follow_image_ids(model: Defense, images: Tensor) -> None:
    together = model.predict_proba(images, seed=2, image_ids=torch.tensor([5, 6, 7]))
    alone = model.predict_proba(images[1:2], seed=2, image_ids=torch.tensor([6]))
    torch.testing.assert_close(together[1:2], alone)


def test_predictions_without_a_seed_are_fresh_and_governed_by_manual_seed(model: Defense, images: Tensor) -> None:
    torch.manual_seed(1)
    first, second = model.predict_proba(images), model.predict_proba(images)
    torch.manual_seed(1)
    assert torch.equal(model.predict_proba(images), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"ensemble": 0}, "ensemble is 0, expected at least 1"), ({"chunk": 0}, "chunk is 0, expected at least 1")],
    ids=["ensemble", "chunk"],
)
def test_empty_ensembles_are_refused(model: Defense, images: Tensor, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.predict_proba(images, **arguments)


def test_images_that_are_no_tensor_are_refused_by_name(model: Defense, images: Tensor) -> None:
    with pytest.raises(TypeError, match="images is a ndarray, expected a tensor"):
        model.predict_proba(images.detach().numpy())  # type: ignore[arg-type]


def test_no_realizations_are_refused(model: Defense, images: Tensor) -> None:
    with pytest.raises(ValueError, match="realizations is 0, expected at least 1"):
        model(images, realizations=0)


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_dropout_is_on_in_both_modes(model: Defense, images: Tensor, mode: bool) -> None:
    model.train(mode)
    assert not torch.equal(model(images), model(images))
    assert (model.encoder.encode(images).count < 8).any()


@pytest.mark.parametrize("surrogate", ["identity", "smooth-normalized", "autoencoder-identity"])
def test_surrogates_change_the_gradient_alone(model: Defense, images: Tensor, surrogate: str) -> None:
    other = model.with_surrogate(surrogate)
    assert torch.equal(other(images, seed=1), model(images, seed=1))
    assert not torch.allclose(
        gradient(lambda x: other(x, seed=1), images), gradient(lambda x: model(x, seed=1), images)
    )
    again = other.with_surrogate("smooth")
    assert torch.equal(gradient(lambda x: again(x, seed=1), images), gradient(lambda x: model(x, seed=1), images))
    assert model.encoder.surrogate == "smooth"


def test_surrogates_share_parameters(model: Defense, images: Tensor) -> None:
    others = [model.with_surrogate(name) for name in ("identity", "autoencoder-identity")]
    before = model(images, seed=1)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.add_(1.0)
    for other in others:
        assert list(map(id, other.parameters())) == list(map(id, model.parameters()))
        assert torch.equal(other(images, seed=1), model(images, seed=1))
    assert not torch.equal(before, model(images, seed=1))


def test_loading_into_one_is_loading_into_all(model: Defense, images: Tensor) -> None:
    other = model.with_surrogate("identity")
    fresh = Defense(
        SparseEncoder(unit_atoms(20, 3, 4), top_t=8, dropout_p=0.5), SmallDecoder(), copy.deepcopy(model.classifier)
    )
    model.load_state_dict(fresh.state_dict(), strict=True)
    assert torch.equal(other(images, seed=1), fresh(images, seed=1))


def test_autoencoder_identity_is_the_classifiers_gradient_at_the_decoded_image(model: Defense, images: Tensor) -> None:
    """W-AIGA takes the whole autoencoder for the identity."""
    bypass = model.with_surrogate("autoencoder-identity")
    torch.testing.assert_close(bypass(images, seed=1), model(images, seed=1))
    decoded = model.autoencode(images, seed=1).detach().requires_grad_()
    torch.testing.assert_close(gradient(lambda x: bypass(x, seed=1), images), gradient(model.classifier, decoded))


def test_autoencoder_identity_sums_over_realizations(model: Defense, images: Tensor) -> None:
    bypass = model.with_surrogate("autoencoder-identity")
    selection = model.encoder.select(images)
    decoded = [model.decoder(selection.draw(1, start=r)).detach().requires_grad_() for r in range(3)]
    each = [gradient(model.classifier, image) for image in decoded]
    together = gradient(lambda x: bypass(x, realizations=3, seed=1), images)
    torch.testing.assert_close(together, torch.stack(each).sum(0))
    receiver = images.detach().repeat(3, 1, 1, 1).requires_grad_()
    apart = gradient(lambda x: bypass.realize(selection, 1, None, 0, 3, receiver=x), receiver)
    torch.testing.assert_close(apart, torch.cat(each))


def test_an_unknown_surrogate_is_refused(model: Defense) -> None:
    with pytest.raises(ValueError, match=r"surrogate is 'exact', expected one of identity, .*autoencoder-identity"):
        model.with_surrogate("exact")


def test_gradients_reach_decoder_and_classifier(model: Defense, images: Tensor) -> None:
    model(images, seed=1).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_copies_and_files_give_the_same_logits(model: Defense, images: Tensor) -> None:
    expected = model(images, seed=1)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(other(images, seed=1), expected)


def test_bfloat16_does_not_change_the_code(model: Defense, images: Tensor) -> None:
    expected = model.encoder.encode(images, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images, seed=1)
        probabilities = model.predict_proba(images, seed=1)
        code = model.encoder.encode(images, seed=1)
    assert torch.equal(code.value, expected.value)
    assert logits.dtype == torch.bfloat16
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(logits.float(), model(images, seed=1), rtol=0.1, atol=0.02)


@pytest.mark.parametrize("surrogate", ["identity", "autoencoder-identity"])
def test_a_view_works_without_the_original_model(model: Defense, images: Tensor, surrogate: str) -> None:
    expected = model(images, seed=1)
    view = model.with_surrogate(surrogate)
    del model
    copied = copy.deepcopy(view)
    copied.load_state_dict(view.state_dict())
    saved = io.BytesIO()
    torch.save(view, saved)
    saved.seek(0)
    for twin in (copied, torch.load(saved, weights_only=False)):
        twin.load_state_dict(view.state_dict())
        assert torch.equal(twin(images, seed=1), expected)


def test_a_view_has_separate_hooks_and_dead_zones(model: Defense, images: Tensor) -> None:
    expected, called = model(images, seed=1), []
    view = model.with_surrogate("identity")
    view.register_forward_hook(lambda *_: called.append("view"))
    view.encoder.epsilon = 0.2
    assert torch.equal(model(images, seed=1), expected)
    assert not called
    assert not torch.equal(view(images, seed=1), expected)
    assert called == ["view"]


def test_w_aiga_in_bfloat16(model: Defense, images: Tensor) -> None:
    """The decoded image does not change and keeps its dtype."""
    model = model.bfloat16()
    logits = model.with_surrogate("autoencoder-identity")(images, seed=1)
    assert torch.equal(logits, model(images, seed=1))
    logits.sum().backward()
    assert images.grad.abs().sum() > 0


def test_a_defense_with_an_altered_encoder_is_not_plain(model: Defense) -> None:
    """Attacks on a plain defense skip its encoder's ``forward`` and hooks."""

    class Other(SparseEncoder):
        pass

    assert is_plain(model)
    model.encoder.register_forward_hook(lambda *_: None)
    assert not is_plain(model)
    model.encoder = Other(model.encoder.atoms, top_t=8)
    assert not is_plain(model)


def test_every_layer_computes_in_channels_last_and_bfloat16_under_autocast() -> None:
    """The layout and the dtype in which tensor cores are fastest."""
    model = Defense(SparseEncoder(unit_atoms(20, 3, 4), top_t=5), Decoder(20), resnet32()).eval()
    outputs = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert layer.weight.is_contiguous(memory_format=torch.channels_last), name
            layer.register_forward_hook(lambda _, inputs, output, name=name: outputs.update({name: output}))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        model(torch.rand(2, 3, 32, 32))
    assert len(outputs) == 3 + 31
    for name, output in outputs.items():
        assert output.dtype == torch.bfloat16, name
        assert output.is_contiguous(memory_format=torch.channels_last), name
