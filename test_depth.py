"""Predict depth for a list of KITTI images, save the predictions, and score the saved file as the field publishes."""

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from path import Path
from tqdm import tqdm

from baselines import mean_depth_map
from cache import default_cache
from checkpoint import Networks, load_networks
from datasets.text import read_names
from errors import InputError
from evaluation.depth_metrics import (
    CROPS,
    METRICS,
    MIN_DEPTH,
    RESIZED,
    SCALINGS,
    best_constant,
    check_counted,
    check_prediction,
    constant_weights,
    counted_pixels,
    mean_metrics,
    median_ratio,
    resized_depth,
    scaled_errors,
)
from evaluation.depth_protocols import LISTED, PROTOCOLS, DepthTest, matrix, name_of, vary
from ground_truth import TRUTHS, read_truth, truth_files
from options import add_test_flags, choose_device, parse_test_flags, positive_float, run_script
from overlap import check_overlap, trained_scenes
from predictions import (
    check_writable,
    default_file,
    in_parallel,
    input_size,
    load_depth,
    predict_depth,
    read_resized,
    save_predictions,
)
from report import table, write_json

SPLITS = Path(__file__).absolute().parent / "data/splits"
LISTS = {"eigen": SPLITS / "eigen_test_files.txt", "benchmark": SPLITS / "eigen_benchmark_test_files.txt"}
SIDES = {"l": "image_02", "r": "image_03"}
SCALED = {
    "median": "median per image",
    "global": "one for the whole set, the median of the images' ratios",
    "none": "none",
    "speed": "from the vehicle's speed by way of the pose network",
}
BASELINES = {"mean_map": "mean depth map of the training set", "best_constant": "best constant"}

DESCRIPTION = """\
Predict depth for a list of KITTI images, save the predictions, and score them from the saved file.

  python test_depth.py runs/my_run/last.pt --kitti KITTI_RAW
      predicts and scores the 697 images of the Eigen split, as in the paper, with both of its caps
  python test_depth.py --predictions runs/my_run/last_depth.npz --kitti KITTI_RAW --protocol improved
      scores again without a network, against KITTI's improved depth maps
  python test_depth.py --predictions runs/my_run/last_depth.npz --kitti KITTI_RAW --protocol all --json all.json
      every way of comparing that the files allow
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
        choices=TRUTHS,
        nargs="+",
        metavar="KIND",
        help="; ".join(f"{name}: {meaning}" for name, meaning in TRUTHS.items()),
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
    parser.add_argument(
        "--training-data",
        type=Path,
        metavar="PREPARED",
        help="prepared with --with-depth, for the mean depth map of the training set (default: what the checkpoint was "
        "trained on, where it is still there)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=default_cache(),
        metavar="FOLDER",
        help="where true depth maps and mean depth maps are kept; each is made anew when what it is made from has "
        f"changed (default: {default_cache()})",
    )
    parser.add_argument(
        "--no-cache", dest="cache", action="store_const", const=None, help="make all anew, keep nothing"
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="go on without the images or scans that are not there"
    )
    add_test_flags(parser, "depth")
    args = parse_test_flags(parser)
    for name in args.protocol:
        if name != "all" and PROTOCOLS[name].images == LISTED and args.list is None:
            parser.error(f"--protocol {name} has no list of its own: give --list FILE")
    return args


def cap(text: str) -> float:
    metres = positive_float(text)
    if metres <= MIN_DEPTH:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected metres above {MIN_DEPTH:g}")
    return metres


def main() -> None:
    args = parse_arguments()
    if args.json:
        check_writable(args.json, "--json")
    if not args.kitti.is_dir():
        raise InputError(f"--kitti {args.kitti}: no such folder")
    tests, sets, left_out = choose_tests(args)
    names = list(dict.fromkeys(name for images in sets.values() for name in images.found))

    file, seconds = args.predictions, {}
    if args.checkpoint:
        file = args.save or default_file(args.checkpoint, "depth")
        check_writable(file, "--save")
        seconds["predicting_per_image"] = predict(names, file, args) / len(names)
    predictions = load_listed(file, names, sets)
    trained = trained_scenes(predictions.about)
    overlap = check_overlap(file, trained, names, args.kitti, args.allow_training_overlap)

    mean_map, about_mean_map = find_mean_map(predictions.about, args)
    start = time.perf_counter()
    scores = score(names, tests, sets, predictions, mean_map, args)
    seconds["scoring_per_image"] = (time.perf_counter() - start) / len(names)

    result = {
        "protocols": {name: summarise(name, test, sets, scores[name]) for name, test in tests.items()},
        "left_out": left_out,
        "training_overlap": overlap,
        "mean_map": about_mean_map,
        "predictions": {"file": str(file), **predictions.about},
        "seconds": seconds,
    }
    print_result(result)
    if args.json:
        write_json(args.json, result)


# Which images, which protocols


@dataclass(frozen=True)
class ImageSet:
    """The images of a list whose files are all there, and for each of the others the first file that it lacks."""

    listed: list[str]
    found: list[str]
    missing: list[str]


Sets = dict[tuple[str, str], ImageSet]  # by images and ground truth, as in `DepthTest`


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
        every = vary(matrix(sets, ["median", "global", "none"]), **parts)
        tests = list(dict.fromkeys([*tests, *named, *every]))
    return {name_of(test): test for test in tests}, sets, left_out


def all_kinds(kitti: Path) -> list[str]:
    """The kinds of ground truth that may be there: pictures of depth are a synthetic world's or KITTI's, not both."""
    other = "improved" if (kitti.absolute().parent / "world.json").is_file() else "dense"
    return [kind for kind in TRUTHS if kind != other]


def find_images(images: str, truth: str, args: argparse.Namespace) -> ImageSet:
    listed = read_image_list(LISTS.get(images, Path(images)))
    found, missing = [], []
    for name in listed:
        needed = [] if args.predictions else [args.kitti / name]
        needed += truth_files(args.kitti, name, truth)
        absent = next((file for file in needed if not file.is_file()), None)
        if absent is None:
            found.append(name)
        else:
            missing.append(str(absent))
    return ImageSet(listed, found, missing)


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


def read_image_list(file: Path) -> list[str]:
    """The images of a list as paths relative to KITTI raw; both forms that the field's lists have."""
    names = []
    for line in read_names(file):
        words = line.split()
        if len(words) == 1:
            names.append(line)
        elif len(words) == 3 and words[1].isdecimal() and words[2] in SIDES:
            names.append(f"{words[0]}/{SIDES[words[2]]}/data/{int(words[1]):010d}.png")
        else:
            raise InputError(f"{file}: {line!r} is not an image's path nor 'DATE/DRIVE FRAME l' (or r)")
    if not names:
        raise InputError(f"{file}: the list is empty, expected the path of an image on each line")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{file}: lists {twice} twice, expected each image once")
    return names


# Predictions


@dataclass(frozen=True)
class Predictions:
    """What a file of predictions holds."""

    file: Path
    depth: dict[str, np.ndarray]  # [h, w] by the image's name
    about: dict


def predict(names: list[str], file: Path, args: argparse.Namespace) -> float:
    """Save the network's depth of each image: `files` [N], `depth` float32 [N, height, width] = 1 / disparity.

    Returns the seconds it took, reading the images included, loading the network not.
    """
    device = choose_device(args.device)
    networks = load_networks(args.checkpoint, device)
    if networks.disp_net is None:
        raise InputError(f"{args.checkpoint}: holds no depth network (DispNet), only a pose network")
    trained = trained_scenes(networks.config)
    check_overlap(args.checkpoint, trained, names, args.kitti, args.allow_training_overlap)
    height, width = input_size((args.height, args.width), (networks.height, networks.width))
    images = in_parallel(lambda name: read_resized(args.kitti / name, height, width), names, args.workers)
    start = time.perf_counter()
    depth = predict_depth(networks.disp_net, images, len(names), args.batch_size, device)
    seconds = time.perf_counter() - start
    about = {
        "checkpoint": str(args.checkpoint),
        "step": networks.step,
        "height": height,
        "width": width,
        "training_data": training_data(networks),
        "scenes": trained,
    }
    save_predictions(file, "depth", {"files": np.array(names), "depth": depth}, about)
    print(f"predictions: {file}")
    return seconds


def training_data(networks: Networks) -> str | None:
    """The prepared data set that a network was trained on, as far as its checkpoint says."""
    folder = networks.config.get("data")
    return str(Path(folder).absolute()) if isinstance(folder, str) else None


def load_listed(file: Path, names: list[str], sets: Sets) -> Predictions:
    """Predictions by image name, and how they were made; InputError unless the file fits the lists."""
    predicted, about = load_depth(file)
    listed = {name for images in sets.values() for name in images.listed}
    if any(images in LISTS for images, _ in sets):  # of predictions of all 697, the 652 may be scored alone
        listed.update(read_image_list(LISTS["eigen"]))
    absent = [name for name in names if name not in predicted]
    surplus = sorted(predicted.keys() - listed)
    if absent or surplus:
        example = f"{absent[0]} is not predicted" if absent else f"{surplus[0]} is not listed"
        raise InputError(
            f"{file}: predictions of {len(predicted)} images do not fit the list of {len(listed)}: {example} "
            f"({len(absent)} lack a prediction, {len(surplus)} are not listed)"
        )
    return Predictions(file, predicted, about)


def find_mean_map(about: dict, args: argparse.Namespace) -> tuple[np.ndarray | None, str]:
    """The mean depth map of the training set and a line on what it is of; or None and why there is none."""
    folder = args.training_data or about.get("training_data")
    if not isinstance(folder, str):
        return None, "none: the predictions don't say what the network was trained on (--training-data PREPARED)"
    try:
        mean, count = mean_depth_map(Path(folder), args.workers, args.cache)
    except InputError as error:
        if args.training_data:
            raise
        return None, f"none: {error}; --training-data PREPARED names another"
    return mean, f"of {count} depth maps of {folder}"


# Scores

Scores = dict[str, dict[str, list[dict[str, float]]]]  # by test and method ("network" or a baseline), of each image


def score(
    names: list[str],
    tests: dict[str, DepthTest],
    sets: Sets,
    predictions: Predictions,
    mean_map: np.ndarray | None,
    args: argparse.Namespace,
) -> Scores:
    """Metrics of each image by each test, in the order of its list."""
    baselines = {"best_constant": np.ones((1, 1))} | ({} if mean_map is None else {"mean_map": mean_map})
    members = {pair: set(images.found) for pair, images in sets.items()}

    def compare(item: tuple[int, str], chosen: dict[str, DepthTest]) -> Iterator[tuple[str, np.ndarray, dict]]:
        """For each of the chosen tests: the true depths that count, and by method the predicted ones."""
        index, name = item
        where = f"{predictions.file}, prediction {index} ({name})"
        depth = predictions.depth[name]
        check_prediction(depth, where)
        methods = {"network": depth} | baselines
        truths, counted, resized = {}, {}, {}
        for test_name, test in chosen.items():
            if name not in members[test.images, test.ground_truth]:
                continue
            protocol, kind = test.protocol, test.ground_truth
            if kind not in truths:
                truths[kind] = read_truth(args.kitti, name, kind, args.cache)
            pixels = (kind, protocol.crop, protocol.cap, protocol.beyond_cap)
            if pixels not in counted:
                counted[pixels] = counted_pixels(truths[kind], protocol)
                check_counted(counted[pixels], protocol, where)
            for method, predicted in methods.items():
                if (kind, protocol.resized, method) not in resized:
                    resized[kind, protocol.resized, method] = resized_depth(predicted, truths[kind], protocol.resized)
            chosen_depths = {method: resized[kind, protocol.resized, method][counted[pixels]] for method in methods}
            yield test_name, truths[kind].depth[counted[pixels]], chosen_depths

    def statistics(item: tuple[int, str]) -> dict[str, tuple[dict[str, float], np.ndarray]]:
        return {
            test: ({method: median_ratio(truth, depth) for method, depth in depths.items()}, constant_weights(truth))
            for test, truth, depths in compare(item, needing_statistics)
        }

    def score_image(item: tuple[int, str]) -> dict[str, dict[str, dict[str, float]]]:
        result: dict[str, dict[str, dict[str, float]]] = {}
        for test, truth, depths in compare(item, tests):
            protocol = tests[test].protocol
            result[test] = {}
            for method, depth in depths.items():
                ratio = median_ratio(truth, depth)
                scale = ratio if protocol.scaling == "median" else scales[test][method]
                result[test][method] = scaled_errors(truth, depth, scale, protocol.cap) | {"ratio": ratio}
        return result

    items = list(enumerate(names))
    needing_statistics = {name: test for name, test in tests.items() if test.protocol.scaling != "median"}
    scales: dict[str, dict[str, float]] = {}
    if needing_statistics:
        found = in_parallel(statistics, items, args.workers)
        passed = list(tqdm(found, total=len(names), desc="finding scales", unit="image"))
        for name, test in needing_statistics.items():
            of_images = [image[name] for image in passed if name in image]
            if test.protocol.scaling == "global":
                ratios = {method: [ratio[method] for ratio, _ in of_images] for method in of_images[0][0]}
                scales[name] = {method: float(np.median(values)) for method, values in ratios.items()}
            else:
                weights = np.sum([weights for _, weights in of_images], axis=0)
                scales[name] = {"network": 1.0, "mean_map": 1.0, "best_constant": best_constant(weights)}
    per_image = list(
        tqdm(in_parallel(score_image, items, args.workers), total=len(names), desc="scoring", unit="image")
    )
    by_name = dict(zip(names, per_image, strict=True))
    return {
        name: {
            method: [by_name[image][name][method] for image in sets[test.images, test.ground_truth].found]
            for method in ["network", *baselines]
        }
        for name, test in tests.items()
    }


# Results


def summarise(name: str, test: DepthTest, sets: Sets, scores: dict[str, list[dict[str, float]]]) -> dict:
    """The result of a test for machines: its line, its parts and its figures."""
    images = sets[test.images, test.ground_truth]
    listed = LISTS.get(test.images, Path(test.images)).name
    count = f"{len(images.found)} of {len(images.listed)} images of {listed} found, {len(images.missing)} missing"
    if images.missing:
        count = f"INCOMPLETE, NOT COMPARABLE WITH FIGURES OF THE WHOLE LIST: {count.upper()}"
    protocol = test.protocol
    line = (
        f"{name}: {count}; ground truth: {TRUTHS[test.ground_truth]}; crop: {protocol.crop}; "
        f"cap: {protocol.cap:g} m{' (farther ground truth counts, too)' if protocol.beyond_cap else ''}; "
        f"scaling: {SCALED[protocol.scaling]}; resized to the truth's size: {protocol.resized}"
    )
    # Of one scale for the whole set, mean and spread are those of the images' own.
    which = "ratio" if protocol.scaling == "global" else "scale"
    scales = np.array([image[which] for image in scores["network"]])
    scale = {
        "median": float(np.median(scales)),
        "mean": float(np.mean(scales)),
        # Over the images, as a share of the median: how consistent the network's unit is.
        "spread": float(np.std(scales / np.median(scales))),
    }
    baselines = {method: mean_metrics(scores[method]) if method in scores else None for method in BASELINES}
    return {
        "line": line,
        "images": {
            "list": listed,
            "listed": len(images.listed),
            "found": len(images.found),
            "missing": images.missing,
        },
        "ground_truth": test.ground_truth,
        **asdict(protocol),
        "metrics": mean_metrics(scores["network"]),
        "scale": scale,
        "pixels_per_image": float(np.mean([image["pixels"] for image in scores["network"]])),
        "baselines": baselines,
    }


def print_result(result: dict) -> None:
    rows: list[dict[str, str]] = []
    for name, protocol in result["protocols"].items():
        print(f"\n{protocol['line']}" if not rows else protocol["line"])
        scale = protocol["scale"]
        methods = {name: protocol["metrics"]}
        methods |= {f"  {BASELINES[key]}": metrics for key, metrics in protocol["baselines"].items() if metrics}
        for title, metrics in methods.items():
            factor = f"{scale['median']:.4g} ({scale['spread']:.3f})" if title == name else ""
            row = {metric: f"{metrics[metric]:.4f}" for metric in METRICS}
            rows.append({"protocol": title} | row | {"scale (spread)": factor})
    print(f"{result['training_overlap']['line']}\n\n{table(rows)}\n")
    for line in result["left_out"]:
        print(f"left out: {line}")
    print(f"mean depth map of the training set: {result['mean_map']}")
    print(", ".join(f"{part.replace('_', ' ')} {1000 * value:.1f} ms" for part, value in result["seconds"].items()))


if __name__ == "__main__":
    run_script(main)
