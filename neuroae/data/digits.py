"""Handwritten digits that come with scikit-learn (UCI Optical Recognition of Handwritten Digits): 8 x 8, 17 grays."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from .images import ImageSet

TEST_IMAGES = 500
SPLIT_SEED = 0


def digits(split: str) -> ImageSet:
    """The 1,297 training or 500 test images: a fixed split, the classes in equal shares in both."""
    bunch = load_digits()
    train, test = train_test_split(
        range(len(bunch.target)), test_size=TEST_IMAGES, random_state=SPLIT_SEED, stratify=bunch.target
    )
    chosen = sorted({"train": train, "test": test}[split])
    return ImageSet(
        name=f"digits {split}",
        images=torch.from_numpy(bunch.images[chosen]).to(torch.uint8).unsqueeze(1),
        labels=torch.from_numpy(bunch.target[chosen]).long(),
        ids=torch.arange(len(chosen)),
        classes=tuple(str(name) for name in bunch.target_names),
        white=16,
    )
