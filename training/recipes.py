"""Named recipes: which terms the objective has, and what each weighs.

`python train.py --print-recipe` prints one; every field has a flag of the same name.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from files.errors import InputError

SMOOTHED = ("disparity", "normalised-disparity", "depth")


def _weight(default: Any, meaning: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": meaning})


@dataclass(frozen=True)
class Recipe:
    """The objective in numbers: sum of weight x term; symbols as in the paper's section 3."""

    sequence_length: int = _weight(3, "frames of a snippet; the middle one is the target, the others its sources")
    photometric_weight: float = _weight(1.0, "of L_vs, the photometric error (eq. 3)")
    smoothness_weight: float = _weight(0.5, "lambda_s, of L_smooth at the finest scale")
    smoothness_decay: float = _weight(2.0, "scale s weighs smoothness-weight / smoothness-decay^s")
    smoothed: str = _weight("disparity", "what L_smooth smooths: " + ", ".join(SMOOTHED))
    explainability: bool = _weight(True, "predict masks that weigh the photometric error")
    explainability_weight: float = _weight(0.2, "lambda_e, of L_reg, the cross-entropy of the masks to 1")

    def __post_init__(self) -> None:
        if self.sequence_length < 3 or self.sequence_length % 2 == 0:
            raise InputError(f"sequence length is {self.sequence_length}, expected an odd number of frames from 3 on")
        if self.smoothed not in SMOOTHED:
            raise InputError(f"smoothed is {self.smoothed!r}, expected one of {', '.join(SMOOTHED)}")
        for name in ("photometric_weight", "smoothness_weight", "explainability_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name.replace('_', '-')} is {getattr(self, name)}, expected a number from 0 on")
        if not 0 < self.smoothness_decay < float("inf"):
            raise InputError(f"smoothness-decay is {self.smoothness_decay}, expected a number above 0")
        if self.explainability and self.explainability_weight == 0:
            raise InputError(
                "the explainability mask with weight 0 is best at 0 everywhere, and nothing is learnt: "
                "give it a weight, or switch it off with --no-explainability"
            )


RECIPES = {
    "paper-depth": Recipe(),  # section 3 and 4.1: depth is trained on snippets of 3 frames
    "paper-pose": Recipe(sequence_length=5),  # section 4.3: pose is trained and tested on snippets of 5 frames
}


def get_recipe(name: str, **changes: Any) -> Recipe:
    """The named recipe with some fields changed; InputError for an unknown name or a value that cannot be."""
    if name not in RECIPES:
        raise InputError(f"unknown recipe {name!r}, expected one of {', '.join(RECIPES)}")
    return dataclasses.replace(RECIPES[name], **changes)
