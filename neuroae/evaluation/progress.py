"""A bar for each attack: images done, time left, and the accuracy so far."""

from typing import Self

from ..progress import progress_bar
from .attack import Perturbation

# A block takes minutes, so the bar moves within it, by parts of images.
FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class Bar:
    """Counts images under an attack.

    Args:
        title: shown in front.
        attack: whose passes make the progress within a block.
        images: that are to be done, those included that were done before.
        done, right: images done before, and those of them that were answered rightly.
    """

    def __init__(self, title: str, attack: Perturbation, images: int, done: int = 0, right: int = 0) -> None:
        self.passes = attack.passes
        self.done = done
        self.right = right
        self.bar = progress_bar(total=images, initial=done, desc=title, unit="img", bar_format=FORMAT)
        self.show()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def crafting(self, passes: int) -> None:
        """So many passes more of the block at hand, over all of its images."""
        self.bar.update(passes / self.passes)

    def scored(self, images: int, right: int) -> None:
        """The block at hand is done: so many images, and so many of them answered rightly."""
        self.done += images
        self.right += right
        self.show()
        self.bar.update(self.done - self.bar.n)

    def show(self) -> None:
        if self.done:
            self.bar.set_postfix(accuracy=f"{self.right / self.done:.1%}", refresh=False)
