"""A run: what its checkpoints have of it, and the folder that it leaves."""

import json
import math
from dataclasses import dataclass, field
from typing import IO, Any

import torch
from path import Path

from datasets.layout import write_text
from models import DispNet, PoseExpNet
from models.checkpoint import keep_copy, load_run, save_checkpoint
from training import distributed
from training.logger import Logger, make_run_folder

CRITERIA = ("abs_rel", "ate", "photometric")  # of the best checkpoints: lower is better, where the data allow it


@dataclass
class Run:
    """Where a training stands. Its randomness is drawn from (seed, step) and (seed, epoch), and needs no state."""

    folder: Path
    config: dict[str, Any]
    disp_net: DispNet
    pose_exp_net: PoseExpNet
    optimizer: torch.optim.Optimizer
    step: int = 0  # so many are done
    best: dict[str, Any] = field(default_factory=dict)  # the validation's best value, and its step, by criterion
    skipped: int = 0  # steps that were left out because they were not finite
    validation_due: bool = False  # the validation after this step has not been made
    asked_to_stop: list[float] = field(default_factory=list)  # when: the times of Ctrl-C and SIGTERM
    damaged: set[str] = field(default_factory=set)  # a line for each file that this process could not read
    logger: Logger = field(default_factory=lambda: Logger(None))  # the first process's writes, the others' do not
    lock: IO[str] | None = None  # on the folder, of the first process


def begin_run(run: Run) -> None:
    """Make the folder of a new run, and its logs."""
    if distributed.rank() == 0:
        run.lock = make_run_folder(run.folder, run.config)
        run.logger = Logger(run.folder)
        run.logger.text("configuration", "".join(f"    {name}: {value}\n" for name, value in run.config.items()))


def resume_run(run: Run, checkpoint: dict[str, Any]) -> None:
    """Give networks, optimiser and logs of a run what its checkpoint has of them."""
    load_run(checkpoint, run.folder / "last.pt", run.disp_net, run.pose_exp_net, run.optimizer)
    run.step, run.best = checkpoint["step"], checkpoint["best"]
    run.skipped, run.validation_due = checkpoint["skipped"], checkpoint["validation_due"]
    run.damaged = set(map(str, checkpoint["damaged"]))
    if distributed.rank() == 0:
        run.logger = Logger(run.folder, resumed_from=run.step)
        write_text(run.folder / "config.json", json.dumps(run.config, indent=2) + "\n")
        if run.validation_due:  # it may have been made, logged, and the run killed before the next checkpoint
            for record in run.logger.records:
                if (record["split"], record["step"]) == ("validation", run.step):
                    note_best(run, record)
    run.validation_due = distributed.gather(run.validation_due)[0]


def note_best(run: Run, scores: dict[str, Any]) -> None:
    """A validation after the run's present step has been made and logged: remember where the run was best."""
    for name in CRITERIA:
        value = scores.get(name)
        if isinstance(value, float) and value < run.best.get(name, {}).get("value", math.inf):
            run.best[name] = {"value": value, "step": run.step}
    run.validation_due = False


def save_run(run: Run) -> None:
    """Write `last.pt`, and keep it as `best_CRITERION.pt` where it is the best; `best.json` says what each is.

    All processes call it, and the first writes.
    """
    damaged: set[str] = set().union(*distributed.gather(run.damaged))
    if distributed.rank() > 0:
        return
    run.logger.sync()  # what is logged is on the disk before a checkpoint past it
    last, networks = run.folder / "last.pt", (run.disp_net, run.pose_exp_net)
    save_checkpoint(
        last, *networks, run.optimizer, run.step, run.config, run.best, run.skipped, run.validation_due, damaged
    )
    improved = [name for name, score in run.best.items() if score["step"] == run.step]
    for name in improved:
        keep_copy(last, run.folder / f"best_{name}.pt")
    if improved:
        labels = {f"best_{name}.pt": {"criterion": name} | score for name, score in run.best.items()}
        write_text(run.folder / "best.json", json.dumps(labels, indent=2) + "\n")
