"""Predict depth for Make3D's test images, which no training here has seen, save the predictions, and score the file."""

import argparse
import time

from cli.flags import (
    ArgumentParser,
    add_average_flags,
    add_test_flags,
    choose_device,
    parse_test_flags,
    positive_float,
    run_script,
)
from cli.tables import table

import numpy as np
from path import Path

from datasets.formats.make3d import ASPECT, Photograph, read_cropped_image
from evaluation.make3d import (
    RATIO,
    Make3DProtocol,
    check_names,
    crop_ratio,
    find_test_set,
    score_photographs,
    summarise_make3d,
)
from evaluation.metrics.make3d import CAP, METRICS, RESIZED
from evaluation.predictions import Rows, default_file, describe_averages, load_depth, save_predictions
from files.atomic import write_csv, write_json
from files.errors import InputError
from files.images import resize_area
from files.outputs import check_outputs
from files.parallel import in_parallel
from inference.depth import input_size, predict_depth
from models.averages import SizeAverage
from models.checkpoint import load_model

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
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--make3d", type=Path, required=True, metavar="FOLDER", help="folder of the unpacked test images and depths")
    scoring = parser.add_argument_group("how predictions are made and scored").add_argument
    ratio = f"width / height of the central rows that photographs are cropped to (default: {RATIO:g})"
    scoring("--ratio", type=_ratio, metavar="R", help=ratio)
    cap = f"farthest distance that counts (default: {CAP:g})"
    scoring("--cap", type=positive_float, default=CAP, metavar="METRES", help=cap)
    scoring("--scaling", choices=("median", "none"), default="median", help="(default: median)")
    resized = "to the truth's size: nearest, as published; depth or disparity, bilinearly (default: nearest)"
    scoring("--resize", choices=RESIZED, default="nearest", help=resized)
    add_average_flags(scoring, "depth")
    scoring("--allow-missing", action="store_true", help="go on with fewer than 134 images; the result says so")
    add("--csv", type=Path, metavar="FILE", help="write a line for each image, too")
    add_test_flags(parser, "make3d", overlap=False)  # no training here has Make3D
    args = parse_test_flags(parser)
    if args.predictions and (args.flip_average or args.size_average):
        parser.error("--flip-average and --size-average go with a CHECKPOINT: --predictions FILE are made already")
    return args


def _ratio(text: str) -> float:
    ratio = positive_float(text)
    if not 1 / ASPECT <= ratio <= 20:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a ratio from 0.75 (the whole photograph) to 20")
    return ratio


def main() -> None:
    args = parse_arguments()
    if args.checkpoint:
        args.save = args.save or default_file(args.checkpoint, "make3d")
    check_outputs({"--save": args.save, "--json": args.json, "--csv": args.csv}, [args.checkpoint, args.predictions])
    photographs, missing = find_test_set(args.make3d, args.allow_missing)

    file, seconds = args.predictions, {}
    if args.checkpoint:
        file = args.save
        seconds["predicting_per_image"] = predict(photographs, file, args) / len(photographs)
    depth, _, about = load_depth(file)
    ratio = crop_ratio(file, about, args.ratio)
    check_names(file, depth, photographs, missing)

    start = time.perf_counter()
    protocol = Make3DProtocol(ratio, args.scaling, args.resize, args.cap)
    scores = score_photographs(photographs, depth, protocol, file, args.workers)
    seconds["scoring_per_image"] = (time.perf_counter() - start) / len(photographs)

    result = summarise_make3d(scores, protocol, describe_averages(about), missing)
    result |= {"predictions": {"file": str(file), **about}, "seconds": seconds}
    if args.csv:
        write_csv(args.csv, [{"image": photo.name, **row} for photo, (row, _) in zip(photographs, scores, strict=True)])
    if args.json:
        write_json(args.json, result)
    print_result(result)


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
    depth_net = SizeAverage(networks.depth_net) if args.size_average else networks.depth_net
    depth = predict_depth(depth_net, images, len(photographs), args.batch_size, device, args.flip_average)
    about: dict = {"checkpoint": str(args.checkpoint), "step": networks.step, "height": height, "width": width}
    about |= {"make3d_ratio": ratio, "flip_average": args.flip_average, "size_average": args.size_average}
    names = np.array([photo.name for photo in photographs])
    rows = Rows((len(photographs), height, width), np.float32, depth)
    save_predictions(file, "depth", {"files": names, "depth": rows}, about)
    seconds = time.perf_counter() - start
    print(f"predictions: {file}")
    return seconds


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
