"""Predict the camera's motion in snippets of KITTI odometry, save the predictions, and score the saved file."""

import argparse
import time
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from path import Path
from torch import Tensor
from tqdm import tqdm

from checkpoint import load_networks
from datasets.images import to_network_input
from datasets.kitti import read_poses
from errors import InputError
from evaluation.pose_metrics import snippet_ate, snippet_rotation_error, snippets, straight_line
from geometry.pose import pose_to_matrix, snippet_poses
from loss_functions import split_snippet
from models import PoseExpNet
from options import add_test_flags, choose_device, parse_test_flags, run_script
from overlap import check_overlap, trained_scenes
from predictions import (
    check_writable,
    default_file,
    in_parallel,
    input_size,
    load_predictions,
    read_resized,
    save_predictions,
)
from report import table, write_json

CAMERAS = {"image_2": "image_2", "image_0": "image_0, grey"}  # the left ones, in order of preference
DESCRIPTION = """\
Predict the camera's motion in snippets of KITTI odometry, save the predictions, and score them from the saved file.
Whether a snippet has 3 or 5 frames, the checkpoint says.

  python test_pose.py runs/my_run/last.pt --kitti KITTI_ODOMETRY
      predicts and scores every snippet of sequences 09 and 10
  python test_pose.py --predictions runs/my_run/last_pose.npz --kitti KITTI_ODOMETRY
      scores again without a network
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--kitti", type=Path, required=True, metavar="KITTI_ODOMETRY", help="folder with sequences/ and poses/"
    )
    parser.add_argument(
        "--sequences",
        nargs="+",
        metavar="NN",
        help="which sequences (default: 09 10; with --predictions: those in the file)",
    )
    add_test_flags(parser, "pose")
    args = parse_test_flags(parser)
    if args.sequences and len(set(args.sequences)) < len(args.sequences):
        parser.error(f"--sequences {' '.join(args.sequences)}: names a sequence twice")
    if not all(map(is_sequence_name, args.sequences or [])):
        parser.error(f"--sequences {' '.join(args.sequences)}: expected names such as 09, not paths")
    return args


def is_sequence_name(name: str) -> bool:
    """Whether it names a folder, and not a way out of one."""
    return bool(name) and not set("/\\\0") & set(name) and name not in (".", "..")


def main() -> None:
    args = parse_arguments()
    if args.json:
        check_writable(args.json, "--json")
    if not args.kitti.is_dir():
        raise InputError(f"--kitti {args.kitti}: no such folder")
    file, seconds = args.predictions, {}
    if args.checkpoint:
        file = args.save or default_file(args.checkpoint, "pose")
        check_writable(file, "--save")
        seconds["predicting_per_snippet"] = predict(args.sequences or ["09", "10"], file, args)
    predicted, about = load_snippets(file, args.sequences)
    overlap = check_overlap(file, trained_scenes(about), predicted, args.kitti, args.allow_training_overlap)

    results = []
    for sequence, poses in predicted.items():
        try:
            results.append({"sequence": sequence, **score(poses, true_snippets(args.kitti, sequence, poses))})
        except InputError as error:
            raise InputError(f"{file}, sequence {sequence}: {error}") from None
    result = summarise(results, about)
    result |= {"training_overlap": overlap, "predictions": {"file": str(file), **about}, "seconds": seconds}
    print_result(result)
    if args.json:
        write_json(args.json, result)


def predict(sequences: list[str], file: Path, args: argparse.Namespace) -> float:
    """Save the network's poses in every snippet of the sequences; returns the seconds a snippet took.

    The file holds `snippets_NN` float64 [N, n, 3, 4] for each sequence NN: first_from_frame, in the network's unit.
    """
    cameras = {name: find_images(args.kitti, name) for name in sequences}  # all looked at before the first is predicted
    device = choose_device(args.device)
    networks = load_networks(args.checkpoint, device)
    if networks.pose_exp_net is None:
        raise InputError(f"{args.checkpoint}: holds no pose network (PoseExpNet), only a depth network")
    trained = trained_scenes(networks.config)
    check_overlap(args.checkpoint, trained, sequences, args.kitti, args.allow_training_overlap)
    frames = networks.pose_exp_net.sources + 1
    if frames % 2 == 0:
        raise InputError(f"{args.checkpoint}: a pose network of {frames} frames, expected an odd number")
    height, width = input_size((args.height, args.width), (networks.height, networks.width))
    arrays, start = {}, time.perf_counter()
    for name, images in cameras.items():
        if len(images) < frames:
            raise InputError(f"sequence {name}: {len(images)} images, too few for a snippet of {frames} frames")
        with tqdm(total=len(images) - frames + 1, desc=f"{name} on {device}", unit="snippet") as progress:
            resized = in_parallel(lambda file: read_resized(file, height, width), images, args.workers)
            batches = []
            for batch in overlapping_batches(resized, args.batch_size, frames):
                images_on_device = torch.from_numpy(batch).to(device)
                batches.append(predict_snippets(networks.pose_exp_net, images_on_device, networks.rotation).numpy())
                progress.update(len(batches[-1]))
            arrays[f"snippets_{name}"] = np.concatenate(batches)
    seconds = time.perf_counter() - start
    about = {
        "checkpoint": str(args.checkpoint),
        "step": networks.step,
        "height": height,
        "width": width,
        "cameras": {name: str(images[0].parent.name) for name, images in cameras.items()},
        "scenes": trained,
    }
    save_predictions(file, "snippets", arrays, about)
    print(f"predictions: {file}")
    return seconds / sum(map(len, arrays.values()))


def find_images(kitti: Path, sequence: str) -> list[Path]:
    """A sequence's frames: the left colour camera, or the left grey one where there is no colour."""
    folder = kitti / "sequences" / sequence
    if not folder.is_dir():
        raise InputError(f"{folder}: no such sequence")
    for camera in CAMERAS:
        if (folder / camera).is_dir():
            images = sorted((folder / camera).files("*.png")) or sorted((folder / camera).files("*.jpg"))
            if images:
                break
    else:
        raise InputError(f"{folder}: no images in image_2 (colour) or image_0 (grey)")
    count = len(read_poses(pose_file(kitti, sequence)))
    if len(images) != count:
        raise InputError(f"{pose_file(kitti, sequence)}: {count} poses for {len(images)} images in {images[0].parent}")
    return images


def pose_file(kitti: Path, sequence: str) -> Path:
    return kitti / "poses" / f"{sequence}.txt"


def overlapping_batches(images: Iterator[np.ndarray], snippets: int, frames: int) -> Iterator[np.ndarray]:
    """Neighbouring images stacked for `snippets` snippets at a time (fewer at the end); each image is read once."""
    window = list(islice(images, frames - 1))
    while new := list(islice(images, snippets)):
        window += new
        yield np.stack(window)
        window = window[len(new) :]


@torch.inference_mode()
def predict_snippets(network: PoseExpNet, images: Tensor, rotation: str) -> Tensor:
    """Poses in all snippets of neighbouring frames.

    Args:
        images: uint8 [F, 3, H, W], in order of time.

    Returns:
        first_from_frame float64 [F - n + 1, n, 3, 4] on the CPU, n = network.sources + 1.
    """
    frames = to_network_input(images).unfold(0, network.sources + 1, 1).movedim(-1, 1)  # [N, n, 3, H, W], a view
    poses, _ = network(*split_snippet(frames))
    return snippet_poses(pose_to_matrix(poses.cpu().double(), rotation))[..., :3, :]


def load_snippets(file: Path, sequences: list[str] | None) -> tuple[dict[str, np.ndarray], dict]:
    """Predicted snippets by sequence, and how they were made; InputError if the file lacks one or has other shapes."""
    arrays, about = load_predictions(file, "snippets")
    predicted = {name.removeprefix("snippets_"): poses for name, poses in arrays.items()}
    for name in sequences or predicted:
        if not is_sequence_name(name):
            raise InputError(f"{file}: {name!r} is not the name of a sequence, expected 00, 01, ...")
        if name not in predicted:
            raise InputError(f"{file}: no predictions of sequence {name}, only of {', '.join(sorted(predicted))}")
        poses = predicted[name]
        if poses.ndim != 4 or poses.shape[1] < 2 or poses.shape[2:] != (3, 4) or poses.dtype.kind != "f":
            raise InputError(f"{file}: sequence {name} is {poses.dtype} {[*poses.shape]}, expected [N, frames, 3, 4]")
    if not predicted:
        raise InputError(f"{file}: holds no snippets")
    return {name: predicted[name] for name in sequences or sorted(predicted)}, about


def true_snippets(kitti: Path, sequence: str, predicted: np.ndarray) -> np.ndarray:
    """Ground truth of the same shape as the predictions [N, n, 3, 4]; InputError if the sequence is not as long."""
    world_from_camera = read_poses(pose_file(kitti, sequence))
    expected = len(world_from_camera) - predicted.shape[1] + 1
    if len(predicted) != expected:
        raise InputError(
            f"{len(predicted)} snippets of {predicted.shape[1]} frames, but the {len(world_from_camera)} poses in "
            f"{pose_file(kitti, sequence)} make {max(expected, 0)}"
        )
    return snippets(world_from_camera, predicted.shape[1])


def score(predicted: np.ndarray, truth: np.ndarray) -> dict:
    """Mean and standard deviation over the snippets: the network's ATE and rotation error, and a straight line's."""
    line = straight_line(*truth.shape[:2])
    errors = {
        "ate": snippet_ate(truth, predicted),
        "rotation_error": snippet_rotation_error(truth, predicted),
        "straight_line_ate": snippet_ate(truth, line),
        "straight_line_rotation_error": snippet_rotation_error(truth, line),
    }
    return {"snippets": len(truth), "frames": truth.shape[1]} | {
        name: {"mean": float(error.mean()), "std": float(error.std())} for name, error in errors.items()
    }


def summarise(results: list[dict], about: dict) -> dict:
    """The result for machines: a line and the parts of the protocol, and the figures of each sequence."""
    cameras = about.get("cameras")
    cameras = cameras if isinstance(cameras, dict) else {}  # the file may be another method's
    counted = ", ".join(
        f"{result['sequence']} ({CAMERAS.get(str(cameras.get(result['sequence'])), 'camera unknown')}, "
        f"{result['snippets']} snippets of {result['frames']} frames)"
        for result in results
    )
    line = (
        f"protocol: KITTI odometry {counted}; ground truth: camera 0; scale: fitted per snippet; ATE: norm divided by "
        "the number of frames, as published"
    )
    protocol = {"line": line, "ground_truth": "camera 0", "scale": "per snippet", "ate": "norm / frames"}
    return {"protocol": protocol, "results": results}


def print_result(result: dict) -> None:
    def cell(error: dict[str, float]) -> str:
        return f"{error['mean']:.4f} ± {error['std']:.4f}"

    rows = [
        {
            "sequence": row["sequence"],
            "ATE (m)": cell(row["ate"]),
            "rotation (rad)": cell(row["rotation_error"]),
            "straight line ATE (m)": cell(row["straight_line_ate"]),
            "its rotation (rad)": cell(row["straight_line_rotation_error"]),
        }
        for row in result["results"]
    ]
    print(f"\n{result['protocol']['line']}\n{result['training_overlap']['line']}\n\n{table(rows)}\n")
    for part, seconds in result["seconds"].items():
        print(f"{part.replace('_', ' ')} {1000 * seconds:.1f} ms")


if __name__ == "__main__":
    run_script(main)
