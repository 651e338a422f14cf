"""Train depth and ego-motion networks from video without labels."""

import argparse
import dataclasses
import math
import os
import signal
import sys
import time
from datetime import datetime
from typing import Any

import torch
from path import Path
from torch import Tensor
from tqdm import tqdm

from checkpoint import keep_copy, load_networks, save_checkpoint
from datasets.augmentation import AUGMENTATIONS, augment
from datasets.check import check_data
from datasets.images import to_network_input
from datasets.snippets import ShuffledBatches, SnippetDataset, load_batches, seeded
from errors import InputError
from geometry.pose import ROTATIONS, pose_to_matrix
from logger import Logger, make_run_folder
from loss_functions import Objective, objective, split_snippet
from models import DispNet, PoseExpNet
from models.disp_net import FIRST_DISPARITY, MAX_DISPARITY, MIN_DISPARITY
from models.pose_exp_net import POSE_SCALE
from options import (
    add_device_flag,
    add_recipe_flags,
    choose_device,
    non_negative_int,
    positive_float,
    positive_int,
    recipe_from_flags,
    run_script,
)
from overlap import merge_scenes, trained_scenes
from report import report_data_check
from validate import open_validation, photometric_errors, report_damaged, validate
from visualize import snippet_pictures

DESCRIPTION = """\
Train DispNet (depth) and PoseExpNet (camera motion, explainability) from a prepared data set.

  python data/prepare_kitti.py KITTI prepared/kitti --with-depth
  python train.py prepared/kitti --recipe paper-depth --name my_run
  tensorboard --logdir runs

A run leaves one folder, runs/my_run: config.json, metrics.jsonl, TensorBoard events, and the checkpoints last.pt and
best_CRITERION.pt. Ctrl-C ends a run in order: the step is finished and a checkpoint written."""

SCHEDULES = ("constant", "cosine")
CRITERIA = ("abs_rel", "ate", "photometric")  # of the best checkpoints: lower is better, where the data allow it


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "data", type=Path, nargs="?", help="prepared data set: train.txt, val.txt, SCENE/*.jpg, cam.txt"
    )
    parser.add_argument("--name", help="of the run's folder (default: recipe and time)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the runs' folders lie (default: runs)")
    add_device_flag(parser)

    group = parser.add_argument_group("objective")
    add_recipe_flags(group)
    group.add_argument(
        "--rotation", choices=ROTATIONS, default="euler", help="how a pose's last three numbers are read"
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

    group = parser.add_argument_group("optimisation")
    length = group.add_mutually_exclusive_group()
    length.add_argument("--steps", type=positive_int, help="length of the training (default: 150000, as in the paper)")
    length.add_argument("--epochs", type=positive_int, help="length of the training in passes over the snippets")
    group.add_argument("--batch-size", type=positive_int, default=4, help="snippets a step (default: 4)")
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
    group.add_argument("--seed", type=non_negative_int, default=0, help="of weights, order, augmentation (default: 0)")
    group.add_argument(
        "--workers",
        type=non_negative_int,
        default=min(4, os.cpu_count() or 1),
        help="processes that read images (default: one a core, 4 at most)",
    )

    group = parser.add_argument_group("how often, in steps")
    group.add_argument("--log-every", type=positive_int, default=50, help="scalars (default: 50)")
    group.add_argument("--pictures-every", type=positive_int, default=500, help="pictures (default: 500)")
    group.add_argument(
        "--validate-every", type=positive_int, help="validation and checkpoint (default: every epoch, 500 at least)"
    )
    args = parser.parse_args()
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
    return args


def main() -> None:
    args = parse_arguments()
    recipe = recipe_from_flags(args)
    device = choose_device(args.device)
    dataset = SnippetDataset(args.data, "train.txt", recipe.sequence_length)
    steps_per_epoch = max(1, len(dataset) // args.batch_size)
    total_steps = args.steps or (args.epochs * steps_per_epoch if args.epochs else 150_000)
    batches = ShuffledBatches(len(dataset), args.batch_size, args.seed, 0, total_steps)
    validation = open_validation(args.data, recipe.sequence_length, (dataset.height, dataset.width))
    disp_net, pose_exp_net, ancestors = make_networks(args, recipe.sequence_length - 1, recipe.explainability)
    warnings = check_before_training(args, recipe.sequence_length)
    disp_net.to(device).train()
    pose_exp_net.to(device).train()
    optimizer = torch.optim.Adam(
        [*disp_net.parameters(), *pose_exp_net.parameters()], args.learning_rate, (args.beta1, args.beta2), fused=True
    )
    torch.backends.cudnn.benchmark = True  # all batches have one size

    config = plain(vars(args)) | dataclasses.asdict(recipe)
    config |= {"height": dataset.height, "width": dataset.width, "total_steps": total_steps}
    config["scenes"] = merge_scenes([scene.name for scene in dataset.scenes], ancestors)
    folder = args.runs / (args.name or f"{args.recipe}-{datetime.now():%Y%m%d-%H%M%S}")
    make_run_folder(folder, config)
    logger = Logger(folder)
    logger.text("configuration", "".join(f"    {name}: {value}\n" for name, value in config.items()))
    if warnings:
        logger.text("data check", "\n\n".join(warnings))
    print(
        f"{folder}: {len(dataset)} snippets of {recipe.sequence_length} frames, {dataset.width} x {dataset.height}, "
        f"from {len(dataset.scenes)} scenes; {total_steps} steps, {total_steps / steps_per_epoch:.1f} epochs; "
        f"validation: {f'{len(validation)} snippets' if validation else 'none, val.txt names no scene'}; {device}"
    )

    best: dict[str, Any] = {}
    validate_every = args.validate_every or max(500, steps_per_epoch)
    damaged: set[str] = set()
    stop = stop_on_signal()
    progress = tqdm(total=total_steps * args.batch_size, unit="img", desc="training", smoothing=0.05)
    step, ended = 0, False
    waited, last_log, last_logged_step = 0.0, time.perf_counter(), 0
    loader = load_batches(dataset, batches, args.workers, pin_memory=device.type == "cuda")
    while not ended:
        wait_start = time.perf_counter()
        batch = next(loader)
        waited += time.perf_counter() - wait_start

        frames = to_network_input(batch.frames.to(device, non_blocking=True))
        intrinsics = batch.intrinsics.to(device, non_blocking=True)
        if args.augmentation != "none":
            frames, intrinsics = augment(frames, intrinsics, seeded(args.seed, 1, step), args.augmentation == "flip")
        target, sources = split_snippet(frames)
        disparities = disp_net(target)
        poses, logits = pose_exp_net(target, sources)
        result = objective(frames, disparities, pose_to_matrix(poses, args.rotation), logits, intrinsics, recipe)
        optimizer.zero_grad()
        result.loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args.learning_rate, args.schedule, step, total_steps)
        optimizer.step()
        step += 1
        ended = step == total_steps or bool(stop)
        report_damaged(batch.damaged, damaged)
        if step % args.log_every == 0 or step == 1:
            values = diagnostics(result, disparities, poses, logits, sources)  # the host waits for the device here
            if not math.isfinite(values["objective/loss"]):
                raise InputError(f"step {step}: the loss is {values['objective/loss']}; try a smaller --learning-rate")
            seconds = time.perf_counter() - last_log
            values["speed/images_per_second"] = args.batch_size * (step - last_logged_step) / seconds
            values["speed/waiting_for_data"] = waited / seconds
            values["speed/damaged_files"] = len(damaged)
            logger.scalars("train", step, values)
            progress.set_postfix_str(f"loss {values['objective/loss']:.3f}, step {step}/{total_steps}", refresh=False)
            waited, last_log, last_logged_step = 0.0, time.perf_counter(), step
        if step % args.pictures_every == 0 or step == 1:
            with torch.no_grad():
                logger.pictures(step, snippet_pictures(frames, disparities, logits, result))
        progress.update(args.batch_size)

        if step % validate_every == 0 or ended:
            pause_start = time.perf_counter()
            scores: dict[str, float] = {}
            if validation and not stop:
                scores = validate(
                    disp_net, pose_exp_net, validation, args.batch_size, args.workers, args.rotation, damaged
                )
            improved = [
                name for name in CRITERIA if scores.get(name, math.inf) < best.get(name, {}).get("value", math.inf)
            ]
            best |= {name: {"value": scores[name], "step": step} for name in improved}
            save_checkpoint(folder / "last.pt", disp_net, pose_exp_net, optimizer, step, config, best)
            for name in improved:
                keep_copy(folder / "last.pt", folder / f"best_{name}.pt")
            if scores:
                logger.scalars("validation", step, scores)
                progress.write(f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
            last_log += time.perf_counter() - pause_start  # validation is no part of the training's speed

    progress.close()
    logger.close()
    for name, score in best.items():
        print(f"best {name} {score['value']:.4f} at step {score['step']}: {folder}/best_{name}.pt")
    print(f"{'done:' if step == total_steps else 'stopped at'} step {step}; {folder}/last.pt")


def check_before_training(args: argparse.Namespace, length: int) -> list[str]:
    """Print what a look at a sample of the data finds; its warnings. InputError if nothing can be learnt from them."""
    if args.no_check:
        return []
    check = check_data(args.data, length, most_pairs=200, all_headers=False)  # the headers, the data set has seen
    report_data_check(check)
    return check.warnings


def make_networks(
    args: argparse.Namespace, sources: int, explainability: bool
) -> tuple[DispNet, PoseExpNet, list[list[str] | None]]:
    """The networks, newly drawn from the seed or with the weights of the checkpoints in --start-from.

    Third, the scenes that each of these checkpoints was trained on; None where it does not say.
    """
    torch.manual_seed(args.seed)
    scales = (args.translation_scale, args.rotation_scale)
    disp_net, pose_exp_net = DispNet(args.first_disparity), PoseExpNet(sources, explainability, *scales)
    ancestors = []
    for file in args.start_from:
        given = load_networks(file)
        ancestors.append(trained_scenes(given.config))
        if given.config and given.rotation != args.rotation:
            raise InputError(f"{file}: its poses are read as {given.rotation}; give --rotation {given.rotation}")
        if given.disp_net is not None:
            disp_net = given.disp_net
        if given.pose_exp_net is not None:
            got = (given.pose_exp_net.sources, given.pose_exp_net.explainability)
            if got != (sources, explainability):
                raise InputError(
                    f"{file}: its PoseExpNet has {got[0]} sources, {'with' if got[1] else 'no'} explainability; "
                    f"expected {sources} sources, {'with' if explainability else 'no'} explainability, as in the recipe"
                )
            got_scales = (given.pose_exp_net.translation_scale, given.pose_exp_net.rotation_scale)
            if got_scales != scales:
                raise InputError(
                    f"{file}: its poses have other scales; give --translation-scale {got_scales[0]:g} "
                    f"--rotation-scale {got_scales[1]:g}"
                )
            pose_exp_net = given.pose_exp_net
    return disp_net, pose_exp_net, ancestors


@torch.no_grad()
def diagnostics(
    result: Objective, disparities: list[Tensor], poses: Tensor, logits: list[Tensor] | None, sources: Tensor
) -> dict[str, float]:
    """What a person needs to judge a step; of the finest scale where there are several."""
    error, identity_error = photometric_errors(result.warps[0], sources)
    disparity = disparities[0]
    values = {"objective/loss": result.loss}
    for name, term in result.terms.items():
        values[f"objective/{name}"] = term
        values[f"share/{name}"] = result.weights[name] * term / result.loss
    values |= {
        "photometric/warp": error,
        "photometric/identity_warp": identity_error,
        "photometric/valid_pixels": result.warps[0].valid.float().mean(),
        "disparity/mean": disparity.mean(),
        "disparity/spread": (disparity.std((1, 2, 3)) / disparity.mean((1, 2, 3))).mean(),
        "pose/translation": poses[..., :3].norm(dim=-1).mean(),
        "pose/rotation": poses[..., 3:].norm(dim=-1).mean(),
    }
    if logits is not None:
        values["explainability/mean"] = logits[0].sigmoid().mean()
    # One copy to the host for all of them.
    return dict(zip(values, torch.stack([value.float() for value in values.values()]).tolist(), strict=True))


def learning_rate(peak: float, schedule: str, step: int, total_steps: int) -> float:
    """Of a step, the first being 0; a function of the step alone."""
    if schedule == "constant":
        return peak
    rise = total_steps / 50
    return peak * min((step + 1) / rise, 0.5 + 0.5 * math.cos(math.pi * step / total_steps), 1)


def stop_on_signal() -> list[int]:
    """A list that stays empty until Ctrl-C or SIGTERM asks the run to end; a second Ctrl-C ends it at once."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    return asked


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Flags as plain numbers, strings and lists, for config.json and the checkpoint."""
    return {
        name: [str(item) for item in value]
        if isinstance(value, list)
        else str(value)
        if isinstance(value, Path)
        else value
        for name, value in values.items()
        if name != "print_recipe"
    }


if __name__ == "__main__":
    run_script(main)
