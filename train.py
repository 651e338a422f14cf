"""Train depth and ego-motion networks from video without labels."""

import argparse
import dataclasses
import json
import math
import signal
import sys
import time
from datetime import datetime
from typing import Any

import torch
from path import Path
from torch import Tensor
from tqdm import tqdm

import distributed
from checkpoint import keep_copy, load_networks, load_run, save_checkpoint
from collapse import CollapseWatch
from data_wait import DataWait
from datasets.augmentation import augment
from datasets.check import check_data
from datasets.images import to_network_input
from datasets.snippets import ShuffledBatches, SnippetDataset, load_batches, seeded
from errors import InputError
from geometry.pose import pose_to_matrix
from logger import Logger, make_run_folder, write_whole
from loss_functions import Objective, objective, split_snippet
from models import DispNet, PoseExpNet
from options import recipe_from_flags, run_script
from overlap import merge_scenes, trained_scenes
from report import report_data_check
from step_check import Outcome, StepCheck
from training_options import parse_arguments, plain, share_batch
from validate import open_validation, photometric_errors, report_damaged, validate
from visualize import snippet_pictures

CRITERIA = ("abs_rel", "ate", "photometric")  # of the best checkpoints: lower is better, where the data allow it


def main() -> None:
    args, checkpoint = parse_arguments()
    with distributed.processes(args.device) as device:
        train(args, checkpoint, device)


def train(args: argparse.Namespace, checkpoint: dict[str, Any] | None, device: torch.device) -> None:
    """The training, from its first step or from a checkpoint's; where there are several processes each runs it."""
    rank, processes = distributed.rank(), distributed.count()
    if checkpoint is not None:
        share_batch(args, checkpoint["config"], processes)
    recipe = recipe_from_flags(args)
    dataset = SnippetDataset(args.data, "train.txt", recipe.sequence_length)
    validation = open_validation(args.data, recipe.sequence_length, (dataset.height, dataset.width))
    # A step's snippets are cut into pieces: one for each process and each of the batches that it accumulates.
    pieces = processes * args.accumulate
    snippets_per_step = pieces * args.batch_size
    steps_per_epoch = max(1, len(dataset) // snippets_per_step)
    disp_net, pose_exp_net, ancestors = make_networks(args, recipe.sequence_length - 1, recipe.explainability)
    warnings = check_before_training(args, recipe.sequence_length) if checkpoint is None and rank == 0 else []
    for network in (disp_net, pose_exp_net):
        network.to(device).train()
        if args.channels_last:
            network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(
        [*disp_net.parameters(), *pose_exp_net.parameters()], args.learning_rate, (args.beta1, args.beta2), fused=True
    )
    torch.backends.cudnn.benchmark = True  # all batches have one size

    config = plain(vars(args)) | dataclasses.asdict(recipe)
    config |= {"height": dataset.height, "width": dataset.width, "snippets": len(dataset), "processes": processes}
    config["scenes"] = merge_scenes([scene.name for scene in dataset.scenes], ancestors)
    config["total_steps"] = args.steps or (args.epochs * steps_per_epoch if args.epochs else 150_000)
    if checkpoint is not None and not (args.steps or args.epochs):
        config["total_steps"] = checkpoint["config"]["total_steps"]
    total_steps, start = config["total_steps"], checkpoint["step"] if checkpoint else 0
    batches = ShuffledBatches(
        len(dataset), args.batch_size, args.seed, start, max(start, total_steps), pieces, rank, processes
    )
    # Where the run stands. All randomness is drawn from (seed, step) and (seed, epoch): the step is its state, too.
    step, skipped, validation_due, watch = 0, 0, False, CollapseWatch()
    best: dict[str, Any] = {}
    if checkpoint is None:
        folder = args.runs / (args.name or f"{args.recipe}-{datetime.now():%Y%m%d-%H%M%S}")
        if rank == 0:
            make_run_folder(folder, config)
        logger = Logger(folder if rank == 0 else None)
        logger.text("configuration", "".join(f"    {name}: {value}\n" for name, value in config.items()))
        if warnings:
            logger.text("data check", "\n\n".join(warnings))
    else:
        folder, step, skipped, best = args.resume, checkpoint["step"], checkpoint["skipped"], checkpoint["best"]
        validation_due = checkpoint["validation_due"]
        check_same_data(dataset, args.data, checkpoint["config"])
        config["scenes"] = checkpoint["config"].get("scenes")
        load_run(checkpoint, folder / "last.pt", disp_net, pose_exp_net, optimizer)
        logger = Logger(folder if rank == 0 else None, resumed_from=step)
        for record in logger.records:
            watch.look(record["step"], record)
        if rank == 0:
            write_whole(folder / "config.json", json.dumps(config, indent=2) + "\n")
    say = tqdm.write if rank == 0 else (lambda line: None)
    say(
        f"{folder}: {len(dataset)} snippets of {recipe.sequence_length} frames, {dataset.width} x {dataset.height}, "
        f"from {len(dataset.scenes)} scenes; {total_steps} steps, {total_steps / steps_per_epoch:.1f} epochs"
        f"{f', from step {step} on' if checkpoint else ''}; "
        f"validation: {f'{len(validation)} snippets' if validation else 'none, val.txt names no scene'}; "
        f"{f'{processes} processes, ' if processes > 1 else ''}{device}"
    )

    loss_function = objective
    if args.compile:
        loss_function = torch.compile(objective)
        disp_net.compile()
        pose_exp_net.compile()
    networks = [distributed.share_gradients(network) for network in (disp_net, pose_exp_net)]
    check = StepCheck(optimizer, args.skip_non_finite, late=device.type == "cuda")
    loader = load_batches(dataset, batches, args.workers, pin_memory=device.type == "cuda")
    wait = DataWait(args.workers)
    damaged: set[str] = set()
    validate_every = args.validate_every or max(500, steps_per_epoch)
    asked_to_stop = stop_on_signal()
    stopping, saving, next_save = False, True, 0.0
    last_log, last_logged_step, last_waited = time.perf_counter(), step, 0.0
    bar = tqdm(
        total=total_steps * snippets_per_step,
        initial=step * snippets_per_step,
        unit="img",
        desc="training",
        smoothing=0.05,
        disable=rank > 0,
    )
    with bar as progress:
        while True:
            # Between two steps: validation, checkpoint. What is logged is on the disk before a checkpoint past it.
            pause_start = time.perf_counter()
            if validation and validation_due and not stopping:
                scores = validate(
                    disp_net, pose_exp_net, validation, args.batch_size, args.workers, args.rotation, damaged
                )
                for name in CRITERIA:
                    if scores.get(name, math.inf) < best.get(name, {}).get("value", math.inf):
                        best[name] = {"value": scores[name], "step": step}
                logger.scalars("validation", step, scores)
                say(f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
                validation_due, saving = False, True
            ended = stopping or step >= total_steps
            if saving or ended:
                if rank == 0:
                    logger.sync()
                    save_run(folder, disp_net, pose_exp_net, optimizer, step, config, best, skipped, validation_due)
                next_save = time.monotonic() + 60 * args.save_every
            if ended:
                break
            paused = time.perf_counter() - pause_start  # no part of the training's speed
            last_log += paused
            wait.pause(paused)

            # One step.
            logging = (step + 1) % args.log_every == 0 or step == 0
            loss: Tensor = torch.zeros((), device=device)
            terms: dict[str, Tensor] = {}
            diagnosed, indices, damaged_lines = [], [], []
            optimizer.zero_grad()
            for accumulated in range(args.accumulate):
                batch = wait.next_batch(loader)
                frames = to_network_input(batch.frames.to(device, non_blocking=True))
                intrinsics = batch.intrinsics.to(device, non_blocking=True)
                if args.augmentation != "none":
                    generator, piece = seeded(args.seed, 1, step), accumulated * processes + rank
                    frames, intrinsics = augment(
                        frames, intrinsics, generator, args.augmentation == "flip", piece, pieces
                    )
                target, sources = split_snippet(frames)
                with distributed.gradients_stay(networks, stay=accumulated + 1 < args.accumulate):
                    with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16"):
                        disparities = networks[0](target)
                        poses, logits = networks[1](target, sources)
                    transforms = pose_to_matrix(poses, args.rotation)
                    result = loss_function(frames, disparities, transforms, logits, intrinsics, recipe)
                    (result.loss / args.accumulate).backward()
                loss = loss + result.loss.detach() / args.accumulate
                terms = {
                    name: terms.get(name, 0) + term.detach() / args.accumulate for name, term in result.terms.items()
                }
                indices += batch.indices
                damaged_lines += batch.damaged
                if logging:
                    diagnosed.append(diagnostics(result, disparities, poses, logits, sources))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(args.learning_rate, args.schedule, step, total_steps)
            save_is_due = time.monotonic() > next_save
            check.before_step(step + 1, loss, terms, indices, stop=bool(asked_to_stop), save=save_is_due)
            optimizer.step()  # changes nothing where the loss or the gradient is not finite
            step += 1
            report_damaged(damaged_lines, damaged)

            # What the host learns of the step (on a GPU mostly of the one before, so that it need not wait).
            validation_due = validation is not None and (step % validate_every == 0 or step == total_steps)
            outcomes = check.outcomes(all_of_them=logging or validation_due or step == total_steps)
            stopping, saving = any(outcome.stop for outcome in outcomes), any(outcome.save for outcome in outcomes)
            if stopping or saving:
                outcomes += check.outcomes(all_of_them=True)
            for outcome in outcomes:
                if not outcome.finite:
                    line = describe_spoilt(outcome, dataset)
                    if not args.skip_non_finite:
                        before = outcome.step - 1  # nothing has changed since
                        if rank == 0:
                            save_run(folder, disp_net, pose_exp_net, optimizer, before, config, best, skipped, False)
                        if rank > 0:
                            sys.exit(1)  # the first process says it for all
                        raise InputError(
                            f"{line}; the weights of step {before} are in {folder}/last.pt; look at these images, take "
                            "a smaller --learning-rate, or go on without such batches: "
                            f"--resume {folder} --skip-non-finite"
                        )
                    skipped += 1
                    say(f"skipped: {line}")
            if logging and outcomes[-1].finite:
                values = to_host(diagnosed, result.weights)
                seconds = time.perf_counter() - last_log
                values["gradient/norm"] = outcomes[-1].gradient_norm
                values["speed/images_per_second"] = snippets_per_step * (step - last_logged_step) / seconds
                values["speed/waiting_for_data"] = (wait.waited - last_waited) / seconds
                values["speed/damaged_files"] = len(set().union(*distributed.gather(damaged)))
                values["speed/skipped_steps"] = skipped
                logger.scalars("train", step, values)
                progress.set_postfix_str(
                    f"loss {values['objective/loss']:.3f}, step {step}/{total_steps}", refresh=False
                )
                last_log, last_logged_step, last_waited = time.perf_counter(), step, wait.waited
                for name, text in watch.look(step, values).items():
                    logger.warning(step, name, text)
                    say(f"\n{'!' * 20} WARNING, step {step}: {text} {'!' * 20}\n")
            if rank == 0 and (step % args.pictures_every == 0 or step == 1):
                with torch.no_grad():
                    logger.pictures(step, snippet_pictures(frames, disparities, logits, result))
            if step % steps_per_epoch == 0 and (report := wait.end_of_epoch(step // steps_per_epoch)):
                logger.scalars("epoch", step, {"waiting_for_data": report[0]})
                say(report[1])
            progress.update(snippets_per_step)

    logger.close()
    for name, score in best.items():
        say(f"best {name} {score['value']:.4f} at step {score['step']}: {folder}/best_{name}.pt")
    if skipped:
        say(f"{skipped} steps were skipped: their loss or gradient was not finite")
    if step >= total_steps:
        say(f"done: step {step}; {folder}/last.pt")
    else:
        say(f"stopped at step {step}; go on with: python train.py --resume {folder}")


def save_run(
    folder: Path,
    disp_net: DispNet,
    pose_exp_net: PoseExpNet,
    optimizer: torch.optim.Optimizer,
    step: int,
    config: dict[str, Any],
    best: dict[str, Any],
    skipped: int,
    validation_due: bool,
) -> None:
    """Write `last.pt`, and keep it as `best_CRITERION.pt` where it is the best; `best.json` says what each is."""
    last = folder / "last.pt"
    save_checkpoint(last, disp_net, pose_exp_net, optimizer, step, config, best, skipped, validation_due)
    improved = [name for name, score in best.items() if score["step"] == step]
    for name in improved:
        keep_copy(last, folder / f"best_{name}.pt")
    if improved:
        labels = {f"best_{name}.pt": {"criterion": name} | score for name, score in best.items()}
        write_whole(folder / "best.json", json.dumps(labels, indent=2) + "\n")


def check_same_data(dataset: SnippetDataset, folder: Path, config: dict[str, Any]) -> None:
    """A run goes on with the data that it began with."""
    now = {"snippets": len(dataset), "height": dataset.height, "width": dataset.width}
    for name, value in now.items():
        if config.get(name, value) != value:
            raise InputError(f"{folder}: {name} {value}, but the run began with {config[name]}; expected the same data")
    if new := {scene.name for scene in dataset.scenes} - set(
        trained_scenes(config) or {s.name for s in dataset.scenes}
    ):
        raise InputError(f"{folder}: the run began without the scene {min(new)}; expected the same data")


def describe_spoilt(outcome: Outcome, dataset: SnippetDataset) -> str:
    """A step that is not finite in one line: its terms, and the files of the processes that it comes from."""
    own = all(math.isfinite(value) for value in outcome.terms.values())
    reports = distributed.gather((own, outcome.terms, outcome.indices))
    guilty = [report for report in reports if not report[0]] or reports
    terms = ", ".join(f"{name} {value:.4g}" for name, value in guilty[0][1].items())
    files = []
    for _, _, indices in guilty:
        for index in indices:
            scene, first = dataset.snippet(index)
            files.append(f"{scene.frames[first]} to {scene.frames[first + dataset.length - 1].name}")
    return (
        f"step {outcome.step}: the loss is {outcome.loss:.4g} ({terms}; gradient {outcome.gradient_norm:.4g}) "
        f"on {', '.join(files)}"
    )


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
    disp_net = DispNet(args.first_disparity, args.network_width)
    pose_exp_net = PoseExpNet(sources, explainability, *scales, args.network_width)
    ancestors = []
    for file in args.start_from if args.resume is None else []:  # a resumed run has weights of its own
        given = load_networks(file)
        ancestors.append(trained_scenes(given.config))
        if given.config and given.rotation != args.rotation:
            raise InputError(f"{file}: its poses are read as {given.rotation}; give --rotation {given.rotation}")
        for network in (given.disp_net, given.pose_exp_net):
            if network is not None and network.width != args.network_width:
                raise InputError(f"{file}: its networks have another width; give --network-width {network.width:g}")
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
) -> dict[str, Tensor]:
    """What a person needs to judge a step, on the device; of the finest scale where there are several.

    All are means over the snippets, so that they can be averaged over the parts of a batch.
    """
    error, identity_error = photometric_errors(result.warps[0], sources)
    disparity = disparities[0]
    values = {"objective/loss": result.loss}
    values |= {f"objective/{name}": term for name, term in result.terms.items()}
    values |= {
        "photometric/warp": error.mean(),
        "photometric/identity_warp": identity_error.mean(),
        "photometric/valid_pixels": result.warps[0].valid.float().mean(),
        "disparity/mean": disparity.mean(),
        "disparity/spread": (disparity.std((1, 2, 3)) / disparity.mean((1, 2, 3))).mean(),
        "pose/translation": poses[..., :3].norm(dim=-1).mean(),
        "pose/rotation": poses[..., 3:].norm(dim=-1).mean(),
    }
    if logits is not None:
        values["explainability/mean"] = logits[0].sigmoid().mean()
    return values


def to_host(parts: list[dict[str, Tensor]], weights: dict[str, float]) -> dict[str, float]:
    """Diagnostics of the whole batch, from those of its parts here and in the other processes, in one copy."""
    means = torch.stack([torch.stack([value.float() for value in part.values()]) for part in parts]).mean(0)
    values = dict(zip(parts[0], (distributed.total(means) / distributed.count()).tolist(), strict=True))
    for name, weight in weights.items():
        share = weight * values[f"objective/{name}"]
        values[f"share/{name}"] = share / values["objective/loss"] if share else 0.0  # a loss of 0 has no parts
    return values


def learning_rate(peak: float, schedule: str, step: int, total_steps: int) -> float:
    """Of a step, the first being 0; a function of the step alone."""
    if schedule == "constant":
        return peak
    rise = total_steps / 50
    return peak * min((step + 1) / rise, 0.5 + 0.5 * math.cos(math.pi * step / total_steps), 1)


def stop_on_signal() -> list[float]:
    """A list that stays empty until Ctrl-C or SIGTERM asks the run to end; a second Ctrl-C ends it at once.

    Only one that comes a second later: torchrun passes a Ctrl-C on to processes that the terminal gave it already.
    """
    asked: list[float] = []

    def ask(number: int, frame: Any) -> None:
        now = time.monotonic()
        if number == signal.SIGINT and asked and now - asked[0] > 1:
            raise KeyboardInterrupt
        asked.append(now)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    return asked


if __name__ == "__main__":
    run_script(main)
