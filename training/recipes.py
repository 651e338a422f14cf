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
    # Godard et al., "Digging into Self-Supervised Monocular Depth Estimation", ICCV 2019, sections 3 and 4: monocular
    # training, ResNet-18, 20 epochs in batches of 12, rate 1e-4, a tenth of it for the last 5 epochs.
    "monodepth2": {
        "depth_net": NetworkSpec("resnet18"),
        "pose_net": NetworkSpec("pair_pose_net", {"encoder": "resnet18"}),
        "encoder_weights": "imagenet",
        "explainability": False,
        "photometric_error": "ssim",
        "error_range": "unit",
        "over_sources": "minimum",
        "over_scales": "mean",
        "padding": "border",
        "auto_mask": "minimum",
        "scale_size": "full",
        "smoothness": "edge-aware",
        "smoothed": "normalised-disparity",
        "smoothness_weight": 1e-3,
        "batch_size": 12,
        "epochs": 20,
        "learning_rate": 1e-4,
        "schedule": "step",
        "augmentation": "flip",
    },
    # Bian et al., "Unsupervised Scale-consistent Depth Learning from Video", IJCV 2021 (SC-SfMLearner, NeurIPS 2019,
    # with ResNet-18): one scale, 200 epochs of 1000 batches of 4, rate 1e-4.
    "sc-depth": {
        "depth_net": NetworkSpec("resnet18"),
        "pose_net": NetworkSpec("pair_pose_net", {"encoder": "resnet18"}),
        "encoder_weights": "imagenet",
        "explainability": False,
        "photometric_error": "ssim",
        "error_range": "normalised",
        "largest_difference": 1.0,
        "over_pixels": "valid",
        "auto_mask": "exclude",
        "scales": 1,
        "smoothness": "edge-aware",
        "smoothed": "normalised-depth",
        "smoothness_weight": 0.1,
        "geometry_weight": 0.5,
        "geometry_mask": True,
        "batch_size": 4,
        "steps": 200_000,
        "learning_rate": 1e-4,
    },
    # The best that was found for short trainings on small images (docs/experiments.md).
    "small": {
        "depth_net": NetworkSpec("mobilenet_v2", {"first_disparity": 1.0}),
        "pose_net": NetworkSpec(
            "pose_exp_net", {"width": 0.5, "translation_scale": 0.05, "rotation_scale": 0.2, "orbit_depth": 1.0}
        ),
        "explainability": False,
        "align_steps": 3,
        "scale_weight": 0.1,
        "scales": 3,
        "smoothed": "normalised-disparity",
        "smoothness_weight": 0.02,
        "batch_size": 8,
        "steps": 3000,
        "learning_rate": 2e-3,
        "beta2": 0.99,
        "schedule": "cosine",
        "augmentation": "flip",
        "channels_last": True,
    },
}

# Width and height of the images that each recipe was published with; `small` takes those of the demo.
RECIPE_IMAGES = {
    "paper-depth": (416, 128),
    "paper-pose": (416, 128),
    "monodepth2": (640, 192),
    "sc-depth": (832, 256),
    "small": (208, 64),
}
