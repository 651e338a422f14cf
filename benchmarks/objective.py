"""Time the objective, forward and backward, with the terms of each paper: milliseconds, and the ratio to L1."""

import argparse
import statistics
import sys
import time
from typing import Any

import torch
from path import Path
from tqdm import tqdm

sys.path.insert(0, Path(__file__).absolute().parent.parent)

from cli.flags import ArgumentParser, add_device_flag, choose_device, positive_int, run_script

from benchmarks.surroundings import device_name
from benchmarks.train_step import synchronise
from geometry.pose import invert, pose_to_matrix
from geometry.snippets import Snippets
from loss_functions import ObjectiveOptions, objective
from models import Prediction

DESCRIPTION = """\
Time the objective of train.py, forward and backward to disparities and motion, on noise.

The variants are measured in turns, since machines are noisy: trust the ratios.

  python benchmarks/objective.py"""

PLAIN: dict[str, Any] = {"explainability": False}
SSIM = {**PLAIN, "photometric_error": "ssim", "error_range": "unit"}
MINIMUM = {**SSIM, "over_sources": "minimum", "auto_mask": "minimum", "padding": "border"}
VARIANTS: dict[str, dict[str, Any]] = {
    "L1, masks (the paper)": {},
    "L1": PLAIN,
    "SSIM": SSIM,
    "SSIM, minimum, auto-mask": MINIMUM,
    "the same at full size": {**MINIMUM, "scale_size": "full"},
    "SSIM, geometry consistency, one scale": {
        **SSIM,
        **{"geometry_weight": 0.5, "geometry_mask": True, "auto_mask": "exclude", "over_pixels": "valid", "scales": 1},
    },
}


def main() -> None:
    args = parse_arguments()
    device = choose_device(args.device)
    snippets, prediction = example(args.batch_size, args.height, args.width, device)
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for number in tqdm(range(args.rounds + 1), desc=f"measuring on {device}"):
        for name, changes in VARIANTS.items():
            taken = time_objective(snippets, prediction, ObjectiveOptions(**changes))
            if number:  # the first round warms up
                seconds[name].append(taken)
    print(
        f"{device_name(device)}, torch {torch.__version__}; "
        f"{args.width} x {args.height}, batch {args.batch_size}, 2 sources, 4 scales; median of {args.rounds} rounds"
    )
    base = statistics.median(seconds["L1"])
    for name, times in seconds.items():
        print(f"{name:40s} {1e3 * statistics.median(times):8.1f} ms  {statistics.median(times) / base:6.2f} x L1")


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=positive_int, default=128, help="pixels of the images (default: 128)")
    parser.add_argument("--width", type=positive_int, default=416, help="pixels of the images (default: 416)")
    parser.add_argument("--batch-size", type=positive_int, default=4, help="snippets (default: 4)")
    parser.add_argument("--rounds", type=positive_int, default=15, help="measurements of each variant (default: 15)")
    add_device_flag(parser)
    return parser.parse_args()


def example(batch: int, height: int, width: int, device: torch.device) -> tuple[Snippets, Prediction]:
    """Noise images, and a prediction of four scales whose tensors take gradients."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator).to(device)

    focal = 0.58 * width
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], device=device)
    intrinsics = intrinsics.expand(batch, 3, 3)
    sizes = [(-(-height // 2**scale), -(-width // 2**scale)) for scale in range(4)]
    disparities = [noise(batch, 1, *size).add(0.5).requires_grad_() for size in sizes]
    of_sources = [noise(batch, 2, 1, *size).add(0.5).requires_grad_() for size in sizes]
    logits = [noise(batch, 2, *size).requires_grad_() for size in sizes]
    transforms = pose_to_matrix(0.02 * (noise(batch, 2, 6) - 0.5)).requires_grad_()
    snippets = Snippets(2 * noise(batch, 3, height, width) - 1, 2 * noise(batch, 2, 3, height, width) - 1, intrinsics)
    back = invert(transforms.detach())
    return snippets, Prediction(disparities, transforms, logits, intrinsics, of_sources, back)


def time_objective(snippets: Snippets, prediction: Prediction, options: ObjectiveOptions) -> float:
    """Seconds of the objective, forward and backward."""
    if not options.explainability:
        prediction = prediction._replace(mask_logits=None)
    if not options.compares_depth:
        prediction = prediction._replace(source_disparities=None)
    noise = torch.randn(snippets.target.shape[2:], device=snippets.target.device)
    synchronise(snippets.target.device)
    start = time.perf_counter()
    objective(snippets, prediction, options, noise).total.backward()
    synchronise(snippets.target.device)
    return time.perf_counter() - start


if __name__ == "__main__":
    run_script(main)
