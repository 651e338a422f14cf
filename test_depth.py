"""Predict depth for a list of KITTI images, save the predictions, and score the saved file as the field publishes."""

import argparse
import time
from functools import partial

import numpy as np
from path import Path
from tqdm import tqdm

from cli.flags import add_test_flags, choose_device, parse_test_flags, positive_float, run_script
from cli.tables import table
from datasets.formats.kitti_folders import describe_conversion, find_image, read_image_list
from evaluation.baselines import mean_depth_map
from evaluation.depth_scoring import (
    BASELINES,
    SCALED,
    ImageSet,
    Predictions,
    Scores,
    Sets,
    score,
    summarise,
    write_images,
)
from evaluation.ground_truth import TRUTHS, archived_truths, describe_truth, is_archive, read_truth, truth_files
from evaluation.leakage import check_overlap, trained_scenes
from evaluation.metrics.depth import CROPS, METRICS, MIN_DEPTH, RESIZED, SCALINGS
from evaluation.metrics.depth_protocols import LISTED, PROTOCOLS, DepthTest, matrix, name_of, vary
from evaluation.predictions import (
    check_writable,
    default_file,
    depth_by_name,
    load_predictions,
    save_predictions,
)
from evaluation.speed_scale import SLOWEST, SpeedScale, speed_scales, true_distances
from files.atomic import write_json
from files.errors import InputError
from files.images import read_image
from files.parallel import in_parallel
from inference.depth import input_size, predict_depth, read_resized
from inference.motion import distances_around, snippet_length
from models.checkpoint import LoadedModel, load_model
from visualization.depth_sheet import choose_rows, draw_row, write_sheet

SPLITS = Path(__file__).absolute().parent / "data/splits"
LISTS = {"eigen": SPLITS / "eigen_test_files.txt", "benchmark": SPLITS / "eigen_benchmark_test_files.txt"}
TITLES = {"mean_map": "mean depth map of the training set", "best_constant": "best constant"}
MOST_IN_FULL = 8  # results; more are printed in one line each
PICTURES_OF_EACH = 3  # best, median and worst images on a sheet

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
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--kitti", type=Path, required=True, metavar="KITTI_RAW", help="folder that the list's names are relative to"
    )
    parser.add_argument(
        "--protocol",
        nargs="+",
        choices=[*PROTOCOLS, "all"],
        default=["paper", "paper-50"],
        metavar="NAME",
        help=f"one or more of {', '.join(PROTOCOLS)} (docs/evaluation.md has each), or all: every combination of the "
        "parts below that the files allow (default: paper paper-50)",
    )
    parser.add_argument(
        "--list",
        metavar="FILE",
        help="images, one a line: DATE/DRIVE/image_02/data/0000000069.png or DATE/DRIVE 69 l; or eigen (697), or "
        "benchmark (the 652 of them with improved ground truth) (default: the protocol's)",
    )

    scoring = parser.add_argument_group(
        "parts of a protocol", "Each in place of the named protocol's own; several values give a result each."
    )
    scoring.add_argument(
        "--ground-truth",
        type=ground_truth,
        nargs="+",
        metavar="KIND",
        help="; ".join(f"{name}: {meaning}" for name, meaning in TRUTHS.items())
        + "; or FILE.npz (.npy) with the depth maps of the whole list in its order, as monodepth2 exports them",
    )
    scoring.add_argument("--crop", choices=CROPS, nargs="+", metavar="CROP", help=f"{', '.join(CROPS)}: what counts")
    scoring.add_argument("--cap", type=cap, nargs="+", metavar="METRES", help="farthest depth that counts")
    scoring.add_argument(
        "--scaling",
        choices=SCALINGS,
        nargs="+",
        metavar="SCALING",
        help="of predictions: " + "; ".join(f"{name}: {meaning}" for name, meaning in SCALED.items()),
    )
    scoring.add_argument(
        "--resize", choices=RESIZED, nargs="+", metavar="WHAT", help="depth or disparity, to the truth's size"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the figures of each image, too")
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="FILE.png",
        help="a sheet of the best, median and worst images of the first protocol: input, prediction, truth, error",
    )
    parser.add_argument(
        "--flip-average",
        action="store_true",
        help="predict each image and its mirror image, and blend both (the post-processing of monodepth)",
    )
    parser.add_argument(
        "--pose-checkpoint",
        type=Path,
        metavar="FILE",
        help="pose network for --scaling speed (default: the checkpoint's own)",
    )
    parser.add_argument(
        "--training-data",
        type=Path,
        metavar="PREPARED",
        help="prepared with --with-depth, for the mean depth map of the training set (default: what the checkpoint was "
        "trained on, where it is still there)",
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="go on without the images or scans that are not there"
    )
    parser.add_argument("--cache", help=argparse.SUPPRESS)  # of older versions; without effect
    parser.add_argument("--no-cache", action="store_true", help=argparse.SUPPRESS)
    add_test_flags(parser, "depth")
    args = parse_test_flags(parser)
    for name in args.protocol:
        if name != "all" and PROTOCOLS[name].images == LISTED and args.list is None:
            parser.error(f"--protocol {name} has no list of its own: give --list FILE")
    if args.predictions and (args.flip_average or args.pose_checkpoint):
        parser.error("--flip-average and --pose-checkpoint go with a CHECKPOINT: --predictions FILE are made already")
    return args


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
    for flag in ("json", "csv", "pictures"):
        if getattr(args, flag):
            check_writable(getattr(args, flag), f"--{flag}")
    if not args.kitti.is_dir():
        raise InputError(f"--kitti {args.kitti}: no such folder")
    tests, sets, left_out = choose_tests(args)
    names = list(dict.fromkeys(name for images in sets.values() for name in images.found))

    file, seconds = args.predictions, {}
    if args.checkpoint:
        file = args.save or default_file(args.checkpoint, "depth")
        check_writable(file, "--save")
        seconds = predict(names, file, wants_speed(tests), left_out, args)
    predictions, distances = load_listed(file, names, sets)
    trained = trained_scenes(predictions.about)
    overlap = check_overlap(file, trained, names, args.kitti, args.allow_training_overlap)
    scales = find_speed_scales(tests, sets, distances, left_out, args)

    mean_map, about_mean_map = find_mean_map(predictions.about, args)
    start = time.perf_counter()
    scores = score(tests, sets, predictions, mean_map, scales, args.kitti, args.workers)
    seconds["scoring_per_image"] = (time.perf_counter() - start) / len(names)

    results = {
        name: summarise(name, test, sets[test.images, test.ground_truth], scores[name]) for name, test in tests.items()
    }
    conversion = predictions.about.get("conversion")
    if isinstance(conversion, str) and conversion:  # figures of images that are not those of the list
        for summary in results.values():
            summary["line"] += f"; {conversion}"
            summary["images"]["conversion"] = conversion
    for name, per_image in scales.items():
        slow = sum(not scale.measured for scale in per_image.values())
        results[name]["scale"]["measured"] = len(per_image) - slow
        if slow:
            note = f"{slow} images taken at less than {SLOWEST:g} m/s are scaled by the median of the others"
            results[name]["line"] += f"; {note}"
            results[name]["scale"]["note"] = note
    result = {
        "protocols": results,
        "left_out": left_out,
        "training_overlap": overlap,
        "mean_map": about_mean_map,
        "predictions": {"file": str(file), **predictions.about},
        "seconds": seconds,
    }
    print_result(result)
    if args.json:
        write_json(args.json, result)
    if args.csv:
        write_images(args.csv, tests, sets, scores)
    if args.pictures:
        name, test = next(iter(tests.items()))
        draw_pictures(name, test, sets[test.images, test.ground_truth], predictions, scores, args)


# Which images, which protocols


def choose_tests(args: argparse.Namespace) -> tuple[dict[str, DepthTest], Sets, list[str]]:
    """The tests by name, their images, and a line for each part of the matrix that the files don't allow.

    InputError where a list that was asked for is not complete, unless --allow-missing.
    """
    parts = {
        "images": [args.list] if args.list else [],
        "ground_truth": args.ground_truth or [],
        "crop": args.crop or [],
        "cap": args.cap or [],
        "scaling": args.scaling or [],
        "resized": args.resize or [],
    }
    tests = vary([PROTOCOLS[name] for name in args.protocol if name != "all"], **parts)
    sets = {(test.images, test.ground_truth): find_images(test.images, test.ground_truth, args) for test in tests}
    for (images, truth), found in sets.items():
        check_complete(found, images, truth, args)
    left_out = []
    if "all" in args.protocol:
        for images in parts["images"] or LISTS:
            for truth in parts["ground_truth"] or all_kinds(args.kitti):
                found = find_images(images, truth, args)
                if not found.missing or (args.allow_missing and found.found):
                    sets[images, truth] = found
                else:
                    left_out.append(
                        f"{images}, {truth}: {len(found.missing)} of {len(found.listed)} images lack a file, e.g. "
                        f"{found.missing[0]}"
                    )
        if not sets:
            raise InputError(f"--protocol all: no list is complete with any ground truth: {left_out[0]}")
        named = [test for test in vary(PROTOCOLS.values(), **parts) if (test.images, test.ground_truth) in sets]
        every = vary(matrix(sets, list(SCALINGS)), **parts)
        tests = list(dict.fromkeys([*tests, *named, *every]))
    return {name_of(test): test for test in tests}, sets, left_out


def all_kinds(kitti: Path) -> list[str]:
    """The kinds of ground truth that may be there: pictures of depth are a synthetic world's or KITTI's, not both."""
    other = "improved" if (kitti.absolute().parent / "world.json").is_file() else "dense"
    return [kind for kind in TRUTHS if kind != other]


def find_images(images: str, truth: str, args: argparse.Namespace) -> ImageSet:
    file = LISTS.get(images, Path(images))
    listed = read_image_list(file, args.kitti)
    found, missing = [], []
    for name in listed:
        needed = [] if args.predictions else [find_image(args.kitti, name)]
        needed += truth_files(args.kitti, name, truth)
        absent = next((file for file in needed if not file.is_file()), None)
        if absent is None:
            found.append(name)
        else:
            missing.append(str(absent))
    if is_archive(truth) and not missing and len(archived_truths(Path(truth))) != len(listed):
        count = len(archived_truths(Path(truth)))
        raise InputError(f"{truth}: {count} depth maps, expected one for each of the {len(listed)} images of {file}")
    return ImageSet(str(file.name), listed, found, missing)


def check_complete(images: ImageSet, listed: str, truth: str, args: argparse.Namespace) -> None:
    """InputError for a list that isn't complete, unless --allow-missing."""
    if not images.missing or (args.allow_missing and images.found):
        return
    hint = "; --allow-missing scores the others" if images.found else ""
    if truth == "improved" and listed == "eigen":
        hint += "; --list benchmark names the 652 that have an improved depth map"
    raise InputError(
        f"{images.missing[0]}: no such file; of the {len(images.listed)} images of {LISTS.get(listed, listed)}, "
        f"{len(images.missing)} lack their image, ground truth or calibration{hint}"
    )


# Predictions


def predict(
    names: list[str], file: Path, speed: bool, left_out: list[str], args: argparse.Namespace
) -> dict[str, float]:
    """Save the network's depth of each image: `files` [N], `depth` float32 [N, height, width] = 1 / disparity.

    For the scale from the speed also `snippet_frames` int [N, n], the numbers of the frames around each image, and
    `distances` float64 [N, n - 1], predicted from the middle frame to the others. With `--protocol all`, a line in
    `left_out` says why there are none; if that scale was asked for, it is an InputError.

    Returns the seconds that an image took, reading it included, loading the network not.
    """
    device = choose_device(args.device)
    networks = load_model(args.checkpoint, device)
    if networks.depth_net is None:
        raise InputError(f"{args.checkpoint}: holds no depth network, only a pose network")
    trained = networks.scenes
    check_overlap(args.checkpoint, trained, names, args.kitti, args.allow_training_overlap)
    height, width = input_size((args.height, args.width), (networks.height, networks.width))
    read = partial(read_resized, height=height, width=width)
    arrays, seconds = {"files": np.array(names)}, {}
    if speed:
        pose_net = networks.pose_net
        if args.pose_checkpoint:
            pose_net = load_model(args.pose_checkpoint, device).pose_net
        try:
            if pose_net is None:
                given = args.pose_checkpoint or args.checkpoint
                raise InputError(f"{given}: holds no pose network; --pose-checkpoint FILE names one")
            snippet_length(pose_net, args.pose_checkpoint or args.checkpoint)
            start = time.perf_counter()
            arrays["snippet_frames"], arrays["distances"] = distances_around(
                pose_net, args.kitti, names, read, args.batch_size, args.workers
            )
            seconds["poses_per_image"] = (time.perf_counter() - start) / len(names)
        except InputError as error:
            if asks_for_speed(args):
                raise
            left_out.append(f"scaling speed: {error}")
    images = in_parallel(lambda name: read(find_image(args.kitti, name)), names, args.workers)
    start = time.perf_counter()
    arrays["depth"] = predict_depth(networks.depth_net, images, len(names), args.batch_size, device, args.flip_average)
    seconds["predicting_per_image"] = (time.perf_counter() - start) / len(names)
    about = {
        "checkpoint": str(args.checkpoint),
        "step": networks.step,
        "height": height,
        "width": width,
        "flip_average": args.flip_average,
        "conversion": describe_conversion(args.kitti, names),
        "training_data": training_data(networks),
        "scenes": trained,
    }
    save_predictions(file, "depth", arrays, about)
    print(f"predictions: {file}")
    return seconds


def wants_speed(tests: dict[str, DepthTest]) -> bool:
    return any(test.protocol.scaling == "speed" for test in tests.values())


def asks_for_speed(args: argparse.Namespace) -> bool:
    """Whether the scale from the speed was asked for by name, and not only by --protocol all."""
    return "speed" in (args.scaling or [])


def training_data(networks: LoadedModel) -> str | None:
    """The prepared data set that a network was trained on, as far as its checkpoint says."""
    return None if networks.data is None else str(Path(networks.data).absolute())


Distances = dict[str, tuple[list[int], np.ndarray]]  # by image: frame numbers, and the predicted distances


def load_listed(file: Path, names: list[str], sets: Sets) -> tuple[Predictions, Distances]:
    """Predicted depth and distances (if any) by image name; InputError unless the file fits the lists."""
    arrays, about = load_predictions(file, "depth")
    predicted = depth_by_name(arrays, file)
    listed = {name for images in sets.values() for name in images.listed}
    if any(images in LISTS for images, _ in sets):  # of predictions of all 697, the 652 may be scored alone
        listed.update(read_image_list(LISTS["eigen"], Path(".")))
    absent = [name for name in names if name not in predicted]
    surplus = sorted(predicted.keys() - listed)
    if absent or surplus:
        example = f"{absent[0]} is not predicted" if absent else f"{surplus[0]} is not listed"
        raise InputError(
            f"{file}: predictions of {len(predicted)} images do not fit the list of {len(listed)}: {example} "
            f"({len(absent)} lack a prediction, {len(surplus)} are not listed)"
        )
    distances: Distances = {}
    stored = arrays.get("distances", arrays.get("ways"))  # "ways" in files of older versions
    if stored is not None:
        frames = arrays.get("snippet_frames", np.zeros(0))
        count = len(predicted)
        if frames.dtype.kind != "i" or frames.ndim != 2 or stored.shape != (count, frames.shape[1] - 1):
            raise InputError(
                f"{file}: distances of {[*stored.shape]} and snippet_frames of {[*frames.shape]}, "
                f"expected [{count}, n - 1] and whole numbers [{count}, n]"
            )
        distances = dict(zip(predicted, zip(frames.tolist(), stored, strict=True), strict=True))
    return Predictions(file, predicted, about), distances


def find_speed_scales(
    tests: dict[str, DepthTest], sets: Sets, distances: Distances, left_out: list[str], args: argparse.Namespace
) -> dict[str, dict[str, SpeedScale]]:
    """By test and image, the scale from the vehicle's speed, for the tests that take it.

    Without distances or OXTS it is an InputError, unless only --protocol all asked: then `tests` lose these.
    """
    scaled = {name: test for name, test in tests.items() if test.protocol.scaling == "speed"}
    scales: dict[str, dict[str, SpeedScale]] = {}
    try:
        for name, test in scaled.items():
            found = sets[test.images, test.ground_truth].found
            if not distances:
                raise InputError(f"{args.predictions}: holds no poses; predict with --scaling speed")
            true = [true_distances(args.kitti, image, distances[image][0]) for image in found]
            predicted = np.stack([distances[image][1] for image in found])
            scales[name] = dict(zip(found, speed_scales(found, true, predicted), strict=True))
    except InputError as error:
        if asks_for_speed(args):
            raise
        for name in scaled:
            del tests[name]
        if not any(line.startswith("scaling speed") for line in left_out):
            left_out.append(f"scaling speed: {error}")
        return {}
    return scales


def find_mean_map(about: dict, args: argparse.Namespace) -> tuple[np.ndarray | None, str]:
    """The mean depth map of the training set and a line on what it is of; or None and why there is none."""
    folder = args.training_data or about.get("training_data")
    if not isinstance(folder, str):
        return None, "none: the predictions don't say what the network was trained on (--training-data PREPARED)"
    try:
        mean, count = mean_depth_map(Path(folder), args.workers)
    except InputError as error:
        if args.training_data:
            raise
        return None, f"none: {error}; --training-data PREPARED names another"
    return mean, f"of {count} depth maps of {folder}"


# Results


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


def set_line(protocol: dict) -> str:
    """What many results have in common, in one line: images and ground truth."""
    images = protocol["images"]
    count = f"{images['found']} of {images['listed']} images found, {len(images['missing'])} missing"
    if images["missing"]:
        count = f"INCOMPLETE, NOT COMPARABLE WITH FIGURES OF THE WHOLE LIST: {count.upper()}"
    if "conversion" in images:
        count += f"; {images['conversion']}"
    return f"{images['list']}, {describe_truth(protocol['ground_truth'])}: {count}"


def result_rows(name: str, protocol: dict, short: bool) -> list[dict[str, str]]:
    """The lines of the table for one result: the network's and the baselines'; in short, one line with all."""
    factor = f"{protocol['scale']['median']:.4g} ({protocol['scale']['spread']:.3f})"
    figures = {metric: f"{protocol['metrics'][metric]:.4f}" for metric in METRICS}
    row = {"protocol": name} | figures | {"scale (spread)": factor}
    baselines = {key: protocol["baselines"][key] for key in BASELINES}
    if short:
        cells = {key: f"{metrics['abs_rel']:.4f}" if metrics else "-" for key, metrics in baselines.items()}
        return [row | {"mean map": cells["mean_map"], "constant": cells["best_constant"]}]
    return [row] + [
        {"protocol": f"  {TITLES[key]}"}
        | {metric: f"{metrics[metric]:.4f}" for metric in METRICS}
        | {"scale (spread)": ""}
        for key, metrics in baselines.items()
        if metrics
    ]


def draw_pictures(
    name: str, test: DepthTest, images: ImageSet, predictions: Predictions, scores: Scores, args: argparse.Namespace
) -> None:
    """The sheet of the best, median and worst images of a test."""
    of_images, found, places = scores[name]["network"], images.found, images.places()
    chosen = choose_rows([image["abs_rel"] for image in of_images], PICTURES_OF_EACH)
    labels, rows = [], []
    for kind, index in tqdm(chosen, desc="drawing", unit="image", leave=False, delay=2):
        image = found[index]
        truth = read_truth(args.kitti, image, test.ground_truth, places[image])
        pixels = read_image(find_image(args.kitti, image))
        rows.append(draw_row(pixels, predictions.depth[image], of_images[index]["scale"], truth, test))
        parts = image.split("/")
        where = image
        if len(parts) == 5:
            where = f"{parts[0]}\n{parts[1].removeprefix(f'{parts[0]}_').removesuffix('_sync')}\n{Path(image).stem}"
        labels.append(f"{kind}\nAbs Rel {of_images[index]['abs_rel']:.3f}\n\n{where}")
    title = f"{name}: {len(found)} images, mean Abs Rel {np.mean([image['abs_rel'] for image in of_images]):.4f}"
    write_sheet(args.pictures, title, labels, rows)
    print(f"pictures: {args.pictures}")


if __name__ == "__main__":
    run_script(main)
