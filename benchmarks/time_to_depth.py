"""Time to quality: Abs Rel and ATE over the wall time of a training, for recipes and devices."""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from path import Path

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, ROOT)

from cli.flags import ArgumentParser, add_option_flags, choose_device, positive_float, positive_int, run_script
from cli.tables import table

from benchmarks.surroundings import device_name, signals_as_before
from files.atomic import write_json
from files.errors import InputError
from files.memory import keep_freed_memory
from train import train_step
from training.options import TrainOptions, new_options
from training.recipes import RECIPES
from training.run import Run, open_run
from training.steps import after_step, before_step, take_step
from training.validation import validate

DESCRIPTION = """\
Train recipes, and print Abs Rel and ATE of the validation drives over the wall time of the training. Rendering,
preparation and validation do not count. Without --steps the learning rate's schedule spans the steps that the time
allows, from the speed of the first ones, so that a curve ends where the schedule does.

  python benchmarks/time_to_depth.py --recipes small --minutes 10
  python benchmarks/time_to_depth.py --data prepared/kitti --recipes paper-depth small --devices cuda

Without --data it renders a world with depth and poses and prepares it, in a folder that it removes."""

# The fields of TrainOptions that are flags here.
FLAGS = (
    *("batch_size", "steps", "learning_rate", "encoder_weights", "encoder_rate", "seed", "data_in_memory", "workers"),
    *("precision", "channels_last", "compile", "graph"),
)
NEVER = 10**9  # steps or minutes


@dataclass(frozen=True)
class Point:
    """A point of the curve."""

    seconds: float  # of training
    step: int
    scores: dict[str, float]


def main() -> None:
    torch.set_flush_denormal(True)  # as train.py does
    keep_freed_memory()
    given = parse_arguments()
    data, recipes, devices, minutes, points = (
        given.pop(name) for name in ("data", "recipes", "devices", "minutes", "points")
    )
    world = {name: given.pop(name) for name in ("drives", "frames", "width", "height")}
    file = given.pop("json")
    if unknown := sorted(set(recipes) - set(RECIPES)):
        raise InputError(f"--recipes {unknown[0]}: expected some of {', '.join(RECIPES)}")
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = data or make_data(folder, **world)
        for device in map(choose_device, devices):
            for recipe in recipes:
                options = new_options(given | {"recipe": recipe, "data": prepared, "device": str(device)})
                options = replace(options, runs=str(folder / "runs"), name=f"{recipe}-{device}".replace(":", "-"))
                if "steps" not in given:
                    options = replace(options, steps=steps_in(options, device, 60 * minutes), epochs=None)
                curve = train_and_judge(options, device, 60 * minutes, points)
                print_curve(recipe, device, curve)
                results.append(
                    {"recipe": recipe, "device": device_name(device), "torch": str(torch.__version__)}
                    | {"curve": [{"seconds": p.seconds, "step": p.step} | p.scores for p in curve]}
                )
    if file:
        write_json(file, {"curves": results})


def parse_arguments() -> dict[str, Any]:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, help="prepared data set with depth and poses in val.txt's scenes (default: a world)")
    add("--recipes", nargs="+", default=["paper-depth"], metavar="NAME", help=f"of {', '.join(RECIPES)}")
    add("--devices", nargs="+", default=["auto"], metavar="DEVICE", help="as train.py's --device (default: auto)")
    add("--minutes", type=positive_float, default=10.0, help="of training, for each curve (default: 10)")
    add("--points", type=positive_int, default=10, help="of each curve, at equal times (default: 10)")
    add("--drives", type=positive_int, default=60, help="of the world (default: 60)")
    add("--frames", type=positive_int, default=60, help="per drive (default: 60)")
    add("--width", type=positive_int, default=416, help="of the images (default: 416)")
    add("--height", type=positive_int, default=128, help="of the images (default: 128)")
    add("--json", type=Path, metavar="FILE", help="write the curves for machines, too")
    add_option_flags(parser, TrainOptions, names=FLAGS)
    return vars(parser.parse_args())


def make_data(folder: Path, drives: int, frames: int, width: int, height: int) -> Path:
    """Render a world and prepare it."""
    size = ["--width", width, "--height", height]
    commands: list[list[Any]] = [
        [
            *("data/make_world.py", folder / "world", "--drives", drives, "--frames", frames, *size),
            *("--mono", "--dense-depth"),
        ],
        [
            *("data/prepare_kitti.py", folder / "world/raw", folder / "prepared", *size, "--cameras", "02"),
            *("--static", "speed", "--with-depth", "--with-poses"),
            *("--test-scenes", folder / "world/splits/test_scenes.txt"),
        ],
    ]
    for script, *words in commands:
        if subprocess.run([sys.executable, ROOT / script, *map(str, words)], check=False).returncode:
            raise InputError(f"{script} failed, see above")
    return folder / "prepared"


@signals_as_before()
def steps_in(options: TrainOptions, device: torch.device, seconds: float) -> int:
    """The steps that a training takes in this time, from the speed of 30 steps after 10 others."""
    options = replace(options, name="speed", log_every=NEVER, pictures_every=NEVER, validate_every=NEVER)
    options = replace(options, steps=40, epochs=None, check=False)  # the training itself checks the data
    with open_run(options, None, device) as run:
        run.total_steps = 10
        train_for(run, NEVER)
        run.total_steps, run.validation_due = 40, False  # step 10 was not the last one: no validation is timed
        taken = train_for(run, NEVER)
        if run.stopping:
            raise KeyboardInterrupt
    run.folder.rmtree()
    return max(1, int(seconds * 30 / taken))


@signals_as_before()
def train_and_judge(options: TrainOptions, device: torch.device, seconds: float, points: int) -> list[Point]:
    """Train for so long, or to the run's last step; the scores at equal intervals of the training's time."""
    options = replace(options, log_every=NEVER, pictures_every=NEVER, save_every=NEVER, validate_every=NEVER)
    curve: list[Point] = []
    with open_run(options, None, device) as run:
        if run.validation is None:
            raise InputError(f"{options.data}: val.txt names no scene, expected some with depth")
        trained = 0.0
        for number in range(1, points + 1):
            trained += train_for(run, number * seconds / points - trained)
            scores = validate(
                run.weights, run.validation, options.batch_size, options.workers, run.damaged, run.structure
            )
            curve.append(Point(trained, run.step, scores))
            if run.step >= run.total_steps or run.stopping:
                break
        if run.stopping:
            raise KeyboardInterrupt
    return curve


def train_for(run: Run, seconds: float) -> float:
    """Train for some seconds, or to the last step; returns the seconds that it took."""
    start = time.perf_counter()
    while time.perf_counter() - start < seconds and run.step < run.total_steps and not run.stopping:
        before_step(run)
        take_step(run, train_step)
        after_step(run)
    if run.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def print_curve(recipe: str, device: torch.device, curve: list[Point]) -> None:
    names = [name for name in ("abs_rel", "a1", "ate", "photometric") if name in curve[-1].scores]
    rows = [
        {"minutes": f"{point.seconds / 60:.2f}", "step": str(point.step)}
        | {name: f"{point.scores[name]:.4f}" for name in names}
        for point in curve
    ]
    print(f"\n{recipe} on {device_name(device)}, torch {torch.__version__}\n{table(rows)}", flush=True)


if __name__ == "__main__":
    run_script(main)
