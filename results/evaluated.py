"""The images that an evaluation attacked, found again in their data set."""

import torch
from torch import nn

from neuroae.data import ImageSet
from neuroae.evaluation import CLEAN, Results
from neuroae.evaluation.fingerprints import fingerprint


def evaluated(found: Results, model: nn.Module, data: ImageSet) -> ImageSet:
    """Those of the data that the evaluation of the model was on, in the order of its records.

    Raises:
        ValueError: the evaluation was of another model; or the data lacks one of the images, or holds others under
            their numbers.
    """
    if fingerprint(model) != found.manifest["identity"]["model"]["fingerprint"]:
        raise ValueError(f"model is another than the one that {found.folder} evaluates")
    places = {image: place for place, image in enumerate(data.ids.tolist())}
    asked = [record.image for record in found.records[CLEAN]]
    missing = [image for image in asked if image not in places]
    if missing:
        raise ValueError(f"data lacks image {missing[0]} of {found.folder}, and {len(missing) - 1:,} more")
    part = data.take(torch.tensor([places[image] for image in asked]))
    if part.fingerprint() != found.manifest["identity"]["data"]["fingerprint"]:
        raise ValueError(f"data holds other images than those that {found.folder} was made of")
    return part
