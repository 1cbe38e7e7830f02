"""What an evaluation attacked, found again: its images in their data set, and its model."""

import torch
from torch import nn

from neuroae.data import ImageSet
from neuroae.evaluation import CLEAN, MODES, Results
from neuroae.evaluation.statistics import papers_minimum
from neuroae.models.fingerprints import fingerprint

SMOOTH, _ = MODES["w-nfga-smooth"]


def evaluated(found: Results, data: ImageSet) -> ImageSet:
    """Those of the data that the evaluation was on, in the order of its records.

    Raises:
        ValueError: the data lacks one of the images, or holds others under their numbers.
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


def require_evaluated(found: Results, model: nn.Module) -> None:
    """Refuses a model that is not the one that the evaluation attacked."""
    if fingerprint(model) != found.manifest["identity"]["model"]["fingerprint"]:
        raise ValueError(f"model is another than the one that {found.folder} evaluates")


def pictured(found: Results) -> list[str]:
    """The attacks of which a picture stays legible: W-NFGA smooth, and the PW-T that leaves the lowest accuracy.

    They are those of the paper's Figure 4. An evaluation that has neither is pictured with all of its attacks.
    """
    attacks = {name: records for name, records in found.records.items() if name != CLEAN}
    pw_t = {name: records for name, records in attacks.items() if found.attack(name)["family"] == "PW-T"}
    chosen = [SMOOTH] if SMOOTH in attacks else []
    if pw_t:
        chosen.append(papers_minimum(pw_t)[0])
    return chosen or list(attacks)
