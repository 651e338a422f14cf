"""Checkpoints: one file holds the whole run, is written whole or not at all, and is read without running code.

A checkpoint (version 2) is a dict of plain values and tensors:

    format, version, torch                      "sfmlearner", 2, the version of PyTorch that wrote it
    networks                                    {"depth" | "pose" | "camera": {"name", "arguments"}}, for `models.build`
    model                                       the weights: `SfMLearner.state_dict()`
    optimizer                                   Adam's state
    step, skipped, validation_due, best, damaged    where the training stands (see `training.run.Run`)
    options                                     `training.options.TrainOptions` as plain values
    record                                      height, width, snippets, processes, total_steps, scenes, and views of
                                                the videos (`datasets.input_views`) of the run

Version-1 checkpoints and published checkpoints of other projects (`models.other_projects`) are read, too.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from path import Path
from torch import Tensor, nn

from files.atomic import atomic_write
from files.errors import InputError
from geometry.camera import scale_intrinsics
from models import CAMERAS, DEPTH_NETS, POSE_NETS, Network, NetworkSpec, SfMLearner, complete, make, version_1
from models.learned_camera import LearnedCamera
from models.other_projects import OtherNetworks, is_monodepth2, read_monodepth2, read_state_dict
from models.published import SUFFIX, WORLD, WORLD_FILE, read_published
from models.torch_files import read_torch_file

FORMAT = "sfmlearner"
VERSION = 2
CRITERIA = ("abs_rel", "ate", "photometric", "structure")  # of the best checkpoints
HIGHER_IS_BETTER = ("structure",)  # of the others lower values are better
_KINDS: dict[str, type] = {
    "networks": dict,
    "model": dict,
    "optimizer": dict,
    "step": int,
    "skipped": int,
    "validation_due": bool,
    "best": dict,
    "damaged": list,
    "options": dict,
    "record": dict,
}
_LATER = {"skipped": 0, "validation_due": False, "damaged": []}  # entries that the first checkpoints did not have
_LARGEST_SIDE = 2**16  # pixels


@dataclass(frozen=True)
class LearnedK:
    """What a training has learned of one recording camera."""

    intrinsics: np.ndarray  # K [3, 3] float64, in pixels of the training images
    height: int  # of the training images
    width: int
    scenes: list[str]  # that the camera recorded

    def resized(self, height: int, width: int) -> np.ndarray:
        """K of the same camera's images at another size: float64 [3, 3]."""
        k = torch.from_numpy(self.intrinsics)
        return scale_intrinsics(k, width / self.width, height / self.height).numpy()


@dataclass
class LoadedModel:
    """The networks of a checkpoint in evaluation mode. A file of another project may hold only one of them."""

    depth_net: nn.Module | None
    pose_net: Any  # nn.Module | None; its attribute `sources` is the number of source frames
    camera: nn.Module | None
    specs: dict[str, NetworkSpec]  # by "depth", "pose", "camera"
    height: int | None = None  # image size of the training; None where the file does not say
    width: int | None = None
    step: int | None = None
    data: str | None = None  # folder of the prepared training data
    scenes: list[str] | None = None  # the training scenes; None where the file does not say
    options: dict[str, Any] | None = None  # of the training, plain values, not checked; None where there are none
    cameras: list[list[str]] | None = None  # the scenes of each recording camera; None where the file does not say
    views: list[Any] | None = None  # of the training's videos (`datasets.input_views`), plain and not checked

    def learned_cameras(self) -> list[LearnedK]:
        """K of each recording camera of the training; empty where K was given, not learned."""
        if not isinstance(self.camera, LearnedCamera) or self.height is None or self.width is None:
            return []
        matrices = self.camera.matrices().detach().cpu().double().numpy()
        scenes = (
            self.cameras if self.cameras is not None and len(self.cameras) == len(matrices) else [[]] * len(matrices)
        )
        return [LearnedK(k, self.height, self.width, names) for k, names in zip(matrices, scenes, strict=True)]


def describe(specs: Mapping[str, NetworkSpec]) -> dict[str, dict[str, Any]]:
    """The entry `networks` of a checkpoint."""
    return {role: asdict(spec) for role, spec in specs.items()}


def checkpoint_content(
    model: SfMLearner,
    specs: Mapping[str, NetworkSpec],
    optimizer: torch.optim.Optimizer,
    options: dict[str, Any],
    record: dict[str, Any],
    standing: dict[str, Any],
) -> dict[str, Any]:
    """The content of a checkpoint, see the module's docstring.

    Args:
        specs: of the three networks, with all their arguments.
        options, record: plain values.
        standing: step, skipped, validation_due, best and damaged.

    Raises:
        InputError: a weight is not finite. Such weights are never saved over good ones.
    """
    weights = model.state_dict()
    floats = [tensor for tensor in weights.values() if tensor.is_floating_point()]
    if not bool(torch.stack([tensor.isfinite().all() for tensor in floats]).all()):
        raise InputError(f"step {standing['step']}: the weights are not finite; the checkpoint before it is kept")
    return {
        "format": FORMAT,
        "version": VERSION,
        "torch": str(torch.__version__),
        "networks": describe(specs),
        "model": weights,
        "optimizer": optimizer.state_dict(),
        "options": options,
        "record": record,
        **standing,
    }


def save_checkpoint(file: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all; it is on the disk when this returns.

    Raises:
        InputError: it could not be written. The checkpoint before it is untouched.
    """
    try:
        with atomic_write(file, durable=True) as stream:
            torch.save(content, stream)
    except InputError as error:
        raise InputError(f"{error}; the checkpoint before it is untouched") from None


def load_checkpoint(file: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a checkpoint of this project in the form of version 2, on the CPU.

    Raises:
        InputError: no such file, damaged, or a checkpoint of something else.
    """
    file, expected = Path(file), "expected a checkpoint of train.py (last.pt)"
    if file == WORLD:
        raise InputError(f"{WORLD}: weights that are already published ({WORLD_FILE}), {expected}")
    if file.suffix == SUFFIX:
        raise InputError(f"{file}: weights without their training, {expected}")
    if file.is_dir():
        what = "the networks of monodepth2, another project" if is_monodepth2(file) else "a folder"
        raise InputError(f"{file}: {what}, {expected}")
    return _check_content(read_torch_file(file), file)


def load_model(file: str | os.PathLike[str], device: torch.device | str = "cpu") -> LoadedModel:
    """The networks of a checkpoint, rebuilt and ready to predict.

    Args:
        file: a checkpoint of this project, published weights (`models.published`), a file of the well-known PyTorch
            port or of SC-SfMLearner ({'epoch', 'state_dict'}), or a folder of monodepth2; also what was saved under
            DataParallel. "world": the weights that the repository brings
            (a file of this name is "./world").

    Raises:
        InputError: no such file, damaged, or a checkpoint of something else.
    """
    file = Path(file)
    file = WORLD_FILE if file == WORLD else file
    if file.is_dir():
        loaded = _other_model(read_monodepth2(file), file)
    elif file.suffix == SUFFIX:
        content = read_published(file)
        _check_record(content["record"], file)
        loaded = _own_model(content, file)
    elif (content := read_torch_file(file)).get("format") == FORMAT:
        loaded = _own_model(_check_content(content, file), file)
    elif isinstance(content.get("state_dict"), dict):
        loaded = _other_model(read_state_dict(content["state_dict"], file), file)
    else:
        raise InputError(f"{file}: not a checkpoint of a depth or pose network: it has {_names(content)}")
    for network in (loaded.depth_net, loaded.pose_net, loaded.camera):
        if network is not None:
            network.to(device).eval()
    return loaded


def load_weights(network: nn.Module, weights: Mapping[str, Any], file: Path, what: str) -> None:
    """Copy weights from a file into a network: into its own dense tensors, and of their types.

    Args:
        what: name of the network, for errors.

    Raises:
        InputError: a weight is missing, surplus, not finite, or of another shape or kind of number.
    """
    expected = network.state_dict()
    for name, tensor in expected.items():
        given = weights.get(name)
        if not isinstance(given, Tensor):
            raise InputError(f"{file}: no checkpoint of {what}: it lacks {name}")
        if given.shape != tensor.shape:
            raise InputError(f"{file}: no checkpoint of {what}: {name} is {[*given.shape]}, expected {[*tensor.shape]}")
        if given.is_floating_point() != tensor.is_floating_point():
            raise InputError(f"{file}: no checkpoint of {what}: {name} is {given.dtype}, expected {tensor.dtype}")
        if not bool(given.to(tensor.dtype).isfinite().all()):
            raise InputError(f"{file}: {name} of {what} holds values that are not finite")
    surplus = sorted(map(str, weights.keys() - expected.keys()))
    if surplus:
        raise InputError(f"{file}: no checkpoint of {what}: it has {repr(surplus[0])[1:-1]:.60}, too")
    network.load_state_dict(dict(weights))


def load_optimizer(optimizer: torch.optim.Optimizer, state: Any, file: Path) -> None:
    """Give Adam its state from a checkpoint's entry `optimizer`, as fresh dense tensors of the parameters' types.

    The learning rate and the other options stay the optimiser's own.

    Raises:
        InputError: the state is damaged; names `file`.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = state.get("state") if isinstance(state, dict) else None
    indices = range(len(parameters))
    if not isinstance(moments, dict) or any(type(index) is not int or index not in indices for index in moments):
        raise InputError(f"{file}: damaged checkpoint: no state of the optimiser for {len(parameters)} parameters")
    fresh: dict[int, dict[str, Tensor]] = {}
    for index, entry in moments.items():
        parameter = parameters[index]
        likes = {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
        fresh[index] = {}
        for name, like in likes.items():
            given = entry.get(name) if isinstance(entry, dict) else None
            if not isinstance(given, Tensor) or given.shape != like.shape or not given.is_floating_point():
                raise InputError(f"{file}: damaged checkpoint: the optimiser's {name} of parameter {index}")
            tensor = torch.empty_like(like.detach(), device="cpu").copy_(given)
            if not bool(tensor.isfinite().all()) or (name != "exp_avg" and bool((tensor < 0).any())):
                raise InputError(f"{file}: damaged checkpoint: the optimiser's {name} of parameter {index}")
            fresh[index][name] = tensor
    optimizer.load_state_dict({"state": fresh, "param_groups": optimizer.state_dict()["param_groups"]})


def is_better(criterion: str, value: float, best: float | None) -> bool:
    """Whether a finite value of a criterion is better than the best one so far, if there is one."""
    if not math.isfinite(value) or best is None:
        return math.isfinite(value)
    return value > best if criterion in HIGHER_IS_BETTER else value < best


def find_checkpoint(run: Path, which: str) -> Path:
    """A checkpoint of a run's folder: "last", or the best by a criterion; InputError naming those that are there.

    A folder of monodepth2 is a checkpoint itself.
    """

    def named(name: str) -> Path:
        return run / ("last.pt" if name == "last" else f"best_{name}.pt")

    if which == "last" and is_monodepth2(run) and not named("last").is_file():
        return run
    if not named(which).is_file():
        there = [name for name in ("last", *CRITERIA) if named(name).is_file()]
        found = f"found only --which {', '.join(there)}" if there else "found no checkpoint of a run in this folder"
        raise InputError(f"{named(which)}: no such file, {found}")
    return named(which)


def checkpoint_file(source: str | os.PathLike[str]) -> Path:
    """The checkpoint that a user names: a file, a run's folder for its last.pt, a folder of monodepth2, or "world".

    Raises:
        InputError: a folder without a checkpoint.
    """
    file = Path(source)
    return find_checkpoint(file, "last") if file != WORLD and file.is_dir() else file


def check_specs(networks: Any, file: Path) -> dict[str, NetworkSpec]:
    """The specifications of the three networks from a checkpoint's entry `networks`; InputError if it is damaged."""
    specs = {}
    for role, known in (("depth", DEPTH_NETS), ("pose", POSE_NETS), ("camera", CAMERAS)):
        entry = networks.get(role) if isinstance(networks, dict) else None
        name, arguments = (entry.get(key) if isinstance(entry, dict) else None for key in ("name", "arguments"))
        if not isinstance(name, str) or not isinstance(arguments, dict) or not all(map(_is_name, arguments)):
            raise InputError(f"{file}: damaged checkpoint: its networks do not say name and arguments of {role}")
        try:
            specs[role] = complete(known, NetworkSpec(name, arguments))
        except InputError as error:
            raise InputError(f"{file}: damaged, or of a newer version of this project: {role}: {error}") from None
    return specs


def make_with_weights(
    networks: Mapping[str, Network], spec: NetworkSpec, weights: Mapping[str, Any], file: Path
) -> nn.Module:
    """A network with the weights of a file. It takes no memory before all shapes were found to fit."""
    try:
        with torch.device("meta"):
            shapes = {name: tensor.shape for name, tensor in make(networks, spec).state_dict().items()}
    except InputError as error:
        raise InputError(f"{file}: damaged checkpoint: {error}") from None
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:  # numbers of channels beyond all bounds
        raise InputError(f"{file}: damaged checkpoint: {spec.name}: {' '.join(str(error).split())[:100]}") from None
    for name, shape in shapes.items():
        given = weights.get(name)
        if not isinstance(given, Tensor):
            raise InputError(f"{file}: no checkpoint of {spec.name}: it lacks {name}")
        if given.shape != shape:
            raise InputError(f"{file}: no checkpoint of {spec.name}: {name} is {[*given.shape]}, expected {[*shape]}")
    network = make(networks, spec)
    load_weights(network, weights, file, spec.name)
    return network


def _own_model(content: dict[str, Any], file: Path) -> LoadedModel:
    specs = check_specs(content["networks"], file)
    networks: dict[str, nn.Module] = {}
    for role, known in (("depth", DEPTH_NETS), ("pose", POSE_NETS), ("camera", CAMERAS)):
        prefix = "camera." if role == "camera" else f"{role}_net."
        weights = {k.removeprefix(prefix): v for k, v in content["model"].items() if str(k).startswith(prefix)}
        networks[role] = make_with_weights(known, specs[role], weights, file)
    record, data = content["record"], content["options"].get("data")
    return LoadedModel(
        networks["depth"],
        networks["pose"],
        networks["camera"],
        specs,
        height=record.get("height"),
        width=record.get("width"),
        step=content["step"],
        data=data if isinstance(data, str) else None,
        scenes=record.get("scenes"),
        cameras=record.get("cameras"),
        views=views if isinstance(views := record.get("views"), list) else None,
        options=content["options"],
    )


def _other_model(other: OtherNetworks, file: Path) -> LoadedModel:
    size = {name: value for name, value in (("height", other.height), ("width", other.width)) if value is not None}
    _check_record(size, file)
    networks, specs = {}, {}
    for role, known in (("depth", DEPTH_NETS), ("pose", POSE_NETS)):
        if role in other.specs:
            specs[role] = complete(known, NetworkSpec(**other.specs[role]))
            networks[role] = make_with_weights(known, specs[role], other.weights[role], file)
    return LoadedModel(networks.get("depth"), networks.get("pose"), None, specs, **size)


def _check_content(content: dict[str, Any], file: Path) -> dict[str, Any]:
    if content.get("format") != FORMAT:
        raise InputError(f"{file}: not a checkpoint of this project: it has {_names(content)}")
    version = content.get("version")
    if type(version) is not int or version not in (1, VERSION):
        raise InputError(f"{file}: checkpoint version {_short(version)}, this code reads versions 1 and {VERSION}")
    if version == 1:
        content = version_1.upgrade(content, file)
    content = {**_LATER, **content}
    missing = sorted(_KINDS.keys() - content.keys())
    if missing:
        raise InputError(f"{file}: damaged checkpoint: it lacks {', '.join(missing)}")
    for name, kind in _KINDS.items():
        if type(content[name]) is not kind and not (kind is dict and isinstance(content[name], dict)):
            found = type(content[name]).__name__
            raise InputError(f"{file}: damaged checkpoint: its {name} is of type {found}, expected {kind.__name__}")
    if not all(map(_is_name, content["model"])):
        raise InputError(f"{file}: damaged checkpoint: a weight has no name")
    if not all(map(_is_name, content["damaged"])):
        raise InputError(f"{file}: damaged checkpoint: its damaged files have no names")
    for name in ("step", "skipped"):
        if not 0 <= content[name] < 2**62:
            raise InputError(f"{file}: damaged checkpoint: {name} {_short(content[name])}, expected a number of steps")
    _check_record(content["record"], file)
    _check_best(content["best"], file)
    return content


def _check_record(record: dict[str, Any], file: Path) -> None:
    for name in ("height", "width"):
        size = record.get(name, 1)
        if not (type(size) is int and 0 < size <= _LARGEST_SIDE):
            raise InputError(f"{file}: damaged checkpoint: its {name} is {_short(size)}, expected pixels")
    for name in ("snippets", "processes", "total_steps"):
        count = record.get(name, 1)
        if not (type(count) is int and 0 < count < 2**62):
            raise InputError(f"{file}: damaged checkpoint: its {name} is {_short(count)}, expected a whole number")
    scenes = record.get("scenes")
    if scenes is not None and not _are_names(scenes):
        raise InputError(f"{file}: damaged checkpoint: its scenes are {_short(scenes)}, expected names")
    cameras = record.get("cameras")
    if cameras is not None and not (isinstance(cameras, list) and all(map(_are_names, cameras))):
        raise InputError(f"{file}: damaged checkpoint: its cameras are {_short(cameras)}, expected lists of scenes")


def _check_best(best: dict[str, Any], file: Path) -> None:
    for name, score in best.items():
        kinds = {key: type(value) for key, value in score.items()} if isinstance(score, dict) else None
        if name not in CRITERIA or kinds != {"value": float, "step": int} or not math.isfinite(score["value"]):
            raise InputError(
                f"{file}: damaged checkpoint: its best {_short(name)} is {_short(score)}, expected a value and a step"
            )


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_name, value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


def _short(value: Any) -> str:
    """A value for a message; of a container from a file, which may be huge when printed, the type alone."""
    return f"{value!r:.40}" if isinstance(value, str | int | float | bool | None) else f"a {type(value).__name__}"


def _names(content: dict[str, Any]) -> str:
    names = [repr(name)[1:-1][:40] for name in content if isinstance(name, str)]
    if not names:
        return "no entries"
    return f"the entries {', '.join(sorted(names)[:4])}{', ...' if len(names) > 4 else ''}"
