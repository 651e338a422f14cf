"""Predict the camera's motion in snippets of KITTI odometry, save the predictions, and score the saved file; or score
any system's trajectory file."""

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

from datasets.formats.kitti import time_gaps
from datasets.formats.kitti_folders import (
    find_sequence,
    has_ground_truth,
    is_sequence_file,
    pose_file,
    pose_folders,
)
from evaluation.leakage import check_overlap, trained_scenes
from evaluation.metrics.trajectory import ALIGNMENTS, chain_snippets
from evaluation.odometry import (
    SNIPPET_SCALES,
    chain_from_truth,
    is_sequence_name,
    load_snippets,
    read_times_of_sequence,
    read_training_poses,
    read_true_poses,
    score_snippets,
    snippet_row,
    summarise_sequences,
)
from evaluation.predictions import default_file, save_predictions
from evaluation.trajectories import LARGEST_DIFFERENCE, read_pair, score_trajectory, table_rows
from files.atomic import write_json
from files.errors import InputError
from files.outputs import check_outputs
from inference.depth import input_size, read_resized
from inference.motion import predict_sequence, snippet_length
from inference.outputs import Export, claim_export_folder
from models.averages import averaged_motion
from models.checkpoint import load_model

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
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kitti", type=Path, metavar="KITTI_ODOMETRY", help="folder with sequences/ and poses/")
    names = "sequences to test (default: 09 10; with --predictions: those in the file)"
    parser.add_argument("--sequences", nargs="+", metavar="NN", help=names)
    add = parser.add_argument_group("whole trajectories").add_argument
    forms = "12 numbers a line (KITTI), or 8 (TUM: time x y z qx qy qz qw)"
    add("--trajectory", type=Path, metavar="FILE", help=f"score this file, of any system: {forms}")
    pairs = "true trajectory, in either form; TUM files are paired by time, KITTI files line by line"
    add("--ground-truth", type=Path, metavar="FILE", help=f"with --trajectory: {pairs}")
    times = "with --trajectory: one time per line (times.txt), for files in KITTI's form"
    add("--times", type=Path, metavar="FILE", help=times)
    gap = f"with --trajectory: largest difference of paired times (default: {LARGEST_DIFFERENCE:g})"
    add("--max-time-difference", type=positive_float, metavar="SECONDS", help=gap)
    kinds = "; ".join(f"{name}: {meaning}" for name, meaning in ALIGNMENTS.items() if name != "none")
    kinds += "; the picture shows the last one given (default: all)"
    add("--alignment", choices=ALIGNMENTS, nargs="+", default=[*ALIGNMENTS], help=kinds)
    scales = "; ".join(f"{name}: {meaning}" for name, meaning in SNIPPET_SCALES.items())
    scales = f"scale of the snippets before they are chained; {scales}, which hides all drift of scale"
    add("--snippet-scale", choices=SNIPPET_SCALES, default="network", help=f"{scales} (default: network)")
    files = "NN.txt (KITTI), NN_tum.txt (TUM, where times are known), NN.png (picture)"
    add("--export", type=Path, metavar="FOLDER", help=f"write the trajectories there, not aligned: {files}")
    add_average_flags(parser.add_argument, "the motion")
    add_test_flags(parser, "pose")
    args = parse_test_flags(parser, instead="trajectory")
    check_arguments(parser, args)
    return args


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with exit status 2 for flags that do not go together."""
    if (args.flip_average or args.size_average) and not args.checkpoint:
        parser.error("--flip-average and --size-average go with a CHECKPOINT: nothing else is predicted")
    given = " ".join(args.sequences or [])
    if args.trajectory:
        if args.snippet_scale != "network":
            parser.error("--snippet-scale is for snippets that are chained, not for --trajectory FILE")
        if args.ground_truth is None:
            parser.error("--trajectory FILE needs --ground-truth FILE")
        if args.kitti or args.sequences:
            parser.error("--kitti and --sequences do not go with --trajectory FILE: its truth is --ground-truth FILE")
    elif args.kitti is None:
        parser.error("--kitti KITTI_ODOMETRY is missing: the folder with sequences/ and poses/")
    elif args.ground_truth or args.times or args.max_time_difference:
        flags = "--ground-truth, --times and --max-time-difference"
        parser.error(f"{flags} go with --trajectory FILE; here the truth is in --kitti")
    elif len(set(args.sequences or [])) < len(args.sequences or []):
        parser.error(f"--sequences {given}: names a sequence twice")
    elif not all(map(is_sequence_name, args.sequences or [])):
        parser.error(f"--sequences {given}: expected names such as 09, not paths")


def main() -> None:
    args = parse_arguments()
    if args.checkpoint:
        args.save = args.save or default_file(args.checkpoint, "pose")
    inputs = [args.checkpoint, args.predictions, args.trajectory, args.ground_truth, args.times]
    check_outputs({"--save": args.save, "--json": args.json}, inputs)
    result, exports = score_file(args) if args.trajectory else score_sequences(args)
    if args.json:
        write_json(args.json, result)
    print_result(result)
    for export in exports if args.export else ():
        print(f"trajectory: {', '.join(export.write(args.export))}")


def score_file(args: argparse.Namespace) -> tuple[dict, list[Export]]:
    """The result for --trajectory FILE, any system's, and what --export writes."""
    name = str(args.trajectory.stem)
    if args.export:
        truth = [args.ground_truth.parent] if is_sequence_file(args.ground_truth) else []
        claim_export_folder(args.export, [name], truth, [args.trajectory, args.ground_truth, args.times])
    pair = read_pair(args.trajectory, args.ground_truth, args.times, args.max_time_difference)
    scores = score_trajectory(pair.predicted, pair.truth, args.alignment)
    line = f"protocol: {args.trajectory} against {args.ground_truth}: {pair.pairing}; {pair.figures}"
    protocol = {"line": line, "ground_truth": str(args.ground_truth), "pairing": pair.pairing}
    result = {"protocol": protocol, "results": [{"sequence": name, "trajectory": scores}]}
    return result, [Export(name, pair.predicted, pair.times, pair.truth, scores)]


def score_sequences(args: argparse.Namespace) -> tuple[dict, list[Export]]:
    """The result for a checkpoint or for --predictions FILE, and what --export writes."""
    if not args.kitti.is_dir():
        raise InputError(f"--kitti {args.kitti}: no such folder")
    file, seconds = args.predictions, {}
    if args.checkpoint:
        file, names = args.save, args.sequences or ["09", "10"]
        claim_exports(args, names)
        seconds["predicting_per_snippet"] = predict(names, file, args)
    predicted, about = load_snippets(file, args.sequences)
    claim_exports(args, [*predicted])
    overlap = check_overlap(file, trained_scenes(about), predicted, args.kitti, args.allow_training_overlap)

    start = time.perf_counter()
    training = read_training_poses(args.kitti, [*predicted])
    results, not_scored, exports = [], {}, []
    for sequence, poses in predicted.items():
        try:
            if not has_ground_truth(args.kitti, sequence):
                not_scored[sequence] = f"no ground truth ({pose_file(args.kitti, sequence)})"
                exports.append(chain_without_truth(sequence, poses, args))
                continue
            truth = read_true_poses(args.kitti, sequence, poses)
            times = read_times_of_sequence(args.kitti, sequence, len(truth))
            scores = score_snippets(sequence, poses, truth, training)
            chained = chain_from_truth(poses, truth, args.snippet_scale)
            whole = score_trajectory(chained, truth, args.alignment)
        except InputError as error:
            raise InputError(f"{file}, sequence {sequence}: {error}") from None
        exports.append(Export(sequence, chained, times, truth, whole))
        gaps = {} if times is None else time_gaps(dict(enumerate(times.tolist())))
        results.append({"sequence": sequence, **scores, "trajectory": whole, "time_gaps": gaps})
    seconds["scoring_per_sequence"] = (time.perf_counter() - start) / len(predicted)
    result = summarise_sequences(results, about, args.snippet_scale) if results else {"results": []}
    result |= {"not_scored": not_scored, "training_overlap": overlap, "seconds": seconds}
    return result | {"predictions": {"file": str(file), **about}}, exports


def claim_exports(args: argparse.Namespace, names: list[str]) -> None:
    """Make the folder of --export, if it is given; InputError where it cannot take these sequences' files."""
    if args.export:
        claim_export_folder(args.export, names, pose_folders(args.kitti), [args.checkpoint, args.predictions])


def chain_without_truth(sequence: str, predicted: np.ndarray, args: argparse.Namespace) -> Export:
    """The trajectory of a sequence that has no ground truth, in its first camera's frame."""
    if args.snippet_scale == "ground-truth":
        raise InputError(f"--snippet-scale ground-truth: sequence {sequence} has no {pose_file(args.kitti, sequence)}")
    chained = chain_snippets(predicted)
    return Export(sequence, chained, read_times_of_sequence(args.kitti, sequence, len(chained)))


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
    frames = snippet_length(networks.pose_net, args.checkpoint)
    pose_net = averaged_motion(networks.pose_net, args.flip_average, args.size_average)
    height, width = input_size((args.height, args.width), (networks.height, networks.width))
    read = partial(read_resized, height=height, width=width)
    arrays, start = {}, time.perf_counter()
    for name, images in cameras.items():
        if len(images) < frames:
            raise InputError(f"sequence {name}: {len(images)} images, too few for a snippet of {frames} frames")
        arrays[f"snippets_{name}"] = predict_sequence(pose_net, images, read, args.batch_size, args.workers, name)
    seconds = time.perf_counter() - start
    about = {
        "checkpoint": str(args.checkpoint),
        "step": networks.step,
        "height": height,
        "width": width,
        "flip_average": args.flip_average,
        "size_average": args.size_average,
        "cameras": {name: str(images[0].parent.name) for name, images in cameras.items()},
        "scenes": trained,
    }
    save_predictions(file, "snippets", arrays, about)
    print(f"predictions: {file}")
    return seconds / sum(map(len, arrays.values()))


def find_images(kitti: Path, sequence: str) -> list[Path]:
    """A sequence's frames, in order of time: the left colour camera, or the left grey one where there is no colour."""
    return list(find_sequence(kitti, sequence).images.values())


def print_result(result: dict) -> None:
    for sequence, reason in result.get("not_scored", {}).items():
        print(f"sequence {sequence}: not scored: {reason}")
    if not result["results"]:
        print(result["training_overlap"]["line"])
        return
    print(f"\n{result['protocol']['line']}")
    if "training_overlap" in result:
        rows = [snippet_row(row) for row in result["results"]]
        print(f"{result['training_overlap']['line']}\n\n{table(rows)}\n\n{result['protocol']['trajectory_line']}")
    heading = "sequence" if "training_overlap" in result else "trajectory"
    trajectory_rows = [table_rows(heading, row["sequence"], row["trajectory"]) for row in result["results"]]
    print(f"\n{table([row for rows in trajectory_rows for row in rows])}\n")
    for row in result["results"]:
        if not any(errors["segments"] for errors in row["trajectory"]["alignments"].values()):
            print(f"{row['sequence']}: {row['trajectory']['path_m']:.0f} m of path, too short for t_err and r_err")
        gaps = row.get("time_gaps")
        if gaps:
            frame = max(gaps, key=gaps.__getitem__)
            later = f"frame {frame} comes {gaps[frame]:.3g} s after the one before it"
            print(f"{row['sequence']}: {len(gaps)} gaps in times.txt, e.g. {later}; snippets across them are scored")
    for part, seconds in result.get("seconds", {}).items():
        print(f"{part.replace('_', ' ')} {1000 * seconds:.1f} ms")


if __name__ == "__main__":
    run_script(main)
