"""Evaluations that two processes of torchrun share: shared_evaluation.py FOLDER...

At the end, the processes start different evaluations, which must be refused.
"""

import sys
from pathlib import Path

import torch

from killed_evaluation import FEW_STEPS
from neuroae.evaluation import run_evaluation
from neuroae.evaluation.checks import sanity
from neuroae.utils import distributed
from small_evaluation import small_evaluation


def refused(folder: Path) -> str:
    try:
        run_evaluation(small_evaluation(seed=distributed.rank()), folder)
    except ValueError as error:
        return str(error)
    return ""


def main(folders: list[Path]) -> None:
    sanity.STEPS = FEW_STEPS
    with distributed.group(torch.device("cpu")):
        assert distributed.world_size() == 2
        for folder in folders:
            assert len(run_evaluation(small_evaluation(), folder).records) == 3
        assert "different evaluations" in refused(folders[0])


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
