"""The start of a new training: the model's first weights, and the check of the data."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cli.tables import report_data_check

import numpy as np
import torch
from path import Path

from datasets.preparation.check import check_data
from datasets.preparation.focal_check import MOST_CLIPS, check_focal
from datasets.shards import is_sharded
from datasets.snippets import SnippetDataset
from files.errors import InputError, UsageError
from models import NetworkSpec, SfMLearner, build
from models.checkpoint import LoadedModel, checkpoint_file, load_model, load_weights
from models.encoder_weights import NONE, load_encoder_weights
from models.encoders import encoders_of
from models.learned_camera import LearnedCamera
from models.pose_exp_net import MOTION_ARGUMENTS, can_rescale_motion, rescale_motion
from models.sfm_learner import GivenCamera
from training import distributed
from training.adam import FusedAdam
from training.options import TrainOptions


def make_model(options: TrainOptions, cameras: Sequence[np.ndarray] = ()) -> tuple[SfMLearner, list[list[str] | None]]:
    """The model with weights drawn from the seed, of --encoder-weights, or of the checkpoints in --start-from.

    Args:
        cameras: K [3, 3] of each recording camera of the data set, from which a learned camera starts.

    Returns:
        The model, and for each of these checkpoints the scenes that it was trained on; None where it does not say.

    Raises:
        InputError: a checkpoint, or a file of encoders' weights, that does not fit the options.
    """
    specs = network_specs(options, max(1, len(cameras)))
    torch.manual_seed(options.seed)
    try:
        model = build(specs["depth"], specs["pose"], specs["camera"])
    except InputError as error:
        raise UsageError(f"--depth-net, --pose-net, --camera: {error}") from None
    if isinstance(model.camera, LearnedCamera) and cameras:
        model.camera.start_from(torch.from_numpy(np.stack(cameras)))
    model.predicts_source_depth = options.objective.compares_depth
    model.scales = options.objective.scales
    if options.encoder_weights != NONE:
        load_encoder_weights(model, options.encoder_weights)
    ancestors = []
    for file in options.start_from:
        checkpoint = checkpoint_file(file)
        loaded = load_model(checkpoint)
        ancestors.append(loaded.scenes)
        _take_weights(model, specs, loaded, checkpoint)
    return model, ancestors


@torch.no_grad()
def begin_cameras(camera: torch.nn.Module, dataset: SnippetDataset, options: TrainOptions) -> list[str]:
    """Bring each learned camera from its guess to the focal length that the motion in its scenes shows.

    That is `datasets.preparation.focal_check`, a few seconds for each camera. Where it is not certain of the focal
    length, the camera begins at its guess. So does every camera of shards, and without the check of the data. A camera
    that a checkpoint has brought along stays as it is.

    Returns:
        A line for each camera; in the first process alone, whose weights the others take.
    """
    if not isinstance(camera, LearnedCamera) or not options.check or dataset.sharded or distributed.rank() > 0:
        return []
    lines = []
    for number, intrinsics in enumerate(dataset.cameras):
        if camera.log_focal[number].any() or camera.shift[number].any():
            continue
        names = set(dataset.scenes_of(number))
        scenes = [replace(scene, intrinsics=intrinsics) for scene in dataset.scenes if scene.name in names]
        found = check_focal(scenes)
        guess = f"learned camera {number}: the guess of fx is {intrinsics[0, 0]:.1f} pixels"
        if found.factor is None:
            lines.append(f"{guess}, and it begins there: {found.problem}; with --camera-rate 1e-3 it moves farther")
            continue
        camera.log_focal[number, 0] = math.log(found.factor)
        begins = f"it begins at {found.factor * intrinsics[0, 0]:.1f} (+- {100 * found.deviation:.0f} %)"
        if not found.is_within_range:
            begins += ", the end of the range that was tried: give a better guess by --fov"
        lines.append(f"{guess}; by the motion in {found.clips} clips that turn, {begins}")
    return lines


def network_specs(options: TrainOptions, cameras: int) -> dict[str, NetworkSpec]:
    """The specification of each network, with the number of recording cameras where the camera has that argument."""
    specs = options.networks()
    if "cameras" in specs["camera"].arguments:
        specs["camera"] = NetworkSpec(specs["camera"].name, specs["camera"].arguments | {"cameras": cameras})
    return specs


def make_optimizer(model: SfMLearner, options: TrainOptions) -> torch.optim.Optimizer:
    """Adam. Each group of parameters has its peak rate, which the schedule scales, as `peak`.

    Raises:
        UsageError: --encoder-rate without an encoder.
    """
    encoders, rate = encoders_of(model), options.learning_rate
    if options.encoder_rate != 1 and not encoders:
        raise UsageError(f"--encoder-rate {options.encoder_rate:g}: no network has an encoder")
    slowed = [] if options.encoder_rate == 1 else [p for encoder in encoders.values() for p in encoder.parameters()]
    apart = {*slowed, *model.camera.parameters()}
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in model.parameters() if parameter not in apart], "peak": rate},
        {"params": slowed, "peak": options.encoder_rate * rate},
        {"params": list(model.camera.parameters()), "peak": options.camera_rate},
    ]
    groups = [group for group in groups if group["params"]]
    return FusedAdam(groups, rate, (options.beta1, options.beta2))


def uses_channels_last(options: TrainOptions, device: torch.device) -> bool:
    """Whether the networks' weights and activations have their channels last.

    By default where oneDNN's convolutions are faster so (docs/benchmarks.md). The processor decides, not a measurement:
    a run that is resumed on the same machine computes the same bits.
    """
    if options.channels_last is not None:
        return options.channels_last
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _take_weights(model: SfMLearner, specs: dict[str, NetworkSpec], loaded: LoadedModel, file: Path) -> None:
    """Copy the networks that a checkpoint holds into the model; InputError where it has other networks."""
    for role, flag in (("depth", "--depth-net"), ("pose", "--pose-net"), ("camera", "--camera")):
        theirs = {"depth": loaded.depth_net, "pose": loaded.pose_net, "camera": loaded.camera}[role]
        if theirs is None:
            continue
        ours = {"depth": model.depth_net, "pose": model.pose_net, "camera": model.camera}[role]
        if role == "camera" and not _is_same_camera(ours, theirs):
            continue
        found, expected = (without_initial_arguments(which[role], ours) for which in (loaded.specs, specs))
        rescales = role == "pose" and found.name == expected.name and can_rescale_motion(theirs)
        free = MOTION_ARGUMENTS if rescales else ()
        if _without(found, free) != _without(expected, free):
            raise InputError(f"{file}: its {role} network is {found}, the options' is {expected}; {_hint(flag, found)}")
        if rescales:  # the same motion in other units of the last layer
            rescale_motion(theirs, ours.pose_scales, ours.orbit_depth)  # type: ignore[arg-type]
        load_weights(ours, theirs.state_dict(), file, found.name)


def _is_same_camera(ours: torch.nn.Module, theirs: torch.nn.Module) -> bool:
    """Whether a checkpoint's camera can be that of this training: cameras belong to their data, unlike networks."""
    if isinstance(ours, GivenCamera) or isinstance(theirs, GivenCamera):
        return False
    if isinstance(ours, LearnedCamera) and isinstance(theirs, LearnedCamera):
        return ours.start.shape == theirs.start.shape and torch.allclose(ours.start, theirs.start)
    return True


def without_initial_arguments(spec: NetworkSpec, network: torch.nn.Module) -> NetworkSpec:
    """A specification without the arguments that only choose a network's first weights."""
    return _without(spec, getattr(network, "initial_arguments", ()))


def _without(spec: NetworkSpec, names: Sequence[str]) -> NetworkSpec:
    return replace(spec, arguments={name: value for name, value in spec.arguments.items() if name not in names})


def _hint(flag: str, spec: NetworkSpec) -> str:
    decided_elsewhere = ("sources", "explainability")  # by --sequence-length and --explainability
    arguments = {name: value for name, value in spec.arguments.items() if name not in decided_elsewhere}
    hints = [f"give {flag} {NetworkSpec(spec.name, arguments)}"]
    if "sources" in spec.arguments:
        hints.append(f"--sequence-length {spec.arguments['sources'] + 1}")
    if "explainability" in spec.arguments:
        hints.append("--explainability" if spec.arguments["explainability"] else "--no-explainability")
    return " ".join(hints)


def check_before_training(options: TrainOptions) -> list[str]:
    """Check a sample of the data, print the result, and return its warnings.

    Raises:
        InputError: nothing can be learned from the data.
    """
    if not options.check or distributed.rank() > 0 or is_sharded(options.data or ""):  # shards: checked when packed
        return []
    # The data set has read all headers already. A learned camera only starts from the given focal length.
    clips = MOST_CLIPS if options.camera.name == "given" and options.fov is None else 0
    check = check_data(Path(options.data), options.sequence_length, 200, all_headers=False, most_clips=clips)
    report_data_check(check)
    training = [scene for scene in check.scenes if "train.txt" in scene.lists]
    if options.objective.auto_mask != "off" and all("static video" in scene.warned for scene in training):
        raise InputError(
            f"--auto-mask {options.objective.auto_mask}: the camera stands in every training scene of {options.data}, "
            "and the auto-mask hides what does not move; expected a scene in which it moves, or --auto-mask off"
        )
    return check.warnings
