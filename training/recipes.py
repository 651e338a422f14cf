"""Named recipes: the options by which a paper trains. `python train.py --print-recipe` prints one.

docs/recipes.md has the sources, the published figures and the commands.
"""

from typing import Any

from models import NetworkSpec

# What a recipe changes in the defaults of `training.options.TrainOptions`. Fields of the objective stand among them.
RECIPES: dict[str, dict[str, Any]] = {
    # Zhou et al., CVPR 2017, sections 3 and 4.1: depth is trained on snippets of 3 frames. It is the defaults.
    "paper-depth": {},
    # Section 4.3: pose is trained and tested on snippets of 5 frames.
    "paper-pose": {"sequence_length": 5},
    # The best that was found for short trainings on small images (docs/experiments.md).
    "small": {
        "depth_net": NetworkSpec("disp_net", {"width": 0.5, "first_disparity": 1.2}),
        "pose_net": NetworkSpec(
            "pose_exp_net", {"width": 0.5, "translation_scale": 0.1, "rotation_scale": 0.2, "orbit_depth": 0.83}
        ),
        "smoothed": "depth",
        "smoothness_weight": 0.02,
        "batch_size": 8,
        "steps": 3000,
        "learning_rate": 1.1e-3,
        "schedule": "cosine",
        "augmentation": "flip",
    },
}

# Width and height of the images that each recipe was published with; `small` takes those of the demo.
RECIPE_IMAGES = {
    "paper-depth": (416, 128),
    "paper-pose": (416, 128),
    "small": (208, 64),
}
