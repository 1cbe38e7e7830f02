"""The images that an evaluation attacked, found again in their data set."""

import torch

from neuroae.data import ImageSet
from neuroae.evaluation import CLEAN, Results


def evaluated(found: Results, data: ImageSet) -> ImageSet:
    """Those of the data that the evaluation was on, in the order of its records.

    Raises:
        ValueError: the data lacks one of them, or holds other images under their numbers.
    """
    places = {image: place for place, image in enumerate(data.ids.tolist())}
    asked = [record.image for record in found.records[CLEAN]]
    missing = [image for image in asked if image not in places]
    if missing:
        raise ValueError(f"data lacks image {missing[0]} of {found.folder}, and {len(missing) - 1:,} more")
    part = data.take(torch.tensor([places[image] for image in asked]))
    if part.fingerprint() != found.manifest["identity"]["data"]["fingerprint"]:
        raise ValueError(f"data holds other images than those that {found.folder} was made of")
    return part
