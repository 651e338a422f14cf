"""Predict the camera's motion in snippets of KITTI odometry, save the predictions, and score the saved file; or score
any system's trajectory file."""

import argparse
import time
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from path import Path
from torch import Tensor
from tqdm import tqdm

from cli.flags import add_test_flags, choose_device, parse_test_flags, positive_float, run_script
from cli.tables import table, write_json
from datasets.formats.kitti import read_poses
from datasets.formats.kitti_folders import find_sequence, has_ground_truth, pose_file, sequence_folder
from datasets.formats.trajectories import read_frame_times, read_trajectory
from evaluation.leakage import KITTI_SEQUENCES, check_overlap, trained_scenes
from evaluation.metrics.pose import (
    mean_odometry,
    snippet_ate,
    snippet_rotation_error,
    snippet_scale,
    snippets,
    straight_line,
)
from evaluation.metrics.trajectory import ALIGNMENTS, chain_snippets
from evaluation.predictions import (
    check_writable,
    default_file,
    input_size,
    load_predictions,
    read_resized,
    save_predictions,
)
from evaluation.trajectories import (
    FIGURES,
    claim_export_folder,
    export_trajectory,
    read_pair,
    score_trajectory,
    table_rows,
)
from files.errors import InputError
from files.images import to_network_input
from files.parallel import in_parallel
from geometry.pose import snippet_poses
from geometry.rigid import to_3x4, to_homogeneous
from models.checkpoint import load_model

CAMERAS = {"image_2": "image_2", "image_0": "image_0, grey"}  # the left ones, in order of preference
TRAINING_SEQUENCES = [name for name in KITTI_SEQUENCES if name not in ("09", "10")]
SNIPPET_SCALES = {
    "network": "in the network's unit, nothing fitted",
    "ground-truth": "each snippet first scaled to the ground truth",
}
DESCRIPTION = """\
Predict the camera's motion in snippets of KITTI odometry, save the predictions, and score them from the saved file:
snippet by snippet, and chained into the whole trajectory. Whether a snippet has 3 or 5 frames, the checkpoint says.

  python test_pose.py runs/my_run/last.pt --kitti KITTI_ODOMETRY
      predicts and scores every snippet of sequences 09 and 10
  python test_pose.py --predictions runs/my_run/last_pose.npz --kitti KITTI_ODOMETRY --export trajectories
      scores again without a network; writes trajectories/09.txt (KITTI), 09_tum.txt (TUM) and a picture, 09.png
  python test_pose.py --trajectory ORB_SLAM.txt --ground-truth KITTI_ODOMETRY/poses/00.txt --alignment 7dof
      scores any system's trajectory, in KITTI's or TUM's form
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kitti", type=Path, metavar="KITTI_ODOMETRY", help="folder with sequences/ and poses/")
    parser.add_argument(
        "--sequences",
        nargs="+",
        metavar="NN",
        help="which sequences (default: 09 10; with --predictions: those in the file)",
    )
    whole = parser.add_argument_group("whole trajectories")
    whole.add_argument(
        "--trajectory",
        type=Path,
        metavar="FILE",
        help="score this file, of any system: 12 numbers a line (KITTI), or 8 (TUM: time x y z qx qy qz qw)",
    )
    whole.add_argument(
        "--ground-truth",
        type=Path,
        metavar="FILE",
        help="of --trajectory, in either form; TUM files are paired by time, KITTI files line by line",
    )
    whole.add_argument(
        "--times",
        type=Path,
        metavar="FILE",
        help="of --trajectory: a time a line (times.txt) for files in KITTI's form",
    )
    whole.add_argument(
        "--max-time-difference",
        type=positive_float,
        default=0.01,
        metavar="SECONDS",
        help="of --trajectory: between two poses that are paired (default: 0.01)",
    )
    whole.add_argument(
        "--alignment",
        choices=ALIGNMENTS,
        nargs="+",
        default=[*ALIGNMENTS],
        help="; ".join(f"{name}: {meaning}" for name, meaning in ALIGNMENTS.items() if name != "none")
        + "; the picture shows the last one given (default: all of them)",
    )
    whole.add_argument(
        "--snippet-scale",
        choices=SNIPPET_SCALES,
        default="network",
        help="; ".join(f"{name}: {meaning}" for name, meaning in SNIPPET_SCALES.items())
        + ", which hides all drift of scale; before snippets are chained (default: network)",
    )
    whole.add_argument(
        "--export",
        type=Path,
        metavar="FOLDER",
        help="write the trajectories there, not aligned: NN.txt (KITTI), NN_tum.txt (TUM, where times are known), and "
        "a picture, NN.png",
    )
    add_test_flags(parser, "pose")
    args = parse_test_flags(parser, instead="trajectory")
    if args.trajectory:
        if args.snippet_scale != "network":
            parser.error("--snippet-scale is for snippets that are chained, not for --trajectory FILE")
        if args.ground_truth is None:
            parser.error("--trajectory FILE needs --ground-truth FILE")
        if args.kitti or args.sequences:
            parser.error("--kitti and --sequences do not go with --trajectory FILE: its truth is --ground-truth FILE")
        return args
    if args.kitti is None:
        parser.error("--kitti KITTI_ODOMETRY is missing: the folder with sequences/ and poses/")
    if args.ground_truth or args.times:
        parser.error("--ground-truth and --times go with --trajectory FILE; here the truth is in --kitti")
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
    if args.export:
        claim_export_folder(args.export)
    result = score_file(args) if args.trajectory else score_sequences(args)
    print_result(result)
    if args.json:
        write_json(args.json, result)


def score_file(args: argparse.Namespace) -> dict:
    """The result for --trajectory FILE, any system's."""
    predicted, truth, times, pairing = read_pair(
        args.trajectory, args.ground_truth, args.times, args.max_time_difference
    )
    name = str(args.trajectory.stem)
    scores = score_trajectory(predicted, truth, args.alignment)
    if args.export:
        inputs = (args.trajectory, args.ground_truth)
        print_files(export_trajectory(args.export, name, predicted, truth, times, scores, inputs))
    line = f"protocol: {args.trajectory} against {args.ground_truth}: {pairing}; {FIGURES}"
    protocol = {"line": line, "ground_truth": str(args.ground_truth), "pairing": pairing}
    return {"protocol": protocol, "results": [{"sequence": name, "trajectory": scores}]}


def print_files(files: list[Path]) -> None:
    print(f"trajectory: {', '.join(files)}")


def score_sequences(args: argparse.Namespace) -> dict:
    """The result for a checkpoint or for --predictions FILE."""
    if not args.kitti.is_dir():
        raise InputError(f"--kitti {args.kitti}: no such folder")
    file, seconds = args.predictions, {}
    if args.checkpoint:
        file = args.save or default_file(args.checkpoint, "pose")
        check_writable(file, "--save")
        seconds["predicting_per_snippet"] = predict(args.sequences or ["09", "10"], file, args)
    predicted, about = load_snippets(file, args.sequences)
    overlap = check_overlap(file, trained_scenes(about), predicted, args.kitti, args.allow_training_overlap)

    start = time.perf_counter()
    training = read_training_poses(args.kitti, [*predicted])
    results, not_scored = [], {}
    for sequence, poses in predicted.items():
        try:
            if not has_ground_truth(args.kitti, sequence):
                not_scored[sequence] = f"no ground truth ({pose_file(args.kitti, sequence)})"
                export_without_truth(sequence, poses, args)
                continue
            truth = read_truth(args.kitti, sequence, poses)
            times = read_times_of_sequence(args.kitti, sequence, len(truth))
            scores = score(sequence, poses, truth, training)
            chained = chain(poses, truth, args.snippet_scale)
            whole = score_trajectory(chained, truth, args.alignment)
            if args.export:
                inputs = (pose_file(args.kitti, sequence),)
                print_files(export_trajectory(args.export, sequence, chained, truth, times, whole, inputs))
        except InputError as error:
            raise InputError(f"{file}, sequence {sequence}: {error}") from None
        results.append({"sequence": sequence, **scores, "trajectory": whole})
    seconds["scoring_per_sequence"] = (time.perf_counter() - start) / len(predicted)
    result = summarise(results, about, args.snippet_scale) if results else {"results": []}
    result |= {"not_scored": not_scored, "training_overlap": overlap, "seconds": seconds}
    return result | {"predictions": {"file": str(file), **about}}


def export_without_truth(sequence: str, predicted: np.ndarray, args: argparse.Namespace) -> None:
    """Write the trajectory of a sequence that has no ground truth, in its first camera's frame, if --export asks."""
    if args.snippet_scale == "ground-truth":
        raise InputError(f"--snippet-scale ground-truth: sequence {sequence} has no {pose_file(args.kitti, sequence)}")
    if args.export:
        chained = chain_snippets(predicted)
        times = read_times_of_sequence(args.kitti, sequence, len(chained))
        print_files(export_trajectory(args.export, sequence, chained, None, times, None, ()))


def predict(sequences: list[str], file: Path, args: argparse.Namespace) -> float:
    """Save the network's poses in every snippet of the sequences; returns the seconds a snippet took.

    The file holds `snippets_NN` float64 [N, n, 3, 4] for each sequence NN: first_from_frame, in the network's unit.
    """
    cameras = {name: find_images(args.kitti, name) for name in sequences}  # all looked at before the first is predicted
    device = choose_device(args.device)
    networks = load_model(args.checkpoint, device)
    if networks.pose_net is None:
        raise InputError(f"{args.checkpoint}: holds no pose network, only a depth network")
    trained = networks.scenes
    check_overlap(args.checkpoint, trained, sequences, args.kitti, args.allow_training_overlap)
    frames = networks.pose_net.sources + 1
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
                batches.append(predict_snippets(networks.pose_net, images_on_device).numpy())
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
    """A sequence's frames, in order of time: the left colour camera, or the left grey one where there is no colour."""
    return list(find_sequence(kitti, sequence).images.values())


def overlapping_batches(images: Iterator[np.ndarray], snippets: int, frames: int) -> Iterator[np.ndarray]:
    """Neighbouring images stacked for `snippets` snippets at a time (fewer at the end); each image is read once."""
    window = list(islice(images, frames - 1))
    while new := list(islice(images, snippets)):
        window += new
        yield np.stack(window)
        window = window[len(new) :]


@torch.inference_mode()
def predict_snippets(network: torch.nn.Module, images: Tensor) -> Tensor:
    """Poses in all snippets of neighbouring frames.

    Args:
        images: uint8 [F, 3, H, W], in order of time.

    Returns:
        first_from_frame float64 [F - n + 1, n, 3, 4] on the CPU, n = network.sources + 1.
    """
    frames = to_network_input(images).unfold(0, network.sources + 1, 1).movedim(-1, 1)  # [N, n, 3, H, W], a view
    middle = frames.shape[1] // 2
    transforms, _ = network(frames[:, middle].contiguous(), torch.cat([frames[:, :middle], frames[:, middle + 1 :]], 1))
    return snippet_poses(transforms.cpu().double())[..., :3, :]


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


def read_truth(kitti: Path, sequence: str, predicted: np.ndarray) -> np.ndarray:
    """world_from_camera [F, 3, 4] of the sequence whose snippets [N, n, 3, 4] are predicted; InputError if there are
    not as many."""
    world_from_camera = read_trajectory(pose_file(kitti, sequence)).world_from_camera
    expected = len(world_from_camera) - predicted.shape[1] + 1
    if len(predicted) != expected:
        raise InputError(
            f"{len(predicted)} snippets of {predicted.shape[1]} frames, but the {len(world_from_camera)} poses in "
            f"{pose_file(kitti, sequence)} make {max(expected, 0)}"
        )
    return world_from_camera


def read_times_of_sequence(kitti: Path, sequence: str, count: int) -> np.ndarray | None:
    file = sequence_folder(kitti, sequence) / "times.txt"
    return read_frame_times(file, count) if file.is_file() else None


def read_training_poses(kitti: Path, tested: list[str]) -> dict[str, np.ndarray]:
    """Ground truth of the training sequences that are there and are not tested: world_from_camera [F, 3, 4]."""
    files = {name: pose_file(kitti, name) for name in TRAINING_SEQUENCES if name not in tested}
    return {name: read_poses(file) for name, file in files.items() if file.is_file()}


def score(sequence: str, predicted: np.ndarray, world_from_camera: np.ndarray, training: dict[str, np.ndarray]) -> dict:
    """Figures of the snippets [N, n, 3, 4], mean and standard deviation: the network's, a straight line's, and those of
    the training sequences' mean motion (where there are none of the tested sequence's own: hard to beat by any constant
    motion)."""
    frames = predicted.shape[1]
    truth = snippets(world_from_camera, frames)
    line = straight_line(*truth.shape[:2])
    used = {name: snippets(poses, frames) for name, poses in training.items() if len(poses) >= frames}
    used = used or {sequence: truth}
    mean_motion = np.broadcast_to(mean_odometry(np.concatenate([*used.values()])), truth.shape)
    errors = {
        "ate": snippet_ate(truth, predicted),
        "rotation_error": snippet_rotation_error(truth, predicted),
        "straight_line_ate": snippet_ate(truth, line),
        "straight_line_rotation_error": snippet_rotation_error(truth, line),
        "mean_odometry_ate": snippet_ate(truth, mean_motion),
        "mean_odometry_rotation_error": snippet_rotation_error(truth, mean_motion),
    }
    scales = snippet_scale(truth, predicted)
    scale = float(np.median(scales))
    # The spread as a share of the median: how consistent the network's unit is from snippet to snippet.
    spread = float(np.std(scales / scale)) if scale else None
    about = {"snippets": len(truth), "frames": frames, "scale": scale, "scale_spread": spread}
    figures = {name: {"mean": float(error.mean()), "std": float(error.std())} for name, error in errors.items()}
    return about | figures | {"mean_odometry_of": [*used]}


def chain(predicted: np.ndarray, truth: np.ndarray, snippet_scale_from: str) -> np.ndarray:
    """The snippets [N, n, 3, 4] as a trajectory [F, 3, 4] that begins where the truth [F, 3, 4] does."""
    if snippet_scale_from == "ground-truth":
        scale = snippet_scale(snippets(truth, predicted.shape[1]), predicted)
        predicted = np.concatenate([predicted[..., :3], scale[:, None, None, None] * predicted[..., 3:]], -1)
    return to_3x4(to_homogeneous(truth[0]) @ to_homogeneous(chain_snippets(predicted)))


def summarise(results: list[dict], about: dict, snippet_scale_from: str) -> dict:
    """The result for machines: a line and the parts of the protocol, and the figures of each sequence."""
    cameras = about.get("cameras")
    cameras = cameras if isinstance(cameras, dict) else {}  # the file may be another method's
    counted = ", ".join(
        f"{result['sequence']} ({CAMERAS.get(str(cameras.get(result['sequence'])), 'camera unknown')}, "
        f"{result['snippets']} snippets of {result['frames']} frames)"
        for result in results
    )
    means = " and ".join(sorted({" ".join(result["mean_odometry_of"]) for result in results}))
    line = (
        f"protocol: KITTI odometry {counted}; ground truth: camera 0; scale: fitted per snippet; ATE: norm divided by "
        f"the number of frames, as published; mean odometry: of {means}"
    )
    protocol = {
        "line": line,
        "ground_truth": "camera 0",
        "scale": "per snippet",
        "ate": "norm / frames",
        "trajectory_line": f"whole trajectories: chained from the snippets ({SNIPPET_SCALES[snippet_scale_from]}; each "
        f"motion the mean of those that hold it); {FIGURES}",
        "snippet_scale": snippet_scale_from,
    }
    return {"protocol": protocol, "results": results}


def print_result(result: dict) -> None:
    def cell(error: dict[str, float]) -> str:
        return f"{error['mean']:.4f} ± {error['std']:.4f}"

    for sequence, reason in result.get("not_scored", {}).items():
        print(f"sequence {sequence}: not scored: {reason}")
    if not result["results"]:
        print(result["training_overlap"]["line"])
        return
    print(f"\n{result['protocol']['line']}")
    if "training_overlap" in result:
        rows = [
            {
                "sequence": row["sequence"],
                "ATE (m)": cell(row["ate"]),
                "rotation (rad)": cell(row["rotation_error"]),
                "straight line ATE (m)": cell(row["straight_line_ate"]),
                "its rotation (rad)": cell(row["straight_line_rotation_error"]),
                "mean odometry ATE (m)": cell(row["mean_odometry_ate"]),
                "its rotation (rad) ": cell(row["mean_odometry_rotation_error"]),
            }
            for row in result["results"]
        ]
        print(f"{result['training_overlap']['line']}\n\n{table(rows)}\n\n{result['protocol']['trajectory_line']}")
    heading = "sequence" if "training_overlap" in result else "trajectory"
    trajectory_rows = [table_rows(heading, row["sequence"], row["trajectory"]) for row in result["results"]]
    print(f"\n{table([row for rows in trajectory_rows for row in rows])}\n")
    for row in result["results"]:
        if not any(errors["segments"] for errors in row["trajectory"]["alignments"].values()):
            print(f"{row['sequence']}: {row['trajectory']['path_m']:.0f} m of path, too short for t_err and r_err")
    for part, seconds in result.get("seconds", {}).items():
        print(f"{part.replace('_', ' ')} {1000 * seconds:.1f} ms")


if __name__ == "__main__":
    run_script(main)
