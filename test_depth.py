"""Predict depth for a list of KITTI images, save the predictions, and score the saved file as the field publishes."""

import argparse
import time
from functools import lru_cache

import numpy as np
from path import Path
from tqdm import tqdm

from checkpoint import load_networks
from datasets.kitti import lidar_depth_map, read_raw_calibration, read_rigid_calibration, read_velodyne
from datasets.layout import depth_file, read_depth
from datasets.text import read_names
from errors import InputError
from evaluation.depth_metrics import (
    CROPS,
    METRICS,
    MIN_DEPTH,
    RESIZED,
    SCALINGS,
    DepthProtocol,
    image_metrics,
    mean_metrics,
)
from options import add_test_flags, choose_device, parse_test_flags, positive_float, run_script
from predictions import (
    check_writable,
    default_file,
    in_parallel,
    input_size,
    load_predictions,
    predict_depth,
    read_resized,
    save_predictions,
)
from report import table, write_json

EIGEN_TEST_FILES = Path(__file__).absolute().parent / "data/splits/eigen_test_files.txt"
TRUTHS = {
    "velodyne_x": "the LiDAR's x, as published",
    "camera_z": "LiDAR, true depth along the camera's axis",
    "npy": "stored .npy beside the images",
}
SIDES = {"l": "image_02", "r": "image_03"}

DESCRIPTION = """\
Predict depth for a list of KITTI images, save the predictions, and score them from the saved file.

  python test_depth.py runs/my_run/last.pt --kitti KITTI_RAW
      predicts and scores the 697 images of the Eigen split
  python test_depth.py --predictions runs/my_run/last_depth.npz --kitti KITTI_RAW --ground-truth camera_z
      scores again without a network
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--kitti", type=Path, required=True, metavar="KITTI_RAW", help="folder that the list's names are relative to"
    )
    parser.add_argument(
        "--list",
        type=Path,
        default=EIGEN_TEST_FILES,
        metavar="FILE",
        help="images, one a line: DATE/DRIVE/image_02/data/0000000069.png or DATE/DRIVE 69 l (default: the 697 of the "
        "Eigen split)",
    )

    scoring = parser.add_argument_group("how predictions are scored")
    scoring.add_argument(
        "--ground-truth",
        choices=TRUTHS,
        default="velodyne_x",
        help="; ".join(f"{name}: {meaning}" for name, meaning in TRUTHS.items()) + " (default: velodyne_x)",
    )
    scoring.add_argument(
        "--cap",
        type=cap,
        nargs="+",
        default=[80.0, 50.0],
        metavar="METRES",
        help="farthest depth that counts, one or more (default: 80 50, both of the paper's)",
    )
    scoring.add_argument("--crop", choices=CROPS, default="garg", help="part of the image that counts (default: garg)")
    scoring.add_argument(
        "--scaling", choices=SCALINGS, default="median", help="of each prediction to the truth (default: median)"
    )
    scoring.add_argument(
        "--resize", choices=RESIZED, default="depth", help="what is resized to the truth's size (default: depth)"
    )
    scoring.add_argument(
        "--allow-missing", action="store_true", help="go on without the images or scans that are not there"
    )
    add_test_flags(parser, "depth")
    return parse_test_flags(parser)


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
    listed = read_image_list(args.list)
    names, missing = find_images(listed, args)

    file, seconds = args.predictions, {}
    if args.checkpoint:
        file = args.save or default_file(args.checkpoint, "depth")
        check_writable(file, "--save")
        seconds["predicting_per_image"] = predict(names, file, args) / len(names)
    depth, about = load_depth(file, names, listed)

    start = time.perf_counter()
    protocols = [DepthProtocol(metres, args.crop, args.scaling, args.resize) for metres in args.cap]
    scores = score(names, depth, protocols, file, args)
    seconds["scoring_per_image"] = (time.perf_counter() - start) / len(names)

    counts = {"listed": len(listed), "found": len(names), "missing": missing}
    result = summarise(protocols, scores, counts, args)
    result |= {"predictions": {"file": str(file), **about}, "seconds": seconds}
    print_result(result)
    if args.json:
        write_json(args.json, result)


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


def find_images(listed: list[str], args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The listed images whose files are all there, and the files that are missing for the others."""
    found, missing = [], []
    for name in listed:
        needed = [] if args.predictions else [args.kitti / name]
        needed += truth_files(args.kitti, name, args.ground_truth)
        absent = next((file for file in needed if not file.is_file()), None)
        if absent is None:
            found.append(name)
        else:
            missing.append(str(absent))
    if missing and not (args.allow_missing and found):
        raise InputError(
            f"{missing[0]}: no such file; of the {len(listed)} images of {args.list}, {len(missing)} lack their image, "
            f"LiDAR scan or calibration" + ("; --allow-missing scores the others" if found else "")
        )
    return found, missing


def truth_files(kitti: Path, name: str, kind: str) -> list[Path]:
    """The files that the ground truth of an image is made from."""
    if kind == "npy":
        return [depth_file(kitti / name)]
    date, drive, _, frame = split_name(name)
    return [
        kitti / date / drive / "velodyne_points/data" / f"{frame}.bin",
        kitti / date / "calib_velo_to_cam.txt",
        kitti / date / "calib_cam_to_cam.txt",
    ]


def split_name(name: str) -> tuple[str, str, str, str]:
    """(date, drive, camera, frame) of DATE/DRIVE/image_CAMERA/data/FRAME.png; the camera is "02" or "03"."""
    parts = name.split("/")
    if len(parts) != 5 or parts[2] not in SIDES.values() or parts[3] != "data":
        raise InputError(
            f"{name}: not the name of a KITTI raw image, expected DATE/DRIVE/image_02/data/FRAME.png (or image_03); "
            "for images with stored depth use --ground-truth npy"
        )
    return parts[0], parts[1], parts[2].removeprefix("image_"), Path(parts[4]).stem


def predict(names: list[str], file: Path, args: argparse.Namespace) -> float:
    """Save the network's depth of each image: `files` [N], `depth` float32 [N, height, width] = 1 / disparity.

    Returns the seconds it took, reading the images included, loading the network not.
    """
    device = choose_device(args.device)
    networks = load_networks(args.checkpoint, device)
    if networks.disp_net is None:
        raise InputError(f"{args.checkpoint}: holds no depth network (DispNet), only a pose network")
    height, width = input_size((args.height, args.width), (networks.height, networks.width))
    images = in_parallel(lambda name: read_resized(args.kitti / name, height, width), names, args.workers)
    start = time.perf_counter()
    depth = predict_depth(networks.disp_net, images, len(names), args.batch_size, device)
    seconds = time.perf_counter() - start
    about = {"checkpoint": str(args.checkpoint), "step": networks.step, "height": height, "width": width}
    save_predictions(file, "depth", {"files": np.array(names), "depth": depth}, about)
    print(f"predictions: {file}")
    return seconds


def load_depth(file: Path, names: list[str], listed: list[str]) -> tuple[dict[str, np.ndarray], dict]:
    """Predictions by image name, and how they were made; InputError unless the file fits the list."""
    arrays, about = load_predictions(file, "depth")
    files, depth = arrays.get("files"), arrays.get("depth")
    if files is None or depth is None or files.dtype.kind != "U" or files.ndim != 1:
        raise InputError(f"{file}: expected arrays 'files' (names) and 'depth', found {', '.join(sorted(arrays))}")
    if depth.ndim != 3 or depth.dtype.kind != "f" or len(depth) != len(files):
        raise InputError(f"{file}: depth is {depth.dtype} {[*depth.shape]}, expected [{len(files)}, height, width]")
    predicted = dict(zip(files.tolist(), depth, strict=True))
    absent = [name for name in names if name not in predicted]
    surplus = sorted(predicted.keys() - set(listed))
    if absent or surplus:
        example = f"{absent[0]} is not predicted" if absent else f"{surplus[0]} is not listed"
        raise InputError(
            f"{file}: predictions of {len(predicted)} images do not fit the list of {len(listed)}: {example} "
            f"({len(absent)} lack a prediction, {len(surplus)} are not listed)"
        )
    return predicted, about


def score(
    names: list[str], depth: dict[str, np.ndarray], protocols: list[DepthProtocol], file: Path, args: argparse.Namespace
) -> list[list[dict[str, float]]]:
    """Metrics of each image by each protocol. Ground truth is made and used in one thread, and not kept."""

    def score_image(item: tuple[int, str]) -> list[dict[str, float]]:
        index, name = item
        truth = ground_truth(args.kitti, name, args.ground_truth)
        where = f"{file}, prediction {index} ({name})"
        return [image_metrics(depth[name], truth, protocol, where) for protocol in protocols]

    results = in_parallel(score_image, list(enumerate(names)), args.workers)
    return list(tqdm(results, total=len(names), desc="scoring", unit="image"))


def ground_truth(kitti: Path, name: str, kind: str) -> np.ndarray:
    """Depth [H, W] of an image in metres, 0 = unknown, at the size that KITTI recorded it at."""
    if kind == "npy":
        return read_depth(depth_file(kitti / name))
    date, _, camera, _ = split_name(name)
    velo_to_cam, cam_to_cam = cached_calibration(kitti / date, camera)
    # Not the image's own size: an image that was resized beforehand is judged on the same pixels as the original.
    width, height = cam_to_cam[f"S_rect_{camera}"]
    scan = truth_files(kitti, name, kind)[0]
    return lidar_depth_map(
        read_velodyne(scan), velo_to_cam, cam_to_cam, camera, shape=(round(height), round(width)), kind=kind
    )


@lru_cache
def cached_calibration(date_folder: Path, camera: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return read_rigid_calibration(date_folder / "calib_velo_to_cam.txt"), read_raw_calibration(date_folder, camera)


def summarise(
    protocols: list[DepthProtocol], scores: list[list[dict[str, float]]], counts: dict, args: argparse.Namespace
) -> dict:
    """The result for machines: a line and the parts of the protocol, and the figures by each cap."""
    results = []
    for protocol, per_image in zip(protocols, zip(*scores, strict=True), strict=True):
        scales = np.array([image["scale"] for image in per_image])
        scale = float(np.median(scales))
        # The spread over the images, as a share of the median: how consistent the network's unit is.
        spread = float(np.std(scales / scale))
        results.append({"cap": protocol.cap, **mean_metrics(per_image), "scale": scale, "scale_spread": spread})
    images = f"{counts['found']} of {counts['listed']} images of {args.list.name} found"
    images += f", {len(counts['missing'])} missing"
    if counts["missing"]:
        images = f"INCOMPLETE, NOT COMPARABLE WITH FIGURES OF THE WHOLE LIST: {images.upper()}"
    caps = " and ".join(f"{protocol.cap:g}" for protocol in protocols)
    line = (
        f"protocol: {images}; ground truth: {TRUTHS[args.ground_truth]}; crop: {args.crop}; scaling: "
        f"{'median per image' if args.scaling == 'median' else args.scaling}; resized to the truth's size: "
        f"{args.resize}; cap: {caps} m"
    )
    protocol_parts = {
        "line": line,
        "list": str(args.list),
        "ground_truth": args.ground_truth,
        "crop": args.crop,
        "scaling": args.scaling,
        "resized": args.resize,
    }
    return {"protocol": protocol_parts, "images": counts, "results": results}


def print_result(result: dict) -> None:
    rows = [
        {"cap": f"{row['cap']:g} m"}
        | {name: f"{row[name]:.4f}" for name in METRICS}
        | {"scale (spread)": f"{row['scale']:.4g} ({row['scale_spread']:.3f})"}
        for row in result["results"]
    ]
    print(f"\n{result['protocol']['line']}\n\n{table(rows)}\n")
    print(", ".join(f"{part.replace('_', ' ')} {1000 * value:.1f} ms" for part, value in result["seconds"].items()))


if __name__ == "__main__":
    run_script(main)
