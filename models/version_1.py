"""Checkpoints of this project's first version, as the content of version 2."""

from typing import Any

from path import Path
from torch import Tensor

from files.errors import InputError
from models.layers import MAX_WIDTH

# Arguments of PoseExpNet, and the names that version 1 had for them.
_POSE_ARGUMENTS = {
    "translation_scale": "translation_scale",
    "rotation_scale": "rotation_scale",
    "orbit_depth": "fixation_depth",
    "rotation": "rotation",
}
_OBJECTIVE = (
    *("photometric_weight", "smoothness_weight", "smoothness_decay", "smoothed"),
    *("explainability", "explainability_weight"),
)
_RECORD = ("height", "width", "snippets", "processes", "total_steps", "scenes")


def upgrade(content: dict[str, Any], file: Path) -> dict[str, Any]:
    """The content of a version-1 checkpoint in the form of version 2; `file` is named in errors."""
    missing = {"step", "config", "best", "disp_net", "pose_exp_net", "optimizer"} - content.keys()
    if missing:
        raise InputError(f"{file}: damaged checkpoint: it lacks {', '.join(sorted(missing))}")
    for name in ("config", "disp_net", "pose_exp_net"):
        if not isinstance(content[name], dict):
            found = type(content[name]).__name__
            raise InputError(f"{file}: damaged checkpoint: its {name} is of type {found}, expected dict")
    config = content["config"]
    depth = describe_disp_net(content["disp_net"], file)
    pose = describe_pose_exp_net(content["pose_exp_net"], file)
    pose["arguments"] |= {new: config[old] for new, old in _POSE_ARGUMENTS.items() if old in config}
    options = {name: value for name, value in config.items() if name not in (*_OBJECTIVE, *_RECORD)}
    options |= {
        "objective": {name: config[name] for name in _OBJECTIVE if name in config},
        "depth_net": depth | {"arguments": depth["arguments"] | _if_there(config, "first_disparity")},
        "pose_net": {
            "name": pose["name"],
            "arguments": {k: v for k, v in pose["arguments"].items() if k not in ("sources", "explainability")},
        },
        "check": config.get("no_check") is not True,
    }
    record = {name: config[name] for name in _RECORD if name in config}
    kept = ("torch", "step", "best", "skipped", "validation_due", "damaged", "optimizer")
    return {name: content[name] for name in kept if name in content} | {
        "format": content["format"],
        "version": 2,
        "options": options,
        "record": record,
        "networks": {"depth": depth, "pose": pose, "camera": {"name": "given", "arguments": {}}},
        "model": {
            **{f"depth_net.{name}": tensor for name, tensor in content["disp_net"].items()},
            **{f"pose_net.{name}": tensor for name, tensor in content["pose_exp_net"].items()},
        },
    }


def describe_disp_net(weights: Any, file: Path) -> dict[str, Any]:
    """Name and arguments of the DispNet that these weights are of."""
    return {"name": "disp_net", "arguments": {"width": _width(weights, "upconv1.0.bias")}}


def describe_pose_exp_net(weights: Any, file: Path) -> dict[str, Any]:
    """Name and arguments of the PoseExpNet that these weights are of; InputError for weights of something else."""
    head = weights.get("pose_pred.weight") if isinstance(weights, dict) else None
    if not isinstance(head, Tensor) or head.ndim != 4 or head.shape[0] not in range(6, 600, 6):
        raise InputError(f"{file}: no checkpoint of PoseExpNet: pose_pred.weight is missing or of another shape")
    arguments = {
        "sources": head.shape[0] // 6,
        "explainability": "predict_mask1.weight" in weights,
        "width": _width(weights, "conv1.0.bias"),
    }
    return {"name": "pose_exp_net", "arguments": arguments}


def _width(weights: Any, name: str) -> float:
    """The share of the paper's channels, from a bias that has 16 values in the paper's network."""
    bias = weights.get(name) if isinstance(weights, dict) else None
    # A weight that is missing is named when the weights are loaded.
    known = isinstance(bias, Tensor) and bias.ndim == 1 and 1 <= len(bias) <= 16 * MAX_WIDTH
    return len(bias) / 16 if known else 1.0  # type: ignore[arg-type]


def _if_there(config: dict[str, Any], name: str) -> dict[str, Any]:
    return {name: config[name]} if name in config else {}
