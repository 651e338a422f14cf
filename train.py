"""Train depth and ego-motion networks from video without labels."""

import argparse
import dataclasses
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, NoReturn

import torch
from path import Path
from torch import Tensor
from tqdm import tqdm

from cli.flags import recipe_from_flags, run_script
from cli.tables import report_data_check
from datasets.augmentation import augment
from datasets.preparation.check import check_data
from datasets.snippets import ShuffledBatches, SnippetDataset, load_batches, seeded
from evaluation.leakage import merge_scenes, trained_scenes
from files.errors import InputError
from files.images import to_network_input
from geometry.pose import pose_to_matrix
from loss_functions import Objective, objective, split_snippet
from models import DispNet, PoseExpNet
from models.checkpoint import load_networks
from training import distributed
from training.collapse import CollapseWatch
from training.guard import Outcome, StepCheck
from training.options import parse_arguments, plain, share_batch
from training.recipes import Recipe
from training.run import Run, begin_run, note_best, resume_run, save_run
from training.throughput import DataWait
from training.validation import open_validation, photometric_errors, report_damaged, validate
from visualization.colours import snippet_pictures


def main() -> None:
    # Numbers below 1e-38 become 0. Where gradients have died out (behind a mask that came to 1), backward and Adam's
    # means are full of them, and on some CPUs a step takes half as long again. First of all, since threads inherit it.
    torch.set_flush_denormal(True)
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
    total_steps = args.steps or (args.epochs * steps_per_epoch if args.epochs else 150_000)
    if checkpoint is not None and not (args.steps or args.epochs):
        total_steps = checkpoint["config"]["total_steps"]
    start = checkpoint["step"] if checkpoint else 0
    if total_steps < start:
        raise InputError(
            f"{args.resume}: {start} steps are done; expected a length of as many or more, not {total_steps}"
        )
    batches = ShuffledBatches(len(dataset), args.batch_size, args.seed, start, total_steps, pieces, rank, processes)
    run = open_run(args, recipe, dataset, total_steps, checkpoint, device)
    say(
        f"{run.folder}: {len(dataset)} snippets of {recipe.sequence_length} frames, "
        f"{dataset.width} x {dataset.height}, from {len(dataset.scenes)} scenes; "
        f"{total_steps} steps, {total_steps / steps_per_epoch:.1f} epochs"
        f"{f', from step {start} on' if checkpoint else ''}; "
        f"validation: {f'{len(validation)} snippets' if validation else 'none, val.txt names no scene'}; "
        f"{f'{processes} processes, ' if processes > 1 else ''}{device}"
    )

    loss_function = objective
    if args.compile:
        loss_function = torch.compile(objective)
        run.disp_net.compile()
        run.pose_exp_net.compile()
    networks = [distributed.share_gradients(network) for network in (run.disp_net, run.pose_exp_net)]
    check = StepCheck(run.optimizer, args.skip_non_finite, late=device.type == "cuda")
    loader = load_batches(dataset, batches, args.workers, pin_memory=device.type == "cuda")
    wait = DataWait(args.workers)
    watch = CollapseWatch()
    for record in run.logger.records:
        if record["split"] == "train":
            watch.look(record["step"], record)
    validate_every = args.validate_every or max(500, steps_per_epoch)
    stopping, saving, next_save = False, True, 0.0
    done, snippets = start * snippets_per_step, total_steps * snippets_per_step
    bar = tqdm(initial=done, total=snippets, unit="img", desc="training", smoothing=0.05, disable=rank > 0)
    with bar as progress:
        while True:
            # Between two steps: validation, checkpoint. It is no part of the training's speed.
            pause_start = time.perf_counter()
            if validation and run.validation_due and not stopping:
                try:
                    scores = scores_now(run, validation, args)
                except InputError as error:
                    end_between_steps(run, check, dataset, error)
                record_validation(run, scores)
                saving = True
            ended = stopping or run.step >= total_steps
            if saving or ended:
                save_run(run)
                next_save = time.monotonic() + 60 * args.save_every
            if ended:
                break
            wait.pause(time.perf_counter() - pause_start)

            # One step.
            logging = (run.step + 1) % args.log_every == 0 or run.step == 0
            loss: Tensor = torch.zeros((), device=device)
            terms: dict[str, Tensor] = {}
            diagnosed, indices, damaged_lines = [], [], []
            run.optimizer.zero_grad()
            for accumulated in range(args.accumulate):
                try:
                    batch = wait.next_batch(loader)
                except InputError as error:
                    end_between_steps(run, check, dataset, error)
                frames = to_network_input(batch.frames.to(device, non_blocking=True))
                intrinsics = batch.intrinsics.to(device, non_blocking=True)
                if args.augmentation != "none":
                    generator, piece = seeded(args.seed, 1, run.step), accumulated * processes + rank
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
            for group in run.optimizer.param_groups:
                group["lr"] = learning_rate(args.learning_rate, args.schedule, run.step, total_steps)
            save_is_due = time.monotonic() > next_save
            check.before_step(run.step + 1, loss, terms, indices, stop=bool(run.asked_to_stop), save=save_is_due)
            run.optimizer.step()  # changes nothing where the loss or the gradient is not finite
            run.step += 1
            report_damaged(damaged_lines, run.damaged)

            # What the host learns of the step (on a GPU mostly of the one before, so that it need not wait).
            run.validation_due = validation is not None and (run.step % validate_every == 0 or run.step == total_steps)
            outcomes = check.outcomes(all_of_them=logging or run.validation_due or run.step == total_steps)
            stopping, saving = any(outcome.stop for outcome in outcomes), any(outcome.save for outcome in outcomes)
            if stopping or saving:
                outcomes += check.outcomes(all_of_them=True)
            for outcome in outcomes:
                if not outcome.finite:
                    skip_or_end(run, outcome, dataset)
            if logging and outcomes[-1].finite:
                values = to_host(diagnosed, result.weights) | {"gradient/norm": outcomes[-1].gradient_norm}
                report_step(run, values | speeds(run, wait), watch)
                progress.set_postfix_str(
                    f"loss {values['objective/loss']:.3f}, step {run.step}/{total_steps}", refresh=False
                )
            if rank == 0 and (run.step % args.pictures_every == 0 or run.step == 1):
                with torch.no_grad():
                    run.logger.pictures(run.step, snippet_pictures(frames, disparities, logits, result))
            if run.step % steps_per_epoch == 0 and (report := wait.end_of_epoch(run.step // steps_per_epoch)):
                run.logger.scalars("epoch", run.step, {"waiting_for_data": report[0]})
                say(report[1])
            progress.update(snippets_per_step)
    run.logger.close()
    report_end(run)


def open_run(
    args: argparse.Namespace,
    recipe: Recipe,
    dataset: SnippetDataset,
    total_steps: int,
    checkpoint: dict[str, Any] | None,
    device: torch.device,
) -> Run:
    """Networks and optimiser on the device, and the run's folder: new ones, or as they are in the checkpoint."""
    disp_net, pose_exp_net, ancestors = make_networks(args, recipe.sequence_length - 1, recipe.explainability)
    warnings = check_before_training(args, recipe.sequence_length) if checkpoint is None else []
    for network in (disp_net, pose_exp_net):
        network.to(device).train()
        if args.channels_last:
            network.to(memory_format=torch.channels_last)
    parameters = [*disp_net.parameters(), *pose_exp_net.parameters()]
    optimizer = torch.optim.Adam(parameters, args.learning_rate, (args.beta1, args.beta2), fused=True)
    torch.backends.cudnn.benchmark = True  # all batches have one size

    config = plain(vars(args)) | dataclasses.asdict(recipe)
    config |= {"height": dataset.height, "width": dataset.width, "snippets": len(dataset)}
    config["processes"] = distributed.count()
    if checkpoint is None:
        config["scenes"] = merge_scenes([scene.name for scene in dataset.scenes], ancestors)
    else:
        config["scenes"] = checkpoint["config"].get("scenes")
    config["total_steps"] = total_steps
    folder = args.resume or args.runs / (args.name or f"{args.recipe}-{datetime.now():%Y%m%d-%H%M%S}")
    # From here on there is something to lose.
    run = Run(folder, config, disp_net, pose_exp_net, optimizer, asked_to_stop=stop_on_signal())
    if checkpoint is None:
        begin_run(run)
        if warnings:
            run.logger.text("data check", "\n\n".join(warnings))
    else:
        check_same_data(dataset, args.data, checkpoint["config"])
        resume_run(run, checkpoint)
    return run


def make_networks(
    args: argparse.Namespace, sources: int, explainability: bool
) -> tuple[DispNet, PoseExpNet, list[list[str] | None]]:
    """The networks, newly drawn from the seed or with the weights of the checkpoints in --start-from.

    Third, the scenes that each of these checkpoints was trained on; None where it does not say.
    """
    torch.manual_seed(args.seed)
    units = (args.translation_scale, args.rotation_scale, args.fixation_depth)
    pose_net_width = args.pose_net_width or args.network_width
    disp_net = DispNet(args.first_disparity, args.network_width)
    pose_exp_net = PoseExpNet(sources, explainability, *units, pose_net_width)
    ancestors = []
    for file in args.start_from if args.resume is None else []:  # a resumed run has weights of its own
        given = load_networks(file)
        ancestors.append(trained_scenes(given.config))
        if given.config and given.rotation != args.rotation:
            raise InputError(f"{file}: its poses are read as {given.rotation}; give --rotation {given.rotation}")
        for network, width, flag in (
            (given.disp_net, args.network_width, "--network-width"),
            (given.pose_exp_net, pose_net_width, "--pose-net-width"),
        ):
            if network is not None and network.width != width:
                name = type(network).__name__
                raise InputError(f"{file}: its {name} has another width; give {flag} {network.width:g}")
        if given.disp_net is not None:
            disp_net = given.disp_net
        if given.pose_exp_net is not None:
            got = (given.pose_exp_net.sources, given.pose_exp_net.explainability)
            if got != (sources, explainability):
                raise InputError(
                    f"{file}: its PoseExpNet has {got[0]} sources, {'with' if got[1] else 'no'} explainability; "
                    f"expected {sources} sources, {'with' if explainability else 'no'} explainability, as in the recipe"
                )
            network = given.pose_exp_net
            got_units = (network.translation_scale, network.rotation_scale, network.fixation_depth)
            if got_units != units:
                fixation = f" --fixation-depth {got_units[2]:g}" if got_units[2] else ", and no --fixation-depth"
                raise InputError(
                    f"{file}: its poses have other units; give --translation-scale {got_units[0]:g} "
                    f"--rotation-scale {got_units[1]:g}{fixation}"
                )
            pose_exp_net = given.pose_exp_net
    return disp_net, pose_exp_net, ancestors


def check_before_training(args: argparse.Namespace, length: int) -> list[str]:
    """Print what a look at a sample of the data finds; its warnings. InputError if nothing can be learnt from them."""
    if args.no_check or distributed.rank() > 0:
        return []
    check = check_data(args.data, length, most_pairs=200, all_headers=False)  # the headers, the data set has seen
    report_data_check(check)
    return check.warnings


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


def learning_rate(peak: float, schedule: str, step: int, total_steps: int) -> float:
    """Of a step, the first being 0; a function of the step alone."""
    if schedule == "constant":
        return peak
    rise = total_steps / 50
    return peak * min((step + 1) / rise, 0.5 + 0.5 * math.cos(math.pi * step / total_steps), 1)


def skip_or_end(run: Run, outcome: Outcome, dataset: SnippetDataset) -> None:
    """Count a step that was not finite as skipped, with --skip-non-finite; else end the run as it was before it."""
    line = describe_spoilt(outcome, dataset)
    if run.config["skip_non_finite"]:
        run.skipped += 1
        say(f"skipped: {line}")
        return
    before = outcome.step - 1  # nothing has changed since
    save_run(dataclasses.replace(run, step=before, validation_due=False))
    if distributed.rank() > 0:
        sys.exit(1)  # the first process says it for all
    raise InputError(
        f"{line}; the weights of step {before} are in {run.folder}/last.pt; look at these images, take a smaller "
        f"--learning-rate, or go on without such batches: --resume {run.folder} --skip-non-finite"
    )


def end_between_steps(run: Run, check: StepCheck, dataset: SnippetDataset, error: InputError) -> NoReturn:
    """End a run whose data cannot be read any more: what it has learnt is saved."""
    if distributed.count() > 1:  # the other processes are in the middle of a step
        raise error
    for outcome in check.outcomes(all_of_them=True):
        if not outcome.finite:
            skip_or_end(run, outcome, dataset)
    save_run(run)
    raise InputError(f"{error}; step {run.step} is saved, go on with: {go_on(run)}") from None


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


def speeds(run: Run, wait: DataWait) -> dict[str, float]:
    """How fast the training went since the last call, and what it has left out in all."""
    batches_per_second, waiting = wait.lap()
    return {
        "speed/images_per_second": batches_per_second * run.config["batch_size"] * run.config["processes"],
        "speed/waiting_for_data": waiting,
        "speed/damaged_files": len(set().union(*distributed.gather(run.damaged))),
        "speed/skipped_steps": run.skipped,
    }


def report_step(run: Run, values: dict[str, float], watch: CollapseWatch) -> None:
    """Log the values of a step, with a loud warning where they show that the training collapses."""
    run.logger.scalars("train", run.step, values)
    for name, text in watch.look(run.step, values).items():
        run.logger.warning(run.step, name, text)
        say(f"\n{'!' * 20} WARNING, step {run.step}: {text} {'!' * 20}\n")


def scores_now(run: Run, validation: SnippetDataset, args: argparse.Namespace) -> dict[str, float]:
    networks = run.disp_net, run.pose_exp_net
    return validate(*networks, validation, args.batch_size, args.workers, args.rotation, run.damaged)


def record_validation(run: Run, scores: dict[str, float]) -> None:
    """Log and print what a validation has found, and remember where the run was best."""
    run.logger.scalars("validation", run.step, scores)
    note_best(run, scores)
    say(f"step {run.step}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))


def report_end(run: Run) -> None:
    for name, score in run.best.items():
        say(f"best {name} {score['value']:.4f} at step {score['step']}: {run.folder}/best_{name}.pt")
    if run.skipped:
        say(f"{run.skipped} steps were skipped: their loss or gradient was not finite")
    if run.step >= run.config["total_steps"] and not run.validation_due:
        say(f"done: step {run.step}; {run.folder}/last.pt")
    else:
        say(f"stopped at step {run.step}; go on with: {go_on(run)}")


def go_on(run: Run) -> str:
    """The command that goes on with a run."""
    count = distributed.count()
    return f"{f'torchrun --nproc-per-node {count}' if count > 1 else 'python'} train.py --resume {run.folder}"


def say(line: str) -> None:
    """Print a line above the bar; of several processes the first speaks for all."""
    if distributed.rank() == 0:
        tqdm.write(line)


def stop_on_signal() -> list[float]:
    """A list that stays empty until Ctrl-C or SIGTERM asks the run to end; a second Ctrl-C ends it at once.

    Only one that comes a second later: torchrun passes a Ctrl-C on to processes that the terminal gave it already. So
    does the end of who listens to the output: of `train.py | tee log` a Ctrl-C ends tee first.
    """
    asked: list[float] = []

    def ask(number: int, frame: Any) -> None:
        now = time.monotonic()
        if number == signal.SIGINT and asked and now - asked[0] > 1:
            raise KeyboardInterrupt
        asked.append(now)
        if len(asked) == 1 and distributed.rank() == 0:
            with suppress(OSError):  # not by print: the signal may have come in the middle of one
                os.write(2, b"\nstopping: this step is finished and a checkpoint written; a second Ctrl-C loses them\n")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    sys.stdout, sys.stderr = (Output(stream, asked) for stream in (sys.stdout, sys.stderr))
    return asked


class Output:
    """A stream whose end asks the run to end, in order."""

    def __init__(self, stream: Any, asked: list[float]) -> None:
        self._stream, self._asked = stream, asked

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._to_its_end():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._to_its_end():
            self._stream.flush()

    @contextmanager
    def _to_its_end(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self._asked.append(time.monotonic())


if __name__ == "__main__":
    run_script(main)
