"""Default settings for each data set, and models with these settings."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from ..data import ImageSet
from ..dictionary import learn_dictionary
from ..nn.architectures import CLASSIFIERS
from ..nn.classifiers import CIFAR10_MEAN, CIFAR10_STD
from ..nn.decoder import Decoder
from ..nn.defense import Defense
from ..nn.efficientnet import IMAGENET_MEAN, IMAGENET_STD
from ..nn.encoder import SparseEncoder
from ..nn.front_ends import FrontEndClassifier, GaussianBlur, KSparseAutoencoder
from ..nn.normalization import NormalizingClassifier
from ..utils.contexts import drawing_from
from ..utils.randomness import derive_seed

ClassifierName = Literal["resnet32", "efficientnet-b0", "dropout-resnet32"]
FrontEndName = Literal["none", "k-sparse-autoencoder", "gaussian-blur"]
# Fields of later versions, and the value of presets without them: identities of trainings omit them then.
LATER_FIELDS = {"classifier": "resnet32", "resize": False, "front_end": "none"}
# The first layer of the published decoder for Imagenette, whose output is resized.
RESIZED_KERNEL, RESIZED_STRIDE = 3, 1


@dataclass(frozen=True)
class Preset:
    """The default settings for a data set. Budgets are on the scale of pixels in [0, 1].

    Attributes:
        mean, std: Mean and standard deviation of the pixels in each channel, for the classifier.
        patch, atoms, regularization, iterations, dictionary_batch: Settings of the dictionary (``learn_dictionary``);
            ``atoms`` is the number of atoms.
        stride, top_t, dropout_p, beta, quantize: Settings of the encoder (``SparseEncoder``).
        epsilon: The budget that the encoder's dead zone is designed for, and the budget of attacks.
        step_size: The step size of attacks.
        learning_rate, epochs, augment: Settings of training.
        decoder_epochs: The epochs of the decoder in unsupervised training.
        classifier: The classifier's architecture, a key of ``nn.architectures.CLASSIFIERS``.
        resize: Whether the decoder is the published one for Imagenette, which resizes its first layer's output;
            otherwise it consists of three transposed convolutions.
        front_end: The front end of a classifier without a defense; "none" for none.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch: int
    atoms: int
    regularization: float
    iterations: int
    dictionary_batch: int
    stride: int
    top_t: int
    dropout_p: float
    beta: float
    quantize: bool
    epsilon: float
    step_size: float
    learning_rate: float
    epochs: int
    decoder_epochs: int
    augment: bool
    classifier: ClassifierName = "resnet32"
    resize: bool = False
    front_end: FrontEndName = "none"

    def identity(self) -> dict[str, Any]:
        """Returns the fields by name, without later fields that have the value of earlier presets."""
        fields = asdict(self).items()
        return {name: value for name, value in fields if name not in LATER_FIELDS or value != LATER_FIELDS[name]}

    def step_at(self, epsilon: float) -> float:
        """Returns the step size for attacks with another epsilon, in the same proportion to epsilon."""
        return self.step_size * epsilon / self.epsilon or self.step_size


# The paper, section 5.1.
CIFAR10 = Preset(
    mean=CIFAR10_MEAN,
    std=CIFAR10_STD,
    patch=4,
    atoms=500,
    regularization=1.0,
    iterations=1000,
    dictionary_batch=5,
    stride=2,
    top_t=50,
    dropout_p=0.95,
    beta=3.0,
    quantize=True,
    epsilon=8 / 255,
    step_size=1 / 225,
    learning_rate=0.05,
    epochs=70,
    decoder_epochs=50,
    augment=True,
)
# Also from the paper.
IMAGENETTE = replace(
    CIFAR10,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    patch=8,
    atoms=1000,
    regularization=0.5,
    iterations=10_000,
    stride=4,
    epochs=100,
    classifier="efficientnet-b0",
)
PRESETS = {
    # An image has only nine patches, so a larger share of the coefficients is kept. The budget is 3 of 16 gray levels,
    # which breaks a plain classifier. beta is small, because with beta = 3 the dead zone would cover half the range of
    # pixels. The learning rate is small, because at 0.05 the decoder's output would saturate within these few steps,
    # and hide the gradient from attacks.
    "digits": Preset(
        mean=(0.3053,),
        std=(0.3761,),
        patch=4,
        atoms=160,
        regularization=0.2,
        iterations=200,
        dictionary_batch=32,
        stride=2,
        top_t=15,
        dropout_p=0.5,
        beta=1.25,
        quantize=True,
        epsilon=3 / 16,
        step_size=3 / 128,
        learning_rate=0.01,
        epochs=8,
        decoder_epochs=4,
        augment=False,
    ),
    "cifar10": CIFAR10,
    "imagenette": IMAGENETTE,
    # These images may be small, for which EfficientNet-B0 is not made.
    "image-folder": replace(IMAGENETTE, classifier="resnet32"),
}


def make_dictionary(preset: Preset, data: ImageSet, seed: int) -> Tensor:
    """Learns atoms (L, C, n, n) from the images."""
    return learn_dictionary(
        data,
        num_atoms=preset.atoms,
        patch=preset.patch,
        regularization=preset.regularization,
        iterations=preset.iterations,
        batch_size=preset.dictionary_batch,
        seed=seed,
    )


def make_classifier(preset: Preset, classes: int, seed: int) -> NormalizingClassifier:
    """Returns an untrained classifier with weights drawn by the seed."""
    with drawing_from(derive_seed(seed, "classifier weights")):
        kind: Callable[..., NormalizingClassifier] = CLASSIFIERS[preset.classifier]
        return kind(classes, len(preset.mean), preset.mean, preset.std)


def make_undefended(preset: Preset, image_size: tuple[int, int], classes: int, seed: int) -> nn.Module:
    """Returns an untrained classifier without the defense, behind the preset's front end if it has one.

    Args:
        preset: The settings.
        image_size: Height and width of the images.
        classes: The number of classes.
        seed: The seed of the weights.
    """
    classifier = make_classifier(preset, classes, seed)
    if preset.front_end == "none":
        return classifier
    if preset.front_end == "gaussian-blur":
        return FrontEndClassifier(GaussianBlur(), classifier)
    with drawing_from(derive_seed(seed, "front end weights")):
        return FrontEndClassifier(KSparseAutoencoder(len(preset.mean), image_size), classifier)


def make_defense(preset: Preset, atoms: Tensor, image_size: tuple[int, int], classes: int, seed: int) -> Defense:
    """Returns an untrained defense with weights drawn by the seed. L and n are those of ``atoms``."""
    encoder = SparseEncoder(
        atoms,
        stride=preset.stride,
        top_t=preset.top_t,
        dropout_p=preset.dropout_p,
        epsilon=preset.epsilon,
        beta=preset.beta,
        quantize=preset.quantize,
    )
    num_atoms, channels, patch = atoms.shape[:3]
    with drawing_from(derive_seed(seed, "decoder weights")):
        kernel, stride = (RESIZED_KERNEL, RESIZED_STRIDE) if preset.resize else (patch, preset.stride)
        decoder = Decoder(num_atoms, kernel, stride, image_size, channels, preset.resize)
    return Defense(encoder, decoder, make_classifier(preset, classes, seed))
