"""What each ingredient of the recipe `small` is worth: Abs Rel and ATE after equal times of training, over seeds."""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from path import Path

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, ROOT)

from cli.flags import ArgumentParser, add_device_flag, choose_device, positive_float, positive_int, run_script
from cli.tables import table

from benchmarks.surroundings import device_name
from benchmarks.time_to_depth import NEVER, make_data, steps_in, train_and_judge
from files.atomic import write_json
from files.errors import InputError
from files.memory import keep_freed_memory
from models import NetworkSpec
from training.options import new_options
from training.recipes import RECIPES

DESCRIPTION = """\
Train from the paper's recipe to the recipe `small`, one ingredient after the other, and then `small` with one thing
changed. Each variant trains for the same time with several seeds. The table has mean and deviation of the validation.

  python benchmarks/ablation.py --seconds 240 --seeds 3
  python benchmarks/ablation.py --data prepared/mine --only small "small, SSIM" --steps 1000

Without --data it renders and prepares the demo's world in a folder that it removes. Nothing else should run beside it,
unless --steps replaces equal times by equal numbers of steps."""

HALF_POSE = RECIPES["small"]["pose_net"]
FIRST = RECIPES["small"]["depth_net"].arguments  # the disparity with which training begins
# Each of these keeps the changes of those before it; with Adam's beta2 of 0.99 the last one is `small`.
STEPS_TO_SMALL: tuple[tuple[str, dict[str, Any]], ...] = (
    ("paper-depth, batches of 8", {"batch_size": 8}),
    ("+ smoothness of normalised disparity, 0.02", {"smoothed": "normalised-disparity", "smoothness_weight": 0.02}),
    ("+ rate 1e-3, cosine", {"learning_rate": 1e-3, "schedule": "cosine"}),
    ("+ flips alone", {"augmentation": "flip"}),
    ("+ disparity begins at 1", {"depth_net": NetworkSpec("disp_net", FIRST)}),
    (
        "+ scales of motion, orbit",
        {"pose_net": NetworkSpec("pose_exp_net", {**HALF_POSE.arguments, "width": 1.0})},
    ),
    ("+ no masks", {"explainability": False}),
    (
        "+ half width",
        {"depth_net": NetworkSpec("disp_net", FIRST | {"width": 0.5}), "pose_net": HALF_POSE},
    ),
    ("+ MobileNetV2", {"depth_net": RECIPES["small"]["depth_net"], "channels_last": True}),
    ("+ 3 scales", {"scales": 3}),
    ("+ scale held", {"scale_weight": 0.1}),
    ("+ direct alignment", {"align_steps": 3}),
    ("+ rate 2e-3", {"learning_rate": 2e-3}),
)
# What the lab book's trainings on real frames, in which cars move, change in `small`.
REAL: dict[str, Any] = {
    **{"start_from": ("world",), "prior": "world", "prior_weight": 0.3, "align_steps": 0, "learning_rate": 2e-4},
    **{"over_sources": "minimum", "auto_mask": "minimum"},
}
# `small` with one thing changed.
CHANGES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("small, no direct alignment", {"align_steps": 0}),
    ("small, scale free", {"scale_weight": 0.0}),
    ("small, 4 scales", {"scales": 4}),
    ("small, SSIM", {"photometric_error": "ssim"}),
    ("small, minimum over sources", {"over_sources": "minimum"}),
    ("small, minimum and auto-mask", {"over_sources": "minimum", "auto_mask": "minimum"}),
    (
        "small, SSIM, minimum and auto-mask",
        {"photometric_error": "ssim", "over_sources": "minimum", "auto_mask": "minimum"},
    ),
    ("small, smoothness of depth", {"smoothed": "depth"}),
    ("small, edge-aware smoothness", {"smoothness": "edge-aware"}),
    ("small, masks", {"explainability": True}),
    ("small, border padding", {"padding": "border"}),
    ("small, rate 1e-3", {"learning_rate": 1e-3}),
    ("small, beta2 0.999", {"beta2": 0.999}),
    ("small, scale and crop", {"augmentation": "all"}),
    (
        "small, pair-wise pose",
        {"pose_net": NetworkSpec("pair_pose_net", {"encoder": "mobilenet_v2"})},
    ),
    ("small, ResNet-18", {"depth_net": NetworkSpec("resnet18", FIRST)}),
    ("small, from the world's weights", {"start_from": ("world",)}),
    ("small, from the world's weights, for real frames", REAL),
)
SCORES = ("abs_rel", "a1", "ate", "structure")


@dataclass(frozen=True)
class Result:
    """The scores of one training."""

    variant: str
    seed: int
    steps: int
    scores: dict[str, float]


def variants(encoder_weights: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of each variant and its options, as `new_options` takes them."""
    options: dict[str, Any] = {"recipe": "paper-depth"}
    for name, change in STEPS_TO_SMALL:
        options = options | change
        yield name, options
    yield "small", {"recipe": "small"}
    for name, change in CHANGES:
        yield name, {"recipe": "small"} | change
    if encoder_weights is not None:
        yield "small, encoder's weights", {"recipe": "small", "encoder_weights": encoder_weights}


def main() -> None:
    torch.set_flush_denormal(True)  # as train.py does
    keep_freed_memory()
    args = parse_arguments()
    chosen = dict(variants(args.encoder_weights))
    if unknown := sorted(set(args.only or ()) - set(chosen)):
        raise InputError(f"--only {unknown[0]!r}: expected some of {', '.join(map(repr, chosen))}")
    if args.only:
        chosen = {name: chosen[name] for name in args.only}
    device = choose_device(args.device)
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as name:
        data = args.data or make_data(Path(name), args.drives, args.frames, args.width, args.height)
        for variant, given in chosen.items():
            base = replace(
                new_options(given | {"data": data, "device": str(device), "check": False, "data_in_memory": True}),
                runs=str(Path(name) / "runs"),
            )
            steps = args.steps or steps_in(base, device, args.seconds)
            for seed in range(args.seeds):
                options = replace(base, name=f"{len(results)}", steps=steps, epochs=None, seed=seed)
                point = train_and_judge(options, device, NEVER, 1)[-1]
                results.append(Result(variant, seed, steps, point.scores))
                print(f"{variant}, seed {seed}: " + describe(point.scores), flush=True)
                if args.json:
                    write_json(args.json, {"results": [vars(result) for result in results]})
    print(f"\n{device_name(device)}, torch {torch.__version__}\n{table(summary(results))}")


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, help="prepared data set with depth and poses in val.txt's scenes (default: a world)")
    add("--only", nargs="+", metavar="VARIANT", help="train these variants (default: all)")
    add("--seconds", type=positive_float, default=240.0, help="of each training (default: 240)")
    add("--steps", type=positive_int, help="of each training, in place of --seconds")
    add("--seeds", type=positive_int, default=3, metavar="N", help="trainings of each variant (default: 3)")
    add("--encoder-weights", metavar="imagenet|FILE", help="adds `small` with these first weights of the encoder")
    add("--drives", type=positive_int, default=40, help="of the world (default: 40)")
    add("--frames", type=positive_int, default=36, help="per drive (default: 36)")
    add("--width", type=positive_int, default=208, help="of the images (default: 208)")
    add("--height", type=positive_int, default=64, help="of the images (default: 64)")
    add("--json", type=Path, metavar="FILE", help="write the scores for machines, after each training")
    add_device_flag(parser)
    return parser.parse_args()


def summary(results: list[Result]) -> list[dict[str, str]]:
    """A row for each variant: mean and, of several seeds, standard deviation of each score."""
    rows = []
    for variant in dict.fromkeys(result.variant for result in results):
        own = [result for result in results if result.variant == variant]
        row = {"variant": variant, "steps": str(own[0].steps), "seeds": str(len(own))}
        for name in SCORES:
            if all(name in result.scores for result in own):
                values = [result.scores[name] for result in own]
                spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
                row[name] = f"{np.mean(values):.4f}{spread}"
        rows.append(row)
    return rows


def describe(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {scores[name]:.4f}" for name in SCORES if name in scores)


if __name__ == "__main__":
    run_script(main)
