"""The whole job on a synthetic world: render, prepare, train, and test on drives that training never saw.

With --video the way of one's own video: an mp4 and no calibration in; depth, trajectory and point cloud out.
"""

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from cli.flags import ArgumentParser, add_device_flag, choose_device, non_negative_int, positive_int, run_script
from cli.tables import table

import numpy as np
import torch
from matplotlib.figure import Figure
from path import Path
from tqdm import tqdm

from datasets.formats.trajectories import read_trajectory
from datasets.layout import CAMERA_FILE, SELF_CALIBRATION, read_scene_names
from datasets.preparation.view import GUESSED_FIELD_OF_VIEW, MULTIPLE
from datasets.synthetic import Drive, WorldOptions, list_drives
from evaluation.metrics.depth import DepthProtocol, image_metrics
from evaluation.metrics.pose import snippet_ate, snippets, straight_line
from evaluation.trajectories import score_trajectory
from files.atomic import write_json
from files.errors import InputError
from files.images import read_depth_picture, read_image
from files.text import read_json, read_names
from inference.camera import focal_of
from inference.depth import predict_depth, read_resized
from inference.results import KINDS
from inference.structure import structure_line
from inference.video import write_video
from models.checkpoint import load_model
from models.encoder_weights import IMAGENET
from training.logger import read_metrics

ROOT = Path(__file__).absolute().parent
BATCH_SIZE = 8
ENCODER_RATE = 0.3  # of an encoder that is not new
TRAINING = ("--recipe", "small", "--data-in-memory")  # docs/experiments.md has the comparisons
AVERAGE = "--flip-average"  # the scores are of the mean over each image and its mirror image
# Without --steps the training gets the rest of ten minutes, less a reserve and the time of what follows it.
TOTAL_SECONDS, TEST_SECONDS, MIN_STEPS, MAX_STEPS = 590, 25, 500, 3000
# A training of 503 seconds by the speed of 40 steps took 596, another one of 351 seconds 435.
START_SECONDS = 15  # before the first step: libraries, and the check of the data
SUSTAINED = 0.9  # of the speed that is measured: validations, and what a processor keeps up for minutes
PREDICT_SECONDS_PER_FRAME = 0.15  # of the video demo, with all that is written and scored
FLOAT32, BF16 = ["--precision", "float32"], ["--precision", "bf16", "--channels-last"]
PICTURED = 5  # test images in the picture of depths
VIDEO_RATE = 10  # frames per second, KITTI's and the world's
CAMERA_HEIGHT = 1.65  # metres: what the video demo is told of the world
MOST_VIDEOS = 10  # all drives of such a world have a file of true poses
FEWEST_VIDEO_FRAMES = 60
NEAR = 20.0  # metres: the scale is compared up to this depth, too
DESCRIPTION = """\
Render a small world of streets, prepare it, train on it, test on drives that training never saw, and print the errors
of depth and motion beside those of simple baselines. Nothing is downloaded.

  make demo                     also makes the environment
  python demo.py --steps 4000   trains longer
  make demo-video               python demo.py --video: a video of one drive in, depth and trajectory out

Everything is written to one folder: demo/results.json, demo/pictures, the world, the prepared data and the run, which
`tensorboard --logdir demo/runs` shows. After Ctrl-C the same command continues: every script does what is missing.

--video shows the way of your own video. It renders one long drive as an mp4 at twice the size, without calibration;
prepares it, which estimates the focal length from the video itself; trains on it, predicts all of it, and compares
focal length, depth, trajectory and the scale from the camera's height with the truth.
demo_video/predicted/drive_1/index.html shows the result."""


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--video", action="store_true", help="the demo of one's own video, in place of that of a data set")
    add("--folder", type=Path, help="output folder, new or that of a demo (default: demo; with --video demo_video)")
    add(
        "--steps",
        type=positive_int,
        help="training steps (default: those of the last run in the folder; without one as many as let the whole demo "
        f"take about {round(TOTAL_SECONDS / 60)} minutes, at most {MAX_STEPS})",
    )
    drives = "drives of the world, a fifth for testing (default: 40); with --video as many videos (default: 1)"
    add("--drives", type=positive_int, help=drives)
    add("--frames", type=positive_int, help="frames per drive (default: 36; with --video 600)")
    add("--width", type=positive_int, help="image width in pixels (default: 208; with --video 192)")
    add("--height", type=positive_int, default=64, help="image height in pixels (default: 64)")
    add("--seed", type=non_negative_int, default=0, help="seed of the world and of the training (default: 0)")
    weights = "first weights of the depth network's MobileNetV2: imagenet (downloaded), or torchvision's FILE of them"
    add("--encoder-weights", type=Path, metavar="imagenet|FILE", help=f"{weights} (default: random weights)")
    add_device_flag(parser)
    args = parser.parse_args()
    defaults: dict[str, Any] = {"folder": Path("demo"), "drives": 40, "frames": 36, "width": 208}
    if args.video:
        defaults = {"folder": Path("demo_video"), "drives": 1, "frames": 600, "width": 192}
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.video:
        check_video_sizes(parser, args)
    elif args.drives < 3:
        parser.error(f"--drives {args.drives}: expected 3 or more: for training, for validation and for testing")
    elif args.frames < BATCH_SIZE + 2:
        parser.error(f"--frames {args.frames}: expected {BATCH_SIZE + 2} or more, which make a batch of snippets of 3")
    weights = args.encoder_weights
    if weights not in (None, IMAGENET) and not weights.is_file():
        parser.error(
            f"--encoder-weights {weights}: no such file, expected mobilenet_v2-b0353104.pth of torchvision, or "
            "imagenet, which downloads it"
        )
    return args


def check_video_sizes(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    for flag, pixels in (("--width", args.width), ("--height", args.height)):
        if pixels % MULTIPLE:
            parser.error(f"{flag} {pixels}: expected a multiple of {MULTIPLE}")
    if args.drives > MOST_VIDEOS:
        parser.error(f"--drives {args.drives}: expected at most {MOST_VIDEOS} with --video")
    if args.frames < FEWEST_VIDEO_FRAMES:
        parser.error(f"--frames {args.frames}: expected {FEWEST_VIDEO_FRAMES} or more with --video")


def main() -> None:
    args = parse_arguments()
    device = choose_device(args.device)
    check_folder(args.folder)
    if args.video:
        demo_of_video(args, device)
    else:
        demo_of_data_set(args, device)


def demo_of_data_set(args: argparse.Namespace, device: torch.device) -> None:
    folder = args.folder
    world, prepared, pictures = folder / "world", folder / "prepared", folder / "pictures"
    depth_json, pose_json, images = folder / "depth.json", folder / "pose.json", world / "splits/test_files.txt"
    size = ("--width", args.width, "--height", args.height)
    on_device = ("--device", device)
    seconds: dict[str, float] = {}

    command = ["data/make_world.py", world, "--drives", args.drives, "--frames", args.frames, *size]
    run(seconds, "world", [*command, "--seed", args.seed, "--mono", "--dense-depth"])
    command = ["data/prepare_kitti.py", world / "raw", prepared, *size, "--cameras", "02", "--static", "speed"]
    command += ["--with-depth", "--with-poses", "--test-scenes", world / "splits/test_scenes.txt"]
    run(seconds, "prepare", command)
    checkpoint, steps, training = train_or_resume(args, TRAINING, device, seconds, TOTAL_SECONDS - TEST_SECONDS)

    command = ["test_depth.py", checkpoint, "--kitti", world / "raw", "--list", images, "--protocol", "dense"]
    command += ["--crop", "garg", "--training-data", prepared, "--json", depth_json, AVERAGE, *on_device]
    run(seconds, "test_depth", command)
    pictures.makedirs_p()
    command = ["test_pose.py", checkpoint, "--kitti", world / "odometry", "--sequences", *test_sequences(world)]
    command += ["--json", pose_json, "--export", pictures / "trajectories", AVERAGE, *on_device]
    run(seconds, "test_pose", command)
    start = time.perf_counter()
    rows = predict_pictures(checkpoint, world / "raw", read_names(images), (args.height, args.width))
    draw_pictures(rows, pictures / "depth.png")
    seconds["pictures"] = time.perf_counter() - start

    results = summarise(depth_json, pose_json) | about_run(seconds, steps, training, device)
    write_json(folder / "results.json", results)
    print_results(results, folder)


def train_or_resume(
    args: argparse.Namespace, flags: Sequence[Any], device: torch.device, seconds: dict[str, float], until: float
) -> tuple[Path, int, str]:
    """Train on the folder's prepared data, or go on with it: the checkpoint, its steps, and the command.

    Args:
        until: seconds of the whole demo at which the training ends.
    """
    folder, on_device = args.folder, ("--device", device)
    runs = folder / "runs"
    steps = args.steps or steps_of_last_run(runs)
    command = ["train.py", folder / "prepared", "--seed", args.seed, *flags, *on_device]
    if args.encoder_weights is not None:
        command += ["--encoder-weights", args.encoder_weights, "--encoder-rate", ENCODER_RATE]
    command += precision_flags(device, runs / f"steps_{steps}/config.json")
    if steps is None:
        steps = affordable_steps(seconds, command, folder, until)
        print(f"\n{steps} steps are what this machine has time for; --steps {steps} repeats this run", flush=True)
    command += ["--steps", steps]
    run_folder = runs / f"steps_{steps}"
    checkpoint = run_folder / "last.pt"
    if checkpoint.is_file():
        run(seconds, "train", ["train.py", "--resume", run_folder, *on_device])
    else:
        run(seconds, "train", [*command, "--runs", runs, "--name", run_folder.name])
    check_is_trained(run_folder, steps)
    return checkpoint, steps, shlex.join(map(str, command))


def check_folder(folder: Path) -> None:
    """InputError if the folder has other contents than a demo's, which begins with its world."""
    if folder.exists() and not (folder / "world").is_dir() and (not folder.is_dir() or os.listdir(folder)):
        raise InputError(
            f"{folder}: has other contents, expected a new or empty folder, or that of an earlier demo; "
            "choose another --folder"
        )


def run(seconds: dict[str, float], name: str, command: list[Any]) -> None:
    """Run a script of the project, print its command, and note its time under `name`.

    Ctrl-C and SIGTERM let the script end in order, and then end the demo.

    Raises:
        InputError: the script failed.
        KeyboardInterrupt: a signal came, and the script ended in order.
        SystemExit: Ctrl-C came, and the script has said that it ended the script.
    """
    words = [str(word) for word in command]
    print(f"\n[{name}]\n$ python {shlex.join(words)}", flush=True)
    start = time.perf_counter()
    signals: list[int] = []
    script = subprocess.Popen([sys.executable, ROOT / words[0], *words[1:]])

    def forward(number: int, frame: Any) -> None:
        signals.append(number)
        if number == signal.SIGTERM:  # the terminal sends Ctrl-C to the script itself
            script.terminate()

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = script.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signals and status in (128 + signal.SIGINT, -signal.SIGINT):
        sys.exit(128 + signal.SIGINT)  # the script has said so
    if signals:
        raise KeyboardInterrupt
    if status:
        raise InputError(f"{words[0]} failed with exit status {status}, see above; the same command continues")
    seconds[name] = time.perf_counter() - start


def steps_of_last_run(runs: Path) -> int | None:
    """The length of the run that was trained last; None if there is no run."""
    folders = [folder for folder in runs.dirs("steps_*") if folder.name[6:].isdecimal()] if runs.is_dir() else []
    if not folders:
        return None
    return int(max(folders, key=lambda folder: os.stat(folder).st_mtime).name[6:])


def check_is_trained(run_folder: Path, steps: int) -> None:
    """InputError if the training was stopped. Its last step is validated, and the validation is logged last."""
    if read_metrics(run_folder / "metrics.jsonl")[-1]["step"] < steps:
        raise InputError(f"{run_folder}: the training was stopped before step {steps}; the same command continues it")


def precision_flags(device: torch.device, config: Path) -> list[str]:
    """The precision of the run with this config.json; for a new run bfloat16 where it makes a CPU much faster (AMX)."""
    if config.is_file():
        options = read_json(config).get("options")
        return BF16 if isinstance(options, dict) and options.get("precision") == "bf16" else FLOAT32
    if device.type != "cpu" or bf16_speedup() <= 1.5:
        return FLOAT32
    print("\nthis processor is much faster in bfloat16: the convolutions of the training will use it", flush=True)
    return BF16


def bf16_speedup() -> float:
    """Time of some convolutions with their gradients on this CPU in float32, divided by that in bfloat16.

    Measured: 2.5 to 3 with AMX, 0.7 with AVX-512's own bfloat16 instructions, 0.1 to 0.3 with neither.
    """
    layers = [torch.nn.Conv2d(32, 32, 3, padding=1) for _ in range(4)]
    network = torch.nn.Sequential(*layers).to(memory_format=torch.channels_last)
    image = torch.rand(BATCH_SIZE, 32, 32, 104)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(4):
        for bf16, times in seconds.items():
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                features = network(image)
            features.float().sum().backward()
            times.append(time.perf_counter() - start)
    return min(seconds[False]) / min(seconds[True])


def affordable_steps(seconds: dict[str, float], train: list[Any], folder: Path, until: float) -> int:
    """Training steps that end about `until` seconds after the demo began, from the speed of 40 steps."""
    # In a folder of a new name, so that removing it removes nothing else.
    with tempfile.TemporaryDirectory(prefix="speed-", dir=folder) as runs:
        flags = ["--runs", runs, "--name", "run", "--steps", 40, "--log-every", 10, "--no-check"]
        run(seconds, "speed", [*train, *flags])
        records = read_metrics(Path(runs) / "run/metrics.jsonl")
    return steps_in(until - sum(seconds.values()), records)


def steps_in(seconds: float, records: list[dict[str, Any]]) -> int:
    """Steps of a training of this time, a multiple of 10, from the second half of a short training's metrics."""
    speeds = [record["speed/images_per_second"] for record in records if "speed/images_per_second" in record]
    latter = speeds[len(speeds) // 2 :]  # the first steps are slower
    speed = SUSTAINED * len(latter) / sum(1 / speed for speed in latter)
    steps = (seconds - START_SECONDS) * speed / BATCH_SIZE
    return int(min(max(steps // 10 * 10, MIN_STEPS), MAX_STEPS))


def test_sequences(world: Path) -> list[str]:
    """The test drives in the world's odometry layout: those from 09 on."""
    return sorted(file.stem for file in (world / "odometry/poses").files("*.txt") if file.stem >= "09")


def predict_pictures(checkpoint: Path, kitti: Path, images: list[str], size: tuple[int, int]) -> list[list[np.ndarray]]:
    """Pictures of a few test images: image [H, W, 3], predicted and true inverse depth, relative error, each [h, w].

    The prediction is the mean over the image and its mirror image, as in the scores (`AVERAGE`).

    Args:
        kitti: the world in the raw layout.
        images: names relative to `kitti`.
        size: (height, width) of the network's input.
    """
    depth_net = load_model(checkpoint).depth_net
    if depth_net is None:
        raise InputError(f"{checkpoint}: expected a depth network")
    names = images[len(images) // (2 * PICTURED) :: max(1, len(images) // PICTURED)][:PICTURED]
    inputs = [read_resized(kitti / name, *size) for name in names]
    depths = predict_depth(depth_net, iter(inputs), len(names), PICTURED, torch.device("cpu"), flip_average=True)
    rows = []
    for name, resized, depth in zip(names, inputs, depths, strict=True):
        disparity = 1 / depth
        true_depth = read_depth_picture(kitti / name.replace("image_02/data", "proj_depth/groundtruth/image_02"))
        known = (true_depth > 0) & (true_depth < 80)
        inverse = np.where(true_depth > 0, 1 / np.maximum(true_depth, 1e-3), 0)
        # Images do not determine the scale of the prediction, so the median depth does.
        scaled = disparity * np.median(inverse[known]) / np.median(disparity[known])
        error = np.where(known, np.abs(inverse / scaled - 1), 0)
        rows.append([resized.transpose(1, 2, 0), scaled, inverse, error])
    return rows


def draw_pictures(rows: list[list[np.ndarray]], file: Path) -> None:
    """Draw the rows of `predict_pictures` as a PNG."""
    height, width = rows[0][0].shape[:2]
    figure = Figure(figsize=(16, 4.1 * len(rows) * height / width + 0.4), layout="constrained")
    axes = figure.subplots(len(rows), 4, squeeze=False)
    for line, (image, predicted, inverse, error) in zip(axes, rows, strict=True):
        near = np.quantile(inverse, 0.97)
        line[0].imshow(image)
        line[1].imshow(predicted, cmap="magma", vmin=0, vmax=near)
        line[2].imshow(inverse, cmap="magma", vmin=0, vmax=near)
        line[3].imshow(error, cmap="viridis", vmin=0, vmax=0.5)
    titles = ("image", "predicted inverse depth", "true inverse depth", "relative error of depth (0 to 0.5)")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.savefig(file, dpi=100)
    print(f"{file}: {len(rows)} test images", flush=True)


def summarise(depth_json: Path, pose_json: Path) -> dict[str, Any]:
    """Each error beside those of the baselines, for results.json."""
    (depth,) = json.loads(depth_json.read_text())["protocols"].values()
    tested = json.loads(pose_json.read_text())["results"]
    count = sum(r["snippets"] for r in tested)
    return {
        "depth": {
            "abs_rel": depth["metrics"]["abs_rel"],
            "a1": depth["metrics"]["a1"],
            "abs_rel_mean_map": depth["baselines"]["mean_map"]["abs_rel"],
            "a1_mean_map": depth["baselines"]["mean_map"]["a1"],
            "abs_rel_constant": depth["baselines"]["best_constant"]["abs_rel"],
            "a1_constant": depth["baselines"]["best_constant"]["a1"],
            "protocol": depth["line"],
        },
        "pose": {
            "ate": sum(r["ate"]["mean"] * r["snippets"] for r in tested) / count,
            "ate_straight_line": sum(r["straight_line_ate"]["mean"] * r["snippets"] for r in tested) / count,
            "snippets": count,
        },
    }


def about_run(seconds: dict[str, float], steps: int, training: str, device: torch.device) -> dict[str, Any]:
    """What results.json says of the run itself."""
    return {
        "seconds": seconds | {"total": sum(seconds.values())},
        "seconds_meaning": "wall-clock time of each command in the call of demo.py that wrote this file; commands that "
        "found their work done by an earlier call took a few seconds",
        "steps": steps,
        "training": training,
        "device": str(device),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": version("torchvision"),
            "numpy": np.__version__,
        },
    }


def print_results(results: dict[str, Any], folder: Path) -> None:
    depth, pose = results["depth"], results["pose"]
    mean_map, constant = "mean depth map", "best constant"
    figures = (
        (
            "depth: Abs Rel (smaller is better)",
            f"{depth['abs_rel']:.3f}",
            f"{depth['abs_rel_mean_map']:.3f} {mean_map}, {depth['abs_rel_constant']:.3f} {constant}",
        ),
        (
            "depth: a1 (larger is better)",
            f"{depth['a1']:.3f}",
            f"{depth['a1_mean_map']:.3f} {mean_map}, {depth['a1_constant']:.3f} {constant}",
        ),
        (
            "motion: 3-frame ATE in metres (smaller is better)",
            f"{pose['ate']:.4f}",
            f"{pose['ate_straight_line']:.4f} straight line",
        ),
    )
    headings = ("on drives that training never saw", "this run", "to beat")
    rows = [dict(zip(headings, line, strict=True)) for line in figures]
    print(f"\n{table(rows)}\nscored: the mean of each image's prediction and its mirror image's (--flip-average)\n")
    print_times(results)
    print(f"{folder}/results.json, {folder}/pictures; tensorboard --logdir {folder}/runs")


def print_times(results: dict[str, Any]) -> None:
    seconds = results["seconds"]
    parts = ", ".join(f"{name} {value:.0f}" for name, value in seconds.items() if name != "total")
    print(f"{results['steps']} steps; {seconds['total']:.0f} seconds ({parts})")


def demo_of_video(args: argparse.Namespace, device: torch.device) -> None:
    """From videos without calibration to depth, trajectory and point cloud, and how far they are from the truth."""
    folder = args.folder
    world, prepared, predicted = folder / "world", folder / "prepared", folder / "predicted"
    seconds: dict[str, float] = {}
    options = WorldOptions(
        drives=args.drives, frames=args.frames, width=2 * args.width, height=2 * args.height, seed=args.seed
    )
    command = ["data/make_world.py", world, "--drives", options.drives, "--frames", options.frames]
    command += ["--width", options.width, "--height", options.height, "--seed", args.seed, "--mono", "--dense-depth"]
    run(seconds, "world", command)
    drives = list_drives(options)
    start = time.perf_counter()
    videos = [folder / "videos" / f"drive_{drive.number}.mp4" for drive in drives]
    for drive, video in zip(drives, videos, strict=True):
        if not video.is_file():
            film(world / "raw" / drive.name / "image_02/data", video)
    seconds["video"] = time.perf_counter() - start

    command = ["data/prepare_video.py", *videos, prepared, "--width", args.width, "--height", args.height]
    run(seconds, "prepare", command)
    estimate = estimated_camera(prepared)  # of all videos, which have one size
    training_flags = (*TRAINING, *(() if estimate else ("--camera", "learned")))
    until = TOTAL_SECONDS - PREDICT_SECONDS_PER_FRAME * options.drives * options.frames
    checkpoint, steps, training = train_or_resume(args, training_flags, device, seconds, until)
    command = ["predict.py", checkpoint, *videos, "--out", predicted, "--replace", "--write", *KINDS]
    command += ["--size", "network", "--device", device]
    command += ["--focal", f"{estimate['focal']:.3f}"] if estimate else []
    try:
        run(seconds, "predict", [*command, "--scale", "camera-height", CAMERA_HEIGHT])
    except InputError as error:  # after a short training the depth may show no road
        print(f"{error}\nwithout metres:", flush=True)
        run(seconds, "predict", command)

    start = time.perf_counter()
    reports = read_json(predicted / "predict.json")["clips"]
    scores = [
        score_video(world, drive, options, predicted / video.stem, reports[video.stem], estimate)
        for drive, video in zip(drives, videos, strict=True)
    ]
    seconds["score"] = time.perf_counter() - start
    about = about_run(seconds, steps, training, device)
    results = {"videos": dict(zip([str(video.stem) for video in videos], scores, strict=True))} | about
    write_json(folder / "results.json", results)
    print_video_results(results, folder)


def film(images: Path, video: Path) -> None:
    """Write the images of a folder as a video, whole or not at all."""
    video.parent.makedirs_p()
    files = sorted(images.files("*.png"))
    with write_video(video, VIDEO_RATE) as add:
        for file in tqdm(files, desc=str(video.name), unit="frame", leave=False, delay=2):
            add(read_image(file))
    print(f"\n{video}: {len(files)} frames, {VIDEO_RATE} per second, {video.size / 2**20:.1f} MiB", flush=True)


def estimated_camera(prepared: Path) -> dict[str, Any] | None:
    """What camera.json says of the first scene if its focal length was estimated; None if K is a guess."""
    camera = read_json(prepared / read_scene_names(prepared / "train.txt")[0] / CAMERA_FILE)
    return camera if camera["source"] == SELF_CALIBRATION else None


def score_video(
    world: Path,
    drive: Drive,
    options: WorldOptions,
    predicted: Path,
    report: dict[str, Any],
    estimate: dict[str, Any] | None,
) -> dict[str, Any]:
    """What predict.py has made of a drive's video, beside the truth.

    Args:
        predicted: the clip's folder.
        report: its part of predict.json.
        estimate: of `estimated_camera`.
    """
    if report["frames"] != options.frames:
        raise InputError(f"{predicted}: {report['frames']} frames were predicted, expected {options.frames}")
    found = read_trajectory(predicted / "trajectory.txt").world_from_camera
    truth = read_trajectory(world / f"odometry/poses/{drive.sequence}.txt").world_from_camera
    true_snippets = snippets(truth, 3)
    whole = score_trajectory(found, truth, ["none", "7dof"])
    return {
        "camera": {
            "source": report["camera"]["source"],
            "K": report["camera"]["K"],
            "true_K": drive.intrinsics.tolist(),
            "first_guess_of_focal_length": focal_of(GUESSED_FIELD_OF_VIEW, options.width),
            "self_calibration": estimate,
        },
        "depth": score_depth(world / "raw" / drive.name / "proj_depth/groundtruth/image_02", predicted, options.frames),
        "pose": {
            "ate": float(snippet_ate(true_snippets, snippets(found, 3)).mean()),
            "ate_straight_line": float(snippet_ate(true_snippets, straight_line(*true_snippets.shape[:2])).mean()),
            "ate_7dof": whole["alignments"]["7dof"]["ate_m"],
            "path": whole["path_m"],
        },
        "scale": report["scale"] | {"over_true_trajectory": 1 / whole["alignments"]["7dof"]["scale"]},
        "scale_meaning": "metres_over_truth and over_true_trajectory are the predicted scale over the true one. "
        "They mean nothing where scale.unit is arbitrary: no road was found in the depth",
        "structure": report["structure"],
    }


def score_depth(truth: Path, predicted: Path, frames: int) -> dict[str, Any]:
    """Errors of a clip's depth after median scaling of each image, beside those of two depths that see no image."""
    protocol, near = DepthProtocol(), DepthProtocol(crop="none", cap=NEAR)
    maps = [read_depth_picture(truth / f"{number:010d}.png") for number in range(frames)]
    known = np.sum([depth > 0 for depth in maps], 0)
    mean_map = np.sum(maps, 0, dtype=np.float64) / np.maximum(known, 1)
    mean_map[known == 0] = mean_map[known > 0].max()
    errors: dict[str, list[dict[str, float]]] = {"network": [], "mean_map": [], "constant": [], "near": []}
    for number, depth in enumerate(tqdm(maps, desc="scoring", unit="image", leave=False, delay=2)):
        map_of_network = np.load(predicted / f"depth/{number:07d}.npy")
        for name, one in (("network", map_of_network), ("mean_map", mean_map), ("constant", np.ones((8, 8)))):
            errors[name].append(image_metrics(one, depth, protocol))
        errors["near"].append(image_metrics(map_of_network, depth, near))

    def mean(name: str, figure: str, first: int = 0) -> float:
        return float(np.mean([image[figure] for image in errors[name][first:]]))

    unseen = frames - max(1, frames // 10)  # data/prepare_video.py keeps the last tenth for validation
    return {
        "abs_rel": mean("network", "abs_rel"),
        "a1": mean("network", "a1"),
        "abs_rel_unseen": mean("network", "abs_rel", unseen),
        "abs_rel_mean_map": mean("mean_map", "abs_rel"),
        "abs_rel_constant": mean("constant", "abs_rel"),
        "protocol": "dense truth below 80 m, Garg crop, median scaling of each image; unseen: the last tenth",
        # The depth is in metres by the camera's height: a true scale has 1.
        "metres_over_truth": 1 / float(np.median([image["scale"] for image in errors["network"]])),
        "metres_over_truth_within_20_m": 1 / float(np.median([image["scale"] for image in errors["near"]])),
    }


def print_video_results(results: dict[str, Any], folder: Path) -> None:
    for name, scores in results["videos"].items():
        camera, depth, pose, scale = (scores[key] for key in ("camera", "depth", "pose", "scale"))
        guess = f"{camera['first_guess_of_focal_length']:.1f}"
        way = f"by self-calibration, the guess is {guess}" if camera["self_calibration"] else f"learned from {guess}"
        rows = [
            ("focal length fx in pixels of the video", f"{camera['K'][0][0]:.1f}",
             f"{camera['true_K'][0][0]:.1f} true; {way}"),
            ("depth: Abs Rel, all frames", f"{depth['abs_rel']:.3f}",
             f"to beat: {depth['abs_rel_mean_map']:.3f} mean depth map, {depth['abs_rel_constant']:.3f} constant"),
            ("depth: Abs Rel, last tenth, not trained on", f"{depth['abs_rel_unseen']:.3f}", ""),
            ("motion: 3-frame ATE in metres", f"{pose['ate']:.4f}",
             f"to beat: {pose['ate_straight_line']:.4f} straight line"),
            ("trajectory: ATE in metres, 7-DoF alignment", f"{pose['ate_7dof']:.2f}", f"path: {pose['path']:.0f} m"),
        ]  # fmt: skip
        if scale["unit"] == "metres":
            others = (
                f"{depth['metres_over_truth']:.3f} by all depth, {scale['over_true_trajectory']:.3f} by the trajectory"
            )
            rows.append(
                ("scale from camera height over the true one", f"{depth['metres_over_truth_within_20_m']:.3f}",
                 f"1; by depth within {NEAR:.0f} m ({others})")
            )  # fmt: skip
        else:
            rows.append(("scale from camera height", "none", "the depth shows no road: train for more steps"))
        print(f"\n{name}.mp4\n{table([dict(zip(('figure', 'this run', 'truth'), row, strict=True)) for row in rows])}")
        print(structure_line(scores["structure"]))
    print()
    print_times(results)
    print(f"{folder}/results.json, {folder}/predicted (index.html of each video); tensorboard --logdir {folder}/runs")


if __name__ == "__main__":
    run_script(main)
