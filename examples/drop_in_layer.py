"""The sparse encoder as a layer of a network of one's own: ``python examples/drop_in_layer.py``, half a minute.

The encoder turns an image into a sparse code: a few signed atoms for each patch, drawn anew in every call. Any layer
can read the code. Only the layers behind the encoder learn; its atoms come from patches of the training images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroae import SparseEncoder
from neuroae.data import load_dataset
from neuroae.dictionary import learn_dictionary

EPOCHS = 8
REALIZATIONS = 10


class CodeClassifier(nn.Module):
    """A classifier that reads the code itself, without a decoder."""

    def __init__(self, encoder: SparseEncoder, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.norm = nn.BatchNorm2d(len(encoder.atoms))
        self.layers = nn.Sequential(nn.Conv2d(len(encoder.atoms), 64, 3), nn.ReLU(), nn.Flatten())
        self.head = nn.LazyLinear(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, classes) of one realization; images are (B, 1, H, W) float32 in [0, 1]."""
        return self.head(self.layers(self.norm(self.encoder(images))))


def main() -> None:
    torch.manual_seed(0)
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    atoms = learn_dictionary(train, num_atoms=100, patch=4, regularization=0.2, iterations=200, batch_size=32, seed=0)
    model = CodeClassifier(SparseEncoder(atoms, stride=1, top_t=20, dropout_p=0.5, epsilon=0.05), num_classes=10)
    model(train.pixels()[:2])  # measures the size of the code
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(train)).split(64):
            loss = F.cross_entropy(model(train.pixels()[rows]), train.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

    model.eval()  # the encoder goes on drawing, so the answer is the mean of several calls
    with torch.no_grad():
        answers = sum(model(test.pixels()).softmax(-1) for _ in range(REALIZATIONS))
    print(f"{(answers.argmax(-1) == test.labels).float().mean():.1%} of {len(test)} test images, {REALIZATIONS} draws")


if __name__ == "__main__":
    main()
