"""Everything around a training step: data in, validation, checkpoints, logs, and the ends of a run.

`train.py` holds the step itself: forward, loss, backward, update.
"""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from datasets.augmentation import draw_augmentation
from datasets.loading import Batch, seeded
from files.errors import InputError
from geometry.snippets import Snippets
from loss_functions import ObjectiveOptions
from models.learned_camera import LearnedCamera
from models.sfm_learner import Prediction
from training import distributed
from training.camera_log import camera_values, describe_cameras
from training.guard import Outcome
from training.options import TrainOptions
from training.run import Run, log_line, note_best, resume_command, save_run
from training.validation import describe_scores, predict_examples, report_damaged, validate
from visualization.colours import snippet_pictures, validation_pictures


def before_step(run: Run) -> bool:
    """Validate and save when due. False ends the training."""
    pause_start = time.perf_counter()  # the pause is no part of the training's speed
    if run.validation and run.validation_due and not run.stopping:
        _validate(run)
        run.save_due = True
    ended = run.stopping or run.step >= run.total_steps
    if run.save_due or ended:
        save_run(run)
        run.next_save = time.monotonic() + 60 * run.options.save_every
    if ended:
        return False
    run.throughput.pause(time.perf_counter() - pause_start)
    logged = (run.step + 1) % run.options.log_every == 0 or run.step == 0
    run.log.begin(run.step + 1, diagnose=logged)
    return True


class Random(NamedTuple):
    """The random numbers of a batch."""

    augmentation: Tensor  # [B, 5] on the device, of `draw_augmentation`
    noise: Tensor | None  # [H, W] on the device, for `objective`; None where the objective needs none


def batches(run: Run) -> Iterator[tuple[Snippets, Random]]:
    """The step's batches on the device: snippets of uint8 images, and their random numbers."""
    processes, accumulate = distributed.count(), run.options.accumulate
    noise = _draw_noise(run)
    # All are read before the first forward pass, which changes BatchNorm's means: a read error comes before the step.
    for number, batch in enumerate([_next_batch(run) for _ in range(accumulate)]):
        run.log.indices += batch.indices
        run.log.damaged += batch.damaged
        generator, piece = seeded(run.options.seed, 1, run.step), number * processes + distributed.rank()
        random = draw_augmentation(generator, len(batch.indices), piece, processes * accumulate)
        # Of several batches only the last one averages the gradients over the processes.
        distributed.share_next_gradients(run.model, share=number + 1 == accumulate)
        yield batch.snippets.to(run.device), Random(random.to(run.device, non_blocking=True), noise)


def take_step(run: Run, step: Callable[[Run, Iterable[tuple[Snippets, Random]]], None]) -> None:
    """Take a step: as it is written, or replayed from a CUDA graph that was captured of it (training/graph.py)."""
    for group in run.optimizer.param_groups:
        rate = learning_rate(group["peak"], run.options, run.step, run.total_steps)
        group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], Tensor) else rate
    run.guard.request(stop=bool(run.stop), save=time.monotonic() > run.next_save)
    if run.graph is not None and run.step == _auto_mask_start(run):
        run.graph = run.graph.fresh()  # the steps do other work from here on
    if run.graph is None:
        step(run, batches(run))
    else:
        run.graph.take(lambda inputs: step(run, inputs), batches(run), run.log)
    run.guard.note(run.log.step, run.log.indices)


def objective_options(run: Run) -> ObjectiveOptions:
    """The objective of the next step: without the auto-mask for the first steps with --auto-mask-after."""
    options = run.options.objective
    return options if run.step >= _auto_mask_start(run) else replace(options, auto_mask="off")


def add_prior(run: Run, snippets: Snippets, prediction: Prediction) -> Prediction:
    """The prediction with what the network of --prior says about the target."""
    if run.prior is None:
        return prediction
    return prediction._replace(prior_disparity=run.prior(snippets.target))


def after_step(run: Run) -> None:
    """Count the step, read back the results that are ready, and log."""
    run.step += 1
    report_damaged(run.log.damaged, run.damaged)
    validate_every = run.options.validate_every or max(500, run.steps_per_epoch)
    last = run.step == run.total_steps
    run.validation_due = run.validation is not None and (run.step % validate_every == 0 or last)
    # On a GPU the results lag one step, which avoids a synchronisation.
    outcomes = run.guard.outcomes(wait=run.log.diagnose or run.validation_due or last)
    run.stopping = any(outcome.stop for outcome in outcomes) or (bool(run.stop) and distributed.count() == 1)
    run.save_due = any(outcome.save for outcome in outcomes)
    if run.stopping or run.save_due:
        outcomes += run.guard.outcomes(wait=True)
    for outcome in outcomes:
        if not outcome.finite:
            _skip_or_end(run, outcome)
    _log_step(run, outcomes)
    run.progress.update()


def end_run(run: Run) -> None:
    """Print the best checkpoints and how the run ended."""
    run.progress.close()
    for name, score in run.best.items():
        log_line(f"best {name} {score['value']:.4f} at step {score['step']}: {run.folder}/best_{name}.pt")
    if isinstance(run.weights.camera, LearnedCamera):
        for line in describe_cameras(run.weights.camera):
            log_line(f"{line}; python export.py {run.folder} cam.txt writes it")
    if run.skipped:
        log_line(f"{run.skipped} steps were skipped: their loss or gradient was not finite")
    if run.step >= run.total_steps and not run.validation_due:
        log_line(f"done: step {run.step}; {run.folder}/last.pt")
    else:
        log_line(f"stopped at step {run.step}; go on with: {resume_command(run)}")


def learning_rate(peak: float, options: TrainOptions, step: int, total_steps: int) -> float:
    """Learning rate at `step` (0-based) of parameters whose largest one is `peak`, by the schedule.

    "constant" is the peak. "cosine" rises linearly over the first 2 % of the steps, and falls to 0 at the last. "step"
    is the peak, and from the share `decay_after` of the steps on the peak times `decay_factor`.
    """
    if options.schedule == "cosine":
        rise = total_steps / 50
        return peak * min((step + 1) / rise, 0.5 + 0.5 * math.cos(math.pi * step / total_steps), 1)
    if options.schedule == "step" and step >= options.decay_after * total_steps:
        return peak * options.decay_factor
    return peak


def _auto_mask_start(run: Run) -> int:
    """The first step (0-based) with the auto-mask."""
    return math.ceil(run.options.auto_mask_after * run.total_steps)


def _draw_noise(run: Run) -> Tensor | None:
    """Noise of a step that breaks the ties of the auto-mask: the same for all its snippets, in every process."""
    if run.options.objective.auto_mask != "minimum":
        return None
    generator, pinned = seeded(run.options.seed, 2, run.step), run.device.type == "cuda"  # the host waits for no copy
    noise = torch.randn(run.dataset.height, run.dataset.width, generator=generator, pin_memory=pinned)
    return noise.to(run.device, non_blocking=True)


def _next_batch(run: Run) -> Batch:
    try:
        return run.throughput.next_batch(run.loader)
    except InputError as error:
        _end_between_steps(run, error)


def _validate(run: Run) -> None:
    """Validate, log and print the scores, and note where the run is best."""
    if run.validation is None:
        return
    distributed.share_statistics(run.weights)
    try:
        options = run.options
        scores = validate(run.weights, run.validation, options.batch_size, options.workers, run.damaged, run.structure)
    except InputError as error:
        _end_between_steps(run, error)
    run.logger.scalars("validation", run.step, scores)
    if distributed.rank() == 0:
        run.logger.pictures("validation", run.step, validation_pictures(*predict_examples(run.weights, run.validation)))
    note_best(run, scores)
    log_line(f"step {run.step}: {describe_scores(scores)}")
    _warn(run, run.validation_watch.look(run.step, scores))


def _warn(run: Run, warnings: dict[str, str]) -> None:
    """Log and print warnings of collapse, text by name."""
    for name, text in warnings.items():
        run.logger.warning(run.step, name, text)
        log_line(f"\n{'!' * 20} WARNING, step {run.step}: {text} {'!' * 20}\n")


def _log_step(run: Run, outcomes: list[Outcome]) -> None:
    """Log scalars, pictures and the end of an epoch where they are due."""
    if run.log.diagnose and outcomes[-1].finite:
        values = run.log.values() | {"gradient/norm": outcomes[-1].gradient_norm} | _camera(run) | _speeds(run)
        run.logger.scalars("train", run.step, values)
        _warn(run, run.watch.look(run.step, values))
        run.progress.set_postfix_str(f"loss {values['objective/loss']:.3f}", refresh=False)
    pictured = run.step % run.options.pictures_every == 0 or run.step == 1
    if pictured and distributed.rank() == 0 and run.log.last is not None:
        with torch.no_grad():
            run.logger.pictures("train", run.step, snippet_pictures(*run.log.last))
    epoch, rest = divmod(run.step, run.steps_per_epoch)
    if rest == 0 and (report := run.throughput.end_of_epoch(epoch)):
        run.logger.scalars("epoch", run.step, {"waiting_for_data": report[0]})
        log_line(report[1])


def _camera(run: Run) -> dict[str, float]:
    """The numbers of a learned camera; nothing for a given one."""
    if run.log.last is None:
        return {}
    return camera_values(run.weights.camera, run.log.last[1], run.dataset.height, run.dataset.width)


def _speeds(run: Run) -> dict[str, float]:
    """Speed since the last call, and the numbers of damaged files and skipped steps in all."""
    batches_per_second, waiting = run.throughput.lap()
    return {
        "speed/images_per_second": batches_per_second * run.options.batch_size * distributed.count(),
        "speed/waiting_for_data": waiting,
        "speed/damaged_files": len(set().union(*distributed.gather(run.damaged))),
        "speed/skipped_steps": run.skipped,
    }


def _skip_or_end(run: Run, outcome: Outcome) -> None:
    """Count a step that was not finite as skipped, with --skip-non-finite; else end the run as it was before it."""
    line = _describe_non_finite(run, outcome)
    if run.options.skip_non_finite:
        run.skipped += 1
        log_line(f"skipped: {line}")
        return
    before = outcome.step - 1  # the weights are unchanged since
    save_run(replace(run, step=before, validation_due=False))
    if distributed.rank() > 0:
        sys.exit(1)  # the first process prints the reason
    raise InputError(
        f"{line}; the weights of step {before} are in {run.folder}/last.pt; look at these images, take a smaller "
        f"--learning-rate, or skip such steps: --resume {run.folder} --skip-non-finite"
    )


def _end_between_steps(run: Run, error: InputError) -> NoReturn:
    """End a run whose data cannot be read any more, after saving it."""
    if distributed.count() > 1:  # the other processes are in the middle of a step
        raise error
    for outcome in run.guard.outcomes(wait=True):
        if not outcome.finite:
            _skip_or_end(run, outcome)
    save_run(run)
    raise InputError(f"{error}; step {run.step} is saved, go on with: {resume_command(run)}") from None


def _describe_non_finite(run: Run, outcome: Outcome) -> str:
    """A step that is not finite in one line: its terms, and the files of the processes that it comes from."""
    own = all(math.isfinite(value) for value in outcome.terms.values())
    reports = distributed.gather((own, outcome.terms, outcome.indices))
    causes = [report for report in reports if not report[0]] or reports
    terms = ", ".join(f"{name} {value:.4g}" for name, value in causes[0][1].items())
    files = []
    for _, _, indices in causes:
        for index in indices:
            scene, first = run.dataset.snippet(index)
            files.append(f"{scene.frames[first]} to {scene.frames[first + run.dataset.length - 1].name}")
    return (
        f"step {outcome.step}: the loss is {outcome.loss:.4g} ({terms}; gradient {outcome.gradient_norm:.4g}) "
        f"on {', '.join(files)}"
    )
