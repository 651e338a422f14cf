"""The flags of train.py, and what becomes of them when a run is resumed."""

import argparse
import dataclasses
import os
import sys
from typing import Any

from path import Path

from cli.flags import (
    add_device_flag,
    add_recipe_flags,
    non_negative_int,
    positive_float,
    positive_int,
    recipe_from_flags,
)
from datasets.augmentation import AUGMENTATIONS
from files.errors import InputError
from files.lock import hold
from geometry.pose import ROTATIONS
from models.checkpoint import load_checkpoint
from models.disp_net import FIRST_DISPARITY, MAX_DISPARITY, MIN_DISPARITY
from models.layers import channels
from models.pose_exp_net import POSE_SCALE
from training.run import CRITERIA

DESCRIPTION = """\
Train DispNet (depth) and PoseExpNet (camera motion, explainability) from a prepared data set.

  python data/prepare_kitti.py KITTI prepared/kitti --with-depth
  python train.py prepared/kitti --recipe paper-depth --name my_run
  tensorboard --logdir runs

A run leaves one folder, runs/my_run: config.json, metrics.jsonl, TensorBoard events, and the checkpoints last.pt and
best_CRITERION.pt. Ctrl-C ends a run in order: the step is finished and a checkpoint written. Whatever ended it, it goes
on from the last checkpoint, to the same weights as if it had never stopped:

  python train.py --resume runs/my_run

On several GPUs (docs/training.md):

  torchrun --nproc-per-node 4 train.py prepared/kitti --name my_run"""

SCHEDULES = ("constant", "cosine")
PRECISIONS = ("float32", "bf16")
# What a resumed run may do otherwise than the run before it: none of it changes what a step computes, but for the last
# bits. Of batch_size and accumulate only the product (with the number of processes) is kept: see `share_batch`.
MAY_CHANGE = {"data", "resume", "device", "steps", "epochs", "workers", "batch_size", "accumulate", "compile"}
MAY_CHANGE |= {
    "channels_last",
    "log_every",
    "pictures_every",
    "validate_every",
    "save_every",
    "skip_non_finite",
    "no_check",
}


def parse_arguments() -> tuple[argparse.Namespace, dict[str, Any] | None]:
    """The flags; with --resume those of the run, and its checkpoint, too (else None)."""
    parser = make_parser()
    args = parser.parse_args()
    checkpoint = None
    if args.resume is not None:
        args, checkpoint = resume_arguments(parser, args.resume)
    if args.print_recipe:
        recipe = recipe_from_flags(args)
        print("\n".join(f"{name:22s} {value}" for name, value in dataclasses.asdict(recipe).items()))
        sys.exit(0)
    if args.data is None:
        parser.error("the folder of the prepared data set is missing")
    if args.beta1 >= 1 or args.beta2 >= 1:
        parser.error(f"--beta1 {args.beta1} --beta2 {args.beta2}: expected numbers below 1")
    if not MIN_DISPARITY < args.first_disparity < MIN_DISPARITY + MAX_DISPARITY:
        parser.error(f"--first-disparity {args.first_disparity:g}: expected a number between 0.01 and 10.01")
    return args, checkpoint


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "data", type=Path, nargs="?", help="prepared data set: train.txt, val.txt, SCENE/*.jpg, cam.txt"
    )
    parser.add_argument("--name", help="of the run's folder (default: recipe and time)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the runs' folders lie (default: runs)")
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="go on with the run in this folder; of the other flags only those that do not change the result may be "
        "given with it (length, devices, workers, how often)",
    )

    group = parser.add_argument_group("objective")
    add_recipe_flags(group)
    group.add_argument(
        "--rotation", choices=ROTATIONS, default="euler", help="how a pose's last three numbers are read"
    )
    group = parser.add_argument_group("networks")
    group.add_argument(
        "--network-width",
        type=network_width,
        default=1.0,
        metavar="X",
        help="share of the paper's channels that each layer has, a multiple of 1/16 up to 2: fewer are faster, and "
        "depth has less detail (default: 1)",
    )
    group.add_argument(
        "--pose-net-width",
        type=network_width,
        metavar="X",
        help="the same for PoseExpNet alone, which costs less than DispNet (default: as --network-width)",
    )
    group = parser.add_argument_group("where training starts")
    group.add_argument(
        "--start-from",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="begin with the weights of a checkpoint; give it twice where each network has its own",
    )
    group.add_argument(
        "--first-disparity",
        type=positive_float,
        default=FIRST_DISPARITY,
        metavar="D",
        help="near what new weights of DispNet predict, between 0.01 and 10.01 (default: 5.01, the middle; 1.2 learns "
        "much sooner)",
    )
    for name, unit in (("translation", "the depth's unit"), ("rotation", "radians")):
        group.add_argument(
            f"--{name}-scale",
            type=positive_float,
            default=POSE_SCALE,
            metavar="X",
            help=f"what an output of 1 of PoseExpNet means in {unit} (default: 0.01; with a low --first-disparity, 0.1 "
            "for translations and 0.2 for rotations learn much sooner)",
        )
    group.add_argument(
        "--fixation-depth",
        type=positive_float,
        metavar="Z",
        help="PoseExpNet's sideways translations come with the turn that keeps points at this depth in place, so that "
        "turns and parallax are learnt apart (default: no such turn; 1 / first disparity learns motion much sooner)",
    )

    group = parser.add_argument_group("optimisation")
    length = group.add_mutually_exclusive_group()
    length.add_argument("--steps", type=positive_int, help="length of the training (default: 150000, as in the paper)")
    length.add_argument("--epochs", type=positive_int, help="length of the training in passes over the snippets")
    group.add_argument("--batch-size", type=positive_int, default=4, help="snippets a step (of a process; default: 4)")
    group.add_argument("--learning-rate", type=positive_float, default=2e-4, help="of Adam (default: 2e-4)")
    group.add_argument(
        "--schedule",
        choices=SCHEDULES,
        default="constant",
        help="of the learning rate; cosine: rises over the first 2 %% of the steps, then falls to 0 at the last "
        "(default: constant, as in the paper)",
    )
    group.add_argument("--beta1", type=positive_float, default=0.9, help="of Adam (default: 0.9)")
    group.add_argument("--beta2", type=positive_float, default=0.999, help="of Adam (default: 0.999)")
    group.add_argument(
        "--augmentation",
        choices=AUGMENTATIONS,
        default="all",
        help="all: random scale, crop and flip, as in the paper; flip: only that, the camera stays (default: all)",
    )
    group.add_argument("--no-check", action="store_true", help="begin without a look at the data (see check_data.py)")
    group.add_argument("--seed", type=seed, default=0, help="of weights, order, augmentation (default: 0)")
    group.add_argument(
        "--skip-non-finite",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="skip and count a batch whose loss or gradient is not finite (default: the run stops)",
    )

    group.add_argument(
        "--accumulate",
        type=positive_int,
        default=1,
        metavar="N",
        help="batches a step: their gradients are averaged, as of one batch N times as large (default: 1)",
    )

    group = parser.add_argument_group("devices")
    add_device_flag(group)
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="bf16: the networks' convolutions in bfloat16; geometry, warp, losses and weights stay in float32 "
        "(default: float32)",
    )
    group.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="compile networks and loss: the first step takes minutes, the rest less",
    )
    group.add_argument(
        "--channels-last", action=argparse.BooleanOptionalAction, default=False, help="the networks' memory format"
    )
    group.add_argument(
        "--workers",
        type=non_negative_int,
        default=min(4, os.cpu_count() or 1),
        help="processes that read images (default: one a core, 4 at most)",
    )

    group = parser.add_argument_group("how often, in steps unless said")
    group.add_argument("--log-every", type=positive_int, default=50, help="scalars (default: 50)")
    group.add_argument("--pictures-every", type=positive_int, default=500, help="pictures (default: 500)")
    group.add_argument(
        "--validate-every", type=positive_int, help="validation and checkpoint (default: every epoch, 500 at least)"
    )
    group.add_argument(
        "--save-every", type=positive_float, default=10, metavar="MINUTES", help="checkpoint, in minutes (default: 10)"
    )
    return parser


def seed(text: str) -> int:
    number = non_negative_int(text)
    if number >= 2**63:
        raise argparse.ArgumentTypeError(f"got {text}, expected less than 2^63")
    return number


def network_width(text: str) -> float:
    width = positive_float(text)
    try:
        channels(width)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return width


def resume_arguments(parser: argparse.ArgumentParser, run: Path) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The flags of a run that is to go on, changed by those of the command line, and its checkpoint.

    Raises:
        InputError: no run, no checkpoint in it, a damaged one, or a flag that would make another training of it.
    """
    file = run / "last.pt"
    if not run.is_dir():
        raise InputError(f"--resume {run}: no such folder, expected that of a run")
    if not file.is_file():
        raise InputError(f"--resume {run}: has no last.pt: it ended before its first checkpoint; start it anew")
    # Before it is read: another process may be about to write a later one. Of several processes the first holds it.
    lock = hold(run) if os.environ.get("RANK", "0") == "0" else None
    checkpoint = load_checkpoint(file)
    config = checkpoint["config"]
    for name in ("total_steps", "batch_size", *config.keys() & {"accumulate", "processes", "snippets"}):
        if type(config.get(name)) is not int or config[name] < 1:
            raise InputError(f"{file}: damaged checkpoint: its config has {name} = {config.get(name)!r}")
    if min(checkpoint["step"], checkpoint["skipped"]) < 0 or checkpoint["step"] >= 2**62:
        raise InputError(f"{file}: damaged checkpoint: step {checkpoint['step']}, skipped {checkpoint['skipped']}")
    scenes = config.get("scenes")
    if scenes is not None and not (isinstance(scenes, list) and all(isinstance(scene, str) for scene in scenes)):
        raise InputError(f"{file}: damaged checkpoint: its config has scenes = {scenes!r:.60}, expected names")
    for name, score in checkpoint["best"].items():
        kinds = {key: type(value) for key, value in score.items()} if isinstance(score, dict) else None
        if name not in CRITERIA or kinds != {"value": float, "step": int}:
            raise InputError(
                f"{file}: damaged checkpoint: its best {name!r:.40} is {score!r:.80}, expected a value and a step"
            )
    stored = _stored_flags(parser, config, file)
    # A run's length is its total_steps, unless one is given now.
    parser.set_defaults(**stored | {"steps": None, "epochs": None})
    args = parser.parse_args()
    for name, value in stored.items():
        given = getattr(args, name)
        if name not in MAY_CHANGE and given != value:
            raise InputError(
                f"--{name.replace('_', '-')} {given}: the run in {run} has {value}; to go on it must stay so "
                "(--start-from begins a new run with these weights)"
            )
    longer = args.steps is not None or args.epochs is not None
    if longer and args.schedule != "constant":
        raise InputError(
            f"--steps, --epochs: the {args.schedule} schedule of the run in {run} is one of all its steps; its length "
            "must stay (--start-from begins a new run with these weights)"
        )
    args.lock = lock
    return args, checkpoint


def share_batch(args: argparse.Namespace, config: dict[str, Any], processes: int) -> None:
    """Keep the number of snippets a step when a run goes on with other processes: sets `args.batch_size`.

    Args:
        args: the flags, of which batch_size and accumulate are looked at.
        config: of the checkpoint.
        processes: how many there are now.
    """
    whole = config["batch_size"] * config.get("accumulate", 1) * config.get("processes", 1)
    if (args.batch_size, args.accumulate) == (config["batch_size"], config.get("accumulate", 1)):
        args.batch_size = max(1, whole // (processes * args.accumulate))  # not changed by the user: to fit
    if args.batch_size * args.accumulate * processes != whole:
        raise InputError(
            f"--batch-size {args.batch_size} x --accumulate {args.accumulate} x {processes} processes: the run has "
            f"{whole} snippets a step; to go on it must stay so"
        )


def _stored_flags(parser: argparse.ArgumentParser, config: dict[str, Any], file: Path) -> dict[str, Any]:
    """The flags in a checkpoint's config, checked as if they had been typed; of flags newer than it the default."""
    stored = {}
    for action in parser._actions:
        name = action.dest
        if name in ("help", "resume", "print_recipe"):
            continue
        value = config.get(name, action.default)
        try:
            if isinstance(value, list) and isinstance(action.default, list):
                value = [_as_typed(action, item) for item in value]
            elif value is not None:
                value = _as_typed(action, value)
        except (TypeError, ValueError, argparse.ArgumentTypeError):
            raise InputError(f"{file}: damaged checkpoint: its config has {name} = {value!r}") from None
        stored[name] = value
    return stored


def _as_typed(action: argparse.Action, value: Any) -> Any:
    if isinstance(value, bool) != (action.nargs == 0):  # flags without a value are those that are on or off
        raise TypeError
    if isinstance(value, bool):
        return value
    if not isinstance(value, str | int | float):
        raise TypeError
    typed = action.type(str(value)) if callable(action.type) else value
    if action.choices is not None and typed not in action.choices:
        raise ValueError
    return typed


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Flags as plain numbers, strings and lists, for config.json and the checkpoint."""
    return {
        name: [str(item) for item in value]
        if isinstance(value, list)
        else str(value)
        if isinstance(value, Path)
        else value
        for name, value in values.items()
        if name not in ("print_recipe", "resume", "lock")
    }
