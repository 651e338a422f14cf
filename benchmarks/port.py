"""The well-known PyTorch port of SfMLearner (github.com/ClementPinard/SfmLearner-Pytorch), to be timed beside this one.

It is imported from a checkout that the user names. Nothing of it is part of this project.
"""

import argparse
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from types import ModuleType

import torch
from path import Path
from torch import Tensor

from files.errors import InputError

FILES = ("models/DispNetS.py", "models/PoseExpNet.py", "inverse_warp.py", "loss_functions.py")
_MODULES = ("models", "inverse_warp", "loss_functions")  # names of modules of both projects


@dataclass(frozen=True)
class Port:
    """The modules of a checkout."""

    models: ModuleType
    inverse_warp: ModuleType
    loss_functions: ModuleType


def add_port_flag(parser: argparse.ArgumentParser) -> None:
    """--port, the folder of a checkout."""
    parser.add_argument(
        "--port",
        type=Path,
        metavar="FOLDER",
        help="time the PyTorch port in turns with this project: the folder of a checkout of "
        "https://github.com/ClementPinard/SfmLearner-Pytorch",
    )


def load_port(folder: Path) -> Port:
    """Import the port from a checkout. Its modules have the names of this project's, which stay what they are.

    Raises:
        InputError: the folder is no checkout of the port, or it needs a package that is not installed.
    """
    for file in FILES:
        if not (folder / file).is_file():
            raise InputError(f"{folder}: has no {file}, expected a checkout of the PyTorch port")
    ours = _take_modules()
    sys.path.insert(0, folder.absolute())
    try:
        return Port(*(importlib.import_module(name) for name in _MODULES))
    except ImportError as error:
        raise InputError(f"{folder}: {error}, which the port needs") from None
    finally:
        sys.path.remove(folder.absolute())
        _take_modules()
        sys.modules.update(ours)


def port_step(port: Port, batch: int, length: int, height: int, width: int, device: torch.device) -> Callable[[], None]:
    """A function that takes one training step of the port, as the `train` of its train.py does.

    The networks, losses and their weights, Adam with its rate, and the reading of the loss are the port's, with masks
    (`-m 0.2 -s 0.1`, as in its README). The images are noise. They are normalised and augmented already, which the
    port leaves to its loader's processes.

    Args:
        length: frames of a snippet.
    """
    torch.manual_seed(0)
    depth_net = port.models.DispNetS().to(device).train()
    pose_net = port.models.PoseExpNet(nb_ref_imgs=length - 1, output_exp=True).to(device).train()
    for network in (depth_net, pose_net):
        network.init_weights()
    optimizer = torch.optim.Adam(chain(depth_net.parameters(), pose_net.parameters()), 2e-4, (0.9, 0.999))
    target, *sources = (2 * torch.rand(batch, 3, height, width, device=device) - 1 for _ in range(length))
    focal = 0.58 * width  # KITTI's
    camera = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], device=device)
    intrinsics = camera.repeat(batch, 1, 1)
    losses = port.loss_functions

    def step() -> None:
        disparities = depth_net(target)
        depth = [1 / disparity for disparity in disparities]
        masks, poses = pose_net(target, sources)
        photometric, *_ = losses.photometric_reconstruction_loss(target, sources, intrinsics, depth, masks, poses)
        loss = photometric + 0.2 * losses.explainability_loss(masks) + 0.1 * losses.smooth_loss(depth)
        loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def port_warp(port: Port) -> Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The port's warp: images [B, 3, H, W], depth [B, 1, H, W], poses [B, 6], K [B, 3, 3] to images and validity."""
    return lambda images, depth, poses, intrinsics: port.inverse_warp.inverse_warp(
        images, depth[:, 0], poses, intrinsics
    )


def _take_modules() -> dict[str, ModuleType]:
    """Take all modules with the common names out of Python's list of imported ones."""
    names = [name for name in sys.modules if name.partition(".")[0] in _MODULES]
    return {name: sys.modules.pop(name) for name in names}
