"""Predict depth, camera motion and a point cloud of images, folders of images, videos and prepared scenes."""

import argparse
import copy
import hashlib
import os
import time
from typing import Any

from cli.flags import (
    ArgumentParser,
    add_average_flags,
    add_device_flag,
    choose_device,
    crop_or,
    positive_float,
    positive_int,
    run_script,
)

import numpy as np
import torch
from path import Path

from datasets.formats.video import VIDEO_SUFFIXES
from datasets.layout import IMAGE_SUFFIXES, list_frames
from files.atomic import write_json
from files.errors import InputError, UsageError
from inference.camera import GivenByFlag, choose_intrinsics, resized_intrinsics
from inference.clip import PredictedClip, predict_clip, store_frames, view_size
from inference.crop import AUTO, NONE, TRAINING, apply_crop
from inference.depth import input_size
from inference.depth_files import FORMATS
from inference.folder import check_folder, claim_folder
from inference.frames import DEFAULT_FPS, MARKER, Clip, open_inputs
from inference.motion import snippet_length
from inference.results import (
    DEFAULT_OF_CLIPS,
    DEFAULT_OF_IMAGES,
    KINDS,
    OF_CLIPS,
    OF_MOTION,
    Outputs,
    ScaledClip,
    needs_mirror,
    report_lines,
    write_results,
)
from inference.scale import NETWORK_UNIT, Scale, find_scale
from inference.structure import judge_structure
from models.averages import SizeAverage, averaged_motion
from models.checkpoint import CRITERIA, LoadedModel, find_checkpoint, load_model
from models.other_projects import is_monodepth2
from models.published import SUFFIX, WORLD, WORLD_FILE
from training.refine import Refinement, refine, stored_objective

DESCRIPTION = """\
Predict depth of images and videos, and of videos the camera's trajectory and a coloured point cloud.

  python predict.py photo.jpg
      depth of a photo by the weights in this repository (weights/README.md), in the folder predictions
  python predict.py runs/my_run drive.mp4 --out results
      depth, a video, the trajectory, a point cloud and a page: open results/drive/index.html in a browser
  python predict.py runs/my_run photo.jpg other.png --out results --write depth pictures
      depth of single images
  python predict.py runs/my_run drive.mp4 --fov 80 --scale camera-height 1.65 --out results
      in metres: the camera is 1.65 m above the road
  python predict.py drive.mp4 --crop 0,0,0,120 --out results
      without the lowest 120 rows, which show the bonnet
  python predict.py runs/my_run prepared/SCENE --out results --write depth --depth-format png --size network

Every clip gets a folder in --out. predict.json there says what was written; a run that was stopped leaves
"complete": false in it. docs/predict.md has the details."""

SCALES = "camera-height METRES [PITCH] | speed FILE | distance X1 Y1 X2 Y2 METRES | constant VALUE"


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    checkpoint = (
        "a run's folder, or any checkpoint with a depth network (default: world, the weights in this repository; "
        "before a single INPUT, or before images and videos, it may be left out)"
    )
    add("checkpoint", type=Path, metavar="CHECKPOINT", help=checkpoint)
    inputs = "images (.jpg, .png), folders of images, prepared scenes, videos; a folder or a video is a clip"
    add("inputs", type=Path, nargs="*", metavar="INPUT", help=inputs)
    out = "a new or empty folder for the results (default: predictions)"
    add("--out", type=Path, default=Path("predictions"), metavar="FOLDER", help=out)
    add("--replace", action="store_true", help="remove an earlier result of predict.py in --out first")
    which = "checkpoint of a run's folder: the last, or the best in validation by a criterion (default: last)"
    add("--which", choices=("last", *CRITERIA), help=which)
    kinds = "; ".join(f"{name}: {meaning}" for name, meaning in KINDS.items())
    defaults = f"(default: {' '.join(DEFAULT_OF_CLIPS)} of a clip, {' '.join(DEFAULT_OF_IMAGES)} of single images)"
    add("--write", nargs="+", choices=KINDS, metavar="WHAT", help=f"{kinds} {defaults}")
    add("--depth-format", choices=FORMATS, default=FORMATS[0], help="float32 .npy, or PNG of 16 bits (default: npy)")
    size = "depth at the input's size or at the network's (default: input)"
    add("--size", choices=("input", "network"), default="input", help=size)
    rate = f"frames per second: videos are sampled at it, and folders of images have it (default: {DEFAULT_FPS:g})"
    add("--fps", type=positive_float, metavar="N", help=rate)
    pose = "pose network of this checkpoint, where CHECKPOINT holds only a depth network"
    add("--pose-checkpoint", type=Path, metavar="FILE", help=pose)
    add_average_flags(add, "depth and motion")
    add_camera_flags(parser)
    note = "The networks are trained on each clip before it is predicted, with the checkpoint's objective."
    add = parser.add_argument_group("refinement", note).add_argument
    add("--refine", type=positive_int, metavar="STEPS", help="training steps on each clip (default: none)")
    rate = f"learning rate (default: {Refinement.learning_rate:g})"
    add("--refine-rate", type=positive_float, default=Refinement.learning_rate, metavar="X", help=rate)
    batch = f"snippets per step (default: {Refinement.batch_size})"
    add("--refine-batch", type=positive_int, default=Refinement.batch_size, metavar="N", help=batch)
    add = parser.add_argument_group("point cloud").add_argument
    far = "leave out points from this depth on, in the unit of the results (default: 3 times the clip's median depth)"
    add("--far", type=positive_float, metavar="DEPTH", help=far)
    add("--voxel", type=positive_float, metavar="SIDE", help="points in one voxel become one (default: far / 300)")
    add("--sure", type=float, default=0.5, metavar="X", help="least confidence of a point, 0 to 1 (default: 0.5)")
    add = parser.add_argument_group("work").add_argument
    add("--height", type=positive_int, help="of the network's input (default: the training's)")
    add("--width", type=positive_int, help="of the network's input (default: the training's)")
    add("--batch-size", type=positive_int, default=8, help="images that are predicted together (default: 8)")
    workers = min(4, os.cpu_count() or 1)
    add("--workers", type=positive_int, default=workers, help="threads that decode images (default: up to 4)")
    add_device_flag(parser)
    args = parser.parse_intermixed_args()  # flags may stand between CHECKPOINT and INPUT
    complete_arguments(parser, args)
    return args


def complete_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Tell CHECKPOINT from INPUT, read --scale, and refuse what excludes each other or is out of range."""
    if not args.inputs and is_checkpoint(args.checkpoint):
        parser.error(f"{args.checkpoint}: a CHECKPOINT, expected an INPUT, too: images, folders of images or videos")
    if not args.inputs or args.checkpoint.lower().endswith((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)):
        args.checkpoint, args.inputs = Path(WORLD), [args.checkpoint, *args.inputs]
    if args.which and args.checkpoint.is_file():
        parser.error("--which goes with a run's folder in place of a CHECKPOINT")
    if sum(value is not None for value in (args.fov, args.focal, args.intrinsics)) > 1:
        parser.error("--fov, --focal and --intrinsics exclude each other")
    if args.fov is not None and args.fov >= 180:
        parser.error(f"--fov {args.fov:g}: expected degrees below 180")
    if not 0 <= args.sure <= 1:
        parser.error(f"--sure {args.sure:g}: expected 0 to 1")
    args.scale = parse_scale(parser, args.scale)


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a checkpoint or a folder with one, and no INPUT."""
    if path.is_dir():
        return not list_frames(path) and (is_monodepth2(path) or bool(path.files("*.pt")))
    return path == WORLD or path.lower().endswith((".pt", ".pth", ".tar", SUFFIX))


def add_camera_flags(parser: argparse.ArgumentParser) -> None:
    note = "Without a flag: the scene's cam.txt unless it is a guess, else the camera that the checkpoint has learned."
    add = parser.add_argument_group("camera and unit", note).add_argument
    crop = (
        "pixels of the input to leave out at each side, such as 0,0,0,120 for a bonnet; auto finds black bars and the "
        "bonnet; none; or what the training's preparation left out, where the checkpoint says it (default: training)"
    )
    choices = crop_or(TRAINING, AUTO, NONE)
    add("--crop", type=choices, default=TRAINING, metavar="LEFT,TOP,RIGHT,BOTTOM", help=crop)
    kinds = "K as cam.txt, or a calibration of OpenCV, KITTI or COLMAP"
    add("--fov", type=positive_float, metavar="DEGREES", help="horizontal field of view of the whole input")
    add("--focal", type=positive_float, metavar="PIXELS", help="focal length in pixels of the input")
    add("--intrinsics", type=Path, metavar="FILE", help=f"{kinds}, for images as the whole input")
    scales = (
        f"{SCALES}: metres by the camera's height above a flat road (PITCH: degrees by which it looks down, "
        "found where it is not given); by the vehicle's speed (FILE: a line with "
        "seconds from the first frame and m/s each, or KITTI's folder oxts); by the distance of two pixels' points in "
        "the first frame; or depth in metres = VALUE x the network's depth (default: the network's own unit)"
    )
    add("--scale", nargs="+", metavar="KIND", help=scales)


def parse_scale(parser: argparse.ArgumentParser, words: list[str] | None) -> tuple[str, list[Any]] | None:
    """--scale as a kind and its values."""
    if words is None:
        return None
    kind, values = words[0], words[1:]
    counts = {"camera-height": (1, 2), "speed": (1,), "distance": (5,), "constant": (1,)}
    if len(values) not in counts.get(kind, ()):
        parser.error(f"--scale {' '.join(words)}: expected one of {SCALES}")
    if kind == "speed":
        return kind, [Path(values[0])]
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = [0.0]
    scale = numbers[0 if kind == "camera-height" else -1]
    if not all(abs(number) < 1e9 for number in numbers) or scale <= 0:
        parser.error(f"--scale {' '.join(words)}: expected numbers, metres and factors above 0")
    return kind, numbers


def main() -> None:
    args = parse_arguments()
    if args.checkpoint == WORLD:
        args.checkpoint = WORLD_FILE
    elif args.checkpoint.is_dir():
        args.checkpoint = find_checkpoint(args.checkpoint, args.which or "last")
    clips = open_inputs(args.inputs, args.fps, args.workers)
    check_sizes(clips, args)
    check_folder(args.out, args.inputs, args.replace)  # before --crop auto, which reads the clips
    device = choose_device(args.device)
    loaded = load_networks(args, device)
    wanted = [check_clip(clip, loaded, args) for clip in clips]
    for clip in clips:
        apply_crop(clip, args.crop, loaded)
    given = GivenByFlag(args.fov, args.focal, args.intrinsics)
    cameras = [choose_intrinsics(clip, given, loaded) for clip in clips]
    size = input_size((args.height, args.width), (loaded.height, loaded.width))
    claim_folder(args.out, args.inputs, args.replace)
    checkpoint = {"file": str(args.checkpoint), "sha256": sha256(args.checkpoint), "step": loaded.step}
    report: dict[str, Any] = {"complete": False, "checkpoint": checkpoint, "device": str(device), "clips": {}}
    report["planned"] = [clip.name for clip in clips]  # the folders that --replace may remove, also after a stop
    write_json(args.out / MARKER, report)
    about = {"checkpoint": checkpoint, "flip_average": args.flip_average, "size_average": args.size_average}
    for clip, kinds, camera in zip(clips, wanted, cameras, strict=True):
        report["clips"][clip.name] = predict_one(clip, camera, kinds, loaded, size, device, dict(about), args)
        write_json(args.out / MARKER, report)
    report["complete"] = True
    write_json(args.out / MARKER, report)
    print(f"report: {args.out / MARKER}")


def load_networks(args: argparse.Namespace, device: torch.device) -> LoadedModel:
    """The networks of CHECKPOINT, with the pose network of --pose-checkpoint."""
    loaded = load_model(args.checkpoint, device)
    if loaded.depth_net is None:
        raise InputError(f"{args.checkpoint}: holds no depth network, only a pose network")
    if args.pose_checkpoint:
        loaded.pose_net = load_model(args.pose_checkpoint, device).pose_net
        if loaded.pose_net is None:
            raise InputError(f"{args.pose_checkpoint}: holds no pose network")
    if loaded.pose_net is not None:
        snippet_length(loaded.pose_net, args.pose_checkpoint or args.checkpoint)
    elif args.refine:
        raise InputError(f"--refine: {args.checkpoint} holds no pose network; --pose-checkpoint FILE names one")
    return loaded


def check_clip(clip: Clip, loaded: LoadedModel, args: argparse.Namespace) -> frozenset[str]:
    """What is to be written of a clip; InputError if something was asked for that the input or checkpoint lacks.

    A part of a prepared scene does not stop the others: what it lacks is left out, with a note.
    """
    asked = args.write is not None
    kinds = set(args.write or (DEFAULT_OF_CLIPS if clip.ordered else DEFAULT_OF_IMAGES))
    lacking = kinds & set(OF_CLIPS) if not clip.ordered else set()
    if lacking and clip.part:
        clip.notes.append(f"left out: {' '.join(sorted(lacking))}: this part of {clip.source} has one frame")
    elif lacking and asked:
        raise InputError(f"--write {' '.join(sorted(lacking))}: {clip.source}: single images; give a folder or a video")
    kinds -= lacking
    if loaded.pose_net is None and kinds & set(OF_MOTION):
        if asked:
            raise InputError(
                f"--write {' '.join(sorted(kinds & set(OF_MOTION)))}: {args.checkpoint}: holds no pose network; "
                "--pose-checkpoint FILE names one"
            )
        clip.notes.append(f"no trajectory and no point cloud: {args.checkpoint} holds no pose network")
        kinds -= set(OF_MOTION)
    return frozenset(kinds)


def check_sizes(clips: list[Clip], args: argparse.Namespace) -> None:
    """UsageError if a flag is in pixels, and the inputs have several sizes."""
    sizes = sorted({size for clip in clips for size in (clip.size, *clip.other_sizes)})
    in_pixels = {"--focal": args.focal, "--intrinsics": args.intrinsics}
    in_pixels["--crop"] = args.crop if isinstance(args.crop, tuple) else None
    for flag, given in in_pixels.items():
        if given is not None and len(sizes) > 1:
            shown = ", ".join(f"{width} x {height}" for height, width in sizes[:3])
            raise UsageError(f"{flag} is in pixels of one size, the inputs have {len(sizes)} sizes: {shown}")


def predict_one(
    clip: Clip,
    camera: tuple[np.ndarray, str],
    kinds: frozenset[str],
    loaded: LoadedModel,
    size: tuple[int, int],
    device: torch.device,
    about: dict[str, Any],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Predict a clip, write what is asked for, print what was done, and return its part of the report.

    Args:
        camera: K of the clip, and where it is from.
    """
    intrinsics, source = camera
    depth_net: Any = loaded.depth_net
    refined, pose_net = None, loaded.pose_net
    too_short = clip.part and pose_net is not None and (clip.count or 0) <= pose_net.sources
    if args.refine and too_short:
        frames = loaded.pose_net.sources + 1
        clip.notes.append(f"not refined: a snippet has {frames} frames, this part of {clip.source} only {clip.count}")
    elif args.refine and clip.ordered:
        refined, depth_net, pose_net = refine_clip(clip, loaded, size, intrinsics, args)
    if args.size_average:
        depth_net = SizeAverage(depth_net)
    if pose_net is not None:
        pose_net = averaged_motion(pose_net, args.flip_average, args.size_average)
    predicted = predict_clip(
        clip, depth_net, pose_net, size, args.out, args.batch_size, device, needs_mirror(kinds), args.flip_average
    )
    notes = [*clip.notes, *predicted.notes]
    poses = predicted.world_from_camera()
    if poses is None and kinds & set(OF_MOTION):
        reason = f"{clip.source}: {len(predicted.names)} frames, too few for a snippet"
        if args.write is not None and not clip.part:
            raise InputError(f"--write {' '.join(sorted(kinds & set(OF_MOTION)))}: {reason}")
        notes.append(f"no trajectory and no point cloud: {reason}")
        kinds -= set(OF_MOTION)
    scale = scale_of_clip(clip, predicted, poses, intrinsics, notes, args)
    of_views = resized_intrinsics(intrinsics, clip.size, view_size(clip.size))
    structure = judge_structure(predicted, of_views) if len(predicted.names) > 1 and clip.ordered else None
    poses = scale.in_unit_of_depth(poses)
    result = ScaledClip(clip, predicted, intrinsics, source, scale, poses, structure)
    about |= {"refinement": refined}
    outputs = Outputs(kinds, args.depth_format, args.size == "network", args.far, args.voxel, args.sure)
    start = time.perf_counter()
    report = write_results(args.out / clip.name, result, outputs, about)
    report["notes"] = notes + report["notes"]
    rate = len(predicted.names) / predicted.seconds
    report |= {
        "source": str(clip.source),
        "frames": len(predicted.names),
        "images_per_second": rate,
        "seconds": {"predicting": predicted.seconds, "writing": time.perf_counter() - start},
        "scale": {"value": scale.value, "unit": scale.unit, "source": scale.source}
        | {"spread": scale.spread, "frames_used": scale.frames_used, "motion": scale.motion},
        "camera": {"K": None if clip.several_sizes else intrinsics.tolist(), "source": source},
        "crop": None if clip.crop is None else clip.crop.plain(),
        "structure": structure,
        "refinement": refined,
    }
    for line in report_lines(report):
        print(f"{clip.name}: {line}")
    return report


def scale_of_clip(
    clip: Clip,
    predicted: PredictedClip,
    poses: np.ndarray | None,
    intrinsics: np.ndarray,
    notes: list[str],
    args: argparse.Namespace,
) -> Scale:
    """The scale by --scale. A part of a scene that is too short for it keeps the networks' unit, with a note."""
    # The frames that are missing before a part took an unknown time: --fps does not tell when the part begins.
    times_known = clip.times_known or (args.fps is not None and not clip.part)
    try:
        return find_scale(args.scale, predicted, poses, intrinsics, clip.size, times_known, clip.offset)
    except InputError as error:
        if not clip.part or poses is not None:
            raise
        notes.append(f"no scale, depth is in the network's own unit: {error}")
        return NETWORK_UNIT


def refine_clip(
    clip: Clip, loaded: LoadedModel, size: tuple[int, int], intrinsics: np.ndarray, args: argparse.Namespace
) -> tuple[dict[str, Any], Any, Any]:
    """Train copies of the networks on a clip: what was done, the depth network and the pose network."""
    options = stored_objective(loaded.options, str(args.checkpoint))
    torch.set_flush_denormal(True)  # as in train.py: arithmetic with numbers below 1e-38 is slow on some CPUs
    refinement = Refinement(args.refine, args.refine_rate, args.refine_batch)
    depth_net: Any = copy.deepcopy(loaded.depth_net)
    pose_net = copy.deepcopy(loaded.pose_net)
    frames = store_frames(clip, size, args.out)
    small = resized_intrinsics(intrinsics, clip.size, size)
    start = time.perf_counter()
    losses = refine(depth_net, pose_net, frames, small, options, refinement, clip.name)
    tenth = max(1, len(losses) // 10)
    done = {
        "steps": refinement.steps,
        "learning_rate": refinement.learning_rate,
        "batch_size": refinement.batch_size,
        "seconds": time.perf_counter() - start,
        "loss_of_first_tenth": sum(losses[:tenth]) / tenth,
        "loss_of_last_tenth": sum(losses[-tenth:]) / tenth,
    }
    return done, depth_net, pose_net


def sha256(checkpoint: Path) -> str | dict[str, str]:
    """The hash of a checkpoint; of a folder (monodepth2's), those of its files."""
    if checkpoint.is_dir():
        return {str(file.name): str(sha256(file)) for file in sorted(checkpoint.files("*.pth"))}
    with open(checkpoint, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    run_script(main)
