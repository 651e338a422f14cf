"""Checkpoints that other projects have published, as names, arguments and weights of networks of this one.

The well-known PyTorch port (https://github.com/ClementPinard/SfmLearner-Pytorch): `{'epoch', 'state_dict'}`, a file for
each network. SC-SfMLearner (https://github.com/JiawangBian/SC-SfMLearner-Release): likewise, with ResNet encoders.
monodepth2 (https://github.com/nianticlabs/monodepth2): a folder with four files of weights.
"""

import re
from dataclasses import dataclass
from typing import Any

from path import Path
from torch import Tensor

from files.errors import InputError
from models import version_1
from models.torch_files import read_torch_file

DEPTH_FILES, POSE_FILES = ("encoder.pth", "depth.pth"), ("pose_encoder.pth", "pose.pth")  # monodepth2's
_POSE_LAYERS = {"net.0": "squeeze", "net.1": "conv1", "net.2": "conv2", "net.3": "pose_pred"}


@dataclass
class OtherNetworks:
    """What the checkpoint of another project holds: the depth network, the pose network or both, by role."""

    specs: dict[str, dict[str, Any]]  # {"depth" | "pose": {"name", "arguments"}}, for `models.NetworkSpec`
    weights: dict[str, dict[str, Any]]  # with this project's names; not checked
    height: Any = None  # of the training's images, where the file says; not checked
    width: Any = None


def is_monodepth2(folder: Path) -> bool:
    """Whether a folder has one of monodepth2's files."""
    return any((folder / name).is_file() for name in (*DEPTH_FILES, *POSE_FILES))


def read_monodepth2(folder: Path) -> OtherNetworks:
    """The networks in a folder of monodepth2: depth in two files, and pose in two more where they are there.

    Raises:
        InputError: a file is missing, damaged or of something else.
    """
    there = [name for name in (*DEPTH_FILES, *POSE_FILES) if (folder / name).is_file()]
    wanted = DEPTH_FILES + (POSE_FILES if set(there) & set(POSE_FILES) else ())
    missing = [name for name in wanted if name not in there]
    if missing:
        found = f"found {', '.join(there)}" if there else "found none of monodepth2's files"
        raise InputError(f"{folder / missing[0]}: no such file, expected {', '.join(wanted)}; {found}")
    contents = {name: without_module(read_torch_file(folder / name)) for name in wanted}
    size = contents["encoder.pth"]
    result = OtherNetworks({}, {}, size.get("height"), size.get("width"))
    weights = {
        name: {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        for name, content in contents.items()
    }
    encoder = _encoder_name(weights["encoder.pth"], "encoder.")
    result.specs["depth"] = {"name": encoder, "arguments": {"statistics": "monodepth2"}}
    result.weights["depth"] = _renamed_encoder(weights["encoder.pth"], "encoder.")
    result.weights["depth"] |= _renamed_depth_decoder(weights["depth.pth"], "decoder.")
    if "pose.pth" in wanted:
        encoder = _encoder_name(weights["pose_encoder.pth"], "encoder.")
        result.specs["pose"] = {
            "name": "pair_pose_net",
            "arguments": {"encoder": encoder, "statistics": "monodepth2"},
        }
        result.weights["pose"] = _renamed_encoder(weights["pose_encoder.pth"], "encoder.")
        result.weights["pose"] |= _first_pose(_renamed_pose_decoder(weights["pose.pth"], ""), folder / "pose.pth")
    return result


def read_state_dict(weights: dict[str, Any], file: Path) -> OtherNetworks:
    """The network whose weights a checkpoint of the PyTorch port or of SC-SfMLearner has in its entry `state_dict`."""
    weights = without_module({str(name): value for name, value in weights.items()})
    if "encoder.encoder.conv1.weight" in weights:
        encoder = _encoder_name(weights, "encoder.encoder.")
        own = _renamed_encoder({k: v for k, v in weights.items() if k.startswith("encoder.")}, "encoder.encoder.")
        others = {k: v for k, v in weights.items() if not k.startswith("encoder.")}
        if "decoder.net.0.weight" in weights:
            own |= _renamed_pose_decoder(others, "decoder.")
            arguments: dict[str, Any] = {
                "encoder": encoder,
                "order": "target-first",
                "rotation": "euler",
                "statistics": "monodepth2",
            }
            return OtherNetworks({"pose": {"name": "pair_pose_net", "arguments": arguments}}, {"pose": own})
        own |= _renamed_depth_decoder(others, "decoder.decoder.")
        arguments = {"max_disparity": 10.01, "statistics": "monodepth2"}
        return OtherNetworks({"depth": {"name": encoder, "arguments": arguments}}, {"depth": own})
    if "pose_pred.weight" in weights:
        return OtherNetworks({"pose": version_1.describe_pose_exp_net(weights, file)}, {"pose": weights})
    return OtherNetworks({"depth": version_1.describe_disp_net(weights, file)}, {"depth": weights})


def without_module(weights: dict[str, Any]) -> dict[str, Any]:
    """Weights without the `module.` that DataParallel puts before their names. Other entries stay."""
    names = [str(name) for name, value in weights.items() if isinstance(value, Tensor)]
    if names and all(name.startswith("module.") for name in names):
        return {str(name).removeprefix("module."): value for name, value in weights.items()}
    return weights


def _encoder_name(weights: dict[str, Any], prefix: str) -> str:
    """A ResNet-50 has blocks of three convolutions. Whether all weights fit is checked when they are loaded."""
    return "resnet50" if f"{prefix}layer1.0.conv3.weight" in weights else "resnet18"


def _renamed_encoder(weights: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The encoder's weights, without the classifier's last layer, which it keeps unused."""
    own = {name: tensor for name, tensor in weights.items() if not name.startswith(f"{prefix}fc.")}
    return {
        f"encoder.network.{name.removeprefix(prefix)}" if name.startswith(prefix) else name: tensor
        for name, tensor in own.items()
    }


def _renamed_depth_decoder(weights: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Theirs are numbered: a convolution before and one after each of five skip connections, then four heads."""
    return {_depth_decoder_name(name, prefix): tensor for name, tensor in weights.items()}


def _depth_decoder_name(name: str, prefix: str) -> str:
    match = re.fullmatch(rf"{re.escape(prefix)}(\d\d?)\.(conv\.conv|conv)\.(weight|bias)", name)
    if match is None:
        return name
    number, kind = int(match[1]), match[3]
    if number >= 10:
        return f"decoder.heads.{number - 10}.{kind}"
    return f"decoder.{'after' if number % 2 else 'before'}.{number // 2}.{kind}"


def _renamed_pose_decoder(weights: dict[str, Any], prefix: str) -> dict[str, Any]:
    renamed = {}
    for name, tensor in weights.items():
        layer, _, kind = name.removeprefix(prefix).rpartition(".")
        renamed[f"{_POSE_LAYERS[layer]}.{kind}" if layer in _POSE_LAYERS else name] = tensor
    return renamed


def _first_pose(weights: dict[str, Any], file: Path) -> dict[str, Any]:
    """The last layer's outputs (rx, ry, rz, tx, ty, tz) for each of two poses, as the first pose's (t, r).

    The second one was never trained: only the first enters the loss.
    """
    for name in ("pose_pred.weight", "pose_pred.bias"):
        tensor = weights.get(name)
        if not isinstance(tensor, Tensor) or tensor.ndim < 1 or len(tensor) not in (6, 12):
            raise InputError(f"{file}: no pose network of monodepth2: {name.replace('pose_pred', 'net.3')}")
        weights[name] = tensor[[3, 4, 5, 0, 1, 2]]
    return weights
