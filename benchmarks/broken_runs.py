"""Which warnings come up in trainings that are broken, and in healthy ones: at which step, and by which check."""

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from path import Path
from scipy.spatial.transform import Rotation, Slerp
from tqdm import tqdm

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, ROOT)

from cli.flags import ArgumentParser, add_device_flag, choose_device, non_negative_int, positive_int, run_script
from cli.tables import table

from benchmarks.surroundings import signals_as_before
from datasets.layout import write_depth, write_intrinsics, write_poses, write_scene_names
from datasets.preparation.focal_check import scaled
from datasets.synthetic.drive_files import make_drive_renderer
from datasets.synthetic.options import Drive, WorldOptions, list_drives
from datasets.synthetic.render import Renderer
from datasets.synthetic.scene import Mover
from datasets.synthetic.shapes import stack_polygons
from datasets.synthetic.vehicles import bus, lorry
from files.atomic import write_json
from files.errors import InputError
from files.images import write_jpeg
from files.memory import keep_freed_memory
from models import NetworkSpec
from models.checkpoint import load_checkpoint, save_checkpoint
from train import train
from training.logger import read_metrics
from training.options import TrainOptions, new_options
from training.run import STRUCTURE_UNKNOWN, open_run

DESCRIPTION = """\
Train five broken and five healthy trainings on small images, and print the warnings of each with its first step. Step 0
is the check of the data when the training begins.

  python benchmarks/broken_runs.py --real prepared/kitti
  python benchmarks/broken_runs.py --only "K too long" --json broken.json

The data are drives of the synthetic world, rendered in a folder that is removed. --real replaces the fifth healthy
training, on drives of several cameras, by one on real frames with measured K. A broken training must be named by one of
the warnings that fit its cause, and a healthy one must have no warning. Exit status: 1 where that is not so."""

QUARTER = {  # the paper's networks, small, with the start that lets short trainings learn (docs/experiments.md)
    "recipe": "paper-depth",
    "depth_net": NetworkSpec("disp_net", {"first_disparity": 1.2, "width": 0.25}),
    "pose_net": NetworkSpec(
        "pose_exp_net", {"width": 0.25, "translation_scale": 0.1, "rotation_scale": 0.2, "orbit_depth": 0.83}
    ),
    "smoothed": "depth",
    "smoothness_weight": 0.02,
    "batch_size": 8,
    "learning_rate": 8e-4,
    "augmentation": "flip",
}
SMALL = {"recipe": "small"}
MASKED = SMALL | {"over_sources": "minimum", "auto_mask": "minimum", "auto_mask_after": 0.3}
TOO_LONG = 1.45  # factor on K
SLOW = 0.3  # share of the world's speed: about half a pixel from frame to frame in images 104 pixels wide
FOCAL, LITTLE_MOTION, NO_RIGID_SCENE, STATIC = (
    f"data_check/{cause}" for cause in ("wrong_focal_length", "little_motion", "no_rigid_scene", "static_video")
)
REFUSED = "data_check refuses the data"


@dataclass(frozen=True)
class Case:
    """A training."""

    name: str
    data: str  # the name of a function below
    options: dict[str, Any]  # as `new_options` takes them
    named_by: tuple[str, ...] = ()  # the warnings that name what is broken; none: it is healthy
    seed: int = 0


@dataclass
class Outcome:
    """What a training said."""

    case: Case
    seconds: float
    scores: dict[str, float]  # of the last validation
    warnings: dict[str, int] = field(default_factory=dict)  # the first step of each, by name

    @property
    def is_right(self) -> bool:
        """Whether a broken training is named, and a healthy one is not."""
        named = self.warnings.keys() & {*self.case.named_by, REFUSED}
        return bool(named) if self.case.named_by else not self.warnings


CASES = (
    Case("constant depth", "world", SMALL | {"smoothness_weight": 100.0}, ("flat_disparity", "no_structure")),
    Case("depth upside down", "world", SMALL | {"prior_weight": 3.0}, ("depth_upside_down",)),
    Case("K too long", "long_focal", SMALL, (FOCAL,)),
    Case("half a pixel of motion", "slow", SMALL, (LITTLE_MOTION, STATIC)),
    Case("cars that fill the picture", "filled", SMALL, (NO_RIGID_SCENE, "no_structure", STRUCTURE_UNKNOWN)),
    Case("healthy: small", "world", SMALL),
    Case("healthy: small, another world and seed", "other_world", SMALL, seed=1),
    Case("healthy: the paper's networks", "world", QUARTER),
    Case("healthy: moving cars, auto-mask", "moving", MASKED),
    Case("healthy: cameras of several focal lengths", "focal_lengths", SMALL),
)
REAL = Case("healthy: real frames", "real", SMALL)


def main() -> None:
    torch.set_flush_denormal(True)  # as train.py does
    keep_freed_memory()
    args = parse_arguments()
    cases = [*CASES[:-1], REAL if args.real else CASES[-1]]
    if unknown := sorted(set(args.only or ()) - {case.name for case in cases}):
        raise InputError(f"--only {unknown[0]!r}: expected some of {', '.join(repr(case.name) for case in cases)}")
    device = str(choose_device(args.device))
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as name:
        folder = args.folder or Path(name)
        size = args.width, args.height
        for case in [case for case in cases if not args.only or case.name in args.only]:
            data = args.real
            if case.data != "real":
                data = make_data(folder, case.data, args.drives, args.frames, size, args.seed)
            seed = args.seed + case.seed
            base = {"data": str(data), "device": device, "steps": args.steps, "seed": seed, "workers": 0}
            base |= {"validate_every": max(1, args.steps // 4), "log_every": 10, "runs": str(folder / "runs")}
            if case.options.get("prior_weight"):
                base["prior"] = invert_depth(folder, base)
            outcomes.append(train_case(case, new_options({**case.options, **base}), folder))
            print(table([row(outcomes[-1])]), flush=True)
            if args.json:
                write_json(args.json, {"runs": [plain(outcome) for outcome in outcomes]})
    print(f"\n{table([row(outcome) for outcome in outcomes])}")
    if wrong := [outcome.case.name for outcome in outcomes if not outcome.is_right]:
        raise InputError(f"these trainings did not give the expected warnings: {', '.join(wrong)}")


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", nargs="+", metavar="NAME", help="run these trainings (default: all)")
    add("--real", type=Path, metavar="PREPARED", help="a prepared data set of real frames with measured K")
    add("--seed", type=non_negative_int, default=0, metavar="N", help="of the worlds and the trainings (default: 0)")
    add("--folder", type=Path, help="keep data and runs in this folder (default: one that is removed)")
    add("--steps", type=positive_int, default=400, help="of each training (default: 400)")
    add("--drives", type=positive_int, default=14, help="of each world (default: 14)")
    add("--frames", type=positive_int, default=36, help="per drive (default: 36)")
    add("--width", type=positive_int, default=104, help="of the images (default: 104)")
    add("--height", type=positive_int, default=32, help="of the images (default: 32)")
    add("--json", type=Path, metavar="FILE", help="write the outcomes for machines, after each training")
    add_device_flag(parser)
    return parser.parse_args()


@signals_as_before()
def train_case(case: Case, options: TrainOptions, folder: Path) -> Outcome:
    """Train, and collect the warnings of the run's metrics.jsonl."""
    name = case.name.replace(" ", "_").replace(":", "")
    (folder / "runs" / name).rmtree_p()
    start = time.perf_counter()
    try:
        run = open_run(replace(options, name=name), None, torch.device(options.device))
    except InputError as error:
        print(error)
        return Outcome(case, time.perf_counter() - start, {}, {REFUSED: 0})
    with run:
        train(run)
    if run.stopping:
        raise KeyboardInterrupt
    outcome = Outcome(case, time.perf_counter() - start, {})
    for line in read_metrics(folder / "runs" / name / "metrics.jsonl"):
        if line["split"] == "warning":
            outcome.warnings.setdefault(line["name"], line["step"])
        elif line["split"] == "validation":
            outcome.scores = {key: value for key, value in line.items() if isinstance(value, float)}
    return outcome


def invert_depth(folder: Path, base: dict[str, Any]) -> str:
    """A checkpoint whose depth is upside down: that of a healthy training, with its heads' outputs mirrored."""
    file = folder / f"upside_down_{base['seed']}.pt"
    if not file.is_file():
        case = Case("before it is turned upside down", "world", SMALL)
        train_case(case, new_options({**SMALL, **base}), folder)
        content = load_checkpoint(folder / "runs" / case.name.replace(" ", "_") / "last.pt")
        first = math.log(1.2 / (10 - 1.2))  # the sigmoid's argument at a disparity of 1.2, where training begins
        for key in [key for key in content["model"] if ".heads." in key]:
            value = content["model"][key]
            content["model"][key] = -value if key.endswith("weight") else 2 * first - value
        save_checkpoint(file, content)
    return str(file)


def make_data(folder: Path, kind: str, drives: int, frames: int, size: tuple[int, int], seed: int = 0) -> Path:
    """A prepared data set of rendered drives: the last two for validation. What is there is used again."""
    root = folder / (f"{kind}_{seed}" if seed else kind)
    if (root / "train.txt").is_file():
        return root
    seed += {"other_world": 1, "moving": 2, "focal_lengths": 3, "filled": 4}.get(kind, 0)
    plain = WorldOptions(drives, frames, *size, seed=seed, halts=False)
    moving, varied, focal_lengths = float(kind == "moving"), kind == "filled", kind == "focal_lengths"
    options = replace(plain, moving_cars=moving, varied=varied, vary_focal=focal_lengths)
    usual = list_drives(plain)[0].intrinsics
    names = []
    for drive in tqdm(list_drives(options), desc=f"rendering {kind}", unit="drive", leave=False, disable=None):
        renderer = make_drive_renderer(options, drive)
        if kind == "filled":  # vehicles of the varied world, before a usual camera
            drive = replace(drive, intrinsics=usual)
            fill_picture(renderer, np.random.default_rng([seed, drive.number]))
        names.append(drive.scene)
        write_drive(root / drive.scene, renderer, drive, size, SLOW if kind == "slow" else 1.0)
        if kind == "long_focal":
            write_intrinsics(root / drive.scene / "cam.txt", scaled(drive.intrinsics, TOO_LONG))
    write_scene_names(root / "val.txt", names[-2:])
    write_scene_names(root / "train.txt", names[:-2])
    return root


def write_drive(scene: Path, renderer: Renderer, drive: Drive, size: tuple[int, int], pace: float) -> None:
    """A prepared scene of a drive, along the first `pace` of its path at this share of its speed."""
    scene.makedirs_p()
    width, height = size
    path = renderer.scene.world_from_camera
    turn = Slerp(np.arange(len(path)), Rotation.from_matrix(path[:, :3, :3]))
    poses = []
    for number in range(len(path)):
        at = pace * number
        before = min(int(at), len(path) - 2)
        pose = np.eye(4)
        pose[:3, :3] = turn(at).as_matrix()
        pose[:3, 3] = path[before, :3, 3] + (at - before) * (path[before + 1, :3, 3] - path[before, :3, 3])
        view = (before if pace < 1 else number, drive.intrinsics, height, width, pose)
        write_jpeg(scene / f"{number:07d}.jpg", renderer.image(*view))
        depth = renderer.depth(*view)
        write_depth(scene / f"{number:07d}.npy", np.where(np.isfinite(depth) & (depth < 80), depth, 0))
        poses.append(pose[:3])
    write_intrinsics(scene / "cam.txt", drive.intrinsics)
    write_poses(scene / "poses.txt", np.stack(poses))


def fill_picture(renderer: Renderer, rng: np.random.Generator) -> None:
    """Put a lorry a few metres before the camera, and a row of buses and lorries at each side; all of them move."""
    path = renderer.scene.world_from_camera
    forward = path[:, :2, 2] / np.linalg.norm(path[:, :2, 2], axis=1, keepdims=True)
    left = np.stack([-forward[:, 1], forward[:, 0]], 1)
    heading = np.arctan2(forward[:, 1], forward[:, 0])
    frame = np.arange(len(path))[:, None]

    def add(make: Callable[..., Any], ahead: np.ndarray | float, aside: float) -> None:
        shapes, length = make(rng, (0.0, 0.0), 0.0)
        position = path[:, :2, 3] + (ahead + length / 2) * forward + aside * left
        renderer.scene.movers.append(Mover(stack_polygons(shapes), position, heading))

    renderer.scene.movers.clear()
    add(lorry, 3.5 + np.sin(2 * np.pi * (frame / rng.uniform(12, 25) + rng.random())), 0.0)
    for side in (-2.9, 2.9):
        speed = rng.choice([-1, 1]) * rng.uniform(0.3, 0.6)  # metres a frame, relative to the camera
        for place in range(-3, 4):
            add(bus if rng.random() < 0.5 else lorry, 14.5 * place + speed * (frame - len(path) / 2), side)


def row(outcome: Outcome) -> dict[str, str]:
    scores = outcome.scores
    expected = "named" if outcome.case.named_by else "silent"
    return {
        "training": outcome.case.name,
        "warnings, with the first step": "; ".join(f"{name} {step}" for name, step in outcome.warnings.items()) or "-",
        "as it should be": f"{expected}: {'yes' if outcome.is_right else 'NO'}",
        **{name: f"{scores[name]:.3f}" if name in scores else "" for name in ("structure", "abs_rel", "ate")},
        "seconds": f"{outcome.seconds:.0f}",
    }


def plain(outcome: Outcome) -> dict[str, Any]:
    return {
        "training": outcome.case.name,
        "broken": bool(outcome.case.named_by),
        "warnings": outcome.warnings,
        "right": outcome.is_right,
        "scores": outcome.scores,
        "seconds": outcome.seconds,
    }


if __name__ == "__main__":
    run_script(main)
