"""Depth of cars that move: Abs Rel of their pixels and of all others, for trainings on a world with moving cars."""

import argparse
import sys
from dataclasses import replace

import numpy as np
import torch
from matplotlib.figure import Figure
from path import Path

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, ROOT)

from cli.flags import ArgumentParser, add_device_flag, choose_device, run_script
from cli.tables import table

from datasets.augmentation import normalise
from datasets.synthetic.drive_files import make_drive_renderer
from datasets.synthetic.options import list_drives, read_options
from files.errors import InputError
from files.text import read_names
from inference.depth import read_resized
from models.checkpoint import find_checkpoint, load_model

DESCRIPTION = """\
Score depth on pixels of cars that move and on all others, by the dense truth of a world's test images. A pixel shows a
moving car where the depth of the scene changes when the moving cars are taken out of it.

  python data/make_world.py WORLD --moving-cars 1 --drives 40 --frames 36 --width 208 --height 64 --mono
  python data/prepare_kitti.py WORLD/raw prepared --width 208 --height 64 --cameras 02 --static speed \\
      --test-scenes WORLD/splits/test_scenes.txt
  python train.py prepared --recipe small --auto-mask off --name off
  python train.py prepared --recipe small --auto-mask minimum --auto-mask-after 0.3 --name on
  python benchmarks/moving_cars.py WORLD runs/off runs/on --picture cars.png"""

CAP = 80.0  # metres
LEAST_PIXELS = 20  # of moving cars, for an image to be pictured
PICTURED = 4


def main() -> None:
    args = parse_arguments()
    device = choose_device(args.device)
    options = read_options(args.world / "world.json")
    drives = {drive.name: drive for drive in list_drives(options)}
    networks = {}
    for run in args.runs:
        loaded = load_model(find_checkpoint(run, "last") if run.is_dir() else run, device)
        if loaded.depth_net is None:
            raise InputError(f"{run}: holds no depth network")
        networks[run.name] = (loaded.depth_net, loaded.height or options.height, loaded.width or options.width)
    errors: dict[str, list[tuple[float, float, float, int]]] = {name: [] for name in networks}
    pictures = []
    for image in read_names(args.world / "splits/test_files.txt"):
        date, folder, *_ = image.split("/")
        drive, frame = drives[f"{date}/{folder}"], int(Path(image).stem)
        truth, moving = truth_and_movers(options, drive, frame)
        known = (truth > 0) & (truth < CAP)
        row = []
        for name, (network, height, width) in networks.items():
            resized = read_resized(args.world / "raw" / image, height, width)
            disparity = predict(network, resized, truth.shape, device)
            error, ratio = relative_error(disparity, truth, known)
            cars = known & moving
            if cars.any():
                errors[name].append(
                    (error[cars].mean(), error[known & ~moving].mean(), np.median(ratio[cars]), int(cars.sum()))
                )
            row.append((resized, disparity, moving))
        if moving.sum() >= LEAST_PIXELS:
            pictures.append(row)
    if not any(errors.values()):
        raise InputError(f"{args.world}: no test image shows a moving car; render it with --moving-cars 1")
    print(table([summary(name, np.array(values)) for name, values in errors.items()]))
    if args.picture:
        draw(pictures[:: max(1, len(pictures) // PICTURED)][:PICTURED], list(networks), args.picture)


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", type=Path, help="a world of make_world.py --moving-cars")
    parser.add_argument("runs", type=Path, nargs="+", help="runs' folders, or checkpoints")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw a few images with each run's disparity")
    add_device_flag(parser)
    return parser.parse_args()


def truth_and_movers(options, drive, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Depth in metres (0: nothing there) and whether a pixel shows a moving car, both [H, W]."""
    renderer = make_drive_renderer(options, drive)
    view = (frame, drive.intrinsics, options.height, options.width, renderer.scene.world_from_camera[frame])
    depth = renderer.depth(*view)
    renderer.scene = replace(renderer.scene, movers=[])
    without = renderer.depth(*view)
    finite = np.where(np.isfinite(depth), depth, 0)
    return finite, finite != np.where(np.isfinite(without), without, 0)


def predict(network, image: np.ndarray, shape: tuple[int, ...], device: torch.device) -> np.ndarray:
    """Disparity at the truth's size."""
    with torch.no_grad():
        disparity = network(normalise(torch.from_numpy(image[None])).to(device))[0]
    return torch.nn.functional.interpolate(disparity, shape, mode="bilinear")[0, 0].cpu().numpy()


def relative_error(disparity: np.ndarray, truth: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|d - d*| / d* of depth scaled by the median of the known pixels, and d / d*."""
    depth = 1 / disparity
    depth = depth * np.median(truth[known]) / np.median(depth[known])
    ratio = depth.clip(1e-3, CAP) / np.maximum(truth, 1e-3)
    return np.abs(ratio - 1), ratio


def summary(name: str, values: np.ndarray) -> dict[str, str]:
    return {
        "run": name,
        "images with moving cars": str(len(values)),
        "Abs Rel, moving cars": f"{np.average(values[:, 0], weights=values[:, 3]):.3f}",
        "median of their depth / true depth": f"{np.median(values[:, 2]):.2f}",
        "Abs Rel, all else": f"{values[:, 1].mean():.3f}",
    }


def draw(rows: list, names: list[str], file: Path) -> None:
    """A row for each image: the image with the cars' outlines, and each run's disparity."""
    figure = Figure(figsize=(5 * (1 + len(names)), 1.8 * len(rows) + 0.4), layout="constrained")
    axes = figure.subplots(len(rows), 1 + len(names), squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        image, _, moving = row[0]
        line[0].imshow(image.transpose(1, 2, 0), extent=(0, moving.shape[1], moving.shape[0], 0))
        line[0].contour(moving, levels=[0.5], colors="red", linewidths=1)
        for axis, (_, disparity, _) in zip(line[1:], row, strict=True):
            axis.imshow(disparity, cmap="magma", vmin=0, vmax=np.quantile(disparity, 0.97))
    for axis, title in zip(axes[0], ["image; outlined: cars that move", *names], strict=True):
        axis.set_title(title)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.savefig(file, dpi=100)
    print(f"{file}: {len(rows)} images")


if __name__ == "__main__":
    run_script(main)
