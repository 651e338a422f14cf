"""Checkpoints: one file is the whole run, written whole or not at all, and loaded without running code from it."""

import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from path import Path
from torch import Tensor

from files.errors import InputError
from geometry.pose import ROTATIONS
from models import DispNet, PoseExpNet
from models.layers import MAX_WIDTH
from models.pose_exp_net import POSE_SCALE

FORMAT = "sfmlearner"
VERSION = 1
_LARGEST_SIDE = 2**16  # pixels
_OLD_PICKLES = 16 * 2**20  # bytes at the beginning of PyTorch's older format that hold all but the numbers
_SIZED_CONSTRUCTOR = re.compile(rb"c(?:__builtin__|builtins)\nbytearray\n|ctorch(?:\.cuda)?\n\w*Tensor\n")


@dataclass
class Networks:
    """Networks rebuilt from a checkpoint, in eval mode; None where the file has only the other one."""

    disp_net: DispNet | None
    pose_exp_net: PoseExpNet | None
    height: int | None = None  # image size of the training; None where the file does not say
    width: int | None = None
    rotation: str = "euler"  # how the last three numbers of a pose are read
    config: dict[str, Any] = field(default_factory=dict)
    step: int | None = None


def save_checkpoint(
    file: Path,
    disp_net: DispNet,
    pose_exp_net: PoseExpNet,
    optimizer: torch.optim.Optimizer,
    step: int,
    config: dict[str, Any],
    best: dict[str, Any],
    skipped: int = 0,
    validation_due: bool = False,
    damaged: Iterable[str] = (),
) -> None:
    """Write the whole run to `file`: whole or not at all, and on the disk when this returns.

    Training draws its randomness from (seed, step) and (seed, epoch) alone, so the step is the random state, too.

    Args:
        config: what the run was started with; plain numbers, strings, lists and dicts. It must hold `height`, `width`
            and `rotation`, from which the networks' use is rebuilt.
        best: best validation score by criterion.
        skipped: steps that were left out because their loss was not finite.
        validation_due: the validation after this step has not been made.
        damaged: a line for each file that could not be read.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "torch": str(torch.__version__),
        "step": step,
        "config": config,
        "best": best,
        "skipped": skipped,
        "validation_due": validation_due,
        "damaged": sorted(damaged),
        "disp_net": disp_net.state_dict(),
        "pose_exp_net": pose_exp_net.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    part = Path(f"{file}.part")
    try:
        with open(part, "wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        part.rename(file)
        sync_folder(file.parent)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
        with suppress(OSError):
            part.unlink_p()
        raise InputError(
            f"{file}: could not be written ({_reason(error)}); the checkpoint before it is untouched"
        ) from None


def _reason(error: BaseException) -> str:
    """Why a file could not be written: the system's word (no space left), which torch hides behind one of its own."""
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.strerror):
        cause = cause.__cause__ or cause.__context__
    return str(error) if cause is None else str(cause.strerror)


def keep_copy(file: Path, copy: Path) -> None:
    """Keep a checkpoint under a second name: a hard link, which costs nothing, or where there is none a copy."""
    part = Path(f"{copy}.part")
    part.unlink_p()
    try:
        os.link(file, part)
    except OSError:
        shutil.copyfile(file, part)
    part.rename(copy)
    sync_folder(copy.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: a renamed file is not before."""
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_run(
    content: dict[str, Any],
    file: Path,
    disp_net: torch.nn.Module,
    pose_exp_net: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Give networks and optimiser what a checkpoint (`load_checkpoint`) has of them; `file` is named in errors."""
    _load_weights(disp_net, content["disp_net"], file)
    _load_weights(pose_exp_net, content["pose_exp_net"], file)
    load_optimizer(optimizer, content["optimizer"], file)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], file: Path) -> None:
    """Give the optimiser its state from a checkpoint's entry `optimizer`; InputError (naming `file`) if it is damaged.

    The learning rate and the other options stay the optimiser's own.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = state.get("state") if isinstance(state, dict) else None
    if not isinstance(moments, dict) or moments.keys() - set(range(len(parameters))):
        raise InputError(f"{file}: damaged checkpoint: no state of the optimiser for {len(parameters)} parameters")
    for index, entry in moments.items():
        for name, shape in (
            ("exp_avg", parameters[index].shape),
            ("exp_avg_sq", parameters[index].shape),
            ("step", ()),
        ):
            tensor = entry.get(name) if isinstance(entry, dict) else None
            if not isinstance(tensor, Tensor) or tensor.shape != shape or not bool(torch.isfinite(tensor).all()):
                raise InputError(f"{file}: damaged checkpoint: the optimiser's {name} of parameter {index}")
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def load_checkpoint(file: Path) -> dict[str, Any]:
    """The content of a checkpoint of this project, on the CPU; InputError if it is anything else."""
    content = _read(file)
    if content.get("format") != FORMAT:
        raise InputError(f"{file}: not a checkpoint of this project: it has {_keys(content)}")
    if content.get("version") != VERSION:
        raise InputError(f"{file}: checkpoint version {content.get('version')}, this code reads version {VERSION}")
    missing = {"step", "config", "best", "disp_net", "pose_exp_net", "optimizer"} - content.keys()
    if missing:
        raise InputError(f"{file}: the checkpoint lacks {', '.join(sorted(missing))}")
    newer: dict[str, Any] = {"skipped": 0, "validation_due": False, "damaged": []}  # which it did not have at first
    content = newer | content
    kinds = {"config": dict, "best": dict, "step": int, "skipped": int, "validation_due": bool, "damaged": list}
    for name, kind in kinds.items():
        if not isinstance(content[name], kind):
            found = type(content[name]).__name__
            raise InputError(f"{file}: damaged checkpoint: its {name} is of type {found}, expected {kind.__name__}")
    _check_use(content["config"], file)
    return content


def load_networks(file: Path, device: torch.device | str = "cpu") -> Networks:
    """Networks of a checkpoint, rebuilt from its weights and ready to predict.

    Args:
        file: a checkpoint of this project, or one of the well-known PyTorch port's ({'epoch', 'state_dict'}, of either
            network).

    Raises:
        InputError: no such file, damaged, or a checkpoint of something else.
    """
    content = _read(file)
    if content.get("format") == FORMAT:
        content = load_checkpoint(file)
        config = content["config"]
        networks = Networks(
            build_disp_net(content["disp_net"], file),
            build_pose_exp_net(content["pose_exp_net"], file, _pose_units(config, file)),
            config.get("height"),
            config.get("width"),
            config.get("rotation", "euler"),
            config,
            content["step"],
        )
    elif isinstance(content.get("state_dict"), dict):
        weights = content["state_dict"]
        if "pose_pred.weight" in weights:
            networks = Networks(None, build_pose_exp_net(weights, file))
        else:
            networks = Networks(build_disp_net(weights, file), None)
    else:
        raise InputError(f"{file}: not a checkpoint of DispNet or PoseExpNet: it has {_keys(content)}")
    for network in (networks.disp_net, networks.pose_exp_net):
        if network is not None:
            network.to(device).eval()
    return networks


def _check_use(config: dict[str, Any], file: Path) -> None:
    """InputError unless a configuration says in a usable way how its networks are used."""
    for name in ("height", "width"):
        size = config.get(name)
        if size is not None and not (isinstance(size, int) and 0 < size <= _LARGEST_SIDE):
            raise InputError(f"{file}: damaged checkpoint: {name} is {size!r:.40}, expected pixels")
    if config.get("rotation", "euler") not in ROTATIONS:
        found, expected = config["rotation"], ", ".join(ROTATIONS)
        raise InputError(f"{file}: damaged checkpoint: rotation is {found!r:.40}, expected one of {expected}")


def build_disp_net(weights: dict[str, Tensor], file: Path) -> DispNet:
    """A DispNet with these weights, which say its width; `file` is named in errors."""
    network = DispNet(width=_width(weights, "upconv1.0.bias"))
    _load_weights(network, weights, file)
    return network


def build_pose_exp_net(
    weights: dict[str, Tensor], file: Path, units: tuple[float, float, float | None] = (POSE_SCALE, POSE_SCALE, None)
) -> PoseExpNet:
    """A PoseExpNet with these weights, which say its width, its number of sources and whether it has masks.

    `units` are translation_scale, rotation_scale and fixation_depth, which weights don't tell.
    """
    pose_weight = weights.get("pose_pred.weight")
    if not isinstance(pose_weight, Tensor) or pose_weight.ndim != 4 or pose_weight.shape[0] not in range(6, 600, 6):
        raise InputError(f"{file}: no checkpoint of PoseExpNet: pose_pred.weight is missing or of another shape")
    width = _width(weights, "conv1.0.bias")
    network = PoseExpNet(pose_weight.shape[0] // 6, "predict_mask1.weight" in weights, *units, width)
    _load_weights(network, weights, file)
    return network


def _width(weights: dict[str, Tensor], key: str) -> float:
    """The width factor of a network, by a bias that has 16 numbers in the paper's; 1 where the weights are no such."""
    bias = weights.get(key) if isinstance(weights, dict) else None
    # The limit keeps a small file from claiming a large network.
    known = isinstance(bias, Tensor) and bias.ndim == 1 and 1 <= len(bias) <= 16 * MAX_WIDTH
    return len(bias) / 16 if known else 1.0  # type: ignore[arg-type]


def _pose_units(config: dict[str, Any], file: Path) -> tuple[float, float, float | None]:
    translation, rotation = (config.get(name, POSE_SCALE) for name in ("translation_scale", "rotation_scale"))
    fixation = config.get("fixation_depth")
    for name, value in (
        ("translation_scale", translation),
        ("rotation_scale", rotation),
        ("fixation_depth", 1.0 if fixation is None else fixation),
    ):
        if not isinstance(value, float | int) or not 0 < value < float("inf"):
            raise InputError(f"{file}: damaged checkpoint: its {name} is {value!r}, expected a number above 0")
    return translation, rotation, fixation


def _read(file: Path) -> dict[str, Any]:
    if not Path(file).is_file():
        raise InputError(f"{file}: no such file, expected a checkpoint")
    _refuse_claims(file)
    try:
        # weights_only: tensors and plain values alone; a file can name no function to be called.
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{file}: not a checkpoint of tensors and plain values, or damaged; nothing else is loaded, "
            "since it could run code"
        ) from None
    except Exception as error:  # whatever damage makes of the unpickler: there is no narrower common class
        raise InputError(f"{file}: damaged, or not a checkpoint ({type(error).__name__} while reading it)") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: not a checkpoint: it holds a {type(content).__name__}, expected a dict")
    return content


def _refuse_claims(file: Path) -> None:
    """InputError for what would make the unpickler take memory for a size that the file only claims.

    `torch.save` compresses nothing, so what it wrote is no larger in memory than on disk. And among the names that
    `weights_only` allows are constructors that take a size: `bytearray(10**12)`, `torch.Tensor(10**12)`.
    """
    members, pickles = [], []
    with suppress(zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, ValueError, OSError):
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if all(member.compress_type == zipfile.ZIP_STORED for member in members):
                pickles = [archive.read(member) for member in members if member.filename.endswith("data.pkl")]
    compressed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if compressed or sum(member.file_size for member in members) > os.path.getsize(file):
        raise InputError(f"{file}: damaged, or not a checkpoint: its parts claim more than the file holds")
    if not pickles:  # PyTorch's older format, or damage
        with open(file, "rb") as stream:
            pickles = [stream.read(_OLD_PICKLES)]
    if any(_SIZED_CONSTRUCTOR.search(content) for content in pickles):
        raise InputError(f"{file}: not a checkpoint of tensors and plain values: it builds objects of a claimed size")


def _load_weights(network: torch.nn.Module, weights: dict[str, Tensor], file: Path) -> None:
    name = type(network).__name__
    if not isinstance(weights, dict):
        raise InputError(f"{file}: no checkpoint of {name}: expected named weights, got {type(weights).__name__}")
    expected = network.state_dict()
    for key, tensor in expected.items():
        given = weights.get(key)
        if not isinstance(given, Tensor):
            raise InputError(f"{file}: no checkpoint of {name}: it lacks {key}")
        if given.shape != tensor.shape:
            raise InputError(f"{file}: no checkpoint of {name}: {key} is {[*given.shape]}, expected {[*tensor.shape]}")
        if not bool(torch.isfinite(given).all()):
            raise InputError(f"{file}: {key} of {name} holds values that are not finite")
    surplus = weights.keys() - expected.keys()
    if surplus:
        raise InputError(f"{file}: no checkpoint of {name}: it has {repr(min(map(str, surplus)))[1:-1]:.60}, too")
    network.load_state_dict(weights)


def _keys(content: dict[str, Any]) -> str:
    names = ", ".join(repr(name)[1:-1][:40] for name in sorted(map(str, content))[:4])
    return f"the entries {names}{', ...' if len(content) > 4 else ''}" if names else "no entries"
