"""Predict depth for Make3D's test images, which no training here has seen, save the predictions, and score the file."""

import argparse
import time

import numpy as np
from path import Path
from tqdm import tqdm

from cli.flags import add_test_flags, choose_device, parse_test_flags, positive_float, run_script
from cli.tables import table
from datasets.formats.make3d import (
    ASPECT,
    GRID,
    IMAGES,
    Photograph,
    central_rows,
    find_photographs,
    read_cropped_depth,
    read_cropped_image,
)
from evaluation.metrics.make3d import CAP, METRICS, RESIZED, image_metrics, mean_metrics
from evaluation.predictions import (
    check_writable,
    default_file,
    load_depth,
    save_predictions,
)
from files.atomic import write_csv, write_json
from files.errors import InputError
from files.images import resize_area
from files.parallel import in_parallel
from inference.depth import input_size, predict_depth
from models.checkpoint import load_model

RATIO = 2.0
DESCRIPTION = """\
Predict depth for the 134 test images of Make3D, save the predictions, and score them from the saved file.

  python test_make3d.py runs/my_run/last.pt --make3d MAKE3D
      predicts and scores; MAKE3D holds Test134/img-*.jpg and Gridlaserdata/depth_sph_corr-*.mat
  python test_make3d.py --predictions runs/my_run/last_make3d.npz --make3d MAKE3D --csv images.csv
      scores again without a network, and writes a line for each image

The protocol is that of monodepth2's published code: central crop to 2 : 1, scaling by the medians, distances below
70 m. docs/evaluation.md tells where papers differ.
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--make3d", type=Path, required=True, metavar="FOLDER", help="folder of the unpacked test images and depths")
    scoring = parser.add_argument_group("how predictions are made and scored")
    scoring.add_argument(
        "--ratio",
        type=_ratio,
        metavar="R",
        help=f"photographs are cropped to their central rows, width / height = R (default: {RATIO:g})",
    )
    scoring.add_argument(
        "--cap", type=positive_float, default=CAP, metavar="METRES", help="farthest that counts (default: 70)"
    )
    scoring.add_argument("--scaling", choices=("median", "none"), default="median", help="(default: median)")
    scoring.add_argument(
        "--resize",
        choices=RESIZED,
        default="nearest",
        help="to the truth's size: nearest, as published; depth or disparity, bilinearly (default: nearest)",
    )
    scoring.add_argument(
        "--flip-average", action="store_true", help="predict each image and its mirror image, and blend both"
    )
    scoring.add_argument(
        "--allow-missing", action="store_true", help="go on with fewer images than 134; the result then says so"
    )
    add("--csv", type=Path, metavar="FILE", help="write a line for each image, too")
    add_test_flags(parser, "make3d", overlap=False)  # no training here has Make3D
    args = parse_test_flags(parser)
    if args.predictions and args.flip_average:
        parser.error("--flip-average goes with a CHECKPOINT: --predictions FILE are made already")
    return args


def _ratio(text: str) -> float:
    ratio = positive_float(text)
    if not 1 / ASPECT <= ratio <= 20:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a ratio from 0.75 (the whole photograph) to 20")
    return ratio


def main() -> None:
    args = parse_arguments()
    for file, flag in ((args.json, "--json"), (args.csv, "--csv")):
        if file:
            check_writable(file, flag)
    photographs, missing = find_test_set(args)

    file, seconds = args.predictions, {}
    if args.checkpoint:
        file = args.save or default_file(args.checkpoint, "make3d")
        check_writable(file, "--save")
        seconds["predicting_per_image"] = predict(photographs, file, args) / len(photographs)
    depth, about = load_depth(file)
    ratio = crop_ratio(file, about, args)
    check_names(file, depth, photographs, missing)

    start = time.perf_counter()
    scores = score(photographs, depth, ratio, file, args)
    seconds["scoring_per_image"] = (time.perf_counter() - start) / len(photographs)

    result = summarise(scores, ratio, about.get("flip_average") is True, missing, args)
    result |= {"predictions": {"file": str(file), **about}, "seconds": seconds}
    print_result(result)
    if args.csv:
        write_csv(args.csv, [{"image": photo.name, **row} for photo, (row, _) in zip(photographs, scores, strict=True)])
    if args.json:
        write_json(args.json, result)


def find_test_set(args: argparse.Namespace) -> tuple[list[Photograph], list[str]]:
    """The photographs whose depth is there, too, and what is missing for 134; InputError unless that is allowed."""
    photographs = find_photographs(args.make3d)
    if len(photographs) > IMAGES:
        raise InputError(
            f"{args.make3d}: {len(photographs)} images, expected the {IMAGES} of Make3D's test set alone (in a folder "
            "whose name does not begin with Train)"
        )
    missing = [str(photo.depth_file) for photo in photographs if not photo.depth_file.is_file()]
    found = [photo for photo in photographs if photo.depth_file.is_file()]
    if len(found) < IMAGES and not (args.allow_missing and found):
        lack = f"{missing[0]}: no such file; " if missing else f"{args.make3d}: "
        raise InputError(
            f"{lack}{len(photographs)} images and {len(found)} of them with depth, expected Make3D's {IMAGES}"
            + ("; --allow-missing scores what is there" if found else "")
        )
    unnamed = IMAGES - len(photographs)
    return found, missing + ([f"{unnamed} images that are not in {args.make3d}"] if unnamed else [])


def predict(photographs: list[Photograph], file: Path, args: argparse.Namespace) -> float:
    """Save the network's depth of each cropped photograph: `files` [N], `depth` float32 [N, height, width].

    Returns the seconds it took, reading the images included, loading the network not.
    """
    device = choose_device(args.device)
    networks = load_model(args.checkpoint, device)
    if networks.depth_net is None:
        raise InputError(f"{args.checkpoint}: holds no depth network, only a pose network")
    height, width = input_size((args.height, args.width), (networks.height, networks.width))
    ratio = args.ratio or RATIO

    def read(photo: Photograph) -> np.ndarray:
        cropped = read_cropped_image(photo.image_file, ratio)
        return np.ascontiguousarray(resize_area(cropped, height, width).transpose(2, 0, 1))

    start = time.perf_counter()
    images = in_parallel(read, photographs, args.workers)
    depth = predict_depth(networks.depth_net, images, len(photographs), args.batch_size, device, args.flip_average)
    seconds = time.perf_counter() - start
    about = {
        "checkpoint": str(args.checkpoint),
        "step": networks.step,
        "height": height,
        "width": width,
        "make3d_ratio": ratio,
        "flip_average": args.flip_average,
    }
    names = np.array([photo.name for photo in photographs])
    save_predictions(
        file,
        "depth",
        {"files": names, "depth": depth},
        about | {"make3d_ratio": ratio, "flip_average": args.flip_average},
    )
    print(f"predictions: {file}")
    return seconds


def crop_ratio(file: Path, about: dict, args: argparse.Namespace) -> float:
    """Of the crop that the predictions are of; InputError if --ratio says something else."""
    ratio = about.get("make3d_ratio", args.ratio or RATIO)
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 1 / ASPECT <= ratio <= 20:
        raise InputError(f"{file}: make3d_ratio is {str(ratio)[:40]}, expected a number from 0.75 to 20")
    if args.ratio and ratio != args.ratio:
        raise InputError(f"{file}: predictions of images cropped to {ratio:g} : 1, --ratio says {args.ratio:g}")
    return float(ratio)


def check_names(file: Path, depth: dict[str, np.ndarray], photographs: list[Photograph], missing: list[str]) -> None:
    """InputError unless the file has a prediction for each photograph, and (if none is missing) for nothing else."""
    names = {photo.name for photo in photographs}
    absent, surplus = sorted(names - depth.keys()), sorted(depth.keys() - names)
    if absent or (surplus and not missing):
        example = f"{absent[0]} is not predicted" if absent else f"{surplus[0]} is none of the images"
        raise InputError(
            f"{file}: predictions of {len(depth)} images do not fit the {len(names)} images: {example} "
            f"({len(absent)} lack a prediction, {len(surplus)} are of no image)"
        )


def score(
    photographs: list[Photograph], depth: dict[str, np.ndarray], ratio: float, file: Path, args: argparse.Namespace
) -> list[tuple[dict[str, float], dict[str, float]]]:
    """Metrics of each image: the prediction's, and those of a constant."""

    def score_image(item: tuple[int, Photograph]) -> tuple[dict[str, float], dict[str, float]]:
        index, photo = item
        truth = read_cropped_depth(photo.depth_file, ratio)
        if not (truth > 0).any():
            raise InputError(f"{photo.depth_file}: no distance above 0 in the rows that the cropped image shows")
        where = f"{file}, prediction {index} ({photo.name})"
        predicted = image_metrics(depth[photo.name], truth, args.cap, args.resize, args.scaling, where)
        return predicted, image_metrics(np.ones((1, 1)), truth, args.cap, where=where)

    results = in_parallel(score_image, list(enumerate(photographs)), args.workers)
    return list(tqdm(results, total=len(photographs), desc="scoring", unit="image"))


def summarise(
    scores: list[tuple[dict[str, float], dict[str, float]]],
    ratio: float,
    flip_average: bool,
    missing: list[str],
    args: argparse.Namespace,
) -> dict:
    """The result for machines: a line and the parts of the protocol, the figures, and those of the baseline."""
    predicted, constant = zip(*scores, strict=True)
    scales = np.array([image["scale"] for image in predicted])
    scale = float(np.median(scales))
    images = f"{len(scores)} of the {IMAGES} test images of Make3D"
    if missing:
        images = f"INCOMPLETE, NOT COMPARABLE WITH FIGURES OF ALL IMAGES: {images.upper()}"
    rows, grid_rows = central_rows(2272, ratio), central_rows(GRID[0], ratio)
    line = (
        f"protocol: {images}; central crop {ratio:g} : 1 (rows {rows.start} to {rows.stop - 1} of 2272, "
        f"{grid_rows.start} to {grid_rows.stop - 1} of {GRID[0]}); ground truth: the laser's distance, as published; "
        f"scaling: {'median per image' if args.scaling == 'median' else 'none'}; resized to the truth's size: "
        f"{args.resize}; below {args.cap:g} m{' (C1)' if args.cap == CAP else ''}"
        f"{'; averaged with the mirrored image' if flip_average else ''}"
    )
    protocol = {"line": line, "ratio": ratio, "scaling": args.scaling, "resized": args.resize, "cap": args.cap}
    return {
        "protocol": protocol,
        "images": {"expected": IMAGES, "found": len(scores), "missing": missing},
        "result": mean_metrics(predicted) | {"scale": scale, "scale_spread": float(np.std(scales / scale))},
        "baselines": {"constant": mean_metrics(constant)},
    }


def print_result(result: dict) -> None:
    row = result["result"]
    rows = [
        {"": name} | {metric: f"{figures[metric]:.4f}" for metric in METRICS}
        for name, figures in (("network", row), ("each image's median", result["baselines"]["constant"]))
    ]
    rows[0]["scale (spread)"] = f"{row['scale']:.4g} ({row['scale_spread']:.3f})"
    rows[1]["scale (spread)"] = ""
    print(f"\n{result['protocol']['line']}\n\n{table(rows)}\n")
    print(", ".join(f"{part.replace('_', ' ')} {1000 * value:.1f} ms" for part, value in result["seconds"].items()))


if __name__ == "__main__":
    run_script(main)
