"""Named recipes: the options by which a paper trains. `python train.py --print-recipe` prints one."""

from typing import Any

# What a recipe changes in the defaults of `training.options.TrainOptions`. Fields of the objective stand among them.
RECIPES: dict[str, dict[str, Any]] = {
    # Zhou et al., CVPR 2017, sections 3 and 4.1: depth is trained on snippets of 3 frames. It is the defaults.
    "paper-depth": {},
    # Section 4.3: pose is trained and tested on snippets of 5 frames.
    "paper-pose": {"sequence_length": 5},
}
