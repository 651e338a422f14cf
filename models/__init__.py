"""The networks by name, and the model that is built from them.

A new network is a new file in this folder and a line in one of the dictionaries below. `docs/extending.md` has an
example of each kind.
"""

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

from torch import nn

from files.errors import InputError
from models.disp_net import DispNet
from models.encoder_depth_net import EncoderDepthNet
from models.encoders import TIMM
from models.learned_camera import LearnedCamera
from models.pair_pose_net import PairPoseNet
from models.pose_exp_net import PoseExpNet
from models.sfm_learner import GivenCamera, Prediction, SfMLearner

__all__ = [
    "CAMERAS",
    "DEPTH_NETS",
    "POSE_NETS",
    "NetworkSpec",
    "Prediction",
    "SfMLearner",
    "build",
    "complete",
    "find",
    "make",
    "predicts_masks",
]

Network = Callable[..., nn.Module]  # a class, or one with some arguments given

# Depth networks: images [B, 3, H, W] in [-1, 1] -> disparities, finest first. See `models.sfm_learner.SfMLearner`.
DEPTH_NETS: dict[str, Network] = {
    "disp_net": DispNet,
    "resnet18": partial(EncoderDepthNet, "resnet18"),
    "resnet50": partial(EncoderDepthNet, "resnet50"),
    "mobilenet_v2": partial(EncoderDepthNet, "mobilenet_v2", channels="96,64,48,32", finest_scale=1),
    f"{TIMM}NAME": EncoderDepthNet,  # any convolutional network of timm, see `find`
}
# Pose networks: arguments `sources` and, if they predict masks, `explainability` come from the training.
POSE_NETS: dict[str, Network] = {"pose_exp_net": PoseExpNet, "pair_pose_net": PairPoseNet}
# Cameras: the argument `cameras`, their number, comes from the data set.
CAMERAS: dict[str, Network] = {"given": GivenCamera, "learned": LearnedCamera}


@dataclass(frozen=True)
class NetworkSpec:
    """A network's name and the arguments of its constructor, as checkpoints store them."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """As the flags --depth-net, --pose-net and --camera have it: `disp_net width=0.5`."""
        return " ".join([self.name, *(f"{name}={_text(value)}" for name, value in self.arguments.items())])


def find(networks: Mapping[str, Network], name: str) -> Network:
    """The network of this name; `timm:NAME` stands for all names of timm. InputError for an unknown name."""
    if name.startswith(TIMM) and f"{TIMM}NAME" in networks:
        return partial(networks[f"{TIMM}NAME"], name)
    if name not in networks:
        raise InputError(f"unknown network {name!r:.40}, expected one of {', '.join(networks)}")
    return networks[name]


def build(depth: NetworkSpec, pose: NetworkSpec, camera: NetworkSpec) -> SfMLearner:
    """The model with these networks and newly drawn weights; InputError for a name or an argument that there is not."""
    return SfMLearner(make(DEPTH_NETS, depth), make(POSE_NETS, pose), make(CAMERAS, camera))


def make(networks: Mapping[str, Network], spec: NetworkSpec) -> nn.Module:
    """A new network by its name and arguments; InputError if one of them is wrong."""
    spec = complete(networks, spec)
    try:
        return find(networks, spec.name)(**spec.arguments)
    except ValueError as error:
        raise InputError(f"{spec.name}: {error}") from None


def complete(networks: Mapping[str, Network], spec: NetworkSpec) -> NetworkSpec:
    """The specification with the default of every argument that it does not give, and values of the right types.

    Text such as "0.5" becomes the type of the constructor's annotation, which may be int, float, bool, str, or one of
    these with None.

    Raises:
        InputError: an unknown name or argument, a value of another type, or a constructor whose annotations do not say
            the types.
    """
    parameters = _parameters(find(networks, spec.name), spec.name)
    unknown = [name for name in spec.arguments if name not in parameters]
    if unknown:
        expected = f"expected {', '.join(parameters)}" if parameters else "it has no arguments"
        raise InputError(f"{spec.name}: unknown argument {str(unknown[0])[:40]!r}, {expected}")
    arguments = {}
    for name, parameter in parameters.items():
        value = spec.arguments.get(name, parameter.default)
        arguments[name] = _convert(value, parameter.annotation, f"{spec.name}: {name}")
    return NetworkSpec(spec.name, arguments)


def _parameters(network: Network, name: str) -> Mapping[str, inspect.Parameter]:
    """The arguments of a network's constructor; InputError if one has no annotation, or one that cannot be read."""
    try:
        # eval_str: a file with `from __future__ import annotations` has its annotations as text.
        parameters = inspect.signature(network, eval_str=True).parameters
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise InputError(f"{name}: an annotation of its constructor cannot be read ({error})") from None
    for argument, parameter in parameters.items():
        if parameter.annotation is inspect.Parameter.empty:
            raise InputError(
                f"{name}: its constructor's argument {argument} has no annotation, expected int, float, bool or str, "
                "or one of these with None"
            )
    return parameters


def predicts_masks(pose_net: str) -> bool:
    """Whether a pose network has the argument `explainability`, by which it predicts masks."""
    return pose_net in POSE_NETS and "explainability" in inspect.signature(POSE_NETS[pose_net]).parameters


def _convert(value: Any, annotation: Any, what: str) -> Any:
    kinds = get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if types.NoneType in kinds and (value is None or value == "none"):
        return None
    for kind in kinds:
        if kind is bool and value in ("true", "false"):
            return value == "true"
        if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
            return value
        if kind in (int, float) and isinstance(value, str | int) and not isinstance(value, bool):
            try:
                return kind(value)
            except (ValueError, OverflowError):
                continue
    names = " or ".join("none" if kind is types.NoneType else kind.__name__ for kind in kinds)
    shown = f"{value!r:.40}" if isinstance(value, str | int | float) else f"a {type(value).__name__}"
    if value is inspect.Parameter.empty:
        shown = "missing"
    raise InputError(f"{what} is {shown}, expected {names}")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value).lower() if isinstance(value, bool | None) else str(value)
