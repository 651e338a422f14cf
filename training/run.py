"""A run: its parts, its place in the training, and the folder that it leaves."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from tempfile import TemporaryDirectory
from typing import Any

import torch
from path import Path
from torch import nn
from tqdm import tqdm

from datasets.input_views import read_input_views
from datasets.loading import Batch, ShuffledBatches, load_batches
from datasets.shards import ShardedSnippets
from datasets.snippets import SnippetDataset
from evaluation.leakage import merge_scenes
from evaluation.structure import Structure, find_structure
from files.atomic import keep_copy, remove_leftovers, write_text
from files.errors import InputError, UsageError
from files.lock import FolderLock, hold
from files.text import printable
from loss_functions import Loss, objective
from models import NetworkSpec, SfMLearner
from models.checkpoint import (
    CRITERIA,
    checkpoint_content,
    is_better,
    load_checkpoint,
    load_optimizer,
    load_weights,
    save_checkpoint,
)
from models.encoder_depth_net import SCALES
from models.encoder_weights import NONE
from models.layers import to_channels_last
from training import distributed
from training.collapse import CollapseWatch, watch_validations
from training.data_sets import open_data_sets, shuffled_batches
from training.graph import StepGraph
from training.guard import NonFiniteGuard
from training.in_memory import load_frames
from training.interrupts import StopRequest, listen_for_stop
from training.logger import Logger, make_run_folder
from training.options import PAPER_STEPS, TrainOptions, fit_batch, plain_options, resume_options
from training.prior import Prior, load_prior
from training.start import (
    begin_cameras,
    check_before_training,
    make_model,
    make_optimizer,
    network_specs,
    uses_channels_last,
)
from training.step_log import StepLog
from training.throughput import Throughput

STRUCTURE_UNKNOWN = "structure_unknown"  # the warning that nothing judges depth


@dataclass
class Run:
    """A training. Its randomness is drawn from (seed, step) and (seed, epoch) and needs no state."""

    folder: Path
    options: TrainOptions
    record: dict[str, Any]  # facts for the checkpoint: see `_record`
    device: torch.device

    dataset: SnippetDataset
    validation: SnippetDataset | None
    steps_per_epoch: int
    total_steps: int

    specs: dict[str, NetworkSpec]
    weights: SfMLearner  # the model itself
    model: nn.Module  # the model as a training step calls it: on several processes it shares gradients
    optimizer: torch.optim.Optimizer
    objective: Callable[..., Loss]
    guard: NonFiniteGuard
    prior: Prior | None = None  # depth network of --prior
    graph: StepGraph | None = None  # takes the steps by replaying one; None: they are run as written
    loader: Iterator[Batch] = field(default_factory=lambda: iter(()))

    # Where the training stands.
    step: int = 0  # number of steps done
    best: dict[str, Any] = field(default_factory=dict)  # the validation's best value and its step, by criterion
    skipped: int = 0  # steps left out because they were not finite
    validation_due: bool = False  # the validation after this step has not been made
    damaged: set[str] = field(default_factory=set)  # a line for each file that this process could not read
    stopping: bool = False  # a stop was requested, in this process or another
    save_due: bool = True  # a checkpoint is to be written before the next step
    next_save: float = 0.0  # time of the next checkpoint, on time.monotonic's clock

    stop: StopRequest = field(default_factory=StopRequest)
    logger: Logger = field(default_factory=lambda: Logger(None))  # only the first process's writes
    log: StepLog = field(default_factory=lambda: StepLog(1, torch.device("cpu")))
    structure: Structure = field(default_factory=Structure)  # of the validation frames, in the first process
    watch: CollapseWatch = field(default_factory=CollapseWatch)
    validation_watch: CollapseWatch = field(default_factory=CollapseWatch)
    throughput: Throughput = field(default_factory=lambda: Throughput(0))
    progress: tqdm = field(default_factory=lambda: tqdm(disable=True))
    lock: FolderLock | None = None  # on the folder, in the first process
    scratch: TemporaryDirectory | None = None  # holds the validation scenes of shards, in a machine's first process

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.close()
        self.loader = iter(())  # ends its worker processes
        self.logger.close()
        if self.lock is not None:
            self.lock.close()
        if self.scratch is not None:
            self.scratch.cleanup()

    def precision(self) -> AbstractContextManager:
        """The model's convolutions in bfloat16 with --precision bf16."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.precision == "bf16")


@dataclass
class StoppedRun:
    """A run that is to be resumed: its folder, its last checkpoint, and the lock on the folder."""

    folder: Path
    checkpoint: dict[str, Any]
    lock: FolderLock | None


def restarted_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a command, for a process that torchrun may have started again after a failure.

    With --max-restarts, torchrun runs the same command again. A run that has a checkpoint by then is resumed.

    Raises:
        UsageError: the restarted command could not know its run, since it gives no name, or could not reach the others.
    """
    if "resume" in given or int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) == 0 or given.get("print_recipe"):
        return given
    if "name" not in given:
        raise UsageError("torchrun --max-restarts: give --name, by which a restarted process finds its run")
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UsageError(
            "torchrun --max-restarts: set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in torchrun's environment; without it, "
            "restarted processes look for the ports of those that have ended (PyTorch's issue 135712)"
        )
    folder = Path(given.get("runs", TrainOptions().runs)) / given["name"]
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) == 0 or not (folder / "last.pt").is_file():
        return given
    # The checkpoint has the length, which some schedules keep, and the weights that the run started from.
    return {key: value for key, value in given.items() if key not in ("steps", "epochs")} | {"resume": folder}


def read_stopped_run(folder: Path) -> StoppedRun:
    """The run in a folder; InputError where there is none that could go on, or another process works there."""
    file = folder / "last.pt"
    if not folder.is_dir():
        raise InputError(f"--resume {folder}: no such folder, expected the folder of a run")
    if not file.is_file():
        raise InputError(f"--resume {folder}: has no last.pt: it ended before its first checkpoint; start it anew")
    # The lock comes before the reading: another process may be about to write a later checkpoint.
    lock = hold(folder) if os.environ.get("RANK", "0") == "0" else None
    if lock is not None:
        remove_leftovers(folder)
    return StoppedRun(folder, load_checkpoint(file), lock)


def open_run(options: TrainOptions, stopped: StoppedRun | None, device: torch.device) -> Run:
    """Open a new run, or resume a stopped one. A new run's folder is made when everything else has succeeded.

    Raises:
        InputError: the data, the checkpoint or the options cannot be trained with.
    """
    if options.data is None:
        raise UsageError("the folder of the prepared data set is missing")
    folder = _folder(options, stopped)
    if printable(folder) != folder:
        raise UsageError(f"{folder}: its name is not UTF-8, which TensorBoard needs; choose another --runs or --name")
    dataset, validation, scratch = open_data_sets(options)
    steps_per_epoch = max(1, len(dataset) // (options.batch_size * options.accumulate * distributed.count()))
    total_steps = _total_steps(options, stopped, steps_per_epoch)
    start = stopped.checkpoint["step"] if stopped else 0
    batches = shuffled_batches(dataset, options, start, total_steps)

    first = options if stopped is None else replace(options, encoder_weights=NONE, start_from=())
    model, ancestors = make_model(first, dataset.cameras)
    prior = load_prior(options, device)
    warnings = _look_at_data(options, dataset, model) if stopped is None else []
    model.to(device).train()
    if uses_channels_last(options, device):
        to_channels_last(model, device)
    optimizer = make_optimizer(model, options)
    torch.backends.cudnn.benchmark = True  # all batches have one size
    run = Run(
        folder=folder,
        options=options,
        record=_record(options, dataset, total_steps, ancestors),
        device=device,
        dataset=dataset,
        validation=validation,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        scratch=scratch,
        specs=network_specs(options, len(dataset.cameras)),
        weights=model,
        model=model,
        optimizer=optimizer,
        objective=objective,
        prior=prior,
        guard=NonFiniteGuard(model, optimizer, options.skip_non_finite, late=device.type == "cuda"),
        validation_watch=watch_validations(total_steps),
        log=StepLog(options.accumulate, device),
        throughput=Throughput(options.workers),
        stop=listen_for_stop(),  # from here on there is something to lose
    )
    if stopped is None:
        _begin_folder(run, warnings)
    else:
        _resume(run, stopped)
    _say_begin(run, resumed=stopped is not None)
    if validation is not None and distributed.rank() == 0:
        _find_structure(run, validation)
    _share_and_compile(run)
    if device.type == "cuda":
        _make_capturable(run)
    run.loader = _open_loader(run, batches)
    hidden = distributed.rank() > 0
    run.progress = tqdm(
        initial=run.step, total=total_steps, unit="step", desc="training", smoothing=0.05, disable=hidden
    )
    return run


def _find_structure(run: Run, validation: SnippetDataset) -> None:
    """Triangulate the points by which validation judges depth; warn where a video has too few of them."""
    run.structure = find_structure(validation)
    log_line(str(run.structure))
    if run.structure.is_too_little:
        text = (
            "depth cannot be judged: two-view geometry finds too few points of a rigid scene in the validation frames "
            "(see the line above), so that flat or inverted depth would not be noticed. Likely: moving things that "
            "fill the picture, a wrong K, frames between which the camera hardly moves, or too little texture"
        )
        log_line(f"WARNING: {text}")
        run.logger.warning(run.step, STRUCTURE_UNKNOWN, text)


def _look_at_data(options: TrainOptions, dataset: SnippetDataset, model: SfMLearner) -> list[str]:
    """Check the data, and begin learned cameras at what the data show of them; returns the warnings of the check."""
    warnings = check_before_training(options)
    for line in begin_cameras(model.camera, dataset, options):
        log_line(line)
    return warnings


def resumed_options(stopped: StoppedRun, given: dict[str, Any]) -> TrainOptions:
    """The options of a stopped run, changed by the flags that were given."""
    return resume_options(stopped.checkpoint["options"], given, stopped.folder)


def resumed_on(options: TrainOptions, stopped: StoppedRun, processes: int) -> TrainOptions:
    """The options with the batch size that keeps the number of snippets per step on so many processes."""
    stored = resume_options(stopped.checkpoint["options"], {}, stopped.folder)
    return fit_batch(options, stored, stopped.checkpoint["record"].get("processes", 1), processes)


def note_best(run: Run, scores: dict[str, Any]) -> None:
    """Note where the run is best, after a validation of its present step was made and logged."""
    for name in CRITERIA:
        value = scores.get(name)
        if isinstance(value, float) and is_better(name, value, run.best.get(name, {}).get("value")):
            run.best[name] = {"value": value, "step": run.step}
    run.validation_due = False


def save_run(run: Run) -> None:
    """Write `last.pt`, and keep it as `best_CRITERION.pt` where it is the best; `best.json` describes them.

    All processes call it, and the first writes.
    """
    damaged: set[str] = set().union(*distributed.gather(run.damaged))
    if distributed.rank() > 0:
        return
    run.logger.sync()  # what is logged is on the disk before a checkpoint past it
    standing = {
        "step": run.step,
        "skipped": run.skipped,
        "validation_due": run.validation_due,
        "best": run.best,
        "damaged": sorted(damaged),
    }
    content = checkpoint_content(
        run.weights, run.specs, run.optimizer, plain_options(run.options), run.record, standing
    )
    last = run.folder / "last.pt"
    save_checkpoint(last, content)
    improved = [name for name, score in run.best.items() if score["step"] == run.step]
    for name in improved:
        keep_copy(last, run.folder / f"best_{name}.pt")
    if improved:
        labels = {f"best_{name}.pt": {"criterion": name} | score for name, score in run.best.items()}
        write_text(run.folder / "best.json", json.dumps(labels, indent=2) + "\n")


def resume_command(run: Run) -> str:
    """The command that resumes a run."""
    count = distributed.count()
    return f"{f'torchrun --nproc-per-node {count}' if count > 1 else 'python'} train.py --resume {run.folder}"


def log_line(line: str) -> None:
    """Print a line above the progress bar, in the first process only."""
    if distributed.rank() == 0:
        tqdm.write(line)


def _total_steps(options: TrainOptions, stopped: StoppedRun | None, steps_per_epoch: int) -> int:
    total = options.steps or (options.epochs * steps_per_epoch if options.epochs else PAPER_STEPS)
    if stopped is None:
        return total
    if not (options.steps or options.epochs):
        total = stopped.checkpoint["record"].get("total_steps", total)
    done = stopped.checkpoint["step"]
    if total < done:
        raise InputError(f"{stopped.folder}: {done} steps are done; expected a length of as many or more, not {total}")
    return total


def _open_loader(run: Run, batches: ShuffledBatches) -> Iterator[Batch]:
    pin_memory, workers = run.device.type == "cuda", run.options.workers
    if not run.options.data_in_memory:
        return load_batches(run.dataset, batches, workers, pin_memory)
    frames, line = load_frames(run.dataset, run.device, workers)
    log_line(line)
    return frames.batches(batches, pin_memory)


def _folder(options: TrainOptions, stopped: StoppedRun | None) -> Path:
    if stopped is not None:
        return stopped.folder
    return Path(options.runs) / (options.name or f"{options.recipe}-{datetime.now():%Y%m%d-%H%M%S}")


def _record(
    options: TrainOptions, dataset: SnippetDataset, total_steps: int, ancestors: list[list[str] | None]
) -> dict[str, Any]:
    """The facts of a run that its checkpoints record."""
    views = [] if isinstance(dataset, ShardedSnippets) else read_input_views(Path(options.data or ""))
    return {
        "height": dataset.height,
        "width": dataset.width,
        "snippets": len(dataset),
        "shards": len(dataset.shards) if isinstance(dataset, ShardedSnippets) else 0,
        "processes": distributed.count(),
        "total_steps": total_steps,
        "cameras": [dataset.scenes_of(number) for number in range(len(dataset.cameras))],
        "views": [view.plain() for view in views],
        "scenes": merge_scenes([scene.name for scene in dataset.scenes], ancestors),
    }


def _configuration(run: Run) -> dict[str, Any]:
    """The content of config.json."""
    return {"options": plain_options(run.options), "record": run.record}


def _begin_folder(run: Run, warnings: list[str]) -> None:
    if distributed.rank() > 0:
        return
    configuration = _configuration(run)
    run.lock = make_run_folder(run.folder, configuration)
    run.logger = Logger(run.folder)
    run.logger.text("configuration", f"    {json.dumps(configuration, indent=2)}".replace("\n", "\n    "))
    if warnings:
        run.logger.text("data check", "\n\n".join(warnings))
    for warning in warnings:
        run.logger.warning(0, f"data_check/{warning.partition(':')[0].replace(' ', '_')}", warning)


def _resume(run: Run, stopped: StoppedRun) -> None:
    """Give model, optimiser and logs their state of the last checkpoint."""
    file, content = stopped.folder / "last.pt", stopped.checkpoint
    _check_same_data(run, content["record"])
    load_weights(run.weights, content["model"], file, "the model")
    load_optimizer(run.optimizer, content["optimizer"], file)
    run.record["scenes"] = content["record"].get("scenes")
    run.step, run.best, run.skipped = content["step"], content["best"], content["skipped"]
    run.validation_due = content["validation_due"]
    run.damaged = set(map(str, content["damaged"]))
    if distributed.rank() == 0:
        run.lock = stopped.lock
        run.logger = Logger(run.folder, resumed_from=run.step)
        write_text(run.folder / "config.json", json.dumps(_configuration(run), indent=2) + "\n")
        if run.validation_due:  # the run may have been killed after the validation was logged, before it was saved
            for entry in run.logger.records:
                if (entry["split"], entry["step"]) == ("validation", run.step):
                    note_best(run, entry)
    run.validation_due = distributed.gather(run.validation_due)[0]
    for entry in run.logger.records:
        if entry["split"] == "train":
            run.watch.look(entry["step"], entry)
        elif entry["split"] == "validation":
            run.validation_watch.look(entry["step"], entry)


def _check_same_data(run: Run, record: dict[str, Any]) -> None:
    """InputError unless the data are those that the run began with."""
    data = run.options.data
    for name in ("snippets", "shards", "height", "width"):  # the order of the snippets depends on the shards
        now, before = run.record[name], record.get(name)
        if before not in (None, now):
            raise InputError(f"{data}: {name} {now}, but the run began with {before}; expected the same data")
    if record.get("scenes") and (new := {scene.name for scene in run.dataset.scenes} - set(record["scenes"])):
        raise InputError(f"{data}: the run began without the scene {min(new)}; expected the same data")


def _share_and_compile(run: Run) -> None:
    if run.options.compile:
        run.objective = torch.compile(objective)
        run.weights.compile()
    run.model = distributed.share_gradients(run.weights, some_unused=run.options.objective.scales < SCALES)


def _make_capturable(run: Run) -> None:
    """Let a CUDA graph hold the step. Learning rates are on the device, with a graph and without: the same rounding."""
    for group in run.optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], device=run.device)
        group["capturable"] = True
    if run.options.graph and distributed.count() == 1:  # of several processes, steps are not captured yet
        run.graph = StepGraph()


def _say_begin(run: Run, resumed: bool) -> None:
    data, options, processes = run.dataset, run.options, distributed.count()
    validation = f"{len(run.validation)} snippets" if run.validation else "none, val.txt names no scene"
    log_line(
        f"{run.folder}: {len(data)} snippets of {options.sequence_length} frames, {data.width} x {data.height}, "
        f"from {len(data.scenes)} scenes; {run.total_steps} steps, {run.total_steps / run.steps_per_epoch:.1f} epochs"
        f"{f', from step {run.step} on' if resumed else ''}; validation: {validation}; "
        f"{f'{processes} processes, ' if processes > 1 else ''}{run.device}"
    )
    guessed = sum(scene.guessed for scene in data.scenes)
    if guessed and options.camera.name == "given":
        log_line(f"the camera of {guessed} of {len(data.scenes)} scenes is a guess: --camera learned learns it, too")
