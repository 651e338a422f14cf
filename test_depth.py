"""Predict depth for a list of KITTI images, save the predictions, and score the saved file as the field publishes."""

import argparse
import time
from functools import partial

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

from datasets.formats.kitti_folders import describe_conversion, find_image
from evaluation.depth_inputs import find_mean_map, find_speed_scales, load_listed
from evaluation.depth_lists import choose_tests
from evaluation.depth_results import SCALED, add_notes, result_rows, set_line, summarise, write_images
from evaluation.depth_scoring import Sets, score
from evaluation.ground_truth import TRUTHS, is_archive
from evaluation.leakage import check_overlap, trained_scenes
from evaluation.metrics.depth import CROPS, MIN_DEPTH, RESIZED, SCALINGS
from evaluation.metrics.depth_protocols import LISTED, PROTOCOLS, DepthTest
from evaluation.predictions import Rows, default_file, load_depth, save_predictions
from files.atomic import write_json
from files.errors import InputError
from files.outputs import check_outputs
from files.parallel import in_parallel
from inference.depth import input_size, predict_depth, read_resized
from inference.motion import distances_around, snippet_length
from inference.outputs import draw_depth_sheet
from models.averages import SizeAverage
from models.checkpoint import load_model

MOST_IN_FULL = 8  # results; more are printed in one line each

DESCRIPTION = """\
Predict depth for a list of KITTI images, save the predictions, and score them from the saved file.

  python test_depth.py runs/my_run/last.pt --kitti KITTI_RAW
      predicts and scores the 697 images of the Eigen split, as in the paper, with both of its caps
  python test_depth.py --predictions runs/my_run/last_depth.npz --kitti KITTI_RAW --protocol improved
      scores again without a network, against KITTI's improved depth maps
  python test_depth.py --predictions runs/my_run/last_depth.npz --kitti KITTI_RAW --protocol all --json all.json
      every way of comparing that the files allow
  python test_depth.py runs/my_run --which abs_rel --kitti KITTI_RAW --csv images.csv --pictures sheet.png
      the run's best checkpoint; each image's figures, and pictures of the best, median and worst ones
"""


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--kitti", type=Path, required=True, metavar="KITTI_RAW", help="folder that the list's names are relative to")
    protocols = (
        f"one or more of {', '.join(PROTOCOLS)} (docs/evaluation.md has each), or all: every combination of the "
    )
    protocols += "parts below that the files allow (default: paper paper-50)"
    choices, default = [*PROTOCOLS, "all"], ["paper", "paper-50"]
    add("--protocol", nargs="+", choices=choices, default=default, metavar="NAME", help=protocols)
    images = "images, one per line: DATE/DRIVE/image_02/data/0000000069.png or DATE/DRIVE 69 l; or eigen (697), or "
    images += "benchmark (the 652 of them with improved ground truth) (default: the protocol's)"
    add("--list", metavar="FILE", help=images)
    add_protocol_flags(parser)
    add("--csv", type=Path, metavar="FILE", help="write the figures of each image, too")
    sheet = "write a sheet of the best, median and worst images of the first protocol: input, prediction, truth, error"
    add("--pictures", type=Path, metavar="FILE.png", help=sheet)
    add_average_flags(add, "depth")
    pose = "pose network for --scaling speed (default: the checkpoint's own)"
    add("--pose-checkpoint", type=Path, metavar="FILE", help=pose)
    training = (
        "data prepared with --with-depth, for the mean depth map of the training set (default: the data that the "
    )
    training += "checkpoint was trained on, where they are still there)"
    add("--training-data", type=Path, metavar="PREPARED", help=training)
    plain = "with --predictions FILE.npy, [N, h, w] in the list's order: it holds disparity, as monodepth2 saves it"
    add("--disparity", action="store_true", help=plain)
    add("--allow-missing", action="store_true", help="go on without images, scans or predictions that are missing")
    add("--cache", help=argparse.SUPPRESS)  # of version 1; without effect
    add("--no-cache", action="store_true", help=argparse.SUPPRESS)
    add_test_flags(parser, "depth")
    args = parse_test_flags(parser)
    check_arguments(parser, args)
    return args


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with exit status 2 for flags that do not go together, or that name a file of another form."""
    for name in args.protocol:
        if name != "all" and PROTOCOLS[name].images == LISTED and args.list is None:
            parser.error(f"--protocol {name} has no list of its own: give --list FILE")
    if args.disparity and (args.predictions is None or args.predictions.suffix != ".npy"):
        parser.error("--disparity goes with --predictions FILE.npy: other files hold depth")
    if args.predictions and (args.flip_average or args.size_average or args.pose_checkpoint):
        flags = "--flip-average, --size-average and --pose-checkpoint"
        parser.error(f"{flags} go with a CHECKPOINT: --predictions FILE are made already")
    if args.pictures and args.pictures.suffix.lower() != ".png":
        parser.error(f"--pictures {args.pictures}: expected a name that ends in .png")


def add_protocol_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that replace parts of the named protocols."""
    note = "Each replaces that of the named protocols; several values give a result each."
    add = parser.add_argument_group("parts of a protocol", note).add_argument
    truths = "; ".join(f"{name}: {meaning}" for name, meaning in TRUTHS.items())
    truths += "; or FILE.npz (.npy) with the depth maps of the whole list in its order, as monodepth2 exports them"
    add("--ground-truth", type=ground_truth, nargs="+", metavar="KIND", help=truths)
    add("--crop", choices=CROPS, nargs="+", metavar="CROP", help=f"area that counts: {', '.join(CROPS)}")
    farthest = "farthest true depth that counts, and the depth that predictions are clipped to; with the protocol "
    farthest += "improved, farther truth counts, too"
    add("--cap", type=cap, nargs="+", metavar="METRES", help=farthest)
    scaled = SCALED | {"none": "predictions are not scaled"}
    scalings = "; ".join(f"{name}: {meaning}" for name, meaning in scaled.items())
    add("--scaling", choices=SCALINGS, nargs="+", metavar="SCALING", help=f"scale of the predictions: {scalings}")
    resized = "depth or disparity is resized to the truth's size"
    add("--resize", choices=RESIZED, nargs="+", metavar="WHAT", help=resized)


def ground_truth(text: str) -> str:
    if text not in TRUTHS and not is_archive(text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected one of {', '.join(TRUTHS)}, or a file .npz or .npy")
    return text


def cap(text: str) -> float:
    metres = positive_float(text)
    if metres <= MIN_DEPTH:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected metres above {MIN_DEPTH:g}")
    return metres


def main() -> None:
    args = parse_arguments()
    if args.checkpoint:
        args.save = args.save or default_file(args.checkpoint, "depth")
    outputs = {f"--{name}": getattr(args, name) for name in ("save", "json", "csv", "pictures")}
    given = [args.list, *filter(is_archive, args.ground_truth or [])]
    inputs = [args.checkpoint, args.predictions, args.pose_checkpoint, *(Path(file) for file in given if file)]
    check_outputs(outputs, inputs)
    if not args.kitti.is_dir():
        raise InputError(f"--kitti {args.kitti}: no such folder")
    names = ("list", "ground_truth", "crop", "cap", "scaling", "resize")
    images, truths, crops, caps, scalings, resized = (getattr(args, name) or [] for name in names)
    parts = {"images": [images] if images else [], "ground_truth": truths, "crop": crops, "cap": caps}
    parts |= {"scaling": scalings, "resized": resized}
    with_images = args.predictions is None
    predicted = None  # all images, unless a file says that it lacks some, and may
    if args.allow_missing and args.predictions and args.predictions.suffix != ".npy":
        predicted, *_ = load_depth(args.predictions)
    tests, sets, left_out = choose_tests(args.protocol, parts, args.kitti, with_images, args.allow_missing, predicted)
    if args.pictures:
        check_images(next(iter(tests.values())), sets, args.kitti)
    found = list(dict.fromkeys(name for images in sets.values() for name in images.found))

    file, seconds = args.predictions, {}
    if args.checkpoint:
        file = args.save
        speed = any(test.protocol.scaling == "speed" for test in tests.values())
        seconds = predict(found, file, speed, left_out, args)
    predictions, distances = load_listed(file, found, sets, args.disparity)
    overlap = check_overlap(file, trained_scenes(predictions.about), found, args.kitti, args.allow_training_overlap)
    try:
        scales = find_speed_scales(tests, sets, distances, args.kitti, file)
    except InputError as error:
        leave_out_speed(error, left_out, args)
        tests = {name: test for name, test in tests.items() if test.protocol.scaling != "speed"}
        scales = {}
    mean_map, about_mean_map = find_mean_map(predictions.about, args.training_data, args.workers)
    start = time.perf_counter()
    scores = score(tests, sets, predictions, mean_map, scales, args.kitti, args.workers)
    seconds["scoring_per_image"] = (time.perf_counter() - start) / len(found)

    results = {
        name: summarise(name, test, sets[test.images, test.ground_truth], scores[name]) for name, test in tests.items()
    }
    add_notes(results, scales, predictions.about)
    result = {"protocols": results, "left_out": left_out, "training_overlap": overlap, "mean_map": about_mean_map}
    result |= {"predictions": {"file": str(file), **predictions.about}, "seconds": seconds}
    if args.json:
        write_json(args.json, result)
    if args.csv:
        write_images(args.csv, tests, sets, scores)
    print_result(result)
    if args.pictures:
        name, test = next(iter(tests.items()))
        of_images = scores[name]["network"]
        draw_depth_sheet(
            args.pictures, name, test, sets[test.images, test.ground_truth], predictions, of_images, args.kitti
        )
        print(f"pictures: {args.pictures}")


def check_images(test: DepthTest, sets: Sets, root: Path) -> None:
    """InputError unless the images that --pictures may draw are there; scoring alone needs none of them."""
    for name in sets[test.images, test.ground_truth].found:
        file = find_image(root, name)
        if not file.is_file():
            raise InputError(f"{file}: no such file, expected the image for --pictures")


def leave_out_speed(error: InputError, left_out: list[str], args: argparse.Namespace) -> None:
    """Note why there is no scale from the speed; the error itself if that scale was asked for by name."""
    if "speed" in (args.scaling or []):
        raise error
    if not any(line.startswith("scaling speed") for line in left_out):
        left_out.append(f"scaling speed: {error}")


def predict(
    names: list[str], file: Path, speed: bool, left_out: list[str], args: argparse.Namespace
) -> dict[str, float]:
    """Save the network's depth of each image: `files` [N], `depth` float32 [N, height, width] = 1 / disparity.

    For the scale from the speed also `snippet_frames` int [N, n], the numbers of the frames around each image, and
    `distances` float64 [N, n - 1], predicted from the middle frame to the others.

    Returns:
        Seconds per image, including reading, without loading the network.
    """
    device = choose_device(args.device)
    loaded = load_model(args.checkpoint, device)
    if loaded.depth_net is None:
        raise InputError(f"{args.checkpoint}: holds no depth network, only a pose network")
    check_overlap(args.checkpoint, loaded.scenes, names, args.kitti, args.allow_training_overlap)
    height, width = input_size((args.height, args.width), (loaded.height, loaded.width))
    read = partial(read_resized, height=height, width=width)
    arrays: dict[str, np.ndarray | Rows] = {"files": np.array(names)}
    seconds = {}
    if speed:
        source = args.pose_checkpoint or args.checkpoint
        pose_net = load_model(source, device).pose_net if args.pose_checkpoint else loaded.pose_net
        try:
            if pose_net is None:
                raise InputError(f"{source}: holds no pose network; --pose-checkpoint FILE names one")
            snippet_length(pose_net, source)
            start = time.perf_counter()
            found = distances_around(pose_net, args.kitti, names, read, args.batch_size, args.workers)
            arrays["snippet_frames"], arrays["distances"] = found
            seconds["poses_per_image"] = (time.perf_counter() - start) / len(names)
        except InputError as error:
            leave_out_speed(error, left_out, args)
    images = in_parallel(lambda name: read(find_image(args.kitti, name)), names, args.workers)
    start = time.perf_counter()
    depth_net = SizeAverage(loaded.depth_net) if args.size_average else loaded.depth_net
    depth = predict_depth(depth_net, images, len(names), args.batch_size, device, args.flip_average)
    arrays["depth"] = Rows((len(names), height, width), np.float32, depth)
    about = {
        "checkpoint": str(args.checkpoint),
        "step": loaded.step,
        "height": height,
        "width": width,
        "flip_average": args.flip_average,
        "size_average": args.size_average,
        "conversion": describe_conversion(args.kitti, names),
        "training_data": None if loaded.data is None else str(Path(loaded.data).absolute()),
        "scenes": loaded.scenes,
    }
    save_predictions(file, "depth", arrays, about)
    seconds["predicting_per_image"] = (time.perf_counter() - start) / len(names)
    print(f"predictions: {file}")
    return seconds


def print_result(result: dict) -> None:
    protocols = result["protocols"]
    many = len(protocols) > MOST_IN_FULL
    print()
    for line in dict.fromkeys(
        set_line(protocol) if many and name not in PROTOCOLS else protocol["line"]
        for name, protocol in protocols.items()
    ):
        print(line)
    rows = [row for name in protocols for row in result_rows(name, protocols[name], many)]
    print(f"{result['training_overlap']['line']}\n\n{table(rows)}\n")
    if many:
        print("other protocols than the named ones: images / ground truth / crop / cap / scaling / resized")
        print("mean map, constant: Abs Rel of the mean depth map of the training set and of the best constant")
        for note in dict.fromkeys(protocol["scale"].get("note") for protocol in protocols.values()):
            if note:
                print(f"scaling speed: {note}")
    for line in result["left_out"]:
        print(f"left out: {line}")
    print(f"mean depth map of the training set: {result['mean_map']}")
    print(", ".join(f"{part.replace('_', ' ')} {1000 * value:.1f} ms" for part, value in result["seconds"].items()))


if __name__ == "__main__":
    run_script(main)
