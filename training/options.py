"""The options of a training: one frozen dataclass, from which the flags are derived and which checkpoints store."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from path import Path

from datasets.augmentation import AUGMENTATIONS
from files.errors import InputError, UsageError
from files.options import check_options, flag_name, from_plain, option, to_plain
from files.remote import is_url
from loss_functions import ObjectiveOptions
from models import CAMERAS, DEPTH_NETS, POSE_NETS, NetworkSpec, complete, predicts_masks
from models.encoder_weights import IMAGENET, NONE
from models.published import WORLD
from training.recipes import RECIPE_IMAGES, RECIPES

PAPER_STEPS = 150_000
SCHEDULES = ("constant", "cosine", "step")
PRECISIONS = ("float32", "bf16")

SNIPPETS, NETWORKS, START, STEPS = "snippets and objective", "networks", "start", "optimisation"
DEVICES, OFTEN = "devices", "intervals, in steps unless stated"


@dataclass(frozen=True)
class TrainOptions:
    """Everything that a user chooses about a training.

    Fields with `may_change` do not change what a step computes, apart from the last bits. A resumed run may change
    them. `batch_size` and `accumulate` may change as long as their product with the number of processes stays;
    BatchNorm, `scale_weight` and `over_pixels="valid"` depend on how a step is cut into batches.
    """

    data: str | None = option(
        None,
        "prepared data set: train.txt, val.txt, SCENE/*.jpg, cam.txt; or shards of data/pack_shards.py: FOLDER or URL",
        may_change=True,
    )
    name: str | None = option(None, "name of the run's folder (default: recipe and time)")
    runs: str = option("runs", "folder that holds the runs' folders")

    recipe: str = option("paper-depth", "defaults of the flags below", group=SNIPPETS, choices=tuple(RECIPES))
    sequence_length: int = option(
        3, "frames of a snippet; the middle one is the target, the others its sources", group=SNIPPETS, at_least=3
    )
    objective: ObjectiveOptions = ObjectiveOptions()
    auto_mask_after: float = option(
        0.0,
        "share of the steps after which the auto-mask begins; under it, networks with new weights find no depth: until "
        "the motion is about right, the unwarped source fits better than a warp",
        group=SNIPPETS,
        at_least=0,
        below=1,
        metavar="SHARE",
    )

    depth_net: NetworkSpec = NetworkSpec("disp_net")
    pose_net: NetworkSpec = NetworkSpec("pose_exp_net")
    camera: NetworkSpec = NetworkSpec("given")
    fov: float | None = option(
        None,
        "horizontal field of view in degrees of the camera, in place of cam.txt; with --camera learned a guess to "
        "start from",
        group=NETWORKS,
        above=1,
        below=179,
        metavar="DEGREES",
    )
    camera_rate: float = option(
        1e-4,
        "Adam's learning rate of a learned camera: of the logarithm of its focal lengths; a camera that begins at a "
        "guess needs a larger one, such as 1e-3",
        group=NETWORKS,
        above=0,
    )

    encoder_weights: str = option(
        "none",
        "first weights of the networks' encoders: imagenet (downloaded by torchvision or timm), or a FILE of theirs "
        "(.pth, .safetensors) for the encoders that it fits",
        group=START,
        metavar="none|imagenet|FILE",
    )
    start_from: tuple[str, ...] = option(
        (),
        "start with the weights of a checkpoint (of a run's folder its last.pt), or with world, the weights in this "
        "repository (weights/README.md); give the flag twice where each network has its own file",
        group=START,
        metavar="FILE",
    )

    prior: str | None = option(
        None,
        "checkpoint (of a run's folder its last.pt) whose depth network predicts the prior of --prior-weight, at about "
        "the image size of its own training; world: the weights in this repository",
        group=START,
        metavar="FILE",
    )

    steps: int | None = option(
        None, "length of the training (default: 150000, as in the paper)", group=STEPS, above=0, may_change=True
    )
    epochs: int | None = option(
        None, "length of the training in passes over the snippets", group=STEPS, above=0, may_change=True
    )
    batch_size: int = option(4, "snippets per step and process", group=STEPS, above=0, may_change=True)
    accumulate: int = option(
        1,
        "batches per step; their gradients are averaged, as if they were one batch",
        group=STEPS,
        above=0,
        metavar="N",
        may_change=True,
    )
    learning_rate: float = option(2e-4, "Adam's learning rate", group=STEPS, above=0)
    encoder_rate: float = option(
        1.0,
        "factor of the learning rate for the encoders' weights; below 1 keeps them near their start",
        group=STEPS,
        above=0,
    )
    schedule: str = option(
        "constant",
        "learning rate over the steps; cosine rises over the first 2 %% of the steps and falls to 0 at the last; step "
        "falls once, by --decay-factor",
        group=STEPS,
        choices=SCHEDULES,
    )
    decay_after: float = option(
        0.75, "share of the steps after which the schedule step falls", group=STEPS, above=0, below=1
    )
    decay_factor: float = option(0.1, "factor by which the schedule step falls", group=STEPS, above=0, below=1)
    beta1: float = option(0.9, "Adam's beta1", group=STEPS, above=0, below=1)
    beta2: float = option(0.999, "Adam's beta2", group=STEPS, above=0, below=1)
    augmentation: str = option(
        "all",
        "all: random scale, crop and flip, as in the paper; flip: without scale and crop, the camera stays",
        group=STEPS,
        choices=AUGMENTATIONS,
    )
    check: bool = option(True, "check the data before training (see data/check_data.py)", group=STEPS, may_change=True)
    seed: int = option(0, "seed of weights, order and augmentation", group=STEPS, at_least=0, below=2**63)
    skip_non_finite: bool = option(
        False,
        "skip and count a step whose loss or gradient is not finite; otherwise the run stops",
        group=STEPS,
        may_change=True,
    )

    device: str = option(
        "auto",
        "cuda, cuda:1, mps or cpu; auto takes the first of CUDA, MPS and CPU that the machine has",
        group=DEVICES,
        may_change=True,
    )
    precision: str = option(
        "float32",
        "bf16: the networks' convolutions in bfloat16; geometry, warp, loss and weights stay in float32",
        group=DEVICES,
        choices=PRECISIONS,
    )
    compile: bool = option(
        False, "compile model and loss; the first step takes minutes", group=DEVICES, may_change=True
    )
    channels_last: bool | None = option(
        None,
        "memory format of the networks (default: on where it is faster, on CPUs with AVX-512)",
        group=DEVICES,
        may_change=True,
    )
    workers: int = option(
        min(4, os.cpu_count() or 1), "processes that read images", group=DEVICES, at_least=0, may_change=True
    )
    graph: bool = option(
        True,
        "on a GPU, capture the training step once as a CUDA graph and replay it: the same step, several times faster",
        group=DEVICES,
        may_change=True,
    )
    data_in_memory: bool = option(
        False,
        "decode all frames once, and keep them in the GPU's memory, or in the host's where they don't fit",
        group=DEVICES,
        may_change=True,
    )

    log_every: int = option(50, "scalars", group=OFTEN, above=0, may_change=True)
    pictures_every: int = option(500, "pictures", group=OFTEN, above=0, may_change=True)
    validate_every: int | None = option(
        None, "validation and checkpoint (default: every epoch, at least 500)", group=OFTEN, above=0, may_change=True
    )
    save_every: float = option(10.0, "checkpoint, in minutes", group=OFTEN, above=0, metavar="MINUTES", may_change=True)

    def __post_init__(self) -> None:
        check_options(self)
        if self.sequence_length % 2 == 0:
            raise UsageError(f"--sequence-length {self.sequence_length}: expected an odd number of frames from 3 on")
        if self.steps is not None and self.epochs is not None:
            raise UsageError(f"--steps {self.steps} --epochs {self.epochs}: expected one of them")
        self.networks()

    def networks(self) -> dict[str, NetworkSpec]:
        """The specification of each network with all arguments, for `models.build` and for checkpoints.

        UsageError for an unknown network, or an argument that it does not have.
        """
        from_training: dict[str, Any] = {"sources": self.sequence_length - 1}
        if predicts_masks(self.pose_net.name):
            from_training["explainability"] = self.objective.explainability
        elif self.objective.explainability and self.pose_net.name in POSE_NETS:
            raise UsageError(f"--pose-net {self.pose_net.name}: predicts no masks; give --no-explainability")
        pose = NetworkSpec(self.pose_net.name, from_training | self.pose_net.arguments)
        specs = {}
        for role, flag, known, spec in (
            ("depth", "--depth-net", DEPTH_NETS, self.depth_net),
            ("pose", "--pose-net", POSE_NETS, pose),
            ("camera", "--camera", CAMERAS, self.camera),
        ):
            try:
                specs[role] = complete(known, spec)
            except InputError as error:
                raise UsageError(f"{flag} {error}") from None
        _check_from_training(specs["pose"], from_training)
        return specs


def _check_from_training(pose: NetworkSpec, from_training: Mapping[str, Any]) -> None:
    """UsageError if an argument of --pose-net contradicts what the training decides."""
    flags = {"sources": "--sequence-length", "explainability": "--explainability or --no-explainability"}
    for name, value in from_training.items():
        if pose.arguments[name] != value:
            given, decided = (NetworkSpec(pose.name, {name: number}) for number in (pose.arguments[name], value))
            raise UsageError(f"--pose-net {given}: {flags[name]} decides it, and the training needs {decided}")


# Flags of the first version, and the network arguments that they were: hidden aliases for one release.
OLD_FLAGS: dict[str, tuple[tuple[str, str], ...]] = {
    "network_width": (("depth_net", "width"), ("pose_net", "width")),
    "pose_net_width": (("pose_net", "width"),),
    "first_disparity": (("depth_net", "first_disparity"),),
    "translation_scale": (("pose_net", "translation_scale"),),
    "rotation_scale": (("pose_net", "rotation_scale"),),
    "fixation_depth": (("pose_net", "orbit_depth"),),
    "rotation": (("pose_net", "rotation"),),
}


def new_options(given: Mapping[str, Any]) -> TrainOptions:
    """The options of a new run: the recipe's, changed by the flags that were given.

    Args:
        given: values by field; fields of the objective stand among them.

    Raises:
        UsageError: a value out of range.
    """
    recipe = given.get("recipe", "paper-depth")
    if recipe not in RECIPES:
        raise UsageError(f"--recipe {recipe!r:.40}: expected one of {', '.join(RECIPES)}")
    defaults = dict(RECIPES[recipe])
    if given.keys() & {"steps", "epochs"}:  # the recipe's length gives way, in whatever unit it is
        defaults = {name: value for name, value in defaults.items() if name not in ("steps", "epochs")}
    return change(TrainOptions(), {**defaults, **given})


def change(options: TrainOptions, given: Mapping[str, Any]) -> TrainOptions:
    """Options with other values; fields of the objective and the flags of `OLD_FLAGS` stand among the others."""
    given = dict(given)
    for flag, arguments in OLD_FLAGS.items():  # in this order: --pose-net-width prevails over --network-width
        if flag in given:
            value = given.pop(flag)
            for network, argument in arguments:
                spec = given.get(network, getattr(options, network))
                given[network] = NetworkSpec(spec.name, {**spec.arguments, argument: value})
    of_objective = {field.name for field in dataclasses.fields(ObjectiveOptions)}
    objective = dataclasses.replace(
        options.objective, **{name: value for name, value in given.items() if name in of_objective}
    )
    others = {name: value for name, value in given.items() if name not in of_objective}
    # Absolute, so that a run can be resumed from another working directory.
    if others.get("data") is not None and not is_url(others["data"]):
        others["data"] = os.path.abspath(others["data"])
    if others.get("encoder_weights", NONE) not in (NONE, IMAGENET):
        others["encoder_weights"] = os.path.abspath(others["encoder_weights"])
    if others.get("prior") not in (None, WORLD):
        others["prior"] = os.path.abspath(others["prior"])
    if "start_from" in others:
        others["start_from"] = tuple(file if file == WORLD else os.path.abspath(file) for file in others["start_from"])
    return dataclasses.replace(options, objective=objective, **others)


def resume_options(stored: Any, given: Mapping[str, Any], run: Path) -> TrainOptions:
    """The options of a run that is resumed: the stored ones, changed by the flags that were given.

    Args:
        stored: a checkpoint's entry `options`.
        given: as in `new_options`.
        run: the run's folder, for errors.

    Raises:
        InputError: damaged options; a flag that would make another training of the run.
    """
    options = from_plain(TrainOptions, stored, f"{run}/last.pt")
    options = dataclasses.replace(options, steps=None, epochs=None)  # the checkpoint's record has the length
    changed = change(options, given)
    for name, before in _decisive(options).items():
        now = _decisive(changed)[name]
        if before != now:
            raise InputError(
                f"{flag_name(name)} {_show(now)}: the run in {run} has {_show(before)}; a resumed run keeps it "
                "(--start-from begins a new run with these weights)"
            )
    if (options.schedule != "constant" or options.auto_mask_after) and (changed.steps or changed.epochs):
        spans = "--auto-mask-after" if options.schedule == "constant" else f"the {options.schedule} schedule"
        raise InputError(
            f"--steps, --epochs: {spans} of the run in {run} spans all of its steps; a resumed run keeps its length "
            "(--start-from begins a new run with these weights)"
        )
    return changed


def fit_batch(options: TrainOptions, stored: TrainOptions, before: int, now: int) -> TrainOptions:
    """Keep the number of snippets per step when a run is resumed on another number of processes.

    Args:
        options: of the resumed run.
        stored: of the run before.
        before, now: numbers of processes.

    Raises:
        InputError: a batch size or accumulation was given that changes the number.
    """
    snippets = stored.batch_size * stored.accumulate * before
    if (options.batch_size, options.accumulate) == (stored.batch_size, stored.accumulate):
        options = dataclasses.replace(options, batch_size=max(1, snippets // (now * options.accumulate)))
    if options.batch_size * options.accumulate * now != snippets:
        raise InputError(
            f"--batch-size {options.batch_size} x --accumulate {options.accumulate} x {now} processes: the run has "
            f"{snippets} snippets per step; a resumed run keeps that number"
        )
    return options


def plain_options(options: TrainOptions) -> dict[str, Any]:
    """Options as plain values, for config.json and checkpoints."""
    return to_plain(options)


def describe_recipe(options: TrainOptions) -> str:
    """The options that decide what is learned, a line each: what --print-recipe prints."""
    lines = _decisive(options) | {"batch_size": options.batch_size, "accumulate": options.accumulate}
    lines |= {"steps": options.steps, "epochs": options.epochs}
    for name in ("name", "runs", "start_from", "seed", "recipe"):
        del lines[name]
    width, height = RECIPE_IMAGES[options.recipe]
    images = f"{'images':22s} {width} x {height} (prepare the data with --width {width} --height {height})"
    return "\n".join([images, *(f"{name:22s} {_show(value)}" for name, value in lines.items())])


def _decisive(options: TrainOptions) -> dict[str, Any]:
    """The options that a resumed run keeps, by name; networks with all their arguments."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        if field.name == "objective":
            values |= dataclasses.asdict(options.objective)
        elif not field.metadata.get("may_change", False):
            values[field.name] = getattr(options, field.name)
    for role, spec in options.networks().items():
        values["camera" if role == "camera" else f"{role}_net"] = spec
    return values


def _show(value: Any) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)
