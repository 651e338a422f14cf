"""Train depth and ego-motion networks from video without labels."""

import argparse
from collections.abc import Iterable
from typing import Any

from cli.flags import ArgumentParser, add_hidden_flags, add_option_flags, run_script

import torch
from path import Path

from datasets.augmentation import augment, normalise_snippets
from files.memory import keep_freed_memory
from geometry.snippets import Snippets
from training import distributed
from training.options import OLD_FLAGS, TrainOptions, describe_recipe, new_options
from training.run import Run, open_run, read_stopped_run, restarted_arguments, resumed_on, resumed_options
from training.steps import Random, add_prior, after_step, before_step, end_run, objective_options, take_step

DESCRIPTION = """\
Train a depth network and a pose network from a prepared data set.

  python data/prepare_kitti.py KITTI prepared/kitti --with-depth
  python train.py prepared/kitti --recipe paper-depth --name my_run
  tensorboard --logdir runs

A run leaves one folder, runs/my_run: config.json, metrics.jsonl, TensorBoard events, and the checkpoints last.pt and
best_CRITERION.pt. Ctrl-C ends a run in order: the step is finished and a checkpoint written. Whatever ended it, it
resumes from the last checkpoint, and reaches the same weights as if it had never stopped:

  python train.py --resume runs/my_run

On several GPUs (docs/training.md):

  torchrun --nproc-per-node 4 train.py prepared/kitti --name my_run"""


def train(run: Run) -> None:
    """Train to the last step. `training/steps.py` has everything between two steps: validation, checkpoints, logs."""
    while before_step(run):
        take_step(run, train_step)  # on a GPU it is captured once as a CUDA graph, and replayed from then on
        after_step(run)
    end_run(run)


def train_step(run: Run, batches: Iterable[tuple[Snippets, Random]]) -> None:
    """Forward, loss, backward, update. All of it is work of the device: the host neither decides nor waits."""
    options, model, optimizer = run.options, run.model, run.optimizer
    run.log.clear()
    run.guard.begin_step()
    optimizer.zero_grad()
    for snippets, random in batches:  # several where gradients are accumulated
        snippets = augment(normalise_snippets(snippets), random.augmentation, options.augmentation)
        with run.precision():
            prediction = add_prior(run, snippets, model(snippets))
        loss = run.objective(snippets, prediction, objective_options(run), random.noise)
        (loss.total / options.accumulate).backward()
        run.log.add(snippets, prediction, loss)
    run.guard.check(run.log.loss, run.log.terms)  # a step that is not finite will change no weight
    optimizer.step()


def main() -> None:
    # Round numbers below 1e-38 to 0. Where gradients have died out (behind a mask that saturated at 1), backward and
    # Adam's moments are full of them, and on some CPUs a step takes half as long again. Threads inherit the setting.
    torch.set_flush_denormal(True)
    keep_freed_memory()
    given = restarted_arguments(parse_arguments())
    resume, print_recipe = given.pop("resume", None), given.pop("print_recipe", False)
    stopped = read_stopped_run(resume) if resume is not None else None
    options = new_options(given) if stopped is None else resumed_options(stopped, given)
    if print_recipe:
        print(describe_recipe(options))
        return
    with distributed.processes(options.device) as device:
        if stopped is not None:
            options = resumed_on(options, stopped, distributed.count())
        with open_run(options, stopped, device) as run:
            train(run)


def parse_arguments() -> dict[str, Any]:
    """The flags that were given, by name."""
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        default=argparse.SUPPRESS,
        help="resume the run in this folder; other flags may only change what does not change the result (length, "
        "devices, workers, intervals)",
    )
    parser.add_argument(
        "--print-recipe",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print the recipe, with the flags applied, and stop",
    )
    add_option_flags(parser, TrainOptions, positional="data")
    add_hidden_flags(parser, OLD_FLAGS)
    return vars(parser.parse_args())


if __name__ == "__main__":
    run_script(main)
